# What grows, and what must not. Sourced by scripts/bench.
# shellcheck shell=bash

group random
row 'within 1.3' random-read empty-read 'random 4 KiB of save.tar' 'an empty FUSE read'

# direct FILE random|start: the median of 5,000 reads of 4 KiB past the kernel's cache.
direct() {
    VALUE=$(python3 - "$1" "$2" <<'END'
import mmap, os, random, statistics, sys, time
path, where = sys.argv[1:]
file = os.open(path, os.O_RDONLY | os.O_DIRECT)
pages = max(1, os.fstat(file).st_size // 4096)
random.seed(1)
buffer, took = [mmap.mmap(-1, 4096)], []
for _ in range(5000):
    offset = random.randrange(pages) * 4096 if where == 'random' else 0
    start = time.perf_counter_ns()
    os.preadv(file, buffer, offset)
    took.append(time.perf_counter_ns() - start)
print(round(statistics.median(took) / 1000))
END
    )
}
do_random-read() {
    need_image
    fresh "docker:$DOCKER"
    cat "$MOUNT/images/$IMAGE/save.tar" >/dev/null
    direct "$MOUNT/images/$IMAGE/save.tar" random
}
do_empty-read() {
    need_image
    fresh "docker:$DOCKER"
    direct "$MOUNT/images/$IMAGE/id" start
}

group store
row 'below 100 ms' store-names - "mount $STORE_IMAGES images, $((STORE_IMAGES * 4 * STORE_FILES)) files, ls images/" '-'
row 'below 32 MiB' store-memory - 'memory after that' '-'
row 'below 1000 ms' store-sizes - 'ls -l of all image directories, index on disk' '-'
row 'below 96 MiB' store-sizes-memory - 'memory after that' '-'
row 'faster 0.9' store-parallel store-single '24 cat save.tar of different images' 'the same, one by one'

do_store-names() {
    need_store
    timed "'$STRATAFS' mount --cache '$CACHE' docker:$WORK/store '$MOUNT'; ls '$MOUNT/images' >/dev/null"
    DAEMON=$(daemon)
}
do_store-memory() {
    do_store-names
    VALUE=$(resident "$DAEMON")
}
do_store-sizes() {
    need_store
    "$STRATAFS" cache build --help >/dev/null 2>&1 || { absent; return; }
    [ -e "$RUN/store-indexed" ] ||
        "$STRATAFS" -q cache build --cache "$CACHE" "docker:$WORK/store" >/dev/null
    touch "$RUN/store-indexed"
    fresh "docker:$WORK/store"
    timed "ls -l '$MOUNT'/images/*/ >/dev/null"
}
do_store-sizes-memory() {
    do_store-sizes
    [ -n "$ABSENT" ] || VALUE=$(resident "$DAEMON")
}
archives() { seq -f "$MOUNT/images/many:%g/save.tar" 0 23; }
do_store-single() {
    need_store
    fresh "docker:$WORK/store"
    archives | xargs stat >/dev/null
    timed 'archives | xargs -n 1 cat >/dev/null'
}
do_store-parallel() {
    need_store
    fresh "docker:$WORK/store"
    archives | xargs stat >/dev/null
    timed 'archives | xargs -n 1 -P 24 cat >/dev/null'
}

group index
row 'below 100 bytes' index-size - 'index on disk, a file' '-'

do_index-size() {
    need_image
    "$STRATAFS" cache build --help >/dev/null 2>&1 || { absent; return; }
    rm -rf "$RUN/index"
    "$STRATAFS" -q cache build --cache "$RUN/index" "docker:$DOCKER" >/dev/null
    VALUE=$(($(du -sb "$RUN/index" | cut -f1) / $(find "$DOCKER"/overlay2/*/diff -type f | wc -l)))
}

group readers
row 'faster 0.9' parallel-64 single-64 '64 cat save.tar at once, a byte' 'one reader, a byte'

do_single-64() {
    need_image
    fresh "docker:$DOCKER"
    stat "$MOUNT/images/$IMAGE/save.tar" >/dev/null
    timed "cat $MOUNT/images/$IMAGE/save.tar >/dev/null"
    VALUE=$((VALUE * 64))
}
do_parallel-64() {
    need_image
    fresh "docker:$DOCKER"
    stat "$MOUNT/images/$IMAGE/save.tar" >/dev/null
    timed "seq 64 | xargs -I{} -P 64 cat $MOUNT/images/$IMAGE/save.tar >/dev/null"
}

group wide
row 'within 1.1' wide-all wide-tenth "layer.tar of $WIDE_FILES files, a file" 'of a tenth as many'
row 'below 96 MiB' wide-memory - 'memory after that' '-'

row 'below 96 MiB' sparse-memory - 'memory after a walk over export.tar with 1 TiB, sparse' '-'

# A container with a file of 1 TiB that takes no room.
need_sparse() {
    need_image
    once sparse || return 0
    docker create --network none --name sparse $IMAGE none >/dev/null
    truncate -s 1T "$(docker inspect -f '{{.GraphDriver.Data.UpperDir}}' sparse)/huge"
    made sparse
}
do_sparse-memory() {
    need_sparse
    fresh "docker:$DOCKER"
    # A place in each of 1,000 parts, and the end.
    python3 - "$MOUNT/containers/sparse/export.tar" <<'END'
import os, sys
file = os.open(sys.argv[1], os.O_RDONLY)
size = os.fstat(file).st_size
assert size > 1 << 40
for part in range(1000):
    assert len(os.pread(file, 65536, size // 1000 * part)) == 65536
assert os.pread(file, 1024, size - 1024) == bytes(1024)
END
    VALUE=$(resident "$DAEMON")
}

# wide FILES: reads the archive of a layer with so many, to the tenfold of the time a file takes in ns.
wide() {
    need_wide "$1"
    fresh "docker:$WORK/wide-$1"
    timed "cat '$MOUNT'/images/many:0/layers/00-*/layer.tar >/dev/null"
    WIDE_MEMORY=$(resident "$DAEMON")
    VALUE=$((VALUE * 10000 / $1))
}
do_wide-all() { wide "$WIDE_FILES"; }
do_wide-tenth() { wide $((WIDE_FILES / 10)); }
do_wide-memory() {
    wide "$WIDE_FILES"
    VALUE=$WIDE_MEMORY
}

group compressed
for how in gzip zstd; do
    row 'faster 0.9' "$how-first" "$how-tool" "first read of a $how layer" "$how -dc of the blob"
    row 'within 1.1' "$how-again" layer-plain "later read of a $how layer" 'of an uncompressed one'
    eval "
        do_$how-first() { first_read $how; }
        do_$how-again() { later_read $how; }
        do_$how-tool() { need_layouts; timed \"$how -dc <\$(blob $how) >/dev/null\"; }"
done
first_read() {
    local CACHE=$RUN/inflated
    need_layouts
    rm -rf "$CACHE"
    fresh "oci:$WORK/$1"
    timed "cat '$MOUNT'/images/*/layers/00-*/layer.tar >/dev/null"
}
later_read() {
    local CACHE=$RUN/inflated
    first_read "$1"
    fresh "oci:$WORK/$1"
    cat "$MOUNT"/images/*/layers/00-*/layer.json >/dev/null
    timed "cat '$MOUNT'/images/*/layers/00-*/layer.tar >/dev/null"
}
do_layer-plain() {
    need_image
    fresh "docker:$DOCKER"
    timed "cat '$MOUNT/images/$IMAGE'/layers/00-*/layer.tar >/dev/null"
}

group killed
row 'below 1000 ms' killed - 'a reader is killed: until it is gone' '-'

# In the middle of a read that no cache helps.
do_killed() {
    local pid
    need_image
    fresh "docker:$DOCKER"
    dd "if=$MOUNT/images/$IMAGE/save.tar" of=/dev/null iflag=direct bs=4k status=none &
    pid=$!
    sleep 0.3
    timed "kill -9 $pid; while [ -d /proc/$pid ]; do sleep 0.001; done"
    wait $pid 2>/dev/null || true
}

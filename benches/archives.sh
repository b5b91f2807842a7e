# Archives of one image, and of its container. Sourced by scripts/bench.
# shellcheck shell=bash

SAVE=images/$IMAGE/save.tar
EXPORT=containers/bench/export.tar

group archives
row 'faster 13' save docker-save 'cat save.tar' 'docker save'
row 'faster 2' save layer-files 'cat save.tar' 'xargs cat of the layers'\'' files'
row 'faster 4' save-again layer-files 'cat save.tar, again' 'xargs cat of the layers'\'' files'
row 'faster 2' save layer-tars 'cat save.tar' 'tar of the layers'\'' directories'
row 'faster 18' save-direct docker-save 'dd iflag=direct bs=1M of save.tar' 'docker save'
row 'faster 18' save-cp docker-save 'stratafs cp to a tmpfs' 'docker save'
row 'faster 8' export docker-export 'cat export.tar' 'docker export'
row 'below 5 ms' save-first-indexed - 'first byte of save.tar, index on disk' '-'
row 'below 150 ms' save-first-cold - 'first byte of save.tar, nothing cached' '-'
row none save-first-cold docker-save-first 'first byte of save.tar, nothing cached' 'docker save'
row 'within 1.05' cp cp-plain 'cp save.tar to a disk' 'cp of a plain file'
row 'within 1.05' cp-own cp-plain 'stratafs cp to a disk' 'cp of a plain file'
row none save floor-save 'cat save.tar' 'FUSE alone'
row none floor-save docker-save 'FUSE alone' 'docker save'
row none floor-save layer-files 'FUSE alone' 'xargs cat of the layers'\'' files'
row none floor-save docker-export 'FUSE alone' 'docker export'
row none floor-cp cp-plain 'FUSE alone, cp to a disk' 'cp of a plain file'
row 'below 0 bytes' save-space - 'temporary space of cat save.tar' '-'

# ours FILE COMMAND: a command on a file of a fresh mount that was looked at before.
ours() {
    need_image
    fresh "docker:$DOCKER"
    stat "$MOUNT/$1" >/dev/null
    timed "$2"
}

do_save() { ours $SAVE "cat $MOUNT/$SAVE >/dev/null"; }
do_save-again() {
    ours $SAVE "cat $MOUNT/$SAVE >/dev/null"
    timed "cat $MOUNT/$SAVE >/dev/null"
}
do_save-direct() { ours $SAVE "dd if=$MOUNT/$SAVE of=/dev/null iflag=direct bs=1M status=none"; }
do_save-cp() {
    need_image
    warm_memory
    timed "'$STRATAFS' -q cp -s docker:$DOCKER --cache '$CACHE' $SAVE /dev/shm/stratafs-bench.tar"
    rm -f /dev/shm/stratafs-bench.tar
}
do_export() { ours $EXPORT "cat $MOUNT/$EXPORT >/dev/null"; }
do_docker-save() { need_image; timed "docker save $IMAGE >/dev/null"; }
do_docker-export() { need_image; timed "docker export bench >/dev/null"; }
do_docker-save-first() { need_image; timed "head -c 1 < <(docker save $IMAGE) >/dev/null"; }
do_layer-files() { need_layer_files; timed "xargs -0 cat <$RUN/files >/dev/null"; }
do_layer-tars() {
    need_layer_files
    # GNU tar reads nothing where it sees that it writes to /dev/null.
    timed "while read -r dir; do tar -C \"\$dir\" -cf - . | cat; done <$RUN/layers >/dev/null"
}

do_save-first-indexed() {
    need_image
    "$STRATAFS" cache build --help >/dev/null 2>&1 || { absent; return; }
    "$STRATAFS" -q cache build --cache "$CACHE" "docker:$DOCKER" >/dev/null
    fresh "docker:$DOCKER"
    timed "head -c 1 $MOUNT/$SAVE >/dev/null"
}
do_save-first-cold() {
    need_image
    fresh "docker:$DOCKER" --cache-size 0
    timed "head -c 1 $MOUNT/$SAVE >/dev/null"
}

# to_disk COMMAND: one that writes $WORK/copy.tar.
to_disk() {
    rm -f "$WORK/copy.tar"
    sync -f "$WORK"
    warm_memory
    $1 "$2"
    rm -f "$WORK/copy.tar"
}
do_cp-plain() { need_plain; to_disk timed "cp '$WORK/plain.tar' '$WORK/copy.tar'"; }
do_cp() { to_disk "ours $SAVE" "cp $MOUNT/$SAVE '$WORK/copy.tar'"; }
do_cp-own() {
    need_image
    to_disk timed "'$STRATAFS' -q cp -s docker:$DOCKER --cache '$CACHE' $SAVE '$WORK/copy.tar'"
}
# Zeros, as many as the archive has bytes.
floor_ours() {
    need_image
    if [ -z "$SAVE_SIZE" ]; then
        fresh "docker:$DOCKER"
        SAVE_SIZE=$(stat -c %s "$MOUNT/$SAVE")
    fi
    floor "$SAVE_SIZE"
    timed "$1"
}
SAVE_SIZE=
do_floor-save() { floor_ours "cat $MOUNT/zeros >/dev/null"; }
do_floor-cp() { to_disk floor_ours "cp $MOUNT/zeros '$WORK/copy.tar'"; }

# What the daemon wrote anywhere while it was read.
do_save-space() {
    do_save
    VALUE=$WRITTEN
}

# Files of rootfs/, beside the same layers as the kernel merges them. Sourced by scripts/bench.
# shellcheck shell=bash

# need_merged IMAGE: a kernel overlay of its layers, all of it in memory.
need_merged() {
    overlay "$(layers "$1")"
    tar -C "$RUN/overlay" -cf - . | cat >/dev/null
}

# in_tree IMAGE PASS COMMAND: a command in a rootfs/ of a fresh mount, timed at its first or second
# run. Mount options that a row wants are in OPTIONS.
in_tree() {
    fresh "docker:$DOCKER" "${OPTIONS[@]}"
    cd "$MOUNT/images/$1/rootfs"
    [ "$2" = 1 ] || eval "$3"
    timed "$3"
    cd "$OLDPWD"
}
OPTIONS=()

# in_overlay IMAGE COMMAND: the same in the kernel's.
in_overlay() {
    need_merged "$1"
    cd "$RUN/overlay"
    timed "$2"
    cd "$OLDPWD"
}

# in_floor IMAGE COMMAND: a first one on the same names, where all answers are ready.
in_floor() {
    need_merged "$1"
    floor 0 "$RUN/overlay"
    cd "$MOUNT/tree"
    timed "$2"
    cd "$OLDPWD"
}

FIND='find . -ls >/dev/null'
TAR='tar -cf - . 2>/dev/null | cat >/dev/null'
GREP='grep -r no.such.words . >/dev/null 2>&1 || true'
RSYNC="rm -rf /dev/shm/stratafs-bench; rsync -a ./ /dev/shm/stratafs-bench/; rm -rf /dev/shm/stratafs-bench"
DRY='rsync -an ./ /no/such/ >/dev/null'

# both TREE IMAGE: the rows that the made-up tree and the real one have in common.
both() {
    local tree=$1 image=$2 need=$3
    shift 3
    row "within $1" "find-1-$tree" "find-kernel-$tree" "first find -ls, $tree" 'kernel overlay'
    row "within $2" "find-2-$tree" "find-kernel-$tree" "second find -ls, $tree" 'kernel overlay'
    row none "floor-find-1-$tree" "find-kernel-$tree" "FUSE alone, first find -ls, $tree" 'kernel overlay'
    row "within $3" "tar-1-$tree" "tar-kernel-$tree" "first tar, $tree" 'kernel overlay'
    row "within $4" "tar-2-$tree" "tar-kernel-$tree" "second tar, $tree" 'kernel overlay'
    eval "
        do_find-1-$tree() { $need; in_tree $image 1 \"\$FIND\"; }
        do_find-2-$tree() { $need; in_tree $image 2 \"\$FIND\"; }
        do_floor-find-1-$tree() { $need; in_floor $image \"\$FIND\"; }
        do_find-kernel-$tree() { $need; in_overlay $image \"\$FIND\"; }
        do_tar-1-$tree() { $need; in_tree $image 1 \"\$TAR\"; }
        do_tar-2-$tree() { $need; in_tree $image 2 \"\$TAR\"; }
        do_tar-kernel-$tree() { $need; in_overlay $image \"\$TAR\"; }"
}

group tree
both tree tree:1 need_tree 1.5 0.9 1.4 0.8
row 'within 1.6' grep grep-kernel 'first grep -r' 'kernel overlay'
row 'within 1.3' rsync rsync-kernel 'first rsync -a' 'kernel overlay'
row 'within 1.0' ls-noxattrs ls-kernel 'ls -lR, noxattrs' 'kernel overlay'
row 'within 1.0' dry-noxattrs dry-kernel 'second rsync -an, noxattrs' 'kernel overlay'
row 'within 1.0' du-noxattrs du-kernel 'du, noxattrs' 'kernel overlay'
row 'faster 0.95' tar-submount tar-kernel-fresh 'first tar, --kernel-rootfs' 'kernel overlay, just mounted'
row none tar-submount tar-kernel-tree 'first tar, --kernel-rootfs' 'kernel overlay'
row 'below 110 bytes' memory-walked - 'memory for a file that was walked' '-'

do_grep() { need_tree; in_tree tree:1 1 "$GREP"; }
do_grep-kernel() { need_tree; in_overlay tree:1 "$GREP"; }
do_rsync() { need_tree; in_tree tree:1 1 "$RSYNC"; }
do_rsync-kernel() { need_tree; in_overlay tree:1 "$RSYNC"; }
do_ls-kernel() { need_tree; in_overlay tree:1 'ls -lR >/dev/null'; }
do_dry-kernel() { need_tree; in_overlay tree:1 "$DRY"; }
do_du-kernel() { need_tree; in_overlay tree:1 'du -s >/dev/null'; }

# A walk first: `ls` and `du` are held to a warm kernel.
without_xattrs() {
    local OPTIONS=(-o noxattrs)
    need_tree
    in_tree tree:1 2 "$1"
}
do_ls-noxattrs() { without_xattrs 'ls -lR >/dev/null'; }
do_dry-noxattrs() { without_xattrs "$DRY"; }
do_du-noxattrs() { without_xattrs 'du -s >/dev/null'; }

do_tar-submount() {
    local OPTIONS=(--kernel-rootfs '*')
    knows mount --kernel-rootfs || { absent; return; }
    need_tree
    in_tree tree:1 1 "$TAR"
}

# The kernel knows the files, and not yet what the overlay makes of them: as with ours.
do_tar-kernel-fresh() {
    need_tree
    need_merged tree:1
    OVERLAID=
    overlay "$(layers tree:1)"
    cd "$RUN/overlay"
    timed "$TAR"
    cd "$OLDPWD"
}

do_memory-walked() {
    local before
    need_tree
    fresh "docker:$DOCKER"
    ls "$MOUNT/images/tree:1/rootfs" >/dev/null
    before=$(resident "$DAEMON")
    find "$MOUNT/images/tree:1/rootfs" -ls >/dev/null
    VALUE=$((($(resident "$DAEMON") - before) * 1024 / TREE_FILES))
}

group system
both system $IMAGE need_image 2.2 1.0 1.8 0.95

group large
row 'faster 0.75' large-cp large-cp-file 'cp of a 1 GB file of rootfs/ to a tmpfs' 'the file itself'
row 'faster 0.92' large-sum large-sum-file 'sha256sum of it' 'the file itself'
row none floor-large-cp large-cp-file 'FUSE alone, cp of it' 'the file itself'
row none floor-large-sum large-sum-file 'FUSE alone, sha256sum' 'the file itself'
row 'faster 0.95' large-cp-submount large-cp-file 'cp, --kernel-rootfs' 'the file itself'
row 'faster 0.95' large-sum-submount large-sum-file 'sha256sum, --kernel-rootfs' 'the file itself'

LARGE_CP='cp [lz]* /dev/shm/stratafs-bench.large; rm /dev/shm/stratafs-bench.large' # large or zeros
LARGE_SUM='sha256sum [lz]* >/dev/null'
large_floor() {
    need_large
    warm_memory
    floor $((LARGE_MB << 20))
    cd "$MOUNT"
    timed "$1"
    cd "$OLDPWD"
}
do_floor-large-cp() { large_floor "$LARGE_CP"; }
do_floor-large-sum() { large_floor "$LARGE_SUM"; }
in_layer() {
    need_large
    cd "$DOCKER/overlay2/$(layers large:1)"
    cat large >/dev/null
    timed "$1"
    cd "$OLDPWD"
}
large() { need_large; warm_memory; in_tree large:1 1 "$1"; }
large_submount() {
    local OPTIONS=(--kernel-rootfs '*')
    knows mount --kernel-rootfs || { absent; return; }
    large "$1"
}
do_large-cp() { large "$LARGE_CP"; }
do_large-sum() { large "$LARGE_SUM"; }
do_large-cp-file() { warm_memory; in_layer "$LARGE_CP"; }
do_large-sum-file() { in_layer "$LARGE_SUM"; }
do_large-cp-submount() { large_submount "$LARGE_CP"; }
do_large-sum-submount() { large_submount "$LARGE_SUM"; }

#!/usr/bin/env bash
# What people run on such a tree: find, tar, rsync, cp, diff, and the answers to writes.
. "$(dirname "$0")/lib.sh"
. "$HERE/scenario.sh"
topic

scenario overlay2
mount_store overlay2
LIVE=$M/containers/live/rootfs IMAGE=$M/images/app:3/rootfs
merged "$(layer_of_container live)"
LIVE_WANTED=$K
merged "$(layer_of_image app:3)"
IMAGE_WANTED=$K

quiet() { same "$("$@" 2>&1 >/dev/null)" ''; }

copied() {
    cp -a "$LIVE" "$MINE/copied"
    same_files --copy "$LIVE_WANTED" "$MINE/copied"
}

tarred() {
    mkdir "$MINE/tarred"
    tar -C "$IMAGE" --format=posix --xattrs --xattrs-include='*' -c . |
        tar -C "$MINE/tarred" --xattrs --xattrs-include='*' --numeric-owner -px
    same_files --copy "$IMAGE_WANTED" "$MINE/tarred"
}

synced() {
    rsync -aHAX --numeric-ids "$LIVE/" "$MINE/synced/"
    same_files --copy "$LIVE_WANTED" "$MINE/synced"
    same "$(rsync -aHAXi --numeric-ids --delete "$LIVE/" "$MINE/synced/")" ''
}

# The second run sees by size and time alone that nothing is to be done.
archives_synced() {
    local from=("$M/images/app:3/save.tar" "$M/containers/changed/export.tar")
    rsync -t "${from[@]}" "$MINE/archives/"
    same "$(rsync -ti "${from[@]}" "$MINE/archives/")" ''
}

# diff(1) calls two special files different however like they are.
compared() {
    diff -r --no-dereference -x 'fifo*' -x char -x block -x sock -x console "$LIVE" "$LIVE_WANTED"
}

extracted() {
    mkdir "$MINE/extracted"
    tar -C "$MINE/extracted" --numeric-owner -px <"$IMAGE/../export.tar"
    same_files --exported "$IMAGE_WANTED" "$MINE/extracted"
}

check "find walks the whole mount" quiet find "$M" -ls
check "ls -lR" quiet ls -lR "$M/images/app:3" "$M/containers"
check "du" quiet du -s "$M/images/app:3" "$M/containers/live"
check "grep -r" same "$(grep -rl '^tool$' "$IMAGE/usr")" "$IMAGE/usr/bin/tool"
check "df and stat -f" quiet sh -c "df '$M' && stat -f '$M'"
check "cp -a" copied
check "tar out and in" tarred
check "rsync -aHAX, twice" synced
check "rsync of archives, twice" archives_synced
check "diff -r" compared
check "export.tar, unpacked, is the image's files" extracted
check "a program runs from the mount" same "$("$IMAGE/usr/bin/busybox" echo ran)" ran

refused() { fails_with 'Read-only file system' "$@"; }
overwrite() { : >"$1"; }
for dir in "$LIVE/zoo" "$M" "$M/images" "$M/containers"; do
    check "touch in ${dir#"$MINE"/}" refused touch "$dir/new"
    check "mkdir in ${dir#"$MINE"/}" refused mkdir "$dir/new"
done
FILE=$LIVE/zoo/user
check "touch" refused touch "$FILE"
check "overwrite" refused overwrite "$FILE"
check "rm" refused rm -f "$FILE"
check "mv" refused mv "$FILE" "$FILE.2"
check "ln" refused ln "$FILE" "$FILE.2"
check "ln -s" refused ln -s x "$LIVE/zoo/link"
check "mknod" refused mknod "$LIVE/zoo/node" c 1 3
check "rmdir" refused rmdir "$LIVE/tmp"
check "chmod" refused chmod 777 "$FILE"
check "chown" refused chown 1 "$FILE"
check "setfattr" refused setfattr -n user.x -v 1 "$FILE"
check "rm save.tar" refused rm -f "$M/images/base:1/save.tar"

mounted_as() { findmnt -no OPTIONS "$M" | tr , '\n' | grep -qxF "$1"; }
for option in ro nosuid nodev default_permissions; do
    check "mounted $option" mounted_as $option
done
check "archives are for the owner alone" same \
    "$(stat -c %a "$M/images/base:1/save.tar" "$M/containers/live/export.tar" | tr '\n' ' ')" '400 400 '

#!/usr/bin/env bash
# The daemon's life: unmounting, signals, being killed, mounting again.
. "$(dirname "$0")/lib.sh"
. "$HERE/scenario.sh"
topic

scenario overlay2
not_mounted() { ! is_mounted "$1"; }
gone() { not_mounted "$1" && ! daemon_of "$1" 2>/dev/null; }
signal() { kill "-$1" "$(daemon_of "$M")"; }
inodes() { find "$M/images/base:1/rootfs" -printf '%i %P\n'; }

mount_store umount
check "umount unmounts" "$STRATAFS" umount "$M"
check "and the daemon ends" within 5 gone "$M"

mount_store term
check "SIGTERM reaches the daemon" signal TERM
check "and unmounts" within 5 gone "$M"

mount_store busy
exec 9<"$M/images/base:1/save.tar" || exec 9</dev/null
check "SIGTERM, with an open file" signal TERM
check "unmounts as well" within 5 not_mounted "$M"
exec 9<&-
check "and the daemon ends with the file" within 5 gone "$M"

mount_store one
inodes >"$MINE/before" || true
check "kill -9" signal KILL
check "after it the same place can be mounted again" mount_store one
check "and shows the image" cmp <(docker save base:1) "$M/images/base:1/formats/docker-1.10.tar"
check "with the same inode numbers" diff -q "$MINE/before" <(inodes)
check "a second mount of the same store" mount_store two
check "shows the same bytes" cmp "$MINE/one/images/app:3/save.tar" "$MINE/two/images/app:3/save.tar"

inside() {
    "$STRATAFS" mount "docker:$ROOT" "$ROOT/volumes"
    umount -l "$ROOT/volumes"
}
check "a mount point inside the store is refused" fails_with stratafs inside
mkdir "$MINE/no-store"
check "what is no store is refused" \
    fails_with no-store "$STRATAFS" mount "docker:$MINE/no-store" "$MINE/no-store"
check "its version" grep -q '[0-9]' "$MINE/one/.stratafs/version"
check "its README" grep -q images/ "$MINE/one/README"

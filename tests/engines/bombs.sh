#!/usr/bin/env bash
# Layers that inflate to far more than they are, mounted: BOMB_GIB GiB each, 1 unless told otherwise.
# With 8 it takes some minutes.
. "$(dirname "$0")/lib.sh"
topic

GIB=${BOMB_GIB:-1}
CACHE_MIB=16
mkdir "$MINE/bombs"
python3 "$HERE/bombs.py" "$MINE/bombs" "$GIB"
check "a bomb is 30,000 times as large as its blob" [ "$(cat "$MINE/bombs/ratio")" -ge 30000 ]
layer=images/bomb:1/layers/00-$(cut -c 8-19 "$MINE/bombs/diff_id")/layer.tar

good() { same "$(cat "$M/images/good:1/rootfs/file")" good; }
# The neighbour answers while the bomb goes off, and not after.
meanwhile() {
    stat -c %s "$M/$layer" >"$MINE/size" &
    local bomb=$! answers=0
    while kill -0 $bomb 2>/dev/null; do
        good
        answers=$((answers + 1))
    done
    wait $bomb
    [ $answers -gt 2 ] || { echo "$answers answers"; return 1; }
}
size() { same "$(cat "$MINE/size")" $(((GIB << 30) + 512)); }
last() { same "$(tail -c 1000 "$M/$layer" | tr -d '\0' | wc -c)" 0; }
listed() { same "$(stat -c '%n %s' "$M"/images/bomb:1/rootfs/* | sed 's|.*/||')" "zeros $(((GIB << 30) - (64 << 20)))"; }
is_small() {
    local peak held
    peak=$(awk '/VmHWM/ { print $2 }' "/proc/$(daemon_of "$M")/status")
    [ "$peak" -le $(((CACHE_MIB + 64) << 10)) ] || { echo "$peak KiB"; return 1; }
    held=$(find "$MINE/cache/data" "$MINE/cache/index" -type f -printf '%s\n' | awk '{ n += $1 } END { print n + 0 }')
    [ "$held" -le $((CACHE_MIB << 20)) ] || { echo "the cache holds $held"; return 1; }
}

M=$MINE/mnt
mkdir "$M"
for kind in zstd gzip empty-members gzip-in-gzip zstd-in-gzip zstd-in-zstd; do
    rm -rf "$MINE/cache"
    "$STRATAFS" mount --cache "$MINE/cache" --cache-size ${CACHE_MIB}M "$MINE/bombs/$kind" "$M"
    check "$kind: the neighbour answers meanwhile" meanwhile
    check "$kind: its size is told" size
    check "$kind: its end can be read" last
    check "$kind: its files are listed" listed
    check "$kind: memory and cache stay small" is_small
    check "$kind: nothing went wrong" same "$(cat "$M/.stratafs/errors")" ""
    "$STRATAFS" umount "$M"
done

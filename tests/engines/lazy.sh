#!/usr/bin/env bash
# Lazy: listing 50 images opens no layer, and the size of an archive needs no file's content.
. "$(dirname "$0")/lib.sh"
topic

start_dockerd "$MINE/docker" overlay2
mkdir "$MINE/in"
for at in $(seq 10); do
    echo "$at" >"$MINE/in/file"
    tar -C "$MINE/in" -c . | docker import - "image$at:1" >/dev/null
    for tag in 2 3 4 5; do
        docker tag "image$at:1" "image$at:$tag"
    done
done
stop_dockerd "$MINE/docker"

M=$MINE/mounted
mkdir "$M"
strace -f -y -qq -e trace=open,openat,openat2,open_by_handle_at -o "$MINE/trace" \
    "$STRATAFS" mount -f "docker:$ROOT" "$M" >"$MINE/said" 2>&1 &
strace=$!
check "mounts in the foreground" within 20 is_mounted "$M"

# opened PATTERN: prints what was opened under overlay2/ or layerdb/ since the mount, if it fits.
opened() {
    sleep 0.5
    tail -c "+$begin" "$MINE/trace" | grep -oE "= [0-9]+<[^>]*/(overlay2|layerdb)/[^>]*" |
        grep -E "$1" || true
}

sleep 1
begin=$(stat -c %s "$MINE/trace")

check "ls -l shows 50 images and 10 repositories" same "$(ls -l "$M/images" | tail -n +2 | wc -l)" 60
check "it opens no layer and no tar-split" same "$(opened '/overlay2/[^/]+/diff|tar-split')" ''
check "stat of save.tar" stat "$M/images/image3:1/save.tar"
check "ls -l of an image" ls -l "$M/images/image3:1" "$M/images/image3:1/formats"
check "they open no file of a layer" same "$(opened '/overlay2/[^/]+/diff/')" ''
check "but reading it does" grep -q 3 "$M/images/image3:1/save.tar"
check "which this test sees" grep -q /diff/file <<<"$(opened '/overlay2/[^/]+/diff/')"
check "umount" "$STRATAFS" umount "$M"
check "the daemon ends with the mount" within 5 [ ! -e "/proc/$strace" ]

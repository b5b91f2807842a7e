#!/usr/bin/env bash
# A damaged store: an error instead of wrong bytes, for what is damaged and nothing else.
. "$(dirname "$0")/lib.sh"
topic

start_dockerd "$MINE/docker" overlay2
mkdir "$MINE/in"
for image in sound flipped cut missing headers; do
    (seq 200000 && echo $image) >"$MINE/in/$image"
    tar -C "$MINE/in" -c $image | docker import - $image:1 >/dev/null
    docker save $image:1 -o "$MINE/$image.tar"
    docker create --network none --name c-$image $image:1 /none >/dev/null
done
docker create --network none --name removing sound:1 /none >/dev/null
DEAD=$(docker inspect -f '{{.Id}}' c-flipped)
REMOVING=$(docker inspect -f '{{.Id}}' removing)
TOP=$(docker image inspect -f '{{index .RootFS.Layers 0}}' headers:1)
stop_dockerd "$MINE/docker"

# Files are damaged behind the daemon's back: same size, same time, where that is possible.
file() { echo "$ROOT"/overlay2/*/diff/"$1"; }
flipped=$(file flipped)
cp -p "$flipped" "$MINE/before"
printf X | dd of="$flipped" bs=1 seek=700000 conv=notrunc status=none
touch -r "$MINE/before" "$flipped"
truncate -s 1000 "$(file cut)"
rm "$(file missing)"
split=$ROOT/image/overlay2/layerdb/sha256/${TOP#sha256:}/tar-split.json.gz
head -c 60 "$split" >"$MINE/split"
cat "$MINE/split" >"$split"
edit() {
    jq -c "$2" "$ROOT/containers/$1/config.v2.json" >"$MINE/config"
    cat "$MINE/config" >"$ROOT/containers/$1/config.v2.json"
}
edit "$DEAD" '.State.Dead = true'
edit "$REMOVING" '.State.RemovalInProgress = true'

layer() { echo "$(echo "$M/images/$1:1/layers"/00-*)/layer.tar"; }
reads() { cat "$(layer "$1")" "$M/images/$1:1/save.tar" "$M/containers/c-$1/export.tar" | wc -c; }
explained() { grep -q "$1" "$M/.stratafs/errors" || { tail -n 2 "$M/.stratafs/errors"; return 1; }; }

mount_store passing
for image in flipped cut missing headers; do
    at=$M/images/$image:1
    for path in "$(layer $image)" "$at/save.tar" "$at/formats/docker-1.10.tar"; do
        check "$image: $(basename "$path") gives EIO" fails_with 'Input/output error' cat "$path"
    done
    check "$image: an error line" within 2 explained "$image\|${TOP:7:12}"
    check "$image is still listed" ls "$M/images/$image:1"
done
check "the sound image beside them is right" cmp "$MINE/sound.tar" "$M/images/sound:1/formats/docker-1.10.tar"
check "and so is all else of it" reads sound

for name in c-flipped removing; do
    check "$name: export.tar gives EBUSY" \
        fails_with 'Device or resource busy' cat "$M/containers/$name/export.tar"
done
check "a dead container is explained" within 2 explained "$DEAD.*[Dd]ead\|c-flipped.*[Dd]ead"
check "a removed container is explained" within 2 explained "$REMOVING.*remov\|removing.*being remov"
"$STRATAFS" umount "$M"

# With --verify=always not even a piece around the damage comes through.
mount_store always --verify=always
# The file begins 512 bytes into the tar, so its byte 700000 is among these.
piece() {
    dd if="$(layer "$1")" bs=512 skip=1200 count=400 of=/dev/null status=none
}
check "--verify=always: a piece of the damaged layer gives EIO" fails_with 'Input/output error' piece flipped
check "--verify=always: a piece of a sound layer can be read" piece sound
check "--verify=always: a sound image is right" \
    cmp "$MINE/sound.tar" "$M/images/sound:1/formats/docker-1.10.tar"

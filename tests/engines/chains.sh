#!/usr/bin/env bash
# Images of as many layers as an engine takes, empty, repeated and shared ones among them: docker-1.10.tar
# byte for byte, and what engines load.
. "$(dirname "$0")/lib.sh"
topic

# seconds NAME: when the image was made, as the mtime of what belongs to it.
seconds() {
    local secs
    secs=$(date -d "$(cat "$M/images/$1/created")" +%s)
    echo $((secs < 0 ? 0 : secs))
}

as_saved() { # NAME
    docker save "$1" -o "$MINE/engine.tar"
    python3 "$HERE/undated.py" "$MINE/engine.tar" "$M/images/$1/formats/docker-1.10.tar" "$(seconds "$1")"
}

# as_together NAME...: Docker takes several images in random order, so it is asked until it took ours.
as_together() {
    local name created=() joined
    joined=$(IFS=+; echo "$*")
    for name in "$@"; do created+=("$(seconds "$name")"); done
    within 60 in_one_order "$OLD/images/.save/$joined.tar" "${created[@]}"
}
in_one_order() { # FILE SECONDS...
    # shellcheck disable=SC2046 # one word a name
    docker save $(basename "$1" .tar | tr + ' ') -o "$MINE/engine.tar"
    python3 "$HERE/undated.py" "$MINE/engine.tar" "$@"
}

loads() { # NAME FILE
    docker load -q <"$2"
    same "$(docker image inspect -f '{{.Id}}' "$1")" "$(cat "$M/images/$1/id")"
    docker rmi "$1" >/dev/null
}

loads_layers() { # NAME FILE
    docker load -q <"$2"
    same "$(docker image inspect -f '{{json .RootFS.Layers}}' "$1")" \
        "$(jq -c .rootfs.diff_ids "$M/images/$1/config.json")"
    docker rmi "$1" >/dev/null
}

start_dockerd "$MINE/engine" overlay2
python3 "$HERE/archive.py" chains | docker load -q >/dev/null
docker create --network none --name most most:125 /none >/dev/null
mount_store mount
FIRST=$M
check "most:125 has 125 layers" same "$(ls "$M/images/most:125/layers" | wc -l)" 125
for name in most:125 most:124 other:1; do
    check "docker-1.10.tar of $name is as docker save writes it" as_saved $name
done
mount_store docker-1.10 --flavour docker-1.10
OLD=$M M=$FIRST
check "so it is of images that share layers" as_together most:125 most:124
check "and of images that share them in other places" as_together other:1 most:124
check "a container of 127 layers exports as docker exports it" \
    cmp <(docker export most) "$OLD/containers/most/export.tar"
merged "$(layer_of_container most)"
check "and its files are those that the kernel merges" same_files "$K" "$M/containers/most/rootfs"
check "oci/ and oci.tar of 125 layers are valid" python3 "$HERE/valid_layout.py" \
    "$M/images/most:125/oci" "$M/images/most:125/formats/oci.tar" "$M/images/most/oci"

check "Docker takes no image of more layers" \
    fails_with "max depth exceeded" docker load -q -i <(python3 "$HERE/archive.py" over)

start_dockerd "$MINE/second" overlay2
check "Docker loads docker-1.10.tar of most:125" \
    loads most:125 "$M/images/most:125/formats/docker-1.10.tar"
check "Docker loads docker-1.9.tar of most:125" \
    loads_layers most:125 "$M/images/most:125/formats/docker-1.9.tar"

#!/usr/bin/env bash
# Other tools take what the mount gives: Docker, Podman, skopeo, umoci.
. "$(dirname "$0")/lib.sh"
. "$HERE/scenario.sh"
topic

scenario overlay2
mount_store overlay2
IMAGES="base:1 gnu:1 app:3 nothing:2 deep:24 twice:1 localhost:5000/team/app:v1"
declare -A ID
for image in $IMAGES; do
    ID[$image]=$(docker image inspect -f '{{.Id}}' "$image")
done
untagged=$(docker images -q --no-trunc --filter dangling=true | head -n 1)

# loads IMAGE FILE: Docker makes the same image of it, under the same name.
loads() {
    docker load -q <"$M/images/$1/$2"
    same "$(docker image inspect -f '{{.Id}}' "$1")" "${ID[$1]}"
    docker rmi "$1" >/dev/null
}

loads_untagged() {
    docker load -q <"$M/$(image_path "$untagged")/save.tar"
    docker image inspect "$untagged" >/dev/null
}

imports() {
    local id
    id=$(docker import - <"$1")
    docker create --network none "$id" /none >/dev/null
}

start_dockerd "$MINE/second" overlay2
for image in $IMAGES; do
    for file in save.tar formats/docker-1.10.tar; do
        check "Docker loads $file of $image" loads "$image" $file
    done
done
check "Docker loads an image without a name" loads_untagged
for file in images/app:3 containers/changed containers/live; do
    check "Docker imports export.tar of $file" imports "$M/$file/export.tar"
done
stop_dockerd "$MINE/second"

# Podman and skopeo take a path with a colon in it for a path and a reference, so they are given
# images/NAME/tags/TAG. With roots of its own; its image ID is Docker's.
at() { echo "$M/images/${1%:*}/tags/${1##*:}"; }

podman() {
    command podman --root "$MINE/podman" --runroot "$MINE/podman-run" --storage-driver vfs \
        --cgroup-manager cgroupfs --events-backend none "$@"
}

podman_has() {
    same "sha256:$(podman image inspect -f '{{.Id}}' "$1")" "${ID[$1]}"
    podman rmi -a -f >/dev/null
}

podman_loads() {
    podman load -q -i "$(at "$1")/$2"
    podman_has "$1"
}

podman_loads_stream() {
    podman load -q <"$M/images/$1/save.tar"
    podman_has "$1"
}

for image in base:1 app:3 deep:24; do
    for file in save.tar formats/docker-1.10.tar; do
        check "Podman loads $file of $image" podman_loads $image $file
    done
done
check "Podman loads save.tar as a stream" podman_loads_stream app:3
check "Podman imports export.tar" podman import -q "$M/containers/changed/export.tar" imported

# skopeo reads archives in place: by seeking, not as a stream.
diff_ids() { jq -c .rootfs.diff_ids "$M/images/$1/config.json"; }

copies() {
    local oci=$MINE/oci-$1
    rm -rf "${oci%:*}"
    skopeo --insecure-policy copy -q "docker-archive:$(at "$1")/$2" "oci:$oci"
    same "$(skopeo inspect --config "oci:$oci" | jq -c .rootfs.diff_ids)" "$(diff_ids "$1")"
}

inspects() {
    same "$(skopeo inspect "docker-archive:$(at "$1")/$2" | jq -c .Layers)" "$(diff_ids "$1")"
}

for image in base:1 app:3 deep:24; do
    for file in save.tar formats/docker-1.10.tar; do
        check "skopeo copies $file of $image" copies $image $file
        check "skopeo inspects $file of $image" inspects $image $file
    done
done
check "umoci unpacks what skopeo copied" umoci unpack --image "$MINE/oci-app:3" "$MINE/bundle"
check "and has the files of the image" test -f "$MINE/bundle/rootfs/usr/bin/tool"

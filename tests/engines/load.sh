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

# loads_layers IMAGE FILE: Docker makes an image with the same layers of it, under the same name.
loads_layers() {
    docker load -q <"$M/images/$1/$2"
    same "$(docker image inspect -f '{{json .RootFS.Layers}}' "$1")" \
        "$(jq -c .rootfs.diff_ids "$M/images/$1/config.json")"
    same "$(docker image inspect "$1" | jq -cS '.[0].Config.Cmd')" \
        "$(jq -cS '.config.Cmd' "$M/images/$1/config.json")"
    docker rmi "$1" >/dev/null
}

# loads_tags FILE: Docker finds all tags of the repository base in it.
loads_tags() {
    docker load -q <"$M/images/base/$1"
    same "$(docker images --format '{{.Repository}}:{{.Tag}}' base | sort | tr '\n' ' ')" \
        "base:1 base:2 base:latest "
    docker rmi base:1 base:2 base:latest >/dev/null
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

# Of an archive before 1.10 Docker takes the layers before it misses the names.
loads_nameless() {
    fails_with repositories docker load -q -i "$M/$(image_path "$untagged")/formats/docker-1.9.tar"
}

start_dockerd "$MINE/second" overlay2
for image in $IMAGES; do
    for file in save.tar formats/docker-{1.10,25,28}.tar; do
        check "Docker loads $file of $image" loads "$image" $file
    done
    check "Docker loads formats/docker-1.9.tar of $image" \
        loads_layers "$image" formats/docker-1.9.tar
done
for flavour in 1.9 1.10 25 28 29; do
    check "Docker loads all tags of docker-$flavour.tar of base" \
        loads_tags formats/docker-$flavour.tar
done
check "Docker loads an image without a name" loads_untagged
check "but not from docker-1.9.tar" loads_nameless
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
    for file in save.tar formats/{docker-1.10,docker-25,docker-28,oci}.tar; do
        check "Podman loads $file of $image" podman_loads $image $file
    done
done
check "Podman loads save.tar as a stream" podman_loads_stream app:3
check "Podman imports export.tar" podman import -q "$M/containers/changed/export.tar" imported

# skopeo reads archives in place: by seeking, not as a stream.
diff_ids() { jq -c .rootfs.diff_ids "$M/images/$1/config.json"; }

transport() {
    case $1 in
        *oci.tar) echo oci-archive ;;
        *) echo docker-archive ;;
    esac
}

copies() {
    local oci=$MINE/oci-$1
    rm -rf "${oci%:*}"
    skopeo --insecure-policy copy -q "$(transport "$2"):$(at "$1")/$2" "oci:$oci"
    same "$(skopeo inspect --config "oci:$oci" | jq -c .rootfs.diff_ids)" "$(diff_ids "$1")"
}

inspects() {
    same "$(skopeo inspect "$(transport "$2"):$(at "$1")/$2" | jq -c .Layers)" "$(diff_ids "$1")"
}

for image in base:1 app:3 deep:24; do
    for file in save.tar formats/{docker-1.10,oci}.tar; do
        check "skopeo copies $file of $image" copies $image $file
        check "skopeo inspects $file of $image" inspects $image $file
    done
done
check "skopeo inspects one tag of oci.tar of base" \
    skopeo inspect "oci-archive:$M/images/base/formats/oci.tar:2"
mkdir "$MINE/layout"
check "oci.tar of base can be unpacked" tar -C "$MINE/layout" -xf "$M/images/base/formats/oci.tar"
check "umoci lists its tags" same "$(umoci ls --layout "$MINE/layout" | sort | tr '\n' ' ')" "1 2 latest "
check "umoci unpacks a tag of it" umoci unpack --image "$MINE/layout:2" "$MINE/bundle-oci"
check "umoci unpacks what skopeo copied" umoci unpack --image "$MINE/oci-app:3" "$MINE/bundle"
check "and has the files of the image" test -f "$MINE/bundle/rootfs/usr/bin/tool"

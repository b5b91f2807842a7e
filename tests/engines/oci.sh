#!/usr/bin/env bash
# Tools read oci/ in place; engines take archives of several images, and of what they lack.
. "$(dirname "$0")/lib.sh"
. "$HERE/scenario.sh"
topic

scenario overlay2
mount_store overlay2
FIRST=$M
ROOT_OF_ALL=$ROOT

diff_ids() { jq -c .rootfs.diff_ids "$FIRST/images/$1/config.json"; }
id_of() { sed s/sha256:// "$FIRST/images/$1/id"; }
# skopeo cuts a path at a colon, so images are named by their repository's tags.
at() { echo "$FIRST/images/${1%:*}/tags/${1##*:}"; }

# copies IMAGE TRANSPORT DEST: skopeo makes the same image of its layout.
copies() {
    skopeo --insecure-policy copy -q "oci:$(at "$1")/oci:${1##*:}" "$2:$3"
    same "$(skopeo inspect --config "$2:$3" | jq -c .rootfs.diff_ids)" "$(diff_ids "$1")"
}

podman() {
    command podman --root "$MINE/podman" --runroot "$MINE/podman-run" --storage-driver vfs \
        --cgroup-manager cgroupfs --events-backend none "$@"
}

podman_pulls() {
    # It makes a name of the path, where it allows no capital letter.
    same "$(cd "$(at "$1")" && podman pull -q "oci:oci:${1##*:}")" "$(id_of "$1")"
    podman rmi -a -f >/dev/null
}

buildah_takes() {
    local container
    container=$(cd "$(at "$1")" && buildah --root "$MINE/buildah" --runroot "$MINE/buildah-run" \
        --storage-driver vfs from "oci:oci:${1##*:}")
    same "$(buildah --root "$MINE/buildah" --runroot "$MINE/buildah-run" --storage-driver vfs \
        inspect -f '{{.FromImageID}}' "$container")" "$(id_of "$1")"
}

tags_are() { same "$(umoci ls --layout "$1" | sort | tr '\n' ' ')" "$2"; }

# valid WHAT...: layouts below M are what the schemas of the image-spec say, and whole.
valid() { python3 "$HERE/valid_layout.py" "$@"; }

for image in $(images | grep -vx 'scratch:1\|odd:1'); do
    path=$M/$(image_path "$image")
    check "oci/ and oci.tar of $image are valid" valid "$path/oci" "$path/formats/oci.tar"
done
check "so they are of a repository, of several images, and in containerd.tar" valid "$M/images/base/oci" \
    "$M/images/base/formats/oci.tar" "$M/images/app:3/formats/containerd.tar"
check "oci-delta/ is valid but for what it leaves out" \
    valid --delta "$M/images/app:3/oci-delta/base:1"
check "and no whole layout" fails_with "lacks a layer" valid "$M/images/app:3/oci-delta/base:1"
# Its config is what somebody made who never read the specification.
for layout in oci formats/oci.tar; do
    check "$layout of odd:1 tells what is odd" \
        fails_with "'os' is a required property" valid "$M/images/odd:1/$layout"
done

for image in base:1 app:3 deep:24; do
    check "skopeo copies oci/ of $image" copies $image oci "$MINE/copy-${image%:*}"
    check "skopeo makes a docker-archive of it" \
        copies $image docker-archive "$MINE/${image%:*}.tar"
    check "Podman pulls it in place" podman_pulls $image
done
check "Buildah builds upon it" buildah_takes deep:24
check "umoci lists the tags of a repository's oci/" tags_are "$M/images/base/oci" "1 2 latest "
check "umoci unpacks one of them" \
    umoci unpack --image "$M/images/base/oci:2" "$MINE/bundle"
# It keeps times before 1970, which are 0 with every engine.
unpacked() {
    find "$MINE/bundle/rootfs" ! -newermt @-1 -exec touch -h -d @0 {} +
    same_files --copy "$MINE/bundle/rootfs" "$M/images/base:2/rootfs"
}
check "and it has the image's files" unpacked

# saved_together: `docker save` of both, in the flavour of 20.10. It goes through images in random
# order, so what counts is the set of entries.
saved_together() {
    docker save app:3 base:1 | tar -t | sort >"$MINE/theirs"
    tar -tf "$M/images/.save/app:3+base:1.tar" | sort >"$MINE/ours"
    diff "$MINE/theirs" "$MINE/ours"
}
mount_store docker-1.10 --flavour docker-1.10
check "several images are saved as Docker saves them" saved_together
M=$FIRST

start_dockerd "$MINE/second" overlay2
loads_both() {
    docker load -q <"$FIRST/images/.save/app:3+localhost:5000%2Fteam%2Fapp:v1.tar"
    same "$(docker image inspect -f '{{.Id}}' app:3)" "sha256:$(id_of app:3)"
    docker image inspect localhost:5000/team/app:v1 >/dev/null
    docker images -q | sort -u | xargs docker rmi -f >/dev/null
}
check "Docker loads both" loads_both

# What app:3 has beyond its own base.
delta=$FIRST/images/app:3/delta/base:1.tar
lacks_a_layer() {
    [ "$(stat -c %s "$delta")" -lt "$(stat -c %s "$FIRST/images/app:3/save.tar")" ]
    [ "$(jq .shared_layers "${delta%.tar}.json")" -gt 0 ]
}
loads_delta() {
    docker load -q <"$delta"
    same "$(docker image inspect -f '{{.Id}}' app:3)" "sha256:$(id_of app:3)"
    docker run --rm --network none app:3 sh -c :
    docker rmi app:3 >/dev/null
}
check "a delta lacks what the base has" lacks_a_layer
check "Docker refuses it without the base" fails_with "no such file or directory" \
    docker load -q -i "$delta"
docker load -q <"$FIRST/images/base:1/save.tar" >/dev/null
check "and loads it with the base" loads_delta
for flavour in 1.10 25 28; do
    ROOT=$ROOT_OF_ALL mount_store "delta-$flavour" --flavour "docker-$flavour"
    delta=$M/images/app:3/delta/base:1.tar
    check "the same in the flavour docker-$flavour" loads_delta
done
stop_dockerd "$MINE/second"

# oci-delta/, into a store of Podman's that has the base.
copies_delta() {
    podman load -q -i "$(at base:1)/save.tar"
    skopeo --insecure-policy copy -q "oci:$(at app:3)/oci-delta/base:3" \
        "containers-storage:[vfs@$MINE/podman+$MINE/podman-run]localhost/app:3"
    same "$(podman image inspect -f '{{.Id}}' localhost/app:3)" "$(id_of app:3)"
}
check "skopeo refuses an oci-delta/ without the base" fails_with "no such file or directory" \
    skopeo --insecure-policy copy -q "oci:$(at app:3)/oci-delta/base:3" "oci:$MINE/without"
check "skopeo copies an oci-delta/ to where the base is" copies_delta

# A store of Docker's with several platforms, indexes, and layers of which only the files are left.
FIXTURE=$PWD/../shared/fixtures/docker-29-containerd.tar.zst
valid_if_saved() {
    local image
    for image in "$M"/by-id/images/*; do
        # Of what lacks a layer there is no layout.
        if [ -r "$image/save.tar" ] && head -c 1 "$image/save.tar" >"$MINE/first"; then
            valid "$image/oci" "$image/formats/oci.tar"
            echo "${image##*/}" >>"$MINE/valid"
        fi
    done
    [ "$(wc -l <"$MINE/valid")" -gt 8 ]
}
if [ -e "$FIXTURE" ]; then
    mkdir "$MINE/fixture"
    tar --xattrs --xattrs-include='*' --numeric-owner --use-compress-program='zstd -d --long=27' \
        -xf "$FIXTURE" -C "$MINE/fixture"
    ROOT=$MINE/fixture mount_store containerd
    check "oci/ and oci.tar of Docker's containerd store are valid" valid_if_saved
else
    echo "skipped: $FIXTURE is missing" >&2
fi

#!/usr/bin/env bash
# Names: how images and containers point at each other, and every way to spell one.
. "$(dirname "$0")/lib.sh"
. "$HERE/scenario.sh"
topic

scenario overlay2
mount_store overlay2
declare -A IMAGE
for container in $(containers); do
    IMAGE[$container]=$(docker inspect -f '{{.Image}}' "$container")
done

# users ID: the containers of an image.
users() {
    local container
    for container in "${!IMAGE[@]}"; do
        [ "${IMAGE[$container]}" != "$1" ] || echo "$container"
    done | sort
}

# used_by IMAGE: used-by/ links to exactly its containers.
used_by() {
    local at link
    at=$M/$(image_path "$1")/used-by
    same "$(ls -A "$at")" "$(users "$(docker image inspect -f '{{.Id}}' "$1")")"
    for link in "$at"/*; do
        [ -L "$link" ] || continue
        same "$(realpath "$link")" "$M/containers/$(basename "$link")"
    done
}

# image_of CONTAINER: its `image` leads to its image, by the name it was made with if that still fits.
image_of() {
    local at=$M/containers/$1/image named
    same "$(cat "$at/id")" "${IMAGE[$1]}"
    named=$(docker inspect -f '{{.Config.Image}}' "$1")
    if [ "$(docker image inspect -f '{{.Id}}' "$named")" = "${IMAGE[$1]}" ]; then
        same "$(readlink "$at")" "../../images/$named"
    fi
}

by_id() { same "$(realpath "$M/by-id/containers/$(docker inspect -f '{{.Id}}' "$1")")" "$M/containers/$1"; }

# spelled NAME: the name, as someone may write it, leads to base:1.
spelled() { same "$(cat "$M/images/$1/id")" "$(docker image inspect -f '{{.Id}}' base:1)"; }

listed() { [ -n "$(find "$M/images/$(dirname "$1")" -maxdepth 1 -type d -name "$(basename "$1")")" ]; }

for image in $(images); do
    check "used-by of $image" used_by "$image"
    [[ $image = sha256:* ]] || check "$image is listed" listed "$image"
done
for container in $(containers); do
    check "image of $container" image_of "$container"
    check "ID of $container" by_id "$container"
done
check "containers/ lists the containers" same "$(ls -A "$M/containers")" "$(containers)"
check "by-id/images lists every image" same "$(ls -A "$M/by-id/images")" \
    "$(docker images -aq --no-trunc | cut -d: -f2 | sort -u)"
check "an image that lost its name is found by its ID" \
    same "$(readlink "$M/containers/moved/image")" "../../by-id/images/${IMAGE[moved]#sha256:}"

id=$(docker image inspect -f '{{.Id}}' base:1)
for name in base base:latest app/web:1 localhost:5000/team/app:v1 example.test/team/app \
    docker.io/library/base:1 library/base:1 index.docker.io/library/base:1 \
    "$id" "${id#sha256:}" "$(cut -c8-19 <<<"$id")"; do
    check "$name is base:1" spelled "$name"
done
check "tags/ of a repository" \
    same "$(echo "$M/images/base/tags"/*)" "$(echo "$M/images/base/tags"/{1,2,latest})"
check "a tag of a repository" same "$(realpath "$M/images/base/tags/1")" "$(realpath "$M/images/base:1")"
for name in nosuch base:nosuch ../etc app/nosuch:1; do
    check "$name is not there" fails_with 'No such file' cat "$M/images/$name/id"
done

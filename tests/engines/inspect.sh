#!/usr/bin/env bash
# inspect.json and history, as far as the store knows: what `docker inspect` and `docker history` show.
. "$(dirname "$0")/lib.sh"
. "$HERE/scenario.sh"
topic

# as_inspected image|container NAME PATH
as_inspected() {
    docker inspect --type "$1" "$2" >"$MINE/engine"
    python3 "$HERE/inspect_fields.py" "$1" "$MINE/engine" "$3/inspect.json"
}

as_history() {
    docker history --no-trunc --human=false "$1" | diff - "$2/history"
}

# one_line NAME PATH: the files that are one line of the inspection. The year 1 is Docker's word
# for a time that the image does not have.
one_line() {
    same "$(docker inspect -f '{{.Id}}' "$1")" "$(cat "$2/id")"
    [ "$1" = odd:1 ] || same "$(docker inspect -f '{{.Created}}' "$1")" "$(cat "$2/created")"
}

for driver in overlay2 vfs; do
    scenario $driver
    mount_store $driver
    for image in $(images); do
        at=$M/$(image_path "$image")
        check "$image on $driver" as_inspected image "$image" "$at"
        check "history of $image on $driver" as_history "$image" "$at"
        check "id and created of $image on $driver" one_line "$image" "$at"
        id=$(docker image inspect -f '{{.Id}}' "$image")
        check "config of $image on $driver" \
            cmp "$ROOT/image/$driver/imagedb/content/sha256/${id#sha256:}" "$at/config.json"
    done
    for container in $(containers); do
        at=$M/containers/$container
        check "$container on $driver" as_inspected container "$container" "$at"
        check "id and created of $container on $driver" one_line "$container" "$at"
        check "state of $container on $driver" \
            grep -qw "$(docker inspect -f '{{.State.Status}}' "$container")" "$at/state"
    done
done

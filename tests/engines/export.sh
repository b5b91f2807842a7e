#!/usr/bin/env bash
# export.tar and diff.tar: the bytes of `docker export`, and of the layer that a commit makes.
. "$(dirname "$0")/lib.sh"
. "$HERE/scenario.sh"
topic

as_exported() {
    local engine=$MINE/engine.tar
    docker export "$1" -o "$engine"
    same "$(stat -c %s "$OLD/containers/$1/export.tar")" "$(stat -c %s "$engine")"
    cmp "$engine" "$OLD/containers/$1/export.tar"
    python3 "$HERE/rehead.py" <"$engine" >"$MINE/new.tar"
    cmp "$MINE/new.tar" "$M/containers/$1/export.tar"
}

# as_committed CONTAINER IMAGE: the writable layer's tar is the topmost layer of the image.
as_committed() {
    local layer
    layer=$(docker save "$2" | tar -xO manifest.json | jq -r '.[0].Layers[-1]')
    docker save "$2" | tar -xO "$layer" | python3 "$HERE/rehead.py" >"$MINE/new.tar"
    cmp "$MINE/new.tar" "$M/containers/$1/diff.tar"
}

for driver in overlay2 vfs; do
    scenario $driver
    mount_store "$driver-20.10" --flavour docker-1.10
    OLD=$M
    mount_store $driver
    for container in $(containers); do
        check "$container on $driver is as docker export writes it" as_exported "$container"
    done
    check "--flavour chooses save.tar on $driver" \
        cmp "$OLD/images/base:1/save.tar" "$M/images/base:1/formats/docker-1.10.tar"
done

# On vfs a deletion in a diff has the time of the commit, so its bytes can't be had again.
scenario overlay2
M=$MINE/overlay2
for pair in changed/app:1 linked/app:2 through/app:3; do
    check "diff.tar of ${pair%/*} is the layer of ${pair#*/}" as_committed "${pair%/*}" "${pair#*/}"
done

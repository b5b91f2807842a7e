#!/usr/bin/env bash
# rootfs/: the same files as the kernel shows for the same directories.
. "$(dirname "$0")/lib.sh"
. "$HERE/scenario.sh"
topic

as_kernel() {
    merged "$1"
    same_files "$K" "$2"
}

# What Docker puts into a container that it makes, and what is mounted over.
INIT='.dockerenv dev/console dev/pts dev/shm etc/hostname etc/hosts etc/mtab etc/resolv.conf proc sys'

# as_exported IMAGE: docker export of a container that was made of the image and never ran has its
# files, in whole seconds and as far as a tar keeps them.
as_exported() {
    local id path status=0 out=$MINE/exported excluded=()
    local rootfs=$M/$(image_path "$1")/rootfs
    mkdir "$out"
    id=$(docker create "$1" sh 2>/dev/null)
    docker export "$id" | tar -C "$out" --numeric-owner --warning=no-timestamp -xp
    docker rm "$id" >/dev/null
    for path in $INIT; do
        rm -rf "${out:?}/$path"
        excluded+=(--exclude "/$path")
    done
    for path in dev etc; do [ -e "$rootfs/$path" ] || rmdir "$out/$path"; done
    same "$(rsync -aHni --checksum --omit-dir-times --modify-window=1 --delete "${excluded[@]}" \
        "$out/" "$rootfs/")" '' || status=1
    rm -rf "$out"
    return $status
}

for driver in overlay2 vfs; do
    scenario $driver
    mount_store $driver
    for image in $(images); do
        layer=$(layer_of_image "$image")
        [ -n "$layer" ] || continue
        check "$image on $driver" as_kernel "$layer" "$M/$(image_path "$image")/rootfs"
        check "$image on $driver, exported from a container" as_exported "$image"
    done
    for container in $(containers); do
        check "$container on $driver" \
            as_kernel "$(layer_of_container "$container")" "$M/containers/$container/rootfs"
    done
    check "an image without layers on $driver" same "$(ls -A "$M/images/scratch:1/rootfs")" ''
done

#!/usr/bin/env bash
# rootfs/: the same files as the kernel shows for the same directories.
. "$(dirname "$0")/lib.sh"
. "$HERE/scenario.sh"
topic

as_kernel() {
    merged "$1"
    same_files "$K" "$2"
}

for driver in overlay2 vfs; do
    scenario $driver
    mount_store $driver
    for image in $(images); do
        layer=$(layer_of_image "$image")
        [ -n "$layer" ] || continue
        check "$image on $driver" as_kernel "$layer" "$M/$(image_path "$image")/rootfs"
    done
    for container in $(containers); do
        check "$container on $driver" \
            as_kernel "$(layer_of_container "$container")" "$M/containers/$container/rootfs"
    done
    check "an image without layers on $driver" same "$(ls -A "$M/images/scratch:1/rootfs")" ''
done

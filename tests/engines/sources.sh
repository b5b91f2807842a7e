#!/usr/bin/env bash
# Archives and layouts that engines and tools wrote, mounted: what is in them, and what tools and a
# registry take of it.
. "$(dirname "$0")/lib.sh"
. "$HERE/scenario.sh"
topic

scenario overlay2
IMAGES="base:1 deep:24 twice:1"
declare -A ID
for image in $IMAGES; do
    ID[$image]=$(docker image inspect -f '{{.Id}}' "$image")
done

# mount_source NAME SOURCE [OPTION...]: leaves M at the mount point.
mount_source() {
    local source=$2
    M=$MINE/$1
    shift 2
    mkdir -p "$M"
    "$STRATAFS" mount "$@" "$source" "$M"
}

umount_source() { "$STRATAFS" umount "$M"; }

copy() { skopeo --insecure-policy copy -q "$@"; }
config_of() { skopeo inspect --raw "$1" | jq -r .config.digest; }

mkdir "$MINE/layouts"
# Every image as Docker saves it, and as skopeo makes a layout and an archive of that.
for image in $IMAGES; do
    name=${image%:*}
    docker save -o "$MINE/$name.tar" "$image"
    copy "docker-archive:$MINE/$name.tar" "oci:$MINE/layouts/$name:${image#*:}"
    copy "docker-archive:$MINE/$name.tar" "oci-archive:$MINE/$name.oci.tar:${image#*:}"
    gzip -k "$MINE/$name.tar"
    zstd -q "$MINE/$name.oci.tar"
done

# has_files IMAGE: the rootfs of the mount is what the kernel merges of the engine's own layers.
has_files() {
    merged "$(layer_of_image "$1")"
    same_files --copy "$K" "$M/images/$1/rootfs"
}

# unpacks IMAGE: umoci makes the same files of the layout; but it keeps times before 1970, which are
# 0 with every engine.
unpacks() {
    local name=${1%:*} bundle
    bundle=$(mktemp -d "$MINE/bundle.XXXX")
    umoci unpack --image "$MINE/layouts/$name:${1#*:}" "$bundle" >/dev/null
    find "$bundle/rootfs" ! -newermt @-1 -exec touch -h -d @0 {} +
    same_files --copy "$bundle/rootfs" "$M/images/$1/rootfs"
}

# layers_are_right IMAGE: each layer.tar hashes to its diff ID.
layers_are_right() {
    same "$(for layer in "$M/images/$1"/layers/*/layer.tar; do sha256sum <"$layer" | cut -d' ' -f1; done)" \
        "$(jq -r '.rootfs.diff_ids[]' "$M/images/$1/config.json" | sed s/sha256://)"
}

for image in $IMAGES; do
    name=${image%:*}
    for source in "docker-archive:$MINE/$name.tar" "$MINE/$name.tar.gz"; do
        mount_source "saved-$name" "$source"
        check "${source#*"$MINE"/} has the image's ID" same "$(cat "$M/images/$image/id")" "${ID[$image]}"
        check "and its layers" layers_are_right "$image"
        check "and its files" has_files "$image"
        umount_source
    done
    mount_source "again-$name" "$MINE/$name.tar" --flavour docker-1.10
    check "$name.tar is saved again byte for byte" cmp "$M/images/$image/save.tar" "$MINE/$name.tar"
    umount_source
    for source in "oci:$MINE/layouts/$name" "$MINE/$name.oci.tar.zst"; do
        mount_source "oci-$name" "$source"
        shown=$image
        [ -d "$M/images/$image" ] || shown=$name-oci:${image#*:}
        check "${source#*"$MINE"/} has the layers" layers_are_right "$shown"
        check "and the config" same "$(cat "$M/by-id/images/"*/id)" \
            "$(config_of "oci:$MINE/layouts/$name:${image#*:}")"
        [ "$shown" != "$image" ] || check "and the files that umoci unpacks" unpacks "$image"
        umount_source
    done
done

# skopeo takes as much from the mount as from the original. It cuts a path at a colon.
copies() {
    local from=$1 original=$2 dest
    for dest in "oci:$MINE/copy/oci:x" "docker-archive:$MINE/copy/x.tar:x:1" \
        "containers-storage:[vfs@$MINE/copy/root+$MINE/copy/run]x:1"; do
        rm -rf "$MINE/copy"
        mkdir "$MINE/copy"
        copy "$original" "$dest"
        local theirs
        theirs=$(config_of "$dest")
        rm -rf "$MINE/copy"
        mkdir "$MINE/copy"
        copy "$from" "$dest"
        same "$(config_of "$dest")" "$theirs"
    done
}

mount_source deep "$MINE/deep.tar"
check "skopeo copies save.tar of the mount as the original" \
    copies "docker-archive:$M/images/deep/tags/24/save.tar" "docker-archive:$MINE/deep.tar"
umount_source
mount_source layout "$MINE/layouts/deep"
check "and oci/ of the mount as the layout" \
    copies "oci:$M/images/deep/tags/24/oci:24" "oci:$MINE/layouts/deep:24"

# A registry takes a push from the mount.
mkdir "$MINE/registry"
cat >"$MINE/registry.yml" <<END
version: 0.1
storage: {filesystem: {rootdirectory: $MINE/registry}}
http: {addr: 127.0.0.1:5599}
END
docker-registry serve "$MINE/registry.yml" >"$MINE/registry.log" 2>&1 &
within 20 curl -sf http://127.0.0.1:5599/v2/ || true

pushes() {
    copy --dest-tls-verify=false "$1" docker://127.0.0.1:5599/deep:1
    skopeo inspect --tls-verify=false --config docker://127.0.0.1:5599/deep:1 |
        jq -c .rootfs.diff_ids >"$MINE/pushed"
    same "$(cat "$MINE/pushed")" "$(jq -c .rootfs.diff_ids "$M/images/deep:24/config.json")"
}
check "a registry takes oci/ of the mount" pushes "oci:$M/images/deep/tags/24/oci:24"
check "a registry takes save.tar of the mount" \
    pushes "docker-archive:$M/images/deep/tags/24/save.tar"
kill %1
umount_source

# What Docker to 1.9 wrote has the IDs that Docker gives it when it loads it.
mount_store overlay2
for image in $IMAGES; do
    cp "$M/images/$image/formats/docker-1.9.tar" "$MINE/${image%:*}.1.9.tar"
done
umount_source
start_dockerd "$MINE/second" overlay2
migrates() {
    docker load -q -i "$MINE/${1%:*}.1.9.tar"
    same "$(cat "$M/images/$1/id")" "$(docker image inspect -f '{{.Id}}' "$1")"
    same "$(docker history -q --no-trunc "$1" | grep -c sha256)" \
        "$(awk '/sha256/' "$M/images/$1/history" | wc -l)"
}
for image in $IMAGES; do
    mount_source "old-${image%:*}" "$MINE/${image%:*}.1.9.tar"
    check "docker-1.9.tar of $image has the ID that Docker gives it" migrates "$image"
    umount_source
done
stop_dockerd "$MINE/second"

# An archive that is replaced while it is mounted shows what is in it now.
cp "$MINE/base.tar" "$MINE/moving.tar"
mount_source moving "$MINE/moving.tar"
exec 9<"$M/images/base:1/save.tar"
head -c 1000 <&9 >/dev/null
cp "$MINE/deep.tar" "$MINE/new.tar"
mv "$MINE/new.tar" "$MINE/moving.tar"
check "another archive in its place shows within a second" within 1 test -d "$M/images/deep:24"
check "and what was there is gone" within 1 test ! -e "$M/images/base:1"
check "a file of it that is open is stale" fails_with "Stale file handle" \
    dd iflag=direct bs=64K skip=1 count=1 if=/proc/self/fd/9
exec 9<&-
umount_source

# What others wrote with bad intent costs no more than what they wrote with good.
stays_small() {
    local peak
    peak=$(awk '/VmHWM/ { print $2 }' "/proc/$(daemon_of "$M")/status")
    [ "$peak" -lt 65536 ] || { echo "$peak KiB"; return 1; }
}
mkdir "$MINE/hostile"
python3 "$HERE/hostile_archives.py" "$MINE/hostile"
for archive in "$MINE"/hostile/*.tar; do
    name=$(basename "$archive" .tar)
    mount_source "hostile-$name" "$archive"
    find "$M/images" "$M/by-id" -maxdepth 3 -type f -exec stat {} + >/dev/null 2>&1 || true
    find "$M/by-id" -name config.json -exec cat {} + >/dev/null 2>&1 || true
    check "$name.tar shows what is good in it" same "$(cat "$M/images/good:1/rootfs/file")" good
    check "and takes less than 64 MiB" stays_small
    umount_source
done

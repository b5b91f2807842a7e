#!/usr/bin/env bash
# containerd, which holds its databases locked: its own exports, mounts and names, while it writes.
. "$(dirname "$0")/lib.sh"
topic

D=$MINE/containerd
mkdir -p "$D"
cat >"$D/config.toml" <<TOML
version = 2
root = "$D/root"
state = "$D/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.aufs", "io.containerd.internal.v1.opt"]
[grpc]
  address = "$D/s"
[ttrpc]
  address = "$D/ttrpc"
TOML
containerd -c "$D/config.toml" >"$D/log" 2>&1 </dev/null &
ENGINE=$!
ctr() { command ctr -a "$D/s" "$@"; }
within 60 ctr version

# An image of three layers: files of every kind, then what hides some of them, then a deletion.
make_image() {
    local tree=$MINE/tree
    mkdir -p "$tree/bin" "$tree/etc" "$tree/gone" "$tree/opaque"
    cp /bin/busybox "$tree/bin/busybox"
    ln -s busybox "$tree/bin/sh"
    ln "$tree/bin/busybox" "$tree/bin/sleep"
    echo one >"$tree/etc/one"
    echo gone >"$tree/gone/file"
    echo below >"$tree/opaque/below"
    mkfifo "$tree/fifo"
    mknod "$tree/null" c 1 3
    setcap cap_net_raw+ep "$tree/bin/busybox" || true
    umoci init --layout "$MINE/layout"
    umoci new --image "$MINE/layout:1"
    umoci config --image "$MINE/layout:1" --created 2024-01-02T03:04:05Z --config.cmd /bin/sh
    umoci insert --image "$MINE/layout:1" "$tree" /
    umoci insert --image "$MINE/layout:1" --opaque "$tree/etc" /opaque
    umoci insert --image "$MINE/layout:1" --whiteout /gone/file
    tar -C "$MINE/layout" -cf "$MINE/image.tar" .
    # And one that is built upon it.
    mkdir "$MINE/more"
    seq 100000 >"$MINE/more/numbers"
    umoci insert --image "$MINE/layout:1" --tag 2 "$MINE/more" /more
    tar -C "$MINE/layout" -cf "$MINE/images.tar" .
}
make_image >"$MINE/umoci.log" 2>&1
app=docker.io/library/app:1
upon=docker.io/library/app:2
ctr images import --base-name docker.io/library/app "$MINE/images.tar" >/dev/null
ctr -n k8s.io images import --no-unpack --base-name docker.io/library/app "$MINE/image.tar" >/dev/null
ctr -n native images import --snapshotter native --base-name docker.io/library/app \
    "$MINE/image.tar" >/dev/null

M=$MINE/mnt
mkdir -p "$M"
"$STRATAFS" mount "containerd:$D/root" "$M"
N=$M/namespaces
default=$N/default/images/app:1

locked() { ! flock -n "$D/root/io.containerd.metadata.v1.bolt/meta.db" true; }
check "containerd holds its database locked" locked
check "every namespace is shown" same "$(ls "$N" | tr '\n' ' ')" "default k8s.io native "
digest=$(ctr images ls -q name==$app >/dev/null && ctr images ls | awk -v n=$app '$1 == n { print $3 }')
check "an image's ID is what its name points at" same "$(cat "$default/id")" "$digest"

ctr -n later images import --no-unpack --base-name docker.io/library/app "$MINE/image.tar" >/dev/null
check "a new namespace shows" within 2 test -e "$N/later/images/app:1/id"
check "and is listed" same "$(ls "$N" | tr '\n' ' ')" "default k8s.io later native "
ctr -n later images rm $app >/dev/null
check "one that holds nothing any more goes" within 2 test ! -e "$N/later"

# As Kubernetes' plugin names what it pulls.
config=$(jq -r .config.digest "$default/oci/blobs/sha256/${digest#*:}")
ctr -n k8s.io images tag $app "$config" >/dev/null
kubernetes() { [ "$(cat "$N/k8s.io/images/$1/id")" = "$digest" ]; }
for name in "$config" "${config#*:}" "$(cut -c 8-20 <<<"$config")"; do
    check "an image is found as $name" within 2 kubernetes "$name"
done
ctr -n k8s.io images rm "$config" >/dev/null

# exported NAMESPACE: 1.6 does not say in index.json that it is one, and is the same otherwise.
exported() {
    local ours=$MINE/ours theirs=$MINE/theirs
    rm -rf "$ours" "$theirs" "$MINE/theirs.tar"
    mkdir -p "$ours" "$theirs"
    ctr -n "$1" images export "$MINE/theirs.tar" $app
    tar -xf "$N/$1/images/app:1/save.tar" -C "$ours"
    tar -xf "$MINE/theirs.tar" -C "$theirs"
    same "$(tar -tvf "$N/$1/images/app:1/save.tar" | grep -v index.json)" \
        "$(tar -tvf "$MINE/theirs.tar" | grep -v index.json)"
    same "$(jq -cS 'del(.mediaType)' "$ours/index.json")" \
        "$(jq -cS 'del(.mediaType)' "$theirs/index.json")"
    rm "$ours/index.json" "$theirs/index.json"
    diff -r "$ours" "$theirs"
}
for namespace in default k8s.io native; do
    check "save.tar of $namespace is what ctr exports" exported $namespace
done

loads() {
    ctr -n loaded images import --base-name docker.io/library/again - <"$1" >/dev/null
    same "$(ctr -n loaded images ls -q | head -n 1)" "$app"
    ctr -n loaded images rm $app >/dev/null
}
check "containerd loads save.tar" loads "$default/save.tar"
check "and oci.tar" loads "$default/formats/oci.tar"
mkfifo "$MINE/packed"
loads_packed() {
    tar -C "$1" -cf - . >"$MINE/packed" &
    loads "$MINE/packed"
}
check "and oci/, packed" loads_packed "$default/oci"
check "oci/, oci.tar and save.tar are valid layouts" python3 "$HERE/valid_layout.py" "$default/oci" \
    "$default/formats/oci.tar" "$default/save.tar" "$N/default/images/app/oci" "$N/native/images/app:1/oci"

# What app:2 has beyond app:1, whose layers are compressed: for a namespace that has app:1 or not.
second=$N/default/images/app:2
import_delta() { # NAMESPACE
    ctr -n "$1" images import --base-name docker.io/library/app - <"$MINE/delta.tar" >/dev/null
}
refused() { # FILE
    cat "$1" >"$MINE/delta.tar"
    fails_with "not found" import_delta without
    same "$(ctr -n without snapshots ls | tail -n +2)" ""
    ctr -n without images rm --sync $upon >/dev/null
}
loads_delta() { # FILE
    cat "$1" >"$MINE/delta.tar"
    ctr -n with images import --base-name docker.io/library/app - <"$default/save.tar" >/dev/null
    import_delta with
    same "$(ctr -n with images ls | awk -v n=$upon '$1 == n { print $3 }')" "$(cat "$second/id")"
    ctr -n with images mount $upon "$MINE/k" >/dev/null
    # Each unpacking gives a directory that a layer only deletes in a time of its own.
    same "$(rsync -aHAXni --omit-dir-times --delete "$MINE/k/" "$second/rootfs/")" ""
    ctr -n with images unmount --rm "$MINE/k" >/dev/null
    ctr -n with images rm --sync $app $upon >/dev/null
}
check "a delta lacks the layers of its base, and keeps the other as it is stored" same \
    "$(tar -tf "$second/save.tar" | sort | comm -23 - <(tar -tf "$second/delta/app:1.tar" | sort))" \
    "$(tar -xOf "$default/save.tar" manifest.json | jq -r '.[0].Layers[]' | sort)"
mkdir "$MINE/k"
tar -C "$second/oci-delta/app:1" -cf "$MINE/oci-delta.tar" .
for delta in "$second/delta/app:1.tar" "$MINE/oci-delta.tar"; do
    check "containerd refuses ${delta##*/} without the base" refused "$delta"
    check "and loads it with the base" loads_delta "$delta"
done

kernel() { # NAMESPACE SNAPSHOTTER
    ctr -n "$1" images mount --snapshotter "$2" $app "$MINE/k" >/dev/null
}
mounted() { # NAMESPACE SNAPSHOTTER
    local status=0
    kernel "$1" "$2"
    same_files --copy "$MINE/k" "$N/$1/images/app:1/rootfs" || status=1
    ctr -n "$1" images unmount --snapshotter "$2" --rm "$MINE/k" >/dev/null
    return $status
}
check "rootfs is what overlayfs mounts" mounted default overlayfs
# A namespace that unpacked nothing has the same image, of its blobs alone. A directory that a layer
# names only as part of a path has the time of the unpacking elsewhere.
merged_of_blobs() {
    kernel default overlayfs
    same "$(rsync -aHAXni --checksum --omit-dir-times --delete "$MINE/k/" "$N/k8s.io/images/app:1/rootfs/")" ""
    ctr images unmount --snapshotter overlayfs --rm "$MINE/k" >/dev/null
}
check "and so it is of blobs that were never unpacked" merged_of_blobs
# A copy gives the directories in it times of its own.
copied() {
    kernel native native
    same "$(rsync -aHAXni --omit-dir-times --delete "$MINE/k/" "$N/native/images/app:1/rootfs/")" ""
    ctr -n native images unmount --snapshotter native --rm "$MINE/k" >/dev/null
}
check "rootfs is what the native snapshotter copied" copied

ctr containers create --snapshotter overlayfs $app made >/dev/null
# runc keeps its names in one place for all, and one of a container that was killed stays.
RAN=ran$$
ctr run -d --null-io --snapshotter overlayfs $app $RAN /bin/sh -c \
    'echo new >/new; rm /etc/one; exec sleep 1d' >/dev/null
within 20 test ! -e "$N/default/containers/$RAN/rootfs/etc/one"
within 20 grep -q '^A /new$' "$N/default/containers/$RAN/changes"
check "containers are listed" same "$(ls "$N/default/containers" | tr '\n' ' ')" "made $RAN "
check "one that never ran has no changes" same "$(cat "$N/default/containers/made/changes")" ""
changes=$(grep -v '/dev\|/proc\|/sys\|/run' "$N/default/containers/$RAN/changes" || true)
check "one that runs has what it changed" same "$changes" "$(printf 'C /etc\nD /etc/one\nA /new')"
container_mounted() {
    eval "$(ctr snapshots --snapshotter overlayfs mounts "$MINE/k" $RAN | sed 's/mount /mount -r /')"
    local status=0
    same_files --copy "$MINE/k" "$N/default/containers/$RAN/rootfs" || status=1
    umount "$MINE/k"
    return $status
}
check "its rootfs is what the kernel merges" container_mounted
check "its config is the runtime spec" \
    same "$(jq -r '.process.args[0]' "$N/default/containers/$RAN/config.json")" /bin/sh

# The engine commits all the time, and every look finds one of its states.
steadily() {
    local round
    (for round in $(seq 1 60); do
        ctr images tag --force $app "docker.io/library/tag:$round"
        [ "$round" -le 30 ] || ctr images rm "docker.io/library/tag:$((round - 30))"
    done) >/dev/null 2>"$MINE/writer.log" &
    local writer=$! looks=0
    while kill -0 $writer 2>/dev/null; do
        same "$(cat "$default/id")" "$digest"
        ls "$N/default/images" >/dev/null
        looks=$((looks + 1))
    done
    wait $writer
    [ $looks -gt 3 ]
}
check "it is read while it is written" steadily
check "a new name shows" within 2 test -e "$N/default/images/tag:60"
check "a removed name goes" within 2 test ! -e "$N/default/images/tag:30"
check "nothing went wrong meanwhile" same "$(cat "$M/.stratafs/errors")" ""

ctr task rm --force $RAN >/dev/null 2>&1 || true
"$STRATAFS" umount "$M"
kill $ENGINE
wait $ENGINE || true

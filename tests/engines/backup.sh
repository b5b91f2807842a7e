#!/usr/bin/env bash
# The recipes of docs/BACKUP.md, there and back.
. "$(dirname "$0")/lib.sh"
topic

start_dockerd "$MINE/docker" overlay2
mkdir -p "$MINE/in/bin" "$MINE/in/etc"
cp /bin/busybox "$MINE/in/bin/busybox"
for name in sh sleep cat ln; do ln -s busybox "$MINE/in/bin/$name"; done
tar -C "$MINE/in" -c . | docker import - base:1 >/dev/null
docker run -d --network none --name web -v data:/data base:1 sh -c \
    'echo one >/etc/one; ln /etc/one /etc/two; echo kept >/data/file; exec sleep 1d' >/dev/null
M=$MINE/mnt
mkdir "$M"
mount_again() { "$STRATAFS" mount --state "$MINE/state" --freeze "docker:$ROOT" "$M"; }
mount_again
S=$M/containers/web/snapshots/nightly
LIVE=$M/containers/web/rootfs
within 10 docker exec web cat /data/file
mkdir "$S"

# is_web DIR: its files are those of the snapshot.
is_web() {
    same "$(rsync -aHAXni --delete "$S/rootfs/" "$1/")" ""
    same "$(stat -c %i "$1/etc/one")" "$(stat -c %i "$1/etc/two")"
}

# --- rsync -------------------------------------------------------------------------------------

B=$MINE/backup
mkdir "$B"
copies() {
    rsync -aHAX --delete "$S/rootfs/" "$B/first/"
    rsync -aHAX --delete "$S/volumes/" "$B/volumes/"
    is_web "$B/first"
}
sends_nothing() {
    same "$(rsync -aHAXi --delete "$S/rootfs/" "$B/first/")" ""
    umount "$M"
    mount_again
    same "$(rsync -aHAXi --delete "$S/rootfs/" "$B/first/")" ""
}
links_to_the_last() {
    rsync -aHAX --delete --link-dest=../first "$S/rootfs/" "$B/second/"
    is_web "$B/second"
    same "$(stat -c %i "$B/first/bin/busybox")" "$(stat -c %i "$B/second/bin/busybox")"
}
keeps_in_place() {
    rsync -t --inplace "$S/full.tar" "$B/web.tar"
    same "$(rsync -ti "$S/full.tar" "$B/web.tar")" ""
    cmp "$S/full.tar" "$B/web.tar"
    same "$(tar -xOf "$B/web.tar" data/file)" kept
}
# sends_once DIR NAME: all of it the first time, nothing the second, nor after a remount.
sends_once() {
    rsync -aHAX --delete "$1/" "$B/$2/"
    same "$(rsync -aHAXi --delete "$1/" "$B/$2/")" ""
    umount "$M"
    mount_again
    same "$(rsync -aHAXi --delete "$1/" "$B/$2/")" ""
    same "$(stat -c %i "$B/$2$3/etc/one")" "$(stat -c %i "$B/$2$3/etc/two")"
}
check "rsync copies a snapshot" copies
check "a second run sends nothing, nor does one after a remount" sends_nothing
check "--link-dest shares what did not change" links_to_the_last
check "--inplace keeps full.tar" keeps_in_place
check "so rsync does with all of a snapshot" sends_once "$S" whole /rootfs
check "and with the rootfs of a container that does not change" sends_once "$LIVE" live ""

# --- restic and borg ---------------------------------------------------------------------------

export RESTIC_PASSWORD=x RESTIC_REPOSITORY=$MINE/restic XDG_CACHE_HOME=$MINE/cache
export BORG_BASE_DIR=$MINE/borg-home BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes

restic_keeps() {
    restic -q init
    restic -q backup "$S/rootfs" "$S/volumes"
    restic backup --json "$S/rootfs" "$S/volumes" | jq -se 'last | .files_new == 0 and .files_changed == 0 and .data_added < 5000'
    restic -q restore latest --target "$MINE/restored"
    is_web "$MINE/restored$S/rootfs"
}
borg_keeps() {
    borg init -e none "$MINE/borg"
    cd "$S"
    borg create "$MINE/borg::first" rootfs volumes
    borg create --json --stats "$MINE/borg::second" rootfs volumes |
        jq -e '.archive.stats.deduplicated_size < 20000'
    # A file that it had to read again would be listed as modified.
    same "$(borg create --list --filter AM --dry-run "$MINE/borg::third" rootfs volumes 2>&1)" ""
    mkdir "$MINE/borg-restored"
    cd "$MINE/borg-restored"
    borg extract "$MINE/borg::second"
    is_web "$MINE/borg-restored/rootfs"
}
restic_keeps_live() {
    restic -q backup "$LIVE"
    restic backup --json "$LIVE" | jq -se 'last | .files_new == 0 and .files_changed == 0 and .data_added < 5000'
}
borg_keeps_live() {
    borg create "$MINE/borg::live" "$LIVE"
    same "$(borg create --list --filter AM --dry-run "$MINE/borg::again" "$LIVE" 2>&1)" ""
}
check "restic finds nothing new, and brings it back" restic_keeps
check "nor does it in the container" restic_keeps_live
check "borg finds nothing new, and brings it back" borg_keeps
check "nor does it in the container" borg_keeps_live

# --- back --------------------------------------------------------------------------------------

KEPT=$MINE/kept
mkdir "$KEPT"
cp "$S/save.tar" "$S/export.tar" "$KEPT"
docker run --rm --network none -v data:/data base:1 cat /data/file >/dev/null
umount "$M"
stop_dockerd "$MINE/docker"
start_dockerd "$MINE/second" overlay2

runs() { same "$(docker run --rm --network none "$1" cat /etc/two)" one; }
loads() {
    docker load -q -i "$KEPT/save.tar"
    runs web:snapshot
}
imports() {
    docker import "$KEPT/export.tar" web:restored
    runs web:restored
}
imports_files() {
    tar -C "$B/first" --numeric-owner --xattrs -c . | docker import - web:files
    runs web:files
}
fills_a_volume() {
    docker volume create data
    rsync -aHAX "$B/volumes/data/" "$(docker volume inspect -f '{{.Mountpoint}}' data)/"
    same "$(docker run --rm --network none -v data:/data web:snapshot cat /data/file)" kept
}
podman() {
    command podman --root "$MINE/podman" --runroot "$MINE/podman-run" --storage-driver vfs \
        --cgroup-manager cgroupfs --events-backend none "$@"
}
podman_loads() {
    podman load -q -i "$KEPT/save.tar"
    same "$(podman image inspect -f '{{index .RepoTags 0}}' web:snapshot)" docker.io/library/web:snapshot
    podman rmi -a -f >/dev/null
}
check "docker load brings the container back" loads
check "docker import brings its files back" imports
check "so it does from a copy of rootfs/" imports_files
check "rsync brings a volume back" fills_a_volume
check "podman load takes the image" podman_loads
stop_dockerd "$MINE/second"

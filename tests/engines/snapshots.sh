#!/usr/bin/env bash
# Snapshots of running containers: what they hold, that they are of one moment, and what is left
# of one that was cut short.
. "$(dirname "$0")/lib.sh"
topic

start_dockerd "$MINE/docker" overlay2
mkdir -p "$MINE/in/bin" "$MINE/bound"
cp /bin/busybox "$MINE/in/bin/busybox"
for name in sh sleep cp mv rm mkdir ln cat; do ln -s busybox "$MINE/in/bin/$name"; done
mkdir "$MINE/in/etc"
tar -C "$MINE/in" -c . | docker import - base:1 >/dev/null
echo bound >"$MINE/bound/file"

# Writes a number to two files and to a volume, in this order, over and over.
counter='i=0; while :; do i=$((i+1)); echo $i >/one; echo $i >/data/two; echo $i >/three; done'
docker run -d --network none --name web -v data:/data -v "$MINE/bound:/bound:ro" base:1 \
    sh -c "mkdir -p /etc/x; ln /etc/x /y 2>/dev/null; echo a >/etc/a; ln /etc/a /etc/b; $counter" >/dev/null
docker run -d --network none --name idle base:1 sleep 1d >/dev/null

mount_state() {
    M=$MINE/mnt
    mkdir -p "$M" 2>/dev/null || true
    "$STRATAFS" mount --state "$MINE/state" "$@" "docker:$ROOT" "$M"
}
mount_state --freeze --snapshot-limit 3
S=$M/containers/web/snapshots
within 10 [ -s "$(docker volume inspect -f '{{.Mountpoint}}' data)/two" ]

# --- what is in one ----------------------------------------------------------------------------

# count: how far the program is; the file may be empty for a moment.
count() {
    local number=
    while [ -z "$number" ]; do number=$(docker exec web cat /three); done
    echo "$number"
}

makes() { mkdir "$S/first"; same "$(ls "$S")" first; }
holds() {
    same "$(ls "$S/first" | tr '\n' ' ')" \
        "changes changes-since config.json created diff diff.tar export.tar full.tar hostconfig.json id image inspect.json layers rootfs save.tar state volumes "
}
stands_still() {
    local one
    one=$(cat "$S/first/rootfs/one")
    sleep 0.3
    same "$(cat "$S/first/rootfs/one")" "$one"
    [ "$(count)" -gt "${one:-0}" ]
    [ "$(sha256sum <"$S/first/export.tar")" = "$(sha256sum <"$S/first/export.tar")" ]
}
links_stay() { same "$(stat -c %h "$S/first/rootfs/etc/a")" 2; }
volumes_are_copied() {
    same "$(ls "$S/first/volumes" | tr '\n' ' ')" "bound data "
    same "$(cat "$S/first/volumes/bound/file")" bound
    tar -xOf "$S/first/full.tar" data/two >/dev/null
    echo moved >"$MINE/bound/file"
    sleep 0.5
    same "$(cat "$S/first/volumes/bound/file")" bound
}
archives_read() {
    local archive
    for archive in diff export full save; do tar -tf "$S/first/$archive.tar" >/dev/null; done
    grep -q '^A /one$' "$S/first/changes"
}
loads() {
    docker load -q <"$S/first/save.tar"
    docker run --rm --network none web:snapshot cat /one >"$MINE/one"
    same "$(cat "$MINE/one")" "$(cat "$S/first/rootfs/one")"
    docker rmi web:snapshot >/dev/null
}
check "mkdir takes a snapshot" makes
check "it is a container's directory" holds
check "it stands still while the container runs on" stands_still
check "hard links stay hard links" links_stay
check "volumes and binds are in it" volumes_are_copied
check "its archives can be read" archives_read
check "Docker loads its save.tar" loads

differs() {
    docker exec web sh -c 'echo x >/etc/new; rm /etc/b'
    mkdir "$S/second"
    same "$(ls "$S/second/changes-since")" first
    grep -q '^A /etc/new$' "$S/second/changes-since/first"
    grep -q '^D /etc/b$' "$S/second/changes-since/first"
    grep -q '^D /etc/new$' "$S/first/changes-since/second"
}
limited() {
    mkdir "$S/third"
    fails_with "quota" mkdir "$S/fourth"
    rmdir "$S/third"
    same "$(ls "$S" | tr '\n' ' ')" "first second "
}
refuses() {
    fails_with "exists" mkdir "$S/first"
    fails_with "Invalid argument" mkdir "$S/.hidden"
    fails_with "Read-only" mkdir "$M/containers/web/new"
    fails_with "Read-only" touch "$S/first/rootfs/x"
    fails_with "Read-only" rmdir "$S/first/rootfs/etc"
    fails_with "Read-only" rmdir "$M/images/base:1"
    fails_with "Read-only" mv "$S/first" "$S/other"
    fails_with "Read-only" rm "$M/images/base:1/id"
}
again() {
    docker exec web sh -c 'echo early >/mark'
    rmdir "$S/second"
    [ ! -e "$S/second" ] || { echo "still there"; return 1; }
    mkdir "$S/second"
    same "$(cat "$S/second/rootfs/mark")" early
    docker exec web sh -c 'echo late >/mark'
    rmdir "$S/second"
    mkdir "$S/second"
    same "$(cat "$S/second/rootfs/mark")" late
}
survives() {
    local before
    before=$(sha256sum <"$S/first/export.tar")
    umount "$M"
    mount_state --freeze --snapshot-limit 3
    same "$(ls "$S" | tr '\n' ' ')" "first second "
    same "$(sha256sum <"$S/first/export.tar")" "$before"
}
stopped_too() {
    docker stop -t 0 idle >/dev/null
    within 2 grep -q exited "$M/containers/idle/state"
    mkdir "$M/containers/idle/snapshots/off"
    same "$(cat "$M/containers/idle/snapshots/off/state")" exited
}
backed_up() {
    mkdir -p "$MINE/backup"
    rsync -aHAX --delete "$S/first/rootfs/" "$MINE/backup/"
    same "$(rsync -aHAXi --delete "$S/first/rootfs/" "$MINE/backup/")" ""
}
check "two are compared" differs
check "there is a limit" limited
check "all else stays read-only" refuses
check "a name can be used again" again
check "they survive a remount" survives
check "a stopped container can be kept too" stopped_too
check "rsync finds nothing new in one" backed_up

# --- one moment --------------------------------------------------------------------------------

# Each file is written before the next, so none may be ahead of one before it.
in_order() {
    local round=0 name one two three
    for name in "$S"/*; do [ ! -e "$name" ] || rmdir "$name"; done
    while another 20 100; do
        mkdir "$S/n"
        one=$(cat "$S/n/rootfs/one") two=$(cat "$S/n/volumes/data/two") three=$(cat "$S/n/rootfs/three")
        # A file that is just being written is empty.
        for pair in "${one:-$((two + 1))} ${two:-0}" "${two:-$((three + 1))} ${three:-0}"; do
            [ "${pair% *}" -ge "${pair#* }" ] || { echo "round $round: $one $two $three"; return 1; }
        done
        rmdir "$S/n"
    done
}
moved_on() { [ "$(count)" -gt "$1" ]; }
runs_on() {
    local before
    before=$(count)
    within 5 moved_on "$before"
}
check "no file of $(how_often 20 100) snapshots is ahead of one written before it" in_order
check "the container runs on" runs_on

# Of two versions of cgroups the first is taken, unless nobody sees it.
second_version() {
    export S=$MINE/second/containers/web/snapshots STRATAFS ROOT MINE
    export -f in_order another how_often
    mkdir "$MINE/second"
    # shellcheck disable=SC2016 # for the inner shell
    unshare -m --propagation private bash -euc '
        umount "$(findmnt -n -o TARGET -t cgroup -O freezer)"
        "$STRATAFS" mount --state "$MINE/state" --freeze "docker:$ROOT" "$MINE/second"
        trap "umount $MINE/second" EXIT
        in_order'
    runs_on
}
if findmnt -t cgroup -O freezer >/dev/null &&
    grep -q '^0::/.' "/proc/$(docker inspect -f '{{.State.Pid}}' web)/cgroup"; then
    check "so it is by version 2 of cgroups" second_version
fi

# --- killed --------------------------------------------------------------------------------------

# reads: somebody lists and reads all that there is, over and over, until the daemon is gone.
reads() {
    while is_mounted "$M" && ls -R "$M/containers" >/dev/null; do
        cat "$M"/containers/web/export.tar "$S"/*/export.tar "$S"/*/rootfs/etc/x/* >/dev/null || true
    done
}

# A daemon that is killed while it copies, lists and reads leaves no half snapshot, and nobody frozen.
killed() {
    local round=0 name
    docker exec web sh -c 'i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo $i >/etc/x/$i; done'
    while another 5 100; do
        reads 2>/dev/null &
        mkdir "$S/k$round" 2>/dev/null &
        sleep "0.$((RANDOM % 4))$((RANDOM % 10))"
        kill -9 "$(daemon_of "$M")"
        wait
        mount_state --freeze --snapshot-limit 3
        same "$(ls -A "$MINE/state/.making")" ""
        for name in "$S"/*; do
            [ -e "$name" ] || continue
            cat "$name/rootfs/etc/x/400" "$name/volumes/data/two" >/dev/null
            same "$(ls "$name/rootfs/etc/x" | wc -l)" 400
            tar -tf "$name/full.tar" >/dev/null
            [ $((round % 2)) = 0 ] || rmdir "$name" # the next is killed beside it
        done
        runs_on
    done
}
check "a daemon killed $(how_often 5 100) times leaves whole snapshots, and nobody frozen" killed
umount "$M"
stop_dockerd "$MINE/docker"

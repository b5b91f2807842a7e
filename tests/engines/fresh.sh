#!/usr/bin/env bash
# What the engine changes shows within a second, and an open file stays what it was: where the kernel
# tells of changes, and where one has to look.
. "$(dirname "$0")/lib.sh"
. "$HERE/scenario.sh"
topic

scenario overlay2
# A second, and one more for a busy machine.
soon() { within 2 "$@"; }
is() { [ "$(cat "$M/$1/id")" = "$(docker inspect -f '{{.Id}}' "$2")" ]; }
saved() { docker save "$1" | cmp - "$M/images/$1/formats/docker-1.10.tar"; }
exported() {
    docker export "$1" -o "$MINE/engine.tar"
    python3 "$HERE/rehead.py" <"$MINE/engine.tar" >"$MINE/new.tar"
    cmp "$MINE/new.tar" "$M/containers/$1/export.tar"
}
grown() { [ "$(stat -c %s "$M/containers/$1/export.tar")" -gt "$before" ]; }
absent() { [ ! -e "$M/$1" ] && [ -z "$(find "$M/$(dirname "$1")" -maxdepth 1 -name "$(basename "$1")")" ]; }
base=$(docker image inspect -f '{{.Id}}' base:1)
gnu=$(docker image inspect -f '{{.Id}}' gnu:1)

# looks: how often the daemon looks at the list of names while somebody lists images for two seconds.
looks() {
    local at
    strace -f -qq -e trace=newfstatat,statx,openat2 -o "$MINE/looks" -p "$(daemon_of "$M")" &
    sleep 0.5
    for at in $(seq 20); do
        ls "$M/images" >/dev/null
        sleep 0.1
    done
    kill $!
    wait $! || true
    grep -c repositories.json "$MINE/looks" || true
}
is_watching() { grep -q '^inotify ' "/proc/$(daemon_of "$M")"/fdinfo/*; }

freshness() {
    local how=$1
    check "$how: the name is absent at first" absent images/fresh:1
    docker tag base:1 fresh:1
    check "$how: a new name shows" soon is images/fresh:1 "$base"
    exec 9<"$M/images/fresh:1/save.tar" || exec 9</dev/null
    cp "$M/images/fresh:1/save.tar" "$MINE/old.tar" || true
    docker tag gnu:1 fresh:1
    check "$how: a moved name shows" soon is images/fresh:1 "$gnu"
    check "$how: and its archive is the new one's" soon saved fresh:1
    check "$how: an open archive is still the old one" cmp "$MINE/old.tar" - <&9
    exec 9<&-
    docker rmi fresh:1 >/dev/null
    check "$how: a removed name goes" soon absent images/fresh:1

    docker run -d --network none --name fresh base:1 sleep 1d >/dev/null
    check "$how: a new container shows" soon is containers/fresh fresh
    check "$how: it runs" soon grep -q running "$M/containers/fresh/state"
    before=$(stat -c %s "$M/containers/fresh/export.tar" || echo 0)
    docker exec fresh sh -c 'echo new >/new'
    check "$how: a new file shows" soon grep -q new "$M/containers/fresh/rootfs/new"
    check "$how: and in changes" soon grep -qx 'A /new' "$M/containers/fresh/changes"
    check "$how: and in export.tar" soon grown fresh
    check "$how: whose bytes are docker export's" soon exported fresh
    cd "$M/containers/fresh/rootfs/bin"
    ls >/dev/null
    docker exec fresh sh -c 'echo new >/bin/newer'
    check "$how: a new file in a directory of the image shows" soon grep -q new "$M/containers/fresh/rootfs/bin/newer"
    check "$how: and to who is in that directory" soon grep -q new newer
    check "$how: and in its listing" soon sh -c 'ls | grep -qx newer'
    cd - >/dev/null
    docker exec fresh busybox rm /bin/newer
    docker exec fresh busybox rm /new
    check "$how: a removed file goes" soon absent containers/fresh/rootfs/new
    docker rename fresh fresher
    check "$how: a renamed container shows" soon is containers/fresher fresher
    check "$how: and its old name goes" soon absent containers/fresh
    docker rm -f fresher >/dev/null
    check "$how: a removed container goes" soon absent containers/fresher
    check "$how: reading refresh" cat "$M/.stratafs/refresh"
}

mount_store auto
check "the kernel is asked" within 2 is_watching
freshness auto
quiet() { [ "$(looks)" = 0 ]; }
# The engine writes down how those are that have a health check, every few seconds.
mapfile -t checked < <(docker ps -q --filter health=starting --filter health=healthy --filter health=unhealthy)
docker pause "${checked[@]}" >/dev/null
check "nothing is looked at while nothing is heard" within 1 quiet
docker unpause "${checked[@]}" >/dev/null
umount "$M"

mount_store poll --watch poll
check "the kernel is not asked" fails_with "" is_watching
freshness poll
sleep 3
check "without it one looks" [ "$(looks)" -ge 4 ]
umount "$M"

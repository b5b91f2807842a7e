#!/usr/bin/env bash
# What the engine changes shows within a second, and an open file stays what it was.
. "$(dirname "$0")/lib.sh"
. "$HERE/scenario.sh"
topic

scenario overlay2
mount_store overlay2
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

check "the name is absent at first" absent images/fresh:1
docker tag base:1 fresh:1
check "a new name shows" soon is images/fresh:1 "$base"
exec 9<"$M/images/fresh:1/save.tar" || exec 9</dev/null
cp "$M/images/fresh:1/save.tar" "$MINE/old.tar" || true
docker tag gnu:1 fresh:1
check "a moved name shows" soon is images/fresh:1 "$gnu"
check "and its archive is the new one's" soon saved fresh:1
check "an open archive is still the old one" cmp "$MINE/old.tar" - <&9
exec 9<&-
docker rmi fresh:1 >/dev/null
check "a removed name goes" soon absent images/fresh:1

docker run -d --network none --name fresh base:1 sleep 1d >/dev/null
check "a new container shows" soon is containers/fresh fresh
check "it runs" soon grep -q running "$M/containers/fresh/state"
before=$(stat -c %s "$M/containers/fresh/export.tar" || echo 0)
docker exec fresh sh -c 'echo new >/new'
check "a new file shows" soon grep -q new "$M/containers/fresh/rootfs/new"
check "and in changes" soon grep -qx 'A /new' "$M/containers/fresh/changes"
check "and in export.tar" soon grown fresh
check "whose bytes are docker export's" soon exported fresh
cd "$M/containers/fresh/rootfs/bin"
ls >/dev/null
docker exec fresh sh -c 'echo new >/bin/newer'
check "a new file in a directory of the image shows" soon grep -q new "$M/containers/fresh/rootfs/bin/newer"
check "and to who is in that directory" soon grep -q new newer
check "and in its listing" soon sh -c 'ls | grep -qx newer'
cd - >/dev/null
docker exec fresh busybox rm /bin/newer
docker exec fresh busybox rm /new
check "a removed file goes" soon absent containers/fresh/rootfs/new
docker rename fresh fresher
check "a renamed container shows" soon is containers/fresher fresher
check "and its old name goes" soon absent containers/fresh
docker rm -f fresher >/dev/null
check "a removed container goes" soon absent containers/fresher
check "reading refresh" cat "$M/.stratafs/refresh"

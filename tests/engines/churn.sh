#!/usr/bin/env bash
# Images and containers come and go under 16 readers: each listing is a state that existed at most a
# second ago, nothing but what was removed fails, and the daemon gives back what it took.
. "$(dirname "$0")/lib.sh"
topic

start_dockerd "$MINE/docker" overlay2
mkdir -p "$MINE/in/bin"
cp /bin/busybox "$MINE/in/bin/busybox"
ln -s busybox "$MINE/in/bin/sh"
for at in 0 1 2; do
    echo "load:$at" >"$MINE/in/mark"
    tar -C "$MINE/in" -c . | docker import - "load:$at" >/dev/null
    docker save -o "$MINE/load.$at.tar" "load:$at"
done
docker tag load:0 base:1
docker rmi load:0 load:1 load:2 >/dev/null

# churned SHARE HOW [OPTION...]: takes one SHARE-th of the time that is left, if that is limited.
churned() {
    local share=$1 how=$2 status=0 until=
    shift 2
    [ -z "${UNTIL:-}" ] || until=$(($(date +%s) + (UNTIL - $(date +%s)) / share))
    mount_store "$how" "$@"
    python3 "$HERE/churn.py" "$M" "$(daemon_of "$M")" "$MINE" "$(how_often 12 300)" "$until" \
        >"$MINE/churn.$how" 2>&1 || status=$?
    sed "s/^/# $TOPIC: $how: /" "$MINE/churn.$how" >&3
    umount "$M"
    return $status
}
exec 3>&1
check "with news from the kernel" churned 2 auto
check "without" churned 1 poll --watch poll
stop_dockerd "$MINE/docker"

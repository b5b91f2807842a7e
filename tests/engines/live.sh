#!/usr/bin/env bash
# live: running containers. 200 random changes in each round.
. "$(dirname "$0")/lib.sh"
. "$HERE/scenario.sh"
topic

CHANGES=200

# base: leaves BASE at the files of the image, random ones in /work among them.
base() {
    BASE=$MINE/base
    [ ! -d "$BASE" ] || return 0
    mkdir -p "$BASE/work"
    system "$BASE"
    python3 "$HERE/live.py" "$BASE" 1000000 150
}

as_tar() { tar -C "$BASE" --format=posix --xattrs --xattrs-include='*' -c .; }

# --- the two engines, by the same names -------------------------------------------------------

podman_at() {
    local root=$1
    shift
    # The run root must not have a longer path than 50 bytes.
    podman --root "$root" --runroot "$WORK/${root##*/}" --cgroup-manager=cgroupfs --storage-driver overlay \
        --runtime /usr/sbin/runc "$@" </dev/null
}

engine() {
    case $ENGINE in
        podman) podman_at "$MINE/podman" "$@" ;;
        *) DOCKER_HOST=unix://$MINE/$ENGINE/s docker "$@" ;;
    esac
}

# empty: an engine that holds nothing of the first.
empty() {
    case $ENGINE in
        podman) podman_at "$MINE/empty-podman" "$@" ;;
        *) DOCKER_HOST=unix://$MINE/empty/s docker "$@" ;;
    esac
}

begin() {
    local limits=()
    [ $ENGINE != podman ] || limits=(--ulimit nofile=1024:1024 --ulimit nproc=1024:1024)
    engine run -d --network none "${limits[@]}" --name live -v kept:/mnt/kept base:1 sleep 1d >/dev/null
    INSIDE=/proc/$(engine inspect -f '{{.State.Pid}}' live)/root
}

# --- what must hold -----------------------------------------------------------------------------

# The engine's list and ours, of /work alone: what Podman writes elsewhere it does not list.
as_diffed() {
    if ! engine diff live >"$MINE/engine" 2>"$MINE/said"; then
        # Podman fails where a file has become a directory; then nothing is known.
        [ $ENGINE = podman ] && grep -q 'not a directory' "$MINE/said" && return 0
        cat "$MINE/said"
        return 1
    fi
    python3 - "$MINE/engine" "$M/containers/live/changes" "$ENGINE" "$BASE" <<'END'
import os, re, sys
def records(path):
    text = open(path, "rb").read().decode("utf-8", "replace").encode()
    records = re.split(rb"\n(?=[ACD] /|\Z)", text)
    return [plain(record) for record in records if re.match(rb"[ACD] /work(/|\Z)", record)]
def plain(record):
    # Podman follows the image's symlinks on the host, to see whether a file was there.
    link = sys.argv[3] == "podman" and os.path.islink(os.fsencode(sys.argv[4]) + record[2:])
    return b"C" + record[1:] if link and record[:1] == b"A" else record
wanted, found = map(records, sys.argv[1:3])
missing, more = set(wanted) - set(found), set(found) - set(wanted)
assert not missing and not more, f"missing {missing}, too many {more}"
assert len(found) > 5 and len(found) == len(set(found))
END
}

# Status 1: the kernel has set a time meanwhile, and the bytes are all there.
as_it_is() { tar -C "$INSIDE" --format=posix -c work >"$MINE/inside.tar" || [ $? = 1 ]; }

exported() { python3 "$HERE/same_tars.py" "$MINE/inside.tar" "$M/containers/live/export.tar" work; }

# What a diff by comparison leaves out of a file with several names, it can't link to.
links() { [ $ENGINE != vfs ] || echo --copies; }

applied() {
    rm -rf "$MINE/applied"
    cp -a "$BASE" "$MINE/applied"
    python3 "$HERE/apply.py" "$M/containers/live/diff.tar" "$MINE/applied"
    tar -C "$MINE/applied" --format=posix -c work >"$MINE/applied.tar"
    # shellcheck disable=SC2046 # one word or none
    python3 "$HERE/same_tars.py" $(links) "$MINE/inside.tar" "$MINE/applied.tar" work
}

loaded() {
    local name=live:snapshot
    [ $ENGINE != podman ] || name=localhost/live:snapshot
    empty load -q -i "$M/containers/live/save.tar" >/dev/null
    empty create --network none --name copy $name >/dev/null
    empty export copy >"$MINE/copy.tar"
    # shellcheck disable=SC2046 # one word or none
    python3 "$HERE/same_tars.py" $(links) "$M/containers/live/export.tar" "$MINE/copy.tar" work
    empty rm copy >/dev/null
    empty rmi $name >/dev/null
}

# The config that a commit makes, but for the time and what the engine's version decides.
committed() {
    engine commit live committed:1 >/dev/null
    engine save committed:1 >"$MINE/committed.tar"
    local config='del(.created, .docker_version, .rootfs) | .history[-1] |= del(.created)
        | del(.config.OnBuild, .container_config.OnBuild)'
    of() { tar -xOf "$1" "$(tar -xOf "$1" manifest.json | jq -r '.[0].Config')" | jq -S "$config"; }
    diff <(of "$MINE/committed.tar") <(of "$M/containers/live/save.tar")
    engine rmi committed:1 >/dev/null
}

volume() {
    echo kept >"$INSIDE/mnt/kept/file"
    sleep 1
    same "$(tar -xOf "$M/containers/live/full.tar" mnt/kept/file)" kept
    same "$(cat "$M/containers/live/volumes/mnt-kept/file")" kept
    same "$(cat "$M/volumes/kept/data/file")" kept
    same "$(tar -tf "$M/volumes/kept/volume.tar")" file
    engine volume inspect kept | jq -S '.[0] | {Name, Driver, Mountpoint, Scope}' >"$MINE/volume"
    jq -S '.[0] | {Name, Driver, Mountpoint, Scope}' "$M/volumes/kept/volume.json" |
        diff "$MINE/volume" -
}

# Readers of one cold diff see the same.
readers() {
    local reader
    for reader in $(seq 64); do
        sha256sum <"$M/containers/live/diff.tar" >"$MINE/reader.$reader" &
    done
    wait $(jobs -p) || return 1
    same "$(sort -u "$MINE"/reader.* | wc -l)" 1
}

rounds() {
    local round=0
    while another 3 300; do
        begin
        python3 "$HERE/live.py" "$INSIDE" "$round" $CHANGES
        sleep 1
        as_it_is
        check "round $round on $ENGINE: changes are those of its diff" as_diffed
        check "round $round on $ENGINE: export.tar is the container's tree" exported
        check "round $round on $ENGINE: diff.tar makes it of the image's" applied
        check "round $round on $ENGINE: save.tar is loaded as an image of it" loaded
        if [ "$round" = 1 ]; then
            [ $ENGINE = podman ] || check "its config on $ENGINE is that of a commit" committed
            check "a volume on $ENGINE is in its place" volume
            check "64 readers of a diff on $ENGINE" readers
        fi
        engine kill live >/dev/null
        engine rm -f live >/dev/null
    done
}

on_docker() {
    start_dockerd "$MINE/$ENGINE" "$ENGINE"
    as_tar | engine import -c 'CMD ["sh"]' - base:1 >/dev/null
    mount_store "$ENGINE.mount"
    rounds
    umount "$M"
    stop_dockerd "$MINE/$ENGINE"
}

on_podman() {
    as_tar >"$MINE/base.tar"
    engine import -q -c 'CMD ["sh"]' "$MINE/base.tar" localhost/base:1 >/dev/null 2>&1
    M=$MINE/podman.mount
    mkdir "$M"
    "$STRATAFS" mount "podman:$MINE/podman" "$M"
    rounds
    umount "$M"
}

base
start_dockerd "$MINE/empty" overlay2
for ENGINE in ${ENGINES:-overlay2 vfs podman}; do
    case $ENGINE in
        podman) on_podman ;;
        *) on_docker ;;
    esac
done

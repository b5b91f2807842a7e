# What every topic script sources: engines, mounts, checks, and the clean-up of all three.
# shellcheck shell=bash
#
# Everything lives under one directory, $WORK. `scripts/engines` makes it, shares it between the
# topics and removes it; a topic that is run alone makes and removes its own.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export PATH=/usr/sbin:/usr/bin:/sbin:/bin:$PATH LC_ALL=C TZ=UTC DOCKER_BUILDKIT=0
umask 022

HERE=$PWD/tests/engines
TOPIC=$(basename "$0" .sh)
STRATAFS=$(realpath -m "${STRATAFS:-target/release/stratafs}")
FAILED=0

# --- checks ---------------------------------------------------------------------------------

# check NAME COMMAND...: runs the command and prints one line about it.
check() {
    local name=$1 said status
    shift
    set +e
    said=$(set -e; "$@" 2>&1)
    status=$?
    set -e
    if [ $status = 0 ]; then
        echo "ok $TOPIC: $name"
    else
        FAILED=1
        said=$(tail -n 3 <<<"${said:-status $status of: $*}" | tr '\n' ' ' | cut -c1-400)
        echo "not ok $TOPIC: $name: $said"
    fi
}

# fails_with TEXT COMMAND...: the command must fail and say TEXT.
fails_with() {
    local text=$1 said
    shift
    if said=$("$@" 2>&1 >/dev/null); then
        echo "succeeded: $*"
        return 1
    fi
    grep -qF -- "$text" <<<"$said" || { echo "said '$said', not '$text'"; return 1; }
}

same() { [ "$1" = "$2" ] || { echo "'$1' is not '$2'"; return 1; }; }

# within SECONDS COMMAND...: the command succeeds at last, tried every tenth of a second.
within() {
    local left=$(($1 * 10)) said
    shift
    until said=$("$@" 2>&1); do
        left=$((left - 1))
        [ $left -gt 0 ] || { echo "still not: $* $said"; return 1; }
        sleep 0.1
    done
}

# how_often FEW MANY: how often to do something: FEW times; for scripts/soak MANY times, or as often as it
# was told.
how_often() { [ -z "${SOAK:-}" ] && echo "$1" || echo "${ROUNDS:-$2}"; }

# another FEW MANY: whether there is another round, whose number is left in `round`; none begins after
# $UNTIL, in seconds since 1970.
another() {
    [ "${round:-0}" -lt "$(how_often "$@")" ] || return 1
    [ -z "${UNTIL:-}" ] || [ "$(date +%s)" -lt "$UNTIL" ] || return 1
    round=$((${round:-0} + 1))
}

# --- engines --------------------------------------------------------------------------------

# start_dockerd DIR DRIVER: a Docker of its own under DIR; leaves DOCKER_HOST and ROOT set to it.
start_dockerd() {
    use_dockerd "$1"
    mkdir -p "$1"
    echo "$1" >>"$WORK/engines"
    dockerd --data-root "$ROOT" --exec-root "$1/exec" -H "$DOCKER_HOST" --pidfile "$1/docker.pid" \
        --iptables=false --bridge=none --storage-driver "$2" >>"$1/log" 2>&1 </dev/null &
    within 60 docker version || { tail -n 5 "$1/log"; return 1; }
}

use_dockerd() {
    ROOT=$1/data
    export DOCKER_HOST=unix://$1/s
}

# stop_dockerd DIR: ends its containers at once, then the daemon, by its pid.
stop_dockerd() {
    local pid
    pid=$(cat "$1/docker.pid" 2>/dev/null) || return 0
    use_dockerd "$1"
    docker ps -q --filter status=paused 2>/dev/null | xargs -r docker unpause >/dev/null 2>&1 || true
    docker ps -q 2>/dev/null | xargs -r docker kill >/dev/null 2>&1 || true
    kill "$pid" 2>/dev/null || true
    within 30 [ ! -e "/proc/$pid" ] || kill -9 "$pid"
    rm -f "$1/docker.pid"
}

# --- mounts ---------------------------------------------------------------------------------

# mount_store NAME [OPTION...]: mounts ROOT; leaves M at the mount point.
mount_store() {
    M=$MINE/$1
    shift
    mkdir -p "$M" 2>/dev/null || true # not where a dead mount is in the way
    "$STRATAFS" mount "$@" "docker:$ROOT" "$M"
}

# daemon_of MOUNTPOINT: the pid of the stratafs behind it.
daemon_of() {
    local proc
    for proc in /proc/[0-9]*; do
        [ "$(readlink "$proc/exe" || true)" = "$STRATAFS" ] || continue
        ! grep -qzxF -- "$1" "$proc/cmdline" || { basename "$proc"; return; }
    done
    echo "no daemon for $1" >&2
    return 1
}

is_mounted() { mountpoint -q "$1"; }

# image_path NAME|ID: where the image is in the tree.
image_path() {
    case $1 in
        sha256:*) echo "by-id/images/${1#sha256:}" ;;
        *) echo "images/$1" ;;
    esac
}

# images: every name, and the ID of what has none.
images() {
    docker images --format '{{.Repository}}:{{.Tag}}' | grep -v '<none>' | sort
    docker images -a --no-trunc --filter dangling=true --format '{{.ID}}' | sort
}

containers() { docker ps -a --format '{{.Names}}' | sort; }

# --- what the kernel makes of the same directories ---------------------------------------------

# layer_of_image ID: the store's directory name of its topmost layer; nothing for no layers.
layer_of_image() {
    local chain='' diff
    for diff in $(docker image inspect -f '{{join .RootFS.Layers " "}}' "$1"); do
        [ -z "$chain" ] && chain=$diff ||
            chain=sha256:$(printf '%s %s' "$chain" "$diff" | sha256sum | cut -d' ' -f1)
    done
    [ -z "$chain" ] || cat "$ROOT"/image/*/layerdb/sha256/"${chain#sha256:}/cache-id"
}

layer_of_container() {
    cat "$ROOT"/image/*/layerdb/mounts/"$(docker inspect -f '{{.Id}}' "$1")/mount-id"
}

# merged LAYER: leaves K at the merged files of that layer and all below it, read-only.
merged() {
    K=$ROOT/vfs/dir/$1
    [ ! -d "$K" ] || return 0
    K=$MINE/merged/$1
    mkdir -p "$K" "$MINE/nothing"
    mountpoint -q "$K" || (
        cd "$ROOT/overlay2"
        lower=$(cat "$1/lower" 2>/dev/null || true)
        mount -t overlay -o "ro,lowerdir=$1/diff${lower:+:$lower}:$MINE/nothing" overlay "$K"
    )
}

same_files() { python3 "$HERE/same_files.py" "$@"; }

# --- clean-up -------------------------------------------------------------------------------

# clean DIR: ends and unmounts whatever runs under DIR, and removes it.
clean() {
    local at pid
    { grep "^$1/" "$WORK/engines" || true; } 2>/dev/null | while read -r at; do
        stop_dockerd "$at"
    done
    # What is left has the name of DIR, which is unique, among its arguments: daemons of ours, shims.
    for pid in $({ grep -alF "$1/" /proc/[0-9]*/cmdline || true; } 2>/dev/null | cut -d/ -f3); do
        [ "$pid" = $$ ] || kill -9 "$pid" 2>/dev/null || true
    done
    tac /proc/self/mounts | cut -d' ' -f2 | { grep -F "$1/" || true; } | while read -r at; do
        umount -l "$at" || true
    done
    rm -rf --one-file-system "$1"
}

new_work() { mktemp -d /var/tmp/stratafs.XXXXXX; }

finish() {
    local status=$?
    trap - EXIT
    clean "${OWN_WORK:-$MINE}"
    if [ $status != 0 ]; then
        echo "not ok $TOPIC: ended early"
        FAILED=1
    fi
    exit $FAILED
}

# topic: to be called first; makes the directories and arms the clean-up.
topic() {
    if [ -z "${WORK:-}" ]; then
        WORK=$(new_work)
        OWN_WORK=$WORK
    fi
    MINE=$(mktemp -d "$WORK/$TOPIC.XXXX")
    trap finish EXIT
    trap 'exit 130' INT TERM
    [ -x "$STRATAFS" ] || { echo "no program $STRATAFS" >&2; exit 1; }
}

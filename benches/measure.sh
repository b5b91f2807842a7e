# Rows, things that are measured, and mounts. Sourced by scripts/bench.
# shellcheck shell=bash
#
# A thing is a function do_THING that measures itself once and leaves VALUE, or says `absent`: it
# needs a program or an option that this machine or this stratafs does not have. A row holds one
# thing to a goal, mostly to another thing. Things of a group are measured by turns.

GROUP=
THING=
ROWS=()

# group NAME: rows that follow are measured together.
group() { GROUP=$1; }

# row GOAL OURS THEIRS WORK AGAINST: GOAL is `faster N` or `within N` (times THEIRS), `below N UNIT`
# with `-` as THEIRS, or `none` for what is shown without a goal.
row() { ROWS+=("$(printf '%s\t' "$GROUP" "$@")"); }

# wanted_things GROUP: the things of its rows that --only asks for, each once.
wanted_things() {
    local line name ours theirs
    for line in "${ROWS[@]}"; do
        IFS=$'\t' read -r name _ ours theirs _ <<<"$line"
        [ "$name" = "$1" ] || continue
        wanted "$ours" || wanted "$name" || continue
        printf '%s\n' "$theirs" "$ours"
    done | grep -vx -- - | awk '!seen[$0]++'
}

wanted() {
    local only
    [ ${#ONLY[@]} != 0 ] || return 0
    for only in "${ONLY[@]}"; do
        # shellcheck disable=SC2053 # a pattern
        [[ $1 != $only ]] || return 0
    done
    return 1
}

# measure_group GROUP: each of its things once for nothing, and then ROUNDS times, into $RAW.
measure_group() {
    local round things
    local -A without=()
    mapfile -t things < <(wanted_things "$1")
    [ ${#things[@]} != 0 ] || return 0
    for round in $(seq 0 "$ROUNDS"); do
        echo "$1: round $round of $ROUNDS" >&2
        for THING in "${things[@]}"; do
            [ -z "${without[$THING]-}" ] || continue
            unmount
            VALUE='' WRITTEN=0 PROCESSOR=0 ABSENT=
            "do_$THING"
            if [ -n "$ABSENT" ]; then
                echo "$THING: not there" >&2
                without[$THING]=1
                raw_line 1 absent
            elif [ "$round" != 0 ]; then
                raw_line "$round" "$VALUE"
            fi
        done
    done
    THING=
}

raw_line() { printf '%s\t%s\t%s\t%s\t%s\n' "$THING" "$1" "$2" "$WRITTEN" "$PROCESSOR" >>"$RAW"; }

absent() { ABSENT=1; }

# --- time -------------------------------------------------------------------------------------

# What dockerd, stratafs, this shell and the children that they waited for have used so far: bytes
# written to files on disks, and milliseconds of processors.
used() {
    local pid bytes=0 ticks=0
    for pid in $$ $DOCKERD $DAEMON; do
        bytes=$((bytes + $(sed -n 's/^write_bytes: //p' "/proc/$pid/io")))
        ticks=$((ticks + $(sed 's/.*) //' "/proc/$pid/stat" | cut -d' ' -f12-15 | tr ' ' +)))
    done
    echo $bytes $((ticks * 1000 / $(getconf CLK_TCK)))
}

# timed COMMAND: runs a line of shell; leaves VALUE in microseconds, WRITTEN and PROCESSOR.
timed() {
    local before after start end last
    read -ra before <<<"$(used)"
    start=${EPOCHREALTIME/./}
    eval "$1"
    end=${EPOCHREALTIME/./}
    # After a first byte the engine still has to notice that nobody wants the rest.
    last=${!:-}
    [ -z "$last" ] || [ "$last" = "$DOCKERD" ] || wait "$last" || true
    read -ra after <<<"$(used)"
    VALUE=$((end - start))
    WRITTEN=$((after[0] - before[0]))
    PROCESSOR=$((after[1] - before[1]))
}

# A virtual machine may give free memory back to its host, and is slow to get it again: enough of
# it for two copies of the image is there for everything that is measured.
warm_memory() { perl -e '$x = "x" x 3_000_000_000'; }

# --- mounts -----------------------------------------------------------------------------------

# fresh SOURCE [OPTION...]: mounts anew, so that the kernel has none of our pages.
fresh() {
    local source=$1
    shift
    unmount
    "$STRATAFS" mount --cache "$CACHE" "$@" "$source" "$MOUNT"
    DAEMON=$(daemon)
}

# floor SIZE [DIR]: mounts what FUSE takes alone, a file of so many zeros and the names of DIR.
floor() {
    unmount
    FLOOR=${FLOOR:-$(bench_program floor)}
    # No child of this shell, which waits for its last one.
    DAEMON=$("$FLOOR" "$MOUNT" "$@" >/dev/null & echo $!)
    until mountpoint -q "$MOUNT"; do sleep 0.01; done
    echo 1024 >"/sys/class/bdi/$(mountpoint -d "$MOUNT")/read_ahead_kb"
}
FLOOR=

unmount() {
    mountpoint -q "$MOUNT" || return 0
    "$STRATAFS" umount "$MOUNT" 2>/dev/null || umount -l "$MOUNT"
    # A zombie has no command line, and is as good as gone.
    while grep -qs . "/proc/$DAEMON/cmdline"; do sleep 0.01; done
    DAEMON=
}

# The pid of the stratafs that serves the mount.
daemon() {
    local file
    # Processes that end meanwhile are no failure.
    { grep -slzxF -- "$MOUNT" /proc/[0-9]*/cmdline || true; } | while read -r file; do
        file=${file%/cmdline}
        [ "$(readlink "$file/exe" || true)" != "$STRATAFS" ] || basename "$file"
    done
}

# knows COMMAND OPTION: whether this stratafs has it.
knows() { "$STRATAFS" "$1" --help 2>/dev/null | grep -q -- "$2"; }

# resident PID: its memory, in KiB.
resident() { sed -n 's/^VmRSS:\s*\([0-9]*\) kB$/\1/p' "/proc/$1/status"; }

# overlay DIRS: mounts directories, topmost first and with colons between, as the kernel merges them.
overlay() {
    mkdir -p "$RUN/overlay" "$RUN/nothing"
    mountpoint -q "$RUN/overlay" && [ "$OVERLAID" = "$1" ] && return
    ! mountpoint -q "$RUN/overlay" || umount "$RUN/overlay"
    # Names of layers are too long for one mount option.
    (cd "$DOCKER/overlay2" && mount -t overlay -o "ro,lowerdir=$1:$RUN/nothing" overlay "$RUN/overlay")
    OVERLAID=$1
}

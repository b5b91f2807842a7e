#!/usr/bin/env bash
# sums: the hashes that the classic builder records, and the contexts that it is sent.
. "$(dirname "$0")/lib.sh"
. "$HERE/scenario.sh"
topic

# The command up to 23 tells types in modes.
FLAVOUR=docker-1.10
[ "$(docker version -f '{{.Client.Version}}' | cut -d. -f1)" -le 23 ] || FLAVOUR=docker-29

# recorded IMAGE: the hash of each COPY and ADD, in order.
recorded() {
    docker history --no-trunc --format '{{.CreatedBy}}' "$1" | tac |
        sed -n 's/.*(nop) \(COPY\|ADD\) \([a-z]*:[0-9a-f]*\) in .*/\2/p'
}

# summed FLAVOUR CONTEXT: the same by stratafs, for each line of sources between tabs.
summed() {
    local sources arguments
    while IFS=$'\t' read -r -a sources; do
        arguments=()
        for source in "${sources[@]}"; do arguments+=(--paths "$source"); done
        "$STRATAFS" sum --flavour "$1" --build "${arguments[@]}" "$2"
    done
}

# steps: a Dockerfile that copies each line of sources.
steps() {
    echo FROM scratch
    awk -F'\t' '{ printf "COPY ["; for (i = 1; i <= NF; i++) printf "\"%s\", ", $i
                  print "\"/" NR "/\"]" }'
}

as_recorded() {
    local context=$1 sources=$2
    steps <"$sources" >"$context/Dockerfile"
    docker build --no-cache -q -t sums "$context"
    same "$(recorded sums)" "$(summed $FLAVOUR "$context" <"$sources")"
}

# The same, of a context that stratafs sends.
as_sent() {
    local context=$1 sources=$2
    shift 2
    steps <"$sources" >"$context/Dockerfile"
    "$STRATAFS" context "$@" "$context" | docker build --no-cache -q -t sent -
    same "$(recorded sent)" "$(summed docker-29 "$context" <"$sources")"
}

# captured DOCKER DIR: what that command sends for a directory.
captured() {
    rm -f "$MINE/captured"
    DOCKER_HOST=unix://$MINE/capture "$1" build -q "$2" >/dev/null 2>&1
    [ -s "$MINE/captured" ]
}

same_context() {
    local command=$1 context=$2
    captured "$command" "$context"
    if [ "$("$command" version -f '{{.Client.Version}}' | cut -d. -f1)" -gt 23 ]; then
        "$STRATAFS" context "$context" | cmp - "$MINE/captured"
        return
    fi
    # Debian's names the owners as well.
    "$STRATAFS" context --flavour docker-1.10 "$context" >"$MINE/sent"
    same "$(tar -tf "$MINE/sent")" "$(tar -tf "$MINE/captured")"
    same "$("$STRATAFS" sum --tarsum v0 "$MINE/sent")" "$("$STRATAFS" sum --tarsum v0 "$MINE/captured")"
}

scenario overlay2
C=$MINE/context
mkdir -p "$C/d/sub"
echo a >"$C/d/a"; echo b >"$C/d/sub/b"; ln "$C/d/a" "$C/d/hard"; mkfifo "$C/d/fifo"
for link in l:a dangling:nowhere abs:/etc/passwd up:../.. loop:loop; do
    ln -s "${link#*:}" "$C/d/${link%%:*}"
done
ln -s d "$C/dl"; ln -s top.c "$C/tl"; echo c >"$C/top.c"; echo 2 >"$C/top2.c"; chmod 640 "$C/top2.c"
printf '%s\n' d d/ top.c /top.c ./d/a d/hard dl tl . '*.c' 't*' 'd/[h]*' 'd/s?b' \
    $'top.c\ttop2.c' $'top.c\td\ttl' $'*.c\tdl' >"$MINE/sources"
check "files, directories, links, patterns and several sources are as recorded" \
    as_recorded "$C" "$MINE/sources"
for compression in none gzip; do
    check "docker build takes a context, compression $compression" \
        as_sent "$C" "$MINE/sources" --compression $compression
done

python3 "$HERE/capture.py" "$MINE/capture" "$MINE/captured" &
within 10 [ -S "$MINE/capture" ]
for docker in $(type -aP docker | xargs -n1 realpath | sort -u); do
    check "a context is the one that $docker sends" same_context "$docker" "$C"
    for ignore in 'd' '*\n!d/a' '**/a\n' 'd/**\n!d/sub\n' '*\n!*.c\nDockerfile\n.dockerignore' \
        '# no\n /d/sub/../l \n\n!top?.c\n' 'd\n!d/sub/b' '**\n!d' 'd/*\n!d/[a-c]*'; do
        # shellcheck disable=SC2059
        printf "$ignore" >"$C/.dockerignore"
        check "so it is with .dockerignore $ignore" same_context "$docker" "$C"
    done
done
printf 'Dockerfile\n.dockerignore\nd/sub' >"$C/.dockerignore"
printf '%s\n' . d >"$MINE/sources"
check "what the engine removes does not count" as_recorded "$C" "$MINE/sources"

# 200 trees, four at a time, and some of what is in them: Docker takes no more than 125 steps.
mkdir "$MINE/random"
python3 "$HERE/random_trees.py" "$MINE/random" 200 "${SEED:-0}" >"$MINE/lines"
{
    ls "$MINE/random"
    shuf -n 50 --random-source=<(yes) "$MINE/lines"
} >"$MINE/some"
check "random trees are as recorded" as_recorded "$MINE/random" "$MINE/some"
check "their context is the one that docker sends" same_context docker "$MINE/random"

# The files of an image as a context, from the mount.
mount_store mount
from_mount() {
    local at=$M/images/base:1/rootfs
    printf 'FROM scratch\nCOPY etc /etc/\nCOPY etc/passwd /\nCOPY zoo/sub zoo/user /\n' |
        "$STRATAFS" context -f - "$at" --exclude bin | docker build --no-cache -q -t mounted -
    same "$(recorded mounted | head -n 2)" "$(
        getfattr --absolute-names --only-values -n user.stratafs.buildhash "$at/etc"
        echo
        getfattr --absolute-names --only-values -n user.stratafs.buildhash "$at/etc/passwd"
    )"
    same "$(recorded mounted | tail -n 1)" \
        "$("$STRATAFS" sum --build --paths zoo/sub --paths zoo/user "$at")"
}
check "xattrs in a mount are what a build from it records" from_mount
check "a Dockerfile alone is a context" bash -c \
    'printf "FROM scratch\nLABEL a=b\n" | "$0" context -f - | docker build -q -t alone -' "$STRATAFS"
not_copied() {
    cp -a "$M/images/base:1/rootfs/zoo/xattr" "$MINE/copy"
    same "$(getfattr --absolute-names -m - "$MINE/copy" | grep -c user.stratafs || true)" 0
    tar -C "$M/images/base:1" --xattrs --xattrs-include='*' -cf "$MINE/copy.tar" config.json id
    same "$(grep -ac user.stratafs "$MINE/copy.tar" || true)" 0
}
check "nobody copies checksums" not_copied

#!/usr/bin/env bash
# The stores of Podman and Buildah, by root and by an ordinary user: archives, files, names and states
# as the engine itself gives them, while somebody holds its locks.
. "$(dirname "$0")/lib.sh"
. "$HERE/scenario.sh"
topic

# end_user_namespaces: ends the processes that keep them, which have no argument to tell them by.
end_user_namespaces() {
    local status=$? file
    for file in "$MINE"/user.*/run/libpod/tmp/pause.pid; do
        [ ! -e "$file" ] || kill "$(cat "$file")" 2>/dev/null || true
    done
    return $status
}
trap 'end_user_namespaces; finish' EXIT

# Whatever user runs it: limits that runc may set, and cgroups as a host without systemd has them.
LIMITS='--ulimit nofile=1024:1024 --ulimit nproc=1024:1024 --network none'
USER_ID=71234

podman_of_root() {
    podman --root "$STORE" --runroot "$RUN" --storage-driver "$DRIVER" --cgroup-manager=cgroupfs \
        --runtime /usr/sbin/runc "$@"
}

# as_user COMMAND...: as a user of the system in $SYSTEM, where /etc says who may have which IDs.
as_user() {
    unshare -m --propagation private bash -c '
        for file in passwd group subuid subgid; do mount --bind "$0/etc/$file" "/etc/$file"; done
        cd "$0/home"
        exec setpriv --reuid '$USER_ID' --regid '$USER_ID' --clear-groups env HOME="$0/home" \
            XDG_RUNTIME_DIR="$0/run" PATH="$PATH" "$@"' "$SYSTEM" "$@"
}

podman_of_user() { as_user podman --storage-driver "$DRIVER" --cgroup-manager=cgroupfs "$@"; }

# new_system DIR: a system with one user, who may give IDs to containers.
new_system() {
    SYSTEM=$1
    mkdir -p "$1/etc" "$1/home" "$1/run" "$1/out"
    echo "tester:x:$USER_ID:$USER_ID::$1/home:/bin/sh" | cat /etc/passwd - >"$1/etc/passwd"
    echo "tester:x:$USER_ID:" | cat /etc/group - >"$1/etc/group"
    echo 'tester:700000:65536' | tee "$1/etc/subuid" >"$1/etc/subgid"
    [ -e /etc/subuid ] || touch /etc/subuid
    [ -e /etc/subgid ] || touch /etc/subgid
    chown "$USER_ID:$USER_ID" "$1/home" "$1/run" "$1/out"
    chmod 755 "$WORK" "$MINE" "$1"
    chmod 700 "$1/run"
}

# hold_locks: holds every lock of the store until the process LOCKS ends.
hold_locks() {
    python3 - "$STORE" <<'END' &
import fcntl, pathlib, sys, time
held = [open(path, 'r+') for path in pathlib.Path(sys.argv[1]).rglob('*.lock')]
held += [open(path, 'r+') for path in pathlib.Path(sys.argv[1]).glob('libpod/*.db')]
for file in held:
    fcntl.lockf(file, fcntl.LOCK_EX)
    fcntl.flock(file, fcntl.LOCK_EX)
pathlib.Path(sys.argv[1], 'held').touch()
time.sleep(60)
END
    LOCKS=$!
    within 10 [ -e "$STORE/held" ]
}

drop_locks() {
    kill "$LOCKS"
    wait "$LOCKS" 2>/dev/null || true
    rm "$STORE/held"
}

mount_podman() {
    M=$MINE/$1
    mkdir -p "$M"
    "$STRATAFS" mount "podman:$STORE" "$M"
}

# same_changes FILE FILE: but for /opaque and below, which Podman calls deleted on overlay though it is there anew.
same_changes() {
    diff <(grep -v ' /opaque' "$1" | sort) <(grep -v ' /opaque' "$2" | sort)
}

# every_name: what the engine lists is there, and nothing else.
every_name() {
    local name id
    "$PODMAN" images --no-trunc --format '{{.Repository}}:{{.Tag}} {{.ID}}' | grep -v '<none>' >"$MINE/listed"
    while read -r name id; do
        same "$(cat "$M/images/$name/id")" "sha256:${id#sha256:}"
    done <"$MINE/listed"
    for name in $("$PODMAN" images -a --no-trunc -q); do
        [ -d "$M/by-id/images/${name#sha256:}" ] || { echo "no $name"; return 1; }
    done
    same "$(ls "$M/containers" | sort)" "$("$PODMAN" ps -a --external --format '{{.Names}}' | sort)"
}

every_state() {
    local name
    for name in $("$PODMAN" ps -a --format '{{.Names}}'); do
        same "$name $(cat "$M/containers/$name/state")" \
            "$name $("$PODMAN" inspect -f '{{.State.Status}}' "$name")"
    done
}

# The engine's archives, made before its locks are held, for which it would wait itself.
ask_engine() {
    local name out=$1
    for name in $IMAGES; do
        "$PODMAN" save -o "$out/${name//[:\/]/_}.tar" "$name"
    done
    for name in $CONTAINERS; do
        # Podman 4.3 has the type of a file in its mode, as Docker had then.
        "$PODMAN" export -o "$out/$name.raw" "$name"
        python3 "$HERE/rehead.py" <"$out/$name.raw" >"$out/$name.tar"
        "$PODMAN" diff "$name" | cat >"$out/$name.changes"
    done
}

same_as_engine() {
    local name out=$1
    for name in $IMAGES; do
        check "save of $name $2" cmp "$out/${name//[:\/]/_}.tar" "$M/images/$name/save.tar"
    done
    for name in $CONTAINERS; do
        # Podman packs the owners that a mount shows, which are the host's.
        [ "$name" = mapped ] || check "export of $name $2" cmp "$out/$name.tar" "$M/containers/$name/export.tar"
        check "changes of $name $2" same_changes "$out/$name.changes" "$M/containers/$name/changes"
    done
}

# saved_together: `podman save -m` of both, which takes images in random order: tried until it is ours.
saved_together() {
    local ours=$M/images/.save/localhost%2Fapp:1+localhost%2Fbase:1.tar
    within 30 as_together "$ours"
    same "$(stat -c %s "$ours")" "$(stat -c %s "$MINE/together.tar")"
}
as_together() {
    rm -f "$MINE/together.tar"
    "$PODMAN" save -q -m -o "$MINE/together.tar" localhost/app:1 localhost/base:1
    cmp "$MINE/together.tar" "$1"
}

# config_of NAME: the digest of the config of the image that our archive of a name holds.
config_of() { tar -xOf "$M/images/$1/save.tar" manifest.json | jq -r '.[0].Config'; }

# shows LIST NAME: the list of manifests is that image now.
shows() { [ "$(config_of "$1")" = "$(config_of "$2")" ]; }

# lists: a list of manifests is the image for this host, and has the others; one that grows, grows here.
lists() {
    "$PODMAN" manifest add localhost/grown:1 containers-storage:localhost/other:1 >/dev/null
    within 2 shows localhost/grown:1 localhost/other:1
    "$PODMAN" manifest add localhost/grown:1 containers-storage:localhost/base:1 >/dev/null
    within 2 shows localhost/grown:1 localhost/base:1
    same "$(ls "$M/images/localhost/grown:1/platforms")" linux-s390x
    same "$(cat "$M/images/localhost/list:1/platforms/linux-s390x/id")" "$(cat "$M/images/localhost/other:1/id")"
    same "$(cat "$M/images/localhost/list:1/config.json")" "$(cat "$M/images/localhost/base:1/config.json")"
    same "$(cat "$M/.stratafs/errors")" ''
}

# mounts_of NAME: what the engine says is mounted into a container, by where and from where.
mounts_of() {
    "$PODMAN" inspect "$1" | jq -r '.[0].Mounts[] | "\(.Destination) \(.Source)"' | sort
}

# mounts_here NAME: the same as it is shown; each directory has a file that names it.
mounts_here() {
    local entry
    for entry in "$M/containers/$1/volumes"/*; do
        echo "/$(basename "$entry") $(cat "$entry/where")"
    done | sort
}

# loads NAME: the engine takes our archive of the image into another store, with the same ID. It would
# cut a path at its colon.
loads() {
    local first=$STORE STORE=$MINE/$DRIVER.second
    podman_of_root load -q -i "$M/images/${1%:*}/tags/${1##*:}/save.tar"
    same "$(podman_of_root image inspect -f '{{.Id}}' "$1")" \
        "$(STORE=$first podman_of_root image inspect -f '{{.Id}}' "$1")"
}

PODMAN=podman_of_root
for DRIVER in overlay vfs; do
    STORE=$MINE/$DRIVER.root RUN=$MINE/$DRIVER.run OUT=$MINE/$DRIVER.out
    mkdir -p "$MINE/in/opaque/a" "$MINE/in/gone" "$OUT"
    [ -e "$MINE/in/zoo" ] || { system "$MINE/in"; zoo "$MINE/in/zoo"; touch "$MINE/in/gone/x"; }
    tar -C "$MINE/in" --format=posix --xattrs --xattrs-include='*' -c . |
        $PODMAN import -c 'CMD ["sh"]' - localhost/base:1 >/dev/null 2>&1
    $PODMAN tag localhost/base:1 example.test/team/base:2
    # shellcheck disable=SC2086 # one word an option
    $PODMAN run $LIMITS --name changed localhost/base:1 sh -c 'busybox rm -r /gone /opaque
        busybox mkdir /opaque; echo n >/opaque/new; echo x >/zoo/user; busybox rm /zoo/empty' >/dev/null
    $PODMAN commit -q changed localhost/app:1 >/dev/null 2>&1
    mkdir -p "$MINE/bound"
    printf 'FROM scratch\nCOPY bin /bin\n' >"$MINE/in/Dockerfile"
    $PODMAN create --network none --name created -v "named$DRIVER:/vol" -v /anonymous --tmpfs /tmp \
        --mount "type=bind,src=$MINE/bound,dst=/bound,ro" localhost/app:1 sh >/dev/null
    mounts_of created | while read -r _ source; do echo "$source" >"$source/where"; done
    tar -C "$MINE/in" -c Dockerfile | $PODMAN import --arch s390x - localhost/other:1 >/dev/null 2>&1
    $PODMAN manifest create localhost/list:1 >/dev/null
    $PODMAN manifest add localhost/list:1 containers-storage:localhost/other:1 >/dev/null
    $PODMAN manifest add localhost/list:1 containers-storage:localhost/base:1 >/dev/null
    buildah --root "$STORE" --runroot "$RUN" --storage-driver "$DRIVER" manifest create localhost/grown:1 >/dev/null
    # shellcheck disable=SC2086
    $PODMAN run -d $LIMITS --name live localhost/app:1 sh -c 'echo l >/live; exec busybox sleep 1d' >/dev/null
    # shellcheck disable=SC2086
    $PODMAN run $LIMITS --uidmap 0:300000:5000 --gidmap 0:400000:5000 --name mapped localhost/app:1 \
        sh -c 'echo m >/own; echo u >/other; busybox chown 12:13 /other' >/dev/null
    buildah --root "$STORE" --runroot "$RUN" --storage-driver "$DRIVER" bud -q -t localhost/built:1 \
        "$MINE/in" >/dev/null 2>&1
    sleep 1

    IMAGES='localhost/base:1 localhost/app:1 localhost/built:1 localhost/list:1'
    CONTAINERS='changed created live mapped'
    ask_engine "$OUT"
    mount_podman "$DRIVER"
    check "names on $DRIVER" every_name
    check "states on $DRIVER" every_state
    check "mounts of a container that never ran on $DRIVER" same "$(mounts_here created)" "$(mounts_of created)"
    hold_locks
    same_as_engine "$OUT" "on $DRIVER"
    drop_locks
    check "lists of manifests on $DRIVER" lists
    for name in $IMAGES; do
        at=$($PODMAN image mount "$name")
        check "files of $name on $DRIVER" same_files "$at" "$M/images/$name/rootfs"
        $PODMAN image umount "$name" >/dev/null
    done
    for name in changed created live; do
        at=$($PODMAN mount "$name")
        check "files of $name on $DRIVER" same_files "$at" "$M/containers/$name/rootfs"
        $PODMAN umount "$name" >/dev/null
    done
    check "several images together on $DRIVER" saved_together
    for name in $IMAGES; do
        check "oci/ and oci.tar of $name on $DRIVER are valid" python3 "$HERE/valid_layout.py" \
            "$M/images/$name/oci" "$M/images/$name/formats/oci.tar"
    done
    check "owners of mapped on $DRIVER" same \
        "$(stat -c '%u:%g' "$M"/containers/mapped/rootfs/{own,other,bin})" "$(printf '0:0\n12:13\n0:0')"
    check "what never ran in full.tar on $DRIVER" same "$(tar -xOf "$M/containers/created/full.tar" vol/where)" \
        "$(cat "$M/containers/created/volumes/vol/where")"
    check "load of app:1 on $DRIVER" loads localhost/app:1
    $PODMAN rm -f -t 0 live >/dev/null
    check "a removed container on $DRIVER" within 2 test ! -e "$M/containers/live"
done

PODMAN=podman_of_user
for DRIVER in overlay vfs; do
    new_system "$MINE/user.$DRIVER"
    STORE=$SYSTEM/home/.local/share/containers/storage
    # No devices and no IDs beyond those that the user may give.
    tar -C "$MINE/in" --format=posix -c bin etc zoo/user zoo/sgid zoo/suid zoo/sub zoo/hard zoo/fifo >"$SYSTEM/base.tar"
    chmod 644 "$SYSTEM/base.tar"
    podman_of_user import -c 'CMD ["sh"]' "$SYSTEM/base.tar" localhost/base:1 >/dev/null 2>&1
    container=$(as_user buildah --storage-driver "$DRIVER" from localhost/base:1)
    as_user buildah --storage-driver "$DRIVER" run --isolation chroot "$container" sh -c \
        'busybox rm -r /zoo/sub; busybox mkdir /zoo/sub; echo n >/zoo/sub/new; echo u >/mine
        busybox chown 12:13 /mine; busybox rm /zoo/fifo' >/dev/null 2>&1
    as_user buildah --storage-driver "$DRIVER" commit -q "$container" localhost/app:1 >/dev/null 2>&1
    podman_of_user create --network none --name created localhost/app:1 sh >/dev/null
    IMAGES='localhost/base:1 localhost/app:1' CONTAINERS=created
    ask_engine "$SYSTEM/out"
    mount_podman "user.$DRIVER.mount"
    check "names of a user on $DRIVER" every_name
    hold_locks
    same_as_engine "$SYSTEM/out" "of a user on $DRIVER"
    drop_locks
    check "owners of a user's image on $DRIVER" same \
        "$(stat -c '%u:%g' "$M"/images/localhost/app:1/rootfs/{mine,bin,zoo/user})" \
        "$(printf '12:13\n0:0\n1000:1000')"
    # Its listing from inside the user's own namespace, against ours.
    podman_of_user unshare sh -c 'at=$(podman --storage-driver '"$DRIVER"' image mount localhost/app:1)
        cd "$at" && busybox find . | sort | xargs stat -c "%n %a %u:%g %s %Y"' >"$MINE/theirs.$DRIVER"
    (cd "$M/images/localhost/app:1/rootfs" && find . | sort | xargs stat -c '%n %a %u:%g %s %Y') |
        grep -v '^\. ' >"$MINE/ours.$DRIVER"
    check "files of a user's image on $DRIVER" \
        diff <(grep -v '^\. ' "$MINE/theirs.$DRIVER" | sed '/^[^ ]* [0-9]* [0-9:]* 4096 /s/ 4096 / - /') \
        <(sed '/^[^ ]* [0-9]* [0-9:]* 4096 /s/ 4096 / - /' "$MINE/ours.$DRIVER")
done

# What else somebody could use, where it can do the job. Sourced by scripts/bench.
# shellcheck shell=bash

group others
row none save podman-save 'cat save.tar' 'podman save'
row none save podman-save-oci 'cat save.tar' 'podman save --format oci-archive'
row none save skopeo-copy 'cat save.tar' 'skopeo copy to docker-archive:'
row none export podman-export 'cat export.tar' 'podman export'
row none diff-walk ratarmount-walk 'open a layer and read its files' 'ratarmount of its tar'
row none diff-walk archivemount-walk 'open a layer and read its files' 'archivemount of its tar'

# Its database holds the paths of both.
PODMAN=(podman --root "$WORK/podman" --runroot "$WORK/podman-run" --storage-driver overlay --cgroup-manager cgroupfs)

need_podman() {
    need_plain
    need podman
    once podman || return 0
    "${PODMAN[@]}" load -q -i "$WORK/plain.tar" >/dev/null
    "${PODMAN[@]}" create --name bench "docker.io/library/$IMAGE" none >/dev/null
    made podman
}
do_podman-save() { need_podman; timed '"${PODMAN[@]}" save -q '"$IMAGE >/dev/null"; }
do_podman-save-oci() {
    need_podman
    timed '"${PODMAN[@]}" save -q --format oci-archive '"$IMAGE | cat >/dev/null"
}
do_podman-export() { need_podman; timed '"${PODMAN[@]}" export bench >/dev/null'; }
do_skopeo-copy() {
    need_image
    need skopeo
    timed "skopeo copy -q docker-daemon:$IMAGE docker-archive:/dev/shm/stratafs-bench.tar --src-daemon-host $DOCKER_HOST"
    rm -f /dev/shm/stratafs-bench.tar
}

# The lowest layer's tar, as a file.
need_layer_tar() {
    need_image
    once layer.tar || return 0
    fresh "docker:$DOCKER"
    cp "$MOUNT/images/$IMAGE"/layers/00-*/layer.tar "$WORK/layer.tar"
    unmount
    made layer.tar
}
WALK='tar -cf - . 2>/dev/null | cat >/dev/null'
do_diff-walk() {
    need_image
    timed "'$STRATAFS' mount --cache '$CACHE' docker:$DOCKER '$MOUNT'
        (cd '$MOUNT/images/$IMAGE'/layers/00-*/diff && $WALK)"
    DAEMON=$(daemon)
}
# walk_by PROGRAM...: mounts the tar with another program, which stays in the foreground, and reads
# all of it.
walk_by() {
    timeout -s KILL $PATIENCE "$@" -f "$WORK/layer.tar" "$RUN/other" >/dev/null 2>&1 &
    until mountpoint -q "$RUN/other"; do
        kill -0 $! 2>/dev/null || return 0
        sleep 0.01
    done
    (cd "$RUN/other" && eval "$WALK") || true
    umount -l "$RUN/other"
}
# A program that has not done it after so many seconds does not do it: archivemount 0.8 waits for
# itself in the middle of the tree.
PATIENCE=30
other_walk() {
    need_layer_tar
    mkdir -p "$RUN/other"
    timed "walk_by $*"
    [ $VALUE -lt ${PATIENCE}000000 ] || absent
}
do_ratarmount-walk() {
    need python3-venv
    [ -x "$WORK/venv/bin/ratarmount" ] ||
        { python3 -m venv "$WORK/venv" && "$WORK/venv/bin/pip" install -q ratarmount; } || { absent; return; }
    need fuse3
    # Anew each time: its index is in memory.
    other_walk "'$WORK/venv/bin/ratarmount'" --index-file :memory:
}
do_archivemount-walk() { need archivemount; other_walk archivemount -o readonly; }

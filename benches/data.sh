# What is measured with: engines, images and trees, each made once and kept in $WORK.
# shellcheck shell=bash

# --- Docker -----------------------------------------------------------------------------------

start_dockerd() {
    [ -z "$DOCKERD" ] || return 0
    export DOCKER_HOST=unix://$RUN/socket
    echo '{}' >"$RUN/settings"
    dockerd --config-file "$RUN/settings" --data-root "$DOCKER" --exec-root "$RUN/exec" \
        -H "$DOCKER_HOST" --pidfile "$RUN/pid" --iptables=false --bridge=none \
        --storage-driver overlay2 >"$RUN/log" 2>&1 </dev/null &
    DOCKERD=$!
    local left=600
    until docker version >/dev/null 2>&1; do
        left=$((left - 1))
        if [ $left = 0 ] || [ ! -e /proc/$DOCKERD ]; then
            tail "$RUN/log" >&2
            fail "dockerd did not start"
        fi
        sleep 0.1
    done
}

# once NAME: whether that has to be made yet; `made NAME` says that it was.
once() {
    [ ! -e "$WORK/made/$1" ] || return 1
    echo "making $1" >&2
    mkdir -p "$WORK/made"
}
made() { touch "$WORK/made/$1"; }

# commit FROM TO: what comes on standard input as a tar is a layer upon FROM.
commit() {
    docker create --network none --name step "$1" none
    docker cp - step:/
    docker commit step "$2"
    docker rm step
}

# The image, in three layers, as container `bench` too: Debian with what a developer installs; with
# --quick, generated files.
need_image() {
    start_dockerd
    once image || return 0
    if [ -n "$QUICK" ]; then generated_image; else debian_image; fi >/dev/null
    docker create --network none --name bench $IMAGE none >/dev/null
    made image
}

debian_image() {
    local root=$WORK/debian stamp=$WORK/stamp
    need debootstrap
    rm -rf --one-file-system "$root"
    debootstrap --variant=minbase "$(. /etc/os-release; echo "$VERSION_CODENAME")" "$root" "$(mirror)"
    tar -C "$root" --sort=name -c . | docker import - bench:1
    # Enough for 1 GB and 40,000 files in all, and nothing that has to run when it is installed.
    upgrade "$stamp" build-essential python3-dev perl-doc git
    changed_since "$stamp" | commit bench:1 bench:2
    upgrade "$stamp" clang golang-go libboost-dev python3-numpy vim
    changed_since "$stamp" | commit bench:2 $IMAGE
    rm -rf --one-file-system "$root"
}

# The archive that this machine installs from.
mirror() {
    grep -hsE '^(deb |URIs:)' /etc/apt/sources.list /etc/apt/sources.list.d/* |
        grep -oE 'https?://[^ ]+' | head -n 1
}

# upgrade STAMP PACKAGE...: installs them in the tree, without running what needs a system.
upgrade() {
    touch "$1"
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
    chmod +x "$root/usr/sbin/policy-rc.d"
    DEBIAN_FRONTEND=noninteractive chroot "$root" \
        apt-get install -qq -y --no-install-recommends "${@:2}"
    chroot "$root" apt-get clean
}

# changed_since STAMP: a tar of what is newer, as a layer has it.
changed_since() {
    (cd "$root" && find . -xdev -cnewer "$1" ! -path './var/lib/apt/lists/*' -print0 | sort -z |
        tar -c --null --no-recursion -T -)
}

# packed SEED FILES BIG: a tar of generated files below b/, which is where layers meet.
packed() {
    rm -rf "$WORK/in"
    mkdir "$WORK/in"
    benches/make-files "$WORK/in/b" "$@"
    tar -C "$WORK/in" --sort=name -c .
    rm -rf "$WORK/in"
}

generated_image() {
    packed 1 6000 2 | docker import - bench:1
    packed 2 2500 2 | commit bench:1 bench:2
    packed 3 750 1 | commit bench:2 $IMAGE
}

# layers IMAGE: the directories of its layers, topmost first, by their short names.
layers() {
    docker image inspect -f '{{.GraphDriver.Data.UpperDir}}:{{.GraphDriver.Data.LowerDir}}' "$1" |
        sed 's/:<no value>$//' | tr : '\n' | while read -r dir; do
        echo "l/$(cat "${dir%/diff}/link")"
    done | paste -sd:
}

# The names of the layers' files, for those that read them without an archive.
need_layer_files() {
    need_image
    [ ! -e "$RUN/files" ] || return 0
    layers $IMAGE | tr : '\n' | sed "s|^|$DOCKER/overlay2/|" | xargs -d '\n' realpath >"$RUN/layers"
    xargs -d '\n' -I{} find {} -type f -print0 <"$RUN/layers" >"$RUN/files"
}

# A plain file with the bytes of save.tar.
need_plain() {
    need_image
    once plain.tar || return 0
    "$STRATAFS" cp -s "docker:$DOCKER" "images/$IMAGE/save.tar" "$WORK/plain.tar" 2>/dev/null
    made plain.tar
}

# An image of one layer: many small files in directories of 200, as a source tree has.
need_tree() {
    start_dockerd
    once tree || return 0
    rm -rf "$WORK/in"
    perl -e '
        my ($dir, $files) = @ARGV;
        mkdir $dir;
        for my $n (0 .. $files - 1) {
            my $sub = "$dir/directory-" . int($n / 200);
            mkdir $sub unless $n % 200;
            open my $file, ">", "$sub/file-$n" or die;
            print $file substr("text of a small file\n" x 1500, 0, ($n * 7919) % 21_000);
        }' "$WORK/in" "$TREE_FILES"
    tar -C "$WORK/in" --sort=name -c . | docker import - tree:1 >/dev/null
    rm -rf "$WORK/in"
    made tree
}

# An image with one file of 1 GB.
need_large() {
    start_dockerd
    once large || return 0
    mkdir -p "$WORK/in"
    head -c $((LARGE_MB << 20)) /dev/urandom >"$WORK/in/large"
    tar -C "$WORK/in" -c large | docker import - large:1 >/dev/null
    rm -rf "$WORK/in"
    made large
}

# --- stores that no engine would take the time to make ------------------------------------------

bench_program() {
    cargo bench --locked --bench "$1" --no-run 2>&1 | sed -n 's/.*Executable .*(\(.*\))$/\1/p'
}

# Many images of four layers each.
need_store() {
    once store || return 0
    "$(bench_program hot)" store "$WORK/store" "$STORE_IMAGES" 4 "$STORE_FILES"
    made store
}

# need_wide FILES: an image of one layer of so many files.
need_wide() {
    once "wide-$1" || return 0
    "$(bench_program hot)" store "$WORK/wide-$1" 1 1 "$1"
    made "wide-$1"
}

# The image's layers compressed, as registries have them; the lowest is what is read.
need_layouts() {
    need_plain
    need skopeo gzip zstd
    local how
    for how in gzip zstd; do
        once "layout-$how" || continue
        rm -rf "$WORK/$how"
        skopeo copy --quiet --dest-compress --dest-compress-format $how \
            "docker-archive:$WORK/plain.tar" "oci:$WORK/$how:image"
        made "layout-$how"
    done
}

# blob HOW: the compressed lowest layer.
blob() {
    python3 - "$WORK/$1" <<'END'
import json, sys
blobs = sys.argv[1] + '/blobs/sha256/'
digest = lambda entry: entry['digest'].split(':')[1]
manifest = digest(json.load(open(sys.argv[1] + '/index.json'))['manifests'][0])
print(blobs + digest(json.load(open(blobs + manifest))['layers'][0]))
END
}

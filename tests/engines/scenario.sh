# The images and containers that the topics look at, built once per storage driver.
# shellcheck shell=bash

# scenario DRIVER: leaves DOCKER_HOST and ROOT at an engine that holds all of it.
scenario() {
    local dir=$WORK/$1
    if [ -e "$dir/ready" ]; then
        use_dockerd "$dir"
        return
    fi
    start_dockerd "$dir" "$1"
    mkdir "$dir/in"
    set +e
    (set -e; build_images "$dir/in"; build_containers "$dir/in") >"$dir/build" 2>&1
    local status=$?
    set -e
    [ $status = 0 ] || { tail -n 5 "$dir/build" >&2; exit 1; }
    touch "$dir/ready"
}

of() { printf "%${2}s" '' | tr ' ' "$1"; }

# zoo DIR: every kind of file that a layer can hold.
zoo() {
    local at=$1 part
    part=$(of p 100)
    mkdir -p "$at/sub" "$at/$part/$part/$part" "$at/$(of d 90)/e/$(of f 90)"
    echo hard >"$at/hard"; ln "$at/hard" "$at/hard.2"; ln "$at/hard" "$at/sub/hard.3"
    ln -s ../nowhere "$at/dangling"; ln "$at/dangling" "$at/dangling.2"
    ln -s "$(of t 150)" "$at/link150"
    ln -s /etc/passwd "$at/absolute"
    mkfifo -m 640 "$at/fifo"; ln "$at/fifo" "$at/fifo.2"
    mknod -m 666 "$at/char" c 1 3
    mknod -m 660 "$at/block" b 7 200
    install -m 4755 /dev/null "$at/suid"
    install -m 2755 /dev/null "$at/sgid"
    install -d -m 1777 "$at/sticky"
    echo user >"$at/user"; chown 1000:1000 "$at/user"
    echo big >"$at/bigid"; chown 3000000:3000000 "$at/bigid"
    echo name >"$at/ünï-名前"
    echo latin >"$at/"$'latin-\xe9'
    echo line >"$at/"$'new\nline'
    echo space >"$at/ two  spaces "
    echo 255 >"$at/$(of n 255)"
    echo 300 >"$at/$part/$part/$part/leaf"
    echo split >"$at/$(of d 90)/e/$(of f 90)/g"
    : >"$at/empty"
    truncate -s 300000 "$at/sparse"; echo end >>"$at/sparse"
    seq 100000 >"$at/numbers"
    # cap_net_raw, as versions 2 and 3 of the attribute have it; 3 is for the root of uid 1000.
    local cap=00200000000000000000000000000000
    echo 2 >"$at/cap2"; setfattr -n security.capability -v 0x01000002$cap "$at/cap2"
    echo 3 >"$at/cap3"; setfattr -n security.capability -v 0x01000003${cap}e8030000 "$at/cap3"
    echo x >"$at/xattr"; setfattr -n user.colour -v red "$at/xattr"
    setfattr -n user.bytes -v 0x0001ff00 "$at/xattr"
    setfattr -n user.dir -v yes "$at/sub"
    echo old >"$at/old"; touch -d '1965-02-03 04:05:06.25' "$at/old"
    echo ns >"$at/nano"; touch -d '2001-02-03 04:05:06.123456789' "$at/nano"
    echo whole >"$at/whole"; touch -d '2038-01-19 03:14:08' "$at/whole"
}

# system DIR: enough of one to run sh, and the names of two users.
system() {
    mkdir -p "$1/bin" "$1/etc" "$1/usr/bin" "$1/tmp"
    cp /bin/busybox "$1/bin/busybox"
    ln "$1/bin/busybox" "$1/bin/sh"
    ln -s busybox "$1/bin/sleep"
    printf 'root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n' >"$1/etc/passwd"
    printf 'root:x:0:\nuser:x:1000:\n' >"$1/etc/group"
    echo '127.0.0.1 of-the-image' >"$1/etc/hosts"
}

# in_container NAME: the root directory of a running container, as the host reaches it.
in_container() { echo "/proc/$(docker inspect -f '{{.State.Pid}}' "$1")/root"; }

start() { docker run -d --network none --name "$@"; }

# change DIR: deletes, replaces and adds over the zoo of the layer below.
change() {
    local at=$1 zoo=$1/zoo
    rm "$zoo/numbers" "$zoo/empty" "$zoo/char" "$zoo/sub/hard.3"
    rm -r "$at/opaque"; mkdir "$at/opaque"; echo new >"$at/opaque/new"; echo b >"$at/opaque/b"
    rm -r "$at/gone"
    rm "$at/swap/file"; mkdir "$at/swap/file"; echo in >"$at/swap/file/in"
    rm -r "$at/swap/dir"; echo file >"$at/swap/dir"
    rm -r "$at/swap/linked"; ln -s dir "$at/swap/linked"
    mkdir "$at/a" "$at/a-b" "$at/a.b"; touch "$at/a/z" "$at/a-b/z" "$at/a.b/z"
    ln "$zoo/hard" "$zoo/hard.new"
    chmod 600 "$zoo/user"
    chown 1000 "$zoo/nano"
    setfattr -n user.colour -v blue "$zoo/xattr"
    touch "$zoo/whole"
    mv "$at/moved" "$at/tmp/moved"
}

build_images() {
    local in=$1 step
    mkdir -p "$in/base/swap/dir/deep" "$in/base/opaque/a" "$in/base/gone/deep" "$in/base/moved/x"
    system "$in/base"
    zoo "$in/base/zoo"
    echo f >"$in/base/swap/file"
    mkdir "$in/base/swap/linked"; touch "$in/base/swap/linked/x" "$in/base/swap/dir/deep/x"
    touch "$in/base/opaque/a/x" "$in/base/opaque/b" "$in/base/gone/deep/x" "$in/base/moved/x/y"

    # One image with many names, from the archive as GNU tar writes it.
    tar -C "$in/base" --format=posix --xattrs --xattrs-include='*' -c . |
        docker import -c 'CMD ["sh"]' -c 'ENV A=<b>&c' - base:1
    for step in base:2 base:latest localhost:5000/team/app:v1 example.test/team/app app/web:1; do
        docker tag base:1 "$step"
    done
    # GNU headers: long names and big ids in GNU's own way.
    tar -C "$in/base" --format=gnu --sort=name --exclude=bin -c zoo etc | docker import - gnu:1

    # A layer of every kind of change.
    start changed base:1 sleep 1d
    change "$(in_container changed)"
    docker kill changed
    docker commit -m 'many <changes> & more' -a 'A. Üser' changed app:1

    # A directory that becomes a symlink, and then a file that is added through it.
    start linked app:1 sleep 1d
    docker exec linked sh -c 'busybox cp -a /bin/. /usr/bin/; busybox rm -r /bin;
        /usr/bin/busybox ln -s usr/bin /bin'
    docker kill linked
    docker commit linked app:2
    docker run --network none --name through app:2 sh -c 'echo tool >/bin/tool'
    docker commit -c $'LABEL text="<&>\xe2\x80\xa8\xe2\x80\xa9\\"\\\\ end"' -c 'EXPOSE 80/tcp' \
        -c 'ONBUILD RUN x' -c 'HEALTHCHECK --interval=5s CMD true' -c 'VOLUME /vol' through app:3

    # Nothing changed, twice: no new layer. Then one image without a name, and one with a child.
    docker create --network none --name idle app:3 true
    docker commit idle nothing:1
    docker create --network none --name idle2 nothing:1 true
    docker commit idle2 nothing:2
    docker commit changed
    docker commit linked moved:1

    # Without layers; and what no Docker builds but every Docker loads.
    printf 'FROM scratch\nLABEL a=b\nCMD ["/none"]\n' | docker build -t scratch:1 -
    python3 "$HERE/archive.py" | docker load
}

build_containers() {
    local in=$1 at
    docker create --network none --name created base:1 sh
    docker run --network none --name noop base:1 sh -c true
    docker run --network none --name fails app:1 sh -c 'exit 3' || true
    docker run --network none --name nogroup base:1 sh -c \
        'busybox rm /etc/group; echo x >/own; busybox chown 1000:1000 /own'
    docker create --network none --name empty scratch:1
    docker create --network none --name deep deep:24 /none
    docker create --network none --name odd odd:1 /none
    mkdir -p "$in/bind"; touch "$in/bindfile"
    docker volume create data
    docker run --network none --name mounts --tmpfs /mnt/tmp -v data:/mnt/data -v "$in/bind:/mnt/deep/bind" \
        -v "$in/bindfile:/mnt/file" -v /mnt/anonymous -l 'text=<&>' base:1 sh -c 'echo x >/mnt/data/x'

    # Its image loses its name to another one.
    docker create --network none --name moved moved:1 true
    docker tag base:1 moved:1

    start live app:3 sleep 1d
    at=$(in_container live)
    zoo "$at/live"
    (cd "$at/live"; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("sock")')
    setfacl -m u:1000:r "$at/live/user"
    rm -r "$at/a" "$at/a.b"; mkdir "$at/a.b"
    rm "$at/zoo/hard"; mv "$at/zoo/sub" "$at/zoo/sub2"
    start paused base:1 sleep 1d
    touch "$(in_container paused)/tmp/touched"
    docker pause paused
    sync
}

#!/usr/bin/env bash
# save.tar and formats/: the bytes of `docker save`.
. "$(dirname "$0")/lib.sh"
. "$HERE/scenario.sh"
topic

# as_saved WHAT PATH: the archives below PATH are those of `docker save WHAT`.
as_saved() {
    local engine=$MINE/engine.tar at=$M/$2
    docker save "$1" -o "$engine"
    same "$(stat -c %s "$at/formats/docker-1.10.tar")" "$(stat -c %s "$engine")"
    cmp "$engine" "$at/formats/docker-1.10.tar"
    same "$(stat -c %s "$at/save.tar")" "$(wc -c <"$at/save.tar")"
    cmp "$at/formats/docker-29.tar" "$at/save.tar"
}

# any_range FILE: 200 pieces, read in no order, are those of the file read at once.
any_range() {
    python3 - "$1" <<'END'
import os, random, sys
whole = open(sys.argv[1], "rb").read()
file, choose = os.open(sys.argv[1], os.O_RDONLY), random.Random(1)
for _ in range(200):
    at = choose.randrange(len(whole) + 600)
    size = choose.choice([1, 511, 512, 513, 4096, 70000])
    assert os.pread(file, size, at) == whole[at:at + size], f"{size} bytes at {at}"
END
}

for driver in overlay2 vfs; do
    scenario $driver
    mount_store $driver
    for image in $(images); do
        [ "$image" != scratch:1 ] || continue
        check "$image on $driver is as docker save writes it" as_saved "$image" "$(image_path "$image")"
    done
    check "base, a repository with three tags, on $driver" as_saved base images/base
    id=$(docker image inspect -f '{{.Id}}' base:1)
    check "the image of base:1 by its ID on $driver" as_saved "$id" "$(image_path "$id")"
    check "an image without layers can't be saved, on $driver" \
        fails_with 'No data available' cat "$M/images/scratch:1/save.tar"
    check "any range of save.tar on $driver" any_range "$M/images/app:3/save.tar"
    check "any range of docker-1.10.tar on $driver" any_range "$M/images/app:3/formats/docker-1.10.tar"
done

# is_tar FILE: it can be listed, is as long as stat says, and the same in another mount.
is_tar() {
    tar -tf "$1"
    same "$(stat -c %s "$1")" "$(wc -c <"$1")"
    cmp "$1" "$M${1#"$FIRST"}"
}

FIRST=$M
mount_store again

for flavour in "$FIRST/images/app:3/formats"/*.tar; do
    name=$(basename "$flavour")
    check "$name is a tar" is_tar "$flavour"
    check "any range of $name" any_range "$flavour"
done

# is_flavour NAME: with --flavour NAME, save.tar is what formats/ has under that name.
is_flavour() {
    mount_store "as-$1" --flavour "$1"
    cmp "$M/images/app:3/save.tar" "$FIRST/images/app:3/formats/$1.tar"
}

for flavour in docker-{1.9,1.10,25,28,29} oci; do
    check "--flavour $flavour makes it save.tar" is_flavour "$flavour"
done

#!/usr/bin/env bash
# layers/: every layer.tar hashes to its diff ID, and diff/ holds the files it names.
. "$(dirname "$0")/lib.sh"
. "$HERE/scenario.sh"
topic

# hashes DIR: DIR/layers is the list of layers that DIR/config.json has, in its order.
hashes() {
    local at=0 id dir
    for id in $(jq -r '.rootfs.diff_ids[]?' "$1/config.json"); do
        dir=$1/layers/$(printf '%02d-%.12s' $at "${id#sha256:}")
        same "sha256:$(sha256sum <"$dir/layer.tar" | cut -d' ' -f1)" "$id"
        same "$(stat -c %s "$dir/layer.tar")" "$(wc -c <"$dir/layer.tar")"
        same "$(jq -r '[.diff_id, .exact] | @text' "$dir/layer.json")" "[\"$id\",true]"
        at=$((at + 1))
    done
    same "$(find "$1/layers" -mindepth 1 -maxdepth 1 | wc -l)" $at
}

# names DIR...: the files of DIR/diff are the names in DIR/layer.tar, with the directories above them.
names() {
    python3 - "$@" <<'END'
import os, sys, tarfile
for layer in sys.argv[1:]:
    wanted = set()
    for member in tarfile.open(f"{layer}/layer.tar", encoding="utf-8", errors="surrogateescape"):
        path = os.path.normpath(member.name)
        while path not in ("", "."):
            wanted.add(path)
            path = os.path.dirname(path)
    found = {os.path.relpath(os.path.join(at, name), f"{layer}/diff")
             for at, directories, files in os.walk(f"{layer}/diff") for name in directories + files}
    assert found == wanted, \
        f"{layer[-15:]}: only in the tar {wanted - found}, only in diff {found - wanted}"
END
}

for driver in overlay2 vfs; do
    scenario $driver
    mount_store $driver
    for id in $(docker images -aq --no-trunc | sort -u); do
        name=$(docker image inspect "$id" | jq -r '.[0] | .RepoTags[0] // .Id')
        check "$name on $driver hashes to its diff IDs" hashes "$M/$(image_path "$id")"
    done
    # odd:1 has paths through a symlink of the layer below: each driver unpacks them in its own way.
    for image in base:1 gnu:1 app:3 deep:24; do
        check "files of the layers of $image on $driver" names "$M/images/$image/layers"/*
    done
done

#!/usr/bin/env bash
# changes: what `docker diff` says, sorted by path.
. "$(dirname "$0")/lib.sh"
. "$HERE/scenario.sh"
topic

as_diffed() {
    docker diff "$1" >"$MINE/engine"
    python3 - "$MINE/engine" "$M/containers/$1/changes" <<'END'
import re, sys
def records(path):
    # The engine answers in JSON, so a name that is not UTF-8 comes out changed.
    text = open(path, "rb").read().decode("utf-8", "replace").encode()
    assert not text or text.endswith(b"\n"), "no newline at the end"
    return [record for record in re.split(rb"\n(?=[ACD] /|\Z)", text) if record]
wanted, found = map(records, sys.argv[1:])
wanted, missing, more = set(wanted), set(wanted) - set(found), set(found) - set(wanted)
assert not missing and not more, f"missing {missing}, too many {more}"
assert found == sorted(found, key=lambda record: record[2:]), "not sorted by path"
END
}

for driver in overlay2 vfs; do
    scenario $driver
    mount_store $driver
    for container in $(containers); do
        check "$container on $driver is as docker diff lists it" as_diffed "$container"
    done
done

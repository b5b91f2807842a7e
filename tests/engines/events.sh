#!/usr/bin/env bash
# .stratafs/events: one line of JSON for each archive that was read to its end.
. "$(dirname "$0")/lib.sh"
. "$HERE/scenario.sh"
topic

scenario overlay2
mount_store overlay2

# told WHAT ID NAME FILE: the last event has all of these, the size of FILE and who read it.
told() {
    local event
    event=$(tail -n 1 "$M/.stratafs/events")
    jq -e --arg what "$1" --arg id "$2" --arg name "$3" --argjson bytes "$(stat -c %s "$4")" \
        '[.. | scalars] as $all | ($all | index($what)) and ($all | index($bytes)) and ($all | index(0))
        and any($all[]; tostring | contains($id)) and any($all[]; tostring | contains($name))' <<<"$event"
}

lines() { grep -c '' "$M/.stratafs/events"; }

file=$M/containers/changed/export.tar
cat "$file" >/dev/null || true
check "an export" within 2 told 'container export' "$(docker inspect -f '{{.Id}}' changed)" changed "$file"
file=$M/images/base:1/save.tar
cat "$file" >/dev/null || true
check "a save" within 2 told 'image save' "$(docker image inspect -f '{{.Id}}' base:1)" base:1 "$file"
before=$(lines || true)
head -c 1000 "$file" >/dev/null || true
stat "$file" >/dev/null || true
sleep 1
check "no event for a part" same "$(lines || true)" "$before"
check "times are instants" jq -e '.time | test("^[0-9]{4}-")' <<<"$(tail -n 1 "$M/.stratafs/events" || true)"

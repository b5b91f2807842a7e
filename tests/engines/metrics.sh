#!/usr/bin/env bash
# .stratafs/metrics is what Prometheus' own parser takes, and counts what engines' images are read as.
. "$(dirname "$0")/lib.sh"
. "$HERE/scenario.sh"
topic

scenario overlay2
mount_store overlay2

# value NAME [LABEL=VALUE]: a sample, as the parser finds it; the module is Debian's.
value() {
    /usr/bin/python3 - "$M/.stratafs/metrics" "$@" <<'END'
import sys
from prometheus_client.parser import text_string_to_metric_families as families
path, name, *labels = sys.argv[1:]
wanted = dict(label.split('=') for label in labels)
with open(path) as file:
    found = [sample.value for family in families(file.read()) for sample in family.samples
             if sample.name == 'stratafs_' + name and sample.labels == wanted]
print(*map(int, found))
END
}

counts() { same "$(value "$@")" "$COUNT"; }

# all_known: every family has its kind, and the parser finds as many samples as there are lines.
all_known() {
    /usr/bin/python3 - "$M/.stratafs/metrics" <<'END'
import sys
from prometheus_client.parser import text_string_to_metric_families as families
text = open(sys.argv[1]).read()
found = list(families(text))
lines = sum(not line.startswith('#') for line in text.splitlines())
assert sum(len(family.samples) for family in found) == lines > 100
assert all(family.type in ('counter', 'gauge', 'histogram') for family in found)
END
}

COUNT=0
check "nothing was read at first" counts read_bytes_total kind=save
file=$M/images/base:1/save.tar
cat "$file" >/dev/null || true
COUNT=$(stat -c %s "$file")
check "what was read is counted" within 2 counts read_bytes_total kind=save
cat "$file" >/dev/null || true
sleep 1
check "what the kernel had is not" counts read_bytes_total kind=save
check "Prometheus takes all of it" all_known
check "JSON says the same" same "$(jq .read_bytes.save "$M/.stratafs/stats.json")" "$COUNT"

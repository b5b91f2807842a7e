"""inspect_fields.py image|container ENGINE OURS: compares the fields that a store knows."""

import json
import re
import sys
from datetime import datetime

FIELDS = {
    "image": """Id RepoTags RepoDigests Parent Comment Created Container ContainerConfig DockerVersion
        Author Config Architecture Variant Os Size VirtualSize GraphDriver RootFS
        Metadata.LastTagTime""",
    "container": """Id Created Path Args Image Name Driver Config HostConfig GraphDriver State.Status
        State.Running State.Paused State.ExitCode State.StartedAt State.FinishedAt""",
}
TIMES = {"Created", "Metadata.LastTagTime", "State.StartedAt", "State.FinishedAt"}


def field(value, path):
    for key in path.split("."):
        value = value.get(key) if value is not None else None
    return value


def instant(text):
    """Seconds since 1970, to the second, and the nanoseconds."""
    if not text:
        return text
    whole, fraction, zone = re.fullmatch(r"(.{19})(?:\.(\d+))?(Z|[+-]\d\d:\d\d)", text).groups()
    at = datetime.fromisoformat(whole + zone.replace("Z", "+00:00"))
    return at - datetime.fromisoformat("1970-01-01T00:00:00+00:00"), (fraction or "").ljust(9, "0")


def main():
    engine, ours = (json.load(open(path)) for path in sys.argv[2:])
    engine, ours = engine[0], ours[0] if isinstance(ours, list) else ours
    bad = False
    for path in FIELDS[sys.argv[1]].split():
        wanted, found = field(engine, path), field(ours, path)
        if path in TIMES:
            wanted, found = instant(wanted), instant(found)
        if wanted != found:
            bad = True
            print(f"{path}: {json.dumps(found, default=str)}, not {json.dumps(wanted, default=str)}")
    sys.exit(bad)


main()

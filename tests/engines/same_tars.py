"""same_tars.py [--copies] TAR TAR PREFIX: says where what two tars hold at PREFIX differs, and fails
if it does. Compared: names, types, modes, owners, devices, sizes, link targets, contents, which names
are one file, and times in whole seconds of all but directories.
--copies: names of one file may be files of their own.
"""

import hashlib
import sys
import tarfile


def tree(path, prefix):
    found, first = {}, {}
    with tarfile.open(path, encoding="utf-8", errors="surrogateescape") as tar:
        for member in tar:
            name = member.name.removeprefix("./").rstrip("/")
            if name != prefix and not name.startswith(prefix + "/"):
                continue
            entry = {"mode": oct(member.mode & 0o7777), "owner": (member.uid, member.gid)}
            entry["type"], entry["target"] = member.type, member.linkname
            entry["device"] = (member.devmajor, member.devminor) if member.isdev() else None
            if not member.isdir():
                entry["mtime"] = int(member.mtime // 1)
            if member.islnk():
                target = member.linkname.removeprefix("./")
                first[name] = target
                entry = dict(found[target])
            elif member.isreg():
                entry["type"], entry["target"] = tarfile.REGTYPE, ""
                contents = tar.extractfile(member).read()
                entry["content"] = (len(contents), hashlib.sha256(contents).hexdigest())
            found[name] = entry
    for name, target in first.items():
        if not found[name]["type"] in (tarfile.REGTYPE, tarfile.SYMTYPE):
            continue  # GNU tar keeps no links of others
        names = [target] + [other for other in first if first[other] == target]
        for name in names:
            found[name]["one file"] = tuple(sorted(names))
    return found


def main():
    *how, wanted, found, prefix = sys.argv[1:]
    wanted, found = tree(wanted, prefix), tree(found, prefix)
    said = []
    for name in sorted(wanted.keys() | found.keys()):
        left, right = wanted.get(name, {}), found.get(name, {})
        for key in sorted(left.keys() | right.keys()):
            if key == "one file" and how:
                continue
            if left.get(key) != right.get(key):
                said.append(f"{name!r}: {key} {right.get(key)!r}, not {left.get(key)!r}")
    if said or len(wanted) < 2:
        print(*said[:3], f"{len(said)} differences in {len(wanted)} names", sep="\n")
        sys.exit(1)


main()

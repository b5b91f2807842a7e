"""same_files.py [--copy|--exported] WANTED FOUND: says where two trees differ, and fails if they do.

Compared: names, types, modes, owners, devices, sizes, times to the nanosecond, link targets,
extended attributes, contents, link counts, and which names are one file. Not compared: the time
of the two roots, and sizes and link counts of directories.
--copy: no link counts, since names that a layer above hides still count in the original.
--exported: that, no attributes and whole seconds: what an export keeps.
"""

import hashlib
import os
import stat
import sys

KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink",
         stat.S_IFIFO: "fifo", stat.S_IFCHR: "char", stat.S_IFBLK: "block", stat.S_IFSOCK: "socket"}


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe(path, info, is_root):
    kind = stat.S_IFMT(info.st_mode)
    found = {
        "type": KINDS[kind],
        "mode": oct(stat.S_IMODE(info.st_mode)),
        "owner": (info.st_uid, info.st_gid),
        "xattrs": {
            name: os.getxattr(path, name, follow_symlinks=False)
            for name in os.listxattr(path, follow_symlinks=False)
            if not name.startswith("trusted.overlay.")
        },
    }
    if not is_root:
        found["mtime"] = info.st_mtime_ns
    if kind != stat.S_IFDIR:
        found["size"] = info.st_size
        found["links"] = info.st_nlink
    if kind in (stat.S_IFCHR, stat.S_IFBLK):
        found["device"] = (os.major(info.st_rdev), os.minor(info.st_rdev))
    if kind == stat.S_IFLNK:
        found["target"] = os.readlink(path)
    if kind == stat.S_IFREG:
        found["content"] = digest(path)
    return found


def walk(root):
    """Yields (relative path, path, lstat), parents first. The kernel's overlay may list a name
    of which it then says that it does not exist: such a name is left out."""
    todo = [b""]
    while todo:
        name = todo.pop()
        path = os.path.join(root, name) if name else root
        try:
            info = os.lstat(path)
        except FileNotFoundError:
            continue
        yield name, path, info
        if stat.S_ISDIR(info.st_mode):
            todo += [os.path.join(name, child) for child in os.listdir(path)]


def tree(root):
    entries, inodes = {}, {}
    for name, path, info in walk(root):
        entries[name] = describe(path, info, not name)
        if not stat.S_ISDIR(info.st_mode):
            inodes.setdefault((info.st_dev, info.st_ino), []).append(name)
    for names in inodes.values():
        for name in names:
            entries[name]["one file"] = tuple(sorted(names))
    return entries


def differences(wanted, found):
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found:
            yield f"{name!r} is missing"
        elif name not in wanted:
            yield f"{name!r} is too many"
        else:
            for key in wanted[name].keys() | found[name].keys():
                left, right = wanted[name].get(key), found[name].get(key)
                if left != right:
                    yield f"{name!r}: {key} {right!r}, not {left!r}"


def comparable(entry, how):
    if how:
        entry.pop("links", None)
    if how == "--exported":
        entry["mtime"] = entry.get("mtime", 0) // 1_000_000_000
        del entry["xattrs"]
    return entry


def main():
    *how, wanted, found = sys.argv[1:]
    wanted, found = (
        {name: comparable(entry, "".join(how)) for name, entry in tree(os.fsencode(root)).items()}
        for root in (wanted, found)
    )
    said = list(differences(wanted, found))
    if said:
        print(*said[:3], f"{len(said)} differences in {len(wanted)} names", sep="\n")
        sys.exit(1)


main()

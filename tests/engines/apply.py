"""apply.py DIFF DIR: applies a layer's tar to the files in DIR, as the OCI image-spec says (layer.md,
"Applying Changesets").
"""

import os
import shutil
import stat
import sys
import tarfile


def remove(path):
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return
    shutil.rmtree(path) if stat.S_ISDIR(info.st_mode) else os.unlink(path)


def main():
    diff, root = sys.argv[1:]
    applied = set()
    with tarfile.open(diff, encoding="utf-8", errors="surrogateescape") as tar:
        for member in tar:
            path = os.path.join(root, member.name)
            directory, name = os.path.split(path)
            if name == ".wh..wh..opq":
                for child in os.listdir(directory):
                    if os.path.join(directory, child) not in applied:
                        remove(os.path.join(directory, child))
            elif name.startswith(".wh."):
                remove(os.path.join(directory, name.removeprefix(".wh.")))
            else:
                if not (member.isdir() and os.path.isdir(path) and not os.path.islink(path)):
                    remove(path)
                if member.islnk():  # the library copies a link to a symlink that leads nowhere
                    os.link(os.path.join(root, member.linkname), path, follow_symlinks=False)
                else:
                    tar.extract(member, root, numeric_owner=True)
                os.utime(path, (member.mtime, member.mtime), follow_symlinks=False)
                while path != root:
                    applied.add(path)
                    path = os.path.dirname(path)


main()

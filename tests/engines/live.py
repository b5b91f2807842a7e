"""live.py ROOT SEED COUNT: makes COUNT random changes in /work, with ROOT for the root: creates, deletes, renames, changes
modes, owners, times and xattrs, swaps types, links, truncates and appends. What can't be done is
passed over. Names are few, so that changes often meet.
"""

import os
import random
import shutil
import stat
import sys

NAMES = [b"a", b"a-b", b"a.b", b"\xff\n", b"n" * 120, "ü".encode()]
NAMES += [b"%d" % number for number in range(20)]


def kind(path):
    try:
        return stat.S_IFMT(os.lstat(path).st_mode)
    except OSError:
        return None


class Changer:
    def __init__(self, root, seed):
        self.root, self.random = root, random.Random(seed)

    def path(self):
        """A path of up to three names, of which all but the last are directories where possible."""
        path = self.root
        for _ in range(self.random.randint(1, 3)):
            path = os.path.join(path, self.random.choice(NAMES))
            if kind(path) != stat.S_IFDIR:
                break
        return path

    def existing(self):
        """Something that is there, however deep."""
        path = self.root
        while True:
            names = sorted(os.listdir(path))
            if not names:
                return None if path == self.root else path
            path = os.path.join(path, self.random.choice(names))
            if kind(path) != stat.S_IFDIR or self.random.random() < 0.3:
                return path

    def fill(self, path):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        with open(file, "wb") as file:
            file.write(self.random.randbytes(self.random.choice([0, 1, 511, 512, 513, 70000])))

    def make(self, path):
        what = self.random.choice(["file"] * 5 + ["dir"] * 3 + ["link", "fifo", "node", "tree"])
        if what == "file":
            self.fill(path)
        elif what == "dir":
            os.mkdir(path)
        elif what == "link":
            os.symlink(self.random.choice([b"a", b"../..", b"/etc/passwd", b"t" * 120]), path)
        elif what == "fifo":
            os.mkfifo(path, 0o640)
        elif what == "node":
            os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, self.random.choice([3, 5])))
        else:
            os.mkdir(path)
            os.makedirs(os.path.join(path, b"x", b"y"))
            self.fill(os.path.join(path, b"x", b"f"))

    def remove(self, path):
        shutil.rmtree(path) if kind(path) == stat.S_IFDIR else os.unlink(path)

    def change(self):
        pick, old, new = self.random.random(), self.existing(), self.path()
        if pick < 0.25 or old is None:
            self.make(new)
        elif pick < 0.40:
            self.remove(old)
        elif pick < 0.52:
            os.rename(old, new)
        elif pick < 0.62:
            self.remove(old)  # and something else in its place
            self.make(old)
        elif pick < 0.68:
            os.link(old, new, follow_symlinks=False)
        elif kind(old) == stat.S_IFLNK:
            os.chown(old, self.random.choice([0, 1000]), 0, follow_symlinks=False)
        elif pick < 0.76:
            os.chmod(old, self.random.choice([0o600, 0o644, 0o755, 0o4755, 0o1777]))
        elif pick < 0.82:
            os.chown(old, self.random.choice([0, 1000, 3000000]), self.random.choice([0, 1000]))
        elif pick < 0.88 and kind(old) == stat.S_IFREG:
            os.truncate(old, self.random.choice([0, 1, 600, 80000]))
        elif pick < 0.94 and kind(old) == stat.S_IFREG:
            with open(old, "ab") as file:
                file.write(b"more")
        elif pick < 0.97:
            os.setxattr(old, b"user.colour", self.random.choice([b"red", b"\0\xff"]))
        else:
            os.utime(old, ns=(0, self.random.choice([0, 1_000_000_000_000_000_001])))

    def run(self, count):
        done = 0
        while done < count:
            try:
                self.change()
                done += 1
            except OSError:
                pass


changer = Changer(b"/work", int(sys.argv[2]))
os.chroot(sys.argv[1])  # symlinks in there lead to nowhere else
os.chdir("/")
os.makedirs("/work", exist_ok=True)
changer.run(int(sys.argv[3]))

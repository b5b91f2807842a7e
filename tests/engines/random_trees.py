"""Makes trees of every kind of file that a build context may hold, each from its own seed.

    random_trees.py DIR COUNT SEED

DIR/gNN/tNNN are the trees, four in each gNN; of each, `sources` says on a line of its own what a
COPY may take.
"""

import os
import random
import sys

NAMES = ["a", "b", "c.c", "d.c", "e f", "é", "[x]", "a-b", "a.b", "lib", "zz", "UP", "x*y"]


def fill(at, depth, chance, files, root):
    for name in chance.sample(NAMES, chance.randrange(1, 6)):
        path = os.path.join(at, name)
        kind = chance.choice("fffffdddllhp")
        if kind == "d" and depth < 4:
            os.mkdir(path)
            fill(path, depth + 1, chance, files, root)
            os.chmod(path, chance.choice([0o755, 0o700, 0o1777, 0o2755]))
        elif kind == "l":
            os.symlink(target(chance, at, files, root), path)
        elif kind == "h" and files:
            os.link(chance.choice(files), path)
        elif kind == "p" and depth > 0:  # Docker waits for ever for one that COPY names
            os.mkfifo(path)
        else:
            with open(path, "wb") as file:
                file.write(chance.randbytes(chance.choice([0, 1, 511, 512, 513, 70000])))
            os.chmod(path, chance.choice([0o644, 0o600, 0o4755, 0o777]))
            os.utime(path, (0, chance.randrange(0, 2**31)))
            os.chown(path, chance.choice([0, 1000]), chance.choice([0, 3000000]))
            files.append(path)


def target(chance, at, files, root):
    up = "../" * chance.randrange(0, 4)
    to_file = os.path.relpath(chance.choice(files), at) if files else "none"
    rooted = "/" + os.path.relpath(chance.choice(files), root) if files else "/none"
    choices = [to_file, rooted, up + chance.choice(NAMES), chance.choice(NAMES), "/", up or "."]
    return chance.choice(choices)


def sources(chance, top, tree):
    """Paths and patterns of which every one names something that is there."""
    names = [name for name in os.listdir(os.path.join(top, tree)) if is_there(top, tree, name)]
    yield [tree]
    for name in names:
        if not set(" [*") & set(name):
            yield [f"{tree}/{name}"]
    plain = [f"{tree}/{name}" for name in names if not set(" [*") & set(name)]
    if len(plain) > 1:
        yield chance.sample(plain, 2)
    # A pattern fails where it finds a link that leads nowhere.
    if len(names) == len(os.listdir(os.path.join(top, tree))) and names:
        yield [f"{tree}/*"]


def is_there(top, tree, name):
    """Whether a name leads to something within the context."""
    path, seen = os.path.join(tree, name), 0
    while True:
        here = os.path.join(top, path)
        if not os.path.islink(here):
            # What a link leads through would have to be followed, too.
            return os.path.lexists(here) and os.path.realpath(here) == os.path.abspath(here)
        link, seen = os.readlink(here), seen + 1
        start = "" if link.startswith("/") else os.path.dirname(path)
        path = os.path.normpath("/" + os.path.join(start, link.lstrip("/")))[1:]
        if seen > 20 or path.startswith(".."):
            return False


top, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for index in range(count):
    chance = random.Random(seed + index)
    tree = f"g{index // 4:02}/t{seed + index:03}"
    root = os.path.join(top, tree)
    os.makedirs(root)
    fill(root, 0, chance, [], top)
    for names in list(sources(chance, top, tree))[:6]:
        print("\t".join(names))

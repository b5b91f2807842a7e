"""churn.py MOUNT PID DIR ROUNDS [UNTIL]: loads, tags and removes images, runs and removes containers,
ROUNDS times each or until UNTIL (seconds since 1970), while 16 processes read what stratafs (PID) shows
at MOUNT. DIR holds load.0.tar to load.2.tar. Fails where a reader saw what never was."""

import contextlib
import errno
import hashlib
import io
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tarfile
import threading
import time

MOUNT, PID, DIR, ROUNDS = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
UNTIL = float(sys.argv[5]) if sys.argv[5:] and sys.argv[5] else float("inf")
READERS = 16
WARM_UP = 5  # rounds, before what the daemon takes is measured

# How old what a reader sees may be, in seconds.
FRESH = 1.0

# What may be said of something that was removed; EBUSY while Docker is at it.
GONE = {errno.ENOENT, errno.ESTALE, errno.EIO, errno.EBUSY}


def docker(*words):
    done = subprocess.run(["docker", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout.strip()


class History:
    """States one after the other. Each may be seen from the moment at which the command that makes it
    begins, to the moment at which the one that ends it has ended, and a little longer."""

    def __init__(self, state):
        self.states = [[0.0, float("inf"), dict(state)]]

    @contextlib.contextmanager
    def step(self, change):
        state = dict(self.states[-1][2])
        change(state)
        begun = time.time()
        yield
        self.states[-1][1] = time.time()
        self.states.append([begun, float("inf"), state])

    def at(self, begun, ended):
        """All states that a reader from `begun` to `ended` may have seen."""
        return [state for first, last, state in self.states if first <= ended and begun <= last + FRESH]


# --- what changes -----------------------------------------------------------------------------

def change_images(history, ids, rounds):
    for at in rounds:
        name, before = f"load:{at % 3}", ids[(at - 1) % 3]
        with history.step(lambda names: names.update({name: ids[at % 3]})):
            docker("load", "-q", "-i", f"{DIR}/load.{at % 3}.tar")
        with history.step(lambda names: names.update({"moving:1": ids[at % 3]})):
            docker("tag", name, "moving:1")
        with history.step(lambda names: names.pop(name)):
            docker("rmi", name)
        if before in docker("images", "-q", "--no-trunc", "--filter", "dangling=true").split():
            docker("rmi", before)


def change_containers(history, rounds):
    for at in rounds:
        name = f"c{at}"
        with history.step(lambda names: names.update({name: name})):
            docker("run", "-d", "--network", "none", "--name", name, "base:1",
                   "sh", "-c", f"echo {name} >/mark; exec busybox sleep 1d")
        with history.step(lambda names: names.pop(name)):
            docker("rm", "-f", name)


def change(images, containers, ids, rounds):
    def until(work, *arguments):
        try:
            work(*arguments, (at for at in rounds if time.time() < UNTIL))
        except BaseException as err:
            failed.append(err)

    failed = []
    threads = [threading.Thread(target=until, args=(change_images, images, ids)),
               threading.Thread(target=until, args=(change_containers, containers))]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    if failed:
        raise failed[0]


# --- what is read -----------------------------------------------------------------------------

def read(path):
    with open(path, "rb") as file:
        return file.read()


def pick(directory):
    names = [name for name in os.listdir(f"{MOUNT}/{directory}") if name != "base"]
    return random.choice(names or ["none"])


def is_whole(archive):
    """The ID of the image in a save.tar, each part of which is what its name or config says."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        manifest = json.load(tar.extractfile("manifest.json"))[0]
        config = tar.extractfile(manifest["Config"]).read()
        layers = ["sha256:" + hashlib.sha256(tar.extractfile(layer).read()).hexdigest()
                  for layer in manifest["Layers"]]
        assert json.loads(config)["rootfs"]["diff_ids"] == layers
    return "sha256:" + hashlib.sha256(config).hexdigest()


def mark(archive):
    """What a container wrote into its file, nothing before it did."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return tar.extractfile("mark").read().decode().strip()


def look():
    """One look: what was looked at, the name, what was seen."""
    what = random.choice(["images", "images", "containers", "containers", "id", "save", "file", "export"])
    name = {"id": "images", "save": "images", "file": "containers", "export": "containers"}.get(what)
    name = name and pick(name)
    begun = time.time()
    try:
        if what in ("images", "containers"):
            seen = sorted(os.listdir(f"{MOUNT}/{what}"))
        elif what == "id":
            seen = read(f"{MOUNT}/images/{name}/id").decode().strip()
        elif what == "save":
            seen = is_whole(read(f"{MOUNT}/images/{name}/save.tar"))
        elif what == "file":
            seen = read(f"{MOUNT}/containers/{name}/rootfs/mark").decode().strip()
        else:
            seen = mark(read(f"{MOUNT}/containers/{name}/export.tar"))
    except OSError as err:
        seen = err.errno
    return begun, time.time(), what, name, seen


def reader(seed, end, path):
    random.seed(seed)
    with open(path, "w") as out:
        while not end.is_set():
            try:
                line = look()
            except Exception as err:  # bytes that make no sense
                line = (0, time.time(), "broken", None, repr(err))
            out.write(json.dumps(line) + "\n")


# --- what is made of it -------------------------------------------------------------------------

def listed(what, state):
    names = set(state)
    if what == "images":
        names |= {name.split(":")[0] for name in state}
    return sorted(names)


def judge(line, images, containers):
    """What is wrong about a look, if anything."""
    begun, ended, what, name, seen = line
    if what == "broken":
        return seen
    history = images if what in ("images", "id", "save") else containers
    states = history.at(begun, ended)
    if what in ("images", "containers"):
        if seen in [listed(what, state) for state in states]:
            return None
        was = any(seen == listed(what, state) for _, _, state in history.states)
        return "too old" if was else "never was"
    if what in ("id", "save") and ":" not in name:
        name = {"moving": "moving:1"}.get(name, name)
        named = [[it for full, it in state.items() if full == name or full.startswith(name + ":")]
                 for state in states]
    else:
        named = [[state[name]] if name in state else [] for state in states]
    if isinstance(seen, int):
        is_steady = all(len(ids) == 1 and ids == named[0] for ids in named)
        return f"errno {seen}" if is_steady or seen not in GONE else None
    is_steady = all(len(ids) == 1 for ids in named)
    if what == "export" and not is_steady and not seen.strip("\0"):
        return None  # zeros stand for a file that went while it was read
    # The image has another mark; a container's own takes a moment.
    allowed = [it for ids in named for it in ids] + (["load:0", ""] if what in ("file", "export") else [])
    return None if seen in allowed else "another's"


def taken():
    """Memory and open files of the daemon, in KiB and files."""
    time.sleep(3)
    status = read(f"/proc/{PID}/status").decode()
    memory = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(memory.split()[1]), len(os.listdir(f"/proc/{PID}/fd"))


def run(rounds, ids):
    """Changes under readers; the looks, and what each of the two lists was when."""
    now = {"base:1": docker("image", "inspect", "-f", "{{.Id}}", "base:1")}
    images, containers = History(now), History({})
    end = multiprocessing.Event()
    paths = [f"{DIR}/looks.{seed}" for seed in range(READERS)]
    readers = [multiprocessing.Process(target=reader, args=(seed, end, path))
               for seed, path in enumerate(paths)]
    [process.start() for process in readers]
    try:
        change(images, containers, ids, rounds)
        if "moving:1" in images.states[-1][2]:
            with images.step(lambda names: names.pop("moving:1")):
                docker("rmi", "moving:1")
        time.sleep(FRESH)
    finally:
        end.set()
        [process.join() for process in readers]
    looks = [json.loads(line) for path in paths for line in open(path)]
    return looks, images, containers


def main():
    ids = []
    for at in range(3):
        docker("load", "-q", "-i", f"{DIR}/load.{at}.tar")
        ids.append(docker("image", "inspect", "-f", "{{.Id}}", f"load:{at}"))
    for at in range(3):
        docker("rmi", f"load:{at}")
    run(range(WARM_UP), ids)
    before = taken()
    looks, images, containers = run(range(WARM_UP, WARM_UP + ROUNDS), ids)
    after = taken()
    wrong = [(why, line) for line in looks if (why := judge(line, images, containers))]
    errors = sorted({errno.errorcode[line[4]] for line in looks if isinstance(line[4], int)})
    print(f"{len(images.states)} states of images, {len(containers.states)} of containers,"
          f" {len(looks)} looks, {len(wrong)} wrong; errors {' '.join(errors) or 'none'};"
          f" KiB and open files before {before}, after {after}")
    for why, line in wrong[:5]:
        print(why, json.dumps(line)[:300])
    assert not wrong
    assert len(looks) > 50 * READERS, "too few looks to say anything"
    assert after[1] <= before[1] + READERS, f"open files {before[1]}, then {after[1]}"
    assert after[0] <= before[0] * 1.5 + (16 << 10), f"memory {before[0]}, then {after[0]} KiB"


main()

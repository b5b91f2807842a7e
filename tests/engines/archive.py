"""archive.py [SET]: writes an archive for `docker load` to standard output: images that no Dockerfile
makes.

scenario, unless told otherwise:
deep:24   24 layers; each adds a file, replaces one and deletes what the one before it added
odd:1     no `created`, no `os`, an empty config; paths through a symlink of the layer below
twice:1   created before 1970; three layers, of which it shares one with odd:1

chains:
most:125  as many layers as Docker takes, which are 127 with those of a container: some empty, some the
          same as one below; labels that have to be escaped, created long before 1970
most:124  the same without the topmost
other:1   some of its layers, in another order

over:
over:126  one layer more than Docker takes
"""

import hashlib
import io
import json
import sys
import tarfile


def layer(*entries):
    """A layer of (name, content) pairs; None for a directory, `-> x` for a symlink."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for at, (name, content) in enumerate(entries):
            info = tarfile.TarInfo(name)
            info.mtime = 1_000_000_000.5 + at
            if content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            elif content.startswith("-> "):
                info.type, info.linkname = tarfile.SYMTYPE, content[3:]
            else:
                info.size = len(content)
            tar.addfile(info, io.BytesIO((content or "").encode()))
    return out.getvalue()


def deep(step):
    """Layer `step` of deep:24."""
    entries = [("d", None), ("d/same", f"{step}\n"), (f"d/file{step:02}", f"{step}\n" * step)]
    if step:
        entries.append((f"d/.wh.file{step - 1:02}", ""))
    if step % 6 == 5:
        entries = [("e", None), ("e/.wh..wh..opq", ""), (f"e/only{step:02}", "x\n")] + entries
    else:
        entries += [("e", None), (f"e/more{step:02}", "y\n")]
    return layer(*entries)


below = layer(("usr", None), ("usr/bin", None), ("usr/bin/a", "a\n"), ("bin", "-> usr/bin"))
above = layer(("bin/b", "b\n"), ("usr/bin/c", "c\n"))
IMAGES = {
    "deep:24": ([deep(step) for step in range(24)], {"created": "2020-02-02T02:02:02.02+02:00",
        "architecture": "amd64", "os": "linux", "config": {"Labels": {"z": "<&>", "a": "\u2028"}},
        "history": [{"created_by": f"step {step}"} for step in range(24)]}),
    "odd:1": ([below, above], {"architecture": "amd64", "config": {}, "unknown": [1.50, "<x>"]}),
    "twice:1": ([layer(("x", "x\n")), below, layer(("y", "y\n"))], {"created": "1955-11-05T06:15:00Z",
        "architecture": "arm64", "variant": "v8", "os": "linux", "config": {"Cmd": ["/x"], "Env": []},
        "author": "<nobody>", "history": [{"empty_layer": True, "created_by": "\ttabs\tand\nlines"}]}),
}


def chain(step):
    """Layer `step` of most:125: every fifth is empty, every seventh the one three below."""
    if step % 5 == 3:
        return layer()
    if step % 7 == 6:
        return chain(step - 3)
    below = [(f"f/.wh.{step - 2}", "")] if step % 3 == 2 else []
    return layer(("f", None), (f"f/{step}", f"{step}\n" * step), *below)


LABELS = {f"<{at}&>": "&lt;\u2028\u2029\u0000\u001f\x7f\"\\\U0001f600'</script>" * at for at in range(60)}
LONG_AGO = {"created": "1901-12-13T20:45:51.999999999-07:00", "architecture": "amd64", "os": "linux",
            "config": {"Labels": LABELS, "Cmd": ["<&>\u2028"], "Env": ["A=<&>\u2029"]}}
SETS = {"scenario": IMAGES, "chains": {
    "most:125": ([chain(step) for step in range(125)], dict(LONG_AGO)),
    "most:124": ([chain(step) for step in range(124)], dict(LONG_AGO, created="1969-12-31T23:59:59.5Z")),
    "other:1": ([chain(step) for step in (6, 3, 4, 3, 0)], dict(LONG_AGO, created="2001-01-01T00:00:00Z")),
}, "over": {"over:126": ([chain(step) for step in range(126)], dict(LONG_AGO))}}


def main(chosen):
    out = tarfile.open(fileobj=sys.stdout.buffer, mode="w|")

    def add(name, content):
        info = tarfile.TarInfo(name)
        info.size = len(content)
        out.addfile(info, io.BytesIO(content))
        return name

    manifest = []
    for name, (layers, config) in SETS[chosen].items():
        config["rootfs"] = {
            "type": "layers",
            "diff_ids": ["sha256:" + hashlib.sha256(one).hexdigest() for one in layers],
        }
        text = json.dumps(config, ensure_ascii=False, indent=1).encode()
        where = name.replace(":", "-")
        manifest.append({
            "Config": add(hashlib.sha256(text).hexdigest() + ".json", text),
            "RepoTags": [name],
            "Layers": [add(f"{where}/{at}.tar", one) for at, one in enumerate(layers)],
        })
    add("manifest.json", json.dumps(manifest).encode())
    out.close()


main(*sys.argv[1:] or ["scenario"])

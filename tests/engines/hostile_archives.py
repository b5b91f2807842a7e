"""hostile_archives.py DIR: archives of images that would take much memory or time, had nobody
thought of it. Each holds good:1 as well, or says so by its name."""

import hashlib
import io
import json
import sys
import tarfile

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def sha(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def described(kind, data):
    return {"mediaType": kind, "digest": sha(data), "size": len(data)}


def layer(name=b"file"):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo(name.decode())
        info.size = 4
        tar.addfile(info, io.BytesIO(b"good"))
    return out.getvalue()


GOOD = layer()


def config(more=None):
    return json.dumps({"os": "linux", "architecture": "amd64", **(more or {}),
                       "rootfs": {"type": "layers", "diff_ids": [sha(GOOD)]}}).encode()


class Layout:
    def __init__(self):
        self.files, self.entries = {}, []
        self.image("good", config())

    def put(self, kind, data):
        self.files["blobs/sha256/" + sha(data)[7:]] = data
        return described(kind, data)

    def image(self, tag, conf, layers=None):
        layers = [self.put(LAYER, GOOD)] if layers is None else layers
        manifest = {"schemaVersion": 2, "config": self.put(CONFIG, conf), "layers": layers}
        entry = self.put(MANIFEST, json.dumps(manifest).encode())
        if tag:
            name = f"docker.io/library/{tag}:1"
            entry["annotations"] = {"org.opencontainers.image.ref.name": name}
            self.entries.append(entry)
        return entry

    def write(self, path):
        index = {"schemaVersion": 2, "manifests": self.entries}
        self.files["index.json"] = json.dumps(index).encode()
        self.files["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
        write(path, self.files)


def write(path, files):
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def main(at):
    many = Layout()
    many.files.update({f"member/{n}": b"" for n in range(100_000)})
    many.write(f"{at}/many-members.tar")

    many = Layout()
    one = dict(many.image(None, config({"x": 1})))
    many.entries += [one] * 20_000
    many.write(f"{at}/many-entries.tar")

    many = Layout()
    foreign = dict(described(LAYER, b"x"), urls=["https://example.com/x"])
    for n in range(500):
        many.image(f"x{n}", config({"x": n}), [foreign] * 400)
    many.write(f"{at}/many-layers.tar")

    wide = Layout()
    wide.image("wide", config({"x": [0] * 1_900_000}))
    wide.write(f"{at}/wide-config.tar")

    deep = Layout()
    deep.image("deep", b'{"x":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}")
    deep.write(f"{at}/deep-config.tar")

    unfold = Layout()
    entry = unfold.image(None, config({"x": 2}))
    for n in range(7):
        index = {"schemaVersion": 2, "manifests": [entry] * 5000}
        entry = unfold.put(INDEX, json.dumps(index).encode())
    unfold.entries.append(dict(entry, annotations={"org.opencontainers.image.ref.name": "x/unfold:1"}))
    unfold.write(f"{at}/unfolding.tar")

    items = [{"Config": "good.json", "RepoTags": ["good:1"], "Layers": ["good.tar"]}]
    items += [{"Config": f"{n}.json", "Layers": ["x" * 900]} for n in range(16_000)]
    write(f"{at}/many-images.tar", {"good.json": config(), "good.tar": GOOD,
                                    "manifest.json": json.dumps(items).encode()})


main(sys.argv[1])

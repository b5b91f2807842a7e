"""bombs.py DIR GIB: images of one layer that is tiny and inflates to GIB GiB of zeros, in every way that
a blob may be packed. Each DIR/KIND holds good:1 as well; DIR/diff_id is what all of them inflate to."""

import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile

PIECE = 64 << 20
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def sha(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def header(name, size):
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


GIB = int(sys.argv[2])
ZEROS = bytes(PIECE)
# Zeros are the end of a tar, too.
HEAD, PIECES = header("zeros", (GIB << 30) - PIECE), (GIB << 30) // PIECE
GOOD = header("file", 4) + b"good" + bytes(508 + 1024)


def parts():
    yield HEAD
    for _ in range(PIECES):
        yield ZEROS


def diff_id():
    digest = hashlib.sha256()
    for part in parts():
        digest.update(part)
    return "sha256:" + digest.hexdigest()


def piped(*command):
    """What a program makes of the bomb."""
    packer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    if os.fork() == 0:
        packer.stdout.close()
        for part in parts():
            packer.stdin.write(part)
        packer.stdin.close()
        os._exit(0)
    packer.stdin.close()
    packed = packer.stdout.read()
    assert packer.wait() == 0 and os.wait()
    return packed


def members():
    piece = gzip.compress(ZEROS, mtime=0)
    return gzip.compress(HEAD, mtime=0) + piece * PIECES


def layout(layers):
    """The files of an OCI image layout; LAYERS: by name, a layer's blob and its diff ID."""
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
    listed = []

    def put(kind, data):
        files["blobs/sha256/" + hashlib.sha256(data).hexdigest()] = data
        return {"mediaType": kind, "digest": sha(data), "size": len(data)}

    for name, (blob, diff) in layers.items():
        config = json.dumps({"os": "linux", "architecture": "amd64",
                             "rootfs": {"type": "layers", "diff_ids": [diff]}}).encode()
        manifest = json.dumps({
            "schemaVersion": 2,
            "config": put("application/vnd.oci.image.config.v1+json", config),
            "layers": [put("application/vnd.oci.image.layer.v1.tar", blob)]}).encode()
        name = {"org.opencontainers.image.ref.name": "docker.io/library/" + name}
        listed.append({**put(MANIFEST, manifest), "annotations": name})
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": listed}).encode()
    return files


def archive(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def main():
    bomb, out = diff_id(), sys.argv[1]
    zstd, many = piped("zstd", "-q", "-19"), members()
    empty = gzip.compress(b"", mtime=0) * 300_000 + many
    of = lambda blob: layout({"good:1": (GOOD, sha(GOOD)), "bomb:1": (blob, bomb)})
    kinds = {
        "zstd": archive(of(zstd)),
        "gzip": archive(of(many)),
        "empty-members": archive(of(empty)),
        "gzip-in-gzip": gzip.compress(archive(of(many)), mtime=0),
        "zstd-in-gzip": gzip.compress(archive(of(zstd)), mtime=0),
        "zstd-in-zstd": subprocess.run(["zstd", "-q"], input=archive(of(zstd)),
                                       stdout=subprocess.PIPE, check=True).stdout,
    }
    for name, data in kinds.items():
        with open(os.path.join(out, name), "wb") as file:
            file.write(data)
    with open(os.path.join(out, "diff_id"), "w") as file:
        file.write(bomb)
    with open(os.path.join(out, "ratio"), "w") as file:
        file.write(str((GIB << 30) // len(zstd)))


main()

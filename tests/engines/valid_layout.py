"""Holds OCI image layouts, directories or tars, to the JSON schemas of the image-spec, as Debian's
package of it has them: valid_layout.py LAYOUT... What index.json leads to must be there, with the
digest and the size that its descriptor says, and nothing else may be.

A config's bytes are the image's own: Docker writes null where the schema wants nothing, so nulls
count as absent there, and nowhere else.

--delta: the layers that nobody passes along may be missing.
"""

import hashlib
import json
import os
import re
import sys
import tarfile
import warnings

warnings.simplefilter("ignore", DeprecationWarning)
import jsonschema

HOME = "/usr/share/gocode/src/github.com/opencontainers/image-spec/schema"
OCI = "application/vnd.oci.image."
DOCKER = "application/vnd.docker.distribution.manifest."
INDEXES = {OCI + "index.v1+json", DOCKER + "list.v2+json"}
MANIFESTS = {OCI + "manifest.v1+json", DOCKER + "v2+json"}
RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


SCHEMAS = "https://opencontainers.org/schema/"


def without_ids(schema):
    """What each part calls itself misleads whoever looks for the files that it refers to."""
    return {key: value for key, value in schema.items() if key != "id"}


def schemas():
    """Each by the address under which the others refer to it."""
    names = [name for name in os.listdir(HOME) if name.endswith(".json")]
    return {SCHEMAS + name: json.load(open(f"{HOME}/{name}", encoding="utf-8"), object_hook=without_ids)
            for name in names}


STORE = schemas()
FORMATS = jsonschema.FormatChecker(formats=())
FORMATS.checks("date-time")(lambda text: RFC_3339.fullmatch(text) is not None)


def hold(what, value, schema):
    """`schema` is a file's name."""
    schema = STORE[SCHEMAS + schema]
    resolver = jsonschema.RefResolver(SCHEMAS, schema, store=STORE)
    checker = jsonschema.Draft4Validator(schema, resolver=resolver, format_checker=FORMATS)
    wrong = [f"{what}: {'/'.join(map(str, error.path))}: {error.message}"
             for error in checker.iter_errors(value)]
    assert not wrong, "; ".join(wrong)


def without_nulls(value):
    if isinstance(value, dict):
        return {key: without_nulls(one) for key, one in value.items() if one is not None}
    return [without_nulls(one) for one in value] if isinstance(value, list) else value


def files_of(path):
    """Every file below a directory or in a tar, by name."""
    if os.path.isdir(path):
        names = (os.path.join(at, name) for at, _, names in os.walk(path) for name in names)
        return {os.path.relpath(name, path): open(name, "rb").read() for name in names}
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar if member.isreg()}


class Layout:
    def __init__(self, path, is_delta):
        self.files, self.is_delta = files_of(path), is_delta
        self.seen = {"oci-layout", "index.json"}
        # What containerd adds for engines that know no layouts.
        self.seen |= {"manifest.json"} & self.files.keys()

    def hold(self):
        hold("oci-layout", json.loads(self.files["oci-layout"]), "image-layout-schema.json")
        index = json.loads(self.files["index.json"])
        assert index["manifests"], "index.json leads nowhere"
        self.index("index.json", index)
        assert self.seen == set(self.files), f"not led to: {set(self.files) - self.seen}"

    def blob(self, descriptor):
        """The bytes that a descriptor stands for; None where they may be missing and are."""
        hold(descriptor.get("digest"), descriptor, "content-descriptor.json")
        name = "blobs/" + descriptor["digest"].replace(":", "/")
        if name not in self.files:
            return None
        self.seen.add(name)
        found = self.files[name]
        assert "sha256:" + hashlib.sha256(found).hexdigest() == descriptor["digest"], name
        assert len(found) == descriptor["size"], f"{name}: {len(found)} bytes"
        return found

    def index(self, name, index):
        hold(name, index, "image-index-schema.json")
        found = 0
        for entry in index["manifests"]:
            text = self.blob(entry)
            if text is None:  # another platform that was never pulled
                continue
            found += 1
            kind = entry["mediaType"]
            assert kind in INDEXES | MANIFESTS, f"{name} leads to {kind}"
            (self.index if kind in INDEXES else self.manifest)(entry["digest"], json.loads(text))
        assert found, f"{name} leads nowhere"

    def manifest(self, name, manifest):
        hold(name, manifest, "image-manifest-schema.json")
        config = self.blob(manifest["config"])
        layers = [self.blob(layer) for layer in manifest["layers"]]
        # Like containerd's, an index may hold the manifest of a platform alone.
        if config is None:
            assert not any(layers), f"{name} has layers and no config"
            return
        assert self.is_delta or None not in layers, f"{name} lacks a layer"
        if manifest["config"]["mediaType"].endswith(("image.config.v1+json", "container.image.v1+json")):
            config = without_nulls(json.loads(config))
            hold("the config " + manifest["config"]["digest"], config, "config-schema.json")
            diff_ids = config["rootfs"]["diff_ids"]
            assert len(diff_ids) == len(layers) or "in-toto" in str(manifest["layers"]), name


def main():
    arguments = sys.argv[1:]
    is_delta = "--delta" in arguments
    paths = [path for path in arguments if path != "--delta"]
    assert paths, "no layout"
    for path in paths:
        try:
            Layout(path, is_delta).hold()
        except AssertionError as wrong:
            sys.exit(f"{path}: {wrong}")


main()

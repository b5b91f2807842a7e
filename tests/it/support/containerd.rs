//! Data roots of containerd, made by hand.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use stratafs::digest::{ChainId, DiffId, Digest};

use super::bolt::{self, Item, Tree, bucket, put};

pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A data root, and what its databases are to hold.
pub(crate) struct Made {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) meta: Tree,
    pub(crate) overlayfs: Tree,
    snapshots: u64,
}

/// Something that a manifest or a record points at.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) media_type: &'static str,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

impl Stored {
    pub(crate) fn json(&self) -> Value {
        json!({ "mediaType": self.media_type, "digest": self.digest.to_string(), "size": self.size })
    }
}

/// A layer: its blob, and what its files are.
pub(crate) struct LayerMade {
    pub(crate) blob: Stored,
    pub(crate) chain_id: ChainId,
}

impl Made {
    pub(crate) fn new() -> Made {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut meta = Tree::new();
        put(&mut meta, &["v1"], "version", [8]);
        let (overlayfs, snapshots) = (Tree::new(), 0);
        let made = Made { dir, meta, overlayfs, snapshots };
        fs::create_dir_all(made.blobs()).unwrap();
        made
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.path().join("io.containerd.content.v1.content/blobs/sha256")
    }

    pub(crate) fn meta_db(&self) -> PathBuf {
        self.path().join("io.containerd.metadata.v1.bolt/meta.db")
    }

    pub(crate) fn snapshots_db(&self) -> PathBuf {
        self.path().join("io.containerd.snapshotter.v1.overlayfs/metadata.db")
    }

    /// Writes the databases.
    pub(crate) fn write(&self) {
        for (path, tree) in [(self.meta_db(), &self.meta), (self.snapshots_db(), &self.overlayfs)] {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bolt::file(tree, 4096)).unwrap();
        }
    }

    /// A blob that the namespace has.
    pub(crate) fn blob(
        &mut self,
        namespace: &str,
        media_type: &'static str,
        bytes: &[u8],
    ) -> Stored {
        let digest = Digest::of(bytes);
        fs::write(self.blobs().join(digest.hex()), bytes).unwrap();
        let stored = Stored { media_type, digest, size: bytes.len() as u64 };
        self.record(namespace, &stored);
        stored
    }

    /// The record of a blob.
    pub(crate) fn record(&mut self, namespace: &str, blob: &Stored) {
        let path = ["v1", namespace, "content", "blob", &blob.digest.to_string()];
        put(&mut self.meta, &path, "size", varint(blob.size as i64));
        put(&mut self.meta, &path, "createdat", time());
    }

    /// A layer with one file, as a blob; and its snapshot, where it is to be unpacked.
    pub(crate) fn layer(
        &mut self,
        namespace: &str,
        below: Option<&LayerMade>,
        file: &str,
        is_unpacked: bool,
    ) -> LayerMade {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(file.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, file, file.as_bytes()).unwrap();
        let tar = tar.into_inner().unwrap();
        let blob = self.blob(namespace, LAYER, &tar);
        let chain_id = ChainId::of(below.map(|below| below.chain_id), DiffId(blob.digest));
        if is_unpacked {
            let parent = below.map(|below| below.chain_id.to_string());
            let files = self.snapshot(namespace, &chain_id.to_string(), parent.as_deref(), 3);
            fs::write(files.join(file), file).unwrap();
        }
        LayerMade { blob, chain_id }
    }

    /// A snapshot, and where its files are to be.
    pub(crate) fn snapshot(
        &mut self,
        namespace: &str,
        key: &str,
        parent: Option<&str>,
        kind: u8,
    ) -> PathBuf {
        self.snapshots += 1;
        let number = self.snapshots;
        let name = format!("{namespace}/{number}/{key}");
        let path = ["v1", namespace, "snapshots", "overlayfs", key];
        put(&mut self.meta, &path, "name", &name);
        put(&mut self.meta, &path, "createdat", time());
        if let Some(parent) = parent {
            put(&mut self.meta, &path, "parent", parent);
        }
        let path = ["v1", "snapshots", &name];
        put(&mut self.overlayfs, &path, "id", [number as u8]);
        put(&mut self.overlayfs, &path, "kind", [kind]);
        put(&mut self.overlayfs, &path, "size", varint(4096));
        let home = self.path().join("io.containerd.snapshotter.v1.overlayfs/snapshots");
        let files = home.join(number.to_string()).join("fs");
        fs::create_dir_all(&files).unwrap();
        files
    }

    /// The manifest of an image of these layers.
    pub(crate) fn manifest(
        &mut self,
        namespace: &str,
        architecture: &str,
        layers: &[&LayerMade],
    ) -> Stored {
        let diff_ids: Vec<String> =
            layers.iter().map(|layer| layer.blob.digest.to_string()).collect();
        let config = json!({
            "architecture": architecture, "os": "linux", "created": "2026-11-21T21:10:43.5Z",
            "config": { "Cmd": ["sh"] }, "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "history": layers.iter().map(|_| json!({ "created_by": "step" })).collect::<Vec<_>>(),
        });
        let config = self.blob(namespace, CONFIG, config.to_string().as_bytes());
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config.json(),
            "layers": layers.iter().map(|layer| layer.blob.json()).collect::<Vec<_>>(),
        });
        self.blob(namespace, MANIFEST, manifest.to_string().as_bytes())
    }

    /// An index of these descriptors.
    pub(crate) fn index(&mut self, namespace: &str, manifests: &[Value]) -> Stored {
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
        self.blob(namespace, INDEX, index.to_string().as_bytes())
    }

    /// The record of an image.
    pub(crate) fn image(&mut self, namespace: &str, name: &str, target: &Stored) {
        let path = ["v1", namespace, "images", name];
        put(&mut self.meta, &path, "updatedat", time());
        let path = ["v1", namespace, "images", name, "target"];
        put(&mut self.meta, &path, "digest", target.digest.to_string());
        put(&mut self.meta, &path, "mediatype", target.media_type);
        put(&mut self.meta, &path, "size", varint(target.size as i64));
    }

    /// The record of a container, whose writable snapshot lies upon `parent`; and where its files
    /// are.
    pub(crate) fn container(
        &mut self,
        namespace: &str,
        id: &str,
        image: &str,
        parent: &LayerMade,
        labels: &[(&str, &str)],
    ) -> PathBuf {
        let path = ["v1", namespace, "containers", id];
        put(&mut self.meta, &path, "image", image);
        put(&mut self.meta, &path, "snapshotter", "overlayfs");
        put(&mut self.meta, &path, "snapshotKey", id);
        put(&mut self.meta, &path, "createdat", time());
        put(&mut self.meta, &path, "spec", b"\x0a\x01x\x12\x11{\"process\":{\"a\":1");
        let inner = bucket(&mut self.meta, &["v1", namespace, "containers", id, "labels"]);
        let labels: BTreeMap<_, _> = labels.iter().copied().collect();
        inner.extend(
            labels.into_iter().map(|(key, value)| {
                (key.as_bytes().to_vec(), Item::Value(value.as_bytes().to_vec()))
            }),
        );
        self.snapshot(namespace, id, Some(&parent.chain_id.to_string()), 2)
    }
}

/// A number as Go's `binary.PutVarint` writes it.
pub(crate) fn varint(number: i64) -> Vec<u8> {
    let mut folded = ((number << 1) ^ (number >> 63)) as u64;
    let mut bytes = Vec::new();
    while folded >= 0x80 {
        bytes.push(folded as u8 | 0x80);
        folded >>= 7;
    }
    bytes.push(folded as u8);
    bytes
}

/// 2026-11-21T21:21:59.556003819Z, as Go's `Time.MarshalBinary` writes it.
fn time() -> &'static [u8] {
    b"\x01\x00\x00\x00\x0e\xe2\x94\x02w!#\xf1\xeb\xff\xff"
}

//! Image archives and layouts made by hand, as odd or as broken as a test wants them.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tar::{EntryType, Header};

use super::handmade::{digest, gzip, hex_of};

pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// A tar while it is written. Its names are as they are given, in their order.
#[derive(Default)]
pub(crate) struct Tar(pub(crate) Vec<u8>);

impl Tar {
    /// An archive of these files.
    pub(crate) fn of(files: &[(String, Vec<u8>)]) -> Tar {
        let mut tar = Tar::default();
        files.iter().for_each(|(name, bytes)| tar.file(name, bytes));
        tar
    }

    pub(crate) fn file(&mut self, name: &str, bytes: &[u8]) {
        self.entry(EntryType::Regular, name, "", bytes);
    }

    pub(crate) fn link(&mut self, kind: EntryType, name: &str, target: &str) {
        self.entry(kind, name, target, b"");
    }

    /// An entry of any kind; a name that is too long is GNU's.
    pub(crate) fn entry(&mut self, kind: EntryType, name: &str, target: &str, body: &[u8]) {
        if name.len() > 100 {
            self.entry(
                EntryType::GNULongName,
                "././@LongLink",
                "",
                &[name.as_bytes(), b"\0"].concat(),
            );
        }
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(body.len() as u64);
        header.set_mtime(1);
        header.set_uid(0);
        header.set_gid(0);
        let count = name.len().min(100);
        header.as_old_mut().name[..count].copy_from_slice(&name.as_bytes()[..count]);
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        self.raw(header.as_bytes(), body);
    }

    /// An entry with these extended records before it.
    pub(crate) fn extended(&mut self, records: &[(&str, &str)], name: &str, body: &[u8]) {
        let mut text = String::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + rest.to_string().len();
            if rest + length.to_string().len() != length {
                length = rest + length.to_string().len();
            }
            text.push_str(&format!("{length} {key}={value}\n"));
        }
        self.entry(EntryType::XHeader, "PaxHeaders.0/x", "", text.as_bytes());
        self.entry(EntryType::Regular, name, "", body);
    }

    pub(crate) fn raw(&mut self, header: &[u8; 512], body: &[u8]) {
        self.0.extend_from_slice(header);
        self.0.extend_from_slice(body);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    /// The archive, with its end.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// The tar of a layer with these files.
pub(crate) fn layer(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = Tar::default();
    files.iter().for_each(|(name, bytes)| tar.file(name, bytes));
    tar.finish()
}

/// A config of an image with layers of these tars.
pub(crate) fn config(architecture: &str, layers: &[&[u8]]) -> Vec<u8> {
    let diff_ids: Vec<String> = layers.iter().map(|tar| digest(tar)).collect();
    let config = json!({
        "architecture": architecture, "os": "linux", "created": super::handmade::CREATED,
        "config": { "Cmd": ["/bin/sh"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": diff_ids.iter().map(|_| json!({ "created_by": "made by hand" })).collect::<Vec<_>>(),
    });
    config.to_string().into_bytes()
}

/// The name of a blob.
pub(crate) fn blob(bytes: &[u8]) -> String {
    format!("blobs/sha256/{}", hex_of(&digest(bytes)))
}

pub(crate) fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest(bytes), "size": bytes.len() })
}

/// A descriptor with a name.
pub(crate) fn named(mut descriptor: Value, name: &str) -> Value {
    descriptor["annotations"]["org.opencontainers.image.ref.name"] = name.into();
    descriptor
}

/// A descriptor for a platform.
pub(crate) fn on(mut descriptor: Value, architecture: &str) -> Value {
    descriptor["platform"] = json!({ "os": "linux", "architecture": architecture });
    descriptor
}

pub(crate) fn index(entries: &[Value]) -> Vec<u8> {
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries });
    index.to_string().into_bytes()
}

/// An OCI image layout while it is made.
#[derive(Default)]
pub(crate) struct Layout {
    pub(crate) files: Vec<(String, Vec<u8>)>,
}

impl Layout {
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.files.push((blob(bytes), bytes.to_vec()));
    }

    /// An image whose layers are stored as these blobs; its manifest's descriptor.
    pub(crate) fn image(&mut self, config: &[u8], blobs: &[&[u8]]) -> Value {
        let layers: Vec<Value> = blobs.iter().map(|blob| descriptor(OCI_LAYER, blob)).collect();
        blobs.iter().for_each(|blob| self.put(blob));
        self.image_of(config, &layers)
    }

    /// An image with these descriptors of layers; its manifest's descriptor.
    pub(crate) fn image_of(&mut self, config: &[u8], layers: &[Value]) -> Value {
        let manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": descriptor(OCI_CONFIG, config), "layers": layers,
        });
        let manifest = manifest.to_string().into_bytes();
        self.put(config);
        self.put(&manifest);
        descriptor(OCI_MANIFEST, &manifest)
    }

    /// An index; its descriptor.
    pub(crate) fn index(&mut self, entries: &[Value]) -> Value {
        let index = index(entries);
        self.put(&index);
        descriptor(OCI_INDEX, &index)
    }

    /// All files, with these in the list at the top.
    pub(crate) fn finish(mut self, entries: &[Value]) -> Vec<(String, Vec<u8>)> {
        self.files.push(("index.json".to_owned(), index(entries)));
        self.files.push(("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
        self.files
    }
}

/// Writes files below a directory.
pub(crate) fn write_files(dir: &Path, files: &[(String, Vec<u8>)]) {
    for (name, bytes) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// The files of an archive as Docker 1.10 to 24 write it: one image with these layers and tags.
pub(crate) fn saved(config: &[u8], layers: &[&[u8]], tags: &Value) -> Vec<(String, Vec<u8>)> {
    let hex = digest(config);
    let mut files = vec![(format!("{}.json", hex_of(&hex)), config.to_vec())];
    let mut names = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        let name = format!("{}/layer.tar", hex_of(&digest(&[index as u8])));
        files.push((name.clone(), layer.to_vec()));
        names.push(name);
    }
    let manifest = json!([{ "Config": files[0].0, "RepoTags": tags, "Layers": names }]);
    files.push(("manifest.json".to_owned(), manifest.to_string().into_bytes()));
    files
}

/// The files of an archive as Docker to 1.9 writes it: an image of these layers, each upon the one
/// before. `names` is what `repositories` says, where `TOP` stands for the ID of the last.
pub(crate) fn saved_by_1_9(layers: &[&[u8]], names: Option<&str>) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut parent: Option<String> = None;
    for (index, layer) in layers.iter().enumerate() {
        let id = hex_of(&digest(&[b'v', index as u8])).to_owned();
        let mut json = json!({
            "id": id, "created": super::handmade::CREATED, "docker_version": "1.9.1",
            "container_config": { "Cmd": ["/bin/sh", "-c", format!("step {index}")] },
            "architecture": "amd64", "os": "linux", "Size": layer.len(),
        });
        if let Some(parent) = &parent {
            json["parent"] = parent.as_str().into();
        }
        files.push((format!("{id}/VERSION"), b"1.0".to_vec()));
        files.push((format!("{id}/json"), json.to_string().into_bytes()));
        files.push((format!("{id}/layer.tar"), layer.to_vec()));
        parent = Some(id);
    }
    if let Some(names) = names {
        let names = names.replace("TOP", &parent.unwrap_or_default());
        files.push(("repositories".to_owned(), names.into_bytes()));
    }
    files
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

/// Bytes as they may be stored: as they are, or in one of the forms that layers have.
pub(crate) fn forms(bytes: &[u8]) -> [Vec<u8>; 3] {
    [bytes.to_vec(), gzip(bytes), zstd(bytes)]
}

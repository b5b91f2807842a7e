//! The image that the layers make: its config, which nobody wrote down.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::Place;
use super::layer::LayerTar;
use crate::backing::{Bytes, FileRange, Root, Time};
use crate::cache::Cache;
use crate::digest::{ChainId, DiffId, Digest, ImageId};
use crate::error::{Error, Result};
use crate::reference::Reference;
use crate::store::{Blob, Image, Layer, LayerSource};
use crate::tar::read::Entries;
use crate::time::Timestamp;
use crate::windows::reader::Form;
use crate::windows::tombstones;

/// How much is read at once, in bytes.
const CHUNK: usize = 1 << 20;

/// The name of the image where that of the directory is no name of one.
const FALLBACK: &str = "windows-layer";

/// The reference under which the layer at `path` is shown: its name, without what says that it is a
/// tar, as far as a repository can have it.
pub(super) fn reference(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let name = name.strip_suffix(".tar").unwrap_or(&name);
    let plain = |character: char| if character.is_ascii_alphanumeric() { character } else { '-' };
    let name: String = name.chars().map(plain).collect();
    let parts: Vec<&str> = name.split('-').filter(|part| !part.is_empty()).collect();
    let text = format!("{}:latest", parts.join("-"));
    match Reference::parse(&text) {
        Ok(_) => text,
        Err(_) => format!("{FALLBACK}:latest"),
    }
}

/// Reads the layers in `places`, lowest first; `is_stale` is set once a file of one is not as it was.
pub(super) fn read(
    places: &[Place],
    reference: &str,
    cache: &Arc<Cache>,
    is_stale: &Arc<AtomicBool>,
) -> Result<Image> {
    let mut layers: Vec<Layer> = Vec::with_capacity(places.len());
    let mut created = Time::default();
    for place in places {
        let bytes = match place {
            Place::Directory(root) => exported(root, layers.is_empty(), is_stale)?,
            Place::Tar(root, name) => {
                let stored: Arc<dyn Bytes> = Arc::new(FileRange::pinned(root, name)?);
                cache.uncompressed(&stored)?
            }
        };
        created = Entries::new(&*bytes).next()?.map_or(created, |entry| entry.mtime);
        let layer = layer(bytes, layers.last())?;
        layers.push(layer);
    }
    let config: Arc<[u8]> = config(&layers, created).into();
    Ok(Image {
        id: ImageId(Digest::of(&config)),
        config,
        layers,
        parent: None,
        last_tagged: None,
        references: vec![reference.to_owned()],
        target: None,
        platforms: Vec::new(),
        stored: None,
        descriptions: Vec::new(),
    })
}

/// The tar of an exported layer.
fn exported(
    root: &Arc<Root>,
    is_lowest: bool,
    is_stale: &Arc<AtomicBool>,
) -> Result<Arc<dyn Bytes>> {
    let form = match root.stat(tombstones::NAME) {
        Err(err) if err.is_not_found() && is_lowest => Form::Base,
        _ => Form::Exported,
    };
    Ok(Arc::new(LayerTar::new(root, form, is_stale)?))
}

/// The layer whose tar `bytes` is, which is read through for its digest.
fn layer(bytes: Arc<dyn Bytes>, below: Option<&Layer>) -> Result<Layer> {
    let mut hash = Sha256::new();
    let mut buf = vec![0; CHUNK];
    let mut at = 0;
    while at < bytes.len() {
        let read = bytes.read_at(at, &mut buf)?;
        if read == 0 {
            return Err(Error::corrupt(bytes.path(), "shorter than it was"));
        }
        hash.update(&buf[..read]);
        at += read as u64;
    }
    let diff_id = DiffId(Digest::from_hash(hash));
    Ok(Layer {
        diff_id,
        chain_id: ChainId::of(below.map(|below| below.chain_id), diff_id),
        size: bytes.len(),
        directory: bytes.path().to_string_lossy().into_owned(),
        dirs: Vec::new(),
        source: LayerSource::Blob(Blob { digest: diff_id.0, bytes }),
    })
}

fn config(layers: &[Layer], created: Time) -> Vec<u8> {
    let created = Timestamp::from_instant(Time { nanos: 0, ..created });
    let step = json!({ "created": created.as_str(), "created_by": "windows-layer" });
    let diff_ids: Vec<String> = layers.iter().map(|layer| layer.diff_id.to_string()).collect();
    let config = json!({
        "architecture": "amd64",
        "config": {},
        "created": created.as_str(),
        "history": vec![step; layers.len()],
        "os": "windows",
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    config.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_named_after_its_directory() {
        for (path, name) in [
            ("/layers/App_1.0", "app-1-0:latest"),
            ("/x/--a  b-", "a-b:latest"),
            ("/x/Base.tar", "base:latest"),
            ("/x/\u{e9}", "windows-layer:latest"),
            ("/", "windows-layer:latest"),
        ] {
            assert_eq!(reference(Path::new(path)), name);
        }
    }
}

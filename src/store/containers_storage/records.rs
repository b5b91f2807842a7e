//! The lists of images, layers and containers as values. Parsers take bytes and never touch the
//! disk. An entry that makes no sense is left out, and its neighbours stay.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::digest::{ContainerId, DiffId, Digest, ImageId};
use crate::reference::Reference;
use crate::store::driver::DirId;
use crate::store::names::is_container_name;
use crate::store::{IdMap, IdPair, IdRange, Pod};

/// What one list says.
#[derive(Debug)]
pub(super) struct List<T> {
    /// Its entries, in order.
    pub(super) entries: Vec<T>,
    /// Why the others are left out, one phrase each.
    pub(super) rejected: Vec<String>,
}

impl<T> Default for List<T> {
    fn default() -> List<T> {
        List { entries: Vec::new(), rejected: Vec::new() }
    }
}

/// Parses an array, each entry by itself.
fn list<T>(json: &[u8], entry: impl Fn(&str) -> Result<T, String>) -> Result<List<T>, String> {
    let entries: Option<Vec<&RawValue>> =
        serde_json::from_slice(json).map_err(|err| err.to_string())?;
    let mut list = List::default();
    for (index, raw) in entries.unwrap_or_default().into_iter().enumerate() {
        match entry(raw.get()) {
            Ok(entry) => list.entries.push(entry),
            Err(why) => list.rejected.push(format!("entry {index}: {why}")),
        }
    }
    Ok(list)
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|err| err.to_string())
}

/// An image.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ImageRecord {
    /// Its ID.
    pub(super) id: ImageId,
    /// References to it in their familiar form, in the store's order.
    pub(super) names: Vec<String>,
    /// Names that are no references.
    pub(super) nameless: Vec<String>,
    /// Its top layer; `None` where it has none.
    pub(super) layer: Option<DirId>,
    /// True where the store has a config for it: a list of manifests has none.
    pub(super) has_config: bool,
    /// Digests of its manifests: it may have been pulled by several.
    pub(super) manifests: Vec<Digest>,
    /// When it was made, as stored; may be empty.
    pub(super) created: String,
}

/// Parses `images.json`.
pub(super) fn images(json: &[u8]) -> Result<List<ImageRecord>, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Entry {
        id: String,
        names: Option<Vec<String>>,
        layer: Option<String>,
        digest: Option<String>,
        big_data_names: Option<Vec<String>>,
        created: Option<String>,
    }
    list(json, |text| {
        let entry: Entry = parse(text)?;
        let id = ImageId::from_hex(&entry.id).map_err(|_| "not an image ID".to_owned())?;
        let (mut names, mut nameless) = (Vec::new(), Vec::new());
        for name in entry.names.unwrap_or_default() {
            match familiar(&name) {
                Some(familiar) => names.push(familiar),
                None => nameless.push(name),
            }
        }
        let key = id.to_string();
        let has_config = entry.big_data_names.as_ref().is_none_or(|names| names.contains(&key));
        let data = entry.big_data_names.unwrap_or_default();
        let manifests = data.iter().filter_map(|name| name.strip_prefix("manifest-"));
        let manifests = manifests.chain(entry.digest.as_deref());
        Ok(ImageRecord {
            id,
            names,
            nameless,
            layer: layer_id(entry.layer)?,
            has_config,
            manifests: manifests.filter_map(|text| Digest::parse(text).ok()).collect(),
            created: entry.created.unwrap_or_default(),
        })
    })
}

/// A full name with a tag or a digest as people write it.
fn familiar(name: &str) -> Option<String> {
    let reference = Reference::parse(name).ok()?;
    let is_whole = reference.tag.is_some() || reference.digest.is_some();
    is_whole.then(|| reference.familiar())
}

/// A layer's ID, which names its directory: 64 hex digits; `None` where there is none.
fn layer_id(text: Option<String>) -> Result<Option<DirId>, String> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let id = Digest::from_hex(&text).ok().and_then(|_| DirId::parse(&text));
    id.map(Some).ok_or_else(|| format!("not a layer ID: {text:?}"))
}

/// A layer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LayerRecord {
    /// Its ID, which names its directory.
    pub(super) id: DirId,
    /// The layer below; `None` for the lowest.
    pub(super) parent: Option<DirId>,
    /// Digest of its tar; `None` for a container's.
    pub(super) diff_id: Option<DiffId>,
    /// Bytes of its tar, which is how the engine counts; 0 where it does not know.
    pub(super) size: u64,
    /// The IDs of the container that its files are for; `None` where they are the engine's own.
    pub(super) ids: Option<IdPair<IdMap>>,
}

/// A run of IDs (containers/storage `idtools.IDMap`).
#[derive(Deserialize)]
struct IdEntry {
    container_id: u32,
    host_id: u32,
    size: u32,
}

/// The maps that an entry has; `None` where it has none.
fn id_maps(
    users: Option<Vec<IdEntry>>,
    groups: Option<Vec<IdEntry>>,
) -> Result<Option<IdPair<IdMap>>, String> {
    match (id_map(users), id_map(groups)) {
        (Some(user), Some(group)) => Ok(Some(IdPair { user, group })),
        (None, None) => Ok(None),
        _ => Err("uidmap or gidmap alone".to_owned()),
    }
}

fn id_map(entries: Option<Vec<IdEntry>>) -> Option<IdMap> {
    let range = |entry: IdEntry| IdRange {
        inside: entry.container_id,
        outside: entry.host_id,
        count: entry.size,
    };
    IdMap::new(entries.unwrap_or_default().into_iter().map(range).collect())
}

/// Parses `layers.json` or `volatile-layers.json`.
pub(super) fn layers(json: &[u8]) -> Result<List<LayerRecord>, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Entry {
        id: String,
        parent: Option<String>,
        diff_digest: Option<String>,
        diff_size: Option<i64>,
        uidmap: Option<Vec<IdEntry>>,
        gidmap: Option<Vec<IdEntry>>,
    }
    list(json, |text| {
        let entry: Entry = parse(text)?;
        let id = layer_id(Some(entry.id))?.ok_or("no ID")?;
        let diff_id = match entry.diff_digest.as_deref() {
            None | Some("") => None,
            Some(text) => {
                Some(DiffId::parse(text).map_err(|err| format!("diff-digest of {id}: {err}"))?)
            }
        };
        // -1 stands for a size that nobody counted.
        let size = entry.diff_size.unwrap_or(0).try_into().unwrap_or(0);
        let ids = id_maps(entry.uidmap, entry.gidmap)?;
        Ok(LayerRecord { parent: layer_id(entry.parent)?, id, diff_id, size, ids })
    })
}

/// A container.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ContainerRecord {
    /// Its ID.
    pub(super) id: ContainerId,
    /// Its name; its ID where it has none.
    pub(super) name: String,
    /// The image it was made from; `None` for one made from scratch.
    pub(super) image: Option<ImageId>,
    /// The image as its engine named it, in full; may be empty.
    pub(super) image_name: String,
    /// Its writable layer.
    pub(super) layer: DirId,
    /// Its pod, where CRI-O noted one.
    pub(super) pod: Option<Pod>,
    /// The IDs that its processes have; `None` where they are the engine's own.
    pub(super) ids: Option<IdPair<IdMap>>,
    /// When it was made, as stored.
    pub(super) created: String,
    /// Its entry, bytes as stored.
    pub(super) json: Arc<[u8]>,
}

/// Parses `containers.json` or `volatile-containers.json`.
pub(super) fn containers(json: &[u8]) -> Result<List<ContainerRecord>, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Entry {
        id: String,
        names: Option<Vec<String>>,
        image: Option<String>,
        layer: Option<String>,
        metadata: Option<String>,
        created: Option<String>,
        uidmap: Option<Vec<IdEntry>>,
        gidmap: Option<Vec<IdEntry>>,
    }
    list(json, |text| {
        let entry: Entry = parse(text)?;
        let id = ContainerId::from_hex(&entry.id).map_err(|_| "not a container ID".to_owned())?;
        let names = entry.names.unwrap_or_default();
        let name = names.into_iter().next().unwrap_or_else(|| id.hex());
        if !is_container_name(&name) {
            return Err(format!("not a container name: {name:?}"));
        }
        let image = match entry.image.as_deref() {
            None | Some("") => None,
            Some(image) => Some(ImageId::from_hex(image).map_err(|err| format!("image: {err}"))?),
        };
        let metadata = Metadata::parse(entry.metadata.as_deref().unwrap_or_default());
        let pod = metadata.pod();
        Ok(ContainerRecord {
            id,
            name,
            image,
            image_name: metadata.image_name.unwrap_or_default(),
            pod,
            ids: id_maps(entry.uidmap, entry.gidmap)?,
            layer: layer_id(entry.layer)?.ok_or("no layer")?,
            created: entry.created.unwrap_or_default(),
            json: text.as_bytes().into(),
        })
    })
}

/// What an engine noted of a container in a field of its own.
#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
struct Metadata {
    image_name: Option<String>,
    pod_name: Option<String>,
    metadata_name: Option<String>,
}

impl Metadata {
    /// Notes of another kind say nothing.
    fn parse(text: &str) -> Metadata {
        let parsed: Option<Metadata> = serde_json::from_str(text).unwrap_or_default();
        parsed.unwrap_or_default()
    }

    /// The pod of a container of CRI-O, whose pods are named `k8s_POD_NAMESPACE_UID_ATTEMPT`
    /// (cri-o internal/factory/sandbox, `SetNameAndID`).
    fn pod(&self) -> Option<Pod> {
        let mut parts = self.pod_name.as_deref()?.strip_prefix("k8s_")?.split('_');
        let (name, namespace) = (parts.next()?.to_owned(), parts.next()?.to_owned());
        let container = self.metadata_name.clone().filter(|name| !name.is_empty())?;
        let is_whole = !name.is_empty() && !namespace.is_empty();
        is_whole.then_some(Pod { namespace, name, container })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "18d6629be8e0213be66b0a8e494ff535b2d903411688581d9483a2021483384f";

    proptest! {
        #[test]
        fn no_bytes_make_a_parser_panic(bytes: Vec<u8>, text: String) {
            let entry = serde_json::json!([{
                "id": HEX, "names": [&text], "layer": HEX, "parent": &text, "metadata": &text,
            }]);
            for json in [bytes, entry.to_string().into()] {
                for image in images(&json).unwrap_or_default().entries {
                    prop_assert!(image.names.iter().all(|name| Reference::parse(name).is_ok()));
                }
                for layer in layers(&json).unwrap_or_default().entries {
                    prop_assert_eq!(layer.parent.filter(|_| text.is_empty()), None);
                }
                for container in containers(&json).unwrap_or_default().entries {
                    prop_assert!(is_container_name(&container.name));
                }
            }
        }
    }

    #[test]
    fn a_broken_entry_leaves_its_neighbours() {
        let good = format!(r#"{{"id":"{HEX}","layer":"{HEX}"}}"#);
        for bad in [
            r#"{"id":"../../../etc"}"#.to_owned(),
            r#"{"id":7}"#.to_owned(),
            "null".to_owned(),
            format!(r#"{{"id":"{}","layer":"{HEX}"}}"#, HEX.to_uppercase()),
            format!(r#"{{"id":"{HEX}","layer":"../../etc","parent":"../../etc"}}"#),
        ] {
            let json = format!("[{good},{bad},{good}]");
            let images = images(json.as_bytes()).unwrap();
            assert_eq!((images.entries.len(), images.rejected.len()), (2, 1), "{bad}");
            let layers = layers(json.as_bytes()).unwrap();
            assert_eq!((layers.entries.len(), layers.rejected.len()), (2, 1), "{bad}");
            let containers = containers(json.as_bytes()).unwrap();
            assert_eq!((containers.entries.len(), containers.rejected.len()), (2, 1), "{bad}");
        }
        assert!(images(b"null").unwrap().entries.is_empty());
        assert!(images(b"{}").is_err());
    }

    #[test]
    fn names_become_familiar() {
        let json = format!(
            r#"[{{"id":"{HEX}","names":["docker.io/library/a:1","localhost/b:2","q.io/c","../d:1"]}}]"#
        );
        let images = images(json.as_bytes()).unwrap();
        assert_eq!(images.entries[0].names, ["a:1", "localhost/b:2"]);
        assert_eq!(images.entries[0].nameless, ["q.io/c", "../d:1"]);
        assert_eq!(images.entries[0].layer, None);
    }
}

//! `manifest.json`, as Docker 1.10 and later, Podman and containerd write it beside the images.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::contents::{CONFIG_MAX, Config, Contents, Entry, Stored};
use super::files::Files;
use super::place::Place;
use super::{layout, legacy};
use crate::digest::{DiffId, Digest, ImageId};
use crate::error::{Error, Result};
use crate::store::config::LAYERS_MAX;
use crate::store::files::JSON_MAX;

/// The list of images.
const MANIFEST: &str = "manifest.json";

/// Most images that one archive may hold.
const IMAGES_MAX: usize = 1 << 14;

/// An image in the list (moby, `image/tarexport/tarexport.go`).
#[derive(Deserialize)]
struct Item {
    #[serde(rename = "Config")]
    config: String,
    #[serde(rename = "RepoTags", default)]
    repo_tags: Option<Vec<String>>,
    #[serde(rename = "Layers", default)]
    layers: Option<Vec<String>>,
    #[serde(rename = "Parent", default)]
    parent: Option<String>,
    #[serde(rename = "LayerSources", default)]
    sources: Option<BTreeMap<String, Source>>,
}

/// Where a layer came from.
#[derive(Deserialize)]
struct Source {
    #[serde(default)]
    urls: Option<Vec<String>>,
}

/// Whether there is such a list, or one of an older kind.
pub(super) fn is_in(files: &Files) -> bool {
    files.holds(MANIFEST) || legacy::is_in(files)
}

/// Adds the images of `manifest.json`, or, where there is none, those of older documents.
pub(super) fn read(contents: &mut Contents, place: &Place) {
    if !contents.files.holds(MANIFEST) {
        return legacy::read(contents, place);
    }
    let items = match items(contents) {
        Ok(items) => items,
        Err(err) => return contents.damaged(err),
    };
    let (mut ids, mut parents) = (HashMap::new(), BTreeMap::new());
    for item in items {
        let item: Item = match serde_json::from_str(item.get()) {
            Ok(item) => item,
            Err(err) => {
                let why = format!("an image: {err}");
                contents.damaged(Error::corrupt(contents.files.path(MANIFEST), why));
                continue;
            }
        };
        match add(contents, item, &mut ids, &mut parents) {
            Ok(()) => {}
            Err(err) => contents.damaged(err),
        }
    }
    contents.set_parents(&parents);
}

/// What the list holds, each image apart from the others; nothing where there is no list, or where
/// it is null, as Go writes an empty one.
fn items(contents: &Contents) -> Result<Vec<Box<RawValue>>> {
    let Some(json) = contents.files.read(MANIFEST, JSON_MAX)? else { return Ok(Vec::new()) };
    let items: Option<Items> = serde_json::from_slice(&json)
        .map_err(|err| Error::corrupt(contents.files.path(MANIFEST), err.to_string()))?;
    Ok(items.map(|items| items.0).unwrap_or_default())
}

/// The items of a list, of at most [`IMAGES_MAX`].
struct Items(Vec<Box<RawValue>>);

impl<'de> Deserialize<'de> for Items {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Items, D::Error> {
        deserializer.deserialize_seq(ItemsVisitor)
    }
}

struct ItemsVisitor;

impl<'de> Visitor<'de> for ItemsVisitor {
    type Value = Items;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of images")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Items, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            if items.len() == IMAGES_MAX {
                return Err(A::Error::custom(format!("more than {IMAGES_MAX} images")));
            }
            items.push(item);
        }
        Ok(Items(items))
    }
}

/// Adds one image. `ids` are those of the configs that were read so far.
fn add(
    contents: &mut Contents,
    item: Item,
    ids: &mut HashMap<String, ImageId>,
    parents: &mut BTreeMap<ImageId, ImageId>,
) -> Result<()> {
    let corrupt = |contents: &Contents, why: String| {
        let name = item.config.escape_debug();
        Error::corrupt(contents.files.path(MANIFEST), format!("{name:.200}: {why}"))
    };
    let layers = item.layers.unwrap_or_default();
    if layers.len() > LAYERS_MAX {
        return Err(corrupt(contents, format!("more than {LAYERS_MAX} layers")));
    }
    let id = match ids.get(&item.config) {
        Some(id) => *id,
        None => image_id(contents, &item.config)?,
    };
    ids.insert(item.config.clone(), id);
    let stored = layers.into_iter().map(|name| Stored::File(name.into()));
    let entry =
        contents.add(id, || Entry::new(Config::File(item.config.clone()), stored.collect()));
    for (diff_id, source) in item.sources.unwrap_or_default() {
        let url = source.urls.and_then(|urls| urls.into_iter().next());
        if let (Ok(diff_id), Some(url)) = (DiffId::parse(&diff_id), url) {
            entry.foreign.insert(diff_id, url);
        }
    }
    contents.list(id);
    for tag in item.repo_tags.unwrap_or_default() {
        contents.name(id, &tag, MANIFEST);
    }
    if let Some(parent) = item.parent.filter(|parent| !parent.is_empty()) {
        match ImageId::parse(&parent) {
            Ok(parent) if parent != id => drop(parents.insert(id, parent)),
            Ok(_) => {}
            Err(err) => contents.damaged(corrupt(contents, format!("Parent: {err}"))),
        }
    }
    Ok(())
}

/// The ID of an image: the digest of its config, or what the name of a config says that can't be
/// read, so that the image is listed all the same.
fn image_id(contents: &mut Contents, name: &str) -> Result<ImageId> {
    let missing = || Error::corrupt(contents.files.path(name), "missing");
    let config = contents.files.read(name, CONFIG_MAX);
    match config.and_then(|config| config.ok_or_else(missing)) {
        Ok(config) => Ok(ImageId(Digest::of(&config))),
        Err(err) => {
            let hex = Digest::from_hex(name.strip_suffix(".json").unwrap_or(name)).ok();
            let Some(digest) = hex.or_else(|| layout::digest_of(name)) else { return Err(err) };
            contents.damaged(err);
            Ok(ImageId(digest))
        }
    }
}

//! What Docker to 1.9 wrote: a directory for each image, named by its ID, with one layer and a
//! description of the image in it, and `repositories`, which names them.
//!
//! Nothing there tells a digest, so each layer is read once to know which images there are.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::contents::{CONFIG_MAX, Config, Contents, Entry, Stored};
use super::files::Files;
use super::place::Place;
use crate::backing::Bytes;
use crate::digest::{DiffId, Digest, ImageId};
use crate::error::{Error, Result};
use crate::oci::migrate::{Migrated, migrate};
use crate::store::config::LAYERS_MAX;
use crate::store::files::JSON_MAX;

/// The list of names.
pub(super) const REPOSITORIES: &str = "repositories";

/// Most images that one archive may hold, and how many bytes their configs may have together.
const IMAGES_MAX: usize = 4096;
const BYTES_MAX: usize = 16 << 20;

/// How many bytes of layers are read to know their digests: with holes, they may be endless.
const HASHED_MAX: u64 = 64 << 30;

/// How much of a layer is read at once, in bytes.
const CHUNK: usize = 256 << 10;

/// Whether there are such directories.
pub(super) fn is_in(files: &Files) -> bool {
    files.holds(REPOSITORIES) || ids(files).next().is_some()
}

/// The IDs of the images, which are random.
fn ids(files: &Files) -> impl Iterator<Item = Digest> {
    files.names().filter_map(|name| {
        let id = name.strip_suffix(b"/json").and_then(|id| std::str::from_utf8(id).ok())?;
        Digest::from_hex(id).ok()
    })
}

/// Adds the images of those directories.
pub(super) fn read(contents: &mut Contents, place: &Place) {
    let mut ids: Vec<Digest> = ids(&contents.files).collect();
    ids.sort_unstable();
    if ids.len() > IMAGES_MAX {
        let what = format!("more than {IMAGES_MAX} images");
        return contents.damaged(Error::unsupported(contents.files.path(REPOSITORIES), what));
    }
    let mut loading = Loading { contents, place, loaded: HashMap::new(), bytes: 0, hashed: 0 };
    for id in ids {
        loading.load(id);
    }
    let loaded = std::mem::take(&mut loading.loaded);
    let new = |id: &Digest| loaded.get(id).and_then(Option::as_ref).map(|image| image.id);
    let parents = loaded
        .values()
        .flatten()
        .filter_map(|image| Some((image.id, new(image.parent.as_ref()?)?)));
    contents.set_parents(&parents.filter(|(id, parent)| id != parent).collect());
    if let Err(err) = read_names(contents, new) {
        contents.damaged(err);
    }
}

/// What an image has become.
struct Image {
    id: ImageId,
    parent: Option<Digest>,
    migrated: Migrated,
    layers: Vec<Stored>,
}

struct Loading<'a> {
    contents: &'a mut Contents,
    place: &'a Place,
    /// `None` where it is damaged, or just being loaded.
    loaded: HashMap<Digest, Option<Arc<Image>>>,
    bytes: usize,
    hashed: u64,
}

impl Loading<'_> {
    /// Loads an image, and before it those that it was built upon.
    fn load(&mut self, id: Digest) {
        let mut chain = Vec::new();
        let mut next = Some(id);
        while let Some(id) = next.filter(|id| !self.loaded.contains_key(id)) {
            self.loaded.insert(id, None);
            match self.described(id) {
                Ok(described) => {
                    next = described.parent;
                    chain.push(described);
                }
                Err(err) => {
                    self.contents.damaged(err);
                    break;
                }
            }
        }
        for described in chain.into_iter().rev() {
            let id = described.id;
            match self.migrated(described) {
                Ok(image) => drop(self.loaded.insert(id, Some(Arc::new(image)))),
                Err(err) => self.contents.damaged(err),
            }
        }
    }

    fn described(&self, id: Digest) -> Result<Described> {
        #[derive(Deserialize)]
        struct Description {
            #[serde(default)]
            parent: Option<String>,
        }
        let name = format!("{}/json", id.hex());
        let corrupt = |why: String| Error::corrupt(self.contents.files.path(&name), why);
        let json = self.contents.files.read(&name, CONFIG_MAX)?;
        let json = json.ok_or_else(|| corrupt("missing".to_owned()))?;
        let description: Description =
            serde_json::from_slice(&json).map_err(|err| corrupt(err.to_string()))?;
        let parent = description.parent.filter(|parent| !parent.is_empty());
        let parent = parent.map(|parent| Digest::from_hex(&parent)).transpose();
        let parent = parent.map_err(|_| corrupt("its parent is no ID".to_owned()))?;
        Ok(Described { id, name, json, parent })
    }

    fn migrated(&mut self, described: Described) -> Result<Image> {
        let Described { id, name, json, parent } = described;
        let path = self.contents.files.path(&name);
        let corrupt = |why: String| Error::corrupt(&path, why);
        let below =
            match parent {
                None => None,
                Some(parent) => {
                    let below = self.loaded.get(&parent).cloned().flatten();
                    Some(below.ok_or_else(|| {
                        corrupt(format!("its parent {} can't be read", parent.hex()))
                    })?)
                }
            };
        let mut layers = below.as_ref().map_or_else(Vec::new, |below| below.layers.clone());
        if layers.len() == LAYERS_MAX {
            return Err(corrupt(format!("more than {LAYERS_MAX} layers")));
        }
        let name = format!("{}/layer.tar", id.hex());
        let diff_id = self.diff_id(&name)?;
        layers.push(Stored::File(name.into()));
        let below = below.as_ref().map(|below| &below.migrated);
        let migrated = migrate(&json, below, diff_id).map_err(|err| corrupt(err.to_string()))?;
        self.bytes += migrated.config.len();
        if self.bytes > BYTES_MAX {
            return Err(Error::unsupported(
                path,
                "more descriptions of images than are kept in mind",
            ));
        }
        let id = ImageId(Digest::of(&migrated.config));
        let config = Config::Made(migrated.config.clone().into());
        self.contents.add(id, || Entry::new(config, layers.clone().into()));
        self.contents.list(id);
        Ok(Image { id, parent, migrated, layers })
    }

    /// The digest of a layer's tar, which is read for that.
    fn diff_id(&mut self, name: &str) -> Result<DiffId> {
        let bytes = self.contents.files.bytes(name)?;
        let path = self.contents.files.path(name);
        let Some(bytes) = bytes else { return Err(Error::corrupt(path, "missing")) };
        let bytes = self.place.uncompressed(&bytes)?;
        self.hashed = self.hashed.saturating_add(bytes.len());
        if self.hashed > HASHED_MAX {
            return Err(Error::unsupported(path, "more bytes of layers than are read at once"));
        }
        Ok(DiffId(hash(&*bytes)?))
    }
}

/// What a directory says of its image.
struct Described {
    id: Digest,
    /// Name of the description.
    name: String,
    json: Vec<u8>,
    parent: Option<Digest>,
}

fn hash(bytes: &dyn Bytes) -> Result<Digest> {
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    let mut at = 0;
    while at < bytes.len() {
        let read = bytes.read_at(at, &mut chunk)?;
        if read == 0 {
            return Err(Error::corrupt(bytes.path(), "shorter than it was"));
        }
        hash.update(&chunk[..read]);
        at += read as u64;
    }
    Ok(Digest::from_hash(hash))
}

/// Gives the images the names that `repositories` has for them; `new` is what became of an ID.
fn read_names(contents: &mut Contents, new: impl Fn(&Digest) -> Option<ImageId>) -> Result<()> {
    let Some(json) = contents.files.read(REPOSITORIES, JSON_MAX)? else { return Ok(()) };
    let corrupt = |contents: &Contents, why| Error::corrupt(contents.files.path(REPOSITORIES), why);
    let names: BTreeMap<String, BTreeMap<String, String>> =
        serde_json::from_slice(&json).map_err(|err| corrupt(contents, err.to_string()))?;
    for (name, tags) in names {
        for (tag, id) in tags {
            let text = format!("{name}:{tag}");
            match Digest::from_hex(&id).ok().as_ref().and_then(&new) {
                Some(id) => contents.name(id, &text, REPOSITORIES),
                None => {
                    let why = format!("{:.300}: there is no {id:.80}", text.escape_debug());
                    contents.damaged(corrupt(contents, why));
                }
            }
        }
    }
    Ok(())
}

//! All that a layout or an archive holds in one state.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::absent::{Absent, Why};
use super::files::Files;
use super::place::Place;
use super::{Documents, layout, repository, saved};
use crate::backing::Bytes;
use crate::digest::{ChainId, DiffId, Digest, ImageId};
use crate::error::{Error, Result};
use crate::reference::{InvalidReference, Reference, Tag};
use crate::store::config::diff_ids;
use crate::store::parents::cut_parents;
use crate::store::{Blob, Catalog, Descriptor, Image, Layer, LayerSource};

/// Largest config that is read, in bytes.
pub(super) const CONFIG_MAX: u64 = 4 << 20;

/// How much damage is told of.
const DAMAGED_MAX: usize = 1000;

/// Images, and the files that they are made of.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) files: Files,
    /// Every name.
    pub(super) catalog: Catalog,
    /// The images of the catalog, and those of other platforms.
    images: HashMap<ImageId, Entry>,
    /// What the images are called whose own name is but a tag.
    repository: String,
}

/// An image as the documents describe it.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) config: Config,
    /// Lowest first.
    pub(super) layers: Arc<[Stored]>,
    pub(super) references: Vec<String>,
    pub(super) target: Option<Descriptor>,
    pub(super) platforms: Vec<(String, ImageId)>,
    /// Where layers can be had that may be missing, as a list apart from them tells.
    pub(super) foreign: BTreeMap<DiffId, String>,
}

/// Where a config is.
#[derive(Debug, Clone)]
pub(super) enum Config {
    /// In the file of that name.
    File(String),
    /// Nowhere: it follows from older documents.
    Made(Arc<[u8]>),
}

/// A layer's file.
#[derive(Debug, Clone)]
pub(super) enum Stored {
    /// A blob of a layout.
    Blob {
        /// Its digest, which is its name.
        digest: Digest,
        /// Its size.
        size: u64,
        /// Where else it can be had, if it may be missing.
        url: Option<Box<str>>,
    },
    /// A file of that name.
    File(Box<str>),
}

impl Stored {
    /// The file's name.
    fn name(&self) -> Cow<'_, str> {
        match self {
            Stored::Blob { digest, .. } => layout::blob(*digest).into(),
            Stored::File(name) => (&**name).into(),
        }
    }
}

impl Entry {
    pub(super) fn new(config: Config, layers: Arc<[Stored]>) -> Entry {
        Entry {
            config,
            layers,
            references: Vec::new(),
            target: None,
            platforms: Vec::new(),
            foreign: BTreeMap::new(),
        }
    }
}

impl Contents {
    /// Reads the documents, and no layer.
    pub(super) fn read(files: Files, place: &Place, documents: Documents) -> Contents {
        let mut contents = Contents {
            files,
            catalog: Catalog::default(),
            images: HashMap::new(),
            repository: repository(place.path()),
        };
        contents.catalog.damaged.extend(contents.files.damage());
        if documents != Documents::Saved {
            layout::read(&mut contents);
        }
        if documents != Documents::Layout {
            saved::read(&mut contents, place);
        }
        for (id, why) in cut_parents(&mut contents.catalog.images) {
            contents.damaged(Error::corrupt(
                contents.files.path("manifest.json"),
                format!("{id}: {why}"),
            ));
        }
        contents
    }

    /// Notes what can't be read; of very much, the first.
    pub(super) fn damaged(&mut self, err: Error) {
        let damaged = &mut self.catalog.damaged;
        // Documents of different generations miss the same files.
        let is_known = |text: String| damaged.iter().any(|known| known.to_string() == text);
        if damaged.len() < DAMAGED_MAX && !is_known(err.to_string()) {
            damaged.push(Arc::new(err));
        }
    }

    /// Takes an image in, unless another document has told of it.
    pub(super) fn add(&mut self, id: ImageId, entry: impl FnOnce() -> Entry) -> &mut Entry {
        self.images.entry(id).or_insert_with(entry)
    }

    /// An image that was taken in.
    pub(super) fn entry_mut(&mut self, id: ImageId) -> Option<&mut Entry> {
        self.images.get_mut(&id)
    }

    /// Lists an image that was taken in.
    pub(super) fn list(&mut self, id: ImageId) {
        self.catalog.images.entry(id).or_insert(None);
    }

    /// Gives an image that is listed a name, as some document has it.
    pub(super) fn name(&mut self, id: ImageId, text: &str, document: &str) {
        let reference = match self.reference(text) {
            Ok(reference) => reference,
            Err(why) => {
                let why = format!("{:.300}: {why}", text.escape_debug());
                return self.damaged(Error::corrupt(self.files.path(document), why));
            }
        };
        if let Some(entry) = self.images.get_mut(&id)
            && !entry.references.contains(&reference)
        {
            entry.references.push(reference.clone());
        }
        let earlier = self.catalog.references.insert(reference.clone(), id);
        if let Some(earlier) = earlier.filter(|earlier| *earlier != id) {
            if let Some(entry) = self.images.get_mut(&earlier) {
                entry.references.retain(|known| *known != reference);
            }
            let why = format!("{reference} names two images");
            self.damaged(Error::corrupt(self.files.path(document), why));
        }
    }

    /// A name in the familiar form: with a tag or a digest, and of this archive where it is but a
    /// tag (as containerd's `AddRefPrefix` tells them apart).
    fn reference(&self, text: &str) -> Result<String, InvalidReference> {
        let reference = match text.contains(['/', ':', '@']) {
            true => Reference::parse(text)?,
            false => Reference::parse(&format!("{}:{text}", self.repository))?,
        };
        let is_named = reference.tag.is_some() || reference.digest.is_some();
        let tag = if is_named { reference.tag } else { Some(Tag::latest()) };
        Ok(Reference { tag, ..reference }.familiar())
    }

    fn entry(&self, id: ImageId) -> Result<&Entry> {
        self.images.get(&id).ok_or_else(|| Error::not_found(id.to_string()))
    }

    /// The config of an image, which hashes to its ID.
    pub(super) fn config(&self, id: ImageId) -> Result<Arc<[u8]>> {
        let name = match &self.entry(id)?.config {
            Config::Made(config) => return Ok(Arc::clone(config)),
            Config::File(name) => name,
        };
        let corrupt = |why: &'static str| Error::corrupt(self.files.path(name), why);
        let config = self.files.read(name, CONFIG_MAX)?.ok_or_else(|| corrupt("missing"))?;
        match Digest::of(&config) == id.0 {
            true => Ok(config.into()),
            false => Err(corrupt("not what its name says")),
        }
    }

    /// An image with its layers.
    pub(super) fn image(&self, id: ImageId) -> Result<Image> {
        let entry = self.entry(id)?;
        let config = self.config(id)?;
        let corrupt = |why: String| Error::corrupt(format!("image {id}"), why);
        let diff_ids = diff_ids(&config).map_err(corrupt)?;
        if diff_ids.len() != entry.layers.len() {
            let why = format!("{} layers for {} diff IDs", entry.layers.len(), diff_ids.len());
            return Err(corrupt(why));
        }
        let mut layers: Vec<Layer> = Vec::with_capacity(diff_ids.len());
        for (stored, diff_id) in entry.layers.iter().zip(diff_ids) {
            let below = layers.last().map(|layer| layer.chain_id);
            let blob = self.layer(entry, stored, diff_id)?;
            layers.push(Layer {
                diff_id,
                chain_id: ChainId::of(below, diff_id),
                size: blob.bytes.len(),
                directory: stored.name().into_owned(),
                dirs: Vec::new(),
                source: LayerSource::Blob(blob),
            });
        }
        Ok(Image {
            id,
            config,
            layers,
            parent: self.catalog.images.get(&id).copied().flatten(),
            last_tagged: None,
            references: entry.references.clone(),
            target: entry.target.clone(),
            platforms: entry.platforms.clone(),
            stored: None,
            descriptions: Vec::new(),
        })
    }

    /// The blob of a layer, which may not be there. Nothing tells the digest of a file that Docker
    /// wrote before 25: it goes by its diff ID, which it has unless somebody has compressed it.
    fn layer(&self, entry: &Entry, stored: &Stored, diff_id: DiffId) -> Result<Blob> {
        let name = stored.name();
        let (digest, size, url) = match stored {
            Stored::Blob { digest, size, url } => (*digest, Some(*size), url.as_deref()),
            Stored::File(name) => (layout::digest_of(name).unwrap_or(diff_id.0), None, None),
        };
        let url = url.or(entry.foreign.get(&diff_id).map(String::as_str));
        let absent = |why| -> Arc<dyn Bytes> {
            Arc::new(Absent::new(self.files.path(&name), size.unwrap_or(0), why))
        };
        let bytes = match self.files.bytes(&name)? {
            Some(bytes) if size.is_none_or(|size| size == bytes.len()) => bytes,
            Some(_) => absent(Why::Damaged("it has another size than its manifest says")),
            None => match url {
                Some(url) => absent(Why::Foreign(url.to_owned())),
                None => absent(Why::Damaged("missing")),
            },
        };
        Ok(Blob { digest, bytes })
    }

    /// The blob of that digest.
    pub(super) fn blob(&self, digest: Digest) -> Result<Option<Blob>> {
        let bytes = self.files.bytes(&layout::blob(digest))?;
        Ok(bytes.map(|bytes| Blob { digest, bytes }))
    }

    /// Bytes of all layers, each once.
    pub(super) fn size(&self) -> u64 {
        let (mut blobs, mut names) = (HashSet::new(), HashSet::new());
        let layers = self.images.values().flat_map(|entry| entry.layers.iter());
        let sizes = layers.filter_map(|stored| match stored {
            Stored::Blob { digest, size, url: None } => blobs.insert(digest).then_some(*size),
            Stored::Blob { url: Some(_), .. } => None,
            Stored::File(name) => names.insert(&**name).then(|| self.files.size(name)).flatten(),
        });
        sizes.fold(0, u64::saturating_add)
    }

    /// Notes which image another was built upon.
    pub(super) fn set_parents(&mut self, parents: &BTreeMap<ImageId, ImageId>) {
        for (id, parent) in parents {
            if let Some(known) = self.catalog.images.get_mut(id) {
                *known = Some(*parent);
            }
        }
    }
}

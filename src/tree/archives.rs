//! The tars of the tree: what each is made of, and a bounded cache of their recipes.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::live::{Draft, Live, Part};
use super::node::ArchiveNode;
use super::saved::is_exact;
use super::shelf::Shelf;
use super::{Tree, XATTR_MAX, journal};
use crate::archive::Flavour;
use crate::archive::content::Content;
use crate::archive::export::{self, Accounts, Export, Style};
use crate::archive::layers::Layers;
use crate::backing::Time;
use crate::cache::Cache;
use crate::digest::{ChainId, Digest, ImageId};
use crate::error::{Error, Result};
use crate::memo::Memo;
use crate::metrics::{Kind, Usage};
use crate::overlay::Stack;
use crate::recipe::{Recipe, Verify};
use crate::store::{Layer, LayerDir};
use crate::weighed::{Weigh, Weighed};

/// Memory that recipes may take before the least recently used go, in bytes.
const WEIGHT: usize = 256 << 20;

/// The same for digests.
const DIGESTS: usize = 1 << 20;

/// Room for the line that says how many names there was no room for, in bytes.
const LAST_LINE: usize = 64;

/// What a tar is made of. Equal values give equal bytes, but for what may be written to.
#[derive(Debug, Clone)]
pub(super) enum Archive {
    /// `save.tar`: the images in order, each with the references that it is saved under. In
    /// [`Flavour::Containerd`] an image may stand there several times, as often as it is asked for.
    /// Layers that the image `base` has as well, from the lowest up, are left out.
    Save { images: Vec<(ImageId, Vec<String>)>, flavour: Flavour, base: Option<ImageId> },
    /// `export.tar` of an image.
    Image(ImageId),
    /// A stored blob that belongs to an image.
    Blob(Digest, ImageId),
    /// `layer.tar`: of an image, the layer at that place, and whether it has its diff ID.
    Layer(ImageId, usize, ChainId, bool),
    /// One of files that may be written to.
    Live(Live),
}

impl Archive {
    /// `layer.tar` of that layer, at that place of an image.
    pub(super) fn of_layer(id: ImageId, index: usize, layer: &Layer) -> Archive {
        Archive::Layer(id, index, layer.chain_id, is_exact(layer))
    }

    /// What reading it counts as.
    pub(super) fn kind(&self) -> Kind {
        match self {
            Archive::Save { .. } | Archive::Live(Live::Container(_, Part::Save)) => Kind::Save,
            Archive::Image(_) | Archive::Live(Live::Container(_, Part::Export | Part::Full)) => {
                Kind::Export
            }
            Archive::Blob(..) => Kind::Blob,
            Archive::Layer(..) => Kind::Layer,
            Archive::Live(Live::Container(_, Part::Diff)) => Kind::Diff,
            Archive::Live(Live::Volume(_)) => Kind::Volume,
        }
    }

    /// What its bytes hang on, over mounts: for a layer only the layers, whichever image shows it.
    /// One image may lack a blob that another has, compressed in another way.
    pub(super) fn key(&self) -> String {
        match self {
            Archive::Layer(_, _, chain, true) => format!("layer {chain}"),
            Archive::Layer(_, _, chain, false) => format!("rebuilt layer {chain}"),
            Archive::Blob(digest, _) => format!("blob {digest}"),
            _ => format!("{self:?}"),
        }
    }
}

/// A tar at one moment.
#[derive(Debug, Clone)]
pub(super) struct Made {
    /// Its bytes; of a draft only their number.
    pub(super) recipe: Arc<Recipe>,
    pub(super) mtime: Time,
    /// Moves with the bytes, where they may change under the same [`Archive`]; else 0.
    pub(super) stamp: u64,
    /// What its bytes are to be made of when somebody reads them.
    pub(super) draft: Option<Arc<Draft>>,
}

impl Made {
    /// One that never changes.
    pub(super) fn sealed(recipe: Recipe, mtime: Time) -> Made {
        Made { recipe: Arc::new(recipe), mtime, stamp: 0, draft: None }
    }
}

impl Weigh for Made {
    fn weight(&self) -> usize {
        self.recipe.weight() + self.draft.as_ref().map_or(0, |draft| draft.weight())
    }
}

/// The digest of a tar that was read through.
#[derive(Debug, Clone, Copy)]
pub(super) struct Summed(pub(super) Digest);

impl Weigh for Summed {
    fn weight(&self) -> usize {
        size_of::<Digest>()
    }
}

impl Weigh for Arc<Recipe> {
    fn weight(&self) -> usize {
        Recipe::weight(self)
    }
}

/// Names a tar at one moment: its store, [`Archive::key`], and a stamp.
pub(super) type Key = (String, String, u64);

/// What was made of tars, the least recently used first to go.
#[derive(Debug)]
pub(super) struct Archives {
    layers: Layers,
    /// Of layers that were rebuilt.
    pub(super) digests: Memo<Key, Summed>,
    /// By the stamp of the files that they were made from.
    made: Memo<Key, Made>,
    /// By [`Made::stamp`]: what is or was being read and can't be made again, since a container writes
    /// to its files. It stays though others look at newer versions meanwhile.
    held: Mutex<Weighed<Key, Arc<Recipe>>>,
}

impl Archives {
    pub(super) fn new(verify: Verify, cache: &Arc<Cache>) -> Archives {
        let held = Mutex::new(Weighed::new(WEIGHT));
        let layers = Layers::new(verify, Arc::clone(cache));
        Archives { layers, digests: Memo::new(DIGESTS), made: Memo::new(WEIGHT), held }
    }

    /// Forgets what was made of layers and containers that were removed: an image that comes back has
    /// its ID, and other directories.
    pub(super) fn let_go(&self) {
        self.made.forget(|made| made.recipe.is_gone());
        let held = self.held().all();
        for (key, _) in held.iter().filter(|(_, recipe)| recipe.is_gone()) {
            self.held().remove(key);
        }
    }

    /// Of recipes, as they are looked up.
    pub(super) fn usage(&self) -> Usage {
        self.made.usage()
    }

    /// Of the files of layers that are blobs.
    pub(super) fn layer_usage(&self) -> Usage {
        self.layers.usage()
    }

    /// Whether a tar of files that never change is made.
    pub(super) fn has(&self, key: &Key) -> bool {
        self.made.get(key).is_some()
    }

    fn held(&self) -> MutexGuard<'_, Weighed<Key, Arc<Recipe>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tree {
    /// The directories of an image's layers as they are merged, topmost first.
    pub(super) fn layer_dirs(&self, layers: &[Layer]) -> Result<Vec<LayerDir>> {
        self.archives.layers.dirs(layers)
    }

    /// Paths of the entries of a layer's tar, where it or a record of it is here.
    pub(super) fn layer_names(&self, layer: &Layer) -> Result<Option<Vec<Vec<u8>>>> {
        self.archives.layers.names(layer)
    }

    /// The bytes of a tar that was looked up, of whatever length: of one that may change, those
    /// that it had then.
    ///
    /// # Errors
    /// ESTALE where they are gone: the tar has changed since, and so many others were looked at that
    /// it was forgotten before anybody read it.
    pub(super) fn bytes(&self, node: &ArchiveNode) -> Result<Arc<Recipe>> {
        let Some(frozen) = &node.frozen else {
            if let Some(recipe) = node.recent() {
                return Ok(recipe);
            }
            let recipe = self.made(&node.shelf, &node.archive)?.recipe;
            node.remember(&recipe);
            return Ok(recipe);
        };
        let (shelf, key) = (node.shelf.name.clone(), node.archive.key());
        let held = (shelf.clone(), key.clone(), frozen.stamp);
        if let Some(recipe) = self.archives.held().get(&held) {
            return Ok(Arc::clone(recipe));
        }
        let made = match self.archives.made.get(&(shelf, key, frozen.files)) {
            Some(made) if made.stamp == frozen.stamp => made,
            _ => self.made(&node.shelf, &node.archive)?,
        };
        if made.stamp != frozen.stamp {
            return Err(Error::stale(node.archive.key()));
        }
        let recipe = match &made.draft {
            Some(draft) => self.finished(&held, &made, draft)?,
            None => made.recipe,
        };
        self.archives.held().put(held, Arc::clone(&recipe));
        Ok(recipe)
    }

    /// The bytes of a tar of which there was a draft, once for all who read it.
    fn finished(&self, key: &Key, made: &Made, draft: &Draft) -> Result<Arc<Recipe>> {
        let (shelf, name, stamp) = key;
        let key = (shelf.clone(), format!("finished {name}"), *stamp);
        let finished = self.archives.made.get_or_make(key, || {
            let recipe = draft.finish()?;
            if recipe.len() != made.recipe.len() {
                return Err(Error::corrupt(name, "not as long as it was to be"));
            }
            Ok(Made { recipe: Arc::new(recipe), draft: None, ..made.clone() })
        })?;
        Ok(finished.recipe)
    }

    /// The value of [`super::CHANGED`]: a line for each file of a tar that reads have found changed,
    /// `/etc/hosts`; `None` where there is none, or where nobody has read it lately.
    pub(super) fn changed(&self, node: &ArchiveNode) -> Option<Vec<u8>> {
        let recipe = match &node.frozen {
            None => node.recent()?,
            Some(frozen) => {
                let (shelf, key) = (node.shelf.name.clone(), node.archive.key());
                let held = (shelf.clone(), key.clone(), frozen.stamp);
                let kept = |recipe: &Arc<Recipe>| Arc::clone(recipe);
                let held = self.archives.held().get(&held).map(kept);
                let made = || self.archives.made.get(&(shelf, key, frozen.files));
                held.or_else(|| Some(made()?.recipe))?
            }
        };
        let files = recipe.changed_files();
        let mut lines = Vec::new();
        for (index, file) in files.iter().enumerate() {
            let line = escaped(&[b"/", &file.name[..]].concat());
            if lines.len() + line.len() + LAST_LINE > XATTR_MAX {
                let more = format!("... and {} more\n", files.len() - index);
                lines.extend_from_slice(more.as_bytes());
                break;
            }
            lines.extend_from_slice(line.as_bytes());
            lines.push(b'\n');
        }
        (!lines.is_empty()).then_some(lines)
    }

    /// A tar as it is now; one of files that may be written to is at most [`super::CHECKED`] old.
    pub(super) fn made(&self, shelf: &Arc<Shelf>, archive: &Archive) -> Result<Made> {
        Ok(self.made_with_files(shelf, archive)?.0)
    }

    /// The same, and the stamp of the files that it was made from; 0 where they never change.
    pub(super) fn made_with_files(
        &self,
        shelf: &Arc<Shelf>,
        archive: &Archive,
    ) -> Result<(Made, u64)> {
        let files = match archive {
            Archive::Live(live) => self.files(shelf, live)?,
            Archive::Save { images, flavour: Flavour::Containerd, base } => {
                self.stored_stamp(shelf, images, *base)?
            }
            Archive::Save { .. } | Archive::Image(_) | Archive::Layer(..) | Archive::Blob(..) => 0,
        };
        let version = archive.version(shelf, files)?;
        let key = (shelf.name.clone(), archive.key(), version);
        let made = self.archives.made.get_or_make(key, || self.make(shelf, archive, files))?;
        Ok(match archive {
            // Images share a layer's bytes, but not their time.
            Archive::Layer(id, ..) | Archive::Blob(_, id) => {
                (Made { mtime: shelf.config(*id)?.mtime(), ..made }, version)
            }
            _ => (made, version),
        })
    }

    /// Tells what is left out of an archive.
    pub(super) fn note_omitted(&self, export: &Export) {
        for path in &export.omitted {
            tracing::debug!("{}: left out of the archive, as Docker does", path.display());
        }
        if let Some((first, others)) = export.unowned.split_first() {
            let first = first.display();
            let why = "the container has no name for the owner";
            self.errors
                .note(&format!("{first}: not in an archive, as {} more: {why}", others.len()));
        }
    }

    fn make(&self, shelf: &Arc<Shelf>, archive: &Archive, files: u64) -> Result<Made> {
        let _span = tracing::debug_span!("make archive", archive = archive.key()).entered();
        match archive {
            Archive::Save { images, base, .. } if files != 0 => {
                self.make_stored(shelf, images, *base, files)
            }
            Archive::Save { images, flavour, base } => {
                self.make_save(shelf, images, *flavour, *base)
            }
            Archive::Image(id) => {
                let loaded = shelf.image(*id)?;
                let stack = Stack::new(self.layer_dirs(&loaded.image.layers)?);
                let export = export::export(&stack, &self.style(shelf, &stack))?;
                self.note_omitted(&export);
                Ok(Made::sealed(export.recipe, loaded.config.mtime()))
            }
            Archive::Blob(digest, id) => {
                let blob = shelf.store.blob(*digest)?;
                let blob = blob.ok_or_else(|| Error::stale(digest.to_string()))?;
                let recipe = Content::part(&blob, self.options.verify)?;
                let mtime = shelf.config(*id)?.mtime();
                Ok(Made { recipe, mtime, stamp: 0, draft: None })
            }
            Archive::Layer(id, index, ..) => {
                let loaded = shelf.image(*id)?;
                let layer = loaded.image.layers.get(*index);
                let layer = layer.ok_or_else(|| Error::not_found(format!("layer {index}")))?;
                let below = &loaded.image.layers[..*index];
                let recipe = self.archives.layers.tar(layer, below)?;
                Ok(Made::sealed(recipe, loaded.config.mtime()))
            }
            Archive::Live(live) => self.make_live(shelf, live, files),
        }
    }

    /// How the engine of a store writes an export of these files.
    pub(super) fn style(&self, shelf: &Shelf, stack: &Stack) -> Style {
        self.style_with(shelf, || Accounts::read(stack))
    }

    /// How the engine of a store writes the headers of an export.
    pub(super) fn style_with(&self, shelf: &Shelf, accounts: impl FnOnce() -> Accounts) -> Style {
        Style::of(shelf.store.info().conventions, self.flavour(shelf), accounts)
    }

    /// The flavour of `save.tar` in a store.
    pub(super) fn flavour(&self, shelf: &Shelf) -> Flavour {
        let own = || Flavour::of(shelf.store.info().conventions);
        self.options.flavour.unwrap_or_else(own)
    }

    /// Leaves a line in `.stratafs/events`, as the engines log an export or a save.
    pub(super) fn note_event(&self, node: &ArchiveNode, bytes: u64, reader: super::Reader) {
        let names = node.shelf.names().ok();
        let (action, ids): (_, Vec<(String, String)>) = match &node.archive {
            Archive::Save { images, .. } => {
                let mut seen = BTreeSet::new();
                let once = images.iter().filter(|(id, _)| seen.insert(*id));
                let named = once.map(|(id, references)| {
                    (id.to_string(), references.first().cloned().unwrap_or_else(|| id.to_string()))
                });
                ("image save", named.collect())
            }
            Archive::Live(Live::Container(moment, Part::Export | Part::Full)) => {
                let id = moment.id;
                let containers = names.as_ref().map(|names| names.containers());
                let found = containers.into_iter().flatten().find(|one| one.id == id);
                let name = found.map(|container| container.name.clone()).unwrap_or_default();
                ("container export", vec![(id.hex(), name)])
            }
            Archive::Live(_) | Archive::Image(_) | Archive::Layer(..) | Archive::Blob(..) => return,
        };
        for (id, name) in ids {
            let line = serde_json::json!({
                "time": journal::now(), "action": action, "id": id, "name": name,
                "bytes": bytes, "uid": reader.uid, "pid": reader.pid,
            });
            self.events.push(&line.to_string());
        }
    }
}

impl Archive {
    /// Moves with all that it hangs on besides its key; `files` is the stamp of those that may be
    /// written to, 0 where it is made of none.
    pub(super) fn version(&self, shelf: &Shelf, files: u64) -> Result<u64> {
        // What was made of a file that is replaced is not to be had from the next one.
        Ok(files ^ shelf.seed()? ^ self.shown(shelf)?)
    }

    /// Moves with the images that it is made of where those go by the ID of something else, such as a
    /// list of manifests, which may come to show another; 0 where they go by their configs' digests.
    fn shown(&self, shelf: &Shelf) -> Result<u64> {
        let ids: Vec<ImageId> = match self {
            Archive::Save { images, base, .. } => {
                images.iter().map(|(id, _)| *id).chain(*base).collect()
            }
            Archive::Image(id) => vec![*id],
            Archive::Layer(..) | Archive::Blob(..) | Archive::Live(_) => Vec::new(),
        };
        let mut shown = 0_u64;
        for id in ids {
            let config = Digest::of(&shelf.config(id)?.bytes);
            let other = if config == id.0 { 0 } else { config.prefix() };
            shown = shown.rotate_left(1) ^ other;
        }
        Ok(shown)
    }

    /// Whether its layers are the ones that the engine once had; `None` for what holds no layers.
    pub(super) fn is_exact(&self, shelf: &Shelf) -> Result<Option<bool>> {
        Ok(match self {
            Archive::Layer(.., is_exact) => Some(*is_exact),
            Archive::Save { images, .. } => {
                let mut all = true;
                for (id, _) in images {
                    all &= shelf.image(*id)?.image.layers.iter().all(is_exact);
                }
                Some(all)
            }
            _ => None,
        })
    }
}

/// A name as one line: what is no text, or would end the line, as `\xe9` and `\n`.
fn escaped(name: &[u8]) -> String {
    let mut line = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter.is_control() || letter == '\\' {
                true => line.extend(letter.escape_default()),
                false => line.push(letter),
            }
        }
        line.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    line
}

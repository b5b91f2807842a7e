//! The tars of the tree: what each is made of, and a bounded cache of their recipes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use lru::LruCache;

use super::names::Names;
use super::node::{ArchiveNode, ImageView, Scope};
use super::shelf::{Loaded, Shelf};
use super::{FRESH, Tree, journal};
use crate::archive::Flavour;
use crate::archive::export::{self, Accounts, Export, Style};
use crate::archive::layer::layer_tar;
use crate::archive::mtime_of;
use crate::archive::save::{self, SavedImage};
use crate::backing::Time;
use crate::digest::{ChainId, ContainerId, ImageId};
use crate::error::{Error, Result};
use crate::overlay::Stack;
use crate::overlay::changes::changes;
use crate::recipe::{Recipe, Verify};
use crate::store::{Container, Conventions, Image, LayerDir, Marks, State};

/// Memory that recipes may take before the least recently used go, in bytes.
const WEIGHT: usize = 256 << 20;

/// What a tar is made of. Equal values give equal bytes, but for a container's.
#[derive(Debug, Clone)]
pub(super) enum Archive {
    /// `save.tar`: the images in order, each with the references that it is saved under.
    /// Layers that the image `base` has as well, from the lowest up, are left out.
    Save { images: Vec<(ImageId, Vec<String>)>, flavour: Flavour, base: Option<ImageId> },
    /// `export.tar` of an image.
    Image(ImageId),
    /// `layer.tar`: of an image, the layer at that place.
    Layer(ImageId, usize, ChainId),
    /// `export.tar` of a container.
    Container(ContainerId),
    /// `diff.tar` of a container.
    Diff(ContainerId),
}

impl Archive {
    /// What its bytes hang on, over mounts: for a layer only the layers, whichever image shows it.
    pub(super) fn key(&self) -> String {
        match self {
            Archive::Layer(_, _, chain) => format!("layer {chain}"),
            _ => format!("{self:?}"),
        }
    }
}

/// A tar at one moment.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub(super) recipe: Arc<Recipe>,
    pub(super) mtime: Time,
    /// Moves with the bytes, where they may change under the same [`Archive`].
    pub(super) stamp: u64,
    made: Instant,
}

/// Recipes that were made, the least recently used first to go.
#[derive(Debug)]
pub(super) struct Archives {
    verify: Verify,
    made: Mutex<Weighed>,
}

#[derive(Debug)]
struct Weighed {
    /// By store, and [`Archive::key`].
    cache: LruCache<(String, String), Made>,
    weight: usize,
}

impl Archives {
    pub(super) fn new(verify: Verify) -> Archives {
        let made = Weighed { cache: LruCache::unbounded(), weight: 0 };
        Archives { verify, made: Mutex::new(made) }
    }

    fn get(&self, key: &(String, String)) -> Option<Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).cache.get(key).cloned()
    }

    fn put(&self, key: (String, String), made: Made) {
        let mut all = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        all.weight += made.recipe.weight();
        if let Some((_, old)) = all.cache.push(key, made) {
            all.weight -= old.recipe.weight();
        }
        while all.weight > WEIGHT && all.cache.len() > 1 {
            if let Some((_, old)) = all.cache.pop_lru() {
                all.weight -= old.recipe.weight();
            }
        }
    }
}

impl Tree {
    /// The bytes of a tar that was looked up.
    pub(super) fn recipe(&self, node: &ArchiveNode) -> Result<Arc<Recipe>> {
        if let Some(recipe) = node.recent() {
            return Ok(recipe);
        }
        let recipe = self.made(&node.shelf, &node.archive)?.recipe;
        node.remember(&recipe);
        Ok(recipe)
    }

    /// A tar as it is now; one of a container is at most [`FRESH`] old.
    pub(super) fn made(&self, shelf: &Arc<Shelf>, archive: &Archive) -> Result<Made> {
        let key = (shelf.name.clone(), archive.key());
        let is_live = matches!(archive, Archive::Container(_) | Archive::Diff(_));
        let kept = self.archives.get(&key).filter(|made| !is_live || made.made.elapsed() < FRESH);
        let made = match kept {
            Some(made) => made,
            None => {
                let made = self.make(shelf, archive)?;
                self.archives.put(key, made.clone());
                made
            }
        };
        match archive {
            // Images share a layer's bytes, but not their time.
            Archive::Layer(id, ..) => Ok(Made { mtime: shelf.config(*id)?.mtime(), ..made }),
            _ => Ok(made),
        }
    }

    fn make(&self, shelf: &Arc<Shelf>, archive: &Archive) -> Result<Made> {
        match archive {
            Archive::Save { images, flavour, base } => {
                self.make_save(shelf, images, *flavour, *base)
            }
            Archive::Image(id) => {
                let loaded = shelf.image(*id)?;
                let stack = Stack::new(layer_dirs(&loaded.image.layers));
                let export = export::export(&stack, &self.style(shelf, &stack))?;
                let mtime = loaded.config.mtime();
                Ok(self.made_of(export, Some(mtime)))
            }
            Archive::Layer(id, index, _) => {
                let loaded = shelf.image(*id)?;
                let layer = loaded.image.layers.get(*index);
                let layer = layer.ok_or_else(|| Error::not_found(format!("layer {index}")))?;
                let recipe = Arc::new(layer_tar(layer, self.archives.verify)?);
                Ok(Made { recipe, mtime: loaded.config.mtime(), stamp: 0, made: Instant::now() })
            }
            Archive::Container(id) => {
                let container = exportable(shelf.container(*id)?)?;
                let stack = Stack::new(container.dirs);
                Ok(self.made_of(export::export(&stack, &self.style(shelf, &stack))?, None))
            }
            Archive::Diff(id) => self.make_diff(shelf, exportable(shelf.container(*id)?)?),
        }
    }

    fn make_save(
        &self,
        shelf: &Arc<Shelf>,
        images: &[(ImageId, Vec<String>)],
        flavour: Flavour,
        base: Option<ImageId>,
    ) -> Result<Made> {
        let base = base.map(|base| shelf.image(base)).transpose()?;
        self.with_images(shelf, images, base.as_deref(), |images| {
            let created = images.iter().map(|image| mtime_of(image.config.created.as_ref()));
            let mtime = created.max().unwrap_or_default();
            let recipe = Arc::new(save::save(images, flavour)?);
            Ok(Made { recipe, mtime, stamp: 0, made: Instant::now() })
        })
    }

    /// Calls `make` with the images and the tars of their layers, without those that `base` has.
    pub(super) fn with_images<T>(
        &self,
        shelf: &Arc<Shelf>,
        images: &[(ImageId, Vec<String>)],
        base: Option<&Loaded>,
        make: impl FnOnce(&[SavedImage<'_>]) -> Result<T>,
    ) -> Result<T> {
        let mut loaded = Vec::new();
        for (id, references) in images {
            let image = shelf.image(*id)?;
            let mut layers = Vec::new();
            for (index, layer) in image.image.layers.iter().enumerate() {
                let archive = Archive::Layer(*id, index, layer.chain_id);
                layers.push(self.made(shelf, &archive)?.recipe);
            }
            loaded.push((image, references, layers));
        }
        let saved = loaded.iter().map(|(loaded, references, layers)| SavedImage {
            image: &loaded.image,
            config: &loaded.config.parsed,
            references,
            layers,
            omitted: base.map_or(0, |base| shared_layers(&loaded.image, &base.image)),
        });
        make(&saved.collect::<Vec<_>>())
    }

    fn make_diff(&self, shelf: &Shelf, container: Container) -> Result<Made> {
        let Some(own) = container.dirs.first() else {
            return Err(Error::corrupt(&*container.name, "no writable layer"));
        };
        // The names in a diff are the host's, which no store tells: only root is known.
        let style = self.style_with(shelf, Accounts::root_only);
        let prefix = match own.marks {
            Marks::Trusted => "trusted.overlay.",
            Marks::User => "user.overlay.",
            Marks::Complete => {
                let new = Stack::new(container.dirs.clone());
                let old = Stack::new(container.init_dirs);
                let changes = changes(&new, &old, self.comparison())?;
                return Ok(self.made_of(export::naive_diff(&new, &changes, &style)?, None));
            }
        };
        let raw = Stack::new(vec![LayerDir { marks: Marks::Complete, ..own.clone() }]);
        let below = Stack::new(container.init_dirs);
        Ok(self.made_of(export::native_diff(&raw, &below, prefix, &style)?, None))
    }

    fn made_of(&self, export: Export, mtime: Option<Time>) -> Made {
        for path in &export.omitted {
            tracing::debug!("{}: left out of the archive, as Docker does", path.display());
        }
        let stamp = if mtime.is_some() { 0 } else { export.stamp };
        let mtime = mtime.unwrap_or(Time { nanos: 0, ..export.newest });
        Made { recipe: Arc::new(export.recipe), mtime, stamp, made: Instant::now() }
    }

    fn style(&self, shelf: &Shelf, stack: &Stack) -> Style {
        self.style_with(shelf, || Accounts::read(stack))
    }

    /// How the engine of a store writes the headers of an export.
    fn style_with(&self, shelf: &Shelf, accounts: impl FnOnce() -> Accounts) -> Style {
        match (shelf.store.info().conventions, self.flavour(shelf)) {
            (Conventions::Podman, _) => Style::Podman,
            (Conventions::Docker, Flavour::Docker110) => Style::Typed(accounts()),
            (Conventions::Docker | Conventions::Containerd, _) => Style::Plain,
        }
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
                let named = images.iter().map(|(id, references)| {
                    (id.to_string(), references.first().cloned().unwrap_or_else(|| id.to_string()))
                });
                ("image save", named.collect())
            }
            Archive::Container(id) => {
                let containers = names.as_ref().map(|names| names.containers());
                let found = containers.into_iter().flatten().find(|one| one.id == *id);
                let name = found.map(|container| container.name.clone()).unwrap_or_default();
                ("container export", vec![(id.hex(), name)])
            }
            Archive::Image(_) | Archive::Layer(..) | Archive::Diff(_) => return,
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

impl ImageView {
    /// What `save.tar` holds under this name.
    pub(super) fn saved(&self) -> Result<Vec<(ImageId, Vec<String>)>> {
        let mut images = Vec::new();
        add_saved(&*self.shelf.names()?, self.id, &self.scope, &mut images);
        Ok(images)
    }
}

/// Adds what one name of a request stands for: a repository for its references in order; an image
/// takes the place of the first that names it.
pub(super) fn add_saved(
    names: &Names,
    id: ImageId,
    scope: &Scope,
    images: &mut Vec<(ImageId, Vec<String>)>,
) {
    let mut add = |id: ImageId, tag: Option<&str>| {
        let at = images.iter().position(|(known, _)| *known == id).unwrap_or_else(|| {
            images.push((id, Vec::new()));
            images.len() - 1
        });
        let tags = &mut images[at].1;
        if let Some(tag) = tag.filter(|tag| !tags.iter().any(|known| known == tag)) {
            tags.push(tag.to_owned());
        }
    };
    match scope {
        Scope::Id => add(id, None),
        // A digest adds the image, but no tag.
        Scope::Reference(text) => add(id, Some(text.as_str()).filter(|text| !text.contains('@'))),
        Scope::Repository(repository) => {
            for (reference, text, id) in names.references(repository) {
                add(*id, reference.tag.as_ref().map(|_| text.as_str()));
            }
        }
    }
}

/// How many layers of `image`, from the lowest up, `base` has in the same place: what a loader does
/// not look for where it has the base.
pub(super) fn shared_layers(image: &Image, base: &Image) -> usize {
    let pairs = image.layers.iter().zip(&base.layers);
    pairs.take_while(|(one, other)| one.chain_id == other.chain_id).count()
}

/// The directories of an image's layers as they are merged, topmost first.
pub(super) fn layer_dirs(layers: &[crate::store::Layer]) -> Vec<LayerDir> {
    layers.last().map_or_else(Vec::new, |top| top.dirs.clone())
}

/// Refuses what an engine refuses to export.
fn exportable(container: Container) -> Result<Container> {
    match container.state {
        State::Dead => Err(Error::busy(
            format!("container {}", container.name),
            format!("You cannot export container {} which is Dead", container.id.hex()),
        )),
        State::Removing => Err(Error::busy(
            format!("container {}", container.name),
            format!("You cannot export container {} which is being removed", container.id.hex()),
        )),
        _ => Ok(container),
    }
}

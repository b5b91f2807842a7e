//! One store as the tree sees it: its names, read again when it changed, and the images that were
//! looked at last.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::CHECKED;
use super::journal::Journal;
use super::names::{Filter, Names};
use super::recent::Recent;
use super::watch::Watcher;
use crate::archive::mtime_of;
use crate::backing::Time;
use crate::digest::{ContainerId, Digest, ImageId};
use crate::error::{Error, Result};
use crate::metrics::{Counter, Usage};
use crate::oci::ImageConfig;
use crate::store::{Container, Generation, Image, Layer, LayerStore};
use crate::weighed::Weigh;

/// Memory that parsed configs may take before the least recently used go, in bytes.
const CONFIGS: usize = 24 << 20;

/// How much longer than its text a config is, parsed.
const PARSED: usize = 4;

/// The same for images with their layers: at most some 4,000 of those are held open.
const IMAGES: usize = 16 << 20;

/// What the open directory of a layer counts for, in bytes: the kernel's part of it, and one of the
/// descriptors that there are.
const OPEN: usize = 4 << 10;

/// How long the answer that a store did not change is relied on where nothing was heard of it: what
/// is mounted over one of its directories makes no sound.
const QUIET: Duration = Duration::from_secs(10);

/// A config as stored, and parsed.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) bytes: Arc<[u8]>,
    pub(super) parsed: ImageConfig,
}

/// An image with its layers, and its config.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) image: Image,
    pub(super) config: Arc<Config>,
}

impl Config {
    /// Whether `id` is its digest; else it is that of an index or a manifest.
    pub(super) fn is_named_by(&self, id: ImageId) -> bool {
        Digest::of(&self.bytes) == id.0
    }

    /// The mtime of what stands for the image.
    pub(super) fn mtime(&self) -> Time {
        mtime_of(self.parsed.created.as_ref())
    }
}

impl Weigh for Arc<Config> {
    fn weight(&self) -> usize {
        size_of::<Config>() + self.bytes.len() * (1 + PARSED)
    }
}

impl Weigh for Arc<Loaded> {
    /// Beside its config.
    fn weight(&self) -> usize {
        let layer = |layer: &Layer| OPEN + size_of_val(layer) + size_of_val(&*layer.dirs);
        let layers: usize = self.image.layers.iter().map(layer).sum();
        let descriptions: usize =
            self.image.descriptions.iter().map(|described| described.json.len()).sum();
        size_of::<Loaded>() + layers + descriptions
    }
}

#[derive(Debug)]
pub(super) struct Shelf {
    /// The first part of its paths, where the mount has several stores.
    pub(super) name: String,
    pub(super) store: Arc<dyn LayerStore>,
    filter: Filter,
    watcher: OnceLock<Watcher>,
    current: Mutex<Option<Current>>,
    /// Whether it was read since somebody asked.
    is_news: AtomicBool,
    configs: Recent<ImageId, Arc<Config>>,
    images: Recent<ImageId, Arc<Loaded>>,
    /// How often the store was read.
    catalogs: Counter,
    errors: Arc<Journal>,
}

#[derive(Debug, Clone)]
struct Current {
    names: Arc<Names>,
    generation: Generation,
    checked: Instant,
    /// Device and inode number of what is at the store's path.
    place: Option<(u64, u64)>,
}

impl Shelf {
    pub(super) fn new(
        name: String,
        store: Arc<dyn LayerStore>,
        filter: Filter,
        errors: Arc<Journal>,
    ) -> Shelf {
        let configs = Recent::new(CONFIGS);
        let images = Recent::new(IMAGES);
        let (watcher, current) = (OnceLock::new(), Mutex::new(None));
        let (is_news, catalogs) = (AtomicBool::new(false), Counter::default());
        Shelf { name, store, filter, watcher, current, is_news, configs, images, catalogs, errors }
    }

    /// Listens from now on to what happens to the store, where a thread can be had for it.
    pub(super) fn watch(&self) {
        match Watcher::start(Arc::clone(&self.store)) {
            Ok(watcher) => drop(self.watcher.set(watcher)), // a second one ends at once
            Err(err) => self.errors.report(&err),
        }
    }

    /// The namespace that it is, where its engine has any.
    pub(super) fn namespace(&self) -> Option<&str> {
        self.store.info().namespace.as_deref()
    }

    /// What the store holds, at most [`CHECKED`] old, or older where nothing has happened since.
    ///
    /// # Errors
    /// Fails when the store can't be read.
    pub(super) fn names(&self) -> Result<Arc<Names>> {
        let last = lock(&self.current).clone();
        if let Some(last) = &last
            && self.is_current(last)
        {
            return Ok(Arc::clone(&last.names));
        }
        let (checked, place) = (Instant::now(), self.place());
        let generation = self.store.generation()?;
        if let Some(last) = &last
            && last.generation == generation
        {
            *lock(&self.current) = Some(Current { checked, place, ..last.clone() });
            return Ok(Arc::clone(&last.names));
        }
        self.catalogs.add(1);
        let catalog = self.store.catalog()?;
        self.report_damage(last.as_ref(), &catalog.damaged);
        let names = Arc::new(Names::new(catalog, &self.filter));
        let current = Current { names: Arc::clone(&names), generation, checked, place };
        *lock(&self.current) = Some(current);
        self.configs.clear();
        self.images.clear();
        self.is_news.store(true, Ordering::Release);
        Ok(names)
    }

    /// Whether the store was read anew since this was asked last.
    pub(super) fn take_news(&self) -> bool {
        self.is_news.load(Ordering::Relaxed) && self.is_news.swap(false, Ordering::AcqRel)
    }

    /// Whether what was read last still tells the truth.
    fn is_current(&self, last: &Current) -> bool {
        let age = last.checked.elapsed();
        let is_quiet =
            || self.watcher.get().is_some_and(|watcher| watcher.is_quiet_since(last.checked));
        age < CHECKED || (age < QUIET && is_quiet() && last.place == self.place())
    }

    fn place(&self) -> Option<(u64, u64)> {
        let stat = rustix::fs::stat(&self.store.info().path).ok()?;
        Some((stat.st_dev, stat.st_ino))
    }

    /// What the files and archives of an image hang on besides its ID: 0 but for a store that may be
    /// replaced, whose generation it is.
    ///
    /// # Errors
    /// Fails when the store can't be read.
    pub(super) fn seed(&self) -> Result<u64> {
        if !self.store.is_replaceable() {
            return Ok(0);
        }
        self.names()?;
        Ok(self.generation().map_or(0, |generation| generation.0))
    }

    /// The generation that was seen last.
    fn generation(&self) -> Option<Generation> {
        lock(&self.current).as_ref().map(|current| current.generation)
    }

    /// Forgets what is known, so that the next look reads the store again.
    pub(super) fn refresh(&self) {
        *lock(&self.current) = None;
    }

    /// The config of an image. Looks at no layer.
    ///
    /// # Errors
    /// Fails as the store does, and when the config makes no sense.
    pub(super) fn config(&self, id: ImageId) -> Result<Arc<Config>> {
        if let Some(config) = self.configs.get(&id) {
            return Ok(config);
        }
        let bytes = self.store.config(id)?;
        let parsed =
            ImageConfig::parse(&bytes).map_err(|why| Error::corrupt(format!("image {id}"), why))?;
        let config = Arc::new(Config { bytes, parsed });
        self.configs.put(id, Arc::clone(&config));
        Ok(config)
    }

    /// An image with its layers.
    ///
    /// # Errors
    /// Fails as the store does, and when the config makes no sense.
    pub(super) fn image(&self, id: ImageId) -> Result<Arc<Loaded>> {
        if let Some(loaded) = self.images.get(&id) {
            return Ok(loaded);
        }
        let config = self.config(id)?;
        let before = self.generation();
        let mut image = self.store.image(id)?;
        if image.config == config.bytes {
            image.config = Arc::clone(&config.bytes); // once is enough
        }
        let loaded = Arc::new(Loaded { image, config });
        // What was forgotten meanwhile must not come back.
        self.images.put_if(id, Arc::clone(&loaded), || self.generation() == before);
        Ok(loaded)
    }

    /// How often the store was read.
    pub(super) fn catalogs(&self) -> u64 {
        self.catalogs.value()
    }

    /// Of images, and of their configs.
    pub(super) fn usage(&self) -> (Usage, Usage) {
        (self.images.usage(), self.configs.usage())
    }

    /// A container as it is now.
    ///
    /// # Errors
    /// Fails as the store does.
    pub(super) fn container(&self, id: ContainerId) -> Result<Container> {
        self.store.container(id)
    }

    /// Notes what is damaged and was not before.
    fn report_damage(&self, last: Option<&Current>, damaged: &[Arc<Error>]) {
        let known: Vec<String> = last
            .map_or_else(Vec::new, |last| last.names.damaged().map(ToString::to_string).collect());
        for err in damaged.iter().filter(|err| !known.contains(&err.to_string())) {
            self.errors.report(err);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

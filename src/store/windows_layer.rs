//! A Windows layer, as an exported directory or as its tar, with those below it: a store with one
//! image.
//!
//! Nothing on disk says which digest a layer's tar has, so each layer is read through once, when
//! somebody first looks, and again when the tar or one of the topmost directories has changed, or a
//! file turned out not to be as it was.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::statvfs;

use super::stamp::{Stamp, Taking};
use super::{
    Catalog, Container, Conventions, Generation, GraphDriver, Image, LayerDir, LayerStore,
    OpenError, StoreInfo, Usage,
};
use crate::backing::{Access, Root};
use crate::cache::Cache;
use crate::digest::{ContainerId, ImageId};
use crate::error::{Error, Result};
use crate::windows::reader::TOP;
use crate::windows::tombstones;

mod image;
mod layer;

/// Between the paths of a source: the layer first, then its parents, each upon the next.
const SEPARATOR: &str = ",";

/// Layers that lie upon each other.
#[derive(Debug)]
pub struct WindowsLayer {
    info: StoreInfo,
    /// Lowest first.
    layers: Vec<Place>,
    /// The name of the image.
    reference: String,
    /// Tars that are compressed inflate to there.
    cache: Arc<Cache>,
    shown: Mutex<Option<Arc<Shown>>>,
}

/// Where a layer is.
#[derive(Debug)]
enum Place {
    /// In a directory, exported.
    Directory(Arc<Root>),
    /// In a tar: the directory that holds it, and its name there.
    Tar(Arc<Root>, PathBuf),
}

impl Place {
    /// Opens what is at `path`.
    fn open(path: &Path) -> Result<Place, OpenError> {
        let failed = |err| OpenError::from_error(path, err);
        let parent = path.parent().zip(path.file_name());
        if let Some((parent, name)) = parent.filter(|_| path.is_file()) {
            let root = Root::open_resolved(parent, Access::Sealed).map_err(failed)?;
            return Ok(Place::Tar(Arc::new(root), name.into()));
        }
        let root = Root::open_resolved(path, Access::Sealed).map_err(failed)?;
        let is_layer = root.stat(tombstones::NAME).is_ok()
            || root.stat(TOP[0]).is_ok_and(|files| files.is_dir());
        match is_layer {
            true => Ok(Place::Directory(Arc::new(root))),
            false => {
                let looked_for = "tombstones.txt or Files";
                Err(OpenError::NotAStore { path: path.to_owned(), looked_for })
            }
        }
    }

    fn add_to(&self, stamp: &mut Taking) {
        match self {
            Place::Tar(root, name) => stamp.add(root.stat(name)),
            Place::Directory(root) => {
                stamp.add(root.stat(""));
                for name in TOP.into_iter().chain([tombstones::NAME]) {
                    stamp.add(root.stat(name));
                }
            }
        }
    }
}

/// What the layers held when they were read.
#[derive(Debug)]
struct Shown {
    files: u64,
    /// A file deep in one of them is not as it was.
    is_stale: Arc<AtomicBool>,
    image: Result<Image>,
}

impl Shown {
    fn is_stale(&self) -> bool {
        self.is_stale.load(Ordering::Relaxed)
    }
}

impl WindowsLayer {
    /// The paths that `text`, `LAYER[,PARENT...]`, names.
    #[must_use]
    pub fn paths(text: &Path) -> Vec<PathBuf> {
        match text.to_str() {
            Some(text) => text.split(SEPARATOR).map(PathBuf::from).collect(),
            None => vec![text.to_owned()],
        }
    }

    /// The inverse of [`WindowsLayer::paths`].
    #[must_use]
    pub fn joined(paths: &[PathBuf]) -> PathBuf {
        let paths: Vec<_> = paths.iter().map(|path| path.as_os_str()).collect();
        paths.join(OsStr::new(SEPARATOR)).into()
    }

    /// True where `path` is the directory of an exported layer.
    #[must_use]
    pub fn is_at(path: &Path) -> bool {
        path.join(tombstones::NAME).is_file() && path.join(TOP[0]).is_dir()
    }

    /// Opens the layer, and those below it, that `text` names. No file of them is read yet.
    ///
    /// # Errors
    /// Fails where one of them is missing, may not be read, or is no layer.
    pub fn open(text: &Path, cache: &Arc<Cache>) -> Result<WindowsLayer, OpenError> {
        let paths = WindowsLayer::paths(text);
        let layers = paths.iter().rev().map(|path| Place::open(path)).collect::<Result<_, _>>()?;
        let path = paths.into_iter().next().unwrap_or_default();
        let info = StoreInfo {
            kind: "windows-layer",
            driver: "windowsfilter",
            path: path.clone(),
            namespace: None,
            conventions: Conventions::Docker,
        };
        let reference = image::reference(&path);
        let (cache, shown) = (Arc::clone(cache), Mutex::new(None));
        Ok(WindowsLayer { info, layers, reference, cache, shown })
    }

    fn stamp(&self) -> Stamp {
        let mut stamp = Taking::default();
        self.layers.iter().for_each(|layer| layer.add_to(&mut stamp));
        stamp.finish()
    }

    /// What the layers hold now. Of many that ask, one reads them, and the others wait.
    fn shown(&self) -> Arc<Shown> {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let files = self.stamp().files;
        if let Some(known) = &*shown {
            if known.files == files && !known.is_stale() {
                return Arc::clone(known);
            }
            known.is_stale.store(true, Ordering::Relaxed);
        }
        let is_stale = Arc::default();
        let image = image::read(&self.layers, &self.reference, &self.cache, &is_stale);
        Arc::clone(shown.insert(Arc::new(Shown { files, is_stale, image })))
    }

    fn find(&self, id: ImageId) -> Result<Image> {
        match &self.shown().image {
            Ok(image) if image.id == id => Ok(image.clone()),
            Ok(_) => Err(Error::not_found(id.to_string())),
            Err(err) => Err(err.again()),
        }
    }
}

impl LayerStore for WindowsLayer {
    fn info(&self) -> &StoreInfo {
        &self.info
    }

    fn generation(&self) -> Result<Generation> {
        let Generation(files) = self.stamp().generation();
        // While somebody reads the layers, there is nothing that could be stale.
        let is_stale = match self.shown.try_lock() {
            Ok(shown) => shown.as_ref().is_some_and(|shown| shown.is_stale()),
            Err(_) => false,
        };
        Ok(Generation(files ^ u64::from(is_stale) << 1))
    }

    fn catalog(&self) -> Result<Catalog> {
        let mut catalog = Catalog::default();
        match &self.shown().image {
            Ok(image) => {
                catalog.images.insert(image.id, None);
                catalog.references.insert(self.reference.clone(), image.id);
            }
            Err(err) => catalog.damaged.push(Arc::new(err.again())),
        }
        Ok(catalog)
    }

    fn config(&self, id: ImageId) -> Result<Arc<[u8]>> {
        self.find(id).map(|image| image.config)
    }

    fn image(&self, id: ImageId) -> Result<Image> {
        self.find(id)
    }

    fn container(&self, id: ContainerId) -> Result<Container> {
        Err(Error::not_found(id.hex()))
    }

    fn graph_driver(&self, _: &[LayerDir]) -> GraphDriver {
        GraphDriver { name: self.info.driver.into(), directories: None }
    }

    fn usage(&self) -> Result<Usage> {
        let path = &self.info.path;
        let space = statvfs(path).map_err(|err| Error::io(path, err))?;
        let used = match &self.shown().image {
            Ok(image) => image.layers.iter().map(|layer| layer.size).sum(),
            Err(_) => 0,
        };
        Ok(Usage { total: space.f_blocks.saturating_mul(space.f_frsize), used })
    }
}

//! Docker's data root, with one of its graph drivers.
//!
//! What is difficult, and what answers it:
//! 1. Names in the files may be anything: each is parsed into a type ([`crate::digest`], `DirId`)
//!    before it becomes part of a path, and every open stays beneath a [`crate::backing::Root`].
//! 2. The engine writes meanwhile, without a lock that we could take: a catalog is read again
//!    where the store moved meanwhile ([`LayerStore::generation`]).
//! 3. The data root may be unmounted or replaced: it is opened anew for each question, and what
//!    was kept counts only while it still is the same directory.
//! 4. Images share layers: their directories are open once for all (`OpenLayers`).
//! 5. To 1.9 images were something else ([`Era`]): `graph` reads those.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use self::records::Era;
use self::roots::Roots;
use crate::backing::{Access, Root, Watched};
use crate::digest::{ContainerId, ImageId};
use crate::error::Result;
use crate::store::driver::{DirId, Driver, Home, OpenLayers, OwnersOf, Place};
use crate::store::{
    Catalog, Container, Generation, GraphDriver, Image, LayerDir, LayerStore, Owners, StoreInfo,
    Usage, Volume, volumes,
};

mod catalog;
mod container;
pub(super) mod containers;
mod graph;
mod hints;
mod image;
mod named;
mod open;
pub(super) mod records;
mod roots;
#[cfg(test)]
mod tests;
mod usage;

/// How often a catalog is read again while the engine writes.
const TRIES: usize = 8;

/// A Docker data root.
#[derive(Debug)]
pub struct Docker {
    info: StoreInfo,
    /// The data root, as an absolute path.
    location: PathBuf,
    era: Era,
    driver: Driver,
    /// How owners are told on its disk.
    owners: Option<Arc<Owners>>,
    roots: Mutex<Arc<Roots>>,
    layers: OpenLayers,
}

impl Docker {
    /// The data root as it is now: opened anew, and exchanged if it is another.
    fn roots(&self) -> Result<Arc<Roots>> {
        let fresh = Roots::open(&self.location, self.era, self.driver)?;
        let mut roots = self.roots.lock().unwrap_or_else(PoisonError::into_inner);
        if !roots.is_same(&fresh) {
            *roots = Arc::new(fresh);
        }
        Ok(roots.clone())
    }

    fn home<'a>(&'a self, roots: &'a Roots, owners: &'a OwnersOf<'a>) -> Result<Home<'a>> {
        let place = Place { roots: vec![roots.home()?], seed: 0, owners };
        Ok(Home::new(self.driver, place, &self.layers))
    }
}

impl LayerStore for Docker {
    fn info(&self) -> &StoreInfo {
        &self.info
    }

    fn generation(&self) -> Result<Generation> {
        Ok(catalog::stamp(&*self.roots()?)?.generation())
    }

    fn watched(&self) -> Result<Vec<Watched>> {
        let data = Root::open_resolved(&self.location, Access::Live)?;
        let mut watched = vec![Watched::Names(data.dir("")?), Watched::Names(data.dir("image")?)];
        watched.extend(catalog::watched(&*self.roots()?)?);
        Ok(watched)
    }

    fn catalog(&self) -> Result<Catalog> {
        let roots = self.roots()?;
        let mut before = catalog::stamp(&roots)?;
        let mut tries = 1;
        loop {
            let catalog = catalog::read(&roots, self.driver)?;
            let after = catalog::stamp(&roots)?;
            if after.files == before.files || tries == TRIES {
                return Ok(catalog);
            }
            before = after;
            tries += 1;
        }
    }

    fn config(&self, id: ImageId) -> Result<Arc<[u8]>> {
        let roots = self.roots()?;
        let config = match self.era {
            Era::Graph => graph::config(&roots.image, id),
            Era::Content => image::config(&roots.image, id),
        };
        Ok(config?.into())
    }

    fn image(&self, id: ImageId) -> Result<Image> {
        let roots = self.roots()?;
        let owners = |_: &DirId| self.owners.clone();
        let mut home = self.home(&roots, &owners)?;
        match self.era {
            Era::Graph => graph::image(&roots, &mut home, id),
            Era::Content => image::read(&roots, &mut home, id),
        }
    }

    fn container(&self, id: ContainerId) -> Result<Container> {
        let roots = self.roots()?;
        let owners = |_: &DirId| self.owners.clone();
        let mut home = self.home(&roots, &owners)?;
        container::read(&roots, &mut home, self.driver, id)
    }

    fn volume(&self, name: &str) -> Result<Volume> {
        volumes::read(self.roots()?.volumes.as_ref(), name, self.owners.clone())
    }

    fn graph_driver(&self, dirs: &[LayerDir]) -> GraphDriver {
        self.driver.describe(dirs)
    }

    fn version_hints(&self) -> Vec<String> {
        self.roots().map_or_else(|_| Vec::new(), |roots| hints::read(&roots))
    }

    fn usage(&self) -> Result<Usage> {
        usage::read(&*self.roots()?)
    }
}

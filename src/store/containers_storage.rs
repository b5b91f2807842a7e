//! The store of Podman, Buildah and CRI-O (github.com/containers/storage), with one of the drivers
//! `overlay` and `vfs`.
//!
//! What is difficult, and what answers it:
//! 1. Names in the files may be anything: each is parsed into a type before it becomes part of a
//!    path, one entry of a list apart from the others ([`records`]).
//! 2. Lists are replaced whole, by a rename, so each is read as it was at one moment and no lock is
//!    waited for; where two were read at different moments, the question is asked again.
//! 3. Parents stand in one list and again in each layer's directory: both must agree, and a walk
//!    up ends ([`Layers`]).
//! 4. What a container is doing stands in a database of the engine, which may be locked, half
//!    written or damaged: it adds to what is known and never takes away ([`Libpod`]).
//! 5. Directories of layers are named by content, so that two stores of a host have the same
//!    names: the store's path tells their inode numbers apart.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::layers::Layers;
use self::libpod::Libpod;
use self::roots::Roots;
use crate::backing::{Access, Root, Watched};
use crate::digest::{ContainerId, ImageId};
use crate::error::{Error, Result};
use crate::store::driver::{DirId, Driver, Home, OpenLayers, Place};
use crate::store::stamp::Taking;
use crate::store::{
    Catalog, Container, Generation, GraphDriver, Image, LayerDir, LayerStore, Owners, StoreInfo,
    Usage, Volume, volumes,
};

mod catalog;
mod container;
mod hints;
mod image;
mod layers;
mod libpod;
mod lists;
mod mounts;
mod open;
mod records;
mod roots;
pub(super) mod settings;
mod sqlite;
#[cfg(test)]
mod tests;

/// How often something is read again while the engine writes.
const TRIES: usize = 8;

/// A store of containers/storage.
#[derive(Debug)]
pub struct ContainersStorage {
    info: StoreInfo,
    /// Its directory, as an absolute path.
    location: PathBuf,
    driver: Driver,
    /// Stores in which its engine finds more images.
    additional: Vec<PathBuf>,
    /// How owners are told on its disk.
    owners: Owners,
    roots: Mutex<Arc<Roots>>,
    /// The list of layers that was read last, and the stamp it had.
    layers: Mutex<Option<(u64, Arc<Layers>)>>,
    /// What the engine's database said when it was last read, and the stamp it had.
    libpod: Mutex<Option<(u64, Arc<Libpod>)>>,
    open: OpenLayers,
}

impl ContainersStorage {
    /// The store as it is now: opened anew, and exchanged if it is another.
    fn roots(&self) -> Result<Arc<Roots>> {
        let fresh = Roots::open(&self.location, &self.additional, self.driver)?;
        let mut roots = lock(&self.roots);
        if !roots.is_same(&fresh) {
            *roots = Arc::new(fresh);
        }
        Ok(roots.clone())
    }

    fn layers(&self, roots: &Roots) -> Result<Arc<Layers>> {
        let stamp = layers::stamp(roots).files;
        if let Some((known, layers)) = &*lock(&self.layers)
            && *known == stamp
        {
            return Ok(Arc::clone(layers));
        }
        let layers = Arc::new(Layers::read(roots, &self.owners)?);
        *lock(&self.layers) = Some((stamp, Arc::clone(&layers)));
        Ok(layers)
    }

    /// What the engine's database says, and why it could not be read anew: then it is what it said
    /// before, or nothing.
    fn libpod(&self, roots: &Roots) -> (Arc<Libpod>, Option<Error>) {
        let stamp = libpod::stamp(&roots.store).files;
        let known = lock(&self.libpod).clone();
        match known {
            Some((then, libpod)) if then == stamp => return (libpod, None),
            _ => {}
        }
        match Libpod::read(&roots.store) {
            Ok(libpod) => {
                let libpod = Arc::new(libpod);
                *lock(&self.libpod) = Some((stamp, Arc::clone(&libpod)));
                (libpod, None)
            }
            Err(err) => (known.map(|(_, libpod)| libpod).unwrap_or_default(), Some(err)),
        }
    }

    /// What owners are called in a container that has the engine's own IDs.
    fn owners(&self) -> Option<Arc<Owners>> {
        (!self.owners.is_plain()).then(|| Arc::new(self.owners.clone()))
    }

    /// What `read` makes of the store, read again where it fails while the engine writes.
    fn steadily<T>(&self, read: impl Fn(&Roots, &Layers, &mut Home<'_>) -> Result<T>) -> Result<T> {
        let roots = self.roots()?;
        let mut before = catalog::stamp(&roots).files;
        for _ in 1..TRIES {
            let answer = self.read_once(&roots, &read);
            let after = catalog::stamp(&roots).files;
            if answer.is_ok() || after == before {
                return answer;
            }
            before = after;
        }
        self.read_once(&roots, &read)
    }

    fn read_once<T>(
        &self,
        roots: &Roots,
        read: &impl Fn(&Roots, &Layers, &mut Home<'_>) -> Result<T>,
    ) -> Result<T> {
        let layers = self.layers(roots)?;
        let owners = |id: &DirId| layers.owners(id);
        let place = Place { roots: roots.homes()?, seed: roots.seed(), owners: &owners };
        let mut home = Home::new(self.driver, place, &self.open);
        read(roots, &layers, &mut home)
    }
}

impl LayerStore for ContainersStorage {
    fn info(&self) -> &StoreInfo {
        &self.info
    }

    fn generation(&self) -> Result<Generation> {
        let roots = self.roots()?;
        let mut taking = Taking::default();
        taking.merge(catalog::stamp(&roots));
        taking.merge(libpod::stamp(&roots.store));
        Ok(taking.finish().generation())
    }

    fn watched(&self) -> Result<Vec<Watched>> {
        let roots = self.roots()?;
        let parts = roots.parts.iter().flat_map(|part| [&part.images, &*part.layers]);
        let mut watched = Vec::new();
        for root in parts.chain(roots.containers.as_ref()).chain([&roots.store]) {
            watched.push(Watched::Writes(root.dir("")?));
        }
        watched.extend(libpod::watched(&roots.store)?);
        watched.extend(volumes::watched(roots.volumes.as_ref())?);
        Ok(watched)
    }

    fn catalog(&self) -> Result<Catalog> {
        let roots = self.roots()?;
        let mut before = catalog::stamp(&roots);
        let mut tries = 1;
        loop {
            let (libpod, damage) = self.libpod(&roots);
            let mut catalog = catalog::read(&roots, &libpod);
            catalog.damaged.extend(damage.map(Arc::new));
            let after = catalog::stamp(&roots);
            if after.files == before.files || tries == TRIES {
                return Ok(catalog);
            }
            before = after;
            tries += 1;
        }
    }

    fn config(&self, id: ImageId) -> Result<Arc<[u8]>> {
        let roots = self.roots()?;
        // An image has a file of its config, and a list of manifests none.
        match image::config(&roots, id) {
            Err(err) if !err.is_not_found() => lists::config(&roots, id, err).map(Into::into),
            config => Ok(config?.1.into()),
        }
    }

    fn image(&self, id: ImageId) -> Result<Image> {
        self.steadily(|roots, layers, home| image::read(roots, layers, home, id))
    }

    fn container(&self, id: ContainerId) -> Result<Container> {
        self.steadily(|roots, layers, home| {
            let known = self.libpod(roots).0.container(id).cloned().unwrap_or_default();
            container::read(roots, layers, home, id, &known)
        })
    }

    fn volume(&self, name: &str) -> Result<Volume> {
        volumes::read(self.roots()?.volumes.as_ref(), name, self.owners())
    }

    fn graph_driver(&self, dirs: &[LayerDir]) -> GraphDriver {
        self.driver.describe(dirs)
    }

    fn version_hints(&self) -> Vec<String> {
        Root::open_resolved(&self.location, Access::Live)
            .map_or_else(|_| Vec::new(), |store| hints::read(&store))
    }

    fn usage(&self) -> Result<Usage> {
        let roots = self.roots()?;
        let used = self.layers(&roots)?.size();
        let homes = roots.homes()?;
        let home = homes.first().copied().ok_or_else(|| Error::not_found(self.driver.home()))?;
        let space = rustix::fs::fstatvfs(home).map_err(|err| Error::io(home.path(), err))?;
        Ok(Usage { total: space.f_blocks.saturating_mul(space.f_frsize), used })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

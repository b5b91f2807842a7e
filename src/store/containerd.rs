//! containerd's data root: alone, under Kubernetes, and as Docker's image store.
//!
//! What is difficult, and what answers it:
//! 1. All is recorded in databases that the engine keeps locked and changes meanwhile
//!    ([`crate::bolt`]); there are several, with no common transaction ([`state`]).
//! 2. An image is named by what its name points at, an index of several platforms or a manifest:
//!    [`image`] finds the manifest that counts. Its config and its layers may be missing.
//! 3. The parents of a snapshot are not the layers of an image ([`snapshots`]).
//! 4. Namespaces share the files of blobs and snapshots, but not what is recorded of them: a store
//!    is one namespace.
//! 5. Docker's containers are in files of its own, and only their snapshots are here.

use std::sync::{Arc, Mutex, PoisonError};

use self::roots::{Location, Roots};
use self::state::{Databases, Manner, State};
use crate::backing::Watched;
use crate::digest::{ContainerId, Digest, ImageId};
use crate::error::{Error, Result};
use crate::store::docker::containers;
use crate::store::docker::records::Era;
use crate::store::driver::OpenLayers;
use crate::store::stamp::Taking;
use crate::store::{
    Blob, Catalog, Container, Generation, GraphDriver, Image, LayerDir, LayerStore, Marks,
    StoreInfo, Usage, Volume, volumes,
};

mod catalog;
mod container;
mod image;
mod names;
mod open;
mod records;
mod roots;
mod snapshots;
mod state;
mod usage;

/// A namespace of a data root.
#[derive(Debug)]
pub struct Containerd {
    info: StoreInfo,
    namespace: String,
    location: Location,
    roots: Mutex<Arc<Roots>>,
    databases: Databases,
    layers: OpenLayers,
    manner: Manner,
}

impl Containerd {
    /// The data root as it is now: opened anew, and exchanged if it is another.
    fn roots(&self) -> Result<Arc<Roots>> {
        let fresh = Roots::open(&self.location)?;
        let mut roots = self.roots.lock().unwrap_or_else(PoisonError::into_inner);
        if !roots.is_same(&fresh) {
            *roots = Arc::new(fresh);
        }
        Ok(roots.clone())
    }

    /// What `read` makes of this moment.
    fn now<T>(&self, read: impl FnOnce(&State<'_>) -> Result<T>) -> Result<T> {
        let roots = self.roots()?;
        let (databases, layers) = (&self.databases, &self.layers);
        read(&State::read(databases, &roots, &self.namespace, layers, &self.manner)?)
    }
}

impl LayerStore for Containerd {
    fn info(&self) -> &StoreInfo {
        &self.info
    }

    fn generation(&self) -> Result<Generation> {
        let roots = self.roots()?;
        let mut taking = Taking::default();
        for stamp in state::stamps(&roots)? {
            taking.add_number(stamp);
        }
        if let Some(root) = &roots.containers {
            containers::stamp(root, Era::Content, &mut taking)?;
        }
        volumes::stamp(roots.volumes.as_ref(), &mut taking);
        Ok(taking.finish().generation())
    }

    fn watched(&self) -> Result<Vec<Watched>> {
        let roots = self.roots()?;
        let mut watched = Vec::new();
        for root in self.location.open()? {
            watched.push(Watched::Names(root.dir("")?));
        }
        for root in roots.snapshotters.iter().flatten().chain([&roots.metadata]) {
            watched.push(Watched::Writes(root.dir("")?));
        }
        if let Some(root) = &roots.containers {
            watched.extend(containers::watched(root)?);
        }
        watched.extend(volumes::watched(roots.volumes.as_ref())?);
        Ok(watched)
    }

    fn catalog(&self) -> Result<Catalog> {
        self.now(|state| catalog::read(state, self.location.docker.is_some()))
    }

    fn config(&self, id: ImageId) -> Result<Arc<[u8]>> {
        self.now(|state| Ok(image::config(state, id)?.into()))
    }

    fn image(&self, id: ImageId) -> Result<Image> {
        self.now(|state| image::read(state, id))
    }

    fn container(&self, id: ContainerId) -> Result<Container> {
        match &self.location.docker {
            Some(_) => self.now(|state| container::read_docker(state, id)),
            None => self.now(|state| container::read(state, id)),
        }
    }

    fn blob(&self, digest: Digest) -> Result<Option<Blob>> {
        let bytes = self.now(|state| state.blob(digest))?;
        Ok(bytes.map(|bytes| Blob { digest, bytes: Arc::new(bytes) }))
    }

    fn namespaces(&self) -> Result<Option<Vec<String>>> {
        if self.location.docker.is_some() {
            return Ok(None);
        }
        let roots = self.roots()?;
        let mut names = open::namespaces(&self.databases.meta(&roots)?.database);
        if names.is_empty() {
            names.push(Containerd::DEFAULT_NAMESPACE.to_owned());
        }
        Ok(Some(names))
    }

    fn in_namespace(&self, name: &str) -> Result<Arc<dyn LayerStore>> {
        let info = StoreInfo { namespace: Some(name.to_owned()), ..self.info.clone() };
        Ok(Arc::new(Containerd {
            info,
            namespace: name.to_owned(),
            location: self.location.clone(),
            roots: Mutex::new(self.roots()?),
            databases: Databases::default(),
            layers: OpenLayers::new(),
            manner: self.manner.clone(),
        }))
    }

    fn volume(&self, name: &str) -> Result<Volume> {
        let owners = self.manner.owners(self.manner.remapped.clone());
        volumes::read(self.roots()?.volumes.as_ref(), name, owners)
    }

    fn graph_driver(&self, dirs: &[LayerDir]) -> GraphDriver {
        let is_copy = dirs.first().is_some_and(|top| top.marks == Marks::Complete);
        let name = if is_copy { snapshots::Snapshotter::Native.name() } else { self.info.driver };
        GraphDriver { name: name.to_owned(), directories: None }
    }

    fn usage(&self) -> Result<Usage> {
        self.now(|state| {
            let root = state.roots.blobs.as_deref().unwrap_or(&state.roots.metadata);
            let space = rustix::fs::fstatvfs(root).map_err(|err| Error::io(root.path(), err))?;
            let total = space.f_blocks.saturating_mul(space.f_frsize);
            Ok(Usage { total, used: usage::used(state) })
        })
    }
}

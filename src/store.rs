//! What an engine keeps on disk, described: images, layers, containers. Nothing here writes.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::backing::Watched;
use crate::digest::{ContainerId, Digest, ImageId};
use crate::error::{Error, Result};

mod bind;
mod config;
mod container;
pub mod containerd;
pub mod containers_storage;
pub mod docker;
mod driver;
mod files;
mod find;
mod host;
mod ids;
mod image;
pub mod manifest;
pub mod names;
mod parents;
pub mod portable;
mod stamp;
mod system;
mod volumes;
pub mod windows_layer;

pub use bind::{Bound, bind, is_at_home};
pub use container::{Container, ContainerSummary, Mount, MountSource, Pod, State, Volume};
pub use find::{Context, Kind, OpenError, Source, open, open_all};
pub use host::{Users, find_host_stores};
pub use ids::{IdMap, IdPair, IdRange, Owners, UNMAPPED, shown_id};
pub use image::{
    Blob, Description, Descriptor, Image, Layer, LayerDir, LayerSource, Marks, Stored,
};
pub(crate) use stamp::{Stamp, Taking};

/// A stamp of a store's state: equal stamps mean that nothing was added, removed or renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation(pub u64);

/// One engine's directory.
///
/// Reading takes no lock: the engine may write meanwhile. Each answer equals some state that the
/// store had.
pub trait LayerStore: fmt::Debug + Send + Sync {
    /// What the store is and where it lies.
    fn info(&self) -> &StoreInfo;

    /// A stamp that is cheap to take: no file of an image or a layer is opened.
    ///
    /// # Errors
    /// Fails when the store itself is gone or unreadable.
    fn generation(&self) -> Result<Generation>;

    /// Directories in which something is made, removed, renamed or written to whenever the generation
    /// moves, or less than a second before. None where that can't be told.
    ///
    /// # Errors
    /// Fails when the store itself is gone or unreadable.
    fn watched(&self) -> Result<Vec<Watched>> {
        Ok(Vec::new())
    }

    /// Names of all images and containers. Opens no layer.
    ///
    /// # Errors
    /// Fails when the store itself is unreadable; a broken image or container is listed in
    /// [`Catalog::damaged`] and its neighbours stay.
    fn catalog(&self) -> Result<Catalog>;

    /// The config of the image `id`, bytes as stored. Looks at no layer. `id` is that of an image of
    /// the catalog, or of one of [`Image::platforms`]; so it is for [`LayerStore::image`].
    ///
    /// # Errors
    /// ENOENT where there is no such image; corrupt where the bytes are not what its ID says.
    fn config(&self, id: ImageId) -> Result<Arc<[u8]>>;

    /// The image `id` with its layers, from its config and the layers' metadata.
    ///
    /// # Errors
    /// ENOENT where there is no such image; corrupt where its config is not what its ID says or a
    /// layer is not described.
    fn image(&self, id: ImageId) -> Result<Image>;

    /// The container `id` as it is at this moment.
    ///
    /// # Errors
    /// ENOENT where there is no such container, EBUSY where its config is gone but not yet its
    /// directory. One that is dead or being removed is *not* an error otherwise: see [`State`].
    fn container(&self, id: ContainerId) -> Result<Container>;

    /// The stored blob of that digest, of a content-addressed store: an index, a manifest, a config
    /// or a layer. `None` where it is not here.
    ///
    /// # Errors
    /// Fails when the store itself is unreadable.
    fn blob(&self, digest: Digest) -> Result<Option<Blob>> {
        let _ = digest;
        Ok(None)
    }

    /// The namespaces of its directory that hold something now, sorted, or else its engine's default;
    /// `None` where the engine has no namespaces.
    ///
    /// # Errors
    /// Fails when the store itself is unreadable.
    fn namespaces(&self) -> Result<Option<Vec<String>>> {
        Ok(None)
    }

    /// The store of another of [`LayerStore::namespaces`].
    ///
    /// # Errors
    /// Fails where the engine has none, or the store itself is unreadable.
    fn in_namespace(&self, name: &str) -> Result<Arc<dyn LayerStore>> {
        Err(Error::not_found(name))
    }

    /// Whether another file may come into the place of the one that holds its images: what was read
    /// of them then counts for one generation only, though they keep their IDs.
    fn is_replaceable(&self) -> bool {
        false
    }

    /// The volume `name`, one of [`Catalog::volumes`].
    ///
    /// # Errors
    /// ENOENT where there is none of that name.
    fn volume(&self, name: &str) -> Result<Volume> {
        Err(Error::not_found(name))
    }

    /// How the driver would mount layers, as the engine's own inspection tells it; `dirs` are those
    /// of an image's top layer or of a container.
    fn graph_driver(&self, dirs: &[LayerDir]) -> GraphDriver;

    /// What its files tell of the version of the engine that wrote them, a short phrase each.
    fn version_hints(&self) -> Vec<String> {
        Vec::new()
    }

    /// What it takes on disk, from metadata alone.
    ///
    /// # Errors
    /// Fails when the store itself is unreadable.
    fn usage(&self) -> Result<Usage>;
}

/// The driver that unpacked the layers, and its directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphDriver {
    /// Its name: `overlay2`, `vfs`.
    pub name: String,
    /// What overlay2 mounts; `None` with drivers that show nothing.
    pub directories: Option<Directories>,
}

/// What overlay2 mounts: absolute paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directories {
    /// The layers below, topmost first, separated by `:`; empty for the lowest layer.
    pub lower: String,
    /// Where the union appears.
    pub merged: String,
    /// The layer itself.
    pub upper: String,
    /// Overlayfs' scratch directory.
    pub work: String,
}

/// What a store takes on disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Size of the file system that it lies on.
    pub total: u64,
    /// Contents of all layers, each once.
    pub used: u64,
}

/// What a store is and where it lies.
#[derive(Debug, Clone)]
pub struct StoreInfo {
    /// The engine: `docker`, `podman`.
    pub kind: &'static str,
    /// The driver: `overlay2`, `overlay`, `vfs`.
    pub driver: &'static str,
    /// The directory, as it was named or found.
    pub path: PathBuf,
    /// The namespace in it that this is; `None` where the engine has none.
    pub namespace: Option<String>,
    /// How its engine writes archives.
    pub conventions: Conventions,
}

/// Whose way of writing archives is a store's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conventions {
    /// Docker's.
    Docker,
    /// Podman's, and of all that use containers/storage.
    Podman,
    /// containerd's, and Docker's where containerd keeps its images: blobs as they are stored.
    Containerd,
}

/// All names that a store holds at one moment.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// Every image, named or not, lowest ID first, with its parent where the store knows one.
    /// Each parent is listed too, and no walk up comes back to where it was.
    pub images: BTreeMap<ImageId, Option<ImageId>>,
    /// References as the store writes them (familiar names, `repo:tag` or `repo@sha256:..`).
    pub references: BTreeMap<String, ImageId>,
    /// Other digests by which the engine knows an image as by its ID: Kubernetes' tools call one in
    /// containerd's store by its config's.
    pub aliases: BTreeMap<ImageId, ImageId>,
    /// Every container.
    pub containers: Vec<ContainerSummary>,
    /// Every volume that the engine keeps itself, sorted by name.
    pub volumes: Vec<String>,
    /// What could not be read, one error each.
    pub damaged: Vec<Arc<Error>>,
}

//! What an engine keeps on disk, described: images, layers, containers. Nothing here writes.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::backing::{Bytes, Dir, FileKind, Root, Stat, Time, Watched};
use crate::digest::{ChainId, ContainerId, DiffId, Digest, ImageId};
use crate::error::{Error, Result};

mod bind;
mod config;
pub mod containerd;
pub mod containers_storage;
pub mod docker;
mod driver;
mod files;
mod find;
mod host;
mod ids;
pub mod manifest;
pub mod names;
mod parents;
pub mod portable;
mod stamp;
mod system;
mod volumes;
pub mod windows_layer;

use manifest::Platform;

pub use bind::{Bound, bind, is_at_home};
pub use find::{Context, Kind, OpenError, Source, open, open_all};
pub use host::{Users, find_host_stores};
pub use ids::{IdMap, IdPair, IdRange, Owners, UNMAPPED, shown_id};
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

/// What a listing says of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSummary {
    /// Its ID.
    pub id: ContainerId,
    /// Its name, without the leading slash that Docker stores.
    pub name: String,
    /// The image it was made from; `None` for one made from scratch.
    pub image: Option<ImageId>,
    /// The place that Kubernetes gave it.
    pub pod: Option<Pod>,
}

/// Where a container stands in Kubernetes: its labels `io.kubernetes.pod.namespace`, `.pod.name` and
/// `.container.name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// The namespace of the pod.
    pub namespace: String,
    /// The pod.
    pub name: String,
    /// The container's name in it.
    pub container: String,
}

/// An image.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its ID.
    pub id: ImageId,
    /// The config, bytes as stored. Their digest is the ID, but where that is the digest of
    /// [`Image::target`], or there are [`Image::descriptions`].
    pub config: Arc<[u8]>,
    /// Layers, lowest first; as many as the config's `rootfs.diff_ids`.
    pub layers: Vec<Layer>,
    /// The image it was built or committed from, as recorded: it may be gone, or form a loop. To
    /// walk up, use [`Catalog::images`].
    pub parent: Option<ImageId>,
    /// When a reference last came to point at it, RFC 3339 as stored.
    pub last_tagged: Option<String>,
    /// References to it, in the order in which the store would give them.
    pub references: Vec<String>,
    /// What its name points at in a content-addressed store: a manifest, or an index of several.
    /// `None` where the store knows neither.
    pub target: Option<Descriptor>,
    /// Every platform of which something is here, `linux-arm64` and the image's ID for that platform
    /// alone, sorted; empty where the image is for one platform and says no more.
    pub platforms: Vec<(String, ImageId)>,
    /// What a content-addressed store records of it, beside its blobs.
    pub stored: Option<Stored>,
    /// Of a store that knows no digests: what it has instead of a config, one description for each
    /// layer. The diff IDs are then their IDs, which stand in for digests that nobody noted, and
    /// [`Image::config`] is made of them. Empty elsewhere.
    pub descriptions: Vec<Description>,
}

/// What Docker to 1.9 notes of an image, which is one layer upon its parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Its ID: random, and no digest of anything.
    pub id: Digest,
    /// The description, bytes as stored.
    pub json: Arc<[u8]>,
}

/// What a content-addressed store records of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The manifest that the config and the layers are of: the target, or one that it lists.
    pub manifest: Digest,
    /// What the image is for, where it is one of several that an index lists.
    pub platform: Option<Platform>,
    /// By reference: what its record says of the target.
    pub annotations: BTreeMap<String, BTreeMap<String, String>>,
    /// Where the target was pulled from and pushed to, as annotations.
    pub sources: BTreeMap<String, String>,
    /// Bytes of all blobs that it is made of, those for other platforms left out; each counts,
    /// whether it is here or not.
    pub size: u64,
}

/// What a manifest, an index or a name points at (OCI image-spec, descriptor.md).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// Its kind, as stored.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// What is said of it, sorted by key.
    pub annotations: BTreeMap<String, String>,
}

/// A stored blob.
#[derive(Debug, Clone)]
pub struct Blob {
    /// The digest that it goes by. Nobody has checked it.
    pub digest: Digest,
    /// Its bytes, perhaps compressed.
    pub bytes: Arc<dyn Bytes>,
}

/// A layer of an image.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Digest of its tar.
    pub diff_id: DiffId,
    /// Identifies it with all below it.
    pub chain_id: ChainId,
    /// Its size as the engine counts: bytes of its files' contents (Docker), or of its tar
    /// (containers/storage).
    pub size: u64,
    /// Name of its directory in the store (Docker: the cache ID; containers/storage: its ID), or
    /// of its blob where it is not unpacked.
    pub directory: String,
    /// Its own directory first, then those of the layers below it, as the driver would mount them.
    /// One element only where every directory is a full copy ([`Marks::Complete`]); none where the
    /// layer is not unpacked.
    pub dirs: Vec<LayerDir>,
    /// Where the bytes of its tar come from.
    pub source: LayerSource,
}

/// Where the bytes of a layer's tar come from.
#[derive(Debug, Clone)]
pub enum LayerSource {
    /// From [`Layer::dirs`] and a record of the tar that they were unpacked from.
    TarSplit {
        /// Where the record is.
        root: Arc<Root>,
        /// Its name there: a gzip-compressed tar-split file.
        path: PathBuf,
    },
    /// The same, of a tar whose digest nobody noted: [`Layer::diff_id`] only stands in for it.
    Undigested {
        /// Where the record is.
        root: Arc<Root>,
        /// Its name there.
        path: PathBuf,
    },
    /// From the tar itself, perhaps compressed.
    Blob(Blob),
    /// The engine kept nothing but the files: a tar made of them has other bytes.
    Missing,
}

/// A directory that holds one layer's files.
#[derive(Debug, Clone)]
pub struct LayerDir {
    /// The directory.
    pub root: Arc<Root>,
    /// Identifies it over remounts: a hash of its name in the store. Seeds inode numbers.
    pub identity: u64,
    /// How it marks what it hides.
    pub marks: Marks,
    /// What its files' owners are called in the container; `None` where they stand on disk so.
    pub owners: Option<Arc<Owners>>,
}

/// How a layer's directory marks the names that it hides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marks {
    /// Overlayfs, by root: 0/0 devices and `trusted.overlay.*`.
    Trusted,
    /// Overlayfs, rootless: 0/0 devices and `user.overlay.*`.
    User,
    /// fuse-overlayfs: 0/0 devices or names `.wh.NAME`, and `opaque` as one of three xattrs or the
    /// name `.wh..wh..opq`.
    Fuse,
    /// Aufs: names `.wh.NAME` and `.wh..wh..opq`; all else that begins with `.wh..wh.` is its own.
    Aufs,
    /// Overlayfs, by root, with copies of what lay right below when the layer was made, as Docker's
    /// first overlay driver makes them: not all that is there is the layer's own.
    Copied,
    /// It holds everything itself, as with the vfs driver: nothing below counts, no mark does.
    Complete,
}

impl LayerDir {
    /// The attributes `stat` of the entry `name` in the directory `dir` of this layer (`""`: `dir`
    /// itself), with the owner that the container sees.
    ///
    /// # Errors
    /// What the file system says of the xattr in which an engine noted an owner.
    pub fn seen(&self, dir: &Dir, name: &OsStr, stat: Stat) -> Result<Stat> {
        let Some(owners) = &self.owners else { return Ok(stat) };
        let may_have_note = matches!(stat.kind, FileKind::Regular | FileKind::Directory);
        let note = match owners.has_notes && may_have_note {
            true => dir.xattr(name, OsStr::new(Owners::NOTE))?,
            false => None,
        };
        Ok(owners.seen(stat, note.as_deref()))
    }
}

impl Marks {
    /// True where the directory holds what the layer changed, all of that and nothing else, in the
    /// way of overlayfs.
    #[must_use]
    pub fn hold_changes_alone(self) -> bool {
        match self {
            Marks::Trusted | Marks::User => true,
            Marks::Fuse | Marks::Aufs | Marks::Copied | Marks::Complete => false,
        }
    }
}

/// A container.
#[derive(Debug, Clone)]
pub struct Container {
    /// Its ID.
    pub id: ContainerId,
    /// Its name, without the leading slash that Docker stores.
    pub name: String,
    /// The image it was made from; `None` for one made from scratch.
    pub image: Option<ImageId>,
    /// The image as the user named it; may be empty.
    pub image_name: String,
    /// When it was made, RFC 3339 as stored.
    pub created: String,
    /// What it is doing.
    pub state: State,
    /// Its first process, as its engine last wrote it; `None` where none runs, or it is not known.
    pub pid: Option<u32>,
    /// What the engine's own file says of it, bytes as stored: `config.v2.json`, or its entry of
    /// `containers.json`.
    pub config: Arc<[u8]>,
    /// `hostconfig.json`, bytes as stored; empty where there is none.
    pub host_config: Arc<[u8]>,
    /// Name of its writable directory in the store (Docker: the mount ID; containers/storage: its
    /// layer's ID).
    pub directory: String,
    /// Its writable directory first, then its init layer, then the image's layers: what is merged
    /// into its root file system. One element only where every directory is a full copy; none
    /// where they are gone, while it is being removed.
    pub dirs: Vec<LayerDir>,
    /// The same without the writable directory: what its changes are counted against.
    pub init_dirs: Vec<LayerDir>,
    /// What is mounted into it besides, as far as its files are on disk, sorted by destination.
    pub mounts: Vec<Mount>,
    /// Where on its own host the engine had the store when it ran the container last, by the record
    /// of that; `None` where it never ran.
    pub home: Option<PathBuf>,
}

/// Something that an engine mounts into a container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mount {
    /// Where in the container, as stored: an absolute path, perhaps through symlinks.
    pub destination: String,
    /// What is mounted there.
    pub source: MountSource,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum MountSource {
    /// A volume of the same store, by name.
    Volume(String),
    /// A file or directory of the host whose engine the store belongs to, by its absolute path
    /// there. Anybody may have written it: see [`bind()`].
    Bind(PathBuf),
    /// What a snapshot keeps of either, by its absolute path on this host. No store tells of it.
    Kept(PathBuf),
}

/// A volume that an engine keeps itself.
#[derive(Debug, Clone)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Its files.
    pub data: LayerDir,
    /// When its directory was made or changed last.
    pub created: Time,
    /// The options that it was made with, sorted by name.
    pub options: BTreeMap<String, String>,
}

/// What a container is doing, as its engine last wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Made, never started.
    Created,
    /// Running.
    Running,
    /// Frozen.
    Paused,
    /// Between two runs.
    Restarting,
    /// Stopped.
    Exited,
    /// Being removed: its archives are refused.
    Removing,
    /// Left over from a removal that failed: its archives are refused.
    Dead,
}

impl State {
    /// The state that an engine's word means.
    #[must_use]
    pub fn parse(word: &str) -> Option<State> {
        let all = [
            State::Created,
            State::Running,
            State::Paused,
            State::Restarting,
            State::Exited,
            State::Removing,
            State::Dead,
        ];
        all.into_iter().find(|state| state.name() == word)
    }

    /// The engine's word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            State::Created => "created",
            State::Running => "running",
            State::Paused => "paused",
            State::Restarting => "restarting",
            State::Exited => "exited",
            State::Removing => "removing",
            State::Dead => "dead",
        }
    }
}

//! Containers, as every store describes them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::LayerDir;
use crate::backing::Time;
use crate::digest::{ContainerId, ImageId};

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
    /// there. Anybody may have written it: see [`super::bind()`].
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

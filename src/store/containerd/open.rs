//! Whether a directory is containerd's, or has Docker's images in one that is.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::Containerd;
use super::records::{ContainerRecord, ImageRecord};
use super::roots::{DATABASE, Location, METADATA, Roots};
use super::snapshots::Snapshotter;
use super::state::{Databases, Manner};
use crate::backing::{Access, Fingerprint, Root, Time};
use crate::bolt::{Database, Reader};
use crate::error::Error;
use crate::store::driver::OpenLayers;
use crate::store::names::is_container_name;
use crate::store::system::{System, is_in_user_namespace, mapped_root};
use crate::store::{Conventions, IdPair, Marks, OpenError, StoreInfo};

/// What makes a directory a data root, for messages.
const LOOKED_FOR: &str = "io.containerd.metadata.v1.bolt/meta.db";

/// The namespace in which Docker keeps its images.
const DOCKER: &str = "moby";

/// Where a containerd that Docker starts itself has its data root, in Docker's; and where one that
/// the system starts has it, beside Docker's.
const OWN: &str = "containerd/daemon";
const BESIDE: &str = "containerd";

impl Containerd {
    /// The namespace that containerd's tools use where none is named.
    pub(in crate::store) const DEFAULT_NAMESPACE: &'static str = "default";

    /// True where `path` looks like a data root.
    #[must_use]
    pub fn is_at(path: &Path) -> bool {
        path.join(METADATA).join(DATABASE).is_file()
    }

    /// The namespaces of the data root at `path` that hold an image or a container, sorted.
    ///
    /// # Errors
    /// Fails where `path` is no data root, or may not be read.
    pub fn namespaces(path: &Path) -> Result<Vec<String>, OpenError> {
        let location = locate(path, None)?;
        let failed = |err| OpenError::from_error(path, err);
        let roots = Roots::open(&location).map_err(|err| not_a_store(path, err))?;
        let snapshot = Reader::default().read(&roots.metadata, DATABASE).map_err(failed)?;
        Ok(namespaces(&snapshot.database))
    }

    /// Opens the namespace `namespace` of the data root at `path`.
    ///
    /// # Errors
    /// Fails where `path` is no data root, or may not be read. A namespace that is not there is
    /// empty, as it is to containerd.
    pub fn open(path: &Path, namespace: &str) -> Result<Containerd, OpenError> {
        open(path, locate(path, None)?, namespace)
    }

    /// Opens Docker's data root at `path`, whose images are in containerd's store, or would be if
    /// there were any; `None` where they are not.
    ///
    /// # Errors
    /// Fails where it may not be read.
    pub fn open_docker(path: &Path) -> Result<Option<Containerd>, OpenError> {
        let own = || Some(path.join(OWN)).filter(|own| Containerd::is_at(own));
        let data = docker_data(path).map(|(data, _)| data).or_else(own);
        let Some(data) = data else { return Ok(None) };
        let docker = std::path::absolute(path).map_err(|err| other(path, err))?;
        open(path, locate(&data, Some(docker))?, DOCKER).map(Some)
    }

    /// When a name of an image last changed, of those that Docker with the data root `path` keeps
    /// in containerd's store; `None` where there is none.
    pub(in crate::store) fn last_used_by_docker(path: &Path) -> Option<Time> {
        docker_data(path).map(|(_, used)| used)
    }
}

/// The data root of the containerd in which Docker at `path` keeps images: one of its own, else the
/// system's; and when a name of one last changed. Every Docker has one or the other, for its
/// containers; only images count.
fn docker_data(path: &Path) -> Option<(PathBuf, Time)> {
    let beside = path.parent().unwrap_or(Path::new("/")).join(BESIDE);
    let used = |data: &PathBuf| {
        let metadata =
            Root::open_resolved(data, Access::Live).ok()?.sub_mount(METADATA, Access::Live).ok()?;
        let snapshot = Reader::default().read(&metadata, DATABASE).ok()?;
        let images = snapshot.database.bucket(&[b"v1", DOCKER.as_bytes(), b"images"])?;
        let records = images.buckets().filter_map(|(name, it)| ImageRecord::parse(name, it).ok());
        records.map(|record| record.updated.map_or(Time::default(), |it| it.instant())).max()
    };
    [path.join(OWN), beside].into_iter().find_map(|data| used(&data).map(|used| (data, used)))
}

fn open(path: &Path, location: Location, namespace: &str) -> Result<Containerd, OpenError> {
    let roots = Roots::open(&location).map_err(|err| not_a_store(path, err))?;
    let databases = Databases::default();
    let snapshotters = Snapshotter::ALL.into_iter();
    let used = snapshotters.zip(&roots.snapshotters).find(|(_, root)| root.is_some());
    let driver = used.map_or(Snapshotter::Overlayfs, |(snapshotter, _)| snapshotter);
    let is_docker = location.docker.is_some();
    let info = StoreInfo {
        kind: if is_docker { "docker" } else { "containerd" },
        driver: driver.name(),
        path: path.to_owned(),
        namespace: (!is_docker).then(|| namespace.to_owned()),
        conventions: Conventions::Containerd,
    };
    Ok(Containerd {
        info,
        namespace: namespace.to_owned(),
        manner: manner(&location),
        location,
        roots: Mutex::new(Arc::new(roots)),
        databases,
        layers: OpenLayers::new(),
    })
}

/// How files lie there. The data root of an engine without root belongs to its user, and overlayfs
/// marks there what a layer hides as any user may.
fn manner(location: &Location) -> Manner {
    let data = fs::metadata(&location.data).ok();
    let owner = data.map(|data| IdPair { user: data.uid(), group: data.gid() });
    let owner = owner.filter(|owner| owner.user != 0);
    let is_rootless = owner.is_some() || is_in_user_namespace();
    let system = System::around(location.docker.as_ref().unwrap_or(&location.data));
    let system = system.as_ref();
    let root = location.docker.as_ref().and_then(|docker| mapped_root(docker.file_name()?));
    let mut seed = Fingerprint::new();
    seed.add(location.data.as_os_str().as_bytes());
    Manner {
        marks: if is_rootless { Marks::User } else { Marks::Trusted },
        seed: seed.finish(),
        engine: owner.and_then(|owner| system?.rootless(owner)),
        remapped: root.and_then(|root| system?.remapped(root)),
    }
}

fn locate(data: &Path, docker: Option<PathBuf>) -> Result<Location, OpenError> {
    let data = std::path::absolute(data).map_err(|err| other(data, err))?;
    Ok(Location { data, docker })
}

fn other(path: &Path, err: std::io::Error) -> OpenError {
    OpenError::from_error(path, Error::io(path, err))
}

/// A directory without a database is another kind of store, or none at all.
fn not_a_store(path: &Path, err: Error) -> OpenError {
    match err.is_not_found() && path.is_dir() {
        true => OpenError::NotAStore { path: path.to_owned(), looked_for: LOOKED_FOR },
        false => OpenError::from_error(path, err),
    }
}

/// The namespaces that hold an image, or a container whose files are here.
pub(super) fn namespaces(database: &Database) -> Vec<String> {
    let all = database.bucket(&[b"v1"]).into_iter().flat_map(|v1| v1.buckets());
    let used = all.filter(|(_, namespace)| {
        let mut images = namespace.bucket(b"images").into_iter().flat_map(|it| it.buckets());
        let containers = namespace.bucket(b"containers").into_iter().flat_map(|it| it.buckets());
        let mut containers = containers.filter_map(|(_, it)| ContainerRecord::parse(it));
        images.next().is_some() || containers.next().is_some()
    });
    let names = used.filter_map(|(name, _)| str::from_utf8(name).ok());
    names.filter(|name| is_container_name(name)).map(str::to_owned).collect()
}

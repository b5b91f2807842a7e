//! Stores as they are named, and how they are opened.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use super::LayerStore;
use super::containerd::Containerd;
use super::containers_storage::ContainersStorage;
use super::docker::Docker;
use super::portable::{Documents, Portable};
use super::windows_layer::WindowsLayer;
use crate::cache::Cache;
use crate::error::Error;

/// A kind of store that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A Docker data root.
    Docker,
    /// A store of Podman, Buildah or CRI-O.
    Podman,
    /// The directory of an OCI image layout.
    Oci,
    /// A tar of an OCI image layout.
    OciArchive,
    /// A tar as `docker save` and `podman save` write it.
    DockerArchive,
    /// A data root of containerd.
    Containerd,
    /// A layer of Windows, exported or as a tar, and those below it: `LAYER[,PARENT...]`.
    WindowsLayer,
}

impl Kind {
    /// Every kind.
    const ALL: [Kind; 7] = [
        Kind::Docker,
        Kind::Podman,
        Kind::Containerd,
        Kind::Oci,
        Kind::OciArchive,
        Kind::DockerArchive,
        Kind::WindowsLayer,
    ];

    /// What stands before the path of one, in bytes.
    fn prefix(self) -> &'static [u8] {
        match self {
            Kind::Docker => b"docker:",
            Kind::Podman => b"podman:",
            Kind::Oci => b"oci:",
            Kind::OciArchive => b"oci-archive:",
            Kind::DockerArchive => b"docker-archive:",
            Kind::Containerd => b"containerd:",
            Kind::WindowsLayer => b"windows-layer:",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.prefix()).replace(':', ""))
    }
}

/// A store as it was named: a directory or a file, and of which kind, where that was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The kind; `None` where it is to be found out.
    pub kind: Option<Kind>,
    /// The directory, or the file. To open it, it must be absolute and free of symlinks.
    pub path: PathBuf,
}

impl Source {
    /// Parses `docker:PATH` and the like, or a plain path.
    #[must_use]
    pub fn parse(text: &OsStr) -> Source {
        for kind in Kind::ALL {
            if let Some(path) = text.as_bytes().strip_prefix(kind.prefix()) {
                return Source { kind: Some(kind), path: OsStr::from_bytes(path).into() };
            }
        }
        Source { kind: None, path: text.into() }
    }
}

/// Why a store could not be opened.
#[derive(Debug)]
pub enum OpenError {
    /// There is nothing at that path.
    NoSuchStore(PathBuf),
    /// It is no engine's directory.
    NotAStore {
        /// The path.
        path: PathBuf,
        /// Which files would have made it one.
        looked_for: &'static str,
    },
    /// It may not be read by this user.
    Unreadable {
        /// The file or directory that refused.
        path: PathBuf,
        /// Its owner and its permission bits, or those of the nearest directory above that tells.
        owner: Option<(u32, u32)>,
    },
    /// It is a store, but nobody here can read this driver's files.
    UnsupportedDriver {
        /// The store.
        path: PathBuf,
        /// Docker's name for the driver.
        driver: String,
        /// What the user might do.
        advice: &'static str,
    },
    /// Something else went wrong.
    Other(Error),
}

impl OpenError {
    /// The store at `path` failed to open with `err`.
    #[must_use]
    pub fn from_error(path: &Path, err: Error) -> OpenError {
        match err.errno() {
            Errno::NOENT => OpenError::NoSuchStore(path.to_owned()),
            Errno::NOTDIR => {
                OpenError::NotAStore { path: path.to_owned(), looked_for: "directory" }
            }
            Errno::ACCESS | Errno::PERM => {
                let path = err.path().to_owned();
                let known = path.ancestors().find_map(|path| fs::metadata(path).ok());
                let owner = known.map(|known| (known.uid(), known.mode() & 0o7777));
                OpenError::Unreadable { path, owner }
            }
            _ => OpenError::Other(err),
        }
    }

    pub(super) fn unsupported(path: &Path, driver: &str, advice: &'static str) -> OpenError {
        OpenError::UnsupportedDriver { path: path.to_owned(), driver: driver.to_owned(), advice }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::NoSuchStore(path) => write!(f, "{}: no such directory", path.display()),
            OpenError::NotAStore { path, looked_for } => {
                write!(f, "{}: not a container store: no {looked_for}", path.display())
            }
            OpenError::Unreadable { path, owner } => {
                write!(f, "{}: permission denied", path.display())?;
                match owner {
                    Some((0, mode)) => {
                        write!(f, ": open to root only (mode {mode:04o}); run as root")
                    }
                    Some((uid, mode)) => {
                        write!(
                            f,
                            ": it belongs to user {uid} (mode {mode:04o}); run as that user or root"
                        )
                    }
                    None => f.write_str("; run as root"),
                }
            }
            OpenError::UnsupportedDriver { path, driver, advice } => {
                write!(f, "{}: not supported: {driver:?}: {advice}", path.display())
            }
            OpenError::Other(err) => fmt::Display::fmt(err, f),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            OpenError::Other(err) => err.source(),
            _ => None,
        }
    }
}

/// What stores share.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// What is compressed in them inflates to there.
    pub cache: Arc<Cache>,
}

/// Opens all that `source` names: a store, or one for each of its namespaces.
///
/// # Errors
/// As [`open`].
pub fn open_all(source: &Source, context: &Context) -> Result<Vec<Arc<dyn LayerStore>>, OpenError> {
    match source.kind {
        Some(Kind::Containerd) => open_namespaces(&source.path),
        None if Containerd::is_at(&source.path) => open_namespaces(&source.path),
        Some(
            Kind::Docker
            | Kind::Podman
            | Kind::Oci
            | Kind::OciArchive
            | Kind::DockerArchive
            | Kind::WindowsLayer,
        )
        | None => Ok(vec![open(source, context)?]),
    }
}

/// Opens the store that `source` names.
///
/// # Errors
/// Fails where it is no store, may not be read, or holds what stratafs can't read.
pub fn open(source: &Source, context: &Context) -> Result<Arc<dyn LayerStore>, OpenError> {
    let (path, cache) = (&source.path, &context.cache);
    match source.kind {
        Some(Kind::Docker) => open_docker(path),
        Some(Kind::Podman) => Ok(Arc::new(ContainersStorage::open(path)?)),
        Some(Kind::Containerd) => open_containerd(path),
        Some(Kind::WindowsLayer) => Ok(Arc::new(WindowsLayer::open(path, cache)?)),
        Some(Kind::Oci) => Ok(Arc::new(Portable::open_layout(path, cache)?)),
        Some(Kind::OciArchive) => {
            Ok(Arc::new(Portable::open_archive(path, Documents::Layout, cache)?))
        }
        Some(Kind::DockerArchive) => {
            Ok(Arc::new(Portable::open_archive(path, Documents::Saved, cache)?))
        }
        None if path.is_file() => {
            Ok(Arc::new(Portable::open_archive(path, Documents::All, cache)?))
        }
        None if Portable::is_layout_at(path) => Ok(Arc::new(Portable::open_layout(path, cache)?)),
        None if ContainersStorage::is_at(path) => Ok(Arc::new(ContainersStorage::open(path)?)),
        None if Containerd::is_at(path) => open_containerd(path),
        None if WindowsLayer::is_at(path) => Ok(Arc::new(WindowsLayer::open(path, cache)?)),
        None => open_docker(path),
    }
}

/// Opens Docker's data root with the store that its images are in. Where both hold some, as after
/// a change of the setting, it is the one that changed last.
fn open_docker(path: &Path) -> Result<Arc<dyn LayerStore>, OpenError> {
    let (own, containerd) = (Docker::last_used(path), Containerd::last_used_by_docker(path));
    if own.is_some() && containerd.is_some() {
        let name = if own < containerd { "containerd's store" } else { "a graph driver" };
        tracing::info!("{}: two image stores; the one in use is {name}", path.display());
    }
    if own < containerd
        && let Some(store) = Containerd::open_docker(path)?
    {
        return Ok(Arc::new(store));
    }
    match Docker::open(path) {
        // A new Docker, which has no image yet.
        Err(err @ OpenError::NotAStore { .. }) => match Containerd::open_docker(path)? {
            Some(store) => Ok(Arc::new(store)),
            None => Err(err),
        },
        opened => Ok(Arc::new(opened?)),
    }
}

/// Opens every namespace that is used, or else containerd's default, which is empty.
fn open_namespaces(path: &Path) -> Result<Vec<Arc<dyn LayerStore>>, OpenError> {
    let open = |namespace: &String| -> Result<Arc<dyn LayerStore>, OpenError> {
        Ok(Arc::new(Containerd::open(path, namespace)?))
    };
    let mut namespaces = Containerd::namespaces(path)?;
    if namespaces.is_empty() {
        namespaces.push(Containerd::DEFAULT_NAMESPACE.to_owned());
    }
    namespaces.iter().map(open).collect()
}

/// Opens the namespace that is used where there is one, or else containerd's default.
fn open_containerd(path: &Path) -> Result<Arc<dyn LayerStore>, OpenError> {
    let namespaces = Containerd::namespaces(path)?;
    let namespace = match &namespaces[..] {
        [only] => only,
        _ => Containerd::DEFAULT_NAMESPACE,
    };
    Ok(Arc::new(Containerd::open(path, namespace)?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_source_is_a_path_with_or_without_its_engine() {
        for (text, kind, path) in [
            ("docker:/var/lib/docker", Some(Kind::Docker), "/var/lib/docker"),
            ("docker:a:b", Some(Kind::Docker), "a:b"),
            ("podman:/srv", Some(Kind::Podman), "/srv"),
            ("containerd:/srv", Some(Kind::Containerd), "/srv"),
            ("windows-layer:/a,/b", Some(Kind::WindowsLayer), "/a,/b"),
            ("oci:/srv", Some(Kind::Oci), "/srv"),
            ("oci-archive:a.tar", Some(Kind::OciArchive), "a.tar"),
            ("docker-archive:a:b.tar", Some(Kind::DockerArchive), "a:b.tar"),
            ("/var/lib/docker", None, "/var/lib/docker"),
            ("./docker:x", None, "./docker:x"),
            ("docker", None, "docker"),
        ] {
            assert_eq!(Source::parse(text.as_ref()), Source { kind, path: path.into() });
        }
    }

    #[test]
    fn whoever_may_not_read_is_told_who_may() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o710)).unwrap();
        let denied = Error::io(dir.path().join("image"), Errno::ACCESS);
        let err = OpenError::from_error(dir.path(), denied);
        let uid = rustix::process::geteuid().as_raw();
        assert!(
            matches!(err, OpenError::Unreadable { owner: Some((owner, 0o710)), .. } if owner == uid)
        );
        assert!(err.to_string().contains("permission denied"), "{err}");
        assert!(err.to_string().contains("run as"), "{err}");
    }
}

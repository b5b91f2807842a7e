//! Finding and opening stores: by name, or where this host's engines keep them.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;
use serde::Deserialize;

use super::LayerStore;
use super::containers_storage::ContainersStorage;
use super::docker::Docker;
use crate::backing::{Access, Root};
use crate::error::Error;

/// Where Docker keeps its data root, and its settings, from the root of the file system.
const DOCKER_ROOT: &str = "var/lib/docker";
const DOCKER_SETTINGS: &str = "etc/docker/daemon.json";

/// Where root's Podman keeps its store, from the root of the file system, and that of an ordinary
/// user, from the home directory (containers-storage.conf(5)).
const PODMAN_ROOT: &str = "var/lib/containers/storage";
const PODMAN_HOME: &str = ".local/share/containers/storage";

/// Largest settings file that is read, in bytes.
const SETTINGS_MAX: u64 = 1 << 20;

/// An engine whose directories can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A Docker data root.
    Docker,
    /// A store of Podman, Buildah or CRI-O.
    Podman,
}

impl Kind {
    /// What stands before the path of one, in bytes.
    fn prefix(self) -> &'static [u8] {
        match self {
            Kind::Docker => b"docker:",
            Kind::Podman => b"podman:",
        }
    }
}

/// A store as it was named: a directory, and of which engine, where that was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The engine; `None` where it is to be found out.
    pub kind: Option<Kind>,
    /// The directory.
    pub path: PathBuf,
}

impl Source {
    /// Parses `docker:PATH`, `podman:PATH`, or a plain path.
    #[must_use]
    pub fn parse(text: &OsStr) -> Source {
        for kind in [Kind::Docker, Kind::Podman] {
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

/// Opens the store that `source` names.
///
/// # Errors
/// Fails where it is no store, may not be read, or holds what stratafs can't read.
pub fn open(source: &Source) -> Result<Arc<dyn LayerStore>, OpenError> {
    let path = &source.path;
    match source.kind {
        Some(Kind::Docker) => Ok(Arc::new(Docker::open(path)?)),
        Some(Kind::Podman) => Ok(Arc::new(ContainersStorage::open(path)?)),
        None if ContainersStorage::is_at(path) => Ok(Arc::new(ContainersStorage::open(path)?)),
        None => Ok(Arc::new(Docker::open(path)?)),
    }
}

/// The stores of the host whose file system is at `image_root`, normally `/`.
///
/// For Docker it is the `data-root` of its settings, or else `/var/lib/docker` where that exists;
/// for Podman what lies in the usual place, and where `home` is given, in that home directory.
#[must_use]
pub fn find_host_stores(image_root: &Path, home: Option<&Path>) -> Vec<Source> {
    let docker = docker_data_root(image_root).or_else(|| {
        let usual = image_root.join(DOCKER_ROOT);
        usual.is_dir().then_some(usual)
    });
    let podman = [Some(image_root.join(PODMAN_ROOT)), home.map(|home| home.join(PODMAN_HOME))];
    // A directory that was never used is not taken for a store.
    let podman = podman.into_iter().flatten().filter(|path| ContainersStorage::is_at(path));
    let docker = docker.map(|path| Source { kind: Some(Kind::Docker), path });
    let podman = podman.map(|path| Source { kind: Some(Kind::Podman), path });
    docker.into_iter().chain(podman).collect()
}

/// What Docker's settings name as its data root. Settings that are missing or damaged name none:
/// the engine would not start with damaged ones.
fn docker_data_root(image_root: &Path) -> Option<PathBuf> {
    #[derive(Deserialize)]
    struct Settings {
        #[serde(rename = "data-root")]
        data_root: Option<PathBuf>,
        graph: Option<PathBuf>,
    }
    let root = Root::open(image_root, Access::Live).ok()?;
    let json = root.read(DOCKER_SETTINGS, SETTINGS_MAX).ok()?;
    let settings: Settings = serde_json::from_slice(&json).ok()?;
    let path = settings.data_root.or(settings.graph)?; // `graph`: its name before 17.05
    let inside = path.components().filter(|part| matches!(part, Component::Normal(_)));
    Some(image_root.join(inside.collect::<PathBuf>()))
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
            ("/var/lib/docker", None, "/var/lib/docker"),
            ("./docker:x", None, "./docker:x"),
            ("docker", None, "docker"),
        ] {
            assert_eq!(Source::parse(text.as_ref()), Source { kind, path: path.into() });
        }
    }

    #[test]
    fn docker_is_found_where_its_settings_say_or_in_the_usual_place() {
        let host = tempfile::tempdir().unwrap();
        let found = || {
            let sources = find_host_stores(host.path(), None);
            let inside =
                |source: &Source| source.path.strip_prefix(host.path()).unwrap().to_owned();
            sources.iter().map(inside).collect::<Vec<_>>()
        };
        assert!(found().is_empty());
        fs::create_dir_all(host.path().join(DOCKER_ROOT)).unwrap();
        fs::create_dir_all(host.path().join("etc/docker")).unwrap();
        assert_eq!(found(), [Path::new(DOCKER_ROOT)]);
        for (settings, path) in [
            (r#"{"data-root":"/srv/docker","debug":true}"#, "srv/docker"),
            (r#"{"graph":"/mnt/graph"}"#, "mnt/graph"),
            (r#"{"data-root":"/../../srv/./docker"}"#, "srv/docker"),
            (r#"{"storage-driver":"vfs"}"#, DOCKER_ROOT),
            ("{", DOCKER_ROOT),
            ("", DOCKER_ROOT),
        ] {
            fs::write(host.path().join(DOCKER_SETTINGS), settings).unwrap();
            assert_eq!(found(), [Path::new(path)], "{settings}");
        }
    }

    #[test]
    fn podman_is_found_in_the_usual_places_once_it_was_used() {
        let host = tempfile::tempdir().unwrap();
        let home = host.path().join("home/user");
        fs::create_dir_all(host.path().join(PODMAN_ROOT)).unwrap();
        assert!(find_host_stores(host.path(), Some(&home)).is_empty());
        let stores = [host.path().join(PODMAN_ROOT), home.join(PODMAN_HOME)];
        for store in &stores {
            fs::create_dir_all(store.join("overlay-images")).unwrap();
            fs::create_dir_all(store.join("overlay-layers")).unwrap();
        }
        let found = find_host_stores(host.path(), Some(&home));
        let expected =
            stores.map(|path| Source { kind: Some(Kind::Podman), path: path.to_path_buf() });
        assert_eq!(found, expected);
        assert_eq!(find_host_stores(host.path(), None), expected[..1]);
        let source = Source { kind: None, path: expected[0].path.clone() };
        assert_eq!(open(&source).unwrap().info().kind, "podman");
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

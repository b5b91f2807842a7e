//! Mount points: which will do, and how a dead one is brought back.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::error::{Error, Result};
use super::{KIND, Leave, connection, topmost, unmount};
use crate::backing::mounts::Mount;

/// Dead mounts that may lie on each other before we give up.
const LAYERS: usize = 16;

/// An empty directory that contains no store and lies in none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPoint {
    /// Resolved, so that it means the same from any working directory.
    path: PathBuf,
}

impl MountPoint {
    /// Checks `path` against the directories of all stores. The dead mount of a daemon that was
    /// killed is taken away first.
    ///
    /// # Errors
    /// Says which of the conditions does not hold.
    pub fn check(path: &Path, stores: &[PathBuf]) -> Result<MountPoint> {
        let path = resolve(path)?;
        for store in stores {
            let store = fs::canonicalize(store).map_err(|err| Error::io(store, err))?;
            if path.starts_with(&store) || store.starts_with(&path) {
                return Err(Error::Entangled { point: path, store });
            }
        }
        for _ in 0..LAYERS {
            if let Some(mount) = topmost(&path)?.filter(connection::is_orphan) {
                bury(&mount)?;
                continue;
            }
            match check_directory(&path) {
                Err(Error::Io { err, .. }) if is_dead(&err) => {
                    // Somebody else may have done so.
                    topmost(&path)?.as_ref().map_or(Ok(()), bury)?;
                }
                result => return result.map(|()| MountPoint { path }),
            }
        }
        Err(Error::io(path, Errno::NOTCONN))
    }

    /// The directory, resolved.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// `path` without symlinks. A stratafs that is mounted there is not touched: it may be dead, or
/// have nobody to answer.
pub(super) fn resolve(path: &Path) -> Result<PathBuf> {
    let missing = |err: io::Error| match err.kind() {
        io::ErrorKind::NotFound => Error::Missing(path.to_owned()),
        _ => Error::io(path, err),
    };
    if let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        let path = fs::canonicalize(parent).map_err(missing)?.join(name);
        if topmost(&path)?.is_some_and(|mount| mount.kind == KIND) {
            return Ok(path);
        }
    }
    fs::canonicalize(path).map_err(missing)
}

fn check_directory(path: &Path) -> Result<()> {
    // Looking at an automount point would wait for the very mount that we are about to make.
    if topmost(path)?.is_some_and(|mount| mount.kind == "autofs") {
        return Ok(());
    }
    let mut entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(err) if err.kind() == io::ErrorKind::NotADirectory => {
            return Err(Error::NotDirectory(path.to_owned()));
        }
        Err(err) => return Err(Error::io(path, err)),
    };
    match entries.next() {
        None => Ok(()),
        Some(Ok(_)) => Err(Error::NotEmpty(path.to_owned())),
        Some(Err(err)) => Err(Error::io(path, err)),
    }
}

/// True where the daemon behind a mount is gone.
fn is_dead(err: &io::Error) -> bool {
    let errno = Errno::from_io_error(err);
    matches!(errno, Some(Errno::NOTCONN | Errno::CONNABORTED))
}

/// Takes away a dead mount of ours.
pub(super) fn bury(mount: &Mount) -> Result<()> {
    let path = &mount.point;
    if mount.kind != KIND {
        return Err(Error::Dead { point: path.clone(), kind: mount.kind.clone() });
    }
    if let Err(err) = connection::abort(&mount.device) {
        tracing::debug!("{}: {err}", path.display()); // it is usually gone with the daemon
    }
    tracing::info!("{}: taking away the mount of a daemon that died", path.display());
    unmount(path, Leave::Detached)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn each_condition_has_its_own_error() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "").unwrap();
        fs::create_dir_all(at("full/inside")).unwrap();
        fs::create_dir_all(at("store/empty")).unwrap();
        fs::create_dir(at("empty")).unwrap();
        symlink("store/empty", at("link")).unwrap();
        symlink("empty", at("good")).unwrap();

        let stores = [at("store")];
        let check = |name: &str| MountPoint::check(&at(name), &stores);
        assert!(matches!(check("missing"), Err(Error::Missing(_))));
        assert!(matches!(check("file"), Err(Error::NotDirectory(_))));
        assert!(matches!(check("full"), Err(Error::NotEmpty(_))));
        assert!(matches!(check("store/empty"), Err(Error::Entangled { .. })));
        assert!(matches!(check("link"), Err(Error::Entangled { .. })));
        assert!(matches!(check(""), Err(Error::Entangled { .. })));
        assert!(matches!(check("store"), Err(Error::Entangled { .. })));
        let resolved = fs::canonicalize(at("empty")).unwrap();
        assert_eq!(check("good").unwrap().path(), resolved);
    }

    #[test]
    fn a_store_named_through_a_symlink_is_recognised() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("real/point")).unwrap();
        symlink("real", dir.path().join("store")).unwrap();
        let point = dir.path().join("real/point");
        let result = MountPoint::check(&point, &[dir.path().join("store")]);
        assert!(matches!(result, Err(Error::Entangled { .. })));
    }
}

//! Files of a host that are bound into a container: by a path that stands in a store, and that
//! anybody may have written.
//!
//! What keeps a store that came from elsewhere from showing this host's files:
//! 1. It counts only where the store lies where its engine had it, by what the container's own record
//!    says ([`is_at_home`]). An engine that has never run the container has bound nothing.
//! 2. The path is walked from the root of the host's file system through no symlink, and the files
//!    below it like those of a store: onto no other mount.
//! 3. Never into a mount of stratafs, nor to a directory that holds one: the daemon would wait for
//!    itself.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use std::os::unix::ffi::OsStrExt;

use crate::backing::{Access, Fingerprint, Root, mounts};
use crate::error::{Error, Result};
use crate::store::{LayerDir, Marks};

/// Type of our own mounts.
const OURS: &str = "fuse.stratafs";

/// What a bind shows.
#[derive(Debug, Clone)]
pub struct Bound {
    /// The directory that is bound, or that holds the file that is.
    pub dir: LayerDir,
    /// The file's name in it; `None` where the directory itself is bound.
    pub file: Option<OsString>,
}

/// What the host whose file system is at `host`, normally `/`, has at the absolute path `path`.
///
/// # Errors
/// ENOENT where there is nothing, ELOOP where the path leads through a symlink, unsupported where
/// it is no absolute path, or holds or lies in a mount of stratafs.
pub fn bind(host: &Path, path: &Path) -> Result<Bound> {
    let below =
        inside(path).ok_or_else(|| Error::unsupported(path, "not a plain absolute path"))?;
    let shown = host.join(&below);
    let table = mounts::all().map_err(|err| Error::io(mounts::TABLE, err))?;
    if table.iter().any(|mount| mount.kind == OURS && touches(&mount.point, &shown)) {
        return Err(Error::unsupported(shown, "it holds a mount of stratafs, or lies in one"));
    }
    let root = Root::open(host, Access::Live)?;
    match root.sub_mount(&below, Access::Live) {
        Ok(dir) => Ok(Bound { dir: layer(dir), file: None }),
        Err(err) if err.is_misplaced() => {
            let (Some(parent), Some(name)) = (below.parent(), below.file_name()) else {
                return Err(err);
            };
            let dir = root.sub_mount(parent, Access::Live)?;
            dir.stat(name)?;
            Ok(Bound { dir: layer(dir), file: Some(name.to_owned()) })
        }
        Err(err) => Err(err),
    }
}

fn layer(root: Root) -> LayerDir {
    let mut identity = Fingerprint::new();
    identity.add(b"bind");
    identity.add(root.path().as_os_str().as_bytes());
    let (root, identity) = (Arc::new(root), identity.finish());
    LayerDir { root, identity, marks: Marks::Complete, owners: None }
}

/// An absolute path without its slash; `None` for one that is not plain.
fn inside(path: &Path) -> Option<PathBuf> {
    let mut parts = path.components();
    if parts.next() != Some(Component::RootDir) {
        return None;
    }
    let below: PathBuf = parts.as_path().to_owned();
    below.components().all(|part| matches!(part, Component::Normal(_))).then_some(below)
}

/// True where one of the two lies in the other.
fn touches(a: &Path, b: &Path) -> bool {
    a.starts_with(b) || b.starts_with(a)
}

/// True where the store at `location`, a resolved path, is where its engine had it, `home`, on the
/// host whose file system is at `host`.
#[must_use]
pub fn is_at_home(host: &Path, home: Option<&Path>, location: &Path) -> bool {
    let home = home.and_then(inside).filter(|home| !home.as_os_str().is_empty());
    let (Some(home), Ok(host)) = (home, host.canonicalize()) else { return false };
    host.join(home) == location
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_bind_is_found_beneath_the_host_s_root_and_through_no_symlink() {
        let host = tempfile::tempdir().unwrap();
        fs::create_dir_all(host.path().join("srv/data")).unwrap();
        fs::write(host.path().join("srv/data/file"), "x").unwrap();
        symlink("/", host.path().join("srv/root")).unwrap();
        symlink("data", host.path().join("srv/link")).unwrap();
        let found = |path: &str| bind(host.path(), Path::new(path));
        assert_eq!(found("/srv/data").unwrap().file, None);
        let file = found("/srv/data/file").unwrap();
        assert_eq!(file.file, Some("file".into()));
        assert_eq!(file.dir.root.path(), host.path().join("srv/data"));
        for path in
            ["srv/data", "/srv/../../etc", "/srv/missing", "/srv/root/etc", "/srv/data/file/x", ""]
        {
            assert!(found(path).is_err(), "{path}");
        }
        // A link itself has no data, and is not followed.
        let link = found("/srv/link").unwrap();
        assert_eq!(link.file, Some("link".into()));
        assert!(link.dir.root.open_file("link").is_err());
    }

    #[test]
    fn a_store_is_at_home_where_its_engine_had_it() {
        let host = tempfile::tempdir().unwrap();
        let location = host.path().canonicalize().unwrap().join("var/lib/docker");
        let found = |home: &str| is_at_home(host.path(), Some(Path::new(home)), &location);
        assert!(found("/var/lib/docker"));
        for home in
            ["", "/", "/var/lib", "var/lib/docker", "/var/lib/docker/x", "/x/../var/lib/docker"]
        {
            assert!(!found(home), "{home}");
        }
        assert!(!is_at_home(host.path(), None, &location));
        assert!(is_at_home(Path::new("/"), Some(&location), &location));
    }
}

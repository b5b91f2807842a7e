//! A whole file system that is looked at from outside: another machine's disk, or this one's `/`.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, StatVfsMountFlags};
use rustix::io::Errno;

use super::{BackingFile, reopen, resolved};
use crate::error::{Error, Result};

/// The root directory of a host. Paths in it, and the symlinks on their way, lead where they would
/// lead there: never out of it.
#[derive(Debug)]
pub struct Host {
    fd: OwnedFd,
    path: PathBuf,
}

impl Host {
    /// The host whose `/` is the directory `path`; symlinks on the way to it are followed.
    ///
    /// # Errors
    /// Fails when it is no directory or can't be reached.
    pub fn open(path: &Path) -> Result<Host> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, path, flags, Mode::empty())
            .map_err(|err| Error::io(path, err))?;
        let path = real_path(&fd).map_err(|err| Error::io(path, err))?;
        Ok(Host { fd, path })
    }

    /// Where it lies, without a symlink on the way.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the file `path` of the host lies, without a symlink on the way.
    ///
    /// # Errors
    /// Fails when it is missing there, or can't be reached.
    pub fn resolve(&self, path: &Path) -> Result<PathBuf> {
        let shown = || self.shown(path);
        let found = self.find(path)?;
        let real = real_path(&found).map_err(|err| Error::io(shown(), err))?;
        // Something was moved away meanwhile.
        if !real.starts_with(&self.path) {
            return Err(Error::stale(shown()));
        }
        Ok(real)
    }

    /// The whole of the regular file `path` of the host.
    ///
    /// # Errors
    /// Fails when it is missing, is something else, or is larger than `limit` bytes.
    pub fn read(&self, path: &Path, limit: u64) -> Result<Vec<u8>> {
        let failed = |err| Error::io(self.shown(path), err);
        let found = self.find(path)?;
        let stat = BackingFile::check(found.as_fd()).map_err(failed)?;
        if stat.size > limit {
            return Err(Error::corrupt(self.shown(path), format!("larger than {limit} bytes")));
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = File::from(reopen(found.as_fd(), flags).map_err(failed)?);
        let file = BackingFile { contents: super::Contents::Disk(file), stat, next: 0 };
        let mut bytes = vec![0; stat.size as usize];
        let read = file.read_at(0, &mut bytes).map_err(failed)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// Whether nothing that only reads can change a time of access there. Else those of files and
    /// directories stay where this user may ask for it, and those of symlinks do not.
    #[must_use]
    pub fn keeps_times(&self) -> bool {
        let quiet = StatVfsMountFlags::RDONLY | StatVfsMountFlags::NOATIME;
        rustix::fs::fstatvfs(&self.fd).is_ok_and(|stat| stat.f_flag.intersects(quiet))
    }

    fn find(&self, path: &Path) -> Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let found = resolved(self.fd.as_fd(), path.as_os_str().as_bytes(), OFlags::PATH, resolve);
        found.map_err(|err| Error::io(self.shown(path), err))
    }

    fn shown(&self, path: &Path) -> PathBuf {
        self.path.join(path.strip_prefix("/").unwrap_or(path))
    }
}

/// The path that the kernel knows an open file by.
fn real_path(fd: &OwnedFd) -> Result<PathBuf, Errno> {
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let path = rustix::fs::readlinkat(CWD, link, Vec::new())?;
    Ok(PathBuf::from(std::ffi::OsStr::from_bytes(path.as_bytes())))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn symlinks_lead_where_they_would_lead_there() {
        let outer = tempfile::tempdir().unwrap();
        let inside = outer.path().join("disk");
        fs::create_dir_all(inside.join("srv/data")).unwrap();
        fs::create_dir_all(inside.join("var/lib")).unwrap();
        fs::write(inside.join("srv/data/file"), "inside").unwrap();
        fs::write(outer.path().join("secret"), "outside").unwrap();
        symlink("/srv/data", inside.join("var/lib/docker")).unwrap();
        symlink("../../../../secret", inside.join("var/lib/up")).unwrap();
        symlink(outer.path().join("secret"), inside.join("var/lib/out")).unwrap();
        symlink("disk", outer.path().join("link")).unwrap();
        let host = Host::open(&outer.path().join("link")).unwrap();
        let real = fs::canonicalize(&inside).unwrap();
        assert_eq!(host.path(), real);
        assert_eq!(host.resolve("/var/lib/docker".as_ref()).unwrap(), real.join("srv/data"));
        assert_eq!(host.resolve("/../var/./lib".as_ref()).unwrap(), real.join("var/lib"));
        assert_eq!(host.read("var/lib/docker/file".as_ref(), 10).unwrap(), b"inside");
        assert!(host.read("var/lib/docker/file".as_ref(), 5).is_err(), "too large");
        for path in ["var/lib/up", "var/lib/out", "../secret", "var/lib", "missing"] {
            assert!(host.read(path.as_ref(), 100).is_err(), "{path}");
        }
        assert!(host.resolve("var/lib/out".as_ref()).is_err());
    }
}

//! A directory that is filled: whatever is made lies beneath it, is reached through no symlink, and
//! takes the place of nothing.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use crate::backing::Time;
use crate::error::{Error, Result};

/// How every directory on the way is opened.
const STEP: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A directory that is filled.
#[derive(Debug)]
pub(super) struct Place {
    top: OwnedFd,
    path: PathBuf,
    /// The directory that was used last.
    last: Option<(Vec<u8>, OwnedFd)>,
}

impl Place {
    /// Makes the directory `path`, for its owner alone, unless it is there and empty.
    ///
    /// # Errors
    /// Fails where something else is there.
    pub(super) fn create(path: &Path) -> Result<Place> {
        let failed = |err: Errno| Error::io(path, err);
        match rustix::fs::mkdir(path, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(err) => return Err(failed(err)),
        }
        let top = rustix::fs::openat(CWD, path, STEP, Mode::empty()).map_err(failed)?;
        let mut entries = rustix::fs::Dir::read_from(&top).map_err(failed)?;
        let is_used = entries.any(|entry| match entry {
            Ok(entry) => !matches!(entry.file_name().to_bytes(), b"." | b".."),
            Err(_) => true,
        });
        match is_used {
            true => Err(failed(Errno::NOTEMPTY)),
            false => Ok(Place { top, path: path.to_owned(), last: None }),
        }
    }

    /// Makes a directory.
    pub(super) fn make_directory(&mut self, path: &[u8]) -> Result<()> {
        let (parent, name) = self.parent(path)?;
        let made = rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755));
        made.map_err(|err| self.failed(path, err))
    }

    /// Makes a file.
    pub(super) fn make_file(&mut self, path: &[u8]) -> Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let (parent, name) = self.parent(path)?;
        let mode = Mode::from_raw_mode(0o644);
        let made = rustix::fs::openat(parent, name, flags | OFlags::CLOEXEC, mode);
        made.map(File::from).map_err(|err| self.failed(path, err))
    }

    /// Gives the file `target`, which was made here, a further name.
    pub(super) fn make_link(&mut self, target: &[u8], path: &[u8]) -> Result<()> {
        let (parent, name) = self.parent(target)?;
        let parent = parent.try_clone_to_owned().map_err(|err| self.failed(target, err))?;
        let (to, new) = self.parent(path)?;
        let made = rustix::fs::linkat(parent, name, to, new, AtFlags::empty());
        made.map_err(|err| self.failed(path, err))
    }

    /// Opens a directory that was made here.
    pub(super) fn open_directory(&self, path: &[u8]) -> Result<OwnedFd> {
        let mut fd = self.top.try_clone().map_err(|err| self.failed(path, err))?;
        for name in path.split(|&byte| byte == b'/').filter(|name| !name.is_empty()) {
            if matches!(name, b"." | b"..") {
                return Err(self.failed(path, Errno::INVAL));
            }
            let next = rustix::fs::openat(&fd, OsStr::from_bytes(name), STEP, Mode::empty());
            fd = next.map_err(|err| self.failed(path, err))?;
        }
        Ok(fd)
    }

    /// The directory that `path` is to be in, and its name there.
    fn parent<'a>(&mut self, path: &'a [u8]) -> Result<(BorrowedFd<'_>, &'a OsStr)> {
        let base = path.iter().rposition(|&byte| byte == b'/');
        let (parent, name) = match base {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&b""[..], path),
        };
        if matches!(name, b"" | b"." | b"..") {
            return Err(self.failed(path, Errno::INVAL));
        }
        let fd = match self.last.take() {
            Some((last, fd)) if last == parent => fd,
            _ => self.open_directory(parent)?,
        };
        let last = self.last.insert((parent.to_vec(), fd));
        Ok((last.1.as_fd(), OsStr::from_bytes(name)))
    }

    /// The error that something failed with at `path`.
    pub(super) fn failed(&self, path: &[u8], err: impl Into<io::Error>) -> Error {
        Error::io(self.path.join(OsStr::from_bytes(path)), err)
    }
}

/// Sets when a file was last changed and read.
pub(super) fn set_time(fd: impl AsFd, time: Time) -> Result<(), Errno> {
    let time = Timespec { tv_sec: time.secs, tv_nsec: time.nanos.into() };
    rustix::fs::futimens(fd, &Timestamps { last_access: time, last_modification: time })
}

/// Sets an xattr that a file has not yet.
pub(super) fn set_xattr(fd: impl AsFd, name: &str, value: &[u8]) -> Result<(), Errno> {
    rustix::fs::fsetxattr(fd, name, value, XattrFlags::CREATE)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_is_made_through_a_symlink_or_over_something() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("secret"), "secret").unwrap();
        let inside = dir.path().join("inside");
        let mut place = Place::create(&inside).unwrap();
        symlink(&outside, inside.join("link")).unwrap();
        fs::write(inside.join("file"), "here").unwrap();
        for path in ["link/x", "link", "file", "file/x", "missing/x", "../x", "..", "a/../../x"] {
            assert!(place.make_file(path.as_bytes()).is_err(), "{path}");
        }
        assert!(place.make_directory(b"link/d").is_err());
        assert!(place.make_link(b"link/secret", b"new").is_err());
        assert!(place.make_link(b"file", b"link/new").is_err());
        place.make_link(b"file", b"new").unwrap();
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    }

    #[test]
    fn only_an_empty_directory_is_filled() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new");
        Place::create(&path).unwrap();
        Place::create(&path).unwrap().make_file(b"file").unwrap();
        assert!(Place::create(&path).is_err());
        assert!(Place::create(&path.join("file")).is_err());
        assert!(Place::create(&dir.path().join("a/b")).is_err());
        symlink("new", dir.path().join("link")).unwrap();
        assert!(Place::create(&dir.path().join("link")).is_err());
    }
}

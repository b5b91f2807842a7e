//! An open directory of a store: its names, and attributes of what is in it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, OFlags, RawDir};
use rustix::io::Errno;

use super::{Place, Stat, XATTR_MAX, beneath};
use crate::error::{Error, Result};

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// The name, one component.
    pub name: OsString,
    /// Its inode number.
    pub ino: u64,
}

/// An open directory of a store.
#[derive(Debug)]
pub struct Dir {
    pub(super) place: Place,
    pub(super) path: PathBuf,
}

impl Dir {
    /// Where it lies, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every name in it but `.` and `..`, in the order of the disk.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn names(&self) -> Result<Vec<DirEntry>> {
        let fd = match &self.place {
            Place::Disk(fd) => fd,
            Place::Packed(dir) => return Ok(dir.names()),
        };
        let fd = beneath(fd.as_fd(), b"", OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(|err| Error::io(&self.path, err))?;
        read_names(fd.as_fd()).map_err(|err| Error::io(&self.path, err))
    }

    /// Attributes of the directory itself.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn own_stat(&self) -> Result<Stat> {
        let stat = match &self.place {
            Place::Disk(fd) => rustix::fs::fstat(fd)
                .map_err(io::Error::from)
                .and_then(|stat| Stat::from_raw(&stat)),
            Place::Packed(dir) => dir.stat(OsStr::new("")),
        };
        stat.map_err(|err| Error::io(&self.path, err))
    }

    /// Attributes of the entry `name`, a symlink's own if it is one.
    ///
    /// # Errors
    /// Fails when it is missing, or `name` is more than one component.
    pub fn stat(&self, name: &OsStr) -> Result<Stat> {
        self.check(name)?;
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let stat = match &self.place {
            Place::Disk(fd) => rustix::fs::statat(fd, name, flags)
                .map_err(io::Error::from)
                .and_then(|stat| Stat::from_raw(&stat)),
            Place::Packed(dir) => dir.stat(name),
        };
        stat.map_err(|err| Error::io(self.path.join(name), err))
    }

    /// The target of the symlink `name`.
    ///
    /// # Errors
    /// Fails when it is missing or no symlink.
    pub fn read_link(&self, name: &OsStr) -> Result<Vec<u8>> {
        self.check(name)?;
        let target = match &self.place {
            Place::Disk(fd) => {
                rustix::fs::readlinkat(fd, name, Vec::new()).map(std::ffi::CString::into_bytes)
            }
            Place::Packed(dir) => dir.read_link(name),
        };
        target.map_err(|err| Error::io(self.path.join(name), err))
    }

    /// The value of the xattr `attribute` of the entry `name` (`""` is the directory itself);
    /// `None` where it has none of that name, or the file system knows none at all.
    ///
    /// # Errors
    /// Whatever else the file system says.
    pub fn xattr(&self, name: &OsStr, attribute: &OsStr) -> Result<Option<Vec<u8>>> {
        let path = match &self.place {
            Place::Disk(_) => self.proc_path(name)?,
            Place::Packed(dir) => {
                let value = dir.xattr(name, attribute);
                return value.map_err(|err| Error::io(self.path.join(name), err));
            }
        };
        let mut value = vec![0; 256];
        loop {
            match rustix::fs::lgetxattr(&path, attribute, &mut value[..]) {
                Ok(length) => {
                    value.truncate(length);
                    return Ok(Some(value));
                }
                Err(Errno::RANGE) if value.len() < XATTR_MAX => value.resize(XATTR_MAX, 0),
                Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
                Err(err) => return Err(Error::io(self.path.join(name), err)),
            }
        }
    }

    /// The names of all xattrs of the entry `name` (`""` is the directory itself), sorted.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn xattrs(&self, name: &OsStr) -> Result<Vec<OsString>> {
        let path = match &self.place {
            Place::Disk(_) => self.proc_path(name)?,
            Place::Packed(dir) => {
                let names = dir.xattrs(name);
                return names.map_err(|err| Error::io(self.path.join(name), err));
            }
        };
        let mut list = vec![0; 1024];
        let length = loop {
            match rustix::fs::llistxattr(&path, &mut list[..]) {
                Ok(length) => break length,
                Err(Errno::RANGE) if list.len() < XATTR_MAX => list.resize(XATTR_MAX, 0),
                Err(Errno::OPNOTSUPP) => break 0,
                Err(err) => return Err(Error::io(self.path.join(name), err)),
            }
        };
        let mut names: Vec<OsString> = list[..length]
            .split(|&byte| byte == 0)
            .filter(|name| !name.is_empty())
            .map(|name| OsStr::from_bytes(name).to_owned())
            .collect();
        names.sort();
        Ok(names)
    }

    /// A path to an entry (`""` is the directory itself) that starts at the open descriptor:
    /// there is no `lgetxattrat` before Linux 6.13.
    ///
    /// # Errors
    /// EINVAL where `name` is not that of an entry.
    pub(crate) fn proc_path(&self, name: &OsStr) -> Result<PathBuf> {
        let path = PathBuf::from(format!("/proc/self/fd/{}", self.as_fd().as_raw_fd()));
        if name.is_empty() {
            return Ok(path.join("."));
        }
        self.check(name)?;
        Ok(path.join(name))
    }

    fn check(&self, name: &OsStr) -> Result<()> {
        match name.as_bytes() {
            b"" | b"." | b".." => Err(Error::errno_of(self.path.join(name), Errno::INVAL)),
            bytes if bytes.contains(&b'/') => {
                Err(Error::errno_of(self.path.join(name), Errno::INVAL))
            }
            _ => Ok(()),
        }
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.place.as_fd()
    }
}

/// What is left to read of an open directory.
pub(super) fn read_names(dir: BorrowedFd<'_>) -> Result<Vec<DirEntry>, Errno> {
    let mut buf = [MaybeUninit::uninit(); 32 * 1024];
    let mut entries = Vec::new();
    let mut raw = RawDir::new(dir, &mut buf);
    while let Some(entry) = raw.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            entries.push(DirEntry { name: OsStr::from_bytes(name).to_owned(), ino: entry.ino() });
        }
    }
    Ok(entries)
}

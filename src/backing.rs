//! Files of a store: opened beneath a fixed directory, through no symlink, onto no other mount; or
//! those of a layer that is no directory, from the table of a [`PackedTree`], by the same calls.
//!
//! Store data is foreign. Rules keep every open inside the store, and leave no trace there:
//! 1. A [`Root`] is opened once; everything else is reached from its descriptor by `openat2` with
//!    `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV`.
//! 2. Attributes are read by one name from an open directory, never by a longer path.
//! 3. Nothing but a regular file is opened for its data; where a running container could swap one
//!    for a device or a FIFO in between ([`Access::Live`]), the type is checked on an `O_PATH`
//!    descriptor first.
//! 4. What is opened for its data or its names keeps its time of access (`O_NOATIME`), where the
//!    kernel permits that: to the owner and to root.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{ABS, AtFlags, CWD, Mode, OFlags, RawDir, ResolveFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};

mod bytes;
mod checked;
mod host;
pub mod mounts;
mod packed;
mod stat;

pub use bytes::{Bytes, FileRange, Held};
pub use checked::Checked;
pub use host::Host;
pub use packed::{Damage, Extent, NewFile, PackedBuilder, PackedTree, What};
pub use stat::{FileKind, Fingerprint, Stat, Time};

use packed::{PackedDir, PackedFile};

/// Longest path that one system call takes, in bytes, with the ending NUL (Linux `PATH_MAX`).
const PATH_MAX: usize = 4096;

/// Longest xattr value or list of names, in bytes (Linux `XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const XATTR_MAX: usize = 65536;

/// Whether somebody may change a directory tree while it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The engine writes it once and leaves it: image layers, metadata.
    Sealed,
    /// A container may be writing to it now.
    Live,
}

/// A directory of a store, and all beneath it.
#[derive(Debug)]
pub struct Root {
    place: Place,
    path: PathBuf,
    access: Access,
}

/// Where a directory is.
#[derive(Debug)]
enum Place {
    Disk(OwnedFd),
    Packed(PackedDir),
}

impl Root {
    /// Opens `path` as the user gave it; symlinks in it are followed.
    ///
    /// # Errors
    /// Fails when it is no directory or can't be read.
    pub fn open(path: &Path, access: Access) -> Result<Root> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, path, flags, Mode::empty())
            .map_err(|err| Error::io(path, err))?;
        Ok(Root { place: Place::Disk(fd), path: path.to_owned(), access })
    }

    /// The files of a layer that is no directory; `path` is what messages call it.
    #[must_use]
    pub fn packed(tree: Arc<PackedTree>, path: impl Into<PathBuf>) -> Root {
        let place = Place::Packed(PackedDir::top(tree));
        Root { place, path: path.into(), access: Access::Sealed }
    }

    /// Opens `path`, which must be absolute and lead through no symlink: a place that was resolved
    /// once, so that nobody can make it lead elsewhere later.
    ///
    /// # Errors
    /// Fails when it is no directory, can't be read, or leads through a symlink.
    pub fn open_resolved(path: &Path, access: Access) -> Result<Root> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let fd = resolved(CWD, path.as_os_str().as_bytes(), flags, resolve)
            .map_err(|err| Error::io(path, err))?;
        Ok(Root { place: Place::Disk(fd), path: path.to_owned(), access })
    }

    /// The directory `path` of this root as a root of its own.
    ///
    /// # Errors
    /// Fails when `path` is missing, leads through a symlink, or is no directory.
    pub fn sub(&self, path: impl AsRef<Path>, access: Access) -> Result<Root> {
        let Dir { place, path } = self.dir(path)?;
        Ok(Root { place, path, access })
    }

    /// The directory `path` of this root as a root of its own, on whatever mount it lies: for the
    /// few that administrators mount, or that engines bind onto themselves (Docker did so with
    /// `overlay2` and `containers`).
    ///
    /// # Errors
    /// Fails when `path` is missing, leads through a symlink, or is no directory.
    pub fn sub_mount(&self, path: impl AsRef<Path>, access: Access) -> Result<Root> {
        let path = path.as_ref();
        let Place::Disk(fd) = &self.place else { return self.sub(path, access) };
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let resolve = BENEATH.difference(ResolveFlags::NO_XDEV);
        let fd = resolved(fd.as_fd(), path.as_os_str().as_bytes(), flags, resolve)
            .map_err(|err| Error::io(self.path.join(path), err))?;
        Ok(Root { place: Place::Disk(fd), path: self.path.join(path), access })
    }

    /// Where the root lies, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether somebody may be writing beneath.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access
    }

    /// True once the directory itself is gone from the disk, though it is still open here.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        match &self.place {
            Place::Disk(fd) => rustix::fs::fstat(fd).is_ok_and(|stat| stat.st_nlink == 0),
            Place::Packed(_) => false,
        }
    }

    /// Opens the directory `path` (`""` is the root itself).
    ///
    /// # Errors
    /// Fails when `path` is missing, leads through a symlink, or is no directory.
    pub fn dir(&self, path: impl AsRef<Path>) -> Result<Dir> {
        let path = path.as_ref();
        let shown = join(&self.path, path);
        let place = match &self.place {
            Place::Disk(fd) => {
                Place::Disk(self.open_fd(fd, path, OFlags::PATH | OFlags::DIRECTORY)?)
            }
            Place::Packed(top) => {
                Place::Packed(top.dir(path).map_err(|err| Error::io(&shown, err))?)
            }
        };
        Ok(Dir { place, path: shown })
    }

    /// The directory `path`, and what [`Dir::names`] gives for it, with one open less.
    ///
    /// # Errors
    /// As for [`Root::dir`], and whatever else the file system says.
    pub fn listed_dir(&self, path: impl AsRef<Path>) -> Result<(Dir, Vec<DirEntry>)> {
        let path = path.as_ref();
        let Place::Disk(fd) = &self.place else {
            let dir = self.dir(path)?;
            let names = dir.names()?;
            return Ok((dir, names));
        };
        let fd = self.open_fd(fd, path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let path = join(&self.path, path);
        let names = read_names(fd.as_fd()).map_err(|err| Error::io(&path, err))?;
        Ok((Dir { place: Place::Disk(fd), path }, names))
    }

    /// Attributes of `path`, a symlink's own if it is one.
    ///
    /// # Errors
    /// Fails when it is missing or an ancestor is a symlink.
    pub fn stat(&self, path: impl AsRef<Path>) -> Result<Stat> {
        let path = path.as_ref();
        match split(path) {
            None => self.dir("")?.own_stat(),
            Some((parent, name)) => self.dir(parent)?.stat(name),
        }
    }

    /// Opens the regular file `path` to read it.
    ///
    /// # Errors
    /// Fails when it is missing, is no regular file, or leads through a symlink.
    pub fn open_file(&self, path: impl AsRef<Path>) -> Result<BackingFile> {
        let path = path.as_ref();
        let shown = || self.path.join(path);
        let root = match &self.place {
            Place::Disk(fd) => fd,
            Place::Packed(top) => {
                let (file, stat) = top.file(path).map_err(|err| Error::io(shown(), err))?;
                return Ok(BackingFile { contents: Contents::Packed(file), stat, next: 0 });
            }
        };
        let read = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = match self.access {
            Access::Sealed => self.open_fd(root, path, read)?,
            Access::Live => {
                let handle = self.open_fd(root, path, OFlags::PATH | OFlags::NOFOLLOW)?;
                BackingFile::check(handle.as_fd()).map_err(|err| Error::io(shown(), err))?;
                reopen(handle.as_fd(), read).map_err(|err| Error::io(shown(), err))?
            }
        };
        let stat = BackingFile::check(fd.as_fd()).map_err(|err| Error::io(shown(), err))?;
        Ok(BackingFile { contents: Contents::Disk(File::from(fd)), stat, next: 0 })
    }

    /// The whole of a file that is expected to be small.
    ///
    /// # Errors
    /// Fails as [`Root::open_file`] does, as corrupt where something else is in the file's place,
    /// and when it is larger than `limit` bytes.
    pub fn read(&self, path: impl AsRef<Path>, limit: u64) -> Result<Vec<u8>> {
        let path = path.as_ref();
        let file = self.open_file(path).map_err(|err| match err.is_misplaced() {
            true => Error::corrupt(self.path.join(path), "something else is in its place"),
            false => err,
        })?;
        if file.stat.size > limit {
            let why = format!("larger than {limit} bytes");
            return Err(Error::corrupt(self.path.join(path), why));
        }
        let mut bytes = vec![0; file.stat.size as usize];
        let read =
            file.read_at(0, &mut bytes).map_err(|err| Error::io(self.path.join(path), err))?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// Opens `path` beneath this root, which `root` is, with all the rules of this module.
    fn open_fd(&self, root: &OwnedFd, path: &Path, flags: OFlags) -> Result<OwnedFd> {
        let mut rest = path.as_os_str().as_bytes();
        let mut base: Option<OwnedFd> = None;
        while rest.len() >= PATH_MAX {
            let head = rest[..PATH_MAX].iter().rposition(|&byte| byte == b'/').unwrap_or(0);
            if head == 0 {
                break; // no component can be that long: the call below says ENAMETOOLONG
            }
            let dir = base.as_ref().unwrap_or(root).as_fd();
            let next = beneath(dir, &rest[..head], OFlags::PATH | OFlags::DIRECTORY);
            base = Some(next.map_err(|err| Error::io(join(&self.path, path), err))?);
            rest = &rest[head + 1..];
        }
        let dir = base.as_ref().unwrap_or(root).as_fd();
        beneath(dir, rest, flags).map_err(|err| Error::io(join(&self.path, path), err))
    }
}

/// What is in memory has no descriptor: each system call on it says EBADF.
impl AsFd for Place {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Place::Disk(fd) => fd.as_fd(),
            Place::Packed(_) => ABS,
        }
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.place.as_fd()
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.place.as_fd()
    }
}

fn join(root: &Path, path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() { root.to_owned() } else { root.join(path) }
}

fn split(path: &Path) -> Option<(&Path, &OsStr)> {
    let bytes = path.as_os_str().as_bytes();
    match bytes.iter().rposition(|&byte| byte == b'/') {
        None if bytes.is_empty() => None,
        None => Some((Path::new(""), path.as_os_str())),
        Some(at) => {
            Some((Path::new(OsStr::from_bytes(&bytes[..at])), OsStr::from_bytes(&bytes[at + 1..])))
        }
    }
}

/// How every path of a store is walked.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

fn beneath(dir: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    resolved(dir, path, flags, BENEATH)
}

fn resolved(
    dir: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let path: &[u8] = if path.is_empty() { b"." } else { path };
    quietly(flags, |flags| {
        loop {
            // EAGAIN: something was renamed while the kernel walked (openat2(2), "RESOLVE_BENEATH").
            match rustix::fs::openat2(dir, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => return result,
            }
        }
    })
}

/// Opens without changing the time of access, where that is permitted.
fn quietly(
    flags: OFlags,
    open: impl Fn(OFlags) -> Result<OwnedFd, Errno>,
) -> Result<OwnedFd, Errno> {
    if flags.contains(OFlags::PATH) {
        return open(flags);
    }
    match open(flags | OFlags::NOATIME) {
        Err(Errno::PERM) => open(flags),
        result => result,
    }
}

/// Opens again, for its data, the very file that an `O_PATH` descriptor stands for.
fn reopen(handle: BorrowedFd<'_>, flags: OFlags) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
    let open = |flags| rustix::fs::openat(CWD, &*path, flags | OFlags::CLOEXEC, Mode::empty());
    Ok(quietly(flags, open)?)
}

/// A regular file, open for reading.
#[derive(Debug)]
pub struct BackingFile {
    contents: Contents,
    stat: Stat,
    /// Where [`io::Read`] goes on.
    next: u64,
}

#[derive(Debug)]
enum Contents {
    Disk(File),
    Packed(PackedFile),
}

impl BackingFile {
    fn check(fd: BorrowedFd<'_>) -> io::Result<Stat> {
        let stat = Stat::from_raw(&rustix::fs::fstat(fd)?)?;
        match stat.kind {
            FileKind::Regular => Ok(stat),
            FileKind::Directory => Err(Errno::ISDIR.into()),
            FileKind::Symlink => Err(Errno::LOOP.into()),
            FileKind::CharDevice | FileKind::BlockDevice | FileKind::Fifo | FileKind::Socket => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file"))
            }
        }
    }

    /// Its attributes when it was opened.
    #[must_use]
    pub fn stat(&self) -> &Stat {
        &self.stat
    }

    /// Its descriptor, for system calls that copy without reading.
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &self.contents {
            Contents::Disk(file) => Some(file.as_fd()),
            Contents::Packed(_) => None,
        }
    }

    /// Its attributes at this moment.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn stat_now(&self) -> io::Result<Stat> {
        match &self.contents {
            Contents::Disk(file) => Stat::from_raw(&rustix::fs::fstat(file)?),
            Contents::Packed(_) => Ok(self.stat),
        }
    }

    /// Fills `buf` from byte `offset` on, and returns how many bytes were read: `buf.len()`, or
    /// less only where the file ends.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let file = match &self.contents {
            Contents::Disk(file) => file,
            Contents::Packed(file) => return file.read_at(offset, buf),
        };
        let mut done = 0;
        while done < buf.len() {
            match file.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
        }
        Ok(done)
    }

    /// The first byte of data (or of a hole) at or after `offset`; `None` where there is no more.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn seek(&self, offset: u64, seek: Seek) -> io::Result<Option<u64>> {
        let file = match &self.contents {
            Contents::Disk(file) => file,
            Contents::Packed(file) => return Ok(file.seek(offset, seek)),
        };
        let from = match seek {
            Seek::Data => rustix::fs::SeekFrom::Data(offset),
            Seek::Hole => rustix::fs::SeekFrom::Hole(offset),
        };
        match rustix::fs::seek(file, from) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NXIO) => Ok(None),
            Err(err) => Err(err.into()),
        }
    }
}

impl AsFd for BackingFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.contents {
            Contents::Disk(file) => file.as_fd(),
            Contents::Packed(_) => ABS,
        }
    }
}

impl io::Read for BackingFile {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.read_at(self.next, buf)?;
        self.next += read as u64;
        Ok(read)
    }
}

/// What to look for in a sparse file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seek {
    /// Bytes that are stored.
    Data,
    /// A run of zeros that is not stored; the end of a file counts as one.
    Hole,
}

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
    place: Place,
    path: PathBuf,
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
            Place::Disk(fd) => self.proc_path(fd, name)?,
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
            Place::Disk(fd) => self.proc_path(fd, name)?,
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

    /// A path to an entry that starts at the open descriptor: there is no `lgetxattrat` before
    /// Linux 6.13.
    fn proc_path(&self, fd: &OwnedFd, name: &OsStr) -> Result<PathBuf> {
        let path = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
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

/// What is left to read of an open directory.
fn read_names(dir: BorrowedFd<'_>) -> Result<Vec<DirEntry>, Errno> {
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn root(dir: &tempfile::TempDir) -> Root {
        Root::open(dir.path(), Access::Sealed).unwrap()
    }

    #[test]
    fn no_open_leaves_the_root() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("in")).unwrap();
        fs::write(dir.path().join("secret"), "secret").unwrap();
        symlink("../secret", dir.path().join("in/link")).unwrap();
        symlink("..", dir.path().join("in/up")).unwrap();
        let inner = root(&dir).sub("in", Access::Sealed).unwrap();
        for path in ["link", "up/secret", "../secret", "/etc/passwd", "./../secret"] {
            assert!(inner.open_file(path).is_err(), "{path}");
            assert!(inner.read(path, 100).is_err(), "{path}");
        }
        assert!(inner.dir("up").is_err());
        assert!(inner.stat("../secret").is_err());
        assert_eq!(inner.stat("link").unwrap().kind, FileKind::Symlink);
    }

    #[test]
    fn a_root_knows_that_it_was_removed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("layer")).unwrap();
        let layer = root(&dir).sub("layer", Access::Sealed).unwrap();
        assert!(!layer.is_removed());
        fs::remove_dir(dir.path().join("layer")).unwrap();
        assert!(layer.is_removed());
    }

    #[test]
    fn only_regular_files_are_opened_for_data() {
        let dir = tempfile::tempdir().unwrap();
        rustix::fs::mkfifoat(CWD, dir.path().join("fifo"), Mode::from_raw_mode(0o600)).unwrap();
        fs::create_dir(dir.path().join("dir")).unwrap();
        for access in [Access::Sealed, Access::Live] {
            let root = Root::open(dir.path(), access).unwrap();
            for name in ["fifo", "dir", "missing"] {
                assert!(root.open_file(name).is_err(), "{name}");
            }
        }
    }

    #[test]
    fn a_live_file_reads_like_a_sealed_one() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "0123456789").unwrap();
        for access in [Access::Sealed, Access::Live] {
            let root = Root::open(dir.path(), access).unwrap();
            let mut buf = [0; 4];
            assert_eq!(root.open_file("file").unwrap().read_at(8, &mut buf).unwrap(), 2);
            assert_eq!(&buf[..2], b"89");
            assert!(root.read("file", 9).is_err());
        }
    }

    #[test]
    fn a_path_longer_than_path_max_is_reached() {
        let dir = tempfile::tempdir().unwrap();
        let name = "d".repeat(200);
        let mut parent = OwnedFd::from(File::open(dir.path()).unwrap());
        let mut path = PathBuf::new();
        for _ in 0..30 {
            rustix::fs::mkdirat(&parent, &name, Mode::from_raw_mode(0o755)).unwrap();
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            parent = rustix::fs::openat(&parent, &name, flags, Mode::empty()).unwrap();
            path.push(&name);
        }
        assert!(root(&dir).stat(&path).unwrap().is_dir());
        assert_eq!(root(&dir).dir(&path).unwrap().names().unwrap(), []);
    }

    #[test]
    fn xattrs_are_read_of_links_and_directories_too() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("dir")).unwrap();
        symlink("nowhere", dir.path().join("link")).unwrap();
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::lsetxattr(dir.path().join("dir"), "user.a", &[7; 300], flags).unwrap();
        let open = root(&dir).dir("").unwrap();
        let value = open.xattr(OsStr::new("dir"), OsStr::new("user.a")).unwrap();
        assert_eq!(value, Some(vec![7; 300]));
        assert_eq!(open.xattrs(OsStr::new("dir")).unwrap(), ["user.a"]);
        assert_eq!(root(&dir).dir("dir").unwrap().xattrs(OsStr::new("")).unwrap(), ["user.a"]);
        assert_eq!(open.xattrs(OsStr::new("link")).unwrap(), Vec::<OsString>::new());
        assert_eq!(open.xattr(OsStr::new("link"), OsStr::new("user.a")).unwrap(), None);
    }
}

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

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{ABS, CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};

mod bytes;
mod checked;
mod dir;
mod file;
mod host;
pub mod mounts;
mod packed;
mod stat;
mod watch;

pub use bytes::{Bytes, FileRange, Held};
pub use checked::Checked;
pub use dir::{Dir, DirEntry};
pub use file::{BackingFile, Seek};
pub use host::Host;
pub use packed::{Damage, Extent, NewFile, PackedBuilder, PackedTree, What};
pub use stat::{FileKind, Fingerprint, Stat, Time};
pub use watch::{Heard, Watch, Watched};

use dir::read_names;
use file::Contents;
use packed::PackedDir;

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

    /// The directory itself, for what only descriptors can name; `None` where it is none on disk.
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &self.place {
            Place::Disk(fd) => Some(fd.as_fd()),
            Place::Packed(_) => None,
        }
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

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
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

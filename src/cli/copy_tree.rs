//! Trees, copied with all that a file system can hold of them.

use std::collections::HashMap;
use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::vec::IntoIter;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_NOW, Uid,
    XattrFlags,
};
use rustix::io::Errno;
use rustix::process::{geteuid, getpid};

use super::cp::{Target, Why, fill, is_dir, kind_at, open_copy};
use super::paths::Failures;
use super::progress::Progress;
use crate::backing::FileKind;
use crate::tree::{Follow, Found, Reader, Tree};

/// How many directories below one another are copied: each is held open.
const DEPTH_MAX: usize = 500;

/// Copies trees, and says what of them failed.
#[derive(Debug)]
pub(super) struct Trees<'a> {
    pub(super) progress: &'a Progress,
    pub(super) failures: &'a mut Failures,
}

/// A directory that is being copied.
struct Open<'t> {
    dir: OwnedFd,
    found: Found<'t>,
    names: IntoIter<OsString>,
}

/// One tree that is being copied.
struct Copy<'t> {
    /// The directories from the top to where it is now.
    open: Vec<Open<'t>>,
    /// That one, from the top.
    path: PathBuf,
    /// Files with several names, by inode number: where their copies are.
    links: HashMap<u64, PathBuf>,
}

impl Trees<'_> {
    /// Copies what is at `path` to `target`. What fails below it is said here.
    pub(super) fn copy(
        &mut self,
        tree: &Tree,
        path: &Path,
        target: &Target<'_>,
    ) -> Result<(), Why> {
        let found = tree.find(path, Follow::NotLast)?;
        if !is_dir(found.attr()) {
            return self.leaf(&found, target.dir.as_fd(), target.name);
        }
        let mut copy = Copy { open: Vec::new(), path: PathBuf::new(), links: HashMap::new() };
        copy.open.push(enter(&found, target.dir.as_fd(), target.name)?);
        while let Some(top) = copy.open.last_mut() {
            match top.names.next() {
                Some(name) => {
                    let shown = path.join(&copy.path).join(&name);
                    if let Err(why) = self.entry(&mut copy, &name) {
                        self.say(&shown, &why);
                    }
                }
                None => {
                    let shown = path.join(&copy.path);
                    if let Err(why) = self.leave(&mut copy) {
                        self.say(&shown, &why);
                    }
                }
            }
        }
        Ok(())
    }

    fn say(&mut self, path: &Path, why: &Why) {
        let line = self.failures.note(path, &why.to_string());
        self.progress.say(&line);
    }

    /// Copies the entry `name` of the directory where the copy is.
    fn entry<'t>(&mut self, copy: &mut Copy<'t>, name: &OsStr) -> Result<(), Why> {
        let Some(above) = copy.open.last() else { return Ok(()) };
        let found = above.found.child(name)?;
        let dir = above.dir.as_fd();
        if is_dir(found.attr()) {
            if copy.open.len() == DEPTH_MAX {
                return Err(Why::Refused("nested too deeply"));
            }
            let opened = enter(&found, dir, name)?;
            copy.open.push(opened);
            copy.path.push(name);
            return Ok(());
        }
        let attr = found.attr();
        let has_names = attr.kind == FileKind::Regular && attr.nlink > 1;
        let first = copy.links.get(&attr.ino).filter(|_| has_names);
        if let (Some(first), Some(top)) = (first, copy.open.first())
            && link(top.dir.as_fd(), first, dir, name).is_ok()
        {
            return Ok(());
        }
        self.leaf(&found, dir, name)?;
        if has_names {
            copy.links.insert(attr.ino, copy.path.join(name));
        }
        Ok(())
    }

    /// Ends a directory: what is in it is there, and its own attributes follow.
    fn leave(&self, copy: &mut Copy<'_>) -> Result<(), Why> {
        let Some(done) = copy.open.pop() else { return Ok(()) };
        copy.path.pop();
        set_attributes(&done.found, done.dir.as_fd(), OsStr::new("."))
    }

    /// Copies anything but a directory.
    fn leaf(&mut self, found: &Found<'_>, dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), Why> {
        let attr = found.attr();
        let there = kind_at(dir, name)?;
        if there == Some(FileType::Directory) {
            return Err(Errno::ISDIR.into());
        }
        // A copy that was cut off is continued, one with several names is not ours alone.
        let kept = (attr.kind == FileKind::Regular && there == Some(FileType::RegularFile))
            .then(|| open_copy(dir, name, 0o600).ok())
            .flatten()
            .filter(|file| rustix::fs::fstat(file).is_ok_and(|stat| stat.st_nlink == 1));
        if kept.is_none() && there.is_some() {
            rustix::fs::unlinkat(dir, name, AtFlags::empty())?;
        }
        let (major, minor) = attr.rdev;
        let make = |kind: FileType, device| {
            rustix::fs::mknodat(dir, name, kind, Mode::from_raw_mode(0o600), device)
        };
        match attr.kind {
            FileKind::Regular => {
                let open = kept.map_or_else(|| open_copy(dir, name, 0o600), Ok)?;
                fill(found, open, dir, name, self.progress)?;
            }
            FileKind::Symlink => {
                let target = CString::new(found.tree().read_link(attr.ino)?);
                let target =
                    target.map_err(|_| Why::Refused("leads to a name with a NUL in it"))?;
                rustix::fs::symlinkat(&*target, dir, name)?;
            }
            FileKind::CharDevice => {
                make(FileType::CharacterDevice, rustix::fs::makedev(major, minor))?;
            }
            FileKind::BlockDevice => {
                make(FileType::BlockDevice, rustix::fs::makedev(major, minor))?
            }
            FileKind::Fifo => make(FileType::Fifo, 0)?,
            FileKind::Socket => make(FileType::Socket, 0)?,
            FileKind::Directory => return Err(Errno::ISDIR.into()),
        }
        set_attributes(found, dir, name)
    }
}

/// Makes the directory `name`, or takes the one that is there, and lists what is to be copied to it.
fn enter<'t>(found: &Found<'t>, dir: BorrowedFd<'_>, name: &OsStr) -> Result<Open<'t>, Why> {
    match rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(err) => return Err(err.into()),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    let listing = found.tree().read_dir(found.attr().ino)?;
    let names: Vec<OsString> = listing.children.iter().map(|child| child.name.clone()).collect();
    Ok(Open { dir, found: found.clone(), names: names.into_iter() })
}

/// Gives a copy at `first`, from `top` on, the name `name` in `dir` as well.
fn link(top: BorrowedFd<'_>, first: &Path, dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), Why> {
    let (Some(parent), Some(known)) = (first.parent(), first.file_name()) else {
        return Err(Errno::NOENT.into());
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = rustix::fs::openat2(top, parent, flags, Mode::empty(), resolve)?;
    if kind_at(dir, name)?.is_some_and(|kind| kind != FileType::Directory) {
        rustix::fs::unlinkat(dir, name, AtFlags::empty())?;
    }
    Ok(rustix::fs::linkat(parent, known, dir, name, AtFlags::empty())?)
}

/// A path to an entry that starts at an open descriptor: extended attributes have no other call.
fn own_path(dir: BorrowedFd<'_>, name: &OsStr) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name)
}

/// Those that may be set there: an ordinary user may set few, and some file systems know none.
fn set_xattrs(found: &Found<'_>, path: &Path) -> Result<(), Why> {
    let (tree, ino) = (found.tree(), found.attr().ino);
    let reader = Reader { uid: geteuid().as_raw(), pid: getpid().as_raw_pid().unsigned_abs() };
    for name in tree.xattrs(ino, reader)? {
        let value = tree.xattr(ino, &name, reader)?;
        match rustix::fs::lsetxattr(path, name.as_bytes(), &value, XattrFlags::empty()) {
            Ok(()) => {}
            Err(err @ (Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP)) => {
                tracing::info!("{}: {}: {err}", path.display(), name.display());
            }
            Err(err) => return Err(err.into()),
        }
    }
    Ok(())
}

/// Owner, extended attributes, mode and time, in an order in which none undoes another. Only root
/// can give files away: what anybody else copies is his, and runs with nobody else's rights.
fn set_attributes(found: &Found<'_>, dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), Why> {
    let attr = found.attr();
    let is_root = geteuid().is_root();
    if is_root {
        // The highest number stands for no change, and is nobody's.
        let uid = (attr.uid != u32::MAX).then(|| Uid::from_raw(attr.uid));
        let gid = (attr.gid != u32::MAX).then(|| Gid::from_raw(attr.gid));
        rustix::fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    set_xattrs(found, &own_path(dir, name))?;
    if attr.kind != FileKind::Symlink {
        let mode = if is_root { attr.permissions } else { attr.permissions & 0o1777 };
        // A symlink in its place now would be followed: O_PATH and a look prevent that.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let own = rustix::fs::openat(dir, name, flags, Mode::empty())?;
        if FileType::from_raw_mode(rustix::fs::fstat(&own)?.st_mode) == FileType::Symlink {
            return Err(Errno::LOOP.into());
        }
        let path = format!("/proc/self/fd/{}", own.as_raw_fd());
        rustix::fs::chmodat(CWD, path, Mode::from_raw_mode(mode), AtFlags::empty())?;
    }
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        last_modification: Timespec { tv_sec: attr.mtime.secs, tv_nsec: attr.mtime.nanos.into() },
    };
    Ok(rustix::fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

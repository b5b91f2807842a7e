//! Copies a directory tree, name for name: owners, modes, times to the nanosecond, xattrs of every
//! class, hard links, holes, devices. Contents are shared with the original where the file system
//! can (`FICLONE`).
//!
//! The original may be changing, and whoever changes it may be hostile: it is read through its
//! [`Root`], file by file; what vanishes meanwhile is left out. The copy lies in a directory that
//! nobody else may enter.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::backing::{BackingFile, Dir, FileKind, Root, Stat, Time};
use crate::error::{Error, Result};

/// How much is copied by one system call, in bytes.
const PIECE: usize = 1 << 30;

/// How deep a tree may be: each name costs a walk from its root.
const DEPTH_MAX: usize = 4000;

/// Copies all that is in `from` into the empty directory `to`, and gives `to` itself the attributes
/// of `from`.
///
/// # Errors
/// Fails when the copy can't be written, when the original can't be read for another reason than
/// that a file is gone, and when it is nested too deep.
pub(super) fn copy(from: &Root, to: &Root) -> Result<()> {
    let mut copy = Copy { from, to, links: HashMap::new() };
    let mut path = PathBuf::new();
    let mut open: Vec<Level> = copy.enter(&path)?.into_iter().collect();
    while let Some(level) = open.last_mut() {
        if let Some(name) = level.directories.pop() {
            path.push(name);
            if open.len() == DEPTH_MAX {
                return Err(Error::unsupported(from.path(), "directories nested that deep"));
            }
            match copy.enter(&path)? {
                Some(level) => open.push(level),
                None => drop(path.pop()),
            }
            continue;
        }
        copy.leave(&path, &level.stat)?;
        open.pop();
        path.pop();
    }
    Ok(())
}

/// Copies one file of `from` to the name `to_name` in `to`; nothing where it is gone.
///
/// # Errors
/// As [`copy`].
pub(super) fn copy_file(from: &Root, name: &OsStr, to: &Root, to_name: &str) -> Result<()> {
    let (source, target) = (from.dir("")?, to.dir("")?);
    let Some(stat) = if_there(source.stat(name))? else { return Ok(()) };
    let Some(open) = if_there(from.open_file(name))? else { return Ok(()) };
    contents(&open, &target, OsStr::new(to_name))?;
    dress((&source, name), (&target, OsStr::new(to_name)), &stat)
}

/// A directory whose files are copied.
struct Level {
    stat: Stat,
    /// Directories in it that are not copied yet.
    directories: Vec<OsString>,
}

struct Copy<'a> {
    from: &'a Root,
    to: &'a Root,
    /// By device and inode number, a file with several names: where its first copy is.
    links: HashMap<(u64, u64), PathBuf>,
}

impl Copy<'_> {
    /// Copies what is in a directory, but makes its directories only; `None` where it is gone.
    fn enter(&mut self, path: &Path) -> Result<Option<Level>> {
        let Some(stat) = if_there(self.from.stat(path))? else { return Ok(None) };
        let Some((source, names)) = if_there(self.from.listed_dir(path))? else { return Ok(None) };
        let target = self.to.dir(path)?;
        let mut directories = Vec::new();
        for entry in names {
            if self.entry(path, &source, &target, &entry.name)? {
                directories.push(entry.name);
            }
        }
        Ok(Some(Level { stat, directories }))
    }

    /// Gives a directory its attributes: what is written into it moves its times.
    fn leave(&self, path: &Path, stat: &Stat) -> Result<()> {
        match if_there(self.from.dir(path))? {
            Some(source) => {
                let own = OsStr::new("");
                dress((&source, own), (&self.to.dir(path)?, own), stat)
            }
            None => Ok(()),
        }
    }

    /// Copies the entry `name` of the directory `path`; true for a directory, whose own entries are
    /// still to be copied.
    fn entry(&mut self, path: &Path, source: &Dir, target: &Dir, name: &OsStr) -> Result<bool> {
        let Some(stat) = if_there(source.stat(name))? else { return Ok(false) };
        let at = || target.path().join(name);
        let failed = |err: Errno| Error::io(at(), err);
        let is_linked = stat.nlink > 1 && stat.kind != FileKind::Directory;
        if is_linked && let Some(first) = self.links.get(&(stat.dev, stat.ino)) {
            rustix::fs::linkat(self.to, first, target, name, AtFlags::empty()).map_err(failed)?;
            return Ok(false);
        }
        match stat.kind {
            FileKind::Directory => {
                rustix::fs::mkdirat(target, name, Mode::RWXU).map_err(failed)?;
                return Ok(true);
            }
            FileKind::Regular => {
                let open = self.from.open_file(path.join(name));
                let Some(open) = if_there(open)? else { return Ok(false) };
                contents(&open, target, name)?;
            }
            FileKind::Symlink => {
                let Some(link) = if_there(source.read_link(name))? else { return Ok(false) };
                let link = OsStr::from_bytes(&link);
                rustix::fs::symlinkat(link, target, name).map_err(failed)?;
            }
            FileKind::CharDevice | FileKind::BlockDevice | FileKind::Fifo | FileKind::Socket => {
                let device = rustix::fs::makedev(stat.rdev.0, stat.rdev.1);
                let kind = FileType::from_raw_mode(stat.mode);
                rustix::fs::mknodat(target, name, kind, Mode::RUSR, device).map_err(failed)?;
            }
        }
        dress((source, name), (target, name), &stat)?;
        if is_linked {
            self.links.insert((stat.dev, stat.ino), path.join(name));
        }
        Ok(false)
    }
}

/// The contents of a regular file, in a new one.
fn contents(from: &BackingFile, target: &Dir, name: &OsStr) -> Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let at = || target.path().join(name);
    let to = rustix::fs::openat(target, name, flags, Mode::RUSR | Mode::WUSR);
    let to = File::from(to.map_err(|err| Error::io(at(), err))?);
    let size = from.stat().size;
    // Not every file system shares blocks, and none across file systems.
    let copied = match rustix::fs::ioctl_ficlone(&to, from) {
        Ok(()) => Ok(()),
        Err(_) => fill(from, &to, size),
    };
    copied.map_err(|err| Error::io(at(), err))
}

/// Copies the data between the holes of a file, up to the size that it had when it was opened.
fn fill(from: &BackingFile, to: &File, size: u64) -> Result<(), Errno> {
    rustix::fs::ftruncate(to, size)?;
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(start) => start.min(size),
            Err(Errno::NXIO) => break, // a hole to the end
            Err(err) => return Err(err),
        };
        let end = rustix::fs::seek(from, SeekFrom::Hole(start)).map_or(size, |end| end.min(size));
        at = copy_range(from, to, start, end)?;
        if at < end {
            break; // shorter by now: zeros follow
        }
    }
    Ok(())
}

/// Copies from `start` to `end`; where it got to, which is before `end` only where the file ends.
fn copy_range(from: &BackingFile, to: &File, start: u64, end: u64) -> Result<u64, Errno> {
    let (mut input, mut output) = (start, start);
    while input < end {
        let count = (end - input).min(PIECE as u64) as usize;
        match rustix::fs::copy_file_range(from, Some(&mut input), to, Some(&mut output), count) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => {
                return pass(from, to, input, end);
            }
            Err(err) => return Err(err),
        }
    }
    Ok(input)
}

/// The same by reading and writing, for file systems that know no other way.
fn pass(from: &BackingFile, to: &File, start: u64, end: u64) -> Result<u64, Errno> {
    use std::os::unix::fs::FileExt;
    let mut buf = vec![0; (end - start).min(1 << 20) as usize];
    let mut at = start;
    let errno = |err: std::io::Error| Errno::from_io_error(&err).unwrap_or(Errno::IO);
    while at < end {
        let count = (end - at).min(buf.len() as u64) as usize;
        let read = from.read_at(at, &mut buf[..count]).map_err(errno)?;
        to.write_all_at(&buf[..read], at).map_err(errno)?;
        at += read as u64;
        if read < count {
            break;
        }
    }
    Ok(at)
}

/// Gives an entry, by its directory and its name there (`""`: the directory itself), the attributes
/// of the original.
fn dress(original: (&Dir, &OsStr), copy: (&Dir, &OsStr), stat: &Stat) -> Result<()> {
    let (source, name) = original;
    let target = copy.0;
    let at = target.proc_path(copy.1)?;
    let failed = |err: Errno| Error::io(target.path().join(copy.1), err);
    let owner = (Some(Uid::from_raw(stat.uid)), Some(Gid::from_raw(stat.gid)));
    let here = (target.as_fd(), at.as_path());
    rustix::fs::chownat(here.0, here.1, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(failed)?;
    for attribute in xattrs(source, name)? {
        let Some(value) = if_there(source.xattr(name, &attribute))?.flatten() else { continue };
        rustix::fs::lsetxattr(&at, &attribute, &value, XattrFlags::empty()).map_err(failed)?;
    }
    if stat.kind != FileKind::Symlink {
        let mode = Mode::from_raw_mode(stat.permissions());
        rustix::fs::chmodat(here.0, here.1, mode, AtFlags::empty()).map_err(failed)?;
    }
    let time = timespec(stat.mtime);
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(here.0, here.1, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)
}

fn xattrs(source: &Dir, name: &OsStr) -> Result<Vec<OsString>> {
    Ok(if_there(source.xattrs(name))?.unwrap_or_default())
}

fn timespec(time: Time) -> Timespec {
    Timespec { tv_sec: time.secs, tv_nsec: i64::from(time.nanos) }
}

/// `None` where a file is gone, or something else has taken its place.
fn if_there<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(err) if err.is_not_found() || err.is_misplaced() => Ok(None),
        Err(err) => Err(err),
    }
}

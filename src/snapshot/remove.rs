//! Removes a directory tree of any depth.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// Removes the directory `top` and all in it. A directory that is met is moved up to `top` before
/// it is emptied, so that depth costs neither stack nor descriptors, and no path gets too long.
///
/// # Errors
/// ENOENT where there is none; whatever else the file system says.
pub(super) fn remove(top: &Path) -> Result<()> {
    let failed = |err: Errno| Error::io(top, err);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = rustix::fs::open(top, flags, Mode::empty()).map_err(failed)?;
    let mut moved = 0;
    loop {
        let names = entries(&root).map_err(failed)?;
        if names.is_empty() {
            return rustix::fs::rmdir(top).map_err(failed);
        }
        for name in names {
            if is_unlinked(&root, &name).map_err(failed)? {
                continue;
            }
            let dir = rustix::fs::openat(&root, &name, flags, Mode::empty()).map_err(failed)?;
            for inner in entries(&dir).map_err(failed)? {
                if !is_unlinked(&dir, &inner).map_err(failed)? {
                    move_to(&dir, &inner, &root, &mut moved).map_err(failed)?;
                }
            }
            rustix::fs::unlinkat(&root, &name, AtFlags::REMOVEDIR).map_err(failed)?;
        }
    }
}

/// Unlinks a file; false for a directory.
fn is_unlinked(dir: &OwnedFd, name: &OsStr) -> Result<bool, Errno> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::ISDIR) => Ok(false),
        Err(err) => Err(err),
    }
}

/// Moves a directory to `top`, under a name that is free there.
fn move_to(dir: &OwnedFd, name: &OsStr, top: &OwnedFd, moved: &mut u64) -> Result<(), Errno> {
    loop {
        *moved += 1;
        let free = format!("~{moved}");
        match rustix::fs::renameat_with(dir, name, top, free.as_str(), RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            result => return result,
        }
    }
}

fn entries(dir: &OwnedFd) -> Result<Vec<OsString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    Ok(names)
}

//! Connections to the kernel that outlive their daemon.
//!
//! A daemon that is killed while it hands contents to the kernel (`fuse::push`) may never end: its
//! thread waits for a READ that nobody answers, and holds the connection open, so that the READ
//! never fails. Nothing but aborting the connection from outside helps: its [`guard`](super::guard)
//! does so at once, and `mount` and `umount` where that was killed, too.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

use super::KIND;
use crate::backing::mounts::Mount;

/// Where connections are usually controlled.
const CONTROL: &str = "/sys/fs/fuse/connections";

/// How long a mount may take to answer that nobody is seen to serve.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether `mount` is a stratafs with nobody left to answer for it, and the kernel does not know.
pub(super) fn is_orphan(mount: &Mount) -> bool {
    let Some(number) = mount.connection().filter(|_| mount.kind == KIND) else { return false };
    !is_served(number) && !answers(&mount.point)
}

/// Ends the connection of the mount with that device number: whoever waits for it gets an error.
///
/// # Errors
/// Fails where there is no such connection, or it is another user's.
pub(super) fn abort(device: &str) -> io::Result<()> {
    switch(device)?.write_all(b"1")
}

/// The file that ends the connection of the mount with that device number, once something is written
/// to it: that one alone, whoever has the number later.
///
/// # Errors
/// Those of [`abort`].
pub(super) fn switch(device: &str) -> io::Result<File> {
    let number = device.rsplit(':').next().unwrap_or_default();
    let switch = format!("{number}/abort");
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let switch = openat(CWD, Path::new(CONTROL).join(&switch), flags, Mode::empty())
        .or_else(|_| openat(control()?, &switch, flags, Mode::empty()))?;
    Ok(switch.into())
}

/// The same directory where it is mounted nowhere, as in most containers.
fn control() -> rustix::io::Result<OwnedFd> {
    let context = fsopen("fusectl", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

/// Whether a process that is alive has connection `number` open, or may have: old kernels do not
/// tell. Only links are read, as a look at an open file may wait for the very connection.
fn is_served(number: &str) -> bool {
    let entries = |path: &Path| -> Vec<PathBuf> {
        // What ended meanwhile, or is another user's, serves no mount of ours.
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let is_fuse = |fd: &PathBuf| fs::read_link(fd).is_ok_and(|path| path == Path::new("/dev/fuse"));
    entries("/proc".as_ref()).iter().any(|process| {
        entries(&process.join("fd")).iter().filter(|fd| is_fuse(fd)).any(|fd| {
            let name = fd.file_name().unwrap_or_default();
            let Ok(info) = fs::read_to_string(process.join("fdinfo").join(name)) else {
                return false;
            };
            let told = info.lines().find_map(|line| line.strip_prefix("fuse_connection:"));
            told.is_none_or(|told| told.trim() == number)
        })
    })
}

/// Whether a look at `point` comes back.
fn answers(point: &Path) -> bool {
    let (answer, answered) = channel();
    let point = point.to_owned();
    let look = move || {
        let looked = fs::symlink_metadata(point);
        let _ = answer.send(looked.is_ok()); // nobody waits any more
    };
    match thread::Builder::new().name("look".into()).spawn(look) {
        Ok(_) => answered.recv_timeout(PATIENCE).is_ok(),
        Err(_) => true,
    }
}

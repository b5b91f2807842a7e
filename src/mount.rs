//! From a tree to a directory that shows it, and back.
//!
//! Root mounts by itself, others through `fusermount3`; either way the kernel hands out one
//! descriptor that [`fuse`] serves. The order matters:
//! 1. The mount point is checked, and stores are opened, before anything is mounted.
//! 2. After the mount nothing here looks at a path under it: the daemon would wait for itself.
//!    What must be known of the mount is read from the kernel's table.
//! 3. Whoever waits for the mount is told when the kernel has been answered, and not before.

mod connection;
pub mod daemon;
pub mod error;
pub mod guard;
mod helper;
mod overlay;
mod point;

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::backing::mounts;
use crate::fuse::{self, Audience, Contents};
use crate::tree::Tree;

use error::{Error, Result};
use guard::Guard;
pub use point::MountPoint;

/// Type of our file system in the table of mounts; what follows `fuse.` is its subtype.
const KIND: &str = "fuse.stratafs";

/// How far the kernel reads ahead of a reader, in KiB. With its default of 128, `dd bs=1M` takes
/// half as long again.
const READ_AHEAD_KIB: &str = "1024";

/// Where an administrator lets users say `allow_other` (fuse.conf is fusermount3(1)'s).
const FUSE_CONF: &str = "/etc/fuse.conf";

/// What a mount can be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// What the table of mounts shows as its source: a store's path.
    pub source: String,
    /// Whether programs in it may be run.
    pub programs: Programs,
    /// What the connection is asked for.
    pub fuse: fuse::Settings,
    /// References of images whose `rootfs/` the kernel's overlayfs shows, where it can.
    pub kernel_rootfs: Vec<glob::Pattern>,
    /// Whether the kernel lets requests through that would change something.
    pub writes: Writes,
}

/// Whether the kernel lets requests through that would change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Writes {
    /// No: it is mounted `ro`.
    #[default]
    Refused,
    /// Yes, so that snapshots can be made; the tree refuses all else.
    Asked,
}

/// Whether programs in a mount may be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Programs {
    /// Yes, without the privileges of set-user-ID.
    #[default]
    Run,
    /// No (`noexec`).
    Refused,
}

/// What becomes of files that are open when a mount is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// While there are any, it stays.
    Unused,
    /// They can be read until they are closed, though the mount has gone from sight (`umount -l`).
    Detached,
}

/// Shows `tree` at `point` until it is unmounted, by whomever. Calls `ready` as soon as it can be
/// used. SIGTERM, SIGINT and SIGHUP unmount; files that are open can be read until they are closed,
/// or until a second signal.
///
/// # Errors
/// Fails when it can't be mounted or served, or `ready` fails; nothing is left mounted then.
pub fn serve(
    tree: Arc<Tree>,
    point: &MountPoint,
    options: &Options,
    ready: impl FnOnce() -> io::Result<()>,
) -> Result<()> {
    let point = point.path();
    let failed = |err| Error::io(point, err);
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(failed)?;
    raise_open_files();
    let fuse = mount(point, options)?;
    let device = device(point);
    let guard = watched(options.fuse.contents, device.as_deref());
    let contents = if guard.is_some() { Contents::Pushed } else { Contents::Asked };
    let settings = fuse::Settings { contents, ..options.fuse };
    let served = fuse::Session::start(Arc::clone(&tree), fuse, settings)
        .and_then(|session| {
            raise_read_ahead(device.as_deref());
            unmount_on_signal(signals, point.to_owned(), device.clone())?;
            tracing::info!("{}: mounted", point.display());
            if options.kernel_rootfs.is_empty() {
                ready()?;
                return session.run();
            }
            thread::scope(|scope| {
                let served = scope.spawn(|| session.run());
                overlay::show(&tree, point, options);
                if let Err(err) = ready() {
                    clear(point, device.as_deref());
                    return Err(err);
                }
                let panicked = |_| Err(io::Error::other("a defect in stratafs: serving panicked"));
                served.join().unwrap_or_else(panicked)
            })
        })
        .map_err(failed);
    match &served {
        Ok(()) => tracing::info!("{}: unmounted", point.display()),
        Err(_) => clear(point, device.as_deref()),
    }
    served
}

/// Gives the mount at `point` back.
///
/// # Errors
/// Fails when no stratafs is mounted there, when it is in use, or when it is another user's.
pub fn umount(point: &Path, leave: Leave) -> Result<()> {
    let path = point::resolve(point)?;
    match topmost(&path)? {
        Some(mount) if connection::is_orphan(&mount) => point::bury(&mount),
        Some(mount) if mount.kind == KIND => unmount(&path, leave),
        _ => Err(Error::NotMounted(point.to_owned())),
    }
}

fn mount(point: &Path, options: &Options) -> Result<OwnedFd> {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root && options.fuse.audience != Audience::Owner && !may_allow_other()? {
        return Err(Error::AllowOther);
    }
    if is_root { mount_as_root(point, options) } else { mount_as_user(point, options) }
}

fn mount_as_root(point: &Path, options: &Options) -> Result<OwnedFd> {
    let fuse = File::options().read(true).write(true).open("/dev/fuse").map_err(Error::Device)?;
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
    match options.writes {
        Writes::Refused => flags |= MountFlags::RDONLY,
        Writes::Asked => {}
    }
    match options.programs {
        Programs::Run => {}
        Programs::Refused => flags |= MountFlags::NOEXEC,
    }
    let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
    let data = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions{}",
        fuse.as_raw_fd(),
        uid.as_raw(),
        gid.as_raw(),
        allow_other(options.fuse.audience)
    );
    let data = CString::new(data).map_err(|err| Error::io(point, err))?;
    match rustix::mount::mount(&*options.source, point, KIND, flags, &*data) {
        Ok(()) => Ok(fuse.into()),
        Err(Errno::PERM) => Err(Error::NotPermitted(format!(
            "{}: mounting is not permitted: in a container, allow it with `--cap-add SYS_ADMIN`",
            point.display()
        ))),
        Err(Errno::NODEV) => Err(Error::Device(Errno::NODEV.into())),
        Err(err) => Err(Error::io(point, err)),
    }
}

fn mount_as_user(point: &Path, options: &Options) -> Result<OwnedFd> {
    let programs = match options.programs {
        Programs::Run => "",
        Programs::Refused => ",noexec",
    };
    let access = match options.writes {
        Writes::Refused => "ro",
        Writes::Asked => "rw",
    };
    let list = format!(
        "{access},nosuid,nodev,default_permissions,subtype=stratafs,fsname={}{programs}{}",
        helper::escape(&options.source),
        allow_other(options.fuse.audience)
    );
    helper::mount(point, &list)
}

/// The kernel knows everybody or nobody else; `fuse` tells root from the others.
fn allow_other(audience: Audience) -> &'static str {
    match audience {
        Audience::Owner => "",
        Audience::OwnerAndRoot | Audience::Everybody => ",allow_other",
    }
}

fn may_allow_other() -> Result<bool> {
    match fs::read(FUSE_CONF) {
        Ok(conf) => Ok(has_user_allow_other(&conf)),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(err) => Err(Error::io(FUSE_CONF, err)),
    }
}

fn has_user_allow_other(conf: &[u8]) -> bool {
    conf.split(|&byte| byte == b'\n').any(|line| line.trim_ascii() == b"user_allow_other")
}

fn unmount(point: &Path, leave: Leave) -> Result<()> {
    let is_root = rustix::process::geteuid().is_root();
    let (flags, options): (_, &[&str]) = match leave {
        Leave::Unused => (UnmountFlags::NOFOLLOW, &[]),
        Leave::Detached => (UnmountFlags::NOFOLLOW | UnmountFlags::DETACH, &["-z"]),
    };
    if !is_root {
        return helper::unmount(point, options);
    }
    if leave == Leave::Unused {
        overlay::take_away(point)?; // what is detached takes them along
    }
    match rustix::mount::unmount(point, flags) {
        Ok(()) => Ok(()),
        Err(Errno::BUSY) => Err(Error::Busy(point.to_owned())),
        Err(err) => Err(Error::io(point, err)),
    }
}

/// What is mounted on the resolved path `point`.
fn topmost(point: &Path) -> Result<Option<mounts::Mount>> {
    mounts::topmost(point).map_err(|err| Error::io(mounts::TABLE, err))
}

/// Device number of what is mounted on `point`; `None` where the table does not say.
fn device(point: &Path) -> Option<String> {
    match topmost(point) {
        Ok(mount) => mount.map(|mount| mount.device),
        Err(err) => {
            tracing::debug!("{err}");
            None
        }
    }
}

/// Who ends the connection if this process is killed, where contents are to be pushed: without one,
/// they must not be.
fn watched(contents: Contents, device: Option<&str>) -> Option<Guard> {
    let device = device.filter(|_| contents == Contents::Pushed)?;
    let guard = Guard::start(device);
    guard.inspect_err(|err| tracing::info!("contents are not pushed: no guard: {err}")).ok()
}

/// Takes the mount of `number` away from `point`, after serving it has failed. Never called after
/// it was unmounted: the next mount could have the same number.
fn clear(point: &Path, number: Option<&str>) {
    let mount = topmost(point).ok().flatten();
    if let Some(mount) = mount.filter(|mount| Some(&*mount.device) == number)
        && let Err(err) = point::bury(&mount)
    {
        tracing::warn!("{err}");
    }
}

/// Takes as many descriptors as the process may have: each layer that is looked at holds one.
pub fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(err) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!("open files stay limited to {:?}: {err}", limit.current);
    }
}

/// A courtesy that needs root: without it everything works, more slowly.
fn raise_read_ahead(device: Option<&str>) {
    let Some(device) = device else { return };
    let knob = format!("/sys/class/bdi/{device}/read_ahead_kb");
    if let Err(err) = fs::write(&knob, READ_AHEAD_KIB) {
        tracing::debug!("{knob}: {err}");
    }
}

/// Unmounts at the first signal: a mount that is in use is detached, and served until its last file
/// is closed. The second signal ends the connection of the mount `number`, and the process at once.
fn unmount_on_signal(
    mut signals: Signals,
    point: PathBuf,
    number: Option<String>,
) -> io::Result<()> {
    let wait = move || {
        let mut signals = signals.forever();
        if signals.next().is_some() {
            let unmounted = unmount(&point, Leave::Unused).or_else(|err| match err {
                Error::Busy(_) => {
                    tracing::info!("{err}: detached; a second signal ends the daemon");
                    unmount(&point, Leave::Detached)
                }
                err => Err(err),
            });
            if let Err(err) = unmounted {
                tracing::warn!("{err}");
            }
        }
        if signals.next().is_some() {
            if let Some(Err(err)) = number.as_deref().map(connection::abort) {
                tracing::debug!("{}: {err}", point.display());
            }
            std::process::exit(1);
        }
    };
    thread::Builder::new().name("signals".into()).spawn(wait)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_line_of_its_own_permits_allow_other() {
        assert!(has_user_allow_other(b"mount_max = 1000\n  user_allow_other \n"));
        assert!(has_user_allow_other(b"user_allow_other"));
        assert!(!has_user_allow_other(b"#user_allow_other\nuser_allow_others\n"));
        assert!(!has_user_allow_other(b""));
    }

    #[test]
    fn only_a_stratafs_is_unmounted() {
        assert!(matches!(umount(Path::new("/proc"), Leave::Unused), Err(Error::NotMounted(_))));
        assert!(matches!(umount(Path::new("/no/such"), Leave::Unused), Err(Error::Missing(_))));
    }
}

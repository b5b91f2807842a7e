//! Kernel overlays on `rootfs/` of images, for root and on demand: first passes at the speed of the
//! disk.
//!
//! 1. They are mounted by the thread that started the others, never by one that answers requests:
//!    the way to the mount point leads through our own mount.
//! 2. No path of a store is given to the kernel, which would look for `:` and `\` in it, but the
//!    descriptors of the layers.
//! 3. Nothing of an image counts more than in our own tree: `nosuid,nodev,ro`, and whoever may not
//!    enter the mount does not come to them.
//! 4. They go with the mount: when it is given back, or detached because its daemon died.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
};

use super::error::Error as Refused;
use super::{Options, Programs};
use crate::backing::mounts;
use crate::error::Error;
use crate::tree::Tree;
use crate::tree::kernel::KernelLayers;

/// What the table of mounts shows as their source.
const SOURCE: &str = "stratafs";

/// How many there may be.
const MOUNTS: usize = 256;

/// Mounts an overlay on `rootfs/` of each image that is asked for, below `point`, which is being
/// served. What can't be had is noted, and stays as it is.
pub(super) fn show(tree: &Tree, point: &Path, options: &Options) {
    for (number, path) in tree.rootfs_of(&options.kernel_rootfs).into_iter().enumerate() {
        let shown = match number < MOUNTS {
            true => show_one(tree, point, &path, options.programs),
            false => Err("there are too many".to_owned()),
        };
        if let Err(why) = shown {
            tree.report(&Error::unsupported(path, format!("a kernel overlay: {why}")));
        }
    }
}

fn show_one(tree: &Tree, point: &Path, path: &str, programs: Programs) -> Result<(), String> {
    let failed = |err: Errno| err.to_string();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let top = openat2(CWD, point, flags, Mode::empty(), resolve).map_err(failed)?;
    let resolve = resolve | ResolveFlags::BENEATH | ResolveFlags::NO_XDEV;
    let rootfs = openat2(&top, path, flags, Mode::empty(), resolve).map_err(failed)?;
    // The number tells what is there now, whatever the name stood for.
    let layers = tree.kernel_layers(fstat(&rootfs).map_err(failed)?.st_ino)?;
    let overlay = overlay(&layers, programs).map_err(failed)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(overlay, "", rootfs, "", flags).map_err(failed)
}

/// An overlay that is mounted nowhere yet.
fn overlay(layers: &KernelLayers, programs: Programs) -> rustix::io::Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let add = |layer: BorrowedFd<'_>| {
        fsconfig_set_string(&context, "lowerdir+", format!("/proc/self/fd/{}", layer.as_raw_fd()))
    };
    fsconfig_set_string(&context, "source", SOURCE)?;
    layers.layers.iter().filter_map(|layer| layer.descriptor()).try_for_each(add)?;
    let nothing = nothing()?;
    if layers.layers.len() == 1 {
        add(nothing.as_fd())?; // it takes no less than two
    }
    if layers.are_users {
        fsconfig_set_flag(&context, "userxattr")?;
    } else {
        // Files whose attributes alone a layer changed are read as our own tree reads them.
        fsconfig_set_string(&context, "redirect_dir", "follow")?;
        fsconfig_set_string(&context, "metacopy", "on")?;
    }
    fsconfig_create(&context)?;
    let mut flags = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV;
    if programs == Programs::Refused {
        flags |= MountAttrFlags::MOUNT_ATTR_NOEXEC;
    }
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags)
}

/// An empty directory that is on no disk.
fn nothing() -> rustix::io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)
}

/// Unmounts all overlays below `point`, which must be served.
///
/// # Errors
/// Fails where one is in use; those before it are gone.
pub(super) fn take_away(point: &Path) -> super::error::Result<()> {
    let all = mounts::all().map_err(|err| Refused::io(mounts::TABLE, err))?;
    let is_ours = |mount: &&mounts::Mount| {
        mount.kind == "overlay" && mount.point != point && mount.point.starts_with(point)
    };
    for mount in all.iter().rev().filter(is_ours) {
        match rustix::mount::unmount(&mount.point, UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::BUSY) => return Err(Refused::Busy(mount.point.clone())),
            Err(err) => return Err(Refused::io(&mount.point, err)),
        }
    }
    Ok(())
}

//! Kernel overlays and file systems in memory that are gone when the test is over, however it ends.

use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// A mount, until it is dropped.
#[derive(Debug)]
pub(crate) struct Mounted {
    path: PathBuf,
}

impl Mounted {
    /// These directories, topmost first, merged at `at`.
    pub(crate) fn read_only(lowers: &[PathBuf], at: &Path) -> Result<Mounted, Errno> {
        let options = format!(
            "lowerdir={},redirect_dir=follow,metacopy=on,index=off,xino=off",
            joined(lowers)
        );
        Mounted::overlay(at, MountFlags::RDONLY, &options)
    }

    /// The same with a directory on top that takes what is written.
    pub(crate) fn writable(
        upper: &Path,
        work: &Path,
        lowers: &[PathBuf],
        at: &Path,
        options: &str,
    ) -> Result<Mounted, Errno> {
        let options = format!(
            "lowerdir={},upperdir={},workdir={},index=off,xino=off,volatile,{options}",
            joined(lowers),
            upper.display(),
            work.display()
        );
        Mounted::overlay(at, MountFlags::empty(), &options)
    }

    /// A file system in memory at `at`, of `size`.
    pub(crate) fn tmpfs(at: &Path, size: &str) -> Result<Mounted, Errno> {
        let options = std::ffi::CString::new(format!("size={size},mode=0700")).unwrap();
        mount("tmpfs", at, "tmpfs", MountFlags::empty(), options.as_c_str())?;
        Ok(Mounted { path: at.to_owned() })
    }

    fn overlay(at: &Path, flags: MountFlags, options: &str) -> Result<Mounted, Errno> {
        let options = std::ffi::CString::new(options).unwrap();
        mount("overlay", at, "overlay", flags, options.as_c_str())?;
        Ok(Mounted { path: at.to_owned() })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = unmount(&self.path, UnmountFlags::DETACH);
    }
}

/// Directories as `lowerdir` takes them.
fn joined(lowers: &[PathBuf]) -> String {
    let lowers: Vec<_> = lowers.iter().map(|path| path.to_str().unwrap()).collect();
    lowers.join(":")
}

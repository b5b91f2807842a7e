//! The directories of a data root, open, and the small files that are read from them.

use std::path::Path;
use std::sync::Arc;

use rustix::fs::fstat;

use super::driver::Driver;
use crate::backing::{Access, Root};
use crate::error::{Error, Result};

/// Largest JSON file that is read, in bytes. Docker's own are some KiB.
pub(super) const JSON_MAX: u64 = 16 << 20;

/// Largest file with one value in it that is read, in bytes.
const TEXT_MAX: u64 = 4 << 10;

/// The parts of a data root that hold images and containers.
///
/// Each may be a mount of its own. They are opened as [`Access::Live`], so that nothing but a
/// regular file is ever opened for its data, even in a store that somebody made to harm.
#[derive(Debug)]
pub(super) struct Roots {
    /// `image/<driver>`: names, configs, what is known of layers.
    pub(super) image: Arc<Root>,
    /// `containers`; `None` where there is none.
    pub(super) containers: Option<Root>,
    /// The driver's directory, with one directory per layer; `None` where there is none.
    home: Option<Root>,
    /// Device and inode number of the three.
    identity: [Option<(u64, u64)>; 3],
}

impl Roots {
    /// Opens the data root at `path`.
    pub(super) fn open(path: &Path, driver: Driver) -> Result<Roots> {
        let data = Root::open(path, Access::Live)?;
        let image = data.sub_mount("image", Access::Live)?.sub(driver.name(), Access::Live)?;
        let containers = if_found(data.sub_mount("containers", Access::Live))?;
        let home = if_found(data.sub_mount(driver.home(), Access::Live))?;
        let identity =
            [identity(Some(&image))?, identity(containers.as_ref())?, identity(home.as_ref())?];
        Ok(Roots { image: Arc::new(image), containers, home, identity })
    }

    /// True where both are the very same directories: nothing was unmounted or replaced.
    pub(super) fn is_same(&self, other: &Roots) -> bool {
        self.identity == other.identity
    }

    /// The driver's directory.
    pub(super) fn home(&self) -> Result<&Root> {
        self.home
            .as_ref()
            .ok_or_else(|| Error::corrupt(self.image.path(), "the driver's directory is missing"))
    }
}

fn identity(root: Option<&Root>) -> Result<Option<(u64, u64)>> {
    let Some(root) = root else { return Ok(None) };
    let stat = fstat(root).map_err(|err| Error::io(root.path(), err))?;
    Ok(Some((stat.st_dev, stat.st_ino)))
}

/// `None` for what is missing.
pub(super) fn if_found<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(err) if err.is_not_found() => Ok(None),
        Err(err) => Err(err),
    }
}

/// Damage, for a file or directory that must be there.
pub(super) fn required<T>(result: Result<T>) -> Result<T> {
    result.map_err(|err| match err {
        err if err.is_not_found() => Error::corrupt(err.path(), "missing"),
        err if err.is_misplaced() => Error::corrupt(err.path(), "something else is in its place"),
        err => err,
    })
}

/// The one value that the file `path` holds, as `parse` understands it.
pub(super) fn value<T>(
    root: &Root,
    path: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T> {
    let bytes = root.read(path, TEXT_MAX)?;
    std::str::from_utf8(&bytes)
        .ok()
        .and_then(|text| parse(text.trim_ascii()))
        .ok_or_else(|| Error::corrupt(root.path().join(path), "not a value that belongs here"))
}

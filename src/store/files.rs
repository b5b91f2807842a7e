//! Small files and directories of a store: read within bounds, and missing ones told from damage.

use rustix::fs::fstat;

use crate::backing::Root;
use crate::error::{Error, Result};

/// Largest JSON file that is read, in bytes. Engines' own are some KiB, or MiB with many layers.
pub(super) const JSON_MAX: u64 = 16 << 20;

/// Largest file with one value in it that is read, in bytes.
const TEXT_MAX: u64 = 4 << 10;

/// Device and inode number of a directory.
pub(super) type Identity = (u64, u64);

/// The identity of a directory that may be missing.
pub(super) fn identity(root: Option<&Root>) -> Result<Option<Identity>> {
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

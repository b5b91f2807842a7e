//! What the length of an image's `export.tar` goes by in the cache: to `stat` it would take a walk
//! over the whole tree otherwise.
//!
//! A length that is kept is no more than what it once was. The key moves with all that an engine
//! does, and with all that decides how an export is written; where somebody else has been at the
//! files of a layer, only whoever makes the archive learns it. So what was told is held to that
//! before the first byte is given out, and dropped where it was wrong.

use super::documents::Flavour;
use super::export::{Accounts, Style};
use super::layers::{nowhere, unpacked};
use crate::cache::Cache;
use crate::digest::Digest;
use crate::error::Result;
use crate::store::{Conventions, Layer, LayerSource};
use crate::tar::{BLOCK, TRAILER};

/// The length that is kept under `key`, if it is one of a tar. A reader would ask for no byte of a
/// file that is told to be empty.
#[must_use]
pub fn kept(cache: &Cache, key: Digest) -> Option<u64> {
    cache.length(key).filter(|len| *len >= TRAILER && len.is_multiple_of(BLOCK))
}

/// Names the length of the export of `layers`, lowest first, as an engine of these conventions
/// writes it, or the one of that flavour.
///
/// # Errors
/// Fails where the files of a layer are not here.
pub fn key(layers: &[Layer], conventions: Conventions, flavour: Flavour) -> Result<Digest> {
    // Names of users are in the files.
    let style = Style::of(conventions, flavour, Accounts::default);
    let mut parts = format!("export {} {style:?}\n", env!("CARGO_PKG_VERSION"));
    let (dirs, above) = unpacked(layers);
    for dir in dirs {
        let (stat, marks, owners) = (dir.root.stat("")?, dir.marks, &dir.owners);
        // An engine makes a layer's directory anew, and leaves it alone then.
        let files = (dir.identity, stat.ino, stat.mtime, stat.ctime);
        parts += &format!("directory {files:?} {marks:?} {owners:?}\n");
    }
    for layer in above {
        let LayerSource::Blob(blob) = &layer.source else { return Err(nowhere(layer)) };
        let stored = (blob.digest, blob.bytes.len(), blob.bytes.stamp()?);
        parts += &format!("blob {} {stored:?}\n", layer.diff_id);
    }
    Ok(Digest::of(parts.as_bytes()))
}

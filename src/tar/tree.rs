//! A layer's tar as the files that an engine would unpack from it.

use std::sync::Arc;

use super::header::Type;
use super::read::{Entries, Entry};
use crate::backing::{Bytes, Damage, NewFile, PackedBuilder, PackedTree, What};
use crate::error::{Error, Result};

/// Memory that the table of one layer may take, in bytes: some three million files.
const LIMIT: usize = 256 << 20;

/// The files of the layer whose tar `bytes` is; `device` sets them apart from those of other layers.
/// Reads the headers alone.
///
/// # Errors
/// Fails where the bytes are no tar, or one that no engine could unpack, or can't be read.
pub fn read(bytes: &Arc<dyn Bytes>, device: u64) -> Result<PackedTree> {
    let mut builder = PackedBuilder::new(Arc::clone(bytes), device, LIMIT);
    let mut entries = Entries::new(&**bytes);
    while let Some(entry) = entries.next()? {
        builder.add(&file(&entry)).map_err(|why| {
            let name = String::from_utf8_lossy(&entry.name);
            Error::corrupt(bytes.path(), format!("as a layer, at {name:?}: {why}"))
        })?;
    }
    Ok(builder.finish())
}

fn file(entry: &Entry) -> NewFile<'_> {
    let what = match (entry.kind, entry.uid.and(entry.gid)) {
        (None, _) => What::Damaged(Damage::UnknownKind),
        (Some(_), None) => What::Damaged(Damage::Owner),
        (Some(Type::Regular), _) => What::File { size: entry.size, extents: &entry.extents },
        (Some(Type::HardLink), _) => What::HardLink(&entry.link),
        (Some(Type::Symlink), _) => What::Symlink(&entry.link),
        (Some(Type::CharDevice), _) => What::CharDevice(entry.device.0, entry.device.1),
        (Some(Type::BlockDevice), _) => What::BlockDevice(entry.device.0, entry.device.1),
        (Some(Type::Directory), _) => What::Directory,
        (Some(Type::Fifo), _) => What::Fifo,
    };
    NewFile {
        path: &entry.name,
        what,
        mode: entry.mode,
        uid: entry.uid.unwrap_or(u32::MAX),
        gid: entry.gid.unwrap_or(u32::MAX),
        mtime: entry.mtime,
        xattrs: &entry.xattrs,
    }
}

//! A layer's tar as the files that an engine would unpack from it.

use std::sync::Arc;

use super::header::Type;
use super::read::{Entries, Entry};
use crate::backing::{Bytes, Damage, Extent, FileKind, NewFile, PackedBuilder, PackedTree, What};
use crate::error::{Error, Result};
use crate::windows::records::{self, Metadata, XATTR_MAX, XATTR_STREAM};

/// Longest name of an xattr, in bytes (Linux `XATTR_NAME_MAX`).
const XATTR_NAME_MAX: usize = 255;

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
    let mut add = |(entry, damage): &(Entry, Option<Damage>)| {
        builder.add(&file(entry, *damage)).map_err(|why| {
            let name = String::from_utf8_lossy(&entry.name);
            Error::corrupt(bytes.path(), format!("as a layer, at {name:?}: {why}"))
        })
    };
    let mut last: Option<(Entry, Option<Damage>)> = None;
    while let Some(mut entry) = entries.next()? {
        if let Some((last, _)) = &mut last
            && let Some(xattr) = alternate_stream(&**bytes, last, &entry)?
        {
            last.xattrs.push(xattr);
            continue;
        }
        let damage = describe(&mut entry).err();
        if let Some(before) = last.replace((entry, damage)) {
            add(&before)?;
        }
    }
    last.iter().try_for_each(add)?;
    Ok(builder.finish())
}

/// Puts what the records of a Windows layer say where it shows.
fn describe(entry: &mut Entry) -> Result<(), Damage> {
    let kind = match entry.kind {
        Some(Type::Regular) => FileKind::Regular,
        Some(Type::Directory) => FileKind::Directory,
        Some(Type::Symlink) => FileKind::Symlink,
        _ => return Ok(()),
    };
    if !records::is_windows(&entry.records) {
        return Ok(());
    }
    let metadata = Metadata::from_records(&entry.records, kind, entry.mtime, &entry.link);
    let metadata = metadata.map_err(|_| Damage::Windows)?;
    entry.mode = metadata.permissions(kind);
    let xattrs = metadata.xattrs().into_iter();
    entry.xattrs.extend(xattrs.map(|(name, value)| (name.into_bytes(), value)));
    Ok(())
}

/// The xattr that `entry` is of the entry before it, where it is an alternate stream of that file
/// and fits; a larger one stays a file beside it.
fn alternate_stream(
    bytes: &dyn Bytes,
    file: &Entry,
    entry: &Entry,
) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
    if entry.kind != Some(Type::Regular) || !records::is_windows(&file.records) {
        return Ok(None);
    }
    let Some(name) = records::alternate_of(&file.name, &entry.name) else { return Ok(None) };
    let [Extent { offset: 0, len, from }] = entry.extents[..] else { return Ok(None) };
    let name = [XATTR_STREAM, name].concat().into_bytes();
    if len != entry.size || len > XATTR_MAX as u64 || name.len() > XATTR_NAME_MAX {
        return Ok(None);
    }
    let mut value = vec![0; len as usize];
    if bytes.read_at(from, &mut value)? < value.len() {
        return Err(Error::corrupt(bytes.path(), "shorter than it was"));
    }
    Ok(Some((name, value)))
}

fn file(entry: &Entry, damage: Option<Damage>) -> NewFile<'_> {
    let what = match (entry.kind, entry.uid.and(entry.gid)) {
        _ if let Some(damage) = damage => What::Damaged(damage),
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

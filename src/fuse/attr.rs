//! Attributes of the tree, in FUSE's terms.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo};

use super::BLOCK;
use crate::backing::{FileKind, Time};
use crate::tree::Attr;

/// Attributes, as FUSE passes them.
pub(super) fn file_attr(attr: &Attr) -> FileAttr {
    let mtime = system_time(attr.mtime);
    FileAttr {
        ino: INodeNo(attr.ino),
        size: attr.size,
        blocks: attr.blocks,
        atime: mtime,
        mtime,
        ctime: system_time(attr.ctime),
        crtime: UNIX_EPOCH,
        kind: file_type(attr.kind),
        perm: (attr.permissions & 0o7777) as u16,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: device_number(attr.rdev),
        blksize: BLOCK,
        flags: 0,
    }
}

/// Attributes that say no more than a number and a kind: the kernel refuses their size.
pub(super) fn name_only(ino: u64, kind: FileKind) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino),
        size: u64::MAX,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: file_type(kind),
        perm: 0,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK,
        flags: 0,
    }
}

/// The kind of a node, as FUSE passes it.
pub(super) fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Regular => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
    }
}

/// 1970 where `time` is beyond what can be told.
fn system_time(time: Time) -> SystemTime {
    let whole = Duration::from_secs(time.secs.unsigned_abs());
    let rest = Duration::from_nanos(u64::from(time.nanos));
    let start = match time.secs < 0 {
        true => UNIX_EPOCH.checked_sub(whole),
        false => UNIX_EPOCH.checked_add(whole),
    };
    start.and_then(|start| start.checked_add(rest)).unwrap_or(UNIX_EPOCH)
}

/// A device number in 32 bits, as FUSE passes it (Linux `new_encode_dev`).
fn device_number((major, minor): (u32, u32)) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_count_forward_within_their_second() {
        let at = |secs, nanos| system_time(Time { secs, nanos });
        assert_eq!(at(0, 5), UNIX_EPOCH + Duration::from_nanos(5));
        assert_eq!(at(-1, 0), UNIX_EPOCH - Duration::from_secs(1));
        assert_eq!(at(-2, 800_000_000), UNIX_EPOCH - Duration::from_millis(1200));
        assert_eq!(at(1 << 40, 1), UNIX_EPOCH + Duration::new(1 << 40, 1));
        let last = Duration::new(i64::MAX.unsigned_abs(), 999_999_999);
        assert_eq!(at(i64::MAX, 999_999_999), UNIX_EPOCH + last);
    }

    #[test]
    fn large_device_numbers_survive() {
        for (major, minor) in [(0, 0), (1, 3), (8, 255), (259, 256), (4095, 1_048_575)] {
            let told = u64::from(device_number((major, minor)));
            // Linux new_decode_dev
            assert_eq!((told & 0xfff00) >> 8, u64::from(major));
            assert_eq!((told & 0xff) | ((told >> 12) & 0xfff00), u64::from(minor));
        }
    }
}

//! Attributes of files as the file system tells them, and stamps made of them.

use std::io;

use rustix::io::Errno;

/// A point in time as the file system has it: seconds since 1970, which may be negative, and
/// nanoseconds in `0..1_000_000_000` that always count forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time {
    /// Whole seconds, rounded down.
    pub secs: i64,
    /// The rest.
    pub nanos: u32,
}

/// What kind of thing a directory entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A file with contents.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl FileKind {
    /// From the type bits of `st_mode`; `None` where they are none of the seven.
    #[must_use]
    pub fn from_mode(mode: u32) -> Option<FileKind> {
        Some(match mode & libc::S_IFMT {
            libc::S_IFREG => FileKind::Regular,
            libc::S_IFDIR => FileKind::Directory,
            libc::S_IFLNK => FileKind::Symlink,
            libc::S_IFCHR => FileKind::CharDevice,
            libc::S_IFBLK => FileKind::BlockDevice,
            libc::S_IFIFO => FileKind::Fifo,
            libc::S_IFSOCK => FileKind::Socket,
            _ => return None,
        })
    }

    /// Its type bits in `st_mode`, as [`FileKind::from_mode`] reads them.
    #[must_use]
    pub fn type_bits(self) -> u32 {
        match self {
            FileKind::Regular => libc::S_IFREG,
            FileKind::Directory => libc::S_IFDIR,
            FileKind::Symlink => libc::S_IFLNK,
            FileKind::CharDevice => libc::S_IFCHR,
            FileKind::BlockDevice => libc::S_IFBLK,
            FileKind::Fifo => libc::S_IFIFO,
            FileKind::Socket => libc::S_IFSOCK,
        }
    }
}

/// Attributes of a file, as `lstat` gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub kind: FileKind,
    /// `st_mode` whole, with the type bits.
    pub mode: u32,
    /// Owner, on the host.
    pub uid: u32,
    /// Group, on the host.
    pub gid: u32,
    /// Number of hard links.
    pub nlink: u64,
    /// Size in bytes.
    pub size: u64,
    /// Allocated blocks of 512 bytes.
    pub blocks: u64,
    /// Last change of the contents.
    pub mtime: Time,
    /// Last change of contents or attributes.
    pub ctime: Time,
    /// Major and minor number of a device node.
    pub rdev: (u32, u32),
    /// The file system it lies on.
    pub dev: u64,
    /// Its number there.
    pub ino: u64,
}

impl Stat {
    pub(super) fn from_raw(stat: &rustix::fs::Stat) -> io::Result<Stat> {
        Ok(Stat {
            kind: FileKind::from_mode(stat.st_mode)
                .ok_or_else(|| io::Error::from(Errno::OPNOTSUPP))?,
            mode: stat.st_mode,
            uid: stat.st_uid,
            gid: stat.st_gid,
            nlink: stat.st_nlink,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            blocks: u64::try_from(stat.st_blocks).unwrap_or(0),
            mtime: Time { secs: stat.st_mtime, nanos: nanos(stat.st_mtime_nsec) },
            ctime: Time { secs: stat.st_ctime, nanos: nanos(stat.st_ctime_nsec) },
            rdev: (libc::major(stat.st_rdev), libc::minor(stat.st_rdev)),
            dev: stat.st_dev,
            ino: stat.st_ino,
        })
    }

    /// The permission bits with set-user-ID, set-group-ID and sticky: `st_mode & 07777`.
    #[must_use]
    pub fn permissions(&self) -> u32 {
        self.mode & 0o7777
    }

    /// True for a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }

    /// A stamp that moves whenever the file's bytes may have: size, mtime, ctime and identity in
    /// one number, never 0.
    #[must_use]
    pub fn stamp(&self) -> u64 {
        let mut stamp = Fingerprint::new();
        for part in [
            self.size,
            self.mtime.secs.cast_unsigned(),
            u64::from(self.mtime.nanos),
            self.ctime.secs.cast_unsigned(),
            u64::from(self.ctime.nanos),
            self.ino,
        ] {
            stamp.add_number(part);
        }
        stamp.finish().max(1)
    }
}

fn nanos(nanos: u64) -> u32 {
    u32::try_from(nanos).unwrap_or(0)
}

/// A 64-bit hash that is the same on every run and host (FNV-1a, then the finaliser of
/// MurmurHash3): for inode numbers and stamps, not against an adversary who may choose freely.
#[derive(Debug, Clone, Copy)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// The hash of nothing yet.
    #[must_use]
    pub fn new() -> Fingerprint {
        Fingerprint(0xcbf2_9ce4_8422_2325)
    }

    /// Adds `bytes`, and where they end.
    pub fn add(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().chain(&(bytes.len() as u32).to_le_bytes()) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// Adds a number, in a tenth of the time that its bytes would take. Two hashes that differ in one
    /// number alone are never the same.
    pub fn add_number(&mut self, number: u64) {
        let mixed = (self.0 ^ number).wrapping_mul(0xff51_afd7_ed55_8ccd);
        self.0 = mixed ^ (mixed >> 32);
    }

    /// The hash.
    #[must_use]
    pub fn finish(self) -> u64 {
        let mut hash = self.0;
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        hash ^ (hash >> 33)
    }
}

impl Default for Fingerprint {
    fn default() -> Self {
        Fingerprint::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_knows_where_its_parts_end() {
        let of = |parts: &[&[u8]]| {
            let mut hash = Fingerprint::new();
            parts.iter().for_each(|part| hash.add(part));
            hash.finish()
        };
        assert_ne!(of(&[b"ab", b"c"]), of(&[b"a", b"bc"]));
        assert_eq!(of(&[b"ab", b"c"]), of(&[b"ab", b"c"]));
    }

    #[test]
    fn a_stamp_moves_with_whatever_tells_of_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let stat = crate::backing::Root::open(dir.path(), crate::backing::Access::Sealed);
        let stat = stat.unwrap().stat("").unwrap();
        let later = |time: Time, by: u32| Time { nanos: time.nanos ^ by, ..time };
        let mut seen = std::collections::HashSet::from([stat.stamp()]);
        for by in [1, 2, 3, 1 << 20] {
            let Stat { size, ino, mtime, ctime, .. } = stat;
            for other in [
                Stat { size: size ^ u64::from(by), ..stat },
                Stat { ino: ino ^ u64::from(by), ..stat },
                Stat { mtime: later(mtime, by), ..stat },
                Stat { ctime: later(ctime, by), ..stat },
                Stat { mtime: Time { secs: mtime.secs + i64::from(by), ..mtime }, ..stat },
                Stat { ctime: Time { secs: ctime.secs + i64::from(by), ..ctime }, ..stat },
                Stat { mtime: later(mtime, by), ctime: later(ctime, by), ..stat },
            ] {
                assert!(seen.insert(other.stamp()), "{other:?}");
            }
        }
        assert_eq!(Stat { mode: 0, blocks: 7, ..stat }.stamp(), stat.stamp());
    }
}

//! What the tree is asked, and answers: plain values, which know no FUSE.

use std::ffi::OsString;
use std::time::Duration;

use crate::backing::{FileKind, Time};

/// Attributes of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// Inode number, which names immutable content: what changes gets another number.
    pub ino: u64,
    /// What it is.
    pub kind: FileKind,
    /// Permission bits, with set-user-ID, set-group-ID and sticky.
    pub permissions: u32,
    /// Number of names.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
    /// Blocks of 512 bytes that it takes.
    pub blocks: u64,
    /// Last change of the contents.
    pub mtime: Time,
    /// Last change of contents or attributes.
    pub ctime: Time,
    /// Major and minor number of a device node.
    pub rdev: (u32, u32),
    /// How long the kernel may keep the name and these attributes without asking again.
    pub ttl: Duration,
}

/// One name of a directory, as `readdir` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// The name.
    pub name: OsString,
    /// Its inode number.
    pub ino: u64,
    /// What it is.
    pub kind: FileKind,
    /// Whether its attributes come with the listing; those of the rest are worked out only when
    /// they are asked for.
    pub is_cheap: bool,
}

/// All names of a directory at one moment, in a fixed order, without `.` and `..`.
#[derive(Debug)]
pub struct Listing {
    /// The names; position + 3 is the place in readdir behind each (1 and 2 are `.` and `..`).
    pub children: Vec<Child>,
    /// Inode number of the directory above.
    pub parent: u64,
}

/// Numbers for `statfs`, in bytes and inodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Size of the file system that the store lies on.
    pub total: u64,
    /// Bytes of all layers, each once.
    pub used: u64,
    /// Inodes that the kernel knows of.
    pub inodes: u64,
}

/// Who asks, as FUSE reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reader {
    /// User ID.
    pub uid: u32,
    /// Process ID, 0 where it is in no namespace of ours.
    pub pid: u32,
}

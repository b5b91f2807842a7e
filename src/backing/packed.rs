//! A layer's files as its tar tells them: a compact table in memory, whose contents are elsewhere.
//!
//! What makes it small: names lie in one arena; a directory's entries stand side by side, sorted, so
//! that they are found by halving; hard links are names of one inode; a set of xattrs that many
//! files share is kept once. About 80 bytes and its name for a file.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;

use super::{Bytes, DirEntry, FileKind, Seek, Stat, Time};
use crate::error::{Error, Result};

mod builder;

pub use builder::{NewFile, PackedBuilder, What};

/// The xattr that marks a directory as opaque (Linux, fs/overlayfs).
const OPAQUE: &str = "trusted.overlay.opaque";

/// Longest name of a directory entry, in bytes (Linux `NAME_MAX`).
const NAME_MAX: usize = 255;

/// What `st_blocks` counts, in bytes (stat(2)).
const DISK_BLOCK: u64 = 512;

/// Bit of a device number that none of the kernel's has: no packed tree is taken for a disk.
const PACKED_DEVICE: u64 = 1 << 63;

/// The node of the topmost directory.
const TOP: u32 = 0;

/// A part of a file that is stored; what no extent covers is zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where it starts in the file.
    pub offset: u64,
    /// How long it is, in bytes.
    pub len: u64,
    /// Where its bytes start in what holds them.
    pub from: u64,
}

/// The files of one layer.
#[derive(Debug)]
pub struct PackedTree {
    bytes: Arc<dyn Bytes>,
    device: u64,
    names: Box<[u8]>,
    /// A directory's entries are neighbours, sorted by name.
    nodes: Box<[Node]>,
    inodes: Box<[Inode]>,
    /// Targets of symlinks.
    targets: Box<[u8]>,
    extents: Box<[Extent]>,
    /// Sets of xattrs, each as [`XattrSets`] writes it.
    xattrs: XattrSets,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    /// Where its name starts in `names`.
    name: u32,
    inode: u32,
    name_len: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Inode {
    /// Bytes of a file or of a symlink's target.
    size: u64,
    /// A file without holes: where its bytes start. One with holes: its first extent. A symlink:
    /// where its target starts in `targets`. A directory: its first entry in `nodes`. A device: its
    /// major and minor number.
    at: u64,
    secs: i64,
    nanos: u32,
    uid: u32,
    gid: u32,
    nlink: u32,
    /// Entries of a directory, or extents of a file with holes.
    count: u32,
    /// Where its xattrs start, 0 for none.
    xattrs: u32,
    permissions: u16,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    /// A file with holes.
    Sparse,
    Directory,
    /// A directory that hides what lies below.
    Opaque,
    Symlink,
    CharDevice,
    BlockDevice,
    Fifo,
    /// A name that can't be shown, and why.
    Damaged(Damage),
}

/// Why a name can't be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// A hard link to what is not in the layer, or to a directory.
    DanglingLink,
    /// An owner that no system has.
    Owner,
    /// A kind of file that nobody knows.
    UnknownKind,
    /// A symlink without a target, or with one that no system takes.
    Target,
    /// What its tar says of it for Windows makes no sense.
    Windows,
}

impl Damage {
    fn why(self) -> &'static str {
        match self {
            Damage::DanglingLink => "a hard link to what is no file of its layer",
            Damage::Owner => "its owner is no user or group ID",
            Damage::UnknownKind => "the layer's tar has it as a kind of file that is unknown",
            Damage::Target => "a symlink whose target no system takes",
            Damage::Windows => "what the layer's tar says of it for Windows makes no sense",
        }
    }
}

impl Kind {
    fn is_dir(self) -> bool {
        matches!(self, Kind::Directory | Kind::Opaque)
    }

    fn shown(self) -> Result<FileKind, Damage> {
        Ok(match self {
            Kind::File | Kind::Sparse => FileKind::Regular,
            Kind::Directory | Kind::Opaque => FileKind::Directory,
            Kind::Symlink => FileKind::Symlink,
            Kind::CharDevice => FileKind::CharDevice,
            Kind::BlockDevice => FileKind::BlockDevice,
            Kind::Fifo => FileKind::Fifo,
            Kind::Damaged(damage) => return Err(damage),
        })
    }
}

impl PackedTree {
    /// How many names it holds, with the topmost directory.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// True where it holds nothing but the topmost directory.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.len() <= 1
    }

    /// True where the topmost directory hides all that lies below it.
    #[must_use]
    pub fn is_opaque(&self) -> bool {
        self.inode(TOP).kind == Kind::Opaque
    }

    /// Memory it takes, in bytes, about.
    #[must_use]
    pub fn weight(&self) -> usize {
        size_of::<PackedTree>()
            + self.names.len()
            + size_of_val(&*self.nodes)
            + size_of_val(&*self.inodes)
            + self.targets.len()
            + size_of_val(&*self.extents)
            + self.xattrs.0.len()
            + self.bytes.weight()
    }

    fn inode(&self, node: u32) -> &Inode {
        &self.inodes[self.nodes[node as usize].inode as usize]
    }

    fn name(&self, node: &Node) -> &[u8] {
        let start = node.name as usize;
        &self.names[start..start + usize::from(node.name_len)]
    }

    /// The entries of a directory; none where `node` is none.
    fn children(&self, node: u32) -> &[Node] {
        let inode = self.inode(node);
        let first = inode.at as usize;
        if inode.kind.is_dir() { &self.nodes[first..first + inode.count as usize] } else { &[] }
    }

    fn child(&self, node: u32, name: &[u8]) -> Result<u32, Errno> {
        if !self.inode(node).kind.is_dir() {
            return Err(Errno::NOTDIR);
        }
        if name.len() > NAME_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        let found = self.children(node).binary_search_by(|child| self.name(child).cmp(name));
        found.map(|at| (self.inode(node).at as usize + at) as u32).map_err(|_| Errno::NOENT)
    }

    /// The node at `path` below `from`, as `openat2` would walk there with the rules of
    /// [`super`]: never up, and through no symlink.
    fn find(&self, from: u32, path: &[u8]) -> Result<u32, Errno> {
        if path.starts_with(b"/") {
            return Err(Errno::XDEV);
        }
        let mut node = from;
        for name in path.split(|&byte| byte == b'/') {
            if self.inode(node).kind == Kind::Symlink {
                return Err(Errno::LOOP);
            }
            node = match name {
                b"" | b"." => node,
                b".." => return Err(Errno::XDEV),
                name => self.child(node, name)?,
            };
        }
        Ok(node)
    }

    fn stat(&self, node: u32) -> Result<Stat, Damage> {
        let inode = self.inode(node);
        let kind = inode.kind.shown()?;
        let stored = match inode.kind {
            Kind::Sparse => self.stored(inode).iter().map(|extent| extent.len).sum(),
            Kind::File => inode.size,
            _ => 0,
        };
        let time = Time { secs: inode.secs, nanos: inode.nanos };
        Ok(Stat {
            kind,
            mode: kind.type_bits() | u32::from(inode.permissions),
            uid: inode.uid,
            gid: inode.gid,
            nlink: inode.nlink.into(),
            size: inode.size,
            blocks: stored.div_ceil(DISK_BLOCK),
            mtime: time,
            ctime: time,
            rdev: match inode.kind {
                Kind::CharDevice | Kind::BlockDevice => ((inode.at >> 32) as u32, inode.at as u32),
                _ => (0, 0),
            },
            dev: self.device | PACKED_DEVICE,
            ino: u64::from(self.nodes[node as usize].inode) + 1,
        })
    }

    fn target(&self, node: u32) -> Option<&[u8]> {
        let inode = self.inode(node);
        let at = inode.at as usize;
        (inode.kind == Kind::Symlink).then(|| &self.targets[at..at + inode.size as usize])
    }

    /// The extents of a file with holes.
    fn stored(&self, inode: &Inode) -> &[Extent] {
        let first = inode.at as usize;
        &self.extents[first..first + inode.count as usize]
    }

    /// Fills `buf` from byte `offset` of a file on, and returns how many bytes were read.
    fn read_at(&self, inode: &Inode, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let wanted = inode.size.saturating_sub(offset).min(buf.len() as u64) as usize;
        let (buf, end) = (&mut buf[..wanted], offset + wanted as u64);
        let whole = [Extent { offset: 0, len: inode.size, from: inode.at }];
        let extents = if inode.kind == Kind::Sparse { self.stored(inode) } else { &whole };
        let first = extents.partition_point(|extent| extent.offset + extent.len <= offset);
        if inode.kind == Kind::Sparse {
            buf.fill(0);
        }
        for extent in extents[first..].iter().take_while(|extent| extent.offset < end) {
            let from = extent.offset.max(offset);
            let until = (extent.offset + extent.len).min(end);
            let part = &mut buf[(from - offset) as usize..(until - offset) as usize];
            if self.bytes.read_at(extent.from + (from - extent.offset), part)? < part.len() {
                return Err(Error::corrupt(self.bytes.path(), "shorter than it was"));
            }
        }
        Ok(wanted)
    }

    fn seek(&self, inode: &Inode, offset: u64, seek: Seek) -> Option<u64> {
        if offset >= inode.size {
            return None;
        }
        if inode.kind != Kind::Sparse {
            return Some(if seek == Seek::Data { offset } else { inode.size });
        }
        let mut at = offset;
        for extent in self.stored(inode) {
            let end = extent.offset + extent.len;
            match seek {
                Seek::Data if end > at => return Some(at.max(extent.offset)),
                Seek::Hole if extent.offset <= at && at < end => at = end,
                Seek::Data | Seek::Hole => {}
            }
        }
        (seek == Seek::Hole).then_some(at)
    }
}

/// A directory of a packed tree.
#[derive(Debug, Clone)]
pub(super) struct PackedDir {
    tree: Arc<PackedTree>,
    node: u32,
}

/// A regular file of a packed tree.
#[derive(Debug, Clone)]
pub(super) struct PackedFile {
    tree: Arc<PackedTree>,
    inode: Inode,
}

impl PackedDir {
    pub(super) fn top(tree: Arc<PackedTree>) -> PackedDir {
        PackedDir { tree, node: TOP }
    }

    /// The directory `path` below this one.
    pub(super) fn dir(&self, path: &Path) -> Result<PackedDir, Errno> {
        let node = self.tree.find(self.node, path.as_os_str().as_bytes())?;
        match self.tree.inode(node).kind.is_dir() {
            true => Ok(PackedDir { tree: Arc::clone(&self.tree), node }),
            false => Err(Errno::NOTDIR),
        }
    }

    /// The regular file `path` below this one, and its attributes.
    pub(super) fn file(&self, path: &Path) -> io::Result<(PackedFile, Stat)> {
        let node = self.tree.find(self.node, path.as_os_str().as_bytes())?;
        let stat = self.stat_of(node)?;
        match stat.kind {
            FileKind::Regular => {
                let inode = *self.tree.inode(node);
                Ok((PackedFile { tree: Arc::clone(&self.tree), inode }, stat))
            }
            FileKind::Directory => Err(Errno::ISDIR.into()),
            FileKind::Symlink => Err(Errno::LOOP.into()),
            FileKind::CharDevice | FileKind::BlockDevice | FileKind::Fifo | FileKind::Socket => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file"))
            }
        }
    }

    pub(super) fn names(&self) -> Vec<DirEntry> {
        let entry = |node: &Node| DirEntry {
            name: OsStr::from_bytes(self.tree.name(node)).to_owned(),
            ino: u64::from(node.inode) + 1,
        };
        self.tree.children(self.node).iter().map(entry).collect()
    }

    /// Attributes of the entry `name` (`""`: the directory itself).
    pub(super) fn stat(&self, name: &OsStr) -> io::Result<Stat> {
        self.stat_of(self.entry(name)?)
    }

    pub(super) fn read_link(&self, name: &OsStr) -> Result<Vec<u8>, Errno> {
        let node = self.entry(name)?;
        self.tree.target(node).map(<[u8]>::to_vec).ok_or(Errno::INVAL)
    }

    pub(super) fn xattr(&self, name: &OsStr, attribute: &OsStr) -> Result<Option<Vec<u8>>, Errno> {
        let inode = self.tree.inode(self.entry(name)?);
        if inode.kind == Kind::Opaque && attribute == OPAQUE {
            return Ok(Some(b"y".to_vec()));
        }
        let mut set = self.tree.xattrs.at(inode.xattrs);
        Ok(set.find(|(name, _)| *name == attribute.as_bytes()).map(|(_, value)| value.to_vec()))
    }

    pub(super) fn xattrs(&self, name: &OsStr) -> Result<Vec<OsString>, Errno> {
        let inode = self.tree.inode(self.entry(name)?);
        let set = self.tree.xattrs.at(inode.xattrs);
        let mut names: Vec<_> = set.map(|(name, _)| OsString::from_vec(name.to_vec())).collect();
        if inode.kind == Kind::Opaque {
            names.push(OPAQUE.into());
        }
        names.sort();
        Ok(names)
    }

    fn entry(&self, name: &OsStr) -> Result<u32, Errno> {
        if name.is_empty() {
            return Ok(self.node);
        }
        self.tree.child(self.node, name.as_bytes())
    }

    fn stat_of(&self, node: u32) -> io::Result<Stat> {
        let damaged = |damage: Damage| io::Error::new(io::ErrorKind::InvalidData, damage.why());
        self.tree.stat(node).map_err(damaged)
    }
}

impl PackedFile {
    pub(super) fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.tree.read_at(&self.inode, offset, buf).map_err(io::Error::other)
    }

    pub(super) fn seek(&self, offset: u64, seek: Seek) -> Option<u64> {
        self.tree.seek(&self.inode, offset, seek)
    }
}

/// Sets of xattrs, one after another: how many there are in 2 bytes, then for each the lengths of
/// its name and value in 4 bytes each, name and value. At 0 is the empty set.
#[derive(Debug)]
struct XattrSets(Vec<u8>);

impl XattrSets {
    fn new() -> XattrSets {
        XattrSets(vec![0, 0])
    }

    /// The bytes of a set.
    fn encode(xattrs: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
        let count = u16::try_from(xattrs.len()).unwrap_or(u16::MAX);
        let mut set = count.to_le_bytes().to_vec();
        for (name, value) in xattrs.iter().take(count.into()) {
            set.extend((name.len() as u32).to_le_bytes());
            set.extend((value.len() as u32).to_le_bytes());
            set.extend(name);
            set.extend(value);
        }
        set
    }

    fn at(&self, at: u32) -> impl Iterator<Item = (&[u8], &[u8])> {
        let (count, mut rest) = self.0[at as usize..].split_at(2);
        let count = u16::from_le_bytes([count[0], count[1]]);
        (0..count).map(move |_| {
            let mut take = |length: usize| {
                let (taken, left) = rest.split_at(length);
                rest = left;
                taken
            };
            let mut length = || take(4).iter().rev().fold(0, |sum, &byte| sum << 8 | byte as usize);
            let (name, value) = (length(), length());
            (take(name), take(value))
        })
    }
}

#[cfg(test)]
mod tests;

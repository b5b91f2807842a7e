//! A [`PackedTree`] from the entries of a layer's tar, in their order.
//!
//! The result is what an engine's unpacking leaves behind (containerd `pkg/archive/tar.go`, moby
//! `pkg/archive/diff.go`, both into an overlay's upper directory), with the OCI rule for whiteouts
//! (image-spec, layer.md): one hides what the layers below have, whatever its place in the tar.
//! 1. The last entry of a name wins; a directory over a directory keeps what is in it.
//! 2. Parents are reached through symlinks of the layer itself, which never lead out of it; the last
//!    name of a path is never followed. Parents that are missing are made.
//! 3. A hard link is a further name of what its target is at that moment.
//! 4. `.wh.NAME` and `.wh..wh..opq` are marks; other names in the topmost directory that start with
//!    `.wh..wh.` are AUFS's own and hidden, but hard links to what is in them hold.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use hashbrown::HashTable;

use super::{Damage, Extent, Inode, Kind, NAME_MAX, Node, PackedTree, TOP, Time, XattrSets};
use crate::backing::{Bytes, PATH_MAX, XATTR_MAX};

/// Before a name that is hidden (OCI image-spec, layer.md, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";

/// Before names that are AUFS's own.
const AUFS: &[u8] = b".wh..wh.";

/// In a directory of which nothing below is shown (OCI image-spec, layer.md, "Opaque Whiteout").
const OPAQUE_MARK: &[u8] = b".wh..wh..opq";

/// Symlinks that one path may lead through (Linux `MAXSYMLINKS`).
const LINKS_MAX: usize = 40;

/// No inode: the node was replaced.
const GONE: u32 = u32::MAX;

/// Nanoseconds from 1970 on that a file system takes (containerd `boundTime`), in whole seconds.
const SECS_MAX: i64 = i64::MAX / 1_000_000_000;

/// A file as an archive tells it.
#[derive(Debug, Clone, Copy)]
pub struct NewFile<'a> {
    /// Its path in the archive, as it stands there.
    pub path: &'a [u8],
    /// What it is.
    pub what: What<'a>,
    /// Permission bits; others are dropped.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of its contents.
    pub mtime: Time,
    /// Its xattrs by name; overlayfs's own are dropped.
    pub xattrs: &'a [(Vec<u8>, Vec<u8>)],
}

/// What a file is.
#[derive(Debug, Clone, Copy)]
pub enum What<'a> {
    /// A file of that size, with what of it is stored: in order, and apart from each other.
    File {
        /// Bytes, with the holes.
        size: u64,
        /// What is no hole.
        extents: &'a [Extent],
    },
    /// Another name of the file at that path.
    HardLink(&'a [u8]),
    /// A symbolic link to there.
    Symlink(&'a [u8]),
    /// A character device: major and minor number.
    CharDevice(u32, u32),
    /// A block device: major and minor number.
    BlockDevice(u32, u32),
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
    /// It is there but can't be shown.
    Damaged(Damage),
}

/// Builds a [`PackedTree`].
#[derive(Debug)]
pub struct PackedBuilder {
    bytes: Arc<dyn Bytes>,
    device: u64,
    /// Memory that it may take, in bytes.
    limit: usize,
    names: Vec<u8>,
    nodes: Vec<NewNode>,
    /// Nodes by parent and name.
    index: HashTable<u32>,
    hasher: RandomState,
    inodes: Vec<Inode>,
    targets: Vec<u8>,
    extents: Vec<Extent>,
    xattrs: XattrSets,
    known_xattrs: HashMap<Vec<u8>, u32>,
}

#[derive(Debug, Clone, Copy)]
struct NewNode {
    parent: u32,
    /// Where its name starts in `names`.
    name: u32,
    /// [`GONE`] where another node took the name.
    inode: u32,
    name_len: u8,
    /// The layer also holds a whiteout of this name.
    is_whited_out: bool,
}

const DIRECTORY: Inode = Inode {
    size: 0,
    at: 0,
    secs: 0,
    nanos: 0,
    uid: 0,
    gid: 0,
    nlink: 1,
    count: 0,
    xattrs: 0,
    permissions: 0o755,
    kind: Kind::Directory,
};

/// What becomes of directories that a path needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    Make,
    Leave,
}

/// Why an archive can't be a layer.
type Refusal = &'static str;

impl PackedBuilder {
    /// Nothing but the topmost directory. Contents will lie in `bytes`; `device` sets this tree
    /// apart from others; the tree takes no more than `limit` bytes of memory.
    #[must_use]
    pub fn new(bytes: Arc<dyn Bytes>, device: u64, limit: usize) -> PackedBuilder {
        let top = NewNode { parent: TOP, name: 0, inode: 0, name_len: 0, is_whited_out: false };
        PackedBuilder {
            bytes,
            device,
            // Places in the arenas are 32 bits wide.
            limit: limit.min(u32::MAX as usize),
            names: Vec::new(),
            nodes: vec![top],
            index: HashTable::new(),
            hasher: RandomState::new(),
            inodes: vec![DIRECTORY],
            targets: Vec::new(),
            extents: Vec::new(),
            xattrs: XattrSets::new(),
            known_xattrs: HashMap::new(),
        }
    }

    /// The next file of the archive. An entry for the topmost directory itself says nothing, as in
    /// containerd.
    ///
    /// # Errors
    /// Says why no engine could unpack the archive, or that it holds too much.
    pub fn add(&mut self, file: &NewFile<'_>) -> Result<(), Refusal> {
        if self.weight() > self.limit {
            return Err("it holds too many files");
        }
        let names = clean(file.path)?;
        let Some((&name, above)) = names.split_last() else { return Ok(()) };
        let Some(parent) = self.walk(above, Missing::Make)? else { return Ok(()) };
        let is_hidden = names[0].starts_with(AUFS) && names[0] != OPAQUE_MARK;
        match name.strip_prefix(WHITEOUT) {
            _ if is_hidden => {}
            _ if name == OPAQUE_MARK => {
                self.inode_mut(parent).kind = Kind::Opaque;
                return Ok(());
            }
            // They would hide the directory itself, or the one above.
            Some(b"" | b"." | b"..") => return Ok(()),
            Some(hidden) => return self.add_whiteout(parent, hidden, file),
            None => {}
        }
        let inode = match file.what {
            What::HardLink(target) => match self.linked(target)? {
                // A link to itself would have been removed before it was made.
                Some(inode) if self.at(parent, name) != Some(inode) => inode,
                _ => self.push_inode(self.damaged(file, Damage::DanglingLink))?,
            },
            What::Directory if self.is_dir(parent, name) => {
                return self.update_dir(parent, name, file);
            }
            _ => {
                let inode = self.make(file)?;
                self.push_inode(inode)?
            }
        };
        self.put(parent, name, inode)?;
        Ok(())
    }

    /// The finished tree.
    #[must_use]
    pub fn finish(mut self) -> PackedTree {
        self.index = HashTable::new();
        self.known_xattrs = HashMap::new();
        for inode in &mut self.inodes {
            inode.nlink = 0;
        }
        let nodes = self.arrange();
        PackedTree {
            bytes: self.bytes,
            device: self.device,
            names: self.names.into(),
            nodes: nodes.into(),
            inodes: self.inodes.into(),
            targets: self.targets.into(),
            extents: self.extents.into(),
            xattrs: self.xattrs,
        }
    }

    /// All nodes that can be reached, each directory's entries side by side.
    fn arrange(&mut self) -> Vec<Node> {
        let names = &self.names;
        let name = |node: &NewNode| {
            let start = node.name as usize;
            &names[start..start + usize::from(node.name_len)]
        };
        let mut sorted: Vec<u32> = (1..self.nodes.len() as u32).collect();
        sorted.retain(|&id| self.nodes[id as usize].inode != GONE);
        sorted.sort_unstable_by_key(|&id| {
            let node = &self.nodes[id as usize];
            (node.parent, name(node))
        });
        let mut placed = vec![TOP];
        let mut nodes = vec![Node { name: 0, inode: 0, name_len: 0 }];
        self.inodes[0].nlink = 1;
        let mut next = 0;
        while let Some(&id) = placed.get(next) {
            let inode = nodes[next].inode as usize;
            next += 1;
            if !self.inodes[inode].kind.is_dir() {
                continue;
            }
            let first = sorted.partition_point(|&child| self.nodes[child as usize].parent < id);
            let count =
                sorted[first..].partition_point(|&child| self.nodes[child as usize].parent == id);
            self.inodes[inode].at = nodes.len() as u64;
            for &child in &sorted[first..first + count] {
                let node = &self.nodes[child as usize];
                let is_hidden = id == TOP && name(node).starts_with(AUFS);
                if is_hidden {
                    continue;
                }
                let inode = &mut self.inodes[node.inode as usize];
                inode.nlink += 1;
                if node.is_whited_out && inode.kind == Kind::Directory {
                    inode.kind = Kind::Opaque;
                }
                placed.push(child);
                nodes.push(Node { name: node.name, inode: node.inode, name_len: node.name_len });
            }
            self.inodes[inode].count = (nodes.len() as u64 - self.inodes[inode].at) as u32;
        }
        nodes
    }

    fn weight(&self) -> usize {
        self.names.len()
            + self.nodes.len() * (size_of::<NewNode>() + size_of::<Node>() + 16)
            + self.inodes.len() * size_of::<Inode>()
            + self.targets.len()
            + self.extents.len() * size_of::<Extent>()
            + self.xattrs.0.len() * 2
    }

    /// The directory that these names lead to.
    fn walk(&mut self, names: &[&[u8]], missing: Missing) -> Result<Option<u32>, Refusal> {
        let mut node = TOP;
        let mut links = 0;
        // The names that are left, last first.
        let mut left: Vec<Vec<u8>> = Vec::new();
        for &name in names {
            left.push(name.to_vec());
            while let Some(name) = left.pop() {
                let Some(target) = self.link_at(node, &name) else {
                    let next = match (&name[..], self.find(node, &name), missing) {
                        (b"..", ..) => Some(self.nodes[node as usize].parent),
                        (_, Some(next), _) if self.is_dir(node, &name) => Some(next),
                        (name, _, Missing::Make) => Some(self.make_dir(node, name)?),
                        (_, _, Missing::Leave) => None,
                    };
                    let Some(next) = next else { return Ok(None) };
                    node = next;
                    continue;
                };
                links += 1;
                if links > LINKS_MAX {
                    return Err("a path leads through too many symlinks");
                }
                if target.starts_with(b"/") {
                    node = TOP;
                }
                let parts = target.split(|&byte| byte == b'/').rev();
                left.extend(parts.filter(|part| !matches!(*part, b"" | b".")).map(<[u8]>::to_vec));
            }
        }
        Ok(Some(node))
    }

    fn make_dir(&mut self, parent: u32, name: &[u8]) -> Result<u32, Refusal> {
        if name.len() > NAME_MAX {
            return Err("a name is too long");
        }
        let inode = self.push_inode(DIRECTORY)?;
        self.put(parent, name, inode)
    }

    /// The target of the symlink `name` in `parent`, if it is one.
    fn link_at(&self, parent: u32, name: &[u8]) -> Option<Vec<u8>> {
        let inode = &self.inodes[self.at(parent, name)? as usize];
        let at = inode.at as usize;
        (inode.kind == Kind::Symlink).then(|| self.targets[at..at + inode.size as usize].to_vec())
    }

    /// What a hard link to `path` is a name of.
    fn linked(&mut self, path: &[u8]) -> Result<Option<u32>, Refusal> {
        let names = clean(path)?;
        let Some((&name, above)) = names.split_last() else { return Ok(None) };
        let Some(parent) = self.walk(above, Missing::Leave)? else { return Ok(None) };
        let inode = self.at(parent, name);
        Ok(inode.filter(|&inode| match self.inodes[inode as usize].kind {
            Kind::Directory | Kind::Opaque | Kind::Damaged(_) => false,
            Kind::CharDevice => self.inodes[inode as usize].at != 0,
            Kind::File | Kind::Sparse | Kind::Symlink | Kind::BlockDevice | Kind::Fifo => true,
        }))
    }

    /// The layer hides `name` of the layers below.
    fn add_whiteout(
        &mut self,
        parent: u32,
        name: &[u8],
        file: &NewFile<'_>,
    ) -> Result<(), Refusal> {
        let node = match self.find(parent, name) {
            Some(node) => node,
            None => {
                let device = self.owned(file, Kind::CharDevice);
                let inode = self.push_inode(Inode { permissions: 0, ..device })?;
                self.put(parent, name, inode)?
            }
        };
        self.nodes[node as usize].is_whited_out = true;
        Ok(())
    }

    fn update_dir(&mut self, parent: u32, name: &[u8], file: &NewFile<'_>) -> Result<(), Refusal> {
        let xattrs = self.push_xattrs(file.xattrs)?;
        let Some(node) = self.find(parent, name) else { return Ok(()) };
        let kind = self.inode_mut(node).kind;
        let new = self.owned(file, kind);
        *self.inode_mut(node) = Inode { xattrs, ..new };
        Ok(())
    }

    /// The inode of a file that is no hard link.
    fn make(&mut self, file: &NewFile<'_>) -> Result<Inode, Refusal> {
        let device = |major: u32, minor: u32| u64::from(major) << 32 | u64::from(minor);
        let xattrs = self.push_xattrs(file.xattrs)?;
        let inode = |kind, size, at| Inode { size, at, xattrs, ..self.owned(file, kind) };
        Ok(match file.what {
            What::File { size, extents } => {
                let made = inode(Kind::File, size, 0);
                self.place(made, extents)?
            }
            What::Symlink(target) => {
                if target.is_empty() || target.len() >= PATH_MAX || target.contains(&0) {
                    return Ok(self.damaged(file, Damage::Target));
                }
                let at = self.targets.len() as u64;
                let link = inode(Kind::Symlink, target.len() as u64, at);
                self.targets.extend_from_slice(target);
                Inode { permissions: 0o777, ..link }
            }
            What::CharDevice(major, minor) => inode(Kind::CharDevice, 0, device(major, minor)),
            What::BlockDevice(major, minor) => inode(Kind::BlockDevice, 0, device(major, minor)),
            What::Directory => inode(Kind::Directory, 0, 0),
            What::Fifo => inode(Kind::Fifo, 0, 0),
            What::Damaged(damage) => self.damaged(file, damage),
            What::HardLink(_) => self.damaged(file, Damage::DanglingLink),
        })
    }

    /// Gives a file its contents.
    fn place(&mut self, inode: Inode, extents: &[Extent]) -> Result<Inode, Refusal> {
        let available = self.bytes.len();
        let mut end = 0;
        for extent in extents {
            let until = extent.offset.checked_add(extent.len);
            let stored = extent.from.checked_add(extent.len);
            let is_fine = extent.offset >= end
                && until.is_some_and(|until| until <= inode.size)
                && stored.is_some_and(|stored| stored <= available);
            if !is_fine {
                return Err("a file reaches beyond the end");
            }
            end = extent.offset + extent.len;
        }
        if let [Extent { offset: 0, len, from }] = *extents
            && len == inode.size
        {
            return Ok(Inode { at: from, ..inode });
        }
        let (at, count) = (self.extents.len() as u64, extents.len() as u32);
        self.extents.extend(extents.iter().filter(|extent| extent.len > 0));
        let count = count.min((self.extents.len() as u64 - at) as u32);
        Ok(Inode { kind: Kind::Sparse, at, count, ..inode })
    }

    fn damaged(&self, file: &NewFile<'_>, damage: Damage) -> Inode {
        self.owned(file, Kind::Damaged(damage))
    }

    fn owned(&self, file: &NewFile<'_>, kind: Kind) -> Inode {
        // What an engine can't set, or would read as before 1970, it leaves at 0.
        let time = match file.mtime {
            time if (0..=SECS_MAX).contains(&time.secs) => time,
            _ => Time::default(),
        };
        Inode {
            secs: time.secs,
            nanos: time.nanos,
            uid: file.uid,
            gid: file.gid,
            permissions: (file.mode & 0o7777) as u16,
            kind,
            ..DIRECTORY
        }
    }

    fn push_inode(&mut self, inode: Inode) -> Result<u32, Refusal> {
        let id = u32::try_from(self.inodes.len()).ok().filter(|&id| id < GONE);
        self.inodes.push(inode);
        id.ok_or("it holds too many files")
    }

    /// Where a set of xattrs lies.
    fn push_xattrs(&mut self, xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<u32, Refusal> {
        let is_kept = |(name, value): &&(Vec<u8>, Vec<u8>)| {
            let is_overlays = [&b"trusted.overlay."[..], b"user.overlay."]
                .iter()
                .any(|prefix| name.starts_with(prefix));
            !is_overlays && (1..=NAME_MAX).contains(&name.len()) && value.len() <= XATTR_MAX
        };
        let kept: Vec<_> = xattrs.iter().filter(is_kept).cloned().collect();
        if kept.is_empty() {
            return Ok(0);
        }
        let set = XattrSets::encode(&kept);
        if let Some(&at) = self.known_xattrs.get(&set) {
            return Ok(at);
        }
        let at = u32::try_from(self.xattrs.0.len()).map_err(|_| "it holds too many xattrs")?;
        self.xattrs.0.extend_from_slice(&set);
        self.known_xattrs.insert(set, at);
        Ok(at)
    }

    fn inode_mut(&mut self, node: u32) -> &mut Inode {
        let inode = self.nodes[node as usize].inode;
        &mut self.inodes[inode as usize]
    }

    fn is_dir(&self, parent: u32, name: &[u8]) -> bool {
        self.at(parent, name).is_some_and(|inode| self.inodes[inode as usize].kind.is_dir())
    }

    /// The inode of `name` in `parent`.
    fn at(&self, parent: u32, name: &[u8]) -> Option<u32> {
        Some(self.nodes[self.find(parent, name)? as usize].inode)
    }

    fn find(&self, parent: u32, name: &[u8]) -> Option<u32> {
        let hash = self.hasher.hash_one((parent, name));
        self.index.find(hash, |&node| self.is_called(node, parent, name)).copied()
    }

    fn is_called(&self, node: u32, parent: u32, name: &[u8]) -> bool {
        let node = &self.nodes[node as usize];
        let start = node.name as usize;
        node.parent == parent && self.names[start..start + usize::from(node.name_len)] == *name
    }

    /// Gives `name` in `parent` to `inode`. What it was before is gone, with all that was in it.
    fn put(&mut self, parent: u32, name: &[u8], inode: u32) -> Result<u32, Refusal> {
        let new = u32::try_from(self.nodes.len()).map_err(|_| "it holds too many files")?;
        let hash = self.hasher.hash_one((parent, name));
        let mut node =
            NewNode { parent, name: 0, inode, name_len: name.len() as u8, is_whited_out: false };
        if let Some(old) = self.find(parent, name) {
            let before = &mut self.nodes[old as usize];
            node = NewNode { inode, ..*before };
            before.inode = GONE;
            let entry = self.index.find_mut(hash, |&known| known == old);
            entry.map(|known| *known = new).ok_or("the index is damaged")?;
            self.nodes.push(node);
            return Ok(new);
        }
        node.name = u32::try_from(self.names.len()).map_err(|_| "its names are too long")?;
        self.names.extend_from_slice(name);
        self.nodes.push(node);
        let PackedBuilder { index, nodes, names, hasher, .. } = self;
        index.insert_unique(hash, new, |&node| {
            let node = &nodes[node as usize];
            let start = node.name as usize;
            hasher.hash_one((node.parent, &names[start..start + usize::from(node.name_len)]))
        });
        Ok(new)
    }
}

/// The names of a path, as `filepath.Clean` leaves them; `..` goes up at most to the top.
fn clean(path: &[u8]) -> Result<Vec<&[u8]>, Refusal> {
    if path.len() > PATH_MAX {
        return Err("a path is too long");
    }
    let mut names: Vec<&[u8]> = Vec::new();
    for name in path.split(|&byte| byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => {
                names.pop();
            }
            name if name.len() > NAME_MAX => return Err("a name is too long"),
            name if name.contains(&0) => return Err("a name holds a NUL"),
            name => names.push(name),
        }
    }
    Ok(names)
}

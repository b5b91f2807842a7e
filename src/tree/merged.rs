//! Files of merged layers: `rootfs/`, by directory, as they are looked at.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::directories::Listed;
use super::identity::Identity;
use super::inodes::Known;
use super::node::Node;
use super::{Attr, Child, FRESH, IMMUTABLE, Symlinks, Tree};
use crate::backing::{Access, BackingFile, FileKind, Fingerprint, Seek, Time};
use crate::error::{Error, Result};
use crate::overlay::{Entry, Place, Stack};
use crate::store::shown_id;
use crate::windows::records::{self, Around, XATTR_BACKUP, XATTR_MAX};
use crate::windows::stream::{HEADER, Header, Kind};

/// The class in which the xattrs of a Windows layer's links are shown.
const TRUSTED: &str = "trusted.";

/// What is wrong with a file of a layer that is another one now.
const CHANGED: &str = "changed since it was looked up";

/// The merged files of an image or a container.
#[derive(Debug)]
pub(super) struct MergedTree {
    stack: Stack,
    /// Whether a container may be writing to the topmost layer.
    is_live: bool,
    symlinks: Symlinks,
    /// Mtime of the topmost directory.
    mtime: Time,
}

impl MergedTree {
    pub(super) fn new(stack: Stack, symlinks: Symlinks, mtime: Time) -> MergedTree {
        let is_live = stack.layers().iter().any(|layer| layer.root.access() == Access::Live);
        MergedTree { stack, is_live, symlinks, mtime }
    }

    pub(super) fn stack(&self) -> &Stack {
        &self.stack
    }

    pub(super) fn is_live(&self) -> bool {
        self.is_live
    }

    /// Whether a layer or the container that it is of was removed.
    pub(super) fn is_gone(&self) -> bool {
        self.stack.layers().iter().any(|layer| layer.root.is_removed())
    }

    /// How long a name or its attributes may be kept.
    pub(super) fn ttl(&self) -> Duration {
        if self.is_live { FRESH } else { IMMUTABLE }
    }

    /// Whether a listing still tells the truth.
    pub(super) fn is_current<T>(&self, listed: &Listed<T>) -> bool {
        !self.is_live || listed.age() < FRESH
    }

    /// Which layers it is merged of.
    pub(super) fn version(&self) -> u64 {
        let mut version = Fingerprint::new();
        self.stack.layers().iter().for_each(|layer| version.add(&layer.identity.to_le_bytes()));
        version.finish()
    }

    /// What an entry is: a directory is its path, as no two names may share one; anything else is
    /// the file of the layer, so that every name of it has one number. What a container may write
    /// to is another file after each change.
    pub(super) fn identity(&self, parent: u64, entry: &Entry, depth: usize) -> Identity {
        if entry.is_dir() {
            return Identity::of_name(parent, &entry.name, b"");
        }
        let layer = &self.stack.layers()[entry.place.layer];
        let stamp = if layer.root.access() == Access::Live { entry.stat.stamp() } else { 0 };
        let is_rewritten =
            self.symlinks == Symlinks::Rebase && entry.stat.kind == FileKind::Symlink;
        let depth = if is_rewritten { depth } else { 0 };
        Identity::of(&[
            b"file",
            &layer.identity.to_le_bytes(),
            &entry.stat.ino.to_le_bytes(),
            &stamp.to_le_bytes(),
            &depth.to_le_bytes(),
        ])
    }

    /// Attributes of an entry `depth` names below the root.
    pub(super) fn attr(&self, identity: Identity, entry: &Entry, depth: usize) -> Result<Attr> {
        let stat = &entry.stat;
        let mut attr = Attr {
            ino: identity.ino(),
            kind: stat.kind,
            permissions: stat.permissions(),
            nlink: u32::try_from(stat.nlink).unwrap_or(u32::MAX),
            uid: shown_id(stat.uid),
            gid: shown_id(stat.gid),
            size: stat.size,
            blocks: stat.blocks,
            mtime: stat.mtime,
            ctime: stat.ctime,
            rdev: stat.rdev,
            ttl: self.ttl(),
        };
        if entry.is_dir() {
            attr.nlink = 1; // as overlayfs: how many are below is not known
        }
        if depth == 0 {
            attr.mtime = self.mtime;
            attr.ctime = self.mtime;
        }
        if stat.kind == FileKind::Symlink && self.symlinks == Symlinks::Rebase {
            attr.size = self.read_link(entry, depth)?.len() as u64;
        }
        Ok(attr)
    }

    pub(super) fn child(&self, parent: u64, entry: &Entry, depth: usize) -> Child {
        Child {
            name: entry.name.clone(),
            ino: self.identity(parent, entry, depth).ino(),
            kind: entry.stat.kind,
            is_cheap: true,
        }
    }

    /// The target of a symlink `depth` names below the root.
    pub(super) fn read_link(&self, entry: &Entry, depth: usize) -> Result<Vec<u8>> {
        let target = self.stack.read_link(entry)?;
        Ok(match self.symlinks {
            Symlinks::Raw => target,
            Symlinks::Rebase => rebase(&target, depth),
        })
    }

    pub(super) fn xattr(&self, entry: &Entry, name: &OsStr) -> Result<Option<Vec<u8>>> {
        let of_link = of_link(entry, name);
        let name = of_link.as_deref().unwrap_or(name);
        if name == XATTR_BACKUP {
            return self.backup_stream(entry);
        }
        self.stack.xattr(entry, name)
    }

    /// The backup stream of a file of a Windows layer, as unpacking its tar would write it.
    fn backup_stream(&self, entry: &Entry) -> Result<Option<Vec<u8>>> {
        let mut xattrs = Vec::new();
        for name in self.stack.xattrs(entry)? {
            let value = self.stack.xattr(entry, &name)?;
            xattrs.extend(name.into_string().ok().zip(value));
        }
        let streams = records::streams_of(&xattrs);
        let streams = streams.map_err(|why| Error::corrupt(self.shown(&entry.place), why))?;
        let Some(Around { before: mut stream, after }) = streams else { return Ok(None) };
        let size = if entry.stat.kind == FileKind::Regular { entry.stat.size } else { 0 };
        if size.saturating_add((stream.len() + after.len() + HEADER) as u64) > XATTR_MAX as u64 {
            return Err(Error::errno_of(Path::new(&entry.name), Errno::TOOBIG));
        }
        if entry.stat.kind == FileKind::Regular {
            Header::new(Kind::Data, size).write(&mut stream);
            let mut data = vec![0; size as usize];
            self.read(entry, 0, &mut data)?;
            stream.extend(data);
        }
        stream.extend(after);
        Ok(Some(stream))
    }

    pub(super) fn xattrs(&self, entry: &Entry) -> Result<Vec<OsString>> {
        let names = self.stack.xattrs(entry)?;
        if has_user_xattrs(entry) {
            return Ok(names);
        }
        let shown =
            names.into_iter().filter_map(|name| match name.to_str()?.strip_prefix("user.") {
                Some(rest) => rest.starts_with("win.").then(|| format!("{TRUSTED}{rest}").into()),
                None => Some(name),
            });
        Ok(shown.collect())
    }

    /// Reads a regular file, up to the size that it had when it was looked up.
    pub(super) fn read(&self, entry: &Entry, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let wanted = entry.stat.size.saturating_sub(offset).min(buf.len() as u64) as usize;
        let file = self.open(entry)?;
        let read = file.read_at(offset, &mut buf[..wanted]);
        match read.map_err(|err| Error::io(self.shown(&entry.data), err))? {
            read if read == wanted => Ok(read),
            _ => Err(self.changed(&entry.data)),
        }
    }

    pub(super) fn seek(&self, entry: &Entry, offset: u64, seek: Seek) -> Result<Option<u64>> {
        let found = self.open(entry)?.seek(offset, seek);
        found.map_err(|err| Error::io(self.shown(&entry.data), err))
    }

    /// Opens the contents of a regular file, and makes sure that it is the one that was looked up.
    pub(super) fn open(&self, entry: &Entry) -> Result<BackingFile> {
        if entry.stat.kind != FileKind::Regular {
            let errno = if entry.is_dir() { Errno::ISDIR } else { Errno::INVAL };
            return Err(Error::errno_of(Path::new(&entry.name), errno));
        }
        let root = &self.stack.layers()[entry.data.layer].root;
        let file = root.open_file(entry.data.path()).map_err(|err| match err {
            err if err.is_not_found() || err.is_misplaced() => self.changed(&entry.data),
            err => err,
        })?;
        let is_same = match entry.data == entry.place {
            true => file.stat().stamp() == entry.stat.stamp(),
            false => file.stat().size == entry.stat.size,
        };
        if is_same { Ok(file) } else { Err(self.changed(&entry.data)) }
    }

    /// What was looked up is gone: damage in a layer, an event in a container.
    fn changed(&self, place: &Place) -> Error {
        let root = &self.stack.layers()[place.layer].root;
        match root.access() {
            Access::Sealed if !root.is_removed() => Error::corrupt(self.shown(place), CHANGED),
            Access::Sealed | Access::Live => Error::stale(self.shown(place)),
        }
    }

    /// What was looked up as `name` in the directory `dir` is not there any more as it was.
    pub(super) fn lost(&self, dir: &Entry, name: &OsStr) -> Error {
        let path = self.shown(&dir.place).join(name);
        match self.is_gone() {
            true => Error::stale(path),
            false => Error::corrupt(path, CHANGED),
        }
    }

    fn shown(&self, place: &Place) -> PathBuf {
        self.stack.layers()[place.layer].root.path().join(place.path())
    }
}

impl Tree {
    /// What a merged directory is merged of now. Where a container may write, it is looked up again
    /// from the top once that is older than [`FRESH`]: a directory that somebody is in, or has open,
    /// is not looked up by the kernel.
    fn merged_dir<'a>(
        &self,
        ino: u64,
        tree: &MergedTree,
        dir: &'a Entry,
    ) -> Result<Cow<'a, Entry>> {
        if !tree.is_live {
            return Ok(Cow::Borrowed(dir));
        }
        let known = self.known(ino)?;
        if known.seen.elapsed() < FRESH {
            return Ok(Cow::Borrowed(dir));
        }
        let mut names = Vec::new();
        let mut above = known;
        while let Node::Merged { entry, depth: 1.., .. } = &*above.node {
            names.push(entry.name.clone());
            above = self.known(above.parent)?;
        }
        let mut dir = tree.stack.root()?;
        for name in names.iter().rev() {
            let next = tree.stack.lookup(&dir, name)?.filter(Entry::is_dir);
            dir = next.ok_or_else(|| Error::stale(name))?;
        }
        Ok(Cow::Owned(dir))
    }

    /// The children of a merged directory.
    pub(super) fn list_merged(
        &self,
        ino: u64,
        tree: &MergedTree,
        dir: &Entry,
        depth: usize,
    ) -> Result<Vec<Child>> {
        let listed = self.list_merged_anew(ino, tree, dir)?;
        let children = listed.entries.iter().map(|entry| tree.child(ino, entry, depth + 1));
        Ok(children.collect())
    }

    fn list_merged_anew(
        &self,
        ino: u64,
        tree: &MergedTree,
        dir: &Entry,
    ) -> Result<Arc<Listed<Entry>>> {
        let dir = self.merged_dir(ino, tree, dir)?;
        let listing = tree.stack.read_dir(&dir)?;
        listing.damaged.iter().for_each(|(_, err)| self.report(err));
        Ok(self.merged_dirs.put(ino, listing.entries))
    }

    /// What a merged directory holds, from memory where that is still so.
    pub(super) fn merged_listing(
        &self,
        ino: u64,
        tree: &MergedTree,
        dir: &Entry,
    ) -> Result<Arc<Listed<Entry>>> {
        match self.current_listing(ino, tree) {
            Some(listed) => Ok(listed),
            None => self.list_merged_anew(ino, tree, dir),
        }
    }

    /// Looks up `name` in a merged directory, and counts a reference to it.
    pub(super) fn find_merged(
        &self,
        parent: u64,
        tree: &Arc<MergedTree>,
        dir: &Entry,
        depth: usize,
        name: &OsStr,
    ) -> Result<Attr> {
        let depth = depth + 1;
        let listed = self.current_listing(parent, tree);
        let listed = listed.as_ref().and_then(|listed| listed.find(name));
        let entry = match listed {
            Some(entry) => Cow::Borrowed(entry),
            // What a listing left out as damaged is asked for again, so that the error is told.
            None => {
                let found = self.looked_up(parent, tree, dir, name)?;
                Cow::Owned(found.ok_or_else(|| Error::not_found(name))?)
            }
        };
        let identity = tree.identity(parent, &entry, depth);
        let attr = tree.attr(identity, &entry, depth)?;
        if entry.is_dir() || tree.is_live {
            let entry = entry.into_owned();
            let node = || Node::Merged { tree: Arc::clone(tree), entry, depth };
            return Ok(self.inodes.admit(identity, parent, node, attr));
        }
        let stamp = entry.stat.stamp();
        let attr = self.inodes.admit_file(identity, parent, name, stamp, attr)?;
        if let Cow::Owned(entry) = entry {
            let node = Arc::new(Node::Merged { tree: Arc::clone(tree), entry, depth });
            let found = Known { node, attr, parent, seen: Instant::now(), identity };
            self.inodes.keep(found, stamp);
        }
        Ok(attr)
    }

    /// The entry `name` of a merged directory.
    pub(super) fn merged_entry(
        &self,
        ino: u64,
        tree: &MergedTree,
        dir: &Entry,
        name: &OsStr,
    ) -> Result<Option<Entry>> {
        let listed = self.current_listing(ino, tree);
        match listed.as_ref().and_then(|listed| listed.find(name)) {
            Some(entry) => Ok(Some(entry.clone())),
            None => self.looked_up(ino, tree, dir, name),
        }
    }

    /// The same, as the layers say now.
    fn looked_up(
        &self,
        ino: u64,
        tree: &MergedTree,
        dir: &Entry,
        name: &OsStr,
    ) -> Result<Option<Entry>> {
        tree.stack.lookup(&*self.merged_dir(ino, tree, dir)?, name)
    }

    /// What a merged directory holds, where memory still tells.
    fn current_listing(&self, ino: u64, tree: &MergedTree) -> Option<Arc<Listed<Entry>>> {
        self.merged_dirs.get(ino).filter(|listed| tree.is_current(listed))
    }
}

/// Whether the kernel reads xattrs of the class `user` of it (xattr(7)).
fn has_user_xattrs(entry: &Entry) -> bool {
    matches!(entry.stat.kind, FileKind::Regular | FileKind::Directory)
}

/// The name under which a layer has what is shown under `name`, where that is another.
fn of_link(entry: &Entry, name: &OsStr) -> Option<OsString> {
    let rest = name.to_str()?.strip_prefix(TRUSTED)?;
    let is_ours = rest.starts_with("win.") || rest.starts_with("stratafs.");
    (is_ours && !has_user_xattrs(entry)).then(|| format!("user.{rest}").into())
}

/// A target that stays inside the tree: an absolute one as a relative one, and no more `..` than
/// there are directories above the link, which is `depth` names below the root.
fn rebase(target: &[u8], depth: usize) -> Vec<u8> {
    let above = depth.saturating_sub(1);
    let mut parts: Vec<&[u8]> = Vec::new();
    if target.starts_with(b"/") {
        parts.resize(above, b"..");
    }
    let is_absolute = target.starts_with(b"/");
    let mut ups = if is_absolute { above } else { 0 };
    let mut is_leading = true;
    for part in target.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => continue,
            b".." if is_leading && ups == above => continue,
            b".." if is_leading => ups += 1,
            _ => is_leading = false,
        }
        parts.push(part);
    }
    if parts.is_empty() { b".".to_vec() } else { parts.join(&b'/') }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rebased_target_stays_inside() {
        for (target, depth, expected) in [
            ("/etc/passwd", 1, "etc/passwd"),
            ("/etc/passwd", 3, "../../etc/passwd"),
            ("/../etc", 2, "../etc"),
            ("../../../etc", 2, "../etc"),
            ("../x", 1, "x"),
            ("x/../y", 1, "x/../y"),
            ("/", 1, "."),
            ("/", 2, ".."),
            ("plain", 4, "plain"),
        ] {
            assert_eq!(rebase(target.as_bytes(), depth), expected.as_bytes(), "{target} {depth}");
        }
    }
}

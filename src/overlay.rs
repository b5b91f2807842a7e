//! Layers merged in user space, as the kernel's overlayfs would show them, without a mount.
//!
//! What makes it hard:
//! 1. Three marks hide what lies below: a 0/0 device or an empty file with the `whiteout` xattr
//!    hides one name, an `opaque` directory hides the directories below it. [`marks`] reads them.
//! 2. A directory that was renamed names its former place (`redirect`), and from there on the
//!    search goes on under that name, or from the roots of the layers. [`search`] follows it, one
//!    name at a time, in the kernel's order (`ovl_lookup` in fs/overlayfs/namei.c).
//! 3. A file whose attributes alone were changed holds no data (`metacopy`): [`Entry::place`] and
//!    [`Entry::data`] then differ.
//! 4. Images are foreign: a redirect may lead anywhere, so it is checked before it is followed,
//!    and every open starts from the [`Root`](crate::backing::Root) of one layer.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::io::Errno;

use crate::backing::{Dir, Stat};
use crate::error::{Error, Result};
use crate::store::{LayerDir, Marks};

pub mod changes;
pub mod files;
mod marks;
pub mod own;
mod paths;
mod search;

/// Layers that are shown as one tree, topmost first.
#[derive(Debug, Clone)]
pub struct Stack {
    layers: Vec<LayerDir>,
}

/// A file of one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Which layer: an index into [`Stack::layers`].
    pub layer: usize,
    /// The path in that layer, without a leading slash; empty for its root.
    pub path: Vec<u8>,
    /// A directory into which files may have been copied up, which may lack their data (the
    /// `impure` xattr).
    may_hold_metacopies: bool,
}

/// One name of the merged tree.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The name; empty for the root.
    pub name: OsString,
    /// Attributes, as the kernel would show them: those of `place`, but for the link count of a
    /// merged directory, which is 1, and the blocks of a file whose data lie elsewhere.
    pub stat: Stat,
    /// Where the attributes, the xattrs and the target of a symlink are.
    pub place: Place,
    /// Where the contents are: elsewhere than `place` only for a metacopy.
    pub data: Place,
    /// The directories that are merged here, topmost (`place`) first; empty for all else.
    pub lowers: Vec<Place>,
}

/// What [`Stack::walk`] calls: with a path, and what is there or why that can't be shown.
pub type Visit<'a> = dyn FnMut(&[u8], Result<&Entry>) -> Result<()> + 'a;

/// What one directory shows.
#[derive(Debug, Default)]
pub struct Listing {
    /// What can be shown, sorted bytewise by name.
    pub entries: Vec<Entry>,
    /// Names that are there but can't be shown, with the error that [`Stack::lookup`] gives.
    pub damaged: Vec<(OsString, Error)>,
}

impl Place {
    /// The path in the layer.
    #[must_use]
    pub fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.path))
    }

    /// The root of a layer.
    fn root(layer: usize) -> Place {
        Place { layer, path: Vec::new(), may_hold_metacopies: true }
    }

    /// The file `name` in the directory that this place is.
    fn child(&self, name: &[u8]) -> Place {
        Place { layer: self.layer, path: join(&self.path, name), may_hold_metacopies: false }
    }

    /// The directory that holds this place, and its name there; the root's name is empty.
    fn split(&self) -> (&Path, &OsStr) {
        let (parent, name) = parent_and_name(&self.path);
        (Path::new(OsStr::from_bytes(parent)), OsStr::from_bytes(name))
    }
}

/// Splits at the last slash; the directory is `""` where there is none.
pub(crate) fn parent_and_name(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

/// The entry at `path` in a tree, through no symlink. A stack without layers is an empty tree.
pub(crate) fn find(stack: &Stack, path: &[u8]) -> Result<Option<Entry>> {
    if stack.layers().is_empty() {
        return Ok(None);
    }
    let mut entry = stack.root()?;
    for part in path.split(|&byte| byte == b'/').filter(|part| !part.is_empty()) {
        if !entry.is_dir() {
            return Ok(None);
        }
        match stack.lookup(&entry, OsStr::from_bytes(part))? {
            Some(found) => entry = found,
            None => return Ok(None),
        }
    }
    Ok(Some(entry))
}

/// `dir/name`, or `name` alone in a root.
fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(dir.len() + 1 + name.len());
    path.extend_from_slice(dir);
    if !dir.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

impl Entry {
    /// True for a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.stat.is_dir()
    }
}

impl Stack {
    /// A stack of these layers, topmost first. What lies below a layer that holds everything
    /// itself does not count.
    #[must_use]
    pub fn new(mut layers: Vec<LayerDir>) -> Stack {
        if let Some(lowest) = layers.iter().position(|layer| layer.marks == Marks::Complete) {
            layers.truncate(lowest + 1);
        }
        Stack { layers }
    }

    /// The layers, topmost first.
    #[must_use]
    pub fn layers(&self) -> &[LayerDir] {
        &self.layers
    }

    /// The root directory. Its attributes are the topmost layer's; every layer is merged into it,
    /// for the kernel looks for no `opaque` mark here.
    ///
    /// # Errors
    /// ENOENT where there is no layer at all, and what the file system says.
    pub fn root(&self) -> Result<Entry> {
        let top = self.layers.first().ok_or_else(|| Error::not_found("/"))?;
        let dir = top.root.dir("")?;
        let mut stat = top.seen(&dir, OsStr::new(""), dir.own_stat()?)?;
        if self.layers.len() > 1 {
            stat.nlink = 1;
        }
        Ok(Entry {
            name: OsString::new(),
            stat,
            place: Place::root(0),
            data: Place::root(0),
            lowers: (0..self.layers.len()).map(Place::root).collect(),
        })
    }

    /// All that the directory `dir` shows.
    ///
    /// # Errors
    /// ENOTDIR where `dir` is no directory, and what the file system says of one of its layers.
    pub fn read_dir(&self, dir: &Entry) -> Result<Listing> {
        let merged = self.merged(dir)?;
        let mut listing = Listing::default();
        for holders in merged.names()?.chunk_by(|a, b| a.name == b.name) {
            let name = &holders[0].name;
            match search::find(&merged, name, Some(holders)) {
                Ok(Some(entry)) => listing.entries.push(entry),
                Ok(None) => {}
                Err(err) => listing.damaged.push((name.clone(), err)),
            }
        }
        Ok(listing)
    }

    /// The entry `name` of the directory `dir`; `None` where there is none. Costs a few system
    /// calls for each layer, however large the directory is.
    ///
    /// # Errors
    /// ENOTDIR where `dir` is no directory; corrupt where a mark makes no sense or a file's data
    /// are nowhere; and what the file system says.
    pub fn lookup(&self, dir: &Entry, name: &OsStr) -> Result<Option<Entry>> {
        search::find(&self.merged(dir)?, name, None)
    }

    /// The target of the symlink `entry`.
    ///
    /// # Errors
    /// EINVAL where it is no symlink, and what the file system says.
    pub fn read_link(&self, entry: &Entry) -> Result<Vec<u8>> {
        let (dir, name) = self.locate(&entry.place)?;
        dir.read_link(name)
    }

    /// The names of the xattrs of `entry`, sorted, without overlayfs's own.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn xattrs(&self, entry: &Entry) -> Result<Vec<OsString>> {
        let (dir, name) = self.locate(&entry.place)?;
        let kind = self.layer(&entry.place)?.marks;
        let raw = dir.xattrs(name)?;
        let mut names: Vec<_> = raw.iter().filter_map(|raw| marks::shown(kind, raw)).collect();
        names.sort();
        Ok(names)
    }

    /// The value of the xattr `attribute` of `entry`; `None` where it has none of that name.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn xattr(&self, entry: &Entry, attribute: &OsStr) -> Result<Option<Vec<u8>>> {
        let (dir, name) = self.locate(&entry.place)?;
        dir.xattr(name, &marks::stored(self.layer(&entry.place)?.marks, attribute))
    }

    fn merged<'a>(&'a self, dir: &'a Entry) -> Result<search::Merged<'a>> {
        if !dir.is_dir() {
            return Err(Error::errno_of(dir.place.path(), Errno::NOTDIR));
        }
        Ok(search::Merged::new(self, &dir.lowers))
    }

    fn layer(&self, place: &Place) -> Result<&LayerDir> {
        self.layers.get(place.layer).ok_or_else(|| Error::not_found(place.path()))
    }

    /// The open directory that holds `place`, and its name there (`""`: the directory itself).
    fn locate<'a>(&self, place: &'a Place) -> Result<(Dir, &'a OsStr)> {
        let (parent, name) = place.split();
        Ok((self.layer(place)?.root.dir(parent)?, name))
    }
}

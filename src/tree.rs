//! What is mounted: nodes by inode number, their attributes, names and bytes. Knows no FUSE.
//!
//! A number stands for unchanging content: whatever changes gets another number at its next
//! lookup, so what the kernel has cached under a number is right for ever ([`inodes`]). A node is a
//! value ([`node`]); made-up directories list and find their entries in [`places`], the files of
//! layers in [`merged`] and `own`, and [`archives`] holds the recipes of the tars. Of files that
//! never change little is kept, and the rest found [`again`].

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::backing::{FileKind, Seek, Time};
use crate::error::{Error, Result};
use crate::memo::Memo;
use crate::metrics::{Kind, Metrics};
use crate::overlay::Entry;
use crate::overlay::changes::Changes;
use crate::overlay::own::OwnEntry;
use crate::store::{LayerStore, Stamp};

mod again;
pub mod ahead;
mod answers;
mod archives;
mod combined;
mod containers;
mod descent;
mod directories;
mod identity;
mod images;
mod inodes;
mod journal;
pub mod kernel;
mod layers;
mod layout;
mod live;
mod merged;
mod names;
mod node;
mod options;
mod own;
mod places;
mod pods;
mod recent;
mod saved;
mod shelf;
mod snapshots;
mod stats;
mod stores;
mod sums;
mod told;
mod volumes;
mod walk;
mod watch;

pub use answers::{Attr, Child, Listing, Reader, Space};
pub use names::Filter;
pub use options::{Options, Symlinks};
pub use snapshots::Keeping;
pub use stats::{Process, Stats};
pub use sums::Sum;
pub use walk::{Follow, Found};

use ahead::Walks;
use archives::{Archives, Key};
use descent::Descents;
use directories::DirectoryCache;
use inodes::{Held, Inodes};
use journal::Journal;
use node::{Node, Place};
use stores::Engine;
use sums::Sums;

/// Inode number of the tree's root (FUSE fixes it).
pub const ROOT: u64 = 1;

/// How long names and attributes that can't change may be kept.
const IMMUTABLE: Duration = Duration::from_secs(24 * 60 * 60);

/// How long those that may change are kept: with [`CHECKED`], less than the second that is
/// promised.
const FRESH: Duration = Duration::from_millis(400);

/// How long the answer that a store, or files in it, did not change is relied on.
const CHECKED: Duration = Duration::from_millis(250);

/// Memory that lists of changes may take before the least recently used go, in bytes.
const CHANGES: usize = 64 << 20;

/// The same for stamps of directories.
const STAMPS: usize = 64 << 10;

/// The xattr that names the files of an archive that were found changed while it was read.
const CHANGED: &str = "user.stratafs.changed";

/// The xattr that says whether all layers of an archive are the ones that the engine once had.
const EXACT: &str = "user.stratafs.exact";

/// Largest value of an xattr, in bytes (Linux `XATTR_SIZE_MAX`).
const XATTR_MAX: usize = 64 << 10;

/// The tree of one mount.
#[derive(Debug)]
pub struct Tree {
    engines: Vec<Arc<Engine>>,
    options: Options,
    inodes: Inodes,
    archives: Archives,
    /// What layers and containers differ in from what is below them, by [`Key`].
    diffs: Memo<Key, Arc<Changes>>,
    /// Stamps of files that may be written to, by path and [`CHECKED`] since `clock`.
    stamps: Memo<(PathBuf, u64), Stamp>,
    clock: Instant,
    merged_dirs: DirectoryCache<Entry>,
    own_dirs: DirectoryCache<OwnEntry>,
    walks: Walks,
    descents: Descents,
    sums: Sums,
    errors: Arc<Journal>,
    events: Journal,
    metrics: Metrics,
    keeping: Option<Keeping>,
    started: Time,
}

impl Tree {
    /// The tree of these stores, and of namespaces beside them that come to be used. Reads none of
    /// them.
    #[must_use]
    pub fn new(stores: Vec<Arc<dyn LayerStore>>, options: Options) -> Tree {
        let errors = Arc::new(Journal::default());
        let tree = Tree {
            inodes: Inodes::default(),
            archives: Archives::new(options.verify, &options.cache),
            diffs: Memo::new(CHANGES),
            stamps: Memo::new(STAMPS),
            clock: Instant::now(),
            merged_dirs: DirectoryCache::default(),
            own_dirs: DirectoryCache::default(),
            walks: Walks::default(),
            descents: Descents::default(),
            sums: Sums::default(),
            events: Journal::default(),
            metrics: Metrics::default(),
            keeping: None,
            started: journal::clock(),
            engines: stores::arrange(stores, &options.filter, &errors),
            options,
            errors,
        };
        let root = match &tree.engines[..] {
            [only] => Place::Engine(Arc::clone(only)),
            _ => Place::Root,
        };
        let attr = tree.directory_attr(ROOT, tree.started);
        tree.inodes.admit_root(Node::Place(root), attr);
        tree
    }

    /// The child `name` of the directory `parent`. Counts one reference, which `forget` gives back.
    ///
    /// # Errors
    /// ENOENT where there is none; EBUSY, EIO, ... where it can't be shown.
    pub fn lookup(&self, parent: u64, name: &OsStr) -> Result<Attr> {
        let known = self.known(parent)?;
        match &*known.node {
            Node::Place(place) => self.find_in_place(parent, place, name),
            Node::Merged { tree, entry, depth } => {
                self.find_merged(parent, tree, entry, *depth, name)
            }
            Node::Own { tree, entry, depth } => self.find_own(parent, tree, entry, *depth, name),
            Node::Document(_) | Node::Link(_) | Node::Archive(_) => {
                Err(Error::errno_of(name, Errno::NOTDIR))
            }
        }
    }

    /// Gives back `count` references to `ino`.
    pub fn forget(&self, ino: u64, count: u64) {
        self.inodes.forget(ino, count);
    }

    /// Attributes of a node that was looked up before.
    ///
    /// # Errors
    /// ESTALE where it was not.
    pub fn attr(&self, ino: u64) -> Result<Attr> {
        Ok(self.known(ino)?.attr)
    }

    /// Whether the directory `ino` can never change, so that the kernel may keep its listing.
    ///
    /// # Errors
    /// ESTALE where it was not looked up before.
    pub fn is_immutable(&self, ino: u64) -> Result<bool> {
        Ok(match &*self.known(ino)?.node {
            Node::Merged { tree, .. } => !tree.is_live(),
            Node::Own { tree, .. } => !tree.files().is_live(),
            Node::Place(_) | Node::Document(_) | Node::Link(_) | Node::Archive(_) => false,
        })
    }

    /// Whether `ino` is a tar.
    #[must_use]
    pub fn is_archive(&self, ino: u64) -> bool {
        let held = self.inodes.get(ino);
        held.is_ok_and(|held| match held {
            Held::Known(known) => matches!(*known.node, Node::Archive(_)),
            Held::Trace(_) => false,
        })
    }

    /// All names in the directory `ino`, at this moment.
    ///
    /// # Errors
    /// ENOTDIR where it is no directory; EIO where it can't be read.
    pub fn read_dir(&self, ino: u64) -> Result<Arc<Listing>> {
        let known = self.known(ino)?;
        let children = match &*known.node {
            Node::Place(place) => self.list_place(ino, place)?,
            Node::Merged { tree, entry, depth } => self.list_merged(ino, tree, entry, *depth)?,
            Node::Own { tree, entry, depth } => self.list_own(ino, tree, entry, *depth)?,
            Node::Document(_) | Node::Link(_) | Node::Archive(_) => {
                return Err(Error::errno_of(format!("inode {ino}"), Errno::NOTDIR));
            }
        };
        Ok(Arc::new(Listing { children, parent: known.parent }))
    }

    /// The target of the symlink `ino`.
    ///
    /// # Errors
    /// EINVAL where it is no symlink; EIO where it can't be read.
    pub fn read_link(&self, ino: u64) -> Result<Vec<u8>> {
        match &*self.known(ino)?.node {
            Node::Link(target) => Ok(target.clone()),
            Node::Merged { tree, entry, depth } => tree.read_link(entry, *depth),
            Node::Place(_) | Node::Own { .. } | Node::Document(_) | Node::Archive(_) => {
                Err(Error::errno_of(format!("inode {ino}"), Errno::INVAL))
            }
        }
    }

    /// Reads into `buf` from byte `offset` on; returns `buf.len()`, or less only at the end.
    ///
    /// # Errors
    /// EIO where bytes are damaged or can't be read, ESTALE where a container changed them.
    pub fn read(&self, ino: u64, offset: u64, buf: &mut [u8], reader: Reader) -> Result<usize> {
        let known = self.known(ino)?;
        let (kind, read) = match &*known.node {
            Node::Document(recipe) => (Kind::Document, recipe.read_at(offset, buf)?),
            Node::Merged { tree, entry, .. } => (Kind::File, tree.read(entry, offset, buf)?),
            Node::Archive(archive) => {
                let recipe = self.recipe(archive, known.attr.size)?;
                let read = recipe.read_at(offset, buf);
                for file in recipe.newly_changed() {
                    let path = file.path.display();
                    self.errors.note(&format!("{path}: {} while it was read", file.difference));
                }
                let read = read?;
                if archive.is_read_through(offset, read as u64, known.attr.size) {
                    self.note_event(archive, known.attr.size, reader);
                }
                (archive.archive.kind(), read)
            }
            Node::Place(_) | Node::Own { .. } => {
                return Err(Error::errno_of(format!("inode {ino}"), Errno::ISDIR));
            }
            Node::Link(_) => return Err(Error::errno_of(format!("inode {ino}"), Errno::INVAL)),
        };
        self.metrics.read(kind, read);
        Ok(read)
    }

    /// The next data or hole at or after `offset`.
    ///
    /// # Errors
    /// ENXIO at or past the end, or where no data follow.
    pub fn seek(&self, ino: u64, offset: u64, seek: Seek) -> Result<u64> {
        let known = self.known(ino)?;
        let found = match &*known.node {
            Node::Document(recipe) => recipe.seek(offset, seek)?,
            Node::Archive(archive) => self.recipe(archive, known.attr.size)?.seek(offset, seek)?,
            Node::Merged { tree, entry, .. } => tree.seek(entry, offset, seek)?,
            Node::Place(_) | Node::Own { .. } | Node::Link(_) => None,
        };
        found.ok_or_else(|| Error::errno_of(format!("inode {ino}"), Errno::NXIO))
    }

    /// The value of one xattr, but for those that are a [`Sum`].
    ///
    /// # Errors
    /// ENODATA where there is none of that name.
    pub fn xattr(&self, ino: u64, name: &OsStr, reader: Reader) -> Result<Vec<u8>> {
        let known = self.known(ino)?;
        let value = match &*known.node {
            _ if !is_visible(name, reader) => None,
            Node::Merged { tree, entry, .. } => tree.xattr(entry, name)?,
            Node::Own { tree, entry, .. } => tree.files().xattr(entry, name)?,
            Node::Archive(archive) if name == CHANGED => self.changed(archive),
            Node::Archive(node) if name == EXACT => {
                let is_exact = node.archive.is_exact(&node.shelf)?;
                is_exact.map(|is_exact| is_exact.to_string().into_bytes())
            }
            Node::Place(_) | Node::Document(_) | Node::Link(_) | Node::Archive(_) => None,
        };
        value.ok_or_else(|| Error::errno_of(name, Errno::NODATA))
    }

    /// The names of all xattrs.
    ///
    /// # Errors
    /// EIO where they can't be read.
    pub fn xattrs(&self, ino: u64, reader: Reader) -> Result<Vec<OsString>> {
        let known = self.known(ino)?;
        let mut names = match &*known.node {
            Node::Merged { tree, entry, .. } => tree.xattrs(entry)?,
            Node::Own { tree, entry, .. } => tree.files().xattrs(entry)?,
            // What is worked out when somebody asks for it by name is not for those who copy all.
            Node::Archive(node) => self.changed(node).map(|_| CHANGED.into()).into_iter().collect(),
            Node::Place(_) | Node::Document(_) | Node::Link(_) => Vec::new(),
        };
        names.retain(|name| is_visible(name, reader));
        Ok(names)
    }

    /// What `df` shows.
    ///
    /// # Errors
    /// Fails when no store can be read.
    pub fn space(&self) -> Result<Space> {
        let mut space = Space { total: 0, used: 0, inodes: self.inodes.len() as u64 };
        for engine in &self.engines {
            let mut total = 0;
            for shelf in engine.shelves() {
                let usage = shelf.store.usage()?;
                total = usage.total; // namespaces lie on one file system
                space.used += usage.used;
            }
            space.total += total;
        }
        Ok(space)
    }

    /// Listens from now on to what happens to the stores, so that they need not be looked at while
    /// nothing does.
    pub fn watch(&self) {
        self.engines.iter().for_each(|engine| engine.watch());
    }

    /// Closes what is open of layers and containers that were removed, which the kernel may remember
    /// for long.
    fn let_go(&self) {
        self.archives.let_go();
        let gone: Vec<_> = self.inodes.trees().into_iter().filter(|tree| tree.is_gone()).collect();
        gone.iter().for_each(|tree| self.inodes.let_go(tree));
        if !gone.is_empty() {
            // A layer that comes back has the same numbers, and other files.
            self.merged_dirs.clear();
            self.own_dirs.clear();
        }
    }

    /// What is counted of this mount.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Notes a failure that the kernel was told about, in `.stratafs/errors` and the log.
    pub fn report(&self, error: &Error) {
        self.errors.report(error);
    }

    /// Attributes of a made-up directory.
    fn directory_attr(&self, ino: u64, mtime: Time) -> Attr {
        Attr { kind: FileKind::Directory, permissions: 0o555, ..self.plain_attr(ino, mtime) }
    }

    /// Attributes of a made-up file, of mode 0400: archives and metadata hold every file of an
    /// image and its environment.
    fn plain_attr(&self, ino: u64, mtime: Time) -> Attr {
        Attr {
            ino,
            kind: FileKind::Regular,
            permissions: 0o400,
            nlink: 1,
            uid: self.options.owner.0,
            gid: self.options.owner.1,
            size: 0,
            blocks: 0,
            mtime,
            ctime: mtime,
            rdev: (0, 0),
            ttl: FRESH,
        }
    }
}

/// Whether a process may know of an xattr: those of the kernel's trusted class are root's.
fn is_visible(name: &OsStr, reader: Reader) -> bool {
    let is_trusted = name.as_encoded_bytes().starts_with(b"trusted.");
    Sum::of_xattr(name).is_none() && (reader.uid == 0 || !is_trusted)
}

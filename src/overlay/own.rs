//! What one layer holds itself, as a directory: its own files, and for each name that it hides an
//! empty `.wh.NAME`, as in layer tars (OCI image-spec, layer.md, "Whiteouts").
//!
//! An overlay layer's directory holds just that, with marks instead of names. The directory of a
//! driver without an overlay holds everything, and is compared with that of the layer below.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::io::Errno;

use super::changes::{Changes, Kind};
use super::marks;
use super::{Entry, Place, Stack, parent_and_name};
use crate::backing::{FileKind, Fingerprint, Stat, Time};
use crate::error::{Error, Result};
use crate::store::{LayerDir, Marks};

/// Before a name that is hidden (OCI image-spec, layer.md, "Whiteouts").
pub const WHITEOUT_PREFIX: &str = ".wh.";

/// In a directory of which nothing below is shown (OCI image-spec, layer.md, "Opaque Whiteout").
pub const OPAQUE: &str = ".wh..wh..opq";

/// Mode of an overlay's whiteout in the tar that Docker makes of it (`overlayWhiteoutConverter`,
/// pkg/archive/archive_linux.go of moby).
const WHITEOUT_MODE: u32 = 0o600;

/// What one layer holds itself.
#[derive(Debug)]
pub struct OwnTree {
    /// The layer's directory alone for an overlay, with no mark interpreted; else the full tree.
    stack: Stack,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// The directory holds what the layer holds, with these marks.
    Overlay(Marks),
    /// The directory holds everything, and there is nothing below.
    Full,
    /// The directory holds everything, of which this is the layer's own: by directory, then by name.
    Part(BTreeMap<Vec<u8>, BTreeMap<OsString, Own>>),
}

/// What a layer has at a name, where its directory holds more than that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Own {
    File,
    Whiteout,
    Opaque,
}

/// One name of a layer's own directory.
#[derive(Debug, Clone)]
pub struct OwnEntry {
    /// The name, with [`WHITEOUT_PREFIX`] for a whiteout.
    pub name: OsString,
    /// Attributes. Those of a whiteout or an [`OPAQUE`] are an empty regular file's, with the inode
    /// number and links of what stands for it on disk, or the number 0 where nothing does.
    pub stat: Stat,
    /// What it is.
    pub what: What,
}

/// What a name in a layer's own directory is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A file of the layer, of any kind, and where it is in [`OwnTree::stack`].
    File(Place),
    /// It hides the name that follows the prefix.
    Whiteout,
    /// It hides all that layers below have in this directory.
    Opaque,
}

impl OwnTree {
    /// The files of an overlay layer, one with [`Marks::Complete`] included, where all is shown.
    #[must_use]
    pub fn overlay(layer: LayerDir) -> OwnTree {
        let marks = layer.marks;
        let stack = Stack::new(vec![LayerDir { marks: Marks::Complete, ..layer }]);
        OwnTree { stack, source: Source::Overlay(marks) }
    }

    /// The whole of a full tree that has nothing below.
    #[must_use]
    pub fn full(new: Stack) -> OwnTree {
        OwnTree { stack: new, source: Source::Full }
    }

    /// What a full tree adds to that of the layer below: the `changes` that made `new` of it.
    #[must_use]
    pub fn compared(new: Stack, changes: &Changes) -> OwnTree {
        let mut part: BTreeMap<Vec<u8>, BTreeMap<OsString, Own>> = BTreeMap::new();
        for change in changes.iter() {
            let (dir, name) = split(change.path.get(1..).unwrap_or_default());
            let own = match change.kind {
                Kind::Added | Kind::Modified => Own::File,
                Kind::Deleted => Own::Whiteout,
            };
            part.entry(dir.to_vec()).or_default().insert(name.to_owned(), own);
        }
        OwnTree { stack: new, source: Source::Part(part) }
    }

    /// Of a full tree what the layer's tar had: `names` are its entries, relative to the root and
    /// clean, whiteouts and all. Directories above them count as well.
    #[must_use]
    pub fn recorded(new: Stack, names: &[Vec<u8>]) -> OwnTree {
        let mut part: BTreeMap<Vec<u8>, BTreeMap<OsString, Own>> = BTreeMap::new();
        for name in names.iter().filter(|name| !name.is_empty()) {
            let (mut dir, last) = split(name);
            let (shown, own) = match last.as_bytes().strip_prefix(WHITEOUT_PREFIX.as_bytes()) {
                _ if last == OPAQUE => (last, Own::Opaque),
                Some(hidden) => (OsStr::from_bytes(hidden), Own::Whiteout),
                None => (last, Own::File),
            };
            part.entry(dir.to_vec()).or_default().insert(shown.to_owned(), own);
            while !dir.is_empty() {
                let (above, name) = split(dir);
                let names = part.entry(above.to_vec()).or_default();
                if names.insert(name.to_owned(), Own::File) == Some(Own::File) {
                    break;
                }
                dir = above;
            }
        }
        OwnTree { stack: new, source: Source::Part(part) }
    }

    /// Moves when other names become the layer's own, where that was found out once and for all; 0
    /// where each directory is looked at anew.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let Source::Part(part) = &self.source else { return 0 };
        let mut fingerprint = Fingerprint::new();
        for (dir, names) in part {
            fingerprint.add(dir);
            for (name, own) in names {
                fingerprint.add(name.as_bytes());
                fingerprint.add(&[*own as u8]);
            }
        }
        fingerprint.finish()
    }

    /// Where the places of the files are.
    #[must_use]
    pub fn stack(&self) -> &Stack {
        &self.stack
    }

    /// What the directory `path` (`""`: the root) holds, sorted bytewise by name. A file that is
    /// itself named like a whiteout takes the name.
    ///
    /// # Errors
    /// ENOENT where the layer has no such directory, and what the file system says.
    pub fn read_dir(&self, path: &[u8]) -> Result<Vec<OwnEntry>> {
        let dir = self.dir(path)?;
        let mut listing = self.stack.read_dir(&dir)?;
        if let Some((_, err)) = listing.damaged.pop() {
            return Err(err);
        }
        let mut own = match &self.source {
            Source::Full => listing.entries.into_iter().map(OwnEntry::file).collect(),
            Source::Overlay(marks) => self.overlaid(&dir, listing.entries, *marks)?,
            Source::Part(part) => partial(&dir, listing.entries, part.get(path)),
        };
        own.sort_by(|a, b| (&a.name, !a.is_file()).cmp(&(&b.name, !b.is_file())));
        own.dedup_by(|second, first| second.name == first.name);
        Ok(own)
    }

    /// The entry `name` of the directory `path`; `None` where the layer itself has none.
    ///
    /// # Errors
    /// As [`OwnTree::read_dir`].
    pub fn lookup(&self, path: &[u8], name: &OsStr) -> Result<Option<OwnEntry>> {
        let dir = self.dir(path)?;
        let hidden = name.as_bytes().strip_prefix(WHITEOUT_PREFIX.as_bytes());
        let names = [Some(name), hidden.map(OsStr::from_bytes)].into_iter().flatten();
        let mut files = Vec::new();
        for name in names.filter(|name| !matches!(name.as_bytes(), b"" | b"." | b"..")) {
            files.extend(self.stack.lookup(&dir, name)?);
        }
        let own = match &self.source {
            Source::Full => files.into_iter().map(OwnEntry::file).collect(),
            Source::Overlay(marks) => self.overlaid(&dir, files, *marks)?,
            Source::Part(part) => partial(&dir, files, part.get(path)),
        };
        Ok(own.into_iter().filter(|entry| entry.name == name).min_by_key(|entry| !entry.is_file()))
    }

    /// The target of the symlink `entry`.
    ///
    /// # Errors
    /// EINVAL where it is no symlink, and what the file system says.
    pub fn read_link(&self, entry: &OwnEntry) -> Result<Vec<u8>> {
        let What::File(place) = &entry.what else {
            return Err(Error::errno_of(&entry.name, Errno::INVAL));
        };
        let (dir, name) = self.stack.locate(place)?;
        dir.read_link(name)
    }

    /// The names of the xattrs of `entry` as they are on disk, sorted.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn xattrs(&self, entry: &OwnEntry) -> Result<Vec<OsString>> {
        let What::File(place) = &entry.what else { return Ok(Vec::new()) };
        let (dir, name) = self.stack.locate(place)?;
        dir.xattrs(name)
    }

    /// The value on disk of the xattr `attribute` of `entry`; `None` where it has none of that name.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn xattr(&self, entry: &OwnEntry, attribute: &OsStr) -> Result<Option<Vec<u8>>> {
        let What::File(place) = &entry.what else { return Ok(None) };
        let (dir, name) = self.stack.locate(place)?;
        dir.xattr(name, attribute)
    }

    /// The directory `path`, through no symlink.
    fn dir(&self, path: &[u8]) -> Result<Entry> {
        let missing = || Error::not_found(OsStr::from_bytes(path));
        let mut here = self.stack.root()?;
        let mut above: &[u8] = b"";
        for name in path.split(|&byte| byte == b'/').filter(|name| !name.is_empty()) {
            let name = OsStr::from_bytes(name);
            if let Source::Part(part) = &self.source {
                let own = part.get(above).and_then(|names| names.get(name));
                own.filter(|own| **own == Own::File).ok_or_else(missing)?;
            }
            here = self.stack.lookup(&here, name)?.ok_or_else(missing)?;
            let length = above.len() + usize::from(!above.is_empty()) + name.len();
            above = path.get(..length).unwrap_or(path);
        }
        Ok(here)
    }

    /// Files of an overlay layer's directory, with names for its marks.
    fn overlaid(&self, dir: &Entry, files: Vec<Entry>, kind: Marks) -> Result<Vec<OwnEntry>> {
        let open = self.stack.layer(&dir.place)?.root.dir(dir.place.path())?;
        let mut own = Vec::with_capacity(files.len() + 1);
        if marks::is_opaque(&open, OsStr::new(""), kind)? {
            own.push(OwnEntry::new(OPAQUE, empty_file(&dir.stat), What::Opaque));
        }
        for file in files {
            match marks::is_whiteout(&open, &file.name, &file.stat, kind) {
                Ok(true) => own.push(OwnEntry::whiteout(&file.name, whiteout(file.stat))),
                Ok(false) => own.push(OwnEntry::file(file)),
                Err(err) if err.is_not_found() => {} // removed since it was listed
                Err(err) => return Err(err),
            }
        }
        Ok(own)
    }
}

/// Of files of a full directory, those that are the layer's own; and its marks.
fn partial(
    dir: &Entry,
    files: Vec<Entry>,
    part: Option<&BTreeMap<OsString, Own>>,
) -> Vec<OwnEntry> {
    let Some(part) = part else { return Vec::new() };
    let own = files.into_iter().filter(|file| part.get(&file.name) == Some(&Own::File));
    let marks = part.iter().filter_map(|(name, own)| match own {
        Own::File => None,
        Own::Opaque => Some(OwnEntry::new(name, empty_file(&dir.stat), What::Opaque)),
        Own::Whiteout => {
            // As `ExportChanges` writes them, but for the time, which there is the clock's.
            let (mode, mtime) = (libc::S_IFREG, dir.stat.mtime);
            let stat = Stat { mode, uid: 0, gid: 0, mtime, ..empty_file(&dir.stat) };
            Some(OwnEntry::whiteout(name, stat))
        }
    });
    own.map(OwnEntry::file).chain(marks).collect()
}

/// [`parent_and_name`], with the name as one of a directory.
fn split(path: &[u8]) -> (&[u8], &OsStr) {
    let (dir, name) = parent_and_name(path);
    (dir, OsStr::from_bytes(name))
}

/// What a whiteout on disk is shown as.
fn whiteout(device: Stat) -> Stat {
    Stat {
        kind: FileKind::Regular,
        mode: libc::S_IFREG | WHITEOUT_MODE,
        size: 0,
        blocks: 0,
        rdev: (0, 0),
        ..device
    }
}

/// Attributes of an empty file in a directory with these.
fn empty_file(dir: &Stat) -> Stat {
    Stat {
        kind: FileKind::Regular,
        mode: libc::S_IFREG | (dir.mode & 0o777),
        nlink: 1,
        size: 0,
        blocks: 0,
        mtime: Time::default(),
        rdev: (0, 0),
        ino: 0,
        ..*dir
    }
}

impl OwnEntry {
    fn file(entry: Entry) -> OwnEntry {
        OwnEntry { name: entry.name, stat: entry.stat, what: What::File(entry.place) }
    }

    fn whiteout(hidden: &OsStr, stat: Stat) -> OwnEntry {
        let name = [WHITEOUT_PREFIX.as_bytes(), hidden.as_bytes()].concat();
        OwnEntry::new(OsString::from_vec(name), stat, What::Whiteout)
    }

    fn new(name: impl Into<OsString>, stat: Stat, what: What) -> OwnEntry {
        OwnEntry { name: name.into(), stat, what }
    }

    fn is_file(&self) -> bool {
        matches!(self.what, What::File(_))
    }
}

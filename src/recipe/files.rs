//! The backing files of one recipe: a compact table, opened anew for each read.

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::Arc;

use super::live::Changed;
use crate::backing::{Access, BackingFile, Root};
use crate::error::{Error, Result};

/// A file that a recipe takes bytes from.
#[derive(Debug, Clone, Copy)]
pub struct FileRef<'a> {
    /// Its layer.
    pub root: &'a Arc<Root>,
    /// The directory that it lies in, relative to `root`, `""` for `root` itself.
    pub directory: &'a [u8],
    /// Its name there.
    pub name: &'a [u8],
    /// Its size in bytes.
    pub size: u64,
    /// What its bytes are held to.
    pub expect: Expect,
}

/// What the bytes of a file are held to when they are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Their CRC-64/GO-ISO, as tar-split records it.
    Crc(u64),
    /// The file is as it was: its [`crate::backing::Stat::stamp`].
    Stamp(u64),
}

/// Why a read of a backing file failed.
#[derive(Debug)]
pub(super) enum Fault {
    Io(std::io::Error),
    /// It is not the file that the recipe was built on.
    Changed,
    /// Its bytes do not add up to the checksum.
    Checksum,
}

impl From<std::io::Error> for Fault {
    fn from(err: std::io::Error) -> Fault {
        Fault::Io(err)
    }
}

#[derive(Debug)]
pub(super) struct FileTable {
    directories: Vec<(Arc<Root>, Box<[u8]>)>,
    files: Vec<Entry>,
    names: Vec<u8>,
    /// Where the files of a root are in the archive, as far as that is another path.
    places: Vec<Moved>,
    changed: Changed,
}

/// What lies at one path of a root, and where that is in the archive.
#[derive(Debug)]
struct Moved {
    root: Arc<Root>,
    from: Box<[u8]>,
    to: Box<[u8]>,
}

impl Default for FileTable {
    fn default() -> FileTable {
        FileTable {
            directories: Vec::new(),
            files: Vec::new(),
            names: Vec::new(),
            places: Vec::new(),
            changed: Changed::Fail,
        }
    }
}

#[derive(Debug)]
struct Entry {
    directory: u32,
    /// Where its name ends in `names`; it starts where that of the entry before ends.
    name_end: u32,
    size: u64,
    expect: Expect,
}

impl FileTable {
    pub(super) fn push(&mut self, file: &FileRef<'_>) -> u32 {
        let is_same = self.directories.last().is_some_and(|(root, path)| {
            Arc::ptr_eq(root, file.root) && path.as_ref() == file.directory
        });
        if !is_same {
            self.directories.push((Arc::clone(file.root), file.directory.into()));
        }
        self.names.extend_from_slice(file.name);
        self.files.push(Entry {
            directory: (self.directories.len() - 1) as u32,
            name_end: self.names.len() as u32,
            size: file.size,
            expect: file.expect,
        });
        (self.files.len() - 1) as u32
    }

    /// What `root` holds at `from` is at `to` in the archive.
    pub(super) fn place(&mut self, root: &Arc<Root>, from: &[u8], to: &[u8]) {
        self.places.push(Moved { root: Arc::clone(root), from: from.into(), to: to.into() });
    }

    pub(super) fn set_changed(&mut self, changed: Changed) {
        self.changed = changed;
    }

    /// What stands in for bytes that are gone from a file of a container.
    pub(super) fn if_changed(&self) -> Changed {
        self.changed
    }

    /// True for a file that a container may be writing to.
    pub(super) fn is_live(&self, index: u32) -> bool {
        self.locate_directory(index).0.access() == Access::Live
    }

    /// The stamp that a file must have; `None` where it is held to something else.
    pub(super) fn stamp(&self, index: u32) -> Option<u64> {
        match self.expect(index) {
            Expect::Stamp(stamp) => Some(stamp),
            Expect::Crc(_) => None,
        }
    }

    /// Where a file lies, for messages.
    pub(super) fn path(&self, index: u32) -> PathBuf {
        let (root, path) = self.locate(index);
        root.path().join(path)
    }

    /// The name of a file in the archive.
    pub(super) fn shown(&self, index: u32) -> Vec<u8> {
        let (root, path) = self.locate(index);
        let path = path.into_os_string().into_vec();
        let moved = self.places.iter().filter(|moved| Arc::ptr_eq(&moved.root, root));
        let mut shown = moved.rev().filter_map(|moved| match path.strip_prefix(&*moved.from)? {
            [] => Some(moved.to.to_vec()),
            rest @ [b'/', ..] => Some([&moved.to, rest].concat()),
            rest if moved.from.is_empty() => Some([&moved.to, &b"/"[..], rest].concat()),
            _ => None,
        });
        shown.next().unwrap_or(path)
    }

    pub(super) fn shrink(&mut self) {
        self.directories.shrink_to_fit();
        self.files.shrink_to_fit();
        self.names.shrink_to_fit();
    }

    pub(super) fn weight(&self) -> usize {
        let directories: usize = self.directories.iter().map(|(_, path)| path.len() + 24).sum();
        directories + self.files.len() * size_of::<Entry>() + self.names.len()
    }

    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    pub(super) fn size(&self, index: u32) -> u64 {
        self.files[index as usize].size
    }

    pub(super) fn expect(&self, index: u32) -> Expect {
        self.files[index as usize].expect
    }

    /// Opens a file of the table, and makes sure that it has the size that the recipe counts on.
    pub(super) fn open(&self, index: u32) -> Result<BackingFile> {
        let (root, path) = self.locate(index);
        let open = root.open_file(&path).map_err(|err| self.missing(index, err))?;
        if open.stat().size != self.size(index) {
            return Err(self.error(index, Fault::Changed));
        }
        Ok(open)
    }

    /// The error that tells of `fault` in file `index`.
    pub(super) fn error(&self, index: u32, fault: Fault) -> Error {
        let (root, path) = self.locate(index);
        let path = root.path().join(path);
        match (fault, root.access()) {
            (Fault::Io(err), _) => Error::io(path, err),
            (Fault::Changed, Access::Live) => Error::stale(path),
            (Fault::Changed, Access::Sealed) => {
                Error::corrupt(path, "changed since the layer was made")
            }
            (Fault::Checksum, _) => Error::corrupt(path, "file integrity checksum failed"),
        }
    }

    /// A file that is gone is damage in a layer, unless the whole layer is gone; in a container it
    /// is an event.
    fn missing(&self, index: u32, err: Error) -> Error {
        let (root, path) = self.locate(index);
        let path = root.path().join(path);
        let is_gone = err.is_not_found() || err.is_misplaced();
        match root.access() {
            Access::Live if is_gone => Error::stale(path),
            Access::Sealed if is_gone && root.is_removed() => Error::stale(path),
            Access::Sealed if is_gone => Error::corrupt(path, format!("gone: {err}")),
            Access::Live | Access::Sealed => err,
        }
    }

    /// Whether a layer or a container that files are in was removed.
    pub(super) fn is_gone(&self) -> bool {
        let mut last: Option<&Arc<Root>> = None;
        self.directories.iter().any(|(root, _)| {
            let is_known = last.is_some_and(|last| Arc::ptr_eq(last, root));
            last = Some(root);
            !is_known && root.is_removed()
        })
    }

    fn locate_directory(&self, index: u32) -> (&Arc<Root>, &[u8]) {
        let (root, directory) = &self.directories[self.files[index as usize].directory as usize];
        (root, directory)
    }

    pub(super) fn locate(&self, index: u32) -> (&Arc<Root>, PathBuf) {
        let at = index as usize;
        let entry = &self.files[at];
        let start = at.checked_sub(1).map_or(0, |before| self.files[before].name_end as usize);
        let name = OsStr::from_bytes(&self.names[start..entry.name_end as usize]);
        let (root, directory) = self.locate_directory(index);
        let mut path = PathBuf::with_capacity(directory.len() + 1 + name.len());
        path.push(OsStr::from_bytes(directory));
        path.push(name);
        (root, path)
    }
}

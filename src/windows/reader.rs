//! The files of a layer, one after the other, in the order in which a tar has them (hcsshim
//! `LayerReader`).
//!
//! 1. Parents come before what they hold, names of a directory in the order of their bytes, and what
//!    the layer deletes in a directory right after it.
//! 2. Beneath `Files`, a file begins with its Win32 attributes, and the rest of it is its backup
//!    stream; a directory is described by a file beside it. All else are plain files, whose streams
//!    are made up.
//! 3. What Windows keeps in the file system and Linux does not (times but for the last write, and
//!    the attributes and streams of plain files) is taken from xattrs of the file, as `unpack` puts
//!    them there, or else from its mtime.
//! 4. After a failure there is no going on: each call fails in the same way.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use super::stream::{Contents, Header, Kind};
use super::tombstones::{self, Tombstones};
use super::{ARCHIVE, BasicInfo, DIRECTORY, DIRECTORY_SUFFIX, FileTime, Malformed, REPARSE_POINT};
use super::{check_name, u32_at};
use crate::backing::{Bytes, FileKind, FileRange, Root, Stat};
use crate::error::{Error, Result};

mod file_stream;
mod notes;

pub use file_stream::FileStream;
pub use notes::XATTR_STREAMS;

use notes::Notes;

/// The directories that a layer consists of, in the order of their names.
pub const TOP: [&str; 3] = ["Files", "Hives", "UtilityVM"];

/// The registry hive whose times `Files` and `Hives` have: their own are those of the export.
const SYSTEM_HIVE: &str = "Hives/System_Delta";

/// What was left in the recycle bin is no part of a layer.
const RECYCLE_BIN: &[u8] = b"Files/$Recycle.Bin";

/// Files that importing the layer changed, and where the original is kept beside it.
const CHANGED: [(&[u8], &str); 4] = [
    (b"UtilityVM/Files/EFI/Microsoft/Boot/BCD", "bcd.bak"),
    (b"UtilityVM/Files/EFI/Microsoft/Boot/BCD.LOG", "bcd.log.bak"),
    (b"UtilityVM/Files/EFI/Microsoft/Boot/BCD.LOG1", "bcd.log1.bak"),
    (b"UtilityVM/Files/EFI/Microsoft/Boot/BCD.LOG2", "bcd.log2.bak"),
];

/// Length of the Win32 attributes before a backup stream, in bytes.
const PREFIX: u64 = 4;

/// Longest path, in bytes: 32,767 UTF-16 units (Windows), of three bytes each in UTF-8.
const PATH_MAX: usize = 3 * 32_767;

/// How a layer lies on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As `ExportLayer` writes it.
    Exported,
    /// A layer without parents, as the engine keeps it: plain files alone, nothing is deleted.
    Base,
}

/// One name of a layer.
#[derive(Debug)]
pub struct Entry {
    /// The path with slashes, without one at either end.
    pub path: Vec<u8>,
    /// What is there; `None` where the layer deletes it (a tombstone).
    pub file: Option<File>,
}

/// A file or a directory of a layer.
#[derive(Debug)]
pub struct File {
    /// Length of the contents; 0 where there are none.
    pub size: u64,
    /// Times and attributes.
    pub info: BasicInfo,
    /// Its backup stream.
    pub stream: Arc<FileStream>,
    /// What that holds.
    pub contents: Contents,
    /// Device and inode number of a file with several names.
    pub links: Option<(u64, u64)>,
}

/// Reads a layer.
#[derive(Debug)]
pub struct LayerReader {
    root: Arc<Root>,
    form: Form,
    tombstones: Tombstones,
    /// The directories on the way to where the reader is.
    open: Vec<Level>,
    /// What is deleted in the directory that was read last, from the last to the first.
    deleted: Vec<Vec<u8>>,
    current: Option<Current>,
    state: State,
}

/// What [`io::Read`] reads.
#[derive(Debug)]
struct Current {
    stream: Arc<FileStream>,
    position: u64,
    can_seek: bool,
}

#[derive(Debug)]
struct Level {
    path: Vec<u8>,
    /// What is still to be read, from the last to the first.
    names: Vec<OsString>,
}

#[derive(Debug)]
enum State {
    Reading,
    Ended,
    Failed(Error),
    Closed,
}

impl LayerReader {
    /// A reader of the layer in the directory `root`.
    ///
    /// # Errors
    /// Fails where an exported layer has no `tombstones.txt`, or one that is damaged.
    pub fn new(root: &Arc<Root>, form: Form) -> Result<LayerReader> {
        let tombstones = match form {
            Form::Base => Tombstones::new(),
            Form::Exported => {
                let bytes = root.read(tombstones::NAME, tombstones::SIZE_MAX)?;
                tombstones::parse(&bytes)
                    .map_err(|why| Error::corrupt(root.path().join(tombstones::NAME), why))?
            }
        };
        let has_vm = match root.stat("UtilityVM/Files") {
            Ok(stat) => stat.is_dir(),
            Err(err) if err.is_not_found() => false,
            Err(err) => return Err(err),
        };
        let is_read = |name: &&str| match (form, *name) {
            (Form::Base, "Hives") => false,
            (Form::Base, "UtilityVM") => has_vm,
            _ => true,
        };
        let names = TOP.into_iter().rev().filter(is_read).map(OsString::from).collect();
        Ok(LayerReader {
            root: Arc::clone(root),
            form,
            tombstones,
            open: vec![Level { path: Vec::new(), names }],
            deleted: Vec::new(),
            current: None,
            state: State::Reading,
        })
    }

    /// The next name; `None` at the end.
    ///
    /// # Errors
    /// Fails where the layer is damaged or can't be read, and after that each time; and once the
    /// reader is closed.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        self.current = None;
        match &self.state {
            State::Reading => {}
            State::Ended => return Ok(None),
            State::Failed(err) => return Err(err.again()),
            State::Closed => return Err(Error::invalid(self.root.path(), "the reader is closed")),
        }
        let entry = self.advance();
        match &entry {
            Ok(Some(Entry { path, file: Some(file) })) => {
                let can_seek = self.is_described(path);
                let stream = Arc::clone(&file.stream);
                self.current = Some(Current { stream, position: 0, can_seek });
            }
            Ok(Some(Entry { file: None, .. })) => {}
            Ok(None) => self.state = State::Ended,
            Err(err) => self.state = State::Failed(err.again()),
        }
        entry
    }

    /// Ends reading.
    ///
    /// # Errors
    /// Fails where the layer was not read to its end.
    pub fn close(&mut self) -> Result<()> {
        self.current = None;
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Reading => {
                Err(Error::invalid(self.root.path(), "the layer was not read to its end"))
            }
            State::Failed(err) => Err(err),
            State::Ended | State::Closed => Ok(()),
        }
    }

    fn advance(&mut self) -> Result<Option<Entry>> {
        if let Some(path) = self.deleted.pop() {
            return Ok(Some(Entry { path, file: None }));
        }
        while let Some(level) = self.open.last_mut() {
            let Some(name) = level.names.pop() else {
                self.open.pop();
                continue;
            };
            let path = join(&level.path, name.as_bytes());
            if let Some(entry) = self.enter(path, &name)? {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// The entry at `path`; `None` where it is no part of the layer.
    fn enter(&mut self, path: Vec<u8>, name: &OsStr) -> Result<Option<Entry>> {
        if name.as_bytes().ends_with(DIRECTORY_SUFFIX) {
            return Ok(None); // read with its directory
        }
        let stat = match self.root.stat(as_path(&path)) {
            Err(err) if err.is_not_found() && !path.contains(&b'/') => return Ok(None),
            stat => stat?,
        };
        let is_bin = stat.is_dir() && path.eq_ignore_ascii_case(RECYCLE_BIN);
        let is_beside = path.starts_with(b"UtilityVM/")
            && path != b"UtilityVM/Files"
            && !path.starts_with(b"UtilityVM/Files/");
        if is_bin || is_beside {
            return Ok(None);
        }
        check_name(name.as_bytes()).map_err(|why| self.corrupt(&path, why))?;
        if path.len() > PATH_MAX {
            return Err(self.corrupt(&path, Malformed::new("a path longer than any on Windows")));
        }
        let file = self.file(&path, &stat)?;
        if stat.is_dir() {
            self.descend(&path, &file)?;
        }
        Ok(Some(Entry { path, file: Some(file) }))
    }

    /// Goes on with what the directory `path` holds.
    fn descend(&mut self, path: &[u8], file: &File) -> Result<()> {
        let (_, names) = self.root.listed_dir(as_path(path))?;
        let mut names: Vec<OsString> = names.into_iter().map(|entry| entry.name).collect();
        if file.contents.reparse.is_some() && !names.is_empty() {
            return Err(self.corrupt(path, Malformed::new("a link that holds files")));
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        self.open.push(Level { path: path.to_vec(), names });
        let deleted = self.tombstones.remove(path).unwrap_or_default();
        self.deleted = deleted.iter().rev().map(|name| join(path, name)).collect();
        Ok(())
    }

    /// True where a file has its attributes and its backup stream in it.
    fn is_described(&self, path: &[u8]) -> bool {
        self.form == Form::Exported && path.starts_with(b"Files/")
    }

    fn file(&self, path: &[u8], stat: &Stat) -> Result<File> {
        let (info, stream) = match stat.kind {
            FileKind::Regular | FileKind::Directory if self.is_described(path) => {
                self.described(path, stat)?
            }
            FileKind::Regular | FileKind::Directory => self.plain(path, stat)?,
            _ => return Err(self.corrupt(path, Malformed::new("neither file nor directory"))),
        };
        let contents = Contents::read(&stream)?;
        let is_link = contents.reparse.is_some();
        if info.is_directory() != stat.is_dir() && !(is_link && info.is_directory()) {
            return Err(self.corrupt(path, Malformed::new("attributes of something else")));
        }
        if is_link && info.attributes & REPARSE_POINT == 0 {
            return Err(self.corrupt(path, Malformed::new("a link without the attribute of one")));
        }
        let size = contents.data.as_ref().map_or(0, |data| data.size);
        let links = (stat.nlink > 1 && !stat.is_dir()).then_some((stat.dev, stat.ino));
        Ok(File { size, info, stream: Arc::new(stream), contents, links })
    }

    /// A file or directory beneath `Files` of an exported layer.
    fn described(&self, path: &[u8], stat: &Stat) -> Result<(BasicInfo, FileStream)> {
        let suffix = if stat.is_dir() { DIRECTORY_SUFFIX } else { b"" };
        let path = [path, suffix].concat();
        let body = FileRange::pinned(&self.root, as_path(&path));
        let body = body.map_err(|err| match err.is_not_found() {
            true => self.corrupt(&path, Malformed::new("missing: nothing describes the directory")),
            false => err,
        })?;
        let mut prefix = [0; PREFIX as usize];
        let read = body.read_at(0, &mut prefix)?;
        let attributes = u32_at(prefix.get(..read).unwrap_or_default(), 0);
        let short = || self.corrupt(&path, Malformed::new("too short for its attributes"));
        let attributes = attributes.ok_or_else(short)?;
        let length = body.len().checked_sub(PREFIX).ok_or_else(short)?;
        let body = body.part(PREFIX, length).ok_or_else(short)?;
        let written = self.root.stat(as_path(&path))?.mtime;
        let notes = Notes::read(&self.root, &path)?;
        let info = BasicInfo { attributes, ..notes.info(FileTime::from_time(written), 0) };
        let mut stream = FileStream::at(&self.root, &path);
        stream.body = Some(body);
        Ok((info, stream))
    }

    /// A file or directory that is what it seems.
    fn plain(&self, path: &[u8], stat: &Stat) -> Result<(BasicInfo, FileStream)> {
        let notes = Notes::read(&self.root, path)?;
        let is_export = matches!(path, b"Files" | b"Hives") && self.form == Form::Exported;
        let written = match is_export && !notes.has_times {
            true => self.root.stat(SYSTEM_HIVE)?.mtime,
            false => stat.mtime,
        };
        let attributes = if stat.is_dir() { DIRECTORY } else { ARCHIVE };
        let info = notes.info(FileTime::from_time(written), attributes);
        let mut stream = FileStream::at(&self.root, path);
        (stream.head, stream.tail) = notes.streams().map_err(|why| self.corrupt(path, why))?;
        let is_link = info.attributes & REPARSE_POINT != 0;
        if !stat.is_dir() && !is_link {
            let body = self.original(path)?;
            Header::new(Kind::Data, body.len()).write(&mut stream.head);
            stream.body = Some(body);
        }
        Ok((info, stream))
    }

    /// A plain file as it was before the layer was imported.
    fn original(&self, path: &[u8]) -> Result<FileRange> {
        if let Some((_, kept)) = CHANGED.iter().find(|(changed, _)| *changed == path) {
            match FileRange::pinned(&self.root, kept) {
                Err(err) if err.is_not_found() => {}
                kept => return kept,
            }
        }
        FileRange::pinned(&self.root, as_path(path))
    }

    fn corrupt(&self, path: &[u8], why: Malformed) -> Error {
        Error::corrupt(self.root.path().join(as_path(path)), why)
    }
}

/// The raw backup stream of the entry that was read last; of what is deleted there is none.
impl io::Read for LayerReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(current) = &mut self.current else { return Ok(0) };
        let read = current.stream.read_at(current.position, buf).map_err(io::Error::other)?;
        current.position += read as u64;
        Ok(read)
    }
}

/// Beneath `Files` alone: elsewhere there is no stream on disk to seek in.
impl io::Seek for LayerReader {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        let unsupported = |why| Err(io::Error::new(io::ErrorKind::Unsupported, why));
        let Some(current) = &mut self.current else { return unsupported("no current file") };
        if !current.can_seek {
            return unsupported("seek not supported on this stream");
        }
        let position = match to {
            io::SeekFrom::Start(at) => Some(at),
            io::SeekFrom::Current(by) => current.position.checked_add_signed(by),
            io::SeekFrom::End(by) => current.stream.len().checked_add_signed(by),
        };
        let position = position.ok_or(io::ErrorKind::InvalidInput)?;
        current.position = position;
        Ok(position)
    }
}

fn as_path(path: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(path))
}

fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}

//! The exported form of a layer, made of its tar.
//!
//! What Linux keeps of a file is less than what a tar tells: times but for the last write, and the
//! attributes and streams of what lies outside `Files`, become xattrs, from which the layer is read
//! again ([`crate::windows::reader`]).

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::Path;

use super::place::{Place, set_time, set_xattr};
use crate::backing::{Bytes, FileKind};
use crate::error::Malformed;
use crate::error::{Error, Result};
use crate::tar::header::Type;
use crate::tar::read::{Entries, Entry};
use crate::windows::reader::{TOP, XATTR_STREAMS};
use crate::windows::records::XATTR_CREATION;
use crate::windows::records::{self, Metadata, XATTR_ACCESS, XATTR_ATTRIBUTES, XATTR_CHANGE};
use crate::windows::stream::{Header, Kind};
use crate::windows::{
    ARCHIVE, DIRECTORY, DIRECTORY_SUFFIX, FileTime, REPARSE_POINT, check_name, tombstones,
};

/// Before a name that the layer deletes (OCI image-spec, layer.md, "Whiteouts").
const WHITEOUT_PREFIX: &[u8] = b".wh.";

/// The type bits of a file's mode; without them, a file without contents has no stream for them.
const IS_FILE: u32 = 0o100_000;

/// How much is copied at once, in bytes.
const CHUNK: usize = 1 << 20;

/// The file whose times `Files` and `Hives` have, unless told otherwise.
const SYSTEM_HIVE: &[u8] = b"Hives/System_Delta";

/// Unpacks `tar` into the directory `to`, which is empty or made.
///
/// # Errors
/// Fails where the tar is damaged or no layer of Windows, where the exported form can't tell what is
/// in it, and where something can't be written. What was made until then stays.
pub(super) fn unpack(tar: &dyn Bytes, to: &Path) -> Result<()> {
    let mut deleted = Vec::new();
    tombstones::begin(&mut deleted);
    let place = Place::create(to)?;
    let mut layer =
        Unpacking { tar, place, deleted, open: None, directories: Vec::new(), hive: None };
    let mut entries = Entries::new(tar);
    while let Some(entry) = entries.next()? {
        layer.add(&entry).map_err(|failure| match failure {
            Failure::Malformed(why) => {
                let name = String::from_utf8_lossy(&entry.name);
                Error::corrupt(tar.path(), format!("at {name:?}: {why}"))
            }
            Failure::Other(err) => err,
        })?;
    }
    layer.finish()
}

enum Failure {
    Malformed(Malformed),
    Other(Error),
}

impl From<Malformed> for Failure {
    fn from(err: Malformed) -> Failure {
        Failure::Malformed(err)
    }
}

impl From<Error> for Failure {
    fn from(err: Error) -> Failure {
        Failure::Other(err)
    }
}

fn no(why: &'static str) -> Failure {
    Failure::Malformed(Malformed::new(why))
}

/// A layer while it is unpacked.
struct Unpacking<'a> {
    tar: &'a dyn Bytes,
    place: Place,
    /// `tombstones.txt` so far.
    deleted: Vec<u8>,
    /// The file that was made last: its alternate streams follow it.
    open: Option<Open>,
    directories: Vec<Directory>,
    /// When the system's registry hive was last written.
    hive: Option<FileTime>,
}

/// A directory, whose notes and times are set when all is in it.
struct Directory {
    path: Vec<u8>,
    written: FileTime,
    notes: Notes,
    /// It is a link, and made last, so that nothing gets into it.
    is_link: bool,
}

/// Xattrs, by name.
type Notes = Vec<(&'static str, Vec<u8>)>;

/// A file that is being written.
struct Open {
    /// Its name in the tar.
    path: Vec<u8>,
    /// The file, and its path: of a directory beneath `Files`, that which describes it. `None` for a
    /// plain directory.
    file: Option<(File, Vec<u8>)>,
    metadata: Metadata,
    /// Streams that go into an xattr.
    aside: Vec<u8>,
    is_described: bool,
}

impl Unpacking<'_> {
    fn add(&mut self, entry: &Entry) -> Result<(), Failure> {
        if let Some(open) = &self.open
            && entry.kind == Some(Type::Regular)
            && let Some(stream) = records::alternate_of(&open.path, &entry.name)
        {
            return self.add_stream(stream, entry);
        }
        self.close()?;
        let path = entry.name.strip_suffix(b"/").unwrap_or(&entry.name);
        let parts: Vec<&[u8]> = path.split(|&byte| byte == b'/').collect();
        parts.iter().try_for_each(|part| check_name(part))?;
        if !TOP.iter().any(|top| top.as_bytes() == parts[0]) {
            return Err(no("neither of Files, Hives nor UtilityVM"));
        }
        if parts.iter().any(|part| records::is_reserved(part)) {
            return Err(no("a name of the exported form itself"));
        }
        let kind = match entry.kind {
            Some(Type::Regular) if is_whiteout(path) => return self.delete(path),
            Some(Type::Regular) => FileKind::Regular,
            Some(Type::Directory) => FileKind::Directory,
            Some(Type::Symlink) => FileKind::Symlink,
            Some(Type::HardLink) => {
                let target = entry.link.strip_suffix(b"/").unwrap_or(&entry.link);
                let mut parts = target.split(|&byte| byte == b'/');
                parts.try_for_each(check_name)?;
                return Ok(self.place.make_link(target, path)?);
            }
            Some(Type::CharDevice | Type::BlockDevice | Type::Fifo) | None => {
                return Err(no("a kind of file that Windows has not"));
            }
        };
        let metadata = metadata(entry, kind)?;
        self.make(path, metadata, entry)
    }

    /// Makes a file, a directory or a link.
    fn make(&mut self, path: &[u8], metadata: Metadata, entry: &Entry) -> Result<(), Failure> {
        let is_described = path.starts_with(b"Files/");
        let is_directory = metadata.info.is_directory();
        let is_link = metadata.link.is_some();
        let aside = if is_described { Vec::new() } else { metadata.to_stream()? };
        if is_directory && !is_link {
            self.place.make_directory(path)?;
        }
        let mut on_disk = path.to_vec();
        if is_directory {
            on_disk.extend_from_slice(DIRECTORY_SUFFIX);
        }
        let mut file = None;
        if is_described || !is_directory {
            let made = self.place.make_file(&on_disk)?;
            let (made, on_disk) = file.insert((made, on_disk));
            let mut head = Vec::new();
            if is_described {
                head.extend_from_slice(&metadata.info.attributes.to_le_bytes());
                head.extend(metadata.to_stream()?);
                let has_data = entry.size > 0 || entry.mode & IS_FILE != 0;
                if !is_directory && !is_link && has_data {
                    Header::new(Kind::Data, entry.size).write(&mut head);
                }
            }
            made.write_all(&head).map_err(|err| self.place.failed(on_disk, err))?;
            copy(self.tar, entry, made).map_err(|err| self.place.failed(on_disk, err))?;
        }
        if path == SYSTEM_HIVE {
            self.hive = Some(metadata.info.write);
        }
        self.open = Some(Open { path: path.to_vec(), file, metadata, aside, is_described });
        Ok(())
    }

    /// Adds an alternate stream to the file that was made last.
    fn add_stream(&mut self, name: &str, entry: &Entry) -> Result<(), Failure> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let mut head = Vec::new();
        Header::alternate(name, entry.size).write(&mut head);
        match &mut open.file {
            Some((file, path)) if open.is_described => {
                let written = file.write_all(&head).and_then(|()| copy(self.tar, entry, file));
                written.map_err(|err| self.place.failed(path, err))?;
            }
            _ => {
                open.aside.extend(head);
                let at = open.aside.len();
                let end = at.saturating_add(usize::try_from(entry.size).unwrap_or(usize::MAX));
                if end > records::XATTR_MAX {
                    return Err(no("streams outside Files that are too large for an xattr"));
                }
                open.aside.resize(end, 0);
                read(self.tar, entry, 0, open.aside.get_mut(at..).unwrap_or_default())?;
            }
        }
        Ok(())
    }

    /// Finishes the file that was made last.
    fn close(&mut self) -> Result<()> {
        let Some(Open { path, file, metadata, aside, is_described }) = self.open.take() else {
            return Ok(());
        };
        let written = metadata.info.write;
        let mut notes = notes(&metadata, is_described, &aside);
        if let Some((file, path)) = &file {
            self.note(file, path, &std::mem::take(&mut notes), written)?;
        }
        if metadata.info.is_directory() {
            let is_link = metadata.link.is_some();
            self.directories.push(Directory { path, written, notes, is_link });
        }
        Ok(())
    }

    fn note(&self, file: impl AsFd, path: &[u8], notes: &Notes, written: FileTime) -> Result<()> {
        let set = notes.iter().try_for_each(|(name, value)| set_xattr(&file, name, value));
        set.and_then(|()| set_time(&file, written.to_time()))
            .map_err(|err| self.place.failed(path, err))
    }

    /// Notes that the layer deletes a name.
    fn delete(&mut self, path: &[u8]) -> Result<(), Failure> {
        let path = path.strip_prefix(b"Files/");
        let path = path.ok_or_else(|| no("a deletion outside Files, which can't be exported"))?;
        let base = path.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
        let (directory, name) = path.split_at(base);
        let name = name.strip_prefix(WHITEOUT_PREFIX).unwrap_or(name);
        if name.starts_with(WHITEOUT_PREFIX) {
            return Err(no("an opaque directory, which can't be exported"));
        }
        check_name(name)?;
        tombstones::push(&mut self.deleted, &[directory, name].concat());
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        self.close()?;
        let name = tombstones::NAME.as_bytes();
        let mut file = self.place.make_file(name)?;
        file.write_all(&self.deleted).map_err(|err| self.place.failed(name, err))?;
        let mut directories = std::mem::take(&mut self.directories);
        for Directory { path, .. } in directories.iter().filter(|directory| directory.is_link) {
            self.place.make_directory(path)?;
        }
        for Directory { path, written, notes, .. } in directories.iter_mut().rev() {
            let is_top = matches!(&path[..], b"Files" | b"Hives");
            if is_top && notes.is_empty() && self.hive != Some(*written) {
                // Without a note, it would be read with the times of the hive.
                notes.push((XATTR_CREATION, time(*written)));
            }
            self.note(self.place.open_directory(path)?, path, notes, *written)?;
        }
        Ok(())
    }
}

fn is_whiteout(path: &[u8]) -> bool {
    path.rsplit(|&byte| byte == b'/').next().is_some_and(|name| name.starts_with(WHITEOUT_PREFIX))
}

/// What an entry tells of a file, with the attributes that go with its kind.
fn metadata(entry: &Entry, kind: FileKind) -> Result<Metadata, Malformed> {
    let link = if kind == FileKind::Symlink { &entry.link[..] } else { b"" };
    let mut metadata = Metadata::from_records(&entry.records, kind, entry.mtime, link)?;
    let attributes = &mut metadata.info.attributes;
    match kind {
        FileKind::Directory => *attributes |= DIRECTORY,
        FileKind::Symlink => *attributes |= REPARSE_POINT,
        _ if *attributes & DIRECTORY != 0 => {
            return Err(Malformed::new("a file with the attributes of a directory"));
        }
        _ => {}
    }
    Ok(metadata)
}

fn time(time: FileTime) -> Vec<u8> {
    crate::time::format_pax(time.to_time())
}

/// What has no place in the file itself.
fn notes(metadata: &Metadata, is_described: bool, aside: &[u8]) -> Notes {
    let info = &metadata.info;
    let mut notes = Vec::new();
    let times =
        [(XATTR_CREATION, info.creation), (XATTR_ACCESS, info.access), (XATTR_CHANGE, info.change)];
    for (name, value) in times.into_iter().filter(|(_, value)| *value != info.write) {
        notes.push((name, time(value)));
    }
    let usual = if info.is_directory() { DIRECTORY } else { ARCHIVE };
    if !is_described && info.attributes != usual {
        notes.push((XATTR_ATTRIBUTES, info.attributes.to_string().into_bytes()));
    }
    if !aside.is_empty() {
        notes.push((XATTR_STREAMS, aside.to_vec()));
    }
    notes
}

/// Appends the contents of `entry` to `file`; what is not stored becomes a hole.
fn copy(tar: &dyn Bytes, entry: &Entry, file: &mut File) -> io::Result<()> {
    let start = file.stream_position()?;
    let mut buf = vec![0; CHUNK.min(usize::try_from(entry.size).unwrap_or(CHUNK))];
    for extent in &entry.extents {
        file.seek(SeekFrom::Start(start.saturating_add(extent.offset)))?;
        let mut done = 0;
        while done < extent.len {
            let count = (extent.len - done).min(buf.len() as u64) as usize;
            let part = buf.get_mut(..count).unwrap_or_default();
            read(tar, entry, extent.offset + done, part).map_err(io::Error::other)?;
            file.write_all(part)?;
            done += count as u64;
        }
    }
    let end = start.checked_add(entry.size).ok_or(io::ErrorKind::FileTooLarge)?;
    if file.stream_position()? != end {
        file.set_len(end)?;
    }
    file.seek(SeekFrom::Start(end)).map(drop)
}

/// Fills `buf` with the contents of `entry` from byte `offset` on.
fn read(tar: &dyn Bytes, entry: &Entry, offset: u64, buf: &mut [u8]) -> Result<()> {
    let end = offset.saturating_add(buf.len() as u64);
    for extent in &entry.extents {
        let from = extent.offset.max(offset);
        let until = (extent.offset + extent.len).min(end);
        if from >= until {
            continue;
        }
        let range = (from - offset) as usize..(until - offset) as usize;
        let part = buf.get_mut(range).unwrap_or_default();
        if tar.read_at(extent.from + (from - extent.offset), part)? < part.len() {
            return Err(Error::corrupt(tar.path(), "shorter than it was"));
        }
    }
    Ok(())
}

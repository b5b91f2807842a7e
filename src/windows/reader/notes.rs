//! What Windows keeps in its file system, noted in xattrs on Linux.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::as_path;
use crate::backing::Root;
use crate::error::Malformed;
use crate::error::{Error, Result};
use crate::time::parse_pax;
use crate::windows::records::{XATTR_ACCESS, XATTR_ATTRIBUTES, XATTR_CHANGE, XATTR_CREATION};
use crate::windows::stream::{Header, Kind};
use crate::windows::{BasicInfo, FileTime};

/// Xattr of a plain file on disk: its streams but for the contents.
pub const XATTR_STREAMS: &str = "user.win.streams";

/// What xattrs on disk say of a file.
#[derive(Debug, Default)]
pub(super) struct Notes {
    attributes: Option<u32>,
    creation: Option<FileTime>,
    access: Option<FileTime>,
    change: Option<FileTime>,
    streams: Vec<u8>,
    /// Whether any time is noted, so that the mtime is the file's own, too.
    pub(super) has_times: bool,
}

impl Notes {
    pub(super) fn read(root: &Root, path: &[u8]) -> Result<Notes> {
        let at = path.iter().rposition(|&byte| byte == b'/');
        let (parent, name) = match at {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&b""[..], path),
        };
        let dir = root.dir(as_path(parent))?;
        let name = OsStr::from_bytes(name);
        let mut notes = Notes::default();
        for attribute in dir.xattrs(name)? {
            let Some(attribute) = attribute.to_str() else { continue };
            if !attribute.starts_with("user.win.") {
                continue;
            }
            let value = dir.xattr(name, OsStr::new(attribute))?.unwrap_or_default();
            let shown = root.path().join(as_path(path));
            notes.add(attribute, value, &shown)?;
        }
        notes.has_times = notes.creation.or(notes.access).or(notes.change).is_some();
        Ok(notes)
    }

    fn add(&mut self, attribute: &str, value: Vec<u8>, path: &Path) -> Result<()> {
        let corrupt = || Error::corrupt(path, format!("its xattr {attribute} makes no sense"));
        let time = || parse_pax(&value).map(FileTime::from_time).ok_or_else(corrupt);
        match attribute {
            XATTR_CREATION => self.creation = Some(time()?),
            XATTR_ACCESS => self.access = Some(time()?),
            XATTR_CHANGE => self.change = Some(time()?),
            XATTR_ATTRIBUTES => {
                let number = str::from_utf8(&value).ok().and_then(|text| text.parse().ok());
                self.attributes = Some(number.ok_or_else(corrupt)?);
            }
            XATTR_STREAMS => self.streams = value,
            _ => {}
        }
        Ok(())
    }

    /// Times and attributes of a file that was written at `write` and has `attributes`, unless noted
    /// otherwise.
    pub(super) fn info(&self, write: FileTime, attributes: u32) -> BasicInfo {
        BasicInfo {
            creation: self.creation.unwrap_or(write),
            access: self.access.unwrap_or(write),
            write,
            change: self.change.unwrap_or(write),
            attributes: self.attributes.unwrap_or(attributes),
        }
    }

    /// The streams that come before the contents, and those that come after.
    pub(super) fn streams(&self) -> Result<(Vec<u8>, Vec<u8>), Malformed> {
        let (mut head, mut tail) = (Vec::new(), Vec::new());
        let mut rest = self.streams.as_slice();
        while !rest.is_empty() {
            let (header, length) = Header::parse(rest)?;
            let end = usize::try_from(header.size).ok().and_then(|size| length.checked_add(size));
            let (stream, after) = end
                .and_then(|end| rest.split_at_checked(end))
                .ok_or_else(|| Malformed::new("streams that are cut short"))?;
            match header.kind {
                Kind::Data | Kind::SparseBlock => {
                    return Err(Malformed::new("contents among what is noted beside them"));
                }
                Kind::Alternate => tail.extend_from_slice(stream),
                _ => head.extend_from_slice(stream),
            }
            rest = after;
        }
        Ok((head, tail))
    }
}

//! Windows layers: the formats in which they are exported, and what a tar tells of them.
//!
//! 1. [`stream`]: the backup stream of a file (Win32 `BackupRead`), in which everything about it but
//!    its name, times and attributes is a stream with a header.
//! 2. [`ea`], [`reparse`] and [`sddl`]: what some of these streams hold.
//! 3. [`reader`]: the directory that `ExportLayer` fills, entry by entry.
//! 4. [`records`]: the same as extended header records of a tar, both ways, and as xattrs.
//!
//! Everything here is foreign data: each length is checked before it is believed, and no more of a
//! file than its small streams is ever held in memory.

use crate::backing::Time;
use crate::error::Malformed;

pub mod ea;
pub mod reader;
pub mod records;
pub mod reparse;
pub mod sddl;
pub mod stream;
pub mod tombstones;

/// `FILE_ATTRIBUTE_READONLY` (MS-FSCC 2.6).
pub const READ_ONLY: u32 = 0x1;
/// `FILE_ATTRIBUTE_DIRECTORY` (MS-FSCC 2.6).
pub const DIRECTORY: u32 = 0x10;
/// `FILE_ATTRIBUTE_ARCHIVE` (MS-FSCC 2.6): what a plain file has.
pub const ARCHIVE: u32 = 0x20;
/// `FILE_ATTRIBUTE_REPARSE_POINT` (MS-FSCC 2.6).
pub const REPARSE_POINT: u32 = 0x400;

/// What follows the name of a directory in that of the file that describes it.
pub const DIRECTORY_SUFFIX: &[u8] = b".$wcidirs$";

/// Seconds from 1601, where Windows begins to count, to 1970.
const EPOCH: i64 = 11_644_473_600;

/// Units of a [`FileTime`] in a second.
const UNITS: i64 = 10_000_000;

/// Longest name of a file, in UTF-16 units (NTFS).
const NAME_MAX: usize = 255;

/// A point in time as Windows has it: units of 100 ns since 1601 (`FILETIME`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct FileTime(pub u64);

impl FileTime {
    /// The unit in which `time` lies; the nearest there is where Windows can't tell it.
    #[must_use]
    pub fn from_time(time: Time) -> FileTime {
        let secs = i128::from(time.secs) + i128::from(EPOCH);
        let units = secs * i128::from(UNITS) + i128::from(time.nanos / 100);
        FileTime(u64::try_from(units.max(0)).unwrap_or(u64::MAX))
    }

    /// The same time, counted from 1970.
    #[must_use]
    pub fn to_time(self) -> Time {
        let units = UNITS.unsigned_abs();
        let secs = (self.0 / units).cast_signed() - EPOCH; // a tenth of a millionth of u64
        Time { secs, nanos: (self.0 % units) as u32 * 100 }
    }
}

/// What Windows keeps of a file beside its streams (`FILE_BASIC_INFO`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BasicInfo {
    /// When it was made.
    pub creation: FileTime,
    /// When it was last read.
    pub access: FileTime,
    /// When its contents were last changed.
    pub write: FileTime,
    /// When anything of it was last changed.
    pub change: FileTime,
    /// Win32 attributes.
    pub attributes: u32,
}

impl BasicInfo {
    /// Of a file that is known to have been changed at `time`, and no more.
    #[must_use]
    pub fn at(time: FileTime, attributes: u32) -> BasicInfo {
        BasicInfo { creation: time, access: time, write: time, change: time, attributes }
    }

    /// True for a directory, a junction included.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.attributes & DIRECTORY != 0
    }
}

/// Makes sure that NTFS could hold a file of this name.
///
/// # Errors
/// Fails where it could not.
pub fn check_name(name: &[u8]) -> Result<(), Malformed> {
    let text = str::from_utf8(name).map_err(|_| Malformed::new("a name that is no Unicode"))?;
    if text.is_empty() || text == "." || text == ".." {
        return Err(Malformed::new("a name that no file can have"));
    }
    if text.chars().any(|character| character < ' ' || "\"*/:<>?\\|".contains(character)) {
        return Err(Malformed::new("a name that NTFS forbids"));
    }
    if text.encode_utf16().count() > NAME_MAX {
        return Err(Malformed::new("a name too long for NTFS"));
    }
    Ok(())
}

/// Two bytes at `at`, little endian.
fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let end = at.checked_add(2)?;
    Some(u16::from_le_bytes(bytes.get(at..end)?.try_into().ok()?))
}

/// Four bytes at `at`, little endian.
fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let end = at.checked_add(4)?;
    Some(u32::from_le_bytes(bytes.get(at..end)?.try_into().ok()?))
}

/// Eight bytes at `at`, little endian.
fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let end = at.checked_add(8)?;
    Some(u64::from_le_bytes(bytes.get(at..end)?.try_into().ok()?))
}

/// UTF-16, little endian, as UTF-8; `None` where it is none.
fn from_utf16(bytes: &[u8]) -> Option<String> {
    let (units, rest) = bytes.as_chunks::<2>();
    let units = units.iter().map(|unit| u16::from_le_bytes(*unit));
    let text: Result<String, _> = char::decode_utf16(units).collect();
    text.ok().filter(|_| rest.is_empty())
}

/// UTF-8 as UTF-16, little endian.
fn to_utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_time_counts_from_1601() {
        for (units, secs, nanos) in [
            (116_444_736_000_000_000, 0, 0),
            (132_537_600_001_234_567, 1_609_286_400, 123_456_700),
            (0, -EPOCH, 0),
            (u64::MAX, 1_833_029_933_770, 955_161_500),
        ] {
            let time = Time { secs, nanos };
            assert_eq!(FileTime(units).to_time(), time);
            assert_eq!(FileTime::from_time(time), FileTime(units));
        }
        let rounded = FileTime::from_time(Time { secs: 1, nanos: 199 });
        assert_eq!(rounded.to_time(), Time { secs: 1, nanos: 100 });
        assert_eq!(FileTime::from_time(Time { secs: i64::MIN, nanos: 0 }), FileTime(0));
        assert_eq!(FileTime::from_time(Time { secs: i64::MAX, nanos: 0 }), FileTime(u64::MAX));
    }

    #[test]
    fn names_that_ntfs_forbids_are_refused() {
        let longest = "\u{e9}".repeat(255);
        for name in ["a", "x.$y", "\u{1f600}", ".wh.x", "...", " ", &longest] {
            assert_eq!(check_name(name.as_bytes()), Ok(()), "{name}");
        }
        let long = "\u{1f600}".repeat(128);
        for name in ["", ".", "..", "a:b", "a\\b", "a/b", "a*", "\"", "\u{1}", "a\0", "<|>", &long]
        {
            assert!(check_name(name.as_bytes()).is_err(), "{name}");
        }
        assert!(check_name(b"\xff").is_err());
    }
}

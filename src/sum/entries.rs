//! A tar's entries with the very values that Go's `archive/tar` reads of USTAR, PAX, GNU, star and
//! V7 headers, whether they make sense or not: all of them are hashed.
//!
//! Archives are foreign. Whatever makes no sense is an error, memory is bounded by
//! [`SPECIAL_MAX`], and bodies are not read here: an entry says where its body lies.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::error::{Error, Result};
use crate::recipe::Recipe;
use crate::tar::BLOCK;

/// Longest extended header, in bytes (Go's `maxSpecialFileSize`).
const SPECIAL_MAX: u64 = 1 << 20;

/// Beginning of the records that hold xattrs.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// Beginning of the records of sparse files.
const SPARSE: &[u8] = b"GNU.sparse.";

/// Seconds of the time that Go takes for none: the year 1.
const NO_TIME: i64 = -62_135_596_800;

/// One entry, with what extended headers say of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Path in the archive, as stored.
    pub(super) name: Vec<u8>,
    /// Mode, with whatever bits are stored.
    pub(super) mode: i64,
    /// Owner.
    pub(super) uid: i64,
    /// Group.
    pub(super) gid: i64,
    /// Size as stored; what has no body may have one too.
    pub(super) size: i64,
    /// Seconds since 1970, rounded down.
    pub(super) mtime: i64,
    /// Type; never NUL.
    pub(super) typeflag: u8,
    /// Where a link points to.
    pub(super) link: Vec<u8>,
    /// Major and minor number.
    pub(super) device: (i64, i64),
    /// Extended attributes by name.
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Where the body lies in the archive.
    pub(super) body: Range<u64>,
}

/// Reads a tar front to back.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    tar: &'a Recipe,
    /// Where the next header is; a multiple of [`BLOCK`].
    at: u64,
}

/// Extended records of one entry, by key.
type Records = BTreeMap<Vec<u8>, Vec<u8>>;

impl<'a> Reader<'a> {
    /// A reader that stands before the first entry.
    #[must_use]
    pub(super) fn new(tar: &'a Recipe) -> Reader<'a> {
        Reader { tar, at: 0 }
    }

    /// The next entry; `None` at the end of the archive. A global extended header counts as one.
    ///
    /// # Errors
    /// Corrupt where there is no tar, or it is cut off; not supported for sparse files; and
    /// whatever reading fails with.
    pub(super) fn next(&mut self) -> Result<Option<Entry>> {
        let mut records = Records::new();
        let (mut long_name, mut long_link) = (Vec::new(), Vec::new());
        loop {
            let Some(mut entry) = self.header()? else { return Ok(None) };
            match entry.typeflag {
                b'x' => records = parse_records(&self.special(&entry)?).ok_or_else(malformed)?,
                b'g' => return self.global(entry).map(Some),
                b'L' => long_name = text(&self.special(&entry)?).to_vec(),
                b'K' => long_link = text(&self.special(&entry)?).to_vec(),
                b'S' => return Err(sparse()),
                _ => {
                    merge(&mut entry, &records)?;
                    if !long_name.is_empty() {
                        entry.name = long_name;
                    }
                    if !long_link.is_empty() {
                        entry.link = long_link;
                    }
                    if entry.typeflag == 0 {
                        entry.typeflag = if entry.name.ends_with(b"/") { b'5' } else { b'0' };
                    }
                    self.pass_body(&mut entry)?;
                    return Ok(Some(entry));
                }
            }
        }
    }

    /// The main header at `at`, which is moved past it.
    fn header(&mut self) -> Result<Option<Entry>> {
        let Some(mut block) = self.block()? else { return Ok(None) };
        if block.iter().all(|&byte| byte == 0) {
            match self.block()? {
                Some(second) if second.iter().any(|&byte| byte != 0) => return Err(malformed()),
                _ => return Ok(None),
            }
        }
        let entry = parse_header(&mut block).ok_or_else(malformed)?;
        Ok(Some(entry))
    }

    /// The next block; `None` at the end.
    fn block(&mut self) -> Result<Option<[u8; BLOCK as usize]>> {
        let mut block = [0; BLOCK as usize];
        match self.tar.read_at(self.at, &mut block)? as u64 {
            0 => Ok(None),
            BLOCK => {
                self.at += BLOCK;
                Ok(Some(block))
            }
            _ => Err(cut_off()),
        }
    }

    /// Notes where the body is, and moves past it.
    fn pass_body(&mut self, entry: &mut Entry) -> Result<()> {
        let has_body = !matches!(entry.typeflag, b'1'..=b'6');
        let size = u64::try_from(if has_body { entry.size } else { 0 });
        let size = size.map_err(|_| malformed())?;
        let end = self.at.checked_add(size).filter(|&end| end <= self.tar.len());
        entry.body = self.at..end.ok_or_else(cut_off)?;
        self.at = entry.body.end.next_multiple_of(BLOCK);
        Ok(())
    }

    /// The body of an entry that tells about another.
    fn special(&mut self, entry: &Entry) -> Result<Vec<u8>> {
        let mut entry = Entry { typeflag: b'0', ..entry.clone() };
        self.pass_body(&mut entry)?;
        let size = entry.body.end - entry.body.start;
        if size > SPECIAL_MAX {
            return Err(Error::corrupt("tar", "an extended header of more than 1 MiB"));
        }
        let mut bytes = vec![0; size as usize];
        match self.tar.read_at(entry.body.start, &mut bytes)? == bytes.len() {
            true => Ok(bytes),
            false => Err(cut_off()),
        }
    }

    /// A global extended header, of which Go keeps name, type and records alone.
    fn global(&mut self, header: Entry) -> Result<Entry> {
        let records = parse_records(&self.special(&header)?).ok_or_else(malformed)?;
        let mut named = header;
        merge(&mut named, &records)?;
        Ok(Entry {
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: NO_TIME,
            link: Vec::new(),
            device: (0, 0),
            body: self.at..self.at,
            ..named
        })
    }
}

fn malformed() -> Error {
    Error::corrupt("tar", "not a tar, or damaged")
}

fn cut_off() -> Error {
    Error::corrupt("tar", "cut off")
}

fn sparse() -> Error {
    Error::unsupported("tar", "sparse files")
}

/// The fields of one header block; `None` where it is none.
fn parse_header(block: &mut [u8; BLOCK as usize]) -> Option<Entry> {
    let expected = octal(&block[148..156])?;
    block[148..156].fill(b' ');
    let unsigned: i64 = block.iter().map(|&byte| i64::from(byte)).sum();
    let signed: i64 = block.iter().map(|&byte| i64::from(byte.cast_signed())).sum();
    if expected != unsigned && expected != signed {
        return None;
    }
    let is_ustar = &block[257..263] == b"ustar\0";
    let is_gnu = &block[257..265] == b"ustar  \0";
    let prefix = match is_ustar {
        true if block.ends_with(b"tar\0") => text(&block[345..476]),
        true => text(&block[345..500]),
        false => b"",
    };
    let name = text(&block[..100]);
    let device = match is_ustar || is_gnu {
        true => (number(&block[329..337])?, number(&block[337..345])?),
        false => (0, 0),
    };
    Some(Entry {
        name: if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() },
        mode: number(&block[100..108])?,
        uid: number(&block[108..116])?,
        gid: number(&block[116..124])?,
        size: number(&block[124..136])?,
        mtime: number(&block[136..148])?,
        typeflag: block[156],
        link: text(&block[157..257]).to_vec(),
        device,
        xattrs: BTreeMap::new(),
        body: 0..0,
    })
}

/// A field up to its first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// A number in octal, or in base 256 where the first bit is set (GNU and star).
fn number(field: &[u8]) -> Option<i64> {
    let Some(first) = field.first().filter(|&&first| first & 0x80 != 0) else {
        return octal(field);
    };
    let inverted = if first & 0x40 == 0 { 0 } else { 0xff };
    let mut value: u64 = 0;
    for (index, byte) in field.iter().enumerate() {
        let byte = if index == 0 { (byte ^ inverted) & 0x7f } else { byte ^ inverted };
        if value >> 56 > 0 {
            return None;
        }
        value = value << 8 | u64::from(byte);
    }
    let value = i64::try_from(value).ok()?;
    Some(if inverted == 0 { value } else { !value })
}

/// Octal digits with spaces and NULs around them; nothing is 0.
fn octal(field: &[u8]) -> Option<i64> {
    let is_pad = |byte: &u8| matches!(byte, b' ' | 0);
    let Some(start) = field.iter().position(|byte| !is_pad(byte)) else { return Some(0) };
    let end = field.iter().rposition(|byte| !is_pad(byte))?;
    let digits = text(field.get(start..=end)?);
    digits.iter().try_fold(0i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

/// The records of an extended header; `None` where one is malformed.
fn parse_records(mut rest: &[u8]) -> Option<Records> {
    let mut records = Records::new();
    while !rest.is_empty() {
        let space = rest.iter().position(|&byte| byte == b' ')?;
        let length: usize = std::str::from_utf8(&rest[..space]).ok()?.parse().ok()?;
        let record = rest.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|&byte| byte == b'=')?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        let is_text = matches!(key, b"path" | b"linkpath" | b"uname" | b"gname");
        if key.is_empty() || (if is_text { value } else { key }).contains(&0) {
            return None;
        }
        records.insert(key.to_vec(), value.to_vec());
        rest = &rest[length..];
    }
    Some(records)
}

/// Lets records outrank the main header. An empty value is none.
fn merge(entry: &mut Entry, records: &Records) -> Result<()> {
    for (key, value) in records.iter().filter(|(_, value)| !value.is_empty()) {
        let decimal = || std::str::from_utf8(value).ok()?.parse::<i64>().ok();
        match key.as_slice() {
            b"path" => entry.name.clone_from(value),
            b"linkpath" => entry.link.clone_from(value),
            b"uid" => entry.uid = decimal().ok_or_else(malformed)?,
            b"gid" => entry.gid = decimal().ok_or_else(malformed)?,
            b"size" => entry.size = decimal().ok_or_else(malformed)?,
            b"mtime" => entry.mtime = seconds(value).ok_or_else(malformed)?,
            key if key.starts_with(SPARSE) => return Err(sparse()),
            key => {
                if let Some(name) = key.strip_prefix(XATTR) {
                    entry.xattrs.insert(name.to_vec(), value.clone());
                }
            }
        }
    }
    Ok(())
}

/// Whole seconds of a record's time, rounded down; Go reads nanoseconds and no further.
fn seconds(value: &[u8]) -> Option<i64> {
    let value = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    let secs: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let has_nanos = fraction.bytes().take(9).any(|digit| digit != b'0');
    if whole.starts_with('-') && has_nanos { secs.checked_sub(1) } else { Some(secs) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::header::{Header, Type, encode};

    fn read_all(bytes: Vec<u8>) -> Result<Vec<Entry>> {
        let tar = Recipe::inline(bytes);
        let mut reader = Reader::new(&tar);
        let mut entries = Vec::new();
        while let Some(entry) = reader.next()? {
            entries.push(entry);
        }
        Ok(entries)
    }

    fn tar_of(headers: &[Header]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for header in headers {
            encode(header, &mut bytes).unwrap();
            bytes.resize((bytes.len() as u64 + header.size).next_multiple_of(BLOCK) as usize, b'b');
        }
        bytes.resize(bytes.len() + 1024, 0);
        bytes
    }

    /// A header block of another writer: `magic` and the fields after it as they are.
    fn raw(name: &[u8], size: &[u8], typeflag: u8, magic: &[u8]) -> Vec<u8> {
        let mut block = [0; 512];
        block[..name.len()].copy_from_slice(name);
        block[124..124 + size.len()].copy_from_slice(size);
        block[156] = typeflag;
        block[257..257 + magic.len()].copy_from_slice(magic);
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block.to_vec()
    }

    #[test]
    fn what_the_writer_writes_is_read_back() {
        let long = format!("{}/x", "p".repeat(140));
        let headers = [
            Header { mode: 0o4755, size: 700, mtime: -5, ..Header::new("a".into(), Type::Regular) },
            Header { uid: 3_000_000, ..Header::new(format!("{long}/").into(), Type::Directory) },
            Header {
                link: "\u{e9}".into(),
                xattrs: vec![(b"user.a".to_vec(), vec![0, 255])],
                ..Header::new(b"l\xff".to_vec(), Type::Symlink)
            },
            Header { device: (8, 1), ..Header::new("dev".into(), Type::BlockDevice) },
        ];
        let read = read_all(tar_of(&headers)).unwrap();
        assert_eq!(read.len(), headers.len());
        for (read, header) in read.iter().zip(&headers) {
            assert_eq!(read.name, header.name);
            assert_eq!(read.link, header.link);
            let mode_and_ids = (i64::from(header.mode), i64::from(header.uid));
            assert_eq!((read.mode, read.uid), mode_and_ids);
            assert_eq!(read.mtime, header.mtime);
            let device = (i64::from(header.device.0), i64::from(header.device.1));
            assert_eq!(read.device, device);
            assert_eq!(read.body.end - read.body.start, header.size);
            assert!(read.xattrs.iter().eq(header.xattrs.iter().map(|(name, value)| (name, value))));
        }
    }

    #[test]
    fn headers_of_other_writers_are_understood() {
        let gnu = b"ustar  \0";
        let mut bytes = raw(b"././@LongLink", b"0000000200\0", b'L', gnu);
        let long = "n".repeat(127);
        bytes.extend([long.as_bytes(), &[0; 385]].concat());
        bytes.extend(raw(b"short", b"\x80\0\0\0\0\0\0\0\0\0\0\x05", 0, gnu));
        bytes.extend([b"12345".as_slice(), &[0; 507]].concat());
        bytes.extend(raw(b"old/", b"0", 0, b""));
        let read = read_all(bytes).unwrap();
        assert_eq!((&read[0].name, read[0].size), (&long.into_bytes(), 5));
        assert_eq!((&*read[1].name, read[1].typeflag), (b"old/".as_slice(), b'5'));
    }

    #[test]
    fn a_global_header_is_an_entry_without_attributes() {
        let mut bytes = raw(b"pax_global_header", b"00000000064\0", b'g', b"ustar\x0000");
        let mut record = b"52 comment=".to_vec();
        record.resize(51, b'c');
        record.push(b'\n');
        record.resize(512, 0);
        bytes.extend(record);
        let read = read_all(bytes).unwrap();
        assert_eq!((read[0].typeflag, read[0].mtime, read[0].size), (b'g', NO_TIME, 0));
    }

    #[test]
    fn times_are_rounded_down() {
        for (text, expected) in [
            ("0", Some(0)),
            ("12.9", Some(12)),
            ("-1", Some(-1)),
            ("-1.5", Some(-2)),
            ("-0.5", Some(-1)),
            ("-3.0000000001", Some(-3)),
            ("5.", Some(5)),
            ("1.2.3", None),
            ("x", None),
        ] {
            assert_eq!(seconds(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn nonsense_is_an_error_and_never_a_panic() {
        let good = tar_of(&[
            Header { size: 700, ..Header::new("\u{e9}".into(), Type::Regular) },
            Header::new("d/".into(), Type::Directory),
        ]);
        assert!(read_all(good.clone()).is_ok());
        assert!(read_all(vec![b'x'; 512]).is_err());
        assert!(read_all(good[..1500].to_vec()).is_err());
        assert!(
            read_all(raw(b"big", b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", b'0', b""))
                .is_err()
        );
        assert!(
            read_all(raw(b"neg", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b'0', b""))
                .is_err()
        );
        assert!(read_all(raw(b"s", b"0", b'S', b"ustar  \0")).is_err());
        let huge = raw(b"x", b"77777777777", b'x', b"ustar\x0000");
        assert!(read_all(huge).is_err());
        let mut state = 7u64;
        for _ in 0..3000 {
            let mut bytes = good.clone();
            for _ in 0..3 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = (state >> 33) as usize % bytes.len();
                bytes[at] = (state >> 20) as u8;
            }
            // Any answer will do; a header's checksum catches most.
            let _ = read_all(bytes.clone());
            let mut block: [u8; 512] = bytes[..512].try_into().unwrap();
            let _ = parse_header(&mut block);
            let _ = parse_records(&bytes[512..560]);
        }
    }
}

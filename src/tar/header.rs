//! One entry's header blocks: USTAR where the values fit, otherwise a PAX header before it.
//!
//! The rules that are easy to get wrong:
//! 1. A name that is only too long and that USTAR can split calls for no PAX; but once another
//!    record does, it gets a `path` record and is cut, not split ([`records`]).
//! 2. The split takes the rightmost usable slash ([`split`]).
//! 3. The PAX header's own device numbers are NULs; those of every other header are octal zeros.
//! 4. Where a cut leaves a slash as the last byte of a field, the first slash of that trailing run
//!    becomes a NUL ([`put_text`]).

use super::BLOCK;
use super::pax::{self, Records};
use crate::backing::Time;
use crate::time;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// A file with a body.
    Regular,
    /// Another name of an earlier entry.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

impl Type {
    fn flag(self) -> u8 {
        match self {
            Type::Regular => b'0',
            Type::HardLink => b'1',
            Type::Symlink => b'2',
            Type::CharDevice => b'3',
            Type::BlockDevice => b'4',
            Type::Directory => b'5',
            Type::Fifo => b'6',
        }
    }
}

/// The values of one entry. Times are written in whole seconds.
#[derive(Debug, Clone)]
pub struct Header {
    /// Path in the archive; a directory's ends in `/`.
    pub name: Vec<u8>,
    /// Mode, with whatever bits the flavour sets.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length of the body in bytes.
    pub size: u64,
    /// Seconds since 1970.
    pub mtime: i64,
    /// What it is.
    pub typeflag: Type,
    /// Where a link points to.
    pub link: Vec<u8>,
    /// Owner's name, empty in most flavours.
    pub user: Vec<u8>,
    /// Group's name, empty in most flavours.
    pub group: Vec<u8>,
    /// Major and minor number.
    pub device: (u32, u32),
    /// Extended attributes by name, written as `SCHILY.xattr.NAME`.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Further records, written as they are.
    pub records: Records,
}

impl Header {
    /// A header with this name and type, and nothing else set.
    #[must_use]
    pub fn new(name: Vec<u8>, typeflag: Type) -> Header {
        Header {
            name,
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: 0,
            typeflag,
            link: Vec::new(),
            user: Vec::new(),
            group: Vec::new(),
            device: (0, 0),
            xattrs: Vec::new(),
            records: Records::new(),
        }
    }
}

/// Why an entry can't be written; Go's writer leaves it out as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CannotEncode(pub &'static str);

/// Appends the blocks of one entry's header to `out`, a multiple of 512 bytes.
///
/// # Errors
/// Fails, with nothing written, where a name holds a NUL or a number has no room and no record.
pub fn encode(header: &Header, out: &mut Vec<u8>) -> Result<(), CannotEncode> {
    let records = records(header)?;
    if !fits(header.mode.into(), 8) {
        return Err(CannotEncode("the mode has no room"));
    }
    if !fits(header.device.0.into(), 8) || !fits(header.device.1.into(), 8) {
        return Err(CannotEncode("the device number has no room"));
    }
    if records.is_empty() {
        let (prefix, name) = split(&header.name).unwrap_or((b"", &header.name));
        out.extend_from_slice(&block(header, name, &header.link, Some(prefix)));
        return Ok(());
    }
    encode_records(&header.name, &records, out);
    out.extend_from_slice(&block(header, &ascii(&header.name), &ascii(&header.link), None));
    Ok(())
}

/// The records without which the entry could not be told.
fn records(header: &Header) -> Result<Records, CannotEncode> {
    if [&header.name, &header.link, &header.user, &header.group].iter().any(|text| has_nul(text)) {
        return Err(CannotEncode("a name holds a NUL"));
    }
    let mut records = Records::new();
    let mut need = |is_needed: bool, key: &[u8], value: &[u8]| {
        if is_needed {
            records.insert(key.to_vec(), value.to_vec());
        }
    };
    let decimal = |number: i128| number.to_string().into_bytes();
    need(!header.link.is_ascii() || header.link.len() > 100, b"linkpath", &header.link);
    need(!header.user.is_ascii() || header.user.len() > 32, b"uname", &header.user);
    need(!header.group.is_ascii() || header.group.len() > 32, b"gname", &header.group);
    need(!fits(header.uid.into(), 8), b"uid", &decimal(header.uid.into()));
    need(!fits(header.gid.into(), 8), b"gid", &decimal(header.gid.into()));
    need(!fits(header.size.into(), 12), b"size", &decimal(header.size.into()));
    let mtime = time::format_pax(Time { secs: header.mtime, nanos: 0 });
    need(!fits(header.mtime.into(), 12), b"mtime", &mtime);
    for (name, value) in &header.xattrs {
        if name.is_empty() || name.contains(&b'=') || has_nul(name) {
            return Err(CannotEncode("the name of an xattr has no room in a record"));
        }
        need(true, &[b"SCHILY.xattr.", &name[..]].concat(), value);
    }
    if header.records.keys().any(|key| key.is_empty() || key.contains(&b'=') || has_nul(key)) {
        return Err(CannotEncode("the key of a record has no room in it"));
    }
    records.extend(header.records.clone());
    let is_long = header.name.len() > 100;
    let is_plain = header.name.is_ascii() && (!is_long || split(&header.name).is_some());
    if !is_plain || (is_long && !records.is_empty()) {
        records.insert(b"path".to_vec(), header.name.clone());
    }
    Ok(records)
}

fn has_nul(text: &[u8]) -> bool {
    text.contains(&0)
}

/// Whether `number` fits an octal field of `width` bytes, the last of which is a NUL.
fn fits(number: i128, width: u32) -> bool {
    (0..1 << (3 * (width - 1))).contains(&number)
}

/// Prefix and name of a long name that USTAR can hold in two fields.
fn split(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= 100 || !name.is_ascii() {
        return None;
    }
    let end = if name.len() > 156 {
        156
    } else if name.ends_with(b"/") {
        name.len() - 1
    } else {
        name.len()
    };
    let slash = name[..end].iter().rposition(|&byte| byte == b'/')?;
    let (prefix, rest) = (&name[..slash], &name[slash + 1..]);
    let is_usable = (1..=155).contains(&prefix.len()) && (1..=100).contains(&rest.len());
    is_usable.then_some((prefix, rest))
}

fn ascii(text: &[u8]) -> Vec<u8> {
    text.iter().copied().filter(|byte| (1..128).contains(byte)).collect()
}

/// Appends the extended header of the entry `name`: its own header block, then the records.
fn encode_records(name: &[u8], records: &Records, out: &mut Vec<u8>) {
    let mut body = Vec::new();
    for (key, value) in records {
        pax::write_record(&mut body, key, value);
    }
    let mut block = [0; BLOCK as usize];
    put_text(&mut block[..100], &records_name(name));
    for (at, width) in [(100, 8), (108, 8), (116, 8), (136, 12)] {
        put_octal(&mut block[at..at + width], 0);
    }
    put_octal(&mut block[124..136], body.len() as i128);
    block[156] = b'x';
    seal(&mut block);
    out.extend_from_slice(&block);
    body.resize(body.len().next_multiple_of(BLOCK as usize), 0);
    out.extend_from_slice(&body);
}

/// `dir/PaxHeaders.0/base`, cut to the field.
fn records_name(name: &[u8]) -> Vec<u8> {
    let slash = name.iter().rposition(|&byte| byte == b'/').map_or(0, |at| at + 1);
    let (directory, base) = name.split_at(slash);
    let joined = clean(&[directory, b"/PaxHeaders.0/", base].concat(), name.starts_with(b"/"));
    let mut joined = ascii(&joined);
    joined.truncate(100);
    while joined.ends_with(b"/") {
        joined.pop();
    }
    joined
}

/// A path as Go's `path.Clean` leaves it: no empty components, no `.`, and `..` resolved.
fn clean(path: &[u8], is_absolute: bool) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if parts.last().is_some_and(|&last| last != b"..") => {
                parts.pop();
            }
            b".." if is_absolute => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join(&b'/');
    if is_absolute { [b"/", &joined[..]].concat() } else { joined }
}

/// The main header; `prefix` is `None` beside an extended header, where fields that have no room
/// are cut or hold 0.
fn block(header: &Header, name: &[u8], link: &[u8], prefix: Option<&[u8]>) -> [u8; BLOCK as usize] {
    let mut block = [0; BLOCK as usize];
    put_text(&mut block[..100], name);
    put_octal(&mut block[100..108], header.mode.into());
    put_octal(&mut block[108..116], header.uid.into());
    put_octal(&mut block[116..124], header.gid.into());
    put_octal(&mut block[124..136], header.size.into());
    put_octal(&mut block[136..148], header.mtime.into());
    block[156] = header.typeflag.flag();
    put_text(&mut block[157..257], link);
    put_text(&mut block[265..297], &ascii(&header.user));
    put_text(&mut block[297..329], &ascii(&header.group));
    put_octal(&mut block[329..337], header.device.0.into());
    put_octal(&mut block[337..345], header.device.1.into());
    put_text(&mut block[345..500], prefix.unwrap_or_default());
    seal(&mut block);
    block
}

fn put_text(field: &mut [u8], text: &[u8]) {
    let count = text.len().min(field.len());
    field[..count].copy_from_slice(&text[..count]);
    if text.len() > field.len() && field.ends_with(b"/") {
        let last = field.len() - 1;
        let run = field[..last].iter().rposition(|&byte| byte != b'/').map_or(0, |at| at + 1);
        field[run] = 0;
    }
}

/// Octal digits padded with zeros, and a NUL; 0 where `number` has no room.
fn put_octal(field: &mut [u8], number: i128) {
    let width = field.len();
    let number = if fits(number, width as u32) { number } else { 0 };
    let mut rest = number;
    for digit in field[..width - 1].iter_mut().rev() {
        *digit = b'0' + (rest & 7) as u8;
        rest >>= 3;
    }
}

/// Magic, version and checksum.
fn seal(block: &mut [u8; BLOCK as usize]) {
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> Header {
        Header { mode: 0o644, ..Header::new(name.into(), Type::Regular) }
    }

    fn blocks(header: &Header) -> Vec<u8> {
        let mut out = Vec::new();
        encode(header, &mut out).unwrap();
        out
    }

    #[test]
    fn a_name_that_can_be_split_needs_no_extended_header() {
        let name = format!("{}/{}", "L".repeat(90), "M".repeat(90));
        let block = blocks(&file(&name));
        assert_eq!(block.len(), 512);
        assert_eq!(block[345..345 + 90], [b'L'; 90]);
        let with_record = blocks(&Header { uid: 3_000_000, ..file(&name) });
        assert_eq!(with_record.len(), 1536);
        assert!(with_record[512..].starts_with(b"15 gid").eq(&false));
        let text = String::from_utf8_lossy(&with_record[512..1024]);
        assert!(text.contains(&format!("path={name}\n15 uid=3000000\n")), "{text}");
        assert_eq!(with_record[1024..1124], name.as_bytes()[..100]);
        assert_eq!(with_record[1024 + 345], 0, "cut, not split");
    }

    #[test]
    fn device_numbers_of_an_extended_header_are_nuls() {
        let blocks = blocks(&file("u\u{e9}.txt"));
        assert_eq!(&blocks[..20], b"PaxHeaders.0/u.txt\0\0");
        assert_eq!(blocks[329..345], [0; 16]);
        assert_eq!(&blocks[1024..1030], b"u.txt\0");
        assert_eq!(&blocks[1024 + 329..1024 + 345], b"0000000\x000000000\0");
    }

    #[test]
    fn a_nul_in_a_name_is_refused() {
        let mut out = Vec::new();
        assert!(encode(&file("a\0b"), &mut out).is_err());
        assert!(out.is_empty());
    }

    #[test]
    fn the_tar_crate_reads_what_is_written() {
        let names = ["a", "dir/b", "\u{e9}", &"n".repeat(130), &format!("{}/x", "p/".repeat(70))];
        for name in names {
            let header = Header { mtime: -5, size: 3, uid: 5_000_000, ..file(name) };
            let mut bytes = blocks(&header);
            bytes.extend(b"abc");
            bytes.resize(bytes.len().next_multiple_of(512) + 1024, 0);
            let mut archive = tar::Archive::new(&bytes[..]);
            let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
            let read = entry.path_bytes().into_owned();
            assert_eq!(clean(&read, false), clean(name.as_bytes(), false));
            let records: Vec<_> = entry
                .pax_extensions()
                .unwrap()
                .unwrap()
                .map(|record| record.unwrap().value().unwrap().to_owned())
                .collect();
            assert!(records.contains(&"-5".to_owned()) && records.contains(&"5000000".to_owned()));
            assert_eq!(entry.size(), 3);
        }
    }
}

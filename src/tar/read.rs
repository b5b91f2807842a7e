//! Entries of a tar, whoever wrote it: V7, USTAR, PAX and GNU, sparse files of every kind.
//!
//! Where readers differ, this one agrees with Go's `archive/tar`, which all engines unpack with:
//! 1. Records of a local header go over the header's fields, GNU long names over the records; an
//!    empty value leaves the field. The size of an entry may come from a record ([`Entries::next`]).
//! 2. Links, directories, devices and pipes have no body, whatever their size says.
//! 3. A global header says nothing. One that names, sizes or maps entries is refused: readers that
//!    heed it would find other entries.
//! 4. An archive ends at two zero blocks, or where its bytes end between two entries.

use std::collections::BTreeMap;
use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::BLOCK;
use super::header::Type;
use super::pax::{self, Records};
use crate::backing::{Bytes, Extent, Time};
use crate::error::{Error, Result};
use crate::time::parse_pax;

mod sparse;

/// Longest extended header or map of holes, in bytes (Go's `maxSpecialFileSize`).
const SPECIAL_MAX: u64 = 1 << 20;

/// How much is read at once, in bytes.
const WINDOW: usize = 32 << 10;

/// Fields of a header block (POSIX pax, "ustar Interchange Format").
const NAME: Range<usize> = 0..100;
const MODE: Range<usize> = 100..108;
const UID: Range<usize> = 108..116;
const GID: Range<usize> = 116..124;
const SIZE: Range<usize> = 124..136;
const MTIME: Range<usize> = 136..148;
const CHECKSUM: Range<usize> = 148..156;
const TYPE: usize = 156;
const LINK: Range<usize> = 157..257;
const MAGIC: Range<usize> = 257..265;
const MAJOR: Range<usize> = 329..337;
const MINOR: Range<usize> = 337..345;
const PREFIX: Range<usize> = 345..500;
/// In place of a part of the prefix, GNU keeps two times.
const GNU_TIMES: [Range<usize>; 2] = [345..357, 357..369];
/// The prefix of star, and what stands at the end of its headers.
const STAR_PREFIX: Range<usize> = 345..476;
const STAR_TRAILER: Range<usize> = 508..512;

/// One header block.
type Block = [u8; BLOCK as usize];

/// An entry of a tar.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its path, as it stands there.
    pub name: Vec<u8>,
    /// What it is; `None` for a kind that no engine unpacks.
    pub kind: Option<Type>,
    /// Where a link points to.
    pub link: Vec<u8>,
    /// Mode, with whatever bits are there.
    pub mode: u32,
    /// Owner; `None` where it is no user ID.
    pub uid: Option<u32>,
    /// Group; `None` where it is no group ID.
    pub gid: Option<u32>,
    /// Last change.
    pub mtime: Time,
    /// Size of the file, with its holes.
    pub size: u64,
    /// What of the file is stored, and where in the tar; in order and apart from each other.
    pub extents: Vec<Extent>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The records of its extended header.
    pub records: Records,
}

/// Reads the entries of a tar in order.
#[derive(Debug)]
pub struct Entries<'a> {
    bytes: &'a dyn Bytes,
    /// Where the next header is.
    at: u64,
    window: Vec<u8>,
    /// Where `window` starts.
    start: u64,
}

/// Why a tar is none.
type Damage = &'static str;

/// What stands before an entry and goes over its header.
#[derive(Debug, Default)]
struct Extension {
    records: Records,
    /// `GNU.sparse.offset` and `.numbytes` of the oldest sparse format, as they come.
    map: Vec<u64>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl<'a> Entries<'a> {
    /// The entries of the tar that `bytes` is.
    #[must_use]
    pub fn new(bytes: &'a dyn Bytes) -> Entries<'a> {
        Entries { bytes, at: 0, window: Vec::new(), start: 0 }
    }

    /// The next entry; `None` at the end.
    ///
    /// # Errors
    /// Fails where the bytes are no tar, or can't be read.
    #[expect(clippy::should_implement_trait, reason = "an iterator would go on after an error")]
    pub fn next(&mut self) -> Result<Option<Entry>> {
        let mut extension = Extension::default();
        loop {
            let header = self.at;
            let Some(block) = self.header()? else { return Ok(None) };
            let damaged = |why: Damage| self.damaged(header, why);
            let size = number(&block[SIZE]).map_err(damaged)?;
            let size = u64::try_from(size).map_err(|_| damaged("its size is negative"))?;
            match block[TYPE] {
                flag @ (b'x' | b'g' | b'L' | b'K') => {
                    let body = self.special(size)?;
                    extension.add(flag, &body).map_err(|why| self.damaged(header, why))?;
                }
                _ => return self.entry(&block, size, extension).map(Some),
            }
        }
    }

    /// The entry whose header is `block`; what follows it is next.
    fn entry(&mut self, block: &Block, size: u64, extension: Extension) -> Result<Entry> {
        let header = self.at - BLOCK;
        let mut entry = plain(block, size).map_err(|why| self.damaged(header, why))?;
        let stored = extension.apply(&mut entry).map_err(|why| self.damaged(header, why))?;
        // The oldest way to say that it is a directory.
        if block[TYPE] == 0 && entry.name.ends_with(b"/") {
            entry.kind = Some(Type::Directory);
        }
        let has_body = matches!(entry.kind, Some(Type::Regular) | None);
        let stored = if has_body { stored } else { 0 };
        let body = self.at;
        let end = body.checked_add(stored).filter(|&end| end <= self.bytes.len());
        let mut end = end.ok_or_else(|| self.damaged(header, "cut short"))?;
        if entry.kind != Some(Type::Regular) {
            entry.size = 0;
        } else if block[TYPE] == b'S' || extension.is_sparse() {
            end = sparse::expand(self, &mut entry, block, &extension, body..end)?;
        } else {
            entry.size = stored;
            entry.extents = vec![Extent { offset: 0, len: stored, from: body }];
        }
        entry.records = extension.records;
        // The padding of the last entry may be missing.
        self.at = end.next_multiple_of(BLOCK);
        Ok(entry)
    }

    /// The next header block; `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<Block>> {
        if self.at >= self.bytes.len() {
            return Ok(None);
        }
        let mut block = self.block()?;
        if is_zero(&block) {
            if self.at >= self.bytes.len() {
                return Ok(None);
            }
            block = self.block()?;
            return match is_zero(&block) {
                true => Ok(None),
                false => Err(self.damaged(self.at - BLOCK, "a header after a zero block")),
            };
        }
        match has_checksum(&block) {
            true => Ok(Some(block)),
            false => Err(self.damaged(self.at - BLOCK, "no header: its checksum is wrong")),
        }
    }

    fn block(&mut self) -> Result<Block> {
        let mut block = [0; BLOCK as usize];
        self.fill(self.at, &mut block)?;
        self.at += BLOCK;
        Ok(block)
    }

    /// The body of an extended header.
    fn special(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > SPECIAL_MAX {
            return Err(self.damaged(self.at, "an extended header of more than 1 MiB"));
        }
        let mut body = vec![0; size as usize];
        self.fill(self.at, &mut body)?;
        self.at += size.next_multiple_of(BLOCK);
        Ok(body)
    }

    /// Fills `buf` from byte `at` on.
    fn fill(&mut self, mut at: u64, mut buf: &mut [u8]) -> Result<()> {
        while !buf.is_empty() {
            let end = self.start + self.window.len() as u64;
            if !(self.start..end).contains(&at) {
                self.window.resize(WINDOW, 0);
                let read = self.bytes.read_at(at, &mut self.window);
                self.window.truncate(*read.as_ref().unwrap_or(&0));
                self.start = at;
                if read? == 0 {
                    return Err(self.damaged(at, "cut short"));
                }
            }
            let from = (at - self.start) as usize;
            let count = buf.len().min(self.window.len() - from);
            let (done, rest) = buf.split_at_mut(count);
            done.copy_from_slice(&self.window[from..from + count]);
            (buf, at) = (rest, at + count as u64);
        }
        Ok(())
    }

    fn damaged(&self, at: u64, why: Damage) -> Error {
        Error::corrupt(self.bytes.path(), format!("as a tar, at byte {at}: {why}"))
    }
}

impl Extension {
    /// Takes in the body of an extended header.
    fn add(&mut self, flag: u8, body: &[u8]) -> Result<(), Damage> {
        match flag {
            b'L' => self.long_name = Some(text(body).to_vec()),
            b'K' => self.long_link = Some(text(body).to_vec()),
            b'g' => {
                let steers = |key: &[u8]| {
                    matches!(key, b"path" | b"linkpath" | b"size")
                        || key.starts_with(b"GNU.sparse.")
                };
                let mut is_refused = false;
                pax::read_records(body, |key, _| is_refused |= steers(key))?;
                if is_refused {
                    return Err("a global header that names or sizes entries");
                }
            }
            _ => {
                (self.records, self.map) = (Records::new(), Vec::new());
                let mut is_damaged = false;
                pax::read_records(body, |key, value| {
                    if matches!(key, b"GNU.sparse.offset" | b"GNU.sparse.numbytes") {
                        let is_turn = self.map.len() % 2 == usize::from(key.ends_with(b"numbytes"));
                        match decimal(value).filter(|_| is_turn) {
                            Some(number) => self.map.push(number),
                            None => is_damaged = true,
                        }
                    }
                    self.records.insert(key.to_vec(), value.to_vec());
                })?;
                if is_damaged {
                    return Err("a sparse map that makes no sense");
                }
            }
        }
        Ok(())
    }

    fn value(&self, key: &str) -> Option<&[u8]> {
        self.records.get(key.as_bytes()).map(Vec::as_slice).filter(|value| !value.is_empty())
    }

    fn number(&self, key: &str) -> Result<Option<u64>, Damage> {
        let number = self.value(key).map(|value| decimal(value).ok_or("a record is no number"));
        number.transpose()
    }

    /// Whether PAX records tell of holes.
    fn is_sparse(&self) -> bool {
        ["GNU.sparse.major", "GNU.sparse.map", "GNU.sparse.offset", "GNU.sparse.numblocks"]
            .iter()
            .any(|key| self.value(key).is_some())
    }

    /// Puts the values over those of the header; how many bytes the body has.
    fn apply(&self, entry: &mut Entry) -> Result<u64, Damage> {
        let owner = |value: &[u8]| {
            let number = std::str::from_utf8(value).ok().and_then(|text| text.parse::<i64>().ok());
            number.ok_or("a record is no number").map(|number| u32::try_from(number).ok())
        };
        if let Some(path) = self.value("path") {
            entry.name = path.to_vec();
        }
        if let Some(link) = self.value("linkpath") {
            entry.link = link.to_vec();
        }
        if let Some(uid) = self.value("uid") {
            entry.uid = owner(uid)?;
        }
        if let Some(gid) = self.value("gid") {
            entry.gid = owner(gid)?;
        }
        if let Some(mtime) = self.value("mtime") {
            entry.mtime = parse_pax(mtime).ok_or("a time that makes no sense")?;
        }
        if let Some(name) = &self.long_name {
            entry.name.clone_from(name);
        }
        if let Some(link) = &self.long_link {
            entry.link.clone_from(link);
        }
        entry.xattrs = self.xattrs();
        Ok(self.number("size")?.unwrap_or(entry.size))
    }

    /// Those that star, GNU tar and Go write; beside them what only bsdtar's own records tell.
    fn xattrs(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut xattrs: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for (key, value) in &self.records {
            if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.")
                && let Ok(value) = STANDARD_NO_PAD.decode(without_padding(value))
            {
                xattrs.insert(unescaped(name), value);
            }
        }
        for (key, value) in &self.records {
            if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                xattrs.insert(name.to_vec(), value.clone());
            }
        }
        xattrs.into_iter().filter(|(name, _)| !name.is_empty()).collect()
    }
}

/// What the header block alone says.
fn plain(block: &Block, size: u64) -> Result<Entry, Damage> {
    let flag = block[TYPE];
    let kind = match flag {
        0 | b'0' | b'S' => Some(Type::Regular),
        b'1' => Some(Type::HardLink),
        b'2' => Some(Type::Symlink),
        b'3' => Some(Type::CharDevice),
        b'4' => Some(Type::BlockDevice),
        b'5' => Some(Type::Directory),
        b'6' => Some(Type::Fifo),
        _ => None,
    };
    let owner = |field: Range<usize>| number(&block[field]).map(|id| u32::try_from(id).ok());
    let is_device = matches!(flag, b'3' | b'4');
    let device = |field: Range<usize>| match is_device {
        true => u32::try_from(number(&block[field])?).map_err(|_| "a device number is too large"),
        false => Ok(0),
    };
    let mode = number(&block[MODE])?;
    Ok(Entry {
        name: name(block),
        kind,
        link: text(&block[LINK]).to_vec(),
        mode: (mode & 0o7_777_777) as u32,
        uid: owner(UID)?,
        gid: owner(GID)?,
        mtime: Time { secs: number(&block[MTIME])?, nanos: 0 },
        size,
        extents: Vec::new(),
        device: (device(MAJOR)?, device(MINOR)?),
        xattrs: Vec::new(),
        records: Records::new(),
    })
}

/// The name with its prefix, where the block has one.
fn name(block: &Block) -> Vec<u8> {
    let name = text(&block[NAME]);
    let prefix: &[u8] = match &block[MAGIC] {
        b"ustar\x0000" if block[STAR_TRAILER] == *b"tar\0" => text(&block[STAR_PREFIX]),
        b"ustar  \0" => {
            // Go up to 1.8 wrote a prefix into GNU headers; two octal times are none.
            let is_prefix = GNU_TIMES.iter().any(|field| number(&block[field.clone()]).is_err());
            let prefix = text(&block[PREFIX]);
            if is_prefix && prefix.is_ascii() { prefix } else { b"" }
        }
        magic if magic.starts_with(b"ustar\0") => text(&block[PREFIX]),
        _ => b"",
    };
    match prefix.is_empty() {
        true => name.to_vec(),
        false => [prefix, b"/", name].concat(),
    }
}

fn is_zero(block: &Block) -> bool {
    block.iter().all(|&byte| byte == 0)
}

/// The sum of all bytes, the checksum's own counting as spaces; some writers took them as signed.
fn has_checksum(block: &Block) -> bool {
    let Ok(expected) = number(&block[CHECKSUM]) else { return false };
    let (mut unsigned, mut signed) = (0, 0);
    for (at, &byte) in block.iter().enumerate() {
        let byte = if CHECKSUM.contains(&at) { b' ' } else { byte };
        unsigned += i64::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    expected == unsigned || expected == signed
}

/// Up to the first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// A number of a header: octal digits, or base 256 where the first bit is set (GNU, star).
fn number(field: &[u8]) -> Result<i64, Damage> {
    if let Some(&first) = field.first().filter(|&&first| first & 0x80 != 0) {
        // Two's complement without its first bit: the second is the sign.
        let is_negative = first & 0x40 != 0;
        let mut number = i128::from(first & 0x7f) - if is_negative { 0x80 } else { 0 };
        for &byte in &field[1..] {
            number = number << 8 | i128::from(byte);
        }
        return i64::try_from(number).map_err(|_| "a number is too large");
    }
    let is_padding = |byte: &u8| matches!(byte, b' ' | 0);
    let digits: Vec<u8> = field.iter().copied().skip_while(is_padding).collect();
    let digits = text(&digits).trim_ascii_end();
    digits.iter().try_fold(0i64, |number, digit| match digit {
        b'0'..=b'7' => {
            let next =
                number.checked_mul(8).and_then(|next| next.checked_add((digit - b'0').into()));
            next.ok_or("a number is too large")
        }
        _ => Err("a number is not octal"),
    })
}

fn decimal(text: &[u8]) -> Option<u64> {
    let is_plain = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| is_plain)?.parse().ok()
}

/// Base 64 without the `=` that may end it.
fn without_padding(mut text: &[u8]) -> &[u8] {
    while let Some(shorter) = text.strip_suffix(b"=") {
        text = shorter;
    }
    text
}

/// `%3D` as `=`.
fn unescaped(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&byte, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let escaped = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(|_| byte == b'%');
        out.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    out
}

#[cfg(test)]
mod tests;

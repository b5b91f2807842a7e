//! The outline of a layer's tar: all of it but what its files hold, so that any part is found
//! without reading what comes before.
//!
//! A tar-split record says the same, but only to who reads all of it. The file is blocks of some
//! 100 KiB, each compressed for itself, a table of them, and an end of fixed size. The end has a
//! digest of itself and the table; the table has a checksum of each block. So nothing of the file is
//! believed that was not checked, and its length alone takes one read.

use crc_fast::{CrcAlgorithm, checksum};

use super::split::Entry;
use crate::backing::Bytes;
use crate::digest::Digest;

/// What the end starts with; another layout gets another number.
const MAGIC: &[u8; 16] = b"stratafs tar   1";

/// Length of the end, in bytes: magic, key, length of the tar, number of blocks, digest.
const END: usize = 16 + 32 + 8 + 8 + 32;

/// Length of a row of the table, in bytes.
const ROW: usize = 32;

/// How much is read at first, in bytes: end and table of a tar of some 40,000 files.
const TAIL: u64 = 8 << 10;

/// A block is closed when it holds so much, in bytes: the sooner, the less is read for one header,
/// and the worse they compress.
const FULL: usize = 128 << 10;

/// Largest block that is read, in bytes uncompressed: two of the longest lines of a record.
const BLOCK_MAX: usize = 16 << 20;

/// Most blocks that are read: what a record may hold of the smallest.
const BLOCKS_MAX: usize = 1 << 16;

/// How hard blocks are compressed: higher ones save a tenth, and take twice as long.
const LEVEL: i32 = 1;

/// Longest tar, in bytes: what a file offset can say (`off_t`).
const MAX_LEN: u64 = i64::MAX.cast_unsigned();

/// A part of a tar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'a> {
    /// Bytes of the tar, as they were: headers, padding, trailer.
    Raw(&'a [u8]),
    /// A file that stood there.
    File {
        /// Path as the tar has it.
        name: &'a [u8],
        /// Length in bytes.
        size: u64,
        /// CRC-64/GO-ISO of the body; `None` where it is empty.
        crc: Option<u64>,
    },
}

/// Parts that follow each other, until they make a block.
#[derive(Debug, Default)]
pub struct Draft {
    /// Of each part its kind in 1 byte, and its length in 8; of a file, that of its name in 4.
    kinds: Vec<u8>,
    names: Vec<u8>,
    sums: Vec<u8>,
    raw: Vec<u8>,
    /// How much of the tar it covers, in bytes; `None` where that is more than there can be.
    len: Option<u64>,
}

const RAW: u8 = 0;
const EMPTY: u8 = 1;
const FILE: u8 = 2;

impl Draft {
    /// No parts yet.
    #[must_use]
    pub fn new() -> Draft {
        Draft { len: Some(0), ..Draft::default() }
    }

    /// Adds what comes next.
    pub fn push(&mut self, entry: &Entry) {
        let (kind, len) = match entry {
            Entry::Segment(bytes) => (RAW, bytes.len() as u64),
            Entry::File { crc: None, .. } => (EMPTY, 0),
            Entry::File { crc: Some(_), size, .. } => (FILE, *size),
        };
        self.len = self.len.and_then(|so_far| so_far.checked_add(len));
        self.kinds.push(kind);
        self.kinds.extend(len.to_le_bytes());
        match entry {
            Entry::Segment(bytes) => self.raw.extend(bytes),
            Entry::File { name, crc, .. } => {
                self.kinds.extend((name.len() as u32).to_le_bytes());
                self.names.extend(name);
                self.sums.extend(crc.map(u64::to_le_bytes).into_iter().flatten());
            }
        }
    }

    /// Whether it should be closed.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.kinds.len() + self.names.len() + self.sums.len() + self.raw.len() >= FULL
    }

    /// True where nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// All of it in one run of bytes.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FULL + 12);
        for part in [&self.kinds, &self.names, &self.sums] {
            bytes.extend((part.len() as u32).to_le_bytes());
        }
        for part in [&self.kinds, &self.names, &self.sums, &self.raw] {
            bytes.extend(part);
        }
        bytes
    }
}

/// Makes the bytes of a file, front to back.
#[derive(Debug, Default)]
pub struct Writer {
    rows: Vec<Row>,
}

impl Writer {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Writer {
        Writer::default()
    }

    /// The bytes that a block adds to the file; `None` where the tar is longer than a file can be, or
    /// the block can't be compressed.
    pub fn block(&mut self, draft: &Draft) -> Option<Vec<u8>> {
        let bytes = draft.bytes();
        let packed = zstd::bulk::compress(&bytes, LEVEL).ok()?;
        let (start, from) = self.rows.last().map_or((0, 0), |row| (row.end, row.until));
        self.rows.push(Row {
            end: start.checked_add(draft.len?).filter(|&end| end <= MAX_LEN)?,
            until: from + packed.len() as u64,
            sum: sum(&packed),
            size: u32::try_from(bytes.len()).ok()?,
        });
        Some(packed)
    }

    /// The last bytes of the file, which goes by `key`.
    #[must_use]
    pub fn end(&self, key: Digest) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.rows.len() * ROW + END);
        for row in &self.rows {
            out.extend(row.end.to_le_bytes());
            out.extend(row.until.to_le_bytes());
            out.extend(row.sum.to_le_bytes());
            out.extend(u64::from(row.size).to_le_bytes());
        }
        out.extend(MAGIC);
        out.extend(key.bytes());
        out.extend(self.rows.last().map_or(0, |row| row.end).to_le_bytes());
        out.extend((self.rows.len() as u64).to_le_bytes());
        let digest = Digest::of(&out);
        out.extend(digest.bytes());
        out
    }

    /// The table of what was written.
    #[must_use]
    pub fn finish(self) -> Outline {
        Outline { rows: self.rows.into() }
    }
}

/// The table of an outline.
#[derive(Debug, PartialEq, Eq)]
pub struct Outline {
    /// Of each block, in order.
    rows: Box<[Row]>,
}

/// What the table says of one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    /// Where what it covers ends in the tar; never smaller than that of the row before.
    end: u64,
    /// Where it ends in the file; greater than that of the row before.
    until: u64,
    /// Checksum of its bytes in the file.
    sum: u64,
    /// How many bytes it holds, uncompressed.
    size: u32,
}

fn sum(block: &[u8]) -> u64 {
    checksum(CrcAlgorithm::Crc64Nvme, block)
}

impl Outline {
    /// That of the file `file`; `None` where it is not one that goes by `key`, or is damaged.
    #[must_use]
    pub fn read(file: &dyn Bytes, key: Digest) -> Option<Outline> {
        let len = file.len();
        let mut tail = vec![0; len.min(TAIL) as usize];
        read_exact(file, len - tail.len() as u64, &mut tail)?;
        let end = tail.get(tail.len().checked_sub(END)?..)?;
        let mut fields = end.strip_prefix(MAGIC)?.strip_prefix(&key.bytes()[..])?;
        let (total, count) = (number(&mut fields)?, number(&mut fields)? as usize);
        if count > BLOCKS_MAX {
            return None;
        }
        let whole = count * ROW + END;
        let from = len.checked_sub(whole as u64)?;
        if whole > tail.len() {
            tail = vec![0; whole];
            read_exact(file, from, &mut tail)?;
        }
        let tail = &tail[tail.len() - whole..];
        let (body, digest) = tail.split_at(whole - 32);
        if Digest::of(body).bytes()[..] != *digest {
            return None;
        }
        let rows = body[..count * ROW].chunks_exact(ROW).map(Row::parse).collect::<Option<_>>()?;
        let outline = Outline { rows };
        (outline.is_sound(from) && outline.len() == total).then_some(outline)
    }

    /// Whether its blocks follow each other up to `end` of the file.
    fn is_sound(&self, end: u64) -> bool {
        let is_after = |pair: &[Row]| pair[0].end <= pair[1].end && pair[0].until < pair[1].until;
        let is_small = |row: &Row| row.size as usize <= BLOCK_MAX;
        self.rows.windows(2).all(is_after)
            && self.rows.iter().all(is_small)
            && self.len() <= MAX_LEN
            && self.rows.last().map_or(0, |row| row.until) == end
    }

    /// Length of the tar, in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.rows.last().map_or(0, |row| row.end)
    }

    /// True for the tar of no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where in the tar each block ends.
    pub fn ends(&self) -> impl Iterator<Item = u64> {
        self.rows.iter().map(|row| row.end)
    }

    /// How many blocks there are.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.rows.len()
    }

    /// Memory that it takes, in bytes, about.
    #[must_use]
    pub fn weight(&self) -> usize {
        size_of_val(&*self.rows)
    }

    /// The block `index` of `file`; `None` where it can't be read, or is damaged.
    #[must_use]
    pub fn block(&self, file: &dyn Bytes, index: usize) -> Option<Block> {
        let row = self.rows.get(index)?;
        let before = index.checked_sub(1).and_then(|before| self.rows.get(before));
        let (start, from) = before.map_or((0, 0), |row| (row.end, row.until));
        let mut packed = vec![0; usize::try_from(row.until - from).ok()?];
        read_exact(file, from, &mut packed)?;
        if sum(&packed) != row.sum {
            return None;
        }
        let bytes = zstd::bulk::decompress(&packed, row.size as usize).ok()?;
        let block = Block { bytes };
        let covered = |part: &Part<'_>| match part {
            Part::Raw(bytes) => bytes.len() as u64,
            Part::File { size, .. } => *size,
        };
        let covers = block.parts()?.iter().map(covered).try_fold(0u64, u64::checked_add);
        (covers == Some(row.end - start)).then_some(block)
    }
}

impl Row {
    fn parse(mut bytes: &[u8]) -> Option<Row> {
        let bytes = &mut bytes;
        Some(Row {
            end: number(bytes)?,
            until: number(bytes)?,
            sum: number(bytes)?,
            size: number(bytes)?.try_into().ok()?,
        })
    }
}

/// A block that was checked.
#[derive(Debug)]
pub struct Block {
    bytes: Vec<u8>,
}

impl Block {
    /// Its parts, in order; `None` where they make no sense.
    #[must_use]
    pub fn parts(&self) -> Option<Vec<Part<'_>>> {
        let mut left = &self.bytes[..];
        let mut lengths = [0; 3];
        for length in &mut lengths {
            *length = short(&mut left)?;
        }
        let mut kinds = take(&mut left, lengths[0])?;
        let mut names = take(&mut left, lengths[1])?;
        let mut sums = take(&mut left, lengths[2])?;
        let mut parts = Vec::new();
        while !kinds.is_empty() {
            let kind = take(&mut kinds, 1)?;
            let len = number(&mut kinds)?;
            parts.push(match kind {
                [RAW] => Part::Raw(take(&mut left, usize::try_from(len).ok()?)?),
                [EMPTY | FILE] => {
                    let name = short(&mut kinds)?;
                    let name = take(&mut names, name)?;
                    let crc = if kind == [FILE] { Some(number(&mut sums)?) } else { None };
                    Part::File { name, size: len, crc }
                }
                _ => return None,
            });
        }
        (left.is_empty() && names.is_empty() && sums.is_empty()).then_some(parts)
    }
}

fn read_exact(file: &dyn Bytes, offset: u64, buf: &mut [u8]) -> Option<()> {
    (file.read_at(offset, buf).ok()? == buf.len()).then_some(())
}

fn take<'a>(left: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = left.split_at_checked(count)?;
    *left = rest;
    Some(taken)
}

fn number(left: &mut &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(take(left, 8)?.try_into().ok()?))
}

fn short(left: &mut &[u8]) -> Option<usize> {
    Some(u32::from_le_bytes(take(left, 4)?.try_into().ok()?) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backing::Held;

    const KEY: &[u8] = b"key";

    fn entries(count: u64) -> Vec<Entry> {
        let mut entries = vec![Entry::Segment(Vec::new())];
        for at in 0..count {
            let name = format!("usr/share/doc/package-{}/file-{at}", at / 7).into_bytes();
            let mut header = name.clone();
            header.resize(512 + (at as usize * 37) % 512, 0);
            entries.push(Entry::Segment(header));
            let (size, crc) = if at % 5 == 0 { (0, None) } else { (at, Some(at << 40 | 7)) };
            entries.push(Entry::File { name, size, crc });
        }
        entries.push(Entry::Segment(vec![0; 1024]));
        entries
    }

    fn write(entries: &[Entry]) -> Vec<u8> {
        let (mut writer, mut file) = (Writer::new(), Vec::new());
        let mut draft = Draft::new();
        for entry in entries {
            draft.push(entry);
            if draft.is_full() {
                file.extend(writer.block(&draft).unwrap());
                draft = Draft::new();
            }
        }
        if !draft.is_empty() {
            file.extend(writer.block(&draft).unwrap());
        }
        file.extend(writer.end(Digest::of(KEY)));
        file
    }

    /// All that a file says; `None` where any of it is refused.
    fn read(file: Vec<u8>) -> Option<(u64, Vec<Entry>)> {
        let file = Held::new("outline", file);
        let outline = Outline::read(&file, Digest::of(KEY))?;
        let mut all = Vec::new();
        for index in 0..outline.blocks() {
            let block = outline.block(&file, index)?;
            all.extend(block.parts()?.iter().map(|part| match *part {
                Part::Raw(bytes) => Entry::Segment(bytes.to_vec()),
                Part::File { name, size, crc } => Entry::File { name: name.to_vec(), size, crc },
            }));
        }
        Some((outline.len(), all))
    }

    #[test]
    fn what_was_written_is_read() {
        for count in [0, 1, 5000] {
            let entries = entries(count);
            let len = |entry: &Entry| match entry {
                Entry::Segment(bytes) => bytes.len() as u64,
                Entry::File { size, .. } => *size,
            };
            let total = entries.iter().map(len).sum();
            assert_eq!(read(write(&entries)), Some((total, entries)));
        }
        assert_eq!(read(write(&[])), Some((0, Vec::new())));
    }

    #[test]
    fn a_changed_byte_is_seen_wherever_it_is() {
        let good = write(&entries(300));
        for at in (0..good.len()).step_by(3).chain(good.len() - END..good.len()) {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            assert_eq!(read(bad), None, "byte {at}");
        }
        for len in (0..good.len()).step_by(7) {
            assert_eq!(read(good[..len].to_vec()), None, "cut at {len}");
        }
        let longer = [&good[..], b"x"].concat();
        assert_eq!(read(longer), None);
    }

    #[test]
    fn another_key_or_version_is_another_file() {
        let good = Held::new("outline", write(&entries(10)));
        assert!(Outline::read(&good, Digest::of(KEY)).is_some());
        assert_eq!(Outline::read(&good, Digest::of(b"other")), None);
        let mut other = write(&entries(10));
        let at = other.len() - END + 15;
        assert_eq!(other[at], b'1');
        other[at] = b'2';
        let end = other.len() - 32;
        let digest = Digest::of(&other[end - (END - 32) - ROW..end]);
        other.truncate(end);
        other.extend(digest.bytes());
        assert_eq!(read(other), None, "written by another version");
    }

    #[test]
    fn a_table_that_lies_is_refused() {
        let row = |end, until, size| Row { end, until, sum: 0, size };
        for rows in [
            vec![row(5, 10, 1), row(4, 20, 1)],
            vec![row(5, 10, 1), row(6, 10, 1)],
            vec![row(5, 10, 1), row(6, 30, 1)],
            vec![row(5, 20, BLOCK_MAX as u32 + 1)],
            vec![row(u64::MAX, 20, 1)],
        ] {
            let mut file = vec![0; 20];
            file.extend(Writer { rows: rows.clone() }.end(Digest::of(KEY)));
            let file = Held::new("outline", file);
            assert_eq!(Outline::read(&file, Digest::of(KEY)), None, "{rows:?}");
        }
    }
}

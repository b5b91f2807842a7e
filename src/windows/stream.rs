//! The Win32 backup stream of a file: a sequence of streams, each a header and its data
//! (`WIN32_STREAM_ID` of winbase.h, "Backup").

use super::{Malformed, from_utf16, to_utf16, u32_at, u64_at};
use crate::backing::Bytes;
use crate::error::{Error, Result};

/// Length of a header without the name, in bytes.
pub const HEADER: usize = 20;

/// Longest name of a stream, in bytes: `:NAME:$DATA` with 255 UTF-16 units (NTFS) for the name.
const NAME_MAX: usize = 2 * (1 + 255 + 6);

/// Length of the offset that begins the data of a sparse block, in bytes.
const OFFSET: usize = 8;

/// Most bytes that a header can take, with the name and the offset of a sparse block.
const HEADER_MAX: usize = HEADER + NAME_MAX + OFFSET;

/// Largest stream that is held in memory, in bytes: a security descriptor has two lists of at most
/// 64 KiB, extended attributes take 64 KiB (NTFS), a reparse point 16 KiB.
const HELD_MAX: u64 = 256 * 1024;

/// Most blocks that a sparse file may consist of here.
const BLOCKS_MAX: usize = 1 << 20;

/// Most streams that a file may have here, but for the blocks of a sparse one.
const STREAMS_MAX: usize = 8192;

/// Most alternate streams that a file may have here.
const ALTERNATES_MAX: usize = 4096;

/// Largest size of a file, in bytes: what a file offset can say.
const SIZE_MAX: u64 = i64::MAX.cast_unsigned();

/// `STREAM_SPARSE_ATTRIBUTE`: the data are in the sparse blocks that follow.
pub const SPARSE: u32 = 8;

/// What a stream holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The contents of the file.
    Data,
    /// Extended attributes.
    Ea,
    /// The security descriptor.
    Security,
    /// An alternate data stream.
    Alternate,
    /// Hard link information.
    Link,
    /// Property data.
    Property,
    /// The object ID.
    ObjectId,
    /// What a reparse point does.
    Reparse,
    /// A part of a sparse file.
    SparseBlock,
    /// Transactional NTFS data.
    Txf,
}

impl Kind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Kind; 10] = [
        Kind::Data,
        Kind::Ea,
        Kind::Security,
        Kind::Alternate,
        Kind::Link,
        Kind::Property,
        Kind::ObjectId,
        Kind::Reparse,
        Kind::SparseBlock,
        Kind::Txf,
    ];

    /// The number in the header, 1 to 10.
    #[must_use]
    pub fn id(self) -> u32 {
        self as u32 + 1
    }

    fn from_id(id: u32) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.id() == id)
    }
}

/// The header of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// What the stream holds.
    pub kind: Kind,
    /// Attributes of the stream, such as [`SPARSE`].
    pub attributes: u32,
    /// Length of the data in bytes, without the offset of a sparse block.
    pub size: u64,
    /// The name, `:NAME:$DATA`; empty but for alternate data streams.
    pub name: String,
    /// Where a sparse block lies in the file; 0 for all else.
    pub offset: u64,
}

impl Header {
    /// A header without attributes and name.
    #[must_use]
    pub fn new(kind: Kind, size: u64) -> Header {
        Header { kind, attributes: 0, size, name: String::new(), offset: 0 }
    }

    /// The header of the alternate data stream `name`.
    #[must_use]
    pub fn alternate(name: &str, size: u64) -> Header {
        Header { name: format!(":{name}:$DATA"), ..Header::new(Kind::Alternate, size) }
    }

    /// Parses the header that `bytes` begin with, and says how long it is. `bytes` may go on with
    /// the data, but may end early only where the stream does.
    ///
    /// # Errors
    /// Fails where it is cut short, of no known kind, or its lengths make no sense.
    pub fn parse(bytes: &[u8]) -> Result<(Header, usize), Malformed> {
        let short = || Malformed::new("a backup stream that ends in a header");
        let id = u32_at(bytes, 0).ok_or_else(short)?;
        let attributes = u32_at(bytes, 4).ok_or_else(short)?;
        let size = u64_at(bytes, 8).ok_or_else(short)?;
        let name_len = u32_at(bytes, 16).ok_or_else(short)? as usize;
        let kind = Kind::from_id(id)
            .ok_or_else(|| Malformed::new(format!("a backup stream of the unknown kind {id}")))?;
        if name_len > NAME_MAX {
            return Err(Malformed::new("a name of a backup stream that is too long"));
        }
        let mut length = HEADER + name_len;
        let name = bytes.get(HEADER..length).ok_or_else(short)?;
        let name = from_utf16(name)
            .ok_or_else(|| Malformed::new("a name of a backup stream that is no UTF-16"))?;
        let mut header = Header { kind, attributes, size, name, offset: 0 };
        if kind == Kind::SparseBlock {
            header.offset = u64_at(bytes, length).ok_or_else(short)?;
            length += OFFSET;
            let size = size.checked_sub(OFFSET as u64);
            header.size = size.ok_or_else(|| Malformed::new("a sparse block without an offset"))?;
        }
        Ok((header, length))
    }

    /// Appends the header to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let name = to_utf16(&self.name);
        let is_block = self.kind == Kind::SparseBlock;
        let size = if is_block { self.size + OFFSET as u64 } else { self.size };
        out.extend_from_slice(&self.kind.id().to_le_bytes());
        out.extend_from_slice(&self.attributes.to_le_bytes());
        out.extend_from_slice(&size.to_le_bytes());
        out.extend_from_slice(&(name.len() as u32).to_le_bytes());
        out.extend_from_slice(&name);
        if is_block {
            out.extend_from_slice(&self.offset.to_le_bytes());
        }
    }

    /// The name of an alternate data stream without what surrounds it.
    fn alternate_name(&self) -> Result<&str, Malformed> {
        let name = self.name.strip_prefix(':').and_then(|rest| rest.strip_suffix(":$DATA"));
        let is_name = |name: &&str| !name.is_empty() && !name.contains(['/', '\\', ':', '\0']);
        name.filter(is_name).ok_or_else(|| Malformed::new("an alternate stream without a name"))
    }
}

/// Where a run of a file's contents is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Where it lies in the file.
    pub at: u64,
    /// Where it is in the backup stream.
    pub offset: u64,
    /// How many bytes it has.
    pub len: u64,
}

/// The contents of a file or of an alternate stream: what no block covers is zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    /// Length in bytes.
    pub size: u64,
    /// What is stored, in order, without overlap.
    pub blocks: Vec<Block>,
    is_sparse: bool,
}

impl Data {
    fn new(header: &Header, offset: u64) -> Data {
        let mut blocks = Vec::new();
        if header.size > 0 {
            blocks.push(Block { at: 0, offset, len: header.size });
        }
        Data { size: header.size, blocks, is_sparse: header.attributes & SPARSE != 0 }
    }

    /// A sparse block that follows; an empty one says where the file ends.
    fn add(&mut self, header: &Header, offset: u64) -> Result<(), Malformed> {
        if !self.is_sparse {
            return Err(Malformed::new("a sparse block of what is not sparse"));
        }
        let end = header.offset.checked_add(header.size).filter(|&end| end <= SIZE_MAX);
        let end = end.ok_or_else(|| Malformed::new("a sparse block beyond any file"))?;
        if header.offset < self.size {
            return Err(Malformed::new("sparse blocks that overlap"));
        }
        if self.blocks.len() == BLOCKS_MAX {
            return Err(Malformed::new("too many sparse blocks"));
        }
        if header.size > 0 {
            self.blocks.push(Block { at: header.offset, offset, len: header.size });
        }
        self.size = end;
        Ok(())
    }
}

/// What a backup stream holds. Streams that no tar can tell (object ID, link, property and TxF data)
/// are passed over.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Contents {
    /// The security descriptor.
    pub security: Option<Vec<u8>>,
    /// The extended attributes, as [`super::ea`] parses them.
    pub ea: Option<Vec<u8>>,
    /// What the reparse point does, as [`super::reparse`] parses it.
    pub reparse: Option<Vec<u8>>,
    /// The contents.
    pub data: Option<Data>,
    /// Alternate data streams: the name alone, and the contents.
    pub alternates: Vec<(String, Data)>,
}

/// Which contents a sparse block that follows belongs to.
enum Last {
    None,
    Data,
    Alternate,
}

impl Contents {
    /// Reads the headers and the small streams of a backup stream.
    ///
    /// # Errors
    /// Fails where it is malformed, and what reading fails with.
    pub fn read(stream: &dyn Bytes) -> Result<Contents> {
        let corrupt = |why: Malformed| Error::corrupt(stream.path(), why);
        let mut contents = Contents::default();
        let mut last = Last::None;
        let mut at = 0;
        let mut rest = STREAMS_MAX + BLOCKS_MAX;
        while let Some((header, offset)) = next(stream, at)? {
            rest =
                rest.checked_sub(1).ok_or_else(|| corrupt(Malformed::new("too many streams")))?;
            let held = || read_held(stream, offset, header.size);
            match header.kind {
                Kind::Security => set(&mut contents.security, held()?).map_err(corrupt)?,
                Kind::Ea => set(&mut contents.ea, held()?).map_err(corrupt)?,
                Kind::Reparse => set(&mut contents.reparse, held()?).map_err(corrupt)?,
                Kind::Data => {
                    let data = Data::new(&header, offset);
                    set(&mut contents.data, data).map_err(corrupt)?;
                }
                Kind::Alternate => contents.add(&header, offset).map_err(corrupt)?,
                Kind::SparseBlock => {
                    let data = match last {
                        Last::None => None,
                        Last::Data => contents.data.as_mut(),
                        Last::Alternate => contents.alternates.last_mut().map(|(_, data)| data),
                    };
                    let why = || Malformed::new("a sparse block of nothing");
                    let data = data.ok_or_else(why).map_err(corrupt)?;
                    data.add(&header, offset).map_err(corrupt)?;
                }
                Kind::Link | Kind::Property | Kind::ObjectId | Kind::Txf => {}
            }
            last = match header.kind {
                Kind::SparseBlock => last,
                Kind::Data => Last::Data,
                Kind::Alternate => Last::Alternate,
                _ => Last::None,
            };
            at = offset + header.size;
        }
        Ok(contents)
    }

    fn add(&mut self, header: &Header, offset: u64) -> Result<(), Malformed> {
        let name = header.alternate_name()?;
        if self.alternates.len() == ALTERNATES_MAX {
            return Err(Malformed::new("too many alternate streams"));
        }
        if self.alternates.iter().any(|(other, _)| other == name) {
            return Err(Malformed::new("two alternate streams of one name"));
        }
        self.alternates.push((name.to_owned(), Data::new(header, offset)));
        Ok(())
    }
}

fn set<T>(slot: &mut Option<T>, value: T) -> Result<(), Malformed> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Malformed::new("two streams of which a file has one")),
    }
}

/// The header at `at`, and where its data begins; `None` at the end. All of its data is there.
fn next(stream: &dyn Bytes, at: u64) -> Result<Option<(Header, u64)>> {
    if at == stream.len() {
        return Ok(None);
    }
    let mut buf = [0; HEADER_MAX];
    let read = stream.read_at(at, &mut buf)?;
    let parsed = Header::parse(buf.get(..read).unwrap_or_default());
    let (header, length) = parsed.map_err(|why| Error::corrupt(stream.path(), why))?;
    let offset = at + length as u64;
    match offset.checked_add(header.size) {
        Some(end) if end <= stream.len() => Ok(Some((header, offset))),
        _ => Err(Error::corrupt(stream.path(), "a backup stream that is cut short")),
    }
}

fn read_held(stream: &dyn Bytes, offset: u64, size: u64) -> Result<Vec<u8>> {
    if size > HELD_MAX {
        return Err(Error::corrupt(stream.path(), "a stream larger than any of its kind"));
    }
    let mut held = vec![0; size as usize];
    match stream.read_at(offset, &mut held)? == held.len() {
        true => Ok(held),
        false => Err(Error::corrupt(stream.path(), "shorter than it was")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backing::Held;

    fn piece(header: &Header, data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        header.write(&mut out);
        out.extend_from_slice(data);
        out
    }

    fn plain(kind: Kind, data: &[u8]) -> Vec<u8> {
        piece(&Header::new(kind, data.len() as u64), data)
    }

    fn block(offset: u64, data: &[u8]) -> Vec<u8> {
        let header = Header { offset, ..Header::new(Kind::SparseBlock, data.len() as u64) };
        piece(&header, data)
    }

    fn read(parts: &[Vec<u8>]) -> Result<Contents> {
        Contents::read(&Held::new("stream", parts.concat()))
    }

    #[test]
    fn a_header_is_as_winbase_has_it() {
        let header = Header { attributes: 4, ..Header::alternate("z", 3) };
        let mut bytes = piece(&header, b"abc");
        assert_eq!(&bytes[..20], b"\x04\0\0\0\x04\0\0\0\x03\0\0\0\0\0\0\0\x10\0\0\0");
        assert_eq!(&bytes[20..36], b":\0z\0:\0$\0D\0A\0T\0A\0");
        assert_eq!(Header::parse(&bytes), Ok((header, 36)));
        let sparse = block(0x0102, b"xy");
        assert_eq!(sparse[8], 10, "the size counts the offset");
        let (header, length) = Header::parse(&sparse).unwrap();
        assert_eq!((header.offset, header.size, length), (0x0102, 2, 28));
        bytes[0] = 11;
        assert!(Header::parse(&bytes).is_err());
    }

    #[test]
    fn every_kind_of_stream_is_read_or_passed_over() {
        let mut parts = vec![plain(Kind::Security, b"sd"), plain(Kind::Ea, b"ea")];
        parts.push(plain(Kind::Reparse, b"target"));
        for kind in [Kind::Link, Kind::Property, Kind::ObjectId, Kind::Txf] {
            parts.push(plain(kind, b"dropped"));
        }
        let offset = parts.concat().len() as u64 + 20;
        parts.push(plain(Kind::Data, b"contents"));
        parts.push(piece(&Header::alternate("zone", 2), b"id"));
        let contents = read(&parts).unwrap();
        assert_eq!(contents.security.as_deref(), Some(&b"sd"[..]));
        assert_eq!(contents.ea.as_deref(), Some(&b"ea"[..]));
        assert_eq!(contents.reparse.as_deref(), Some(&b"target"[..]));
        let data = contents.data.unwrap();
        assert_eq!((data.size, &data.blocks[..]), (8, &[Block { at: 0, offset, len: 8 }][..]));
        assert_eq!(contents.alternates[0].0, "zone");
        assert_eq!(contents.alternates[0].1.size, 2);
        assert_eq!(read(&[]).unwrap(), Contents::default());
    }

    #[test]
    fn a_sparse_file_is_its_blocks_and_ends_where_the_last_does() {
        let sparse = Header { attributes: SPARSE, ..Header::new(Kind::Data, 0) };
        let parts = [piece(&sparse, b""), block(4096, b"abcd"), block(1 << 40, b"")];
        let data = read(&parts).unwrap().data.unwrap();
        assert_eq!(data.size, 1 << 40);
        assert_eq!(data.blocks, [Block { at: 4096, offset: 48, len: 4 }]);
        let named = Header { attributes: SPARSE, ..Header::alternate("s", 0) };
        let parts = [plain(Kind::Data, b"x"), piece(&named, b""), block(10, b"y")];
        let contents = read(&parts).unwrap();
        assert_eq!(contents.alternates[0].1.size, 11);
        assert_eq!(contents.data.unwrap().size, 1);
    }

    #[test]
    fn streams_that_make_no_sense_are_errors() {
        let sparse = piece(&Header { attributes: SPARSE, ..Header::new(Kind::Data, 0) }, b"");
        let data = plain(Kind::Data, b"x");
        let named = |name: &str| {
            let header = Header { name: name.into(), ..Header::new(Kind::Alternate, 0) };
            piece(&header, b"")
        };
        let mut cut = data.clone();
        cut.pop();
        let mut huge = data.clone();
        huge[8..16].fill(0xff);
        let mut long_name = data.clone();
        long_name[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
        let mut no_offset = block(0, b"");
        no_offset[8] = 7;
        let big = vec![0; HELD_MAX as usize + 1];
        for (what, parts) in [
            ("ends in its data", vec![cut]),
            ("ends in a header", vec![data[..19].to_vec()]),
            ("a size beyond any", vec![huge]),
            ("a name beyond any", vec![long_name]),
            ("two of data", vec![data.clone(), data.clone()]),
            ("a block without a file", vec![block(0, b"x")]),
            ("a block of what is not sparse", vec![data.clone(), block(9, b"x")]),
            (
                "a block after something else",
                vec![sparse.clone(), plain(Kind::Txf, b""), block(0, b"x")],
            ),
            ("blocks that overlap", vec![sparse.clone(), block(10, b"abc"), block(12, b"d")]),
            ("a block beyond any file", vec![sparse.clone(), block(u64::MAX, b"d")]),
            ("a block without an offset", vec![sparse, no_offset]),
            ("no name", vec![named("")]),
            ("an empty name", vec![named("::$DATA")]),
            ("a path as a name", vec![named(":a/b:$DATA")]),
            ("another type", vec![named(":a:$INDEX")]),
            ("two of one name", vec![named(":a:$DATA"), named(":a:$DATA")]),
            ("too large", vec![plain(Kind::Security, &big)]),
        ] {
            assert!(read(&parts).is_err(), "{what}");
        }
    }
}

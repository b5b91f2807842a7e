//! Compressed bytes, read front to back or from a [`Point`] on.
//!
//! What a blob is compressed with is seen from its first bytes; media types are not believed.
//! 1. gzip may be entered between any two blocks of deflate, given the 32 KiB before; and at each
//!    member, of which eStargz has one for each file ([`gzip`]).
//! 2. zstd may be entered at each frame, of which zstd:chunked has one for each chunk. A decoder's
//!    state within a frame (tables, repeated offsets, a window of up to 128 MiB) can be had from no
//!    implementation.
//! 3. bzip2 and xz, which `docker load` takes, are read from their start.
//!
//! However large the output, memory is bounded: by the window for zstd and xz, of which more than
//! 128 MiB is refused.

use std::fmt;
use std::io;
use std::io::Read;
use std::sync::Arc;

use bzip2::read::MultiBzDecoder;
use lzma_rust2::XzReader;
use zstd::stream::raw::{DParameter, Decoder, Operation};

use crate::backing::Bytes;
use crate::error::{Error, Result};

mod gzip;

use gzip::Gzip;

/// How much is read at once, in bytes.
const INPUT: usize = 256 << 10;

/// Largest window of zstd, as a power of 2: what its own tool takes unless told otherwise.
const WINDOW_LOG: u32 = 27;

/// Memory that xz may take, in KiB.
const XZ_MEMORY: u32 = 1 << (WINDOW_LOG - 10);

/// How bytes are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// RFC 1952, with one member or several.
    Gzip,
    /// RFC 8878, with one frame or several.
    Zstd,
    /// By bzip2.
    Bzip2,
    /// By xz.
    Xz,
}

impl Compression {
    /// What `bytes` are compressed with, by their magic number.
    ///
    /// # Errors
    /// Fails when they can't be read.
    pub fn of(bytes: &dyn Bytes) -> Result<Compression> {
        let mut head = [0; 6];
        let read = bytes.read_at(0, &mut head)?;
        Ok(Compression::sniff(&head[..read]))
    }

    /// The same from their first 6.
    #[must_use]
    pub fn sniff(head: &[u8]) -> Compression {
        match head {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Compression::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Compression::Xz,
            _ => Compression::None,
        }
    }
}

/// A place where reading can start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// How many bytes were given out before.
    pub offset: u64,
    /// Where the compressed bytes go on.
    pub from: u64,
    /// What a decoder has to know.
    pub entry: Entry,
}

/// What a decoder has to know to start at a [`Point`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// Nothing: a member or frame starts here.
    Start,
    /// It is between two blocks of deflate.
    Block {
        /// Bits of the byte before that belong to the next block, fewer than 8.
        bits: u8,
        /// These bits.
        bit_buf: u8,
        /// The output before, up to 32 KiB.
        window: Vec<u8>,
    },
}

/// Compressed bytes that are being read.
pub struct Stream {
    input: Input,
    codec: Codec,
    /// How many bytes were given out.
    offset: u64,
}

enum Codec {
    None,
    Gzip(Box<Gzip>),
    Zstd(Zstd),
    /// Read to its end, and no more of it.
    Plain(Box<dyn Read + Send>),
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({}, {})", self.input.source.path().display(), self.offset)
    }
}

impl Stream {
    /// `source` from its start.
    ///
    /// # Errors
    /// Fails when it can't be read.
    pub fn new(source: &Arc<dyn Bytes>) -> Result<Stream> {
        Stream::at(source, &Point { offset: 0, from: 0, entry: Entry::Start })
    }

    /// `source` from a point on that was found in it.
    ///
    /// # Errors
    /// Fails when it can't be read.
    pub fn at(source: &Arc<dyn Bytes>, point: &Point) -> Result<Stream> {
        let input = Input::new(source, point.from);
        let reader = || io::BufReader::with_capacity(INPUT, Input::new(source, 0));
        let codec = match Compression::of(&**source)? {
            Compression::None => Codec::None,
            Compression::Gzip => Codec::Gzip(Box::new(Gzip::new(point))),
            Compression::Zstd => {
                let failed = |err| Error::io(source.path(), err);
                Codec::Zstd(Zstd::new().map_err(failed)?)
            }
            Compression::Bzip2 => Codec::Plain(Box::new(MultiBzDecoder::new(reader()))),
            Compression::Xz => {
                Codec::Plain(Box::new(XzReader::new_mem_limit(reader(), true, XZ_MEMORY)))
            }
        };
        Ok(Stream { input, codec, offset: point.offset })
    }

    /// How many bytes were given out, those before the point it started at included.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads the bytes that come next into `out`, some of them at least, and returns how many; none
    /// at the end.
    ///
    /// # Errors
    /// Fails where the compressed bytes are damaged or can't be read.
    pub fn read(&mut self, out: &mut [u8]) -> Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        let read = match &mut self.codec {
            Codec::None => self.input.read_some(out)?,
            Codec::Gzip(gzip) => gzip.read(&mut self.input, out)?,
            Codec::Zstd(zstd) => zstd.read(&mut self.input, out)?,
            Codec::Plain(reader) => {
                reader.read(out).map_err(|err| self.input.damaged(&err.to_string()))?
            }
        };
        self.offset += read as u64;
        Ok(read)
    }

    /// Where reading could start again at [`Stream::offset`], if it could.
    #[must_use]
    pub fn point(&self) -> Option<Point> {
        let entry = match &self.codec {
            Codec::None => Entry::Start,
            Codec::Gzip(gzip) => gzip.entry()?,
            Codec::Zstd(zstd) if zstd.is_between_frames => Entry::Start,
            Codec::Zstd(_) | Codec::Plain(_) => return None,
        };
        Some(Point { offset: self.offset, from: self.input.at(), entry })
    }
}

/// Compressed bytes in pieces.
struct Input {
    source: Arc<dyn Bytes>,
    buf: Vec<u8>,
    /// What of `buf` was taken.
    taken: usize,
    /// Where `buf` ends in the source.
    end: u64,
}

impl Input {
    fn new(source: &Arc<dyn Bytes>, from: u64) -> Input {
        Input { source: Arc::clone(source), buf: Vec::new(), taken: 0, end: from }
    }

    /// Where the next byte is in the source.
    fn at(&self) -> u64 {
        self.end - (self.buf.len() - self.taken) as u64
    }

    /// What is at hand; reads more where nothing is. Empty at the end.
    fn fill(&mut self) -> Result<&[u8]> {
        if self.taken == self.buf.len() {
            self.buf.resize(INPUT, 0);
            self.taken = 0;
            let read = self.source.read_at(self.end, &mut self.buf);
            self.buf.truncate(*read.as_ref().unwrap_or(&0));
            self.end += read? as u64;
        }
        Ok(&self.buf[self.taken..])
    }

    fn take(&mut self, count: usize) {
        self.taken += count;
    }

    /// True where no byte is left to read from the source, though some may be at hand.
    fn is_last(&self) -> bool {
        self.end >= self.source.len()
    }

    /// The next byte; `None` at the end.
    fn byte(&mut self) -> Result<Option<u8>> {
        let byte = self.fill()?.first().copied();
        self.take(usize::from(byte.is_some()));
        Ok(byte)
    }

    /// The next byte, where there must be one.
    fn expect(&mut self) -> Result<u8> {
        self.byte()?.ok_or_else(|| self.damaged("cut short"))
    }

    /// Looks at the next 4 bytes, or fewer at the end.
    fn peek(&self) -> Result<Vec<u8>> {
        if let Some(head) = self.buf.get(self.taken..self.taken + 4) {
            return Ok(head.to_vec());
        }
        let mut head = vec![0; 4];
        let read = self.source.read_at(self.at(), &mut head)?;
        head.truncate(read);
        Ok(head)
    }

    fn read_some(&mut self, buf: &mut [u8]) -> Result<usize> {
        let have = self.fill()?;
        let count = have.len().min(buf.len());
        buf[..count].copy_from_slice(&have[..count]);
        self.take(count);
        Ok(count)
    }

    fn damaged(&self, why: &str) -> Error {
        Error::corrupt(self.source.path(), format!("can't be decompressed: {why}"))
    }
}

impl Read for Input {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.read_some(buf).map_err(io::Error::other)
    }
}

/// zstd, frame after frame.
struct Zstd {
    decoder: Decoder<'static>,
    is_between_frames: bool,
    has_ended: bool,
}

impl Zstd {
    fn new() -> io::Result<Zstd> {
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG))?;
        Ok(Zstd { decoder, is_between_frames: true, has_ended: false })
    }

    fn read(&mut self, input: &mut Input, out: &mut [u8]) -> Result<usize> {
        let mut made = 0;
        while made == 0 && !self.has_ended {
            if self.is_between_frames {
                // What follows the last frame and is none is no part of the stream.
                if Compression::sniff(&input.peek()?) != Compression::Zstd {
                    self.has_ended = true;
                    break;
                }
                self.decoder.reinit().map_err(|err| input.damaged(&err.to_string()))?;
                self.is_between_frames = false;
            }
            let have = input.fill()?;
            let is_over = have.is_empty();
            let status = self.decoder.run_on_buffers(have, out);
            let status = status.map_err(|err| input.damaged(&err.to_string()))?;
            input.take(status.bytes_read);
            made = status.bytes_written;
            self.is_between_frames = status.remaining == 0;
            if is_over && made == 0 && !self.is_between_frames {
                return Err(input.damaged("cut short"));
            }
        }
        Ok(made)
    }
}

#[cfg(test)]
mod tests;

//! What is known of an inflated layer: its length, checksums, and where inflating can start.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use crc_fast::{CrcAlgorithm, checksum};
use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::inflate::decompress_to_vec_with_limit;
use sha2::{Digest as _, Sha256};

use super::{CHUNK, Cache, RECENT, SEGMENT};
use crate::backing::Bytes;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::inflate::{Entry, Point, Stream};

/// What a file starts with; another layout gets another number.
const MAGIC: &[u8; 16] = b"stratafs index 1";

/// Points are at least this far apart at first, in bytes.
const SPACING: u64 = 2 << 20;

/// How many points there are at most; then every other one goes, and they lie twice as far apart.
const POINTS: usize = 96;

/// How many segments are in memory while a layer is inflated: one is being filled, one hashed and
/// written, and one waits.
const BUFFERS: usize = 3;

/// Largest window, in bytes: what deflate refers back to.
const WINDOW: usize = 32 << 10;

/// The same deflated, where it does not get smaller.
const WINDOW_MAX: usize = WINDOW + (WINDOW >> 3);

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Index {
    /// Length of the inflated bytes.
    pub(super) len: u64,
    /// Of each [`CHUNK`] its CRC-64.
    pub(super) sums: Vec<u64>,
    /// Where inflating can start, in order; the first is the start itself. The windows are deflated.
    /// Empty where the file has them.
    pub(super) points: Vec<Point>,
}

/// The checksum of a chunk.
pub(super) fn sum(chunk: &[u8]) -> u64 {
    checksum(CrcAlgorithm::Crc64Nvme, chunk)
}

/// Inflates all of `source` once, holds it to the digest where one is `expected`, and keeps what
/// there is room for. A second thread hashes and writes.
pub(super) fn build(
    cache: &Cache,
    output: Digest,
    source: &Arc<dyn Bytes>,
    expected: Option<Digest>,
) -> Result<Index> {
    let (full, segments) = channel::<Vec<u8>>();
    let (used, free) = channel::<Vec<u8>>();
    for _ in 0..BUFFERS {
        // Its receiver is here.
        let _ = used.send(Vec::new());
    }
    thread::scope(|scope| {
        let hashing = scope.spawn(move || consume(cache, output, &segments, &used));
        let made = inflate(source, &free, &full);
        drop(full);
        let hashed = hashing.join().map_err(|_| Error::corrupt(source.path(), "hashing failed"))?;
        let points = made?;
        if expected.is_some_and(|expected| expected != hashed.digest) {
            let why = format!("inflates to {}, not to {output}", hashed.digest);
            return Err(Error::corrupt(source.path(), why));
        }
        Ok(Index { len: hashed.len, sums: hashed.sums, points })
    })
}

struct Hashed {
    digest: Digest,
    sums: Vec<u64>,
    len: u64,
}

fn consume(
    cache: &Cache,
    output: Digest,
    segments: &Receiver<Vec<u8>>,
    used: &Sender<Vec<u8>>,
) -> Hashed {
    let mut hash = Sha256::new();
    let (mut sums, mut len) = (Vec::new(), 0);
    for (number, segment) in segments.iter().enumerate() {
        // Both by the chunk, which is still near for the second.
        for chunk in segment.chunks(CHUNK as usize) {
            hash.update(chunk);
            sums.push(sum(chunk));
        }
        len += segment.len() as u64;
        // In memory a pass leaves the start of a layer, which is read first, and not its end.
        if number < RECENT.get() {
            cache.keep(output, number as u64, &segment);
        } else {
            cache.store(output, number as u64, &segment);
        }
        // Nobody wants it once all is inflated.
        let _ = used.send(segment);
    }
    Hashed { digest: Digest::from_hash(hash), sums, len }
}

/// Gives the bytes to `full` in segments, in buffers that come back by `free`, and finds the points.
fn inflate(
    source: &Arc<dyn Bytes>,
    free: &Receiver<Vec<u8>>,
    full: &Sender<Vec<u8>>,
) -> Result<Vec<Point>> {
    let mut stream = Stream::new(source)?;
    let mut points = vec![Point { offset: 0, from: 0, entry: Entry::Start }];
    let mut spacing = SPACING;
    loop {
        let failed = || Error::corrupt(source.path(), "hashing failed");
        let mut segment = free.recv().map_err(|_| failed())?;
        if segment.is_empty() {
            segment = vec![0; SEGMENT as usize];
        }
        let mut filled = 0;
        while let read @ 1.. = stream.read(&mut segment[filled..])? {
            filled += read;
            let last = points.last().map_or(0, |point| point.offset);
            if stream.offset() - last >= spacing {
                points.extend(stream.point().map(deflated));
            }
            if points.len() > POINTS {
                points = points.into_iter().step_by(2).collect();
                spacing *= 2;
            }
        }
        let is_over = filled < segment.len();
        segment.truncate(filled);
        if !segment.is_empty() {
            full.send(segment).map_err(|_| failed())?;
        }
        if is_over {
            return Ok(points);
        }
    }
}

/// A point as an index keeps it.
fn deflated(mut point: Point) -> Point {
    if let Entry::Block { window, .. } = &mut point.entry {
        *window = compress_to_vec(window, 1);
    }
    point
}

impl Index {
    /// Memory that it takes, in bytes, about.
    pub(super) fn weight(&self) -> usize {
        let window = |point: &Point| match &point.entry {
            Entry::Start => 0,
            Entry::Block { window, .. } => window.len(),
        };
        let points = self.points.iter().map(|point| size_of::<Point>() + window(point));
        self.sums.len() * size_of::<u64>() + points.sum::<usize>()
    }

    /// The last point at or before `offset`.
    pub(super) fn point(&self, offset: u64) -> Option<Point> {
        let next = self.points.partition_point(|point| point.offset <= offset);
        let mut point = self.points.get(next.checked_sub(1)?)?.clone();
        if let Entry::Block { window, .. } = &mut point.entry {
            *window = decompress_to_vec_with_limit(window, WINDOW).ok()?;
        }
        Some(point)
    }

    /// The bytes of a file that says this of `key`, whose compressed bytes are `size` long.
    pub(super) fn encode(&self, key: Digest, size: u64) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(key.hex().as_bytes());
        let number = |out: &mut Vec<u8>, number: u64| out.extend(number.to_le_bytes());
        for value in [size, self.len, self.sums.len() as u64, self.points.len() as u64] {
            number(&mut out, value);
        }
        self.sums.iter().for_each(|sum| number(&mut out, *sum));
        for point in &self.points {
            number(&mut out, point.offset);
            number(&mut out, point.from);
            match &point.entry {
                Entry::Start => out.extend([0; 8]),
                Entry::Block { bits, bit_buf, window } => {
                    out.extend([1, *bits, *bit_buf, 0]);
                    out.extend((window.len() as u32).to_le_bytes());
                    out.extend(window);
                }
            }
        }
        out.extend(Digest::of(&out).hex().as_bytes());
        out
    }

    /// The inverse of [`Index::encode`]; `None` for anything else.
    pub(super) fn parse(file: &[u8], key: Digest, size: u64) -> Option<Index> {
        let (body, digest) = file.split_at_checked(file.len().checked_sub(64)?)?;
        if Digest::of(body).hex().as_bytes() != digest {
            return None;
        }
        let mut left = body.strip_prefix(MAGIC)?.strip_prefix(key.hex().as_bytes())?;
        let left = &mut left;
        if number(left)? != size {
            return None;
        }
        let (len, sums, points) = (number(left)?, number(left)?, number(left)?);
        if sums != len.div_ceil(CHUNK) || points as usize > POINTS + 1 {
            return None;
        }
        let sums = (0..sums).map(|_| number(left)).collect::<Option<Vec<u64>>>()?;
        let points = (0..points).map(|_| point(left)).collect::<Option<Vec<Point>>>()?;
        let is_sorted = points.windows(2).all(|pair| pair[0].offset <= pair[1].offset);
        let starts = points.first().is_some_and(|first| first.offset == 0);
        (left.is_empty() && is_sorted && starts).then_some(Index { len, sums, points })
    }
}

fn take<'a>(left: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = left.split_at_checked(count)?;
    *left = rest;
    Some(taken)
}

fn number(left: &mut &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(take(left, 8)?.try_into().ok()?))
}

fn point(left: &mut &[u8]) -> Option<Point> {
    let (offset, from) = (number(left)?, number(left)?);
    let &[kind, bits, bit_buf, _, a, b, c, d] = take(left, 8)? else { return None };
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    let entry = match kind {
        0 => Entry::Start,
        1 if bits < 8 && length <= WINDOW_MAX => {
            Entry::Block { bits, bit_buf, window: take(left, length)?.to_vec() }
        }
        _ => return None,
    };
    Some(Point { offset, from, entry })
}

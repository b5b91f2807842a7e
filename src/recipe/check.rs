//! Checks of backing files as their bytes pass.
//!
//! A read that completes a file decides: when all its bytes passed, in whatever order and through
//! whichever reader, their joined checksum must be the expected one; when only its last bytes did,
//! the file is read through once for it. What passed is remembered by the file's stamp, and not
//! checked again until size, mtime or ctime moves.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crc_fast::{CrcAlgorithm, checksum};
use lru::LruCache;

use super::files::{Expect, Fault, FileTable};
use crate::backing::BackingFile;

/// How many files may be half read at once before the oldest is forgotten (it is then read
/// through at its end instead).
const HALF_READ: usize = 256;

/// The checksum that tar-split keeps of each file (formats.md of tar-split: CRC-64/GO-ISO).
const ALGORITHM: CrcAlgorithm = CrcAlgorithm::Crc64GoIso;

/// What a read does with a file that has not passed, or has moved since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unchecked {
    /// Checks it as its bytes pass.
    Check,
    /// Fails: somebody has to look at all of the recipe again.
    Refuse,
}

/// CRC-64/GO-ISO of `bytes`.
#[cfg(test)]
pub(super) fn crc(bytes: &[u8]) -> u64 {
    checksum(ALGORITHM, bytes)
}

/// By file: the stamp with which it passed, 0 where it did not yet.
pub(super) type Passed = Arc<[AtomicU64]>;

#[derive(Debug)]
pub(super) struct Checks {
    passed: Passed,
    /// By file: what has passed so far of those that are half read.
    half: Mutex<LruCache<u32, Half>>,
}

/// The parts of one file that passed, as long as its stamp stays.
#[derive(Debug, Clone, Default)]
struct Half {
    stamp: u64,
    /// Sorted, disjoint, not touching.
    parts: Vec<Part>,
}

#[derive(Debug, Clone, Copy)]
struct Part {
    start: u64,
    end: u64,
    crc: u64,
}

impl Checks {
    /// For a recipe without files.
    pub(super) fn none() -> Checks {
        Checks { passed: Arc::default(), half: Mutex::new(LruCache::unbounded()) }
    }

    pub(super) fn new(files: &FileTable) -> Checks {
        Checks {
            passed: (0..files.len()).map(|_| AtomicU64::new(0)).collect(),
            half: Mutex::new(LruCache::unbounded()),
        }
    }

    /// What has passed, for a recipe of the same files that is made later.
    pub(super) fn passed(&self) -> &Passed {
        &self.passed
    }

    /// Goes on from what has `passed` of the same files.
    pub(super) fn go_on(&mut self, passed: &Passed) {
        if passed.len() == self.passed.len() {
            self.passed = Arc::clone(passed);
        }
    }

    /// Reads `buf` from `offset` of file `index`, which `open` is, and checks it.
    pub(super) fn read(
        &self,
        files: &FileTable,
        index: u32,
        open: &BackingFile,
        offset: u64,
        buf: &mut [u8],
        unchecked: Unchecked,
    ) -> Result<(), Fault> {
        let stamp = open.stat().stamp();
        let expected = match files.expect(index) {
            Expect::Stamp(expected) if stamp != expected => return Err(Fault::Changed),
            Expect::Stamp(_) => return read_exact(open, offset, buf),
            Expect::Crc(crc) => crc,
        };
        let passed = &self.passed[index as usize];
        if passed.load(Ordering::Acquire) == stamp {
            return read_exact(open, offset, buf);
        }
        if unchecked == Unchecked::Refuse {
            return Err(Fault::Changed);
        }
        read_exact(open, offset, buf)?;
        let part =
            Part { start: offset, end: offset + buf.len() as u64, crc: checksum(ALGORITHM, buf) };
        let size = files.size(index);
        match self.add(index, stamp, part, size) {
            Some(crc) if crc == expected => {}
            Some(_) => return Err(Fault::Checksum),
            None if part.end < size => return Ok(()),
            None => check_whole(open, size, expected)?,
        }
        passed.store(stamp, Ordering::Release);
        self.half.lock().unwrap_or_else(PoisonError::into_inner).pop(&index);
        Ok(())
    }

    /// Adds a part to what has passed of a file; its checksum once all of it has.
    fn add(&self, index: u32, stamp: u64, part: Part, size: u64) -> Option<u64> {
        if part.start == 0 && part.end == size {
            return Some(part.crc);
        }
        let mut files = self.half.lock().unwrap_or_else(PoisonError::into_inner);
        if files.len() == HALF_READ && !files.contains(&index) {
            files.pop_lru();
        }
        let half = files.get_or_insert_mut(index, Half::default);
        if half.stamp != stamp {
            *half = Half { stamp, parts: Vec::new() };
        }
        half.add(part);
        match half.parts[..] {
            [all] if all.start == 0 && all.end == size => Some(all.crc),
            _ => None,
        }
    }
}

impl Half {
    /// Joins `part` to its neighbours; a part that overlaps what is there adds nothing.
    fn add(&mut self, part: Part) {
        let at = self.parts.partition_point(|known| known.end <= part.start);
        if self.parts.get(at).is_some_and(|next| next.start < part.end) {
            return;
        }
        self.parts.insert(at, part);
        self.join(at);
        if at > 0 {
            self.join(at - 1);
        }
    }

    /// Makes the parts `at` and `at + 1` one where they touch.
    fn join(&mut self, at: usize) {
        let (Some(&first), Some(&second)) = (self.parts.get(at), self.parts.get(at + 1)) else {
            return;
        };
        if first.end != second.start {
            return;
        }
        let crc = joined(first.crc, second.crc, second.end - second.start);
        self.parts[at] = Part { start: first.start, end: second.end, crc };
        self.parts.remove(at + 1);
    }
}

/// The generator polynomial of [`ALGORITHM`] without its highest term, lowest power first (ISO 3309:
/// x^64 + x^4 + x^3 + x + 1).
const POLYNOMIAL: u64 = 0xd800_0000_0000_0000;

/// The checksum of two runs from theirs, the second `length` bytes long: the first times x to the
/// power of the bits that follow it, plus the second. `crc_fast::checksum_combine` gives the same,
/// and takes as long as copying a quarter of a MiB.
fn joined(first: u64, second: u64, length: u64) -> u64 {
    const ONE: u64 = 1 << 63;
    let (mut shifted, mut power, mut bits) = (first, ONE >> 1, length.saturating_mul(8));
    while bits > 0 {
        if bits & 1 == 1 {
            shifted = product(shifted, power);
        }
        power = product(power, power);
        bits >>= 1;
    }
    shifted ^ second
}

/// The product of two polynomials over GF(2), reduced.
fn product(left: u64, mut right: u64) -> u64 {
    let mut product = 0;
    for power in (0..64).rev() {
        if left >> power & 1 == 1 {
            product ^= right;
        }
        right = (right >> 1) ^ if right & 1 == 1 { POLYNOMIAL } else { 0 };
    }
    product
}

fn read_exact(open: &BackingFile, offset: u64, buf: &mut [u8]) -> Result<(), Fault> {
    if open.read_at(offset, buf)? == buf.len() { Ok(()) } else { Err(Fault::Changed) }
}

fn check_whole(open: &BackingFile, size: u64, expected: u64) -> Result<(), Fault> {
    let mut digest = crc_fast::Digest::new(ALGORITHM);
    let mut buf = vec![0; size.min(1 << 20) as usize];
    let mut offset = 0;
    while offset < size {
        let count = (size - offset).min(buf.len() as u64) as usize;
        read_exact(open, offset, &mut buf[..count])?;
        digest.update(&buf[..count]);
        offset += count as u64;
    }
    if digest.finalize() == expected { Ok(()) } else { Err(Fault::Checksum) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_tar_split() {
        // From tar-split.json.gz files that Docker 20.10 wrote.
        for (bytes, sum) in [
            (b"1".to_vec(), 0x4320_0000_0000_0000),
            (b"hello\n".to_vec(), 0x614c_3eee_e2d8_1000),
            (vec![b'x'; 700], 0xa36c_5e1f_edf6_b843),
        ] {
            let whole = crc(&bytes);
            assert_eq!(whole, sum, "{bytes:?}");
        }
    }

    #[test]
    fn sums_join_as_the_library_joins_them() {
        let bytes: Vec<u8> = (0..70_000u32).map(|at| ((at * 31) >> 3) as u8).collect();
        for at in [0, 1, 2, 63, 4096, 65_535, 65_536, 69_999, 70_000] {
            let (a, b) = bytes.split_at(at);
            let (sums, length) = ((crc(a), crc(b)), b.len() as u64);
            assert_eq!(joined(sums.0, sums.1, length), crc(&bytes), "{at}");
            let theirs = crc_fast::checksum_combine(ALGORITHM, sums.0, sums.1, length);
            assert_eq!(joined(sums.0, sums.1, length), theirs, "{at}");
        }
    }

    #[test]
    fn parts_join_whatever_their_order() {
        let bytes: Vec<u8> = (0..=255).collect();
        let part = |start: usize, end: usize| Part {
            start: start as u64,
            end: end as u64,
            crc: crc(&bytes[start..end]),
        };
        let mut half = Half::default();
        for (start, end) in [(100, 200), (0, 50), (210, 256), (50, 100), (40, 60), (200, 210)] {
            half.add(part(start, end));
        }
        assert_eq!(half.parts.len(), 1);
        assert_eq!(half.parts[0].crc, crc(&bytes));
    }
}

//! Checks of backing files as their bytes pass.
//!
//! A read that completes a file decides: when all its bytes passed, in whatever order and through
//! whichever reader, their joined checksum must be the expected one; when only its last bytes did,
//! and nobody is reading the others, the file is read through once for it. What passed is remembered by the file's stamp, and not
//! checked again until size, mtime or ctime moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crc_fast::{CrcAlgorithm, checksum};

use super::files::{Expect, Fault, FileTable};
use super::half::{HalfRead, Seen};
use crate::backing::BackingFile;

/// The checksum that tar-split keeps of each file (formats.md of tar-split: CRC-64/GO-ISO).
pub(super) const ALGORITHM: CrcAlgorithm = CrcAlgorithm::Crc64GoIso;

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
    half: HalfRead,
}

impl Checks {
    /// For a recipe without files.
    pub(super) fn none() -> Checks {
        Checks { passed: Arc::default(), half: HalfRead::new() }
    }

    pub(super) fn new(files: &FileTable) -> Checks {
        Checks {
            passed: (0..files.len()).map(|_| AtomicU64::new(0)).collect(),
            half: HalfRead::new(),
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
        let (end, size) = (offset + buf.len() as u64, files.size(index));
        let is_all = offset == 0 && end == size;
        let reading = (!is_all).then(|| self.half.begin(index, offset..end));
        read_exact(open, offset, buf)?;
        let crc = checksum(ALGORITHM, buf);
        let has_passed = || passed.load(Ordering::Acquire) == stamp;
        match reading.map_or(Seen::All(crc), |reading| reading.pass(stamp, crc, size, has_passed)) {
            Seen::NotTheEnd | Seen::Decided => return Ok(()),
            Seen::All(crc) if crc == expected => {}
            Seen::All(_) => return Err(Fault::Checksum),
            Seen::TheEnd => check_whole(open, size, expected)?,
        }
        passed.store(stamp, Ordering::Release);
        if !is_all {
            self.half.forget(index);
        }
        Ok(())
    }
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
}

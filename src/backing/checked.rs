//! Bytes that are held to their digest as they pass.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};

use super::Bytes;
use crate::digest::Digest;
use crate::error::{Error, Result};

/// Bytes read at a time where they are read only to be summed.
const CHUNK: usize = 1 << 20;

/// A stored blob, checked by every reader who reads it to its end: what is read in order is summed
/// as it passes, and the read that gives out the last byte decides. Where somebody read in another
/// order, that read sums up the rest first.
#[derive(Debug)]
pub struct Checked {
    digest: Digest,
    bytes: Arc<dyn Bytes>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Of the bytes from the start up to here.
    sum: Sha256,
    at: u64,
    /// The stamp under which all of them were found right.
    whole: Option<u64>,
}

impl Checked {
    /// `bytes`, which must have that digest.
    #[must_use]
    pub fn new(digest: Digest, bytes: Arc<dyn Bytes>) -> Checked {
        let state = State { sum: Sha256::new(), at: 0, whole: None };
        Checked { digest, bytes, state: Mutex::new(state) }
    }

    /// Takes in a part that was read; fails where it is the last one, and all together are wrong.
    fn note(&self, offset: u64, part: &[u8]) -> Result<()> {
        let mut state = self.lock();
        if offset == 0 {
            (state.sum, state.at) = (Sha256::new(), 0);
        }
        if offset == state.at {
            state.sum.update(part);
            state.at += part.len() as u64;
        }
        if offset + part.len() as u64 != self.len() {
            return Ok(());
        }
        let stamp = self.bytes.stamp()?;
        let sum = match state.at == self.len() {
            true => state.sum.clone(),
            false if state.whole == Some(stamp) => return Ok(()),
            false => {
                let (sum, at) = (state.sum.clone(), state.at);
                drop(state); // reading takes its time
                let sum = self.rest(sum, at)?;
                state = self.lock();
                sum
            }
        };
        let is_right = Digest::from_hash(sum) == self.digest;
        state.whole = is_right.then_some(stamp);
        match is_right {
            true => Ok(()),
            false => Err(Error::corrupt(self.path(), "not what its name says")),
        }
    }

    /// `sum`, of the bytes up to `at`, made that of all.
    fn rest(&self, mut sum: Sha256, mut at: u64) -> Result<Sha256> {
        let mut chunk = vec![0; CHUNK.min(self.len() as usize)];
        loop {
            let read = self.bytes.read_at(at, &mut chunk)?;
            if read == 0 {
                return Ok(sum);
            }
            sum.update(&chunk[..read]);
            at += read as u64;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bytes for Checked {
    fn len(&self) -> u64 {
        self.bytes.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let read = self.bytes.read_at(offset, buf)?;
        if read > 0 {
            self.note(offset, &buf[..read])?;
        }
        Ok(read)
    }

    fn stamp(&self) -> Result<u64> {
        self.bytes.stamp()
    }

    fn path(&self) -> PathBuf {
        self.bytes.path()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backing::Held;

    fn checked(digest: Digest) -> Checked {
        Checked::new(digest, Arc::new(Held::new("blob", *b"0123456789")))
    }

    #[test]
    fn the_read_that_gives_the_last_byte_decides() {
        let mut buf = [0; 4];
        for order in [&[0, 4, 8][..], &[8], &[4, 0, 8], &[0, 8, 8], &[0, 4, 4, 8], &[0, 4, 0, 8]] {
            let good = checked(Digest::of(b"0123456789"));
            let bad = checked(Digest::of(b"012345678x"));
            for offset in order {
                let read = good.read_at(*offset, &mut buf).unwrap();
                assert_eq!(buf[..read], b"0123456789"[*offset as usize..][..read]);
                assert_eq!(bad.read_at(*offset, &mut buf).is_err(), *offset == 8, "{order:?}");
            }
            assert_eq!(good.read_at(10, &mut buf).unwrap(), 0);
            assert_eq!(good.read_at(9, &mut buf).unwrap(), 1, "it was found right");
        }
    }
}

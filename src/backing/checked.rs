//! Bytes that are held to a digest as they pass.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

use super::Bytes;
use crate::digest::Digest;
use crate::error::{Error, Result};

/// How much is read at once to catch up, in bytes.
const PIECE: usize = 256 << 10;

/// Bytes, and the digest that they must have.
///
/// What is read in order from the start on is hashed as it passes. The read that gives out the last
/// byte decides: it first reads what was left out, and fails where the digest is another one. What
/// passed is not checked again until the stamp moves.
#[derive(Debug)]
pub struct Checked {
    bytes: Arc<dyn Bytes>,
    digest: Digest,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Of what was hashed, and of what passed.
    stamp: u64,
    hash: Sha256,
    /// How many bytes were hashed.
    hashed: u64,
    has_passed: bool,
}

impl State {
    fn new(stamp: u64) -> State {
        State { stamp, hash: Sha256::new(), hashed: 0, has_passed: false }
    }

    fn add(&mut self, part: &[u8]) {
        self.hash.update(part);
        self.hashed += part.len() as u64;
    }
}

impl Checked {
    /// These bytes, which must have that digest.
    #[must_use]
    pub fn new(bytes: Arc<dyn Bytes>, digest: Digest) -> Checked {
        Checked { bytes, digest, state: Mutex::new(State::new(0)) }
    }

    /// Reads all of them, unless they have passed.
    ///
    /// # Errors
    /// Fails when they can't be read, or have another digest.
    pub fn check(&self) -> Result<()> {
        let stamp = self.bytes.stamp()?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.stamp != stamp {
            *state = State::new(stamp);
        }
        self.finish(&mut state)
    }

    /// Hashes what is left, and decides. Whoever comes meanwhile waits.
    fn finish(&self, state: &mut State) -> Result<()> {
        if state.has_passed {
            return Ok(());
        }
        let mut piece = vec![0; PIECE];
        while state.hashed < self.bytes.len() {
            match self.bytes.read_at(state.hashed, &mut piece)? {
                0 => return Err(Error::corrupt(self.path(), "shorter than it was")),
                read => state.add(&piece[..read]),
            }
        }
        let found = Digest::from_hash(state.hash.clone());
        if found != self.digest || self.bytes.stamp()? != state.stamp {
            let why = format!("its bytes do not have the digest {}", self.digest);
            return Err(Error::corrupt(self.path(), why));
        }
        state.has_passed = true;
        Ok(())
    }
}

impl Bytes for Checked {
    fn len(&self) -> u64 {
        self.bytes.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let stamp = self.bytes.stamp()?;
        let read = self.bytes.read_at(offset, buf)?;
        let end = offset.saturating_add(read as u64);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.stamp != stamp {
            *state = State::new(stamp);
        }
        if state.has_passed {
            return Ok(read);
        }
        if (offset..end).contains(&state.hashed) {
            let new = (state.hashed - offset) as usize;
            state.add(&buf[new..read]);
        }
        if end >= self.len() {
            self.finish(&mut state)?;
        }
        Ok(read)
    }

    fn stamp(&self) -> Result<u64> {
        self.bytes.stamp()
    }

    fn version(&self) -> u64 {
        self.bytes.version()
    }

    fn path(&self) -> PathBuf {
        self.bytes.path()
    }

    fn weight(&self) -> usize {
        self.bytes.weight()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backing::Held;

    fn checked(bytes: &[u8], right: &[u8]) -> Checked {
        Checked::new(Arc::new(Held::new("blob", bytes)), Digest::of(right))
    }

    #[test]
    fn the_read_of_the_last_byte_decides() {
        let bytes: Vec<u8> = (0..1_000_000).map(|at| (at % 251) as u8).collect();
        let mut wrong = bytes.clone();
        wrong[500_000] ^= 1;
        for (stored, is_right) in [(&bytes, true), (&wrong, false)] {
            for order in [&[0, 1, 2, 3, 4][..], &[4], &[0, 2, 1, 4], &[3, 2, 1, 0, 4, 4]] {
                let checked = checked(stored, &bytes);
                let mut buf = vec![0; 200_000];
                for &part in order {
                    let result = checked.read_at(part * 200_000, &mut buf);
                    assert_eq!(result.is_ok(), is_right || part < 4, "{order:?}");
                }
            }
            assert_eq!(checked(stored, &bytes).check().is_ok(), is_right);
        }
        assert!(checked(b"", b"").check().is_ok());
        assert!(checked(b"", b"x").check().is_err());
    }
}

//! Checksums by which builders recognise files: tarsum, the classic builder's and BuildKit's.

use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::recipe::Recipe;

pub mod build;
pub mod content;
mod entries;
pub mod tarsum;

/// How many bytes are hashed between two looks whether anybody still waits.
const CHUNK: usize = 1 << 20;

/// Tells whoever computes a sum that nobody waits for it any more.
#[derive(Debug, Default)]
pub struct Cancel(AtomicBool);

impl Cancel {
    /// Nobody waits.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// # Errors
    /// EINTR once nobody waits.
    pub fn check(&self) -> Result<()> {
        match self.0.load(Ordering::Relaxed) {
            true => Err(Error::errno_of("checksum", Errno::INTR)),
            false => Ok(()),
        }
    }
}

/// The SHA-256 of `len` bytes that `read_at` gives.
///
/// # Errors
/// What `read_at` fails with, corrupt where it gives less, and EINTR where nobody waits.
pub fn sha256(
    len: u64,
    read_at: impl Fn(u64, &mut [u8]) -> Result<usize>,
    cancel: &Cancel,
) -> Result<Digest> {
    let mut hash = Sha256::new();
    update(&mut hash, 0..len, read_at, cancel)?;
    Ok(Digest::from_hash(hash))
}

/// The SHA-256 of a whole recipe.
///
/// # Errors
/// As [`sha256`].
pub fn recipe_sha256(recipe: &Recipe, cancel: &Cancel) -> Result<Digest> {
    sha256(recipe.len(), |offset, buf| recipe.read_at(offset, buf), cancel)
}

/// Adds a range of bytes to `hash`.
fn update(
    hash: &mut Sha256,
    range: std::ops::Range<u64>,
    read_at: impl Fn(u64, &mut [u8]) -> Result<usize>,
    cancel: &Cancel,
) -> Result<()> {
    let mut buf = vec![0; range.end.saturating_sub(range.start).min(CHUNK as u64) as usize];
    let mut at = range.start;
    while at < range.end {
        cancel.check()?;
        let wanted = (range.end - at).min(CHUNK as u64) as usize;
        if read_at(at, &mut buf[..wanted])? != wanted {
            return Err(Error::corrupt("checksum", "shorter than it was"));
        }
        hash.update(&buf[..wanted]);
        at += wanted as u64;
    }
    Ok(())
}

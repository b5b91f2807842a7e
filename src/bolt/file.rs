//! A file that its engine writes meanwhile, read without a lock.
//!
//! The writer copies what it changes: transaction n+1 leaves the pages of n as they are, but n+2
//! may overwrite them, and does so before it writes its meta page. So what was read is a state of
//! the database only if n still is the newest once it is read.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::meta::{self, LENGTH, Meta, Metas};
use super::{Damage, Database};
use crate::backing::{BackingFile, Fingerprint, Root};
use crate::error::{Error, Result};

/// Largest database that is read, in bytes. A node's with a thousand images has a few MiB.
const FILE_MAX: u64 = 256 << 20;

/// How often a file is read in a row while its writer is at it. Of the reads under one that never
/// rests, three of four are good at once.
const TRIES: usize = 16;

/// What tells cheaply whether a file has changed: its attributes, and its newest transactions, which
/// move when two changes have the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    dev: u64,
    ino: u64,
    /// Moves when somebody writes over the file, as when it is restored from a copy.
    moved: u64,
    transactions: [Option<u64>; 2],
}

impl Stamp {
    /// That of the file `path` of `root` as it is now.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn read(root: &Root, path: &str) -> Result<Stamp> {
        let file = root.open_file(path)?;
        let metas = metas(&file).map_err(|err| Error::io(root.path().join(path), err))?;
        Ok(Stamp::of(&file, metas))
    }

    fn of(file: &BackingFile, metas: Metas) -> Stamp {
        let transactions = metas.0.map(|meta| meta.map(|meta| meta.transaction));
        let stat = file.stat();
        Stamp { dev: stat.dev, ino: stat.ino, moved: stat.stamp(), transactions }
    }

    /// All of it as one number, about.
    #[must_use]
    pub fn number(&self) -> u64 {
        let mut hash = Fingerprint::new();
        let [first, second] = self.transactions.map(|id| id.unwrap_or(u64::MAX));
        for part in [self.moved, first, second] {
            hash.add(&part.to_le_bytes());
        }
        hash.finish()
    }

    fn is_of_same_file(&self, other: &Stamp) -> bool {
        (self.dev, self.ino) == (other.dev, other.ino)
    }
}

/// A state of a file.
#[derive(Debug)]
pub struct Snapshot {
    /// When it was taken, in transactions.
    pub stamp: Stamp,
    /// What it holds.
    pub database: Database,
}

/// Reads one file again and again, and keeps its newest state.
#[derive(Debug, Default)]
pub struct Reader {
    last: Mutex<Option<Arc<Snapshot>>>,
}

impl Reader {
    /// The state of the file `path` of `root`, at this moment. Where its writer leaves no gap to
    /// read it in, it is the last state that was read of the same file.
    ///
    /// # Errors
    /// Corrupt where it is no whole database, busy where its writer leaves no gap and no state is
    /// kept, else whatever the file system says.
    pub fn read(&self, root: &Root, path: &str) -> Result<Arc<Snapshot>> {
        let shown = root.path().join(path);
        let file = root.open_file(path)?;
        let failed = |err| Error::io(&shown, err);
        let stamp = Stamp::of(&file, metas(&file).map_err(failed)?);
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(last) = last.clone().filter(|last| last.stamp == stamp) {
            return Ok(last);
        }
        let mut was_damaged = false;
        for _ in 0..TRIES {
            match attempt(&file, &shown) {
                Ok(Some(snapshot)) => {
                    let snapshot = Arc::new(snapshot);
                    let mut kept = self.last.lock().unwrap_or_else(PoisonError::into_inner);
                    *kept = Some(snapshot.clone());
                    return Ok(snapshot);
                }
                Ok(None) => {}
                // A file that is just growing is shorter than it says.
                Err(_) if !was_damaged => was_damaged = true,
                Err(err) => return Err(err),
            }
        }
        last.filter(|last| last.stamp.is_of_same_file(&stamp))
            .ok_or_else(|| Error::busy(shown, "it changes faster than it can be read"))
    }
}

/// Reads a state; `None` where it moved meanwhile.
fn attempt(file: &BackingFile, shown: &Path) -> Result<Option<Snapshot>> {
    let failed = |err| Error::io(shown, err);
    let corrupt = |Damage(why)| Error::corrupt(shown, why);
    let before = metas(file).map_err(failed)?;
    let meta = before.newest();
    let bytes = match meta {
        Some(meta) => pages(file, meta).map_err(failed)?.map_err(corrupt)?,
        None => Vec::new(),
    };
    let after = metas(file).map_err(failed)?;
    if after.newest().map(|meta| meta.transaction) != meta.map(|meta| meta.transaction) {
        return Ok(None);
    }
    let meta = meta.ok_or(meta::NONE).map_err(corrupt)?;
    let database = Database::at(bytes, meta).map_err(corrupt)?;
    Ok(Some(Snapshot { stamp: Stamp::of(file, after), database }))
}

/// All pages that `meta` says there are; fewer where the file ends before.
fn pages(file: &BackingFile, meta: &Meta) -> io::Result<Result<Vec<u8>, Damage>> {
    let size = meta.high_water.checked_mul(meta.page_size).filter(|size| *size <= FILE_MAX);
    let Some(size) = size else { return Ok(Err(Damage("larger than 256 MiB"))) };
    let mut bytes = vec![0; size as usize];
    let read = file.read_at(0, &mut bytes)?;
    bytes.truncate(read);
    Ok(Ok(bytes))
}

fn metas(file: &BackingFile) -> io::Result<Metas> {
    Metas::read(|offset| {
        let mut page = [0; LENGTH];
        let read = file.read_at(offset, &mut page)?;
        Ok((read == LENGTH).then_some(page))
    })
}

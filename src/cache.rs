//! What compressed blobs inflate to, outlines of layers' tars, and lengths of exports, kept as long
//! as there is room.
//!
//! What makes it hard:
//! 1. An inflated layer may be larger than all the room there is. It is kept in segments, each a file
//!    of its own; those that are not kept are inflated again from the nearest point where that can
//!    start ([`Index`]).
//! 2. Nothing in the directory is trusted. The index of a layer ends in a digest of itself, and holds
//!    a checksum of every 128 KiB of the layer, to which they are held before they are given out. It
//!    is written once all of the layer was seen to have its diff ID.
//! 3. Several daemons share the directory, and any may be killed at any moment: a file gets its name
//!    once it is whole, and a file that is gone is inflated again. They write by turns, so that they
//!    keep the bound together.
//! 4. Of many readers that want the same, one inflates and the others wait.
//!
//! Without a directory, or where it can't be written, indexes and a few segments stay in memory.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use crate::backing::{Bytes, Checked, Fingerprint};
use crate::digest::{DiffId, Digest};
use crate::error::Result;
use crate::inflate::Compression;
use crate::metrics::{Counter, Usage};

mod disk;
mod index;
mod inflated;
mod kept;
mod length;

pub use disk::{Disk, Stats};
pub use kept::NewFile;

use index::Index;
use inflated::Inflated;

/// How much of a layer one file holds, in bytes.
const SEGMENT: u64 = 4 << 20;

/// How much of a layer one checksum covers, in bytes.
const CHUNK: u64 = 128 << 10;

/// How many segments stay in memory where no disk takes them.
const RECENT: NonZeroUsize = NonZeroUsize::MIN.saturating_add(3);

/// How many inflated layers stay known.
const KNOWN: NonZeroUsize = NonZeroUsize::MIN.saturating_add(31);

/// What was inflated.
#[derive(Debug)]
pub struct Cache {
    disk: Option<Disk>,
    recent: Mutex<LruCache<(Digest, u64), Segment>>,
    known: Mutex<LruCache<Key, Arc<Known>>>,
    counts: Counts,
}

/// What a cache was good for.
#[derive(Debug, Default)]
struct Counts {
    /// Blobs that were inflated whole.
    built: Counter,
    /// Indexes that were on disk.
    found: Counter,
    /// Reads of a segment that was there.
    hits: Counter,
    /// Reads of one that had to be inflated again.
    misses: Counter,
}

/// The bytes of a segment.
type Segment = Arc<[u8]>;

/// An inflated layer, once somebody has asked for it.
type Known = Mutex<Option<Arc<Inflated>>>;

/// What an index is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    /// What the inflated bytes go by: their digest, where it is known.
    output: Digest,
    /// What the compressed bytes go by.
    source: Digest,
}

impl Key {
    fn digest(&self) -> Digest {
        Digest::of(format!("{} {}", self.output, self.source).as_bytes())
    }
}

/// When stored bytes are held to their digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// As they pass.
    Passing,
    /// Before the first one is given out.
    First,
}

impl Cache {
    /// One that keeps what it can in that directory.
    #[must_use]
    pub fn on(disk: Disk) -> Cache {
        Cache { disk: Some(disk), ..Cache::in_memory() }
    }

    /// One that writes nothing: what is read again is inflated again, from the nearest point where
    /// that can start.
    #[must_use]
    pub fn in_memory() -> Cache {
        let (recent, known) = (LruCache::new(RECENT), LruCache::new(KNOWN));
        let (recent, known, counts) = (Mutex::new(recent), Mutex::new(known), Counts::default());
        Cache { disk: None, recent, known, counts }
    }

    /// The uncompressed tar of a layer, whose blob `bytes` go by the digest `blob`. What is compressed
    /// is inflated once for it, unless that was done before, and is right from the first byte on.
    ///
    /// # Errors
    /// Fails where the blob is damaged, inflates to another digest, or can't be read.
    pub fn layer(
        self: &Arc<Cache>,
        bytes: &Arc<dyn Bytes>,
        blob: Digest,
        diff_id: DiffId,
        check: Check,
    ) -> Result<Arc<dyn Bytes>> {
        if Compression::of(&**bytes)? == Compression::None {
            let checked = Checked::new(Arc::clone(bytes), diff_id.0);
            if check == Check::First {
                checked.check()?;
            }
            return Ok(Arc::new(checked));
        }
        let key = Key { output: diff_id.0, source: blob };
        Ok(self.inflated(key, bytes, Some(diff_id.0))?)
    }

    /// Bytes that nobody knows a digest of, such as an archive, uncompressed. They are told from
    /// others by their place and stamp.
    ///
    /// # Errors
    /// Fails where they are damaged or can't be read.
    pub fn uncompressed(self: &Arc<Cache>, bytes: &Arc<dyn Bytes>) -> Result<Arc<dyn Bytes>> {
        if Compression::of(&**bytes)? == Compression::None {
            return Ok(Arc::clone(bytes));
        }
        let mut place = Fingerprint::new();
        place.add(bytes.path().as_os_str().as_encoded_bytes());
        let name = format!("{} {} {}", place.finish(), bytes.stamp()?, bytes.len());
        let name = Digest::of(name.as_bytes());
        Ok(self.inflated(Key { output: name, source: name }, bytes, None)?)
    }

    /// The outline that is kept under `key`. Nobody has checked it, and it may go at any moment.
    #[must_use]
    pub fn outline(&self, key: Digest) -> Option<Arc<dyn Bytes>> {
        Some(Arc::new(self.disk.as_ref()?.open_outline(key)?))
    }

    /// A file to write an outline to that takes some `size` bytes; `None` where nothing can be kept.
    #[must_use]
    pub fn new_outline(&self, key: Digest, size: u64) -> Option<NewFile<'_>> {
        self.disk.as_ref()?.new_outline(key, size)
    }

    /// Keeps an outline where it can.
    pub fn keep_outline(&self, key: Digest, bytes: &[u8]) {
        // Where it is not kept, it is made again.
        let _ = self.disk.as_ref().is_some_and(|disk| disk.write_outline(key, bytes));
    }

    /// The length that is kept under `key`: what it once was, for all that can be told from here.
    #[must_use]
    pub fn length(&self, key: Digest) -> Option<u64> {
        length::parse(&self.disk.as_ref()?.read_length(key)?, key)
    }

    /// Keeps a length where it can.
    pub fn keep_length(&self, key: Digest, len: u64) {
        // Where it is not kept, it is worked out again.
        let _ = self
            .disk
            .as_ref()
            .is_some_and(|disk| disk.write_length(key, &length::encode(key, len)));
    }

    /// Drops a length that turned out to be another.
    pub fn forget_length(&self, key: Digest) {
        if let Some(disk) = &self.disk {
            disk.remove_length(key);
        }
    }

    fn inflated(
        self: &Arc<Cache>,
        key: Key,
        source: &Arc<dyn Bytes>,
        expected: Option<Digest>,
    ) -> Result<Arc<Inflated>> {
        let known = Arc::clone(lock(&self.known).get_or_insert(key, Arc::default));
        let mut known = lock(&known);
        let stamp = source.stamp()?;
        if let Some(inflated) = known.as_ref().filter(|inflated| inflated.is_of(stamp)) {
            return Ok(Arc::clone(inflated));
        }
        let index = match &*known {
            Some(inflated) => Arc::clone(inflated.index()),
            None => Arc::new(self.index(key, source, expected)?),
        };
        let inflated = Inflated::new(self, Arc::clone(source), stamp, key, index);
        let inflated = Arc::new(inflated);
        *known = Some(Arc::clone(&inflated));
        Ok(inflated)
    }

    /// The index of `source`: the stored one, or a new one.
    fn index(&self, key: Key, source: &Arc<dyn Bytes>, expected: Option<Digest>) -> Result<Index> {
        let known = self.stored_index(key, source.len());
        let index = match known {
            Some(index) => {
                self.counts.found.add(1);
                index
            }
            None => {
                self.counts.built.add(1);
                index::build(self, key.output, source, expected)?
            }
        };
        let is_stored = self.disk.as_ref().is_some_and(|disk| {
            let name = key.digest();
            disk.has_index(name) || disk.write_index(name, &index.encode(name, source.len()))
        });
        // What the file tells need not be kept in memory.
        Ok(if is_stored { Index { points: Vec::new(), ..index } } else { index })
    }

    /// The index in the cache's directory.
    fn stored_index(&self, key: Key, size: u64) -> Option<Index> {
        let name = key.digest();
        Index::parse(&self.disk.as_ref()?.read_index(name)?, name, size)
    }

    /// Of indexes: a miss is a blob that was inflated whole.
    #[must_use]
    pub fn index_usage(&self) -> Usage {
        Usage { hits: self.counts.found.value(), misses: self.counts.built.value(), evictions: 0 }
    }

    /// Of segments; an eviction is a file of the directory, whatever was in it.
    #[must_use]
    pub fn segment_usage(&self) -> Usage {
        Usage {
            hits: self.counts.hits.value(),
            misses: self.counts.misses.value(),
            evictions: self.disk.as_ref().map_or(0, Disk::evictions),
        }
    }

    /// Keeps a segment where it can: on disk, else in memory.
    fn keep(&self, output: Digest, segment: u64, bytes: &[u8]) {
        if !self.store(output, segment, bytes) {
            lock(&self.recent).put((output, segment), bytes.into());
        }
    }

    /// Whether a segment was kept on disk.
    fn store(&self, output: Digest, segment: u64, bytes: &[u8]) -> bool {
        self.disk.as_ref().is_some_and(|disk| disk.write_segment(output, segment, bytes))
    }

    fn recent(&self, output: Digest, segment: u64) -> Option<Segment> {
        lock(&self.recent).get(&(output, segment)).cloned()
    }
}

impl Default for Cache {
    fn default() -> Cache {
        Cache::in_memory()
    }
}

/// Where an ordinary user's cache is, and root's; both where `STRATAFS_CACHE` says, if it does.
///
/// Not said where the environment names no home.
#[must_use]
pub fn default_directory() -> Option<PathBuf> {
    let named =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(named) = named("STRATAFS_CACHE") {
        return Some(named);
    }
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from("/var/cache/stratafs"));
    }
    let home = || Some(named("HOME")?.join(".cache"));
    Some(named("XDG_CACHE_HOME").or_else(home)?.join("stratafs"))
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;

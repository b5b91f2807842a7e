//! One inflated layer, read anywhere.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::index::{Index, sum};
use super::kept::stamp;
use super::{CHUNK, Cache, Key, SEGMENT, lock};
use crate::backing::Bytes;
use crate::error::{Error, Result};
use crate::inflate::{Entry, Point, Stream};

#[derive(Debug)]
pub(super) struct Inflated {
    cache: Arc<Cache>,
    source: Arc<dyn Bytes>,
    /// Of `source`, when it was inflated.
    stamp: u64,
    key: Key,
    index: Arc<Index>,
    /// By segment: which chunks of its file were seen to be right.
    passed: Box<[Mutex<Passed>]>,
    /// Where inflating stopped, for whoever goes on from there.
    cursor: Mutex<Option<Stream>>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Passed {
    /// Of the file.
    stamp: u64,
    /// Bit by chunk.
    chunks: u32,
}

impl Inflated {
    pub(super) fn new(
        cache: &Arc<Cache>,
        source: Arc<dyn Bytes>,
        stamp: u64,
        key: Key,
        index: Arc<Index>,
    ) -> Inflated {
        let segments = index.len.div_ceil(SEGMENT);
        let passed = (0..segments).map(|_| Mutex::default()).collect();
        let (cache, cursor) = (Arc::clone(cache), Mutex::new(None));
        Inflated { cache, source, stamp, key, index, passed, cursor }
    }

    /// Whether it reads a source that still has that stamp: one that was replaced never has again.
    pub(super) fn is_of(&self, stamp: u64) -> bool {
        self.stamp == stamp && self.source.stamp().is_ok_and(|now| now == stamp)
    }

    pub(super) fn index(&self) -> &Arc<Index> {
        &self.index
    }

    /// Fills `buf` from byte `within` of a segment on.
    fn read_segment(&self, segment: u64, within: u64, buf: &mut [u8]) -> Result<()> {
        let counts = &self.cache.counts;
        if self.read_stored(segment, within, buf).is_some() {
            counts.hits.add(1);
            return Ok(());
        }
        let mut cursor = lock(&self.cursor);
        // Somebody else may have inflated it meanwhile.
        if self.read_stored(segment, within, buf).is_some() {
            counts.hits.add(1);
            return Ok(());
        }
        let bytes = match self.cache.recent(self.key.output, segment) {
            Some(bytes) => {
                counts.hits.add(1);
                bytes
            }
            None => {
                counts.misses.add(1);
                let bytes = self.inflate(&mut cursor, segment)?;
                self.cache.keep(self.key.output, segment, &bytes);
                bytes.into()
            }
        };
        let from = within as usize;
        let part = bytes.get(from..from + buf.len());
        buf.copy_from_slice(part.ok_or_else(|| self.damaged())?);
        Ok(())
    }

    /// The same from the cache's directory; `None` where it has not these bytes, or wrong ones.
    fn read_stored(&self, segment: u64, within: u64, buf: &mut [u8]) -> Option<()> {
        let disk = self.cache.disk.as_ref()?;
        let file = disk.open_segment(self.key.output, segment)?;
        let size = self.segment_len(segment);
        let stat = file.metadata().ok().filter(|stat| stat.len() == size)?;
        let stamp = stamp(&stat);
        file.read_exact_at(buf, within).ok()?;
        let end = within + buf.len() as u64;
        for chunk in within / CHUNK..end.div_ceil(CHUNK) {
            let (start, past) = (chunk * CHUNK, ((chunk + 1) * CHUNK).min(size));
            let is_read = within <= start && past <= end;
            let bytes = is_read.then(|| &buf[(start - within) as usize..(past - within) as usize]);
            if !self.check(&file, segment, chunk, stamp, bytes)? {
                disk.remove_segment(self.key.output, segment);
                return None;
            }
        }
        Some(())
    }

    /// Whether a chunk of a segment's file has its checksum. `bytes` are all of it, where they were
    /// read.
    fn check(
        &self,
        file: &File,
        segment: u64,
        chunk: u64,
        stamp: u64,
        bytes: Option<&[u8]>,
    ) -> Option<bool> {
        let passed = self.passed.get(segment as usize)?;
        let bit = 1u32 << chunk;
        let known = *lock(passed);
        if known.stamp == stamp && known.chunks & bit != 0 {
            return Some(true);
        }
        let found = match bytes {
            Some(bytes) => sum(bytes),
            None => {
                let start = chunk * CHUNK;
                let mut bytes = vec![0; CHUNK.min(self.segment_len(segment) - start) as usize];
                file.read_exact_at(&mut bytes, start).ok()?;
                sum(&bytes)
            }
        };
        if self.index.sums.get((segment * (SEGMENT / CHUNK) + chunk) as usize) != Some(&found) {
            return Some(false);
        }
        let mut known = lock(passed);
        if known.stamp != stamp {
            *known = Passed { stamp, chunks: 0 };
        }
        known.chunks |= bit;
        Some(true)
    }

    /// Inflates a segment from where the last one ended, or from the nearest point.
    fn inflate(&self, cursor: &mut Option<Stream>, segment: u64) -> Result<Vec<u8>> {
        let start = segment * SEGMENT;
        let point = self.point(start);
        let known = cursor.take().filter(|at| (point.offset..=start).contains(&at.offset()));
        let mut stream = match known {
            Some(stream) => stream,
            None => Stream::at(&self.source, &point)?,
        };
        let mut bytes = vec![0; self.segment_len(segment) as usize];
        // What lies before it goes the same way, and is not kept.
        while stream.offset() < start {
            let room = bytes.len().min((start - stream.offset()) as usize);
            if stream.read(&mut bytes[..room])? == 0 {
                return Err(self.damaged());
            }
        }
        let mut filled = 0;
        while let read @ 1.. = stream.read(&mut bytes[filled..])? {
            filled += read;
        }
        let first = (segment * (SEGMENT / CHUNK)) as usize;
        let sums = self.index.sums.get(first..).unwrap_or_default();
        let is_right = filled == bytes.len()
            && bytes.chunks(CHUNK as usize).zip(sums).all(|(chunk, &right)| sum(chunk) == right);
        if !is_right {
            return Err(self.damaged());
        }
        *cursor = Some(stream);
        Ok(bytes)
    }

    /// Where to start for `offset`: the nearest point that is known, perhaps the start.
    fn point(&self, offset: u64) -> Point {
        let known = match self.index.points.is_empty() {
            true => self.cache.stored_index(self.key, self.source.len()),
            false => None,
        };
        let point = known.as_ref().unwrap_or(&self.index).point(offset);
        point.unwrap_or(Point { offset: 0, from: 0, entry: Entry::Start })
    }

    fn segment_len(&self, segment: u64) -> u64 {
        SEGMENT.min(self.index.len.saturating_sub(segment * SEGMENT))
    }

    fn damaged(&self) -> Error {
        Error::corrupt(self.path(), "inflates to other bytes than it did")
    }
}

impl Bytes for Inflated {
    fn len(&self) -> u64 {
        self.index.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let wanted = self.len().saturating_sub(offset).min(buf.len() as u64) as usize;
        let mut done = 0;
        while done < wanted {
            let at = offset + done as u64;
            let (segment, within) = (at / SEGMENT, at % SEGMENT);
            let count = ((SEGMENT - within) as usize).min(wanted - done);
            self.read_segment(segment, within, &mut buf[done..done + count])?;
            done += count;
        }
        Ok(wanted)
    }

    fn stamp(&self) -> Result<u64> {
        Ok(self.stamp)
    }

    fn version(&self) -> u64 {
        self.source.version()
    }

    fn path(&self) -> PathBuf {
        self.source.path()
    }

    fn weight(&self) -> usize {
        self.index.weight() + self.passed.len() * size_of::<Mutex<Passed>>()
    }
}

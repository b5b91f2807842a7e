//! The directory of a cache: files that are whole or not there, and no more of them than there is
//! room for.
//!
//! `data/HH/DIGEST.NUMBER` are segments, `index/DIGEST` indexes, `outline/DIGEST` outlines of layers'
//! tars, `length/DIGEST` lengths of exports; `tmp/` holds what is being written. The least recently
//! used segments go first, then the others; when a file was used is its time of access, which is
//! set for it.
//!
//! Several processes may write here. They do so by turns ([`Turn`]), since each has to know what the
//! others wrote, or together they would go beyond the bound.

use std::fs::{self, DirBuilder, File, FileTimes};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::SEGMENT;
use super::kept::{KeptFile, NewFile};
use super::length;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::metrics::Counter;

mod turn;

use turn::{Room, Turn};

/// Largest index that is read, in bytes.
const INDEX_MAX: u64 = 256 << 20;

/// This part of the disk stays free.
const FREE: u64 = 20;

/// How much is written at once, in bytes. For more, the kernel takes pages of 2 MiB, which in a
/// virtual machine often have to come from its host first: that costs six times as much.
const PART: usize = 256 << 10;

/// A file's time of access is set anew when it is older than this.
const USED: Duration = Duration::from_secs(60);

/// What is being written for longer than this was left behind by somebody who was killed.
const ABANDONED: Duration = Duration::from_secs(3600);

/// A directory that holds at most so many bytes.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    bound: u64,
    /// Sets the names of this process apart from those of an earlier one with its number.
    opened: u128,
    names: AtomicU64,
    has_warned: AtomicBool,
    evicted: Counter,
}

/// What a cache holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Inflated segments.
    pub segments: u64,
    /// Their bytes.
    pub segment_bytes: u64,
    /// Indexes of inflated layers.
    pub indexes: u64,
    /// Their bytes.
    pub index_bytes: u64,
    /// Outlines of layers' tars.
    pub outlines: u64,
    /// Their bytes.
    pub outline_bytes: u64,
    /// Lengths of exports.
    pub lengths: u64,
    /// Their bytes.
    pub length_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Segment,
    Index,
    Outline,
    Length,
}

/// A file of the cache.
struct Stored {
    path: PathBuf,
    size: u64,
    used: SystemTime,
    kind: Kind,
}

impl Stats {
    /// All bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segment_bytes + self.index_bytes + self.outline_bytes + self.length_bytes
    }
}

impl Disk {
    /// The cache in the directory `path`, which is made where it is missing, of at most `bound` bytes.
    ///
    /// # Errors
    /// Fails where it can't be made or written, or others may write to it.
    pub fn open(path: &Path, bound: u64) -> Result<Disk> {
        let failed = |err| Error::io(path, err);
        let own = rustix::process::geteuid().as_raw();
        for part in ["data", "index", "outline", "length", "tmp", ""] {
            let part = path.join(part);
            make_dir(&part).map_err(failed)?;
            let stat = fs::metadata(&part).map_err(failed)?;
            if stat.uid() != own || stat.mode() & 0o022 != 0 {
                return Err(Error::invalid(part, "others than this user may write to it"));
            }
        }
        let disk = Disk {
            path: path.to_owned(),
            bound,
            opened: SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos()),
            names: AtomicU64::new(0),
            has_warned: AtomicBool::new(false),
            evicted: Counter::default(),
        };
        let probe = disk.temporary();
        fs::write(&probe, b"").and_then(|()| fs::remove_file(&probe)).map_err(failed)?;
        Ok(disk)
    }

    /// What it holds.
    ///
    /// # Errors
    /// Fails when it can't be read.
    pub fn stats(&self) -> Result<Stats> {
        let mut stats = Stats::default();
        for file in self.files().map_err(|err| Error::io(&self.path, err))? {
            let (count, bytes) = match file.kind {
                Kind::Segment => (&mut stats.segments, &mut stats.segment_bytes),
                Kind::Index => (&mut stats.indexes, &mut stats.index_bytes),
                Kind::Outline => (&mut stats.outlines, &mut stats.outline_bytes),
                Kind::Length => (&mut stats.lengths, &mut stats.length_bytes),
            };
            *count += 1;
            *bytes += file.size;
        }
        Ok(stats)
    }

    /// Removes what was used least recently, until no more than `bytes` are left; how many went.
    ///
    /// # Errors
    /// Fails when it can't be read.
    pub fn prune(&self, bytes: u64) -> Result<u64> {
        self.remove(bytes, SystemTime::UNIX_EPOCH)
    }

    /// Removes what nobody has used since `since`; how many bytes went.
    ///
    /// # Errors
    /// Fails when it can't be read.
    pub fn prune_unused(&self, since: SystemTime) -> Result<u64> {
        self.remove(u64::MAX, since)
    }

    fn remove(&self, bound: u64, since: SystemTime) -> Result<u64> {
        let (before, after) =
            self.shrink(bound, since).map_err(|err| Error::io(&self.path, err))?;
        Ok(before - after)
    }

    /// How many files had to go to make room.
    pub(super) fn evictions(&self) -> u64 {
        self.evicted.value()
    }

    pub(super) fn read_index(&self, key: Digest) -> Option<Vec<u8>> {
        read(&self.index_path(key), INDEX_MAX)
    }

    pub(super) fn has_index(&self, key: Digest) -> bool {
        self.index_path(key).exists()
    }

    /// Whether it was written.
    pub(super) fn write_index(&self, key: Digest, bytes: &[u8]) -> bool {
        self.write(&self.index_path(key), bytes)
    }

    pub(super) fn open_outline(&self, key: Digest) -> Option<KeptFile> {
        KeptFile::open(self.outline_path(key))
    }

    /// Whether it was written.
    pub(super) fn write_outline(&self, key: Digest, bytes: &[u8]) -> bool {
        self.write(&self.outline_path(key), bytes)
    }

    /// A file to be written that will take some `size` bytes, where they may find room.
    pub(super) fn new_outline(&self, key: Digest, size: u64) -> Option<NewFile<'_>> {
        let is_possible = size <= self.bound && self.tell(self.has_space(size))?;
        is_possible.then_some(())?;
        self.tell(NewFile::create(self, &self.outline_path(key), self.temporary()))
    }

    pub(super) fn read_length(&self, key: Digest) -> Option<Vec<u8>> {
        read(&self.length_path(key), length::SIZE as u64)
    }

    /// Whether it was written.
    pub(super) fn write_length(&self, key: Digest, bytes: &[u8]) -> bool {
        self.write(&self.length_path(key), bytes)
    }

    pub(super) fn remove_length(&self, key: Digest) {
        // It is wrong. Where it can't be removed, it is seen to be so again.
        let _ = fs::remove_file(self.length_path(key));
    }

    pub(super) fn open_segment(&self, output: Digest, segment: u64) -> Option<File> {
        let file = open(&self.segment_path(output, segment))?;
        touch(&file, &file.metadata().ok()?);
        Some(file)
    }

    /// Whether it was written. Of a layer no more is kept than half of the room: it would drive itself
    /// out.
    pub(super) fn write_segment(&self, output: Digest, segment: u64, bytes: &[u8]) -> bool {
        let end = segment.saturating_add(1).saturating_mul(SEGMENT);
        end <= (self.bound / 2).max(SEGMENT)
            && self.write(&self.segment_path(output, segment), bytes)
    }

    pub(super) fn remove_segment(&self, output: Digest, segment: u64) {
        // It is damaged. Where it can't be removed, it is seen to be so again.
        let _ = fs::remove_file(self.segment_path(output, segment));
    }

    fn index_path(&self, key: Digest) -> PathBuf {
        self.path.join("index").join(key.hex())
    }

    fn outline_path(&self, key: Digest) -> PathBuf {
        self.path.join("outline").join(key.hex())
    }

    fn length_path(&self, key: Digest) -> PathBuf {
        self.path.join("length").join(key.hex())
    }

    fn segment_path(&self, output: Digest, segment: u64) -> PathBuf {
        let hex = output.hex();
        self.path.join("data").join(&hex[..2]).join(format!("{hex}.{segment}"))
    }

    fn temporary(&self) -> PathBuf {
        let number = self.names.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}.{}.{number}", std::process::id(), self.opened);
        self.path.join("tmp").join(name)
    }

    /// Writes a file whole, or not at all.
    fn write(&self, path: &Path, bytes: &[u8]) -> bool {
        let written = self.keep(bytes.len() as u64, || self.put(path, bytes));
        self.tell(written).unwrap_or(false)
    }

    /// Says once that nothing can be written here.
    pub(super) fn tell<T>(&self, result: io::Result<T>) -> Option<T> {
        let failed = |err| {
            if !self.has_warned.swap(true, Ordering::Relaxed) {
                tracing::warn!("{}: nothing is kept here: {err}", self.path.display());
            }
        };
        result.map_err(failed).ok()
    }

    /// Makes room for a file of `len` bytes, and calls `put` to give it its name; whether it did.
    pub(super) fn keep(&self, len: u64, put: impl FnOnce() -> io::Result<()>) -> io::Result<bool> {
        let Some(turn) = Turn::take(&self.path)? else { return Ok(false) };
        let room = self.make_room(turn.room()?, len)?;
        let after = room.after(len);
        let has_room = after.held <= self.bound && self.has_space(len)?;
        // Counted before it is there: whoever is killed meanwhile leaves a count that is too high.
        turn.note(if has_room { after } else { room })?;
        if has_room {
            put()?;
        }
        Ok(has_room)
    }

    /// Whether the disk's part stays free after `bytes` more.
    pub(super) fn has_space(&self, bytes: u64) -> io::Result<bool> {
        self.missing_on_disk(bytes).map(|missing| missing == 0)
    }

    fn put(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        if let Some(parent) = path.parent() {
            make_dir(parent)?;
        }
        let temporary = self.temporary();
        let written = write_parts(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
        if written.is_err() {
            // It may not even be there; what is left behind goes later.
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    /// Makes room for `bytes` more where there is none: the least recently used go.
    fn make_room(&self, known: Option<Room>, bytes: u64) -> io::Result<Room> {
        // Files that were written twice or removed are no longer counted right.
        let room = match known.filter(|room| room.written <= self.bound / 16) {
            Some(room) => room,
            None => Room::looked_at(self.files()?.iter().map(|file| file.size).sum()),
        };
        let mut lacking = room.held.saturating_add(bytes).saturating_sub(self.bound);
        lacking = lacking.max(self.missing_on_disk(bytes)?);
        if lacking == 0 {
            return Ok(room);
        }
        let bound = room.held.saturating_sub(lacking.max(self.bound / 16));
        let (_, held) = self.shrink(bound, SystemTime::UNIX_EPOCH)?;
        Ok(Room::looked_at(held))
    }

    /// How many bytes the disk lacks so that its part stays free after `bytes` more.
    fn missing_on_disk(&self, bytes: u64) -> io::Result<u64> {
        let disk = rustix::fs::statvfs(&self.path)?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let kept = disk.f_blocks.saturating_mul(disk.f_frsize) / FREE;
        Ok(kept.saturating_add(bytes).saturating_sub(free))
    }

    /// Leaves at most `bound` bytes, and nothing that was used last before `since`. What it holds
    /// before and after.
    fn shrink(&self, bound: u64, since: SystemTime) -> io::Result<(u64, u64)> {
        let mut files = self.files()?;
        files.sort_by_key(|file| (file.kind != Kind::Segment, file.used));
        let before: u64 = files.iter().map(|file| file.size).sum();
        let mut held = before;
        for file in &files {
            if held <= bound && file.used >= since {
                continue;
            }
            match fs::remove_file(&file.path) {
                Ok(()) => {
                    self.evicted.add(1);
                    held -= file.size;
                }
                // Another daemon was faster.
                Err(err) if err.kind() == io::ErrorKind::NotFound => held -= file.size,
                Err(err) => return Err(err),
            }
        }
        self.clean_up();
        Ok((before, held))
    }

    /// Removes what others left half written.
    fn clean_up(&self) {
        let Ok(entries) = fs::read_dir(self.path.join("tmp")) else { return };
        for entry in entries.flatten() {
            let age = entry.metadata().ok().and_then(|stat| stat.modified().ok()?.elapsed().ok());
            if age.is_some_and(|age| age > ABANDONED) {
                // Whoever comes next tries again.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn files(&self) -> io::Result<Vec<Stored>> {
        let mut files = Vec::new();
        for shelf in fs::read_dir(self.path.join("data"))? {
            let shelf = shelf?;
            if shelf.file_type()?.is_dir() {
                collect(&shelf.path(), Kind::Segment, &mut files)?;
            }
        }
        collect(&self.path.join("index"), Kind::Index, &mut files)?;
        collect(&self.path.join("outline"), Kind::Outline, &mut files)?;
        collect(&self.path.join("length"), Kind::Length, &mut files)?;
        Ok(files)
    }
}

fn collect(dir: &Path, kind: Kind, files: &mut Vec<Stored>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // It may be gone again.
        let Ok(stat) = entry.metadata() else { continue };
        if stat.is_file() {
            let used = stat.accessed().unwrap_or(SystemTime::UNIX_EPOCH);
            files.push(Stored { path: entry.path(), size: stat.len(), used, kind });
        }
    }
    Ok(())
}

fn make_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn write_parts(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    bytes.chunks(PART).try_for_each(|part| file.write_all(part))
}

pub(super) fn open(path: &Path) -> Option<File> {
    let mut options = File::options();
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    options.read(true).custom_flags(flags).open(path).ok()
}

/// All of a file of at most `most` bytes.
fn read(path: &Path, most: u64) -> Option<Vec<u8>> {
    let file = open(path)?;
    let stat = file.metadata().ok().filter(|stat| stat.len() <= most)?;
    touch(&file, &stat);
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Notes that a file is used.
pub(super) fn touch(file: &File, stat: &fs::Metadata) {
    let age = stat.accessed().ok().and_then(|used| used.elapsed().ok());
    if age.is_some_and(|age| age > USED) {
        // Where it can't be noted, the file goes earlier than it should.
        let _ = file.set_times(FileTimes::new().set_accessed(SystemTime::now()));
    }
}

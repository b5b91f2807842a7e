//! A layer that is unpacked, by the outline of its tar-split record: kept in the cache, or made of the
//! record once.
//!
//! What makes it hard: the kept file may be damaged, or go, at any moment, long after its table was
//! found right. A block that is not what the table says is never used: the outline is made again, must
//! be the same, and is held in memory from then on. Which bytes a layer's tar has hangs on its record
//! alone, so that is what an outline goes by: the diff ID, and the record's size, times and number.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::layer;
use crate::backing::{BackingFile, Bytes, Held, Root};
use crate::cache::{Cache, NewFile};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::recipe::{Pages, Recipe};
use crate::store::{Layer, LayerDir};
use crate::tar::outline::{Block, Draft, Outline, Part, Writer};
use crate::tar::split::{self, SplitError};

/// How many blocks may wait to be compressed while the record is read on.
const AHEAD: usize = 4;

/// The outline of one layer.
#[derive(Debug)]
pub(super) struct Outlined {
    record: Record,
    dirs: Vec<LayerDir>,
    cache: Arc<Cache>,
    outline: Outline,
    /// Where the blocks are.
    file: Mutex<Arc<dyn Bytes>>,
    /// Held while the blocks are made again.
    renewing: Mutex<()>,
    /// Memory that it took when it was opened, in bytes.
    weight: usize,
}

/// A tar-split file, as it was when it was first looked at.
#[derive(Debug)]
struct Record {
    root: Arc<Root>,
    path: PathBuf,
    diff_id: Digest,
    key: Digest,
}

impl Outlined {
    /// That of `layer`, whose record is the file `path` beneath `root`.
    ///
    /// # Errors
    /// Fails where the record is gone, or is needed and damaged.
    pub(super) fn open(
        layer: &Layer,
        root: &Arc<Root>,
        path: &Path,
        cache: &Arc<Cache>,
    ) -> Result<Outlined> {
        if layer.dirs.is_empty() {
            return Err(Error::corrupt(&layer.directory, "no layer directory"));
        }
        let (root, path, diff_id) = (Arc::clone(root), path.to_owned(), layer.diff_id.0);
        let mut record = Record { root, path, diff_id, key: diff_id };
        let open = record.open()?;
        record.key = key(diff_id, &open);
        let kept = cache.outline(record.key);
        let kept = kept.and_then(|file| Some((Outline::read(&*file, record.key)?, file)));
        let (outline, file) = match kept {
            Some(kept) => kept,
            None => record.outline(open, cache)?,
        };
        let weight = outline.weight() + file.weight();
        Ok(Outlined {
            record,
            dirs: layer.dirs.clone(),
            cache: Arc::clone(cache),
            outline,
            file: Mutex::new(file),
            renewing: Mutex::new(()),
            weight,
        })
    }

    /// Calls `visit` with all parts of the tar, in order.
    pub(super) fn visit(&self, mut visit: impl FnMut(Part<'_>)) -> Result<()> {
        for index in 0..self.outline.blocks() {
            let block = self.block(index)?;
            block.parts().ok_or_else(|| self.damaged())?.into_iter().for_each(&mut visit);
        }
        Ok(())
    }

    fn block(&self, index: usize) -> Result<Block> {
        let file = Arc::clone(&lock(&self.file));
        if let Some(block) = self.outline.block(&*file, index) {
            return Ok(block);
        }
        let file = self.renewed(&file)?;
        self.outline.block(&*file, index).ok_or_else(|| self.damaged())
    }

    /// The blocks once more, after those in `damaged` were not what they should be.
    fn renewed(&self, damaged: &Arc<dyn Bytes>) -> Result<Arc<dyn Bytes>> {
        let _renewing = lock(&self.renewing);
        let file = Arc::clone(&lock(&self.file));
        if !Arc::ptr_eq(&file, damaged) {
            return Ok(file);
        }
        tracing::info!("{}: gone or damaged, and made again", damaged.path().display());
        let (outline, bytes) = self.record.in_memory(self.record.reopen()?)?;
        if outline != self.outline {
            return Err(self.damaged());
        }
        self.cache.keep_outline(self.record.key, &bytes);
        let file: Arc<dyn Bytes> = Arc::new(Held::new(damaged.path(), bytes));
        *lock(&self.file) = Arc::clone(&file);
        Ok(file)
    }

    fn damaged(&self) -> Error {
        Error::corrupt(self.record.shown(), "it does not give the same twice")
    }
}

impl Pages for Outlined {
    fn ends(&self) -> Vec<u64> {
        self.outline.ends().collect()
    }

    fn page(&self, index: usize) -> Result<Recipe> {
        let block = self.block(index)?;
        layer::page(&block, &self.dirs).ok_or_else(|| self.damaged())?
    }

    fn is_gone(&self) -> bool {
        self.dirs.iter().any(|dir| dir.root.is_removed())
    }

    fn weight(&self) -> usize {
        self.weight
    }
}

/// What an outline goes by.
fn key(diff_id: Digest, record: &BackingFile) -> Digest {
    let stat = record.stat();
    // The stamp alone is short for what is kept for years.
    let identity = (stat.size, stat.ino, stat.mtime, stat.ctime);
    Digest::of(format!("{diff_id} {:x} {identity:?}", stat.stamp()).as_bytes())
}

impl Record {
    fn shown(&self) -> PathBuf {
        self.root.path().join(&self.path)
    }

    fn open(&self) -> Result<BackingFile> {
        self.root.open_file(&self.path).map_err(|err| match err {
            err if err.is_not_found() || err.is_misplaced() => {
                let why = "missing: the layer's tar can't be rebuilt without it";
                Error::corrupt(self.shown(), why)
            }
            err => err,
        })
    }

    /// The same file once more.
    fn reopen(&self) -> Result<BackingFile> {
        let open = self.open()?;
        match key(self.diff_id, &open) == self.key {
            true => Ok(open),
            false => Err(self.changed()),
        }
    }

    fn changed(&self) -> Error {
        Error::corrupt(self.shown(), "changed since it was read first")
    }

    /// Makes the outline, and keeps it where it can: in the cache, else in memory.
    fn outline(&self, open: BackingFile, cache: &Cache) -> Result<(Outline, Arc<dyn Bytes>)> {
        // They are of about the same size.
        if let Some(mut file) = cache.new_outline(self.key, open.stat().size)
            && let Some(outline) = self.write(self.reopen()?, |bytes| file.write(bytes))?
            && let Some(kept) = NewFile::finish(file)
        {
            return Ok((outline, kept));
        }
        let (outline, bytes) = self.in_memory(open)?;
        Ok((outline, Arc::new(Held::new(self.shown(), bytes))))
    }

    /// The outline and its bytes.
    fn in_memory(&self, open: BackingFile) -> Result<(Outline, Vec<u8>)> {
        let mut bytes = Vec::new();
        let keep = |part: &[u8]| {
            bytes.extend_from_slice(part);
            true
        };
        let outline = self.write(open, keep)?;
        let too_long = || Error::corrupt(self.shown(), "longer than a file can be");
        Ok((outline.ok_or_else(too_long)?, bytes))
    }

    /// Gives the bytes of the outline to `write`, front to back. `None` where it said false, or what
    /// the record tells of is too long. A second thread compresses.
    fn write(
        &self,
        mut open: BackingFile,
        write: impl FnMut(&[u8]) -> bool + Send,
    ) -> Result<Option<Outline>> {
        let (full, drafts) = sync_channel::<Draft>(AHEAD);
        thread::scope(|scope| {
            let writing = scope.spawn(move || pack(self.key, &drafts, write));
            let read = read(&mut open, |draft| full.send(draft).is_ok());
            drop(full);
            let written = writing.join();
            let written =
                written.map_err(|_| Error::corrupt(self.shown(), "compressing failed"))?;
            let now = open.stat_now().map_err(|err| Error::io(self.shown(), err))?;
            match read {
                Ok(()) if now.stamp() != open.stat().stamp() => Err(self.changed()),
                Ok(()) => Ok(written),
                // It read on in vain.
                Err(Problem::Unwanted) => Ok(None),
                Err(Problem::Record(SplitError(why))) => Err(Error::corrupt(self.shown(), why)),
            }
        })
    }
}

/// Reads a record from front to back, as long as what it holds is wanted.
fn read(record: impl Read, mut give: impl FnMut(Draft) -> bool) -> Result<(), Problem> {
    let mut draft = Draft::new();
    split::read(record, |entry| {
        draft.push(&entry);
        match draft.is_full() && !give(std::mem::replace(&mut draft, Draft::new())) {
            true => Err(Problem::Unwanted),
            false => Ok(()),
        }
    })?;
    match draft.is_empty() || give(draft) {
        true => Ok(()),
        false => Err(Problem::Unwanted),
    }
}

fn pack(
    key: Digest,
    drafts: &Receiver<Draft>,
    mut write: impl FnMut(&[u8]) -> bool,
) -> Option<Outline> {
    let mut writer = Writer::new();
    for draft in drafts {
        let block = writer.block(&draft)?;
        write(&block).then_some(())?;
    }
    write(&writer.end(key)).then(|| writer.finish())
}

enum Problem {
    Record(SplitError),
    /// Nobody takes it.
    Unwanted,
}

impl From<SplitError> for Problem {
    fn from(err: SplitError) -> Problem {
        Problem::Record(err)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Files of a cache's directory: one that is read in parts, one that is being written.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{Disk, open, touch};
use crate::backing::{Bytes, Fingerprint};
use crate::error::{Error, Result};

/// A whole file of the cache. Opened anew for each read, and it may be gone by then.
#[derive(Debug)]
pub(super) struct KeptFile {
    path: PathBuf,
    len: u64,
}

impl KeptFile {
    /// The file at `path`, if there is one.
    pub(super) fn open(path: PathBuf) -> Option<KeptFile> {
        let len = open(&path)?.metadata().ok().filter(fs::Metadata::is_file)?.len();
        Some(KeptFile { path, len })
    }

    fn file(&self) -> Result<(File, fs::Metadata)> {
        let file = open(&self.path).ok_or_else(|| Error::stale(&self.path))?;
        let stat = file.metadata().map_err(|err| Error::io(&self.path, err))?;
        Ok((file, stat))
    }
}

impl Bytes for KeptFile {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let (file, stat) = self.file()?;
        if stat.len() != self.len {
            return Err(Error::corrupt(&self.path, "not as long as it was"));
        }
        touch(&file, &stat);
        let wanted = self.len.saturating_sub(offset).min(buf.len() as u64) as usize;
        let read = file.read_exact_at(&mut buf[..wanted], offset);
        read.map(|()| wanted).map_err(|err| Error::io(&self.path, err))
    }

    fn stamp(&self) -> Result<u64> {
        Ok(stamp(&self.file()?.1).max(1))
    }

    fn path(&self) -> PathBuf {
        self.path.clone()
    }
}

/// A stamp that moves when a file of the cache is written anew.
pub(super) fn stamp(stat: &fs::Metadata) -> u64 {
    let mut stamp = Fingerprint::new();
    for part in [stat.ino(), stat.mtime().cast_unsigned(), stat.mtime_nsec().cast_unsigned()] {
        stamp.add(&part.to_le_bytes());
    }
    stamp.finish()
}

/// A file that is being written. It gets its name once it is whole, or none.
#[derive(Debug)]
pub struct NewFile<'a> {
    disk: &'a Disk,
    path: PathBuf,
    temporary: PathBuf,
    file: File,
    written: u64,
}

impl<'a> NewFile<'a> {
    pub(super) fn create(disk: &'a Disk, path: &Path, temporary: PathBuf) -> io::Result<Self> {
        let file = File::options().write(true).create_new(true).open(&temporary)?;
        Ok(NewFile { disk, path: path.to_owned(), temporary, file, written: 0 })
    }

    /// Adds what comes next. False where there is no room, after which the file is of no use.
    pub fn write(&mut self, bytes: &[u8]) -> bool {
        self.written += bytes.len() as u64;
        let written =
            self.disk.has_space(bytes.len() as u64).and_then(|has_space| match has_space {
                true => self.file.write_all(bytes).map(|()| true),
                false => Ok(false),
            });
        self.disk.tell(written).unwrap_or(false)
    }

    /// The whole file, under its name; `None` where it can't be kept.
    #[must_use]
    pub fn finish(self) -> Option<Arc<dyn Bytes>> {
        let name_it = || fs::rename(&self.temporary, &self.path);
        // On disk it is already; what is asked for here is room under the bound.
        match self.disk.tell(self.disk.keep(self.written, name_it))? {
            true => Some(Arc::new(KeptFile::open(self.path.clone())?)),
            false => None,
        }
    }
}

impl Drop for NewFile<'_> {
    fn drop(&mut self) {
        // It has its name by now, or is of no use; what is left behind goes later.
        let _ = fs::remove_file(&self.temporary);
    }
}

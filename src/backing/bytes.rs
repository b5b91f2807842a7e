//! Bytes that never change, wherever they are kept.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Root;
use crate::error::{Error, Result};

/// A run of bytes that can be read anywhere and never changes: a stored blob, a member of an
/// archive, what a compressed blob inflates to.
///
/// Nobody has checked them yet against a digest.
pub trait Bytes: fmt::Debug + Send + Sync {
    /// How many there are.
    fn len(&self) -> u64;

    /// True where there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buf` from byte `offset` on, and returns how many bytes were read: `buf.len()`, or
    /// less only at the end.
    ///
    /// # Errors
    /// Fails when they can't be read, or what holds them has another size than it had.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize>;

    /// A stamp that moves whenever the bytes may have, never 0.
    ///
    /// # Errors
    /// Fails when what holds them is gone.
    fn stamp(&self) -> Result<u64>;

    /// Which of the files that may come into each other's place holds them: what was made of one is
    /// not to be had from another. 0 where none may.
    fn version(&self) -> u64 {
        0
    }

    /// Where they are, for messages.
    fn path(&self) -> PathBuf;

    /// Memory that it takes to read them, in bytes, about; always the same.
    fn weight(&self) -> usize {
        0
    }
}

/// A part of a file of a store, or all of it. Opened anew for each read.
#[derive(Debug, Clone)]
pub struct FileRange {
    root: Arc<Root>,
    path: PathBuf,
    offset: u64,
    len: u64,
    /// Size of the whole file.
    size: u64,
    /// The whole file's stamp, where it may not change at all.
    stamp: Option<u64>,
}

impl FileRange {
    /// The whole of the file `path` beneath `root`, as large as it is now.
    ///
    /// # Errors
    /// As [`Root::open_file`].
    pub fn whole(root: &Arc<Root>, path: impl Into<PathBuf>) -> Result<FileRange> {
        let path = path.into();
        let size = root.open_file(&path)?.stat().size;
        Ok(FileRange { root: Arc::clone(root), path, offset: 0, len: size, size, stamp: None })
    }

    /// As [`FileRange::whole`], for a file that somebody may write or replace: once it has changed
    /// in any way, reads fail as stale.
    ///
    /// # Errors
    /// As [`Root::open_file`].
    pub fn pinned(root: &Arc<Root>, path: impl Into<PathBuf>) -> Result<FileRange> {
        let path = path.into();
        let stat = *root.open_file(&path)?.stat();
        let (root, size) = (Arc::clone(root), stat.size);
        Ok(FileRange { root, path, offset: 0, len: size, size, stamp: Some(stat.stamp()) })
    }

    /// `len` bytes of this one from `offset` on; `None` where it has not as many.
    #[must_use]
    pub fn part(&self, offset: u64, len: u64) -> Option<FileRange> {
        offset.checked_add(len).filter(|&end| end <= self.len)?;
        Some(FileRange { offset: self.offset + offset, len, ..self.clone() })
    }

    fn open(&self) -> Result<super::BackingFile> {
        let gone = |err: Error| match err.is_not_found() || err.is_misplaced() {
            true => Error::stale(self.path()),
            false => err,
        };
        let file = self.root.open_file(&self.path).map_err(gone)?;
        if self.stamp.is_some_and(|stamp| stamp != file.stat().stamp()) {
            return Err(Error::stale(self.path()));
        }
        if file.stat().size != self.size {
            return Err(Error::corrupt(self.path(), "has another size than it had"));
        }
        Ok(file)
    }
}

impl Bytes for FileRange {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let wanted = self.len.saturating_sub(offset).min(buf.len() as u64) as usize;
        if wanted == 0 {
            return Ok(0);
        }
        let read = self.open()?.read_at(self.offset + offset, &mut buf[..wanted]);
        let read = read.map_err(|err| Error::io(self.path(), err))?;
        if self.stamp.is_some() {
            self.open()?; // what was read may have been written after the check before it
        }
        match read {
            read if read == wanted => Ok(read),
            _ => Err(Error::corrupt(self.path(), "shorter than it was")),
        }
    }

    fn stamp(&self) -> Result<u64> {
        Ok(self.open()?.stat().stamp())
    }

    fn version(&self) -> u64 {
        self.stamp.unwrap_or(0)
    }

    fn path(&self) -> PathBuf {
        self.root.path().join(&self.path)
    }
}

/// Bytes in memory.
#[derive(Debug, Clone)]
pub struct Held {
    path: PathBuf,
    bytes: Arc<[u8]>,
}

impl Held {
    /// These bytes, which came from `path` or are named so in messages.
    #[must_use]
    pub fn new(path: impl AsRef<Path>, bytes: impl Into<Arc<[u8]>>) -> Held {
        Held { path: path.as_ref().to_owned(), bytes: bytes.into() }
    }
}

impl Bytes for Held {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let from = offset.min(self.len()) as usize;
        let read = buf.len().min(self.bytes.len() - from);
        buf[..read].copy_from_slice(&self.bytes[from..from + read]);
        Ok(read)
    }

    fn stamp(&self) -> Result<u64> {
        Ok(1)
    }

    fn path(&self) -> PathBuf {
        self.path.clone()
    }
    fn weight(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::io::Errno;

    use super::*;
    use crate::backing::Access;

    #[test]
    fn a_part_reads_like_that_part_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "0123456789").unwrap();
        let root = Arc::new(Root::open(dir.path(), Access::Sealed).unwrap());
        let whole = FileRange::whole(&root, "file").unwrap();
        let part = whole.part(2, 6).unwrap().part(1, 4).unwrap();
        let mut buf = [0; 8];
        assert_eq!(part.read_at(1, &mut buf).unwrap(), 3);
        assert_eq!(&buf[..3], b"456");
        assert_eq!(part.read_at(4, &mut buf).unwrap(), 0);
        assert_eq!(part.read_at(u64::MAX, &mut buf).unwrap(), 0);
        assert!(whole.part(6, 5).is_none() && whole.part(u64::MAX, 2).is_none());
        let stamp = part.stamp().unwrap();
        fs::write(dir.path().join("file"), "0123456789ab").unwrap();
        assert!(part.read_at(0, &mut buf).is_err() && stamp != 0);
    }

    #[test]
    fn a_pinned_file_is_stale_once_it_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("file"), dir.path().join("other"));
        fs::write(&path, "0123456789").unwrap();
        let root = Arc::new(Root::open(dir.path(), Access::Sealed).unwrap());
        let pinned = FileRange::pinned(&root, "file").unwrap().part(2, 4).unwrap();
        let whole = FileRange::whole(&root, "file").unwrap();
        let mut buf = [0; 4];
        assert_eq!((pinned.read_at(0, &mut buf).unwrap(), &buf), (4, b"2345"));
        fs::write(&other, "abcdefghij").unwrap();
        fs::rename(&other, &path).unwrap();
        assert_eq!(pinned.read_at(0, &mut buf).unwrap_err().errno(), Errno::STALE);
        assert_eq!(whole.read_at(0, &mut buf).unwrap(), 4);
        fs::remove_file(&path).unwrap();
        assert_eq!(pinned.read_at(0, &mut buf).unwrap_err().errno(), Errno::STALE);
    }
}

//! A regular file of a store, open for reading.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::ABS;
use rustix::io::Errno;

use super::packed::PackedFile;
use super::{FileKind, Stat};

/// A regular file, open for reading.
#[derive(Debug)]
pub struct BackingFile {
    pub(super) contents: Contents,
    pub(super) stat: Stat,
    /// Where [`io::Read`] goes on.
    pub(super) next: u64,
}

#[derive(Debug)]
pub(super) enum Contents {
    Disk(File),
    Packed(PackedFile),
}

impl BackingFile {
    pub(super) fn check(fd: BorrowedFd<'_>) -> io::Result<Stat> {
        let stat = Stat::from_raw(&rustix::fs::fstat(fd)?)?;
        match stat.kind {
            FileKind::Regular => Ok(stat),
            FileKind::Directory => Err(Errno::ISDIR.into()),
            FileKind::Symlink => Err(Errno::LOOP.into()),
            FileKind::CharDevice | FileKind::BlockDevice | FileKind::Fifo | FileKind::Socket => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file"))
            }
        }
    }

    /// Its attributes when it was opened.
    #[must_use]
    pub fn stat(&self) -> &Stat {
        &self.stat
    }

    /// Its descriptor, for system calls that copy without reading.
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &self.contents {
            Contents::Disk(file) => Some(file.as_fd()),
            Contents::Packed(_) => None,
        }
    }

    /// Its attributes at this moment.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn stat_now(&self) -> io::Result<Stat> {
        match &self.contents {
            Contents::Disk(file) => Stat::from_raw(&rustix::fs::fstat(file)?),
            Contents::Packed(_) => Ok(self.stat),
        }
    }

    /// Fills `buf` from byte `offset` on, and returns how many bytes were read: `buf.len()`, or
    /// less only where the file ends.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let file = match &self.contents {
            Contents::Disk(file) => file,
            Contents::Packed(file) => return file.read_at(offset, buf),
        };
        let mut done = 0;
        while done < buf.len() {
            match file.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
        }
        Ok(done)
    }

    /// The first byte of data (or of a hole) at or after `offset`; `None` where there is no more.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn seek(&self, offset: u64, seek: Seek) -> io::Result<Option<u64>> {
        let file = match &self.contents {
            Contents::Disk(file) => file,
            Contents::Packed(file) => return Ok(file.seek(offset, seek)),
        };
        let from = match seek {
            Seek::Data => rustix::fs::SeekFrom::Data(offset),
            Seek::Hole => rustix::fs::SeekFrom::Hole(offset),
        };
        match rustix::fs::seek(file, from) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NXIO) => Ok(None),
            Err(err) => Err(err.into()),
        }
    }
}

impl AsFd for BackingFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.contents {
            Contents::Disk(file) => file.as_fd(),
            Contents::Packed(_) => ABS,
        }
    }
}

impl io::Read for BackingFile {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.read_at(self.next, buf)?;
        self.next += read as u64;
        Ok(read)
    }
}

/// What to look for in a sparse file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seek {
    /// Bytes that are stored.
    Data,
    /// A run of zeros that is not stored; the end of a file counts as one.
    Hole,
}

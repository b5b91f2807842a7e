//! Where the bytes of a file go: a stream, or a file that may have the beginning of them already.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;

use rustix::io::Errno;

use super::pour::Sink;
use crate::backing::{BackingFile, Seek};

/// Runs of zeros of this length and alignment become holes, in bytes: the largest page size.
const HOLE: u64 = 64 << 10;

/// Most bytes that one call is asked to copy: what it may do in one go (Linux `MAX_RW_COUNT`).
const COPIED_MAX: u64 = 0x7fff_f000;

/// Something that takes bytes as they come: a pipe, a terminal, a device.
#[derive(Debug)]
pub(super) struct Stream(pub(super) File);

impl Sink for Stream {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    /// A pipe would hold pages that may still change, and nothing else takes them.
    fn put_file(&mut self, _: &BackingFile, _: u64, _: u64) -> io::Result<bool> {
        Ok(false)
    }
}

/// A regular file. What it has of the bytes stays; from the first other byte on it is written anew.
#[derive(Debug)]
pub(super) struct Regular {
    file: File,
    /// How far it holds what was put.
    at: u64,
    /// How far it goes with what it had before, while all of that was right.
    had: u64,
    /// How much of that was right.
    kept: u64,
    compared: Vec<u8>,
}

impl Regular {
    /// A file that is to hold `size` bytes. What is longer is no beginning of them.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub(super) fn new(file: File, size: u64) -> io::Result<Regular> {
        let mut had = file.metadata()?.len();
        if had > size {
            file.set_len(0)?;
            had = 0;
        }
        Ok(Regular { file, at: 0, had, kept: 0, compared: Vec::new() })
    }

    /// The file, as long as what was put, and how much of it was there before.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub(super) fn finish(self) -> io::Result<(File, u64)> {
        if self.had.max(self.at) != self.kept {
            self.file.set_len(self.at)?;
        }
        Ok((self.file, self.kept))
    }

    /// How many of `bytes` are there already.
    fn known(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.had.saturating_sub(self.at).min(bytes.len() as u64) as usize;
        if count == 0 {
            return Ok(0);
        }
        self.compared.resize(count, 0);
        self.file.read_exact_at(&mut self.compared, self.at)?;
        if self.compared == bytes[..count] {
            self.kept = self.at + count as u64;
            return Ok(count);
        }
        self.file.set_len(self.at)?;
        self.had = self.at;
        Ok(0)
    }

    /// Writes at `offset`, past all that the file has, and leaves holes where there are only zeros.
    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let (mut from, mut at) = (0, 0);
        while at < bytes.len() {
            let position = offset + at as u64;
            let aligned = (position + 1).next_multiple_of(HOLE) - position;
            let end = bytes.len().min(at + aligned as usize);
            if aligned == HOLE && is_zero(&bytes[at..end]) {
                self.file.write_all_at(&bytes[from..at], offset + from as u64)?;
                from = end;
            }
            at = end;
        }
        self.file.write_all_at(&bytes[from..], offset + from as u64)
    }
}

impl Sink for Regular {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        let known = self.known(bytes)?;
        self.write(&bytes[known..], self.at + known as u64)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn put_file(&mut self, file: &BackingFile, at: u64, count: u64) -> io::Result<bool> {
        let Some(from) = file.descriptor().filter(|_| self.at >= self.had) else {
            return Ok(false);
        };
        let is_copied = self.copy(file, from, at, count)?;
        if !is_copied || file.stat_now()?.stamp() != file.stat().stamp() {
            self.file.set_len(self.at)?; // what was copied of it goes
            return Ok(false);
        }
        self.at += count;
        Ok(true)
    }
}

impl Regular {
    /// Lets the kernel copy what of a part of `file` is no hole; `false` where it can't: from another
    /// file system, or on one that knows no such thing.
    fn copy(
        &self,
        file: &BackingFile,
        from: BorrowedFd<'_>,
        at: u64,
        count: u64,
    ) -> io::Result<bool> {
        let end = at + count;
        let mut next = file.seek(at, Seek::Data)?.filter(|&data| data < end);
        while let Some(data) = next {
            let hole = file.seek(data, Seek::Hole)?.unwrap_or(end).min(end);
            let (mut source, mut target) = (data, self.at + (data - at));
            while source < hole {
                let wanted = (hole - source).min(COPIED_MAX) as usize;
                let (source, target) = (Some(&mut source), Some(&mut target));
                match rustix::fs::copy_file_range(from, source, &self.file, target, wanted) {
                    Ok(0) => return Ok(false), // it became shorter
                    Ok(_) | Err(Errno::INTR) => {}
                    // Whatever keeps it from copying, writing tells.
                    Err(_) => return Ok(false),
                }
            }
            next = file.seek(hole, Seek::Data)?.filter(|&data| data < end);
        }
        Ok(true)
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    let words = bytes.chunks_exact(16);
    let rest = words.remainder();
    rest.iter().all(|&byte| byte == 0)
        && words.into_iter().all(|word| word.iter().fold(0, |all, byte| all | byte) == 0)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn bytes() -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..300_000u32).map(|at| (at % 251) as u8).collect();
        bytes.extend(vec![0; 400_000]);
        bytes.extend(b"end");
        bytes
    }

    /// Puts everything, in pieces of that size, into a file that holds `before`.
    fn copied(before: &[u8], size: usize) -> (Vec<u8>, u64, u64) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, before).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let all = bytes();
        let mut sink = Regular::new(file, all.len() as u64).unwrap();
        for piece in all.chunks(size) {
            sink.put(piece).unwrap();
        }
        let (file, kept) = sink.finish().unwrap();
        let blocks = file.metadata().unwrap().blocks();
        (fs::read(&path).unwrap(), kept, blocks)
    }

    #[test]
    fn what_is_right_stays_and_the_rest_is_written() {
        let all = bytes();
        let mut wrong = all.clone();
        wrong[200_000] ^= 1;
        for (before, kept) in [
            (&[][..], 0),
            (&all[..1], 1),
            (&all[..250_000], 250_000),
            (&all[..all.len() - 1], all.len() - 1),
            (&all, all.len()),
            (&wrong, 155_554),
            (&wrong[..210_000], 155_554),
            (&[&all[..], b"more"].concat(), 0),
        ] {
            let (copy, was_kept, _) = copied(before, 77_777);
            assert!(copy == all, "{} bytes before", before.len());
            assert_eq!(was_kept, kept as u64);
        }
    }

    #[test]
    fn zeros_become_holes_and_only_zeros_do() {
        let (_, _, blocks) = copied(b"", 1 << 20);
        assert!(blocks * 512 < 450_000, "{blocks}");
        assert!(is_zero(&[0; 100]) && is_zero(&[]));
        for at in [0, 15, 16, 98, 99] {
            let mut bytes = [0; 100];
            bytes[at] = 1;
            assert!(!is_zero(&bytes), "{at}");
        }
    }

    #[test]
    fn the_kernel_copies_and_keeps_holes() {
        use crate::backing::{Access, Root};
        let dir = tempfile::tempdir().unwrap();
        let from = File::create(dir.path().join("from")).unwrap();
        from.set_len(3 << 20).unwrap();
        from.write_all_at(b"middle", 1 << 20).unwrap();
        let root = Root::open(dir.path(), Access::Sealed).unwrap();
        let open = root.open_file("from").unwrap();
        let path = dir.path().join("to");
        let mut options = File::options();
        let to = options.read(true).write(true).create_new(true).open(&path).unwrap();
        let mut sink = Regular::new(to, 10 + (2 << 20)).unwrap();
        sink.put(b"0123456789").unwrap();
        if !sink.put_file(&open, 1 << 19, 2 << 20).unwrap() {
            return; // this file system can't
        }
        let (file, _) = sink.finish().unwrap();
        let whole = fs::read(dir.path().join("from")).unwrap();
        let expected = [b"0123456789", &whole[1 << 19..5 << 19]].concat();
        assert!(fs::read(&path).unwrap() == expected);
        assert!(file.metadata().unwrap().blocks() * 512 < 1 << 20);
    }
}

//! The backup stream of one file, as the reader gives it.

use std::path::PathBuf;
use std::sync::Arc;

use super::as_path;
use crate::backing::{Bytes, FileRange, Held, Root};
use crate::error::{Error, Result};

/// The backup stream of one file: what is on disk, or what is made up around it.
#[derive(Debug)]
pub struct FileStream {
    path: PathBuf,
    pub(super) head: Vec<u8>,
    pub(super) body: Option<FileRange>,
    pub(super) tail: Vec<u8>,
}

impl FileStream {
    /// Nothing yet, of the file `path`.
    pub(super) fn at(root: &Root, path: &[u8]) -> FileStream {
        let path = root.path().join(as_path(path));
        FileStream { path, head: Vec::new(), body: None, tail: Vec::new() }
    }

    /// `len` bytes from `offset` on.
    ///
    /// # Errors
    /// Fails where it has not as many, or they can't be read.
    pub fn part(&self, offset: u64, len: u64) -> Result<Arc<dyn Bytes>> {
        let from = offset.checked_sub(self.head.len() as u64);
        let body = from.zip(self.body.as_ref()).and_then(|(from, body)| body.part(from, len));
        if let Some(body) = body {
            return Ok(Arc::new(body));
        }
        let short = || Error::corrupt(&self.path, "shorter than it was");
        let end = offset.checked_add(len).filter(|&end| end <= self.len()).ok_or_else(short)?;
        let mut held = vec![0; (end - offset) as usize]; // of an xattr, so small
        self.read_at(offset, &mut held)?;
        Ok(Arc::new(Held::new(&self.path, held)))
    }
}

impl Bytes for FileStream {
    fn len(&self) -> u64 {
        let body = self.body.as_ref().map_or(0, Bytes::len);
        self.head.len() as u64 + body + self.tail.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let body_end = self.len() - self.tail.len() as u64;
        let mut done = copy(&self.head, offset, buf);
        let at = offset.saturating_add(done as u64);
        if let Some(body) = &self.body
            && let Some(from) = at.checked_sub(self.head.len() as u64)
        {
            done += body.read_at(from, buf.get_mut(done..).unwrap_or_default())?;
        }
        let at = offset.saturating_add(done as u64);
        if let Some(from) = at.checked_sub(body_end) {
            done += copy(&self.tail, from, buf.get_mut(done..).unwrap_or_default());
        }
        Ok(done)
    }

    fn stamp(&self) -> Result<u64> {
        self.body.as_ref().map_or(Ok(1), Bytes::stamp)
    }

    fn path(&self) -> PathBuf {
        self.path.clone()
    }
}

/// Copies what `bytes` have from `offset` on, as much as fits.
fn copy(bytes: &[u8], offset: u64, buf: &mut [u8]) -> usize {
    let from = offset.min(bytes.len() as u64) as usize;
    let rest = bytes.get(from..).unwrap_or_default();
    let count = rest.len().min(buf.len());
    buf.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    count
}

//! Layers that are described and not there.

use std::path::PathBuf;

use crate::backing::Bytes;
use crate::error::{Error, Result};

/// The bytes of a layer that can't be read: whoever tries is told why.
#[derive(Debug)]
pub(super) struct Absent {
    path: PathBuf,
    len: u64,
    why: Why,
}

/// Why a layer is not there.
#[derive(Debug)]
pub(super) enum Why {
    /// It may be had elsewhere only (OCI image-spec, "Non-distributable layers").
    Foreign(String),
    /// It should be there.
    Damaged(&'static str),
}

impl Absent {
    /// The layer that should be at `path` and have `len` bytes, 0 where nobody knows.
    pub(super) fn new(path: PathBuf, len: u64, why: Why) -> Absent {
        // Never empty, or nobody would try to read it.
        Absent { path, len: len.max(1), why }
    }

    fn error(&self) -> Error {
        match &self.why {
            Why::Foreign(url) => Error::unsupported(
                &self.path,
                format!("a foreign layer, to be had from {url:.200}"),
            ),
            Why::Damaged(why) => Error::corrupt(&self.path, *why),
        }
    }
}

impl Bytes for Absent {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, _offset: u64, _buf: &mut [u8]) -> Result<usize> {
        Err(self.error())
    }

    fn stamp(&self) -> Result<u64> {
        Err(self.error())
    }

    fn path(&self) -> PathBuf {
        self.path.clone()
    }
}

//! Files by name, of a directory or of an archive.

use std::path::PathBuf;
use std::sync::Arc;

use super::members::Members;
use crate::backing::{Bytes, FileRange, Root};
use crate::error::{Error, Result};

/// The files that images are made of.
#[derive(Debug)]
pub(super) enum Files {
    /// Those of a directory.
    Directory(Arc<Root>),
    /// Those of an archive, of which nothing is unpacked.
    Archive(Members),
}

impl Files {
    /// Where a file is, for messages.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        match self {
            Files::Directory(root) => root.path().join(name),
            Files::Archive(members) => members.path(name.as_bytes()),
        }
    }

    /// The file `name`; `None` where there is none.
    ///
    /// # Errors
    /// Fails where it can't be opened, or something else has its name.
    pub(super) fn bytes(&self, name: &str) -> Result<Option<Arc<dyn Bytes>>> {
        match self {
            Files::Directory(root) => match FileRange::whole(root, name) {
                Ok(file) => Ok(Some(Arc::new(file))),
                Err(err) if err.is_not_found() => Ok(None),
                Err(err) if err.is_misplaced() => {
                    Err(Error::corrupt(self.path(name), "something else is in its place"))
                }
                Err(err) => Err(err),
            },
            Files::Archive(members) => Ok(members.find(name.as_bytes())),
        }
    }

    /// Whether there is a file of that name.
    pub(super) fn holds(&self, name: &str) -> bool {
        self.size(name).is_some()
    }

    /// Its size; `None` where there is no such file.
    pub(super) fn size(&self, name: &str) -> Option<u64> {
        self.bytes(name).ok().flatten().map(|bytes| bytes.len())
    }

    /// The names of an archive's files, in no order.
    pub(super) fn names(&self) -> Box<dyn Iterator<Item = &[u8]> + '_> {
        match self {
            Files::Directory(_) => Box::new(std::iter::empty()),
            Files::Archive(members) => Box::new(members.names()),
        }
    }

    /// The whole of a file that is expected to be small; `None` where there is none.
    ///
    /// # Errors
    /// Fails where it can't be read, or is larger than `limit` bytes.
    pub(super) fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some(bytes) = self.bytes(name)? else { return Ok(None) };
        if bytes.len() > limit {
            let why = format!("larger than {limit} bytes");
            return Err(Error::corrupt(self.path(name), why));
        }
        let mut whole = vec![0; bytes.len() as usize];
        let read = bytes.read_at(0, &mut whole)?;
        whole.truncate(read);
        Ok(Some(whole))
    }

    /// What is wrong with an archive, of which what stands before is read.
    pub(super) fn damage(&self) -> Option<Arc<Error>> {
        match self {
            Files::Directory(_) => None,
            Files::Archive(members) => members.damage(),
        }
    }
}

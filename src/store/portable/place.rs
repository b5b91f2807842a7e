//! Where images lie: a directory or a file, opened anew for each state that it has.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::Files;
use super::layout;
use super::members::Members;
use crate::backing::{Access, Bytes, FileRange, Root, Watched};
use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::store::files::if_found;
use crate::store::stamp::{Stamp, Taking};

/// A directory or a file.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) kind: PlaceKind,
    /// Absolute, and free of symlinks.
    path: PathBuf,
    /// Where compressed files inflate to.
    cache: Arc<Cache>,
}

/// Which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PlaceKind {
    /// The directory of an OCI image layout.
    Directory,
    /// An archive, perhaps compressed as a whole.
    Archive,
}

impl Place {
    pub(super) fn directory(path: &Path, cache: &Arc<Cache>) -> Place {
        Place { kind: PlaceKind::Directory, path: path.to_owned(), cache: Arc::clone(cache) }
    }

    pub(super) fn archive(path: &Path, cache: &Arc<Cache>) -> Place {
        Place { kind: PlaceKind::Archive, path: path.to_owned(), cache: Arc::clone(cache) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The uncompressed form of a file of it.
    ///
    /// # Errors
    /// Fails where it is damaged or can't be read.
    pub(super) fn uncompressed(&self, bytes: &Arc<dyn Bytes>) -> Result<Arc<dyn Bytes>> {
        self.cache.uncompressed(bytes)
    }

    /// A stamp of what says which images there are; that of an archive is of all its bytes.
    ///
    /// # Errors
    /// Fails where it is gone.
    pub(super) fn stamp(&self) -> Result<Stamp> {
        let mut taking = Taking::default();
        match self.kind {
            PlaceKind::Directory => {
                let root = Root::open_resolved(&self.path, Access::Sealed)?;
                for name in [layout::INDEX, layout::VERSION, layout::BLOBS] {
                    taking.add(root.stat(name));
                }
            }
            PlaceKind::Archive => {
                let (root, name) = parent(&self.path)?;
                taking.add(Ok(root.stat(name)?));
            }
        }
        Ok(taking.finish())
    }

    /// The directories to watch for that.
    ///
    /// # Errors
    /// Fails where it is gone.
    pub(super) fn watched(&self) -> Result<Vec<Watched>> {
        let (root, blobs) = match self.kind {
            PlaceKind::Directory => {
                let root = Root::open_resolved(&self.path, Access::Sealed)?;
                let blobs = if_found(root.dir(layout::BLOBS))?;
                (root, blobs)
            }
            PlaceKind::Archive => (parent(&self.path)?.0, None),
        };
        Ok([root.dir("")?].into_iter().chain(blobs).map(Watched::Writes).collect())
    }

    /// Its files as they are now.
    ///
    /// # Errors
    /// Fails where it is gone, or is an archive that can't be read.
    pub(super) fn files(&self) -> Result<Files> {
        match self.kind {
            PlaceKind::Directory => {
                Ok(Files::Directory(Arc::new(Root::open_resolved(&self.path, Access::Sealed)?)))
            }
            PlaceKind::Archive => {
                let (root, name) = parent(&self.path)?;
                let archive: Arc<dyn Bytes> = Arc::new(FileRange::pinned(&Arc::new(root), name)?);
                Ok(Files::Archive(Members::read(self.uncompressed(&archive)?)?))
            }
        }
    }

    /// Size of the file system that it lies on, in bytes.
    ///
    /// # Errors
    /// Fails where it is gone.
    pub(super) fn space(&self) -> Result<u64> {
        let space = rustix::fs::statvfs(self.path()).map_err(|err| Error::io(self.path(), err))?;
        Ok(space.f_blocks.saturating_mul(space.f_frsize))
    }
}

/// The directory that a file lies in, and its name there.
fn parent(path: &Path) -> Result<(Root, &Path)> {
    let name = path.file_name().ok_or_else(|| Error::not_found(path))?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    Ok((Root::open_resolved(directory, Access::Sealed)?, Path::new(name)))
}

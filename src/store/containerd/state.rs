//! One moment of a data root: its databases, read together, and the directories that they lead to.

use std::sync::Arc;

use super::records::varint;
use super::roots::{DATABASE, Roots};
use super::snapshots::{self, Snapshotter};
use crate::backing::{Bytes, FileRange};
use crate::bolt::{Bucket, Reader, Snapshot, Stamp};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::store::driver::OpenLayers;
use crate::store::files::if_found;
use crate::store::{IdMap, IdPair, Marks, Owners};

/// How often the databases are read again while the engine writes.
const TRIES: usize = 8;

/// What reads the databases, and keeps the last state of each.
#[derive(Debug, Default)]
pub(super) struct Databases {
    meta: Reader,
    snapshotters: [Reader; Snapshotter::ALL.len()],
}

impl Databases {
    /// `meta.db` as it is now.
    pub(super) fn meta(&self, roots: &Roots) -> Result<Arc<Snapshot>> {
        self.meta.read(&roots.metadata, DATABASE)
    }
}

/// How files lie in a data root.
#[derive(Debug, Clone)]
pub(super) struct Manner {
    /// How overlayfs marks what a layer hides.
    pub(super) marks: Marks,
    /// Tells this data root from others, whose snapshots have the same numbers.
    pub(super) seed: u64,
    /// What owners are called where the engine runs; `None` where they are the host's own.
    pub(super) engine: Option<IdPair<IdMap>>,
    /// What they are called in the containers of a Docker with `userns-remap`.
    pub(super) remapped: Option<IdPair<IdMap>>,
}

impl Manner {
    /// How owners are told of files that containers with these IDs wrote, or without any those of
    /// images.
    pub(super) fn owners(&self, container: Option<IdPair<IdMap>>) -> Option<Arc<Owners>> {
        let owners = Owners { engine: self.engine.clone(), container, has_notes: false };
        (!owners.is_plain()).then(|| Arc::new(owners))
    }
}

/// A moment of a namespace.
#[derive(Debug)]
pub(super) struct State<'a> {
    pub(super) roots: &'a Roots,
    pub(super) namespace: &'a str,
    /// `meta.db`.
    meta: Arc<Snapshot>,
    /// `metadata.db` of each snapshotter that was ever used.
    pub(super) snapshotters: [Option<Arc<Snapshot>>; Snapshotter::ALL.len()],
    /// Directories of layers that are open.
    pub(super) open: &'a OpenLayers,
    /// How files lie here.
    pub(super) manner: &'a Manner,
}

impl<'a> State<'a> {
    /// Reads the databases. They have no common transaction: a snapshot is taken out of `meta.db`
    /// before its snapshotter forgets it, and put in after; so what was read belongs together if
    /// `meta.db` is still the same when the others were read.
    pub(super) fn read(
        databases: &Databases,
        roots: &'a Roots,
        namespace: &'a str,
        open: &'a OpenLayers,
        manner: &'a Manner,
    ) -> Result<State<'a>> {
        let mut meta = databases.meta(roots)?;
        let mut tries = 1;
        loop {
            let mut snapshotters = [const { None }; Snapshotter::ALL.len()];
            let read = snapshotters.iter_mut().zip(&roots.snapshotters);
            for ((snapshot, root), reader) in read.zip(&databases.snapshotters) {
                *snapshot = match root {
                    Some(root) => if_found(reader.read(root, snapshots::DATABASE))?,
                    None => None,
                };
            }
            let after = databases.meta(roots)?;
            if Arc::ptr_eq(&meta, &after) || tries == TRIES {
                return Ok(State { roots, namespace, meta, snapshotters, open, manner });
            }
            meta = after;
            tries += 1;
        }
    }

    /// The bucket of this path in the namespace.
    pub(super) fn bucket(&self, path: &[&[u8]]) -> Option<Bucket<'_>> {
        let path: Vec<&[u8]> =
            [b"v1", self.namespace.as_bytes()].into_iter().chain(path.iter().copied()).collect();
        self.meta.database.bucket(&path)
    }

    /// What is recorded of a blob; `None` where the namespace does not have it.
    pub(super) fn blob_record(&self, digest: Digest) -> Option<Bucket<'_>> {
        self.bucket(&[b"content", b"blob", digest.to_string().as_bytes()])
    }

    /// A stored blob; `None` where the namespace has no record of it, or there is no file of that
    /// size: namespaces share files, and not records.
    ///
    /// # Errors
    /// Fails where something else is in its place.
    pub(super) fn blob(&self, digest: Digest) -> Result<Option<FileRange>> {
        let (Some(record), Some(blobs)) = (self.blob_record(digest), &self.roots.blobs) else {
            return Ok(None);
        };
        let size = record.get(b"size").and_then(varint);
        let file = FileRange::whole(blobs, digest.hex()).map_err(|err| match err.is_misplaced() {
            true => Error::corrupt(err.path(), "something else is in its place"),
            false => err,
        });
        Ok(if_found(file)?.filter(|file| size == i64::try_from(file.len()).ok()))
    }

    /// The bytes of a stored document, which have its digest; `None` where it is not here.
    ///
    /// # Errors
    /// Corrupt where it is larger than `limit`, or its bytes are others.
    pub(super) fn document(&self, digest: Digest, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some(blob) = self.blob(digest)? else { return Ok(None) };
        if blob.len() > limit {
            return Err(Error::corrupt(blob.path(), format!("larger than {limit} bytes")));
        }
        let mut bytes = vec![0; blob.len() as usize];
        blob.read_at(0, &mut bytes)?;
        match Digest::of(&bytes) == digest {
            true => Ok(Some(bytes)),
            false => Err(Error::corrupt(blob.path(), "not what its name says")),
        }
    }

    /// Damage of `meta.db`.
    pub(super) fn corrupt(&self, why: impl Into<String>) -> Error {
        Error::corrupt(self.roots.metadata.path().join(DATABASE), why.into())
    }
}

/// What moves with the databases.
pub(super) fn stamps(roots: &Roots) -> Result<Vec<u64>> {
    let mut stamps = vec![Stamp::read(&roots.metadata, DATABASE)?.number()];
    for root in roots.snapshotters.iter().flatten() {
        let stamp = if_found(Stamp::read(root, snapshots::DATABASE))?;
        stamps.push(stamp.map_or(0, |stamp| stamp.number()));
    }
    Ok(stamps)
}

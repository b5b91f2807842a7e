//! Snapshots: where the files of layers and containers lie, and what is merged below them.
//!
//! `meta.db` knows them by key, for a layer of an image its chain ID, and gives each a name; the
//! snapshotter's own database leads from that name to a directory. What lies below a snapshot is
//! told by its parents, which are not always the layers of an image: what Docker commits lies upon
//! the `-init` snapshot of its container. So an image is put together from its chain IDs alone, and
//! a container from its parents.

use std::sync::Arc;

use super::records::{snapshot_ids, text, uvarint, varint};
use super::state::State;
use crate::backing::{Access, Fingerprint, Root};
use crate::digest::ChainId;
use crate::error::{Error, Result};
use crate::store::config::LAYERS_MAX;
use crate::store::files::if_found;
use crate::store::{IdMap, IdPair, LayerDir, Marks, Owners};

/// Most snapshots that one may lie upon: an image's layers, and an init snapshot for each.
const PARENTS_MAX: usize = 2 * LAYERS_MAX;

/// A snapshotter whose directories can be read; the first that has a layer is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Snapshotter {
    /// One directory of changes per snapshot, marked as overlayfs marks them.
    Overlayfs,
    /// One full copy per snapshot.
    Native,
}

impl Snapshotter {
    /// In the order of their numbers.
    pub(super) const ALL: [Snapshotter; 2] = [Snapshotter::Overlayfs, Snapshotter::Native];

    /// containerd's name for it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Snapshotter::Overlayfs => "overlayfs",
            Snapshotter::Native => "native",
        }
    }

    /// The one of that name.
    pub(super) fn named(name: &str) -> Option<Snapshotter> {
        Snapshotter::ALL.into_iter().find(|snapshotter| snapshotter.name() == name)
    }

    /// Its directory in the data root.
    pub(super) fn home(self) -> &'static str {
        match self {
            Snapshotter::Overlayfs => "io.containerd.snapshotter.v1.overlayfs",
            Snapshotter::Native => "io.containerd.snapshotter.v1.native",
        }
    }

    /// Where it keeps the files of the snapshot of that number, in its directory.
    fn files(self, number: u64) -> String {
        match self {
            Snapshotter::Overlayfs => format!("snapshots/{number}/fs"),
            Snapshotter::Native => format!("snapshots/{number}"),
        }
    }
}

/// A snapshot, as the databases describe it.
#[derive(Debug)]
pub(super) struct Snapshot {
    snapshotter: Snapshotter,
    /// Its directory's number.
    pub(super) number: u64,
    /// Bytes on disk; `None` for one that may still change.
    pub(super) size: Option<u64>,
    /// The key of the one below it.
    parent: Option<String>,
    identity: u64,
    /// Whether it is a layer of an image: then its owners are those of the image.
    is_layer: bool,
    /// The IDs of the container that it is for, where that runs in a user namespace and the
    /// snapshotter was told so.
    ids: Option<IdPair<IdMap>>,
}

/// The files of a container.
#[derive(Debug)]
pub(super) struct Files {
    /// Name of its writable directory.
    pub(super) directory: String,
    pub(super) dirs: Vec<LayerDir>,
    pub(super) init_dirs: Vec<LayerDir>,
}

impl State<'_> {
    /// The snapshot of that key; `None` where there is none.
    pub(super) fn snapshot(&self, snapshotter: Snapshotter, key: &str) -> Result<Option<Snapshot>> {
        let path = [b"snapshots", snapshotter.name().as_bytes(), key.as_bytes()];
        let Some(known) = self.bucket(&path) else { return Ok(None) };
        let corrupt = |why: &str| {
            let path = self.roots.metadata.path().with_file_name(snapshotter.home());
            Error::corrupt(path.join(DATABASE), format!("snapshot {key:?}: {why}"))
        };
        let name = known.get(b"name").ok_or_else(|| corrupt("no name"))?;
        let database = self.snapshotters[snapshotter as usize].as_ref();
        let found = database.and_then(|it| it.database.bucket(&[b"v1", b"snapshots", name]));
        // The name goes before the directory, and the two databases were read at one moment.
        let found = found.ok_or_else(|| corrupt("the snapshotter does not know it"))?;
        let number = found.get(b"id").and_then(uvarint).ok_or_else(|| corrupt("no number"))?;
        let is_committed = found.get(b"kind").and_then(uvarint) == Some(COMMITTED);
        let size = found.get(b"size").and_then(varint).and_then(|size| size.try_into().ok());
        let mut identity = Fingerprint::new();
        identity.add(&self.manner.seed.to_le_bytes());
        identity.add(name);
        identity.add(known.get(b"createdat").unwrap_or_default());
        Ok(Some(Snapshot {
            snapshotter,
            number,
            size: size.filter(|_| is_committed),
            parent: text(known, b"parent").filter(|key| !key.is_empty()).map(str::to_owned),
            identity: identity.finish(),
            // Whatever else lies below a container was made for it, or those with the same IDs.
            is_layer: ChainId::parse(key).is_ok(),
            ids: known.bucket(b"labels").and_then(snapshot_ids),
        }))
    }

    /// The snapshots of layers, lowest first, as far as one snapshotter has them unbroken.
    pub(super) fn layers(&self, chain_ids: &[ChainId]) -> Result<Vec<Snapshot>> {
        let mut most = Vec::new();
        for snapshotter in Snapshotter::ALL {
            let mut layers = Vec::new();
            for chain_id in chain_ids {
                let Some(layer) = self.snapshot(snapshotter, &chain_id.to_string())? else { break };
                layers.push(layer);
            }
            if layers.len() > most.len() {
                most = layers;
            }
        }
        Ok(most)
    }

    /// Of each layer, lowest first, the directories that are merged for it, topmost first.
    pub(super) fn layer_dirs(&self, layers: &[Snapshot]) -> Result<Vec<Vec<LayerDir>>> {
        let mut dirs: Vec<Vec<LayerDir>> = Vec::with_capacity(layers.len());
        let owners = self.manner.owners(None);
        for layer in layers {
            let below = match layer.snapshotter {
                Snapshotter::Overlayfs => dirs.last(),
                Snapshotter::Native => None,
            };
            let own = self.sealed(layer, owners.clone())?;
            dirs.push(std::iter::once(&own).chain(below.into_iter().flatten()).cloned().collect());
        }
        Ok(dirs)
    }

    /// The files of the container whose writable snapshot has that key; `None` where they are gone.
    /// `ids` are its own, if the snapshot does not tell.
    ///
    /// Below it lie the image's layers as they are, which the kernel maps in the mount, or else a
    /// snapshot with a copy of all their files, which the engine gave to their new owners.
    pub(super) fn container_files(
        &self,
        snapshotter: Snapshotter,
        key: &str,
        ids: Option<IdPair<IdMap>>,
    ) -> Result<Option<Files>> {
        let Some(own) = self.snapshot(snapshotter, key)? else { return Ok(None) };
        let its_owners = self.manner.owners(own.ids.clone().or(ids));
        let owners = self.manner.owners(None);
        let mut below = self.below(&own)?;
        if snapshotter == Snapshotter::Native {
            below.truncate(1);
        }
        let root = self.roots.snapshotter(snapshotter)?;
        let upper = if_found(root.sub(snapshotter.files(own.number), Access::Live))?;
        let Some(upper) = upper else { return Ok(None) };
        let mut dirs = vec![self.dir(&own, Arc::new(upper), its_owners.clone())];
        let sealed = |it: &Snapshot| {
            self.sealed(it, if it.is_layer { owners.clone() } else { its_owners.clone() })
        };
        let init_dirs = below.iter().map(sealed).collect::<Result<Vec<_>>>()?;
        if snapshotter == Snapshotter::Overlayfs {
            dirs.extend_from_slice(&init_dirs);
        }
        Ok(Some(Files { directory: own.number.to_string(), dirs, init_dirs }))
    }

    /// All that a snapshot lies upon, topmost first.
    fn below(&self, snapshot: &Snapshot) -> Result<Vec<Snapshot>> {
        let mut below: Vec<Snapshot> = Vec::new();
        while let Some(key) = &below.last().unwrap_or(snapshot).parent {
            if below.len() == PARENTS_MAX {
                return Err(self.corrupt(format!("snapshot {key:?}: the parents do not end")));
            }
            let parent = self.snapshot(snapshot.snapshotter, key)?;
            let parent =
                parent.ok_or_else(|| self.corrupt(format!("snapshot {key:?} is missing")))?;
            below.push(parent);
        }
        Ok(below)
    }

    fn sealed(&self, snapshot: &Snapshot, owners: Option<Arc<Owners>>) -> Result<LayerDir> {
        let home = self.roots.snapshotter(snapshot.snapshotter)?;
        let path = snapshot.snapshotter.files(snapshot.number);
        let root = self.open.open(home, snapshot.snapshotter as usize, &path)?;
        Ok(self.dir(snapshot, root, owners))
    }

    fn dir(&self, snapshot: &Snapshot, root: Arc<Root>, owners: Option<Arc<Owners>>) -> LayerDir {
        let marks = match snapshot.snapshotter {
            Snapshotter::Overlayfs => self.manner.marks,
            Snapshotter::Native => Marks::Complete,
        };
        LayerDir { root, identity: snapshot.identity, marks, owners }
    }
}

/// The database of every snapshotter, in its directory.
pub(super) const DATABASE: &str = "metadata.db";

/// The kind of a snapshot that nobody writes to any more.
const COMMITTED: u64 = 3;

//! The directories of containerd's data root, open.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::snapshots::Snapshotter;
use crate::backing::{Access, Root};
use crate::error::{Error, Result};
use crate::store::files::{Identity, identity, if_found};

/// Where containerd keeps its metadata, in its data root, and the database there.
pub(super) const METADATA: &str = "io.containerd.metadata.v1.bolt";
pub(super) const DATABASE: &str = "meta.db";

/// Where it keeps blobs.
const CONTENT: &str = "io.containerd.content.v1.content";

/// The data root of a containerd, and Docker's where its images are in there.
#[derive(Debug, Clone)]
pub(super) struct Location {
    /// containerd's, as an absolute path.
    pub(super) data: PathBuf,
    /// Docker's.
    pub(super) docker: Option<PathBuf>,
}

impl Location {
    /// The data roots themselves, open.
    pub(super) fn open(&self) -> Result<Vec<Root>> {
        let paths = self.docker.iter().chain([&self.data]);
        paths.map(|path| Root::open_resolved(path, Access::Live)).collect()
    }
}

/// The parts of a data root. Each may be a mount of its own. They are opened as [`Access::Live`],
/// so that nothing but a regular file is ever opened for its data.
#[derive(Debug)]
pub(super) struct Roots {
    /// Holds `meta.db`.
    pub(super) metadata: Root,
    /// Blobs, each named by its digest; `None` where there never was one.
    pub(super) blobs: Option<Arc<Root>>,
    /// By [`Snapshotter`]; `None` for one that was never used.
    pub(super) snapshotters: [Option<Root>; Snapshotter::ALL.len()],
    /// Docker's directories of containers and of volumes.
    pub(super) containers: Option<Root>,
    pub(super) volumes: Option<Root>,
    /// Device and inode number of all of them.
    identity: Vec<Option<Identity>>,
}

impl Roots {
    /// Opens the data root at `location`.
    pub(super) fn open(location: &Location) -> Result<Roots> {
        let data = Root::open_resolved(&location.data, Access::Live)?;
        let metadata = data.sub_mount(METADATA, Access::Live)?;
        let blobs = match if_found(data.sub_mount(CONTENT, Access::Live))? {
            Some(content) => if_found(content.sub("blobs/sha256", Access::Live))?,
            None => None,
        };
        let mut snapshotters = [const { None }; Snapshotter::ALL.len()];
        for (open, snapshotter) in snapshotters.iter_mut().zip(Snapshotter::ALL) {
            *open = if_found(data.sub_mount(snapshotter.home(), Access::Live))?;
        }
        let (containers, volumes) = match &location.docker {
            Some(docker) => docker_roots(docker)?,
            None => (None, None),
        };
        let mut identities = vec![identity(Some(&metadata))?, identity(blobs.as_ref())?];
        for root in snapshotters.iter().chain([&containers, &volumes]) {
            identities.push(identity(root.as_ref())?);
        }
        let blobs = blobs.map(Arc::new);
        Ok(Roots { metadata, blobs, snapshotters, containers, volumes, identity: identities })
    }

    /// True where both are the very same directories: nothing was unmounted or replaced.
    pub(super) fn is_same(&self, other: &Roots) -> bool {
        self.identity == other.identity
    }

    /// The snapshotter's directory.
    pub(super) fn snapshotter(&self, snapshotter: Snapshotter) -> Result<&Root> {
        self.snapshotters[snapshotter as usize].as_ref().ok_or_else(|| {
            let path = self.metadata.path().with_file_name(snapshotter.home());
            Error::corrupt(path, "the snapshotter's directory is missing")
        })
    }
}

fn docker_roots(docker: &Path) -> Result<(Option<Root>, Option<Root>)> {
    let root = Root::open_resolved(docker, Access::Live)?;
    let part = |name| if_found(root.sub_mount(name, Access::Live));
    Ok((part("containers")?, part("volumes")?))
}

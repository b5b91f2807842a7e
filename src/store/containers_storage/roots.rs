//! The directories of a store, open.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use crate::backing::{Access, Fingerprint, Root};
use crate::error::{Error, Result};
use crate::store::driver::Driver;
use crate::store::files::{Identity, identity, if_found};

/// The parts of a store. Each may be a mount of its own.
///
/// They are opened as [`Access::Live`], so that nothing but a regular file is ever opened for its
/// data, even in a store that somebody made to harm.
#[derive(Debug)]
pub(super) struct Roots {
    /// `<driver>-images`: the list of images, and a directory for each.
    pub(super) images: Root,
    /// `<driver>-layers`: the lists of layers, and the records of their tars.
    pub(super) layers: Arc<Root>,
    /// `<driver>-containers`: the lists of containers; `None` where there is none.
    pub(super) containers: Option<Root>,
    /// The driver's directory, with one directory per layer; `None` where there is none.
    home: Option<Root>,
    /// `volumes`, which is Podman's; `None` where there is none.
    pub(super) volumes: Option<Root>,
    seed: u64,
    identity: [Option<Identity>; 5],
}

impl Roots {
    /// Opens the store at `path`.
    pub(super) fn open(path: &Path, driver: Driver) -> Result<Roots> {
        let store = Root::open_resolved(path, Access::Live)?;
        let part = |of: &str| store.sub_mount(format!("{}-{of}", driver.name()), Access::Live);
        let (images, layers) = (part("images")?, part("layers")?);
        let containers = if_found(part("containers"))?;
        let home = if_found(store.sub_mount(driver.home(), Access::Live))?;
        let volumes = if_found(store.sub_mount("volumes", Access::Live))?;
        let identity = [
            identity(Some(&images))?,
            identity(Some(&layers))?,
            identity(containers.as_ref())?,
            identity(home.as_ref())?,
            identity(volumes.as_ref())?,
        ];
        let mut seed = Fingerprint::new();
        seed.add(path.as_os_str().as_bytes());
        let (layers, seed) = (Arc::new(layers), seed.finish());
        Ok(Roots { images, layers, containers, home, volumes, seed, identity })
    }

    /// True where both are the very same directories: nothing was unmounted or replaced.
    pub(super) fn is_same(&self, other: &Roots) -> bool {
        self.identity == other.identity
    }

    /// The driver's directory.
    pub(super) fn home(&self) -> Result<&Root> {
        self.home
            .as_ref()
            .ok_or_else(|| Error::corrupt(self.images.path(), "the driver's directory is missing"))
    }

    /// Tells this store's directories from those of the same names elsewhere.
    pub(super) fn seed(&self) -> u64 {
        self.seed
    }
}

//! The directories of a store, open.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
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
    /// The store itself first, then those whose images it uses as well.
    pub(super) parts: Vec<Part>,
    /// Why others of those can't be read.
    pub(super) missing: Vec<Arc<Error>>,
    /// `<driver>-containers`: the lists of containers; `None` where there is none.
    pub(super) containers: Option<Root>,
    /// `volumes`, which is Podman's; `None` where there is none.
    pub(super) volumes: Option<Root>,
    /// The store's own directory, with the engine's database in it.
    pub(super) store: Root,
    seed: u64,
    identity: Vec<Option<Identity>>,
}

/// What one store holds of images.
#[derive(Debug)]
pub(super) struct Part {
    /// `<driver>-images`: the list of images, and a directory for each.
    pub(super) images: Root,
    /// `<driver>-layers`: the lists of layers, and the records of their tars.
    pub(super) layers: Arc<Root>,
    /// The driver's directory, with one directory per layer; `None` where there is none.
    home: Option<Root>,
}

impl Part {
    fn open(store: &Root, driver: Driver) -> Result<Part> {
        let part = |of: &str| store.sub_mount(format!("{}-{of}", driver.name()), Access::Live);
        let home = if_found(store.sub_mount(driver.home(), Access::Live))?;
        Ok(Part { images: part("images")?, layers: Arc::new(part("layers")?), home })
    }

    fn identities(&self) -> Result<[Option<Identity>; 3]> {
        let parts = [Some(&self.images), Some(&*self.layers), self.home.as_ref()];
        let [images, layers, home] = parts.map(identity);
        Ok([images?, layers?, home?])
    }
}

impl Roots {
    /// Opens the store at `path`, whose engine finds more images in the stores `additional`.
    pub(super) fn open(path: &Path, additional: &[PathBuf], driver: Driver) -> Result<Roots> {
        let store = Root::open_resolved(path, Access::Live)?;
        let mut parts = vec![Part::open(&store, driver)?];
        let mut missing = Vec::new();
        for path in additional {
            let opened = Root::open(path, Access::Live).and_then(|root| Part::open(&root, driver));
            match opened {
                Ok(part) => parts.push(part),
                Err(err) => missing.push(Arc::new(err)),
            }
        }
        let containers =
            if_found(store.sub_mount(format!("{}-containers", driver.name()), Access::Live))?;
        let volumes = if_found(store.sub_mount("volumes", Access::Live))?;
        let others = [containers.as_ref(), volumes.as_ref(), Some(&store)];
        let mut identities = others.map(identity).into_iter().collect::<Result<Vec<_>>>()?;
        for part in &parts {
            identities.extend(part.identities()?);
        }
        let mut seed = Fingerprint::new();
        seed.add(path.as_os_str().as_bytes());
        let seed = seed.finish();
        Ok(Roots { parts, missing, containers, volumes, store, seed, identity: identities })
    }

    /// True where both are the very same directories: nothing was unmounted or replaced.
    pub(super) fn is_same(&self, other: &Roots) -> bool {
        self.identity == other.identity
    }

    /// The driver's directories: this store's own first.
    pub(super) fn homes(&self) -> Result<Vec<&Root>> {
        let mut homes = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let missing =
                || Error::corrupt(part.images.path(), "the driver's directory is missing");
            homes.push(part.home.as_ref().ok_or_else(missing)?);
        }
        Ok(homes)
    }

    /// Tells this store's directories from those of the same names elsewhere.
    pub(super) fn seed(&self) -> u64 {
        self.seed
    }
}

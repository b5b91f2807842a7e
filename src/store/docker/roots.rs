//! The directories of a data root, open.

use std::path::Path;
use std::sync::Arc;

use super::graph::{GRAPH, REPOSITORIES};
use super::named::Named;
use super::records::Era;
use crate::backing::{Access, Root};
use crate::error::{Error, Result};
use crate::store::driver::Driver;
use crate::store::files::{Identity, identity, if_found};

/// The parts of a data root that hold images and containers.
///
/// Each may be a mount of its own. They are opened as [`Access::Live`], so that nothing but a
/// regular file is ever opened for its data, even in a store that somebody made to harm.
#[derive(Debug)]
pub(super) struct Roots {
    /// Which generation of Docker wrote it.
    pub(super) era: Era,
    /// The data root itself.
    pub(super) data: Root,
    /// `image/<driver>`: names, configs, what is known of layers. To 1.9 `graph`.
    pub(super) image: Arc<Root>,
    driver: Driver,
    /// `containers`; `None` where there is none.
    pub(super) containers: Option<Root>,
    /// The driver's directory, with one directory per layer; `None` where there is none.
    home: Option<Root>,
    /// `volumes`; `None` where there is none.
    pub(super) volumes: Option<Root>,
    /// What was read last of the list of references.
    pub(super) named: Named,
    /// Device and inode number of the four.
    identity: [Option<Identity>; 4],
}

impl Roots {
    /// Opens the data root at `path`.
    pub(super) fn open(path: &Path, era: Era, driver: Driver) -> Result<Roots> {
        let data = Root::open_resolved(path, Access::Live)?;
        let image = match era {
            Era::Graph => data.sub_mount(GRAPH, Access::Live)?,
            Era::Content => {
                data.sub_mount("image", Access::Live)?.sub(driver.name(), Access::Live)?
            }
        };
        let containers = if_found(data.sub_mount("containers", Access::Live))?;
        let home = if_found(data.sub_mount(driver.home(), Access::Live))?;
        let volumes = if_found(data.sub_mount("volumes", Access::Live))?;
        let identity = [
            identity(Some(&image))?,
            identity(containers.as_ref())?,
            identity(home.as_ref())?,
            identity(volumes.as_ref())?,
        ];
        let image = Arc::new(image);
        let named = Named::default();
        Ok(Roots { era, data, image, driver, containers, home, volumes, named, identity })
    }

    /// True where both are the very same directories: nothing was unmounted or replaced.
    pub(super) fn is_same(&self, other: &Roots) -> bool {
        self.identity == other.identity
    }

    /// The file that says what references mean: a directory, and a name in it.
    pub(super) fn references(&self) -> (&Root, String) {
        match self.era {
            Era::Graph => (&self.data, format!("{REPOSITORIES}{}", self.driver.name())),
            Era::Content => (&self.image, "repositories.json".to_owned()),
        }
    }

    /// The driver's directory.
    pub(super) fn home(&self) -> Result<&Root> {
        self.home
            .as_ref()
            .ok_or_else(|| Error::corrupt(self.image.path(), "the driver's directory is missing"))
    }
}

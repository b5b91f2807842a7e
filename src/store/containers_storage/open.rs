//! Whether a directory is a store of containers/storage that can be read, and which driver it uses.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustix::io::Errno;

use super::ContainersStorage;
use super::roots::Roots;
use crate::backing::{Access, Root, Time};
use crate::error::{Error, Result};
use crate::store::driver::{Driver, OpenLayers};
use crate::store::files::if_found;
use crate::store::{Conventions, Marks, OpenError, StoreInfo};

/// What makes a directory such a store, for messages.
const LOOKED_FOR: &str = "overlay-images/images.json or vfs-images/images.json";

impl ContainersStorage {
    /// Opens the store at `path`.
    ///
    /// Where several drivers have left their lists, it is the one whose images changed last.
    ///
    /// # Errors
    /// Fails where `path` is no such store, may not be read, or uses a driver that stratafs can't
    /// read.
    pub fn open(path: &Path) -> Result<ContainersStorage, OpenError> {
        let failed = |err| OpenError::from_error(path, err);
        let location = std::path::absolute(path).map_err(|err| failed(Error::io(path, err)))?;
        let store = Root::open_resolved(&location, Access::Live).map_err(failed)?;
        let Some(name) = newest_driver(&store).map_err(failed)? else {
            return Err(OpenError::NotAStore { path: path.to_owned(), looked_for: LOOKED_FOR });
        };
        let driver = match name.as_str() {
            "overlay" => Driver::Overlay(overlay_marks(&location)),
            "vfs" => Driver::Vfs,
            other => {
                let advice = "overlay and vfs can be read; save the images with podman save";
                return Err(OpenError::unsupported(path, other, advice));
            }
        };
        let info = StoreInfo {
            kind: "podman",
            driver: driver.name(),
            path: path.to_owned(),
            namespace: None,
            conventions: Conventions::Podman,
        };
        let roots = Mutex::new(Arc::new(Roots::open(&location, driver).map_err(failed)?));
        let (layers, open) = (Mutex::default(), OpenLayers::new());
        Ok(ContainersStorage { info, location, driver, roots, layers, open })
    }

    /// True where a store lies at `path`, of whatever driver, or may lie there for all that this
    /// user may see.
    pub(in crate::store) fn is_at(path: &Path) -> bool {
        match Root::open_resolved(path, Access::Live).and_then(|store| newest_driver(&store)) {
            Ok(found) => found.is_some(),
            Err(err) => matches!(err.errno(), Errno::ACCESS | Errno::PERM),
        }
    }
}

/// The driver whose list of images changed last; `None` where there is none. Its two directories
/// are made with the store, the list in them with the first image.
fn newest_driver(store: &Root) -> Result<Option<String>> {
    let mut newest: Option<(Option<Time>, String)> = None;
    for entry in store.dir("")?.names()? {
        let Ok(name) = entry.name.into_string() else { continue };
        let Some(driver) = name.strip_suffix("-images") else { continue };
        // A part that is no directory, or can't be looked at, is none that a driver would leave.
        let is_dir = |part: String| store.stat(part).is_ok_and(|stat| stat.is_dir());
        if !is_dir(name.clone()) || !is_dir(format!("{driver}-layers")) {
            continue;
        }
        let images = if_found(store.sub_mount(&name, Access::Live))?;
        let list = images.and_then(|images| images.stat("images.json").ok());
        let rank = (list.map(|list| list.mtime), driver.to_owned());
        if newest.as_ref().is_none_or(|newest| *newest < rank) {
            newest = Some(rank);
        }
    }
    Ok(newest.map(|(_, name)| name))
}

/// How overlayfs marks what a layer hides: as root may, or in a store of an ordinary user as any
/// user may.
fn overlay_marks(location: &Path) -> Marks {
    match fs::metadata(location) {
        Ok(data) if data.uid() != 0 => Marks::User,
        _ => Marks::Trusted,
    }
}

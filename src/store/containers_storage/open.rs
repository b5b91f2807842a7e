//! Whether a directory is a store of containers/storage that can be read, and which driver it uses.

use std::path::Path;
use std::sync::{Arc, Mutex};

use rustix::io::Errno;

use super::ContainersStorage;
use super::roots::Roots;
use super::settings;
use crate::backing::{Access, Root, Time};
use crate::error::{Error, Result};
use crate::store::driver::{Driver, OpenLayers};
use crate::store::files::if_found;
use crate::store::system::{System, is_in_user_namespace};
use crate::store::{Conventions, IdPair, Marks, OpenError, Owners, StoreInfo};

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
        let owner = store.stat("").map_err(failed)?;
        let owner = IdPair { user: owner.uid, group: owner.gid };
        let driver = match name.as_str() {
            "overlay" => Driver::Overlay(overlay_marks(&store, owner.user)),
            "vfs" => Driver::Vfs,
            "btrfs" => Driver::Btrfs,
            other => {
                let advice = "overlay, vfs and btrfs can be read; save the images with podman save";
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
        let host = System::around(&location);
        let additional = host.as_ref();
        let additional =
            additional.map(|host| settings::additional_stores(host, &location, owner.user));
        let additional = additional.unwrap_or_default();
        let is_rootless = owner.user != 0;
        let owners = Owners {
            engine: host.filter(|_| is_rootless).and_then(|host| host.rootless(owner)),
            container: None,
            has_notes: driver.may_have_notes(),
        };
        let roots = Roots::open(&location, &additional, driver).map_err(failed)?;
        let roots = Mutex::new(Arc::new(roots));
        Ok(ContainersStorage {
            info,
            location,
            driver,
            additional,
            owners,
            roots,
            layers: Mutex::default(),
            libpod: Mutex::default(),
            open: OpenLayers::new(),
        })
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
/// user may. The engine notes where it lets fuse-overlayfs do the mounting (drivers/overlay,
/// `getMountProgramFlagFile`).
fn overlay_marks(store: &Root, owner: u32) -> Marks {
    let noted = store.read("overlay/.has-mount-program", 64);
    match noted.is_ok_and(|noted| noted.trim_ascii() == b"true") {
        true => Marks::Fuse,
        false if owner != 0 || is_in_user_namespace() => Marks::User,
        false => Marks::Trusted,
    }
}

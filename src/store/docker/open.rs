//! Whether a directory is a data root that can be read, and which driver it uses.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::Docker;
use super::roots::Roots;
use crate::backing::{Access, Root, Time};
use crate::error::{Error, Result};
use crate::store::driver::{Driver, OpenLayers};
use crate::store::files::if_found;
use crate::store::{Conventions, Marks, OpenError, StoreInfo};

/// What makes a directory a data root, for messages.
const LOOKED_FOR: &str = "image/overlay2/repositories.json or image/vfs/repositories.json";

impl Docker {
    /// Opens the data root at `path`.
    ///
    /// Where several drivers have a directory under `image`, as after a change of driver, it is
    /// the one that has layers, and of several such the one whose names changed last.
    ///
    /// # Errors
    /// Fails where `path` is no data root, may not be read, or uses a driver that stratafs can't
    /// read.
    pub fn open(path: &Path) -> Result<Docker, OpenError> {
        let failed = |err| OpenError::from_error(path, err);
        let location = std::path::absolute(path).map_err(|err| failed(Error::io(path, err)))?;
        let data = Root::open_resolved(&location, Access::Live).map_err(failed)?;
        let name = match newest_driver(&data).map_err(failed)? {
            Some(name) => name,
            None => return Err(no_driver(&data, path)),
        };
        let driver = match name.as_str() {
            "overlay2" => Driver::Overlay2(overlay_marks(&location)),
            "vfs" => Driver::Vfs,
            other => return Err(OpenError::unsupported(path, other, advice(other))),
        };
        let info = StoreInfo {
            kind: "docker",
            driver: driver.name(),
            path: path.to_owned(),
            namespace: None,
            conventions: Conventions::Docker,
        };
        let roots = Roots::open(&location, driver).map_err(failed)?;
        let roots = Mutex::new(Arc::new(roots));
        Ok(Docker { info, location, driver, roots, layers: OpenLayers::new() })
    }
}

/// The name under `image` of the driver that was in use last; `None` where there is none.
fn newest_driver(data: &Root) -> Result<Option<String>> {
    let Some(image) = if_found(data.sub_mount("image", Access::Live))? else { return Ok(None) };
    let mut newest: Option<((bool, Time), String)> = None;
    for entry in image.dir("")?.names()? {
        let Ok(name) = entry.name.into_string() else { continue };
        let names = if_found(image.stat(format!("{name}/repositories.json"))).unwrap_or_default();
        let layers = if_found(image.dir(format!("{name}/layerdb/sha256"))).unwrap_or_default();
        if names.is_none() && layers.is_none() {
            continue; // nothing that a driver would leave
        }
        let has_layers = layers.map_or(Ok(false), |dir| dir.names().map(|it| !it.is_empty()))?;
        let changed = names.map_or(Time::default(), |names| names.mtime);
        let rank = ((has_layers, changed), name);
        if newest.as_ref().is_none_or(|newest| *newest < rank) {
            newest = Some(rank);
        }
    }
    Ok(newest.map(|(_, name)| name))
}

/// How overlayfs marks what a layer hides: as root may, or in a daemon without root as any user
/// may. A rootless data root belongs to its user; one of `userns-remap`, named `UID.GID`, too,
/// though a daemon with root made it.
fn overlay_marks(location: &Path) -> Marks {
    let name = location.file_name().unwrap_or_default().to_string_lossy();
    let is_remapped = name.split_once('.').is_some_and(|(uid, gid)| {
        [uid, gid].iter().all(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()))
    });
    match fs::metadata(location) {
        Ok(data) if data.uid() != 0 && !is_remapped => Marks::User,
        _ => Marks::Trusted,
    }
}

/// Why there is no driver: another kind of store, or none at all.
fn no_driver(data: &Root, path: &Path) -> OpenError {
    match data.stat("containerd/daemon/io.containerd.content.v1.content") {
        Ok(_) => OpenError::unsupported(
            path,
            "containerd image store",
            "it can't be read yet; images of Docker's own store can \
             (\"features\": {\"containerd-snapshotter\": false} in daemon.json)",
        ),
        Err(_) => OpenError::NotAStore { path: path.to_owned(), looked_for: LOOKED_FOR },
    }
}

fn advice(driver: &str) -> &'static str {
    match driver {
        "aufs" | "devicemapper" | "overlay" => {
            "Docker itself has dropped it; save the images and load them under overlay2"
        }
        "windowsfilter" => "layers of Windows can't be read yet",
        _ => "overlay2 and vfs can be read",
    }
}

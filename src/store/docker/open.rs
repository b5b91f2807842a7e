//! Whether a directory is a data root that can be read, and which driver it uses.

use std::path::Path;
use std::sync::{Arc, Mutex};

use super::Docker;
use super::graph;
use super::records::Era;
use super::roots::Roots;
use crate::backing::{Access, Root, Time};
use crate::error::{Error, Result};
use crate::store::driver::{Driver, OpenLayers};
use crate::store::files::if_found;
use crate::store::system::{System, is_in_user_namespace, mapped_root};
use crate::store::{Conventions, IdMap, IdPair, Marks, OpenError, Owners, StoreInfo};

/// What makes a directory a data root, for messages.
const LOOKED_FOR: &str = "image/overlay2/repositories.json or the like";

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
        let newest = newest_driver(&data).map_err(failed)?;
        let graph = || graph::newest_driver(&data).map_err(failed);
        let (era, name) = match newest {
            Some((_, name)) => (Era::Content, name),
            None => match graph()? {
                Some(name) => (Era::Graph, name),
                None => return Docker::open_remapped(path, &data),
            },
        };
        let owners = Owning::of(&location, &data).map_err(failed)?;
        let driver = match name.as_str() {
            "overlay2" if owners.is_rootless => Driver::Overlay2(Marks::User),
            "overlay2" => Driver::Overlay2(Marks::Trusted),
            "fuse-overlayfs" => Driver::FuseOverlay,
            "overlay" => Driver::CopyingOverlay,
            "aufs" => Driver::Aufs,
            "vfs" => Driver::Vfs,
            "btrfs" => Driver::Btrfs,
            other => return Err(OpenError::unsupported(path, other, advice(other))),
        };
        let info = StoreInfo {
            kind: "docker",
            driver: driver.name(),
            path: path.to_owned(),
            namespace: None,
            conventions: Conventions::Docker,
        };
        let roots = Roots::open(&location, era, driver).map_err(failed)?;
        let roots = Mutex::new(Arc::new(roots));
        let owners = owners.engine.map(|engine| {
            let has_notes = driver.may_have_notes();
            Arc::new(Owners { engine: Some(engine), has_notes, ..Owners::default() })
        });
        Ok(Docker { info, location, era, driver, owners, roots, layers: OpenLayers::new() })
    }

    /// When the names of images last changed in the data root at `path`; `None` where no driver has
    /// layers there.
    pub(in crate::store) fn last_used(path: &Path) -> Option<Time> {
        let data = Root::open_resolved(path, Access::Live).ok()?;
        let ((has_layers, changed), _) = newest_driver(&data).ok()??;
        has_layers.then_some(changed)
    }

    /// Opens the data root that a daemon with `userns-remap` keeps in the directory `path` that it
    /// was told to use; of several the one that was changed last.
    fn open_remapped(path: &Path, data: &Root) -> Result<Docker, OpenError> {
        let names = remapped_roots(data).unwrap_or_default().into_iter();
        let changed = |name: &String| {
            let image = data.stat(format!("{name}/image"));
            image.map_or(Time::default(), |image| image.mtime)
        };
        match names.max_by_key(changed) {
            Some(name) => Docker::open(&path.join(name)),
            None => Err(OpenError::NotAStore { path: path.to_owned(), looked_for: LOOKED_FOR }),
        }
    }
}

/// Whether a driver has layers, and when its names last changed.
type Use = (bool, Time);

/// The name under `image` of the driver that was in use last, and how it was; `None` where there is
/// none.
fn newest_driver(data: &Root) -> Result<Option<(Use, String)>> {
    let Some(image) = if_found(data.sub_mount("image", Access::Live))? else { return Ok(None) };
    let mut newest: Option<(Use, String)> = None;
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
    Ok(newest)
}

/// Who owns the files of a data root.
#[derive(Debug)]
struct Owning {
    /// What the owners are called where the engine runs; `None` where they are the host's own.
    engine: Option<IdPair<IdMap>>,
    /// The engine runs without root, so overlayfs marks what a layer hides as any user may.
    is_rootless: bool,
}

impl Owning {
    /// A rootless data root belongs to its user; one of `userns-remap`, named `UID.GID`, may, too,
    /// though a daemon with root made it.
    fn of(location: &Path, data: &Root) -> Result<Owning> {
        let host = System::around(location);
        if let Some(root) = location.file_name().and_then(mapped_root) {
            let engine = host.and_then(|host| host.remapped(root));
            return Ok(Owning { engine, is_rootless: false });
        }
        let stat = data.stat("")?;
        let owner = IdPair { user: stat.uid, group: stat.gid };
        let is_rootless = owner.user != 0;
        let engine = host.filter(|_| is_rootless).and_then(|host| host.rootless(owner));
        Ok(Owning { engine, is_rootless: is_rootless || is_in_user_namespace() })
    }
}

/// The data roots of a daemon with `userns-remap` in the directory that it was told to use.
fn remapped_roots(data: &Root) -> Result<Vec<String>> {
    let names = data.dir("")?.names()?.into_iter();
    let names = names.filter_map(|entry| entry.name.into_string().ok());
    let mut found: Vec<String> = names
        .filter(|name| mapped_root(name.as_ref()).is_some())
        .filter(|name| data.stat(format!("{name}/image")).is_ok())
        .collect();
    found.sort();
    Ok(found)
}

fn advice(driver: &str) -> &'static str {
    match driver {
        "devicemapper" => {
            "its layers are volumes of a thin pool and not files; save the images with docker save of \
             an engine that still knows it (up to 24.0), and load them under overlay2"
        }
        "zfs" => {
            "its layers are ZFS datasets that are mounted only while a container runs; save the images \
             with docker save, and read the archive"
        }
        "windowsfilter" => "layers of Windows can't be read yet",
        _ => "overlay2, fuse-overlayfs, overlay, aufs, btrfs and vfs can be read",
    }
}

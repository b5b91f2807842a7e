//! One container, from its config and the mount database.

use super::containers;
use super::graph;
use super::image::LayerRecord;
use super::records::Era;
use super::roots::Roots;
use crate::digest::{ChainId, ContainerId};
use crate::error::{Error, Result};
use crate::store::driver::{DirId, Driver, Home};
use crate::store::files::{if_found, value};
use crate::store::{Container, LayerDir, State};

/// Reads the container `id`, whose files lie in `driver`.
pub(super) fn read(
    roots: &Roots,
    home: &mut Home<'_>,
    driver: Driver,
    id: ContainerId,
) -> Result<Container> {
    let root = roots.containers.as_ref().ok_or_else(|| Error::not_found(id.hex()))?;
    let (record, config) = containers::record(root, id, roots.era)?;
    if record.driver != driver.name() {
        return Err(Error::not_found(id.hex()));
    }
    let files = match roots.era {
        Era::Graph => graph::files(home, id, record.image)?,
        Era::Content => files(roots, home, id)?,
    };
    let state = match (&files, record.state) {
        // Docker 28.2 and later keep no mark of a removal on disk: the files go first.
        (None, State::Dead) => State::Dead,
        (None, _) => State::Removing,
        (Some(_), state) => state,
    };
    let files = files.unwrap_or_default();
    Ok(Container {
        id,
        name: record.name,
        image: record.image,
        image_name: record.image_name,
        created: record.created,
        state,
        pid: record.pid,
        config: config.into(),
        host_config: containers::host_config(root, id)?.into(),
        directory: files.directory,
        dirs: files.dirs,
        init_dirs: files.init_dirs,
        mounts: record.mounts,
        home: record.home,
    })
}

/// The files of a container.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// Name of the writable directory.
    pub(super) directory: String,
    /// All that is merged, topmost first.
    pub(super) dirs: Vec<LayerDir>,
    /// The same without the writable directory.
    pub(super) init_dirs: Vec<LayerDir>,
}

/// Finds the files of the container `id`; `None` where they are gone.
fn files(roots: &Roots, home: &mut Home<'_>, id: ContainerId) -> Result<Option<Files>> {
    let path = |name: &str| format!("layerdb/mounts/{}/{name}", id.hex());
    let Some(mount_id) = if_found(value(&roots.image, &path("mount-id"), DirId::parse))? else {
        return Ok(None);
    };
    let init_id = if_found(value(&roots.image, &path("init-id"), DirId::parse))?;
    let parent = |text: &str| ChainId::parse(text).ok();
    let parent = if_found(value(&roots.image, &path("parent"), parent))?;
    let Some(upper) = if_found(home.writable(&mount_id))? else { return Ok(None) };
    // Below the writable layer lies the init layer; where there is none, the image's top layer.
    let lower = match (init_id, parent) {
        (Some(init_id), _) => Some(init_id),
        (None, Some(parent)) => Some(LayerRecord::read(&roots.image, parent)?.cache_id),
        (None, None) => None,
    };
    let init_dirs = match &lower {
        Some(lower) => home.layer(lower)?,
        None => Vec::new(),
    };
    let dirs = home.container(&mount_id, upper, lower.as_ref(), &init_dirs)?;
    Ok(Some(Files { directory: mount_id.to_string(), dirs, init_dirs }))
}

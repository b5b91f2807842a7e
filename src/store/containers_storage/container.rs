//! One container, from its entry and the list of layers.

use super::catalog::find_container;
use super::layers::Layers;
use super::mounts::{self, Described};
use super::roots::Roots;
use crate::digest::ContainerId;
use crate::error::Result;
use crate::store::driver::{DirId, Home};
use crate::store::files::if_found;
use crate::store::{Container, LayerDir, State};

/// Reads the container `id`. What it is doing stands in the engine's database, not here: one that
/// has its files counts as stopped.
pub(super) fn read(
    roots: &Roots,
    layers: &Layers,
    home: &mut Home<'_>,
    id: ContainerId,
) -> Result<Container> {
    let record = find_container(roots, id)?;
    let Described { home: written_at, mounts } = mounts::read(roots, id)?;
    let (dirs, init_dirs) = files(layers, home, &record.layer)?.unwrap_or_default();
    Ok(Container {
        id,
        name: record.name,
        image: record.image,
        image_name: record.image_name,
        created: record.created,
        state: if dirs.is_empty() { State::Removing } else { State::Exited },
        pid: None,
        config: record.json,
        host_config: Vec::new().into(),
        directory: record.layer.to_string(),
        dirs,
        init_dirs,
        mounts,
        home: written_at,
    })
}

/// The files of the writable layer `id` upon those below it, and those alone; `None` where its own
/// are gone.
fn files(
    layers: &Layers,
    home: &mut Home<'_>,
    id: &DirId,
) -> Result<Option<(Vec<LayerDir>, Vec<LayerDir>)>> {
    let Some(upper) = if_found(home.writable(id))? else { return Ok(None) };
    let chain = layers.chain(id)?;
    let mut init_dirs = Vec::new();
    let mut parent: Option<&DirId> = None;
    for layer in &chain[..chain.len() - 1] {
        init_dirs = home.layer_upon(&layer.id, parent)?;
        parent = Some(&layer.id);
    }
    let dirs = home.container(id, upper, parent, &init_dirs)?;
    Ok(Some((dirs, init_dirs)))
}

//! One container, from its entry and the list of layers.

use super::catalog::find_container;
use super::layers::Layers;
use super::libpod::Known;
use super::mounts::{self, Described};
use super::roots::Roots;
use crate::digest::ContainerId;
use crate::error::Result;
use crate::store::driver::{DirId, Home};
use crate::store::files::if_found;
use crate::store::{Container, LayerDir, State};

/// Reads the container `id`, of which the engine's database says `known`: one of which it does not
/// say what it is doing counts as stopped as long as it has its files.
pub(super) fn read(
    roots: &Roots,
    layers: &Layers,
    home: &mut Home<'_>,
    id: ContainerId,
    known: &Known,
) -> Result<Container> {
    let record = find_container(roots, id)?;
    let described = mounts::read(roots, id)?.or_else(|| known.mounts.clone());
    let Described { home: written_at, mounts } = described.unwrap_or_default();
    let (mut dirs, init_dirs) = files(layers, home, &record.layer)?.unwrap_or_default();
    if let (Some(ids), Some(own)) = (&record.ids, dirs.first_mut()) {
        own.owners = Some(layers.owners_in(ids));
    }
    Ok(Container {
        id,
        name: record.name,
        image: record.image,
        image_name: record.image_name,
        created: record.created,
        state: match known.state {
            _ if dirs.is_empty() => State::Removing,
            Some(state) => state,
            None => State::Exited,
        },
        pid: known.pid,
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
        init_dirs = home.layer_upon(&layer.record.id, parent)?;
        parent = Some(&layer.record.id);
    }
    let dirs = home.container(id, upper, parent, &init_dirs)?;
    Ok(Some((dirs, init_dirs)))
}

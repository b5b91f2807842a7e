//! What a data root takes on disk, by Docker's own count.

use super::graph;
use super::image::LayerRecord;
use super::records::Era;
use super::roots::Roots;
use crate::digest::ChainId;
use crate::error::{Error, Result};
use crate::store::Usage;

/// Adds up the recorded sizes of all layers, each once.
pub(super) fn read(roots: &Roots) -> Result<Usage> {
    let home = roots.home()?;
    let space = rustix::fs::fstatvfs(home).map_err(|err| Error::io(home.path(), err))?;
    if roots.era == Era::Graph {
        let used = graph::size(&roots.image)?;
        return Ok(Usage { total: space.f_blocks.saturating_mul(space.f_frsize), used });
    }
    let names = match roots.image.dir("layerdb/sha256") {
        Ok(layers) => layers.names()?,
        Err(err) if err.is_not_found() => Vec::new(),
        Err(err) => return Err(err),
    };
    let ids = names.iter().filter_map(|entry| ChainId::from_hex(entry.name.to_str()?).ok());
    // A layer that is just being made or removed has no record: it does not count.
    let sizes = ids.filter_map(|id| LayerRecord::read(&roots.image, id).ok());
    let used = sizes.fold(0, |sum: u64, record| sum.saturating_add(record.size()));
    Ok(Usage { total: space.f_blocks.saturating_mul(space.f_frsize), used })
}

//! The layers of a store: which lies upon which.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::records::{self, LayerRecord, List};
use super::roots::Roots;
use crate::backing::Root;
use crate::error::{Error, Result};
use crate::store::config::LAYERS_MAX;
use crate::store::driver::DirId;
use crate::store::files::{JSON_MAX, if_found};
use crate::store::stamp::{Stamp, Taking};
use crate::store::{IdMap, IdPair, Owners};

/// The lists of layers: those that outlive a restart of the host, and the others.
const LISTS: [&str; 2] = ["layers.json", "volatile-layers.json"];

/// Layers by ID.
#[derive(Debug)]
pub(super) struct Layers {
    by_id: HashMap<DirId, Listed>,
    /// How owners are told on the store's disk.
    engine: Owners,
    /// The same for layers without a map of their own; `None` where there is nothing to undo.
    owners: Option<Arc<Owners>>,
    /// Where they are listed, for messages.
    path: PathBuf,
}

/// A layer, and what is known of it beside its entry.
#[derive(Debug)]
pub(super) struct Listed {
    /// Its entry.
    pub(super) record: LayerRecord,
    /// The part of the store that lists it: an index into [`Roots::parts`].
    pub(super) part: usize,
    /// What owners of its files are called in a container.
    owners: Option<Arc<Owners>>,
}

/// A stamp of the lists.
pub(super) fn stamp(roots: &Roots) -> Stamp {
    let mut taking = Taking::default();
    for part in &roots.parts {
        LISTS.iter().for_each(|list| taking.add(part.layers.stat(list)));
    }
    taking.finish()
}

/// A list that may be missing: nothing was ever put in.
///
/// # Errors
/// Fails where it can't be read or is no list.
pub(super) fn read_list<T>(
    root: &Root,
    name: &str,
    parse: impl Fn(&[u8]) -> Result<List<T>, String>,
) -> Result<List<T>> {
    match if_found(root.read(name, JSON_MAX))? {
        None => Ok(List::default()),
        Some(json) => parse(&json).map_err(|why| Error::corrupt(root.path().join(name), why)),
    }
}

fn mapped(engine: &Owners, ids: &IdPair<IdMap>) -> Arc<Owners> {
    Arc::new(Owners { container: Some(ids.clone()), ..engine.clone() })
}

impl Layers {
    /// Reads the lists. What makes no sense in them is missing later, where it is needed; of two
    /// layers with one ID that of the store itself counts. `engine` is how owners are told on its
    /// disk.
    pub(super) fn read(roots: &Roots, engine: &Owners) -> Result<Layers> {
        let mut by_id = HashMap::new();
        let owners = (!engine.is_plain()).then(|| Arc::new(engine.clone()));
        for (at, part) in roots.parts.iter().enumerate() {
            for name in LISTS {
                for record in read_list(&part.layers, name, records::layers)?.entries {
                    let mapped = record.ids.as_ref().map(|ids| mapped(engine, ids));
                    let owners = mapped.or_else(|| owners.clone());
                    let id = record.id.clone();
                    by_id.entry(id).or_insert(Listed { record, part: at, owners });
                }
            }
        }
        let path = roots.parts.first().map(|part| part.layers.path().join(LISTS[0]));
        Ok(Layers { by_id, engine: engine.clone(), owners, path: path.unwrap_or_default() })
    }

    /// What the owners of the files of the layer `id` are called in a container.
    pub(super) fn owners(&self, id: &DirId) -> Option<Arc<Owners>> {
        self.by_id.get(id).map_or_else(|| self.owners.clone(), |layer| layer.owners.clone())
    }

    /// The same for a container with these IDs, whatever its layer's entry says: where the kernel
    /// maps them in the mount, only the container has the map.
    pub(super) fn owners_in(&self, ids: &IdPair<IdMap>) -> Arc<Owners> {
        mapped(&self.engine, ids)
    }

    /// A layer.
    pub(super) fn find(&self, id: &DirId) -> Result<&Listed> {
        let missing = || Error::corrupt(&self.path, format!("there is no good layer {id}"));
        self.by_id.get(id).ok_or_else(missing)
    }

    /// The layer `top` and all below it, lowest first.
    pub(super) fn chain(&self, top: &DirId) -> Result<Vec<&Listed>> {
        let mut chain = vec![self.find(top)?];
        while let Some(parent) = chain.last().and_then(|layer| layer.record.parent.as_ref()) {
            if chain.len() == LAYERS_MAX {
                let why = format!("more than {LAYERS_MAX} layers below {top}, or a loop");
                return Err(Error::corrupt(&self.path, why));
            }
            chain.push(self.find(parent)?);
        }
        chain.reverse();
        Ok(chain)
    }

    /// Bytes of all layers, each once, as the engine counts.
    pub(super) fn size(&self) -> u64 {
        self.by_id.values().fold(0, |sum: u64, layer| sum.saturating_add(layer.record.size))
    }
}

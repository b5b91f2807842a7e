//! The layers of a store: which lies upon which.

use std::collections::HashMap;
use std::path::PathBuf;

use super::records::{self, LayerRecord, List};
use super::roots::Roots;
use crate::backing::Root;
use crate::error::{Error, Result};
use crate::store::config::LAYERS_MAX;
use crate::store::driver::DirId;
use crate::store::files::{JSON_MAX, if_found};
use crate::store::stamp::{Stamp, Taking};

/// The lists of layers: those that outlive a restart of the host, and the others.
const LISTS: [&str; 2] = ["layers.json", "volatile-layers.json"];

/// Layers by ID.
#[derive(Debug)]
pub(super) struct Layers {
    by_id: HashMap<DirId, LayerRecord>,
    /// Where they are listed, for messages.
    path: PathBuf,
}

/// A stamp of the lists.
pub(super) fn stamp(roots: &Roots) -> Stamp {
    let mut taking = Taking::default();
    LISTS.iter().for_each(|list| taking.add(roots.layers.stat(list)));
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

impl Layers {
    /// Reads the lists. What makes no sense in them is missing later, where it is needed.
    pub(super) fn read(roots: &Roots) -> Result<Layers> {
        let mut by_id = HashMap::new();
        for name in LISTS {
            let list = read_list(&roots.layers, name, records::layers)?;
            by_id.extend(list.entries.into_iter().map(|layer| (layer.id.clone(), layer)));
        }
        Ok(Layers { by_id, path: roots.layers.path().join(LISTS[0]) })
    }

    /// A layer.
    pub(super) fn find(&self, id: &DirId) -> Result<&LayerRecord> {
        let missing = || Error::corrupt(&self.path, format!("there is no good layer {id}"));
        self.by_id.get(id).ok_or_else(missing)
    }

    /// The layer `top` and all below it, lowest first.
    pub(super) fn chain(&self, top: &DirId) -> Result<Vec<&LayerRecord>> {
        let mut chain = vec![self.find(top)?];
        while let Some(parent) = chain.last().and_then(|layer| layer.parent.as_ref()) {
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
        self.by_id.values().fold(0, |sum: u64, layer| sum.saturating_add(layer.size))
    }
}

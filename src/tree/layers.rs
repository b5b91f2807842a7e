//! `layers/` of an image, and what the directory of each layer holds.

use std::sync::Arc;

use super::Tree;
use super::archives::Archive;
use super::node::Place;
use super::own::OwnFiles;
use super::places::{Item, Listed};
use super::saved::is_exact;
use super::shelf::{Loaded, Shelf};
use crate::digest::ImageId;
use crate::error::Result;
use crate::overlay::Stack;
use crate::overlay::own::OwnTree;
use crate::store::Layer;

impl Tree {
    pub(super) fn list_layers(&self, shelf: &Arc<Shelf>, id: ImageId) -> Result<Vec<Listed>> {
        let loaded = shelf.image(id)?;
        let layers = loaded.image.layers.iter().enumerate();
        Ok(layers.map(|(index, layer)| Listed::directory(layer_name(index, layer))).collect())
    }

    pub(super) fn layers_item(
        &self,
        shelf: &Arc<Shelf>,
        id: ImageId,
        name: &str,
    ) -> Result<Option<Item>> {
        let loaded = shelf.image(id)?;
        let mut layers = loaded.image.layers.iter().enumerate();
        let found = layers.find(|(index, layer)| layer_name(*index, layer) == name);
        let place =
            |index| Item::Place(Place::Layer(shelf.clone(), id, index), loaded.config.mtime());
        Ok(found.map(|(index, _)| place(index)))
    }

    pub(super) fn list_layer(&self) -> Vec<Listed> {
        vec![
            Listed::dear("changes"),
            Listed::dear_directory("diff"),
            Listed::dear("layer.json"),
            Listed::dear("layer.tar"),
        ]
    }

    pub(super) fn layer_item(
        &self,
        shelf: &Arc<Shelf>,
        id: ImageId,
        index: usize,
        name: &str,
    ) -> Result<Option<Item>> {
        let loaded = shelf.image(id)?;
        let layers = &loaded.image.layers;
        let Some(layer) = layers.get(index) else { return Ok(None) };
        let new = || Ok(Stack::new(self.layer_dirs(&layers[..=index])?));
        let old = || Ok(Stack::new(self.layer_dirs(&layers[..index])?));
        let changes = || {
            let key = (shelf.name.clone(), format!("layer {}", layer.chain_id), 0);
            self.changes(key, &new()?, &old()?)
        };
        let archive = Archive::of_layer(id, index, layer);
        Ok(Some(match name {
            "layer.tar" => Item::Archive(shelf.clone(), archive),
            "layer.json" => {
                let tar_size = self.made(shelf, &archive)?.recipe.len();
                // Of a layer whose digest nobody noted, the one that it has.
                let fitted = match loaded.image.descriptions.is_empty() {
                    true => None,
                    false => self.fitted(shelf, &loaded)?,
                };
                let fitted = fitted.as_ref().and_then(|(image, _)| image.layers.get(index));
                Item::Document(
                    describe_layer(&loaded, index, fitted.unwrap_or(layer), tar_size),
                    loaded.config.mtime(),
                )
            }
            "changes" => {
                let changes = changes()?;
                Item::Document(changes.text().to_vec(), loaded.config.mtime())
            }
            "diff" => {
                let part = |new| match self.layer_names(layer)? {
                    Some(names) => Ok(OwnTree::recorded(new, &names)),
                    None if index == 0 => Ok(OwnTree::full(new)),
                    None => Ok(OwnTree::compared(new, &*changes()?)),
                };
                let (symlinks, mtime) = (self.options.symlinks, loaded.config.mtime());
                Item::Own(OwnFiles::new(new()?, symlinks, mtime, part)?)
            }
            _ => return Ok(None),
        }))
    }
}

fn layer_name(index: usize, layer: &Layer) -> String {
    format!("{index:02}-{}", &layer.diff_id.hex()[..12])
}

fn describe_layer(loaded: &Loaded, index: usize, layer: &Layer, tar_size: u64) -> Vec<u8> {
    let mut steps = loaded.config.parsed.history.iter().filter(|step| !step.empty_layer);
    let step = steps.nth(index);
    let description = serde_json::json!({
        "diff_id": layer.diff_id.to_string(),
        "chain_id": layer.chain_id.to_string(),
        "size": layer.size,
        "tar_size": tar_size,
        "created": step.and_then(|step| step.created.as_ref()).map(|created| created.as_str()),
        "created_by": step.map(|step| &step.created_by),
        "directory": layer.directory,
        "exact": is_exact(layer),
    });
    format!("{description:#}\n").into_bytes()
}

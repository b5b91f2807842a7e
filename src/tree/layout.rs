//! `oci/`: an image as a live OCI image layout (image-spec, `image-layout.md`), which tools read in
//! place. Layers are uncompressed, under their diff IDs.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use super::Tree;
use super::archives::{Archive, shared_layers};
use super::node::{ImageView, Place};
use super::places::{Item, Listed};
use crate::archive::{documents, save};
use crate::digest::ImageId;
use crate::error::Result;

/// Where the blobs are in a layout.
const BLOBS: &str = "blobs/sha256/";

/// A layout, with or without the layers that another image has.
#[derive(Debug)]
pub(super) struct LayoutView {
    pub(super) view: Arc<ImageView>,
    /// The image whose layers are left out.
    pub(super) base: Option<ImageId>,
    /// What is no layer, by path, once somebody has asked.
    documents: OnceLock<Documents>,
}

type Documents = BTreeMap<String, Vec<u8>>;

impl LayoutView {
    pub(super) fn new(view: Arc<ImageView>, base: Option<ImageId>) -> LayoutView {
        LayoutView { view, base, documents: OnceLock::new() }
    }
}

/// A directory of a layout.
#[derive(Debug, Clone, Copy)]
pub(super) enum Level {
    /// The layout itself.
    Top,
    /// `blobs/`.
    Blobs,
    /// `blobs/sha256/`.
    Sha256,
}

impl Tree {
    pub(super) fn list_layout(&self, layout: &LayoutView, level: Level) -> Result<Vec<Listed>> {
        Ok(match level {
            Level::Top => vec![
                Listed::directory("blobs"),
                Listed::dear("index.json"),
                Listed::file("oci-layout"),
            ],
            Level::Blobs => vec![Listed::directory("sha256")],
            Level::Sha256 => {
                let documents = self.layout_documents(layout)?;
                let documents = documents.keys().filter_map(|path| path.strip_prefix(BLOBS));
                let layers = self.layout_layers(layout)?;
                let mut blobs: Vec<String> =
                    documents.map(str::to_owned).chain(layers.into_keys()).collect();
                blobs.sort_unstable();
                blobs.into_iter().map(Listed::dear).collect()
            }
        })
    }

    pub(super) fn layout_item(
        &self,
        layout: &Arc<LayoutView>,
        level: Level,
        name: &str,
    ) -> Result<Option<Item>> {
        let shelf = &layout.view.shelf;
        let mtime = shelf.config(layout.view.id)?.mtime();
        let place = |level| Ok(Some(Item::Place(Place::Layout(layout.clone(), level), mtime)));
        let path = match (level, name) {
            (Level::Top, "blobs") => return place(Level::Blobs),
            (Level::Blobs, "sha256") => return place(Level::Sha256),
            (Level::Top, "oci-layout") => {
                let bytes = documents::OCI_LAYOUT_COMPACT.to_vec();
                return Ok(Some(Item::Document(bytes, mtime)));
            }
            (Level::Top, "index.json") => name.to_owned(),
            (Level::Sha256, _) => format!("{BLOBS}{name}"),
            (Level::Top | Level::Blobs, _) => return Ok(None),
        };
        if let Some(bytes) = self.layout_documents(layout)?.get(&path) {
            return Ok(Some(Item::Document(bytes.clone(), mtime)));
        }
        let layer = self.layout_layers(layout)?.remove(name);
        Ok(layer.map(|layer| Item::Archive(shelf.clone(), layer)))
    }

    fn layout_documents<'a>(&self, layout: &'a LayoutView) -> Result<&'a Documents> {
        if let Some(known) = layout.documents.get() {
            return Ok(known);
        }
        let view = &layout.view;
        let documents =
            self.with_images(&view.shelf, &view.saved()?, None, save::layout_documents)?;
        Ok(layout.documents.get_or_init(|| documents))
    }

    /// The layers that are there, by the hex digits of their diff IDs.
    fn layout_layers(&self, layout: &LayoutView) -> Result<BTreeMap<String, Archive>> {
        let shelf = &layout.view.shelf;
        let base = layout.base.map(|base| shelf.image(base)).transpose()?;
        let mut layers = BTreeMap::new();
        for (id, _) in layout.view.saved()? {
            let loaded = shelf.image(id)?;
            let omitted = base.as_ref().map_or(0, |base| shared_layers(&loaded.image, &base.image));
            let fitted = self.fitted(shelf, &loaded)?;
            let given = fitted.as_ref().map_or(&loaded.image, |(image, _)| image);
            let pairs = loaded.image.layers.iter().zip(&given.layers).enumerate();
            for (index, (layer, given)) in pairs.skip(omitted) {
                let archive = Archive::Layer(id, index, layer.chain_id);
                layers.insert(given.diff_id.hex(), archive);
            }
        }
        Ok(layers)
    }
}

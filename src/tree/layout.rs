//! `oci/`: an image as a live OCI image layout (image-spec, `image-layout.md`), which tools read in
//! place: with the blobs of a content-addressed store as they are stored, an index of several platforms
//! among them; elsewhere with layers uncompressed, under their diff IDs.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use super::Tree;
use super::archives::Archive;
use super::node::{ImageView, Place};
use super::places::{Item, Listed};
use super::saved::{Named, StoredView, shared_layers};
use crate::archive::containerd::{self, StoredImage};
use crate::archive::{Flavour, documents, save};
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
    /// What it holds, once somebody has asked.
    files: OnceLock<Files>,
}

/// What a layout holds.
#[derive(Debug)]
struct Files {
    /// `index.json`.
    index: Vec<u8>,
    /// By the hex digits of their digests.
    blobs: BTreeMap<String, Blob>,
}

#[derive(Debug)]
enum Blob {
    Document(Vec<u8>),
    Archive(Archive),
}

impl LayoutView {
    pub(super) fn new(view: Arc<ImageView>, base: Option<ImageId>) -> LayoutView {
        LayoutView { view, base, files: OnceLock::new() }
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
            Level::Sha256 => self.layout_files(layout)?.blobs.keys().map(Listed::dear).collect(),
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
        match (level, name) {
            (Level::Top, "blobs") => place(Level::Blobs),
            (Level::Blobs, "sha256") => place(Level::Sha256),
            (Level::Top, "oci-layout") => {
                Ok(Some(Item::Document(documents::OCI_LAYOUT_COMPACT.to_vec(), mtime)))
            }
            (Level::Top, "index.json") => {
                Ok(Some(Item::Document(self.layout_files(layout)?.index.clone(), mtime)))
            }
            (Level::Sha256, _) => {
                Ok(self.layout_files(layout)?.blobs.get(name).map(|blob| match blob {
                    Blob::Document(bytes) => Item::Document(bytes.clone(), mtime),
                    Blob::Archive(archive) => Item::Archive(shelf.clone(), archive.clone()),
                }))
            }
            (Level::Top | Level::Blobs, _) => Ok(None),
        }
    }

    fn layout_files<'a>(&self, layout: &'a LayoutView) -> Result<&'a Files> {
        if let Some(known) = layout.files.get() {
            return Ok(known);
        }
        let shelf = &layout.view.shelf;
        let images = layout.view.saved(Flavour::Oci)?;
        let files = match self.stored(shelf, &images, layout.base)? {
            Some(stored) => stored_files(&images, &stored),
            None => self.described_files(layout, &images)?,
        };
        Ok(layout.files.get_or_init(|| files))
    }

    /// Documents that are made up, and the layers, uncompressed, by their diff IDs.
    fn described_files(&self, layout: &LayoutView, images: &[Named]) -> Result<Files> {
        let shelf = &layout.view.shelf;
        let mut documents =
            self.with_images(shelf, images, None, Flavour::Oci, save::layout_documents)?;
        let index = documents.remove("index.json").unwrap_or_default();
        let mut blobs = BTreeMap::new();
        for (path, bytes) in documents {
            if let Some(hex) = path.strip_prefix(BLOBS) {
                blobs.insert(hex.to_owned(), Blob::Document(bytes));
            }
        }
        let base = layout.base.map(|base| shelf.image(base)).transpose()?;
        for (id, _) in images {
            let loaded = shelf.image(*id)?;
            let omitted = base.as_ref().map_or(0, |base| shared_layers(&loaded.image, &base.image));
            let fitted = self.fitted(shelf, &loaded)?;
            let given = fitted.as_ref().map_or(&loaded.image, |(image, _)| image);
            let pairs = loaded.image.layers.iter().zip(&given.layers).enumerate();
            for (index, (layer, given)) in pairs.skip(omitted) {
                let archive = Archive::of_layer(*id, index, layer);
                blobs.insert(given.diff_id.hex(), Blob::Archive(archive));
            }
        }
        Ok(Files { index, blobs })
    }
}

/// The blobs as they are stored.
fn stored_files(images: &[Named], stored: &[StoredView]) -> Files {
    let mut blobs = BTreeMap::new();
    for (loaded, content) in stored {
        for digest in content.blobs.keys() {
            let blob = Archive::Blob(*digest, loaded.image.id);
            blobs.insert(digest.hex(), Blob::Archive(blob));
        }
    }
    let images = stored.iter().zip(images).map(|((loaded, content), (_, references))| {
        StoredImage { image: &loaded.image, references, content }
    });
    Files { index: containerd::index(&images.collect::<Vec<_>>()), blobs }
}

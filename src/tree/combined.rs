//! Archives whose file name says what goes in: several images (`images/.save/A+B.tar`), or an image
//! without what another has (`delta/A.tar`, `oci-delta/A/`).
//!
//! A name of an image is spelled as everywhere, with `%XX` for what a file name can't hold, as the
//! `/` of `ghcr.io%2Forg%2Fapp`.

use std::sync::Arc;

use percent_encoding::percent_decode_str;

use super::Tree;
use super::archives::Archive;
use super::layout::{LayoutView, Level};
use super::node::{ImageView, Place, Scope};
use super::places::{Item, Listed};
use super::saved::{add_saved, shared_layers};
use super::shelf::Shelf;
use crate::archive::Flavour;
use crate::error::Result;

impl Tree {
    /// `A+B+C.tar`: the images together, in this order.
    pub(super) fn combined_item(&self, shelf: &Arc<Shelf>, name: &str) -> Result<Option<Item>> {
        let Some(spelled) = name.strip_suffix(".tar") else { return Ok(None) };
        let names = shelf.names()?;
        let flavour = self.flavour(shelf);
        let mut images = Vec::new();
        for spelling in spelled.split('+') {
            let Some(view) = self.spelled(shelf, "", spelling)? else { return Ok(None) };
            add_saved(&names, view.id, &view.scope, flavour, &mut images);
        }
        let archive = Archive::Save { images, flavour, base: None };
        Ok(Some(Item::Archive(shelf.clone(), archive)))
    }

    /// The other references of the repository, each as a base.
    pub(super) fn list_deltas(&self, view: &ImageView) -> Result<Vec<Listed>> {
        let bases = bases(view)?;
        let files = bases.iter().flat_map(|base| [format!("{base}.json"), format!("{base}.tar")]);
        Ok(files.map(Listed::dear).collect())
    }

    pub(super) fn delta_item(&self, view: &Arc<ImageView>, name: &str) -> Result<Option<Item>> {
        let Some((spelling, kind)) = name.rsplit_once('.') else { return Ok(None) };
        let Some(base) = self.base(view, spelling)? else { return Ok(None) };
        match kind {
            "tar" => Ok(Some(Item::Archive(view.shelf.clone(), self.delta(view, &base)?))),
            "json" => self.describe_delta(view, &base).map(Some),
            _ => Ok(None),
        }
    }

    pub(super) fn list_delta_layouts(&self, view: &ImageView) -> Result<Vec<Listed>> {
        Ok(bases(view)?.into_iter().map(Listed::directory).collect())
    }

    pub(super) fn delta_layout(&self, view: &Arc<ImageView>, name: &str) -> Result<Option<Item>> {
        let Some(base) = self.base(view, name)? else { return Ok(None) };
        let mtime = view.shelf.config(view.id)?.mtime();
        let layout = LayoutView::new(view.clone(), Some(base.id));
        Ok(Some(Item::Place(Place::Layout(Arc::new(layout), Level::Top), mtime)))
    }

    fn delta(&self, view: &ImageView, base: &ImageView) -> Result<Archive> {
        // Podman loads no archive that lacks a layer; Docker loads one where it has the layer.
        let flavour = match self.flavour(&view.shelf) {
            Flavour::Podman => Flavour::Docker29,
            flavour => flavour,
        };
        Ok(Archive::Save { images: view.saved(flavour)?, flavour, base: Some(base.id) })
    }

    fn describe_delta(&self, view: &ImageView, base: &ImageView) -> Result<Item> {
        let shelf = &view.shelf;
        let (image, below) = (shelf.image(view.id)?, shelf.image(base.id)?);
        let delta = self.made(shelf, &self.delta(view, base)?)?.recipe.len();
        let flavour = self.flavour(shelf);
        let whole = Archive::Save { images: view.saved(flavour)?, flavour, base: None };
        let whole = self.made(shelf, &whole)?.recipe.len();
        let description = serde_json::json!({
            "image": view.id.to_string(),
            "base": base.id.to_string(),
            "layers": image.image.layers.len(),
            "shared_layers": shared_layers(&image.image, &below.image),
            "save_bytes": whole,
            "delta_bytes": delta,
            "saved_bytes": whole.saturating_sub(delta),
        });
        Ok(Item::Document(format!("{description:#}\n").into_bytes(), image.config.mtime()))
    }

    /// The image that a file name means as a base of `view`: one of its own directory, or any.
    fn base(&self, view: &ImageView, spelling: &str) -> Result<Option<Arc<ImageView>>> {
        match self.spelled(&view.shelf, directory(&view.scope), spelling)? {
            None => self.spelled(&view.shelf, "", spelling),
            found => Ok(found),
        }
    }

    fn spelled(
        &self,
        shelf: &Arc<Shelf>,
        directory: &str,
        spelling: &str,
    ) -> Result<Option<Arc<ImageView>>> {
        let Ok(name) = percent_decode_str(spelling).decode_utf8() else { return Ok(None) };
        let names = shelf.names()?;
        let Some(found) = names.find(directory, &name) else { return Ok(None) };
        Ok(self.view(shelf, &names, found).map(Arc::new))
    }
}

/// Names in its own directory of the references that an image may be compared with: those of its
/// repository to other images.
fn bases(view: &ImageView) -> Result<Vec<String>> {
    let names = view.shelf.names()?;
    let repository = match &view.scope {
        Scope::Id => return Ok(Vec::new()),
        Scope::Repository(repository) => repository.as_str(),
        Scope::Reference(text) => names.repository_of(text).unwrap_or_default(),
    };
    let others = names.references(repository).iter().filter(|(.., id)| *id != view.id);
    let entry = |text: &str| text.rsplit('/').next().unwrap_or(text).to_owned();
    Ok(others.map(|(_, text, _)| entry(text)).filter(|name| name.len() + 5 <= 255).collect())
}

/// The directory of `images/` that a name is in, with its ending slash.
fn directory(scope: &Scope) -> &str {
    match scope {
        Scope::Id => "",
        Scope::Reference(text) | Scope::Repository(text) => {
            text.rfind('/').map_or("", |slash| &text[..=slash])
        }
    }
}

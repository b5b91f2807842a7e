//! `images/` and what an image's directory holds.

use std::borrow::Cow;
use std::sync::Arc;

use super::Tree;
use super::archives::Archive;
use super::layout::{LayoutView, Level};
use super::merged::MergedTree;
use super::names::{Found, Names, cut, is_entry};
use super::node::{ImageView, Place, Scope};
use super::places::{Item, Listed};
use super::shelf::{Config, Loaded, Shelf};
use crate::archive::{Flavour, history, inspect};
use crate::digest::ImageId;
use crate::error::{Error, Result};
use crate::oci::ImageConfig;
use crate::overlay::Stack;
use crate::reference::Reference;
use crate::time::Timestamp;

/// Names in a repository's directory that stand for itself, so that no image below it has them.
const RESERVED: [&str; 18] = [
    "README",
    "config.json",
    "created",
    "delta",
    "digest",
    "export.tar",
    "formats",
    "history",
    "id",
    "inspect.json",
    "layers",
    "oci",
    "oci-delta",
    "platforms",
    "rootfs",
    "save.tar",
    "tags",
    "used-by",
];

impl Tree {
    pub(super) fn list_images(&self, shelf: &Arc<Shelf>, prefix: &str) -> Result<Vec<Listed>> {
        let names = shelf.names()?;
        Ok(names.listing(prefix).map(|(name, _)| Listed::directory(name)).collect())
    }

    pub(super) fn find_image(
        &self,
        shelf: &Arc<Shelf>,
        prefix: &str,
        name: &str,
    ) -> Result<Option<Item>> {
        if prefix.is_empty() && name == ".save" {
            return Ok(Some(Item::Place(Place::Combined(shelf.clone()), self.started)));
        }
        let names = shelf.names()?;
        Ok(match names.find(prefix, name) {
            None => None,
            Some(Found::Prefix(prefix)) => {
                Some(Item::Place(Place::Images(shelf.clone(), prefix), self.started))
            }
            Some(found) => {
                self.view(shelf, &names, found).map(|view| self.image_place(Arc::new(view)))
            }
        })
    }

    /// The image that a name stands for; `None` for a directory of other names.
    pub(super) fn view(
        &self,
        shelf: &Arc<Shelf>,
        names: &Names,
        found: Found,
    ) -> Option<ImageView> {
        let (id, scope) = match found {
            Found::Prefix(_) => return None,
            Found::Id(id) => (id, Scope::Id),
            Found::Reference(text, id) => (id, Scope::Reference(text)),
            Found::Repository(repository) => {
                (self.newest(shelf, names, &repository)?, Scope::Repository(repository))
            }
        };
        Some(ImageView { shelf: shelf.clone(), id, scope, is_platform: false })
    }

    /// The image that a repository's directory shows: that of `latest`, else the newest one.
    fn newest(&self, shelf: &Arc<Shelf>, names: &Names, repository: &str) -> Option<ImageId> {
        let references = names.references(repository);
        let latest = references.iter().find(|(reference, ..)| {
            reference.tag.as_ref().is_some_and(|tag| tag.as_str() == "latest")
        });
        if let Some((.., id)) = latest {
            return Some(*id);
        }
        let created =
            |id: ImageId| shelf.config(id).map(|config| config.mtime()).unwrap_or_default();
        references.iter().map(|(.., id)| *id).max_by_key(|id| created(*id))
    }

    /// A broken image keeps its directory, so that its neighbours and its name stay.
    pub(super) fn image_place(&self, view: Arc<ImageView>) -> Item {
        let mtime = view.shelf.config(view.id).map_or(self.started, |config| config.mtime());
        Item::Place(Place::Image(view), mtime)
    }

    pub(super) fn list_image(&self, view: &ImageView) -> Result<Vec<Listed>> {
        let mut listed = vec![
            Listed::file("README"),
            Listed::file("config.json"),
            Listed::file("created"),
            Listed::dear("export.tar"),
            Listed::directory("formats"),
            Listed::file("history"),
            Listed::file("id"),
            Listed::file("inspect.json"),
            Listed::directory("layers"),
            Listed::dear_directory("rootfs"),
        ];
        if !view.is_platform {
            listed.push(Listed::directory("used-by"));
        }
        if !other_platforms(view)?.is_empty() {
            listed.push(Listed::directory("platforms"));
        }
        if self.is_saveable(view) {
            listed.push(Listed::directory("oci"));
            listed.push(Listed::dear("save.tar"));
        }
        if self.repo_digest(view)?.is_some() {
            listed.push(Listed::file("digest"));
        }
        if let Scope::Repository(repository) = &view.scope {
            listed.push(Listed::directory("tags"));
            let names = view.shelf.names()?;
            let prefix = format!("{repository}/");
            let below = names.listing(&prefix).map(|(name, _)| name);
            let free = below.filter(|name| !RESERVED.contains(&name.as_str()));
            listed.extend(free.map(Listed::directory));
        }
        Ok(listed)
    }

    pub(super) fn image_item(&self, view: &Arc<ImageView>, name: &str) -> Result<Option<Item>> {
        let shelf = &view.shelf;
        if !RESERVED.contains(&name) {
            return match &view.scope {
                Scope::Repository(repository) => {
                    self.find_image(shelf, &format!("{repository}/"), name)
                }
                Scope::Id | Scope::Reference(_) => Ok(None),
            };
        }
        if let Scope::Repository(repository) = &view.scope
            && shelf.names()?.references(repository).is_empty()
        {
            return Ok(None); // it has lost its last name since somebody went in
        }
        let config = shelf.config(view.id)?;
        let mtime = config.mtime();
        let document = |bytes: Vec<u8>| Ok(Some(Item::Document(bytes, mtime)));
        let place = |place: Place| Ok(Some(Item::Place(place, mtime)));
        match name {
            "README" => document(self.image_readme(view)),
            "config.json" => document(stored_config(view, &config)),
            "created" => {
                let created = config.parsed.created.clone().unwrap_or_else(Timestamp::zero);
                document(format!("{created}\n").into_bytes())
            }
            "digest" => match self.repo_digest(view)? {
                Some(digest) => document(format!("{digest}\n").into_bytes()),
                None => Ok(None),
            },
            "export.tar" => Ok(Some(Item::Archive(shelf.clone(), Archive::Image(view.id)))),
            "formats" => place(Place::Formats(view.clone())),
            "history" => document(self.history(view)?),
            "id" => document(format!("{}\n", view.id).into_bytes()),
            "inspect.json" => document(self.inspect_image(view)?),
            "layers" => place(Place::Layers(shelf.clone(), view.id)),
            "platforms" if platforms(view).is_empty() => Ok(None),
            "platforms" => place(Place::Platforms(view.clone())),
            "rootfs" if config.parsed.diff_ids.is_empty() => place(Place::Empty),
            "rootfs" => {
                let stack = Stack::new(self.layer_dirs(&shelf.image(view.id)?.image.layers)?);
                let tree = MergedTree::new(stack, self.options.symlinks, mtime);
                Ok(Some(Item::Merged(tree)))
            }
            "delta" => place(Place::Deltas(view.clone())),
            "oci-delta" => place(Place::DeltaLayouts(view.clone())),
            "oci" => {
                let layout = LayoutView::new(view.clone(), None);
                place(Place::Layout(Arc::new(layout), Level::Top))
            }
            "save.tar" => self.save_item(view, self.flavour(shelf)),
            "tags" => match view.scope {
                Scope::Repository(_) => place(Place::Tags(view.clone())),
                Scope::Id | Scope::Reference(_) => Ok(None),
            },
            "used-by" if !view.is_platform => place(Place::UsedBy(view.clone())),
            _ => Ok(None),
        }
    }

    fn save_item(&self, view: &ImageView, flavour: Flavour) -> Result<Option<Item>> {
        let archive = Archive::Save { images: view.saved(flavour)?, flavour, base: None };
        Ok(Some(Item::Archive(view.shelf.clone(), archive)))
    }

    /// No engine saves an image without layers: its archives are not listed, and answer ENODATA.
    fn is_saveable(&self, view: &ImageView) -> bool {
        view.shelf.config(view.id).map_or(true, |config| !config.parsed.diff_ids.is_empty())
    }

    pub(super) fn list_formats(&self, view: &ImageView) -> Vec<Listed> {
        let formats: &[Flavour] = if self.is_saveable(view) { &Flavour::ALL } else { &[] };
        formats.iter().map(|flavour| Listed::dear(format!("{flavour}.tar"))).collect()
    }

    pub(super) fn format_item(&self, view: &ImageView, name: &str) -> Result<Option<Item>> {
        let flavour = Flavour::ALL.iter().find(|flavour| format!("{flavour}.tar") == name);
        flavour.map_or(Ok(None), |flavour| self.save_item(view, *flavour))
    }

    /// The manifest's digest that the image was pulled or pushed under.
    fn repo_digest(&self, view: &ImageView) -> Result<Option<String>> {
        let names = view.shelf.names()?;
        let digest = names.references_to(view.id).find_map(|text| text.split_once('@'));
        Ok(digest.map(|(_, digest)| digest.to_owned()))
    }

    fn history(&self, view: &ImageView) -> Result<Vec<u8>> {
        let loaded = view.shelf.image(view.id)?;
        let names = view.shelf.names()?;
        let ancestors = std::iter::successors(Some(view.id), |id| names.parent(*id));
        let lineage: Vec<ImageId> = ancestors.take(loaded.config.parsed.history.len()).collect();
        let sizes: Vec<u64> = loaded.image.layers.iter().map(|layer| layer.size).collect();
        history::history(&loaded.config.parsed, &sizes, &lineage)
            .map_err(|why| Error::corrupt(format!("image {}", view.id), why))
    }

    fn inspect_image(&self, view: &ImageView) -> Result<Vec<u8>> {
        let loaded = view.shelf.image(view.id)?;
        let image = &loaded.image;
        let references = image.references.iter().filter_map(|text| Reference::parse(text).ok());
        let described = inspect::Image {
            id: image.id,
            config: &*shown_config(&loaded)?,
            references: &references.collect::<Vec<_>>(),
            parent: image.parent,
            size: image.layers.iter().map(|layer| layer.size).sum(),
            last_tagged: image.last_tagged.as_deref().and_then(Timestamp::parse),
            graph_driver: view
                .shelf
                .store
                .graph_driver(image.layers.last().map_or(&[], |top| &top.dirs)),
        };
        let shown = match (&image.target, &image.stored) {
            (Some(target), Some(stored)) => inspect::engine29::image(&described, target, stored),
            _ => inspect::image(&described),
        };
        shown.map_err(|why| Error::corrupt(format!("image {}", image.id), why))
    }

    fn image_readme(&self, view: &ImageView) -> Vec<u8> {
        let engine = view.shelf.store.info().kind;
        let (name, saved) = match &view.scope {
            Scope::Id => (view.id.to_string(), "this image, without a name".to_owned()),
            Scope::Reference(text) => (text.clone(), format!("what `{engine} save {text}` gives")),
            Scope::Repository(text) => {
                (text.clone(), format!("every tag of {text}, as `{engine} save {text}` gives"))
            }
        };
        let flavour = self.flavour(&view.shelf);
        format!(
            "{name}\n\n\
             save.tar      {saved}; flavour {flavour}\n\
             formats/      the same as other versions of the engine write it\n\
             export.tar    the merged files as one flat tar\n\
             rootfs/       the merged files\n\
             oci/          an OCI image layout that tools read in place\n\
             delta/        not listed: OTHER.tar lacks the layers that the image OTHER has;\n\
             oci-delta/    the same as layouts\n\
             layers/       each layer's tar, own files, changes and description, lowest first\n\
             config.json   the image config, as stored; inspect.json, history: as Docker shows it\n\
             used-by/      containers made from this image\n\
             platforms/    the image for other platforms, where there are any\n"
        )
        .into_bytes()
    }

    pub(super) fn list_platforms(&self, view: &ImageView) -> Result<Vec<Listed>> {
        let others = other_platforms(view)?;
        Ok(others.into_iter().map(|(name, _)| Listed::directory(name)).collect())
    }

    /// The image for one platform, under the name that it is looked at by; the host's, which is not
    /// listed, is found as well.
    pub(super) fn platform_item(&self, view: &ImageView, name: &str) -> Result<Option<Item>> {
        let found = platforms(view).into_iter().find(|(platform, _)| platform == name);
        let Some((_, id)) = found else { return Ok(None) };
        let scope = match &view.scope {
            Scope::Id => Scope::Id,
            Scope::Reference(text) => Scope::Reference(text.clone()),
            // The repository's directory shows one of its images, and so it does here.
            Scope::Repository(repository) => {
                let names = view.shelf.names()?;
                let references = names.references(repository).iter();
                let shown = references
                    .rev()
                    .find(|(reference, _, image)| *image == view.id && reference.tag.is_some());
                shown.map_or(Scope::Id, |(_, text, _)| Scope::Reference(text.clone()))
            }
        };
        let view = ImageView { shelf: view.shelf.clone(), id, scope, is_platform: true };
        Ok(Some(self.image_place(Arc::new(view))))
    }

    /// Containers made from the image.
    pub(super) fn list_users(&self, view: &ImageView) -> Result<Vec<Listed>> {
        let names = view.shelf.names()?;
        let users = names.containers().iter().filter(|one| one.image == Some(view.id));
        Ok(users.map(|container| Listed::link(&container.name)).collect())
    }

    pub(super) fn user_item(&self, view: &ImageView, name: &str) -> Result<Option<Item>> {
        let names = view.shelf.names()?;
        let mut users = names.containers().iter().filter(|one| one.image == Some(view.id));
        let depth = match &view.scope {
            Scope::Id => 3,
            Scope::Reference(text) | Scope::Repository(text) => 2 + text.matches('/').count(),
        };
        let target = format!("{}containers/{name}", "../".repeat(depth + 1));
        Ok(users.any(|one| one.name == name).then(|| Item::Link(target)))
    }

    pub(super) fn list_tags(&self, view: &ImageView) -> Result<Vec<Listed>> {
        Ok(tags(view)?.into_iter().map(|(tag, _)| Listed::link(tag)).collect())
    }

    pub(super) fn tag_item(&self, view: &ImageView, name: &str) -> Result<Option<Item>> {
        let tag = tags(view)?.into_iter().find(|(tag, _)| tag == name);
        Ok(tag.map(|(_, target)| Item::Link(format!("../../{target}"))))
    }
}

/// The platforms of an image, each with its image. No layer is looked at where the ID says that
/// there is but one: where it is the config's own digest.
fn platforms(view: &ImageView) -> Vec<(String, ImageId)> {
    let Ok(config) = view.shelf.config(view.id) else { return Vec::new() };
    if view.is_platform || config.is_named_by(view.id) {
        return Vec::new();
    }
    let Ok(loaded) = view.shelf.image(view.id) else { return Vec::new() };
    loaded.image.platforms.iter().filter(|(name, _)| is_entry(name)).cloned().collect()
}

/// The config as it is stored; where the store has none, what it has instead.
fn stored_config(view: &ImageView, config: &Config) -> Vec<u8> {
    if !config.is_named_by(view.id)
        && let Ok(loaded) = view.shelf.image(view.id)
        && let Some(top) = loaded.image.descriptions.last()
    {
        return top.json.to_vec();
    }
    config.bytes.to_vec()
}

/// The config as an engine's inspection shows it: without the layers where nobody noted their digests.
fn shown_config(loaded: &Loaded) -> Result<Cow<'_, ImageConfig>> {
    if loaded.image.descriptions.is_empty() {
        return Ok(Cow::Borrowed(&loaded.config.parsed));
    }
    let config = ImageConfig::parse(&loaded.config.parsed.with_diff_ids(&[]));
    config.map(Cow::Owned).map_err(|why| Error::corrupt(format!("image {}", loaded.image.id), why))
}

/// Those but the one that the image's directory shows.
fn other_platforms(view: &ImageView) -> Result<Vec<(String, ImageId)>> {
    let mut others = platforms(view);
    if !others.is_empty() {
        let shown = view.shelf.config(view.id)?;
        others.retain(|(_, id)| {
            view.shelf.config(*id).map_or(true, |other| other.bytes != shown.bytes)
        });
    }
    Ok(others)
}

/// Tags of a repository, each with the name that its reference is listed under beside it.
fn tags(view: &ImageView) -> Result<Vec<(String, String)>> {
    let Scope::Repository(repository) = &view.scope else { return Ok(Vec::new()) };
    let names = view.shelf.names()?;
    let references = names.references(repository).iter();
    let tagged = references.filter_map(|(reference, text, _)| {
        let entry = text.rsplit('/').next().unwrap_or(text);
        Some((reference.tag.as_ref()?.to_string(), cut(entry)))
    });
    Ok(tagged.collect())
}

//! Directories that stratafs makes up: what they list, and how an entry is found.
//!
//! Each place answers two questions: [`Tree::list_place`], and [`Tree::item`], which makes the node
//! of one entry. `images` and `containers` answer for theirs.

use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::time::Duration;

use super::archives::Archive;
use super::identity::Identity;
use super::merged::MergedTree;
use super::node::{ArchiveNode, Frozen, ImageView, Node, Place, Scope};
use super::own::OwnFiles;
use super::shelf::Shelf;
use super::told::Told;
use super::{Attr, Child, FRESH, Tree};
use crate::backing::{FileKind, Time};
use crate::digest::{ContainerId, Digest, ImageId};
use crate::error::{Error, Result};
use crate::overlay::Entry;
use crate::recipe::Recipe;

/// What an entry of a made-up directory turns out to be.
pub(super) enum Item {
    /// Another made-up directory, and its mtime.
    Place(Place, Time),
    /// A small file, and its mtime.
    Document(Vec<u8>, Time),
    /// A symlink.
    Link(String),
    /// A tar of a store.
    Archive(Arc<Shelf>, Archive),
    /// The top of merged layers.
    Merged(MergedTree),
    /// A single file of them, in their root.
    File(MergedTree, Box<Entry>),
    /// The top of a layer's own files.
    Own(OwnFiles),
}

/// An entry of a made-up directory as it is listed.
pub(super) struct Listed {
    name: OsString,
    kind: FileKind,
    is_cheap: bool,
}

impl Listed {
    /// A directory.
    pub(super) fn directory(name: impl Into<OsString>) -> Listed {
        Listed { name: name.into(), kind: FileKind::Directory, is_cheap: true }
    }

    /// A file whose size is known from metadata alone.
    pub(super) fn file(name: impl Into<OsString>) -> Listed {
        Listed { name: name.into(), kind: FileKind::Regular, is_cheap: true }
    }

    /// A file whose size takes a look at a layer.
    pub(super) fn dear(name: impl Into<OsString>) -> Listed {
        Listed { name: name.into(), kind: FileKind::Regular, is_cheap: false }
    }

    /// A directory that takes a look at a layer: one that is a tar is read through for it.
    pub(super) fn dear_directory(name: impl Into<OsString>) -> Listed {
        Listed { name: name.into(), kind: FileKind::Directory, is_cheap: false }
    }

    /// Something of any kind whose attributes take a look at the disk.
    pub(super) fn dear_of_kind(name: impl Into<OsString>, kind: FileKind) -> Listed {
        Listed { name: name.into(), kind, is_cheap: false }
    }

    /// A symlink.
    pub(super) fn link(name: impl Into<OsString>) -> Listed {
        Listed { name: name.into(), kind: FileKind::Symlink, is_cheap: true }
    }
}

fn has_pods(shelf: &Shelf) -> bool {
    shelf.names().is_ok_and(|names| names.has_pods())
}

fn list_store(shelf: &Shelf) -> Vec<Listed> {
    let mut listed = vec![
        Listed::file("README"),
        Listed::directory("by-id"),
        Listed::directory("containers"),
        Listed::directory("images"),
    ];
    if has_pods(shelf) {
        listed.push(Listed::directory("pods"));
    }
    listed.push(Listed::directory("volumes"));
    listed
}

impl Tree {
    /// The children of a made-up directory.
    pub(super) fn list_place(&self, ino: u64, place: &Place) -> Result<Vec<Child>> {
        let listed = match place {
            Place::Root => {
                let stores = self.engines.iter().map(|engine| Listed::directory(&engine.name));
                std::iter::once(Listed::file("README")).chain(stores).collect()
            }
            Place::Engine(engine) => match engine.only() {
                Some(shelf) => list_store(&shelf),
                None => vec![Listed::file("README"), Listed::directory("namespaces")],
            },
            Place::Namespaces(engine) => {
                engine.namespaces().into_iter().map(Listed::directory).collect()
            }
            Place::Store(shelf) => list_store(shelf),
            Place::Images(shelf, prefix) => self.list_images(shelf, prefix)?,
            Place::Image(view) => self.list_image(view)?,
            Place::Formats(view) => self.list_formats(view),
            Place::Layers(shelf, id) => self.list_layers(shelf, *id)?,
            Place::Layer(..) => self.list_layer(),
            Place::UsedBy(view) => self.list_users(view)?,
            Place::Tags(view) => self.list_tags(view)?,
            Place::Layout(layout, level) => self.list_layout(layout, *level)?,
            Place::Deltas(view) => self.list_deltas(view)?,
            Place::DeltaLayouts(view) => self.list_delta_layouts(view)?,
            Place::Platforms(view) => self.list_platforms(view)?,
            Place::Containers(shelf) => {
                let names = shelf.names()?;
                let containers = names.containers().iter();
                containers.map(|container| Listed::directory(&container.name)).collect()
            }
            Place::Container(shelf, moment) => self.list_container(shelf, moment)?,
            Place::Pods(shelf, path) => self.list_pods(shelf, path)?,
            Place::Mounts(shelf, moment) => self.list_mounts(shelf, moment)?,
            Place::Snapshots(_, id) => self.list_snapshots(*id)?,
            Place::ChangesSince(_, moment) => self.list_others(moment)?,
            Place::Volumes(shelf) => self.list_volumes(shelf)?,
            Place::Volume(..) => self.list_volume(),
            Place::ById(_) => vec![Listed::directory("containers"), Listed::directory("images")],
            Place::ImagesById(shelf) => {
                shelf.names()?.images().map(|id| Listed::directory(id.hex())).collect()
            }
            Place::ContainersById(shelf) => {
                let names = shelf.names()?;
                names
                    .containers()
                    .iter()
                    .map(|container| Listed::link(container.id.hex()))
                    .collect()
            }
            Place::Empty | Place::Combined(_) => Vec::new(),
            Place::Control => {
                let kept = self.has_snapshots().then_some("snapshots");
                let names = ["errors", "events", "metrics", "refresh"].into_iter().chain(kept);
                names.chain(["stats.json", "version"]).map(Listed::dear).collect()
            }
        };
        let child = |listed: Listed| Child {
            ino: Identity::of_name(ino, &listed.name, b"").ino(),
            name: listed.name,
            kind: listed.kind,
            is_cheap: listed.is_cheap,
        };
        Ok(listed.into_iter().map(child).collect())
    }

    /// Looks up `name` in a made-up directory, and counts a reference to it.
    pub(super) fn find_in_place(&self, parent: u64, place: &Place, name: &OsStr) -> Result<Attr> {
        let missing = || Error::not_found(name);
        let text = name.to_str().ok_or_else(missing)?;
        let item = self.item(place, text)?.ok_or_else(missing)?;
        if self.engines.iter().any(|engine| engine.take_news()) {
            self.let_go();
        }
        let attr = self.admit_item(parent, name, item)?;
        Ok(match place {
            Place::Control => Attr { ttl: Duration::ZERO, ..attr }, // each look is another
            _ => attr,
        })
    }

    fn item(&self, place: &Place, name: &str) -> Result<Option<Item>> {
        let directory = |place: Place| Ok(Some(Item::Place(place, self.started)));
        match (place, name) {
            (Place::Root, "README") => Ok(Some(self.readme())),
            (Place::Root | Place::Engine(_) | Place::Store(_), ".stratafs") => {
                directory(Place::Control)
            }
            (Place::Root, _) => {
                let engine = self.engines.iter().find(|engine| engine.name == name);
                Ok(engine.map(|it| Item::Place(Place::Engine(Arc::clone(it)), self.started)))
            }
            (Place::Engine(_) | Place::Store(_), "README") => Ok(Some(self.readme())),
            (Place::Engine(engine), _) => match engine.only() {
                Some(shelf) => self.item(&Place::Store(shelf), name),
                None if name == "namespaces" => directory(Place::Namespaces(Arc::clone(engine))),
                None => Ok(None),
            },
            (Place::Namespaces(engine), _) => {
                let shelf = engine.namespace(name);
                Ok(shelf.map(|shelf| Item::Place(Place::Store(shelf), self.started)))
            }
            (Place::Store(shelf), "images") => {
                directory(Place::Images(shelf.clone(), String::new()))
            }
            (Place::Store(shelf), "containers") => directory(Place::Containers(shelf.clone())),
            (Place::Store(shelf), "volumes") => directory(Place::Volumes(shelf.clone())),
            (Place::Store(shelf), "by-id") => directory(Place::ById(shelf.clone())),
            (Place::Store(shelf), "pods") if has_pods(shelf) => {
                directory(Place::Pods(shelf.clone(), Vec::new()))
            }
            (Place::Store(_), _) => Ok(None),
            (Place::Images(shelf, prefix), _) => self.find_image(shelf, prefix, name),
            (Place::Image(view), _) => self.image_item(view, name),
            (Place::Formats(view), _) => self.format_item(view, name),
            (Place::Layers(shelf, id), _) => self.layers_item(shelf, *id, name),
            (Place::Layer(shelf, id, index), _) => self.layer_item(shelf, *id, *index, name),
            (Place::UsedBy(view), _) => self.user_item(view, name),
            (Place::Tags(view), _) => self.tag_item(view, name),
            (Place::Layout(layout, level), _) => self.layout_item(layout, *level, name),
            (Place::Deltas(view), _) => self.delta_item(view, name),
            (Place::DeltaLayouts(view), _) => self.delta_layout(view, name),
            (Place::Combined(shelf), _) => self.combined_item(shelf, name),
            (Place::Platforms(view), _) => self.platform_item(view, name),
            (Place::Containers(shelf), _) => match shelf.names()?.container(name) {
                Some(id) => self.container_place(shelf, id).map(Some),
                None => Ok(None),
            },
            (Place::Container(shelf, moment), _) => self.container_item(shelf, moment, name),
            (Place::Pods(shelf, path), _) => self.pods_item(shelf, path, name),
            (Place::Mounts(shelf, moment), _) => self.mount_item(shelf, moment, name),
            (Place::Snapshots(shelf, id), _) => self.snapshot_item(shelf, *id, name),
            (Place::ChangesSince(shelf, moment), _) => self.changes_since(shelf, moment, name),
            (Place::Volumes(shelf), _) => self.volume_place(shelf, name),
            (Place::Volume(shelf, volume), _) => self.volume_item(shelf, volume, name),
            (Place::ById(shelf), "images") => directory(Place::ImagesById(shelf.clone())),
            (Place::ById(shelf), "containers") => directory(Place::ContainersById(shelf.clone())),
            (Place::ById(_), _) => Ok(None),
            (Place::ImagesById(shelf), _) => {
                let id = ImageId::from_hex(name).ok().filter(|_| name.len() == 64);
                let names = shelf.names()?;
                id.and_then(|id| names.image(id)).map(|id| self.image_by_id(shelf, id)).transpose()
            }
            (Place::ContainersById(shelf), _) => {
                let names = shelf.names()?;
                let id = ContainerId::from_hex(name).ok();
                let found = names.containers().iter().find(|container| Some(container.id) == id);
                Ok(found.map(|found| Item::Link(format!("../../containers/{}", found.name))))
            }
            (Place::Empty, _) => Ok(None),
            (Place::Control, _) => self.control_item(name),
        }
    }

    fn image_by_id(&self, shelf: &Arc<Shelf>, id: ImageId) -> Result<Item> {
        let view = ImageView { shelf: shelf.clone(), id, scope: Scope::Id, is_platform: false };
        Ok(self.image_place(Arc::new(view)))
    }

    fn readme(&self) -> Item {
        Item::Document(include_bytes!("README.txt").to_vec(), self.started)
    }

    /// Files about the mount itself; each lookup takes them as they are at that moment.
    fn control_item(&self, name: &str) -> Result<Option<Item>> {
        let bytes = match name {
            "snapshots" => match self.left_behind()? {
                Some(lines) => lines,
                None => return Ok(None),
            },
            "version" => format!("{}\n", env!("CARGO_PKG_VERSION")).into_bytes(),
            "errors" => self.errors.text(),
            "events" => self.events.text(),
            "metrics" => self.stats().prometheus().into_bytes(),
            "stats.json" => self.stats().json()?,
            "refresh" => {
                self.engines.iter().for_each(|engine| engine.refresh());
                b"refreshed\n".to_vec()
            }
            _ => return Ok(None),
        };
        Ok(Some(Item::Document(bytes, super::journal::clock())))
    }

    /// Makes an item known under `name`.
    fn admit_item(&self, parent: u64, name: &OsStr, item: Item) -> Result<Attr> {
        match item {
            Item::Place(place, mtime) => {
                let identity = Identity::of_name(parent, name, place.subject().as_bytes());
                let mut attr = self.directory_attr(identity.ino(), mtime);
                if matches!(place, Place::Snapshots(..)) {
                    attr.permissions = 0o755; // the owner may `mkdir`
                }
                Ok(self.inodes.admit(identity, parent, || Node::Place(place), attr))
            }
            Item::Document(bytes, mtime) => {
                let version = Digest::of(&bytes).to_string();
                let identity = Identity::of_name(parent, name, version.as_bytes());
                let attr = self.file_attr(identity, bytes.len() as u64, mtime);
                Ok(self.inodes.admit(
                    identity,
                    parent,
                    || Node::Document(Box::new(Recipe::inline(bytes))),
                    attr,
                ))
            }
            Item::Link(target) => {
                let identity = Identity::of_name(parent, name, target.as_bytes());
                let mtime = self.known(parent)?.attr.mtime; // the directory's own, over remounts
                let attr = Attr {
                    kind: FileKind::Symlink,
                    permissions: 0o777,
                    ..self.file_attr(identity, target.len() as u64, mtime)
                };
                let node = || Node::Link(target.into_bytes());
                Ok(self.inodes.admit(identity, parent, node, attr))
            }
            Item::Archive(shelf, archive) => self.admit_archive(parent, shelf, archive),
            Item::Merged(tree) => {
                let identity = Identity::of_name(parent, name, &tree.version().to_le_bytes());
                let entry = tree.stack().root()?;
                let attr = Attr { ttl: FRESH, ..tree.attr(identity, &entry, 0)? };
                let node = || Node::Merged { tree: Arc::new(tree), entry, depth: 0 };
                Ok(self.inodes.admit(identity, parent, node, attr))
            }
            Item::File(tree, entry) => {
                let identity = tree.identity(parent, &entry, 1);
                let attr = tree.attr(identity, &entry, 1)?;
                let node = || Node::Merged { tree: Arc::new(tree), entry: *entry, depth: 1 };
                Ok(self.inodes.admit(identity, parent, node, attr))
            }
            Item::Own(tree) => {
                let identity = tree.identity(parent, name);
                let entry = tree.files().stack().root()?;
                let attr = Attr { ttl: FRESH, ..tree.files().attr(identity, &entry, 0)? };
                let node = || Node::Own { tree: Arc::new(tree), entry, depth: 0 };
                Ok(self.inodes.admit(identity, parent, node, attr))
            }
        }
    }

    fn admit_archive(&self, parent: u64, shelf: Arc<Shelf>, archive: Archive) -> Result<Attr> {
        let Told { len, mtime, stamp, files } = self.told(&shelf, &archive)?;
        let identity = Identity::of(&[
            b"archive",
            shelf.name.as_bytes(),
            archive.key().as_bytes(),
            // What is frozen hangs on its bytes, anything else on the file that holds the image.
            &if stamp == 0 { files } else { stamp }.to_le_bytes(),
            // Whoever was told another length has another file.
            &len.to_le_bytes(),
        ]);
        let attr = self.file_attr(identity, len, mtime);
        let frozen = (stamp != 0).then_some(Frozen { stamp, files });
        let node = || Node::Archive(ArchiveNode::new(shelf, archive, frozen));
        Ok(self.inodes.admit(identity, parent, node, attr))
    }

    fn file_attr(&self, identity: Identity, size: u64, mtime: Time) -> Attr {
        Attr { size, blocks: size.div_ceil(512), ..self.plain_attr(identity.ino(), mtime) }
    }
}

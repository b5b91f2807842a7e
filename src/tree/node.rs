//! A node of the tree, as a value.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::archives::Archive;
use super::layout::{LayoutView, Level};
use super::merged::MergedTree;
use super::own::OwnFiles;
use super::shelf::Shelf;
use super::snapshots::Moment;
use super::stores::Engine;
use crate::digest::{ContainerId, ImageId};
use crate::overlay::Entry;
use crate::recipe::Recipe;

/// What an inode number stands for.
#[derive(Debug)]
pub(super) enum Node {
    /// A directory that stratafs makes up.
    Place(Place),
    /// A small file whose bytes are at hand.
    Document(Box<Recipe>),
    /// A symlink that stratafs makes up.
    Link(Vec<u8>),
    /// A tar.
    Archive(ArchiveNode),
    /// Something of merged layers, `depth` names below their root.
    Merged { tree: Arc<MergedTree>, entry: Entry, depth: usize },
    /// A directory of one layer's own files, `depth` names below its top. The files in it are
    /// [`Node::Merged`]: those of a layer alone.
    Own { tree: Arc<OwnFiles>, entry: Entry, depth: usize },
}

impl Node {
    /// The merged layers that it is of.
    pub(super) fn tree(&self) -> Option<&Arc<MergedTree>> {
        match self {
            Node::Merged { tree, .. } => Some(tree),
            Node::Own { tree, .. } => Some(tree.files()),
            Node::Place(_) | Node::Document(_) | Node::Link(_) | Node::Archive(_) => None,
        }
    }
}

/// A directory that stratafs makes up.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// The mount point, where it holds several stores.
    Root,
    /// An engine's directory, and the mount point itself where there is one: the tree of its store,
    /// or `namespaces/` where it has several.
    Engine(Arc<Engine>),
    /// `namespaces/` of one.
    Namespaces(Arc<Engine>),
    /// A store's whole tree.
    Store(Arc<Shelf>),
    /// `images/`, or a registry or path in it: `""`, `ghcr.io/`, `ghcr.io/org/`.
    Images(Arc<Shelf>, String),
    /// An image.
    Image(Arc<ImageView>),
    /// `formats/` of an image.
    Formats(Arc<ImageView>),
    /// `layers/` of an image or container.
    Layers(Arc<Shelf>, ImageId),
    /// One of them, 0 the lowest.
    Layer(Arc<Shelf>, ImageId, usize),
    /// `used-by/` of an image.
    UsedBy(Arc<ImageView>),
    /// `oci/` of an image, or a directory in it.
    Layout(Arc<LayoutView>, Level),
    /// `delta/` of an image: archives without what another has.
    Deltas(Arc<ImageView>),
    /// `oci-delta/` of an image: the same as layouts.
    DeltaLayouts(Arc<ImageView>),
    /// `images/.save/`: archives of several images.
    Combined(Arc<Shelf>),
    /// `tags/` of a repository.
    Tags(Arc<ImageView>),
    /// `platforms/` of an image.
    Platforms(Arc<ImageView>),
    /// `containers/`.
    Containers(Arc<Shelf>),
    /// A container.
    Container(Arc<Shelf>, Moment),
    /// `pods/`, or what lies below it at these names: a namespace, a pod in it.
    Pods(Arc<Shelf>, Vec<String>),
    /// `volumes/` of a container.
    Mounts(Arc<Shelf>, Moment),
    /// `snapshots/` of a container.
    Snapshots(Arc<Shelf>, ContainerId),
    /// `changes-since/` of a snapshot.
    ChangesSince(Arc<Shelf>, Moment),
    /// `volumes/`.
    Volumes(Arc<Shelf>),
    /// A volume.
    Volume(Arc<Shelf>, String),
    /// `by-id/`.
    ById(Arc<Shelf>),
    /// `by-id/images/`.
    ImagesById(Arc<Shelf>),
    /// `by-id/containers/`.
    ContainersById(Arc<Shelf>),
    /// `rootfs/` of an image without layers.
    Empty,
    /// `.stratafs/`.
    Control,
}

impl Place {
    /// What a directory is about beyond its name: a tag that moved is another directory.
    pub(super) fn subject(&self) -> String {
        match self {
            Place::Image(view) => view.id.hex(),
            Place::Layout(layout, _) => layout.base.map(|base| base.hex()).unwrap_or_default(),
            Place::Container(_, moment) => moment.subject(),
            _ => String::new(),
        }
    }
}

/// An image, and the name under which it is looked at.
#[derive(Debug, Clone)]
pub(super) struct ImageView {
    pub(super) shelf: Arc<Shelf>,
    pub(super) id: ImageId,
    pub(super) scope: Scope,
    /// Whether it is one of the platforms of what the name stands for.
    pub(super) is_platform: bool,
}

/// What a save archive covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    /// The image alone, without a name.
    Id,
    /// One reference, as the store writes it.
    Reference(String),
    /// All tags of a repository, in its familiar form.
    Repository(String),
}

/// A tar that the kernel knows.
#[derive(Debug)]
pub(super) struct ArchiveNode {
    pub(super) shelf: Arc<Shelf>,
    pub(super) archive: Archive,
    /// What it was when it was looked up, where its files may be written to.
    pub(super) frozen: Option<Frozen>,
    /// The recipe that the last read used, while others keep it.
    recent: Mutex<Weak<Recipe>>,
    served: AtomicU64,
    has_ended: AtomicBool,
}

/// A tar at one moment, by its stamp and that of the files that it was made from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frozen {
    pub(super) stamp: u64,
    pub(super) files: u64,
}

impl ArchiveNode {
    pub(super) fn new(shelf: Arc<Shelf>, archive: Archive, frozen: Option<Frozen>) -> ArchiveNode {
        let (served, has_ended) = (AtomicU64::new(0), AtomicBool::new(false));
        ArchiveNode { shelf, archive, frozen, recent: Mutex::default(), served, has_ended }
    }

    /// Its bytes, where they need not be made again.
    pub(super) fn recent(&self) -> Option<Arc<Recipe>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    /// Keeps the way to its bytes.
    pub(super) fn remember(&self, recipe: &Arc<Recipe>) {
        *self.recent.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(recipe);
    }

    /// Counts `count` bytes from `offset` on of `len` that were read; true once as many were as
    /// there are, the last among them.
    pub(super) fn is_read_through(&self, offset: u64, count: u64, len: u64) -> bool {
        if offset + count >= len {
            self.has_ended.store(true, Ordering::Relaxed);
        }
        let served = self.served.fetch_add(count, Ordering::Relaxed) + count;
        if served < len || !self.has_ended.swap(false, Ordering::Relaxed) {
            return false;
        }
        self.served.store(0, Ordering::Relaxed);
        true
    }
}

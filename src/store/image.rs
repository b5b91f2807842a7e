//! Images and their layers, as every store describes them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;

use super::ids::Owners;
use super::manifest::Platform;
use crate::backing::{Bytes, Dir, FileKind, Root, Stat};
use crate::digest::{ChainId, DiffId, Digest, ImageId};
use crate::error::Result;

/// An image.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its ID.
    pub id: ImageId,
    /// The config, bytes as stored. Their digest is the ID, but where that is the digest of
    /// [`Image::target`], or there are [`Image::descriptions`].
    pub config: Arc<[u8]>,
    /// Layers, lowest first; as many as the config's `rootfs.diff_ids`.
    pub layers: Vec<Layer>,
    /// The image it was built or committed from, as recorded: it may be gone, or form a loop. To
    /// walk up, use [`super::Catalog::images`].
    pub parent: Option<ImageId>,
    /// When a reference last came to point at it, RFC 3339 as stored.
    pub last_tagged: Option<String>,
    /// References to it, in the order in which the store would give them.
    pub references: Vec<String>,
    /// What its name points at in a content-addressed store: a manifest, or an index of several.
    /// `None` where the store knows neither.
    pub target: Option<Descriptor>,
    /// Every platform of which something is here, `linux-arm64` and the image's ID for that platform
    /// alone, sorted; empty where the image is for one platform and says no more.
    pub platforms: Vec<(String, ImageId)>,
    /// What a content-addressed store records of it, beside its blobs.
    pub stored: Option<Stored>,
    /// Of a store that knows no digests: what it has instead of a config, one description for each
    /// layer. The diff IDs are then their IDs, which stand in for digests that nobody noted, and
    /// [`Image::config`] is made of them. Empty elsewhere.
    pub descriptions: Vec<Description>,
}

/// What Docker to 1.9 notes of an image, which is one layer upon its parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Its ID: random, and no digest of anything.
    pub id: Digest,
    /// The description, bytes as stored.
    pub json: Arc<[u8]>,
}

/// What a content-addressed store records of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The manifest that the config and the layers are of: the target, or one that it lists.
    pub manifest: Digest,
    /// What the image is for, where it is one of several that an index lists.
    pub platform: Option<Platform>,
    /// By reference: what its record says of the target.
    pub annotations: BTreeMap<String, BTreeMap<String, String>>,
    /// Where the target was pulled from and pushed to, as annotations.
    pub sources: BTreeMap<String, String>,
    /// Bytes of all blobs that it is made of, those for other platforms left out; each counts,
    /// whether it is here or not.
    pub size: u64,
}

/// What a manifest, an index or a name points at (OCI image-spec, descriptor.md).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// Its kind, as stored.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// What is said of it, sorted by key.
    pub annotations: BTreeMap<String, String>,
}

/// A stored blob.
#[derive(Debug, Clone)]
pub struct Blob {
    /// The digest that it goes by. Nobody has checked it.
    pub digest: Digest,
    /// Its bytes, perhaps compressed.
    pub bytes: Arc<dyn Bytes>,
}

/// A layer of an image.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Digest of its tar.
    pub diff_id: DiffId,
    /// Identifies it with all below it.
    pub chain_id: ChainId,
    /// Its size as the engine counts: bytes of its files' contents (Docker), or of its tar
    /// (containers/storage).
    pub size: u64,
    /// Name of its directory in the store (Docker: the cache ID; containers/storage: its ID), or
    /// of its blob where it is not unpacked.
    pub directory: String,
    /// Its own directory first, then those of the layers below it, as the driver would mount them.
    /// One element only where every directory is a full copy ([`Marks::Complete`]); none where the
    /// layer is not unpacked.
    pub dirs: Vec<LayerDir>,
    /// Where the bytes of its tar come from.
    pub source: LayerSource,
}

/// Where the bytes of a layer's tar come from.
#[derive(Debug, Clone)]
pub enum LayerSource {
    /// From [`Layer::dirs`] and a record of the tar that they were unpacked from.
    TarSplit {
        /// Where the record is.
        root: Arc<Root>,
        /// Its name there: a gzip-compressed tar-split file.
        path: PathBuf,
    },
    /// The same, of a tar whose digest nobody noted: [`Layer::diff_id`] only stands in for it.
    Undigested {
        /// Where the record is.
        root: Arc<Root>,
        /// Its name there.
        path: PathBuf,
    },
    /// From the tar itself, perhaps compressed.
    Blob(Blob),
    /// The engine kept nothing but the files: a tar made of them has other bytes.
    Missing,
}

/// A directory that holds one layer's files.
#[derive(Debug, Clone)]
pub struct LayerDir {
    /// The directory.
    pub root: Arc<Root>,
    /// Identifies it over remounts: a hash of its name in the store. Seeds inode numbers.
    pub identity: u64,
    /// How it marks what it hides.
    pub marks: Marks,
    /// What its files' owners are called in the container; `None` where they stand on disk so.
    pub owners: Option<Arc<Owners>>,
}

/// How a layer's directory marks the names that it hides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marks {
    /// Overlayfs, by root: 0/0 devices and `trusted.overlay.*`.
    Trusted,
    /// Overlayfs, rootless: 0/0 devices and `user.overlay.*`.
    User,
    /// fuse-overlayfs: 0/0 devices or names `.wh.NAME`, and `opaque` as one of three xattrs or the
    /// name `.wh..wh..opq`.
    Fuse,
    /// Aufs: names `.wh.NAME` and `.wh..wh..opq`; all else that begins with `.wh..wh.` is its own.
    Aufs,
    /// Overlayfs, by root, with copies of what lay right below when the layer was made, as Docker's
    /// first overlay driver makes them: not all that is there is the layer's own.
    Copied,
    /// It holds everything itself, as with the vfs driver: nothing below counts, no mark does.
    Complete,
}

impl LayerDir {
    /// The attributes `stat` of the entry `name` in the directory `dir` of this layer (`""`: `dir`
    /// itself), with the owner that the container sees.
    ///
    /// # Errors
    /// What the file system says of the xattr in which an engine noted an owner.
    pub fn seen(&self, dir: &Dir, name: &OsStr, stat: Stat) -> Result<Stat> {
        let Some(owners) = &self.owners else { return Ok(stat) };
        let may_have_note = matches!(stat.kind, FileKind::Regular | FileKind::Directory);
        let note = match owners.has_notes && may_have_note {
            true => dir.xattr(name, OsStr::new(Owners::NOTE))?,
            false => None,
        };
        Ok(owners.seen(stat, note.as_deref()))
    }
}

impl Marks {
    /// True where the directory holds what the layer changed, all of that and nothing else, in the
    /// way of overlayfs.
    #[must_use]
    pub fn hold_changes_alone(self) -> bool {
        match self {
            Marks::Trusted | Marks::User => true,
            Marks::Fuse | Marks::Aufs | Marks::Copied | Marks::Complete => false,
        }
    }
}

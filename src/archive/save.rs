//! Images as one archive, as `docker save` or `podman save` writes them, and as an OCI layout.
//!
//! Docker writes the files into a directory and packs that, so entries are sorted by name and
//! carry the mtimes of the files. Where it writes the time of the run, ours is the image's
//! `created`; where it goes through images in random order, ours is that of the request.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rustix::io::Errno;

use super::documents::{self, Flavour, SavedLayer};
use super::export::Accounts;
use super::pack::{Body, Packer, directory, file};
use super::v1::{self, Dialect, LegacyLayer};
use super::{containerd, mtime_of, podman};
use crate::digest::{DiffId, Digest, ImageId};
use crate::error::{Error, Result};
use crate::oci::ImageConfig;
use crate::recipe::Recipe;
use crate::reference::Reference;
use crate::store::{Image, Layer};
use crate::tar::header::{Header, Type};

/// An image to save.
#[derive(Debug)]
pub struct SavedImage<'a> {
    /// The image.
    pub image: &'a Image,
    /// Its config, parsed.
    pub config: &'a ImageConfig,
    /// The references that it is saved under, as the store writes them.
    pub references: &'a [String],
    /// The tars of its layers, lowest first.
    pub layers: &'a [Arc<Recipe>],
    /// How many of the lowest layers are described but left out, for a reader that has them.
    pub omitted: usize,
}

impl SavedImage<'_> {
    /// The layers that go in, with their tars.
    fn included(&self) -> impl Iterator<Item = (&Layer, &Arc<Recipe>)> {
        self.image.layers.iter().zip(self.layers).skip(self.omitted)
    }
}

/// The archive that holds `images`, in the order of the request.
///
/// # Errors
/// ENODATA where an image has no layers: no engine saves that. Corrupt where a config can't be read
/// as the legacy description of an image.
pub fn save(images: &[SavedImage<'_>], flavour: Flavour) -> Result<Recipe> {
    let described =
        images.iter().map(|image| describe(image, flavour)).collect::<Result<Vec<_>>>()?;
    let entries = match flavour {
        Flavour::Docker19 => layer_directories_alone(images, &described),
        Flavour::Docker110 => layer_directories(images, &described),
        Flavour::Docker25 => blobs(images, &described, &DOCKER_25),
        Flavour::Docker28 => blobs(images, &described, &DOCKER_28),
        Flavour::Docker29 => blobs(images, &described, &DOCKER_29),
        Flavour::Oci => layout(images, &described),
        Flavour::Containerd => return exported(images, &described),
        Flavour::Podman => {
            let described = described.iter();
            let described = described.map(|image| (image.documents.clone(), &image.legacy[..]));
            return podman::archive(images, &described.collect::<Vec<_>>());
        }
    };
    let mut packer = Packer::default();
    for (name, entry) in entries {
        let (header, body) = entry.header(&name);
        packer.push(dressed(header, flavour), &body);
    }
    packer.finish()
}

/// An image as the documents need it, and its legacy description.
struct Described {
    documents: documents::SavedImage,
    legacy: Vec<LegacyLayer>,
}

fn describe(saved: &SavedImage<'_>, flavour: Flavour) -> Result<Described> {
    let shown = format!("image {}", saved.image.id);
    if saved.layers.is_empty() {
        // Docker says "empty export - not implemented".
        return Err(Error::errno_of(shown, Errno::NODATA));
    }
    let config = saved.config;
    let descriptions = &saved.image.descriptions;
    let legacy = match flavour {
        Flavour::Docker19 if !descriptions.is_empty() => Ok(v1::stored_layers(descriptions)),
        Flavour::Docker19 | Flavour::Docker110 => v1::legacy_layers(config, Dialect::Docker20),
        Flavour::Docker25 | Flavour::Docker28 => v1::legacy_layers(config, Dialect::Docker28),
        Flavour::Docker29 | Flavour::Containerd | Flavour::Oci => {
            v1::legacy_layers(config, Dialect::Docker29)
        }
        Flavour::Podman => podman::legacy_layers(&saved.image.config, &config.diff_ids),
    };
    let legacy = legacy.map_err(|why| Error::corrupt(shown, why.to_string()))?;
    let layers = saved.image.layers.iter().zip(saved.layers).zip(&legacy);
    let layers = layers.map(|((layer, tar), legacy)| SavedLayer {
        diff_id: layer.diff_id,
        tar_size: tar.len(),
        v1_id: legacy.id,
    });
    let references = saved.references.iter().filter_map(|text| Reference::parse(text).ok());
    let documents = documents::SavedImage {
        id: ImageId(Digest::of(&saved.image.config)),
        config_size: saved.image.config.len() as u64,
        tags: references.filter_map(|reference| reference.tagged()).collect(),
        layers: layers.collect(),
        parent: saved.image.parent,
    };
    Ok(Described { documents, legacy })
}

/// An entry of a save archive, but for its name.
struct Entry {
    what: What,
    /// Seconds since 1970.
    mtime: i64,
}

enum What {
    Directory,
    File(Vec<u8>),
    /// A layer's tar, and its mode.
    Layer(Arc<Recipe>, u32),
    Symlink(String),
}

impl Entry {
    fn header(&self, name: &str) -> (Header, Body<'_>) {
        let (header, body) = match &self.what {
            What::Directory => (directory(name), Body::Empty),
            What::File(bytes) => (file(name), Body::Inline(bytes)),
            What::Layer(tar, mode) => {
                (Header { mode: *mode, ..file(name) }, Body::Part(Arc::clone(tar)))
            }
            What::Symlink(target) => {
                let header = Header::new(name.into(), Type::Symlink);
                (Header { mode: 0o777, link: target.clone().into_bytes(), ..header }, Body::Empty)
            }
        };
        (Header { mtime: self.mtime, ..header }, body)
    }
}

/// Entries by path without an ending slash: a directory comes right before what it holds.
type Entries = BTreeMap<String, Entry>;

/// Puts an entry in, unless an image before this one has written it.
fn put(entries: &mut Entries, name: impl Into<String>, mtime: i64, what: What) {
    entries.entry(name.into()).or_insert(Entry { what, mtime });
}

/// What sets apart the engines that write an OCI layout.
struct Edition {
    flavour: Flavour,
    /// Mode of a layer.
    layer_mode: u32,
    /// What Docker leaves with the time of the run.
    undated: &'static [&'static str],
}

const DOCKER_25: Edition = Edition {
    flavour: Flavour::Docker25,
    layer_mode: 0o644,
    undated: &["blobs/sha256", "index.json"],
};

const DOCKER_28: Edition =
    Edition { flavour: Flavour::Docker28, layer_mode: 0o644, undated: &["blobs/sha256"] };

/// The daemon has no umask (29.6 and later).
const DOCKER_29: Edition = Edition { flavour: Flavour::Docker29, layer_mode: 0o666, undated: &[] };

/// Docker 25 and later: an OCI layout, with the files that older engines look for.
fn blobs(images: &[SavedImage<'_>], described: &[Described], edition: &Edition) -> Entries {
    let documents: Vec<_> = described.iter().map(|image| image.documents.clone()).collect();
    let mut entries = Entries::new();
    let mut created = 0;
    for (saved, described) in images.iter().zip(described) {
        created = mtime_of(saved.config.created.as_ref()).secs;
        let mut blob = |digest: Digest, mtime, what| {
            put(&mut entries, format!("blobs/sha256/{}", digest.hex()), mtime, what);
        };
        blob(described.documents.id.0, created, What::File(saved.image.config.to_vec()));
        for (layer, tar) in saved.included() {
            blob(layer.diff_id.0, created, What::Layer(Arc::clone(tar), edition.layer_mode));
        }
        for legacy in &described.legacy {
            blob(Digest::of(&legacy.json), created, What::File(legacy.json.clone()));
        }
        let manifest = documents::oci_manifest(&described.documents);
        blob(Digest::of(&manifest), 0, What::File(manifest));
    }
    let dated = |name| if edition.undated.contains(&name) { created } else { 0 };
    let index = What::File(documents::index(&documents));
    put(&mut entries, "blobs", created, What::Directory);
    put(&mut entries, "blobs/sha256", dated("blobs/sha256"), What::Directory);
    put(&mut entries, "index.json", dated("index.json"), index);
    put(&mut entries, "oci-layout", 0, What::File(documents::OCI_LAYOUT.to_vec()));
    put_legacy_lists(&mut entries, edition.flavour, &documents);
    entries
}

/// An OCI image layout (image-spec `image-layout.md`) that depends on nothing but the images: all
/// layers uncompressed, all times 0.
fn layout(images: &[SavedImage<'_>], described: &[Described]) -> Entries {
    let documents: Vec<_> = described.iter().map(|image| image.documents.clone()).collect();
    let mut entries = Entries::new();
    for (saved, documents) in images.iter().zip(&documents) {
        let mut blob = |digest: Digest, what| {
            put(&mut entries, format!("blobs/sha256/{}", digest.hex()), 0, what);
        };
        for (layer, tar) in saved.included() {
            blob(layer.diff_id.0, What::Layer(Arc::clone(tar), 0o644));
        }
        blob(documents.id.0, What::File(saved.image.config.to_vec()));
        let manifest = documents::oci_manifest(documents);
        blob(Digest::of(&manifest), What::File(manifest));
    }
    put(&mut entries, "blobs", 0, What::Directory);
    put(&mut entries, "blobs/sha256", 0, What::Directory);
    put(&mut entries, "index.json", 0, What::File(documents::full_index(&documents)));
    put(&mut entries, "oci-layout", 0, What::File(documents::OCI_LAYOUT_COMPACT.to_vec()));
    entries
}

/// The documents of an OCI image layout of `images`, by path. Its other blobs are the layers'
/// tars, uncompressed, under their diff IDs.
///
/// # Errors
/// As [`save`].
pub fn layout_documents(images: &[SavedImage<'_>]) -> Result<BTreeMap<String, Vec<u8>>> {
    let described =
        images.iter().map(|image| describe(image, Flavour::Oci)).collect::<Result<Vec<_>>>()?;
    let documents =
        layout(images, &described).into_iter().filter_map(|(path, entry)| match entry.what {
            What::File(bytes) => Some((path, bytes)),
            What::Directory | What::Layer(..) | What::Symlink(_) => None,
        });
    Ok(documents.collect())
}

/// What containerd would export of images that it was given uncompressed.
fn exported(images: &[SavedImage<'_>], described: &[Described]) -> Result<Recipe> {
    let documents: Vec<_> = described.iter().map(|image| image.documents.clone()).collect();
    let mut blobs = BTreeMap::new();
    let mut document = |bytes: Vec<u8>| {
        blobs.insert(Digest::of(&bytes), Arc::new(Recipe::inline(bytes)));
    };
    for (saved, documents) in images.iter().zip(&documents) {
        document(saved.image.config.to_vec());
        document(documents::oci_manifest(documents));
    }
    for (layer, tar) in images.iter().flat_map(SavedImage::included) {
        blobs.insert(layer.diff_id.0, Arc::clone(tar));
    }
    let manifest = documents::manifest(Flavour::Containerd, &merged(&documents));
    containerd::pack(&blobs, &documents::full_index(&documents), &manifest)
}

/// Every image once, with all its tags.
fn merged(images: &[documents::SavedImage]) -> Vec<documents::SavedImage> {
    let mut merged: Vec<documents::SavedImage> = Vec::new();
    for image in images {
        match merged.iter_mut().find(|known| known.id == image.id) {
            Some(known) => known.tags.extend_from_slice(&image.tags),
            None => merged.push(image.clone()),
        }
    }
    merged
}

/// Docker 1.10 to 24: a directory for each layer, named by its V1 identity. A layer that stands in
/// two of them is a symlink in the second.
fn layer_directories(images: &[SavedImage<'_>], described: &[Described]) -> Entries {
    let documents: Vec<_> = described.iter().map(|image| image.documents.clone()).collect();
    let mut entries = Entries::new();
    let mut written: HashMap<DiffId, Digest> = HashMap::new();
    for (saved, described) in images.iter().zip(described) {
        let created = mtime_of(saved.config.created.as_ref()).secs;
        for legacy in described.legacy.iter().take(saved.omitted) {
            put_description(&mut entries, legacy, created);
        }
        for ((layer, tar), legacy) in
            saved.included().zip(described.legacy.iter().skip(saved.omitted))
        {
            let name = legacy.id.hex();
            if entries.contains_key(&format!("{name}/layer.tar")) {
                continue;
            }
            let what = match written.get(&layer.diff_id) {
                Some(first) => What::Symlink(format!("../{}/layer.tar", first.hex())),
                None => What::Layer(Arc::clone(tar), 0o644),
            };
            written.entry(layer.diff_id).or_insert(legacy.id);
            put_description(&mut entries, legacy, created);
            put(&mut entries, format!("{name}/layer.tar"), created, what);
        }
        let config = What::File(saved.image.config.to_vec());
        put(&mut entries, format!("{}.json", described.documents.id.hex()), created, config);
    }
    put_legacy_lists(&mut entries, Flavour::Docker110, &documents);
    entries
}

/// Docker to 1.9: the directories, and `repositories`. Nothing tells of images, and no layer is a
/// link. Docker left all of it with the time of the run.
fn layer_directories_alone(images: &[SavedImage<'_>], described: &[Described]) -> Entries {
    let documents: Vec<_> = described.iter().map(|image| image.documents.clone()).collect();
    let mut entries = Entries::new();
    let mut created = 0;
    for (saved, described) in images.iter().zip(described) {
        created = mtime_of(saved.config.created.as_ref()).secs;
        for legacy in &described.legacy {
            put_description(&mut entries, legacy, created);
        }
        for ((_, tar), legacy) in saved.included().zip(described.legacy.iter().skip(saved.omitted))
        {
            let tar = What::Layer(Arc::clone(tar), 0o644);
            put(&mut entries, format!("{}/layer.tar", legacy.id.hex()), created, tar);
        }
    }
    if let Some(repositories) = documents::repositories(Flavour::Docker19, &documents) {
        put(&mut entries, "repositories", created, What::File(repositories));
    }
    entries
}

/// Puts in the directory of a layer, with all but its tar.
fn put_description(entries: &mut Entries, legacy: &LegacyLayer, mtime: i64) {
    let name = legacy.id.hex();
    put(entries, format!("{name}/VERSION"), mtime, What::File(b"1.0".to_vec()));
    put(entries, format!("{name}/json"), mtime, What::File(legacy.json.clone()));
    put(entries, name, mtime, What::Directory);
}

fn put_legacy_lists(entries: &mut Entries, flavour: Flavour, images: &[documents::SavedImage]) {
    put(entries, "manifest.json", 0, What::File(documents::manifest(flavour, images)));
    if let Some(repositories) = documents::repositories(flavour, images) {
        put(entries, "repositories", 0, What::File(repositories));
    }
}

/// What a flavour adds to every header: type bits up to 23, names in 20.10 as Debian builds it.
fn dressed(header: Header, flavour: Flavour) -> Header {
    let type_bits = match header.typeflag {
        Type::Directory => libc::S_IFDIR,
        Type::Symlink => libc::S_IFLNK,
        _ => libc::S_IFREG,
    };
    let root = Accounts::root_only();
    match flavour {
        Flavour::Docker25
        | Flavour::Docker28
        | Flavour::Docker29
        | Flavour::Containerd
        | Flavour::Podman
        | Flavour::Oci => header,
        Flavour::Docker19 => Header { mode: header.mode | type_bits, ..header },
        Flavour::Docker110 => Header {
            mode: header.mode | type_bits,
            user: root.user(0),
            group: root.group(0),
            ..header
        },
    }
}

//! Images as containerd exports them, of `ctr images export` and of Docker on containerd's image
//! store (containerd core/images/archive/exporter.go): blobs as they are stored, and what leads to
//! them. All times are 0.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::content::Content;
use super::documents::{self, OCI_LAYOUT_COMPACT};
use super::pack::{Body, Packer, directory, file};
use crate::digest::Digest;
use crate::error::Result;
use crate::json::{Escapes, Json};
use crate::recipe::{Recipe, Verify};
use crate::reference::{Reference, Tagged};
use crate::store::manifest::{Manifest, Platform};
use crate::store::{Descriptor, Image};
use crate::tar::header::Header;

/// Mode of a blob, and of the file `oci-layout`.
const SEALED: u32 = 0o444;

/// What names an image in an index.
pub(super) const NAME: &str = "io.containerd.image.name";
pub(super) const TAG: &str = "org.opencontainers.image.ref.name";

/// An image with all of its blobs.
#[derive(Debug)]
pub struct StoredImage<'a> {
    /// The image.
    pub image: &'a Image,
    /// The references that it is saved under here, as the store writes them.
    pub references: &'a [String],
    /// Its blobs.
    pub content: &'a Content,
}

/// The archive that holds `images`, in the order of the request.
///
/// # Errors
/// Fails when it is longer than a file can be.
pub fn archive(images: &[StoredImage<'_>], verify: Verify) -> Result<Recipe> {
    let mut blobs = BTreeMap::new();
    for blob in images.iter().flat_map(|image| image.content.blobs.values()) {
        blobs.insert(blob.digest, Content::part(blob, verify)?);
    }
    pack(&blobs, &index(images), &manifest(images))
}

/// The archive of these blobs and documents.
pub(super) fn pack(
    blobs: &BTreeMap<Digest, Arc<Recipe>>,
    index: &[u8],
    manifest: &[u8],
) -> Result<Recipe> {
    let mut packer = Packer::default();
    packer.push(directory("blobs"), &Body::Empty);
    packer.push(directory("blobs/sha256"), &Body::Empty);
    for (digest, blob) in blobs {
        let header = Header { mode: SEALED, ..file(&path(*digest)) };
        packer.push(header, &Body::Part(Arc::clone(blob)));
    }
    packer.push(file("index.json"), &Body::Inline(index));
    packer.push(file("manifest.json"), &Body::Inline(manifest));
    let header = Header { mode: SEALED, ..file("oci-layout") };
    packer.push(header, &Body::Inline(OCI_LAYOUT_COMPACT));
    packer.finish()
}

/// The file `index.json`: the target of each image, once for each name, or once where it has none.
#[must_use]
pub fn index(images: &[StoredImage<'_>]) -> Vec<u8> {
    let mut descriptors = Vec::new();
    for StoredImage { image, references, content } in images {
        let platform = image.stored.as_ref().and_then(|stored| stored.platform.as_ref());
        let described = |text| describe(&content.target, platform, annotations(image, text));
        descriptors.extend(references.iter().map(|text| described(Some(text))));
        if references.is_empty() {
            descriptors.push(described(None));
        }
    }
    documents::index_of(descriptors)
}

/// What an index says of an image under that name.
fn annotations(image: &Image, reference: Option<&str>) -> BTreeMap<String, String> {
    let stored = image.stored.as_ref();
    let own = reference.and_then(|text| stored?.annotations.get(text));
    let own = own.or(image.target.as_ref().map(|target| &target.annotations));
    let mut annotations = own.cloned().unwrap_or_default();
    if reference.is_none() {
        // Whoever asks by ID gets no name (moby daemon/containerd/image_exporter.go).
        annotations.retain(|key, _| key != NAME && key != TAG);
    }
    annotations.extend(stored.map(|stored| stored.sources.clone()).unwrap_or_default());
    if let Some(tagged) = reference.and_then(tagged) {
        annotations.insert(NAME.to_owned(), tagged.to_string());
        annotations.insert(TAG.to_owned(), tagged.tag.to_string());
    }
    annotations
}

fn tagged(reference: &str) -> Option<Tagged> {
    Reference::parse(reference).ok()?.tagged()
}

/// A descriptor as Go's type of the OCI image-spec prints it.
fn describe(
    target: &Descriptor,
    platform: Option<&Platform>,
    annotations: BTreeMap<String, String>,
) -> Json {
    let descriptor = documents::descriptor(&target.media_type, target.digest, target.size);
    let mut fields = descriptor.entries().to_vec();
    if !annotations.is_empty() {
        let annotations = annotations.into_iter().map(|(key, value)| (key, value.into()));
        fields.push(("annotations".to_owned(), Json::map(annotations)));
    }
    if let Some(platform) = platform {
        let Platform { os, architecture, variant } = platform;
        let mut words = vec![("architecture", architecture), ("os", os)];
        words.extend((!variant.is_empty()).then_some(("variant", variant)));
        let words = words.into_iter().map(|(key, word)| (key.to_owned(), word.as_str().into()));
        fields.push(("platform".to_owned(), Json::Object(words.collect())));
    }
    Json::Object(fields)
}

/// The file `manifest.json`, by which older engines load: of an index, the image of one platform.
fn manifest(images: &[StoredImage<'_>]) -> Vec<u8> {
    let mut seen = BTreeSet::new();
    let mut items = Vec::new();
    for StoredImage { content, .. } in images {
        let Manifest { config, layers } = &content.manifest;
        let target = content.target.digest;
        if !seen.insert(target) {
            continue;
        }
        let same = images.iter().filter(|image| image.content.target.digest == target);
        let tags = same.flat_map(|image| image.references).filter_map(|text| tagged(text));
        let tags: Vec<Json> = tags.map(|tag| tag.familiar().into()).collect();
        let layers = layers.iter().map(|layer| path(layer.descriptor.digest).into());
        items.push(Json::object([
            ("Config", path(config.digest).into()),
            ("RepoTags", if tags.is_empty() { Json::Null } else { Json::Array(tags) }),
            ("Layers", Json::Array(layers.collect())),
        ]));
    }
    Json::Array(items).to_bytes(Escapes::DOCKER_29)
}

fn path(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

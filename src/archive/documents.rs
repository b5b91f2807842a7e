//! The JSON files of a save archive: what it holds, for each engine that may load it.

use std::fmt;
use std::str::FromStr;

use crate::digest::{DiffId, Digest, ImageId};
use crate::json::{Escapes, Json};
use crate::reference::Tagged;
use crate::store::Conventions;

/// Which engine's archive is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Flavour {
    /// A directory per layer and nothing else, as Docker to 1.9; the form of 1.9.1.
    Docker19,
    /// A directory per layer, as Docker 1.10 to 24; the bytes of 20.10.24.
    Docker110,
    /// An OCI layout with Docker's own files beside it; the bytes of 25.0.15 on a graph driver.
    Docker25,
    /// The same of 28.5.2.
    Docker28,
    /// An OCI layout with Docker's own files beside it; the bytes of 29.7.2 on a graph driver.
    #[default]
    Docker29,
    /// An OCI layout with a list for older engines, as containerd; the bytes of 2.3.4, and of
    /// Docker 29.7.2 on containerd's image store.
    Containerd,
    /// Layers beside one another and names in full, as Podman; the bytes of 5.8.2.
    Podman,
    /// An OCI image layout and nothing else; our own form, since no engine's is the same twice.
    Oci,
}

impl Flavour {
    /// Every flavour: Docker's, oldest first, then the others.
    pub const ALL: [Flavour; 8] = [
        Flavour::Docker19,
        Flavour::Docker110,
        Flavour::Docker25,
        Flavour::Docker28,
        Flavour::Docker29,
        Flavour::Containerd,
        Flavour::Podman,
        Flavour::Oci,
    ];

    /// What the engine of a store writes itself.
    #[must_use]
    pub fn of(conventions: Conventions) -> Flavour {
        match conventions {
            Conventions::Docker => Flavour::Docker29,
            Conventions::Containerd => Flavour::Containerd,
            Conventions::Podman => Flavour::Podman,
        }
    }

    /// Its name, as in `formats/NAME.tar`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Flavour::Docker19 => "docker-1.9",
            Flavour::Docker110 => "docker-1.10",
            Flavour::Docker25 => "docker-25",
            Flavour::Docker28 => "docker-28",
            Flavour::Docker29 => "docker-29",
            Flavour::Containerd => "containerd",
            Flavour::Podman => "podman",
            Flavour::Oci => "oci",
        }
    }

    fn escapes(self) -> Escapes {
        match self {
            Flavour::Docker19 | Flavour::Docker110 => Escapes::DOCKER_20,
            Flavour::Docker25
            | Flavour::Docker28
            | Flavour::Docker29
            | Flavour::Containerd
            | Flavour::Podman
            | Flavour::Oci => Escapes::DOCKER_29,
        }
    }
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No flavour has that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownFlavour;

impl fmt::Display for UnknownFlavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown flavour (known:")?;
        for flavour in Flavour::ALL {
            write!(f, " {flavour}")?;
        }
        f.write_str(")")
    }
}

impl std::error::Error for UnknownFlavour {}

impl FromStr for Flavour {
    type Err = UnknownFlavour;

    fn from_str(name: &str) -> Result<Flavour, UnknownFlavour> {
        Flavour::ALL.into_iter().find(|flavour| flavour.name() == name).ok_or(UnknownFlavour)
    }
}

/// An image in an archive, as the documents describe it.
#[derive(Debug, Clone)]
pub struct SavedImage {
    /// Its ID, which is the digest of its config.
    pub id: ImageId,
    /// Bytes of its config.
    pub config_size: u64,
    /// The tags that it is saved under, in the order of the request.
    pub tags: Vec<Tagged>,
    /// Layers, lowest first; at least one.
    pub layers: Vec<SavedLayer>,
    /// Its parent as the store recorded it, whether that is in the archive or not.
    pub parent: Option<ImageId>,
}

/// A layer in an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SavedLayer {
    /// Digest of its tar.
    pub diff_id: DiffId,
    /// Bytes of its tar.
    pub tar_size: u64,
    /// Its V1 identity in this image ([`super::v1::LegacyLayer::id`] of the same flavour).
    pub v1_id: Digest,
}

/// The file `oci-layout` of Docker 25 and later.
pub const OCI_LAYOUT: &[u8] = br#"{"imageLayoutVersion": "1.0.0"}"#;

/// The file `oci-layout` of [`Flavour::Oci`].
pub const OCI_LAYOUT_COMPACT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// The OCI manifest of an image, a blob of the flavours that have blobs.
#[must_use]
pub fn oci_manifest(image: &SavedImage) -> Vec<u8> {
    let layer = |layer: &SavedLayer| descriptor(OCI_LAYER, layer.diff_id.0, layer.tar_size);
    let manifest = Json::object([
        ("schemaVersion", 2.into()),
        ("mediaType", OCI_MANIFEST.into()),
        ("config", descriptor(OCI_CONFIG, image.id.0, image.config_size)),
        ("layers", Json::Array(image.layers.iter().map(layer).collect())),
    ]);
    manifest.to_bytes(Escapes::DOCKER_29)
}

/// The file `index.json` of Docker 25 and later: the manifest of each image, once for each tag.
///
/// As in Docker, an image without a tag is listed only where nothing stands before it.
#[must_use]
pub fn index(images: &[SavedImage]) -> Vec<u8> {
    let mut manifests = Vec::new();
    for image in images {
        let plain = manifest_descriptor(image);
        manifests.extend(image.tags.iter().map(|tag| annotated(plain.clone(), tag)));
        if manifests.is_empty() {
            manifests.push(plain);
        }
    }
    index_of(manifests)
}

/// The file `index.json` of [`Flavour::Oci`]: the manifest of each image, once for each tag, or
/// once where it has none.
#[must_use]
pub fn full_index(images: &[SavedImage]) -> Vec<u8> {
    let mut manifests = Vec::new();
    for image in images {
        let plain = manifest_descriptor(image);
        manifests.extend(image.tags.iter().map(|tag| annotated(plain.clone(), tag)));
        if image.tags.is_empty() {
            manifests.push(plain);
        }
    }
    index_of(manifests)
}

fn manifest_descriptor(image: &SavedImage) -> Json {
    let manifest = oci_manifest(image);
    descriptor(OCI_MANIFEST, Digest::of(&manifest), manifest.len() as u64)
}

pub(super) fn index_of(manifests: Vec<Json>) -> Vec<u8> {
    let index = Json::object([
        ("schemaVersion", 2.into()),
        ("mediaType", OCI_INDEX.into()),
        ("manifests", Json::Array(manifests)),
    ]);
    index.to_bytes(Escapes::DOCKER_29)
}

/// The file `manifest.json`: where in the archive each image's config and layers are.
/// [`Flavour::Docker19`] and [`Flavour::Oci`] have no such file.
#[must_use]
pub fn manifest(flavour: Flavour, images: &[SavedImage]) -> Vec<u8> {
    let is_saved = |id: ImageId| images.iter().any(|image| image.id == id);
    let item = |image: &SavedImage| {
        let (config, layers) = paths(flavour, image);
        let mut fields = vec![
            ("Config".to_owned(), config.into()),
            ("RepoTags".to_owned(), repo_tags(flavour, image)),
            ("Layers".to_owned(), Json::Array(layers)),
        ];
        // moby `validatedParentLinks`: a parent that is in the archive, and not the image itself.
        let has_parents = !matches!(flavour, Flavour::Containerd | Flavour::Podman);
        let parent = image.parent.filter(|_| has_parents);
        if let Some(parent) = parent.filter(|id| *id != image.id && is_saved(*id)) {
            fields.push(("Parent".to_owned(), parent.to_string().into()));
        }
        match flavour {
            Flavour::Docker19
            | Flavour::Docker110
            | Flavour::Containerd
            | Flavour::Podman
            | Flavour::Oci => {}
            Flavour::Docker25 | Flavour::Docker28 | Flavour::Docker29 => {
                fields.push(("LayerSources".to_owned(), layer_sources(image)));
            }
        }
        Json::Object(fields)
    };
    line(&Json::Array(images.iter().map(item).collect()), flavour)
}

/// The file `repositories`: the top layer of each tag. `None` where no image has a tag, since the
/// archive then has no such file; [`Flavour::Containerd`] and [`Flavour::Oci`] never have it.
#[must_use]
pub fn repositories(flavour: Flavour, images: &[SavedImage]) -> Option<Vec<u8>> {
    let mut names: Vec<(String, Vec<(String, Json)>)> = Vec::new();
    for image in images {
        let Some(top) = image.layers.last() else { continue };
        let top = match flavour {
            Flavour::Docker19 | Flavour::Docker110 | Flavour::Podman => top.v1_id.hex(),
            Flavour::Docker25
            | Flavour::Docker28
            | Flavour::Docker29
            | Flavour::Containerd
            | Flavour::Oci => top.diff_id.hex(),
        };
        for tagged in &image.tags {
            let name = match flavour == Flavour::Podman {
                true => tagged.name.to_string(),
                false => tagged.name.familiar(),
            };
            let entry = (tagged.tag.to_string(), Json::from(top.as_str()));
            match names.iter_mut().find(|(known, _)| *known == name) {
                Some((_, tags)) => tags.push(entry),
                None => names.push((name, vec![entry])),
            }
        }
    }
    let map = Json::map(names.into_iter().map(|(name, tags)| (name, Json::map(tags))));
    // Podman writes an empty one.
    let is_missing = map.entries().is_empty() && flavour != Flavour::Podman;
    if is_missing { None } else { Some(line(&map, flavour)) }
}

/// Paths in the archive of an image's config and of its layers, lowest first.
fn paths(flavour: Flavour, image: &SavedImage) -> (String, Vec<Json>) {
    let layers = image.layers.iter();
    match flavour {
        Flavour::Docker19 | Flavour::Docker110 => (
            format!("{}.json", image.id.hex()),
            layers.map(|layer| format!("{}/layer.tar", layer.v1_id.hex()).into()).collect(),
        ),
        Flavour::Docker25
        | Flavour::Docker28
        | Flavour::Docker29
        | Flavour::Containerd
        | Flavour::Oci => (
            format!("blobs/sha256/{}", image.id.hex()),
            layers.map(|layer| format!("blobs/sha256/{}", layer.diff_id.hex()).into()).collect(),
        ),
        Flavour::Podman => (
            format!("{}.json", image.id.hex()),
            layers.map(|layer| format!("{}.tar", layer.diff_id.hex()).into()).collect(),
        ),
    }
}

/// Tags as people write them; null, as a Go slice that nothing was added to, where there is none.
/// Podman writes them in full, and an empty list.
fn repo_tags(flavour: Flavour, image: &SavedImage) -> Json {
    if flavour == Flavour::Podman {
        return Json::Array(image.tags.iter().map(|tag| tag.to_string().into()).collect());
    }
    if image.tags.is_empty() {
        return Json::Null;
    }
    Json::Array(image.tags.iter().map(|tag| tag.familiar().into()).collect())
}

/// Each different layer by diff ID; `size` before `digest`, as the Docker type has them.
fn layer_sources(image: &SavedImage) -> Json {
    Json::map(image.layers.iter().map(|layer| {
        let diff_id = layer.diff_id.to_string();
        let source = Json::object([
            ("mediaType", OCI_LAYER.into()),
            ("size", layer.tar_size.into()),
            ("digest", diff_id.as_str().into()),
        ]);
        (diff_id, source)
    }))
}

/// An OCI content descriptor.
pub(super) fn descriptor(media_type: &str, digest: Digest, size: u64) -> Json {
    Json::object([
        ("mediaType", media_type.into()),
        ("digest", digest.to_string().into()),
        ("size", size.into()),
    ])
}

/// `descriptor` with the annotations that name it.
fn annotated(descriptor: Json, tagged: &Tagged) -> Json {
    let annotations = Json::object([
        ("io.containerd.image.name", tagged.to_string().into()),
        ("org.opencontainers.image.ref.name", tagged.tag.as_str().into()),
    ]);
    match descriptor {
        Json::Object(mut fields) => {
            fields.push(("annotations".to_owned(), annotations));
            Json::Object(fields)
        }
        other => other,
    }
}

/// The value and a newline, as Go's `json.Encoder` writes; in containerd and Podman it is
/// `json.Marshal`.
fn line(json: &Json, flavour: Flavour) -> Vec<u8> {
    let mut line = json.to_bytes(flavour.escapes());
    if !matches!(flavour, Flavour::Containerd | Flavour::Podman) {
        line.push(b'\n');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::super::v1::{self, Dialect};
    use super::*;
    use crate::oci::ImageConfig;
    use crate::reference::Reference;
    use std::fs;

    const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/documents");

    const BASE: &str = "8fe17052d6a5e9deb697f62ebd6f9571d472b3a6d3051f7f7393f4ee9ada7de3";
    const BUILT: &str = "e5bae7f4eb2ea78fe261d1a399657ad4810719912ed5123340ef4c1dd7e303da";
    const COMMITTED: &str = "247cfff0388c01abb972966a17dc4db7a9c25a496945782b5194d3afe57b7596";

    fn fixture(path: &str) -> String {
        String::from_utf8(fs::read(format!("{FIXTURES}/{path}")).unwrap()).unwrap()
    }

    fn tagged(name: &str) -> Tagged {
        Reference::parse(name).unwrap().tagged().unwrap()
    }

    fn image(path: &str, dialect: Dialect, sizes: &[u64], tags: &[&str]) -> SavedImage {
        let bytes = fixture(path).into_bytes();
        let config = ImageConfig::parse(&bytes).unwrap();
        let v1 = v1::legacy_layers(&config, dialect).unwrap();
        let layers = config.diff_ids.iter().zip(sizes).zip(v1);
        SavedImage {
            id: ImageId(Digest::of(&bytes)),
            config_size: bytes.len() as u64,
            tags: tags.iter().map(|name| tagged(name)).collect(),
            layers: layers
                .map(|((diff_id, size), v1)| SavedLayer {
                    diff_id: *diff_id,
                    tar_size: *size,
                    v1_id: v1.id,
                })
                .collect(),
            parent: None,
        }
    }

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn docker_20_archives_are_described_with_the_same_bytes() {
        let image = |path: &str, tags: &[&str]| image(path, Dialect::Docker20, &[0; 3], tags);
        for (archive, images) in [
            ("s1", vec![image(&format!("s1/{BASE}.json"), &["base:1", "base:2"])]),
            (
                "s2",
                vec![
                    image(&format!("s2/{BUILT}.json"), &["built:1"]),
                    image(&format!("s2/{BASE}.json"), &["base:1"]),
                ],
            ),
            ("c1s", vec![image(&format!("c1s/{COMMITTED}.json"), &["c1img:1"])]),
        ] {
            assert_eq!(
                text(manifest(Flavour::Docker110, &images)),
                fixture(&format!("{archive}/manifest.json"))
            );
            let repositories = repositories(Flavour::Docker110, &images).unwrap();
            assert_eq!(text(repositories), fixture(&format!("{archive}/repositories")));
        }
    }

    fn v29a() -> Vec<SavedImage> {
        let image = |id: &str, sizes: &[u64], tags: &[&str]| {
            image(&format!("v29a/blobs/sha256/{id}"), Dialect::Docker29, sizes, tags)
        };
        vec![
            image(BUILT, &[40_960, 5632, 3584], &["built:1", "built:two"]),
            image(BASE, &[40_960], &["base:1"]),
        ]
    }

    #[test]
    fn a_docker_29_archive_is_described_with_the_same_bytes() {
        let images = v29a();
        for image in &images {
            let manifest = oci_manifest(image);
            let name = Digest::of(&manifest).hex();
            assert_eq!(text(manifest), fixture(&format!("v29a/blobs/sha256/{name}")));
        }
        assert_eq!(text(index(&images)), fixture("v29a/index.json"));
        assert_eq!(text(full_index(&images)), fixture("v29a/index.json"));
        assert_eq!(text(manifest(Flavour::Docker29, &images)), fixture("v29a/manifest.json"));
        assert_eq!(
            text(repositories(Flavour::Docker29, &images).unwrap()),
            fixture("v29a/repositories")
        );
        assert_eq!(text(OCI_LAYOUT.to_vec()), fixture("v29a/oci-layout"));
    }

    #[test]
    fn an_image_without_a_tag_is_indexed_only_where_it_comes_first() {
        let [mut built, mut base] = <[SavedImage; 2]>::try_from(v29a()).unwrap();
        base.tags.clear();
        let count = |images: &[SavedImage]| text(index(images)).matches("\"size\"").count();
        assert_eq!(count(&[base.clone(), built.clone()]), 3);
        assert_eq!(count(&[built.clone(), base.clone()]), 2);
        built.tags.clear();
        assert_eq!(count(&[built.clone(), base.clone()]), 1);
        let full = text(full_index(&[built.clone(), base.clone()]));
        assert_eq!(full.matches("\"size\"").count(), 2, "{full}");
        assert_eq!(repositories(Flavour::Docker29, &[built, base.clone()]), None);
        assert!(text(manifest(Flavour::Docker29, &[base])).contains(r#""RepoTags":null,"#));
    }

    #[test]
    fn a_parent_is_named_where_it_is_in_the_archive() {
        let [mut built, base] = <[SavedImage; 2]>::try_from(v29a()).unwrap();
        built.parent = Some(base.id);
        assert!(!text(manifest(Flavour::Docker110, &[built.clone()])).contains("Parent"));
        let both = text(manifest(Flavour::Docker110, &[built.clone(), base]));
        assert!(
            both.contains(&format!(r#"/layer.tar"],"Parent":"sha256:{BASE}"}},{{"Config""#)),
            "{both}"
        );
        built.parent = Some(built.id);
        assert!(!text(manifest(Flavour::Docker110, &[built])).contains("Parent"));
    }

    #[test]
    fn flavours_go_by_their_names() {
        for flavour in Flavour::ALL {
            assert_eq!(flavour.to_string().parse(), Ok(flavour));
        }
        assert_eq!("docker-30".parse::<Flavour>(), Err(UnknownFlavour));
    }
}

//! Manifests and indexes, as registries and content-addressed stores have them: OCI image-spec,
//! `manifest.md` and `image-index.md`, and Docker's schema 2, which differs in names of media types
//! alone.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Descriptor;
use super::config::LAYERS_MAX;
use crate::digest::Digest;

/// Largest manifest or index that is read, in bytes: what registries take (distribution,
/// `maxManifestBodySize`).
pub const MANIFEST_MAX: u64 = 4 << 20;

/// The annotation by which an index says of a manifest that it tells something about another one,
/// such as how that was built (buildkit, docs/attestations/attestation-storage.md).
const ABOUT_ANOTHER: &str = "vnd.docker.reference.type";

/// How the media types of image configs end; artifacts have others.
const CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

/// The media types of indexes.
const INDEXES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

/// A manifest or an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// A list of manifests and of other indexes.
    Index(Index),
    /// What an image is made of.
    Manifest(Manifest),
}

/// A list of manifests, by platform or by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Index {
    /// What it lists, in its order.
    pub entries: Vec<IndexEntry>,
    /// What is wrong with each of the others.
    pub rejected: Vec<String>,
}

/// A manifest, or another index, in an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// Which.
    pub descriptor: Descriptor,
    /// For what it is made; `None` where the index does not say.
    pub platform: Option<Platform>,
}

/// What an image is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The config.
    pub config: Descriptor,
    /// Layers as they are stored, lowest first.
    pub layers: Vec<StoredLayer>,
}

/// A layer as it is stored, perhaps compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredLayer {
    /// Which.
    pub descriptor: Descriptor,
    /// Where else it can be had; a layer that has these may be missing (a "foreign" one).
    pub urls: Vec<String>,
}

/// An operating system and a processor, in Go's words.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct Platform {
    /// `linux`
    #[serde(default)]
    pub os: String,
    /// `amd64`
    #[serde(default)]
    pub architecture: String,
    /// `v7`; mostly empty.
    #[serde(default)]
    pub variant: String,
}

#[derive(Deserialize)]
struct RawDocument {
    #[serde(rename = "mediaType", default)]
    media_type: String,
    manifests: Option<Vec<RawDescriptor>>,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
    /// Docker's schema 1.
    #[serde(rename = "fsLayers")]
    fs_layers: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct RawDescriptor {
    #[serde(rename = "mediaType", default)]
    media_type: String,
    digest: String,
    size: i64,
    annotations: Option<BTreeMap<String, String>>,
    platform: Option<Platform>,
    urls: Option<Vec<String>>,
}

impl RawDescriptor {
    fn descriptor(self) -> Result<Descriptor, String> {
        let digest = Digest::parse(&self.digest)
            .map_err(|err| format!("{:.80}: {err}", self.digest.escape_debug()))?;
        let size = u64::try_from(self.size).map_err(|_| format!("{digest}: a negative size"))?;
        let annotations = self.annotations.unwrap_or_default();
        Ok(Descriptor { media_type: self.media_type, digest, size, annotations })
    }
}

impl Document {
    /// Parses a manifest or an index. Which of them it is, its fields tell: media types are missing
    /// from many.
    ///
    /// # Errors
    /// Fails where it is neither, or could be read as both.
    pub fn parse(json: &[u8]) -> Result<Document, String> {
        let raw: RawDocument = serde_json::from_slice(json).map_err(|err| err.to_string())?;
        match (raw.manifests, raw.config, raw.layers) {
            _ if raw.fs_layers.is_some() => Err("a manifest of Docker's schema 1".to_owned()),
            (Some(manifests), None, None) => Ok(Document::Index(index(manifests))),
            (None, Some(config), layers) => {
                manifest(config, layers.unwrap_or_default()).map(Document::Manifest)
            }
            // Go writes null for an index that lists nothing.
            (None, None, None) if INDEXES.contains(&&*raw.media_type) => {
                Ok(Document::Index(Index::default()))
            }
            (None, None, _) => Err("neither a manifest nor an index".to_owned()),
            (Some(_), ..) => Err("both a manifest and an index".to_owned()),
        }
    }
}

fn index(manifests: Vec<RawDescriptor>) -> Index {
    let mut index = Index::default();
    for mut raw in manifests {
        let platform = raw.platform.take();
        match raw.descriptor() {
            Ok(descriptor) => index.entries.push(IndexEntry { descriptor, platform }),
            Err(why) => index.rejected.push(why),
        }
    }
    index
}

fn manifest(config: RawDescriptor, layers: Vec<RawDescriptor>) -> Result<Manifest, String> {
    if layers.len() > LAYERS_MAX {
        return Err(format!("more than {LAYERS_MAX} layers"));
    }
    let layer = |mut raw: RawDescriptor| {
        let urls = raw.urls.take().unwrap_or_default();
        Ok(StoredLayer { descriptor: raw.descriptor()?, urls })
    };
    Ok(Manifest {
        config: config.descriptor()?,
        layers: layers.into_iter().map(layer).collect::<Result<_, String>>()?,
    })
}

impl Manifest {
    /// Whether it is that of an image, and not of an artifact that only looks like one: a chart, a
    /// signature.
    #[must_use]
    pub fn is_image(&self) -> bool {
        let media_type = self.config.media_type.as_str();
        media_type.is_empty() || CONFIGS.contains(&media_type)
    }
}

impl IndexEntry {
    /// Whether it only tells something about another entry, such as how that was built.
    #[must_use]
    pub fn is_attestation(&self) -> bool {
        let is_unknown =
            |platform: &Platform| platform.os == "unknown" && platform.architecture == "unknown";
        self.platform.as_ref().is_some_and(is_unknown)
            || self.descriptor.annotations.contains_key(ABOUT_ANOTHER)
    }
}

impl Platform {
    /// The platform that this program runs on.
    #[must_use]
    pub fn host() -> Platform {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "powerpc64" => "ppc64",
            "loongarch64" => "loong64",
            other => other,
        };
        Platform {
            os: std::env::consts::OS.to_owned(),
            architecture: architecture.to_owned(),
            variant: String::new(),
        }
    }

    /// How far what is made for `platform` is from this host: the less, the better.
    #[must_use]
    pub fn distance(platform: Option<&Platform>) -> u8 {
        let host = Platform::host();
        match platform {
            Some(it) if it.name().is_some() && it.name() == host.name() => 0,
            Some(it) if it.os == host.os && it.architecture == host.architecture => 1,
            _ => 2,
        }
    }

    /// As a name: `linux-arm64`, `linux-arm-v6`. A variant that goes without saying is left out
    /// (containerd platforms, `Normalize`). `None` where the parts can't stand in a file's name.
    #[must_use]
    pub fn name(&self) -> Option<String> {
        let variant = match (self.architecture.as_str(), self.variant.as_str()) {
            ("arm64", "v8" | "8") | ("amd64", "v1") | ("arm", "v7" | "7") => "",
            (_, variant) => variant,
        };
        let mut parts = vec![self.os.as_str(), self.architecture.as_str()];
        parts.extend((!variant.is_empty()).then_some(variant));
        let is_plain = |part: &&str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._".contains(&byte);
            part.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
                && part.len() <= 32
                && part.bytes().all(plain)
        };
        parts.iter().all(is_plain).then(|| parts.join("-"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LAYER: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn descriptor(rest: &str) -> String {
        format!(r#"{{"mediaType":"x","digest":"{LAYER}","size":7{rest}}}"#)
    }

    #[test]
    fn a_document_is_what_its_fields_say() {
        let one = descriptor("");
        let foreign = descriptor(r#","urls":["https://example.com/layer"]"#);
        let text = format!(r#"{{"config":{one},"layers":[{one},{foreign}],"annotations":{{}}}}"#);
        let Ok(Document::Manifest(manifest)) = Document::parse(text.as_bytes()) else {
            panic!("{text}")
        };
        assert_eq!((manifest.layers.len(), manifest.config.size), (2, 7));
        assert_eq!(manifest.layers[1].urls, ["https://example.com/layer"]);
        assert!(!manifest.is_image(), "an unknown media type of the config");
        let arm = descriptor(
            r#","platform":{"os":"linux","architecture":"arm","variant":"v6"},"annotations":{"a":"b"}"#,
        );
        let bad = arm.replace("sha256:", "sha512:");
        let text = format!(r#"{{"manifests":[{arm},{bad}]}}"#);
        let Ok(Document::Index(index)) = Document::parse(text.as_bytes()) else { panic!("{text}") };
        assert_eq!((index.entries.len(), index.rejected.len()), (1, 1));
        assert_eq!(index.entries[0].descriptor.annotations["a"], "b");
        let name = index.entries[0].platform.as_ref().unwrap().name();
        assert_eq!(name.as_deref(), Some("linux-arm-v6"));
        let empty = format!(r#"{{"mediaType":"{}","manifests":null}}"#, INDEXES[1]);
        assert_eq!(Document::parse(empty.as_bytes()), Ok(Document::Index(Index::default())));
    }

    #[test]
    fn what_is_neither_or_both_is_refused() {
        let one = descriptor("");
        let many = vec![one.as_str(); LAYERS_MAX + 1].join(",");
        for text in [
            "",
            "[]",
            "{}",
            "null",
            r#"{"layers":[]}"#,
            r#"{"manifests":7}"#,
            r#"{"schemaVersion":1,"fsLayers":[],"config":{}}"#,
            &format!(r#"{{"manifests":[],"config":{one}}}"#),
            &format!(r#"{{"manifests":[],"layers":[{one}]}}"#),
            &format!(r#"{{"config":{one},"layers":[{many}]}}"#),
            &format!(r#"{{"config":{}}}"#, one.replace('7', "-7")),
            &format!(r#"{{"config":{}}}"#, one.replace("sha256:e3", "sha256:../")),
        ] {
            assert!(Document::parse(text.as_bytes()).is_err(), "{text:.80}");
        }
    }

    #[test]
    fn platforms_have_names_that_can_be_those_of_files() {
        let platform = |os: &str, architecture: &str, variant: &str| Platform {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
        };
        let long = "x".repeat(33);
        for (platform, name) in [
            (platform("linux", "arm64", "v8"), Some("linux-arm64")),
            (platform("linux", "amd64", "v3"), Some("linux-amd64-v3")),
            (platform("windows", "amd64", ""), Some("windows-amd64")),
            (platform("", "amd64", ""), None),
            (platform("..", "amd64", ""), None),
            (platform("linux", "../../etc", ""), None),
            (platform("linux", "a\0b", ""), None),
            (platform("linux", &long, ""), None),
        ] {
            assert_eq!(platform.name().as_deref(), name, "{platform:?}");
        }
        assert!(Platform::host().name().is_some());
    }

    #[test]
    fn what_tells_of_another_entry_is_no_platform() {
        let entry = |rest: &str| {
            let text = format!(r#"{{"manifests":[{}]}}"#, descriptor(rest));
            match Document::parse(text.as_bytes()) {
                Ok(Document::Index(mut index)) => index.entries.remove(0),
                other => panic!("{other:?}"),
            }
        };
        let unknown = r#","platform":{"os":"unknown","architecture":"unknown"}"#;
        let marked = r#","annotations":{"vnd.docker.reference.type":"attestation-manifest"}"#;
        assert!(entry(unknown).is_attestation() && entry(marked).is_attestation());
        assert!(!entry("").is_attestation());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes: Vec<u8>, text: String, size: i64) {
            let one = serde_json::json!({ "digest": &text, "size": size });
            let index = serde_json::json!({ "manifests": [&one] }).to_string();
            let manifest = serde_json::json!({ "config": &one, "layers": [&one] }).to_string();
            for json in [bytes, index.into(), manifest.into()] {
                if let Ok(Document::Index(index)) = Document::parse(&json) {
                    prop_assert!(index.entries.is_empty());
                }
            }
        }
    }
}

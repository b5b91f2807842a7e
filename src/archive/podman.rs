//! An image as `podman save` writes it (go.podman.io/image, `docker/internal/tarfile/writer.go`):
//! entries in the order in which they are come by, and values of the config as they are stored.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::value::RawValue;

use super::documents::{self, Flavour};
use super::pack::{Body, Packer, file};
use super::save::SavedImage;
use super::v1::LegacyLayer;
use crate::digest::{ChainId, DiffId, Digest};
use crate::error::Malformed;
use crate::error::Result;
use crate::json::compact;
use crate::recipe::Recipe;
use crate::tar::header::{Header, Type};

/// Mode of every file.
const MODE: u32 = 0o444;

/// The fields of a config that describe its top layer.
const TOP_FIELDS: [&str; 7] =
    ["architecture", "config", "container", "container_config", "created", "docker_version", "os"];

/// The V1 images of an image with this config, lowest layer first.
///
/// # Errors
/// Fails where the config is no JSON object.
pub(super) fn legacy_layers(
    config: &[u8],
    diff_ids: &[DiffId],
) -> Result<Vec<LegacyLayer>, Malformed> {
    let config: BTreeMap<String, &RawValue> =
        serde_json::from_slice(config).map_err(|err| Malformed::new(err.to_string()))?;
    let mut layers: Vec<LegacyLayer> = Vec::with_capacity(diff_ids.len());
    let mut chain = None;
    for (index, diff_id) in diff_ids.iter().enumerate() {
        let chain_id = ChainId::of(chain, *diff_id);
        let mut fields: BTreeMap<&str, String> = BTreeMap::new();
        if let Some(below) = layers.last() {
            fields.insert("parent", format!("\"{}\"", below.id.hex()));
        }
        if index + 1 == diff_ids.len() {
            let value =
                |name| config.get(name).map_or_else(|| "null".to_owned(), |raw| compact(raw));
            fields.extend(TOP_FIELDS.map(|name| (name, value(name))));
        }
        fields.insert("layer_id", format!("\"{chain_id}\""));
        let id = Digest::of(object(&fields).as_bytes());
        fields.remove("layer_id");
        fields.insert("id", format!("\"{}\"", id.hex()));
        layers.push(LegacyLayer { id, json: object(&fields).into_bytes() });
        chain = Some(chain_id);
    }
    Ok(layers)
}

/// An object of values that are printed already, sorted by key.
fn object(fields: &BTreeMap<&str, String>) -> String {
    let fields: Vec<String> =
        fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", fields.join(","))
}

/// The archive that holds `images`, as `described`, in that order.
pub(super) fn archive(
    images: &[SavedImage<'_>],
    described: &[(documents::SavedImage, &[LegacyLayer])],
) -> Result<Recipe> {
    let mut writer = Writer::default();
    for (saved, (documents, legacy)) in images.iter().zip(described) {
        let tar_name = |diff_id: DiffId| format!("{}.tar", diff_id.hex());
        for (layer, tar) in saved.image.layers.iter().zip(saved.layers) {
            writer.push(tar_name(layer.diff_id), &Body::Part(Arc::clone(tar)));
        }
        let config = format!("{}.json", documents.id.hex());
        writer.push(config, &Body::Inline(&saved.image.config));
        for (layer, legacy) in saved.image.layers.iter().zip(*legacy) {
            let id = legacy.id.hex();
            let target = format!("../{}", tar_name(layer.diff_id));
            writer.push_link(format!("{id}/layer.tar"), target);
            writer.push(format!("{id}/VERSION"), &Body::Inline(b"1.0"));
            writer.push(format!("{id}/json"), &Body::Inline(&legacy.json));
        }
    }
    let documents: Vec<_> = described.iter().map(|(document, _)| document.clone()).collect();
    let manifest = documents::manifest(Flavour::Podman, &documents);
    writer.push("manifest.json".into(), &Body::Inline(&manifest));
    if let Some(repositories) = documents::repositories(Flavour::Podman, &documents) {
        writer.push("repositories".into(), &Body::Inline(&repositories));
    }
    writer.packer.finish()
}

/// Writes each name once.
#[derive(Default)]
struct Writer {
    packer: Packer,
    written: BTreeSet<String>,
}

impl Writer {
    fn push(&mut self, name: String, body: &Body<'_>) {
        if !self.written.contains(&name) {
            self.packer.push(Header { mode: MODE, ..file(&name) }, body);
            self.written.insert(name);
        }
    }

    fn push_link(&mut self, name: String, target: String) {
        if !self.written.contains(&name) {
            let header = Header::new(name.clone().into_bytes(), Type::Symlink);
            self.packer.push(Header { mode: 0, link: target.into_bytes(), ..header }, &Body::Empty);
            self.written.insert(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_printed_as_they_were_written() {
        let layer = DiffId(Digest::of(b""));
        let config = r#"{ "os" : "a \" <\u00e9" , "config": { "b":1, "a": [1.0, 2e3 , "x y"]},
            "created":null, "os": "l\\" }"#;
        let layers = legacy_layers(config.as_bytes(), &[layer]).unwrap();
        let expected = format!(
            r#"{{"architecture":null,"config":{{"b":1,"a":[1.0,2e3,"x y"]}},"container":null,"container_config":null,"created":null,"docker_version":null,"id":"{}","os":"l\\"}}"#,
            layers[0].id.hex()
        );
        assert_eq!(String::from_utf8(layers[0].json.clone()).unwrap(), expected);
        assert!(legacy_layers(b"[]", &[layer]).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_config_makes_it_panic(config: Vec<u8>, text: String) {
            let layer = DiffId(Digest::of(b""));
            let _ = legacy_layers(&config, &[layer]);
            let config = serde_json::json!({ "os": &text }).to_string();
            let layers = legacy_layers(config.as_bytes(), &[layer]).unwrap();
            let json: serde_json::Value = serde_json::from_slice(&layers[0].json).unwrap();
            proptest::prop_assert_eq!(json["os"].as_str(), Some(&*text));
        }
    }
}

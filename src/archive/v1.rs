//! The legacy description of an image: one V1 image per layer, each naming the one below.
//!
//! Docker has written these since 1.10 for readers older than that (`image/tarexport/save.go`).
//! Nothing of it is stored: identities and bytes follow from the config and the layers' chain IDs.

use crate::digest::{ChainId, Digest};
use crate::error::Malformed;
use crate::json::{Escapes, Json};
use crate::oci::ImageConfig;
use crate::oci::docker::{V1_IMAGE_20, V1_IMAGE_28, V1_IMAGE_29};
use crate::store::Description;

/// Whose Go types and Go version the bytes follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Docker 20.10.24.
    Docker20,
    /// Docker 25.0.15 and 28.5.2.
    Docker28,
    /// Docker 29.7.2.
    Docker29,
}

/// One layer as a V1 image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegacyLayer {
    /// Its V1 identity.
    pub id: Digest,
    /// Its description, as in the file `json` of a save archive.
    pub json: Vec<u8>,
}

/// The V1 images of an image, lowest layer first: as many as it has layers.
///
/// # Errors
/// Fails where Docker could not load the config either: a field of another type.
pub fn legacy_layers(
    config: &ImageConfig,
    dialect: Dialect,
) -> Result<Vec<LegacyLayer>, Malformed> {
    let mut layers: Vec<LegacyLayer> = Vec::with_capacity(config.diff_ids.len());
    let mut chain = None;
    for (index, diff_id) in config.diff_ids.iter().enumerate() {
        let chain_id = ChainId::of(chain, *diff_id);
        let is_top = index + 1 == config.diff_ids.len();
        let fields = if is_top { top_fields(config, dialect) } else { lower_fields(dialect) }?;
        let parent = layers.last().map(|layer| layer.id);
        let id = v1_id(&fields, chain_id, parent, dialect);
        let os = (!is_top && !config.os.is_empty()).then_some(config.os.as_str());
        layers.push(LegacyLayer { id, json: v1_json(fields, id, parent, os, dialect) });
        chain = Some(chain_id);
    }
    Ok(layers)
}

/// The same where the store has them: of Docker to 1.9, which saved them as they were.
#[must_use]
pub fn stored_layers(descriptions: &[Description]) -> Vec<LegacyLayer> {
    let layer = |it: &Description| LegacyLayer { id: it.id, json: it.json.to_vec() };
    descriptions.iter().map(layer).collect()
}

/// The fields of the top layer's V1 image, without `id` and `parent`: those of the config.
fn top_fields(config: &ImageConfig, dialect: Dialect) -> Result<Vec<(String, Json)>, Malformed> {
    fields_of(dialect, &config.document)
}

/// The fields of any other layer's: all empty but for a time that never changes.
fn lower_fields(dialect: Dialect) -> Result<Vec<(String, Json)>, Malformed> {
    fields_of(dialect, &Json::object([("created", "1970-01-01T00:00:00Z".into())]))
}

fn fields_of(dialect: Dialect, document: &Json) -> Result<Vec<(String, Json)>, Malformed> {
    let shape = match dialect {
        Dialect::Docker20 => V1_IMAGE_20,
        Dialect::Docker28 => V1_IMAGE_28,
        Dialect::Docker29 => V1_IMAGE_29,
    };
    match shape.read(Some(document))? {
        Json::Object(fields) => Ok(fields),
        _ => Err(Malformed::new("not an object")),
    }
}

/// The V1 identity: a digest of the fields with sorted keys, where `parent` is a full digest.
fn v1_id(
    fields: &[(String, Json)],
    chain_id: ChainId,
    parent: Option<Digest>,
    dialect: Dialect,
) -> Digest {
    let own = [("layer_id".to_owned(), Json::from(chain_id.to_string()))];
    let parent = parent.map(|parent| ("parent".to_owned(), Json::from(parent.to_string())));
    let sorted = Json::map(fields.iter().cloned().chain(own).chain(parent));
    Digest::of(&sorted.to_bytes(escapes(dialect)))
}

/// The description: `id` and `parent` as bare hex, then the fields, then `os` where it is given.
fn v1_json(
    fields: Vec<(String, Json)>,
    id: Digest,
    parent: Option<Digest>,
    os: Option<&str>,
    dialect: Dialect,
) -> Vec<u8> {
    let mut object = vec![("id".to_owned(), Json::from(id.hex()))];
    object.extend(parent.map(|parent| ("parent".to_owned(), Json::from(parent.hex()))));
    object.extend(fields);
    object.extend(os.map(|os| ("os".to_owned(), Json::from(os))));
    Json::Object(object).to_bytes(escapes(dialect))
}

fn escapes(dialect: Dialect) -> Escapes {
    match dialect {
        Dialect::Docker20 => Escapes::DOCKER_20,
        Dialect::Docker28 | Dialect::Docker29 => Escapes::DOCKER_29,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/documents");

    const BASE: &str = "8fe17052d6a5e9deb697f62ebd6f9571d472b3a6d3051f7f7393f4ee9ada7de3";
    const BUILT: &str = "e5bae7f4eb2ea78fe261d1a399657ad4810719912ed5123340ef4c1dd7e303da";
    const COMMITTED: &str = "247cfff0388c01abb972966a17dc4db7a9c25a496945782b5194d3afe57b7596";

    fn layers(path: &str, dialect: Dialect) -> Vec<LegacyLayer> {
        let config = fs::read(format!("{FIXTURES}/{path}")).unwrap();
        legacy_layers(&ImageConfig::parse(&config).unwrap(), dialect).unwrap()
    }

    #[test]
    fn docker_20_gives_the_same_identities_and_bytes() {
        for (archive, image, count) in
            [("s1", BASE, 1), ("s2", BASE, 1), ("s2", BUILT, 3), ("c1s", COMMITTED, 2)]
        {
            let layers = layers(&format!("{archive}/{image}.json"), Dialect::Docker20);
            assert_eq!(layers.len(), count);
            for layer in layers {
                let expected =
                    fs::read(format!("{FIXTURES}/{archive}/{}/json", layer.id.hex())).unwrap();
                assert_eq!(String::from_utf8(layer.json), String::from_utf8(expected));
            }
        }
    }

    #[test]
    fn configs_are_read_and_printed_as_go_does() {
        for archive in ["rich", "com1", "oddcase", "odduni", "oddneg"] {
            let files = fs::read_dir(format!("{FIXTURES}/{archive}")).unwrap();
            let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
            let config = names.into_iter().find(|name| name.ends_with(".json")).unwrap();
            for layer in layers(&format!("{archive}/{config}"), Dialect::Docker20) {
                let expected =
                    fs::read(format!("{FIXTURES}/{archive}/{}/json", layer.id.hex())).unwrap();
                assert_eq!(String::from_utf8(layer.json), String::from_utf8(expected));
            }
        }
    }

    #[test]
    fn docker_29_gives_the_same_bytes() {
        for (image, count) in [(BASE, 1), (BUILT, 3)] {
            let layers = layers(&format!("v29a/blobs/sha256/{image}"), Dialect::Docker29);
            assert_eq!(layers.len(), count);
            for layer in layers {
                let name = Digest::of(&layer.json).hex();
                let expected = fs::read(format!("{FIXTURES}/v29a/blobs/sha256/{name}")).unwrap();
                assert_eq!(layer.json, expected);
            }
        }
    }

    #[test]
    fn an_image_that_says_nothing_has_only_what_is_always_there() {
        let layer = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let config = format!(
            r#"{{"id":"x","parent":"y","os":"","architecture":"","config":{{}},"rootfs":{{"diff_ids":["{layer}"]}}}}"#
        );
        let config = ImageConfig::parse(config.as_bytes()).unwrap();
        let empty = r#"{"Hostname":"","Domainname":"","User":"","AttachStdin":false,"AttachStdout":false,"AttachStderr":false,"Tty":false,"OpenStdin":false,"StdinOnce":false,"Env":null,"Cmd":null,"Image":"","Volumes":null,"WorkingDir":"","Entrypoint":null,"OnBuild":null,"Labels":null}"#;
        for (dialect, created, empty) in [
            (Dialect::Docker20, r#""0001-01-01T00:00:00Z""#, empty.to_owned()),
            (Dialect::Docker28, "null", empty.to_owned()),
            (Dialect::Docker29, "null", empty.replace(r#""OnBuild":null,"#, "")),
        ] {
            let layers = legacy_layers(&config, dialect).unwrap();
            let expected = format!(
                r#"{{"id":"{}","created":{created},"container_config":{empty},"config":{empty}}}"#,
                layers[0].id.hex()
            );
            assert_eq!(String::from_utf8(layers[0].json.clone()).unwrap(), expected);
        }
    }

    #[test]
    fn each_docker_writes_the_fields_that_it_knows() {
        let layer = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let config = format!(
            r#"{{"config":{{"MacAddress":"02:42","Healthcheck":{{"StartInterval":5}}}},"rootfs":{{"diff_ids":["{layer}"]}}}}"#
        );
        let config = ImageConfig::parse(config.as_bytes()).unwrap();
        for (dialect, mac_address, start_interval) in [
            (Dialect::Docker20, true, false),
            (Dialect::Docker28, true, true),
            (Dialect::Docker29, false, true),
        ] {
            let json = legacy_layers(&config, dialect).unwrap().remove(0).json;
            let json = String::from_utf8(json).unwrap();
            assert_eq!(json.contains("MacAddress"), mac_address, "{dialect:?}");
            assert_eq!(json.contains("StartInterval"), start_interval, "{dialect:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_config_makes_it_panic(at in 0..2000_usize, bytes in proptest::collection::vec(0..=u8::MAX, 0..4)) {
            let mut config = fs::read(format!("{FIXTURES}/s2/{BUILT}.json")).unwrap();
            config.splice(at..at + bytes.len(), bytes);
            if let Ok(config) = ImageConfig::parse(&config) {
                for dialect in [Dialect::Docker20, Dialect::Docker28, Dialect::Docker29] {
                    let layers = legacy_layers(&config, dialect);
                    proptest::prop_assert!(layers.is_err() || layers.unwrap().len() == config.diff_ids.len());
                }
            }
        }
    }
}

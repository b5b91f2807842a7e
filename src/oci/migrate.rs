//! What becomes of an image that Docker to 1.9 described, when 1.10 or later loads it.
//!
//! Then an image had a random ID and a description of its own (V1), and no list of layers: it was
//! one layer upon its parent. Docker makes a config of that (`image/v1`, `MakeConfigFromV1Config`),
//! whose digest is the new ID. These are the bytes of 20.10, which is the last that many have.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::docker::V1_IMAGE_20;
use crate::digest::DiffId;
use crate::error::Malformed;
use crate::json::{self, Escapes, Json, compact};

/// What is said elsewhere in a config, or no more.
const DROPPED: [&str; 6] = ["id", "parent", "Size", "parent_id", "layer_id", "throwaway"];

/// The first version whose descriptions have no empty fields (`noFallbackMinVersion`).
const WITHOUT_BLANKS: [u64; 3] = [1, 8, 3];

/// An image that has become one with a config.
#[derive(Debug, Clone)]
pub struct Migrated {
    /// The config.
    pub config: Vec<u8>,
    /// Layers, lowest first.
    pub diff_ids: Vec<DiffId>,
    /// The steps that made it, oldest first.
    history: Vec<Json>,
}

/// Makes a config of a description; `below` is what its parent has become, and `diff_id` its layer.
///
/// # Errors
/// Fails where Docker could not load it either.
pub fn migrate(
    description: &[u8],
    below: Option<&Migrated>,
    diff_id: DiffId,
) -> Result<Migrated, Malformed> {
    let described = Described::read(description)?;
    let mut diff_ids = below.map_or_else(Vec::new, |below| below.diff_ids.clone());
    diff_ids.push(diff_id);
    let mut history = below.map_or_else(Vec::new, |below| below.history.clone());
    history.push(step(&described.known));
    let config = described.config(&diff_ids, &history)?;
    Ok(Migrated { config, diff_ids, history })
}

/// The config that is made of the last of these descriptions, each of which lies with its layer upon
/// the one before.
///
/// # Errors
/// As [`migrate`], and where there are none.
pub fn migrate_chain<'a>(
    chain: impl IntoIterator<Item = (&'a [u8], DiffId)>,
) -> Result<Vec<u8>, Malformed> {
    let (mut diff_ids, mut history, mut top) = (Vec::new(), Vec::new(), None);
    for (description, diff_id) in chain {
        let described = Described::read(description)?;
        diff_ids.push(diff_id);
        history.push(step(&described.known));
        top = Some(described);
    }
    let top = top.ok_or_else(|| Malformed::new("no layers"))?;
    top.config(&diff_ids, &history)
}

/// A description that was read.
struct Described<'a> {
    bytes: &'a [u8],
    /// All of it.
    document: Json,
    /// What Docker knows of it.
    known: Json,
}

impl Described<'_> {
    fn read(bytes: &[u8]) -> Result<Described<'_>, Malformed> {
        let document = json::parse(bytes)?;
        let known = V1_IMAGE_20.read(Some(&document))?;
        Ok(Described { bytes, document, known })
    }

    /// The config with these layers and steps, both lowest first.
    fn config(&self, diff_ids: &[DiffId], history: &[Json]) -> Result<Vec<u8>, Malformed> {
        let mut fields = match has_blanks(&self.document) {
            true => printed(&self.known),
            false => written(self.bytes)?,
        };
        DROPPED.iter().for_each(|key| drop(fields.remove(*key)));
        let texts = diff_ids.iter().map(|diff_id| diff_id.to_string().into());
        let rootfs =
            Json::object([("type", "layers".into()), ("diff_ids", Json::Array(texts.collect()))]);
        fields.insert("rootfs".to_owned(), print(&rootfs));
        fields.insert("history".to_owned(), print(&Json::Array(history.to_vec())));
        let fields: Vec<String> = fields
            .iter()
            .map(|(key, value)| format!("{}:{value}", print(&key.as_str().into())))
            .collect();
        Ok(format!("{{{}}}", fields.join(",")).into_bytes())
    }
}

/// The step that made an image (`HistoryFromConfig`).
fn step(known: &Json) -> Json {
    let text = |name: &str| known.field(name).and_then(Json::as_str).unwrap_or_default();
    let words = known.field("container_config").and_then(|config| config.field("Cmd"));
    let words = words.map_or(&[][..], Json::items).iter().filter_map(Json::as_str);
    let created_by = words.collect::<Vec<_>>().join(" ");
    let fields = [
        ("created", text("created")),
        ("author", text("author")),
        ("created_by", &created_by),
        ("comment", text("comment")),
    ];
    let is_kept = |(name, text): &(&str, &str)| *name == "created" || !text.is_empty();
    let fields = fields.into_iter().filter(is_kept);
    Json::Object(fields.map(|(name, text)| (name.to_owned(), text.into())).collect())
}

/// Whether the Docker that wrote a description left empty fields in it, so that they are dropped.
fn has_blanks(document: &Json) -> bool {
    let version = document.field("docker_version").and_then(Json::as_str).unwrap_or_default();
    let mut parts = version.split('.').map(|part| part.parse::<u64>().unwrap_or(0));
    WITHOUT_BLANKS
        .map(|least| (parts.next().unwrap_or(0), least))
        .into_iter()
        .find(|(part, least)| part != least)
        .is_some_and(|(part, least)| part < least)
}

/// The fields as the Go type prints them.
fn printed(known: &Json) -> BTreeMap<String, String> {
    known.entries().iter().map(|(key, value)| (key.clone(), print(value))).collect()
}

/// The fields as they were written.
fn written(description: &[u8]) -> Result<BTreeMap<String, String>, Malformed> {
    let fields: BTreeMap<String, &RawValue> =
        serde_json::from_slice(description).map_err(|err| Malformed::new(err.to_string()))?;
    Ok(fields.into_iter().map(|(key, value)| (key, compact(value))).collect())
}

fn print(json: &Json) -> String {
    String::from_utf8_lossy(&json.to_bytes(Escapes::DOCKER_20)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::ImageConfig;

    const LAYER: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn layer() -> DiffId {
        DiffId::parse(LAYER).unwrap()
    }

    fn text(migrated: &Migrated) -> &str {
        std::str::from_utf8(&migrated.config).unwrap()
    }

    #[test]
    fn a_description_becomes_a_config_upon_that_of_its_parent() {
        let first = br##"{"id":"b","created":"2015-01-02T03:04:05.600Z","docker_version":"1.9.1",
            "container_config":{"Cmd":["/bin/sh","-c","#(nop) ADD <file>"]},"Size":7,"os":"linux","x":[1, 2.0]}"##;
        let base = migrate(first, None, layer()).unwrap();
        assert_eq!(
            text(&base),
            format!(
                r##"{{"container_config":{{"Cmd":["/bin/sh","-c","#(nop) ADD \u003cfile\u003e"]}},"created":"2015-01-02T03:04:05.600Z","docker_version":"1.9.1","history":[{{"created":"2015-01-02T03:04:05.6Z","created_by":"/bin/sh -c #(nop) ADD \u003cfile\u003e"}}],"os":"linux","rootfs":{{"type":"layers","diff_ids":["{LAYER}"]}},"x":[1,2.0]}}"##
            )
        );
        let second =
            br#"{"id":"t","parent":"b","author":"me","comment":"c","docker_version":"1.10.0"}"#;
        let top = migrate(second, Some(&base), layer()).unwrap();
        let chain = [(&first[..], layer()), (&second[..], layer())];
        assert_eq!(migrate_chain(chain).unwrap(), top.config, "the same at once");
        assert!(migrate_chain([]).is_err());
        let config = ImageConfig::parse(&top.config).unwrap();
        assert_eq!(config.diff_ids, [layer(), layer()]);
        assert_eq!(config.history.len(), 2);
        assert_eq!((&*config.history[1].author, &*config.history[1].comment), ("me", "c"));
        assert!(!text(&top).contains("parent"));
    }

    #[test]
    fn what_docker_before_1_8_3_wrote_loses_its_empty_fields() {
        for (version, is_dropped) in
            [("", true), ("1.8.2", true), ("0.12", true), ("1.8.3", false), ("1.8.3.1", false)]
        {
            let old = format!(
                r#"{{"docker_version":"{version}","author":"","config":null,"unknown":1,"os":""}}"#
            );
            let migrated = migrate(old.as_bytes(), None, layer()).unwrap();
            let text = text(&migrated);
            assert_eq!(!text.contains("unknown"), is_dropped, "{version}: {text}");
            assert_eq!(!text.contains("author"), is_dropped, "{version}: {text}");
            assert!(text.contains(r#""container_config":{"Hostname""#) == is_dropped, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_description_makes_it_panic(bytes: Vec<u8>, words: String, version in "[0-9.]{0,8}") {
            let _ = migrate(&bytes, None, layer());
            let json = serde_json::json!({
                "comment": &words, &words: 1, "docker_version": version,
                "container_config": { "Cmd": [&words] },
            });
            if let Ok(migrated) = migrate(json.to_string().as_bytes(), None, layer()) {
                proptest::prop_assert!(json::parse(&migrated.config).is_ok());
            }
        }
    }
}

//! The image config: what an image is made of and how it is run (OCI image-spec, config.md, and
//! moby's `image/spec`).

use crate::digest::DiffId;
use crate::error::Malformed;
use crate::json::shape::{Field, STRINGS, Shape};
use crate::json::{self, Escapes, Json};
use crate::time::Timestamp;

pub mod docker;
pub mod migrate;

/// An image config, parsed.
#[derive(Debug, Clone)]
pub struct ImageConfig {
    /// All of it, as it was written.
    pub document: Json,
    /// CPU architecture, in Go's words; may be empty.
    pub architecture: String,
    /// Variant of the architecture, such as `v7`; mostly empty.
    pub variant: String,
    /// Operating system, in Go's words; may be empty.
    pub os: String,
    /// When the image was made; `None` where the config does not say or says null.
    pub created: Option<Timestamp>,
    /// Layers, lowest first.
    pub diff_ids: Vec<DiffId>,
    /// Steps that made it, oldest first.
    pub history: Vec<History>,
}

/// A step that made an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// When it was done.
    pub created: Option<Timestamp>,
    /// The command.
    pub created_by: String,
    /// Who did it.
    pub author: String,
    /// A remark.
    pub comment: String,
    /// True where the step made no layer.
    pub empty_layer: bool,
}

/// Layers that an image may have. Docker allows 125; overlayfs cannot mount as many as this.
const MAX_LAYERS: usize = 1024;

/// History entries that an image may have.
const MAX_HISTORY: usize = 1 << 14;

/// What is read of a config.
const CONFIG: Shape = Shape::Struct(&[
    Field::always("architecture", Shape::String),
    Field::always("variant", Shape::String),
    Field::always("os", Shape::String),
    Field::always("created", Shape::Pointer(&Shape::Time)),
    Field::always("rootfs", Shape::Pointer(&Shape::Struct(&[Field::always("diff_ids", STRINGS)]))),
    Field::always(
        "history",
        Shape::List(&Shape::Struct(&[
            Field::always("created", Shape::Pointer(&Shape::Time)),
            Field::always("created_by", Shape::String),
            Field::always("author", Shape::String),
            Field::always("comment", Shape::String),
            Field::always("empty_layer", Shape::Bool),
        ])),
    ),
]);

impl ImageConfig {
    /// The config with these diff IDs, and all else as it was, as Go writes it.
    #[must_use]
    pub fn with_diff_ids(&self, diff_ids: &[DiffId]) -> Vec<u8> {
        let listed: Vec<Json> = diff_ids.iter().map(|id| id.to_string().into()).collect();
        let mut document = self.document.clone();
        for rootfs in document.fields_mut("rootfs") {
            rootfs.fields_mut("diff_ids").for_each(|ids| *ids = Json::Array(listed.clone()));
        }
        document.to_bytes(Escapes::DOCKER_29)
    }

    /// Parses the bytes of a config; their number is the caller's to bound.
    ///
    /// # Errors
    /// Fails where Docker could not load it either (no JSON, a field of another type, no `rootfs`),
    /// on a diff ID that is no sha256 digest, and on more layers or steps than any image has.
    pub fn parse(config: &[u8]) -> Result<ImageConfig, Malformed> {
        let document = json::parse(config)?;
        let known = CONFIG.read(Some(&document))?;
        let diff_ids = match known.field("rootfs") {
            Some(rootfs @ Json::Object(_)) => diff_ids(rootfs)?,
            _ => return Err(Malformed::new("no rootfs")),
        };
        let history = known.field("history").map_or(&[][..], Json::items);
        if history.len() > MAX_HISTORY {
            return Err(Malformed::new("too many history entries"));
        }
        Ok(ImageConfig {
            architecture: text(&known, "architecture"),
            variant: text(&known, "variant"),
            os: text(&known, "os"),
            created: timestamp(&known),
            diff_ids,
            history: history.iter().map(History::from_json).collect(),
            document,
        })
    }
}

impl History {
    fn from_json(entry: &Json) -> History {
        History {
            created: timestamp(entry),
            created_by: text(entry, "created_by"),
            author: text(entry, "author"),
            comment: text(entry, "comment"),
            empty_layer: entry.field("empty_layer") == Some(&Json::Bool(true)),
        }
    }
}

fn diff_ids(rootfs: &Json) -> Result<Vec<DiffId>, Malformed> {
    let ids = rootfs.field("diff_ids").map_or(&[][..], Json::items);
    if ids.len() > MAX_LAYERS {
        return Err(Malformed::new("too many layers"));
    }
    let parse = |id: &Json| DiffId::parse(id.as_str().unwrap_or_default());
    ids.iter()
        .map(parse)
        .collect::<Result<_, _>>()
        .map_err(|err| Malformed::new(format!("rootfs: diff_ids: {err}")))
}

fn text(json: &Json, name: &str) -> String {
    json.field(name).and_then(Json::as_str).unwrap_or_default().to_owned()
}

fn timestamp(json: &Json) -> Option<Timestamp> {
    json.field("created").and_then(Json::as_str).and_then(Timestamp::parse)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYER: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn keys_match_without_regard_to_case_and_nulls_count_for_nothing() {
        let config = format!(
            r#"{{"OS":"linux","Architecture":null,"created":"2026-11-21T21:10:19.500+02:00",
                "RootFS":{{"type":"layers","Diff_IDs":["{LAYER}"]}},"history":[{{"created_by":"x","empty_layer":true}},null]}}"#
        );
        let config = ImageConfig::parse(config.as_bytes()).unwrap();
        assert_eq!((config.os.as_str(), config.architecture.as_str()), ("linux", ""));
        assert_eq!(config.created.unwrap().as_str(), "2026-11-21T21:10:19.5+02:00");
        assert_eq!(config.diff_ids, [DiffId::parse(LAYER).unwrap()]);
        assert_eq!(config.history.len(), 2);
        assert!(config.history[0].empty_layer && !config.history[1].empty_layer);
        assert_eq!(config.history[0].created_by, "x");
    }

    #[test]
    fn the_zero_time_is_a_time_and_null_is_none() {
        let created = |value: &str| {
            let config = format!(r#"{{"created":{value},"rootfs":{{}}}}"#);
            ImageConfig::parse(config.as_bytes()).map(|config| config.created)
        };
        assert!(created(r#""0001-01-01T00:00:00Z""#).unwrap().unwrap().is_zero());
        assert_eq!(created("null").unwrap(), None);
        assert!(created(r#""""#).is_err());
    }

    #[test]
    fn what_docker_cannot_load_is_refused() {
        let many = format!(r#"{{"rootfs":{{"diff_ids":["{}"]}}}}"#, [LAYER; 1025].join(r#"",""#));
        for config in [
            "",
            "[]",
            "{}",
            "null",
            r#"{"rootfs":null}"#,
            r#"{"rootfs":{"diff_ids":["sha256:x"]}}"#,
            r#"{"rootfs":{"diff_ids":[null]}}"#,
            r#"{"rootfs":{},"os":1}"#,
            r#"{"rootfs":{},"history":{}}"#,
            &many,
        ] {
            assert!(ImageConfig::parse(config.as_bytes()).is_err(), "{config:.60}");
        }
        assert!(
            ImageConfig::parse(br#"{"rootfs":{"diff_ids":null}}"#).unwrap().diff_ids.is_empty()
        );
    }
}

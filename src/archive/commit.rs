//! A container as an image, as it is now: what `docker commit` and then `docker save` would give.
//!
//! The image is that of the container with one layer more, the tar of its writable layer. Its config,
//! and by that its ID and most names in the archive, hang on that tar's digest; but none of their
//! lengths do, so that the size of the archive is known before any file was read.

use std::sync::Arc;

use super::config::DOCKER_29;
use super::documents::Flavour;
use super::save::{self, SavedImage};
use crate::backing::Time;
use crate::digest::{ChainId, DiffId, Digest, ImageId};
use crate::error::Malformed;
use crate::error::{Error, Result};
use crate::json::{self, Escapes, Json};
use crate::oci::{History, ImageConfig};
use crate::recipe::Recipe;
use crate::reference::Reference;
use crate::store::{Container, Conventions, Image, Layer, LayerSource};
use crate::time::Timestamp;

/// Tag of the image that a container's archive holds.
const TAG: &str = "snapshot";

/// A container that is to become an image.
#[derive(Debug)]
pub struct Commit<'a> {
    /// The container.
    pub container: &'a Container,
    /// Its image, and the config of that, parsed; `None` for a container made from scratch.
    pub image: Option<(&'a Image, &'a ImageConfig)>,
    /// The tars of the image's layers, lowest first.
    pub layers: &'a [Arc<Recipe>],
    /// The tar of its writable layer, and what that is taken to have for a digest; `None` where
    /// nothing changed.
    pub diff: Option<(&'a Arc<Recipe>, DiffId)>,
    /// The newest change.
    pub created: Time,
    /// Whose name the image gets.
    pub conventions: Conventions,
}

/// The archive of that image alone.
///
/// # Errors
/// ENODATA where it would have no layers; corrupt where the record of the container or the config of
/// its image makes no sense.
pub fn archive(commit: &Commit<'_>, flavour: Flavour) -> Result<Recipe> {
    let shown = || format!("container {}", commit.container.name);
    let corrupt = |why: Malformed| Error::corrupt(shown(), why.to_string());
    let config = config(commit).map_err(corrupt)?;
    let parsed = ImageConfig::parse(&config).map_err(corrupt)?;
    let image = image(commit, config);
    let layers: Vec<_> =
        commit.layers.iter().chain(commit.diff.map(|(tar, _)| tar)).map(Arc::clone).collect();
    let references = [reference(&commit.container.name, commit.conventions)
        .unwrap_or_else(|| format!("{}:{TAG}", &commit.container.id.hex()[..12]))];
    let saved = SavedImage {
        image: &image,
        config: &parsed,
        references: &references,
        layers: &layers,
        omitted: 0,
    };
    save::save(&[saved], flavour)
}

fn image(commit: &Commit<'_>, config: Vec<u8>) -> Image {
    let mut layers = commit.image.map_or_else(Vec::new, |(image, _)| image.layers.clone());
    if let Some((tar, diff_id)) = commit.diff {
        layers.push(Layer {
            diff_id,
            chain_id: ChainId::of(layers.last().map(|below| below.chain_id), diff_id),
            size: tar.len(),
            directory: commit.container.directory.clone(),
            dirs: commit.container.dirs.clone(),
            source: LayerSource::Missing,
        });
    }
    Image {
        id: ImageId(Digest::of(&config)),
        config: config.into(),
        layers,
        parent: None,
        last_tagged: None,
        references: Vec::new(),
        target: None,
        platforms: Vec::new(),
        stored: None,
        descriptions: Vec::new(),
    }
}

/// The config of the image: sorted keys, as Docker 29 writes it (daemon/images/image_commit.go of
/// moby); how to run it is taken from the container, or where nobody recorded that, from its image.
fn config(commit: &Commit<'_>) -> Result<Vec<u8>, Malformed> {
    let record = json::parse(&commit.container.config)?;
    let base = commit.image.map(|(_, config)| config);
    let created = Timestamp::from_instant(commit.created);
    let mut fields = vec![
        ("architecture", architecture(base).into()),
        ("created", created.as_str().into()),
        ("history", history(commit, base, &record, &created)),
        ("os", base.map_or("linux", |base| base.os.as_str()).into()),
        ("rootfs", rootfs(commit, base)),
    ];
    if let Some(variant) = base.map(|base| &base.variant).filter(|variant| !variant.is_empty()) {
        fields.push(("variant", variant.as_str().into()));
    }
    match record.field("Config") {
        Some(config @ Json::Object(_)) => {
            let config = DOCKER_29.read(Some(config))?;
            fields.push(("config", config.clone()));
            fields.push(("container_config", config));
            fields.push(("container", commit.container.id.hex().into()));
        }
        _ => {
            let config = base.and_then(|base| base.document.field("config")).cloned();
            fields.push(("config", config.unwrap_or(Json::Object(Vec::new()))));
        }
    }
    let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value));
    Ok(Json::map(fields).to_bytes(Escapes::DOCKER_29))
}

/// That of the image; of a container without one that of this host, as an engine takes its own.
fn architecture(base: Option<&ImageConfig>) -> &str {
    match (base, std::env::consts::ARCH) {
        (Some(base), _) => &base.architecture,
        (None, "x86_64") => "amd64",
        (None, "aarch64") => "arm64",
        (None, other) => other,
    }
}

fn history(
    commit: &Commit<'_>,
    base: Option<&ImageConfig>,
    record: &Json,
    created: &Timestamp,
) -> Json {
    let command = record.field("Config").and_then(|config| config.field("Cmd"));
    let words = command.map_or(&[][..], Json::items).iter().filter_map(Json::as_str);
    let own = History {
        created: Some(created.clone()),
        created_by: words.collect::<Vec<_>>().join(" "),
        author: String::new(),
        comment: String::new(),
        empty_layer: commit.diff.is_none(),
    };
    let steps = base.map_or(&[][..], |base| &base.history);
    Json::Array(steps.iter().chain([&own]).map(step).collect())
}

fn step(step: &History) -> Json {
    let text =
        |name: &str, value: &str| (!value.is_empty()).then(|| (name.to_owned(), Json::from(value)));
    let fields = [
        step.created.as_ref().and_then(|created| text("created", created.as_str())),
        text("created_by", &step.created_by),
        text("author", &step.author),
        text("comment", &step.comment),
        step.empty_layer.then(|| ("empty_layer".to_owned(), Json::Bool(true))),
    ];
    Json::Object(fields.into_iter().flatten().collect())
}

fn rootfs(commit: &Commit<'_>, base: Option<&ImageConfig>) -> Json {
    let below = base.map_or(&[][..], |base| &base.diff_ids);
    let own = commit.diff.map(|(_, diff_id)| diff_id);
    let diff_ids = below.iter().copied().chain(own).map(|id| Json::from(id.to_string()));
    let diff_ids = Json::Array(diff_ids.collect());
    Json::object([("type", "layers".into()), ("diff_ids", diff_ids)])
}

/// `NAME:snapshot`, with the name as a reference may have it; `None` for one that can't be made so.
/// In a store of Podman it is a name of this host, as for all that Podman makes itself.
fn reference(name: &str, conventions: Conventions) -> Option<String> {
    let host = match conventions {
        Conventions::Docker | Conventions::Containerd => "",
        Conventions::Podman => "localhost/",
    };
    let mut plain = String::new();
    for part in name.to_ascii_lowercase().split_inclusive(|letter: char| !letter.is_alphanumeric())
    {
        let separator = part.ends_with(['.', '_', '-']);
        let follows = plain.ends_with(['.', '_', '-']);
        match (separator && part.len() == 1 && follows, plain.ends_with('-')) {
            (true, true) => {}
            (true, false) => {
                plain.pop();
                plain.push('-');
            }
            (false, _) => plain.push_str(part),
        }
    }
    let reference = format!("{host}{}:{TAG}", plain.trim_end_matches(['.', '_', '-']));
    Reference::parse(&reference).is_ok().then_some(reference)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_s_name_becomes_a_reference() {
        for (name, expected) in [
            ("web", "web:snapshot"),
            ("Web_1", "web_1:snapshot"),
            ("a..b", "a-b:snapshot"),
            ("a._-b__", "a-b:snapshot"),
            ("x---y.z-", "x-y.z:snapshot"),
        ] {
            assert_eq!(reference(name, Conventions::Docker).as_deref(), Some(expected), "{name}");
        }
        let podman = reference("A.b", Conventions::Podman);
        assert_eq!(podman.as_deref(), Some("localhost/a.b:snapshot"));
    }

    proptest::proptest! {
        #[test]
        fn every_name_of_a_container_becomes_one(name in "[a-zA-Z0-9][a-zA-Z0-9_.-]{0,60}") {
            proptest::prop_assert!(reference(&name, Conventions::Docker).is_some(), "{}", name);
        }
    }
}

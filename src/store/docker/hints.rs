//! What the files of a data root tell of the version that wrote them.
//!
//! Each tells only who wrote it last: a data root that saw several versions has traces of all.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::records::Era;
use super::roots::Roots;
use crate::backing::Root;
use crate::error::Result;
use crate::store::files::JSON_MAX;

/// How many containers and images are looked at.
const LOOKED_AT: usize = 64;

/// What is told, each once and sorted.
pub(super) fn read(roots: &Roots) -> Vec<String> {
    let mut told = BTreeSet::new();
    if roots.era == Era::Graph {
        told.insert("a graph of images: 1.9 or earlier");
    }
    if roots.data.stat("engine-id").is_ok() {
        told.insert("has an engine-id: later than 20.10");
    }
    if is_built_locally(&roots.image).unwrap_or_default() {
        told.insert("images marked as built here: later than 20.10");
    }
    if let Some(containers) = &roots.containers {
        let names = containers.dir("").and_then(|dir| dir.names()).unwrap_or_default();
        for entry in names.into_iter().take(LOOKED_AT) {
            let path = Path::new(&entry.name).join("config.v2.json");
            let config = containers.read(path, JSON_MAX).unwrap_or_default();
            told.extend(of_container(&config));
        }
    }
    told.into_iter().map(str::to_owned).collect()
}

fn is_built_locally(image: &Root) -> Result<bool> {
    let images = image.dir("imagedb/metadata/sha256")?.names()?;
    Ok(images.into_iter().take(LOOKED_AT).any(|entry| {
        let path = Path::new("imagedb/metadata/sha256").join(entry.name);
        image.stat(path.join("builtLocally")).is_ok()
    }))
}

/// What a container's `config.v2.json` tells (fields come and go with versions).
fn of_container(json: &[u8]) -> Vec<&'static str> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Config {
        image_platform: Option<IgnoredAny>,
        state: Option<State>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct State {
        removal_in_progress: Option<IgnoredAny>,
    }
    let Ok(config) = serde_json::from_slice::<Config>(json) else { return Vec::new() };
    let is_old = config.state.is_some_and(|state| state.removal_in_progress.is_some());
    [
        is_old.then_some("containers written by 28.1 or earlier"),
        config.image_platform.map(|_| "containers written by 28.0 or later"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_container_tell_the_version() {
        for (json, told) in [
            (
                r#"{"State":{"RemovalInProgress":false}}"#,
                &["containers written by 28.1 or earlier"][..],
            ),
            (
                r#"{"ImagePlatform":{"os":"linux"},"State":{}}"#,
                &["containers written by 28.0 or later"],
            ),
            ("{}", &[]),
            ("[", &[]),
        ] {
            assert_eq!(of_container(json.as_bytes()), told, "{json}");
        }
    }
}

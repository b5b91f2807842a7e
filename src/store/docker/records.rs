//! Docker's JSON files as values. Parsers take bytes and never touch the disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::digest::{ContainerId, ImageId, InvalidDigest};
use crate::store::names::is_container_name;
use crate::store::{Mount, MountSource, State};

/// Longest reference, in bytes: a name of 255, `@sha256:` and a digest, with room to spare.
const REFERENCE_MAX: usize = 512;

/// Which generation of Docker wrote a data root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Era {
    /// To 1.9: an image is one layer upon its parent, and has a random ID.
    Graph,
    /// From 1.10: an image is a config, whose digest is its ID.
    Content,
}

impl Era {
    /// The file that describes a container.
    pub(in crate::store) fn container_file(self) -> &'static str {
        match self {
            Era::Graph => "config.json",
            Era::Content => "config.v2.json",
        }
    }

    /// An image's ID as files have it.
    fn image_id(self, text: &str) -> Result<ImageId, InvalidDigest> {
        match self {
            Era::Graph => ImageId::from_hex(text),
            Era::Content => ImageId::parse(text),
        }
    }

    /// A reference, by what a list of the repository has for it.
    fn reference(self, repository: &str, key: String) -> String {
        match self {
            Era::Graph if key.contains(':') => format!("{repository}@{key}"),
            Era::Graph => format!("{repository}:{key}"),
            Era::Content => key,
        }
    }
}

/// What the list of references says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct References {
    /// What each reference points at.
    pub(super) images: BTreeMap<String, ImageId>,
    /// Why the others are left out, one phrase each.
    pub(super) rejected: Vec<String>,
}

/// Parses `repositories.json`: `{"Repositories":{"app":{"app:1":"sha256:.."}}}`. To 1.9 it is
/// `{"app":{"1":".."}}` therein.
pub(super) fn references(json: &[u8], era: Era) -> Result<References, String> {
    #[derive(Deserialize)]
    struct File {
        #[serde(rename = "Repositories")]
        repositories: Option<BTreeMap<String, Value>>,
    }
    let file: File = serde_json::from_slice(json).map_err(|err| err.to_string())?;
    let mut references = References::default();
    for (repository, entries) in file.repositories.unwrap_or_default() {
        let Value::Object(entries) = entries else {
            references.rejected.push(format!("repository {repository:?} is not an object"));
            continue;
        };
        for (key, id) in entries {
            let reference = era.reference(&repository, key);
            let id = id.as_str().and_then(|id| era.image_id(id).ok());
            match id.filter(|_| is_reference(&repository, &reference)) {
                Some(id) => drop(references.images.insert(reference, id)),
                None => references.rejected.push(format!("no reference: {reference:?}")),
            }
        }
    }
    Ok(references)
}

/// True for `repository:tag` and `repository@digest` that can be shown as a path.
fn is_reference(repository: &str, reference: &str) -> bool {
    let Some(rest) = reference.strip_prefix(repository) else { return false };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:@/[]".contains(&byte);
    let named = |part: &str| !matches!(part, "" | "." | "..");
    reference.len() <= REFERENCE_MAX
        && reference.bytes().all(plain)
        && repository.split('/').all(named)
        && rest.len() > 1
        && rest.starts_with([':', '@'])
        && !rest.contains('/')
}

/// Sorts references as Docker lists them: by their full names, `docker.io/library/app:1` for
/// `app:1` (moby reference/store.go, `lexicalRefs`).
pub(super) fn sort_references(references: &mut [String]) {
    references.sort_by_cached_key(|reference| {
        let domain = reference.split_once('/').map(|(domain, _)| domain);
        match domain {
            None => format!("docker.io/library/{reference}"),
            Some(domain) if is_domain(domain) => reference.clone(),
            Some(_) => format!("docker.io/{reference}"),
        }
    });
}

fn is_domain(part: &str) -> bool {
    let marks = |byte: u8| byte == b'.' || byte == b':' || byte.is_ascii_uppercase();
    part == "localhost" || part.bytes().any(marks)
}

/// What is used of a container's `config.v2.json` or `config.json`.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::store) struct ContainerRecord {
    /// Its name, without the leading slash.
    pub(in crate::store) name: String,
    /// The image it was made from; `None` for one made from scratch.
    pub(in crate::store) image: Option<ImageId>,
    /// The image as the user named it.
    pub(in crate::store) image_name: String,
    /// When it was made, as stored.
    pub(in crate::store) created: String,
    /// The driver that its files lie in.
    pub(in crate::store) driver: String,
    /// What it is doing.
    pub(in crate::store) state: State,
    /// Its first process; `None` where none runs.
    pub(in crate::store) pid: Option<u32>,
    /// What is mounted into it, sorted by destination, binds included.
    pub(in crate::store) mounts: Vec<Mount>,
    /// Where the engine that wrote this had its data root; `None` before the first run.
    pub(in crate::store) home: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ContainerFile {
    #[serde(rename = "ID")]
    id: String,
    name: String,
    image: Option<String>,
    created: Option<String>,
    driver: Option<String>,
    config: Option<RunConfig>,
    state: Option<StateFlags>,
    mount_points: Option<BTreeMap<String, Value>>,
    volumes: Option<BTreeMap<String, Value>>,
    hostname_path: Option<String>,
    hosts_path: Option<String>,
    resolv_conf_path: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct MountPoint {
    r#type: Option<String>,
    name: Option<String>,
    source: Option<String>,
    driver: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RunConfig {
    image: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct StateFlags {
    running: bool,
    paused: bool,
    restarting: bool,
    removal_in_progress: bool,
    dead: bool,
    started_at: Option<String>,
    pid: Value,
}

/// Parses the [`Era::container_file`] of the container `id`.
pub(in crate::store) fn container(
    id: ContainerId,
    json: &[u8],
    era: Era,
) -> Result<ContainerRecord, String> {
    let file: ContainerFile = serde_json::from_slice(json).map_err(|err| err.to_string())?;
    if ContainerId::from_hex(&file.id) != Ok(id) {
        return Err("describes another container".to_owned());
    }
    let flags = file.state.unwrap_or_default();
    let name = file.name.strip_prefix('/').unwrap_or(&file.name);
    if !is_container_name(name) {
        return Err("not a container name".to_owned());
    }
    let image = match file.image.as_deref() {
        None | Some("") => None,
        Some(image) => Some(era.image_id(image).map_err(|err| format!("image: {err}"))?),
    };
    let driver = match (era, file.driver.unwrap_or_default()) {
        // Before there was a choice.
        (Era::Graph, driver) if driver.is_empty() => "aufs".to_owned(),
        (_, driver) => driver,
    };
    let points = file.mount_points.filter(|points| !points.is_empty());
    let mounts = match (era, points) {
        (_, Some(points)) => points.into_iter().filter_map(mount).collect(),
        (Era::Graph, None) => {
            file.volumes.unwrap_or_default().into_iter().filter_map(old_mount).collect()
        }
        (Era::Content, None) => Vec::new(),
    };
    Ok(ContainerRecord {
        name: name.to_owned(),
        image,
        image_name: file.config.and_then(|config| config.image).unwrap_or_default(),
        created: file.created.unwrap_or_default(),
        driver,
        state: state(&flags),
        pid: flags.pid.as_u64().and_then(|pid| u32::try_from(pid).ok()).filter(|&pid| pid > 0),
        mounts,
        // `<root>/containers/<id>/hostname`
        home: [file.hostname_path, file.hosts_path, file.resolv_conf_path]
            .iter()
            .flatten()
            .find_map(|path| Path::new(path).ancestors().nth(3).map(Path::to_owned)),
    })
}

/// A mount by its destination; `None` for one whose files are not on disk, as a tmpfs, or are kept by
/// somebody else. A volume has a name, an anonymous one no source (formats before 1.11 no type).
fn mount((destination, point): (String, Value)) -> Option<Mount> {
    let point: MountPoint = serde_json::from_value(point).ok()?;
    let text = |field: Option<String>| field.filter(|text| !text.is_empty());
    let source = match (text(point.r#type).as_deref(), text(point.name), text(point.source)) {
        (None | Some("volume"), Some(name), _) => match point.driver.as_deref() {
            None | Some("" | "local") => MountSource::Volume(name),
            Some(_) => return None,
        },
        (None | Some("bind"), _, Some(source)) => MountSource::Bind(source.into()),
        _ => return None,
    };
    Some(Mount { destination, source })
}

/// A mount of Docker to 1.7, which notes of each the directory of the host alone.
fn old_mount((destination, source): (String, Value)) -> Option<Mount> {
    let source = source.as_str().filter(|path| !path.is_empty())?;
    Some(Mount { destination, source: MountSource::Bind(source.into()) })
}

/// Docker's order, moby container/state.go, `StateString`.
fn state(flags: &StateFlags) -> State {
    let started = flags.started_at.as_deref().unwrap_or_default();
    match flags {
        StateFlags { running: true, paused: true, .. } => State::Paused,
        StateFlags { running: true, restarting: true, .. } => State::Restarting,
        StateFlags { running: true, .. } => State::Running,
        StateFlags { removal_in_progress: true, .. } => State::Removing,
        StateFlags { dead: true, .. } => State::Dead,
        // Go's zero time.
        _ if started.is_empty() || started.starts_with("0001-01-01T00:00:00") => State::Created,
        _ => State::Exited,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::digest::Digest;

    proptest! {
        #[test]
        fn no_bytes_make_a_parser_panic(bytes: Vec<u8>, text: String, rest: String) {
            let id = ContainerId(Digest::of(b"id"));
            for json in [
                bytes,
                serde_json::json!({ "Repositories": { &text: { &rest: &text } } }).to_string().into(),
                serde_json::json!({ "ID": id.hex(), "Name": &text }).to_string().into(),
            ] {
                for era in [Era::Graph, Era::Content] {
                    let found = references(&json, era).unwrap_or_default();
                    prop_assert!(found.images.is_empty());
                    if let Ok(found) = container(id, &json, era) {
                        prop_assert!(is_container_name(&found.name));
                    }
                }
            }
            sort_references(&mut [text, rest]);
        }
    }

    #[test]
    fn references_of_either_era_are_read() {
        let hex = "0a".repeat(32);
        let digest = format!("sha256:{hex}");
        let graph = format!(
            r#"{{"Repositories":{{"r:5/app":{{"1":"{hex}","{digest}":"{hex}","x/y":"{hex}"}}}},"ConfirmDefPush":null}}"#
        );
        let found = references(graph.as_bytes(), Era::Graph).unwrap();
        let names: Vec<_> = found.images.keys().cloned().collect();
        assert_eq!(names, ["r:5/app:1".to_owned(), format!("r:5/app@{digest}")]);
        assert_eq!(found.rejected.len(), 1);
        assert!(references(graph.as_bytes(), Era::Content).unwrap().images.is_empty());
    }

    #[test]
    fn a_container_of_the_graph_names_its_image_by_a_bare_id() {
        let id = ContainerId(Digest::of(b"id"));
        let json =
            |more: &str| format!(r#"{{"ID":"{}","Name":"/old","Image":"{0}"{more}}}"#, id.hex());
        let old = json(r#","Volumes":{"/data":"/var/lib/docker/vfs/dir/a","/x":""}"#);
        let found = container(id, old.as_bytes(), Era::Graph).unwrap();
        assert_eq!((found.image, &*found.driver), (Some(ImageId(id.0)), "aufs"));
        let source = MountSource::Bind("/var/lib/docker/vfs/dir/a".into());
        assert_eq!(found.mounts, [Mount { destination: "/data".into(), source }]);
        assert!(container(id, old.as_bytes(), Era::Content).is_err());
        let new = json(
            r#","Driver":"vfs","Volumes":{"/a":"/b"},"MountPoints":{"/v":{"Name":"n","Driver":"local"}}"#,
        );
        let found = container(id, new.as_bytes(), Era::Graph).unwrap();
        assert_eq!(found.mounts[0].source, MountSource::Volume("n".into()));
        assert_eq!((found.mounts.len(), &*found.driver), (1, "vfs"));
    }

    #[test]
    fn a_reference_is_its_repository_and_a_tag_or_digest() {
        for (repository, reference) in [
            ("app", "app:1.0"),
            ("127.0.0.1:5555/team/solo", "127.0.0.1:5555/team/solo@sha256:5326"),
            ("[::1]:5000/x", "[::1]:5000/x:latest"),
            ("a__b.c-d", "a__b.c-d:_x"),
        ] {
            assert!(is_reference(repository, reference), "{reference}");
        }
        for (repository, reference) in
            [("app", "app"), ("app", "apps:1"), ("a", "a:1/2"), ("a ", "a :1")]
        {
            assert!(!is_reference(repository, reference), "{reference}");
        }
    }
}

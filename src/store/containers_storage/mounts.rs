//! What is mounted into a container, from the description that Podman gives to the runtime at each
//! start: `userdata/config.json` (OCI runtime-spec, config.md, "Mounts"); of one that never ran, from
//! what Podman's database says that it was made with.
//!
//! In the former all is bound by path, volumes and the engine's own small files too; where the
//! container's root is mounted tells which paths are the engine's.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::roots::Roots;
use crate::digest::ContainerId;
use crate::error::Result;
use crate::store::files::{JSON_MAX, if_found};
use crate::store::names::is_container_name;
use crate::store::{Mount, MountSource};

/// What a description tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Described {
    /// Where the engine that wrote it had the store.
    pub(super) home: Option<PathBuf>,
    /// Sorted by destination.
    pub(super) mounts: Vec<Mount>,
}

/// What is told of the container `id`: nothing where it was never started, and where the description
/// makes no sense, for it must not hide the container.
pub(super) fn read(roots: &Roots, id: ContainerId) -> Result<Option<Described>> {
    let Some(containers) = &roots.containers else { return Ok(None) };
    let path = format!("{}/userdata/config.json", id.hex());
    let json = if_found(containers.read(path, JSON_MAX))?;
    Ok(json.and_then(|json| parse(&json, id)))
}

/// What the database says that the container `id` was made with (libpod/container_config.go).
pub(super) fn as_made(json: &[u8], id: ContainerId) -> Option<Described> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Config {
        spec: MadeSpec,
        static_dir: String,
        named_volumes: Option<Vec<Value>>,
    }
    #[derive(Deserialize)]
    struct MadeSpec {
        mounts: Option<Vec<Value>>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct NamedVolume {
        volume_name: String,
        dest: String,
        sub_path: Option<String>,
    }
    let config: Config = serde_json::from_slice(json).ok()?;
    // `<store>/overlay-containers/<id>/userdata`
    let store = Path::new(&config.static_dir).ancestors().nth(3)?;
    let mounts = config.spec.mounts.unwrap_or_default().into_iter();
    let mounts = mounts.filter_map(|mount| serde_json::from_value(mount).ok());
    let mounts = mounts.filter_map(|mount| described(mount, store, id));
    let volumes = config.named_volumes.unwrap_or_default().into_iter();
    let volumes = volumes.filter_map(|it| serde_json::from_value::<NamedVolume>(it).ok());
    let volumes = volumes
        .filter(|it| is_container_name(&it.volume_name))
        .filter(|it| it.sub_path.as_deref().unwrap_or_default().is_empty())
        .map(|it| Mount { destination: it.dest, source: MountSource::Volume(it.volume_name) });
    let mut mounts: Vec<Mount> = mounts.chain(volumes).collect();
    mounts.sort();
    Some(Described { home: Some(store.to_owned()), mounts })
}

#[derive(Deserialize)]
struct Spec {
    root: RootFs,
    mounts: Option<Vec<Value>>,
}

#[derive(Deserialize)]
struct RootFs {
    path: String,
}

#[derive(Deserialize)]
struct SpecMount {
    destination: String,
    r#type: Option<String>,
    source: Option<String>,
}

fn parse(json: &[u8], id: ContainerId) -> Option<Described> {
    let spec: Spec = serde_json::from_slice(json).ok()?;
    // `<store>/overlay/<layer>/merged`
    let store = Path::new(&spec.root.path).ancestors().nth(3)?;
    let mounts = spec.mounts.unwrap_or_default().into_iter();
    let mounts = mounts.filter_map(|mount| serde_json::from_value(mount).ok());
    let mut mounts: Vec<Mount> = mounts.filter_map(|mount| described(mount, store, id)).collect();
    mounts.sort();
    Some(Described { home: Some(store.to_owned()), mounts })
}

fn described(mount: SpecMount, store: &Path, id: ContainerId) -> Option<Mount> {
    if mount.r#type.as_deref() != Some("bind") {
        return None;
    }
    let source = PathBuf::from(mount.source?);
    let own = Path::new(&id.hex()).join("userdata");
    let is_own = source.ancestors().any(|above| above.ends_with(&own));
    let volume = source.strip_prefix(store.join("volumes")).ok();
    let volume = volume.and_then(|rest| rest.to_str()?.strip_suffix("/_data"));
    let source = match volume.filter(|name| is_container_name(name)) {
        Some(name) => MountSource::Volume(name.to_owned()),
        None if is_own || source.starts_with(store) => return None,
        None => MountSource::Bind(source),
    };
    Some(Mount { destination: mount.destination, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    #[test]
    fn volumes_and_binds_are_told_from_the_engine_s_own_files() {
        let id = ContainerId(Digest::of(b"container"));
        let hex = id.hex();
        let bind = |to: &str, from: &str| {
            format!(r#"{{"destination":"{to}","type":"bind","source":"{from}"}}"#)
        };
        let mounts = [
            bind("/vol", "/s/volumes/nv/_data"),
            bind("/a", "/srv/a"),
            bind(
                "/etc/hosts",
                &format!("/run/containers/storage/overlay-containers/{hex}/userdata/hosts"),
            ),
            bind("/dev/shm", &format!("/s/overlay-containers/{hex}/userdata/shm")),
            bind("/odd", "/s/volumes/../_data"),
            r#"{"destination":"/proc","type":"proc","source":"proc"}"#.to_owned(),
            "7".to_owned(),
        ];
        let mounts = mounts.join(",");
        let json = format!(r#"{{"root":{{"path":"/s/overlay/x/merged"}},"mounts":[{mounts}]}}"#);
        let found = parse(json.as_bytes(), id).unwrap();
        let mount = |to: &str, source| Mount { destination: to.into(), source };
        let expected = [
            mount("/a", MountSource::Bind("/srv/a".into())),
            mount("/vol", MountSource::Volume("nv".into())),
        ];
        assert_eq!(found.mounts, expected);
        assert_eq!(found.home.as_deref(), Some(Path::new("/s")));
        for json in ["", "{}", "[]", r#"{"root":{"path":"/x"}}"#] {
            assert_eq!(parse(json.as_bytes(), id), None, "{json}");
        }
    }

    #[test]
    fn a_container_that_never_ran_has_what_it_was_made_with() {
        let id = ContainerId(Digest::of(b"container"));
        let volume = |rest: &str| format!(r#"{{"volumeName":"nv","dest":"/v"{rest}}}"#);
        let json = format!(
            r#"{{"spec":{{"mounts":[
                {{"destination":"/t","type":"tmpfs","source":"tmpfs"}},
                {{"destination":"/b","type":"bind","source":"/srv","options":["ro"]}}, 7]}},
            "namedVolumes":[{},{},{{"volumeName":"../x","dest":"/w"}},null],
            "staticDir":"/s/overlay-containers/{}/userdata"}}"#,
            volume(""),
            volume(r#","subPath":"deep""#),
            id.hex(),
        );
        let found = as_made(json.as_bytes(), id).unwrap();
        let mount = |to: &str, source| Mount { destination: to.into(), source };
        let expected = [
            mount("/b", MountSource::Bind("/srv".into())),
            mount("/v", MountSource::Volume("nv".into())),
        ];
        assert_eq!(found.mounts, expected);
        assert_eq!(found.home.as_deref(), Some(Path::new("/s")));
        for json in ["", "{}", r#"{"spec":{},"staticDir":"/x"}"#] {
            assert_eq!(as_made(json.as_bytes(), id), None, "{json}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_description_makes_it_panic(json: Vec<u8>, to: String, from: String) {
            let id = ContainerId(Digest::of(b"container"));
            let _ = (parse(&json, id), as_made(&json, id));
            let json = serde_json::json!({ "root": { "path": &from }, "mounts": [
                { "destination": &to, "type": "bind", "source": &from } ] });
            let _ = parse(json.to_string().as_bytes(), id);
        }
    }
}

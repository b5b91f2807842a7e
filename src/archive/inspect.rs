//! What `docker image inspect` and `docker inspect` of Docker 20.10 show, as far as a store knows.

use super::config;
use crate::backing::Time;
use crate::digest::ImageId;
use crate::error::Malformed;
use crate::json::shape::{Field, STRINGS, Shape};
use crate::json::{self, Escapes, Json};
use crate::oci::ImageConfig;
use crate::reference::Reference;
use crate::store::{self, GraphDriver, State};
use crate::time::Timestamp;

pub mod engine29;

/// An image, as far as its config does not tell.
#[derive(Debug, Clone)]
pub struct Image<'a> {
    /// Its ID.
    pub id: ImageId,
    /// Its config.
    pub config: &'a ImageConfig,
    /// References to it, in the order in which they are shown.
    pub references: &'a [Reference],
    /// Its parent, where the store recorded one.
    pub parent: Option<ImageId>,
    /// Bytes of all its layers' files.
    pub size: u64,
    /// When a reference last came to point at it.
    pub last_tagged: Option<Timestamp>,
    /// Where its layers are mounted from.
    pub graph_driver: GraphDriver,
}

/// A container, as the store describes it.
#[derive(Debug, Clone)]
pub struct Container<'a> {
    /// Its `config.v2.json`.
    pub config: &'a [u8],
    /// Its `hostconfig.json`; empty where there is none.
    pub host_config: &'a [u8],
    /// What it is doing.
    pub state: State,
    /// The store's directory of volumes: anonymous volumes are recorded without their path.
    pub volumes: &'a str,
    /// Where its layers are mounted from.
    pub graph_driver: GraphDriver,
}

/// What `docker image inspect` prints of an image.
///
/// # Errors
/// Fails where Docker could not load the config: a field of another type.
pub fn image(image: &Image<'_>) -> Result<Vec<u8>, Malformed> {
    let known = IMAGE.read(Some(&image.config.document))?;
    let field = |name: &str| known.field(name).cloned().unwrap_or(Json::Null);
    let (digests, tags): (Vec<&Reference>, Vec<&Reference>) =
        image.references.iter().partition(|reference| reference.digest.is_some());
    let optional = |name: &'static str, value: Json| {
        (value.as_str() != Some("")).then(|| (name.to_owned(), value))
    };
    let mut fields = entries([
        ("Id", image.id.to_string().into()),
        ("RepoTags", familiar(&tags)),
        ("RepoDigests", familiar(&digests)),
        ("Parent", image.parent.map(|id| id.to_string()).unwrap_or_default().into()),
        ("Comment", comment(&known, image.config).into()),
        ("Created", time(image.config.created.as_ref())),
        ("Container", field("container")),
        ("ContainerConfig", field("container_config")),
        ("DockerVersion", field("docker_version")),
        ("Author", field("author")),
        ("Config", field("config")),
        ("Architecture", field("architecture")),
    ]);
    fields.extend(optional("Variant", field("variant")));
    fields.extend(entries([("Os", os(&image.config.os).into())]));
    fields.extend(optional("OsVersion", field("os.version")));
    fields.extend(entries([
        ("Size", image.size.into()),
        ("VirtualSize", image.size.into()),
        ("GraphDriver", graph_driver(&image.graph_driver)),
        ("RootFS", root_fs(&field("rootfs"))),
        ("Metadata", Json::object([("LastTagTime", time(image.last_tagged.as_ref()))])),
    ]));
    Ok(page(Json::Object(fields)))
}

/// What `docker inspect` prints of a container. Its mounts, which Docker shows in random order, are
/// sorted by destination.
///
/// # Errors
/// Fails where the files are no JSON, or have a field of another type.
pub fn container(container: &Container<'_>) -> Result<Vec<u8>, Malformed> {
    let stored = CONTAINER.read(Some(&json::parse(container.config)?))?;
    Ok(page(Json::Object(described(container, &stored, network_settings)?)))
}

/// What every version shows of a container: `stored` is what counts of its record, `network` shows
/// that of its settings.
fn described(
    container: &Container<'_>,
    stored: &Json,
    network: impl Fn(&Json) -> Json,
) -> Result<Vec<(String, Json)>, Malformed> {
    let host_config = match container.host_config {
        [] => Json::Null,
        bytes => json::parse(bytes)?,
    };
    let field = |name: &str| stored.field(name).cloned().unwrap_or(Json::Null);
    Ok(entries([
        ("Id", field("ID")),
        ("Created", field("Created")),
        ("Path", field("Path")),
        ("Args", field("Args")),
        ("State", state(container.state, &field("State"))),
        ("Image", field("Image")),
        ("ResolvConfPath", field("ResolvConfPath")),
        ("HostnamePath", field("HostnamePath")),
        ("HostsPath", field("HostsPath")),
        ("LogPath", field("LogPath")),
        ("Name", field("Name")),
        ("RestartCount", field("RestartCount")),
        ("Driver", field("Driver")),
        ("Platform", field("OS")),
        ("MountLabel", field("MountLabel")),
        ("ProcessLabel", field("ProcessLabel")),
        ("AppArmorProfile", field("AppArmorProfile")),
        ("ExecIDs", Json::Null),
        ("HostConfig", host_config),
        ("GraphDriver", graph_driver(&container.graph_driver)),
        ("Mounts", mounts(&field("MountPoints"), container.volumes)),
        ("Config", field("Config")),
        ("NetworkSettings", network(&field("NetworkSettings"))),
    ]))
}

/// A container of a store that keeps no record of its own for one, as far as it knows: the names
/// are those of `podman inspect`.
#[must_use]
pub fn known_container(container: &store::Container, driver: &GraphDriver) -> Vec<u8> {
    let image = container.image.map(|id| id.hex()).unwrap_or_default();
    page(Json::object([
        ("Id", container.id.hex().into()),
        ("Created", container.created.as_str().into()),
        ("State", Json::object([("Status", container.state.name().into())])),
        ("Image", image.into()),
        ("ImageName", container.image_name.as_str().into()),
        ("Name", container.name.as_str().into()),
        ("Driver", driver.name.as_str().into()),
        ("GraphDriver", graph_driver(driver)),
    ]))
}

/// What `docker volume inspect` prints of a volume, but for labels: those are in the engine's
/// database.
#[must_use]
pub fn volume(volume: &store::Volume) -> Vec<u8> {
    let created = Time { nanos: 0, ..volume.created };
    let options = volume.options.iter().map(|(name, value)| (name.clone(), value.as_str().into()));
    let options = if volume.options.is_empty() { Json::Null } else { Json::map(options) };
    page(Json::object([
        ("CreatedAt", Timestamp::from_instant(created).as_str().into()),
        ("Driver", "local".into()),
        ("Labels", Json::Null),
        ("Mountpoint", volume.data.root.path().to_string_lossy().as_ref().into()),
        ("Name", volume.name.as_str().into()),
        ("Options", options),
        ("Scope", "local".into()),
    ]))
}

/// One object as the command line prints it: an array, indented, with a newline.
fn page(json: Json) -> Vec<u8> {
    let mut page = Json::Array(vec![json]).to_indented(Escapes::DOCKER_20_API);
    page.push(b'\n');
    page
}

fn entries<const N: usize>(fields: [(&str, Json); N]) -> Vec<(String, Json)> {
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn familiar(references: &[&Reference]) -> Json {
    Json::Array(references.iter().map(|reference| reference.familiar().into()).collect())
}

fn time(stamp: Option<&Timestamp>) -> Json {
    stamp.map_or_else(|| Timestamp::zero().as_str().into(), |stamp| stamp.as_str().into())
}

/// The image's own comment, or that of its last step.
fn comment(known: &Json, config: &ImageConfig) -> String {
    match known.field("comment").and_then(Json::as_str) {
        Some(comment) if !comment.is_empty() => comment.to_owned(),
        _ => config.history.last().map(|step| step.comment.clone()).unwrap_or_default(),
    }
}

/// Docker takes an image that does not say for one of its own system.
fn os(os: &str) -> &str {
    if os.is_empty() { "linux" } else { os }
}

fn root_fs(rootfs: &Json) -> Json {
    let field = |name: &str| rootfs.field(name).cloned().unwrap_or(Json::Null);
    let mut fields = entries([("Type", field("type"))]);
    if !field("diff_ids").items().is_empty() {
        fields.extend(entries([("Layers", field("diff_ids"))]));
    }
    Json::Object(fields)
}

fn graph_driver(driver: &GraphDriver) -> Json {
    let data = driver.directories.as_ref().map_or(Json::Null, |directories| {
        let lower = Some(&directories.lower).filter(|lower| !lower.is_empty());
        let lower = lower.map(|lower| ("LowerDir".to_owned(), lower.as_str().into()));
        Json::map(lower.into_iter().chain(entries([
            ("MergedDir", directories.merged.as_str().into()),
            ("UpperDir", directories.upper.as_str().into()),
            ("WorkDir", directories.work.as_str().into()),
        ])))
    });
    Json::object([("Data", data), ("Name", driver.name.as_str().into())])
}

/// The stored state with its name in front; `Health` only where there is a check.
fn state(state: State, stored: &Json) -> Json {
    let mut fields = entries([("Status", state.name().into())]);
    for (name, value) in stored.entries() {
        match value {
            Json::Null => {}
            Json::Object(_) => fields.push((name.clone(), health(value))),
            value => fields.push((name.clone(), value.clone())),
        }
    }
    Json::Object(fields)
}

/// The state of the health check; moby takes one that was never written for unhealthy.
fn health(stored: &Json) -> Json {
    let field = |name: &str| stored.field(name).cloned().unwrap_or(Json::Null);
    let status = match field("Status") {
        Json::String(status) if !status.is_empty() => Json::String(status),
        _ => "unhealthy".into(),
    };
    Json::object([
        ("Status", status),
        ("FailingStreak", field("FailingStreak")),
        ("Log", Json::Array(field("Log").items().to_vec())),
    ])
}

fn mounts(stored: &Json, volumes: &str) -> Json {
    let mount = |(_, point): &(String, Json)| mount(point, volumes);
    Json::Array(stored.entries().iter().map(mount).collect())
}

fn mount(point: &Json, volumes: &str) -> Json {
    let text = |name: &str| point.field(name).and_then(Json::as_str).unwrap_or_default();
    let (name, driver) = (text("Name"), text("Driver"));
    let source = match text("Source") {
        "" if !name.is_empty() => format!("{volumes}/{name}/_data"),
        source => source.to_owned(),
    };
    let optional = |key: &'static str, value: &str| {
        (!value.is_empty()).then(|| (key.to_owned(), Json::from(value)))
    };
    let mut fields = entries([("Type", text("Type").into())]);
    fields.extend(optional("Name", name));
    fields
        .extend(entries([("Source", source.into()), ("Destination", text("Destination").into())]));
    fields.extend(optional("Driver", driver));
    fields.extend(entries([
        ("Mode", text("Relabel").into()),
        ("RW", point.field("RW").cloned().unwrap_or(Json::Null)),
        ("Propagation", text("Propagation").into()),
    ]));
    Json::Object(fields)
}

/// The stored settings, with those of the network `bridge` once more between them.
fn network_settings(stored: &Json) -> Json {
    let networks = stored.field("Networks").cloned().unwrap_or(Json::Null);
    let default = networks.entries().iter().find(|(name, _)| name == "bridge");
    let default = DEFAULT_NETWORK.read(default.map(|(_, network)| network));
    let mut fields = stored.entries().to_vec();
    fields.retain(|(name, _)| name != "Networks");
    for (name, value) in &mut fields {
        // Nothing published is an empty map, never null.
        if name == "Ports" && *value == Json::Null {
            *value = Json::Object(Vec::new());
        }
    }
    fields.extend(default.iter().flat_map(Json::entries).cloned());
    fields.extend(entries([("Networks", networks)]));
    Json::Object(fields)
}

/// What of an image's config is shown.
const IMAGE: Shape = Shape::Struct(&[
    Field::always("comment", Shape::String),
    Field::always("container", Shape::String),
    Field::always("container_config", config::DOCKER_20),
    Field::always("docker_version", Shape::String),
    Field::always("author", Shape::String),
    Field::always("config", Shape::Pointer(&config::DOCKER_20)),
    Field::always("architecture", Shape::String),
    Field::always("variant", Shape::String),
    Field::always("os.version", Shape::String),
    Field::always(
        "rootfs",
        Shape::Struct(&[Field::always("type", Shape::String), Field::always("diff_ids", STRINGS)]),
    ),
]);

const CONTAINER: Shape = Shape::Struct(&CONTAINER_FIELDS);

const CONTAINER_FIELDS: [Field; 22] = container_fields(&config::DOCKER_20, NETWORK_SETTINGS);

/// What of `config.v2.json` is shown, with this `Config` and these settings of networks.
const fn container_fields(config: &'static Shape, network: Shape) -> [Field; 22] {
    [
        Field::always("State", STATE),
        Field::always("ID", Shape::String),
        Field::always("Created", Shape::Time),
        Field::always("Path", Shape::String),
        Field::always("Args", STRINGS),
        Field::always("Config", Shape::Pointer(config)),
        Field::always("Image", Shape::String),
        Field::always("ImageManifest", Shape::Any),
        Field::always("ImagePlatform", Shape::Any),
        Field::always("NetworkSettings", network),
        Field::always("LogPath", Shape::String),
        Field::always("Name", Shape::String),
        Field::always("Driver", Shape::String),
        Field::always("OS", Shape::String),
        Field::always("MountLabel", Shape::String),
        Field::always("ProcessLabel", Shape::String),
        Field::always("RestartCount", Shape::Int),
        Field::always("MountPoints", Shape::Map(&MOUNT_POINT)),
        Field::always("AppArmorProfile", Shape::String),
        Field::always("HostnamePath", Shape::String),
        Field::always("HostsPath", Shape::String),
        Field::always("ResolvConfPath", Shape::String),
    ]
}

const STATE: Shape = Shape::Struct(&[
    Field::always("Running", Shape::Bool),
    Field::always("Paused", Shape::Bool),
    Field::always("Restarting", Shape::Bool),
    Field::always("OOMKilled", Shape::Bool),
    Field::always("Dead", Shape::Bool),
    Field::always("Pid", Shape::Int),
    Field::always("ExitCode", Shape::Int),
    Field::always("Error", Shape::String),
    Field::always("StartedAt", Shape::Time),
    Field::always("FinishedAt", Shape::Time),
    Field::always("Health", Shape::Pointer(&HEALTH)),
]);

const HEALTH: Shape = Shape::Struct(&[
    Field::always("Status", Shape::String),
    Field::always("FailingStreak", Shape::Int),
    Field::always(
        "Log",
        Shape::List(&Shape::Struct(&[
            Field::always("Start", Shape::Time),
            Field::always("End", Shape::Time),
            Field::always("ExitCode", Shape::Int),
            Field::always("Output", Shape::String),
        ])),
    ),
]);

const MOUNT_POINT: Shape = Shape::Struct(&[
    Field::always("Type", Shape::String),
    Field::always("Name", Shape::String),
    Field::always("Source", Shape::String),
    Field::always("Destination", Shape::String),
    Field::always("Driver", Shape::String),
    Field::always("Relabel", Shape::String),
    Field::always("RW", Shape::Bool),
    Field::always("Propagation", Shape::String),
]);

const NETWORK_SETTINGS: Shape = Shape::Struct(&[
    Field::always("Bridge", Shape::String),
    Field::always("SandboxID", Shape::String),
    Field::always("HairpinMode", Shape::Bool),
    Field::always("LinkLocalIPv6Address", Shape::String),
    Field::always("LinkLocalIPv6PrefixLen", Shape::Int),
    Field::always("Ports", Shape::Map(&Shape::Any)),
    Field::always("SandboxKey", Shape::String),
    Field::always("SecondaryIPAddresses", Shape::Any),
    Field::always("SecondaryIPv6Addresses", Shape::Any),
    Field::always("Networks", Shape::Map(&NETWORK)),
]);

const NETWORK: Shape = Shape::Struct(&[
    Field::always("IPAMConfig", Shape::Any),
    Field::always("Links", STRINGS),
    Field::always("Aliases", STRINGS),
    Field::always("NetworkID", Shape::String),
    Field::always("EndpointID", Shape::String),
    Field::always("Gateway", Shape::String),
    Field::always("IPAddress", Shape::String),
    Field::always("IPPrefixLen", Shape::Int),
    Field::always("IPv6Gateway", Shape::String),
    Field::always("GlobalIPv6Address", Shape::String),
    Field::always("GlobalIPv6PrefixLen", Shape::Int),
    Field::always("MacAddress", Shape::String),
    Field::always("DriverOpts", Shape::Map(&Shape::String)),
]);

const DEFAULT_NETWORK: Shape = Shape::Struct(&[
    Field::always("EndpointID", Shape::String),
    Field::always("Gateway", Shape::String),
    Field::always("GlobalIPv6Address", Shape::String),
    Field::always("GlobalIPv6PrefixLen", Shape::Int),
    Field::always("IPAddress", Shape::String),
    Field::always("IPPrefixLen", Shape::Int),
    Field::always("IPv6Gateway", Shape::String),
    Field::always("MacAddress", Shape::String),
]);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::store::Directories;
    use std::fs;

    const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/inspect");

    fn fixture(name: &str) -> Vec<u8> {
        fs::read(format!("{FIXTURES}/{name}")).unwrap()
    }

    /// overlay2's directories of the layer `upper`, upon those of `lower`, topmost first.
    fn overlay2(upper: &str, lower: &[&str]) -> GraphDriver {
        let path = |layer: &str, name: &str| format!("/tmp/docs/D/data/overlay2/{layer}/{name}");
        let lower: Vec<String> = lower.iter().map(|layer| path(layer, "diff")).collect();
        let directories = Directories {
            lower: lower.join(":"),
            merged: path(upper, "merged"),
            upper: path(upper, "diff"),
            work: path(upper, "work"),
        };
        GraphDriver { name: "overlay2".to_owned(), directories: Some(directories) }
    }

    const PLAIN: &str = "2fbe906f32f063fe43ee6a880556f39979fe1f56c27ef09db0051b24a757007d";
    const BUILT: &str = "2b30418fbaf5cdebe39db15364c9c0109329f7111c087213c7dbb0de3e4b633d";
    const ODD: &str = "9f7975bdf51c752ab8bd6ce4d8713a96e8e68c3f9af173c9a0832a84d865494e";

    #[test]
    fn an_image_is_shown_as_docker_shows_it() {
        let parent = |hex: &str| Some(ImageId::from_hex(hex).unwrap());
        for (name, references, parent, size, last_tagged, graph_driver) in [
            (
                "rich1",
                &["a.b/rich:2", "rich:1", "rich:2"][..],
                None,
                1_982_256,
                Timestamp::parse("2026-11-21T23:50:39.799185442Z"),
                overlay2(PLAIN, &[]),
            ),
            (
                "bld2",
                &["bld:2"],
                parent("dea612d51324d5ab45a99b6ceb418c1aa46d92dca6f92376888bbdb7b42f77b0"),
                1_982_345,
                Timestamp::parse("2026-11-21T23:47:40.131425136Z"),
                overlay2(BUILT, &[PLAIN]),
            ),
            (
                "com1",
                &["com:1"],
                parent("7f0db989ff471cf066273b1b187a98d4ee46caa2b81f322aac6e4bf8460be50f"),
                1_982_256,
                Timestamp::parse("2026-11-21T23:47:38.764523939Z"),
                overlay2(PLAIN, &[]),
            ),
            ("oddhist", &["odd:hist"], None, 1_982_257, None, overlay2(ODD, &[PLAIN])),
        ] {
            let bytes = fixture(&format!("{name}.config.json"));
            let references: Vec<_> =
                references.iter().map(|r| Reference::parse(r).unwrap()).collect();
            let shown = image(&Image {
                id: ImageId(Digest::of(&bytes)),
                config: &ImageConfig::parse(&bytes).unwrap(),
                references: &references,
                parent,
                size,
                last_tagged,
                graph_driver,
            });
            let expected = String::from_utf8(fixture(&format!("{name}.inspect.json"))).unwrap();
            assert_eq!(String::from_utf8(shown.unwrap()).unwrap(), expected);
        }
    }

    #[test]
    fn a_container_is_shown_as_docker_shows_it() {
        for (name, state, mount) in [
            (
                "cr1",
                State::Created,
                "49155a5d2b1431275118e6bd41588ba42b703941c77e3ec390ee794631603eb8",
            ),
            (
                "ex1",
                State::Exited,
                "338e743612652f0f9ddf5738a17709a9976a20571f2907a08046b94a85d4ba09",
            ),
            (
                "run1",
                State::Exited,
                "338a64073a01dd447baf9e8cefa4e61d9650fb92d19081c364cddf4a2d77d94a",
            ),
        ] {
            let init = format!("{mount}-init");
            let shown = container(&Container {
                config: &fixture(&format!("{name}.config.v2.json")),
                host_config: &fixture(&format!("{name}.hostconfig.json")),
                state,
                volumes: "/tmp/docs/D/data/volumes",
                graph_driver: overlay2(mount, &[&init, PLAIN]),
            });
            let expected = String::from_utf8(fixture(&format!("{name}.inspect.json"))).unwrap();
            assert_eq!(String::from_utf8(shown.unwrap()).unwrap(), expected);
        }
    }

    #[test]
    fn what_a_store_does_not_hold_is_shown_as_nothing() {
        let graph_driver = GraphDriver { name: "vfs".to_owned(), directories: None };
        let (config, host_config, volumes) = (b"{}".as_slice(), b"".as_slice(), "");
        let empty = Container { config, host_config, state: State::Created, volumes, graph_driver };
        let shown = String::from_utf8(container(&empty).unwrap()).unwrap();
        for line in
            ["\"HostConfig\": null,", "\"Data\": null,", "\"Mounts\": [],", "\"Config\": null,"]
        {
            assert!(shown.contains(line), "{line}");
        }
        assert!(container(&Container { config: b"[]", ..empty }).is_err());
    }
}

//! The same as Docker 29 shows it on containerd's image store.

use super::{
    Container, Image, comment, container_fields, described, entries, familiar, graph_driver, page,
    root_fs, time,
};
use crate::archive::config::{DOCKER_29, HEALTH};
use crate::error::Malformed;
use crate::json::shape::{Field, SET, STRINGS, Shape};
use crate::json::{self, Json};
use crate::reference::Reference;
use crate::store::{Descriptor, Stored};

/// What `docker image inspect` prints of an image in a content-addressed store. The command sorts
/// the keys of what it is told.
///
/// # Errors
/// Fails where Docker could not load the config: a field of another type.
pub fn image(
    image: &Image<'_>,
    target: &Descriptor,
    stored: &Stored,
) -> Result<Vec<u8>, Malformed> {
    let known = IMAGE.read(Some(&image.config.document))?;
    let field = |name: &str| known.field(name).cloned().unwrap_or(Json::Null);
    let optional =
        |name: &str, value: Json| (value.as_str() != Some("")).then(|| (name.to_owned(), value));
    let last_tag = Json::object([("LastTagTime", time(image.last_tagged.as_ref()))]);
    let references: Vec<&Reference> = image.references.iter().collect();
    let mut fields = entries([
        ("Architecture", field("architecture")),
        ("Author", field("author")),
        ("Comment", comment(&known, image.config).into()),
        ("Config", sorted(field("config"))),
        ("Created", time(image.config.created.as_ref())),
        ("Descriptor", descriptor(target)),
        ("DockerVersion", "".into()), // this store does not know it
        ("GraphDriver", graph_driver(&image.graph_driver)),
        ("Id", image.id.to_string().into()),
        ("Metadata", last_tag),
        ("Os", field("os")),
        ("Parent", image.parent.map(|id| id.to_string()).unwrap_or_default().into()),
        ("RepoDigests", repo_digests(image.references, target)),
        ("RepoTags", familiar(&references)),
        ("RootFS", sorted(root_fs(&field("rootfs")))),
        ("Size", stored.size.into()),
    ]);
    fields.extend(optional("Variant", field("variant")));
    fields.extend(optional("OsVersion", field("os.version")));
    Ok(page(Json::map(fields)))
}

/// The target under the name of each repository.
fn repo_digests(references: &[Reference], target: &Descriptor) -> Json {
    let mut digests: Vec<Json> = Vec::new();
    for reference in references {
        let digest = Some(target.digest);
        let text = Reference { name: reference.name.clone(), tag: None, digest }.familiar();
        if digests.iter().all(|known| known.as_str() != Some(&text)) {
            digests.push(text.into());
        }
    }
    Json::Array(digests)
}

fn descriptor(target: &Descriptor) -> Json {
    let mut fields = entries([
        ("digest", target.digest.to_string().into()),
        ("mediaType", target.media_type.as_str().into()),
        ("size", target.size.into()),
    ]);
    if !target.annotations.is_empty() {
        let annotations = target.annotations.iter();
        let annotations = annotations.map(|(key, value)| (key.clone(), value.as_str().into()));
        fields.push(("annotations".to_owned(), Json::map(annotations)));
    }
    Json::map(fields)
}

/// An object by its keys.
fn sorted(object: Json) -> Json {
    match object {
        Json::Object(fields) => Json::map(fields),
        other => other,
    }
}

/// What `docker inspect` prints of a container. Its mounts, which Docker shows in random order, are
/// sorted by destination.
///
/// # Errors
/// Fails where the files are no JSON, or have a field of another type.
pub fn container(container: &Container<'_>) -> Result<Vec<u8>, Malformed> {
    let stored = CONTAINER.read(Some(&json::parse(container.config)?))?;
    let field = |name: &str| stored.field(name).cloned().unwrap_or(Json::Null);
    let mut fields = described(container, &stored, network_settings)?;
    if let Json::Object(mut manifest) = field("ImageManifest") {
        let platform = field("ImagePlatform");
        if platform != Json::Null && manifest.iter().all(|(name, _)| name != "platform") {
            manifest.push(("platform".to_owned(), platform));
        }
        fields.extend(entries([("ImageManifestDescriptor", Json::Object(manifest))]));
    }
    Ok(page(Json::Object(fields)))
}

/// Nothing published is an empty map, never null.
fn network_settings(stored: &Json) -> Json {
    let field = |name: &str| stored.field(name).cloned().unwrap_or(Json::Null);
    let ports = match field("Ports") {
        Json::Null => Json::Object(Vec::new()),
        ports => ports,
    };
    Json::object([
        ("SandboxID", field("SandboxID")),
        ("SandboxKey", field("SandboxKey")),
        ("Ports", ports),
        ("Networks", field("Networks")),
    ])
}

/// What of an image's config is shown (moby api/types/image, `DockerOCIImageConfig`).
const IMAGE: Shape = Shape::Struct(&[
    Field::always("comment", Shape::String),
    Field::always("author", Shape::String),
    Field::always("config", IMAGE_CONFIG),
    Field::always("architecture", Shape::String),
    Field::always("variant", Shape::String),
    Field::always("os", Shape::String),
    Field::always("os.version", Shape::String),
    Field::always(
        "rootfs",
        Shape::Struct(&[Field::always("type", Shape::String), Field::always("diff_ids", STRINGS)]),
    ),
]);

const IMAGE_CONFIG: Shape = Shape::Struct(&[
    Field::always("User", Shape::String),
    Field::unless_empty("ExposedPorts", SET),
    Field::always("Env", STRINGS),
    Field::always("Entrypoint", Shape::Words),
    Field::always("Cmd", Shape::Words),
    Field::always("Volumes", SET),
    Field::always("WorkingDir", Shape::String),
    Field::always("Labels", Shape::Map(&Shape::String)),
    Field::unless_empty("StopSignal", Shape::String),
    Field::unless_empty("ArgsEscaped", Shape::Bool),
    Field::unless_empty("Healthcheck", Shape::Pointer(&HEALTH)),
    Field::always("OnBuild", STRINGS),
    Field::unless_empty("Shell", Shape::Words),
]);

const CONTAINER: Shape = Shape::Struct(&CONTAINER_FIELDS);

const CONTAINER_FIELDS: [Field; 22] = container_fields(&DOCKER_29, NETWORK_SETTINGS);

const NETWORK_SETTINGS: Shape = Shape::Struct(&[
    Field::always("SandboxID", Shape::String),
    Field::always("SandboxKey", Shape::String),
    Field::always("Ports", Shape::Map(&Shape::Any)),
    Field::always("Networks", Shape::Map(&NETWORK)),
]);

const NETWORK: Shape = Shape::Struct(&[
    Field::always("IPAMConfig", Shape::Any),
    Field::always("Links", STRINGS),
    Field::always("Aliases", STRINGS),
    Field::always("DriverOpts", Shape::Map(&Shape::String)),
    Field::always("GwPriority", Shape::Int),
    Field::always("NetworkID", Shape::String),
    Field::always("EndpointID", Shape::String),
    Field::always("Gateway", Shape::String),
    Field::always("IPAddress", Shape::String),
    Field::always("MacAddress", Shape::String),
    Field::always("IPPrefixLen", Shape::Int),
    Field::always("IPv6Gateway", Shape::String),
    Field::always("GlobalIPv6Address", Shape::String),
    Field::always("GlobalIPv6PrefixLen", Shape::Int),
    Field::always("DNSNames", STRINGS),
]);

//! Docker's Go types: the `Config` of an image or a container, which is how it is run, and the V1
//! image around it.

use crate::json::shape::{Field, SET, STRINGS, Shape};

/// `container.Config` of Docker 20.10.
pub const DOCKER_20: Shape = Shape::Struct(&FIELDS_20);

/// `container.Config` of Docker 25 to 28: a health check may have a `StartInterval`.
pub const DOCKER_28: Shape = Shape::Struct(&FIELDS_28);

/// `container.Config` of Docker 29: no `MacAddress`, and `OnBuild` only where there is one.
pub const DOCKER_29: Shape = Shape::Struct(&[
    Field::always("Hostname", Shape::String),
    Field::always("Domainname", Shape::String),
    Field::always("User", Shape::String),
    Field::always("AttachStdin", Shape::Bool),
    Field::always("AttachStdout", Shape::Bool),
    Field::always("AttachStderr", Shape::Bool),
    Field::unless_empty("ExposedPorts", Shape::Ports),
    Field::always("Tty", Shape::Bool),
    Field::always("OpenStdin", Shape::Bool),
    Field::always("StdinOnce", Shape::Bool),
    Field::always("Env", STRINGS),
    Field::always("Cmd", Shape::Words),
    Field::unless_empty("Healthcheck", Shape::Pointer(&HEALTH)),
    Field::unless_empty("ArgsEscaped", Shape::Bool),
    Field::always("Image", Shape::String),
    Field::always("Volumes", SET),
    Field::always("WorkingDir", Shape::String),
    Field::always("Entrypoint", Shape::Words),
    Field::unless_empty("NetworkDisabled", Shape::Bool),
    Field::unless_empty("OnBuild", STRINGS),
    Field::always("Labels", Shape::Map(&Shape::String)),
    Field::unless_empty("StopSignal", Shape::String),
    Field::unless_empty("StopTimeout", Shape::Pointer(&Shape::Int)),
    Field::unless_empty("Shell", Shape::Words),
]);

const FIELDS_20: [Field; 25] = up_to_28(&Shape::Struct(&HEALTH_20));

const FIELDS_28: [Field; 25] = up_to_28(&Shape::Struct(&HEALTH_29));

/// The fields up to Docker 28, with this health check.
const fn up_to_28(health: &'static Shape) -> [Field; 25] {
    [
        Field::always("Hostname", Shape::String),
        Field::always("Domainname", Shape::String),
        Field::always("User", Shape::String),
        Field::always("AttachStdin", Shape::Bool),
        Field::always("AttachStdout", Shape::Bool),
        Field::always("AttachStderr", Shape::Bool),
        Field::unless_empty("ExposedPorts", SET),
        Field::always("Tty", Shape::Bool),
        Field::always("OpenStdin", Shape::Bool),
        Field::always("StdinOnce", Shape::Bool),
        Field::always("Env", STRINGS),
        Field::always("Cmd", Shape::Words),
        Field::unless_empty("Healthcheck", Shape::Pointer(health)),
        Field::unless_empty("ArgsEscaped", Shape::Bool),
        Field::always("Image", Shape::String),
        Field::always("Volumes", SET),
        Field::always("WorkingDir", Shape::String),
        Field::always("Entrypoint", Shape::Words),
        Field::unless_empty("NetworkDisabled", Shape::Bool),
        Field::unless_empty("MacAddress", Shape::String),
        Field::always("OnBuild", STRINGS),
        Field::always("Labels", Shape::Map(&Shape::String)),
        Field::unless_empty("StopSignal", Shape::String),
        Field::unless_empty("StopTimeout", Shape::Pointer(&Shape::Int)),
        Field::unless_empty("Shell", Shape::Words),
    ]
}

/// A health check of Docker 25 and later.
pub const HEALTH: Shape = Shape::Struct(&HEALTH_29);

const HEALTH_20: [Field; 5] = [
    Field::unless_empty("Test", STRINGS),
    Field::unless_empty("Interval", Shape::Int),
    Field::unless_empty("Timeout", Shape::Int),
    Field::unless_empty("StartPeriod", Shape::Int),
    Field::unless_empty("Retries", Shape::Int),
];

const HEALTH_29: [Field; 6] = [
    Field::unless_empty("Test", STRINGS),
    Field::unless_empty("Interval", Shape::Int),
    Field::unless_empty("Timeout", Shape::Int),
    Field::unless_empty("StartPeriod", Shape::Int),
    Field::unless_empty("StartInterval", Shape::Int),
    Field::unless_empty("Retries", Shape::Int),
];

/// `image.V1Image` of Docker 20.10, without `id` and `parent`.
pub const V1_IMAGE_20: Shape = Shape::Struct(&V1_FIELDS_20);

/// `image.V1Image` of Docker 25 to 28: `created` may be null.
pub const V1_IMAGE_28: Shape = Shape::Struct(&V1_FIELDS_28);

/// `image.V1Image` of Docker 29: another `Config`.
pub const V1_IMAGE_29: Shape = Shape::Struct(&V1_FIELDS_29);

const V1_FIELDS_20: [Field; 11] = v1_image(Shape::Time, &DOCKER_20);

const V1_FIELDS_28: [Field; 11] = v1_image(Shape::Pointer(&Shape::Time), &DOCKER_28);

const V1_FIELDS_29: [Field; 11] = v1_image(Shape::Pointer(&Shape::Time), &DOCKER_29);

/// The fields of a `V1Image` with this `created` and this `Config`.
const fn v1_image(created: Shape, config: &'static Shape) -> [Field; 11] {
    [
        Field::unless_empty("comment", Shape::String),
        Field::always("created", created),
        Field::unless_empty("container", Shape::String),
        Field::always("container_config", *config),
        Field::unless_empty("docker_version", Shape::String),
        Field::unless_empty("author", Shape::String),
        Field::unless_empty("config", Shape::Pointer(config)),
        Field::unless_empty("architecture", Shape::String),
        Field::unless_empty("variant", Shape::String),
        Field::unless_empty("os", Shape::String),
        Field::unless_empty("Size", Shape::Int),
    ]
}

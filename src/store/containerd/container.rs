//! One container: Docker's own files tell of it, or containerd's record.

use super::names::Images;
use super::records::ContainerRecord;
use super::snapshots::Snapshotter;
use super::state::State;
use crate::digest::{ContainerId, Digest, ImageId};
use crate::error::{Error, Result};
use crate::store::docker::containers;
use crate::store::docker::records::Era;
use crate::store::names::is_container_name;
use crate::store::{Container, ContainerSummary, State as Doing};

/// Reads a container that Docker with the data root `docker` manages.
pub(super) fn read_docker(state: &State<'_>, id: ContainerId) -> Result<Container> {
    let missing = || Error::not_found(id.hex());
    let root = state.roots.containers.as_ref().ok_or_else(missing)?;
    let (record, config) = containers::record(root, id, Era::Content)?;
    let snapshotter = Snapshotter::named(&record.driver).ok_or_else(missing)?;
    let files = state.container_files(snapshotter, &id.hex(), state.manner.remapped.clone())?;
    let doing = match (&files, record.state) {
        // Docker 28.2 and later keep no mark of a removal on disk: the files go first.
        (None, Doing::Dead) => Doing::Dead,
        (None, _) => Doing::Removing,
        (Some(_), doing) => doing,
    };
    let (directory, dirs, init_dirs) =
        files.map(|it| (it.directory, it.dirs, it.init_dirs)).unwrap_or_default();
    Ok(Container {
        id,
        name: record.name,
        image: record.image,
        image_name: record.image_name,
        created: record.created,
        state: doing,
        pid: record.pid,
        config: config.into(),
        host_config: containers::host_config(root, id)?.into(),
        directory,
        dirs,
        init_dirs,
        mounts: record.mounts,
        home: record.home,
    })
}

/// Reads a container of containerd itself. Whether it runs is not on disk: it shows as created.
pub(super) fn read(state: &State<'_>, id: ContainerId) -> Result<Container> {
    let found = records(state).find(|(own_id, _)| container_id(state, own_id) == id);
    let (own_id, record) = found.ok_or_else(|| Error::not_found(id.hex()))?;
    let snapshotter = Snapshotter::named(&record.snapshotter).ok_or_else(|| {
        let what = format!("snapshotter {:?}", record.snapshotter);
        Error::unsupported(format!("container {own_id}"), what)
    })?;
    let files = state.container_files(snapshotter, &record.snapshot, record.ids())?;
    let doing = if files.is_some() { Doing::Created } else { Doing::Removing };
    let (directory, dirs, init_dirs) =
        files.map(|it| (it.directory, it.dirs, it.init_dirs)).unwrap_or_default();
    let images = Images::read(state);
    Ok(Container {
        id,
        name: name(own_id, &record),
        image: image(&images, &record),
        created: record.created.map(|it| it.as_str().to_owned()).unwrap_or_default(),
        image_name: record.image,
        state: doing,
        pid: None,
        config: record.spec.into(),
        host_config: Vec::new().into(),
        directory,
        dirs,
        init_dirs,
        mounts: Vec::new(),
        home: None,
    })
}

/// Lists the containers of containerd itself.
pub(super) fn list(state: &State<'_>, images: &Images) -> Vec<ContainerSummary> {
    let mut containers: Vec<ContainerSummary> = Vec::new();
    for (own_id, record) in records(state) {
        let mut name = name(own_id, &record);
        if containers.iter().any(|other| other.name == name) {
            own_id.clone_into(&mut name);
        }
        let image = image(images, &record);
        let id = container_id(state, own_id);
        containers.push(ContainerSummary { id, name, image, pod: record.pod });
    }
    containers
}

/// The IDs and records of the containers whose files containerd manages.
fn records<'a>(state: &'a State<'_>) -> impl Iterator<Item = (&'a str, ContainerRecord)> {
    let containers = state.bucket(&[b"containers"]).into_iter().flat_map(|it| it.buckets());
    containers.filter_map(|(id, bucket)| {
        let id = std::str::from_utf8(id).ok().filter(|id| is_container_name(id))?;
        Some((id, ContainerRecord::parse(bucket)?))
    })
}

/// The ID where it is one of 64 hex digits, as those of Kubernetes and nerdctl are; else one that is
/// made of it.
fn container_id(state: &State<'_>, own_id: &str) -> ContainerId {
    let made = || ContainerId(Digest::of(format!("{}/{own_id}", state.namespace).as_bytes()));
    ContainerId::from_hex(own_id).unwrap_or_else(|_| made())
}

/// The name that nerdctl gave it, or else its ID.
fn name(own_id: &str, record: &ContainerRecord) -> String {
    let given = record.nerdctl_name.as_deref().filter(|name| is_container_name(name));
    given.unwrap_or(own_id).to_owned()
}

fn image(images: &Images, record: &ContainerRecord) -> Option<ImageId> {
    let image = images.records.iter().find(|image| image.name == record.image)?;
    Some(ImageId(image.target.digest))
}

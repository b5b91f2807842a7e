//! All names of a store at one moment, and what tells when they may have changed.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::image::config_path;
use super::layers::{self, read_list};
use super::libpod::Libpod;
use super::lists;
use super::records::{self, ContainerRecord, ImageRecord, List};
use super::roots::Roots;
use crate::backing::{FileKind, Root};
use crate::digest::{ContainerId, ImageId};
use crate::error::{Error, Result};
use crate::store::files::{JSON_MAX, required};
use crate::store::stamp::{Stamp, Taking};
use crate::store::volumes;
use crate::store::{Catalog, ContainerSummary};

/// The list of images.
const IMAGES: &str = "images.json";

/// The lists of containers: those that outlive a restart of the host, and the others.
const CONTAINERS: [&str; 2] = ["containers.json", "volatile-containers.json"];

/// A stamp of all that is listed: the engine replaces a list with every change.
pub(super) fn stamp(roots: &Roots) -> Stamp {
    let mut taking = Taking::default();
    roots.parts.iter().for_each(|part| taking.add(part.images.stat(IMAGES)));
    for list in CONTAINERS {
        if let Some(containers) = &roots.containers {
            taking.add(containers.stat(list));
        }
    }
    volumes::stamp(roots.volumes.as_ref(), &mut taking);
    taking.merge(layers::stamp(roots));
    taking.finish()
}

/// Reads all names. A list that is damaged takes its own entries along, and no others.
pub(super) fn read(roots: &Roots, libpod: &Libpod) -> Catalog {
    let mut catalog = Catalog { damaged: roots.missing.clone(), ..Catalog::default() };
    for (at, part) in roots.parts.iter().enumerate() {
        read_images(&part.images, at > 0, &mut catalog);
    }
    if let Some(containers) = &roots.containers {
        let mut taken = BTreeSet::new();
        for name in CONTAINERS {
            read_containers(containers, name, libpod, &mut taken, &mut catalog);
        }
    }
    match volumes::names(roots.volumes.as_ref()) {
        Ok(names) => catalog.volumes = names,
        Err(err) => catalog.damaged.push(Arc::new(err)),
    }
    catalog
}

/// The entries of a list; its damage goes into the catalog.
fn entries<T>(
    root: &Root,
    name: &str,
    parse: impl Fn(&[u8]) -> Result<List<T>, String>,
    catalog: &mut Catalog,
) -> Vec<T> {
    let damaged = &mut catalog.damaged;
    match read_list(root, name, parse) {
        Ok(list) => {
            let path = root.path().join(name);
            let rejected = list.rejected.into_iter();
            damaged.extend(rejected.map(|why| Arc::new(Error::corrupt(&path, why))));
            list.entries
        }
        Err(err) => {
            damaged.push(Arc::new(err));
            Vec::new()
        }
    }
}

/// Reads the names of one store. In one whose images another store uses as well, what that one has
/// itself is left out, as its engine does.
fn read_images(root: &Root, is_additional: bool, catalog: &mut Catalog) {
    let path = root.path().join(IMAGES);
    for image in entries(root, IMAGES, records::images, catalog) {
        if let Err(err) = check_config(root, &image) {
            catalog.damaged.push(Arc::new(err));
            continue;
        }
        catalog.images.insert(image.id, None);
        for name in image.names {
            if is_additional && catalog.references.contains_key(&name) {
                continue;
            }
            let earlier = catalog.references.insert(name.clone(), image.id);
            if earlier.is_some_and(|earlier| earlier != image.id) {
                let err = Error::corrupt(&path, format!("{name} names two images"));
                catalog.damaged.push(Arc::new(err));
            }
        }
        let nameless = image.nameless.into_iter();
        let why = |name| Arc::new(Error::corrupt(&path, format!("no reference: {name:?}")));
        catalog.damaged.extend(nameless.map(why));
    }
}

fn check_config(root: &Root, image: &ImageRecord) -> Result<()> {
    if !image.has_config {
        return lists::read(root, image.id).map(drop);
    }
    let path = config_path(image.id);
    let stat = required(root.stat(&path))?;
    match stat.kind == FileKind::Regular && stat.size <= JSON_MAX {
        true => Ok(()),
        false => {
            let why = format!("not a file of at most {JSON_MAX} bytes");
            Err(Error::corrupt(root.path().join(path), why))
        }
    }
}

fn read_containers(
    root: &Root,
    list: &str,
    libpod: &Libpod,
    taken: &mut BTreeSet<String>,
    catalog: &mut Catalog,
) {
    for container in entries(root, list, records::containers, catalog) {
        if !taken.insert(container.name.clone()) || !taken.insert(container.id.hex()) {
            let why = format!("{}: another container has its name or ID", container.name);
            catalog.damaged.push(Arc::new(Error::corrupt(root.path().join(list), why)));
            continue;
        }
        let ContainerRecord { id, name, image, pod, .. } = container;
        let pod = pod.or_else(|| libpod.container(id)?.pod.clone());
        catalog.containers.push(ContainerSummary { id, name, image, pod });
    }
}

/// The entries of all images of the store, and of those whose images it uses as well.
pub(super) fn all_images(roots: &Roots) -> Result<Vec<ImageRecord>> {
    let mut all = Vec::new();
    for part in &roots.parts {
        all.extend(read_list(&part.images, IMAGES, records::images)?.entries);
    }
    Ok(all)
}

/// The entry of the image `id`.
///
/// # Errors
/// ENOENT where there is none.
pub(super) fn find_image(roots: &Roots, id: ImageId) -> Result<ImageRecord> {
    for part in &roots.parts {
        let list = read_list(&part.images, IMAGES, records::images)?;
        if let Some(found) = list.entries.into_iter().find(|image| image.id == id) {
            return Ok(found);
        }
    }
    Err(Error::not_found(id.to_string()))
}

/// The entry of the container `id`.
///
/// # Errors
/// ENOENT where there is none.
pub(super) fn find_container(roots: &Roots, id: ContainerId) -> Result<ContainerRecord> {
    let missing = || Error::not_found(id.hex());
    let root = roots.containers.as_ref().ok_or_else(missing)?;
    for name in CONTAINERS {
        let list = read_list(root, name, records::containers)?;
        if let Some(found) = list.entries.into_iter().find(|container| container.id == id) {
            return Ok(found);
        }
    }
    Err(missing())
}

//! The directory `containers` of a data root: one directory per container, whichever store keeps
//! its files.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::records::{self, ContainerRecord, Era};
use crate::backing::{Dir, Root, Watched};
use crate::digest::ContainerId;
use crate::error::{Error, Result};
use crate::store::files::{JSON_MAX, if_found};
use crate::store::stamp::Taking;
use crate::store::{Catalog, ContainerSummary};

/// Takes all that a listing is read from into a stamp.
pub(in crate::store) fn stamp(containers: &Root, era: Era, taking: &mut Taking) -> Result<()> {
    for name in names(&containers.dir("")?)? {
        taking.add_name(&name);
        taking.add(containers.stat(Path::new(&name).join(era.container_file())));
    }
    Ok(())
}

/// The directories to watch for it. What a container says goes to a log beside its record, which
/// Docker replaces or closes whenever it is written.
pub(in crate::store) fn watched(containers: &Root) -> Result<Vec<Watched>> {
    let top = containers.dir("")?;
    let mut watched = Vec::new();
    for name in names(&top)? {
        match containers.dir(&name) {
            Ok(dir) => watched.push(Watched::Names(dir)),
            Err(err) if err.is_not_found() || err.is_misplaced() => {}
            Err(err) => return Err(err),
        }
    }
    watched.push(Watched::Names(top));
    Ok(watched)
}

/// The names in `dir` that are text, sorted.
pub(in crate::store) fn names(dir: &Dir) -> Result<Vec<String>> {
    let entries = dir.names()?.into_iter();
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.name.into_string().ok()).collect();
    names.sort();
    Ok(names)
}

/// Lists the containers whose files the driver has that `is_ours` accepts. Docker lists no others
/// either (moby daemon/daemon.go, `restore`).
pub(in crate::store) fn list(
    containers: &Root,
    era: Era,
    is_ours: impl Fn(&str) -> bool,
    catalog: &mut Catalog,
) -> Result<()> {
    let mut taken = BTreeSet::new();
    for directory in names(&containers.dir("")?)? {
        let path = containers.path().join(&directory);
        let found = match ContainerId::from_hex(&directory) {
            Ok(id) => record(containers, id, era).map(|(record, _)| (id, record)),
            Err(_) => Err(Error::corrupt(path.clone(), "not a container ID")),
        };
        match found {
            Ok((_, record)) if !is_ours(&record.driver) => {}
            Ok((id, record)) if taken.insert(record.name.clone()) => {
                let (name, image) = (record.name, record.image);
                catalog.containers.push(ContainerSummary { id, name, image, pod: None });
            }
            Ok(_) => {
                let err = Error::corrupt(path, "another container has the same name");
                catalog.damaged.push(Arc::new(err));
            }
            Err(err) => catalog.damaged.push(Arc::new(err)),
        }
    }
    Ok(())
}

/// What describes the container `id`, parsed and as it is.
///
/// # Errors
/// ENOENT where there is no such container, busy where it is half removed.
pub(in crate::store) fn record(
    containers: &Root,
    id: ContainerId,
    era: Era,
) -> Result<(ContainerRecord, Vec<u8>)> {
    let path = format!("{}/{}", id.hex(), era.container_file());
    let Some(json) = if_found(containers.read(&path, JSON_MAX))? else {
        let Some(_) = if_found(containers.stat(id.hex()))? else {
            return Err(Error::not_found(id.hex()));
        };
        return Err(Error::busy(containers.path().join(path), "missing, so it is being removed"));
    };
    match records::container(id, &json, era) {
        Ok(record) => Ok((record, json)),
        Err(why) => Err(Error::corrupt(containers.path().join(path), why)),
    }
}

/// The `hostconfig.json` of the container `id`; empty where there is none.
pub(in crate::store) fn host_config(containers: &Root, id: ContainerId) -> Result<Vec<u8>> {
    let json = containers.read(format!("{}/hostconfig.json", id.hex()), JSON_MAX);
    Ok(if_found(json)?.unwrap_or_default())
}

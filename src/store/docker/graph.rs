//! The graph of Docker to 1.9: a directory for each image, which is one layer upon its parent
//! (moby 1.9 graph/graph.go).
//!
//! Nothing there tells a digest, and none is worked out here: an image's random ID stands in for the
//! diff ID of its layer, and its description for a config ([`Image::descriptions`]). The driver names
//! its directories by the same IDs.

use std::collections::HashSet;
use std::sync::Arc;

use serde::Deserialize;

use super::container::Files;
use super::containers::names as listed;
use super::image::parse_size;
use super::named::names;
use super::roots::Roots;
use crate::backing::Root;
use crate::digest::{ChainId, ContainerId, DiffId, Digest, ImageId};
use crate::error::{Error, Result};
use crate::oci::migrate::migrate_chain;
use crate::store::config::LAYERS_MAX;
use crate::store::driver::{DirId, Driver, Home};
use crate::store::files::{JSON_MAX, if_found, value};
use crate::store::stamp::Taking;
use crate::store::{Catalog, Description, Image, Layer, LayerSource};

/// The directory of all images.
pub(super) const GRAPH: &str = "graph";

/// What the name of the list of references begins with; the driver's name follows.
pub(super) const REPOSITORIES: &str = "repositories-";

/// The record of a layer's tar, from 1.8 on.
const TAR_DATA: &str = "tar-data.json.gz";

/// The drivers of that time, as Docker prefers them (1.9 daemon/graphdriver).
const DRIVERS: [&str; 6] = ["aufs", "btrfs", "zfs", "devicemapper", "overlay", "vfs"];

/// The driver of the graph in a data root: the one whose names changed last, or where there are no
/// names one that has a directory. `None` where there is no graph.
pub(super) fn newest_driver(data: &Root) -> Result<Option<String>> {
    if !if_found(data.stat(GRAPH))?.is_some_and(|graph| graph.is_dir()) {
        return Ok(None);
    }
    let entries = data.dir("")?.names()?.into_iter();
    let lists = entries.filter_map(|entry| entry.name.into_string().ok());
    let named = lists.filter_map(|list| {
        let driver = list.strip_prefix(REPOSITORIES)?.to_owned();
        Some((data.stat(&list).ok()?.mtime, driver))
    });
    let unnamed = || DRIVERS.into_iter().find(|driver| data.stat(driver).is_ok());
    Ok(named.max().map(|(_, driver)| driver).or_else(|| unnamed().map(str::to_owned)))
}

/// Takes all that images are listed from into a stamp.
pub(super) fn stamp(graph: &Root, taking: &mut Taking) -> Result<()> {
    for name in listed(&graph.dir("")?)? {
        taking.add_name(&name);
        taking.add(graph.stat(&name));
        taking.add(graph.stat(format!("{name}/json")));
        taking.add(graph.stat(format!("{name}/parent")));
    }
    Ok(())
}

/// Lists the images whose layers the driver has. Docker passes over the others, too: the graph of a
/// data root is the same for all drivers that were ever used there.
pub(super) fn list(roots: &Roots, driver: Driver, catalog: &mut Catalog) -> Result<()> {
    let (graph, home) = (&roots.image, roots.home()?);
    for name in listed(&graph.dir("")?)? {
        if name.starts_with(['_', '.']) {
            continue; // `_tmp`, where images are made
        }
        let found = match (Digest::from_hex(&name), DirId::parse(&name)) {
            (Ok(id), Some(dir)) => match if_found(home.stat(driver.directory(&dir))) {
                Ok(None) => continue,
                Ok(Some(_)) => Described::read(graph, id),
                Err(err) => Err(err),
            },
            _ => Err(Error::corrupt(graph.path().join(name), "not an image ID")),
        };
        match found {
            Ok(found) => {
                catalog.images.insert(ImageId(found.own.id), found.parent.map(ImageId));
            }
            Err(err) => catalog.damaged.push(Arc::new(err)),
        }
    }
    Ok(())
}

/// What the graph says of one image.
#[derive(Debug)]
struct Described {
    own: Description,
    parent: Option<Digest>,
    /// Bytes of its files, as its description has it.
    size: u64,
}

impl Described {
    /// Reads what is said of the image `id`, which must be of that one.
    fn read(graph: &Root, id: Digest) -> Result<Described> {
        #[derive(Deserialize)]
        struct File {
            id: String,
            parent: Option<String>,
            /// From 1.9 on, of images that were pulled: with `sha256:`.
            parent_id: Option<String>,
            #[serde(rename = "Size")]
            size: Option<i64>,
        }
        let path = format!("{}/json", id.hex());
        let corrupt = |why: String| Error::corrupt(graph.path().join(&path), why);
        let json = match if_found(graph.read(&path, JSON_MAX))? {
            Some(json) => json,
            None if if_found(graph.stat(id.hex()))?.is_none() => {
                return Err(Error::not_found(id.hex()));
            }
            None => return Err(corrupt("missing".to_owned())),
        };
        let file: File = serde_json::from_slice(&json).map_err(|err| corrupt(err.to_string()))?;
        if Digest::from_hex(&file.id) != Ok(id) {
            return Err(corrupt("describes another image".to_owned()));
        }
        let noted =
            value(graph, &format!("{}/parent", id.hex()), |text| Digest::from_hex(text).ok());
        let text = |field: Option<String>| field.filter(|text| !text.is_empty());
        let parent = match (if_found(noted)?, text(file.parent), text(file.parent_id)) {
            (Some(noted), _, _) => Some(Ok(noted)),
            (None, Some(parent), _) => Some(Digest::from_hex(&parent)),
            (None, None, parent_id) => parent_id.map(|id| Digest::parse(&id)),
        };
        let parent = parent.transpose().map_err(|_| corrupt("its parent is no ID".to_owned()))?;
        let size = file.size.and_then(|size| size.try_into().ok()).unwrap_or(0);
        Ok(Described { own: Description { id, json: json.into() }, parent, size })
    }
}

/// The image `id` and all below it, lowest first.
fn chain(graph: &Root, id: ImageId) -> Result<Vec<Described>> {
    let corrupt = |why: String| Error::corrupt(graph.path().join(id.hex()), why);
    let (mut chain, mut seen, mut bytes) = (Vec::<Described>::new(), HashSet::new(), 0);
    let mut next = Some(id.0);
    while let Some(id) = next {
        if !seen.insert(id) {
            return Err(corrupt("the parents form a loop".to_owned()));
        }
        let described = match Described::read(graph, id) {
            Err(err) if err.is_not_found() && !chain.is_empty() => {
                return Err(corrupt(format!("the parent {} is missing", id.hex())));
            }
            described => described?,
        };
        bytes += described.own.json.len() as u64;
        if seen.len() > LAYERS_MAX || bytes > JSON_MAX {
            return Err(corrupt(format!("more than {LAYERS_MAX} layers or {JSON_MAX} bytes")));
        }
        next = described.parent;
        chain.push(described);
    }
    chain.reverse();
    Ok(chain)
}

/// The config that Docker from 1.10 on would make of the image `id`, but for its diff IDs.
pub(super) fn config(graph: &Root, id: ImageId) -> Result<Vec<u8>> {
    migrated(graph, id, &chain(graph, id)?)
}

fn migrated(graph: &Root, id: ImageId, chain: &[Described]) -> Result<Vec<u8>> {
    let layers = chain.iter().map(|it| (&*it.own.json, DiffId(it.own.id)));
    migrate_chain(layers)
        .map_err(|why| Error::corrupt(graph.path().join(id.hex()).join("json"), why.to_string()))
}

/// The image `id` with its layers.
pub(super) fn image(roots: &Roots, home: &mut Home<'_>, id: ImageId) -> Result<Image> {
    let graph = &roots.image;
    let chain = chain(graph, id)?;
    let mut layers: Vec<Layer> = Vec::with_capacity(chain.len());
    for described in &chain {
        let diff_id = DiffId(described.own.id);
        let chain_id = ChainId::of(layers.last().map(|layer| layer.chain_id), diff_id);
        let directory = described.own.id.hex();
        let record = format!("{directory}/{TAR_DATA}");
        let source = match if_found(graph.stat(&record))? {
            Some(_) => LayerSource::Undigested { root: Arc::clone(graph), path: record.into() },
            None => LayerSource::Missing,
        };
        let size = if_found(value(graph, &format!("{directory}/layersize"), parse_size))?;
        let dirs = home.image_layer(&dir_id(&described.own.id, "")?, layers.len())?;
        let size = size.unwrap_or(described.size);
        layers.push(Layer { diff_id, chain_id, size, directory, dirs, source });
    }
    Ok(Image {
        id,
        config: migrated(graph, id, &chain)?.into(),
        layers,
        parent: chain.last().and_then(|top| top.parent).map(ImageId),
        last_tagged: None,
        references: names(roots, id),
        target: None,
        platforms: Vec::new(),
        stored: None,
        descriptions: chain.into_iter().map(|described| described.own).collect(),
    })
}

/// The files of the container `id`, whose directories are named after it; `None` where they are gone.
pub(super) fn files(
    home: &mut Home<'_>,
    id: ContainerId,
    image: Option<ImageId>,
) -> Result<Option<Files>> {
    let own = dir_id(&id.0, "")?;
    let Some(upper) = if_found(home.writable(&own))? else { return Ok(None) };
    let init = dir_id(&id.0, "-init")?;
    // Below the writable layer lies the init layer; before there were any, the image.
    let lower = match (home.has(&init)?, image) {
        (true, _) => Some(init),
        (false, Some(image)) => Some(dir_id(&image.0, "")?),
        (false, None) => None,
    };
    let init_dirs = lower.as_ref().map_or(Ok(Vec::new()), |lower| home.layer(lower))?;
    let dirs = home.container(&own, upper, lower.as_ref(), &init_dirs)?;
    Ok(Some(Files { directory: own.to_string(), dirs, init_dirs }))
}

/// Adds up the recorded sizes of all layers.
pub(super) fn size(graph: &Root) -> Result<u64> {
    let ids = listed(&graph.dir("")?)?.into_iter().filter(|name| Digest::from_hex(name).is_ok());
    // One that has no size noted does not count.
    let sizes = ids.filter_map(|id| value(graph, &format!("{id}/layersize"), parse_size).ok());
    Ok(sizes.fold(0, u64::saturating_add))
}

/// The name of the driver's directory for an ID.
fn dir_id(id: &Digest, suffix: &str) -> Result<DirId> {
    let name = format!("{}{suffix}", id.hex());
    DirId::parse(&name).ok_or_else(|| Error::not_found(name))
}

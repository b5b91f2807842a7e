//! All names of a data root at one moment, and what tells when they may have changed.

use std::sync::Arc;

use super::containers::{self, names};
use super::graph;
use super::image::parent;
use super::records::{Era, references};
use super::roots::Roots;
use crate::backing::{Dir, FileKind, Root, Watched};
use crate::digest::ImageId;
use crate::error::{Error, Result};
use crate::store::Catalog;
use crate::store::driver::Driver;
use crate::store::files::{JSON_MAX, if_found};
use crate::store::parents::cut_parents;
use crate::store::stamp::{Stamp, Taking};
use crate::store::volumes;

/// One file per image, named by its ID.
const CONFIGS: &str = "imagedb/content/sha256";

/// One directory per image that has a parent or a time of tagging.
const METADATA: &str = "imagedb/metadata/sha256";

/// A stamp of all that a catalog is read from, by names and `stat` alone.
pub(super) fn stamp(roots: &Roots) -> Result<Stamp> {
    let mut taking = Taking::default();
    let (root, name) = roots.references();
    taking.add(root.stat(name));
    match roots.era {
        Era::Graph => graph::stamp(&roots.image, &mut taking)?,
        Era::Content => stamp_images(&roots.image, &mut taking)?,
    }
    if let Some(root) = &roots.containers {
        containers::stamp(root, roots.era, &mut taking)?;
    }
    volumes::stamp(roots.volumes.as_ref(), &mut taking);
    Ok(taking.finish())
}

fn stamp_images(image: &Root, taking: &mut Taking) -> Result<()> {
    if let Some(configs) = if_found(image.dir(CONFIGS))? {
        taking.add(configs.own_stat());
        let metadata = if_found(image.dir(METADATA))?;
        for name in names(&configs)? {
            taking.add_name(&name);
            if let Some(metadata) = &metadata {
                taking.add(metadata.stat(name.as_ref()));
            }
        }
    }
    Ok(())
}

/// The directories whose names the stamp is made of. An image's own are not among them: what is
/// written there goes with a new config or a new list of names.
pub(super) fn watched(roots: &Roots) -> Result<Vec<Watched>> {
    let (images, mut watched): (&[&str], _) = match roots.era {
        // The list of references is beside the directory of images.
        Era::Graph => (&[""], vec![Watched::Names(roots.data.dir("")?)]),
        Era::Content => {
            (&["", "imagedb/content", "imagedb/metadata", CONFIGS, METADATA], Vec::new())
        }
    };
    for path in images {
        watched.extend(if_found(roots.image.dir(path))?.map(Watched::Names));
    }
    if let Some(root) = &roots.containers {
        watched.extend(containers::watched(root)?);
    }
    watched.extend(volumes::watched(roots.volumes.as_ref())?);
    let in_place = |it| match it {
        Watched::Names(dir) | Watched::Writes(dir) => Watched::Writes(dir),
    };
    Ok(match roots.era {
        // Docker to 1.9 writes over its files.
        Era::Graph => watched.into_iter().map(in_place).collect(),
        Era::Content => watched,
    })
}

/// Reads all names.
pub(super) fn read(roots: &Roots, driver: Driver) -> Result<Catalog> {
    let mut catalog = Catalog::default();
    match roots.era {
        Era::Graph => graph::list(roots, driver, &mut catalog)?,
        Era::Content => list_images(&roots.image, &mut catalog)?,
    }
    let parents = match roots.era {
        Era::Graph => roots.image.path().to_owned(),
        Era::Content => roots.image.path().join(METADATA),
    };
    for (id, why) in cut_parents(&mut catalog.images) {
        let path = parents.join(id.hex()).join("parent");
        catalog.damaged.push(Arc::new(Error::corrupt(path, why)));
    }
    read_references(roots, &mut catalog);
    if let Some(root) = &roots.containers {
        containers::list(root, roots.era, |of| of == driver.name(), &mut catalog)?;
    }
    match volumes::names(roots.volumes.as_ref()) {
        Ok(names) => catalog.volumes = names,
        Err(err) => catalog.damaged.push(Arc::new(err)),
    }
    Ok(catalog)
}

fn list_images(image: &Root, catalog: &mut Catalog) -> Result<()> {
    let Some(configs) = if_found(image.dir(CONFIGS))? else { return Ok(()) };
    for name in names(&configs)? {
        if name.starts_with(".tmp-") {
            continue; // a config that is being written (moby pkg/atomicwriter)
        }
        match check_config(&configs, &name) {
            Ok(id) => drop(catalog.images.insert(id, None)),
            Err(err) => catalog.damaged.push(Arc::new(err)),
        }
    }
    let ids: Vec<ImageId> = catalog.images.keys().copied().collect();
    for id in ids {
        match parent(image, id) {
            Ok(parent) => drop(catalog.images.insert(id, parent)),
            Err(err) => catalog.damaged.push(Arc::new(err)),
        }
    }
    Ok(())
}

fn check_config(configs: &Dir, name: &str) -> Result<ImageId> {
    let corrupt = |why: String| Error::corrupt(configs.path().join(name), why);
    let id = ImageId::from_hex(name).map_err(|_| corrupt("not an image ID".to_owned()))?;
    let stat = configs.stat(name.as_ref())?;
    match stat.kind == FileKind::Regular && stat.size <= JSON_MAX {
        true => Ok(id),
        false => Err(corrupt(format!("not a file of at most {JSON_MAX} bytes"))),
    }
}

fn read_references(roots: &Roots, catalog: &mut Catalog) {
    let (root, name) = roots.references();
    let path = root.path().join(&name);
    let mut damaged = |err: Error| catalog.damaged.push(Arc::new(err));
    let json = match if_found(root.read(name, JSON_MAX)) {
        Ok(None) => return, // a store that never had a name
        Ok(Some(json)) => json,
        Err(err) => return damaged(err),
    };
    let references = match references(&json, roots.era) {
        Ok(references) => references,
        Err(why) => return damaged(Error::corrupt(path, why)),
    };
    for why in references.rejected {
        damaged(Error::corrupt(&path, why));
    }
    for (reference, id) in references.images {
        match catalog.images.contains_key(&id) {
            true => drop(catalog.references.insert(reference, id)),
            false => damaged(Error::corrupt(&path, format!("{reference}: there is no {id}"))),
        }
    }
}

//! `volumes/`: files that are mounted into containers, those that the engine keeps itself and those of
//! the host.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Tree;
use super::archives::Archive;
use super::live::{Live, Source};
use super::merged::MergedTree;
use super::names::cut;
use super::node::Place;
use super::places::{Item, Listed};
use super::shelf::Shelf;
use super::snapshots::Moment;
use crate::archive::inspect;
use crate::backing::{FileKind, Time};
use crate::digest::Digest;
use crate::error::Result;
use crate::store::{Mount, MountSource};

impl Tree {
    pub(super) fn list_volumes(&self, shelf: &Shelf) -> Result<Vec<Listed>> {
        Ok(shelf.names()?.volumes().iter().map(Listed::directory).collect())
    }

    pub(super) fn volume_place(&self, shelf: &Arc<Shelf>, name: &str) -> Result<Option<Item>> {
        if !shelf.names()?.volumes().iter().any(|known| known == name) {
            return Ok(None);
        }
        let created = shelf.store.volume(name).map_or(self.started, |volume| volume.created);
        let mtime = Time { nanos: 0, ..created };
        Ok(Some(Item::Place(Place::Volume(shelf.clone(), name.to_owned()), mtime)))
    }

    pub(super) fn list_volume(&self) -> Vec<Listed> {
        vec![Listed::directory("data"), Listed::file("volume.json"), Listed::dear("volume.tar")]
    }

    pub(super) fn volume_item(
        &self,
        shelf: &Arc<Shelf>,
        volume: &str,
        name: &str,
    ) -> Result<Option<Item>> {
        Ok(Some(match name {
            "data" => {
                let volume = shelf.store.volume(volume)?;
                self.bound(Source { dir: volume.data, file: None })?
            }
            "volume.json" => {
                let volume = shelf.store.volume(volume)?;
                let mtime = Time { nanos: 0, ..volume.created };
                Item::Document(inspect::volume(&volume), mtime)
            }
            "volume.tar" => {
                let archive = Archive::Live(Live::Volume(volume.to_owned()));
                Item::Archive(shelf.clone(), archive)
            }
            _ => return Ok(None),
        }))
    }

    /// One entry for each mount: a link to a volume, else the files themselves.
    pub(super) fn list_mounts(&self, shelf: &Shelf, moment: &Moment) -> Result<Vec<Listed>> {
        let mounts = by_name(self.mounts(shelf, &self.container(shelf, moment)?));
        Ok(mounts.iter().map(|(name, mount)| self.list_mount(shelf, name, mount)).collect())
    }

    fn list_mount(&self, shelf: &Shelf, name: &str, mount: &Mount) -> Listed {
        if matches!(mount.source, MountSource::Volume(_)) {
            return Listed::link(name);
        }
        match self.mount_source(shelf, mount).and_then(|source| source.top()) {
            Ok((_, entry)) if !entry.is_dir() => Listed::dear_of_kind(name, entry.stat.kind),
            // What is not there, or not to be shown, says so when it is looked up.
            Ok(_) | Err(_) => Listed::dear_of_kind(name, FileKind::Directory),
        }
    }

    pub(super) fn mount_item(
        &self,
        shelf: &Shelf,
        moment: &Moment,
        name: &str,
    ) -> Result<Option<Item>> {
        let mut mounts = by_name(self.mounts(shelf, &self.container(shelf, moment)?));
        let Some(mount) = mounts.remove(name) else { return Ok(None) };
        match &mount.source {
            MountSource::Volume(volume) => {
                Ok(Some(Item::Link(format!("../../../volumes/{volume}/data"))))
            }
            MountSource::Bind(_) | MountSource::Kept(_) => {
                self.bound(self.mount_source(shelf, &mount)?).map(Some)
            }
        }
    }

    /// What is mounted, as a tree of its own.
    fn bound(&self, source: Source) -> Result<Item> {
        let (stack, entry) = source.top()?;
        let mtime = entry.stat.mtime;
        let tree = MergedTree::new(stack, self.options.symlinks, mtime);
        Ok(match source.file {
            None => Item::Merged(tree),
            Some(_) => Item::File(tree, Box::new(entry)),
        })
    }
}

/// Mounts by the names of their entries: the destination with `-` for each slash. Where two would have
/// the same, the later is told apart by its digest.
fn by_name(mounts: Vec<Mount>) -> BTreeMap<String, Mount> {
    let mut names: BTreeMap<String, Mount> = BTreeMap::new();
    for mount in mounts {
        let plain = mount.destination.trim_matches('/').replace('/', "-");
        let mut name = cut(if plain.is_empty() { "-" } else { &plain });
        if matches!(name.as_str(), "." | "..") || names.contains_key(&name) {
            let digest = Digest::of(mount.destination.as_bytes()).hex();
            name = format!("{}~{}", name.chars().take(50).collect::<String>(), &digest[..12]);
        }
        names.insert(name, mount);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_named_after_their_destinations() {
        let mount = |destination: &str| Mount {
            destination: destination.to_owned(),
            source: MountSource::Volume("x".to_owned()),
        };
        let long = format!("/{}", "x".repeat(300));
        let destinations = ["/data", "/var/lib/app/", "/var-lib/app", "/", "/..", &long];
        let named = by_name(destinations.map(mount).into());
        let names: Vec<_> = named.keys().map(String::as_str).collect();
        assert!(names[0] == "-" && names[1].starts_with("..~"), "{names:?}");
        assert!(names.contains(&"data") && names.contains(&"var-lib-app"));
        assert!(names.iter().any(|name| name.starts_with("var-lib-app~")));
        assert!(names.iter().all(|name| name.len() <= 255 && !name.contains('/')));
        assert_eq!(named.len(), destinations.len());
    }
}

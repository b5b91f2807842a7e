//! What a container's directory holds.

use std::sync::Arc;

use super::Tree;
use super::archives::Archive;
use super::live::{Live, Part};
use super::merged::MergedTree;
use super::node::Place;
use super::own::OwnFiles;
use super::places::{Item, Listed};
use super::shelf::Shelf;
use super::snapshots::Moment;
use crate::archive::{Flavour, inspect, mtime_of};
use crate::backing::Time;
use crate::digest::ContainerId;
use crate::error::{Error, Result};
use crate::overlay::Stack;
use crate::overlay::changes::Flavor;
use crate::overlay::own::OwnTree;
use crate::store::{Container, Conventions, StoreInfo};
use crate::time::Timestamp;

impl Tree {
    pub(super) fn container_place(&self, shelf: &Arc<Shelf>, id: ContainerId) -> Result<Item> {
        let created = shelf.container(id).map_or(self.started, |container| created(&container));
        Ok(Item::Place(Place::Container(shelf.clone(), Moment::now(id)), created))
    }

    pub(super) fn list_container(
        &self,
        shelf: &Arc<Shelf>,
        moment: &Moment,
    ) -> Result<Vec<Listed>> {
        let container = self.container(shelf, moment)?;
        let mut listed = vec![
            Listed::dear("changes"),
            Listed::file("config.json"),
            Listed::file("created"),
            Listed::dear_directory("diff"),
            Listed::dear("diff.tar"),
            Listed::dear("export.tar"),
            Listed::dear("full.tar"),
            Listed::file("id"),
            Listed::file("inspect.json"),
            Listed::directory("rootfs"),
            Listed::file("state"),
            Listed::directory("volumes"),
        ];
        if self.has_layers(shelf, &container) {
            listed.push(Listed::dear("save.tar"));
        }
        match &moment.snapshot {
            None if self.has_snapshots() => listed.push(Listed::directory("snapshots")),
            None => {}
            Some(_) => listed.push(Listed::directory("changes-since")),
        }
        if !container.host_config.is_empty() {
            listed.push(Listed::file("hostconfig.json"));
        }
        if let Some(image) = container.image {
            listed.push(Listed::directory("layers"));
            if shelf.names()?.has_image(image) {
                listed.push(Listed::link("image"));
            }
        }
        Ok(listed)
    }

    pub(super) fn container_item(
        &self,
        shelf: &Arc<Shelf>,
        moment: &Moment,
        name: &str,
    ) -> Result<Option<Item>> {
        let container = self.container(shelf, moment)?;
        let mtime = created(&container);
        let document = |bytes: Vec<u8>| Some(Item::Document(bytes, mtime));
        let archive = |part| {
            let archive = Archive::Live(Live::Container(moment.clone(), part));
            Some(Item::Archive(shelf.clone(), archive))
        };
        Ok(match name {
            "changes" => {
                let changes = self.container_changes(shelf, &container)?;
                document(match shelf.store.info().conventions {
                    Conventions::Docker | Conventions::Containerd => changes.text().to_vec(),
                    Conventions::Podman => {
                        changes.filtered(|path| !is_podman_s(path)).text().to_vec()
                    }
                })
            }
            "config.json" => document(container.config.to_vec()),
            "created" => document(format!("{}\n", container.created).into_bytes()),
            "diff" => {
                let changes = || self.container_changes(shelf, &container);
                let compared = |new| Ok(OwnTree::compared(new, &*changes()?));
                let (new, symlinks) = (Stack::new(container.dirs.clone()), self.options.symlinks);
                Some(Item::Own(OwnFiles::new(new, symlinks, mtime, compared)?))
            }
            "diff.tar" => archive(Part::Diff),
            "export.tar" => archive(Part::Export),
            "full.tar" => archive(Part::Full),
            "hostconfig.json" if !container.host_config.is_empty() => {
                document(container.host_config.to_vec())
            }
            "id" => document(format!("{}\n", moment.id.hex()).into_bytes()),
            "image" => self.image_link(shelf, moment, &container)?,
            "inspect.json" => document(self.inspect_container(shelf, &container)?),
            "layers" => {
                container.image.map(|image| Item::Place(Place::Layers(shelf.clone(), image), mtime))
            }
            "rootfs" => {
                let stack = Stack::new(container.dirs);
                Some(Item::Merged(MergedTree::new(stack, self.options.symlinks, mtime)))
            }
            "save.tar" => archive(Part::Save),
            "volumes" => Some(Item::Place(Place::Mounts(shelf.clone(), moment.clone()), mtime)),
            "snapshots" if self.has_snapshots() && moment.snapshot.is_none() => {
                Some(Item::Place(Place::Snapshots(shelf.clone(), moment.id), mtime))
            }
            "changes-since" if moment.snapshot.is_some() => {
                let place = Place::ChangesSince(shelf.clone(), moment.clone());
                Some(Item::Place(place, self.taken(moment)?))
            }
            "state" => document(format!("{}\n", container.state.name()).into_bytes()),
            _ => None,
        })
    }

    /// Whether an image of the container would have a layer: no engine saves one without.
    fn has_layers(&self, shelf: &Shelf, container: &Container) -> bool {
        let config = container.image.and_then(|image| shelf.config(image).ok());
        config.is_some_and(|config| !config.parsed.diff_ids.is_empty())
            || self.container_changes(shelf, container).map_or(true, |all| !all.text().is_empty())
    }

    /// To the name in the container's config if it still names the image, else to the image's
    /// first name, else to `by-id/`.
    fn image_link(
        &self,
        shelf: &Arc<Shelf>,
        moment: &Moment,
        container: &Container,
    ) -> Result<Option<Item>> {
        let names = shelf.names()?;
        let Some(image) = container.image.filter(|image| names.has_image(*image)) else {
            return Ok(None);
        };
        let named = names.reference_of(&container.image_name, image);
        let name = named.or_else(|| names.references_to(image).next().map(str::to_owned));
        let top = if moment.snapshot.is_some() { "../../../.." } else { "../.." };
        Ok(Some(Item::Link(match name {
            Some(name) => format!("{top}/images/{name}"),
            None => format!("{top}/by-id/images/{}", image.hex()),
        })))
    }

    fn inspect_container(&self, shelf: &Shelf, container: &Container) -> Result<Vec<u8>> {
        let StoreInfo { path, conventions, .. } = shelf.store.info();
        let show = match conventions {
            Conventions::Docker => inspect::container,
            // Settings of the host are Docker's: containerd itself has none.
            Conventions::Containerd if !container.host_config.is_empty() => {
                inspect::engine29::container
            }
            Conventions::Containerd | Conventions::Podman => {
                let driver = shelf.store.graph_driver(&container.dirs);
                return Ok(inspect::known_container(container, &driver));
            }
        };
        let volumes = path.join("volumes");
        let described = inspect::Container {
            config: &container.config,
            host_config: &container.host_config,
            state: container.state,
            volumes: &volumes.to_string_lossy(),
            graph_driver: shelf.store.graph_driver(&container.dirs),
        };
        show(&described).map_err(|why| Error::corrupt(format!("container {}", container.name), why))
    }

    /// Which engine's notion of a change counts.
    pub(super) fn comparison(&self) -> Flavor {
        match self.options.flavour {
            Some(Flavour::Docker19 | Flavour::Docker110 | Flavour::Docker25) => Flavor::UpTo27,
            _ => Flavor::From28,
        }
    }
}

fn created(container: &Container) -> Time {
    mtime_of(Timestamp::parse(&container.created).as_ref())
}

/// True for what Podman makes in every container, and tells nobody (libpod/diff.go, `initInodes`).
fn is_podman_s(path: &[u8]) -> bool {
    let made = [
        "/dev",
        "/etc/hostname",
        "/etc/hosts",
        "/etc/mtab",
        "/etc/resolv.conf",
        "/proc",
        "/run",
        "/run/.containerenv",
        "/run/notify",
        "/run/secrets",
        "/sys",
    ];
    made.iter().any(|made| made.as_bytes() == path)
}

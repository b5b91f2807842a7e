//! `snapshots/` of a container: what it had when somebody said `mkdir`, as containers of their own.

use std::ffi::OsStr;
use std::sync::Arc;

use rustix::io::Errno;

use super::live::exportable;
use super::node::{Node, Place};
use super::places::{Item, Listed};
use super::shelf::Shelf;
use super::{Attr, Tree};
use crate::backing::{Fingerprint, Time};
use crate::digest::ContainerId;
use crate::error::{Error, Result};
use crate::overlay::Stack;
use crate::snapshot::{Cgroup, Original, Snapshot, Snapshots, Volume};
use crate::store::{Container, LayerDir, Mount, MountSource, State};
use crate::time::Timestamp;

/// Where snapshots are kept, and how they are taken.
#[derive(Debug, Clone)]
pub struct Keeping {
    /// Where.
    pub snapshots: Arc<Snapshots>,
    /// Whether the processes of a container stand still meanwhile.
    pub is_freezing: bool,
}

/// A container: as it is now, or as a snapshot kept it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) id: ContainerId,
    /// Name and version of the snapshot.
    pub(super) snapshot: Option<(String, u64)>,
}

impl Moment {
    /// As it is now.
    pub(super) fn now(id: ContainerId) -> Moment {
        Moment { id, snapshot: None }
    }

    /// What tells it from all others.
    pub(super) fn subject(&self) -> String {
        match &self.snapshot {
            None => self.id.hex(),
            Some((_, version)) => format!("{}@{version:x}", self.id.hex()),
        }
    }
}

impl Tree {
    /// The same tree, in which snapshots of containers can be made.
    #[must_use]
    pub fn with_snapshots(mut self, keeping: Keeping) -> Tree {
        self.keeping = Some(keeping);
        self
    }

    /// The container at that moment.
    ///
    /// # Errors
    /// Fails as the store does; ESTALE where the snapshot is gone, or another has its name.
    pub(super) fn container(&self, shelf: &Shelf, moment: &Moment) -> Result<Container> {
        let container = shelf.container(moment.id)?;
        let (Some((name, version)), Some(keeping)) = (&moment.snapshot, &self.keeping) else {
            return Ok(container);
        };
        let stale = || Error::stale(format!("snapshot {name} of {}", container.name));
        let snapshot = keeping.snapshots.find(moment.id, name).map_err(|err| match err {
            err if err.is_not_found() => stale(),
            err => err,
        })?;
        if snapshot.version()? != *version {
            return Err(stale());
        }
        kept(container, &snapshot, *version)
    }

    pub(super) fn list_snapshots(&self, id: ContainerId) -> Result<Vec<Listed>> {
        Ok(self.snapshot_names(id)?.into_iter().map(Listed::directory).collect())
    }

    pub(super) fn snapshot_item(
        &self,
        shelf: &Arc<Shelf>,
        id: ContainerId,
        name: &str,
    ) -> Result<Option<Item>> {
        let Some((moment, snapshot)) = self.snapshot(id, name)? else { return Ok(None) };
        Ok(Some(Item::Place(Place::Container(shelf.clone(), moment), taken(&snapshot))))
    }

    /// The other snapshots of the same container.
    pub(super) fn list_others(&self, moment: &Moment) -> Result<Vec<Listed>> {
        let own = moment.snapshot.as_ref().map(|(name, _)| name.as_str());
        let names = self.snapshot_names(moment.id)?;
        let others = names.into_iter().filter(|name| Some(name.as_str()) != own);
        Ok(others.map(Listed::dear).collect())
    }

    /// What makes the container of `moment` of that of the snapshot `name`.
    pub(super) fn changes_since(
        &self,
        shelf: &Shelf,
        moment: &Moment,
        name: &str,
    ) -> Result<Option<Item>> {
        let Some((earlier, _)) = self.snapshot(moment.id, name)? else { return Ok(None) };
        let key = format!("since {} {}", moment.subject(), earlier.subject());
        let new = Stack::new(self.container(shelf, moment)?.dirs);
        let old = Stack::new(self.container(shelf, &earlier)?.dirs);
        let changes = self.changes((shelf.name.clone(), key, 0), &new, &old)?;
        Ok(Some(Item::Document(changes.text().to_vec(), self.taken(moment)?)))
    }

    /// When the snapshot was taken.
    pub(super) fn taken(&self, moment: &Moment) -> Result<Time> {
        let name = moment.snapshot.as_ref().map(|(name, _)| name.as_str());
        let found = name.map(|name| self.snapshot(moment.id, name)).transpose()?.flatten();
        Ok(found.map_or(self.started, |(_, snapshot)| taken(&snapshot)))
    }

    pub(super) fn has_snapshots(&self) -> bool {
        self.keeping.is_some()
    }

    /// Whether directories can be made and removed in `parent`, such as `name`.
    ///
    /// # Errors
    /// EROFS where they can't.
    pub fn may_change(&self, parent: u64, name: &OsStr) -> Result<()> {
        self.snapshots_at(parent, name).map(drop)
    }

    /// Makes the directory `name` in `parent`: takes a snapshot, where that is what it means.
    ///
    /// # Errors
    /// EROFS anywhere else; EINVAL, EEXIST, EDQUOT as [`Snapshots::take`]; EBUSY where the container
    /// can't be frozen or is being removed; and as the store.
    pub fn make_dir(&self, parent: u64, name: &OsStr) -> Result<Attr> {
        let (shelf, id, keeping) = self.snapshots_at(parent, name)?;
        let text = name.to_str().ok_or_else(|| Error::errno_of(name, Errno::INVAL))?;
        self.take(&shelf, id, keeping, text)?;
        self.lookup(parent, name)
    }

    /// Removes the directory `name` of `parent`: a snapshot.
    ///
    /// # Errors
    /// EROFS for anything else; ENOENT where there is none of that name.
    pub fn remove_dir(&self, parent: u64, name: &OsStr) -> Result<()> {
        let (_, id, keeping) = self.snapshots_at(parent, name)?;
        let text = name.to_str().ok_or_else(|| Error::not_found(name))?;
        keeping.snapshots.remove(id, text)
    }

    /// Whose snapshots the directory `parent` holds.
    fn snapshots_at(
        &self,
        parent: u64,
        name: &OsStr,
    ) -> Result<(Arc<Shelf>, ContainerId, &Keeping)> {
        match (&*self.known(parent)?.node, &self.keeping) {
            (Node::Place(Place::Snapshots(shelf, id)), Some(keeping)) => {
                Ok((shelf.clone(), *id, keeping))
            }
            _ => Err(Error::errno_of(name, Errno::ROFS)),
        }
    }

    fn take(&self, shelf: &Shelf, id: ContainerId, keeping: &Keeping, name: &str) -> Result<()> {
        let container = exportable(shelf.container(id)?)?;
        let Some(own) = container.dirs.first() else {
            return Err(Error::corrupt(&*container.name, "no writable layer"));
        };
        let cgroup = match (keeping.is_freezing, container.state) {
            (true, State::Running | State::Restarting) => Some(cgroup(&container)?),
            _ => None,
        };
        let original = Original {
            container: id,
            name: &container.name,
            config: &container.config,
            host_config: &container.host_config,
            diff: &own.root,
            volumes: &self.mounted_files(shelf, &container),
            state: container.state.name(),
            time: &super::journal::now(),
            cgroup: cgroup.as_ref(),
        };
        keeping.snapshots.take(name, &original)
    }

    /// What is mounted into a container and can be copied.
    fn mounted_files(&self, shelf: &Shelf, container: &Container) -> Vec<Volume> {
        self.each_mount(shelf, container, "a snapshot", |mount, source| {
            let destination = mount.destination.clone();
            Ok(Volume { destination, root: source.dir.root, file: source.file })
        })
    }

    /// A line of JSON for each snapshot of a container that no store has any more, with the directory
    /// where its files are; `None` where no snapshots are kept.
    ///
    /// # Errors
    /// Fails when the directory of snapshots can't be read.
    pub(super) fn left_behind(&self) -> Result<Option<Vec<u8>>> {
        let Some(Keeping { snapshots, .. }) = &self.keeping else { return Ok(None) };
        let mut lines = Vec::new();
        for id in snapshots.containers()? {
            let is_missing =
                |shelf: Arc<Shelf>| shelf.container(id).is_err_and(|err| err.is_not_found());
            if !self.engines.iter().flat_map(|engine| engine.shelves()).all(is_missing) {
                continue;
            }
            for name in snapshots.names(id)? {
                let snapshot = match snapshots.find(id, &name) {
                    Ok(snapshot) => snapshot,
                    Err(err) if err.is_not_found() => continue, // it goes just now
                    Err(err) => {
                        self.report(&err);
                        continue;
                    }
                };
                let line = serde_json::json!({
                    "time": snapshot.record.time,
                    "container": id.hex(),
                    "name": snapshot.record.name,
                    "snapshot": name,
                    "directory": snapshots.path().join(id.hex()).join(&name),
                });
                lines.extend_from_slice(format!("{line}\n").as_bytes());
            }
        }
        Ok(Some(lines))
    }

    fn snapshot_names(&self, id: ContainerId) -> Result<Vec<String>> {
        let keeping = self.keeping.as_ref();
        keeping.map_or(Ok(Vec::new()), |keeping| keeping.snapshots.names(id))
    }

    fn snapshot(&self, id: ContainerId, name: &str) -> Result<Option<(Moment, Snapshot)>> {
        let Some(keeping) = &self.keeping else { return Ok(None) };
        let snapshot = match keeping.snapshots.find(id, name) {
            Ok(snapshot) => snapshot,
            Err(err) if err.is_not_found() || err.errno() == Errno::INVAL => return Ok(None),
            Err(err) => return Err(err),
        };
        let version = snapshot.version()?;
        Ok(Some((Moment { id, snapshot: Some((name.to_owned(), version)) }, snapshot)))
    }
}

/// The container with what the snapshot kept of it in the place of what it has now.
fn kept(container: Container, snapshot: &Snapshot, version: u64) -> Result<Container> {
    let mut identity = Fingerprint::new();
    identity.add(container.id.hex().as_bytes());
    identity.add(&version.to_le_bytes());
    let mut dirs = container.dirs;
    let Some(own) = dirs.first_mut() else {
        return Err(Error::corrupt(&*container.name, "no writable layer"));
    };
    *own = LayerDir { root: snapshot.diff()?, identity: identity.finish(), ..own.clone() };
    let mount = |(destination, path)| Mount { destination, source: MountSource::Kept(path) };
    Ok(Container {
        dirs,
        config: snapshot.config()?.into(),
        host_config: snapshot.host_config()?.into(),
        state: State::parse(&snapshot.record.state).unwrap_or(State::Exited),
        mounts: snapshot.volumes().into_iter().map(mount).collect(),
        ..container
    })
}

fn taken(snapshot: &Snapshot) -> Time {
    let time = Timestamp::parse(&snapshot.record.time).map(|time| time.instant());
    time.unwrap_or_default()
}

/// The cgroup of a running container.
fn cgroup(container: &Container) -> Result<Cgroup> {
    let missing = || {
        let why = "can't be frozen: no process of it is known here";
        Error::busy(format!("container {}", container.name), why)
    };
    let pid = container.pid.ok_or_else(missing)?;
    Cgroup::of(pid, container.id).map_err(|err| match err.errno() {
        Errno::SRCH => missing(),
        _ => err,
    })
}

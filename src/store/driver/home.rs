//! A driver's directory while one image or container is read from it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;

use super::lower::{parse_ancestors, parse_link_target, parse_lower};
use super::{DirId, Driver, OpenLayers};
use crate::backing::{Access, Fingerprint, Root};
use crate::error::{Error, Result};
use crate::store::config::LAYERS_MAX;
use crate::store::files::{if_found, required, value};
use crate::store::{LayerDir, Marks, Owners};

/// Longest file that lists what is below a layer, in bytes: 500 IDs, one a line.
const LOWER_MAX: u64 = 70 * LAYERS_MAX as u64;

/// What the owners of the files of a layer are called in a container.
pub(in crate::store) type OwnersOf<'a> = dyn Fn(&DirId) -> Option<Arc<Owners>> + 'a;

/// Where a driver keeps layers, and what is known of all of them.
pub(in crate::store) struct Place<'a> {
    /// Its directory, and those of other stores in which layers of images may lie as well.
    pub(in crate::store) roots: Vec<&'a Root>,
    /// Goes into the identity of what is found: 0 where names of directories are random, and no
    /// store has those of another.
    pub(in crate::store) seed: u64,
    /// By layer.
    pub(in crate::store) owners: &'a OwnersOf<'a>,
}

/// A driver's directory while one image or container is read from it.
pub(in crate::store) struct Home<'a> {
    driver: Driver,
    place: Place<'a>,
    open: &'a OpenLayers,
    /// What was read of `lower` files and found good.
    known: HashMap<DirId, Lower>,
    /// What was opened.
    sealed: HashMap<DirId, Vec<LayerDir>>,
}

/// What a `lower` file says: names under `l`, topmost first, and the directories they lead to.
#[derive(Debug)]
struct Lower {
    links: Vec<String>,
    dirs: Vec<DirId>,
}

impl<'a> Home<'a> {
    /// That of `driver`.
    pub(in crate::store) fn new(
        driver: Driver,
        place: Place<'a>,
        open: &'a OpenLayers,
    ) -> Home<'a> {
        Home { driver, place, open, known: HashMap::new(), sealed: HashMap::new() }
    }

    /// The files of the layer `id` and of those below it, as the driver would mount them: its own
    /// first.
    pub(in crate::store) fn layer(&mut self, id: &DirId) -> Result<Vec<LayerDir>> {
        let mut dirs = self.sealed(id)?;
        for lower in self.below(id)? {
            dirs.extend(self.sealed(&lower)?);
        }
        Ok(dirs)
    }

    /// The same for a layer of an image that has `below` layers below it.
    pub(in crate::store) fn image_layer(
        &mut self,
        id: &DirId,
        below: usize,
    ) -> Result<Vec<LayerDir>> {
        let listed = self.below(id)?.len();
        if !self.driver.copies_layers() && listed != below {
            let why = format!("lists {listed} directories for {below} layers");
            return Err(Error::corrupt(self.lower_path(id), why));
        }
        self.layer(id)
    }

    /// The same for a layer that lies right upon `parent`.
    pub(in crate::store) fn layer_upon(
        &mut self,
        id: &DirId,
        parent: Option<&DirId>,
    ) -> Result<Vec<LayerDir>> {
        self.check_parent(id, parent)?;
        self.layer(id)
    }

    /// A container's writable layer `upper` in the directory `id`, and what is merged below it:
    /// the directory `lower` and the rest of `dirs`.
    pub(in crate::store) fn container(
        &mut self,
        id: &DirId,
        upper: Vec<LayerDir>,
        lower: Option<&DirId>,
        dirs: &[LayerDir],
    ) -> Result<Vec<LayerDir>> {
        match self.driver {
            Driver::Vfs | Driver::Btrfs => return Ok(upper),
            // The init layer was copied into this one: only the image is merged below.
            Driver::CopyingOverlay => {
                let image = dirs.iter().filter(|dir| dir.marks == Marks::Complete).cloned();
                return Ok(upper.into_iter().chain(image).collect());
            }
            Driver::Overlay2(_) | Driver::Overlay(_) | Driver::FuseOverlay | Driver::Aufs => {}
        }
        self.check_parent(id, lower)?;
        Ok(upper.into_iter().chain(dirs.iter().cloned()).collect())
    }

    /// The files of a container's writable layer, topmost first.
    ///
    /// # Errors
    /// ENOENT where there are none.
    pub(in crate::store) fn writable(&self, id: &DirId) -> Result<Vec<LayerDir>> {
        let (files, marks) = self.files(self.root(0)?, id)?;
        let root = self.root(0)?.sub(&files, Access::Live)?;
        let mut dirs = vec![self.dir(id, &files, Arc::new(root), marks)];
        dirs.extend(self.rotated(id, 0)?);
        Ok(dirs)
    }

    /// True where there is a layer `id`.
    pub(in crate::store) fn has(&self, id: &DirId) -> Result<bool> {
        Ok(if_found(self.root(0)?.stat(self.driver.directory(id)))?.is_some())
    }

    /// Holds what the driver notes to lie below `id` to what the engine's lists say of it.
    fn check_parent(&mut self, id: &DirId, parent: Option<&DirId>) -> Result<()> {
        if self.driver.copies_layers() || self.below(id)?.first() == parent {
            return Ok(());
        }
        let why = "does not begin with the layer that should be below";
        Err(Error::corrupt(self.lower_path(id), why))
    }

    /// The directories of the layer `id` alone, topmost first.
    fn sealed(&mut self, id: &DirId) -> Result<Vec<LayerDir>> {
        if let Some(dirs) = self.sealed.get(id) {
            return Ok(dirs.clone());
        }
        let at = self.find(id)?;
        let home = self.root(at)?;
        self.check_contents(home, id)?;
        let (files, marks) = self.files(home, id)?;
        let root = self.open.open(home, at, &files)?;
        let mut dirs = vec![self.dir(id, &files, root, marks)];
        dirs.extend(self.rotated(id, at)?);
        self.sealed.insert(id.clone(), dirs.clone());
        Ok(dirs)
    }

    fn dir(&self, id: &DirId, files: &str, root: Arc<Root>, marks: Marks) -> LayerDir {
        let mut identity = Fingerprint::new();
        identity.add(&self.place.seed.to_le_bytes());
        identity.add(self.driver.name().as_bytes());
        identity.add(id.0.as_bytes());
        if files.contains("/diff") && !files.ends_with("/diff") {
            identity.add(files.as_bytes()); // one of several directories
        }
        LayerDir { root, identity: identity.finish(), marks, owners: (self.place.owners)(id) }
    }

    /// Where the files of the layer `id` are, and how they are marked.
    fn files(&self, home: &Root, id: &DirId) -> Result<(String, Marks)> {
        let (path, marks) = match self.driver {
            Driver::Overlay2(marks) | Driver::Overlay(marks) => (format!("{id}/diff"), marks),
            Driver::FuseOverlay => (format!("{id}/diff"), Marks::Fuse),
            Driver::Aufs => (self.driver.directory(id), Marks::Aufs),
            Driver::Vfs | Driver::Btrfs => (self.driver.directory(id), Marks::Complete),
            Driver::CopyingOverlay => {
                let root = format!("{id}/root");
                match if_found(home.stat(&root))? {
                    Some(_) => (root, Marks::Complete),
                    None => (format!("{id}/upper"), Marks::Copied),
                }
            }
        };
        Ok((path, marks))
    }

    /// What the layer `id` held before the owners of all its files were changed: containers/storage
    /// then makes a new `diff` and keeps the old one as `diff1`, that one's predecessor as `diff2`
    /// (drivers/overlay, `UpdateLayerIDMap`).
    fn rotated(&self, id: &DirId, at: usize) -> Result<Vec<LayerDir>> {
        let Driver::Overlay(marks) = self.driver else { return Ok(Vec::new()) };
        let home = self.root(at)?;
        let mut dirs = Vec::new();
        for number in 1..=LAYERS_MAX {
            let files = format!("{id}/diff{number}");
            if if_found(home.stat(&files))?.is_none() {
                break;
            }
            let root = self.open.open(home, at, &files)?;
            dirs.push(self.dir(id, &files, root, marks));
        }
        Ok(dirs)
    }

    /// Refuses a layer whose directory does not hold its files by their names.
    fn check_contents(&self, home: &Root, id: &DirId) -> Result<()> {
        let Driver::Overlay(_) = self.driver else { return Ok(()) };
        let composed = format!("{id}/composefs-data/composefs.blob");
        match if_found(home.stat(&composed))? {
            None => Ok(()),
            Some(_) => {
                let what = "a layer of composefs, whose files lie under their digests; \
                    set use_composefs to \"false\" in storage.conf and pull the image again";
                Err(Error::unsupported(home.path().join(composed), what))
            }
        }
    }

    fn root(&self, at: usize) -> Result<&'a Root> {
        self.place.roots.get(at).copied().ok_or_else(|| Error::not_found(self.driver.home()))
    }

    /// Which of the driver's directories holds the layer `id`; the first where none does.
    fn find(&self, id: &DirId) -> Result<usize> {
        if self.place.roots.len() > 1 {
            for (at, root) in self.place.roots.iter().enumerate() {
                if if_found(root.stat(self.files(root, id)?.0))?.is_some() {
                    return Ok(at);
                }
            }
        }
        Ok(0)
    }

    /// The file that notes what lies below `id`, for messages.
    fn lower_path(&self, id: &DirId) -> PathBuf {
        let path = match self.driver {
            Driver::Overlay2(_) | Driver::Overlay(_) | Driver::FuseOverlay => format!("{id}/lower"),
            Driver::CopyingOverlay => format!("{id}/lower-id"),
            Driver::Aufs => format!("layers/{id}"),
            Driver::Vfs | Driver::Btrfs => id.to_string(),
        };
        self.place.roots.first().map_or_else(PathBuf::new, |root| root.path().join(path))
    }

    /// The directories merged below `id`, topmost first; none where each holds everything itself.
    fn below(&mut self, id: &DirId) -> Result<Vec<DirId>> {
        match self.driver {
            Driver::Vfs | Driver::Btrfs => Ok(Vec::new()),
            Driver::CopyingOverlay => self.copied_from(id),
            Driver::Aufs => self.ancestors(id),
            Driver::Overlay2(_) | Driver::Overlay(_) | Driver::FuseOverlay => self.linked(id),
        }
    }

    /// The one full copy below a directory of changes.
    fn copied_from(&self, id: &DirId) -> Result<Vec<DirId>> {
        let home = self.root(0)?;
        if self.files(home, id)?.1 == Marks::Complete {
            return Ok(Vec::new());
        }
        let lower = if_found(value(home, &format!("{id}/lower-id"), DirId::parse))?;
        match &lower {
            Some(lower) if self.files(home, lower)?.1 != Marks::Complete => {
                Err(Error::corrupt(self.lower_path(id), format!("{lower} is no full copy")))
            }
            _ => Ok(lower.into_iter().collect()),
        }
    }

    /// The ancestors of a layer of aufs, each of which lists its own in turn.
    fn ancestors(&mut self, id: &DirId) -> Result<Vec<DirId>> {
        if let Some(known) = self.known.get(id) {
            return Ok(known.dirs.clone());
        }
        let text = if_found(self.root(0)?.read(format!("layers/{id}"), LOWER_MAX))?;
        let dirs = parse_ancestors(&text.unwrap_or_default())
            .filter(|dirs| dirs.len() <= LAYERS_MAX && !dirs.contains(id))
            .ok_or_else(|| Error::corrupt(self.lower_path(id), "not a list of layers"))?;
        if let Some((nearest, rest)) = dirs.split_first()
            && self.ancestors_once(nearest)? != rest
        {
            return Err(Error::corrupt(self.lower_path(id), format!("disagrees with {nearest}")));
        }
        self.known.insert(id.clone(), Lower { links: Vec::new(), dirs: dirs.clone() });
        Ok(dirs)
    }

    fn ancestors_once(&self, id: &DirId) -> Result<Vec<DirId>> {
        let text = if_found(self.root(0)?.read(format!("layers/{id}"), LOWER_MAX))?;
        parse_ancestors(&text.unwrap_or_default())
            .ok_or_else(|| Error::corrupt(self.lower_path(id), "not a list of layers"))
    }

    /// What the `lower` file of `id` leads to.
    ///
    /// Docker writes a `lower` file as the name of the directory below and then that one's own
    /// `lower`, so a file that was cut or exchanged disagrees with the next one.
    fn linked(&mut self, id: &DirId) -> Result<Vec<DirId>> {
        let links = self.links(id)?;
        let mut dirs = Vec::new();
        for (index, link) in links.iter().enumerate() {
            let dir = self.follow(link)?;
            let rest = &links[index + 1..];
            if let Some(known) = self.known.get(&dir).filter(|known| known.links == rest) {
                dirs.push(dir);
                dirs.extend_from_slice(&known.dirs);
                break;
            }
            if self.links(&dir)? != rest {
                return Err(Error::corrupt(
                    self.lower_path(id),
                    format!("disagrees with {dir}/lower"),
                ));
            }
            dirs.push(dir);
        }
        self.known.insert(id.clone(), Lower { links, dirs: dirs.clone() });
        Ok(dirs)
    }

    fn links(&self, id: &DirId) -> Result<Vec<String>> {
        let home = self.root(self.find(id)?)?;
        let path = format!("{id}/lower");
        let Some(text) = if_found(home.read(&path, LOWER_MAX))? else {
            return Ok(Vec::new()); // the lowest layer has none
        };
        parse_lower(&text)
            .ok_or_else(|| Error::corrupt(home.path().join(path), "not a list of l/NAME"))
    }

    /// The directory that a short name leads to, in whichever store it stands.
    fn follow(&self, link: &str) -> Result<DirId> {
        let last = self.place.roots.len().saturating_sub(1);
        for (at, root) in self.place.roots.iter().enumerate() {
            let target = root.dir("l").and_then(|dir| dir.read_link(OsStr::new(link)));
            let target = match target {
                Err(err) if err.is_not_found() && at < last => continue,
                target => required(target)?,
            };
            return parse_link_target(&target).ok_or_else(|| {
                let path = root.path().join("l").join(link);
                Error::corrupt(path, "does not lead to ../<id>/diff")
            });
        }
        Err(Error::not_found(self.driver.home()))
    }
}

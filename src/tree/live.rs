//! Archives of files that may be written to while they are read: those of containers and volumes.
//!
//! What makes it hard, and what answers it:
//! 1. A change deep in a directory moves nothing in the directories above it. So what was worked out
//!    is kept by a stamp of *all* the files below, taken by `stat` alone ([`Tree::files`]). It is
//!    taken at most every [`CHECKED`], which bounds how old an answer may be, and once however many
//!    ask.
//! 2. Times move in ticks: a file may change twice with one time. So the stamp moves once more when
//!    its newest change is a tick ago ([`Stamp::generation`]).
//! 3. There is no `open`: what is looked up gets the size of that moment, and the first read keeps
//!    the description of its bytes ([`Tree::recipe`]). What changes meanwhile is a matter of the
//!    recipe ([`Changed`]).
//! 4. An image of a container is named by digests of bytes that nobody has read yet. Its size is that
//!    of a [`Draft`].

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::archives::{Archive, Key, Made};
use super::shelf::{Loaded, Shelf};
use super::snapshots::Moment;
use super::{CHECKED, Tree};
use crate::archive::Flavour;
use crate::archive::commit::{self, Commit};
use crate::archive::export::{self, Accounts, Export, Mounted, Style};
use crate::backing::{Access, Fingerprint, Root, Time};
use crate::digest::{DiffId, Digest};
use crate::error::{Error, Result};
use crate::oci::ImageConfig;
use crate::overlay::changes::{self, Changes};
use crate::overlay::{Entry, Stack};
use crate::recipe::{Changed, Recipe};
use crate::store::{
    self, Container, Conventions, Image, LayerDir, Marks, Mount, MountSource, Stamp, State, Taking,
};
use crate::time::Timestamp;
use crate::weighed::Weigh;

/// The root of this host's file system.
const HERE: &str = "/";

/// An archive of files that may be written to.
#[derive(Debug, Clone)]
pub(super) enum Live {
    /// One of a container.
    Container(Moment, Part),
    /// `volume.tar`.
    Volume(String),
}

/// Which archive of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// `export.tar`: its merged files.
    Export,
    /// `full.tar`: with what is mounted in them.
    Full,
    /// `diff.tar`: its writable layer.
    Diff,
    /// `save.tar`: an image of it.
    Save,
}

/// What is mounted into a container, found.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// The directory that is mounted, or that holds the file that is.
    pub(super) dir: LayerDir,
    /// The file's name in it.
    pub(super) file: Option<OsString>,
}

/// What the archive of an image of a container is made of.
#[derive(Debug)]
pub(super) struct Draft {
    container: Container,
    image: Option<Arc<Loaded>>,
    /// The same where some layer of it has not the digest that is noted.
    fitted: Option<(Image, ImageConfig)>,
    /// The tars of the image's layers.
    layers: Vec<Arc<Recipe>>,
    /// The tar of the writable layer; `None` where nothing changed.
    diff: Option<Arc<Recipe>>,
    created: Time,
    conventions: Conventions,
    flavour: Flavour,
}

impl Draft {
    /// The archive, after one pass over the files of the writable layer.
    pub(super) fn finish(&self) -> Result<Recipe> {
        self.archive(self.diff_id()?)
    }

    fn diff_id(&self) -> Result<DiffId> {
        let mut hash = Sha256::new();
        if let Some(diff) = &self.diff {
            diff.scan(|part| hash.update(part))?;
        }
        Ok(DiffId(Digest::from_hash(hash)))
    }

    /// An archive of the right length. It has the right bytes, too, unless another digest would make
    /// the writable layer equal to one of the image's, which the archive would hold only once.
    fn sketch(&self) -> Result<Recipe> {
        let own = self.diff.as_ref().map_or(0, |diff| diff.len());
        match self.layers.iter().any(|layer| layer.len() == own) {
            true => self.finish(),
            false => self.archive(DiffId(Digest::of(b""))),
        }
    }

    fn archive(&self, diff_id: DiffId) -> Result<Recipe> {
        let fitted = self.fitted.as_ref().map(|(image, config)| (image, config));
        let stored = || self.image.as_ref().map(|it| (&it.image, &it.config.parsed));
        let image = fitted.or_else(stored);
        let commit = Commit {
            container: &self.container,
            image,
            layers: &self.layers,
            diff: self.diff.as_ref().map(|diff| (diff, diff_id)),
            created: self.created,
            conventions: self.conventions,
        };
        commit::archive(&commit, self.flavour)
    }
}

impl Weigh for Draft {
    fn weight(&self) -> usize {
        self.diff.as_ref().map_or(0, |diff| Recipe::weight(diff))
    }
}

impl Weigh for Arc<Changes> {
    fn weight(&self) -> usize {
        Changes::weight(self)
    }
}

impl Weigh for Stamp {
    fn weight(&self) -> usize {
        size_of::<Stamp>()
    }
}

impl Source {
    /// Its files, and what of them is mounted.
    pub(super) fn top(&self) -> Result<(Stack, Entry)> {
        let stack = Stack::new(vec![self.dir.clone()]);
        let root = stack.root()?;
        let entry = match &self.file {
            None => root,
            Some(file) => stack.lookup(&root, file)?.ok_or_else(|| Error::not_found(file))?,
        };
        Ok((stack, entry))
    }
}

impl From<store::Bound> for Source {
    fn from(bound: store::Bound) -> Source {
        Source { dir: bound.dir, file: bound.file }
    }
}

impl Tree {
    /// A stamp of all files that the archive is made from, and of what else it hangs on.
    ///
    /// # Errors
    /// EBUSY for a container that can't be exported; and as the store.
    pub(super) fn files(&self, shelf: &Shelf, live: &Live) -> Result<u64> {
        let (moment, part) = match live {
            Live::Container(moment, part) => (moment, *part),
            Live::Volume(name) => {
                let source = Source { dir: shelf.store.volume(name)?.data, file: None };
                return self.stamp(&source);
            }
        };
        let container = exportable(self.container(shelf, moment)?)?;
        let mut all = Fingerprint::new();
        all.add(moment.subject().as_bytes());
        all.add(&self.own_files(&container)?.to_le_bytes());
        match part {
            Part::Export | Part::Diff => {}
            Part::Full => {
                for mount in self.mounts(shelf, &container) {
                    let source = self.mount_source(shelf, &mount);
                    let stamp = source.and_then(|source| self.stamp(&source));
                    all.add(mount.destination.as_bytes());
                    all.add(&stamp.unwrap_or(0).to_le_bytes());
                }
            }
            Part::Save => {
                all.add(container.name.as_bytes());
                all.add(&container.config);
            }
        }
        Ok(all.finish())
    }

    /// What a container's files differ in from its image's.
    ///
    /// # Errors
    /// As [`changes::changes`].
    pub(super) fn container_changes(
        &self,
        shelf: &Shelf,
        container: &Container,
    ) -> Result<Arc<Changes>> {
        let files = self.own_files(container)?;
        // A snapshot's files are those of a directory of its own.
        let own = container.dirs.first().map_or(0, |dir| dir.identity);
        let key = format!("container {} {own:x}", container.id.hex());
        let key = (shelf.name.clone(), key, files);
        let old = Stack::new(container.init_dirs.clone());
        match (shelf.store.info().conventions, container.dirs.first()) {
            (Conventions::Podman, Some(own)) if own.marks != Marks::Complete => {
                self.diffs.get_or_make(key, || changes::listed(own, &old).map(Arc::new))
            }
            _ => self.changes(key, &Stack::new(container.dirs.clone()), &old),
        }
    }

    /// What makes `new` of `old`, worked out once under that key.
    pub(super) fn changes(&self, key: Key, new: &Stack, old: &Stack) -> Result<Arc<Changes>> {
        let flavor = self.comparison();
        let _span = tracing::debug_span!("compare", what = key.1).entered();
        self.diffs.get_or_make(key, || changes::changes(new, old, flavor).map(Arc::new))
    }

    /// A stamp of a container's writable files.
    fn own_files(&self, container: &Container) -> Result<u64> {
        let mut all = Fingerprint::new();
        for dir in container.dirs.iter().filter(|dir| dir.root.access() == Access::Live) {
            all.add(&self.stamp(&Source { dir: dir.clone(), file: None })?.to_le_bytes());
        }
        Ok(all.finish())
    }

    /// A stamp of a directory and all below it, or of a single file, at most [`CHECKED`] old.
    fn stamp(&self, source: &Source) -> Result<u64> {
        let root = &source.dir.root;
        let tick = self.clock.elapsed().as_millis() / CHECKED.as_millis();
        let key = (root.path().join(source.file.as_deref().unwrap_or_default()), tick as u64);
        let stamp = self.stamps.get_or_make(key, || match &source.file {
            None => take(root),
            Some(file) => {
                let mut taking = Taking::default();
                taking.add(root.stat(file));
                Ok(taking.finish())
            }
        })?;
        Ok(stamp.generation().0)
    }

    /// Makes an archive whose files have the stamp `files`.
    pub(super) fn make_live(&self, shelf: &Arc<Shelf>, live: &Live, files: u64) -> Result<Made> {
        let (moment, part) = match live {
            Live::Container(moment, part) => (moment, *part),
            Live::Volume(name) => {
                let stack = Stack::new(vec![shelf.store.volume(name)?.data]);
                return Ok(self.live(export::export(&stack, &Style::Podman)?, files));
            }
        };
        let container = exportable(self.container(shelf, moment)?)?;
        match part {
            Part::Export => {
                let stack = Stack::new(container.dirs);
                Ok(self.live(export::export(&stack, &self.style(shelf, &stack))?, files))
            }
            Part::Full => {
                let stack = Stack::new(container.dirs.clone());
                let mounts = self.mounted(shelf, &container, &stack);
                Ok(self.live(export::full(&stack, &mounts, &self.style(shelf, &stack))?, files))
            }
            Part::Diff => Ok(self.live(self.diff(shelf, &container)?, files)),
            Part::Save => self.draft(shelf, container, files),
        }
    }

    fn live(&self, export: Export, files: u64) -> Made {
        self.note_omitted(&export);
        let stamp = both(export.stamp, files);
        let mtime = Time { nanos: 0, ..export.newest };
        let recipe = Arc::new(export.recipe.if_changed(self.options.changed));
        Made { recipe, mtime, stamp, draft: None }
    }

    /// The writable layer of a container.
    fn diff(&self, shelf: &Shelf, container: &Container) -> Result<Export> {
        if container.dirs.is_empty() {
            return Err(Error::corrupt(&*container.name, "no writable layer"));
        }
        // The names in a diff are the host's, which no store tells: only root is known.
        let style = self.style_with(shelf, Accounts::root_only);
        let below = Stack::new(container.init_dirs.clone());
        let changes = || self.container_changes(shelf, container);
        export::layer_diff(&container.dirs, &below, &style, changes)
    }

    /// What is mounted into a container, as far as it may be shown, sorted by destination: binds only
    /// where the store is that of the host whose files they are.
    pub(super) fn mounts(&self, shelf: &Shelf, container: &Container) -> Vec<Mount> {
        let location = &shelf.store.info().path;
        let is_at_home = store::is_at_home(self.host(), container.home.as_deref(), location);
        let mut mounts = container.mounts.clone();
        mounts.retain(|mount| is_at_home || !matches!(mount.source, MountSource::Bind(_)));
        mounts
    }

    /// Where the files of a mount are.
    ///
    /// # Errors
    /// Fails where there are none, or none that may be shown.
    pub(super) fn mount_source(&self, shelf: &Shelf, mount: &Mount) -> Result<Source> {
        match &mount.source {
            MountSource::Volume(name) => {
                Ok(Source { dir: shelf.store.volume(name)?.data, file: None })
            }
            MountSource::Bind(path) => Ok(Source::from(store::bind(self.host(), path)?)),
            MountSource::Kept(path) => Ok(Source::from(store::bind(Path::new(HERE), path)?)),
        }
    }

    fn host(&self) -> &Path {
        self.options.host.as_deref().unwrap_or(Path::new(HERE))
    }

    /// What is mounted into a container, at the places where that is in `stack`.
    fn mounted(&self, shelf: &Shelf, container: &Container, stack: &Stack) -> Vec<Mounted> {
        let found = self.each_mount(shelf, container, "full.tar", |mount, source| {
            let at = stack.canonical(mount.destination.as_bytes())?;
            let (stack, top) = source.top()?;
            Ok(Mounted { at, stack, top })
        });
        found.into_iter().filter(|mounted| !mounted.at.is_empty()).collect()
    }

    /// What `make` makes of each mount of a container. One of which it makes nothing is told of, as
    /// missing from `whole`.
    pub(super) fn each_mount<T>(
        &self,
        shelf: &Shelf,
        container: &Container,
        whole: &str,
        mut make: impl FnMut(&Mount, Source) -> Result<T>,
    ) -> Vec<T> {
        let mut made = Vec::new();
        for mount in self.mounts(shelf, container) {
            match self.mount_source(shelf, &mount).and_then(|source| make(&mount, source)) {
                Ok(one) => made.push(one),
                Err(err) => {
                    let name = Path::new(&container.name);
                    let place = name.join(mount.destination.trim_start_matches('/'));
                    self.errors.note(&format!("{}: not in {whole}: {err}", place.display()));
                }
            }
        }
        made
    }

    /// An image of the container, before anybody has read its files.
    fn draft(&self, shelf: &Arc<Shelf>, container: Container, files: u64) -> Result<Made> {
        let export = self.diff(shelf, &container)?;
        self.note_omitted(&export);
        let image = container.image.map(|id| shelf.image(id)).transpose()?;
        let mut layers = Vec::new();
        if let Some(loaded) = &image {
            for (index, layer) in loaded.image.layers.iter().enumerate() {
                let archive = Archive::of_layer(loaded.image.id, index, layer);
                layers.push(self.made(shelf, &archive)?.recipe);
            }
        }
        let fitted = image.as_ref().map(|loaded| self.fitted(shelf, loaded)).transpose()?.flatten();
        let made = Timestamp::parse(&container.created).map(|created| created.instant());
        let created = export.newest.max(made.unwrap_or_default());
        let diff = export.recipe.if_changed(Changed::Refuse);
        let draft = Draft {
            container,
            image,
            fitted,
            layers,
            diff: (!export.is_empty).then(|| Arc::new(diff)),
            created,
            conventions: shelf.store.info().conventions,
            flavour: self.flavour(shelf),
        };
        let recipe = Arc::new(draft.sketch()?);
        let mtime = Time { nanos: 0, ..created };
        let stamp = both(export.stamp, files);
        Ok(Made { recipe, mtime, stamp, draft: Some(Arc::new(draft)) })
    }
}

/// Refuses what an engine refuses to export.
pub(super) fn exportable(container: Container) -> Result<Container> {
    match container.state {
        State::Dead => Err(Error::busy(
            format!("container {}", container.name),
            format!("You cannot export container {} which is Dead", container.id.hex()),
        )),
        State::Removing => Err(Error::busy(
            format!("container {}", container.name),
            format!("You cannot export container {} which is being removed", container.id.hex()),
        )),
        _ => Ok(container),
    }
}

fn both(a: u64, b: u64) -> u64 {
    let mut both = Fingerprint::new();
    both.add(&a.to_le_bytes());
    both.add(&b.to_le_bytes());
    both.finish().max(1) // 0 stands for what never changes
}

/// A stamp of a directory and all below it, by names and `stat` alone. What is removed meanwhile, or
/// can't be looked at, counts as such.
fn take(root: &Root) -> Result<Stamp> {
    let mut taking = Taking::default();
    taking.add(Ok(root.stat("")?));
    let mut open = vec![PathBuf::new()];
    while let Some(path) = open.pop() {
        let (dir, mut names) = match root.listed_dir(&path) {
            Ok(listed) => listed,
            Err(err) => {
                taking.add(Err(err));
                continue;
            }
        };
        names.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        for entry in names {
            let stat = dir.stat(&entry.name);
            taking.add_name(entry.name.as_encoded_bytes());
            if stat.as_ref().is_ok_and(|stat| stat.is_dir()) {
                open.push(path.join(&entry.name));
            }
            taking.add(stat);
        }
    }
    Ok(taking.finish())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn of_64_who_ask_for_a_diff_one_works_it_out() {
        let dir = tempfile::tempdir().unwrap();
        let layer = |name: &str, count: usize| {
            let path = dir.path().join(name);
            fs::create_dir(&path).unwrap();
            (0..count).for_each(|file| fs::write(path.join(file.to_string()), "x").unwrap());
            let root = Arc::new(Root::open(&path, Access::Live).unwrap());
            let identity = count as u64;
            Stack::new(vec![LayerDir { root, identity, marks: Marks::Complete, owners: None }])
        };
        let (new, old) = (layer("new", 1500), layer("old", 1000));
        let tree = Tree::new(Vec::new(), crate::tree::Options::default());
        let barrier = std::sync::Barrier::new(64);
        let ask = || {
            barrier.wait();
            tree.changes(("store".to_owned(), "container".to_owned(), 1), &new, &old).unwrap()
        };
        let answers: Vec<Arc<Changes>> = std::thread::scope(|scope| {
            let readers: Vec<_> = (0..64).map(|_| scope.spawn(ask)).collect();
            readers.into_iter().map(|reader| reader.join().unwrap()).collect()
        });
        assert!(answers[0].iter().count() >= 500);
        assert!(answers.iter().all(|answer| Arc::ptr_eq(answer, &answers[0])));
    }

    #[test]
    fn every_change_below_moves_the_stamp() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        fs::create_dir_all(at("a/b/c")).unwrap();
        fs::write(at("a/b/c/file"), "x").unwrap();
        let root = Root::open(dir.path(), Access::Live).unwrap();
        let stamp = || take(&root).unwrap().files;
        let before = stamp();
        assert_eq!(stamp(), before);
        let mut seen = vec![before];
        let changes: [&dyn Fn(); 6] = [
            &|| fs::write(at("a/b/c/file"), "yy").unwrap(),
            &|| fs::set_permissions(at("a/b/c/file"), fs::Permissions::from_mode(0o600)).unwrap(),
            &|| fs::hard_link(at("a/b/c/file"), at("a/b/link")).unwrap(),
            &|| fs::rename(at("a/b/c"), at("a/b/d")).unwrap(),
            &|| fs::remove_file(at("a/b/d/file")).unwrap(),
            &|| fs::create_dir(at("a/b/d/e")).unwrap(),
        ];
        for change in changes {
            change();
            assert!(!seen.contains(&stamp()));
            seen.push(stamp());
        }
    }
}

//! Where a graph driver keeps the files of a layer: `overlay2` and `vfs`.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use lru::LruCache;

use super::config::LAYERS_MAX;
use super::files::{if_found, required};
use crate::backing::{Access, Fingerprint, Root};
use crate::error::{Error, Result};
use crate::store::{Directories, GraphDriver, LayerDir, Marks};

/// Most directories of layers that are kept open for reuse.
const OPEN_MAX: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// Longest `lower` file, in bytes: 500 entries of `l/` and 26 letters, with colons.
const LOWER_MAX: u64 = 29 * LAYERS_MAX as u64;

/// Length of the short names under `overlay2/l` (moby overlay2, `idLength`).
const LINK_LENGTH: usize = 26;

/// A graph driver that stratafs reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Driver {
    /// Docker: one directory of changes per layer, marked as overlayfs marks them.
    Overlay2(Marks),
    /// containers/storage: the same under another name.
    Overlay(Marks),
    /// One full copy per layer.
    Vfs,
}

impl Driver {
    /// The engine's name for it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Driver::Overlay2(_) => "overlay2",
            Driver::Overlay(_) => "overlay",
            Driver::Vfs => "vfs",
        }
    }

    /// Its directory in the data root.
    pub(super) fn home(self) -> &'static str {
        match self {
            Driver::Overlay2(_) => "overlay2",
            Driver::Overlay(_) => "overlay",
            Driver::Vfs => "vfs/dir",
        }
    }

    /// Where it keeps the files of the layer `id`, in its directory.
    fn files(self, id: &DirId) -> String {
        match self {
            Driver::Overlay2(_) | Driver::Overlay(_) => format!("{id}/diff"),
            Driver::Vfs => id.to_string(),
        }
    }

    /// What `docker inspect` tells of `dirs`, topmost first (moby `overlay2.GetMetadata`).
    pub(super) fn describe(self, dirs: &[LayerDir]) -> GraphDriver {
        let shown = |path: &Path| path.to_string_lossy().into_owned();
        let directories = match (self, dirs) {
            (Driver::Overlay2(_) | Driver::Overlay(_), [top, below @ ..]) => {
                let beside = |name| shown(&top.root.path().with_file_name(name));
                let below: Vec<String> = below.iter().map(|dir| shown(dir.root.path())).collect();
                Some(Directories {
                    lower: below.join(":"),
                    merged: beside("merged"),
                    upper: shown(top.root.path()),
                    work: beside("work"),
                })
            }
            (Driver::Overlay2(_) | Driver::Overlay(_) | Driver::Vfs, _) => None,
        };
        GraphDriver { name: self.name().to_owned(), directories }
    }

    fn marks(self) -> Marks {
        match self {
            Driver::Overlay2(marks) | Driver::Overlay(marks) => marks,
            Driver::Vfs => Marks::Complete,
        }
    }

    fn dir(self, id: &DirId, root: Arc<Root>, seed: u64) -> LayerDir {
        let mut identity = Fingerprint::new();
        identity.add(&seed.to_le_bytes());
        identity.add(self.name().as_bytes());
        identity.add(id.0.as_bytes());
        LayerDir { root, identity: identity.finish(), marks: self.marks() }
    }
}

/// A driver's name for a layer's directory: 64 hex digits, `BuildKit`'s 25 letters and
/// digits, either with `-init` behind it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct DirId(String);

impl DirId {
    /// Parses a name that is one plain path component, and not the `l` of overlay2.
    pub(super) fn parse(text: &str) -> Option<DirId> {
        let stem = text.strip_suffix("-init").unwrap_or(text);
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let good = (1..=64).contains(&stem.len()) && stem.bytes().all(plain) && text != "l";
        good.then(|| DirId(text.to_owned()))
    }
}

impl fmt::Display for DirId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The entries of a `lower` file, `l/AAA:l/BBB`, topmost first, without the `l/`; `None` where
/// they are not that.
fn parse_lower(text: &[u8]) -> Option<Vec<String>> {
    let text = std::str::from_utf8(text).ok()?;
    text.split(':').map(|entry| entry.strip_prefix("l/").filter(|link| is_link(link))).try_fold(
        Vec::new(),
        |mut links, link| {
            links.push(link?.to_owned());
            Some(links)
        },
    )
}

fn is_link(link: &str) -> bool {
    let base32 = |byte: u8| byte.is_ascii_uppercase() || (b'2'..=b'7').contains(&byte);
    link.len() == LINK_LENGTH && link.bytes().all(base32)
}

/// The directory that the target of a link under `l` names: exactly `../<id>/diff`.
fn parse_link_target(target: &[u8]) -> Option<DirId> {
    let target = std::str::from_utf8(target).ok()?;
    DirId::parse(target.strip_prefix("../")?.strip_suffix("/diff")?)
}

/// Directories of layers that nobody writes to, opened once for all images that share them.
#[derive(Debug)]
pub(super) struct OpenLayers(Mutex<Opened>);

#[derive(Debug)]
struct Opened {
    /// Every directory that anybody has open, by path in the driver's directory.
    all: HashMap<String, OpenLayer>,
    /// Those kept open though nobody may use them now.
    recent: LruCache<String, Arc<Root>>,
    /// How many `all` may hold before it is searched for those that were closed.
    limit: usize,
}

#[derive(Debug)]
struct OpenLayer {
    /// Device and inode number that the path had, to tell whether it still is the same directory.
    identity: (u64, u64),
    root: Weak<Root>,
}

impl OpenLayers {
    pub(super) fn new() -> OpenLayers {
        let recent = LruCache::new(OPEN_MAX);
        let limit = 2 * OPEN_MAX.get();
        OpenLayers(Mutex::new(Opened { all: HashMap::new(), recent, limit }))
    }

    fn open(&self, home: &Root, path: String) -> Result<Arc<Root>> {
        let stat = required(home.stat(&path))?;
        let identity = (stat.dev, stat.ino);
        if let Some(root) = self.lock().find(&path, identity) {
            return Ok(root);
        }
        let root = Arc::new(required(home.sub(&path, Access::Sealed))?);
        self.lock().insert(path, identity, &root);
        Ok(root)
    }

    fn lock(&self) -> MutexGuard<'_, Opened> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Opened {
    fn find(&mut self, path: &str, identity: (u64, u64)) -> Option<Arc<Root>> {
        let layer = self.all.get(path).filter(|layer| layer.identity == identity)?;
        let root = layer.root.upgrade()?;
        self.recent.put(path.to_owned(), root.clone());
        Some(root)
    }

    fn insert(&mut self, path: String, identity: (u64, u64), root: &Arc<Root>) {
        if self.all.len() >= self.limit {
            self.all.retain(|_, layer| layer.root.strong_count() > 0);
            self.limit = 2 * self.all.len().max(OPEN_MAX.get());
        }
        self.recent.put(path.clone(), root.clone());
        self.all.insert(path, OpenLayer { identity, root: Arc::downgrade(root) });
    }
}

/// A driver's directory while one image or container is read from it.
#[derive(Debug)]
pub(super) struct Home<'a> {
    driver: Driver,
    root: &'a Root,
    open: &'a OpenLayers,
    /// Tells its directories from those of the same names elsewhere.
    seed: u64,
    /// What was read of `lower` files and found good.
    known: HashMap<DirId, Lower>,
    /// What was opened.
    sealed: HashMap<DirId, LayerDir>,
}

/// What a `lower` file says: names under `l`, topmost first, and the directories they lead to.
#[derive(Debug)]
struct Lower {
    links: Vec<String>,
    dirs: Vec<DirId>,
}

impl<'a> Home<'a> {
    /// The directory `root` of `driver`. `seed` goes into the identity of what is found in it: 0
    /// where names of directories are random, and no store has those of another.
    pub(super) fn new(driver: Driver, root: &'a Root, open: &'a OpenLayers, seed: u64) -> Home<'a> {
        Home { driver, root, open, seed, known: HashMap::new(), sealed: HashMap::new() }
    }

    /// The files of the layer `id` and of those below it, as the driver would mount them: its own
    /// first.
    pub(super) fn layer(&mut self, id: &DirId) -> Result<Vec<LayerDir>> {
        let mut dirs = vec![self.sealed(id)?];
        for lower in self.below(id)? {
            dirs.push(self.sealed(&lower)?);
        }
        Ok(dirs)
    }

    /// The same for a layer of an image that has `below` layers below it.
    pub(super) fn image_layer(&mut self, id: &DirId, below: usize) -> Result<Vec<LayerDir>> {
        let dirs = self.layer(id)?;
        if self.driver != Driver::Vfs && dirs.len() != below + 1 {
            let path = self.root.path().join(format!("{id}/lower"));
            let why = format!("lists {} directories for {below} layers", dirs.len() - 1);
            return Err(Error::corrupt(path, why));
        }
        Ok(dirs)
    }

    /// The same for a layer that lies right upon `parent`.
    pub(super) fn layer_upon(
        &mut self,
        id: &DirId,
        parent: Option<&DirId>,
    ) -> Result<Vec<LayerDir>> {
        self.check_parent(id, parent)?;
        self.layer(id)
    }

    /// A container's writable layer `upper` in the directory `id`, and what is merged below it:
    /// the directory `lower` and the rest of `dirs`.
    pub(super) fn container(
        &mut self,
        id: &DirId,
        upper: LayerDir,
        lower: Option<&DirId>,
        dirs: &[LayerDir],
    ) -> Result<Vec<LayerDir>> {
        if self.driver == Driver::Vfs {
            return Ok(vec![upper]);
        }
        self.check_parent(id, lower)?;
        Ok(std::iter::once(upper).chain(dirs.iter().cloned()).collect())
    }

    /// The files of a container's writable layer.
    ///
    /// # Errors
    /// ENOENT where there are none.
    pub(super) fn writable(&self, id: &DirId) -> Result<LayerDir> {
        let root = self.root.sub(self.driver.files(id), Access::Live)?;
        Ok(self.driver.dir(id, Arc::new(root), self.seed))
    }

    /// Holds the `lower` file of `id` to what the engine's lists say of it.
    fn check_parent(&mut self, id: &DirId, parent: Option<&DirId>) -> Result<()> {
        if self.driver == Driver::Vfs || self.below(id)?.first() == parent {
            return Ok(());
        }
        let path = self.root.path().join(format!("{id}/lower"));
        Err(Error::corrupt(path, "does not begin with the layer that should be below"))
    }

    fn sealed(&mut self, id: &DirId) -> Result<LayerDir> {
        if let Some(dir) = self.sealed.get(id) {
            return Ok(dir.clone());
        }
        let root = self.open.open(self.root, self.driver.files(id))?;
        let dir = self.driver.dir(id, root, self.seed);
        self.sealed.insert(id.clone(), dir.clone());
        Ok(dir)
    }

    /// The directories merged below `id`, topmost first; none where each holds everything itself.
    ///
    /// Docker writes a `lower` file as the name of the directory below and then that one's own
    /// `lower`, so a file that was cut or exchanged disagrees with the next one.
    fn below(&mut self, id: &DirId) -> Result<Vec<DirId>> {
        if self.driver == Driver::Vfs {
            return Ok(Vec::new());
        }
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
                let path = self.root.path().join(format!("{id}/lower"));
                return Err(Error::corrupt(path, format!("disagrees with {dir}/lower")));
            }
            dirs.push(dir);
        }
        self.known.insert(id.clone(), Lower { links, dirs: dirs.clone() });
        Ok(dirs)
    }

    fn links(&self, id: &DirId) -> Result<Vec<String>> {
        let path = format!("{id}/lower");
        let Some(text) = if_found(self.root.read(&path, LOWER_MAX))? else {
            return Ok(Vec::new()); // the lowest layer has none
        };
        parse_lower(&text)
            .ok_or_else(|| Error::corrupt(self.root.path().join(path), "not a list of l/NAME"))
    }

    fn follow(&self, link: &str) -> Result<DirId> {
        let target = required(self.root.dir("l")?.read_link(OsStr::new(link)))?;
        parse_link_target(&target).ok_or_else(|| {
            let path = self.root.path().join("l").join(link);
            Error::corrupt(path, "does not lead to ../<id>/diff")
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_parsed_stays_in_the_driver_s_directory(bytes: Vec<u8>, text in "[a-z./:A-Z-]*") {
            for bytes in [bytes.as_slice(), text.as_bytes(), format!("../{text}/diff").as_bytes()] {
                for link in parse_lower(bytes).unwrap_or_default() {
                    prop_assert!(is_link(&link));
                }
                let texts = [std::str::from_utf8(bytes).unwrap_or_default()];
                let ids = texts.into_iter().filter_map(DirId::parse).chain(parse_link_target(bytes));
                for id in ids {
                    prop_assert!(!id.0.is_empty() && !id.0.contains(['/', '.', '\0']) && id.0 != "l");
                }
            }
        }
    }

    #[test]
    fn a_directory_is_named_as_docker_or_buildkit_do() {
        for name in [&"0af".repeat(21), "1zsq3v8tyezwkrlyzpcgnbwfg", "0af-init"] {
            assert!(DirId::parse(name).is_some(), "{name}");
        }
        let long = "a".repeat(65);
        for name in ["", "-init", "l", "..", "a/b", "A", "a.b", "a-b", "a-init-init", &long] {
            assert!(DirId::parse(name).is_none(), "{name}");
        }
    }
}

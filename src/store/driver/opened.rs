//! Directories of layers, kept open.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use lru::LruCache;

use crate::backing::{Access, Root};
use crate::error::Result;
use crate::store::files::required;

/// Most directories of layers that are kept open for reuse.
const OPEN_MAX: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// How many of those kept open are looked at for each that is opened, about, whether they were
/// removed: of so few all, each time.
const LOOKS: usize = 16;

/// Directories of layers that nobody writes to, opened once for all images that share them.
#[derive(Debug)]
pub(in crate::store) struct OpenLayers(Mutex<Opened>);

#[derive(Debug)]
struct Opened {
    /// Every directory that anybody has open, by path in one of the driver's directories.
    all: HashMap<String, OpenLayer>,
    /// Those kept open though nobody may use them now.
    recent: LruCache<String, Arc<Root>>,
    /// How many `all` may hold before it is searched for those that were closed.
    limit: usize,
    /// How many were opened since `recent` was looked at.
    unseen: usize,
}

#[derive(Debug)]
struct OpenLayer {
    /// Device and inode number that the path had, to tell whether it still is the same directory.
    identity: (u64, u64),
    root: Weak<Root>,
}

impl OpenLayers {
    pub(in crate::store) fn new() -> OpenLayers {
        let recent = LruCache::new(OPEN_MAX);
        let limit = 2 * OPEN_MAX.get();
        OpenLayers(Mutex::new(Opened { all: HashMap::new(), recent, limit, unseen: 0 }))
    }

    /// The directory `path` of `home`, which is the `at`-th that the driver keeps layers in.
    pub(in crate::store) fn open(&self, home: &Root, at: usize, path: &str) -> Result<Arc<Root>> {
        let stat = required(home.stat(path))?;
        let identity = (stat.dev, stat.ino);
        let key = format!("{at}/{path}");
        if let Some(root) = self.lock().find(&key, identity) {
            return Ok(root);
        }
        let root = Arc::new(required(home.sub(path, Access::Sealed))?);
        self.lock().insert(key, identity, &root);
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
        self.unseen += 1;
        if self.unseen * LOOKS >= self.recent.len() {
            self.unseen = 0;
            self.close_removed();
        }
        self.recent.put(path.clone(), root.clone());
        self.all.insert(path, OpenLayer { identity, root: Arc::downgrade(root) });
    }

    fn close_removed(&mut self) {
        let removed = self.recent.iter().filter(|(_, root)| root.is_removed());
        for path in removed.map(|(path, _)| path.clone()).collect::<Vec<_>>() {
            self.recent.pop(&path);
        }
    }
}

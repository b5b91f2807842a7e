//! Several stores in one mount: each engine's directory is a name at the first level, and where that
//! has several namespaces, each is a tree of its own below it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::journal::Journal;
use super::names::Filter;
use super::shelf::Shelf;
use super::{CHECKED, Tree};
use crate::error::Result;
use crate::store::LayerStore;

/// What one engine keeps in one directory.
#[derive(Debug)]
pub(super) struct Engine {
    /// The first part of its paths, where the mount has several.
    pub(super) name: String,
    current: Mutex<Current>,
    /// Whether what happens to its stores is listened to.
    is_watched: AtomicBool,
    filter: Filter,
    errors: Arc<Journal>,
}

/// The stores of one engine at one moment.
#[derive(Debug, Clone)]
struct Current {
    /// One, or one for each of its namespaces; there is always one.
    shelves: Vec<Arc<Shelf>>,
    checked: Option<Instant>,
}

impl Engine {
    fn new(
        name: String,
        stores: Vec<Arc<dyn LayerStore>>,
        filter: Filter,
        errors: Arc<Journal>,
    ) -> Engine {
        let current = Mutex::new(Current { shelves: Vec::new(), checked: None });
        let is_watched = AtomicBool::new(false);
        let engine = Engine { name, current, is_watched, filter, errors };
        let shelves = stores.into_iter().map(|store| engine.shelf(store)).collect();
        engine.lock().shelves = shelves;
        engine
    }

    /// Whether one of its stores, as far as they are known, was read anew since this was asked of it.
    pub(super) fn take_news(&self) -> bool {
        let known = self.lock().shelves.clone();
        known.iter().any(|shelf| shelf.take_news())
    }

    /// Its stores, at most [`CHECKED`] old: one that came to hold something is there, and one that
    /// is empty is not, unless the user named the ones to be shown.
    pub(super) fn shelves(&self) -> Vec<Arc<Shelf>> {
        let Current { shelves: known, checked } = self.lock().clone();
        let is_settled = !self.filter.namespaces.is_empty();
        if is_settled || checked.is_some_and(|checked| checked.elapsed() < CHECKED) {
            return known;
        }
        let checked = Some(Instant::now());
        // Where nobody can tell, whoever looks into one that is known is told why.
        let Some(shelves) = self.look(&known).unwrap_or_default() else { return known };
        *self.lock() = Current { shelves: shelves.clone(), checked };
        shelves
    }

    /// The stores of the namespaces that are used now; `None` where there are none but `known`.
    fn look(&self, known: &[Arc<Shelf>]) -> Result<Option<Vec<Arc<Shelf>>>> {
        let Some(first) = known.first() else { return Ok(None) };
        let Some(names) = first.store.namespaces()? else { return Ok(None) };
        let shelf = |name: &String| match find(known, name) {
            Some(shelf) => Ok(Arc::clone(shelf)),
            None => Ok(self.shelf(first.store.in_namespace(name)?)),
        };
        names.iter().map(shelf).collect::<Result<_>>().map(Some)
    }

    /// The store that is its whole tree; `None` where it has several.
    pub(super) fn only(&self) -> Option<Arc<Shelf>> {
        <[_; 1]>::try_from(self.shelves()).ok().map(|[only]| only)
    }

    /// The names of its namespaces.
    pub(super) fn namespaces(&self) -> Vec<String> {
        let shelves = self.shelves();
        shelves.iter().filter_map(|shelf| shelf.namespace()).map(str::to_owned).collect()
    }

    pub(super) fn namespace(&self, name: &str) -> Option<Arc<Shelf>> {
        find(&self.shelves(), name).cloned()
    }

    /// Listens from now on to what happens to its stores, those that come later included.
    pub(super) fn watch(&self) {
        self.is_watched.store(true, Ordering::Relaxed);
        let shelves = self.lock().shelves.clone();
        shelves.iter().for_each(|shelf| shelf.watch());
    }

    /// Forgets what is known, so that the next look reads its stores again.
    pub(super) fn refresh(&self) {
        let mut current = self.lock();
        current.checked = None;
        current.shelves.iter().for_each(|shelf| shelf.refresh());
    }

    fn shelf(&self, store: Arc<dyn LayerStore>) -> Arc<Shelf> {
        let name = match &store.info().namespace {
            Some(namespace) => format!("{}/{namespace}", self.name),
            None => self.name.clone(),
        };
        let shelf = Shelf::new(name, store, self.filter.clone(), Arc::clone(&self.errors));
        if self.is_watched.load(Ordering::Relaxed) {
            shelf.watch();
        }
        Arc::new(shelf)
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn find<'a>(shelves: &'a [Arc<Shelf>], namespace: &str) -> Option<&'a Arc<Shelf>> {
    shelves.iter().find(|shelf| shelf.namespace() == Some(namespace))
}

impl Tree {
    /// Every store, with the path in the tree at which it is shown: `""` where that is the root.
    #[must_use]
    pub fn stores(&self) -> Vec<(String, Arc<dyn LayerStore>)> {
        let shelves = self.shelves().into_iter();
        shelves.map(|(path, shelf)| (path, Arc::clone(&shelf.store))).collect()
    }

    /// The same, with what is known of them.
    pub(super) fn shelves(&self) -> Vec<(String, Arc<Shelf>)> {
        let mut placed = Vec::new();
        for engine in &self.engines {
            let above = if self.engines.len() > 1 { engine.name.as_str() } else { "" };
            let shelves = engine.shelves();
            for shelf in &shelves {
                let below = match shelf.namespace() {
                    Some(namespace) if shelves.len() > 1 => format!("namespaces/{namespace}"),
                    _ => String::new(),
                };
                let slash = if above.is_empty() || below.is_empty() { "" } else { "/" };
                placed.push((format!("{above}{slash}{below}"), Arc::clone(shelf)));
            }
        }
        placed
    }
}

/// The stores by engine, in the order in which they were given. Of several directories of one kind
/// the first is named after it, and those after it `docker-2`, `docker-3`.
pub(super) fn arrange(
    stores: Vec<Arc<dyn LayerStore>>,
    filter: &Filter,
    errors: &Arc<Journal>,
) -> Vec<Arc<Engine>> {
    let mut groups: Vec<Vec<Arc<dyn LayerStore>>> = Vec::new();
    for store in stores {
        let known =
            groups.iter_mut().find(|group| group.iter().all(|one| is_beside(&**one, &*store)));
        match known {
            Some(group) => group.push(store),
            None => groups.push(vec![store]),
        }
    }
    let mut engines: Vec<Arc<Engine>> = Vec::new();
    let mut kinds: Vec<&'static str> = Vec::new();
    for group in groups {
        let Some(kind) = group.first().map(|store| store.info().kind) else { continue };
        kinds.push(kind);
        let name = match kinds.iter().filter(|known| **known == kind).count() {
            1 => kind.to_owned(),
            count => format!("{kind}-{count}"),
        };
        engines.push(Arc::new(Engine::new(name, group, filter.clone(), Arc::clone(errors))));
    }
    engines
}

/// Whether two stores are namespaces of one directory.
fn is_beside(one: &dyn LayerStore, other: &dyn LayerStore) -> bool {
    let (one, other) = (one.info(), other.info());
    let both = one.namespace.as_ref().zip(other.namespace.as_ref());
    one.kind == other.kind
        && one.path == other.path
        && both.is_some_and(|(one, other)| one != other)
}

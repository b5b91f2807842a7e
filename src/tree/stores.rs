//! Several stores in one mount: each engine's directory is a name at the first level, and where that
//! has several namespaces, each is a tree of its own below it.

use std::sync::Arc;

use super::Tree;
use super::journal::Journal;
use super::names::Filter;
use super::node::Place;
use super::shelf::Shelf;
use crate::store::LayerStore;

/// What one engine keeps in one directory.
#[derive(Debug)]
pub(super) struct Engine {
    /// The first part of its paths, where the mount has several.
    pub(super) name: String,
    /// Its stores: one, or one for each of its namespaces.
    pub(super) shelves: Vec<Arc<Shelf>>,
}

impl Engine {
    /// What its directory shows: the tree itself where there is but one.
    pub(super) fn place(self: &Arc<Self>) -> Place {
        match &self.shelves[..] {
            [only] => Place::Store(Arc::clone(only)),
            _ => Place::Engine(Arc::clone(self)),
        }
    }

    /// The names of its namespaces.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = &str> {
        self.shelves.iter().filter_map(|shelf| shelf.namespace())
    }

    pub(super) fn namespace(&self, name: &str) -> Option<&Arc<Shelf>> {
        self.shelves.iter().find(|shelf| shelf.namespace() == Some(name))
    }
}

impl Tree {
    /// Every store, with the path in the tree at which it is shown: `""` where that is the root.
    pub fn stores(&self) -> impl Iterator<Item = (String, &Arc<dyn LayerStore>)> {
        let has_several = self.engines.len() > 1;
        self.engines.iter().flat_map(move |engine| {
            let above = if has_several { engine.name.as_str() } else { "" };
            engine.shelves.iter().map(move |shelf| {
                let below = match shelf.namespace() {
                    Some(namespace) if engine.shelves.len() > 1 => {
                        format!("namespaces/{namespace}")
                    }
                    _ => String::new(),
                };
                let slash = if above.is_empty() || below.is_empty() { "" } else { "/" };
                (format!("{above}{slash}{below}"), &shelf.store)
            })
        })
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
        let has_several = group.len() > 1;
        let shelf = |store: Arc<dyn LayerStore>| {
            let name = match &store.info().namespace {
                Some(namespace) if has_several => format!("{name}/{namespace}"),
                _ => name.clone(),
            };
            Arc::new(Shelf::new(name, store, filter.clone(), Arc::clone(errors)))
        };
        let shelves = group.into_iter().map(shelf).collect();
        engines.push(Arc::new(Engine { name, shelves }));
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

//! `pods/NAMESPACE/POD/CONTAINER`: containers where Kubernetes has them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Tree;
use super::names::{cut, is_entry};
use super::node::Place;
use super::places::{Item, Listed};
use super::shelf::Shelf;
use crate::digest::ContainerId;
use crate::error::Result;
use crate::store::{Catalog, ContainerSummary};
use crate::time::Timestamp;

/// The containers of one name in a pod: Kubernetes keeps those that it has restarted.
type Runs = Vec<(ContainerId, String)>;

/// By namespace, pod and the container's name there, each as it is listed.
#[derive(Debug, Default)]
pub(super) struct Pods(BTreeMap<String, BTreeMap<String, BTreeMap<String, Runs>>>);

impl Pods {
    pub(super) fn new(catalog: &Catalog) -> Pods {
        let mut pods = Pods::default();
        for container in &catalog.containers {
            if let Some([namespace, pod, name]) = names(container) {
                let pod = pods.0.entry(namespace).or_default().entry(pod).or_default();
                pod.entry(name).or_default().push((container.id, container.name.clone()));
            }
        }
        pods
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The names that lead to a container; `None` where it is in no pod, or one can be no file's name:
/// they are labels, which anybody may write.
fn names(container: &ContainerSummary) -> Option<[String; 3]> {
    let pod = container.pod.as_ref()?;
    let names = [&pod.namespace, &pod.name, &pod.container];
    names.iter().all(|name| is_entry(name)).then(|| names.map(|name| cut(name)))
}

impl Tree {
    pub(super) fn list_pods(&self, shelf: &Arc<Shelf>, path: &[String]) -> Result<Vec<Listed>> {
        let names = shelf.names()?;
        let pods = &names.pods().0;
        Ok(match path {
            [] => pods.keys().map(Listed::directory).collect(),
            [namespace] => pods
                .get(namespace)
                .into_iter()
                .flat_map(BTreeMap::keys)
                .map(Listed::directory)
                .collect(),
            [namespace, pod, ..] => {
                let containers = pods.get(namespace).and_then(|pods| pods.get(pod));
                let containers = containers.into_iter().flatten();
                let links = containers.flat_map(|(name, runs)| links(shelf, name, runs));
                links.map(|(name, _)| Listed::link(name)).collect()
            }
        })
    }

    pub(super) fn pods_item(
        &self,
        shelf: &Arc<Shelf>,
        path: &[String],
        name: &str,
    ) -> Result<Option<Item>> {
        let names = shelf.names()?;
        let pods = &names.pods().0;
        let below = || {
            let path = path.iter().cloned().chain([name.to_owned()]).collect();
            Some(Item::Place(Place::Pods(shelf.clone(), path), self.started))
        };
        Ok(match path {
            [] => pods.get(name).and_then(|_| below()),
            [namespace] => {
                pods.get(namespace).and_then(|pods| pods.get(name)).and_then(|_| below())
            }
            [namespace, pod, ..] => {
                let containers = pods.get(namespace).and_then(|pods| pods.get(pod));
                let mut links = containers
                    .into_iter()
                    .flatten()
                    .flat_map(|(name, runs)| links(shelf, name, runs));
                let found = links.find(|(known, _)| known == name);
                found.map(|(_, target)| Item::Link(format!("../../../containers/{target}")))
            }
        })
    }
}

/// The links to the containers of one name: the newest has it, those before it have `~` and 12
/// digits of their IDs behind it.
fn links(shelf: &Shelf, name: &str, runs: &Runs) -> Vec<(String, String)> {
    let created = |id: ContainerId| {
        let container = shelf.container(id).ok()?;
        Timestamp::parse(&container.created).map(|created| created.instant())
    };
    let newest = match &runs[..] {
        [(only, _)] => Some(*only),
        _ => runs.iter().map(|(id, _)| *id).max_by_key(|id| created(*id)),
    };
    let link = |(id, target): &(ContainerId, String)| match Some(*id) == newest {
        true => (name.to_owned(), target.clone()),
        false => (cut(&format!("{name}~{}", &id.hex()[..12])), target.clone()),
    };
    runs.iter().map(link).collect()
}

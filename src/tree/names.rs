//! Names of images and containers: what `images/` lists, and every spelling that is found there.
//!
//! A reference `ghcr.io/org/app:v1` is the entry `app:v1` of the directory `ghcr.io/org/`, beside
//! `app`, its repository, which may be a directory of the path of others (`ghcr.io/org/app/web`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::pods::Pods;
use crate::digest::{ContainerId, Digest, ImageId};
use crate::error::Error;
use crate::reference::{self, Reference};
use crate::store::{Catalog, ContainerSummary};

/// Longest name of a directory entry, in bytes (Linux `NAME_MAX`).
const NAME_MAX: usize = 255;

/// Which images, containers and namespaces are shown; an empty list means all.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Namespaces: those of the stores that the tree is made of, and no other that comes to be used.
    pub namespaces: Vec<String>,
    /// Patterns of references; an image with no reference that fits is not shown.
    pub images: Vec<glob::Pattern>,
    /// Patterns of container names.
    pub containers: Vec<glob::Pattern>,
}

/// What a name in `images/` is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// One reference, as the store writes it.
    Reference(String, ImageId),
    /// A repository in its familiar form, with its newest or `latest` reference's image.
    Repository(String),
    /// A part of the path of others, with its ending slash.
    Prefix(String),
    /// An image by its ID.
    Id(ImageId),
}

/// The names of one store at one moment.
#[derive(Debug)]
pub(super) struct Names {
    catalog: Catalog,
    /// The image that each was made from, shown or not.
    parents: BTreeMap<ImageId, ImageId>,
    pods: Pods,
    /// By familiar name: its references, sorted.
    repositories: BTreeMap<String, Vec<(Reference, String, ImageId)>>,
    /// By full name: the familiar one.
    canonical: BTreeMap<String, String>,
    /// By directory (`""`, `ghcr.io/`): the names in it, whole.
    directories: BTreeMap<String, BTreeSet<String>>,
}

impl Names {
    pub(super) fn new(mut catalog: Catalog, filter: &Filter) -> Names {
        let parents = catalog.images.iter().filter_map(|(id, parent)| Some((*id, (*parent)?)));
        let parents = parents.collect();
        filter.apply(&mut catalog);
        let mut names = Names {
            parents,
            pods: Pods::new(&catalog),
            repositories: BTreeMap::new(),
            canonical: BTreeMap::new(),
            directories: BTreeMap::from([(String::new(), BTreeSet::new())]),
            catalog,
        };
        for (text, id) in &names.catalog.references {
            // The store has refused what is no reference.
            let Ok(reference) = Reference::parse(text) else { continue };
            let familiar = reference.name.familiar();
            names.canonical.insert(reference.name.to_string(), familiar.clone());
            names.repositories.entry(familiar).or_default().push((reference, text.clone(), *id));
        }
        for (repository, references) in &names.repositories {
            list(&mut names.directories, repository);
            let has_tags = references.iter().any(|(reference, ..)| reference.tag.is_some());
            for (reference, text, _) in references {
                if reference.tag.is_some() || !has_tags {
                    list(&mut names.directories, text);
                }
            }
        }
        names
    }

    pub(super) fn images(&self) -> impl Iterator<Item = ImageId> {
        self.catalog.images.keys().copied()
    }

    pub(super) fn has_image(&self, id: ImageId) -> bool {
        self.catalog.images.contains_key(&id)
    }

    /// The image that has that ID, or that the engine knows by that digest as well.
    pub(super) fn image(&self, id: ImageId) -> Option<ImageId> {
        self.catalog.image(id)
    }

    /// The image that another was made from, where the store knows it.
    pub(super) fn parent(&self, id: ImageId) -> Option<ImageId> {
        self.parents.get(&id).copied()
    }

    pub(super) fn containers(&self) -> &[ContainerSummary] {
        &self.catalog.containers
    }

    /// Where containers stand in Kubernetes.
    pub(super) fn pods(&self) -> &Pods {
        &self.pods
    }

    pub(super) fn has_pods(&self) -> bool {
        !self.pods.is_empty()
    }

    pub(super) fn volumes(&self) -> &[String] {
        &self.catalog.volumes
    }

    pub(super) fn damaged(&self) -> impl Iterator<Item = &Arc<Error>> {
        self.catalog.damaged.iter()
    }

    /// The names in a directory of `images/`, as they are listed, with what each is.
    pub(super) fn listing(&self, directory: &str) -> impl Iterator<Item = (String, Found)> {
        let names = self.directories.get(directory);
        names.into_iter().flatten().filter_map(move |name| {
            let found = self.exactly(&format!("{directory}{name}"))?;
            Some((cut(name), found))
        })
    }

    /// What `name` in a directory of `images/` stands for, in any spelling.
    pub(super) fn find(&self, directory: &str, name: &str) -> Option<Found> {
        let full = format!("{directory}{name}");
        if let Some(found) = self.exactly(&full).or_else(|| self.normalised(&full)) {
            return Some(found);
        }
        if name.len() <= NAME_MAX && name.contains('~') {
            let whole = self.directories.get(directory)?.iter().find(|whole| cut(whole) == name)?;
            return self.exactly(&format!("{directory}{whole}"));
        }
        if directory.is_empty() {
            return self.catalog.find_image(name).ok().map(Found::Id);
        }
        None
    }

    fn exactly(&self, full: &str) -> Option<Found> {
        if let Some(id) = self.catalog.references.get(full) {
            return Some(Found::Reference(full.to_owned(), *id));
        }
        if self.repositories.contains_key(full) {
            return Some(Found::Repository(full.to_owned()));
        }
        let prefix = format!("{full}/");
        self.directories.contains_key(&prefix).then_some(Found::Prefix(prefix))
    }

    /// Other spellings: `docker.io/library/busybox`, `name@sha256:..`, `docker.io`.
    fn normalised(&self, full: &str) -> Option<Found> {
        if let Ok(reference) = Reference::parse(full) {
            if is_name_only(&reference) {
                if let Some(familiar) = self.canonical.get(&reference.name.to_string()) {
                    return Some(Found::Repository(familiar.clone()));
                }
            } else if let Some(found) = self.exactly(&reference.familiar()) {
                return Some(found);
            }
        }
        let prefix = reference::directory(full);
        let next = self.canonical.range(prefix.clone()..).next();
        next.filter(|(name, _)| name.starts_with(&prefix))
            .map(|_| Found::Prefix(format!("{full}/")))
    }

    /// The references of a repository, sorted, with their images.
    pub(super) fn references(&self, repository: &str) -> &[(Reference, String, ImageId)] {
        self.repositories.get(repository).map_or(&[], Vec::as_slice)
    }

    /// The repository, in its familiar form, of a reference as the store writes it.
    pub(super) fn repository_of(&self, text: &str) -> Option<&str> {
        let reference = Reference::parse(text).ok()?;
        self.canonical.get(&reference.name.to_string()).map(String::as_str)
    }

    /// All references, sorted.
    pub(super) fn all_references(&self) -> impl Iterator<Item = &str> {
        self.catalog.references.keys().map(String::as_str)
    }

    /// All references to an image, sorted.
    pub(super) fn references_to(&self, id: ImageId) -> impl Iterator<Item = &str> {
        let references = self.catalog.references.iter();
        references.filter(move |(_, image)| **image == id).map(|(text, _)| text.as_str())
    }

    /// The reference that `text` means, in any spelling, if it is to that image.
    pub(super) fn reference_of(&self, text: &str, image: ImageId) -> Option<String> {
        let reference = Reference::parse(text).ok()?;
        let familiar = match is_name_only(&reference) {
            true => format!("{}:latest", reference.name.familiar()),
            false => reference.familiar(),
        };
        self.catalog.references.get(&familiar).filter(|id| **id == image).map(|_| familiar)
    }

    /// A container by ID, name or the unambiguous beginning of its ID.
    pub(super) fn container(&self, name: &str) -> Option<ContainerId> {
        self.catalog.find_container(name).ok().map(|container| container.id)
    }
}

fn is_name_only(reference: &Reference) -> bool {
    reference.tag.is_none() && reference.digest.is_none()
}

impl Filter {
    fn apply(&self, catalog: &mut Catalog) {
        if !self.images.is_empty() {
            catalog.references.retain(|name, _| self.images.iter().any(|glob| glob.matches(name)));
            let named: BTreeSet<_> = catalog.references.values().copied().collect();
            catalog.images.retain(|id, _| named.contains(id));
            catalog.aliases.retain(|_, id| named.contains(id));
        }
        if !self.containers.is_empty() {
            let is_shown = |name: &str| self.containers.iter().any(|glob| glob.matches(name));
            catalog.containers.retain(|container| is_shown(&container.name));
        }
    }
}

/// Enters a whole name into its directory, and that into the one above.
fn list(directories: &mut BTreeMap<String, BTreeSet<String>>, name: &str) {
    let mut rest = name;
    loop {
        let at = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (directory, entry) = rest.split_at(at);
        let is_new = directories.entry(directory.to_owned()).or_default().insert(entry.to_owned());
        match directory.strip_suffix('/') {
            Some(above) if is_new => rest = above,
            _ => return,
        }
    }
}

/// Whether a text that a store gives can be the name of a directory entry.
pub(super) fn is_entry(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\0'])
}

/// Whether a reference is listed as it is written, name by name.
pub(super) fn is_short(reference: &str) -> bool {
    reference.split('/').all(|name| name.len() <= NAME_MAX)
}

/// A name as it is listed: one that is too long for a directory entry is cut.
pub(super) fn cut(name: &str) -> String {
    if name.len() <= NAME_MAX {
        return name.to_owned();
    }
    let mut end = 200;
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}~{}", &name[..end], &Digest::of(name.as_bytes()).hex()[..12])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(digit: char) -> ImageId {
        ImageId::from_hex(&digit.to_string().repeat(64)).unwrap()
    }

    fn names() -> Names {
        let digest = format!("busybox@sha256:{}", "d".repeat(64));
        let only = format!("ghcr.io/org/only@sha256:{}", "e".repeat(64));
        let references = [
            ("busybox:1.36", 'a'),
            ("busybox:latest", 'b'),
            (digest.as_str(), 'a'),
            (only.as_str(), 'c'),
            ("ghcr.io/org/app:v1", 'c'),
            ("ghcr.io/org/app/web:v2", 'c'),
            ("localhost:5000/app:v1", 'c'),
        ];
        let catalog = Catalog {
            images: ['a', 'b', 'c', 'f'].map(|digit| (id(digit), None)).into(),
            references: references.map(|(name, digit)| (name.to_owned(), id(digit))).into(),
            ..Catalog::default()
        };
        Names::new(catalog, &Filter::default())
    }

    fn listed(directory: &str) -> Vec<String> {
        names().listing(directory).map(|(name, _)| name).collect()
    }

    #[test]
    fn registries_and_paths_are_directories() {
        assert_eq!(
            listed(""),
            ["busybox", "busybox:1.36", "busybox:latest", "ghcr.io", "localhost:5000"]
        );
        assert_eq!(listed("ghcr.io/"), ["org"]);
        let only = format!("only@sha256:{}", "e".repeat(64));
        assert_eq!(listed("ghcr.io/org/"), ["app", "app:v1", "only", &only]);
        assert_eq!(listed("ghcr.io/org/app/"), ["web", "web:v2"]);
        assert_eq!(listed("localhost:5000/"), ["app", "app:v1"]);
    }

    #[test]
    fn every_spelling_of_docker_is_found() {
        let names = names();
        let busybox = || Found::Reference("busybox:1.36".into(), id('a'));
        assert_eq!(names.find("", "busybox:1.36"), Some(busybox()));
        assert_eq!(names.find("docker.io/library/", "busybox:1.36"), Some(busybox()));
        assert_eq!(names.find("index.docker.io/library/", "busybox:1.36"), Some(busybox()));
        assert_eq!(names.find("library/", "busybox:1.36"), Some(busybox()));
        let repository = Some(Found::Repository("busybox".into()));
        assert_eq!(names.find("docker.io/library/", "busybox"), repository);
        assert_eq!(names.find("", "docker.io"), Some(Found::Prefix("docker.io/".into())));
        let library = Some(Found::Prefix("docker.io/library/".into()));
        assert_eq!(names.find("docker.io/", "library"), library);
        let digest = format!("busybox@sha256:{}", "d".repeat(64));
        assert_eq!(names.find("", &digest), Some(Found::Reference(digest.clone(), id('a'))));
        for text in [
            "f".repeat(64),
            format!("sha256:{}", "f".repeat(64)),
            "ff".into(),
            "sha256:ffff".into(),
        ] {
            assert_eq!(names.find("", &text), Some(Found::Id(id('f'))), "{text}");
        }
        for text in ["nosuch", "busybox:2", "0", "", "..", "BUSYBOX", "quay.io"] {
            assert_eq!(names.find("", text), None, "{text}");
        }
    }

    #[test]
    fn a_name_that_is_too_long_is_cut() {
        let long = format!("{}:{}", "r".repeat(230), "t".repeat(100));
        assert_eq!(cut(&long).len(), 213);
        let references = BTreeMap::from([(long.clone(), id('a'))]);
        let catalog = Catalog { references, ..Catalog::default() };
        let names = Names::new(catalog, &Filter::default());
        assert_eq!(names.find("", &cut(&long)), Some(Found::Reference(long, id('a'))));
    }
}

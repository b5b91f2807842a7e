//! Which stores to look at: those that were named, or all of a host.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::status::Failure;
use crate::backing::Host;
use crate::error::Error;
use crate::store::windows_layer::WindowsLayer;
use crate::store::{self, Context, Kind, LayerStore, OpenError, Source, Users, find_host_stores};

/// The host whose stores are looked at: this one, or one whose disk is mounted here.
#[derive(Debug)]
pub(super) struct Place {
    /// `None`: this one, with paths as this user may name them.
    disk: Option<Host>,
}

impl Place {
    /// The host with its root at `image_root`, or this one.
    ///
    /// # Errors
    /// Fails when there is no such directory.
    pub(super) fn new(image_root: Option<&Path>) -> Result<Place, Failure> {
        let Some(path) = image_root else { return Ok(Place { disk: None }) };
        let disk = Host::open(path).map_err(|err| OpenError::from_error(path, err))?;
        if !disk.keeps_times() {
            tracing::warn!(
                "{}: times of access of symlinks there may change, and where they belong to others \
                 those of files: mount it with ro or noatime to keep them",
                path.display()
            );
        }
        Ok(Place { disk: Some(disk) })
    }

    /// The stores that `names` name, or those of the host where there is no name; each path free of
    /// symlinks, for whatever it leads to must stay the same.
    ///
    /// # Errors
    /// Fails when a kind is unknown, a path leads nowhere, or no store is found.
    pub(super) fn sources(&self, names: &[PathBuf]) -> Result<Vec<Source>, Failure> {
        let named = names.iter().map(|name| Source::parse(name.as_os_str()));
        let named = named.map(|source| self.resolve(source)).collect::<Result<Vec<_>, _>>()?;
        let found = match (names, &self.disk) {
            ([], None) => {
                let host = Host::open(Path::new("/")).map_err(OpenError::Other)?;
                let home = home();
                find_host_stores(&host, home.as_deref().map_or(Users::Nobody, Users::Home))
            }
            ([], Some(disk)) => find_host_stores(disk, Users::All),
            _ => named,
        };
        let disk = self.disk.as_ref().map(|disk| disk.path().to_owned());
        if found.is_empty() { Err(Failure::NoStore(disk)) } else { Ok(found) }
    }

    fn resolve(&self, source: Source) -> Result<Source, Failure> {
        let path = match source.kind {
            Some(Kind::WindowsLayer) => {
                let paths = WindowsLayer::paths(&source.path);
                let paths = paths.iter().map(|path| self.resolve_path(path));
                WindowsLayer::joined(&paths.collect::<Result<Vec<_>, _>>()?)
            }
            _ => self.resolve_path(&source.path)?,
        };
        Ok(Source { path, ..source })
    }

    fn resolve_path(&self, path: &Path) -> Result<PathBuf, Failure> {
        let resolved = match &self.disk {
            None => fs::canonicalize(path).map_err(|err| Error::io(path, err)),
            Some(disk) => disk.resolve(path),
        };
        resolved.map_err(|err| OpenError::from_error(path, err).into())
    }
}

/// Opens the stores. Of those that nobody named, one that can't be read is left out while another
/// can: a host may have a store of each engine.
///
/// # Errors
/// Fails when a store that was named can't be opened, or none can.
pub(super) fn open(
    sources: &[Source],
    names: &[PathBuf],
    context: &Context,
) -> Result<Vec<Arc<dyn LayerStore>>, Failure> {
    let (mut opened, mut failed) = (Vec::new(), Vec::new());
    for source in sources {
        match store::open_all(source, context) {
            Ok(stores) => opened.extend(stores),
            Err(err) if names.is_empty() => failed.push(err),
            Err(err) => return Err(err.into()),
        }
    }
    if opened.is_empty() {
        return Err(failed.into_iter().next().map_or(Failure::NoStore(None), Failure::from));
    }
    failed.iter().for_each(|err| tracing::warn!("left out: {err}"));
    Ok(opened)
}

/// Those of `stores` that are in one of `namespaces`, if any is asked for, or in none.
///
/// # Errors
/// Fails where no store is in any of them.
pub(super) fn in_namespaces(
    mut stores: Vec<Arc<dyn LayerStore>>,
    namespaces: &[String],
) -> Result<Vec<Arc<dyn LayerStore>>, Failure> {
    let known: Vec<String> =
        stores.iter().filter_map(|store| store.info().namespace.clone()).collect();
    if let Some(wanted) = namespaces.iter().find(|wanted| !known.contains(wanted)) {
        return Err(Failure::NoNamespace { wanted: wanted.clone(), known });
    }
    let is_wanted = |namespace: &String| namespaces.contains(namespace);
    stores.retain(|store| {
        namespaces.is_empty() || store.info().namespace.as_ref().is_none_or(is_wanted)
    });
    Ok(stores)
}

/// The home directory of an ordinary user, who has a store there; root's is the host's.
fn home() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty())?;
    (!rustix::process::geteuid().is_root()).then(|| home.into())
}

#[cfg(test)]
mod tests {
    use super::super::status::ExitStatus;
    use super::*;

    #[test]
    fn a_store_that_nobody_named_is_left_out_where_it_cannot_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let source = |name: &str| Source { kind: None, path: dir.path().join(name) };
        for name in ["good/overlay-images", "good/overlay-layers", "bad"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let both = [source("bad"), source("good")];
        assert_eq!(open(&both, &[], &Context::default()).unwrap().len(), 1);
        let failure = open(&both, &["bad".into()], &Context::default()).unwrap_err();
        assert_eq!(failure.status(), ExitStatus::NotAStore);
        let failure = open(&[source("bad")], &[], &Context::default()).unwrap_err();
        assert_eq!(failure.status(), ExitStatus::NotAStore);
    }

    #[test]
    fn a_source_is_resolved() {
        let dir = tempfile::tempdir().unwrap();
        let path = fs::canonicalize(dir.path()).unwrap();
        let here = Place::new(None).unwrap();
        let sources = here.sources(&[path.join(".")]).unwrap();
        assert_eq!(sources, [Source { kind: None, path: path.clone() }]);
        let failure = here.sources(&["/no/such".into()]).unwrap_err();
        assert_eq!(failure.status(), ExitStatus::StoreMissing);

        let disk = Place::new(Some(&path)).unwrap();
        assert_eq!(disk.sources(&[]).unwrap_err().status(), ExitStatus::StoreMissing);
        fs::create_dir_all(path.join("srv/data")).unwrap();
        std::os::unix::fs::symlink("/srv/data", path.join("store")).unwrap();
        let sources = disk.sources(&["docker:/store".into(), "../store".into()]).unwrap();
        assert_eq!(sources[0], Source { kind: Some(Kind::Docker), path: path.join("srv/data") });
        assert_eq!(sources[1], Source { kind: None, path: path.join("srv/data") });
        let outside = disk.sources(&[path.join("srv")]).unwrap_err();
        assert_eq!(outside.status(), ExitStatus::StoreMissing, "that is a path in it, too");
        let failure = Place::new(Some(&path.join("none"))).unwrap_err();
        assert_eq!(failure.status(), ExitStatus::StoreMissing);
    }
}

//! Where Podman's stores lie: `storage.conf` (containers-storage.conf(5)), of a system or of a user.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::store::system::System;

/// A system's settings, from the root of its file system: those of its administrator, else those
/// that came with the engine.
const OF_SYSTEM: [&str; 2] = ["etc/containers/storage.conf", "usr/share/containers/storage.conf"];

/// A user's own, from the home directory.
const OF_USER: &str = ".config/containers/storage.conf";

/// Where root's Podman keeps its store unless told otherwise, from the root of the file system, and
/// that of an ordinary user, from the home directory.
const ROOT_STORE: &str = "var/lib/containers/storage";
const USER_STORE: &str = ".local/share/containers/storage";

/// Most stores that images may lie in additionally.
const ADDITIONAL_MAX: usize = 64;

/// A store, and what its engine was told of it.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    /// Its directory.
    store: PathBuf,
    /// Stores that hold more images, which its engine only reads.
    additional: Vec<PathBuf>,
}

/// What is used of a `storage.conf`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Settings {
    storage: Storage,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Storage {
    graphroot: Option<String>,
    imagestore: Option<String>,
    rootless_storage_path: Option<String>,
    options: Options,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Options {
    additionalimagestores: Vec<String>,
    overlay: DriverOptions,
    vfs: DriverOptions,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct DriverOptions {
    additionalimagestores: Vec<String>,
    imagestore: Option<String>,
}

/// Root's store on a system.
fn of_root(host: &System) -> Place {
    let storage = system(host);
    let store = storage.graphroot.as_deref().filter(|path| !path.is_empty());
    let store =
        store.map_or_else(|| host.path().join(ROOT_STORE), |path| host.inside(path.as_ref()));
    Place { store, additional: additional(host, &storage, |path| path.to_owned()) }
}

/// That of an ordinary user with this home directory.
fn of_user(host: &System, home: &Path) -> Place {
    let own = fs::read_to_string(home.join(OF_USER)).ok().and_then(|text| parse(&text));
    // A system's `graphroot` is root's own.
    let (storage, graphroot) = match own {
        Some(own) => {
            let graphroot = own.graphroot.clone();
            (own, graphroot)
        }
        None => (system(host), None),
    };
    let uid = fs::metadata(home).map(|home| home.uid()).unwrap_or_default();
    let name = host.user(uid).map(|user| user.name).unwrap_or_default();
    let inside = home.strip_prefix(host.path()).unwrap_or(home);
    let expanded = |text: &str| {
        text.replace("$HOME", &format!("/{}", inside.display()))
            .replace("$UID", &uid.to_string())
            .replace("$USER", &name)
    };
    let named = storage.rootless_storage_path.as_ref().or(graphroot.as_ref());
    let store =
        named.filter(|path| !path.is_empty()).map(|path| host.inside(expanded(path).as_ref()));
    Place {
        store: store.unwrap_or_else(|| home.join(USER_STORE)),
        additional: additional(host, &storage, expanded),
    }
}

/// The stores that a store at `location`, which belongs to `uid`, reads as well: those that the
/// engine which has it as its own was told of.
pub(super) fn additional_stores(host: &System, location: &Path, uid: u32) -> Vec<PathBuf> {
    let place = match uid {
        0 => of_root(host),
        uid => match host.user(uid) {
            Some(user) => of_user(host, &host.inside(&user.home)),
            None => return Vec::new(),
        },
    };
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut found = place.additional;
    match real(&place.store) == real(location) {
        true => found.retain(|path| real(path) != real(location)),
        false => found.clear(),
    }
    found
}

fn additional(host: &System, storage: &Storage, expanded: impl Fn(&str) -> String) -> Vec<PathBuf> {
    let options = &storage.options;
    let drivers = [&options.overlay, &options.vfs];
    let images = drivers.iter().filter_map(|driver| driver.imagestore.as_ref());
    let images = storage.imagestore.iter().chain(images);
    let more = drivers.iter().flat_map(|driver| &driver.additionalimagestores);
    let more = options.additionalimagestores.iter().chain(more);
    let mut found: Vec<PathBuf> = Vec::new();
    for path in images.chain(more).filter(|path| !path.is_empty()) {
        let path = host.inside(expanded(path).as_ref());
        if !found.contains(&path) && found.len() < ADDITIONAL_MAX {
            found.push(path);
        }
    }
    found
}

/// A system's settings; the usual ones where it has none, or damaged ones, with which the engine
/// would not start.
fn system(host: &System) -> Storage {
    let text = OF_SYSTEM.iter().find_map(|path| host.text(path));
    text.and_then(|text| parse(&text)).unwrap_or_default()
}

fn parse(text: &str) -> Option<Storage> {
    toml::from_str::<Settings>(text).ok().map(|settings| settings.storage)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system_with(
        settings: Option<&str>,
        own: Option<&str>,
    ) -> (tempfile::TempDir, System, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("home/user");
        fs::create_dir_all(dir.path().join("etc/containers")).unwrap();
        fs::create_dir_all(home.join(".config/containers")).unwrap();
        fs::write(dir.path().join("etc/passwd"), "").unwrap();
        for (path, text) in [(dir.path().join(OF_SYSTEM[0]), settings), (home.join(OF_USER), own)] {
            if let Some(text) = text {
                fs::write(path, text).unwrap();
            }
        }
        let host = System::around(&home.join("x")).unwrap();
        (dir, host, home)
    }

    #[test]
    fn stores_are_where_the_settings_say_or_in_the_usual_places() {
        let settings = "[storage]\ndriver = \"overlay\"\ngraphroot = \"/../srv/./root\"\n\
            rootless_storage_path = \"/srv$HOME/$UID\"\n\
            [storage.options]\nadditionalimagestores = [\"/srv/shared\", \"/srv/shared\"]\n\
            [storage.options.overlay]\nmount_program = \"/usr/bin/fuse-overlayfs\"\n";
        let uid = rustix::process::geteuid().as_raw();
        let shared = vec![PathBuf::from("srv/shared")];
        for (settings, own, root, user, more) in [
            (None, None, ROOT_STORE, format!("home/user/{USER_STORE}"), vec![]),
            (Some("storage = 7"), None, ROOT_STORE, format!("home/user/{USER_STORE}"), vec![]),
            (Some(settings), None, "srv/root", format!("srv/home/user/{uid}"), shared.clone()),
            (
                Some(settings),
                Some("[storage]"),
                "srv/root",
                format!("home/user/{USER_STORE}"),
                shared,
            ),
            (None, Some("[storage]\ngraphroot = \"/x\""), ROOT_STORE, "x".to_owned(), vec![]),
        ] {
            let (dir, host, home) = system_with(settings, own);
            let inside = |path: &Path| path.strip_prefix(dir.path()).unwrap().to_owned();
            let found = of_root(&host);
            assert_eq!(inside(&found.store), Path::new(root));
            let additional: Vec<PathBuf> = found.additional.iter().map(|at| inside(at)).collect();
            assert_eq!(additional, more);
            assert_eq!(inside(&of_user(&host, &home).store), Path::new(&user));
        }
    }

    #[test]
    fn additional_stores_belong_to_the_store_that_the_settings_name() {
        let settings = "[storage.options]\nadditionalimagestores = [\"/srv/a\"]";
        let (dir, host, _) = system_with(Some(settings), None);
        let own = dir.path().join(ROOT_STORE);
        assert_eq!(additional_stores(&host, &own, 0), [dir.path().join("srv/a")]);
        assert!(additional_stores(&host, &dir.path().join("other"), 0).is_empty());
        assert!(additional_stores(&host, &own, 4_000_000).is_empty());
    }
}

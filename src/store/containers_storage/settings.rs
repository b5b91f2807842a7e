//! Where Podman's stores lie: `storage.conf` (containers-storage.conf(5)), of a system or of a user.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::backing::Host;
use crate::store::system::{System, User, inside, text};

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

/// A store, and what its engine was told of it: paths of its host.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::store) struct Place {
    /// Its directory, where settings name one.
    pub(in crate::store) named: Option<PathBuf>,
    /// Where it is otherwise.
    pub(in crate::store) usual: PathBuf,
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

/// Root's store on a host.
pub(in crate::store) fn of_root(host: &Host) -> Place {
    let storage = of_system(host);
    Place {
        named: said(storage.graphroot.as_ref()).map(PathBuf::from),
        usual: ROOT_STORE.into(),
        additional: additional(&storage, |path| path.to_owned()),
    }
}

/// That of an ordinary user. Their own settings count alone, where there are any: a system's
/// `graphroot` is root's own, and its `rootless_storage_path` is for those who have none.
pub(in crate::store) fn of_user(host: &Host, user: &User) -> Place {
    let own = text(host, user.home.join(OF_USER)).and_then(|text| parse(&text));
    let (storage, graphroot) = match own {
        Some(own) => {
            let graphroot = own.graphroot.clone();
            (own, graphroot)
        }
        None => (of_system(host), None),
    };
    let named = said(graphroot.as_ref()).or(said(storage.rootless_storage_path.as_ref()));
    Place {
        named: named.map(|path| user.expand(path).into()),
        usual: user.home.join(USER_STORE),
        additional: additional(&storage, |path| user.expand(path)),
    }
}

/// The stores that a store at `location`, which belongs to `uid`, reads as well: those that the
/// engine which has it as its own was told of.
pub(super) fn additional_stores(system: &System, location: &Path, uid: u32) -> Vec<PathBuf> {
    let host = system.host();
    let place = match uid {
        0 => of_root(host),
        uid => match system.user(uid) {
            Some(user) => of_user(host, &user),
            None => return Vec::new(),
        },
    };
    let ours = |path: &Path| host.resolve(path).unwrap_or_else(|_| inside(host, path));
    let location = location.strip_prefix(host.path()).map_or_else(|_| location.to_owned(), &ours);
    if ours(&place.named.unwrap_or(place.usual)) != location {
        return Vec::new();
    }
    let additional = place.additional.iter().filter(|path| ours(path) != location);
    additional.map(|path| inside(host, path)).collect()
}

fn additional(storage: &Storage, expanded: impl Fn(&str) -> String) -> Vec<PathBuf> {
    let options = &storage.options;
    let drivers = [&options.overlay, &options.vfs];
    let images = drivers.iter().filter_map(|driver| driver.imagestore.as_ref());
    let images = storage.imagestore.iter().chain(images);
    let more = drivers.iter().flat_map(|driver| &driver.additionalimagestores);
    let more = options.additionalimagestores.iter().chain(more);
    let mut found: Vec<PathBuf> = Vec::new();
    for path in images.chain(more).filter(|path| !path.is_empty()) {
        let path = PathBuf::from(expanded(path));
        if !found.contains(&path) && found.len() < ADDITIONAL_MAX {
            found.push(path);
        }
    }
    found
}

/// A path that settings give: an empty one says nothing.
fn said(path: Option<&String>) -> Option<&str> {
    path.map(String::as_str).filter(|path| !path.is_empty())
}

/// A system's settings; the usual ones where it has none, or damaged ones, with which the engine
/// would not start.
fn of_system(host: &Host) -> Storage {
    let text = OF_SYSTEM.iter().find_map(|path| text(host, path));
    text.and_then(|text| parse(&text)).unwrap_or_default()
}

fn parse(text: &str) -> Option<Storage> {
    toml::from_str::<Settings>(text).ok().map(|settings| settings.storage)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn system_with(settings: Option<&str>, own: Option<&str>) -> (tempfile::TempDir, System) {
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
        (dir, host)
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
                shared.clone(),
            ),
            (None, Some("[storage]\ngraphroot = \"/x\""), ROOT_STORE, "x".to_owned(), vec![]),
            (
                Some(settings),
                Some("[storage]\ngraphroot = \"/x\"\nrootless_storage_path = \"/y\""),
                "srv/root",
                "x".to_owned(),
                shared,
            ),
        ] {
            let (dir, system) = system_with(settings, own);
            let host = system.host();
            let within =
                |path: &Path| inside(host, path).strip_prefix(dir.path()).unwrap().to_owned();
            let store = |place: Place| within(&place.named.unwrap_or(place.usual));
            let found = of_root(host);
            let additional: Vec<PathBuf> = found.additional.iter().map(|at| within(at)).collect();
            assert_eq!(additional, more);
            assert_eq!(store(found), Path::new(root));
            let home = "/home/user".into();
            let someone = User { name: String::new(), uid, home };
            assert_eq!(store(of_user(host, &someone)), Path::new(&user));
        }
    }

    #[test]
    fn additional_stores_belong_to_the_store_that_the_settings_name() {
        let settings = "[storage.options]\nadditionalimagestores = [\"/srv/a\"]";
        let (dir, host) = system_with(Some(settings), None);
        let own = dir.path().join(ROOT_STORE);
        assert_eq!(additional_stores(&host, &own, 0), [dir.path().join("srv/a")]);
        assert!(additional_stores(&host, &dir.path().join("other"), 0).is_empty());
        assert!(additional_stores(&host, &own, 4_000_000).is_empty());
    }

    #[test]
    fn what_is_no_file_of_the_host_says_nothing() {
        let (dir, system) = system_with(None, None);
        let outside = tempfile::NamedTempFile::new().unwrap();
        fs::write(outside.path(), "[storage]\ngraphroot = \"/x\"").unwrap();
        let own = dir.path().join("home/user").join(OF_USER);
        let someone = User { name: String::new(), uid: 1, home: "/home/user".into() };
        let named = || of_user(system.host(), &someone).named;
        std::os::unix::fs::symlink(outside.path(), &own).unwrap();
        assert_eq!(named(), None, "a symlink that leads out");
        fs::remove_file(&own).unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &own, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert_eq!(named(), None, "a FIFO");
    }
}

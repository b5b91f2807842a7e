//! Where the engines of a host keep their stores: what their settings say, and the usual places.
//!
//! The host may be somebody else's disk. Every path, whatever wrote it, is one of that host
//! ([`Host`]), and settings that are damaged say nothing: the engine would not start with them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::containerd::Containerd;
use super::containers_storage::{ContainersStorage, settings};
use super::system::{User, accounts, inside, mapped_root, text};
use super::{Kind, Source};
use crate::backing::{Access, Host, Root};

/// Most users whose homes are looked into.
const USERS_MAX: usize = 10_000;

/// Root's Docker and its settings (dockerd(8)); the second place is that of the snap.
const DOCKER: [&str; 2] = ["var/lib/docker", "var/snap/docker/common/var-lib-docker"];
const DOCKER_SETTINGS: &str = "etc/docker/daemon.json";

/// Docker of an ordinary user, and its settings, from the home directory.
const DOCKER_HOME: &str = ".local/share/docker";
const DOCKER_HOME_SETTINGS: &str = ".config/docker/daemon.json";

/// Where containerd keeps its data root, without root in a user's home, its settings, and where
/// Kubernetes brings its own.
const CONTAINERD: &str = "var/lib/containerd";
const CONTAINERD_HOME: &str = ".local/share/containerd";
const CONTAINERD_SETTINGS: &str = "etc/containerd/config.toml";
const CONTAINERD_OF_KUBERNETES: [&str; 3] = [
    "var/lib/rancher/k3s/agent/containerd",
    "var/lib/rancher/rke2/agent/containerd",
    "var/snap/microk8s/common/var/lib/containerd",
];

/// The namespace in which Docker keeps its images, which are Docker's to show.
const CONTAINERD_OF_DOCKER: &str = "moby";

/// Whose stores are looked for besides root's.
#[derive(Debug, Clone, Copy)]
pub enum Users<'a> {
    /// Nobody's.
    Nobody,
    /// Those in this home directory.
    Home(&'a Path),
    /// Those of all users whom the host knows; also what settings lead away from.
    All,
}

/// The stores of a host: existing ones, and those that settings name, existing or not. Each path
/// is free of symlinks.
#[must_use]
pub fn find_host_stores(host: &Host, users: Users<'_>) -> Vec<Source> {
    let mut found = Found { host, is_thorough: matches!(users, Users::All), sources: Vec::new() };
    let docker = DOCKER.map(PathBuf::from);
    found.docker(docker_root(host, Path::new(DOCKER_SETTINGS)), &docker);
    found.podman(&settings::of_root(host));
    let named = containerd_root(host).unwrap_or_else(|| CONTAINERD.into());
    found.containerd(&named);
    CONTAINERD_OF_KUBERNETES.iter().for_each(|path| found.containerd(path.as_ref()));
    for user in owners(host, users) {
        let named = docker_root(host, &user.home.join(DOCKER_HOME_SETTINGS));
        found.docker(named, &[user.home.join(DOCKER_HOME)]);
        found.podman(&settings::of_user(host, &user));
        found.containerd(&user.home.join(CONTAINERD_HOME));
    }
    found.sources
}

struct Found<'a> {
    host: &'a Host,
    /// Whether the usual places count though settings name another.
    is_thorough: bool,
    sources: Vec<Source>,
}

impl Found<'_> {
    /// Docker's data root, and those in it that are named after the users they are mapped to.
    fn docker(&mut self, named: Option<PathBuf>, usual: &[PathBuf]) {
        let is_named = named.is_some();
        if let Some(path) = named {
            self.docker_at(&path, true);
        }
        if self.is_thorough || !is_named {
            usual.iter().for_each(|path| self.docker_at(path, false));
        }
    }

    fn docker_at(&mut self, path: &Path, is_named: bool) {
        let real = self.host.resolve(path).ok().filter(|path| is_dir(path));
        let Some(real) = real else {
            if is_named {
                self.add(Kind::Docker, inside(self.host, path));
            }
            return;
        };
        let names = Root::open_resolved(&real, Access::Live).and_then(|root| root.dir("")?.names());
        let names = names.unwrap_or_default();
        let has = |wanted: &str| names.iter().any(|entry| entry.name == wanted);
        let mapped: Vec<&OsStr> = names
            .iter()
            .map(|entry| &*entry.name)
            .filter(|name| mapped_root(name).is_some())
            .collect();
        // With mapped users the engine leaves its own place empty.
        if mapped.is_empty() || has("image") {
            self.add(Kind::Docker, real.clone());
        }
        for name in mapped {
            self.add(Kind::Docker, real.join(name));
        }
    }

    /// A store of containers/storage. A directory that was never used is not taken for one.
    fn podman(&mut self, place: &settings::Place) {
        let usual = (self.is_thorough || place.named.is_none()).then_some(&place.usual);
        for path in place.named.iter().chain(usual) {
            if let Ok(real) = self.host.resolve(path)
                && ContainersStorage::is_at(&real)
            {
                self.add(Kind::Podman, real);
            }
        }
    }

    /// A data root of containerd in which more than Docker keeps something.
    fn containerd(&mut self, path: &Path) {
        let real = self.host.resolve(path).ok().filter(|path| Containerd::is_at(path));
        let Some(real) = real else { return };
        let is_shown = |namespaces: Vec<String>| {
            namespaces.iter().any(|namespace| namespace != CONTAINERD_OF_DOCKER)
        };
        // One that can't be read is added, so that whoever opens it says why.
        if Containerd::namespaces(&real).map_or(true, is_shown) {
            self.add(Kind::Containerd, real);
        }
    }

    fn add(&mut self, kind: Kind, path: PathBuf) {
        let source = Source { kind: Some(kind), path };
        if !self.sources.contains(&source) {
            self.sources.push(source);
        }
    }
}

fn is_dir(path: &Path) -> bool {
    Root::open_resolved(path, Access::Live).is_ok()
}

/// What Docker's settings name as its data root.
fn docker_root(host: &Host, settings: &Path) -> Option<PathBuf> {
    #[derive(Deserialize)]
    struct Settings {
        #[serde(rename = "data-root")]
        data_root: Option<PathBuf>,
        graph: Option<PathBuf>,
    }
    let settings: Settings = serde_json::from_str(&text(host, settings)?).ok()?;
    settings.data_root.or(settings.graph) // `graph`: its name before 17.05
}

/// What containerd's settings name as its data root.
fn containerd_root(host: &Host) -> Option<PathBuf> {
    #[derive(Deserialize)]
    struct Settings {
        root: Option<PathBuf>,
    }
    toml::from_str::<Settings>(&text(host, CONTAINERD_SETTINGS)?).ok()?.root
}

/// The users whose stores are looked for, one for each home directory.
fn owners(host: &Host, users: Users<'_>) -> Vec<User> {
    let mut owners: Vec<User> = Vec::new();
    match users {
        Users::Nobody => {}
        Users::All => {
            for user in accounts(host) {
                let is_new = user.home.is_absolute() && user.home != Path::new("/");
                let is_known = owners.iter().any(|owner| owner.home == user.home);
                if is_new && !is_known && owners.len() < USERS_MAX {
                    owners.push(user);
                }
            }
        }
        Users::Home(home) => {
            let uid = rustix::process::geteuid().as_raw();
            let name =
                accounts(host).into_iter().find(|user| user.uid == uid).map(|user| user.name);
            owners.push(User { name: name.unwrap_or_default(), uid, home: home.to_owned() });
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A disk with a host on it.
    struct Disk(tempfile::TempDir);

    impl Disk {
        fn new() -> Disk {
            Disk(tempfile::tempdir().unwrap())
        }

        fn dir(&self, path: &str) {
            fs::create_dir_all(self.0.path().join(path)).unwrap();
        }

        fn file(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn podman(&self, path: &str) {
            self.dir(&format!("{path}/overlay-images"));
            self.dir(&format!("{path}/overlay-layers"));
        }

        fn found(&self, users: Users<'_>) -> Vec<String> {
            let host = Host::open(self.0.path()).unwrap();
            let found = find_host_stores(&host, users);
            let inside = |source: Source| {
                let path = source.path.strip_prefix(host.path()).unwrap().to_owned();
                format!("{}:{}", source.kind.unwrap(), path.display())
            };
            found.into_iter().map(inside).collect()
        }
    }

    #[test]
    fn docker_is_found_where_its_settings_say_or_in_the_usual_place() {
        let disk = Disk::new();
        assert!(disk.found(Users::Nobody).is_empty());
        disk.dir("var/lib/docker");
        assert_eq!(disk.found(Users::Nobody), ["docker:var/lib/docker"]);
        for (settings, path) in [
            (r#"{"data-root":"/srv/docker","debug":true}"#, "docker:srv/docker"),
            (r#"{"graph":"/mnt/graph"}"#, "docker:mnt/graph"),
            (r#"{"data-root":"/../../srv/./docker"}"#, "docker:srv/docker"),
            (r#"{"storage-driver":"vfs"}"#, "docker:var/lib/docker"),
            ("{", "docker:var/lib/docker"),
            ("", "docker:var/lib/docker"),
        ] {
            disk.file(DOCKER_SETTINGS, settings);
            assert_eq!(disk.found(Users::Nobody), [path], "{settings}");
        }
        disk.file(DOCKER_SETTINGS, r#"{"data-root":"/srv/docker"}"#);
        let both = ["docker:srv/docker", "docker:var/lib/docker"];
        assert_eq!(disk.found(Users::All), both);
    }

    #[test]
    fn data_roots_of_mapped_users_are_found() {
        let disk = Disk::new();
        for name in ["165536.165536", "231072.231072", "1.2.3", "a.b", "overlay2"] {
            disk.dir(&format!("var/lib/docker/{name}"));
        }
        let mapped = ["docker:var/lib/docker/165536.165536", "docker:var/lib/docker/231072.231072"];
        let sorted = || {
            let mut found = disk.found(Users::Nobody);
            found.sort();
            found
        };
        assert_eq!(sorted(), mapped);
        disk.dir("var/lib/docker/image");
        assert_eq!(sorted(), [&["docker:var/lib/docker"], &mapped[..]].concat());
    }

    #[test]
    fn podman_is_found_in_its_places_once_it_was_used() {
        let disk = Disk::new();
        disk.dir("var/lib/containers/storage");
        let home = Path::new("/home/user");
        assert!(disk.found(Users::Home(home)).is_empty());
        disk.podman("var/lib/containers/storage");
        disk.podman("home/user/.local/share/containers/storage");
        let root = "podman:var/lib/containers/storage";
        let own = "podman:home/user/.local/share/containers/storage";
        assert_eq!(disk.found(Users::Home(home)), [root, own]);
        assert_eq!(disk.found(Users::Nobody), [root]);
        disk.file("usr/share/containers/storage.conf", "[storage]\ngraphroot = \"/srv/first\"\n");
        disk.podman("srv/first");
        assert_eq!(disk.found(Users::Nobody), ["podman:srv/first"]);
        let conf = "[storage]\ngraphroot = \"/srv/pods\"\n\
                    rootless_storage_path = \"/srv/of/$USER-$UID\"\n";
        disk.file("etc/containers/storage.conf", conf);
        disk.podman("srv/pods");
        disk.podman("srv/of/jane-1000");
        disk.file(
            "etc/passwd",
            "root:x:0:0::/root:/bin/sh\njane:x:1000:1000::/home/user:/bin/sh\n",
        );
        let all = disk.found(Users::All);
        assert_eq!(all, ["podman:srv/pods", root, "podman:srv/of/jane-1000", own]);
    }

    #[test]
    fn homes_of_all_users_are_looked_into_and_no_symlink_leads_out() {
        let disk = Disk::new();
        let elsewhere = Disk::new();
        elsewhere.podman("storage");
        elsewhere.dir("docker/image");
        disk.file(
            "etc/passwd",
            "a:x:1:1::/home/a:/bin/sh\nbroken\nb:x:2:2::relative:/bin/sh\nc:x:3:3::/:/bin/sh\n\
             d:x:4:4::/home/d:/bin/sh\nd2:x:5:5::/home/d:/bin/sh\n",
        );
        disk.dir("data/docker");
        disk.dir("home/a/.local/share");
        disk.dir("home/d/.local/share/containers");
        disk.file("home/d/.config/docker/daemon.json", r#"{"data-root":"/data/docker"}"#);
        symlink("/data/docker", disk.0.path().join("home/a/.local/share/docker")).unwrap();
        let out = disk.0.path().join("home/d/.local/share/containers/storage");
        symlink(elsewhere.0.path().join("storage"), out).unwrap();
        disk.dir("var/lib");
        symlink(elsewhere.0.path().join("docker"), disk.0.path().join("var/lib/docker")).unwrap();
        assert_eq!(disk.found(Users::All), ["docker:data/docker"]);
    }
}

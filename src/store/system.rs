//! The system that a store belongs to, as far as it says who owns what: its users, and which IDs
//! each may give to containers.
//!
//! It is the nearest directory above the store that has an `etc` of its own: `/`, or where somebody
//! mounted another system's disk.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::backing::Host;
use crate::store::{IdMap, IdPair, IdRange};

/// Largest file of settings that is read, in bytes.
const SETTINGS_MAX: u64 = 1 << 20;

/// Which IDs a user may give away (subuid(5), subgid(5)).
const SUBORDINATE: IdPair<&str> = IdPair { user: "etc/subuid", group: "etc/subgid" };

/// Where engines without root note the process that keeps their user namespace, from the root of the
/// file system, with the user's ID for `UID`: Podman, the same without systemd, Docker, containerd.
const KEEPERS: [&str; 4] = [
    "run/user/UID/libpod/tmp/pause.pid",
    "tmp/podman-run-UID/libpod/tmp/pause.pid",
    "run/user/UID/dockerd-rootless/child_pid",
    "run/user/UID/containerd-rootless/child_pid",
];

/// The table of users (passwd(5)).
const ACCOUNTS: &str = "etc/passwd";

/// How many IDs a user has where nobody noted how many (login.defs(5), `SUB_UID_COUNT`).
const USUAL_COUNT: u32 = 65536;

/// A system.
#[derive(Debug)]
pub(super) struct System {
    host: Host,
}

impl System {
    /// The one that the store at `location`, an absolute path, belongs to.
    pub(super) fn around(location: &Path) -> Option<System> {
        let has_users = |host: &Host| {
            [ACCOUNTS, SUBORDINATE.user, "etc/containers"]
                .iter()
                .any(|path| host.resolve(path.as_ref()).is_ok())
        };
        let above = location.ancestors().skip(1);
        let mut hosts = above.filter_map(|path| Host::open(path).ok());
        Some(System { host: hosts.find(has_users)? })
    }

    /// Its file system.
    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    /// Where its file system begins.
    pub(super) fn path(&self) -> &Path {
        self.host.path()
    }

    /// The user `uid`.
    pub(super) fn user(&self, uid: u32) -> Option<User> {
        accounts(&self.host).into_iter().find(|user| user.uid == uid)
    }

    /// The user namespace of an engine that `owner` runs without root: they are its root, and the
    /// IDs they may give away follow.
    pub(super) fn rootless(&self, owner: IdPair<u32>) -> Option<IdPair<IdMap>> {
        let kept = (self.path() == Path::new("/")).then(|| kept_namespace(&self.host, owner.user));
        if let Some(kept) = kept.flatten() {
            return Some(kept);
        }
        let user = self.user(owner.user);
        let map = |path: &str, id: u32| {
            let mut ranges = vec![IdRange { inside: 0, outside: id, count: 1 }];
            let text = text(&self.host, path).unwrap_or_default();
            let name = user.as_ref().map(|user| user.name.as_str());
            append(&mut ranges, subordinate(&text, name, owner.user));
            IdMap::new(ranges)
        };
        Some(IdPair {
            user: map(SUBORDINATE.user, owner.user)?,
            group: map(SUBORDINATE.group, owner.group)?,
        })
    }

    /// The user namespace of all containers of a Docker with `userns-remap`, whose root is `root`
    /// outside: the IDs of the user that was given these, lowest first (moby `idtools`,
    /// `createIDMap`).
    pub(super) fn remapped(&self, root: IdPair<u32>) -> Option<IdPair<IdMap>> {
        let map = |path: &str, first: u32| {
            let text = text(&self.host, path).unwrap_or_default();
            let mut ranges = Vec::new();
            let owner = lines(&text).find(|line| line.first == first).map(|line| line.owner);
            let mut given: Vec<Given<'_>> =
                lines(&text).filter(|line| Some(line.owner) == owner).collect();
            given.sort_by_key(|line| line.first);
            // The directory is named after the lowest ID; all else is another user's.
            given.retain(|line| line.first >= first);
            if given.is_empty() {
                given.push(Given { owner: "", first, count: USUAL_COUNT });
            }
            append(&mut ranges, given.into_iter());
            IdMap::new(ranges)
        };
        Some(IdPair {
            user: map(SUBORDINATE.user, root.user)?,
            group: map(SUBORDINATE.group, root.group)?,
        })
    }
}

/// A path of a host as one of ours, where there is nothing to resolve. `..` leads nowhere above.
pub(super) fn inside(host: &Host, path: &Path) -> PathBuf {
    let parts = path.components().filter(|part| matches!(part, Component::Normal(_)));
    host.path().join(parts.collect::<PathBuf>())
}

/// A small text file of a host; `None` where it can't be read.
pub(super) fn text(host: &Host, path: impl AsRef<Path>) -> Option<String> {
    String::from_utf8(host.read(path.as_ref(), SETTINGS_MAX).ok()?).ok()
}

/// The IDs that the data root of a daemon with `userns-remap` is named after, `UID.GID`: those of the
/// containers' root outside.
pub(super) fn mapped_root(name: &OsStr) -> Option<IdPair<u32>> {
    let (user, group) = name.to_str()?.split_once('.')?;
    let id =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?;
    Some(IdPair { user: id(user)?, group: id(group)? })
}

/// True where this process runs in a user namespace that is not the first: then the owners that it
/// sees are those inside already, and overlayfs's marks are those of any user.
pub(super) fn is_in_user_namespace() -> bool {
    let whole = |map: String| map.split_whitespace().eq(["0", "0", "4294967295"]);
    fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !whole(map))
}

/// The maps of the process that keeps the namespace of `uid`'s engine, where it runs.
fn kept_namespace(host: &Host, uid: u32) -> Option<IdPair<IdMap>> {
    KEEPERS.iter().find_map(|path| {
        let path = path.replace("UID", &uid.to_string());
        let text = String::from_utf8(host.read(path.as_ref(), 64).ok()?).ok()?;
        let pid: u32 = text.trim().parse().ok()?;
        let map = |name: &str| {
            let text = fs::read_to_string(format!("/proc/{pid}/{name}")).ok()?;
            IdMap::new(text.lines().filter_map(kernel_range).collect())
        };
        let found = IdPair { user: map("uid_map")?, group: map("gid_map")? };
        // The number may be another process's by now.
        (found.user.inside(uid) == 0 && found.user.inside(0) != 0).then_some(found)
    })
}

/// A line of `/proc/PID/uid_map`.
fn kernel_range(line: &str) -> Option<IdRange> {
    let mut numbers = line.split_whitespace().map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some(IdRange { inside: next()?, outside: next()?, count: next()? })
}

/// What is used of a line of `/etc/passwd`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    /// The login name.
    pub(super) name: String,
    /// The number.
    pub(super) uid: u32,
    /// The home directory, as this system names it.
    pub(super) home: PathBuf,
}

impl User {
    /// A path of a user's settings, with what stands for the user in it.
    pub(super) fn expand(&self, path: &str) -> String {
        let home = self.home.to_string_lossy();
        let path = path.replace("$HOME", &home).replace("${HOME}", &home);
        path.replace("$USER", &self.name).replace("$UID", &self.uid.to_string())
    }
}

/// The users whom a host knows.
pub(super) fn accounts(host: &Host) -> Vec<User> {
    let table = host.read(ACCOUNTS.as_ref(), SETTINGS_MAX).unwrap_or_default();
    parse_accounts(&table)
}

/// The lines `name:password:UID:GID:comment:home:shell`; what is none is passed over.
fn parse_accounts(table: &[u8]) -> Vec<User> {
    let user = |line: &[u8]| {
        let fields: Vec<&[u8]> = line.split(|&byte| byte == b':').collect();
        let [name, _, uid, _, _, home, ..] = fields[..] else { return None };
        Some(User {
            name: String::from_utf8_lossy(name).into_owned(),
            uid: std::str::from_utf8(uid).ok()?.parse().ok()?,
            home: OsStr::from_bytes(home).into(),
        })
    };
    table.split(|&byte| byte == b'\n').filter_map(user).collect()
}

/// A line of `/etc/subuid`: `owner:first:count`.
#[derive(Debug, Clone, Copy)]
struct Given<'a> {
    owner: &'a str,
    first: u32,
    count: u32,
}

fn lines(text: &str) -> impl Iterator<Item = Given<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let (first, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Given { owner, first, count })
    })
}

/// The lines of the user with that name or number.
fn subordinate<'a>(
    text: &'a str,
    name: Option<&'a str>,
    uid: u32,
) -> impl Iterator<Item = Given<'a>> {
    let is_theirs =
        move |line: &Given<'_>| Some(line.owner) == name || line.owner.parse() == Ok(uid);
    lines(text).filter(is_theirs)
}

/// Lets the IDs inside go on through what was given.
fn append<'a>(ranges: &mut Vec<IdRange>, given: impl Iterator<Item = Given<'a>>) {
    for line in given {
        let last = ranges.last().map_or(Some(0), |last| last.inside.checked_add(last.count));
        let Some(inside) = last else { break };
        ranges.push(IdRange { inside, outside: line.first, count: line.count });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::UNMAPPED;

    /// A system with these files, and a directory in it for a store.
    fn system(files: &[(&str, &str)]) -> (tempfile::TempDir, System) {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("home/user/store");
        fs::create_dir_all(&store).unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        for (name, text) in files {
            fs::write(dir.path().join("etc").join(name), text).unwrap();
        }
        let host = System::around(&store).unwrap();
        assert_eq!(host.path(), dir.path());
        (dir, host)
    }

    fn pair(id: u32) -> IdPair<u32> {
        IdPair { user: id, group: id }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text: String, line in "[a-z]{0,3}:[0-9]{1,11}:[0-9]{1,11}") {
            let mut ranges = Vec::new();
            append(&mut ranges, lines(&format!("{text}\n{line}\n{line}")));
            let _ = (parse_accounts(text.as_bytes()), kernel_range(&text), kernel_range(&line));
        }
    }

    #[test]
    fn a_user_is_root_of_their_own_namespace() {
        let (_dir, host) = system(&[
            ("passwd", "root:x:0:0::/root:/bin/sh\nuser:x:4000000:4000000::/home/user:/bin/sh\n"),
            ("subuid", "other:300000:65536\nuser:100000:10\n4000000:200000:65526\n"),
            ("subgid", "user:500000:65536\n"),
        ]);
        let map = host.rootless(pair(4_000_000)).unwrap();
        for (outside, inside) in [
            (4_000_000, 0),
            (100_000, 1),
            (100_009, 10),
            (100_010, UNMAPPED),
            (200_000, 11),
            (265_525, 65536),
            (300_000, UNMAPPED),
            (0, UNMAPPED),
        ] {
            assert_eq!(map.user.inside(outside), inside, "{outside}");
        }
        assert_eq!(map.group.inside(500_007), 8);
        let user = host.user(4_000_000).unwrap();
        assert_eq!((user.name.as_str(), user.home.as_path()), ("user", Path::new("/home/user")));
        // Who was given nothing is root and nobody else.
        let map = host.rootless(pair(4_000_001)).unwrap();
        assert_eq!((map.user.inside(4_000_001), map.user.inside(100_000)), (0, UNMAPPED));
    }

    #[test]
    fn remapped_containers_have_the_ids_of_the_user_that_was_given_them() {
        let (_dir, host) = system(&[
            ("subuid", "a:100000:65536\ndockremap:300000:100\ndockremap:165536:65536\n"),
            ("passwd", ""),
        ]);
        let map = host.remapped(pair(165_536)).unwrap();
        assert_eq!(map.user.inside(165_536), 0);
        assert_eq!(map.user.inside(231_071), 65535);
        assert_eq!(map.user.inside(300_000), 65536);
        assert_eq!(map.user.inside(100_000), UNMAPPED);
        assert_eq!(map.user.inside(0), UNMAPPED);
        assert_eq!(map.group.inside(165_537), 1, "nobody noted how many");
    }

    #[test]
    fn paths_stay_inside_the_system() {
        let (dir, host) = system(&[("passwd", "")]);
        for path in ["/srv/x", "srv/x", "/../srv/./x"] {
            assert_eq!(inside(host.host(), Path::new(path)), dir.path().join("srv/x"));
        }
    }
}

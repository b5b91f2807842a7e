//! Owners of files as a container sees them: user namespaces undone, and what engines note of owners
//! that they could not give to a file.
//!
//! A file's owner passes two maps. On disk stands the host's ID; the engine may run in a user
//! namespace of its own (rootless), and the container in one below that (`--userns`,
//! `userns-remap`).

use crate::backing::{FileKind, Stat};

/// The owner of a file whose ID no map knows: no file on disk has it (`(uid_t) -1`, chown(2)).
pub const UNMAPPED: u32 = u32::MAX;

/// The owner that the kernel shows where a user namespace has no name for one: nobody
/// (`/proc/sys/kernel/overflowuid`).
const OVERFLOW_ID: u32 = 65534;

/// Most ranges that one map may have (`UID_GID_MAP_MAX_EXTENTS`, linux/user_namespace.h).
const RANGES_MAX: usize = 340;

/// `id`, or nobody for [`UNMAPPED`]: for places where there must be an owner.
#[must_use]
pub fn shown_id(id: u32) -> u32 {
    if id == UNMAPPED { OVERFLOW_ID } else { id }
}

/// A user and a group, or what is said of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IdPair<T> {
    /// Of users.
    pub user: T,
    /// Of groups.
    pub group: T,
}

/// A run of IDs in a user namespace, and where it lies outside (user_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// The first ID inside.
    pub inside: u32,
    /// The first ID outside.
    pub outside: u32,
    /// How many follow each other.
    pub count: u32,
}

/// The IDs of a user namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdMap(Vec<IdRange>);

impl IdMap {
    /// A map of these ranges; of too many, the first ones that a kernel takes. `None` where there is
    /// none: then nothing is mapped.
    #[must_use]
    pub fn new(mut ranges: Vec<IdRange>) -> Option<IdMap> {
        ranges.truncate(RANGES_MAX);
        (!ranges.is_empty()).then_some(IdMap(ranges))
    }

    /// What the namespace calls `outside`; [`UNMAPPED`] where it has no name for it.
    #[must_use]
    pub fn inside(&self, outside: u32) -> u32 {
        if outside == UNMAPPED {
            return UNMAPPED;
        }
        let found = self.0.iter().find_map(|range| {
            let at = outside.checked_sub(range.outside).filter(|at| *at < range.count)?;
            range.inside.checked_add(at)
        });
        found.unwrap_or(UNMAPPED)
    }
}

/// How the owners of a directory's files are told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Owners {
    /// From the disk's IDs to those of the engine's own namespace.
    pub engine: Option<IdPair<IdMap>>,
    /// From those to the container's.
    pub container: Option<IdPair<IdMap>>,
    /// An xattr may tell what the engine could not write on disk.
    pub has_notes: bool,
}

impl Owners {
    /// Where the engine notes owner and mode of a file (containers/storage
    /// `ContainersOverrideXattr`).
    pub const NOTE: &'static str = "user.containers.override_stat";

    /// True where all of it stands on disk as the container sees it.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.engine.is_none() && self.container.is_none() && !self.has_notes
    }

    /// `stat` with the owner that the container sees; `note` is what the engine noted.
    #[must_use]
    pub fn seen(&self, stat: Stat, note: Option<&[u8]>) -> Stat {
        let mut stat = through(self.engine.as_ref(), stat);
        if let Some(note) = note.and_then(Note::parse) {
            stat = note.applied(stat);
        }
        through(self.container.as_ref(), stat)
    }
}

fn through(map: Option<&IdPair<IdMap>>, stat: Stat) -> Stat {
    match map {
        None => stat,
        Some(map) => {
            Stat { uid: map.user.inside(stat.uid), gid: map.group.inside(stat.gid), ..stat }
        }
    }
}

/// `uid:gid:mode`, the mode octal, and perhaps `:type` (containers/storage `idtools`,
/// `parseOverrideXattr`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Note {
    owner: IdPair<u32>,
    permissions: u32,
    /// What a regular file on disk stands for: a node that the engine may not make.
    node: Option<(FileKind, (u32, u32))>,
}

impl Note {
    /// `None` where it is no such note: then it says nothing.
    fn parse(text: &[u8]) -> Option<Note> {
        let mut parts = std::str::from_utf8(text).ok()?.split(':');
        let user = parts.next()?.parse().ok()?;
        let group = parts.next()?.parse().ok()?;
        let mode = u32::from_str_radix(parts.next()?, 8).ok()?;
        let node = parts.next().and_then(node);
        Some(Note { owner: IdPair { user, group }, permissions: mode & 0o7777, node })
    }

    fn applied(self, stat: Stat) -> Stat {
        let IdPair { user: uid, group: gid } = self.owner;
        let kind_bits = stat.mode & libc::S_IFMT;
        let stat = Stat { uid, gid, mode: kind_bits | self.permissions, ..stat };
        match self.node {
            Some((kind, rdev)) if stat.kind == FileKind::Regular => {
                Stat { kind, mode: kind.type_bits() | self.permissions, rdev, size: 0, ..stat }
            }
            _ => stat,
        }
    }
}

/// `char-MAJOR-MINOR`, `block-MAJOR-MINOR`, `pipe` or `socket`.
fn node(text: &str) -> Option<(FileKind, (u32, u32))> {
    let mut parts = text.split('-');
    let kind = match parts.next()? {
        "pipe" => return Some((FileKind::Fifo, (0, 0))),
        "socket" => return Some((FileKind::Socket, (0, 0))),
        "char" => FileKind::CharDevice,
        "block" => FileKind::BlockDevice,
        _ => return None,
    };
    Some((kind, (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::backing::Time;

    fn map(ranges: &[(u32, u32, u32)]) -> IdMap {
        let range = |&(inside, outside, count)| IdRange { inside, outside, count };
        IdMap::new(ranges.iter().map(range).collect()).unwrap()
    }

    fn file(uid: u32, gid: u32) -> Stat {
        Stat {
            kind: FileKind::Regular,
            mode: libc::S_IFREG | 0o600,
            uid,
            gid,
            nlink: 1,
            size: 5,
            blocks: 8,
            mtime: Time::default(),
            ctime: Time::default(),
            rdev: (0, 0),
            dev: 1,
            ino: 2,
        }
    }

    proptest! {
        #[test]
        fn an_id_that_no_range_holds_never_becomes_root(
            ranges: Vec<(u32, u32, u32)>,
            id: u32,
        ) {
            let ranges: Vec<_> = ranges.into_iter().map(|(a, b, c)| (a.max(1), b, c)).collect();
            if let Some(map) = IdMap::new(
                ranges.iter().map(|&(inside, outside, count)| IdRange { inside, outside, count })
                    .collect(),
            ) {
                prop_assert_ne!(map.inside(id), 0);
            }
        }

        #[test]
        fn no_note_makes_a_directory_or_a_link(text in "[0-9]{1,11}:[0-9]{1,3}:[0-9a-z]{1,9}:.{0,20}") {
            let owners = Owners { has_notes: true, ..Owners::default() };
            let seen = owners.seen(file(1, 1), Some(text.as_bytes()));
            prop_assert!(!matches!(seen.kind, FileKind::Directory | FileKind::Symlink));
        }
    }

    #[test]
    fn ids_are_found_at_both_ends_of_a_range() {
        let map = map(&[(0, 1000, 1), (1, 100_000, 65536), (u32::MAX - 1, 7, 5)]);
        for (outside, inside) in [
            (1000, 0),
            (100_000, 1),
            (165_535, 65536),
            (165_536, UNMAPPED),
            (99_999, UNMAPPED),
            (0, UNMAPPED),
            (7, u32::MAX - 1),
            (9, UNMAPPED), // the range leads beyond the last ID
        ] {
            assert_eq!(map.inside(outside), inside, "{outside}");
        }
        assert_eq!(IdMap::new(Vec::new()), None);
    }

    #[test]
    fn an_owner_passes_both_maps_and_a_note_only_the_second() {
        let pair = |map: &IdMap| Some(IdPair { user: map.clone(), group: map.clone() });
        let owners = Owners {
            engine: pair(&map(&[(0, 1000, 1), (1, 100_000, 65536)])),
            container: pair(&map(&[(0, 1, 100), (100, 0, 1)])),
            has_notes: true,
        };
        let seen = owners.seen(file(100_004, 1000), None);
        assert_eq!((seen.uid, seen.gid), (4, 100));
        let seen = owners.seen(file(1000, 1000), Some(b"3:0:04755"));
        assert_eq!((seen.uid, seen.gid, seen.mode), (2, 100, libc::S_IFREG | 0o4755));
        let seen = owners.seen(file(55, 1000), None);
        assert_eq!((seen.uid, seen.gid), (UNMAPPED, 100));
    }

    #[test]
    fn a_note_tells_what_a_file_stands_for() {
        let owners = Owners { has_notes: true, ..Owners::default() };
        for (note, kind, rdev) in [
            ("0:0:666:char-1-3", FileKind::CharDevice, (1, 3)),
            ("0:0:666:block-7-200", FileKind::BlockDevice, (7, 200)),
            ("0:0:666:pipe", FileKind::Fifo, (0, 0)),
            ("0:0:666:file", FileKind::Regular, (0, 0)),
            ("0:0:666:char-x-3", FileKind::Regular, (0, 0)),
            ("0:0:666", FileKind::Regular, (0, 0)),
        ] {
            let seen = owners.seen(file(9, 9), Some(note.as_bytes()));
            assert_eq!((seen.kind, seen.rdev, seen.uid), (kind, rdev, 0), "{note}");
            assert_eq!(FileKind::from_mode(seen.mode), Some(kind));
        }
        for nothing in ["", "0", "0:0", "0:0:9", "x:0:644", "-1:0:644", "\u{fc}"] {
            assert_eq!(owners.seen(file(9, 9), Some(nothing.as_bytes())), file(9, 9), "{nothing}");
        }
    }
}

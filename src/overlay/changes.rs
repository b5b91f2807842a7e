//! What differs between two trees, in the way Docker tells it (`ChangesDirs`, pkg/archive/changes.go
//! of moby, later github.com/moby/go-archive): by attributes, never by contents.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::paths::Redirected;
use super::{Entry, Place, Stack};
use crate::backing::{Stat, Time};
use crate::error::Result;

mod listed;

pub use listed::listed;

/// The only xattr that is compared.
const CAPABILITY: &str = "security.capability";

/// The type bit that tells directories, but also block devices and sockets (`S_IFDIR`, inode(7)).
const DIRECTORY_BIT: u32 = libc::S_IFDIR;

/// Which engine's comparison it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavor {
    /// Up to 27.x, block devices and sockets count as directories, whose size and mtime don't
    /// matter.
    UpTo27,
    /// From 28.0 on, only directories do.
    From28,
}

/// How a path differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Only the new tree has it.
    Added,
    /// Both have it, with other attributes; or a directory with changes below it.
    Modified,
    /// Only the old tree has it. Stands for all that was below it, too.
    Deleted,
}

/// A path that differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change<'a> {
    /// The path, with a leading slash.
    pub path: &'a [u8],
    /// How it differs.
    pub kind: Kind,
}

/// All that differs between two trees, sorted bytewise by path: the lines of `docker diff`, and
/// where each ends. A name may hold anything but a slash, the end of a line too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    text: Vec<u8>,
    /// `ends[i]` is the offset in `text` just past line `i`; strictly increasing.
    ends: Vec<usize>,
}

impl Changes {
    /// The lines, each `A /path\n`, `C /path\n` or `D /path\n`.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Every change.
    pub fn iter(&self) -> impl Iterator<Item = Change<'_>> {
        let starts = std::iter::once(&0).chain(&self.ends);
        starts.zip(&self.ends).filter_map(|(&start, &end)| {
            let line = self.text.get(start..end)?;
            let (kind, path) = (line.first()?, line.get(2..line.len() - 1)?);
            let kind = Kind::ALL.into_iter().find(|known| known.letter() == *kind)?;
            Some(Change { path, kind })
        })
    }

    /// Those whose path `keep` wants.
    #[must_use]
    pub fn filtered(&self, keep: impl Fn(&[u8]) -> bool) -> Changes {
        let mut kept = Changes::default();
        self.iter().filter(|change| keep(change.path)).for_each(|change| kept.push(change));
        kept
    }

    /// Memory that it takes, in bytes, about.
    #[must_use]
    pub fn weight(&self) -> usize {
        size_of::<Changes>() + self.text.len() + self.ends.len() * size_of::<usize>()
    }

    fn push(&mut self, change: Change<'_>) {
        self.text.extend([change.kind.letter(), b' ']);
        self.text.extend(change.path);
        self.text.push(b'\n');
        self.ends.push(self.text.len());
    }
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Added, Kind::Modified, Kind::Deleted];

    /// As `docker diff` prints it.
    fn letter(self) -> u8 {
        match self {
            Kind::Added => b'A',
            Kind::Modified => b'C',
            Kind::Deleted => b'D',
        }
    }
}

/// What makes `new` of `old`, sorted bytewise by path. The root itself is never in it.
///
/// Two directories that are merged of the same directories of the same layers are not listed, so
/// for a container on its image this costs what its writable layer holds. A stack without layers
/// is an empty tree.
///
/// # Errors
/// The first error of listing a directory, or that of a name that can't be shown.
pub fn changes(new: &Stack, old: &Stack, flavor: Flavor) -> Result<Changes> {
    let mut found = BTreeMap::new();
    let mut redirected = Redirected::default();
    let root = |stack: &Stack| match stack.layers() {
        [] => Ok(None),
        _ => stack.root().map(Some),
    };
    let mut open = vec![Pair { path: Vec::new(), new: root(new)?, old: root(old)? }];
    while let Some(pair) = open.pop() {
        if pair.is_same(new, old) {
            continue;
        }
        for (new_child, old_child) in pair.children(new, old)? {
            let child = Pair::new(&pair.path, new_child, old_child);
            for entry in child.new.iter().chain(&child.old) {
                redirected.count(&child.path[1..], entry)?;
            }
            if let Some(kind) = child.kind(new, old, flavor)? {
                found.insert(child.path.clone(), kind);
            }
            open.extend(child.descend(flavor));
        }
    }
    Ok(with_parents(found))
}

/// Two trees at one path; one side may be missing.
struct Pair {
    path: Vec<u8>,
    new: Option<Entry>,
    old: Option<Entry>,
}

impl Pair {
    /// The pair of entries of one name, at least one of them, in the directory `dir`.
    fn new(dir: &[u8], new: Option<Entry>, old: Option<Entry>) -> Pair {
        let name = new.as_ref().or(old.as_ref()).map_or(OsStr::new(""), |entry| &entry.name);
        Pair { path: [dir, b"/", name.as_bytes()].concat(), new, old }
    }

    /// True where both sides show the same files of the same layers.
    fn is_same(&self, new: &Stack, old: &Stack) -> bool {
        let (Some(a), Some(b)) = (&self.new, &self.old) else { return false };
        let is_one = |a: &Place, b: &Place| {
            a.path == b.path
                && match (new.layer(a), old.layer(b)) {
                    (Ok(a), Ok(b)) => a.identity == b.identity,
                    _ => false,
                }
        };
        is_one(&a.place, &b.place)
            && a.lowers.len() == b.lowers.len()
            && a.lowers.iter().zip(&b.lowers).all(|(a, b)| is_one(a, b))
    }

    /// The names that either directory holds, with what they are there.
    fn children(&self, new: &Stack, old: &Stack) -> Result<Vec<(Option<Entry>, Option<Entry>)>> {
        let mut old = list(old, self.old.as_ref())?.into_iter().peekable();
        let mut children = Vec::new();
        for entry in list(new, self.new.as_ref())? {
            while let Some(gone) = old.next_if(|other| other.name < entry.name) {
                children.push((None, Some(gone)));
            }
            let other = old.next_if(|other| other.name == entry.name);
            children.push((Some(entry), other));
        }
        children.extend(old.map(|gone| (None, Some(gone))));
        Ok(children)
    }

    /// How the entry itself differs.
    fn kind(&self, new: &Stack, old: &Stack, flavor: Flavor) -> Result<Option<Kind>> {
        let (a, b) = match (&self.new, &self.old) {
            (Some(_), None) => return Ok(Some(Kind::Added)),
            (None, _) => return Ok(Some(Kind::Deleted)),
            (Some(_), Some(_)) if self.is_same(new, old) => return Ok(None),
            (Some(a), Some(b)) => (a, b),
        };
        let is_modified = differs(&a.stat, &b.stat, flavor) || {
            let capability = OsStr::new(CAPABILITY);
            value(new, a, capability)? != value(old, b, capability)?
        };
        Ok(is_modified.then_some(Kind::Modified))
    }

    /// What is to be compared below: what is gone with its parent is not told.
    fn descend(self, flavor: Flavor) -> Option<Pair> {
        let new = self.new?;
        let old = self.old.filter(Entry::is_dir);
        match new.is_dir() {
            true => Some(Pair { path: self.path, new: Some(new), old }),
            false if counts_as_directory(&new.stat, flavor) && old.is_some() => {
                Some(Pair { path: self.path, new: None, old })
            }
            false => None,
        }
    }
}

/// The value of an xattr; empty where there is none, or where the file has just been removed.
fn value(stack: &Stack, entry: &Entry, name: &OsStr) -> Result<Vec<u8>> {
    match stack.xattr(entry, name) {
        Err(err) if err.is_not_found() || err.is_misplaced() => Ok(Vec::new()),
        value => Ok(value?.unwrap_or_default()),
    }
}

/// What a directory holds; nothing where there is none, or where it has just been removed.
fn list(stack: &Stack, dir: Option<&Entry>) -> Result<Vec<Entry>> {
    let Some(dir) = dir else { return Ok(Vec::new()) };
    let listing = match stack.read_dir(dir) {
        Err(err) if err.is_not_found() || err.is_misplaced() => return Ok(Vec::new()),
        listing => listing?,
    };
    match listing.damaged.into_iter().next() {
        Some((_, err)) => Err(err),
        None => Ok(listing.entries),
    }
}

fn differs(new: &Stat, old: &Stat, flavor: Flavor) -> bool {
    new.mode != old.mode
        || new.uid != old.uid
        || new.gid != old.gid
        || new.rdev != old.rdev
        || !counts_as_directory(new, flavor)
            && (new.size != old.size || !is_same_time(new.mtime, old.mtime))
}

fn counts_as_directory(stat: &Stat, flavor: Flavor) -> bool {
    match flavor {
        Flavor::UpTo27 => stat.mode & DIRECTORY_BIT != 0,
        Flavor::From28 => stat.is_dir(),
    }
}

/// Times from archives have whole seconds only: 0 ns equals any.
fn is_same_time(a: Time, b: Time) -> bool {
    a.secs == b.secs && (a.nanos == b.nanos || a.nanos == 0 || b.nanos == 0)
}

/// Adds the directories that hold changes and are unchanged themselves.
fn with_parents(mut found: BTreeMap<Vec<u8>, Kind>) -> Changes {
    let mut holders = BTreeMap::new();
    for path in found.keys() {
        for parent in parents(path) {
            if found.contains_key(parent) || holders.contains_key(parent) {
                break; // then so are those above it, or will be
            }
            holders.insert(parent.to_vec(), Kind::Modified);
        }
    }
    found.append(&mut holders);
    collect(&found)
}

/// The directories above an absolute path, but for the root, from the bottom up.
fn parents(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    fn above<'a>(path: &&'a [u8]) -> Option<&'a [u8]> {
        match path.iter().rposition(|&byte| byte == b'/') {
            None | Some(0) => None,
            Some(slash) => path.get(..slash),
        }
    }
    std::iter::successors(above(&path), above)
}

fn collect(found: &BTreeMap<Vec<u8>, Kind>) -> Changes {
    let mut all = Changes::default();
    for (path, kind) in found {
        all.push(Change { path, kind: *kind });
    }
    all.text.shrink_to_fit();
    all.ends.shrink_to_fit();
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backing::FileKind;

    #[test]
    fn times_from_archives_have_no_nanoseconds() {
        let time = |secs, nanos| Time { secs, nanos };
        for (a, b, expected) in [
            (time(1, 0), time(1, 5), true),
            (time(1, 5), time(1, 0), true),
            (time(1, 5), time(1, 5), true),
            (time(1, 5), time(1, 6), false),
            (time(1, 0), time(2, 0), false),
        ] {
            assert_eq!(is_same_time(a, b), expected);
        }
    }

    #[test]
    fn a_directory_with_changes_below_is_modified() {
        let path = |path: &str| path.as_bytes().to_vec();
        let found = BTreeMap::from([
            (path("/a/b/c"), Kind::Added),
            (path("/a-b"), Kind::Deleted),
            (path("/d"), Kind::Added),
            (path("/d/e"), Kind::Added),
        ]);
        let all = with_parents(found);
        assert_eq!(all.text(), b"C /a\nD /a-b\nC /a/b\nA /a/b/c\nA /d\nA /d/e\n");
        let kinds: Vec<_> = all.iter().map(|change| (change.kind, change.path)).collect();
        assert_eq!(kinds[1], (Kind::Deleted, &b"/a-b"[..]));
        assert_eq!(kinds.len(), 6);
    }

    #[test]
    fn a_name_may_hold_the_end_of_a_line() {
        let path = b"/a\nD /b".to_vec();
        let all = with_parents(BTreeMap::from([(path.clone(), Kind::Added)]));
        let changes: Vec<_> = all.iter().map(|change| (change.kind, change.path)).collect();
        assert_eq!(changes, [(Kind::Modified, &b"/a\nD "[..]), (Kind::Added, &path[..])]);
    }

    #[test]
    fn attributes_that_matter_differ_and_others_do_not() {
        let time = |secs| Time { secs, nanos: 1 };
        let file = Stat {
            kind: FileKind::BlockDevice,
            mode: libc::S_IFBLK | 0o644,
            uid: 1,
            gid: 1,
            nlink: 1,
            size: 1,
            blocks: 1,
            mtime: time(1),
            ctime: time(1),
            rdev: (7, 1),
            dev: 1,
            ino: 1,
        };
        let cases = [
            (Stat { mode: libc::S_IFBLK | 0o600, ..file }, [true, true]),
            (Stat { uid: 2, ..file }, [true, true]),
            (Stat { gid: 2, ..file }, [true, true]),
            (Stat { rdev: (7, 2), ..file }, [true, true]),
            (Stat { size: 2, ..file }, [false, true]),
            (Stat { mtime: time(2), ..file }, [false, true]),
            (Stat { nlink: 2, blocks: 2, ctime: time(2), dev: 2, ino: 2, ..file }, [false, false]),
        ];
        for (other, expected) in cases {
            let found =
                [Flavor::UpTo27, Flavor::From28].map(|flavor| differs(&other, &file, flavor));
            assert_eq!(found, expected, "{other:?}");
        }
    }
}

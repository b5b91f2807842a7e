//! What Podman tells of a container on an overlay (`OverlayChanges`, pkg/archive/changes_linux.go of
//! containers/storage): what its own directory lists, not a comparison of trees. So a directory that
//! was made anew is deleted, and one with changed files is not in it unless something came or went.
//!
//! Podman looks for a path in the directories of the layers, following symlinks on the host; here it
//! is looked for in what they show. So nothing fails where a file became a directory.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::{Changes, Kind, collect, is_same_time, parents};
use crate::backing::{FileKind, Stat};
use crate::error::{Error, Result};
use crate::overlay::{Entry, Stack, find, marks};
use crate::store::{LayerDir, Marks};

/// Paths that Podman itself writes to, and does not tell of (libpod/diff.go).
const OWN: [&[u8]; 11] = [
    b"/dev",
    b"/etc/hostname",
    b"/etc/hosts",
    b"/etc/mtab",
    b"/etc/resolv.conf",
    b"/proc",
    b"/run",
    b"/run/.containerenv",
    b"/run/notify",
    b"/run/secrets",
    b"/sys",
];

/// What the writable directory `own` changes in `below`, as `podman diff` lists it, sorted by path.
///
/// # Errors
/// The first error of listing a directory.
pub fn listed(own: &LayerDir, below: &Stack) -> Result<Changes> {
    let raw = Stack::new(vec![LayerDir { marks: Marks::Complete, ..own.clone() }]);
    let mut found = BTreeMap::new();
    let mut directories = BTreeSet::new();
    raw.walk(&mut |path, entry| {
        let entry = match entry {
            Ok(entry) => entry,
            Err(err) if err.is_not_found() || err.is_misplaced() => return Ok(()),
            Err(err) => return Err(err),
        };
        let path = [b"/", path].concat();
        let kind = match kind(own, &path, entry, below) {
            Err(err) if err.is_not_found() || err.is_misplaced() => return Ok(()),
            kind => kind?,
        };
        let Some(kind) = kind else { return Ok(()) };
        if entry.is_dir() {
            directories.insert(path.clone());
        }
        if kind != Kind::Modified {
            for parent in parents(&path) {
                if directories.insert(parent.to_vec()) {
                    found.insert(parent.to_vec(), Kind::Modified);
                }
            }
        }
        found.insert(path, kind);
        Ok(())
    })?;
    found.retain(|path, _| !OWN.contains(&path.as_slice()));
    Ok(collect(&found))
}

/// What the entry at `path` tells; `None` for a directory that only holds changes.
fn kind(own: &LayerDir, path: &[u8], entry: &Entry, below: &Stack) -> Result<Option<Kind>> {
    if entry.stat.kind == FileKind::CharDevice && entry.stat.rdev == (0, 0) {
        return Ok(Some(Kind::Deleted));
    }
    let Some(old) = find(below, path)? else { return Ok(Some(Kind::Added)) };
    if !entry.is_dir() {
        return Ok(Some(Kind::Modified));
    }
    let (dir, name) = entry.place.split();
    let dir = own.root.dir(dir).map_err(|err| moved(&err, path))?;
    if marks::is_opaque(&dir, name, own.marks)? {
        return Ok(Some(Kind::Deleted));
    }
    Ok((!is_same_directory(&entry.stat, &old.stat)).then_some(Kind::Modified))
}

fn moved(err: &Error, path: &[u8]) -> Error {
    if err.is_misplaced() { Error::not_found(OsStr::from_bytes(path)) } else { err.again() }
}

fn is_same_directory(new: &Stat, old: &Stat) -> bool {
    new.mode == old.mode && new.size == old.size && is_same_time(new.mtime, old.mtime)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::Arc;

    use rustix::fs::{XattrFlags, lsetxattr};

    use super::*;
    use crate::backing::{Access, Root};

    fn layer(path: &Path, identity: u64) -> LayerDir {
        let root = Arc::new(Root::open(path, Access::Live).unwrap());
        LayerDir { root, identity, marks: Marks::User, owners: None }
    }

    #[test]
    fn a_directory_that_was_made_anew_is_deleted_and_its_files_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for path in ["lower/anew/gone", "lower/anew/kept", "lower/held/file", "lower/swap"] {
            fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            fs::write(at(path), "x").unwrap();
        }
        for path in ["upper/anew", "upper/held", "upper/swap/in", "upper/etc"] {
            fs::create_dir_all(at(path)).unwrap();
        }
        for path in ["anew/kept", "anew/new", "held/file", "etc/hosts"] {
            fs::write(at(&format!("upper/{path}")), "y").unwrap();
        }
        lsetxattr(at("upper/anew"), "user.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
        let held = fs::metadata(at("lower/held")).unwrap().modified().unwrap();
        fs::File::open(at("upper/held")).unwrap().set_modified(held).unwrap();
        let below = Stack::new(vec![layer(&at("lower"), 2)]);
        let changes = listed(&layer(&at("upper"), 1), &below).unwrap();
        let expected =
            "D /anew\nC /anew/kept\nA /anew/new\nA /etc\nC /held/file\nC /swap\nA /swap/in\n";
        assert_eq!(String::from_utf8_lossy(changes.text()), expected);
    }
}

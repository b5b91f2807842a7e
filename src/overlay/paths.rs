//! Paths of the merged tree: one followed as a process in a chroot would, and all of them in order.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::vec;

use rustix::io::Errno;

use super::{Entry, Listing, Place, Stack, Visit};
use crate::backing::FileKind;
use crate::error::{Error, Result};

/// Symlinks that one path may lead through (Linux `MAXSYMLINKS`).
const LINKS_MAX: usize = 40;

/// Entries of one walk that may be found under redirects. Docker's own directories have none.
const REDIRECTED_MAX: usize = 1 << 20;

impl Stack {
    /// What lies at `path`, seen from the root. Symlinks are followed as in a chroot, the last one
    /// too: an absolute target starts at this root again, and `..` never leaves it.
    ///
    /// # Errors
    /// ENOENT where a name is missing, ENOTDIR where a file is in the way, ELOOP after 40 symlinks,
    /// and all that [`Stack::lookup`] fails with.
    pub fn resolve(&self, path: &[u8]) -> Result<Entry> {
        let mut above = Vec::new();
        let mut here = self.root()?;
        let mut rest = components(path);
        let mut links = 0;
        while let Some(name) = rest.pop() {
            let entry = match name.as_slice() {
                _ if !here.is_dir() => return Err(Error::errno_of(shown(path), Errno::NOTDIR)),
                b"" | b"." => continue,
                b".." => {
                    here = above.pop().unwrap_or(here);
                    continue;
                }
                name => self.lookup(&here, OsStr::from_bytes(name))?,
            };
            let entry = entry.ok_or_else(|| Error::not_found(shown(path)))?;
            if entry.stat.kind != FileKind::Symlink {
                above.push(std::mem::replace(&mut here, entry));
                continue;
            }
            links += 1;
            if links > LINKS_MAX {
                return Err(Error::errno_of(shown(path), Errno::LOOP));
            }
            let target = self.read_link(&entry)?;
            if target.starts_with(b"/") {
                above.truncate(1); // the first of those above is the root
                here = above.pop().unwrap_or(here);
            }
            rest.append(&mut components(&target));
        }
        Ok(here)
    }

    /// Where `path` leads, as names without symlinks: each is followed as in a chroot, the last one
    /// too. Names that are missing stay as they are.
    ///
    /// # Errors
    /// ELOOP after 40 symlinks, and all that [`Stack::lookup`] fails with.
    pub fn canonical(&self, path: &[u8]) -> Result<Vec<u8>> {
        let mut names: Vec<Vec<u8>> = Vec::new();
        let mut above: Vec<Option<Entry>> = vec![Some(self.root()?)];
        let mut rest = components(path);
        let mut links = 0;
        while let Some(name) = rest.pop() {
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    names.pop();
                    above.truncate(above.len().saturating_sub(1).max(1));
                    continue;
                }
                _ => {}
            }
            let dir = above.last().and_then(Option::as_ref).filter(|entry| entry.is_dir());
            let entry = match dir {
                Some(dir) => self.lookup(dir, OsStr::from_bytes(&name))?,
                None => None,
            };
            let Some(link) = entry.as_ref().filter(|it| it.stat.kind == FileKind::Symlink) else {
                names.push(name);
                above.push(entry);
                continue;
            };
            links += 1;
            if links > LINKS_MAX {
                return Err(Error::errno_of(shown(path), Errno::LOOP));
            }
            let target = self.read_link(link)?;
            if target.starts_with(b"/") {
                names.clear();
                above.truncate(1);
            }
            rest.append(&mut components(&target));
        }
        Ok(names.join(&b'/'))
    }

    /// Calls `visit` with every path below the root, without a leading slash, and what is there: a
    /// directory before what it holds, the names in a directory sorted bytewise. What can't be
    /// shown is visited as an error, before its neighbours; so is a directory that can't be listed,
    /// once more after itself. Depth costs heap, not stack.
    ///
    /// # Errors
    /// The first error that `visit` returns, or that of listing the root; corrupt where redirects
    /// show the same files over and over.
    pub fn walk(&self, visit: &mut Visit<'_>) -> Result<()> {
        let mut path = Vec::new();
        let mut redirected = Redirected::default();
        let listing = self.read_dir(&self.root()?)?;
        let mut open = vec![Level::enter(&mut path, listing, visit)?];
        while let Some(level) = open.last_mut() {
            path.truncate(level.path);
            let Some(entry) = level.entries.next() else {
                open.pop();
                continue;
            };
            push(&mut path, entry.name.as_bytes());
            redirected.count(&path, &entry)?;
            visit(&path, Ok(&entry))?;
            if !entry.is_dir() {
                continue;
            }
            match self.read_dir(&entry) {
                Ok(listing) => open.push(Level::enter(&mut path, listing, visit)?),
                Err(err) => visit(&path, Err(err))?,
            }
        }
        Ok(())
    }
}

/// Counts the entries that a walk finds elsewhere than a layer has them.
///
/// Two directories of each layer that lead to the root of the next double the tree with every
/// layer; 40 such layers would never be walked to the end.
#[derive(Debug, Default)]
pub(super) struct Redirected {
    entries: usize,
}

impl Redirected {
    /// Counts `entry` if need be, which lies at `path`.
    ///
    /// # Errors
    /// Corrupt where it is one too many.
    pub(super) fn count(&mut self, path: &[u8], entry: &Entry) -> Result<()> {
        let is_redirected = |place: &Place| place.path != path;
        if !is_redirected(&entry.place) && !entry.lowers.iter().any(is_redirected) {
            return Ok(());
        }
        self.entries += 1;
        if self.entries > REDIRECTED_MAX {
            return Err(Error::corrupt(shown(path), "too many files under redirects"));
        }
        Ok(())
    }
}

/// A directory that a walk is in.
struct Level {
    /// Length of its path.
    path: usize,
    entries: vec::IntoIter<Entry>,
}

impl Level {
    /// Visits what can't be shown, and keeps the rest for later.
    fn enter(path: &mut Vec<u8>, listing: Listing, visit: &mut Visit<'_>) -> Result<Level> {
        let length = path.len();
        for (name, err) in listing.damaged {
            push(path, name.as_bytes());
            visit(path, Err(err))?;
            path.truncate(length);
        }
        Ok(Level { path: length, entries: listing.entries.into_iter() })
    }
}

pub(super) fn push(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

fn shown(path: &[u8]) -> PathBuf {
    OsStr::from_bytes(path).into()
}

/// The names of a path, last first.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|&byte| byte == b'/').rev().map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use rustix::fs::{XattrFlags, lsetxattr};

    use super::*;
    use crate::backing::{Access, Root};
    use crate::store::{LayerDir, Marks};

    #[test]
    fn a_canonical_path_leads_through_no_symlink_and_never_out() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("run/app")).unwrap();
        for (name, target) in [("var", "/run/../run"), ("loop", "loop"), ("up", "../../../run")] {
            std::os::unix::fs::symlink(target, dir.path().join(name)).unwrap();
        }
        let root = Arc::new(Root::open(dir.path(), Access::Sealed).unwrap());
        let stack =
            Stack::new(vec![LayerDir { root, identity: 1, marks: Marks::Complete, owners: None }]);
        let found = |path: &str| stack.canonical(path.as_bytes()).map(String::from_utf8);
        for (path, expected) in [
            ("/run/app", "run/app"),
            ("/var/app", "run/app"),
            ("var/new/./deep/..", "run/new"),
            ("/up/app/../..", ""),
            ("/../../etc", "etc"),
            ("/missing/var", "missing/var"),
        ] {
            assert_eq!(found(path).unwrap().unwrap(), expected, "{path}");
        }
        assert_eq!(found("/loop/x").unwrap_err().errno(), Errno::LOOP);
    }

    #[test]
    fn a_walk_ends_where_redirects_multiply_the_tree() {
        let dir = tempfile::tempdir().unwrap();
        let layer = |at: usize| {
            let path = dir.path().join(at.to_string());
            for name in ["0", "1", "2"] {
                let path = path.join("x").join(name);
                fs::create_dir_all(&path).unwrap();
                lsetxattr(&path, "user.overlay.redirect", b"/x", XattrFlags::empty()).unwrap();
            }
            let root = Arc::new(Root::open(&path, Access::Sealed).unwrap());
            LayerDir { root, identity: at as u64, marks: Marks::User, owners: None }
        };
        let stack = Stack::new((0..4).map(layer).collect());
        let mut counted = Redirected { entries: REDIRECTED_MAX - 100 };
        let mut visited = 0;
        let walked = stack.walk(&mut |path, entry| {
            visited += 1;
            counted.count(path, entry?)
        });
        assert!(walked.is_err() && visited > 100);
    }
}

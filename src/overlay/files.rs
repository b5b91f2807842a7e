//! Files of merged layers, or those that one layer holds itself, walked and read alike.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::vec;

use rustix::io::Errno;

use super::own::{OwnEntry, OwnTree, What};
use super::paths::{Redirected, push};
use super::{Entry, Place, Stack, parent_and_name};
use crate::backing::{FileKind, Stat};
use crate::error::{Error, Result};
use crate::recipe::{Expect, FileRef, Recipe, RecipeBuilder};

/// A tree of files.
#[derive(Debug, Clone, Copy)]
pub enum Files<'a> {
    /// Merged layers.
    Merged(&'a Stack),
    /// What one layer holds itself.
    Own {
        /// Its names.
        tree: &'a OwnTree,
        /// That layer alone, in which the places of `tree` are.
        layer: &'a Stack,
    },
}

/// One name of such a tree.
#[derive(Debug)]
pub struct Found {
    /// What is there. That of a mark is an empty file with no place of its own.
    pub entry: Entry,
    /// Whether it stands for a whiteout or an opaque directory.
    pub is_mark: bool,
}

/// What a walk does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Go on; into the directory, if it is one.
    Enter,
    /// Leave out what the directory holds.
    Skip,
}

/// What [`Files::walk`] calls: with a path, and what is there.
pub type Visit<'a> = dyn FnMut(&[u8], &Found) -> Result<Step> + 'a;

impl From<OwnEntry> for Found {
    fn from(own: OwnEntry) -> Found {
        let (place, is_mark) = match own.what {
            What::File(place) => (place, false),
            What::Whiteout | What::Opaque => (Place::root(0), true),
        };
        let nlink = if is_mark { 1 } else { own.stat.nlink };
        let entry = Entry {
            name: own.name,
            stat: Stat { nlink, ..own.stat },
            lowers: if own.stat.is_dir() { vec![place.clone()] } else { Vec::new() },
            data: place.clone(),
            place,
        };
        Found { entry, is_mark }
    }
}

impl<'a> Files<'a> {
    /// Where the places of the files are.
    #[must_use]
    pub fn stack(&self) -> &'a Stack {
        match self {
            Files::Merged(stack) => stack,
            Files::Own { layer, .. } => layer,
        }
    }

    /// The root directory.
    ///
    /// # Errors
    /// As [`Stack::root`].
    pub fn root(&self) -> Result<Found> {
        Ok(Found { entry: self.stack().root()?, is_mark: false })
    }

    /// What lies at `path`, through no symlink; `""` is the root.
    ///
    /// # Errors
    /// ENOENT where a name is missing, ENOTDIR where a file is in the way, and what the file
    /// system says.
    pub fn find(&self, path: &[u8]) -> Result<Found> {
        if path.is_empty() {
            return self.root();
        }
        let missing = || Error::not_found(OsStr::from_bytes(path));
        match self {
            Files::Own { tree, .. } => {
                let (dir, name) = parent_and_name(path);
                let own = tree.lookup(dir, OsStr::from_bytes(name))?;
                own.map(Found::from).ok_or_else(missing)
            }
            Files::Merged(stack) => {
                let mut entry = stack.root()?;
                for name in path.split(|&byte| byte == b'/') {
                    let next = stack.lookup(&entry, OsStr::from_bytes(name))?;
                    entry = next.ok_or_else(missing)?;
                }
                Ok(Found { entry, is_mark: false })
            }
        }
    }

    /// Calls `visit` with every path below the directory `dir`, which lies at `at`, and what is
    /// there: a directory before what it holds, the names in a directory sorted bytewise. Depth
    /// costs heap, not stack.
    ///
    /// # Errors
    /// The first error that `visit` returns, or that anything there can't be shown with; corrupt
    /// where redirects show the same files over and over.
    pub fn walk(&self, at: &[u8], dir: &Entry, visit: &mut Visit<'_>) -> Result<()> {
        let mut path = at.to_vec();
        let mut redirected = Redirected::default();
        let mut open = vec![(path.len(), self.read_dir(&path, dir)?)];
        while let Some((length, entries)) = open.last_mut() {
            path.truncate(*length);
            let Some(found) = entries.next() else {
                open.pop();
                continue;
            };
            push(&mut path, found.entry.name.as_bytes());
            if !found.is_mark {
                redirected.count(&path, &found.entry)?;
            }
            if visit(&path, &found)? == Step::Enter && found.entry.is_dir() {
                open.push((path.len(), self.read_dir(&path, &found.entry)?));
            }
        }
        Ok(())
    }

    /// The bytes of a regular file.
    ///
    /// # Errors
    /// EISDIR or EINVAL for anything else, and what the file system says.
    pub fn contents(&self, found: &Found) -> Result<Recipe> {
        let entry = &found.entry;
        match entry.stat.kind {
            FileKind::Regular => {}
            FileKind::Directory => return Err(Error::errno_of(&entry.name, Errno::ISDIR)),
            _ => return Err(Error::errno_of(&entry.name, Errno::INVAL)),
        }
        let mut recipe = RecipeBuilder::new();
        if entry.stat.size > 0 {
            recipe.push_file(&self.stack().file(entry)?);
        }
        recipe.finish()
    }

    fn read_dir(&self, path: &[u8], dir: &Entry) -> Result<vec::IntoIter<Found>> {
        let found: Vec<Found> = match self {
            Files::Own { tree, .. } => tree.read_dir(path)?.into_iter().map(Found::from).collect(),
            Files::Merged(stack) => {
                let mut listing = stack.read_dir(dir)?;
                if let Some((_, err)) = listing.damaged.pop() {
                    return Err(err);
                }
                let entries = listing.entries.into_iter();
                entries.map(|entry| Found { entry, is_mark: false }).collect()
            }
        };
        Ok(found.into_iter())
    }
}

impl Stack {
    /// The contents of the regular file `entry`, held to what they are now.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn file<'a>(&'a self, entry: &'a Entry) -> Result<FileRef<'a>> {
        let root = &self.layer(&entry.data)?.root;
        let stamp = match entry.data == entry.place {
            true => entry.stat.stamp(),
            false => root.stat(entry.data.path())?.stamp(),
        };
        let (directory, name) = parent_and_name(&entry.data.path);
        Ok(FileRef { root, directory, name, size: entry.stat.size, expect: Expect::Stamp(stamp) })
    }
}

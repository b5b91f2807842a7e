//! A container's files with what is mounted into it in its place: `full.tar`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::{Builder, Export, Style};
use crate::archive::pack::Body;
use crate::error::{Error, Result};
use crate::overlay::{Entry, Stack, find};
use crate::tar::header::{Header, Type};

/// Mounts that may lie in one another.
const NESTED_MAX: usize = 64;

/// Something that is mounted into a container.
#[derive(Debug, Clone)]
pub struct Mounted {
    /// Where in the container, without symlinks and without a leading slash; not its root.
    pub at: Vec<u8>,
    /// The tree that it is from.
    pub stack: Stack,
    /// What of it is mounted: its root, or a single file.
    pub top: Entry,
}

/// The merged files of `stack` in the order of a walk, and in each of `mounts` what is mounted there
/// instead of what it hides. Of two at the same place the last one counts. A mount point that nobody
/// has made comes last, with the directories above it.
///
/// # Errors
/// Fails when a directory of the container can't be read, and where mounts are nested too deeply.
pub fn full(stack: &Stack, mounts: &[Mounted], style: &Style) -> Result<Export> {
    let mut builder = Builder::new(stack, style);
    let mounts: BTreeMap<&[u8], &Mounted> =
        mounts.iter().map(|mounted| (mounted.at.as_slice(), mounted)).collect();
    for mounted in mounts.values() {
        let from = &mounted.top.data.path;
        for layer in mounted.stack.layers() {
            builder.packer.place(&layer.root, from, &mounted.at);
        }
    }
    if !stack.layers().is_empty() {
        builder.push_tree(b"", &Mounts::of(&mounts, 0)?)?;
    }
    builder.finish()
}

/// Mounts of one tree by path, each with those in it.
struct Mounts<'a>(BTreeMap<&'a [u8], (&'a Mounted, Mounts<'a>)>);

impl<'a> Mounts<'a> {
    fn of(all: &BTreeMap<&'a [u8], &'a Mounted>, depth: usize) -> Result<Mounts<'a>> {
        let mut rest = all.clone();
        let mut own = BTreeMap::new();
        // A path comes before all that lie below it, though others may come in between.
        while let Some((at, mounted)) = rest.pop_first() {
            if depth == NESTED_MAX {
                let path = OsStr::from_bytes(at);
                return Err(Error::corrupt(path, "too many mounts in one another"));
            }
            let nested: BTreeMap<_, _> =
                rest.iter().filter(|(path, _)| is_below(path, at)).map(|(k, v)| (*k, *v)).collect();
            rest.retain(|path, _| !nested.contains_key(path));
            own.insert(at, (mounted, Mounts::of(&nested, depth + 1)?));
        }
        Ok(Mounts(own))
    }
}

impl<'a> Builder<'a> {
    /// The entries of the current tree below `top`, and what is mounted into it.
    fn push_tree(&mut self, top: &[u8], mounts: &Mounts<'a>) -> Result<()> {
        let tree = self.stack;
        let mut met: BTreeSet<Vec<u8>> = BTreeSet::new();
        let mut hidden: Option<Vec<u8>> = None;
        tree.walk(&mut |path, entry| {
            let path = join(top, path);
            if hidden.as_ref().is_some_and(|hidden| is_below(&path, hidden)) {
                return Ok(());
            }
            if let Some((mounted, inner)) = mounts.0.get(path.as_slice()) {
                hidden = Some(path.clone());
                // A directory that can't be listed is visited twice.
                return match met.insert(path) {
                    true => self.push_mounted(mounted, inner),
                    false => Ok(()),
                };
            }
            let Ok(entry) = entry else { return self.omit(&path) };
            self.note(entry);
            self.push(&path, entry)
        })?;
        let mut made: BTreeSet<Vec<u8>> = BTreeSet::new();
        for (at, (mounted, inner)) in mounts.0.iter().filter(|(at, _)| !met.contains(**at)) {
            self.push_missing(tree, top, at, &mut made)?;
            self.push_mounted(mounted, inner)?;
        }
        Ok(())
    }

    /// What is mounted, as a tree of its own: no hard link leads out of it.
    fn push_mounted(&mut self, mounted: &'a Mounted, inner: &Mounts<'a>) -> Result<()> {
        let (stack, links) = (self.stack, std::mem::take(&mut self.links));
        self.stack = &mounted.stack;
        self.note(&mounted.top);
        let pushed =
            self.push(&mounted.at, &mounted.top).and_then(|()| match mounted.top.is_dir() {
                true => self.push_tree(&mounted.at, inner),
                false => Ok(()),
            });
        let pushed = self.unless_gone(&mounted.at, pushed);
        (self.stack, self.links) = (stack, links);
        pushed
    }

    /// The directories above `at` that the tree at `top` lacks.
    fn push_missing(
        &mut self,
        tree: &Stack,
        top: &[u8],
        at: &[u8],
        made: &mut BTreeSet<Vec<u8>>,
    ) -> Result<()> {
        let start = if top.is_empty() { 0 } else { top.len() + 1 };
        let slashes = (start..at.len()).filter(|&index| at[index] == b'/');
        for path in slashes.map(|slash| &at[..slash]) {
            let below = path.get(start..).unwrap_or_default();
            if find(tree, below)?.is_none() && made.insert(path.to_vec()) {
                let name = [path, b"/"].concat();
                let header = Header { mode: 0o755, ..Header::new(name, Type::Directory) };
                self.pack(header, &Body::Empty);
            }
        }
        Ok(())
    }
}

fn join(top: &[u8], path: &[u8]) -> Vec<u8> {
    match top {
        [] => path.to_vec(),
        top => [top, b"/", path].concat(),
    }
}

fn is_below(path: &[u8], top: &[u8]) -> bool {
    path.strip_prefix(top).is_some_and(|rest| rest.starts_with(b"/"))
}

//! The tree by path, for those who look without a kernel: symlinks are followed here.
//!
//! A symlink of the tree's own leads to what it names. One of an image is followed as a process in
//! the container would follow it: `/` is the image's, and `..` does not lead above it. So no path
//! ever leaves the tree.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;

use super::node::Node;
use super::{Attr, ROOT, Tree};
use crate::backing::{BackingFile, FileKind};
use crate::error::{Error, Result};
use crate::recipe::Run;

/// Most symlinks on the way of one path (Linux `MAXSYMLINKS`).
const LINKS_MAX: usize = 40;

/// Whether a symlink at the end of a path is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// It is: what it leads to is meant.
    Last,
    /// It is not: it is meant itself.
    NotLast,
}

/// Something of the tree, known for as long as anybody has it, with all above it.
#[derive(Debug, Clone)]
pub struct Found<'a>(Arc<Inner<'a>>);

#[derive(Debug)]
struct Inner<'a> {
    tree: &'a Tree,
    attr: Attr,
    parent: Option<Found<'a>>,
}

impl Drop for Inner<'_> {
    fn drop(&mut self) {
        self.tree.forget(self.attr.ino, 1);
        // One by one: a path may be deeper than the stack.
        let mut above = self.parent.take();
        while let Some(Found(inner)) = above {
            above = Arc::into_inner(inner).and_then(|mut inner| inner.parent.take());
        }
    }
}

impl<'a> Found<'a> {
    /// Its attributes.
    #[must_use]
    pub fn attr(&self) -> &Attr {
        &self.0.attr
    }

    /// The tree that it is of.
    #[must_use]
    pub fn tree(&self) -> &'a Tree {
        self.0.tree
    }

    /// The entry `name` of this directory, a symlink itself if it is one.
    ///
    /// # Errors
    /// As [`Tree::lookup`].
    pub fn child(&self, name: &OsStr) -> Result<Found<'a>> {
        let attr = self.0.tree.lookup(self.0.attr.ino, name)?;
        Ok(Found(Arc::new(Inner { tree: self.0.tree, attr, parent: Some(self.clone()) })))
    }

    fn above(&self, floor: Option<&Found<'a>>) -> Found<'a> {
        let is_floor = floor.is_some_and(|floor| floor.attr().ino == self.attr().ino);
        let parent = self.0.parent.as_ref().filter(|_| !is_floor);
        parent.unwrap_or(self).clone()
    }

    /// The top of the image's files that it is one of; `None` for what stratafs makes up.
    fn top(&self) -> Result<Option<Found<'a>>> {
        let mut at = self;
        loop {
            match &*self.0.tree.known(at.attr().ino)?.node {
                Node::Merged { depth: 0, .. } | Node::Own { depth: 0, .. } => {
                    return Ok(Some(at.clone()));
                }
                Node::Merged { .. } | Node::Own { .. } => {}
                Node::Place(_) | Node::Document(_) | Node::Link(_) | Node::Archive(_) => {
                    return Ok(None);
                }
            }
            match &at.0.parent {
                Some(parent) => at = parent,
                None => return Ok(None),
            }
        }
    }
}

/// A part of a path that is still to be walked.
struct Step<'a> {
    name: OsString,
    /// What `..` does not lead above.
    floor: Option<Found<'a>>,
}

impl Tree {
    /// What is at `path`, which starts at the root of the tree.
    ///
    /// # Errors
    /// ENOENT where there is nothing; ELOOP where symlinks lead in circles; as [`Tree::lookup`].
    pub fn find(&self, path: &Path, follow: Follow) -> Result<Found<'_>> {
        let root = Found(Arc::new(Inner { tree: self, attr: self.attr(ROOT)?, parent: None }));
        let mut at = root.clone();
        let mut left: VecDeque<Step<'_>> = steps(path.as_os_str(), None).collect();
        let mut links = 0;
        while let Some(Step { name, floor }) = left.pop_front() {
            let next = match name.as_bytes() {
                b"" | b"." => continue,
                b".." => {
                    at = at.above(floor.as_ref());
                    continue;
                }
                _ => at.child(&name)?,
            };
            let is_link = next.attr().kind == FileKind::Symlink;
            if !is_link || (left.is_empty() && follow == Follow::NotLast) {
                at = next;
                continue;
            }
            links += 1;
            if links > LINKS_MAX {
                return Err(Error::errno_of(path, Errno::LOOP));
            }
            let target = OsString::from_vec(self.read_link(next.attr().ino)?);
            let floor = at.top()?.or(floor);
            if target.as_bytes().starts_with(b"/") {
                at = floor.clone().unwrap_or_else(|| root.clone());
            }
            for step in steps(&target, floor).collect::<Vec<_>>().into_iter().rev() {
                left.push_front(step);
            }
        }
        Ok(at)
    }

    /// How the bytes of the file `ino` from `offset` on, at most `most` of them, are best read.
    ///
    /// # Errors
    /// As [`Tree::read`].
    pub fn run(&self, ino: u64, offset: u64, most: u64) -> Result<Run> {
        let known = self.known(ino)?;
        Ok(match &*known.node {
            Node::Document(recipe) => recipe.run(offset, most),
            Node::Archive(archive) => self.recipe(archive, known.attr.size)?.run(offset, most),
            Node::Merged { entry, .. } => Run::of_file(entry.stat.size, offset, most),
            Node::Place(_) | Node::Own { .. } | Node::Link(_) => {
                Run { count: 0, is_continued: false, is_plain: false }
            }
        })
    }

    /// The file that holds the bytes of `ino` from `offset` on, and where in it they begin, where
    /// [`Run::is_plain`] says that nothing else holds them to anything.
    ///
    /// # Errors
    /// As [`Tree::read`].
    pub fn backing(&self, ino: u64, offset: u64) -> Result<Option<(BackingFile, u64)>> {
        let known = self.known(ino)?;
        match &*known.node {
            Node::Archive(archive) => self.recipe(archive, known.attr.size)?.backing(offset),
            Node::Merged { tree, entry, .. } => Ok(Some((tree.open(entry)?, offset))),
            Node::Document(_) | Node::Place(_) | Node::Own { .. } | Node::Link(_) => Ok(None),
        }
    }
}

fn steps<'a>(path: &OsStr, floor: Option<Found<'a>>) -> impl Iterator<Item = Step<'a>> {
    path.as_bytes()
        .split(|&byte| byte == b'/')
        .map(move |name| Step { name: OsStr::from_bytes(name).to_owned(), floor: floor.clone() })
}

//! Entries put one after another: header, body, padding; the one place where a tar's layout is made.

use std::collections::HashMap;
use std::sync::Arc;

use crate::backing::Root;
use crate::error::Result;
use crate::recipe::{FileRef, Recipe, RecipeBuilder};
use crate::tar::header::{self, Header, Type};
use crate::tar::{BLOCK, TRAILER};

/// The body of an entry.
#[derive(Debug)]
pub(super) enum Body<'a> {
    /// None: links, directories, devices, and empty files.
    Empty,
    /// These bytes.
    Inline(&'a [u8]),
    /// The whole of a recipe.
    Part(Arc<Recipe>),
    /// The whole of a file.
    File(FileRef<'a>),
}

impl Body<'_> {
    fn len(&self) -> u64 {
        match self {
            Body::Empty => 0,
            Body::Inline(bytes) => bytes.len() as u64,
            Body::Part(part) => part.len(),
            Body::File(file) => file.size,
        }
    }
}

/// Writes a tar as a recipe.
#[derive(Debug, Default)]
pub(super) struct Packer {
    recipe: RecipeBuilder,
    scratch: Vec<u8>,
}

impl Packer {
    /// Appends an entry whose size is that of its body. An entry that no header can tell is left
    /// out, as Go's writer does; the answer says whether it went in.
    pub(super) fn push(&mut self, header: Header, body: &Body<'_>) -> bool {
        let header = Header { size: body.len(), ..header };
        self.scratch.clear();
        if header::encode(&header, &mut self.scratch).is_err() {
            return false;
        }
        self.recipe.push_inline(&self.scratch);
        match body {
            Body::Empty => {}
            Body::Inline(bytes) => self.recipe.push_inline(bytes),
            Body::Part(part) => self.recipe.push_part(Arc::clone(part)),
            Body::File(file) => self.recipe.push_file(file),
        }
        self.recipe.pad_to(BLOCK);
        true
    }

    /// Tells that what `root` holds at `from` is at `to` in the archive.
    pub(super) fn place(&mut self, root: &Arc<Root>, from: &[u8], to: &[u8]) {
        self.recipe.place(root, from, to);
    }

    /// The archive, ended by its two zero blocks.
    ///
    /// # Errors
    /// Fails when it is longer than a file can be.
    pub(super) fn finish(mut self) -> Result<Recipe> {
        self.recipe.push_zeros(TRAILER);
        self.recipe.finish()
    }
}

/// The files with several names that were met so far, by device and inode number.
#[derive(Debug, Default)]
pub(super) struct HardLinks(HashMap<(u64, u64), Vec<u8>>);

impl HardLinks {
    /// The name under which the file was met before; otherwise it is `name` from now on.
    pub(super) fn earlier(&mut self, dev: u64, ino: u64, name: &[u8]) -> Option<Vec<u8>> {
        if let Some(first) = self.0.get(&(dev, ino)) {
            return Some(first.clone());
        }
        self.0.insert((dev, ino), name.to_vec());
        None
    }
}

/// A directory of a save archive, owned by root.
pub(super) fn directory(name: &str) -> Header {
    Header { mode: 0o755, ..Header::new(format!("{name}/").into_bytes(), Type::Directory) }
}

/// A file of a save archive, owned by root.
pub(super) fn file(name: &str) -> Header {
    Header { mode: 0o644, ..Header::new(name.into(), Type::Regular) }
}

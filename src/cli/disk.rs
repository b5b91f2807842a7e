//! Files and directories that a command is given by path, wherever they lie.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::backing::{Access, FileKind, Root};
use crate::error::{Error, Result};
use crate::overlay::Stack;
use crate::recipe::{Expect, FileRef, Recipe, RecipeBuilder};
use crate::store::{LayerDir, Marks};

/// What lies at a path; symlinks that lead there were followed.
#[derive(Debug)]
pub(super) enum OnDisk {
    /// A directory, as a tree of its own.
    Dir(Stack),
    /// A regular file: the directory that it lies in, its name there, and its bytes.
    File { dir: PathBuf, name: Vec<u8>, bytes: Arc<Recipe> },
}

/// Opens a path.
///
/// # Errors
/// Whatever the file system says; EINVAL where it is neither file nor directory.
pub(super) fn open(path: &Path) -> Result<OnDisk> {
    let real = fs::canonicalize(path).map_err(|err| Error::io(path, err))?;
    let name = real.file_name().map(OsStr::as_bytes).unwrap_or_default();
    let dir = real.parent().unwrap_or(&real);
    let root = Arc::new(Root::open(dir, Access::Live)?);
    let stat = root.stat(OsStr::from_bytes(name))?;
    match stat.kind {
        FileKind::Directory => Ok(OnDisk::Dir(tree(&real)?)),
        FileKind::Regular => {
            let mut recipe = RecipeBuilder::new();
            let expect = Expect::Stamp(stat.stamp());
            recipe.push_file(&FileRef {
                root: &root,
                directory: b"",
                name,
                size: stat.size,
                expect,
            });
            let bytes = Arc::new(recipe.finish()?);
            Ok(OnDisk::File { dir: dir.to_owned(), name: name.to_vec(), bytes })
        }
        _ => Err(Error::invalid(path, "neither a file nor a directory")),
    }
}

/// A directory with all that it holds, on its own file system.
///
/// # Errors
/// Whatever the file system says.
pub(super) fn tree(path: &Path) -> Result<Stack> {
    let root = Arc::new(Root::open(path, Access::Live)?);
    Ok(Stack::new(vec![LayerDir { root, identity: 0, marks: Marks::Complete, owners: None }]))
}

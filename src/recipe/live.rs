//! Files that a container may be writing to: what a read gives where one is not as it was when its
//! archive was put together, and which were found so.
//!
//! Sizes are fixed by then. What a file has grown by is left out; where bytes are gone, zeros or an
//! error stand in for them. Either way the file is noted: nothing is silently different. A read
//! looks at the file's stamp before and after, so that a write in between is not missed.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::files::FileTable;
use crate::backing::{BackingFile, FileKind};
use crate::error::{Error, Result};

/// What a read gives of a file of a container that is not as it was: where bytes are gone, and unless
/// told otherwise only there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Changed {
    /// Zeros.
    #[default]
    Pad,
    /// EIO.
    Fail,
    /// EIO, and for any other difference too: for bytes that go by a digest.
    Refuse,
}

/// How a file was found to differ from what it was, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// It was written to, given other attributes, or replaced; as many bytes as are wanted are there.
    Written,
    /// It ends after this many bytes.
    Short(u64),
    /// It is no file any more.
    Gone,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Written => f.write_str("changed"),
            Difference::Short(size) => write!(f, "cut to {size} bytes"),
            Difference::Gone => f.write_str("removed"),
        }
    }
}

/// A file that was found changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedFile {
    /// Where it lies, for messages.
    pub path: PathBuf,
    /// Its name in the archive, without a leading slash.
    pub name: Vec<u8>,
    /// How it differs.
    pub difference: Difference,
}

/// What was found so far of the files of one recipe, by their place in its table.
#[derive(Debug, Default)]
pub(super) struct Findings {
    found: Mutex<Found>,
    has_news: AtomicBool,
}

#[derive(Debug, Default)]
struct Found {
    all: BTreeMap<u32, Difference>,
    news: Vec<(u32, Difference)>,
}

impl Findings {
    /// Reads `buf` from `offset` of file `index`, as far as it is there.
    ///
    /// # Errors
    /// Whatever the file system says; and with [`Changed::Fail`], that bytes are gone.
    pub(super) fn read(
        &self,
        files: &FileTable,
        index: u32,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<()> {
        let failed = |err: io::Error| Error::io(files.path(index), err);
        let open = open(files, index)?;
        let read = match &open {
            Some(open) => open.read_at(offset, buf).map_err(failed)?,
            None => 0,
        };
        let difference = match &open {
            None => Difference::Gone,
            Some(_) if read < buf.len() => Difference::Short(offset + read as u64),
            Some(open) if is_as_it_was(files, index, open).map_err(failed)? => return Ok(()),
            Some(_) => Difference::Written,
        };
        self.note(index, difference);
        match files.if_changed() {
            Changed::Pad => buf[read..].fill(0),
            Changed::Fail if read == buf.len() => {}
            Changed::Fail | Changed::Refuse => {
                let why = format!("{difference} since its archive was put together");
                return Err(failed(io::Error::other(why)));
            }
        }
        Ok(())
    }

    fn note(&self, index: u32, difference: Difference) {
        let mut found = self.lock();
        if found.all.get(&index).is_none_or(|known| *known < difference) {
            found.all.insert(index, difference);
            found.news.push((index, difference));
            self.has_news.store(true, Ordering::Release);
        }
    }

    /// All that was found.
    pub(super) fn all(&self) -> Vec<(u32, Difference)> {
        self.lock().all.iter().map(|(index, difference)| (*index, *difference)).collect()
    }

    /// What was found since this was asked last.
    pub(super) fn news(&self) -> Vec<(u32, Difference)> {
        match self.has_news.swap(false, Ordering::AcqRel) {
            true => std::mem::take(&mut self.lock().news),
            false => Vec::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The file, whatever became of it; `None` where nothing is there, or something that has no data.
fn open(files: &FileTable, index: u32) -> Result<Option<BackingFile>> {
    let (root, path) = files.locate(index);
    match root.open_file(&path) {
        Ok(open) => Ok(Some(open)),
        Err(err) if err.is_not_found() || err.is_misplaced() => Ok(None),
        Err(err) => match root.stat(&path) {
            Ok(stat) if stat.kind == FileKind::Regular => Err(err),
            Ok(_) => Ok(None),
            Err(gone) if gone.is_not_found() || gone.is_misplaced() => Ok(None),
            Err(_) => Err(err),
        },
    }
}

/// Whether the file was the expected one when it was opened, and still is.
fn is_as_it_was(files: &FileTable, index: u32, open: &BackingFile) -> io::Result<bool> {
    let expected = files.stamp(index);
    Ok(Some(open.stat().stamp()) == expected && Some(open.stat_now()?.stamp()) == expected)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::Arc;

    use rustix::io::Errno;

    use super::super::{Expect, FileRef, Recipe, RecipeBuilder};
    use super::*;
    use crate::backing::{Access, Root};

    /// `<` and the files of the directory, each of 10 bytes, and `>`.
    fn recipe(dir: &Path, changed: Changed) -> Recipe {
        let root = Arc::new(Root::open(dir, Access::Live).unwrap());
        let mut builder = RecipeBuilder::new();
        builder.push_inline(b"<");
        for name in [b"a", b"b"] {
            fs::write(dir.join(std::str::from_utf8(name).unwrap()), "0123456789").unwrap();
            let stat = root.stat(std::str::from_utf8(name).unwrap()).unwrap();
            let expect = Expect::Stamp(stat.stamp());
            builder.push_file(&FileRef { root: &root, directory: b"", name, size: 10, expect });
        }
        builder.push_inline(b">");
        builder.finish().unwrap().if_changed(changed)
    }

    fn text(recipe: &Recipe) -> Result<String> {
        let mut bytes = Vec::new();
        recipe.scan(|part| bytes.extend_from_slice(part))?;
        assert_eq!(bytes.len() as u64, recipe.len());
        Ok(String::from_utf8(bytes).unwrap().replace('\0', "0-"))
    }

    fn found(files: Vec<ChangedFile>) -> Vec<(String, Difference)> {
        let name = |file: ChangedFile| (String::from_utf8(file.name).unwrap(), file.difference);
        files.into_iter().map(name).collect()
    }

    /// A change of the file `a`.
    type Change = fn(&Path);

    const CHANGES: [(Change, &str, Difference); 6] = [
        (|a| fs::write(a, "0123456789+").unwrap(), "0123456789", Difference::Written),
        (|a| fs::write(a, "9876543210").unwrap(), "9876543210", Difference::Written),
        (|a| fs::write(a, "0123").unwrap(), "01230-0-0-0-0-0-", Difference::Short(4)),
        (|a| fs::remove_file(a).unwrap(), "0-0-0-0-0-0-0-0-0-0-", Difference::Gone),
        (
            |a| {
                fs::remove_file(a).unwrap();
                fs::create_dir(a).unwrap();
            },
            "0-0-0-0-0-0-0-0-0-0-",
            Difference::Gone,
        ),
        (
            |a| {
                fs::remove_file(a).unwrap();
                let mode = rustix::fs::Mode::from_raw_mode(0o600);
                rustix::fs::mkfifoat(rustix::fs::CWD, a, mode).unwrap();
            },
            "0-0-0-0-0-0-0-0-0-0-",
            Difference::Gone,
        ),
    ];

    #[test]
    fn a_file_that_changed_is_cut_or_padded_and_noted_once() {
        for (change, expected, difference) in CHANGES {
            let dir = tempfile::tempdir().unwrap();
            let recipe = recipe(dir.path(), Changed::Pad);
            assert_eq!(text(&recipe).unwrap(), "<01234567890123456789>");
            assert_eq!(recipe.newly_changed(), []);
            change(&dir.path().join("a"));
            assert_eq!(text(&recipe).unwrap(), format!("<{expected}0123456789>"));
            assert_eq!(found(recipe.newly_changed()), [("a".to_owned(), difference)]);
            text(&recipe).unwrap();
            assert_eq!(recipe.newly_changed(), [], "it was told");
            assert_eq!(found(recipe.changed_files()), [("a".to_owned(), difference)]);
        }
    }

    #[test]
    fn bytes_that_are_gone_fail_the_read_where_that_is_asked_for() {
        for (change, expected, difference) in CHANGES {
            let dir = tempfile::tempdir().unwrap();
            let recipe = recipe(dir.path(), Changed::Fail);
            change(&dir.path().join("a"));
            match difference {
                Difference::Written => {
                    assert_eq!(text(&recipe).unwrap(), format!("<{expected}0123456789>"));
                }
                Difference::Short(_) | Difference::Gone => {
                    assert_eq!(text(&recipe).unwrap_err().errno(), Errno::IO);
                    assert_eq!(recipe.read_at(11, &mut [0; 11]).unwrap(), 11, "the other file");
                }
            }
            assert_eq!(found(recipe.newly_changed()), [("a".to_owned(), difference)]);
        }
    }

    #[test]
    fn any_change_fails_the_read_of_what_goes_by_a_digest() {
        for (change, ..) in CHANGES {
            let dir = tempfile::tempdir().unwrap();
            let recipe = recipe(dir.path(), Changed::Refuse);
            text(&recipe).unwrap();
            change(&dir.path().join("a"));
            assert_eq!(text(&recipe).unwrap_err().errno(), Errno::IO);
        }
    }

    #[test]
    fn what_was_found_in_a_part_is_told_by_the_whole() {
        let dir = tempfile::tempdir().unwrap();
        let part = Arc::new(recipe(dir.path(), Changed::Pad));
        let mut whole = RecipeBuilder::new();
        whole.push_part(part);
        let whole = whole.finish().unwrap();
        fs::remove_file(dir.path().join("b")).unwrap();
        text(&whole).unwrap();
        let expected = [("b".to_owned(), Difference::Gone)];
        assert_eq!(found(whole.newly_changed()), expected);
        assert_eq!(found(whole.changed_files()), expected);
    }

    #[test]
    fn a_file_of_another_directory_is_named_by_its_place_in_the_archive() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/file"), "x").unwrap();
        let root = Arc::new(Root::open(dir.path(), Access::Live).unwrap());
        let mut builder = RecipeBuilder::new();
        builder.place(&root, b"sub", b"mnt/data");
        let expect = Expect::Stamp(1);
        let (directory, name) = (b"sub", b"file");
        builder.push_file(&FileRef { root: &root, directory, name, size: 1, expect });
        let recipe = builder.finish().unwrap();
        recipe.read_at(0, &mut [0]).unwrap();
        let expected = [("mnt/data/file".to_owned(), Difference::Written)];
        assert_eq!(found(recipe.changed_files()), expected);
    }
}

//! A recipe in the pieces in which it is best read from front to back.
//!
//! A file's checksum is known when its last byte has passed. Where a piece ends in the middle of a
//! file and another reader takes the rest before the first has passed, the check has to read the
//! file once more; so pieces end between files wherever they can, and say where they do not.

use super::files::Expect;
use super::{Recipe, Source};
use crate::backing::BackingFile;
use crate::error::Result;

/// From this size on a file is worth a call of its own to copy it, in bytes.
const PLAIN: u64 = 1 << 20;

/// A piece of a file of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Its length in bytes; 0 at the end.
    pub count: u64,
    /// Whether it begins within a file, the first part of which should be read before it.
    pub is_continued: bool,
    /// Whether it is part of one file whose bytes are held to nothing, but that the file is as it
    /// was: the kernel may copy them.
    pub is_plain: bool,
}

impl Run {
    /// The piece from `offset` on of a file of `size` bytes that is shown as it is.
    #[must_use]
    pub fn of_file(size: u64, offset: u64, most: u64) -> Run {
        let left = size.saturating_sub(offset);
        let is_plain = left >= PLAIN;
        Run { count: if is_plain { left } else { left.min(most) }, is_continued: false, is_plain }
    }
}

/// A run of bytes that comes from one place.
struct Leaf<'a> {
    start: u64,
    end: u64,
    is_file: bool,
    /// The file, where it is held to nothing but its stamp.
    plain: Option<(&'a Recipe, u32)>,
}

impl Recipe {
    /// The piece from `offset` on, at most `most` bytes, but for one that is plain.
    #[must_use]
    pub fn run(&self, offset: u64, most: u64) -> Run {
        let Some(first) = self.leaf(offset) else {
            return Run { count: 0, is_continued: false, is_plain: false };
        };
        let is_continued = first.is_file && first.start < offset;
        let left = first.end - offset;
        if first.plain.is_some() && left >= PLAIN {
            return Run { count: left, is_continued: false, is_plain: true };
        }
        let mut end = self.len().min(offset.saturating_add(most));
        if let Some(last) = self.leaf(end)
            && last.is_file
            && last.start > offset
        {
            end = last.start;
        }
        Run { count: end - offset, is_continued, is_plain: false }
    }

    /// The file of which the plain run at `offset` is, and where in it that begins.
    ///
    /// # Errors
    /// Fails when the file can't be opened.
    pub fn backing(&self, offset: u64) -> Result<Option<(BackingFile, u64)>> {
        let Some(leaf) = self.leaf(offset) else { return Ok(None) };
        let Some((recipe, index)) = leaf.plain else { return Ok(None) };
        // What is not as it was is for a read to judge.
        let Ok(open) = recipe.files.open(index) else { return Ok(None) };
        let is_same = recipe.files.expect(index) == Expect::Stamp(open.stat().stamp());
        Ok(is_same.then(|| (open, offset - leaf.start)))
    }

    fn leaf(&self, offset: u64) -> Option<Leaf<'_>> {
        let index = self.segment_at(offset);
        let segment = self.segments.get(index)?;
        let (start, end) = (self.start(index), segment.end);
        let whole = |is_file, plain| Leaf { start, end, is_file, plain };
        Some(match segment.source {
            Source::Part(part) => {
                let leaf = self.parts[part as usize].leaf(offset - start)?;
                Leaf { start: start + leaf.start, end: start + leaf.end, ..leaf }
            }
            // What is sealed was checked before. What can't be read fails when it is.
            Source::Paged(paged) if self.seal.is_none() => {
                let found = self.paged[paged as usize].page_at(offset - start);
                let Some((from, page)) = found.ok().flatten() else {
                    return Some(whole(false, None));
                };
                let leaf = page.leaf(offset - start - from)?;
                let (from, is_file) = (start + from, leaf.is_file);
                Leaf { start: from + leaf.start, end: from + leaf.end, is_file, plain: None }
            }
            Source::File(file) if self.seal.is_none() => {
                let is_plain = matches!(self.files.expect(file), Expect::Stamp(_));
                whole(true, is_plain.then_some((self, file)))
            }
            Source::File(_)
            | Source::Paged(_)
            | Source::Inline(_)
            | Source::Zeros
            | Source::Bytes(_) => whole(false, None),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use super::*;
    use crate::backing::{Access, Root};
    use crate::recipe::{FileRef, RecipeBuilder};

    fn file(builder: &mut RecipeBuilder, root: &Arc<Root>, name: &str, size: u64, expect: Expect) {
        let name = name.as_bytes();
        builder.push_file(&FileRef { root, directory: b"", name, size, expect });
    }

    #[test]
    fn pieces_end_between_files_and_add_up() {
        let dir = tempfile::tempdir().unwrap();
        let root = Arc::new(Root::open(dir.path(), Access::Sealed).unwrap());
        let mut inner = RecipeBuilder::new();
        for size in [300, 500, 2500, 10] {
            inner.push_inline(&[1; 100]);
            file(&mut inner, &root, "none", size, Expect::Crc(7));
        }
        let mut builder = RecipeBuilder::new();
        builder.push_inline(&[2; 50]);
        builder.push_part(Arc::new(inner.finish().unwrap()));
        builder.push_zeros(40);
        let recipe = builder.finish().unwrap();
        let mut runs = Vec::new();
        let mut offset = 0;
        loop {
            let run = recipe.run(offset, 1000);
            if run.count == 0 {
                break;
            }
            runs.push((run.count, run.is_continued));
            assert!(!run.is_plain && run.count <= 1000);
            offset += run.count;
        }
        assert_eq!(offset, recipe.len());
        // 50 + 100 + 300 + 100 | 500 + 100 | 1000 | 1000 | 500 + ..
        let expected = [(550, false), (600, false), (1000, false), (1000, true), (650, true)];
        assert_eq!(runs, expected);
    }

    #[test]
    fn a_large_file_that_is_held_to_its_stamp_is_plain() {
        let dir = tempfile::tempdir().unwrap();
        let root = Arc::new(Root::open(dir.path(), Access::Live).unwrap());
        fs::write(dir.path().join("big"), vec![7; PLAIN as usize + 5]).unwrap();
        let stamp = root.stat("big").unwrap().stamp();
        let mut builder = RecipeBuilder::new();
        builder.push_inline(&[1; 512]);
        file(&mut builder, &root, "big", PLAIN + 5, Expect::Stamp(stamp));
        builder.push_zeros(99);
        let recipe = builder.finish().unwrap();
        assert_eq!(recipe.run(0, PLAIN).count, 512);
        assert!(recipe.backing(0).unwrap().is_none());
        let run = recipe.run(512, 1000);
        assert!(run.is_plain && run.count == PLAIN + 5);
        let (open, at) = recipe.backing(514).unwrap().unwrap();
        assert_eq!((open.stat().size, at), (PLAIN + 5, 2));
        fs::write(dir.path().join("big"), vec![8; PLAIN as usize + 5]).unwrap();
        assert!(recipe.backing(512).unwrap().is_none(), "for a read to judge");
    }
}

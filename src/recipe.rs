//! A virtual file as a description: an immutable list of where its bytes come from.
//!
//! A [`Recipe`] has a length and a positioned read, nothing else. It is built front to back by a
//! [`RecipeBuilder`], whose length at any moment is the offset of what comes next: nobody adds up
//! sizes elsewhere. Building reads no contents.

use std::sync::Arc;

use sha2::Digest as _;

use crate::backing::{Bytes, Root, Seek};
use crate::digest::Digest;
use crate::error::{Error, Result};

mod check;
mod files;
mod half;
mod live;
mod paged;
mod run;
mod seal;

pub use files::{Expect, FileRef};
pub use live::{Changed, ChangedFile, Difference};
pub use paged::{Pages, Pool};
pub use run::Run;

use check::{Checks, Unchecked};
use files::FileTable;
use live::Findings;
use paged::Paged;
use seal::Seal;

/// A run of zeros counts as a hole from this length on, in bytes: a page.
const HOLE: u64 = 4096;

/// Files shorter than this are not searched for holes, in bytes: the answer isn't worth the open.
const SEARCHED: u64 = 64 * 1024;

/// How often a recipe that is held to a digest is read through for one read, where its files keep
/// moving meanwhile.
const TRIES: usize = 3;

/// The largest length, in bytes: what a file offset can say (`off_t`).
const MAX_LEN: u64 = i64::MAX.cast_unsigned();

/// When the bytes of layers are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verify {
    /// As they pass: a read that completes a file checks it.
    #[default]
    Passing,
    /// Before any byte of a layer is given out: all of it is read and held to its digest.
    Always,
}

/// A byte stream by description.
#[derive(Debug)]
pub struct Recipe {
    /// Where each segment ends: `segments[i].end` is the offset just past it; strictly increasing.
    segments: Vec<Segment>,
    inline: Box<[u8]>,
    parts: Vec<Arc<Recipe>>,
    paged: Vec<Paged>,
    bytes: Vec<Arc<dyn Bytes>>,
    files: FileTable,
    checks: Checks,
    findings: Findings,
    /// The digest that all of it is held to, if any.
    seal: Option<Seal>,
}

#[derive(Debug, Clone, Copy)]
struct Segment {
    end: u64,
    source: Source,
}

#[derive(Debug, Clone, Copy)]
enum Source {
    /// From this index of `inline` on.
    Inline(usize),
    Zeros,
    /// A whole file of the table.
    File(u32),
    /// The whole of another recipe.
    Part(u32),
    /// All pages of one of `paged`.
    Paged(u32),
    /// The whole of one of `bytes`.
    Bytes(u32),
}

impl Recipe {
    /// A recipe of these bytes alone.
    #[must_use]
    pub fn inline(bytes: Vec<u8>) -> Recipe {
        let end = bytes.len() as u64;
        let segments =
            if end == 0 { Vec::new() } else { vec![Segment { end, source: Source::Inline(0) }] };
        Recipe {
            segments,
            inline: bytes.into_boxed_slice(),
            parts: Vec::new(),
            paged: Vec::new(),
            bytes: Vec::new(),
            files: FileTable::default(),
            checks: Checks::none(),
            findings: Findings::default(),
            seal: None,
        }
    }

    /// The same, with another answer to files of a container that shrank or vanished; unless told
    /// otherwise, a recipe fails there. What it is made of keeps its own.
    #[must_use]
    pub fn if_changed(mut self, changed: Changed) -> Recipe {
        self.files.set_changed(changed);
        self
    }

    /// Files of a container that reads have found to be other than when the recipe was built, those
    /// of its parts included.
    #[must_use]
    pub fn changed_files(&self) -> Vec<ChangedFile> {
        let parts = self.parts.iter().flat_map(|part| part.changed_files());
        self.describe(self.findings.all()).into_iter().chain(parts).collect()
    }

    /// Of these, what was found since this was asked last.
    #[must_use]
    pub fn newly_changed(&self) -> Vec<ChangedFile> {
        let parts = self.parts.iter().flat_map(|part| part.newly_changed());
        self.describe(self.findings.news()).into_iter().chain(parts).collect()
    }

    fn describe(&self, found: Vec<(u32, Difference)>) -> Vec<ChangedFile> {
        let describe = |(index, difference)| ChangedFile {
            path: self.files.path(index),
            name: self.files.shown(index),
            difference,
        };
        found.into_iter().map(describe).collect()
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.segments.last().map_or(0, |segment| segment.end)
    }

    /// True where there is no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Memory it takes, in bytes, about, without the recipes that it is made of.
    #[must_use]
    pub fn weight(&self) -> usize {
        size_of::<Recipe>()
            + self.segments.len() * size_of::<Segment>()
            + self.inline.len()
            + self.files.weight()
            + self.paged.iter().map(Paged::weight).sum::<usize>()
            + self.bytes.iter().map(|bytes| bytes.weight()).sum::<usize>()
    }

    /// Whether some of the files are gone for good, with the layer or the container that they were in.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.files.is_gone()
            || self.paged.iter().any(Paged::is_gone)
            || self.parts.iter().any(|part| part.is_gone())
    }

    /// Reads into `buf` from byte `offset` on, and returns how many bytes were
    /// read: `buf.len()`, or less only where the stream ends.
    ///
    /// # Errors
    /// Fails when a backing file can't be read, is not as it was when the recipe was built (but see
    /// [`Changed`]), or fails its check (see [`Expect`] and [`RecipeBuilder::finish_sealed`]);
    /// nothing of `buf` counts then.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let Some(seal) = &self.seal else { return self.read_parts(offset, buf, Unchecked::Check) };
        let mut tries = 0;
        loop {
            seal.check(|hash| self.scan_parts(|part| hash.update(part)))?;
            let result = self.read_parts(offset, buf, Unchecked::Refuse);
            tries += 1;
            // A file that moved was refused, and the seal is open: all is read through again.
            if result.is_ok() || tries == TRIES {
                return result;
            }
        }
    }

    fn read_parts(&self, offset: u64, buf: &mut [u8], unchecked: Unchecked) -> Result<usize> {
        let wanted = self.len().saturating_sub(offset).min(buf.len() as u64) as usize;
        let mut done = 0;
        let mut index = self.segment_at(offset);
        while done < wanted {
            let Some(segment) = self.segments.get(index) else { break };
            let at = offset + done as u64;
            let within = at - self.start(index);
            let count = (segment.end - at).min((wanted - done) as u64) as usize;
            self.fill(segment.source, within, &mut buf[done..done + count], unchecked)?;
            done += count;
            index += 1;
        }
        Ok(done)
    }

    /// The first byte of data, or of a hole, at or after `offset`; `None` where there is no more.
    /// The end counts as a hole.
    ///
    /// # Errors
    /// Fails when a backing file can't be opened.
    pub fn seek(&self, offset: u64, seek: Seek) -> Result<Option<u64>> {
        if offset >= self.len() {
            return Ok(None);
        }
        let mut at = offset;
        for index in self.segment_at(offset)..self.segments.len() {
            let (start, end) = (self.start(index), self.segments[index].end);
            if let Some(found) = self.seek_in(index, at - start, end - start, seek)? {
                return Ok(Some(start + found));
            }
            at = end;
        }
        Ok((seek == Seek::Hole).then(|| self.len()))
    }

    /// Reads it all once, and says whether every check holds.
    ///
    /// # Errors
    /// Fails as [`Recipe::read_at`] does.
    pub fn scan(&self, visit: impl FnMut(&[u8])) -> Result<()> {
        scan(|offset, buf| self.read_at(offset, buf), visit)
    }

    /// The digest of all its bytes, which are read for it.
    ///
    /// # Errors
    /// Fails as [`Recipe::read_at`] does.
    pub fn digest(&self) -> Result<Digest> {
        let mut hash = sha2::Sha256::new();
        self.scan(|part| hash.update(part))?;
        Ok(Digest::from_hash(hash))
    }

    /// The same, as a seal is checked.
    fn scan_parts(&self, visit: impl FnMut(&[u8])) -> Result<()> {
        scan(|offset, buf| self.read_parts(offset, buf, Unchecked::Check), visit)
    }

    fn segment_at(&self, offset: u64) -> usize {
        self.segments.partition_point(|segment| segment.end <= offset)
    }

    fn start(&self, index: usize) -> u64 {
        index.checked_sub(1).map_or(0, |before| self.segments[before].end)
    }

    fn fill(
        &self,
        source: Source,
        offset: u64,
        buf: &mut [u8],
        unchecked: Unchecked,
    ) -> Result<()> {
        match source {
            Source::Inline(at) => {
                let from = at + offset as usize;
                buf.copy_from_slice(&self.inline[from..from + buf.len()]);
            }
            Source::Zeros => buf.fill(0),
            Source::File(file) => self.read_file(file, offset, buf, unchecked)?,
            Source::Part(part) => {
                self.parts[part as usize].read_at(offset, buf)?;
            }
            Source::Paged(paged) => {
                let read = self.paged[paged as usize].read_at(offset, buf, unchecked);
                return self.or_reopen(read);
            }
            Source::Bytes(index) => {
                let bytes = &self.bytes[index as usize];
                if bytes.read_at(offset, buf)? < buf.len() {
                    return Err(Error::corrupt(bytes.path(), "shorter than it was"));
                }
            }
        }
        Ok(())
    }

    fn read_file(
        &self,
        index: u32,
        offset: u64,
        buf: &mut [u8],
        unchecked: Unchecked,
    ) -> Result<()> {
        if self.files.is_live(index) {
            return self.findings.read(&self.files, index, offset, buf);
        }
        let read = self.files.open(index).and_then(|open| {
            let checked = self.checks.read(&self.files, index, &open, offset, buf, unchecked);
            checked.map_err(|why| self.files.error(index, why))
        });
        self.or_reopen(read)
    }

    /// The same; where a read failed, what is sealed is looked at again by the next.
    fn or_reopen(&self, read: Result<()>) -> Result<()> {
        if let (Err(_), Some(seal)) = (&read, &self.seal) {
            seal.reopen();
        }
        read
    }

    /// Offset in segment `index`, which is `length` bytes long, of what is sought.
    fn seek_in(&self, index: usize, from: u64, length: u64, seek: Seek) -> Result<Option<u64>> {
        let found = match self.segments[index].source {
            Source::Zeros if length >= HOLE => (seek == Seek::Hole).then_some(from),
            Source::File(file) if length >= SEARCHED => {
                let open = match self.files.open(file) {
                    // It changed: a read says so.
                    Err(_) if self.files.is_live(file) => {
                        return Ok((seek == Seek::Data).then_some(from));
                    }
                    open => open?,
                };
                open.seek(from, seek).map_err(|err| self.files.error(file, err.into()))?
            }
            Source::Part(part) => self.parts[part as usize].seek(from, seek)?,
            Source::Paged(paged) => self.paged[paged as usize].seek(from, seek)?,
            Source::Inline(_) | Source::Zeros | Source::File(_) | Source::Bytes(_) => {
                (seek == Seek::Data).then_some(from)
            }
        };
        Ok(found.filter(|&found| found < length))
    }
}

/// Reads a stream to its end.
fn scan(
    read_at: impl Fn(u64, &mut [u8]) -> Result<usize>,
    mut visit: impl FnMut(&[u8]),
) -> Result<()> {
    let mut buf = vec![0; 1 << 20];
    let mut offset = 0;
    loop {
        let read = read_at(offset, &mut buf)?;
        if read == 0 {
            return Ok(());
        }
        visit(&buf[..read]);
        offset += read as u64;
    }
}

/// Builds a [`Recipe`] front to back.
#[derive(Debug, Default)]
pub struct RecipeBuilder {
    segments: Vec<Segment>,
    inline: Vec<u8>,
    parts: Vec<Arc<Recipe>>,
    paged: Vec<Paged>,
    bytes: Vec<Arc<dyn Bytes>>,
    files: FileTable,
    len: u64,
    is_too_long: bool,
}

impl RecipeBuilder {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> RecipeBuilder {
        RecipeBuilder::default()
    }

    /// Length so far: the offset of what is pushed next.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True where nothing was pushed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// These bytes.
    pub fn push_inline(&mut self, bytes: &[u8]) {
        let at = self.inline.len();
        self.inline.extend_from_slice(bytes);
        self.push(bytes.len() as u64, Source::Inline(at));
    }

    /// `count` zeros.
    pub fn push_zeros(&mut self, count: u64) {
        self.push(count, Source::Zeros);
    }

    /// The whole of a file, `file.size` bytes.
    pub fn push_file(&mut self, file: &FileRef<'_>) {
        if file.size > 0 {
            let index = self.files.push(file);
            self.push(file.size, Source::File(index));
        }
    }

    /// The whole of another recipe.
    pub fn push_part(&mut self, part: Arc<Recipe>) {
        let len = part.len();
        self.parts.push(part);
        self.push(len, Source::Part((self.parts.len() - 1) as u32));
    }

    /// All that `pages` are of; those that were read last are kept in `pool`.
    pub fn push_pages(&mut self, pages: Arc<dyn Pages>, pool: &Arc<Pool>) {
        let paged = Paged::new(pages, pool);
        let len = paged.len();
        self.paged.push(paged);
        self.push(len, Source::Paged((self.paged.len() - 1) as u32));
    }

    /// Tells that what `root` holds at the path `from` is at `to` in the archive, for the names of
    /// [`Recipe::changed_files`].
    pub fn place(&mut self, root: &Arc<Root>, from: &[u8], to: &[u8]) {
        self.files.place(root, from, to);
    }

    /// All of these bytes. They are held to no digest here.
    pub fn push_bytes(&mut self, bytes: Arc<dyn Bytes>) {
        let len = bytes.len();
        self.bytes.push(bytes);
        self.push(len, Source::Bytes((self.bytes.len() - 1) as u32));
    }

    /// Zeros up to the next multiple of `block`.
    pub fn pad_to(&mut self, block: u64) {
        self.push_zeros(self.len.next_multiple_of(block) - self.len);
    }

    /// The finished recipe; its files are held to what they promise as their bytes pass.
    ///
    /// # Errors
    /// Fails when it is longer than a file can be.
    pub fn finish(self) -> Result<Recipe> {
        self.finish_with(None)
    }

    /// The finished recipe, which gives out no byte before all of them were seen to have this
    /// digest. They are read through for it once, and again when a file of it has moved.
    ///
    /// # Errors
    /// Fails when it is longer than a file can be.
    pub fn finish_sealed(self, digest: Digest) -> Result<Recipe> {
        self.finish_with(Some(Seal::new(digest)))
    }

    fn finish_with(mut self, seal: Option<Seal>) -> Result<Recipe> {
        if self.is_too_long {
            return Err(Error::corrupt("archive", "longer than a file can be"));
        }
        self.segments.shrink_to_fit();
        self.files.shrink();
        Ok(Recipe {
            checks: Checks::new(&self.files),
            segments: self.segments,
            inline: self.inline.into_boxed_slice(),
            parts: self.parts,
            paged: self.paged,
            bytes: self.bytes,
            files: self.files,
            findings: Findings::default(),
            seal,
        })
    }

    fn push(&mut self, count: u64, source: Source) {
        let Some(end) = self.len.checked_add(count).filter(|&end| end <= MAX_LEN) else {
            self.is_too_long = true;
            return;
        };
        if count == 0 {
            return;
        }
        self.len = end;
        match (self.segments.last_mut(), source) {
            (Some(last), Source::Inline(_)) if matches!(last.source, Source::Inline(_)) => {
                last.end = end;
            }
            (Some(last), Source::Zeros) if matches!(last.source, Source::Zeros) => last.end = end,
            _ => self.segments.push(Segment { end, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::FileExt;

    use proptest::prelude::*;

    use super::*;
    use crate::backing::{Access, Held};

    #[derive(Debug, Clone)]
    enum Piece {
        Inline(Vec<u8>),
        Zeros(u16),
        File(Vec<u8>),
        Part(Vec<Piece>),
        Bytes(Vec<u8>),
        Pad,
    }

    fn piece() -> impl Strategy<Value = Piece> {
        let leaf = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..40).prop_map(Piece::Inline),
            (0..9000u16).prop_map(Piece::Zeros),
            proptest::collection::vec(any::<u8>(), 0..5000).prop_map(Piece::File),
            proptest::collection::vec(any::<u8>(), 0..300).prop_map(Piece::Bytes),
            Just(Piece::Pad),
        ];
        leaf.prop_recursive(2, 12, 4, |inner| {
            proptest::collection::vec(inner, 0..4).prop_map(Piece::Part)
        })
    }

    /// Builds the recipe and, naively, its bytes.
    fn build(root: &Arc<Root>, pieces: &[Piece], count: &mut u32) -> (Recipe, Vec<u8>) {
        let mut builder = RecipeBuilder::new();
        let mut bytes = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Inline(data) => {
                    builder.push_inline(data);
                    bytes.extend(data);
                }
                Piece::Zeros(zeros) => {
                    builder.push_zeros(u64::from(*zeros));
                    bytes.resize(bytes.len() + usize::from(*zeros), 0);
                }
                Piece::File(data) => {
                    *count += 1;
                    let name = format!("file{count}");
                    fs::write(root.path().join(&name), data).unwrap();
                    let expect = Expect::Crc(check::crc(data));
                    let size = data.len() as u64;
                    let name = name.as_bytes();
                    builder.push_file(&FileRef { root, directory: b"", name, size, expect });
                    bytes.extend(data);
                }
                Piece::Part(inner) => {
                    let (part, data) = build(root, inner, count);
                    builder.push_part(Arc::new(part));
                    bytes.extend(data);
                }
                Piece::Bytes(data) => {
                    builder.push_bytes(Arc::new(Held::new("held", data.clone())));
                    bytes.extend(data);
                }
                Piece::Pad => {
                    builder.pad_to(512);
                    bytes.resize(bytes.len().next_multiple_of(512), 0);
                }
            }
            assert_eq!(builder.len(), bytes.len() as u64);
        }
        (builder.finish().unwrap(), bytes)
    }

    proptest! {
        #[test]
        fn every_range_equals_that_range_of_the_whole(
            pieces in proptest::collection::vec(piece(), 0..8),
            ranges in proptest::collection::vec((0.0..1.1f64, 0..6000usize), 1..20),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let root = Arc::new(Root::open(dir.path(), Access::Sealed).unwrap());
            let (recipe, bytes) = build(&root, &pieces, &mut 0);
            prop_assert_eq!(recipe.len(), bytes.len() as u64);
            for (from, count) in ranges {
                let from = (from * bytes.len() as f64) as usize;
                let mut buf = vec![0xaa; count];
                let read = recipe.read_at(from as u64, &mut buf).unwrap();
                let expected = bytes.get(from..).unwrap_or_default();
                let expected = &expected[..expected.len().min(count)];
                prop_assert_eq!(&buf[..read], expected);
            }
            let mut whole = Vec::new();
            recipe.scan(|part| whole.extend_from_slice(part)).unwrap();
            prop_assert!(whole == bytes);
        }

        #[test]
        fn holes_hold_only_zeros(pieces in proptest::collection::vec(piece(), 0..8)) {
            let dir = tempfile::tempdir().unwrap();
            let root = Arc::new(Root::open(dir.path(), Access::Sealed).unwrap());
            let (recipe, bytes) = build(&root, &pieces, &mut 0);
            let mut at = 0;
            while let Some(hole) = recipe.seek(at, Seek::Hole).unwrap() {
                let data = recipe.seek(hole, Seek::Data).unwrap().unwrap_or(recipe.len());
                prop_assert!(bytes[hole as usize..data as usize].iter().all(|&byte| byte == 0));
                if data >= recipe.len() { break }
                at = data;
            }
        }
    }

    fn one_file(dir: &tempfile::TempDir, data: &[u8]) -> RecipeBuilder {
        fs::write(dir.path().join("file"), data).unwrap();
        let root = Arc::new(Root::open(dir.path(), Access::Sealed).unwrap());
        let mut builder = RecipeBuilder::new();
        builder.push_inline(b"before");
        builder.push_file(&FileRef {
            root: &root,
            directory: b"",
            name: b"file",
            size: data.len() as u64,
            expect: Expect::Crc(check::crc(data)),
        });
        builder.push_inline(b"after");
        builder
    }

    fn flip(dir: &tempfile::TempDir, at: u64) {
        let file = fs::OpenOptions::new().read(true).write(true).open(dir.path().join("file"));
        let file = file.unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    }

    #[test]
    fn a_changed_byte_fails_the_read_that_completes_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let recipe = one_file(&dir, &[7; 10_000]).finish().unwrap();
        flip(&dir, 5_000);
        let mut buf = [0; 4096];
        assert_eq!(recipe.read_at(0, &mut buf).unwrap(), 4096);
        assert_eq!(recipe.read_at(4096, &mut buf).unwrap(), 4096);
        assert_eq!(recipe.read_at(8192, &mut buf).unwrap_err().errno(), rustix::io::Errno::IO);
        assert!(recipe.read_at(8192, &mut buf).is_err(), "and fails again");
        assert_eq!(recipe.read_at(0, &mut buf[..6]).unwrap(), 6);
        assert_eq!(recipe.read_at(10_006, &mut buf).unwrap(), 5, "all else is right");
    }

    #[test]
    fn a_sealed_recipe_gives_no_byte_before_all_have_the_digest() {
        let dir = tempfile::tempdir().unwrap();
        let whole = [&b"before"[..], &[7; 10_000], b"after"].concat();
        let recipe = one_file(&dir, &[7; 10_000]).finish_sealed(Digest::of(&whole)).unwrap();
        let mut buf = [0; 100];
        flip(&dir, 9_999);
        for offset in [0, 6, 10_006] {
            assert!(recipe.read_at(offset, &mut buf[..5]).is_err());
        }
        flip(&dir, 9_999);
        assert_eq!(recipe.read_at(6, &mut buf).unwrap(), 100, "mended");
        flip(&dir, 5_000);
        assert!(recipe.read_at(6, &mut buf).is_err());
        assert!(recipe.read_at(0, &mut buf[..5]).is_err(), "and from then on, of anything");
        flip(&dir, 5_000);
        assert_eq!(recipe.read_at(10_006, &mut buf).unwrap(), 5);

        let other = one_file(&dir, &[7; 10_000]).finish_sealed(Digest::of(b"other")).unwrap();
        assert!(other.read_at(0, &mut buf).is_err(), "though every checksum holds");
        let mut outer = RecipeBuilder::new();
        outer.push_inline(b"outer");
        outer.push_part(Arc::new(other));
        let outer = outer.finish().unwrap();
        assert_eq!(outer.read_at(0, &mut buf[..5]).unwrap(), 5);
        assert!(outer.read_at(4, &mut buf[..2]).is_err());
    }

    #[test]
    fn a_sealed_recipe_is_read_through_again_when_a_file_moved() {
        let dir = tempfile::tempdir().unwrap();
        let whole = [&b"before"[..], &[7; 10_000], b"after"].concat();
        let recipe = one_file(&dir, &[7; 10_000]).finish_sealed(Digest::of(&whole)).unwrap();
        let mut buf = [0; 100];
        recipe.read_at(0, &mut buf).unwrap();
        // The same bytes in another file.
        fs::rename(dir.path().join("file"), dir.path().join("old")).unwrap();
        fs::copy(dir.path().join("old"), dir.path().join("file")).unwrap();
        assert_eq!(recipe.read_at(5, &mut buf).unwrap(), 100);
        assert_eq!(buf[..2], *b"e\x07");
        fs::remove_file(dir.path().join("file")).unwrap();
        assert!(recipe.read_at(6, &mut buf).is_err());
        assert!(recipe.read_at(0, &mut buf[..5]).is_err());
    }

    #[test]
    fn a_tail_read_alone_is_checked_too() {
        let dir = tempfile::tempdir().unwrap();
        let recipe = one_file(&dir, &[7; 10_000]).finish().unwrap();
        flip(&dir, 3);
        assert!(recipe.read_at(10_000, &mut [0; 11]).is_err());
    }

    #[test]
    fn chunks_in_any_order_add_up_to_one_check() {
        let dir = tempfile::tempdir().unwrap();
        let data: Vec<u8> = (0..100_000u32).map(|at| (at * 7) as u8).collect();
        let recipe = one_file(&dir, &data).finish().unwrap();
        for chunk in [3u64, 1, 0, 2, 4] {
            let mut buf = [0; 20_000];
            assert_eq!(recipe.read_at(6 + chunk * 20_000, &mut buf).unwrap(), 20_000);
            let from = chunk as usize * 20_000;
            assert_eq!(buf, data[from..from + 20_000]);
        }
    }

    #[test]
    fn a_shortened_or_missing_file_is_an_error_and_never_zeros() {
        let dir = tempfile::tempdir().unwrap();
        let recipe = one_file(&dir, &[7; 10_000]).finish().unwrap();
        fs::File::options()
            .write(true)
            .open(dir.path().join("file"))
            .unwrap()
            .set_len(9_000)
            .unwrap();
        assert!(recipe.read_at(6, &mut [0; 10]).is_err());
        fs::remove_file(dir.path().join("file")).unwrap();
        assert_eq!(recipe.read_at(6, &mut [0; 10]).unwrap_err().errno(), rustix::io::Errno::IO);
    }
}

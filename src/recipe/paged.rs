//! A part of a recipe that is too large to be kept whole: pages, made when they are read, of which
//! those that were read last stay.
//!
//! What makes it hard: a page that is made again must know which of its files have passed their
//! check, or a second read of a large layer would sum all of it again. That takes 8 bytes a file,
//! and stays.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use lru::LruCache;

use super::Recipe;
use super::check::{Passed, Unchecked};
use crate::backing::Seek;
use crate::error::{Error, Result};

/// What makes pages. Each is the same whenever it is made.
pub trait Pages: Debug + Send + Sync {
    /// Where each page ends, never before the one before it.
    fn ends(&self) -> Vec<u64>;

    /// The page `index`. Its files are those of layers, which nobody writes to.
    ///
    /// # Errors
    /// Fails where what it is made from is gone or damaged.
    fn page(&self, index: usize) -> Result<Recipe>;

    /// Whether what they are made from was removed for good.
    fn is_gone(&self) -> bool;

    /// Memory that it takes, in bytes, about; always the same.
    fn weight(&self) -> usize;
}

/// The pages of several recipes that were read last.
#[derive(Debug)]
pub struct Pool {
    bound: usize,
    next: AtomicU64,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    /// By the number of their recipe, and their place in it.
    pages: LruCache<(u64, usize), Arc<Recipe>>,
    weight: usize,
}

impl Pool {
    /// One of at most `bound` bytes, about.
    #[must_use]
    pub fn new(bound: usize) -> Pool {
        let kept = Mutex::new(Kept { pages: LruCache::unbounded(), weight: 0 });
        Pool { bound, next: AtomicU64::new(0), kept }
    }

    fn get(&self, key: (u64, usize)) -> Option<Arc<Recipe>> {
        self.lock().pages.get(&key).cloned()
    }

    fn put(&self, key: (u64, usize), page: &Arc<Recipe>) {
        let mut kept = self.lock();
        kept.weight += page.weight();
        if let Some((_, old)) = kept.pages.push(key, Arc::clone(page)) {
            kept.weight -= old.weight();
        }
        while kept.weight > self.bound
            && let Some((_, old)) = kept.pages.pop_lru()
        {
            kept.weight -= old.weight();
        }
    }

    /// Lets go of the pages of one recipe, and of the directories that they hold open.
    fn forget(&self, id: u64) {
        let mut kept = self.lock();
        let its: Vec<_> =
            kept.pages.iter().map(|(key, _)| *key).filter(|(of, _)| *of == id).collect();
        for key in its {
            if let Some(page) = kept.pages.pop(&key) {
                kept.weight -= page.weight();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub(super) struct Paged {
    pages: Arc<dyn Pages>,
    pool: Arc<Pool>,
    /// Its number in the pool.
    id: u64,
    /// Where each page ends.
    ends: Box<[u64]>,
    /// By page: what has passed of it, once it was made.
    passed: Box<[OnceLock<Passed>]>,
}

impl Paged {
    pub(super) fn new(pages: Arc<dyn Pages>, pool: &Arc<Pool>) -> Paged {
        let ends = pages.ends();
        Paged {
            pool: Arc::clone(pool),
            id: pool.next.fetch_add(1, Ordering::Relaxed),
            passed: ends.iter().map(|_| OnceLock::new()).collect(),
            ends: ends.into(),
            pages,
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    pub(super) fn is_gone(&self) -> bool {
        self.pages.is_gone()
    }

    pub(super) fn weight(&self) -> usize {
        self.ends.len() * (size_of::<u64>() + size_of::<OnceLock<Passed>>()) + self.pages.weight()
    }

    /// Fills all of `buf` from byte `offset` on.
    pub(super) fn read_at(&self, offset: u64, buf: &mut [u8], unchecked: Unchecked) -> Result<()> {
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let Some((start, page)) = self.page_at(at)? else {
                return Err(Error::corrupt("archive", "shorter than it was"));
            };
            let count = (page.len() - (at - start)).min((buf.len() - done) as u64) as usize;
            page.read_parts(at - start, &mut buf[done..done + count], unchecked)?;
            done += count;
        }
        Ok(())
    }

    pub(super) fn seek(&self, offset: u64, seek: Seek) -> Result<Option<u64>> {
        let mut at = offset;
        while let Some((start, page)) = self.page_at(at)? {
            // That a page ends is no hole.
            let found = page.seek(at - start, seek)?.filter(|&found| found < page.len());
            if let Some(found) = found {
                return Ok(Some(start + found));
            }
            at = start + page.len();
        }
        Ok(None)
    }

    /// The page with the byte at `offset`, and where it starts.
    pub(super) fn page_at(&self, offset: u64) -> Result<Option<(u64, Arc<Recipe>)>> {
        let index = self.ends.partition_point(|&end| end <= offset);
        let Some(&end) = self.ends.get(index) else { return Ok(None) };
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        let key = (self.id, index);
        if let Some(page) = self.pool.get(key) {
            return Ok(Some((start, page)));
        }
        let mut page = self.pages.page(index)?;
        if page.len() != end - start {
            return Err(Error::corrupt("archive", "a part of it is not as long as it was"));
        }
        page.checks.go_on(self.passed[index].get_or_init(|| Arc::clone(page.checks.passed())));
        let page = Arc::new(page);
        self.pool.put(key, &page);
        Ok(Some((start, page)))
    }
}

impl Drop for Paged {
    fn drop(&mut self) {
        self.pool.forget(self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;
    use std::sync::atomic::AtomicUsize;

    use super::super::check::crc;
    use super::super::{Expect, FileRef, RecipeBuilder};
    use super::*;
    use crate::backing::{Access, Root};
    use crate::digest::Digest;

    /// Pages of some inline bytes, a file of 5000 bytes and zeros.
    #[derive(Debug)]
    struct Book {
        root: Arc<Root>,
        path: PathBuf,
        count: usize,
        made: AtomicUsize,
    }

    const FILE: usize = 5000;
    const ZEROS: usize = 4999;

    impl Book {
        fn new(dir: &tempfile::TempDir, count: usize) -> Arc<Book> {
            let path = dir.path().to_owned();
            let root = Arc::new(Root::open(&path, Access::Sealed).unwrap());
            for page in 0..count {
                fs::write(path.join(page.to_string()), body(page)).unwrap();
            }
            Arc::new(Book { root, path, count, made: AtomicUsize::new(0) })
        }

        fn bytes(&self) -> Vec<u8> {
            let page = |page| [vec![1; 7 + page], body(page), vec![0; ZEROS]].concat();
            (0..self.count).flat_map(page).collect()
        }
    }

    fn body(page: usize) -> Vec<u8> {
        (0..FILE).map(|at| (at * 31 + page) as u8 | 1).collect()
    }

    impl Pages for Book {
        fn ends(&self) -> Vec<u64> {
            let len = |page: &usize| (7 + page + FILE + ZEROS) as u64;
            (0..self.count)
                .scan(0, |end, page| {
                    *end += len(&page);
                    Some(*end)
                })
                .collect()
        }

        fn page(&self, index: usize) -> Result<Recipe> {
            self.made.fetch_add(1, Ordering::Relaxed);
            let mut builder = RecipeBuilder::new();
            builder.push_inline(&vec![1; 7 + index]);
            let (name, expect) = (index.to_string(), Expect::Crc(crc(&body(index))));
            let (directory, name, size) = (&b""[..], name.as_bytes(), FILE as u64);
            builder.push_file(&FileRef { root: &self.root, directory, name, size, expect });
            builder.push_zeros(ZEROS as u64);
            builder.finish()
        }

        fn is_gone(&self) -> bool {
            self.root.is_removed()
        }

        fn weight(&self) -> usize {
            0
        }
    }

    fn recipe(book: &Arc<Book>, bound: usize) -> RecipeBuilder {
        let mut builder = RecipeBuilder::new();
        builder.push_inline(b"head");
        builder.push_pages(Arc::clone(book) as Arc<dyn Pages>, &Arc::new(Pool::new(bound)));
        builder.push_inline(b"tail");
        builder
    }

    #[test]
    fn pages_read_as_one_whatever_stays_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::new(&dir, 9);
        let bytes = [b"head", &book.bytes()[..], b"tail"].concat();
        for bound in [0, 2000, 1 << 20] {
            let recipe = recipe(&book, bound).finish().unwrap();
            assert_eq!(recipe.len(), bytes.len() as u64);
            for size in [1000, 12_345, 1 << 20] {
                let mut buf = vec![0; size];
                for from in (0..bytes.len()).step_by(size).rev() {
                    let read = recipe.read_at(from as u64, &mut buf).unwrap();
                    assert!(buf[..read] == bytes[from..bytes.len().min(from + size)]);
                }
            }
        }
        let kept = recipe(&book, 1 << 20).finish().unwrap();
        book.made.store(0, Ordering::Relaxed);
        (0..3).for_each(|_| kept.scan(|_| ()).unwrap());
        assert_eq!(book.made.load(Ordering::Relaxed), 9, "each page is made once");
    }

    #[test]
    fn what_has_passed_stays_known_when_its_page_goes() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::new(&dir, 3);
        let recipe = recipe(&book, 0).finish().unwrap();
        recipe.scan(|_| ()).unwrap();
        for page in &recipe.paged[0].passed {
            assert!(page.get().unwrap().iter().all(|stamp| stamp.load(Ordering::Relaxed) != 0));
        }
        let mut wrong = body(1);
        wrong[4000] ^= 1;
        fs::write(book.path.join("1"), wrong).unwrap();
        let refused = recipe.scan(|_| ()).unwrap_err();
        assert!(refused.to_string().contains("checksum"), "{refused}");
    }

    #[test]
    fn a_digest_holds_all_pages() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::new(&dir, 3);
        let bytes = [b"head", &book.bytes()[..], b"tail"].concat();
        let recipe = recipe(&book, 0).finish_sealed(Digest::of(&bytes)).unwrap();
        let mut buf = vec![0; bytes.len()];
        for _ in 0..2 {
            recipe.read_at(0, &mut buf).unwrap();
            assert!(buf == bytes);
        }
        fs::write(book.path.join("2"), body(7)).unwrap();
        assert!(recipe.read_at(0, &mut buf[..1]).is_ok(), "nobody has looked at that file yet");
        assert!(recipe.read_at(0, &mut buf).is_err());
        assert!(recipe.read_at(0, &mut buf[..1]).is_err());
        fs::write(book.path.join("2"), body(2)).unwrap();
        recipe.read_at(0, &mut buf).unwrap();
        assert!(buf == bytes);
    }

    #[test]
    fn holes_and_pieces_are_found_in_pages() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::new(&dir, 2);
        let recipe = recipe(&book, 1 << 20).finish().unwrap();
        let (first, second) = (4 + 7 + FILE as u64, 4 + 7 + 8 + (2 * FILE + ZEROS) as u64);
        assert_eq!(recipe.seek(0, Seek::Hole).unwrap(), Some(first));
        let data = first + ZEROS as u64;
        assert_eq!(recipe.seek(first, Seek::Data).unwrap(), Some(data));
        assert_eq!(recipe.seek(data, Seek::Hole).unwrap(), Some(second));
        assert_eq!(recipe.seek(second, Seek::Data).unwrap(), Some(second + ZEROS as u64));
        // The first piece ends before the file that does not fit.
        let run = recipe.run(0, 1000);
        assert_eq!((run.count, run.is_continued), (11, false));
        let run = recipe.run(11, 3000);
        assert_eq!((run.count, run.is_continued), (3000, false));
        assert!(recipe.run(3011, 3000).is_continued);
    }
}

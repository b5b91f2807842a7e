//! bbolt databases, the files in which containerd and older Podmans keep what they know, read as
//! they lie on the disk (go.etcd.io/bbolt, `page.go`, `bucket.go`).
//!
//! What is difficult, and what answers it:
//! 1. The engine holds an exclusive lock for as long as it lives, and bbolt's own readers wait for
//!    it: no lock is taken here, and a state that moved while it was read is read again
//!    ([`Reader`]).
//! 2. The file may shrink under a reader, which kills one that has mapped it: it is read into
//!    memory as a whole, within a bound.
//! 3. Pages have no checksum, so whoever wrote the file decides what they say. All that is reached
//!    from the root is walked once, before anything else is asked ([`Database::parse`]): pages
//!    within the file and each in one place only, keys rising, no element upon another. Values are
//!    foreign all the same: each is the caller's to check.

use std::cmp::Ordering;
use std::fmt;

mod check;
mod file;
mod meta;
mod page;

pub use file::{Reader, Snapshot, Stamp};

use meta::{Meta, Metas};
use page::{Kind, Leaf, Page, Pages, u64_at};

/// Deepest tree of pages in one bucket: one of 32 levels would not fit on any disk.
const TREE_DEPTH: usize = 32;

/// Deepest nest of buckets; containerd has seven.
const BUCKET_DEPTH: usize = 16;

/// Bytes of a bucket's value before its inline page: root page and sequence.
const BUCKET_HEADER: usize = 16;

/// Why bytes are no bbolt database, or a damaged one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage(&'static str);

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Damage {}

/// One state of a database, in memory and found whole.
pub struct Database {
    pages: Pages,
    /// The page of the bucket that holds all others.
    root: u64,
    transaction: u64,
}

impl Database {
    /// The newest state in the bytes of a file, which nobody changed while they were read.
    ///
    /// # Errors
    /// Fails where no meta page is whole, or anything that is reached from the newest is not as
    /// bbolt writes it.
    pub fn parse(bytes: Vec<u8>) -> Result<Database, Damage> {
        let metas = Metas::of_bytes(&bytes);
        Database::at(bytes, metas.newest().ok_or(meta::NONE)?)
    }

    /// The state that `meta` describes.
    fn at(bytes: Vec<u8>, meta: &Meta) -> Result<Database, Damage> {
        let pages = Pages::new(bytes, meta)?;
        check::walk(&pages, meta.root)?;
        Ok(Database { pages, root: meta.root, transaction: meta.transaction })
    }

    /// The number of the transaction that left this state.
    #[must_use]
    pub fn transaction(&self) -> u64 {
        self.transaction
    }

    /// The bucket of this path of names; `None` where one of them is missing or no bucket. An
    /// empty path is the bucket that holds all others.
    #[must_use]
    pub fn bucket(&self, path: &[&[u8]]) -> Option<Bucket<'_>> {
        let root = Bucket { pages: &self.pages, page: self.pages.page(self.root).ok()? };
        path.iter().try_fold(root, |bucket, name| bucket.bucket(name))
    }
}

/// Its contents may be megabytes.
impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("transaction", &self.transaction).finish_non_exhaustive()
    }
}

/// Keys with values, and with buckets of their own.
#[derive(Debug, Clone, Copy)]
pub struct Bucket<'a> {
    pages: &'a Pages,
    /// The root of its tree.
    page: Page<'a>,
}

/// What a key stands for.
#[derive(Debug, Clone, Copy)]
pub enum Value<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// Keys of its own.
    Bucket(Bucket<'a>),
}

impl<'a> Bucket<'a> {
    /// The bucket that the value of a key holds.
    fn of_value(pages: &'a Pages, value: &'a [u8]) -> Result<Bucket<'a>, Damage> {
        let short = Damage("a bucket is shorter than its header");
        let page = match u64_at(value, 0).ok_or(short)? {
            0 => {
                let page = Page::parse(value.get(BUCKET_HEADER..).ok_or(short)?)?;
                match page.kind() {
                    Kind::Leaf => page,
                    Kind::Branch => return Err(Damage("an inline bucket has branches")),
                }
            }
            root => pages.page(root)?,
        };
        Ok(Bucket { pages, page })
    }

    /// The value of `key`; `None` where there is none, or it is a bucket.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&'a [u8]> {
        self.find(key).filter(|leaf| !leaf.is_bucket).map(|leaf| leaf.value)
    }

    /// The bucket of the name `key`; `None` where there is none, or it is a value.
    #[must_use]
    pub fn bucket(&self, key: &[u8]) -> Option<Bucket<'a>> {
        let leaf = self.find(key).filter(|leaf| leaf.is_bucket)?;
        Bucket::of_value(self.pages, leaf.value).ok()
    }

    /// Every key with what it stands for, in the order of the keys' bytes.
    #[must_use]
    pub fn entries(&self) -> Entries<'a> {
        Entries { pages: self.pages, stack: vec![(self.page, 0)] }
    }

    /// Every bucket in it with its name, in the order of the names' bytes.
    pub fn buckets(&self) -> impl Iterator<Item = (&'a [u8], Bucket<'a>)> + use<'a> {
        self.entries().filter_map(|(name, value)| match value {
            Value::Bucket(bucket) => Some((name, bucket)),
            Value::Bytes(_) => None,
        })
    }

    fn find(&self, key: &[u8]) -> Option<Leaf<'a>> {
        let mut page = self.page;
        for _ in 0..TREE_DEPTH {
            let found = search(&page, key);
            match page.kind() {
                Kind::Leaf => return page.leaf(found.ok()?),
                Kind::Branch => {
                    let child = found.unwrap_or_else(|after| after.saturating_sub(1));
                    page = self.pages.page(page.child(child)?).ok()?;
                }
            }
        }
        None
    }
}

/// The element of `page` with that key, or the one that would come right after it.
fn search(page: &Page<'_>, key: &[u8]) -> Result<usize, usize> {
    let (mut low, mut high) = (0, page.count());
    while low < high {
        let middle = low + (high - low) / 2;
        match page.key(middle).unwrap_or_default().cmp(key) {
            Ordering::Equal => return Ok(middle),
            Ordering::Less => low = middle + 1,
            Ordering::Greater => high = middle,
        }
    }
    Err(low)
}

/// The entries of a bucket, see [`Bucket::entries`].
#[derive(Debug, Clone)]
pub struct Entries<'a> {
    pages: &'a Pages,
    /// From the root of the tree down: a page, and which element of it comes next.
    stack: Vec<(Page<'a>, usize)>,
}

impl<'a> Iterator for Entries<'a> {
    type Item = (&'a [u8], Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (page, next) = self.stack.last_mut()?;
            if *next == page.count() {
                self.stack.pop();
                continue;
            }
            let (page, index) = (*page, *next);
            *next += 1;
            match page.kind() {
                Kind::Branch => {
                    let child = self.pages.page(page.child(index)?).ok()?;
                    self.stack.push((child, 0));
                }
                Kind::Leaf => {
                    let leaf = page.leaf(index)?;
                    let value = match leaf.is_bucket {
                        true => Value::Bucket(Bucket::of_value(self.pages, leaf.value).ok()?),
                        false => Value::Bytes(leaf.value),
                    };
                    return Some((leaf.key, value));
                }
            }
        }
    }
}

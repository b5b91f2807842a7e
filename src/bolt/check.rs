//! One walk over all that is reached from the root. What it lets pass can be read without looking
//! out, in time that grows with the size of the file: no page and no byte stands in two places.

use super::page::{Kind, Page, Pages};
use super::{BUCKET_DEPTH, Bucket, Damage, TREE_DEPTH};

/// Keys from the first on, up to the second without it; `None` is no bound.
type Bounds<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

/// Checks the tree of the page `root`, and of every bucket in it.
pub(super) fn walk(pages: &Pages, root: u64) -> Result<(), Damage> {
    // Not more than the pages in memory, which `pages` was held to.
    let mut walk = Walk { pages, reached: vec![false; pages.count() as usize] };
    let page = walk.reach(root)?;
    walk.tree(page, (None, None), TREE_DEPTH, BUCKET_DEPTH)
}

struct Walk<'a> {
    pages: &'a Pages,
    /// Which pages were met.
    reached: Vec<bool>,
}

impl<'a> Walk<'a> {
    /// The page `id`, which no other way leads to.
    fn reach(&mut self, id: u64) -> Result<Page<'a>, Damage> {
        let page = self.pages.page(id)?;
        let (from, count) = (id as usize, self.pages.extent(&page) as usize);
        for reached in self.reached.iter_mut().skip(from).take(count) {
            if std::mem::replace(reached, true) {
                return Err(Damage("a page stands in two places"));
            }
        }
        Ok(page)
    }

    /// The tree below `page`, whose keys must lie within `bounds`.
    fn tree(
        &mut self,
        page: Page<'a>,
        bounds: Bounds<'a>,
        levels: usize,
        buckets: usize,
    ) -> Result<(), Damage> {
        let levels = levels.checked_sub(1).ok_or(Damage("a tree is too deep"))?;
        check_elements(&page, bounds)?;
        match page.kind() {
            Kind::Branch => {
                for index in 0..page.count() {
                    let child = page.child(index).ok_or(OUTSIDE)?;
                    let child = self.reach(child)?;
                    let end = page.key(index + 1).or(bounds.1);
                    self.tree(child, (page.key(index), end), levels, buckets)?;
                }
            }
            Kind::Leaf => {
                for index in 0..page.count() {
                    let leaf = page.leaf(index).ok_or(OUTSIDE)?;
                    if leaf.is_bucket {
                        self.bucket(leaf.value, buckets)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn bucket(&mut self, value: &'a [u8], buckets: usize) -> Result<(), Damage> {
        let buckets = buckets.checked_sub(1).ok_or(Damage("buckets are nested too deep"))?;
        let page = match super::u64_at(value, 0) {
            Some(root) if root != 0 => self.reach(root)?,
            _ => Bucket::of_value(self.pages, value)?.page,
        };
        self.tree(page, (None, None), TREE_DEPTH, buckets)
    }
}

const OUTSIDE: Damage = Damage("an element lies outside its page");

/// Holds the elements of a page to what bbolt writes: keys rise and lie within `bounds`, and each
/// element's bytes come behind those of the one before.
fn check_elements(page: &Page<'_>, bounds: Bounds<'_>) -> Result<(), Damage> {
    if page.kind() == Kind::Branch && page.count() == 0 {
        return Err(Damage("a branch leads nowhere"));
    }
    let mut free = page.elements_end();
    let mut last: Option<&[u8]> = None;
    for index in 0..page.count() {
        let data = page.data_range(index).ok_or(OUTSIDE)?;
        let key = page.key(index).ok_or(OUTSIDE)?;
        if data.start < free {
            return Err(Damage("an element lies upon another"));
        }
        free = data.end;
        let is_rising = match last {
            Some(last) => last < key,
            None => bounds.0.is_none_or(|first| first <= key),
        };
        if !is_rising || bounds.1.is_some_and(|end| end <= key) {
            return Err(Damage("keys are out of order"));
        }
        last = Some(key);
    }
    Ok(())
}

//! Pages and their elements, every offset checked. Values are unaligned: bytes are read, never
//! structs.

use super::Damage;
use super::meta::Meta;

/// Bytes of a page's header: id, flags, count, overflow.
pub(super) const HEADER: usize = 16;

/// Bytes of an element of either kind.
const ELEMENT: usize = 16;

/// The first page that is no meta page.
const FIRST: u64 = 2;

/// The flag of an element whose value is a bucket.
const IS_BUCKET: u32 = 1;

/// All pages of one state.
pub(super) struct Pages {
    bytes: Vec<u8>,
    page_size: u64,
    high_water: u64,
}

/// A page of a tree, with those that it runs over into.
#[derive(Debug, Clone, Copy)]
pub(super) struct Page<'a> {
    kind: Kind,
    count: usize,
    /// From the header on.
    bytes: &'a [u8],
}

/// What a page holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// First keys of other pages.
    Branch,
    /// Keys and values.
    Leaf,
}

/// An element of a leaf page.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leaf<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
    pub(super) is_bucket: bool,
}

impl Pages {
    /// The pages that `meta` says there are.
    pub(super) fn new(bytes: Vec<u8>, meta: &Meta) -> Result<Pages, Damage> {
        match meta.high_water.checked_mul(meta.page_size) {
            Some(end) if end <= bytes.len() as u64 => {
                Ok(Pages { bytes, page_size: meta.page_size, high_water: meta.high_water })
            }
            _ => Err(Damage("the file is shorter than it says")),
        }
    }

    /// How many pages there are, the two meta pages among them.
    pub(super) fn count(&self) -> u64 {
        self.high_water
    }

    /// The page `id`.
    pub(super) fn page(&self, id: u64) -> Result<Page<'_>, Damage> {
        let outside = Damage("a page lies outside the file");
        let is_inside = (FIRST..self.high_water).contains(&id);
        let from = id.checked_mul(self.page_size).filter(|_| is_inside).ok_or(outside)?;
        let bytes = self.bytes.get(from as usize..).ok_or(outside)?;
        if u64_at(bytes, 0) != Some(id) {
            return Err(Damage("a page has the number of another"));
        }
        let overflow = u64::from(u32_at(bytes, 12).ok_or(outside)?);
        // Both are below 2^33 and 2^20.
        let length = (overflow + 1) * self.page_size;
        if id + overflow >= self.high_water {
            return Err(outside);
        }
        Page::parse(bytes.get(..length as usize).ok_or(outside)?)
    }

    /// How many pages the page `page` takes.
    pub(super) fn extent(&self, page: &Page<'_>) -> u64 {
        page.bytes.len() as u64 / self.page_size
    }
}

/// Their contents may be megabytes.
impl std::fmt::Debug for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pages").field("high_water", &self.high_water).finish_non_exhaustive()
    }
}

impl<'a> Page<'a> {
    /// Parses the header of a page; its elements are looked at one by one.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Page<'a>, Damage> {
        let short = Damage("a page is shorter than it says");
        let kind = match u16_at(bytes, 8).ok_or(short)? {
            1 => Kind::Branch,
            2 => Kind::Leaf,
            _ => return Err(Damage("a page of a tree is neither branch nor leaf")),
        };
        let count = usize::from(u16_at(bytes, 10).ok_or(short)?);
        if HEADER + count * ELEMENT > bytes.len() {
            return Err(short);
        }
        Ok(Page { kind, count, bytes })
    }

    /// What it holds.
    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// How many elements.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The key of the element `index`; `None` where it does not lie in the page.
    pub(super) fn key(&self, index: usize) -> Option<&'a [u8]> {
        self.bytes.get(self.key_range(index)?)
    }

    /// The element `index` of a leaf page; `None` where it does not lie in the page.
    pub(super) fn leaf(&self, index: usize) -> Option<Leaf<'a>> {
        let key = self.key_range(index)?;
        let element = self.element(index)?;
        let value = key.end..key.end.checked_add(u32_at(element, 12)? as usize)?;
        Some(Leaf {
            value: self.bytes.get(value)?,
            key: self.bytes.get(key)?,
            is_bucket: u32_at(element, 0)? & IS_BUCKET != 0,
        })
    }

    /// The page that the element `index` of a branch page leads to.
    pub(super) fn child(&self, index: usize) -> Option<u64> {
        u64_at(self.element(index)?, 8)
    }

    /// The bytes that belong to the element `index` alone, behind all elements.
    pub(super) fn data_range(&self, index: usize) -> Option<std::ops::Range<usize>> {
        let key = self.key_range(index)?;
        let value = match self.kind {
            Kind::Branch => 0,
            Kind::Leaf => u32_at(self.element(index)?, 12)? as usize,
        };
        Some(key.start..key.end.checked_add(value)?)
    }

    /// Where the elements end.
    pub(super) fn elements_end(&self) -> usize {
        HEADER + self.count * ELEMENT
    }

    fn key_range(&self, index: usize) -> Option<std::ops::Range<usize>> {
        let element = self.element(index)?;
        let (position, size) = match self.kind {
            Kind::Branch => (u32_at(element, 0)?, u32_at(element, 4)?),
            Kind::Leaf => (u32_at(element, 4)?, u32_at(element, 8)?),
        };
        // An offset counts from the element itself.
        let start = (HEADER + index * ELEMENT).checked_add(position as usize)?;
        Some(start..start.checked_add(size as usize)?)
    }

    fn element(&self, index: usize) -> Option<&'a [u8]> {
        let from = HEADER + index * ELEMENT;
        self.bytes.get(from..from + ELEMENT).filter(|_| index < self.count)
    }
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
}

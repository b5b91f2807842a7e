//! The two meta pages, which say where a state begins. Transaction n is written to page n mod 2.

use std::io;

use super::Damage;
use super::page::{HEADER, u32_at, u64_at};

/// Begins a meta page's body.
const MAGIC: u32 = 0xED0C_DAED;

/// The only version there is.
const VERSION: u32 = 2;

/// Bytes of a meta page that say anything: header and body.
pub(super) const LENGTH: usize = HEADER + 64;

/// Bytes of the body that its checksum covers.
const SUMMED: usize = 56;

/// Smallest and largest page, in bytes; bbolt takes the page size of the host, 4 to 64 KiB.
const PAGE_SIZES: std::ops::RangeInclusive<u64> = 512..=1 << 20;

/// Neither meta page is whole.
pub(super) const NONE: Damage = Damage("no meta page of bbolt's is whole");

/// What a meta page says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meta {
    /// Bytes of a page: a power of two.
    pub(super) page_size: u64,
    /// The page of the bucket that holds all others.
    pub(super) root: u64,
    /// The first page that was never used.
    pub(super) high_water: u64,
    /// Number of the transaction that wrote it.
    pub(super) transaction: u64,
}

impl Meta {
    /// Parses the beginning of a page; `None` where it is no whole meta page.
    fn parse(page: &[u8; LENGTH]) -> Option<Meta> {
        let body = &page[HEADER..];
        let sum = fnv1a(body.get(..SUMMED)?);
        let page_size = u64::from(u32_at(body, 8)?);
        let is_whole = u32_at(body, 0)? == MAGIC
            && u32_at(body, 4)? == VERSION
            && u64_at(body, SUMMED)? == sum
            && PAGE_SIZES.contains(&page_size)
            && page_size.is_power_of_two();
        let meta = Meta {
            page_size,
            root: u64_at(body, 16)?,
            high_water: u64_at(body, 40)?,
            transaction: u64_at(body, 48)?,
        };
        is_whole.then_some(meta)
    }
}

/// FNV-1a, 64 bits.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Both meta pages of a file; `None` for one that is torn or damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Metas(pub(super) [Option<Meta>; 2]);

impl Metas {
    /// Reads them with `read_at`, which gives the bytes at an offset, or `None` where the file ends.
    pub(super) fn read(
        mut read_at: impl FnMut(u64) -> io::Result<Option<[u8; LENGTH]>>,
    ) -> io::Result<Metas> {
        let mut meta_at = |offset| read_at(offset).map(|page| page.as_ref().and_then(Meta::parse));
        if let Some(first) = meta_at(0)? {
            let second = meta_at(first.page_size)?;
            return Ok(Metas([Some(first), second.filter(|it| it.page_size == first.page_size)]));
        }
        let mut page_size = *PAGE_SIZES.start();
        while PAGE_SIZES.contains(&page_size) {
            let second = meta_at(page_size)?.filter(|meta| meta.page_size == page_size);
            if second.is_some() {
                return Ok(Metas([None, second]));
            }
            page_size *= 2;
        }
        Ok(Metas([None, None]))
    }

    /// Those in the bytes of a file.
    pub(super) fn of_bytes(bytes: &[u8]) -> Metas {
        let read_at = |offset| {
            let page = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..));
            Ok(page.and_then(|page| page.first_chunk()).copied())
        };
        Metas::read(read_at).unwrap_or(Metas([None, None]))
    }

    /// The whole one of the higher transaction.
    pub(super) fn newest(&self) -> Option<&Meta> {
        self.0.iter().flatten().max_by_key(|meta| meta.transaction)
    }
}

//! Files with holes: the map of GNU's old headers, and PAX records 0.0, 0.1 and 1.0 (GNU tar manual,
//! "Storing Sparse Files").

use std::ops::Range;

use super::{Block, Damage, Entries, Entry, Extension, SPECIAL_MAX, decimal, number};
use crate::backing::Extent;
use crate::error::Result;
use crate::tar::BLOCK;

/// Where the map starts in an old header, and how many entries of 24 bytes it has there.
const OLD_MAP: (usize, usize) = (386, 4);
/// Not zero where blocks with more of the map follow.
const OLD_IS_EXTENDED: usize = 482;
/// Size of the file with its holes.
const OLD_SIZE: Range<usize> = 483..495;
/// Entries of the map in a block that follows, and where that says whether another one does.
const MORE_ENTRIES: usize = 21;
const MORE_IS_EXTENDED: usize = 504;

/// Finds out what of a file is stored where; `body` is where its bytes are, perhaps after the map.
/// Tells where the body ends.
pub(super) fn expand(
    entries: &mut Entries<'_>,
    entry: &mut Entry,
    block: &Block,
    extension: &Extension,
    body: Range<u64>,
) -> Result<u64> {
    let header = body.start - BLOCK;
    let damaged = |entries: &Entries<'_>, why: Damage| entries.damaged(header, why);
    let mut from = body.start;
    let mut end = body.end;
    let map = if block[super::TYPE] == b'S' {
        let map = old_map(entries, block, &mut from)?;
        let size = number(&block[OLD_SIZE]).ok().and_then(|size| u64::try_from(size).ok());
        entry.size = size.ok_or_else(|| damaged(entries, "a sparse file without a size"))?;
        // What was counted as the body starts after the map.
        let moved = (body.end - body.start).checked_add(from);
        let moved = moved.filter(|&end| end <= entries.bytes.len());
        end = moved.ok_or_else(|| damaged(entries, "cut short"))?;
        map
    } else {
        let real = extension
            .number("GNU.sparse.realsize")
            .and_then(|size| Ok(size.or(extension.number("GNU.sparse.size")?)))
            .map_err(|why| damaged(entries, why))?;
        entry.size = real.ok_or_else(|| damaged(entries, "a sparse file without a size"))?;
        if let Some(name) = extension.value("GNU.sparse.name") {
            entry.name = name.to_vec();
        }
        match (extension.value("GNU.sparse.major"), extension.value("GNU.sparse.map")) {
            (Some(b"1"), _) => map_in_body(entries, &body, &mut from)?,
            (Some(b"0") | None, Some(text)) => {
                let numbers = text.split(|&byte| byte == b',').map(decimal).collect();
                let numbers: Option<Vec<u64>> = numbers;
                numbers.ok_or_else(|| damaged(entries, "a sparse map that makes no sense"))?
            }
            (Some(b"0") | None, None) => extension.map.clone(),
            _ => return Err(damaged(entries, "a sparse map of an unknown version")),
        }
    };
    let extents = extents(&map, entry.size, from..end);
    entry.extents = extents.map_err(|why| damaged(entries, why))?;
    Ok(end)
}

/// The extents that the pairs of `map` tell, stored one after another.
fn extents(map: &[u64], size: u64, stored: Range<u64>) -> Result<Vec<Extent>, Damage> {
    const WRONG: Damage = "a sparse map that makes no sense";
    let pairs = map.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return Err(WRONG);
    }
    let mut extents = Vec::with_capacity(pairs.len());
    let (mut from, mut last) = (stored.start, 0);
    for pair in pairs {
        let (offset, len) = (pair[0], pair[1]);
        let end = offset.checked_add(len).filter(|&end| end <= size).ok_or(WRONG)?;
        if offset < last {
            return Err(WRONG);
        }
        if len > 0 {
            extents.push(Extent { offset, len, from });
        }
        from = from.checked_add(len).filter(|&from| from <= stored.end).ok_or(WRONG)?;
        last = end;
    }
    if from != stored.end {
        return Err(WRONG);
    }
    Ok(extents)
}

/// The map of an old header and of the blocks that follow it; `from` is where those end.
fn old_map(entries: &mut Entries<'_>, block: &Block, from: &mut u64) -> Result<Vec<u64>> {
    let mut map = Vec::new();
    let header = *from;
    let (start, count) = OLD_MAP;
    let mut take = |entries: &Entries<'_>, fields: &[u8]| {
        for entry in fields.chunks_exact(24) {
            let pair = number(&entry[..12]).and_then(|at| Ok([at, number(&entry[12..])?]));
            // An empty field ends the map.
            if entry[..12].iter().all(|&byte| byte == 0) {
                break;
            }
            for value in pair.map_err(|why| entries.damaged(header, why))? {
                let value = u64::try_from(value);
                map.push(value.map_err(|_| entries.damaged(header, "a negative number"))?);
            }
        }
        Ok(())
    };
    take(entries, &block[start..start + count * 24])?;
    let mut is_extended = block[OLD_IS_EXTENDED] != 0;
    while is_extended {
        if *from - header >= SPECIAL_MAX {
            return Err(entries.damaged(header, "a sparse map of more than 1 MiB"));
        }
        let mut more = [0; BLOCK as usize];
        entries.fill(*from, &mut more)?;
        *from += BLOCK;
        take(entries, &more[..MORE_ENTRIES * 24])?;
        is_extended = more[MORE_IS_EXTENDED] != 0;
    }
    Ok(map)
}

/// The map that comes before the bytes: how many pairs, then their numbers, each on a line; padded to
/// a block.
fn map_in_body(entries: &mut Entries<'_>, body: &Range<u64>, from: &mut u64) -> Result<Vec<u64>> {
    let header = body.start - BLOCK;
    let mut map: Vec<u64> = Vec::new();
    let mut wanted: Option<u64> = None;
    let mut line = Vec::new();
    while wanted.is_none_or(|wanted| (map.len() as u64) < wanted) {
        if *from + BLOCK > body.end || *from - body.start >= SPECIAL_MAX {
            return Err(entries.damaged(header, "a sparse map that does not end"));
        }
        let mut block = [0; BLOCK as usize];
        entries.fill(*from, &mut block)?;
        *from += BLOCK;
        for &byte in &block {
            if byte != b'\n' {
                line.push(byte);
                continue;
            }
            let number = decimal(&line)
                .ok_or_else(|| entries.damaged(header, "a sparse map that makes no sense"))?;
            line.clear();
            match wanted {
                None => {
                    let pairs = number.checked_mul(2).filter(|&numbers| numbers <= SPECIAL_MAX);
                    let pairs = pairs
                        .ok_or_else(|| entries.damaged(header, "a sparse map that is too long"))?;
                    wanted = Some(pairs);
                }
                Some(_) => map.push(number),
            }
            if wanted.is_some_and(|wanted| map.len() as u64 == wanted) {
                break;
            }
        }
    }
    Ok(map)
}

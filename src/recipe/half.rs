//! What has passed of files that are half read, and what is being read of them now.

use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use lru::LruCache;

/// How many files may be half read at once before the oldest is forgotten (it is then read
/// through at its end instead).
const FILES: usize = 256;

/// Files that are half read, by their index.
#[derive(Debug)]
pub(super) struct HalfRead {
    state: Mutex<State>,
    /// Something was read, or could not be.
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// At most [`FILES`]; a bound of its own would take the memory for all of them at once.
    files: LruCache<u32, Half>,
    under_way: Vec<(u32, Range<u64>)>,
}

/// A part of a file that is being read.
#[derive(Debug)]
pub(super) struct Reading<'a> {
    all: &'a HalfRead,
    index: u32,
    range: Range<u64>,
}

/// What is known of a file once a part of it has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// All of it passed, and this is its checksum.
    All(u64),
    /// Its end did not yet.
    NotTheEnd,
    /// Its end did, and of what is before nobody reads what is missing.
    TheEnd,
    /// Somebody else has decided meanwhile.
    Decided,
}

/// The parts of one file that passed, as long as its stamp stays.
#[derive(Debug, Clone, Default)]
struct Half {
    stamp: u64,
    /// Sorted, disjoint, not touching.
    parts: Vec<Part>,
}

#[derive(Debug, Clone, Copy)]
struct Part {
    start: u64,
    end: u64,
    crc: u64,
}

impl HalfRead {
    pub(super) fn new() -> HalfRead {
        let state = State { files: LruCache::unbounded(), under_way: Vec::new() };
        HalfRead { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Notes that `range` of the file `index` is being read, until that is dropped.
    pub(super) fn begin(&self, index: u32, range: Range<u64>) -> Reading<'_> {
        self.lock().under_way.push((index, range.clone()));
        Reading { all: self, index, range }
    }

    /// Forgets what has passed of the file `index`.
    pub(super) fn forget(&self, index: u32) {
        self.lock().files.pop(&index);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reading<'_> {
    /// What was read has the checksum `crc`, and its file `size` bytes at this `stamp`. At its end,
    /// waits for those who are reading what is missing: they are but a moment late. `is_decided`
    /// tells whether one of them knows all there is to know.
    pub(super) fn pass(
        self,
        stamp: u64,
        crc: u64,
        size: u64,
        is_decided: impl Fn() -> bool,
    ) -> Seen {
        let Range { start, end } = self.range;
        let mut state = self.all.lock();
        state.leave(self.index, &self.range);
        if state.files.len() == FILES && !state.files.contains(&self.index) {
            state.files.pop_lru();
        }
        let half = state.files.get_or_insert_mut(self.index, Half::default);
        if half.stamp != stamp {
            *half = Half { stamp, parts: Vec::new() };
        }
        half.add(Part { start, end, crc });
        self.all.changed.notify_all();
        loop {
            let parts = match state.files.peek(&self.index) {
                Some(half) if half.stamp == stamp => &half.parts[..],
                _ => &[],
            };
            match *parts {
                [all] if all.start == 0 && all.end == size => return Seen::All(all.crc),
                _ if end < size => return Seen::NotTheEnd,
                _ if is_decided() => return Seen::Decided,
                _ if !state.is_coming(self.index, parts, size) => return Seen::TheEnd,
                _ => {}
            }
            state = self.all.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        if self.all.lock().leave(self.index, &self.range) {
            self.all.changed.notify_all();
        }
    }
}

impl State {
    /// Notes that this is no longer being read; false where it was noted before.
    fn leave(&mut self, index: u32, range: &Range<u64>) -> bool {
        let found = self.under_way.iter().position(|(of, its)| *of == index && its == range);
        found.map(|at| self.under_way.swap_remove(at)).is_some()
    }

    /// Whether all of the file `index` is in `parts`, or is being read.
    fn is_coming(&self, index: u32, parts: &[Part], size: u64) -> bool {
        let under_way = self.under_way.iter().filter(|(of, _)| *of == index);
        let ranges = || {
            let ranges = under_way.clone().map(|(_, range)| range.clone());
            ranges.chain(parts.iter().map(|part| part.start..part.end))
        };
        let mut at = 0;
        while at < size {
            match ranges().find(|range| range.contains(&at)) {
                Some(range) => at = range.end,
                None => return false,
            }
        }
        true
    }
}

impl Half {
    /// Joins `part` to its neighbours; a part that overlaps what is there adds nothing.
    fn add(&mut self, part: Part) {
        let at = self.parts.partition_point(|known| known.end <= part.start);
        if self.parts.get(at).is_some_and(|next| next.start < part.end) {
            return;
        }
        self.parts.insert(at, part);
        self.join(at);
        if at > 0 {
            self.join(at - 1);
        }
    }

    /// Makes the parts `at` and `at + 1` one where they touch.
    fn join(&mut self, at: usize) {
        let (Some(&first), Some(&second)) = (self.parts.get(at), self.parts.get(at + 1)) else {
            return;
        };
        if first.end != second.start {
            return;
        }
        let crc = joined(first.crc, second.crc, second.end - second.start);
        self.parts[at] = Part { start: first.start, end: second.end, crc };
        self.parts.remove(at + 1);
    }
}

/// The generator polynomial of CRC-64/GO-ISO without its highest term, lowest power first (ISO 3309:
/// x^64 + x^4 + x^3 + x + 1).
const POLYNOMIAL: u64 = 0xd800_0000_0000_0000;

/// The checksum of two runs from theirs, the second `length` bytes long: the first times x to the
/// power of the bits that follow it, plus the second. `crc_fast::checksum_combine` gives the same,
/// and takes as long as copying a quarter of a MiB.
fn joined(first: u64, second: u64, length: u64) -> u64 {
    const ONE: u64 = 1 << 63;
    let (mut shifted, mut power, mut bits) = (first, ONE >> 1, length.saturating_mul(8));
    while bits > 0 {
        if bits & 1 == 1 {
            shifted = product(shifted, power);
        }
        power = product(power, power);
        bits >>= 1;
    }
    shifted ^ second
}

/// The product of two polynomials over GF(2), reduced.
fn product(left: u64, mut right: u64) -> u64 {
    let mut product = 0;
    for power in (0..64).rev() {
        if left >> power & 1 == 1 {
            product ^= right;
        }
        right = (right >> 1) ^ if right & 1 == 1 { POLYNOMIAL } else { 0 };
    }
    product
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::super::check::{ALGORITHM, crc};
    use super::*;

    const STAMP: u64 = 7;

    fn bytes() -> Vec<u8> {
        (0..70_000_u32).map(|at| ((at * 31) >> 3) as u8).collect()
    }

    /// Reads `range` of a file of `bytes`.
    fn read(half: &HalfRead, bytes: &[u8], range: Range<usize>) -> Seen {
        let reading = half.begin(0, range.start as u64..range.end as u64);
        reading.pass(STAMP, crc(&bytes[range]), bytes.len() as u64, || false)
    }

    #[test]
    fn sums_join_as_the_library_joins_them() {
        let bytes = bytes();
        for at in [0, 1, 2, 63, 4096, 65_535, 65_536, 69_999, 70_000] {
            let (a, b) = bytes.split_at(at);
            let (sums, length) = ((crc(a), crc(b)), b.len() as u64);
            assert_eq!(joined(sums.0, sums.1, length), crc(&bytes), "{at}");
            let theirs = crc_fast::checksum_combine(ALGORITHM, sums.0, sums.1, length);
            assert_eq!(joined(sums.0, sums.1, length), theirs, "{at}");
        }
    }

    #[test]
    fn parts_join_whatever_their_order() {
        let bytes = &bytes()[..256];
        let half = HalfRead::new();
        for (start, end) in [(100, 200), (0, 50), (50, 100), (40, 60), (200, 210)] {
            assert_eq!(read(&half, bytes, start..end), Seen::NotTheEnd, "{start}..{end}");
        }
        assert_eq!(read(&half, bytes, 210..256), Seen::All(crc(bytes)));
        half.forget(0);
        assert_eq!(read(&half, bytes, 210..256), Seen::TheEnd);
    }

    #[test]
    fn the_end_waits_for_what_is_being_read() {
        let bytes = &bytes()[..256];
        let half = HalfRead::new();
        assert_eq!(read(&half, bytes, 0..100), Seen::NotTheEnd);
        let late = half.begin(0, 100..200);
        let other = half.begin(1, 0..256);
        thread::scope(|scope| {
            let end = scope.spawn(|| read(&half, bytes, 200..256));
            thread::sleep(Duration::from_millis(50));
            assert!(!end.is_finished());
            let seen = late.pass(STAMP, crc(&bytes[100..200]), 256, || false);
            assert_eq!((seen, end.join().unwrap()), (Seen::All(crc(bytes)), Seen::All(crc(bytes))));
        });
        drop(other);
        assert!(half.lock().under_way.is_empty());
    }

    #[test]
    fn the_end_waits_for_nobody_who_fails_or_has_decided() {
        let bytes = &bytes()[..256];
        let half = HalfRead::new();
        let late = half.begin(0, 0..200);
        thread::scope(|scope| {
            let end = scope.spawn(|| read(&half, bytes, 200..256));
            thread::sleep(Duration::from_millis(50));
            assert!(!end.is_finished());
            drop(late);
            assert_eq!(end.join().unwrap(), Seen::TheEnd);
        });
        let _late = half.begin(0, 0..200);
        let end = half.begin(0, 200..256);
        assert_eq!(end.pass(STAMP, crc(&bytes[200..]), 256, || true), Seen::Decided);
    }
}

//! The stamp that tells when what a store holds may have changed, made of `stat` alone.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::backing::{Fingerprint, Stat, Time};
use crate::error::Result;
use crate::store::Generation;

/// How long after a change another may go unseen, since both have the same time: a kernel tick,
/// 10 ms where it is longest, with room to spare; in nanoseconds.
const TICK_NANOS: i128 = 100_000_000;

/// A stamp of all that a catalog is read from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp {
    /// Equal where the files are.
    pub(crate) files: u64,
    newest: Time,
}

impl Stamp {
    /// The stamp to show. It moves once more when the newest change is a tick ago, for what may
    /// have changed within that tick.
    pub(crate) fn generation(self) -> Generation {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let newest = i128::from(self.newest.secs) * 1_000_000_000 + i128::from(self.newest.nanos);
        let recent = now.cast_signed() - newest < TICK_NANOS;
        Generation(self.files ^ u64::from(recent))
    }
}

/// A stamp while it is taken.
#[derive(Debug, Default)]
pub(crate) struct Taking {
    hash: Fingerprint,
    newest: Time,
}

impl Taking {
    /// Takes a file in; why there is none counts, too.
    pub(crate) fn add(&mut self, stat: Result<Stat>) {
        match stat {
            Ok(stat) => {
                self.hash.add(&stat.stamp().to_le_bytes());
                self.newest = self.newest.max(stat.ctime);
            }
            Err(err) => self.hash.add(&err.errno().raw_os_error().to_le_bytes()),
        }
    }

    /// Takes a name in.
    pub(crate) fn add_name(&mut self, name: impl AsRef<[u8]>) {
        self.hash.add(name.as_ref());
    }

    /// Takes in a number that moves with what it stands for, however soon after the last time.
    pub(super) fn add_number(&mut self, number: u64) {
        self.hash.add(&number.to_le_bytes());
    }

    /// Takes in all that another stamp was made of.
    pub(crate) fn merge(&mut self, other: Stamp) {
        self.hash.add(&other.files.to_le_bytes());
        self.newest = self.newest.max(other.newest);
    }

    /// The stamp of all that was taken in.
    pub(crate) fn finish(self) -> Stamp {
        Stamp { files: self.hash.finish(), newest: self.newest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_seen_again_when_it_is_a_tick_old() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed();
        let stamp = |secs| Stamp { files: 7, newest: Time { secs, nanos: 999_999_999 } };
        assert_ne!(stamp(now + 100).generation(), stamp(now - 100).generation());
        assert_eq!(stamp(-100).generation(), stamp(i64::MIN).generation());
        assert_eq!(stamp(i64::MAX).generation(), stamp(now + 100).generation());
    }
}

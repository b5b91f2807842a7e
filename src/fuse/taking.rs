//! Listings that are taken back from the kernel (`FUSE_NOTIFY_INVAL_INODE`).
//!
//! The kernel keeps a listing once somebody was told of its end, and looks at nothing but the mtime
//! of the directory from then on. Those of directories that may change don't tell: made-up ones
//! have none of their own, and a container can change one twice within a tick of the clock. So
//! before that answer the kernel drops what it has of the listing, and the next one who reads asks.
//!
//! The message waits for the lock of a page that is being copied to a reader, and he may wait for
//! a READ of ours: where his memory is a file of the mount. So one thread at a time sends it, while
//! others answer; and whoever finds it busy for long fails.

use std::sync::{Mutex, OnceLock, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use fuser::{INodeNo, Notifier};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// How long somebody waits for his turn. Usually the message takes some microseconds.
const PATIENCE: Duration = Duration::from_millis(500);

/// How long until he tries again.
const PAUSE: Duration = Duration::from_micros(50);

/// Who sends the message.
#[derive(Debug, Default)]
pub(super) struct Taking {
    notifier: OnceLock<Notifier>,
    turn: Mutex<()>,
}

impl Taking {
    /// Sends by `notifier` from now on; before, the kernel has no listings.
    pub(super) fn start(&self, notifier: Notifier) {
        self.notifier.get_or_init(|| notifier);
    }

    /// Takes back what the kernel has of the listing of `ino`.
    ///
    /// # Errors
    /// EBUSY where others take too long for it; EIO where the kernel refuses.
    pub(super) fn take_back(&self, ino: u64) -> Result<()> {
        let Some(notifier) = self.notifier.get() else { return Ok(()) };
        let begun = Instant::now();
        let _turn = loop {
            match self.turn.try_lock() {
                Ok(turn) => break turn,
                Err(TryLockError::Poisoned(turn)) => break turn.into_inner(),
                Err(TryLockError::WouldBlock) if begun.elapsed() < PATIENCE => {
                    thread::sleep(PAUSE);
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::errno_of(format!("listing of inode {ino}"), Errno::BUSY));
                }
            }
        };
        let (offset, to_its_end) = (0, 0);
        let taken = notifier.inval_inode(INodeNo(ino), offset, to_its_end);
        taken.map_err(|err| Error::io(format!("listing of inode {ino}"), err))
    }
}

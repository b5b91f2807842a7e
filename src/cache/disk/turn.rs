//! Whose turn it is to write to a cache, and what all that wrote before have counted.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// The file in a cache's directory that is locked, and holds the count.
const NAME: &str = "held";

/// How long a turn is waited for: one is as long as a segment takes to write. Whoever gets none, as
/// where another process was stopped in its own, keeps nothing.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(4);

/// How much a cache holds, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    /// In all, by the count.
    pub(super) held: u64,
    /// Written since somebody looked.
    pub(super) written: u64,
}

impl Room {
    /// What was found by looking.
    pub(super) fn looked_at(held: u64) -> Room {
        Room { held, written: 0 }
    }

    /// The same with a file of so many bytes.
    pub(super) fn after(self, bytes: u64) -> Room {
        let Room { held, written } = self;
        Room { held: held.saturating_add(bytes), written: written.saturating_add(bytes) }
    }
}

/// The right to write, until it is dropped. Of all processes one has it.
#[derive(Debug)]
pub(super) struct Turn(File);

impl Turn {
    /// The next turn in the cache at `dir`; `None` where others do not give it up.
    pub(super) fn take(dir: &Path) -> io::Result<Option<Turn>> {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
        let file = options.custom_flags(flags).open(dir.join(NAME))?;
        for _ in 0..TRIES {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(Turn(file))),
                Err(Errno::WOULDBLOCK | Errno::INTR) => thread::sleep(PAUSE),
                Err(err) => return Err(err.into()),
            }
        }
        Ok(None)
    }

    /// What those before have counted; `None` where nobody has.
    pub(super) fn room(&self) -> io::Result<Option<Room>> {
        let mut numbers = [0; 16];
        if self.0.read_at(&mut numbers, 0)? < numbers.len() {
            return Ok(None);
        }
        let number = |at: usize| numbers[at..].first_chunk().map(|it| u64::from_le_bytes(*it));
        Ok(number(0).zip(number(8)).map(|(held, written)| Room { held, written }))
    }

    /// Counts for those that come next.
    pub(super) fn note(&self, room: Room) -> io::Result<()> {
        self.0.write_all_at(&[room.held.to_le_bytes(), room.written.to_le_bytes()].concat(), 0)
    }
}

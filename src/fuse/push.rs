//! Contents that are handed to the kernel before it asks for them (`FUSE_NOTIFY_STORE`).
//!
//! A READ costs some 30 us, whatever the size; for small files that is all they cost. Once somebody
//! walks through a directory, its files go into the page cache unasked. That message waits, in
//! a way that no signal ends, while a READ of the same file is under way. So:
//! 1. One thread alone sends it, never one that answers requests: those that the message waits for
//!    are answered meanwhile. Nothing waits for that thread, and it holds no lock while it sends.
//! 2. A file whose READ was seen is passed over. What is left is the moment between a READ and our
//!    seeing it, which ends when it is answered.
//! 3. The thread stops before the process ends. Where the process is killed in that moment, the
//!    connection has to be aborted from outside: whoever lets contents be pushed sees to that.
//! 4. A message reaches to the end of its file, or its last page would not count.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;

use crate::tree::Tree;
use crate::tree::ahead::{self, Walk};

/// Directories that may wait.
const LINE: usize = 64;

/// How many bytes are sent for one walk: what is wasted at most where it ends early.
const REST: usize = 32 << 20;

/// How long the kernel may take to know a file of a listing that it was just sent.
const LISTED: Duration = Duration::from_micros(20);

/// Files that the kernel does not know, one after the other, until it is left alone.
const MISSES: u32 = 8;

/// Code of the message (Linux include/uapi/linux/fuse.h).
const FUSE_NOTIFY_STORE: i32 = 4;

/// `fuse_out_header` and `fuse_notify_store_out`, in bytes.
const HEADER: usize = 16 + 24;

/// Where walks are handed in.
#[derive(Debug)]
pub(super) struct Pusher {
    line: SyncSender<Walk>,
    is_over: Arc<AtomicBool>,
}

/// What the thread works with.
struct Sender {
    tree: Arc<Tree>,
    /// Another descriptor of the connection.
    device: OwnedFd,
    is_over: Arc<AtomicBool>,
}

/// What became of a file.
enum Sent {
    /// The kernel has all of its bytes.
    Bytes(usize),
    /// It is left to a READ.
    PassedOver,
    /// The kernel does not know it.
    Unknown,
    /// The connection is over.
    Over,
}

impl Pusher {
    /// Starts the thread.
    ///
    /// # Errors
    /// Fails where none is to be had.
    pub(super) fn start(tree: Arc<Tree>, device: OwnedFd) -> io::Result<Pusher> {
        let (line, walks) = sync_channel(LINE);
        let is_over = Arc::new(AtomicBool::new(false));
        let sender = Sender { tree, device, is_over: Arc::clone(&is_over) };
        thread::Builder::new().name("push".into()).spawn(move || sender.run(&walks))?;
        Ok(Pusher { line, is_over })
    }

    /// Takes `walk`, or gives it back where there are too many.
    pub(super) fn follow(&self, walk: Walk) -> Result<(), Walk> {
        use std::sync::mpsc::TrySendError::{Disconnected, Full};
        self.line.try_send(walk).map_err(|(Full(walk) | Disconnected(walk))| walk)
    }
}

impl Drop for Pusher {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

impl Sender {
    fn run(&self, walks: &Receiver<Walk>) {
        let mut buffer = Vec::new();
        for walk in walks {
            buffer.resize(ahead::MAX as usize, 0);
            let (files, bytes) = self.send_rest(&walk, &mut buffer);
            self.tree.rest_is_read(walk.dir);
            if files > 0 {
                tracing::debug!("inode {}: pushed {files} files of {bytes} bytes", walk.dir);
            }
        }
    }

    /// Sends what follows `walk`; tells how many files and bytes that were.
    fn send_rest(&self, walk: &Walk, buffer: &mut [u8]) -> (usize, usize) {
        let (mut files, mut bytes, mut misses) = (0, 0, 0);
        // Whoever looks at the directory itself is told what is wrong with it.
        for ino in self.tree.rest(walk).unwrap_or_default() {
            match self.send(ino, buffer) {
                Sent::Bytes(size) => (files, bytes, misses) = (files + 1, bytes + size, 0),
                Sent::PassedOver => {}
                Sent::Unknown => misses += 1,
                Sent::Over => break,
            }
            if misses > MISSES || bytes >= REST {
                break;
            }
        }
        (files, bytes)
    }

    fn send(&self, ino: u64, buffer: &mut [u8]) -> Sent {
        if !self.tree.is_unread(ino) {
            return Sent::PassedOver;
        }
        // A damaged file is left to the READ, which tells so.
        let Ok(size) = self.tree.read_ahead(ino, buffer) else { return Sent::PassedOver };
        for _ in 0..2 {
            if self.is_over.load(Ordering::Relaxed) {
                return Sent::Over;
            }
            if !self.tree.is_unread(ino) {
                return Sent::PassedOver;
            }
            match self.store(ino, &buffer[..size]) {
                Ok(()) => return Sent::Bytes(size),
                Err(Errno::NOENT) => thread::sleep(LISTED),
                Err(_) => return Sent::Over,
            }
        }
        Sent::Unknown
    }

    fn store(&self, ino: u64, data: &[u8]) -> Result<(), Errno> {
        let header = header(ino, data.len());
        rustix::io::writev(&self.device, &[IoSlice::new(&header), IoSlice::new(data)]).map(drop)
    }
}

/// What precedes the `size` bytes of the file `ino`.
fn header(ino: u64, size: usize) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    let size = size as u32;
    header[..4].copy_from_slice(&(HEADER as u32 + size).to_ne_bytes());
    header[4..8].copy_from_slice(&FUSE_NOTIFY_STORE.to_ne_bytes());
    // `unique` is 0, as it answers nothing; so is the offset.
    header[16..24].copy_from_slice(&ino.to_ne_bytes());
    header[32..36].copy_from_slice(&size.to_ne_bytes());
    header
}

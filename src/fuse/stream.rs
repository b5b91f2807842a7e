//! What a reader without a page cache will ask for next, read while it copies what it has.
//!
//! The kernel reads ahead for everybody else. For those who come with `O_DIRECT`, or read what was
//! opened with `direct_io`, nobody does: they and we would work by turns. So the second read that
//! goes on where another ended starts a thread, which stays a few chunks ahead of it.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::ops::{Deref, Range};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::tree::{Reader, Tree};

/// Bytes that are read at a time: the largest request.
const CHUNK: usize = super::REQUEST as usize;

/// How many of them are kept ready.
const AHEAD: usize = 4;

/// How far beyond what is being read somebody may ask and wait for it, in bytes: of several reads
/// that are under way, a later one may come earlier.
const NEAR: u64 = 2 * CHUNK as u64;

/// Readers that are read ahead for at a time; with [`AHEAD`], this bounds the memory.
const STREAMS: usize = 4;

/// Ends of reads that are remembered, to know what goes on there.
const ENDS: usize = 16;

/// How long a stream stays that nobody reads.
const IDLE: Duration = Duration::from_secs(1);

/// All streams.
#[derive(Debug)]
pub(super) struct Streams {
    tree: Arc<Tree>,
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    streams: Vec<Arc<Stream>>,
    /// Inode number, and where a read of it ended; the latest first.
    ends: VecDeque<(u64, u64)>,
}

/// One file, from somewhere on.
#[derive(Debug)]
struct Stream {
    ino: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// What is ready, by its offset, which grows by [`CHUNK`]. A shorter one is the last.
    ready: VecDeque<(u64, Result<Arc<Vec<u8>>>)>,
    /// Offset of the chunk that is read next.
    next: u64,
    /// Offset of the one that is being read.
    current: Option<u64>,
    /// Whether nothing comes behind what is ready: at the end of the file, after a failure, and when
    /// nobody reads.
    has_ended: bool,
    /// Where the last read ended.
    reader: u64,
    /// Memory that was read into before: fresh one would cost more than the copying.
    spare: Vec<Vec<u8>>,
    used: Instant,
}

impl State {
    /// Drops what lies far behind `offset`; false where there is nothing. Of several reads that are
    /// under way, an earlier one may come later.
    fn leave_behind(&mut self, offset: u64) -> bool {
        let before = self.ready.len();
        while let Some((at, _)) = self.ready.front()
            && at + 2 * CHUNK as u64 <= offset
        {
            let behind = self.ready.pop_front().and_then(|(_, chunk)| chunk.ok());
            self.spare.extend(behind.and_then(Arc::into_inner));
        }
        self.ready.len() < before
    }
}

/// Bytes that were asked for.
#[derive(Debug)]
pub(super) struct Piece {
    stream: Arc<Stream>,
    chunk: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.chunk[self.range.clone()]
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Some(buffer) = Arc::into_inner(mem::take(&mut self.chunk)) {
            self.stream.lock().spare.push(buffer);
        }
    }
}

impl Streams {
    pub(super) fn new(tree: Arc<Tree>) -> Streams {
        Streams { tree, open: Arc::default() }
    }

    /// The bytes at that place, if they are read ahead, or are from now on; `None` where the caller
    /// has to read them.
    pub(super) fn read(
        &self,
        ino: u64,
        offset: u64,
        size: usize,
        reader: Reader,
    ) -> Option<Result<Piece>> {
        let all = lock(&self.open).streams.clone();
        let mut streams: Vec<_> = all.into_iter().filter(|stream| stream.ino == ino).collect();
        // Of two readers that are near each other, each has its own.
        streams.sort_by_key(|stream| stream.lock().reader != offset);
        let found = streams.iter().find_map(|stream| Stream::take(stream, offset, size));
        found.or_else(|| Stream::take(&self.start(ino, offset, size, reader)?, offset, size))
    }

    /// A stream from `offset` on, where a read ended there before and much is left.
    fn start(&self, ino: u64, offset: u64, size: usize, reader: Reader) -> Option<Arc<Stream>> {
        let mut open = lock(&self.open);
        let known = open.ends.iter().position(|&end| end == (ino, offset));
        known.map(|at| open.ends.remove(at));
        let rest = self.tree.attr(ino).ok()?.size.saturating_sub(offset);
        if known.is_none() || rest < 2 * CHUNK as u64 || open.streams.len() == STREAMS {
            open.ends.truncate(ENDS - 1);
            open.ends.push_front((ino, offset + size as u64));
            return None;
        }
        let stream = Arc::new(Stream::new(ino, offset));
        let (tree, all, made) = (self.tree.clone(), self.open.clone(), stream.clone());
        let run = move || {
            made.run(|offset, buffer| tree.read(ino, offset, buffer, reader));
            lock(&all).streams.retain(|other| !Arc::ptr_eq(other, &made));
        };
        thread::Builder::new().name("stream".into()).spawn(run).ok()?; // it goes without
        open.streams.push(stream.clone());
        Some(stream)
    }
}

impl Stream {
    fn new(ino: u64, offset: u64) -> Stream {
        let state = State {
            ready: VecDeque::new(),
            next: offset,
            current: None,
            has_ended: false,
            reader: offset,
            spare: Vec::new(),
            used: Instant::now(),
        };
        Stream { ino, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// The bytes at that place, once they are ready; `None` where they are not going to be.
    fn take(stream: &Arc<Stream>, offset: u64, size: usize) -> Option<Result<Piece>> {
        let mut state = stream.lock();
        state.used = Instant::now();
        let holds = |at: u64| (at..at + CHUNK as u64).contains(&offset);
        let found = loop {
            // Always, or there might be no room for what is waited for.
            if state.leave_behind(offset) {
                stream.changed.notify_all();
            }
            if let Some(found) = state.ready.iter().position(|&(at, _)| holds(at)) {
                break found;
            }
            let is_near = (state.next..state.next + NEAR).contains(&offset);
            if !state.current.is_some_and(holds) && (state.has_ended || !is_near) {
                return None;
            }
            state = stream.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        let (at, chunk) = &state.ready[found];
        let start = (offset - at) as usize;
        let chunk = match chunk {
            Ok(chunk) if start + size > CHUNK && chunk.len() == CHUNK => return None,
            Ok(chunk) if start + size < chunk.len() => Arc::clone(chunk),
            Ok(_) | Err(_) => match state.ready.remove(found)?.1 {
                Ok(chunk) => chunk,
                Err(err) => return Some(Err(err)),
            },
        };
        state.reader = offset + size as u64;
        let range = start.min(chunk.len())..(start + size).min(chunk.len());
        drop(state);
        stream.changed.notify_all(); // there may be room now
        Some(Ok(Piece { stream: Arc::clone(stream), chunk, range }))
    }

    /// Reads ahead by `read`, which fills a buffer from an offset on, until nobody has asked for a
    /// while.
    fn run(&self, read: impl Fn(u64, &mut [u8]) -> Result<usize>) {
        while let Some((offset, mut buffer)) = self.place() {
            buffer.resize(CHUNK, 0);
            let read = AssertUnwindSafe(|| read(offset, &mut buffer));
            let read = catch_unwind(read).unwrap_or_else(|_| {
                let bug = io::Error::other("a defect in stratafs: reading ahead panicked");
                Err(Error::io("read", bug))
            });
            let mut state = self.lock();
            state.current = None;
            state.has_ended = !read.as_ref().is_ok_and(|&read| read == CHUNK);
            let chunk = read.map(|read| {
                buffer.truncate(read);
                Arc::new(buffer)
            });
            state.ready.push_back((offset, chunk));
            drop(state);
            self.changed.notify_all();
        }
    }

    /// The offset that is to be read next, and memory for it, as soon as there is room.
    fn place(&self) -> Option<(u64, Vec<u8>)> {
        let mut state = self.lock();
        while state.has_ended || state.ready.len() >= AHEAD {
            let Some(left) = IDLE.checked_sub(state.used.elapsed()) else {
                // Who has found this stream must not wait for it.
                state.has_ended = true;
                self.changed.notify_all();
                return None;
            };
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let offset = state.next;
        state.next += CHUNK as u64;
        state.current = Some(offset);
        Some((offset, state.spare.pop().unwrap_or_default()))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_jumps_ahead_of_a_stream_is_not_kept_waiting() {
        let stream = Arc::new(Stream::new(7, 0));
        thread::scope(|scope| {
            scope.spawn(|| stream.run(|_, buffer| Ok(buffer.len())));
            let jumps = (0..60_u64).map(|number| number * 7 % 13 * (CHUNK as u64) / 3);
            let mut offset = 0;
            for jump in jumps {
                offset += jump;
                drop(Stream::take(&stream, offset, 4096)); // it returns
            }
        });
        let next = stream.lock().next;
        assert!(Stream::take(&stream, next, 4096).is_none(), "it has ended");
    }

    #[test]
    fn who_waits_when_a_stream_ends_is_told() {
        let stream = Arc::new(Stream::new(7, 0));
        thread::scope(|scope| {
            let waits = scope.spawn(|| Stream::take(&stream, 0, 4096).is_none());
            thread::sleep(Duration::from_millis(50));
            let mut state = stream.lock();
            let far = u64::MAX / 2; // there is no room for what is waited for
            state.ready = (0..AHEAD).map(|_| (far, Ok(Arc::default()))).collect();
            state.used = Instant::now().checked_sub(2 * IDLE).unwrap();
            drop(state);
            assert!(stream.place().is_none());
            assert!(waits.join().unwrap());
        });
    }
}

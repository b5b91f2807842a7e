//! The bytes of one file of the tree, from front to back, into something that takes them in order.
//!
//! Threads take pieces in turn: while one writes, the next one reads. What was written is always the
//! beginning of the file, and each byte of it has passed the checks that it would pass on a mount;
//! a piece that fails ends it right there.

use std::collections::BTreeSet;
use std::io;
use std::num::NonZeroUsize;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::process::{geteuid, getpid};

use crate::backing::BackingFile;
use crate::error::{Error, Result};
use crate::recipe::Run;
use crate::tree::{Found, Reader};

/// Length of a piece, in bytes: as much as stays in the second-level cache of a core.
const PIECE: u64 = 1 << 20;

/// From this size on a second thread pays, in bytes.
const PARALLEL: u64 = 4 * PIECE;

/// Most threads; writing in turn leaves no more work for others.
const THREADS: usize = 3;

/// What takes the bytes of a file.
pub(super) trait Sink: Send {
    /// Takes the bytes that follow all before.
    ///
    /// # Errors
    /// Whatever keeps it from that.
    fn put(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Takes `count` bytes of `file`, from byte `at` of it on, without having them read; `false`
    /// where it can't, or the file changed meanwhile, and has taken none.
    ///
    /// # Errors
    /// Whatever keeps it from that.
    fn put_file(&mut self, file: &BackingFile, at: u64, count: u64) -> io::Result<bool>;
}

/// Why a file did not come through.
#[derive(Debug)]
pub(super) enum Interrupted {
    /// Its bytes can't be had.
    Source(Error),
    /// They can't be written.
    Sink(io::Error),
}

/// Pours the whole file `from` into `sink`, and tells `progress` of each part that is through.
pub(super) fn pour(
    from: &Found<'_>,
    sink: &mut dyn Sink,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(), Interrupted> {
    let size = from.attr().size;
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let threads = if size < PARALLEL || cores == 1 { 1 } else { THREADS };
    let line = Line {
        from,
        progress,
        sink: Mutex::new(sink),
        state: Mutex::new(State::default()),
        moved: Condvar::new(),
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            // Without another thread it takes longer, and that is all.
            let _ = thread::Builder::new().spawn_scoped(scope, || line.work());
        }
        line.work();
    });
    let state = line.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    match state.stop {
        Some((_, why)) => Err(why),
        None if state.offset == size => Ok(()),
        None => Err(Interrupted::Source(Error::stale("a file that was shorter than it said"))),
    }
}

/// Threads that take pieces in turn.
struct Line<'a, 'b> {
    from: &'a Found<'b>,
    progress: &'a (dyn Fn(u64) + Sync),
    /// Only ever taken by the thread whose turn it is.
    sink: Mutex<&'a mut dyn Sink>,
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Where the next piece begins, and which it is.
    offset: u64,
    next: u64,
    /// All pieces before this one were read, and those in `read`.
    all_read: u64,
    read: BTreeSet<u64>,
    /// The piece that is to be written next.
    turn: u64,
    /// The first piece that failed: those before it are still written.
    stop: Option<(u64, Interrupted)>,
}

impl State {
    fn is_stopped(&self, index: u64) -> bool {
        self.stop.as_ref().is_some_and(|(stop, _)| *stop <= index)
    }
}

/// Ends the line when a thread panics, so that no other one waits for it.
struct Watch<'a, 'b, 'c> {
    line: &'a Line<'b, 'c>,
    index: u64,
}

impl Drop for Watch<'_, '_, '_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let why = Error::corrupt("a piece", "reading it panicked");
            self.line.stop(self.index, Interrupted::Source(why));
        }
    }
}

/// A piece that a thread has taken.
struct Piece {
    index: u64,
    offset: u64,
    run: Run,
}

impl Line<'_, '_> {
    fn work(&self) {
        let mut buf = Vec::new();
        while let Some(piece) = self.take() {
            let watch = Watch { line: self, index: piece.index };
            if let Err(why) = self.pass(&piece, &mut buf) {
                self.stop(piece.index, why);
            }
            drop(watch);
        }
    }

    fn stop(&self, index: u64, why: Interrupted) {
        let mut state = self.lock();
        if !state.is_stopped(index) {
            state.stop = Some((index, why));
        }
        self.moved.notify_all();
    }

    /// The next piece; `None` where there is no more, or one has failed.
    fn take(&self) -> Option<Piece> {
        let (tree, attr) = (self.from.tree(), self.from.attr());
        let mut state = self.lock();
        if state.stop.is_some() || state.offset >= attr.size {
            return None;
        }
        let (index, offset) = (state.next, state.offset);
        match tree.run(attr.ino, offset, PIECE) {
            Ok(run) if run.count > 0 => {
                state.next += 1;
                state.offset += run.count;
                Some(Piece { index, offset, run })
            }
            Ok(_) => None,
            Err(err) => {
                drop(state);
                self.stop(index, Interrupted::Source(err));
                None
            }
        }
    }

    /// Reads a piece, and writes it when it is its turn.
    fn pass(&self, piece: &Piece, buf: &mut Vec<u8>) -> Result<(), Interrupted> {
        let Piece { index, offset, run } = *piece;
        if run.is_plain && self.pass_plain(piece)? {
            return Ok(());
        }
        if run.is_continued {
            drop(self.wait(|state| state.all_read == index || state.is_stopped(index)));
        }
        // A plain piece that the kernel did not copy may be of any length.
        let end = offset + run.count;
        let mut at = offset;
        while at < end {
            buf.resize((end - at).min(PIECE) as usize, 0);
            self.read(at, buf).map_err(Interrupted::Source)?;
            at += buf.len() as u64;
            if at == end {
                self.has_read(index);
            }
            if !self.has_turn(index) {
                return Ok(());
            }
            let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
            sink.put(buf).map_err(Interrupted::Sink)?;
            (self.progress)(buf.len() as u64);
        }
        self.end_turn();
        Ok(())
    }

    /// Lets the kernel copy a piece; `false` where it can't.
    fn pass_plain(&self, piece: &Piece) -> Result<bool, Interrupted> {
        let attr = self.from.attr();
        let found =
            self.from.tree().backing(attr.ino, piece.offset).map_err(Interrupted::Source)?;
        let Some((file, at)) = found else { return Ok(false) };
        if !self.has_turn(piece.index) {
            return Ok(true);
        }
        let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        if !sink.put_file(&file, at, piece.run.count).map_err(Interrupted::Sink)? {
            return Ok(false);
        }
        drop(sink);
        (self.progress)(piece.run.count);
        self.has_read(piece.index);
        self.end_turn();
        Ok(true)
    }

    /// Fills `buf` from `offset` on.
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let reader = Reader { uid: geteuid().as_raw(), pid: getpid().as_raw_pid().unsigned_abs() };
        let ino = self.from.attr().ino;
        let read = self.from.tree().read(ino, offset, buf, reader)?;
        if read < buf.len() {
            Err(Error::stale("a file that is shorter than it was"))
        } else {
            Ok(())
        }
    }

    fn has_read(&self, index: u64) {
        let mut state = self.lock();
        state.read.insert(index);
        loop {
            let all_read = state.all_read;
            if !state.read.remove(&all_read) {
                break;
            }
            state.all_read += 1;
        }
        self.moved.notify_all();
    }

    /// Waits until a piece may be written; `false` where one before it has failed.
    fn has_turn(&self, index: u64) -> bool {
        let state = self.wait(|state| state.turn == index || state.is_stopped(index));
        !state.is_stopped(index)
    }

    fn end_turn(&self) {
        self.lock().turn += 1;
        self.moved.notify_all();
    }

    fn wait(&self, is_so: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let wait = self.moved.wait_while(self.lock(), |state| !is_so(state));
        wait.unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

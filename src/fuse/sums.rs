//! Checksums for `getxattr`, worked out beside the threads that serve everybody else.
//!
//! A sum may take minutes. So:
//! 1. [`Workers`] has a few threads of its own, started when there is work, ended when there is
//!    none; whoever asks waits in line, and all other requests go on.
//! 2. A process that is killed waits for its answer, and can't go before it has one. The kernel's
//!    message about that is refused by `fuser`, so a watch looks whether those who wait are being
//!    killed: they are answered EINTR, and the work stops.

use std::collections::VecDeque;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use fuser::{Errno, ReplyXattr};

use super::{errno, reply_xattr};
use crate::error::Error;
use crate::metrics::Request;
use crate::sum::Cancel;
use crate::tree::{Sum, Tree};

/// Sums that are worked out at a time.
const WORKERS: usize = 2;

/// How long a worker waits for more to do.
const IDLE: Duration = Duration::from_secs(10);

/// How often it is looked whether those who wait are being killed.
const WATCH: Duration = Duration::from_millis(200);

/// The bit of SIGKILL in the masks of `/proc/PID/status`; whatever signal ends a process, the
/// kernel makes it this one for each of its threads (`complete_signal` in kernel/signal.c).
const SIGKILL: u64 = 1 << (libc::SIGKILL - 1);

/// What somebody waits for.
#[derive(Debug)]
struct Job {
    ino: u64,
    sum: Sum,
    /// Room for the answer, in bytes; 0: its length is wanted.
    size: u32,
    /// Thread that waits; 0 where it is in no namespace of ours.
    pid: u32,
    cancel: Cancel,
    /// Taken by whoever answers.
    reply: Mutex<Option<ReplyXattr>>,
}

/// Works out sums.
#[derive(Debug)]
pub(super) struct Workers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    tree: Arc<Tree>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// What no worker has taken.
    line: VecDeque<Arc<Job>>,
    /// All that has no answer.
    open: Vec<Arc<Job>>,
    workers: usize,
    idle: usize,
    is_watched: bool,
}

impl Workers {
    pub(super) fn new(tree: Arc<Tree>) -> Workers {
        Workers(Arc::new(Shared { tree, state: Mutex::default(), changed: Condvar::new() }))
    }

    /// Answers `reply` as soon as `sum` is worked out.
    pub(super) fn answer(&self, ino: u64, sum: Sum, size: u32, pid: u32, reply: ReplyXattr) {
        let reply = Mutex::new(Some(reply));
        let job = Arc::new(Job { ino, sum, size, pid, cancel: Cancel::default(), reply });
        let mut state = self.0.lock();
        state.line.push_back(Arc::clone(&job));
        state.open.push(job);
        if state.idle < state.line.len() && state.workers < WORKERS {
            state.workers += usize::from(self.spawn("stratafs-sum", Shared::work));
        }
        if !state.is_watched {
            state.is_watched = self.spawn("stratafs-watch", Shared::watch);
        }
        if state.workers == 0 {
            // No thread is to be had. Dropping a reply answers EIO.
            state.line.clear();
            state.open.clear();
        }
        self.0.changed.notify_all();
    }

    fn spawn(&self, name: &str, run: fn(&Shared)) -> bool {
        let shared = Arc::clone(&self.0);
        thread::Builder::new().name(name.into()).spawn(move || run(&shared)).is_ok()
    }
}

impl Shared {
    /// What a worker does until there is no more of it.
    fn work(&self) {
        let mut state = self.lock();
        loop {
            let Some(job) = state.line.pop_front() else {
                state.idle += 1;
                let (woken, waited) = self
                    .changed
                    .wait_timeout_while(state, IDLE, |state| state.line.is_empty())
                    .unwrap_or_else(PoisonError::into_inner);
                state = woken;
                state.idle -= 1;
                if waited.timed_out() && state.line.is_empty() {
                    state.workers -= 1;
                    return;
                }
                continue;
            };
            drop(state);
            // The reply of one that panics is dropped, and by that answers EIO.
            if catch_unwind(AssertUnwindSafe(|| self.run(&job))).is_err() {
                let bug = std::io::Error::other("a defect in stratafs: a checksum panicked");
                self.tree.report(&Error::io("getxattr", bug));
            }
            state = self.lock();
            state.open.retain(|open| !Arc::ptr_eq(open, &job));
        }
    }

    fn run(&self, job: &Job) {
        let _timed = self.tree.metrics().time(Request::Checksum);
        let result = self.tree.sum(job.ino, job.sum, &job.cancel);
        let Some(reply) = job.take_reply() else { return };
        match result {
            Ok(value) => reply_xattr(reply, job.size, &value),
            Err(err) => reply.error(errno(&self.tree, &err)),
        }
    }

    /// Lets those go who are being killed, while anybody waits.
    fn watch(&self) {
        let mut state = self.lock();
        while !state.open.is_empty() {
            let (woken, _) = self
                .changed
                .wait_timeout_while(state, WATCH, |state| !state.open.is_empty())
                .unwrap_or_else(PoisonError::into_inner);
            let open = woken.open.clone();
            drop(woken);
            for job in open.iter().filter(|job| is_killed(job.pid)) {
                job.cancel.cancel();
                if let Some(reply) = job.take_reply() {
                    reply.error(Errno::EINTR);
                }
            }
            state = self.lock();
        }
        state.is_watched = false;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Job {
    fn take_reply(&self) -> Option<ReplyXattr> {
        self.reply.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Whether a thread is about to end as soon as the kernel lets it go.
fn is_killed(pid: u32) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return false };
    is_killed_by(&status)
}

fn is_killed_by(status: &str) -> bool {
    status.lines().any(|line| {
        let mask = line.strip_prefix("SigPnd:").or_else(|| line.strip_prefix("ShdPnd:"));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        mask.is_some_and(|mask| mask & SIGKILL != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pending_kill_is_found_in_either_mask() {
        let status = |own: &str, shared: &str| {
            format!("Name:\tx\nSigPnd:\t{own}\nShdPnd:\t{shared}\nSigBlk:\t0000000000000100\n")
        };
        let (none, kill) = ("0000000000000000", "0000000000000100");
        assert!(!is_killed_by(&status(none, none)));
        assert!(is_killed_by(&status(kill, none)));
        assert!(is_killed_by(&status(none, "0000000000004102")));
        assert!(!is_killed(std::process::id()) && !is_killed(0));
    }
}

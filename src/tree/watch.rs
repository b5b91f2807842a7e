//! Whether a store has stood still since somebody looked at it last. A thread listens to what the
//! kernel tells of it; where that tells nothing, one has to look.

use std::io::{PipeReader, PipeWriter};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::backing::{Heard, Watch};
use crate::error::{Error, Result};
use crate::store::LayerStore;

/// How long after news one has to look for oneself: an engine writes several files for one change,
/// some of them in directories that are not watched yet, and times of files move in ticks.
const SETTLED: Duration = Duration::from_secs(2);

/// How long the thread rests after news, as more of them come along.
const REST: Duration = Duration::from_millis(100);

/// When the thread tries again where watching failed.
const RETRY: Duration = Duration::from_secs(30);

/// Since when nothing was heard of a store; `None` where nobody listens.
#[derive(Debug, Default)]
struct Silence(Mutex<Option<Instant>>);

impl Silence {
    fn set(&self, since: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    fn get(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread that listens, until this is dropped.
#[derive(Debug)]
pub(super) struct Watcher {
    silence: Arc<Silence>,
    /// Closed with it, which ends the thread.
    _end: PipeWriter,
}

impl Watcher {
    /// Listens to what happens to `store`.
    ///
    /// # Errors
    /// Fails where no thread can be had.
    pub(super) fn start(store: Arc<dyn LayerStore>) -> Result<Watcher> {
        let failed = |err| Error::io("watcher", err);
        let (end, writer) = std::io::pipe().map_err(failed)?;
        let silence = Arc::new(Silence::default());
        let shared = Arc::clone(&silence);
        let run = move || {
            let ended = listen(&*store, &shared, &end);
            shared.set(None);
            if let Err(err) = ended {
                tracing::info!("{}: looked at again and again: {err}", store.info().kind);
            }
        };
        thread::Builder::new().name("watcher".into()).spawn(run).map_err(failed)?;
        Ok(Watcher { silence, _end: writer })
    }

    /// True where nothing has happened to the store since it was looked at then.
    pub(super) fn is_quiet_since(&self, looked: Instant) -> bool {
        self.silence.get().is_some_and(|since| looked >= since + SETTLED)
    }
}

/// Listens until nobody has the other side of `end` any more.
fn listen(store: &dyn LayerStore, silence: &Silence, end: &PipeReader) -> Result<()> {
    let mut watch = Watch::new()?;
    loop {
        let followed = follow(store, &mut watch);
        let heard = match followed {
            Ok(()) => {
                silence.set(Some(Instant::now()));
                watch.wait(end, None)?
            }
            Err(err) => {
                silence.set(None);
                tracing::info!("{}: looked at again and again: {err}", store.info().kind);
                watch.wait(end, Some(RETRY))?
            }
        };
        if heard == Heard::End {
            return Ok(());
        }
        if silence.get().is_some() {
            silence.set(Some(Instant::now()));
        }
        thread::sleep(REST);
        watch.drain()?;
    }
}

/// Watches all that there is to watch of a store.
fn follow(store: &dyn LayerStore, watch: &mut Watch) -> Result<()> {
    loop {
        let watched = store.watched()?;
        if watched.is_empty() {
            return Err(Error::unsupported(&store.info().path, "it can't be watched"));
        }
        // A directory that came before the one that holds it was watched is found the next time.
        if !watch.set(&watched)? {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_quiet_once_it_has_settled() {
        let silence = Arc::new(Silence::default());
        let (_, end) = std::io::pipe().unwrap();
        let watcher = Watcher { silence: Arc::clone(&silence), _end: end };
        let now = Instant::now();
        assert!(!watcher.is_quiet_since(now + SETTLED), "nobody listens");
        silence.set(Some(now));
        assert!(!watcher.is_quiet_since(now + SETTLED / 2));
        assert!(watcher.is_quiet_since(now + SETTLED));
        silence.set(Some(now + SETTLED));
        assert!(!watcher.is_quiet_since(now + SETTLED), "there was news");
    }
}

//! Counters: what was asked for and how long it took, what was read, and what caches were good for.
//!
//! To count is to add to an atomic: no lock, no allocation. Whoever reads the counters meanwhile
//! may see one request in one of them and not yet in another.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use serde::Serialize;

/// Upper bounds of the buckets that durations are sorted into, in microseconds; what took longer is
/// in one more. A request that is answered from memory is in the first ones, one that waits for a
/// disk in the middle.
const BOUNDS: [u64; 14] =
    [5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 10_000, 50_000, 250_000, 1_000_000, 10_000_000];

/// What the kernel asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// A checksum that somebody asked for as an xattr, from start to end.
    Checksum,
    /// References given back.
    Forget,
    /// Attributes.
    Getattr,
    /// An xattr.
    Getxattr,
    /// The names of xattrs.
    Listxattr,
    /// A name in a directory.
    Lookup,
    /// The next data or hole.
    Lseek,
    /// A snapshot.
    Mkdir,
    /// A listing is about to be read.
    /// Bytes.
    Read,
    /// Names.
    Readdir,
    /// Names with attributes.
    Readdirplus,
    /// The target of a symlink.
    Readlink,
    /// A listing was read.
    /// The end of a snapshot.
    Rmdir,
    /// What `df` shows.
    Statfs,
}

impl Request {
    /// In the order of the variants.
    const NAMES: [&str; Request::Statfs as usize + 1] = [
        "checksum",
        "forget",
        "getattr",
        "getxattr",
        "listxattr",
        "lookup",
        "lseek",
        "mkdir",
        "read",
        "readdir",
        "readdirplus",
        "readlink",
        "rmdir",
        "statfs",
    ];

    /// Its name, as FUSE has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

/// What bytes are read of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A blob as the store has it.
    Blob,
    /// The tar of a container's writable layer.
    Diff,
    /// A small file that is made up.
    Document,
    /// A tar of merged files.
    Export,
    /// A file of merged layers.
    File,
    /// The tar of a layer.
    Layer,
    /// A tar of images.
    Save,
    /// The tar of a volume.
    Volume,
}

impl Kind {
    /// In the order of the variants.
    const NAMES: [&str; Kind::Volume as usize + 1] =
        ["blob", "diff", "document", "export", "file", "layer", "save", "volume"];
}

/// Errors that have a name of their own in the counts.
const ERRNOS: [(Errno, &str); 13] = [
    (Errno::ACCESS, "EACCES"),
    (Errno::BUSY, "EBUSY"),
    (Errno::INVAL, "EINVAL"),
    (Errno::IO, "EIO"),
    (Errno::ISDIR, "EISDIR"),
    (Errno::MFILE, "EMFILE"),
    (Errno::NODATA, "ENODATA"),
    (Errno::NOENT, "ENOENT"),
    (Errno::NOTDIR, "ENOTDIR"),
    (Errno::OPNOTSUPP, "EOPNOTSUPP"),
    (Errno::PERM, "EPERM"),
    (Errno::ROFS, "EROFS"),
    (Errno::STALE, "ESTALE"),
];

/// The name of all others.
const OTHER: &str = "other";

/// A number that grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts `count` more.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// What it has come to.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How often a cache had what was asked for. Kept under the cache's own lock.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// How often it was there.
    pub hits: u64,
    /// How often it had to be worked out.
    pub misses: u64,
    /// How many of its values had to go to make room.
    pub evictions: u64,
}

impl Usage {
    /// Counts something that was asked for.
    pub fn asked(&mut self, is_there: bool) {
        self.hits += u64::from(is_there);
        self.misses += u64::from(!is_there);
    }

    /// Of two caches together.
    #[must_use]
    pub fn with(self, other: Usage) -> Usage {
        Usage {
            hits: self.hits + other.hits,
            misses: self.misses + other.misses,
            evictions: self.evictions + other.evictions,
        }
    }
}

/// How long requests of one kind took, on cache lines of its own: threads that serve different
/// kinds don't wait for each other.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Histogram {
    /// How many were as long as a bound of [`BOUNDS`], or longer than all.
    buckets: [Counter; BOUNDS.len() + 1],
    nanoseconds: Counter,
}

impl Histogram {
    fn count(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.buckets[BOUNDS.partition_point(|&bound| bound < micros)].add(1);
        self.nanoseconds.add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    fn durations(&self) -> Durations {
        let mut count = 0;
        let mut up_to = |bucket: &Counter| {
            count += bucket.value();
            count
        };
        let up_to: Vec<_> = self.buckets.iter().map(&mut up_to).collect();
        let seconds = self.nanoseconds.value() as f64 / 1e9;
        let buckets = BOUNDS.iter().map(|&bound| bound as f64 / 1e6).zip(up_to).collect();
        Durations { count, seconds, buckets }
    }
}

/// How long requests of one kind took.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Durations {
    /// How many there were.
    pub count: u64,
    /// All of them together, in seconds.
    pub seconds: f64,
    /// How many took no longer than so many seconds, by rising bounds.
    pub buckets: Vec<(f64, u64)>,
}

/// The counters of one mount.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: [Histogram; Request::NAMES.len()],
    read: [Counter; Kind::NAMES.len()],
    errors: [Counter; ERRNOS.len() + 1],
}

impl Metrics {
    /// Counts a request, which lasts until what is returned is dropped.
    pub fn time(&self, request: Request) -> Timed<'_> {
        Timed { histogram: &self.requests[request as usize], start: Instant::now() }
    }

    /// Counts bytes that were read.
    pub fn read(&self, kind: Kind, bytes: usize) {
        self.read[kind as usize].add(bytes as u64);
    }

    /// Counts an answer that is an error.
    pub fn error(&self, errno: Errno) {
        let known = ERRNOS.iter().position(|(known, _)| *known == errno);
        self.errors[known.unwrap_or(ERRNOS.len())].add(1);
    }

    /// How long requests took, by kind.
    #[must_use]
    pub fn durations(&self) -> BTreeMap<&'static str, Durations> {
        Request::NAMES.into_iter().zip(self.requests.iter().map(Histogram::durations)).collect()
    }

    /// How many bytes were read, by kind.
    #[must_use]
    pub fn bytes_read(&self) -> BTreeMap<&'static str, u64> {
        Kind::NAMES.into_iter().zip(self.read.iter().map(Counter::value)).collect()
    }

    /// How often an error was answered, by its name.
    #[must_use]
    pub fn errors(&self) -> BTreeMap<&'static str, u64> {
        let names = ERRNOS.iter().map(|(_, name)| *name).chain([OTHER]);
        names.zip(self.errors.iter().map(Counter::value)).collect()
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub struct Timed<'a> {
    histogram: &'a Histogram,
    start: Instant,
}

impl Drop for Timed<'_> {
    fn drop(&mut self) {
        self.histogram.count(self.start.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_every_bucket_that_is_as_long() {
        let histogram = Histogram::default();
        for micros in [0, 5, 6, 10_000_000, 10_000_001] {
            histogram.count(Duration::from_micros(micros));
        }
        let durations = histogram.durations();
        assert_eq!(durations.count, 5);
        assert!((durations.seconds - 20.000_012).abs() < 1e-9, "{}", durations.seconds);
        assert_eq!(durations.buckets[0], (0.000_005, 2));
        assert_eq!(durations.buckets[1], (0.000_01, 3));
        assert_eq!(durations.buckets[BOUNDS.len() - 1], (10.0, 4));
        assert!(BOUNDS.is_sorted());
    }

    #[test]
    fn names_belong_to_what_is_counted() {
        let metrics = Metrics::default();
        drop(metrics.time(Request::Readdirplus));
        metrics.read(Kind::Export, 7);
        metrics.error(Errno::STALE);
        metrics.error(Errno::XDEV);
        assert_eq!(Request::Readdirplus.name(), "readdirplus");
        assert_eq!(metrics.durations()["readdirplus"].count, 1);
        assert_eq!(metrics.durations().values().map(|kind| kind.count).sum::<u64>(), 1);
        assert_eq!(metrics.bytes_read()["export"], 7);
        assert_eq!((metrics.errors()["ESTALE"], metrics.errors()["other"]), (1, 1));
    }
}

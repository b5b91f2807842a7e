use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::backing::Held;
use crate::error::Error;

/// Bytes that compress, but not to nothing.
fn text(length: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bytes.extend(format!("{:x} ", (state >> 12) % 60_077).as_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(5));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A blob that counts how much of it is read.
#[derive(Debug)]
struct Counted {
    held: Held,
    read: AtomicU64,
}

impl Bytes for Counted {
    fn len(&self) -> u64 {
        self.held.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let read = self.held.read_at(offset, buf)?;
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }

    fn stamp(&self) -> Result<u64> {
        self.held.stamp()
    }

    fn path(&self) -> PathBuf {
        self.held.path()
    }
}

struct Layer {
    tar: Vec<u8>,
    counted: Arc<Counted>,
    blob: Digest,
}

impl Layer {
    fn new(length: usize, compress: impl Fn(&[u8]) -> Vec<u8>) -> Layer {
        let tar = text(length);
        let stored = compress(&tar);
        let blob = Digest::of(&stored);
        let held = Held::new("blob", stored);
        Layer { tar, counted: Arc::new(Counted { held, read: AtomicU64::new(0) }), blob }
    }

    fn open(&self, cache: &Arc<Cache>) -> Arc<dyn Bytes> {
        let bytes: Arc<dyn Bytes> = self.counted.clone();
        cache.layer(&bytes, self.blob, DiffId(Digest::of(&self.tar)), Check::Passing).unwrap()
    }

    /// How much of the blob was read since this was asked last.
    fn read(&self) -> u64 {
        self.counted.read.swap(0, Ordering::Relaxed)
    }

    /// Reads in pieces of an odd size, from the start or backwards.
    fn check(&self, bytes: &dyn Bytes) {
        assert_eq!(bytes.len(), self.tar.len() as u64);
        let mut buf = vec![0; 1_000_003];
        let pieces: Vec<u64> = (0..self.tar.len() as u64).step_by(buf.len()).collect();
        for &offset in pieces.iter().chain(pieces.iter().rev()) {
            let read = bytes.read_at(offset, &mut buf).unwrap();
            let from = offset as usize;
            assert!(buf[..read] == self.tar[from..(from + buf.len()).min(self.tar.len())]);
        }
        assert_eq!(bytes.read_at(bytes.len(), &mut buf).unwrap(), 0);
        assert_eq!(bytes.read_at(u64::MAX, &mut buf).unwrap(), 0);
    }
}

fn on(dir: &tempfile::TempDir, bound: u64) -> Arc<Cache> {
    Arc::new(Cache::on(Disk::open(&dir.path().join("cache"), bound).unwrap()))
}

fn files(dir: &tempfile::TempDir) -> Vec<PathBuf> {
    let mut left = vec![dir.path().to_owned()];
    let mut files = Vec::new();
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            match path.file_name() {
                _ if path.is_dir() => left.push(path),
                Some(name) if name == "held" => {} // it counts the others
                _ => files.push(path),
            }
        }
    }
    files.sort();
    files
}

fn held(dir: &tempfile::TempDir) -> u64 {
    files(dir).iter().map(|file| file.metadata().unwrap().len()).sum()
}

#[test]
fn a_layer_is_inflated_once() {
    let dir = tempfile::tempdir().unwrap();
    for compress in [gzip, |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap()] {
        let layer = Layer::new(9_000_000, compress);
        let cache = on(&dir, 1 << 30);
        layer.check(&*layer.open(&cache));
        assert!(layer.read() < layer.counted.len() + 100);
        layer.check(&*layer.open(&cache));
        layer.check(&*layer.open(&on(&dir, 1 << 30)));
        assert!(layer.read() < 100, "another daemon reads what the first one kept");
    }
}

#[test]
fn many_readers_wait_for_one() {
    let dir = tempfile::tempdir().unwrap();
    let (layer, cache) = (Layer::new(5_000_000, gzip), on(&dir, 1 << 30));
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| layer.check(&*layer.open(&cache)));
        }
    });
    assert!(layer.read() < layer.counted.len() + 1000);
}

#[test]
fn without_a_directory_every_byte_can_be_read_all_the_same() {
    let layer = Layer::new(30_000_000, gzip);
    let cache = Arc::new(Cache::in_memory());
    let bytes = layer.open(&cache);
    layer.read();
    layer.check(&*bytes);
    layer.read();
    let mut buf = [0; 100];
    bytes.read_at(1_000, &mut buf).unwrap();
    layer.read();
    bytes.read_at(25_000_000, &mut buf).unwrap();
    assert_eq!(buf, layer.tar[25_000_000..25_000_100]);
    assert!(layer.read() < layer.counted.len() / 3, "entered in the middle");
}

#[test]
fn a_layer_larger_than_the_bound_stays_within_it() {
    let dir = tempfile::tempdir().unwrap();
    let layer = Layer::new(30_000_000, gzip);
    let bound = 10 << 20;
    let cache = on(&dir, bound);
    let bytes = layer.open(&cache);
    for _ in 0..2 {
        layer.check(&*bytes);
        assert!(held(&dir) <= bound, "{}", held(&dir));
    }
    assert!(held(&dir) > 0);
}

#[test]
fn what_was_used_least_recently_goes_first_and_indexes_last() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (Layer::new(9_000_000, gzip), Layer::new(9_500_000, gzip));
    let bound = 22 << 20;
    let cache = on(&dir, bound);
    let open = first.open(&cache);
    let old = fs::FileTimes::new().set_accessed(std::time::UNIX_EPOCH);
    for file in files(&dir) {
        fs::File::open(file).unwrap().set_times(old).unwrap();
    }
    second.check(&*second.open(&cache));
    let third = Layer::new(10_000_000, gzip);
    third.check(&*third.open(&cache));
    assert!(held(&dir) <= bound);
    second.read();
    second.check(&*second.open(&cache));
    assert!(second.read() < 100);
    first.read();
    first.check(&*open);
    assert!(first.read() > 0, "evicted while it was open, and inflated again");
    assert_eq!(cache.disk.as_ref().unwrap().stats().unwrap().indexes, 3);
    assert!(cache.disk.as_ref().unwrap().prune(0).unwrap() > 0);
    assert_eq!(held(&dir), 0);
    third.check(&*third.open(&cache));
}

#[test]
fn damage_in_the_cache_never_gives_a_wrong_byte() {
    let dir = tempfile::tempdir().unwrap();
    let layer = Layer::new(700_000, gzip);
    let open = layer.open(&on(&dir, 1 << 30));
    layer.check(&*open);
    let mut state = 7u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % below
    };
    let mut buf = vec![0; 300_000];
    for round in 0..1000 {
        let all = files(&dir);
        if !all.is_empty() {
            let file = &all[random(all.len() as u64) as usize];
            let mut bytes = fs::read(file).unwrap();
            match random(4) {
                0 => bytes.truncate(random(bytes.len() as u64 + 1) as usize),
                1 => bytes.push(1),
                _ if bytes.is_empty() => {}
                _ => {
                    let at = random(bytes.len() as u64) as usize;
                    bytes[at] ^= 1 << random(8);
                }
            }
            fs::write(file, bytes).unwrap();
        }
        // Now and then with a daemon that has only just started.
        let again =
            if round % 50 == 0 { layer.open(&on(&dir, 1 << 30)) } else { Arc::clone(&open) };
        // Parts of one chunk or two, and chunks whole.
        let buf = &mut buf[..if round % 2 == 0 { 3000 } else { 300_000 }];
        let offset = random((layer.tar.len() - buf.len()) as u64);
        again.read_at(offset, buf).unwrap();
        assert!(buf == &layer.tar[offset as usize..][..buf.len()]);
    }
}

#[test]
fn a_blob_that_inflates_to_something_else_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let layer = Layer::new(1_000_000, gzip);
    let wrong = DiffId(Digest::of(b"something else"));
    let bytes: Arc<dyn Bytes> = layer.counted.clone();
    for cache in [on(&dir, 1 << 30), Arc::default()] {
        let refused: Error = cache.layer(&bytes, layer.blob, wrong, Check::Passing).unwrap_err();
        assert_eq!(refused.errno(), rustix::io::Errno::IO);
        assert!(cache.layer(&bytes, layer.blob, wrong, Check::Passing).is_err(), "again");
        layer.check(&*layer.open(&cache));
    }
    let plain: Arc<dyn Bytes> = Arc::new(Held::new("blob", &b"plain"[..]));
    let cache: Arc<Cache> = Arc::default();
    assert!(cache.layer(&plain, layer.blob, wrong, Check::First).is_err());
    let right = DiffId(Digest::of(b"plain"));
    assert_eq!(cache.layer(&plain, layer.blob, right, Check::First).unwrap().len(), 5);
}

#[test]
fn a_blob_that_is_cut_short_is_refused_to_all_who_wait_for_it() {
    let dir = tempfile::tempdir().unwrap();
    for compress in [gzip, |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap()] {
        // Many segments come before the end that is missing.
        let layer = Layer::new(30_000_000, |bytes| {
            let mut stored = compress(bytes);
            stored.truncate(stored.len() - 100);
            stored
        });
        let diff_id = DiffId(Digest::of(&layer.tar));
        for cache in [on(&dir, 1 << 30), Arc::default()] {
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        let bytes: Arc<dyn Bytes> = layer.counted.clone();
                        let refused = cache.layer(&bytes, layer.blob, diff_id, Check::Passing);
                        assert_eq!(refused.unwrap_err().errno(), rustix::io::Errno::IO);
                    });
                }
            });
        }
    }
}

#[test]
fn an_archive_is_told_by_its_place_and_stamp() {
    let dir = tempfile::tempdir().unwrap();
    let (layer, cache) = (Layer::new(5_000_000, gzip), on(&dir, 1 << 30));
    let bytes: Arc<dyn Bytes> = layer.counted.clone();
    layer.check(&*cache.uncompressed(&bytes).unwrap());
    layer.read();
    layer.check(&*on(&dir, 1 << 30).uncompressed(&bytes).unwrap());
    assert!(layer.read() < 100);
    let plain: Arc<dyn Bytes> = Arc::new(Held::new("archive", &b"plain"[..]));
    assert_eq!(cache.uncompressed(&plain).unwrap().len(), 5);
}

#[test]
fn a_directory_that_others_may_write_to_is_not_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cache");
    Disk::open(&path, 1 << 30).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(Disk::open(&path, 1 << 30).is_err());
    fs::write(dir.path().join("file"), "").unwrap();
    assert!(Disk::open(&dir.path().join("file"), 1 << 30).is_err());
}

#[test]
fn what_a_killed_daemon_left_behind_goes_after_a_while() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(&dir.path().join("cache"), 1 << 30).unwrap();
    let (old, new) = (dir.path().join("cache/tmp/1.2.3"), dir.path().join("cache/tmp/4.5.6"));
    fs::write(&old, "half").unwrap();
    fs::write(&new, "half").unwrap();
    let long_ago = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
    fs::File::options().write(true).open(&old).unwrap().set_times(long_ago).unwrap();
    disk.prune(1 << 30).unwrap();
    assert!(!old.exists() && new.exists());
}

#[test]
fn several_daemons_share_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let layers = [
        Layer::new(9_000_000, gzip),
        Layer::new(5_000_000, |bytes| zstd::encode_all(bytes, 1).unwrap()),
    ];
    let bound = 12 << 20;
    std::thread::scope(|scope| {
        for _ in 0..3 {
            // What they share is the directory alone, as processes do.
            scope.spawn(|| {
                let cache = on(&dir, bound);
                layers.iter().for_each(|layer| layer.check(&*layer.open(&cache)));
            });
        }
        scope.spawn(|| {
            let disk = Disk::open(&dir.path().join("cache"), bound).unwrap();
            for _ in 0..20 {
                disk.prune(4 << 20).unwrap();
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        });
    });
    assert!(held(&dir) <= bound, "each counts what the others wrote");
}

#[test]
fn whoever_gets_no_turn_to_write_reads_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let layer = Layer::new(9_000_000, gzip);
    let cache = on(&dir, 1 << 30);
    let lock = fs::File::create(dir.path().join("cache/held")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    layer.check(&*layer.open(&cache));
    assert_eq!(held(&dir), 0);
    drop(lock);
    // A count that is nobody's is as good as none.
    fs::write(dir.path().join("cache/held"), [0xff; 16]).unwrap();
    layer.check(&*layer.open(&on(&dir, 1 << 30)));
    assert!(held(&dir) > 0);
}

//! Outlines of layers' tars in the cache: whatever becomes of them, every byte is right.

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use stratafs::cache::{Cache, Disk};
use stratafs::recipe::Verify;
use stratafs::tree::Options;

use crate::stores::view::View;
use crate::support::cached::{BOUND, Cached, chance, tmpfs};

/// What is read of the store.
const TAR: &str = "images/app:1/save.tar";

fn case() -> Option<Cached> {
    Cached::new(TAR, "outline")
}

#[test]
fn the_next_mount_reads_what_the_first_one_kept() {
    let Some(case) = case() else { return };
    case.check(&case.view(), "cold");
    let times = || -> Vec<_> {
        let stat = |path: PathBuf| fs::metadata(path).map(|stat| (stat.ino(), stat.mtime_nsec()));
        case.kept().into_iter().map(|path| stat(path).unwrap()).collect()
    };
    let before = times();
    assert_eq!(before.len(), 2);
    let size: u64 = case.contents().iter().map(|(_, bytes)| bytes.len() as u64).sum();
    assert!(size < 550 * 100, "{size} bytes for 550 entries");
    let view = case.view();
    assert_eq!(view.attr(TAR).unwrap().size, case.tar.len() as u64);
    case.check(&view, "warm");
    case.check(&case.view_with(Verify::Always), "warm, and checked first");
    assert_eq!(times(), before, "nothing was written again");
    let stats = Disk::open(&case.cache(), BOUND).unwrap().stats().unwrap();
    assert_eq!((stats.outlines, stats.outline_bytes), (2, size));
}

#[test]
fn an_outline_that_is_damaged_in_1000_places_never_gives_a_wrong_byte() {
    let Some(case) = case() else { return };
    case.check(&case.view(), "cold");
    let good = case.contents();
    let total: usize = good.iter().map(|(_, bytes)| bytes.len()).sum();
    let mut state = 7;
    for round in 0..1000 {
        // Every other time it is open by then: its table was found right.
        let view = case.view();
        if round % 2 == 1 {
            view.attr(TAR).unwrap();
        }
        let mut at = chance(&mut state, total);
        let bit = 1 << chance(&mut state, 8);
        for (path, bytes) in &good {
            if let Some(byte) = bytes.get(at) {
                let file = fs::File::options().write(true).open(path).unwrap();
                file.write_all_at(&[byte ^ bit], at as u64).unwrap();
                break;
            }
            at -= bytes.len();
        }
        case.check(&view, &format!("round {round}"));
        if round % 2 == 0 {
            assert!(case.contents() == good, "round {round}: it was made again");
        }
        for (path, bytes) in &good {
            fs::write(path, bytes).unwrap();
        }
    }
}

#[test]
fn what_is_no_outline_is_not_taken_for_one() {
    let Some(case) = case() else { return };
    case.check(&case.view(), "cold");
    let good = case.contents();
    let (path, bytes) = &good[0];
    let other = fs::read(&good[1].0).unwrap();
    let replace = |with: &dyn Fn(&Path)| {
        fs::remove_file(path).unwrap();
        with(path);
    };
    let cuts = [0, 1, 31, 95, 96, 97, bytes.len() / 2, bytes.len() - 1];
    for cut in cuts {
        replace(&|path| fs::write(path, &bytes[..cut]).unwrap());
        case.check(&case.view(), &format!("cut at {cut}"));
    }
    let outside = case.dir.path().join("outside");
    fs::write(&outside, "outside").unwrap();
    for (what, with) in [
        ("that of another layer", &|path: &Path| fs::write(path, &other).unwrap() as _),
        ("longer", &|path: &Path| fs::write(path, [bytes, &b"x"[..]].concat()).unwrap()),
        ("a symlink", &|path: &Path| symlink(&outside, path).unwrap()),
        ("a FIFO", &|path: &Path| {
            assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
        }),
        ("gone", &|_: &Path| {}),
    ] as [(&str, &dyn Fn(&Path)); 5]
    {
        replace(with);
        case.check(&case.view(), what);
        assert!(fs::read(path).unwrap() == *bytes, "{what}: it was made again");
    }
    assert_eq!(fs::read(outside).unwrap(), b"outside");
    fs::remove_file(path).unwrap();
    fs::create_dir(path).unwrap();
    case.check(&case.view(), "a directory");
}

#[test]
fn an_outline_may_go_while_it_is_read() {
    let Some(case) = case() else { return };
    for verify in [Verify::Passing, Verify::Always] {
        case.check(&case.view(), "cold");
        let view = case.view_with(verify);
        let attr = view.attr(TAR).unwrap();
        let first = view.range(attr.ino, 0, 3000).unwrap();
        assert!(first == case.tar[..3000]);
        Disk::open(&case.cache(), BOUND).unwrap().prune(0).unwrap();
        assert_eq!(case.kept().len(), 0);
        case.check(&view, "after it went");
        assert!(!case.kept().is_empty(), "it was made again");
        Disk::open(&case.cache(), BOUND).unwrap().prune(0).unwrap();
        case.check(&view, "and went again");
    }
}

#[test]
fn a_record_that_changed_has_another_outline() {
    let Some(case) = case() else { return };
    case.check(&case.view(), "cold");
    let view = case.view();
    view.attr(TAR).unwrap();
    let layers = case.store().join("image/overlay2/layerdb/sha256");
    for layer in fs::read_dir(layers).unwrap() {
        let record = layer.unwrap().path().join("tar-split.json.gz");
        let mut bytes = fs::read(&record).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&record, bytes).unwrap();
    }
    let refused = case.view().try_read(TAR).unwrap_err();
    assert_eq!(refused.errno(), rustix::io::Errno::IO);
    // What was right when it was looked at stays so, as long as it is here.
    case.check(&view, "open before");
    Disk::open(&case.cache(), BOUND).unwrap().prune(0).unwrap();
    let fresh = case.view().try_read(TAR).unwrap_err();
    assert_eq!(fresh.errno(), rustix::io::Errno::IO);
}

#[test]
fn a_full_disk_keeps_its_last_part_and_costs_no_byte() {
    let Some(case) = case() else { return };
    let mounted = tmpfs(&case.cache(), "1m");
    case.view();
    let filler = fs::File::create(case.cache().join("filler")).unwrap();
    let free = || {
        let disk = rustix::fs::statvfs(mounted.path()).unwrap();
        disk.f_bavail * disk.f_frsize
    };
    // A small outline still fits where a large one does not.
    for (left, kept) in [(0, 0), (4 << 10, 0), (50 << 10, 0), (60 << 10, 1), (300 << 10, 2)] {
        let disk = Disk::open(&case.cache(), BOUND).unwrap();
        disk.prune(0).unwrap();
        filler.set_len(0).unwrap();
        let taken = free().saturating_sub(left);
        filler.write_all_at(&vec![1; taken as usize], 0).unwrap();
        let (part, before) = ((1 << 20) / 20, free());
        let cache = Arc::new(Cache::on(disk));
        let view = View::with(&case.store(), Options { cache, ..Options::default() });
        case.check(&view, &format!("{left} bytes free"));
        assert!(free() >= before.min(part), "{} of {left} bytes are free", free());
        assert_eq!(case.kept().len(), kept, "{left} bytes free");
        assert_eq!(fs::read_dir(case.cache().join("tmp")).unwrap().count(), 0);
    }
}

#[test]
fn a_cache_that_cannot_be_written_is_done_without() {
    let Some(case) = case() else { return };
    case.check(&case.view(), "cold");
    let open = case.dir.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
    let file = case.dir.path().join("file");
    fs::write(&file, "").unwrap();
    fs::set_permissions(case.cache().join("outline"), Permissions::from_mode(0o770)).unwrap();
    for cache in [Path::new("/proc/nowhere"), &open, &file, &case.cache()] {
        let output = case.cat(cache.as_os_str()).wait_with_output().unwrap();
        assert!(output.status.success() && output.stdout == case.tar, "{}", cache.display());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("WARN"), "{said}");
    }
    assert!(!open.join("outline").read_dir().is_ok_and(|mut entries| entries.next().is_some()));
}

#[test]
fn several_processes_share_a_cache() {
    let Some(case) = case() else { return };
    case.read_by_four(2);
}

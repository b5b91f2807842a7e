//! Lengths of exports in the cache: whatever becomes of them, nobody reads as many bytes as a wrong
//! one says.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rustix::io::Errno;
use stratafs::archive::Flavour;
use stratafs::cache::{Cache, Disk};
use stratafs::digest::Digest;
use stratafs::tree::Options;

use crate::stores::view::View;
use crate::support::cached::{BOUND, Cached, chance, tmpfs};

/// What is read of the store.
const TAR: &str = "images/app:1/export.tar";

fn case() -> Option<Cached> {
    Cached::new(TAR, "length")
}

/// What is told of the tar.
fn size(view: &View) -> u64 {
    view.attr(TAR).unwrap().size
}

/// Moves a directory of the layer deep in the store, of which that layer's own directory knows
/// nothing: the tar gets shorter.
fn shorten(case: &Cached) {
    for layer in fs::read_dir(case.store().join("overlay2")).unwrap() {
        let lib = layer.unwrap().path().join("diff/usr/lib");
        if lib.join("d3").exists() {
            fs::rename(lib.join("d3"), case.dir.path().join("d3")).unwrap();
        }
    }
}

#[test]
fn the_next_mount_knows_the_length_of_an_export_that_the_first_one_made() {
    let Some(case) = case() else { return };
    let len = case.tar.len() as u64;
    assert_eq!(size(&case.view()), len);
    let good = case.contents();
    assert_eq!(good.len(), 1);
    let inode = fs::metadata(&good[0].0).unwrap().ino();
    let stats = Disk::open(&case.cache(), BOUND).unwrap().stats().unwrap();
    assert_eq!((stats.lengths, stats.length_bytes), (1, good[0].1.len() as u64));
    case.check(&case.view(), "warm");
    let (one, other) = (case.view(), View::with(&case.store(), Options::default()));
    assert_eq!(one.attr(TAR).unwrap(), other.attr(TAR).unwrap(), "with and without");
    assert_eq!(fs::metadata(&good[0].0).unwrap().ino(), inode, "nothing was written again");
    // What a container holds may change, and is looked at each time.
    for path in ["containers/web/export.tar", "containers/web/save.tar"] {
        case.view().read(path);
    }
    assert!(case.contents() == good);
    // Nothing of the layers was walked over: else the length would be another.
    shorten(&case);
    assert_eq!(size(&case.view()), len);
}

#[test]
fn a_length_that_is_wrong_is_read_by_nobody_and_dropped() {
    let Some(case) = case() else { return };
    size(&case.view());
    let (path, good) = case.contents().remove(0);
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    let key = Digest::from_hex(&name).unwrap();
    let len = case.tar.len() as u64;
    for wrong in [1024, len - 512, len + 512, 2 * len, i64::MAX.cast_unsigned() - 511] {
        let cache = Arc::new(Cache::on(Disk::open(&case.cache(), BOUND).unwrap()));
        cache.keep_length(key, wrong);
        let view = View::with(&case.store(), Options { cache, ..Options::default() });
        let old = view.attr(TAR).unwrap();
        assert_eq!(old.size, wrong);
        for offset in [wrong - 512, 0, 700] {
            let read = view.range(old.ino, offset, 512);
            assert_eq!(read.unwrap_err().errno(), Errno::STALE, "{wrong} bytes, at {offset}");
        }
        assert!(case.kept().is_empty(), "{wrong} bytes: dropped");
        case.check(&view, "looked up again");
        // Whoever has it open stays with what it was told.
        let new = view.attr(TAR).unwrap();
        assert!(new.ino != old.ino && new.size == len);
        assert_eq!(view.range(old.ino, 0, 512).unwrap_err().errno(), Errno::STALE);
        case.check(&case.view(), "the next mount");
        assert!(fs::read(&path).unwrap() == good, "it is kept again");
    }
    // No tar is as short, or ends within a block.
    let cache = Cache::on(Disk::open(&case.cache(), BOUND).unwrap());
    for wrong in [0, 1, 512, 1023, 1025, len - 1] {
        cache.keep_length(key, wrong);
        case.check(&case.view(), "no length of a tar");
    }
    // Somebody has been at the files of a layer.
    assert!(fs::read(&path).unwrap() == good);
    shorten(&case);
    let view = case.view();
    assert_eq!(view.try_read(TAR).unwrap_err().errno(), Errno::STALE);
    let shorter = View::with(&case.store(), Options::default()).read(TAR);
    assert!(view.read(TAR) == shorter && shorter.len() < case.tar.len());
}

#[test]
fn a_length_that_is_damaged_in_1000_places_is_never_told() {
    let Some(case) = case() else { return };
    case.check(&case.view(), "cold");
    let (path, good) = case.contents().remove(0);
    let mut state = 11;
    for round in 0..1000 {
        let at = chance(&mut state, good.len());
        let mut bad = good.clone();
        bad[at] ^= 1 << chance(&mut state, 8);
        // Every third time it is cut as well, or has something behind it.
        match round % 6 {
            2 => bad.truncate(at),
            5 => bad.extend_from_slice(&good[..at + 1]),
            _ => {}
        }
        fs::write(&path, bad).unwrap();
        let view = case.view();
        assert_eq!(size(&view), case.tar.len() as u64, "round {round}");
        assert!(fs::read(&path).unwrap() == good, "round {round}: it was made again");
        if round % 50 == 0 {
            case.check(&view, &format!("round {round}"));
        }
    }
}

#[test]
fn what_is_no_length_is_not_taken_for_one() {
    let Some(case) = case() else { return };
    case.check(&case.view(), "cold");
    let (path, good) = case.contents().remove(0);
    let other = Options { flavour: Some(Flavour::Docker110), ..Options::default() };
    let cache = Arc::new(Cache::on(Disk::open(&case.cache(), BOUND).unwrap()));
    View::with(&case.store(), Options { cache, ..other }).read(TAR);
    let kept = case.contents();
    assert_eq!(kept.len(), 2, "another flavour has another length");
    let other = &kept.iter().find(|(name, _)| *name != path).unwrap().1;
    let outside = case.dir.path().join("outside");
    fs::write(&outside, &good).unwrap();
    for (what, with) in [
        ("that of another flavour", &|path: &Path| fs::write(path, other).unwrap()),
        ("empty", &|path: &Path| fs::write(path, b"").unwrap()),
        ("a symlink", &|path: &Path| symlink(&outside, path).unwrap()),
        ("a FIFO", &|path: &Path| {
            assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
        }),
        ("gone", &|_: &Path| {}),
    ] as [(&str, &dyn Fn(&Path)); 5]
    {
        fs::remove_file(&path).unwrap();
        with(&path);
        case.check(&case.view(), what);
        let is_file = fs::symlink_metadata(&path).unwrap().is_file();
        assert!(is_file && fs::read(&path).unwrap() == good, "{what}: it was made again");
    }
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    case.check(&case.view(), "a directory");
}

#[test]
fn layers_that_were_made_anew_have_another_length() {
    let Some(case) = case() else { return };
    case.check(&case.view(), "cold");
    // As an engine does that is given the same image again.
    for layer in fs::read_dir(case.store().join("overlay2")).unwrap() {
        let layer = layer.unwrap().path();
        if layer.join("diff/usr/lib/d1/new").exists() {
            let copied = Command::new("cp")
                .arg("-a")
                .arg(layer.join("diff"))
                .arg(layer.join("new"))
                .status();
            assert!(copied.unwrap().success());
            fs::rename(layer.join("diff"), case.dir.path().join("old")).unwrap();
            fs::rename(layer.join("new"), layer.join("diff")).unwrap();
            fs::write(layer.join("diff/usr/lib/d1/more"), vec![1; 5000]).unwrap();
        }
    }
    let view = case.view();
    assert_eq!(view.read(TAR).len(), case.tar.len() + 512 + 5120);
    assert_eq!(case.kept().len(), 2);
}

#[test]
fn a_length_that_finds_no_room_is_worked_out_each_time() {
    let Some(case) = case() else { return };
    let mounted = tmpfs(&case.cache(), "1m");
    case.view();
    let filler = fs::File::create(case.cache().join("filler")).unwrap();
    let free = || {
        let disk = rustix::fs::statvfs(mounted.path()).unwrap();
        disk.f_bavail * disk.f_frsize
    };
    for (left, kept) in [(0, 0), (40 << 10, 0), (300 << 10, 1)] {
        Disk::open(&case.cache(), BOUND).unwrap().prune(0).unwrap();
        filler.set_len(0).unwrap();
        let taken = free().saturating_sub(left);
        filler.write_all_at(&vec![1; taken as usize], 0).unwrap();
        case.check(&case.view(), &format!("{left} bytes free"));
        assert_eq!(case.kept().len(), kept, "{left} bytes free");
        assert_eq!(fs::read_dir(case.cache().join("tmp")).unwrap().count(), 0);
    }
    Disk::open(&case.cache(), BOUND).unwrap().prune(0).unwrap();
    assert!(case.kept().is_empty(), "it goes with the rest");
}

#[test]
fn several_processes_share_a_length() {
    let Some(case) = case() else { return };
    case.read_by_four(1);
}

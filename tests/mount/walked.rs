//! Trees that were walked, of which the kernel then drops what nobody uses.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::PoisonError;

use rustix::fs::Advice;

use crate::mounted::{Mounted, can_mount, wait_until};
use crate::push::CACHES;
use crate::stores::handmade::{CREATED, DataRoot};
use crate::stores::sample::{noise, write};

const DIRECTORIES: u32 = 60;
const FILES: u32 = 80;

fn name(number: u32) -> String {
    format!("d{:02}/f{:02}", number / FILES, number % FILES)
}

fn bytes(number: u32) -> Vec<u8> {
    noise(number, number as usize * 53 % 900)
}

/// A store whose image `many:1` has small files in many directories, each with a second name for a
/// file of the one before.
fn many() -> (tempfile::TempDir, DataRoot) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut root = DataRoot::create(dir.path());
    let base = root.layer(None, |dir| {
        (0..DIRECTORIES * FILES).for_each(|number| write(dir, &name(number), &bytes(number)));
        for number in 1..DIRECTORIES {
            let (one, other) = (name((number - 1) * FILES + 7), format!("d{number:02}/link"));
            fs::hard_link(dir.join(one), dir.join(other)).unwrap();
        }
    });
    let image = root.image(&[&base], CREATED);
    root.tag("many:1", &image);
    (dir, root)
}

/// Looks at everything, and reads nothing.
fn walk(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).unwrap().map(io::Result::unwrap);
    let count = |entry: fs::DirEntry| match entry.metadata().unwrap().is_dir() {
        true => 1 + walk(&entry.path()),
        false => 1,
    };
    entries.map(count).sum()
}

/// How many inodes the daemon keeps.
fn known(mounted: &Mounted) -> u64 {
    let stats = fs::read(mounted.at(".stratafs/stats.json")).unwrap();
    let stats: serde_json::Value = serde_json::from_slice(&stats).unwrap();
    stats["inodes"].as_u64().unwrap()
}

/// All bytes, from the daemon and not from what the kernel has of them.
fn read(file: &File) -> Vec<u8> {
    rustix::fs::fadvise(file, 0, None, Advice::DontNeed).unwrap();
    let mut bytes = vec![0; file.metadata().unwrap().size() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn what_is_open_can_be_read_when_the_kernel_has_forgotten_all_around_it() {
    if !can_mount() {
        return;
    }
    let _dropped = CACHES.lock().unwrap_or_else(PoisonError::into_inner);
    let (dir, _root) = many();
    let mounted = Mounted::new(dir.path());
    let rootfs = mounted.at("images/many:1/rootfs");
    let all = u64::from(DIRECTORIES * FILES + 2 * DIRECTORIES - 1);
    assert_eq!(walk(&rootfs), all);
    assert!(known(&mounted) > u64::from(DIRECTORIES * FILES));
    // By the one name and by the other, which is found in another directory.
    let open = |number: u32| {
        let path = match number % 2 {
            0 => name(number * FILES + 7),
            _ => format!("d{:02}/link", number + 1),
        };
        (number * FILES + 7, File::open(rootfs.join(path)).unwrap())
    };
    let files: Vec<(u32, File)> = (0..DIRECTORIES - 1).map(open).collect();
    wait_until("the kernel's forgetting", || {
        fs::write("/proc/sys/vm/drop_caches", "2").unwrap(); // names and inodes
        known(&mounted) < u64::from(4 * DIRECTORIES)
    });
    for (number, file) in &files {
        assert!(read(file) == bytes(*number), "{}", name(*number));
        assert!(read(file) == bytes(*number), "{} again", name(*number));
    }
    // Whoever comes by again finds the same, and so do they.
    let inos: Vec<u64> = files.iter().map(|(_, file)| file.metadata().unwrap().ino()).collect();
    assert_eq!(walk(&rootfs), all);
    for ((number, file), ino) in files.iter().zip(inos) {
        assert_eq!(fs::metadata(rootfs.join(name(*number))).unwrap().ino(), ino);
        assert!(read(file) == bytes(*number), "{}", name(*number));
    }
    drop(files);
    (0..DIRECTORIES * FILES).step_by(17).for_each(|number| {
        assert!(fs::read(rootfs.join(name(number))).unwrap() == bytes(number), "{}", name(number));
    });
}

//! Many readers, and readers that are killed.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::mounted::{Mounted, can_mount, wait_until};
use crate::stores::handmade::{CREATED, DataRoot};
use crate::stores::sample::{noise, write};

const READERS: usize = 64;

/// Descriptors that the daemon may have open while all of them read: those that it always has, and
/// some for each of its threads.
const DESCRIPTORS: usize = 48;

/// A store with an image `busy:1` of 12 MB in two layers.
fn busy() -> (tempfile::TempDir, DataRoot) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut root = DataRoot::create(dir.path());
    let base = root.layer(None, |dir| write(dir, "large", &noise(1, 10_000_000)));
    let top = root.layer(Some(&base), |dir| {
        for number in 0..400 {
            let name = format!("d{}/{number:03}", number % 9);
            write(dir, &name, &noise(number, number as usize * 29));
        }
    });
    let image = root.image(&[&base, &top], CREATED);
    root.tag("busy:1", &image);
    (dir, root)
}

#[test]
fn many_readers_of_an_archive_get_the_same_bytes_by_few_descriptors() {
    if !can_mount() {
        return;
    }
    let (dir, _root) = busy();
    let mut mounted = Mounted::new(dir.path());
    let descriptors = format!("/proc/{}/fd", mounted.daemon().id());
    let path = mounted.at("images/busy:1/save.tar");
    let whole = fs::read(&path).unwrap();
    let is_over = AtomicBool::new(false);
    let most = thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = 0;
            while !is_over.load(Ordering::Relaxed) {
                most = most.max(fs::read_dir(&descriptors).unwrap().count());
                thread::sleep(Duration::from_millis(1));
            }
            most
        });
        let readers: Vec<_> = (0..READERS)
            .map(|number| {
                let (path, whole) = (&path, &whole);
                scope.spawn(move || {
                    // Half of them past the page cache, which would serve all but the first.
                    let flag = if number % 2 == 0 { "iflag=direct" } else { "iflag=fullblock" };
                    let mut dd = Command::new("dd");
                    dd.arg(format!("if={}", path.display())).args([flag, "bs=256k"]);
                    let read = dd.stderr(Stdio::null()).output().unwrap();
                    assert!(read.stdout == *whole, "{flag}");
                })
            })
            .collect();
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        is_over.store(true, Ordering::Relaxed);
        watch.join().unwrap()
    });
    assert!(most <= DESCRIPTORS, "{most} descriptors");
}

#[test]
fn a_reader_that_is_killed_in_the_middle_is_gone_and_the_mount_goes_on() {
    if !can_mount() {
        return;
    }
    let (dir, _root) = busy();
    let mounted = Mounted::new(dir.path());
    let path = mounted.at("images/busy:1");
    for script in [
        "cat save.tar export.tar",
        "dd if=save.tar iflag=direct bs=1M",
        "dd if=save.tar iflag=direct bs=4k",
        "tar -c rootfs",
        "find . -ls",
        "ls -l formats oci",
        "sha256sum layers/*/layer.tar",
    ] {
        for delay in [2, 30] {
            let mut reader = Command::new("bash");
            reader.args(["-c", &format!("while :; do {script} | cat; done")]).current_dir(&path);
            reader.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut reader =
                std::os::unix::process::CommandExt::process_group(&mut reader, 0).spawn().unwrap();
            thread::sleep(Duration::from_millis(delay));
            let group = rustix::process::Pid::from_child(&reader);
            rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
            wait_until("the end of a reader", || {
                let _ = reader.try_wait().unwrap(); // its children are others' to wait for
                rustix::process::test_kill_process_group(group).is_err()
            });
        }
        assert_eq!(fs::read(path.join("rootfs/large")).unwrap().len(), 10_000_000, "{script}");
    }
}

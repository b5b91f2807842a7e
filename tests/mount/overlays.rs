//! Kernel overlays on `rootfs/`: they show what we show, and are gone when the mount is.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

use crate::bytes::told;
use crate::mounted::{Mounted, can_mount, run, start, wait_until};
use crate::stores::handmade::CREATED;
use crate::stores::sample::{Sample, sample};

const ALL: [&str; 2] = ["--kernel-rootfs", "*"];

/// A store with four references, one of them to an image of a single layer.
fn mountable() -> Option<Sample> {
    let mut sample = if can_mount() { sample()? } else { return None };
    let single = sample.root.image(&[&sample.layers[0]], CREATED);
    sample.root.tag("single:1", &single);
    Some(sample)
}

/// Mount options of the overlays below `point`, by path.
fn overlays(point: &Path) -> Vec<(String, String)> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let lines = table.lines().filter(|line| line.contains(" - overlay stratafs "));
    let words = lines.map(|line| line.split(' ').collect::<Vec<_>>());
    let below = words.filter(|words| Path::new(words[4]).starts_with(point));
    below.map(|words| (words[4].to_owned(), words[5].to_owned())).collect()
}

#[test]
fn a_kernel_overlay_shows_the_same_rootfs() {
    let Some(sample) = mountable() else { return };
    let plain = Mounted::new(sample.path());
    let mounted = Mounted::with(sample.path(), &ALL);
    wait_until("the overlays", || overlays(mounted.path()).len() == 4);
    for (path, options) in overlays(mounted.path()) {
        for option in ["ro", "nosuid", "nodev"] {
            assert!(options.split(',').any(|word| word == option), "{path}: {options}");
        }
        let name = Path::new(&path).strip_prefix(mounted.path()).unwrap();
        for below in fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()) {
            let (ours, theirs) =
                (plain.path().join(name).join(&below), Path::new(&path).join(&below));
            if ours.is_dir() {
                assert_eq!(told(&ours), told(&theirs), "{}", ours.display());
            } else {
                assert!(fs::read(ours).unwrap() == fs::read(theirs).unwrap());
            }
        }
        assert_eq!(
            fs::read_dir(plain.path().join(name)).unwrap().count(),
            fs::read_dir(&path).unwrap().count()
        );
    }
    assert_eq!(fs::read(mounted.at(".stratafs/errors")).unwrap(), b"");
    let one = Mounted::with(sample.path(), &["--kernel-rootfs", "app:1"]);
    wait_until("the overlay", || overlays(one.path()).len() == 1);
}

#[test]
fn overlays_go_with_their_mount_however_it_ends() {
    let Some(sample) = mountable() else { return };
    let mut mounted = Mounted::with(sample.path(), &ALL);
    let has_all = |mounted: &Mounted| overlays(mounted.path()).len() == 4;
    wait_until("the overlays", || has_all(&mounted));

    mounted.daemon().kill().unwrap();
    mounted.daemon().wait().unwrap();
    *mounted.daemon() = start(sample.path(), mounted.path(), &ALL);
    // The dead mount and its overlays are in the table until the next takes their place.
    let is_served = |mounted: &Mounted| fs::read_dir(mounted.path()).is_ok();
    wait_until("the next daemon's", || is_served(&mounted) && has_all(&mounted));

    let open = fs::File::open(mounted.at("images/app:1/rootfs/usr/bin/tool")).unwrap();
    let umount = || run(&["umount".as_ref(), mounted.path().as_ref()]).status.code();
    assert_eq!(umount(), Some(1), "a file is open");
    drop(open);
    assert_eq!(umount(), Some(0));
    assert_eq!(overlays(mounted.path()), []);
    assert!(mounted.daemon().wait().unwrap().success());

    for is_used in [false, true] {
        *mounted.daemon() = start(sample.path(), mounted.path(), &ALL);
        wait_until("the overlays", || has_all(&mounted));
        let path = mounted.at("images/app:1/rootfs/usr/bin/tool");
        let open = is_used.then(|| fs::File::open(path).unwrap());
        kill_process(Pid::from_child(mounted.daemon()), Signal::TERM).unwrap();
        wait_until("the end of the mount", || overlays(mounted.path()).is_empty());
        drop(open);
        assert!(mounted.daemon().wait().unwrap().success());
    }
}

#[test]
fn a_rootfs_that_the_kernel_cannot_show_stays_and_errors_tell_why() {
    let Some(sample) = mountable() else { return };
    let mounted = Mounted::with(sample.path(), &["--symlinks", "rebase", ALL[0], "app:1"]);
    let errors = || fs::read_to_string(mounted.at(".stratafs/errors")).unwrap();
    wait_until("the line", || {
        errors().contains("images/app:1/rootfs: not supported: a kernel overlay: ")
    });
    assert_eq!(overlays(mounted.path()), []);
    assert!(fs::exists(mounted.at("images/app:1/rootfs/usr/bin/tool")).unwrap());
}

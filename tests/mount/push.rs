//! Contents that the kernel is given before it asks: the right ones, to those who walk alone, and
//! nobody is left hanging.

use std::fs::{self, File};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::fs::Advice;
use rustix::mount::MountFlags;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::mounted::{Mounted, can_mount, command, give_back, is_mounted, run, start, wait_until};
use crate::stores::handmade::{CREATED, DataRoot};
use crate::stores::sample::{noise, write};

/// Held by who drops the machine's caches, and by who looks what is in them.
pub(crate) static CACHES: Mutex<()> = Mutex::new(());

const DIRECTORIES: u32 = 8;
const FILES: u32 = 60;

/// A store whose image `many:1` has small files in many directories.
fn many() -> (tempfile::TempDir, DataRoot) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut root = DataRoot::create(dir.path());
    let base = root.layer(None, |dir| {
        for number in 0..DIRECTORIES * FILES {
            write(dir, &name(number), &bytes(number));
        }
    });
    let image = root.image(&[&base], CREATED);
    root.tag("many:1", &image);
    (dir, root)
}

fn name(number: u32) -> String {
    format!("d{:02}/f{:02}", number / FILES, number % FILES)
}

/// From nothing to more than a page ends with, some large.
fn bytes(number: u32) -> Vec<u8> {
    noise(number, if number % 25 == 24 { 1_200_000 } else { number as usize * 53 % 9_000 })
}

/// Reads the files in the order of `numbers`, and compares them with what they should be. Fails
/// where they can't be read.
fn walk(rootfs: &Path, numbers: impl Iterator<Item = u32>) -> io::Result<()> {
    for number in numbers {
        let read = fs::read(rootfs.join(name(number)))?;
        assert!(read == bytes(number), "{}", name(number));
    }
    Ok(())
}

/// Four readers at once, each with an order of its own.
fn walk_by_four(rootfs: &Path) -> Vec<io::Result<()>> {
    let all = DIRECTORIES * FILES;
    thread::scope(|scope| {
        let readers = [
            scope.spawn(move || walk(rootfs, 0..all)),
            scope.spawn(move || walk(rootfs, (0..all).chain(0..all))),
            scope.spawn(move || walk(rootfs, (0..all).rev())),
            scope.spawn(move || walk(rootfs, (0..all).map(|number| number * 7 % all))),
        ];
        readers.map(|reader| reader.join().unwrap()).into()
    })
}

/// Lets the kernel drop what it has, over and over, until `is_over`.
fn forget_all(rootfs: &Path, is_over: &AtomicBool) {
    for round in 0.. {
        for number in 0..DIRECTORIES * FILES {
            if is_over.load(Ordering::Relaxed) {
                return;
            }
            if let Ok(file) = File::open(rootfs.join(name(number))) {
                rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).unwrap();
            }
        }
        if round % 8 == 0 {
            fs::write("/proc/sys/vm/drop_caches", "2").unwrap(); // names and inodes
        }
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn pushed_bytes_are_the_files_bytes_whoever_walks_and_whatever_is_dropped() {
    if !can_mount() {
        return;
    }
    let _dropped = CACHES.lock().unwrap_or_else(PoisonError::into_inner);
    let (dir, _root) = many();
    for _ in 0..2 {
        let mounted = Mounted::new(dir.path());
        let rootfs = mounted.at("images/many:1/rootfs");
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| forget_all(&rootfs, &is_over));
            let walked = walk_by_four(&rootfs);
            is_over.store(true, Ordering::Relaxed);
            walked.into_iter().for_each(Result::unwrap);
        });
    }
}

#[test]
fn unmounting_while_contents_are_pushed_ends_everybody() {
    if !can_mount() {
        return;
    }
    let (dir, _root) = many();
    for round in 0..10 {
        let mut mounted = Mounted::new(dir.path());
        let rootfs = mounted.at("images/many:1/rootfs");
        thread::scope(|scope| {
            let walkers = scope.spawn(|| walk_by_four(&rootfs));
            thread::sleep(Duration::from_millis(round * 7));
            give_back(mounted.path());
            // Those who were inside go on, others find nothing; a wrong byte is a panic.
            let _ = walkers.join().unwrap();
        });
        assert_eq!(mounted.daemon().wait().unwrap().code(), Some(0));
    }
}

/// A mount whose daemon tells what it pushes.
struct Talkative {
    mounted: Mounted,
    rootfs: PathBuf,
    log: tempfile::NamedTempFile,
}

impl Talkative {
    fn new(store: &Path) -> Talkative {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut command = command(store, &[]);
        command.env("RUST_LOG", "stratafs::fuse=debug").stderr(log.reopen().unwrap());
        let mounted = Mounted::by(&mut command);
        let rootfs = mounted.at("images/many:1/rootfs");
        Talkative { mounted, rootfs, log }
    }

    /// How often it pushed.
    fn pushes(&self) -> usize {
        fs::read_to_string(self.log.path()).unwrap().matches(": pushed ").count()
    }

    fn is_cached(&self, number: u32) -> bool {
        let options = ["--noheadings", "--bytes", "--output", "RES"];
        let path = self.rootfs.join(name(number));
        let output = Command::new("fincore").args(options).arg(path).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim() != "0"
    }

    /// Unmounts, and sees how the daemon ends.
    fn end(mut self) {
        give_back(self.mounted.path());
        assert!(self.mounted.daemon().wait().unwrap().success());
    }
}

fn is_small(number: u32) -> bool {
    (1..1 << 20).contains(&bytes(number).len())
}

#[test]
fn who_reads_two_files_in_order_is_given_the_rest_and_who_only_looks_is_given_nothing() {
    if !can_mount() {
        return;
    }
    let _looked_at = CACHES.lock().unwrap_or_else(PoisonError::into_inner);
    let (dir, _root) = many();
    let talkative = Talkative::new(dir.path());
    let rootfs = &talkative.rootfs;

    let found = Command::new("find").arg(talkative.mounted.path()).arg("-ls").output().unwrap();
    assert!(found.status.success());
    walk(rootfs, (0..DIRECTORIES).map(|number| number * FILES)).unwrap(); // one in each
    walk(rootfs, [7, 2].into_iter()).unwrap(); // not in order
    assert_eq!(talkative.pushes(), 0);
    assert!(!talkative.is_cached(FILES + 3));

    walk(rootfs, [FILES + 1, FILES + 2].into_iter()).unwrap();
    wait_until("the rest", || talkative.pushes() == 1);
    for number in FILES + 3..2 * FILES {
        assert_eq!(talkative.is_cached(number), is_small(number), "{}", name(number));
    }
    assert!(!talkative.is_cached(2 * FILES + 2), "another directory");
    walk(rootfs, FILES..2 * FILES).unwrap();
    talkative.end();
}

#[test]
fn who_has_read_in_two_directories_is_given_all_of_the_next_and_who_lists_alone_is_not() {
    if !can_mount() {
        return;
    }
    let _looked_at = CACHES.lock().unwrap_or_else(PoisonError::into_inner);
    let (dir, _root) = many();
    let talkative = Talkative::new(dir.path());
    let rootfs = &talkative.rootfs;
    let list = |number: u32| fs::read_dir(rootfs.join(format!("d{number:02}"))).unwrap().count();

    for number in 0..2 {
        assert_eq!(list(number), FILES as usize);
        walk(rootfs, number * FILES + 1..number * FILES + 3).unwrap();
        wait_until("the rest", || talkative.pushes() == number as usize + 1);
    }
    let found = Command::new("find").arg(rootfs.join("d02")).arg("-ls").output().unwrap();
    assert!(found.status.success(), "another process");
    assert_eq!(list(3), FILES as usize);
    wait_until("all of it", || talkative.pushes() == 3);
    for number in 2 * FILES..4 * FILES {
        let is_given = number >= 3 * FILES && is_small(number);
        assert_eq!(talkative.is_cached(number), is_given, "{}", name(number));
    }
    walk(rootfs, 2 * FILES..4 * FILES).unwrap();
    talkative.end();
}

/// Ends the readers when the test does.
struct Readers(Vec<std::process::Child>);

impl Drop for Readers {
    fn drop(&mut self) {
        for reader in &mut self.0 {
            let _ = reader.kill(); // it may be over
            let _ = reader.wait();
        }
    }
}

/// With whoever looks at the mount afterwards, and by nobody's help but the guard's.
#[test]
fn a_daemon_that_is_killed_while_it_pushes_leaves_nobody_hanging() {
    if !can_mount() {
        return;
    }
    let (dir, _root) = many();
    for round in 0..24 {
        let mut mounted = Mounted::new(dir.path());
        let point = mounted.path().to_owned();
        let rootfs = mounted.at("images/many:1/rootfs");
        let reader = |_| {
            let mut find = Command::new("find");
            find.arg(&rootfs).args(["-type", "f", "-exec", "cat", "{}", "+"]);
            find.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        };
        let mut readers = Readers((0..3).map(reader).collect());
        thread::sleep(Duration::from_millis(20 + round * 5));
        mounted.daemon().kill().unwrap();
        let umount = |options: &[&str]| {
            let arguments = [&["umount"], options, &[point.to_str().unwrap()]].concat();
            let umounted = run(&arguments.iter().map(AsRef::as_ref).collect::<Vec<_>>());
            assert_eq!(umounted.status.code(), Some(0), "{umounted:?}");
        };
        let is_at_once = round % 2 == 0;
        if is_at_once {
            umount(&["--lazy"]);
        }
        wait_until("the end of the daemon", || mounted.daemon().try_wait().unwrap().is_some());
        for reader in &mut readers.0 {
            wait_until("the end of a reader", || reader.try_wait().unwrap().is_some());
        }
        if !is_at_once {
            umount(&[]);
        }
    }
}

/// A mount whose device nobody has open, and that the kernel holds for living: it is under way in a
/// socket, which is returned. That is how it is with a daemon that was killed while it waited.
fn orphan(point: &Path) -> UnixStream {
    let device = File::options().read(true).write(true).open("/dev/fuse").unwrap();
    let data = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
    let data = std::ffi::CString::new(data).unwrap();
    rustix::mount::mount("orphan", point, "fuse.stratafs", MountFlags::RDONLY, &*data).unwrap();
    let (ours, its) = UnixStream::pair().unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let devices = [device.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&devices)));
    sendmsg(&its, &[IoSlice::new(b"x")], &mut control, SendFlags::empty()).unwrap();
    ours
}

#[test]
fn a_mount_with_nobody_to_answer_is_ended_by_umount_and_by_the_next_mount() {
    if !can_mount() {
        return;
    }
    let (dir, _root) = many();
    let place = tempfile::tempdir().unwrap();
    let look = |point: PathBuf| thread::spawn(move || fs::read_dir(point).map(drop));

    let _device = orphan(place.path());
    let reader = look(place.path().to_owned());
    let umounted = run(&["umount".as_ref(), place.path().as_ref()]);
    assert_eq!(umounted.status.code(), Some(0), "{umounted:?}");
    assert!(reader.join().unwrap().is_err(), "it hung until the mount was ended");

    let _device = orphan(place.path());
    let reader = look(place.path().to_owned());
    let mut daemon = start(dir.path(), place.path(), &[]);
    wait_until("the mount", || reader.is_finished() && is_mounted(place.path()));
    assert!(reader.join().unwrap().is_err());
    give_back(place.path());
    assert!(daemon.wait().unwrap().success());
}

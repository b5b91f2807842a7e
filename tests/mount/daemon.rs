//! How the daemon comes, goes and refuses.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::mounted::{
    Mounted, STRATAFS, can_mount, give_back, is_mounted, options_of, run, start, wait_until,
};
use crate::stores::sample::{Sample, sample};

/// A user who owns nothing.
const NOBODY: u32 = 65_534;

fn mountable() -> Option<Sample> {
    if can_mount() { sample() } else { None }
}

/// An empty directory that has nothing mounted on it when the test is over.
struct Point(tempfile::TempDir);

impl Point {
    fn new() -> Point {
        Point(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Point {
    fn drop(&mut self) {
        give_back(self.path());
    }
}

fn mount(store: &Path, point: &Path) -> Output {
    run(&["mount".as_ref(), store.as_ref(), point.as_ref()])
}

/// The processes that serve a mount at `point`: those with it in their command line.
fn daemons(point: &Path) -> Vec<Pid> {
    let wanted = point.to_str().unwrap();
    let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let serves = |path: &PathBuf| {
        let line = fs::read(path.join("cmdline")).unwrap_or_default();
        let mut words = line.split(|&byte| byte == 0);
        words.any(|word| word == wanted.as_bytes())
    };
    let found = processes.filter(serves);
    found.filter_map(|path| Pid::from_raw(path.file_name()?.to_str()?.parse().ok()?)).collect()
}

#[test]
fn mount_returns_when_the_tree_can_be_used_and_umount_ends_the_daemon() {
    let Some(sample) = mountable() else { return };
    let point = Point::new();
    let mounted = mount(sample.path(), point.path());
    assert_eq!(mounted.status.code(), Some(0), "{mounted:?}");
    assert!(mounted.stdout.is_empty());
    assert_eq!(fs::read_dir(point.path().join("images")).unwrap().count(), 4);
    assert_eq!(daemons(point.path()).len(), 1);
    let open = File::open(point.path().join("images/app:1/save.tar")).unwrap();
    let umount = |option: Option<&str>| {
        let arguments: Vec<&OsStr> = [Some("umount"), option, point.path().to_str()]
            .into_iter()
            .flatten()
            .map(OsStr::new)
            .collect();
        run(&arguments).status.code()
    };
    assert_eq!(umount(None), Some(1), "a file is open");
    drop(open);
    assert_eq!(umount(None), Some(0));
    assert_eq!(fs::read_dir(point.path()).unwrap().count(), 0);
    wait_until("the end of the daemon", || daemons(point.path()).is_empty());
    assert_eq!(umount(None), Some(32));
    assert_eq!(mount(sample.path(), point.path()).status.code(), Some(0));
    let _open = File::open(point.path().join("images/app:1/save.tar")).unwrap();
    assert_eq!(umount(Some("--lazy")), Some(0));
}

#[test]
fn a_daemon_says_in_its_log_what_it_does() {
    let Some(sample) = mountable() else { return };
    let point = Point::new();
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    fs::write(&log, "of yesterday\n").unwrap();
    let (store, at) = (sample.path().as_os_str(), point.path().as_os_str());
    let words = ["mount", "-vvv", "--log"].map(OsStr::new);
    let mounted = run(&[&words[..], &[log.as_os_str(), store, at]].concat());
    assert_eq!(mounted.status.code(), Some(0), "{mounted:?}");
    assert!(mounted.stderr.is_empty(), "{mounted:?}");
    fs::read(point.path().join("images/app:1/save.tar")).unwrap();
    assert_eq!(run(&["umount".as_ref(), at]).status.code(), Some(0));
    let said = || fs::read_to_string(&log).unwrap();
    wait_until("the last line", || said().contains(": unmounted"));
    let said = said();
    assert!(said.starts_with("of yesterday\n") && said.contains(": mounted"), "{said}");
    let layer = said.lines().find(|line| line.contains("make archive{archive=\"layer "));
    assert!(layer.unwrap().contains("DEBUG") && layer.unwrap().contains("time.busy="), "{said}");
    let read = said.lines().find(|line| line.contains("request{request=\"read\" ino="));
    assert!(read.unwrap().contains("TRACE"), "{said}");
    let refused = run(&[&words[..], &[dir.path().as_os_str(), store, at]].concat());
    assert_eq!(refused.status.code(), Some(1), "a directory is no log: {refused:?}");
}

#[test]
fn sigterm_unmounts() {
    let Some(sample) = mountable() else { return };
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut mounted = Mounted::new(sample.path());
        let daemon = Pid::from_child(mounted.daemon());
        kill_process(daemon, signal).unwrap();
        let status = mounted.daemon().wait().unwrap();
        assert_eq!(status.code(), Some(0), "{signal:?}");
        assert_eq!(options_of(mounted.path()), None, "{signal:?}");
    }
}

#[test]
fn a_mount_whose_daemon_was_killed_is_healed_by_the_next() {
    let Some(sample) = mountable() else { return };
    let mut mounted = Mounted::new(sample.path());
    for _ in 0..3 {
        let whole = fs::read(mounted.at("images/app:1/save.tar")).unwrap();
        assert!(!whole.is_empty());
        mounted.daemon().kill().unwrap();
        mounted.daemon().wait().unwrap();
        let dead = fs::read_dir(mounted.path()).unwrap_err();
        assert_eq!(dead.raw_os_error(), Some(libc::ENOTCONN));
        *mounted.daemon() = start(sample.path(), mounted.path(), &[]);
        wait_until("the mount", || is_mounted(mounted.path()));
    }
    mounted.daemon().kill().unwrap();
    mounted.daemon().wait().unwrap();
    let umounted = run(&["umount".as_ref(), mounted.path().as_ref()]);
    assert_eq!(umounted.status.code(), Some(0), "a dead mount is given back too");
    assert_eq!(options_of(mounted.path()), None);
}

#[test]
fn reading_writes_nothing_to_disk() {
    let Some(sample) = mountable() else { return };
    let read_all = || {
        let mut mounted = Mounted::with(sample.path(), &["--cache-size", "0"]);
        for name in ["images/app/save.tar", "images/app:1/export.tar", "containers/web/export.tar"]
        {
            assert!(fs::read(mounted.at(name)).unwrap().len() > 70_000, "{name}");
        }
        let io = fs::read_to_string(format!("/proc/{}/io", mounted.daemon().id())).unwrap();
        io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).unwrap().to_owned()
    };
    // The kernel notes that a symlink, or a new program, was read for the first time.
    read_all();
    assert_eq!(read_all(), "0");
}

#[test]
fn each_refusal_has_its_own_exit_status() {
    let Some(sample) = mountable() else { return };
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for name in ["empty", "other/image/zfs/layerdb/sha256", "full/file"] {
        fs::create_dir_all(at(name)).unwrap();
    }
    fs::write(at("file"), "").unwrap();
    let inside = sample.path().join("point");
    fs::create_dir(&inside).unwrap();
    let (store, empty) = (sample.path().to_owned(), at("empty"));
    let parent = store.parent().unwrap().to_owned();
    for (status, source, point) in [
        (20, at("missing"), &empty),
        (21, at("full"), &empty),
        (23, at("other"), &empty),
        (10, store.clone(), &at("missing")),
        (11, store.clone(), &at("file")),
        (12, store.clone(), &at("full")),
        (13, store.clone(), &inside),
        (13, store.clone(), &store),
        (13, store.clone(), &parent),
    ] {
        let output = mount(&source, point);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{}: {said}", source.display());
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(output.stdout.is_empty());
    }
    for arguments in
        [&["mount"][..], &["mount", "--frobnicate", "x"], &["mount", "-o", "suid", "x"]]
    {
        let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
        assert_eq!(run(&arguments).status.code(), Some(2), "{arguments:?}");
    }
    let umounted = run(&["umount".as_ref(), empty.as_ref()]);
    assert_eq!(umounted.status.code(), Some(32));
    assert_eq!(options_of(&empty), None);
}

#[test]
fn a_user_is_told_what_may_not_be_read_or_mounted() {
    let Some(sample) = mountable() else { return };
    // Where that user can run it.
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let program = dir.path().join("stratafs");
    fs::copy(STRATAFS, &program).unwrap();
    let point = dir.path().join("point");
    fs::create_dir(&point).unwrap();
    chown(&point, Some(NOBODY), Some(NOBODY)).unwrap();
    let store = dir.path().join("store");
    let copied = Command::new("cp").arg("-a").arg(sample.path()).arg(&store).status().unwrap();
    assert!(copied.success());
    let mount = |options: &[&str]| {
        let mut command = Command::new(&program);
        command.arg("mount").args(options).arg(&store).arg(&point);
        command.uid(NOBODY).gid(NOBODY).stdin(Stdio::null()).output().unwrap()
    };
    fs::set_permissions(&store, Permissions::from_mode(0o700)).unwrap();
    let refused = mount(&[]);
    assert_eq!(refused.status.code(), Some(22), "{refused:?}");
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("permission denied") && said.contains("root"), "{said}");
    fs::set_permissions(&store, Permissions::from_mode(0o755)).unwrap();
    let may_allow = fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    if !may_allow.lines().any(|line| line.trim() == "user_allow_other") {
        assert_eq!(mount(&["-o", "allow_other"]).status.code(), Some(31));
    }
    assert_eq!(options_of(&point), None);
}

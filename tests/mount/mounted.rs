//! A mount that is gone when the test is over, however it ends.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::mount::UnmountFlags;
use tempfile::TempDir;

/// How long the daemon may take for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// The program.
pub(crate) const STRATAFS: &str = env!("CARGO_BIN_EXE_stratafs");

/// Whether mounts can be made here; says so where they can't.
pub(crate) fn can_mount() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    let has_fuse = fs::File::options().read(true).write(true).open("/dev/fuse").is_ok();
    if !is_root || !has_fuse {
        eprintln!("skipped: mounting needs root and /dev/fuse");
    }
    is_root && has_fuse
}

/// A store, mounted by a daemon that stays in the foreground.
#[derive(Debug)]
pub(crate) struct Mounted {
    point: TempDir,
    daemon: Child,
}

impl Mounted {
    pub(crate) fn new(store: &Path) -> Mounted {
        Mounted::with(store, &[])
    }

    pub(crate) fn with(store: &Path, options: &[&str]) -> Mounted {
        Mounted::by(&mut command(store, options))
    }

    /// What `command`, which is still to be told where, mounts.
    pub(crate) fn by(command: &mut Command) -> Mounted {
        let point = tempfile::tempdir().unwrap();
        let daemon = command.arg(point.path()).spawn().unwrap();
        let mounted = Mounted { point, daemon };
        wait_until("the mount", || is_mounted(mounted.path()));
        mounted
    }

    pub(crate) fn path(&self) -> &Path {
        self.point.path()
    }

    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.path().join(path)
    }

    pub(crate) fn daemon(&mut self) -> &mut Child {
        &mut self.daemon
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        give_back(self.path());
        // It ends by itself, but not if the test broke it; either way nothing is left.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// A daemon that stays in the foreground, and is still to be told where to mount.
pub(crate) fn command(store: &Path, options: &[&str]) -> Command {
    let mut command = Command::new(STRATAFS);
    command.args(["mount", "--foreground"]).args(options).arg(store);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Starts a daemon that stays in the foreground.
pub(crate) fn start(store: &Path, point: &Path, options: &[&str]) -> Child {
    command(store, options).arg(point).spawn().unwrap()
}

/// Takes away whatever is mounted at `point`.
pub(crate) fn give_back(point: &Path) {
    while rustix::mount::unmount(point, UnmountFlags::DETACH).is_ok() {}
}

/// Runs the program to its end.
pub(crate) fn run(arguments: &[&OsStr]) -> Output {
    Command::new(STRATAFS).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// Whether a stratafs that answers is mounted at `point`.
pub(crate) fn is_mounted(point: &Path) -> bool {
    options_of(point).is_some() && point.join("README").exists()
}

/// The options of the mount at `point`, as the kernel tells them: those of the mount, and those of
/// the file system.
pub(crate) fn options_of(point: &Path) -> Option<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table.lines().find(|line| line.split(' ').nth(4) == point.to_str())?;
    let is_ours = line.contains(" - fuse.stratafs ");
    let own = line.split(' ').nth(5).unwrap();
    is_ours.then(|| format!("{own},{}", line.rsplit(' ').next().unwrap()))
}

pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{what} does not come");
        thread::sleep(Duration::from_millis(10));
    }
}

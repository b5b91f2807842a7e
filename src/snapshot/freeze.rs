//! A container's processes stopped by their cgroup, version 1 or 2, and set going again whatever
//! happens.
//!
//! Nobody may be left frozen: not when the copy fails, and not when this process is killed. So a
//! second process, this program started again, waits at the other end of a pipe: where the pipe ends
//! before it was told that all is well, it thaws.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::digest::ContainerId;
use crate::error::{Error, Result};

/// How long the kernel may take to stop all processes of a container.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often it is asked whether it did.
const PAUSE: Duration = Duration::from_millis(2);

/// The command by which this program becomes the one that waits.
pub const GUARD: &str = "thaw-if-orphaned";

/// The word that tells it that nothing is left to do.
const DONE: &[u8] = b"done";

/// The cgroup of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    /// Its directory.
    directory: PathBuf,
    version: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Cgroup {
    /// The cgroup that the process `pid` is in, if it is that of the container: the path of a
    /// container's cgroup has its ID in it, and a number of a process that is long gone may be
    /// another's.
    ///
    /// # Errors
    /// ESRCH where there is no such process, or it is none of the container's.
    pub fn of(pid: u32, container: ContainerId) -> Result<Cgroup> {
        let path = format!("/proc/{pid}/cgroup");
        let gone = || Error::errno_of(format!("container {container}"), Errno::SRCH);
        let lines = fs::read(&path).map_err(|_| gone())?;
        let mounts = fs::read("/proc/self/mountinfo")
            .map_err(|err| Error::io("/proc/self/mountinfo", err))?;
        let found = find(&lines, &mounts).filter(|cgroup| {
            let path = cgroup.directory.as_os_str().as_bytes();
            let id = container.hex();
            path.windows(id.len()).any(|part| part == id.as_bytes())
        });
        found.ok_or_else(gone)
    }

    /// Stops every process in it. `None` where they are stopped already, by somebody who will set
    /// them going again.
    ///
    /// # Errors
    /// EBUSY where they can't be stopped within ten seconds, and what the kernel says.
    pub fn freeze(&self) -> Result<Option<Frozen>> {
        if self.is_frozen()? {
            return Ok(None);
        }
        let guard = Guard::start(self)?;
        let frozen = Frozen { cgroup: self.clone(), guard: Some(guard) };
        let start = Instant::now();
        loop {
            self.write(true)?;
            if self.is_frozen()? {
                return Ok(Some(frozen));
            }
            if start.elapsed() > PATIENCE {
                let why = "its processes can't be stopped: one of them waits for a device";
                return Err(Error::busy(&self.directory, why));
            }
            thread::sleep(PAUSE);
        }
    }

    fn is_frozen(&self) -> Result<bool> {
        let (file, sign) = match self.version {
            Version::One => ("freezer.state", "FROZEN"),
            Version::Two => ("cgroup.events", "frozen 1"),
        };
        let path = self.directory.join(file);
        let text = fs::read_to_string(&path).map_err(|err| Error::io(path, err))?;
        Ok(text.lines().any(|line| line == sign))
    }

    fn write(&self, is_frozen: bool) -> Result<()> {
        let (file, word) = match (self.version, is_frozen) {
            (Version::One, true) => ("freezer.state", "FROZEN"),
            (Version::One, false) => ("freezer.state", "THAWED"),
            (Version::Two, true) => ("cgroup.freeze", "1"),
            (Version::Two, false) => ("cgroup.freeze", "0"),
        };
        let path = self.directory.join(file);
        fs::write(&path, word).map_err(|err| Error::io(path, err))
    }
}

/// Processes that are stopped; dropping this sets them going.
#[derive(Debug)]
pub struct Frozen {
    cgroup: Cgroup,
    guard: Option<Guard>,
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let is_thawed = match self.cgroup.write(false) {
            Ok(()) => true,
            // A container that has ended has no cgroup.
            Err(err) if err.is_not_found() => true,
            Err(err) => {
                tracing::error!("not thawed: {err}");
                false
            }
        };
        if let Some(guard) = self.guard.take() {
            guard.end(is_thawed);
        }
    }
}

/// The process that thaws where this one can't.
#[derive(Debug)]
struct Guard {
    process: Child,
    pipe: ChildStdin,
}

impl Guard {
    fn start(cgroup: &Cgroup) -> Result<Guard> {
        let failed = |err| Error::io("/proc/self/exe", err);
        let mut process = Command::new("/proc/self/exe")
            .arg(GUARD)
            .arg(&cgroup.directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        match process.stdin.take() {
            Some(pipe) => Ok(Guard { process, pipe }),
            None => Err(failed(io::Error::other("no pipe"))),
        }
    }

    /// Ends it; it thaws what is not.
    fn end(mut self, is_thawed: bool) {
        if is_thawed {
            // Where it is gone already, nothing is left to do either.
            let _ = self.pipe.write_all(DONE);
        }
        drop(self.pipe);
        let _ = self.process.wait();
    }
}

/// What the guard does: waits for the end of its input, and thaws the cgroup in `directory` unless
/// it was told that all is well.
///
/// # Errors
/// Fails when the cgroup can't be thawed.
pub fn thaw_if_orphaned(directory: &Path) -> Result<()> {
    let mut word = Vec::new();
    // What can't be read says nothing, and nothing means: thaw.
    let _ = io::stdin().read_to_end(&mut word);
    if word == DONE {
        return Ok(());
    }
    let version = match directory.join("cgroup.freeze").exists() {
        true => Version::Two,
        false => Version::One,
    };
    Cgroup { directory: directory.to_owned(), version }.write(false)
}

/// The cgroup that the lines of `/proc/PID/cgroup` tell of, with a freezer: of version 1 where that
/// hierarchy is mounted, else of version 2 (cgroups(7)).
fn find(lines: &[u8], mounts: &[u8]) -> Option<Cgroup> {
    let lines: Vec<_> = lines.split(|&byte| byte == b'\n').filter_map(membership).collect();
    let of = |version: Version, is_it: &dyn Fn(&[u8]) -> bool| {
        let path = lines.iter().find(|(controllers, _)| is_it(controllers))?.1;
        let mount = mounts.split(|&byte| byte == b'\n').find_map(|line| mounted(line, version))?;
        let path = std::ffi::OsStr::from_bytes(path.strip_prefix(b"/")?);
        Some(Cgroup { directory: mount.join(path), version })
    };
    let has_freezer =
        |controllers: &[u8]| controllers.split(|&byte| byte == b',').any(|name| name == b"freezer");
    of(Version::One, &has_freezer)
        .or_else(|| of(Version::Two, &|controllers| controllers.is_empty()))
}

/// Controllers and path of a line `7:freezer:/docker/...`.
fn membership(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut fields = line.splitn(3, |&byte| byte == b':');
    let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    let is_inside = !path.split(|&byte| byte == b'/').any(|name| name == b"..");
    is_inside.then_some((controllers, path))
}

/// Where a line of mountinfo(5) mounts the whole of a hierarchy with a freezer.
fn mounted(line: &[u8], version: Version) -> Option<PathBuf> {
    let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    let dash = fields.iter().position(|&field| field == b"-")?;
    let (root, point) = (fields.get(3)?, fields.get(4)?);
    let (kind, options) = (fields.get(dash + 1)?, fields.get(dash + 3)?);
    let fits = match version {
        Version::One => {
            *kind == b"cgroup" && options.split(|&byte| byte == b',').any(|word| word == b"freezer")
        }
        Version::Two => *kind == b"cgroup2",
    };
    (fits && *root == b"/").then(|| std::ffi::OsStr::from_bytes(point).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &[u8] = b"\
30 23 0:26 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw
31 23 0:27 /inner /elsewhere rw - cgroup cgroup rw,freezer
32 23 0:27 / /sys/fs/cgroup/freezer rw shared:9 - cgroup cgroup rw,freezer
";

    #[test]
    fn a_cgroup_is_found_in_either_version() {
        let mixed =
            b"7:freezer:/docker/abc\n1:name=systemd:/x\n0::/system.slice/docker-abc.scope\n";
        let found = find(mixed, MOUNTS).unwrap();
        assert_eq!(found.directory, Path::new("/sys/fs/cgroup/freezer/docker/abc"));
        assert_eq!(found.version, Version::One);
        let unified = b"0::/system.slice/docker-abc.scope\n";
        let found = find(unified, MOUNTS).unwrap();
        let path = "/sys/fs/cgroup/unified/system.slice/docker-abc.scope";
        assert_eq!((found.directory.as_path(), found.version), (Path::new(path), Version::Two));
        assert_eq!(find(b"7:freezer:/../../etc\n", MOUNTS), None);
        assert_eq!(find(b"3:cpu:/docker/abc\n", MOUNTS), None);
        assert_eq!(find(mixed, b""), None);
    }

    #[test]
    fn a_process_of_another_is_no_container_s() {
        let id = ContainerId::from_hex(&"a".repeat(64)).unwrap();
        let err = Cgroup::of(std::process::id(), id).unwrap_err();
        assert_eq!(err.errno(), Errno::SRCH);
    }
}

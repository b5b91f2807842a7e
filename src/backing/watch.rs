//! News that something happened in directories of a store, from the kernel (inotify(7)).
//!
//! What makes it hard, and what answers it:
//! 1. Events are lost where there are too many of them, and a watch is where its directory is renamed
//!    or removed. So an event only says *that* something happened: whoever hears of it looks for
//!    himself, and names all directories again ([`Watch::set`]).
//! 2. Something may happen in a new directory before it is watched. [`Watch::set`] says whether there
//!    was a new one, after which one has to look once more.
//! 3. Nothing is heard of what another host does. Only file systems that are this host's own are
//!    watched.
//! 4. Watches are few, and shared with all programs of the user: there is a limit of ours, too.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::PipeReader;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

use super::{Dir, Place};
use crate::error::{Error, Result};

/// How many directories are watched at most; the kernel keeps about 1 KiB for each.
const WATCHES: usize = 4096;

/// Types of file systems on which nothing changes unheard (Linux `magic.h`; statfs(2)): ext4 and its
/// elders, XFS, Btrfs, tmpfs, F2FS, bcachefs, ZFS, overlayfs.
const OWN: [u32; 8] = [
    0xef53,
    0x5846_5342,
    0x9123_683e,
    0x0102_1994,
    0xf2f5_2010,
    0xca45_1a4e,
    0x2fc1_2fc1,
    0x794c_7630,
];

/// A directory to watch.
#[derive(Debug)]
pub enum Watched {
    /// What is in it: names that come and go, files that somebody has written and closed.
    Names(Dir),
    /// The same, and each write to a file in it.
    Writes(Dir),
}

/// What ended a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Something happened.
    News,
    /// Nothing did, for as long as was asked for.
    Silence,
    /// Nobody wants to know any more.
    End,
}

/// Directories that are watched.
#[derive(Debug)]
pub struct Watch {
    inotify: OwnedFd,
    /// The kernel's number for each directory.
    known: BTreeSet<i32>,
}

impl Watch {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// EMFILE where the user has as many as he may have.
    pub fn new() -> Result<Watch> {
        let inotify =
            inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(failed)?;
        Ok(Watch { inotify, known: BTreeSet::new() })
    }

    /// Watches these directories from now on, and no others; true where one was not watched before.
    ///
    /// # Errors
    /// ENOSPC where there are more than may be watched, EOPNOTSUPP where one is on a file system that
    /// changes unheard.
    pub fn set(&mut self, directories: &[Watched]) -> Result<bool> {
        if directories.len() > WATCHES {
            return Err(failed(Errno::NOSPC));
        }
        let mut numbers = BTreeSet::new();
        for watched in directories {
            numbers.insert(self.add(watched)?);
        }
        for gone in self.known.difference(&numbers) {
            // EINVAL where it went by itself, with its directory.
            let _ = inotify::remove_watch(&self.inotify, *gone);
        }
        let is_new = !numbers.is_subset(&self.known);
        self.known = numbers;
        Ok(is_new)
    }

    fn add(&self, watched: &Watched) -> Result<i32> {
        let names = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVE
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        let (dir, events) = match watched {
            Watched::Names(dir) => (dir, names),
            Watched::Writes(dir) => (dir, names | WatchFlags::MODIFY | WatchFlags::ATTRIB),
        };
        let Place::Disk(fd) = &dir.place else {
            return Err(Error::errno_of(dir.path(), Errno::OPNOTSUPP));
        };
        let kind = rustix::fs::fstatfs(fd).map_err(|err| Error::io(dir.path(), err))?.f_type;
        if !OWN.iter().any(|&own| i128::from(own) == i128::from(kind)) {
            return Err(Error::unsupported(dir.path(), "its file system tells of no changes"));
        }
        let path = dir.proc_path(OsStr::new(""))?;
        inotify::add_watch(&self.inotify, path, events).map_err(|err| Error::io(dir.path(), err))
    }

    /// Waits until something happens, until there is no writer of `end` any more, or for so long; for
    /// ever where that is `None`.
    ///
    /// # Errors
    /// Whatever the kernel says.
    pub fn wait(&self, end: &PipeReader, at_most: Option<Duration>) -> Result<Heard> {
        let time = at_most.map(|time| Timespec {
            tv_sec: time.as_secs().cast_signed(),
            tv_nsec: time.subsec_nanos().into(),
        });
        let mut fds = [PollFd::new(end, PollFlags::IN), PollFd::new(&self.inotify, PollFlags::IN)];
        loop {
            match rustix::event::poll(&mut fds, time.as_ref()) {
                Err(Errno::INTR) => {}
                Err(err) => return Err(failed(err)),
                Ok(0) => return Ok(Heard::Silence),
                Ok(_) if !fds[0].revents().is_empty() => return Ok(Heard::End),
                Ok(_) => return Ok(Heard::News),
            }
        }
    }

    /// Drops what is told already.
    ///
    /// # Errors
    /// Whatever the kernel says.
    pub fn drain(&self) -> Result<()> {
        let mut events = [0; 4096];
        loop {
            match rustix::io::read(&self.inotify, &mut events) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(err) => return Err(failed(err)),
            }
        }
    }
}

fn failed(err: Errno) -> Error {
    Error::io("inotify", err)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::path::Path;

    use super::*;
    use crate::backing::{Access, Root};

    const NOW: Option<Duration> = Some(Duration::ZERO);

    fn open(path: &Path) -> Dir {
        Root::open(path, Access::Live).unwrap().dir("").unwrap()
    }

    #[test]
    fn every_change_is_heard() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        ["names", "writes", "other"].iter().for_each(|name| fs::create_dir(at(name)).unwrap());
        let mut log = fs::File::create(at("names/log")).unwrap();
        let mut database = fs::File::create(at("writes/database")).unwrap();
        let (end, _keep) = std::io::pipe().unwrap();
        let mut watch = Watch::new().unwrap();
        let all = || vec![Watched::Names(open(&at("names"))), Watched::Writes(open(&at("writes")))];
        assert!(watch.set(&all()).unwrap() && !watch.set(&all()).unwrap());
        let after = |what: &str, change: &mut dyn FnMut()| {
            watch.drain().unwrap();
            assert_eq!(watch.wait(&end, NOW).unwrap(), Heard::Silence, "before {what}");
            change();
            watch.wait(&end, NOW).unwrap()
        };
        let heard = [
            after("a new name", &mut || drop(fs::File::create(at("names/a")).unwrap())),
            after("a file replaced", &mut || fs::rename(at("names/a"), at("names/b")).unwrap()),
            after("a removal", &mut || fs::remove_file(at("names/b")).unwrap()),
            after("a write to a database", &mut || database.write_all(b"x").unwrap()),
            after("a directory gone", &mut || fs::rename(at("names"), at("away")).unwrap()),
        ];
        assert_eq!(heard, [Heard::News; 5]);
        let unheard = [
            after("a write to a log", &mut || log.write_all(b"x").unwrap()),
            after("elsewhere", &mut || drop(fs::File::create(at("other/a")).unwrap())),
        ];
        assert_eq!(unheard, [Heard::Silence; 2]);
    }

    #[test]
    fn what_is_named_no_more_is_not_watched() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        [&one, &two].iter().for_each(|path| fs::create_dir(path).unwrap());
        let (end, keep) = std::io::pipe().unwrap();
        let mut watch = Watch::new().unwrap();
        assert!(watch.set(&[Watched::Names(open(&one)), Watched::Names(open(&two))]).unwrap());
        assert!(!watch.set(&[Watched::Names(open(&two))]).unwrap());
        watch.drain().unwrap();
        fs::write(one.join("x"), "x").unwrap();
        assert_eq!(watch.wait(&end, NOW).unwrap(), Heard::Silence);
        fs::write(two.join("x"), "x").unwrap();
        assert_eq!(watch.wait(&end, None).unwrap(), Heard::News);
        drop(keep);
        assert_eq!(watch.wait(&end, None).unwrap(), Heard::End);
    }

    #[test]
    fn what_changes_unheard_is_refused() {
        let mut watch = Watch::new().unwrap();
        let err = watch.set(&[Watched::Names(open(Path::new("/proc")))]).unwrap_err();
        assert_eq!(err.errno(), Errno::OPNOTSUPP);
        let dir = tempfile::tempdir().unwrap();
        let many: Vec<_> = (0..=WATCHES).map(|_| open(dir.path())).map(Watched::Names).collect();
        assert_eq!(watch.set(&many).unwrap_err().errno(), Errno::NOSPC);
    }
}

//! Snapshots of containers: copies of what they may write to, kept in a directory of ours.
//!
//! `STATE/CONTAINER-ID/NAME/` holds `diff/`, the writable layer; `volumes/N/`; `config` and
//! `host-config` as the engine had them; and `snapshot.json`, which says the rest. One is made in
//! `STATE/.making/` and renamed when it is whole, and goes the same way back, so nobody ever sees a
//! half one; what is left in `.making/` by a process that was killed goes at the next start.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{CWD, FlockOperation, RenameFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::backing::{Access, Fingerprint, Root};
use crate::digest::ContainerId;
use crate::error::{Error, Result};

mod copy;
mod freeze;
mod remove;

pub use freeze::{Cgroup, Frozen, GUARD, thaw_if_orphaned};

/// Where snapshots are made and unmade.
const MAKING: &str = ".making";

/// What says the rest of a snapshot.
const RECORD: &str = "snapshot.json";

/// The name of a file in `volumes/N`, where that holds one.
const FILE: &str = "file";

/// Largest record and largest config that is read, in bytes.
const FILE_MAX: u64 = 16 << 20;

/// Longest name of a snapshot, in bytes.
const NAME_MAX: usize = 200;

/// The directory of snapshots.
#[derive(Debug)]
pub struct Snapshots {
    path: PathBuf,
    /// How many a container may have.
    limit: usize,
    made: AtomicU64,
}

/// What a snapshot is made of.
#[derive(Debug)]
pub struct Original<'a> {
    /// The container.
    pub container: ContainerId,
    /// Its name.
    pub name: &'a str,
    /// What the engine's own file says of it.
    pub config: &'a [u8],
    /// Its `hostconfig.json`; empty where there is none.
    pub host_config: &'a [u8],
    /// Its writable directory.
    pub diff: &'a Root,
    /// What is mounted into it.
    pub volumes: &'a [Volume],
    /// The state that it is in, in the engine's word.
    pub state: &'a str,
    /// When, RFC 3339.
    pub time: &'a str,
    /// The cgroup that is stopped while the files are copied.
    pub cgroup: Option<&'a Cgroup>,
}

/// What is mounted into a container.
#[derive(Debug)]
pub struct Volume {
    /// Where in the container.
    pub destination: String,
    /// The directory that is mounted, or that holds the file that is.
    pub root: Arc<Root>,
    /// The file's name in it.
    pub file: Option<OsString>,
}

/// What `snapshot.json` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When it was taken, RFC 3339.
    pub time: String,
    /// The same to the nanosecond, since 1970: no two of a container share it.
    pub nanoseconds: u64,
    /// How the container was called.
    #[serde(default)]
    pub name: String,
    /// What the container was doing then.
    pub state: String,
    /// Whether its processes stood still meanwhile.
    pub is_frozen: bool,
    /// What `volumes/0`, `volumes/1`, ... are.
    pub volumes: Vec<Mounted>,
}

/// What one of `volumes/` is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mounted {
    /// Where in the container it is mounted.
    pub destination: String,
    /// Whether it is a file, `volumes/N/file`, and no directory.
    pub is_file: bool,
}

/// A snapshot.
#[derive(Debug)]
pub struct Snapshot {
    /// What was written of it.
    pub record: Record,
    root: Root,
}

impl Volume {
    fn record(&self) -> Mounted {
        Mounted { destination: self.destination.clone(), is_file: self.file.is_some() }
    }
}

impl Snapshots {
    /// The snapshots in `path`, which is made where it is missing; what was left half made is
    /// removed.
    ///
    /// # Errors
    /// Fails when the directory can't be made or written.
    pub fn open(path: &Path, limit: usize) -> Result<Snapshots> {
        make_private(&path.join(MAKING), true)?;
        // A daemon leaves its working directory.
        let path = fs::canonicalize(path).map_err(|err| Error::io(path, err))?;
        let snapshots = Snapshots { path, limit, made: AtomicU64::new(0) };
        let _lock = snapshots.lock()?;
        for entry in snapshots.list_making()? {
            // Another daemon may be at it.
            if let Some(_mine) = try_lock(&entry)? {
                remove::remove(&entry)?;
            }
        }
        Ok(snapshots)
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The containers that have any, by ID.
    ///
    /// # Errors
    /// Fails when the directory can't be read.
    pub fn containers(&self) -> Result<Vec<ContainerId>> {
        let failed = |err| Error::io(&self.path, err);
        let mut containers = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            containers.extend(name.to_str().and_then(|name| ContainerId::from_hex(name).ok()));
        }
        containers.sort_unstable();
        Ok(containers)
    }

    /// The names of a container's snapshots, sorted.
    ///
    /// # Errors
    /// Fails when the directory can't be read.
    pub fn names(&self, container: ContainerId) -> Result<Vec<String>> {
        let path = self.path.join(container.hex());
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(err) => return Err(Error::io(path, err)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|err| Error::io(&path, err))?;
            names.extend(entry.file_name().into_string().ok().filter(|name| is_name(name)));
        }
        names.sort_unstable();
        Ok(names)
    }

    /// A snapshot of a container by its name.
    ///
    /// # Errors
    /// ENOENT where there is none of that name; corrupt where its record can't be read.
    pub fn find(&self, container: ContainerId, name: &str) -> Result<Snapshot> {
        let path = self.place(container, name)?;
        let root = Root::open(&path, Access::Sealed)?;
        let record = root.read(RECORD, FILE_MAX)?;
        let record = serde_json::from_slice(&record)
            .map_err(|err| Error::corrupt(path.join(RECORD), err.to_string()))?;
        Ok(Snapshot { record, root })
    }

    /// Takes a snapshot. Where the original names a cgroup, its processes stand still until all of
    /// their files are copied.
    ///
    /// # Errors
    /// EINVAL for a bad name, EEXIST where it is taken, EDQUOT where the container has as many as it
    /// may; ENOSPC and the like, and then nothing is left of it.
    pub fn take(&self, name: &str, original: &Original<'_>) -> Result<()> {
        let place = self.place(original.container, name)?;
        let names = self.names(original.container)?;
        if names.iter().any(|known| known == name) {
            return Err(Error::errno_of(place, Errno::EXIST));
        }
        if names.len() >= self.limit {
            return Err(Error::errno_of(place, Errno::DQUOT));
        }
        let making = self.start()?;
        let frozen = original.cgroup.map(Cgroup::freeze).transpose()?;
        making.fill(original, original.cgroup.is_some())?;
        drop(frozen);
        making.sync()?;
        making.publish(&place)
    }

    /// Removes a snapshot.
    ///
    /// # Errors
    /// ENOENT where there is none of that name, and what the file system says.
    pub fn remove(&self, container: ContainerId, name: &str) -> Result<()> {
        let place = self.place(container, name)?;
        let making = self.start()?;
        let grave = making.path.join("gone");
        fs::rename(&place, grave).map_err(|err| Error::io(&place, err))?;
        // The last one takes the directory of its container with it.
        let _ = fs::remove_dir(self.path.join(container.hex()));
        Ok(())
    }

    fn place(&self, container: ContainerId, name: &str) -> Result<PathBuf> {
        let path = self.path.join(container.hex());
        match is_name(name) {
            true => Ok(path.join(name)),
            false => Err(Error::errno_of(path.join(name), Errno::INVAL)),
        }
    }

    /// A new directory to make a snapshot in, or to unmake one.
    fn start(&self) -> Result<Making> {
        let _lock = self.lock()?;
        loop {
            let number = self.made.fetch_add(1, Ordering::Relaxed);
            let path = self.path.join(MAKING).join(format!("{}-{number}", std::process::id()));
            match make_private(&path, false) {
                Ok(()) => {}
                Err(err) if err.errno() == Errno::EXIST => continue,
                Err(err) => return Err(err),
            }
            let lock = try_lock(&path)?.ok_or_else(|| Error::errno_of(&path, Errno::BUSY))?;
            return Ok(Making { path, _lock: lock });
        }
    }

    /// Held while a directory is made and locked, so that it is not taken for one left behind.
    fn lock(&self) -> Result<OwnedFd> {
        let path = self.path.join(MAKING);
        let open = File::open(&path).map_err(|err| Error::io(&path, err))?;
        rustix::fs::flock(&open, FlockOperation::LockExclusive)
            .map_err(|err| Error::io(path, err))?;
        Ok(open.into())
    }

    fn list_making(&self) -> Result<Vec<PathBuf>> {
        let path = self.path.join(MAKING);
        let entries = fs::read_dir(&path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let entries = entries.map_err(|err| Error::io(path, err))?;
        Ok(entries.into_iter().map(|entry| entry.path()).collect())
    }
}

/// A snapshot that is being made; dropped before it is published, nothing is left of it.
struct Making {
    path: PathBuf,
    _lock: OwnedFd,
}

impl Making {
    fn fill(&self, original: &Original<'_>, is_frozen: bool) -> Result<()> {
        self.copy(original.diff, "diff")?;
        make_private(&self.path.join("volumes"), false)?;
        for (index, volume) in original.volumes.iter().enumerate() {
            let name = format!("volumes/{index}");
            match &volume.file {
                None => self.copy(&volume.root, &name)?,
                Some(file) => {
                    let path = self.path.join(name);
                    make_private(&path, false)?;
                    copy::copy_file(&volume.root, file, &Root::open(&path, Access::Live)?, FILE)?;
                }
            }
        }
        let record = Record {
            time: original.time.to_owned(),
            nanoseconds: nanoseconds(),
            name: original.name.to_owned(),
            state: original.state.to_owned(),
            is_frozen,
            volumes: original.volumes.iter().map(Volume::record).collect(),
        };
        let record = serde_json::to_vec_pretty(&record)
            .map_err(|err| Error::io(self.path.join(RECORD), io::Error::from(err)))?;
        for (name, bytes) in [
            ("config", original.config),
            ("host-config", original.host_config),
            (RECORD, record.as_slice()),
        ] {
            let path = self.path.join(name);
            fs::write(&path, bytes).map_err(|err| Error::io(path, err))?;
        }
        Ok(())
    }

    fn copy(&self, from: &Root, name: &str) -> Result<()> {
        let path = self.path.join(name);
        make_private(&path, false)?;
        copy::copy(from, &Root::open(&path, Access::Live)?)
    }

    /// Waits until all of it is on the disk.
    fn sync(&self) -> Result<()> {
        let failed = |err: io::Error| Error::io(&self.path, err);
        let open = File::open(&self.path).map_err(failed)?;
        rustix::fs::syncfs(&open).map_err(|err| failed(err.into()))
    }

    fn publish(&self, place: &Path) -> Result<()> {
        let failed = |err: io::Error| Error::io(place, err);
        let Some(parent) = place.parent() else { return Ok(()) };
        loop {
            make_private(parent, true)?;
            match rustix::fs::renameat_with(CWD, &self.path, CWD, place, RenameFlags::NOREPLACE) {
                Ok(()) => break,
                Err(Errno::NOENT) => {} // the last other snapshot went meanwhile, and the directory
                Err(err) => return Err(failed(err.into())),
            }
        }
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed)
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        match remove::remove(&self.path) {
            Ok(()) => {}
            Err(err) if err.is_not_found() => {} // it was published
            Err(err) => tracing::warn!("left behind until the next start: {err}"),
        }
    }
}

impl Snapshot {
    /// The writable layer as it was.
    ///
    /// # Errors
    /// Fails when it is gone.
    pub fn diff(&self) -> Result<Arc<Root>> {
        self.root.sub("diff", Access::Sealed).map(Arc::new)
    }

    /// What was mounted into the container: the path there, and that of the copy.
    #[must_use]
    pub fn volumes(&self) -> Vec<(String, PathBuf)> {
        let volumes = self.record.volumes.iter().enumerate();
        let path = |(index, volume): (usize, &Mounted)| {
            let path = self.root.path().join(format!("volumes/{index}"));
            let path = if volume.is_file { path.join(FILE) } else { path };
            (volume.destination.clone(), path)
        };
        volumes.map(path).collect()
    }

    /// Tells it from others of the same name.
    ///
    /// # Errors
    /// Fails when it is gone.
    pub fn version(&self) -> Result<u64> {
        let mut version = Fingerprint::new();
        version.add(&self.record.nanoseconds.to_le_bytes());
        version.add(&self.root.stat("")?.ino.to_le_bytes());
        Ok(version.finish())
    }

    /// What the engine's own file said of the container.
    ///
    /// # Errors
    /// Fails when it is gone.
    pub fn config(&self) -> Result<Vec<u8>> {
        self.root.read("config", FILE_MAX)
    }

    /// Its `hostconfig.json`; empty where there was none.
    ///
    /// # Errors
    /// Fails when it is gone.
    pub fn host_config(&self) -> Result<Vec<u8>> {
        self.root.read("host-config", FILE_MAX)
    }
}

/// The clock, since 1970; 0 where it is before that.
fn nanoseconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// Whether a name may be a snapshot's: it is a file name, and neither hidden nor over long.
fn is_name(name: &str) -> bool {
    let is_short = (1..=NAME_MAX).contains(&name.len());
    is_short && !name.starts_with('.') && !name.contains(['/', '\0'])
}

/// Makes a directory that nobody else may enter; with `all`, those above it too, and none where it
/// is there.
fn make_private(path: &Path, all: bool) -> Result<()> {
    let made = DirBuilder::new().mode(0o700).recursive(all).create(path);
    made.map_err(|err| Error::io(path, err))
}

/// The lock on a directory; `None` where somebody has it, or the directory is gone.
fn try_lock(path: &Path) -> Result<Option<OwnedFd>> {
    let open = match File::open(path) {
        Ok(open) => open,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(err) => return Err(Error::io(path, err)),
    };
    match rustix::fs::flock(&open, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(open.into())),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(err) => Err(Error::io(path, err)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, MetadataExt, symlink};

    use rustix::fs::{FileType, Mode, Timespec, Timestamps, XattrFlags};

    use super::*;

    fn id() -> ContainerId {
        ContainerId::from_hex(&"c".repeat(64)).unwrap()
    }

    fn original<'a>(diff: &'a Root, volumes: &'a [Volume]) -> Original<'a> {
        Original {
            container: id(),
            name: "web",
            config: b"{}",
            host_config: b"",
            diff,
            volumes,
            state: "running",
            time: "2024-01-01T00:00:00Z",
            cgroup: None,
        }
    }

    fn is_root() -> bool {
        rustix::process::geteuid().is_root()
    }

    /// A tree with a bit of everything.
    fn fill(dir: &Path) {
        fs::create_dir_all(dir.join("a/b")).unwrap();
        fs::write(dir.join("a/one"), "one").unwrap();
        fs::hard_link(dir.join("a/one"), dir.join("a/b/two")).unwrap();
        symlink("/nowhere", dir.join("link")).unwrap();
        let sparse = File::create(dir.join("sparse")).unwrap();
        sparse.set_len(1 << 20).unwrap();
        sparse.write_all_at(b"data", 300_000).unwrap();
        let mode = Mode::from_raw_mode(0o600);
        for (name, kind) in [("gone", FileType::CharacterDevice), ("fifo", FileType::Fifo)] {
            rustix::fs::mknodat(CWD, dir.join(name), kind, mode, 0).unwrap();
        }
        for (name, attribute) in [("a", "trusted.overlay.opaque"), ("sparse", "user.x")] {
            rustix::fs::lsetxattr(dir.join(name), attribute, b"y", XattrFlags::empty()).unwrap();
        }
        std::os::unix::fs::lchown(dir.join("link"), Some(7), Some(3_000_000)).unwrap();
        std::os::unix::fs::chown(dir.join("a/one"), Some(5), Some(6)).unwrap();
        rustix::fs::chmod(dir.join("a/one"), Mode::from_raw_mode(0o4711)).unwrap();
        let time = Timespec { tv_sec: -5, tv_nsec: 123_456_789 };
        let times = Timestamps { last_access: time, last_modification: time };
        for name in ["a/one", "a/b", "a", "link", "fifo"] {
            let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::utimensat(CWD, dir.join(name), &times, flags).unwrap();
        }
    }

    /// Everything that a copy must have of a tree, by path.
    fn seen(dir: &Path) -> Vec<String> {
        let root = Root::open(dir, Access::Sealed).unwrap();
        let mut seen = Vec::new();
        let mut left = vec![PathBuf::new()];
        while let Some(path) = left.pop() {
            let open = root.dir(&path).unwrap();
            for entry in open.names().unwrap() {
                let stat = open.stat(&entry.name).unwrap();
                let at = path.join(&entry.name);
                let xattrs = open.xattrs(&entry.name).unwrap();
                let content = match stat.kind {
                    crate::backing::FileKind::Regular => fs::read(dir.join(&at)).unwrap(),
                    crate::backing::FileKind::Symlink => open.read_link(&entry.name).unwrap(),
                    _ => Vec::new(),
                };
                let owner = (stat.mode, stat.uid, stat.gid, stat.rdev, stat.size);
                let links = if stat.is_dir() { 0 } else { stat.nlink };
                let time = stat.mtime;
                seen.push(format!("{at:?} {owner:?} {links} {time:?} {xattrs:?} {content:?}"));
                if stat.is_dir() {
                    left.push(at);
                }
            }
        }
        seen.sort();
        seen
    }

    #[test]
    fn a_snapshot_holds_what_the_container_had() {
        if !is_root() {
            return; // who can make no device
        }
        let dir = tempfile::tempdir().unwrap();
        let (upper, volume) = (dir.path().join("upper"), dir.path().join("volume"));
        fill(&upper);
        fill(&volume);
        let snapshots = Snapshots::open(&dir.path().join("state/deep"), 2).unwrap();
        let root = Root::open(&upper, Access::Live).unwrap();
        let files = Arc::new(Root::open(&volume, Access::Live).unwrap());
        let volume_of = |destination: &str, file: Option<&str>| Volume {
            destination: destination.to_owned(),
            root: Arc::clone(&files),
            file: file.map(Into::into),
        };
        let volumes = [volume_of("/data", None), volume_of("/etc/conf", Some("sparse"))];
        let before = seen(&upper);
        snapshots.take("first", &original(&root, &volumes)).unwrap();
        fs::write(upper.join("a/one"), "changed").unwrap();
        fs::remove_file(upper.join("link")).unwrap();
        let first = snapshots.find(id(), "first").unwrap();
        assert_eq!(seen(first.diff().unwrap().path()), before);
        let kept = first.volumes();
        assert_eq!((kept.len(), kept[0].0.as_str()), (2, "/data"));
        assert_eq!(seen(&kept[0].1), seen(&volume));
        assert_eq!(fs::read(&kept[1].1).unwrap(), fs::read(volume.join("sparse")).unwrap());
        assert_eq!((first.config().unwrap(), first.host_config().unwrap()), (b"{}".into(), vec![]));
        assert_eq!((first.record.state.as_str(), first.record.is_frozen), ("running", false));
        let sparse = first.diff().unwrap().path().join("sparse");
        assert!(fs::metadata(sparse).unwrap().blocks() < 100, "holes stay holes");

        let errno = |result: Result<()>| result.unwrap_err().errno();
        let take = |name: &str| snapshots.take(name, &original(&root, &volumes));
        assert_eq!(errno(take("first")), Errno::EXIST);
        take("second").unwrap();
        assert_eq!(errno(take("third")), Errno::DQUOT);
        for name in ["", ".", "..", ".hidden", "a/b", &"n".repeat(201)] {
            assert_eq!(errno(take(name)), Errno::INVAL, "{name}");
        }
        assert_eq!(snapshots.names(id()).unwrap(), ["first", "second"]);
        snapshots.remove(id(), "first").unwrap();
        assert_eq!(errno(snapshots.remove(id(), "first")), Errno::NOENT);
        snapshots.remove(id(), "second").unwrap();
        assert_eq!(snapshots.names(id()).unwrap(), Vec::<String>::new());
        let left = fs::read_dir(dir.path().join("state/deep")).unwrap();
        assert_eq!(left.count(), 1, "{MAKING} alone");
    }

    #[test]
    fn what_was_half_made_goes_at_the_next_start_unless_somebody_is_at_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = Snapshots::open(dir.path(), 9).unwrap();
        let busy = first.start().unwrap();
        fs::create_dir_all(dir.path().join(".making/999-0/diff/x/y")).unwrap();
        fs::write(dir.path().join(".making/999-0/diff/x/y/file"), "x").unwrap();
        drop(Snapshots::open(dir.path(), 9).unwrap());
        assert!(busy.path.exists() && !dir.path().join(".making/999-0").exists());
        let path = busy.path.clone();
        drop(busy);
        assert!(!path.exists());
    }

    #[test]
    fn a_tree_of_any_depth_is_removed_and_one_too_deep_is_not_copied() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        fs::create_dir(&top).unwrap();
        let mut at = File::open(&top).unwrap();
        for _ in 0..4100 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = File::from(
                rustix::fs::openat(&at, "d", rustix::fs::OFlags::RDONLY, Mode::empty()).unwrap(),
            );
        }
        let snapshots = Snapshots::open(&dir.path().join("state"), 9).unwrap();
        let root = Root::open(&top, Access::Live).unwrap();
        assert!(snapshots.take("deep", &original(&root, &[])).is_err());
        assert_eq!(fs::read_dir(dir.path().join("state/.making")).unwrap().count(), 0);
        remove::remove(&top).unwrap();
        assert!(!top.exists());
    }
}

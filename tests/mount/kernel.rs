//! What the kernel keeps, refuses and lists.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{CWD, FileType, Mode, RawDir, SeekFrom, XattrFlags};
use stratafs::digest::Digest;

use crate::mounted::{Mounted, can_mount, options_of};
use crate::stores::handmade::hex_of;
use crate::stores::sample::{Sample, sample, write};

/// How long a change may take to show.
const FRESH: Duration = Duration::from_secs(1);

/// A mounted sample store; `None`, with a notice, where there can be none.
fn mounted_sample() -> Option<(Mounted, Sample)> {
    let sample = if can_mount() { sample()? } else { return None };
    Some((Mounted::new(sample.path()), sample))
}

/// Names as a reader with a small buffer gets them.
fn listed(path: &Path, buffer: usize) -> Vec<String> {
    let dir = File::open(path).unwrap();
    let mut buffer = vec![MaybeUninit::uninit(); buffer];
    let mut entries = RawDir::new(&dir, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        names.push(entry.unwrap().file_name().to_str().unwrap().to_owned());
        if names.len() % 100 == 0 {
            thread::sleep(Duration::from_millis(1)); // so that the directory changes meanwhile
        }
    }
    names.retain(|name| name != "." && name != "..");
    names
}

#[test]
fn a_listing_is_complete_while_its_directory_changes() {
    let Some((mounted, sample)) = mounted_sample() else { return };
    for number in 0..3000 {
        write(&sample.web.diff, &format!("many/stays-{number:04}"), b"");
    }
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0.. {
                let name = sample.web.diff.join(format!("many/moves-{}", number % 50));
                if number % 100 < 50 {
                    fs::write(name, "").unwrap()
                } else {
                    fs::remove_file(name).unwrap()
                }
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        for path in ["containers/web/rootfs/many", "containers/web/diff/many"] {
            for buffer in [300, 4096, 1 << 16] {
                let mut counts: BTreeMap<String, u32> = BTreeMap::new();
                for name in listed(&mounted.at(path), buffer) {
                    *counts.entry(name).or_default() += 1;
                }
                assert!(counts.values().all(|&count| count == 1), "{path}: a name twice");
                let stays = counts.keys().filter(|name| name.starts_with("stays-")).count();
                assert_eq!(stays, 3000, "{path} by {buffer} bytes");
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn every_write_is_refused_as_read_only() {
    let Some((mounted, _sample)) = mounted_sample() else { return };
    let at = |path: &str| mounted.at(path);
    let as_io = |result: Result<(), rustix::io::Errno>| result.map_err(io::Error::from);
    let mode = Mode::from_raw_mode(0o644);
    for file in ["containers/web/rootfs/own", "images/app:1/save.tar", "README"] {
        let path = at(file);
        let beside = path.with_file_name("new");
        let node = |kind| as_io(rustix::fs::mknodat(CWD, &beside, kind, mode, 0));
        let time = fs::FileTimes::new().set_modified(std::time::SystemTime::now());
        let attempts: Vec<(&str, io::Result<()>)> = vec![
            ("write", File::options().write(true).open(&path).map(drop)),
            ("append", File::options().append(true).open(&path).map(drop)),
            ("create", File::create_new(&beside).map(drop)),
            ("unlink", fs::remove_file(&path)),
            ("mkdir", fs::create_dir(&beside)),
            ("rename", fs::rename(&path, &beside)),
            ("link", fs::hard_link(&path, &beside)),
            ("symlink", symlink("x", &beside)),
            ("mkfifo", node(FileType::Fifo)),
            ("chmod", fs::set_permissions(&path, Permissions::from_mode(0o777))),
            ("chown", std::os::unix::fs::lchown(&path, Some(1), Some(1))),
            ("setxattr", as_io(rustix::fs::lsetxattr(&path, "user.x", b"x", XattrFlags::empty()))),
            ("removexattr", as_io(rustix::fs::lremovexattr(&path, "user.x"))),
            ("utimens", File::open(&path).and_then(|file| file.set_times(time))),
        ];
        for (what, result) in attempts {
            let errno = result.err().and_then(|err| err.raw_os_error());
            assert_eq!(errno, Some(libc::EROFS), "{what} {file}");
        }
    }
    let removed = fs::remove_dir(at("images/app:1")).unwrap_err();
    assert_eq!(removed.raw_os_error(), Some(libc::EROFS));
}

#[test]
fn the_mount_is_read_only_and_gives_no_privileges() {
    let Some((mounted, _sample)) = mounted_sample() else { return };
    let options = options_of(mounted.path()).unwrap();
    for option in ["ro", "nosuid", "nodev", "default_permissions"] {
        assert!(options.split(',').any(|word| word == option), "{option}: {options}");
    }
    assert!(!options.contains("allow_other"), "{options}");
    let tool = fs::metadata(mounted.at("images/app:1/rootfs/usr/bin/tool")).unwrap();
    assert_eq!(tool.mode(), 0o104_755, "though the mode is shown");
    drop(mounted);
    let Some(sample) = sample() else { return };
    let mounted = Mounted::with(sample.path(), &["-o", "allow_other,noexec"]);
    let options = options_of(mounted.path()).unwrap();
    assert!(options.contains("allow_other") && options.contains("noexec"), "{options}");
}

/// How many archives are read while files change; `STRATAFS_READS` says another number.
const READS: usize = 20;

/// Mtime of a file of generation 0; that of each later one is a second more.
const EPOCH: i64 = 1_000_000;

/// Files of records of 16 bytes, each with its file's generation, which its mtime tells as well.
struct Churn<'a> {
    dir: &'a Path,
    seed: u64,
    generation: i64,
}

impl Churn<'_> {
    fn random(&mut self, below: u64) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.seed >> 33) % below
    }

    /// Replaces, lengthens, shortens or removes a file.
    fn change(&mut self) {
        let path = self.dir.join(format!("churn-{}", self.random(40)));
        let length = self.random(4000) * 16;
        let dated = |file: &File, generation: i64| {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs((EPOCH + generation) as u64);
            file.set_modified(time).unwrap();
        };
        let known = fs::metadata(&path).ok().map(|meta| (meta.mtime() - EPOCH, meta.len()));
        match (known, self.random(4)) {
            (Some((generation, size)), 0) if size < 100_000 => {
                let mut file = File::options().append(true).open(&path).unwrap();
                file.write_all(&records(generation, length)).unwrap();
                dated(&file, generation);
            }
            (Some((generation, size)), 1) => {
                let file = File::options().write(true).open(&path).unwrap();
                file.set_len(length.min(size)).unwrap();
                dated(&file, generation);
            }
            (Some(_), 2) => fs::remove_file(&path).unwrap(),
            _ => {
                self.generation += 1;
                let next = self.dir.join("next");
                let mut file = File::create(&next).unwrap();
                file.write_all(&records(self.generation, length)).unwrap();
                dated(&file, self.generation);
                fs::rename(&next, &path).unwrap();
            }
        }
    }
}

fn records(generation: i64, length: u64) -> Vec<u8> {
    format!("{generation:015}\n").repeat(length as usize / 16).into_bytes()
}

/// Ends a thread that waits for it, even where the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The files of an archive that are not what their mtimes say.
fn torn(archive: &[u8]) -> Vec<String> {
    let mut torn = Vec::new();
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_string_lossy().into_owned();
        let generation = entry.header().mtime().unwrap().cast_signed() - EPOCH;
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        // One that was being written to when it was listed has the time of that.
        let is_known = name.starts_with("churn-") && (0..1_000_000_000).contains(&generation);
        if is_known && bytes != records(generation, bytes.len() as u64) {
            torn.push(name);
        }
    }
    torn
}

#[test]
fn archives_of_a_container_are_whole_however_fast_its_files_change() {
    let Some((mounted, sample)) = mounted_sample() else { return };
    let reads = std::env::var("STRATAFS_READS").map_or(READS, |reads| reads.parse().unwrap());
    let is_over = AtomicBool::new(false);
    let mut found = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut churn = Churn { dir: &sample.web.diff, seed: 1, generation: 0 };
            while !is_over.load(Ordering::Relaxed) {
                churn.change();
            }
        });
        let _over = Over(&is_over);
        for _ in 0..reads {
            let mut file = File::open(mounted.at("containers/web/export.tar")).unwrap();
            let size = file.metadata().unwrap().len();
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes.len() as u64, size, "the size that stat gave");
            let mut changed = vec![0; 65_536];
            let changed =
                match rustix::fs::fgetxattr(&file, "user.stratafs.changed", &mut changed[..]) {
                    Ok(length) => String::from_utf8_lossy(&changed[..length]).into_owned(),
                    Err(err) => {
                        assert_eq!(err, rustix::io::Errno::NODATA);
                        String::new()
                    }
                };
            for name in torn(&bytes) {
                let is_told = changed.lines().any(|line| line == format!("/{name}"));
                assert!(is_told, "{name} is not what it was, and not in {changed:?}");
                found += 1;
            }
            assert!(is_read_by_tar(&bytes), "GNU tar can't read it");
            thread::sleep(Duration::from_millis(50));
        }
    });
    assert!(found > 0, "nothing changed while it was read");
    let errors = fs::read_to_string(mounted.at(".stratafs/errors")).unwrap();
    assert!(errors.contains(" while it was read\n"), "{errors:.400}");
}

fn is_read_by_tar(bytes: &[u8]) -> bool {
    let mut tar = Command::new("tar");
    let tar = tar.args(["-t", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut tar = tar.spawn().unwrap();
    tar.stdin.take().unwrap().write_all(bytes).unwrap();
    tar.wait().unwrap().success()
}

#[test]
fn numbers_stay_over_remounts() {
    let Some((mounted, sample)) = mounted_sample() else { return };
    let numbers = |mounted: &Mounted| {
        let mut numbers = BTreeMap::new();
        let mut open = vec![mounted.path().to_owned()];
        while let Some(path) = open.pop() {
            let meta = path.symlink_metadata().unwrap();
            if meta.is_dir() {
                open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
            numbers.insert(path.strip_prefix(mounted.path()).unwrap().to_owned(), meta.ino());
        }
        numbers
    };
    // What was only just written may still change without a sign of it, and is told apart once more.
    thread::sleep(FRESH);
    let before = numbers(&mounted);
    drop(mounted);
    let after = numbers(&Mounted::new(sample.path()));
    assert!(before.len() > 200);
    let moved: Vec<_> = before.iter().filter(|(path, ino)| after.get(*path) != Some(ino)).collect();
    assert!(moved.is_empty() && before.len() == after.len(), "{moved:?}");
}

#[test]
fn what_changes_shows_through_the_kernel_within_a_second() {
    let Some((mounted, mut sample)) = mounted_sample() else { return };
    let shows = |what: &str, is_so: &dyn Fn() -> bool| {
        let start = Instant::now();
        while !is_so() {
            assert!(start.elapsed() < FRESH, "{what} does not show");
            thread::sleep(Duration::from_millis(20));
        }
    };
    let id = || fs::read_to_string(mounted.at("images/app:1/id")).unwrap_or_default();
    let names = |path: &str| -> Vec<String> {
        let entries = fs::read_dir(mounted.at(path)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    assert!(!mounted.at("images/new:1").exists());
    assert!(!mounted.at("images/app:1/rootfs/top").exists());
    assert_eq!(id().trim_end(), sample.app);
    let exported = || fs::read(mounted.at("containers/web/export.tar")).unwrap();
    let before = exported();

    sample.root.tag("new:1", &sample.untagged);
    shows("a new name", &|| mounted.at("images/new:1").exists());
    shows("a new name", &|| names("images").contains(&"new:1".to_owned()));
    sample.root.tag("app:1", &sample.untagged);
    shows("another image", &|| id().trim_end() == sample.untagged);
    shows("its files", &|| mounted.at("images/app:1/rootfs/top").exists());
    sample.root.untag("new:1");
    shows("a name that is gone", &|| !mounted.at("images/new:1").exists());
    shows("a name that is gone", &|| !names("images").contains(&"new:1".to_owned()));

    let own = || fs::read(mounted.at("containers/web/rootfs/own")).unwrap_or_default();
    assert_eq!(own(), b"own\n");
    write(&sample.web.diff, "own", b"other\n");
    shows("a changed file", &|| own() == b"other\n");
    assert!(!names("containers/web/rootfs/usr").contains(&"added".to_owned()));
    write(&sample.web.diff, "usr/added", b"added\n");
    shows("an added file", &|| names("containers/web/rootfs/usr").contains(&"added".to_owned()));
    let has_both = |tar: &[u8]| {
        let mut archive = tar::Archive::new(tar);
        let names =
            archive.entries().unwrap().map(|entry| entry.unwrap().path_bytes().into_owned());
        names.filter(|name| name == b"usr/added" || name == b"own").count() == 2
    };
    assert!(!has_both(&before));
    shows("another archive", &|| has_both(&exported()));
}

#[test]
fn a_listing_shows_what_is_new_however_many_read_it_at_once() {
    let Some((mounted, mut sample)) = mounted_sample() else { return };
    let images = mounted.at("images");
    // How many names have been there for a second.
    let due = AtomicUsize::new(0);
    let is_over = AtomicBool::new(false);
    let read_on = |buffer: usize, is_whole: bool| {
        let mut buffer = vec![MaybeUninit::uninit(); buffer];
        let dir = File::open(&images).unwrap();
        while !is_over.load(Ordering::Relaxed) {
            let due = due.load(Ordering::Relaxed);
            rustix::fs::seek(&dir, SeekFrom::Start(0)).unwrap();
            let mut entries = RawDir::new(&dir, &mut buffer);
            let mut found = 0;
            while let Some(entry) = entries.next() {
                let name = entry.unwrap().file_name().to_str().unwrap().to_owned();
                found += usize::from(name.starts_with("new-"));
                if !is_whole && name.starts_with("new-") {
                    break;
                }
            }
            assert!(!is_whole || found >= due, "{found} of {due} names");
        }
    };
    thread::scope(|scope| {
        let read_on = &read_on;
        for (buffer, is_whole) in [(300, true), (300, false), (4096, true), (1 << 16, true)] {
            scope.spawn(move || read_on(buffer, is_whole));
        }
        for number in 1..=4 {
            sample.root.tag(&format!("new-{number}:1"), &sample.untagged);
            thread::sleep(FRESH);
            due.store(number, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(200));
        }
        is_over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn whoever_stays_in_a_directory_sees_what_is_written_there() {
    let Some((mounted, sample)) = mounted_sample() else { return };
    // The container has none of these directories itself yet.
    let deep = File::open(mounted.at("containers/web/rootfs/usr/bin")).unwrap();
    let sees = |name: &str| rustix::fs::statat(&deep, name, rustix::fs::AtFlags::empty()).is_ok();
    assert!(sees("tool") && !sees("added"));
    write(&sample.web.diff, "usr/bin/added", b"added\n");
    let start = Instant::now();
    while !sees("added") {
        assert!(start.elapsed() < FRESH, "does not show");
        assert!(sees("tool"));
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_failure_that_a_reader_saw_is_in_errors() {
    let Some((mounted, sample)) = mounted_sample() else { return };
    let tool = sample.layers[0].diff.join("usr/bin/tool");
    let bytes = fs::read(&tool).unwrap();
    fs::write(&tool, bytes.iter().map(|byte| byte ^ 1).collect::<Vec<_>>()).unwrap();
    let layer = hex_of(&sample.layers[0].diff_id);
    let path = format!("images/app:1/layers/00-{}/layer.tar", &layer[..12]);
    let failed = fs::read(mounted.at(&path)).unwrap_err();
    assert_eq!(failed.raw_os_error(), Some(libc::EIO));
    let errors = fs::read_to_string(mounted.at(".stratafs/errors")).unwrap();
    let line = errors.lines().last().unwrap();
    assert!(line.contains("/usr/bin/") && line.contains("checksum"), "{errors}");
    let missing = fs::read(mounted.at("images/app:1/nothing")).unwrap_err();
    assert_eq!(missing.raw_os_error(), Some(libc::ENOENT));
    let again = fs::read_to_string(mounted.at(".stratafs/errors")).unwrap();
    assert_eq!(again.lines().count(), errors.lines().count(), "a missing name is no failure");
}

#[test]
fn statfs_tells_what_the_layers_take() {
    let Some((mounted, sample)) = mounted_sample() else { return };
    let shown = rustix::fs::statvfs(mounted.path()).unwrap();
    let below = rustix::fs::statvfs(sample.path()).unwrap();
    let (total, free) = (shown.f_blocks * shown.f_frsize, shown.f_bfree * shown.f_frsize);
    let of_store = below.f_blocks * below.f_frsize;
    assert!(total.abs_diff(of_store) < shown.f_frsize, "{total} for {of_store}");
    let sizes = sample.layers.iter().map(|layer| {
        let size = fs::read_to_string(sample.root.record(&layer.chain_id).join("size")).unwrap();
        size.parse::<u64>().unwrap()
    });
    let used: u64 = sizes.sum();
    assert!((total - free).abs_diff(used) < 2 * shown.f_frsize, "{} for {used}", total - free);
    assert_eq!((shown.f_bavail, shown.f_namemax), (0, 255));
}

/// The value of an xattr, as the kernel gives it.
fn xattr(path: &Path, name: &str) -> io::Result<String> {
    let mut value = [0; 256];
    let length = rustix::fs::lgetxattr(path, name, &mut value[..])?;
    Ok(String::from_utf8(value[..length].to_vec()).unwrap())
}

#[test]
fn a_reader_of_a_checksum_can_be_killed_and_others_go_on() {
    let Some((mounted, sample)) = mounted_sample() else { return };
    let own = mounted.at("containers/web/rootfs/own");
    let hex = xattr(&own, "user.stratafs.sha256").unwrap();
    assert_eq!(hex, Digest::of(b"own\n").hex());
    let mut names = [0; 256];
    assert_eq!(rustix::fs::llistxattr(&own, &mut names[..]).unwrap(), 0, "listed nowhere");
    assert!(xattr(&own, "user.stratafs.tarsum").is_err());
    let tar = mounted.at("containers/web/export.tar");
    assert!(xattr(&tar, "user.stratafs.tarsum").unwrap().starts_with("tarsum.v1+sha256:"));
    let rootfs = mounted.at("containers/web/rootfs");
    assert!(xattr(&rootfs, "user.stratafs.buildhash").unwrap().starts_with("dir:"));
    assert!(xattr(&rootfs, "user.stratafs.contenthash").unwrap().starts_with("sha256:"));

    let endless = File::create(sample.web.diff.join("endless")).unwrap();
    endless.set_len(1 << 42).unwrap();
    let path = mounted.at("containers/web/rootfs/endless");
    wait_for(|| path.exists());
    let ask = |_| {
        let code = "import os, sys; os.getxattr(sys.argv[1], 'user.stratafs.sha256')";
        Command::new("python3").args(["-c", code]).arg(&path).stderr(Stdio::null()).spawn()
    };
    let Ok(mut asking) = (0..5).map(ask).collect::<io::Result<Vec<_>>>() else {
        eprintln!("skipped: python3 asks for xattrs here");
        return;
    };
    thread::sleep(Duration::from_millis(500));
    let start = Instant::now();
    assert_eq!(fs::read(&own).unwrap(), b"own\n");
    assert!(mounted.at("images/app:1/save.tar").metadata().unwrap().len() > 0);
    assert!(start.elapsed() < FRESH, "others are served");
    for asking in &mut asking {
        assert!(asking.try_wait().unwrap().is_none(), "it waits");
        asking.kill().unwrap();
    }
    let start = Instant::now();
    for asking in &mut asking {
        asking.wait().unwrap();
    }
    assert!(start.elapsed() < 3 * FRESH, "gone after {:?}", start.elapsed());
    // Nobody works on it any more, so this one is not kept waiting either.
    let start = Instant::now();
    write(&sample.web.diff, "small", b"small");
    wait_for(|| mounted.at("containers/web/rootfs/small").exists());
    assert!(xattr(&mounted.at("containers/web/rootfs/small"), "user.stratafs.sha256").is_ok());
    assert!(start.elapsed() < 3 * FRESH);
}

fn wait_for(mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < 2 * FRESH);
        thread::sleep(Duration::from_millis(20));
    }
}

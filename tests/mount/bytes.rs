//! Bytes through the kernel: any range, by any way of reading, is what a full copy has.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::fs::SeekFrom;

use crate::mounted::{Mounted, can_mount, run};
use crate::stores::handmade::{CREATED, DataRoot, exited};
use crate::stores::sample::{noise, sample, write};

/// Random reads, of all threads together.
const READS: usize = 100_000;

/// A store with an image `big:1` of some MB in three layers, and a container `web` of it.
fn big() -> (tempfile::TempDir, DataRoot) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut root = DataRoot::create(dir.path());
    let base = root.layer(None, |dir| {
        write(dir, "large", &noise(1, 5_000_001));
        for number in 0..300 {
            write(dir, &format!("many/{number:03}"), &noise(number, number as usize * 37));
        }
    });
    let middle = root.layer(Some(&base), |dir| {
        write(dir, "second", &noise(2, 1_500_000));
        let sparse = File::create(dir.join("sparse")).unwrap();
        sparse.set_len(3_000_000).unwrap();
        sparse.write_all_at(&noise(3, 10_000), 1_234_567).unwrap();
    });
    let top = root.layer(Some(&middle), |dir| write(dir, "third", &noise(4, 4096)));
    let image = root.image(&[&base, &middle, &top], CREATED);
    root.tag("big:1", &image);
    root.container("web", ("big:1", &image), &top, &exited(), |dir| {
        write(dir, "own", &noise(5, 200_000));
    });
    (dir, root)
}

/// Reads that no cache of the kernel answers.
fn open_direct(path: &Path) -> File {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_DIRECT).open(path).unwrap()
}

/// Reads so many bytes, or what there is.
pub(crate) fn read_at(file: &File, offset: u64, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    let mut done = 0;
    while done < count {
        match file.read_at(&mut bytes[done..], offset + done as u64).unwrap() {
            0 => break,
            read => done += read,
        }
    }
    bytes.truncate(done);
    bytes
}

#[test]
fn random_reads_by_four_threads_equal_the_same_ranges_of_a_copy() {
    if !can_mount() {
        return;
    }
    let (dir, _) = big();
    let mounted = Mounted::new(dir.path());
    let path = mounted.at("images/big:1/save.tar");
    let whole = fs::read(&path).unwrap();
    assert!(whole.len() > 9_000_000);
    let read = |thread: u32| {
        let file =
            if thread.is_multiple_of(2) { File::open(&path).unwrap() } else { open_direct(&path) };
        let numbers = noise(thread + 100, READS / 4 * 8);
        for number in numbers.chunks_exact(8) {
            let number = u64::from_le_bytes(number.try_into().unwrap());
            let offset = number % (whole.len() as u64 + 1000);
            let count = (number >> 43) as usize % 9_001;
            let expected = whole.get(offset as usize..).unwrap_or_default();
            let expected = &expected[..count.min(expected.len())];
            assert!(read_at(&file, offset, count) == expected, "{count} bytes from {offset}");
        }
    };
    thread::scope(|scope| (0..4).for_each(|thread| drop(scope.spawn(move || read(thread)))));
}

#[test]
fn stat_gives_the_size_that_reading_gives() {
    if !can_mount() {
        return;
    }
    let (dir, _) = big();
    let mounted = Mounted::new(dir.path());
    let mut open = vec![mounted.path().to_owned()];
    let mut count = 0;
    while let Some(path) = open.pop() {
        let meta = path.symlink_metadata().unwrap();
        if meta.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if meta.is_file() {
            let bytes = fs::read(&path).unwrap();
            assert_eq!(bytes.len() as u64, meta.size(), "{}", path.display());
            count += 1;
        }
    }
    assert!(count > 600, "{count}");
}

#[test]
fn direct_reads_equal_buffered_ones() {
    if !can_mount() {
        return;
    }
    let (dir, _) = big();
    let mounted = Mounted::new(dir.path());
    for name in
        ["images/big:1/export.tar", "images/big:1/rootfs/large", "containers/web/export.tar"]
    {
        let path = mounted.at(name);
        let direct = open_direct(&path);
        let size = direct.metadata().unwrap().len();
        let direct = read_at(&direct, 0, size as usize + 100);
        assert!(direct == fs::read(&path).unwrap(), "{name}");
    }
}

#[test]
fn tail_dd_and_mmap_read_the_same_bytes() {
    if !can_mount() {
        return;
    }
    let (dir, _) = big();
    let mounted = Mounted::new(dir.path());
    let path = mounted.at("images/big:1/save.tar");
    let tail = Command::new("tail").args(["-c", "12345"]).arg(&path).output().unwrap();
    let skip = ["bs=1000", "skip=1234", "count=567"];
    let dd = Command::new("dd").arg(format!("if={}", path.display())).args(skip).output().unwrap();
    let script = "import mmap,sys\n\
                  f=open(sys.argv[1],'rb'); m=mmap.mmap(f.fileno(),0,access=mmap.ACCESS_READ)\n\
                  sys.stdout.buffer.write(m[4000001:4009999]+m[-1500:])";
    let mapped = Command::new("python3").args(["-c", script]).arg(&path).output();
    let whole = fs::read(&path).unwrap();
    assert!(tail.stdout == whole[whole.len() - 12_345..]);
    assert!(dd.stdout == whole[1_234_000..1_801_000]);
    match mapped {
        Ok(mapped) => {
            let expected = [&whole[4_000_001..4_009_999], &whole[whole.len() - 1500..]].concat();
            assert!(mapped.stdout == expected);
        }
        Err(err) => eprintln!("skipped: mmap by python3: {err}"),
    }
}

#[test]
fn a_program_runs_from_an_image() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut root = DataRoot::create(dir.path());
    let cat = fs::canonicalize("/bin/cat").unwrap();
    let layer = root.layer(None, |dir| {
        fs::copy(&cat, dir.join("cat")).unwrap();
    });
    let image = root.image(&[&layer], CREATED);
    root.tag("cat:1", &image);
    let mounted = Mounted::new(dir.path());
    let shown = mounted.at("images/cat:1/rootfs/cat");
    let output = Command::new(&shown).arg(&shown).output().unwrap();
    assert!(output.stdout == fs::read(&cat).unwrap());
    drop(mounted);
    let mounted = Mounted::with(dir.path(), &["-o", "noexec"]);
    let refused = Command::new(mounted.at("images/cat:1/rootfs/cat")).output().unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
}

#[test]
fn holes_of_a_file_are_where_the_kernel_is_told() {
    if !can_mount() {
        return;
    }
    let (dir, _) = big();
    let mounted = Mounted::new(dir.path());
    for (name, least) in [
        ("images/big:1/rootfs/sparse", 2_900_000),
        ("images/big:1/save.tar", 2_900_000),
        ("containers/web/export.tar", 2_900_000),
        ("images/big:1/rootfs/large", 0),
    ] {
        let file = File::open(mounted.at(name)).unwrap();
        let bytes = fs::read(mounted.at(name)).unwrap();
        let (mut at, mut holes) = (0, 0);
        while let Ok(hole) = rustix::fs::seek(&file, SeekFrom::Hole(at)) {
            let size = bytes.len() as u64;
            let data = rustix::fs::seek(&file, SeekFrom::Data(hole)).unwrap_or(size);
            assert!(data > hole || hole == size, "{name}: {hole} is hole and data");
            let zeros = &bytes[hole as usize..data as usize];
            assert!(zeros.iter().all(|&byte| byte == 0), "{name}: from {hole}");
            holes += zeros.len();
            at = data;
        }
        assert!(holes >= least, "{name}: {holes} bytes of holes");
    }
}

#[test]
fn commands_without_a_mount_show_what_a_mount_shows() {
    if !can_mount() {
        return;
    }
    let Some(sample) = sample() else { return };
    let mounted = Mounted::new(sample.path());
    let ours = |arguments: &[&OsStr]| {
        let source = [OsStr::new("--source"), sample.path().as_os_str()];
        let output = run(&[&arguments[..1], &source, &arguments[1..]].concat());
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        output.stdout
    };
    for name in [
        "images/app/save.tar",
        "images/app:1/export.tar",
        "images/app:1/formats/oci.tar",
        "images/app:1/history",
        "images/app:1/rootfs/usr/bin/tool",
        "images/app:1/rootfs/sparse",
        "containers/web/export.tar",
        "containers/web/image/inspect.json",
    ] {
        let bytes = ours(&["cat".as_ref(), name.as_ref()]);
        assert!(bytes == fs::read(mounted.at(name)).unwrap(), "{name}");
    }
    let listed = String::from_utf8(ours(&["ls".as_ref(), "-a".as_ref(), "images/app".as_ref()]));
    let mut names: Vec<String> = fs::read_dir(mounted.at("images/app"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(listed.unwrap().lines().collect::<Vec<_>>(), names);

    let copies = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for name in ["images/app:1/rootfs", "containers/web/rootfs"] {
        let at = |whose: &str| copies.path().join(name.replace('/', "-") + whose);
        ours(&["cp".as_ref(), "-r".as_ref(), name.as_ref(), at("ours").as_os_str()]);
        let theirs = Command::new("cp").arg("-a").arg(mounted.at(name)).arg(at("theirs")).status();
        assert!(theirs.unwrap().success());
        assert_eq!(told(&at("ours")), told(&at("theirs")), "{name}");
        let mut same = Command::new("diff");
        same.args(["-r", "--no-dereference"]).arg(at("ours")).arg(at("theirs"));
        let same = same.output().unwrap();
        assert!(same.status.success(), "{same:?}");
    }
    let sparse = fs::metadata(copies.path().join("images-app:1-rootfsours/sparse")).unwrap();
    assert!(sparse.blocks() * 512 < 1 << 19, "holes stay: {}", sparse.blocks());
}

/// What `find` and `getfattr` say of all below `dir`.
pub(crate) fn told(dir: &Path) -> String {
    let script = "{ find . ! -type d -printf '%P %y %#m %U %G %s %n %T@ %l\\n'
                    find . -type d -printf '%P %y %#m %U %G %T@\\n'
                    find . -print0 | xargs -0 getfattr -h -d -m- 2>/dev/null || true; } | sort";
    let output = Command::new("sh").args(["-c", script]).current_dir(dir).output().unwrap();
    assert!(output.status.success() && !output.stdout.is_empty(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Reads `file` to its end in blocks of `size` bytes, as one who copies does.
fn read_through(file: &File, size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let block = read_at(file, bytes.len() as u64, size);
        bytes.extend_from_slice(&block);
        if block.len() < size {
            return bytes;
        }
    }
}

#[test]
fn readers_past_the_page_cache_get_the_same_bytes_each_at_its_own_pace() {
    if !can_mount() {
        return;
    }
    let (dir, _) = big();
    for options in [&[][..], &["-o", "direct_io"]] {
        let mounted = Mounted::with(dir.path(), options);
        let path = mounted.at("images/big:1/save.tar");
        let open =
            || if options.is_empty() { open_direct(&path) } else { File::open(&path).unwrap() };
        let whole = fs::read(&path).unwrap();
        thread::scope(|scope| {
            for (number, size) in
                [1 << 20, 1 << 20, 1 << 17, 10_240, 3 << 20, 1 << 20, 65_536, 4_000_000]
                    .into_iter()
                    .enumerate()
            {
                let (whole, file) = (&whole, open());
                scope.spawn(move || {
                    thread::sleep(Duration::from_millis(number as u64));
                    assert!(read_through(&file, size) == *whole, "{size} a read");
                });
            }
        });
        // Whoever jumps about in between leads nobody astray.
        let file = open();
        for number in 0..40 {
            let offset = (number * 7 % 10) << 20;
            let block = read_at(&file, offset, 1 << 20);
            let end = whole.len().min((offset as usize) + (1 << 20));
            assert!(block == whole[offset as usize..end], "{offset}");
        }
    }
}

#[test]
fn copies_past_the_page_cache_are_made_in_large_blocks() {
    if !can_mount() {
        return;
    }
    let (dir, _) = big();
    let plain = Mounted::new(dir.path());
    let direct = Mounted::with(dir.path(), &["-o", "direct_io"]);
    let block = |mounted: &Mounted, path: &str| fs::metadata(mounted.at(path)).unwrap().blksize();
    for (path, size) in [("images/big:1/save.tar", 1 << 19), ("images/big:1/rootfs/large", 4096)] {
        assert_eq!(block(&direct, path), size, "{path}");
        assert_eq!(block(&plain, path), 4096, "{path}");
    }
    for path in ["images/big:1/save.tar", "images/big:1/rootfs/large", "containers/web/export.tar"]
    {
        let copied = Command::new("cp").arg(direct.at(path)).arg(dir.path().join("copy")).status();
        assert!(copied.unwrap().success());
        let copy = fs::read(dir.path().join("copy")).unwrap();
        assert!(copy == fs::read(plain.at(path)).unwrap(), "{path}");
    }
}

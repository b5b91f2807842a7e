//! Layer tars as other programs write them, read as layers: the files are those on disk.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use proptest::prelude::*;
use stratafs::backing::{Access, FileKind, FileRange, Held, Root, Stat};
use stratafs::tar::tree;

/// What tells a file apart, but for its inode number.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    kind: FileKind,
    mode: u32,
    owner: (u32, u32),
    nlink: u64,
    mtime: (i64, u32),
    rdev: (u32, u32),
    /// Contents, or the target of a link.
    bytes: Vec<u8>,
    xattrs: BTreeMap<String, Vec<u8>>,
    /// The first path, in order, of the same file.
    first: PathBuf,
}

/// How finely a format tells times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Precision {
    Seconds,
    Nanoseconds,
}

fn shown(root: &Root, precision: Precision) -> BTreeMap<PathBuf, Shown> {
    let mut all = BTreeMap::new();
    let mut first = BTreeMap::new();
    let mut left = vec![PathBuf::new()];
    while let Some(above) = left.pop() {
        let (dir, mut names) = root.listed_dir(&above).unwrap();
        names.sort_by(|a, b| b.name.cmp(&a.name));
        for entry in names.iter().rev() {
            let (name, path) = (&*entry.name, above.join(&entry.name));
            let stat: Stat = dir.stat(name).unwrap();
            let xattrs = dir.xattrs(name).unwrap().into_iter().map(|attribute| {
                let value = dir.xattr(name, &attribute).unwrap().unwrap();
                (attribute.into_string().unwrap(), value)
            });
            let bytes = match stat.kind {
                FileKind::Regular => root.read(&path, 1 << 24).unwrap(),
                FileKind::Symlink => dir.read_link(name).unwrap(),
                _ => Vec::new(),
            };
            let is_dir = stat.is_dir();
            let same = first.entry((stat.dev, stat.ino)).or_insert_with(|| path.clone());
            let first = if is_dir { path.clone() } else { same.clone() };
            let nanos = if precision == Precision::Nanoseconds { stat.mtime.nanos } else { 0 };
            let shown = Shown {
                kind: stat.kind,
                mode: stat.mode,
                owner: (stat.uid, stat.gid),
                nlink: if is_dir { 1 } else { stat.nlink },
                mtime: (stat.mtime.secs, nanos),
                rdev: if matches!(stat.kind, FileKind::CharDevice) { stat.rdev } else { (0, 0) },
                bytes,
                xattrs: xattrs.collect(),
                first,
            };
            if is_dir {
                left.push(path.clone());
            }
            all.insert(path, shown);
        }
    }
    all
}

fn disk(path: &Path) -> Root {
    Root::open(path, Access::Sealed).unwrap()
}

fn packed(tar: &Path) -> Root {
    let root = Arc::new(disk(tar.parent().unwrap()));
    let bytes = FileRange::whole(&root, tar.file_name().unwrap()).unwrap();
    Root::packed(Arc::new(tree::read(&(Arc::new(bytes) as _), 1).unwrap()), tar)
}

/// Runs a program; whether it is there.
fn run(program: &str, args: &[&OsStr]) -> bool {
    match Command::new(program).args(args).output() {
        Ok(output) => {
            assert!(output.status.success(), "{program}: {output:?}");
            true
        }
        Err(_) => {
            eprintln!("skipped: {program} is not installed");
            false
        }
    }
}

/// Writers, how each is told what to write, and how finely it tells times.
const WRITERS: [(&str, &[&str], Precision); 9] = [
    (
        "tar",
        &["--format=posix", "--xattrs", "--sparse", "--sparse-version=1.0"],
        Precision::Nanoseconds,
    ),
    (
        "tar",
        &["--format=posix", "--xattrs", "--sparse", "--sparse-version=0.1"],
        Precision::Nanoseconds,
    ),
    (
        "tar",
        &["--format=posix", "--xattrs", "--sparse", "--sparse-version=0.0"],
        Precision::Nanoseconds,
    ),
    ("tar", &["--format=posix", "--xattrs"], Precision::Nanoseconds),
    ("tar", &["--format=gnu", "--sparse"], Precision::Seconds),
    ("tar", &["--format=gnu", "--blocking-factor=1"], Precision::Seconds),
    ("bsdtar", &["--format=pax"], Precision::Nanoseconds),
    ("bsdtar", &["--format=pax", "--no-read-sparse"], Precision::Nanoseconds),
    ("bsdtar", &["--format=gnutar"], Precision::Seconds),
];

/// Writes the tree with every program, and holds what is read of it to the tree.
fn compare(tree: &Path, scratch: &Path) {
    let tar = scratch.join("layer.tar");
    for (program, args, precision) in WRITERS {
        let mut all: Vec<&OsStr> = args.iter().map(OsStr::new).collect();
        let rest = [OsStr::new("--numeric-owner"), OsStr::new("-cf"), tar.as_os_str()];
        all.extend(rest);
        all.extend([OsStr::new("-C"), tree.as_os_str(), OsStr::new(".")]);
        if !run(program, &all) {
            continue;
        }
        let has_xattrs = args.contains(&"--xattrs") || args.contains(&"--format=pax");
        let mut expected = shown(&disk(tree), precision);
        if !has_xattrs {
            expected.values_mut().for_each(|file| file.xattrs.clear());
        }
        assert_eq!(shown(&packed(&tar), precision), expected, "{program} {args:?}");
    }
}

#[test]
fn tars_of_every_writer_hold_the_files_of_the_disk() {
    let (tree, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let at = |path: &str| tree.path().join(path);
    let long = format!("{}/{}", "d".repeat(120), "n".repeat(180));
    fs::create_dir_all(at(&"d".repeat(120))).unwrap();
    for (path, bytes) in [
        ("empty", &b""[..]),
        ("one", b"1"),
        ("block", &[7; 512]),
        (&long, b"long"),
        ("\u{e9}\n", b"x"),
    ] {
        fs::write(at(path), bytes).unwrap();
    }
    fs::set_permissions(at("one"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::hard_link(at("one"), at("two")).unwrap();
    symlink("s".repeat(300), at("far")).unwrap();
    fs::hard_link(at("far"), at("farther")).unwrap();
    let sparse = fs::File::create(at("sparse")).unwrap();
    for hole in 0..30u64 {
        sparse.write_all_at(&[hole as u8 + 1; 5000], hole * 100_000).unwrap();
    }
    sparse.set_len(3_333_333).unwrap();
    fs::File::create(at("hole")).unwrap().set_len(1 << 20).unwrap();
    let xattrs = [("one", "user.x", &b"\0\xff=\n"[..]), ("block", "user.y", &[1; 2000])];
    for (path, name, value) in xattrs {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(at(path), name, value, flags).unwrap();
    }
    compare(tree.path(), scratch.path());
}

/// A small file, directory, link or hole of a random tree.
fn node() -> impl Strategy<Value = (Vec<u8>, u8, u16, u32)> {
    (proptest::collection::vec(0u8..4, 1..5), 0u8..6, any::<u16>(), 0..2_000_000_000u32)
}

fn plant(tree: &Path, nodes: &[(Vec<u8>, u8, u16, u32)]) {
    let mut files: Vec<PathBuf> = Vec::new();
    for (names, kind, value, mtime) in nodes {
        let names: Vec<String> = names.iter().map(|name| format!("n{name}")).collect();
        let path = tree.join(names.join("/"));
        if path.symlink_metadata().is_ok() || fs::create_dir_all(path.parent().unwrap()).is_err() {
            continue;
        }
        let is_made = match kind {
            0 => fs::create_dir(&path).is_ok(),
            1 => symlink(format!("t{value}"), &path).is_ok(),
            2 => files.last().is_some_and(|file| fs::hard_link(file, &path).is_ok()),
            3 => {
                fs::File::create(&path).and_then(|file| file.set_len(u64::from(*value) * 7)).is_ok()
            }
            _ => fs::File::create(&path)
                .and_then(|mut file| file.write_all(&vec![*value as u8; usize::from(*value)]))
                .is_ok(),
        };
        if is_made && *kind > 2 {
            let time = std::time::UNIX_EPOCH
                + std::time::Duration::new(u64::from(*mtime), u32::from(*value) * 1000);
            fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
            fs::set_permissions(
                &path,
                fs::Permissions::from_mode(u32::from(value & 0o777) | 0o400),
            )
            .unwrap();
            files.push(path);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn tars_of_random_trees_hold_the_files_of_the_disk(
        nodes in proptest::collection::vec(node(), 0..40),
    ) {
        let (tree, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        plant(tree.path(), &nodes);
        compare(tree.path(), scratch.path());
    }

    /// Names, sizes and contents as the `tar` crate tells them, for archives that it writes.
    #[test]
    fn the_tar_crate_tells_the_same_entries(
        files in proptest::collection::vec(("[a-z]{1,150}", 0usize..2000), 0..20),
    ) {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, size) in &files {
            let mut header = tar::Header::new_gnu();
            header.set_size(*size as u64);
            header.set_mode(0o600);
            builder.append_data(&mut header, name, &vec![1; *size][..]).unwrap();
        }
        let bytes = builder.into_inner().unwrap();
        let held = Held::new("test.tar", bytes.clone());
        let mut ours = stratafs::tar::read::Entries::new(&held);
        for theirs in tar::Archive::new(&bytes[..]).entries().unwrap() {
            let theirs = theirs.unwrap();
            let entry = ours.next().unwrap().unwrap();
            prop_assert_eq!(&*entry.name, &*theirs.path_bytes());
            prop_assert_eq!(entry.size, theirs.size());
            prop_assert_eq!(entry.extents[0].from, theirs.raw_file_position());
        }
        prop_assert!(ours.next().unwrap().is_none());
    }
}

//! Our merged trees against those of the kernel's overlayfs.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use stratafs::backing::{Access, Root};
use stratafs::overlay::Stack;
use stratafs::overlay::changes::{Flavor, Kind, changes};
use stratafs::overlay::own::{OwnEntry, OwnTree, What};
use stratafs::store::{LayerDir, Marks};

use crate::support::layers::{self, Layer};
use crate::support::mounts::Mounted;
use crate::support::snapshot::{self, Attributes, Shown, Snapshot};

/// Random stacks that are compared, without `STRATAFS_CASES`; the other tests take a quarter each.
const CASES: u32 = 2000;

/// Layers of one stack at most.
const LAYERS: usize = 6;

/// Directories on a disk, where overlayfs finds all it needs, that are used again for each case.
struct Scratch {
    dir: tempfile::TempDir,
    layers: Vec<PathBuf>,
}

impl Scratch {
    fn new() -> Scratch {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let layers: Vec<_> = (0..LAYERS).map(|at| dir.path().join(at.to_string())).collect();
        layers.iter().for_each(|layer| fs::create_dir(layer).unwrap());
        for name in ["merged", "old", "empty", "upper", "work"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Scratch { dir, layers }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Builds a stack, and returns its directories.
    fn build(&self, layers: &[Layer]) -> &[PathBuf] {
        let dirs = &self.layers[..layers.len()];
        dirs.iter().for_each(|dir| layers::clear(dir));
        for at in (0..layers.len()).rev() {
            layers::build(&layers[at], dirs, at);
        }
        dirs
    }

    /// Builds three layers of these files.
    fn build_by_hand(&self, files: &[Made]) -> &[PathBuf] {
        let dirs = &self.layers[..3];
        dirs.iter().for_each(|dir| layers::clear(dir));
        for (layer, path, xattrs) in files {
            let at = dirs[*layer].join(path);
            match path.ends_with('/') {
                true => fs::create_dir_all(&at).unwrap(),
                false => {
                    fs::create_dir_all(at.parent().unwrap()).unwrap();
                    fs::File::create(&at).unwrap().set_len(10_000).unwrap();
                }
            }
            for (name, value) in *xattrs {
                let name = format!("trusted.overlay.{name}");
                let flags = rustix::fs::XattrFlags::empty();
                rustix::fs::lsetxattr(&at, name, value.as_bytes(), flags).unwrap();
            }
        }
        dirs
    }
}

fn stack(dirs: &[PathBuf]) -> Stack {
    let layer = |(at, dir): (usize, &PathBuf)| layer_dir(dir, at as u64, Marks::Trusted);
    Stack::new(dirs.iter().enumerate().map(layer).collect())
}

fn layer_dir(dir: &Path, identity: u64, marks: Marks) -> LayerDir {
    LayerDir {
        root: Arc::new(Root::open(dir, Access::Sealed).unwrap()),
        identity,
        marks,
        owners: None,
    }
}

fn cases() -> u32 {
    env::var("STRATAFS_CASES").map_or(CASES, |cases| cases.parse().unwrap())
}

/// Runs `test` with that many random values, the same ones every time.
fn check<S: Strategy>(
    cases: u32,
    strategy: &S,
    test: impl Fn(S::Value) -> Result<(), TestCaseError>,
) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    if let Err(failure) = TestRunner::new_with_rng(config, rng).run(strategy, test) {
        panic!("{failure}");
    }
}

/// True where mounts are possible.
fn can_mount() -> bool {
    let scratch = Scratch::new();
    let is_possible = Mounted::read_only(&scratch.layers, &scratch.path("merged")).is_ok();
    if !is_possible {
        eprintln!("skipped: no overlay can be mounted here");
    }
    is_possible
}

/// Compares what a kernel overlay shows at `root` with what we show.
///
/// In a directory marked `x` the kernel looks at each file while it lists. There a metacopy without
/// data makes the listing fail, or is not listed although asking for it is an error.
fn compare(root: &Path, kernel: &Snapshot, ours: &Snapshot) -> Result<(), TestCaseError> {
    let closed: Vec<_> =
        kernel.iter().filter(|(_, shown)| **shown == Shown::Closed).map(|(path, _)| path).collect();
    let is_known = |path: &[u8]| !closed.iter().any(|dir| path.starts_with(dir));
    for (path, shown) in kernel.iter().filter(|(path, _)| is_known(path)) {
        let path_shown = path.escape_ascii();
        prop_assert_eq!(Some(shown), ours.get(path), "kernel left, ours right: {}", path_shown);
    }
    for (path, shown) in ours.iter().filter(|(path, _)| is_known(path)) {
        let is_unlisted = *shown == Shown::Damaged && snapshot::is_damaged(root, path);
        let is_there = kernel.contains_key(path) || is_unlisted;
        prop_assert!(is_there, "the kernel has no {}: {:?}", path.escape_ascii(), shown);
    }
    Ok(())
}

/// Opens as in a chroot. A rename anywhere meanwhile makes the kernel ask to try again.
fn open_inside(root: &fs::File, path: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let open = || rustix::fs::openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT);
    (0..1000).map(|_| open()).find(|opened| !matches!(opened, Err(Errno::AGAIN))).unwrap()
}

/// Follows paths, all that lead over a symlink among them, as we do and as the kernel does when it
/// is told to stay inside.
fn compare_paths(root: &Path, kernel: &Snapshot, stack: &Stack) -> Result<(), TestCaseError> {
    let root = fs::File::open(root).unwrap();
    let symlinks = kernel.iter().filter(|(_, shown)| match shown {
        Shown::File(file) => file.target.is_some(),
        Shown::Damaged | Shown::Closed => false,
    });
    let mut paths: Vec<_> = symlinks.map(|(path, _)| path.clone()).collect();
    paths.push(b"a".to_vec());
    for path in paths {
        for end in [&b""[..], b"/", b"/a", b"/..", b"/../b", b"/./c/../../../a"] {
            let path = [&path, end].concat();
            let theirs = open_inside(&root, &path).and_then(rustix::fs::fstat).map(|stat| {
                (stat.st_mode, stat.st_size as u64, stat.st_mtime, stat.st_mtime_nsec as u32)
            });
            let ours = stack.resolve(&path).map(|entry| {
                let stat = entry.stat;
                (stat.mode, stat.size, stat.mtime.secs, stat.mtime.nanos)
            });
            let is_same = match (&theirs, &ours) {
                (Ok(theirs), Ok(ours)) => theirs == ours,
                (Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP), Err(ours)) => {
                    theirs == Err(ours.errno())
                }
                (Err(_), Err(_)) => true, // damaged
                (Ok(_), Err(_)) | (Err(_), Ok(_)) => false,
            };
            let path = path.escape_ascii();
            prop_assert!(is_same, "{}: kernel {:?}, ours {:?}", path, theirs, ours);
        }
    }
    Ok(())
}

#[test]
fn a_stack_shows_what_a_kernel_overlay_shows() {
    if !can_mount() {
        return;
    }
    let scratch = Scratch::new();
    let (all, refused) = (AtomicU32::new(0), AtomicU32::new(0));
    check(cases(), &layers::stacks(LAYERS), |layers| {
        let mut dirs = scratch.build(&layers).to_vec();
        if dirs.len() == 1 {
            // The kernel wants two.
            dirs.push(scratch.path("empty"));
        }
        all.fetch_add(1, Ordering::Relaxed);
        let Ok(mounted) = Mounted::read_only(&dirs, &scratch.path("merged")) else {
            refused.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        };
        let kernel = snapshot::of_directory(mounted.path());
        let stack = stack(&dirs);
        compare(mounted.path(), &kernel, &snapshot::of_stack(&stack))?;
        compare_paths(mounted.path(), &kernel, &stack)
    });
    let (all, refused) = (all.into_inner(), refused.into_inner());
    assert!(refused * 10 <= all, "the kernel refused {refused} of {all} stacks");
}

/// A path in a layer (a directory where it ends in a slash), and its xattrs.
type Made = (usize, &'static str, &'static [(&'static str, &'static str)]);

#[test]
fn rare_stacks_show_what_a_kernel_overlay_shows() {
    if !can_mount() {
        return;
    }
    let redirected: &[Made] = &[
        // An absolute redirect leads on from below an opaque directory (xfstests overlay/057).
        (0, "new/", &[("redirect", "/a/b")]),
        (1, "a/", &[("opaque", "y")]),
        (1, "a/b/", &[("redirect", "/x/y")]),
        (1, "a/b/one", &[]),
        (2, "x/y/two", &[]),
        (2, "a/b/hidden", &[]),
        // Two directories lead to the same one (xfstests overlay/049).
        (0, "other/", &[("redirect", "/x/y")]),
        // A directory on the way has another name below.
        (0, "far/", &[("redirect", "/p/q/r")]),
        (1, "p/q/", &[("redirect", "s")]),
        (1, "p/q/r/three", &[]),
        (2, "p/s/r/four", &[]),
    ];
    let metacopies: &[Made] = &[
        (0, "chain", &[("metacopy", ""), ("redirect", "/d/first")]),
        (1, "d/first", &[("metacopy", ""), ("redirect", "second")]),
        (2, "d/second", &[]),
        (0, "short", &[("metacopy", "a")]),
        (1, "short", &[]),
        (0, "over-directory", &[("metacopy", "")]),
        (1, "over-directory/", &[]),
        (2, "over-directory", &[]),
        (0, "of-metacopy", &[("metacopy", "")]),
        (1, "of-metacopy", &[("metacopy", "long enough")]),
        (2, "of-metacopy", &[]),
    ];
    let scratch = Scratch::new();
    for case in [redirected, metacopies] {
        let dirs = scratch.build_by_hand(case);
        let mounted = Mounted::read_only(dirs, &scratch.path("merged")).unwrap();
        let kernel = snapshot::of_directory(mounted.path());
        compare(mounted.path(), &kernel, &snapshot::of_stack(&stack(dirs))).unwrap();
    }
}

#[test]
fn a_redirect_out_of_the_layers_is_refused() {
    let scratch = Scratch::new();
    let dirs = scratch.build_by_hand(&[
        (0, "up/", &[("redirect", "..")]),
        (0, "out/", &[("redirect", "/../../etc")]),
        (0, "here/", &[("redirect", "/./here")]),
        (0, "file", &[]),
        (2, "file", &[]),
    ]);
    let long = format!("/{}", "d/".repeat(2000));
    let path = dirs[0].join("long");
    fs::create_dir(&path).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::lsetxattr(&path, "trusted.overlay.redirect", long.as_bytes(), flags).unwrap();
    let stack = stack(dirs);
    let root = stack.root().unwrap();
    let listing = stack.read_dir(&root).unwrap();
    let names: Vec<_> = listing.entries.iter().map(|entry| entry.name.to_str().unwrap()).collect();
    assert_eq!(names, ["file"]);
    let damaged: Vec<_> = listing.damaged.iter().map(|(name, _)| name.to_str().unwrap()).collect();
    assert_eq!(damaged, ["here", "long", "out", "up"]);
    for name in damaged {
        let err = stack.lookup(&root, OsStr::new(name)).unwrap_err();
        assert_eq!(err.errno(), Errno::IO, "{err}");
    }
}

#[test]
fn a_written_overlay_shows_what_the_kernel_shows_and_tells_its_changes() {
    if !can_mount() {
        return;
    }
    let scratch = Scratch::new();
    let options = prop::sample::select(vec![
        "redirect_dir=on,metacopy=on",
        "redirect_dir=on,metacopy=off",
        "redirect_dir=off,metacopy=off",
    ]);
    let layers = (layers::plain_layer(), layers::plain_layer());
    check(
        cases() / 4,
        &(layers, layers::actions(), options),
        |((upper, lower), actions, options)| {
            let lowers = scratch.build(&[upper, lower]);
            let (upper, work) = (scratch.path("upper"), scratch.path("work"));
            [&upper, &work].into_iter().for_each(|dir| layers::clear(dir));
            let at = scratch.path("merged");
            let mounted = Mounted::writable(&upper, &work, lowers, &at, options).unwrap();
            actions.iter().for_each(|action| layers::act(mounted.path(), action));
            let kernel = snapshot::of_directory(mounted.path());
            let mut dirs = vec![upper];
            dirs.extend_from_slice(lowers);
            let new = stack(&dirs);
            compare(mounted.path(), &kernel, &snapshot::of_stack(&new))?;

            let old_mount = Mounted::read_only(lowers, &scratch.path("old")).unwrap();
            let old_kernel = snapshot::of_directory(old_mount.path());
            let old = Stack::new(new.layers()[1..].to_vec());
            compare_changes((&new, &kernel), (&old, &old_kernel))?;
            if options == "redirect_dir=off,metacopy=off" {
                let own = OwnTree::overlay(new.layers()[0].clone());
                compare_names(&old_kernel, &own, &kernel)?;
            }
            Ok(())
        },
    );
}

#[test]
fn a_layers_own_directory_has_names_for_what_it_hides() {
    let scratch = Scratch::new();
    let dirs = scratch.build_by_hand(&[
        (0, "dir/", &[("opaque", "y"), ("redirect", "/..")]),
        (0, "dir/new", &[]),
        (0, ".wh.both", &[]),
    ]);
    for name in ["gone", "both"] {
        let mode = Mode::from_raw_mode(0o644);
        let kind = rustix::fs::FileType::CharacterDevice;
        rustix::fs::mknodat(rustix::fs::CWD, dirs[0].join(name), kind, mode, 0).unwrap();
    }
    let own = OwnTree::overlay(layer_dir(&dirs[0], 0, Marks::Trusted));
    let shown = |dir: &str| {
        let entries = own.read_dir(dir.as_bytes()).unwrap();
        let shown = |entry: &OwnEntry| {
            format!("{} {:o} {}", entry.name.to_str().unwrap(), entry.stat.mode, entry.stat.size)
        };
        entries.iter().map(shown).collect::<Vec<_>>()
    };
    assert_eq!(shown(""), [".wh.both 100644 10000", ".wh.gone 100600 0", "dir 40755 4096"]);
    assert_eq!(shown("dir"), [".wh..wh..opq 100755 0", "new 100644 10000"]);
    let dir = own.lookup(b"", OsStr::new("dir")).unwrap().unwrap();
    let redirect = own.xattr(&dir, OsStr::new("trusted.overlay.redirect")).unwrap();
    assert_eq!(redirect.as_deref(), Some(&b"/.."[..]));
    for missing in ["gone", ".wh.dir", "dir/x"] {
        let (dir, name) = missing.rsplit_once('/').unwrap_or(("", missing));
        assert!(own.lookup(dir.as_bytes(), OsStr::new(name)).unwrap().is_none(), "{missing}");
    }
}

/// Mode and contents of a file.
type Visible = (u32, Option<Vec<u8>>);

/// What a snapshot says but for times and counts, which making a mark changes.
fn visible(snapshot: &Snapshot) -> BTreeMap<Vec<u8>, Option<Visible>> {
    let shown = |(path, shown): (&Vec<u8>, &Shown)| match shown {
        Shown::File(file) => (path.clone(), Some((file.mode, file.contents.clone()))),
        _ => (path.clone(), None),
    };
    snapshot.iter().map(shown).collect()
}

/// Hides each of these names, where nothing else has it, or makes a directory opaque.
fn mark_as_overlayfs(dir: &Path, marks: &[layers::Names]) {
    for names in marks {
        let path = dir.join(layers::on_disk(names));
        let flags = rustix::fs::XattrFlags::empty();
        match path.symlink_metadata() {
            Ok(data) if data.is_dir() => {
                rustix::fs::lsetxattr(&path, "trusted.overlay.opaque", b"y", flags).unwrap();
            }
            Ok(_) => {}
            Err(_) => {
                // Nothing to do where the directory is missing.
                let kind = rustix::fs::FileType::CharacterDevice;
                let _ = rustix::fs::mknodat(rustix::fs::CWD, &path, kind, Mode::empty(), 0);
            }
        }
    }
}

/// Takes away what fuse-overlayfs would heed and the kernel, for root, would not.
fn unmark_for_users(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.symlink_metadata().unwrap().is_dir() {
            // Few directories have it.
            let _ = rustix::fs::lremovexattr(&path, "user.overlay.opaque");
            unmark_for_users(&path);
        }
    }
}

/// Turns the marks below `dir` into names. False where one leaves no room for the prefix.
fn mark_by_names(dir: &Path) -> bool {
    let mut is_whole = true;
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let path = entry.path();
        let data = path.symlink_metadata().unwrap();
        if data.file_type().is_char_device() && data.rdev() == 0 {
            let name = [b".wh.", entry.file_name().as_bytes()].concat();
            fs::remove_file(&path).unwrap();
            is_whole &= fs::write(dir.join(OsStr::from_bytes(&name)), "").is_ok();
        } else if data.is_dir() {
            is_whole &= mark_by_names(&path);
            let opaque = "trusted.overlay.opaque";
            if rustix::fs::lremovexattr(&path, opaque).is_ok() {
                fs::write(path.join(".wh..wh..opq"), "").unwrap();
            }
        }
    }
    is_whole
}

#[test]
fn names_hide_what_devices_and_xattrs_hide() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let scratch = Scratch::new();
    let marks = || proptest::collection::vec(layers::names(), 0..6);
    let layer = || (layers::plain_layer(), marks());
    let stacks = proptest::collection::vec(layer(), 1..=4);
    check(cases() / 10, &stacks, |made| {
        let plain: Vec<Layer> = made.iter().map(|(layer, _)| layer.clone()).collect();
        let dirs = scratch.build(&plain);
        for (dir, (_, marks)) in dirs.iter().zip(&made) {
            unmark_for_users(dir);
            mark_as_overlayfs(dir, marks);
        }
        let expected = visible(&snapshot::of_stack(&stack(dirs)));
        let seen = |marks| {
            let dirs = dirs.iter().enumerate();
            let dirs = dirs.map(|(at, dir)| layer_dir(dir, at as u64, marks));
            visible(&snapshot::of_stack(&Stack::new(dirs.collect())))
        };
        prop_assert_eq!(&seen(Marks::Fuse), &expected);
        if dirs.iter().all(|dir| mark_by_names(dir)) {
            prop_assert_eq!(&seen(Marks::Fuse), &expected);
            prop_assert_eq!(&seen(Marks::Aufs), &expected);
        }
        Ok(())
    });
}

#[test]
fn a_name_that_marks_is_never_shown_and_spares_its_own_layer() {
    let scratch = Scratch::new();
    let dirs = scratch.build_by_hand(&[
        (0, ".wh.both", &[]),
        (0, "both", &[]),
        (0, ".wh.dir", &[]),
        (0, "dir/new", &[]),
        (0, ".wh..wh.plnk/1.2", &[]),
        (0, ".wh..wh.orph/", &[]),
        (0, ".wh..wh.aufs", &[]),
        (0, ".wh.", &[]),
        (0, ".wh.gone", &[]),
        (1, "both/below", &[]),
        (1, "dir/old", &[]),
        (1, "gone/below", &[]),
        (1, "kept", &[]),
    ]);
    for marks in [Marks::Fuse, Marks::Aufs] {
        let dirs = dirs.iter().enumerate();
        let dirs = dirs.map(|(at, dir)| layer_dir(dir, at as u64, marks)).collect();
        let stack = Stack::new(dirs);
        let names: Vec<Vec<u8>> = snapshot::of_stack(&stack).into_keys().collect();
        assert_eq!(names, [&b""[..], b"both", b"dir", b"dir/new", b"kept"], "{marks:?}");
        let root = stack.root().unwrap();
        for name in [".wh.both", ".wh..wh.aufs", ".wh.kept", "gone"] {
            assert!(stack.lookup(&root, OsStr::new(name)).unwrap().is_none(), "{name}");
        }
    }
}

#[test]
fn a_compared_layer_has_its_changes_only() {
    let scratch = Scratch::new();
    let dirs = scratch.build_by_hand(&[
        (0, "same/deep/file", &[]),
        (1, "same/deep/file", &[]),
        (0, "changed/deep/file", &[]),
        (1, "changed/deep/", &[]),
        (1, "changed/old", &[]),
    ]);
    let same = Path::new("same/deep/file");
    let times = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
    for dir in &dirs[..2] {
        fs::File::open(dir.join(same)).unwrap().set_times(times).unwrap();
    }
    let [new, old] =
        [0, 1].map(|at| Stack::new(vec![layer_dir(&dirs[at], at as u64, Marks::Complete)]));
    let changes = changes(&new, &old, Flavor::From28).unwrap();
    let own = OwnTree::compared(new, &changes);
    let names = |dir: &str| {
        let entries = own.read_dir(dir.as_bytes())?;
        let names = entries.into_iter().map(|entry| entry.name.into_string().unwrap());
        Ok::<_, stratafs::error::Error>(names.collect::<Vec<_>>())
    };
    assert_eq!(names("").unwrap(), ["changed"]);
    assert_eq!(names("changed").unwrap(), [".wh.old", "deep"]);
    assert_eq!(names("changed/deep").unwrap(), ["file"]);
    assert!(names("same").unwrap_err().is_not_found());
    assert!(names("same/deep").unwrap_err().is_not_found());
}

#[test]
fn full_trees_tell_their_changes() {
    let scratch = Scratch::new();
    check(cases() / 4, &layers::versions(), |versions| {
        let dirs = scratch.build(&versions);
        let [new, old] = [0, 1].map(|at| {
            let layer = layer_dir(&dirs[at], at as u64, Marks::Complete);
            (Stack::new(vec![layer]), snapshot::of_directory(&dirs[at]))
        });
        for (stack, kernel) in [&new, &old] {
            prop_assert_eq!(&snapshot::of_stack(stack), kernel);
        }
        compare_changes((&new.0, &new.1), (&old.0, &old.1))?;
        let changes = changes(&new.0, &old.0, Flavor::From28).unwrap();
        let own = OwnTree::compared(new.0.clone(), &changes);
        compare_names(&old.1, &own, &new.1)?;
        let all = OwnTree::full(new.0);
        compare_names(&Snapshot::from([(Vec::new(), new.1[&b""[..]].clone())]), &all, &new.1)
    });
}

/// Compares [`changes`] with the comparison of whole snapshots.
fn compare_changes(
    (new, new_tree): (&Stack, &Snapshot),
    (old, old_tree): (&Stack, &Snapshot),
) -> Result<(), TestCaseError> {
    for flavor in [Flavor::UpTo27, Flavor::From28] {
        let changes = changes(new, old, flavor).unwrap();
        let ours: BTreeMap<_, _> =
            changes.iter().map(|change| (change.path.to_vec(), change.kind)).collect();
        let naive = naive_changes(new_tree, old_tree, flavor);
        prop_assert_eq!(naive, ours, "naive left, ours right, {:?}", flavor);
    }
    Ok(())
}

/// `ChangesDirs` and `addChanges` of moby, over whole snapshots.
fn naive_changes(new: &Snapshot, old: &Snapshot, flavor: Flavor) -> BTreeMap<Vec<u8>, Kind> {
    let mut changes = BTreeMap::new();
    add_changes((new, old), b"", true, flavor, &mut changes);
    changes
}

fn add_changes(
    (new, old): (&Snapshot, &Snapshot),
    path: &[u8],
    was_there: bool,
    flavor: Flavor,
    changes: &mut BTreeMap<Vec<u8>, Kind>,
) {
    let before = changes.len();
    let is_dir = is_directory(&new[path], flavor);
    let mut gone = BTreeSet::new();
    if was_there && is_dir {
        gone = children(old, path);
    }
    for child in children(new, path) {
        let shown = [b"/", child.as_slice()].concat();
        let was_there = gone.remove(&child);
        if !was_there {
            changes.insert(shown, Kind::Added);
        } else if is_different(&new[&child], &old[&child], flavor) {
            changes.insert(shown, Kind::Modified);
        }
        add_changes((new, old), &child, was_there, flavor, changes);
    }
    for child in gone {
        changes.insert([b"/", child.as_slice()].concat(), Kind::Deleted);
    }
    if changes.len() > before && is_dir && !path.is_empty() {
        changes.entry([b"/", path].concat()).or_insert(Kind::Modified);
    }
}

fn children(tree: &Snapshot, dir: &[u8]) -> BTreeSet<Vec<u8>> {
    let is_child = |path: &&Vec<u8>| {
        let slash = path.iter().rposition(|&byte| byte == b'/');
        !path.is_empty() && path[..slash.unwrap_or(0)] == *dir
    };
    tree.keys().filter(is_child).cloned().collect()
}

fn file(shown: &Shown) -> &Attributes {
    match shown {
        Shown::File(file) => file,
        Shown::Damaged | Shown::Closed => panic!("damaged"),
    }
}

fn is_directory(shown: &Shown, flavor: Flavor) -> bool {
    match flavor {
        Flavor::UpTo27 => file(shown).mode & 0o040_000 != 0,
        Flavor::From28 => file(shown).mode & 0o170_000 == 0o040_000,
    }
}

fn is_different(new: &Shown, old: &Shown, flavor: Flavor) -> bool {
    let capability = |shown| file(shown).xattrs.get(OsStr::new("security.capability")).cloned();
    let (a, b) = (file(new), file(old));
    let is_same_time =
        a.mtime.0 == b.mtime.0 && (a.mtime.1 == b.mtime.1 || a.mtime.1 == 0 || b.mtime.1 == 0);
    (a.mode, a.owner, a.rdev) != (b.mode, b.owner, b.rdev)
        || capability(new).unwrap_or_default() != capability(old).unwrap_or_default()
        || !(is_directory(old, flavor) || is_same_time && a.size == b.size)
}

/// Puts a layer's own files over the names of what is below: that must give the names and the
/// visible attributes of the merged tree.
fn compare_names(old: &Snapshot, own: &OwnTree, new: &Snapshot) -> Result<(), TestCaseError> {
    let mut tree: BTreeMap<Vec<u8>, Shown> = old.clone();
    let mut open = vec![Vec::new()];
    while let Some(dir) = open.pop() {
        let entries = own.read_dir(&dir).unwrap();
        let join = |name: &[u8]| match dir.is_empty() {
            true => name.to_vec(),
            false => [&dir, &b"/"[..], name].concat(),
        };
        let mut remove = |path: &[u8], itself: bool| {
            tree.retain(|other, _| {
                let is_below = other.starts_with(path) && other.get(path.len()) == Some(&b'/')
                    || path.is_empty() && !other.is_empty();
                !(is_below || itself && other == path)
            });
        };
        if entries.iter().any(|entry| entry.what == What::Opaque) {
            remove(&dir, false);
        }
        let mut added = Vec::new();
        for entry in entries {
            let found = own.lookup(&dir, &entry.name).unwrap();
            prop_assert_eq!(format!("{:?}", Some(&entry)), format!("{:?}", found));
            let name = entry.name.as_bytes();
            match entry.what {
                What::Opaque => {}
                What::Whiteout => remove(&join(&name[4..]), true),
                What::File(_) => {
                    let path = join(name);
                    if entry.stat.is_dir() {
                        open.push(path.clone());
                    }
                    let was_dir = tree_kind(old, &path);
                    if !(entry.stat.is_dir() && was_dir) {
                        remove(&path, true);
                    }
                    added.push(path);
                }
            }
        }
        for path in added {
            let shown = new.get(&path);
            prop_assert!(shown.is_some(), "not in the merged tree: {}", path.escape_ascii());
            tree.insert(path.clone(), new[&path].clone());
        }
    }
    let names: Vec<_> = tree.keys().collect();
    prop_assert_eq!(names, new.keys().collect::<Vec<_>>());
    for (path, shown) in tree.iter().filter(|(path, _)| !path.is_empty()) {
        prop_assert!(!is_different(&new[path], shown, Flavor::From28), "{}", path.escape_ascii());
    }
    Ok(())
}

fn tree_kind(tree: &Snapshot, path: &[u8]) -> bool {
    tree.get(path).is_some_and(|shown| is_directory(shown, Flavor::From28))
}

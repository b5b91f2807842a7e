//! One Docker data root under several drivers: what it shows is the same.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use stratafs::backing::FileKind;

use crate::stores::handmade::{CREATED, DataRoot, exited, make_opaque, set_mtime, whiteout};
use crate::stores::view::View;

/// A data root on overlay2 with every kind of change, in the directory `path`.
pub(crate) fn build(path: &Path) {
    let mut root = DataRoot::create(path);
    let write = |dir: &Path, name: &str| {
        fs::create_dir_all(dir.join(name).parent().unwrap()).unwrap();
        fs::write(dir.join(name), name).unwrap();
    };
    let base = root.layer(None, |dir| {
        for name in ["changed", "gone", "hidden/x", "dir/kept", "dir/gone", "swap/below"] {
            write(dir, name);
        }
    });
    let top = root.layer(Some(&base), |dir| {
        fs::write(dir.join("changed"), "otherwise").unwrap();
        write(dir, "hidden/new");
        make_opaque(&dir.join("hidden"));
        write(dir, "dir/added");
        whiteout(&dir.join("gone"));
        whiteout(&dir.join("dir/gone"));
        write(dir, "swap");
    });
    let image = root.image(&[&base, &top], CREATED);
    root.tag("app:1", &image);
    root.container("web", ("app:1", &image), &top, &exited(), |dir| {
        write(dir, "own");
        fs::create_dir(dir.join("dir")).unwrap();
        whiteout(&dir.join("dir/kept"));
        whiteout(&dir.join("hidden"));
    });
}

/// Turns overlayfs's marks into names.
pub(crate) fn mark_by_names(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let data = path.symlink_metadata().unwrap();
        if data.file_type().is_char_device() && data.rdev() == 0 {
            fs::remove_file(&path).unwrap();
            let name = [b".wh.", entry.file_name().as_bytes()].concat();
            fs::write(dir.join(std::ffi::OsStr::from_bytes(&name)), "").unwrap();
        } else if data.is_dir() {
            mark_by_names(&path);
            if rustix::fs::lremovexattr(&path, "trusted.overlay.opaque").is_ok() {
                fs::write(path.join(".wh..wh..opq"), "").unwrap();
            }
            set_mtime(&path, data.mtime(), data.mtime_nsec());
        }
    }
}

/// The names of the driver's directories, and those of the ones below each, nearest first.
fn directories(root: &Path) -> BTreeMap<String, Vec<String>> {
    let home = root.join("overlay2");
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(&home).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if name == "l" {
            continue;
        }
        let lower = fs::read_to_string(entry.path().join("lower")).unwrap_or_default();
        let follow = |link: &str| {
            let target = fs::read_link(home.join(link)).unwrap();
            target.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned()
        };
        found.insert(name, lower.split(':').filter(|it| !it.is_empty()).map(follow).collect());
    }
    found
}

/// Moves the data root to another driver, whose directory is made already.
fn rename(root: &Path, driver: &str) {
    fs::rename(root.join("image/overlay2"), root.join("image").join(driver)).unwrap();
    for entry in fs::read_dir(root.join("containers")).unwrap().map(Result::unwrap) {
        let path = entry.path().join("config.v2.json");
        let config = fs::read_to_string(&path).unwrap();
        fs::write(path, config.replace("\"overlay2\"", &format!("\"{driver}\""))).unwrap();
    }
}

pub(crate) fn to_fuse(root: &Path) {
    for name in directories(root).keys() {
        mark_by_names(&root.join("overlay2").join(name).join("diff"));
    }
    fs::rename(root.join("overlay2"), root.join("fuse-overlayfs")).unwrap();
    rename(root, "fuse-overlayfs");
}

pub(crate) fn to_aufs(root: &Path) {
    let home = root.join("aufs");
    for part in ["diff", "layers", "mnt"] {
        fs::create_dir_all(home.join(part)).unwrap();
    }
    for (name, below) in directories(root) {
        let diff = home.join("diff").join(&name);
        fs::rename(root.join("overlay2").join(&name).join("diff"), &diff).unwrap();
        mark_by_names(&diff);
        for own in [".wh..wh.plnk", ".wh..wh.orph"] {
            fs::create_dir(diff.join(own)).unwrap();
        }
        fs::write(diff.join(".wh..wh.aufs"), "").unwrap();
        let below: String = below.iter().map(|id| format!("{id}\n")).collect();
        fs::write(home.join("layers").join(name), below).unwrap();
    }
    rename(root, "aufs");
}

/// Every path below `path`, with what a file holds.
fn tree(view: &View, path: &str) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for name in view.names(path) {
        let path = format!("{path}/{name}");
        match view.attr(&path).unwrap().kind {
            FileKind::Directory => found.extend(tree(view, &path)),
            _ => drop(found.insert(path.clone(), view.read(&path))),
        }
    }
    found
}

/// What is the same under every driver.
pub(crate) fn shown(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let view = View::of(root);
    let mut shown = BTreeMap::new();
    let layers = "images/app:1/layers";
    for name in view.names(layers) {
        for part in ["layer.tar", "changes"] {
            let path = format!("{layers}/{name}/{part}");
            shown.insert(path.clone(), view.read(&path));
        }
        shown.extend(tree(&view, &format!("{layers}/{name}/diff")));
    }
    for path in ["images/app:1/rootfs", "containers/web/rootfs", "containers/web/diff"] {
        shown.extend(tree(&view, path));
    }
    let changes = "containers/web/changes";
    shown.insert(changes.to_owned(), view.read(changes));
    shown
}

#[test]
fn every_driver_shows_the_same() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let first = tempfile::tempdir().unwrap();
    build(first.path());
    let expected = shown(first.path());
    let changes = String::from_utf8(expected["containers/web/changes"].clone()).unwrap();
    assert_eq!(changes, "C /dir\nD /dir/kept\nD /hidden\nA /own\n");
    for (driver, turn) in [("fuse-overlayfs", to_fuse as fn(&Path)), ("aufs", to_aufs)] {
        let root = tempfile::tempdir().unwrap();
        let (from, to) = (first.path().join("."), root.path());
        let copied = Command::new("cp").arg("-a").args([from.as_path(), to]).status();
        assert!(copied.unwrap().success());
        turn(root.path());
        let found = shown(root.path());
        let names = |shown: &BTreeMap<String, Vec<u8>>| shown.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&found), names(&expected), "{driver}");
        for (path, bytes) in &expected {
            assert!(&found[path] == bytes, "{driver}: {path}");
        }
        let view = View::of(root.path());
        for archive in ["save.tar", "export.tar", "diff.tar"] {
            let bytes = view.read(&format!("containers/web/{archive}"));
            let entries = tar::Archive::new(&bytes[..]).entries().unwrap().count();
            assert!(entries > 3, "{driver}: {archive}");
        }
    }
}

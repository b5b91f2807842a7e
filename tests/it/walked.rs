//! Trees that were walked, as a kernel walks: it remembers every file, the daemon little of each.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::XattrFlags;
use rustix::io::Errno;
use stratafs::backing::FileKind;
use stratafs::tree::{Attr, Reader, Sum};

use crate::stores::handmade::{CREATED, CREATED_SECS, DataRoot, Layer, set_mtime, whiteout};
use crate::stores::sample::{noise, write};
use crate::stores::view::{ROOT_USER, View};

/// More than there is room for listings of.
const DIRECTORIES: u32 = 40;
const FILES: u32 = 60;

/// `app:1`, of two layers: many files in many directories, and what else there is.
fn app() -> (tempfile::TempDir, DataRoot, Layer) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut root = DataRoot::create(dir.path());
    let base = root.layer(None, |dir| {
        for number in 0..DIRECTORIES * FILES {
            let name = format!("d{:02}/f{:02}", number / FILES, number % FILES);
            write(dir, &name, &noise(number, number as usize * 53 % 300));
        }
        let file = dir.join("d07/f07");
        rustix::fs::setxattr(&file, "user.note", b"noted", XattrFlags::empty()).unwrap();
        symlink("../f03", dir.join("d03/link")).unwrap();
        fs::create_dir(dir.join("links")).unwrap();
        fs::hard_link(dir.join("d05/f05"), dir.join("links/five")).unwrap();
    });
    let upper = root.layer(Some(&base), |dir| {
        write(dir, "d01/f01", b"of the upper layer\n");
        whiteout(&dir.join("d01/f02"));
    });
    let image = root.image(&[&base, &upper], CREATED);
    root.tag("app:1", &image);
    (dir, root, base)
}

/// All below a directory, by path, each looked up once. Directories are listed before what is in
/// them is looked at.
fn walk(view: &View, top: &str) -> BTreeMap<String, Attr> {
    let mut known = BTreeMap::new();
    let mut open = vec![(String::new(), view.attr(top).unwrap())];
    while let Some((path, dir)) = open.pop() {
        for child in &view.tree.read_dir(dir.ino).unwrap().children {
            let attr = view.tree.lookup(dir.ino, &child.name).unwrap();
            let path = format!("{path}/{}", child.name.to_str().unwrap());
            if attr.kind == FileKind::Directory {
                open.push((path.clone(), attr));
            }
            known.insert(path, attr);
        }
    }
    known
}

/// Everything that can be asked for of a file but its bytes.
fn told(view: &View, ino: u64) -> (Attr, Vec<(String, Vec<u8>)>) {
    let names = view.tree.xattrs(ino, ROOT_USER).unwrap().into_iter();
    let value = |name: &OsStr| view.tree.xattr(ino, name, ROOT_USER).unwrap();
    let xattrs = names.map(|name| (name.to_str().unwrap().to_owned(), value(&name)));
    (view.tree.attr(ino).unwrap(), xattrs.collect())
}

#[test]
fn files_of_a_tree_that_was_walked_are_found_again() {
    let (_dir, _root, base) = app();
    let view = View::of(_dir.path());
    let lowest = format!("images/app:1/layers/00-{}/diff", &base.diff_id["sha256:".len()..][..12]);
    for top in ["images/app:1/rootfs", &lowest] {
        let known = walk(&view, top);
        assert!(known.len() > (DIRECTORIES * FILES) as usize);
        for (path, attr) in &known {
            let (again, xattrs) = told(&view, attr.ino);
            assert_eq!(again, *attr, "{path}");
            assert_eq!(xattrs.len(), usize::from(path == "/d07/f07"), "{path}");
            match attr.kind {
                FileKind::Regular => {
                    let bytes = match &path[..] {
                        "/d01/f01" if top != lowest => b"of the upper layer\n".to_vec(),
                        path => fs::read(base.diff.join(&path[1..])).unwrap(),
                    };
                    assert!(view.read_node(attr).unwrap() == bytes, "{path}");
                }
                FileKind::Symlink => assert_eq!(view.tree.read_link(attr.ino).unwrap(), b"../f03"),
                _ => assert_eq!(attr.kind, FileKind::Directory),
            }
        }
        assert_eq!(known["/links/five"].ino, known["/d05/f05"].ino);
        assert_eq!(known.contains_key("/d01/f02"), top == lowest);
        let sum = view.tree.sum(known["/d07/f08"].ino, Sum::Sha256, &Default::default()).unwrap();
        let bytes = fs::read(base.diff.join("d07/f08")).unwrap();
        assert_eq!(sum, stratafs::digest::Digest::of(&bytes).hex().into_bytes());
    }
}

/// Walks something else, so that no listing of `app:1` is kept.
fn crowd_out(view: &View) {
    walk(view, "images/other:1/rootfs");
}

fn with_another(root: &mut DataRoot) {
    let layer = root.layer(None, |dir| {
        (0..DIRECTORIES * FILES).for_each(|number| write(dir, &format!("all/f{number}"), b""));
    });
    let image = root.image(&[&layer], CREATED);
    root.tag("other:1", &image);
}

#[test]
fn a_file_outlives_the_directories_that_it_was_found_in() {
    let (dir, mut root, base) = app();
    with_another(&mut root);
    let view = View::of(dir.path());
    let known = walk(&view, "images/app:1/rootfs");
    let (file, first) = (known["/links/five"], known["/d05"]);
    let before = view.tree.space().unwrap().inodes;
    let forget = |path: &str| view.tree.forget(known[path].ino, 1);
    // A link that is still open: everything else in both directories is forgotten, themselves too.
    (0..FILES).for_each(|number| forget(&format!("/d05/f{number:02}")));
    forget("/d05");
    forget("/links");
    crowd_out(&view);
    assert!(view.read_node(&file).unwrap() == fs::read(base.diff.join("d05/f05")).unwrap());
    assert_eq!(view.tree.attr(file.ino).unwrap(), file);
    // It goes with the last, and whatever is looked up anew has its number.
    forget("/links/five");
    assert_eq!(view.tree.attr(file.ino).unwrap_err().errno(), Errno::STALE);
    assert_eq!(view.tree.attr(first.ino).unwrap_err().errno(), Errno::STALE);
    assert!(view.tree.space().unwrap().inodes >= before - u64::from(FILES));
    assert_eq!(view.attr("images/app:1/rootfs/d05/f05").unwrap().ino, file.ino);
}

#[test]
fn a_file_of_a_layer_that_is_not_what_it_was_is_an_error() {
    let (dir, mut root, base) = app();
    with_another(&mut root);
    let view = View::of(dir.path());
    let known = walk(&view, "images/app:1/rootfs");
    let at = |path: &str| base.diff.join(&path[1..]);
    let mtime = |path: &Path| set_mtime(path, CREATED_SECS, 0);
    mtime(&at("/d09/f10"));
    let known = {
        known.values().for_each(|attr| view.tree.forget(attr.ino, 1));
        walk(&view, "images/app:1/rootfs")
    };
    // One has other bytes and all else as it was, as far as that can be feigned; one is gone, by
    // which all behind it move up; one is a link to its neighbour, and one is a directory.
    fs::write(at("/d09/f10"), vec![b'x'; known["/d09/f10"].size as usize]).unwrap();
    mtime(&at("/d09/f10"));
    fs::remove_file(at("/d09/f20")).unwrap();
    fs::remove_file(at("/d09/f30")).unwrap();
    symlink("f31", at("/d09/f30")).unwrap();
    fs::remove_file(at("/d09/f40")).unwrap();
    fs::create_dir(at("/d09/f40")).unwrap();
    crowd_out(&view);
    for number in 0..FILES {
        let path = format!("/d09/f{number:02}");
        let read = view.read_node(&known[&path]);
        if [10, 20, 30, 40].contains(&number) {
            assert_eq!(read.unwrap_err().errno(), Errno::IO, "{path}");
            let told = view.tree.attr(known[&path].ino);
            assert_eq!(told.unwrap_err().errno(), Errno::IO, "{path}");
        } else {
            assert!(read.unwrap() == fs::read(at(&path)).unwrap(), "{path}");
        }
    }
    // Whoever looks it up again gets no other bytes under the number that the kernel has bytes of.
    let again = view.attr("images/app:1/rootfs/d09/f10").unwrap();
    assert_eq!(again.ino, known["/d09/f10"].ino);
    assert_eq!(view.read_node(&again).unwrap_err().errno(), Errno::IO);
    // A layer that is removed is another matter.
    fs::remove_dir_all(&base.diff).unwrap();
    for path in ["/d09/f10", "/d09/f11", "/d01/f03", "/links/five"] {
        assert_eq!(view.read_node(&known[path]).unwrap_err().errno(), Errno::STALE, "{path}");
    }
}

/// Lists directories of `app:1` as they are told, and what is expected after each.
fn expected_after(view: &View, reader: Reader, paths: &[&str]) -> Vec<Option<u64>> {
    let list = |path: &&str| {
        let dir = view.attr(&format!("images/app:1/{path}")).unwrap();
        for child in &view.tree.read_dir(dir.ino).unwrap().children {
            view.tree.lookup(dir.ino, &child.name).unwrap();
        }
        view.tree.next_dir(dir.ino, reader)
    };
    paths.iter().map(list).collect()
}

#[test]
fn who_goes_through_a_tree_is_expected_in_the_next_directory() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut root = DataRoot::create(dir.path());
    let layer = root.layer(None, |dir| {
        for name in ["a/b/c/file", "a/b/file", "a/d/file", "e/file", "f/g/h/file", "i"] {
            write(dir, name, b"x");
        }
    });
    let image = root.image(&[&layer], CREATED);
    root.tag("app:1", &image);
    let view = View::of(dir.path());
    let in_order = ["", "/a", "/a/b", "/a/b/c", "/a/d", "/e", "/f", "/f/g", "/f/g/h"];
    let in_order = in_order.map(|path| format!("rootfs{path}"));
    let in_order: Vec<_> = in_order.iter().map(String::as_str).collect();
    let numbers: Vec<_> = in_order
        .iter()
        .map(|path| Some(view.attr(&format!("images/app:1/{path}")).unwrap().ino))
        .collect();
    let walker = Reader { uid: 0, pid: 4711 };
    let expected = expected_after(&view, walker, &in_order);
    assert_eq!(expected[..2], [None, None], "too early to tell");
    assert_eq!(expected[2..8], numbers[3..9]);
    assert_eq!(expected[8], None, "the last one");

    let here_and_there = ["rootfs", "rootfs/e", "rootfs/a/d", "rootfs/f/g", "rootfs/a/b"];
    let looker = Reader { uid: 0, pid: 4712 };
    assert_eq!(expected_after(&view, looker, &here_and_there), [None; 5]);
    assert_eq!(expected_after(&view, looker, &["layers", "formats"]), [None; 2]);
}

//! The paths that most requests take, alone, for `scripts/check-perf` to count their instructions:
//!
//! `hot make DIR` makes a store in DIR, always the same one; `hot read|lookup|readdirplus DIR` does
//! that with it, through no mount; what counts is between two signals of [`measured`]. `hot store DIR IMAGES LAYERS FILES` makes one of
//! so many images of so many layers of so many files, for `scripts/bench`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "what measures may stop where it can't go on"
)]

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use rustix::process::{Signal, getpid, kill_process};
use stratafs::store::{self, Source};
use stratafs::tree::{Options, ROOT, Reader, Tree};

use handmade::{CREATED, CREATED_SECS, DataRoot, set_mtime};

#[path = "../tests/it/stores/handmade.rs"]
#[allow(dead_code, reason = "tests use the rest")]
mod handmade;

/// Directories of each layer.
const DIRECTORIES: usize = 40;

/// Files of each directory of a layer.
const FILES: usize = 25;

/// Size of a read, in bytes: half of what the kernel asks for at most of a small reader.
const READ: usize = 64 << 10;

/// Who reads.
const READER: Reader = Reader { uid: 0, pid: 1 };

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match &words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["make", dir] => make(Path::new(dir)),
        ["store", dir, images, layers, files] => {
            let number = |word: &str| word.parse().unwrap();
            make_many(Path::new(dir), number(images), number(layers), number(files));
        }
        ["read", dir] => read(&tree(dir)),
        ["lookup", dir] => lookup(&tree(dir)),
        ["readdirplus", dir] => readdirplus(&tree(dir)),
        _ => panic!("hot make|store|read|lookup|readdirplus DIR ..."),
    }
}

/// Says where what counts starts and ends. Nobody else minds this signal.
fn measured(work: impl FnOnce()) {
    let mark = || kill_process(getpid(), Signal::URG).unwrap();
    mark();
    work();
    mark();
}

/// An image of three layers that share directories, with files of 0 to 64 KiB.
fn make(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    let mut root = DataRoot::create(dir);
    let mut layers = Vec::new();
    for number in 0..3 {
        let fill = |diff: &Path| fill(diff, number);
        layers.push(root.layer(layers.last(), fill));
    }
    let image = root.image(&layers.iter().collect::<Vec<_>>(), CREATED);
    root.tag("hot:1", &image);
}

fn fill(diff: &Path, layer: usize) {
    for directory in 0..DIRECTORIES {
        let path = diff.join(format!("usr/directory-{directory}"));
        fs::create_dir_all(&path).unwrap();
        for file in 0..FILES {
            // Each layer has a fifth of its names in common with the one below.
            let number = layer * FILES * 4 / 5 + file;
            let size = (number * 7919 + directory * 104_729) % (64 << 10);
            let file = path.join(format!("file-{number:03}"));
            fs::write(&file, vec![number as u8; size]).unwrap();
            set_mtime(&file, CREATED_SECS, 0);
        }
        set_mtime(&path, CREATED_SECS, 0);
    }
}

/// Images that share no layer. Their files are empty, and names of a few inodes: a disk has no room
/// for millions, and what is looked at here are names.
fn make_many(dir: &Path, images: usize, layers: usize, files: usize) {
    let pool = dir.join("pool");
    fs::create_dir_all(&pool).unwrap();
    let inodes = files.min(2500);
    (0..inodes).for_each(|number| fs::write(pool.join(number.to_string()), b"").unwrap());
    let mut root = DataRoot::create(dir);
    for image in 0..images {
        let mut made = Vec::new();
        for layer in 0..layers {
            let fill = |diff: &Path| {
                for directory in 0..files.div_ceil(inodes) {
                    let path = diff.join(format!("image-{image}/layer-{layer}/{directory}"));
                    fs::create_dir_all(&path).unwrap();
                    for number in 0..inodes.min(files - directory * inodes) {
                        let name = path.join(format!("file-{number}"));
                        if directory == 0 {
                            fs::hard_link(pool.join(number.to_string()), name).unwrap();
                        } else {
                            fs::write(name, b"").unwrap();
                        }
                    }
                }
            };
            made.push(root.layer(made.last(), fill));
        }
        let id = root.image(&made.iter().collect::<Vec<_>>(), CREATED);
        root.tag(&format!("many:{image}"), &id);
    }
}

fn tree(dir: &str) -> Tree {
    let source = Source { kind: None, path: dir.into() };
    let store = store::open(&source, &store::Context::default()).unwrap();
    Tree::new(vec![store], Options::default())
}

/// The inode number at a path.
fn find(tree: &Tree, path: &str) -> u64 {
    path.split('/').fold(ROOT, |ino, name| tree.lookup(ino, OsStr::new(name)).unwrap().ino)
}

/// Positioned reads all over an archive that was read before.
fn read(tree: &Tree) {
    let ino = find(tree, "images/hot:1/save.tar");
    let size = tree.attr(ino).unwrap().size;
    let mut buf = vec![0; READ];
    for offset in (0..size).step_by(READ) {
        tree.read(ino, offset, &mut buf, READER).unwrap();
    }
    measured(|| {
        let mut offset = 0;
        for _ in 0..50 {
            offset = (offset + 6_700_417) % (size - READ as u64);
            tree.read(ino, offset, &mut buf, READER).unwrap();
        }
    });
}

/// Every name of a directory that nobody has listed, one by one.
fn lookup(tree: &Tree) {
    let directory = find(tree, "images/hot:1/rootfs/usr/directory-0");
    let names = (0..FILES).map(|number| format!("file-{number:03}")).collect::<Vec<_>>();
    measured(|| {
        for name in &names {
            let attr = tree.lookup(directory, OsStr::new(name)).unwrap();
            tree.forget(attr.ino, 1);
        }
    });
}

/// A listing with the attributes of all that it names.
fn readdirplus(tree: &Tree) {
    let directory = find(tree, "images/hot:1/rootfs/usr/directory-1");
    measured(|| {
        for child in &tree.read_dir(directory).unwrap().children {
            let attr = tree.lookup(directory, &child.name).unwrap();
            tree.forget(attr.ino, 1);
        }
    });
}

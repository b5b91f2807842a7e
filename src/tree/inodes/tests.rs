//! What numbers stand for, and for how long.

use std::path::Path;

use super::*;
use crate::backing::{Access, Root, Time};
use crate::overlay::Stack;
use crate::store::{LayerDir, Marks};
use crate::tree::node::Place;
use crate::tree::{FRESH, Symlinks};

fn attr(kind: FileKind) -> Attr {
    let time = Time::default();
    Attr {
        ino: 0,
        kind,
        permissions: 0o644,
        nlink: 1,
        uid: 0,
        gid: 0,
        size: 0,
        blocks: 0,
        mtime: time,
        ctime: time,
        rdev: (0, 0),
        ttl: FRESH,
    }
}

fn directory(inodes: &Inodes, number: u64) {
    let identity = Identity { number, rest: number };
    let attr = attr(FileKind::Directory);
    assert_eq!(inodes.admit(identity, ROOT, || Node::Place(Place::Root), attr).ino, number);
}

fn file(inodes: &Inodes, dir: u64, name: &str, number: u64, rest: u64) -> u64 {
    let (identity, attr) = (Identity { number, rest }, attr(FileKind::Regular));
    inodes.admit_file(identity, dir, OsStr::new(name), 7, attr).unwrap().ino
}

fn trace(inodes: &Inodes, ino: u64) -> Trace {
    match inodes.get(ino).unwrap() {
        Held::Trace(trace) => trace,
        Held::Known(known) => panic!("kept whole: {known:?}"),
    }
}

#[test]
fn little_is_kept_of_a_file() {
    assert_eq!((size_of::<(u64, Slot)>(), size_of::<Option<File>>()), (16, 24));
}

#[test]
fn a_file_is_told_by_its_directory_its_name_and_what_it_was_seen_as() {
    let inodes = Inodes::default();
    directory(&inodes, 10);
    assert_eq!(file(&inodes, 10, "name", 20, 1), 20);
    let trace = trace(&inodes, 20);
    assert_eq!((trace.ino, trace.dir.attr.ino, &*trace.name), (20, 10, OsStr::new("name")));
    assert!(trace.is_of(&Identity { number: 20, rest: 1 }, 7));
    assert!(!trace.is_of(&Identity { number: 20, rest: 2 }, 7));
    assert!(!trace.is_of(&Identity { number: 20, rest: 1 }, 8));
    // A directory that is not known can't tell.
    let identity = Identity { number: 30, rest: 1 };
    let lost = inodes.admit_file(identity, 11, OsStr::new("x"), 7, attr(FileKind::Regular));
    assert_eq!(lost.unwrap_err().errno(), Errno::STALE);
}

#[test]
fn nodes_whose_numbers_fall_together_are_told_apart() {
    let inodes = Inodes::default();
    directory(&inodes, 10);
    let numbers = || [1, 2, 3].map(|rest| file(&inodes, 10, &format!("f{rest}"), 20, rest));
    assert_eq!(numbers(), [20, 21, 22]);
    assert_eq!(numbers(), [20, 21, 22]);
    let whole = Identity { number: 20, rest: 4 };
    let link = || Node::Link(b"target".to_vec());
    assert_eq!(inodes.admit(whole, 10, link, attr(FileKind::Symlink)).ino, 23);
    // One whose own number another has taken.
    assert_eq!(file(&inodes, 10, "f5", 21, 5), 24);
    for (rest, ino) in [(1, 20), (2, 21), (3, 22), (4, 23)] {
        assert_eq!(inodes.find(&Identity { number: 20, rest }), Some(ino));
    }
    assert_eq!(inodes.find(&Identity { number: 20, rest: 6 }), None);
    assert_eq!(trace(&inodes, 21).name, "f2");
    assert_eq!(trace(&inodes, 24).name, "f5");
    // Neither 0 nor the root's is given to anything.
    assert_eq!(file(&inodes, 10, "zero", 0, 1), 2);
    assert_eq!(file(&inodes, 10, "last", u64::MAX, 1), u64::MAX);
    assert_eq!(file(&inodes, 10, "behind", u64::MAX, 2), 3);
}

#[test]
fn a_directory_stays_for_its_files_in_whatever_order_all_are_forgotten() {
    // Of the directory 10, its files 20 and 21, the last of which was looked up twice.
    let mut orders = vec![Vec::new()];
    for event in [10, 20, 21, 21] {
        orders = orders
            .iter()
            .flat_map(|order: &Vec<u64>| (0..=order.len()).map(move |at| (order, at)))
            .map(|(order, at)| [&order[..at], &[event], &order[at..]].concat())
            .collect();
    }
    assert_eq!(orders.len(), 24);
    for order in orders {
        let inodes = Inodes::default();
        directory(&inodes, 10);
        let names = ["a", "b", "b"];
        [20, 21, 21].iter().zip(names).for_each(|(&ino, name)| {
            assert_eq!(file(&inodes, 10, name, ino, ino), ino);
        });
        for (done, &ino) in order.iter().enumerate() {
            inodes.forget(ino, 1);
            let left = &order[done + 1..];
            for (ino, name) in [(20, "a"), (21, "b")] {
                match left.contains(&ino) {
                    true => assert_eq!(trace(&inodes, ino).name, name, "{order:?}"),
                    false => assert!(inodes.get(ino).is_err(), "{order:?}"),
                }
            }
            assert_eq!(inodes.get(10).is_ok(), !left.is_empty(), "{order:?}");
        }
        assert_eq!(inodes.len(), 0);
    }
}

#[test]
fn a_directory_that_stayed_is_looked_up_again_under_its_number() {
    let inodes = Inodes::default();
    directory(&inodes, 10);
    file(&inodes, 10, "a", 20, 1);
    inodes.forget(10, 1);
    directory(&inodes, 10);
    inodes.forget(20, 1);
    assert!(inodes.get(10).is_ok());
    inodes.forget(10, 1);
    assert_eq!(inodes.len(), 0);
}

#[test]
fn what_was_found_is_kept_while_it_is_known_and_the_same() {
    let inodes = Inodes::default();
    directory(&inodes, 10);
    let found = |number| {
        let identity = Identity { number, rest: number };
        let attr = Attr { ino: number, ..attr(FileKind::Regular) };
        let node = Arc::new(Node::Link(number.to_string().into_bytes()));
        Known { node, attr, parent: 10, seen: Instant::now(), identity }
    };
    let is_kept = |ino| matches!(inodes.get(ino), Ok(Held::Known(_)));
    inodes.keep(found(20), 7);
    assert!(inodes.get(20).is_err(), "nobody knows it");
    file(&inodes, 10, "a", 20, 20);
    inodes.keep(found(20), 8);
    assert!(!is_kept(20), "another one than was looked up first");
    inodes.keep(found(20), 7);
    assert!(is_kept(20));
    inodes.forget(20, 1);
    file(&inodes, 10, "b", 20, 21);
    assert!(!is_kept(20), "the number is another's");
    // No more than a few.
    for number in 100..400 {
        file(&inodes, 10, &number.to_string(), number, number);
        inodes.keep(found(number), 7);
    }
    assert_eq!((100..400).filter(|&ino| is_kept(ino)).count(), RECENT.get());
    assert!(is_kept(399));
}

#[test]
fn whether_bytes_were_asked_for_is_known_of_every_node() {
    let inodes = Inodes::default();
    directory(&inodes, 10);
    file(&inodes, 10, "a", 20, 1);
    for ino in [10, 20] {
        assert!(inodes.is_unread(ino));
        inodes.mark_read(ino);
        assert!(!inodes.is_unread(ino));
    }
    file(&inodes, 10, "a", 20, 1);
    inodes.forget(20, 1);
    assert!(!inodes.is_unread(20));
    assert!(!inodes.is_unread(30));
    inodes.mark_read(30);
}

/// A tree of one empty layer, and its directory with that number.
fn tree(inodes: &Inodes, layer: &Path, number: u64) -> Arc<MergedTree> {
    let root = Arc::new(Root::open(layer, Access::Sealed).unwrap());
    let layer = LayerDir { root, identity: number, marks: Marks::Complete, owners: None };
    let stack = Stack::new(vec![layer]);
    let entry = stack.root().unwrap();
    let tree = Arc::new(MergedTree::new(stack, Symlinks::Raw, Time::default()));
    let node = || Node::Merged { tree: Arc::clone(&tree), entry, depth: 0 };
    let identity = Identity { number, rest: number };
    inodes.admit(identity, ROOT, node, attr(FileKind::Directory));
    tree
}

#[test]
fn what_is_of_a_tree_that_is_let_go_is_forgotten() {
    let layer = tempfile::tempdir().unwrap();
    let inodes = Inodes::default();
    let (gone, stays) = (tree(&inodes, layer.path(), 10), tree(&inodes, layer.path(), 11));
    assert_eq!(inodes.trees().len(), 2);
    file(&inodes, 10, "a", 20, 1);
    file(&inodes, 11, "b", 21, 1);
    // A link of one that was found below the other first.
    assert_eq!(file(&inodes, 11, "c", 20, 1), 20);
    inodes.let_go(&gone);
    assert!(inodes.get(10).is_err() && inodes.get(20).is_err());
    assert_eq!(trace(&inodes, 21).name, "b");
    inodes.forget(20, 2);
    inodes.forget(11, 1);
    assert_eq!(inodes.trees().len(), 1);
    inodes.forget(21, 1);
    assert_eq!(inodes.len(), 0);
    assert_eq!(Arc::strong_count(&gone) + Arc::strong_count(&stays), 2);
}

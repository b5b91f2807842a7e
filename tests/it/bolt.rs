//! The reader of bbolt files against a writer of them: every tree reads as it was written, no
//! damage does harm, and a state that is read under a writer is one that the writer left.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use rustix::fs::FlockOperation;
use stratafs::backing::{Access, Root};
use stratafs::bolt::{Bucket, Database, Reader, Stamp, Value};

use crate::support::bolt::{Item, Pages, Tree, bucket, file, meta_page, put};

/// What a reader finds in a bucket.
fn read(bucket: Bucket<'_>) -> Tree {
    let item = |value| match value {
        Value::Bytes(bytes) => Item::Value(bytes.to_vec()),
        Value::Bucket(inner) => Item::Bucket(read(inner)),
    };
    bucket.entries().map(|(key, value)| (key.to_vec(), item(value))).collect()
}

/// Holds each answer about one key to the model.
fn compare(found: Bucket<'_>, tree: &Tree) -> Result<(), TestCaseError> {
    for (key, item) in tree {
        match item {
            Item::Value(value) => {
                prop_assert_eq!(found.get(key), Some(&value[..]));
                prop_assert!(found.bucket(key).is_none());
            }
            Item::Bucket(inner) => {
                prop_assert!(found.get(key).is_none());
                compare(found.bucket(key).unwrap(), inner)?;
            }
        }
        let longer = [&key[..], b"\0"].concat();
        prop_assert_eq!(found.get(&longer).is_some(), is_value(tree, &longer));
        prop_assert_eq!(found.get(&key[1..]).is_some(), is_value(tree, &key[1..]));
    }
    let inner: Vec<_> = found.buckets().map(|(name, _)| name.to_vec()).collect();
    let expected = tree.iter().filter(|(_, item)| matches!(item, Item::Bucket(_)));
    prop_assert_eq!(inner, expected.map(|(name, _)| name.clone()).collect::<Vec<_>>());
    Ok(())
}

fn is_value(tree: &Tree, key: &[u8]) -> bool {
    matches!(tree.get(key), Some(Item::Value(_)))
}

fn tree() -> impl Strategy<Value = Tree> {
    let key = || prop_oneof!["[ab]{1,3}", "[a-z0-9/:]{1,90}"].prop_map(String::into_bytes);
    let bytes = prop_oneof![
        4 => proptest::collection::vec(any::<u8>(), 0..40),
        1 => proptest::collection::vec(any::<u8>(), 0..3000),
    ];
    let leaf = bytes.prop_map(Item::Value);
    let item = leaf.prop_recursive(5, 200, 30, move |inner| {
        proptest::collection::btree_map(key(), inner, 0..30).prop_map(Item::Bucket)
    });
    proptest::collection::btree_map(key(), item, 0..40)
}

fn page_size() -> impl Strategy<Value = usize> {
    proptest::sample::select(&[512, 1024, 4096, 16384, 65536][..])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn every_tree_reads_as_it_was_written(tree in tree(), page_size in page_size()) {
        let database = Database::parse(file(&tree, page_size)).unwrap();
        prop_assert_eq!(database.transaction(), 6);
        let root = database.bucket(&[]).unwrap();
        prop_assert_eq!(read(root), tree.clone());
        compare(root, &tree)?;
    }

    #[test]
    fn no_damage_does_harm(
        tree in tree(),
        page_size in page_size(),
        edits in proptest::collection::vec((0.0..1.0f64, any::<u8>()), 1..20),
        cut in proptest::option::of(0.0..1.0f64),
    ) {
        let mut bytes = file(&tree, page_size);
        for (at, byte) in edits {
            // Pages, not the metas before them, which have checksums.
            let at = 2 * page_size + (at * (bytes.len() - 2 * page_size) as f64) as usize;
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate((cut * bytes.len() as f64) as usize);
        }
        if let Ok(database) = Database::parse(bytes) {
            let found = read(database.bucket(&[]).unwrap());
            for (key, item) in &found {
                if let Item::Value(value) = item {
                    prop_assert_eq!(database.bucket(&[]).unwrap().get(key), Some(&value[..]));
                }
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>, page_size in page_size()) {
        let _ = Database::parse(bytes.clone());
        let mut pages = bytes;
        pages.resize(3 * page_size, 0);
        let metas = [meta_page(page_size, 2, 5, 8), meta_page(page_size, 2, 5, 7)].concat();
        prop_assert!(Database::parse([metas, pages].concat()).is_err());
    }
}

fn sample() -> Tree {
    let mut tree = Tree::new();
    for number in 0..200 {
        put(&mut tree, &["v1", "many"], &format!("key {number:04}"), [7; 20]);
    }
    put(&mut tree, &["v1", "few"], "a", "1");
    tree
}

#[test]
fn either_meta_page_serves_where_the_other_is_torn() {
    let whole = file(&sample(), 4096);
    let newest = |edit: &dyn Fn(&mut [u8])| {
        let mut bytes = whole.clone();
        edit(&mut bytes);
        Database::parse(bytes).map(|database| database.transaction())
    };
    assert_eq!(newest(&|_| {}), Ok(6));
    assert_eq!(newest(&|bytes| bytes[4096 + 16 + 50] ^= 1), Ok(6));
    let swap = |bytes: &mut [u8]| {
        // The newer one in page 1, and page 0 torn: its place tells the size of a page.
        let newer = [&1u64.to_le_bytes()[..], &bytes[8..4096]].concat();
        bytes[4096..8192].copy_from_slice(&newer);
        bytes[16 + 56] ^= 1;
    };
    assert_eq!(newest(&swap), Ok(6));
    let both = newest(&|bytes| {
        bytes[16] ^= 1;
        bytes[4096 + 16] ^= 1;
    });
    assert_eq!(both.unwrap_err().to_string(), "no meta page of bbolt's is whole");
}

/// Where in a file the page `id` begins.
fn page(id: usize) -> usize {
    id * 512
}

#[test]
fn what_bbolt_never_writes_is_refused() {
    let mut tree = Tree::new();
    for name in ["first", "second"] {
        put(&mut tree, &[name, "inner"], "key", [1; 400]);
    }
    // Pages 4 and 6 are the two inner buckets, 5 and 7 hold them, 8 is the root.
    let whole = file(&tree, 512);
    assert_eq!(Database::parse(whole.clone()).unwrap().bucket(&[]).map(read), Some(tree));
    let root = page(8);
    assert_eq!(whole[root..root + 12], [8, 0, 0, 0, 0, 0, 0, 0, 2, 0, 2, 0]);
    let refused = |at: usize, bytes: &[u8]| {
        let mut damaged = whole.clone();
        damaged[at..at + bytes.len()].copy_from_slice(bytes);
        Database::parse(damaged).map(drop).unwrap_err().to_string()
    };
    let value = root + 16 + 32 + "first".len();
    for (what, at, bytes, why) in [
        ("another flag", root + 8, [16, 0], "neither branch nor leaf"),
        ("both flags", root + 8, [3, 0], "neither branch nor leaf"),
        ("another number", root, [9, 0], "number of another"),
        ("many elements", root + 10, [0xff, 0xff], "shorter than it says"),
        ("a long page", root + 12, [1, 0], "outside the file"),
        ("a bucket within itself", value, [8, 0], "in two places"),
        ("a bucket twice", value, [7, 0], "in two places"),
        ("a meta page as a bucket", value, [1, 0], "outside the file"),
        ("no page", value, [9, 0], "outside the file"),
        ("an inline bucket of nothing", value, [0, 0], "shorter than it says"),
        ("a key far away", root + 16 + 4, [0xff, 0x7f], "outside its page"),
        ("a key in the elements", root + 16 + 4, [16, 0], "upon another"),
        ("a key upon the last", root + 32 + 4, [16, 0], "upon another"),
        ("keys that fall", root + 16 + 32, *b"zz", "out of order"),
    ] {
        let found = refused(at, &bytes);
        assert!(found.contains(why), "{what}: {found}");
    }
}

#[test]
fn values_that_share_bytes_make_no_bomb() {
    // Each level has 40 buckets with the same value, the next level: 40^10 in 4 KiB.
    let mut inline = Vec::new();
    for _ in 0..10 {
        let value = [&[0; 16][..], &inline].concat();
        let mut page = [&[0; 8][..], &2u16.to_le_bytes(), &40u16.to_le_bytes(), &[0; 4]].concat();
        for index in 0..40usize {
            // Suffixes of "abc..": all end where the value begins.
            let position = ((40 - index) * 16 + index) as u32;
            let size = (40 - index) as u32;
            for number in [1, position, size, value.len() as u32] {
                page.extend(number.to_le_bytes());
            }
        }
        page.extend((0..40).map(|index| b'0' + index));
        page.extend(value);
        inline = page;
    }
    let mut tree = Tree::new();
    put(&mut tree, &[], "bomb", [&[0; 16][..], &inline].concat());
    let mut bytes = file(&tree, 4096);
    // The one element of the root, made a bucket.
    let root = 4 * 4096 + 16;
    bytes[root] = 1;
    assert_eq!(Database::parse(bytes).unwrap_err().to_string(), "an element lies upon another");
}

/// A database of one value, many times, in half of the space that follows the meta pages.
fn half(transaction: u64) -> (Vec<u8>, u64) {
    const PAGES: u64 = 40;
    let mut tree = Tree::new();
    for number in 0..100 {
        let name = format!("{number}");
        put(&mut tree, &["all", &name], "transaction", transaction.to_le_bytes().repeat(20));
    }
    let mut pages = Pages::new(4096, 2 + transaction % 2 * PAGES);
    let root = pages.bucket(&tree);
    assert!(pages.bytes.len() <= PAGES as usize * 4096);
    (pages.bytes, root)
}

/// Writes a transaction as bbolt does: its pages where those of the last but one were, then its
/// meta page.
fn commit(file: &File, transaction: u64) {
    let (pages, root) = half(transaction);
    file.write_all_at(&pages, 4096 * (2 + transaction % 2 * 40)).unwrap();
    let meta = meta_page(4096, root, 82, transaction);
    file.write_all_at(&meta, 4096 * (transaction % 2)).unwrap();
}

#[test]
fn a_state_read_under_a_writer_is_one_that_it_left() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("meta.db");
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    file.set_len(82 * 4096).unwrap();
    commit(&file, 0);
    // As the engine does for as long as it lives.
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = std::thread::spawn({
        let stop = stop.clone();
        move || {
            let mut transaction = 0;
            while !stop.load(Ordering::Relaxed) {
                transaction += 1;
                commit(&file, transaction);
            }
            transaction
        }
    });
    let root = Root::open(dir.path(), Access::Live).unwrap();
    let reader = Reader::default();
    let mut last = 0;
    for _ in 0..1000 {
        let state = reader.read(&root, "meta.db").unwrap();
        let database = &state.database;
        assert!(database.transaction() >= last, "time goes forward");
        last = database.transaction();
        let expected = last.to_le_bytes().repeat(20);
        let all = database.bucket(&[b"all"]).unwrap();
        assert_eq!(all.buckets().count(), 100);
        for (_, each) in all.buckets() {
            assert_eq!(each.get(b"transaction"), Some(&expected[..]));
        }
    }
    stop.store(true, Ordering::Relaxed);
    let written = writer.join().unwrap();
    assert!(last > 0, "nothing was written meanwhile");
    assert_eq!(reader.read(&root, "meta.db").unwrap().database.transaction(), written);
}

#[test]
fn a_reader_keeps_a_state_until_there_is_another() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::open(dir.path(), Access::Live).unwrap();
    let path = dir.path().join("meta.db");
    let reader = Reader::default();
    assert!(reader.read(&root, "meta.db").unwrap_err().is_not_found());
    fs::write(&path, file(&sample(), 4096)).unwrap();
    let first = reader.read(&root, "meta.db").unwrap();
    assert_eq!(Stamp::read(&root, "meta.db").unwrap(), first.stamp);
    assert!(Arc::ptr_eq(&first, &reader.read(&root, "meta.db").unwrap()));
    let mut other = sample();
    bucket(&mut other, &["v2"]);
    fs::write(dir.path().join("new"), file(&other, 512)).unwrap();
    fs::rename(dir.path().join("new"), &path).unwrap();
    let second = reader.read(&root, "meta.db").unwrap();
    assert_ne!(first.stamp.number(), second.stamp.number(), "another file of the same numbers");
    assert_eq!(second.database.bucket(&[]).map(read), Some(other));
    fs::write(&path, "nothing").unwrap();
    assert_eq!(reader.read(&root, "meta.db").unwrap_err().errno(), rustix::io::Errno::IO);
    let short = file(&sample(), 4096);
    fs::write(&path, &short[..short.len() - 1]).unwrap();
    let err = reader.read(&root, "meta.db").unwrap_err();
    assert!(err.to_string().contains("shorter than it says"), "{err}");
}

use proptest::prelude::*;

use super::*;
use crate::backing::Held;
use crate::tar::header::{self, Header};

/// A header block of a member `name`, changed by `edit`, with a right checksum.
fn block(name: &str, flag: u8, size: u64, edit: impl FnOnce(&mut Block)) -> Vec<u8> {
    let mut block = [0; BLOCK as usize];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[MODE].copy_from_slice(b"0000644\0");
    block[UID].copy_from_slice(b"0000001\0");
    block[GID].copy_from_slice(b"0000002\0");
    block[SIZE].copy_from_slice(format!("{size:011o}\0").as_bytes());
    block[MTIME].copy_from_slice(b"00000000007\0");
    block[TYPE] = flag;
    block[MAGIC].copy_from_slice(b"ustar\x0000");
    edit(&mut block);
    block[CHECKSUM].fill(b' ');
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block.to_vec()
}

fn padded(body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    body.resize(body.len().next_multiple_of(512), 0);
    body
}

fn special(flag: u8, body: &[u8]) -> Vec<u8> {
    [block("x", flag, body.len() as u64, |_| {}), padded(body)].concat()
}

fn pax(flag: u8, records: &[(&str, &str)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (key, value) in records {
        pax::write_record(&mut body, key.as_bytes(), value.as_bytes());
    }
    special(flag, &body)
}

fn read(tar: &[u8]) -> Result<Vec<Entry>> {
    let bytes = Held::new("test.tar", tar);
    let mut entries = Entries::new(&bytes);
    let mut all = Vec::new();
    while let Some(entry) = entries.next()? {
        all.push(entry);
    }
    Ok(all)
}

/// The one entry of a tar, and its contents.
fn only(parts: &[Vec<u8>]) -> (Entry, Vec<u8>) {
    let tar = parts.concat();
    let mut all = read(&tar).unwrap();
    assert_eq!(all.len(), 1);
    let entry = all.remove(0);
    let mut contents = vec![0; entry.size as usize];
    for extent in &entry.extents {
        let at = extent.from as usize;
        let part = &tar[at..at + extent.len as usize];
        contents[extent.offset as usize..][..part.len()].copy_from_slice(part);
    }
    (entry, contents)
}

fn file(name: &str) -> Vec<u8> {
    [block(name, b'0', 3, |_| {}), padded(b"abc")].concat()
}

#[test]
fn numbers_are_octal_or_binary() {
    for (field, expected) in [
        (&b"0000644\0"[..], Ok(0o644)),
        (b"   644 \0", Ok(0o644)),
        (b"\0\0 7\0\0\0\0", Ok(7)),
        (b"77777777", Ok(0o7777_7777)),
        (b"\0\0\0\0\0\0\0\0", Ok(0)),
        (b"        ", Ok(0)),
        (b"\x80\0\0\0\0\0\x01\0", Ok(256)),
        (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Ok(-2)),
        (b"\xbf\xff\xff\xff\xff\xff\xff\xff", Ok(0x3fff_ffff_ffff_ffff)),
        (b"12x", Err("a number is not octal")),
        (b"-1", Err("a number is not octal")),
        (b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", Err("a number is too large")),
        (b"7777777777777777777777777", Err("a number is too large")),
    ] {
        assert_eq!(number(field), expected, "{field:?}");
    }
}

#[test]
fn records_go_over_fields_and_long_names_over_records() {
    let records = [
        ("path", "p"),
        ("uid", "3000000"),
        ("gid", "5000000000"),
        ("mtime", "-1.25"),
        ("size", "2"),
        ("SCHILY.xattr.user.a", "b"),
        ("LIBARCHIVE.xattr.user.a", "eA"),
        ("LIBARCHIVE.xattr.user.%3d", "eA=="),
        ("comment", "x"),
    ];
    let (entry, contents) = only(&[pax(b'x', &records), file("n")]);
    assert_eq!((&*entry.name, entry.uid, entry.gid), (&b"p"[..], Some(3_000_000), None));
    assert_eq!(entry.mtime, Time { secs: -2, nanos: 750_000_000 });
    assert_eq!(contents, b"ab");
    let xattrs = [(b"user.=".to_vec(), b"x".to_vec()), (b"user.a".to_vec(), b"b".to_vec())];
    assert_eq!(entry.xattrs, xattrs);
    let long = special(b'L', b"long\0");
    for parts in [[pax(b'x', &[("path", "p")]), long.clone()], [long, pax(b'x', &[("path", "p")])]]
    {
        assert_eq!(only(&[parts.concat(), file("n")]).0.name, b"long");
    }
    let again = [pax(b'x', &[("path", "p")]), pax(b'x', &[("path", ""), ("size", "")]), file("n")];
    let (entry, contents) = only(&again);
    assert_eq!((&*entry.name, &*contents), (&b"n"[..], &b"abc"[..]));
    let (link, _) = only(&[special(b'K', b"far"), block("l", b'2', 0, |_| {})]);
    assert_eq!(link.link, b"far");
    let global = [pax(b'g', &[("mtime", "9"), ("comment", "c")]), file("n")];
    assert_eq!(only(&global).0.mtime.secs, 7);
    for key in ["path", "size", "linkpath", "GNU.sparse.major"] {
        assert!(read(&[pax(b'g', &[(key, "1")]), file("n")].concat()).is_err(), "{key}");
    }
}

#[test]
fn only_files_have_a_body() {
    for flag in b'1'..=b'6' {
        let tar = [block("a", flag, 3, |_| {}), file("b")].concat();
        let names: Vec<_> = read(&tar).unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, [b"a", b"b"]);
    }
    let unknown = [block("a", b'Z', 3, |_| {}), padded(b"abc"), file("b")].concat();
    let unknown = read(&unknown).unwrap();
    assert_eq!((unknown[0].kind, unknown.len()), (None, 2));
    let old = only(&[block("d/", 0, 0, |block| block[MAGIC].fill(0))]).0;
    assert_eq!(old.kind, Some(Type::Directory));
}

#[test]
fn a_prefix_counts_where_the_format_has_one() {
    let prefix = |block: &mut Block| block[345..348].copy_from_slice(b"dir");
    assert_eq!(only(&[block("n", b'0', 0, prefix)]).0.name, b"dir/n");
    let gnu = |block: &mut Block| {
        block[MAGIC].copy_from_slice(b"ustar  \0");
        block[345..357].copy_from_slice(b"00000000007\0");
    };
    assert_eq!(only(&[block("n", b'0', 0, gnu)]).0.name, b"n");
    let old_go = |block: &mut Block| {
        block[MAGIC].copy_from_slice(b"ustar  \0");
        prefix(block);
    };
    assert_eq!(only(&[block("n", b'0', 0, old_go)]).0.name, b"dir/n");
    let v7 = |block: &mut Block| {
        block[MAGIC].fill(0);
        prefix(block);
    };
    assert_eq!(only(&[block("n", b'0', 0, v7)]).0.name, b"n");
}

#[test]
fn an_archive_ends_at_two_zero_blocks_or_between_entries() {
    let zeros = vec![0; 512];
    for end in [&[][..], &[&zeros[..]], &[&zeros, &zeros], &[&zeros, &zeros, b"junk"]] {
        let tar = [&[&file("a")[..]][..], end].concat().concat();
        assert_eq!(read(&tar).unwrap().len(), 1);
    }
    assert!(read(b"").unwrap().is_empty());
    let lone = [file("a"), zeros, file("b")].concat();
    let whole = [file("a"), file("b")].concat();
    let mut wrong = whole.clone();
    wrong[1025] ^= 1;
    for tar in [&lone[..], &whole[..514], &whole[..1200], &wrong, b"x"] {
        assert!(read(tar).is_err());
    }
    assert_eq!(read(&whole[..1024 + 515]).unwrap().len(), 2, "padding may be missing");
}

#[test]
fn sparse_files_of_every_kind_are_the_same_file() {
    // "abc" at 5, "de" at 20, a hole up to 30.
    let stored = b"abcde";
    let mut expected = vec![0; 30];
    expected[5..8].copy_from_slice(b"abc");
    expected[20..22].copy_from_slice(b"de");
    let field = |block: &mut [u8], at: usize, value: u64| {
        block[at..at + 12].copy_from_slice(format!("{value:011o}\0").as_bytes());
    };
    let old = block("f", b'S', 5, |block| {
        block[MAGIC].copy_from_slice(b"ustar  \0");
        for (at, value) in [(386, 5), (398, 3), (410, 20), (422, 1), (434, 21), (446, 0)] {
            field(block, at, value);
        }
        field(block, 458, 21);
        field(block, 470, 0);
        block[482] = 1;
        field(block, 483, 30);
    });
    let mut more = vec![0; 512];
    field(&mut more, 0, 21);
    field(&mut more, 12, 1);
    let zero = pax(
        b'x',
        &[
            ("GNU.sparse.size", "30"),
            ("GNU.sparse.numblocks", "2"),
            ("GNU.sparse.offset", "5"),
            ("GNU.sparse.numbytes", "3"),
            ("GNU.sparse.offset", "20"),
            ("GNU.sparse.numbytes", "2"),
        ],
    );
    let one = [("GNU.sparse.size", "30"), ("GNU.sparse.map", "5,3,20,2"), ("GNU.sparse.name", "f")];
    let two = [
        ("GNU.sparse.major", "1"),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.name", "f"),
        ("GNU.sparse.realsize", "30"),
    ];
    let in_body = [padded(b"2\n5\n3\n20\n2\n"), stored.to_vec()].concat();
    let plain = |size| block("GNUSparseFile.0/f", b'0', size, |_| {});
    for parts in [
        [old, more, padded(stored)],
        [zero, block("f", b'0', 5, |_| {}), padded(stored)],
        [pax(b'x', &one), plain(5), padded(stored)],
        [pax(b'x', &two), plain(517), padded(&in_body)],
    ] {
        let (entry, contents) = only(&parts);
        assert_eq!((&*entry.name, &contents), (&b"f"[..], &expected));
        let with_next = read(&[parts.concat(), file("next")].concat()).unwrap();
        assert_eq!(with_next[1].name, b"next");
    }
    for map in
        ["5,3,20", "5,3,4,2", "5,30", "5,3", "20,2,5,3", "x", "5,3,20,3", "18446744073709551615,5"]
    {
        let records = [("GNU.sparse.size", "30"), ("GNU.sparse.map", map)];
        let tar = [pax(b'x', &records), plain(5), padded(stored)].concat();
        assert!(read(&tar).is_err(), "{map}");
    }
    for body in ["99999999999\n", "1\n5\n", "x\n", "524289\n"] {
        let tar = [pax(b'x', &two), plain(512), padded(body.as_bytes())].concat();
        assert!(read(&tar).is_err(), "{body}");
    }
}

#[test]
fn headers_that_are_too_large_are_refused() {
    let huge = block("x", b'x', 1 << 32, |_| {});
    assert!(read(&huge).is_err());
    let long = special(b'L', &vec![b'a'; (1 << 20) + 1]);
    assert!(read(&[long, file("n")].concat()).is_err());
    let negative = block("n", b'0', 0, |block| block[SIZE].fill(0xff));
    assert!(read(&negative).is_err());
    let endless = block("n", b'0', u64::MAX >> 31, |_| {});
    assert!(read(&endless).is_err());
}

proptest! {
    #[test]
    fn what_the_writer_writes_is_read(
        name in "[a-z\u{e9}/]{1,300}",
        link in "[a-z\u{e9}/]{1,200}",
        uid: u32,
        secs in -10_000_000_000i64..10_000_000_000,
        value in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        let mut header = Header {
            uid, mtime: secs, link: link.into_bytes(), mode: 0o751, device: (8, 1),
            xattrs: vec![(b"user.x".to_vec(), value)],
            ..Header::new(name.into_bytes(), Type::CharDevice)
        };
        for xattrs in [header.xattrs.clone(), Vec::new()] {
            header.xattrs = xattrs;
            let mut tar = Vec::new();
            header::encode(&header, &mut tar).unwrap();
            let read = read(&tar).unwrap().remove(0);
            prop_assert_eq!(&read.name, &header.name);
            prop_assert_eq!(&read.link, &header.link);
            prop_assert_eq!((read.uid, read.gid, read.mode), (Some(uid), Some(0), 0o751));
            prop_assert_eq!(read.mtime, Time { secs, nanos: 0 });
            prop_assert_eq!((read.device, read.kind), ((8, 1), Some(Type::CharDevice)));
            let kept: Vec<_> = header.xattrs.iter().filter(|(_, value)| !value.is_empty()).collect();
            let got: Vec<_> = read.xattrs.iter().filter(|(_, value)| !value.is_empty()).collect();
            prop_assert_eq!(got, kept);
        }
    }

    #[test]
    fn no_bytes_break_the_reader(
        at in 0usize..4000, byte: u8, cut in 0usize..4100, more: u8,
    ) {
        let records = [("path", "p"), ("GNU.sparse.map", "1,2"), ("GNU.sparse.size", "9")];
        let mut tar = [
            file("a"), pax(b'x', &records), file("b"), special(b'L', b"name"), file("c"),
        ].concat();
        let length = tar.len();
        tar[at % length] = byte;
        tar[(at / 7) % length] ^= more;
        tar.truncate(cut);
        // An answer or an error: neither a panic nor an endless loop.
        let _ = read(&tar);
    }
}

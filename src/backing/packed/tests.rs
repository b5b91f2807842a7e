use super::*;
use crate::backing::{Dir, Held, Root};

const CONTENTS: &[u8] = b"0123456789abcdef";

/// A file of the last bytes of [`CONTENTS`].
fn tail(len: u64) -> [Extent; 1] {
    [Extent { offset: 0, len, from: CONTENTS.len() as u64 - len }]
}

fn entry<'a>(path: &'a str, what: What<'a>) -> NewFile<'a> {
    let mtime = Time { secs: 7, nanos: 8 };
    NewFile { path: path.as_bytes(), what, mode: 0o100_640, uid: 1, gid: 2, mtime, xattrs: &[] }
}

/// `f SIZE`, `d`, `p`, `l TARGET`, `h TARGET`: kinds of entries.
fn what<'a>(text: &'a str, extents: &'a [Extent]) -> What<'a> {
    match text.split_once(' ').unwrap_or((text, "")) {
        ("f", _) => What::File { size: extents[0].len, extents },
        ("d", _) => What::Directory,
        ("p", _) => What::Fifo,
        ("l", target) => What::Symlink(target.as_bytes()),
        ("h", target) => What::HardLink(target.as_bytes()),
        other => panic!("{other:?}"),
    }
}

fn build(entries: &[(&str, &str)]) -> Result<Root, &'static str> {
    let bytes = Arc::new(Held::new("layer.tar", CONTENTS));
    let mut builder = PackedBuilder::new(bytes, 5, 1 << 20);
    for (path, text) in entries {
        let size = text.strip_prefix("f ").map_or(0, |size| size.parse().unwrap());
        builder.add(&entry(path, what(text, &tail(size))))?;
    }
    Ok(Root::packed(Arc::new(builder.finish()), "layer"))
}

/// Every path, with its kind and what tells it apart.
fn shown(root: &Root) -> Vec<String> {
    fn visit(root: &Root, dir: &Dir, path: &str, lines: &mut Vec<String>) {
        for name in dir.names().unwrap() {
            let path = format!("{path}{}", name.name.to_str().unwrap());
            let Ok(stat) = dir.stat(&name.name) else {
                lines.push(format!("{path} damaged"));
                continue;
            };
            assert_eq!(stat.ino, name.ino);
            lines.push(match stat.kind {
                FileKind::Regular => {
                    let file = root.open_file(&path).unwrap();
                    let mut bytes = vec![0; 20];
                    let read = file.read_at(0, &mut bytes).unwrap();
                    assert_eq!(read as u64, stat.size);
                    format!("{path} {} {}", String::from_utf8_lossy(&bytes[..read]), stat.nlink)
                }
                FileKind::Symlink => {
                    let target = dir.read_link(&name.name).unwrap();
                    format!("{path} -> {}", String::from_utf8(target).unwrap())
                }
                FileKind::CharDevice if stat.rdev == (0, 0) => format!("{path} whiteout"),
                FileKind::Directory => {
                    let xattr = dir.xattr(&name.name, OsStr::new(OPAQUE)).unwrap();
                    let mark = if xattr.is_some() { " opaque" } else { "" };
                    format!("{path}/ {:o}{mark}", stat.permissions())
                }
                kind => format!("{path} {kind:?}"),
            });
            if stat.is_dir() {
                visit(root, &root.dir(&path).unwrap(), &format!("{path}/"), lines);
            }
        }
    }
    let mut lines = Vec::new();
    visit(root, &root.dir("").unwrap(), "", &mut lines);
    lines
}

#[test]
fn the_last_entry_of_a_name_wins() {
    for (entries, lines) in [
        (&[("a", "f 3"), ("b", "f 2"), ("a", "f 1")][..], &["a f 1", "b ef 1"][..]),
        (&[("d", "d"), ("d/x", "f 1"), ("d", "f 2")], &["d ef 1"]),
        (
            &[("d/", "d"), ("d/x", "f 1"), ("d", "f 2"), ("d", "d"), ("d/y", "p")],
            &["d/ 640", "d/y Fifo"],
        ),
        (&[("d", "f 1"), ("d", "d"), ("d/x", "p")], &["d/ 640", "d/x Fifo"]),
        (&[("d", "d"), ("d/x", "p"), ("d", "d")], &["d/ 640", "d/x Fifo"]),
        (&[("f", "f 1"), ("f/x", "p")], &["f/ 755", "f/x Fifo"]),
        (&[("a/b/c", "p")], &["a/ 755", "a/b/ 755", "a/b/c Fifo"]),
        (&[("d", "d"), ("d/x", "f 1"), ("d", "l e"), ("d", "d")], &["d/ 640"]),
    ] {
        assert_eq!(shown(&build(entries).unwrap()), lines, "{entries:?}");
    }
}

#[test]
fn no_path_leaves_the_layer() {
    for path in ["../../etc/x", "/etc/x", "./etc//x", "etc/../etc/./x", "a/../../etc/x"] {
        assert_eq!(shown(&build(&[(path, "p")]).unwrap()), ["etc/ 755", "etc/x Fifo"], "{path}");
    }
    for path in ["", ".", "/", "..", "a/.."] {
        assert_eq!(shown(&build(&[(path, "l x")]).unwrap()), [""; 0], "{path}");
    }
    let up = build(&[("d/up", "l ../../.."), ("d/up/x", "p")]).unwrap();
    assert_eq!(shown(&up), ["d/ 755", "d/up -> ../../..", "x Fifo"]);
}

#[test]
fn parents_are_reached_through_the_layers_own_symlinks() {
    let root = build(&[("usr/bin", "d"), ("bin", "l usr/bin"), ("bin/x", "p")]).unwrap();
    assert_eq!(shown(&root), ["bin -> usr/bin", "usr/ 755", "usr/bin/ 640", "usr/bin/x Fifo"]);
    let root = build(&[("bin", "l /usr/./bin"), ("bin/x", "p"), ("bin", "d")]).unwrap();
    assert_eq!(shown(&root), ["bin/ 640", "usr/ 755", "usr/bin/ 755", "usr/bin/x Fifo"]);
    assert!(build(&[("a", "l b"), ("b", "l a"), ("a/x", "p")]).is_err());
    let long = "n".repeat(256);
    assert!(build(&[("a", &format!("l {long}")), ("a/x", "p")]).is_err());
    assert!(build(&[(&long, "p")]).is_err());
    assert!(build(&[(&"d/".repeat(2100), "d")]).is_err());
}

#[test]
fn hard_links_are_names_of_one_file() {
    let root = build(&[("a", "f 2"), ("b", "h a"), ("a", "f 1"), ("c", "h ./b"), ("s", "l x")]);
    let root = root.unwrap();
    assert_eq!(shown(&root), ["a f 1", "b ef 2", "c ef 2", "s -> x"]);
    assert_eq!(root.stat("b").unwrap().ino, root.stat("c").unwrap().ino);
    assert_ne!(root.stat("b").unwrap().ino, root.stat("a").unwrap().ino);
    for entries in [
        &[("a", "h missing")][..],
        &[("a", "h a")],
        &[("a", "f 1"), ("a", "h a")],
        &[("d", "d"), ("a", "h d")],
        &[(".wh.b", "p"), ("a", "h b")],
    ] {
        let root = build(entries).unwrap();
        assert!(shown(&root).contains(&"a damaged".to_owned()), "{entries:?}");
        assert_eq!(root.stat("a").unwrap_err().errno(), Errno::IO);
        assert!(root.open_file("a").is_err());
    }
    let link = build(&[("s", "l x"), ("t", "h s")]).unwrap();
    assert_eq!(link.stat("t").unwrap().nlink, 2);
    let nothing = build(&[("a", "h x/y/z")]).unwrap();
    assert_eq!(shown(&nothing), ["a damaged"], "nothing is made for the sake of a link");
}

#[test]
fn a_whiteout_hides_what_lies_below_and_nothing_else() {
    for (entries, lines) in [
        (&[(".wh.a", "f 0")][..], &["a whiteout"][..]),
        (&[("a", "f 1"), (".wh.a", "f 0")], &["a f 1"]),
        (&[(".wh.a", "f 0"), ("a", "f 1")], &["a f 1"]),
        (&[(".wh.d", "f 0"), ("d", "d"), ("d/x", "p")], &["d/ 640 opaque", "d/x Fifo"]),
        (&[("d/x", "p"), (".wh.d", "f 0")], &["d/ 755 opaque", "d/x Fifo"]),
        (&[("d", "f 1"), (".wh.d", "f 0"), ("d", "d")], &["d/ 640 opaque"]),
        (&[("d/.wh..wh..opq", "f 0"), ("d", "d")], &["d/ 640 opaque"]),
        (&[("d/x", "p"), ("d/.wh..wh..opq", "f 0")], &["d/ 755 opaque", "d/x Fifo"]),
        (&[("d/.wh.", "f 0"), ("d/.wh..", "f 0"), ("d/.wh...", "f 0")], &["d/ 755"]),
        (&[("d/.wh..wh.x", "f 0")], &["d/ 755", "d/.wh.x whiteout"]),
        (&[(".wh.a", "d")], &["a whiteout"]),
        (
            &[(".wh..wh.aufs", "f 0"), (".wh..wh.plnk/1.2", "f 1"), ("a", "h .wh..wh.plnk/1.2")],
            &["a f 1"],
        ),
    ] {
        assert_eq!(shown(&build(entries).unwrap()), lines, "{entries:?}");
    }
    let bytes = Arc::new(Held::new("layer.tar", CONTENTS));
    let mut builder = PackedBuilder::new(bytes, 5, 1 << 20);
    builder.add(&entry(".wh..wh..opq", What::Fifo)).unwrap();
    assert!(builder.finish().is_opaque());
}

#[test]
fn attributes_are_those_that_unpacking_leaves() {
    let bytes = Arc::new(Held::new("layer.tar", CONTENTS));
    let mut builder = PackedBuilder::new(bytes, 5, 1 << 20);
    let xattrs = [
        ("user.a", "1"),
        ("trusted.overlay.opaque", "y"),
        ("user.overlay.x", "2"),
        ("security.x", ""),
    ]
    .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
    for (path, secs) in [("old", -1), ("new", SECS_AFTER), ("plain", 5)] {
        let mtime = Time { secs, nanos: 9 };
        let file = NewFile { mtime, xattrs: &xattrs, mode: 0o107_777, ..entry(path, What::Fifo) };
        builder.add(&file).unwrap();
    }
    builder.add(&entry("dev", What::BlockDevice(300, u32::MAX))).unwrap();
    let root = Root::packed(Arc::new(builder.finish()), "layer");
    let dir = root.dir("").unwrap();
    assert_eq!(root.stat("old").unwrap().mtime, Time::default());
    assert_eq!(root.stat("new").unwrap().mtime, Time::default());
    let plain = root.stat("plain").unwrap();
    assert_eq!((plain.mtime, plain.uid, plain.gid), (Time { secs: 5, nanos: 9 }, 1, 2));
    assert_eq!((plain.permissions(), plain.nlink), (0o7777, 1));
    assert_eq!(root.stat("dev").unwrap().rdev, (300, u32::MAX));
    assert_eq!(dir.xattrs(OsStr::new("old")).unwrap(), ["security.x", "user.a"]);
    let value = |name: &str| dir.xattr(OsStr::new("new"), OsStr::new(name)).unwrap();
    assert_eq!(value("user.a").as_deref(), Some(&b"1"[..]));
    assert_eq!(value("security.x").as_deref(), Some(&b""[..]));
    assert_eq!(value("trusted.overlay.opaque"), None);
    assert_eq!(dir.xattrs(OsStr::new("dev")).unwrap(), [""; 0]);
}

const SECS_AFTER: i64 = i64::MAX / 1_000_000_000 + 1;

#[test]
fn holes_are_zeros() {
    let bytes = Arc::new(Held::new("layer.tar", CONTENTS));
    let mut builder = PackedBuilder::new(bytes, 5, 1 << 20);
    let extents = [(2, 3, 10), (8, 1, 0), (9, 2, 1)];
    let extents = extents.map(|(offset, len, from)| Extent { offset, len, from });
    builder.add(&entry("f", What::File { size: 20, extents: &extents })).unwrap();
    builder.add(&entry("e", What::File { size: 1 << 50, extents: &[] })).unwrap();
    for wrong in [(19, 2, 0), (0, 1, 16), (u64::MAX, 1, 0), (0, 1, u64::MAX)] {
        let extents = [Extent { offset: wrong.0, len: wrong.1, from: wrong.2 }];
        assert!(builder.add(&entry("w", What::File { size: 20, extents: &extents })).is_err());
    }
    let root = Root::packed(Arc::new(builder.finish()), "layer");
    let file = root.open_file("f").unwrap();
    let whole = b"\0\0abc\0\0\x00012\0\0\0\0\0\0\0\0\0";
    for from in 0..=20 {
        for len in 0..=21 {
            let mut buf = vec![1; len];
            let read = file.read_at(from as u64, &mut buf).unwrap();
            assert_eq!(buf[..read], whole[from..20.min(from + len)], "{from} {len}");
        }
    }
    assert_eq!(file.seek(0, Seek::Data).unwrap(), Some(2));
    assert_eq!(file.seek(3, Seek::Hole).unwrap(), Some(5));
    assert_eq!(file.seek(8, Seek::Hole).unwrap(), Some(11));
    assert_eq!(file.seek(11, Seek::Data).unwrap(), None);
    assert_eq!(file.seek(20, Seek::Hole).unwrap(), None);
    let empty = root.open_file("e").unwrap();
    assert_eq!((empty.stat().size, empty.stat().blocks), (1 << 50, 0));
    assert_eq!(empty.read_at((1 << 50) - 1, &mut [1; 9]).unwrap(), 1);
}

#[test]
fn a_path_is_found_as_on_disk() {
    let root = build(&[("d/f", "f 1"), ("l", "l d")]).unwrap();
    let errno = |path: &str| root.open_file(path).unwrap_err().errno();
    assert_eq!(errno("l/f"), Errno::LOOP);
    assert_eq!(errno("l"), Errno::LOOP);
    assert_eq!(errno("d"), Errno::ISDIR);
    assert_eq!(errno("d/f/x"), Errno::NOTDIR);
    assert_eq!(errno("d/x"), Errno::NOENT);
    assert_eq!(errno("../d/f"), Errno::XDEV);
    assert_eq!(errno("/d/f"), Errno::XDEV);
    assert_eq!(root.dir("d/f").unwrap_err().errno(), Errno::NOTDIR);
    assert_eq!(root.sub("d", root.access()).unwrap().stat("f").unwrap().size, 1);
    assert!(!root.is_removed() && rustix::fs::fstat(&root).is_err());
    assert_eq!(root.read("d/f", 10).unwrap(), b"f");
}

#[test]
fn a_file_takes_about_a_hundred_bytes_and_too_many_are_refused() {
    let bytes: Arc<dyn Bytes> = Arc::new(Held::new("layer.tar", CONTENTS));
    let mut builder = PackedBuilder::new(Arc::clone(&bytes), 5, usize::MAX);
    let count = 100_000;
    for at in 0..count {
        let path = format!("usr/share/dir{}/some-file-{at}.txt", at / 50);
        builder.add(&entry(&path, What::File { size: 1, extents: &tail(1) })).unwrap();
    }
    let tree = builder.finish();
    assert!(tree.weight() / count <= 100, "{}", tree.weight() / count);
    let mut builder = PackedBuilder::new(bytes, 5, 1 << 20);
    let refused = (0..count).find(|at| builder.add(&entry(&at.to_string(), What::Fifo)).is_err());
    assert!(refused.unwrap() < 20_000);
}

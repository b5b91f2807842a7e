//! Stores damaged one way at a time: what is damaged says so, and everything else stays right.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::io::Errno;
use serde_json::{Value, json};
use stratafs::backing::FileKind;
use stratafs::recipe::Verify;
use stratafs::tree::{Attr, Options};

use crate::stores::golden::{self, OVERLAY_20, VFS_20};
use crate::stores::handmade::{digest, gzip, read_record, write_record};
use crate::stores::view::{View, options};

/// The chain ID of `base:1`'s only layer, which every golden store holds.
const BASE_CHAIN: &str = "2f0e82e9c0d7247675bc8726f72a9f492957294e9ce4fae0c437471a1ab1e155";

/// How the directories of that layer's images begin.
const BASE_LAYER: &str = "/layers/00-2f0e82e9c0d7/";

/// The same in an OCI layout.
const BASE_BLOB: &str = "/oci/blobs/sha256/2f0e82e9c0d7";

/// What a path shows: the digest of its bytes or of its target, or why it can't be read.
type Census = BTreeMap<String, Result<String, Errno>>;

/// All that is shown below the directory `at`.
fn census(view: &View, at: &str) -> Census {
    let mut census = Census::new();
    match view.attr(at) {
        Ok(attr) => count(view, &attr, at, &mut census),
        Err(err) => drop(census.insert(at.to_owned(), Err(err.errno()))),
    }
    census
}

fn count(view: &View, attr: &Attr, path: &str, census: &mut Census) {
    let shown = match attr.kind {
        FileKind::Directory => match view.tree.read_dir(attr.ino) {
            Err(err) => Err(err),
            Ok(listing) => {
                for child in &listing.children {
                    let path = format!("{path}/{}", child.name.to_string_lossy());
                    match view.tree.lookup(attr.ino, &child.name) {
                        Ok(attr) => count(view, &attr, &path, census),
                        Err(err) => drop(census.insert(path, Err(err.errno()))),
                    }
                }
                return;
            }
        },
        FileKind::Regular => view.read_node(attr),
        FileKind::Symlink => view.tree.read_link(attr.ino),
        _ => Ok(Vec::new()),
    };
    census.insert(path.to_owned(), shown.map(|bytes| digest(&bytes)).map_err(|err| err.errno()));
}

/// The tree of a store, as its layers are checked in one of two ways.
fn view(store: &Path, verify: Verify) -> View {
    View::with(store, Options { verify, ..options() })
}

/// A damaged store beside the same before it was.
struct Case<'a> {
    what: &'a str,
    store: &'a Path,
    before: &'a Census,
}

impl Case<'_> {
    /// Looks at everything. Where `is_lost` says so, a path must fail with EIO; where `may_change`
    /// does, it may be anything; all else must be as before.
    fn check(
        &self,
        verify: Verify,
        is_lost: &dyn Fn(&str) -> bool,
        may_change: &dyn Fn(&str) -> bool,
    ) {
        let view = view(self.store, verify);
        let mut after = census(&view, "by-id/images");
        after.extend(census(&view, "containers"));
        for (path, before) in self.before {
            // What was refused before, as the archives of a container that is being removed, still is.
            let is_lost = |path: &str| is_lost(path) && *before != Err(Errno::BUSY);
            let place = format!("{}, {verify:?}: {path}", self.what);
            match after.get(path) {
                _ if may_change(path) && !is_lost(path) => {}
                Some(after) if is_lost(path) => assert_eq!(*after, Err(Errno::IO), "{place}"),
                Some(after) => assert_eq!(after, before, "{place}"),
                None => {
                    // Its directory could not be listed, or is gone.
                    assert!(is_lost(path), "{place}: missing");
                }
            }
        }
    }
}

/// What depends on the record of the base layer, and on nothing else of it.
fn needs_base_tar(path: &str) -> bool {
    let is_of_base = path.contains(BASE_LAYER);
    (is_of_base && (path.ends_with("/layer.tar") || path.ends_with("/layer.json")))
        || path.contains("/formats/")
        || path.ends_with("/save.tar")
        || is_layout(path)
}

/// What of an OCI layout tells of sizes of layers, or holds them.
fn is_layout(path: &str) -> bool {
    path.contains("/oci/blobs/") || path.ends_with("/oci/index.json")
}

/// What has the bytes of the base layer.
fn holds_base_tar(path: &str) -> bool {
    let tells = path.ends_with("/layer.json") || is_layout(path);
    path.contains(BASE_BLOB) || (needs_base_tar(path) && !tells)
}

fn never(_: &str) -> bool {
    false
}

/// Both views of a store before it is damaged are the same; this is one of them.
fn before(store: &Path) -> Census {
    let view = view(store, Verify::Always);
    let mut all = census(&view, "by-id/images");
    all.extend(census(&view, "containers"));
    assert!(all.keys().filter(|path| needs_base_tar(path)).count() >= 8);
    all
}

fn base_record(store: &Path, driver: &str) -> PathBuf {
    store.join("image").join(driver).join("layerdb/sha256").join(BASE_CHAIN)
}

/// A way to damage the lines of a record: what it does, how it is found out, and how it is done.
type LineMutant = (&'static str, Found, fn(&mut Vec<Value>));

/// The same for the file that it is.
type FileMutant = (&'static str, Found, fn(&Path));

/// A way to damage something else, given a path to it.
type Mutant = (&'static str, fn(&Path));

/// A way to damage a file at a path, given more.
type Edit<T> = (&'static str, fn(&Path, &T));

/// How a mutant of a record is found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// When the record is read: there is no size, so nothing of the layer's tar.
    AtOnce,
    /// When the bytes are read, at the latest at the end of the file that they are of.
    Passing,
    /// Only by the digest of the whole.
    ByDigest,
    /// It is no damage.
    Harmless,
}

/// Ways to damage a record that is still gzip of lines.
fn line_mutants() -> Vec<LineMutant> {
    use Found::{AtOnce, ByDigest, Harmless, Passing};
    /// The first file with a body: `bin/su`, 700 bytes.
    fn file(lines: &mut [Value]) -> &mut Value {
        lines.iter_mut().find(|line| line["size"] == 700).unwrap()
    }
    fn at(lines: &[Value]) -> usize {
        lines.iter().position(|line| line["size"] == 700).unwrap()
    }
    vec![
        ("a checksum of other bytes", Passing, |lines| {
            file(lines)["payload"] = STANDARD.encode(7_u64.to_be_bytes()).into();
        }),
        ("a checksum of four bytes", AtOnce, |lines| file(lines)["payload"] = "AAAAAA==".into()),
        ("no checksum", AtOnce, |lines| file(lines)["payload"] = Value::Null),
        ("a checksum that is not base64", AtOnce, |lines| file(lines)["payload"] = "!!".into()),
        ("a size that is too small", Passing, |lines| file(lines)["size"] = 699.into()),
        ("a size that is too large", Passing, |lines| file(lines)["size"] = 701.into()),
        ("a negative size", AtOnce, |lines| file(lines)["size"] = (-1).into()),
        ("a size of half an address space", AtOnce, |lines| {
            file(lines)["size"] = (1_u64 << 63).into();
        }),
        ("a size that is text", AtOnce, |lines| file(lines)["size"] = "700".into()),
        ("no size", ByDigest, |lines| file(lines)["size"] = Value::Null),
        ("a name above the root", Passing, |lines| {
            file(lines)["name"] = "../../../../../../../../etc/passwd".into();
        }),
        ("an absolute name", Passing, |lines| file(lines)["name"] = "/etc/passwd".into()),
        ("the name of another file", Passing, |lines| file(lines)["name"] = "dir-a/f1".into()),
        ("the name of a directory", Passing, |lines| file(lines)["name"] = "dir-a/".into()),
        ("the name of a FIFO", Passing, |lines| file(lines)["name"] = "fifo".into()),
        ("the name of a device", Passing, |lines| file(lines)["name"] = "null".into()),
        ("the name of a missing file", Passing, |lines| file(lines)["name"] = "bin/no".into()),
        ("a name below a file", Passing, |lines| file(lines)["name"] = "bin/su/x".into()),
        ("an empty name", Passing, |lines| file(lines)["name"] = "".into()),
        ("a name with a NUL", AtOnce, |lines| file(lines)["name"] = "bin/s\0u".into()),
        ("a very long name", Passing, |lines| file(lines)["name"] = "n".repeat(5000).into()),
        ("a name that is a number", AtOnce, |lines| file(lines)["name"] = 7.into()),
        ("no name", AtOnce, |lines| drop(file(lines).as_object_mut().unwrap().remove("name"))),
        ("a raw name that is not base64", AtOnce, |lines| file(lines)["name_raw"] = "!!".into()),
        ("a raw name that is another", Passing, |lines| {
            file(lines)["name_raw"] = STANDARD.encode("dir-a/f1").into();
        }),
        ("the name of a symlink", Passing, |lines| file(lines)["name"] = "sym".into()),
        ("a name with dots in it", Harmless, |lines| {
            file(lines)["name"] = "./dir-a/..//bin/./su".into();
        }),
        ("a line of an unknown type", AtOnce, |lines| file(lines)["type"] = 3.into()),
        ("a line without a type", AtOnce, |lines| {
            drop(file(lines).as_object_mut().unwrap().remove("type"));
        }),
        ("a line that is a list", AtOnce, |lines| *file(lines) = json!([1, 2])),
        ("a line of a file less", ByDigest, |lines| drop(lines.remove(at(lines)))),
        ("a line of a file more", ByDigest, |lines| lines.insert(0, lines[at(lines)].clone())),
        ("a segment less", ByDigest, |lines| drop(lines.remove(0))),
        ("a segment that is not base64", AtOnce, |lines| lines[0]["payload"] = "AAE".into()),
        ("a segment of other bytes", ByDigest, |lines| {
            let mut bytes = STANDARD.decode(lines[0]["payload"].as_str().unwrap()).unwrap();
            bytes[100] ^= 1;
            lines[0]["payload"] = STANDARD.encode(bytes).into();
        }),
        ("two lines in each other's place", ByDigest, |lines| lines.swap(0, 3)),
        ("no lines", AtOnce, Vec::clear),
        ("the first half of the lines", ByDigest, |lines| lines.truncate(lines.len() / 2)),
        ("positions that are wrong", Harmless, |lines| {
            lines.iter_mut().for_each(|line| line["position"] = 7.into());
        }),
        ("a field that nobody knows", Harmless, |lines| file(lines)["more"] = json!({ "a": [1] })),
    ]
}

/// Ways to damage the file that a record is, with its path.
fn file_mutants() -> Vec<FileMutant> {
    use Found::{AtOnce, ByDigest};
    fn rewrite(path: &Path, edit: fn(Vec<u8>) -> Vec<u8>) {
        let bytes = fs::read(path).unwrap();
        fs::write(path, edit(bytes)).unwrap();
    }
    fn lines(path: &Path) -> Vec<u8> {
        read_record(path).iter().flat_map(|line| format!("{line}\n").into_bytes()).collect()
    }
    vec![
        ("no record", AtOnce, |path| fs::remove_file(path).unwrap()),
        ("an empty record", AtOnce, |path| fs::write(path, "").unwrap()),
        ("half a record", AtOnce, |path| {
            rewrite(path, |bytes| bytes[..bytes.len() / 2].to_vec());
        }),
        ("a record without its end", AtOnce, |path| {
            rewrite(path, |bytes| bytes[..bytes.len() - 1].to_vec());
        }),
        ("a record without its checksum", AtOnce, |path| {
            rewrite(path, |bytes| bytes[..bytes.len() - 8].to_vec());
        }),
        ("a record with another checksum", AtOnce, |path| {
            rewrite(path, |mut bytes| {
                let at = bytes.len() - 7;
                bytes[at] ^= 1;
                bytes
            });
        }),
        ("a record that is no gzip", AtOnce, |path| {
            rewrite(path, |bytes| [b"x", &bytes[..]].concat())
        }),
        ("a record with a flipped byte", AtOnce, |path| {
            rewrite(path, |mut bytes| {
                let at = bytes.len() / 2;
                bytes[at] ^= 0x10;
                bytes
            });
        }),
        ("a record with junk behind it", AtOnce, |path| {
            rewrite(path, |bytes| [&bytes[..], b"junk"].concat());
        }),
        ("a record with another behind it", ByDigest, |path| {
            rewrite(path, |bytes| bytes.repeat(2));
        }),
        ("a record that is not compressed", AtOnce, |path| fs::write(path, lines(path)).unwrap()),
        ("a record cut in a line", AtOnce, |path| {
            let lines = lines(path);
            fs::write(path, gzip(&lines[..lines.len() - 10])).unwrap();
        }),
        ("a directory for a record", AtOnce, |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }),
        ("a FIFO for a record", AtOnce, |path| {
            fs::remove_file(path).unwrap();
            fifo(path);
        }),
        ("a symlink for a record, to it", AtOnce, |path| {
            let moved = path.with_extension("moved");
            fs::rename(path, &moved).unwrap();
            symlink(&moved, path).unwrap();
        }),
    ]
}

fn fifo(path: &Path) {
    let mode = rustix::fs::Mode::from_raw_mode(0o644);
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
}

fn check_record(case: &Case<'_>, found: Found) {
    let nothing: &dyn Fn(&str) -> bool = &never;
    let base: &dyn Fn(&str) -> bool = &needs_base_tar;
    let tars: &dyn Fn(&str) -> bool = &holds_base_tar;
    let sizes: &dyn Fn(&str) -> bool =
        &|path: &str| path.ends_with("/layer.json") || is_layout(path);
    match found {
        Found::AtOnce => {
            case.check(Verify::Passing, base, nothing);
            case.check(Verify::Always, base, nothing);
        }
        // The size comes of the record alone, and is what it says.
        Found::Passing => {
            case.check(Verify::Passing, tars, sizes);
            case.check(Verify::Always, tars, sizes);
        }
        Found::ByDigest => {
            case.check(Verify::Passing, nothing, base);
            case.check(Verify::Always, tars, sizes);
        }
        Found::Harmless => {
            case.check(Verify::Passing, nothing, nothing);
            case.check(Verify::Always, nothing, nothing);
        }
    }
}

#[test]
fn a_damaged_record_never_gives_other_bytes() {
    let Some(store) = golden::copy(OVERLAY_20) else { return };
    let before = before(store.path());
    let path = base_record(store.path(), "overlay2").join("tar-split.json.gz");
    let good = fs::read(&path).unwrap();
    let lines = read_record(&path);
    for (what, found, damage) in line_mutants() {
        let mut damaged = lines.clone();
        damage(&mut damaged);
        write_record(&path, &damaged);
        check_record(&Case { what, store: store.path(), before: &before }, found);
    }
    for (what, found, damage) in file_mutants() {
        fs::write(&path, &good).unwrap();
        damage(&path);
        check_record(&Case { what, store: store.path(), before: &before }, found);
        match path.symlink_metadata() {
            Ok(meta) if meta.is_dir() => fs::remove_dir(&path).unwrap(),
            Ok(_) => fs::remove_file(&path).unwrap(),
            Err(_) => {}
        }
    }
    fs::write(&path, &good).unwrap();
    check_record(&Case { what: "mended", store: store.path(), before: &before }, Found::Harmless);
}

#[test]
fn a_record_that_is_a_bomb_is_refused() {
    let Some(store) = golden::copy(OVERLAY_20) else { return };
    let path = base_record(store.path(), "overlay2").join("tar-split.json.gz");
    let large = STANDARD.encode(vec![0; 9 << 20]);
    for line in [vec![b' '; 16 << 20], json!({ "type": 2, "payload": large }).to_string().into()] {
        fs::write(&path, gzip(&line)).unwrap();
        let view = View::of(store.path());
        let [layer] = &view.names("images/base:1/layers")[..] else { panic!() };
        let tar = view.attr(&format!("images/base:1/layers/{layer}/layer.tar"));
        assert_eq!(tar.map_err(|err| err.errno()).err(), Some(Errno::IO));
    }
}

/// Ways to damage a file of a layer.
fn content_mutants() -> Vec<Mutant> {
    vec![
        ("a flipped bit", |path| {
            let mut bytes = fs::read(path).unwrap();
            bytes[350] ^= 1;
            fs::write(path, bytes).unwrap();
        }),
        ("a byte less", |path| fs::write(path, &fs::read(path).unwrap()[..699]).unwrap()),
        ("a byte more", |path| fs::write(path, [b'x'; 701]).unwrap()),
        ("nothing in it", |path| fs::write(path, b"").unwrap()),
        ("other bytes", |path| fs::write(path, [b'y'; 700]).unwrap()),
        ("zeros", |path| {
            fs::File::create(path).unwrap().set_len(700).unwrap();
        }),
        ("nothing there", |path| fs::remove_file(path).unwrap()),
        ("a symlink to the same bytes", |path| {
            let moved = path.with_file_name("moved");
            fs::rename(path, &moved).unwrap();
            symlink("/etc/passwd", path).unwrap();
        }),
        ("a FIFO", |path| {
            fs::remove_file(path).unwrap();
            fifo(path);
        }),
        ("a directory", |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }),
        ("a file instead of its directory", |path| {
            fs::remove_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path.parent().unwrap(), "file").unwrap();
        }),
        ("a symlink instead of its directory", |path| {
            fs::remove_dir_all(path.parent().unwrap()).unwrap();
            symlink("/usr/bin", path.parent().unwrap()).unwrap();
        }),
    ]
}

#[test]
fn a_damaged_file_of_a_layer_is_never_part_of_its_tar() {
    for (name, driver, files) in
        [(OVERLAY_20, "overlay2", "overlay2/CACHE/diff"), (VFS_20, "vfs", "vfs/dir/CACHE")]
    {
        let Some(store) = golden::store(name) else { return };
        let before = before(store.path());
        for (what, damage) in content_mutants() {
            let store = golden::copy(name).unwrap();
            let cache_id = base_record(store.path(), driver).join("cache-id");
            let cache_id = fs::read_to_string(cache_id).unwrap();
            damage(&store.path().join(files.replace("CACHE", &cache_id)).join("bin/su"));
            let case = Case { what, store: store.path(), before: &before };
            // Merged files have no checksum: they show what the directory holds now.
            let merged = |path: &str| {
                path.ends_with("/export.tar")
                    || path.ends_with("/full.tar")
                    || path.ends_with("/diff.tar")
                    || path.ends_with("/changes")
                    || path.contains("/rootfs/bin")
                    || path.contains("/diff/bin")
                    || path.ends_with("/inspect.json")
            };
            case.check(Verify::Passing, &holds_base_tar, &merged);
            case.check(Verify::Always, &holds_base_tar, &merged);
        }
    }
}

#[test]
fn a_file_behind_a_symlink_of_its_layer_is_found_and_never_one_outside() {
    let Some(store) = golden::copy(VFS_20) else { return };
    let cache_id = base_record(store.path(), "vfs").join("cache-id");
    let files = store.path().join("vfs/dir").join(fs::read_to_string(cache_id).unwrap());
    let view = View::of(store.path());
    let [layer] = &view.names("images/base:1/layers")[..] else { panic!() };
    let path = format!("images/base:1/layers/{layer}/layer.tar");
    let good = digest(&view.read(&path));
    fs::rename(files.join("bin"), files.join("real")).unwrap();
    for target in ["real", "/real", "../../../real", "./dir-a/../real/."] {
        symlink(target, files.join("bin")).unwrap();
        assert_eq!(digest(&View::of(store.path()).read(&path)), good, "{target}");
        fs::remove_file(files.join("bin")).unwrap();
    }
    let outside = tempfile::tempdir().unwrap();
    fs::copy(files.join("real/su"), outside.path().join("su")).unwrap();
    symlink(outside.path(), files.join("bin")).unwrap();
    let err = View::of(store.path()).try_read(&path).unwrap_err();
    assert_eq!(err.errno(), Errno::IO);
    fs::remove_file(files.join("bin")).unwrap();
    symlink("bin", files.join("bin")).unwrap();
    let err = View::of(store.path()).try_read(&path).unwrap_err();
    assert_eq!(err.errno(), Errno::IO, "a loop");
}

/// Ways to damage what is known of the base layer in the store, on overlay2.
fn layer_mutants() -> Vec<Mutant> {
    fn record(store: &Path, field: &str) -> PathBuf {
        base_record(store, "overlay2").join(field)
    }
    fn directory(store: &Path) -> PathBuf {
        let cache_id = fs::read_to_string(record(store, "cache-id")).unwrap();
        store.join("overlay2").join(cache_id)
    }
    vec![
        ("no cache ID", |store| fs::remove_file(record(store, "cache-id")).unwrap()),
        ("an empty cache ID", |store| fs::write(record(store, "cache-id"), "").unwrap()),
        ("a cache ID above the store", |store| {
            fs::write(record(store, "cache-id"), "../../../etc").unwrap();
        }),
        ("a cache ID that leads nowhere", |store| {
            fs::write(record(store, "cache-id"), "0".repeat(64)).unwrap();
        }),
        ("a cache ID that is a symlink", |store| {
            fs::remove_file(record(store, "cache-id")).unwrap();
            symlink("/etc/hostname", record(store, "cache-id")).unwrap();
        }),
        ("a cache ID that is a FIFO", |store| {
            fs::remove_file(record(store, "cache-id")).unwrap();
            fifo(&record(store, "cache-id"));
        }),
        ("another diff ID", |store| {
            fs::write(record(store, "diff"), format!("sha256:{}", "0".repeat(64))).unwrap();
        }),
        ("no diff ID", |store| fs::remove_file(record(store, "diff")).unwrap()),
        ("a diff ID that is none", |store| fs::write(record(store, "diff"), "sha256:x").unwrap()),
        ("no size", |store| fs::remove_file(record(store, "size")).unwrap()),
        ("a negative size", |store| fs::write(record(store, "size"), "-1").unwrap()),
        ("a parent where there is none", |store| {
            fs::write(record(store, "parent"), format!("sha256:{BASE_CHAIN}")).unwrap();
        }),
        ("no record at all", |store| {
            fs::remove_dir_all(base_record(store, "overlay2")).unwrap();
        }),
        ("no directory", |store| fs::remove_dir_all(directory(store)).unwrap()),
        ("no files", |store| fs::remove_dir_all(directory(store).join("diff")).unwrap()),
        ("a symlink for its files", |store| {
            fs::remove_dir_all(directory(store).join("diff")).unwrap();
            symlink("/etc", directory(store).join("diff")).unwrap();
        }),
        ("a `lower` that it should not have", |store| {
            fs::write(directory(store).join("lower"), "l/../../etc").unwrap();
        }),
    ]
}

#[test]
fn a_layer_that_the_store_does_not_describe_takes_only_its_images_down() {
    for (what, damage) in layer_mutants() {
        let Some(store) = golden::copy(OVERLAY_20) else { return };
        damage(store.path());
        for verify in [Verify::Passing, Verify::Always] {
            let view = view(store.path(), verify);
            // Every image of this store stands on the layer.
            assert_eq!(view.names("images"), ["base", "base:1", "c2img", "c2img:1"], "{what}");
            for image in ["base:1", "c2img:1", "base"] {
                for name in ["save.tar", "export.tar", "rootfs", "layers"] {
                    let failed = view.attr(&format!("images/{image}/{name}"));
                    let failed = failed.and_then(|attr| view.tree.read_dir(attr.ino));
                    let errno = failed.map_err(|err| err.errno()).err();
                    assert_eq!(errno, Some(Errno::IO), "{what}: {image}/{name}");
                }
                let config = digest(&view.read(&format!("images/{image}/config.json")));
                assert_eq!(format!("{config}\n"), view.text(&format!("images/{image}/id")));
            }
            assert_eq!(view.names("containers"), ["c1"], "{what}");
            assert!(!census(&view, "containers").is_empty());
        }
    }
}

#[test]
fn a_config_that_is_not_what_its_name_says_takes_only_its_image_down() {
    let Some(store) = golden::copy(VFS_20) else { return };
    let before = before(store.path());
    let view_before = View::of(store.path());
    let id = view_before.text("images/built:1/id");
    let hex = id.trim_end().strip_prefix("sha256:").unwrap().to_owned();
    let path = store.path().join("image/vfs/imagedb/content/sha256").join(&hex);
    let good = fs::read(&path).unwrap();
    let edits: [Edit<[u8]>; 7] = [
        ("a flipped bit", |path, good| {
            let mut bytes = good.to_vec();
            bytes[40] ^= 1;
            fs::write(path, bytes).unwrap();
        }),
        ("half of it", |path, good| fs::write(path, &good[..good.len() / 2]).unwrap()),
        ("nothing", |path, _| fs::write(path, "").unwrap()),
        ("a deep JSON", |path, _| fs::write(path, "[".repeat(1 << 20)).unwrap()),
        ("a large file", |path, _| {
            fs::File::create(path).unwrap().set_len((16 << 20) + 1).unwrap();
        }),
        ("a FIFO", |path, _| {
            fs::remove_file(path).unwrap();
            fifo(path);
        }),
        ("a symlink", |path, _| {
            fs::remove_file(path).unwrap();
            symlink("/etc/passwd", path).unwrap();
        }),
    ];
    for (what, damage) in edits {
        damage(&path, &good);
        let case = Case { what, store: store.path(), before: &before };
        let is_lost = |path: &str| path.starts_with(&format!("by-id/images/{hex}/"));
        case.check(Verify::Passing, &is_lost, &never);
        fs::remove_file(&path).unwrap();
        fs::write(&path, &good).unwrap();
    }
}

#[test]
fn names_that_cannot_be_read_leave_images_under_their_ids() {
    let edits: [Mutant; 6] = [
        ("half of it", |path| {
            let bytes = fs::read(path).unwrap();
            fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        }),
        ("a list", |path| fs::write(path, "[]").unwrap()),
        ("names of other types", |path| {
            fs::write(path, r#"{"Repositories":{"base":7,"x":{"x:1":[]}}}"#).unwrap();
        }),
        ("names above the directory", |path| {
            let text = r#"{"Repositories":{"../..":{"../..:1":"sha256:ID"},"a/../b":{"a/../b:1":"sha256:ID"}}}"#;
            fs::write(path, text.replace("ID", &"0".repeat(64))).unwrap();
        }),
        ("a directory", |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }),
        ("a FIFO", |path| {
            fs::remove_file(path).unwrap();
            fifo(path);
        }),
    ];
    for (what, damage) in edits {
        let Some(store) = golden::copy(OVERLAY_20) else { return };
        let images = View::of(store.path()).names("by-id/images");
        damage(&store.path().join("image/overlay2/repositories.json"));
        let view = View::of(store.path());
        assert_eq!(view.names("images"), Vec::<String>::new(), "{what}");
        assert_eq!(view.names("by-id/images"), images, "{what}");
        assert!(view.text(".stratafs/errors").contains("repositories.json"), "{what}");
        view.read(&format!("by-id/images/{}/save.tar", images[0]));
    }
}

fn container_config(store: &Path, id: &str) -> PathBuf {
    store.join("containers").join(id).join("config.v2.json")
}

fn container_mount(store: &Path, id: &str, field: &str) -> PathBuf {
    store.join("image/overlay2/layerdb/mounts").join(id).join(field)
}

/// Directory of the writable layer of a container.
fn container_files(store: &Path, id: &str) -> PathBuf {
    let mount_id = fs::read_to_string(container_mount(store, id, "mount-id")).unwrap();
    store.join("overlay2").join(mount_id)
}

fn only_container(store: &Path) -> String {
    let first = fs::read_dir(store.join("containers")).unwrap().next().unwrap();
    first.unwrap().file_name().into_string().unwrap()
}

#[test]
fn a_container_whose_config_is_damaged_is_left_out() {
    let edits: [Edit<str>; 5] = [
        ("no JSON", |store, id| fs::write(container_config(store, id), "{").unwrap()),
        ("another ID", |store, id| {
            let text = fs::read_to_string(container_config(store, id)).unwrap();
            fs::write(container_config(store, id), text.replace(id, &"0".repeat(64))).unwrap();
        }),
        ("a name above the directory", |store, id| {
            let text = fs::read_to_string(container_config(store, id)).unwrap();
            let text = text.replace("\"/c1\"", "\"/../c1\"");
            fs::write(container_config(store, id), text).unwrap();
        }),
        ("a FIFO", |store, id| {
            fs::remove_file(container_config(store, id)).unwrap();
            fifo(&container_config(store, id));
        }),
        ("a symlink", |store, id| {
            let moved = store.join("moved");
            fs::rename(container_config(store, id), &moved).unwrap();
            symlink(moved, container_config(store, id)).unwrap();
        }),
    ];
    for (what, damage) in edits {
        let Some(store) = golden::copy(OVERLAY_20) else { return };
        let before = before(store.path());
        damage(store.path(), &only_container(store.path()));
        let view = View::of(store.path());
        assert_eq!(view.names("containers"), Vec::<String>::new(), "{what}");
        assert!(view.text(".stratafs/errors").contains("config.v2.json"), "{what}");
        let is_of_it = |path: &str| path.starts_with("containers/") || path.contains("/used-by/");
        let case = Case { what, store: store.path(), before: &before };
        case.check(Verify::Passing, &never, &is_of_it);
    }
}

#[test]
fn a_container_whose_files_are_lost_says_so() {
    let edits: [(Errno, Edit<str>); 5] = [
        (
            Errno::IO,
            ("a mount ID above the store", |store, id| {
                fs::write(container_mount(store, id, "mount-id"), "../../../etc").unwrap();
            }),
        ),
        (
            Errno::IO,
            ("an init ID that leads nowhere", |store, id| {
                fs::write(container_mount(store, id, "init-id"), "0".repeat(64)).unwrap();
            }),
        ),
        (
            Errno::IO,
            ("a `lower` of another", |store, id| {
                let lower = container_files(store, id).join("lower");
                fs::write(lower, format!("l/{}", "A".repeat(26))).unwrap();
            }),
        ),
        // As a container that is just being removed.
        (
            Errno::BUSY,
            ("no mount ID", |store, id| {
                fs::remove_file(container_mount(store, id, "mount-id")).unwrap();
            }),
        ),
        (
            Errno::BUSY,
            ("no files", |store, id| fs::remove_dir_all(container_files(store, id)).unwrap()),
        ),
    ];
    for (errno, (what, damage)) in edits {
        let Some(store) = golden::copy(OVERLAY_20) else { return };
        let before = before(store.path());
        damage(store.path(), &only_container(store.path()));
        let view = View::of(store.path());
        assert_eq!(view.names("containers"), ["c1"], "{what}");
        for name in ["export.tar", "diff.tar"] {
            let failed = view.attr(&format!("containers/c1/{name}")).map_err(|err| err.errno());
            assert_eq!(failed.err(), Some(errno), "{what}: {name}");
        }
        let case = Case { what, store: store.path(), before: &before };
        case.check(Verify::Passing, &never, &|path| path.starts_with("containers/"));
    }
}

#[test]
fn a_flipped_bit_anywhere_never_gives_other_bytes_of_a_layer() {
    let Some(store) = golden::copy(OVERLAY_20) else { return };
    let before = before(store.path());
    let mut files = Vec::new();
    regular_files(store.path(), &mut files);
    for (round, path) in files.iter().enumerate() {
        let good = fs::read(path).unwrap();
        if good.is_empty() {
            continue;
        }
        let mut bad = good.clone();
        bad[round * 7919 % good.len()] ^= 1 << (round % 8);
        fs::write(path, bad).unwrap();
        let view = view(store.path(), Verify::Always);
        for (shown, found) in census(&view, "by-id/images") {
            let is_exact = shown.ends_with("/layer.tar") || shown.ends_with("/config.json");
            if let (true, Ok(found)) = (is_exact, found) {
                assert_eq!(before.get(&shown), Some(&Ok(found)), "{}: {shown}", path.display());
            }
        }
        census(&view, "containers");
        census(&view, "images");
        fs::write(path, good).unwrap();
    }
}

fn regular_files(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            regular_files(&entry.path(), files);
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    files.sort_by(|a, b| OsStr::as_bytes(a.as_os_str()).cmp(b.as_os_str().as_bytes()));
}

//! Windows layers: the reader's contract, the tar that is made of one, and the way back.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use rustix::io::Errno;
use sha2::{Digest, Sha256};
use stratafs::backing::{Access, Bytes, Held, Root};
use stratafs::store::windows_layer::WindowsLayer;
use stratafs::store::{self, Context, Layer, LayerSource, LayerStore, Source};
use stratafs::tar::tree;
use stratafs::windows::reader::{Form, LayerReader};
use stratafs::windows::{BasicInfo, FileTime};
use tempfile::TempDir;

use crate::stores::windows::{
    ARCHIVE, DIRECTORY, Exported, HIVE, LINK, SECURITY, WRITTEN, alternate, canonical, data, lossy,
    reparse, security, set_time, stream,
};

fn temp() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn root(dir: &Path) -> Arc<Root> {
    Arc::new(Root::open(dir, Access::Sealed).unwrap())
}

/// The layers that `text`, `DIR[,PARENT...]`, names, lowest first.
fn layers(text: &Path) -> stratafs::error::Result<Vec<Layer>> {
    let store = WindowsLayer::open(text, &Arc::default()).unwrap();
    let catalog = store.catalog()?;
    match catalog.damaged.first() {
        Some(err) => Err(err.again()),
        None => Ok(store.image(*catalog.images.keys().next().unwrap())?.layers),
    }
}

/// The bytes of the tar of the topmost layer, which are what its diff ID says.
fn tar_of(text: &Path) -> Vec<u8> {
    let layers = layers(text).unwrap();
    let layer = layers.last().unwrap();
    let LayerSource::Blob(blob) = &layer.source else { panic!("no blob") };
    let mut bytes = vec![0; blob.bytes.len() as usize + 1];
    let read = blob.bytes.read_at(0, &mut bytes).unwrap();
    bytes.truncate(read);
    assert_eq!(read as u64, blob.bytes.len(), "the size that was said");
    let hash: [u8; 32] = Sha256::digest(&bytes).into();
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(layer.diff_id.hex(), hex);
    bytes
}

fn unpack(tar: &[u8], to: &Path) -> Output {
    let dir = temp();
    let file = dir.path().join("layer.tar");
    fs::write(&file, tar).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_stratafs"));
    command.args(["windows-layer", "unpack"]).arg(file).arg(to).output().unwrap()
}

fn unpacked(tar: &[u8]) -> TempDir {
    let to = temp();
    let output = unpack(tar, to.path());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    to
}

/// A file on disk, or a directory.
#[derive(Debug, Default, PartialEq)]
struct OnDisk {
    bytes: Option<Vec<u8>>,
    /// When it was written; 0 where that is nobody's concern.
    written: (i64, i64),
    links: u64,
}

/// Every file of a directory.
fn files(dir: &Path) -> BTreeMap<PathBuf, OnDisk> {
    let mut all = BTreeMap::new();
    let mut left = vec![dir.to_owned()];
    while let Some(path) = left.pop() {
        for entry in fs::read_dir(&path).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            let name = path.strip_prefix(dir).unwrap().to_owned();
            let own = (meta.mtime(), meta.mtime_nsec());
            let shown = if meta.is_dir() {
                left.push(path);
                // Those of directories that are described elsewhere are nobody's.
                let written = if name.starts_with("UtilityVM") { own } else { (0, 0) };
                OnDisk { written, ..OnDisk::default() }
            } else {
                let written = if name == Path::new("tombstones.txt") { (0, 0) } else { own };
                OnDisk { bytes: Some(fs::read(&path).unwrap()), written, links: meta.nlink() }
            };
            all.insert(name, shown);
        }
    }
    all
}

// The reader.

/// Paths, with `-` before what is deleted.
fn order(reader: &mut LayerReader) -> Vec<String> {
    let mut paths = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        let path = String::from_utf8(entry.path).unwrap();
        paths.push(if entry.file.is_some() { path } else { format!("-{path}") });
    }
    paths
}

#[test]
fn parents_come_first_and_deletions_right_after_their_directory() {
    let dir = temp();
    let mut layer = Exported::create(dir.path());
    for name in ["b", "b/z", "a.d", "$RECYCLE.bin", "$RECYCLE.bin/S-1-5"] {
        layer.directory(name, DIRECTORY, &[]);
    }
    for name in ["b/y", "b/z/1", "a", "a.d/x", "$RECYCLE.bin/desktop.ini"] {
        layer.file(name, ARCHIVE, &[data(b"")]);
    }
    for path in ["b\\z\\old", "gone", "b\\z\\a", "nowhere\\lost"] {
        layer.delete(path);
    }
    for name in ["bcd.bak", "layout"] {
        layer.plain(name, b"", WRITTEN);
    }
    fs::create_dir_all(dir.path().join("UtilityVM/Files")).unwrap();
    fs::create_dir_all(dir.path().join("UtilityVM/Other")).unwrap();
    let dir = layer.finish();
    let mut reader = LayerReader::new(&root(&dir), Form::Exported).unwrap();
    let expected = [
        "Files",
        "-Files/gone",
        "Files/a",
        "Files/a.d",
        "Files/a.d/x",
        "Files/b",
        "Files/b/y",
        "Files/b/z",
        "-Files/b/z/old",
        "-Files/b/z/a",
        "Files/b/z/1",
        "Hives",
        "Hives/System_Delta",
        "UtilityVM",
        "UtilityVM/Files",
    ];
    assert_eq!(order(&mut reader), expected);
    assert!(reader.next_entry().unwrap().is_none());
    reader.close().unwrap();
    let err = reader.next_entry().unwrap_err();
    assert!(err.to_string().contains("closed"), "{err}");
    reader.close().unwrap();
}

#[test]
fn an_entry_is_read_as_its_raw_backup_stream() {
    let dir = temp();
    let mut layer = Exported::create(dir.path());
    let streams = [security(), data(b"contents")];
    layer.file("file", ARCHIVE, &streams);
    layer.delete("gone");
    let dir = layer.finish();
    let mut reader = LayerReader::new(&root(&dir), Form::Exported).unwrap();
    let mut all = Vec::new();
    assert_eq!(reader.next_entry().unwrap().unwrap().path, b"Files");
    assert_eq!(reader.read_to_end(&mut all).unwrap(), 0, "no security of what is outside");
    assert!(reader.seek(SeekFrom::Start(0)).is_err());
    let deleted = reader.next_entry().unwrap().unwrap();
    assert!(deleted.file.is_none() && deleted.path == b"Files/gone");
    assert_eq!(reader.read(&mut [0; 9]).unwrap(), 0);
    assert!(reader.seek(SeekFrom::Start(0)).is_err());
    let file = reader.next_entry().unwrap().unwrap().file.unwrap();
    assert_eq!(file.size, 8);
    let written = FileTime(116_444_736_000_000_000 + WRITTEN.0 * 10_000_000 + 1_234_567);
    assert_eq!(file.info, BasicInfo::at(written, ARCHIVE));
    reader.read_to_end(&mut all).unwrap();
    assert_eq!(all, streams.concat());
    assert_eq!(reader.seek(SeekFrom::End(-8)).unwrap(), all.len() as u64 - 8);
    let mut tail = Vec::new();
    reader.read_to_end(&mut tail).unwrap();
    assert_eq!(tail, b"contents");
    assert_eq!(reader.next_entry().unwrap().unwrap().path, b"Hives");
    let hive = reader.next_entry().unwrap().unwrap().file.unwrap();
    assert_eq!(hive.info.attributes, ARCHIVE);
    let mut all = Vec::new();
    reader.read_to_end(&mut all).unwrap();
    assert_eq!(all, data(b"regf"), "made up around a plain file");
    assert!(reader.seek(SeekFrom::Start(0)).is_err());
    let err = reader.close().unwrap_err();
    assert!(err.to_string().contains("not read to its end"), "{err}");
}

#[test]
fn a_failure_stays() {
    let dir = temp();
    let layer = Exported::create(dir.path());
    layer.file("bad", ARCHIVE, &[stream(11, 0, "", b"")]);
    layer.file("good", ARCHIVE, &[]);
    let dir = layer.finish();
    let mut reader = LayerReader::new(&root(&dir), Form::Exported).unwrap();
    reader.next_entry().unwrap();
    let first = reader.next_entry().unwrap_err();
    assert_eq!(first.errno(), Errno::IO);
    assert!(first.to_string().contains("Files/bad"), "{first}");
    for _ in 0..3 {
        assert_eq!(reader.next_entry().unwrap_err().to_string(), first.to_string());
    }
    assert_eq!(reader.close().unwrap_err().to_string(), first.to_string());
}

#[test]
fn files_and_hives_have_the_times_of_the_system_s_hive() {
    let dir = temp();
    let dir = Exported::create(dir.path()).finish();
    set_time(&dir.join("Hives"), WRITTEN);
    let mut reader = LayerReader::new(&root(&dir), Form::Exported).unwrap();
    for name in ["Files", "Hives"] {
        let entry = reader.next_entry().unwrap().unwrap();
        assert_eq!(entry.path, name.as_bytes());
        let time = FileTime(116_444_736_000_000_000 + HIVE.0 * 10_000_000);
        assert_eq!(entry.file.unwrap().info, BasicInfo::at(time, DIRECTORY));
    }
    fs::remove_file(dir.join("Hives/System_Delta")).unwrap();
    let mut reader = LayerReader::new(&root(&dir), Form::Exported).unwrap();
    assert_eq!(reader.next_entry().unwrap_err().errno(), Errno::NOENT);
}

#[test]
fn a_base_layer_is_plain_files_and_its_utility_vm() {
    let dir = temp();
    for path in ["Files/Windows", "Hives", "UtilityVM/Files/EFI", "UtilityVM/Other"] {
        fs::create_dir_all(dir.path().join(path)).unwrap();
    }
    for path in ["Files/Windows/explorer.exe", "Hives/x", "UtilityVM/Files/EFI/BCD", "UtilityVM/y"]
    {
        fs::write(dir.path().join(path), b"MZ").unwrap();
    }
    let mut reader = LayerReader::new(&root(dir.path()), Form::Base).unwrap();
    let expected = [
        "Files",
        "Files/Windows",
        "Files/Windows/explorer.exe",
        "UtilityVM",
        "UtilityVM/Files",
        "UtilityVM/Files/EFI",
        "UtilityVM/Files/EFI/BCD",
    ];
    assert_eq!(order(&mut reader), expected);
    let tar = tar_of(dir.path());
    fs::remove_dir_all(dir.path().join("UtilityVM/Files")).unwrap();
    let mut reader = LayerReader::new(&root(dir.path()), Form::Base).unwrap();
    assert_eq!(order(&mut reader), expected[..3]);
    assert_eq!(tar_of(unpacked(&tar).path()), tar, "as an exported layer");
}

#[test]
fn what_importing_changed_is_read_as_it_was_before() {
    let dir = temp();
    let layer = Exported::create(dir.path());
    fs::create_dir_all(dir.path().join("UtilityVM/Files/EFI/Microsoft/Boot")).unwrap();
    layer.plain("UtilityVM/Files/EFI/Microsoft/Boot/BCD", b"changed", WRITTEN);
    layer.plain("bcd.bak", b"as it was", WRITTEN);
    let tar = tar_of(&layer.finish());
    assert!(tar.windows(9).any(|part| part == b"as it was"));
    assert!(!tar.windows(7).any(|part| part == b"changed"));
}

// The tar.

/// What a reader of another hand finds in a tar.
#[derive(Debug, PartialEq)]
struct Told {
    kind: tar::EntryType,
    mode: u32,
    mtime: u64,
    link: String,
    records: BTreeMap<String, String>,
    bytes: Vec<u8>,
}

fn told(tar: &[u8]) -> Vec<(String, Told)> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let records = entry.pax_extensions().unwrap().into_iter().flatten().map(|record| {
            let record = record.unwrap();
            (record.key().unwrap().to_owned(), record.value().unwrap().to_owned())
        });
        let records = records.collect();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        let header = entry.header();
        assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0));
        let link = entry.link_name_bytes().unwrap_or_default().into_owned();
        let told = Told {
            kind: header.entry_type(),
            mode: header.mode().unwrap(),
            mtime: header.mtime().unwrap(),
            link: String::from_utf8(link).unwrap(),
            records,
            bytes,
        };
        (String::from_utf8(entry.path_bytes().into_owned()).unwrap(), told)
    });
    entries.collect()
}

#[test]
fn a_tar_has_its_entries_in_the_order_of_the_reader() {
    let dir = temp();
    let tar = tar_of(&canonical(dir.path()));
    assert!(tar.ends_with(&[0; 1024]) && !tar.ends_with(&[0; 2048]));
    let entries = told(&tar);
    let names: Vec<&str> = entries.iter().map(|(name, _)| &name[..]).collect();
    let expected = [
        "Files",
        "Files/.wh.gone.txt",
        "Files/Documents and Settings",
        "Files/Windows",
        "Files/Windows/.wh.old",
        "Files/Windows/.wh.older",
        "Files/Windows/System32",
        "Files/Windows/System32:dir",
        "Files/Windows/System32/all.dll",
        "Files/Windows/System32/all.dll:Zone.Identifier",
        "Files/Windows/System32/all.dll:empty",
        "Files/Windows/empty.txt",
        "Files/Windows/na\u{ef}ve \u{1f600}.txt",
        "Files/Windows/nothing",
        "Files/first",
        "Files/link",
        "Files/second",
        "Hives",
        "Hives/Software_Delta",
        "Hives/System_Delta",
        "UtilityVM",
        "UtilityVM/Files",
        "UtilityVM/Files/EFI",
        "UtilityVM/Files/EFI/boot.efi",
    ];
    assert_eq!(names, expected);
    let entries: BTreeMap<String, Told> = entries.into_iter().collect();
    let deleted = &entries["Files/.wh.gone.txt"];
    assert_eq!((deleted.mode, deleted.mtime, deleted.records.len()), (0, 0, 0));
    let hive = &entries["Hives/System_Delta"].records;
    assert!(!hive.contains_key("mtime") && hive["atime"] == "1600000100", "{hive:?}");
}

#[test]
fn a_tar_tells_all_that_windows_tars_tell() {
    let dir = temp();
    let entries: BTreeMap<String, Told> =
        told(&tar_of(&canonical(dir.path()))).into_iter().collect();
    let security = "AQAEgAAAAAAAAAAAAAAAABQAAAACAAgAAAAAAA==";
    let times = [
        ("LIBARCHIVE.creationtime", "1600000000.1234567"),
        ("atime", "1600000000.1234567"),
        ("ctime", "1600000000.1234567"),
        ("mtime", "1600000000.1234567"),
    ];
    let with = |own: &[(&str, &str)]| -> BTreeMap<String, String> {
        let all = times.iter().chain(own);
        all.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let mut of_stream = with(&[]);
    of_stream.remove("LIBARCHIVE.creationtime");
    let told = |kind, mode, link: &str, records, bytes: &[u8]| Told {
        kind,
        mode,
        mtime: WRITTEN.0,
        link: link.to_owned(),
        records,
        bytes: bytes.to_owned(),
    };
    use tar::EntryType::{Directory, Link, Regular, Symlink};
    let all = [
        ("MSWINDOWS.fileattr", "33"),
        ("MSWINDOWS.rawsd", security),
        ("MSWINDOWS.xattr.$KERNEL.PURGE", "AQD/"),
        ("MSWINDOWS.xattr.EMPTY", ""),
    ];
    let directory = [("MSWINDOWS.fileattr", "8208"), ("MSWINDOWS.rawsd", security)];
    let junction = [("MSWINDOWS.fileattr", "1040"), ("MSWINDOWS.mountpoint", "1")];
    let link = [("MSWINDOWS.fileattr", "1056"), ("MSWINDOWS.rawsd", security)];
    let plain = [("MSWINDOWS.fileattr", "32")];
    for (name, expected) in [
        ("Files/Windows/System32/all.dll", told(Regular, 0o100_000, "", with(&all), &[7; 70_000])),
        (
            "Files/Windows/System32/all.dll:Zone.Identifier",
            told(Regular, 0o100_000, "", of_stream.clone(), b"[ZoneTransfer]"),
        ),
        ("Files/Windows/System32", told(Directory, 0o040_000, "", with(&directory), b"")),
        ("Files/Windows/System32:dir", told(Regular, 0o040_000, "", of_stream, b"of a directory")),
        (
            "Files/Documents and Settings",
            told(Symlink, 0o160_000, "C:\\Users", with(&junction), b""),
        ),
        ("Files/link", told(Symlink, 0o120_000, "Windows\\System32\\all.dll", with(&link), b"")),
        ("Files/first", told(Regular, 0o100_000, "", with(&plain), b"two names")),
        ("Files/second", told(Link, 0o644, "Files/first", with(&plain), b"")),
        ("Files/Windows/nothing", told(Regular, 0, "", with(&plain), b"")),
        ("UtilityVM/Files/EFI/boot.efi", told(Regular, 0o100_000, "", with(&plain), b"MZ")),
    ] {
        assert_eq!(entries[name], expected, "{name}");
    }
}

#[test]
fn holes_are_zeros_and_what_a_tar_has_no_room_for_is_dropped() {
    let dir = temp();
    let tar = tar_of(&lossy(dir.path()));
    let entries: BTreeMap<String, Told> = told(&tar).into_iter().collect();
    let sparse = &entries["Files/sparse"];
    let mut expected = vec![0; 100_000];
    expected[4096..4101].copy_from_slice(b"block");
    expected[65_536..70_536].fill(9);
    assert!(sparse.bytes == expected);
    assert_eq!(sparse.records["MSWINDOWS.xattr.A"], "MQ==");
    assert_eq!(entries["Files/sparse:sparse"].bytes, b"\0\0\0\0\0\0\0\0x");
    assert_eq!(entries["Files/allocated"].bytes, b"sparse in name alone");
    let again = unpacked(&tar);
    assert_eq!(tar_of(again.path()), tar, "what is left stays");
}

#[test]
fn any_range_of_a_tar_is_that_of_all_of_it() {
    let dir = temp();
    let layers = layers(&canonical(dir.path())).unwrap();
    let LayerSource::Blob(blob) = &layers[0].source else { panic!("no blob") };
    let whole = tar_of(dir.path());
    for step in [1, 511, 512, 513, 4099] {
        for at in (0..whole.len() + step).step_by(step * 7 + 1) {
            let mut part = vec![0; step];
            let read = blob.bytes.read_at(at as u64, &mut part).unwrap();
            let expected = whole.get(at..).unwrap_or_default();
            assert!(part[..read] == expected[..step.min(expected.len())], "{step} from {at}");
        }
    }
}

#[test]
fn a_file_that_changes_is_never_read_as_other_bytes() {
    let dir = temp();
    let path = canonical(dir.path());
    let store = WindowsLayer::open(&path, &Arc::default()).unwrap();
    let look = || {
        let catalog = store.catalog().unwrap();
        let image = store.image(*catalog.images.keys().next().unwrap()).unwrap();
        let LayerSource::Blob(blob) = image.layers[0].source.clone() else { panic!("no blob") };
        (image.id, blob.bytes)
    };
    let (id, bytes) = look();
    let file = path.join("Files/first");
    let mut changed = fs::read(&file).unwrap();
    *changed.last_mut().unwrap() ^= 1;
    fs::write(&file, &changed).unwrap();
    let generation = store.generation().unwrap();
    let mut buf = vec![0; bytes.len() as usize];
    let err = bytes.read_at(0, &mut buf).unwrap_err();
    assert_eq!(err.errno(), Errno::STALE);
    assert!(err.to_string().contains("Files/first"), "{err}");
    // From then on it is another image, of the layer as it is now.
    assert!(bytes.stamp().is_err());
    assert_ne!(store.generation().unwrap(), generation);
    let (new, bytes) = look();
    assert_ne!(new, id);
    assert_eq!(bytes.read_at(0, &mut buf).unwrap(), buf.len());
    assert_eq!(look().0, new);
}

#[test]
fn an_exported_layer_is_known_by_its_tombstones() {
    let dir = temp();
    let path = canonical(&dir.path().join("layer"));
    let kind = |path: &Path| {
        let source = Source { kind: None, path: path.to_owned() };
        store::open(&source, &Context::default()).map(|store| store.info().kind)
    };
    assert_eq!(kind(&path).unwrap(), "windows-layer");
    fs::remove_file(path.join("tombstones.txt")).unwrap();
    assert!(kind(&path).is_err(), "nothing tells it from any directory");
}

#[test]
fn records_that_make_no_sense_damage_their_file_alone() {
    let dir = temp();
    let layer = Exported::create(dir.path());
    layer.file("bad", 33, &[data(b"x")]);
    layer.file("good", ARCHIVE, &[data(b"y"), alternate("large", &[1; 70_000])]);
    let mut tar = tar_of(&layer.finish());
    let at = tar.windows(11).position(|part| part == b"fileattr=33").expect("the record");
    tar[at + 9] = b'x';
    let bytes: Arc<dyn Bytes> = Arc::new(Held::new("tar", tar));
    let root = Root::packed(Arc::new(tree::read(&bytes, 1).unwrap()), "layer");
    assert!(root.stat("Files/bad").unwrap_err().to_string().contains("Windows"));
    assert_eq!(root.read("Files/good", 9).unwrap(), b"y");
    let stat = root.stat("Files/good").unwrap();
    assert_eq!((stat.permissions(), stat.mtime.nanos), (0o644, WRITTEN.1));
    assert_eq!(root.read("Files/good:large", 1 << 20).unwrap(), [1; 70_000]);
}

#[test]
fn a_tar_is_a_layer_as_the_directory_that_it_was_made_of() {
    let dir = temp();
    let below = Exported::create(&dir.path().join("below")).finish();
    let above = canonical(&dir.path().join("layer"));
    let image = |above: &Path, below: &Path| {
        let text = format!("{},{}", above.display(), below.display());
        let store = WindowsLayer::open(Path::new(&text), &Arc::default()).unwrap();
        let catalog = store.catalog().unwrap();
        assert!(catalog.references.contains_key("layer:latest"), "{:?}", catalog.references);
        let id = *catalog.images.keys().next().unwrap();
        (id, store.image(id).unwrap().layers.len())
    };
    let (tar, below_tar) = (dir.path().join("layer.tar"), dir.path().join("below.tar"));
    fs::write(&tar, tar_of(&above)).unwrap();
    fs::write(&below_tar, tar_of(&below)).unwrap();
    assert_eq!(image(&tar, &below_tar), image(&above, &below));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar_of(&above)).unwrap();
    fs::write(&tar, gzip.finish().unwrap()).unwrap();
    assert_eq!(image(&tar, &below), image(&above, &below));
    assert!(tar_of(unpacked(&fs::read(&tar).unwrap()).path()) == tar_of(&above));
    assert_eq!(image(&above, &below_tar).1, 2);
    fs::write(&tar, b"no tar").unwrap();
    assert_eq!(layers(&tar).unwrap_err().errno(), Errno::IO);
}

// The way back.

#[test]
fn a_layer_comes_back_from_its_tar_as_it_was() {
    let dir = temp();
    let path = canonical(dir.path());
    let again = unpacked(&tar_of(&path));
    assert_eq!(files(again.path()), files(&path));
}

#[test]
fn times_and_attributes_that_linux_does_not_keep_come_back_too() {
    let dir = temp();
    let layer = Exported::create(dir.path());
    layer.file("file", ARCHIVE, &[data(b"x")]);
    let path = layer.finish();
    let tar = tar_of(&path);
    let mut text = tar.clone();
    // Another time of creation and access for each entry, of the same length.
    for (from, to) in [
        (&b"creationtime=16"[..], &b"creationtime=15"[..]),
        (b" atime=16", b" atime=14"),
        (b"fileattr=32", b"fileattr=39"),
        (b"fileattr=16", b"fileattr=22"),
    ] {
        while let Some(at) = text.windows(from.len()).position(|part| part == from) {
            text[at..at + to.len()].copy_from_slice(to);
        }
    }
    assert_ne!(text, tar);
    assert!(tar_of(unpacked(&text).path()) == text);
}

#[test]
fn streams_of_plain_files_come_back_too() {
    // What a base layer has: security and alternate streams outside `Files`.
    let dir = temp();
    let mut layer = Exported::create(dir.path());
    for name in ["vm", "vm/Files"] {
        layer.directory(name, 0x2010, &[security(), alternate("a", b"b")]);
    }
    layer.file("vm/Files/boot.efi", 0x23, &[security(), data(b"MZ"), alternate("zone", b"id")]);
    layer.file(
        "vm/Files/link",
        LINK,
        &[security(), reparse(0xa000_000c, Some(0), "\\??\\C:\\x", "C:\\x")],
    );
    layer.directory(
        "vm/Files/junction",
        0x410,
        &[reparse(0xa000_0003, None, "\\??\\C:\\y", "C:\\y")],
    );
    layer.delete("x");
    let tar = tar_of(&layer.finish());
    let renamed = renamed(&tar, "Files/vm", "UtilityVM");
    let again = unpacked(&renamed);
    let shown = told(&renamed);
    assert!(shown.iter().any(|(name, _)| name == "UtilityVM/Files/boot.efi:zone"));
    assert_eq!(told(&tar_of(again.path())), shown);
}

/// A tar with another name in the place of the beginning of each entry's.
fn renamed(tar: &[u8], from: &str, to: &str) -> Vec<u8> {
    let mut out = tar.to_vec();
    let mut at = 0;
    while at + 512 <= out.len() && out[at] != 0 {
        let size = usize::from_str_radix(str::from_utf8(&out[at + 124..at + 135]).unwrap(), 8);
        let block = &mut out[at..at + 512];
        let end = block[..100].iter().position(|&byte| byte == 0).unwrap_or(100);
        let name = String::from_utf8(block[..end].to_vec()).unwrap();
        if let Some(rest) = name.strip_prefix(from) {
            block[..100].fill(0);
            let name = format!("{to}{rest}");
            block[..name.len()].copy_from_slice(name.as_bytes());
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        at += 512 + size.unwrap().next_multiple_of(512);
    }
    // Sorted as a layer's own reader gives them: what was in Files goes after the hives.
    let mut parts = entries_of(&out);
    parts.sort_by_key(|(name, _)| name.starts_with(to));
    let mut sorted: Vec<u8> = parts.into_iter().flat_map(|(_, bytes)| bytes).collect();
    sorted.resize(sorted.len() + 1024, 0);
    sorted
}

/// Each entry with its extended header, by its name.
fn entries_of(tar: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut parts = Vec::new();
    let mut at = 0;
    let mut start = 0;
    while at + 512 <= tar.len() && tar[at] != 0 {
        let size = usize::from_str_radix(str::from_utf8(&tar[at + 124..at + 135]).unwrap(), 8);
        let end = tar[at..at + 100].iter().position(|&byte| byte == 0).unwrap_or(100);
        let name = String::from_utf8(tar[at..at + end].to_vec()).unwrap();
        let is_extension = tar[at + 156] == b'x';
        at += 512 + size.unwrap().next_multiple_of(512);
        if !is_extension {
            parts.push((name, tar[start..at].to_vec()));
            start = at;
        }
    }
    parts
}

#[test]
fn older_security_descriptors_become_bytes() {
    let dir = temp();
    let layer = Exported::create(dir.path());
    layer.file("file", ARCHIVE, &[stream(3, 0, "", &[0; 15]), data(b"x")]);
    let mut tar = tar_of(&layer.finish());
    let (from, to) =
        (b"MSWINDOWS.rawsd=AAAAAAAAAAAAAAAAAAAA", b"MSWINDOWS.sd=O:BAG:SYD:P(A;;FA;;;SY)");
    let at = tar.windows(from.len()).position(|part| part == from).expect("the record");
    tar[at..at + to.len()].copy_from_slice(to);
    let again = unpacked(&tar);
    let file = fs::read(again.path().join("Files/file")).unwrap();
    assert_eq!(file[4..8], 3u32.to_le_bytes());
    assert_eq!(file[24..28], *b"\x01\0\x04\x90");
}

/// A tar of these entries: name, kind, link.
fn hostile(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, link) in entries {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o100_644);
        header.set_mtime(5);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        header.set_cksum();
        builder.append(&header, &b""[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn unpacking_never_leaves_its_directory_nor_overwrites() {
    use tar::EntryType::{Block, Directory, Fifo, Link, Regular, Symlink};
    let files = ("Files", Directory, "");
    let outside = temp();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    let absolute = outside.path().join("secret").to_str().unwrap().to_owned();
    for (why, entries) in [
        ("up", vec![files, ("Files/../../x", Regular, "")]),
        ("absolute", vec![files, ("/Files/x", Regular, "")]),
        ("elsewhere", vec![("etc", Directory, "")]),
        ("itself", vec![files, (".", Directory, "")]),
        ("a backslash", vec![files, ("Files/..\\x", Regular, "")]),
        ("a stream of nothing", vec![files, ("Files/a:b", Regular, "")]),
        ("a name of NTFS", vec![files, ("Files/a?", Regular, "")]),
        ("twice", vec![files, ("Files/a", Regular, ""), ("Files/a", Regular, "")]),
        ("twice a directory", vec![files, files]),
        ("reserved", vec![files, ("Files/a.$wcidirs$", Regular, "")]),
        ("tombstones", vec![("tombstones.txt", Regular, "")]),
        ("no parent", vec![("Files/a", Regular, "")]),
        ("through a link", vec![files, ("Files/l", Symlink, "..\\.."), ("Files/l/x", Regular, "")]),
        ("a link to the outside", vec![files, ("Files/a", Link, &absolute)]),
        ("a link up", vec![files, ("Files/a", Link, "Files/../../x")]),
        ("a link to nothing", vec![files, ("Files/a", Link, "Files/b")]),
        ("a device", vec![files, ("Files/a", Block, "")]),
        ("a pipe", vec![files, ("Files/a", Fifo, "")]),
        ("an opaque directory", vec![files, ("Files/.wh..wh..opq", Regular, "")]),
        ("a deletion elsewhere", vec![("Hives", Directory, ""), ("Hives/.wh.x", Regular, "")]),
        ("a deletion of nothing", vec![files, ("Files/.wh.", Regular, "")]),
    ] {
        let to = temp();
        let output = unpack(&hostile(&entries), &to.path().join("layer"));
        assert_eq!(output.status.code(), Some(1), "{why}");
        assert!(!output.stderr.is_empty(), "{why}");
        assert_eq!(fs::read_dir(to.path()).unwrap().count(), 1, "{why}");
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    let tar = hostile(&[files, ("Files/a/", Directory, ""), ("Files/a/b", Regular, "")]);
    let full = unpacked(&tar);
    assert!(full.path().join("Files/a/b").exists());
    let again = unpack(&tar, full.path());
    assert!(!again.status.success(), "not into what is not empty");
}

// Damage.

/// What is wrong, what comes of it, and how it is made.
type Case = (&'static str, Errno, fn(&Exported));

#[test]
fn links_that_are_none_are_unsupported_and_damage_is_an_error() {
    let cases: [Case; 9] = [
        ("another reparse point", Errno::OPNOTSUPP, |layer| {
            layer.file("x", LINK, &[reparse(0x8000_0017, None, "x", "x")]);
        }),
        ("a link with contents", Errno::IO, |layer| {
            layer.file("x", LINK, &[reparse(0xa000_000c, Some(1), "x", "x"), data(b"y")]);
        }),
        ("a link without the attribute", Errno::IO, |layer| {
            layer.file("x", ARCHIVE, &[reparse(0xa000_000c, Some(1), "x", "x")]);
        }),
        ("a link that holds files", Errno::IO, |layer| {
            layer.directory("x", 0x410, &[reparse(0xa000_0003, None, "x", "x")]);
            layer.file("x/y", ARCHIVE, &[]);
        }),
        ("a file as a directory", Errno::IO, |layer| layer.file("x", DIRECTORY, &[])),
        ("a directory as a file", Errno::IO, |layer| layer.directory("x", ARCHIVE, &[])),
        ("a directory that nothing describes", Errno::IO, |layer| {
            fs::create_dir(layer.dir.join("Files/x")).unwrap();
        }),
        ("a symlink of Linux", Errno::IO, |layer| {
            std::os::unix::fs::symlink("/etc/passwd", layer.dir.join("Files/x")).unwrap();
        }),
        ("a name that NTFS forbids", Errno::IO, |layer| layer.file("a:b", ARCHIVE, &[])),
    ];
    for (what, errno, make) in cases {
        let dir = temp();
        let layer = Exported::create(dir.path());
        make(&layer);
        let err = layers(&layer.finish()).unwrap_err();
        assert_eq!(err.errno(), errno, "{what}: {err}");
    }
    let dir = temp();
    let path = Exported::create(dir.path()).finish();
    fs::write(path.join("tombstones.txt"), "Version 1.0\n").unwrap();
    let err = layers(&path).unwrap_err();
    assert_eq!(err.errno(), Errno::IO);
    assert!(err.to_string().contains("invalid tombstones file"), "{err}");
}

/// Numbers that look random.
struct Noise(u64);

impl Noise {
    fn below(&mut self, end: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end.max(1)
    }

    /// Damages some bytes: other values, other lengths, a piece that is gone or there twice.
    fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len());
            let end = (at + 1 + self.below(24)).min(bytes.len());
            match self.below(6) {
                0 => bytes.truncate(at),
                1 => drop(bytes.drain(at..end)),
                2 => {
                    let piece = bytes[at..end].to_vec();
                    bytes.splice(at..at, piece);
                }
                3 => bytes[at..end].fill([0, 0xff, 0x7f, 0x80][self.below(4)]),
                _ if at < bytes.len() => bytes[at] = self.below(256) as u8,
                _ => {}
            }
        }
    }
}

#[test]
fn a_thousand_damaged_layers_are_read_or_refused() {
    let mut noise = Noise(6);
    let dir = temp();
    let mut originals = Vec::new();
    for (name, make) in [("canonical", canonical as fn(&Path) -> PathBuf), ("lossy", lossy)] {
        let path = make(&dir.path().join(name));
        let inside: Vec<PathBuf> = files(&path)
            .into_iter()
            .filter_map(|(file, shown)| shown.bytes.map(|_| path.join(file)))
            .collect();
        originals.push((path, inside));
    }
    let (mut good, mut bad) = (0, 0);
    for round in 0..1000 {
        let (path, inside) = &originals[usize::from(round % 3 == 0)];
        let file = &inside[noise.below(inside.len())];
        let before = fs::read(file).unwrap();
        let mut bytes = before.clone();
        bytes.truncate(4096); // where the headers are
        noise.damage(&mut bytes);
        fs::write(file, &bytes).unwrap();
        match layers(path) {
            Err(err) => {
                assert!(matches!(err.errno(), Errno::IO | Errno::OPNOTSUPP), "{err}");
                bad += 1;
            }
            Ok(_) => good += 1,
        }
        fs::write(file, &before).unwrap();
    }
    assert!(good > 100 && bad > 300, "{good} {bad}");
}

#[test]
fn three_hundred_damaged_tars_are_unpacked_or_refused() {
    let mut noise = Noise(7);
    let dir = temp();
    let mut tar = tar_of(&canonical(dir.path()));
    // Without the long contents, so that headers are hit.
    let short = entries_of(&tar).into_iter().filter(|(_, bytes)| bytes.len() < 8192);
    tar = short.flat_map(|(_, bytes)| bytes).collect();
    tar.resize(tar.len() + 1024, 0);
    let mut bad = 0;
    for _ in 0..300 {
        let mut bytes = tar.clone();
        noise.damage(&mut bytes);
        // A sum that fits, as an attacker would have it.
        let mut at = 0;
        while at + 512 <= bytes.len() {
            if bytes[at + 257..at + 262] == *b"ustar" {
                let block = &mut bytes[at..at + 512];
                block[148..156].fill(b' ');
                let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
                block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
            at += 512;
        }
        let to = temp();
        let output = unpack(&bytes, &to.path().join("layer"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(0 | 1)), "{said}");
        assert!(!said.contains("panicked"), "{said}");
        bad += usize::from(!output.status.success());
    }
    assert!(bad > 100, "{bad}");
}

#[test]
fn security_is_as_the_generator_has_it() {
    let dir = temp();
    let path = canonical(dir.path());
    let mut reader = LayerReader::new(&root(&path), Form::Exported).unwrap();
    let mut count = 0;
    while let Some(entry) = reader.next_entry().unwrap() {
        let security = entry.file.and_then(|file| file.contents.security);
        count += usize::from(security.is_some_and(|security| security == SECURITY));
    }
    assert_eq!(count, 5);
}

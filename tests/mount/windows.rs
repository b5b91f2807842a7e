//! Windows layers through the kernel.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::io::Errno;

use serde_json::json;
use stratafs::digest::Digest;

use crate::mounted::{Mounted, STRATAFS, can_mount};
use crate::stores::archives::{Layout, Tar, descriptor, named, saved, write_files};
use crate::stores::handmade::{CREATED, gzip};
use crate::stores::windows::{
    ARCHIVE, DIRECTORY, Exported, SECURITY, alternate, canonical, data, ea, security, symlink,
};
use crate::support::containerd::{self, Made};

const GZIPPED: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// A layer and one below it, as a source.
fn layers(dir: &Path) -> PathBuf {
    let below = Exported::create(&dir.join("below"));
    below.directory("Windows", DIRECTORY, &[security()]);
    for name in ["Windows/old", "Windows/kept", "gone.txt"] {
        below.file(name, ARCHIVE, &[data(name.as_bytes())]);
    }
    let below = below.finish();
    let above = canonical(&dir.join("Above"));
    format!("windows-layer:{},{}", above.display(), below.display()).into()
}

fn xattr(path: &Path, name: &str) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0; 65_536];
    let length = rustix::fs::lgetxattr(path, name, &mut value[..])?;
    value.truncate(length);
    Ok(value)
}

fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut list = vec![0; 65_536];
    let length = rustix::fs::llistxattr(path, &mut list[..]).unwrap();
    let names = list[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty());
    let names = names.map(|name| String::from_utf8(name.to_vec()).unwrap());
    names.map(|name| (name.clone(), xattr(path, &name).unwrap())).collect()
}

fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).unwrap();
    let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
    let mut names: Vec<_> = entries.map(|entry| name(entry.unwrap())).collect();
    names.sort();
    names
}

#[test]
fn a_windows_layer_and_its_parents_are_an_image() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mounted = Mounted::new(&layers(dir.path()));
    assert_eq!(names(&mounted.at("images")), ["above", "above:latest"]);
    let layers = names(&mounted.at("images/above/layers"));
    assert!(layers.len() == 2 && layers[0].starts_with("00-") && layers[1].starts_with("01-"));
    let rootfs = mounted.at("images/above/rootfs");
    assert_eq!(names(&rootfs), ["Files", "Hives", "UtilityVM"]);
    assert_eq!(fs::read(rootfs.join("Files/Windows/kept")).unwrap(), b"Windows/kept");
    assert_eq!(fs::read(rootfs.join("Files/Windows/System32/all.dll")).unwrap(), [7; 70_000]);
    for gone in ["Files/gone.txt", "Files/Windows/old"] {
        assert!(!rootfs.join(gone).exists(), "{gone}");
    }
    let top = mounted.at("images/above/layers").join(&layers[1]);
    let diff = names(&top.join("diff/Files/Windows"));
    assert!(diff.contains(&".wh.old".into()) && !diff.contains(&"kept".into()), "{diff:?}");
    let changes = fs::read_to_string(top.join("changes")).unwrap();
    for change in ["D /Files/gone.txt", "D /Files/Windows/old", "A /Files/link", "C /Files"] {
        assert!(changes.lines().any(|line| line == change), "{change}: {changes}");
    }
    let json: serde_json::Value =
        serde_json::from_slice(&fs::read(top.join("layer.json")).unwrap()).unwrap();
    assert_eq!(json["exact"], true);
    let sum = Command::new("sha256sum").arg(top.join("layer.tar")).output().unwrap();
    let sum = format!("sha256:{}", String::from_utf8_lossy(&sum.stdout).get(..64).unwrap());
    assert_eq!(json["diff_id"], sum.as_str());
    let config: serde_json::Value =
        serde_json::from_slice(&fs::read(mounted.at("images/above/config.json")).unwrap()).unwrap();
    assert_eq!(config["os"], "windows");
    assert_eq!(config["rootfs"]["diff_ids"][1], sum.as_str());
}

#[test]
fn what_windows_keeps_of_a_file_shows_as_xattrs() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let small: &[Vec<u8>] = &[
        security(),
        ea(&[("NAME", b"value")]),
        data(b"contents"),
        alternate("zone", b"id"),
        alternate("zoo", b""),
    ];
    let layer = Exported::create(&dir.path().join("layer"));
    layer.file("small", 0x21, small);
    layer.file("large", ARCHIVE, &[data(&[1; 70_000]), alternate("large", &[2; 70_000])]);
    layer.file("link", 0x420, &[symlink("..\\x")]);
    let layer = layer.finish();
    let mounted = Mounted::new(Path::new(&format!("windows-layer:{}", layer.display())));
    let files = mounted.at("images/layer/rootfs/Files");
    let file = files.join("small");
    let time = b"1600000000.1234567".to_vec();
    let expected = [
        ("user.win.accesstime", time.clone()),
        ("user.win.attributes", b"33".to_vec()),
        ("user.win.changetime", time.clone()),
        ("user.win.creationtime", time),
        ("user.win.ea.NAME", b"value".to_vec()),
        ("user.win.sd", SECURITY.to_vec()),
        ("user.win.stream.zone", b"id".to_vec()),
        ("user.win.stream.zoo", b"".to_vec()),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value));
    assert_eq!(xattrs(&file), BTreeMap::from(expected));
    assert_eq!(xattr(&file, "user.stratafs.win32"), Ok(small.concat()));
    assert!(fs::metadata(&file).unwrap().permissions().readonly());
    let link = files.join("link");
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("..\\x"));
    assert_eq!(xattr(&link, "trusted.win.reparse"), Ok(symlink("..\\x")[20..].to_vec()));
    assert_eq!(xattr(&link, "trusted.win.attributes"), Ok(b"1056".to_vec()));
    assert_eq!(xattr(&link, "trusted.stratafs.win32"), Ok(symlink("..\\x")));
    assert_eq!(xattrs(&link).len(), 5);
    let large = files.join("large");
    assert_eq!(xattr(&large, "user.stratafs.win32"), Err(Errno::TOOBIG));
    assert!(fs::read(files.join("large:large")).unwrap() == [2; 70_000]);
    assert_eq!(xattr(&mounted.at("README"), "user.stratafs.win32"), Err(Errno::NODATA));
}

#[test]
fn a_layer_of_the_mount_unpacks_into_what_it_was_made_of() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let source = layers(dir.path());
    let mounted = Mounted::new(&source);
    let layers = mounted.at("images/above/layers");
    let tar = layers.join(names(&layers).last().unwrap()).join("layer.tar");
    let again = dir.path().join("again");
    let mut unpack = Command::new(STRATAFS);
    unpack.args(["windows-layer", "unpack"]).arg(tar).arg(&again);
    assert!(unpack.status().unwrap().success());
    let diff = Command::new("diff").arg("-r").arg(dir.path().join("Above")).arg(&again).output();
    let diff = diff.unwrap();
    assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));
}

/// The config of an image of these layers, as Windows' own images have it.
fn config(tars: &[Vec<u8>]) -> Vec<u8> {
    let diff_ids: Vec<String> = tars.iter().map(|tar| Digest::of(tar).to_string()).collect();
    let config = json!({
        "architecture": "amd64", "os": "windows", "os.version": "10.0.17763.1", "created": CREATED,
        "config": { "Cmd": ["c:\\windows\\system32\\cmd.exe"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": [{ "created_by": "Apply image" }, { "created_by": "cmd" }],
    });
    config.to_string().into_bytes()
}

/// The same image in an archive, in a layout with compressed layers, in an archive of that, and in
/// containerd's store for Windows' platform: `app:1` in each.
fn packed(dir: &Path, tars: &[Vec<u8>; 2]) -> (Vec<(String, PathBuf)>, Made) {
    let [archive, layout, layout_tar] =
        ["saved.tar", "layout", "layout.tar"].map(|it| dir.join(it));
    let config = config(tars);
    let layers = [&tars[0][..], &tars[1][..]];
    let files = saved(&config, &layers, &json!(["app:1"]));
    fs::write(&archive, Tar::of(&files).finish()).unwrap();

    let blobs = tars.each_ref().map(|tar| gzip(tar));
    let mut made = Layout::default();
    blobs.iter().for_each(|blob| made.put(blob));
    let described = blobs.each_ref().map(|blob| descriptor(GZIPPED, blob));
    let image = made.image_of(&config, &described);
    let files = made.finish(&[named(image, "app:1")]);
    write_files(&layout, &files);
    fs::write(&layout_tar, Tar::of(&files).finish()).unwrap();

    let mut made = Made::new();
    let layers = blobs.map(|blob| made.blob("default", GZIPPED, &blob).json());
    let config = made.blob("default", CONFIG, &config).json();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": containerd::MANIFEST, "config": config, "layers": layers,
    });
    let manifest = made.blob("default", containerd::MANIFEST, manifest.to_string().as_bytes());
    let mut entry = manifest.json();
    entry["platform"] =
        json!({ "architecture": "amd64", "os": "windows", "os.version": "10.0.17763.1" });
    let index = made.index("default", &[entry]);
    made.image("default", "docker.io/library/app:1", &index);
    made.write();

    let sources = [
        ("docker-archive", archive),
        ("oci", layout),
        ("oci-archive", layout_tar),
        ("containerd", made.path().to_owned()),
    ];
    let sources = sources.map(|(kind, path)| (format!("{kind}:{}", path.display()), path));
    (sources.to_vec(), made)
}

/// All that is told of every file below a directory.
fn told(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut left = vec![dir.to_owned()];
    while let Some(path) = left.pop() {
        let meta = path.symlink_metadata().unwrap();
        let (mode, time) = (meta.mode(), (meta.mtime(), meta.mtime_nsec()));
        let bytes = meta.is_file().then(|| Digest::of(&fs::read(&path).unwrap()).to_string());
        let target = fs::read_link(&path).ok();
        let class = if meta.is_symlink() { "trusted" } else { "user" };
        let win32 = xattr(&path, &format!("{class}.stratafs.win32")).ok();
        let name = path.strip_prefix(dir).unwrap().to_owned();
        if name != Path::new("") {
            let attributes = (xattrs(&path), win32, target);
            all.insert(
                name,
                format!("{mode:o} {time:?} {} {bytes:?} {attributes:?}", meta.nlink()),
            );
        }
        if meta.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    all
}

#[test]
fn windows_layers_in_archives_and_stores_are_as_their_directories() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let direct = Mounted::new(&layers(dir.path()));
    let top = |mounted: &Mounted, image: &str| {
        let layers = mounted.at(image).join("layers");
        let names = names(&layers);
        assert_eq!(names.len(), 2);
        [layers.join(&names[0]), layers.join(&names[1])]
    };
    let expected = top(&direct, "images/above");
    let tars = expected.each_ref().map(|layer| fs::read(layer.join("layer.tar")).unwrap());
    let rootfs = told(&direct.at("images/above/rootfs"));
    let diffs = expected.each_ref().map(|layer| told(&layer.join("diff")));
    let changes = expected.each_ref().map(|layer| fs::read(layer.join("changes")).unwrap());
    assert!(rootfs.len() > 15 && diffs[1].contains_key(Path::new("Files/Windows/.wh.old")));
    let streams = rootfs.values().filter(|told| told.contains("user.win.stream."));
    assert!(streams.count() > 1);

    let (sources, _containerd) = packed(dir.path(), &tars);
    for (source, _) in sources {
        let cache = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let options = ["--cache", cache.path().to_str().unwrap()];
        let mounted = Mounted::with(Path::new(&source), &options);
        let layers = top(&mounted, "images/app:1");
        for (at, layer) in layers.iter().enumerate() {
            assert!(fs::read(layer.join("layer.tar")).unwrap() == tars[at], "{source}: layer {at}");
            assert_eq!(told(&layer.join("diff")), diffs[at], "{source}: layer {at}");
            assert_eq!(fs::read(layer.join("changes")).unwrap(), changes[at], "{source}: {at}");
        }
        assert_eq!(told(&mounted.at("images/app:1/rootfs")), rootfs, "{source}");

        // And back again, from any of them.
        let again = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut unpack = Command::new(STRATAFS);
        unpack.args(["windows-layer", "unpack"]).arg(layers[1].join("layer.tar"));
        assert!(unpack.arg(again.path().join("layer")).status().unwrap().success(), "{source}");
        let mut diff = Command::new("diff");
        diff.arg("-r").arg(dir.path().join("Above")).arg(again.path().join("layer"));
        let diff = diff.output().unwrap();
        assert!(diff.status.success(), "{source}: {}", String::from_utf8_lossy(&diff.stdout));
    }
}

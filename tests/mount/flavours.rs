//! Archives in every flavour, of every kind of store: sizes, ranges, the same bytes again, no disk.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde_json::json;
use stratafs::archive::Flavour;

use crate::bytes::read_at;
use crate::mounted::{Mounted, can_mount};
use crate::stores::archives::{self, Layout, Tar, named, saved, saved_by_1_9, write_files};
use crate::stores::golden;
use crate::stores::handmade::gzip;
use crate::stores::sample::sample;
use crate::stores::windows::canonical;

/// How many images of a store are read: all of them would be a hundred.
const IMAGES: usize = 3;

/// What directories of the cache, outlines, and times of links that were read, may take, in bytes: less than
/// any store's archives.
const METADATA: u64 = 96 << 10;

/// Numbers that look random.
struct Noise(u64);

impl Noise {
    fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end.max(1)
    }
}

/// Bytes that the daemon has made anyone write to a disk so far.
fn written(mounted: &mut Mounted) -> u64 {
    let io = fs::read_to_string(format!("/proc/{}/io", mounted.daemon().id())).unwrap();
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).unwrap();
    line.parse().unwrap()
}

/// Bytes that a directory and all in it take.
fn taken(path: &Path) -> u64 {
    let own = fs::symlink_metadata(path).unwrap().blocks() * 512;
    own + entries(path).iter().map(|path| taken(path)).sum::<u64>()
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Every archive of some images of a mount, below its mount point, and the flavours seen.
fn archives_of(mounted: &Mounted) -> (Vec<PathBuf>, BTreeSet<String>) {
    let mut trees = entries(&mounted.at("namespaces"));
    trees.push(mounted.path().to_owned());
    let (mut files, mut flavours) = (Vec::new(), BTreeSet::new());
    for tree in trees {
        let images = entries(&tree.join("by-id/images"));
        let whole = |image: &PathBuf| fs::metadata(image.join("save.tar")).is_ok();
        for image in images.into_iter().filter(whole).take(IMAGES) {
            let formats = entries(&image.join("formats"));
            let stems = formats.iter().map(|path| path.file_stem().unwrap().to_str().unwrap());
            flavours.extend(stems.map(str::to_owned));
            files.extend(formats);
            files.extend(["save.tar", "export.tar"].map(|name| image.join(name)));
            files.extend(entries(&image.join("oci/blobs/sha256")));
        }
        let named = entries(&tree.join("images")).into_iter();
        let names: Vec<String> = named
            .filter(whole)
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .filter(|name| name.contains(':'))
            .take(2)
            .collect();
        if let [one, other] = &names[..] {
            files.push(tree.join(format!("images/.save/{one}+{other}.tar")));
            files.push(tree.join(format!("images/{one}/delta/{other}.tar")));
        }
    }
    let point = mounted.path();
    let below = |path: &PathBuf| path.strip_prefix(point).unwrap().to_owned();
    (files.iter().map(below).collect(), flavours)
}

/// Reads a file of one mount whole, and by random pieces, past the kernel's cache, in another.
fn hold(one: &Path, other: &Path, noise: &mut Noise) -> u64 {
    let whole = fs::read(one).unwrap_or_else(|err| panic!("{}: {err}", one.display()));
    let size = fs::metadata(one).unwrap().len();
    assert_eq!(size, whole.len() as u64, "{}", one.display());
    assert_eq!(size, fs::metadata(other).unwrap().len(), "{}", one.display());
    let direct = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(other).unwrap();
    for round in 0..24 {
        let at = noise.below(size + 600);
        let at = if round == 0 { size.saturating_sub(700) } else { at };
        let count = [1, 511, 512, 513, 4096, 70_000][noise.below(6) as usize];
        let expected = whole.get(at as usize..).unwrap_or_default();
        let expected = &expected[..expected.len().min(count)];
        assert!(read_at(&direct, at, count) == expected, "{}: {count} at {at}", one.display());
    }
    assert!(fs::read(other).unwrap() == whole, "{}", one.display());
    size
}

/// An image of as many layers as make any engine stop, some of them the same, and its config.
fn many_layers() -> (Vec<u8>, Vec<Vec<u8>>) {
    let layer = |step: usize| match step % 5 {
        4 => archives::layer(&[]),
        _ => archives::layer(&[(&format!("d/{}", step % 60), &[step as u8; 900][..])]),
    };
    let layers: Vec<_> = (0..127).map(layer).collect();
    let views: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    (archives::config("amd64", &views), layers)
}

/// Sources made by hand, each with whether it has layers that are compressed.
fn made(dir: &Path) -> Vec<(String, bool)> {
    let (config, layers) = many_layers();
    let views: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    let at = |name: &str| dir.join(name);
    fs::write(at("new.tar"), Tar::of(&saved(&config, &views, &json!(["app:1"]))).finish()).unwrap();
    let old = saved_by_1_9(&views[..20], Some(r#"{"app":{"1":"TOP"}}"#));
    fs::write(at("old.tar"), Tar::of(&old).finish()).unwrap();
    let mut layout = Layout::default();
    let plain = layout.image(&config, &views);
    let files = layout.finish(&[named(plain, "app:1")]);
    write_files(&at("plain"), &files);
    let mut layout = Layout::default();
    let blobs: Vec<_> = layers.iter().map(|layer| gzip(layer)).collect();
    let blobs: Vec<&[u8]> = blobs.iter().map(Vec::as_slice).collect();
    let packed = layout.image(&config, &blobs);
    let files = layout.finish(&[named(packed, "app:1")]);
    fs::write(at("packed.tar"), Tar::of(&files).finish()).unwrap();
    canonical(&at("windows"));
    [
        ("docker-archive", "new.tar", false),
        ("docker-archive", "old.tar", false),
        ("oci", "plain", false),
        ("oci-archive", "packed.tar", true),
        ("windows-layer", "windows", false),
    ]
    .map(|(kind, name, is_packed)| (format!("{kind}:{}", at(name).display()), is_packed))
    .to_vec()
}

#[test]
fn every_flavour_of_every_store_reads_the_same_anywhere_and_costs_no_disk() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut sources = made(dir.path());
    let sample = sample().unwrap();
    sources.push((format!("docker:{}", sample.path().display()), false));
    let mut stores = Vec::new();
    for (name, kind, is_packed) in [
        (golden::OVERLAY_20, "docker", false),
        (golden::VFS_20, "docker", false),
        (golden::VFS_29, "docker", false),
        (golden::PODMAN, "podman", false),
        (golden::DOCKER_CONTAINERD, "docker", true),
        (golden::CONTAINERD, "containerd", true),
    ] {
        let Some(store) = golden::store(name) else { break };
        sources.push((format!("{kind}:{}", store.path().display()), is_packed));
        stores.push(store);
    }
    let all: BTreeSet<String> = Flavour::ALL.iter().map(ToString::to_string).collect();
    let mut noise = Noise(1);
    for (source, is_packed) in sources {
        // A small one in memory: on a disk, a directory is written again at each sync while files
        // come to it.
        let place = if is_packed { env!("CARGO_TARGET_TMPDIR") } else { "/dev/shm" };
        let cache = tempfile::tempdir_in(place).unwrap();
        let options = ["--cache", cache.path().to_str().unwrap()];
        let mut one = Mounted::with(Path::new(&source), &options);
        let mut other = Mounted::with(Path::new(&source), &options);
        let (files, flavours) = archives_of(&one);
        assert_eq!(flavours, all, "{source}");
        let mut bytes = 0;
        for file in &files {
            bytes += hold(
                &one.at(file.to_str().unwrap()),
                &other.at(file.to_str().unwrap()),
                &mut noise,
            );
        }
        assert!(files.len() > 9 && bytes > 100_000, "{source}: {bytes} in {}", files.len());
        // What the first had to inflate is in the cache, from where the second has it.
        if !is_packed {
            let written = written(&mut one) + taken(cache.path());
            assert!(written <= METADATA, "{source}: {written}");
        }
        assert!(written(&mut other) <= METADATA, "{source}: {}", written(&mut other));
    }
}

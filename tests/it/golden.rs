//! Archives byte for byte as real engines wrote them, from the stores that they wrote them of.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use stratafs::archive::Flavour;
use stratafs::archive::export::{self, Accounts, Style};
use stratafs::archive::layers::Layers;
use stratafs::archive::save::{SavedImage, save};
use stratafs::digest::ImageId;
use stratafs::oci::ImageConfig;
use stratafs::overlay::Stack;
use stratafs::overlay::changes::{Flavor, changes};
use stratafs::recipe::{Recipe, Verify};
use stratafs::store::{self, Container, Image, LayerStore, Source, State};
use stratafs::tar::header::{self, Header, Type};
use stratafs::tree::Options;

use crate::stores::golden::{self, OVERLAY_20, VFS_20, VFS_29};
use crate::stores::view::{View, options};

/// When the commit ran that `c1diff.tar` came of: the mtime of deletions in it.
const COMMITTED: i64 = 1_795_295_586;

/// The host's name of the user and group 1000 in `c1diff.tar` and `c2diff.tar`.
const HOST_NAME: &[u8] = b"cloudsdk";

/// The tars that dockerd made, and nobody changed.
const DOCKERD: [&str; 17] = [
    "c1.tar",
    "c1b.tar",
    "c1diff.tar",
    "c1s.tar",
    "c2.tar",
    "c2diff.tar",
    "s1.tar",
    "s2.tar",
    "v25a.tar",
    "v25c.tar",
    "v25diff.tar",
    "v28a.tar",
    "v28c.tar",
    "v29a.tar",
    "v29b.tar",
    "v29c.tar",
    "v29d.tar",
];

/// A whole tar entry: values, body, and where its header begins.
#[derive(Debug)]
struct Entry {
    header: Header,
    body: Vec<u8>,
}

/// The entries of a tar as Go writes it; whatever else is in it makes the test fail.
fn entries(tar: &[u8]) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut records = BTreeMap::new();
    let mut rest = tar;
    while rest[..512] != [0; 512] {
        let (block, behind) = rest.split_at(512);
        let size = octal(&block[124..136]);
        let has_body = !(b'1'..=b'6').contains(&block[156]);
        let size = if has_body { size as usize } else { 0 };
        let body = &behind[..size];
        rest = &behind[size.next_multiple_of(512)..];
        if block[156] == b'x' {
            records = parse_records(body);
            continue;
        }
        let header = parse_header(block, &mut records);
        entries.push(Entry { header, body: body.to_vec() });
    }
    assert_eq!(rest, [0; 1024]);
    entries
}

fn parse_records(mut body: &[u8]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut records = BTreeMap::new();
    while !body.is_empty() {
        let space = body.iter().position(|&byte| byte == b' ').unwrap();
        let length: usize = std::str::from_utf8(&body[..space]).unwrap().parse().unwrap();
        let record = &body[space + 1..length - 1];
        let equals = record.iter().position(|&byte| byte == b'=').unwrap();
        records.insert(record[..equals].to_vec(), record[equals + 1..].to_vec());
        body = &body[length..];
    }
    records
}

fn parse_header(block: &[u8], records: &mut BTreeMap<Vec<u8>, Vec<u8>>) -> Header {
    let mut number = |key: &[u8], field: &[u8]| match records.remove(key) {
        Some(value) => std::str::from_utf8(&value).unwrap().parse().unwrap(),
        None => octal(field),
    };
    let (uid, gid) = (number(b"uid", &block[108..116]), number(b"gid", &block[116..124]));
    let (size, mtime) = (number(b"size", &block[124..136]), number(b"mtime", &block[136..148]));
    let prefix = text(&block[345..500]);
    let name = match prefix.is_empty() {
        true => text(&block[..100]),
        false => [&prefix[..], b"/", &text(&block[..100])].concat(),
    };
    let header = Header {
        mode: octal(&block[100..108]) as u32,
        uid: uid as u32,
        gid: gid as u32,
        size: size as u64,
        mtime,
        link: records.remove(&b"linkpath"[..]).unwrap_or_else(|| text(&block[157..257])),
        user: text(&block[265..297]),
        group: text(&block[297..329]),
        device: (octal(&block[329..337]) as u32, octal(&block[337..345]) as u32),
        ..Header::new(records.remove(&b"path"[..]).unwrap_or(name), typeflag(block[156]))
    };
    let xattrs = std::mem::take(records).into_iter().map(|(key, value)| {
        (key.strip_prefix(b"SCHILY.xattr.").expect("a record that is known").to_vec(), value)
    });
    Header { xattrs: xattrs.collect(), ..header }
}

fn octal(field: &[u8]) -> i64 {
    let digits = text(field);
    i64::from_str_radix(std::str::from_utf8(&digits).unwrap().trim(), 8).unwrap()
}

fn text(field: &[u8]) -> Vec<u8> {
    field.split(|&byte| byte == 0).next().unwrap().to_vec()
}

fn typeflag(flag: u8) -> Type {
    match flag {
        b'0' => Type::Regular,
        b'1' => Type::HardLink,
        b'2' => Type::Symlink,
        b'3' => Type::CharDevice,
        b'4' => Type::BlockDevice,
        b'5' => Type::Directory,
        b'6' => Type::Fifo,
        other => panic!("typeflag {other}"),
    }
}

fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut tar = Vec::new();
    for entry in entries {
        header::encode(&entry.header, &mut tar).unwrap();
        tar.extend_from_slice(&entry.body);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.resize(tar.len() + 1024, 0);
    tar
}

/// The same tar with some values of its headers exchanged.
pub(crate) fn adjusted(tar: &[u8], adjust: impl Fn(&mut Header)) -> Vec<u8> {
    let mut entries = entries(tar);
    assert_eq!(encode(&entries), tar);
    entries.iter_mut().for_each(|entry| adjust(&mut entry.header));
    encode(&entries)
}

/// Tells in which entry two tars differ.
pub(crate) fn assert_same(ours: &[u8], theirs: &[u8], name: &str) {
    if ours != theirs {
        let (ours, theirs) = (entries(ours), entries(theirs));
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_eq!(format!("{:?}", ours.header), format!("{:?}", theirs.header), "{name}");
            assert_eq!(ours.body, theirs.body, "{name}");
        }
        panic!("{name}: {} entries for {}", ours.len(), theirs.len());
    }
}

fn bytes(recipe: &Recipe) -> Vec<u8> {
    let mut bytes = Vec::new();
    recipe.scan(|part| bytes.extend_from_slice(part)).unwrap();
    assert_eq!(bytes.len() as u64, recipe.len());
    bytes
}

fn open(path: &Path) -> Arc<dyn LayerStore> {
    store::open(&Source { kind: None, path: path.to_owned() }, &store::Context::default()).unwrap()
}

fn like_20() -> Options {
    Options { flavour: Some(Flavour::Docker110), ..options() }
}

/// The only container of a store.
fn container(store: &dyn LayerStore) -> Container {
    let catalog = store.catalog().unwrap();
    let [only] = &catalog.containers[..] else { panic!("{:?}", catalog.containers) };
    store.container(only.id).unwrap()
}

/// What saves images under these references, in this order.
pub(crate) fn save_of(store: &dyn LayerStore, images: &[&[&str]], flavour: Flavour) -> Vec<u8> {
    let catalog = store.catalog().unwrap();
    let image = |id: ImageId| -> (Image, ImageConfig, Vec<Arc<Recipe>>) {
        let image = store.image(id).unwrap();
        let config = ImageConfig::parse(&image.config).unwrap();
        let tars = image.layers.iter().map(|layer| always().tar(layer, &[]).unwrap());
        let tars = tars.map(Arc::new).collect();
        (image, config, tars)
    };
    let read: Vec<_> = images.iter().map(|names| image(catalog.references[names[0]])).collect();
    let names: Vec<Vec<String>> =
        images.iter().map(|names| names.iter().map(|&name| name.to_owned()).collect()).collect();
    let saved: Vec<SavedImage<'_>> = read
        .iter()
        .zip(&names)
        .map(|((image, config, layers), references)| SavedImage {
            image,
            config,
            references,
            layers,
            omitted: 0,
        })
        .collect();
    bytes(&save(&saved, flavour).unwrap())
}

/// Layers whose bytes are held to their digest before the first one is given out.
fn always() -> Layers {
    Layers::new(Verify::Always, Arc::default())
}

#[test]
fn every_entry_of_every_tar_that_dockerd_made_encodes_to_its_bytes() {
    for name in DOCKERD {
        let Some(tar) = golden::vector(name) else { return };
        let entries = entries(&tar);
        assert!(entries.len() > 3, "{name}");
        assert!(encode(&entries) == tar, "{name}");
    }
}

#[test]
fn a_saved_repository_is_that_of_docker_20() {
    let (Some(store), Some(s1)) = (golden::store(VFS_20), golden::vector("s1.tar")) else { return };
    let view = View::of(store.path());
    assert_same(&view.read("images/base/formats/docker-1.10.tar"), &s1, "s1.tar");
    let view = View::with(store.path(), like_20());
    assert_same(&view.read("images/base/save.tar"), &s1, "s1.tar");
}

#[test]
fn two_saved_images_that_share_a_layer_are_those_of_docker_20() {
    let (Some(store), Some(s2)) = (golden::store(VFS_20), golden::vector("s2.tar")) else { return };
    let link = |entry: &Entry| {
        let is_link = entry.header.typeflag == Type::Symlink;
        is_link.then(|| {
            (entry.header.name.strip_suffix(b"layer.tar").unwrap().to_vec(), entry.header.mtime)
        })
    };
    let (directory, now) = entries(&s2).iter().find_map(link).expect("a layer that is a symlink");
    let store = open(store.path());
    let orders = [[&["built:1"][..], &["base:1"]], [&["base:1"], &["built:1"]]];
    let saved = orders.map(|order| {
        // Where Docker wrote the time of the run, ours is that of the image.
        adjusted(&save_of(&*store, &order, Flavour::Docker110), |header| {
            if header.name.starts_with(&directory) {
                header.mtime = now;
            }
        })
    });
    assert!(saved.contains(&s2), "neither order of the images gives s2.tar");
}

#[test]
fn a_saved_image_that_was_committed_is_that_of_docker_20() {
    let (Some(store), Some(c1s)) = (golden::store(VFS_20), golden::vector("c1s.tar")) else {
        return;
    };
    let view = View::of(store.path());
    assert_same(&view.read("images/c1img:1/formats/docker-1.10.tar"), &c1s, "c1s.tar");
}

#[test]
fn saved_images_are_those_of_docker_29() {
    let (Some(store), Some(v29a)) = (golden::store(VFS_29), golden::vector("v29a.tar")) else {
        return;
    };
    let images = [&["built:1", "built:two"][..], &["base:1"]];
    let saved = save_of(&*open(store.path()), &images, Flavour::Docker29);
    assert_same(&saved, &v29a, "v29a.tar");
    let combined = "images/.save/built:1+built:two+base:1.tar";
    assert_same(&View::of(store.path()).read(combined), &v29a, "v29a.tar");
}

#[test]
fn an_oci_archive_has_the_blobs_of_docker_29_without_its_times() {
    let Some(store) = golden::store(VFS_29) else { return };
    let view = View::of(store.path());
    let untagged = view.text("images/base:1/id").trim_end().replace("sha256:", "by-id/images/");
    for image in ["images/built", "images/base:1", &untagged] {
        let mut entries = entries(&view.read(&format!("{image}/formats/docker-29.tar")));
        // What Docker adds: the lists of older engines, and a description for each layer.
        entries.retain(|entry| {
            let name = entry.header.name.as_slice();
            let is_legacy = entry.body.starts_with(b"{\"id\":");
            !is_legacy && name != b"manifest.json" && name != b"repositories"
        });
        for entry in &mut entries {
            entry.header.mtime = 0;
            entry.header.mode &= !0o022;
            if entry.header.name == b"oci-layout" {
                entry.body = br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec();
                entry.header.size = 30;
            }
        }
        let oci = view.read(&format!("{image}/formats/oci.tar"));
        assert_same(&oci, &encode(&entries), image);
    }
}

#[test]
fn an_archive_of_docker_1_9_is_the_layer_directories_of_docker_20_and_no_more() {
    let (Some(store), Some(s1)) = (golden::store(VFS_20), golden::vector("s1.tar")) else { return };
    let mut entries = entries(&s1);
    let created = entries[0].header.mtime;
    entries.retain(|entry| !entry.header.name.ends_with(b".json"));
    for entry in &mut entries {
        entry.header.user.clear();
        entry.header.group.clear();
        entry.header.mtime = created;
    }
    assert_eq!(entries.len(), 5);
    let view = View::of(store.path());
    assert_same(&view.read("images/base/formats/docker-1.9.tar"), &encode(&entries), "s1.tar");
}

/// Sets the mtimes of these entries to those in `theirs`: Docker wrote the time of the run.
pub(crate) fn at_its_time(ours: &[u8], theirs: &[u8], names: &[&str]) -> Vec<u8> {
    let theirs = entries(theirs);
    adjusted(ours, |header| {
        if names.iter().any(|name| header.name == name.as_bytes()) {
            let same = theirs.iter().find(|entry| entry.header.name == header.name).unwrap();
            assert_ne!(
                header.mtime,
                same.header.mtime,
                "{}",
                String::from_utf8_lossy(&header.name)
            );
            header.mtime = same.header.mtime;
        }
    })
}

#[test]
fn a_saved_image_is_that_of_docker_25_and_of_docker_28() {
    for (flavour, vector, undated) in [
        ("docker-25", "v25a.tar", &["blobs/sha256/", "index.json"][..]),
        ("docker-28", "v28a.tar", &["blobs/sha256/"]),
    ] {
        for store in [VFS_20, VFS_29] {
            let (Some(store), Some(theirs)) = (golden::store(store), golden::vector(vector)) else {
                return;
            };
            let view = View::of(store.path());
            let ours = view.read(&format!("images/built:1/formats/{flavour}.tar"));
            assert_same(&at_its_time(&ours, &theirs, undated), &theirs, vector);
            let view = View::with(
                store.path(),
                Options { flavour: Some(flavour.parse().unwrap()), ..options() },
            );
            assert!(view.read("images/built:1/save.tar") == ours, "{flavour}");
        }
    }
}

#[test]
fn an_exported_container_is_that_of_docker_29() {
    let (Some(store), Some(v29c)) = (golden::store(VFS_29), golden::vector("v29c.tar")) else {
        return;
    };
    let exported = View::of(store.path()).read("containers/c1/export.tar");
    assert_same(&exported, &v29c, "v29c.tar");
    for name in ["v28c.tar", "v29d.tar"] {
        let theirs = golden::vector(name).unwrap();
        let without_mtime = |tar: &[u8]| adjusted(tar, |header| header.mtime = 0);
        assert_same(&without_mtime(&exported), &without_mtime(&theirs), name);
    }
}

#[test]
fn an_exported_container_is_that_of_docker_20() {
    let (Some(store), Some(c2)) = (golden::store(OVERLAY_20), golden::vector("c2.tar")) else {
        return;
    };
    let view = View::with(store.path(), like_20());
    assert_same(&view.read("containers/c1/export.tar"), &c2, "c2.tar");
}

#[test]
fn a_container_without_and_with_its_changes_exports_as_in_docker_20() {
    let Some(store) = golden::store(VFS_20) else { return };
    let container = container(&*open(store.path()));
    assert_eq!(container.state, State::Dead, "so nothing is given out of it: see semantics");
    for (dirs, name) in [(&container.init_dirs, "c1.tar"), (&container.dirs, "c1b.tar")] {
        let stack = Stack::new(dirs.clone());
        let export = export::export(&stack, &Style::Typed(Accounts::read(&stack))).unwrap();
        assert_same(&bytes(&export.recipe), &golden::vector(name).unwrap(), name);
    }
}

#[test]
fn a_difference_found_by_comparing_is_that_of_docker_20() {
    let (Some(store), Some(c1diff)) = (golden::store(VFS_20), golden::vector("c1diff.tar")) else {
        return;
    };
    let store = open(store.path());
    let container = container(&*store);
    let (new, old) = (Stack::new(container.dirs), Stack::new(container.init_dirs));
    let changes = changes(&new, &old, Flavor::UpTo27).unwrap();
    let style = Style::Typed(Accounts::root_only());
    let export = export::naive_diff(&new, &changes, &style).unwrap();
    let ours = adjusted(&bytes(&export.recipe), |header| {
        name_as_the_host(header);
        // Deletions: Docker wrote the time of the run, ours is that of the directory.
        if header.mode == 0 {
            header.mtime = COMMITTED;
        }
    });
    assert_same(&ours, &c1diff, "c1diff.tar");

    // The layer that was committed of it has the very bytes.
    let catalog = store.catalog().unwrap();
    let image = store.image(catalog.references["c1img:1"]).unwrap();
    let layer = always().tar(image.layers.last().unwrap(), &[]).unwrap();
    assert_same(&bytes(&layer), &c1diff, "c1diff.tar as a layer");
}

#[test]
fn a_writable_layer_is_packed_as_in_docker_20() {
    let (Some(store), Some(c2diff)) = (golden::copy(OVERLAY_20), golden::vector("c2diff.tar"))
    else {
        return;
    };
    let container = container(&*open(store.path()));
    let diff = store.path().join("overlay2").join(&container.directory).join("diff");
    // GNU tar keeps no hard links of devices: as the kernel made them, they are one.
    for other in ["dir.b", "hl2"] {
        fs::remove_file(diff.join(other)).unwrap();
        fs::hard_link(diff.join("dir-a"), diff.join(other)).unwrap();
    }
    let view = View::with(store.path(), like_20());
    let ours = adjusted(&view.read("containers/c1/diff.tar"), name_as_the_host);
    assert_same(&ours, &c2diff, "c2diff.tar");
}

/// Sets the names that only the host knew.
fn name_as_the_host(header: &mut Header) {
    if header.uid == 1000 {
        header.user = HOST_NAME.to_vec();
    }
    if header.gid == 1000 {
        header.group = HOST_NAME.to_vec();
    }
}

/// How a file among the vectors, or among what engines wrote of the fixtures, is held to.
enum Held {
    /// Ours has its bytes, but for what formats.md 2.5 says: that test compares them.
    By(&'static str),
    /// By none, and why.
    Not(&'static str),
}

use Held::{By, Not};

const RUN: &str = "times of the run, and layers compressed anew";
const GONE: &str = "its container is in no store; its entries are encoded again";

const HELD: [(&str, Held); 59] = [
    ("base.tar", Not("the input of the others")),
    ("build-ctx.tar", By("hashes_of_a_known_context_are_as_docker_had_them")),
    ("c1.tar", By("a_container_without_and_with_its_changes_exports_as_in_docker_20")),
    ("c1b.tar", By("a_container_without_and_with_its_changes_exports_as_in_docker_20")),
    ("c1diff.tar", By("a_difference_found_by_comparing_is_that_of_docker_20")),
    ("c1s.tar", By("a_saved_image_that_was_committed_is_that_of_docker_20")),
    ("c2.tar", By("an_exported_container_is_that_of_docker_20")),
    ("c2diff.tar", By("a_writable_layer_is_packed_as_in_docker_20")),
    ("s1.tar", By("a_saved_repository_is_that_of_docker_20")),
    ("s2.tar", By("two_saved_images_that_share_a_layer_are_those_of_docker_20")),
    ("v25a.tar", By("a_saved_image_is_that_of_docker_25_and_of_docker_28")),
    ("v25c.tar", Not(GONE)),
    ("v25diff.tar", Not(GONE)),
    ("v28a.tar", By("a_saved_image_is_that_of_docker_25_and_of_docker_28")),
    ("v28c.tar", By("an_exported_container_is_that_of_docker_29")),
    ("v29a.tar", By("saved_images_are_those_of_docker_29")),
    ("v29b.tar", By("an_archive_of_docker_29_with_containerd_is_saved_again")),
    ("v29c.tar", By("an_exported_container_is_that_of_docker_29")),
    ("v29d.tar", By("an_exported_container_is_that_of_docker_29")),
    ("export-build1.tar", By("docker_s_own_archives_come_out_byte_for_byte")),
    ("export-build2.tar", By("docker_s_own_archives_come_out_byte_for_byte")),
    ("export-created-renamed.tar", By("docker_s_own_archives_come_out_byte_for_byte")),
    ("export-fromid.tar", By("docker_s_own_archives_come_out_byte_for_byte")),
    ("export-hostnet.tar", By("docker_s_own_archives_come_out_byte_for_byte")),
    ("export-noop.tar", By("docker_s_own_archives_come_out_byte_for_byte")),
    ("export-running.tar", By("docker_s_own_archives_come_out_byte_for_byte")),
    ("export-stopped.tar", By("docker_s_own_archives_come_out_byte_for_byte")),
    ("save-app10.tar", By("docker_s_own_archives_come_out_byte_for_byte")),
    ("save-attestload.tar", By("docker_s_own_archives_come_out_byte_for_byte")),
    ("save-built.tar", By("docker_s_own_archives_come_out_byte_for_byte")),
    ("save-dangling.tar", By("docker_s_own_archives_come_out_byte_for_byte")),
    ("save-dangpair.tar", By("several_images_are_what_docker_was_asked_for")),
    ("save-digrepo.tar", By("docker_s_own_archives_come_out_byte_for_byte")),
    ("save-id.tar", By("docker_s_own_archives_come_out_byte_for_byte")),
    ("save-idtag.tar", By("several_images_are_what_docker_was_asked_for")),
    ("save-loaded-legacy-mixed.tar", By("docker_s_own_archives_come_out_byte_for_byte")),
    ("save-loaded-oci-uncompressed.tar", By("docker_s_own_archives_come_out_byte_for_byte")),
    ("save-meta.tar", By("docker_s_own_archives_come_out_byte_for_byte")),
    ("save-mplat-amd64.tar", By("docker_s_own_archives_come_out_byte_for_byte")),
    ("save-mplat-arm64.tar", By("docker_s_own_archives_come_out_byte_for_byte")),
    ("save-mplat.tar", By("docker_s_own_archives_come_out_byte_for_byte")),
    ("save-mpload.tar", By("docker_s_own_archives_come_out_byte_for_byte")),
    ("save-multi.tar", By("several_images_are_what_docker_was_asked_for")),
    ("save-multi2.tar", By("several_images_are_what_docker_was_asked_for")),
    ("save-partial.tar", By("docker_s_own_archives_come_out_byte_for_byte")),
    ("save-regrepo.tar", By("docker_s_own_archives_come_out_byte_for_byte")),
    ("save-regtag.tar", By("docker_s_own_archives_come_out_byte_for_byte")),
    ("save-repo-app.tar", By("several_images_are_what_docker_was_asked_for")),
    ("save-shortid.tar", By("docker_s_own_archives_come_out_byte_for_byte")),
    ("save-solo.tar", By("docker_s_own_archives_come_out_byte_for_byte")),
    ("save-zstd.tar", Not("it lacks the layer that it names; ours is whole")),
    ("save-zstd2.tar", By("docker_s_own_archives_come_out_byte_for_byte")),
    ("ctr-app10.tar", By("ctr_s_own_archives_come_out_byte_for_byte")),
    ("ctr-both.tar", By("ctr_s_own_archives_come_out_byte_for_byte")),
    ("export-pcreated.tar", By("archives_have_podman_s_own_bytes")),
    ("export-prun.tar", By("archives_have_podman_s_own_bytes")),
    ("podman/save-multi.tar", By("several_images_are_those_of_podman")),
    ("save-docker-archive.tar", By("archives_have_podman_s_own_bytes")),
    ("save-oci-archive.tar", Not(RUN)),
];

/// The body of a test, from whichever file.
fn body_of(test: &str) -> String {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    for file in ["golden.rs", "containerd.rs", "podman.rs", "sums.rs"] {
        let text = fs::read_to_string(dir.join(file)).unwrap();
        if let Some((_, rest)) = text.split_once(&format!("#[test]\nfn {test}(")) {
            return rest.split("#[test]").next().unwrap().to_owned();
        }
    }
    panic!("no test {test}");
}

#[test]
fn every_archive_of_an_engine_is_compared_or_left_out_for_a_reason() {
    let Some(folder) = golden::folder() else { return };
    let tars = |dir: &Path| -> Vec<String> {
        let names = fs::read_dir(dir).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".tar") && !name.starts_with("store-")).collect()
    };
    let mut found = tars(folder);
    for (fixture, below) in
        [(golden::DOCKER_CONTAINERD, "tars"), (golden::CONTAINERD, ""), (golden::PODMAN, "")]
    {
        let Some(expected) = golden::expected(fixture) else { return };
        // Docker's fixture has one of that name, too.
        let own = |name: String| match fixture == golden::PODMAN && name == "save-multi.tar" {
            true => format!("podman/{name}"),
            false => name,
        };
        found.extend(tars(&expected.path().join(below)).into_iter().map(own));
    }
    found.sort();
    let mut known: Vec<&str> = HELD.iter().map(|(name, _)| *name).collect();
    known.sort_unstable();
    assert_eq!(found, known);
    for (path, held) in &HELD {
        let file = path.rsplit('/').next().unwrap();
        let stem = file.strip_suffix(".tar").unwrap().trim_start_matches("export-");
        match held {
            // As the file, or by the part of its name that the others in a table do not share.
            By(test) => {
                let body = body_of(test);
                let names = [format!("\"{file}\""), format!("\"{stem}\"")];
                assert!(names.iter().any(|name| body.contains(name)), "{path} is not in {test}");
            }
            Not(why) => assert!(!why.is_empty()),
        }
    }
}

/// Docker listed `built:two` last, as it was asked for.
#[test]
fn an_archive_of_docker_29_with_containerd_is_saved_again() {
    let Some(v29b) = golden::vector("v29b.tar") else { return };
    let dir = golden::unpack(&golden::folder().unwrap().join("v29b.tar"));
    let view = View::of(dir.path());
    let options = Options { flavour: Some(Flavour::Containerd), ..Options::default() };
    let together =
        View::with(dir.path(), options).read("images/.save/built:1+base:1+built:two.tar");
    assert_same(&together, &v29b, "v29b.tar");
    let blobs = view.names("images/built:1/oci/blobs/sha256");
    assert_eq!(blobs.len(), 5);
}

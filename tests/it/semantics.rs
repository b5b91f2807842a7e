//! What docs/SEMANTICS.md promises, each sentence by a test of the name that stands behind it.
//!
//! These go through the tree, without a mount; what needs a kernel is in `tests/mount/`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT, utimensat};
use rustix::io::Errno;
use serde_json::{Value, json};
use stratafs::archive::Flavour;
use stratafs::archive::context::{self, Rules};
use stratafs::backing::{Access, FileKind, Root, Seek, Time};
use stratafs::digest::Digest;
use stratafs::overlay::Stack;
use stratafs::overlay::files::Files;
use stratafs::recipe::{Changed, Recipe, Verify};
use stratafs::snapshot::Snapshots;
use stratafs::store::{self, LayerDir, Marks, Source};
use stratafs::sum::build::Context;
use stratafs::sum::tarsum::{Version, tarsum};
use stratafs::sum::{Cancel, content};
use stratafs::tree::{Attr, Filter, Keeping, Options, ROOT, Reader, Sum, Symlinks, Tree};

use crate::handmade_containerd;
use crate::layering::collect;
use crate::stores::archives::{self, Layout, Tar};
use crate::stores::golden::{self, VFS_20};
use crate::stores::handmade::{
    CREATED, CREATED_SECS, DataRoot, digest, exited, hex_of, make_opaque, read_record, set_mtime,
    whiteout, write_record,
};
use crate::stores::sample::{LATER, Sample, noise, sample, write};
use crate::stores::view::{ROOT_USER, View, options};
use crate::support::bolt;
use crate::support::containerd::Made;

/// How long something may take to show, with what the kernel may keep.
const FRESH: Duration = Duration::from_secs(1);

/// Waits until `is_so`, and says how long it took.
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < FRESH, "{what} does not show");
        thread::sleep(Duration::from_millis(10));
    }
    start.elapsed()
}

fn errno<T>(result: stratafs::error::Result<T>) -> Option<Errno> {
    result.map_err(|err| err.errno()).err()
}

fn secs(secs: i64) -> Time {
    Time { secs, nanos: 0 }
}

/// A store with one image of one small layer, for a test to add to.
fn small() -> (tempfile::TempDir, DataRoot, crate::stores::handmade::Layer) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut root = DataRoot::create(dir.path());
    let layer = root.layer(None, |dir| write(dir, "file", b"file\n"));
    let app = root.image(&[&layer], CREATED);
    root.tag("app:1", &app);
    (dir, root, layer)
}

#[test]
fn every_promise_names_its_test_and_every_test_its_promise() {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tests = |path: PathBuf| -> BTreeSet<String> {
        let text = fs::read_to_string(path).unwrap();
        let marked = text.split("#[test]\n").skip(1);
        let name = |rest: &str| {
            let rest = rest.split_once("fn ").unwrap().1;
            rest.split_once('(').unwrap().0.to_owned()
        };
        marked.map(name).collect()
    };
    let document = fs::read_to_string(home.join("docs/SEMANTICS.md")).unwrap();
    let named: Vec<String> = document
        .split("\n- ")
        .skip(1)
        .map(|promise| {
            let promise = promise.split("\n\n").next().unwrap().trim_end();
            let inner = promise.strip_suffix("`)").and_then(|rest| rest.rsplit_once("(`"));
            inner.unwrap_or_else(|| panic!("no test: {promise}")).1.to_owned()
        })
        .collect();
    let unique: BTreeSet<String> = named.iter().cloned().collect();
    assert_eq!(named.len(), unique.len(), "a test that stands behind two promises");
    let files = [
        "it/semantics",
        "it/several",
        "it/cli",
        "mount/bytes",
        "mount/daemon",
        "mount/flavours",
        "mount/kernel",
        "mount/metrics",
        "mount/overlays",
        "mount/push",
        "mount/readers",
        "mount/walked",
        "mount/windows",
    ];
    let all: BTreeSet<String> =
        files.iter().flat_map(|name| tests(home.join(format!("tests/{name}.rs")))).collect();
    // Those of other files are about more than promises.
    let mut sources = Vec::new();
    collect(&home.join("src"), &mut sources);
    collect(&home.join("tests"), &mut sources);
    let known: BTreeSet<String> = sources.into_iter().flat_map(tests).collect();
    let missing: Vec<_> = unique.difference(&known).collect();
    assert!(missing.is_empty(), "no such tests: {missing:?}");
    let own = ["every_promise_names_its_test_and_every_test_its_promise"].map(str::to_owned);
    let unnamed: Vec<_> = all.difference(&unique).filter(|name| !own.contains(name)).collect();
    assert!(unnamed.is_empty(), "not in docs/SEMANTICS.md: {unnamed:?}");
}

// The tree.

#[test]
fn the_mount_holds_images_containers_and_ids() {
    let Some(sample) = sample() else { return };
    let view = View::of(sample.path());
    assert_eq!(view.names(""), ["README", "by-id", "containers", "images", "volumes"]);
    assert_eq!(view.names("images"), ["app", "app:1", "app:latest", "ghcr.io"]);
    assert_eq!(view.names("images/ghcr.io/org"), ["app", "app:v1"]);
    assert_eq!(view.names("containers"), ["web"]);
    let mut ids = [hex_of(&sample.app), hex_of(&sample.untagged)];
    ids.sort_unstable();
    assert_eq!(view.names("by-id/images"), ids);
    let link = view.link(&format!("by-id/containers/{}", sample.web.id));
    assert_eq!(link, "../../containers/web");
    let control = ["errors", "events", "metrics", "refresh", "stats.json", "version"];
    assert_eq!(view.names(".stratafs"), control);
    assert_eq!(view.text(".stratafs/version"), concat!(env!("CARGO_PKG_VERSION"), "\n"));
    assert!(view.text("README").contains("docker load"));
}

#[test]
fn several_stores_are_a_directory_each() {
    let (Some(first), Some(second)) = (sample(), sample()) else { return };
    let stores = [first.path(), second.path()].map(|path| {
        store::open(&Source { kind: None, path: path.to_owned() }, &store::Context::default())
            .unwrap()
    });
    let view = View { tree: Tree::new(stores.into(), Options::default()) };
    assert_eq!(view.names(""), ["README", "docker", "docker-2"]);
    for store in ["docker", "docker-2"] {
        view.read(&format!("{store}/images/app:1/save.tar"));
    }
    let ino = |store: &str| view.attr(&format!("{store}/containers/web")).unwrap().ino;
    assert_ne!(ino("docker"), ino("docker-2"));
}

#[test]
fn an_image_says_what_it_is() {
    let Some(mut sample) = sample() else { return };
    let manifest = format!("app@sha256:{}", "d".repeat(64));
    sample.root.tag(&manifest, &sample.app);
    let view = View::of(sample.path());
    assert_eq!(view.text("images/app:1/id"), format!("{}\n", sample.app));
    assert_eq!(view.text("images/app:1/created"), format!("{CREATED}\n"));
    assert_eq!(view.text("images/app:1/digest"), format!("sha256:{}\n", "d".repeat(64)));
    assert_eq!(digest(&view.read("images/app:1/config.json")), sample.app);
    assert!(view.text("images/app:1/README").contains("docker save app:1"));
    let inspect: Value = serde_json::from_slice(&view.read("images/app:1/inspect.json")).unwrap();
    assert_eq!(inspect[0]["Id"], sample.app);
    assert!(view.text("images/app:1/history").contains("/bin/sh -c make"));
    assert_eq!(view.names("images/app:1/used-by"), ["web"]);
    let untagged = format!("by-id/images/{}", hex_of(&sample.untagged));
    assert_eq!(errno(view.attr(&format!("{untagged}/digest"))), Some(Errno::NOENT));
    assert!(!view.names(&untagged).contains(&"digest".to_owned()));
}

#[test]
fn links_of_the_tree_lead_to_what_they_name() {
    let Some(mut sample) = sample() else { return };
    let image = ("app:2", sample.untagged.as_str());
    let top = sample.layers[2].clone();
    sample.root.container("unnamed", image, &top, &exited(), |_| {});
    let view = View::of(sample.path());
    for (directory, name) in [
        ("images/app:1/used-by", "web"),
        ("images/app/used-by", "web"),
        ("images/ghcr.io/org/app:v1/used-by", "web"),
        ("images/app/tags", "1"),
        ("images/app/tags", "latest"),
        ("images/ghcr.io/org/app/tags", "v1"),
        ("containers/web", "image"),
        ("containers/unnamed", "image"),
    ] {
        let link = view.link(&format!("{directory}/{name}"));
        let mut parts: Vec<&str> = directory.split('/').collect();
        for part in link.split('/') {
            match part {
                ".." => drop(parts.pop().expect("no link leads out of the mount")),
                part => parts.push(part),
            }
        }
        let target = parts.join("/");
        assert_eq!(view.attr(&target).unwrap().kind, FileKind::Directory, "{directory}: {link}");
    }
    assert_eq!(view.link("containers/web/image"), "../../images/app:1");
    let by_id = format!("../../by-id/images/{}", hex_of(&sample.untagged));
    assert_eq!(view.link("containers/unnamed/image"), by_id);
}

#[test]
fn a_repository_saves_all_its_tags_and_shows_latest_else_the_newest() {
    let Some(mut sample) = sample() else { return };
    sample.root.tag("app:new", &sample.untagged);
    sample.root.tag("tools:old", &sample.app);
    sample.root.tag("tools:new", &sample.untagged);
    let view = View::of(sample.path());
    assert_eq!(view.text("images/app/id"), format!("{}\n", sample.app), "latest");
    assert_eq!(view.text("images/tools/id"), format!("{}\n", sample.untagged), "newest");
    assert_eq!(view.names("images/app/tags"), ["1", "latest", "new"]);
    let saved = view.read("images/app/save.tar");
    let manifest = entry(&saved, "manifest.json");
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest[0]["RepoTags"], json!(["app:1", "app:latest"]));
    assert_eq!(manifest[1]["RepoTags"], json!(["app:new"]));
    assert_eq!(manifest.as_array().unwrap().len(), 2);
}

/// The contents of one file of a tar.
fn entry(tar: &[u8], name: &str) -> Vec<u8> {
    let mut archive = tar::Archive::new(tar);
    let mut entries = archive.entries().unwrap().map(Result::unwrap);
    let mut entry = entries.find(|entry| entry.path().unwrap().to_str() == Some(name)).unwrap();
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
    bytes
}

#[test]
fn an_image_without_layers_has_no_archives() {
    let (dir, mut root, _) = small();
    let empty = root.image(&[], CREATED);
    root.tag("empty:1", &empty);
    let view = View::of(dir.path());
    assert!(!view.names("images/empty:1").contains(&"save.tar".to_owned()));
    assert_eq!(view.names("images/empty:1/formats"), Vec::<String>::new());
    assert_eq!(view.names("images/empty:1/rootfs"), Vec::<String>::new());
    assert_eq!(errno(view.attr("images/empty:1/save.tar")), Some(Errno::NODATA));
    assert_eq!(view.text("images/empty:1/id"), format!("{empty}\n"));
}

/// Names of the entries of a tar, sorted.
fn entry_names(tar: &[u8]) -> BTreeSet<String> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().unwrap();
    entries.map(|entry| entry.unwrap().path().unwrap().to_str().unwrap().to_owned()).collect()
}

#[test]
fn several_images_are_one_archive_in_the_order_asked_for() {
    let Some(sample) = sample() else { return };
    let view = View::of(sample.path());
    assert_eq!(view.names("images/.save"), Vec::<String>::new());
    let manifest = |name: &str| -> serde_json::Value {
        let tar = view.read(&format!("images/.save/{name}.tar"));
        let mut archive = tar::Archive::new(&tar[..]);
        let mut entries = archive.entries().unwrap().map(Result::unwrap);
        let manifest = entries.find(|entry| entry.path().unwrap().ends_with("manifest.json"));
        serde_json::from_reader(manifest.unwrap()).unwrap()
    };
    let untagged = hex_of(&sample.untagged);
    let both = manifest(&format!("{untagged}+ghcr.io%2Forg%2Fapp:v1+docker.io%2Flibrary%2Fapp:1"));
    assert_eq!(both[0]["RepoTags"], serde_json::Value::Null);
    assert_eq!(both[1]["RepoTags"], serde_json::json!(["ghcr.io/org/app:v1", "app:1"]));
    assert_eq!(both.as_array().unwrap().len(), 2);
    let other = manifest(&format!("app+{}", &untagged[..12]));
    assert_eq!(other[0]["RepoTags"], serde_json::json!(["app:1", "app:latest"]));
    assert!(other[1]["Config"].as_str().unwrap().ends_with(untagged));
    assert_eq!(view.read("images/.save/app:1.tar"), view.read("images/app:1/save.tar"));
    for name in ["app:1+nosuch.tar", "app:1", "app:1+.tar", ".tar", "%ff.tar"] {
        assert_eq!(errno(view.attr(&format!("images/.save/{name}"))), Some(Errno::NOENT), "{name}");
    }
}

#[test]
fn a_delta_is_the_archive_without_the_layers_of_its_base() {
    let Some(mut sample) = sample() else { return };
    let untagged = sample.untagged.clone();
    sample.root.tag("app:2", &untagged);
    let view = View::of(sample.path());
    let deltas = view.names("images/app:2/delta");
    assert_eq!(deltas, ["app:1.json", "app:1.tar", "app:latest.json", "app:latest.tar"]);
    assert!(!view.names("images/app:2").contains(&"delta".to_owned()));
    let whole = view.read("images/app:2/save.tar");
    let delta = view.read("images/app:2/delta/app:1.tar");
    let [base, middle, top] = &sample.layers;
    let blob = |diff_id: &str| format!("blobs/sha256/{}", hex_of(diff_id));
    let left_out = BTreeSet::from([blob(&base.diff_id), blob(&middle.diff_id)]);
    assert_eq!(&entry_names(&whole) - &entry_names(&delta), left_out);
    assert!(entry_names(&delta).contains(&blob(&top.diff_id)));
    let told: serde_json::Value =
        serde_json::from_slice(&view.read("images/app:2/delta/app:1.json")).unwrap();
    assert_eq!((&told["layers"], &told["shared_layers"]), (&3.into(), &2.into()));
    assert_eq!(told["saved_bytes"], whole.len() - delta.len());
    assert_eq!(told["delta_bytes"], delta.len());
    // Any spelling of any image is a base, and one that shares nothing takes nothing away.
    assert!(view.read("images/app:2/delta/ghcr.io%2Forg%2Fapp:v1.tar") == delta);
    let back = view.read("images/app:1/delta/app:2.tar");
    assert!(!entry_names(&back).iter().any(|name| left_out.contains(name)));
    assert_eq!(errno(view.attr("images/app:2/delta/nosuch.tar")), Some(Errno::NOENT));
    // The same as layouts.
    assert_eq!(view.names("images/app:2/oci-delta"), ["app:1", "app:latest"]);
    let blobs = view.names("images/app:2/oci-delta/app:1/blobs/sha256");
    assert_eq!(blobs.len(), 3);
    assert!(blobs.iter().any(|name| name == hex_of(&top.diff_id)));
    // Older archives keep the descriptions of all layers.
    let options = Options { flavour: Some(Flavour::Docker110), ..options() };
    let view = View::with(sample.path(), options);
    let gone = &entry_names(&view.read("images/app:2/save.tar"))
        - &entry_names(&view.read("images/app:2/delta/app:1.tar"));
    assert!(gone.len() == 2 && gone.iter().all(|name| name.ends_with("/layer.tar")), "{gone:?}");
}

#[test]
fn an_image_is_an_oci_layout_whose_blobs_have_their_digests() {
    let Some(sample) = sample() else { return };
    let view = View::of(sample.path());
    for image in ["app:1", "app", "ghcr.io/org/app:v1"] {
        let oci = format!("images/{image}/oci");
        assert_eq!(view.names(&oci), ["blobs", "index.json", "oci-layout"]);
        let index: serde_json::Value =
            serde_json::from_slice(&view.read(&format!("{oci}/index.json"))).unwrap();
        let listed = view.names(&format!("{oci}/blobs/sha256"));
        assert_eq!(listed.len(), 4, "two layers, a config and a manifest");
        let mut named = BTreeSet::new();
        let mut blob = |name: &serde_json::Value| {
            let hex = hex_of(name.as_str().unwrap()).to_owned();
            let bytes = view.read(&format!("{oci}/blobs/sha256/{hex}"));
            assert_eq!(digest(&bytes), name.as_str().unwrap());
            named.insert(hex);
            bytes
        };
        for manifest in index["manifests"].as_array().unwrap() {
            let manifest: serde_json::Value =
                serde_json::from_slice(&blob(&manifest["digest"])).unwrap();
            blob(&manifest["config"]["digest"]);
            manifest["layers"].as_array().unwrap().iter().for_each(|layer| {
                blob(&layer["digest"]);
            });
        }
        assert_eq!(named, listed.into_iter().collect());
        // oci.tar is the same in one file.
        let tar = view.read(&format!("images/{image}/formats/oci.tar"));
        let mut archive = tar::Archive::new(&tar[..]);
        let mut files = 0;
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            if entry.header().entry_type().is_file() {
                let path = entry.path().unwrap().to_str().unwrap().to_owned();
                let mut bytes = Vec::new();
                std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
                assert!(view.read(&format!("{oci}/{path}")) == bytes, "{path}");
                files += 1;
            }
        }
        assert_eq!(files, 6);
    }
    let layer = hex_of(&sample.layers[0].diff_id);
    let ino = |path: &str| view.attr(&format!("images/app:1/{path}")).unwrap().ino;
    let name = &view.names("images/app:1/layers")[0];
    assert_eq!(ino(&format!("oci/blobs/sha256/{layer}")), ino(&format!("layers/{name}/layer.tar")));
}

#[test]
fn only_images_and_containers_that_were_asked_for_are_shown() {
    let Some(mut sample) = sample() else { return };
    sample.root.container("db", ("app:1", &sample.app), &sample.layers[1], &exited(), |_| {});
    let patterns = |glob: &str| vec![glob::Pattern::new(glob).unwrap()];
    let (images, containers) = (patterns("ghcr.io/*"), patterns("w?b"));
    let filter = Filter { images, containers, ..Filter::default() };
    let view = View::with(sample.path(), Options { filter, ..options() });
    assert_eq!(view.names("images"), ["ghcr.io"]);
    assert_eq!(view.names("containers"), ["web"]);
    assert_eq!(view.names("by-id/images"), [hex_of(&sample.app)]);
    assert_eq!(errno(view.attr("images/app:1")), Some(Errno::NOENT));
}

// Layers.

#[test]
fn a_layer_shows_its_own_files_with_deletions_as_marks() {
    let Some(sample) = sample() else { return };
    let view = View::of(sample.path());
    let layers = view.names("images/app:1/layers");
    let name =
        |index: usize| format!("{index:02}-{}", &hex_of(&sample.layers[index].diff_id)[..12]);
    assert_eq!(layers, [name(0), name(1)]);
    let at = format!("images/app:1/layers/{}", layers[1]);
    assert_eq!(view.names(&at), ["changes", "diff", "layer.json", "layer.tar"]);
    assert_eq!(view.names(&format!("{at}/diff")), [".wh.deleted", ".wh.old", "data", "usr"]);
    assert_eq!(view.names(&format!("{at}/diff/data")), [".wh..wh..opq", "kept"]);
    assert_eq!(view.read(&format!("{at}/diff/.wh.old")), b"");
    assert_eq!(view.read(&format!("{at}/layer.tar")), sample.layers[1].tar);
    let changes = "C /data\nD /data/gone\nC /data/kept\nD /deleted\nD /old\nC /usr\nC /usr/bin\n\
                   A /usr/bin/tool2\n";
    assert_eq!(view.text(&format!("{at}/changes")), changes);
    let json: Value = serde_json::from_slice(&view.read(&format!("{at}/layer.json"))).unwrap();
    assert_eq!(json["diff_id"], sample.layers[1].diff_id);
    assert_eq!(json["chain_id"], sample.layers[1].chain_id);
    assert_eq!(json["created"], CREATED);
    assert_eq!(json["exact"], true);
}

#[test]
fn a_container_shows_its_own_files_and_changes() {
    let Some(sample) = sample() else { return };
    let view = View::of(sample.path());
    assert_eq!(view.names("containers/web/diff"), ["etc", "own"]);
    assert_eq!(view.names("containers/web/diff/etc"), [".wh.shadow", "passwd"]);
    let changes = "C /etc\nC /etc/passwd\nD /etc/shadow\nA /own\n";
    assert_eq!(view.text("containers/web/changes"), changes);
    assert_eq!(view.text("containers/web/rootfs/own"), "own\n");
    assert_eq!(view.text("containers/web/rootfs/.dockerenv"), "");
    assert_eq!(errno(view.attr("containers/web/rootfs/etc/shadow")), Some(Errno::NOENT));
    assert_eq!(view.text("containers/web/state"), "exited\n");
    assert_eq!(view.text("containers/web/id"), format!("{}\n", sample.web.id));
    assert_eq!(view.text("containers/web/created"), format!("{CREATED}\n"));
    assert_eq!(view.names("containers/web/layers"), view.names("images/app:1/layers"));
    let config = sample.path().join("containers").join(&sample.web.id).join("config.v2.json");
    assert_eq!(view.read("containers/web/config.json"), fs::read(config).unwrap());
    assert_eq!(view.text("containers/web/hostconfig.json"), "{}\n");
}

// Rules 1 to 4.

#[test]
fn a_size_is_known_without_reading_any_file_of_a_layer() {
    let Some(sample) = sample() else { return };
    let sizes = |view: &View| {
        let names = ["save.tar", "formats/docker-1.10.tar", "formats/docker-29.tar"];
        let mut sizes = names.map(|name| view.attr(&format!("images/app:1/{name}")).unwrap().size);
        let layers = view.names("images/app:1/layers");
        sizes[1] +=
            view.attr(&format!("images/app:1/layers/{}/layer.tar", layers[0])).unwrap().size;
        sizes
    };
    let before = sizes(&View::of(sample.path()));
    let read = View::of(sample.path()).read("images/app:1/save.tar");
    assert_eq!(before[0], read.len() as u64);
    // No file of a layer is left.
    for layer in &sample.layers {
        fs::remove_dir_all(&layer.diff).unwrap();
        fs::create_dir(&layer.diff).unwrap();
    }
    let view = View::of(sample.path());
    assert_eq!(sizes(&view), before);
    assert_eq!(errno(view.try_read("images/app:1/save.tar")), Some(Errno::IO));
}

#[test]
fn any_range_equals_that_range_of_a_full_read() {
    let Some(sample) = sample() else { return };
    let view = View::of(sample.path());
    let paths = ["images/app/save.tar", "containers/web/export.tar", "images/app:1/rootfs/sparse"];
    for path in paths {
        let whole = view.read(path);
        let attr = view.attr(path).unwrap();
        let read = |seed: u32| {
            let numbers = noise(seed, 8 * 400);
            for number in numbers.chunks_exact(8) {
                let number = u64::from_le_bytes(number.try_into().unwrap());
                let offset = number % (whole.len() as u64 + 2000);
                let count = (number >> 40) as usize % [10, 700, 5000, 200_000][seed as usize % 4];
                let found = view.range(attr.ino, offset, count).unwrap();
                let expected = whole.get(offset as usize..).unwrap_or_default();
                let expected = &expected[..count.min(expected.len())];
                assert!(found == expected, "{path}: {count} bytes from {offset}");
            }
        };
        thread::scope(|scope| (0..4).for_each(|seed| drop(scope.spawn(move || read(seed)))));
    }
}

#[test]
fn reading_leaves_the_store_as_it_is() {
    let Some(sample) = sample() else { return };
    let before = stamps(sample.path());
    let view = View::of(sample.path());
    for name in ["save.tar", "export.tar", "config.json", "inspect.json", "history"] {
        view.read(&format!("images/app:1/{name}"));
    }
    view.read("containers/web/export.tar");
    view.read("containers/web/diff.tar");
    view.read("containers/web/changes");
    assert_eq!(stamps(sample.path()), before);
}

#[test]
fn no_time_of_access_changes_in_a_store() {
    let Some(sample) = sample() else { return };
    // Reading it would move a time as old as that, even on a file system that is mounted relatime.
    let old = Timestamps {
        last_access: Timespec { tv_sec: 86_400, tv_nsec: 0 },
        last_modification: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
    };
    let mut paths: Vec<_> = stamps(sample.path()).into_keys().collect();
    // What a symlink says can't be read without a trace.
    paths.retain(|path| !path.is_symlink());
    for path in &paths {
        utimensat(CWD, path, &old, AtFlags::empty()).unwrap();
    }
    let view = View::of(sample.path());
    for path in ["", "images", "images/app:1", "images/app:1/rootfs/usr/bin", "containers/web/diff"]
    {
        assert!(!view.names(path).is_empty());
    }
    for name in ["save.tar", "export.tar", "config.json", "inspect.json", "rootfs/usr/bin/tool"] {
        view.read(&format!("images/app:1/{name}"));
    }
    for name in ["export.tar", "diff.tar", "changes", "config.json"] {
        view.read(&format!("containers/web/{name}"));
    }
    let moved = paths.iter().filter(|path| path.symlink_metadata().unwrap().atime() != 86_400);
    assert_eq!(moved.collect::<Vec<_>>(), Vec::<&std::path::PathBuf>::new());
}

/// Name, size and times of change of all files of a store.
fn stamps(store: &Path) -> BTreeMap<std::path::PathBuf, (u64, i64, i64, i64)> {
    let mut stamps = BTreeMap::new();
    let mut open = vec![store.to_owned()];
    while let Some(path) = open.pop() {
        let meta = path.symlink_metadata().unwrap();
        if meta.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let stamp = (meta.size(), meta.mtime(), meta.ctime(), meta.ctime_nsec());
        stamps.insert(path, stamp);
    }
    stamps
}

#[test]
fn two_mounts_of_a_store_show_the_same_bytes_and_numbers() {
    let Some(sample) = sample() else { return };
    let (first, second) = (View::of(sample.path()), View::of(sample.path()));
    let mut paths = vec![String::new()];
    let mut count = 0;
    while let Some(path) = paths.pop() {
        let (one, other) = (first.attr(&path).unwrap(), second.attr(&path).unwrap());
        assert_eq!((one.ino, one.kind, one.size), (other.ino, other.kind, other.size), "{path}");
        match one.kind {
            FileKind::Directory => {
                // A name that is not text is looked up nowhere here.
                let listing = first.tree.read_dir(one.ino).unwrap();
                let names = listing.children.iter().filter_map(|child| child.name.to_str());
                paths.extend(names.map(|name| format!("{path}/{name}")));
            }
            FileKind::Regular => {
                let (one, other) = (first.read(&path), second.read(&path));
                assert!(one == other, "{path}");
            }
            _ => {}
        }
        count += 1;
    }
    assert!(count > 200, "{count}");
}

#[test]
fn the_mtime_of_an_image_is_when_it_was_created() {
    let (dir, mut root, layer) = small();
    for (tag, created) in
        [("app:zero", "0001-01-01T00:00:00Z"), ("app:old", "1969-12-31T23:59:59.5Z")]
    {
        let image = root.image(&[&layer], created);
        root.tag(tag, &image);
    }
    let view = View::of(dir.path());
    let mtime = |path: &str| view.attr(path).unwrap().mtime;
    let [layer] = &view.names("images/app:1/layers")[..] else { panic!() };
    let layer = format!("layers/{layer}/layer.tar");
    for name in ["", "save.tar", "export.tar", "config.json", "rootfs", &layer] {
        assert_eq!(mtime(&format!("images/app:1/{name}")), secs(CREATED_SECS), "{name}");
        assert_eq!(mtime(&format!("images/app:zero/{name}")), secs(0), "{name}");
        assert_eq!(mtime(&format!("images/app:old/{name}")), secs(0), "{name}");
    }
    let file = fs::metadata(dir.path().join("overlay2")).unwrap();
    assert!(mtime("images/app:1/rootfs/file").secs >= file.mtime() - 60, "its own");
}

#[test]
fn the_mtime_of_a_repository_s_archive_is_that_of_its_newest_image() {
    let (dir, mut root, layer) = small();
    let newer = root.image(&[&layer], LATER);
    root.tag("app:2", &newer);
    let older = View::of(dir.path()).text("images/app:1/id");
    root.tag("app:latest", older.trim_end());
    let view = View::of(dir.path());
    let later = view.attr("images/app:2/save.tar").unwrap().mtime;
    assert!(later > secs(CREATED_SECS));
    assert_eq!(view.attr("images/app/save.tar").unwrap().mtime, later);
    assert_eq!(view.attr("images/app/export.tar").unwrap().mtime, secs(CREATED_SECS));
}

#[test]
fn the_mtime_of_a_container_s_archive_is_the_newest_change_in_its_files() {
    let Some(sample) = sample() else { return };
    fs::write(sample.web.diff.join("last"), "last\n").unwrap();
    let last = fs::metadata(sample.web.diff.join("last")).unwrap();
    let view = View::of(sample.path());
    for name in ["export.tar", "diff.tar"] {
        let mtime = view.attr(&format!("containers/web/{name}")).unwrap().mtime;
        assert_eq!(mtime, secs(last.ctime()), "{name}");
    }
}

// Rule 5.

#[test]
fn listing_images_opens_no_layer() {
    let Some(sample) = sample() else { return };
    // Nothing of any layer is left to open.
    fs::remove_dir_all(sample.path().join("overlay2")).unwrap();
    fs::remove_dir_all(sample.root.metadata().join("layerdb")).unwrap();
    let view = View::of(sample.path());
    for name in view.names("images") {
        assert_eq!(view.attr(&format!("images/{name}")).unwrap().kind, FileKind::Directory);
    }
    assert!(view.names("images/app:1").contains(&"save.tar".to_owned()));
    assert_eq!(view.attr("images/app:1").unwrap().mtime, secs(CREATED_SECS));
    let listing = view.tree.read_dir(view.attr("images/app:1").unwrap().ino).unwrap();
    let is_cheap =
        |name: &str| listing.children.iter().find(|child| child.name == name).unwrap().is_cheap;
    assert!(!is_cheap("save.tar") && !is_cheap("export.tar") && is_cheap("config.json"));
    assert!(!is_cheap("rootfs"), "its attributes are in the layers");
}

// Rule 6.

#[test]
fn every_spelling_of_docker_finds_the_image() {
    let Some(mut sample) = sample() else { return };
    let manifest = format!("sha256:{}", "d".repeat(64));
    sample.root.tag(&format!("app@{manifest}"), &sample.app);
    let view = View::of(sample.path());
    let hex = hex_of(&sample.app);
    for name in [
        "app:1",
        "app",
        "docker.io/library/app:1",
        "index.docker.io/library/app:1",
        "docker.io/app:1",
        "library/app:1",
        "docker.io/library/app",
        &format!("app@{manifest}"),
        &format!("docker.io/library/app@{manifest}"),
        "ghcr.io/org/app:v1",
        "ghcr.io/org/app",
        &sample.app,
        hex,
        &hex[..12],
        &format!("sha256:{}", &hex[..12]),
    ] {
        let id = view.text(&format!("images/{name}/id"));
        assert_eq!(id, format!("{}\n", sample.app), "{name}");
    }
    for name in ["app:2", "App:1", "ghcr.io/app:v1", "quay.io", "..", "", &hex[..11].to_uppercase()]
    {
        let root = view.attr("images").unwrap().ino;
        let found = view.tree.lookup(root, name.split('/').next().unwrap().as_ref());
        let found = found.and_then(|_| view.attr(&format!("images/{name}/id")));
        assert_eq!(errno(found), Some(Errno::NOENT), "{name}");
    }
}

#[test]
fn a_container_is_found_by_name_and_by_any_clear_beginning_of_its_id() {
    let Some(sample) = sample() else { return };
    let view = View::of(sample.path());
    for name in ["web", &sample.web.id, &sample.web.id[..12], &sample.web.id[..1]] {
        let id = view.text(&format!("containers/{name}/id"));
        assert_eq!(id, format!("{}\n", sample.web.id), "{name}");
    }
    assert_eq!(errno(view.attr("containers/other")), Some(Errno::NOENT));
}

#[test]
fn entries_of_a_repository_win_over_repositories_below_it() {
    let Some(mut sample) = sample() else { return };
    for reference in ["app/layers:1", "app/web:1"] {
        sample.root.tag(reference, &sample.untagged);
    }
    let view = View::of(sample.path());
    let untagged = format!("{}\n", sample.untagged);
    assert_eq!(view.names("images/app/layers"), view.names("images/app:1/layers"));
    assert_eq!(view.text("images/app/layers:1/id"), untagged);
    assert_eq!(view.text("images/app/web:1/id"), untagged);
    assert_eq!(view.text("images/app/web/id"), untagged);
    assert_eq!(view.text("images/app/id"), format!("{}\n", sample.app));
    let names = view.names("images/app");
    assert!(names.contains(&"web".to_owned()) && names.contains(&"web:1".to_owned()));
    assert_eq!(names.iter().filter(|name| *name == "layers").count(), 1);
}

#[test]
fn a_name_that_is_too_long_is_cut() {
    let (dir, mut root, layer) = small();
    let image = root.image(&[&layer], LATER);
    let long = format!("{}:{}", "r".repeat(200), "t".repeat(100));
    root.tag(&long, &image);
    let view = View::of(dir.path());
    let names = view.names("images");
    let cut = names.iter().find(|name| name.contains('~')).unwrap();
    assert_eq!(cut.len(), 213);
    assert!(long.starts_with(&cut[..200]));
    assert_eq!(cut[201..], hex_of(&digest(long.as_bytes()))[..12]);
    assert_eq!(view.text(&format!("images/{cut}/id")), format!("{image}\n"));
    assert!(names.iter().all(|name| name.len() <= 255));
}

// Rule 7.

#[test]
fn an_unchanged_file_has_one_number_under_every_name_that_shows_it() {
    let Some(sample) = sample() else { return };
    let view = View::of(sample.path());
    let ino = |path: String| view.attr(&path).unwrap().ino;
    let untagged = format!("by-id/images/{}", hex_of(&sample.untagged));
    let roots = ["images/app:1", "images/app", "images/ghcr.io/org/app:v1", "containers/web"];
    let base = view.names("images/app:1/layers")[0].clone();
    for file in ["usr/bin/tool", "odd", "absolute", "empty"] {
        let first = ino(format!("{untagged}/rootfs/{file}"));
        for root in roots {
            assert_eq!(ino(format!("{root}/rootfs/{file}")), first, "{root}: {file}");
            assert_eq!(ino(format!("{root}/layers/{base}/diff/{file}")), first, "{root}: {file}");
        }
    }
    for name in ["save.tar", "export.tar"] {
        assert_eq!(
            ino(format!("images/app:1/{name}")) == ino(format!("images/app:latest/{name}")),
            name == "export.tar",
            "{name}: which names a save holds is part of it"
        );
    }
    let layer = format!("layers/{base}/layer.tar");
    assert_eq!(ino(format!("images/app:1/{layer}")), ino(format!("{untagged}/{layer}")));
    assert_eq!(ino(format!("containers/web/{layer}")), ino(format!("{untagged}/{layer}")));
}

#[test]
fn hard_links_share_a_number_and_different_files_never_do() {
    let Some(sample) = sample() else { return };
    let view = View::of(sample.path());
    let tool = view.attr("images/app:1/rootfs/usr/bin/tool").unwrap();
    let link = view.attr("images/app:1/rootfs/usr/bin/link").unwrap();
    assert_eq!((tool.ino, tool.nlink), (link.ino, 2));
    let mut seen: BTreeMap<u64, String> = BTreeMap::new();
    let mut open = vec!["images/app:1/rootfs".to_owned()];
    while let Some(path) = open.pop() {
        let attr = view.attr(&path).unwrap();
        if let Some(other) = seen.insert(attr.ino, path.clone()) {
            assert_eq!(attr.ino, tool.ino, "{path} and {other}");
        }
        if attr.kind == FileKind::Directory {
            let listing = view.tree.read_dir(attr.ino).unwrap();
            for child in &listing.children {
                let Some(name) = child.name.to_str() else { continue };
                let path = format!("{path}/{name}");
                assert_eq!(view.attr(&path).unwrap().ino, child.ino, "{path}: in its listing");
                open.push(path);
            }
        }
    }
    assert!(seen.len() > 15);
}

#[test]
fn a_file_that_a_container_changed_has_a_new_number() {
    let Some(sample) = sample() else { return };
    let view = View::of(sample.path());
    let path = "containers/web/rootfs/own";
    let before = view.attr(path).unwrap();
    fs::write(sample.web.diff.join("own"), "other\n").unwrap();
    let mut after = before;
    wait_until("a changed file", || {
        after = view.attr(path).unwrap();
        after.ino != before.ino
    });
    assert_eq!(view.read_node(&after).unwrap(), b"other\n");
    assert_eq!(errno(view.read_node(&before)), Some(Errno::STALE));
    let unchanged = "containers/web/rootfs/etc/passwd";
    let (one, other) = (view.attr(unchanged), View::of(sample.path()).attr(unchanged));
    assert_eq!(one.unwrap().ino, other.unwrap().ino);
}

// Rules 9 and 10.

#[test]
fn archives_and_metadata_are_for_the_mounting_user_alone() {
    let Some(sample) = sample() else { return };
    let view = View::with(sample.path(), Options { owner: (12, 34), ..options() });
    let access = |path: &str| {
        let Attr { permissions, uid, gid, .. } = view.attr(path).unwrap();
        (permissions, uid, gid)
    };
    for path in [
        "images/app:1/save.tar",
        "images/app:1/export.tar",
        "images/app:1/config.json",
        "images/app:1/inspect.json",
        "images/app:1/formats/docker-29.tar",
        "containers/web/export.tar",
        "containers/web/diff.tar",
        "containers/web/config.json",
        ".stratafs/errors",
    ] {
        assert_eq!(access(path), (0o400, 12, 34), "{path}");
    }
    for path in ["images", "images/app:1", "containers/web"] {
        assert_eq!(access(path), (0o555, 12, 34), "{path}");
    }
}

#[test]
fn files_of_an_image_keep_their_owner_and_mode() {
    let Some(sample) = sample() else { return };
    let view = View::with(sample.path(), Options { owner: (12, 34), ..options() });
    let base = view.names("images/app:1/layers")[0].clone();
    for root in ["images/app:1/rootfs".to_owned(), format!("images/app:1/layers/{base}/diff")] {
        for (name, expected) in [
            ("etc/shadow", (0o640, 0, 0)),
            ("usr/bin/tool", (0o4755, 0, 0)),
            ("odd", (0o644, 3_000_000, 1000)),
        ] {
            let attr = view.attr(&format!("{root}/{name}")).unwrap();
            assert_eq!((attr.permissions, attr.uid, attr.gid), expected, "{root}/{name}");
        }
    }
}

/// A system with a Docker whose containers have IDs of their own, and its data root in the directory
/// that the daemon was told to use.
fn remapped_system() -> (tempfile::TempDir, PathBuf) {
    let system = tempfile::tempdir().unwrap();
    fs::create_dir(system.path().join("etc")).unwrap();
    for file in ["subuid", "subgid"] {
        fs::write(system.path().join("etc").join(file), "dockremap:165536:2000\n").unwrap();
    }
    let docker = system.path().join("var/lib/docker");
    let path = docker.join("165536.165536");
    fs::create_dir_all(&path).unwrap();
    let mut root = DataRoot::create(&path);
    let own = |path: &Path, id| std::os::unix::fs::lchown(path, Some(id), Some(id)).unwrap();
    let base = root.layer(None, |dir| {
        own(dir, 165_536);
        for (name, id) in [("root", 165_536), ("user", 166_536), ("last", 167_535)] {
            fs::write(dir.join(name), name).unwrap();
            own(&dir.join(name), id);
        }
        fs::write(dir.join("stranger"), "").unwrap();
    });
    let image = root.image(&[&base], CREATED);
    root.tag("app:1", &image);
    root.container("web", ("app:1", &image), &base, &exited(), |dir| {
        own(dir, 165_536);
        fs::write(dir.join("new"), "").unwrap();
        own(&dir.join("new"), 165_569);
    });
    (system, docker)
}

#[test]
fn owners_are_those_that_the_container_sees() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (_system, docker) = remapped_system();
    for named in [docker.clone(), docker.join("165536.165536")] {
        let view = View::of(&named);
        let rootfs = |name: &str| format!("containers/web/rootfs/{name}");
        for (path, id) in [
            (rootfs("root"), 0),
            (rootfs("user"), 1000),
            (rootfs("last"), 1999),
            (rootfs("new"), 33),
            ("containers/web/diff/new".to_owned(), 33),
            (rootfs("stranger"), 65534),
        ] {
            let attr = view.attr(&path).unwrap();
            assert_eq!((attr.uid, attr.gid), (id, id), "{path}");
        }
        let exported = view.read("containers/web/export.tar");
        let mut archive = tar::Archive::new(&exported[..]);
        let owners = archive.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
            (name, entry.header().uid().unwrap())
        });
        let expected = [("last", 1999), ("new", 33), ("root", 0), ("user", 1000)];
        let expected = expected.map(|(name, id)| (name.to_owned(), id));
        assert_eq!(owners.collect::<Vec<_>>(), expected, "and nobody's files are left out");
        let errors = view.text(".stratafs/errors");
        assert!(errors.contains("not in an archive, as 1 more"), "{errors}");
    }
}

#[test]
fn symlinks_show_their_stored_target() {
    let Some(sample) = sample() else { return };
    let view = View::of(sample.path());
    for (name, target) in
        [("absolute", "/etc/passwd"), ("usr/up", "../../../etc/passwd"), ("bin", "usr/bin")]
    {
        assert_eq!(view.link(&format!("images/app:1/rootfs/{name}")), target);
    }
    let path = "images/app:1/rootfs/bin/tool";
    assert_eq!(errno(view.attr(path)), Some(Errno::NOTDIR), "the daemon itself follows none");
}

#[test]
fn symlinks_stay_inside_with_rebase() {
    let Some(sample) = sample() else { return };
    symlink("/../../../../etc/passwd", sample.web.diff.join("etc/link")).unwrap();
    let options = Options { symlinks: Symlinks::Rebase, ..options() };
    let view = View::with(sample.path(), options);
    for (path, target) in [
        ("images/app:1/rootfs/absolute", "etc/passwd"),
        ("images/app:1/rootfs/usr/up", "../etc/passwd"),
        ("images/app:1/rootfs/bin", "usr/bin"),
        ("containers/web/rootfs/etc/link", "../etc/passwd"),
        ("containers/web/diff/etc/link", "../etc/passwd"),
    ] {
        assert_eq!(view.link(path), target, "{path}");
        assert_eq!(view.attr(path).unwrap().size, target.len() as u64, "{path}");
    }
    let exported =
        |options: Options| View::with(sample.path(), options).read("images/app:1/export.tar");
    let rebased = Options { symlinks: Symlinks::Rebase, ..Options::default() };
    assert!(exported(rebased) == exported(Options::default()), "archives keep what is stored");
}

// Snapshots.

/// A view of the sample in which snapshots can be made.
fn keeping_view(sample: &Sample, state: &Path) -> View {
    let snapshots = Snapshots::open(state, 9).unwrap();
    let keeping = Keeping { snapshots: Arc::new(snapshots), is_freezing: false };
    let View { tree } = View::of(sample.path());
    View { tree: tree.with_snapshots(keeping) }
}

#[test]
fn a_snapshot_is_a_container_that_never_changes() {
    let Some(sample) = sample() else { return };
    let state = tempfile::tempdir().unwrap();
    let view = keeping_view(&sample, state.path());
    let place = view.attr("containers/web/snapshots").unwrap();
    assert_eq!((place.permissions, view.names("containers/web/snapshots").len()), (0o755, 0));
    view.tree.make_dir(place.ino, "one".as_ref()).unwrap();
    let one = "containers/web/snapshots/one";
    let own = ["changes", "diff.tar", "export.tar", "save.tar", "rootfs/own", "config.json"];
    let seen = || own.map(|name| view.read(&format!("{one}/{name}")));
    let before = seen();
    for (name, bytes) in own.iter().zip(&before) {
        assert!(*bytes == view.read(&format!("containers/web/{name}")), "{name}");
    }
    write(&sample.web.diff, "own", b"other\n");
    write(&sample.web.diff, "new", b"new\n");
    fs::remove_file(sample.web.diff.join("etc/shadow")).unwrap();
    thread::sleep(FRESH);
    assert_eq!(view.read("containers/web/rootfs/own"), b"other\n");
    assert!(seen() == before);
    assert_eq!(errno(view.attr(&format!("{one}/rootfs/new"))), Some(Errno::NOENT));
    assert_eq!(view.link(&format!("{one}/image")), "../../../../images/app:1");
}

#[test]
fn two_snapshots_of_a_container_are_compared() {
    let Some(sample) = sample() else { return };
    let state = tempfile::tempdir().unwrap();
    let view = keeping_view(&sample, state.path());
    let place = view.attr("containers/web/snapshots").unwrap().ino;
    view.tree.make_dir(place, "one".as_ref()).unwrap();
    write(&sample.web.diff, "etc/new", b"new\n");
    fs::remove_file(sample.web.diff.join("own")).unwrap();
    view.tree.make_dir(place, "two".as_ref()).unwrap();
    let since = |new: &str, old: &str| {
        view.text(&format!("containers/web/snapshots/{new}/changes-since/{old}"))
    };
    assert_eq!(view.names("containers/web/snapshots/two/changes-since"), ["one"]);
    assert_eq!(since("two", "one"), "C /etc\nA /etc/new\nD /own\n");
    assert_eq!(since("one", "two"), "C /etc\nD /etc/new\nA /own\n");
    assert_eq!(since("one", "one"), "");
}

#[test]
fn only_snapshots_can_be_made_and_removed() {
    let Some(sample) = sample() else { return };
    let state = tempfile::tempdir().unwrap();
    let view = keeping_view(&sample, state.path());
    let ino = |path: &str| view.attr(path).unwrap().ino;
    let make = |path: &str, name: &str| errno(view.tree.make_dir(ino(path), name.as_ref()));
    let remove = |path: &str, name: &str| errno(view.tree.remove_dir(ino(path), name.as_ref()));
    let snapshots = "containers/web/snapshots";
    assert_eq!(make(snapshots, "one"), None);
    assert_eq!(make(snapshots, "one"), Some(Errno::EXIST));
    assert_eq!(make(snapshots, ".one"), Some(Errno::INVAL));
    for path in ["", "images", "containers", "containers/web", "containers/web/rootfs"] {
        assert_eq!(make(path, "new"), Some(Errno::ROFS), "{path}");
    }
    let inside = format!("{snapshots}/one");
    assert_eq!(make(&inside, "new"), Some(Errno::ROFS));
    assert_eq!(remove(&inside, "rootfs"), Some(Errno::ROFS));
    assert_eq!(remove("containers", "web"), Some(Errno::ROFS));
    assert_eq!(remove(snapshots, "two"), Some(Errno::NOENT));
    let gone = ino(&format!("{inside}/rootfs"));
    assert_eq!(remove(snapshots, "one"), None);
    assert_eq!(errno(view.attr(&inside)), Some(Errno::NOENT));
    // Another of the same name is another directory.
    assert_eq!(make(snapshots, "one"), None);
    assert_ne!(ino(&format!("{inside}/rootfs")), gone);
    // Without a directory for them there is none.
    let view = View::of(sample.path());
    assert!(!view.names("containers/web").contains(&"snapshots".to_owned()));
    let made = view.tree.make_dir(view.attr("containers/web").unwrap().ino, "one".as_ref());
    assert_eq!(errno(made), Some(Errno::ROFS));
}

#[test]
fn snapshots_of_a_removed_container_are_told() {
    let Some(sample) = sample() else { return };
    let state = tempfile::tempdir().unwrap();
    let view = keeping_view(&sample, state.path());
    assert_eq!(
        view.names(".stratafs"),
        ["errors", "events", "metrics", "refresh", "snapshots", "stats.json", "version"]
    );
    let place = view.attr("containers/web/snapshots").unwrap().ino;
    view.tree.make_dir(place, "one".as_ref()).unwrap();
    assert_eq!(view.text(".stratafs/snapshots"), "", "its container shows it");
    fs::remove_dir_all(sample.path().join("containers").join(&sample.web.id)).unwrap();
    wait_until("the removal", || view.attr("containers/web").is_err());
    let told: Value = serde_json::from_str(&view.text(".stratafs/snapshots")).unwrap();
    let directory = state.path().canonicalize().unwrap().join(&sample.web.id).join("one");
    assert_eq!(told["container"], *sample.web.id);
    assert_eq!((&told["name"], &told["snapshot"]), (&"web".into(), &"one".into()));
    assert_eq!(told["directory"], *directory.to_str().unwrap());
    assert_eq!(fs::read(directory.join("diff/own")).unwrap(), b"own\n");
}

#[test]
fn snapshots_are_whole_after_a_remount() {
    let Some(sample) = sample() else { return };
    let state = tempfile::tempdir().unwrap();
    let export = "containers/web/snapshots/one/export.tar";
    let before = {
        let view = keeping_view(&sample, state.path());
        let place = view.attr("containers/web/snapshots").unwrap().ino;
        view.tree.make_dir(place, "one".as_ref()).unwrap();
        (view.read(export), view.attr(export).unwrap())
    };
    // What a daemon that was killed left.
    let half = state.path().join(".making/1-1/diff");
    fs::create_dir_all(&half).unwrap();
    let view = keeping_view(&sample, state.path());
    assert!(!half.exists());
    assert_eq!(view.names("containers/web/snapshots"), ["one"]);
    assert!((view.read(export), view.attr(export).unwrap()) == before);
}

// Rules 11 and 13.

#[test]
fn what_is_added_removed_or_retagged_shows_within_a_second() {
    let (dir, mut root, layer) = small();
    let view = View::of(dir.path());
    assert_eq!(view.names("images"), ["app", "app:1"]);
    let ttl = view.attr("images/app:1").unwrap().ttl;
    let shows = |what: &str, is_so: &mut dyn FnMut() -> bool| {
        assert!(wait_until(what, is_so) + ttl < FRESH, "{what}");
    };
    let newer = root.image(&[&layer], LATER);
    root.tag("tools:1", &newer);
    shows("a new image", &mut || view.attr("images/tools:1").is_ok());
    assert!(view.names("images").contains(&"tools".to_owned()));
    root.tag("app:1", &newer);
    let id = format!("{newer}\n");
    shows("another tag", &mut || view.text("images/app:1/id") == id);
    root.untag("tools:1");
    shows("a tag that is gone", &mut || errno(view.attr("images/tools:1")) == Some(Errno::NOENT));
    assert_eq!(view.names("images"), ["app", "app:1"]);
    let web = root.container("web", ("app:1", &newer), &layer, &exited(), |_| {});
    shows("a new container", &mut || view.attr("containers/web").is_ok());
    let config = dir.path().join("containers").join(&web.id).join("config.v2.json");
    let running = fs::read_to_string(&config).unwrap();
    fs::write(&config, running.replace("\"Running\":false", "\"Running\":true")).unwrap();
    shows("another state", &mut || view.text("containers/web/state") == "running\n");
    fs::remove_dir_all(config.parent().unwrap()).unwrap();
    shows("a container that is gone", &mut || view.attr("containers/web").is_err());
    root.untag("app:1");
    fs::remove_file(root.config(&newer)).unwrap();
    let by_id = format!("by-id/images/{}", hex_of(&newer));
    shows("an image that is gone", &mut || errno(view.attr(&by_id)) == Some(Errno::NOENT));
}

/// The directories below `path` that were removed, and that this process has open all the same.
fn open_though_removed(path: &Path) -> Vec<PathBuf> {
    let open = fs::read_dir("/proc/self/fd").unwrap();
    let targets = open.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    let is_removed = |target: &PathBuf| target.to_string_lossy().ends_with(" (deleted)");
    targets.filter(|target| target.starts_with(path) && is_removed(target)).collect()
}

#[test]
fn what_was_removed_is_let_go_and_may_come_back() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut root = DataRoot::create(dir.path());
    let fill = |dir: &Path| {
        write(dir, "file", b"file\n");
        set_mtime(&dir.join("file"), CREATED_SECS, 0);
    };
    let layer = root.layer(None, fill);
    let app = root.image(&[&layer], CREATED);
    root.tag("app:1", &app);
    let view = View::of(dir.path());
    // The kernel remembers what it looked up, for long.
    let file = view.attr("images/app:1/rootfs/file").unwrap();
    let save = view.read("images/app:1/save.tar");
    let web = root.container("web", ("app:1", &app), &layer, &exited(), |_| {});
    wait_until("a container", || view.attr("containers/web/rootfs/file").is_ok());
    view.read("containers/web/export.tar");
    // All is removed, and the same image comes back in other directories, as if it was loaded again.
    root.untag("app:1");
    let config = fs::read(root.config(&app)).unwrap();
    fs::remove_file(root.config(&app)).unwrap();
    fs::remove_dir_all(layer.diff.parent().unwrap()).unwrap();
    fs::remove_dir_all(root.record(&layer.chain_id)).unwrap();
    fs::remove_dir_all(dir.path().join("containers").join(&web.id)).unwrap();
    fs::remove_dir_all(web.diff.parent().unwrap()).unwrap();
    root.layer(None, fill);
    fs::write(root.config(&app), config).unwrap();
    root.tag("app:1", &app);
    wait_until("the image again", || {
        view.try_read("images/app:1/save.tar").is_ok_and(|it| it == save)
    });
    assert_eq!(errno(view.tree.attr(file.ino)), Some(Errno::STALE));
    wait_until("nothing held", || {
        let _ = view.attr("images/app:1");
        open_though_removed(dir.path()).is_empty()
    });
}

#[test]
fn a_namespace_comes_and_goes_within_a_second() {
    let mut made = Made::new();
    let layer = made.layer("default", None, "file", true);
    let manifest = made.manifest("default", "amd64", &[&layer]);
    made.image("default", "docker.io/library/app:1", &manifest);
    made.write();
    let source = Source { kind: None, path: made.path().to_owned() };
    let stores = || store::open_all(&source, &store::Context::default()).unwrap();
    let view = View { tree: Tree::new(stores(), Options::default()) };
    let filter = Filter { namespaces: vec!["default".to_owned()], ..Filter::default() };
    let alone = View { tree: Tree::new(stores(), Options { filter, ..Options::default() }) };
    let archive = view.attr("images/app:1/save.tar").unwrap();
    let bytes = view.read_node(&archive).unwrap();
    let shows = |what: &str, is_so: &mut dyn FnMut() -> bool| {
        let ttl = view.tree.attr(ROOT).unwrap().ttl;
        assert!(wait_until(what, is_so) + ttl < FRESH, "{what}");
    };

    made.image("k8s.io", "docker.io/library/other:1", &manifest);
    // Docker's own containers are in files of its own: nothing of them is here.
    bolt::put(&mut made.meta, &["v1", "moby", "containers", "docker"], "snapshotKey", "");
    made.write();
    shows("a new namespace", &mut || view.names("").contains(&"namespaces".to_owned()));
    assert_eq!(view.names("namespaces"), ["default", "k8s.io"]);
    assert_eq!(view.names("namespaces/k8s.io/images"), ["other", "other:1"]);
    assert!(view.attr("images").is_err(), "as in a new mount");
    let moved = view.attr("namespaces/default/images/app:1/save.tar").unwrap();
    assert_eq!(moved.ino, archive.ino, "the same archive has the same number");
    assert_eq!(view.read_node(&archive).unwrap(), bytes, "what is open stays");
    assert_eq!(alone.names("images"), ["app", "app:1"], "no other was asked for");

    made.meta.clear();
    bolt::put(&mut made.meta, &["v1"], "version", [8]);
    made.image("k8s.io", "docker.io/library/other:1", &manifest);
    made.write();
    shows("a namespace that is gone", &mut || view.attr("images/other:1").is_ok());
    assert_eq!(view.names("images"), ["other", "other:1"]);
    assert!(view.attr("namespaces").is_err());
    wait_until("what another has no more", || alone.names("images").is_empty());
    made.meta.clear();
    bolt::put(&mut made.meta, &["v1"], "version", [8]);
    made.write();
    shows("an empty store", &mut || view.names("images").is_empty());
}

#[test]
fn what_a_container_writes_shows_within_a_second() {
    let Some(sample) = sample() else { return };
    let view = View::of(sample.path());
    let shows = |what: &str, path: &str, is_so: &dyn Fn() -> bool| {
        let ttl = view.attr(path).map_or(Duration::ZERO, |attr| attr.ttl);
        assert!(wait_until(what, is_so) + ttl < FRESH, "{what}");
    };
    let rootfs = "containers/web/rootfs";
    assert_eq!(view.names(&format!("{rootfs}/usr")), ["bin", "up"]);
    assert_eq!(view.names(&format!("{rootfs}/data")), ["kept"]);
    // Directories of layers below, which the container now has itself.
    write(&sample.web.diff, "usr/new", b"new\n");
    write(&sample.web.diff, "data/deep/new", b"deep\n");
    shows("a file in a directory of a layer", rootfs, &|| {
        view.try_read(&format!("{rootfs}/usr/new")).is_ok_and(|bytes| bytes == b"new\n")
    });
    shows("a directory in one", rootfs, &|| {
        view.try_read(&format!("{rootfs}/data/deep/new")).is_ok_and(|bytes| bytes == b"deep\n")
    });
    assert_eq!(view.names(&format!("{rootfs}/usr")), ["bin", "new", "up"]);
    assert_eq!(view.names("containers/web/diff/usr"), ["new"]);
    write(&sample.web.diff, "usr/second", b"second\n");
    shows("a second file", rootfs, &|| view.names("containers/web/diff/usr").len() == 2);
    shows("a second file", rootfs, &|| view.names(&format!("{rootfs}/usr")).len() == 4);
    make_opaque(&sample.web.diff.join("usr"));
    shows("an opaque directory", rootfs, &|| {
        view.names(&format!("{rootfs}/usr")) == ["new", "second"]
    });
    fs::remove_dir_all(sample.web.diff.join("data")).unwrap();
    whiteout(&sample.web.diff.join("data"));
    shows("a deletion", rootfs, &|| view.attr(&format!("{rootfs}/data")).is_err());
    let changes = "C /etc\nC /etc/passwd\nD /etc/shadow\nA /own\nD /data";
    for change in changes.lines() {
        assert!(view.text("containers/web/changes").lines().any(|line| line == change));
    }
}

#[test]
fn reading_refresh_looks_at_the_stores_again() {
    let (dir, mut root, layer) = small();
    let view = View::of(dir.path());
    for round in 0..20 {
        let image = root.image(&[&layer], &format!("2024-01-01T00:00:{round:02}Z"));
        root.tag("app:1", &image);
        view.text(".stratafs/refresh");
        assert_eq!(view.text("images/app:1/id"), format!("{image}\n"), "at once");
    }
}

#[test]
fn what_was_looked_up_stays_what_it_was_or_fails() {
    let Some(mut sample) = sample() else { return };
    let view = View::of(sample.path());
    let save = view.attr("images/app:1/save.tar").unwrap();
    let saved = view.read_node(&save).unwrap();
    let export = view.attr("containers/web/export.tar").unwrap();
    let exported = view.read_node(&export).unwrap();
    // A name that moves, and a file more: what was looked up does not care.
    sample.root.tag("app:1", &sample.untagged);
    fs::write(sample.web.diff.join("added"), "added\n").unwrap();
    thread::sleep(FRESH);
    assert!(view.read_node(&save).unwrap() == saved);
    assert!(view.read_node(&export).unwrap() == exported);
    let now = view.attr("containers/web/export.tar").unwrap();
    assert_ne!(now.ino, export.ino);
    assert!(view.read_node(&now).unwrap().len() > exported.len());
    assert_ne!(view.attr("images/app:1/save.tar").unwrap().ino, save.ino);
    // A file that changed is not there any more as it was.
    let own = view.attr("containers/web/rootfs/own").unwrap();
    fs::write(sample.web.diff.join("own"), "changed\n").unwrap();
    assert_eq!(errno(view.read_node(&own)), Some(Errno::STALE));
}

/// Files in the writable layer of `web` for a test to change, and what becomes of each in an archive
/// that was opened before.
fn changing(sample: &Sample) -> [(&'static str, Vec<u8>); 4] {
    for name in ["grows", "shrinks", "goes", "stays"] {
        fs::write(sample.web.diff.join(name), [b'a'; 5000]).unwrap();
    }
    let cut = [vec![b'b'; 600], vec![0; 4400]].concat();
    [
        ("grows", vec![b'b'; 5000]),
        ("shrinks", cut),
        ("goes", vec![0; 5000]),
        ("stays", vec![b'a'; 5000]),
    ]
}

fn change(sample: &Sample) {
    fs::write(sample.web.diff.join("grows"), [b'b'; 9000]).unwrap();
    fs::write(sample.web.diff.join("shrinks"), [b'b'; 600]).unwrap();
    fs::remove_file(sample.web.diff.join("goes")).unwrap();
}

#[test]
fn an_archive_of_a_container_keeps_its_size_while_files_change() {
    let Some(sample) = sample() else { return };
    let expected = changing(&sample);
    let fails = Options { changed: Changed::Fail, ..options() };
    for (options, pads) in [(Options::default(), true), (fails, false)] {
        changing(&sample);
        let view = View::with(sample.path(), options);
        for name in ["export.tar", "full.tar", "diff.tar"] {
            let archive = view.attr(&format!("containers/web/{name}")).unwrap();
            view.range(archive.ino, 0, 512).unwrap();
            change(&sample);
            match (view.read_node(&archive), pads) {
                (Ok(bytes), true) => {
                    for (file, contents) in &expected {
                        assert!(entry(&bytes, file) == *contents, "{name}: {file}");
                    }
                }
                (Err(err), false) => assert_eq!(err.errno(), Errno::IO, "{name}"),
                (other, _) => panic!("{name}: {other:?}"),
            }
            changing(&sample);
            thread::sleep(FRESH);
        }
    }
}

#[test]
fn a_file_that_changed_while_it_was_read_is_named() {
    let Some(sample) = sample() else { return };
    changing(&sample);
    let view = View::of(sample.path());
    let archive = view.attr("containers/web/export.tar").unwrap();
    let changed = |ino: u64| {
        let names = view.tree.xattrs(ino, ROOT_USER).unwrap();
        let value = view.tree.xattr(ino, OsStr::new("user.stratafs.changed"), ROOT_USER);
        assert_eq!(names.len(), usize::from(value.is_ok()));
        value.map(|value| String::from_utf8(value).unwrap())
    };
    assert_eq!(errno(changed(archive.ino)), Some(Errno::NODATA));
    view.range(archive.ino, 0, 512).unwrap();
    change(&sample);
    view.read_node(&archive).unwrap();
    assert_eq!(changed(archive.ino).unwrap(), "/goes\n/grows\n/shrinks\n");
    let errors = view.text(".stratafs/errors");
    for (name, how) in [("grows", "changed"), ("shrinks", "cut to 600 bytes"), ("goes", "removed")]
    {
        let line = format!("{}/{name}: {how} while it was read", sample.web.diff.display());
        assert!(errors.contains(&line), "{line}: {errors}");
    }
    assert!(!errors.contains("stays"), "{errors}");
    thread::sleep(FRESH);
    let now = view.attr("containers/web/export.tar").unwrap();
    view.read_node(&now).unwrap();
    assert_eq!(errno(changed(now.ino)), Some(Errno::NODATA), "as it is now");
}

#[test]
fn a_container_is_saved_as_an_image_of_it() {
    let Some(mut sample) = sample() else { return };
    let view = View::of(sample.path());
    let saved = view.read("containers/web/save.tar");
    assert!(saved == view.read("containers/web/save.tar"));
    assert!(saved == View::of(sample.path()).read("containers/web/save.tar"), "on every mount");
    let manifest: Value = serde_json::from_slice(&entry(&saved, "manifest.json")).unwrap();
    assert_eq!(manifest[0]["RepoTags"], json!(["web:snapshot"]));
    let layers = manifest[0]["Layers"].as_array().unwrap();
    let config = entry(&saved, manifest[0]["Config"].as_str().unwrap());
    assert_eq!(manifest[0]["Config"], format!("blobs/sha256/{}", hex_of(&digest(&config))));
    let config: Value = serde_json::from_slice(&config).unwrap();
    for (layer, diff_id) in layers.iter().zip(config["rootfs"]["diff_ids"].as_array().unwrap()) {
        assert_eq!(digest(&entry(&saved, layer.as_str().unwrap())), *diff_id);
    }
    assert_eq!(layers.len(), 3, "those of the image, and its own");
    let own = entry(&saved, layers[2].as_str().unwrap());
    assert!(own == view.read("containers/web/diff.tar"));
    assert_eq!(config["container"], sample.web.id);
    assert_eq!(config["config"]["Cmd"], json!(["/bin/sh"]));
    let history = config["history"].as_array().unwrap();
    assert_eq!(history.last().unwrap()["created_by"], "/bin/sh");
    assert_eq!(history.last().unwrap()["created"], config["created"]);

    // Where nothing changed, there is no layer more.
    let image = ("app:1", sample.app.as_str());
    let below = sample.layers[1].clone();
    sample.root.container("Same..", image, &below, &exited(), |_| {});
    let view = View::of(sample.path());
    let saved = view.read("containers/Same../save.tar");
    let manifest: Value = serde_json::from_slice(&entry(&saved, "manifest.json")).unwrap();
    assert_eq!(manifest[0]["RepoTags"], json!(["same:snapshot"]));
    assert_eq!(manifest[0]["Layers"].as_array().unwrap().len(), 2);
    let config = entry(&saved, manifest[0]["Config"].as_str().unwrap());
    let config: Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(config["history"].as_array().unwrap().last().unwrap()["empty_layer"], true);

    // Bytes that go by a digest have it, or are an error.
    let save = view.attr("containers/web/save.tar").unwrap();
    view.range(save.ino, 0, 512).unwrap();
    fs::write(sample.web.diff.join("own"), b"OWN\n").unwrap();
    assert_eq!(errno(view.read_node(&save)), Some(Errno::IO));
}

/// Mounts a volume, a directory and a file into `web`; the directory that the latter two are in.
fn mount_into(sample: &Sample, is_at_home: bool) -> tempfile::TempDir {
    let host = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    write(host.path(), "dir/inner/file", b"bound\n");
    write(host.path(), "dir/volume/hidden", b"hidden\n");
    symlink("/etc", host.path().join("dir/etc")).unwrap();
    write(host.path(), "file", b"a file\n");
    write(sample.path(), "volumes/data/_data/kept", b"kept\n");
    write(sample.path(), "volumes/metadata.db", b"");
    let path = sample.path().join("containers").join(&sample.web.id).join("config.v2.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let source = |name: &str| host.path().join(name);
    config["MountPoints"] = json!({
        "/mnt/bind": { "Type": "bind", "Source": source("dir") },
        "/mnt/bind/volume": { "Type": "volume", "Name": "data", "Driver": "local" },
        "/bin/data": { "Type": "volume", "Name": "data", "Driver": "local", "Source": "" },
        "/etc/file": { "Type": "bind", "Source": source("file") },
        "/link": { "Type": "bind", "Source": source("dir/etc") },
        "/through": { "Type": "bind", "Source": source("dir/etc/ssl") },
        "/other": { "Type": "volume", "Name": "x", "Driver": "nfs-plugin" },
        "/tmp": { "Type": "tmpfs" },
    });
    if is_at_home {
        let own = fs::canonicalize(&path).unwrap().with_file_name("hostname");
        config["HostnamePath"] = json!(own);
    }
    fs::write(&path, config.to_string()).unwrap();
    host
}

#[test]
fn volumes_and_binds_are_in_their_places() {
    let Some(sample) = sample() else { return };
    let host = mount_into(&sample, true);
    let view = View::of(sample.path());
    let full = view.read("containers/web/full.tar");
    for (name, contents) in [
        ("mnt/bind/inner/file", &b"bound\n"[..]),
        ("mnt/bind/volume/kept", b"kept\n"),
        ("usr/bin/data/kept", b"kept\n"),
        ("etc/file", b"a file\n"),
        ("own", b"own\n"),
    ] {
        assert_eq!(entry(&full, name), contents, "{name}");
    }
    let names = tar_names(&full);
    for absent in ["mnt/bind/volume/hidden", "bin/data/kept", "through"] {
        assert!(!names.iter().any(|name| name.trim_end_matches('/') == absent), "{absent}");
    }
    let unique: BTreeSet<&String> = names.iter().collect();
    assert_eq!(unique.len(), names.len(), "each name once");
    assert!(names.iter().all(|name| !name.starts_with("link/")), "no symlink is followed");
    let errors = view.text(".stratafs/errors");
    assert!(errors.contains("web/through: not in full.tar"), "{errors}");

    assert_eq!(view.names("volumes"), ["data"]);
    assert_eq!(view.names("volumes/data"), ["data", "volume.json", "volume.tar"]);
    assert_eq!(view.text("volumes/data/data/kept"), "kept\n");
    assert_eq!(tar_names(&view.read("volumes/data/volume.tar")), ["kept"]);
    assert!(view.text("volumes/data/volume.json").contains(r#""Name": "data""#));
    let mounts = ["bin-data", "etc-file", "link", "mnt-bind", "mnt-bind-volume", "through"];
    assert_eq!(view.names("containers/web/volumes"), mounts);
    assert_eq!(view.link("containers/web/volumes/bin-data"), "../../../volumes/data/data");
    assert_eq!(view.text("containers/web/volumes/mnt-bind/inner/file"), "bound\n");
    assert_eq!(view.text("containers/web/volumes/etc-file"), "a file\n");
    assert!(view.attr("containers/web/volumes/through").is_err());
    fs::write(host.path().join("dir/more"), "more\n").unwrap();
    thread::sleep(FRESH);
    assert_eq!(entry(&view.read("containers/web/full.tar"), "mnt/bind/more"), b"more\n");
}

#[test]
fn a_bind_is_shown_only_where_the_store_is_at_home() {
    let Some(sample) = sample() else { return };
    let _host = mount_into(&sample, false);
    let view = View::of(sample.path());
    assert_eq!(view.names("containers/web/volumes"), ["bin-data", "mnt-bind-volume"]);
    let names = tar_names(&view.read("containers/web/full.tar"));
    assert!(names.contains(&"usr/bin/data/kept".to_owned()), "{names:?}");
    assert!(names.contains(&"mnt/bind/volume/kept".to_owned()), "in directories made for it");
    assert!(!names.iter().any(|name| name.contains("inner") || name == "etc/file"), "{names:?}");
}

/// The names in a tar.
fn tar_names(bytes: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(bytes);
    let entries = archive.entries().unwrap();
    let name = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
        String::from_utf8_lossy(&entry.unwrap().path_bytes()).into_owned()
    };
    entries.map(name).collect()
}

#[test]
fn a_dead_container_or_one_that_is_being_removed_is_busy() {
    let Some(mut sample) = sample() else { return };
    let states = [
        ("dead", json!({ "Dead": true, "StartedAt": CREATED }), "dead\n"),
        ("removing", json!({ "RemovalInProgress": true, "StartedAt": CREATED }), "removing\n"),
    ];
    for (name, state, shown) in states {
        let image = ("app:1", sample.app.as_str());
        sample.root.container(name, image, &sample.layers[1], &state, |_| {});
        let view = View::of(sample.path());
        for archive in ["export.tar", "diff.tar"] {
            let err = view.attr(&format!("containers/{name}/{archive}")).unwrap_err();
            assert_eq!(err.errno(), Errno::BUSY);
            assert!(err.to_string().contains("cannot export container"), "{err}");
        }
        assert_eq!(view.text(&format!("containers/{name}/state")), shown);
        assert_eq!(view.read(&format!("containers/{name}/rootfs/odd")).len(), 1023);
    }
    let Some(store) = golden::store(VFS_20) else { return };
    let view = View::of(store.path());
    assert_eq!(errno(view.attr("containers/c1/export.tar")), Some(Errno::BUSY));
    assert_eq!(view.text("containers/c1/state"), "dead\n");
}

#[test]
fn damage_leaves_a_line_in_errors() {
    let Some(sample) = sample() else { return };
    fs::write(sample.root.config(&sample.untagged), "{}").unwrap();
    fs::write(sample.root.metadata().join("imagedb/content/sha256/junk\x1b[31m"), "").unwrap();
    let view = View::of(sample.path());
    assert_eq!(view.text(".stratafs/errors"), "", "nobody has looked");
    view.names("images");
    let errors = view.text(".stratafs/errors");
    let [line] = &errors.lines().collect::<Vec<_>>()[..] else { panic!("{errors}") };
    assert!(line.ends_with("not an image ID") && line.starts_with("20"), "{line}");
    assert!(!line.contains('\x1b'), "no control character");
    let path = format!("by-id/images/{}/config.json", hex_of(&sample.untagged));
    let err = view.attr(&path).unwrap_err();
    view.tree.report(&err);
    let errors = view.text(".stratafs/errors");
    assert!(errors.lines().last().unwrap().contains(hex_of(&sample.untagged)), "{errors}");
}

#[test]
fn a_changed_byte_of_a_layer_fails_the_read_that_completes_its_file() {
    let Some(sample) = sample() else { return };
    let view = View::of(sample.path());
    let layer = view.names("images/app:1/layers")[0].clone();
    let path = format!("images/app:1/layers/{layer}/layer.tar");
    let (whole, attr) = (view.read(&path), view.attr(&path).unwrap());
    let tool = noise(1, 70_000);
    let start = whole.windows(1000).position(|bytes| bytes == &tool[..1000]).unwrap();
    let end = start + tool.len();
    let mut bad = tool;
    bad[50_000] ^= 1;
    fs::write(sample.layers[0].diff.join("usr/bin/tool"), bad).unwrap();
    for (from, to, is_lost) in [
        (0, start, false),
        (start, start + 40_000, false),
        (start + 40_000, end, true),
        (end - 1, end, true),
        (end - 1, end + 1, true),
        (end, whole.len(), false),
    ] {
        let found = view.range(attr.ino, from as u64, to - from);
        match is_lost {
            true => assert_eq!(errno(found), Some(Errno::IO), "{from} to {to}"),
            false => assert!(found.unwrap() == whole[from..to], "{from} to {to}"),
        }
    }
    assert_eq!(errno(view.try_read("images/app:1/save.tar")), Some(Errno::IO));
    fs::write(sample.layers[0].diff.join("usr/bin/tool"), noise(1, 70_000)).unwrap();
    assert!(view.read(&path) == whole, "mended");
}

#[test]
fn with_verify_always_no_byte_of_a_damaged_layer_is_given_out() {
    let Some(sample) = sample() else { return };
    let record = sample.root.record(&sample.layers[0].chain_id).join("tar-split.json.gz");
    let good = read_record(&record);
    let mut lines = good.clone();
    // The record of another tar, with every checksum of a file right.
    let headers = lines[0]["payload"].as_str().unwrap().replacen('A', "B", 1);
    lines[0]["payload"] = headers.into();
    write_record(&record, &lines);
    let options = || Options { verify: Verify::Always, ..options() };
    let view = View::with(sample.path(), options());
    let layer = view.names("images/app:1/layers")[0].clone();
    let tar = view.attr(&format!("images/app:1/layers/{layer}/layer.tar")).unwrap();
    for offset in [0, 512, 5000, tar.size - 1] {
        assert_eq!(errno(view.range(tar.ino, offset, 1)), Some(Errno::IO), "{offset}");
    }
    assert_eq!(errno(view.try_read("images/app:1/save.tar")), Some(Errno::IO));
    let upper = view.names("images/app:1/layers")[1].clone();
    let upper = view.read(&format!("images/app:1/layers/{upper}/layer.tar"));
    assert!(upper == sample.layers[1].tar, "the other layer is right");
    write_record(&record, &good);
    let view = View::with(sample.path(), options());
    assert!(view.read(&format!("images/app:1/layers/{layer}/layer.tar")) == sample.layers[0].tar);
}

// Rule 14, and the rest.

#[test]
fn an_archive_that_was_read_to_its_end_leaves_a_line_in_events() {
    let Some(sample) = sample() else { return };
    let view = View::of(sample.path());
    let reader = Reader { uid: 1000, pid: 77 };
    let read = |path: &str, part: u64| {
        let attr = view.attr(path).unwrap();
        let mut piece = vec![0; 100_000];
        for offset in (0..attr.size / part).step_by(piece.len()) {
            view.tree.read(attr.ino, offset, &mut piece, reader).unwrap();
        }
        attr.size
    };
    read("images/app:1/save.tar", 2);
    let layer = view.names("images/app:1/layers")[0].clone();
    read(&format!("images/app:1/layers/{layer}/layer.tar"), 1);
    assert_eq!(view.text(".stratafs/events"), "");
    let bytes = [read("images/app/save.tar", 1), read("containers/web/export.tar", 1)];
    let events = view.text(".stratafs/events");
    let events: Vec<Value> =
        events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.len(), 2, "{events:?}");
    for (event, (action, id, name, bytes)) in events.iter().zip([
        ("image save", &sample.app, "app:1", bytes[0]),
        ("container export", &sample.web.id, "web", bytes[1]),
    ]) {
        let mut event = event.clone();
        let time = event["time"].take();
        assert!(time.as_str().unwrap().starts_with("20"), "{time}");
        let expected = json!({
            "time": null, "action": action, "id": id, "name": name,
            "bytes": bytes, "uid": 1000, "pid": 77,
        });
        assert_eq!(event, expected);
    }
}

#[test]
fn save_and_export_follow_the_flavour() {
    let Some(sample) = sample() else { return };
    let options = Options { flavour: Some(Flavour::Docker110), ..options() };
    let (plain, typed) = (View::of(sample.path()), View::with(sample.path(), options));
    for (view, other, format) in [(&plain, &typed, "docker-29"), (&typed, &plain, "docker-1.10")] {
        let saved = view.read("images/app:1/save.tar");
        assert!(saved == view.read(&format!("images/app:1/formats/{format}.tar")));
        assert!(saved == other.read(&format!("images/app:1/formats/{format}.tar")));
    }
    let mode = |tar: &[u8]| {
        let mut archive = tar::Archive::new(tar);
        let mut entries = archive.entries().unwrap().map(Result::unwrap);
        let entry = entries.find(|entry| &*entry.path_bytes() == b"etc/passwd").unwrap();
        let user = entry.header().username().unwrap().unwrap().to_owned();
        (entry.header().mode().unwrap(), user)
    };
    let exported = |view: &View| mode(&view.read("containers/web/export.tar"));
    assert_eq!(exported(&plain), (0o644, String::new()));
    assert_eq!(exported(&typed), (0o100_644, "root".to_owned()));
}

#[test]
fn a_podman_store_exports_as_podman_does() {
    let Some(podman) = golden::store(golden::PODMAN) else { return };
    let options = Options { flavour: Some(Flavour::Docker110), ..options() };
    let (plain, typed) = (View::of(podman.path()), View::with(podman.path(), options));
    let export = plain.read("containers/prun/export.tar");
    assert!(export == typed.read("containers/prun/export.tar"));
    let noted = b"SCHILY.xattr.user.added=two";
    assert!(export.windows(noted.len()).any(|bytes| bytes == noted));
    let readme = plain.text("images/localhost/papp:1.0/README");
    assert!(readme.contains("podman save localhost/papp:1.0"), "{readme}");
}

#[test]
fn the_state_of_a_podman_container_is_what_its_engine_last_noted() {
    let Some(podman) = golden::copy(golden::PODMAN) else { return };
    let states = || {
        let view = View::of(podman.path());
        let state = |name: &str| view.text(&format!("containers/{name}/state"));
        ["pbuild", "prun", "pcreated"].map(state)
    };
    assert_eq!(states(), ["exited\n", "running\n", "created\n"]);
    for damage in ["no database", "SQLite format 3\0"] {
        fs::write(podman.path().join("db.sql"), damage).unwrap();
        assert_eq!(states(), ["exited\n"; 3]);
    }
}

#[test]
fn a_containerd_store_saves_its_blobs() {
    let mut made = Made::new();
    let (below, top, manifest) = handmade_containerd::plain(&mut made);
    let view = handmade_containerd::view(&made);
    assert_eq!(view.names("images"), ["app", "app:1"]);
    assert_eq!(view.text("images/app:1/id"), format!("{}\n", manifest.digest));
    assert_eq!(view.names("images/app:1/rootfs"), ["below", "top"]);
    assert_eq!(view.text("images/app:1/rootfs/top"), "top");
    let saved = handmade_containerd::members(&view.read("images/app:1/save.tar"));
    for blob in [&below.blob, &top.blob, &manifest] {
        let body = &saved[&format!("blobs/sha256/{}", blob.digest.hex())];
        assert_eq!(Digest::of(body), blob.digest);
    }
    assert_eq!(saved.len(), 2 + 4 + 3, "{:?}", saved.keys());
    let index: serde_json::Value = serde_json::from_slice(&saved["index.json"]).unwrap();
    let name = &index["manifests"][0]["annotations"]["io.containerd.image.name"];
    assert_eq!(name, "docker.io/library/app:1");
    let export = handmade_containerd::members(&view.read("images/app:1/export.tar"));
    assert_eq!(export.keys().collect::<Vec<_>>(), ["below", "top"]);
}

#[test]
fn a_layer_of_which_only_the_files_are_left_is_packed_anew() {
    let mut made = Made::new();
    let layer = made.layer("default", None, "file", true);
    let manifest = made.manifest("default", "amd64", &[&layer]);
    made.image("default", "docker.io/library/app:1", &manifest);
    fs::remove_file(made.blobs().join(layer.blob.digest.hex())).unwrap();
    let view = handmade_containerd::view(&made);
    let layers = "images/app:1/layers";
    let layer = format!("{layers}/{}", view.names(layers)[0]);
    let rebuilt = view.read(&format!("{layer}/layer.tar"));
    assert_eq!(handmade_containerd::members(&rebuilt)["file"], b"file");
    let described = view.text(&format!("{layer}/layer.json"));
    assert!(described.contains("\"exact\": false"), "{described}");
    let saved = handmade_containerd::members(&view.read("images/app:1/save.tar"));
    let digest = Digest::of(&rebuilt);
    assert_eq!(saved[&format!("blobs/sha256/{}", digest.hex())], rebuilt);
    fs::remove_dir_all(made.path().join("io.containerd.snapshotter.v1.overlayfs/snapshots/1"))
        .unwrap();
    let view = View::of(made.path());
    assert_eq!(view.attr("images/app:1/save.tar").unwrap_err().errno(), Errno::IO);
    let mut made = Made::new();
    let layer = made.layer("default", None, "file", false);
    let manifest = made.manifest("default", "amd64", &[&layer]);
    made.image("default", "docker.io/library/app:1", &manifest);
    fs::remove_file(made.blobs().join(layer.blob.digest.hex())).unwrap();
    made.write();
    let view = View::of(made.path());
    assert_eq!(view.attr("images/app:1/save.tar").unwrap_err().errno(), Errno::IO);
}

#[test]
fn locked_databases_are_read_as_they_are() {
    let mut made = Made::new();
    let (.., manifest) = handmade_containerd::plain(&mut made);
    made.write();
    let database = fs::File::options().read(true).write(true).open(made.meta_db()).unwrap();
    rustix::fs::flock(&database, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let view = View::of(made.path());
    assert_eq!(view.names("images"), ["app", "app:1"]);
    made.image("default", "docker.io/library/new:1", &manifest);
    fs::write(made.meta_db(), bolt::file(&made.meta, 4096)).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(view.names("images"), ["app", "app:1", "new", "new:1"]);
    // A state that is half written hides nothing for good.
    let whole = fs::read(made.meta_db()).unwrap();
    fs::write(made.meta_db(), &whole[..whole.len() / 2]).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    let listed = view.attr("images").and_then(|attr| view.tree.read_dir(attr.ino));
    assert_eq!(listed.unwrap_err().errno(), Errno::IO);
    fs::write(made.meta_db(), whole).unwrap();
    assert_eq!(view.names("images"), ["app", "app:1", "new", "new:1"]);
}

#[test]
fn names_of_podman_are_shortened_as_docker_s_are() {
    let Some(podman) = golden::copy(golden::PODMAN) else { return };
    let list = podman.path().join("overlay-images/images.json");
    let names = fs::read_to_string(&list).unwrap();
    fs::write(list, names.replace("localhost/base:1", "docker.io/library/base:1")).unwrap();
    let view = View::of(podman.path());
    assert_eq!(view.names("images")[..2], ["base", "base:1"]);
    let id = view.text("images/base:1/id");
    for spelling in ["docker.io/library/base:1", "library/base:1", "docker.io/base:1"] {
        assert_eq!(view.text(&format!("images/{spelling}/id")), id, "{spelling}");
    }
    let saved = view.read("images/base:1/save.tar");
    let named = br#""RepoTags":["docker.io/library/base:1"]"#;
    assert!(saved.windows(named.len()).any(|bytes| bytes == named));
    assert_eq!(view.link("containers/pbuild/image"), "../../images/base:1");
}

#[test]
fn holes_hold_only_zeros_and_everything_else_is_data() {
    let Some(sample) = sample() else { return };
    let view = View::of(sample.path());
    let layer = view.names("images/app:1/layers")[0].clone();
    for path in [
        "images/app:1/rootfs/sparse",
        "images/app:1/rootfs/odd",
        "images/app:1/save.tar",
        "containers/web/export.tar",
        &format!("images/app:1/layers/{layer}/layer.tar"),
    ] {
        let bytes = view.read(path);
        let attr = view.attr(path).unwrap();
        let (mut at, mut holes) = (0, 0);
        while at < attr.size {
            let hole = view.tree.seek(attr.ino, at, Seek::Hole).unwrap();
            let data = view.tree.seek(attr.ino, hole, Seek::Data).unwrap_or(attr.size);
            let zeros = &bytes[hole as usize..data as usize];
            assert!(zeros.iter().all(|&byte| byte == 0), "{path}");
            holes += zeros.len();
            at = data;
        }
        assert!(holes == 0 || !path.ends_with("odd"), "{path}");
        let past = view.tree.seek(attr.ino, attr.size, Seek::Data);
        assert_eq!(errno(past), Some(Errno::NXIO));
    }
}

#[test]
fn xattrs_of_files_are_shown_and_trusted_ones_to_root_alone() {
    let Some(sample) = sample() else { return };
    let set = |name: &str, value: &[u8]| {
        let path = sample.web.diff.join("own");
        rustix::fs::lsetxattr(path, name, value, rustix::fs::XattrFlags::empty()).unwrap();
    };
    set("user.note", b"a\0b");
    set("trusted.secret", b"s");
    set("trusted.overlay.origin", b"o");
    let view = View::of(sample.path());
    let own = view.attr("containers/web/rootfs/own").unwrap().ino;
    let user = Reader { uid: 1000, pid: 1 };
    assert_eq!(view.tree.xattrs(own, ROOT_USER).unwrap(), ["trusted.secret", "user.note"]);
    assert_eq!(view.tree.xattrs(own, user).unwrap(), ["user.note"]);
    assert_eq!(view.tree.xattr(own, "user.note".as_ref(), user).unwrap(), b"a\0b");
    let refused = view.tree.xattr(own, "trusted.secret".as_ref(), user);
    assert_eq!(errno(refused), Some(Errno::NODATA));
    let save = view.attr("images/app:1/save.tar").unwrap().ino;
    assert_eq!(view.tree.xattrs(save, ROOT_USER).unwrap(), Vec::<std::ffi::OsString>::new());
}

/// A checksum by the name of its xattr.
fn sum(view: &View, path: &str, name: &str) -> stratafs::error::Result<String> {
    let sum = Sum::of_xattr(format!("user.stratafs.{name}").as_ref()).unwrap();
    let value = view.tree.sum(view.attr(path)?.ino, sum, &Cancel::default())?;
    Ok(String::from_utf8(value).unwrap())
}

#[test]
fn checksums_are_xattrs_that_nobody_lists() {
    let Some(sample) = sample() else { return };
    let set = |name: &str, value: &[u8]| {
        let path = sample.web.diff.join("own");
        rustix::fs::lsetxattr(path, name, value, rustix::fs::XattrFlags::empty()).unwrap();
    };
    set("user.stratafs.sha256", b"a lie");
    let view = View::of(sample.path());
    let files = ["images/app:1/save.tar", "images/app:1/config.json", "containers/web/rootfs/own"];
    for path in files {
        let hex = digest(&view.read(path)).strip_prefix("sha256:").unwrap().to_owned();
        assert_eq!(sum(&view, path, "sha256").unwrap(), hex, "{path}");
        let ino = view.attr(path).unwrap().ino;
        assert_eq!(view.tree.xattrs(ino, ROOT_USER).unwrap(), Vec::<OsString>::new(), "{path}");
        let known = view.tree.known_sum(ino, Sum::Sha256).unwrap();
        assert_eq!(known, Some(hex.into_bytes()), "worked out once");
    }
    let save = Recipe::inline(view.read(files[0]));
    for (name, version) in [
        ("tarsum", Version::V1),
        ("tarsum.v0", Version::V0),
        ("tarsum.v1", Version::V1),
        ("tarsum.dev", Version::Dev),
    ] {
        let expected = tarsum(&save, version, &Cancel::default()).unwrap();
        assert_eq!(sum(&view, files[0], name).unwrap(), expected);
    }
    for (path, name) in [
        ("images", "sha256"),
        ("images/app:1/config.json", "tarsum"),
        ("images/app:1/rootfs", "sha256"),
        ("images/app:1/save.tar", "buildhash"),
    ] {
        assert_eq!(errno(sum(&view, path, name)), Some(Errno::NODATA), "{path} {name}");
    }
}

#[test]
fn files_and_directories_have_the_hashes_that_builders_give_them() {
    let Some(sample) = sample() else { return };
    let view = View::of(sample.path());
    // The same files on disk, as a context of their own.
    let disk = |dir: &Path, path: &str| {
        let root = Arc::new(Root::open(dir, Access::Live).unwrap());
        let stack =
            Stack::new(vec![LayerDir { root, identity: 0, marks: Marks::Complete, owners: None }]);
        let files = Files::Merged(&stack);
        let tar = context::context(&files, &Rules::default()).unwrap();
        let context = Context::new(Arc::new(tar)).unwrap();
        let built = context.hash_path(path.as_bytes(), Version::V1, &Cancel::default());
        let found = files.find(path.as_bytes()).unwrap();
        let content = content::hash(&files, path.as_bytes(), &found, &Cancel::default());
        (built.unwrap(), content.unwrap().to_string())
    };
    let lowest = &sample.layers[0].diff;
    let layer = view.names("images/app:1/layers").remove(0);
    let top = format!("images/app:1/layers/{layer}/diff");
    for path in ["", "etc", "etc/passwd", "usr", "sparse", "odd"] {
        let (built, content) = disk(lowest, path);
        assert_eq!(sum(&view, &format!("{top}/{path}"), "contenthash").unwrap(), content, "{path}");
        assert_eq!(sum(&view, &format!("{top}/{path}"), "buildhash").unwrap(), built, "{path}");
    }
    for path in ["etc", "etc/passwd"] {
        let (built, content) = disk(lowest, path);
        let rootfs = format!("images/app:1/rootfs/{path}");
        assert_eq!(sum(&view, &rootfs, "buildhash").unwrap(), built, "{path}");
        assert_eq!(sum(&view, &rootfs, "contenthash").unwrap(), content, "{path}");
    }
    // A deletion counts in diff/, as the file that it is there.
    let all = sum(&view, "containers/web/diff", "buildhash").unwrap();
    fs::remove_file(sample.web.diff.join("etc/shadow")).unwrap();
    fs::write(sample.web.diff.join("etc/.wh.shadow"), "").unwrap();
    fs::set_permissions(sample.web.diff.join("etc/.wh.shadow"), fs::Permissions::from_mode(0o600))
        .unwrap();
    assert_eq!(disk(&sample.web.diff, "").0, all);
    // Which of its names is meant, an xattr can't tell.
    let linked = sum(&view, "images/app:1/rootfs/usr/bin/tool", "buildhash");
    assert_eq!(errno(linked), Some(Errno::OPNOTSUPP));
    assert!(sum(&view, "images/app:1/rootfs/usr/bin/tool", "contenthash").is_ok());
    // What a container writes counts within a second.
    let before = sum(&view, "containers/web/rootfs/etc", "buildhash").unwrap();
    write(&sample.web.diff, "etc/new", b"new");
    wait_until("what was written", || {
        sum(&view, "containers/web/rootfs/etc", "buildhash").unwrap() != before
    });
}

#[test]
fn df_shows_what_the_layers_take() {
    let Some(sample) = sample() else { return };
    let view = View::of(sample.path());
    let sizes = sample.layers.iter().map(|layer| {
        let size = fs::read_to_string(sample.root.record(&layer.chain_id).join("size")).unwrap();
        size.parse::<u64>().unwrap()
    });
    let space = view.tree.space().unwrap();
    assert_eq!(space.used, sizes.sum::<u64>());
    assert!(space.total > space.used);
}

#[test]
fn a_number_that_nobody_was_told_is_stale() {
    let Some(sample) = sample() else { return };
    let View { tree } = View::of(sample.path());
    assert_eq!(errno(tree.attr(123_456)), Some(Errno::STALE));
    let images = tree.lookup(ROOT, "images".as_ref()).unwrap();
    tree.forget(images.ino, 1);
    assert_eq!(errno(tree.attr(images.ino)), Some(Errno::STALE));
    assert!(tree.attr(ROOT).is_ok());
    let Sample { dir, .. } = sample;
    drop(dir);
    assert!(tree.lookup(ROOT, "images".as_ref()).is_ok());
    let images = tree.lookup(ROOT, "images".as_ref()).unwrap();
    assert_eq!(errno(tree.read_dir(images.ino)), Some(Errno::NOENT), "the store is gone");
}

// Layouts and archives.

/// An archive as `docker save` of 20.10 writes it: an image of that name with these layers.
fn saved_archive(name: &str, layers: &[&[u8]]) -> Vec<u8> {
    let config = archives::config("amd64", layers);
    Tar::of(&archives::saved(&config, layers, &json!([name]))).finish()
}

#[test]
fn an_archive_is_shown_like_a_store() {
    let layers = [
        archives::layer(&[("etc/old", b"old"), ("etc/kept", b"kept")]),
        archives::layer(&[("etc/.wh.old", b""), ("etc/new", b"new")]),
    ];
    let layers = layers.each_ref().map(Vec::as_slice);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (archive, layout) = (dir.path().join("saved.tar"), dir.path().join("app"));
    fs::write(&archive, saved_archive("app:1", &layers)).unwrap();
    let mut made = Layout::default();
    let image = made.image(&archives::config("amd64", &layers), &layers);
    archives::write_files(&layout, &made.finish(&[archives::named(image, "1")]));
    let saved: Vec<Vec<u8>> = [archive, layout]
        .iter()
        .map(|path| {
            let view = View::of(path);
            assert_eq!(view.names("images"), ["app", "app:1"]);
            assert_eq!(view.names("containers"), [""; 0]);
            assert_eq!(view.names("images/app:1/rootfs/etc"), ["kept", "new"]);
            assert_eq!(view.text("images/app:1/rootfs/etc/new"), "new");
            let top = view.names("images/app:1/layers").remove(1);
            let changes = view.text(&format!("images/app:1/layers/{top}/changes"));
            assert_eq!(changes, "C /etc\nA /etc/new\nD /etc/old\n");
            for (index, name) in view.names("images/app:1/layers").iter().enumerate() {
                let tar = view.read(&format!("images/app:1/layers/{name}/layer.tar"));
                assert_eq!(tar, layers[index]);
            }
            assert_eq!(errno(view.attr("images/app:2")), Some(Errno::NOENT));
            view.read("images/app:1/save.tar")
        })
        .collect();
    assert_eq!(saved[0], saved[1]);
}

#[test]
fn an_archive_that_is_replaced_shows_what_is_in_it_now() {
    let (one, two) = (archives::layer(&[("file", b"one")]), archives::layer(&[("file", b"two")]));
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().join("app.tar");
    let put = |bytes: Vec<u8>| {
        fs::write(dir.path().join("new"), bytes).unwrap();
        fs::rename(dir.path().join("new"), &path).unwrap();
    };
    put(saved_archive("app:1", &[&one]));
    let view = View::of(&path);
    let open: Vec<Attr> = ["images/app:1/rootfs/file", "images/app:1/save.tar"]
        .map(|path| view.attr(path).unwrap())
        .into();
    assert_eq!(view.text("images/app:1/rootfs/file"), "one");
    let saved = view.read("images/app:1/save.tar");

    put(saved_archive("app:1", &[&two]));
    for attr in &open {
        assert_eq!(errno(view.read_node(attr)), Some(Errno::STALE));
    }
    wait_until("the new image", || {
        view.try_read("images/app:1/rootfs/file").is_ok_and(|text| text == b"two")
    });
    assert_ne!(view.read("images/app:1/save.tar"), saved);

    // The same image in another file is as good as the first, but what was open stays stale.
    put([saved_archive("app:1", &[&one]), vec![0; 512]].concat());
    wait_until("the old image again", || {
        view.try_read("images/app:1/rootfs/file").is_ok_and(|text| text == b"one")
    });
    assert_eq!(view.read("images/app:1/save.tar"), saved);
    for attr in &open {
        assert_eq!(errno(view.read_node(attr)), Some(Errno::STALE));
    }
}

#[test]
fn a_layer_that_an_archive_lacks_takes_no_other_along() {
    let layers = [b"one", b"two"].map(|text| archives::layer(&[("file", text)]));
    let mut made = Layout::default();
    let describe = |tar: &Vec<u8>| archives::descriptor(archives::OCI_LAYER, tar);
    let mut foreign = describe(&layers[0]);
    foreign["urls"] = json!(["https://example.com/layer"]);
    let config = archives::config("amd64", &[&layers[0], &layers[1]]);
    made.put(&layers[1]);
    let entries = [
        archives::named(made.image_of(&config, &[foreign, describe(&layers[1])]), "foreign"),
        archives::named(made.image_of(&config, &[describe(&layers[0]), describe(&layers[1])]), "x"),
    ];
    // Two manifests of one config are one image: each gets a layout of its own.
    for (entry, expected) in entries.iter().zip([Errno::OPNOTSUPP, Errno::IO]) {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let files = Layout { files: made.files.clone() }.finish(std::slice::from_ref(entry));
        archives::write_files(&dir.path().join("app"), &files);
        let view = View::of(&dir.path().join("app"));
        let image = format!("images/{}", view.names("images").pop().unwrap());
        let names = view.names(&format!("{image}/layers"));
        let tar =
            |index: usize| view.try_read(&format!("{image}/layers/{}/layer.tar", names[index]));
        assert_eq!(errno(tar(0)), Some(expected));
        assert_eq!(tar(1).unwrap(), layers[1]);
        assert_eq!(errno(view.attr(&format!("{image}/rootfs"))), Some(expected));
        assert!(view.read(&format!("{image}/config.json")) == config);
    }
}

//! OCI layouts and image archives: those of real engines, odd ones and broken ones.
#![allow(
    clippy::too_many_lines,
    clippy::type_complexity,
    reason = "tables of odd and broken cases"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;
use serde_json::{Value, json};
use stratafs::archive::Flavour;
use stratafs::backing::Bytes;
use stratafs::digest::ImageId;
use stratafs::store::{self, Context, Image, Kind, LayerSource, LayerStore, Source};
use stratafs::tree::{Options, Tree};
use tempfile::TempDir;

use crate::golden::{assert_same, at_its_time, save_of};
use crate::stores::archives::{
    self, Layout, Tar, blob, config, descriptor, layer, named, on, saved, saved_by_1_9, write_files,
};
use crate::stores::golden;
use crate::stores::handmade::{digest, gzip, hex_of};
use crate::stores::view::View;

fn open(kind: Option<Kind>, path: &Path) -> Arc<dyn LayerStore> {
    let source = Source { kind, path: path.to_owned() };
    store::open(&source, &Context::default())
        .unwrap_or_else(|err| panic!("{}: {err}", path.display()))
}

/// All bytes, read in pieces of an odd size.
fn read(bytes: &dyn Bytes) -> stratafs::error::Result<Vec<u8>> {
    let mut all = Vec::new();
    let mut piece = vec![0; 7_777];
    while (all.len() as u64) < bytes.len() {
        let count = bytes.read_at(all.len() as u64, &mut piece)?;
        all.extend_from_slice(&piece[..count]);
    }
    Ok(all)
}

/// What is stored of each layer.
fn blobs(image: &Image) -> Vec<stratafs::error::Result<Vec<u8>>> {
    let stored = image.layers.iter().map(|layer| match &layer.source {
        LayerSource::Blob(blob) => read(&*blob.bytes),
        other => panic!("{other:?}"),
    });
    stored.collect()
}

/// Checks each digest of a store that nothing is wrong with; returns what each name stands for.
fn check(store: &dyn LayerStore) -> BTreeMap<String, String> {
    let catalog = store.catalog().unwrap();
    let damaged: Vec<String> = catalog.damaged.iter().map(ToString::to_string).collect();
    assert_eq!(damaged, [""; 0]);
    for id in catalog.images.keys() {
        let image = store.image(*id).unwrap();
        check_image(store, &image);
        for (_, id) in &image.platforms {
            check_image(store, &store.image(*id).unwrap());
        }
    }
    assert!(store.usage().unwrap().total > 0);
    catalog.references.iter().map(|(name, id)| (name.clone(), id.to_string())).collect()
}

fn check_image(store: &dyn LayerStore, image: &Image) {
    assert_eq!(digest(&image.config), image.id.to_string());
    assert_eq!(store.config(image.id).unwrap(), image.config);
    let config: Value = serde_json::from_slice(&image.config).unwrap();
    assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), image.layers.len());
    for (layer, stored) in image.layers.iter().zip(blobs(image)) {
        let (stored, LayerSource::Blob(named)) = (stored.unwrap(), &layer.source) else {
            panic!("{layer:?}")
        };
        assert_eq!(digest(&stored), named.digest.to_string(), "{}", layer.directory);
        assert_eq!(layer.size, stored.len() as u64);
        if !stored.starts_with(&[0x1f, 0x8b]) && !stored.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            assert_eq!(digest(&stored), layer.diff_id.to_string());
        }
    }
    if let Some(target) = &image.target {
        let blob = store.blob(target.digest).unwrap().expect("the target");
        assert_eq!(digest(&read(&*blob.bytes).unwrap()), target.digest.to_string());
        assert_eq!(blob.bytes.len(), target.size);
    }
}

/// The names and IDs that `manifest.json` of an archive gives, as another reader reads it.
fn listed(archive: &Path) -> BTreeMap<String, String> {
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let bytes = fs::read(archive).unwrap();
    for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut body = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut body).unwrap();
        files.insert(name, body);
    }
    let items: Vec<Value> = serde_json::from_slice(&files["manifest.json"]).unwrap();
    let mut names = BTreeMap::new();
    for item in &items {
        let id = digest(&files[item["Config"].as_str().unwrap()]);
        for tag in item["RepoTags"].as_array().into_iter().flatten() {
            let tag = tag.as_str().unwrap();
            let tag = tag.strip_prefix("docker.io/").unwrap_or(tag);
            names.insert(tag.strip_prefix("library/").unwrap_or(tag).to_owned(), id.clone());
        }
    }
    names
}

#[test]
fn archives_of_dockerd_hold_what_they_say() {
    for name in ["s1", "s2", "c1s", "v25a", "v28a", "v29a", "v29b"] {
        let Some(folder) = golden::folder() else { return };
        let path = folder.join(format!("{name}.tar"));
        let names = listed(&path);
        assert!(!names.is_empty());
        for kind in [None, Some(Kind::DockerArchive)] {
            let store = open(kind, &path);
            assert_eq!(store.info().kind, "docker-archive");
            assert_eq!(check(&*store), names, "{name}");
        }
        if name.starts_with('v') {
            let store = open(Some(Kind::OciArchive), &path);
            assert_eq!(check(&*store), names, "{name}");
            let dir = golden::unpack(&path);
            for kind in [None, Some(Kind::Oci)] {
                let store = open(kind, dir.path());
                assert_eq!(store.info().kind, "oci");
                assert_eq!(check(&*store), names, "{name}");
            }
        }
    }
}

#[test]
fn archives_of_containerd_and_podman_hold_what_they_say() {
    for fixture in ["docker-29-containerd", "containerd-2.3", golden::PODMAN] {
        let Some(expected) = golden::expected(fixture) else { return };
        let mut paths: Vec<PathBuf> = Vec::new();
        for dir in [expected.path().to_owned(), expected.path().join("tars")] {
            let entries = fs::read_dir(dir).into_iter().flatten();
            paths.extend(entries.map(|entry| entry.unwrap().path()));
        }
        paths.retain(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.starts_with("save-") || name.starts_with("ctr-")
        });
        assert!(paths.len() >= 2, "{fixture}");
        for path in paths {
            let name = path.file_name().unwrap().to_str().unwrap();
            let store = open(None, &path);
            let catalog = store.catalog().unwrap();
            assert!(!catalog.images.is_empty(), "{name}");
            match name {
                // Docker never had the layer, so it left the config out as well.
                "save-zstd.tar" => {
                    let id = catalog.references["127.0.0.1:5555/team/zstd:1"];
                    assert_eq!(store.image(id).unwrap_err().errno(), Errno::IO);
                    assert_eq!(catalog.damaged.len(), 1);
                }
                "save-oci-archive.tar" => {
                    assert_eq!(store.info().kind, "oci-archive");
                    assert_eq!(
                        check(&*store).into_keys().collect::<Vec<_>>(),
                        ["localhost/papp:1.0"]
                    );
                }
                _ => {
                    let listed = listed(&path);
                    let names = check(&*store);
                    assert!(
                        listed.iter().all(|name| names.contains_key(name.0)),
                        "{name}: {names:?}"
                    );
                    assert_eq!(check(&*open(Some(Kind::DockerArchive), &path)), listed, "{name}");
                }
            }
        }
    }
}

/// What an image's manifest says of the platforms of a saved index.
#[test]
fn a_saved_index_shows_the_platforms_that_are_there() {
    let Some(expected) = golden::expected("docker-29-containerd") else { return };
    for (name, platforms) in [
        ("save-mplat.tar", &["linux-amd64", "linux-arm64"][..]),
        ("save-mpload.tar", &["linux-amd64", "linux-arm64"]),
        ("save-attestload.tar", &["linux-amd64"]),
        ("save-partial.tar", &["linux-amd64"]),
        ("save-mplat-arm64.tar", &[]),
    ] {
        let store = open(None, &expected.path().join("tars").join(name));
        let catalog = store.catalog().unwrap();
        assert_eq!(catalog.images.len(), 1, "{name}");
        let image = store.image(*catalog.images.keys().next().unwrap()).unwrap();
        let found: Vec<&str> = image.platforms.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(found, platforms, "{name}");
    }
}

/// A directory with the file `app.tar` in it.
fn archive(bytes: &[u8]) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().join("app.tar");
    fs::write(&path, bytes).unwrap();
    (dir, path)
}

fn tar_of(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    Tar::of(files).finish()
}

/// Two small layers.
fn layers() -> [Vec<u8>; 2] {
    [layer(&[("etc/os", b"one\n"), ("bin/sh", &[7; 3000])]), layer(&[("etc/os", b"two\n")])]
}

/// An archive that is odd, and what is in it: names, and how many images.
type Odd = (&'static str, Vec<u8>, &'static [&'static str], usize);

/// Archives as Docker 1.10 to 24, Podman and their like may write them.
fn odd_saved() -> Vec<Odd> {
    let [one, two] = layers();
    let both: &[&[u8]] = &[&one, &two];
    let config_of_both = config("amd64", both);
    let app = json!(["app:1"]);
    let plain = saved(&config_of_both, both, &app);
    let with = |edit: &dyn Fn(&mut Vec<(String, Vec<u8>)>)| {
        let mut files = plain.clone();
        edit(&mut files);
        tar_of(&files)
    };
    let manifest = |edit: &dyn Fn(&mut Value)| {
        with(&|files| {
            let last = files.last_mut().unwrap();
            let mut manifest: Value = serde_json::from_slice(&last.1).unwrap();
            edit(&mut manifest);
            last.1 = serde_json::to_vec_pretty(&manifest).unwrap();
        })
    };
    let linked = |kind| {
        let (first, second) = (&plain[1].0, "f".repeat(64) + "/layer.tar");
        let repeated = config("amd64", &[&one, &one]);
        let mut tar = Tar::default();
        tar.file("c.json", &repeated);
        tar.file(first, &one);
        let target = match kind {
            tar::EntryType::Link => first.clone(),
            _ => format!("../{first}"),
        };
        tar.link(kind, &second, &target);
        let manifest = json!([{ "Config": "c.json", "RepoTags": app, "Layers": [first, second] }]);
        tar.file("manifest.json", manifest.to_string().as_bytes());
        tar.finish()
    };
    vec![
        ("nothing odd", tar_of(&plain), &["app:1"], 1),
        (
            "an indented list with more fields",
            manifest(&|list| list[0]["More"] = json!([1])),
            &["app:1"],
            1,
        ),
        ("no tags", manifest(&|list| list[0]["RepoTags"] = Value::Null), &[], 1),
        (
            "many tags, in full and shortened",
            manifest(&|list| {
                list[0]["RepoTags"] =
                    json!(["docker.io/library/app:1", "app:2", "localhost/x/app:3"]);
            }),
            &["app:1", "app:2", "localhost/x/app:3"],
            1,
        ),
        ("members in another order", with(&|files| files.reverse()), &["app:1"], 1),
        (
            "names that begin with ./",
            with(&|files| {
                files.iter_mut().for_each(|file| file.0.insert_str(0, "./"));
            }),
            &["app:1"],
            1,
        ),
        (
            "absolute names",
            with(&|files| {
                files.iter_mut().for_each(|file| file.0.insert(0, '/'));
            }),
            &["app:1"],
            1,
        ),
        ("a layer that is a symlink", linked(tar::EntryType::Symlink), &["app:1"], 1),
        ("a layer that is a hard link", linked(tar::EntryType::Link), &["app:1"], 1),
        (
            "layers of different forms",
            with(&|files| {
                files[1].1 = gzip(&one);
                files[2].1 = archives::zstd(&two);
            }),
            &["app:1"],
            1,
        ),
        (
            "names longer than a header has room for, GNU's way",
            {
                let mut files = plain.clone();
                let long = format!("{}/config.json", "long".repeat(40));
                files[0].0.clone_from(&long);
                let last = files.last_mut().unwrap();
                let mut manifest: Value = serde_json::from_slice(&last.1).unwrap();
                manifest[0]["Config"] = long.into();
                last.1 = manifest.to_string().into_bytes();
                tar_of(&files)
            },
            &["app:1"],
            1,
        ),
        (
            "names in extended records",
            {
                let mut tar = Tar::default();
                for (index, (name, bytes)) in plain.iter().enumerate() {
                    tar.extended(
                        &[("path", name), ("comment", "é")],
                        &format!("member-{index}"),
                        bytes,
                    );
                }
                tar.finish()
            },
            &["app:1"],
            1,
        ),
        (
            "a global header with a remark",
            {
                let mut tar = Tar::default();
                tar.entry(
                    tar::EntryType::XGlobalHeader,
                    "pax_global_header",
                    "",
                    b"17 comment=hello\n",
                );
                plain.iter().for_each(|(name, bytes)| tar.file(name, bytes));
                tar.finish()
            },
            &["app:1"],
            1,
        ),
        (
            "an older member of the same name",
            with(&|files| {
                files.insert(0, ("manifest.json".to_owned(), b"{".to_vec()));
            }),
            &["app:1"],
            1,
        ),
        ("much padding", [tar_of(&plain), vec![0; 20_480]].concat(), &["app:1"], 1),
        ("no end", Tar::of(&plain).0, &["app:1"], 1),
        (
            "a list that is null",
            tar_of(&[("manifest.json".to_owned(), b"null\n".to_vec())]),
            &[],
            0,
        ),
        (
            "two images that share a layer",
            {
                let mut files = plain.clone();
                let other = config("arm64", &[&one]);
                files.push(("other.json".to_owned(), other));
                let at = files.iter().position(|file| file.0 == "manifest.json").unwrap();
                let mut manifest: Value = serde_json::from_slice(&files[at].1).unwrap();
                let parent = digest(&config_of_both);
                let item = json!({
                    "Config": "other.json", "RepoTags": ["other:1"], "Layers": [files[1].0], "Parent": parent,
                });
                manifest.as_array_mut().unwrap().push(item);
                files[at].1 = manifest.to_string().into_bytes();
                tar_of(&files)
            },
            &["app:1", "other:1"],
            2,
        ),
        (
            "an image of Docker 1.9",
            tar_of(&saved_by_1_9(both, Some(r#"{"app":{"1":"TOP"}}"#))),
            &["app:1"],
            2,
        ),
        ("an image of Docker 1.9 without a name", tar_of(&saved_by_1_9(both, None)), &[], 2),
    ]
}

/// Archives of OCI layouts.
fn odd_layouts() -> Vec<Odd> {
    let [one, two] = layers();
    let both: &[&[u8]] = &[&one, &two];
    let config_of_both = config("amd64", both);
    let made = |make: &dyn Fn(&mut Layout) -> Vec<Value>| {
        let mut layout = Layout::default();
        let entries = make(&mut layout);
        tar_of(&layout.finish(&entries))
    };
    let by_platform = |layout: &mut Layout, names: &[&str]| -> Vec<Value> {
        let of = |name: &&str| on(layout.image(&config(name, both), both), name);
        names.iter().map(of).collect()
    };
    vec![
        (
            "a layout and no manifest.json",
            made(&|layout| vec![named(layout.image(&config_of_both, both), "ghcr.io/org/app:1")]),
            &["ghcr.io/org/app:1"],
            1,
        ),
        (
            "a name that is but a tag",
            made(&|layout| vec![named(layout.image(&config_of_both, both), "v1.0_x")]),
            &["app:v1.0_x"],
            1,
        ),
        (
            "a name without a tag",
            made(&|layout| {
                vec![named(layout.image(&config_of_both, both), "docker.io/library/web")]
            }),
            &["web:latest"],
            1,
        ),
        (
            "containerd's name beside the tag",
            made(&|layout| {
                let mut entry = named(layout.image(&config_of_both, both), "9");
                entry["annotations"]["io.containerd.image.name"] = "docker.io/library/web:9".into();
                vec![entry]
            }),
            &["web:9"],
            1,
        ),
        (
            "no names",
            made(&|layout| {
                vec![
                    layout.image(&config_of_both, both),
                    layout.image(&config("arm64", both), both),
                ]
            }),
            &[],
            2,
        ),
        (
            "two names of one image",
            made(&|layout| {
                let image = layout.image(&config_of_both, both);
                vec![named(image.clone(), "1"), named(image, "2")]
            }),
            &["app:1", "app:2"],
            1,
        ),
        (
            "an index of platforms",
            made(&|layout| {
                let entries = by_platform(layout, &["arm64", "amd64", "s390x"]);
                vec![named(layout.index(&entries), "1")]
            }),
            &["app:1"],
            1,
        ),
        (
            "an index in an index in an index",
            made(&|layout| {
                let inner = by_platform(layout, &["riscv64", "s390x"]);
                let inner = layout.index(&inner);
                let middle = layout.index(&[inner]);
                vec![named(layout.index(&[middle]), "1")]
            }),
            &["app:1"],
            1,
        ),
        (
            "names within an index",
            made(&|layout| {
                let a = named(layout.image(&config("amd64", &[&one]), &[&one]), "a");
                let b = named(layout.image(&config("amd64", &[&two]), &[&two]), "b");
                vec![layout.index(&[a, b])]
            }),
            &["app:a", "app:b"],
            2,
        ),
        (
            "platforms beside each other under one name",
            made(&|layout| {
                let entries = by_platform(layout, &["arm64", "amd64"]);
                entries.into_iter().map(|entry| named(entry, "1")).collect()
            }),
            &["app:1"],
            1,
        ),
        (
            "an index whose platforms are mostly elsewhere",
            made(&|layout| {
                let mut entries = by_platform(layout, &["amd64"]);
                entries.push(on(descriptor(archives::OCI_MANIFEST, b"elsewhere"), "arm64"));
                vec![named(layout.index(&entries), "1")]
            }),
            &["app:1"],
            1,
        ),
        (
            "an attestation",
            made(&|layout| {
                let image = on(layout.image(&config_of_both, both), "amd64");
                let attestation = layout.image(&config("unknown", both), both);
                let mut attestation = on(attestation, "unknown");
                attestation["platform"]["os"] = "unknown".into();
                vec![named(layout.index(&[image, attestation]), "1")]
            }),
            &["app:1"],
            1,
        ),
        (
            "gzip and zstd",
            made(&|layout| {
                vec![named(
                    layout.image(&config_of_both, &[&gzip(&one), &archives::zstd(&two)]),
                    "1",
                )]
            }),
            &["app:1"],
            1,
        ),
        (
            "a layer twice",
            made(&|layout| {
                let repeated = config("amd64", &[&one, &two, &one]);
                vec![named(layout.image(&repeated, &[&one, &two, &one]), "1")]
            }),
            &["app:1"],
            1,
        ),
        (
            "an image without layers",
            made(&|layout| vec![named(layout.image(&config("amd64", &[]), &[]), "1")]),
            &["app:1"],
            1,
        ),
        (
            "Docker's media types",
            made(&|layout| {
                layout.put(&config_of_both);
                both.iter().for_each(|layer| layout.put(layer));
                let docker = "application/vnd.docker";
                let layer =
                    |tar: &&[u8]| descriptor(&format!("{docker}.image.rootfs.diff.tar"), tar);
                let manifest = json!({
                    "schemaVersion": 2,
                    "config": descriptor(&format!("{docker}.container.image.v1+json"), &config_of_both),
                    "layers": both.iter().map(layer).collect::<Vec<_>>(),
                });
                let manifest = manifest.to_string().into_bytes();
                layout.put(&manifest);
                vec![named(
                    descriptor(&format!("{docker}.distribution.manifest.v2+json"), &manifest),
                    "1",
                )]
            }),
            &["app:1"],
            1,
        ),
        (
            "directories that are symlinks",
            {
                let mut layout = Layout::default();
                let entries = [named(layout.image(&config_of_both, both), "1")];
                let mut tar = Tar::default();
                tar.link(tar::EntryType::Symlink, "blobs", "data/./blobs");
                tar.link(tar::EntryType::Symlink, "data/blobs", "/store");
                for (name, bytes) in layout.finish(&entries) {
                    tar.file(&name.replace("blobs/", "store/"), &bytes);
                }
                tar.finish()
            },
            &["app:1"],
            1,
        ),
        (
            "indexes that unfold without end",
            made(&|layout| {
                let mut entry = on(layout.image(&config_of_both, both), "amd64");
                for _ in 0..7 {
                    entry = layout.index(&vec![entry; 1000]);
                }
                vec![named(entry, "1")]
            }),
            &["app:1"],
            1,
        ),
        ("nothing", made(&|_| Vec::new()), &[], 0),
    ]
}

/// Reads every layer and the archive of each image through the tree. What can be read must be right;
/// what can't is returned.
fn read_all(store: Arc<dyn LayerStore>) -> Vec<Errno> {
    let view = View { tree: Tree::new(vec![store], Options::default()) };
    let mut wrong = Vec::new();
    for id in view.names("by-id/images") {
        let image = format!("by-id/images/{id}");
        let layers = view.attr(&format!("{image}/layers"));
        let layers = layers.and_then(|attr| view.tree.read_dir(attr.ino));
        let layers = match &layers {
            Ok(listing) => &listing.children[..],
            Err(err) => {
                wrong.push(err.errno());
                continue;
            }
        };
        for layer in layers {
            let layer = layer.name.to_str().unwrap();
            match view.try_read(&format!("{image}/layers/{layer}/layer.tar")) {
                Ok(tar) => assert!(hex_of(&digest(&tar)).starts_with(&layer[3..]), "{layer}"),
                Err(err) => wrong.push(err.errno()),
            }
        }
        if !layers.is_empty() {
            for file in ["save.tar", "export.tar"] {
                wrong
                    .extend(view.try_read(&format!("{image}/{file}")).err().map(|err| err.errno()));
            }
        }
    }
    wrong
}

#[test]
fn an_archive_may_be_compressed_as_a_whole() {
    let [one, two] = layers();
    let saved = tar_of(&saved(&config("amd64", &[&one, &two]), &[&one, &two], &json!(["app:1"])));
    let by_1_9 = tar_of(&saved_by_1_9(&[&gzip(&one), &two], Some(r#"{"app":{"1":"TOP"}}"#)));
    for tar in [saved, by_1_9] {
        let plain = archive(&tar);
        let ids: Vec<ImageId> =
            open(None, &plain.1).catalog().unwrap().images.into_keys().collect();
        for form in archives::forms(&tar) {
            let (_dir, path) = archive(&form);
            let store = open(None, &path);
            let catalog = store.catalog().unwrap();
            assert_eq!(catalog.images.keys().copied().collect::<Vec<_>>(), ids);
            assert!(catalog.references.contains_key("app:1"));
            assert_eq!(read_all(store), []);
            // Half of it is as good as none.
            fs::write(&path, &form[..form.len() / 2]).unwrap();
            let source = Source { kind: None, path };
            if let Ok(store) = store::open(&source, &Context::default()) {
                assert!(!survey(&*store).0.is_empty());
            }
        }
    }
}

#[test]
fn odd_archives_are_read_as_they_are_meant() {
    let odd: Vec<Odd> = odd_saved().into_iter().chain(odd_layouts()).collect();
    assert!(odd.len() > 30);
    for (what, bytes, names, images) in odd {
        let (_dir, path) = archive(&bytes);
        let store = open(None, &path);
        let found = match what {
            // Nothing tells the digest of a compressed layer there.
            "layers of different forms" => {
                let catalog = store.catalog().unwrap();
                let image = store.image(catalog.references["app:1"]).unwrap();
                let [one, two] = layers();
                let stored: Vec<Vec<u8>> = blobs(&image).into_iter().map(Result::unwrap).collect();
                assert_eq!(stored, [gzip(&one), archives::zstd(&two)]);
                catalog.references.keys().cloned().collect()
            }
            _ => check(&*store).into_keys().collect::<Vec<_>>(),
        };
        assert_eq!(found, names, "{what}");
        let catalog = store.catalog().unwrap();
        assert_eq!(catalog.images.len(), images, "{what}");
        for name in names {
            let image = store.image(catalog.references[*name]).unwrap();
            assert!(image.references.iter().any(|known| known == name), "{what}");
        }
        assert_eq!(read_all(store), [], "{what}");
    }
}

#[test]
fn of_several_platforms_that_of_the_host_has_the_name() {
    let [one, _] = layers();
    let other = if std::env::consts::ARCH == "x86_64" { "arm64" } else { "amd64" };
    let host = if other == "arm64" { "amd64" } else { "arm64" };
    let mut layout = Layout::default();
    let entries = [other, host, "s390x"].map(|name| {
        let image = layout.image(&config(name, &[&one]), &[&one]);
        // One of them has to be asked for its platform.
        if name == "s390x" { image } else { on(image, name) }
    });
    let target = layout.index(&entries);
    let files = layout.finish(&[named(target.clone(), "1")]);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    write_files(&dir.path().join("web.oci"), &files);
    let store = open(None, &dir.path().join("web.oci"));
    let catalog = store.catalog().unwrap();
    let image = store.image(catalog.references["web:1"]).unwrap();
    assert_eq!(image.id.to_string(), digest(&config(host, &[&one])));
    let mut expected = [other, host, "s390x"].map(|name| {
        (format!("linux-{name}"), ImageId::parse(&digest(&config(name, &[&one]))).unwrap())
    });
    expected.sort();
    assert_eq!(image.platforms, expected);
    assert_eq!(image.target.unwrap().digest.to_string(), target["digest"]);
    assert_eq!(catalog.images.len(), 1);
    check(&*store);
}

/// Looks at all of a store; returns what is wrong with it, and says whether `good:1` is right.
fn survey(store: &dyn LayerStore) -> (Vec<Errno>, bool) {
    let catalog = store.catalog().unwrap();
    let mut wrong: Vec<Errno> = catalog.damaged.iter().map(|err| err.errno()).collect();
    let ids: BTreeSet<ImageId> = catalog.images.keys().copied().collect();
    for id in &ids {
        match store.image(*id) {
            Ok(image) => {
                wrong.extend(
                    blobs(&image).into_iter().filter_map(Result::err).map(|err| err.errno()),
                );
            }
            Err(err) => wrong.push(err.errno()),
        }
    }
    let good = catalog.references.get("good:1").and_then(|id| store.image(*id).ok());
    let is_good = good.is_some_and(|image| {
        check_image(store, &image);
        true
    });
    (wrong, is_good)
}

/// What is wrong with an archive: how it is made so, and what becomes of it.
type Broken = (&'static str, Vec<u8>, Becomes);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Becomes {
    /// It can't be mounted.
    Refused,
    /// Something of it is marked, and the other image in it is right.
    Marked,
    /// Something of it is marked, and that is all there is.
    Lost,
}
use Becomes::{Lost, Marked, Refused};

/// The files of an archive with `app:1`, which is to be broken, and `good:1`.
fn pair() -> Vec<(String, Vec<u8>)> {
    let [one, two] = layers();
    let mut files = saved(&config("amd64", &[&one, &two]), &[&one, &two], &json!(["app:1"]));
    let good = layer(&[("good", b"good")]);
    let at = files.len() - 1;
    let mut manifest: Value = serde_json::from_slice(&files[at].1).unwrap();
    manifest.as_array_mut().unwrap().push(json!({
        "Config": "good.json", "RepoTags": ["good:1"], "Layers": ["good.tar"],
    }));
    files[at].1 = manifest.to_string().into_bytes();
    files.push(("good.json".to_owned(), config("arm64", &[&good])));
    files.push(("good.tar".to_owned(), good));
    files
}

fn broken_saved() -> Vec<Broken> {
    let plain = pair();
    let with = |edit: &dyn Fn(&mut Vec<(String, Vec<u8>)>)| {
        let mut files = plain.clone();
        edit(&mut files);
        tar_of(&files)
    };
    let list = |json: &str| with(&|files| files[3].1 = json.as_bytes().to_vec());
    let item = |edit: &dyn Fn(&mut Value)| {
        with(&|files| {
            let mut manifest: Value = serde_json::from_slice(&files[3].1).unwrap();
            edit(&mut manifest);
            files[3].1 = manifest.to_string().into_bytes();
        })
    };
    // The first layer, replaced by something else.
    let planted = |kind, target: &str| {
        let mut tar = Tar::default();
        for (index, (name, bytes)) in plain.iter().enumerate() {
            match index {
                1 => tar.link(kind, name, target),
                _ => tar.file(name, bytes),
            }
        }
        tar.finish()
    };
    let id = digest(&plain[0].1);
    let good = digest(&plain[4].1);
    vec![
        ("a list that is no JSON", list("[{"), Lost),
        ("a list that is an object", list("{}"), Lost),
        ("a list that is very deep", list(&"[".repeat(50_000)), Lost),
        ("a list of very many", list(&format!("[{}{{}}]", "{},".repeat(20_000))), Lost),
        ("an image without a config", item(&|list| list[0] = json!({ "Layers": [] })), Marked),
        ("an image that is a number", item(&|list| list[0] = 7.into()), Marked),
        ("a config of another type", item(&|list| list[0]["Config"] = json!({})), Marked),
        ("a config that is missing", with(&|files| drop(files.remove(0))), Marked),
        ("a config that is nowhere", item(&|list| list[0]["Config"] = "nowhere".into()), Marked),
        ("a config that is no JSON", with(&|files| files[0].1 = b"{".to_vec()), Marked),
        ("a config without layers", with(&|files| files[0].1 = b"{}".to_vec()), Marked),
        ("a config of 5 MiB", with(&|files| files[0].1.resize(5 << 20, b' ')), Marked),
        (
            "a config that is a layer",
            item(&|list| list[0]["Config"] = list[0]["Layers"][0].clone()),
            Marked,
        ),
        (
            "a layer less",
            item(&|list| drop(list[0]["Layers"].as_array_mut().unwrap().pop())),
            Marked,
        ),
        ("no layers", item(&|list| list[0]["Layers"] = Value::Null), Marked),
        ("a thousand layers", item(&|list| list[0]["Layers"] = json!(vec!["x"; 1000])), Marked),
        ("a layer that is missing", with(&|files| drop(files.remove(1))), Marked),
        ("a layer that is another", with(&|files| files[1].1[700] ^= 1), Marked),
        (
            "a layer that is cut short in gzip",
            with(&|files| {
                let layer = gzip(&files[1].1);
                files[1].1 = layer[..layer.len() - 20].to_vec();
            }),
            Marked,
        ),
        (
            "a layer outside",
            item(&|list| list[0]["Layers"][0] = "../../../../etc/passwd".into()),
            Marked,
        ),
        ("a symlink to the outside", planted(tar::EntryType::Symlink, "/etc/passwd"), Marked),
        (
            "a symlink up to the outside",
            planted(tar::EntryType::Symlink, "../../../../../etc/passwd"),
            Marked,
        ),
        ("a symlink to itself", planted(tar::EntryType::Symlink, "layer.tar"), Marked),
        ("a hard link to nothing", planted(tar::EntryType::Link, "nothing"), Marked),
        ("a device as a layer", planted(tar::EntryType::Char, ""), Marked),
        ("a directory as a layer", planted(tar::EntryType::Directory, ""), Marked),
        (
            "names that are none",
            item(&|list| {
                list[0]["RepoTags"] =
                    json!(["../../x", "A/b:1", "a b", "", "x:y:z", "\n", "x@sha256:1"]);
            }),
            Marked,
        ),
        (
            "a name of two images",
            item(&|list| {
                list[0]["RepoTags"] = json!(["good:1"]);
            }),
            Marked,
        ),
        (
            "parents that form a loop",
            item(&|list| {
                list[0]["Parent"] = good.as_str().into();
                list[1]["Parent"] = id.as_str().into();
            }),
            Marked,
        ),
        ("a parent that is missing", item(&|list| list[0]["Parent"] = digest(b"x").into()), Marked),
        ("a parent that is no ID", item(&|list| list[0]["Parent"] = "../x".into()), Marked),
    ]
}

fn broken_tars() -> Vec<Broken> {
    let plain = pair();
    let good_first = || {
        let mut files = plain.clone();
        files.rotate_left(3);
        files
    };
    let whole = tar_of(&good_first());
    // The list, then what is good, then the rest: the damage is behind it.
    let cut = |tar: &[u8], left: usize| tar[..tar.len() - left].to_vec();
    let patched = |edit: &dyn Fn(&mut [u8])| {
        let mut tar = Tar::of(&good_first()[..3]);
        let at = tar.0.len();
        tar.file("x", b"");
        edit(&mut tar.0[at..]);
        good_first()[3..].iter().for_each(|(name, bytes)| tar.file(name, bytes));
        tar.finish()
    };
    let sized = |size: &[u8; 12]| {
        patched(&|block| {
            block[124..136].copy_from_slice(size);
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        })
    };
    vec![
        ("an empty file", Vec::new(), Refused),
        ("zeros", vec![0; 10_240], Refused),
        (
            "noise",
            (0..50_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect(),
            Refused,
        ),
        ("a layer and nothing else", layers()[0].clone(), Refused),
        ("cut in the last layer", cut(&whole, 3000), Marked),
        ("cut in a header", cut(&whole, whole.len() % 512 + 5 * 512 + 100), Marked),
        ("cut in the list", whole[..700].to_vec(), Refused),
        ("a wrong checksum", patched(&|block| block[0] ^= 1), Marked),
        ("a size beyond the end", sized(b"77777777777\0"), Marked),
        (
            "a size of half an address space",
            sized(&[0x80, 0, 0, 0, 0x7f, 255, 255, 255, 255, 255, 255, 255]),
            Marked,
        ),
        ("a negative size", sized(&[255; 12]), Marked),
        ("a size that is no number", sized(b"99999999999\0"), Marked),
        (
            "an extended header of 2 MiB",
            {
                let mut tar = Tar::of(&good_first()[..3]);
                tar.entry(tar::EntryType::XHeader, "x", "", &vec![b'1'; 2 << 20]);
                tar.finish()
            },
            Marked,
        ),
        (
            "an extended header of no records",
            {
                let mut tar = Tar::of(&good_first()[..3]);
                tar.entry(tar::EntryType::XHeader, "x", "", b"99999999999999999999 a=b\n");
                tar.finish()
            },
            Marked,
        ),
        (
            "a global header that names entries",
            {
                let mut tar = Tar::of(&good_first()[..3]);
                tar.entry(tar::EntryType::XGlobalHeader, "x", "", b"15 path=good.t\n");
                tar.finish()
            },
            Marked,
        ),
    ]
}

fn broken_by_1_9() -> Vec<Broken> {
    let [one, two] = layers();
    let plain = saved_by_1_9(&[&one, &two], Some(r#"{"good":{"1":"TOP"}}"#));
    let with = |edit: &dyn Fn(&mut Vec<(String, Vec<u8>)>)| {
        let mut files = plain.clone();
        edit(&mut files);
        tar_of(&files)
    };
    // Beside the good ones, an image with this description.
    let more = |json: &str| {
        with(&|files| {
            let id = hex_of(&digest(b"more")).to_owned();
            files.push((format!("{id}/json"), json.replace("SELF", &id).into_bytes()));
            files.push((format!("{id}/layer.tar"), one.clone()));
        })
    };
    vec![
        ("a description that is no JSON", more("{"), Marked),
        (
            "a parent that is missing",
            more(&json!({ "parent": "a".repeat(64) }).to_string()),
            Marked,
        ),
        ("a parent that is itself", more(r#"{"parent":"SELF"}"#), Marked),
        ("a parent that is no ID", more(r#"{"parent":"../x"}"#), Marked),
        ("a time that is none", more(r#"{"created":"yesterday"}"#), Marked),
        ("a layer that is missing", with(&|files| drop(files.remove(2))), Lost),
        (
            "names of nothing",
            with(&|files| {
                files[6].1 = br#"{"x":{"1":"../../x"}}"#.to_vec();
            }),
            Lost,
        ),
        (
            "names that are none",
            with(&|files| {
                let text = String::from_utf8(files[6].1.clone()).unwrap();
                files[6].1 = text.replace(r#""1":"#, r#""1":"x","a b":"#).into_bytes();
            }),
            Lost,
        ),
        ("a list of names that is no JSON", with(&|files| files[6].1 = b"[".to_vec()), Lost),
    ]
}

/// The files of a layout with `good:1` and what `make` adds.
fn with_good(make: &dyn Fn(&mut Layout) -> Vec<Value>) -> Vec<(String, Vec<u8>)> {
    let good = layer(&[("good", b"good")]);
    let mut layout = Layout::default();
    let image = layout.image(&config("arm64", &[&good]), &[&good]);
    let mut entries = make(&mut layout);
    entries.push(named(image, "docker.io/library/good:1"));
    layout.finish(&entries)
}

fn broken_layouts() -> Vec<Broken> {
    let [one, two] = layers();
    let app = config("amd64", &[&one, &two]);
    let made = |make: &dyn Fn(&mut Layout) -> Vec<Value>| tar_of(&with_good(make));
    let image = |edit: &dyn Fn(&mut Layout, &mut Value)| {
        made(&|layout| {
            let mut entry = named(layout.image(&app, &[&one, &two]), "1");
            edit(layout, &mut entry);
            vec![entry]
        })
    };
    let without = |name: String| image(&|layout, _| layout.files.retain(|file| file.0 != name));
    let replaced = |name: String, bytes: &[u8]| {
        image(&|layout, _| {
            let found = layout.files.iter_mut().find(|file| file.0 == name).unwrap();
            found.1 = bytes.to_vec();
        })
    };
    let document = |bytes: Vec<u8>| {
        made(&|layout| {
            layout.put(&bytes);
            vec![named(descriptor(archives::OCI_MANIFEST, &bytes), "1")]
        })
    };
    let top = |name: &str, bytes: &[u8]| {
        let mut files = with_good(&|_| Vec::new());
        files.iter_mut().find(|file| file.0 == name).unwrap().1 = bytes.to_vec();
        tar_of(&files)
    };
    let small = descriptor("x", b"{}");
    vec![
        ("an index that is no JSON", top("index.json", b"{\"manifests\":["), Lost),
        (
            "an index that is a manifest",
            top("index.json", json!({ "config": small }).to_string().as_bytes()),
            Lost,
        ),
        ("a layout of version 2", top("oci-layout", br#"{"imageLayoutVersion":"2.0.0"}"#), Lost),
        ("a layout that says nothing", top("oci-layout", b"{}"), Lost),
        (
            "a digest that is a path",
            image(&|_, entry| entry["digest"] = "sha256:../../../../etc/passwd".into()),
            Marked,
        ),
        (
            "a digest of another kind",
            image(&|_, entry| entry["digest"] = format!("sha512:{}", "0".repeat(128)).into()),
            Marked,
        ),
        ("a manifest of another size", image(&|_, entry| entry["size"] = 7.into()), Marked),
        ("a negative size", image(&|_, entry| entry["size"] = (-1).into()), Marked),
        (
            "a manifest that is missing",
            made(&|_| vec![named(descriptor("x", b"nothing"), "1")]),
            Marked,
        ),
        (
            "a manifest that is another",
            image(&|layout, entry| {
                let name = format!("blobs/sha256/{}", hex_of(entry["digest"].as_str().unwrap()));
                layout.files.iter_mut().find(|file| file.0 == name).unwrap().1[20] ^= 1;
            }),
            Marked,
        ),
        ("a config that is missing", without(blob(&app)), Marked),
        ("a config that is another", replaced(blob(&app), b"{}"), Marked),
        ("a layer that is missing", without(blob(&one)), Marked),
        ("a layer of another size", replaced(blob(&one), b"short"), Marked),
        (
            "a document of both kinds",
            document(json!({ "config": small, "manifests": [] }).to_string().into()),
            Marked,
        ),
        ("a document of neither kind", document(b"{}".to_vec()), Marked),
        (
            "a document of Docker's schema 1",
            document(br#"{"schemaVersion":1,"fsLayers":[]}"#.to_vec()),
            Marked,
        ),
        (
            "an artifact",
            document(json!({ "config": small, "layers": [] }).to_string().into()),
            Marked,
        ),
        (
            "a name that is none",
            image(&|_, entry| *entry = named(entry.clone(), "a/../b:1")),
            Marked,
        ),
        (
            "a platform that is a path",
            image(&|layout, entry| {
                let inner = on(entry.clone(), "../../etc");
                *entry = named(layout.index(&[inner.clone(), inner]), "a/../b:1");
            }),
            Marked,
        ),
        (
            "indexes that are too deep",
            made(&|layout| {
                let mut entry = layout.image(&app, &[&one, &two]);
                for _ in 0..20 {
                    entry = layout.index(&[entry]);
                }
                vec![named(entry, "1")]
            }),
            Marked,
        ),
        (
            "foreign layers that are elsewhere",
            made(&|layout| {
                let mut foreign = descriptor(archives::OCI_LAYER, &one);
                foreign["urls"] = json!(["https://example.com/layer"]);
                layout.put(&two);
                let layers = [foreign, descriptor(archives::OCI_LAYER, &two)];
                vec![named(layout.image_of(&app, &layers), "1")]
            }),
            Marked,
        ),
    ]
}

#[test]
fn a_broken_archive_says_so_and_leaves_its_neighbours_right() {
    let all = [broken_saved(), broken_tars(), broken_by_1_9(), broken_layouts()];
    let all: Vec<Broken> = all.into_iter().flatten().collect();
    assert!(all.len() > 60);
    for (what, bytes, becomes) in all {
        let (_dir, path) = archive(&bytes);
        let start = std::time::Instant::now();
        let source = Source { kind: None, path };
        let found = match store::open(&source, &Context::default()) {
            Err(_) => Refused,
            Ok(store) => {
                let (mut wrong, is_good) = survey(&*store);
                wrong.extend(read_all(store));
                assert!(!wrong.is_empty(), "{what}: nothing is wrong");
                let known = [Errno::IO, Errno::OPNOTSUPP];
                assert!(wrong.iter().all(|errno| known.contains(errno)), "{what}: {wrong:?}");
                if is_good { Marked } else { Lost }
            }
        };
        assert_eq!(found, becomes, "{what}");
        assert!(start.elapsed().as_secs() < 5, "{what}: {:?}", start.elapsed());
    }
}

#[test]
fn a_foreign_layer_is_refused_and_the_others_are_right() {
    let [one, two] = layers();
    let mut files = saved(&config("amd64", &[&one, &two]), &[&one, &two], &json!(["app:1"]));
    files.remove(1);
    let mut manifest: Value = serde_json::from_slice(&files[2].1).unwrap();
    manifest[0]["LayerSources"][digest(&one)] = json!({
        "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "size": 7,
        "digest": digest(b"x"), "urls": ["https://example.com/layer"],
    });
    files[2].1 = manifest.to_string().into_bytes();
    let (_dir, path) = archive(&tar_of(&files));
    let store = open(None, &path);
    let image = store.image(store.catalog().unwrap().references["app:1"]).unwrap();
    let stored = blobs(&image);
    let err = stored[0].as_ref().unwrap_err();
    assert_eq!(err.errno(), Errno::OPNOTSUPP);
    assert!(err.to_string().contains("https://example.com/layer"), "{err}");
    assert_eq!(stored[1].as_ref().unwrap(), &two);
}

#[test]
fn an_archive_that_is_replaced_is_read_anew() {
    let [one, two] = layers();
    let of = |layer: &[u8], tag: &str| {
        tar_of(&saved(&config("amd64", &[layer]), &[layer], &json!([tag])))
    };
    let (dir, path) = archive(&of(&one, "app:1"));
    let store = open(None, &path);
    let before = store.generation().unwrap();
    let image = store.image(store.catalog().unwrap().references["app:1"]).unwrap();
    let LayerSource::Blob(old) = &image.layers[0].source else { panic!() };
    assert_eq!(read(&*old.bytes).unwrap(), one);

    let other = dir.path().join("other");
    fs::write(&other, of(&two, "app:2")).unwrap();
    fs::rename(&other, &path).unwrap();
    assert_ne!(store.generation().unwrap(), before);
    assert_eq!(read(&*old.bytes).unwrap_err().errno(), Errno::STALE);
    assert_eq!(check(&*store).into_keys().collect::<Vec<_>>(), ["app:2"]);
    assert!(store.image(image.id).unwrap_err().is_not_found());

    // While it is half written, nothing of it can be read; then all of it.
    fs::write(&path, &of(&one, "app:3")[..1000]).unwrap();
    assert!(store.generation().is_ok());
    assert!(store.catalog().is_err() || !store.catalog().unwrap().damaged.is_empty());
    fs::write(&path, of(&one, "app:3")).unwrap();
    assert_eq!(check(&*store).into_keys().collect::<Vec<_>>(), ["app:3"]);
    fs::remove_file(&path).unwrap();
    assert!(store.generation().is_err() && store.catalog().is_err());
}

#[test]
fn a_layout_shows_what_is_added_to_it() {
    let [one, two] = layers();
    let mut layout = Layout::default();
    let first = named(layout.image(&config("amd64", &[&one]), &[&one]), "1");
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().join("app");
    let write = |layout: &Layout, entries: &[Value]| {
        let copy = Layout { files: layout.files.clone() };
        write_files(&path, &copy.finish(entries));
    };
    write(&layout, std::slice::from_ref(&first));
    let store = open(None, &path);
    assert_eq!(check(&*store).into_keys().collect::<Vec<_>>(), ["app:1"]);
    let before = store.generation().unwrap();
    let second = named(layout.image(&config("amd64", &[&two]), &[&two]), "2");
    write(&layout, &[first, second]);
    assert_ne!(store.generation().unwrap(), before);
    assert_eq!(check(&*store).into_keys().collect::<Vec<_>>(), ["app:1", "app:2"]);
}

#[test]
fn nothing_but_files_of_a_layout_is_read() {
    let [one, two] = layers();
    let app = config("amd64", &[&one, &two]);
    let outside = layer(&[("outside", b"secret")]);
    let plant: [(&str, &dyn Fn(&Path)); 3] = [
        ("a symlink", &|blob| std::os::unix::fs::symlink("../../../outside", blob).unwrap()),
        ("a directory", &|blob| fs::create_dir(blob).unwrap()),
        ("a FIFO", &|blob| {
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            rustix::fs::mkfifoat(rustix::fs::CWD, blob, mode).unwrap();
        }),
    ];
    for (what, plant) in plant {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = dir.path().join("app");
        fs::write(dir.path().join("outside"), &outside).unwrap();
        let files = with_good(&|layout| vec![named(layout.image(&app, &[&one, &two]), "1")]);
        write_files(&path, &files);
        fs::remove_file(path.join(blob(&one))).unwrap();
        plant(&path.join(blob(&one)));
        let store = open(None, &path);
        let err = store.image(store.catalog().unwrap().references["app:1"]).unwrap_err();
        assert_eq!(err.errno(), Errno::IO, "{what}");
        assert_eq!(survey(&*store), (vec![Errno::IO], true), "{what}");
    }
}

/// The tree of an archive, and what it reads as bytes of a file of it.
fn view(path: &Path) -> View {
    View::of(path)
}

#[test]
fn an_archive_of_dockerd_is_saved_again_byte_for_byte() {
    for (name, image, flavour, undated) in [
        ("s1.tar", "base", "docker-1.10", &[][..]),
        ("c1s.tar", "c1img:1", "docker-1.10", &[]),
        ("v25a.tar", "built:1", "docker-25", &["blobs/sha256/", "index.json"]),
        ("v28a.tar", "built:1", "docker-28", &["blobs/sha256/"]),
    ] {
        let Some(theirs) = golden::vector(name) else { return };
        let view = view(&golden::folder().unwrap().join(name));
        let ours = view.read(&format!("images/{image}/formats/{flavour}.tar"));
        assert_same(&at_its_time(&ours, &theirs, undated), &theirs, name);
    }
}

#[test]
fn several_images_of_an_archive_are_saved_again_byte_for_byte() {
    let Some(v29a) = golden::vector("v29a.tar") else { return };
    let store = open(None, &golden::folder().unwrap().join("v29a.tar"));
    let images = [&["built:1", "built:two"][..], &["base:1"]];
    assert_same(&save_of(&*store, &images, Flavour::Docker29), &v29a, "v29a.tar");
}

#[test]
fn an_archive_of_podman_is_saved_again_byte_for_byte() {
    let Some(expected) = golden::expected(golden::PODMAN) else { return };
    let path = expected.path().join("save-docker-archive.tar");
    let view = view(&path);
    let ours = view.read("images/localhost/papp:1.0/formats/podman.tar");
    assert_same(&ours, &fs::read(path).unwrap(), "save-docker-archive.tar");
}

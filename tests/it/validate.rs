//! Every store at hand, checked from end to end: each digest, each length, each archive.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use stratafs::archive::Flavour;
use stratafs::backing::FileKind;
use stratafs::digest::ImageId;
use stratafs::store::{self, Conventions, LayerStore, Source};
use stratafs::tree::{Attr, Filter, Options};

use crate::stores::golden;
use crate::stores::handmade::{digest, hex_of};
use crate::stores::sample::sample;
use crate::stores::view::View;
use crate::support::containerd::Made;
use crate::{drivers, graph, handmade_containerd};

/// The files of a tar: by name, the header's mtime and the contents, links without any.
type Files = BTreeMap<Vec<u8>, Packed>;

#[derive(Debug)]
struct Packed {
    kind: tar::EntryType,
    mode: u32,
    mtime: u64,
    bytes: Vec<u8>,
    /// Where a symlink leads.
    target: Vec<u8>,
}

/// Unpacks a tar with a reader that is not ours.
fn unpack(tar: &[u8]) -> Files {
    assert_eq!(tar.len() % 512, 0);
    let mut files = Files::new();
    for entry in tar::Archive::new(tar).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        let kind = entry.header().entry_type();
        if kind.is_file() {
            assert_eq!(bytes.len() as u64, entry.size());
        }
        let mode = entry.header().mode().unwrap();
        // A time before 1970 stands in a record, which this reader leaves to its user.
        let mtime = entry.header().mtime().unwrap_or(0);
        let name = entry.path_bytes().into_owned();
        let target = match kind {
            tar::EntryType::Symlink => entry.link_name_bytes().unwrap().into_owned(),
            _ => Vec::new(),
        };
        let packed = Packed { kind, mode, mtime, bytes, target };
        let earlier = files.insert(name.clone(), packed);
        assert!(earlier.is_none(), "{}: twice", String::from_utf8_lossy(&name));
    }
    files
}

fn open(path: &Path) -> Arc<dyn LayerStore> {
    store::open(&Source { kind: None, path: path.to_owned() }, &store::Context::default()).unwrap()
}

/// Checks all that a store holds, and all that is shown of it.
fn validate(path: &Path) {
    validate_store(&open(path));
}

fn validate_store(store: &Arc<dyn LayerStore>) {
    let catalog = store.catalog().unwrap();
    assert_eq!(catalog.damaged.len(), 0, "{:?}", catalog.damaged);
    let namespaces = store.info().namespace.iter().cloned().collect();
    let filter = Filter { namespaces, ..Filter::default() };
    let view = View::on(Arc::clone(store), Options { filter, ..Options::default() });
    let store = &**store;
    for id in catalog.images.keys() {
        validate_image(store, &view, &id.to_string());
    }
    for reference in catalog.references.keys() {
        let id = catalog.references[reference].to_string();
        assert_eq!(view.text(&format!("images/{reference}/id")), format!("{id}\n"));
        let at = format!("images/{reference}");
        validate_saves(store, &view, &at, &[&archived(&view, &at)]);
    }
    for container in &catalog.containers {
        let at = format!("containers/{}", container.name);
        match view.text(&format!("{at}/state")).trim_end() {
            "dead" => assert!(view.attr(&format!("{at}/export.tar")).is_err()),
            _ => {
                validate_export(&view, &at);
                unpack(&view.read(&format!("{at}/diff.tar")));
            }
        }
    }
    let space = store.usage().unwrap();
    assert!(space.used > 0 && space.total > space.used);
    validate_sizes(&view);
}

/// The ID that an archive of one image leads to: the digest of the config in it.
fn archived(view: &View, at: &str) -> String {
    let files = unpack(&view.read(&format!("{at}/formats/docker-29.tar")));
    let manifest: serde_json::Value =
        serde_json::from_slice(&files[&b"manifest.json"[..]].bytes).unwrap();
    let config = manifest[0]["Config"].as_str().unwrap();
    format!("sha256:{}", config.strip_prefix("blobs/sha256/").unwrap())
}

/// The config of an image as its archives have it, which its ID leads to.
fn config_of(store: &dyn LayerStore, view: &View, id: &str) -> Vec<u8> {
    let at = format!("by-id/images/{}", hex_of(id));
    let stored = view.read(&format!("{at}/config.json"));
    let image = store.image(ImageId::parse(id).unwrap()).unwrap();
    let archived = archived(view, &at);
    if let Some(top) = image.descriptions.last() {
        // An image of Docker before 1.10, whose ID is random: what archives have is made.
        assert_eq!((&stored[..], hex_of(id)), (&*top.json, &*top.id.hex()));
        return archived_config(view, &at, &archived);
    }
    if is_rebuilt(view, &at) {
        // Digests of the tars that the engine once had can't be in archives of other tars.
        assert_ne!(digest(&stored), archived);
        return archived_config(view, &at, &archived);
    }
    assert_eq!(digest(&stored), archived);
    assert_eq!(*stored, *image.config);
    // It goes by its own digest, or by that of the manifest or index that its name points at.
    let target = image.target.as_ref().map(|target| target.digest.to_string());
    assert!(archived == id || target.as_deref() == Some(id), "{id}");
    stored
}

fn archived_config(view: &View, at: &str, id: &str) -> Vec<u8> {
    let files = unpack(&view.read(&format!("{at}/formats/docker-1.10.tar")));
    files[format!("{}.json", hex_of(id)).as_bytes()].bytes.clone()
}

/// Whether the tar of a layer is none that the engine once had.
fn is_rebuilt(view: &View, at: &str) -> bool {
    let layers = view.names(&format!("{at}/layers"));
    layers.iter().any(|layer| {
        let described = view.text(&format!("{at}/layers/{layer}/layer.json"));
        serde_json::from_str::<serde_json::Value>(&described).unwrap()["exact"] == false
    })
}

fn validate_image(store: &dyn LayerStore, view: &View, id: &str) {
    let at = format!("by-id/images/{}", hex_of(id));
    let config = config_of(store, view, id);
    let archived = digest(&config);
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    let image = store.image(ImageId::parse(id).unwrap()).unwrap();
    let diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap();
    let directories = view.names(&format!("{at}/layers"));
    assert_eq!(diff_ids.len(), image.layers.len());
    assert_eq!(diff_ids.len(), directories.len());
    let is_rebuilt = is_rebuilt(view, &at);
    let mut chain: Option<String> = None;
    for ((layer, diff_id), directory) in image.layers.iter().zip(diff_ids).zip(&directories) {
        let diff_id = diff_id.as_str().unwrap();
        chain = Some(match chain {
            None => diff_id.to_owned(),
            Some(below) => digest(format!("{below} {diff_id}").as_bytes()),
        });
        let is_noted = image.descriptions.is_empty() && !is_rebuilt;
        assert_eq!(Some(layer.chain_id.to_string()) == chain, is_noted);
        let tar = view.read(&format!("{at}/layers/{directory}/layer.tar"));
        assert_eq!(digest(&tar), diff_id);
        let files = unpack(&tar);
        // overlay2 counts as `du` does, targets of symlinks too; vfs as they are unpacked, without.
        let contents: usize = files.values().map(|file| file.bytes.len()).sum();
        let targets: usize = files.values().map(|file| file.target.len()).sum();
        // containers/storage counts whole tars, and containerd what a snapshot takes on disk.
        let sizes = [contents as u64, (contents + targets) as u64, tar.len() as u64];
        let is_counted = store.info().conventions != Conventions::Containerd;
        let is_right = !is_counted || sizes.contains(&layer.size);
        assert!(is_right, "{diff_id}: {} not in {sizes:?}", layer.size);
        let json = view.text(&format!("{at}/layers/{directory}/layer.json"));
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        // Of a rebuilt layer, what the engine calls it.
        let called = (layer.diff_id.to_string(), layer.chain_id.to_string());
        let noted = (diff_id.to_owned(), chain.clone().unwrap());
        let (diff_id, chain_id) = if is_rebuilt { called } else { noted };
        assert_eq!((&json["diff_id"], &json["chain_id"]), (&diff_id.into(), &chain_id.into()));
        assert_eq!(json["tar_size"], tar.len());
        assert_eq!(json["size"], layer.size);
        assert!(json["exact"] == true || is_rebuilt);
    }
    validate_saves(store, view, &at, &[&archived]);
    validate_export(view, &at);
}

/// The archives of a directory of `images/` hold these images, whole.
fn validate_saves(store: &dyn LayerStore, view: &View, at: &str, ids: &[&str]) {
    let formats = view.names(&format!("{at}/formats"));
    assert_eq!(
        formats,
        [
            "docker-1.9.tar",
            "docker-1.10.tar",
            "docker-25.tar",
            "docker-28.tar",
            "docker-29.tar",
            "containerd.tar",
            "podman.tar",
            "oci.tar"
        ]
    );
    let saved = view.read(&format!("{at}/save.tar"));
    let flavour = Flavour::of(store.info().conventions);
    assert_eq!(saved, view.read(&format!("{at}/formats/{flavour}.tar")));
    let latest = unpack(&view.read(&format!("{at}/formats/docker-29.tar")));
    let config =
        |id: &&str| latest[format!("blobs/sha256/{}", hex_of(id)).as_bytes()].bytes.clone();
    let configs: Vec<Vec<u8>> = ids.iter().map(config).collect();
    for format in formats {
        let files = unpack(&view.read(&format!("{at}/formats/{format}")));
        match format.as_str() {
            "docker-1.9.tar" => validate_chains(&files, &configs),
            "oci.tar" => validate_layout(&files, ids),
            _ => validate_manifest(&files, ids),
        }
        for (name, file) in &files {
            if let Some(hex) = name.strip_prefix(b"blobs/sha256/")
                && file.kind.is_file()
            {
                assert_eq!(hex_of(&digest(&file.bytes)).as_bytes(), hex);
            }
        }
    }
}

/// `manifest.json` leads to each image's config and layers.
fn validate_manifest(files: &Files, ids: &[&str]) {
    let manifest = serde_json::from_slice(&files[&b"manifest.json"[..]].bytes).unwrap();
    let manifest: Vec<BTreeMap<String, serde_json::Value>> = manifest;
    assert_eq!(manifest.len(), ids.len());
    for (item, id) in manifest.iter().zip(ids) {
        let config = &files[item["Config"].as_str().unwrap().as_bytes()].bytes;
        assert_eq!(digest(config), *id);
        let config: serde_json::Value = serde_json::from_slice(config).unwrap();
        let diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap();
        let layers = item["Layers"].as_array().unwrap();
        assert_eq!(diff_ids.len(), layers.len());
        for (diff_id, layer) in diff_ids.iter().zip(layers) {
            let mut layer = &files[layer.as_str().unwrap().as_bytes()];
            if let Some(other) = layer.target.strip_prefix(b"../") {
                assert!(ids.len() > 1, "no layer of one image is a link");
                layer = &files[other];
            }
            // A blob that is stored compressed has its own digest for a name, as all are held to.
            let compressed = [&[0x1f, 0x8b][..], &[0x28, 0xb5, 0x2f, 0xfd]];
            if !compressed.iter().any(|magic| layer.bytes.starts_with(magic)) {
                assert_eq!(digest(&layer.bytes), diff_id.as_str().unwrap());
            }
        }
    }
}

/// `index.json` leads to each image's manifest, that to its config and layers, and to no more.
fn validate_layout(files: &Files, ids: &[&str]) {
    let json = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&files[name.as_bytes()].bytes).unwrap()
    };
    let mut named: BTreeSet<String> =
        ["blobs/", "blobs/sha256/", "index.json", "oci-layout"].map(str::to_owned).into();
    let mut blob = |descriptor: &serde_json::Value| {
        let name = format!("blobs/sha256/{}", hex_of(descriptor["digest"].as_str().unwrap()));
        assert_eq!(files[name.as_bytes()].bytes.len(), descriptor["size"]);
        named.insert(name.clone());
        name
    };
    assert_eq!(json("oci-layout")["imageLayoutVersion"], "1.0.0");
    let mut found = Vec::new();
    for descriptor in json("index.json")["manifests"].as_array().unwrap() {
        let manifest = json(&blob(descriptor));
        let id = manifest["config"]["digest"].as_str().unwrap().to_owned();
        let config = json(&blob(&manifest["config"]));
        let layers = manifest["layers"].as_array().unwrap();
        let digests: Vec<_> = layers.iter().map(|layer| layer["digest"].clone()).collect();
        assert_eq!(config["rootfs"]["diff_ids"], serde_json::Value::from(digests));
        layers.iter().for_each(|layer| drop(blob(layer)));
        if !found.contains(&id) {
            found.push(id);
        }
    }
    assert_eq!(found, ids);
    assert_eq!(
        files.keys().cloned().collect::<BTreeSet<_>>(),
        named.into_iter().map(String::into_bytes).collect()
    );
    assert!(files.values().all(|file| file.mtime == 0));
}

/// There is a directory for each layer of each image, which names the one below it, and no more.
fn validate_chains(files: &Files, configs: &[Vec<u8>]) {
    let mut layers: BTreeMap<String, (Option<String>, String)> = BTreeMap::new();
    for name in files.keys().filter_map(|name| name.strip_suffix(b"/json")) {
        let name = String::from_utf8(name.to_vec()).unwrap();
        let file = |file: &str| &files[format!("{name}/{file}").as_bytes()].bytes;
        let json: serde_json::Value = serde_json::from_slice(file("json")).unwrap();
        assert_eq!(json["id"], name.as_str());
        assert_eq!(file("VERSION"), b"1.0");
        let parent = json["parent"].as_str().map(str::to_owned);
        layers.insert(name.clone(), (parent, digest(file("layer.tar"))));
    }
    let chain = |top: &String| -> Vec<String> {
        let mut chain: Vec<_> =
            std::iter::successors(Some(top), |name| layers[*name].0.as_ref()).collect();
        chain.reverse();
        chain.into_iter().map(|name| layers[name].1.clone()).collect()
    };
    let parents: BTreeSet<&String> =
        layers.values().filter_map(|(parent, _)| parent.as_ref()).collect();
    let tops = layers.keys().filter(|name| !parents.contains(name));
    let found: BTreeSet<Vec<String>> = tops.map(chain).collect();
    let expected: BTreeSet<Vec<String>> = configs
        .iter()
        .map(|config| {
            let config: serde_json::Value = serde_json::from_slice(config).unwrap();
            let diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap();
            diff_ids.iter().map(|diff_id| diff_id.as_str().unwrap().to_owned()).collect()
        })
        .collect();
    assert_eq!(found, expected);
    let of_layers = layers.len() * 4;
    let rest = usize::from(files.contains_key(&b"repositories"[..]));
    assert_eq!(files.len(), of_layers + rest);
}

/// `export.tar` holds what `rootfs/` shows, and the other way round.
fn validate_export(view: &View, at: &str) {
    let files = unpack(&view.read(&format!("{at}/export.tar")));
    let mut shown = BTreeSet::new();
    walk(view, &view.attr(&format!("{at}/rootfs")).unwrap(), Vec::new(), &mut |path, attr| {
        if attr.kind == FileKind::Socket {
            return;
        }
        let name =
            if attr.kind == FileKind::Directory { [path, b"/"].concat() } else { path.to_vec() };
        let text = String::from_utf8_lossy(&name).into_owned();
        let file = files.get(&name).unwrap_or_else(|| panic!("{at}: {text} is not exported"));
        assert_eq!(file.mode, attr.permissions, "{at}: {text}");
        assert_eq!(file.mtime, attr.mtime.secs.max(0).cast_unsigned(), "{at}: {text}");
        if file.kind.is_file() {
            assert!(view.read_node(attr).unwrap() == file.bytes, "{at}: {text}");
        }
        shown.insert(name);
    });
    let exported: BTreeSet<_> = files.keys().cloned().collect();
    assert_eq!(shown, exported, "{at}");
}

/// Calls `visit` for all that is below a directory.
fn walk(view: &View, dir: &Attr, path: Vec<u8>, visit: &mut dyn FnMut(&[u8], &Attr)) {
    for child in &view.tree.read_dir(dir.ino).unwrap().children {
        let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
        let path = [&path[..], slash, child.name.as_bytes()].concat();
        // An archive of a dead container says that it is busy.
        let Ok(attr) = view.tree.lookup(dir.ino, &child.name) else { continue };
        assert_eq!(attr.kind, child.kind, "{}", String::from_utf8_lossy(&path));
        visit(&path, &attr);
        if attr.kind == FileKind::Directory {
            walk(view, &attr, path, visit);
        }
    }
}

/// Every file of the whole tree has the size that it says, and every link a target of its size.
fn validate_sizes(view: &View) {
    let root = view.tree.attr(stratafs::tree::ROOT).unwrap();
    let mut count = 0;
    walk(view, &root, Vec::new(), &mut |path, attr| {
        let shown = OsStr::from_bytes(path);
        match attr.kind {
            FileKind::Regular => drop(view.read_node(attr).unwrap()),
            FileKind::Symlink => {
                let target = view.tree.read_link(attr.ino).unwrap();
                assert_eq!(target.len() as u64, attr.size, "{shown:?}");
            }
            _ => {}
        }
        count += 1;
    });
    assert!(count > 50, "{count}");
}

#[test]
fn stores_of_real_engines_hold_what_they_say() {
    for name in golden::ALL.into_iter().chain([golden::PODMAN]) {
        let Some(store) = golden::store(name) else { return };
        validate(store.path());
    }
}

#[test]
fn containerd_s_stores_hold_what_they_say() {
    for name in [golden::DOCKER_CONTAINERD, golden::CONTAINERD] {
        let Some(root) = golden::store(name) else { return };
        let source = Source { kind: None, path: root.path().to_owned() };
        for store in store::open_all(&source, &store::Context::default()).unwrap() {
            validate_store(&store);
        }
    }
}

#[test]
fn archives_of_real_engines_hold_what_they_say() {
    let Some(folder) = golden::folder() else { return };
    for name in ["s1.tar", "s2.tar", "c1s.tar", "v25a.tar", "v28a.tar", "v29a.tar"] {
        validate(&folder.join(name));
    }
    validate(golden::unpack(&folder.join("v29a.tar")).path());
}

#[test]
fn the_store_of_the_readme_holds_what_it_says() {
    validate(golden::tried().path());
}

#[test]
fn stores_of_every_driver_hold_what_they_say() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    for turn in [drivers::to_fuse as fn(&Path), drivers::to_aufs] {
        let root = tempfile::tempdir().unwrap();
        drivers::build(root.path());
        turn(root.path());
        validate(root.path());
    }
    for driver in graph::DRIVERS {
        validate(graph::graph(driver).unwrap().path());
    }
}

#[test]
fn a_store_of_containerd_holds_what_it_says() {
    let mut made = Made::new();
    handmade_containerd::plain(&mut made);
    let store: Arc<dyn LayerStore> = Arc::new(handmade_containerd::open(&made));
    validate_store(&store);
}

#[test]
fn a_store_made_by_hand_holds_what_it_says() {
    let Some(sample) = sample() else { return };
    validate(sample.path());
}

#[test]
fn a_repository_saves_all_its_tags() {
    let Some(mut sample) = sample() else { return };
    sample.root.tag("app:other", &sample.untagged);
    let view = View::of(sample.path());
    validate_saves(&*open(sample.path()), &view, "images/app", &[&sample.app, &sample.untagged]);
}

//! The graph of Docker to 1.9: what it shows is what the same images and containers show in a later
//! data root, and its archives lead to the same.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::Value;
use stratafs::archive::Flavour;
use stratafs::store::{self, LayerStore, Source};
use tempfile::TempDir;

use crate::drivers::{build, shown};
use crate::stores::graph::{copy, description, turn};
use crate::stores::handmade::{digest, hex_of};
use crate::stores::view::View;

pub(crate) const DRIVERS: [&str; 4] = ["aufs", "vfs", "btrfs", "overlay"];

/// A data root of one image and one container, as a graph; `None` where that takes root.
pub(crate) fn graph(driver: &str) -> Option<TempDir> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return None;
    }
    let root = tempfile::tempdir().unwrap();
    build(root.path());
    turn(root.path(), driver);
    Some(root)
}

fn open(path: &Path) -> std::sync::Arc<dyn LayerStore> {
    store::open(&Source { kind: None, path: path.to_owned() }, &store::Context::default()).unwrap()
}

/// What is shown, with layers by their places alone: here they go by the IDs of images.
fn by_place(shown: BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
    let plain = |path: String| match path.strip_prefix("images/app:1/layers/") {
        Some(rest) => format!("layers/{}{}", &rest[..2], &rest[15..]),
        None => path,
    };
    shown.into_iter().map(|(path, bytes)| (plain(path), bytes)).collect()
}

fn json(view: &View, path: &str) -> Value {
    serde_json::from_slice(&view.read(path)).unwrap_or_else(|err| panic!("{path}: {err}"))
}

/// An archive of the mount as a source of its own.
fn saved(view: &View, path: &str) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("saved.tar");
    fs::write(&file, view.read(path)).unwrap();
    (dir, file)
}

fn ids(path: &Path) -> Vec<String> {
    let catalog = open(path).catalog().unwrap();
    assert_eq!(catalog.damaged.len(), 0, "{:?}", catalog.damaged);
    catalog.references.values().map(ToString::to_string).collect()
}

#[test]
fn a_graph_shows_what_a_later_data_root_does() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let later = tempfile::tempdir().unwrap();
    build(later.path());
    let expected = by_place(shown(later.path()));
    for driver in DRIVERS {
        let root = tempfile::tempdir().unwrap();
        copy(&later.path().join("."), root.path());
        turn(root.path(), driver);
        let found = by_place(shown(root.path()));
        let names = |shown: &BTreeMap<String, Vec<u8>>| shown.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&found), names(&expected), "{driver}");
        for (path, bytes) in &expected {
            assert!(&found[path] == bytes, "{driver}: {path}");
        }
    }
}

#[test]
fn images_of_a_graph_go_by_their_own_ids_and_descriptions() {
    let Some(root) = graph("aufs") else { return };
    let store = open(root.path());
    assert_eq!((store.info().kind, store.info().driver), ("docker", "aufs"));
    assert!(store.version_hints()[0].contains("1.9 or earlier"), "{:?}", store.version_hints());
    let view = View::of(root.path());
    let id = view.text("images/app:1/id");
    let hex = hex_of(id.trim_end()).to_owned();
    let stored = |id: &str| fs::read(root.path().join("graph").join(id).join("json")).unwrap();
    assert_eq!(view.read("images/app:1/config.json"), stored(&hex));
    assert_eq!(view.names("by-id/images").len(), 2);
    assert_eq!(view.text(&format!("by-id/images/{hex}/id")), id);
    assert_eq!(view.text(&format!("images/{}/id", &hex[..12])), id);
    assert_eq!(view.text("containers/web/state"), "exited\n");
    assert_eq!(view.link("containers/web/image"), "../../images/app:1");
    let inspected = json(&view, "images/app:1/inspect.json");
    assert_eq!(inspected[0]["RootFS"].get("Layers"), None, "nobody knows them");

    let mut chain: Option<String> = None;
    let layers = view.names("images/app:1/layers");
    for (index, name) in layers.iter().enumerate() {
        let at = format!("images/app:1/layers/{name}");
        let (described, tar) =
            (json(&view, &format!("{at}/layer.json")), view.read(&format!("{at}/layer.tar")));
        let diff_id = digest(&tar);
        chain = Some(match &chain {
            None => diff_id.clone(),
            Some(below) => digest(format!("{below} {diff_id}").as_bytes()),
        });
        assert_eq!(described["diff_id"], diff_id);
        assert_eq!(described["chain_id"], chain.clone().unwrap());
        assert_eq!(
            (&described["exact"], &described["tar_size"]),
            (&true.into(), &tar.len().into())
        );
        let directory = described["directory"].as_str().unwrap();
        assert_eq!(*name, format!("{index:02}-{}", &directory[..12]));
    }

    // What Docker 1.9 saves: what it has.
    let (_dir, file) = saved(&view, "images/app:1/formats/docker-1.9.tar");
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for entry in tar::Archive::new(fs::File::open(&file).unwrap()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        files.insert(entry.path().unwrap().to_str().unwrap().to_owned(), bytes);
    }
    let parent = serde_json::from_slice::<Value>(&stored(&hex)).unwrap()["parent"].clone();
    for (id, layer) in [(parent.as_str().unwrap(), &layers[0]), (&*hex, &layers[1])] {
        assert_eq!(files[&format!("{id}/VERSION")], b"1.0");
        assert_eq!(files[&format!("{id}/json")], stored(id));
        let tar = view.read(&format!("images/app:1/layers/{layer}/layer.tar"));
        assert!(files[&format!("{id}/layer.tar")] == tar);
    }
    assert_eq!(files["repositories"], format!("{{\"app\":{{\"1\":\"{hex}\"}}}}\n").into_bytes());
    assert_eq!(files.len(), 9);
}

#[test]
fn every_archive_of_a_graph_is_the_image_that_a_later_docker_makes_of_it() {
    for driver in DRIVERS {
        let Some(root) = graph(driver) else { return };
        let view = View::of(root.path());
        let (_dir, old) = saved(&view, "images/app:1/formats/docker-1.9.tar");
        // The rules of a load from 1.9 are applied by another reader, to the archive alone.
        let expected = ids(&old);
        assert_eq!(expected.len(), 1);
        for flavour in Flavour::ALL {
            let (_dir, file) = saved(&view, &format!("images/app:1/formats/{flavour}.tar"));
            if flavour == Flavour::Containerd || flavour == Flavour::Oci {
                let found = View::of(&file);
                let config = found.read("images/app:1/config.json");
                assert_eq!(digest(&config), expected[0], "{driver}: {flavour}");
            } else {
                assert_eq!(ids(&file), expected, "{driver}: {flavour}");
            }
            let (one, other) = (View::of(&file), &view);
            let path = "images/app:1/export.tar";
            assert!(one.read(path) == other.read(path), "{driver}: {flavour}");
        }
        let (_dir, file) = saved(&view, "containers/web/save.tar");
        let loaded = View::of(&file);
        let mut names = view.names("containers/web/rootfs");
        names.retain(|name| name != ".dockerenv"); // of the init layer, which no commit has
        assert_eq!(loaded.names("images/web:snapshot/rootfs"), names, "{driver}");
        assert_eq!(loaded.text("images/web:snapshot/rootfs/own"), "own");
    }
}

#[test]
fn a_layer_without_a_record_of_its_tar_is_made_of_its_files() {
    for driver in DRIVERS {
        let Some(root) = graph(driver) else { return };
        let whole = View::of(root.path()).read("images/app:1/export.tar");
        let id = View::of(root.path()).text("images/app:1/id");
        let image = root.path().join("graph").join(hex_of(id.trim_end()));
        fs::remove_file(image.join("tar-data.json.gz")).unwrap();
        let view = View::of(root.path());
        let layers = view.names("images/app:1/layers");
        for (name, exact) in layers.iter().zip([true, false]) {
            let at = format!("images/app:1/layers/{name}");
            let described = json(&view, &format!("{at}/layer.json"));
            assert_eq!(described["exact"], exact, "{driver}");
            assert_eq!(described["diff_id"], digest(&view.read(&format!("{at}/layer.tar"))));
        }
        let (_dir, file) = saved(&view, "images/app:1/save.tar");
        assert!(View::of(&file).read("images/app:1/export.tar") == whole, "{driver}");
    }
}

#[test]
fn what_is_broken_in_a_graph_takes_no_other_image_with_it() {
    let Some(root) = graph("aufs") else { return };
    let root = root.path();
    let good = View::of(root).text("images/app:1/id");
    let id = |name: &str| hex_of(&digest(name.as_bytes())).to_owned();
    let graph = root.join("graph");
    let add = |name: &str, json: &[u8]| {
        let id = id(name);
        fs::create_dir(graph.join(&id)).unwrap();
        fs::write(graph.join(&id).join("json"), json).unwrap();
        fs::create_dir(root.join("aufs/diff").join(&id)).unwrap();
        fs::write(root.join("aufs/layers").join(&id), "").unwrap();
        id
    };
    let upon = |name: &str, parent: Option<&str>| {
        add(name, description(&id(name), parent).to_string().as_bytes())
    };
    let loops = [upon("a", Some(&id("b"))), upon("b", Some(&id("a")))];
    let itself = upon("self", Some(&id("self")));
    let orphan = upon("orphan", Some(&id("nobody")));
    upon("path", Some("../../../etc"));
    add("other", description(&id("another"), None).to_string().as_bytes());
    add("cut", b"{\"id\":");
    add("deep", &b"[".repeat(1 << 20));
    let huge = add("huge", b"");
    fs::File::create(graph.join(&huge).join("json")).unwrap().set_len(1 << 30).unwrap();
    let gone = add("gone", b"");
    fs::remove_file(graph.join(gone).join("json")).unwrap();
    let linked = add("linked", b"");
    fs::remove_file(graph.join(&linked).join("json")).unwrap();
    symlink("/etc/passwd", graph.join(&linked).join("json")).unwrap();
    symlink("/etc", graph.join(id("outside"))).unwrap();
    symlink("/etc", root.join("aufs/diff").join(id("outside"))).unwrap();
    fs::create_dir(graph.join("not-an-id")).unwrap();
    // Of another driver that was used here: no damage.
    let other = upon("of another driver", None);
    fs::remove_dir(root.join("aufs/diff").join(other)).unwrap();
    let noted = upon("noted", None);
    fs::write(graph.join(&noted).join("parent"), "../../../etc/passwd").unwrap();
    let list = root.join("repositories-aufs");
    let mut names: Value = serde_json::from_slice(&fs::read(&list).unwrap()).unwrap();
    for (name, tag, id) in [
        ("..", "1", hex_of(good.trim_end())),
        ("evil", "../../x", hex_of(good.trim_end())),
        ("evil", "1", "../../../etc"),
        ("evil", "2", &id("nobody")),
        ("orphan", "1", &*orphan),
        ("loop", "1", &*loops[0]),
    ] {
        names["Repositories"][name][tag] = id.into();
    }
    fs::write(&list, names.to_string()).unwrap();

    let store = open(root);
    let catalog = store.catalog().unwrap();
    let damaged: Vec<String> = catalog.damaged.iter().map(ToString::to_string).collect();
    let damaged = damaged.join("\n");
    for what in [
        "not an image ID",
        "the parents form a loop",
        "the parent is missing",
        "its parent is no ID",
        "describes another image",
        "there is no",
        "no reference",
        "missing",
    ] {
        assert!(damaged.contains(what), "{what}: {damaged}");
    }
    assert!(!damaged.contains(&id("of another driver")), "{damaged}");
    let listed: Vec<String> = catalog.references.keys().cloned().collect();
    assert_eq!(listed, ["app:1", "loop:1", "orphan:1"]);
    for id in loops.iter().chain([&itself, &orphan, &noted]) {
        let id = stratafs::digest::ImageId::from_hex(id).unwrap();
        assert!(store.image(id).is_err() && store.config(id).is_err(), "{id}");
    }
    let view = View::of(root);
    assert_eq!(view.text("images/app:1/id"), good);
    assert_eq!(view.text("images/app:1/rootfs/dir/added"), "dir/added");
    assert!(view.try_read("images/loop:1/save.tar").is_err());
    assert!(!view.read("images/app:1/save.tar").is_empty());
}

#[test]
fn a_broken_record_of_a_tar_is_damage_of_that_layer_alone() {
    let Some(root) = graph("aufs") else { return };
    let root = root.path();
    let id = View::of(root).text("images/app:1/id");
    let image = root.join("graph").join(hex_of(id.trim_end()));
    let record = fs::read(image.join("tar-data.json.gz")).unwrap();
    for broken in [&record[..record.len() / 2], b"", b"no gzip"] {
        fs::write(image.join("tar-data.json.gz"), broken).unwrap();
        let view = View::of(root);
        let top = &view.names("images/app:1/layers")[1];
        let err = view.try_read(&format!("images/app:1/layers/{top}/layer.tar"));
        assert!(err.is_err(), "{} bytes", broken.len());
        assert_eq!(view.text("images/app:1/rootfs/dir/added"), "dir/added");
    }
}

#[test]
fn drivers_of_a_graph_that_nobody_can_read_are_refused_with_advice() {
    for driver in ["devicemapper", "zfs"] {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("graph")).unwrap();
        let source = Source { kind: None, path: root.path().to_owned() };
        let refused = || store::open(&source, &store::Context::default()).unwrap_err().to_string();
        assert!(refused().contains("not a container store"), "{}", refused());
        fs::create_dir(root.path().join(driver)).unwrap();
        assert!(refused().contains(driver), "{}", refused());
        fs::remove_dir(root.path().join(driver)).unwrap();
        fs::write(root.path().join(format!("repositories-{driver}")), "{}").unwrap();
        assert!(refused().contains("docker save"), "{}", refused());
    }
}

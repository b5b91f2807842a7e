//! Small stores made here, whole and broken.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::ContainersStorage;
use super::image::config_path;
use crate::backing::{Heard, Stat, Watch};
use crate::digest::{ContainerId, DiffId, Digest, ImageId};
use crate::store::{LayerDir, LayerSource, LayerStore, Marks, OpenError, State, UNMAPPED};

mod lists;

/// A store made by hand: layers hold one file each, named after their directory.
struct Small {
    /// What is removed in the end.
    dir: TempDir,
    /// Where the store is.
    at: PathBuf,
    driver: &'static str,
}

/// The ID of what is called `name`.
fn hex(name: &str) -> String {
    Digest::of(name.as_bytes()).hex()
}

fn image_config(layers: &[&str]) -> String {
    let diff_ids: Vec<String> = layers.iter().map(|layer| diff_id(layer)).collect();
    json!({ "rootfs": { "type": "layers", "diff_ids": diff_ids } }).to_string()
}

fn diff_id(layer: &str) -> String {
    DiffId(Digest::of(format!("tar of {layer}").as_bytes())).to_string()
}

impl Small {
    fn new(driver: &'static str) -> Small {
        Small::inside(driver, "")
    }

    /// An empty store in the directory `path` of a directory of its own.
    fn inside(driver: &'static str, path: &str) -> Small {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join(path);
        let small = Small { dir, at, driver };
        for list in ["images/images.json", "layers/layers.json", "containers/containers.json"] {
            small.write(small.part(list), "[]");
        }
        fs::create_dir_all(small.home()).unwrap();
        small
    }

    /// The image `app:1` of the layers `a` and `b`, the image of `a` alone, which has no name, and
    /// the container `web` upon the first.
    fn sample(driver: &'static str) -> Small {
        let small = Small::new(driver);
        small.add_layer("a", None);
        small.add_layer("b", Some("a"));
        small.add_image(&["a", "b"], &["docker.io/library/app:1"]);
        small.add_image(&["a"], &[]);
        small.add_container("web", &["a", "b"]);
        small
    }

    fn path(&self, path: &str) -> PathBuf {
        self.at.join(path)
    }

    /// A path under one of the directories that begin with the driver's name.
    fn part(&self, path: &str) -> PathBuf {
        self.path(&format!("{}-{path}", self.driver))
    }

    fn home(&self) -> PathBuf {
        self.path(if self.driver == "vfs" { "vfs/dir" } else { "overlay" })
    }

    fn write(&self, path: impl AsRef<Path>, text: impl AsRef<[u8]>) {
        fs::create_dir_all(path.as_ref().parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Changes the list at `path`.
    fn edit(&self, path: &str, change: impl FnOnce(&mut Vec<Value>)) {
        let path = self.part(path);
        let mut list = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut list);
        self.write(path, serde_json::to_vec(&list).unwrap());
    }

    /// The short name of a layer's directory.
    fn link(name: &str) -> String {
        hex(name).to_uppercase().replace(['0', '1', '8', '9'], "Z")[..26].to_owned()
    }

    fn add_directory(&self, name: &str, below: Option<&str>) {
        let home = self.home().join(hex(name));
        if self.driver == "vfs" {
            return self.write(home.join(name), name);
        }
        self.write(home.join("diff").join(name), name);
        fs::create_dir_all(self.home().join("l")).unwrap();
        let link = self.home().join("l").join(Small::link(name));
        symlink(format!("../{}/diff", hex(name)), link).unwrap();
        let Some(below) = below else { return };
        let upper = format!("l/{}", Small::link(below));
        let lower = match fs::read_to_string(self.home().join(hex(below)).join("lower")) {
            Ok(lower) => format!("{upper}:{lower}"),
            Err(_) => upper,
        };
        self.write(home.join("lower"), lower);
    }

    fn add_layer(&self, name: &str, below: Option<&str>) {
        self.add_directory(name, below);
        let parent = below.map(hex);
        self.edit("layers/layers.json", |layers| {
            layers.push(json!({
                "id": hex(name), "parent": parent, "diff-digest": diff_id(name), "diff-size": 10,
                "uidset": [0],
            }));
        });
    }

    fn add_image(&self, layers: &[&str], names: &[&str]) -> ImageId {
        let config = image_config(layers);
        let id = ImageId(Digest::of(config.as_bytes()));
        self.write(self.part("images").join(config_path(id)), config);
        self.edit("images/images.json", |images| {
            images.push(json!({
                "id": id.hex(), "names": names, "layer": layers.last().map(|name| hex(name)),
                "big-data-names": [id.to_string(), "manifest"],
            }));
        });
        id
    }

    /// A list of manifests with this index.
    fn add_list(&self, name: &str, reference: &str, index: &str) -> ImageId {
        let id = ImageId(Digest::of(name.as_bytes()));
        self.write(self.part("images").join(id.hex()).join("manifest"), index);
        self.edit("images/images.json", |images| {
            images.retain(|image| image["id"] != id.hex());
            images.push(json!({
                "id": id.hex(), "names": [reference], "big-data-names": ["manifest", "instances.json"],
                "digest": Digest::of(b"empty").to_string(), "created": "2026-11-21T21:23:25Z",
            }));
        });
        id
    }

    fn add_container(&self, name: &str, layers: &[&str]) {
        self.add_directory(&format!("{name}-layer"), layers.last().copied());
        let metadata = json!({ "image-name": "docker.io/library/app:1", "name": name });
        self.edit("layers/layers.json", |list| {
            let below = layers.last().map(|name| hex(name));
            list.push(json!({ "id": hex(&format!("{name}-layer")), "parent": below }));
        });
        self.edit("containers/containers.json", |containers| {
            containers.push(json!({
                "id": hex(name), "names": [name], "image": app().hex(),
                "layer": hex(&format!("{name}-layer")), "metadata": metadata.to_string(),
                "created": "2026-11-21T21:23:25.834763061Z",
            }));
        });
    }

    fn open(&self) -> ContainersStorage {
        ContainersStorage::open(&self.at).unwrap()
    }
}

fn app() -> ImageId {
    ImageId(Digest::of(image_config(&["a", "b"]).as_bytes()))
}

fn base() -> ImageId {
    ImageId(Digest::of(image_config(&["a"]).as_bytes()))
}

fn web() -> ContainerId {
    ContainerId(Digest::of(b"web"))
}

/// The first file of each directory.
fn files(dirs: &[LayerDir]) -> Vec<String> {
    let first = |dir: &LayerDir| {
        dir.root.dir("").unwrap().names().unwrap()[0].name.clone().into_string().unwrap()
    };
    dirs.iter().map(first).collect()
}

#[test]
fn images_and_containers_are_read() {
    for (driver, layers, merged) in [
        ("overlay", vec!["b", "a"], vec!["web-layer", "b", "a"]),
        ("vfs", vec!["b"], vec!["web-layer"]),
    ] {
        let small = Small::sample(driver);
        let store = small.open();
        assert_eq!((store.info().kind, store.info().driver), ("podman", driver));
        let catalog = store.catalog().unwrap();
        assert!(catalog.damaged.is_empty(), "{:?}", catalog.damaged);
        assert_eq!(catalog.images.len(), 2);
        assert_eq!(catalog.references["app:1"], app());
        assert_eq!(catalog.containers[0].name, "web");
        let image = store.image(app()).unwrap();
        assert_eq!(image.references, ["app:1"]);
        assert_eq!(image.layers[1].diff_id.to_string(), diff_id("b"));
        let LayerSource::TarSplit { path, .. } = &image.layers[1].source else { panic!() };
        assert_eq!(files(&image.layers[1].dirs), layers);
        assert_eq!(*path, Path::new(&format!("{}.tar-split.gz", hex("b"))));
        let container = store.container(web()).unwrap();
        assert_eq!(container.state, State::Exited);
        assert_eq!(container.image_name, "docker.io/library/app:1");
        assert_eq!(files(&container.dirs), merged);
        assert_eq!(files(&container.init_dirs), layers);
        assert!(container.config.starts_with(b"{") && container.config.ends_with(b"}"));
        assert_eq!(store.usage().unwrap().used, 20);
        assert_eq!(store.graph_driver(&container.dirs).name, driver);
    }
}

#[test]
fn what_the_engine_changes_is_seen() {
    let small = Small::sample("overlay");
    let store = small.open();
    let generation = store.generation().unwrap();
    let (end, _keep) = std::io::pipe().unwrap();
    let mut watch = Watch::new().unwrap();
    watch.set(&store.watched().unwrap()).unwrap();
    small.add_layer("c", Some("b"));
    small.add_image(&["a", "b", "c"], &["localhost/new:1"]);
    assert_ne!(store.generation().unwrap(), generation);
    assert_eq!(watch.wait(&end, Some(Duration::ZERO)).unwrap(), Heard::News);
    watch.drain().unwrap();
    fs::write(small.dir.path().join("db.sql"), "x").unwrap();
    assert_eq!(watch.wait(&end, Some(Duration::ZERO)).unwrap(), Heard::News);
    fs::remove_file(small.dir.path().join("db.sql")).unwrap();
    let catalog = store.catalog().unwrap();
    let new = catalog.references["localhost/new:1"];
    assert_eq!(store.image(new).unwrap().layers.len(), 3);
    small.edit("images/images.json", Vec::clear);
    fs::remove_dir_all(small.part("images").join(new.hex())).unwrap();
    assert!(store.catalog().unwrap().images.is_empty());
    assert_eq!(store.image(new).unwrap_err().errno(), Errno::NOENT);
    assert_eq!(store.config(new).unwrap_err().errno(), Errno::NOENT);
}

#[test]
fn volatile_lists_count_too() {
    let small = Small::sample("overlay");
    for list in ["layers/layers.json", "containers/containers.json"] {
        let volatile = list.replace('/', "/volatile-");
        fs::rename(small.part(list), small.part(&volatile)).unwrap();
    }
    let store = small.open();
    assert_eq!(store.catalog().unwrap().containers.len(), 1);
    assert_eq!(store.container(web()).unwrap().dirs.len(), 3);
}

/// Something bad done to the sample.
type Harm = (&'static str, fn(&Small));

/// What breaks the image `app:1` or its layers, and nothing else.
const HARMS: [Harm; 12] = [
    ("a config of other bytes", |small| {
        small.write(small.part("images").join(config_path(app())), "{}");
    }),
    ("a config that is a symlink", |small| {
        let path = small.part("images").join(config_path(app()));
        fs::remove_file(&path).unwrap();
        symlink("/etc/passwd", path).unwrap();
    }),
    ("no such layer", |small| {
        small.edit("images/images.json", |images| images[0]["layer"] = hex("none").into());
    }),
    ("a layer that leads out", |small| {
        small.edit("images/images.json", |images| images[0]["layer"] = "../../../etc".into());
    }),
    ("a parent that leads out", |small| {
        small.edit("layers/layers.json", |layers| layers[1]["parent"] = "../../../etc".into());
    }),
    ("a parent that is the layer itself", |small| {
        small.edit("layers/layers.json", |layers| layers[1]["parent"] = hex("b").into());
    }),
    ("a layer too few", |small| {
        small.edit("images/images.json", |images| images[0]["layer"] = hex("a").into());
    }),
    ("another diff", |small| {
        small.edit("layers/layers.json", |layers| layers[1]["diff-digest"] = diff_id("x").into());
    }),
    ("no diff directory", |small| {
        fs::remove_dir_all(small.home().join(hex("b"))).unwrap();
    }),
    ("a diff directory that is a symlink", |small| {
        let path = small.home().join(hex("b")).join("diff");
        fs::remove_dir_all(&path).unwrap();
        symlink("/etc", path).unwrap();
    }),
    ("a lower file that leads out", |small| {
        small.write(small.home().join(hex("b")).join("lower"), "../../../../etc");
    }),
    ("a lower file of another layer", |small| {
        let lower = format!("l/{}", Small::link("web-layer"));
        small.write(small.home().join(hex("b")).join("lower"), lower);
    }),
];

#[test]
fn what_breaks_one_image_leaves_its_neighbours() {
    for (what, harm) in HARMS {
        let small = Small::sample("overlay");
        harm(&small);
        let store = small.open();
        let catalog = store.catalog().unwrap();
        let broken = store.image(app()).map(|_| ()).unwrap_err();
        // An entry that makes no sense is left out of the list, so that there is no such image.
        let is_listed = catalog.images.contains_key(&app());
        let reported = if is_listed { 0 } else { 1 };
        assert_eq!(catalog.damaged.len(), reported, "{what}");
        assert!([Errno::IO, Errno::NOENT].contains(&broken.errno()), "{what}: {broken}");
        assert!(!is_listed || broken.errno() == Errno::IO, "{what}: {broken}");
        assert!(catalog.images.contains_key(&base()), "{what}");
        assert_eq!(store.image(base()).unwrap().layers.len(), 1, "{what}");
        assert_eq!(catalog.containers.len(), 1, "{what}");
    }
}

#[test]
fn parents_that_form_a_loop_end() {
    let small = Small::sample("vfs");
    small.edit("layers/layers.json", |layers| layers[0]["parent"] = hex("b").into());
    let store = small.open();
    for error in [store.image(app()).map(|_| ()), store.container(web()).map(|_| ())] {
        assert!(error.unwrap_err().to_string().contains("loop"));
    }
}

#[test]
fn a_list_that_is_damaged_is_told_and_leaves_the_other() {
    for text in ["", "{", "{}", "[1,2]", "[[[[", "\u{0}"] {
        let small = Small::sample("overlay");
        small.write(small.part("images/images.json"), text);
        let catalog = small.open().catalog().unwrap();
        assert!(catalog.images.is_empty() && !catalog.damaged.is_empty(), "{text:?}");
        assert_eq!(catalog.containers.len(), 1, "{text:?}");
        let small = Small::sample("overlay");
        small.write(small.part("containers/containers.json"), text);
        let catalog = small.open().catalog().unwrap();
        assert_eq!(catalog.images.len(), 2, "{text:?}");
        assert!(catalog.containers.is_empty() && !catalog.damaged.is_empty(), "{text:?}");
        let small = Small::sample("overlay");
        small.write(small.part("layers/layers.json"), text);
        let store = small.open();
        assert_eq!(store.catalog().unwrap().images.len(), 2, "{text:?}");
        assert_eq!(store.image(app()).unwrap_err().errno(), Errno::IO, "{text:?}");
        assert!(store.config(app()).is_ok(), "{text:?}");
    }
}

#[test]
fn a_bad_name_is_told_and_leaves_the_others() {
    let small = Small::sample("overlay");
    small.edit("images/images.json", |images| {
        images[0]["names"] = json!(["docker.io/library/app:1", "../../x:1", "q.io/a/../b:1"]);
        images[1]["names"] = json!(["docker.io/library/app:1"]);
    });
    small.add_container("../x", &["a"]);
    small.edit("containers/containers.json", |containers| {
        let mut twin = containers[0].clone();
        twin["id"] = hex("twin").into();
        containers.push(twin);
    });
    let catalog = small.open().catalog().unwrap();
    assert_eq!(catalog.references.len(), 1);
    assert_eq!(catalog.containers.len(), 1);
    assert_eq!(catalog.damaged.len(), 5, "{:?}", catalog.damaged);
}

#[test]
fn a_container_whose_files_are_gone_is_being_removed() {
    let small = Small::sample("overlay");
    fs::remove_dir_all(small.home().join(hex("web-layer"))).unwrap();
    let container = small.open().container(web()).unwrap();
    assert_eq!(container.state, State::Removing);
    assert!(container.dirs.is_empty());
}

#[test]
fn two_stores_with_the_same_layers_are_told_apart() {
    let identity = |small: &Small| {
        let image = small.open().image(app()).unwrap();
        image.layers[0].dirs[0].identity
    };
    let (one, other) = (Small::sample("overlay"), Small::sample("overlay"));
    assert_ne!(identity(&one), identity(&other));
    assert_eq!(identity(&one), identity(&one));
}

#[test]
fn a_store_is_told_by_its_lists() {
    let small = Small::new("overlay");
    assert_eq!(small.open().info().driver, "overlay");
    for part in ["vfs-images", "vfs-layers"] {
        fs::create_dir(small.path(part)).unwrap();
    }
    assert_eq!(small.open().info().driver, "overlay", "the other never had an image");
    let zfs = Small::new("zfs");
    let err = ContainersStorage::open(zfs.dir.path()).unwrap_err();
    assert!(matches!(err, OpenError::UnsupportedDriver { .. }), "{err}");
    let empty = tempfile::tempdir().unwrap();
    let err = ContainersStorage::open(empty.path()).unwrap_err();
    assert!(matches!(err, OpenError::NotAStore { .. }), "{err}");
    let err = ContainersStorage::open(&empty.path().join("none")).unwrap_err();
    assert!(matches!(err, OpenError::NoSuchStore(_)), "{err}");
}

/// Moves the layers and images of `small` into the store `path` of its system, which its settings
/// name, and leaves it empty.
fn into_additional(small: &Small, path: &str) {
    let shared = small.dir.path().join(path);
    fs::create_dir_all(&shared).unwrap();
    for part in ["overlay", "overlay-images", "overlay-layers"] {
        fs::rename(small.path(part), shared.join(part)).unwrap();
        fs::create_dir(small.path(part)).unwrap();
    }
    for list in ["images/images.json", "layers/layers.json"] {
        small.write(small.part(list), "[]");
    }
}

fn settings(small: &Small, stores: &str) {
    let text = format!("[storage.options]\nadditionalimagestores = [{stores}]\n");
    small.write(small.dir.path().join("etc/containers/storage.conf"), text);
}

#[test]
fn images_of_additional_stores_are_there_and_layers_may_lie_upon_theirs() {
    let small = Small::inside("overlay", "var/lib/containers/storage");
    settings(&small, r#""/srv/shared", "/srv/none""#);
    small.add_layer("a", None);
    small.add_image(&["a"], &["docker.io/library/base:1", "docker.io/library/both:1"]);
    into_additional(&small, "srv/shared");
    let shared = small.dir.path().join("srv/shared/overlay");
    // The upper layer is made as if the lower one were here.
    small.write(small.home().join(hex("a")).join("diff/a"), "a");
    small.add_layer("b", Some("a"));
    fs::remove_dir_all(small.home().join(hex("a"))).unwrap();
    small.add_image(&["a", "b"], &["docker.io/library/app:1", "docker.io/library/both:1"]);
    small.add_container("web", &["a", "b"]);
    let store = small.open();
    let catalog = store.catalog().unwrap();
    assert_eq!(catalog.images.len(), 2);
    assert_eq!(catalog.references["base:1"], base());
    assert_eq!(catalog.references["both:1"], app(), "its own names come first");
    let damaged: Vec<String> = catalog.damaged.iter().map(ToString::to_string).collect();
    assert!(damaged.len() == 1 && damaged[0].contains("srv/none"), "{damaged:?}");
    let image = store.image(app()).unwrap();
    assert_eq!(files(&image.layers[1].dirs), ["b", "a"]);
    assert!(image.layers[1].dirs[1].root.path().starts_with(&shared));
    assert_eq!(files(&store.container(web()).unwrap().dirs), ["web-layer", "b", "a"]);
    assert_eq!(files(&store.image(base()).unwrap().layers[0].dirs), ["a"]);
    let before = store.generation().unwrap();
    fs::write(small.dir.path().join("srv/shared/overlay-images/images.json"), "[]").unwrap();
    assert_ne!(store.generation().unwrap(), before);
    settings(&small, "");
    assert!(small.open().image(base()).is_err());
}

/// What the container calls a file that user and group `id` own on disk.
fn inside(dir: &LayerDir, id: u32) -> (u32, u32) {
    let opened = dir.root.dir("").unwrap();
    let stat = Stat { uid: id, gid: id, ..opened.own_stat().unwrap() };
    let seen = dir.seen(&opened, "".as_ref(), stat).unwrap();
    (seen.uid, seen.gid)
}

#[test]
fn owners_are_told_as_the_container_sees_them() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let small = Small::inside("overlay", "home/user/store");
    for name in ["a", "b"] {
        small.add_layer(name, (name == "b").then_some("a"));
    }
    small.add_image(&["a", "b"], &["docker.io/library/app:1"]);
    small.add_container("web", &["a", "b"]);
    let map = json!([{ "container_id": 0, "host_id": 5, "size": 10 }]);
    small.edit("layers/layers.json", |layers| {
        (layers[1]["uidmap"], layers[1]["gidmap"]) = (map.clone(), map.clone());
    });
    let layer = || small.open().image(app()).unwrap().layers[1].dirs.clone();
    assert!(layer()[1].owners.is_none(), "root's own IDs");
    assert_eq!([inside(&layer()[0], 5), inside(&layer()[0], 4)], [(0, 0), (UNMAPPED, UNMAPPED)]);
    // The same store of a user, who is root of it.
    let etc = small.dir.path().join("etc");
    small.write(etc.join("passwd"), "user:x:4000000:4000000::/home/user:/bin/sh\n");
    for file in ["subuid", "subgid"] {
        small.write(etc.join(file), "user:100000:65536\n");
    }
    std::os::unix::fs::chown(&small.at, Some(4_000_000), Some(4_000_000)).unwrap();
    let dirs = layer();
    assert_eq!(dirs[0].marks, Marks::User);
    for (on_disk, image, mapped) in
        [(4_000_000, 0, UNMAPPED), (100_000, 1, UNMAPPED), (100_004, 5, 0), (0, UNMAPPED, UNMAPPED)]
    {
        assert_eq!(inside(&dirs[1], on_disk), (image, image), "{on_disk}");
        assert_eq!(inside(&dirs[0], on_disk), (mapped, mapped), "{on_disk}");
    }
    // A container whose IDs the kernel maps in the mount has the map in its own entry.
    small.edit("containers/containers.json", |containers| {
        (containers[0]["uidmap"], containers[0]["gidmap"]) = (map.clone(), map.clone());
    });
    let container = small.open().container(web()).unwrap();
    assert_eq!(inside(&container.dirs[0], 100_004), (0, 0));
    assert_eq!(inside(&container.dirs[2], 100_004), (5, 5));
}

#[test]
fn a_layer_without_its_files_is_refused_and_one_in_several_directories_is_whole() {
    let small = Small::sample("overlay");
    let layer = small.home().join(hex("b"));
    small.write(layer.join("diff1/before"), "1");
    small.write(layer.join("diff2/first"), "2");
    let dirs = small.open().image(app()).unwrap().layers[1].dirs.clone();
    assert_eq!(files(&dirs), ["b", "before", "first", "a"]);
    let identities: std::collections::BTreeSet<u64> = dirs.iter().map(|dir| dir.identity).collect();
    assert_eq!(identities.len(), 4);
    small.write(layer.join("composefs-data/composefs.blob"), "");
    let err = small.open().image(app()).unwrap_err();
    assert_eq!(err.errno(), Errno::OPNOTSUPP);
    assert!(err.to_string().contains("use_composefs"), "{err}");
    small.open().image(base()).unwrap();
}

#[test]
fn a_store_mounted_by_fuse_overlayfs_has_its_marks() {
    let small = Small::sample("overlay");
    for (noted, marks) in [("true", Marks::Fuse), ("false", Marks::Trusted), ("", Marks::Trusted)] {
        small.write(small.home().join(".has-mount-program"), noted);
        let dirs = small.open().image(app()).unwrap().layers[0].dirs.clone();
        assert_eq!(dirs[0].marks, marks, "{noted:?}");
    }
}

#[test]
fn containers_of_cri_o_have_their_pods() {
    let small = Small::sample("overlay");
    let metadata = json!({
        "pod-name": "k8s_web_prod_0123_0", "metadata-name": "nginx", "image-name": "app:1",
    });
    small.edit("containers/containers.json", |containers| {
        containers[0]["metadata"] = metadata.to_string().into();
    });
    let pod = small.open().catalog().unwrap().containers[0].pod.clone().unwrap();
    assert_eq!((&*pod.namespace, &*pod.name, &*pod.container), ("prod", "web", "nginx"));
}

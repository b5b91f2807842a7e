//! Real stores, where `../shared/vectors` has them, and small ones made here.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::Docker;
use crate::backing::{Heard, Watch};
use crate::digest::{ChainId, ContainerId, DiffId, Digest, ImageId};
use crate::store::{
    Catalog, Generation, Image, LayerDir, LayerSource, LayerStore, Marks, OpenError, State,
};

mod hostile;

/// A store that an engine wrote, unpacked; `None`, with a notice, where the archive is absent.
fn unpack(name: &str) -> Option<TempDir> {
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/vectors").join(name);
    if !archive.exists() || !rustix::process::geteuid().is_root() {
        let notice = format!("skipped: needs root and {}\n", archive.display());
        std::io::stderr().write_all(notice.as_bytes()).unwrap();
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let tar = Command::new("tar")
        .args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xf"])
        .args([archive.as_os_str(), "-C".as_ref(), dir.path().as_os_str()])
        .status();
    assert!(tar.unwrap().success());
    Some(dir)
}

/// A driver of which small stores are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Overlay2,
    Fuse,
    Copying,
    Aufs,
    Btrfs,
    Vfs,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Overlay2 => "overlay2",
            Kind::Fuse => "fuse-overlayfs",
            Kind::Copying => "overlay",
            Kind::Aufs => "aufs",
            Kind::Btrfs => "btrfs",
            Kind::Vfs => "vfs",
        }
    }
}

/// A data root made by hand: layers hold one file each, named after their directory.
struct Small {
    dir: TempDir,
    kind: Kind,
}

impl Small {
    fn new(kind: Kind) -> Small {
        let small = Small { dir: tempfile::tempdir().unwrap(), kind };
        for path in ["imagedb/content/sha256", "imagedb/metadata/sha256", "layerdb/sha256"] {
            fs::create_dir_all(small.image(path)).unwrap();
        }
        fs::create_dir_all(small.path("containers")).unwrap();
        fs::create_dir_all(small.home()).unwrap();
        small.write(small.image("repositories.json"), r#"{"Repositories":{}}"#);
        small
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// A path under `image/<driver>`.
    fn image(&self, path: &str) -> PathBuf {
        self.path("image").join(self.kind.name()).join(path)
    }

    fn home(&self) -> PathBuf {
        match self.kind {
            Kind::Vfs => self.path("vfs/dir"),
            Kind::Btrfs => self.path("btrfs/subvolumes"),
            kind => self.path(kind.name()),
        }
    }

    /// The directory that the driver names `id`.
    fn directory_of(&self, id: &str) -> PathBuf {
        match self.kind {
            Kind::Aufs => self.home().join("diff").join(id),
            _ => self.home().join(id),
        }
    }

    /// Where the files of the layer `id` are.
    fn files_of(&self, id: &str) -> PathBuf {
        let directory = self.directory_of(id);
        match self.kind {
            Kind::Overlay2 | Kind::Fuse => directory.join("diff"),
            Kind::Copying if id.starts_with("mount") => directory.join("upper"),
            Kind::Copying => directory.join("root"),
            Kind::Aufs | Kind::Btrfs | Kind::Vfs => directory,
        }
    }

    fn write(&self, path: impl AsRef<Path>, text: impl AsRef<[u8]>) {
        fs::create_dir_all(path.as_ref().parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The short name of the directory `id`.
    fn link(id: &str) -> String {
        let letters =
            Digest::of(id.as_bytes()).hex().to_uppercase().replace(['0', '1', '8', '9'], "Z");
        letters[..26].to_owned()
    }

    /// Makes the directory `id` upon that of `below`.
    fn directory(&self, id: &str, below: Option<&str>) {
        let home = self.home().join(id);
        match self.kind {
            Kind::Vfs | Kind::Btrfs => self.write(home.join(id), id),
            Kind::Copying => self.copying_directory(id, below),
            Kind::Aufs => {
                self.write(self.home().join("diff").join(id).join(id), id);
                let list = |id: &str| self.home().join("layers").join(id);
                let ancestors = below
                    .map(|below| format!("{below}\n{}", fs::read_to_string(list(below)).unwrap()));
                self.write(list(id), ancestors.unwrap_or_default());
            }
            Kind::Overlay2 | Kind::Fuse => {
                self.write(home.join("diff").join(id), id);
                self.write(home.join("link"), Small::link(id));
                fs::create_dir_all(self.home().join("l")).unwrap();
                let link = self.home().join("l").join(Small::link(id));
                symlink(format!("../{id}/diff"), link).unwrap();
                let Some(below) = below else { return };
                let upper = format!("l/{}", Small::link(below));
                let lower = match fs::read_to_string(self.home().join(below).join("lower")) {
                    Ok(lower) => format!("{upper}:{lower}"),
                    Err(_) => upper,
                };
                self.write(home.join("lower"), lower);
            }
        }
    }

    /// As the first overlay driver does: layers of images are full copies, and a container's has
    /// what its init layer had (moby `drivers/overlay`, `Create`).
    fn copying_directory(&self, id: &str, below: Option<&str>) {
        let home = self.home().join(id);
        let is_of_container = id.starts_with("mount");
        if !is_of_container {
            return self.write(home.join("root").join(id), id);
        }
        self.write(home.join("upper").join(id), id);
        let Some(below) = below else { return };
        let above = self.home().join(below).join("lower-id");
        match fs::read_to_string(above) {
            Ok(image) => self.write(home.join("lower-id"), image),
            Err(_) if !below.starts_with("mount") => self.write(home.join("lower-id"), below),
            Err(_) => {}
        }
    }

    /// Makes an image of the layers `ids`, lowest first; those that are there already are shared.
    fn add_image(&self, ids: &[&str]) -> ImageId {
        let (mut chain, mut below, mut diffs) = (None, None, Vec::new());
        for &id in ids {
            let diff = DiffId(Digest::of(id.as_bytes()));
            let parent = chain;
            chain = Some(ChainId::of(parent, diff));
            let record = self.layer(chain.unwrap());
            if !record.exists() {
                self.directory(id, below);
                self.write(record.join("cache-id"), id);
                self.write(record.join("diff"), diff.to_string());
                self.write(record.join("size"), id.len().to_string());
                self.write(record.join("tar-split.json.gz"), "");
                if let Some(parent) = parent {
                    self.write(record.join("parent"), parent.to_string());
                }
            }
            below = Some(id);
            diffs.push(diff.to_string());
        }
        let config = serde_json::json!({ "rootfs": { "type": "layers", "diff_ids": diffs } });
        let config = config.to_string();
        let id = ImageId(Digest::of(config.as_bytes()));
        self.write(self.config(id), config);
        id
    }

    fn config(&self, id: ImageId) -> PathBuf {
        self.image("imagedb/content/sha256").join(id.hex())
    }

    fn layer(&self, id: ChainId) -> PathBuf {
        self.image("layerdb/sha256").join(id.hex())
    }

    /// Writes `repositories.json` as Docker does: a new file, renamed over the old one.
    fn set_names(&self, names: &[(&str, &str, String)]) {
        let mut repositories = serde_json::Map::new();
        for (repository, reference, id) in names {
            let entry = repositories.entry(*repository).or_insert_with(|| serde_json::json!({}));
            entry.as_object_mut().unwrap().insert((*reference).to_owned(), id.clone().into());
        }
        let file = serde_json::json!({ "Repositories": repositories }).to_string();
        self.write(self.image(".tmp-repositories.json1"), file);
        fs::rename(self.image(".tmp-repositories.json1"), self.image("repositories.json")).unwrap();
    }

    fn set_parent(&self, id: ImageId, parent: &str) {
        self.write(self.image("imagedb/metadata/sha256").join(id.hex()).join("parent"), parent);
    }

    /// Makes a container of the image whose layers are `ids`.
    fn add_container(&self, name: &str, ids: &[&str]) -> ContainerId {
        let id = ContainerId(Digest::of(name.as_bytes()));
        let mount = format!("mount{name}");
        let init = format!("{mount}-init");
        self.directory(&init, ids.last().copied());
        self.directory(&mount, Some(&init));
        let chain = ids
            .iter()
            .fold(None, |chain, id| Some(ChainId::of(chain, DiffId(Digest::of(id.as_bytes())))));
        let mounts = self.mounts(id);
        self.write(mounts.join("mount-id"), &mount);
        self.write(mounts.join("init-id"), &init);
        if let Some(chain) = chain {
            self.write(mounts.join("parent"), chain.to_string());
        }
        self.set_container(id, |_| {}, name);
        self.write(self.container(id).join("hostconfig.json"), "{}\n");
        id
    }

    fn container(&self, id: ContainerId) -> PathBuf {
        self.path("containers").join(id.hex())
    }

    fn mounts(&self, id: ContainerId) -> PathBuf {
        self.image("layerdb/mounts").join(id.hex())
    }

    /// Writes the container's `config.v2.json`, after `change`.
    fn set_container(
        &self,
        id: ContainerId,
        change: impl FnOnce(&mut serde_json::Value),
        name: &str,
    ) {
        let driver = self.kind.name();
        let mut config = serde_json::json!({
            "State": { "Running": false, "StartedAt": "0001-01-01T00:00:00Z" },
            "ID": id.hex(), "Name": format!("/{name}"), "Driver": driver, "Image": "",
            "Created": "2020-02-02T02:02:02Z", "Config": { "Image": "app:1" },
        });
        change(&mut config);
        self.write(self.container(id).join("config.v2.json"), format!("{config}\n"));
    }

    fn open(&self) -> Docker {
        Docker::open(self.dir.path()).unwrap()
    }
}

const KINDS: [Kind; 6] =
    [Kind::Overlay2, Kind::Fuse, Kind::Copying, Kind::Aufs, Kind::Btrfs, Kind::Vfs];

/// The directories of the layer at `index`, by the names that Docker gives them.
fn layer_dirs(image: &Image, index: usize) -> Vec<String> {
    let dirs = &image.layers[index].dirs;
    names(dirs)
}

fn names(dirs: &[LayerDir]) -> Vec<String> {
    let name = |dir: &LayerDir| {
        let path = dir.root.path().to_str().unwrap();
        let files = ["/diff", "/root", "/upper"].iter().find_map(|files| path.strip_suffix(files));
        files.unwrap_or(path).rsplit('/').next().unwrap().to_owned()
    };
    dirs.iter().map(name).collect()
}

fn container_names(catalog: &Catalog) -> Vec<&str> {
    catalog.containers.iter().map(|container| container.name.as_str()).collect()
}

fn damage(catalog: &Catalog) -> Vec<String> {
    catalog.damaged.iter().map(ToString::to_string).collect()
}

/// Every digest and every size that a store states about itself is right.
fn validate(store: &Docker) {
    let catalog = store.catalog().unwrap();
    assert_eq!(damage(&catalog), [""; 0]);
    for (&id, &parent) in &catalog.images {
        let image = store.image(id).unwrap();
        assert_eq!(Digest::of(&image.config), id.0);
        assert_eq!(image.parent, parent);
        let mut chain = None;
        for layer in &image.layers {
            chain = Some(ChainId::of(chain, layer.diff_id));
            assert_eq!(chain, Some(layer.chain_id));
            let LayerSource::TarSplit { root, path } = &layer.source else { panic!() };
            assert!(layer.dirs.iter().all(|dir| dir.root.stat("").unwrap().is_dir()));
            assert!(root.open_file(path).is_ok());
        }
        assert!(image.references.iter().all(|name| catalog.references[name] == id));
    }
    for summary in &catalog.containers {
        let container = store.container(summary.id).unwrap();
        assert_eq!((&container.name, container.image), (&summary.name, summary.image));
    }
}

const OVERLAY_IMAGE: &str = "dbb247e1bfc01d3d1935b9b4cff4c000f51bd8fc15c70343872374bbad84059d";
const BASE_DIR: &str = "dde48af636312e5f113084bd6ba8d61780a149d5c2462ff862c3f994a23f1a44";
const MOUNT: &str = "c47a6efb8fd32b830c61317362ea276138169bcaee3f5a9735edc995a59c022c";

#[test]
fn an_overlay2_store_of_docker_20_reads_whole() {
    let Some(dir) = unpack("store-docker20.10-overlay2.tar") else { return };
    let store = Docker::open(dir.path()).unwrap();
    assert_eq!((store.info().kind, store.info().driver), ("docker", "overlay2"));
    validate(&store);
    let catalog = store.catalog().unwrap();
    assert_eq!(catalog.references.keys().collect::<Vec<_>>(), ["base:1", "c2img:1"]);
    let image = store.image(ImageId::from_hex(OVERLAY_IMAGE).unwrap()).unwrap();
    assert_eq!(image.references, ["c2img:1"]);
    assert_eq!(image.last_tagged.as_deref(), Some("2026-11-21T21:13:54.576634345Z"));
    let sizes: Vec<u64> = image.layers.iter().map(|layer| layer.size).collect();
    assert_eq!(sizes, [738, 712]);
    let own = &image.layers[1].directory;
    assert_eq!(layer_dirs(&image, 1), [own.as_str(), BASE_DIR]);
    assert!(image.layers[1].dirs.iter().all(|dir| dir.marks == Marks::Trusted));

    let container = store.container(catalog.containers[0].id).unwrap();
    assert_eq!((container.name.as_str(), container.state), ("c1", State::Created));
    assert_eq!(container.image_name, "base:1");
    assert_eq!(container.directory, MOUNT);
    let init = format!("{MOUNT}-init");
    assert_eq!(names(&container.dirs), [MOUNT, &init, BASE_DIR]);
    assert_eq!(names(&container.init_dirs), [&init, BASE_DIR]);
    assert!(container.config.ends_with(b"\n") && container.host_config.ends_with(b"\n"));
}

#[test]
fn a_vfs_store_of_docker_20_reads_whole() {
    let Some(dir) = unpack("store-docker20.10-vfs.tar") else { return };
    let store = Docker::open(dir.path()).unwrap();
    validate(&store);
    let catalog = store.catalog().unwrap();
    let parents = catalog.images.values().filter(|parent| parent.is_some()).count();
    assert_eq!((catalog.images.len(), parents), (6, 5));
    let built = catalog.references["built:1"];
    let image = store.image(built).unwrap();
    assert_eq!(image.layers.len(), 3);
    for (index, layer) in image.layers.iter().enumerate() {
        assert_eq!(layer_dirs(&image, index), [layer.directory.as_str()]);
    }
    let base = store.image(catalog.references["base:2"]).unwrap();
    assert_eq!(base.references, ["base:1", "base:2"]);
    let container = store.container(catalog.containers[0].id).unwrap();
    assert_eq!(container.state, State::Dead);
    assert_eq!((container.dirs.len(), container.init_dirs.len()), (1, 1));
    assert_eq!(names(&container.init_dirs), [format!("{}-init", container.directory)]);
    assert_eq!(container.dirs[0].marks, Marks::Complete);
}

#[test]
fn a_vfs_store_of_docker_29_reads_whole() {
    let Some(dir) = unpack("store-docker29-vfs.tar") else { return };
    let store = Docker::open(dir.path()).unwrap();
    validate(&store);
    let catalog = store.catalog().unwrap();
    let built = store.image(catalog.references["built:two"]).unwrap();
    assert_eq!(built.references, ["built:1", "built:two"]);
    assert_eq!(built.parent, None);
    assert_eq!(container_names(&catalog), ["c1"]);
}

#[test]
fn layers_are_listed_lowest_first_with_all_below_them() {
    for kind in KINDS {
        let small = Small::new(kind);
        let image = small.add_image(&["one", "two", "three"]);
        let image = small.open().image(image).unwrap();
        let own: Vec<&str> = image.layers.iter().map(|layer| layer.directory.as_str()).collect();
        assert_eq!(own, ["one", "two", "three"]);
        match kind {
            Kind::Overlay2 | Kind::Fuse | Kind::Aufs => {
                assert_eq!(layer_dirs(&image, 2), ["three", "two", "one"]);
            }
            Kind::Copying | Kind::Btrfs | Kind::Vfs => {
                assert_eq!(layer_dirs(&image, 2), ["three"]);
            }
        }
    }
}

#[test]
fn images_share_the_open_directories_of_their_layers() {
    let small = Small::new(Kind::Overlay2);
    let (first, second) = (small.add_image(&["one", "two"]), small.add_image(&["one", "more"]));
    let store = small.open();
    let root = |image: ImageId| {
        let dirs = &store.image(image).unwrap().layers[1].dirs;
        (dirs[1].root.clone(), dirs[1].identity)
    };
    let ((a, a_identity), (b, b_identity)) = (root(first), root(second));
    assert!(std::sync::Arc::ptr_eq(&a, &b));
    assert_eq!(a_identity, b_identity);
    fs::rename(small.home().join("one"), small.home().join("away")).unwrap();
    fs::create_dir_all(small.home().join("one/diff")).unwrap();
    assert!(!std::sync::Arc::ptr_eq(&a, &root(first).0), "another directory of that name");
}

#[test]
fn a_directory_in_use_is_never_opened_twice_and_others_are_closed() {
    let small = Small::new(Kind::Vfs);
    let root = |image: &Image| image.layers[0].dirs[0].root.clone();
    let ids: Vec<String> = (0..600).map(|index| format!("layer{index}")).collect();
    let images: Vec<ImageId> = ids.iter().map(|id| small.add_image(&[id])).collect();
    let store = small.open();
    let first = root(&store.image(images[0]).unwrap());
    let open = |wanted: &str| {
        let fds = fs::read_dir("/proc/self/fd").unwrap();
        let targets = fds.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
        targets.filter(|target| target.starts_with(wanted)).count()
    };
    for image in &images {
        drop(store.image(*image).unwrap());
    }
    assert!(std::sync::Arc::ptr_eq(&first, &root(&store.image(images[0]).unwrap())));
    let home = small.home();
    assert!(open(home.to_str().unwrap()) <= 258, "256, the first, and the directory above");
}

#[test]
fn an_image_of_127_layers_reads_and_one_of_501_does_not() {
    let ids: Vec<String> = (0..501).map(|index| format!("layer{index}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let small = Small::new(Kind::Overlay2);
    let image = small.add_image(&ids[..127]);
    assert_eq!(layer_dirs(&small.open().image(image).unwrap(), 126).len(), 127);
    let small = Small::new(Kind::Vfs);
    let image = small.add_image(&ids);
    assert!(small.open().image(image).is_err());
}

#[test]
fn a_container_without_an_image_has_an_init_layer_only() {
    for kind in KINDS {
        let small = Small::new(kind);
        let id = small.add_container("scratch", &[]);
        let container = small.open().container(id).unwrap();
        let below = names(&container.init_dirs);
        assert_eq!(below, ["mountscratch-init"]);
        let is_whole = matches!(kind, Kind::Copying | Kind::Btrfs | Kind::Vfs);
        assert_eq!(container.dirs.len(), if is_whole { 1 } else { 2 });
        assert_eq!(container.image, None);
    }
}

#[test]
fn without_an_init_layer_changes_count_against_the_image() {
    for kind in KINDS {
        let small = Small::new(kind);
        small.add_image(&["one", "two"]);
        let id = small.add_container("plain", &["one", "two"]);
        fs::remove_file(small.mounts(id).join("init-id")).unwrap();
        let home = small.home();
        let lists = match kind {
            Kind::Overlay2 | Kind::Fuse => ["mountplain-init/lower", "mountplain/lower"],
            Kind::Aufs => ["layers/mountplain-init", "layers/mountplain"],
            Kind::Copying => ["mountplain-init/lower-id", "mountplain/lower-id"],
            Kind::Btrfs | Kind::Vfs => ["mountplain-init/mountplain-init"; 2],
        };
        fs::copy(home.join(lists[0]), home.join(lists[1])).unwrap();
        let container = small.open().container(id).unwrap();
        assert_eq!(names(&container.init_dirs)[0], "two", "{kind:?}");
    }
}

#[test]
fn the_state_is_the_first_of_docker_s_that_fits() {
    let small = Small::new(Kind::Vfs);
    small.add_image(&["one"]);
    let id = small.add_container("c", &["one"]);
    let store = small.open();
    let (never, once) = ("0001-01-01T00:00:00Z", "2021-01-01T00:00:00.5Z");
    for (flags, started, state) in [
        (&["Running", "Paused", "Restarting"][..], once, State::Paused),
        (&["Running", "Restarting"], once, State::Restarting),
        (&["Running"], once, State::Running),
        (&["RemovalInProgress", "Dead"], once, State::Removing),
        (&["Dead"], never, State::Dead),
        (&[], never, State::Created),
        (&[], once, State::Exited),
    ] {
        let change = |config: &mut serde_json::Value| {
            config["State"] = serde_json::json!({ "StartedAt": started });
            flags.iter().for_each(|&flag| config["State"][flag] = true.into());
        };
        small.set_container(id, change, "c");
        assert_eq!(store.container(id).unwrap().state, state, "{flags:?}");
    }
}

#[test]
fn a_container_whose_files_are_gone_is_being_removed() {
    for kind in KINDS {
        let small = Small::new(kind);
        small.add_image(&["one"]);
        let (a, b) = (small.add_container("a", &["one"]), small.add_container("b", &["one"]));
        let half = small.add_container("half", &["one"]);
        fs::remove_dir_all(small.mounts(a)).unwrap();
        fs::remove_dir_all(small.directory_of("mountb")).unwrap();
        fs::remove_file(small.container(half).join("config.v2.json")).unwrap();
        let store = small.open();
        for id in [a, b] {
            let container = store.container(id).unwrap();
            assert_eq!(container.state, State::Removing);
            assert!(container.dirs.is_empty());
        }
        let catalog = store.catalog().unwrap();
        let mut listed = container_names(&catalog);
        listed.sort_unstable();
        assert_eq!(listed, ["a", "b"]);
        assert!(damage(&catalog)[0].contains("being removed"));
        assert_eq!(store.container(half).unwrap_err().errno(), rustix::io::Errno::BUSY);
        let none = ContainerId(Digest::of(b"none"));
        assert!(store.container(none).unwrap_err().is_not_found());
    }
}

#[test]
fn containers_of_another_driver_are_not_ours() {
    let small = Small::new(Kind::Overlay2);
    let id = small.add_container("c8d", &[]);
    small.set_container(id, |config| config["Driver"] = "overlayfs".into(), "c8d");
    let store = small.open();
    let catalog = store.catalog().unwrap();
    assert!(catalog.containers.is_empty() && catalog.damaged.is_empty());
    assert!(store.container(id).unwrap_err().is_not_found());
}

#[test]
fn references_come_in_the_order_of_their_full_names() {
    let small = Small::new(Kind::Vfs);
    let id = small.add_image(&["one"]);
    let names = [
        ("zeta", "zeta:1"),
        ("ghcr.io/a/b", "ghcr.io/a/b:1"),
        ("alpha/x", "alpha/x:1"),
        ("localhost:5000/y", "localhost:5000/y:1"),
    ];
    let names = names.map(|(repository, reference)| (repository, reference, id.to_string()));
    small.set_names(&names);
    let store = small.open();
    let sorted = ["alpha/x:1", "zeta:1", "ghcr.io/a/b:1", "localhost:5000/y:1"];
    assert_eq!(store.image(id).unwrap().references, sorted);
    small.set_names(&names[..1]);
    assert_eq!(store.image(id).unwrap().references, ["zeta:1"], "the list was read before");
    small.set_names(&[]);
    assert!(store.image(id).unwrap().references.is_empty());
}

#[test]
fn every_change_moves_the_generation_and_is_heard() {
    for kind in KINDS {
        let small = Small::new(kind);
        let image = small.add_image(&["one"]);
        let container = small.add_container("a", &["one"]);
        let store = small.open();
        let mut last = stable(&store);
        let (end, _keep) = std::io::pipe().unwrap();
        let mut watch = Watch::new().unwrap();
        watch.set(&store.watched().unwrap()).unwrap();
        let mut moved = |what: &str| {
            let now = stable(&store);
            assert_ne!(now, std::mem::replace(&mut last, now), "{what}");
            assert_eq!(watch.wait(&end, Some(Duration::ZERO)).unwrap(), Heard::News, "{what}");
            watch.drain().unwrap();
            watch.set(&store.watched().unwrap()).unwrap();
        };
        small.set_names(&[("app", "app:1", image.to_string())]);
        moved("tag");
        let second = small.add_image(&["one", "two"]);
        moved("image");
        small.set_parent(second, &image.to_string());
        moved("parent");
        small.add_container("b", &["one"]);
        moved("container");
        small.set_container(container, |_| {}, "renamed");
        moved("rename");
        fs::remove_file(small.container(container).join("config.v2.json")).unwrap();
        moved("removal begun");
        fs::remove_file(small.config(second)).unwrap();
        moved("image removed");
    }
}

/// The generation once the newest change is old.
fn stable(store: &Docker) -> Generation {
    std::thread::sleep(Duration::from_millis(120));
    let generation = store.generation().unwrap();
    assert_eq!(generation, store.generation().unwrap());
    generation
}

#[test]
fn a_data_root_that_is_replaced_is_read_anew() {
    let (old, new) = (Small::new(Kind::Overlay2), Small::new(Kind::Overlay2));
    let (gone, come) = (old.add_image(&["one"]), new.add_image(&["two"]));
    let store = old.open();
    assert!(store.image(gone).is_ok());
    fs::rename(old.dir.path(), old.dir.path().with_extension("away")).unwrap();
    assert!(store.generation().is_err() && store.catalog().is_err());
    fs::rename(new.dir.path(), old.dir.path()).unwrap();
    assert!(store.catalog().unwrap().images.contains_key(&come));
    assert!(store.image(gone).unwrap_err().is_not_found());
    fs::remove_dir_all(old.dir.path().with_extension("away")).unwrap();
}

#[test]
fn each_listing_equals_some_state_that_existed() {
    let small = Small::new(Kind::Vfs);
    let ids = [small.add_image(&["one"]), small.add_image(&["two"])];
    let store = small.open();
    let names =
        |at: usize| [("app", "app:1", ids[at].to_string()), ("b", "b:1", ids[at].to_string())];
    small.set_names(&names(0));
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0.. {
                small.set_names(&names(round % 2));
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
            }
        });
        for _ in 0..300 {
            let catalog = store.catalog().unwrap();
            assert_eq!(damage(&catalog), [""; 0]);
            assert_eq!(catalog.references["app:1"], catalog.references["b:1"]);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

fn error(path: &Path) -> OpenError {
    Docker::open(path).map(|_| ()).unwrap_err()
}

#[test]
fn what_is_no_store_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    assert!(matches!(error(&root.join("none")), OpenError::NoSuchStore(_)));
    assert!(matches!(error(root), OpenError::NotAStore { .. }));
    fs::write(root.join("file"), "").unwrap();
    assert!(matches!(error(&root.join("file")), OpenError::NotAStore { .. }));
    fs::create_dir_all(root.join("image")).unwrap();
    assert!(matches!(error(root), OpenError::NotAStore { .. }));
    fs::create_dir(root.join("graph")).unwrap();
    assert!(matches!(error(root), OpenError::NotAStore { .. }));
    fs::create_dir_all(root.join("image/zfs/layerdb/sha256")).unwrap();
    match error(root) {
        OpenError::UnsupportedDriver { driver, .. } => assert_eq!(driver, "zfs"),
        other => panic!("{other}"),
    }
}

#[test]
fn the_driver_is_the_one_that_was_used_last() {
    let dir = tempfile::tempdir().unwrap();
    let make = |driver: &str, layers: bool| {
        let image = dir.path().join("image").join(driver);
        fs::create_dir_all(image.join("layerdb/sha256")).unwrap();
        if layers {
            fs::create_dir_all(image.join("layerdb/sha256/x")).unwrap();
        }
        fs::write(image.join("repositories.json"), "{}").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    let driver = || Docker::open(dir.path()).unwrap().info().driver;
    make("overlay2", true);
    make("vfs", false);
    assert_eq!(driver(), "overlay2", "vfs is newer but empty");
    make("vfs", true);
    assert_eq!(driver(), "vfs");
    make("overlay2", true);
    assert_eq!(driver(), "overlay2");
}

#[test]
fn a_rootless_store_marks_as_users_may() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let small = Small::new(Kind::Overlay2);
    let image = small.add_image(&["one"]);
    std::os::unix::fs::chown(small.dir.path(), Some(1000), Some(1000)).unwrap();
    let dirs = &small.open().image(image).unwrap().layers[0].dirs;
    assert_eq!(dirs[0].marks, Marks::User);
}

//! Data roots of containerd that no engine would leave, and some that it would.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rustix::io::Errno;
use serde_json::json;
use stratafs::backing::Host;
use stratafs::digest::{Digest, ImageId};
use stratafs::store::containerd::Containerd;
use stratafs::store::{Kind, LayerSource, LayerStore, Pod, Source, State, Users, find_host_stores};
use stratafs::tree::{Filter, Options, Tree};

use crate::stores::view::View;
use crate::support::bolt::{self, bucket, put};
use crate::support::containerd::{LayerMade, Made, Stored, varint};

pub(crate) fn open(made: &Made) -> Containerd {
    made.write();
    Containerd::open(made.path(), "default").unwrap()
}

pub(crate) fn view(made: &Made) -> View {
    View { tree: Tree::new(vec![Arc::new(open(made))], Options::default()) }
}

/// Two layers of one image, both unpacked.
pub(crate) fn plain(made: &mut Made) -> (LayerMade, LayerMade, Stored) {
    let below = made.layer("default", None, "below", true);
    let top = made.layer("default", Some(&below), "top", true);
    let manifest = made.manifest("default", "amd64", &[&below, &top]);
    made.image("default", "docker.io/library/app:1", &manifest);
    (below, top, manifest)
}

/// The files of a tar by name.
pub(crate) fn members(tar: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut members = BTreeMap::new();
    for entry in tar::Archive::new(tar).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut body = Vec::new();
        entry.read_to_end(&mut body).unwrap();
        members.insert(name, body);
    }
    members
}

#[test]
fn names_are_shown_as_people_write_them() {
    let mut made = Made::new();
    let (.., manifest) = plain(&mut made);
    let digest = manifest.digest;
    for name in [
        "registry.example:5000/team/app:2",
        &format!("docker.io/library/pinned@{digest}"),
        &format!("moby-dangling@{digest}"),
        &digest.to_string(),
        "app:1",
        "import-2026",
        "UPPER case",
        "../../../etc/passwd",
    ] {
        made.image("default", name, &manifest);
    }
    let catalog = open(&made).catalog().unwrap();
    let references: Vec<&str> = catalog.references.keys().map(String::as_str).collect();
    let pinned = format!("pinned@{digest}");
    let expected = ["app:1", "import-2026", &pinned, "registry.example:5000/team/app:2"];
    assert_eq!(references, expected);
    assert_eq!(catalog.images.len(), 1);
    let damaged: Vec<String> = catalog.damaged.iter().map(ToString::to_string).collect();
    assert_eq!(damaged.len(), 2, "{damaged:?}");
    let image = open(&made).image(ImageId(digest)).unwrap();
    assert_eq!(image.references.len(), 4);
}

#[test]
fn an_image_of_kubernetes_is_found_by_its_config_as_well() {
    let mut made = Made::new();
    let (below, _, app) = plain(&mut made);
    let lone = made.manifest("default", "amd64", &[&below]);
    let config = |made: &Made, manifest: &Stored| {
        let bytes = fs::read(made.blobs().join(manifest.digest.hex())).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        Digest::parse(manifest["config"]["digest"].as_str().unwrap()).unwrap()
    };
    let (app_config, lone_config) = (config(&made, &app), config(&made, &lone));
    made.image("default", &app_config.to_string(), &app);
    // Its name went over to another image, and it is left with this one.
    made.image("default", &lone_config.to_string(), &lone);
    let tree = |options| Tree::new(vec![Arc::new(open(&made))], options);
    let all = View { tree: tree(Options::default()) };
    assert_eq!(all.names("by-id/images").len(), 2, "no image is listed twice");
    for (digest, id) in [(app_config, app.digest), (lone_config, lone.digest)] {
        let hex = digest.hex();
        let spellings = [format!("sha256:{hex}"), hex.clone(), hex[..13].to_owned()];
        let spellings = spellings.map(|text| format!("images/{text}"));
        for name in spellings.iter().chain([&format!("by-id/images/{hex}")]) {
            assert_eq!(all.text(&format!("{name}/id")), format!("{id}\n"), "{name}");
            assert_eq!(all.text(&format!("{name}/rootfs/below")), "below", "{name}");
        }
    }
    let images = vec![glob::Pattern::new("app:*").unwrap()];
    let filter = Filter { images, ..Filter::default() };
    let some = View { tree: tree(Options { filter, ..Options::default() }) };
    assert!(some.attr(&format!("images/{app_config}")).is_ok());
    for hidden in [lone_config, lone.digest] {
        assert!(some.attr(&format!("images/{hidden}")).is_err());
    }
}

#[test]
fn of_an_index_the_host_s_platform_is_shown_and_the_others_are_found() {
    let mut made = Made::new();
    let below = made.layer("default", None, "below", true);
    let arm_layer = made.layer("default", None, "arm", false);
    let absent = made.layer("default", None, "absent", false);
    let (amd, arm) = (
        made.manifest("default", "amd64", &[&below]),
        made.manifest("default", "arm64", &[&arm_layer]),
    );
    let other = made.manifest("other", "s390x", &[&absent]);
    let entry = |stored: &Stored, architecture: &str| {
        let mut entry = stored.json();
        entry["platform"] = json!({ "os": "linux", "architecture": architecture });
        entry
    };
    let attestation = made.manifest("default", "", &[&arm_layer, &below]);
    let mut entries = vec![entry(&attestation, "unknown"), entry(&other, "s390x")];
    entries[0]["platform"]["os"] = "unknown".into();
    entries.extend([entry(&arm, "arm64"), entry(&amd, "amd64"), entry(&amd, "../..")]);
    let index = made.index("default", &entries);
    made.image("default", "docker.io/library/multi:1", &index);
    let store = open(&made);
    let image = store.image(ImageId(index.digest)).unwrap();
    let platforms: Vec<&str> = image.platforms.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(platforms, ["linux-amd64", "linux-arm64"], "no attestation, and none of `other`");
    let host = if cfg!(target_arch = "aarch64") { &arm } else { &amd };
    assert_eq!(image.stored.unwrap().manifest, host.digest);
    let arm_image = store.image(ImageId(arm.digest)).unwrap();
    assert_eq!(arm_image.references, ["multi:1"]);
    assert!(arm_image.layers[0].dirs.is_empty() && image.layers[0].dirs.len() == 1);
    assert!(matches!(arm_image.layers[0].source, LayerSource::Blob(_)));
    let view = view(&made);
    let saved = members(&view.read("images/multi:1/platforms/linux-arm64/save.tar"));
    assert!(!saved.contains_key(&format!("blobs/sha256/{}", index.digest.hex())));
    let saved = members(&view.read("images/multi:1/save.tar"));
    for blob in [&index, &amd, &arm, &attestation] {
        assert!(saved.contains_key(&format!("blobs/sha256/{}", blob.digest.hex())));
    }
    assert!(!saved.contains_key(&format!("blobs/sha256/{}", other.digest.hex())));
}

#[test]
fn containers_are_their_snapshots_and_know_their_pods() {
    let mut made = Made::new();
    let (below, top, _) = plain(&mut made);
    let id = "ab".repeat(32);
    let pod = [
        ("io.kubernetes.pod.namespace", "kube-system"),
        ("io.kubernetes.pod.name", "dns-0"),
        ("io.kubernetes.container.name", "dns"),
    ];
    let name = "docker.io/library/app:1";
    let files = made.container("default", &id, name, &top, &pod);
    fs::write(files.join("new"), "new").unwrap();
    made.container("default", "plain", name, &below, &[("nerdctl/name", "web")]);
    // As Docker's are while they run: somebody else manages the files.
    put(&mut made.meta, &["v1", "default", "containers", "docker"], "snapshotKey", "");
    let store = open(&made);
    let catalog = store.catalog().unwrap();
    let found: Vec<_> =
        catalog.containers.iter().map(|it| (it.name.as_str(), it.pod.clone())).collect();
    let [namespace, name, container] = ["kube-system", "dns-0", "dns"].map(str::to_owned);
    let pod = Pod { namespace, name, container };
    assert_eq!(found, [(id.as_str(), Some(pod)), ("web", None)]);
    let container = store.container(catalog.containers[0].id).unwrap();
    assert_eq!((container.dirs.len(), container.init_dirs.len()), (3, 2));
    assert_eq!((container.state, container.id.hex()), (State::Created, id.clone()));
    let view = view(&made);
    assert_eq!(view.text(&format!("containers/{id}/changes")), "A /new\n");
    assert_eq!(view.names("containers/web/rootfs"), ["below"]);
    assert_eq!(view.names("pods/kube-system/dns-0"), ["dns"]);
    fs::remove_dir_all(files).unwrap();
    let gone = open(&made).container(catalog.containers[0].id).unwrap();
    assert_eq!(gone.state, State::Removing);
}

#[test]
fn another_namespace_has_the_file_and_not_the_record() {
    let mut made = Made::new();
    let (below, top, manifest) = plain(&mut made);
    made.image("other", "docker.io/library/app:1", &manifest);
    made.write();
    assert_eq!(Containerd::namespaces(made.path()).unwrap(), ["default", "other"]);
    let other = Containerd::open(made.path(), "other").unwrap();
    assert_eq!(other.catalog().unwrap().references.len(), 1, "the name is there");
    assert!(other.blob(manifest.digest).unwrap().is_none());
    assert_eq!(other.image(ImageId(manifest.digest)).unwrap_err().errno(), Errno::IO);
    let default = Containerd::open(made.path(), "default").unwrap();
    assert!(default.blob(below.blob.digest).unwrap().is_some());
    fs::write(made.blobs().join(top.blob.digest.hex()), "short").unwrap();
    assert!(default.blob(top.blob.digest).unwrap().is_none(), "a file of another size");
}

#[test]
fn a_damaged_blob_is_an_error_and_never_other_bytes() {
    let mut made = Made::new();
    let (_, top, manifest) = plain(&mut made);
    let view = view(&made);
    let good = view.read("images/app:1/save.tar");
    let flip = |digest: Digest| {
        let path = made.blobs().join(digest.hex());
        let mut bytes = fs::read(&path).unwrap();
        bytes[0] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    flip(top.blob.digest);
    assert_eq!(view.try_read("images/app:1/save.tar").unwrap_err().errno(), Errno::IO);
    flip(top.blob.digest);
    assert_eq!(view.read("images/app:1/save.tar"), good);
    flip(manifest.digest);
    let store = Containerd::open(made.path(), "default").unwrap();
    assert_eq!(store.config(ImageId(manifest.digest)).unwrap_err().errno(), Errno::IO);
    assert_eq!(store.catalog().unwrap().references.len(), 1, "and it stays listed");
    let path = made.blobs().join(manifest.digest.hex());
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", path).unwrap();
    assert_eq!(store.config(ImageId(manifest.digest)).unwrap_err().errno(), Errno::IO);
}

#[test]
fn an_init_snapshot_is_no_layer() {
    let mut made = Made::new();
    let below = made.layer("default", None, "below", true);
    let chain = below.chain_id.to_string();
    let init = made.snapshot("default", "build-init", Some(&chain), 3);
    fs::write(init.join(".dockerenv"), "").unwrap();
    let top = made.layer("default", Some(&below), "top", true);
    // As Docker commits: upon the init snapshot of the container.
    let key = top.chain_id.to_string();
    let path = ["v1", "default", "snapshots", "overlayfs", &key];
    put(&mut made.meta, &path, "parent", "build-init");
    let manifest = made.manifest("default", "amd64", &[&below, &top]);
    made.image("default", "docker.io/library/app:1", &manifest);
    made.container("default", "c", "docker.io/library/app:1", &top, &[]);
    let view = view(&made);
    assert_eq!(view.names("images/app:1/rootfs"), ["below", "top"]);
    assert_eq!(view.names("containers/c/rootfs"), [".dockerenv", "below", "top"]);
}

#[test]
fn loops_end() {
    let started = Instant::now();
    let mut made = Made::new();
    let (below, top, manifest) = plain(&mut made);
    let index = made.index("default", &[]);
    let text = fs::read_to_string(made.blobs().join(index.digest.hex())).unwrap();
    // An index can't hold its own digest; a record may say that a file is it.
    let looped = text.replace("[]", &format!("[{}]", index.json()));
    fs::write(made.blobs().join(index.digest.hex()), looped).unwrap();
    made.image("default", "docker.io/library/looped:1", &index);
    let (one, other) = (below.chain_id.to_string(), top.chain_id.to_string());
    let path = ["v1", "default", "snapshots", "overlayfs", &one];
    put(&mut made.meta, &path, "parent", &other);
    made.container("default", "c", "docker.io/library/app:1", &top, &[]);
    for (name, parent) in [("a", "b"), ("b", "a")] {
        let target = made.index("default", &[manifest.json(), json!({ "size": name })]);
        let name = format!("docker.io/library/{name}:1");
        made.image("default", &name, &target);
        let labels = ["v1", "default", "images", &name, "labels"];
        let parent = format!("sha256:{}", Digest::of(parent.as_bytes()).hex());
        put(&mut made.meta, &labels, "org.mobyproject.image.parent", parent);
    }
    let store = open(&made);
    let catalog = store.catalog().unwrap();
    assert!(store.config(ImageId(index.digest)).is_err());
    assert_eq!(store.container(catalog.containers[0].id).unwrap_err().errno(), Errno::IO);
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn what_the_engine_writes_shows() {
    let mut made = Made::new();
    let (.., manifest) = plain(&mut made);
    let store = open(&made);
    let before = store.generation().unwrap();
    assert_eq!(store.generation().unwrap(), before);
    made.image("default", "docker.io/library/new:1", &manifest);
    // As bbolt commits: into the same file.
    fs::write(made.meta_db(), bolt::file(&made.meta, 4096)).unwrap();
    assert_ne!(store.generation().unwrap(), before);
    assert!(store.catalog().unwrap().references.contains_key("new:1"));
    fs::remove_file(made.meta_db()).unwrap();
    assert!(store.catalog().unwrap_err().is_not_found());
}

#[test]
fn docker_s_images_are_found_in_either_place() {
    let mut made = Made::new();
    let layer = made.layer("moby", None, "file", true);
    let manifest = made.manifest("moby", "amd64", &[&layer]);
    made.image("moby", "docker.io/library/app:1", &manifest);
    made.write();
    let host = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let docker = host.path().join("docker");
    fs::create_dir_all(docker.join("containerd")).unwrap();
    fs::create_dir(docker.join("containers")).unwrap();
    assert!(Containerd::open_docker(&docker).unwrap().is_none());
    for place in ["docker/containerd/daemon", "containerd"] {
        let place = host.path().join(place);
        fs::rename(made.path(), &place).unwrap();
        let view = View::of(&docker);
        assert_eq!(view.text("images/app:1/rootfs/file"), "file");
        assert_eq!(view.names("containers"), Vec::<String>::new());
        fs::rename(place, made.path()).unwrap();
    }
    let new = Made::new();
    new.write();
    fs::rename(new.path(), docker.join("containerd/daemon")).unwrap();
    assert_eq!(View::of(&docker).names("images"), Vec::<String>::new());
    fs::rename(docker.join("containerd/daemon"), new.path()).unwrap();
}

/// Gives a file or directory to the user and the group `id`; only root may.
fn give(path: &Path, id: u32) {
    std::os::unix::fs::lchown(path, Some(id), Some(id)).unwrap();
}

fn owner(view: &View, path: &str) -> (u32, u32) {
    let attr = view.attr(path).unwrap_or_else(|err| panic!("{path}: {err}"));
    (attr.uid, attr.gid)
}

/// Says that a snapshot is for a container in a user namespace with these IDs.
fn remap(made: &mut Made, key: &str, ids: &str) {
    for label in ["containerd.io/snapshot/uidmapping", "containerd.io/snapshot/gidmapping"] {
        put(
            &mut made.meta,
            &["v1", "default", "snapshots", "overlayfs", key, "labels"],
            label,
            ids,
        );
    }
}

/// The root of the files of the snapshot that was made last.
fn last_snapshot(made: &Made) -> PathBuf {
    let home = made.path().join("io.containerd.snapshotter.v1.overlayfs/snapshots");
    let numbers = fs::read_dir(&home).unwrap().map(|it| it.unwrap().file_name());
    let last = numbers.map(|name| name.to_str().unwrap().parse::<u64>().unwrap()).max().unwrap();
    home.join(format!("{last}/fs"))
}

#[test]
fn owners_in_a_user_namespace_are_those_that_the_container_sees() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut made = Made::new();
    let (below, top, _) = plain(&mut made);
    let app = "docker.io/library/app:1";
    give(&last_snapshot(&made).join("top"), 33);
    // The layers are mapped in the mount, as the kernel does for pods.
    let idmapped = made.container("default", "idmapped", app, &top, &[]);
    remap(&mut made, "idmapped", "0:100000:1000,1000:500000:10");
    // A copy of all files with other owners, as where the kernel can't.
    let key = format!("{}-200000-200000", below.chain_id);
    let copied = made.snapshot("default", &key, Some(&below.chain_id.to_string()), 3);
    let shifted = made.container("default", "shifted", app, &below, &[]);
    put(&mut made.meta, &["v1", "default", "snapshots", "overlayfs", "shifted"], "parent", &key);
    let ranges = json!([{ "containerID": 0, "hostID": 200_000, "size": 65536 }]);
    let spec = json!({ "linux": { "uidMappings": ranges, "gidMappings": ranges } }).to_string();
    let mut any = vec![0x12];
    any.extend([(spec.len() & 0x7f) as u8 | 0x80, (spec.len() >> 7) as u8]);
    any.extend(spec.bytes());
    put(&mut made.meta, &["v1", "default", "containers", "shifted"], "spec", any);
    // A label that is none says nothing.
    let odd = made.container("default", "odd", app, &top, &[]);
    remap(&mut made, "odd", "0:100000");
    for (path, id) in [
        (idmapped.join("root"), 100_000),
        (idmapped.join("user"), 500_007),
        (idmapped.join("stranger"), 7),
        (copied.join("below"), 200_005),
        (shifted.join("own"), 200_001),
        (odd.join("own"), 4),
    ] {
        fs::write(&path, "").unwrap();
        give(&path, id);
    }
    let view = view(&made);
    for (path, id) in [
        ("images/app:1/rootfs/top", 33),
        ("containers/idmapped/rootfs/top", 33),
        ("containers/idmapped/rootfs/root", 0),
        ("containers/idmapped/rootfs/user", 1007),
        ("containers/idmapped/rootfs/stranger", 65534),
        ("containers/shifted/rootfs/below", 5),
        ("containers/shifted/rootfs/own", 1),
        ("containers/shifted/diff/own", 1),
        ("containers/odd/rootfs/own", 4),
    ] {
        assert_eq!(owner(&view, path), (id, id), "{path}");
    }
}

#[test]
fn the_store_of_an_engine_without_root_is_found_and_has_its_own_owners_and_marks() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let host = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let share = host.path().join("home/user/.local/share");
    fs::create_dir_all(&share).unwrap();
    fs::create_dir(host.path().join("etc")).unwrap();
    let accounts = "root:x:0:0::/root:/bin/sh\nuser:x:4000000:4000000::/home/user:/bin/sh\n";
    fs::write(host.path().join("etc/passwd"), accounts).unwrap();
    for file in ["etc/subuid", "etc/subgid"] {
        fs::write(host.path().join(file), "user:100000:65536\n").unwrap();
    }
    let mut made = Made::new();
    let (_, top, _) = plain(&mut made);
    let opaque = last_snapshot(&made);
    let files = made.container("default", "web", "docker.io/library/app:1", &top, &[]);
    remap(&mut made, "web", "0:2:10");
    made.write();
    fs::create_dir(opaque.join("dir")).unwrap();
    let lowest = made.path().join("io.containerd.snapshotter.v1.overlayfs/snapshots/1/fs");
    fs::create_dir(lowest.join("dir")).unwrap();
    fs::write(lowest.join("dir/hidden"), "").unwrap();
    let mark = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(opaque.join("dir"), "user.overlay.opaque", b"y", mark).unwrap();
    for (path, id) in [
        (lowest.join("below"), 4_000_000),
        (opaque.join("top"), 100_032),
        (opaque.join("dir"), 0),
        (files.join("own"), 100_004),
        (made.path().to_owned(), 4_000_000),
    ] {
        if !path.exists() {
            fs::write(&path, "").unwrap();
        }
        give(&path, id);
    }
    let at = share.join("containerd");
    fs::rename(made.path(), &at).unwrap();
    let found = find_host_stores(&Host::open(host.path()).unwrap(), Users::All);
    assert_eq!(found, [Source { kind: Some(Kind::Containerd), path: at.clone() }]);
    let view = View::of(&at);
    for (path, id) in [
        ("images/app:1/rootfs/below", 0),
        ("images/app:1/rootfs/top", 33),
        ("images/app:1/rootfs/dir", 65534),
        ("containers/web/rootfs/top", 33),
        // On disk the engine's fifth, which is the container's third.
        ("containers/web/rootfs/own", 3),
    ] {
        assert_eq!(owner(&view, path), (id, id), "{path}");
    }
    assert_eq!(view.names("images/app:1/rootfs/dir"), Vec::<String>::new(), "the mark of any user");
    fs::rename(&at, made.path()).unwrap();
}

/// Asks a store for all that it has; whatever it says, it must say it soon and in order.
fn look_at_all(store: &Containerd) {
    let Ok(catalog) = store.catalog() else { return };
    for id in catalog.images.keys() {
        if let Ok(image) = store.image(*id) {
            for (_, platform) in &image.platforms {
                let _ = store.image(*platform);
            }
        }
    }
    for container in &catalog.containers {
        let _ = store.container(container.id);
    }
    let _ = (store.generation(), store.usage());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn no_damage_of_a_database_does_harm(
        edits in proptest::collection::vec((0.0..1.0f64, any::<u8>()), 1..30),
        in_meta in any::<bool>(),
    ) {
        let mut made = Made::new();
        let (_, top, manifest) = plain(&mut made);
        let index = made.index("default", &[manifest.json()]);
        made.image("default", "docker.io/library/multi:1", &index);
        made.container("default", "c", "docker.io/library/app:1", &top, &[]);
        bucket(&mut made.meta, &["v1", "default", "leases"]);
        let store = open(&made);
        look_at_all(&store);
        let path = if in_meta { made.meta_db() } else { made.snapshots_db() };
        let mut bytes = fs::read(&path).unwrap();
        for (at, byte) in edits {
            let at = 4 * 4096 + (at * (bytes.len() - 4 * 4096) as f64) as usize;
            bytes[at] = byte;
        }
        fs::write(path, bytes).unwrap();
        look_at_all(&store);
    }
}

#[test]
fn sizes_are_numbers_of_bytes() {
    let mut made = Made::new();
    let (.., manifest) = plain(&mut made);
    for (name, size) in [("negative", varint(-1)), ("none", Vec::new()), ("long", vec![0xff; 11])] {
        let name = format!("docker.io/library/{name}:1");
        made.image("default", &name, &manifest);
        put(&mut made.meta, &["v1", "default", "images", &name, "target"], "size", size);
    }
    let catalog = open(&made).catalog().unwrap();
    assert_eq!(catalog.references.len(), 1);
    assert_eq!(catalog.damaged.len(), 3);
}

//! The stores of a real containerd, alone and under Docker, and the archives that they made of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use stratafs::digest::Digest;
use stratafs::store::{self, Context, LayerStore, Source};
use stratafs::tree::{Options, Tree};

use crate::golden::assert_same;
use crate::handmade_containerd;
use crate::stores::golden;
use crate::stores::view::View;

/// Where Docker's local registry of the fixture stood.
const REGISTRY: &str = "127.0.0.1:5555/team";

fn expected_file(fixture: &str, name: &str) -> Option<String> {
    let path = golden::fixtures()?.join(format!("{fixture}-expected/{name}"));
    Some(fs::read_to_string(path).unwrap())
}

#[test]
fn docker_s_own_archives_come_out_byte_for_byte() {
    let Some(docker) = golden::store(golden::DOCKER_CONTAINERD) else { return };
    let Some(expected) = golden::expected(golden::DOCKER_CONTAINERD) else { return };
    let view = View::of(docker.path());
    for (name, theirs) in [
        ("app:1.0", "save-app10"),
        ("registry.example/team/app:1.0", "save-regtag"),
        ("registry.example/team/app", "save-regrepo"),
        ("sha256:796d5bb3981b1d509908761309eb74442be687cd8bb41cf943d8734947402642", "save-id"),
        ("796d5bb3981b", "save-shortid"),
        ("6a864e180d187ab7d2cb138faa0577e87b191367ac9fb2641dc25e44cc70123c", "save-dangling"),
        ("meta:1", "save-meta"),
        ("built:1", "save-built"),
        (&solo(), "save-solo"),
        (&format!("{REGISTRY}/dig-c8d"), "save-digrepo"),
        (&format!("{REGISTRY}/multi:1"), "save-mplat"),
        (&format!("{REGISTRY}/partial:1"), "save-partial"),
        (&format!("{REGISTRY}/zstd2:1"), "save-zstd2"),
        (&format!("{REGISTRY}/multi:1/platforms/linux-amd64"), "save-mplat-amd64"),
        (&format!("{REGISTRY}/multi:1/platforms/linux-arm64"), "save-mplat-arm64"),
        ("multiload:1", "save-mpload"),
        ("attestload:1", "save-attestload"),
        (&format!("{REGISTRY}/dig-ov2:1"), "save-loaded-oci-uncompressed"),
        (&format!("{REGISTRY}/dig-old:1"), "save-loaded-legacy-mixed"),
    ] {
        let theirs = fs::read(expected.path().join(format!("tars/{theirs}.tar"))).unwrap();
        assert_same(&view.read(&format!("images/{name}/save.tar")), &theirs, name);
        let ours = view.read(&format!("images/{name}/formats/containerd.tar"));
        assert_same(&ours, &theirs, name);
    }
    for name in
        ["build1", "build2", "noop", "created-renamed", "stopped", "running", "fromid", "hostnet"]
    {
        let theirs = fs::read(expected.path().join(format!("tars/export-{name}.tar"))).unwrap();
        assert_same(&view.read(&format!("containers/{name}/export.tar")), &theirs, name);
        let changes = expected_file(golden::DOCKER_CONTAINERD, &format!("diff-{name}.txt"));
        assert_eq!(view.text(&format!("containers/{name}/changes")), changes.unwrap(), "{name}");
    }
}

#[test]
fn ctr_s_own_archives_come_out_byte_for_byte() {
    let Some(containerd) = golden::store(golden::CONTAINERD) else { return };
    let Some(expected) = golden::expected(golden::CONTAINERD) else { return };
    let view = View { tree: Tree::new(namespaces(containerd.path()), Options::default()) };
    let theirs = fs::read(expected.path().join("ctr-app10.tar")).unwrap();
    assert_same(&view.read("namespaces/default/images/app:1.0/save.tar"), &theirs, "app:1.0");
    let both = fs::read(expected.path().join("ctr-both.tar")).unwrap();
    let ours = view.read("namespaces/default/images/.save/app:1.0+app:2.0.tar");
    if ours != both {
        // ctr lists the two in manifest.json in random order; all else is the same.
        assert_eq!(members(&ours), members(&both));
    }
}

#[test]
fn a_layout_has_the_blobs_as_they_are_stored_and_every_platform() {
    let Some(docker) = golden::store(golden::DOCKER_CONTAINERD) else { return };
    let view = View::of(docker.path());
    let mut seen = 0;
    for image in view.names("images").iter().filter(|name| name.contains(':')) {
        let Ok(save) = view.try_read(&format!("images/{image}/save.tar")) else { continue };
        let saved = members(&save);
        let files =
            saved.iter().filter(|(name, _)| !name.ends_with('/') && *name != "manifest.json");
        let mut blobs = 0;
        for (name, bytes) in files {
            let ours = view.read(&format!("images/{image}/oci/{name}"));
            assert!(ours == *bytes, "{image}: {name}");
            blobs += usize::from(name.starts_with("blobs/"));
        }
        assert_eq!(view.names(&format!("images/{image}/oci/blobs/sha256")).len(), blobs, "{image}");
        seen += 1;
    }
    assert!(seen > 8, "{seen}");
    let ino = |path: &str| view.attr(path).unwrap().ino;
    let [of_one, of_two] =
        ["app:1.0", "app:2.0"].map(|image| format!("images/{image}/oci/blobs/sha256"));
    let theirs = view.names(&of_two);
    let mut shared = view.names(&of_one);
    shared.retain(|name| theirs.contains(name));
    assert!(!shared.is_empty(), "app:2.0 is built upon app:1.0");
    for name in shared {
        let inos = [&of_one, &of_two].map(|blobs| ino(&format!("{blobs}/{name}")));
        assert_eq!(inos[0], inos[1], "{name}: one file under every name");
    }
}

/// Docker lists images in `manifest.json` in random order, and all that it was asked for in
/// `index.json`, in that order.
#[test]
fn several_images_are_what_docker_was_asked_for() {
    let Some(docker) = golden::store(golden::DOCKER_CONTAINERD) else { return };
    let Some(expected) = golden::expected(golden::DOCKER_CONTAINERD) else { return };
    let view = View::of(docker.path());
    let dangling = [
        "sha256:6a864e180d187ab7d2cb138faa0577e87b191367ac9fb2641dc25e44cc70123c",
        "sha256:7b73bd4d1b987c08192db0eb4fa90487500c6768ef913694d96cf72c864a2cf1",
    ];
    for (path, theirs) in [
        (".save/app:1.0+app:2.0+base:1.tar", "save-multi"),
        (".save/registry.example%2Fteam%2Fapp:1.0+tmp:1+app:1.0.tar", "save-multi2"),
        (".save/796d5bb3981b+app:1.0.tar", "save-idtag"),
        (&format!(".save/{}.tar", dangling.join("+")), "save-dangpair"),
        ("app/save.tar", "save-repo-app"),
    ] {
        let bytes = fs::read(expected.path().join(format!("tars/{theirs}.tar"))).unwrap();
        let ours = view.read(&format!("images/{path}"));
        assert_eq!(ours.len(), bytes.len(), "{theirs}");
        let (ours, bytes) = (members(&ours), members(&bytes));
        let text = |tar: &BTreeMap<String, Vec<u8>>, name: &str| {
            String::from_utf8_lossy(&tar[name]).into_owned()
        };
        for name in ["index.json", "manifest.json"] {
            assert_eq!(text(&ours, name), text(&bytes, name), "{theirs}: {name}");
        }
        assert!(ours == bytes, "{theirs}");
    }
}

/// What an archive calls the layers of its image, lowest first.
fn layers_in(archive: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    let items: Vec<Value> = serde_json::from_slice(&archive["manifest.json"]).unwrap();
    let [item] = &items[..] else { panic!("{items:?}") };
    let layers = item["Layers"].as_array().unwrap().iter();
    layers.map(|layer| layer.as_str().unwrap().to_owned()).collect()
}

/// Whatever is compressed stays so; of the lowest layers those are left out that the base has as
/// the same blobs, and a layout without them has the blobs of the archive without them.
#[test]
fn a_delta_has_the_stored_blobs_but_those_of_its_base() {
    let Some(docker) = golden::store(golden::DOCKER_CONTAINERD) else { return };
    let view = View::of(docker.path());
    let names = view.names("images").into_iter().filter(|name| name.contains(':'));
    let read = |name: String| {
        let save = view.try_read(&format!("images/{name}/save.tar")).ok()?;
        Some((name, members(&save)))
    };
    let images: Vec<_> = names.filter_map(read).collect();
    let (mut smaller, mut compressed) = (0, 0);
    for (name, whole) in &images {
        for (base, below) in &images {
            let (layers, others) = (layers_in(whole), layers_in(below));
            let shared = layers.iter().zip(&others).take_while(|(one, other)| one == other);
            let left_out: Vec<&String> = shared.map(|(layer, _)| layer).collect();
            let delta = members(&view.read(&format!("images/{name}/delta/{base}.tar")));
            let expected = whole.iter().filter(|(path, _)| !left_out.contains(path));
            let expected: BTreeMap<_, _> =
                expected.map(|(path, bytes)| (path.clone(), bytes.clone())).collect();
            assert!(delta == expected, "{name} on {base}: {:?}", delta.keys());
            let blobs = view.names(&format!("images/{name}/oci-delta/{base}/blobs/sha256"));
            let in_delta = delta.keys().filter_map(|path| path.strip_prefix("blobs/sha256/"));
            let in_delta: Vec<_> = in_delta.filter(|name| !name.is_empty()).collect();
            assert_eq!(blobs, in_delta, "{name} on {base}");
            smaller += usize::from(!left_out.is_empty() && name != base);
            compressed += layers
                .iter()
                .filter(|path| delta.get(*path).is_some_and(|it| it[0] == 0x1f))
                .count();
        }
    }
    assert!(smaller > 3 && compressed > 3, "{smaller} {compressed}");
}

/// The files of a tar by name, `manifest.json` as a set.
fn members(tar: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut members = handmade_containerd::members(tar);
    if let Some(manifest) = members.get_mut("manifest.json") {
        let mut items: Vec<serde_json::Value> = serde_json::from_slice(manifest).unwrap();
        items.sort_by_key(ToString::to_string);
        *manifest = serde_json::to_vec(&items).unwrap();
    }
    members
}

fn namespaces(path: &Path) -> Vec<Arc<dyn LayerStore>> {
    store::open_all(&Source { kind: None, path: path.to_owned() }, &Context::default()).unwrap()
}

/// A file of the engine's own words about a fixture, a JSON value a line.
fn lines(fixture: &str, name: &str) -> Option<Vec<Value>> {
    let text = expected_file(fixture, name)?;
    Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

#[test]
fn everything_that_docker_lists_is_found() {
    let Some(docker) = golden::store(golden::DOCKER_CONTAINERD) else { return };
    let view = View::of(docker.path());
    let name = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    for row in lines(golden::DOCKER_CONTAINERD, "images.jsonl").unwrap() {
        let (repository, tag, id) = (name(&row, "Repository"), name(&row, "Tag"), name(&row, "ID"));
        let digest = name(&row, "Digest");
        let spellings = match (repository.as_str(), tag.as_str()) {
            ("<none>", _) => vec![id.clone(), id[..19].to_owned(), id[7..19].to_owned()],
            (_, "<none>") => vec![format!("{repository}@{digest}")],
            _ => vec![format!("{repository}:{tag}")],
        };
        for spelling in spellings {
            assert_eq!(
                view.text(&format!("images/{spelling}/id")),
                format!("{id}\n"),
                "{spelling}"
            );
        }
        let by_id = view.text(&format!("by-id/images/{}/id", &id[7..]));
        assert_eq!(by_id, format!("{id}\n"));
    }
    for row in lines(golden::DOCKER_CONTAINERD, "ps.jsonl").unwrap() {
        let (id, name) = (name(&row, "ID"), name(&row, "Names"));
        assert_eq!(view.text(&format!("containers/{name}/id")), format!("{id}\n"));
        let state = view.text(&format!("containers/{name}/state"));
        assert!(["created\n", "exited\n"].contains(&&*state), "{name}: {state}");
    }
    assert_eq!(view.names("containers").len(), 8);
    assert_eq!(view.names("volumes").len(), 7);
}

#[test]
fn images_and_containers_are_shown_as_docker_29_shows_them() {
    let Some(docker) = golden::store(golden::DOCKER_CONTAINERD) else { return };
    let view = View::of(docker.path());
    let read = |path: &str| -> Value { serde_json::from_slice(&view.read(path)).unwrap() };
    let expected = |name: &str| -> Vec<Value> {
        serde_json::from_str(&expected_file(golden::DOCKER_CONTAINERD, name).unwrap()).unwrap()
    };
    for image in expected("inspect-images.json") {
        let id = image["Id"].as_str().unwrap();
        assert_eq!(read(&format!("images/{id}/inspect.json"))[0], image, "{id}");
        let steps = format!("history-{}.jsonl", &id[7..]);
        let steps = lines(golden::DOCKER_CONTAINERD, &steps).unwrap();
        let history = view.text(&format!("images/{id}/history"));
        let rows: Vec<&str> = history.lines().skip(1).collect();
        // A step whose command has several lines takes as many.
        let ids = rows.iter().filter_map(|row| row.split_whitespace().next());
        let ids: Vec<&str> =
            ids.filter(|word| word.starts_with("sha256:") || *word == "<missing>").collect();
        let expected: Vec<&str> = steps.iter().map(|step| step["ID"].as_str().unwrap()).collect();
        assert_eq!(ids, expected, "{id}");
    }
    let docker_root = "/var/lib/docker/volumes";
    for mut container in expected("inspect-containers.json") {
        let name = container["Name"].as_str().unwrap().trim_start_matches('/').to_owned();
        let mut ours = read(&format!("containers/{name}/inspect.json"))[0].take();
        for shown in [&mut ours, &mut container] {
            let mounts = shown["Mounts"].as_array_mut().unwrap();
            mounts.sort_by_key(|mount| mount["Destination"].to_string());
            for mount in mounts {
                // Where the data root lay, and lies now.
                let source = mount["Source"].as_str().unwrap();
                let here = docker.path().join("volumes").to_string_lossy().into_owned();
                mount["Source"] = source.replace(&here, docker_root).into();
            }
        }
        assert_eq!(ours, container, "{name}");
    }
}

/// Sizes of layers are those of their snapshots.
#[test]
fn history_has_the_sizes_of_snapshots() {
    let Some(docker) = golden::store(golden::DOCKER_CONTAINERD) else { return };
    let view = View::of(docker.path());
    let history = view.text("images/meta:1/history");
    let sizes: Vec<&str> = history
        .lines()
        .skip(1)
        .filter_map(|row| row.split("  ").find(|it| it.trim().parse::<u64>().is_ok()))
        .collect();
    assert_eq!(sizes.iter().map(|size| size.trim()).collect::<Vec<_>>(), ["0", "2166784"]);
}

/// Docker never fetched the layer of `zstd:1`, whose snapshot it had; its own archive of it names
/// blobs that are not in there.
#[test]
fn an_image_without_its_blob_is_saved_as_one_that_loads() {
    let Some(docker) = golden::store(golden::DOCKER_CONTAINERD) else { return };
    let view = View::of(docker.path());
    let image = format!("images/{REGISTRY}/zstd:1");
    let layer = &view.names(&format!("{image}/layers"))[0];
    let described = view.read(&format!("{image}/layers/{layer}/layer.json"));
    let described: Value = serde_json::from_slice(&described).unwrap();
    assert_eq!(described["exact"], false);
    let rebuilt = view.read(&format!("{image}/layers/{layer}/layer.tar"));
    let members = members(&view.read(&format!("{image}/save.tar")));
    let json = |path: &str| -> Value { serde_json::from_slice(&members[path]).unwrap() };
    let manifest = &json("manifest.json")[0];
    assert_eq!(manifest["RepoTags"], serde_json::json!([format!("{REGISTRY}/zstd:1")]));
    let [config, layer] =
        [&manifest["Config"], &manifest["Layers"][0]].map(|it| it.as_str().unwrap());
    let digest = Digest::of(&rebuilt);
    assert_eq!(layer, format!("blobs/sha256/{}", digest.hex()));
    assert_eq!(members[layer], rebuilt);
    assert_eq!(json(config)["rootfs"]["diff_ids"], serde_json::json!([digest.to_string()]));
    for (path, body) in &members {
        if let Some(hex) = path.strip_prefix("blobs/sha256/").filter(|hex| !hex.is_empty()) {
            assert_eq!(Digest::of(body).hex(), hex);
        }
    }
    let target = json("index.json")["manifests"][0]["digest"].as_str().unwrap().to_owned();
    let target = json(&format!("blobs/sha256/{}", &target[7..]));
    assert_eq!(target["layers"][0]["digest"], digest.to_string());
    assert_eq!(target["config"]["digest"].as_str().unwrap()[7..], config["blobs/sha256/".len()..]);
}

/// `solo` has the layer of `zstd:1` as another blob, which is there.
#[test]
fn a_layer_that_is_rebuilt_for_one_image_is_whole_in_another() {
    let Some(docker) = golden::store(golden::DOCKER_CONTAINERD) else { return };
    let view = View::of(docker.path());
    let tars = [format!("{REGISTRY}/zstd:1"), solo()].map(|image| {
        let layers = format!("images/{image}/layers");
        let path = format!("{layers}/{}/layer.tar", view.names(&layers)[0]);
        (view.attr(&path).unwrap().ino, Digest::of(&view.read(&path)))
    });
    let diff_id = "sha256:65bc33c8ae70b9d7ab29fb92c0c589c789b08abfb57b18d408ee6a1a2913b3ba";
    assert_eq!(tars[1].1.to_string(), diff_id);
    assert_ne!(tars[0].1, tars[1].1);
    assert_ne!(tars[0].0, tars[1].0, "an inode number for two files");
    let members = members(&view.read(&format!("images/{}/formats/oci.tar", solo())));
    assert!(members.contains_key(&format!("blobs/sha256/{}", &diff_id[7..])));
    for (path, body) in members.iter().filter(|(path, _)| path.starts_with("blobs/sha256/")) {
        let hex = &path["blobs/sha256/".len()..];
        assert!(hex.is_empty() || Digest::of(body).hex() == hex, "{path}");
    }
}

#[test]
fn namespaces_of_containerd_hold_what_ctr_lists() {
    let Some(containerd) = golden::store(golden::CONTAINERD) else { return };
    let stores = namespaces(containerd.path());
    let shown: Vec<_> =
        stores.iter().map(|store| store.info().namespace.clone().unwrap()).collect();
    assert_eq!(shown, ["default", "k8s.io"]);
    let view = View { tree: Tree::new(stores, Options::default()) };
    for namespace in shown {
        let images = expected_file(golden::CONTAINERD, &format!("images-{namespace}.txt")).unwrap();
        for row in images.lines().skip(1) {
            let words: Vec<&str> = row.split_whitespace().collect();
            let path = format!("namespaces/{namespace}/images/{}", words[0]);
            assert_eq!(view.text(&format!("{path}/id")).trim(), words[2]);
        }
    }
    let path = "namespaces/default/containers";
    assert_eq!(view.names(path), ["ctrcreated", "ctrnative", "ctrrun"]);
    let spec: Value =
        serde_json::from_slice(&view.read(&format!("{path}/ctrrun/config.json"))).unwrap();
    assert_eq!(spec["ociVersion"], "1.3.0");
    assert_eq!(view.link(&format!("{path}/ctrrun/image")), "../../images/app:2.0");
    // The native snapshotter copies what overlayfs merges; `ctrnative` ran.
    let [native, overlay] =
        ["ctrnative", "ctrcreated"].map(|name| view.names(&format!("{path}/{name}/rootfs")));
    let made: Vec<_> = native.iter().filter(|name| !overlay.contains(name)).collect();
    assert_eq!(made, ["dev", "run"]);
    assert_eq!(native.len(), overlay.len() + made.len());
    assert_eq!(view.text(&format!("{path}/ctrnative/changes")), "A /dev\nA /run\n");
    assert_eq!(view.text(&format!("{path}/ctrcreated/changes")), "");
    assert!(view.text(&format!("{path}/ctrrun/changes")).lines().count() > 0);
    let graph = view.text(&format!("{path}/ctrnative/inspect.json"));
    assert!(graph.contains("\"Name\": \"native\""), "{graph}");
}

fn solo() -> String {
    let digest = "53268b5ab1641b60e0a9701e80395e6e1237ef136e34e8ca20bac7c6a74fe775";
    format!("{REGISTRY}/solo@sha256:{digest}")
}

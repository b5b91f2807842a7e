//! Lists of manifests, whole and broken.

use super::*;
use crate::store::manifest::Platform;

/// An index of these manifests, with their platforms.
fn index(entries: &[(&str, &str)]) -> String {
    let entry = |(manifest, architecture): &(&str, &str)| {
        json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 7,
            "digest": Digest::of(manifest.as_bytes()).to_string(),
            "platform": { "os": Platform::host().os, "architecture": architecture },
        })
    };
    let entries: Vec<Value> = entries.iter().map(entry).collect();
    json!({ "schemaVersion": 2, "manifests": entries }).to_string()
}

/// A store whose images `app:1` and the nameless one have manifests.
fn sample() -> Small {
    let small = Small::sample("overlay");
    small.edit("images/images.json", |images| {
        for image in images {
            let manifest = if image["id"] == app().hex() { "of app" } else { "of base" };
            let digest = Digest::of(manifest.as_bytes());
            let names = image["big-data-names"].as_array_mut().unwrap();
            names.push(format!("manifest-{digest}").into());
        }
    });
    small
}

#[test]
fn a_list_shows_the_image_for_this_host_and_has_the_others() {
    let small = sample();
    let host = Platform::host();
    let entries = [("of base", "other"), ("of app", &*host.architecture), ("elsewhere", "s390x")];
    let id = small.add_list("list", "localhost/list:1", &index(&entries));
    let store = small.open();
    let catalog = store.catalog().unwrap();
    assert_eq!(catalog.damaged.len(), 0, "{:?}", catalog.damaged);
    assert_eq!(catalog.references["localhost/list:1"], id);
    let image = store.image(id).unwrap();
    assert_eq!((image.id, image.layers.len()), (id, 2));
    assert_eq!(image.references, ["localhost/list:1"]);
    assert_eq!(Digest::of(&image.config), app().0);
    assert_eq!(store.config(id).unwrap(), image.config);
    let mut platforms = vec![(host.name().unwrap(), app()), (format!("{}-other", host.os), base())];
    platforms.sort();
    assert_eq!(image.platforms, platforms);
    // Without one for this host it is the first that is here.
    small.add_list("list", "localhost/list:1", &index(&entries[..1]));
    assert_eq!(Digest::of(&store.config(id).unwrap()), base().0);
}

#[test]
fn a_list_of_which_nothing_is_here_is_an_image_without_layers() {
    let small = sample();
    let null = r#"{"mediaType":"application/vnd.oci.image.index.v1+json","manifests":null}"#;
    for text in [null, &index(&[]), &index(&[("elsewhere", "amd64")])] {
        let id = small.add_list("list", "localhost/list:1", text);
        let store = small.open();
        assert_eq!(store.catalog().unwrap().damaged.len(), 0, "{text}");
        let image = store.image(id).unwrap();
        assert_eq!((image.layers.len(), image.platforms.len()), (0, 0), "{text}");
        let config: Value = serde_json::from_slice(&store.config(id).unwrap()).unwrap();
        assert_eq!(config["created"], "2026-11-21T21:23:25Z");
    }
}

#[test]
fn a_broken_list_leaves_its_neighbours_and_lists_nest_in_nothing() {
    let small = sample();
    let own = Digest::of(b"empty").to_string();
    let nested = index(&[]).replace("[]", &format!(r#"[{{"digest":"{own}","size":7}}]"#));
    let id = small.add_list("nested", "localhost/nested:1", &nested);
    assert_eq!(small.open().image(id).unwrap().layers.len(), 0, "not itself");
    for text in ["", "{", "[]", r#"{"manifests":7}"#, r#"{"config":{},"layers":[]}"#] {
        let id = small.add_list("list", "localhost/list:1", text);
        let store = small.open();
        let catalog = store.catalog().unwrap();
        assert_eq!(catalog.damaged.len(), 1, "{text}");
        assert!(store.image(id).is_err() && store.config(id).is_err(), "{text}");
        assert_eq!(store.image(app()).unwrap().layers.len(), 2, "{text}");
    }
    let list = small.part("images").join(hex("list")).join("manifest");
    fs::remove_file(&list).unwrap();
    symlink("/etc/passwd", list).unwrap();
    assert_eq!(small.open().catalog().unwrap().damaged.len(), 1);
}

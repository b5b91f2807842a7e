//! The store of a real Podman, and the archives that it made of it.

use std::fs;

use stratafs::store::{self, Source, State};
use stratafs::tar::header::Type;

use crate::golden::{adjusted, assert_same};
use crate::stores::golden;
use crate::stores::view::View;

#[test]
fn everything_that_podman_lists_is_found() {
    let Some(podman) = golden::store(golden::PODMAN) else { return };
    let source = Source { kind: None, path: podman.path().to_owned() };
    let store = store::open(&source, &store::Context::default()).unwrap();
    assert_eq!((store.info().kind, store.info().driver), ("podman", "overlay"));
    let catalog = store.catalog().unwrap();
    assert!(catalog.damaged.is_empty(), "{:?}", catalog.damaged);
    let names: Vec<&str> = catalog.references.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "localhost/app:1.0",
            "localhost/app:2.0",
            "localhost/app:latest",
            "localhost/base:1",
            "localhost/papp:1.0",
            "registry.example/team/papp:1.0",
        ]
    );
    let containers = catalog.containers.iter().map(|found| {
        let container = store.container(found.id).unwrap();
        (found.name.as_str(), container.image_name, container.dirs.len(), container.state)
    });
    let containers: Vec<_> = containers.collect();
    let papp = || "localhost/papp:1.0".to_owned();
    assert_eq!(
        containers,
        [
            ("pbuild", "localhost/base:1".to_owned(), 2, State::Exited),
            ("prun", papp(), 3, State::Running),
            ("pcreated", papp(), 3, State::Created)
        ]
    );
    let view = View::of(podman.path());
    let inspect = view.read("containers/prun/inspect.json");
    let inspect: serde_json::Value = serde_json::from_slice(&inspect).unwrap();
    assert_eq!(inspect[0]["Name"], "prun");
    assert_eq!(inspect[0]["ImageName"], "localhost/papp:1.0");
    assert_eq!(view.link("containers/prun/image"), "../../images/localhost/papp:1.0");
}

#[test]
fn archives_have_podman_s_own_bytes() {
    let Some(podman) = golden::store(golden::PODMAN) else { return };
    let Some(expected) = golden::expected(golden::PODMAN) else { return };
    let view = View::of(podman.path());
    for (ours, theirs) in [
        ("images/localhost/papp:1.0/save.tar", "save-docker-archive.tar"),
        ("images/localhost/papp:1.0/formats/podman.tar", "save-docker-archive.tar"),
        ("containers/pcreated/export.tar", "export-pcreated.tar"),
        ("containers/prun/export.tar", "export-prun.tar"),
    ] {
        let theirs = fs::read(expected.path().join(theirs)).unwrap();
        assert_same(&view.read(ours), &theirs, ours);
    }
}

/// `podman save -m` takes images in random order.
#[test]
fn several_images_are_those_of_podman() {
    let Some(podman) = golden::store(golden::PODMAN) else { return };
    let Some(expected) = golden::expected(golden::PODMAN) else { return };
    let theirs = fs::read(expected.path().join("save-multi.tar")).unwrap();
    let view = View::of(podman.path());
    let papp = "localhost%2Fpapp:1.0+registry.example%2Fteam%2Fpapp:1.0";
    let orders = [format!("{papp}+localhost%2Fbase:1"), format!("localhost%2Fbase:1+{papp}")];
    let ours = orders.map(|names| view.read(&format!("images/.save/{names}.tar")));
    assert!(ours.contains(&theirs), "neither order gives save-multi.tar");
}

/// The layer that Podman made of `pbuild` when it committed it. In the store that it wrote, the
/// whiteouts are one file with several names, which the archive of the fixture does not tell.
#[test]
fn a_diff_is_what_podman_commits() {
    let Some(podman) = golden::store(golden::PODMAN) else { return };
    let view = View::of(podman.path());
    let layers = "images/localhost/papp:1.0/layers";
    let top = view.names(layers).pop().unwrap();
    let committed = view.read(&format!("{layers}/{top}/layer.tar"));
    let committed = adjusted(&committed, |header| {
        if header.typeflag == Type::Regular {
            header.link.clear();
        }
    });
    assert_same(&view.read("containers/pbuild/diff.tar"), &committed, "diff.tar");
}

//! Several stores in one mount: namespaces, pods, platforms, and what a mount was asked to show.

use std::sync::Arc;

use stratafs::archive::Flavour;
use stratafs::store::LayerStore;
use stratafs::tree::{Filter, Options, Tree};

use crate::stores::toy::{self, Toy};
use crate::stores::view::View;

const NO_POD: [&str; 3] = ["", "", ""];

fn view(stores: Vec<Toy>, options: Options) -> View {
    let shared = |store: Toy| -> Arc<dyn LayerStore> { Arc::new(store) };
    View { tree: Tree::new(stores.into_iter().map(shared).collect(), options) }
}

fn asked_for(images: &[&str], containers: &[&str]) -> Options {
    let patterns =
        |globs: &[&str]| globs.iter().map(|glob| glob::Pattern::new(glob).unwrap()).collect();
    let filter =
        Filter { images: patterns(images), containers: patterns(containers), ..Filter::default() };
    Options { filter, ..Options::default() }
}

#[test]
fn a_store_of_one_namespace_is_the_tree_and_of_several_each_is_one() {
    let (_dir, path) = toy::place();
    let toy = |namespace| {
        let mut toy = Toy::new(&path, Some(namespace));
        toy.add_image(&format!("{namespace}/app:1"));
        toy
    };
    let one = view(vec![toy("moby")], Options::default());
    assert_eq!(one.names(""), ["README", "by-id", "containers", "images", "volumes"]);
    assert_eq!(one.names("images/moby"), ["app", "app:1"]);

    let both = view(vec![toy("default"), toy("k8s.io")], Options::default());
    assert_eq!(both.names(""), ["README", "namespaces"]);
    assert_eq!(both.names("namespaces"), ["default", "k8s.io"]);
    assert_eq!(both.names("namespaces/k8s.io/images/k8s.io"), ["app", "app:1"]);
    assert!(both.attr("namespaces/default/images/k8s.io").is_err());
    assert!(both.attr("namespaces/moby").is_err() && both.attr("images").is_err());
    assert!(both.text(".stratafs/version").contains('.'));
    let ids = ["default", "k8s.io"].map(|name| both.attr(&format!("namespaces/{name}/images")));
    assert_ne!(ids[0].as_ref().unwrap().ino, ids[1].as_ref().unwrap().ino);
    assert_eq!(both.tree.space().unwrap().total, 1000, "one file system");

    let (_dir, elsewhere) = toy::place();
    let stores = vec![toy("default"), Toy::new(&elsewhere, Some("default")), toy("k8s.io")];
    let all = view(stores, Options::default());
    assert_eq!(all.names(""), ["README", "toy", "toy-2"]);
    assert_eq!(all.names("toy"), ["README", "namespaces"]);
    assert_eq!(all.names("toy-2"), ["README", "by-id", "containers", "images", "volumes"]);
    assert_eq!(all.tree.space().unwrap().total, 2000);
}

#[test]
fn containers_of_kubernetes_are_found_by_their_pods() {
    let (_dir, path) = toy::place();
    let mut toy = Toy::new(&path, None);
    let app = toy.add_image("app:1");
    toy.add_container("c1", app, "2024-01-01T00:00:00Z", ["kube-system", "dns-7", "dns"]);
    toy.add_container("c2", app, "2024-01-02T00:00:00Z", ["default", "web-0", "web"]);
    toy.add_container("c3", app, "2024-01-04T00:00:00Z", ["default", "web-0", "web"]);
    toy.add_container("c4", app, "2024-01-03T00:00:00Z", ["default", "web-0", "web"]);
    toy.add_container("c5", app, "2024-01-03T00:00:00Z", ["default", "web-0", "log"]);
    for (name, pod) in [
        ("c6", ["..", "p", "c"]),
        ("c7", ["default", "a/b", "c"]),
        ("c8", ["default", "", "c"]),
        ("c9", ["default", "p", "."]),
    ] {
        toy.add_container(name, app, "2024-01-03T00:00:00Z", pod);
    }
    toy.add_container("plain", app, "2024-01-03T00:00:00Z", NO_POD);
    let view = view(vec![toy], Options::default());
    assert_eq!(view.names(""), ["README", "by-id", "containers", "images", "pods", "volumes"]);
    assert_eq!(view.names("pods"), ["default", "kube-system"]);
    assert_eq!(view.names("pods/default"), ["web-0"]);
    let names = view.names("pods/default/web-0");
    assert_eq!(names.len(), 4);
    assert_eq!(view.link("pods/default/web-0/web"), "../../../containers/c3", "the newest");
    for name in names.iter().filter(|name| name.starts_with("web~")) {
        let target = view.link(&format!("pods/default/web-0/{name}"));
        assert!(["c2", "c4"].contains(&target.rsplit('/').next().unwrap()), "{target}");
    }
    assert_eq!(view.link("pods/kube-system/dns-7/dns"), "../../../containers/c1");
    for missing in ["pods/other", "pods/default/dns-7", "pods/default/web-0/none", "pods/.."] {
        assert!(view.attr(missing).is_err(), "{missing}");
    }
}

#[test]
fn an_image_has_its_other_platforms_below_it() {
    let (_dir, path) = toy::place();
    let mut toy = Toy::new(&path, None);
    let both = toy.add_index("both:1", &["amd64", "arm64"]);
    toy.add_index("single:1", &["amd64"]);
    toy.add_image("plain:1");
    let view = view(vec![toy], Options { flavour: Some(Flavour::Docker29), ..Options::default() });
    let id = both.hex();
    for name in ["images/both:1", "images/both", &format!("by-id/images/{id}")] {
        assert!(view.names(name).contains(&"platforms".to_owned()), "{name}");
        assert_eq!(view.names(&format!("{name}/platforms")), ["linux-arm64"]);
        let of = |at: &str| view.text(&format!("{name}{at}/config.json"));
        assert!(of("").contains("amd64") && of("/platforms/linux-arm64").contains("arm64"));
        let below = view.names(&format!("{name}/platforms/linux-arm64"));
        assert!(below.contains(&"rootfs".to_owned()) && below.contains(&"save.tar".to_owned()));
        for absent in ["platforms", "used-by", "tags"] {
            assert!(!below.contains(&absent.to_owned()));
            assert!(view.attr(&format!("{name}/platforms/linux-arm64/{absent}")).is_err());
        }
        assert_eq!(view.text(&format!("{name}/platforms/linux-arm64/rootfs/hello")), "hello\n");
        // It is on top, so it is not listed; but found, as `docker save --platform` is.
        let host = view.text(&format!("{name}/platforms/linux-amd64/config.json"));
        assert_eq!(host, of(""));
    }
    for name in ["images/single:1", "images/plain:1"] {
        assert!(!view.names(name).contains(&"platforms".to_owned()), "{name}");
    }
    assert!(view.attr("images/plain:1/platforms").is_err());
    assert_eq!(view.names("by-id/images").len(), 3, "no platform is listed by itself");
}

#[test]
fn what_was_not_asked_for_is_nowhere() {
    let (_dir, path) = toy::place();
    let mut toy = Toy::new(&path, None);
    let app = toy.add_image("app:1");
    toy.add_image("app:2");
    let other = toy.add_image("ghcr.io/org/other:1");
    toy.add_container("web", app, "2024-01-01T00:00:00Z", ["default", "web-0", "web"]);
    toy.add_container("log", other, "2024-01-01T00:00:00Z", ["kube-system", "log-0", "log"]);
    toy.add_container("web2", other, "2024-01-01T00:00:00Z", NO_POD);
    let view = view(vec![toy], asked_for(&["app:1"], &["web*"]));
    assert_eq!(view.names("images"), ["app", "app:1"]);
    assert_eq!(view.names("images/app/tags"), ["1"]);
    assert_eq!(view.names("by-id/images"), [app.hex()]);
    for hidden in ["images/app:2", "images/ghcr.io", &format!("by-id/images/{}", other.hex())] {
        assert!(view.attr(hidden).is_err(), "{hidden}");
    }
    assert!(view.attr(&format!("images/{}", other.hex())).is_err());
    assert_eq!(view.names("containers"), ["web", "web2"]);
    assert_eq!(view.names("by-id/containers").len(), 2);
    assert_eq!(view.names("images/app:1/used-by"), ["web"]);
    assert_eq!(view.names("pods"), ["default"]);
    assert!(view.attr("containers/log").is_err());
    assert_eq!(view.link("containers/web/image"), "../../images/app:1");
    assert!(!view.names("containers/web2").contains(&"image".to_owned()), "it would lead nowhere");
    assert!(view.attr("containers/web2/image").is_err());
}

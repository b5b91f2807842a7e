//! Stores that are damaged, or made to harm: the object is damaged, its neighbours are not, and
//! nothing outside is opened.

use std::os::unix::fs::symlink;

use rustix::fs::{CWD, Mode, mkfifoat};

use super::*;

/// What no field may be followed by, whatever it names.
const TRAVERSALS: [&str; 12] = [
    "../../../../../../etc",
    "/etc",
    "..",
    ".",
    "",
    "a/b",
    "base/../base",
    "l",
    "base\0",
    "base\nbase",
    "caf\u{e9}",
    "sha256:../../../../../../../../../../../../../../../../../../../../etc/passwd",
];

/// A store with two images on one base and a container of each: one to harm, one beside it.
struct Pair {
    small: Small,
    store: Docker,
    harmed: ImageId,
    other: ImageId,
    harmed_container: ContainerId,
    other_container: ContainerId,
}

impl Pair {
    fn new(kind: Kind) -> Pair {
        let small = Small::new(kind);
        let (harmed, other) =
            (small.add_image(&["base", "bad"]), small.add_image(&["base", "good"]));
        let harmed_container = small.add_container("badbox", &["base", "bad"]);
        let other_container = small.add_container("goodbox", &["base", "good"]);
        small.set_names(&[
            ("bad", "bad:1", harmed.to_string()),
            ("good", "good:1", other.to_string()),
        ]);
        let store = small.open();
        let pair = Pair { small, store, harmed, other, harmed_container, other_container };
        pair.check("a new store");
        pair.store.image(harmed).unwrap();
        pair.store.container(harmed_container).unwrap();
        pair
    }

    /// The record of the harmed image's own layer.
    fn record(&self) -> PathBuf {
        self.small.layer(chain(&["base", "bad"]))
    }

    /// The neighbours are whole.
    fn check(&self, what: &str) {
        let catalog = self.store.catalog().unwrap();
        assert!(catalog.images.contains_key(&self.other), "{what}");
        assert_eq!(catalog.references.get("good:1"), Some(&self.other), "{what}");
        assert!(container_names(&catalog).contains(&"goodbox"), "{what}");
        let image = self.store.image(self.other).unwrap();
        assert_eq!(image.layers.len(), 2, "{what}");
        let container = self.store.container(self.other_container).unwrap();
        assert_eq!(container.state, State::Created, "{what}");
        assert!(!container.dirs.is_empty(), "{what}");
    }

    fn image_is_damaged(&self, what: &str) {
        let err = self.store.image(self.harmed).unwrap_err();
        assert!(!err.is_not_found(), "{what}: {err}");
        self.check(what);
    }

    fn container_is_damaged(&self, what: &str) {
        assert!(self.store.container(self.harmed_container).is_err(), "{what}");
        self.check(what);
    }
}

fn chain(ids: &[&str]) -> ChainId {
    let link = |chain, id: &&str| Some(ChainId::of(chain, DiffId(Digest::of(id.as_bytes()))));
    ids.iter().fold(None, link).unwrap()
}

/// Runs `check` on `file` with each of `texts` in it, and puts the old contents back.
fn with_each(file: &Path, texts: &[&str], mut check: impl FnMut(&str)) {
    let old = fs::read(file).unwrap();
    for text in texts {
        fs::write(file, text).unwrap();
        check(&format!("{}: {text:?}", file.display()));
    }
    fs::write(file, old).unwrap();
}

#[test]
fn no_field_of_a_layer_leads_elsewhere() {
    for kind in KINDS {
        let pair = Pair::new(kind);
        for field in ["cache-id", "diff", "parent", "size"] {
            with_each(&pair.record().join(field), &TRAVERSALS, |what| pair.image_is_damaged(what));
        }
        let sizes = ["-1", "+1", "1e3", "0x10", "9223372036854775808", "1 1"];
        with_each(&pair.record().join("size"), &sizes, |what| pair.image_is_damaged(what));
        let others = [chain(&["base", "good"]).to_string(), chain(&["base", "bad"]).to_string()];
        let others: Vec<&str> = others.iter().map(String::as_str).collect();
        with_each(&pair.record().join("parent"), &others, |what| pair.image_is_damaged(what));
        pair.store.image(pair.harmed).unwrap();
    }
}

#[test]
fn no_lower_file_leads_elsewhere() {
    let pair = Pair::new(Kind::Overlay2);
    let (base, bad, good) = (Small::link("base"), Small::link("bad"), Small::link("good"));
    let lowers = [
        "l/../../../etc".to_owned(),
        "../base/diff".to_owned(),
        format!("l/{base}/../{base}"),
        format!("l/{base}:"),
        format!("l/{}", &base[..25]),
        format!("l/{}", base.to_lowercase()),
        format!("l/{}", "A".repeat(26)),
        format!("l/{bad}"),
        format!("l/{bad}:l/{base}"),
        format!("l/{good}"),
        format!("l/{good}:l/{base}"),
        format!("l/{base}:l/{base}"),
        vec![format!("l/{base}"); 501].join(":"),
    ];
    let mut lowers: Vec<&str> = lowers.iter().map(String::as_str).collect();
    lowers.extend(TRAVERSALS);
    let home = pair.small.home();
    with_each(&home.join("bad/lower"), &lowers, |what| {
        pair.image_is_damaged(what);
        pair.container_is_damaged(what);
    });
    with_each(&home.join("mountbadbox/lower"), &lowers, |what| pair.container_is_damaged(what));
    fs::remove_file(home.join("bad/lower")).unwrap();
    pair.image_is_damaged("no lower");
}

#[test]
fn no_list_of_ancestors_leads_elsewhere() {
    for (kind, lists) in [
        (Kind::Aufs, ["layers/mountbadbox", "layers/mountbadbox-init"]),
        (Kind::Copying, ["mountbadbox-init/lower-id", "mountbadbox-init/lower-id"]),
    ] {
        let pair = Pair::new(kind);
        let mut texts = vec![
            "../../etc".to_owned(),
            "mountbadbox-init".to_owned(),
            "mountbadbox-init\nmountbadbox".to_owned(),
            "mountbadbox\nmountbadbox".to_owned(),
            "none".to_owned(),
            "base\n".repeat(501),
            "BAD".to_owned(),
        ];
        texts.extend(TRAVERSALS.map(str::to_owned).into_iter().filter(|text| !text.is_empty()));
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        for list in lists {
            with_each(&pair.small.home().join(list), &texts, |what| {
                pair.container_is_damaged(what)
            });
        }
        pair.store.container(pair.harmed_container).unwrap();
    }
}

#[test]
fn no_link_of_a_layer_leads_elsewhere() {
    let pair = Pair::new(Kind::Overlay2);
    let init = pair.small.home().join("l").join(Small::link("mountbadbox-init"));
    let targets = [
        "../../etc/diff",
        "/etc/diff",
        "../good",
        "../good/diff/",
        "../good/../bad/diff",
        "../l/diff",
        "../good/diff", // a layer of the store, but not the one that the lower file goes on with
        "mountbadbox-init/diff",
        "..",
    ];
    for target in targets {
        fs::remove_file(&init).unwrap();
        symlink(target, &init).unwrap();
        pair.container_is_damaged(target);
    }
    fs::remove_file(&init).unwrap();
    pair.container_is_damaged("no link");
    fs::create_dir_all(init.join("diff")).unwrap();
    pair.container_is_damaged("a directory for a link");
    let unused = pair.small.home().join("bad/link");
    with_each(&unused, &TRAVERSALS, |_| drop(pair.store.image(pair.harmed).unwrap()));
}

#[test]
fn no_field_of_a_container_leads_elsewhere() {
    for kind in KINDS {
        let pair = Pair::new(kind);
        let id = pair.harmed_container;
        for field in ["mount-id", "init-id", "parent"] {
            let file = pair.small.mounts(id).join(field);
            with_each(&file, &TRAVERSALS, |what| pair.container_is_damaged(what));
        }
        let long = "x".repeat(256);
        let names = ["../../etc", "a/b", "", "/", "//x", ".hidden", "a b", "a\u{1b}[2J", &long];
        for name in names {
            pair.small.set_container(id, |config| config["Name"] = name.into(), "");
            pair.container_is_damaged(name);
            assert_eq!(pair.store.catalog().unwrap().damaged.len(), 1, "{name}");
        }
        for (field, value) in [
            ("ID", serde_json::json!("../../etc")),
            ("ID", pair.other_container.hex().into()),
            ("Image", "../../etc".into()),
            ("Image", "sha256:".into()),
            ("Name", 7.into()),
            ("State", "running".into()),
            ("Config", serde_json::json!([])),
        ] {
            pair.small.set_container(id, |config| config[field] = value.clone(), "badbox");
            pair.container_is_damaged(&format!("{field}: {value}"));
            assert_eq!(pair.store.catalog().unwrap().damaged.len(), 1, "{field}: {value}");
        }
    }
}

#[test]
fn of_two_containers_with_one_name_one_is_listed() {
    let pair = Pair::new(Kind::Vfs);
    pair.small.set_container(pair.harmed_container, |_| {}, "goodbox");
    let catalog = pair.store.catalog().unwrap();
    assert_eq!(container_names(&catalog), ["goodbox"]);
    assert!(damage(&catalog)[0].contains("same name"));
}

#[test]
fn a_bad_reference_takes_no_other_with_it() {
    let pair = Pair::new(Kind::Vfs);
    let (bad, good) = (pair.harmed.to_string(), pair.other.to_string());
    let none = ImageId(Digest::of(b"none")).to_string();
    let long = format!("x:{}", "1".repeat(600));
    for (repository, reference, id) in [
        ("bad", "bad:1", "../../etc"),
        ("bad", "bad:1", &bad[7..]),
        ("bad", "bad:1", none.as_str()),
        ("bad", "good:2", &bad),
        ("bad", "bad", &bad),
        ("bad", "bad:", &bad),
        ("bad", "bad:../../etc", &bad),
        ("../../etc", "../../etc:1", &bad),
        ("/etc", "/etc:1", &bad),
        ("a//b", "a//b:1", &bad),
        ("a/./b", "a/./b:1", &bad),
        ("", ":1", &bad),
        ("x", &long, &bad),
        ("b\n", "b\n:1", &bad),
        ("b\u{e9}", "b\u{e9}:1", &bad),
    ] {
        let names = [(repository, reference, id.to_owned()), ("good", "good:1", good.clone())];
        pair.small.set_names(&names);
        let catalog = pair.store.catalog().unwrap();
        assert_eq!(catalog.references.len(), 1, "{reference}");
        assert_eq!(catalog.damaged.len(), 1, "{reference}");
        pair.check(reference);
    }
    for (name, json) in [
        ("null", r#"{"Repositories":null}"#),
        ("empty", "{}"),
        ("wrong types", r#"{"Repositories":{"a":7,"b":null,"c":{"c:1":[]}}}"#),
        ("a list", "[]"),
        ("cut", r#"{"Repositories":{"a":{"a:1""#),
        ("nothing", ""),
    ] {
        fs::write(pair.small.image("repositories.json"), json).unwrap();
        let catalog = pair.store.catalog().unwrap();
        assert_eq!(catalog.images.len(), 2, "{name}");
        assert!(catalog.references.is_empty(), "{name}");
        assert!(pair.store.image(pair.other).unwrap().references.is_empty(), "{name}");
    }
}

#[test]
fn deep_and_huge_and_ambiguous_json_is_refused() {
    let pair = Pair::new(Kind::Vfs);
    let deep = format!("{}{}", "[".repeat(1 << 20), "]".repeat(1 << 20));
    let wrapped = format!(r#"{{"Repositories":{{"a":{deep}}}}}"#);
    let add = |config: &[u8]| {
        let id = ImageId(Digest::of(config));
        pair.small.write(pair.small.config(id), config);
        id
    };
    for config in [
        deep.as_bytes(),
        format!(r#"{{"rootfs":{{"diff_ids":{deep}}}}}"#).as_bytes(),
        br#"{"rootfs":{"diff_ids":[]},"rootfs":{"diff_ids":["x"]}}"#,
        br#"{"rootfs":{"diff_ids":["../../etc"]}}"#,
        br#"{"rootfs":{"diff_ids":["sha256:../../../../etc"]}}"#,
        br#"{"rootfs":{"diff_ids":{}}}"#,
        b"{}",
        b"",
        b"\xff\xfe",
    ] {
        assert!(pair.store.image(add(config)).is_err());
    }
    let unknown = add(format!(r#"{{"rootfs":{{}},"x":{deep}}}"#).as_bytes());
    assert!(pair.store.image(unknown).unwrap().layers.is_empty());
    let config = pair.small.container(pair.harmed_container).join("config.v2.json");
    fs::write(&config, &deep).unwrap();
    pair.container_is_damaged("deep");
    for file in [config.clone(), pair.small.config(pair.harmed)] {
        fs::File::options().write(true).open(file).unwrap().set_len(1 << 40).unwrap();
    }
    pair.container_is_damaged("huge");
    pair.image_is_damaged("huge");
    assert_eq!(pair.store.catalog().unwrap().damaged.len(), 3, "with the name of the image");
    fs::write(pair.small.image("repositories.json"), wrapped).unwrap();
    let catalog = pair.store.catalog().unwrap();
    assert!(catalog.images.contains_key(&pair.other) && catalog.damaged.len() == 3);
}

#[test]
fn parents_that_form_a_loop_or_lead_nowhere_are_cut() {
    let pair = Pair::new(Kind::Vfs);
    let (a, b) = (pair.harmed, pair.other);
    let listed = || pair.store.catalog().unwrap();
    pair.small.set_parent(a, &b.to_string());
    assert_eq!(listed().images[&a], Some(b));
    pair.small.set_parent(b, &a.to_string());
    let catalog = listed();
    assert_eq!(catalog.damaged.len(), 1);
    assert_eq!(catalog.images.values().flatten().count(), 1);
    pair.small.set_parent(b, &b.to_string());
    assert_eq!(listed().images[&b], None);
    for parent in TRAVERSALS.into_iter().chain([ImageId(Digest::of(b"x")).to_string().as_str()]) {
        pair.small.set_parent(b, parent);
        let catalog = listed();
        assert_eq!((catalog.images[&b], catalog.damaged.len()), (None, 1), "{parent}");
    }
}

/// Every file and directory beneath `dir`, the harmed object's own: `bad` is in its name or in
/// that of a directory above it.
fn own_files(pair: &Pair, dir: &Path, own: bool, found: &mut Vec<PathBuf>) {
    let chain = chain(&["base", "bad"]).hex();
    let ids = [pair.harmed.hex(), pair.harmed_container.hex(), chain];
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let own = own || ids.iter().any(|id| id == name) || name.contains("bad");
        let own =
            own || [Small::link("bad"), Small::link("mountbadbox")].contains(&name.to_owned());
        if own {
            found.push(path.clone());
        }
        if path.is_dir() && !path.is_symlink() {
            own_files(pair, &path, own, found);
        }
    }
}

#[test]
fn whatever_happens_to_an_object_its_neighbours_stay() {
    let outside = tempfile::tempdir().unwrap();
    let copy = outside.path().join("copy");
    type Harm = fn(&Path, &Path);
    let harms: [(&str, Harm); 6] = [
        ("gone", |_, _| {}),
        ("a link to the same outside", |path, copy| symlink(copy, path).unwrap()),
        ("a link to /", |path, _| symlink("/", path).unwrap()),
        ("a FIFO", |path, _| mkfifoat(CWD, path, Mode::from_raw_mode(0o600)).unwrap()),
        ("an empty directory", |path, _| fs::create_dir(path).unwrap()),
        ("an empty file", |path, _| fs::write(path, "").unwrap()),
    ];
    for kind in KINDS {
        let pair = Pair::new(kind);
        let mut files = Vec::new();
        own_files(&pair, pair.small.dir.path(), false, &mut files);
        assert!(files.len() > 15);
        for file in files {
            for (what, harm) in harms {
                let what = format!("{}: {what}", file.display());
                fs::rename(&file, &copy).unwrap();
                harm(&file, &copy);
                let image = pair.store.image(pair.harmed);
                let container = pair.store.container(pair.harmed_container);
                pair.check(&what);
                for dir in image.iter().flat_map(|image| &image.layers) {
                    assert_inside(&pair, &dir.dirs, &what);
                }
                assert_inside(&pair, container.iter().flat_map(|it| &it.dirs), &what);
                match fs::symlink_metadata(&file) {
                    Ok(stat) if stat.is_dir() => fs::remove_dir(&file).unwrap(),
                    Ok(_) => fs::remove_file(&file).unwrap(),
                    Err(_) => {}
                }
                fs::rename(&copy, &file).unwrap();
            }
        }
        pair.store.image(pair.harmed).unwrap();
        pair.store.container(pair.harmed_container).unwrap();
    }
}

/// Each directory is really where its path says, which is in the store.
fn assert_inside<'a>(pair: &Pair, dirs: impl IntoIterator<Item = &'a LayerDir>, what: &str) {
    use std::os::fd::{AsFd, AsRawFd};
    for dir in dirs {
        let link = format!("/proc/self/fd/{}", dir.root.as_fd().as_raw_fd());
        let real = fs::read_link(link).unwrap();
        assert!(real.starts_with(pair.small.home()), "{what}: {}", real.display());
    }
}

#[test]
fn a_link_for_a_file_or_directory_of_the_store_is_never_followed() {
    let outside = tempfile::tempdir().unwrap();
    let copy = outside.path().join("copy");
    for kind in KINDS {
        let pair = Pair::new(kind);
        let (small, id) = (&pair.small, pair.harmed_container);
        let swap = |path: &Path, check: &dyn Fn(&str)| {
            fs::rename(path, &copy).unwrap();
            symlink(&copy, path).unwrap();
            check(&format!("{} -> {}", path.display(), copy.display()));
            fs::remove_file(path).unwrap();
            fs::rename(&copy, path).unwrap();
        };
        for path in [
            small.config(pair.harmed),
            pair.record(),
            pair.record().join("cache-id"),
            pair.record().join("diff"),
            pair.record().join("parent"),
            small.directory_of("bad"),
            small.files_of("bad"),
        ] {
            swap(&path, &|what| pair.image_is_damaged(what));
        }
        for path in [
            small.container(id),
            small.container(id).join("config.v2.json"),
            small.container(id).join("hostconfig.json"),
            small.mounts(id),
            small.mounts(id).join("mount-id"),
            small.directory_of("mountbadbox"),
            small.directory_of("mountbadbox-init"),
        ] {
            swap(&path, &|what| pair.container_is_damaged(what));
        }
        swap(&small.image("repositories.json"), &|what| {
            assert!(pair.store.catalog().unwrap().references.is_empty(), "{what}");
        });
        for path in [small.path("image"), small.path("containers"), small.home()] {
            swap(&path, &|what| {
                assert!(pair.store.catalog().is_err(), "{what}");
                assert!(Docker::open(small.dir.path()).is_err(), "{what}");
            });
        }
        pair.check("all put back");
    }
}

#[test]
fn strange_names_in_directories_are_reported_and_passed_over() {
    let pair = Pair::new(Kind::Overlay2);
    let content = pair.small.image("imagedb/content/sha256");
    fs::write(content.join("passwd"), "").unwrap();
    fs::write(content.join(".tmp-config1"), "").unwrap();
    fs::create_dir(content.join("0".repeat(64))).unwrap();
    fs::create_dir(pair.small.path("containers/lost+found")).unwrap();
    fs::write(pair.small.path("containers").join("1".repeat(64)), "").unwrap();
    let removing = format!("{}-x1-removing", chain(&["base", "bad"]).hex());
    fs::create_dir(pair.small.image("layerdb/sha256").join(removing)).unwrap();
    pair.check("strange names");
    assert_eq!(pair.store.catalog().unwrap().damaged.len(), 4);
    pair.store.image(pair.harmed).unwrap();
}

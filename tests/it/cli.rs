//! The commands that do without a mount.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::stores::handmade::{CREATED, DataRoot};
use crate::stores::sample::{Sample, noise, sample, write};
use crate::stores::view::View;

/// Runs the program to its end.
fn run<S: AsRef<OsStr>>(arguments: &[S]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stratafs"));
    command.args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// A disk of a host with the sample in an odd place that its settings name, a broken store where
/// Docker usually is, and one of Podman in a user's home.
fn disk(sample: &Sample) -> tempfile::TempDir {
    let disk = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let at = |path: &str| disk.path().join(path);
    for path in ["etc/docker", "srv", "var/lib/docker/image/zfs/layerdb/sha256"] {
        fs::create_dir_all(at(path)).unwrap();
    }
    for part in ["overlay-images", "overlay-layers", "overlay"] {
        fs::create_dir_all(at("home/jane/.local/share/containers/storage").join(part)).unwrap();
    }
    fs::write(at("etc/docker/daemon.json"), r#"{"data-root":"/data/link"}"#).unwrap();
    fs::write(at("etc/passwd"), "jane:x:1000:1000::/home/jane:/bin/sh\n").unwrap();
    fs::create_dir(at("data")).unwrap();
    symlink("/srv/docker", at("data/link")).unwrap();
    let copied = Command::new("cp").arg("-a").arg(sample.path()).arg(at("srv/docker")).status();
    assert!(copied.unwrap().success());
    disk
}

#[test]
fn stores_lists_what_is_where_and_what_cannot_be_read() {
    let Some(sample) = sample() else { return };
    let disk = disk(&sample);
    let root = disk.path().to_str().unwrap();
    fs::write(disk.path().join("srv/docker/engine-id"), "x").unwrap();
    let configs = disk.path().join("srv/docker/image/overlay2/imagedb/content/sha256");
    fs::write(configs.join(crate::stores::handmade::hex_of(&sample.untagged)), "{}").unwrap();

    let output = run(&["stores", "--json", "--image-root", root]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let stores: Value = serde_json::from_slice(&output.stdout).unwrap();
    let stores = stores.as_array().unwrap();
    assert_eq!(stores.len(), 3, "{stores:?}");
    let real = fs::canonicalize(disk.path()).unwrap();
    let path = |index: usize| Path::new(stores[index]["path"].as_str().unwrap()).to_owned();
    assert_eq!(stores[0]["kind"], "docker");
    assert_eq!(path(0), real.join("srv/docker"));
    assert_eq!(stores[0]["driver"], "overlay2");
    assert_eq!(stores[0]["shown_at"], "docker");
    assert_eq!(stores[0]["images"], 2);
    assert_eq!(stores[0]["names"], 3);
    assert_eq!(stores[0]["containers"], 1);
    assert_eq!(stores[0]["damaged"].as_array().unwrap().len(), 1, "{:?}", stores[0]);
    assert!(stores[0]["hints"].to_string().contains("engine-id"));
    assert_eq!(stores[1]["kind"], "podman");
    assert_eq!(stores[1]["shown_at"], "podman");
    assert_eq!(path(2), real.join("var/lib/docker"));
    assert!(stores[2]["error"].as_str().unwrap().contains("zfs"));

    let output = run(&["stores", "--image-root", root]);
    let said = text(&output.stdout);
    for part in
        ["docker ", "podman ", "  unreadable  ", "  damaged     ", "  images      2 under 3"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn stores_fails_where_nothing_can_be_opened() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    for (status, arguments) in [
        (20, &["stores", "--image-root", path][..]),
        (20, &["stores", "--image-root", "/no/such"]),
        (20, &["stores", "--image-root", path, "docker:/no/such"]),
        (21, &["stores", path]),
        (2, &["stores", "--frobnicate"]),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {output:?}");
    }
}

/// Runs the program on a store.
fn on<S: AsRef<OsStr>>(store: &Path, command: &str, arguments: &[S]) -> Output {
    let mut all = vec![OsStr::new(command), OsStr::new("--source"), store.as_os_str()];
    all.extend(arguments.iter().map(AsRef::as_ref));
    run(&all)
}

fn succeeds(output: Output) -> Vec<u8> {
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    output.stdout
}

#[test]
fn ls_stat_and_cat_show_what_the_tree_holds() {
    let Some(sample) = sample() else { return };
    let store = sample.path();
    let view = View::of(store);
    let lines = |arguments: &[&str]| {
        let output = succeeds(on(store, "ls", arguments));
        String::from_utf8_lossy(&output).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(lines(&[]), view.names(""));
    assert_eq!(lines(&["/images/"]), view.names("images"));
    assert_eq!(lines(&["images/app:1/save.tar"]), ["images/app:1/save.tar"]);
    let long = lines(&["-l", "images/app:1/rootfs/usr/bin"]);
    let tool = format!("-rwsr-xr-x 2 0 0 {} ", 70_000);
    assert!(long.iter().any(|line| line.starts_with(&tool) && line.ends_with(" tool")), "{long:?}");
    let link = lines(&["-l", "images/app:1/rootfs/absolute"]);
    assert!(link[0].ends_with(" images/app:1/rootfs/absolute -> /etc/passwd"), "{link:?}");
    let below = lines(&["-R", "images/app:1/rootfs"]);
    assert!(below.contains(&"images/app:1/rootfs/usr/bin:".to_owned()), "{below:?}");
    assert!(!below.iter().any(|line| line == ".wh.old"));
    let all = lines(&["-a", "images/app:1/layers/../layers/../../app/layers"]);
    assert_eq!(all, view.names("images/app:1/layers"));
    let middle = format!("images/app:1/layers/{}/diff", all[1]);
    assert!(lines(&["-a", &middle]).contains(&".wh.old".to_owned()));
    assert!(!lines(&[&middle]).contains(&".wh.old".to_owned()));

    let stat = succeeds(on(store, "stat", &["--json", "images/app:1/save.tar"]));
    let stat: Value = serde_json::from_slice(&stat).unwrap();
    let attr = view.attr("images/app:1/save.tar").unwrap();
    assert_eq!((stat["size"].as_u64(), stat["inode"].as_u64()), (Some(attr.size), Some(attr.ino)));
    assert_eq!((&stat["kind"], &stat["mode"]), (&"file".into(), &"0400".into()));
    assert_eq!(stat["mtime"], "2024-05-06T07:08:09Z");
    let link = succeeds(on(store, "stat", &["images/app:1/rootfs/bin", "containers/web/image"]));
    assert!(text(&link).contains("leads to usr/bin\n"), "{}", text(&link));

    for path in ["save.tar", "export.tar", "config.json", "rootfs/usr/bin/tool", "rootfs/sparse"] {
        let path = format!("images/app:1/{path}");
        assert!(succeeds(on(store, "cat", &[&path])) == view.read(&path), "{path}");
    }
    let two = succeeds(on(store, "cat", &["images/app:1/id", "containers/web/state"]));
    assert_eq!(text(&two), format!("{}\nexited\n", sample.app));
}

#[test]
fn symlinks_are_followed_inside_the_tree() {
    let Some(sample) = sample() else { return };
    let cat = |path: &str| on(sample.path(), "cat", &[path]);
    let passwd = "root:x:0:0::/root:/bin/sh\n";
    for path in ["rootfs/absolute", "rootfs/usr/up", "rootfs/bin/../../etc/passwd"] {
        let output = succeeds(cat(&format!("images/app:1/{path}")));
        assert_eq!(text(&output), passwd, "{path}");
    }
    assert_eq!(succeeds(cat("images/app:1/rootfs/bin/tool")).len(), 70_000);
    let id = format!("{}\n", sample.app);
    for path in ["containers/web/image/id", "images/app/tags/1/id", "../../images/app:1/./id"] {
        assert_eq!(text(&succeeds(cat(path))), id, "{path}");
    }
    let by_id = format!("by-id/containers/{}/state", sample.web.id);
    assert_eq!(text(&succeeds(cat(&by_id))), "exited\n");
    for link in ["loop", "."] {
        symlink(link, sample.web.diff.join("loop")).unwrap();
        let output = cat("containers/web/rootfs/loop");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        fs::remove_file(sample.web.diff.join("loop")).unwrap();
    }
}

#[test]
fn a_path_that_fails_is_named_and_the_rest_goes_on() {
    let Some(sample) = sample() else { return };
    let paths = ["images/none", "images/app:1", "images/app:1/id"];
    let output = on(sample.path(), "cat", &paths);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout), format!("{}\n", sample.app));
    let said = text(&output.stderr);
    assert_eq!(said.lines().count(), 2, "{said}");
    assert!(
        said.contains("images/none: no such file") && said.contains("is a directory"),
        "{said}"
    );
    let output = on(sample.path(), "ls", &["images/none", "images"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("app:latest"));
    assert_eq!(on(sample.path(), "cat", &[] as &[&str]).status.code(), Some(2));
    assert_eq!(on(Path::new("/no/such"), "ls", &[] as &[&str]).status.code(), Some(20));
}

#[test]
fn paths_of_a_disk_are_those_of_a_mount_of_it() {
    let Some(sample) = sample() else { return };
    let disk = disk(&sample);
    let root = disk.path().to_str().unwrap();
    let listed = run(&["ls", "--image-root", root]);
    assert_eq!(text(&listed.stdout), "README\ndocker\npodman\n", "{listed:?}");
    let path = "docker/images/app:1/save.tar";
    let output = run(&["cat", "--image-root", root, path]);
    assert!(output.stdout == View::of(sample.path()).read("images/app:1/save.tar"));
    let named = ["cat", "--image-root", root, "-s", "docker:/data/link", "images/app:1/id"];
    assert_eq!(text(&run(&named).stdout), format!("{}\n", sample.app));
    let outside = ["ls", "--image-root", root, "-s", sample.path().to_str().unwrap()];
    assert_eq!(run(&outside).status.code(), Some(20));
}

/// A store with one image, the layer of which holds 9 MiB: more than one thread copies.
fn large() -> Option<(tempfile::TempDir, PathBuf)> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can make whiteouts");
        return None;
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut root = DataRoot::create(dir.path());
    let layer = root.layer(None, |dir| {
        for index in 0..300 {
            write(dir, &format!("d{}/f{index}", index % 7), &noise(index, 9_000));
        }
        write(dir, "big", &noise(1, 5 << 20));
        write(dir, "zeros", &vec![0; 1 << 20]);
        write(dir, "last", &noise(2, 700_000));
    });
    let app = root.image(&[&layer], CREATED);
    root.tag("app:1", &app);
    Some((dir, layer.diff))
}

#[test]
fn a_copy_is_whole_or_continued_or_not_there() {
    let Some((store, layer)) = large() else { return };
    let (path, store) = ("images/app:1/save.tar", store.path());
    let whole = View::of(store).read(path);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let dest = dir.path().join("copy.tar");
    let cp = || on(store, "cp", &[OsStr::new(path), dest.as_os_str()]);
    succeeds(cp());
    assert!(fs::read(&dest).unwrap() == whole);
    let meta = fs::metadata(&dest).unwrap();
    assert_eq!(meta.mode() & 0o777, 0o400);
    assert!(meta.blocks() * 512 < whole.len() as u64 - 900_000, "zeros are a hole");

    let mut wrong = whole.clone();
    wrong[3 << 20] ^= 1;
    for before in [
        &whole[..1],
        &whole[..5_000_000],
        &wrong[..6_000_000],
        &wrong,
        &[&whole[..], b"x"].concat(),
    ] {
        fs::remove_file(&dest).unwrap();
        fs::write(&dest, before).unwrap();
        succeeds(cp());
        assert!(fs::read(&dest).unwrap() == whole, "{} bytes before", before.len());
    }
    // What is there already is not written again.
    let times =
        |path: &Path| fs::metadata(path).map(|meta| (meta.mtime(), meta.mtime_nsec())).unwrap();
    let before = times(&dest);
    succeeds(cp());
    assert_eq!(times(&dest), before);

    succeeds(on(
        store,
        "cp",
        &[OsStr::new(path), OsStr::new("images/app:1/id"), dir.path().as_os_str()],
    ));
    assert!(fs::read(dir.path().join("save.tar")).unwrap() == whole);
    assert!(dir.path().join("id").exists());
    assert!(succeeds(on(store, "cp", &[path, "/dev/null"])).is_empty());

    // A byte that changed: the mount gives EIO, and there is no copy that looks whole.
    let damaged = layer.join("d3/f150");
    let mut bytes = fs::read(&damaged).unwrap();
    bytes[8_000] ^= 1;
    fs::write(&damaged, bytes).unwrap();
    for before in [None, Some(&whole[..2_000_000]), Some(&whole[..])] {
        let _ = fs::remove_file(&dest);
        if let Some(before) = before {
            fs::write(&dest, before).unwrap();
        }
        let output = cp();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(text(&output.stderr).contains("checksum"), "{output:?}");
        assert!(!dest.exists(), "{:?}", before.map(<[u8]>::len));
    }
    let output = on(store, "cat", &[path]);
    assert_eq!(output.status.code(), Some(1));
    assert!(whole.starts_with(&output.stdout) && output.stdout.len() < whole.len());
}

#[test]
fn a_copy_goes_through_no_symlink() {
    let Some(sample) = sample() else { return };
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("outside")).unwrap();
    fs::write(at("outside/file"), "kept").unwrap();
    symlink("outside/file", at("link")).unwrap();
    symlink("outside", at("dirlink")).unwrap();
    let cp = |arguments: &[&OsStr]| on(sample.path(), "cp", arguments);
    let id = OsStr::new("images/app:1/id");
    for dest in ["link", "dirlink"] {
        let output = cp(&[id, at(dest).as_os_str()]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(text(&output.stderr).contains("symlink"), "{output:?}");
    }
    succeeds(cp(&[id, at("dirlink/").as_os_str()]));
    assert!(at("outside/id").exists(), "a slash means what it leads to");
    fs::remove_file(at("outside/id")).unwrap();
    symlink("file", at("outside/id")).unwrap();
    assert_eq!(cp(&[id, at("outside").as_os_str()]).status.code(), Some(1));

    // In a tree, what stands in the way of a file is replaced; a directory is not entered by a link.
    fs::create_dir_all(at("tree/rootfs/usr")).unwrap();
    symlink("../../outside/file", at("tree/rootfs/odd")).unwrap();
    symlink("../../../outside", at("tree/rootfs/usr/bin")).unwrap();
    fs::hard_link(at("outside/file"), at("tree/rootfs/block")).unwrap();
    let rootfs = OsStr::new("images/app:1/rootfs");
    let output = cp(&[OsStr::new("-r"), rootfs, at("tree").as_os_str()]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).contains("images/app:1/rootfs/usr/bin"), "{output:?}");
    assert_eq!(fs::read_to_string(at("outside/file")).unwrap(), "kept");
    assert_eq!(fs::read(at("tree/rootfs/odd")).unwrap(), noise(2, 1023));
    assert_eq!(fs::read(at("tree/rootfs/block")).unwrap(), noise(3, 1024));
    assert_eq!(fs::read_dir(at("outside")).unwrap().count(), 2);

    for (status, arguments) in [
        (1, &[OsStr::new("images/app:1"), at("new").as_os_str()][..]),
        (1, &[OsStr::new("images/none"), at("new").as_os_str()]),
        (1, &[id, at("none/new").as_os_str()]),
        (2, &[id, id, at("new").as_os_str()]),
        (2, &[id]),
    ] {
        let output = cp(arguments);
        assert_eq!(output.status.code(), Some(status), "{output:?}");
        assert!(!at("new").exists());
    }
}

#[test]
fn cat_saves_several_images_as_the_tree_does() {
    let Some(sample) = sample() else { return };
    let names = ["ghcr.io/org/app:v1", "app:latest"];
    let output = on(sample.path(), "cat", &["--save", names[0], names[1]]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let path = "images/.save/ghcr.io%2Forg%2Fapp:v1+app:latest.tar";
    assert!(output.stdout == View::of(sample.path()).read(path));
    assert_eq!(on(sample.path(), "cat", &["--save", "nosuch"]).status.code(), Some(1));
}

#[test]
fn cache_builds_tells_and_clears_what_it_keeps() {
    let Some(sample) = sample() else { return };
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().join("cache");
    let cache = |command: &str, more: &[&str]| {
        let all = [&["cache", command, "--cache", path.to_str().unwrap()], more].concat();
        run(&all)
    };
    let store = sample.path().to_str().unwrap();
    let stats =
        || -> Value { serde_json::from_slice(&succeeds(cache("stats", &["--json"]))).unwrap() };
    assert_eq!(cache("stats", &[]).status.code(), Some(1), "there is none yet");
    for _ in 0..2 {
        assert_eq!(text(&succeeds(cache("build", &[store]))), "layers 3\nimages 2\nfailed 0\n");
        let stats = stats();
        assert_eq!(stats["outlines"]["count"], 3);
        assert_eq!(stats["lengths"]["count"], 2);
        let bytes = |kind: &str| stats[kind]["bytes"].as_u64().unwrap();
        assert_eq!(bytes("outlines") + bytes("lengths"), stats["bytes"].as_u64().unwrap());
        assert_eq!(stats["bound"], 4u64 << 30);
    }
    let said = succeeds(cache("stats", &["--cache-size", "1M"]));
    assert!(text(&said).starts_with("segments 0 0\nindexes 0 0\noutlines 3 "), "{}", text(&said));
    let length = 88 * 2;
    let end = format!("\nlengths 2 {length}\nbound 1048576\n");
    assert!(text(&said).ends_with(&end), "{}", text(&said));

    // Nothing was left to do for the first who reads.
    let names = || -> Vec<_> {
        let kinds = ["outline", "length"].map(|kind| fs::read_dir(path.join(kind)).unwrap());
        let entries = kinds.into_iter().flatten().map(Result::unwrap);
        let mut names: Vec<_> =
            entries.map(|entry| (entry.file_name(), entry.metadata().unwrap().ino())).collect();
        names.sort();
        names
    };
    let before = names();
    let tar =
        on(sample.path(), "cat", &["images/app:1/save.tar", "--cache", path.to_str().unwrap()]);
    assert!(succeeds(tar) == View::of(sample.path()).read("images/app:1/save.tar"));
    succeeds(on(sample.path(), "ls", &["-l", "images/app:1", "--cache", path.to_str().unwrap()]));
    assert_eq!(names(), before);

    let total = stats()["bytes"].as_u64().unwrap();
    let removed = |output: Output| -> u64 {
        let said = succeeds(output);
        text(&said).strip_prefix("removed ").unwrap().trim_end().parse().unwrap()
    };
    assert_eq!(removed(cache("prune", &["--unused-for", "1h"])), 0);
    let old = fs::read_dir(path.join("outline")).unwrap().next().unwrap().unwrap().path();
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(7200);
    let times = fs::FileTimes::new().set_accessed(long_ago);
    fs::File::open(&old).unwrap().set_times(times).unwrap();
    let size = fs::metadata(&old).unwrap().len();
    assert_eq!(removed(cache("prune", &["--unused-for", "1h"])), size);
    assert!(!old.exists());
    assert_eq!(removed(cache("prune", &["--cache-size", "1"])), total - size);
    succeeds(cache("build", &[store]));
    assert_eq!(removed(cache("clear", &[])), total);
    assert_eq!(stats()["bytes"], 0);

    // A layer that can't be known does not keep the others from it.
    let record = sample.root.record(&sample.layers[1].chain_id).join("tar-split.json.gz");
    fs::write(&record, "none").unwrap();
    let output = cache("build", &[store]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(text(&output.stdout), "layers 3\nimages 2\nfailed 1\n");
    assert!(text(&output.stderr).contains("tar-split.json.gz"), "{output:?}");
    assert_eq!(
        (&stats()["outlines"]["count"], &stats()["lengths"]["count"]),
        (&2.into(), &2.into())
    );
    for (status, arguments) in [
        (20, &["cache", "build", "/no/such"][..]),
        (2, &["cache", "prune", "--unused-for", "soon"]),
        (1, &["cache", "build", "--cache", "/proc/nowhere", store]),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {output:?}");
    }
}

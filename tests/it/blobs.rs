//! Images whose layers are blobs, as a mount shows them.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use stratafs::backing::{Access, Bytes, FileKind, Held, Root};
use stratafs::cache::{Cache, Disk};
use stratafs::digest::{DiffId, Digest};
use stratafs::store::{Blob, LayerDir, LayerSource, Marks};
use stratafs::tree::Options;

use crate::stores::archives::{self, Layout, zstd};
use crate::stores::handmade::{gzip, make_opaque, whiteout};
use crate::stores::layered::{Layered, NAME, Part};
use crate::stores::view::{ROOT_USER, View};

/// A file, a directory (ending in a slash) or a link (`-> target`, `=> target` for a hard one).
fn layer_tar(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, text) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(if path.ends_with('/') { 0o755 } else { 0o644 });
        header.set_mtime(1_700_000_000);
        header.set_size(0);
        if let Some(target) = text.strip_prefix("-> ") {
            header.set_entry_type(tar::EntryType::Symlink);
            builder.append_link(&mut header, path, target).unwrap();
        } else if let Some(target) = text.strip_prefix("=> ") {
            header.set_entry_type(tar::EntryType::Link);
            builder.append_link(&mut header, path, target).unwrap();
        } else if path.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
            builder.append_data(&mut header, path, &b""[..]).unwrap();
        } else {
            header.set_size(text.len() as u64);
            builder.append_data(&mut header, path, text.as_bytes()).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

fn base() -> Vec<u8> {
    layer_tar(&[
        ("bin/", ""),
        ("bin/sh", "#!shell"),
        ("bin/ash", "=> bin/sh"),
        ("etc/", ""),
        ("etc/passwd", "root:x:0:0::/:/bin/sh\n"),
        ("etc/shadow", "secret"),
        ("cache/", ""),
        ("cache/old", "old"),
        ("lib", "-> usr/lib"),
        ("usr/lib/so", "library"),
    ])
}

fn top() -> Vec<u8> {
    layer_tar(&[
        ("etc/", ""),
        ("etc/.wh.shadow", ""),
        ("etc/hosts", "127.0.0.1 localhost\n"),
        ("cache/", ""),
        ("cache/new", "new"),
        ("cache/.wh..wh..opq", ""),
    ])
}

fn blob(stored: &[u8]) -> LayerSource {
    let bytes: Arc<dyn Bytes> = Arc::new(Held::new("a-blob", stored));
    LayerSource::Blob(Blob { digest: Digest::of(stored), bytes })
}

/// A layer that is `tar`, stored as it is.
fn plain(tar: &[u8]) -> Part {
    Part { diff_id: DiffId(Digest::of(tar)), source: blob(tar), dirs: Vec::new() }
}

fn view(parts: Vec<Part>) -> View {
    View::on(Arc::new(Layered::new(parts)), Options::default())
}

fn layer(index: usize, tar: &[u8]) -> String {
    format!("images/{NAME}/layers/{index:02}-{}", &Digest::of(tar).hex()[..12])
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let options = lzma_rust2::XzOptions::default();
    let mut encoder = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Member by member, as eStargz and zstd:chunked are made.
fn in_parts(bytes: &[u8], compress: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    bytes.chunks(700).flat_map(compress).collect()
}

/// A layer that is `tar`, stored compressed.
fn packed(tar: &[u8], compress: impl Fn(&[u8]) -> Vec<u8>) -> Part {
    Part { source: blob(&compress(tar)), ..plain(tar) }
}

/// All that is promised of an image of [`base`] and [`top`].
fn check(view: &View) {
    let at = |path: &str| format!("images/{NAME}/{path}");
    assert_eq!(view.names(&at("rootfs")), ["bin", "cache", "etc", "lib", "usr"]);
    assert_eq!(view.names(&at("rootfs/etc")), ["hosts", "passwd"]);
    assert_eq!(view.names(&at("rootfs/cache")), ["new"]);
    assert_eq!(view.text(&at("rootfs/bin/sh")), "#!shell");
    assert_eq!(view.link(&at("rootfs/lib")), "usr/lib");
    let (shell, ash) = (view.attr(&at("rootfs/bin/sh")), view.attr(&at("rootfs/bin/ash")));
    let (shell, ash) = (shell.unwrap(), ash.unwrap());
    assert_eq!((shell.ino, shell.nlink), (ash.ino, 2));
    let changes = view.text(&format!("{}/changes", layer(1, &top())));
    let expected =
        ["C /cache", "A /cache/new", "D /cache/old", "C /etc", "A /etc/hosts", "D /etc/shadow"];
    assert_eq!(changes.lines().collect::<Vec<_>>(), expected);
    assert_eq!(view.names(&format!("{}/diff/etc", layer(1, &top()))), [".wh.shadow", "hosts"]);
    let cache = view.names(&format!("{}/diff/cache", layer(1, &top())));
    assert_eq!(cache, [".wh..wh..opq", "new"]);
    for (index, tar) in [base(), top()].iter().enumerate() {
        let at = layer(index, tar);
        assert_eq!(view.read(&format!("{at}/layer.tar")), *tar);
        assert!(view.text(&format!("{at}/layer.json")).contains("\"exact\": true"));
    }
    let export = view.read(&at("export.tar"));
    let mut names = Vec::new();
    for entry in tar::Archive::new(&export[..]).entries().unwrap() {
        let entry = entry.unwrap();
        let kind = entry.header().entry_type();
        names.push(format!("{} {kind:?}", entry.path().unwrap().display()));
    }
    let expected = [
        "bin/ Directory",
        "bin/ash Regular",
        "bin/sh Link",
        "cache/ Directory",
        "cache/new Regular",
        "etc/ Directory",
        "etc/hosts Regular",
        "etc/passwd Regular",
        "lib Symlink",
        "usr/ Directory",
        "usr/lib/ Directory",
        "usr/lib/so Regular",
    ];
    assert_eq!(names, expected);
    let saved = view.read(&at("save.tar"));
    let mut saved = tar::Archive::new(&saved[..]);
    let blobs = saved.entries().unwrap().filter(|entry| {
        let path = entry.as_ref().unwrap().path().unwrap().into_owned();
        path.to_string_lossy().ends_with(&Digest::of(&top()).hex())
    });
    assert_eq!(blobs.count(), 1);
}

#[test]
fn an_image_of_blobs_alone_shows_all_that_an_unpacked_one_does() {
    check(&view(vec![plain(&base()), plain(&top())]));
}

#[test]
fn every_compression_shows_the_same_image() {
    let chunked = |bytes: &[u8]| in_parts(bytes, zstd);
    let stargz = |bytes: &[u8]| in_parts(bytes, gzip);
    check(&view(vec![packed(&base(), gzip), packed(&top(), zstd)]));
    check(&view(vec![packed(&base(), chunked), packed(&top(), stargz)]));
    check(&view(vec![packed(&base(), xz), packed(&top(), bzip2)]));
}

#[test]
fn what_was_inflated_is_kept_for_the_next_mount_within_its_bound() {
    let dir = tempfile::tempdir().unwrap();
    for bound in [1 << 30, 6 << 20] {
        for _ in 0..2 {
            let cache = Arc::new(Cache::on(Disk::open(&dir.path().join("cache"), bound).unwrap()));
            let parts = vec![packed(&base(), gzip), packed(&top(), zstd)];
            let options = Options { cache: Arc::clone(&cache), ..Options::default() };
            check(&View::on(Arc::new(Layered::new(parts)), options));
        }
        let stats = Disk::open(&dir.path().join("cache"), bound).unwrap().stats().unwrap();
        assert_eq!((stats.segments, stats.indexes), (2, 2));
        assert!(stats.segment_bytes + stats.index_bytes <= bound);
    }
}

/// Whatever byte of a blob is damaged, what can be read is right, and the layer below stays.
#[test]
fn a_damaged_blob_never_gives_a_wrong_byte() {
    for compress in [gzip, zstd] {
        let stored = compress(&top());
        for at in (0..stored.len()).step_by(7) {
            let mut wrong = stored.clone();
            wrong[at] ^= 0x10;
            let part = Part { source: blob(&wrong), ..plain(&top()) };
            let view = view(vec![packed(&base(), gzip), part]);
            let tar = view.try_read(&format!("{}/layer.tar", layer(1, &top())));
            assert!(tar.is_err_and(|err| err.errno() == Errno::IO) || is_harmless(&wrong), "{at}");
            assert_eq!(view.read(&format!("{}/layer.tar", layer(0, &base()))), base());
        }
    }
}

/// Some bits of a header say nothing about the contents: a time, an operating system.
fn is_harmless(stored: &[u8]) -> bool {
    let mut bytes = Vec::new();
    let read = match stored[0] {
        0x1f => flate2::read::MultiGzDecoder::new(stored).read_to_end(&mut bytes),
        _ => zstd::Decoder::new(stored).and_then(|mut decoder| decoder.read_to_end(&mut bytes)),
    };
    read.is_ok() && bytes == top()
}

#[test]
fn blobs_lie_upon_the_highest_layer_that_is_unpacked() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["bin", "etc", "cache", "usr/lib"] {
        fs::create_dir_all(dir.path().join(name)).unwrap();
    }
    for (name, text) in [
        ("bin/sh", "#!shell"),
        ("etc/passwd", "root:x:0:0::/:/bin/sh\n"),
        ("etc/shadow", "secret"),
        ("cache/old", "old"),
        ("usr/lib/so", "library"),
    ] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    fs::hard_link(dir.path().join("bin/sh"), dir.path().join("bin/ash")).unwrap();
    std::os::unix::fs::symlink("usr/lib", dir.path().join("lib")).unwrap();
    let root = Arc::new(Root::open(dir.path(), Access::Sealed).unwrap());
    let unpacked = LayerDir { root, identity: 1, marks: Marks::Trusted, owners: None };
    check(&view(vec![Part { dirs: vec![unpacked], ..plain(&base()) }, plain(&top())]));
}

#[test]
fn an_opaque_root_hides_every_layer_below() {
    let top = layer_tar(&[(".wh..wh..opq", ""), ("only", "x")]);
    let view = view(vec![plain(&base()), plain(&top)]);
    assert_eq!(view.names(&format!("images/{NAME}/rootfs")), ["only"]);
}

#[test]
fn a_damaged_entry_leaves_its_neighbours() {
    let tar = layer_tar(&[("good", "x"), ("link", "=> missing"), ("more", "y")]);
    let view = view(vec![plain(&tar)]);
    let at = |path: &str| format!("images/{NAME}/rootfs/{path}");
    assert_eq!(view.names(&at("")), ["good", "more"]);
    assert_eq!(view.attr(&at("link")).unwrap_err().errno(), Errno::IO);
    assert_eq!(view.text(&at("more")), "y");
    assert_eq!(view.attr(&at("good")).unwrap().kind, FileKind::Regular);
}

#[test]
fn a_layer_that_is_nowhere_is_an_error_and_the_image_stays() {
    let tar = top();
    let gone = Part { source: LayerSource::Missing, ..plain(&tar) };
    let view = view(vec![plain(&base()), gone]);
    assert!(view.names(&format!("images/{NAME}")).contains(&"config.json".to_owned()));
    assert!(view.attr(&format!("images/{NAME}/rootfs")).is_err());
    assert_eq!(view.names(&format!("{}/diff", layer(0, &base()))).len(), 5);
}

#[test]
fn bytes_that_are_not_what_the_diff_id_says_are_never_given_out() {
    let mut wrong = top();
    let at = wrong.iter().position(|&byte| byte == b'n').unwrap();
    let part = Part {
        source: blob(&{
            wrong[at] ^= 1;
            wrong
        }),
        ..plain(&top())
    };
    let view = view(vec![plain(&base()), part]);
    assert!(view.try_read(&format!("{}/layer.tar", layer(1, &top()))).is_err());
    assert_eq!(view.read(&format!("{}/layer.tar", layer(0, &base()))), base());
}

/// The layer [`top`] as overlayfs has it, with the tar gone.
fn unpacked_top(dir: &Path) -> Part {
    for name in ["etc", "cache"] {
        fs::create_dir(dir.join(name)).unwrap();
    }
    fs::write(dir.join("etc/hosts"), "127.0.0.1 localhost\n").unwrap();
    fs::write(dir.join("cache/new"), "new").unwrap();
    whiteout(&dir.join("etc/shadow"));
    make_opaque(&dir.join("cache"));
    let root = Arc::new(Root::open(dir, Access::Sealed).unwrap());
    let dirs = vec![LayerDir { root, identity: 2, marks: Marks::Trusted, owners: None }];
    Part { source: LayerSource::Missing, dirs, ..plain(&top()) }
}

#[test]
fn a_layer_whose_tar_is_gone_is_rebuilt_and_says_so() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can make whiteouts");
        return;
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let part = unpacked_top(dir.path());
    let alone = part.dirs[0].clone();
    let view = view(vec![plain(&base()), Part { dirs: vec![alone], ..part }]);
    let at = layer(1, &top());
    let tar = view.read(&format!("{at}/layer.tar"));
    let mut names: Vec<String> = Vec::new();
    for entry in tar::Archive::new(&tar[..]).entries().unwrap() {
        names.push(entry.unwrap().path().unwrap().to_string_lossy().into_owned());
    }
    let expected =
        ["cache/", "cache/.wh..wh..opq", "cache/new", "etc/", "etc/.wh.shadow", "etc/hosts"];
    names.sort();
    assert_eq!(names, expected);
    assert!(view.text(&format!("{at}/layer.json")).contains("\"exact\": false"));
    let exact = |path: &str| {
        let ino = view.attr(path).unwrap().ino;
        let value = view.tree.xattr(ino, OsStr::new("user.stratafs.exact"), ROOT_USER).unwrap();
        assert!(view.tree.xattrs(ino, ROOT_USER).unwrap().is_empty(), "found by name alone");
        String::from_utf8(value).unwrap()
    };
    assert_eq!(exact(&format!("{at}/layer.tar")), "false");
    assert_eq!(exact(&format!("{}/layer.tar", layer(0, &base()))), "true");
    assert_eq!(exact(&format!("images/{NAME}/save.tar")), "false");
    for flavour in ["docker-29", "docker-1.10", "podman", "oci"] {
        fits(&view.read(&format!("images/{NAME}/formats/{flavour}.tar")), &tar);
    }
    for blob in view.names(&format!("images/{NAME}/oci/blobs/sha256")) {
        let bytes = view.read(&format!("images/{NAME}/oci/blobs/sha256/{blob}"));
        assert_eq!(Digest::of(&bytes).hex(), blob);
    }
}

/// The config in an archive lists the layers that are there, the rebuilt one among them.
fn fits(saved: &[u8], rebuilt: &[u8]) {
    let mut files = Vec::new();
    for entry in tar::Archive::new(saved).entries().unwrap() {
        let mut bytes = Vec::new();
        entry.unwrap().read_to_end(&mut bytes).unwrap();
        files.push(bytes);
    }
    let configs: Vec<serde_json::Value> = files
        .iter()
        .filter_map(|bytes| serde_json::from_slice(bytes).ok())
        .filter(|json: &serde_json::Value| json.get("rootfs").is_some())
        .collect();
    assert_eq!(configs.len(), 1);
    let digests: Vec<String> =
        [&base()[..], rebuilt].iter().map(|tar| Digest::of(tar).to_string()).collect();
    assert_eq!(configs[0]["rootfs"]["diff_ids"], serde_json::json!(digests));
    assert!(files.iter().any(|bytes| bytes == rebuilt));
}

/// Memory that this process took at most, in bytes.
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Run alone in a process of its own by the test below.
#[test]
#[ignore = "a part of another test"]
fn a_bomb_in_this_process() {
    let before = peak_memory();
    let zeros = 1u64 << 30;
    let mut hash = Sha256::new();
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    let piece = vec![0; 1 << 20];
    for _ in 0..zeros >> 20 {
        encoder.write_all(&piece).unwrap();
        hash.update(&piece);
    }
    let stored = encoder.finish().unwrap();
    assert!(zeros / stored.len() as u64 > 5_000);
    let diff_id = DiffId(Digest::from_hash(hash));
    let view = view(vec![Part { diff_id, source: blob(&stored), dirs: Vec::new() }]);
    let at = format!("images/{NAME}/layers/00-{}/layer.tar", &diff_id.hex()[..12]);
    let tar = view.attr(&at).unwrap();
    assert_eq!(tar.size, zeros);
    assert_eq!(view.range(tar.ino, zeros - 10, 20).unwrap(), [0; 10]);
    assert!(view.names(&format!("images/{NAME}/rootfs")).is_empty());
    let taken = peak_memory() - before;
    assert!(taken < 96 << 20, "{taken}");
}

#[test]
fn a_bomb_takes_no_memory() {
    let program = std::env::current_exe().unwrap();
    let arguments = ["--exact", "blobs::a_bomb_in_this_process", "--ignored"];
    let output = std::process::Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

/// Two layers of several segments each, in an OCI image layout; the tars, and their paths in a tree.
fn two_large_layers(dir: &Path) -> [(Vec<u8>, String); 2] {
    let mut numbers = 1u64..;
    let tars: [Vec<u8>; 2] = [13 << 20, 9 << 20].map(|len: usize| {
        let lines = numbers.by_ref().map(|n| format!("{:x}\n", n.wrapping_mul(0x9e37_79b9_7f4a)));
        let mut text = String::new();
        for line in lines {
            text.push_str(&line);
            if text.len() > len {
                break;
            }
        }
        archives::layer(&[("file", text.as_bytes())])
    });
    let config = archives::config("amd64", &[&tars[0], &tars[1]]);
    let mut layout = Layout::default();
    let blobs = [gzip(&tars[0]), zstd(&tars[1])];
    let image = layout.image(&config, &[&blobs[0], &blobs[1]]);
    archives::write_files(
        dir,
        &layout.finish(&[archives::named(image, "docker.io/library/app:1")]),
    );
    let mut index = 0;
    tars.map(|tar| {
        let name = format!("{index:02}-{}", &Digest::of(&tar).hex()[..12]);
        index += 1;
        (tar, format!("images/app:1/layers/{name}/layer.tar"))
    })
}

#[test]
fn processes_that_share_a_small_cache_read_right_and_keep_its_bound_together() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (layout, cache) = (dir.path().join("layout"), dir.path().join("cache"));
    let layers = two_large_layers(&layout);
    let bound = 10 << 20;
    let disk = Disk::open(&cache, bound).unwrap();
    let held = || disk.stats().map_or(0, |stats| stats.segment_bytes + stats.index_bytes);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..4)
            .map(|number| {
                let (tar, path) = &layers[number % 2];
                let mut command = Command::new(env!("CARGO_BIN_EXE_stratafs"));
                command.args(["cat", "--cache-size", &bound.to_string(), "--cache"]).arg(&cache);
                command.arg("--source").arg(&layout).arg(path).stdin(Stdio::null());
                scope.spawn(move || {
                    for _ in 0..3 {
                        let output = command.output().unwrap();
                        assert!(output.status.success(), "{output:?}");
                        assert!(output.stdout == *tar, "other bytes");
                    }
                })
            })
            .collect();
        let watch = scope.spawn(|| {
            let mut most = 0;
            while !is_over.load(Ordering::Relaxed) {
                most = held().max(most);
                std::thread::sleep(Duration::from_millis(1));
            }
            most
        });
        let results: Vec<_> = readers.into_iter().map(|reader| reader.join()).collect();
        is_over.store(true, Ordering::Relaxed);
        let most = watch.join().unwrap();
        results.into_iter().for_each(|result| result.unwrap());
        // While it is counted, a file may be seen that goes, and the one that comes in its place.
        assert!((1..=bound + (4 << 20)).contains(&most), "{most}");
    });
    assert!((1..=bound).contains(&held()), "{}", held());
}

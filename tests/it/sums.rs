//! Checksums and build contexts, against values that engines gave, and against a naive model of
//! random trees.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use stratafs::archive::context::{self, Rules};
use stratafs::backing::{Access, Root};
use stratafs::digest::Digest;
use stratafs::overlay::Stack;
use stratafs::overlay::files::Files;
use stratafs::recipe::Recipe;
use stratafs::store::{LayerDir, Marks};
use stratafs::sum::build::Context;
use stratafs::sum::tarsum::{Version, tarsum};
use stratafs::sum::{Cancel, content};

use crate::stores::golden;
use crate::stores::sample::{noise, write};

/// `stratafs ARGUMENTS...`, with `input` as its standard input.
fn run(arguments: &[&str], dir: &Path, input: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stratafs"));
    command.args(arguments).current_dir(dir).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

/// What it prints, which must be one line.
fn line(arguments: &[&str], dir: &Path) -> String {
    let output = run(arguments, dir, b"");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.strip_suffix('\n').unwrap().to_owned()
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn stack(path: &Path) -> Stack {
    let root = Arc::new(Root::open(path, Access::Live).unwrap());
    Stack::new(vec![LayerDir { root, identity: 0, marks: Marks::Complete, owners: None }])
}

fn bytes_of(recipe: &Recipe) -> Vec<u8> {
    let mut bytes = vec![0; recipe.len() as usize];
    assert_eq!(recipe.read_at(0, &mut bytes).unwrap(), bytes.len());
    bytes
}

fn build_hash(dir: &Path, sources: &[&str]) -> String {
    let tree = stack(dir);
    let tar = context::context(&Files::Merged(&tree), &Rules::default()).unwrap();
    let sources: Vec<&[u8]> = sources.iter().map(|source| source.as_bytes()).collect();
    let context = Context::new(Arc::new(tar)).unwrap();
    context.hash(&sources, Version::V1, &Cancel::default()).unwrap()
}

fn content_hash(dir: &Path, path: &str) -> String {
    let tree = stack(dir);
    let files = Files::Merged(&tree);
    let found = files.find(path.as_bytes()).unwrap();
    content::hash(&files, path.as_bytes(), &found, &Cancel::default()).unwrap().to_string()
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn fifo(path: &Path) {
    rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
    set_mode(path, 0o644);
}

/// The context whose hashes Docker 20.10.24 recorded; see [`docker_s_hashes_are_given_again`].
fn recorded_context() -> tempfile::TempDir {
    let dir = directory();
    let at = |name: &str| dir.path().join(name);
    for (name, text, mode) in [
        ("d/a", "a\n", 0o644),
        ("d/sub/b", "b\n", 0o644),
        ("top.c", "c\n", 0o644),
        ("top2.c", "c2\n", 0o640),
    ] {
        write(dir.path(), name, text.as_bytes());
        set_mode(&at(name), mode);
    }
    for (name, target) in [
        ("d/l", "a"),
        ("d/dangling", "nowhere"),
        ("d/abs", "/etc/passwd"),
        ("d/up", "../.."),
        ("d/loop", "loop"),
        ("dl", "d"),
        ("tl", "top.c"),
    ] {
        symlink(target, at(name)).unwrap();
    }
    fs::hard_link(at("d/a"), at("d/hard")).unwrap();
    fifo(&at("d/fifo"));
    set_mode(&at("d"), 0o755);
    set_mode(&at("d/sub"), 0o755);
    dir
}

#[test]
fn tarsums_of_known_tars_are_as_docker_had_them() {
    for (name, v0, v1) in [
        (
            "base.tar",
            "a1e9cfb0ace37ee87e219dd3ae6f30eace4fd0cd1c7d6b17755935552ed21149",
            "70b6ee2b00f4a2b6f8109725c15fadb4d49d31dd68bae66db9ead3499a194945",
        ),
        (
            "c1.tar",
            "ba8d522e81910be4340bcd5d92353b4226f86e549b70ce8c823252eb87bd7293",
            "fb3dcf53d0c3fee9bc2838b9f5517cce9df03405520adfc7551f9841ce524ec6",
        ),
        (
            "c1diff.tar",
            "d2bbdc8c0c7f896e1634cfb1d2bd6cf48da8adb5a1ae4551495545a4c1116f52",
            "216bdcf3ac00e06cab1f8c8a81531933d7e283ee71d2341be59be270a1cb9844",
        ),
        (
            "c2diff.tar",
            "03f7d369c7275fedbb93e3649d18d902e4e647facc6213ba448bcabade3ac7a8",
            "9a206383d07f568800f128bbca0df3c1bbe544986f392c92f52b7a2b5469882a",
        ),
    ] {
        let Some(bytes) = golden::vector(name) else { return };
        let tar = Recipe::inline(bytes);
        let sum = |version| tarsum(&tar, version, &Cancel::default()).unwrap();
        assert_eq!(sum(Version::V0), format!("tarsum+sha256:{v0}"), "{name}");
        assert_eq!(sum(Version::V1), format!("tarsum.v1+sha256:{v1}"), "{name}");
        assert_eq!(sum(Version::Dev), format!("tarsum.dev+sha256:{v1}"), "{name}");
    }
}

#[test]
fn hashes_of_a_known_context_are_as_docker_had_them() {
    let Some(bytes) = golden::vector("build-ctx.tar") else { return };
    let context = Context::new(Arc::new(Recipe::inline(bytes))).unwrap();
    let hash = |sources: &[&[u8]]| context.hash(sources, Version::V1, &Cancel::default()).unwrap();
    assert_eq!(
        hash(&[b"ctx/"]),
        "dir:dffcda0a1b7c01f65d891669f90c249bb1301554e6cbf92c582b6e324fb93e10"
    );
    assert_eq!(
        hash(&[b"ctx/a.txt", b"ctx/b.txt"]),
        "multi:9d00fc3915a8d3a628de31b6a761cb2d2ea4da26bd00c2d455469b3121501218"
    );
}

/// What the history of Docker 20.10.24 had for contexts sent by the command of Docker 28.2.
#[test]
fn docker_s_hashes_are_given_again() {
    let dir = recorded_context();
    for (sources, hash) in [
        (&["d"][..], "dir:ea07e1fb690b1e500ded7e93b4ab94157dfc451ae48cafd266e641cac1b63e97"),
        (&["dl"], "dir:ea07e1fb690b1e500ded7e93b4ab94157dfc451ae48cafd266e641cac1b63e97"),
        (&["top.c"], "file:3870cdc19486584f8463b5d3a729857ddba3e9ffc107df16478d7312d43e2ca1"),
        (&["/tl"], "file:3870cdc19486584f8463b5d3a729857ddba3e9ffc107df16478d7312d43e2ca1"),
        (&["d/hard"], "file:c3cd54ec397ac82f6874bf7bd884102430375ce2ffe23673a71e918bdb026f09"),
        (&["d/a"], "file:f9a092ba4bcd634f36f08f77aa608300a198ac03fd5b0ca278dea59e27a99ba9"),
        (&["*.c"], "multi:61d45b8191377bb4d30bd19c5686a0282c3d19cb92f145508c9513ef1de4d63f"),
        (
            &["top.c", "d", "./tl"],
            "multi:0875f2045a0a692c544cbcb799314aac7d253c2c50f72bf42c74a0d684e00401",
        ),
        (&["t*"], "multi:a113e55d6c1700eeec8dcdea165d1a88f323934502ed2b58a793637a7c276035"),
    ] {
        assert_eq!(build_hash(dir.path(), sources), hash, "{sources:?}");
        let arguments = sources.iter().flat_map(|source| ["--paths", source]);
        let arguments: Vec<&str> = ["sum", "--build", "."].into_iter().chain(arguments).collect();
        assert_eq!(line(&arguments, dir.path()), hash, "{sources:?}");
    }
    // As the command of Docker 20.10 sends them.
    let typed = ["sum", "--flavour", "docker-1.10", "--build", "--paths", "top.c", "."];
    let hash = line(&typed, dir.path());
    assert_eq!(hash, "file:1cd7536f0f3d18ac761ebcbda6d07625713522d5a941b9a2b5a8409ba835d403");
    // A file in the directory that it lies in.
    let file = ["sum", "--build", "top.c"];
    assert_eq!(line(&file, dir.path()), build_hash(dir.path(), &["top.c"]));
}

/// What the cache of BuildKit in Docker 20.10.24 had for the same context. It knew no owners yet.
#[test]
fn buildkit_s_hashes_are_given_again() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: the owner of the files is root");
        return;
    }
    let dir = recorded_context();
    let noted = dir.path().join("d/sub/b");
    rustix::fs::setxattr(&noted, "user.foo", b"bar", XattrFlags::empty()).unwrap();
    for (path, hash) in [
        ("d", "49f5cde288a6033b286b0539fd7055534c434636339178cf1f0aa7ab7dfdc717"),
        ("d/sub", "43c1dee6b26499697eec22ad4ff1cdabc3bff7b13e39850f4b5103d1646b88c5"),
        ("d/sub/b", "127937370d6a8c1f775a15850d96f014c858418dda439405222e976bf0b4dad5"),
        ("d/a", "90419ce2f049678816ec651294eafae1333065bf516a763506e0965a9979d469"),
        ("d/fifo", "ed66acfbb9d93c08ed7faab2b6c0e2201a312df9abcbd94a761a1ea7f345dad5"),
        ("d/up", "25a18ccf1e624299eca68df3f57611637466b8009dcb270b0c73343477ed124b"),
    ] {
        assert_eq!(content_hash(dir.path(), path), format!("sha256:{hash}"), "{path}");
    }
    let printed = line(&["sum", "--content", "d"], dir.path());
    assert_eq!(printed, content_hash(dir.path(), "d"));
}

// Random trees.

/// Makes random choices, the same for the same seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) as usize % count
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

const NAMES: [&[u8]; 9] =
    [b"a", b"b.c", b"c", b"a-b", b"lib", b"\xc3\xa9", b"\xff", b"\xffx", b"x y"];

fn fill(dir: &Path, depth: usize, chance: &mut Chance, files: &mut Vec<PathBuf>) {
    for _ in 0..chance.below(6) {
        let path = dir.join(std::ffi::OsStr::from_bytes(chance.of(&NAMES)));
        if path.symlink_metadata().is_ok() {
            continue;
        }
        match chance.below(9) {
            0..=2 if depth < 4 => {
                fs::create_dir(&path).unwrap();
                fill(&path, depth + 1, chance, files);
                set_mode(&path, chance.of(&[0o755, 0o700, 0o1777]));
            }
            3 | 4 => {
                let targets: [&[u8]; 8] =
                    [b"a", b"../c", b"/lib", b"../../../a-b", b".", b"/", b"b.c/..", b"c/../lib"];
                symlink(std::ffi::OsStr::from_bytes(chance.of(&targets)), &path).unwrap();
            }
            5 if !files.is_empty() => {
                fs::hard_link(&files[chance.below(files.len())], &path).unwrap();
            }
            6 => fifo(&path),
            _ => {
                fs::write(&path, noise(chance.0 as u32, chance.of(&[0, 1, 600, 9000]))).unwrap();
                set_mode(&path, chance.of(&[0o644, 0o600, 0o4755]));
                files.push(path);
            }
        }
    }
}

fn random_tree(seed: u64) -> tempfile::TempDir {
    let dir = directory();
    fill(dir.path(), 0, &mut Chance(seed), &mut Vec::new());
    dir
}

/// All paths below a directory, relative to it, in the order of a walk.
fn paths(root: &Path, below: &Path) -> Vec<PathBuf> {
    let mut names: Vec<_> =
        fs::read_dir(root.join(below)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    let mut all = Vec::new();
    for name in names {
        let path = below.join(name);
        let is_dir = root.join(&path).symlink_metadata().unwrap().is_dir();
        all.push(path.clone());
        if is_dir {
            all.extend(paths(root, &path));
        }
    }
    all
}

/// The header of a file as tarsum v1 hashes it, without its body.
fn header(root: &Path, path: &Path, name: &[u8], link: Option<&Path>) -> Vec<u8> {
    let file = root.join(path);
    let stat = file.symlink_metadata().unwrap();
    let kind = stat.file_type();
    let (flag, link) = match link {
        Some(first) => ("1", first.to_owned()),
        None if kind.is_symlink() => ("2", fs::read_link(&file).unwrap()),
        None if kind.is_dir() => ("5", PathBuf::new()),
        None if kind.is_fifo() => ("6", PathBuf::new()),
        None => ("0", PathBuf::new()),
    };
    let size = if flag == "0" { stat.size() } else { 0 };
    let mode = stat.mode() & 0o7777;
    let rest = format!("mode{mode}uid0gid0size{size}typeflag{flag}linkname");
    let end = b"unamegnamedevmajor0devminor0";
    [b"name", name, rest.as_bytes(), link.as_os_str().as_bytes(), end].concat()
}

/// The sums of the entries of a context, by path: of what `docker build` sends.
fn entry_sums(root: &Path) -> HashMap<PathBuf, String> {
    let mut first: HashMap<u64, PathBuf> = HashMap::new();
    let mut sums = HashMap::new();
    for path in paths(root, Path::new("")) {
        let stat = root.join(&path).symlink_metadata().unwrap();
        let earlier = match stat.nlink() > 1 && !stat.is_dir() {
            true => first.get(&stat.ino()).cloned(),
            false => None,
        };
        first.entry(stat.ino()).or_insert_with(|| path.clone());
        let mut name = path.as_os_str().as_bytes().to_vec();
        if stat.is_dir() {
            name.push(b'/');
        }
        let mut bytes = header(root, &path, &name, earlier.as_deref());
        if stat.is_file() && earlier.is_none() {
            bytes.extend(fs::read(root.join(&path)).unwrap());
        }
        sums.insert(path, Digest::of(&bytes).hex());
    }
    sums
}

/// Where a path of a context leads; `None` in a loop or through a file.
fn follow(root: &Path, path: &Path) -> Option<PathBuf> {
    let mut here = PathBuf::new();
    let mut rest: Vec<PathBuf> = path.iter().rev().map(PathBuf::from).collect();
    for _ in 0..200 {
        let Some(name) = rest.pop() else { return Some(here) };
        match name.as_os_str().as_bytes() {
            b"." | b"/" => continue,
            b".." => {
                here.pop();
                continue;
            }
            _ => {}
        }
        let next = here.join(&name);
        match root.join(&next).symlink_metadata() {
            Ok(stat) if stat.is_symlink() => {
                let target = fs::read_link(root.join(&next)).unwrap();
                if target.is_absolute() {
                    here = PathBuf::new();
                }
                rest.extend(target.iter().rev().map(PathBuf::from));
            }
            Err(err) if err.kind() == std::io::ErrorKind::NotADirectory => return None,
            _ => here = next,
        }
    }
    None
}

fn model_dir_hash(root: &Path, dir: &Path) -> String {
    let sums = entry_sums(root);
    let mut found = Vec::new();
    let own = (!dir.as_os_str().is_empty()).then(|| dir.to_owned());
    for path in own.into_iter().chain(paths(root, dir)) {
        let Some(target) = follow(root, &path) else { continue };
        let sum = sums.get(&target).map(|sum| sum.clone().into_bytes());
        found.push(sum.unwrap_or_else(|| path.as_os_str().as_bytes().to_vec()));
    }
    found.sort();
    format!("dir:{}", Digest::of(&found.join(&b',')).hex())
}

/// BuildKit's digest of a directory, from a table of all keys, as it has one.
fn model_content_hash(root: &Path) -> String {
    let mut records: BTreeMap<Vec<u8>, Option<String>> = BTreeMap::new();
    for path in [PathBuf::new()].into_iter().chain(paths(root, Path::new(""))) {
        let stat = root.join(&path).symlink_metadata().unwrap();
        let mut key = Vec::new();
        for name in &path {
            key.push(0);
            key.extend_from_slice(name.as_bytes());
        }
        let mut bytes = header(root, &path, b"", None);
        let owner = format!("uid{}gid{}", stat.uid(), stat.gid());
        let at = bytes.windows(8).position(|window| window == b"uid0gid0").unwrap();
        bytes.splice(at..at + 8, owner.into_bytes());
        if stat.is_file() {
            bytes.extend(fs::read(root.join(&path)).unwrap());
        }
        let digest = Digest::of(&bytes).to_string();
        if stat.is_dir() {
            records.insert(key.clone(), None);
            key.push(0);
        }
        records.insert(key, Some(digest));
    }
    checksum(&records, b"")
}

fn checksum(records: &BTreeMap<Vec<u8>, Option<String>>, key: &[u8]) -> String {
    if let Some(Some(digest)) = records.get(key) {
        return digest.clone();
    }
    let mut bytes = Vec::new();
    let mut next = [key, b"\0"].concat();
    let prefix = next.clone();
    while next.starts_with(&prefix) {
        bytes.extend_from_slice(&next[key.len()..]);
        bytes.extend(checksum(records, &next).into_bytes());
        let from = match records[&next] {
            None => [&next, &b"\0\xff"[..]].concat(),
            Some(_) => [&next, &b"\0"[..]].concat(),
        };
        // A header's key is that of its directory and a NUL: what follows it comes after.
        let after = records.range(from..).map(|(key, _)| key).find(|key| **key != next);
        let Some(after) = after else { break };
        next.clone_from(after);
    }
    Digest::of(&bytes).to_string()
}

#[test]
fn two_hundred_random_trees_hash_as_in_the_model() {
    for seed in 0..200 {
        let dir = random_tree(seed);
        let root = dir.path();
        assert_eq!(build_hash(root, &["."]), model_dir_hash(root, Path::new("")), "seed {seed}");
        assert_eq!(content_hash(root, ""), model_content_hash(root), "seed {seed}");
        for path in paths(root, Path::new("")) {
            let Some(text) = path.to_str() else { continue };
            if root.join(&path).symlink_metadata().unwrap().is_dir() {
                assert_eq!(build_hash(root, &[text]), model_dir_hash(root, &path), "seed {seed}");
                let moved = model_content_hash(&root.join(&path));
                assert_eq!(content_hash(root, text), moved, "seed {seed}");
                break;
            }
        }
    }
}

// Contexts.

/// The names in a tar, by GNU tar's own reading of it.
fn names_in(tar: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().unwrap();
    entries
        .map(|entry| String::from_utf8(entry.unwrap().path_bytes().into_owned()).unwrap())
        .collect()
}

fn context_names(arguments: &[&str], dir: &Path) -> Vec<String> {
    let output = run(&[&["context"], arguments].concat(), dir, b"");
    assert!(output.status.success(), "{output:?}");
    names_in(&output.stdout)
}

fn small_context() -> tempfile::TempDir {
    let dir = directory();
    for name in ["Dockerfile", "src/a.c", "src/b.c", "src/doc/x.md", "tmp/y", "README.md"] {
        write(dir.path(), name, name.as_bytes());
    }
    write(dir.path(), ".dockerignore", b"*\n!src\n**/*.md\n");
    dir
}

#[test]
fn a_context_leaves_out_what_dockerignore_says() {
    let dir = small_context();
    let names = context_names(&["."], dir.path());
    assert_eq!(
        names,
        [".dockerignore", "Dockerfile", "src/", "src/a.c", "src/b.c", "src/doc/"],
        "what the engine needs is sent"
    );
    let names =
        context_names(&[".", "--exclude", "src/doc", "--exclude", "!README.md"], dir.path());
    assert_eq!(names, [".dockerignore", "Dockerfile", "README.md", "src/", "src/a.c", "src/b.c"]);
    // The engine removes it again before it builds.
    let hash = line(&["sum", "--build", "."], dir.path());
    fs::remove_file(dir.path().join("Dockerfile")).unwrap();
    fs::remove_file(dir.path().join(".dockerignore")).unwrap();
    fs::remove_dir_all(dir.path().join("tmp")).unwrap();
    fs::remove_file(dir.path().join("README.md")).unwrap();
    fs::remove_file(dir.path().join("src/doc/x.md")).unwrap();
    assert_eq!(hash, line(&["sum", "--build", "."], dir.path()));
}

#[test]
fn a_context_takes_what_is_included_under_new_names() {
    let dir = small_context();
    let names = context_names(
        &[".", "--include", "src/b.c", "--include", "./src", "--rename", "src=lib/c"],
        dir.path(),
    );
    assert_eq!(names, ["lib/c/b.c", "lib/c/", "lib/c/a.c", "lib/c/doc/"]);
    let names = context_names(
        &[".", "--include", "README.md", "--include", "src", "--rename", "src="],
        dir.path(),
    );
    assert_eq!(names, ["README.md", "a.c", "b.c", "doc/"], "asked for, so not ignored");
    for (arguments, status) in [
        (&["context", ".", "--include", "missing"][..], 1),
        (&["context", ".", "--include", "../x"], 1),
        (&["context", ".", "--rename", "src"], 2),
        (&["context", ".", "--exclude", "["], 2),
        (&["context", "missing"], 1),
        (&["context"], 2),
        (&["sum", "missing"], 1),
        (&["sum", "."], 1),
        (&["sum", "--tarsum", "v1", "README.md"], 1),
        (&["sum", "--build", "--paths", "missing", "."], 1),
        (&["sum", "--build", "--content", "."], 2),
    ] {
        let output = run(arguments, dir.path(), b"");
        assert_eq!(output.status.code(), Some(status), "{arguments:?} {output:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_dockerfile_alone_is_a_context() {
    let dir = small_context();
    let output = run(&["context", "-f", "-"], dir.path(), b"FROM scratch\n");
    assert_eq!(names_in(&output.stdout), ["Dockerfile"]);
    let block = &output.stdout[..512];
    assert_eq!(&block[100..108], b"0000000\0", "no mode, as moby generates it");
    assert_eq!(&output.stdout[512..525], b"FROM scratch\n");
    assert_eq!(output.stdout.len(), 512 + 512 + 1024);
    let output = run(&["context", "-f", "-", "."], dir.path(), b"FROM x\n");
    let names = names_in(&output.stdout);
    assert_eq!(names.iter().filter(|name| *name == "Dockerfile").count(), 1);
    assert_eq!(&output.stdout[512..519], b"FROM x\n");
}

#[test]
fn a_context_is_compressed_when_asked_for() {
    let dir = small_context();
    let plain = run(&["context", "."], dir.path(), b"").stdout;
    let packed = run(&["context", ".", "--compression", "gzip"], dir.path(), b"").stdout;
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut unpacked).unwrap();
    assert_eq!(unpacked, plain);
    let packed = run(&["context", ".", "--compression", "zstd"], dir.path(), b"").stdout;
    assert_eq!(zstd::decode_all(&packed[..]).unwrap(), plain);
}

#[test]
fn a_context_belongs_to_root_whoever_owns_the_files() {
    let dir = directory();
    write(dir.path(), "a", b"text");
    if rustix::process::geteuid().is_root() {
        chown(dir.path().join("a"), Some(1000), Some(3_000_000)).unwrap();
    }
    let tree = stack(dir.path());
    let tar = context::context(&Files::Merged(&tree), &Rules::default()).unwrap();
    let bytes = bytes_of(&tar);
    assert_eq!(&bytes[108..124], b"0000000\x000000000\0");
    assert_eq!(&bytes[100..108], b"0000644\0");
}

#[test]
fn sums_of_several_paths_name_them() {
    let dir = directory();
    write(dir.path(), "a", b"1");
    write(dir.path(), "b", b"2");
    let output = run(&["sum", "a", "b"], dir.path(), b"");
    let [a, b] = [b"1", b"2"].map(|bytes| Digest::of(bytes).hex());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{a}  a\n{b}  b\n"));
    assert_eq!(line(&["sum", "--sha256", "a"], dir.path()), a);
}

//! A store and a cache, and what becomes of its files: whatever that is, what is read must be
//! right.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use stratafs::cache::{Cache, Disk};
use stratafs::recipe::Verify;
use stratafs::tree::Options;

use crate::stores::handmade::{CREATED, DataRoot, exited, make_opaque, whiteout};
use crate::stores::sample::{noise, write};
use crate::stores::view::View;
use crate::support::mounts::Mounted;

/// How much a cache may hold, in bytes.
pub(crate) const BOUND: u64 = 1 << 30;

/// A store with one image of two layers, the lower one of several blocks, a container, and a cache.
pub(crate) struct Cached {
    pub(crate) dir: tempfile::TempDir,
    /// What is read of the store.
    path: &'static str,
    /// Files of the cache that are looked at: a directory of it.
    kind: &'static str,
    /// What `path` holds.
    pub(crate) tar: Vec<u8>,
}

impl Cached {
    /// `None`, with a notice, where we are not root.
    pub(crate) fn new(path: &'static str, kind: &'static str) -> Option<Cached> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root can make whiteouts");
            return None;
        }
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        fs::create_dir(dir.path().join("store")).unwrap();
        let mut root = DataRoot::create(&dir.path().join("store"));
        let base = root.layer(None, |dir| {
            for index in 0..500u32 {
                let size = (index as usize * 31) % 700;
                write(dir, &format!("usr/lib/d{}/f{index}", index % 9), &noise(index, size));
            }
            symlink("usr/lib", dir.join("lib")).unwrap();
        });
        let top = root.layer(Some(&base), |dir| {
            write(dir, "usr/lib/d1/new", b"new\n");
            whiteout(&dir.join("lib"));
            fs::create_dir(dir.join("usr/lib/d2")).unwrap();
            make_opaque(&dir.join("usr/lib/d2"));
        });
        let app = root.image(&[&base, &top], CREATED);
        root.tag("app:1", &app);
        root.container("web", ("app:1", &app), &top, &exited(), |dir| write(dir, "own", b"own\n"));
        let tar = View::with(root.path(), Options::default()).read(path);
        Some(Cached { dir, path, kind, tar })
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    /// The store as another daemon would show it.
    pub(crate) fn view(&self) -> View {
        self.view_with(Verify::Passing)
    }

    pub(crate) fn view_with(&self, verify: Verify) -> View {
        let cache = Arc::new(Cache::on(Disk::open(&self.cache(), BOUND).unwrap()));
        View::with(&self.store(), Options { cache, verify, ..Options::default() })
    }

    /// The files that are kept, the largest first.
    pub(crate) fn kept(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.cache().join(self.kind)).unwrap();
        let mut kept: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        kept.sort_by_key(|path| std::cmp::Reverse(fs::metadata(path).unwrap().len()));
        kept
    }

    /// The same, and what they hold.
    pub(crate) fn contents(&self) -> Vec<(PathBuf, Vec<u8>)> {
        self.kept().into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    }

    pub(crate) fn check(&self, view: &View, what: &str) {
        assert!(view.read(self.path) == self.tar, "{what}");
    }

    /// Starts `stratafs cat` with the cache `cache`.
    pub(crate) fn cat(&self, cache: &OsStr) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stratafs"));
        command.arg("cat").arg("-s").arg(self.store()).arg("--cache").arg(cache).arg(self.path);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Four processes read at once, with nothing kept at first and then with `count` files.
    pub(crate) fn read_by_four(&self, count: usize) {
        for round in ["cold", "warm"] {
            let running: Vec<_> = (0..4).map(|_| self.cat(self.cache().as_os_str())).collect();
            for child in running {
                let output = child.wait_with_output().unwrap();
                assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
                assert!(output.stdout == self.tar, "{round}");
            }
            assert_eq!(self.kept().len(), count, "{round}");
            assert_eq!(fs::read_dir(self.cache().join("tmp")).unwrap().count(), 0, "{round}");
        }
    }
}

/// A number below `bound` that looks like chance.
pub(crate) fn chance(state: &mut u64, bound: usize) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize % bound
}

/// A small file system of its own at `at`.
pub(crate) fn tmpfs(at: &Path, size: &str) -> Mounted {
    fs::create_dir_all(at).unwrap();
    Mounted::tmpfs(at, size).unwrap()
}

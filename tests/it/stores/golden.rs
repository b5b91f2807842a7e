//! Stores that real engines wrote, and the archives that they made of them.
//!
//! They lie in `../shared/vectors` and are described in section 10 of formats.md there. Where that
//! folder is missing, or without root (they hold devices, foreign owners and trusted xattrs), tests
//! that need them say so and pass.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use tempfile::TempDir;

/// Docker 20.10.24 on overlay2: `base:1`, `c2img:1`, and the container `c1`.
pub(crate) const OVERLAY_20: &str = "docker20.10-overlay2";

/// Docker 20.10.24 on vfs: `base:1`, `base:2`, `built:1`, `c1img:1`, and the dead container `c1`.
pub(crate) const VFS_20: &str = "docker20.10-vfs";

/// Docker 29.7.2 on vfs: `base:1`, `built:1`, `built:two`, and the container `c1`.
pub(crate) const VFS_29: &str = "docker29-vfs";

/// All of them.
pub(crate) const ALL: [&str; 3] = [OVERLAY_20, VFS_20, VFS_29];

/// Podman 5.8.2 on overlay, a fixture beside the vectors: `localhost/app`, `localhost/base:1`,
/// `localhost/papp:1.0` and the containers `pbuild`, `pcreated`, `prun`.
pub(crate) const PODMAN: &str = "podman-5.8";

/// Docker 29.7.2 on containerd's image store, and containerd 2.3.4 alone: fixtures, too.
pub(crate) const DOCKER_CONTAINERD: &str = "docker-29-containerd";
pub(crate) const CONTAINERD: &str = "containerd-2.3";

/// An extracted store, until nobody uses it.
#[derive(Debug, Clone)]
pub(crate) struct Golden(Arc<TempDir>);

impl Golden {
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

/// The file `name` among the vectors; `None`, with a notice, where there are none.
pub(crate) fn vector(name: &str) -> Option<Vec<u8>> {
    let path = folder()?.join(name);
    Some(fs::read(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display())))
}

/// The folder of the vectors; `None`, with a notice, where it is missing or we are not root.
pub(crate) fn folder() -> Option<&'static Path> {
    static FOLDER: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/vectors");
        if !folder.is_dir() {
            eprintln!("skipped: {} is missing", folder.display());
            return None;
        }
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root can unpack the stores in {}", folder.display());
            return None;
        }
        // A store is opened through no symlink.
        Some(fs::canonicalize(folder).unwrap())
    });
    FOLDER.as_deref()
}

/// A store that nobody may change, unpacked once for all tests that look at it at a time.
pub(crate) fn store(name: &'static str) -> Option<Golden> {
    static OPEN: LazyLock<Mutex<HashMap<&str, Weak<TempDir>>>> = LazyLock::new(Mutex::default);
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(dir) = open.get(name).and_then(Weak::upgrade) {
        return Some(Golden(dir));
    }
    let dir = Arc::new(copy(name)?);
    open.insert(name, Arc::downgrade(&dir));
    Some(Golden(dir))
}

/// A store to do with as one likes.
pub(crate) fn copy(name: &str) -> Option<TempDir> {
    let vector = folder()?.join(format!("store-{name}.tar"));
    if vector.exists() {
        return Some(unpack(&vector));
    }
    Some(unpack(&fixtures()?.join(format!("{name}.tar.zst"))))
}

/// The store that `scripts/try` shows: Docker 20.10.24 on vfs, files of any user.
pub(crate) fn tried() -> TempDir {
    unpack(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sample-store.tar.gz"))
}

/// The files of an archive; root alone can unpack those of a store.
pub(crate) fn unpack(archive: &Path) -> TempDir {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--xattrs", "--xattrs-include=*", "--numeric-owner"]);
    if archive.extension().is_some_and(|extension| extension == "zst") {
        tar.arg("--use-compress-program=zstd -d --long=27");
    }
    let status = tar.arg("-xf").arg(archive).arg("-C").arg(dir.path()).status();
    assert!(status.unwrap().success(), "{}", archive.display());
    dir
}

/// The folder of the fixtures; `None`, with a notice, where it is missing.
pub(crate) fn fixtures() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/fixtures");
    if !folder.is_dir() {
        eprintln!("skipped: {} is missing", folder.display());
        return None;
    }
    Some(folder)
}

/// The files that an engine wrote of a fixture, by name.
pub(crate) fn expected(name: &str) -> Option<TempDir> {
    folder()?;
    Some(unpack(&fixtures()?.join(format!("{name}-expected/tars.tar.zst"))))
}

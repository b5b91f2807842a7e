//! A small hand-made store with a bit of everything. Needs root.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, chown, symlink};
use std::path::Path;

use super::handmade::{
    CREATED, Container, DataRoot, Layer, exited, make_opaque, set_mtime, whiteout,
};

/// The store, and what a test may want to name of it.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) root: DataRoot,
    /// Lowest first.
    pub(crate) layers: [Layer; 3],
    /// Of the two lower layers: `app:1`, `app:latest`, `ghcr.io/org/app:v1`.
    pub(crate) app: String,
    /// Of all layers, and without a name.
    pub(crate) untagged: String,
    /// `web`, of `app:1`.
    pub(crate) web: Container,
}

/// When `untagged` was made.
pub(crate) const LATER: &str = "2024-06-01T00:00:00Z";

/// Makes it; `None`, with a notice, where we are not root.
pub(crate) fn sample() -> Option<Sample> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can make whiteouts");
        return None;
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut root = DataRoot::create(dir.path());
    let base = root.layer(None, fill_base);
    let middle = root.layer(Some(&base), fill_middle);
    let top = root.layer(Some(&middle), |dir| write(dir, "top", b"top\n"));
    let app = root.image(&[&base, &middle], CREATED);
    for reference in ["app:1", "app:latest", "ghcr.io/org/app:v1"] {
        root.tag(reference, &app);
    }
    let untagged = root.image(&[&base, &middle, &top], LATER);
    let web = root.container("web", ("app:1", &app), &middle, &exited(), |dir| {
        write(dir, "own", b"own\n");
        write(dir, "etc/passwd", b"root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n");
        whiteout(&dir.join("etc/shadow"));
    });
    Some(Sample { dir, root, layers: [base, middle, top], app, untagged, web })
}

impl Sample {
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Writes a file, with the directories above it.
pub(crate) fn write(dir: &Path, name: &str, bytes: &[u8]) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Bytes that look like nothing else.
pub(crate) fn noise(seed: u32, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    (0..count).map(|_| next()).collect()
}

fn fill_base(dir: &Path) {
    write(dir, "etc/passwd", b"root:x:0:0::/root:/bin/sh\n");
    write(dir, "etc/shadow", b"root:*:1::::::\n");
    fs::set_permissions(dir.join("etc/shadow"), Permissions::from_mode(0o640)).unwrap();
    write(dir, "usr/bin/tool", &noise(1, 70_000));
    fs::set_permissions(dir.join("usr/bin/tool"), Permissions::from_mode(0o4755)).unwrap();
    fs::hard_link(dir.join("usr/bin/tool"), dir.join("usr/bin/link")).unwrap();
    symlink("usr/bin", dir.join("bin")).unwrap();
    symlink("/etc/passwd", dir.join("absolute")).unwrap();
    symlink("../../../etc/passwd", dir.join("usr/up")).unwrap();
    write(dir, "empty", b"");
    write(dir, "odd", &noise(2, 1023));
    write(dir, "block", &noise(3, 1024));
    write(dir, "data/gone", b"hidden by an opaque directory\n");
    write(dir, "data/kept", b"and written again\n");
    write(dir, "old", b"old\n");
    write(dir, "deleted/file", b"deleted with its directory\n");
    write(dir, &format!("{}/{}", "d".repeat(90), "f".repeat(90)), b"split\n");
    write(dir, &"n".repeat(200), b"long\n");
    fs::write(dir.join(OsStr::from_bytes(b"latin-\xe9")), "not UTF-8\n").unwrap();
    chown(dir.join("odd"), Some(3_000_000), Some(1000)).unwrap();
    let sparse = fs::File::create(dir.join("sparse")).unwrap();
    sparse.set_len(1 << 20).unwrap();
    sparse.write_all_at(b"data", 500_000).unwrap();
    set_mtime(&dir.join("old"), 5, 123_456_789);
}

fn fill_middle(dir: &Path) {
    whiteout(&dir.join("old"));
    whiteout(&dir.join("deleted"));
    fs::create_dir(dir.join("data")).unwrap();
    make_opaque(&dir.join("data"));
    write(dir, "data/kept", b"second\n");
    write(dir, "usr/bin/tool2", &noise(4, 5000));
    fs::set_permissions(dir, Permissions::from_mode(0o755)).unwrap();
}

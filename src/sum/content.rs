//! BuildKit's content hashes: of a file, and of a directory with all that it holds, wherever it
//! lies (moby/buildkit `cache/contenthash`).
//!
//! 1. A file's is that of a tarsum header without its name, owners and xattrs as they are, and its
//!    bytes ([`header`]).
//! 2. A directory's is made of records in the order of their keys: its own header, then each name
//!    with the digest of what is there; see [`Level`].
//! 3. Keys are paths with NULs for slashes. After a directory, BuildKit goes on at its key, a NUL
//!    and the byte 0xff; what in it starts with that byte is counted once more.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;

use sha2::{Digest as _, Sha256};

use super::entries::Entry;
use super::tarsum::{Version, header as tarsum_header};
use super::{Cancel, update};
use crate::backing::FileKind;
use crate::digest::Digest;
use crate::error::Result;
use crate::overlay::files::{Files, Found, Step};

/// The content hash of `found`, which lies at `path`.
///
/// # Errors
/// Fails when something there can't be read, and with EINTR where nobody waits.
pub fn hash(files: &Files<'_>, path: &[u8], found: &Found, cancel: &Cancel) -> Result<Digest> {
    if !found.entry.is_dir() {
        return file(files, found, cancel);
    }
    let mut open = vec![Level::enter(Vec::new(), file(files, found, cancel)?)];
    files.walk(path, &found.entry, &mut |below, found| {
        cancel.check()?;
        let depth = below[path.len()..].iter().filter(|&&byte| byte == b'/').count();
        let depth = if path.is_empty() { depth + 1 } else { depth };
        close(&mut open, depth);
        let name = found.entry.name.as_bytes().to_vec();
        let digest = file(files, found, cancel)?;
        if found.entry.is_dir() {
            open.push(Level::enter(name, digest));
        } else if let Some(level) = open.last_mut() {
            level.add(&name, digest, &[]);
        }
        Ok(Step::Enter)
    })?;
    close(&mut open, 1);
    Ok(open.pop().map_or(Digest::of(b""), |level| Digest::from_hash(level.hash)))
}

/// Finishes the directories that are deeper than `depth` levels.
fn close(open: &mut Vec<Level>, depth: usize) {
    while open.len() > depth {
        let Some(done) = open.pop() else { return };
        if let Some(above) = open.last_mut() {
            above.add(&done.name, Digest::from_hash(done.hash), &done.again);
        }
    }
}

/// A directory that is being hashed.
struct Level {
    name: Vec<u8>,
    hash: Sha256,
    /// What the directory above counts once more: keys from here on, and digests.
    again: Vec<(Vec<u8>, Digest)>,
}

impl Level {
    fn enter(name: Vec<u8>, header: Digest) -> Level {
        let mut level = Level { name, hash: Sha256::new(), again: Vec::new() };
        level.record(b"\0", header);
        level
    }

    /// Adds what lies here as `name`, and what of it is counted `again`.
    fn add(&mut self, name: &[u8], digest: Digest, again: &[(Vec<u8>, Digest)]) {
        let key = [b"\0", name].concat();
        let is_last = name.first() == Some(&0xff);
        let records = again.iter().map(|(below, digest)| ([&key[..], below].concat(), *digest));
        for (key, digest) in std::iter::once((key.clone(), digest)).chain(records) {
            self.record(&key, digest);
            if is_last {
                self.again.push((key, digest));
            }
        }
    }

    fn record(&mut self, key: &[u8], digest: Digest) {
        self.hash.update(key);
        self.hash.update(digest.to_string());
    }
}

/// The hash of a file by itself; of a directory its header alone.
fn file(files: &Files<'_>, found: &Found, cancel: &Cancel) -> Result<Digest> {
    let mut hash = Sha256::new_with_prefix(header(files, found)?);
    if found.entry.stat.kind == FileKind::Regular && !found.is_mark {
        let contents = files.contents(found)?;
        update(&mut hash, 0..contents.len(), |at, buf| contents.read_at(at, buf), cancel)?;
    }
    Ok(Digest::from_hash(hash))
}

/// What is hashed of attributes.
fn header(files: &Files<'_>, found: &Found) -> Result<Vec<u8>> {
    let entry = &found.entry;
    let stat = &entry.stat;
    let typeflag = match stat.kind {
        // A socket counts as a file (`NewFromStat` clears its type).
        FileKind::Regular | FileKind::Socket => b'0',
        FileKind::Symlink => b'2',
        FileKind::CharDevice => b'3',
        FileKind::BlockDevice => b'4',
        FileKind::Directory => b'5',
        FileKind::Fifo => b'6',
    };
    let is_device = matches!(stat.kind, FileKind::CharDevice | FileKind::BlockDevice);
    let rdev = if is_device { stat.rdev } else { (0, 0) };
    let is_link = stat.kind == FileKind::Symlink;
    let has_size = matches!(typeflag, b'0');
    let fields = Entry {
        name: Vec::new(),
        mode: i64::from(if is_link { stat.permissions() | 0o777 } else { stat.permissions() }),
        uid: stat.uid.into(),
        gid: stat.gid.into(),
        size: if has_size { i64::try_from(stat.size).unwrap_or(i64::MAX) } else { 0 },
        mtime: 0,
        typeflag,
        link: if is_link { files.stack().read_link(entry)? } else { Vec::new() },
        device: (rdev.0.into(), rdev.1.into()),
        xattrs: xattrs(files, found)?,
        body: 0..0,
    };
    Ok(tarsum_header(&fields, Version::V1))
}

/// The xattrs that count: no labels, no access lists.
fn xattrs(files: &Files<'_>, found: &Found) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut xattrs = BTreeMap::new();
    if found.is_mark {
        return Ok(xattrs);
    }
    for name in files.stack().xattrs(&found.entry)? {
        let bytes = name.as_bytes();
        let is_left_out = bytes.starts_with(b"security.") && bytes != b"security.capability"
            || bytes.starts_with(b"system.")
            || bytes.starts_with(b"com.apple.");
        if !is_left_out && let Some(value) = files.stack().xattr(&found.entry, &name)? {
            xattrs.insert(bytes.to_vec(), value);
        }
    }
    Ok(xattrs)
}

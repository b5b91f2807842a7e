//! The hashes by which Docker's classic builder recognises what COPY and ADD take from a context:
//! `file:`, `dir:` and `multi:` (moby `builder/dockerfile/copy.go`, `builder/remotecontext`).
//!
//! 1. They are made of the tar that holds the context, entry by entry ([`tarsum`](super::tarsum)):
//!    name, mode and the kind of link count as they stand there.
//! 2. A path is that of the unpacked context: symlinks are followed within it ([`Context::follow`]),
//!    and the sum of what they lead to counts. Where that has no entry, the path itself counts.
//! 3. Bodies are read only when a hash needs them, each once.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::ops::Bound;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::Cancel;
use super::entries::Entry;
use super::tarsum::{Version, clean_name, entry_sum, visit};
use crate::archive::patterns::{BadPattern, Wildcard};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::recipe::Recipe;

/// Most names that one path may lead through (`maxIter` of moby `pkg/symlink`).
const NAMES_MAX: usize = 255;

/// What a context holds at a path. A path's key is the path with NULs for slashes, so that the
/// order of keys is that of a walk.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Dir,
    Link(Vec<u8>),
    Other,
}

/// A build context as its tar describes it.
#[derive(Debug)]
pub struct Context {
    tar: Arc<Recipe>,
    kinds: BTreeMap<Vec<u8>, Kind>,
    /// The first entry of each clean name: where its header begins.
    entries: HashMap<Vec<u8>, Entry>,
}

impl Context {
    /// The context that a tar holds. Reads headers alone.
    ///
    /// # Errors
    /// Fails where it is no tar, is damaged or can't be read.
    pub fn new(tar: Arc<Recipe>) -> Result<Context> {
        let mut kinds = BTreeMap::new();
        let mut entries = HashMap::new();
        visit(&tar, |entry| {
            let name = clean_name(&entry.name);
            if entry.typeflag != b'g' && name != b"." {
                let kind = match entry.typeflag {
                    b'5' => Kind::Dir,
                    b'2' => Kind::Link(entry.link.clone()),
                    b'1' => link_kind(&kinds, &entry.link),
                    _ => Kind::Other,
                };
                for (at, _) in name.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
                    kinds.entry(key(&name[..at])).or_insert(Kind::Dir);
                }
                kinds.insert(key(&name), kind);
            }
            entries.entry(name).or_insert(entry);
            Ok(())
        })?;
        Ok(Context { tar, kinds, entries })
    }

    /// Takes a file away that the engine removes before it builds: one that it needed, and that
    /// `.dockerignore` leaves out.
    pub fn remove(&mut self, path: &[u8]) {
        self.kinds.remove(&key(path));
    }

    /// The hash of what the `sources` of one COPY name, each a path or a pattern.
    ///
    /// # Errors
    /// ENOENT where there is nothing of a name, EINVAL for a malformed pattern, EINTR where nobody
    /// waits, and what reading the tar fails with.
    pub fn hash(&self, sources: &[&[u8]], version: Version, cancel: &Cancel) -> Result<String> {
        let hashing = Hashing::new(self, version, cancel);
        let mut hashes = Vec::new();
        for source in sources {
            hashing.add_source(source, &mut hashes)?;
        }
        let hash = match &hashes[..] {
            [] => return Err(Error::not_found("no source files were specified")),
            [only] => only.clone(),
            _ => joined("multi", &hashes),
        };
        Ok(String::from_utf8_lossy(&hash).into_owned())
    }

    /// The hash of what lies at `path`, whatever characters it has.
    ///
    /// # Errors
    /// As [`Context::hash`].
    pub fn hash_path(&self, path: &[u8], version: Version, cancel: &Cancel) -> Result<String> {
        let hash = Hashing::new(self, version, cancel).path(path)?;
        Ok(String::from_utf8_lossy(&hash).into_owned())
    }

    /// Where a path leads within the context, as moby's `FollowSymlinkInScope` has it: what does
    /// not exist is taken for what it says.
    fn follow(&self, path: &[u8]) -> Result<Vec<u8>, Errno> {
        let mut here: Vec<Vec<u8>> = Vec::new();
        let mut rest: Vec<Vec<u8>> = names(path);
        let mut count = 0;
        while let Some(name) = rest.pop() {
            count += 1;
            if count > NAMES_MAX {
                return Err(Errno::LOOP);
            }
            match &name[..] {
                b"" | b"." => continue,
                b".." => {
                    here.pop();
                    continue;
                }
                _ if self.kinds.get(&here.join(&0)) == Some(&Kind::Other) => {
                    return Err(Errno::NOTDIR);
                }
                _ => here.push(name),
            }
            let Some(Kind::Link(target)) = self.kinds.get(&here.join(&0)) else { continue };
            here.pop();
            if target.starts_with(b"/") {
                here.clear();
            }
            rest.append(&mut names(target));
        }
        Ok(here.join(&b'/'))
    }

    /// What is at a path, through no symlink; the context itself is a directory.
    fn kind(&self, path: &[u8]) -> Option<&Kind> {
        if path.is_empty() { Some(&Kind::Dir) } else { self.kinds.get(&key(path)) }
    }

    /// All paths in the directory `dir`, and itself unless it is the context.
    fn walk<'a>(&'a self, dir: &[u8]) -> impl Iterator<Item = Vec<u8>> + use<'a> {
        let dir = key(dir);
        let range = self.kinds.range::<[u8], _>((Bound::Included(&dir[..]), Bound::Unbounded));
        let of_dir = range.take_while(move |(key, _)| {
            let rest = key.strip_prefix(&dir[..]);
            rest.is_some_and(|rest| dir.is_empty() || matches!(rest, [] | [0, ..]))
        });
        of_dir.map(|(key, _)| path_of(key))
    }
}

/// The kind that another name of a file gives it; one that is not there is taken for a file.
fn link_kind(kinds: &BTreeMap<Vec<u8>, Kind>, link: &[u8]) -> Kind {
    kinds.get(&key(&clean_name(link))).cloned().unwrap_or(Kind::Other)
}

fn key(path: &[u8]) -> Vec<u8> {
    path.iter().map(|&byte| if byte == b'/' { 0 } else { byte }).collect()
}

fn path_of(key: &[u8]) -> Vec<u8> {
    key.iter().map(|&byte| if byte == 0 { b'/' } else { byte }).collect()
}

/// The names of a path, last first.
fn names(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|&byte| byte == b'/').rev().map(<[u8]>::to_vec).collect()
}

fn joined(prefix: &str, hashes: &[Vec<u8>]) -> Vec<u8> {
    let hash = Digest::from_hash(Sha256::new_with_prefix(hashes.join(&b',')));
    format!("{prefix}:{}", hash.hex()).into_bytes()
}

/// The work on one COPY.
struct Hashing<'a> {
    context: &'a Context,
    version: Version,
    cancel: &'a Cancel,
    /// Sums of entries that many links may lead to.
    known: RefCell<HashMap<Vec<u8>, Digest>>,
}

impl<'a> Hashing<'a> {
    fn new(context: &'a Context, version: Version, cancel: &'a Cancel) -> Hashing<'a> {
        Hashing { context, version, cancel, known: RefCell::default() }
    }

    /// The hashes of what one source names: several where it is a pattern.
    fn add_source(&self, source: &[u8], hashes: &mut Vec<Vec<u8>>) -> Result<()> {
        let source = source.strip_prefix(b"/").unwrap_or(source);
        let source = source.strip_prefix(b"./").unwrap_or(source);
        let text = String::from_utf8_lossy(source);
        if !Wildcard::is_one(&text) {
            hashes.push(self.path(source)?);
            return Ok(());
        }
        let bad = |err: BadPattern| Error::invalid(&*text, err.to_string());
        let pattern = Wildcard::parse(&text).map_err(bad)?;
        for path in self.context.walk(b"") {
            if pattern.matches(&String::from_utf8_lossy(&path)) {
                hashes.push(self.path(&path)?);
            }
        }
        Ok(())
    }

    /// The hash of the file or directory at `path`.
    fn path(&self, path: &[u8]) -> Result<Vec<u8>> {
        let shown = || OsStr::from_bytes(path);
        let target = self.context.follow(path).map_err(|why| Error::errno_of(shown(), why))?;
        match self.context.kind(&target) {
            None => Err(Error::not_found(shown())),
            Some(Kind::Dir) => self.dir(&target),
            Some(Kind::Link(_) | Kind::Other) => {
                Ok([b"file:", &self.sum(path, &target)?[..]].concat())
            }
        }
    }

    fn dir(&self, dir: &[u8]) -> Result<Vec<u8>> {
        let mut sums = Vec::new();
        for path in self.context.walk(dir) {
            // What can't be followed is left out, as Docker does.
            if let Ok(target) = self.context.follow(&path) {
                sums.push(self.sum(&path, &target)?);
            }
        }
        sums.sort_unstable();
        Ok(joined("dir", &sums))
    }

    /// The sum of the entry at `target`; without one, the path that led there.
    fn sum(&self, path: &[u8], target: &[u8]) -> Result<Vec<u8>> {
        if let Some(sum) = self.known.borrow().get(target) {
            return Ok(sum.hex().into_bytes());
        }
        let name = if target.is_empty() { b"." } else { target };
        let Some(entry) = self.context.entries.get(name) else {
            return Ok(path.to_vec());
        };
        let sum = entry_sum(&self.context.tar, entry, self.version, self.cancel)?;
        self.known.borrow_mut().insert(target.to_vec(), sum);
        Ok(sum.hex().into_bytes())
    }
}

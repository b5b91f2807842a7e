//! Checksums of what is mounted, worked out when somebody asks for their xattr.

use std::ffi::OsStr;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;
use rustix::io::Errno;

use super::identity::Identity;
use super::inodes::Known;
use super::merged::MergedTree;
use super::node::Node;
use super::own::OwnFiles;
use super::{FRESH, Tree};
use crate::archive::Flavour;
use crate::archive::context::{self, Rules};
use crate::archive::export::Modes;
use crate::backing::FileKind;
use crate::error::{Error, Result};
use crate::overlay::Entry;
use crate::overlay::files::{Files, Found};
use crate::sum::build::Context;
use crate::sum::tarsum::{Version, tarsum};
use crate::sum::{self, Cancel, content};

/// Beginning of the names of xattrs that are worked out. Those are listed nowhere, so that nobody
/// copies or computes them who did not ask; a file's own of such a name are hidden.
const PREFIX: &str = "user.stratafs.";

/// How many sums are kept.
const SUMS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(8191);

/// How many contexts are kept, for the directories of one tree that are asked about in turn.
const CONTEXTS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1);

/// How long they are: a context of a large image takes tens of MiB.
const CONTEXT_KEPT: Duration = Duration::from_secs(60);

/// A checksum, by the xattr that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sum {
    /// `user.stratafs.sha256`, of files and archives: hex alone, as `sha256sum` prints it.
    Sha256,
    /// `user.stratafs.tarsum`, of archives, also with the version behind it: `.v0`, `.v1`, `.dev`.
    Tarsum(Version),
    /// `user.stratafs.buildhash`: Docker's classic builder's, with the whole tree as the context.
    Build,
    /// `user.stratafs.contenthash`: BuildKit's.
    Content,
}

impl Sum {
    /// The checksum that an xattr is; `None` for all others.
    #[must_use]
    pub fn of_xattr(name: &OsStr) -> Option<Sum> {
        Some(match name.to_str()?.strip_prefix(PREFIX)? {
            "sha256" => Sum::Sha256,
            "tarsum" | "tarsum.v1" => Sum::Tarsum(Version::V1),
            "tarsum.v0" => Sum::Tarsum(Version::V0),
            "tarsum.dev" => Sum::Tarsum(Version::Dev),
            "buildhash" => Sum::Build,
            "contenthash" => Sum::Content,
            _ => return None,
        })
    }
}

/// Sums that were worked out, the least recently used first to go.
#[derive(Debug)]
pub(super) struct Sums {
    known: Mutex<LruCache<(Identity, Sum), Made<String>>>,
    contexts: Mutex<LruCache<Identity, Made<Arc<Context>>>>,
}

/// Something that was worked out, and for how long it is right.
#[derive(Debug, Clone)]
struct Made<T> {
    value: T,
    until: Option<Instant>,
}

impl<T: Clone> Made<T> {
    fn new(value: T, kept: Option<Duration>) -> Made<T> {
        Made { value, until: kept.map(|kept| Instant::now() + kept) }
    }

    fn current(&self) -> Option<T> {
        let is_current = self.until.is_none_or(|until| Instant::now() < until);
        is_current.then(|| self.value.clone())
    }
}

impl Default for Sums {
    fn default() -> Sums {
        let known = Mutex::new(LruCache::new(SUMS));
        Sums { known, contexts: Mutex::new(LruCache::new(CONTEXTS)) }
    }
}

impl Tree {
    /// A checksum that was worked out before; `None` where it has to be, by [`Tree::sum`].
    ///
    /// # Errors
    /// ENODATA where there is none of that kind.
    pub fn known_sum(&self, ino: u64, sum: Sum) -> Result<Option<Vec<u8>>> {
        let known = self.known(ino)?;
        if !has_sum(&known, sum) {
            return Err(Error::errno_of(format!("inode {ino}"), Errno::NODATA));
        }
        let made = lock(&self.sums.known).get(&(known.identity, sum)).and_then(Made::current);
        Ok(made.map(String::into_bytes))
    }

    /// A checksum, which may take as long as reading the file or the tree.
    ///
    /// # Errors
    /// ENODATA where there is none of that kind, EOPNOTSUPP for the build hash of one name of
    /// several, EINTR where nobody waits, and whatever reading fails with.
    pub fn sum(&self, ino: u64, sum: Sum, cancel: &Cancel) -> Result<Vec<u8>> {
        if let Some(value) = self.known_sum(ino, sum)? {
            return Ok(value);
        }
        let known = self.known(ino)?;
        let value = match sum {
            Sum::Sha256 => self.sha256(&known, cancel)?,
            Sum::Tarsum(version) => match &*known.node {
                Node::Archive(archive) => {
                    tarsum(&*self.recipe(archive, known.attr.size)?, version, cancel)?
                }
                Node::Place(_) | Node::Document(_) | Node::Link(_) => return Err(no_sum(ino)),
                Node::Merged { .. } | Node::Own { .. } => return Err(no_sum(ino)),
            },
            Sum::Build => self.build_hash(ino, &known, cancel)?,
            Sum::Content => self.content_hash(ino, &known, cancel)?,
        };
        let made = Made::new(value.clone(), may_change(&known.node).then_some(FRESH));
        lock(&self.sums.known).put((known.identity, sum), made);
        Ok(value.into_bytes())
    }

    fn sha256(&self, known: &Known, cancel: &Cancel) -> Result<String> {
        let digest = match &*known.node {
            Node::Document(recipe) => sum::recipe_sha256(recipe, cancel)?,
            Node::Archive(archive) => {
                sum::recipe_sha256(&*self.recipe(archive, known.attr.size)?, cancel)?
            }
            Node::Merged { tree, entry, .. } => {
                let read = |offset, buf: &mut [u8]| tree.read(entry, offset, buf);
                sum::sha256(entry.stat.size, read, cancel)?
            }
            Node::Place(_) | Node::Link(_) | Node::Own { .. } => {
                return Err(no_sum(known.attr.ino));
            }
        };
        Ok(digest.hex())
    }

    fn build_hash(&self, ino: u64, known: &Known, cancel: &Cancel) -> Result<String> {
        match &*known.node {
            Node::Merged { tree, entry, .. } if !entry.is_dir() => {
                self.file_hash(tree, entry, cancel)
            }
            Node::Merged { tree, .. } => {
                self.dir_hash(ino, &Files::Merged(tree.stack()), tree.is_live(), cancel)
            }
            Node::Own { tree, .. } => {
                self.dir_hash(ino, &own(tree), tree.files().is_live(), cancel)
            }
            Node::Place(_) | Node::Document(_) | Node::Link(_) | Node::Archive(_) => {
                Err(no_sum(ino))
            }
        }
    }

    /// The build hash of a file, which hangs on its one name and nothing else of the context.
    fn file_hash(&self, tree: &MergedTree, entry: &Entry, cancel: &Cancel) -> Result<String> {
        let files = Files::Merged(tree.stack());
        let path = &entry.place.path;
        // An xattr belongs to a file, not to one of its names.
        let found = files.find(path)?;
        if entry.stat.nlink > 1 || found.entry.place != entry.place {
            return Err(Error::errno_of(entry.place.path(), Errno::OPNOTSUPP));
        }
        let found = Found { entry: entry.clone(), is_mark: false };
        let tar = context::single(&files, path, &found, self.modes())?;
        Context::new(Arc::new(tar))?.hash_path(path, Version::V1, cancel)
    }

    fn dir_hash(
        &self,
        ino: u64,
        files: &Files<'_>,
        is_live: bool,
        cancel: &Cancel,
    ) -> Result<String> {
        let (root, path) = self.way_to(ino)?;
        let kept = lock(&self.sums.contexts).get(&root).and_then(Made::current);
        let context = match kept {
            Some(context) => context,
            None => {
                let rules = Rules { modes: self.modes(), ..Rules::default() };
                let tar = context::context(files, &rules)?;
                let context = Arc::new(Context::new(Arc::new(tar))?);
                let kept = if is_live { FRESH } else { CONTEXT_KEPT };
                let made = Made::new(Arc::clone(&context), Some(kept));
                lock(&self.sums.contexts).put(root, made);
                context
            }
        };
        context.hash_path(&path, Version::V1, cancel)
    }

    fn content_hash(&self, ino: u64, known: &Known, cancel: &Cancel) -> Result<String> {
        let digest = match &*known.node {
            Node::Merged { tree, entry, .. } => {
                let files = Files::Merged(tree.stack());
                match entry.is_dir() {
                    false => {
                        let found = Found { entry: entry.clone(), is_mark: false };
                        content::hash(&files, b"", &found, cancel)?
                    }
                    true => self.content_of_dir(ino, &files, cancel)?,
                }
            }
            Node::Own { tree, .. } => self.content_of_dir(ino, &own(tree), cancel)?,
            Node::Place(_) | Node::Document(_) | Node::Link(_) | Node::Archive(_) => {
                return Err(no_sum(ino));
            }
        };
        Ok(digest.to_string())
    }

    fn content_of_dir(
        &self,
        ino: u64,
        files: &Files<'_>,
        cancel: &Cancel,
    ) -> Result<crate::digest::Digest> {
        let (_, path) = self.way_to(ino)?;
        content::hash(files, &path, &files.find(&path)?, cancel)
    }

    /// The tree that a directory is in, by its top, and the path there.
    fn way_to(&self, ino: u64) -> Result<(Identity, Vec<u8>)> {
        let mut names = Vec::new();
        let mut known = self.known(ino)?;
        while let Node::Merged { entry, depth: 1.., .. } | Node::Own { entry, depth: 1.., .. } =
            &*known.node
        {
            names.push(entry.name.clone());
            known = self.known(known.parent)?;
        }
        let names: Vec<&[u8]> = names.iter().rev().map(|name| name.as_bytes()).collect();
        Ok((known.identity, names.join(&b'/')))
    }

    /// What the modes of a context tell: as the engine of `--flavour` has it.
    fn modes(&self) -> Modes {
        match self.options.flavour {
            Some(Flavour::Docker110 | Flavour::Docker19) => Modes::Typed,
            _ => Modes::Plain,
        }
    }
}

fn own(tree: &OwnFiles) -> Files<'_> {
    Files::Own { tree: tree.own(), layer: tree.files().stack() }
}

fn no_sum(ino: u64) -> Error {
    Error::errno_of(format!("inode {ino}"), Errno::NODATA)
}

/// Whether a node has a checksum of that kind.
fn has_sum(known: &Known, sum: Sum) -> bool {
    let is_file = known.attr.kind == FileKind::Regular;
    match &*known.node {
        Node::Place(_) | Node::Link(_) => false,
        Node::Document(_) => sum == Sum::Sha256,
        Node::Archive(_) => matches!(sum, Sum::Sha256 | Sum::Tarsum(_)),
        Node::Merged { .. } | Node::Own { .. } => match sum {
            Sum::Sha256 => is_file,
            Sum::Tarsum(_) => false,
            Sum::Build | Sum::Content => true,
        },
    }
}

/// Whether what is below may change while the node stays what it is.
fn may_change(node: &Node) -> bool {
    match node {
        Node::Merged { tree, entry, .. } => entry.is_dir() && tree.is_live(),
        Node::Own { tree, .. } => tree.files().is_live(),
        Node::Place(_) | Node::Document(_) | Node::Link(_) | Node::Archive(_) => false,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

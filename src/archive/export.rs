//! Merged files as one flat tar, as `docker export` packs a container; and a writable layer's tar,
//! as `docker commit` stores it. Podman's are the same but for xattrs and marks ([`Style::Podman`]).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::io::Errno;

use super::documents::Flavour;
use super::pack::{Body, HardLinks, Packer};
use crate::backing::{Access, FileKind, Fingerprint, Stat, Time};
use crate::error::{Error, Result};
use crate::overlay::changes::{Changes, Kind};
use crate::overlay::{Entry, Stack, find, parent_and_name};
use crate::recipe::Recipe;
use crate::store::{Conventions, LayerDir, Marks, UNMAPPED, shown_id};
use crate::tar::header::{Header, Type};

mod accounts;
mod mounts;

pub use accounts::Accounts;
pub use mounts::{Mounted, full};

/// The xattr of file capabilities, the only one that Docker exports.
const CAPABILITY: &str = "security.capability";

/// The xattr of integrity signatures, which Podman exports as well.
const INTEGRITY: &str = "security.ima";

/// Beginnings of `user.*` xattrs that are the engine's own notes, and in no archive of Podman.
const NOTES: [&str; 3] = ["user.overlay.", "user.fuseoverlayfs.", "user.containers.override_stat"];

/// Fourth byte of a capability value of 24 bytes that is bound to a user namespace
/// (linux/capability.h, `VFS_CAP_REVISION_3`).
const REVISION_3: u8 = 3;

/// What differs between engines and their versions.
#[derive(Debug, Clone)]
pub enum Style {
    /// Docker 24 and later: permission bits alone, no user names.
    Plain,
    /// Docker 20.10 as Debian builds it: type bits in the mode, names of users and groups.
    Typed(Accounts),
    /// Podman: permission bits alone, no user names, and every `user.*` xattr.
    Podman,
    /// A build context as the `docker` command packs it: everything is root's.
    Context(Modes),
}

impl Style {
    /// How an engine of these conventions, or the one of that flavour, exports files with these
    /// accounts.
    #[must_use]
    pub fn of(
        conventions: Conventions,
        flavour: Flavour,
        accounts: impl FnOnce() -> Accounts,
    ) -> Style {
        match (conventions, flavour) {
            (Conventions::Podman, _) => Style::Podman,
            (Conventions::Docker, Flavour::Docker110) => Style::Typed(accounts()),
            (Conventions::Docker | Conventions::Containerd, _) => Style::Plain,
        }
    }
}

/// What the mode of an entry of a build context tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Modes {
    /// Permissions alone: Docker 24 and later.
    #[default]
    Plain,
    /// The type of the file as well: Docker up to 23.
    Typed,
}

/// An archive of files that may change, as they were when it was put together.
#[derive(Debug)]
pub struct Export {
    /// Its bytes.
    pub recipe: Recipe,
    /// The newest change among its files.
    pub newest: Time,
    /// Moves whenever a file in it does.
    pub stamp: u64,
    /// Paths that no tar can hold: sockets, and names that have no room. Of a container also what
    /// was removed while the archive was put together.
    pub omitted: Vec<OsString>,
    /// Files that are left out since the container has no name for their owner, where they lie on
    /// disk.
    pub unowned: Vec<PathBuf>,
    /// True where no entry went in.
    pub is_empty: bool,
}

/// The merged files of `stack`, in the order of a walk: each directory before its entries, names
/// sorted bytewise.
///
/// # Errors
/// Fails when a directory can't be read.
pub fn export(stack: &Stack, style: &Style) -> Result<Export> {
    let mut builder = Builder::new(stack, style);
    if !stack.layers().is_empty() {
        stack.walk(&mut |path, entry| {
            let Ok(entry) = entry else { return builder.omit(path) };
            builder.note(entry);
            builder.push(path, entry)
        })?;
    }
    builder.finish()
}

/// What the topmost of `dirs` holds beyond `below`, as its driver would tar it: an overlay's own
/// entries, or the `changes` that are asked for where a directory holds more than that.
///
/// # Errors
/// Fails when there is no directory, or one can't be read, and as `changes` does.
pub fn layer_diff(
    dirs: &[LayerDir],
    below: &Stack,
    style: &Style,
    changes: impl FnOnce() -> Result<Arc<Changes>>,
) -> Result<Export> {
    let Some(own) = dirs.first() else { return Err(Error::not_found("layer directory")) };
    let prefix = match own.marks {
        Marks::Trusted => "trusted.overlay.",
        Marks::User => "user.overlay.",
        Marks::Fuse | Marks::Aufs | Marks::Copied | Marks::Complete => {
            return naive_diff(&Stack::new(dirs.to_vec()), &*changes()?, style);
        }
    };
    let raw = Stack::new(vec![LayerDir { marks: Marks::Complete, ..own.clone() }]);
    native_diff(&raw, below, prefix, style)
}

/// A writable directory of overlayfs as `raw`, a stack of it alone in which no mark counts: its own
/// entries, with deletions as whiteouts and opaque directories as marks. `prefix` is that of its
/// marks, `trusted.overlay.` or `user.overlay.`; `below` is what it hides.
///
/// # Errors
/// Fails when a directory can't be read.
fn native_diff(raw: &Stack, below: &Stack, prefix: &str, style: &Style) -> Result<Export> {
    let mut builder = Builder::new(raw, style);
    raw.walk(&mut |path, entry| {
        let Ok(entry) = entry else { return builder.omit(path) };
        builder.note(entry);
        let pushed = builder.push_native(path, entry, prefix, below);
        builder.unless_gone(path, pushed)
    })?;
    builder.finish()
}

/// The difference of two trees, as drivers that copy whole directories have it: the `changes` that
/// made `new`, sorted by path.
///
/// # Errors
/// Fails when an entry can't be read.
pub fn naive_diff(new: &Stack, changes: &Changes, style: &Style) -> Result<Export> {
    let mut builder = Builder::new(new, style);
    for change in changes.iter() {
        let path = change.path.strip_prefix(b"/").unwrap_or(change.path);
        let pushed = match change.kind {
            Kind::Deleted => builder.push_deletion(path),
            Kind::Added | Kind::Modified => builder.push_found(path),
        };
        builder.unless_gone(path, pushed)?;
    }
    builder.finish()
}

/// Packs entries one after another.
pub(super) struct Builder<'a> {
    stack: &'a Stack,
    style: &'a Style,
    pub(super) packer: Packer,
    links: HardLinks,
    newest: Time,
    stamp: Fingerprint,
    omitted: Vec<OsString>,
    unowned: Vec<PathBuf>,
    is_empty: bool,
}

impl<'a> Builder<'a> {
    pub(super) fn new(stack: &'a Stack, style: &'a Style) -> Builder<'a> {
        Builder {
            stack,
            style,
            packer: Packer::default(),
            links: HardLinks::default(),
            newest: Time::default(),
            stamp: Fingerprint::new(),
            omitted: Vec::new(),
            unowned: Vec::new(),
            is_empty: true,
        }
    }

    /// Takes an entry into the newest change and the stamp.
    fn note(&mut self, entry: &Entry) {
        let is_live = self.stack.layers()[entry.place.layer].root.access() == Access::Live;
        let changed = if is_live { entry.stat.ctime } else { entry.stat.mtime };
        self.newest = self.newest.max(changed);
        self.stamp.add(entry.name.as_bytes());
        self.stamp.add(&entry.stat.stamp().to_le_bytes());
    }

    /// Puts an entry in, unless it was removed meanwhile.
    pub(super) fn push(&mut self, path: &[u8], entry: &Entry) -> Result<()> {
        let pushed = self.push_entry(path, entry);
        self.unless_gone(path, pushed)
    }

    /// Leaves out what a container has removed or replaced since it was listed: it is as if it had
    /// done so a moment earlier.
    fn unless_gone(&mut self, path: &[u8], pushed: Result<()>) -> Result<()> {
        let is_live = self.stack.layers().iter().any(|it| it.root.access() == Access::Live);
        match pushed {
            Err(err) if is_live && is_gone(&err) => self.omit(path),
            pushed => pushed,
        }
    }

    fn push_found(&mut self, path: &[u8]) -> Result<()> {
        let entry = self.find(path)?;
        self.note(&entry);
        self.push(path, &entry)
    }

    fn push_native(
        &mut self,
        path: &[u8],
        entry: &Entry,
        prefix: &str,
        below: &Stack,
    ) -> Result<()> {
        if self.is_whiteout(entry, prefix)? {
            self.push_whiteout(path, &entry.stat);
            return Ok(());
        }
        self.push(path, entry)?;
        if entry.stat.is_dir()
            && self.has_mark(entry, prefix, "opaque", b"y")?
            && self.marks_opaque(below, path)?
        {
            self.push_opaque(path, &entry.stat);
        }
        Ok(())
    }

    fn push_entry(&mut self, path: &[u8], entry: &Entry) -> Result<()> {
        let stat = &entry.stat;
        if [stat.uid, stat.gid].contains(&UNMAPPED) {
            // Engines leave it out and go on (moby pkg/archive, `addTarFile`).
            let root = &self.stack.layers()[entry.place.layer].root;
            self.unowned.push(root.path().join(entry.place.path()));
            return Ok(());
        }
        let Some(mut header) = self.header(path, stat) else {
            return self.omit(path);
        };
        header.xattrs = self.xattrs(entry)?;
        if stat.kind == FileKind::Symlink {
            header.link = self.stack.read_link(entry)?;
        }
        if !stat.is_dir()
            && stat.nlink > 1
            && let Some(first) = self.links.earlier(stat.dev, stat.ino, path)
        {
            header = Header { typeflag: Type::HardLink, link: first, ..header };
        }
        let is_pushed = if header.typeflag == Type::Regular && stat.size > 0 {
            self.pack(header, &Body::File(self.stack.file(entry)?))
        } else {
            self.pack(header, &Body::Empty)
        };
        if is_pushed { Ok(()) } else { self.omit(path) }
    }

    /// An empty file that stands for a mark, and has no place of its own.
    pub(super) fn push_mark(&mut self, path: &[u8], stat: &Stat) -> Result<()> {
        let Some(header) = self.header(path, stat) else { return self.omit(path) };
        if self.pack(header, &Body::Empty) { Ok(()) } else { self.omit(path) }
    }

    fn pack(&mut self, header: Header, body: &Body<'_>) -> bool {
        let is_pushed = self.packer.push(header, body);
        self.is_empty &= !is_pushed;
        is_pushed
    }

    /// Leaves an entry out, as Docker does, but notes it.
    fn omit(&mut self, path: &[u8]) -> Result<()> {
        self.omitted.push(OsStr::from_bytes(path).to_owned());
        Ok(())
    }

    /// The header of an entry, without link and xattrs; `None` for what a tar can't hold.
    fn header(&self, path: &[u8], stat: &Stat) -> Option<Header> {
        let typeflag = match stat.kind {
            FileKind::Regular => Type::Regular,
            FileKind::Directory => Type::Directory,
            FileKind::Symlink => Type::Symlink,
            FileKind::CharDevice => Type::CharDevice,
            FileKind::BlockDevice => Type::BlockDevice,
            FileKind::Fifo => Type::Fifo,
            FileKind::Socket => return None,
        };
        let mut name = path.to_vec();
        if stat.is_dir() {
            name.push(b'/');
        }
        let is_device = matches!(stat.kind, FileKind::CharDevice | FileKind::BlockDevice);
        let header = Header {
            mode: stat.permissions(),
            mtime: stat.mtime.secs,
            device: if is_device { stat.rdev } else { (0, 0) },
            ..Header::new(name, typeflag)
        };
        let mut header = self.owned(header, stat);
        if matches!(self.style, Style::Typed(_) | Style::Context(Modes::Typed)) {
            header.mode = stat.mode;
        }
        Some(header)
    }

    fn owned(&self, header: Header, stat: &Stat) -> Header {
        let (user, group) = match self.style {
            Style::Plain | Style::Podman => (Vec::new(), Vec::new()),
            Style::Typed(accounts) => (accounts.user(stat.uid), accounts.group(stat.gid)),
            Style::Context(_) => return header,
        };
        Header { uid: shown_id(stat.uid), gid: shown_id(stat.gid), user, group, ..header }
    }

    /// The xattrs that the engine packs.
    fn xattrs(&self, entry: &Entry) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        match self.style {
            Style::Plain | Style::Typed(_) | Style::Context(_) => self.capability(entry),
            Style::Podman => self.all_xattrs(entry),
        }
    }

    /// Capabilities and signatures as they are, and all that users noted.
    fn all_xattrs(&self, entry: &Entry) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut xattrs = Vec::new();
        for name in self.stack.xattrs(entry)? {
            let bytes = name.as_bytes();
            let is_note = NOTES.iter().any(|note| bytes.starts_with(note.as_bytes()));
            let is_packed = bytes.starts_with(b"user.") && !is_note
                || bytes == CAPABILITY.as_bytes()
                || bytes == INTEGRITY.as_bytes();
            if is_packed && let Some(value) = self.stack.xattr(entry, &name)? {
                xattrs.push((bytes.to_vec(), value));
            }
        }
        Ok(xattrs)
    }

    /// The file's capabilities, as the second revision: the third is bound to a user namespace that
    /// the reader has not.
    fn capability(&self, entry: &Entry) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let Some(mut value) = self.stack.xattr(entry, OsStr::new(CAPABILITY))? else {
            return Ok(Vec::new());
        };
        if value.len() > 20 && value[3] == REVISION_3 {
            value[3] = 2;
            value.truncate(20);
        }
        Ok(vec![(CAPABILITY.into(), value)])
    }

    fn is_whiteout(&self, entry: &Entry, prefix: &str) -> Result<bool> {
        match entry.stat.kind {
            FileKind::CharDevice => Ok(entry.stat.rdev == (0, 0)),
            FileKind::Regular if entry.stat.size == 0 => {
                Ok(self.mark(entry, prefix, "whiteout")?.is_some())
            }
            _ => Ok(false),
        }
    }

    fn has_mark(&self, entry: &Entry, prefix: &str, mark: &str, value: &[u8]) -> Result<bool> {
        Ok(self.mark(entry, prefix, mark)?.as_deref() == Some(value))
    }

    fn mark(&self, entry: &Entry, prefix: &str, mark: &str) -> Result<Option<Vec<u8>>> {
        self.stack.xattr(entry, OsStr::new(&format!("{prefix}{mark}")))
    }

    /// Docker looks for hard links first: of whiteouts that share an inode, all but the first keep
    /// the name of the first as their link, though they are written as files.
    fn push_whiteout(&mut self, path: &[u8], stat: &Stat) {
        let link = match stat.nlink > 1 {
            true => self.links.earlier(stat.dev, stat.ino, path).unwrap_or_default(),
            false => Vec::new(),
        };
        let header = Header {
            mode: match self.style {
                Style::Plain | Style::Typed(_) | Style::Context(_) => 0o600,
                Style::Podman => 0,
            },
            mtime: stat.mtime.secs,
            link,
            ..Header::new(whiteout_path(path), Type::Regular)
        };
        let header = self.owned(header, stat);
        self.pack(header, &Body::Empty);
    }

    /// Whether an opaque directory is marked: Podman leaves it where there was nothing to hide
    /// (containers/storage `pkg/archive/archive_linux.go`, `ConvertWrite`).
    fn marks_opaque(&self, below: &Stack, path: &[u8]) -> Result<bool> {
        match self.style {
            Style::Plain | Style::Typed(_) | Style::Context(_) => Ok(true),
            Style::Podman => Ok(find(below, path)?.is_some()),
        }
    }

    fn push_opaque(&mut self, path: &[u8], stat: &Stat) {
        let name = [path, b"/.wh..wh..opq"].concat();
        let header = Header { mode: stat.mode & 0o777, ..Header::new(name, Type::Regular) };
        let header = self.owned(header, stat);
        self.pack(header, &Body::Empty);
    }

    /// Docker writes the time of the run; ours is that of the directory that held the name.
    fn push_deletion(&mut self, path: &[u8]) -> Result<()> {
        let directory = self.find(parent_and_name(path).0)?;
        let mtime = directory.stat.mtime.secs;
        let header = Header { mtime, ..Header::new(whiteout_path(path), Type::Regular) };
        self.pack(header, &Body::Empty);
        Ok(())
    }

    /// The entry at `path`, through no symlink.
    fn find(&self, path: &[u8]) -> Result<Entry> {
        find(self.stack, path)?.ok_or_else(|| Error::stale(OsStr::from_bytes(path)))
    }

    pub(super) fn finish(self) -> Result<Export> {
        Ok(Export {
            recipe: self.packer.finish()?,
            newest: self.newest,
            stamp: self.stamp.finish(),
            omitted: self.omitted,
            unowned: self.unowned,
            is_empty: self.is_empty,
        })
    }
}

/// True for what a system call says where something was removed or replaced since it was listed.
fn is_gone(err: &Error) -> bool {
    err.is_not_found() || err.is_misplaced() || matches!(err.errno(), Errno::STALE | Errno::INVAL)
}

/// `dir/name` as `dir/.wh.name`.
fn whiteout_path(path: &[u8]) -> Vec<u8> {
    let name = parent_and_name(path).1;
    [&path[..path.len() - name.len()], b".wh.", name].concat()
}

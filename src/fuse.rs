//! FUSE requests, translated into calls of [`Tree`] and back. Decides nothing.
//!
//! What the kernel is told about the connection, and why:
//! 1. `open` answers ENOSYS, once: an inode number names immutable content, so there is nothing to
//!    open, and the kernel keeps cached pages from one open to the next. So does `opendir`: the
//!    kernel keeps listings from then on, and those that may change are taken back ([`taking`]).
//! 2. Requests have up to 1 MiB, and are read into one buffer for each thread.
//! 3. What a reader who walks will read next is handed to the kernel unasked ([`push`]).
//! 4. Who reads past the page cache is read ahead for ([`stream`]).
//! 5. A handler that panics answers EIO, and its thread goes on.

mod attr;
mod listings;
mod push;
mod settings;
mod stream;
mod sums;
mod taking;
mod unbacked;

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Config, CopyFileRangeFlags, Errno, FileAttr, FileHandle, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request,
    SessionACL, TimeOrNow, WriteFlags,
};

use crate::backing::Seek;
use crate::error::{Error, Result};
use crate::metrics::Request as Asked;
use crate::tree::ahead::Walk;
use crate::tree::{Attr, Reader, Sum, Tree};

pub use settings::{Archives, Audience, Contents, Settings, Xattrs};

use attr::{file_attr, file_type, name_only};
use listings::{Listings, Reading};
use push::Pusher;
use stream::Streams;
use sums::Workers;
use taking::Taking;
use unbacked::Unbacked;

/// Largest request, in bytes: larger ones gained nothing in any measurement.
const REQUEST: u32 = 1 << 20;

/// Block that copies of archives are made by where they go past the page cache, in bytes. Writes of
/// 1 MiB take ext4 four times as long as smaller ones (Linux 6.18, little memory in one piece).
const COPIED: u32 = 512 << 10;

/// Requests that the kernel may have under way for readahead: enough for many readers at once.
const BACKGROUND: u16 = 64;

/// Block that `statfs` counts in and `stat` names, in bytes.
const BLOCK: u32 = 4096;

/// Longest name, in bytes (Linux `NAME_MAX`).
const NAME_MAX: u32 = 255;

/// Handle of what was opened to be read past the page cache. Without an `open` it is 0.
const DIRECT: FileHandle = FileHandle(1);

/// Inode numbers are never given to something else, so there is one generation of them.
const GENERATION: Generation = Generation(0);

thread_local! {
    /// What `read` reads into: fresh memory would cost more than the copying (page faults).
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A connection to the kernel that is set up, and not served yet.
#[derive(Debug)]
pub struct Session(fuser::Session<Adapter>);

impl Session {
    /// Shakes hands over `device`, an open `/dev/fuse` that is mounted already. When this returns,
    /// the mount can be used: requests wait until [`Session::run`].
    ///
    /// # Errors
    /// Fails when the kernel goes away or speaks a protocol that is too old.
    pub fn start(tree: Arc<Tree>, device: OwnedFd, settings: Settings) -> io::Result<Session> {
        let acl = match settings.audience {
            // The kernel itself keeps others out of a mount without `allow_other`.
            Audience::Owner | Audience::Everybody => SessionACL::All,
            Audience::OwnerAndRoot => SessionACL::RootAndOwner,
        };
        let mut config = Config::default();
        config.n_threads = Some(threads());
        let pusher = match settings.contents {
            Contents::Asked => None,
            Contents::Pushed => {
                let device = rustix::io::fcntl_dupfd_cloexec(&device, 0)?;
                Some(Pusher::start(Arc::clone(&tree), device)?)
            }
        };
        let taking = Arc::new(Taking::default());
        let adapter = Adapter {
            pusher,
            sums: Workers::new(Arc::clone(&tree)),
            streams: Streams::new(Arc::clone(&tree)),
            tree,
            settings,
            listings: Listings::new(),
            taking: Arc::clone(&taking),
            unbacked: Unbacked::default(),
        };
        let session = fuser::Session::from_fd(adapter, device, acl, config)?;
        taking.start(session.notifier());
        Ok(Session(session))
    }

    /// Serves until the file system is unmounted and no longer used.
    ///
    /// # Errors
    /// Fails when the connection ends for another reason: ECONNABORTED where an administrator
    /// aborted it.
    pub fn run(self) -> io::Result<()> {
        self.0.run()
    }
}

/// Two threads suffice for one reader; more let others pass one that waits for a slow disk.
fn threads() -> usize {
    thread::available_parallelism().map_or(2, NonZero::get).clamp(2, 4)
}

/// Asks the kernel for what a connection needs that serves files as fast as it lets them be served.
///
/// # Errors
/// EINVAL where the kernel refuses it.
pub fn ask_for(config: &mut KernelConfig) -> io::Result<()> {
    let wanted = InitFlags::FUSE_ASYNC_READ
        | InitFlags::FUSE_ASYNC_DIO
        | InitFlags::FUSE_PARALLEL_DIROPS
        | InitFlags::FUSE_DO_READDIRPLUS
        | InitFlags::FUSE_CACHE_SYMLINKS
        | InitFlags::FUSE_NO_OPEN_SUPPORT
        | InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP
        | InitFlags::FUSE_ABORT_ERROR;
    let offered = wanted & config.capabilities();
    config.add_capabilities(offered).map_err(|_| io::ErrorKind::InvalidInput)?;
    config.set_max_write(REQUEST).map_err(|_| io::ErrorKind::InvalidInput)?;
    config.set_max_background(BACKGROUND).map_err(|_| io::ErrorKind::InvalidInput)?;
    Ok(())
}

fn reader(request: &Request) -> Reader {
    Reader { uid: request.uid(), pid: request.pid() }
}

/// What the kernel is told about `err`, which is counted, and noted unless it is a plain answer.
fn errno(tree: &Tree, err: &Error) -> Errno {
    tree.metrics().error(err.errno());
    if !err.is_answer() {
        tree.report(err);
    }
    Errno::from_i32(err.errno().raw_os_error())
}

#[derive(Debug)]
struct Adapter {
    tree: Arc<Tree>,
    settings: Settings,
    sums: Workers,
    streams: Streams,
    pusher: Option<Pusher>,
    listings: Listings,
    taking: Arc<Taking>,
    unbacked: Unbacked,
}

impl Adapter {
    /// Attributes, as FUSE passes them. Copies of what is read past the page cache want large
    /// blocks, and take the size that is named here.
    fn file_attr(&self, attr: &Attr) -> FileAttr {
        let mut shown = file_attr(attr);
        if self.settings.archives == Archives::Direct && self.tree.is_archive(attr.ino) {
            shown.blksize = COPIED;
        }
        shown
    }

    /// What the kernel is told about `err`, which is noted unless it is a plain answer.
    fn errno(&self, err: &Error) -> Errno {
        errno(&self.tree, err)
    }

    /// Runs a handler that takes its time on a thread of its own, so that others are served
    /// meanwhile. If it panics, or no thread can be had, its reply is dropped, and by that answers
    /// EIO.
    fn aside(&self, asked: Asked, handler: impl FnOnce(&Tree) + Send + 'static) {
        let tree = Arc::clone(&self.tree);
        let run = move || {
            let _timed = tree.metrics().time(asked);
            handler(&tree);
        };
        if let Err(err) = thread::Builder::new().name("snapshot".into()).spawn(run) {
            self.tree.report(&Error::io("thread", err));
        }
    }

    /// The listing of the directory `ino` to go on from the cookie `after`.
    fn listing(&self, ino: u64, after: u64) -> Result<Reading> {
        let is_immutable = self.tree.is_immutable(ino)?;
        self.listings.read(ino, after, is_immutable, || self.tree.read_dir(ino))
    }

    /// Whoever reads the directory `ino` came to the end of its listing. Once he is told, the kernel
    /// answers others by what it has.
    fn end(&self, ino: u64, reading: &Reading) -> Result<()> {
        self.listings.end(reading);
        if reading.is_changing() { self.taking.take_back(ino) } else { Ok(()) }
    }

    /// Hands contents to the kernel that somebody will read, where `walk` says so.
    fn push(&self, walk: impl FnOnce(&Tree) -> Option<Walk>) {
        if let Some(pusher) = &self.pusher
            && let Some(walk) = walk(&self.tree)
            && let Err(walk) = pusher.follow(walk)
        {
            self.tree.rest_is_read(walk.dir);
        }
    }

    /// Runs a handler, and counts what it takes. If it panics, its reply is dropped, and by that
    /// answers EIO.
    fn guard(&self, asked: Asked, ino: INodeNo, handler: impl FnOnce()) {
        let _timed = self.tree.metrics().time(asked);
        self.caught(asked, ino, handler);
    }

    /// Runs something on behalf of a request. If it panics, that is noted, and the thread goes on.
    fn caught(&self, asked: Asked, ino: INodeNo, work: impl FnOnce()) {
        let request = asked.name();
        let _span = tracing::trace_span!("request", request, ino = ino.0).entered();
        if catch_unwind(AssertUnwindSafe(work)).is_err() {
            let bug = io::Error::other("a defect in stratafs: the request handler panicked");
            self.tree.report(&Error::io(request, bug));
        }
    }

    /// Lists the directory that `reader`, who came to the end of `ino`, will list next, while he
    /// looks at what he has.
    fn list_ahead(&self, ino: INodeNo, reader: Reader) {
        self.caught(Asked::Readdirplus, ino, || {
            if let Some(next) = self.tree.next_dir(ino.0, reader) {
                // Whoever lists it himself is told what is wrong with it.
                let _kept = self.listing(next, 0);
            }
        });
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        ask_for(config)
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.guard(Asked::Lookup, parent, || match self.tree.lookup(parent.0, name) {
            Ok(attr) => reply.entry(&attr.ttl, &self.file_attr(&attr), GENERATION),
            Err(err) => reply.error(self.errno(&err)),
        });
    }

    fn forget(&self, _: &Request, ino: INodeNo, count: u64) {
        self.guard(Asked::Forget, ino, || match self.unbacked.settle(ino.0, count) {
            0 => {}
            count => self.tree.forget(ino.0, count),
        });
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.guard(Asked::Getattr, ino, || match self.tree.attr(ino.0) {
            Ok(attr) => reply.attr(&attr.ttl, &self.file_attr(&attr)),
            Err(err) => reply.error(self.errno(&err)),
        });
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        self.guard(Asked::Readlink, ino, || match self.tree.read_link(ino.0) {
            Ok(target) => reply.data(&target),
            Err(err) => reply.error(self.errno(&err)),
        });
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        match flags.acc_mode() {
            OpenAccMode::O_RDONLY => match self.settings.archives {
                Archives::Cached => reply.error(Errno::ENOSYS), // see 1. above
                Archives::Direct if self.tree.is_archive(ino.0) => {
                    let flags = FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH;
                    reply.opened(DIRECT, flags);
                }
                Archives::Direct => {
                    let flags = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH;
                    reply.opened(FileHandle(0), flags);
                }
            },
            OpenAccMode::O_WRONLY | OpenAccMode::O_RDWR => reply.error(Errno::EROFS),
        }
    }

    fn read(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let reader = reader(request);
        let size = size as usize;
        self.guard(Asked::Read, ino, || {
            self.push(|tree| tree.reads(ino.0, offset, reader));
            let is_direct = handle == DIRECT || flags.0 & libc::O_DIRECT != 0;
            if is_direct && let Some(read) = self.streams.read(ino.0, offset, size, reader) {
                return match read {
                    Ok(piece) => reply.data(&piece),
                    Err(err) => reply.error(self.errno(&err)),
                };
            }
            BUFFER.with_borrow_mut(|buffer| {
                if buffer.len() < size {
                    buffer.resize(size.max(REQUEST as usize), 0);
                }
                match self.tree.read(ino.0, offset, &mut buffer[..size], reader) {
                    Ok(read) => reply.data(&buffer[..read]),
                    Err(err) => reply.error(self.errno(&err)),
                }
            });
        });
    }

    fn lseek(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let seek = match whence {
            libc::SEEK_DATA => Seek::Data,
            libc::SEEK_HOLE => Seek::Hole,
            _ => return reply.error(Errno::EINVAL),
        };
        let Ok(offset) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
        self.guard(Asked::Lseek, ino, || {
            match self.tree.seek(ino.0, offset, seek).map(i64::try_from) {
                Ok(Ok(found)) => reply.offset(found),
                Ok(Err(_)) => reply.error(Errno::EOVERFLOW),
                Err(err) => reply.error(self.errno(&err)),
            }
        });
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS); // see 1. above
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        after: u64,
        mut reply: ReplyDirectory,
    ) {
        self.guard(Asked::Readdir, ino, || {
            let reading = match self.listing(ino.0, after) {
                Ok(reading) => reading,
                Err(err) => return reply.error(self.errno(&err)),
            };
            let mut is_end = true;
            for entry in reading.entries() {
                is_end = false;
                let kind = file_type(entry.kind);
                if reply.add(INodeNo(entry.ino), entry.cookie, kind, entry.name) {
                    break;
                }
            }
            match is_end.then(|| self.end(ino.0, &reading)) {
                None | Some(Ok(())) => reply.ok(),
                Some(Err(err)) => reply.error(self.errno(&err)),
            }
        });
    }

    fn readdirplus(
        &self,
        request: &Request,
        ino: INodeNo,
        _: FileHandle,
        after: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let reader = reader(request);
        let mut is_end = false;
        self.guard(Asked::Readdirplus, ino, || {
            let reading = match self.listing(ino.0, after) {
                Ok(reading) => reading,
                Err(err) => return reply.error(self.errno(&err)),
            };
            is_end = true;
            for entry in reading.entries() {
                is_end = false;
                let looked_up = match entry.is_cheap {
                    // Whoever looks at the name itself is told why, and then it is noted.
                    true => self.tree.lookup(ino.0, entry.name).ok(),
                    false => None,
                };
                let attr = match &looked_up {
                    Some(attr) => file_attr(attr),
                    None => name_only(entry.ino, entry.kind),
                };
                let ttl = looked_up.map_or(Duration::ZERO, |attr| attr.ttl);
                if reply.add(attr.ino, entry.cookie, entry.name, &ttl, &attr, GENERATION) {
                    if let Some(attr) = looked_up {
                        self.tree.forget(attr.ino, 1);
                    }
                    break;
                }
                // The kernel counts no reference to `.` and `..`.
                if looked_up.is_none() && !entry.is_dot {
                    self.unbacked.add(entry.ino);
                }
            }
            if is_end {
                if let Err(err) = self.end(ino.0, &reading) {
                    return reply.error(self.errno(&err));
                }
                self.push(|tree| tree.lists(ino.0, reader));
            }
            reply.ok();
        });
        if is_end {
            self.list_ahead(ino, reader);
        }
    }

    fn statfs(&self, _: &Request, ino: INodeNo, reply: ReplyStatfs) {
        self.guard(Asked::Statfs, ino, || match self.tree.space() {
            Ok(space) => {
                let block = u64::from(BLOCK);
                let total = space.total / block;
                let free = total.saturating_sub(space.used.div_ceil(block));
                reply.statfs(total, free, 0, space.inodes, 0, BLOCK, NAME_MAX, BLOCK);
            }
            Err(err) => reply.error(self.errno(&err)),
        });
    }

    fn getxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        let reader = reader(request);
        self.guard(Asked::Getxattr, ino, || match (self.settings.xattrs, Sum::of_xattr(name)) {
            (Xattrs::Hidden, _) => reply.error(Errno::ENOSYS), // the kernel asks no more
            (Xattrs::Shown, None) => match self.tree.xattr(ino.0, name, reader) {
                Ok(value) => reply_xattr(reply, size, &value),
                Err(err) => reply.error(self.errno(&err)),
            },
            (Xattrs::Shown, Some(sum)) => match self.tree.known_sum(ino.0, sum) {
                Ok(Some(value)) => reply_xattr(reply, size, &value),
                Ok(None) => self.sums.answer(ino.0, sum, size, reader.pid, reply),
                Err(err) => reply.error(self.errno(&err)),
            },
        });
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let reader = reader(request);
        self.guard(Asked::Listxattr, ino, || match self.settings.xattrs {
            // Not ENOSYS: `tar --xattrs` would warn about every file.
            Xattrs::Hidden => reply_xattr(reply, size, b""),
            Xattrs::Shown => match self.tree.xattrs(ino.0, reader) {
                Ok(names) => {
                    let list: Vec<u8> = names
                        .iter()
                        .flat_map(|name| name.as_encoded_bytes().iter().copied().chain([0]))
                        .collect();
                    reply_xattr(reply, size, &list);
                }
                Err(err) => reply.error(self.errno(&err)),
            },
        });
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    // What follows would change something. A mount with `ro` lets none of it through; these answer
    // for one that can make snapshots.

    fn setattr(
        &self,
        _: &Request,
        _: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        reply.error(Errno::EROFS);
    }

    fn mknod(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        if let Err(err) = self.tree.may_change(parent.0, name) {
            return reply.error(self.errno(&err));
        }
        let name = name.to_owned();
        self.aside(Asked::Mkdir, move |tree| match tree.make_dir(parent.0, &name) {
            Ok(attr) => reply.entry(&attr.ttl, &file_attr(&attr), GENERATION),
            Err(err) => reply.error(errno(tree, &err)),
        });
    }

    fn unlink(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        if let Err(err) = self.tree.may_change(parent.0, name) {
            return reply.error(self.errno(&err));
        }
        let name = name.to_owned();
        self.aside(Asked::Rmdir, move |tree| match tree.remove_dir(parent.0, &name) {
            Ok(()) => reply.ok(),
            Err(err) => reply.error(errno(tree, &err)),
        });
    }

    fn symlink(&self, _: &Request, _: INodeNo, _: &OsStr, _: &Path, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn rename(
        &self,
        _: &Request,
        _: INodeNo,
        _: &OsStr,
        _: INodeNo,
        _: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EROFS);
    }

    fn link(&self, _: &Request, _: INodeNo, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        reply.error(Errno::EROFS);
    }

    fn create(
        &self,
        _: &Request,
        _: INodeNo,
        _: &OsStr,
        _: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        reply.error(Errno::EROFS);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::EROFS);
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: i32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EROFS);
    }

    fn copy_file_range(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::EROFS);
    }

    fn setxattr(
        &self,
        _: &Request,
        _: INodeNo,
        _: &OsStr,
        _: &[u8],
        _: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EROFS);
    }

    fn removexattr(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }
}

/// Answers a question for an xattr or a list of them: its length where `size` is 0, else itself
/// (getxattr(2)).
fn reply_xattr(reply: ReplyXattr, size: u32, value: &[u8]) {
    match u32::try_from(value.len()) {
        Ok(length) if size == 0 => reply.size(length),
        Ok(length) if length <= size => reply.data(value),
        _ => reply.error(Errno::ERANGE),
    }
}

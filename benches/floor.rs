//! What FUSE itself takes: a file system that has all answers ready, asked for the same connection
//! as ours, which `scripts/bench` measures beside it. No goal can be met beyond it.
//!
//! `floor MOUNTPOINT SIZE [DIR]` serves, until it is unmounted, `zeros`, a file of SIZE bytes, and
//! `tree` with the names and attributes of DIR, whose files hold zeros.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "what measures may stop where it can't go on"
)]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo, KernelConfig,
    LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEntry, ReplyOpen, ReplyXattr, Request,
};

/// Largest request, in bytes.
const REQUEST: usize = 1 << 20;

/// How long the kernel may keep everything.
const FOR_EVER: Duration = Duration::from_secs(24 * 60 * 60);

/// All there is, by inode number less one.
struct Floor {
    nodes: Vec<Node>,
    zeros: Vec<u8>,
}

struct Node {
    attr: FileAttr,
    target: Vec<u8>,
    /// Sorted by name.
    children: Vec<(OsString, INodeNo)>,
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let [mountpoint, size, rest @ ..] = &words[..] else { panic!("floor MOUNTPOINT SIZE [DIR]") };
    let mut floor = Floor { nodes: Vec::new(), zeros: vec![0; REQUEST] };
    let root = floor.add(attr(FileType::Directory, 0));
    let zeros = floor.add(attr(FileType::RegularFile, size.parse().unwrap()));
    let mut children = vec![(OsString::from("zeros"), zeros)];
    if let [dir] = rest {
        let tree = floor.add(attr(FileType::Directory, 0));
        floor.fill(tree, Path::new(dir)).unwrap();
        children.insert(0, (OsString::from("tree"), tree));
    }
    floor.nodes[root.0 as usize - 1].children = children;
    let mut config = Config::default();
    config.mount_options =
        vec![MountOption::RO, MountOption::DefaultPermissions, MountOption::FSName("floor".into())];
    config.n_threads = Some(2);
    fuser::mount(floor, mountpoint, &config).unwrap();
}

fn attr(kind: FileType, size: u64) -> FileAttr {
    let time = SystemTime::UNIX_EPOCH;
    FileAttr {
        ino: INodeNo::ROOT,
        size,
        blocks: size.div_ceil(512),
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind,
        perm: 0o755,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn kind(of: fs::FileType) -> FileType {
    match of {
        of if of.is_dir() => FileType::Directory,
        of if of.is_symlink() => FileType::Symlink,
        of if of.is_char_device() => FileType::CharDevice,
        of if of.is_block_device() => FileType::BlockDevice,
        of if of.is_fifo() => FileType::NamedPipe,
        of if of.is_socket() => FileType::Socket,
        _ => FileType::RegularFile,
    }
}

impl Floor {
    fn add(&mut self, attr: FileAttr) -> INodeNo {
        let ino = INodeNo(self.nodes.len() as u64 + 1);
        let attr = FileAttr { ino, ..attr };
        self.nodes.push(Node { attr, target: Vec::new(), children: Vec::new() });
        ino
    }

    /// Fills the directory `ino` with what is in `dir`.
    fn fill(&mut self, ino: INodeNo, dir: &Path) -> io::Result<()> {
        let mut names: Vec<_> =
            fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<_>>()?;
        names.sort();
        let mut children = Vec::new();
        for name in names {
            let path = dir.join(&name);
            let stat = fs::symlink_metadata(&path)?;
            let child = self.add(FileAttr {
                perm: (stat.mode() & 0o7777) as u16,
                uid: stat.uid(),
                gid: stat.gid(),
                mtime: stat.modified()?,
                ctime: stat.modified()?,
                ..attr(kind(stat.file_type()), stat.size())
            });
            if stat.is_dir() {
                self.fill(child, &path)?;
            } else if stat.is_symlink() {
                let target = fs::read_link(&path)?.into_os_string().into_encoded_bytes();
                self.nodes[child.0 as usize - 1].target = target;
            }
            children.push((name, child));
        }
        self.nodes[ino.0 as usize - 1].children = children;
        Ok(())
    }

    fn node(&self, ino: INodeNo) -> Option<&Node> {
        self.nodes.get((ino.0 as usize).checked_sub(1)?)
    }
}

impl Filesystem for Floor {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        stratafs::fuse::ask_for(config)
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let children = self.node(parent).map_or(&[][..], |node| &node.children);
        let found = children.binary_search_by(|(of, _)| of.as_os_str().cmp(name)).ok();
        match found.and_then(|at| self.node(children[at].1)) {
            Some(node) => reply.entry(&FOR_EVER, &node.attr, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.node(ino) {
            Some(node) => reply.attr(&FOR_EVER, &node.attr),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match self.node(ino) {
            Some(node) => reply.data(&node.target),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let Some(node) = self.node(ino) else { return reply.error(Errno::ENOENT) };
        let left = node.attr.size.saturating_sub(offset);
        reply.data(&self.zeros[..left.min(size.into()).min(REQUEST as u64) as usize]);
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        after: u64,
        mut reply: ReplyDirectory,
    ) {
        let Some(node) = self.node(ino) else { return reply.error(Errno::ENOENT) };
        for (at, (name, child)) in node.children.iter().enumerate().skip(after as usize) {
            let Some(child) = self.node(*child) else { continue };
            if reply.add(child.attr.ino, at as u64 + 1, child.attr.kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn readdirplus(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        after: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let Some(node) = self.node(ino) else { return reply.error(Errno::ENOENT) };
        for (at, (name, child)) in node.children.iter().enumerate().skip(after as usize) {
            let Some(child) = self.node(*child) else { continue };
            let attr = &child.attr;
            if reply.add(attr.ino, at as u64 + 1, name, &FOR_EVER, attr, Generation(0)) {
                break;
            }
        }
        reply.ok();
    }

    fn getxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, reply: ReplyXattr) {
        reply.error(Errno::ENODATA);
    }
}

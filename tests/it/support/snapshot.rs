//! Whole trees as values, of the kernel's making and of ours.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use stratafs::backing::FileKind;
use stratafs::overlay::{Entry, Stack};

/// What a path shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shown {
    File(Box<Attributes>),
    /// The name is listed, and asking for more is an error.
    Damaged,
    /// A directory that can't be listed: what it holds is not known.
    Closed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) nlink: u64,
    pub(crate) size: u64,
    pub(crate) blocks: u64,
    pub(crate) mtime: (i64, u32),
    pub(crate) ctime: (i64, u32),
    pub(crate) rdev: (u32, u32),
    pub(crate) target: Option<Vec<u8>>,
    pub(crate) contents: Option<Vec<u8>>,
    pub(crate) xattrs: BTreeMap<OsString, Vec<u8>>,
}

pub(crate) type Snapshot = BTreeMap<Vec<u8>, Shown>;

/// All that `find` would see below `root`.
pub(crate) fn of_directory(root: &Path) -> Snapshot {
    let mut tree = Snapshot::new();
    let mut open = vec![(Vec::new(), root.to_owned())];
    while let Some((name, path)) = open.pop() {
        let mut shown = match path.symlink_metadata() {
            Ok(meta) => match kernel_attributes(&path, &meta) {
                Ok(attributes) => Shown::File(Box::new(attributes)),
                Err(_) => Shown::Damaged,
            },
            // A whiteout of a directory that one layer alone holds is listed, but not there.
            Err(err) if err.kind() == io::ErrorKind::NotFound => continue,
            Err(_) => Shown::Damaged,
        };
        if matches!(&shown, Shown::File(file) if file.mode & libc::S_IFMT == libc::S_IFDIR) {
            match fs::read_dir(&path).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
                Ok(entries) => open.extend(
                    entries.iter().map(|entry| (join(&name, &entry.file_name()), entry.path())),
                ),
                Err(_) => shown = Shown::Closed,
            }
        }
        tree.insert(name, shown);
    }
    tree
}

/// True where asking for `path` below `root` is an error other than that it is missing.
pub(crate) fn is_damaged(root: &Path, path: &[u8]) -> bool {
    let asked = root.join(OsStr::from_bytes(path)).symlink_metadata();
    asked.is_err_and(|err| err.kind() != io::ErrorKind::NotFound)
}

fn join(dir: &[u8], name: &OsStr) -> Vec<u8> {
    let slash: &[u8] = if dir.is_empty() { b"" } else { b"/" };
    [dir, slash, name.as_bytes()].concat()
}

fn kernel_attributes(path: &Path, meta: &fs::Metadata) -> io::Result<Attributes> {
    Ok(Attributes {
        mode: meta.mode(),
        owner: (meta.uid(), meta.gid()),
        nlink: meta.nlink(),
        size: meta.size(),
        blocks: meta.blocks(),
        mtime: (meta.mtime(), meta.mtime_nsec() as u32),
        ctime: (meta.ctime(), meta.ctime_nsec() as u32),
        rdev: (libc::major(meta.rdev()), libc::minor(meta.rdev())),
        target: match meta.is_symlink() {
            true => Some(fs::read_link(path)?.into_os_string().into_vec()),
            false => None,
        },
        contents: if meta.is_file() { Some(fs::read(path)?) } else { None },
        xattrs: kernel_xattrs(path)?,
    })
}

fn kernel_xattrs(path: &Path) -> io::Result<BTreeMap<OsString, Vec<u8>>> {
    let mut list = vec![0; 65536];
    let length = rustix::fs::llistxattr(path, &mut list[..])?;
    let names = list[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let name = OsStr::from_bytes(name);
            let mut value = vec![0; 65536];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..])?;
            value.truncate(length);
            Ok((name.to_owned(), value))
        })
        .collect()
}

/// All that a stack shows. Checks on the way that a lookup gives what the listing gave, and a walk
/// visits the same in its order.
pub(crate) fn of_stack(stack: &Stack) -> Snapshot {
    let mut tree = Snapshot::new();
    let mut order = Vec::new();
    add(stack, &stack.root().unwrap(), Vec::new(), &mut tree, &mut order);
    let mut walked = Vec::new();
    stack
        .walk(&mut |path, entry| {
            if entry.is_ok() {
                walked.push(path.to_vec());
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(order[1..], walked);
    tree
}

fn add(stack: &Stack, entry: &Entry, path: Vec<u8>, tree: &mut Snapshot, order: &mut Vec<Vec<u8>>) {
    order.push(path.clone());
    tree.insert(path.clone(), Shown::File(Box::new(attributes(stack, entry))));
    if !entry.is_dir() {
        return;
    }
    let listing = stack.read_dir(entry).unwrap();
    for (name, _) in &listing.damaged {
        assert!(stack.lookup(entry, name).is_err());
        tree.insert(join(&path, name), Shown::Damaged);
    }
    for child in &listing.entries {
        let found = stack.lookup(entry, &child.name).unwrap().unwrap();
        assert_eq!(format!("{child:?}"), format!("{found:?}"));
        add(stack, child, join(&path, &child.name), tree, order);
    }
}

fn attributes(stack: &Stack, entry: &Entry) -> Attributes {
    let stat = &entry.stat;
    let xattrs = stack.xattrs(entry).unwrap().into_iter().map(|name| {
        let value = stack.xattr(entry, &name).unwrap().unwrap();
        (name, value)
    });
    Attributes {
        mode: stat.mode,
        owner: (stat.uid, stat.gid),
        nlink: stat.nlink,
        size: stat.size,
        blocks: stat.blocks,
        mtime: (stat.mtime.secs, stat.mtime.nanos),
        ctime: (stat.ctime.secs, stat.ctime.nanos),
        rdev: stat.rdev,
        target: match stat.kind {
            FileKind::Symlink => Some(stack.read_link(entry).unwrap()),
            _ => None,
        },
        contents: match stat.kind {
            FileKind::Regular => Some(contents(stack, entry)),
            _ => None,
        },
        xattrs: xattrs.collect(),
    }
}

fn contents(stack: &Stack, entry: &Entry) -> Vec<u8> {
    stack.layers()[entry.data.layer].root.read(entry.data.path(), u64::MAX).unwrap()
}

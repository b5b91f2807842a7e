//! `stratafs stat`: all that is known of a path, without reading it.

use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use rustix::process::{geteuid, getpid};
use serde::Serialize;

use super::paths::{Failures, PathArgs, ended, output, plain, why};
use super::status::Failure;
use crate::backing::{FileKind, Time};
use crate::error::Result;
use crate::time::Timestamp;
use crate::tree::{Follow, Found, Reader};

#[derive(Debug, Args)]
pub(super) struct StatArgs {
    /// Paths in the tree: images/busybox/save.tar
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Print JSON: one object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: PathArgs,
}

/// What is said of one path.
#[derive(Debug, Serialize)]
struct Described {
    path: String,
    kind: &'static str,
    size: u64,
    blocks: u64,
    inode: u64,
    links: u32,
    mode: String,
    uid: u32,
    gid: u32,
    mtime: String,
    ctime: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<(u32, u32)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    xattrs: Vec<String>,
}

/// Describes the paths; a symlink at the end of one is described itself.
pub(super) fn run(args: &StatArgs) -> Result<ExitCode, Failure> {
    let tree = args.place.tree()?;
    let mut out = BufWriter::new(output()?);
    let mut failures = Failures::default();
    for path in &args.paths {
        let described = tree.find(path, Follow::NotLast).and_then(|found| describe(path, &found));
        let printed = match described {
            Ok(described) => print(&mut out, &described, args.json),
            Err(err) => {
                failures.say(path, &why(&err));
                Ok(())
            }
        };
        if printed.is_err() {
            return Ok(ended(printed, failures.status())?.into());
        }
    }
    Ok(ended(out.flush(), failures.status())?.into())
}

fn describe(path: &Path, found: &Found<'_>) -> Result<Described> {
    let (tree, attr) = (found.tree(), found.attr());
    let reader = Reader { uid: geteuid().as_raw(), pid: getpid().as_raw_pid().unsigned_abs() };
    let target = match attr.kind {
        FileKind::Symlink => Some(plain(&OsString::from_vec(tree.read_link(attr.ino)?))),
        _ => None,
    };
    let is_device = matches!(attr.kind, FileKind::CharDevice | FileKind::BlockDevice);
    Ok(Described {
        path: plain(path.as_os_str()),
        kind: kind_text(attr.kind),
        size: attr.size,
        blocks: attr.blocks,
        inode: attr.ino,
        links: attr.nlink,
        mode: format!("{:04o}", attr.permissions),
        uid: attr.uid,
        gid: attr.gid,
        mtime: time_text(attr.mtime),
        ctime: time_text(attr.ctime),
        device: is_device.then_some(attr.rdev),
        target,
        xattrs: tree.xattrs(attr.ino, reader)?.iter().map(|name| plain(name)).collect(),
    })
}

fn print(out: &mut impl Write, described: &Described, is_json: bool) -> io::Result<()> {
    if is_json {
        serde_json::to_writer(&mut *out, described)?;
        return out.write_all(b"\n");
    }
    let Described { path, kind, size, blocks, inode, links, mode, uid, gid, .. } = described;
    writeln!(out, "{path}")?;
    writeln!(out, "  {kind}, {size} bytes in {blocks} blocks of 512")?;
    writeln!(out, "  inode {inode}, {links} names, mode {mode}, owner {uid}:{gid}")?;
    writeln!(out, "  changed {}, with its attributes {}", described.mtime, described.ctime)?;
    if let Some((major, minor)) = described.device {
        writeln!(out, "  device {major}, {minor}")?;
    }
    if let Some(target) = &described.target {
        writeln!(out, "  leads to {target}")?;
    }
    described.xattrs.iter().try_for_each(|name| writeln!(out, "  has {name}"))
}

fn kind_text(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Regular => "file",
        FileKind::Directory => "directory",
        FileKind::Symlink => "symlink",
        FileKind::CharDevice => "character device",
        FileKind::BlockDevice => "block device",
        FileKind::Fifo => "fifo",
        FileKind::Socket => "socket",
    }
}

fn time_text(time: Time) -> String {
    Timestamp::from_instant(time).to_string()
}

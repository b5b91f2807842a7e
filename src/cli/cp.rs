//! `stratafs cp`: files of the tree, and with -r trees, on a disk.
//!
//! 1. A copy grows from its beginning, and all of it has passed its checks: one that was cut off is
//!    shorter than the whole, and the next `cp` goes on where it ends, after comparing what is there.
//! 2. A file whose bytes can't be had leaves no copy.
//! 3. Nothing is written through a symlink: names are looked up in open directories, and what stands
//!    in the way is refused, or in a tree replaced.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::cat::file;
use super::copy_tree::Trees;
use super::paths::{Failures, PathArgs, why};
use super::pour::{Interrupted, pour};
use super::progress::Progress;
use super::sink::{Regular, Stream};
use super::status::Failure;
use crate::backing::FileKind;
use crate::error::Error;
use crate::tree::{Attr, Follow, Found, Tree};

#[derive(Debug, Args)]
#[command(override_usage = "stratafs cp [OPTIONS] PATH... DEST")]
pub(super) struct CpArgs {
    /// Files, by their paths in the tree (images/busybox/save.tar), and the file or directory to
    /// copy them to. A DEST that is cut off is continued
    #[arg(required = true, num_args = 2.., value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Directories, too, with all that is in them: modes, owners, times, extended attributes, hard
    /// links and holes
    #[arg(short, long)]
    recursive: bool,
    #[command(flatten)]
    place: PathArgs,
}

/// Why something was not copied.
#[derive(Debug)]
pub(super) enum Why {
    /// It can't be read.
    Source(Error),
    /// It can't be written.
    Dest(io::Error),
    /// It makes no sense.
    Refused(&'static str),
}

impl From<Error> for Why {
    fn from(err: Error) -> Why {
        Why::Source(err)
    }
}

impl From<io::Error> for Why {
    fn from(err: io::Error) -> Why {
        Why::Dest(err)
    }
}

impl From<Errno> for Why {
    fn from(err: Errno) -> Why {
        Why::Dest(err.into())
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Source(err) => f.write_str(&why(err)),
            Why::Dest(err) => write!(f, "the copy: {err}"),
            Why::Refused(why) => f.write_str(why),
        }
    }
}

/// Copies; what fails is said, and the rest goes on.
pub(super) fn run(args: &CpArgs, is_quiet: bool) -> Result<ExitCode, Failure> {
    let Some((dest, paths)) = args.paths.split_last() else {
        return Err(Failure::Usage("name a path and where to copy it".into()));
    };
    let is_directory = fs::metadata(dest).is_ok_and(|dest| dest.is_dir());
    if paths.len() > 1 && !is_directory {
        return Err(Failure::Usage(format!("{}: not a directory", dest.display())));
    }
    let tree = args.place.tree()?;
    let mut failures = Failures::default();
    let follow = if args.recursive { Follow::NotLast } else { Follow::Last };
    let total = match args.recursive {
        true => None,
        false => Some(
            paths.iter().filter_map(|path| Some(tree.find(path, follow).ok()?.attr().size)).sum(),
        ),
    };
    let progress = Progress::new(total, is_quiet);
    for path in paths {
        let copied =
            Target::new(dest, path, is_directory).and_then(|target| match args.recursive {
                true => Trees { progress: &progress, failures: &mut failures }
                    .copy(&tree, path, &target),
                false => copy_file(&tree, path, &target, &progress),
            });
        if let Err(why) = copied {
            progress.say(&failures.note(path, &why.to_string()));
        }
    }
    drop(progress);
    Ok(failures.status().into())
}

/// Where a copy goes: a name in an open directory.
#[derive(Debug)]
pub(super) struct Target<'a> {
    pub(super) dir: OwnedFd,
    /// `.` for the directory itself.
    pub(super) name: &'a OsStr,
}

impl<'a> Target<'a> {
    /// `dest`, or in it the name of `path` where it is a directory.
    fn new(dest: &'a Path, path: &'a Path, is_directory: bool) -> Result<Target<'a>, Why> {
        let is_link = dest.symlink_metadata().is_ok_and(|dest| dest.is_symlink());
        if is_link && !dest.as_os_str().as_bytes().ends_with(b"/") {
            return Err(Why::Refused("DEST is a symlink: name what it leads to, or add a slash"));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |dir: &Path| rustix::fs::openat(CWD, dir, flags, Mode::empty());
        if is_directory {
            let name = match path.components().next_back() {
                Some(Component::Normal(name)) => name,
                _ => OsStr::new("."),
            };
            return Ok(Target { dir: open(dest)?, name });
        }
        let Some(name) = dest.file_name() else { return Err(Errno::ISDIR.into()) };
        let parent = dest.parent().filter(|parent| !parent.as_os_str().is_empty());
        Ok(Target { dir: open(parent.unwrap_or(Path::new(".")))?, name })
    }
}

/// Copies one file to `target`, which may be a device or a pipe, or have its beginning already.
fn copy_file(
    tree: &Tree,
    path: &Path,
    target: &Target<'_>,
    progress: &Progress,
) -> Result<(), Why> {
    let found = match file(tree, path) {
        Err(err) if err.errno() == Errno::ISDIR => {
            return Err(Why::Refused("is a directory: -r copies it"));
        }
        found => found?,
    };
    let (dir, name) = (target.dir.as_fd(), target.name);
    let mode = found.attr().permissions & 0o777;
    let open = match kind_at(dir, name)? {
        None | Some(FileType::RegularFile) => open_copy(dir, name, mode)?,
        Some(FileType::Symlink) => return Err(Why::Refused("the copy would go through a symlink")),
        Some(FileType::Directory) => return Err(Errno::ISDIR.into()),
        Some(_) => {
            let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
            File::from(rustix::fs::openat(dir, name, flags, Mode::empty())?)
        }
    };
    if !open.metadata()?.is_file() {
        return pour(&found, &mut Stream(open), &|bytes| progress.add(bytes)).map_err(Why::from);
    }
    let copy = fill(&found, open, dir, name, progress)?;
    if mode & 0o200 == 0 {
        // It was given to write the copy, which is whole now.
        let now = rustix::fs::fstat(&copy)?.st_mode & 0o7777;
        rustix::fs::fchmod(&copy, Mode::from_raw_mode(now & !0o200))?;
    }
    Ok(())
}

/// What stands at a name, a symlink itself if it is one.
pub(super) fn kind_at(dir: BorrowedFd<'_>, name: &OsStr) -> Result<Option<FileType>, Errno> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(err) => Err(err),
    }
}

/// Opens the regular file that is to hold a copy, or makes it.
pub(super) fn open_copy(dir: BorrowedFd<'_>, name: &OsStr, mode: u32) -> Result<File, Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mode = Mode::from_raw_mode(mode | 0o200);
    Ok(File::from(rustix::fs::openat(dir, name, flags | OFlags::NOCTTY | OFlags::CLOEXEC, mode)?))
}

/// Makes `open`, which stands at `name`, a copy of `found`. Where its bytes can't be had, there is
/// no copy; where they can't be written, what was written stays.
pub(super) fn fill(
    found: &Found<'_>,
    open: File,
    dir: BorrowedFd<'_>,
    name: &OsStr,
    progress: &Progress,
) -> Result<File, Why> {
    let identity = rustix::fs::fstat(&open)?;
    let mut sink = Regular::new(open, found.attr().size)?;
    if let Err(why) = pour(found, &mut sink, &|bytes| progress.add(bytes)) {
        if let Interrupted::Source(_) = &why {
            // Unless somebody has put another file there.
            let there = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if (there.st_dev, there.st_ino) == (identity.st_dev, identity.st_ino) {
                rustix::fs::unlinkat(dir, name, AtFlags::empty())?;
            }
        }
        return Err(why.into());
    }
    let (file, kept) = sink.finish()?;
    if kept > 0 {
        tracing::info!("{}: {kept} bytes were there already", name.display());
    }
    Ok(file)
}

impl From<Interrupted> for Why {
    fn from(why: Interrupted) -> Why {
        match why {
            Interrupted::Source(err) => Why::Source(err),
            Interrupted::Sink(err) => Why::Dest(err),
        }
    }
}

/// Whether something is a directory of the tree.
pub(super) fn is_dir(attr: &Attr) -> bool {
    attr.kind == FileKind::Directory
}

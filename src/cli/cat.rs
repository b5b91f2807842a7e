//! `stratafs cat`: files of the tree, on standard output.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};

use super::paths::{Failures, PathArgs, ended, output, why};
use super::pour::{Interrupted, pour};
use super::sink::Stream;
use super::status::Failure;
use crate::backing::FileKind;
use crate::error::Result;
use crate::tree::{Follow, Found, Tree};

#[derive(Debug, Args)]
pub(super) struct CatArgs {
    /// Files, by their paths in the tree: images/busybox/save.tar
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// One archive of several images, in this order: each PATH is a name of one, in any spelling
    #[arg(long)]
    save: bool,
    #[command(flatten)]
    place: PathArgs,
}

/// Prints the files; one that fails ends where it fails, and the next one follows.
pub(super) fn run(args: &CatArgs) -> Result<ExitCode, Failure> {
    let tree = args.place.tree()?;
    let mut failures = Failures::default();
    let mut out = Stream(output()?);
    let together;
    let paths = match args.save {
        true => {
            together = [saved(&args.paths)];
            &together[..]
        }
        false => &args.paths[..],
    };
    for path in paths {
        match file(&tree, path)
            .map_err(Interrupted::Source)
            .and_then(|it| pour(&it, &mut out, &|_| {}))
        {
            Ok(()) => {}
            Err(Interrupted::Source(err)) => failures.say(path, &why(&err)),
            Err(Interrupted::Sink(err)) => return Ok(ended(Err(err), failures.status())?.into()),
        }
    }
    Ok(failures.status().into())
}

/// Where the tree has an archive of these images.
fn saved(names: &[PathBuf]) -> PathBuf {
    let names = names
        .iter()
        .map(|name| percent_encode(name.as_os_str().as_bytes(), NON_ALPHANUMERIC).to_string());
    format!("images/.save/{}.tar", names.collect::<Vec<_>>().join("+")).into()
}

/// The file at `path`, which has bytes.
pub(super) fn file<'a>(tree: &'a Tree, path: &Path) -> Result<Found<'a>> {
    let found = tree.find(path, Follow::Last)?;
    let errno = match found.attr().kind {
        FileKind::Regular => return Ok(found),
        FileKind::Directory => rustix::io::Errno::ISDIR,
        FileKind::Symlink
        | FileKind::CharDevice
        | FileKind::BlockDevice
        | FileKind::Fifo
        | FileKind::Socket => rustix::io::Errno::OPNOTSUPP,
    };
    Err(crate::error::Error::errno_of(path, errno))
}

//! `stratafs windows-layer`: layers of Windows, without a mount.

mod place;
mod unpack;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};

use super::status::Failure;
use crate::backing::{Access, Bytes, FileRange, Root};
use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::store::OpenError;
use unpack::unpack;

/// Layers of Windows, without a mount.
#[derive(Debug, Args)]
pub(super) struct WindowsArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make of a layer's tar the directory that ExportLayer would fill
    Unpack(UnpackArgs),
}

#[derive(Debug, Args)]
struct UnpackArgs {
    /// The tar, compressed or not
    #[arg(value_name = "LAYER.tar")]
    tar: PathBuf,
    /// Where to put it: a directory that is empty, or not there yet
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// Does what `args` ask for.
pub(super) fn run(args: &WindowsArgs) -> Result<(), Failure> {
    let Command::Unpack(UnpackArgs { tar, directory }) = &args.command;
    let unpacked = open(tar).and_then(|tar| unpack(&*tar, directory));
    unpacked.map_err(|err| OpenError::Other(err).into())
}

/// A tar as the user named it; symlinks are followed.
fn open(path: &Path) -> Result<Arc<dyn Bytes>> {
    let found = fs::canonicalize(path).map_err(|err| Error::io(path, err))?;
    let parent = found.parent().unwrap_or(Path::new("/"));
    let root = Arc::new(Root::open(parent, Access::Sealed)?);
    let stored = FileRange::whole(&root, found.file_name().unwrap_or_default())?;
    let stored: Arc<dyn Bytes> = Arc::new(stored);
    Arc::new(Cache::in_memory()).uncompressed(&stored)
}

//! `stratafs sum`: checksums by which builders recognise files, of any path.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use rustix::io::Errno;

use super::context::modes;
use super::disk::{self, OnDisk};
use super::status::{ExitStatus, Failure};
use super::view::Flavour;
use crate::archive::context::{self, DOCKERFILE, IGNORE, Rules};
use crate::error::{Error, Result};
use crate::overlay::Stack;
use crate::overlay::files::Files;
use crate::sum::build::Context;
use crate::sum::{self, Cancel, content, tarsum};

/// What can be asked of a checksum.
#[derive(Debug, Args)]
pub(super) struct SumArgs {
    /// Files and directories: on disk, or in a mount
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The SHA-256 of a file; so it is unless something else is asked for
    #[arg(long, group = "kind")]
    sha256: bool,
    /// The sum of a tar, or of the build context that a directory makes
    #[arg(long, value_name = "VERSION", value_enum, group = "kind")]
    tarsum: Option<Version>,
    /// What Docker's classic builder writes into an image's history
    #[arg(long, group = "kind")]
    build: bool,
    /// The content hash by which BuildKit recognises files
    #[arg(long, group = "kind")]
    content: bool,
    /// What COPY takes from PATH, a context or its tar: a path or pattern; may be repeated
    #[arg(long = "paths", value_name = "GLOB", conflicts_with_all = ["sha256", "content"])]
    sources: Vec<OsString>,
    /// Whose modes: those of docker-1.10 (to 23) tell the type of a file as well
    #[arg(long, value_enum)]
    flavour: Option<Flavour>,
}

/// Which attributes a tarsum counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Version {
    /// Times, no xattrs: Docker up to 1.7
    V0,
    /// Xattrs, no times: Docker 1.8 and later
    V1,
    /// As v1, by another name
    Dev,
}

impl From<Version> for tarsum::Version {
    fn from(version: Version) -> tarsum::Version {
        match version {
            Version::V0 => tarsum::Version::V0,
            Version::V1 => tarsum::Version::V1,
            Version::Dev => tarsum::Version::Dev,
        }
    }
}

/// Prints the sum of one path alone; of several, each with its path behind it.
///
/// # Errors
/// Fails where something can't be read or written.
pub(super) fn run(args: &SumArgs) -> Result<ExitCode, Failure> {
    let mut out = io::stdout().lock();
    for path in &args.paths {
        let mut line = sum(args, path)?.into_bytes();
        if args.paths.len() > 1 {
            line.extend([b"  ", path.as_os_str().as_bytes()].concat());
        }
        line.push(b'\n');
        out.write_all(&line).map_err(Failure::Output)?;
    }
    Ok(ExitStatus::Success.into())
}

fn sum(args: &SumArgs, path: &Path) -> Result<String> {
    let opened = disk::open(path)?;
    let cancel = Cancel::default();
    let is_of_sources = args.build || !args.sources.is_empty();
    match (args.tarsum, opened) {
        (_, OnDisk::Dir(stack)) if args.content => {
            let files = Files::Merged(&stack);
            Ok(content::hash(&files, b"", &files.root()?, &cancel)?.to_string())
        }
        (_, OnDisk::File { dir, name, .. }) if args.content => {
            let stack = disk::tree(&dir)?;
            let files = Files::Merged(&stack);
            Ok(content::hash(&files, &name, &files.find(&name)?, &cancel)?.to_string())
        }
        (version, opened) if is_of_sources => {
            let version = version.map_or(tarsum::Version::V1, Into::into);
            of_sources(args, opened, version)
        }
        (Some(version), OnDisk::File { bytes, .. }) => {
            tarsum::tarsum(&bytes, version.into(), &cancel)
        }
        (Some(version), OnDisk::Dir(stack)) => {
            let tar = context::context(&Files::Merged(&stack), &rules(args, &stack)?)?;
            tarsum::tarsum(&tar, version.into(), &cancel)
        }
        (None, OnDisk::File { bytes, .. }) => Ok(sum::recipe_sha256(&bytes, &cancel)?.hex()),
        (None, OnDisk::Dir(_)) => Err(Error::errno_of(path, Errno::ISDIR)),
    }
}

/// What the builder makes of a path: the `--paths` in a context or its tar; without those all of a
/// directory, or the file in the directory that it lies in.
fn of_sources(args: &SumArgs, opened: OnDisk, version: tarsum::Version) -> Result<String> {
    let cancel = Cancel::default();
    let mut sources: Vec<&[u8]> = args.sources.iter().map(|source| source.as_bytes()).collect();
    let context = match opened {
        OnDisk::Dir(stack) => {
            if sources.is_empty() {
                sources.push(b".");
            }
            context_of(args, &stack)?
        }
        OnDisk::File { bytes, .. } if !sources.is_empty() => Context::new(bytes)?,
        OnDisk::File { dir, name, .. } => {
            let stack = disk::tree(&dir)?;
            let files = Files::Merged(&stack);
            let found = files.find(&name)?;
            // Where a file has several names, those before it in the context count.
            let context = match found.entry.stat.nlink {
                1 => {
                    let tar = context::single(&files, &name, &found, modes(args.flavour))?;
                    Context::new(Arc::new(tar))?
                }
                _ => context_of(args, &stack)?,
            };
            return context.hash_path(&name, version, &cancel);
        }
    };
    context.hash(&sources, version, &cancel)
}

/// The context that `docker build` makes of a directory, as the engine sees it.
fn context_of(args: &SumArgs, stack: &Stack) -> Result<Context> {
    let rules = rules(args, stack)?;
    let mut context = Context::new(Arc::new(context::context(&Files::Merged(stack), &rules)?))?;
    for sent in [IGNORE, DOCKERFILE] {
        if rules.ignore.is_kept(sent) {
            context.remove(sent.as_bytes());
        }
    }
    Ok(context)
}

fn rules(args: &SumArgs, stack: &Stack) -> Result<Rules> {
    let ignore = context::ignored(&Files::Merged(stack), DOCKERFILE)?;
    Ok(Rules { ignore, modes: modes(args.flavour), ..Rules::default() })
}

//! `stratafs context`: a directory as a build context on standard output.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use flate2::write::GzEncoder;

use super::disk;
use super::status::{ExitStatus, Failure};
use super::view::Flavour;
use crate::archive::context::{self, DOCKERFILE, Rules};
use crate::archive::export::Modes;
use crate::error::{Error, Result};
use crate::overlay::files::Files;
use crate::recipe::Recipe;

/// How much is read and written at once, in bytes.
const CHUNK: usize = 1 << 20;

/// Largest Dockerfile, in bytes.
const DOCKERFILE_MAX: u64 = 64 << 20;

/// What can be asked of a context.
#[derive(Debug, Args)]
pub(super) struct ContextArgs {
    /// The directory: on disk, or in a mount; without it, a context of one Dockerfile alone
    #[arg(required_unless_present = "dockerfile")]
    dir: Option<PathBuf>,
    /// Pack only this path of DIR, with all it holds; may be repeated
    #[arg(long, value_name = "PATH", requires = "dir")]
    include: Vec<OsString>,
    /// Leave out what matches, as a line of .dockerignore would; may be repeated
    #[arg(long, value_name = "GLOB", requires = "dir")]
    exclude: Vec<String>,
    /// Pack the path OLD and all in it as NEW; may be repeated
    #[arg(long, value_name = "OLD=NEW", requires = "dir")]
    rename: Vec<OsString>,
    /// Take this file for the Dockerfile ("-": standard input)
    #[arg(short = 'f', long, value_name = "FILE")]
    dockerfile: Option<PathBuf>,
    /// How the tar is compressed
    #[arg(long, value_enum, default_value_t)]
    compression: Compression,
    /// Whose modes: those of docker-1.10 (to 23) tell the type of a file as well
    #[arg(long, value_enum)]
    flavour: Option<Flavour>,
}

/// How a tar is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Compression {
    /// Not at all
    #[default]
    None,
    /// gzip
    Gzip,
    /// Zstandard, which Docker reads from 23 on
    Zstd,
}

/// Writes the context.
///
/// # Errors
/// Fails where something can't be read or written.
pub(super) fn run(args: &ContextArgs) -> Result<ExitCode, Failure> {
    let out = io::stdout().lock();
    if out.is_terminal() {
        return Err(Failure::Usage("standard output is a terminal: pipe or redirect it".into()));
    }
    write(&tar(args)?, args.compression, out)?;
    Ok(ExitStatus::Success.into())
}

fn tar(args: &ContextArgs) -> Result<Recipe, Failure> {
    let dockerfile = args.dockerfile.as_deref().map(read_dockerfile).transpose()?;
    let Some(dir) = &args.dir else {
        return Ok(context::generate(DOCKERFILE, &dockerfile.unwrap_or_default())?);
    };
    let stack = disk::tree(dir)?;
    let files = Files::Merged(&stack);
    let mut ignore = context::ignored(&files, DOCKERFILE)?;
    for line in &args.exclude {
        ignore.add_line(line).map_err(|err| Failure::Usage(err.to_string()))?;
    }
    let include = args.include.iter().map(|path| context::relative(path));
    let rules = Rules {
        ignore,
        include: include.collect::<Result<_>>()?,
        rename: args.rename.iter().map(|pair| renaming(pair)).collect::<Result<_, _>>()?,
        modes: modes(args.flavour),
        dockerfile,
    };
    Ok(context::context(&files, &rules)?)
}

/// What the modes of a context tell, as an engine has it.
pub(super) fn modes(flavour: Option<Flavour>) -> Modes {
    match flavour {
        Some(Flavour::Docker1_10 | Flavour::Docker1_9) => Modes::Typed,
        _ => Modes::Plain,
    }
}

fn renaming(pair: &OsStr) -> Result<(Vec<u8>, Vec<u8>), Failure> {
    let usage = || Failure::Usage(format!("{}: not OLD=NEW", pair.to_string_lossy()));
    let at = pair.as_bytes().iter().position(|&byte| byte == b'=').ok_or_else(usage)?;
    let old = context::relative(OsStr::from_bytes(&pair.as_bytes()[..at]))?;
    let new = context::relative(OsStr::from_bytes(&pair.as_bytes()[at + 1..]))?;
    if old.is_empty() { Err(usage()) } else { Ok((old, new)) }
}

fn read_dockerfile(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = if path == "-" {
        io::Read::read_to_end(&mut io::Read::take(io::stdin(), DOCKERFILE_MAX + 1), &mut bytes)
    } else {
        let file = fs::File::open(path).map_err(|err| Error::io(path, err))?;
        io::Read::read_to_end(&mut io::Read::take(file, DOCKERFILE_MAX + 1), &mut bytes)
    };
    read.map_err(|err| Error::io(path, err))?;
    match bytes.len() as u64 > DOCKERFILE_MAX {
        true => Err(Error::invalid(path, "larger than 64 MiB").into()),
        false => Ok(bytes),
    }
}

fn write(tar: &Recipe, compression: Compression, out: impl Write) -> Result<(), Failure> {
    match compression {
        Compression::None => copy(tar, out).map(drop),
        Compression::Gzip => {
            let packed = copy(tar, GzEncoder::new(out, flate2::Compression::default()))?;
            packed.finish().map(drop).map_err(Failure::Output)
        }
        Compression::Zstd => {
            let encoder = zstd::Encoder::new(out, 0).map_err(Failure::Output)?;
            copy(tar, encoder)?.finish().map(drop).map_err(Failure::Output)
        }
    }
}

fn copy<W: Write>(tar: &Recipe, mut out: W) -> Result<W, Failure> {
    let mut buf = vec![0; CHUNK];
    let mut at = 0;
    loop {
        match tar.read_at(at, &mut buf)? {
            0 => break,
            read => {
                out.write_all(&buf[..read]).map_err(Failure::Output)?;
                at += read as u64;
            }
        }
    }
    out.flush().map_err(Failure::Output)?;
    Ok(out)
}

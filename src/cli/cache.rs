//! The cache on the command line: where it is, how large it may get, and what it holds.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand};

use super::status::{ExitStatus, Failure};
use crate::cache::{Cache, Disk, default_directory};
use crate::error::Error;

/// How large the cache may get unless told otherwise, in bytes.
const BOUND: u64 = 4 << 30;

/// Where what is inflated is kept.
#[derive(Debug, Default, Clone, PartialEq, Eq, Args)]
pub(super) struct CacheArgs {
    /// Keep what compressed layers inflate to in this directory
    /// [default: /var/cache/stratafs for root, else $XDG_CACHE_HOME/stratafs]
    #[arg(long = "cache", value_name = "DIR")]
    pub(super) directory: Option<PathBuf>,
    /// Keep no more than this there: bytes, or with K, M, G or T; 0: write nothing, and inflate again
    /// what is read again [default: 4G]
    #[arg(long = "cache-size", value_name = "BYTES", value_parser = parse_size)]
    pub(super) size: Option<u64>,
}

/// What to do with the cache.
#[derive(Debug, Subcommand)]
pub(super) enum CacheCommand {
    /// Say what it holds
    Stats(CacheArgs),
    /// Remove what was used least recently, down to --cache-size
    Prune(CacheArgs),
    /// Remove all of it
    Clear(CacheArgs),
}

impl CacheArgs {
    /// The cache of a mount. One that can't be written is done without.
    pub(super) fn open(&self) -> Arc<Cache> {
        if self.size == Some(0) {
            return Arc::default();
        }
        let Some(path) = self.path() else { return Arc::default() };
        match Disk::open(&path, self.bound()) {
            Ok(disk) => Arc::new(Cache::on(disk)),
            Err(err) => {
                tracing::warn!("{err}: compressed layers are inflated anew for each mount");
                Arc::default()
            }
        }
    }

    fn path(&self) -> Option<PathBuf> {
        self.directory.clone().or_else(default_directory)
    }

    fn bound(&self) -> u64 {
        self.size.unwrap_or(BOUND)
    }

    /// The cache in a directory that is there.
    fn existing(&self) -> Result<Disk, Failure> {
        let path =
            self.path().ok_or_else(|| Failure::Usage("name the cache with --cache".into()))?;
        if !Path::new(&path).is_dir() {
            return Err(Failure::Cache(Error::not_found(path)));
        }
        Disk::open(&path, self.bound()).map_err(Failure::Cache)
    }
}

/// Does what was asked of the cache.
pub(super) fn run(command: &CacheCommand) -> Result<ExitCode, Failure> {
    let text = match command {
        CacheCommand::Stats(args) => {
            let stats = args.existing()?.stats().map_err(Failure::Cache)?;
            format!(
                "segments {} {}\nindexes {} {}\nbound {}\n",
                stats.segments,
                stats.segment_bytes,
                stats.indexes,
                stats.index_bytes,
                args.bound()
            )
        }
        CacheCommand::Prune(args) => removed(args, args.bound())?,
        CacheCommand::Clear(args) => removed(args, 0)?,
    };
    let printed = io::stdout().write_all(text.as_bytes());
    printed.map_err(|err| Failure::Cache(Error::io("standard output", err)))?;
    Ok(ExitStatus::Success.into())
}

/// Leaves at most `bound` bytes.
fn removed(args: &CacheArgs, bound: u64) -> Result<String, Failure> {
    let bytes = args.existing()?.prune(bound).map_err(Failure::Cache)?;
    Ok(format!("removed {bytes}\n"))
}

/// A number of bytes: `500M`, `2GiB`, `1000`; units are powers of 1024.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|digit: char| digit.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start().to_ascii_lowercase();
    let unit = unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(&unit);
    let power = ["", "k", "m", "g", "t"].iter().position(|known| *known == unit);
    let size = number
        .parse::<u64>()
        .ok()
        .zip(power)
        .and_then(|(number, power)| number.checked_mul(1024u64.checked_pow(power as u32)?));
    size.ok_or_else(|| "not a size such as 500M or 4G".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_number_with_or_without_a_unit() {
        for (text, size) in [
            ("0", 0),
            ("1000", 1000),
            ("2k", 2048),
            ("500M", 500 << 20),
            ("4G", 4 << 30),
            ("4GiB", 4 << 30),
            ("1 TB", 1 << 40),
        ] {
            assert_eq!(parse_size(text), Ok(size), "{text}");
        }
        for text in ["", "G", "-1", "4X", "1.5G", "99999999999T", "18446744073709551616"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}

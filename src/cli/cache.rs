//! The cache on the command line: where it is, how large it may get, what it holds.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::status::{ExitStatus, Failure};
use crate::cache::{Cache, Disk, default_directory};
use crate::error::Error;

mod build;

use build::BuildArgs;

/// How large the cache may get unless told otherwise, in bytes.
const BOUND: u64 = 4 << 30;

/// Where what was worked out is kept.
#[derive(Debug, Default, Clone, PartialEq, Eq, Args)]
pub(super) struct CacheArgs {
    /// Keep what was worked out of layers in this directory: outlines of their tars, what
    /// compressed ones inflate to, and lengths of exports [default: $STRATAFS_CACHE, else
    /// /var/cache/stratafs for root, $XDG_CACHE_HOME/stratafs for others]
    #[arg(long = "cache", value_name = "DIR")]
    pub(super) directory: Option<PathBuf>,
    /// Keep no more than this there: bytes, or with K, M, G or T; 0: write nothing, and work out again
    /// what is read again [default: 4G]
    #[arg(long = "cache-size", value_name = "BYTES", value_parser = parse_size)]
    pub(super) size: Option<u64>,
}

/// What to do with the cache.
#[derive(Debug, Subcommand)]
pub(super) enum CacheCommand {
    /// Say what it holds
    Stats(StatsArgs),
    /// Remove what was used least recently, down to --cache-size
    Prune(PruneArgs),
    /// Remove all of it
    Clear(CacheArgs),
    /// Fill it with what can be known of the images of whole stores
    Build(BuildArgs),
}

#[derive(Debug, Args)]
pub(super) struct StatsArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cache: CacheArgs,
}

#[derive(Debug, Args)]
pub(super) struct PruneArgs {
    /// Remove what nobody has used for so long, whatever there is room for: 90m, 12h or 30d
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    unused_for: Option<Duration>,
    #[command(flatten)]
    cache: CacheArgs,
}

/// What a cache holds, as JSON has it.
#[derive(Debug, Serialize)]
struct Report {
    path: PathBuf,
    bound: u64,
    bytes: u64,
    segments: Held,
    indexes: Held,
    outlines: Held,
    lengths: Held,
}

#[derive(Debug, Serialize)]
struct Held {
    count: u64,
    bytes: u64,
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
                tracing::warn!("{err}: layers are worked out anew for each mount");
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

    fn named(&self) -> Result<PathBuf, Failure> {
        self.path().ok_or_else(|| Failure::Usage("name the cache with --cache".into()))
    }

    /// The cache in a directory that is there.
    fn existing(&self) -> Result<Disk, Failure> {
        let path = self.named()?;
        if !path.is_dir() {
            return Err(Failure::Cache(Error::not_found(path)));
        }
        Disk::open(&path, self.bound()).map_err(Failure::Cache)
    }
}

/// Does what was asked of the cache.
pub(super) fn run(command: &CacheCommand, is_quiet: bool) -> Result<ExitCode, Failure> {
    let text = match command {
        CacheCommand::Stats(args) => stats(args)?,
        CacheCommand::Prune(args) => {
            let disk = args.cache.existing()?;
            let since = args.unused_for.and_then(|age| SystemTime::now().checked_sub(age));
            let unused = since.map_or(Ok(0), |since| disk.prune_unused(since));
            let pruned = unused.and_then(|bytes| Ok(bytes + disk.prune(args.cache.bound())?));
            removed(pruned)?
        }
        CacheCommand::Clear(args) => removed(args.existing()?.prune(0))?,
        CacheCommand::Build(args) => return build::run(args, is_quiet),
    };
    print(&text)?;
    Ok(ExitStatus::Success.into())
}

fn removed(bytes: Result<u64, Error>) -> Result<String, Failure> {
    Ok(format!("removed {}\n", bytes.map_err(Failure::Cache)?))
}

fn print(text: &str) -> Result<(), Failure> {
    io::stdout().write_all(text.as_bytes()).map_err(Failure::Output)
}

fn stats(args: &StatsArgs) -> Result<String, Failure> {
    let stats = args.cache.existing()?.stats().map_err(Failure::Cache)?;
    let held = |count, bytes| Held { count, bytes };
    let report = Report {
        path: args.cache.named()?,
        bound: args.cache.bound(),
        bytes: stats.bytes(),
        segments: held(stats.segments, stats.segment_bytes),
        indexes: held(stats.indexes, stats.index_bytes),
        outlines: held(stats.outlines, stats.outline_bytes),
        lengths: held(stats.lengths, stats.length_bytes),
    };
    if args.json {
        let json = serde_json::to_string_pretty(&report);
        return json.map(|json| json + "\n").map_err(|err| Failure::Output(err.into()));
    }
    let kinds = [
        ("segments", &report.segments),
        ("indexes", &report.indexes),
        ("outlines", &report.outlines),
        ("lengths", &report.lengths),
    ];
    let lines = kinds.map(|(name, held)| format!("{name} {} {}\n", held.count, held.bytes));
    Ok(format!("{}bound {}\n", lines.concat(), report.bound))
}

/// A time span: `90m`, `12h`, `30d`, `10s`.
fn parse_age(text: &str) -> Result<Duration, String> {
    let units = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];
    let parsed = units.iter().find_map(|(unit, secs)| {
        let number = text.strip_suffix(unit)?.parse::<u64>().ok()?;
        number.checked_mul(*secs).map(Duration::from_secs)
    });
    parsed.ok_or_else(|| "not an age such as 90m, 12h or 30d".to_owned())
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
    fn an_age_is_a_number_with_a_unit() {
        for (text, secs) in [("10s", 10), ("90m", 5400), ("12h", 43_200), ("30d", 2_592_000)] {
            assert_eq!(parse_age(text), Ok(Duration::from_secs(secs)), "{text}");
        }
        for text in ["", "d", "5", "-1d", "1w", "1.5h", "99999999999999999999d"] {
            assert!(parse_age(text).is_err(), "{text}");
        }
    }

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

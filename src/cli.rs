//! The command line: what was asked for, and how the process ends.

mod cache;
mod cat;
mod context;
mod copy_tree;
mod cp;
mod disk;
mod log;
mod ls;
mod options;
mod paths;
mod pour;
mod progress;
mod sink;
mod source;
mod stat;
mod status;
mod stores;
mod sum;
mod view;
mod windows;

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tracing_subscriber::filter::LevelFilter;

use crate::mount::{self, Leave, MountPoint, Writes, daemon};
use crate::snapshot::{self, Snapshots};
use crate::tree::Keeping;

use log::Log;
pub use status::{ExitStatus, Failure};
use view::ViewArgs;

/// How many snapshots a container may have, unless told otherwise.
const SNAPSHOTS: usize = 32;

/// Mounts a host's container storage as a read-only file system.
#[derive(Debug, Parser)]
#[command(name = "stratafs", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Say more: -v what happens, -vv what is being done and how long it takes, -vvv each request
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Say less: failures only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Mount stores; return when the tree can be used, and leave a daemon behind
    Mount(MountArgs),
    /// Unmount
    Umount(UmountArgs),
    /// Layers of Windows, without a mount
    WindowsLayer(windows::WindowsArgs),
    /// Look after what was worked out of layers, and fill it
    #[command(subcommand)]
    Cache(cache::CacheCommand),
    /// List the stores that are found, and what of them can't be read
    Stores(stores::StoresArgs),
    /// List what a mount would show, without mounting
    Ls(ls::LsArgs),
    /// Print files that a mount would show, without mounting
    Cat(cat::CatArgs),
    /// Copy files that a mount would show, without mounting
    Cp(cp::CpArgs),
    /// Tell size, owner, times of what a mount would show, without mounting
    Stat(stat::StatArgs),
    /// Set the processes of a cgroup going again where its freezer is killed
    #[command(name = snapshot::GUARD, hide = true)]
    ThawIfOrphaned {
        /// Its directory
        cgroup: PathBuf,
    },
    /// End the connection of a daemon that is killed
    #[command(name = mount::guard::GUARD, hide = true)]
    AbortIfOrphaned {
        /// Its process ID
        daemon: u32,
    },
    /// Checksums by which builders recognise files
    Sum(sum::SumArgs),
    /// Write a directory to standard output as a build context: `stratafs context DIR | docker build -`
    Context(context::ContextArgs),
}

/// What can be asked of a mount.
#[derive(Debug, Default, PartialEq, Eq, Args)]
#[command(override_usage = "stratafs mount [OPTIONS] [SOURCE]... MOUNTPOINT")]
struct MountArgs {
    /// Stores, each docker:PATH, podman:PATH, windows-layer:LAYER[,PARENT...] or a path whose kind is
    /// found out (none: this host's), and the directory to mount them on
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Stay in the foreground
    #[arg(short, long)]
    foreground: bool,
    /// Options as mount(8) passes them: allow_other, allow_root, noexec, noxattrs, nopush, direct_io,
    /// fsname=NAME, and each long option below as KEY=VALUE
    #[arg(short, value_name = "OPT,...")]
    options: Vec<String>,
    #[command(flatten)]
    view: ViewArgs,
    /// Let `mkdir containers/NAME/snapshots/SNAPSHOT` freeze a container's files, and keep them there
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Stop the processes of a container while a snapshot of it is taken
    #[arg(long)]
    freeze: bool,
    /// How many snapshots a container may have (32)
    #[arg(long, value_name = "N")]
    snapshot_limit: Option<usize>,
    /// How it is found out that a store changed
    #[arg(long, value_enum, default_value_t)]
    watch: Watching,
    /// Let the kernel's overlayfs show rootfs/ of images whose reference matches; may be repeated,
    /// needs root
    #[arg(long, value_name = "GLOB")]
    kernel_rootfs: Vec<String>,
    /// Add what there is to say to this file
    /// [default: standard error in the foreground, else the host's log]
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Taken from mount(8), and without a meaning here
    #[arg(short = 'n', hide = true)]
    no_mtab: bool,
    /// Taken from mount(8): unknown options are still an error
    #[arg(short = 's', hide = true)]
    sloppy: bool,
    #[arg(skip)]
    mount: mount::Options,
}

/// How it is found out that a store changed. Either way it shows within a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Watching {
    /// The kernel tells (inotify), where it does
    #[default]
    Auto,
    /// By looking whenever somebody reads
    Poll,
}

#[derive(Debug, Args)]
struct UmountArgs {
    /// Where it is mounted
    #[arg(value_name = "MOUNTPOINT")]
    point: PathBuf,
    /// Detach it even if it is in use; open files can be read until they are closed
    #[arg(short, long)]
    lazy: bool,
}

/// Does what `args`, starting with the program's name, ask for.
///
/// # Errors
/// Whatever kept it from being done, with the status to end with.
pub fn run(args: impl IntoIterator<Item = OsString>) -> Result<ExitCode, Failure> {
    let cli = match Cli::try_parse_from(spelled_out(args)) {
        Ok(cli) => cli,
        Err(err) => {
            // Help and version come this way too. Nobody is left to tell when printing fails.
            let _ = err.print();
            return Ok(
                if err.use_stderr() { ExitStatus::Usage } else { ExitStatus::Success }.into()
            );
        }
    };
    let log = start_log(&cli);
    match cli.command {
        Command::Cache(command) => cache::run(&command, cli.quiet),
        Command::Mount(args) => mount(args, &log),
        Command::Stores(args) => stores::run(&args),
        Command::Ls(args) => ls::run(&args),
        Command::Cat(args) => cat::run(&args),
        Command::Cp(args) => cp::run(&args, cli.quiet),
        Command::Stat(args) => stat::run(&args),
        Command::Sum(args) => sum::run(&args),
        Command::Context(args) => context::run(&args),
        Command::Umount(args) => {
            let leave = if args.lazy { Leave::Detached } else { Leave::Unused };
            mount::umount(&args.point, leave)?;
            Ok(ExitStatus::Success.into())
        }
        Command::WindowsLayer(args) => {
            windows::run(&args)?;
            Ok(ExitStatus::Success.into())
        }
        Command::ThawIfOrphaned { cgroup } => {
            snapshot::thaw_if_orphaned(&cgroup).map_err(Failure::Snapshots)?;
            Ok(ExitStatus::Success.into())
        }
        Command::AbortIfOrphaned { daemon } => {
            mount::guard::abort_if_orphaned(daemon)?;
            Ok(ExitStatus::Success.into())
        }
    }
}

/// The arguments, with `mount` put in where mount(8) called us as `mount.fuse.stratafs`.
fn spelled_out(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut args: Vec<_> = args.into_iter().collect();
    let name = args.first().and_then(|program| Path::new(program).file_name());
    if name.is_some_and(|name| name == "mount.stratafs" || name == "mount.fuse.stratafs") {
        args.insert(1, "mount".into());
    }
    args
}

/// `RUST_LOG` outranks -q and -v.
fn start_log(cli: &Cli) -> Log {
    let level = match cli.verbose {
        _ if cli.quiet => LevelFilter::ERROR,
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    Log::start(level, io::stderr().is_terminal())
}

fn mount(mut args: MountArgs, log: &Log) -> Result<ExitCode, Failure> {
    for list in std::mem::take(&mut args.options) {
        options::apply(&list, &mut args)?;
    }
    if !args.foreground && !daemon::is_daemon() {
        return Ok(daemon::start()?);
    }
    if let Some(path) = &args.log {
        log.go_on_in_file(path).map_err(Failure::Log)?;
    }
    args.mount.kernel_rootfs = view::patterns(&args.kernel_rootfs)?;
    let Some((point, names)) = args.paths.split_last() else {
        return Err(Failure::Usage("name a mount point".into()));
    };
    let context = args.view.context();
    let opened = args.view.stores(names, &context)?;
    let mut stores: Vec<_> = opened.iter().map(|store| store.info().path.clone()).collect();
    stores.dedup(); // namespaces of one
    let kept = keeping(&args)?;
    let mut apart = stores.clone();
    apart.extend(kept.as_ref().map(|kept| kept.snapshots.path().to_owned()));
    let point = MountPoint::check(point, &apart)?;
    let mut tree = args.view.tree(opened, &context)?;
    if let Some(kept) = kept {
        tree = tree.with_snapshots(kept);
        args.mount.writes = Writes::Asked;
    }
    match args.watch {
        Watching::Auto => tree.watch(),
        Watching::Poll => {}
    }
    if args.mount.source.is_empty() {
        args.mount.source = match &stores[..] {
            [store] => store.to_string_lossy().into_owned(),
            _ => "stratafs".into(),
        };
    }
    let ready = || {
        if daemon::is_daemon() {
            daemon::detach()?;
            log.detach();
        }
        Ok(())
    };
    mount::serve(Arc::new(tree), &point, &args.mount, ready)?;
    Ok(ExitStatus::Success.into())
}

/// Where snapshots are kept, if anywhere.
fn keeping(args: &MountArgs) -> Result<Option<Keeping>, Failure> {
    let Some(state) = &args.state else {
        return match args.freeze || args.snapshot_limit.is_some() {
            true => Err(Failure::Usage("snapshots need a directory: name it with --state".into())),
            false => Ok(None),
        };
    };
    let limit = args.snapshot_limit.unwrap_or(SNAPSHOTS);
    let snapshots = Snapshots::open(state, limit).map_err(Failure::Snapshots)?;
    Ok(Some(Keeping { snapshots: Arc::new(snapshots), is_freezing: args.freeze }))
}

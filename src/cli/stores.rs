//! `stratafs stores`: what was found where, and what of it can't be read.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::paths::{escape, plain};
use super::source::Place;
use super::status::{ExitStatus, Failure};
use crate::store::{self, Context, LayerStore, OpenError, Source};
use crate::tree::{Options, Tree};

#[derive(Debug, Args)]
pub(super) struct StoresArgs {
    /// Stores, each docker:PATH, podman:PATH or a path whose kind is found out (none: this host's)
    #[arg(value_name = "SOURCE")]
    sources: Vec<PathBuf>,
    /// Look at somebody else's disk, mounted there: SOURCE is a path in it, none means every store
    /// of it
    #[arg(long, value_name = "DIR")]
    image_root: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is said of one store.
#[derive(Debug, Serialize)]
struct Report {
    /// The engine; `None` where nobody said and nothing told.
    kind: Option<String>,
    path: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(flatten)]
    found: Found,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Found {
    Unreadable { error: String },
    Store(Contents),
}

#[derive(Debug, Serialize)]
struct Contents {
    driver: &'static str,
    /// Its directory in a mount of all that is listed; `.` where it is the mount itself.
    shown_at: String,
    images: usize,
    names: usize,
    containers: usize,
    /// What tells the version of the engine.
    hints: Vec<String>,
    /// What can't be read, and why.
    damaged: Vec<String>,
}

/// Prints what was found. It is a failure where nothing was, or nothing that can be opened.
pub(super) fn run(args: &StoresArgs) -> Result<ExitCode, Failure> {
    let place = Place::new(args.image_root.as_deref())?;
    let sources = place.sources(&args.sources)?;
    let (mut opened, mut failed) = (Vec::new(), Vec::new());
    for source in sources {
        match store::open_all(&source, &Context::default()) {
            Ok(stores) => opened.extend(stores),
            Err(err) => failed.push((source, err)),
        }
    }
    let has_opened = !opened.is_empty();
    let mut reports = Vec::new();
    let tree = Tree::new(opened, Options::default());
    for (name, store) in tree.stores() {
        reports.push(report(name, &*store));
    }
    reports.extend(failed.iter().map(|(source, err)| unreadable(source, err)));
    print(&reports, args.json).map_err(Failure::Output)?;
    match failed.into_iter().next() {
        Some((_, err)) if !has_opened || !args.sources.is_empty() => {
            Ok(Failure::from(err).status().into())
        }
        _ => Ok(ExitStatus::Success.into()),
    }
}

fn unreadable(source: &Source, err: &OpenError) -> Report {
    Report {
        kind: source.kind.map(|kind| kind.to_string()),
        path: source.path.clone(),
        namespace: None,
        found: Found::Unreadable { error: err.to_string() },
    }
}

fn report(name: String, store: &dyn LayerStore) -> Report {
    let info = store.info();
    let found = match contents(name, store) {
        Ok(contents) => Found::Store(contents),
        Err(err) => Found::Unreadable { error: err.to_string() },
    };
    let namespace = info.namespace.clone();
    Report { kind: Some(info.kind.to_owned()), path: info.path.clone(), namespace, found }
}

/// What a store holds; each image and container is looked at, for what is wrong with it.
fn contents(name: String, store: &dyn LayerStore) -> crate::error::Result<Contents> {
    let catalog = store.catalog()?;
    let images = catalog.images.keys().filter_map(|id| store.image(*id).err());
    let containers = catalog.containers.iter().filter_map(|one| store.container(one.id).err());
    let mut damaged: Vec<String> = catalog.damaged.iter().map(ToString::to_string).collect();
    for err in images.chain(containers).map(|err| err.to_string()) {
        if !damaged.contains(&err) {
            damaged.push(err);
        }
    }
    Ok(Contents {
        driver: store.info().driver,
        shown_at: if name.is_empty() { ".".to_owned() } else { name },
        images: catalog.images.len(),
        names: catalog.references.len(),
        containers: catalog.containers.len(),
        hints: store.version_hints(),
        damaged,
    })
}

fn print(reports: &[Report], is_json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if is_json {
        serde_json::to_writer_pretty(&mut out, reports)?;
        return writeln!(out);
    }
    reports.iter().try_for_each(|report| write_report(&mut out, report))
}

fn write_report(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let kind = report.kind.as_deref().unwrap_or("unknown");
    let namespace = report.namespace.as_ref().map(|name| format!(" namespace {name}"));
    writeln!(out, "{kind} {}{}", plain(report.path.as_os_str()), namespace.unwrap_or_default())?;
    let contents = match &report.found {
        Found::Unreadable { error } => return writeln!(out, "  unreadable  {}", escape(error)),
        Found::Store(contents) => contents,
    };
    writeln!(out, "  driver      {}", contents.driver)?;
    writeln!(out, "  shown at    {}", contents.shown_at)?;
    writeln!(out, "  images      {} under {} names", contents.images, contents.names)?;
    writeln!(out, "  containers  {}", contents.containers)?;
    for hint in &contents.hints {
        writeln!(out, "  version     {hint}")?;
    }
    contents.damaged.iter().try_for_each(|err| writeln!(out, "  damaged     {}", escape(err)))
}

//! Filling the cache: what it keeps of the layers and exports of whole stores, on all cores.

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use clap::Args;

use super::{CacheArgs, print};
use crate::archive::Flavour;
use crate::archive::export::{self, Accounts, Style};
use crate::archive::layers::Layers;
use crate::archive::lengths;
use crate::cache::{Cache, Disk};
use crate::cli::progress::Progress;
use crate::cli::source::{self, Place};
use crate::cli::status::{ExitStatus, Failure};
use crate::error::{Error, Result};
use crate::mount::raise_open_files;
use crate::overlay::Stack;
use crate::recipe::Verify;
use crate::store::{Context, Conventions, Image, Layer, LayerSource, LayerStore};

#[derive(Debug, Args)]
pub(in crate::cli) struct BuildArgs {
    /// Stores, each docker:PATH, podman:PATH or a path whose kind is found out (none: this host's)
    #[arg(value_name = "SOURCE")]
    sources: Vec<PathBuf>,
    /// Look at somebody else's disk, mounted there: SOURCE is a path in it, none means every store
    /// of it
    #[arg(long, value_name = "DIR")]
    image_root: Option<PathBuf>,
    #[command(flatten)]
    cache: CacheArgs,
}

/// What there is to know something of, and what can't be read.
#[derive(Default)]
struct Work {
    /// The layers of all images, each once.
    layers: Vec<Layer>,
    /// All images, each with the way in which its engine exports.
    images: Vec<(Image, Conventions)>,
    failed: Vec<Error>,
}

/// Works out what the cache keeps of all images: of their layers first.
pub(super) fn run(args: &BuildArgs, is_quiet: bool) -> Result<ExitCode, Failure> {
    raise_open_files();
    let disk = Disk::open(&args.cache.named()?, args.cache.bound()).map_err(Failure::Cache)?;
    let cache = Arc::new(Cache::on(disk));
    let context = Context { cache: Arc::clone(&cache) };
    let sources = Place::new(args.image_root.as_deref())?.sources(&args.sources)?;
    let stores = source::open(&sources, &args.sources, &context)?;
    let Work { layers: found, images, mut failed } = work(&stores);
    let progress = Progress::of_images(found.len() as u64, images.len() as u64, is_quiet);
    failed.iter().for_each(|err| progress.say(&err.to_string()));
    let layers = Layers::new(Verify::Passing, Arc::clone(&cache));
    // Making its tar leaves in the cache what it is made with.
    let made = |layer: &Layer| layers.tar(layer, &[]).map(drop);
    failed.extend(each(&found, &progress, made));
    let export = |(image, conventions): &(Image, Conventions)| {
        keep_length(image, *conventions, &layers, &cache)
    };
    failed.extend(each(&images, &progress, export));
    drop(progress);
    let (layers, images) = (found.len(), images.len());
    print(&format!("layers {layers}\nimages {images}\nfailed {}\n", failed.len()))?;
    let status = if failed.is_empty() { ExitStatus::Success } else { ExitStatus::Failure };
    Ok(status.into())
}

fn work(stores: &[Arc<dyn LayerStore>]) -> Work {
    let mut work = Work::default();
    for store in stores {
        let mut seen = HashSet::new();
        let images = match store.catalog() {
            Ok(catalog) => catalog.images.keys().map(|id| store.image(*id)).collect(),
            Err(err) => vec![Err(err)],
        };
        for image in images {
            match image {
                Ok(image) => {
                    work.layers.extend(image.layers.iter().filter_map(|layer| {
                        let is_known = !matches!(layer.source, LayerSource::Missing);
                        (is_known && seen.insert(layer.chain_id)).then(|| layer.clone())
                    }));
                    work.images.push((image, store.info().conventions));
                }
                Err(err) => work.failed.push(err),
            }
        }
    }
    work
}

/// Keeps the length of an image's export, as its own engine writes it.
fn keep_length(
    image: &Image,
    conventions: Conventions,
    layers: &Layers,
    cache: &Cache,
) -> Result<()> {
    let flavour = Flavour::of(conventions);
    let key = lengths::key(&image.layers, conventions, flavour)?;
    if lengths::kept(cache, key).is_none() {
        let stack = Stack::new(layers.dirs(&image.layers)?);
        let style = Style::of(conventions, flavour, || Accounts::read(&stack));
        cache.keep_length(key, export::export(&stack, &style)?.recipe.len());
    }
    Ok(())
}

/// Does that with each of `all`, on all cores; what failed.
fn each<T: Sync>(
    all: &[T],
    progress: &Progress,
    make: impl Fn(&T) -> Result<()> + Sync,
) -> Vec<Error> {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    let work = || {
        while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(err) = make(one) {
                progress.say(&err.to_string());
                failed.lock().unwrap_or_else(PoisonError::into_inner).push(err);
            }
            progress.add(1);
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner)
}

//! Layers as they are merged, where the store has the files of some in their tars alone.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use super::export::{self, Style};
use super::layer::{layer_tar, names};
use crate::backing::{Bytes, PackedTree, Root};
use crate::cache::{Cache, Check};
use crate::digest::{ChainId, DiffId, Digest, ImageId};
use crate::error::{Error, Result};
use crate::metrics::Usage;
use crate::oci::ImageConfig;
use crate::overlay::Stack;
use crate::overlay::changes::{Flavor, changes};
use crate::recipe::{Pool, Recipe, Verify};
use crate::store::{Blob, Image, Layer, LayerDir, LayerSource, Marks};
use crate::tar::tree;

/// Memory that tables of layers may take before the least recently used go, in bytes.
const WEIGHT: usize = 64 << 20;

/// Memory that parts of outlines may take before the least recently read go, in bytes: those of some
/// 50,000 files.
const PAGES: usize = 32 << 20;

/// How many tables are kept at most.
const TABLES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1023);

/// What is known of layers that are blobs.
#[derive(Debug)]
pub struct Layers {
    verify: Verify,
    cache: Arc<Cache>,
    /// What was read last of the tars of layers that are unpacked.
    pool: Arc<Pool>,
    /// By diff ID, and the version of the blob.
    tables: Mutex<LruCache<(DiffId, u64), Arc<Table>>>,
    usage: Mutex<Usage>,
}

/// The files of one layer. Of many readers one reads the tar, and the others wait.
#[derive(Debug, Default)]
struct Table(Mutex<Option<(Arc<PackedTree>, Arc<Root>)>>);

impl Layers {
    /// Nothing is known yet; what is inflated goes to `cache`.
    #[must_use]
    pub fn new(verify: Verify, cache: Arc<Cache>) -> Layers {
        let pool = Arc::new(Pool::new(PAGES));
        let tables = Mutex::new(LruCache::new(TABLES));
        Layers { verify, cache, pool, tables, usage: Mutex::default() }
    }

    pub(super) fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    pub(super) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// The uncompressed tar of a layer that is a blob.
    pub(super) fn blob(&self, blob: &Blob, diff_id: DiffId) -> Result<Arc<dyn Bytes>> {
        let check = match self.verify {
            Verify::Passing => Check::Passing,
            Verify::Always => Check::First,
        };
        self.cache.layer(&blob.bytes, blob.digest, diff_id, check)
    }

    /// The tar of a layer that lies upon those `below`, lowest first. Where the engine kept nothing
    /// but the files it is made of them, always in the same way; its digest is another one then.
    ///
    /// # Errors
    /// As [`layer_tar`].
    pub fn tar(&self, layer: &Layer, below: &[Layer]) -> Result<Recipe> {
        match &layer.source {
            LayerSource::Missing => self.rebuilt(layer, below),
            LayerSource::TarSplit { .. }
            | LayerSource::Undigested { .. }
            | LayerSource::Blob(_) => layer_tar(layer, self, self.verify),
        }
    }

    /// A tar of a layer's files, with whiteouts for what it hides.
    fn rebuilt(&self, layer: &Layer, below: &[Layer]) -> Result<Recipe> {
        let own = layer.dirs.first().ok_or_else(|| nowhere(layer))?;
        // It takes along the xattrs that users noted, as the tar may have had them.
        let style = &Style::Podman;
        let files = Stack::new(layer.dirs.clone());
        if below.is_empty() && !matches!(own.marks, Marks::Trusted | Marks::User) {
            return Ok(export::export(&files, style)?.recipe);
        }
        let below = Stack::new(self.dirs(below)?);
        let changes = || changes(&files, &below, Flavor::From28).map(Arc::new);
        Ok(export::layer_diff(&layer.dirs, &below, style, changes)?.recipe)
    }

    /// Paths of the entries of a layer's tar.
    ///
    /// # Errors
    /// As [`names`].
    pub fn names(&self, layer: &Layer) -> Result<Option<Vec<Vec<u8>>>> {
        names(layer, self)
    }

    /// The directories of `layers`, which lie upon each other lowest first, as they are merged,
    /// topmost first: those of the highest one that is unpacked, and upon them what the tars of
    /// those above hold.
    ///
    /// # Errors
    /// Fails where a layer is neither unpacked nor a blob, or its tar can't be read.
    pub fn dirs(&self, layers: &[Layer]) -> Result<Vec<LayerDir>> {
        let (unpacked, above) = unpacked(layers);
        let mut dirs: Vec<LayerDir> = unpacked.iter().rev().cloned().collect();
        for layer in above {
            let LayerSource::Blob(blob) = &layer.source else { return Err(nowhere(layer)) };
            let (tree, root) = self.table(blob, layer.diff_id)?;
            // An overlay merges the topmost directories whatever their marks; the tar means it.
            if tree.is_opaque() {
                dirs.clear();
            }
            let identity = layer.diff_id.0.prefix() ^ blob.bytes.version();
            dirs.push(LayerDir { root, identity, marks: Marks::Trusted, owners: None });
        }
        dirs.reverse();
        Ok(dirs)
    }

    /// Of the tables of layers that are blobs.
    #[must_use]
    pub fn usage(&self) -> Usage {
        *lock(&self.usage)
    }

    fn table(&self, blob: &Blob, diff_id: DiffId) -> Result<(Arc<PackedTree>, Arc<Root>)> {
        let key = (diff_id, blob.bytes.version());
        let table = Arc::clone(lock(&self.tables).get_or_insert(key, Arc::default));
        let mut known = lock(&table.0);
        lock(&self.usage).asked(known.is_some());
        if let Some(found) = &*known {
            return Ok(found.clone());
        }
        let _span = tracing::debug_span!("read layer", %diff_id).entered();
        let bytes = self.blob(blob, diff_id)?;
        let tree = Arc::new(tree::read(&bytes, diff_id.0.prefix())?);
        let root = Root::packed(Arc::clone(&tree), format!("layer {diff_id}"));
        let found = (tree, Arc::new(root));
        *known = Some(found.clone());
        drop(known);
        self.shrink();
        Ok(found)
    }

    /// Forgets the tables that were used least recently, down to the bound.
    fn shrink(&self) {
        let mut tables = lock(&self.tables);
        let mut weight = 0;
        // One that is being read counts nothing yet.
        let weight_of = |table: &Table| match table.0.try_lock() {
            Ok(known) => known.as_ref().map_or(0, |(tree, _)| tree.weight()),
            Err(_) => 0,
        };
        let kept = tables.iter().take_while(|(_, table)| {
            weight += weight_of(table);
            weight <= WEIGHT
        });
        let kept = kept.count().max(1);
        while tables.len() > kept {
            tables.pop_lru();
            lock(&self.usage).evictions += 1;
        }
    }
}

/// The directories of the highest layer that is unpacked, topmost first, which hold what lies below
/// it too; and the layers above it.
pub(super) fn unpacked(layers: &[Layer]) -> (&[LayerDir], &[Layer]) {
    match layers.iter().rposition(|layer| !layer.dirs.is_empty()) {
        Some(at) => (&layers[at].dirs, &layers[at + 1..]),
        None => (&[], layers),
    }
}

pub(super) fn nowhere(layer: &Layer) -> Error {
    Error::corrupt(&layer.directory, "neither its files nor its tar are here")
}

/// An image whose config lists the layers that are given out: where some are not the ones that the
/// engine once had, a loader would refuse them under their old diff IDs. `digests` are those of all
/// its layers, lowest first.
///
/// # Errors
/// Fails where the config makes no sense.
pub fn fitted(
    image: &Image,
    config: &ImageConfig,
    digests: &[Digest],
) -> Result<(Image, ImageConfig)> {
    let diff_ids: Vec<DiffId> = digests.iter().copied().map(DiffId).collect();
    let bytes = config.with_diff_ids(&diff_ids);
    let config = ImageConfig::parse(&bytes)
        .map_err(|why| Error::corrupt(format!("image {}", image.id), why))?;
    let mut fitted = Image {
        id: ImageId(Digest::of(&bytes)),
        config: bytes.into(),
        target: None,
        ..image.clone()
    };
    let mut below = None;
    for (layer, diff_id) in fitted.layers.iter_mut().zip(diff_ids) {
        let chain_id = ChainId::of(below, diff_id);
        (layer.diff_id, layer.chain_id, below) = (diff_id, chain_id, Some(chain_id));
    }
    Ok((fitted, config))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

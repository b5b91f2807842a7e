//! A store in memory: one image, whose layers are whatever a test says.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;
use stratafs::digest::{ChainId, ContainerId, DiffId, Digest, ImageId};
use stratafs::error::{Error, Result};
use stratafs::store::{
    Catalog, Container, Conventions, Generation, GraphDriver, Image, Layer, LayerDir, LayerSource,
    LayerStore, StoreInfo, Usage,
};

/// The reference of the image.
pub(crate) const NAME: &str = "app:1";

#[derive(Debug)]
pub(crate) struct Layered {
    info: StoreInfo,
    image: Image,
}

/// Where a layer's tar and files are.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) diff_id: DiffId,
    pub(crate) source: LayerSource,
    pub(crate) dirs: Vec<LayerDir>,
}

impl Layered {
    /// A store of one image with these layers, lowest first.
    pub(crate) fn new(parts: Vec<Part>) -> Layered {
        let mut below = None;
        let layers: Vec<Layer> = parts
            .into_iter()
            .map(|part| {
                let chain_id = ChainId::of(below, part.diff_id);
                below = Some(chain_id);
                Layer {
                    diff_id: part.diff_id,
                    chain_id,
                    size: 0,
                    directory: part.diff_id.hex(),
                    dirs: part.dirs,
                    source: part.source,
                }
            })
            .collect();
        let diff_ids: Vec<String> = layers.iter().map(|layer| layer.diff_id.to_string()).collect();
        let config = json!({
            "architecture": "amd64", "os": "linux", "created": "2024-05-06T07:08:09Z",
            "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}, "history": [],
        });
        let config: Arc<[u8]> = config.to_string().into_bytes().into();
        let image = Image {
            id: ImageId(Digest::of(&config)),
            config,
            layers,
            parent: None,
            last_tagged: None,
            references: vec![NAME.to_owned()],
            target: None,
            platforms: Vec::new(),
            stored: None,
            descriptions: Vec::new(),
        };
        let info = StoreInfo {
            kind: "layered",
            driver: "none",
            path: PathBuf::from("/layered"),
            namespace: None,
            conventions: Conventions::Docker,
        };
        Layered { info, image }
    }
}

impl LayerStore for Layered {
    fn info(&self) -> &StoreInfo {
        &self.info
    }

    fn generation(&self) -> Result<Generation> {
        Ok(Generation(1))
    }

    fn catalog(&self) -> Result<Catalog> {
        Ok(Catalog {
            images: BTreeMap::from([(self.image.id, None)]),
            references: BTreeMap::from([(NAME.to_owned(), self.image.id)]),
            ..Catalog::default()
        })
    }

    fn config(&self, _: ImageId) -> Result<Arc<[u8]>> {
        Ok(Arc::clone(&self.image.config))
    }

    fn image(&self, _: ImageId) -> Result<Image> {
        Ok(self.image.clone())
    }

    fn container(&self, id: ContainerId) -> Result<Container> {
        Err(Error::not_found(id.hex()))
    }

    fn graph_driver(&self, _: &[LayerDir]) -> GraphDriver {
        GraphDriver { name: "none".to_owned(), directories: None }
    }

    fn usage(&self) -> Result<Usage> {
        Ok(Usage { total: 2, used: 1 })
    }
}

//! A store in memory: one file and one line, and the tree has it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;
use stratafs::backing::{Access, Root};
use stratafs::digest::{ChainId, ContainerId, DiffId, Digest, ImageId};
use stratafs::error::{Error, Result};
use stratafs::store::{
    Catalog, Container, ContainerSummary, Conventions, Descriptor, Generation, GraphDriver, Image,
    Layer, LayerDir, LayerSource, LayerStore, Marks, Pod, State, StoreInfo, Usage,
};

/// The store. Each image has one layer, whose files lie in `files/`.
#[derive(Debug)]
pub(crate) struct Toy {
    info: StoreInfo,
    files: Arc<Root>,
    images: BTreeMap<ImageId, Toyed>,
    references: BTreeMap<String, ImageId>,
    containers: Vec<(ContainerSummary, String)>,
}

#[derive(Debug, Clone)]
struct Toyed {
    config: Vec<u8>,
    platforms: Vec<(String, ImageId)>,
    is_listed: bool,
}

impl Toy {
    /// An empty one in `dir`, which is that namespace of it, if any.
    pub(crate) fn new(dir: &Path, namespace: Option<&str>) -> Toy {
        fs::create_dir_all(dir.join("files")).unwrap();
        fs::write(dir.join("files/hello"), "hello\n").unwrap();
        let info = StoreInfo {
            kind: "toy",
            driver: "memory",
            path: dir.to_owned(),
            namespace: namespace.map(str::to_owned),
            conventions: Conventions::Docker,
        };
        let files = Arc::new(Root::open(&dir.join("files"), Access::Sealed).unwrap());
        Toy {
            info,
            files,
            images: BTreeMap::new(),
            references: BTreeMap::new(),
            containers: Vec::new(),
        }
    }

    /// An image of that name for one platform. Its ID is its config's digest.
    pub(crate) fn add_image(&mut self, reference: &str) -> ImageId {
        let config = config(reference, "amd64");
        let id = ImageId(Digest::of(&config));
        self.add(id, config, Vec::new(), true);
        self.references.insert(reference.to_owned(), id);
        id
    }

    /// An image of that name for several platforms, that of the host first. Its ID is that of an
    /// index, which lists a manifest for each.
    pub(crate) fn add_index(&mut self, reference: &str, architectures: &[&str]) -> ImageId {
        let index = ImageId(Digest::of(format!("index {reference}").as_bytes()));
        let mut platforms = Vec::new();
        for architecture in architectures {
            let config = config(reference, architecture);
            let manifest =
                ImageId(Digest::of(format!("manifest {reference} {architecture}").as_bytes()));
            platforms.push((format!("linux-{architecture}"), manifest));
            self.add(manifest, config, Vec::new(), false);
        }
        platforms.sort();
        self.add(index, config(reference, architectures[0]), platforms, true);
        self.references.insert(reference.to_owned(), index);
        index
    }

    /// A container of an image, perhaps in a pod.
    pub(crate) fn add_container(
        &mut self,
        name: &str,
        image: ImageId,
        created: &str,
        pod: [&str; 3],
    ) {
        let id = ContainerId(Digest::of(name.as_bytes()));
        let pod = pod.iter().any(|name| !name.is_empty()).then(|| Pod {
            namespace: pod[0].to_owned(),
            name: pod[1].to_owned(),
            container: pod[2].to_owned(),
        });
        let summary = ContainerSummary { id, name: name.to_owned(), image: Some(image), pod };
        self.containers.push((summary, created.to_owned()));
    }

    fn add(
        &mut self,
        id: ImageId,
        config: Vec<u8>,
        platforms: Vec<(String, ImageId)>,
        is_listed: bool,
    ) {
        self.images.insert(id, Toyed { config, platforms, is_listed });
    }

    fn known(&self, id: ImageId) -> Result<&Toyed> {
        self.images.get(&id).ok_or_else(|| Error::not_found(id.to_string()))
    }

    fn dir(&self) -> LayerDir {
        LayerDir {
            root: Arc::clone(&self.files),
            identity: 7,
            marks: Marks::Complete,
            owners: None,
        }
    }
}

fn config(reference: &str, architecture: &str) -> Vec<u8> {
    let config = serde_json::json!({
        "architecture": architecture,
        "created": "2024-05-06T07:08:09Z",
        "config": { "Labels": { "name": reference } },
        "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": [Digest::of(b"layer").to_string()] },
    });
    config.to_string().into_bytes()
}

impl LayerStore for Toy {
    fn info(&self) -> &StoreInfo {
        &self.info
    }

    fn generation(&self) -> Result<Generation> {
        Ok(Generation(1))
    }

    fn catalog(&self) -> Result<Catalog> {
        let listed = self.images.iter().filter(|(_, image)| image.is_listed);
        Ok(Catalog {
            images: listed.map(|(id, _)| (*id, None)).collect(),
            references: self.references.clone(),
            containers: self.containers.iter().map(|(summary, _)| summary.clone()).collect(),
            ..Catalog::default()
        })
    }

    fn config(&self, id: ImageId) -> Result<Arc<[u8]>> {
        Ok(self.known(id)?.config.clone().into())
    }

    fn image(&self, id: ImageId) -> Result<Image> {
        let known = self.known(id)?;
        let diff_id = DiffId(Digest::of(b"layer"));
        let named = self.references.iter().filter(|(_, image)| **image == id);
        Ok(Image {
            id,
            config: known.config.clone().into(),
            layers: vec![Layer {
                diff_id,
                chain_id: ChainId(diff_id.0),
                size: 6,
                directory: "files".to_owned(),
                dirs: vec![self.dir()],
                source: LayerSource::Missing,
            }],
            parent: None,
            last_tagged: None,
            references: named.map(|(reference, _)| reference.clone()).collect(),
            target: (Digest::of(&known.config) != id.0).then(|| Descriptor {
                media_type: "application/vnd.oci.image.index.v1+json".to_owned(),
                digest: id.0,
                size: 1,
                annotations: BTreeMap::new(),
            }),
            platforms: known.platforms.clone(),
            stored: None,
            descriptions: Vec::new(),
        })
    }

    fn container(&self, id: ContainerId) -> Result<Container> {
        let found = self.containers.iter().find(|(summary, _)| summary.id == id);
        let (summary, created) = found.ok_or_else(|| Error::errno_of(id.hex(), Errno::NOENT))?;
        Ok(Container {
            id,
            name: summary.name.clone(),
            image: summary.image,
            image_name: String::new(),
            created: created.clone(),
            state: State::Running,
            pid: None,
            config: b"{}"[..].into(),
            host_config: b""[..].into(),
            directory: "files".to_owned(),
            dirs: vec![self.dir()],
            init_dirs: vec![self.dir()],
            mounts: Vec::new(),
            home: None,
        })
    }

    fn graph_driver(&self, _: &[LayerDir]) -> GraphDriver {
        GraphDriver { name: "memory".to_owned(), directories: None }
    }

    fn usage(&self) -> Result<Usage> {
        Ok(Usage { total: 1000, used: 6 })
    }
}

/// Where a toy's files are, for a test to make one.
pub(crate) fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().join("toy");
    (dir, path)
}

//! Which stores to look at, and how they are shown: what `mount` and the commands that do without a
//! mount have in common.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use rustix::process::{getegid, geteuid};

use super::cache::CacheArgs;
use super::source;
use super::status::Failure;
use crate::store::{Context, LayerStore};
use crate::tree::{self, Tree};
use crate::{archive, recipe};

/// What is shown, and how.
#[derive(Debug, Default, PartialEq, Eq, Args)]
pub(super) struct ViewArgs {
    /// Look at somebody else's disk, mounted there: SOURCE is a path in it, none means every store
    /// of it
    #[arg(long, value_name = "DIR")]
    pub(super) image_root: Option<PathBuf>,
    /// Show only this namespace of a store that has several; may be repeated
    #[arg(long = "namespace", value_name = "NS")]
    pub(super) namespaces: Vec<String>,
    /// Which engine save.tar and export.tar are written like, instead of the store's own
    #[arg(long, value_enum)]
    pub(super) flavour: Option<Flavour>,
    /// When bytes of a layer are checked against its digest
    #[arg(long, value_enum, default_value_t)]
    pub(super) verify: Verify,
    /// What stands in for bytes that are gone from a file of a container since its archive was opened
    #[arg(long, value_enum, default_value_t)]
    pub(super) changed: Changed,
    /// What symlinks in rootfs/ and diff/ show
    #[arg(long, value_enum, default_value_t)]
    pub(super) symlinks: Symlinks,
    /// Show only images whose name matches; may be repeated
    #[arg(long = "image", value_name = "GLOB")]
    pub(super) images: Vec<String>,
    /// Show only containers whose name matches; may be repeated
    #[arg(long = "container", value_name = "GLOB")]
    pub(super) containers: Vec<String>,
    #[command(flatten)]
    pub(super) cache: CacheArgs,
}

/// Which version of the engine archives are written like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Flavour {
    /// Docker 29
    #[value(name = "docker-29")]
    Docker29,
    /// Docker 28
    #[value(name = "docker-28")]
    Docker28,
    /// Docker 25 to 27
    #[value(name = "docker-25")]
    Docker25,
    /// Docker 1.10 to 24
    #[value(name = "docker-1.10")]
    Docker1_10,
    /// Docker up to 1.9
    #[value(name = "docker-1.9")]
    Docker1_9,
    /// save.tar as Podman, export.tar as the store's own engine
    #[value(name = "podman")]
    Podman,
    /// save.tar as an OCI image layout, export.tar as the store's own engine
    #[value(name = "oci")]
    Oci,
}

/// When bytes of a layer are checked against its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Verify {
    /// As they pass by, when read from the start
    #[default]
    Passing,
    /// Before the first byte is given out
    Always,
}

/// What stands in for bytes that are gone from a file of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Changed {
    /// Zeros
    #[default]
    Pad,
    /// An error, EIO
    Fail,
}

/// What symlinks show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Symlinks {
    /// The stored target
    #[default]
    Raw,
    /// Absolute targets stay inside the rootfs
    Rebase,
}

impl ViewArgs {
    /// The stores that `names` name, or all that are found where there is no name.
    pub(super) fn stores(
        &self,
        names: &[PathBuf],
        context: &Context,
    ) -> Result<Vec<Arc<dyn LayerStore>>, Failure> {
        let place = source::Place::new(self.image_root.as_deref())?;
        let opened = source::open(&place.sources(names)?, names, context)?;
        source::in_namespaces(opened, &self.namespaces)
    }

    /// The tree of these stores.
    pub(super) fn tree(
        &self,
        stores: Vec<Arc<dyn LayerStore>>,
        context: &Context,
    ) -> Result<Tree, Failure> {
        Ok(Tree::new(stores, self.options(context)?))
    }

    /// What stores and tree share.
    pub(super) fn context(&self) -> Context {
        Context { cache: self.cache.open() }
    }

    fn options(&self, context: &Context) -> Result<tree::Options, Failure> {
        Ok(tree::Options {
            flavour: self.flavour.map(|flavour| match flavour {
                Flavour::Docker29 => archive::Flavour::Docker29,
                Flavour::Docker28 => archive::Flavour::Docker28,
                Flavour::Docker25 => archive::Flavour::Docker25,
                Flavour::Docker1_10 => archive::Flavour::Docker110,
                Flavour::Docker1_9 => archive::Flavour::Docker19,
                Flavour::Podman => archive::Flavour::Podman,
                Flavour::Oci => archive::Flavour::Oci,
            }),
            verify: match self.verify {
                Verify::Passing => recipe::Verify::Passing,
                Verify::Always => recipe::Verify::Always,
            },
            changed: match self.changed {
                Changed::Pad => recipe::Changed::Pad,
                Changed::Fail => recipe::Changed::Fail,
            },
            host: self.image_root.clone(),
            symlinks: match self.symlinks {
                Symlinks::Raw => tree::Symlinks::Raw,
                Symlinks::Rebase => tree::Symlinks::Rebase,
            },
            filter: tree::Filter {
                images: patterns(&self.images)?,
                containers: patterns(&self.containers)?,
                namespaces: self.namespaces.clone(),
            },
            cache: Arc::clone(&context.cache),
            owner: (geteuid().as_raw(), getegid().as_raw()),
        })
    }
}

pub(super) fn patterns(globs: &[String]) -> Result<Vec<glob::Pattern>, Failure> {
    let parse = |glob: &String| {
        glob::Pattern::new(glob).map_err(|err| Failure::Usage(format!("{glob}: {err}")))
    };
    globs.iter().map(parse).collect()
}

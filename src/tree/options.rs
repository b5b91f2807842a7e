//! What the user asked for.

use std::path::PathBuf;
use std::sync::Arc;

use super::names::Filter;
use crate::archive::Flavour;
use crate::cache::Cache;
use crate::recipe::{Changed, Verify};

/// Where symlinks of an image point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Symlinks {
    /// Where they say.
    #[default]
    Raw,
    /// Where they would inside the image: never out of its `rootfs/`.
    Rebase,
}

/// What the user asked for.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Which `save.tar` is shown, and how `export.tar` is written; `None`: as the engine of each
    /// store does.
    pub flavour: Option<Flavour>,
    /// When bytes of layers are checked.
    pub verify: Verify,
    /// What stands in for bytes that are gone from a file of a container since its archive was
    /// opened.
    pub changed: Changed,
    /// Where symlinks point.
    pub symlinks: Symlinks,
    /// The root of the file system that the stores' engines ran on; `None`: this host's.
    pub host: Option<PathBuf>,
    /// Which images and containers are shown.
    pub filter: Filter,
    /// What was worked out of layers.
    pub cache: Arc<Cache>,
    /// Owner of what is made up: the mounting user and group.
    pub owner: (u32, u32),
}

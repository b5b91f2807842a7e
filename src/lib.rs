//! stratafs: a host's container storage as a read-only file system.
//!
//! Every virtual file is a [`recipe::Recipe`]: an immutable list of where its bytes come from,
//! with a length and a positioned read. Stores describe, archives arrange, the tree names, FUSE
//! translates; docs/ARCHITECTURE.md has the picture.
//!
//! The words used here, each in one sense only:
//!
//! | word | meaning |
//! |---|---|
//! | layer, diff | one set of file system changes |
//! | diff ID | sha256 of a layer's uncompressed tar |
//! | chain ID | identifies a layer with all below it |
//! | lower, upper, merged | read-only layers; a container's writable directory; the union |
//! | whiteout | hides one name below |
//! | opaque | hides a whole directory below |
//! | tar-split | record of a layer tar's headers and order, to rebuild it byte for byte |
//! | save / export | an image with layers and metadata / merged files as one flat tar |
//! | store, catalog | an engine's directory; all it holds at one moment |
//! | recipe, segment, backing file | bytes by description; one run of them; a file they come from |

#[cfg(not(target_pointer_width = "64"))]
compile_error!("stratafs relies on 64-bit file offsets fitting usize");

pub mod archive;
pub mod backing;
pub mod bolt;
pub mod cache;
pub mod cli;
pub mod digest;
pub mod error;
pub mod fuse;
pub mod inflate;
pub mod json;
mod memo;
pub mod metrics;
pub mod mount;
pub mod oci;
pub mod overlay;
pub mod recipe;
pub mod reference;
pub mod snapshot;
pub mod store;
pub mod sum;
pub mod tar;
pub mod time;
pub mod tree;
mod weighed;
pub mod windows;

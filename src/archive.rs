//! The files that engines write about images and containers: save and export archives, documents.

use crate::backing::Time;
use crate::time::{self, Timestamp};

pub mod commit;
pub mod containerd;
pub mod content;
pub mod context;
pub mod documents;
pub mod export;
pub mod history;
pub mod inspect;
mod layer;
pub mod layers;
pub mod lengths;
mod outlined;
mod pack;
pub mod patterns;
mod podman;
pub mod save;
pub mod v1;

pub use crate::oci::docker as config;
pub use documents::Flavour;

/// The mtime of a file that stands for something made at `created`: whole seconds, and 0 for what
/// is unknown or older than 1970.
#[must_use]
pub fn mtime_of(created: Option<&Timestamp>) -> Time {
    Time { secs: time::mtime(created).cast_signed(), nanos: 0 }
}

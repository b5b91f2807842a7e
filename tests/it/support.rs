//! Builders and oracles that several tests share.

pub(crate) mod bolt;
pub(crate) mod layers;
pub(crate) mod mounts;
pub(crate) mod snapshot;

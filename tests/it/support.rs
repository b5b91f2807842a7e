//! Builders and oracles that several tests share.

pub(crate) mod bolt;
pub(crate) mod cached;
pub(crate) mod containerd;
pub(crate) mod layers;
pub(crate) mod mounts;
pub(crate) mod snapshot;

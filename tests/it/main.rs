//! Tests that need a directory tree, a mount or a store.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    missing_docs,
    reason = "a test that can't go on fails, and says what it skipped"
)]

mod blobs;
mod bolt;
mod cli;
mod containerd;
mod damage;
mod drivers;
mod golden;
mod graph;
mod handmade_containerd;
mod layer_tars;
mod layering;
mod lengths;
mod outlines;
mod overlay_model;
mod podman;
mod portable;
mod semantics;
mod several;
mod stores;
mod sums;
mod support;
mod validate;
mod walked;
mod windows;

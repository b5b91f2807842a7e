//! The program itself, and what the kernel makes of it: these need root and `/dev/fuse`, and say so
//! where they are missing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    missing_docs,
    reason = "a test that can't go on fails, and says what it skipped"
)]

#[path = "mount/bytes.rs"]
mod bytes;
#[path = "mount/daemon.rs"]
mod daemon;
#[path = "mount/flavours.rs"]
mod flavours;
#[path = "mount/kernel.rs"]
mod kernel;
#[path = "mount/metrics.rs"]
mod metrics;
#[path = "mount/mounted.rs"]
mod mounted;
#[path = "mount/overlays.rs"]
mod overlays;
#[path = "mount/push.rs"]
mod push;
#[path = "mount/readers.rs"]
mod readers;
#[path = "mount/walked.rs"]
mod walked;
#[path = "mount/windows.rs"]
mod windows;

#[path = "it/stores"]
mod stores {
    #![allow(dead_code, reason = "no test binary uses all of it")]
    pub(crate) mod archives;
    pub(crate) mod golden;
    pub(crate) mod handmade;
    pub(crate) mod sample;
    pub(crate) mod windows;
}

#[path = "it/support"]
mod support {
    #![allow(dead_code, reason = "no test binary uses all of it")]
    pub(crate) mod bolt;
    pub(crate) mod containerd;
}

//! Tar, byte for byte as Go's `archive/tar` (1.10 and later) writes it, tar-split records and their
//! outlines, and tars of whoever wrote them.
//!
//! Source: Go's archive/tar (writer.go, common.go, strconv.go); POSIX.1-2001 pax.

pub mod header;
pub mod name;
pub mod outline;
pub mod pax;
pub mod read;
pub mod split;
pub mod tree;

/// Tar block, in bytes (POSIX pax, "ustar Interchange Format").
pub const BLOCK: u64 = 512;

/// The zeros that end an archive, in bytes: two blocks, and no padding to 10 KiB.
pub const TRAILER: u64 = 2 * BLOCK;

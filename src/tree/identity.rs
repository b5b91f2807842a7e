//! What makes a node that node and no other.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::ROOT;
use crate::digest::Digest;

/// What a node is, over mounts: equal identities are the same unchanging content. 128 bits of a
/// SHA-256, half of which are the inode number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    pub(super) number: u64,
    pub(super) rest: u64,
}

impl Identity {
    /// The node that these parts tell, the first of which says what kind of parts they are.
    pub(super) fn of(parts: &[&[u8]]) -> Identity {
        let mut all = Vec::with_capacity(128);
        for part in parts {
            all.extend_from_slice(&(part.len() as u64).to_le_bytes());
            all.extend_from_slice(part);
        }
        let [number, rest] = Digest::of(&all).halves();
        Identity { number, rest }
    }

    /// The entry `name` of the directory `parent`; `version` differs whenever its content does.
    pub(super) fn of_name(parent: u64, name: &OsStr, version: &[u8]) -> Identity {
        Identity::of(&[b"name", &parent.to_le_bytes(), name.as_bytes(), version])
    }

    /// The inode number that it would have if no other node had it: neither 0 nor the root's.
    pub(super) fn ino(&self) -> u64 {
        self.number.max(ROOT + 1)
    }
}

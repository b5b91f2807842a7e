//! Where a graph driver keeps the files of a layer.

use std::fmt;
use std::path::Path;

use crate::store::{Directories, GraphDriver, LayerDir, Marks};

mod home;
mod lower;
mod opened;

pub(super) use home::{Home, OwnersOf, Place};
pub(super) use opened::OpenLayers;

/// A graph driver that stratafs reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Driver {
    /// Docker: one directory of changes per layer, marked as overlayfs marks them.
    Overlay2(Marks),
    /// containers/storage: the same under another name.
    Overlay(Marks),
    /// Docker without root: the same, mounted by fuse-overlayfs.
    FuseOverlay,
    /// Docker's first driver for overlayfs, up to 23.0: one full copy per layer of an image, and
    /// upon the topmost the changes of a container.
    CopyingOverlay,
    /// Docker up to 23.0: one directory of changes per layer, marked by names.
    Aufs,
    /// One full copy per layer.
    Vfs,
    /// The same, each a subvolume.
    Btrfs,
}

impl Driver {
    /// The engine's name for it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Driver::Overlay2(_) => "overlay2",
            Driver::Overlay(_) | Driver::CopyingOverlay => "overlay",
            Driver::FuseOverlay => "fuse-overlayfs",
            Driver::Aufs => "aufs",
            Driver::Vfs => "vfs",
            Driver::Btrfs => "btrfs",
        }
    }

    /// Its directory in the data root.
    pub(super) fn home(self) -> &'static str {
        match self {
            Driver::Overlay2(_) => "overlay2",
            Driver::Overlay(_) | Driver::CopyingOverlay => "overlay",
            Driver::FuseOverlay => "fuse-overlayfs",
            Driver::Aufs => "aufs",
            Driver::Vfs => "vfs/dir",
            Driver::Btrfs => "btrfs/subvolumes",
        }
    }

    /// The directory of a layer therein.
    pub(super) fn directory(self, id: &DirId) -> String {
        match self {
            Driver::Aufs => format!("diff/{id}"),
            Driver::Overlay2(_)
            | Driver::Overlay(_)
            | Driver::FuseOverlay
            | Driver::CopyingOverlay
            | Driver::Vfs
            | Driver::Btrfs => id.to_string(),
        }
    }

    /// What `docker inspect` tells of `dirs`, topmost first (moby `overlay2.GetMetadata`).
    pub(super) fn describe(self, dirs: &[LayerDir]) -> GraphDriver {
        let shown = |path: &Path| path.to_string_lossy().into_owned();
        let is_shown = match self {
            Driver::Overlay2(_) | Driver::Overlay(_) | Driver::FuseOverlay => true,
            Driver::CopyingOverlay => dirs.len() > 1, // a full copy is not mounted
            Driver::Aufs | Driver::Vfs | Driver::Btrfs => false,
        };
        let directories = dirs.split_first().filter(|_| is_shown).map(|(top, below)| {
            let beside = |name| shown(&top.root.path().with_file_name(name));
            let below: Vec<String> = below.iter().map(|dir| shown(dir.root.path())).collect();
            Directories {
                lower: below.join(":"),
                merged: beside("merged"),
                upper: shown(top.root.path()),
                work: beside("work"),
            }
        });
        GraphDriver { name: self.name().to_owned(), directories }
    }

    /// True where an engine may note in an xattr what it could not write on disk: whoever runs it
    /// without root, or lets fuse-overlayfs do the mounting.
    pub(super) fn may_have_notes(self) -> bool {
        match self {
            Driver::Overlay2(marks) | Driver::Overlay(marks) => marks != Marks::Trusted,
            Driver::FuseOverlay => true,
            Driver::CopyingOverlay | Driver::Aufs | Driver::Vfs | Driver::Btrfs => false,
        }
    }

    /// True where the directory of an image's layer holds all that lies below it, too.
    pub(super) fn copies_layers(self) -> bool {
        match self {
            Driver::Vfs | Driver::Btrfs | Driver::CopyingOverlay => true,
            Driver::Overlay2(_) | Driver::Overlay(_) | Driver::FuseOverlay | Driver::Aufs => false,
        }
    }
}

/// A driver's name for a layer's directory: 64 hex digits, `BuildKit`'s 25 letters and
/// digits, either with `-init` behind it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct DirId(String);

impl DirId {
    /// Parses a name that is one plain path component, and not the `l` of overlay2.
    pub(super) fn parse(text: &str) -> Option<DirId> {
        let stem = text.strip_suffix("-init").unwrap_or(text);
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let good = (1..=64).contains(&stem.len()) && stem.bytes().all(plain) && text != "l";
        good.then(|| DirId(text.to_owned()))
    }
}

impl fmt::Display for DirId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_named_as_docker_or_buildkit_do() {
        for name in [&"0af".repeat(21), "1zsq3v8tyezwkrlyzpcgnbwfg", "0af-init"] {
            assert!(DirId::parse(name).is_some(), "{name}");
        }
        let long = "a".repeat(65);
        for name in ["", "-init", "l", "..", "a/b", "A", "a.b", "a-b", "a-init-init", &long] {
            assert!(DirId::parse(name).is_none(), "{name}");
        }
    }
}

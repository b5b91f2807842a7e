//! What a connection is asked for.

/// What a connection is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settings {
    /// Who may use the mount.
    pub audience: Audience,
    /// Whether extended attributes are shown.
    pub xattrs: Xattrs,
    /// How archives are read.
    pub archives: Archives,
    /// Whether contents come before they are asked for.
    pub contents: Contents,
}

/// Who may use the mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Audience {
    /// The user who mounted it.
    #[default]
    Owner,
    /// That user, and root.
    OwnerAndRoot,
    /// Everybody, as far as modes allow.
    Everybody,
}

/// Whether extended attributes are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Xattrs {
    /// As the tree has them.
    #[default]
    Shown,
    /// None: `ls -l` of large directories takes a tenth of the time.
    Hidden,
}

/// How archives are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Archives {
    /// Through the kernel's page cache, which keeps them.
    #[default]
    Cached,
    /// Past it, for those who copy them once and in large blocks; small reads get slow.
    Direct,
}

/// Whether contents come before they are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Contents {
    /// Ahead of a reader that walks. Somebody has to end the connection where the daemon is killed
    /// in the middle of that, or readers may hang.
    #[default]
    Pushed,
    /// When somebody reads.
    Asked,
}

//! Why a mount point could not be taken, or given back.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a mount point could not be taken, or given back.
#[derive(Debug)]
pub enum Error {
    /// There is no such path.
    Missing(PathBuf),
    /// It is no directory.
    NotDirectory(PathBuf),
    /// Mounting would hide what is in it.
    NotEmpty(PathBuf),
    /// The mount point lies in a store, or a store in it: the daemon would wait for itself.
    Entangled {
        /// The mount point, resolved.
        point: PathBuf,
        /// The store, resolved.
        store: PathBuf,
    },
    /// A mount of something else that has died.
    Dead {
        /// The mount point.
        point: PathBuf,
        /// Type of the dead file system.
        kind: String,
    },
    /// No stratafs is mounted there.
    NotMounted(PathBuf),
    /// `/dev/fuse` is missing or may not be used.
    Device(io::Error),
    /// This user may not mount or unmount, for a reason that names what refused it.
    NotPermitted(String),
    /// Only root may let others in, unless `/etc/fuse.conf` says otherwise.
    AllowOther,
    /// Files of it are open.
    Busy(PathBuf),
    /// Some other call failed.
    Io {
        /// What it was about.
        path: PathBuf,
        /// What the system said.
        err: io::Error,
    },
}

impl Error {
    /// A system call on `path` failed.
    pub(super) fn io(path: impl Into<PathBuf>, err: impl Into<io::Error>) -> Error {
        Error::Io { path: path.into(), err: err.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Missing(point) => {
                write!(f, "{}: no such mount point: make the directory first", point.display())
            }
            Error::NotDirectory(point) => {
                write!(f, "{}: not a directory: a mount point is one", point.display())
            }
            Error::NotEmpty(point) => {
                write!(f, "{}: not empty: name an empty directory", point.display())
            }
            Error::Entangled { point, store } => write!(
                f,
                "{}: contains or lies in the store {}: mount somewhere else",
                point.display(),
                store.display()
            ),
            Error::Dead { point, kind } => {
                write!(f, "{}: a mount of {kind} that has died: umount it first", point.display())
            }
            Error::NotMounted(point) => {
                write!(f, "{}: no stratafs is mounted there", point.display())
            }
            Error::Device(err) => write!(
                f,
                "/dev/fuse: {err}: load the module with `modprobe fuse`; in a container, allow it \
                 with `--device /dev/fuse --cap-add SYS_ADMIN`"
            ),
            Error::NotPermitted(why) => f.write_str(why),
            Error::AllowOther => f.write_str(
                "/etc/fuse.conf: allow_other is not permitted: add the line `user_allow_other`",
            ),
            Error::Busy(point) => write!(
                f,
                "{}: busy: close what is open there, or detach it with `stratafs umount -l`",
                point.display()
            ),
            Error::Io { path, err } => write!(f, "{}: {err}", path.display()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Device(err) | Error::Io { err, .. } => Some(err),
            Error::Missing(_)
            | Error::NotDirectory(_)
            | Error::NotEmpty(_)
            | Error::Entangled { .. }
            | Error::Dead { .. }
            | Error::NotMounted(_)
            | Error::NotPermitted(_)
            | Error::AllowOther
            | Error::Busy(_) => None,
        }
    }
}

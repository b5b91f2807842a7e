//! Exit statuses, and the failures that they stand for.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use rustix::io::Errno;

use crate::error::Error;
use crate::mount::error::Error as MountError;
use crate::store::OpenError;

/// What the process says of itself when it ends. The numbers are part of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitStatus {
    /// Mounted, or unmounted cleanly.
    Success = 0,
    /// A failure that no other number stands for.
    Failure = 1,
    /// Options or arguments make no sense.
    Usage = 2,
    /// The mount point does not exist.
    PointMissing = 10,
    /// The mount point is no directory.
    PointNotDirectory = 11,
    /// The mount point is not empty, or something dead is mounted there.
    PointNotEmpty = 12,
    /// The mount point lies in the store, or the store in the mount point.
    PointInStore = 13,
    /// There is no such store.
    StoreMissing = 20,
    /// The directory is no store.
    NotAStore = 21,
    /// The store may not be read.
    StoreUnreadable = 22,
    /// The store is of a kind, or uses a storage driver, that stratafs does not know.
    StoreUnsupported = 23,
    /// `/dev/fuse` is missing, or mounting is not permitted.
    NoFuse = 30,
    /// `allow_other` is not permitted.
    AllowOther = 31,
    /// `umount`: no stratafs is mounted there.
    NotMounted = 32,
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> ExitCode {
        ExitCode::from(status as u8)
    }
}

/// Why the command failed: what `main` prints, and the status it ends with.
#[derive(Debug)]
pub enum Failure {
    /// Options or arguments make no sense; a full sentence about which.
    Usage(String),
    /// The mount point, or the mount.
    Mount(MountError),
    /// A store.
    Store(OpenError),
    /// The cache.
    Cache(Error),
    /// Writing to standard output.
    Output(io::Error),
    /// The directory of snapshots.
    Snapshots(Error),
    /// The file of the log.
    Log(Error),
    /// No store was named, and none was found: on this host, or on that disk.
    NoStore(Option<PathBuf>),
    /// No store has that namespace.
    NoNamespace {
        /// The one that was asked for.
        wanted: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// Something that was to be read.
    Read(Error),
}

impl Failure {
    /// The status to end with.
    #[must_use]
    pub fn status(&self) -> ExitStatus {
        match self {
            Failure::Usage(_) => ExitStatus::Usage,
            Failure::NoStore(_) | Failure::NoNamespace { .. } => ExitStatus::StoreMissing,
            Failure::Output(_) => ExitStatus::Failure,
            Failure::Mount(err) => mount_status(err),
            Failure::Store(err) => store_status(err),
            Failure::Cache(_) => ExitStatus::Failure,
            Failure::Read(_) | Failure::Snapshots(_) | Failure::Log(_) => ExitStatus::Failure,
        }
    }
}

fn mount_status(err: &MountError) -> ExitStatus {
    match err {
        MountError::Missing(_) => ExitStatus::PointMissing,
        MountError::NotDirectory(_) => ExitStatus::PointNotDirectory,
        MountError::NotEmpty(_) | MountError::Dead { .. } => ExitStatus::PointNotEmpty,
        MountError::Entangled { .. } => ExitStatus::PointInStore,
        MountError::NotMounted(_) => ExitStatus::NotMounted,
        MountError::Device(_) | MountError::NotPermitted(_) => ExitStatus::NoFuse,
        MountError::AllowOther => ExitStatus::AllowOther,
        MountError::Busy(_) | MountError::Io { .. } => ExitStatus::Failure,
    }
}

fn store_status(err: &OpenError) -> ExitStatus {
    match err {
        OpenError::NoSuchStore(_) => ExitStatus::StoreMissing,
        OpenError::NotAStore { .. } => ExitStatus::NotAStore,
        OpenError::Unreadable { .. } => ExitStatus::StoreUnreadable,
        OpenError::UnsupportedDriver { .. } => ExitStatus::StoreUnsupported,
        OpenError::Other(err) if err.errno() == Errno::OPNOTSUPP => ExitStatus::StoreUnsupported,
        OpenError::Other(_) => ExitStatus::Failure,
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(why) => f.write_str(why),
            Failure::Output(err) => write!(f, "standard output: {err}"),
            Failure::NoStore(None) => f.write_str(
                "no store found on this host: name one, as in `stratafs mount /var/lib/docker /mnt`",
            ),
            Failure::NoStore(Some(disk)) => {
                write!(f, "{}: no store found there: name one by its path there", disk.display())
            }
            Failure::NoNamespace { wanted, known } if known.is_empty() => {
                write!(f, "no namespace {wanted}: no store here has any")
            }
            Failure::NoNamespace { wanted, known } => {
                write!(f, "no namespace {wanted}: there are {}", known.join(", "))
            }
            Failure::Mount(err) => write!(f, "{err}"),
            Failure::Store(err @ OpenError::NotAStore { .. }) => {
                write!(
                    f,
                    "{err}: name the directory that `docker info` calls Docker Root Dir, or \
                     `podman info` graphRoot"
                )
            }
            Failure::Store(err) => write!(f, "{err}"),
            Failure::Cache(err) => write!(f, "{err}"),
            Failure::Snapshots(err) => write!(f, "{err}"),
            Failure::Log(err) => write!(f, "{err}"),
            Failure::Read(err) => write!(f, "{err}"),
        }
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Failure::Output(err) => Some(err),
            Failure::Mount(err) => Some(err),
            Failure::Store(err) => Some(err),
            Failure::Cache(err) => Some(err),
            Failure::Snapshots(err) => Some(err),
            Failure::Log(err) => Some(err),
            Failure::Read(err) => Some(err),
            Failure::Usage(_) | Failure::NoStore(_) | Failure::NoNamespace { .. } => None,
        }
    }
}

impl From<MountError> for Failure {
    fn from(err: MountError) -> Failure {
        Failure::Mount(err)
    }
}

impl From<OpenError> for Failure {
    fn from(err: OpenError) -> Failure {
        Failure::Store(err)
    }
}

impl From<Error> for Failure {
    fn from(err: Error) -> Failure {
        Failure::Read(err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_failure_says_what_to_do() {
        let path = || "/srv/docker".into();
        let other = OpenError::Other;
        for (err, status, advice) in [
            (OpenError::NoSuchStore(path()), ExitStatus::StoreMissing, "no such"),
            (
                OpenError::NotAStore { path: path(), looked_for: "image directory" },
                ExitStatus::NotAStore,
                "docker info",
            ),
            (
                OpenError::Unreadable { path: path(), owner: Some((0, 0o710)) },
                ExitStatus::StoreUnreadable,
                "as root",
            ),
            (
                OpenError::UnsupportedDriver {
                    path: path(),
                    driver: "zfs".into(),
                    advice: "do this",
                },
                ExitStatus::StoreUnsupported,
                "do this",
            ),
            (other(Error::corrupt("/srv/docker", "cut off")), ExitStatus::Failure, "cut off"),
        ] {
            let failure = Failure::from(err);
            let text = failure.to_string();
            assert_eq!(failure.status(), status, "{text}");
            assert!(text.starts_with("/srv/docker") && text.contains(advice), "{text}");
        }
    }
}

//! The one error type: what went wrong, where, and which errno and log level that makes.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure, and the path it is about.
///
/// The path is that of a file in a store, or the name that was asked for.
#[derive(Debug)]
pub struct Error {
    path: PathBuf,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Io(io::Error),
    Corrupt(Cow<'static, str>),
    NotFound,
    Busy(Cow<'static, str>),
    Stale,
    Unsupported(Cow<'static, str>),
    Invalid(Cow<'static, str>),
    Errno(Errno),
}

impl Error {
    /// A system call on `path` failed; or, where `err` holds one of ours that has passed through an
    /// interface of std, that one.
    pub fn io(path: impl Into<PathBuf>, err: impl Into<io::Error>) -> Error {
        match err.into().downcast::<Error>() {
            Ok(own) => own,
            Err(err) => Error { path: path.into(), kind: Kind::Io(err) },
        }
    }

    /// The data at `path` is damaged, or not what it should be; `why` is a short phrase.
    pub fn corrupt(path: impl Into<PathBuf>, why: impl Into<Cow<'static, str>>) -> Error {
        Error { path: path.into(), kind: Kind::Corrupt(why.into()) }
    }

    /// There is nothing of that name.
    pub fn not_found(name: impl Into<PathBuf>) -> Error {
        Error { path: name.into(), kind: Kind::NotFound }
    }

    /// The object is in a state in which it can't be read, such as a container being removed.
    pub fn busy(path: impl Into<PathBuf>, why: impl Into<Cow<'static, str>>) -> Error {
        Error { path: path.into(), kind: Kind::Busy(why.into()) }
    }

    /// The object was there, but was replaced or removed meanwhile.
    pub fn stale(path: impl Into<PathBuf>) -> Error {
        Error { path: path.into(), kind: Kind::Stale }
    }

    /// The store asks for something that stratafs can't do.
    pub fn unsupported(path: impl Into<PathBuf>, what: impl Into<Cow<'static, str>>) -> Error {
        Error { path: path.into(), kind: Kind::Unsupported(what.into()) }
    }

    /// The caller asked for something that makes no sense.
    pub fn invalid(path: impl Into<PathBuf>, why: impl Into<Cow<'static, str>>) -> Error {
        Error { path: path.into(), kind: Kind::Invalid(why.into()) }
    }

    /// A plain answer for the kernel that is no failure of the store, such as EISDIR.
    pub fn errno_of(path: impl Into<PathBuf>, errno: Errno) -> Error {
        Error { path: path.into(), kind: Kind::Errno(errno) }
    }

    /// The same failure once more, for others who waited for the same answer.
    #[must_use]
    pub fn again(&self) -> Error {
        let kind = match &self.kind {
            Kind::Io(err) => Kind::Io(match err.raw_os_error() {
                Some(code) => io::Error::from_raw_os_error(code),
                None => io::Error::new(err.kind(), err.to_string()),
            }),
            Kind::Corrupt(why) => Kind::Corrupt(why.clone()),
            Kind::NotFound => Kind::NotFound,
            Kind::Busy(why) => Kind::Busy(why.clone()),
            Kind::Stale => Kind::Stale,
            Kind::Unsupported(what) => Kind::Unsupported(what.clone()),
            Kind::Invalid(why) => Kind::Invalid(why.clone()),
            Kind::Errno(errno) => Kind::Errno(*errno),
        };
        Error { path: self.path.clone(), kind }
    }

    /// What the failure is about: a file of the store, or a name.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the kernel is told. Damaged store data is EIO; system calls keep their own errno.
    #[must_use]
    pub fn errno(&self) -> Errno {
        match &self.kind {
            Kind::Io(err) => Errno::from_io_error(err).unwrap_or(Errno::IO),
            Kind::Corrupt(_) => Errno::IO,
            Kind::NotFound => Errno::NOENT,
            Kind::Busy(_) => Errno::BUSY,
            Kind::Stale => Errno::STALE,
            Kind::Unsupported(_) => Errno::OPNOTSUPP,
            Kind::Invalid(_) => Errno::INVAL,
            Kind::Errno(errno) => *errno,
        }
    }

    /// True when a name is missing, which is an answer and not a fault.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.errno() == Errno::NOENT
    }

    /// True when something else is in the place of a file or directory, or of one above it, or
    /// when no file can have its name.
    #[must_use]
    pub fn is_misplaced(&self) -> bool {
        let errno = self.errno();
        matches!(errno, Errno::NOTDIR | Errno::ISDIR | Errno::LOOP | Errno::XDEV)
            || errno == Errno::NAMETOOLONG
    }

    /// True for an answer that is no fault of the store: nothing to log.
    #[must_use]
    pub fn is_answer(&self) -> bool {
        matches!(self.kind, Kind::NotFound | Kind::Errno(_))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path.display())?;
        match &self.kind {
            Kind::Io(err) => write!(f, "{err}"),
            Kind::Corrupt(why) => write!(f, "corrupt: {why}"),
            Kind::NotFound => f.write_str("not found"),
            Kind::Busy(why) => write!(f, "busy: {why}"),
            Kind::Stale => f.write_str("stale: replaced or removed"),
            Kind::Unsupported(what) => write!(f, "not supported: {what}"),
            Kind::Invalid(why) => f.write_str(why),
            Kind::Errno(errno) => write!(f, "{errno}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            Kind::Io(err) => Some(err),
            _ => None,
        }
    }
}

/// Bytes that are not of the format that they should be; a short phrase says why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed(Cow<'static, str>);

impl Malformed {
    /// A short phrase, lower case.
    pub fn new(why: impl Into<Cow<'static, str>>) -> Malformed {
        Malformed(why.into())
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Malformed {}

impl From<Malformed> for Cow<'static, str> {
    fn from(err: Malformed) -> Cow<'static, str> {
        err.0
    }
}

//! What the commands share that look at paths of the tree without a mount.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::Args;
use rustix::io::Errno;

use super::status::{ExitStatus, Failure};
use super::view::ViewArgs;
use crate::backing::FileKind;
use crate::error::Error;
use crate::tree::Tree;

/// Which tree a PATH is one of.
#[derive(Debug, Args)]
pub(super) struct PathArgs {
    /// A store, as for mount: docker:PATH, podman:PATH or a path whose kind is found out; may be
    /// repeated (none: this host's)
    #[arg(short, long = "source", value_name = "SOURCE")]
    sources: Vec<PathBuf>,
    #[command(flatten)]
    view: ViewArgs,
}

impl PathArgs {
    /// The tree that a mount of the same stores would show.
    pub(super) fn tree(&self) -> Result<Tree, Failure> {
        let context = self.view.context();
        self.view.tree(self.view.stores(&self.sources, &context)?, &context)
    }
}

/// Failures of single paths: each is said when it happens, and the rest goes on.
#[derive(Debug, Default)]
pub(super) struct Failures {
    has_any: bool,
}

impl Failures {
    /// Says that something at `path` failed, on standard error.
    pub(super) fn say(&mut self, path: &Path, why: &str) {
        let mut out = io::stderr();
        // Nobody is left to tell when standard error is closed.
        let _ = writeln!(out, "{}", self.note(path, why));
    }

    /// Counts it, for somebody else to say.
    pub(super) fn note(&mut self, path: &Path, why: &str) -> String {
        self.has_any = true;
        format!("stratafs: {}: {why}", plain(path.as_os_str()))
    }

    /// The status to end with.
    pub(super) fn status(&self) -> ExitStatus {
        if self.has_any { ExitStatus::Failure } else { ExitStatus::Success }
    }
}

/// Why a path of the tree failed, as it is said behind that path.
pub(super) fn why(err: &Error) -> String {
    match err.errno() {
        Errno::NOENT => "no such file or directory".to_owned(),
        Errno::LOOP => "too many symlinks on the way".to_owned(),
        Errno::NOTDIR => "not a directory".to_owned(),
        Errno::ISDIR => "is a directory".to_owned(),
        Errno::NODATA => "no engine saves an image without layers".to_owned(),
        _ => escape(&err.to_string()),
    }
}

/// Standard output, without a buffer.
pub(super) fn output() -> Result<File, Failure> {
    let fd = rustix::stdio::stdout().try_clone_to_owned().map_err(Failure::Output)?;
    Ok(File::from(fd))
}

/// How a command ends whose output failed: quietly where nobody reads on.
pub(super) fn ended(result: io::Result<()>, status: ExitStatus) -> Result<ExitStatus, Failure> {
    match result {
        Ok(()) => Ok(status),
        Err(err) if err.kind() == io::ErrorKind::BrokenPipe => Ok(ExitStatus::Failure),
        Err(err) => Err(Failure::Output(err)),
    }
}

/// A name as it is printed: its bytes as they are, but safe where a terminal shows them.
pub(super) fn printed(name: &OsStr) -> Cow<'_, [u8]> {
    if io::stdout().is_terminal() {
        Cow::Owned(plain(name).into_bytes())
    } else {
        Cow::Borrowed(name.as_bytes())
    }
}

/// A name as text without control characters.
pub(super) fn plain(name: &OsStr) -> String {
    escape(&name.to_string_lossy())
}

/// A text that may be anybody's, safe to show on a terminal.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() {
            true => escaped.extend(character.escape_default()),
            false => escaped.push(character),
        }
    }
    escaped
}

/// Type and permissions as `ls -l` shows them.
pub(super) fn mode_text(kind: FileKind, permissions: u32) -> String {
    let first = match kind {
        FileKind::Regular => '-',
        FileKind::Directory => 'd',
        FileKind::Symlink => 'l',
        FileKind::CharDevice => 'c',
        FileKind::BlockDevice => 'b',
        FileKind::Fifo => 'p',
        FileKind::Socket => 's',
    };
    let special = [(0o4000, 's', 'S'), (0o2000, 's', 'S'), (0o1000, 't', 'T')];
    let mut text = String::from(first);
    for (class, (bit, with, without)) in special.into_iter().enumerate() {
        let bits = permissions >> (6 - 3 * class);
        text.push(if bits & 4 == 0 { '-' } else { 'r' });
        text.push(if bits & 2 == 0 { '-' } else { 'w' });
        text.push(match (permissions & bit != 0, bits & 1 != 0) {
            (true, true) => with,
            (true, false) => without,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_shown_as_ls_shows_them() {
        for (kind, permissions, text) in [
            (FileKind::Regular, 0o644, "-rw-r--r--"),
            (FileKind::Directory, 0o1777, "drwxrwxrwt"),
            (FileKind::Regular, 0o4755, "-rwsr-xr-x"),
            (FileKind::Regular, 0o6600, "-rwS--S---"),
            (FileKind::Symlink, 0o777, "lrwxrwxrwx"),
            (FileKind::Socket, 0o1000, "s--------T"),
        ] {
            assert_eq!(mode_text(kind, permissions), text);
        }
    }

    #[test]
    fn names_are_safe_for_a_terminal() {
        assert_eq!(plain(OsStr::from_bytes(b"a\x1b[31m\n\xe9")), "a\\u{1b}[31m\\n\u{fffd}");
    }
}

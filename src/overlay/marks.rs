//! What a layer's files say to overlayfs: devices and xattrs that are marks and not content.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::join;
use super::own::{OPAQUE, WHITEOUT_PREFIX};
use crate::backing::{Dir, FileKind, Stat};
use crate::error::{Error, Result};
use crate::store::{LayerDir, Marks};

/// Longest redirect that is followed, in bytes: what the kernel writes (`redirect_max`,
/// fs/overlayfs/dir.c).
const REDIRECT_MAX: usize = 256;

/// A `metacopy` xattr of other lengths than 0 has a header of this many bytes
/// (`OVL_METACOPY_MIN_SIZE`, fs/overlayfs/overlayfs.h).
const METACOPY_HEADER: usize = 4;

/// Where fuse-overlayfs finds that a directory is opaque: the first that there is says so
/// (`is_directory_opaque`, main.c).
const FUSE_OPAQUE: [&str; 3] =
    ["trusted.overlay.opaque", "user.overlay.opaque", "user.fuseoverlayfs.opaque"];

/// Beginnings of the xattrs that fuse-overlayfs keeps to itself (`can_access_xattr`, main.c).
const FUSE_OWN: [&str; 4] =
    ["trusted.overlay.", "user.overlay.", "user.fuseoverlayfs.", "user.containers.override_"];

/// The xattr that makes an empty file a whiteout.
const WHITEOUT: &str = "whiteout";

/// The namespace of the marks, where the layer has any.
fn namespace(marks: Marks) -> Option<&'static str> {
    match marks {
        Marks::Trusted | Marks::Copied => Some("trusted.overlay."),
        Marks::User => Some("user.overlay."),
        Marks::Fuse | Marks::Aufs | Marks::Complete => None,
    }
}

/// True where names that begin with `.wh.` are marks.
fn are_names(marks: Marks) -> bool {
    match marks {
        Marks::Fuse | Marks::Aufs => true,
        Marks::Trusted | Marks::User | Marks::Copied | Marks::Complete => false,
    }
}

/// What the name `name` in a layer's directory stands for: itself, the name that it hides, or
/// nothing that is shown.
pub(super) fn meant(marks: Marks, name: &OsStr) -> Option<&OsStr> {
    let hidden = match name.as_bytes().strip_prefix(WHITEOUT_PREFIX.as_bytes()) {
        Some(hidden) if are_names(marks) => hidden,
        _ => return Some(name),
    };
    let is_own = hidden.is_empty() || hidden.starts_with(WHITEOUT_PREFIX.as_bytes());
    (!is_own).then(|| OsStr::from_bytes(hidden))
}

/// True where `name` is no file's but a mark.
pub(super) fn is_mark(marks: Marks, name: &OsStr) -> bool {
    are_names(marks) && name.as_bytes().starts_with(WHITEOUT_PREFIX.as_bytes())
}

/// True where a name in `dir` hides `name` in the layers below.
pub(super) fn is_hidden_by_name(dir: &Dir, name: &OsStr, marks: Marks) -> Result<bool> {
    if !are_names(marks) {
        return Ok(false);
    }
    let mark = OsString::from_vec([WHITEOUT_PREFIX.as_bytes(), name.as_bytes()].concat());
    exists(dir.stat(&mark))
}

/// True where a name in the directory `path` of a layer hides what the layers below have there.
pub(super) fn is_opaque_by_name(layer: &LayerDir, path: &[u8]) -> Result<bool> {
    match are_names(layer.marks) {
        true => exists(layer.root.stat(OsStr::from_bytes(&join(path, OPAQUE.as_bytes())))),
        false => Ok(false),
    }
}

fn exists(stat: Result<Stat>) -> Result<bool> {
    match stat {
        Ok(_) => Ok(true),
        Err(err) if err.is_not_found() || err.is_misplaced() => Ok(false),
        Err(err) => Err(err),
    }
}

/// The name under which the merged tree shows the xattr `raw`; `None` where it is overlayfs's own.
/// Those of an overlay that lies in this one are stored with one more `overlay.`.
pub(super) fn shown(marks: Marks, raw: &OsStr) -> Option<OsString> {
    let is_of_fuse = |own: &&str| raw.as_bytes().starts_with(own.as_bytes());
    if marks == Marks::Fuse && FUSE_OWN.iter().any(is_of_fuse) {
        return None;
    }
    let own = namespace(marks).and_then(|namespace| {
        Some((namespace, raw.as_bytes().strip_prefix(namespace.as_bytes())?))
    });
    let Some((namespace, name)) = own else { return Some(raw.to_owned()) };
    let nested = name.strip_prefix(b"overlay.")?;
    Some(OsString::from_vec([namespace.as_bytes(), nested].concat()))
}

/// The name under which a layer stores the xattr that the merged tree shows as `shown`.
pub(super) fn stored(marks: Marks, shown: &OsStr) -> OsString {
    let nested = namespace(marks).and_then(|namespace| {
        Some((namespace, shown.as_bytes().strip_prefix(namespace.as_bytes())?))
    });
    match nested {
        None => shown.to_owned(),
        Some((namespace, name)) => {
            OsString::from_vec([namespace.as_bytes(), b"overlay.", name].concat())
        }
    }
}

/// What a directory's xattrs say.
#[derive(Debug, Default)]
pub(super) struct DirMarks {
    /// Nothing below is merged into it.
    pub(super) is_opaque: bool,
    /// The name that it has in the layers below.
    pub(super) redirect: Option<Vec<u8>>,
    /// Files may have been copied up into it.
    pub(super) is_impure: bool,
}

/// True where the directory `name` in `dir` (`""`: `dir` itself) is marked opaque.
pub(super) fn is_opaque(dir: &Dir, name: &OsStr, marks: Marks) -> Result<bool> {
    if marks == Marks::Fuse {
        return is_opaque_to_fuse(dir, name);
    }
    let Some(namespace) = namespace(marks) else { return Ok(false) };
    Own::read(dir, name, namespace)?.is_opaque()
}

fn is_opaque_to_fuse(dir: &Dir, name: &OsStr) -> Result<bool> {
    for attribute in FUSE_OPAQUE {
        if let Some(value) = dir.xattr(name, OsStr::new(attribute))? {
            return Ok(value.starts_with(b"y"));
        }
    }
    Ok(false)
}

/// The marks of the directory `name` in `dir` (`""`: `dir` itself).
pub(super) fn of_directory(dir: &Dir, name: &OsStr, marks: Marks) -> Result<DirMarks> {
    let Some(namespace) = namespace(marks) else {
        let is_opaque = is_opaque(dir, name, marks)?;
        return Ok(DirMarks { is_opaque, ..DirMarks::default() });
    };
    let own = Own::read(dir, name, namespace)?;
    let is_opaque = own.is_opaque()?;
    let redirect = if is_opaque { None } else { own.redirect()? };
    Ok(DirMarks { is_opaque, redirect, is_impure: own.has("impure") })
}

/// True where the entry hides its name in the layers below and is itself no file: a 0/0 device, or
/// an empty file with the `whiteout` xattr.
pub(super) fn is_whiteout(dir: &Dir, name: &OsStr, stat: &Stat, marks: Marks) -> Result<bool> {
    let Some(namespace) = namespace(marks) else { return Ok(false) };
    match stat.kind {
        FileKind::CharDevice => Ok(stat.rdev == (0, 0)),
        FileKind::Regular if stat.size == 0 => Ok(Own::read(dir, name, namespace)?.has(WHITEOUT)),
        FileKind::Regular
        | FileKind::Directory
        | FileKind::Symlink
        | FileKind::BlockDevice
        | FileKind::Fifo
        | FileKind::Socket => Ok(false),
    }
}

/// What an entry that is no directory says.
#[derive(Debug)]
pub(super) enum FileMark {
    /// Nothing.
    None,
    /// It is a whiteout, as [`is_whiteout`] tells.
    Whiteout,
    /// It stands for the attributes alone; its data are in a layer below, under the name that the
    /// redirect gives where there is one.
    Metacopy(Option<Vec<u8>>),
}

/// The mark of the entry `name` in `dir`, which is no directory. The xattrs of a file with data are
/// read only where it `may_be_metacopy`.
pub(super) fn of_file(
    dir: &Dir,
    name: &OsStr,
    stat: &Stat,
    marks: Marks,
    may_be_metacopy: bool,
) -> Result<FileMark> {
    let has_devices = matches!(marks, Marks::Fuse) || namespace(marks).is_some();
    if has_devices && stat.kind == FileKind::CharDevice && stat.rdev == (0, 0) {
        return Ok(FileMark::Whiteout);
    }
    let Some(namespace) = namespace(marks) else { return Ok(FileMark::None) };
    if stat.kind != FileKind::Regular || (stat.size > 0 && !may_be_metacopy) {
        return Ok(FileMark::None);
    }
    let own = Own::read(dir, name, namespace)?;
    if stat.size == 0 && own.has(WHITEOUT) {
        return Ok(FileMark::Whiteout);
    }
    match own.value("metacopy")? {
        None => Ok(FileMark::None),
        Some(value) if !value.is_empty() && value.len() < METACOPY_HEADER => {
            Err(Error::corrupt(dir.path().join(name), "metacopy mark too short"))
        }
        Some(_) => Ok(FileMark::Metacopy(own.redirect()?)),
    }
}

/// The xattrs of one file that are overlayfs's own.
struct Own<'a> {
    dir: &'a Dir,
    file: &'a OsStr,
    namespace: &'static str,
    names: Vec<OsString>,
}

impl Own<'_> {
    fn read<'a>(dir: &'a Dir, file: &'a OsStr, namespace: &'static str) -> Result<Own<'a>> {
        let mut names = dir.xattrs(file)?;
        names.retain(|name| name.as_bytes().starts_with(namespace.as_bytes()));
        Ok(Own { dir, file, namespace, names })
    }

    fn has(&self, mark: &str) -> bool {
        let at = self.namespace.len();
        self.names.iter().any(|name| name.as_bytes().get(at..) == Some(mark.as_bytes()))
    }

    fn value(&self, mark: &str) -> Result<Option<Vec<u8>>> {
        if !self.has(mark) {
            return Ok(None);
        }
        let attribute = format!("{}{mark}", self.namespace);
        self.dir.xattr(self.file, OsStr::new(&attribute))
    }

    fn is_opaque(&self) -> Result<bool> {
        Ok(self.value("opaque")?.as_deref() == Some(b"y"))
    }

    fn redirect(&self) -> Result<Option<Vec<u8>>> {
        let Some(value) = self.value("redirect")? else { return Ok(None) };
        match check_redirect(&value) {
            Ok(()) => Ok(Some(value)),
            Err(why) => Err(Error::corrupt(self.dir.path().join(self.file), why)),
        }
    }
}

/// A redirect is one name, or a path from the layers' roots: no empty name, no `.` and no `..`.
fn check_redirect(value: &[u8]) -> Result<(), &'static str> {
    if value.len() > REDIRECT_MAX {
        return Err("redirect too long");
    }
    let (names, is_path) = match value.strip_prefix(b"/") {
        Some(path) => (path, true),
        None => (value, false),
    };
    if value.contains(&0) || (!is_path && names.contains(&b'/')) {
        return Err("redirect is no path");
    }
    if names.split(|&byte| byte == b'/').any(|name| matches!(name, b"" | b"." | b"..")) {
        return Err("redirect is no path");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_never_leaves_the_layers() {
        for value in ["name", "/path", "/a/b/c", "..a", "/.../x"] {
            assert!(check_redirect(value.as_bytes()).is_ok(), "{value}");
        }
        let long = format!("/{}", "a/".repeat(2048));
        for value in [
            "", "/", "//", "/a//b", "/a/", "a/b", "..", ".", "/..", "/a/../b", "/./a", "a\0", &long,
        ] {
            assert!(check_redirect(value.as_bytes()).is_err(), "{value}");
        }
    }

    #[test]
    fn own_xattrs_are_hidden_and_nested_ones_lose_one_level() {
        let cases = [
            (Marks::Trusted, "trusted.overlay.opaque", None),
            (Marks::Trusted, "trusted.overlay.overlay.opaque", Some("trusted.overlay.opaque")),
            (Marks::Trusted, "user.overlay.opaque", Some("user.overlay.opaque")),
            (Marks::Trusted, "trusted.overlayz", Some("trusted.overlayz")),
            (Marks::User, "user.overlay.opaque", None),
            (Marks::User, "user.overlay.overlay.x", Some("user.overlay.x")),
            (Marks::Complete, "trusted.overlay.opaque", Some("trusted.overlay.opaque")),
        ];
        for (marks, raw, expected) in cases {
            let name = shown(marks, OsStr::new(raw));
            assert_eq!(name.as_deref(), expected.map(OsStr::new), "{raw}");
            if let Some(name) = name {
                assert_eq!(stored(marks, &name), OsStr::new(raw));
            }
        }
    }
}

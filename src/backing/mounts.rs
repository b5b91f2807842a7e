//! The kernel's table of mounts. Reading it asks no file system anything, not even a dead one.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The table (proc_pid_mountinfo(5)).
pub const TABLE: &str = "/proc/self/mountinfo";

/// A line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Device number, as `MAJOR:MINOR`.
    pub device: String,
    /// Where it is mounted, resolved.
    pub point: PathBuf,
    /// Type of the file system, with its subtype: `fuse.stratafs`.
    pub kind: String,
}

impl Mount {
    /// Number of its FUSE connection, by which `/sys/fs/fuse/connections` names it.
    #[must_use]
    pub fn connection(&self) -> Option<&str> {
        self.device.split_once(':').map(|(_, minor)| minor)
    }
}

/// All mounts, in the order in which they were made.
///
/// # Errors
/// Fails where there is no such table to be read.
pub fn all() -> io::Result<Vec<Mount>> {
    Ok(parse(&fs::read(TABLE)?).collect())
}

/// What is mounted on the resolved path `point`; the topmost where mounts lie on each other.
///
/// # Errors
/// Fails where there is no such table to be read.
pub fn topmost(point: &Path) -> io::Result<Option<Mount>> {
    Ok(parse(&fs::read(TABLE)?).rfind(|mount| mount.point == point))
}

/// The lines of the table in their order; lines that make no sense are passed over.
fn parse(table: &[u8]) -> impl DoubleEndedIterator<Item = Mount> {
    table.split(|&byte| byte == b'\n').filter_map(parse_line)
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let device = fields.nth(2)?;
    let point = fields.nth(1)?;
    // Optional fields follow; a lone dash ends them.
    let kind = fields.skip_while(|&field| field != b"-").nth(1)?;
    Some(Mount {
        device: String::from_utf8(device.to_owned()).ok()?, // else not a line of this table
        point: OsString::from_vec(unescape(point)).into(),
        kind: String::from_utf8_lossy(kind).into_owned(),
    })
}

/// Undoes what the kernel does to spaces, tabs, newlines and backslashes: `\040` and so on.
fn unescape(mut field: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(field.len());
    while let Some((&byte, rest)) = field.split_first() {
        let octal = |&[a, b, c]: &[u8; 3]| match (a, b, c) {
            (b'0'..=b'3', b'0'..=b'7', b'0'..=b'7') => {
                Some(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'))
            }
            _ => None,
        };
        match rest.split_first_chunk().map(|(digits, rest)| (octal(digits), rest)) {
            Some((Some(escaped), behind)) if byte == b'\\' => {
                name.push(escaped);
                field = behind;
            }
            _ => {
                name.push(byte);
                field = rest;
            }
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &[u8] = b"\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:45 / /mnt/a\\040b rw - fuse.other x rw
31 30 0:46 / /mnt/a\\040b ro,nosuid shared:7 master:2 - fuse.stratafs /var/lib/docker ro,user_id=0
nonsense
32 22 0:47 / /mnt/back\\134slash rw - tmpfs tmpfs rw
";

    #[test]
    fn the_topmost_mount_is_the_last_line() {
        let found = parse(SAMPLE).rfind(|mount| mount.point == Path::new("/mnt/a b")).unwrap();
        assert_eq!((&*found.device, &*found.kind), ("0:46", "fuse.stratafs"));
        assert_eq!(found.connection(), Some("46"));
        assert_eq!(parse(SAMPLE).count(), 4);
    }

    #[test]
    fn escapes_are_undone_and_nothing_else() {
        for (field, name) in [
            (&b"/a\\134b"[..], &b"/a\\b"[..]),
            (b"/a\\011\\012", b"/a\t\n"),
            (b"/\\", b"/\\"),
            (b"/\\04", b"/\\04"),
            (b"/\\900\\777", b"/\\900\\777"),
            (b"\xff\\303\\244", b"\xff\xc3\xa4"),
        ] {
            assert_eq!(unescape(field), name);
        }
    }
}

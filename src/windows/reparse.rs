//! Symbolic links and mount points, as a backup stream holds them (`REPARSE_DATA_BUFFER`, MS-FSCC
//! 2.1.2).

use super::{Malformed, from_utf16, to_utf16, u16_at, u32_at};

/// Tag of a mount point, also known as a junction.
const MOUNT_POINT: u32 = 0xa000_0003;

/// Tag of a symbolic link.
const SYMLINK: u32 = 0xa000_000c;

/// Length of what every reparse point begins with, in bytes: tag, length, reserved.
const HEADER: usize = 8;

/// Length of what says where the names are, in bytes.
const NAMES: usize = 8;

/// Length of the flags, which only a symbolic link has, in bytes.
const FLAGS: usize = 4;

/// `SYMLINK_FLAG_RELATIVE`.
const RELATIVE: u32 = 1;

/// Before the paths of the object manager.
const NT_PREFIX: &str = "\\??\\";

/// Before the paths of other computers there.
const NT_NETWORK: &str = "\\??\\UNC\\";

/// Why a reparse point can't be told as a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// It is neither a symbolic link nor a mount point; its tag.
    Unsupported(u32),
    /// It is damaged.
    Malformed(Malformed),
}

/// A link to another file or directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Where it leads, as Windows programs write it: with backslashes.
    pub target: String,
    /// Whether it is a mount point and no symbolic link.
    pub is_mount_point: bool,
}

/// Parses the data of a reparse point.
///
/// # Errors
/// Fails where it is of another kind, or damaged.
pub fn parse(bytes: &[u8]) -> Result<Link, Problem> {
    let short = || Problem::Malformed(Malformed::new("a reparse point that is cut short"));
    let tag = u32_at(bytes, 0).ok_or_else(short)?;
    let is_mount_point = match tag {
        MOUNT_POINT => true,
        SYMLINK => false,
        _ => return Err(Problem::Unsupported(tag)),
    };
    let length = usize::from(u16_at(bytes, 4).ok_or_else(short)?);
    let body = bytes.get(HEADER..HEADER + length).ok_or_else(short)?;
    let start = NAMES + if is_mount_point { 0 } else { FLAGS };
    let from = start + usize::from(u16_at(body, 0).ok_or_else(short)?);
    let count = usize::from(u16_at(body, 2).ok_or_else(short)?);
    let name = body.get(from..from + count).ok_or_else(short)?;
    let name = from_utf16(name).filter(|name| !name.is_empty() && !name.contains('\0'));
    let name =
        name.ok_or(Problem::Malformed(Malformed::new("a reparse point without a target")))?;
    Ok(Link { target: to_win32(&name), is_mount_point })
}

/// The data of the reparse point that is this link.
///
/// # Errors
/// Fails where the target is empty, holds a NUL, or is too long.
pub fn encode(link: &Link) -> Result<Vec<u8>, Malformed> {
    if link.target.is_empty() || link.target.contains('\0') {
        return Err(Malformed::new("a link that leads nowhere"));
    }
    let substitute = to_nt(&link.target);
    let is_relative = substitute.is_none();
    let substitute = to_utf16(substitute.as_deref().unwrap_or(&link.target));
    let print = to_utf16(&link.target);
    let flags = if link.is_mount_point { 0 } else { FLAGS };
    let too_long = |_| Malformed::new("a link whose target is too long");
    let length = NAMES + flags + substitute.len() + 2 + print.len() + 2;
    let length = u16::try_from(length).map_err(too_long)?; // so all else fits as well
    let tag = if link.is_mount_point { MOUNT_POINT } else { SYMLINK };
    let mut out = tag.to_le_bytes().to_vec();
    let places = [0, substitute.len(), substitute.len() + 2, print.len()];
    for number in [length, 0].into_iter().chain(places.map(|place| place as u16)) {
        out.extend_from_slice(&number.to_le_bytes());
    }
    if !link.is_mount_point {
        out.extend_from_slice(&(u32::from(is_relative) * RELATIVE).to_le_bytes());
    }
    for name in [substitute, print] {
        out.extend_from_slice(&name);
        out.extend_from_slice(&[0, 0]); // counted, and ended by a NUL all the same
    }
    Ok(out)
}

/// A path of the object manager as Windows programs write it.
fn to_win32(path: &str) -> String {
    if let Some(rest) = path.strip_prefix(NT_NETWORK) {
        return format!("\\\\{rest}");
    }
    match path.strip_prefix(NT_PREFIX) {
        Some(rest) if has_drive(rest) => rest.to_owned(),
        Some(rest) => format!("\\\\?\\{rest}"),
        None => path.to_owned(),
    }
}

/// An absolute path as the object manager writes it; `None` for a relative one.
fn to_nt(path: &str) -> Option<String> {
    if let Some(rest) = path.strip_prefix("\\\\?\\") {
        return Some(format!("{NT_PREFIX}{rest}"));
    }
    if let Some(rest) = path.strip_prefix("\\\\") {
        return Some(format!("{NT_NETWORK}{rest}"));
    }
    has_drive(path).then(|| format!("{NT_PREFIX}{path}"))
}

/// True for a path that begins with a drive.
fn has_drive(path: &str) -> bool {
    matches!(path.as_bytes(), [letter, b':', ..] if letter.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(target: &str, is_mount_point: bool) -> Link {
        Link { target: target.into(), is_mount_point }
    }

    #[test]
    fn a_link_is_encoded_and_parsed() {
        for (target, substitute) in [
            ("..\\b", "..\\b"),
            ("\\Windows", "\\Windows"),
            ("C:\\x", "\\??\\C:\\x"),
            ("\\\\host\\share", "\\??\\UNC\\host\\share"),
            ("\\\\?\\Volume{1}\\x", "\\??\\Volume{1}\\x"),
            ("\u{1f600}", "\u{1f600}"),
        ] {
            for is_mount_point in [false, true] {
                let link = link(target, is_mount_point);
                let bytes = encode(&link).unwrap();
                assert_eq!(parse(&bytes), Ok(link));
                let wide = to_utf16(substitute);
                assert!(bytes.windows(wide.len()).any(|part| part == wide), "{target}");
                let start = if is_mount_point { 16 } else { 20 };
                assert_eq!(&bytes[start..start + wide.len()], wide, "{target}");
                if !is_mount_point {
                    let is_relative = target == substitute;
                    assert_eq!(bytes[16], u8::from(is_relative), "{target}");
                }
            }
        }
    }

    #[test]
    fn a_symbolic_link_is_as_ms_fscc_has_it() {
        let bytes = encode(&link("a", false)).unwrap();
        let names = b"a\0\0\0a\0\0\0";
        let head = b"\x0c\0\0\xa0\x14\0\0\0\0\0\x02\0\x04\0\x02\0\x01\0\0\0";
        assert_eq!(bytes, [&head[..], names].concat());
    }

    #[test]
    fn what_is_no_link_is_refused() {
        let good = encode(&link("target", true)).unwrap();
        for length in 0..good.len() {
            assert!(parse(&good[..length]).is_err(), "{length}");
        }
        let mut other = good.clone();
        other[0] = 0x17; // IO_REPARSE_TAG_WOF, but for its upper half
        assert_eq!(parse(&other), Err(Problem::Unsupported(0xa000_0017)));
        for (at, value) in [(8, 0xff), (10, 0xff), (10, 1), (10, 0)] {
            let mut bytes = good.clone();
            bytes[at] = value;
            assert!(parse(&bytes).is_err(), "{at} {value}");
        }
        assert!(encode(&link("", false)).is_err());
        assert!(encode(&link("a\0b", false)).is_err());
        assert!(encode(&link(&"x".repeat(20_000), false)).is_err());
    }
}

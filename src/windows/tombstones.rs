//! `tombstones.txt` of an exported layer: what the layer deletes.

use std::collections::HashMap;

use super::{Malformed, check_name};

/// The name of the file.
pub const NAME: &str = "tombstones.txt";

/// Largest file that is read, in bytes.
pub const SIZE_MAX: u64 = 64 << 20;

/// The first line: a byte order mark, and the version.
const FIRST_LINE: &[u8] = b"\xef\xbb\xbfVersion 1.0";

/// Names that are deleted, by the directory that held them: `Files` or a path beneath it, with
/// slashes. In each, in the order of the file.
pub type Tombstones = HashMap<Vec<u8>, Vec<Vec<u8>>>;

/// Parses the whole file.
///
/// # Errors
/// Fails where the first line is another, or a line is no path.
pub fn parse(bytes: &[u8]) -> Result<Tombstones, Malformed> {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let mut lines = bytes.split(|&byte| byte == b'\n').map(|line| {
        line.strip_suffix(b"\r").unwrap_or(line) // the engine takes either end
    });
    if lines.next() != Some(FIRST_LINE) {
        return Err(Malformed::new("invalid tombstones file"));
    }
    let mut tombstones = Tombstones::new();
    for line in lines {
        let path = line.strip_prefix(b"\\");
        let path = path.ok_or_else(|| Malformed::new("a tombstone that is no path"))?;
        let mut parts: Vec<&[u8]> = vec![b"Files"];
        parts.extend(path.split(|&byte| byte == b'\\'));
        parts.iter().try_for_each(|part| check_name(part))?;
        let name = parts.pop().unwrap_or_default().to_vec();
        tombstones.entry(parts.join(&b'/')).or_default().push(name);
    }
    Ok(tombstones)
}

/// Appends the first line to `out`.
pub fn begin(out: &mut Vec<u8>) {
    out.extend_from_slice(FIRST_LINE);
    out.push(b'\n');
}

/// Appends to `out` that `path`, relative to `Files` and with slashes, is deleted.
pub fn push(out: &mut Vec<u8>, path: &[u8]) {
    out.push(b'\\');
    out.extend(path.iter().map(|&byte| if byte == b'/' { b'\\' } else { byte }));
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tombstones_are_kept_by_directory_in_order() {
        let mut bytes = Vec::new();
        begin(&mut bytes);
        for path in ["b", "Windows/z", "a", "Windows/a"] {
            push(&mut bytes, path.as_bytes());
        }
        let shown = "\u{feff}Version 1.0\n\\b\n\\Windows\\z\n\\a\n\\Windows\\a\n";
        assert_eq!(bytes, shown.as_bytes());
        let expected = Tombstones::from([
            (b"Files".to_vec(), vec![b"b".to_vec(), b"a".to_vec()]),
            (b"Files/Windows".to_vec(), vec![b"z".to_vec(), b"a".to_vec()]),
        ]);
        assert_eq!(parse(&bytes), Ok(expected.clone()));
        let other = shown.replace('\n', "\r\n");
        assert_eq!(parse(other.as_bytes()), Ok(expected));
        assert_eq!(parse("\u{feff}Version 1.0".as_bytes()), Ok(Tombstones::new()));
    }

    #[test]
    fn what_is_no_tombstones_file_is_refused() {
        for text in ["", "Version 1.0\n", "\u{feff}Version 1.1\n", "\u{feff}Version 1.0 \n"] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        for line in ["", "a", "\\", "\\a\\", "\\a\\..\\b", "\\a/b", "\\\\a", "\\a:b", "\\a\n\n\\b"]
        {
            let text = format!("\u{feff}Version 1.0\n{line}\n");
            assert!(parse(text.as_bytes()).is_err(), "{line}");
        }
    }
}

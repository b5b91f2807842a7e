//! tar-split records: gzip of JSON lines, each a run of raw bytes or a file that stood there.
//!
//! Source: vbatts/tar-split, tar/storage/entry.go.

use std::borrow::Cow;
use std::io::{BufRead, BufReader, Read};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::bufread::MultiGzDecoder;
use serde::Deserialize;

/// Longest line that is read, in bytes. tar-split cuts padding into segments of 1 MiB; a PAX
/// header is 1 MiB at most in Go. Base64 makes 4 bytes of 3, and a segment may hold several.
const MAX_LINE: u64 = 8 << 20;

/// Most lines that are read, to end a compression bomb: twice the files of the largest layers.
const MAX_LINES: u64 = 64 << 20;

/// Most bytes of headers, padding and names that are kept of one layer.
const MAX_RAW: u64 = 2 << 30;

/// One line of a record.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry {
    /// Bytes of the tar, as they were: headers, padding, trailer.
    Segment(Vec<u8>),
    /// A file's body, to be taken from the unpacked layer.
    File {
        /// Path as the tar has it, with a leading `./` or trailing `/` if there was one.
        name: Vec<u8>,
        /// Length in bytes.
        size: u64,
        /// CRC-64/GO-ISO of the body; `None` where it is empty.
        crc: Option<u64>,
    },
}

/// Why a record can't be read.
#[derive(Debug)]
pub struct SplitError(pub Cow<'static, str>);

impl SplitError {
    fn because(why: impl Into<Cow<'static, str>>) -> SplitError {
        SplitError(why.into())
    }
}

impl From<std::io::Error> for SplitError {
    fn from(err: std::io::Error) -> SplitError {
        SplitError(format!("tar-split record: {err}").into())
    }
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: u8,
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    name_raw: Option<Cow<'a, str>>,
    #[serde(default)]
    size: Option<u64>,
    #[serde(borrow, default)]
    payload: Option<Cow<'a, str>>,
}

/// Parses one line.
///
/// # Errors
/// Fails where it is no JSON of that shape, or its type, base64 or checksum is wrong.
pub fn parse_line(line: &[u8]) -> Result<Entry, SplitError> {
    let line: Line<'_> = serde_json::from_slice(line)
        .map_err(|err| SplitError(format!("tar-split record: {err}").into()))?;
    match line.kind {
        1 => {
            let size = line.size.unwrap_or(0);
            let sum = decode(line.payload.as_deref().unwrap_or_default())?;
            let crc = match (size, <[u8; 8]>::try_from(&sum[..])) {
                (0, _) => None,
                (_, Ok(sum)) => Some(u64::from_be_bytes(sum)),
                (_, Err(_)) => {
                    return Err(SplitError::because("tar-split checksum is not 8 bytes"));
                }
            };
            let name = match (line.name_raw, line.name) {
                (Some(raw), _) if !raw.is_empty() => decode(&raw)?,
                (_, Some(name)) => name.into_owned().into_bytes(),
                (_, None) => return Err(SplitError::because("tar-split file without a name")),
            };
            if name.contains(&0) {
                return Err(SplitError::because("tar-split name with a NUL"));
            }
            Ok(Entry::File { name, size, crc })
        }
        2 => Ok(Entry::Segment(decode(line.payload.as_deref().unwrap_or_default())?)),
        _ => Err(SplitError::because("tar-split line of unknown type")),
    }
}

fn decode(text: &str) -> Result<Vec<u8>, SplitError> {
    STANDARD.decode(text).map_err(|_| SplitError::because("tar-split payload is not base64"))
}

/// Reads a whole compressed record, and hands each entry to `visit`, front to back.
///
/// # Errors
/// Fails where the stream is cut or damaged (gzip has a checksum of its own), a line is wrong, or
/// it goes past the bounds of what a layer can be; and where `visit` does.
pub fn read<E: From<SplitError>>(
    gzip: impl Read,
    mut visit: impl FnMut(Entry) -> Result<(), E>,
) -> Result<(), E> {
    let mut lines = BufReader::with_capacity(64 << 10, MultiGzDecoder::new(BufReader::new(gzip)));
    let mut line = Vec::new();
    let mut raw = 0;
    for _ in 0..MAX_LINES {
        line.clear();
        let read = lines.by_ref().take(MAX_LINE).read_until(b'\n', &mut line);
        if read.map_err(SplitError::from)? == 0 {
            return Ok(());
        }
        if line.len() as u64 == MAX_LINE {
            return Err(SplitError::because("tar-split line is too long").into());
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let entry = parse_line(&line)?;
        raw += match &entry {
            Entry::Segment(bytes) => bytes.len() as u64,
            Entry::File { name, .. } => name.len() as u64,
        };
        if raw > MAX_RAW {
            return Err(SplitError::because("tar-split record is too large").into());
        }
        visit(entry)?;
    }
    Err(SplitError::because("tar-split record has too many lines").into())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn entries(bytes: &[u8]) -> Result<Vec<Entry>, SplitError> {
        let mut all = Vec::new();
        read::<SplitError>(bytes, |entry| {
            all.push(entry);
            Ok(())
        })?;
        Ok(all)
    }

    const RECORD: &[u8] = br#"{"type":2,"payload":"AAEC","position":0}
{"type":1,"name":"bin/su","size":700,"payload":"o2xeH+32uEM=","position":1}
{"type":1,"name_raw":"/w==","payload":null,"position":2}
"#;

    #[test]
    fn a_record_reads_as_its_lines_say() {
        let expected = [
            Entry::Segment(vec![0, 1, 2]),
            Entry::File { name: b"bin/su".to_vec(), size: 700, crc: Some(0xa36c_5e1f_edf6_b843) },
            Entry::File { name: vec![0xff], size: 0, crc: None },
        ];
        assert_eq!(entries(&gzip(RECORD)).unwrap(), expected);
    }

    #[test]
    fn a_flipped_byte_of_the_stream_never_changes_an_entry() {
        let good = gzip(RECORD);
        for at in 10..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x20;
            // A few bits of deflate mean nothing: those that fill up its last byte.
            if let Ok(all) = entries(&bad) {
                assert_eq!(all, entries(&good).unwrap(), "byte {at}");
            }
            assert!(entries(&good[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn wrong_lines_are_refused() {
        for line in [
            "{}",
            "[]",
            r#"{"type":3,"payload":""}"#,
            r#"{"type":1,"name":"x","size":1,"payload":"AA=="}"#,
            r#"{"type":1,"name":"x","size":-1,"payload":null}"#,
            r#"{"type":1,"name":"x","size":1,"payload":null}"#,
            r#"{"type":1,"size":0,"payload":null}"#,
            r#"{"type":1,"name":"a\u0000b","payload":null}"#,
            r#"{"type":2,"payload":"%%"}"#,
            r#"{"type":2,"payload":"AAEC""#,
        ] {
            assert!(parse_line(line.as_bytes()).is_err(), "{line}");
        }
    }

    #[test]
    fn a_bomb_ends_at_the_longest_line() {
        let bomb = gzip(&vec![b'a'; 9 << 20]);
        assert!(bomb.len() < 1 << 20);
        assert!(entries(&bomb).is_err());
    }
}

use std::io::Write;
use std::sync::OnceLock;

use proptest::prelude::*;

use super::*;
use crate::backing::Held;

/// Bytes that compress, but not to nothing.
fn text(length: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut word = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        format!("{:x} ", (state >> 20) % 977)
    };
    let mut bytes = Vec::new();
    while bytes.len() < length {
        bytes.extend(word().as_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

fn source(bytes: &[u8]) -> Arc<dyn Bytes> {
    Arc::new(Held::new("blob", bytes))
}

fn all(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut stream = Stream::new(&source(bytes))?;
    read(&mut stream)
}

fn read(stream: &mut Stream) -> Result<Vec<u8>> {
    let (mut out, mut part) = (Vec::new(), vec![0; 300_000]);
    loop {
        let read = stream.read(&mut part)?;
        if read == 0 {
            return Ok(out);
        }
        out.extend_from_slice(&part[..read]);
    }
}

/// One input in every compression, and with several members or frames.
fn encodings(bytes: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let (first, second) = bytes.split_at(bytes.len() / 3);
    let skippable = [&[0x52, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"xyz"].concat();
    let mut xz = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::default()).unwrap();
    xz.write_all(bytes).unwrap();
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(bytes).unwrap();
    vec![
        ("none", bytes.to_vec()),
        ("gzip", gzip(bytes)),
        ("gzip members", [gzip(first), gzip(b""), gzip(second)].concat()),
        ("gzip with junk", [&gzip(bytes)[..], &[0; 700]].concat()),
        ("zstd", zstd(bytes)),
        ("zstd frames", [zstd(first), skippable.clone(), zstd(b""), zstd(second)].concat()),
        ("zstd skippable first", [skippable, zstd(bytes)].concat()),
        ("zstd with junk", [&zstd(bytes)[..], &[0; 700]].concat()),
        ("xz", xz.finish().unwrap()),
        ("bzip2", bzip2.finish().unwrap()),
    ]
}

#[test]
fn every_compression_gives_the_bytes() {
    for length in [1, 100, 3_000_000] {
        let bytes = text(length);
        for (name, encoded) in encodings(&bytes) {
            assert!(all(&encoded).unwrap() == bytes, "{name} {length}");
        }
    }
    assert_eq!(all(&gzip(b"")).unwrap(), b"");
    assert_eq!(all(b"").unwrap(), b"");
}

#[test]
fn reading_starts_at_every_point() {
    let bytes = text(3_000_000);
    for (name, encoded) in encodings(&bytes) {
        let source = source(&encoded);
        let mut points = Vec::new();
        // In the room that these leave, a block of deflate is given out in several parts.
        for room in [70_001, 300_000] {
            let (mut stream, mut part) = (Stream::new(&source).unwrap(), vec![0; room]);
            while stream.read(&mut part).unwrap() > 0 {
                points.extend(stream.point());
            }
            assert_eq!(stream.offset(), bytes.len() as u64, "{name}");
            assert_eq!(stream.read(&mut part).unwrap(), 0, "{name}: it has ended");
        }
        for point in &points {
            let rest = read(&mut Stream::at(&source, point).unwrap()).unwrap();
            assert!(rest == bytes[point.offset as usize..], "{name} {}", point.offset);
        }
        let expected = match name {
            "gzip" | "gzip members" | "none" => points.len() > 10,
            "zstd frames" => points.len() >= 4,
            _ => true,
        };
        assert!(expected, "{name}: {} points", points.len());
    }
}

#[test]
fn the_room_that_there_is_makes_no_difference() {
    let bytes = text(20_000);
    for (name, encoded) in encodings(&bytes) {
        for room in [1, 7, 4099] {
            let (mut stream, mut out) = (Stream::new(&source(&encoded)).unwrap(), Vec::new());
            let mut part = vec![0; room];
            while let read @ 1.. = stream.read(&mut part).unwrap() {
                out.extend_from_slice(&part[..read]);
                assert_eq!(stream.read(&mut []).unwrap(), 0);
            }
            assert!(out == bytes, "{name} {room}");
        }
    }
}

#[test]
fn what_is_cut_short_is_an_error() {
    let bytes = text(300_000);
    for (name, encoded) in encodings(&bytes) {
        if ["none", "gzip with junk", "zstd with junk", "gzip members", "zstd frames"]
            .contains(&name)
        {
            continue;
        }
        for cut in [encoded.len() - 1, encoded.len() - 5, encoded.len() / 2, 20] {
            let result = all(&encoded[..cut]);
            assert!(result.is_err(), "{name} {cut}");
        }
    }
}

#[test]
fn the_checksum_of_a_member_is_held_to() {
    let mut encoded = gzip(&text(1000));
    let at = encoded.len() - 8;
    encoded[at] ^= 1;
    assert!(all(&encoded).is_err());
}

#[test]
fn a_window_of_more_than_128_mib_is_refused() {
    // A frame header with a window of 2 GiB (RFC 8878, 3.1.1.1.2), and a block of zeros.
    let huge = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x02 | 1, 0x40, 0x00, 0];
    let err = all(&huge).unwrap_err();
    assert!(err.to_string().contains("can't be decompressed"), "{err}");
}

proptest! {
    #[test]
    fn no_bytes_break_a_decoder(
        which in 0usize..10, at in any::<usize>(), byte: u8, cut in any::<usize>(),
    ) {
        static ENCODINGS: OnceLock<Vec<(&str, Vec<u8>)>> = OnceLock::new();
        let mut encoded = ENCODINGS.get_or_init(|| encodings(&text(5000)))[which].1.clone();
        let length = encoded.len();
        encoded[at % length] ^= byte;
        encoded.truncate(length - cut % 100);
        // An answer or an error: neither a panic nor an endless loop.
        let _ = all(&encoded);
    }
}

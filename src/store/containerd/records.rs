//! What containerd puts into its databases, as values (containerd metadata/buckets.go,
//! metadata/boltutil, snapshots/storage/bolt.go). Parsers take buckets and never touch the disk.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::backing::Time;
use crate::bolt::{Bucket, Value};
use crate::digest::{Digest, ImageId};
use crate::store::{Descriptor, IdMap, IdPair, IdRange, Pod};
use crate::time::Timestamp;

/// Longest name of an image, in bytes: with room for a digest behind a name of 255.
const NAME_MAX: usize = 512;

/// Seconds from the start of the year 1, where Go counts from, to 1970.
const YEAR_1970: i64 = 62_135_596_800;

/// An image: a name, and what it points at.
#[derive(Debug)]
pub(super) struct ImageRecord {
    /// The name as it is stored.
    pub(super) name: String,
    /// What it points at, with the record's own annotations.
    pub(super) target: Descriptor,
    /// The image that it was built or committed from.
    pub(super) parent: Option<ImageId>,
    /// When it last changed.
    pub(super) updated: Option<Timestamp>,
}

impl ImageRecord {
    /// Parses the bucket of the image `name`.
    pub(super) fn parse(name: &[u8], bucket: Bucket<'_>) -> Result<ImageRecord, String> {
        let name = std::str::from_utf8(name).ok().filter(|name| name.len() <= NAME_MAX);
        let name = name.ok_or("an image's name is no text, or too long")?.to_owned();
        let target =
            bucket.bucket(b"target").ok_or_else(|| format!("image {name:?}: no target"))?;
        let digest = text(target, b"digest").and_then(|text| Digest::parse(text).ok());
        let digest = digest.ok_or_else(|| format!("image {name:?}: no digest"))?;
        let size = target.get(b"size").and_then(varint).and_then(|size| size.try_into().ok());
        let size = size.ok_or_else(|| format!("image {name:?}: no size"))?;
        let media_type = text(target, b"mediatype").unwrap_or_default().to_owned();
        let annotations = texts(bucket.bucket(b"annotations"));
        let labels = bucket.bucket(b"labels");
        let parent = labels.and_then(|labels| text(labels, b"org.mobyproject.image.parent"));
        Ok(ImageRecord {
            name,
            target: Descriptor { media_type, digest, size, annotations },
            parent: parent.and_then(|text| ImageId::parse(text).ok()),
            updated: bucket.get(b"updatedat").and_then(time),
        })
    }
}

/// A container of containerd itself.
#[derive(Debug)]
pub(super) struct ContainerRecord {
    /// The name of the image that it was made from; may be empty.
    pub(super) image: String,
    /// The snapshotter that its files lie in, and their key there.
    pub(super) snapshotter: String,
    pub(super) snapshot: String,
    /// When it was made.
    pub(super) created: Option<Timestamp>,
    /// The name that nerdctl gave it.
    pub(super) nerdctl_name: Option<String>,
    /// Its place in Kubernetes.
    pub(super) pod: Option<Pod>,
    /// How it is run: an OCI runtime spec, JSON.
    pub(super) spec: Vec<u8>,
}

/// What is used of a runtime spec.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Spec {
    linux: Linux,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Linux {
    uid_mappings: Vec<SpecRange>,
    gid_mappings: Vec<SpecRange>,
}

#[derive(Debug, Deserialize)]
struct SpecRange {
    #[serde(rename = "containerID")]
    inside: u32,
    #[serde(rename = "hostID")]
    outside: u32,
    #[serde(rename = "size")]
    count: u32,
}

impl ContainerRecord {
    /// Parses the bucket of a container; `None` for one whose files somebody else manages, as
    /// Docker's are.
    pub(super) fn parse(bucket: Bucket<'_>) -> Option<ContainerRecord> {
        let field = |name: &[u8]| text(bucket, name).unwrap_or_default().to_owned();
        let labels = bucket.bucket(b"labels");
        let label = |name: &str| labels.and_then(|it| text(it, name.as_bytes())).map(str::to_owned);
        let record = ContainerRecord {
            image: field(b"image"),
            snapshotter: field(b"snapshotter"),
            snapshot: field(b"snapshotKey"),
            created: bucket.get(b"createdat").and_then(time),
            nerdctl_name: label("nerdctl/name"),
            pod: pod(label),
            spec: bucket.get(b"spec").and_then(any_value).unwrap_or_default().to_vec(),
        };
        (!record.snapshot.is_empty()).then_some(record)
    }
}

impl ContainerRecord {
    /// The container's own IDs, where it runs in a user namespace.
    pub(super) fn ids(&self) -> Option<IdPair<IdMap>> {
        let Linux { uid_mappings, gid_mappings } =
            serde_json::from_slice::<Spec>(&self.spec).ok()?.linux;
        let map = |ranges: Vec<SpecRange>| {
            let range = |SpecRange { inside, outside, count }| IdRange { inside, outside, count };
            IdMap::new(ranges.into_iter().map(range).collect())
        };
        Some(IdPair { user: map(uid_mappings)?, group: map(gid_mappings)? })
    }
}

/// The IDs of the container that a snapshot is for, as its labels tell them.
pub(super) fn snapshot_ids(labels: Bucket<'_>) -> Option<IdPair<IdMap>> {
    let map = |label: &[u8]| {
        let ranges = text(labels, label)?.split(',').map(label_range).collect::<Option<_>>()?;
        IdMap::new(ranges)
    };
    Some(IdPair {
        user: map(b"containerd.io/snapshot/uidmapping")?,
        group: map(b"containerd.io/snapshot/gidmapping")?,
    })
}

/// `INSIDE:OUTSIDE:COUNT`.
fn label_range(text: &str) -> Option<IdRange> {
    let mut numbers = text.split(':').map(str::parse);
    let mut next = || numbers.next()?.ok();
    let range = IdRange { inside: next()?, outside: next()?, count: next()? };
    numbers.next().is_none().then_some(range)
}

fn pod(label: impl Fn(&str) -> Option<String>) -> Option<Pod> {
    Some(Pod {
        namespace: label("io.kubernetes.pod.namespace")?,
        name: label("io.kubernetes.pod.name")?,
        container: label("io.kubernetes.container.name")?,
    })
}

/// A text in a bucket.
pub(super) fn text<'a>(bucket: Bucket<'a>, key: &[u8]) -> Option<&'a str> {
    std::str::from_utf8(bucket.get(key)?).ok()
}

/// All texts in a bucket of labels or annotations.
pub(super) fn texts(bucket: Option<Bucket<'_>>) -> BTreeMap<String, String> {
    let entries = bucket.into_iter().flat_map(|bucket| bucket.entries());
    let texts = entries.filter_map(|(key, value)| match value {
        Value::Bytes(value) => {
            Some((str::from_utf8(key).ok()?.to_owned(), str::from_utf8(value).ok()?.to_owned()))
        }
        Value::Bucket(_) => None,
    });
    texts.collect()
}

/// A number as Go's `binary.PutUvarint` writes it, and nothing behind it.
pub(super) fn uvarint(bytes: &[u8]) -> Option<u64> {
    let (number, rest) = leading_uvarint(bytes)?;
    rest.is_empty().then_some(number)
}

/// The same with a sign, as `binary.PutVarint` writes it.
pub(super) fn varint(bytes: &[u8]) -> Option<i64> {
    let folded = uvarint(bytes)?;
    Some((folded >> 1).cast_signed() ^ -(folded & 1).cast_signed())
}

fn leading_uvarint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0u64;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        let bits = u64::from(byte & 0x7f);
        if index == 9 && bits > 1 {
            return None;
        }
        number |= bits << (7 * index);
        if byte & 0x80 == 0 {
            return Some((number, bytes.get(index + 1..)?));
        }
    }
    None
}

/// A time as Go's `Time.MarshalBinary` writes it: version 1, seconds since the year 1, nanoseconds,
/// minutes east of UTC, all big endian.
pub(super) fn time(bytes: &[u8]) -> Option<Timestamp> {
    let bytes: &[u8; 15] = bytes.try_into().ok()?;
    let (secs, rest) = bytes.get(1..)?.split_first_chunk()?;
    let (nanos, _) = rest.split_first_chunk()?;
    let secs = i64::from_be_bytes(*secs).checked_sub(YEAR_1970)?;
    let nanos = u32::from_be_bytes(*nanos);
    let is_time = bytes[0] == 1 && nanos < 1_000_000_000;
    is_time.then(|| Timestamp::from_instant(Time { secs, nanos }))
}

/// The value of a protobuf `Any`: its field 2.
fn any_value(mut message: &[u8]) -> Option<&[u8]> {
    let mut value = None;
    while !message.is_empty() {
        let (key, rest) = leading_uvarint(message)?;
        let (length, rest) = leading_uvarint(rest)?;
        // Both fields are strings of bytes (wire type 2).
        let (field, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        match key {
            0x0a => {}
            0x12 => value = Some(field),
            _ => return None,
        }
        message = rest;
    }
    value
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_read_as_go_writes_them() {
        for (bytes, number) in [
            (&[0xf4, 0x20][..], Some(2106)),
            (&[0x00], Some(0)),
            (&[0x01], Some(-1)),
            (&[0x08], Some(4)),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], Some(i64::MIN)),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], None),
            (&[0x80], None),
            (&[0x00, 0x00], None),
            (&[], None),
        ] {
            assert_eq!(varint(bytes), number, "{bytes:x?}");
        }
    }

    #[test]
    fn ids_are_ranges_or_nothing() {
        let range = |inside, outside, count| IdRange { inside, outside, count };
        assert_eq!(label_range("0:100000:65536"), Some(range(0, 100_000, 65536)));
        for text in ["", "0", "0:1", "0:1:2:3", "-1:0:1", "0:4294967296:1", "a:b:c"] {
            assert_eq!(label_range(text), None, "{text}");
        }
    }

    #[test]
    fn a_time_reads_as_go_writes_it() {
        let bytes = b"\x01\x00\x00\x00\x0e\xe2\x94\x02w!#\xf1\xeb\xff\xff";
        assert_eq!(time(bytes).unwrap().as_str(), "2026-11-21T21:21:59.556003819Z");
        assert_eq!(time(&bytes[..14]), None);
        assert!(time(b"\x01\0\0\0\0\0\0\0\0\0\0\0\0\xff\xff").unwrap().is_zero());
    }

    #[test]
    fn the_value_of_an_any_is_its_second_field() {
        assert_eq!(any_value(b"\x0a\x03url\x12\x02{}"), Some(&b"{}"[..]));
        for message in [&b""[..], b"\x0a\x03url", b"\x12\x03{}", b"\x18\x01", b"\x12"] {
            assert_eq!(any_value(message), None, "{message:x?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_parser_panic(bytes: Vec<u8>) {
            let _ = (uvarint(&bytes), varint(&bytes), time(&bytes));
            if let Some(value) = any_value(&bytes) {
                prop_assert!(value.len() < bytes.len());
            }
        }
    }
}

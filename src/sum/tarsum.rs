//! Sums of tars that do not hang on the order of their entries: Docker had them for layers up to
//! 1.9, and its classic builder has them for build contexts (moby `pkg/tarsum`).

use std::collections::HashMap;

use sha2::{Digest as _, Sha256};

use super::entries::{Entry, Reader};
use super::{Cancel, update};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::recipe::Recipe;
use crate::tar::name::rooted;

/// Most entries of one archive: what each costs in memory is bounded, so is all of it.
const ENTRIES_MAX: usize = 1 << 23;

/// Which attributes count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// Times count, xattrs do not: Docker up to 1.7.
    V0,
    /// Xattrs count, times do not: Docker 1.8 and later.
    V1,
    /// What was to be the next version: as [`Version::V1`] but for its name.
    Dev,
}

impl Version {
    /// What a sum starts with.
    fn label(self) -> &'static str {
        match self {
            Version::V0 => "tarsum",
            Version::V1 => "tarsum.v1",
            Version::Dev => "tarsum.dev",
        }
    }
}

/// The sum of a whole tar: `tarsum.v1+sha256:HEX`.
///
/// # Errors
/// Fails where it is no tar, is damaged or can't be read, and with EINTR where nobody waits.
pub fn tarsum(tar: &Recipe, version: Version, cancel: &Cancel) -> Result<String> {
    let mut sums = Vec::new();
    visit(tar, |entry| {
        let path = Digest::of(&clean_name(&entry.name));
        sums.push((path, entry_sum(tar, &entry, version, cancel)?));
        Ok(())
    })?;
    let mut hash = Sha256::new();
    for sum in sorted(&sums) {
        hash.update(sum.hex());
    }
    Ok(format!("{}+{}", version.label(), Digest::from_hash(hash)))
}

/// Calls `each` with every entry of `tar`, in order.
///
/// # Errors
/// What reading the tar and `each` fail with, and not supported where there are too many entries.
pub(super) fn visit(tar: &Recipe, mut each: impl FnMut(Entry) -> Result<()>) -> Result<()> {
    let mut reader = Reader::new(tar);
    let mut count = 0;
    while let Some(entry) = reader.next()? {
        count += 1;
        if count > ENTRIES_MAX {
            return Err(Error::unsupported("tar", "more than eight million entries"));
        }
        each(entry)?;
    }
    Ok(())
}

/// The sum of one entry: its header, then its body.
pub(super) fn entry_sum(
    tar: &Recipe,
    entry: &Entry,
    version: Version,
    cancel: &Cancel,
) -> Result<Digest> {
    let mut hash = Sha256::new_with_prefix(header(entry, version));
    update(&mut hash, entry.body.clone(), |at, buf| tar.read_at(at, buf), cancel)?;
    Ok(Digest::from_hash(hash))
}

/// What is hashed of a header. Names of users and groups count as empty: the reference leaves them
/// out since Go 1.10, so as to stay what it was.
pub(super) fn header(entry: &Entry, version: Version) -> Vec<u8> {
    let mut text = [b"name", &entry.name[..]].concat();
    let mut add = |key: &[u8], value: &[u8]| {
        text.extend_from_slice(key);
        text.extend_from_slice(value);
    };
    let decimal = |number: i64| number.to_string().into_bytes();
    add(b"mode", &decimal(entry.mode));
    add(b"uid", &decimal(entry.uid));
    add(b"gid", &decimal(entry.gid));
    add(b"size", &decimal(entry.size));
    if version == Version::V0 {
        add(b"mtime", &decimal(entry.mtime));
    }
    add(b"typeflag", &[entry.typeflag]);
    add(b"linkname", &entry.link);
    add(b"uname", b"");
    add(b"gname", b"");
    add(b"devmajor", &decimal(entry.device.0));
    add(b"devminor", &decimal(entry.device.1));
    if version != Version::V0 {
        entry.xattrs.iter().for_each(|(key, value)| add(key, value));
    }
    text
}

/// The sums of entries in the order in which they are hashed: sorted, but those of one path (the
/// first of each pair) in the order of the archive. The reference compares some pairs by sum and
/// some by place, which is no order where the two disagree and other sums lie between.
fn sorted(sums: &[(Digest, Digest)]) -> Vec<Digest> {
    let mut order: Vec<usize> = (0..sums.len()).collect();
    order.sort_by_key(|&index| (sums[index].1, index));
    let mut slots: HashMap<Digest, Vec<usize>> = HashMap::with_capacity(sums.len());
    for (slot, &index) in order.iter().enumerate() {
        slots.entry(sums[index].0).or_default().push(slot);
    }
    for slots in slots.values().filter(|slots| slots.len() > 1) {
        let mut same: Vec<usize> = slots.iter().map(|&slot| order[slot]).collect();
        same.sort_unstable();
        slots.iter().zip(same).for_each(|(&slot, index)| order[slot] = index);
    }
    order.into_iter().map(|index| sums[index].1).collect()
}

/// A name as the reference keeps it: no leading `/` or `./`, no trailing slash, `..` resolved; `.`
/// for the root.
pub(super) fn clean_name(name: &[u8]) -> Vec<u8> {
    let path = rooted(name);
    if path.is_empty() { b".".to_vec() } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::header::{Header, Type, encode};

    /// A tar of these headers, with bodies of the letter `b`.
    fn tar_of(headers: &[Header]) -> Recipe {
        let mut bytes = Vec::new();
        for header in headers {
            encode(header, &mut bytes).unwrap();
            let end = bytes.len() + header.size as usize;
            bytes.resize(end, b'b');
            bytes.resize(end.next_multiple_of(512), 0);
        }
        bytes.resize(bytes.len() + 1024, 0);
        Recipe::inline(bytes)
    }

    fn file(name: &str, size: u64) -> Header {
        Header { mode: 0o644, size, mtime: 9, ..Header::new(name.into(), Type::Regular) }
    }

    fn sum(headers: &[Header], version: Version) -> String {
        tarsum(&tar_of(headers), version, &Cancel::default()).unwrap()
    }

    #[test]
    fn a_sum_is_that_of_the_sorted_sums_of_entries() {
        let text = |mtime: &str, xattr: &str| {
            let hash = Digest::of(
                format!(
                    "nameamode420uid0gid0size3{mtime}typeflag0linknameunamegnamedevmajor0devminor0\
                     {xattr}bbb"
                )
                .as_bytes(),
            );
            Digest::of(hash.hex().as_bytes())
        };
        let mut header = file("a", 3);
        header.xattrs = vec![(b"user.x".to_vec(), b"1".to_vec())];
        header.user = b"somebody".to_vec();
        let headers = [header];
        assert_eq!(sum(&headers, Version::V0), format!("tarsum+{}", text("mtime9", "")));
        assert_eq!(sum(&headers, Version::V1), format!("tarsum.v1+{}", text("", "user.x1")));
        assert_eq!(sum(&headers, Version::Dev), format!("tarsum.dev+{}", text("", "user.x1")));
        assert_eq!(sum(&[], Version::V1), format!("tarsum.v1+{}", Digest::of(b"")));
    }

    #[test]
    fn the_order_of_entries_counts_only_for_one_path() {
        let (one, two) = ([file("a", 1), file("b", 2)], [file("b", 2), file("a", 1)]);
        assert_eq!(sum(&one, Version::V1), sum(&two, Version::V1));
        let (one, two) = ([file("a", 1), file("./a", 2)], [file("./a", 2), file("a", 1)]);
        assert_ne!(sum(&one, Version::V1), sum(&two, Version::V1));
    }

    #[test]
    fn names_are_cleaned_for_comparison() {
        for (name, clean) in
            [("./a/b/", "a/b"), ("/a", "a"), ("../a/../b", "b"), ("./", "."), ("", ".")]
        {
            assert_eq!(clean_name(name.as_bytes()), clean.as_bytes(), "{name}");
        }
    }

    #[test]
    fn nobody_waits_for_a_cancelled_sum() {
        let cancel = Cancel::default();
        cancel.cancel();
        let err = tarsum(&tar_of(&[file("a", 5)]), Version::V1, &cancel).unwrap_err();
        assert_eq!(err.errno(), rustix::io::Errno::INTR);
    }
}

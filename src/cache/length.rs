//! The length of a file that is made when it is read, as a file of the cache has it.

use crate::digest::Digest;

/// What a file starts with; another layout gets another number.
const MAGIC: &[u8; 16] = b"stratafs length1";

/// Length of a file, in bytes: magic, key, length, digest.
pub(super) const SIZE: usize = 16 + 32 + 8 + 32;

/// Largest length, in bytes: what a file offset can say (`off_t`).
const MAX_LEN: u64 = i64::MAX.cast_unsigned();

/// The bytes of a file that says `len` of `key`.
pub(super) fn encode(key: Digest, len: u64) -> Vec<u8> {
    let body = [&MAGIC[..], &key.bytes()[..], &len.to_le_bytes()].concat();
    let digest = Digest::of(&body);
    [&body, &digest.bytes()[..]].concat()
}

/// The inverse of [`encode`]; `None` for anything else.
pub(super) fn parse(file: &[u8], key: Digest) -> Option<u64> {
    let (body, digest) = file.split_at_checked(SIZE - 32)?;
    if Digest::of(body).bytes()[..] != *digest {
        return None;
    }
    let len = body.strip_prefix(MAGIC)?.strip_prefix(&key.bytes()[..])?;
    Some(u64::from_le_bytes(len.try_into().ok()?)).filter(|len| *len <= MAX_LEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"key";

    #[test]
    fn what_was_written_is_read() {
        for len in [0, 1, 1 << 40, MAX_LEN] {
            let file = encode(Digest::of(KEY), len);
            assert_eq!(file.len(), SIZE);
            assert_eq!(parse(&file, Digest::of(KEY)), Some(len));
            assert_eq!(parse(&file, Digest::of(b"other")), None);
        }
        assert_eq!(parse(&encode(Digest::of(KEY), MAX_LEN + 1), Digest::of(KEY)), None);
    }

    #[test]
    fn a_changed_bit_is_seen_wherever_it_is() {
        let good = encode(Digest::of(KEY), 123_456);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parse(&bad, Digest::of(KEY)), None, "bit {bit}");
        }
        for len in 0..good.len() {
            assert_eq!(parse(&good[..len], Digest::of(KEY)), None, "cut at {len}");
        }
        assert_eq!(parse(&[&good[..], b"x"].concat(), Digest::of(KEY)), None);
    }
}

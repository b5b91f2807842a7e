//! Digests, and the identities that are digests: parsed once, then carried as types.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// The text was no `sha256:` and 64 lower-case hex digits (or not the hex alone).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidDigest;

impl fmt::Display for InvalidDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a sha256 digest")
    }
}

impl std::error::Error for InvalidDigest {}

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }

    /// The digest that a finished hash gives.
    #[must_use]
    pub fn from_hash(hash: Sha256) -> Digest {
        Digest(hash.finalize().into())
    }

    /// Parses `sha256:` followed by 64 lower-case hex digits.
    ///
    /// # Errors
    /// Fails on anything else: other algorithms, upper case, white space.
    pub fn parse(text: &str) -> Result<Digest, InvalidDigest> {
        Digest::from_hex(text.strip_prefix("sha256:").ok_or(InvalidDigest)?)
    }

    /// Parses exactly 64 lower-case hex digits.
    ///
    /// # Errors
    /// Fails on anything else.
    pub fn from_hex(hex: &str) -> Result<Digest, InvalidDigest> {
        let mut bytes = [0; 32];
        if hex.len() != 64 {
            return Err(InvalidDigest);
        }
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Ok(Digest(bytes))
    }

    /// 64 lower-case hex digits.
    #[must_use]
    pub fn hex(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = String::with_capacity(64);
        for byte in self.0 {
            hex.push(DIGITS[usize::from(byte >> 4)] as char);
            hex.push(DIGITS[usize::from(byte & 15)] as char);
        }
        hex
    }

    /// Its 32 bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 8 bytes as a number, to seed a hash with.
    #[must_use]
    pub fn prefix(&self) -> u64 {
        self.halves()[0]
    }

    /// The first 16 bytes as two numbers.
    #[must_use]
    pub fn halves(&self) -> [u64; 2] {
        [0, 8].map(|start| {
            let mut number = [0; 8];
            number.copy_from_slice(&self.0[start..start + 8]);
            u64::from_be_bytes(number)
        })
    }
}

fn nibble(digit: u8) -> Result<u8, InvalidDigest> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(InvalidDigest),
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Digest);

        impl $name {
            /// Parses `sha256:` and 64 lower-case hex digits.
            ///
            /// # Errors
            /// Fails on anything else.
            pub fn parse(text: &str) -> Result<$name, InvalidDigest> {
                Digest::parse(text).map($name)
            }

            /// Parses exactly 64 lower-case hex digits.
            ///
            /// # Errors
            /// Fails on anything else.
            pub fn from_hex(hex: &str) -> Result<$name, InvalidDigest> {
                Digest::from_hex(hex).map($name)
            }

            /// 64 lower-case hex digits.
            #[must_use]
            pub fn hex(&self) -> String {
                self.0.hex()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

identity! {
    /// The digest of a layer's uncompressed tar.
    DiffId
}
identity! {
    /// Identifies a layer together with all layers below it.
    ChainId
}
identity! {
    /// Identifies an image: the digest of its config, in stores that use graph drivers.
    ImageId
}
identity! {
    /// Identifies a container: 64 hex digits that are random, not a digest of anything.
    ContainerId
}

impl ChainId {
    /// The identity of the layer `diff_id` upon `parent`; `None` is the lowest layer.
    /// (OCI image-spec, config.md, "Layer ChainID".)
    #[must_use]
    pub fn of(parent: Option<ChainId>, diff_id: DiffId) -> ChainId {
        match parent {
            None => ChainId(diff_id.0),
            Some(parent) => ChainId(Digest::of(format!("{parent} {diff_id}").as_bytes())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn parse_is_the_inverse_of_display() {
        assert_eq!(Digest::parse(EMPTY).unwrap(), Digest::of(b""));
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
    }

    #[test]
    fn other_spellings_are_refused() {
        let upper = EMPTY.to_uppercase();
        let long = format!("{EMPTY}0");
        for text in ["", "sha256:", &EMPTY[..70], &EMPTY[7..], &upper, &long, "sha512:00"] {
            assert_eq!(Digest::parse(text), Err(InvalidDigest), "{text}");
        }
        assert!(
            Digest::from_hex("../../../../../../../../../../../../../../../../../etc/pass")
                .is_err()
        );
    }

    #[test]
    fn the_lowest_chain_id_is_the_diff_id() {
        let diff = DiffId::parse(EMPTY).unwrap();
        assert_eq!(ChainId::of(None, diff).0, diff.0);
        let second = ChainId::of(Some(ChainId::of(None, diff)), diff);
        assert_eq!(second.0, Digest::of(format!("{EMPTY} {EMPTY}").as_bytes()));
    }
}

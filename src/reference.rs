//! Names of images as people write them, and as engines normalise them.
//!
//! The grammar is that of github.com/distribution/reference, `regexp.go` and `normalize.go`.

use std::fmt;

use crate::digest::{Digest, ImageId};

/// A repository's name, normalised: with its registry, and `library/` where that is implied.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// Empty only where the first component looks like a registry but cannot be one.
    domain: String,
    /// Components separated by `/`; never empty.
    path: String,
}

/// A tag: letters, digits, `_`, `.` and `-`, at most 128 of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

/// A name with a tag, a digest, both or neither.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// The repository.
    pub name: Name,
    /// The tag.
    pub tag: Option<Tag>,
    /// The digest, which counts more than the tag.
    pub digest: Option<Digest>,
}

/// A name with a tag.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tagged {
    /// The repository.
    pub name: Name,
    /// The tag.
    pub tag: Tag,
}

/// What someone may write to mean an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spelling {
    /// 64 hex digits, or a full digest: an image's ID and never a name.
    Id(ImageId),
    /// A reference. Its familiar name may be a short ID as well.
    Reference(Reference),
}

/// Why a text is no reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidReference {
    /// It does not follow the grammar.
    Format,
    /// The repository's path has an upper-case letter.
    Uppercase,
    /// 64 hex digits are an ID.
    Identifier,
    /// The name is longer than 255 bytes.
    TooLong,
    /// The digest is no sha256 digest.
    Digest,
}

impl fmt::Display for InvalidReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            InvalidReference::Format => "invalid reference format",
            InvalidReference::Uppercase => {
                "invalid reference format: repository name must be lowercase"
            }
            InvalidReference::Identifier => {
                "invalid repository name: 64 hexadecimal digits are an ID"
            }
            InvalidReference::TooLong => "repository name must not be more than 255 characters",
            InvalidReference::Digest => "invalid or unsupported digest",
        })
    }
}

impl std::error::Error for InvalidReference {}

/// The registry that is meant where none is named.
const DEFAULT_DOMAIN: &str = "docker.io";

/// What that registry was called before.
const LEGACY_DEFAULT_DOMAIN: &str = "index.docker.io";

/// Where that registry keeps what has no namespace.
const OFFICIAL_PREFIX: &str = "library/";

/// Bytes of a name, registry and path together (`NameTotalLengthMax`).
const MAX_NAME: usize = 255;

/// Characters of a tag.
const MAX_TAG: usize = 128;

impl Spelling {
    /// Parses what may be an ID, a full digest or a reference (`ParseAnyReference`).
    ///
    /// # Errors
    /// Fails where it is none of these.
    pub fn parse(text: &str) -> Result<Spelling, InvalidReference> {
        match ImageId::from_hex(text).or_else(|_| ImageId::parse(text)) {
            Ok(id) => Ok(Spelling::Id(id)),
            Err(_) => Reference::parse(text).map(Spelling::Reference),
        }
    }
}

impl Reference {
    /// Parses a reference, short or full (`ParseNormalizedNamed`).
    ///
    /// # Errors
    /// Fails where it is none.
    pub fn parse(text: &str) -> Result<Reference, InvalidReference> {
        if Digest::from_hex(text).is_ok() {
            return Err(InvalidReference::Identifier);
        }
        let (domain, rest) = split_domain(text);
        let (path, suffix) = rest.split_at(rest.find([':', '@']).unwrap_or(rest.len()));
        let name = Name::new(domain, path)?;
        let (tag, digest) = match suffix.split_once('@') {
            None => (suffix, None),
            Some((tag, digest)) => (tag, Some(digest)),
        };
        let tag = match tag.strip_prefix(':') {
            Some(tag) => Some(Tag::parse(tag)?),
            None => None,
        };
        let digest = digest.map(Digest::parse).transpose();
        Ok(Reference { name, tag, digest: digest.map_err(|_| InvalidReference::Digest)? })
    }

    /// As people write it: `busybox:1.36`.
    #[must_use]
    pub fn familiar(&self) -> String {
        self.with_name(self.name.familiar())
    }

    /// The name and the tag; `None` where there is no tag, or a digest makes it irrelevant.
    #[must_use]
    pub fn tagged(&self) -> Option<Tagged> {
        let tag = self.tag.as_ref().filter(|_| self.digest.is_none())?;
        Some(Tagged { name: self.name.clone(), tag: tag.clone() })
    }

    fn with_name(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(&tag.0);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
        text
    }
}

/// In full: `docker.io/library/busybox:1.36`.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_name(self.name.to_string()))
    }
}

impl Tagged {
    /// As people write it: `busybox:1.36`.
    #[must_use]
    pub fn familiar(&self) -> String {
        format!("{}:{}", self.name.familiar(), self.tag)
    }
}

/// In full: `docker.io/library/busybox:1.36`.
impl fmt::Display for Tagged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.tag)
    }
}

impl Tag {
    /// The tag that is meant where none is named and one is needed.
    #[must_use]
    pub fn latest() -> Tag {
        Tag("latest".to_owned())
    }

    /// Parses a tag alone.
    ///
    /// # Errors
    /// Fails where it has other characters, begins with `.` or `-`, is empty or too long.
    pub fn parse(text: &str) -> Result<Tag, InvalidReference> {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let valid = text.len() <= MAX_TAG
            && text.bytes().next().is_some_and(word)
            && text.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-');
        if valid { Ok(Tag(text.to_owned())) } else { Err(InvalidReference::Format) }
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Name {
    fn new(domain: &str, path: &str) -> Result<Name, InvalidReference> {
        let official = domain == DEFAULT_DOMAIN && !path.contains('/');
        let path = if official { format!("{OFFICIAL_PREFIX}{path}") } else { path.to_owned() };
        if path.chars().any(char::is_uppercase) {
            return Err(InvalidReference::Uppercase);
        }
        let name = if is_domain(domain) {
            Name { domain: domain.to_owned(), path }
        } else {
            // Go's expression makes the domain optional, so it is tried as a component as well.
            Name { domain: String::new(), path: format!("{domain}/{path}") }
        };
        if !name.path.split('/').all(is_component) {
            return Err(InvalidReference::Format);
        }
        if name.to_string().len() > MAX_NAME { Err(InvalidReference::TooLong) } else { Ok(name) }
    }

    /// The registry: `docker.io`, `localhost:5000`.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// What follows the registry: `library/busybox`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// As people write it: `busybox`, `user/app`, `localhost:5000/app`.
    #[must_use]
    pub fn familiar(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.to_string();
        }
        match self.path.strip_prefix(OFFICIAL_PREFIX) {
            Some(rest) if !rest.contains('/') => rest.to_owned(),
            _ => self.path.clone(),
        }
    }
}

/// In full: `docker.io/library/busybox`.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.domain.is_empty() {
            write!(f, "{}/", self.domain)?;
        }
        f.write_str(&self.path)
    }
}

/// With what the full names of all repositories begin that lie below `text`, a registry or the
/// beginning of a path in any spelling: `docker.io/library/` for `library`.
#[must_use]
pub fn directory(text: &str) -> String {
    let path = format!("{text}/");
    let (domain, rest) = split_domain(&path);
    format!("{domain}/{rest}")
}

/// The registry and the rest; the default registry where the first component is none.
fn split_domain(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((LEGACY_DEFAULT_DOMAIN, rest)) => (DEFAULT_DOMAIN, rest),
        Some((first, rest))
            if first == "localhost"
                || first.contains(['.', ':'])
                || first.chars().any(char::is_uppercase) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_DOMAIN, text),
    }
}

/// True for a host name, an IPv4 or a bracketed IPv6 address, with or without a port.
fn is_domain(text: &str) -> bool {
    let host = match text.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => text,
    };
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(ip) => !ip.is_empty() && ip.bytes().all(|b| b.is_ascii_hexdigit() || b == b':'),
        None => host.split('.').all(|label| {
            let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
            let outer = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
            label.bytes().all(inner) && outer(label.bytes().next()) && outer(label.bytes().last())
        }),
    }
}

/// True for a path component: runs of `a-z0-9`, between them one of `.`, `_`, `__`, or dashes.
fn is_component(text: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let outer = |b: Option<u8>| b.is_some_and(alphanumeric);
    outer(text.bytes().next())
        && outer(text.bytes().last())
        && text.split(|letter: char| u8::try_from(letter).is_ok_and(alphanumeric)).all(
            |separator| {
                matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
            },
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn references_are_normalised() {
        let digest = format!("busybox@sha256:{HEX}");
        let both = format!("busybox:1@sha256:{HEX}");
        for (text, full, familiar) in [
            ("busybox", "docker.io/library/busybox", "busybox"),
            ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
            ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
            ("index.docker.io/busybox:1", "docker.io/library/busybox:1", "busybox:1"),
            ("index.docker.io/user/app", "docker.io/user/app", "user/app"),
            (
                "docker.io/library/busybox:latest",
                "docker.io/library/busybox:latest",
                "busybox:latest",
            ),
            ("library/busybox", "docker.io/library/busybox", "busybox"),
            ("library/a/b", "docker.io/library/a/b", "library/a/b"),
            ("user/app:v1", "docker.io/user/app:v1", "user/app:v1"),
            ("localhost/app", "localhost/app", "localhost/app"),
            ("localhost:5000/app:v1", "localhost:5000/app:v1", "localhost:5000/app:v1"),
            ("localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"),
            ("ghcr.io/org/app:v1", "ghcr.io/org/app:v1", "ghcr.io/org/app:v1"),
            ("Upper/app", "Upper/app", "Upper/app"),
            ("[::1]:5000/app", "[::1]:5000/app", "[::1]:5000/app"),
            ("foo_b.ar/app", "foo_b.ar/app", "foo_b.ar/app"),
            ("a.b_c__d---e:T_.-", "docker.io/library/a.b_c__d---e:T_.-", "a.b_c__d---e:T_.-"),
            ("sha256:8fe1", "docker.io/library/sha256:8fe1", "sha256:8fe1"),
            (&digest, &format!("docker.io/library/{digest}"), &digest),
            (&both, &format!("docker.io/library/{both}"), &both),
        ] {
            let reference = Reference::parse(text).expect(text);
            assert_eq!(reference.to_string(), full, "{text}");
            assert_eq!(reference.familiar(), familiar, "{text}");
            assert_eq!(Reference::parse(full), Ok(reference), "{text}");
        }
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        use InvalidReference::{Digest, Format, Identifier, TooLong, Uppercase};
        let (long_name, long_tag) = ("a".repeat(238), format!("a:{}", "t".repeat(129)));
        let (upper_digest, short) = (format!("a@sha256:{}", HEX.to_uppercase()), &HEX[..32]);
        for (text, error) in [
            (HEX, Identifier),
            ("", Format),
            (":", Format),
            ("a:", Format),
            ("/a", Format),
            ("a/", Format),
            ("a//b", Format),
            ("a b", Format),
            ("a:b:c", Format),
            ("a..b", Format),
            ("a___b", Format),
            ("-a", Format),
            ("a-", Format),
            ("a_.b", Format),
            ("a:.b", Format),
            ("a:-b", Format),
            ("é", Format),
            ("a:é", Format),
            ("a\n", Format),
            ("https://github.com/docker/docker", Format),
            ("docker///docker", Format),
            ("-docker.io/a", Format),
            ("a.b:port/c", Format),
            ("[::1/c", Format),
            ("Upper_x/app", Format),
            (".a/b", Format),
            ("Busybox", Uppercase),
            ("docker/Docker", Uppercase),
            ("aa/asdf$$^/AA", Uppercase),
            ("a@sha256:00", Digest),
            (&format!("a@sha512:{short}"), Digest),
            (&upper_digest, Digest),
            ("a@", Digest),
            (&long_name, TooLong),
            (&long_tag, Format),
        ] {
            assert_eq!(Reference::parse(text), Err(error), "{text}");
        }
        assert!(Reference::parse(&long_name[1..]).is_ok());
        assert!(Reference::parse(&long_tag[..130]).is_ok());
    }

    #[test]
    fn an_id_or_a_full_digest_is_no_name() {
        let id = Spelling::Id(ImageId::from_hex(HEX).unwrap());
        assert_eq!(Spelling::parse(HEX), Ok(id.clone()));
        assert_eq!(Spelling::parse(&format!("sha256:{HEX}")), Ok(id));
        for short in ["e3b0c442", "sha256:e3b0c442"] {
            let spelling = Spelling::parse(short).unwrap();
            assert_eq!(spelling, Spelling::Reference(Reference::parse(short).unwrap()));
        }
    }

    #[test]
    fn a_digest_makes_the_tag_irrelevant() {
        let tagged = |text: &str| Reference::parse(text).unwrap().tagged().map(|t| t.familiar());
        assert_eq!(tagged("a:1"), Some("a:1".to_owned()));
        assert_eq!(tagged("a"), None);
        assert_eq!(tagged(&format!("a:1@sha256:{HEX}")), None);
    }

    proptest::proptest! {
        #[test]
        fn the_full_form_means_the_same(text in "[a-zA-Z0-9.:/_@-]{0,40}|.*") {
            if let Ok(reference) = Reference::parse(&text) {
                proptest::prop_assert_eq!(Reference::parse(&reference.to_string()), Ok(reference.clone()));
            }
        }
    }
}

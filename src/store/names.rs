//! What people type for an image or a container, looked up in a catalog.

use std::fmt;

use super::{Catalog, ContainerSummary};
use crate::digest::ImageId;

/// Longest container name, in bytes: it becomes a file name (Linux `NAME_MAX`).
const NAME_MAX: usize = 255;

/// Why a name stands for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoMatch {
    /// Nothing has that name or begins with it.
    Missing,
    /// Several IDs begin with it.
    Ambiguous,
}

impl fmt::Display for NoMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NoMatch::Missing => "not found",
            NoMatch::Ambiguous => "several IDs begin with it",
        })
    }
}

impl std::error::Error for NoMatch {}

impl Catalog {
    /// The container that `name` stands for: its ID, its name with or without a leading slash, or
    /// the beginning of one ID only, tried in this order, which is Docker's.
    ///
    /// # Errors
    /// Fails where there is none, or several IDs begin with `name`.
    pub fn find_container(&self, name: &str) -> Result<&ContainerSummary, NoMatch> {
        let bare = name.strip_prefix('/').unwrap_or(name);
        let by_id = self.containers.iter().find(|container| container.id.hex() == name);
        let by_name = || self.containers.iter().find(|container| container.name == bare);
        match by_id.or_else(by_name) {
            Some(container) => Ok(container),
            None => {
                only(self.containers.iter().map(|container| (container.id.hex(), container)), name)
            }
        }
    }

    /// The image whose ID, or other digest, `text` is or begins: hex digits, with or without
    /// `sha256:` before them. References are another matter: see [`Catalog::references`].
    ///
    /// # Errors
    /// Fails where there is none, or several IDs begin with `text`.
    pub fn find_image(&self, text: &str) -> Result<ImageId, NoMatch> {
        let prefix = text.strip_prefix("sha256:").unwrap_or(text);
        match ImageId::from_hex(prefix) {
            Ok(id) => self.image(id).ok_or(NoMatch::Missing),
            Err(_) => {
                let own = self.images.keys().map(|id| (id.hex(), *id));
                let aliases = self.aliases.iter().map(|(alias, id)| (alias.hex(), *id));
                only(own.chain(aliases), prefix)
            }
        }
    }

    /// The image that has that ID, or that other digest.
    #[must_use]
    pub fn image(&self, id: ImageId) -> Option<ImageId> {
        if self.images.contains_key(&id) { Some(id) } else { self.aliases.get(&id).copied() }
    }
}

/// The engines' rule (moby daemon/names, libpod/define): `[a-zA-Z0-9][a-zA-Z0-9_.-]*`.
pub(super) fn is_container_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    name.len() <= NAME_MAX
        && name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
        && name.bytes().all(plain)
}

/// The only item of which an ID begins with `prefix`, which must not be empty.
fn only<T: PartialEq>(
    items: impl Iterator<Item = (String, T)>,
    prefix: &str,
) -> Result<T, NoMatch> {
    if prefix.is_empty() {
        return Err(NoMatch::Missing);
    }
    let mut matching = items.filter(|(id, _)| id.starts_with(prefix)).map(|(_, item)| item);
    let first = matching.next().ok_or(NoMatch::Missing)?;
    if matching.all(|other| other == first) { Ok(first) } else { Err(NoMatch::Ambiguous) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::ContainerId;

    fn hex(start: &str) -> String {
        format!("{start:0<64}")
    }

    fn catalog() -> Catalog {
        let mut catalog = Catalog::default();
        for start in ["8fe1", "8fe2", "abc0"] {
            catalog.images.insert(ImageId::from_hex(&hex(start)).unwrap(), None);
        }
        for (alias, start) in [("77aa", "8fe1"), ("abc1", "abc0"), ("8fe2", "8fe1")] {
            let [alias, id] = [alias, start].map(|start| ImageId::from_hex(&hex(start)).unwrap());
            catalog.aliases.insert(alias, id);
        }
        for (start, name) in
            [("1234", "web"), ("1239", "5678"), ("5678", "abc"), ("abcd", "a.b-c_d")]
        {
            let id = ContainerId::from_hex(&hex(start)).unwrap();
            catalog.containers.push(ContainerSummary {
                id,
                name: name.to_owned(),
                image: None,
                pod: None,
            });
        }
        catalog
    }

    #[test]
    fn an_image_is_found_by_id_or_the_beginning_of_one() {
        let catalog = catalog();
        let found = |text: &str| catalog.find_image(text).map(|id| id.hex());
        let whole = hex("8fe1");
        for text in [&whole, &format!("sha256:{whole}"), "8fe1", "sha256:8fe1", "8fe10"] {
            assert_eq!(found(text).as_ref(), Ok(&whole), "{text}");
        }
        assert_eq!(found("a"), Ok(hex("abc0")), "and so does its other digest");
        assert_eq!(found("77").as_ref(), Ok(&whole));
        assert_eq!(found(&hex("77aa")).as_ref(), Ok(&whole));
        assert_eq!(found(&hex("8fe2")), Ok(hex("8fe2")), "an ID goes before another digest");
        assert_eq!(found("8fe"), Err(NoMatch::Ambiguous));
        let unknown = hex("78");
        for text in ["", "sha256:", "8FE1", "9", "8fe1:latest", "sha512:8fe1", &unknown] {
            assert_eq!(found(text), Err(NoMatch::Missing), "{text}");
        }
    }

    #[test]
    fn a_container_is_found_by_id_then_name_then_the_beginning_of_an_id() {
        let catalog = catalog();
        let found = |name: &str| catalog.find_container(name).map(|found| found.name.as_str());
        assert_eq!(found(&hex("1234")), Ok("web"));
        assert_eq!(found("web"), Ok("web"));
        assert_eq!(found("/web"), Ok("web"));
        assert_eq!(found("5678"), Ok("5678"), "a name goes before the beginning of an ID");
        assert_eq!(found("56780"), Ok("abc"));
        assert_eq!(found("abc"), Ok("abc"));
        assert_eq!(found("abcd"), Ok("a.b-c_d"));
        assert_eq!(found("123"), Err(NoMatch::Ambiguous));
        for name in ["", "/", "//web", "Web", "we", "/1234", "9"] {
            assert_eq!(found(name), Err(NoMatch::Missing), "{name}");
        }
    }
}

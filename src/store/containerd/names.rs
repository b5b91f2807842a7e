//! Names of images: what the records call them, and how they are shown.

use std::collections::BTreeMap;

use super::records::ImageRecord;
use super::state::State;
use crate::digest::Digest;
use crate::reference::Reference;

/// What Docker calls images that have no name: this, and `@` with the digest.
const DANGLING: &str = "moby-dangling";

/// The records of all images, in the order of their names' bytes.
#[derive(Debug, Default)]
pub(super) struct Images {
    pub(super) records: Vec<ImageRecord>,
    /// What is wrong with each of the others.
    pub(super) rejected: Vec<String>,
}

impl Images {
    /// Reads all records of a namespace.
    pub(super) fn read(state: &State<'_>) -> Images {
        let mut images = Images::default();
        let bucket = state.bucket(&[b"images"]);
        for (name, bucket) in bucket.iter().flat_map(|images| images.buckets()) {
            match ImageRecord::parse(name, bucket) {
                Ok(record) => images.records.push(record),
                Err(why) => images.rejected.push(why),
            }
        }
        images
    }

    /// By reference, in its familiar form: the record that is meant. Tools of containerd take any
    /// text for a name; a normalised one goes before what only normalises to the same.
    pub(super) fn references(&self) -> BTreeMap<String, &ImageRecord> {
        let mut references: BTreeMap<String, &ImageRecord> = BTreeMap::new();
        for record in &self.records {
            let Some(reference) = shown(&record.name) else { continue };
            let is_normalised = reference.to_string() == record.name;
            let known = references.entry(reference.familiar()).or_insert(record);
            if is_normalised {
                *known = record;
            }
        }
        references
    }

    /// Names that can't be shown as references, though they are somebody's.
    pub(super) fn unnameable(&self) -> impl Iterator<Item = &str> {
        let names = self.records.iter().map(|record| record.name.as_str());
        names.filter(|name| shown(name).is_none() && !is_nameless(name))
    }

    /// By digest: the record of the image that Kubernetes knows by it.
    pub(super) fn digests(&self) -> impl Iterator<Item = (Digest, &ImageRecord)> {
        let named = self.records.iter().map(|record| (Digest::parse(&record.name), record));
        named.filter_map(|(name, record)| Some((name.ok()?, record)))
    }

    /// The records whose target has that digest.
    pub(super) fn of(&self, target: Digest) -> impl Iterator<Item = &ImageRecord> {
        self.records.iter().filter(move |record| record.target.digest == target)
    }
}

/// The reference that a record's name stands for; `None` where it is none.
fn shown(name: &str) -> Option<Reference> {
    if is_nameless(name) {
        return None;
    }
    Reference::parse(name).ok()
}

/// True for the names that stand for no name: Docker's, and those that Kubernetes gives to the IDs
/// of images.
fn is_nameless(name: &str) -> bool {
    let dangling = name.strip_prefix(DANGLING).and_then(|rest| rest.strip_prefix('@'));
    Digest::parse(dangling.unwrap_or(name)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_shown_as_people_write_it() {
        let digest = Digest::of(b"");
        for (name, text) in [
            ("docker.io/library/app:1.0", Some("app:1.0")),
            ("app:1.0", Some("app:1.0")),
            ("127.0.0.1:5555/team/app", Some("127.0.0.1:5555/team/app")),
            (&format!("moby-dangling@{digest}"), None),
            (&digest.to_string(), None),
            ("UPPER", None),
            ("../../etc", None),
            ("", None),
        ] {
            assert_eq!(shown(name).map(|it| it.familiar()).as_deref(), text, "{name}");
        }
    }
}

//! Volumes that an engine keeps in a directory of its own: `NAME/_data`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::files::{JSON_MAX, if_found};
use super::names::is_container_name;
use super::stamp::Taking;
use crate::backing::{Access, Fingerprint, Root, Watched};
use crate::error::{Error, Result};
use crate::store::{LayerDir, Marks, Owners, Volume};

/// Where a volume's files are, in its directory.
const DATA: &str = "_data";

/// Takes the list of volumes into a stamp: they are directories, so that one that comes or goes moves
/// the time of the one above.
pub(super) fn stamp(volumes: Option<&Root>, taking: &mut Taking) {
    if let Some(volumes) = volumes {
        taking.add(volumes.stat(""));
    }
}

/// The directory to watch for them, if any.
pub(super) fn watched(volumes: Option<&Root>) -> Result<Option<Watched>> {
    volumes.map(|volumes| Ok(Watched::Names(volumes.dir("")?))).transpose()
}

/// The names of all volumes, sorted.
///
/// # Errors
/// Fails when the directory can't be read.
pub(super) fn names(volumes: Option<&Root>) -> Result<Vec<String>> {
    let Some(volumes) = volumes else { return Ok(Vec::new()) };
    let entries = volumes.dir("")?.names()?.into_iter();
    let names = entries.filter_map(|entry| entry.name.into_string().ok());
    let has_data = |name: &String| {
        is_container_name(name)
            && volumes.stat(format!("{name}/{DATA}")).is_ok_and(|it| it.is_dir())
    };
    let mut names: Vec<String> = names.filter(has_data).collect();
    names.sort();
    Ok(names)
}

/// The volume `name`, whose files' owners are told by `owners`. Its data may be a mount of its own,
/// by an option of the volume.
///
/// # Errors
/// ENOENT where there is none of that name.
pub(super) fn read(
    volumes: Option<&Root>,
    name: &str,
    owners: Option<Arc<Owners>>,
) -> Result<Volume> {
    let missing = || Error::not_found(name);
    let volumes = volumes.filter(|_| is_container_name(name)).ok_or_else(missing)?;
    let dir = volumes.stat(name)?;
    let root = volumes.sub_mount(format!("{name}/{DATA}"), Access::Live)?;
    let mut identity = Fingerprint::new();
    identity.add(b"volume");
    identity.add(root.path().as_os_str().as_encoded_bytes());
    let (root, identity, marks) = (Arc::new(root), identity.finish(), Marks::Complete);
    let data = LayerDir { root, identity, marks, owners };
    let options = if_found(volumes.read(format!("{name}/opts.json"), JSON_MAX))?;
    let options = options.map_or_else(BTreeMap::new, |json| self::options(&json));
    Ok(Volume { name: name.to_owned(), data, created: dir.ctime, options })
}

/// The options that Docker's local driver stored.
fn options(json: &[u8]) -> BTreeMap<String, String> {
    let Ok(Value::Object(stored)) = serde_json::from_slice(json) else { return BTreeMap::new() };
    let text = [("MountType", "type"), ("MountOpts", "o"), ("MountDevice", "device")];
    let option = |(key, name): (&str, &str)| {
        let value = stored.get(key)?.as_str().filter(|value| !value.is_empty())?;
        Some((name.to_owned(), value.to_owned()))
    };
    text.into_iter().filter_map(option).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_volume_is_a_directory_with_data_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b/_data", "a/_data/x", "no-data", ".hidden/_data"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("metadata.db"), "").unwrap();
        fs::write(dir.path().join("a/opts.json"), r#"{"MountType":"tmpfs","MountOpts":""}"#)
            .unwrap();
        symlink("/etc", dir.path().join("link")).unwrap();
        fs::create_dir(dir.path().join("out")).unwrap();
        symlink("/etc", dir.path().join("out/_data")).unwrap();
        let root = Root::open(dir.path(), Access::Live).unwrap();
        assert_eq!(names(Some(&root)).unwrap(), ["a", "b"]);
        let volume = read(Some(&root), "a", None).unwrap();
        assert!(volume.data.root.stat("x").unwrap().is_dir());
        assert_eq!(volume.options, BTreeMap::from([("type".to_owned(), "tmpfs".to_owned())]));
        for name in ["..", "a/_data", "out", "link", "missing", ""] {
            assert!(read(Some(&root), name, None).is_err(), "{name}");
        }
        assert!(names(None).unwrap().is_empty() && read(None, "a", None).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_options_make_it_panic(bytes: Vec<u8>, text: String) {
            let _ = options(&bytes);
            let json = serde_json::json!({ "MountType": &text, "MountDevice": 7 }).to_string();
            proptest::prop_assert!(options(json.as_bytes()).len() <= 1);
        }
    }
}

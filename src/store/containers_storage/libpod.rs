//! What Podman keeps of containers in its own database: what they are doing, their pods, and what is
//! mounted into them. Names, images and files do not need it, so a container is there without.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde::Deserialize;

use super::mounts::{self, Described};
use super::sqlite::{self, Database, text};
use crate::backing::{Root, Time, Watched};
use crate::bolt;
use crate::digest::ContainerId;
use crate::error::{Error, Result};
use crate::store::files::if_found;
use crate::store::stamp::{Stamp, Taking};
use crate::store::{Pod, State};

/// The database of Podman 4.8 and later, in the store's directory.
const SQLITE: &str = "db.sql";

/// That of Podman before, and after where it was there already.
const BOLT: &str = "libpod/bolt_state.db";

/// The namespace that pods of Podman are shown in: it knows none, and makes YAML that names none.
const NAMESPACE: &str = "default";

/// What the database says.
#[derive(Debug, Default)]
pub(super) struct Libpod {
    containers: HashMap<ContainerId, Known>,
}

/// What it says of one container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// What it is doing; `None` where that is no state that is known.
    pub(super) state: Option<State>,
    /// Its first process, as long as it runs.
    pub(super) pid: Option<u32>,
    /// Its pod.
    pub(super) pod: Option<Pod>,
    /// What is to be mounted into it, as it was made.
    pub(super) mounts: Option<Described>,
}

/// A stamp of the database.
pub(super) fn stamp(store: &Root) -> Stamp {
    let mut taking = Taking::default();
    taking.add(store.stat(SQLITE));
    taking.add(store.stat(format!("{SQLITE}-journal")));
    taking.add(store.stat(BOLT));
    taking.finish()
}

/// The directory to watch for the older database, if any; the other's is the store's own.
pub(super) fn watched(store: &Root) -> Result<Option<Watched>> {
    let directory = Path::new(BOLT).parent().unwrap_or(Path::new(""));
    Ok(if_found(store.dir(directory))?.map(Watched::Writes))
}

impl Libpod {
    /// Reads the database in the directory `store`; of two the one that was changed last. Where there
    /// is none it says nothing.
    ///
    /// # Errors
    /// Fails where it can't be read, or is damaged.
    pub(super) fn read(store: &Root) -> Result<Libpod> {
        let changed = |path| Ok(if_found(store.stat(path))?.map(|stat| stat.mtime));
        let (sqlite, bolt): (Option<Time>, Option<Time>) = (changed(SQLITE)?, changed(BOLT)?);
        if bolt > sqlite {
            let snapshot = bolt::Reader::default().read(store, BOLT)?;
            return Ok(Libpod::from_bolt(&snapshot.database));
        }
        match sqlite::read_settled(store, SQLITE)? {
            Some(bytes) => Libpod::from_sqlite(&bytes, &store.path().join(SQLITE)),
            None => Ok(Libpod::default()),
        }
    }

    /// What the buckets `ctr/ID` and `pod/ID` say (libpod/boltdb_state_internal.go).
    fn from_bolt(database: &bolt::Database) -> Libpod {
        #[derive(Deserialize)]
        struct Config {
            name: String,
            pod: Option<String>,
        }
        let config = |bucket: &bolt::Bucket<'_>| -> Option<Config> {
            serde_json::from_slice(bucket.get(b"config")?).ok()
        };
        let all = |name: &[u8]| database.bucket(&[name]).into_iter().flat_map(|all| all.buckets());
        let pod =
            |(id, bucket): (&[u8], bolt::Bucket<'_>)| Some((id.to_vec(), config(&bucket)?.name));
        let pods: BTreeMap<Vec<u8>, String> = all(b"pod").filter_map(pod).collect();
        let known = |(id, bucket): (&[u8], bolt::Bucket<'_>)| {
            let id = ContainerId::from_hex(std::str::from_utf8(id).ok()?).ok()?;
            let mut known = Known::default();
            known.add_state(bucket.get(b"state").unwrap_or_default());
            known.pod = config(&bucket).and_then(|config| {
                pod_of(pods.get(config.pod.as_deref()?.as_bytes())?, &config.name)
            });
            known.mounts = mounts::as_made(bucket.get(b"config").unwrap_or_default(), id);
            Some((id, known))
        };
        Libpod { containers: all(b"ctr").filter_map(known).collect() }
    }

    /// What is known of the container `id`.
    pub(super) fn container(&self, id: ContainerId) -> Option<&Known> {
        self.containers.get(&id)
    }

    fn from_sqlite(bytes: &[u8], path: &Path) -> Result<Libpod> {
        let database = Database::open(bytes, path)?;
        let corrupt = |why: String| Error::corrupt(path, why);
        let mut pods = BTreeMap::new();
        let pod = |row: &rusqlite::Row<'_>| {
            pods.insert(text(row, 0)?.to_owned(), text(row, 1)?.to_owned());
            Some(())
        };
        database.each("SELECT ID, Name FROM PodConfig", pod).map_err(corrupt)?;
        let mut libpod = Libpod::default();
        let config = |row: &rusqlite::Row<'_>| {
            let id = ContainerId::from_hex(text(row, 0)?).ok()?;
            let known = libpod.containers.entry(id).or_default();
            known.mounts = text(row, 3).and_then(|json| mounts::as_made(json.as_bytes(), id));
            let pod = text(row, 2).and_then(|pod| pods.get(pod));
            known.pod = pod_of(pod?, text(row, 1)?);
            Some(())
        };
        let configs = "SELECT ID, Name, PodID, JSON FROM ContainerConfig";
        database.each(configs, config).map_err(corrupt)?;
        let state = |row: &rusqlite::Row<'_>| {
            let id = ContainerId::from_hex(text(row, 0)?).ok()?;
            libpod.containers.entry(id).or_default().add_state(text(row, 1)?.as_bytes());
            Some(())
        };
        database.each("SELECT ID, JSON FROM ContainerState", state).map_err(corrupt)?;
        Ok(libpod)
    }
}

/// The place of the container `container` in the pod `pod`.
fn pod_of(pod: &str, container: &str) -> Option<Pod> {
    let is_whole = !pod.is_empty() && !container.is_empty();
    is_whole.then(|| Pod {
        namespace: NAMESPACE.to_owned(),
        name: pod.to_owned(),
        container: container.to_owned(),
    })
}

impl Known {
    /// Adds what a record of the state tells; nothing where it makes no sense.
    fn add_state(&mut self, json: &[u8]) {
        #[derive(Deserialize)]
        struct Record {
            state: u32,
            pid: Option<u32>,
        }
        let Ok(record) = serde_json::from_slice::<Record>(json) else { return };
        self.state = state(record.state);
        let runs = matches!(self.state, Some(State::Running | State::Paused));
        self.pid = record.pid.filter(|&pid| runs && pid > 0);
    }
}

/// The state of that number (libpod/define/containerstate.go). What Podman calls "configured" and
/// "stopped" shows as created and exited there, too.
fn state(number: u32) -> Option<State> {
    match number {
        1 | 2 => Some(State::Created),
        3 | 8 => Some(State::Running), // 8: told to stop, and not yet done
        4 | 6 => Some(State::Exited),
        5 => Some(State::Paused),
        7 => Some(State::Removing),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;
    use rusqlite::Connection;

    use super::*;
    use crate::backing::Access;
    use crate::digest::Digest;

    fn id(name: &str) -> ContainerId {
        ContainerId(Digest::of(name.as_bytes()))
    }

    /// A database with these containers: name, record of the state, and pod.
    fn write(dir: &Path, containers: &[(&str, &str, Option<&str>)]) -> Connection {
        let file = dir.join(SQLITE);
        let connection = Connection::open(file).unwrap();
        let tables = "CREATE TABLE PodConfig(ID TEXT PRIMARY KEY, Name TEXT, JSON TEXT);
            CREATE TABLE ContainerConfig(ID TEXT PRIMARY KEY, Name TEXT, PodID TEXT, JSON TEXT);
            CREATE TABLE ContainerState(ID TEXT PRIMARY KEY, State INTEGER, JSON TEXT);
            INSERT INTO PodConfig VALUES('p', 'pod', '{}')";
        connection.execute_batch(tables).unwrap();
        for (name, state, pod) in containers {
            let config = "INSERT INTO ContainerConfig VALUES(?1, ?2, ?3, '{}')";
            connection.execute(config, (id(name).hex(), name, pod)).unwrap();
            let record = "INSERT INTO ContainerState VALUES(?1, 1, ?2)";
            connection.execute(record, (id(name).hex(), state)).unwrap();
        }
        connection
    }

    fn read(dir: &Path) -> Result<Libpod> {
        Libpod::read(&Root::open(dir, Access::Live).unwrap())
    }

    #[test]
    fn states_and_pods_are_read_and_what_makes_no_sense_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let connection = write(
            dir.path(),
            &[
                ("web", r#"{"state":3,"pid":7}"#, Some("p")),
                ("done", r#"{"state":6}"#, None),
                ("odd", r#"{"state":99}"#, Some("none")),
                ("text", "no record", None),
            ],
        );
        let bad =
            "INSERT INTO ContainerState VALUES('../../etc', 1, '{\"state\":3}'), (7, 1, NULL)";
        connection.execute_batch(bad).unwrap();
        let libpod = read(dir.path()).unwrap();
        assert_eq!(libpod.containers.len(), 4);
        let web = libpod.container(id("web")).unwrap();
        assert_eq!((web.state, web.pid), (Some(State::Running), Some(7)));
        assert_eq!(web.pod, pod_of("pod", "web"));
        assert_eq!(libpod.container(id("done")).unwrap().state, Some(State::Exited));
        for name in ["odd", "text"] {
            assert_eq!(libpod.container(id(name)), Some(&Known::default()), "{name}");
        }
        assert_eq!(libpod.container(id("other")), None);
    }

    #[test]
    fn no_database_says_nothing_and_a_damaged_one_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).unwrap().containers.is_empty());
        for bytes in [&b"no database"[..], &[0; 8192]] {
            fs::write(dir.path().join(SQLITE), bytes).unwrap();
            assert!(read(dir.path()).is_err());
        }
        fs::remove_file(dir.path().join(SQLITE)).unwrap();
        drop(Connection::open(dir.path().join(SQLITE)).unwrap().execute_batch("CREATE TABLE x(y)"));
        assert!(read(dir.path()).is_err(), "other tables");
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_state(bytes: Vec<u8>, number: u32) {
            let mut known = Known::default();
            known.add_state(&bytes);
            prop_assert_eq!(&known, &Known::default());
            known.add_state(format!("{{\"state\":{number},\"pid\":7}}").as_bytes());
            prop_assert_eq!(known.state.is_some(), (1..=8).contains(&number));
            prop_assert_eq!(known.pid.is_some(), [3, 5, 8].contains(&number));
        }
    }
}

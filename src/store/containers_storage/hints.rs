//! What the files of a store tell of the engine that wrote it.

use crate::backing::Root;

/// What is told: libpod's database (libpod/boltdb_state.go, sqlite_state.go), and files that Podman
/// alone makes.
pub(super) fn read(store: &Root) -> Vec<String> {
    let known = [
        ("db.sql", "Podman's state is in sqlite"),
        ("libpod/bolt_state.db", "Podman's state is in bolt, as before sqlite"),
    ];
    let told = known.into_iter().filter(|(path, _)| store.stat(path).is_ok());
    told.map(|(_, hint)| hint.to_owned()).collect()
}

//! Which stores to mount: those that were named, or that of the engine on this host.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::status::Failure;
use crate::error::Error;
use crate::store::{self, LayerStore, OpenError, Source, find_host_stores};

/// Kinds of stores that may stand before a colon but that this version does not read.
const LATER: [&str; 5] = ["containerd", "oci", "oci-archive", "docker-archive", "windows-layer"];

/// The stores that `names` name, or those of this host where there is no name; each path resolved,
/// for the daemon changes its working directory.
///
/// # Errors
/// Fails when a kind is unknown, a path leads nowhere, or no store is found.
pub(super) fn sources(names: &[PathBuf]) -> Result<Vec<Source>, Failure> {
    let sources = match names {
        [] => find_host_stores(Path::new("/"), home().as_deref()),
        _ => names.iter().map(|name| parse(name.as_os_str())).collect::<Result<_, _>>()?,
    };
    match (&sources[..], names) {
        ([], _) => Err(Failure::NoStore),
        // Where a place that was found can't be reached, opening it tells.
        (_, []) => {
            let resolved = |found: Source| resolve(found.clone()).unwrap_or(found);
            Ok(sources.into_iter().map(resolved).collect())
        }
        _ => sources.into_iter().map(resolve).collect(),
    }
}

/// Opens the stores. Of those that nobody named, one that can't be read is left out while another
/// can: a host may have a store of each engine.
///
/// # Errors
/// Fails when a store that was named can't be opened, or none can.
pub(super) fn open(
    sources: &[Source],
    names: &[PathBuf],
) -> Result<Vec<Arc<dyn LayerStore>>, Failure> {
    let (mut opened, mut failed) = (Vec::new(), Vec::new());
    for source in sources {
        match store::open(source) {
            Ok(store) => opened.push(store),
            Err(err) if names.is_empty() => failed.push(err),
            Err(err) => return Err(err.into()),
        }
    }
    if opened.is_empty() {
        return Err(failed.into_iter().next().map_or(Failure::NoStore, Failure::from));
    }
    failed.iter().for_each(|err| tracing::warn!("left out: {err}"));
    Ok(opened)
}

/// The home directory of an ordinary user, who has a store there; root's is the host's.
fn home() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty())?;
    (!rustix::process::geteuid().is_root()).then(|| home.into())
}

fn parse(name: &OsStr) -> Result<Source, Failure> {
    let kind = name.as_bytes().split(|&byte| byte == b':').next().unwrap_or_default();
    match LATER.iter().find(|later| later.as_bytes() == kind && kind.len() < name.len()) {
        Some(kind) => {
            let what = format!(
                "stores of the kind {kind} can't be read yet, only docker:PATH and podman:PATH"
            );
            Err(OpenError::Other(Error::unsupported(name, what)).into())
        }
        None => Ok(Source::parse(name)),
    }
}

fn resolve(source: Source) -> Result<Source, Failure> {
    match fs::canonicalize(&source.path) {
        Ok(path) => Ok(Source { path, ..source }),
        Err(err) => Err(OpenError::from_error(&source.path, Error::io(&source.path, err)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::status::ExitStatus;
    use super::*;
    use crate::store::Kind;

    #[test]
    fn a_kind_is_told_from_a_path_with_a_colon() {
        let parse = |name: &str| parse(OsStr::new(name));
        assert_eq!(parse("docker:/srv/d").unwrap().kind, Some(Kind::Docker));
        assert_eq!(parse("/srv/a:b").unwrap(), Source { kind: None, path: "/srv/a:b".into() });
        assert_eq!(parse("podman").unwrap().path, Path::new("podman"));
        assert_eq!(parse("podman:/srv").unwrap().kind, Some(Kind::Podman));
        let failure = parse("containerd:/srv").unwrap_err();
        assert_eq!(failure.status(), ExitStatus::StoreUnsupported);
        assert!(failure.to_string().contains("containerd"), "{failure}");
    }

    #[test]
    fn a_store_that_nobody_named_is_left_out_where_it_cannot_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let source = |name: &str| Source { kind: None, path: dir.path().join(name) };
        for name in ["good/overlay-images", "good/overlay-layers", "bad"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let both = [source("bad"), source("good")];
        assert_eq!(open(&both, &[]).unwrap().len(), 1);
        let failure = open(&both, &["bad".into()]).unwrap_err();
        assert_eq!(failure.status(), ExitStatus::NotAStore);
        let failure = open(&[source("bad")], &[]).unwrap_err();
        assert_eq!(failure.status(), ExitStatus::NotAStore);
    }

    #[test]
    fn a_source_is_resolved() {
        let dir = tempfile::tempdir().unwrap();
        let path = fs::canonicalize(dir.path()).unwrap();
        assert_eq!(sources(&[path.join(".")]).unwrap(), [Source { kind: None, path }]);
        let failure = sources(&["/no/such".into()]).unwrap_err();
        assert_eq!(failure.status(), ExitStatus::StoreMissing);
    }
}

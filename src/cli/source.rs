//! Which stores to mount: those that were named, or that of the engine on this host.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::status::Failure;
use crate::error::Error;
use crate::store::{OpenError, Source, find_host_stores};

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
    if sources.is_empty() {
        return Err(Failure::NoStore);
    }
    sources.into_iter().map(resolve).collect()
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
    fn a_source_is_resolved() {
        let dir = tempfile::tempdir().unwrap();
        let path = fs::canonicalize(dir.path()).unwrap();
        assert_eq!(sources(&[path.join(".")]).unwrap(), [Source { kind: None, path }]);
        let failure = sources(&["/no/such".into()]).unwrap_err();
        assert_eq!(failure.status(), ExitStatus::StoreMissing);
    }
}

//! Images outside of an engine's own directory: an OCI image layout, or an archive of such a layout
//! or of what `docker save` and `podman save` write.
//!
//! What is difficult, and what answers it:
//! 1. A directory and an archive are to be read alike, and nothing is unpacked: [`Files`] finds the
//!    bytes of either by name.
//! 2. Several generations of documents describe the same images, some of them in one archive:
//!    [`layout`], [`saved`] and [`legacy`] each add what they know to one [`Contents`].
//! 3. Documents may say anything: an image that is damaged leaves its neighbours as they are, and
//!    what is absent is noticed when it is read ([`absent`]).
//! 4. The file may be replaced at any time: what was read counts only for the state it was read in,
//!    and its bytes can't be read any more once there is another.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::contents::Contents;
use self::files::Files;
use self::place::{Place, PlaceKind};
use crate::backing::Watched;
use crate::cache::Cache;
use crate::digest::{ContainerId, Digest, ImageId};
use crate::error::{Error, Result};
use crate::store::{
    Blob, Catalog, Container, Conventions, Generation, GraphDriver, Image, LayerDir, LayerStore,
    OpenError, StoreInfo, Usage,
};

mod absent;
mod contents;
mod files;
mod layout;
mod legacy;
mod members;
mod place;
mod saved;
#[cfg(test)]
mod tests;

/// How often something is read again while somebody writes it.
const TRIES: usize = 4;

/// Which documents of an archive count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Documents {
    /// Those of an OCI layout.
    Layout,
    /// Those that Docker's and Podman's own readers look for.
    Saved,
    /// All, as newer engines write both.
    All,
}

/// An OCI image layout, or an archive of images.
#[derive(Debug)]
pub struct Portable {
    info: StoreInfo,
    place: Place,
    documents: Documents,
    /// What was read last, and the stamp that it had then.
    read: Mutex<Option<(u64, Arc<Contents>)>>,
}

impl Portable {
    /// Whether the directory `path` looks like an OCI image layout.
    pub(super) fn is_layout_at(path: &Path) -> bool {
        [layout::INDEX, layout::VERSION].iter().all(|name| path.join(name).is_file())
    }

    /// Opens the OCI image layout in the directory `path`.
    ///
    /// # Errors
    /// Fails where there is none.
    pub(super) fn open_layout(path: &Path, cache: &Arc<Cache>) -> Result<Portable, OpenError> {
        let place = Place::directory(path, cache);
        Portable::open(place, Documents::Layout, "index.json, as OCI image layouts have")
    }

    /// Opens the archive `path`, as far as these documents tell of it.
    ///
    /// # Errors
    /// Fails where there is none, or it holds no images.
    pub(super) fn open_archive(
        path: &Path,
        documents: Documents,
        cache: &Arc<Cache>,
    ) -> Result<Portable, OpenError> {
        let looked_for = match documents {
            Documents::Layout => "index.json in it, as OCI archives have",
            Documents::Saved => "manifest.json or repositories in it, as image archives have",
            Documents::All => {
                "manifest.json, index.json or repositories in it, as image archives have"
            }
        };
        Portable::open(Place::archive(path, cache), documents, looked_for)
    }

    fn open(
        place: Place,
        documents: Documents,
        looked_for: &'static str,
    ) -> Result<Portable, OpenError> {
        let path = place.path().to_owned();
        let failed = |err| OpenError::from_error(&path, err);
        let files = place.files().map_err(failed)?;
        let Some(kind) = kind(&place, &files, documents) else {
            return Err(OpenError::NotAStore { path, looked_for });
        };
        let info = StoreInfo {
            kind,
            driver: "none",
            path: path.clone(),
            namespace: None,
            conventions: Conventions::Docker,
        };
        let portable = Portable { info, place, documents, read: Mutex::new(None) };
        portable.contents().map_err(failed)?;
        Ok(portable)
    }

    /// What it holds now: as it was read last, or read anew where it is another since.
    fn contents(&self) -> Result<Arc<Contents>> {
        let mut stamp = self.place.stamp()?.files;
        if let Some((known, contents)) = &*self.read()
            && *known == stamp
        {
            return Ok(Arc::clone(contents));
        }
        let mut tries = 1;
        loop {
            let contents = self.read_contents();
            let after = self.place.stamp()?.files;
            if after == stamp || tries == TRIES {
                let contents = Arc::new(contents?);
                *self.read() = Some((stamp, Arc::clone(&contents)));
                return Ok(contents);
            }
            stamp = after;
            tries += 1;
        }
    }

    fn read_contents(&self) -> Result<Contents> {
        let files = self.place.files()?;
        match kind(&self.place, &files, self.documents) {
            Some(_) => Ok(Contents::read(files, &self.place, self.documents)),
            None => Err(Error::corrupt(self.place.path(), "it holds no images any more")),
        }
    }

    fn read(&self) -> MutexGuard<'_, Option<(u64, Arc<Contents>)>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What to call it; `None` where it has none of the documents that count.
fn kind(place: &Place, files: &Files, documents: Documents) -> Option<&'static str> {
    let is_layout = documents != Documents::Saved && files.holds(layout::INDEX);
    let is_saved = documents != Documents::Layout && saved::is_in(files);
    match place.kind {
        PlaceKind::Directory => is_layout.then_some("oci"),
        PlaceKind::Archive if is_saved => Some("docker-archive"),
        PlaceKind::Archive => is_layout.then_some("oci-archive"),
    }
}

impl LayerStore for Portable {
    fn info(&self) -> &StoreInfo {
        &self.info
    }

    fn generation(&self) -> Result<Generation> {
        Ok(self.place.stamp()?.generation())
    }

    fn watched(&self) -> Result<Vec<Watched>> {
        self.place.watched()
    }

    fn catalog(&self) -> Result<Catalog> {
        Ok(self.contents()?.catalog.clone())
    }

    fn config(&self, id: ImageId) -> Result<Arc<[u8]>> {
        self.contents()?.config(id)
    }

    fn image(&self, id: ImageId) -> Result<Image> {
        self.contents()?.image(id)
    }

    fn container(&self, id: ContainerId) -> Result<Container> {
        Err(Error::not_found(id.hex()))
    }

    fn blob(&self, digest: Digest) -> Result<Option<Blob>> {
        self.contents()?.blob(digest)
    }

    fn is_replaceable(&self) -> bool {
        true
    }

    fn graph_driver(&self, _dirs: &[LayerDir]) -> GraphDriver {
        GraphDriver { name: String::new(), directories: None }
    }

    fn usage(&self) -> Result<Usage> {
        let used = self.contents()?.size();
        Ok(Usage { total: self.place.space()?, used })
    }
}

/// The name of the images whose own name is but a tag: that of the file or directory, as far as a
/// repository may have it.
fn repository(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let mut name = name.as_str();
    while let Some(rest) = ENDINGS.iter().find_map(|ending| name.strip_suffix(ending)) {
        name = rest;
    }
    let plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    let words = name.split(|letter| !plain(letter)).filter(|word| !word.is_empty());
    match words.collect::<Vec<_>>().join("-") {
        name if name.is_empty() => "image".to_owned(),
        name => name,
    }
}

/// How the names of archives end.
const ENDINGS: [&str; 7] = [".tar", ".tgz", ".tzst", ".gz", ".zst", ".oci", ".docker"];

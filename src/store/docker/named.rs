//! Which references name an image: the list of all of them, read again when it has changed. Else
//! every image of a large store would take a reading of what names all the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::records::{references, sort_references};
use super::roots::Roots;
use crate::digest::ImageId;
use crate::store::files::JSON_MAX;
use crate::store::{Generation, Taking};

/// References by what they name, in Docker's order.
type ByImage = HashMap<ImageId, Vec<String>>;

/// What was read last, and of which state of the file.
#[derive(Debug, Default)]
pub(super) struct Named(Mutex<Option<(Generation, Arc<ByImage>)>>);

/// References to `id`; none where the file is damaged, which the catalog reports.
pub(super) fn names(roots: &Roots, id: ImageId) -> Vec<String> {
    let known = || roots.named.0.lock().unwrap_or_else(PoisonError::into_inner);
    let generation = generation(roots);
    let last = known().clone().filter(|(last, _)| *last == generation);
    let named = match last {
        Some((_, named)) => named,
        None => {
            let named = Arc::new(read(roots).unwrap_or_default());
            *known() = Some((generation, Arc::clone(&named)));
            named
        }
    };
    named.get(&id).cloned().unwrap_or_default()
}

fn generation(roots: &Roots) -> Generation {
    let (root, name) = roots.references();
    let mut taking = Taking::default();
    taking.add(root.stat(name));
    taking.finish().generation()
}

fn read(roots: &Roots) -> Option<ByImage> {
    let (root, name) = roots.references();
    let json = root.read(name, JSON_MAX).ok()?;
    let mut named = ByImage::new();
    for (reference, id) in references(&json, roots.era).ok()?.images {
        named.entry(id).or_default().push(reference);
    }
    named.values_mut().for_each(|names| sort_references(names));
    Some(named)
}

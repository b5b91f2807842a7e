//! One name looked for down the layers, in the order and with the rules of the kernel's
//! `ovl_lookup` (fs/overlayfs/namei.c).

use std::borrow::Cow;
use std::cell::OnceCell;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::io::Errno;

use super::marks::{self, FileMark};
use super::{Entry, Place, Stack, join};
use crate::backing::{Access, Dir, DirEntry, FileKind, Stat};
use crate::error::{Error, Result};

/// Longest name that redirects may add up to, in bytes (Linux `PATH_MAX`).
const NAME_MAX: usize = 4096;

/// What `st_blocks` counts, in bytes (stat(2)).
const DISK_BLOCK: u64 = 512;

/// The directories of several layers that are one in the merged tree.
pub(super) struct Merged<'a> {
    stack: &'a Stack,
    lowers: &'a [Place],
    /// `dirs[i]` is `lowers[i]`, opened when it is first needed.
    dirs: Vec<OnceCell<Dir>>,
}

impl<'a> Merged<'a> {
    pub(super) fn new(stack: &'a Stack, lowers: &'a [Place]) -> Merged<'a> {
        Merged { stack, lowers, dirs: lowers.iter().map(|_| OnceCell::new()).collect() }
    }

    fn dir(&self, at: usize) -> Result<&Dir> {
        if let Some(dir) = self.dirs[at].get() {
            return Ok(dir);
        }
        let place = &self.lowers[at];
        let dir = self.stack.layer(place)?.root.dir(place.path())?;
        Ok(self.dirs[at].get_or_init(|| dir))
    }

    /// Every name in any of the directories, sorted bytewise, with the position in `lowers` of the
    /// one that holds it: the topmost first, where several do.
    pub(super) fn names(&self) -> Result<Vec<Holder>> {
        let mut names = Vec::new();
        for (at, place) in self.lowers.iter().enumerate() {
            let layer = self.stack.layer(place)?;
            let (dir, listed) = layer.root.listed_dir(place.path())?;
            self.dirs[at].get_or_init(|| dir);
            let meant =
                |entry: DirEntry| marks::meant(layer.marks, &entry.name).map(OsStr::to_owned);
            let holder = |name| Holder { name, at };
            names.extend(listed.into_iter().filter_map(meant).map(holder));
        }
        names.sort_unstable();
        Ok(names)
    }
}

/// A directory that is known to hold a name.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Holder {
    pub(super) name: OsString,
    /// Position in [`Merged::lowers`].
    at: usize,
}

/// The entry `name` of the directory `parent`. `holders` are those of the parent's
/// directories that hold that name, where a listing told.
///
/// # Errors
/// Corrupt where a mark makes no sense, or a file's data are nowhere.
pub(super) fn find(
    parent: &Merged<'_>,
    name: &OsStr,
    holders: Option<&[Holder]>,
) -> Result<Option<Entry>> {
    let mut search = Search::new(name);
    let mut found = Found::default();
    let (mut at, mut layer) = (0, 0);
    while !search.is_done {
        let hit = if search.is_from_root() {
            // The very next layer, whether or not it holds the parent.
            let Some(next) = parent.stack.layers().get(layer) else { break };
            let is_lowest = layer + 1 == parent.stack.layers().len();
            layer += 1;
            search.below_root(&Layer { at: layer - 1, dir: next, is_lowest })?
        } else {
            let Some(next) = next_holder(parent, at, holders.filter(|_| !search.is_redirected))
            else {
                break;
            };
            at = next + 1;
            layer = parent.lowers[next].layer + 1;
            search.in_directory(parent, next)?
        };
        if let Some((stat, place)) = hit {
            found.add(&search, stat, place);
        }
    }
    if search.needs_data {
        let path = found.top.map_or_else(|| name.to_owned(), |(_, place)| place.path().into());
        return Err(Error::corrupt(path, "metacopy without data in a layer below"));
    }
    Ok(found.into_entry(name))
}

/// The first position from `at` on, or the first of the holders.
fn next_holder(parent: &Merged<'_>, at: usize, holders: Option<&[Holder]>) -> Option<usize> {
    match holders {
        Some(holders) => holders.iter().map(|holder| holder.at).find(|&holder| holder >= at),
        None => Some(at).filter(|&at| at < parent.lowers.len()),
    }
}

/// What the layers hold of one name, topmost first.
#[derive(Default)]
struct Found {
    top: Option<(Stat, Place)>,
    data: Option<(Stat, Place)>,
    lowers: Vec<Place>,
}

impl Found {
    fn add(&mut self, search: &Search<'_>, stat: Stat, place: Place) {
        if self.top.is_none() {
            self.top = Some((stat, place.clone()));
        }
        if search.is_dir {
            self.lowers.push(place);
        } else if !search.needs_data {
            self.data = Some((stat, place));
        }
    }

    fn into_entry(self, name: &OsStr) -> Option<Entry> {
        let (mut stat, place) = self.top?;
        if self.lowers.len() > 1 {
            stat.nlink = 1;
        }
        let data = match self.data {
            None => place.clone(),
            Some((data, at)) => {
                stat.blocks = data.blocks;
                at
            }
        };
        Some(Entry { name: name.to_owned(), stat, place, data, lowers: self.lowers })
    }
}

/// One layer, and where it is in the stack.
struct Layer<'a> {
    at: usize,
    dir: &'a crate::store::LayerDir,
    is_lowest: bool,
}

/// The state of a search between two layers: the kernel's `ovl_lookup_data`.
struct Search<'a> {
    /// What to look for in the next layer: one name in the parent's directory, or a path from the
    /// layer's root where it starts with a slash.
    name: Cow<'a, [u8]>,
    is_redirected: bool,
    /// A directory was found: only directories count from now on.
    is_dir: bool,
    /// All that was found are metacopies: the data are still to be found.
    needs_data: bool,
    /// No layer below counts.
    is_done: bool,
}

/// One name of the path that is looked for.
struct Step<'a> {
    dir: &'a Dir,
    /// Where `dir` is.
    parent: &'a Place,
    layer: &'a Layer<'a>,
    name: &'a OsStr,
    /// Where in [`Search::name`] it starts and ends.
    start: usize,
    end: usize,
    may_be_metacopy: bool,
}

/// A file that a layer has under the name.
struct Hit {
    stat: Stat,
    is_impure: bool,
}

impl<'a> Search<'a> {
    fn new(name: &'a OsStr) -> Search<'a> {
        Search {
            name: Cow::Borrowed(name.as_bytes()),
            is_redirected: false,
            is_dir: false,
            needs_data: false,
            is_done: false,
        }
    }

    fn is_from_root(&self) -> bool {
        self.is_redirected && self.name.starts_with(b"/")
    }

    fn in_directory(&mut self, parent: &Merged<'_>, at: usize) -> Result<Option<(Stat, Place)>> {
        let place = &parent.lowers[at];
        let layer = Layer {
            at: place.layer,
            dir: parent.stack.layer(place)?,
            is_lowest: place.layer + 1 == parent.stack.layers().len(),
        };
        let name = self.name.clone();
        let hit = self.step(&Step {
            dir: parent.dir(at)?,
            parent: place,
            layer: &layer,
            name: OsStr::from_bytes(&name),
            start: 0,
            end: name.len(),
            may_be_metacopy: place.may_hold_metacopies || self.is_redirected,
        })?;
        Ok(hit.map(|hit| hit.at(place.child(&name))))
    }

    fn below_root(&mut self, layer: &Layer<'_>) -> Result<Option<(Stat, Place)>> {
        let mut place = Place::root(layer.at);
        // Counted from the end: a redirect on the way changes what lies before it.
        let mut rest = self.name.len() - 1;
        loop {
            let start = self.name.len() - rest;
            let length = self.name[start..].iter().position(|&byte| byte == b'/');
            let name = OsString::from_vec(match length {
                Some(length) => self.name[start..start + length].to_vec(),
                None => self.name[start..].to_vec(),
            });
            let dir = match layer.dir.root.dir(place.path()) {
                Err(err) if err.is_not_found() => return Ok(None),
                dir => dir?,
            };
            let hit = self.step(&Step {
                dir: &dir,
                parent: &place,
                layer,
                name: &name,
                start,
                end: start + name.len(),
                may_be_metacopy: true,
            })?;
            let Some(hit) = hit else { return Ok(None) };
            place.path = join(&place.path, name.as_bytes());
            match length {
                None => return Ok(Some(hit.at(place))),
                Some(length) => rest -= length + 1,
            }
        }
    }

    /// Looks for one name in one directory, and learns what that means for the layers below. A
    /// name that vanishes meanwhile was not there.
    fn step(&mut self, step: &Step<'_>) -> Result<Option<Hit>> {
        match self.look(step) {
            Err(err) if matches!(err.errno(), Errno::NOENT | Errno::NAMETOOLONG) => Ok(None),
            result => result,
        }
    }

    fn look(&mut self, step: &Step<'_>) -> Result<Option<Hit>> {
        let marks = step.layer.dir.marks;
        if marks::is_mark(marks, step.name) {
            return Ok(None);
        }
        let is_last = step.end == self.name.len();
        if marks::is_hidden_by_name(step.dir, step.name, marks)? {
            self.is_done = true; // what this very layer holds counts nevertheless
        }
        let stat = step.dir.stat(step.name)?;
        let is_in_the_way = match stat.kind {
            FileKind::Directory => is_last && self.needs_data,
            FileKind::Regular => !is_last || self.is_dir,
            FileKind::Symlink
            | FileKind::CharDevice
            | FileKind::BlockDevice
            | FileKind::Fifo
            | FileKind::Socket => !is_last || self.is_dir || self.needs_data,
        };
        if is_in_the_way {
            self.is_done = true;
            return Ok(None);
        }
        let is_impure = match stat.is_dir() {
            true => {
                self.is_dir |= is_last;
                self.directory(step)?
            }
            false if self.file(step, &stat)? => false,
            false => return Ok(None), // a whiteout
        };
        let stat = step.layer.dir.seen(step.dir, step.name, stat)?;
        Ok(Some(Hit { stat, is_impure }))
    }

    /// Learns from a directory. True where it may hold metacopies.
    fn directory(&mut self, step: &Step<'_>) -> Result<bool> {
        if step.layer.is_lowest {
            return Ok(false);
        }
        let marks = marks::of_directory(step.dir, step.name, step.layer.dir.marks)?;
        let path = join(&step.parent.path, step.name.as_bytes());
        self.is_done |= marks.is_opaque || marks::is_opaque_by_name(step.layer.dir, &path)?;
        self.follow(step, marks.redirect)?;
        Ok(marks.is_impure || step.layer.dir.root.access() == Access::Live)
    }

    /// Learns from a file. False where it is a whiteout.
    fn file(&mut self, step: &Step<'_>, stat: &Stat) -> Result<bool> {
        // A metacopy has no data of its own, but its xattrs may take a block; the kernel marks a
        // directory into which it copies a file up.
        let may_be_metacopy =
            step.may_be_metacopy || stat.blocks.saturating_mul(DISK_BLOCK) < stat.size;
        let mark =
            marks::of_file(step.dir, step.name, stat, step.layer.dir.marks, may_be_metacopy)?;
        self.is_done = true;
        match mark {
            FileMark::Whiteout => return Ok(false),
            FileMark::None => self.needs_data = false,
            FileMark::Metacopy(redirect) => {
                (self.needs_data, self.is_done) = (true, false);
                self.follow(step, redirect)?;
            }
        }
        Ok(true)
    }

    /// Takes up a redirect that the file of this step carries.
    fn follow(&mut self, step: &Step<'_>, redirect: Option<Vec<u8>>) -> Result<()> {
        let Some(mut name) = redirect else { return Ok(()) };
        if name.starts_with(b"/") {
            // An opaque directory on the way to this one says nothing about another path.
            self.is_done = false;
        } else {
            name.splice(..0, self.name[..step.start].iter().copied());
        }
        name.extend_from_slice(&self.name[step.end..]);
        if name.len() > NAME_MAX {
            let path = step.dir.path().join(step.name);
            return Err(Error::corrupt(path, "redirects too long"));
        }
        self.name = Cow::Owned(name);
        self.is_redirected = true;
        Ok(())
    }
}

impl Hit {
    fn at(self, mut place: Place) -> (Stat, Place) {
        place.may_hold_metacopies = self.is_impure;
        (self.stat, place)
    }
}

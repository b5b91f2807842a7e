//! The files of one directory that are known, by little: what each was seen as, and its name.

use std::ffi::OsStr;
use std::num::NonZeroU32;
use std::os::unix::ffi::OsStrExt;

use super::arena::{Arena, At, grow};

/// What ends a name among others: no name holds it.
const END: u8 = b'/';

/// The bit of [`File::lookups`] that says whether its bytes were ever asked for.
const READ: u32 = 1 << 31;

/// So many lookups, and more, are not counted: the file stays known.
const MANY: u32 = READ - 1;

/// Names of forgotten files may take so many bytes more than half of all.
const SLACK: usize = 1024;

/// Files by position.
#[derive(Debug, Default)]
pub(super) struct Files {
    files: Arena<File>,
    /// All names, each with [`END`] behind it.
    names: Vec<u8>,
    /// How many bytes of `names` are those of files that were forgotten.
    unused: usize,
}

/// A file, as it was when it was looked up first.
#[derive(Debug)]
pub(super) struct File {
    /// Its identity, but for the inode number.
    pub(super) rest: u64,
    /// The stamp of its attributes.
    pub(super) stamp: u64,
    /// Where in [`Files::names`] its own begins.
    name: u32,
    /// How often it was looked up, at least once, and [`READ`].
    lookups: NonZeroU32,
}

impl File {
    pub(super) fn look_up(&mut self) {
        if self.lookups() < MANY {
            self.lookups = self.lookups.saturating_add(1);
        }
    }

    pub(super) fn mark_read(&mut self) {
        self.lookups |= READ;
    }

    pub(super) fn is_read(&self) -> bool {
        self.lookups.get() & READ != 0
    }

    fn lookups(&self) -> u32 {
        self.lookups.get() & MANY
    }

    /// Takes `count` lookups back; false where none would be left.
    fn take_back(&mut self, count: u64) -> bool {
        if self.lookups() == MANY {
            return true;
        }
        let left = u64::from(self.lookups()).saturating_sub(count);
        let left = u32::try_from(left).ok().and_then(NonZeroU32::new);
        left.is_some_and(|left| {
            self.lookups = left | self.lookups.get() & READ;
            true
        })
    }
}

impl Files {
    /// Adds a file that was looked up once, and tells its position; `None` where there is no room
    /// for more.
    pub(super) fn add(&mut self, name: &OsStr, rest: u64, stamp: u64) -> Option<At> {
        let start = u32::try_from(self.names.len()).ok()?;
        let at = self.files.add(File { rest, stamp, name: start, lookups: NonZeroU32::MIN })?;
        grow(&mut self.names, name.len() + 1);
        self.names.extend_from_slice(name.as_bytes());
        self.names.push(END);
        Some(at)
    }

    pub(super) fn get(&self, at: At) -> Option<&File> {
        self.files.get(at)
    }

    pub(super) fn get_mut(&mut self, at: At) -> Option<&mut File> {
        self.files.get_mut(at)
    }

    pub(super) fn name(&self, file: &File) -> &OsStr {
        OsStr::from_bytes(name_at(&self.names, file.name))
    }

    /// Takes back `count` lookups of a file; true where none is left, and it is forgotten.
    pub(super) fn forget(&mut self, at: At, count: u64) -> bool {
        if self.files.get_mut(at).is_none_or(|file| file.take_back(count)) {
            return false;
        }
        if let Some(file) = self.files.remove(at) {
            self.unused += name_at(&self.names, file.name).len() + 1;
        }
        if self.is_empty() && self.names.capacity() > SLACK {
            *self = Files::default();
        } else if self.unused > self.names.len() / 2 + SLACK {
            self.tidy();
        }
        true
    }

    /// Whether all were forgotten.
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Drops the names of those that were forgotten.
    fn tidy(&mut self) {
        let mut names = Vec::with_capacity(self.names.len() - self.unused);
        for file in self.files.iter_mut() {
            let name = name_at(&self.names, file.name);
            file.name = names.len() as u32; // no larger than it was among more
            names.extend_from_slice(name);
            names.push(END);
        }
        (self.names, self.unused) = (names, 0);
    }
}

fn name_at(names: &[u8], start: u32) -> &[u8] {
    let rest = names.get(start as usize..).unwrap_or_default();
    rest.split(|&byte| byte == END).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: u32) -> String {
        format!("{number}{}", "-long".repeat(number as usize % 5))
    }

    #[test]
    fn names_stay_while_others_are_forgotten_and_take_no_room_then() {
        let mut files = Files::default();
        let mut known = std::collections::BTreeMap::new();
        for number in 0..20_000 {
            let at = files.add(OsStr::new(&name(number)), number.into(), 7).unwrap();
            assert_eq!(known.insert(at, number), None, "no position is given twice");
            if number % 100 != 0 {
                // One that is there, sometimes itself.
                let gone = *known.keys().nth(number as usize * 31 % known.len()).unwrap();
                assert!(files.forget(gone, 1));
                known.remove(&gone);
            }
        }
        assert_eq!(known.len(), 200);
        for (&at, &number) in &known {
            let file = files.get(at).unwrap();
            assert_eq!((files.name(file), file.rest), (OsStr::new(&name(number)), number.into()));
        }
        assert!(files.files.room() < 300 && files.names.len() < 10_000);
        known.keys().for_each(|&at| assert!(!files.is_empty() && files.forget(at, 1)));
        assert!(files.is_empty());
    }

    #[test]
    fn a_file_is_forgotten_with_its_last_lookup() {
        let mut files = Files::default();
        let at = files.add(OsStr::new("file"), 1, 2).unwrap();
        files.get_mut(at).unwrap().look_up();
        files.get_mut(at).unwrap().mark_read();
        assert!(!files.forget(at, 1));
        assert!(files.get(at).unwrap().is_read());
        assert!(files.forget(at, 5));
        let again = files.add(OsStr::new("other"), 1, 2).unwrap();
        assert_eq!(again, at);
        assert!(!files.get(at).unwrap().is_read());
    }

    #[test]
    fn one_that_was_looked_up_too_often_to_count_stays() {
        let mut files = Files::default();
        let at = files.add(OsStr::new("file"), 1, 2).unwrap();
        files.get_mut(at).unwrap().lookups = NonZeroU32::new(MANY - 1).unwrap();
        files.get_mut(at).unwrap().look_up();
        files.get_mut(at).unwrap().look_up();
        assert!(!files.get(at).unwrap().is_read());
        assert!(!files.forget(at, u64::MAX));
        assert_eq!(files.name(files.get(at).unwrap()), "file");
    }
}

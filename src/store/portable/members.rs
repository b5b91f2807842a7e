//! What an archive holds: names, and where in it the bytes are.
//!
//! Nothing is unpacked, so what unpacking would do is worked out here: of two members of one name
//! the later counts, a hard link is what its target was at that moment, and symlinks are followed
//! within the archive alone.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::backing::{Bytes, Extent};
use crate::error::{Error, Result};
use crate::tar::header::Type;
use crate::tar::name::rooted;
use crate::tar::read::{Entries, Entry};

/// How many members are kept, and how many bytes of their names and maps.
const MEMBERS_MAX: usize = 1 << 17;
const WEIGHT_MAX: usize = 16 << 20;

/// How many symlinks one name may lead through (Linux `MAXSYMLINKS`).
const LINKS_MAX: u32 = 40;

/// The members of an archive by their clean names.
#[derive(Debug)]
pub(super) struct Members {
    archive: Arc<dyn Bytes>,
    by_name: HashMap<Box<[u8]>, Member>,
    damage: Option<Arc<Error>>,
}

#[derive(Debug, Clone)]
enum Member {
    File(File),
    Symlink(Box<[u8]>),
}

/// A file, perhaps with holes.
#[derive(Debug, Clone)]
struct File {
    size: u64,
    /// What of it is stored, and where in the archive; in order and apart from each other.
    extents: Arc<[Extent]>,
}

impl Members {
    /// Reads the headers of the archive that `archive` is. One that is damaged is read up to there.
    ///
    /// # Errors
    /// Fails where it is none, or holds more than is kept.
    pub(super) fn read(archive: Arc<dyn Bytes>) -> Result<Members> {
        let mut members =
            Members { archive: Arc::clone(&archive), by_name: HashMap::new(), damage: None };
        let mut entries = Entries::new(&*archive);
        let mut weight = 0_usize;
        loop {
            match entries.next() {
                Ok(Some(entry)) => {
                    weight += entry.name.len() + entry.link.len() + 24 * entry.extents.len();
                    if members.by_name.len() >= MEMBERS_MAX || weight > WEIGHT_MAX {
                        let what = "an archive of more files than are kept in mind";
                        return Err(Error::unsupported(archive.path(), what));
                    }
                    members.add(entry);
                }
                Ok(None) => return Ok(members),
                Err(err) if members.by_name.is_empty() => return Err(err),
                Err(err) => {
                    members.damage = Some(Arc::new(err));
                    return Ok(members);
                }
            }
        }
    }

    fn add(&mut self, entry: Entry) {
        let name = rooted(&entry.name);
        let member = match entry.kind {
            Some(Type::Regular) => {
                Some(Member::File(File { size: entry.size, extents: entry.extents.into() }))
            }
            Some(Type::HardLink) => self.by_name.get(&rooted(&entry.link)[..]).cloned(),
            Some(Type::Symlink) => Some(Member::Symlink(entry.link.into())),
            // What is there by that name stays below it.
            Some(Type::Directory) | None => return,
            Some(Type::CharDevice | Type::BlockDevice | Type::Fifo) => None,
        };
        match member {
            Some(member) => drop(self.by_name.insert(name.into(), member)),
            None => drop(self.by_name.remove(&name[..])),
        }
    }

    /// Where a member is, for messages.
    pub(super) fn path(&self, name: &[u8]) -> PathBuf {
        self.archive.path().join(OsStr::from_bytes(&rooted(name)))
    }

    /// The file `name`; `None` where there is none, or links lead nowhere.
    pub(super) fn find(&self, name: &[u8]) -> Option<Arc<dyn Bytes>> {
        let (name, file) = self.resolve(name)?;
        let path = self.path(&name);
        let (archive, file) = (Arc::clone(&self.archive), file.clone());
        Some(Arc::new(MemberBytes { archive, path, file }))
    }

    /// The file that `name` leads to, and its own name.
    fn resolve(&self, name: &[u8]) -> Option<(Vec<u8>, &File)> {
        let mut at = Vec::new();
        // What is left of the way, its next part last.
        let mut rest: Vec<Vec<u8>> = parts(name).rev().map(<[u8]>::to_vec).collect();
        let mut links = 0;
        while let Some(part) = rest.pop() {
            if part == b".." {
                at.truncate(at.iter().rposition(|&byte| byte == b'/').unwrap_or(0));
                continue;
            }
            let above = at.len();
            if above > 0 {
                at.push(b'/');
            }
            at.extend_from_slice(&part);
            match self.by_name.get(&at[..]) {
                Some(Member::File(file)) => return rest.is_empty().then_some((at, file)),
                Some(Member::Symlink(target)) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return None;
                    }
                    at.truncate(if target.starts_with(b"/") { 0 } else { above });
                    rest.extend(parts(target).rev().map(<[u8]>::to_vec));
                }
                None => {}
            }
        }
        None
    }

    /// The names of all members, in no order.
    pub(super) fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.by_name.keys().map(|name| &**name)
    }

    /// What is wrong with the archive.
    pub(super) fn damage(&self) -> Option<Arc<Error>> {
        self.damage.clone()
    }
}

/// The parts of a path that say something.
fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b"."))
}

/// The bytes of a member.
#[derive(Debug)]
struct MemberBytes {
    archive: Arc<dyn Bytes>,
    path: PathBuf,
    file: File,
}

impl Bytes for MemberBytes {
    fn len(&self) -> u64 {
        self.file.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let wanted = self.len().saturating_sub(offset).min(buf.len() as u64) as usize;
        let buf = &mut buf[..wanted];
        let extents = &self.file.extents;
        let mut next = extents.partition_point(|extent| extent.offset + extent.len <= offset);
        let mut done = 0;
        while done < wanted {
            let at = offset + done as u64;
            let rest = &mut buf[done..];
            done += match extents.get(next) {
                Some(extent) if extent.offset <= at => {
                    let into = at - extent.offset;
                    let count = rest.len().min((extent.len - into) as usize);
                    let read = self.archive.read_at(extent.from + into, &mut rest[..count])?;
                    if read != count {
                        return Err(Error::corrupt(&self.path, "shorter than it was"));
                    }
                    next += 1;
                    count
                }
                hole => {
                    let end = hole.map_or(self.len(), |extent| extent.offset);
                    let count = rest.len().min((end - at) as usize);
                    rest[..count].fill(0);
                    count
                }
            };
        }
        Ok(wanted)
    }

    fn stamp(&self) -> Result<u64> {
        self.archive.stamp()
    }

    fn version(&self) -> u64 {
        self.archive.version()
    }

    fn path(&self) -> PathBuf {
        self.path.clone()
    }
}

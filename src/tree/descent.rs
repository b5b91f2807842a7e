//! Which directory somebody lists next who goes through a tree as find, tar, du and `ls -R` do: the
//! first one below, else the next one beside, else that of the closest directory above.

use std::ffi::OsStr;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use lru::LruCache;

use super::merged::MergedTree;
use super::node::Node;
use super::{Reader, Tree};

/// Processes whose listing is watched.
const READERS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(15);

/// How many directories in a row somebody has to list as expected before his next one counts.
const USUAL: u32 = 2;

/// How many directories up the next one is looked for.
const UP: usize = 64;

/// Where processes are, by their ID.
#[derive(Debug)]
pub(super) struct Descents(Mutex<LruCache<u32, Descent>>);

#[derive(Debug, Default)]
struct Descent {
    /// Inode number of what is listed next.
    expected: Option<u64>,
    /// How many were so in a row.
    came: u32,
}

impl Default for Descents {
    fn default() -> Descents {
        Descents(Mutex::new(LruCache::new(READERS)))
    }
}

impl Descents {
    /// Notes that a process has listed `dir`, and that `next` may follow; whether that is likely.
    fn note(&self, pid: u32, dir: u64, next: Option<u64>) -> bool {
        let mut descents = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let descent = descents.get_or_insert_mut(pid, Descent::default);
        let came = if descent.expected == Some(dir) { descent.came.saturating_add(1) } else { 0 };
        *descent = Descent { expected: next, came };
        came >= USUAL
    }
}

impl Tree {
    /// Notes that `reader` has listed the directory `dir` to its end. The one that he will list
    /// next, where he is one who goes through a tree that nobody changes.
    pub fn next_dir(&self, dir: u64, reader: Reader) -> Option<u64> {
        let next = self.dir_after(dir);
        self.descents.note(reader.pid, dir, next).then_some(next)?
    }

    fn dir_after(&self, dir: u64) -> Option<u64> {
        let mut known = self.known(dir).ok()?;
        let mut at = dir;
        let mut behind = None;
        for _ in 0..UP {
            let Node::Merged { tree, entry, depth } = &*known.node else { return None };
            if tree.is_live() {
                return None;
            }
            if let Some(next) = self.dir_behind(at, tree, behind.as_deref()) {
                return Some(next);
            }
            if *depth == 0 {
                return None;
            }
            behind = Some(entry.name.clone());
            at = known.parent;
            known = self.known(at).ok()?;
        }
        None
    }

    /// The first directory in `dir` behind a name, as far as memory tells and the kernel knows it.
    fn dir_behind(&self, dir: u64, tree: &MergedTree, name: Option<&OsStr>) -> Option<u64> {
        let listed = self.merged_dirs.get(dir)?;
        let from = listed.entries.partition_point(|entry| Some(entry.name.as_os_str()) <= name);
        let next = listed.entries[from..].iter().find(|entry| entry.is_dir())?;
        self.inodes.find(&tree.identity(dir, next, 0)) // that of a directory has no depth
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_goes_through_a_tree_is_known_by_what_he_lists() {
        let descents = Descents::default();
        let likely = |pid, dir, next| descents.note(pid, dir, Some(next));
        assert!(!likely(1, 10, 11));
        assert!(!likely(1, 11, 12));
        assert!(likely(1, 12, 13));
        assert!(!likely(2, 13, 14), "another process");
        assert!(likely(1, 13, 14));
        assert!(!likely(1, 20, 21), "elsewhere");
        assert!(!descents.note(1, 21, None));
        assert!(!likely(1, 22, 23));
    }
}

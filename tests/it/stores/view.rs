//! A tree as a mount of it would be used: by path, in pieces.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

use stratafs::cache::{Cache, Disk};
use stratafs::error::Result;
use stratafs::store::{self, LayerStore, Source};
use stratafs::tree::{Attr, Options, ROOT, Reader, Tree};

/// Who reads.
pub(crate) const ROOT_USER: Reader = Reader { uid: 0, pid: 1 };

/// What a view has unless a test says otherwise. `STRATAFS_CACHE` names a cache for all tests to
/// share, as daemons do; with none, every tar is put together anew.
pub(crate) fn options() -> Options {
    let named = std::env::var_os("STRATAFS_CACHE");
    let disk = named.map(|path| Disk::open(Path::new(&path), 1 << 30).unwrap());
    let cache = disk.map(|disk| Arc::new(Cache::on(disk))).unwrap_or_default();
    Options { cache, ..Options::default() }
}

/// The tree of one store.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) tree: Tree,
}

impl View {
    pub(crate) fn of(store: &Path) -> View {
        View::with(store, options())
    }

    pub(crate) fn with(store: &Path, options: Options) -> View {
        let source = Source { kind: None, path: store.to_owned() };
        View::on(store::open(&source, &store::Context::default()).unwrap(), options)
    }

    pub(crate) fn on(store: Arc<dyn LayerStore>, options: Options) -> View {
        View { tree: Tree::new(vec![store], options) }
    }

    /// What is at a path, through no symlink.
    pub(crate) fn attr(&self, path: &str) -> Result<Attr> {
        let mut attr = self.tree.attr(ROOT)?;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            attr = self.tree.lookup(attr.ino, OsStr::new(name))?;
        }
        Ok(attr)
    }

    /// The whole of a file, in pieces of an odd size. Its length must be the size that it said.
    pub(crate) fn try_read(&self, path: &str) -> Result<Vec<u8>> {
        self.read_node(&self.attr(path)?)
    }

    pub(crate) fn read_node(&self, attr: &Attr) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut piece = vec![0; 12_345];
        loop {
            let read = self.tree.read(attr.ino, bytes.len() as u64, &mut piece, ROOT_USER)?;
            bytes.extend_from_slice(&piece[..read]);
            if read < piece.len() {
                assert_eq!(bytes.len() as u64, attr.size, "the size that stat gave");
                return Ok(bytes);
            }
        }
    }

    pub(crate) fn read(&self, path: &str) -> Vec<u8> {
        self.try_read(path).unwrap_or_else(|err| panic!("{path}: {err}"))
    }

    pub(crate) fn text(&self, path: &str) -> String {
        String::from_utf8(self.read(path)).unwrap()
    }

    /// `count` bytes from `offset` on.
    pub(crate) fn range(&self, ino: u64, offset: u64, count: usize) -> Result<Vec<u8>> {
        let mut piece = vec![0; count];
        let read = self.tree.read(ino, offset, &mut piece, ROOT_USER)?;
        piece.truncate(read);
        Ok(piece)
    }

    /// The names in a directory, as they are listed.
    pub(crate) fn names(&self, path: &str) -> Vec<String> {
        let listing = self.attr(path).and_then(|attr| self.tree.read_dir(attr.ino));
        let listing = listing.unwrap_or_else(|err| panic!("{path}: {err}"));
        listing.children.iter().map(|child| child.name.to_str().unwrap().to_owned()).collect()
    }

    /// Where a symlink leads.
    pub(crate) fn link(&self, path: &str) -> String {
        let target = self.attr(path).and_then(|attr| self.tree.read_link(attr.ino));
        String::from_utf8(target.unwrap_or_else(|err| panic!("{path}: {err}"))).unwrap()
    }
}

//! The tar of an exported layer, as a recipe: headers at hand, contents from its files.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

use crate::backing::{Bytes, Root};
use crate::error::{Error, Result};
use crate::recipe::{Recipe, RecipeBuilder};
use crate::tar::header::{self, Header, Type};
use crate::tar::{BLOCK, TRAILER};
use crate::windows::reader::{File, FileStream, Form, LayerReader};
use crate::windows::records::{Metadata, Problem, Records};
use crate::windows::stream::Data;

/// Before a name that a layer deletes (OCI image-spec, layer.md, "Whiteouts").
const WHITEOUT_PREFIX: &[u8] = b".wh.";

/// Bits of the mode that say what an entry is (go-winio `backuptar`), and that of a hard link.
const IS_DIRECTORY: u32 = 0o040_000;
const IS_FILE: u32 = 0o100_000;
const IS_LINK: u32 = 0o120_000;
const HARD_LINK: u32 = 0o644;

/// The tar of an exported layer.
#[derive(Debug)]
pub(super) struct LayerTar {
    recipe: Recipe,
    path: PathBuf,
    /// A file is not as it was, or the layer was read anew: shared by all layers of an image.
    is_stale: Arc<AtomicBool>,
}

impl LayerTar {
    /// Arranges the tar of the layer in the directory `root`. Reads no contents.
    ///
    /// # Errors
    /// Fails where the layer is damaged, can't be read, or holds what no tar can tell.
    pub(super) fn new(
        root: &Arc<Root>,
        form: Form,
        is_stale: &Arc<AtomicBool>,
    ) -> Result<LayerTar> {
        let (recipe, path) = (arrange(root, form)?, root.path().to_owned());
        Ok(LayerTar { recipe, path, is_stale: Arc::clone(is_stale) })
    }
}

impl Bytes for LayerTar {
    fn len(&self) -> u64 {
        self.recipe.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let read = self.recipe.read_at(offset, buf);
        if read.as_ref().is_err_and(|err| err.errno() == Errno::STALE) {
            self.is_stale.store(true, Ordering::Relaxed);
        }
        read
    }

    /// Only one: a file that is not as it was can't be read.
    fn stamp(&self) -> Result<u64> {
        match self.is_stale.load(Ordering::Relaxed) {
            false => Ok(1),
            true => Err(Error::stale(&self.path)),
        }
    }

    fn path(&self) -> PathBuf {
        self.path.clone()
    }
}

fn arrange(root: &Arc<Root>, form: Form) -> Result<Recipe> {
    let mut reader = LayerReader::new(root, form)?;
    let mut tar = Tar::default();
    while let Some(entry) = reader.next_entry()? {
        let pushed = match &entry.file {
            None => tar.push_deleted(&entry.path),
            Some(file) => tar.push(&entry.path, file),
        };
        pushed.map_err(|problem| {
            let path = root.path().join(String::from_utf8_lossy(&entry.path).as_ref());
            match problem {
                Failure::Problem(Problem::Malformed(why)) => Error::corrupt(path, why),
                Failure::Problem(Problem::Unsupported(what)) => Error::unsupported(path, what),
                Failure::Header(header::CannotEncode(why)) => Error::unsupported(path, why),
                Failure::Other(err) => err,
            }
        })?;
    }
    reader.close()?;
    tar.recipe.push_zeros(TRAILER);
    tar.recipe.finish()
}

/// Why an entry can't be told.
enum Failure {
    Problem(Problem),
    Header(header::CannotEncode),
    Other(Error),
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Failure {
        Failure::Problem(problem)
    }
}

impl From<Error> for Failure {
    fn from(err: Error) -> Failure {
        Failure::Other(err)
    }
}

/// A tar while it is arranged.
#[derive(Default)]
struct Tar {
    recipe: RecipeBuilder,
    /// The first name of each file that has several, by device and inode number.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl Tar {
    fn push_deleted(&mut self, path: &[u8]) -> Result<(), Failure> {
        let base = path.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
        let (directory, name) = path.split_at(base);
        let name = [directory, WHITEOUT_PREFIX, name].concat();
        self.push_header(&Header::new(name, Type::Regular))
    }

    fn push(&mut self, path: &[u8], file: &File) -> Result<(), Failure> {
        let metadata = Metadata::from_stream(file.info, &file.contents)?;
        let header = described(path, &metadata, file);
        if let Some(links) = file.links {
            if let Some(first) = self.links.get(&links) {
                let link = first.clone();
                return self.push_header(&hard_link(path, &metadata, link));
            }
            self.links.insert(links, path.to_vec());
        }
        self.push_header(&header)?;
        if let (Type::Regular, Some(data)) = (header.typeflag, &file.contents.data) {
            self.push_data(&file.stream, data)?;
        }
        for (name, data) in &file.contents.alternates {
            let mut records = header.records.clone();
            records.retain(|key, _| matches!(&key[..], b"atime" | b"ctime" | b"mtime"));
            self.push_header(&Header {
                mode: header.mode,
                mtime: header.mtime,
                size: data.size,
                records,
                ..Header::new([path, b":", name.as_bytes()].concat(), Type::Regular)
            })?;
            self.push_data(&file.stream, data)?;
        }
        Ok(())
    }

    fn push_header(&mut self, header: &Header) -> Result<(), Failure> {
        let mut blocks = Vec::new();
        header::encode(header, &mut blocks).map_err(Failure::Header)?;
        self.recipe.push_inline(&blocks);
        Ok(())
    }

    fn push_data(&mut self, stream: &FileStream, data: &Data) -> Result<()> {
        let mut at = 0;
        for block in &data.blocks {
            self.recipe.push_zeros(block.at - at); // blocks are in order, without overlap
            self.recipe.push_bytes(stream.part(block.offset, block.len)?);
            at = block.at + block.len;
        }
        self.recipe.push_zeros(data.size - at);
        self.recipe.pad_to(BLOCK);
        Ok(())
    }
}

/// The header of a file's first name.
fn described(path: &[u8], metadata: &Metadata, file: &File) -> Header {
    let mut mode = 0;
    if metadata.info.is_directory() {
        mode |= IS_DIRECTORY;
    }
    if file.contents.data.is_some() {
        mode |= IS_FILE;
    }
    let (typeflag, link) = match &metadata.link {
        Some(link) => (Type::Symlink, link.target.clone().into_bytes()),
        None if metadata.info.is_directory() => (Type::Directory, Vec::new()),
        None => (Type::Regular, Vec::new()),
    };
    if typeflag == Type::Symlink {
        mode |= IS_LINK;
    }
    let size = if typeflag == Type::Regular { file.size } else { 0 };
    let mtime = metadata.info.write.to_time().secs;
    let records = metadata.to_records();
    Header { mode, size, mtime, link, records, ..Header::new(path.to_vec(), typeflag) }
}

/// The header of a further name.
fn hard_link(path: &[u8], metadata: &Metadata, link: Vec<u8>) -> Header {
    let Metadata { info, .. } = *metadata;
    let bare = Metadata { info, security: None, ea: Vec::new(), link: None };
    let mtime = info.write.to_time().secs;
    let records: Records = bare.to_records();
    let named = Header::new(path.to_vec(), Type::HardLink);
    Header { mode: HARD_LINK, mtime, link, records, ..named }
}

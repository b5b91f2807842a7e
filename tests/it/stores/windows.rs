//! Exported Windows layers, made by hand: what `ExportLayer` would leave behind.
//!
//! The encoders here are others than those of the crate, so that a mistake shows.

use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// When files were written: a second, and a fraction that Windows can tell.
pub(crate) const WRITTEN: (u64, u32) = (1_600_000_000, 123_456_700);

/// When the system's registry hive was written.
pub(crate) const HIVE: (u64, u32) = (1_600_000_100, 0);

pub(crate) const DIRECTORY: u32 = 0x10;
pub(crate) const ARCHIVE: u32 = 0x20;
pub(crate) const LINK: u32 = 0x420;
pub(crate) const JUNCTION: u32 = 0x410;

/// A security descriptor: no owner, an empty list.
pub(crate) const SECURITY: &[u8] =
    b"\x01\0\x04\x80\0\0\0\0\0\0\0\0\0\0\0\0\x14\0\0\0\x02\0\x08\0\0\0\0\0";

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// One stream of a backup stream.
pub(crate) fn stream(id: u32, attributes: u32, name: &str, data: &[u8]) -> Vec<u8> {
    let name = utf16(name);
    let mut bytes = id.to_le_bytes().to_vec();
    bytes.extend(attributes.to_le_bytes());
    bytes.extend((data.len() as u64).to_le_bytes());
    bytes.extend((name.len() as u32).to_le_bytes());
    bytes.extend(name);
    bytes.extend(data);
    bytes
}

pub(crate) fn data(bytes: &[u8]) -> Vec<u8> {
    stream(1, 0, "", bytes)
}

pub(crate) fn security() -> Vec<u8> {
    stream(3, 0, "", SECURITY)
}

pub(crate) fn alternate(name: &str, bytes: &[u8]) -> Vec<u8> {
    stream(4, 0, &format!(":{name}:$DATA"), bytes)
}

/// Extended attributes, the names sorted.
pub(crate) fn ea(list: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (index, (name, value)) in list.iter().enumerate() {
        let length = (8 + name.len() + 1 + value.len()).next_multiple_of(4);
        let next = if index + 1 == list.len() { 0 } else { length as u32 };
        let end = bytes.len() + length;
        bytes.extend(next.to_le_bytes());
        bytes.extend([0, name.len() as u8]);
        bytes.extend((value.len() as u16).to_le_bytes());
        bytes.extend(name.as_bytes());
        bytes.push(0);
        bytes.extend(*value);
        bytes.resize(end, 0);
    }
    stream(2, 0, "", &bytes)
}

/// A symbolic link (`flags`: 1 where it is relative), or a mount point.
pub(crate) fn reparse(tag: u32, flags: Option<u32>, substitute: &str, print: &str) -> Vec<u8> {
    let (to, shown) = (utf16(substitute), utf16(print));
    let mut names = Vec::new();
    for number in [0, to.len(), to.len() + 2, shown.len()] {
        names.extend((number as u16).to_le_bytes());
    }
    names.extend(flags.into_iter().flat_map(u32::to_le_bytes));
    for name in [to, shown] {
        names.extend(name);
        names.extend([0, 0]);
    }
    let mut bytes = tag.to_le_bytes().to_vec();
    bytes.extend((names.len() as u32).to_le_bytes());
    bytes.extend(names);
    stream(8, 0, "", &bytes)
}

pub(crate) fn symlink(target: &str) -> Vec<u8> {
    reparse(0xa000_000c, Some(1), target, target)
}

pub(crate) fn junction(target: &str) -> Vec<u8> {
    reparse(0xa000_0003, None, &format!("\\??\\{target}"), target)
}

/// A sparse file: its blocks, and where it ends.
pub(crate) fn sparse(blocks: &[(u64, &[u8])], end: u64) -> Vec<u8> {
    let mut bytes = stream(1, 8, "", b"");
    for (offset, data) in blocks.iter().chain([&(end, &b""[..])]) {
        bytes.extend(stream(9, 0, "", &[&offset.to_le_bytes(), *data].concat()));
    }
    bytes
}

/// Sets when a file was written.
pub(crate) fn set_time(path: &Path, (secs, nanos): (u64, u32)) {
    let time = UNIX_EPOCH + Duration::new(secs, nanos);
    let times = FileTimes::new().set_modified(time).set_accessed(time);
    File::open(path).unwrap().set_times(times).unwrap();
}

/// An exported layer.
#[derive(Debug)]
pub(crate) struct Exported {
    pub(crate) dir: PathBuf,
    tombstones: String,
}

impl Exported {
    /// `Files`, `Hives` with the system's hive, and nothing else.
    pub(crate) fn create(dir: &Path) -> Exported {
        fs::create_dir_all(dir.join("Files")).unwrap();
        fs::create_dir_all(dir.join("Hives")).unwrap();
        let layer = Exported { dir: dir.to_owned(), tombstones: "\u{feff}Version 1.0\n".into() };
        layer.plain("Hives/System_Delta", b"regf", HIVE);
        layer
    }

    /// A file beneath `Files`: attributes, then its streams.
    pub(crate) fn file(&self, path: &str, attributes: u32, streams: &[Vec<u8>]) {
        let bytes = [&attributes.to_le_bytes()[..], &streams.concat()].concat();
        self.plain(&format!("Files/{path}"), &bytes, WRITTEN);
    }

    /// A directory beneath `Files`, with the file that describes it.
    pub(crate) fn directory(&self, path: &str, attributes: u32, streams: &[Vec<u8>]) {
        fs::create_dir(self.dir.join("Files").join(path)).unwrap();
        self.file(&format!("{path}.$wcidirs$"), attributes, streams);
    }

    /// Any file, as it is.
    pub(crate) fn plain(&self, path: &str, bytes: &[u8], written: (u64, u32)) {
        let path = self.dir.join(path);
        fs::write(&path, bytes).unwrap();
        set_time(&path, written);
    }

    /// A path beneath `Files` that is deleted.
    pub(crate) fn delete(&mut self, path: &str) {
        self.tombstones += &format!("\\{path}\n");
    }

    /// Writes down what is deleted.
    pub(crate) fn finish(self) -> PathBuf {
        fs::write(self.dir.join("tombstones.txt"), self.tombstones).unwrap();
        self.dir
    }
}

/// A layer with all that its tar can tell, in the order in which unpacking writes it.
pub(crate) fn canonical(dir: &Path) -> PathBuf {
    let mut layer = Exported::create(dir);
    layer.directory("Windows", DIRECTORY, &[security()]);
    layer.directory("Windows/System32", 0x2010, &[security(), alternate("dir", b"of a directory")]);
    let attributes: &[(&str, &[u8])] = &[("$KERNEL.PURGE", &[1, 0, 255]), ("EMPTY", b"")];
    let streams = [
        security(),
        ea(attributes),
        data(&[7; 70_000]),
        alternate("Zone.Identifier", b"[ZoneTransfer]"),
        alternate("empty", b""),
    ];
    layer.file("Windows/System32/all.dll", 0x21, &streams);
    layer.file("Windows/empty.txt", ARCHIVE, &[security(), data(b"")]);
    layer.file("Windows/nothing", ARCHIVE, &[]);
    layer.file("Windows/na\u{ef}ve \u{1f600}.txt", ARCHIVE, &[data(b"names")]);
    layer.file("link", LINK, &[security(), symlink("Windows\\System32\\all.dll")]);
    layer.directory("Documents and Settings", JUNCTION, &[junction("C:\\Users")]);
    layer.file("first", ARCHIVE, &[data(b"two names")]);
    fs::hard_link(dir.join("Files/first"), dir.join("Files/second")).unwrap();
    layer.delete("gone.txt");
    layer.delete("Windows\\old");
    layer.delete("Windows\\older");
    layer.plain("Hives/Software_Delta", b"regf2", (1_600_000_200, 5_000_000));
    fs::create_dir_all(dir.join("UtilityVM/Files/EFI")).unwrap();
    layer.plain("UtilityVM/Files/EFI/boot.efi", b"MZ", WRITTEN);
    for directory in ["UtilityVM/Files/EFI", "UtilityVM/Files", "UtilityVM"] {
        set_time(&dir.join(directory), WRITTEN);
    }
    layer.finish()
}

/// A layer with what no tar can tell whole: every kind of stream, in another order.
pub(crate) fn lossy(dir: &Path) -> PathBuf {
    let mut layer = Exported::create(dir);
    let dropped = [5, 6, 7, 10].map(|id| stream(id, 0, "", b"dropped"));
    let mut flagged = ea(&[("B", b"2"), ("A", b"1")]);
    flagged[24] = 0x80;
    let blocks: &[(u64, &[u8])] = &[(4096, b"block"), (65_536, &[9; 5000])];
    let mut streams = dropped.to_vec();
    streams.extend([sparse(blocks, 100_000), flagged, security()]);
    streams.push(stream(4, 8, ":sparse:$DATA", b""));
    streams.push(stream(9, 0, "", &[&8u64.to_le_bytes()[..], b"x"].concat()));
    streams.extend(dropped);
    layer.file("sparse", 0x220, &streams);
    layer.file("allocated", 0x220, &[stream(1, 8, "", b"sparse in name alone")]);
    layer.delete("x");
    layer.finish()
}

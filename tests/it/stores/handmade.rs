//! A Docker data root on overlay2, made by hand: layers of whatever files a test writes, with the
//! tar-split record that Docker would keep of them.
//!
//! What writes the tars and the records here shares nothing with what stratafs reads them by.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// When everything was made, unless a test says otherwise.
pub(crate) const CREATED: &str = "2024-05-06T07:08:09.123456789Z";

/// The same in seconds since 1970.
pub(crate) const CREATED_SECS: i64 = 1_714_979_289;

/// A data root in a directory.
#[derive(Debug)]
pub(crate) struct DataRoot {
    path: PathBuf,
    references: BTreeMap<String, BTreeMap<String, String>>,
    /// How many directories of the driver were made.
    made: u32,
}

/// A layer that was made.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    /// With `sha256:`, as every digest here.
    pub(crate) diff_id: String,
    pub(crate) chain_id: String,
    /// Where its files lie.
    pub(crate) diff: PathBuf,
    /// Its tar.
    pub(crate) tar: Vec<u8>,
    /// Its short name and those of the layers below, as `lower` files have them.
    links: Vec<String>,
}

/// A container that was made.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    /// 64 hex digits.
    pub(crate) id: String,
    /// Where its own files lie.
    pub(crate) diff: PathBuf,
}

impl DataRoot {
    /// An empty one in the directory `path`.
    pub(crate) fn create(path: &Path) -> DataRoot {
        let image = path.join("image/overlay2");
        for directory in [
            "imagedb/content/sha256",
            "imagedb/metadata/sha256",
            "layerdb/sha256",
            "layerdb/mounts",
            "layerdb/tmp",
        ] {
            fs::create_dir_all(image.join(directory)).unwrap();
        }
        fs::create_dir_all(path.join("overlay2/l")).unwrap();
        fs::create_dir(path.join("containers")).unwrap();
        let root = DataRoot { path: path.to_owned(), references: BTreeMap::new(), made: 0 };
        root.write_references();
        root
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// `image/overlay2`.
    pub(crate) fn metadata(&self) -> PathBuf {
        self.path.join("image/overlay2")
    }

    /// A layer upon `below`, with what `fill` writes into its directory. Deletions are 0/0 devices
    /// there, and opaque directories have their xattr, as overlayfs makes them.
    pub(crate) fn layer(&mut self, below: Option<&Layer>, fill: impl FnOnce(&Path)) -> Layer {
        let lowers = below.map_or(&[][..], |below| &below.links);
        let (cache_id, links) = self.directory("", lowers);
        let diff = self.path.join("overlay2").join(&cache_id).join("diff");
        fill(&diff);
        let packed = pack(&diff);
        let diff_id = digest(&packed.tar);
        let chain_id = match below {
            None => diff_id.clone(),
            Some(below) => digest(format!("{} {diff_id}", below.chain_id).as_bytes()),
        };
        let record = self.record(&chain_id);
        fs::create_dir_all(&record).unwrap();
        let write = |name: &str, bytes: &[u8]| fs::write(record.join(name), bytes).unwrap();
        write("cache-id", cache_id.as_bytes());
        write("diff", diff_id.as_bytes());
        write("size", packed.size.to_string().as_bytes());
        write("tar-split.json.gz", &gzip(&packed.lines));
        if let Some(below) = below {
            write("parent", below.chain_id.as_bytes());
        }
        Layer { diff_id, chain_id, diff, tar: packed.tar, links }
    }

    /// The directory in `layerdb` of the layer with that chain ID.
    pub(crate) fn record(&self, chain_id: &str) -> PathBuf {
        self.metadata().join("layerdb/sha256").join(hex_of(chain_id))
    }

    /// An image of these layers, lowest first, made at `created`; its ID.
    pub(crate) fn image(&mut self, layers: &[&Layer], created: &str) -> String {
        let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
        let step = json!({ "created": created, "created_by": "/bin/sh -c make" });
        let config = json!({
            "architecture": "amd64",
            "config": { "Cmd": ["/bin/sh"], "Env": ["PATH=/bin"] },
            "created": created,
            "history": vec![step; layers.len()],
            "os": "linux",
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        })
        .to_string();
        let id = digest(config.as_bytes());
        fs::write(self.config(&id), config).unwrap();
        id
    }

    /// Where the config of an image is.
    pub(crate) fn config(&self, id: &str) -> PathBuf {
        self.metadata().join("imagedb/content/sha256").join(hex_of(id))
    }

    /// Lets `reference` (`repository:tag` or `repository@digest`) mean the image `id`.
    pub(crate) fn tag(&mut self, reference: &str, id: &str) {
        let repository = repository_of(reference).to_owned();
        let references = self.references.entry(repository).or_default();
        references.insert(reference.to_owned(), id.to_owned());
        self.write_references();
    }

    /// Takes a reference away.
    pub(crate) fn untag(&mut self, reference: &str) {
        let repository = repository_of(reference);
        let references = self.references.get_mut(repository).unwrap();
        references.remove(reference).unwrap();
        if references.is_empty() {
            self.references.remove(repository);
        }
        self.write_references();
    }

    /// As Docker does: a new file that takes the place of the old one.
    fn write_references(&self) {
        let json = json!({ "Repositories": self.references }).to_string();
        let path = self.metadata().join("repositories.json");
        let new = path.with_extension("tmp");
        fs::write(&new, json).unwrap();
        fs::rename(new, path).unwrap();
    }

    /// A container of the image `image`, whose top layer is `top`, with what `fill` writes into
    /// its writable layer. `state` is its `State` in `config.v2.json`.
    pub(crate) fn container(
        &mut self,
        name: &str,
        image: (&str, &str),
        top: &Layer,
        state: &Value,
        fill: impl FnOnce(&Path),
    ) -> Container {
        let id = hex_of(&digest(format!("container {name}").as_bytes())).to_owned();
        let (reference, image) = image;
        let (init_id, init_links) = self.directory("-init", &top.links);
        let mount_id = init_id.strip_suffix("-init").unwrap().to_owned();
        fs::write(self.path.join("overlay2").join(&init_id).join("diff/.dockerenv"), "").unwrap();
        self.driver_directory(&mount_id, &init_links);
        let diff = self.path.join("overlay2").join(&mount_id).join("diff");
        fill(&diff);
        let mount = self.metadata().join("layerdb/mounts").join(&id);
        fs::create_dir(&mount).unwrap();
        for (name, value) in
            [("mount-id", &mount_id), ("init-id", &init_id), ("parent", &top.chain_id)]
        {
            fs::write(mount.join(name), value).unwrap();
        }
        let config = json!({
            "ID": id,
            "Name": format!("/{name}"),
            "Image": image,
            "Created": CREATED,
            "Driver": "overlay2",
            "Path": "/bin/sh",
            "Args": [],
            "Config": { "Image": reference, "Cmd": ["/bin/sh"] },
            "State": state,
        });
        let directory = self.path.join("containers").join(&id);
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("config.v2.json"), format!("{config}\n")).unwrap();
        fs::write(directory.join("hostconfig.json"), "{}\n").unwrap();
        Container { id, diff }
    }

    /// Makes a directory of the driver with a new name, upon those of the short names `lowers`;
    /// its name, and its short name with those.
    fn directory(&mut self, suffix: &str, lowers: &[String]) -> (String, Vec<String>) {
        self.made += 1;
        let id = format!("{:064x}{suffix}", self.made);
        let links = self.driver_directory(&id, lowers);
        (id, links)
    }

    fn driver_directory(&self, id: &str, lowers: &[String]) -> Vec<String> {
        let home = self.path.join("overlay2");
        let link = short_name(id);
        let directory = home.join(id);
        fs::create_dir_all(directory.join("diff")).unwrap();
        fs::create_dir(directory.join("work")).unwrap();
        fs::write(directory.join("link"), &link).unwrap();
        symlink(format!("../{id}/diff"), home.join("l").join(&link)).unwrap();
        if !lowers.is_empty() {
            let lower: Vec<String> = lowers.iter().map(|link| format!("l/{link}")).collect();
            fs::write(directory.join("lower"), lower.join(":")).unwrap();
        }
        [&[link][..], lowers].concat()
    }
}

/// The `State` of a container that ended.
pub(crate) fn exited() -> Value {
    json!({ "Running": false, "StartedAt": CREATED, "FinishedAt": CREATED, "ExitCode": 0 })
}

/// `sha256:` and the digest of `bytes`.
pub(crate) fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// The hex digits of a digest.
pub(crate) fn hex_of(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap()
}

/// Sets the mtime of a file, in seconds and nanoseconds, through no symlink.
pub(crate) fn set_mtime(path: &Path, secs: i64, nanos: i64) {
    let time = rustix::fs::Timespec { tv_sec: secs, tv_nsec: nanos };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, flags).unwrap();
}

/// Makes a whiteout. Needs root.
pub(crate) fn whiteout(path: &Path) {
    let kind = rustix::fs::FileType::CharacterDevice;
    let mode = rustix::fs::Mode::empty();
    rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).unwrap();
}

/// Makes a directory hide what lies below it. Needs root.
pub(crate) fn make_opaque(path: &Path) {
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::lsetxattr(path, "trusted.overlay.opaque", b"y", flags).unwrap();
}

/// The lines of a gzip-compressed tar-split record.
pub(crate) fn read_record(path: &Path) -> Vec<Value> {
    let gzip = flate2::read::GzDecoder::new(fs::File::open(path).unwrap());
    let text = std::io::read_to_string(gzip).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Writes such a record.
pub(crate) fn write_record(path: &Path, lines: &[Value]) {
    let text: Vec<u8> = lines.iter().flat_map(|line| format!("{line}\n").into_bytes()).collect();
    fs::write(path, gzip(&text)).unwrap();
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn repository_of(reference: &str) -> &str {
    match reference.split_once('@') {
        Some((repository, _)) => repository,
        None => reference.rsplit_once(':').unwrap().0,
    }
}

/// 26 characters of base32 that tell the directory `id`.
fn short_name(id: &str) -> String {
    let digest = Sha256::digest(id);
    let letter =
        |byte: &u8| char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[usize::from(byte % 32)]);
    digest.iter().take(26).map(letter).collect()
}

/// A tar and its tar-split record, uncompressed.
#[derive(Debug, Default)]
struct Packed {
    tar: Vec<u8>,
    lines: Vec<u8>,
    position: u64,
    /// Up to where the record goes.
    recorded: usize,
    /// Bytes of contents.
    size: u64,
    /// Inode numbers of files with several names, and the first.
    links: HashMap<u64, PathBuf>,
}

/// The tar of a layer's directory: names sorted, as Docker commits it.
fn pack(diff: &Path) -> Packed {
    let mut packed = Packed::default();
    packed.push_directory(diff, Path::new(""));
    packed.tar.resize(packed.tar.len() + 1024, 0);
    packed.record_segment();
    packed
}

impl Packed {
    fn push_directory(&mut self, directory: &Path, name: &Path) {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        for entry in names {
            let (path, name) = (directory.join(&entry), name.join(&entry));
            self.push(&path, &name);
            if path.symlink_metadata().unwrap().is_dir() {
                self.push_directory(&path, &name);
            }
        }
    }

    fn push(&mut self, path: &Path, name: &Path) {
        let meta = path.symlink_metadata().unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_metadata_in_mode(&meta, tar::HeaderMode::Complete);
        header.set_size(0);
        header.set_mode(meta.mode() & 0o7777);
        let kind = meta.file_type();
        let mut shown = name.to_owned();
        let mut target = PathBuf::new();
        let mut body = Vec::new();
        if kind.is_char_device() && meta.rdev() == 0 {
            shown = name.with_file_name(prefixed(b".wh.", name.file_name().unwrap()));
            header.set_entry_type(tar::EntryType::Regular);
        } else if kind.is_dir() {
            shown = name.join("");
        } else if kind.is_symlink() {
            target = fs::read_link(path).unwrap();
        } else if meta.nlink() > 1 && self.links.contains_key(&meta.ino()) {
            header.set_entry_type(tar::EntryType::Link);
            target = self.links[&meta.ino()].clone();
        } else if kind.is_file() {
            body = fs::read(path).unwrap();
            self.links.insert(meta.ino(), name.to_owned());
            header.set_size(body.len() as u64);
        }
        self.push_entry(header, &shown, &target, &body);
        if kind.is_dir() && is_opaque(path) {
            let mut mark = tar::Header::new_gnu();
            mark.set_size(0);
            mark.set_mode(meta.mode() & 0o777);
            self.push_entry(mark, &name.join(".wh..wh..opq"), Path::new(""), b"");
        }
    }

    fn push_entry(&mut self, mut header: tar::Header, name: &Path, target: &Path, body: &[u8]) {
        let mut builder = tar::Builder::new(Vec::new());
        if target.as_os_str().is_empty() {
            builder.append_data(&mut header, name, std::io::empty()).unwrap();
        } else {
            builder.append_link(&mut header, name, target).unwrap();
        }
        let headers = builder.get_ref().clone();
        self.tar.extend_from_slice(&headers);
        let file = |payload: Value| {
            let mut line = json!({ "type": 1, "payload": payload });
            match name.to_str() {
                Some(name) => line["name"] = name.into(),
                None => line["name_raw"] = STANDARD.encode(name.as_os_str().as_bytes()).into(),
            }
            if !body.is_empty() {
                line["size"] = body.len().into();
            }
            line
        };
        self.record_segment();
        if body.is_empty() {
            self.record(file(Value::Null));
            return;
        }
        self.record(file(STANDARD.encode(crc64(body).to_be_bytes()).into()));
        self.size += body.len() as u64;
        self.tar.extend_from_slice(body);
        self.recorded = self.tar.len();
        self.tar.resize(self.tar.len().next_multiple_of(512), 0);
    }

    /// Records what was added since the last time, as it is.
    fn record_segment(&mut self) {
        if self.recorded < self.tar.len() {
            let payload = STANDARD.encode(&self.tar[self.recorded..]);
            self.recorded = self.tar.len();
            self.record(json!({ "type": 2, "payload": payload }));
        }
    }

    fn record(&mut self, mut line: Value) {
        line["position"] = self.position.into();
        self.position += 1;
        writeln!(self.lines, "{line}").unwrap();
    }
}

fn prefixed(prefix: &[u8], name: &OsStr) -> std::ffi::OsString {
    std::ffi::OsString::from_vec([prefix, name.as_bytes()].concat())
}

fn is_opaque(path: &Path) -> bool {
    let mut value = [0; 2];
    let length = rustix::fs::lgetxattr(path, "trusted.overlay.opaque", &mut value[..]);
    length.is_ok_and(|length| value[..length] == *b"y")
}

/// CRC-64/GO-ISO, a byte at a time (formats.md 3.6).
pub(crate) fn crc64(bytes: &[u8]) -> u64 {
    const TABLE: [u64; 256] = {
        let mut table = [0; 256];
        let mut index = 0;
        while index < 256 {
            let mut crc = index as u64;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 1 == 1 { (crc >> 1) ^ 0xd800_0000_0000_0000 } else { crc >> 1 };
                bit += 1;
            }
            table[index] = crc;
            index += 1;
        }
        table
    };
    let step = |crc: u64, byte: &u8| TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8);
    !bytes.iter().fold(!0, step)
}

//! What is known of a file of a Windows layer, as extended header records of a tar (go-winio
//! `backuptar`, libarchive) and as xattrs, by which it is shown.
//!
//! A tar has no room for everything: flags of extended attributes, object IDs, link, property and
//! TxF data are lost on the way, and a sparse file has zeros for its holes.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::ea::{self, Ea};
use super::reparse::{self, Link};
use super::stream::{Contents, Header, Kind};
use super::{
    ARCHIVE, BasicInfo, DIRECTORY, DIRECTORY_SUFFIX, FileTime, Malformed, READ_ONLY, REPARSE_POINT,
    sddl,
};
use crate::backing::{FileKind, Time};
use crate::time::{format_pax, parse_pax};

/// Records of one extended header, by key.
pub type Records = BTreeMap<Vec<u8>, Vec<u8>>;

/// Win32 attributes, decimal. Every entry of a Windows layer has it but whiteouts and alternate
/// streams.
const ATTRIBUTES: &[u8] = b"MSWINDOWS.fileattr";
/// The security descriptor, in base64.
const SECURITY: &[u8] = b"MSWINDOWS.rawsd";
/// The security descriptor as SDDL, in older tars.
const SDDL: &[u8] = b"MSWINDOWS.sd";
/// `1` where a symlink is a mount point.
const MOUNT_POINT: &[u8] = b"MSWINDOWS.mountpoint";
/// Before the name of an extended attribute; the value is in base64.
const EA: &[u8] = b"MSWINDOWS.xattr.";
/// When the file was made.
const CREATION: &[u8] = b"LIBARCHIVE.creationtime";
/// When the file was last read.
const ACCESS: &[u8] = b"atime";
/// When anything of it was last changed.
const CHANGE: &[u8] = b"ctime";
/// When its contents were last changed.
const WRITE: &[u8] = b"mtime";

/// Xattr: Win32 attributes, decimal.
pub const XATTR_ATTRIBUTES: &str = "user.win.attributes";
/// Xattr: when the file was made, in seconds since 1970. The last change of its contents is its
/// mtime.
pub const XATTR_CREATION: &str = "user.win.creationtime";
/// Xattr: when it was last read.
pub const XATTR_ACCESS: &str = "user.win.accesstime";
/// Xattr: when anything of it was last changed.
pub const XATTR_CHANGE: &str = "user.win.changetime";
/// Xattr: the security descriptor, self-relative.
pub const XATTR_SECURITY: &str = "user.win.sd";
/// Xattr: the data of a reparse point.
pub const XATTR_REPARSE: &str = "user.win.reparse";
/// Before the name of an extended attribute.
pub const XATTR_EA: &str = "user.win.ea.";
/// Before the name of an alternate data stream.
pub const XATTR_STREAM: &str = "user.win.stream.";
/// Longest value of an xattr, in bytes (Linux `XATTR_SIZE_MAX`).
pub const XATTR_MAX: usize = 65536;
/// Xattr: the raw backup stream.
pub const XATTR_BACKUP: &str = "user.stratafs.win32";

/// What is known of a file beside its contents and its alternate streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// Times and attributes.
    pub info: BasicInfo,
    /// The security descriptor.
    pub security: Option<Vec<u8>>,
    /// Extended attributes.
    pub ea: Vec<Ea>,
    /// Where a symbolic link or a mount point leads.
    pub link: Option<Link>,
}

/// Why a file can't be told by a tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// It is of a kind that has no place there.
    Unsupported(String),
    /// It is damaged.
    Malformed(Malformed),
}

impl From<Malformed> for Problem {
    fn from(err: Malformed) -> Problem {
        Problem::Malformed(err)
    }
}

impl Metadata {
    /// What a backup stream tells.
    ///
    /// # Errors
    /// Fails where it is damaged, or a reparse point that is no link.
    pub fn from_stream(info: BasicInfo, contents: &Contents) -> Result<Metadata, Problem> {
        let link = contents.reparse.as_deref().map(reparse::parse).transpose();
        let link = link.map_err(|problem| match problem {
            reparse::Problem::Unsupported(tag) => {
                Problem::Unsupported(format!("a reparse point of the kind {tag:#010x}"))
            }
            reparse::Problem::Malformed(why) => Problem::Malformed(why),
        })?;
        let has_data = contents.data.as_ref().is_some_and(|data| data.size > 0);
        if has_data && (link.is_some() || info.is_directory()) {
            return Err(Malformed::new("contents of what is no file").into());
        }
        let ea = ea::parse(contents.ea.as_deref().unwrap_or_default())?;
        Ok(Metadata { info, security: contents.security.clone(), ea, link })
    }

    /// What the records of a tar's entry tell, and as is usual what they don't. `mtime` and `target`
    /// are those of the entry, whether in a record or not; `target` counts for symlinks alone.
    ///
    /// # Errors
    /// Fails where a record is not of its form.
    pub fn from_records(
        records: &Records,
        kind: FileKind,
        mtime: Time,
        target: &[u8],
    ) -> Result<Metadata, Malformed> {
        let time = |key: &[u8]| match records.get(key) {
            None => Ok(FileTime::from_time(mtime)),
            Some(value) => {
                let time = parse_pax(value).ok_or_else(|| Malformed::new("a time that is none"));
                time.map(FileTime::from_time)
            }
        };
        let info = BasicInfo {
            creation: time(CREATION)?,
            access: time(ACCESS)?,
            write: FileTime::from_time(mtime),
            change: time(CHANGE)?,
            attributes: attributes(records, kind)?,
        };
        let link = match kind {
            FileKind::Symlink => {
                let target = str::from_utf8(target);
                let target = target.map_err(|_| Malformed::new("a target that is no Unicode"))?;
                let is_mount_point = records.contains_key(MOUNT_POINT);
                Some(Link { target: target.to_owned(), is_mount_point })
            }
            _ => None,
        };
        let ea = records.iter().filter_map(|(key, value)| {
            let name = str::from_utf8(key.strip_prefix(EA)?).unwrap_or_default();
            Some(decode(value).map(|value| Ea { name: name.to_owned(), value }))
        });
        let ea = ea.collect::<Result<_, _>>()?;
        Ok(Metadata { info, security: security(records)?, ea, link })
    }

    /// The records that tell it all, but for what kind of entry it is and where a link leads.
    #[must_use]
    pub fn to_records(&self) -> Records {
        let mut records = Records::new();
        let mut add = |key: &[u8], value: Vec<u8>| records.insert(key.to_vec(), value);
        add(ATTRIBUTES, self.info.attributes.to_string().into_bytes());
        let times = [
            (CREATION, self.info.creation),
            (ACCESS, self.info.access),
            (CHANGE, self.info.change),
        ];
        for (key, time) in times {
            add(key, format_pax(time.to_time()));
        }
        if self.info.write.to_time().nanos > 0 {
            add(WRITE, format_pax(self.info.write.to_time()));
        }
        if let Some(security) = &self.security {
            add(SECURITY, STANDARD.encode(security).into_bytes());
        }
        for ea in &self.ea {
            add(&[EA, ea.name.as_bytes()].concat(), STANDARD.encode(&ea.value).into_bytes());
        }
        if self.link.as_ref().is_some_and(|link| link.is_mount_point) {
            add(MOUNT_POINT, b"1".to_vec());
        }
        records
    }

    /// The xattrs by which it is shown.
    #[must_use]
    pub fn xattrs(&self) -> Vec<(String, Vec<u8>)> {
        let time = |time: FileTime| format_pax(time.to_time());
        let mut xattrs = vec![
            (XATTR_ATTRIBUTES.to_owned(), self.info.attributes.to_string().into_bytes()),
            (XATTR_CREATION.to_owned(), time(self.info.creation)),
            (XATTR_ACCESS.to_owned(), time(self.info.access)),
            (XATTR_CHANGE.to_owned(), time(self.info.change)),
        ];
        if let Some(security) = &self.security {
            xattrs.push((XATTR_SECURITY.to_owned(), security.clone()));
        }
        let reparse = self.link.as_ref().and_then(|link| reparse::encode(link).ok());
        xattrs.extend(reparse.map(|reparse| (XATTR_REPARSE.to_owned(), reparse)));
        let ea = self.ea.iter();
        xattrs.extend(ea.map(|ea| (format!("{XATTR_EA}{}", ea.name), ea.value.clone())));
        xattrs
    }

    /// The permission bits with which it is shown: a layer has none of its own.
    #[must_use]
    pub fn permissions(&self, kind: FileKind) -> u32 {
        match kind {
            FileKind::Directory => 0o755,
            FileKind::Symlink => 0o777,
            _ if self.info.attributes & READ_ONLY != 0 => 0o444,
            _ => 0o644,
        }
    }

    /// The backup stream up to the contents: all but those and the alternate streams.
    ///
    /// # Errors
    /// Fails where something is too long for it.
    pub fn to_stream(&self) -> Result<Vec<u8>, Malformed> {
        let mut out = Vec::new();
        let mut push = |kind: Kind, data: &[u8]| {
            Header::new(kind, data.len() as u64).write(&mut out);
            out.extend_from_slice(data);
        };
        if let Some(security) = &self.security {
            push(Kind::Security, security);
        }
        if !self.ea.is_empty() {
            push(Kind::Ea, &ea::encode(&self.ea)?);
        }
        if let Some(link) = &self.link {
            push(Kind::Reparse, &reparse::encode(link)?);
        }
        Ok(out)
    }
}

/// The backup stream of a file but for its contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Around {
    /// What comes before them.
    pub before: Vec<u8>,
    /// What comes after them.
    pub after: Vec<u8>,
}

/// The backup stream of a file that is shown with these xattrs, sorted by name. `None` where it is no
/// file of a Windows layer.
///
/// # Errors
/// Fails where an xattr is too long for its stream.
pub fn streams_of(xattrs: &[(String, Vec<u8>)]) -> Result<Option<Around>, Malformed> {
    let value = |wanted: &str| {
        let found = xattrs.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.as_slice())
    };
    if value(XATTR_ATTRIBUTES).is_none() {
        return Ok(None);
    }
    let with = |prefix: &'static str| {
        xattrs.iter().filter_map(move |(name, value)| Some((name.strip_prefix(prefix)?, value)))
    };
    let mut before = Vec::new();
    let push = |out: &mut Vec<u8>, header: Header, data: &[u8]| {
        header.write(out);
        out.extend_from_slice(data);
    };
    let ea: Vec<Ea> = with(XATTR_EA)
        .map(|(name, value)| Ea { name: name.into(), value: value.clone() })
        .collect();
    let ea = ea::encode(&ea)?;
    let ea = (!ea.is_empty()).then_some(ea.as_slice());
    for (kind, data) in [
        (Kind::Security, value(XATTR_SECURITY)),
        (Kind::Ea, ea),
        (Kind::Reparse, value(XATTR_REPARSE)),
    ] {
        if let Some(data) = data {
            push(&mut before, Header::new(kind, data.len() as u64), data);
        }
    }
    let mut after = Vec::new();
    for (name, data) in with(XATTR_STREAM) {
        push(&mut after, Header::alternate(name, data.len() as u64), data);
    }
    Ok(Some(Around { before, after }))
}

/// True where records are those of an entry of a Windows layer: all have them but whiteouts and
/// alternate streams.
#[must_use]
pub fn is_windows(records: &Records) -> bool {
    records.keys().any(|key| key.starts_with(b"MSWINDOWS."))
}

/// The name of the alternate stream that the entry `name` of a tar is of the file `file`, of which
/// it is the entry before, but for others of its streams; `None` where it is another file.
#[must_use]
pub fn alternate_of<'a>(file: &[u8], name: &'a [u8]) -> Option<&'a str> {
    let stream = name.strip_prefix(file)?.strip_prefix(b":")?;
    let stream = str::from_utf8(stream).ok()?;
    let is_name = !stream.is_empty() && !stream.contains(['/', '\\', ':', '\0']);
    is_name.then_some(stream)
}

/// True where a file of this name would be one of the exported form's own.
#[must_use]
pub fn is_reserved(name: &[u8]) -> bool {
    name.ends_with(DIRECTORY_SUFFIX)
}

fn attributes(records: &Records, kind: FileKind) -> Result<u32, Malformed> {
    let Some(value) = records.get(ATTRIBUTES) else {
        return Ok(match kind {
            FileKind::Directory => DIRECTORY,
            FileKind::Symlink => REPARSE_POINT,
            _ => ARCHIVE,
        });
    };
    let number = str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| Malformed::new("Win32 attributes that are no number"))
}

fn security(records: &Records) -> Result<Option<Vec<u8>>, Malformed> {
    match (records.get(SECURITY), records.get(SDDL)) {
        (Some(raw), _) => decode(raw).map(Some),
        (None, Some(text)) => {
            let text = str::from_utf8(text).unwrap_or("\0");
            sddl::parse(text).map(Some)
        }
        (None, None) => Ok(None),
    }
}

fn decode(value: &[u8]) -> Result<Vec<u8>, Malformed> {
    STANDARD.decode(value).map_err(|_| Malformed::new("a record that is no base64"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(link: Option<Link>) -> Metadata {
        Metadata {
            info: BasicInfo {
                creation: FileTime(131_000_000_000_000_001),
                access: FileTime(131_000_000_000_000_000),
                write: FileTime(131_000_000_012_345_678),
                change: FileTime(0),
                attributes: 0x21,
            },
            security: Some(b"\x01\0\x04\x80".to_vec()),
            ea: vec![Ea { name: "NAME".into(), value: b"\0value".to_vec() }],
            link,
        }
    }

    #[test]
    fn every_record_is_written_and_read() {
        let link = Link { target: "C:\\x".into(), is_mount_point: true };
        let metadata = sample(Some(link));
        let records = metadata.to_records();
        let shown: Vec<_> = records
            .iter()
            .map(|(key, value)| {
                format!("{}={}", String::from_utf8_lossy(key), String::from_utf8_lossy(value))
            })
            .collect();
        let expected = [
            "LIBARCHIVE.creationtime=1455526400.0000001",
            "MSWINDOWS.fileattr=33",
            "MSWINDOWS.mountpoint=1",
            "MSWINDOWS.rawsd=AQAEgA==",
            "MSWINDOWS.xattr.NAME=AHZhbHVl",
            "atime=1455526400",
            "ctime=-11644473600",
            "mtime=1455526401.2345678",
        ];
        assert_eq!(shown, expected);
        let mtime = metadata.info.write.to_time();
        let read = Metadata::from_records(&records, FileKind::Symlink, mtime, b"C:\\x").unwrap();
        assert_eq!(read, metadata);
        assert!(is_windows(&records));
    }

    #[test]
    fn older_records_are_read_and_absent_ones_replaced() {
        let records = |pairs: &[(&str, &str)]| -> Records {
            pairs
                .iter()
                .map(|(key, value)| (key.as_bytes().into(), value.as_bytes().into()))
                .collect()
        };
        let mtime = Time { secs: 5, nanos: 100 };
        let read = |pairs: &[(&str, &str)], kind| {
            Metadata::from_records(&records(pairs), kind, mtime, b"")
        };
        let old = [("MSWINDOWS.sd", "O:SY")];
        let directory = read(&old, FileKind::Directory).unwrap();
        assert_eq!(directory.info, BasicInfo::at(FileTime::from_time(mtime), DIRECTORY));
        assert_eq!(directory.security, Some(sddl::parse("O:SY").unwrap()));
        let plain = read(&[("atime", "1")], FileKind::Regular).unwrap();
        let access = FileTime::from_time(Time { secs: 1, nanos: 0 });
        assert_eq!((plain.info.access, plain.info.attributes), (access, ARCHIVE));
        assert!(!is_windows(&records(&[("atime", "1")])));
        for pair in [
            ("MSWINDOWS.fileattr", "x"),
            ("MSWINDOWS.fileattr", "4294967296"),
            ("MSWINDOWS.rawsd", "*"),
            ("MSWINDOWS.sd", "what"),
            ("MSWINDOWS.xattr.A", "="),
            ("atime", "soon"),
        ] {
            let pairs = [("MSWINDOWS.mountpoint", "1"), pair];
            assert!(read(&pairs, FileKind::Regular).is_err(), "{pair:?}");
        }
    }

    #[test]
    fn a_stream_holds_what_the_records_tell() {
        let link = Link { target: "..\\y".into(), is_mount_point: false };
        for metadata in [sample(None), sample(Some(link))] {
            let stream = crate::backing::Held::new("stream", metadata.to_stream().unwrap());
            let contents = Contents::read(&stream).unwrap();
            assert_eq!(Metadata::from_stream(metadata.info, &contents).as_ref(), Ok(&metadata));
            let around = streams_of(&metadata.xattrs()).unwrap().unwrap();
            assert_eq!(around.before, metadata.to_stream().unwrap());
            assert_eq!(around.after, b"");
        }
        assert_eq!(streams_of(&[("user.win.sd".into(), Vec::new())]), Ok(None));
    }

    #[test]
    fn an_alternate_stream_is_known_by_the_name_of_its_file() {
        assert_eq!(alternate_of(b"Files/a", b"Files/a:zone"), Some("zone"));
        for name in ["Files/a", "Files/a:", "Files/ab:zone", "Files/a:b:c", "Files/a:b/c"] {
            assert_eq!(alternate_of(b"Files/a", name.as_bytes()), None, "{name}");
        }
    }
}

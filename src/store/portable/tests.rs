//! Names, and the members of archives. Whole archives are in `tests/it/portable.rs`.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::members::Members;
use super::repository;
use crate::backing::Held;

fn read(archive: &[u8]) -> crate::error::Result<Members> {
    Members::read(Arc::new(Held::new("archive.tar", archive)))
}

/// What a name leads to.
fn find(members: &Members, name: &str) -> Option<Vec<u8>> {
    let bytes = members.find(name.as_bytes())?;
    let mut whole = vec![0; bytes.len() as usize];
    assert_eq!(bytes.read_at(0, &mut whole).unwrap(), whole.len());
    Some(whole)
}

fn archive(fill: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Members {
    let mut builder = tar::Builder::new(Vec::new());
    fill(&mut builder);
    read(&builder.into_inner().unwrap()).unwrap()
}

fn file(builder: &mut tar::Builder<Vec<u8>>, name: &str, bytes: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    builder.append_data(&mut header, name, bytes).unwrap();
}

fn link(builder: &mut tar::Builder<Vec<u8>>, kind: tar::EntryType, name: &str, target: &str) {
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    header.set_entry_type(kind);
    builder.append_link(&mut header, name, target).unwrap();
}

#[test]
fn links_lead_where_unpacking_would_put_them() {
    use tar::EntryType::{Link, Symlink};
    let members = archive(|tar| {
        file(tar, "a/file", b"first");
        link(tar, Link, "hard", "./a/file");
        file(tar, "a/file", b"second");
        link(tar, Symlink, "b/soft", "../a/./file");
        link(tar, Symlink, "dir", "a");
        link(tar, Symlink, "out", "../../../a/file");
        link(tar, Symlink, "absolute", "/dir/file");
        link(tar, Symlink, "loop", "loop");
        link(tar, Symlink, "to-directory", "a");
        link(tar, Link, "nothing", "nowhere");
    });
    for (name, found) in [
        ("hard", Some("first")),
        ("a/file", Some("second")),
        ("/./a//file", Some("second")),
        ("b/soft", Some("second")),
        ("dir/file", Some("second")),
        ("out", Some("second")),
        ("absolute", Some("second")),
        ("x/../hard", Some("first")),
        ("../../hard", Some("first")),
        ("loop", None),
        ("to-directory", None),
        ("nothing", None),
        ("a", None),
        ("a/file/x", None),
        ("", None),
    ] {
        assert_eq!(find(&members, name).as_deref(), found.map(str::as_bytes), "{name}");
    }
}

#[test]
fn a_damaged_archive_is_read_up_to_there() {
    let mut builder = tar::Builder::new(Vec::new());
    file(&mut builder, "first", b"1");
    file(&mut builder, "second", &[2; 2000]);
    let whole = builder.into_inner().unwrap();
    let members = read(&whole[..2000]).unwrap();
    assert_eq!(find(&members, "first").unwrap(), b"1");
    assert_eq!(find(&members, "second"), None);
    assert!(members.damage().unwrap().to_string().contains("cut short"));
    assert!(read(&whole[..300]).is_err());
}

#[test]
fn an_archive_gives_its_name_to_images_that_have_but_a_tag() {
    for (path, name) in [
        ("/srv/busybox.tar", "busybox"),
        ("/srv/Busybox_1.36.tar.gz", "busybox-1-36"),
        ("/srv/web.oci.tar.zst", "web"),
        ("/srv/layout", "layout"),
        ("/srv/..tar", "image"),
        ("/srv/\u{e9}\u{e8}.tar", "image"),
        ("/", "image"),
    ] {
        assert_eq!(repository(Path::new(path)), name, "{path}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_index_panic(
        at in 0..3000_usize,
        bytes in proptest::collection::vec(0..=u8::MAX, 0..40),
        name: Vec<u8>,
    ) {
        let mut builder = tar::Builder::new(Vec::new());
        file(&mut builder, "first", b"1");
        link(&mut builder, tar::EntryType::Symlink, "link", "first");
        file(&mut builder, "second", &[2; 700]);
        let mut whole = builder.into_inner().unwrap();
        let end = (at + bytes.len()).min(whole.len());
        let at = at.min(end);
        whole.splice(at..end, bytes);
        if let Ok(members) = read(&whole) {
            for name in [&name[..], b"first", b"link", b"second"] {
                if let Some(bytes) = members.find(name) {
                    let mut buf = [0; 10];
                    prop_assert!(bytes.read_at(1, &mut buf).is_ok());
                }
            }
        }
    }
}

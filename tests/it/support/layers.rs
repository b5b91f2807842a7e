//! Random layers: described as values, so that a failing one shrinks, and built on disk.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};

use proptest::collection::vec;
use proptest::prelude::*;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, lsetxattr, makedev, mknodat,
    utimensat,
};

/// Names that paths are made of: few, so that layers often meet; odd ones among them.
const NAMES: [&[u8]; 6] = [b"a", b"b", b"c", b"d\xff\n", &[b'l'; 255], b"..."];

/// A capability as `setcap cap_net_raw+ep` writes it (VFS_CAP_REVISION_2).
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// An ACL that lets user 1000 read (version 2; tag, permission, ID).
const ACL: [u8; 44] = [
    2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 232, 3, 0, 0, 4, 0, 4, 0, 255, 255,
    255, 255, 16, 0, 4, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255, 255, 255,
];

/// One path of the tree: indices into [`NAMES`].
pub(crate) type Names = Vec<usize>;

/// What a redirect says.
#[derive(Debug, Clone)]
pub(crate) enum Redirect {
    None,
    Relative(usize),
    Absolute(Names),
    Bad(&'static str),
}

#[derive(Debug, Clone)]
pub(crate) enum What {
    Directory { opaque: Option<&'static str>, redirect: Redirect },
    File { size: u64, seed: u8 },
    Sparse { size: u64, at: u64 },
    Metacopy { size: u64, redirect: Redirect, mark: &'static [u8] },
    Symlink(String),
    Node(FileType, u32, u32),
    Whiteout,
    XattrWhiteout { size: u64 },
    HardLink { layer: usize, to: Names },
}

#[derive(Debug, Clone)]
pub(crate) struct Attributes {
    mode: u32,
    uid: u32,
    gid: u32,
    secs: i64,
    nanos: u32,
    xattrs: u8,
}

#[derive(Debug, Clone)]
pub(crate) struct Node {
    path: Names,
    what: What,
    attributes: Attributes,
}

/// One layer.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub(crate) nodes: Vec<Node>,
    root: Attributes,
    root_is_opaque: bool,
}

/// Stacks of up to `layers` layers, with marks of every kind or with none.
pub(crate) fn stacks(layers: usize) -> impl Strategy<Value = Vec<Layer>> {
    vec(layer(marked().boxed()), 1..=layers)
}

/// One layer without marks, of up to `nodes` files.
pub(crate) fn plain_layer() -> impl Strategy<Value = Layer> {
    layer(plain().boxed())
}

fn layer(what: BoxedStrategy<What>) -> impl Strategy<Value = Layer> {
    let node = (names(), what, attributes()).prop_map(|(path, what, attributes)| Node {
        path,
        what,
        attributes,
    });
    let is_opaque = prop_oneof![9 => Just(false), 1 => Just(true)];
    (vec(node, 0..=9), attributes(), is_opaque).prop_map(|(nodes, root, root_is_opaque)| Layer {
        nodes,
        root,
        root_is_opaque,
    })
}

fn node(what: BoxedStrategy<What>) -> impl Strategy<Value = Node> {
    (names(), what, attributes()).prop_map(|(path, what, attributes)| Node {
        path,
        what,
        attributes,
    })
}

/// A full tree and what became of it: new, then old.
pub(crate) fn versions() -> impl Strategy<Value = [Layer; 2]> {
    let fate = prop_oneof![
        4 => Just(None),
        1 => Just(Some(None)),
        2 => node(plain().boxed()).prop_map(|node| Some(Some(node))),
        1 => attributes().prop_map(|attributes| Some(Some(touched(attributes)))),
    ];
    let nodes = vec((node(plain().boxed()), fate), 0..=16);
    (nodes, attributes(), vec(node(plain().boxed()), 0..=3)).prop_map(|(nodes, root, more)| {
        let old = nodes.iter().map(|(node, _)| node.clone()).collect();
        let kept = nodes.into_iter().filter_map(|(node, fate)| match fate {
            None => Some(node),
            Some(None) => None,
            Some(Some(new)) if new.path.is_empty() => {
                Some(Node { attributes: new.attributes, ..node })
            }
            Some(Some(new)) => Some(Node { path: node.path, ..new }),
        });
        let new = kept.chain(more).collect();
        [new, old].map(|nodes| Layer { nodes, root: root.clone(), root_is_opaque: false })
    })
}

/// Stands for a change of the attributes alone.
fn touched(attributes: Attributes) -> Node {
    Node { path: Vec::new(), what: What::Whiteout, attributes }
}

/// What somebody does in a mounted overlay.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    Make(Node),
    Remove(Names),
    Rename(Names, Names),
    Link(Names, Names),
    Attribute(Names, Attributes),
    Write(Names, u64),
}

pub(crate) fn actions() -> impl Strategy<Value = Vec<Action>> {
    let action = prop_oneof![
        4 => node(plain().boxed()).prop_map(Action::Make),
        3 => names().prop_map(Action::Remove),
        4 => (names(), names()).prop_map(|(from, to)| Action::Rename(from, to)),
        1 => (names(), names()).prop_map(|(from, to)| Action::Link(from, to)),
        3 => (names(), attributes()).prop_map(|(path, new)| Action::Attribute(path, new)),
        2 => (names(), size()).prop_map(|(path, size)| Action::Write(path, size)),
    ];
    vec(action, 0..=14)
}

/// Does it, as far as it can be done.
pub(crate) fn act(root: &Path, action: &Action) {
    match action {
        Action::Make(node) => {
            let Some(path) = reachable(root, &node.path) else { return };
            let is_made = make(node, &path, &[root.to_owned()], 0);
            if is_made && !matches!(node.what, What::HardLink { .. }) {
                attribute(&path, &node.attributes, &node.what);
            }
        }
        Action::Remove(names) => {
            let Some(path) = existing(root, names) else { return };
            // What is not there, or can't be done, leaves things as they are; here and below.
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
        }
        Action::Rename(from, to) => {
            let (Some(from), Some(to)) = (existing(root, from), existing(root, to)) else {
                return;
            };
            let _ = fs::rename(from, to);
        }
        Action::Link(from, to) => {
            let (Some(from), Some(to)) = (existing(root, from), existing(root, to)) else {
                return;
            };
            let _ = fs::hard_link(from, to);
        }
        Action::Attribute(names, attributes) => {
            let Some(path) = existing(root, names) else { return };
            let Ok(meta) = path.symlink_metadata() else { return };
            if !meta.is_symlink() {
                attribute(&path, attributes, &What::Whiteout);
            }
            set_time(&path, attributes);
        }
        Action::Write(names, size) => {
            let Some(path) = existing(root, names) else { return };
            if path.symlink_metadata().is_ok_and(|meta| meta.is_file()) {
                let file = File::options().write(true).open(path).unwrap();
                file.write_all_at(b"written", *size).unwrap();
            }
        }
    }
}

pub(crate) fn names() -> impl Strategy<Value = Names> {
    let name = prop_oneof![5 => Just(0_usize), 4 => Just(1), 2 => Just(2), 2 => 3..NAMES.len()];
    vec(name, 1..=3)
}

fn attributes() -> impl Strategy<Value = Attributes> {
    let mode = prop_oneof![4 => Just(0o755), 1 => Just(0o4711), 1 => 0..0o10000_u32];
    let id = prop_oneof![4 => Just(0), 1 => Just(1000), 1 => 0..u32::MAX];
    let secs = prop_oneof![Just(0), Just(1_700_000_000), Just(-1), -(1_i64 << 31)..1 << 33];
    let nanos = prop_oneof![Just(0), 0..1_000_000_000_u32];
    let xattrs = prop_oneof![3 => Just(0), 1 => any::<u8>()];
    (mode, id.clone(), id, secs, nanos, xattrs).prop_map(|(mode, uid, gid, secs, nanos, xattrs)| {
        Attributes { mode, uid, gid, secs, nanos, xattrs }
    })
}

fn redirect() -> impl Strategy<Value = Redirect> {
    prop_oneof![
        3 => Just(Redirect::None),
        2 => (0..NAMES.len()).prop_map(Redirect::Relative),
        3 => names().prop_filter("fits", |names| !names.contains(&4)).prop_map(Redirect::Absolute),
        1 => prop::sample::select(vec!["", "/", "a/b", "//a", "/a/"])
            .prop_map(Redirect::Bad),
    ]
}

fn size() -> impl Strategy<Value = u64> {
    prop_oneof![2 => Just(0), 3 => 1..100_u64, 1 => Just(4096), 1 => 4000..9000_u64]
}

fn plain() -> impl Strategy<Value = What> {
    use FileType::{BlockDevice, CharacterDevice, Fifo, Socket};
    let target = "[abc./]{1,8}";
    let device = prop_oneof![
        Just(What::Node(CharacterDevice, 1, 3)),
        Just(What::Node(CharacterDevice, 0, 1)),
        Just(What::Node(BlockDevice, 0, 0)),
        Just(What::Node(BlockDevice, 7, 300)),
        Just(What::Node(Fifo, 0, 0)),
        Just(What::Node(Socket, 0, 0)),
    ];
    prop_oneof![
        4 => Just(What::Directory { opaque: None, redirect: Redirect::None }),
        5 => (size(), any::<u8>()).prop_map(|(size, seed)| What::File { size, seed }),
        1 => (1..200_000_u64, 0..200_000_u64).prop_map(|(size, at)| What::Sparse { size, at }),
        2 => target.prop_map(What::Symlink),
        1 => device,
        2 => (0..2_usize, names()).prop_map(|(layer, to)| What::HardLink { layer, to }),
    ]
}

fn marked() -> impl Strategy<Value = What> {
    let opaque = prop_oneof![
        4 => Just(None),
        4 => Just(Some("y")),
        2 => Just(Some("x")),
        1 => prop::sample::select(vec!["", "n", "yy"]).prop_map(Some),
    ];
    let mark = prop_oneof![
        8 => Just(&b""[..]), 1 => Just(&[0, 4, 0, 0][..]), 1 => Just(&[0, 4][..])
    ];
    prop_oneof![
        10 => plain(),
        5 => (opaque, redirect())
            .prop_map(|(opaque, redirect)| What::Directory { opaque, redirect }),
        3 => Just(What::Whiteout),
        2 => prop_oneof![3 => Just(0), 1 => 1..10_u64]
            .prop_map(|size| What::XattrWhiteout { size }),
        4 => (prop_oneof![0..10_000_u64, Just(100_000)], redirect(), mark)
            .prop_map(|(size, redirect, mark)| What::Metacopy { size, redirect, mark }),
    ]
}

/// Builds `layer` in the empty directory `dirs[at]`; the others are those of the layers around it,
/// into which hard links may lead.
pub(crate) fn build(layer: &Layer, dirs: &[PathBuf], at: usize) {
    let dir = &dirs[at];
    let mut made = Vec::new();
    for node in &layer.nodes {
        let Some(path) = reachable(dir, &node.path) else { continue };
        if make(node, &path, dirs, at) && !matches!(node.what, What::HardLink { .. }) {
            attribute(&path, &node.attributes, &node.what);
            made.push((path, &node.attributes));
        }
    }
    attribute(dir, &layer.root, &What::Directory { opaque: None, redirect: Redirect::None });
    if layer.root_is_opaque {
        set(dir, "trusted.overlay.opaque", b"y");
    }
    for (path, attributes) in made {
        set_time(&path, attributes);
    }
    set_time(dir, &layer.root);
}

/// Removes all that [`build`] made.
pub(crate) fn clear(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            fs::remove_dir_all(entry.path()).unwrap();
        } else {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    for name in rustix_names(dir) {
        rustix::fs::lremovexattr(dir, &*name).unwrap();
    }
}

fn rustix_names(path: &Path) -> Vec<String> {
    let mut list = vec![0; 65536];
    let length = rustix::fs::llistxattr(path, &mut list[..]).unwrap();
    let names = list[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty());
    names.map(|name| String::from_utf8(name.to_vec()).unwrap()).collect()
}

pub(crate) fn on_disk(names: &[usize]) -> PathBuf {
    names.iter().map(|&name| OsStr::from_bytes(NAMES[name])).collect()
}

/// The path of these names below `dir`, with its parent directories made; `None` where something
/// else is in the way.
fn reachable(dir: &Path, names: &[usize]) -> Option<PathBuf> {
    for length in 1..names.len() {
        let parent = existing(dir, &names[..length])?;
        if parent.symlink_metadata().is_err() {
            fs::create_dir(&parent).ok()?;
        }
    }
    existing(dir, names)
}

/// The path of these names below `dir`; `None` where what lies above is no directory. No symlink is
/// ever followed: they lead out of the test, to `/` even.
fn existing(dir: &Path, names: &[usize]) -> Option<PathBuf> {
    let (last, above) = names.split_last()?;
    let mut path = dir.to_owned();
    for name in above {
        path.push(on_disk(&[*name]));
        if !path.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            return None;
        }
    }
    Some(path.join(on_disk(&[*last])))
}

/// Makes one node; false where something else is there or in the way.
fn make(node: &Node, path: &Path, dirs: &[PathBuf], at: usize) -> bool {
    match &node.what {
        What::Directory { .. } => {
            path.is_dir() && !path.is_symlink() || fs::create_dir(path).is_ok()
        }
        What::File { size, seed } => write(path, *size, *seed),
        What::Sparse { size, at } => File::create_new(path).is_ok_and(|file| {
            file.set_len(*size).unwrap();
            file.write_all_at(b"data", (*at).min(*size - 1)).unwrap();
            true
        }),
        What::Metacopy { size, .. } => {
            // In the lowest layer, where it makes no sense, it is known by its holes alone.
            let size = if at + 1 == dirs.len() && *size > 0 { size + 10_000 } else { *size };
            let made = File::create_new(path).is_ok_and(|file| file.set_len(size).is_ok());
            if made {
                set(path.parent().unwrap(), "trusted.overlay.impure", b"y");
            }
            made
        }
        What::Symlink(target) => symlink(target, path).is_ok(),
        What::Node(kind, major, minor) => device(path, *kind, *major, *minor),
        What::Whiteout => device(path, FileType::CharacterDevice, 0, 0),
        What::XattrWhiteout { size } => write(path, *size, 1),
        What::HardLink { layer, to } => {
            let Some(target) = existing(&dirs[(at + layer) % dirs.len()], to) else {
                return false;
            };
            // A metacopy is left out: its data would depend on the name that is asked first.
            !has(&target, "trusted.overlay.metacopy") && fs::hard_link(target, path).is_ok()
        }
    }
}

fn write(path: &Path, size: u64, seed: u8) -> bool {
    let bytes: Vec<u8> = (0..size).map(|at| (at as u8) ^ seed).collect();
    File::create_new(path).is_ok_and(|file| file.write_all_at(&bytes, 0).is_ok())
}

fn device(path: &Path, kind: FileType, major: u32, minor: u32) -> bool {
    mknodat(CWD, path, kind, Mode::from_raw_mode(0o644), makedev(major, minor)).is_ok()
}

fn attribute(path: &Path, attributes: &Attributes, what: &What) {
    let Attributes { mode, uid, gid, xattrs, .. } = *attributes;
    std::os::unix::fs::lchown(path, Some(uid), Some(gid)).unwrap();
    let is_link = matches!(what, What::Symlink(_));
    if !is_link {
        rustix::fs::chmodat(CWD, path, Mode::from_raw_mode(mode), AtFlags::empty()).unwrap();
    }
    let takes_user = path.symlink_metadata().is_ok_and(|meta| meta.is_file() || meta.is_dir());
    let set_if = |bit: u8, name: &str, value: &[u8]| {
        if xattrs & (1 << bit) != 0 {
            set(path, name, value);
        }
    };
    set_if(0, "trusted.other", b"");
    set_if(1, "trusted.overlay.overlay.opaque", b"y");
    set_if(2, "trusted.overlay.origin", b"nonsense");
    set_if(3, "security.capability", &CAPABILITY);
    if takes_user {
        set_if(4, "user.long", &[b'v'; 700]);
        set_if(5, "user.overlay.opaque", b"y");
        set_if(6, "user.overlay.whiteout", b"");
        set_if(7, "system.posix_acl_access", &ACL);
    }
    mark(path, what);
}

fn mark(path: &Path, what: &What) {
    match what {
        What::Directory { opaque, redirect } => {
            if let Some(opaque) = opaque {
                set(path, "trusted.overlay.opaque", opaque.as_bytes());
            }
            set_redirect(path, redirect);
        }
        What::Metacopy { redirect, mark, .. } => {
            set(path, "trusted.overlay.metacopy", mark);
            set_redirect(path, redirect);
        }
        What::XattrWhiteout { .. } => set(path, "trusted.overlay.whiteout", b"y"),
        What::File { .. }
        | What::Sparse { .. }
        | What::Symlink(_)
        | What::Node(..)
        | What::Whiteout
        | What::HardLink { .. } => {}
    }
}

fn set_redirect(path: &Path, redirect: &Redirect) {
    let value = match redirect {
        Redirect::None => return,
        Redirect::Relative(name) => NAMES[*name].to_vec(),
        Redirect::Absolute(names) => [b"/", on_disk(names).as_os_str().as_bytes()].concat(),
        Redirect::Bad(value) => value.as_bytes().to_vec(),
    };
    set(path, "trusted.overlay.redirect", &value);
}

fn set(path: &Path, name: &str, value: &[u8]) {
    // Some kinds of files take some xattrs only; what is refused is left out.
    let _ = lsetxattr(path, name, value, XattrFlags::empty());
}

fn has(path: &Path, name: &str) -> bool {
    rustix::fs::lgetxattr(path, name, &mut [0_u8; 0][..]).is_ok()
}

fn set_time(path: &Path, attributes: &Attributes) {
    let time = Timespec { tv_sec: attributes.secs, tv_nsec: i64::from(attributes.nanos) };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

//! Names of users and groups from the files of the container itself.
//!
//! Docker 20.10 as Debian builds it packs inside a chroot of the container, and its tar writer
//! looks each ID up there: first match, empty when there is none, `root` for 0 even with no file.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::overlay::Stack;

/// Largest `etc/passwd` or `etc/group` that is read, in bytes.
const LIMIT: u64 = 16 << 20;

/// Users and groups by number.
#[derive(Debug, Clone, Default)]
pub struct Accounts {
    users: HashMap<u32, Vec<u8>>,
    groups: HashMap<u32, Vec<u8>>,
}

impl Accounts {
    /// Those of the files merged in `stack`; what can't be read counts as empty.
    #[must_use]
    pub fn read(stack: &Stack) -> Accounts {
        Accounts {
            users: parse(&contents(stack, b"etc/passwd")),
            groups: parse(&contents(stack, b"etc/group")),
        }
    }

    /// Nothing but root, as the server that writes a save archive has it.
    #[must_use]
    pub fn root_only() -> Accounts {
        Accounts::default()
    }

    /// The name of a user, empty where it has none.
    #[must_use]
    pub fn user(&self, uid: u32) -> Vec<u8> {
        name_of(&self.users, uid)
    }

    /// The name of a group, empty where it has none.
    #[must_use]
    pub fn group(&self, gid: u32) -> Vec<u8> {
        name_of(&self.groups, gid)
    }
}

fn name_of(names: &HashMap<u32, Vec<u8>>, id: u32) -> Vec<u8> {
    match names.get(&id) {
        Some(name) => name.clone(),
        None if id == 0 => b"root".to_vec(),
        None => Vec::new(),
    }
}

fn contents(stack: &Stack, path: &[u8]) -> Vec<u8> {
    let Ok(entry) = stack.resolve(path) else { return Vec::new() };
    let root = &stack.layers()[entry.data.layer].root;
    // An unreadable file gives no names, as for the engine.
    root.read(OsStr::from_bytes(&entry.data.path), LIMIT).unwrap_or_default()
}

/// `name:password:id:...` lines; the first line of an ID counts.
fn parse(file: &[u8]) -> HashMap<u32, Vec<u8>> {
    let mut names = HashMap::new();
    for line in file.split(|&byte| byte == b'\n') {
        let mut fields = line.trim_ascii().split(|&byte| byte == b':');
        let (Some(name), Some(_), Some(id)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let id = std::str::from_utf8(id).ok().and_then(|id| id.parse().ok());
        if let Some(id) = id
            && !matches!(name.first(), None | Some(b'#' | b'+' | b'-'))
        {
            names.entry(id).or_insert_with(|| name.to_vec());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_of_an_id_counts() {
        let names =
            parse(b"# users\nroot:x:0:0::/:\nadm:x:0:\n\n+nis:x:7:\nbad\nu:x:1000\nw:x:zz:\n");
        assert_eq!(name_of(&names, 0), b"root");
        assert_eq!(name_of(&names, 1000), b"u");
        assert_eq!(name_of(&names, 7), b"");
        assert_eq!(name_of(&HashMap::new(), 0), b"root");
    }
}

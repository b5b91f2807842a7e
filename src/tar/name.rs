//! Names of entries.

/// A name as a path beneath the root: no leading `/` or `./`, no `.`, no trailing slash, and `..`
/// goes up at most to the root.
#[must_use]
pub fn rooted(name: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_never_leaves_the_root() {
        for (name, path) in [
            ("./a/b", "a/b"),
            ("/a//b/", "a/b"),
            ("../../etc/passwd", "etc/passwd"),
            ("a/../../b", "b"),
            (".", ""),
        ] {
            assert_eq!(rooted(name.as_bytes()), path.as_bytes(), "{name}");
        }
    }
}

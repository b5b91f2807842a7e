//! The small files in which drivers note what lies below a layer. Parsers take bytes and never touch
//! the disk.

use super::DirId;

/// Length of the short names under `overlay2/l` (moby overlay2, `idLength`).
const LINK_LENGTH: usize = 26;

/// The entries of a `lower` file, `l/AAA:l/BBB`, topmost first, without the `l/`; `None` where
/// they are not that.
pub(super) fn parse_lower(text: &[u8]) -> Option<Vec<String>> {
    let text = std::str::from_utf8(text).ok()?;
    text.split(':').map(|entry| entry.strip_prefix("l/").filter(|link| is_link(link))).try_fold(
        Vec::new(),
        |mut links, link| {
            links.push(link?.to_owned());
            Some(links)
        },
    )
}

fn is_link(link: &str) -> bool {
    let base32 = |byte: u8| byte.is_ascii_uppercase() || (b'2'..=b'7').contains(&byte);
    link.len() == LINK_LENGTH && link.bytes().all(base32)
}

/// The directory that the target of a link under `l` names: exactly `../<id>/diff`.
pub(super) fn parse_link_target(target: &[u8]) -> Option<DirId> {
    let target = std::str::from_utf8(target).ok()?;
    DirId::parse(target.strip_prefix("../")?.strip_suffix("/diff")?)
}

/// The entries of a file of aufs under `layers`: all ancestors, nearest first, one a line.
pub(super) fn parse_ancestors(text: &[u8]) -> Option<Vec<DirId>> {
    let text = std::str::from_utf8(text).ok()?;
    text.lines().filter(|line| !line.is_empty()).map(DirId::parse).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_parsed_stays_in_the_driver_s_directory(bytes: Vec<u8>, text in "[a-z./:A-Z\n-]*") {
            for bytes in [bytes.as_slice(), text.as_bytes(), format!("../{text}/diff").as_bytes()] {
                for link in parse_lower(bytes).unwrap_or_default() {
                    prop_assert!(is_link(&link));
                }
                let texts = [std::str::from_utf8(bytes).unwrap_or_default()];
                let ids = texts.into_iter().filter_map(DirId::parse);
                let ids = ids.chain(parse_link_target(bytes));
                for id in ids.chain(parse_ancestors(bytes).unwrap_or_default()) {
                    prop_assert!(!id.0.is_empty() && !id.0.contains(['/', '.', '\0']) && id.0 != "l");
                }
            }
        }
    }
}

//! What a store reads of an image config: its layers.

use serde::Deserialize;

use crate::digest::DiffId;

/// Most layers that an image may have. Docker stops at 127.
pub(super) const LAYERS_MAX: usize = 500;

/// The layers that an image config lists, lowest first.
pub(super) fn diff_ids(config: &[u8]) -> Result<Vec<DiffId>, String> {
    #[derive(Deserialize)]
    struct Config {
        rootfs: Option<RootFs>,
    }
    #[derive(Deserialize)]
    struct RootFs {
        diff_ids: Option<Vec<String>>,
    }
    let config: Config = serde_json::from_slice(config).map_err(|err| err.to_string())?;
    let Some(rootfs) = config.rootfs else { return Err("no rootfs".to_owned()) };
    let texts = rootfs.diff_ids.unwrap_or_default();
    if texts.len() > LAYERS_MAX {
        return Err(format!("more than {LAYERS_MAX} layers"));
    }
    texts.iter().map(|text| DiffId::parse(text).map_err(|err| format!("diff_ids: {err}"))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes: Vec<u8>, text: String) {
            let config = serde_json::json!({ "rootfs": { "diff_ids": [&text] } }).to_string();
            for json in [bytes, config.into()] {
                prop_assert!(diff_ids(&json).unwrap_or_default().is_empty());
            }
        }
    }
}

//! The steps that made an image, as `docker history --no-trunc --human=false` of Docker 20.10
//! prints them with `TZ=UTC`.

use crate::digest::ImageId;
use crate::error::Malformed;
use crate::oci::{History, ImageConfig};
use crate::time::Timestamp;

mod table;

/// Bytes that the table may take. Every line is as wide as the widest command, so a damaged or
/// malicious config could ask for a million times its own size.
const MAX_BYTES: usize = 64 << 20;

/// The history of an image as a table, newest step first, ending in a newline.
///
/// `layer_sizes` has one size per layer, lowest first; a step whose layer is not there has size 0.
/// `lineage` has the image's ID, its parent's, and so on, as far as the store holds them: from the
/// top, each line takes the next of them, as in Docker.
///
/// # Errors
/// Fails where the table would be larger than 64 MiB.
pub fn history(
    config: &ImageConfig,
    layer_sizes: &[u64],
    lineage: &[ImageId],
) -> Result<Vec<u8>, Malformed> {
    let sizes = step_sizes(&config.history, layer_sizes);
    let steps = config.history.iter().zip(sizes).rev();
    let ids = lineage.iter().map(ImageId::to_string).chain(std::iter::repeat("<missing>".into()));
    let mut text = "IMAGE\tCREATED AT\tCREATED BY\tSIZE\tCOMMENT\n".to_owned();
    for ((step, size), id) in steps.zip(ids) {
        let (created, by) = (created_at(step), step.created_by.replace('\t', " "));
        text.push_str(&format!("{id}\t{created}\t{by}\t{size}\t{}\n", step.comment));
    }
    match table::align(&text, MAX_BYTES) {
        Some(table) => Ok(table.into_bytes()),
        None => Err(Malformed::new("history: too wide")),
    }
}

/// The size of each step's layer, oldest step first: 0 where it made none.
fn step_sizes(steps: &[History], layer_sizes: &[u64]) -> Vec<u64> {
    let mut layers = layer_sizes.iter();
    let size = |step: &History| if step.empty_layer { None } else { layers.next().copied() };
    steps.iter().map(size).map(Option::unwrap_or_default).collect()
}

/// Whole seconds in UTC; Go's zero time where nothing is recorded.
fn created_at(step: &History) -> Timestamp {
    let mut instant = step.created.clone().unwrap_or_else(Timestamp::zero).instant();
    instant.nanos = 0;
    Timestamp::from_instant(instant)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/inspect");

    fn config(name: &str) -> ImageConfig {
        ImageConfig::parse(&fs::read(format!("{FIXTURES}/{name}.config.json")).unwrap()).unwrap()
    }

    #[test]
    fn the_table_is_that_of_docker_history() {
        let lineage = |hex: &[&str]| {
            hex.iter().map(|hex| ImageId::from_hex(hex).unwrap()).collect::<Vec<_>>()
        };
        for (name, sizes, lineage) in [
            (
                "rich1",
                [1_982_256, 0],
                lineage(&["495e335770e2990c05afeaf6cf8180a9c6c0e1c778bdb34709ad8e2651a46031"]),
            ),
            (
                "bld2",
                [1_982_256, 89],
                lineage(&[
                    "9a4e9fa91dbdc827924a8e5eaef1f9d28a9360a53b70455c5b6c28df041740e7",
                    "dea612d51324d5ab45a99b6ceb418c1aa46d92dca6f92376888bbdb7b42f77b0",
                    "e562d7fa0563e1e5cfbab5dd64b2d6b43fb1ceb0f3ec981bf62e1a0d0cc206f1",
                    "bca27325b886558b459a6bf5f81f03455f78c4c52b5747ce3db9a6b1c5bc7cc0",
                    "7f0db989ff471cf066273b1b187a98d4ee46caa2b81f322aac6e4bf8460be50f",
                ]),
            ),
            (
                "oddhist",
                [1_982_256, 1],
                lineage(&["16e1cf0cf6385d8553f15c36e5b4ddd8f99d017ee0ca4c19eeb4c9ab4e560bc0"]),
            ),
        ] {
            let expected = fs::read_to_string(format!("{FIXTURES}/{name}.history")).unwrap();
            let table = history(&config(name), &sizes, &lineage).unwrap();
            assert_eq!(String::from_utf8(table).unwrap(), expected);
        }
    }

    #[test]
    fn steps_without_a_layer_in_the_store_count_as_empty() {
        let table = String::from_utf8(history(&config("bld2"), &[], &[]).unwrap()).unwrap();
        assert_eq!(table.matches("<missing>").count(), 5);
        assert!(table.lines().skip(1).all(|line| line.contains("   0         ")), "{table}");
    }

    #[test]
    fn a_table_of_absurd_width_is_refused() {
        let mut config = config("rich1");
        let step = config.history[0].clone();
        config.history = vec![step; 10_000];
        config.history[0].created_by = "x".repeat(1 << 20);
        assert!(history(&config, &[], &[]).is_err());
    }
}

//! Modules use only what lies below them, and some words stand in one place only.

use std::fs;
use std::path::{Path, PathBuf};

/// The modules from the top down. One may use those that stand below its line, and none beside it.
const LAYERS: [&[&str]; 20] = [
    &["main"],
    &["cli"],
    &["mount"],
    &["fuse"],
    &["tree"],
    &["sum"],
    &["archive"],
    &["overlay"],
    &["store"],
    &["bolt", "tar"],
    &["cache"],
    &["inflate"],
    &["windows"],
    &["oci", "recipe", "reference"],
    &["json"],
    &["snapshot"],
    &["time"],
    &["backing"],
    &["memo"],
    &["digest", "error", "metrics", "weighed"],
];

/// A file of the sources, without its comments.
struct Source {
    file: PathBuf,
    /// The module of the crate that it belongs to: `archive` for `src/archive/save.rs`.
    module: String,
    text: String,
}

impl Source {
    fn place(&self, offset: usize) -> String {
        let line = self.text[..offset].matches('\n').count() + 1;
        format!("src/{}:{line}", self.file.display())
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(files.len() > 30, "{files:?}");
    let source = |path: PathBuf| {
        let file = path.strip_prefix(&root).unwrap().to_owned();
        let first = file.components().next().unwrap().as_os_str().to_str().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let lines = text.lines().map(|line| line.split("//").next().unwrap());
        Source {
            module: first.trim_end_matches(".rs").to_owned(),
            text: lines.collect::<Vec<_>>().join("\n"),
            file,
        }
    };
    files.into_iter().map(source).collect()
}

/// All files of Rust below a directory.
pub(crate) fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Modules of this crate that code names by `crate::NAME` or `crate::{NAME, ..}`, and where.
fn named(text: &str) -> Vec<(usize, String)> {
    let mut names = Vec::new();
    for (at, found) in text.match_indices("crate::") {
        // `$crate::` and `other_crate::` are something else.
        if text[..at].ends_with(|before: char| before.is_alphanumeric() || "_$".contains(before)) {
            continue;
        }
        let rest = &text[at + found.len()..];
        match rest.strip_prefix('{') {
            Some(list) => names.extend(outer_items(list).map(|item| (at, first_word(&item)))),
            None => names.push((at, first_word(rest))),
        }
    }
    names.retain(|(_, name)| !name.is_empty());
    names
}

/// The items of a list that ends in a brace, without the lists in it.
fn outer_items(list: &str) -> impl Iterator<Item = String> {
    let mut depth = 1;
    let mut items = vec![String::new()];
    for character in list.chars() {
        depth += i32::from(character == '{') - i32::from(character == '}');
        match (depth, character) {
            (0, _) => break,
            (1, ',') => items.push(String::new()),
            (1, _) => items.last_mut().unwrap().push(character),
            _ => {}
        }
    }
    items.into_iter().map(|item| item.trim().to_owned())
}

fn first_word(text: &str) -> String {
    let is_word = |character: &char| character.is_alphanumeric() || *character == '_';
    text.chars().take_while(is_word).collect()
}

fn rank(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

#[test]
fn modules_use_only_what_lies_below_them() {
    for source in sources().iter().filter(|source| source.module != "lib") {
        let own = rank(&source.module);
        let own = own.unwrap_or_else(|| panic!("{} has no place in the order", source.module));
        for (offset, used) in named(&source.text) {
            let place = source.place(offset);
            let below = rank(&used);
            let below =
                below.unwrap_or_else(|| panic!("{place}: {used} has no place in the order"));
            let is_fine = used == source.module || below > own;
            assert!(is_fine, "{place}: {} must not use {used}", source.module);
        }
    }
}

#[test]
fn every_module_has_its_place_in_the_order() {
    let sources = sources();
    let lib = sources.iter().find(|source| source.module == "lib").unwrap();
    let mut count = 0;
    for line in lib.text.lines() {
        let declared = line.strip_prefix("pub mod ").or(line.strip_prefix("mod "));
        if let Some(name) = declared.and_then(|rest| rest.strip_suffix(';')) {
            assert!(rank(name).is_some(), "{name} has no place in the order");
            count += 1;
        }
    }
    assert_eq!(count + 1, LAYERS.iter().flat_map(|layer| layer.iter()).count(), "and main");
}

#[test]
fn only_fuse_names_fuser() {
    for source in sources().iter().filter(|source| source.module != "fuse") {
        for word in ["fuser::", "use fuser", "extern crate fuser"] {
            let found = source.text.find(word).map(|offset| source.place(offset));
            assert_eq!(found, None, "{word}");
        }
    }
}

#[test]
fn nothing_is_unsafe() {
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    for source in sources() {
        for (offset, found) in source.text.match_indices("unsafe") {
            let before = source.text[..offset].ends_with(is_word);
            let after = source.text[offset + found.len()..].starts_with(is_word);
            assert!(before || after, "{}", source.place(offset));
        }
    }
}

#[test]
fn names_of_modules_are_found_in_code() {
    for (text, names) in [
        ("use crate::error::Result;", &["error"][..]),
        ("use crate::{archive, recipe::{self, Verify},\n tree};", &["archive", "recipe", "tree"]),
        ("fn f(x: &crate::tree::Tree) -> crate::error::Result<()> {", &["tree", "error"]),
        ("$crate::x!() other_crate::x", &[]),
    ] {
        let found: Vec<String> = named(text).into_iter().map(|(_, name)| name).collect();
        assert_eq!(found, names, "{text}");
    }
}

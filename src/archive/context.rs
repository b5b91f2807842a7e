//! Build contexts: a directory as `docker build` sends it to the engine.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::export::{Builder, Modes, Style};
use super::pack::Body;
use super::patterns::{Ignore, Matched};
use crate::backing::FileKind;
use crate::error::{Error, Result};
use crate::overlay::files::{Files, Found, Step};
use crate::recipe::Recipe;
use crate::tar::header::{Header, Type};

/// The name under which an engine looks for what to do.
pub const DOCKERFILE: &str = "Dockerfile";

/// The file of a context that names what is left out of it.
pub const IGNORE: &str = ".dockerignore";

/// What of a directory goes into a context, and as what.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// What is left out.
    pub ignore: Ignore,
    /// Paths that go in with all they hold, in this order; all of the directory where there is none.
    pub include: Vec<Vec<u8>>,
    /// Paths whose beginning is replaced: the first of each pair by the second.
    pub rename: Vec<(Vec<u8>, Vec<u8>)>,
    /// What modes tell.
    pub modes: Modes,
    /// What stands in for the [`DOCKERFILE`] of the directory.
    pub dockerfile: Option<Vec<u8>>,
}

/// The context of a tree of files, in the order of a walk, everything owned by root.
///
/// # Errors
/// ENOENT where a path to include is missing, and whatever else can't be read.
pub fn context(files: &Files<'_>, rules: &Rules) -> Result<Recipe> {
    let style = Style::Context(rules.modes);
    let mut packing =
        Packing { rules, builder: Builder::new(files.stack(), &style), seen: HashSet::new() };
    if let Some(text) = &rules.dockerfile {
        packing.seen.insert(DOCKERFILE.into());
        packing.builder.packer.push(generated(DOCKERFILE), &Body::Inline(text));
    }
    if rules.include.is_empty() {
        packing.walk(files, b"", &files.root()?)?;
    }
    for include in &rules.include {
        let found = files.find(include)?;
        if !include.is_empty() {
            packing.add(include, &found)?;
        }
        if found.entry.is_dir() {
            packing.walk(files, include, &found)?;
        }
    }
    Ok(packing.builder.finish()?.recipe)
}

/// A context of the one file `found`, which lies at `path`.
///
/// # Errors
/// Fails where it can't be read.
pub fn single(files: &Files<'_>, path: &[u8], found: &Found, modes: Modes) -> Result<Recipe> {
    let style = Style::Context(modes);
    let rules = Rules::default();
    let builder = Builder::new(files.stack(), &style);
    let mut packing = Packing { rules: &rules, builder, seen: HashSet::new() };
    packing.add(path, found)?;
    Ok(packing.builder.finish()?.recipe)
}

/// A context of one file that is not on disk, such as a [`DOCKERFILE`] alone.
///
/// # Errors
/// Fails when it is longer than a file can be.
pub fn generate(name: &str, bytes: &[u8]) -> Result<Recipe> {
    let mut packer = super::pack::Packer::default();
    packer.push(generated(name), &Body::Inline(bytes));
    packer.finish()
}

/// The header of a file that is not on disk, with no attribute set, as `archive.Generate` of moby
/// has it.
fn generated(name: &str) -> Header {
    Header::new(name.into(), Type::Regular)
}

struct Packing<'a> {
    rules: &'a Rules,
    builder: Builder<'a>,
    /// Paths that are in: one that two rules include goes in once.
    seen: HashSet<Vec<u8>>,
}

impl Packing<'_> {
    /// Adds what the directory `dir` at `top` holds, but for what is ignored.
    fn walk(&mut self, files: &Files<'_>, top: &[u8], dir: &Found) -> Result<()> {
        let mut above: Vec<(Vec<u8>, Matched)> = Vec::new();
        files.walk(top, &dir.entry, &mut |path, found| {
            let is_within =
                |dir: &[u8]| path.strip_prefix(dir).is_some_and(|rest| rest.starts_with(b"/"));
            while above.last().is_some_and(|(dir, _)| !is_within(dir)) {
                above.pop();
            }
            let text = String::from_utf8_lossy(path);
            let told = above.last().map(|(_, told)| told);
            let (is_ignored, told) = self.rules.ignore.matched(&text, told);
            if found.entry.is_dir() {
                above.push((path.to_vec(), told));
            }
            if !is_ignored {
                self.add(path, found)?;
                return Ok(Step::Enter);
            }
            let is_entered = self.rules.ignore.may_keep_within(&text);
            Ok(if is_entered { Step::Enter } else { Step::Skip })
        })
    }

    fn add(&mut self, path: &[u8], found: &Found) -> Result<()> {
        if !self.seen.insert(path.to_vec()) {
            return Ok(());
        }
        let path = self.renamed(path);
        if path.is_empty() || found.entry.stat.kind == FileKind::Socket {
            return Ok(());
        }
        match found.is_mark {
            true => self.builder.push_mark(&path, &found.entry.stat),
            false => self.builder.push(&path, &found.entry),
        }
    }

    fn renamed(&self, path: &[u8]) -> Vec<u8> {
        for (old, new) in &self.rules.rename {
            match path.strip_prefix(&old[..]) {
                Some(b"") => return new.clone(),
                Some([b'/', rest @ ..]) if new.is_empty() => return rest.to_vec(),
                Some(rest @ [b'/', ..]) => return [new, rest].concat(),
                Some(_) | None => {}
            }
        }
        path.to_vec()
    }
}

/// The rules of the context that lies in a directory: those of its [`IGNORE`], but for what the
/// engine needs of it.
///
/// # Errors
/// Fails where the file can't be read, or has a pattern that Docker would refuse.
pub fn ignored(files: &Files<'_>, dockerfile: &str) -> Result<Ignore> {
    let found = match files.find(IGNORE.as_bytes()) {
        Ok(found) => found,
        Err(err) if err.is_not_found() => return Ok(Ignore::default()),
        Err(err) => return Err(err),
    };
    let contents = files.contents(&found)?;
    if contents.len() > IGNORE_MAX {
        return Err(Error::invalid(IGNORE, "larger than 1 MiB"));
    }
    let mut text = vec![0; contents.len() as usize];
    contents.read_at(0, &mut text)?;
    let mut ignore = Ignore::parse(&text).map_err(|err| Error::invalid(IGNORE, err.to_string()))?;
    ignore.keep(IGNORE);
    ignore.keep(dockerfile);
    Ok(ignore)
}

/// Largest [`IGNORE`], in bytes: each of its lines is held to each name.
const IGNORE_MAX: u64 = 1 << 20;

/// A path as the user gives it: relative to the context, clean; empty for the context itself.
///
/// # Errors
/// EINVAL where it leads out of the context.
pub fn relative(path: &OsStr) -> Result<Vec<u8>> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.as_bytes().split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if parts.pop().is_none() => {
                return Err(Error::invalid(path, "leads out of the context"));
            }
            b".." => {}
            part => parts.push(part),
        }
    }
    Ok(parts.join(&b'/'))
}

//! `stratafs ls`: what is where in the tree.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::paths::{Failures, PathArgs, ended, mode_text, output, printed, why};
use super::status::Failure;
use crate::backing::FileKind;
use crate::error::Result;
use crate::time::Timestamp;
use crate::tree::{Follow, Found};

#[derive(Debug, Args)]
pub(super) struct LsArgs {
    /// Paths in the tree: images/busybox (none: its root)
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// With mode, links, owner, group, size, time of change (UTC), and where symlinks lead
    #[arg(short)]
    long: bool,
    /// Names that begin with a dot, too
    #[arg(short)]
    all: bool,
    /// What is below directories, too
    #[arg(short = 'R')]
    recursive: bool,
    #[command(flatten)]
    place: PathArgs,
}

/// Lists the paths.
pub(super) fn run(args: &LsArgs) -> Result<ExitCode, Failure> {
    let tree = args.place.tree()?;
    let mut listing = Listing {
        args,
        out: BufWriter::new(output()?),
        failures: Failures::default(),
        is_first: true,
    };
    let root = [PathBuf::new()];
    let paths = if args.paths.is_empty() { &root[..] } else { &args.paths };
    let (mut files, mut dirs) = (Vec::new(), Vec::new());
    let follow = if args.long { Follow::NotLast } else { Follow::Last };
    for path in paths {
        match tree.find(path, follow) {
            Ok(found) if found.attr().kind == FileKind::Directory => {
                dirs.push((path.clone(), found))
            }
            Ok(found) => files.push((path.clone().into_os_string(), found)),
            Err(err) => listing.failures.say(path, &why(&err)),
        }
    }
    let has_headers = args.recursive || paths.len() > 1;
    let listed = listing.list(files, dirs, has_headers);
    Ok(ended(listed, listing.failures.status())?.into())
}

struct Listing<'a> {
    args: &'a LsArgs,
    out: BufWriter<std::fs::File>,
    failures: Failures,
    is_first: bool,
}

impl<'t> Listing<'_> {
    fn list(
        &mut self,
        files: Vec<(OsString, Found<'t>)>,
        dirs: Vec<(PathBuf, Found<'t>)>,
        has_headers: bool,
    ) -> io::Result<()> {
        if !files.is_empty() {
            self.lines(files.iter().map(|(name, found)| self.line(name, found)).collect())?;
            self.is_first = false;
        }
        let mut left: Vec<_> = dirs.into_iter().rev().collect();
        while let Some((path, dir)) = left.pop() {
            if has_headers {
                let newline: &[u8] = if self.is_first { b"" } else { b"\n" };
                let name =
                    if path.as_os_str().is_empty() { OsStr::new(".") } else { path.as_os_str() };
                self.out.write_all(&[newline, &printed(name), b":\n"].concat())?;
                self.is_first = false;
            }
            let below = self.directory(&path, &dir)?;
            left.extend(below.into_iter().rev());
        }
        self.out.flush()
    }

    /// Lists a directory; the directories in it, where they are to be listed.
    fn directory(&mut self, path: &Path, dir: &Found<'t>) -> io::Result<Vec<(PathBuf, Found<'t>)>> {
        let children = match dir.tree().read_dir(dir.attr().ino) {
            Ok(listing) => listing.children.clone(),
            Err(err) => {
                self.failures.say(path, &why(&err));
                return Ok(Vec::new());
            }
        };
        let is_shown = |name: &OsStr| self.args.all || !name.as_encoded_bytes().starts_with(b".");
        let mut children: Vec<_> =
            children.into_iter().filter(|child| is_shown(&child.name)).collect();
        children.sort_by(|one, other| one.name.cmp(&other.name));
        let (mut lines, mut below) = (Vec::new(), Vec::new());
        for child in children {
            let is_below = self.args.recursive && child.kind == FileKind::Directory;
            if !self.args.long && !is_below {
                lines.push(Line::short(&child.name));
                continue;
            }
            match dir.child(&child.name) {
                Ok(found) => {
                    lines.push(self.line(&child.name, &found));
                    if is_below {
                        below.push((path.join(&child.name), found));
                    }
                }
                Err(err) => {
                    self.failures.say(&path.join(&child.name), &why(&err));
                    lines.push(Line::unknown(&child.name, self.args.long));
                }
            }
        }
        self.lines(lines)?;
        Ok(below)
    }

    fn line(&self, name: &OsStr, found: &Found<'_>) -> Line {
        if self.args.long { Line::long(name, found) } else { Line::short(name) }
    }

    /// Prints lines, their fields below one another.
    fn lines(&mut self, lines: Vec<Line>) -> io::Result<()> {
        let mut widths = [0; 4];
        for line in &lines {
            for (width, field) in widths.iter_mut().zip(&line.fields) {
                *width = field.len().max(*width);
            }
        }
        for line in lines {
            if self.args.long {
                let [links, uid, gid, size] = &line.fields;
                let [w0, w1, w2, w3] = widths;
                let (mode, time) = (&line.mode, &line.time);
                write!(
                    self.out,
                    "{mode} {links:>w0$} {uid:>w1$} {gid:>w2$} {size:>w3$} {time:20} "
                )?;
            }
            self.out.write_all(&line.name)?;
            self.out.write_all(b"\n")?;
        }
        Ok(())
    }
}

struct Line {
    mode: String,
    /// Links, owner, group, size.
    fields: [String; 4],
    time: String,
    /// With where it leads.
    name: Vec<u8>,
}

impl Line {
    fn short(name: &OsStr) -> Line {
        let (mode, fields, time) = (String::new(), Default::default(), String::new());
        Line { mode, fields, time, name: printed(name).into_owned() }
    }

    /// What can't be looked at.
    fn unknown(name: &OsStr, is_long: bool) -> Line {
        let mode = if is_long { "??????????".to_owned() } else { String::new() };
        let fields = std::array::from_fn(|_| "?".to_owned());
        Line { mode, fields, time: "?".to_owned(), name: printed(name).into_owned() }
    }

    fn long(name: &OsStr, found: &Found<'_>) -> Line {
        let attr = found.attr();
        let size = match attr.kind {
            FileKind::CharDevice | FileKind::BlockDevice => {
                format!("{}, {}", attr.rdev.0, attr.rdev.1)
            }
            _ => attr.size.to_string(),
        };
        let mut name = printed(name).into_owned();
        if attr.kind == FileKind::Symlink
            && let Ok(target) = found.tree().read_link(attr.ino)
        {
            name.extend_from_slice(b" -> ");
            name.extend_from_slice(&printed(&OsString::from_vec(target)));
        }
        Line {
            mode: mode_text(attr.kind, attr.permissions),
            fields: [attr.nlink.to_string(), attr.uid.to_string(), attr.gid.to_string(), size],
            time: seconds(attr.mtime),
            name,
        }
    }
}

/// A time to the second, in UTC.
fn seconds(time: crate::backing::Time) -> String {
    Timestamp::from_instant(crate::backing::Time { nanos: 0, ..time }).to_string()
}

//! Patterns of file names as Docker reads them: those of `.dockerignore` and of COPY.
//!
//! Sources: moby/patternmatcher; Go's `path/filepath.Match`. Both are brought to regular
//! expressions, as the former does itself, and matched in linear time.

use std::iter::Peekable;
use std::str::Chars;

use regex::Regex;

/// Why a pattern can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadPattern(pub String);

impl std::fmt::Display for BadPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: not a pattern", self.0)
    }
}

impl std::error::Error for BadPattern {}

/// Names that are left out of a build context, in the order of their rules: the last one that
/// matches a path, or a directory above it, decides.
#[derive(Debug, Clone, Default)]
pub struct Ignore {
    rules: Vec<Rule>,
    /// What is sent although rules leave it out.
    kept: Vec<String>,
}

#[derive(Debug, Clone)]
struct Rule {
    /// The pattern, clean and without `!`.
    text: String,
    matches: Matcher,
    /// True for what starts with `!`: it is not left out.
    keeps: bool,
}

#[derive(Debug, Clone)]
enum Matcher {
    Exact,
    /// Anything that starts with this.
    Prefix(String),
    /// Anything that ends with this.
    Suffix(String),
    Regex(Regex),
}

/// Which rules matched a directory: those below it inherit that.
#[derive(Debug, Clone, Default)]
pub struct Matched(Vec<bool>);

impl Ignore {
    /// The rules of a `.dockerignore` file.
    ///
    /// # Errors
    /// Fails on a pattern that Docker would refuse.
    pub fn parse(file: &[u8]) -> Result<Ignore, BadPattern> {
        let text =
            String::from_utf8_lossy(file.strip_prefix("\u{feff}".as_bytes()).unwrap_or(file));
        let mut ignore = Ignore::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            ignore.add_line(line)?;
        }
        Ok(ignore)
    }

    /// Adds one line of such a file.
    ///
    /// # Errors
    /// Fails on a pattern that Docker would refuse.
    pub fn add_line(&mut self, line: &str) -> Result<(), BadPattern> {
        let line = line.trim();
        let (keeps, pattern) = match line.strip_prefix('!') {
            Some(rest) => (true, rest.trim()),
            None => (false, line),
        };
        if line.is_empty() {
            return Ok(());
        }
        if pattern.is_empty() {
            return Err(BadPattern(line.into()));
        }
        let clean = clean(pattern);
        // Absolute paths start at the context's root.
        let text = if clean.len() > 1 { clean.trim_start_matches('/') } else { &clean };
        // Docker asks `filepath.Match` whether a pattern is well-formed, and nothing else.
        let matches = wildcard_regex(text).and_then(|_| compile(text));
        let matches = matches.ok_or_else(|| BadPattern(line.into()))?;
        self.rules.push(Rule { text: text.to_owned(), matches, keeps });
        Ok(())
    }

    /// Makes sure that `path` is sent although rules leave it out: the engine needs it, and removes
    /// it again.
    pub fn keep(&mut self, path: &str) {
        if self.is_ignored(path) {
            let rule = Rule { text: path.to_owned(), matches: Matcher::Exact, keeps: true };
            self.rules.push(rule);
            self.kept.push(path.to_owned());
        }
    }

    /// Whether `path` is sent only because [`Ignore::keep`] says so.
    #[must_use]
    pub fn is_kept(&self, path: &str) -> bool {
        self.kept.iter().any(|kept| kept == path)
    }

    /// Whether `path` is left out, seen alone.
    #[must_use]
    pub fn is_ignored(&self, path: &str) -> bool {
        self.matched(path, None).0
    }

    /// Whether `path` is left out, and what those in it are to be told. `above` is what was said of
    /// the directory that it is in; without that, rules are held to all those above.
    #[must_use]
    pub fn matched(&self, path: &str, above: Option<&Matched>) -> (bool, Matched) {
        let mut is_ignored = false;
        let mut all = vec![false; self.rules.len()];
        for (index, rule) in self.rules.iter().enumerate() {
            let is_inherited = above.is_some_and(|above| above.0.get(index) == Some(&true));
            // A rule that would change nothing is not looked at, which those below inherit too.
            let is_looked_at = rule.keeps == is_ignored;
            let fits = || match above {
                Some(_) => rule.matches(path),
                None => rule.matches(path) || ancestors(path).any(|above| rule.matches(above)),
            };
            if is_inherited || is_looked_at && fits() {
                all[index] = true;
                is_ignored = !rule.keeps;
            }
        }
        (is_ignored, Matched(all))
    }

    /// Whether something in the directory `path`, which is left out, may be kept after all.
    #[must_use]
    pub fn may_keep_within(&self, path: &str) -> bool {
        let within = format!("{path}/");
        self.rules.iter().any(|rule| rule.keeps && format!("{}/", rule.text).starts_with(&within))
    }
}

impl Rule {
    fn matches(&self, path: &str) -> bool {
        match &self.matches {
            Matcher::Exact => path == self.text,
            Matcher::Prefix(prefix) => path.starts_with(prefix),
            Matcher::Suffix(suffix) => {
                path.ends_with(suffix) || suffix.strip_prefix('/').is_some_and(|rest| path == rest)
            }
            Matcher::Regex(regex) => regex.is_match(path),
        }
    }
}

/// A pattern of `filepath.Match`, as COPY takes it.
#[derive(Debug, Clone)]
pub struct Wildcard(Regex);

impl Wildcard {
    /// # Errors
    /// Fails on what Go calls a bad pattern.
    pub fn parse(pattern: &str) -> Result<Wildcard, BadPattern> {
        let bad = || BadPattern(pattern.into());
        let regex = wildcard_regex(pattern).ok_or_else(bad)?;
        Regex::new(&regex).map(Wildcard).map_err(|_| bad())
    }

    /// Whether all of `path` fits.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        self.0.is_match(path)
    }

    /// Whether COPY takes a source for a pattern and not for a path.
    #[must_use]
    pub fn is_one(source: &str) -> bool {
        let mut characters = source.chars();
        while let Some(character) = characters.next() {
            match character {
                '\\' => {
                    characters.next();
                }
                '*' | '?' | '[' => return true,
                _ => {}
            }
        }
        false
    }
}

/// The directories above a path, the topmost first.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

/// As Go's `path.Clean`.
fn clean(path: &str) -> String {
    let is_absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|&last| last != "..") => {
                parts.pop();
            }
            ".." if is_absolute => {}
            part => parts.push(part),
        }
    }
    match (is_absolute, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".into(),
        (false, false) => parts.join("/"),
    }
}

/// How `patternmatcher` matches a clean pattern.
fn compile(pattern: &str) -> Option<Matcher> {
    let mut regex = String::from("^");
    let mut kind = Kind::Exact;
    let mut rest = pattern.chars().peekable();
    let mut is_first = true;
    while let Some(character) = rest.next() {
        match character {
            '*' if rest.next_if_eq(&'*').is_some() => {
                rest.next_if_eq(&'/');
                match (rest.peek(), kind) {
                    (None, Kind::Exact) => kind = Kind::Prefix,
                    (None, _) => {
                        regex.push_str(".*");
                        kind = Kind::Regex;
                    }
                    (Some(_), _) => {
                        regex.push_str("(.*/)?");
                        kind = Kind::Regex;
                    }
                }
                if is_first {
                    kind = Kind::Suffix;
                }
            }
            '*' => {
                regex.push_str("[^/]*");
                kind = Kind::Regex;
            }
            '?' => {
                regex.push_str("[^/]");
                kind = Kind::Regex;
            }
            '.' | '+' | '(' | ')' | '|' | '{' | '}' | '$' => regex.extend(['\\', character]),
            '\\' => match rest.next() {
                Some(escaped) => {
                    regex.extend(['\\', escaped]);
                    kind = Kind::Regex;
                }
                None => regex.push('\\'),
            },
            '[' | ']' => {
                regex.push(character);
                kind = Kind::Regex;
            }
            character => regex.push(character),
        }
        is_first = false;
    }
    Some(match kind {
        Kind::Exact => Matcher::Exact,
        Kind::Prefix => Matcher::Prefix(pattern.strip_suffix("**")?.to_owned()),
        Kind::Suffix => Matcher::Suffix(pattern.strip_prefix("**")?.to_owned()),
        Kind::Regex => Matcher::Regex(Regex::new(&format!("{regex}$")).ok()?),
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Exact,
    Prefix,
    Suffix,
    Regex,
}

/// The regular expression of a `filepath.Match` pattern; `None` where that is malformed.
fn wildcard_regex(pattern: &str) -> Option<String> {
    let mut regex = String::from("(?s)^");
    let mut rest = pattern.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '*' => regex.push_str("[^/]*"),
            '?' => regex.push_str("[^/]"),
            '[' => regex.push_str(&class_regex(&mut rest)?),
            '\\' => regex.push_str(&regex::escape(&rest.next()?.to_string())),
            character => regex.push_str(&regex::escape(&character.to_string())),
        }
    }
    regex.push('$');
    Some(regex)
}

/// The rest of a class, behind its `[`.
fn class_regex(rest: &mut Peekable<Chars<'_>>) -> Option<String> {
    let negation = if rest.next_if_eq(&'^').is_some() { "^" } else { "" };
    // Of an empty range nothing is left, and a class may hold nothing else.
    let mut ranges = String::new();
    let mut is_first = true;
    while is_first || rest.next_if_eq(&']').is_none() {
        let low = class_character(rest)?;
        let high = match rest.next_if_eq(&'-') {
            Some(_) => class_character(rest)?,
            None => low,
        };
        if low <= high {
            ranges += &format!(r"\x{{{:x}}}-\x{{{:x}}}", u32::from(low), u32::from(high));
        }
        is_first = false;
    }
    Some(match (ranges.is_empty(), negation) {
        (false, _) => format!("[{negation}{ranges}]"),
        (true, "") => r"[^\x{0}-\x{10ffff}]".into(),
        (true, _) => "(?s:.)".into(),
    })
}

/// One character of a class, perhaps escaped (Go's `getEsc`).
fn class_character(rest: &mut Peekable<Chars<'_>>) -> Option<char> {
    match rest.next()? {
        '-' | ']' => None,
        '\\' => rest.next(),
        character => Some(character),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_ignored(rules: &str, path: &str) -> bool {
        Ignore::parse(rules.as_bytes()).unwrap().is_ignored(path)
    }

    #[test]
    fn the_last_rule_that_matches_decides() {
        for (rules, path, expected) in [
            ("a", "a", true),
            ("a", "a/b", true),
            ("a", "b/a", false),
            ("/a/", "a/b/c", true),
            ("*.go\n!x.go", "x.go", false),
            ("*.go\n!x.go", "y.go", true),
            ("!x.go\n*.go", "x.go", true),
            ("*\n!keep", "keep/it", false),
            ("**/*.md", "README.md", true),
            ("**/*.md", "a/b/c.md", true),
            ("**/temp", "a/temp/x", true),
            ("a/**", "a/b", true),
            ("a/**", "a", false),
            ("a/**/z", "a/z", true),
            ("a/**/z", "a/b/c/z", true),
            ("**", "anything/at/all", true),
            ("*/temp*", "x/temporary", true),
            ("*/temp*", "x/y/temporary", false),
            ("temp?", "tempa", true),
            ("temp?", "temp/", false),
            ("a[b-d]e", "ace", true),
            ("a[^b]e", "abe", false),
            (r"a\*b", "a*b", true),
            (r"a\*b", "axb", false),
            ("a.b", "axb", false),
            ("# a\n\n  b  ", "b", true),
            ("# a", "# a", false),
            ("! a\na", "a", true),
            ("a\n! a", "a", false),
            ("../a", "a", false),
            ("\u{feff}a", "a", true),
        ] {
            assert_eq!(is_ignored(rules, path), expected, "{rules:?} {path}");
        }
    }

    #[test]
    fn what_a_directory_was_told_holds_for_those_in_it() {
        let ignore = Ignore::parse(b"a\n!a/b\na/b/c").unwrap();
        let (is_out, a) = ignore.matched("a", None);
        assert!(is_out && ignore.may_keep_within("a"));
        let (is_out, b) = ignore.matched("a/b", Some(&a));
        assert!(!is_out);
        assert!(ignore.matched("a/x", Some(&a)).0);
        assert!(ignore.matched("a/b/c", Some(&b)).0);
        assert!(!ignore.matched("a/b/d", Some(&b)).0);
        assert!(!Ignore::parse(b"a\n!**/b").unwrap().may_keep_within("a"), "as Docker has it");
    }

    #[test]
    fn what_the_engine_needs_is_kept() {
        let mut ignore = Ignore::parse(b"*").unwrap();
        ignore.keep("Dockerfile");
        assert!(!ignore.is_ignored("Dockerfile") && ignore.is_ignored("other"));
    }

    #[test]
    fn a_wildcard_stays_in_its_directory() {
        for (pattern, path, expected) in [
            ("*.c", "a.c", true),
            ("*.c", "d/a.c", false),
            ("d/*.c", "d/a.c", true),
            ("?", "\u{e9}", true),
            ("?", "/", false),
            ("[a-c]", "b", true),
            ("[^a-c]", "b", false),
            ("[^a-c]", "/", true),
            (r"[\]]", "]", true),
            ("[z-a]", "b", false),
            ("[^z-a]", "b", true),
            (r"\*", "*", true),
            ("a.c", "abc", false),
            ("*", "new\nline", true),
            ("**", "a/b", false),
        ] {
            assert_eq!(
                Wildcard::parse(pattern).unwrap().matches(path),
                expected,
                "{pattern} {path}"
            );
        }
        for pattern in ["[", "[]", "[a", "[-a]", "a\\", "[a-]"] {
            assert!(Wildcard::parse(pattern).is_err(), "{pattern}");
            assert!(Ignore::parse(pattern.as_bytes()).is_err(), "{pattern}");
        }
        assert!(Ignore::parse(b"!").is_err());
        assert!(Wildcard::is_one("a*") && Wildcard::is_one("[a]"));
        assert!(!Wildcard::is_one(r"a\*") && !Wildcard::is_one("a"));
    }
}

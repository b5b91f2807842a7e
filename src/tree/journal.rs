//! Lines for `.stratafs/errors` and `.stratafs/events`: the newest ones, kept in memory.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use crate::backing::Time;
use crate::error::Error;
use crate::time::Timestamp;

/// How many lines are kept.
const KEPT: usize = 1000;

/// Longest line that is kept, in bytes.
const LONGEST: usize = 8192;

#[derive(Debug, Default)]
pub(super) struct Journal(Mutex<VecDeque<String>>);

impl Journal {
    /// Adds a line; control characters in it are escaped. The same line twice in a row counts once:
    /// the kernel asks again for what failed. Whether it was new.
    pub(super) fn push(&self, line: &str) -> bool {
        let mut escaped = escaped(line);
        escaped.push('\n');
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.back() == Some(&escaped) {
            return false;
        }
        if lines.len() == KEPT {
            lines.pop_front();
        }
        lines.push_back(escaped);
        true
    }

    /// Notes something that is no failure, here and in the log.
    pub(super) fn note(&self, what: &str) {
        if self.push(&format!("{} {what}", now())) {
            tracing::warn!("{}", escaped(what));
        }
    }

    /// Notes a failure, here and in the log.
    pub(super) fn report(&self, error: &Error) {
        self.note(&error.to_string());
    }

    /// All lines, oldest first.
    pub(super) fn text(&self) -> Vec<u8> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().flat_map(|line| line.bytes()).collect()
    }
}

/// A line that does what it should in a file and on a terminal, and no longer than [`LONGEST`].
fn escaped(line: &str) -> String {
    let mut escaped = String::with_capacity(line.len() + 1);
    for character in line.chars() {
        if escaped.len() > LONGEST {
            break;
        }
        match character.is_control() {
            true => escaped.extend(character.escape_default()),
            false => escaped.push(character),
        }
    }
    escaped
}

/// The time of day, in whole seconds.
pub(super) fn clock() -> Time {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Time { secs: since.map_or(0, |since| since.as_secs().cast_signed()), nanos: 0 }
}

/// The time of day as the lines have it: RFC 3339, UTC, seconds.
pub(super) fn now() -> String {
    Timestamp::from_instant(clock()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_keeps_the_newest_lines_and_escapes_control_characters() {
        let journal = Journal::default();
        for number in 0..=KEPT {
            journal.push(&format!("{number}\n\u{1b}[31m"));
        }
        let text = String::from_utf8(journal.text()).unwrap();
        assert_eq!(text.lines().count(), KEPT);
        assert!(text.starts_with("1\\n\\u{1b}[31m\n"), "{}", &text[..30]);
    }
}

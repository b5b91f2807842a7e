//! Values as they were written.

use serde_json::value::RawValue;

/// A value as it was written, but for spaces between tokens and what HTML could take amiss
/// (encoding/json, `appendCompact`).
#[must_use]
pub fn compact(raw: &RawValue) -> String {
    let mut compact = String::with_capacity(raw.get().len());
    let (mut in_string, mut is_escaped) = (false, false);
    for letter in raw.get().chars() {
        match letter {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                compact.push_str(&format!("\\u{:04x}", u32::from(letter)));
            }
            ' ' | '\t' | '\n' | '\r' if !in_string => {}
            letter => compact.push(letter),
        }
        if letter == '"' && !is_escaped {
            in_string = !in_string;
        }
        is_escaped = letter == '\\' && !is_escaped;
    }
    compact
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_keeps_all_but_its_spaces() {
        let value: Box<RawValue> = serde_json::from_str("\"a \\\" <&>\u{2028} \\\\\"").unwrap();
        assert_eq!(compact(&value), r#""a \" \u003c\u0026\u003e\u2028 \\""#);
    }
}

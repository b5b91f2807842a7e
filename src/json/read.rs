//! Reading a document as Go's decoder does, within bounds.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

use super::{Json, Malformed};

/// Values that one document may hold; real image configs have a few hundred.
const MAX_VALUES: usize = 1 << 18;

/// Parses one document, as forgiving as Go: what is no UTF-8 becomes U+FFFD.
///
/// # Errors
/// Fails on what is not one JSON value, is nested 128 deep, or holds over 262,144 values.
pub fn parse(document: &[u8]) -> Result<Json, Malformed> {
    let text = go_text(document);
    let mut deserializer = serde_json::Deserializer::from_str(&text);
    let budget = Cell::new(MAX_VALUES);
    Limited { budget: &budget }
        .deserialize(&mut deserializer)
        .and_then(|json| deserializer.end().map(|()| json))
        .map_err(|err| Malformed::new(err.to_string()))
}

/// The text with each byte that is no UTF-8, and each escaped half of a surrogate pair, replaced
/// by U+FFFD, as Go's decoder does.
fn go_text(document: &[u8]) -> Cow<'_, str> {
    let text = match str::from_utf8(document) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => {
            let mut text = String::with_capacity(document.len());
            for chunk in document.utf8_chunks() {
                text.push_str(chunk.valid());
                text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
            }
            Cow::Owned(text)
        }
    };
    if text.contains("\\u") { replace_half_surrogates(text) } else { text }
}

fn replace_half_surrogates(text: Cow<'_, str>) -> Cow<'_, str> {
    let halves = half_surrogates(text.as_bytes());
    if halves.is_empty() {
        return text;
    }
    let (mut replaced, mut done) = (String::with_capacity(text.len()), 0);
    for start in halves {
        replaced.push_str(&text[done..start]);
        replaced.push_str("\\ufffd");
        done = start + ESCAPE;
    }
    replaced.push_str(&text[done..]);
    Cow::Owned(replaced)
}

/// Bytes of an escape `\u0000`.
const ESCAPE: usize = 6;

/// Offsets of the escapes that stand for half a surrogate pair, ascending; each is a whole escape.
fn half_surrogates(text: &[u8]) -> Vec<usize> {
    let (mut halves, mut at) = (Vec::new(), 0);
    while let Some(escape) = text.get(at..).and_then(|rest| rest.iter().position(|b| *b == b'\\')) {
        at += escape;
        at += match (code_unit(text, at), code_unit(text, at + ESCAPE)) {
            (Some(0xd800..0xdc00), Some(0xdc00..0xe000)) => 2 * ESCAPE,
            (Some(0xd800..0xe000), _) => {
                halves.push(at);
                ESCAPE
            }
            _ => 2,
        };
    }
    halves
}

/// The value of the escape `\u0000` at `at`.
fn code_unit(text: &[u8], at: usize) -> Option<u32> {
    let digits = text.get(at..at + ESCAPE)?.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | char::from(*digit).to_digit(16)?))
}

/// A value, out of a budget of values.
#[derive(Clone, Copy)]
struct Limited<'a> {
    budget: &'a Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for Limited<'_> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        let left = self.budget.get().checked_sub(1).ok_or_else(|| D::Error::custom("too large"))?;
        self.budget.set(left);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Limited<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        // `-0`, which Go takes for a whole number, arrives here.
        let number = if value == 0.0 { Some(0.into()) } else { Number::from_f64(value) };
        Ok(number.map_or(Json::Null, Json::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            array.push(item);
        }
        Ok(Json::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut object = Vec::new();
        while let Some(key) = entries.next_key()? {
            object.push((key, entries.next_value_seed(self)?));
        }
        Ok(Json::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Escapes;
    use super::*;

    fn compact(document: &[u8]) -> String {
        String::from_utf8(parse(document).unwrap().to_bytes(Escapes::DOCKER_20)).unwrap()
    }

    #[test]
    fn what_is_no_unicode_becomes_the_replacement_character() {
        for (document, expected) in [
            (b"\"a\xffb\xe2\x82\"".as_slice(), "\"a\u{fffd}b\u{fffd}\u{fffd}\""),
            (br#""\ud800""#, "\"\u{fffd}\""),
            (br#""\udc00\ud800x""#, "\"\u{fffd}\u{fffd}x\""),
            (br#""\ud83d\ude00""#, "\"\u{1f600}\""),
            (br#""\ud83d\ud83d\ude00""#, "\"\u{fffd}\u{1f600}\""),
            (br#""\\ud800""#, r#""\\ud800""#),
            (br#""\\\ud800""#, "\"\\\\\u{fffd}\""),
        ] {
            assert_eq!(compact(document), expected);
        }
    }

    #[test]
    fn hostile_documents_are_refused() {
        let deep = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
        let wide = [b"[0".to_vec(), b",0".repeat(MAX_VALUES), b"]".to_vec()].concat();
        for document in
            [deep.as_slice(), &wide, b"", b"{", b"[1]x", b"\"\\u12", b"\"\\", b"nul", b"\xff"]
        {
            assert!(parse(document).is_err());
        }
    }
}

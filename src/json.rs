//! JSON as Go's `encoding/json` reads and writes it. Names, IDs and sizes of archives hang on these
//! bytes, so whatever is re-encoded has to come out as from the engine.
//!
//! What a general JSON library does otherwise, and what answers it here:
//! 1. Keys keep their order, and come from structs (declaration order) or maps (sorted): [`Json`].
//! 2. `<`, `>`, `&`, U+2028 and U+2029 are escaped, `\b` and `\f` by version: [`Escapes`].
//! 3. Broken UTF-8 and half surrogates become U+FFFD instead of an error: [`parse`].
//! 4. Keys match without regard to case, null means nothing, absent is zero: [`shape::Shape`].

use serde_json::Number;

use crate::error::Malformed;

mod raw;
mod read;
pub mod shape;

pub use raw::compact;
pub use read::parse;

/// A JSON value. Objects keep the order of their keys, and keys given twice.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number.
    Number(Number),
    /// A string.
    String(String),
    /// An array.
    Array(Vec<Json>),
    /// An object.
    Object(Vec<(String, Json)>),
}

/// A string, as the value that it is.
impl From<&str> for Json {
    fn from(text: &str) -> Json {
        Json::String(text.to_owned())
    }
}

impl From<String> for Json {
    fn from(text: String) -> Json {
        Json::String(text)
    }
}

impl From<u64> for Json {
    fn from(number: u64) -> Json {
        Json::Number(number.into())
    }
}

/// An array: an empty one is `[]`, which in Go is not `null`.
impl From<Vec<Json>> for Json {
    fn from(array: Vec<Json>) -> Json {
        Json::Array(array)
    }
}

impl Json {
    /// An object with keys in this order: what Go makes of a struct.
    pub fn object<const N: usize>(fields: [(&str, Json); N]) -> Json {
        Json::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// An object with sorted keys: what Go makes of a map. Of a key given twice the last counts.
    #[must_use]
    pub fn map(entries: impl IntoIterator<Item = (String, Json)>) -> Json {
        let sorted: std::collections::BTreeMap<String, Json> = entries.into_iter().collect();
        Json::Object(sorted.into_iter().collect())
    }

    /// The value that Go's decoder takes for the struct field `name`, in an object: keys match
    /// without regard to case, the last one counts, null only where there is nothing else.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Json> {
        let Json::Object(fields) = self else { return None };
        let mut named =
            fields.iter().filter(|(key, _)| same_key(key, name)).map(|(_, value)| value);
        named.clone().rfind(|value| **value != Json::Null).or_else(|| named.next())
    }

    /// The values of all keys that Go's decoder takes for the struct field `name`, in an object.
    pub fn fields_mut(&mut self, name: &str) -> impl Iterator<Item = &mut Json> {
        let fields = if let Json::Object(fields) = self { &mut fields[..] } else { &mut [] };
        let named = fields.iter_mut().filter(move |(key, _)| same_key(key, name));
        named.map(|(_, value)| value)
    }

    /// The text of a string.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        if let Json::String(text) = self { Some(text) } else { None }
    }

    /// The elements of an array; none of anything else.
    #[must_use]
    pub fn items(&self) -> &[Json] {
        if let Json::Array(items) = self { items } else { &[] }
    }

    /// The keys and values of an object; none of anything else.
    #[must_use]
    pub fn entries(&self) -> &[(String, Json)] {
        if let Json::Object(entries) = self { entries } else { &[] }
    }

    /// One line without spaces and without a newline at its end, as `json.Marshal` gives.
    #[must_use]
    pub fn to_bytes(&self, escapes: Escapes) -> Vec<u8> {
        let mut writer = Writer { text: String::new(), escapes, indent: None };
        writer.value(self, 0);
        writer.text.into_bytes()
    }

    /// Many lines, indented by four spaces a level, without a newline at the end: `json.Indent`.
    #[must_use]
    pub fn to_indented(&self, escapes: Escapes) -> Vec<u8> {
        let mut writer = Writer { text: String::new(), escapes, indent: Some("    ") };
        writer.value(self, 0);
        writer.text.into_bytes()
    }
}

/// True where Go's decoder takes `key` for the field `name`: equal after simple case folding.
fn same_key(key: &str, name: &str) -> bool {
    // The two letters outside of ASCII that fold to one inside: long s and the Kelvin sign.
    let fold = |letter: char| match letter {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        letter => letter.to_ascii_lowercase(),
    };
    key.chars().map(fold).eq(name.chars().map(fold))
}

/// Which characters of strings are escaped, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Escapes {
    /// Of `\b` and `\f`.
    pub control: Control,
    /// Of `<`, `>` and `&`.
    pub html: Html,
}

/// How backspace and form feed are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// `\u0008` and `\u000c`, up to Go 1.21.
    Long,
    /// `\b` and `\f`, from Go 1.22 on.
    Short,
}

/// How `<`, `>` and `&` are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Html {
    /// `\u003c`, `\u003e`, `\u0026`, as `json.Marshal` does.
    Escaped,
    /// As they are, as an encoder does after `SetEscapeHTML(false)`.
    Plain,
}

impl Escapes {
    /// Files that Docker 20.10 writes (Go 1.19).
    pub const DOCKER_20: Escapes = Escapes { control: Control::Long, html: Html::Escaped };
    /// Files that Docker 29 writes (Go 1.25).
    pub const DOCKER_29: Escapes = Escapes { control: Control::Short, html: Html::Escaped };
    /// Answers of Docker 20.10's API.
    pub const DOCKER_20_API: Escapes = Escapes { control: Control::Long, html: Html::Plain };
}

struct Writer {
    text: String,
    escapes: Escapes,
    indent: Option<&'static str>,
}

impl Writer {
    fn value(&mut self, json: &Json, depth: usize) {
        match json {
            Json::Null => self.text.push_str("null"),
            Json::Bool(value) => self.text.push_str(if *value { "true" } else { "false" }),
            Json::Number(number) => self.text.push_str(&number.to_string()),
            Json::String(text) => self.string(text),
            Json::Array(items) => self.list(['[', ']'], items, depth, |writer, item| {
                writer.value(item, depth + 1);
            }),
            Json::Object(fields) => self.list(['{', '}'], fields, depth, |writer, (key, value)| {
                writer.string(key);
                writer.text.push_str(if writer.indent.is_some() { ": " } else { ":" });
                writer.value(value, depth + 1);
            }),
        }
    }

    fn list<T>(
        &mut self,
        [open, close]: [char; 2],
        items: &[T],
        depth: usize,
        mut item: impl FnMut(&mut Writer, &T),
    ) {
        self.text.push(open);
        for (index, each) in items.iter().enumerate() {
            if index > 0 {
                self.text.push(',');
            }
            self.line(depth + 1);
            item(self, each);
        }
        if !items.is_empty() {
            self.line(depth);
        }
        self.text.push(close);
    }

    fn line(&mut self, depth: usize) {
        let Some(indent) = self.indent else { return };
        self.text.push('\n');
        for _ in 0..depth {
            self.text.push_str(indent);
        }
    }

    fn string(&mut self, text: &str) {
        self.text.push('"');
        for letter in text.chars() {
            self.letter(letter);
        }
        self.text.push('"');
    }

    fn letter(&mut self, letter: char) {
        let Escapes { control, html } = self.escapes;
        match (letter, control, html) {
            ('"', _, _) => self.text.push_str("\\\""),
            ('\\', _, _) => self.text.push_str("\\\\"),
            ('\n', _, _) => self.text.push_str("\\n"),
            ('\r', _, _) => self.text.push_str("\\r"),
            ('\t', _, _) => self.text.push_str("\\t"),
            ('\u{8}', Control::Short, _) => self.text.push_str("\\b"),
            ('\u{c}', Control::Short, _) => self.text.push_str("\\f"),
            ('\0'..=' ' | '\u{2028}' | '\u{2029}', _, _) if letter != ' ' => self.hex(letter),
            ('<' | '>' | '&', _, Html::Escaped) => self.hex(letter),
            (letter, _, _) => self.text.push(letter),
        }
    }

    fn hex(&mut self, letter: char) {
        self.text.push_str(&format!("\\u{:04x}", u32::from(letter)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compact(document: &[u8]) -> String {
        let json = parse(document).unwrap();
        String::from_utf8(json.to_bytes(Escapes::DOCKER_20)).unwrap()
    }

    #[test]
    fn strings_are_escaped_as_go_does() {
        let json =
            Json::from("<a&b> \u{2028}\u{2029} \u{8}\u{c}\n\r\t\u{1}\u{7f} \"\\/ é\u{1f600}");
        for (escapes, expected) in [
            (
                Escapes::DOCKER_20,
                r#""\u003ca\u0026b\u003e \u2028\u2029 \u0008\u000c\n\r\t\u0001DEL \"\\/ é😀""#,
            ),
            (
                Escapes::DOCKER_29,
                r#""\u003ca\u0026b\u003e \u2028\u2029 \b\f\n\r\t\u0001DEL \"\\/ é😀""#,
            ),
            (
                Escapes::DOCKER_20_API,
                r#""<a&b> \u2028\u2029 \u0008\u000c\n\r\t\u0001DEL \"\\/ é😀""#,
            ),
        ] {
            let expected = expected.replace("DEL", "\u{7f}");
            assert_eq!(String::from_utf8(json.to_bytes(escapes)).unwrap(), expected);
        }
    }

    #[test]
    fn keys_keep_their_order() {
        assert_eq!(
            compact(br#"{ "b": 1, "a": [ -1, {} , [] ], "b": null }"#),
            r#"{"b":1,"a":[-1,{},[]],"b":null}"#
        );
        let map = Json::map([
            ("b".to_owned(), 1.into()),
            ("B".to_owned(), 2.into()),
            ("b".to_owned(), 3.into()),
        ]);
        assert_eq!(map.to_bytes(Escapes::DOCKER_20), br#"{"B":2,"b":3}"#);
    }

    #[test]
    fn fields_match_without_regard_to_case() {
        let json = parse(r#"{"OS":"a","os":"b","oS":null,"tasK":1,"n":null}"#.as_bytes()).unwrap();
        assert_eq!(json.field("os"), Some(&"b".into()));
        assert_eq!(json.field("task"), Some(&1.into()));
        assert_eq!(json.field("n"), Some(&Json::Null));
        assert_eq!(json.field("arch"), None);
    }

    #[test]
    fn indentation_is_that_of_docker_inspect() {
        let json = parse(br#"[{"a":{},"b":[],"c":[1,"<"]}]"#).unwrap();
        let expected = "[\n    {\n        \"a\": {},\n        \"b\": [],\n        \"c\": [\n            1,\n            \"<\"\n        ]\n    }\n]";
        assert_eq!(String::from_utf8(json.to_indented(Escapes::DOCKER_20_API)).unwrap(), expected);
    }
}

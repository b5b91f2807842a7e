//! Go types as values, to print a document as Go prints it after reading it into such a type.

use super::{Json, Malformed};
use crate::time::Timestamp;

/// A Go type.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// `string`
    String,
    /// `bool`
    Bool,
    /// `int`, `int64`, `time.Duration`
    Int,
    /// `time.Time`
    Time,
    /// `*T`: null where it is absent.
    Pointer(&'static Shape),
    /// `[]T`: null where it is absent.
    List(&'static Shape),
    /// `strslice.StrSlice`: a list of strings; one string alone is a list too.
    Words,
    /// `map[string]T`: null where it is absent.
    Map(&'static Shape),
    /// `map[network.Port]struct{}` of Docker 29: keys are `80/tcp`, however they were written.
    Ports,
    /// A struct.
    Struct(&'static [Field]),
    /// `json.RawMessage`: anything, null where it is absent.
    Any,
}

/// A field of a Go struct.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its key.
    pub name: &'static str,
    /// Its type.
    pub shape: Shape,
    /// When it is left out.
    pub omit: Omit,
}

/// When a field is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Omit {
    /// Never.
    Never,
    /// `omitempty`: where it is false, 0, "", nil or an empty list or map. A struct never is.
    Empty,
}

/// `struct{}`, and sets are maps to it.
pub const SET: Shape = Shape::Map(&Shape::Struct(&[]));

/// `[]string`
pub const STRINGS: Shape = Shape::List(&Shape::String);

impl Field {
    /// A field that is always there.
    #[must_use]
    pub const fn always(name: &'static str, shape: Shape) -> Field {
        Field { name, shape, omit: Omit::Never }
    }

    /// A field that is left out where it is empty.
    #[must_use]
    pub const fn unless_empty(name: &'static str, shape: Shape) -> Field {
        Field { name, shape, omit: Omit::Empty }
    }
}

impl Shape {
    /// What Go prints of a variable of this type into which it has read `json`. `None` is a
    /// variable that nothing was read into.
    ///
    /// # Errors
    /// Fails where Go's decoder would: on a value of another type, on a time that is none.
    pub fn read(&self, json: Option<&Json>) -> Result<Json, Malformed> {
        let json = json.filter(|json| **json != Json::Null);
        match (self, json) {
            (Shape::String, None) => Ok("".into()),
            (Shape::Bool, None) => Ok(Json::Bool(false)),
            (Shape::Int, None) => Ok(0.into()),
            (Shape::Time, None) => Ok(Timestamp::zero().as_str().into()),
            (Shape::Struct(fields), _) => read_struct(fields, json),
            (_, None) => Ok(Json::Null),
            (Shape::String, Some(Json::String(_)))
            | (Shape::Bool, Some(Json::Bool(_)))
            | (Shape::Any, Some(_)) => Ok(json.cloned().unwrap_or(Json::Null)),
            (Shape::Int, Some(Json::Number(number))) if number.is_i64() => {
                Ok(Json::Number(number.clone()))
            }
            (Shape::Time, Some(Json::String(text))) => match Timestamp::parse(text) {
                Some(stamp) => Ok(stamp.as_str().into()),
                None => Err(Malformed::new(format!("{text:.40?} is no time"))),
            },
            (Shape::Pointer(inner), Some(_)) => inner.read(json),
            (Shape::List(item), Some(Json::Array(items))) => read_list(item, items),
            (Shape::Words, Some(Json::Array(items))) => read_list(&Shape::String, items),
            (Shape::Words, Some(Json::String(word))) => Ok(Json::Array(vec![word.as_str().into()])),
            (Shape::Map(value), Some(Json::Object(entries))) => read_map(value, entries),
            (Shape::Ports, Some(Json::Object(entries))) => read_ports(entries),
            (_, Some(other)) => Err(self.mismatch(other)),
        }
    }

    fn mismatch(&self, json: &Json) -> Malformed {
        let found = match json {
            Json::Null => "null",
            Json::Bool(_) => "a boolean",
            Json::Number(_) => "a number",
            Json::String(_) => "a string",
            Json::Array(_) => "an array",
            Json::Object(_) => "an object",
        };
        let wanted = match self {
            Shape::String | Shape::Time => "a string",
            Shape::Bool => "a boolean",
            Shape::Int => "a whole number",
            Shape::List(_) | Shape::Words => "an array",
            Shape::Map(_) | Shape::Ports | Shape::Struct(_) => "an object",
            Shape::Pointer(_) | Shape::Any => "another value",
        };
        Malformed::new(format!("{found} where {wanted} belongs"))
    }

    /// True where `omitempty` drops `json`, which this type has printed.
    fn is_empty(&self, json: &Json) -> bool {
        match self {
            Shape::Struct(_) | Shape::Time => false,
            Shape::Pointer(_) => *json == Json::Null,
            Shape::String
            | Shape::Bool
            | Shape::Int
            | Shape::List(_)
            | Shape::Words
            | Shape::Map(_)
            | Shape::Ports
            | Shape::Any => match json {
                Json::Null => true,
                Json::Bool(value) => !value,
                Json::Number(number) => number.as_i64() == Some(0),
                Json::String(text) => text.is_empty(),
                Json::Array(items) => items.is_empty(),
                Json::Object(entries) => entries.is_empty(),
            },
        }
    }
}

fn read_struct(fields: &[Field], json: Option<&Json>) -> Result<Json, Malformed> {
    if let Some(other) = json.filter(|json| !matches!(json, Json::Object(_))) {
        return Err(Shape::Struct(&[]).mismatch(other));
    }
    let mut object = Vec::with_capacity(fields.len());
    for field in fields {
        let value = field
            .shape
            .read(json.and_then(|json| json.field(field.name)))
            .map_err(|err| Malformed::new(format!("{}: {err}", field.name)))?;
        if field.omit == Omit::Never || !field.shape.is_empty(&value) {
            object.push((field.name.to_owned(), value));
        }
    }
    Ok(Json::Object(object))
}

fn read_list(item: &Shape, items: &[Json]) -> Result<Json, Malformed> {
    items.iter().map(|json| item.read(Some(json))).collect::<Result<_, _>>().map(Json::Array)
}

fn read_map(value: &Shape, entries: &[(String, Json)]) -> Result<Json, Malformed> {
    let read = |(key, json): &(String, Json)| Ok((key.clone(), value.read(Some(json))?));
    entries.iter().map(read).collect::<Result<Vec<_>, _>>().map(Json::map)
}

fn read_ports(entries: &[(String, Json)]) -> Result<Json, Malformed> {
    let empty = Shape::Struct(&[]);
    let read = |(key, json): &(String, Json)| Ok((port(key)?, empty.read(Some(json))?));
    entries.iter().map(read).collect::<Result<Vec<_>, _>>().map(Json::map)
}

/// `80/TCP` and `80` as `80/tcp` (moby/moby/api/types/network/port.go, `ParsePort`).
fn port(text: &str) -> Result<String, Malformed> {
    if text.is_empty() {
        return Ok(String::new());
    }
    let (number, protocol) = text.split_once('/').unwrap_or((text, ""));
    let digits = !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit());
    let number = digits.then(|| number.parse::<u16>().ok()).flatten();
    let number = number.ok_or_else(|| Malformed::new(format!("{text:.40?} is no port")))?;
    let protocol = if protocol.is_empty() { "tcp" } else { protocol };
    Ok(format!("{number}/{}", protocol.to_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::super::{Escapes, parse};
    use super::*;

    const EVERYTHING: Shape = Shape::Struct(&[
        Field::always("Text", Shape::String),
        Field::always("Flag", Shape::Bool),
        Field::always("Count", Shape::Int),
        Field::always("When", Shape::Time),
        Field::always("List", STRINGS),
        Field::always("Words", Shape::Words),
        Field::always("Map", Shape::Map(&Shape::String)),
        Field::unless_empty("Ports", Shape::Ports),
        Field::unless_empty("Set", SET),
        Field::unless_empty("Late", Shape::Pointer(&Shape::Int)),
        Field::unless_empty(
            "Inner",
            Shape::Pointer(&Shape::Struct(&[Field::unless_empty("Few", STRINGS)])),
        ),
    ]);

    fn read(document: &str) -> Result<String, Malformed> {
        let json = EVERYTHING.read(Some(&parse(document.as_bytes())?))?;
        Ok(String::from_utf8(json.to_bytes(Escapes::DOCKER_29)).unwrap())
    }

    #[test]
    fn what_is_absent_is_zero() {
        let zero = r#"{"Text":"","Flag":false,"Count":0,"When":"0001-01-01T00:00:00Z","List":null,"Words":null,"Map":null}"#;
        for document in
            ["null", "{}", r#"{"text":null,"LIST":null,"ports":{},"set":{},"late":null,"other":1}"#]
        {
            assert_eq!(read(document).unwrap(), zero, "{document}");
        }
    }

    #[test]
    fn what_is_there_is_printed_in_the_order_of_the_type() {
        assert_eq!(
            read(r#"{"inner":{"few":[]},"late":0,"set":{"/b":{},"/a":null},"ports":{"080":{},"80/TCP":{},"53/udp":{}},
                "map":{"z":"1","A":"2"},"words":"w","list":["a",null],"when":"2026-01-02T03:04:05.600+01:00","count":-7,
                "flag":true,"text":"t"}"#)
            .unwrap(),
            concat!(
                r#"{"Text":"t","Flag":true,"Count":-7,"When":"2026-01-02T03:04:05.6+01:00","List":["a",""],"Words":["w"],"#,
                r#""Map":{"A":"2","z":"1"},"Ports":{"53/udp":{},"80/tcp":{}},"Set":{"/a":{},"/b":{}},"Late":0,"Inner":{}}"#
            )
        );
    }

    #[test]
    fn values_of_another_type_are_refused() {
        for document in [
            r#"{"text":1}"#,
            r#"{"flag":"true"}"#,
            r#"{"count":1.5}"#,
            r#"{"count":18446744073709551615}"#,
            r#"{"when":"yesterday"}"#,
            r#"{"list":"a"}"#,
            r#"{"words":[1]}"#,
            r#"{"map":[]}"#,
            r#"{"ports":{"a":{}}}"#,
            r#"{"ports":{"65536":{}}}"#,
            r#"{"set":{"a":1}}"#,
            r#"{"inner":[]}"#,
            "[]",
            "1",
        ] {
            assert!(read(document).is_err(), "{document}");
        }
        assert_eq!(
            read(r#"{"inner":{"few":1}}"#).unwrap_err().to_string(),
            "Inner: Few: a number where an array belongs"
        );
    }
}

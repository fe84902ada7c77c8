//! JSON that people and sockets bring: no key twice, a bounded number of values, and in files
//! comments and trailing commas. serde derives the rest.
use super::spec::WORDS_MAX;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;
use std::marker::PhantomData;

/// Reads `text` whole. No object in it has a key twice; `//` and `/* */` begin comments, and a
/// comma may stand behind the last item.
///
/// # Errors
/// One line: what is wrong, and where.
pub fn parse(text: &str) -> Result<Value, String> {
    let plain = without_comments(text);
    let mut from = serde_json::Deserializer::from_str(&plain);
    let mut left = usize::MAX;
    let read = Tree(&mut left).deserialize(&mut from);
    let read = read.and_then(|value| from.end().map(|()| value));
    read.map_err(|e| if e.is_data() { e.to_string() } else { format!("not JSON: {e}") })
}

/// `text` with blanks for what JSON doesn't have, so that lines and columns stay.
fn without_comments(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let find = |what: &str, from: usize| {
        text.as_bytes()[from..].windows(what.len()).position(|part| part == what.as_bytes())
    };
    let (mut at, mut before, mut comma) = (0, b'[', None);
    while let Some(&byte) = bytes.get(at) {
        let end = match (byte, bytes.get(at + 1)) {
            (b'"', _) => end_of_string(&bytes, at),
            (b'/', Some(b'/')) => find("\n", at).map_or(bytes.len(), |length| at + length),
            (b'/', Some(b'*')) => find("*/", at + 2).map_or(bytes.len(), |length| at + length + 4),
            _ => at + 1,
        };
        if byte == b'/' {
            let comment = bytes[at..end].iter_mut().filter(|byte| **byte != b'\n');
            comment.for_each(|byte| *byte = b' ');
        } else if !byte.is_ascii_whitespace() {
            if let (b']' | b'}', Some(comma)) = (byte, comma) {
                bytes[comma] = b' ';
            }
            // A comma behind nothing is a mistake, not a last one.
            comma = (byte == b',' && !b"[{,:".contains(&before)).then_some(at);
            before = byte;
        }
        at = end;
    }
    String::from_utf8(bytes).unwrap_or_default()
}

fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += 1 + usize::from(bytes[at] == b'\\');
    }
    (at + 1).min(bytes.len())
}

/// What errors call a value.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A list of at most [`WORDS_MAX`] items, read one by one: what a socket brings may cost a few
/// times its size in memory, whoever wrote it.
///
/// # Errors
/// It is longer, or something else.
pub fn list<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    List::deserialize(from).map(|list| list.0)
}

/// What [`list`] reads, as a type.
pub(super) struct List<T>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Items<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
            type Value = List<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<List<T>, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element()? {
                    if items.len() == WORDS_MAX {
                        return Err(A::Error::custom(format!("over {WORDS_MAX} items in a list")));
                    }
                    items.push(item);
                }
                Ok(List(items))
            }
        }
        from.deserialize_seq(Items(PhantomData))
    }
}

/// A [`Value`] to be, and how many more values may come. Of a key that is there twice one value
/// would be dropped in silence: that is an error.
pub(super) struct Tree<'a>(pub(super) &'a mut usize);

impl Tree<'_> {
    fn inner<E: Error>(&mut self) -> Result<Tree<'_>, E> {
        *self.0 = self.0.checked_sub(1).ok_or_else(|| E::custom("too many values"))?;
        Ok(Tree(self.0))
    }
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, is: bool) -> Result<Value, E> {
        Ok(is.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(self.inner()?)? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut object: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = object.next_key::<String>()? {
            if map.contains_key(&key) {
                let key = key.escape_debug();
                return Err(A::Error::custom(format!("the key '{key}' is there twice")));
            }
            map.insert(key, object.next_value_seed(self.inner()?)?);
        }
        Ok(map.into())
    }
}

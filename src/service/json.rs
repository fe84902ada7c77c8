//! JSON that people and sockets bring: no key twice, a bounded number of values, and in files what
//! JavaScript allows besides: comments, trailing commas, keys without quotes, single quotes. serde
//! derives the rest.
use super::spec::WORDS_MAX;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;
use std::marker::PhantomData;

/// Reads `text` whole. No object in it has a key twice; `//` and `/* */` begin comments, a comma
/// may stand behind the last item, a key without quotes, a string in single ones. Errors: one line:
/// what is wrong, and where.
pub fn parse(text: &str) -> Result<Value, String> {
    let read = |text: &str| {
        let mut from = serde_json::Deserializer::from_str(text);
        let mut left = usize::MAX;
        let read = Tree(&mut left).deserialize(&mut from);
        read.and_then(|value| from.end().map(|()| value))
    };
    // Most files are JSON as they are.
    let read = read(text).or_else(|_| read(&strict(text)));
    read.map_err(|e| if e.is_data() { e.to_string() } else { format!("not JSON: {e}") })
}

/// `text` as JSON has it: blanks for comments and for a comma behind the last item, double quotes
/// around strings that have single ones and around keys that have none. Lines stay.
fn strict(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut plain: Vec<u8> = Vec::with_capacity(bytes.len());
    // Where a comma, and a word without quotes, begin in `plain`.
    let (mut at, mut before, mut comma, mut word) = (0, b'[', None, None);
    while let Some(&byte) = bytes.get(at) {
        let end = match (byte, bytes.get(at + 1)) {
            (b'/', Some(b'/')) => find(text, "\n", at),
            (b'/', Some(b'*')) => (find(text, "*/", at + 2) + 2).min(bytes.len()),
            (b'"' | b'\'', _) => end_of_string(bytes, at),
            _ => at + 1,
        };
        let begin = plain.len();
        match byte {
            b'/' => {
                plain.extend(bytes[at..end].iter().map(|b| if *b == b'\n' { *b } else { b' ' }))
            }
            b'"' | b'\'' => double_quoted(&bytes[at..end], &mut plain),
            b':' if let Some(begin) = word => {
                let end = plain[begin..].iter().position(|b| !is_of_word(*b));
                plain.insert(end.map_or(plain.len(), |length| begin + length), b'"');
                plain.insert(begin, b'"');
                plain.push(byte);
            }
            _ => plain.push(byte),
        }
        if byte != b'/' && !byte.is_ascii_whitespace() {
            if let (b']' | b'}', Some(comma)) = (byte, comma) {
                plain[comma] = b' ';
            }
            // A comma behind nothing is a mistake, not a last one.
            comma = (byte == b',' && !b"[{,:".contains(&before)).then_some(begin);
            word = is_of_word(byte).then(|| word.unwrap_or(begin));
            before = byte;
        }
        at = end;
    }
    String::from_utf8(plain).unwrap_or_default()
}

fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$'
}

/// Where `what` is from there on, or the end of the text.
fn find(text: &str, what: &str, from: usize) -> usize {
    let rest = text.as_bytes().get(from..).unwrap_or_default();
    let found = rest.windows(what.len()).position(|part| part == what.as_bytes());
    found.map_or(text.len(), |length| from + length)
}

fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() && bytes[at] != bytes[start] {
        at += 1 + usize::from(bytes[at] == b'\\');
    }
    (at + 1).min(bytes.len())
}

/// The string with its quotes as JSON has it: what is escaped for nothing stands for itself.
fn double_quoted(string: &[u8], plain: &mut Vec<u8>) {
    let mut rest = string.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        match (byte, rest.peek()) {
            (b'\\', Some(next)) if !br#""\/bfnrtu"#.contains(next) && next.is_ascii() => {
                plain.extend(rest.next());
            }
            (b'\\', _) => plain.extend([byte].into_iter().chain(rest.next())),
            (b'"', _) if string[0] == b'\'' => plain.extend(b"\\\""),
            (b'\'', _) if string[0] == b'\'' => plain.push(b'"'),
            _ => plain.push(byte),
        }
    }
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
/// times its size in memory, whoever wrote it. Errors: it is longer, or something else.
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

/// A [`Value`] to be, and how many more may come. Of a key that is there twice one would be lost.
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

/// What a visitor makes of values that have no parts.
macro_rules! plain {
    ($($visit:ident: $what:ty),*) => {$(
        fn $visit<E>(self, it: $what) -> Result<Value, E> {
            Ok(it.into())
        }
    )*};
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    plain! { visit_bool: bool, visit_u64: u64, visit_i64: i64, visit_f64: f64, visit_str: &str }

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

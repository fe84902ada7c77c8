//! JSON in which no object has a key twice: of two values one would be dropped in silence.
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Reads `text` whole.
///
/// # Errors
/// One line: what is wrong, and where.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let mut from = serde_json::Deserializer::from_str(text);
    let read = Unique.deserialize(&mut from).and_then(|value| from.end().map(|()| value));
    read.map_err(|e| if e.is_data() { e.to_string() } else { format!("not JSON: {e}") })
}

struct Unique;

impl<'de> DeserializeSeed<'de> for Unique {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(Unique)? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = object.next_key::<String>()? {
            if map.contains_key(&key) {
                let key = key.escape_debug();
                return Err(A::Error::custom(format!("the key '{key}' is there twice")));
            }
            map.insert(key, object.next_value_seed(Unique)?);
        }
        Ok(map.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_each_key_once_is_read_as_it_is() {
        let text = r#" {"a": [1, -2, 1.5, true, null, {"a": "é"}], "b": {}} "#;
        assert_eq!(parse(text), Ok(serde_json::from_str(text).unwrap()));
    }

    #[test]
    fn a_key_that_is_there_twice_is_named_however_deep() {
        for text in [r#"{"k": 1, "k": 1}"#, r#"[{"a": {"k": 1, "b": 2, "k": {}}}]"#] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with("the key 'k' is there twice at line 1"), "{error}");
        }
        assert!(parse(r#"{"k": 1, "k": 1"#).unwrap_err().contains("twice"));
    }

    #[test]
    fn what_is_no_json_is_called_so() {
        for text in ["", "{", "[1,]", "{} {}", "nul", "1e999"] {
            assert!(parse(text).unwrap_err().starts_with("not JSON: "), "{text}");
        }
    }
}

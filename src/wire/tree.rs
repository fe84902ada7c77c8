//! A tree of JSON values that is watched while it is read: how many they are, and that no object
//! has a key twice.
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Reads `text` whole. No object in it has a key twice.
///
/// # Errors
/// One line: what is wrong, and where.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let mut from = serde_json::Deserializer::from_str(text);
    let mut left = usize::MAX;
    let tree = Tree { left: &mut left, once: true };
    let read = tree.deserialize(&mut from).and_then(|value| from.end().map(|()| value));
    read.map_err(|e| if e.is_data() { e.to_string() } else { format!("not JSON: {e}") })
}

/// A [`Value`] to be.
pub(super) struct Tree<'a> {
    /// So many more values may come.
    pub(super) left: &'a mut usize,
    /// Of a key that is there twice one value would be dropped in silence.
    pub(super) once: bool,
}

impl Tree<'_> {
    fn inner(&mut self) -> Tree<'_> {
        Tree { left: self.left, once: self.once }
    }

    fn take_one<E: Error>(&mut self) -> Result<(), E> {
        *self.left = self.left.checked_sub(1).ok_or_else(|| E::custom("too many words"))?;
        Ok(())
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

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(self.inner())? {
            self.take_one()?;
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut object: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = object.next_key::<String>()? {
            if self.once && map.contains_key(&key) {
                let key = key.escape_debug();
                return Err(A::Error::custom(format!("the key '{key}' is there twice")));
            }
            self.take_one()?;
            map.insert(key, object.next_value_seed(self.inner())?);
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

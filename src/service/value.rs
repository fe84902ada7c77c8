//! Values out of JSON: one reader for every type, instead of a generated one for each.
//!
//! What serde derives for a struct of fourteen fields is thousands of bytes of code, for two
//! shapes of input and each place that it is inlined into. Here a field is one call. Never does
//! I/O, never fails but by a [`Wrong`] that names the key.
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::fmt;

/// The key whose value is missing or is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong(Cow<'static, str>);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("missing or wrong: ")?;
        f.write_str(&self.0)
    }
}

/// What a JSON value can be read as.
pub trait FromValue: Sized {
    /// Reads `value`, which is null where the key is missing.
    ///
    /// # Errors
    /// The key that is wrong; `value` if it is this one as a whole.
    fn from_value(value: Value) -> Result<Self, Wrong>;
}

/// The fields of an object, taken one by one.
#[derive(Debug)]
pub struct Fields(Map<String, Value>);

impl Fields {
    /// # Errors
    /// `value` is no object.
    pub fn of(value: Value) -> Result<Self, Wrong> {
        match value {
            Value::Object(map) => Ok(Self(map)),
            _ => Err(Wrong::key("object")),
        }
    }

    /// The field `key`. One that is not there is read as null.
    ///
    /// # Errors
    /// Its value is not of that type.
    pub fn take<T: FromValue>(&mut self, key: &'static str) -> Result<T, Wrong> {
        T::from_value(self.value(key)).map_err(|inner| inner.within(key))
    }

    /// As [`Fields::take`], `default` where it is not there.
    ///
    /// # Errors
    /// As [`Fields::take`].
    pub fn or<T: FromValue>(&mut self, key: &'static str, default: T) -> Result<T, Wrong> {
        match self.value(key) {
            Value::Null => Ok(default),
            value => T::from_value(value).map_err(|inner| inner.within(key)),
        }
    }

    /// As [`Fields::or`], by a function that reads text.
    ///
    /// # Errors
    /// As [`Fields::take`].
    pub fn text_or<T>(
        &mut self,
        key: &'static str,
        parse: fn(&str) -> Result<T, String>,
        default: T,
    ) -> Result<T, Wrong> {
        match self.value(key) {
            Value::Null => Ok(default),
            Value::String(text) => parse(&text).map_err(|_| Wrong::key(key)),
            _ => Err(Wrong::key(key)),
        }
    }

    /// The only field: its key and its value, as an enum with values is written.
    ///
    /// # Errors
    /// There is none.
    pub fn only(value: Value) -> Result<(String, Value), Wrong> {
        let Self(map) = Self::of(value)?;
        map.into_iter().next().ok_or(WHOLE)
    }

    /// Sees that all has been taken: what one side asks for is never dropped in silence because
    /// the other is older.
    ///
    /// # Errors
    /// A key that nobody took.
    pub fn end(self) -> Result<(), Wrong> {
        self.0.keys().next().map_or(Ok(()), |key| Err(Wrong::unknown(key)))
    }

    /// What has not been taken.
    pub fn rest(self) -> Value {
        Value::Object(self.0)
    }

    #[inline(never)]
    fn value(&mut self, key: &str) -> Value {
        self.0.remove(key).unwrap_or(Value::Null)
    }
}

/// What is wrong is the value as a whole.
pub const WHOLE: Wrong = Wrong::key("value");

impl Wrong {
    /// That of this key.
    pub const fn key(key: &'static str) -> Self {
        Self(Cow::Borrowed(key))
    }

    /// A key that this opm does not know.
    pub fn unknown(key: &str) -> Self {
        Self(format!("'{}', which this opm does not know", key.escape_debug()).into())
    }

    fn within(self, key: &'static str) -> Self {
        if self == WHOLE { Self::key(key) } else { self }
    }
}

impl FromValue for Value {
    fn from_value(value: Value) -> Result<Self, Wrong> {
        Ok(value)
    }
}

impl FromValue for String {
    fn from_value(value: Value) -> Result<Self, Wrong> {
        match value {
            Value::String(text) => Ok(text),
            _ => Err(WHOLE),
        }
    }
}

impl FromValue for bool {
    fn from_value(value: Value) -> Result<Self, Wrong> {
        value.as_bool().ok_or(WHOLE)
    }
}

impl FromValue for f64 {
    fn from_value(value: Value) -> Result<Self, Wrong> {
        value.as_f64().ok_or(WHOLE)
    }
}

impl FromValue for u64 {
    fn from_value(value: Value) -> Result<Self, Wrong> {
        value.as_u64().ok_or(WHOLE)
    }
}

impl FromValue for i32 {
    fn from_value(value: Value) -> Result<Self, Wrong> {
        let number = value.as_i64().ok_or(WHOLE)?;
        number.try_into().map_err(|_| WHOLE)
    }
}

macro_rules! small {
    ($($type:ty),*) => {$(
        impl FromValue for $type {
            fn from_value(value: Value) -> Result<Self, Wrong> {
                u64::from_value(value)?.try_into().map_err(|_| WHOLE)
            }
        }
    )*};
}
small!(u8, u32, usize);

impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: Value) -> Result<Self, Wrong> {
        match value {
            Value::Null => Ok(None),
            value => T::from_value(value).map(Some),
        }
    }
}

impl<T: FromValue> FromValue for Vec<T> {
    fn from_value(value: Value) -> Result<Self, Wrong> {
        let Value::Array(values) = value else {
            return Err(WHOLE);
        };
        let mut all = Self::with_capacity(values.len());
        for value in values {
            all.push(T::from_value(value)?);
        }
        Ok(all)
    }
}

impl<A: FromValue, B: FromValue> FromValue for (A, B) {
    fn from_value(value: Value) -> Result<Self, Wrong> {
        match value {
            Value::Array(mut pair) if pair.len() == 2 => {
                let second = pair.pop().unwrap_or_default();
                let first = pair.pop().unwrap_or_default();
                Ok((A::from_value(first)?, B::from_value(second)?))
            }
            _ => Err(WHOLE),
        }
    }
}

/// Reads a struct field by field, each under its own name.
macro_rules! from_fields {
    ($type:ident { $($field:ident),* $(,)? }) => {
        impl $crate::service::value::FromValue for $type {
            fn from_value(
                value: serde_json::Value,
            ) -> ::core::result::Result<Self, $crate::service::value::Wrong> {
                let mut fields = $crate::service::value::Fields::of(value)?;
                Ok(Self { $($field: fields.take(stringify!($field))?),* })
            }
        }
    };
}

/// What serde is to read as a [`Value`] first.
macro_rules! by_value {
    ($($type:ty),* $(,)?) => {$(
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(
                from: D,
            ) -> ::core::result::Result<Self, D::Error> {
                let value = serde::Deserialize::deserialize(from)?;
                <$type as $crate::service::value::FromValue>::from_value(value)
                    .map_err(serde::de::Error::custom)
            }
        }
    )*};
}

pub(crate) use {by_value, from_fields};

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(Debug, PartialEq)]
    struct Point {
        x: i32,
        name: Option<String>,
        pairs: Vec<(String, u8)>,
    }
    from_fields!(Point { x, name, pairs });

    #[test]
    fn a_struct_is_read_by_its_keys_in_any_order_and_strange_ones_are_passed_over() {
        let value = json!({"pairs": [["a", 1]], "strange": {}, "x": -3});
        let point = Point { x: -3, name: None, pairs: vec![("a".to_owned(), 1)] };
        assert_eq!(Point::from_value(value), Ok(point));
    }

    #[test]
    fn an_error_names_the_key() {
        for (value, key) in [
            (json!({"x": 1}), "pairs"),
            (json!({"x": 1.5, "pairs": []}), "x"),
            (json!({"x": 1u64 << 40, "pairs": []}), "x"),
            (json!({"x": 1, "pairs": [["a", 256]]}), "pairs"),
            (json!({"x": 1, "pairs": [["a"]]}), "pairs"),
            (json!({"x": 1, "name": 1, "pairs": []}), "name"),
            (json!([]), "object"),
        ] {
            assert_eq!(Point::from_value(value.clone()), Err(Wrong::key(key)), "{value}");
        }
    }
}

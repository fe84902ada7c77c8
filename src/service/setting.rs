//! The types of values that an option can have: how they are read from a word of the command line
//! and from JSON, and written back.
use super::cron::Cron;
use super::instances::{Instances, PortRange};
use super::json::kind;
use super::listen::Listen;
use super::probe::{Health, Sign};
use super::resources::{Nice, OomScore, Written};
use super::signal::Signal;
use super::time::TimeFormat;
use super::units::{Bytes, Delay, Span};
use serde_json::{Number, Value};

/// A value of JSON as one word; of a list, its items as one.
pub fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(text_of).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// What stands between the words of an option that was given several times.
pub const BETWEEN_WORDS: char = '\n';

/// A type of values that an option can have.
pub(super) trait Setting: Sized {
    /// Whether it is a list.
    const REPEATS: bool = false;
    /// Whether a comma in a word is one between items of a list.
    const ENDS_AT_COMMA: bool = false;
    /// What its name alone stands for, or `true` in JSON.
    const ALONE: Option<&str> = None;

    /// Reads what stands on the command line.
    fn parse(text: &str) -> Result<Self, String>;

    /// What [`Setting::read`] reads back.
    fn write(&self) -> Value;

    /// What a number of JSON means.
    fn of_number(_number: &Number) -> Result<Self, String> {
        Err("expected a string, found a number".to_owned())
    }

    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::String(text) => Self::parse(text).map_err(|reason| found(reason, text)),
            Value::Number(number) => Self::of_number(number),
            other => Err(format!("expected a string, found {}", kind(other))),
        }
    }
}

/// What was expected and, where that is all, what there was: a file has no other place for it.
fn found(reason: String, text: &str) -> String {
    if reason.starts_with("expected ") { format!("{reason}, found {text:?}") } else { reason }
}

impl Setting for bool {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "expected true or false".to_owned())
    }

    fn write(&self) -> Value {
        (*self).into()
    }

    fn read(value: &Value) -> Result<Self, String> {
        value.as_bool().ok_or_else(|| format!("expected true or false, found {}", kind(value)))
    }
}

/// In JSON the only number that is a word.
const UNLIMITED: &str = "unlimited";

/// Whole numbers within a range, which in JSON are no strings.
macro_rules! by_number {
    ($($type:ty, $what:literal, $parse:expr, $number:expr;)*) => {$(
        impl Setting for $type {
            const ENDS_AT_COMMA: bool = true;

            fn parse(text: &str) -> Result<Self, String> {
                $parse(text).ok_or_else(|| concat!("expected ", $what).to_owned())
            }

            fn write(&self) -> Value {
                $number(self).into()
            }

            fn read(value: &Value) -> Result<Self, String> {
                let is_text = value.is_number() || *value == UNLIMITED;
                let found = if is_text { text_of(value) } else { kind(value).to_owned() };
                Self::parse(&found).map_err(|expected| format!("{expected}, found {found}"))
            }
        }
    )*};
}

by_number! {
    u32, "a whole number up to 4294967295", |text: &str| text.parse().ok(), |it: &u32| *it;
    Forgiven, "a whole number up to 4294967295 or unlimited",
        |text: &str| if text == UNLIMITED { Some(u32::MAX) } else { text.parse().ok() }.map(Self),
        |it: &Self| if it.0 == u32::MAX { Value::from(UNLIMITED) } else { it.0.into() };
    u8, "exit codes from 0 to 255", |text: &str| text.parse().ok(), |it: &u8| *it;
    Nice, "a whole number from -20 to 19",
        |text: &str| text.parse().ok().filter(|it| (-20..=19).contains(it)).map(Self),
        |it: &Self| it.0;
    OomScore, "a whole number from -1000 to 1000",
        |text: &str| text.parse().ok().filter(|it| (-1000..=1000).contains(it)).map(Self),
        |it: &Self| it.0;
}

/// Nothing was said: `null` in JSON, and no word on the command line.
impl<T: Setting> Setting for Option<T> {
    const REPEATS: bool = T::REPEATS;

    fn parse(text: &str) -> Result<Self, String> {
        T::parse(text).map(Some)
    }

    fn write(&self) -> Value {
        self.as_ref().map_or(Value::Null, T::write)
    }

    fn read(value: &Value) -> Result<Self, String> {
        if value.is_null() { Ok(None) } else { T::read(value).map(Some) }
    }
}

/// Items in one word or several, a list in JSON; nothing is the empty list.
impl<T: Setting> Setting for Vec<T> {
    const REPEATS: bool = true;
    const ALONE: Option<&str> = T::ALONE;

    fn parse(text: &str) -> Result<Self, String> {
        let between = |c| c == BETWEEN_WORDS || T::ENDS_AT_COMMA && c == ',';
        let items = text.split(between).filter(|_| !text.is_empty());
        items.map(|item| T::parse(item.trim())).collect()
    }

    fn write(&self) -> Value {
        self.iter().map(T::write).collect()
    }

    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::Array(items) => items.iter().map(T::read).collect(),
            Value::String(text) => Self::parse(text),
            Value::Bool(false) if T::ALONE.is_some() => Ok(Self::new()),
            Value::Bool(true) if T::ALONE.is_some() => Self::parse(T::ALONE.unwrap_or_default()),
            one => T::read(one).map(|item| vec![item]),
        }
    }
}

/// Names in one word or several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(Vec<String>);

impl std::ops::Deref for Names {
    type Target = [String];

    fn deref(&self) -> &[String] {
        &self.0
    }
}

impl Setting for Names {
    const REPEATS: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        Vec::parse(&text.replace(',', &BETWEEN_WORDS.to_string())).map(Self)
    }

    fn write(&self) -> Value {
        self.0.write()
    }

    fn read(value: &Value) -> Result<Self, String> {
        match value {
            Value::String(text) => Self::parse(text),
            other => Vec::read(other).map(Self),
        }
    }
}

/// Any text but none, such as a path.
impl Setting for String {
    fn parse(text: &str) -> Result<Self, String> {
        let is_text = !text.is_empty() && !text.contains('\0');
        is_text.then(|| text.to_owned()).ok_or_else(|| "expected some text".to_owned())
    }

    fn write(&self) -> Value {
        self.as_str().into()
    }
}

/// How many quick deaths in a row are forgiven: none with 0, or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Forgiven(pub u32);

/// A path to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchPath(pub String);

impl Setting for WatchPath {
    const ALONE: Option<&str> = Some(".");

    fn parse(text: &str) -> Result<Self, String> {
        <String as Setting>::parse(text).map(Self)
    }

    fn write(&self) -> Value {
        self.0.clone().into()
    }
}

/// Types that have a text of their own, and what a number in its place means.
macro_rules! by_text {
    ($($type:ty $(: $of_number:expr)?),* $(,)?) => {$(
        impl Setting for $type {
            fn parse(text: &str) -> Result<Self, String> {
                <$type>::parse(text)
            }

            fn write(&self) -> Value {
                self.to_string().into()
            }

            $(fn of_number(number: &Number) -> Result<Self, String> {
                $of_number(number)
            })?
        }
    )*};
}
by_text! {
    // A number is a port; a comma goes before what else is said of the same socket.
    Listen: |number: &Number| Self::parse(&number.to_string()),
    Sign: |_: &Number| Self::parse(""),
    Health: |_: &Number| Self::parse(""),
    Span: no_unit,
    Delay: no_unit,
    Cron,
    Signal: |number: &Number| Self::parse(&number.to_string()),
    Instances: |number: &Number| Self::parse(&number.to_string()),
    PortRange,
    Bytes: |number: &Number| Self::parse(&number.to_string()),
    TimeFormat,
}

/// In JSON a number will do; of what has parts, a list, or an object of `NAME=VALUE`.
impl<T: super::resources::Value> Setting for Written<T> {
    const REPEATS: bool = T::IS_LIST;
    const ENDS_AT_COMMA: bool = true;

    fn parse(text: &str) -> Result<Self, String> {
        let text = text.replace(BETWEEN_WORDS, ",");
        Ok(Self { value: T::parse(&text)?, text })
    }

    fn write(&self) -> Value {
        self.text.as_str().into()
    }

    fn read(value: &Value) -> Result<Self, String> {
        let text = match value {
            Value::Object(map) if T::IS_LIST => {
                let pairs = map.iter().map(|(name, it)| format!("{name}={}", text_of(it)));
                pairs.collect::<Vec<_>>().join(",")
            }
            Value::Array(_) if T::IS_LIST => text_of(value),
            Value::String(_) | Value::Number(_) => text_of(value),
            other => return Err(format!("expected a string, found {}", kind(other))),
        };
        Self::parse(&text).map_err(|reason| found(reason, &text))
    }
}

/// A bare number could mean seconds or milliseconds, and PM2 and systemd differ.
fn no_unit<T>(n: &Number) -> Result<T, String> {
    Err(format!("a number needs a unit, as in \"{n}ms\" or \"{n}s\""))
}

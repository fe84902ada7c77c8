//! What a command saw when it defined a service, besides its words: environment, umask, nice
//! value and soft limits. Kept once for all that one command defined.
//!
//! Every incarnation gets these, so that nothing of the shell that happened to wake the daemon
//! reaches a service.
use super::spec::{Env, WORDS_MAX};
use super::value::{Fields, FromValue, WHOLE, Wrong, by_value};
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;

/// Where a program is looked for if the service's environment has no PATH.
pub const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Where the programs of a service with these variables are; the first layer counts.
pub fn search_path<'a>(layers: &[&'a Env]) -> &'a str {
    let in_layer = |env: &&'a Env| env.iter().rev().find(|(name, _)| name == "PATH");
    layers.iter().find_map(in_layer).map_or(DEFAULT_PATH, |(_, value)| value)
}

/// The names of [`Limits`], in their order: all but RLIMIT_LOCKS, which is a mark of opm's.
pub const LIMIT_NAMES: [&str; 15] = [
    "cpu",
    "fsize",
    "data",
    "stack",
    "core",
    "rss",
    "nproc",
    "nofile",
    "memlock",
    "as",
    "sigpending",
    "msgqueue",
    "nice",
    "rtprio",
    "rttime",
];

/// Soft limits. None: as the daemon was started with.
pub type Limits = [Option<u64>; LIMIT_NAMES.len()];

/// No limit (RLIM_INFINITY).
pub const UNLIMITED: u64 = u64::MAX;
const UNLIMITED_WORD: &str = "unlimited";

/// What a process hands on to its children, apart from environment and descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Attributes {
    #[serde(serialize_with = "octal")]
    pub umask: u32,
    pub nice: i32,
    #[serde(serialize_with = "by_name")]
    pub limits: Limits,
}

impl Default for Attributes {
    fn default() -> Self {
        Self { umask: 0o022, nice: 0, limits: Limits::default() }
    }
}

/// What the definer had.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Context {
    pub env: Env,
    pub attributes: Attributes,
}

impl From<Env> for Context {
    fn from(env: Env) -> Self {
        Self { env, attributes: Attributes::default() }
    }
}

/// As a shell's `umask` prints it.
pub fn format_umask(umask: u32) -> String {
    format!("{umask:04o}")
}

/// A limit's value as a shell's `ulimit` prints it.
pub fn format_limit(value: u64) -> String {
    if value == UNLIMITED { UNLIMITED_WORD.to_owned() } else { value.to_string() }
}

/// The limits that are known, by name.
pub fn named(limits: &Limits) -> impl Iterator<Item = (&'static str, u64)> {
    LIMIT_NAMES.into_iter().zip(limits).filter_map(|(name, limit)| limit.map(|limit| (name, limit)))
}

fn octal<S: Serializer>(umask: &u32, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&format_umask(*umask))
}

fn by_name<S: Serializer>(limits: &Limits, to: S) -> Result<S::Ok, S::Error> {
    let mut map = to.serialize_map(None)?;
    for (name, limit) in named(limits) {
        match limit {
            UNLIMITED => map.serialize_entry(name, UNLIMITED_WORD)?,
            limit => map.serialize_entry(name, &limit)?,
        }
    }
    map.end()
}

by_value!(Attributes);

impl FromValue for Attributes {
    fn from_value(value: Value) -> Result<Self, Wrong> {
        let mut fields = Fields::of(value)?;
        let attributes = Self::take(&mut fields)?;
        fields.end()?;
        Ok(attributes)
    }
}

impl Attributes {
    /// Takes its fields from among others.
    ///
    /// # Errors
    /// The key that is missing or wrong.
    pub fn take(fields: &mut Fields) -> Result<Self, Wrong> {
        let umask: String = fields.take("umask")?;
        let umask = u32::from_str_radix(&umask, 8).ok().filter(|umask| *umask <= 0o777);
        let nice: i32 = fields.take("nice")?;
        let mut given = Fields::of(fields.take("limits")?)?;
        let mut limits = Limits::default();
        for (name, limit) in LIMIT_NAMES.into_iter().zip(&mut limits) {
            *limit = match given.take::<Value>(name)? {
                Value::Null => None,
                Value::String(word) if word == UNLIMITED_WORD => Some(UNLIMITED),
                number => Some(number.as_u64().ok_or(Wrong::key(name))?),
            };
        }
        given.end()?;
        let umask = umask.ok_or(Wrong::key("umask"))?;
        if !(-20..=19).contains(&nice) {
            return Err(Wrong::key("nice"));
        }
        Ok(Self { umask, nice, limits })
    }
}

impl FromValue for Context {
    fn from_value(value: Value) -> Result<Self, Wrong> {
        Self::deserialize(value).map_err(|_| WHOLE)
    }
}

/// An environment, read piece by piece, of a bounded number of variables.
pub fn env<'de, D: Deserializer<'de>>(from: D) -> Result<Env, D::Error> {
    struct Pairs;
    impl<'de> Visitor<'de> for Pairs {
        type Value = Env;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an environment")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Env, A::Error> {
            let mut env = Env::new();
            while let Some(pair) = all.next_element()? {
                env.push(pair);
                if env.len() > WORDS_MAX {
                    return Err(A::Error::custom("too many variables"));
                }
            }
            Ok(env)
        }
    }
    from.deserialize_seq(Pairs)
}

/// Piece by piece: an environment may be megabytes, and what a tree of values leaves behind in
/// the daemon's heap would stay there.
impl<'de> Deserialize<'de> for Context {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(OneContext)
    }
}

/// An environment of a bounded number of variables.
#[derive(serde::Deserialize)]
struct Variables(#[serde(deserialize_with = "env")] Env);

struct OneContext;

impl<'de> Visitor<'de> for OneContext {
    type Value = Context;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a context")
    }

    /// Written when an environment was all that was captured.
    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Context, A::Error> {
        env(SeqAccessDeserializer::new(list)).map(Context::from)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Context, A::Error> {
        let mut context = Context::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "env" => context.env = map.next_value::<Variables>()?.0,
                "attributes" => context.attributes = map.next_value()?,
                _ => return Err(A::Error::custom(Wrong::unknown(&key))),
            }
        }
        Ok(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context {
        let mut limits = Limits::default();
        limits[7] = Some(4096);
        limits[4] = Some(UNLIMITED);
        let attributes = Attributes { umask: 0o277, nice: -3, limits };
        Context { env: vec![("A".into(), "b".into())], attributes }
    }

    #[test]
    fn a_context_is_read_as_it_was_written() {
        let text = serde_json::to_string(&context()).unwrap();
        assert!(
            text.contains(r#""umask":"0277","nice":-3,"limits":{"core":"unlimited","#),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<Context>(&text).unwrap(), context());
        let value = serde_json::to_value(context()).unwrap();
        assert_eq!(Context::from_value(value), Ok(context()));
    }

    #[test]
    fn an_environment_alone_is_a_context_too() {
        let read: Context = serde_json::from_str(r#"[["A", "b"]]"#).unwrap();
        assert_eq!(read, Context { attributes: Attributes::default(), ..context() });
    }

    #[test]
    fn what_is_not_known_or_impossible_is_refused() {
        let text = serde_json::to_string(&context()).unwrap();
        for (from, to) in [
            ("\"nice\"", "\"niece\""),
            ("\"core\"", "\"locks\""),
            ("0277", "1777"),
            ("-3", "-21"),
            ("4096", "-1"),
            ("\"env\"", "\"vars\""),
        ] {
            let changed = text.replace(from, to);
            assert_ne!(changed, text);
            assert!(serde_json::from_str::<Context>(&changed).is_err(), "{changed}");
        }
    }
}

//! What a command saw when it defined a service, besides its words: environment, umask, nice
//! value and soft limits. Kept once for all that one command defined.
//!
//! Every incarnation gets these, so that nothing of the shell that happened to wake the daemon
//! reaches a service.
use super::json;
use super::spec::Env;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use std::collections::BTreeMap;

/// Where a program is looked for if the service's environment has no PATH.
pub const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// The value of a variable: the first layer that has it counts, and there the last one.
pub fn variable<'a>(layers: &[&'a Env], name: &str) -> Option<&'a str> {
    let in_layer = |env: &&'a Env| env.iter().rev().find(|(other, _)| other == name);
    layers.iter().find_map(in_layer).map(|(_, value)| value.as_str())
}

/// Where the programs of a service with these variables are.
pub fn search_path<'a>(layers: &[&'a Env]) -> &'a str {
    variable(layers, "PATH").unwrap_or(DEFAULT_PATH)
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

/// What a process hands on to its children, apart from environment and descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attributes {
    #[serde(serialize_with = "octal", deserialize_with = "of_octal")]
    pub umask: u32,
    #[serde(deserialize_with = "nice")]
    pub nice: i32,
    #[serde(serialize_with = "by_name", deserialize_with = "of_names")]
    pub limits: Limits,
}

impl Default for Attributes {
    fn default() -> Self {
        Self { umask: 0o022, nice: 0, limits: Limits::default() }
    }
}

/// What the definer had.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// Read piece by piece: of a tree of values megabytes would stay in the daemon's heap.
    #[serde(deserialize_with = "json::list")]
    pub env: Env,
    #[serde(default)]
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
    if value == UNLIMITED { "unlimited".to_owned() } else { value.to_string() }
}

/// The limits that are known, by name.
pub fn named(limits: &Limits) -> impl Iterator<Item = (&'static str, u64)> {
    LIMIT_NAMES.into_iter().zip(limits).filter_map(|(name, limit)| limit.map(|limit| (name, limit)))
}

fn octal<S: Serializer>(umask: &u32, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&format_umask(*umask))
}

fn of_octal<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let text = String::deserialize(from)?;
    let umask = u32::from_str_radix(&text, 8).ok().filter(|umask| *umask <= 0o777);
    umask.ok_or_else(|| D::Error::custom(format!("no umask: {text:?}")))
}

fn nice<'de, D: Deserializer<'de>>(from: D) -> Result<i32, D::Error> {
    let nice = i32::deserialize(from)?;
    let valid = (-20..=19).contains(&nice).then_some(nice);
    valid.ok_or_else(|| D::Error::custom(format!("no nice value: {nice}")))
}

fn by_name<S: Serializer>(limits: &Limits, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(named(limits).map(|(name, limit)| match limit {
        UNLIMITED => (name, Value::from("unlimited")),
        limit => (name, limit.into()),
    }))
}

fn of_names<'de, D: Deserializer<'de>>(from: D) -> Result<Limits, D::Error> {
    let mut limits = Limits::default();
    for (name, limit) in BTreeMap::<String, Value>::deserialize(from)? {
        let at = LIMIT_NAMES.iter().position(|known| *known == name);
        let limit = limit.as_u64().or_else(|| (limit == "unlimited").then_some(UNLIMITED));
        let (at, limit) = at
            .zip(limit)
            .ok_or_else(|| D::Error::custom(format!("no limit, or no value of it: {name:?}")))?;
        limits[at] = Some(limit);
    }
    Ok(limits)
}

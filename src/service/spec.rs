//! What the operator declared: a service's name, command, directory, environment and options.
//!
//! A `Spec` that exists is valid: [`Spec::check`] runs on everything that comes from a file
//! or a socket before the daemon keeps it.
use super::context::{Attributes, Context, variable};
use super::environment::RESERVED;
use super::json::{self, List, Tree};
use super::listen::{Listen, SOCKETS_MAX};
use super::options::{self, Group, OPTIONS, Opt};
pub use super::options::{
    Care, Checks, Escapees, Exec, Forgiven, Held, Log, Policy, Restart, StopReach,
};
use super::probe::Sign;
use super::selector::glob_matches;
use super::shared::Shared;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::fmt;
use std::hash::Hash;
use std::rc::Rc;
use std::sync::LazyLock;

/// Most words of a command and most variables of an environment.
pub const WORDS_MAX: usize = 65_536;

/// The service's id: small, stable, the lowest free one is given.
pub type Id = u32;

/// One environment, in the order in which it was captured.
pub type Env = Vec<(String, String)>;

/// A service as declared, without what its definer had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    pub name: String,
    /// The words that are exec'd, program first.
    pub command: Vec<String>,
    /// Absolute working directory.
    pub cwd: Shared<String>,
    /// Given by hand, over all others.
    pub env: Env,
    /// What the `.env` of its directory said, over the definer's environment.
    pub dotenv: Shared<Env>,
    pub origin: Shared<Origin>,
    pub policy: Shared<Policy>,
    pub care: Shared<Care>,
    pub exec: Shared<Exec>,
    pub held: Shared<Held>,
    pub log: Shared<Log>,
    pub checks: Shared<Checks>,
}

/// Without a name. What most have alike is there once: thousands that are read at a time would
/// leave holes of it all over the heap.
impl Default for Spec {
    fn default() -> Self {
        static ALIKE: LazyLock<Spec> = LazyLock::new(|| Spec {
            name: String::new(),
            command: Vec::new(),
            cwd: Shared::default(),
            env: Env::new(),
            dotenv: Shared::default(),
            origin: Shared::default(),
            policy: Shared::default(),
            care: Shared::default(),
            exec: Shared::default(),
            held: Shared::default(),
            log: Shared::default(),
            checks: Shared::default(),
        });
        ALIKE.clone()
    }
}

/// Where the values of options come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Origin {
    /// Of all that `adjusted` does not have; empty: it is not on record.
    pub of: String,
    /// The keys of those that an `adjust` changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub adjusted: Vec<String>,
}

impl Spec {
    /// Keeps what it has like the other only once for both, and no room for more.
    pub fn share(&mut self, other: &Self) {
        self.cwd.share(&other.cwd);
        self.dotenv.share(&other.dotenv);
        self.origin.share(&other.origin);
        self.policy.share(&other.policy);
        self.care.share(&other.care);
        self.exec.share(&other.exec);
        self.held.share(&other.held);
        self.log.share(&other.log);
        self.checks.share(&other.checks);
        // Made with room for four.
        self.command.shrink_to_fit();
    }

    /// A service for which nothing else was said.
    pub fn new(name: String, command: Vec<String>, cwd: String) -> Self {
        Self { name, command, cwd: cwd.into(), ..Self::default() }
    }

    /// The name that it has with its other instances, and under which its sockets are held.
    pub fn group(&self) -> &str {
        self.held.instance_of.as_deref().unwrap_or(&self.name)
    }

    /// Which instance of its group it is. The first of what was alone keeps its name.
    pub fn instance(&self) -> Option<u32> {
        let rest = self.name.strip_prefix(self.held.instance_of.as_deref()?)?;
        if rest.is_empty() { Some(0) } else { rest.strip_prefix('-')?.parse().ok() }
    }

    /// Checks what a `Spec` promises. Errors: one clear line: subject, reason.
    pub fn check(&self) -> Result<(), String> {
        super::name::check_name(&self.name)?;
        let at = |reason: &str| Err(format!("{}: {reason}", self.name));
        if let Sign::Fd(number) = self.checks.ready
            && usize::from(number) < 3 + self.held.listen.len()
        {
            return at(&format!("ready: descriptor {number} is that of a socket (listen)"));
        }
        let others = self.checks.depends_on.iter().map(|name| ("depends_on", name));
        for (key, name) in others.chain(self.held.namespace.iter().map(|name| ("namespace", name)))
        {
            super::name::check_name(name).map_err(|e| format!("{}: {key}: {e}", self.name))?;
        }
        let variables = || self.env.iter().chain(self.dotenv.iter());
        let Held { listen, port_range, instance_of, instance_var, increment_var, .. } = &*self.held;
        let made = || increment_var.iter().chain([instance_var]);
        let has_nul = |word: &String| word.contains('\0');
        let wrong = [
            (self.command.first().is_none_or(String::is_empty), "the command is empty"),
            (self.checks.health_interval.ms == 0, "health_interval is a time above 0, as 1s"),
            (!self.cwd.starts_with('/'), "cwd is not an absolute path"),
            (self.command.len().max(variables().count()) > WORDS_MAX, "too many words"),
            (
                self.command.iter().chain([&*self.cwd]).any(has_nul),
                "a NUL byte in the command or the directory",
            ),
            (
                variables().any(|(name, value)| !is_variable_name(name) || has_nul(value)),
                "an environment variable's name is empty, or has '=' or NUL in it",
            ),
            (
                !made().all(|name| is_variable_name(name)),
                "instance_var and increment_var are names of variables",
            ),
        ];
        if let Some((_, reason)) = wrong.into_iter().find(|(is, _)| *is) {
            return at(reason);
        }
        let names = variables().map(|(name, _)| name).chain(made());
        // The first of a name counts, and of a mark that must be ours.
        if let Some(name) = names.into_iter().find(|name| RESERVED.contains(&name.as_str())) {
            return at(&format!("{name} is set by opm itself"));
        }
        if let (Some(group), None) = (instance_of, self.instance()) {
            return at(&format!("an instance of {group} is called {group}-N"));
        }
        if let Some(range) = port_range
            && range.port(self.instance().unwrap_or(0)).is_none()
        {
            return at(&format!("port_range: {range} has no port for it"));
        }
        if listen.len() > SOCKETS_MAX {
            return at(&format!("listen: more than {SOCKETS_MAX} sockets"));
        }
        let is_twice = |(at, one): (usize, &Listen)| {
            listen[..at].iter().any(|other| other.address == one.address)
        };
        match listen.iter().enumerate().find(|one| is_twice(*one)) {
            Some((_, twice)) => at(&format!("listen: {} is there twice", twice.address)),
            None => Ok(()),
        }
    }

    /// The command as a line that a shell would read back.
    pub fn command_line(&self) -> String {
        join(&self.command)
    }

    /// The policy, and what else is not the default.
    pub fn options(&self) -> Map<String, Value> {
        let is_said = |opt: &&Opt| opt.group == Group::Policy || !opt.is_default(self);
        OPTIONS.iter().filter(is_said).map(|opt| (opt.key.to_owned(), opt.get(self))).collect()
    }

    /// The keys in which two declarations differ, those of environments as `env.NAME` and, from
    /// the `.env`, `.env:NAME`. Never a value: it may be a secret.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let own = [
            ("name", self.name != other.name),
            ("command", self.command != other.command),
            ("cwd", self.cwd != other.cwd),
        ];
        let are_alike = |opt: &Opt| {
            opt.is_default(self) && opt.is_default(other) || opt.get(self) == opt.get(other)
        };
        let options = OPTIONS.iter().map(|opt| (opt.key, !are_alike(opt)));
        let differ = own.into_iter().chain(options).filter(|(_, differs)| *differs);
        let mut differ: Vec<String> = differ.map(|(key, _)| key.to_owned()).collect();
        let layers = [("env.", &self.env, &other.env), (".env:", &self.dotenv, &other.dotenv)];
        for (layer, one, two) in layers {
            let lacks = |of: &Env, pair: &(String, String)| !of.contains(pair);
            let changed = one.iter().filter(|pair| lacks(two, pair));
            let changed = changed.chain(two.iter().filter(|pair| lacks(one, pair)));
            for (name, _) in changed {
                let key = format!("{layer}{name}");
                if !differ.contains(&key) {
                    differ.push(key);
                }
            }
        }
        differ
    }
}

/// Options that have their default are left out: another version of opm may not know them.
impl Serialize for Spec {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("name", &self.name)?;
        map.serialize_entry("command", &self.command)?;
        map.serialize_entry("cwd", &*self.cwd)?;
        map.serialize_entry("env", &self.env)?;
        if !self.dotenv.is_empty() {
            map.serialize_entry("dotenv", &*self.dotenv)?;
        }
        if *self.origin != Origin::default() {
            map.serialize_entry("origin", &*self.origin)?;
        }
        for opt in OPTIONS {
            if !opt.is_default(self) {
                map.serialize_entry(opt.key, &opt.get(self))?;
            }
        }
        map.end()
    }
}

/// Most values within one option.
const OPTION_VALUES_MAX: usize = 4_096;

/// What is asked for is never dropped because this opm is older: an unknown key is an error.
impl<'de> Deserialize<'de> for Spec {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Spec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a service")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Spec, A::Error> {
                let mut spec = Spec::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "name" => spec.name = map.next_value()?,
                        "command" => spec.command = map.next_value::<List<_>>()?.0,
                        "cwd" => *spec.cwd = map.next_value()?,
                        "env" => spec.env = map.next_value::<List<_>>()?.0,
                        "dotenv" => *spec.dotenv = map.next_value::<List<_>>()?.0,
                        "origin" => *spec.origin = map.next_value()?,
                        key => {
                            let opt = options::find(key);
                            let opt = opt.ok_or_else(|| A::Error::custom(unknown(key)))?;
                            let mut left = OPTION_VALUES_MAX;
                            let value = map.next_value_seed(Tree(&mut left))?;
                            let read = opt.read(&mut spec, &value);
                            read.map_err(|e| A::Error::custom(format!("{key}: {e}")))?;
                        }
                    }
                }
                let lacks = [
                    ("name", spec.name.is_empty()),
                    ("command", spec.command.is_empty()),
                    ("cwd", spec.cwd.is_empty()),
                ];
                match lacks.into_iter().find(|(_, lacks)| *lacks) {
                    Some((key, _)) => Err(A::Error::missing_field(key)),
                    None => Ok(spec),
                }
            }
        }
        from.deserialize_map(Fields)
    }
}

/// What `adjust` changes of a definition; what is not said stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Change {
    pub name: Option<String>,
    /// Empty: it stays.
    #[serde(deserialize_with = "json::list")]
    pub command: Vec<String>,
    /// The directory, and the variables of the `.env` in it.
    pub cwd: Option<(String, Env)>,
    /// What was set by hand is dropped first.
    pub reset_env: bool,
    /// Set by hand, besides those that were.
    #[serde(deserialize_with = "json::list")]
    pub env: Env,
    /// Options that have their default again, by their key, before others are set.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reset: Vec<String>,
    /// Options by their key, as words of the command line.
    #[serde(deserialize_with = "json::list")]
    pub options: Vec<(String, String)>,
}

impl Change {
    /// `spec` with the change made. Errors: an option that this opm doesn't know, or a value that
    /// it can't have.
    pub fn apply(&self, spec: &Spec) -> Result<Spec, String> {
        let mut spec = spec.clone();
        if let Some(name) = &self.name {
            spec.name.clone_from(name);
        }
        if !self.command.is_empty() {
            spec.command.clone_from(&self.command);
        }
        if let Some((cwd, dotenv)) = &self.cwd {
            (spec.cwd, spec.dotenv) = (cwd.clone().into(), dotenv.clone().into());
        }
        if self.reset_env {
            spec.env.clear();
        }
        spec.env.extend(self.env.iter().cloned());
        spec.env = last_of_each(spec.env);
        for key in &self.reset {
            let opt = options::find(key).ok_or_else(|| unknown(key))?;
            opt.read(&mut spec, &opt.default()).map_err(|reason| format!("{key}: {reason}"))?;
        }
        for (key, text) in &self.options {
            let opt = options::find(key).ok_or_else(|| unknown(key))?;
            opt.parse(&mut spec, text).map_err(|reason| format!("{key}: {reason}"))?;
        }
        Ok(spec)
    }
}

/// What another version of opm says, and this one can't do.
fn unknown(key: &str) -> String {
    format!("'{}' is nothing that this opm knows", key.escape_debug())
}

/// Whether `name` can name an environment variable: not empty, no `=`, no NUL.
pub fn is_variable_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0'])
}

/// Of a name that is there twice the last one, in its place.
pub fn last_of_each<N: Clone + Eq + Hash, V>(mut pairs: Vec<(N, V)>) -> Vec<(N, V)> {
    let mut seen = HashSet::new();
    let last: Vec<bool> = pairs.iter().rev().map(|(name, _)| seen.insert(name.clone())).collect();
    let mut last = last.into_iter().rev();
    pairs.retain(|_| last.next().unwrap_or(true));
    pairs
}

/// Joins words into a line that a POSIX shell reads back as the same words.
pub fn join(words: &[String]) -> String {
    let mut line = String::new();
    for word in words {
        if !line.is_empty() {
            line.push(' ');
        }
        let plain = |c: char| c.is_alphanumeric() || "@%+=:,./-_".contains(c);
        if !word.is_empty() && word.chars().all(plain) {
            line.push_str(word);
        } else {
            line.push('\'');
            line.push_str(&word.replace('\'', r"'\''"));
            line.push('\'');
        }
    }
    line
}

/// A spec with what its definer had: what the daemon keeps. Services that one command defined
/// share the latter, so a thousand of them cost one copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    pub spec: Spec,
    pub base: Rc<Context>,
}

impl Definition {
    /// What its processes begin with: what the definer had, and what was asked for by name.
    pub fn attributes(&self) -> Attributes {
        let (mut attributes, exec) = (self.base.attributes, &self.spec.exec);
        attributes.nice = exec.nice.map_or(attributes.nice, |nice| nice.0);
        attributes.umask = exec.umask.as_ref().map_or(attributes.umask, |umask| umask.value.0);
        for (at, [soft, _]) in exec.limit.iter().flat_map(|limits| &limits.value.0) {
            attributes.limits[*at] = Some(*soft);
        }
        attributes
    }

    /// What a variable of these is; [`Definition::variables`] would give all of them. The account's
    /// are not among them.
    pub fn variable(&self, name: &str) -> Option<&str> {
        let own = variable(&[&self.spec.env, &self.spec.dotenv], name);
        own.or_else(|| variable(&[&self.base.env], name).filter(|_| !self.is_filtered(name)))
    }

    /// Whether what the caller had under that name is not for it.
    fn is_filtered(&self, name: &str) -> bool {
        self.spec.exec.filter_env.iter().any(|glob| glob_matches(glob, name))
    }

    /// The variables that were captured or declared, as every incarnation gets them: of a name
    /// that is there several times the last one counts. What its own user has in them (`account`)
    /// stands above what the caller had.
    pub fn variables<'a>(
        &'a self,
        account: &'a [(&'static str, String)],
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        let pair = |(name, value): &'a (String, String)| (name.as_str(), value.as_str());
        let base = self.base.env.iter().map(pair).filter(|(name, _)| !self.is_filtered(name));
        let base = base.chain(account.iter().map(|(name, value)| (*name, value.as_str())));
        // What the service is called that a command was called from is nothing of this one's.
        let below = base.chain(self.spec.dotenv.iter().map(pair));
        let below = below.filter(|(name, _)| !name.starts_with("OPM_"));
        let own = self.spec.env.iter().map(pair).filter(|(name, _)| !RESERVED.contains(name));
        last_of_each(below.chain(own).collect()).into_iter()
    }
}

#[cfg(test)]
#[path = "../../tests/inner/service_spec.rs"]
mod tests;

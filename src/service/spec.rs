//! What the operator declared: a service's name, command, directory, environment and policy.
//!
//! A `Spec` that exists is valid: [`Spec::check`] runs on everything that comes from a file
//! or a socket before the daemon keeps it.
use super::context::Context;
use super::signal::Signal;
use super::units::{self, Delay};
use super::value::{Fields, FromValue, Wrong, by_value};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use std::rc::Rc;

/// Most words of a command and most variables of an environment.
pub const WORDS_MAX: usize = 65_536;

/// Variables that opm itself sets for a service.
pub const RESERVED: [&str; 4] = ["OPM_HOME", "OPM_NAME", "OPM_MARK", "OPM_OUTER"];

/// The service's id: small, stable, the lowest free one is given.
pub type Id = u32;

/// One environment, in the order in which it was captured.
pub type Env = Vec<(String, String)>;

/// When a service that ended by itself comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// After every death, exit 0 too.
    Always,
    /// After a signal or an exit code other than 0.
    OnFailure,
    /// Not by itself.
    Never,
}

impl Restart {
    /// Parses the value of `--restart`.
    ///
    /// # Errors
    /// One line that lists the valid words.
    pub fn parse(word: &str) -> Result<Self, String> {
        match word {
            "always" => Ok(Self::Always),
            "on-failure" => Ok(Self::OnFailure),
            "never" => Ok(Self::Never),
            _ => Err(format!("'{word}' is not a restart policy (always, on-failure or never)")),
        }
    }

    /// The word that [`Restart::parse`] reads.
    pub fn word(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::OnFailure => "on-failure",
            Self::Never => "never",
        }
    }
}

/// Whom the stop signal is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopReach {
    /// Every process of it.
    Tree,
    /// The leader; the rest when the leader has gone.
    Leader,
}

impl StopReach {
    /// Parses the value of `--stop-reach`.
    ///
    /// # Errors
    /// One line that lists the valid words.
    pub fn parse(word: &str) -> Result<Self, String> {
        match word {
            "tree" => Ok(Self::Tree),
            "leader" => Ok(Self::Leader),
            _ => Err(format!("'{word}' is not whom to ask (tree or leader)")),
        }
    }

    /// The word that [`StopReach::parse`] reads.
    pub fn word(self) -> &'static str {
        match self {
            Self::Tree => "tree",
            Self::Leader => "leader",
        }
    }
}

/// How a service is stopped and restarted. Times are milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Policy {
    pub restart: Restart,
    /// Quick deaths in a row that are forgiven.
    pub max_restarts: u32,
    /// A death after at least this long is no quick death.
    #[serde(serialize_with = "span")]
    pub min_uptime: u64,
    /// The cooldown after a quick death; doubles up to its bound if it is a range.
    #[serde(serialize_with = "delay")]
    pub restart_delay: Delay,
    pub stop_signal: Signal,
    /// Whom that is for.
    pub stop_reach: StopReach,
    /// From the stop signal to SIGKILL.
    #[serde(serialize_with = "span")]
    pub stop_timeout: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            restart: Restart::Always,
            max_restarts: 10,
            min_uptime: 10_000,
            restart_delay: Delay { min_ms: 2_000, max_ms: 2_000 },
            stop_signal: Signal::TERM,
            stop_reach: StopReach::Tree,
            stop_timeout: 5_000,
        }
    }
}

/// A service as declared, without what its definer had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Spec {
    pub name: String,
    /// The words that are exec'd, program first.
    pub command: Vec<String>,
    /// Absolute working directory.
    pub cwd: String,
    /// Given by hand, over all others.
    pub env: Env,
    /// What the `.env` of its directory said, over the definer's environment.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dotenv: Env,
    /// Its end is the end of all that `opm run` runs.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub critical: bool,
    #[serde(flatten)]
    pub policy: Policy,
}

impl Spec {
    /// Checks what a `Spec` promises.
    ///
    /// # Errors
    /// One clear line: subject, reason.
    pub fn check(&self) -> Result<(), String> {
        super::name::check_name(&self.name)?;
        let at = |reason: &str| Err(format!("{}: {reason}", self.name));
        if self.command.first().is_none_or(String::is_empty) {
            return at("the command is empty");
        }
        if !self.cwd.starts_with('/') {
            return at("cwd is not an absolute path");
        }
        let variables = || self.env.iter().chain(&self.dotenv);
        if self.command.len() > WORDS_MAX || variables().count() > WORDS_MAX {
            return at("too many words");
        }
        if self.command.iter().chain([&self.cwd]).any(|word| word.contains('\0')) {
            return at("a NUL byte in the command or the directory");
        }
        if variables().any(|(k, v)| !is_variable_name(k) || v.contains('\0')) {
            return at("an environment variable's name is empty, or has '=' or NUL in it");
        }
        if let Some((name, _)) = variables().find(|(k, _)| RESERVED.contains(&k.as_str())) {
            return at(&format!("{name} is set by opm itself"));
        }
        if self.policy.restart_delay.min_ms > self.policy.restart_delay.max_ms {
            return at("restart_delay ends before it begins");
        }
        Ok(())
    }

    /// The command as a line that a shell would read back.
    pub fn command_line(&self) -> String {
        join(&self.command)
    }

    /// The keys in which two declarations differ, those of environments as `env.NAME` and, from
    /// the `.env`, `.env:NAME`. Never a value: it may be a secret.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let object = |spec: &Self| match serde_json::to_value(spec) {
            Ok(Value::Object(mut map)) => {
                map.retain(|key, _| !matches!(key.as_str(), "env" | "dotenv"));
                map
            }
            _ => Map::new(),
        };
        let (one, two) = (object(self), object(other));
        let keys = one.keys().chain(two.keys().filter(|key| !one.contains_key(*key)));
        let mut differ: Vec<String> =
            keys.filter(|key| one.get(*key) != two.get(*key)).cloned().collect();
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

/// Whether `name` can name an environment variable: not empty, no `=`, no NUL.
pub fn is_variable_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0'])
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
    /// The variables that were captured or declared, as every incarnation gets them: of a name
    /// that is there several times the last one counts.
    pub fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        let (dotenv, own) = (&self.spec.dotenv, &self.spec.env);
        let is_in = |env: &[(String, String)], name: &str| env.iter().any(|(key, _)| key == name);
        let base = self.base.env.iter().filter(move |(name, _)| !is_in(dotenv, name));
        let below = base.chain(dotenv).filter(move |(name, _)| {
            // What the service is called that a command was called from is nothing of this one's.
            !name.starts_with("OPM_") && !is_in(own, name)
        });
        let own = own.iter().enumerate().filter(move |(at, (name, _))| {
            !is_in(&own[at + 1..], name) && !RESERVED.contains(&name.as_str())
        });
        let all = below.chain(own.map(|(_, pair)| pair));
        all.map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

by_value!(Spec);

impl FromValue for Spec {
    fn from_value(value: Value) -> Result<Self, Wrong> {
        Self::of_fields(Fields::of(value)?)
    }
}

impl Spec {
    /// Reads what its serialization wrote. What is not there has its default.
    ///
    /// # Errors
    /// The key that is missing or wrong, or that this opm doesn't know.
    pub fn of_fields(mut fields: Fields) -> Result<Self, Wrong> {
        let spec = Self {
            name: fields.take("name")?,
            command: fields.take("command")?,
            cwd: fields.take("cwd")?,
            env: fields.or("env", Env::new())?,
            dotenv: fields.or("dotenv", Env::new())?,
            critical: fields.or("critical", false)?,
            policy: Policy::of_fields(&mut fields)?,
        };
        fields.end()?;
        Ok(spec)
    }
}

impl Policy {
    fn of_fields(fields: &mut Fields) -> Result<Self, Wrong> {
        let Self {
            restart,
            max_restarts,
            min_uptime,
            restart_delay,
            stop_signal,
            stop_reach,
            stop_timeout,
        } = Self::default();
        Ok(Self {
            restart: fields.text_or("restart", Restart::parse, restart)?,
            max_restarts: fields.or("max_restarts", max_restarts)?,
            min_uptime: fields.text_or("min_uptime", units::parse_span, min_uptime)?,
            restart_delay: fields.text_or("restart_delay", Delay::parse, restart_delay)?,
            stop_signal: fields.or("stop_signal", stop_signal)?,
            stop_reach: fields.text_or("stop_reach", StopReach::parse, stop_reach)?,
            stop_timeout: fields.text_or("stop_timeout", units::parse_span, stop_timeout)?,
        })
    }
}

impl FromValue for Policy {
    fn from_value(value: Value) -> Result<Self, Wrong> {
        Self::of_fields(&mut Fields::of(value)?)
    }
}

fn span<S: Serializer>(ms: &u64, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&units::format_span(*ms))
}

fn delay<S: Serializer>(delay: &Delay, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(delay)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn join_quotes_what_a_shell_would_split() {
        let words = ["a b", "it's", "", "plain-1.0", "$x"].map(String::from);
        assert_eq!(join(&words), r"'a b' 'it'\''s' '' plain-1.0 '$x'");
    }

    fn env(pairs: &[(&str, &str)]) -> Env {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn spec() -> Spec {
        Spec {
            name: "web".to_owned(),
            command: vec!["x".to_owned()],
            cwd: "/".to_owned(),
            env: env(&[("A", "hand"), ("OPM_X", "hand")]),
            dotenv: env(&[("A", "file"), ("B", "file")]),
            critical: false,
            policy: Policy::default(),
        }
    }

    #[test]
    fn a_key_that_nobody_knows_is_refused_by_name() {
        let mut value = serde_json::to_value(spec()).unwrap();
        assert_eq!(Spec::from_value(value.clone()), Ok(spec()));
        value["oom_score"] = 3.into();
        let error = Spec::from_value(value).unwrap_err().to_string();
        assert!(error.contains("'oom_score'"), "{error}");
    }

    #[test]
    fn what_differs_is_named_and_no_value_is_shown() {
        assert_eq!(spec().differences(&spec()), [""; 0]);
        let policy = Policy { stop_timeout: 1, ..Policy::default() };
        let other = Spec {
            command: vec!["y".to_owned()],
            critical: true,
            env: env(&[("OPM_X", "hand"), ("A", "other"), ("N", "")]),
            dotenv: env(&[("A", "file")]),
            policy,
            ..spec()
        };
        let expected = ["command", "stop_timeout", "critical", "env.A", "env.N", ".env:B"];
        assert_eq!(spec().differences(&other), expected);
        let reordered = Spec { env: env(&[("OPM_X", "hand"), ("A", "hand")]), ..spec() };
        assert_eq!(spec().differences(&reordered), [""; 0]);
    }

    #[test]
    fn of_the_layers_of_an_environment_the_later_one_counts() {
        let captured =
            [("A", "shell"), ("B", "shell"), ("C", "shell"), ("OPM_X", "shell"), ("OPM_Y", "x")];
        let base = Rc::new(env(&captured).into());
        let definition = Definition { spec: spec(), base };
        let variables: Vec<_> = definition.variables().collect();
        assert_eq!(variables, [("C", "shell"), ("B", "file"), ("A", "hand"), ("OPM_X", "hand")]);
    }
}

//! What `opm run` is asked to do.
use crate::service::context::Context;
use crate::service::spec::Spec;
use crate::wire::Failure;

/// The wait from a stop to the end of everything, if nothing else is said: below the ten
/// seconds of `docker stop`.
pub const STOP_TIMEOUT_MS: u64 = 9_000;

/// What stands before each line of several services' output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefix {
    /// Nothing.
    None,
    /// `name | `.
    Name,
    /// Time and name.
    Time,
    /// The line is part of a JSON object.
    Json,
}

impl Prefix {
    /// Parses the value of `--prefix`. Errors: one line that lists the valid words.
    pub fn parse(word: &str) -> Result<Self, String> {
        match word {
            "none" => Ok(Self::None),
            "name" => Ok(Self::Name),
            "time" => Ok(Self::Time),
            "json" => Ok(Self::Json),
            _ => Err(format!("'{word}' is not a prefix (none, name, time or json)")),
        }
    }
}

/// A foreground run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Absolute; the first that can be used.
    pub homes: Vec<String>,
    /// The services. If the process file can't be read, a later image of this process goes on
    /// with what it has.
    pub declared: Result<Vec<Spec>, Failure>,
    /// What services get of ours.
    pub base: Context,
    /// None: by the number of services.
    pub prefix: Option<Prefix>,
    pub stop_timeout_ms: u64,
    /// Say nothing of what happens to services, but what is an error.
    pub quiet: bool,
    /// The command's words, program first, that ask for the same from any directory.
    pub words: Vec<String>,
}

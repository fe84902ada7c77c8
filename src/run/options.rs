//! What `opm run` is asked to do.
use crate::service::context::Context;
use crate::service::spec::Spec;
use crate::wire::Failure;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

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

/// What tells a file from another in its place: device, inode, size, and when it was changed.
pub type Stamp = (u64, u64, u64, i64, i64);

/// A process file that is read anew when it changes.
#[derive(Clone, Debug)]
pub struct Watched {
    /// Absolute.
    pub path: PathBuf,
    /// The file that was read; none: it was not there.
    pub read: Option<Stamp>,
}

impl Watched {
    /// The file as it is before it is read.
    pub fn new(path: PathBuf) -> Self {
        let watched = Self { path, read: None };
        Self { read: watched.found(), ..watched }
    }

    /// What is there now.
    pub fn found(&self) -> Option<Stamp> {
        let it = std::fs::metadata(&self.path).ok()?;
        Some((it.dev(), it.ino(), it.size(), it.ctime(), it.ctime_nsec()))
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
    /// None: the file is read anew when SIGHUP asks for it.
    pub watched: Option<Watched>,
    /// The command's words, program first, and where it was called.
    pub words: Vec<String>,
    pub directory: Option<String>,
}

//! The flags of `opm init`: tini's and dumb-init's letters in one grammar.
//!
//! Not by clap, because a PID 1 must not pay for a parser that renders help in colour. Options end
//! at the first word that isn't one, as in both of the others, so that the program's own flags are
//! never ours.
use crate::service::signal::Signal;
use crate::service::units::Span;
use crate::sys::Reach;
use lexopt::{Arg, Error, Parser};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::time::Duration;

/// What the program leaves behind gets this long by default: Docker kills after 10 s.
const GRACE_DEFAULT: Duration = Duration::from_secs(8);
/// A century: what is added to a clock must not overflow it.
const GRACE_MS_MAX: u64 = 100 * 366 * 86_400_000;

/// Everything that the flags say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Whom a forwarded signal reaches: the program, or its group.
    pub reach: Reach,
    pub subreaper: bool,
    pub warn_reap: bool,
    pub verbosity: u8,
    pub parent_death_signal: Option<i32>,
    /// `None`: not given. To give it is to ask for a bounded stop.
    pub grace: Option<Duration>,
    /// What goes on in a signal's place; `None`: nothing does.
    pub rewrites: BTreeMap<i32, Option<i32>>,
    /// Exit codes that become 0.
    remapped: BTreeSet<u8>,
}

/// What is to be said, as no program is to be run.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    Help,
    Version,
    /// No program is named.
    Nothing,
    /// A complaint, without `opm: `.
    Wrong(String),
}

type Outcome<T> = Result<T, Answer>;

impl Options {
    /// The exit code that the world is told.
    pub fn remap(&self, code: u8) -> u8 {
        if self.remapped.contains(&code) { 0 } else { code }
    }

    /// How long what is left may take.
    pub fn grace(&self) -> Duration {
        self.grace.unwrap_or(GRACE_DEFAULT)
    }

    /// Whether a grace was asked for that is not 0.
    pub fn is_stop_bounded(&self) -> bool {
        self.grace.is_some_and(|span| !span.is_zero())
    }

    fn set(&mut self, flag: &str, words: &mut Parser) -> Outcome<()> {
        match flag {
            "-h" | "--help" => return Err(Answer::Help),
            "-V" | "--version" => return Err(Answer::Version),
            "-c" | "--single-child" => self.reach = Reach::Process,
            // It is how it is anyway.
            "-g" | "--group" => {}
            "-s" | "--subreaper" => self.subreaper = true,
            "-w" | "--warn-reap" => self.warn_reap = true,
            "-v" | "--verbose" => self.verbosity = self.verbosity.saturating_add(1),
            "-p" | "--pdeathsig" => {
                self.parent_death_signal = Some(value(flag, words, "not a signal", signal)?);
            }
            "-e" | "--remap-exit" => {
                let code = |text: &str| text.parse().ok();
                let what = "not an exit code (0 to 255)";
                self.remapped.insert(value(flag, words, what, code)?);
            }
            "-r" | "--rewrite" => {
                let what = "not SIGNAL:SIGNAL (or SIGNAL:0 to drop it)";
                self.rewrites.extend([value(flag, words, what, rewrite)?]);
            }
            "--grace" => {
                let span = |text: &str| Span::parse(text).ok().filter(|it| it.ms <= GRACE_MS_MAX);
                let span = value(flag, words, "not a duration (0, 250ms, 8s, 2m)", span)?;
                self.grace = Some(Duration::from_millis(span.ms));
            }
            _ => return wrong(format!("{flag}: no such option (see 'opm init -h')")),
        }
        Ok(())
    }
}

/// Reads the words after `init`: the options, then the program and its arguments.
pub fn parse(words: &[OsString]) -> Outcome<(Options, &[OsString])> {
    let mut options = Options {
        reach: Reach::Group,
        subreaper: false,
        warn_reap: false,
        verbosity: 0,
        parent_death_signal: None,
        grace: None,
        rewrites: BTreeMap::new(),
        remapped: BTreeSet::new(),
    };
    let mut parser = Parser::from_args(words);
    loop {
        let flag = match parser.next() {
            Ok(Some(Arg::Short(letter))) => format!("-{letter}"),
            Ok(Some(Arg::Long(name))) => format!("--{name}"),
            Ok(Some(Arg::Value(_))) => {
                let rest = parser.raw_args().map_or(0, |rest| rest.as_slice().len());
                return Ok((options, &words[words.len() - rest - 1..]));
            }
            Ok(None) => return Err(Answer::Nothing),
            Err(Error::UnexpectedValue { option, .. }) => {
                return wrong(format!("{option}: takes no value"));
            }
            Err(error) => return wrong(error.to_string()),
        };
        options.set(&flag, &mut parser)?;
    }
}

/// The value of an option. `what`: of one that can't be read.
fn value<T>(
    flag: &str,
    words: &mut Parser,
    what: &str,
    read: impl FnOnce(&str) -> Option<T>,
) -> Outcome<T> {
    let Ok(word) = words.value() else { return wrong(format!("{flag}: needs a value")) };
    let text = word.to_string_lossy();
    read(&text).map_or_else(|| wrong(format!("{flag}: {text}: {what}")), Ok)
}

fn wrong<T>(complaint: String) -> Outcome<T> {
    Err(Answer::Wrong(format!("init: {complaint}")))
}

fn signal(value: &str) -> Option<i32> {
    Signal::parse(value).ok().map(Signal::number)
}

fn rewrite(value: &str) -> Option<(i32, Option<i32>)> {
    let (from, to) = value.split_once(':')?;
    let to = if to == "0" { None } else { Some(signal(to)?) };
    Some((signal(from)?, to))
}

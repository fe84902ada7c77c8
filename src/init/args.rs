//! The flags of `opm init`: tini's and dumb-init's letters in one grammar, parsed by hand.
//!
//! By hand because a PID 1 must not pay for a parser that renders help in colour. Options end at
//! the first word that isn't one, as in both of the others, so that the program's own flags are
//! never ours.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::time::Duration;

use crate::service::signal::Signal;
use crate::service::units::Span;
use crate::sys::Reach;

/// What the program leaves behind gets this long by default: with it a stop ends before the 10 s
/// after which Docker kills.
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

    fn set(&mut self, flag: &Flag, value: &str) -> Outcome<()> {
        let wrong = |what| {
            let flag =
                flag.letter.map_or(format!("--{}", flag.long), |letter| format!("-{letter}"));
            wrong(format!("{flag}: {value}: {what}"))
        };
        match flag.long {
            "help" => return Err(Answer::Help),
            "version" => return Err(Answer::Version),
            "single-child" => self.reach = Reach::Process,
            "subreaper" => self.subreaper = true,
            "warn-reap" => self.warn_reap = true,
            "verbose" => self.verbosity = self.verbosity.saturating_add(1),
            "pdeathsig" => match signal(value) {
                None => return wrong("not a signal"),
                known => self.parent_death_signal = known,
            },
            "remap-exit" => match value.parse::<u8>() {
                Err(_) => return wrong("not an exit code (0 to 255)"),
                Ok(code) => self.remapped.extend([code]),
            },
            "rewrite" => match rewrite(value) {
                None => return wrong("not SIGNAL:SIGNAL (or SIGNAL:0 to drop it)"),
                Some(pair) => self.rewrites.extend([pair]),
            },
            "grace" => match Span::parse(value).ok().filter(|span| span.ms <= GRACE_MS_MAX) {
                None => return wrong("not a duration (0, 250ms, 8s, 2m)"),
                Some(span) => self.grace = Some(Duration::from_millis(span.ms)),
            },
            // --group is how it is anyway.
            _ => {}
        }
        Ok(())
    }
}

struct Flag {
    letter: Option<char>,
    long: &'static str,
    takes_value: bool,
}

const FLAGS: [Flag; 11] = [
    Flag { letter: Some('c'), long: "single-child", takes_value: false },
    Flag { letter: Some('e'), long: "remap-exit", takes_value: true },
    Flag { letter: Some('g'), long: "group", takes_value: false },
    Flag { letter: None, long: "grace", takes_value: true },
    Flag { letter: Some('h'), long: "help", takes_value: false },
    Flag { letter: Some('p'), long: "pdeathsig", takes_value: true },
    Flag { letter: Some('r'), long: "rewrite", takes_value: true },
    Flag { letter: Some('s'), long: "subreaper", takes_value: false },
    Flag { letter: Some('v'), long: "verbose", takes_value: false },
    Flag { letter: Some('V'), long: "version", takes_value: false },
    Flag { letter: Some('w'), long: "warn-reap", takes_value: false },
];

/// Reads the words after `init`: the options, then the program and its arguments.
pub fn parse(mut words: &[OsString]) -> Outcome<(Options, &[OsString])> {
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
    while let [word, rest @ ..] = words
        && let Some(option) = word.to_str().and_then(|text| text.strip_prefix('-'))
        && !option.is_empty()
    {
        words = rest;
        match option.strip_prefix('-') {
            Some("") => break,
            Some(long) => take_long(&mut options, long, &mut words)?,
            None => take_letters(&mut options, option, &mut words)?,
        }
    }
    if words.is_empty() { Err(Answer::Nothing) } else { Ok((options, words)) }
}

fn take_long(options: &mut Options, text: &str, words: &mut &[OsString]) -> Outcome<()> {
    let (name, given) = text.split_once('=').map_or((text, None), |(n, value)| (n, Some(value)));
    let Some(flag) = FLAGS.iter().find(|flag| flag.long == name) else {
        return wrong(format!("--{name}: no such option (see 'opm init -h')"));
    };
    match (flag.takes_value, given) {
        (false, Some(_)) => wrong(format!("--{name}: takes no value")),
        (false, None) => options.set(flag, ""),
        (true, Some(value)) => options.set(flag, value),
        (true, None) => options.set(flag, next_value(words, &format!("--{name}"))?),
    }
}

fn take_letters(options: &mut Options, letters: &str, words: &mut &[OsString]) -> Outcome<()> {
    for (at, letter) in letters.char_indices() {
        let Some(flag) = FLAGS.iter().find(|flag| flag.letter == Some(letter)) else {
            return wrong(format!("-{letter}: no such option (see 'opm init -h')"));
        };
        let rest = &letters[at + letter.len_utf8()..];
        match (flag.takes_value, rest) {
            (false, _) => options.set(flag, "")?,
            (true, "") => return options.set(flag, next_value(words, &format!("-{letter}"))?),
            (true, value) => return options.set(flag, value),
        }
    }
    Ok(())
}

fn next_value<'a>(words: &mut &'a [OsString], flag: &str) -> Outcome<&'a str> {
    let Some((word, rest)) = words.split_first() else {
        return wrong(format!("{flag}: needs a value"));
    };
    *words = rest;
    // No value that is not UTF-8 means anything.
    Ok(word.to_str().unwrap_or("\u{fffd}"))
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

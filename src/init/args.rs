//! The flags of `opm init`: tini's and dumb-init's letters in one grammar, parsed by hand.
//!
//! By hand because a PID 1 must not pay for a parser that renders help in colour. Options end at
//! the first word that isn't one, as in both of the others, so that the program's own flags are
//! never ours.

use std::time::Duration;

use super::signals;
use crate::sys::pid1::{SIGNAL_MAX, Words};

/// What is left gets this long by default: with it a stop ends before the 10 s after which Docker
/// kills.
pub(super) const GRACE_DEFAULT: Duration = Duration::from_secs(8);

/// Whom a forwarded signal reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// The child's process group.
    Group,
    /// The child alone.
    Child,
}

/// Everything that the flags say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) reach: Reach,
    pub(super) subreaper: bool,
    pub(super) warn_reap: bool,
    pub(super) verbosity: u8,
    pub(super) parent_death_signal: Option<i32>,
    /// `None`: not given. To give it is to ask for a bounded stop.
    pub(super) grace: Option<Duration>,
    rewrites: [Rewrite; SIGNAL_MAX as usize + 1],
    /// Exit codes that become 0.
    forgiven: [bool; 256],
}

/// What becomes of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rewrite {
    Unchanged,
    Drop,
    To(i32),
}

/// What is to be said, as no program is to be run.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Instead {
    Help,
    Version,
    /// No program is named.
    Nothing,
    /// A complaint, without `opm: `.
    Wrong(String),
}

impl Options {
    fn new() -> Options {
        Options {
            reach: Reach::Group,
            subreaper: false,
            warn_reap: false,
            verbosity: 0,
            parent_death_signal: None,
            grace: None,
            rewrites: [Rewrite::Unchanged; SIGNAL_MAX as usize + 1],
            forgiven: [false; 256],
        }
    }

    /// What becomes of a signal that arrives.
    pub(super) fn rewrite(&self, signal: i32) -> Rewrite {
        let place = usize::try_from(signal).unwrap_or(0);
        self.rewrites.get(place).copied().unwrap_or(Rewrite::Unchanged)
    }

    /// The exit code that the world is told.
    pub(super) fn remap(&self, code: u8) -> u8 {
        if self.forgiven[usize::from(code)] { 0 } else { code }
    }

    /// How long what is left may take.
    pub(super) fn grace(&self) -> Duration {
        self.grace.unwrap_or(GRACE_DEFAULT)
    }

    fn set(&mut self, flag: &Flag, value: &str) -> Result<(), String> {
        let wrong = |what: &str| Err(format!("init: -{}: {value}: {what}", flag.shown()));
        match flag.letter {
            'c' => self.reach = Reach::Child,
            's' => self.subreaper = true,
            'w' => self.warn_reap = true,
            'v' => self.verbosity = self.verbosity.saturating_add(1),
            'p' => match signals::parse(value) {
                Some(signal) => self.parent_death_signal = Some(signal),
                None => return wrong("not a signal"),
            },
            'e' => match value.parse::<u8>() {
                Ok(code) => self.forgiven[usize::from(code)] = true,
                Err(_) => return wrong("not an exit code (0 to 255)"),
            },
            'r' => match rewrite(value) {
                Some((from, to)) => self.rewrites[from] = to,
                None => return wrong("not SIGNAL:SIGNAL (or SIGNAL:0 to drop it)"),
            },
            'G' => match duration(value) {
                Some(span) => self.grace = Some(span),
                None => return wrong("not a duration (0, 250ms, 8s, 2m)"),
            },
            // -g is how it is anyway.
            _ => {}
        }
        Ok(())
    }
}

struct Flag {
    /// Upper case for those that have no letter of their own.
    letter: char,
    long: &'static str,
    takes_value: bool,
}

impl Flag {
    fn shown(&self) -> String {
        match self.letter {
            'G' => format!("-{}", self.long),
            letter => letter.to_string(),
        }
    }
}

const fn flag(letter: char, long: &'static str, takes_value: bool) -> Flag {
    Flag { letter, long, takes_value }
}

const FLAGS: [Flag; 11] = [
    flag('c', "single-child", false),
    flag('e', "remap-exit", true),
    flag('g', "group", false),
    flag('h', "help", false),
    flag('p', "pdeathsig", true),
    flag('r', "rewrite", true),
    flag('s', "subreaper", false),
    flag('v', "verbose", false),
    flag('w', "warn-reap", false),
    flag('V', "version", false),
    flag('G', "grace", true),
];

/// The one flag that has no short form.
const LONG_ONLY: char = 'G';

/// Reads the words after `init`. What is left of them is the program, if there is one to run.
pub(super) fn parse(words: &mut Words) -> Result<Options, Instead> {
    let mut options = Options::new();
    while let Some(word) = words.first() {
        let text = word.to_str().unwrap_or("");
        let Some(option) = text.strip_prefix('-').filter(|rest| !rest.is_empty()) else {
            break;
        };
        words.next();
        if option == "-" {
            break;
        }
        match option.strip_prefix('-') {
            Some(long) => take_long(&mut options, long, words)?,
            None => take_letters(&mut options, option, words)?,
        }
    }
    match words.first() {
        Some(_) => Ok(options),
        None => Err(Instead::Nothing),
    }
}

type Outcome = Result<(), Instead>;

fn wrong<T>(complaint: String) -> Result<T, Instead> {
    Err(Instead::Wrong(complaint))
}

fn take_long(options: &mut Options, text: &str, words: &mut Words) -> Outcome {
    let (name, given) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (text, None),
    };
    let Some(flag) = FLAGS.iter().find(|flag| flag.long == name) else {
        return wrong(format!("init: --{name}: no such option (see 'opm init -h')"));
    };
    match (flag.takes_value, given) {
        (false, Some(_)) => wrong(format!("init: --{name}: takes no value")),
        (false, None) => apply(options, flag, ""),
        (true, Some(value)) => apply(options, flag, value),
        (true, None) => apply(options, flag, next_value(words, "--", name)?),
    }
}

fn take_letters(options: &mut Options, letters: &str, words: &mut Words) -> Outcome {
    for (at, letter) in letters.char_indices() {
        let known = FLAGS.iter().find(|flag| flag.letter == letter && letter != LONG_ONLY);
        let Some(flag) = known else {
            return wrong(format!("init: -{letter}: no such option (see 'opm init -h')"));
        };
        let end = at + letter.len_utf8();
        if flag.takes_value {
            return match &letters[end..] {
                "" => apply(options, flag, next_value(words, "-", &letters[at..end])?),
                value => apply(options, flag, value),
            };
        }
        apply(options, flag, "")?;
    }
    Ok(())
}

fn next_value(words: &mut Words, dashes: &str, name: &str) -> Result<&'static str, Instead> {
    match words.next() {
        // No value that is not UTF-8 means anything.
        Some(word) => Ok(word.to_str().unwrap_or("\u{fffd}")),
        None => wrong(format!("init: {dashes}{name}: needs a value")),
    }
}

fn apply(options: &mut Options, flag: &Flag, value: &str) -> Outcome {
    match flag.letter {
        'h' => Err(Instead::Help),
        'V' => Err(Instead::Version),
        _ => options.set(flag, value).map_err(Instead::Wrong),
    }
}

fn rewrite(value: &str) -> Option<(usize, Rewrite)> {
    let (from, to) = value.split_once(':')?;
    let from = usize::try_from(signals::parse(from)?).ok()?;
    let to = match to {
        "0" => Rewrite::Drop,
        to => Rewrite::To(signals::parse(to)?),
    };
    Some((from, to))
}

fn duration(value: &str) -> Option<Duration> {
    if value == "0" {
        return Some(Duration::ZERO);
    }
    let digits = value.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = value.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let ms = match unit {
        "ms" => number,
        "s" => number.checked_mul(1000)?,
        "m" => number.checked_mul(60_000)?,
        "h" => number.checked_mul(3_600_000)?,
        "d" => number.checked_mul(86_400_000)?,
        _ => return None,
    };
    // A century: what is added to a clock must not overflow it.
    (ms <= 100 * 366 * 86_400_000).then(|| Duration::from_millis(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Options {
        parse(&mut Words::of(line)).unwrap_or_else(|other| panic!("{line}: {other:?}"))
    }

    fn refusal(line: &str) -> Instead {
        parse(&mut Words::of(line)).unwrap_err()
    }

    fn words(line: &str) -> Vec<&'static str> {
        let mut words = Words::of(line);
        parse(&mut words).unwrap();
        words.map(|word| word.to_str().unwrap()).collect()
    }

    #[test]
    fn options_end_at_the_first_word_that_is_none() {
        assert_eq!(words("-s prog -c -h"), ["prog", "-c", "-h"]);
        assert_eq!(options("-s prog -c").reach, Reach::Group);
        assert_eq!(words("-- -prog -x"), ["-prog", "-x"]);
        assert_eq!(words("-"), ["-"]);
        assert_eq!(words("prog -- x"), ["prog", "--", "x"]);
    }

    #[test]
    fn letters_cluster_and_values_may_be_attached() {
        let all = options("-gsvvwc -pTERM -e143 -e 1 -r15:3 --rewrite=HUP:0 --grace=250ms x");
        assert!(all.subreaper && all.warn_reap);
        assert_eq!((all.verbosity, all.reach), (2, Reach::Child));
        assert_eq!(all.parent_death_signal, Some(15));
        assert_eq!((all.remap(143), all.remap(1), all.remap(2)), (0, 0, 2));
        assert_eq!((all.rewrite(15), all.rewrite(1)), (Rewrite::To(3), Rewrite::Drop));
        assert_eq!(all.grace, Some(Duration::from_millis(250)));
        assert_eq!(options("-sp TERM x").parent_death_signal, Some(15));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let wrong = [
            "-x p",
            "--nope p",
            "-p",
            "-p FOO p",
            "-e 256 p",
            "-e x p",
            "-r 15 p",
            "-r 0:1 p",
            "-r 1:65 p",
            "--grace 5 p",
            "--grace s p",
            "--grace 99999999999d p",
            "--subreaper=1 p",
            "-sx p",
            "-G 1s p",
            "--grace",
        ];
        for line in wrong {
            assert!(matches!(refusal(line), Instead::Wrong(_)), "{line}");
        }
    }

    #[test]
    fn nothing_to_run_is_told_apart() {
        assert_eq!(refusal(""), Instead::Nothing);
        assert_eq!(refusal("-s --"), Instead::Nothing);
        assert_eq!(refusal("-sh"), Instead::Help);
        assert_eq!(refusal("--version x"), Instead::Version);
    }
}

//! The flags of `opm init`: tini's and dumb-init's letters in one grammar, parsed by hand.
//!
//! By hand because a PID 1 must not pay for a parser that renders help in colour. Options end at
//! the first word that isn't one, as in both of the others, so that the program's own flags are
//! never ours.

use std::ffi::OsString;
use std::time::Duration;

use super::signals;
use crate::sys::pid1::SIGNAL_MAX;

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

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    Run {
        options: Box<Options>,
        words: Vec<OsString>,
    },
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
        self.rewrites
            .get(place)
            .copied()
            .unwrap_or(Rewrite::Unchanged)
    }

    /// The exit code that the world is told.
    pub(super) fn remap(&self, code: u8) -> u8 {
        if self.forgiven[usize::from(code)] {
            0
        } else {
            code
        }
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
    Flag {
        letter,
        long,
        takes_value,
    }
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

/// Reads the words after `init`.
pub(super) fn parse(mut words: impl Iterator<Item = OsString>) -> Request {
    let mut options = Box::new(Options::new());
    let mut program = Vec::new();
    while let Some(word) = words.next() {
        let text = word.to_str().unwrap_or("");
        let outcome = if text == "--" {
            break;
        } else if let Some(long) = text.strip_prefix("--") {
            take_long(&mut options, long, &mut words)
        } else if let Some(letters) = text.strip_prefix('-').filter(|rest| !rest.is_empty()) {
            take_letters(&mut options, letters, &mut words)
        } else {
            program.push(word);
            break;
        };
        match outcome {
            Ok(None) => {}
            Ok(Some(request)) => return request,
            Err(complaint) => return Request::Wrong(complaint),
        }
    }
    program.extend(words);
    if program.is_empty() {
        return Request::Nothing;
    }
    Request::Run {
        options,
        words: program,
    }
}

type Outcome = Result<Option<Request>, String>;

fn take_long(
    options: &mut Options,
    text: &str,
    words: &mut impl Iterator<Item = OsString>,
) -> Outcome {
    let (name, given) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, None),
    };
    let Some(flag) = FLAGS.iter().find(|flag| flag.long == name) else {
        return Err(format!(
            "init: --{name}: no such option (see 'opm init -h')"
        ));
    };
    match (flag.takes_value, given) {
        (false, Some(_)) => Err(format!("init: --{name}: takes no value")),
        (false, None) => apply(options, flag, ""),
        (true, Some(value)) => apply(options, flag, &value),
        (true, None) => apply(options, flag, &next_value(words, &format!("--{name}"))?),
    }
}

fn take_letters(
    options: &mut Options,
    letters: &str,
    words: &mut impl Iterator<Item = OsString>,
) -> Outcome {
    for (at, letter) in letters.char_indices() {
        let known = FLAGS
            .iter()
            .find(|flag| flag.letter == letter && letter != LONG_ONLY);
        let Some(flag) = known else {
            return Err(format!(
                "init: -{letter}: no such option (see 'opm init -h')"
            ));
        };
        let outcome = if flag.takes_value {
            let rest = &letters[at + letter.len_utf8()..];
            return match rest {
                "" => apply(options, flag, &next_value(words, &format!("-{letter}"))?),
                value => apply(options, flag, value),
            };
        } else {
            apply(options, flag, "")?
        };
        if outcome.is_some() {
            return Ok(outcome);
        }
    }
    Ok(None)
}

fn next_value(words: &mut impl Iterator<Item = OsString>, shown: &str) -> Result<String, String> {
    let word = words
        .next()
        .ok_or_else(|| format!("init: {shown}: needs a value"))?;
    Ok(word.to_string_lossy().into_owned())
}

fn apply(options: &mut Options, flag: &Flag, value: &str) -> Outcome {
    match flag.letter {
        'h' => return Ok(Some(Request::Help)),
        'V' => return Ok(Some(Request::Version)),
        _ => options.set(flag, value)?,
    }
    Ok(None)
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

    fn read(line: &str) -> Request {
        parse(line.split_whitespace().map(OsString::from))
    }

    fn options(line: &str) -> Options {
        match read(line) {
            Request::Run { options, .. } => *options,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn words(line: &str) -> Vec<OsString> {
        match read(line) {
            Request::Run { words, .. } => words,
            other => panic!("{line}: {other:?}"),
        }
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
        assert_eq!(
            (all.rewrite(15), all.rewrite(1)),
            (Rewrite::To(3), Rewrite::Drop)
        );
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
            assert!(matches!(read(line), Request::Wrong(_)), "{line}");
        }
    }

    #[test]
    fn nothing_to_run_is_told_apart() {
        assert_eq!(read(""), Request::Nothing);
        assert_eq!(read("-s --"), Request::Nothing);
        assert_eq!(read("-sh"), Request::Help);
        assert_eq!(read("--version x"), Request::Version);
    }
}

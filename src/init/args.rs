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
pub(super) struct Options {
    /// Whom a forwarded signal reaches: the program, or its group.
    pub(super) reach: Reach,
    pub(super) subreaper: bool,
    pub(super) warn_reap: bool,
    pub(super) verbosity: u8,
    pub(super) parent_death_signal: Option<i32>,
    /// `None`: not given. To give it is to ask for a bounded stop.
    pub(super) grace: Option<Duration>,
    /// What goes on in a signal's place; `None`: nothing does.
    pub(super) rewrites: BTreeMap<i32, Option<i32>>,
    /// Exit codes that become 0.
    remapped: BTreeSet<u8>,
}

/// What is to be said, as no program is to be run.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
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
    pub(super) fn remap(&self, code: u8) -> u8 {
        if self.remapped.contains(&code) { 0 } else { code }
    }

    /// How long what is left may take.
    pub(super) fn grace(&self) -> Duration {
        self.grace.unwrap_or(GRACE_DEFAULT)
    }

    /// Whether a grace was asked for that is not 0.
    pub(super) fn is_stop_bounded(&self) -> bool {
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
pub(super) fn parse(mut words: &[OsString]) -> Outcome<(Options, &[OsString])> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Outcome<(Options, String)> {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        let (options, program) = parse(&words)?;
        Ok((options, program.join(" ".as_ref()).into_string().unwrap()))
    }

    fn options(line: &str) -> Options {
        parsed(line).unwrap_or_else(|other| panic!("{line}: {other:?}")).0
    }

    fn refusal(line: &str) -> Answer {
        parsed(line).unwrap_err()
    }

    fn program(line: &str) -> String {
        parsed(line).unwrap().1
    }

    #[test]
    fn options_end_at_the_first_word_that_is_none() {
        assert_eq!(program("-s prog -c -h"), "prog -c -h");
        assert_eq!(options("-s prog -c").reach, Reach::Group);
        assert_eq!(program("-- -prog -x"), "-prog -x");
        assert_eq!(program("-"), "-");
        assert_eq!(program("prog -- x"), "prog -- x");
    }

    #[test]
    fn letters_cluster_and_values_may_be_attached() {
        let all = options("-gsvvwc -pTERM -e143 -e 1 -r15:3 --rewrite=HUP:0 --grace=250ms x");
        assert!(all.subreaper && all.warn_reap);
        assert_eq!((all.verbosity, all.reach), (2, Reach::Process));
        assert_eq!(all.parent_death_signal, Some(15));
        assert_eq!((all.remap(143), all.remap(1), all.remap(2)), (0, 0, 2));
        assert_eq!(all.rewrites, BTreeMap::from([(15, Some(3)), (1, None)]));
        assert_eq!(all.grace, Some(Duration::from_millis(250)));
        assert_eq!(options("-sp TERM x").parent_death_signal, Some(15));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let wrong = "-x p; --nope p; -p; -p FOO p; -e 256 p; -e x p; -r 15 p; -r 0:1 p; -r 1:65 p; \
                     --grace 5 p; --grace s p; --grace 99999999999d p; --subreaper=1 p; -sx p; \
                     -G 1s p; --grace";
        for line in wrong.split("; ") {
            assert!(matches!(refusal(line), Answer::Wrong(_)), "{line}");
        }
    }

    #[test]
    fn nothing_to_run_is_told_apart() {
        assert_eq!(refusal(""), Answer::Nothing);
        assert_eq!(refusal("-s --"), Answer::Nothing);
        assert_eq!(refusal("-sh"), Answer::Help);
        assert_eq!(refusal("--version x"), Answer::Version);
    }
}

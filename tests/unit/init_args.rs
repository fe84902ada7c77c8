//! Of `opm::init::args`.
use opm::init::args::*;
use opm::sys::Reach;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

fn parsed(line: &str) -> Result<(Options, String), Answer> {
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

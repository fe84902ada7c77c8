//! Of `cli::run`: compiled with the library, for it uses what is private there.
use super::*;
use crate::service::signal::Signal;
use crate::wire::code;

fn read(line: &str) -> Result<ArgMatches, Failure> {
    let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
    parse(&words)
}

#[test]
fn later_images_are_asked_with_the_same_options() {
    for (line, expected) in [
        ("--prefix json --stop-timeout=3s a.json", vec!["--prefix=json", "--stop-timeout=3s"]),
        ("--prefix none -q -- sh -c --prefix", vec!["--quiet", "--prefix=none"]),
        ("--watch-file --only a a.json", vec!["--watch-file", "--only=a"]),
        (
            "-n web --env A=1 --restart on-failure --env=B=2 -- x",
            vec!["--name=web", "--restart=on-failure", "--env=A=1", "--env=B=2"],
        ),
    ] {
        assert_eq!(given(&read(line).unwrap()).collect::<Vec<_>>(), expected, "{line}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for line in ["--no-daemon-start", "a b", "a -- b", "--restart never a.json", "--frob a"] {
        assert_eq!(read(line).unwrap_err().code, code::USAGE, "{line}");
    }
    let failure = read("--watch-file -- a").unwrap_err();
    assert_eq!((failure.code, &*failure.text), (2, "--watch-file: only with a process file"));
}

#[test]
fn a_command_of_pm2_runtimes_gets_what_pm2_would_give_it() {
    let matches = read("--restart on-failure -- sleep 1").unwrap();
    let command = || vec!["sleep".to_owned(), "1".to_owned()];
    let policy = |is_pm2| single(&matches, command(), is_pm2).unwrap().policy;
    assert_eq!((policy(false).stop_signal, policy(true).stop_signal), (Signal::TERM, Signal::INT));
    assert_eq!([policy(false).restart, policy(true).restart], [Restart::OnFailure; 2]);
    let stop = |words: &[&str]| {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        let words = pm2::runtime(&words).unwrap();
        let matches = parse(&words).unwrap();
        matches.get_many::<String>("words").unwrap().cloned().collect::<Vec<_>>()
    };
    // As it was called, and as later images of it are.
    for line in [&["start", "sleep", "--", "1"][..], &["--name=x", "--", "sleep", "1"]] {
        assert_eq!(stop(line), ["sleep", "1"]);
    }
}

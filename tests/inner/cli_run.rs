//! Of `cli::run`: compiled with the library, for it uses what is private there.
use super::*;

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

//! Of `cli::dotenv`: compiled with the library, for it uses what is private there.
use super::*;

fn env(text: &str) -> Vec<(String, String)> {
    let (env, bad) = parse(text);
    assert_eq!(bad, [0usize; 0]);
    env
}

#[test]
fn values_are_read_as_people_write_them() {
    for (line, value) in [
        ("A=1", "1"),
        ("export A = 1 ", "1"),
        ("A=", ""),
        ("A=a b # comment", "a b"),
        ("A=#x", ""),
        ("A=a#b", "a#b"),
        ("A='a # b' # c", "a # b"),
        (r#"A="a\nb \"c\" $d""#, "a\nb \"c\" $d"),
        ("A=\"two\nlines\"", "two\nlines"),
        ("A=a=b", "a=b"),
    ] {
        assert_eq!(env(line), [("A".to_owned(), value.to_owned())], "{line}");
    }
    assert_eq!(env("\u{feff}\r\n# only a comment\r\n"), []);
}

#[test]
fn a_quote_that_is_never_closed_costs_no_more_than_its_length() {
    let lines = 200_000;
    let (env, bad) = parse(&("A='open\n".to_owned() + &"B=1\n".repeat(lines)));
    assert_eq!((env.len(), bad), (0, vec![1]));
}

#[test]
fn lines_that_make_no_sense_are_numbered() {
    let (env, bad) = parse("A=1\nnonsense\n=x\nB C=1\nD='open\nE=1");
    assert_eq!(env, [("A".to_owned(), "1".to_owned())]);
    assert_eq!(bad, [2, 3, 4, 5]);
}

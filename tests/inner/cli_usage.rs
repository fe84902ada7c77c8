//! Of `cli::usage`: compiled with the library, for it uses what is private there.
use super::*;

#[test]
fn a_slip_of_the_finger_finds_the_command() {
    for (slip, meant) in [("strat", "start"), ("lits", "list"), ("lgos", "logs")] {
        assert_eq!(nearest(slip), Some(meant));
    }
    assert_eq!(nearest("completely-else"), None);
}

#[test]
fn a_slip_in_an_option_or_below_a_command_is_seen_too() {
    for (name, words, meant) in [
        ("start", ["start", "--nmae", "x"], "unknown option '--nmae' (did you mean '--name'?)"),
        (
            "daemon",
            ["daemon", "strt", "x"],
            "unknown command 'daemon strt' (did you mean 'start'?)",
        ),
        ("daemon", ["daemon", "stop", "--service"], "(did you mean '--services'?)"),
        ("list", ["list", "--frobnicate", "x"], "(try 'opm list --help')"),
    ] {
        let entry = super::super::commands::find(name).expect("a command");
        let words = words.iter().skip(1).map(OsString::from).collect();
        let failure = parse(entry, words).expect_err("a slip");
        assert!(failure.text.contains(meant), "{}", failure.text);
    }
}

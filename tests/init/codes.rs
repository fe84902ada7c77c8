//! What the world is told of the program's end.

use crate::rig::{OPM, Reach, compare, join, run, scratch};
use std::os::unix::fs::PermissionsExt;

fn code(prefix: &[&str], script: &str) -> String {
    run(&join(prefix, &["sh", "-c", script])).answer()
}

#[test]
fn exit_codes_are_the_programs() {
    for (script, expected) in [("exit 0", "0"), ("exit 42", "42"), ("exit 255", "255")] {
        assert_eq!(compare(script, Reach::Group, |init| code(init, script)), expected);
    }
}

#[test]
fn a_signal_is_told_as_128_and_its_number_real_time_ones_too() {
    for (number, expected) in [(9, "137"), (15, "143"), (3, "131"), (34, "162"), (64, "192")] {
        let script = format!("kill -{number} $$");
        assert_eq!(compare(&script, Reach::Group, |init| code(init, &script)), expected);
    }
}

#[test]
fn a_program_that_cannot_start_is_told_as_by_a_shell() {
    let end = |words: &'static [&str]| move |init: &[&str]| run(&join(init, words)).answer();
    assert_eq!(compare("not found", Reach::Group, end(&["/no/such"])), "127");
    assert_eq!(compare("not in PATH", Reach::Group, end(&["no-such-program"])), "127");
    assert_eq!(compare("not executable", Reach::Group, end(&["/etc/passwd"])), "126");
    assert_eq!(compare("a directory", Reach::Group, end(&["/etc"])), "126");
    assert_eq!(compare("under a file", Reach::Group, end(&["/etc/passwd/x"])), "127");
    let said = run(&[OPM, "init", "-s", "/no/such"]).rest;
    assert_eq!(said, ["opm: cannot start /no/such: No such file or directory"]);
}

#[test]
fn a_program_that_cannot_be_forked_is_told_in_one_line_and_1() {
    // A user whom nobody else is, and who may have one process.
    let user = ["setpriv", "--reuid=54321", "--clear-groups"];
    let words = ["prlimit", "--nproc=1", OPM, "init", "-s", "true"];
    let end = run(&join(&user, &words));
    assert_eq!(end.code, Some(1));
    let line = "opm: cannot fork for true: Resource temporarily unavailable";
    assert_eq!(end.rest, [line]);
}

#[test]
fn a_script_without_an_interpreter_line_is_run_by_sh() {
    let path = scratch("bare-script");
    std::fs::write(&path, "exit $1\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let answer = compare("no #!", Reach::Group, |init| run(&join(init, &[&path, "9"])).answer());
    std::fs::remove_file(&path).unwrap();
    assert_eq!(answer, "9");
}

#[test]
fn no_arguments_give_a_usage_line_and_2() {
    compare("no arguments", Reach::Group, |init| run(init).answer());
    for words in [&[OPM, "init"][..], &[OPM, "init", "-s", "--"][..]] {
        let end = run(words);
        assert_eq!(end.code, Some(2));
        assert!(end.rest.len() == 1 && end.rest[0].contains("usage: opm init"), "{end:?}");
    }
}

#[test]
fn an_unknown_option_exits_1_and_the_programs_own_are_not_ours() {
    assert_eq!(run(&[OPM, "init", "-x", "true"]).code, Some(1));
    assert_eq!(run(&[OPM, "init", "--nope", "true"]).code, Some(1));
    assert_eq!(run(&[OPM, "init", "-p", "NOPE", "true"]).code, Some(1));
    assert_eq!(run(&[OPM, "init", "sh", "-c", "exit 3"]).code, Some(3));
    assert_eq!(run(&[OPM, "init", "--", "sh", "-c", "exit 4"]).code, Some(4));
    let help = run(&[OPM, "init", "-h"]);
    assert_eq!(help.code, Some(0));
    assert!(help.rest.iter().any(|line| line.contains("--remap-exit")));
}

#[test]
fn a_remapped_code_becomes_0_and_others_stay() {
    let opm = [OPM, "init", "-s", "-e", "143", "-e3"];
    for (script, expected) in [("kill $$", "0"), ("exit 3", "0"), ("exit 4", "4")] {
        assert_eq!(code(&opm, script), expected);
    }
    compare("-e 3, exit 3", Reach::Child, |init| match init[0] {
        "tini" => code(&["tini", "-s", "-e", "3", "--"], "exit 3"),
        "dumb-init" => "no such flag".to_owned(),
        _ => code(&opm, "exit 3"),
    });
}

//! Completion in the shells themselves.
use crate::answers::answer;
use crate::fake::Scratch;
use std::process::Command;

/// Runs a program beside the daemon of the tests, with `opm` in its PATH; what it wrote.
fn ran(program: &str, words: &[&str]) -> String {
    let scratch = Scratch::new();
    let _requests = scratch.daemon(answer);
    let bin = scratch.root.join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_opm"), bin.join("opm")).unwrap();
    let mut command = Command::new(program);
    command.args(words).env_clear().current_dir(scratch.work());
    command.env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
    command.env("OPM_HOME", scratch.home()).env("HOME", scratch.work()).env("TERM", "dumb");
    command.env("LANG", "C.UTF-8");
    let output = command.output().unwrap_or_else(|e| panic!("{program}: {e}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), output.stderr);
    assert!(output.status.success(), "{program}: {out}{}", String::from_utf8_lossy(&err));
    out.into_owned()
}

#[test]
fn bash_completes_commands_options_values_and_services() {
    let script = r#"
        source <(opm completions bash)
        complete -p opm
        try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _opm; echo "${COMPREPLY[*]}"; }
        try opm sav
        try opm --no-daemon-start daemon up
        try opm stop w
        try opm ls --format ''
        try opm ls --no-u
        try opm wait web --for err
        try opm start -- ''
    "#;
    let out = ran("bash", &["--norc", "-c", script]);
    let lines: Vec<&str> = out.lines().collect();
    let expected = [
        "complete -o default -F _opm opm",
        "save",
        "upgrade",
        "web",
        "default json",
        "--no-usage",
        "errored",
        "",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn fish_completes_with_what_each_is() {
    let script = r#"
        opm completions fish | source
        complete -C "opm stop w"
        complete -C "opm dae"
        complete -C "opm ls --no-u"
    "#;
    let out = ran("fish", &["--no-config", "-c", script]);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "web\tonline");
    assert_eq!(lines[1], "daemon\tstart, stop, restart, upgrade the daemon");
    assert!(lines[2].starts_with("--no-usage\t"), "{out}");
}

#[test]
fn zsh_completes_in_a_terminal() {
    let script = r#"
        zmodload zsh/zpty
        zpty shell zsh -f -i
        zpty -w shell 'PS1=; autoload -U compinit; compinit -u -D; source <(opm completions zsh)'
        zpty -w shell 'bindkey "^I" complete-word; print re""ady'
        zpty -r shell line '*ready*'
        zpty -n -w shell $'print opm stop; opm stop w\t'
        zpty -r shell line '*opm stop web*'
        print found
        zpty -d shell
    "#;
    assert_eq!(ran("timeout", &["60", "zsh", "-f", "-c", script]), "found\n");
}

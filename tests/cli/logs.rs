//! `logs`, with and without a daemon.
use crate::fake::{Scratch, end_of, golden, transcripts};
use opm::wire::{LogFiles, Reply};
use std::io::{BufRead, BufReader, Write};

fn log(scratch: &Scratch, name: &str, text: &str) {
    scratch.write(&format!("home/logs/{name}"), text);
}

#[test]
fn logs_are_read_while_the_daemon_is_away() {
    let scratch = Scratch::new();
    let lines: String = (0..100).map(|n| format!("line {n}\n")).collect();
    log(&scratch, "web-out.log", &lines);
    log(&scratch, "web-error.log", "oops\nno newline");
    log(&scratch, "api-out.log", "api\n");
    let lines: &[&[&str]] = &[
        &["logs", "web", "--lines", "2"],
        &["logs", "web", "--out", "--lines", "1"],
        &["logs", "web", "--err"],
        &["logs", "web,api", "-n", "1"],
        &["logs", "web", "-n", "0"],
        &["logs", "nope"],
    ];
    golden("logs.txt", &transcripts(&scratch, lines));
}

#[test]
fn logs_follow_what_is_written_a_flush_and_a_rotation_until_the_reader_leaves() {
    let scratch = Scratch::new();
    log(&scratch, "web-out.log", "old\n");
    let path = scratch.home().join("logs/web-out.log");
    let files = LogFiles {
        id: 0,
        name: "web".into(),
        out: path.to_str().map(Into::into),
        error: path.with_file_name("web-error.log").to_str().map(Into::into),
    };
    let _requests = scratch.daemon(move |_| vec![Reply::Logs(vec![files.clone()])]);
    let mut child = scratch.command(&["logs", "web", "-f"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert!(next().starts_with("==> web out ("));
    assert_eq!(next(), "old");
    let write = |text: &str| {
        let mut file = std::fs::File::options().append(true).create(true).open(&path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    write("new");
    write("er\n");
    assert_eq!(next(), "web | newer");
    std::fs::File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    write("z\n");
    assert_eq!(next(), "web | z");
    std::fs::rename(&path, path.with_extension("1")).unwrap();
    write("rotated\n");
    assert_eq!(next(), "web | rotated");
    // A file that wasn't there when the command began.
    let error = path.with_file_name("web-error.log");
    std::fs::write(&error, "late\n").unwrap();
    assert_eq!(next(), "web | late");
    drop(lines);
    assert_eq!(end_of(&mut child), 0);
}

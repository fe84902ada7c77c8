//! `logs`, with and without a daemon.
use crate::fake::{Scratch, end_of, golden, transcripts};

use opm::daemon::logs::rotation::Rotation;
use opm::wire::{LogFiles, Reply};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

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

fn append(path: &Path, text: &str) {
    let mut file = std::fs::File::options().append(true).create(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn rotate(path: &Path) {
    let mut rotation = Rotation::begin(path, 8 << 10).unwrap().unwrap();
    while !rotation.step().unwrap() {}
}

/// Lines of 40 bytes.
fn numbered(from: usize, to: usize) -> String {
    (from..to).map(|n| format!("line {n:034}\n")).collect()
}

#[test]
fn the_last_lines_are_found_across_archives() {
    let scratch = Scratch::new();
    log(&scratch, "web-out.log", "");
    let path = scratch.home().join("logs/web-out.log");
    for n in 0..4 {
        append(&path, &numbered(n * 300, (n + 1) * 300));
        rotate(&path);
    }
    append(&path, "no newline");
    let all = numbered(0, 1200) + "no newline";
    // Of the archives one is compressed.
    let packed = path.with_file_name("web-out.log.000002");
    assert!(Command::new("gzip").arg(&packed).status().unwrap().success());
    for count in ["0", "1", "2", "100", "400", "900", "1201", "5000", "all"] {
        let wanted = count.parse().unwrap_or(usize::MAX);
        let begin = all.match_indices('\n').rev().nth(wanted.saturating_sub(1));
        let begin = if wanted == 0 { all.len() } else { begin.map_or(0, |(at, _)| at + 1) };
        let mut command = scratch.command(&["logs", "web", "--out", "-n", count]);
        let found = command.output().unwrap();
        assert_eq!(String::from_utf8(found.stdout).unwrap(), all[begin..], "{count}");
    }
    let mut command = scratch.command(&["logs", "web", "--grep", "[27]7$", "--raw", "-n", "2"]);
    let found = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert_eq!(found, numbered(1177, 1178).replace("1177", "1127") + &numbered(1177, 1178));
}

#[test]
fn not_a_line_is_lost_to_whoever_follows_through_rotations() {
    for place in ["/tmp", "/dev/shm"] {
        let scratch = Scratch::new();
        let directory = Path::new(place).join(format!("opm-follow-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("web-out.log");
        append(&path, "");
        let files = LogFiles {
            id: 0,
            name: "web".into(),
            out: path.to_str().map(Into::into),
            error: path.to_str().map(Into::into),
        };
        let _requests = scratch.daemon(move |_| vec![Reply::Logs(vec![files.clone()])]);
        let words = ["logs", "web", "-f", "-n", "all"];
        let mut child = scratch.command(&words).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let writer = std::thread::spawn(move || {
            for n in 0..60 {
                append(&path, &numbered(n * 500, (n + 1) * 500));
                if n % 2 == 1 {
                    rotate(&path);
                }
            }
        });
        for line in numbered(0, 30_000).lines() {
            assert_eq!(lines.next().unwrap().unwrap(), line, "{place}");
        }
        writer.join().unwrap();
        drop(lines);
        assert_eq!(end_of(&mut child), 0);
        std::fs::remove_dir_all(directory).unwrap();
    }
}

#[test]
fn lines_that_say_when_are_sorted_and_chosen_by_it() {
    let scratch = Scratch::new();
    log(&scratch, "a-out.log", "2026-01-01T00:00:01Z a1\n more\n2026-01-01T00:00:03.5Z a2\n");
    log(&scratch, "b-out.log", "2026-01-01 01:00:02 +01:00 b1\n2099-01-01T00:00:00Z b2\n");
    let show = |words: &[&str]| {
        let found = scratch.command(&[&["logs", "a,b"], words].concat()).output().unwrap();
        String::from_utf8(found.stdout).unwrap()
    };
    let sorted = "a | 2026-01-01T00:00:01Z a1\na |  more\nb | 2026-01-01 01:00:02 +01:00 b1\n\
                  a | 2026-01-01T00:00:03.5Z a2\nb | 2099-01-01T00:00:00Z b2\n";
    assert_eq!(show(&[]), sorted);
    assert_eq!(show(&["--since", "1h", "--raw"]), "2099-01-01T00:00:00Z b2\n");
    let json = show(&["--json", "--filter", "b2"]);
    assert_eq!(
        json,
        "{\"line\":\"2099-01-01T00:00:00Z b2\",\"service\":\"b\",\"stream\":\"out\"}\n"
    );
    let stats = show(&["--stats"]);
    assert!(stats.contains("a out: 56b, 0b/s, 0 archives ("), "{stats}");
    let found = scratch.command(&["logs", "a", "--filter", "("]).output().unwrap();
    let said = String::from_utf8(found.stderr).unwrap();
    assert_eq!(found.status.code(), Some(2));
    assert!(said.contains("--filter") && said.lines().count() == 1, "{said}");
}

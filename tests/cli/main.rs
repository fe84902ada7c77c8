//! The command as a script sees it: words in; stdout, stderr and exit code out.
#![expect(clippy::unwrap_used, reason = "a test may end where it fails")]
mod answers;
mod completions;
mod fake;
mod launch;
mod logs;
mod metrics;
mod start;

use answers::{answer, event};
use fake::{Scratch, end_of, golden, transcripts};
use opm::cli::commands::ENTRIES;
use opm::wire::{Reply, Request};
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

#[test]
fn help_is_as_written() {
    let scratch = Scratch::new();
    let mut text = transcripts(
        &scratch,
        &[
            &[],
            &["--help"],
            &["--version"],
            &["-v"],
            &["version"],
            &["help", "ls"],
            &["help", "targets"],
            &["help", "exit-codes"],
        ],
    );
    for entry in ENTRIES {
        text.push_str(&scratch.transcript(&[entry.name, "--help"]));
    }
    for word in ["start", "stop", "health", "restart", "upgrade"] {
        text.push_str(&scratch.transcript(&["daemon", word, "--help"]));
    }
    golden("help.txt", &text);
}

#[test]
fn help_explains_init_too_and_is_given_after_a_wrong_word() {
    let scratch = Scratch::new();
    let (late, help) = (scratch.run(&["signal", "web", "--help"]), scratch.run(&["signal", "-h"]));
    assert_eq!((late.out, late.code), (help.out, 0));
    let (asked, own) = (scratch.run(&["help", "init"]), scratch.run(&["init", "--help"]));
    assert_eq!((asked.code, asked.out, asked.err), (0, own.out, String::new()));
}

#[test]
fn errors_of_usage_are_one_line_and_exit_2() {
    let scratch = Scratch::new();
    let lines: &[&[&str]] = &[
        &["frobnicate"],
        &["reload"],
        &["trigger", "web"],
        &["monitor"],
        &["install", "x"],
        &["deploy", "production"],
        &["link"],
        &["serve"],
        &["strat", "web"],
        &["--frob"],
        &["start", "--frob", "x"],
        &["start"],
        &["start", "--"],
        &["start", ""],
        &["start", "--env", "X", "sleep"],
        &["start", "--restart", "maybe", "sleep"],
        &["start", "--restart", "never", "--no-autorestart", "sleep"],
        &["start", "--max-restarts", "-1", "sleep"],
        &["start", "--min-uptime", "5", "sleep"],
        &["start", "--restart-delay", "3000", "sleep"],
        &["start", "--name", "w\u{feff}eb", "sleep"],
        &["start", "node", "a.js", "--name", "x"],
        &["start", "--stop-signal", "FOO", "sleep"],
        &["start", "--name", "a/b", "sleep"],
        &["start", "--name", "a", "--name", "b", "sleep"],
        &["start", "--name"],
        &["start", "--", ""],
        &["start", "--only", "a", "sleep"],
        &["restart", "--only", "a", "web"],
        &["start", "--interpreter", "", "--name", "a", "sleep"],
        &["start", "--namespace", "", "sleep"],
        &["start", "sleep 'x"],
        &["stop"],
        &["stop", "web,,api"],
        &["stop", ""],
        &["ls", "--format", "xml"],
        &["ls", "--sort", "size"],
        &["ls", "--sort", "cpu:up"],
        &["ls", "--filter", "status"],
        &["ls", "--filter", "state=online"],
        &["completions"],
        &["completions", "csh"],
        &["metrics", "--listen", "9637"],
        &["signal", "web"],
        &["signal", "web", "NOPE"],
        &["wait", "web"],
        &["wait", "web", "--for", "gone"],
        &["logs", "web", "--lines", "x"],
        &["logs", "web", "--err", "--out"],
        &["import"],
        &["daemon"],
        &["daemon", "frob"],
        &["daemon", "stop", "--frob"],
    ];
    for words in lines {
        let ran = scratch.run(words);
        assert_eq!((ran.code, ran.out.as_str(), ran.err.lines().count()), (2, "", 1), "{words:?}");
    }
    golden("usage.txt", &transcripts(&scratch, lines));
    assert!(!scratch.home().exists(), "no error of usage makes a home or a daemon");
}

#[test]
fn with_nothing_on_record_no_daemon_is_started_and_the_answers_are_true() {
    let scratch = Scratch::new();
    let lines: &[&[&str]] = &[
        &["ls"],
        &["ls", "--format", "json"],
        &["info", "web"],
        &["info", "all", "--format", "json"],
        &["stop", "all"],
        &["stop", "web"],
        &["stop", "web", "api", "all"],
        &["restart", "all"],
        &["ls", "web"],
        &["logs"],
        &["flush"],
        &["events", "web"],
        &["start", "web", "api"],
        &["remove", "7"],
        &["start", "nope"],
        &["start", "7"],
        &["start", "api-*"],
        &["start", "nope --port 3"],
        &["start", "nope.json"],
        &["start", "--", "nope"],
        &["start", "--", "/nope"],
        &["start", "--cwd", "/nope", "sleep 1"],
        &["logs", "web"],
        &["events"],
        &["health"],
        &["daemon", "health"],
        &["daemon", "stop"],
        &["--no-daemon-start", "start", "--", "sleep", "1"],
        &["save", "--no-daemon-start"],
        &["import", "nope.json"],
    ];
    golden("nothing.txt", &transcripts(&scratch, lines));
    assert!(!scratch.home().exists());
}

#[test]
fn what_the_daemon_answers_is_said_as_written() {
    let scratch = Scratch::new();
    let _requests = scratch.daemon(answer);
    let lines: &[&[&str]] = &[
        &["ls"],
        &["list", "--no-usage"],
        &["ps", "--format", "json"],
        &["ls", "--sort", "restarts", "--filter", "status=errored,waiting"],
        &["ls", "--sort", "cpu:desc"],
        &["ls", "--filter", "ready=true"],
        &["ls", "--filter", "name=nope"],
        &["ls", "--filter", "status=online,nope"],
        &["ls", "--watch"],
        &["top"],
        &["metrics"],
        &["info", "web"],
        &["info", "all"],
        &["show", "0", "--format", "json"],
        &["info", "nope"],
        &["env", "web"],
        &["env", "web", "--format", "json"],
        &["get-command", "web"],
        &["get-command", "nope,0,web"],
        &["env", "nope,web", "--format", "json"],
        &["info", "nope,no"],
        &["start", "web"],
        &["start", "nope"],
        &["start", "web", "--name", "x"],
        &["start", "web", "--", "x"],
        &["stop", "web,nope"],
        &["stop", "web", "nope"],
        &["ls", "0", "日*", "nope", "--json"],
        &["status", "nope", "x*"],
        &["start", "nope", "no"],
        &["signal", "web", "nope", "HUP"],
        &["events", "web", "--json"],
        &["events", "nope"],
        &["kill", "nope"],
        &["restart", "web"],
        &["restart", "web", "--update-env"],
        &["start", "web", "--update-env"],
        &["rm", "web"],
        &["signal", "web", "KILL"],
        &["signal", "web", "usr1"],
        &["reset", "web"],
        &["flush", "all"],
        &["events"],
        &["events", "--format", "json"],
        &["events", "-f"],
        &["wait", "web", "--for", "online"],
        &["wait", "web", "--for", "errored", "--timeout", "1s"],
        &["save"],
        &["resurrect"],
        &["health", "web"],
        &["health"],
        &["health", "nope"],
        &["daemon", "start"],
        &["daemon", "health"],
        &["daemon", "status", "--format", "json"],
        &["daemon", "restart"],
        &["daemon", "upgrade", "/bin/true"],
        &["daemon", "upgrade", "/nope"],
        &["daemon", "kill", "--services"],
        &["doctor"],
        &["doctor", "--format", "json"],
    ];
    golden("answers.txt", &transcripts(&scratch, lines));
}

#[test]
fn a_process_file_with_an_error_reaches_no_daemon() {
    let scratch = Scratch::new();
    scratch.write("work/bad.json", r#"{"services": [{"name": "a", "command": "x", "cwd": 3}]}"#);
    scratch
        .write("work/gone.json", r#"{"services": [{"name": "a", "command": "x", "cwd": "no"}]}"#);
    let twice = r#"{"services": [{"command": "true", "cwd": ".", "cwd": "/"}]}"#;
    scratch.write("work/twice.json", twice);
    let safe = r#"{"services": [{"name": "a", "command": "true", "cpu_max": 50}]}"#;
    scratch.write("work/safe.json", safe);
    let program = r#"{"services": [{"command": "true"}, {"name": "b", "command": "nope"}]}"#;
    scratch.write("work/program.json", program);
    scratch.write("work/pm2.json", r#"{"apps": []}"#);
    scratch.write("work/empty.json", r#"{"services": [], "x": 1}"#);
    scratch.write("work/not.json", "nonsense");
    let lines: &[&[&str]] = &[
        &["import", "bad.json"],
        &["start", "bad.json"],
        &["start", "bad.json", "--name", "x"],
        &["import", "gone.json"],
        &["import", "twice.json"],
        &["import", "safe.json"],
        &["import", "program.json"],
        &["start", "empty.json", "--update-env"],
        &["run", "empty.json", "--restart", "never"],
        &["import", "pm2.json"],
        &["import", "empty.json"],
        &["import", "not.json"],
        &["import", "."],
        &["import", "-"],
    ];
    golden("import.txt", &transcripts(&scratch, lines));
    assert!(!scratch.home().exists());
}

#[test]
fn a_reader_that_has_gone_ends_a_command_quietly() {
    let scratch = Scratch::new();
    let _requests = scratch.daemon(answer);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child = scratch.command(&["ls"]).stdout(writer).spawn().unwrap();
    let mut err = child.stderr.take().unwrap();
    assert_eq!(end_of(&mut child), 0);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut err, &mut text).unwrap();
    assert_eq!(text, "");
}

#[test]
fn a_full_disk_is_an_error() {
    let scratch = Scratch::new();
    let _requests = scratch.daemon(answer);
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = scratch.command(&["ls"]).stdout(full).output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(err, "opm: cannot write to stdout: No space left on device\n");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_daemon_that_leaves_or_babbles_is_exit_4() {
    let scratch = Scratch::new();
    let _requests = scratch.daemon(|request| match request {
        Request::Health => vec![Reply::List(vec![])],
        _ => vec![],
    });
    for words in [&["ls"][..], &["stop", "web"], &["daemon", "health"]] {
        let ran = scratch.run(words);
        assert_eq!((ran.code, ran.err.lines().count()), (4, 1), "{words:?} {}", ran.err);
    }
}

#[test]
fn a_home_that_cannot_be_is_exit_4() {
    let scratch = Scratch::new();
    scratch.write("file", "");
    let mut command = scratch.command(&["start", "--", "sleep", "1"]);
    let output = command.env("OPM_HOME", scratch.root.join("file/home")).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(String::from_utf8(output.stderr).unwrap().ends_with(": Not a directory\n"));
}

#[test]
fn a_home_with_a_long_path_is_reached() {
    let scratch = Scratch::new();
    let long = scratch.root.join("x".repeat(120));
    std::fs::create_dir(&long).unwrap();
    let _requests = scratch.daemon(answer);
    std::fs::rename(scratch.home(), long.join("home")).unwrap();
    let mut command = scratch.command(&["stop", "web"]);
    let output = command.env("OPM_HOME", long.join("home")).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "web: done\n");
}

#[test]
fn events_end_when_the_reader_leaves_though_nothing_happens() {
    let scratch = Scratch::new();
    std::fs::create_dir(scratch.home()).unwrap();
    let socket = scratch.home().join("opm.sock");
    let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    let mut child = scratch.command(&["events", "-f"]).stdin(Stdio::null()).spawn().unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let frame = opm::wire::frame::encode(&Reply::Event(event("ready"))).unwrap();
    stream.write_all(&frame).unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("ready"));
    drop(lines);
    assert_eq!(end_of(&mut child), 0);
}

#[test]
fn daemon_stop_returns_when_the_daemon_has_let_go_of_the_lock() {
    use rustix::fs::{FlockOperation, flock};
    let scratch = Scratch::new();
    std::fs::create_dir(scratch.home()).unwrap();
    let lock = std::fs::File::create(scratch.home().join("lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let (ask, asked) = std::sync::mpsc::channel();
    let _requests = scratch.daemon(move |request| {
        ask.send(()).unwrap();
        answer(request)
    });
    let mut child = scratch.command(&["daemon", "stop"]).spawn().unwrap();
    asked.recv().unwrap();
    // Time in which a command that doesn't look at the lock would have ended.
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(child.try_wait().unwrap().is_none());
    drop(lock);
    assert_eq!(end_of(&mut child), 0);
}

#[test]
fn a_request_that_a_leaving_daemon_did_not_read_is_for_the_next_one() {
    use rustix::event::{PollFd, PollFlags, poll};
    let scratch = Scratch::new();
    let leaving = scratch.listen("opm.sock");
    let mut child = scratch.command(&["stop", "web"]).spawn().unwrap();
    poll(&mut [PollFd::new(&leaving, PollFlags::IN)], None).unwrap();
    let requests = fake::serve(scratch.listen("new.sock"), answer);
    let socket = scratch.home().join("opm.sock");
    std::fs::rename(scratch.home().join("new.sock"), socket).unwrap();
    drop(leaving);
    assert_eq!(end_of(&mut child), 0);
    assert!(matches!(requests.recv().unwrap(), Request::Stop { target, .. } if target == "web"));
}

//! The command as a script sees it: words in; stdout, stderr and exit code out.
mod fake;
mod launch;

use fake::{Scratch, end_of, golden};
use opm::cli::args::ENTRIES;
use opm::service::signal::Signal;
use opm::service::spec::{Policy, Restart, Spec};
use opm::service::text::Delay;
use opm::wire::{
    Event, Finding, Health, Identity, Info, LastExit, LogFiles, Outcome, Reply, Request, Row,
    Status, Until,
};
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

fn row(id: u32, name: &str, status: Status) -> Row {
    let up = status == Status::Online;
    Row {
        id,
        name: name.into(),
        pid: up.then_some(4242),
        uptime_ms: up.then_some(93_784_000),
        restarts: 3,
        status,
        cpu_percent: up.then_some(12.34),
        memory_bytes: up.then_some(52_428_800),
        watching: false,
        processes: up.then_some(2),
        generation: 17,
        adopted: false,
        command: "node server.js".into(),
        cwd: "/srv/app".into(),
    }
}

fn rows() -> Vec<Row> {
    vec![
        row(0, "web", Status::Online),
        row(1, "a-name-that-is-rather-long-for-a-table", Status::Waiting),
        row(10, "日本", Status::Errored),
    ]
}

fn info(row: Row) -> Info {
    let up = row.status == Status::Online;
    Info {
        pids: if up { vec![4242, 4243] } else { vec![] },
        started_at: up.then(|| "2026-01-02T03:04:05.006Z".into()),
        last_exit: Some(LastExit {
            code: None,
            signal: Some("KILL".into()),
            at: Some("2026-01-02T03:04:04.000Z".into()),
        }),
        ready: up,
        pattern: "server.js".into(),
        policy: Policy::default(),
        log_out: "/home/u/.opm/logs/web-out.log".into(),
        log_error: "/home/u/.opm/logs/web-error.log".into(),
        identity: up.then(|| Identity {
            boot_id: "b".into(),
            pid_namespace: 1,
            pid: 4242,
            start_time: Some(99),
            pidfd_inode: Some(7),
        }),
        failed_restarts: 1,
        last_restart_at: None,
        env_keys: vec!["PATH".into(), "SECRET".into()],
        cgroup: None,
        note: (!up).then(|| "too many quick deaths".into()),
        row,
    }
}

fn event(event: &str) -> Event {
    Event {
        at: "2026-01-02T03:04:05.006Z".into(),
        event: event.into(),
        service: "web".into(),
        id: 0,
        generation: 17,
        pid: Some(4242),
        code: (event == "exited").then_some(1),
        signal: None,
        reason: None,
    }
}

fn outcome(code: u8, text: &str) -> Outcome {
    Outcome {
        code,
        text: text.into(),
        warnings: vec![],
    }
}

fn done(outcomes: Vec<Outcome>) -> Vec<Reply> {
    vec![Reply::Outcomes {
        outcomes,
        summary: None,
    }]
}

fn no_such(target: &str) -> Vec<Reply> {
    done(vec![outcome(
        3,
        &format!("no such service: {target} (try 'opm ls')"),
    )])
}

/// Answers every request about `web` well, and knows no other service.
fn answer(request: &Request) -> Vec<Reply> {
    let target = match request {
        Request::Start { target, .. }
        | Request::Stop { target }
        | Request::Restart { target }
        | Request::Remove { target }
        | Request::Signal { target, .. }
        | Request::Reset { target }
        | Request::Info { target }
        | Request::Env { target }
        | Request::Logs { target }
        | Request::Flush { target }
        | Request::Wait { target, .. } => target.as_str(),
        _ => "web",
    };
    if !matches!(target, "web" | "0" | "all" | "web,nope") {
        return no_such(target);
    }
    match request {
        Request::Stop { .. } if target == "web,nope" => done(vec![
            outcome(0, "web: stopped"),
            outcome(3, "no such service: nope (try 'opm ls')"),
        ]),
        Request::Wait {
            until: Until::Errored,
            ..
        } => done(vec![outcome(6, "web: still online after 1s")]),
        Request::Wait { .. } => done(vec![outcome(0, "web: online")]),
        Request::Signal { signal: 9, .. } => done(vec![Outcome {
            warnings: vec!["it dies".into()],
            ..outcome(0, "web: sent KILL")
        }]),
        Request::List { usage } => vec![Reply::List(
            rows()
                .into_iter()
                .map(|row| Row {
                    cpu_percent: row.cpu_percent.filter(|_| *usage),
                    memory_bytes: row.memory_bytes.filter(|_| *usage),
                    ..row
                })
                .collect(),
        )],
        Request::Info { .. } if target == "all" => {
            vec![Reply::Info(rows().into_iter().map(info).collect())]
        }
        Request::Info { .. } => vec![Reply::Info(vec![info(row(0, "web", Status::Online))])],
        Request::Env { .. } => {
            let env = [("PATH", "/bin"), ("SECRET", "two\nlines")];
            let env = env.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec();
            vec![Reply::Env(vec![("web".into(), env)])]
        }
        Request::Events { follow: false } => {
            vec![Reply::Events(vec![event("exited"), event("drained")])]
        }
        Request::Events { follow: true } => {
            vec![
                Reply::Event(event("exited")),
                Reply::Event(event("drained")),
            ]
        }
        Request::Health => vec![Reply::Health(Health {
            pid: 77,
            uptime_ms: 61_000,
            memory_bytes: 3 << 20,
            services: 3,
            online: 1,
            version: "0.1.0".into(),
            home: "/home/u/.opm".into(),
        })],
        Request::Doctor => vec![Reply::Doctor(vec![
            Finding {
                level: "ok".into(),
                subject: "pidfd".into(),
                text: "inodes are unique".into(),
                advice: String::new(),
            },
            Finding {
                level: "problem".into(),
                subject: "/proc".into(),
                text: "hidepid is set".into(),
                advice: "mount it with hidepid=0".into(),
            },
        ])],
        Request::Restore { .. } => vec![Reply::Outcomes {
            outcomes: vec![outcome(0, "web: already running (pid 4242)")],
            summary: Some("restored 1: 1 already running, 0 started".into()),
        }],
        Request::Leave { .. } => done(vec![outcome(0, "daemon: stopped; 1 service keeps running")]),
        Request::Upgrade { binary: Some(_) } => {
            vec![Reply::Failed {
                code: 1,
                text: "daemon: that is no opm".into(),
            }]
        }
        Request::Upgrade { binary: None } => vec![],
        Request::Save => done(vec![outcome(0, "saved 3 services")]),
        _ => done(vec![outcome(0, &format!("{target}: done"))]),
    }
}

fn transcripts(scratch: &Scratch, lines: &[&[&str]]) -> String {
    lines
        .iter()
        .map(|words| scratch.transcript(words))
        .collect()
}

#[test]
fn help_is_as_written() {
    let scratch = Scratch::new();
    let mut text = transcripts(&scratch, &[&["--help"], &["--version"], &["help", "ls"]]);
    for entry in ENTRIES {
        text.push_str(&scratch.transcript(&[entry.name, "--help"]));
    }
    for word in ["start", "stop", "health", "restart", "upgrade"] {
        text.push_str(&scratch.transcript(&["daemon", word, "--help"]));
    }
    golden("help.txt", &text);
}

#[test]
fn errors_of_usage_are_one_line_and_exit_2() {
    let scratch = Scratch::new();
    let lines: &[&[&str]] = &[
        &[],
        &["frobnicate"],
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
        &["start", "--stop-signal", "FOO", "sleep"],
        &["start", "--name", "a/b", "sleep"],
        &["start", "--name", "a", "--name", "b", "sleep"],
        &["start", "--name"],
        &["start", "--", ""],
        &["start", "sleep 'x"],
        &["stop"],
        &["stop", "web", "api"],
        &["stop", "web,,api"],
        &["stop", ""],
        &["ls", "--format", "xml"],
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
        assert_eq!(
            (ran.code, ran.out.as_str(), ran.err.lines().count()),
            (2, "", 1),
            "{words:?}"
        );
    }
    golden("usage.txt", &transcripts(&scratch, lines));
    assert!(
        !scratch.home().exists(),
        "no error of usage makes a home or a daemon"
    );
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
        &["info", "web"],
        &["info", "all"],
        &["show", "0", "--format", "json"],
        &["info", "nope"],
        &["env", "web"],
        &["env", "web", "--format", "json"],
        &["get-command", "web"],
        &["start", "web"],
        &["start", "nope"],
        &["start", "web", "--name", "x"],
        &["start", "web", "--", "x"],
        &["stop", "web,nope"],
        &["kill", "nope"],
        &["restart", "web"],
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

fn defined(scratch: &Scratch, words: &[&str]) -> (Vec<Spec>, Vec<(String, String)>, bool) {
    let requests = scratch.daemon(|request| match request {
        Request::Define { .. } => done(vec![outcome(0, "web: online (pid 1)")]),
        _ => no_such("x"),
    });
    let ran = scratch.run(words);
    assert_eq!(
        (ran.code, ran.out.as_str(), ran.err.as_str()),
        (0, "web: online (pid 1)\n", "")
    );
    std::fs::remove_file(scratch.home().join("opm.sock")).unwrap();
    loop {
        if let Request::Define {
            specs, base, keep, ..
        } = requests.recv().unwrap()
        {
            return (specs, base, keep);
        }
    }
}

#[test]
fn every_option_of_start_reaches_the_daemon() {
    let scratch = Scratch::new();
    scratch.write("work/sub/.env", "A=file\nB=\"b c\"\n");
    let words = [
        "start",
        "-n",
        "web",
        "--cwd",
        "sub",
        "--env",
        "A=hand",
        "--env",
        "C=",
        "--restart",
        "on-failure",
        "--max-restarts",
        "3",
        "--min-uptime",
        "1s",
        "--restart-delay",
        "1s..1m",
        "--stop-signal",
        "int",
        "--stop-timeout",
        "250ms",
        "--",
        "sh",
        "-c",
        "exit $A",
    ];
    let (specs, base, keep) = defined(&scratch, &words);
    let spec = &specs[0];
    assert_eq!((spec.name.as_str(), keep), ("web", false));
    assert_eq!(spec.command, ["sh", "-c", "exit $A"]);
    assert_eq!(spec.cwd, scratch.work().join("sub").to_str().unwrap());
    let env = [("B", "b c"), ("A", "hand"), ("C", "")];
    assert_eq!(spec.env, env.map(|(k, v)| (k.to_owned(), v.to_owned())));
    let policy = Policy {
        restart: Restart::OnFailure,
        max_restarts: 3,
        min_uptime: 1_000,
        restart_delay: Delay {
            min_ms: 1_000,
            max_ms: 60_000,
        },
        stop_signal: Signal::INT,
        stop_timeout: 250,
    };
    assert_eq!(spec.policy, policy);
    assert_eq!(
        base,
        [("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
        "no OPM_*"
    );
}

#[test]
fn what_names_no_service_is_a_script_a_program_or_a_line() {
    let scratch = Scratch::new();
    scratch.write("work/job.sh", "#!/bin/bash\n");
    for (words, command, name) in [
        (&["start", "job.sh"][..], &["bash", "job.sh"][..], "job"),
        (
            &["start", "job.sh", "--", "-x", "y"],
            &["bash", "job.sh", "-x", "y"],
            "job",
        ),
        (&["start", "sleep"], &["sleep"], "sleep"),
        (&["start", "sleep '1 2'"], &["sleep", "1 2"], "sleep"),
        (
            &["start", "-n", "w", "sleep 1; true"],
            &["/bin/sh", "-c", "sleep 1; true"],
            "w",
        ),
        (
            &["start", "--no-autorestart", "--", "sleep", "a b"],
            &["sleep", "a b"],
            "sleep",
        ),
    ] {
        let (specs, _, keep) = defined(&scratch, words);
        assert_eq!(
            (&specs[0].command[..], keep),
            (
                &command.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>()[..],
                false
            )
        );
        assert_eq!(specs[0].name, name);
        let never = words.contains(&"--no-autorestart");
        assert_eq!(specs[0].policy.restart == Restart::Never, never);
    }
}

#[test]
fn a_process_file_is_imported_whole_by_start_and_by_import() {
    let scratch = Scratch::new();
    let text = r#"{"services": [{"name": "a", "command": "sleep 1", "cwd": "."},
        {"name": "b", "command": ["sleep", "2"], "env": {"N": 1}}]}"#;
    scratch.write("work/conf/web.json", text);
    for words in [&["start", "conf/web.json"][..], &["add", "conf/web.json"]] {
        let (specs, _, keep) = defined(&scratch, words);
        assert!(keep);
        let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert!(
            specs
                .iter()
                .all(|spec| spec.cwd == scratch.work().join("conf").to_str().unwrap())
        );
        assert_eq!(specs[1].env, [("N".to_owned(), "1".to_owned())]);
    }
}

#[test]
fn a_process_file_with_an_error_reaches_no_daemon() {
    let scratch = Scratch::new();
    scratch.write(
        "work/bad.json",
        r#"{"services": [{"name": "a", "command": "x", "cwd": 3}]}"#,
    );
    scratch.write(
        "work/gone.json",
        r#"{"services": [{"name": "a", "command": "x", "cwd": "no"}]}"#,
    );
    scratch.write("work/pm2.json", r#"{"apps": []}"#);
    scratch.write("work/empty.json", r#"{"services": [], "x": 1}"#);
    scratch.write("work/not.json", "nonsense");
    let lines: &[&[&str]] = &[
        &["import", "bad.json"],
        &["start", "bad.json"],
        &["start", "bad.json", "--name", "x"],
        &["import", "gone.json"],
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
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let output = scratch.command(&["ls"]).stdout(full).output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        err,
        "opm: cannot write to stdout: No space left on device\n"
    );
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
        assert_eq!(
            (ran.code, ran.err.lines().count()),
            (4, 1),
            "{words:?} {}",
            ran.err
        );
    }
}

#[test]
fn a_home_that_cannot_be_is_exit_4() {
    let scratch = Scratch::new();
    scratch.write("file", "");
    let mut command = scratch.command(&["start", "--", "sleep", "1"]);
    let output = command
        .env("OPM_HOME", scratch.root.join("file/home"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .ends_with(": Not a directory\n")
    );
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
        out: path.to_str().unwrap().into(),
        error: path
            .with_file_name("web-error.log")
            .to_str()
            .unwrap()
            .into(),
    };
    let _requests = scratch.daemon(move |_| vec![Reply::Logs(vec![files.clone()])]);
    let mut child = scratch.command(&["logs", "web", "-f"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert!(next().starts_with("==> web out ("));
    assert_eq!(next(), "old");
    let write = |text: &str| {
        let mut file = std::fs::File::options()
            .append(true)
            .create(true)
            .open(&path)
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    write("new");
    write("er\n");
    assert_eq!(next(), "web | newer");
    std::fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(0)
        .unwrap();
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

#[test]
fn events_end_when_the_reader_leaves_though_nothing_happens() {
    let scratch = Scratch::new();
    std::fs::create_dir(scratch.home()).unwrap();
    let socket = scratch.home().join("opm.sock");
    let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    let mut child = scratch
        .command(&["events", "-f"])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let frame = opm::wire::frame::encode(&Reply::Event(event("ready"))).unwrap();
    stream.write_all(&frame).unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("ready"));
    drop(lines);
    assert_eq!(end_of(&mut child), 0);
}

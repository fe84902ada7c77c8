//! When a run ends, and with which code.
use crate::rig::{As, BOTH, Scratch};
use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

const FOREVER: &str = r#"{"name": "ever", "command": ["sleep", "1000"]}"#;

fn code_of(how: As, services: &str) -> i32 {
    let scratch = Scratch::new();
    let file = scratch.file(services);
    let code = scratch.run(how, &[&file]).end();
    println!("{}", scratch.read("err"));
    code
}

fn service(name: &str, script: &str, rest: &str) -> String {
    format!(r#"{{"name": "{name}", "command": ["sh", "-c", "{script}"], {rest}}}"#)
}

#[test]
fn a_critical_service_ends_all_with_its_code() {
    for how in BOTH {
        for (script, restart, code) in [
            ("exit 7", "never", 7),
            ("exit 0", "on-failure", 0),
            ("kill -9 $$", "never", 137),
            ("kill -34 $$", "never", 162),
        ] {
            let rest = format!(r#""critical": true, "restart": "{restart}""#);
            let services = format!("{FOREVER}, {}", service("c", script, &rest));
            assert_eq!(code_of(how, &services), code, "{how:?} {script}");
        }
    }
}

#[test]
fn a_critical_service_that_is_errored_ends_all_with_its_last_code() {
    let rest = r#""critical": true, "max_restarts": 1, "restart_delay": "10ms""#;
    let services = format!("{FOREVER}, {}", service("c", "exit 9", rest));
    assert_eq!(code_of(As::First, &services), 9);
    let services = format!("{FOREVER}, {}", service("c", "exit 0", rest));
    assert_eq!(code_of(As::First, &services), 1, "0 would say that all is well");
}

#[test]
fn a_critical_program_that_cannot_be_started_is_127_or_126() {
    for (program, code) in [("/nope", 127), ("/etc/passwd", 126)] {
        let services =
            format!(r#"{FOREVER}, {{"name": "c", "command": ["{program}"], "critical": true}}"#);
        assert_eq!(code_of(As::Plain, &services), code);
    }
}

#[test]
fn the_worst_code_when_all_have_ended() {
    let never = r#""restart": "never""#;
    let services = [("a", "exit 3"), ("b", "exit 5"), ("c", "exit 0")]
        .map(|(name, script)| service(name, script, never))
        .join(", ");
    for how in BOTH {
        assert_eq!(code_of(how, &services), 5);
    }
    assert_eq!(code_of(As::First, &service("a", "exit 0", never)), 0);
}

#[test]
fn a_critical_oneshot_that_succeeds_ends_nothing() {
    let scratch = Scratch::new();
    let once = service("once", "exit 0", r#""critical": true, "restart": "never""#);
    let file = scratch.file(&format!("{FOREVER}, {once}"));
    let mut run = scratch.run(As::First, &[&file]);
    scratch.expect("err", "once: ended for good, exit code 0");
    run.online(1);
    run.signal(libc::SIGTERM);
    assert_eq!(run.end(), 0);
}

#[test]
fn a_stop_that_all_obey_is_0() {
    for how in BOTH {
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT] {
            let scratch = Scratch::new();
            let deep = "(sleep 1000 & sleep 1000 & wait) & setsid sleep 1000 & wait";
            let file = scratch.file(&format!("{FOREVER}, {}", service("d", deep, r#""env": {}"#)));
            let mut run = scratch.run(how, &[&file]);
            run.online(2);
            run.signal(signal);
            assert_eq!(run.end(), 0, "{how:?} {signal} {}", scratch.read("err"));
        }
    }
}

#[test]
fn the_stubborn_is_killed_within_the_time_and_that_is_137() {
    for how in BOTH {
        let scratch = Scratch::new();
        let script = "trap '' TERM; echo up; while :; do sleep 1000; done";
        let file = scratch.file(&service("s", script, r#""stop_timeout": "1h""#));
        let mut run = scratch.run(how, &["--prefix", "name", "--stop-timeout", "2s", &file]);
        scratch.expect("out", "s | up");
        let began = Instant::now();
        run.signal(libc::SIGTERM);
        assert_eq!(run.end(), 137);
        let took = began.elapsed();
        assert!(took < Duration::from_secs(2), "{how:?} took {took:?}");
        assert!(took > Duration::from_secs(1), "{how:?} took {took:?}: it had no time to obey");
        let err = scratch.read("err");
        assert!(err.lines().any(|line| line.starts_with("opm: s: killed after 1")), "{err}");
    }
}

/// The worker is an orphan before it has saved: its shell dies of the signal at once.
#[test]
fn a_worker_behind_a_shell_is_asked_once() {
    let worker = "trap 'echo term; asked=1' TERM; echo up\n\
                  while [ -z \"$asked\" ]; do sleep 0.02; done\n\
                  for i in 1 2 3 4 5 6 7 8 9; do sleep 0.05; done; echo saved\n";
    for how in BOTH {
        let scratch = Scratch::new();
        std::fs::write(scratch.path("worker.sh"), worker).unwrap();
        let file = scratch.file(&service("w", "sh DIR/worker.sh; true", r#""env": {}"#));
        let mut run = scratch.run(how, &["--prefix=name", &file]);
        scratch.expect("out", "w | up");
        run.signal(libc::SIGTERM);
        assert_eq!(run.end(), 0, "{how:?}");
        let out = scratch.read("out");
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines, ["w | up", "w | term", "w | saved"], "{how:?}");
    }
}

#[test]
fn a_stop_that_may_take_for_ever_is_a_stop() {
    let scratch = Scratch::new();
    let script = "trap 'echo obeyed; exit 0' TERM; echo up; while :; do sleep 0.1; done";
    let file = scratch.file(&service("s", script, r#""stop_timeout": "1h""#));
    let forever = "--stop-timeout=18446744073709551615ms";
    let mut run = scratch.run(As::First, &["--prefix=name", forever, &file]);
    scratch.expect("out", "s | up");
    run.signal(libc::SIGTERM);
    scratch.expect("out", "s | obeyed");
    run.end();
    assert!(!scratch.read("err").contains("panicked"));
}

#[test]
fn an_interrupt_that_is_repeated_kills_at_once() {
    let scratch = Scratch::new();
    // Short: a shell that has just forked it loses the signal, which comes to it before its exec.
    let script = "trap 'echo heard' TERM INT; echo up; while :; do sleep 0.1; done";
    let file = scratch.file(&service("s", script, r#""stop_timeout": "1h""#));
    let mut run = scratch.run(As::First, &["--prefix=name", "--stop-timeout=1h", &file]);
    scratch.expect("out", "s | up");
    run.signal(libc::SIGINT);
    scratch.expect("out", "s | heard");
    run.signal(libc::SIGINT);
    assert_eq!(run.end(), 137);
}

#[test]
fn one_command_can_be_given_a_name_a_policy_and_variables() {
    for how in BOTH {
        let scratch = Scratch::new();
        let words = "--restart never -n job --env CODE=3 --env=CODE=42 -- sh -c";
        let mut words: Vec<&str> = words.split(' ').collect();
        words.push("echo $OPM_NAME; exit $CODE");
        let mut run = scratch.run(how, &words);
        assert_eq!((run.end(), scratch.read("out").as_str()), (42, "job\n"));
    }
}

#[test]
fn what_an_operator_stops_ends_nothing() {
    for how in BOTH {
        let scratch = Scratch::new();
        let file =
            scratch.file(&format!("{FOREVER}, {}", service("o", "sleep 1000", r#""env": {}"#)));
        let mut run = scratch.run(how, &[&file]);
        run.online(2);
        assert_eq!(run.beside(&["stop", "all"]).2, 0);
        run.online(0);
        assert_eq!(run.beside(&["start", "ever"]).2, 0);
        run.online(1);
        run.signal(libc::SIGTERM);
        assert_eq!(run.end(), 0);
    }
}

#[test]
fn daemon_stop_as_pid_1_stops_the_services_first() {
    let scratch = Scratch::new();
    let script = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done";
    let file = scratch.file(&service("s", script, r#""env": {}"#));
    let mut run = scratch.run(As::First, &["--prefix=name", &file]);
    scratch.expect("out", "s | up");
    // It ends with its PID namespace, maybe before it can say anything.
    run.beside(&["daemon", "stop"]);
    assert_eq!(run.end(), 0);
    assert!(scratch.read("out").contains("s | bye"));
}

#[test]
fn the_file_counts_when_a_run_begins_on_a_home_with_services() {
    let scratch = Scratch::new();
    let both = |env: u32| {
        let lock =
            format!("exec 9>>DIR/lock; flock -n 9 || echo clash >>DIR/clash; exec sleep 1{env}00");
        format!("{FOREVER}, {}", service("changes", &lock, &format!(r#""env": {{"N": {env}}}"#)))
    };
    let mut run = scratch.run(As::Plain, &[&scratch.file(&both(1))]);
    let before = run.online(2);
    run.signal(libc::SIGKILL);
    assert_eq!(run.end(), 137);
    let mut run = scratch.run(As::Plain, &[&scratch.file(&both(2))]);
    let after = run.when("the new definition", |list| {
        let changed = list.iter().find(|row| row["name"] == "changes");
        changed.is_some_and(|row| {
            row["status"] == "online" && row["command"].as_str().unwrap().contains("1200")
        })
    });
    let pid = |list: &[serde_json::Value], name: &str| {
        list.iter().find(|row| row["name"] == name).unwrap()["pid"].clone()
    };
    assert_eq!(pid(&before, "ever"), pid(&after, "ever"), "it was not touched");
    assert_ne!(pid(&before, "changes"), pid(&after, "changes"));
    assert_eq!(scratch.read("clash"), "", "never two at once");
    run.signal(libc::SIGTERM);
    assert_eq!(run.end(), 0);
}

#[test]
fn a_home_that_is_served_already_is_an_error() {
    let scratch = Scratch::new();
    let file = scratch.file(FOREVER);
    let run = scratch.run(As::Plain, &[&file]);
    run.online(1);
    let second = scratch.command(As::Plain, &[&file]).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let err = String::from_utf8(second.stderr).unwrap();
    assert!(err.starts_with("opm: a daemon serves") && err.lines().count() == 1, "{err}");
    run.online(1);
}

#[test]
fn a_run_that_waits_for_its_home_can_be_told_to_end() {
    let scratch = Scratch::new();
    let file = scratch.file(FOREVER);
    std::fs::create_dir(scratch.path("home")).unwrap();
    let lock = std::fs::File::create(scratch.path("home/lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    for how in BOTH {
        let mut run = scratch.run(how, &[&file]);
        scratch.expect("err", "waiting for pid");
        run.signal(15);
        assert_eq!(run.end(), 4, "{how:?}");
        let err = scratch.read("err");
        assert!(err.trim_end().ends_with("home/lock"), "{err}");
        std::fs::remove_file(scratch.path("err")).unwrap();
    }
}

#[test]
fn a_home_that_another_container_serves_is_an_error() {
    let scratch = Scratch::new();
    let file = scratch.file(FOREVER);
    let run = scratch.run(As::First, &[&file]);
    run.online(1);
    // Seen from in there, both come from outside.
    for how in BOTH {
        let mut command = scratch.command(how, &[&file]);
        command.stderr(Stdio::piped());
        let mut second = scratch.start(how, command);
        assert_eq!(second.end(), 1);
        let mut err = String::new();
        let mut pipe = second.child.stderr.take().unwrap();
        pipe.read_to_string(&mut err).unwrap();
        assert!(err.starts_with("opm: a daemon serves"), "{err}");
    }
    run.online(1);
}

#[test]
fn a_command_in_a_container_finds_the_daemon_outside() {
    let scratch = Scratch::new();
    let file = scratch.file(FOREVER);
    let run = scratch.run(As::Plain, &[&file]);
    run.online(1);
    let opm = crate::rig::OPM;
    let output = std::process::Command::new("unshare")
        .args(["-pf", "--mount-proc", opm, "--no-daemon-start", "ls"])
        .env("OPM_HOME", scratch.path("home"))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("ever"), "{said}");
}

#[test]
fn without_proc_it_says_so_and_exits_4() {
    let scratch = Scratch::new();
    let file = scratch.file(FOREVER);
    let script = format!("mount -t tmpfs none /proc && exec {} run {file}", crate::rig::OPM);
    let mut command = std::process::Command::new("unshare");
    command.args(["-pfm", "--kill-child", "sh", "-c", &script]);
    let output = command.env("OPM_HOME", scratch.path("home")).output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(4), "{err}");
    assert_eq!(err.lines().count(), 1, "{err}");
    assert!(err.contains("/proc"), "{err}");
}

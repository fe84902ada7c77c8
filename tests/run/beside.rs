//! What a run says of its services, and what other commands see of it.
use crate::rig::{As, BOTH, OPM, Scratch, eventually, signal};
use std::process::Command;

const SLEEPER: &str = r#"{"name": "web", "command": ["sleep", "1000"], "min_uptime": "0s"}"#;

fn pid_of(list: &[serde_json::Value], name: &str) -> i32 {
    let row = list.iter().find(|row| row["name"] == name).unwrap();
    i32::try_from(row["pid"].as_i64().unwrap()).unwrap()
}

#[test]
fn each_exit_restart_and_kill_is_a_line_on_stderr() {
    let scratch = Scratch::new();
    let services = format!(
        r#"{SLEEPER},
        {{"name": "poor", "command": ["sh", "-c", "exit 3"], "restart_delay": "1h"}},
        {{"name": "deaf", "stop_timeout": "100ms",
          "command": ["sh", "-c", "trap '' TERM; echo set; while :; do sleep 1; done"]}}"#
    );
    let mut run = scratch.run(As::Plain, &[&scratch.file(&services)]);
    scratch.expect("out", "set");
    scratch.expect("err", "opm: poor: exited with code 3, restarting in ");
    signal(pid_of(&run.online(2), "web"), libc::SIGKILL);
    scratch.expect("err", "opm: web: exited with signal KILL");
    scratch.expect("err", "restarted (pid ");
    run.signal(libc::SIGTERM);
    assert_eq!(run.end(), 137);
    let err = scratch.read("err");
    let killed = err.matches("opm: deaf: did not end in time, killing it\n").count();
    assert_eq!(killed, 1, "{err}");
    assert!(err.contains("opm: deaf: exited with signal KILL\n"), "{err}");
    assert_eq!(err.matches("opm: signal TERM: stopping all\n").count(), 1, "{err}");
}

#[test]
fn a_quiet_run_says_nothing_of_exits_and_ends() {
    let scratch = Scratch::new();
    let once = r#"{"name": "once", "command": ["sh", "-c", "exit 3"], "restart": "never"}"#;
    let mut run = scratch.run(As::Plain, &["--quiet", &scratch.file(once)]);
    assert_eq!(run.end(), 3);
    assert_eq!(scratch.read("err"), "");
}

#[test]
fn what_was_due_when_a_run_begins_again_writes_to_its_output() {
    let scratch = Scratch::new();
    let service = |name: &str| {
        let script = format!("echo {name} lives; exec sleep 1000");
        format!(r#"{{"name": "{name}", "command": ["sh", "-c", "{script}"], "min_uptime": "0s"}}"#)
    };
    let file = scratch.file(&format!("{}, {}", service("p"), service("q")));
    let mut first = scratch.run(As::Plain, &[&file]);
    scratch.expect("out", "q | q lives");
    let pid = pid_of(&first.online(2), "p");
    // The run dies, then a service of it.
    first.signal(libc::SIGKILL);
    first.end();
    signal(pid, libc::SIGKILL);
    std::fs::remove_file(scratch.dir.join("out")).unwrap();
    let mut second = scratch.run(As::Plain, &[&file]);
    scratch.expect("out", "p | p lives");
    assert!(!scratch.dir.join("home/logs/p-out.log").exists());
    second.signal(libc::SIGTERM);
    assert_eq!(second.end(), 0);
}

#[test]
fn commands_beside_a_run_know_where_its_output_is_and_what_is_done() {
    for how in BOTH {
        let scratch = Scratch::new();
        let once = r#"{"name": "once", "command": ["true"], "restart": "never", "critical": true}"#;
        let mut run = scratch.run(how, &[&scratch.file(&format!("{SLEEPER}, {once}"))]);
        run.when("once to be done beside the other", |list| {
            ["stopped", "online"].iter().all(|word| list.iter().any(|row| row["status"] == *word))
        });
        let (out, err, code) = run.beside(&["health"]);
        assert_eq!(code, 0, "{out}{err}");
        let (out, err, code) = run.beside(&["logs", "-f"]);
        assert_eq!((out.as_str(), code, err.lines().count()), ("", 0, 2));
        assert!(err.contains("opm: web: its output is that of opm run"), "{err}");
        let (out, ..) = run.beside(&["info", "web", "--json"]);
        let info: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert!(info[0]["log_out"].is_null(), "{out}");
        run.signal(libc::SIGTERM);
        assert_eq!(run.end(), 0);
    }
}

/// The entry point of a container sets the home and the user; who comes in later knows neither.
#[test]
fn the_run_that_is_pid_1_is_found_whatever_its_home_and_user() {
    for user in ["0", "65534"] {
        let scratch = Scratch::new();
        let home = scratch.path("of/its/own");
        std::fs::create_dir_all(&home).unwrap();
        let owner = user.parse().unwrap();
        std::os::unix::fs::chown(&home, Some(owner), Some(owner)).unwrap();
        let script = format!(
            "mount -t proc proc /proc; export OPM_HOME={home}; exec setpriv --reuid={user} \
             --clear-groups {OPM} run -- sleep 1000"
        );
        let mut command = Command::new("unshare");
        command.args(["-pfm", "--kill-child", "sh", "-c", &script]).env_remove("OPM_HOME");
        let mut run = scratch.start(As::First, command);
        let target = run.opm.to_string();
        let beside = |user: &str| {
            let mut enter = Command::new("nsenter");
            enter.args(["-t", &target, "-p", "-m", "setpriv", "--reuid", user, "--clear-groups"]);
            enter.args([OPM, "--no-daemon-start", "ls"]).env_clear().env("HOME", &scratch.dir);
            let output = enter.output().unwrap();
            [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap())
        };
        eventually("the service", || beside("0")[0].contains("online").then_some(()));
        let [out, err] = beside("65533");
        assert!(!out.contains("online") && err.contains("PID 1 is an opm run"), "{out}{err}");
        run.signal(libc::SIGTERM);
        assert_eq!(run.end(), 0);
    }
}

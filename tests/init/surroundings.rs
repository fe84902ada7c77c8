//! What is there, what is missing, and what init leaves as it found it.

use crate::rig::{Live, OPM, Reach, child_of, compare, join, run, stat, status_line};
use std::process::Command;
use std::time::Duration;

#[test]
fn closed_standard_descriptors_are_no_obstacle_and_stay_closed() {
    for (which, script) in
        [("stdin", r#"exec <&-; exec "$@""#), ("all three", r#"exec <&- >&- 2>&-; exec "$@""#)]
    {
        let code = compare(&format!("{which} closed"), Reach::Group, |init| {
            let words = join(&["sh", "-c", script, "sh"], init);
            run(&join(&words, &["sh", "-c", "[ -e /proc/$$/fd/0 ] && exit 1; exit 5"])).answer()
        });
        assert_eq!(code, "5");
    }
}

#[test]
fn a_command_with_nothing_to_put_in_a_closed_descriptors_place_says_so() {
    let script = r#"mount -t tmpfs none /dev && exec "$1" help >&-"#;
    let end = run(&["unshare", "-m", "sh", "-c", script, "sh", OPM]);
    assert_eq!(end.rest, ["opm: cannot write to stdout: Bad file descriptor"]);
    assert_eq!(end.code, Some(1));
}

#[test]
fn the_program_starts_where_the_caller_was_and_init_stands_in_the_root() {
    let answer = compare("cwd of init, of the program", Reach::Group, |init| {
        let mut command = Command::new(init[0]);
        command.args(&init[1..]).args(["sh", "-c", "pwd; read x"]).current_dir("/usr/lib");
        let live = Live::from(command);
        let theirs = live.expect("/");
        let own = std::fs::read_link(format!("/proc/{}/cwd", live.pid())).unwrap();
        format!("{} {theirs}", own.display())
    });
    assert_eq!(answer, "/ /usr/lib");
}

#[test]
fn inherited_descriptors_reach_the_program_and_init_keeps_none() {
    let answer = compare("fd 7 in init, in the program", Reach::Group, |init| {
        let words = join(&["sh", "-c", r#"exec 7</etc/passwd; exec "$@""#, "sh"], init);
        let live = Live::start(&join(&words, &["sh", "-c", "echo up; read x"]));
        live.expect("up");
        let has = |pid: i32| crate::rig::exists(&format!("/proc/{pid}/fd/7"));
        format!("{} {}", has(live.pid()), has(child_of(live.pid())))
    });
    assert_eq!(answer, "false true");
}

#[test]
fn sockets_meant_for_init_are_meant_for_the_program() {
    let script = r#"export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@""#;
    let answer = compare("LISTEN_PID", Reach::Group, |init| {
        let words = join(&["sh", "-c", script, "sh"], init);
        let test = r#"[ "$LISTEN_PID" = $$ ] && echo ours || echo stale"#;
        run(&join(&words, &["sh", "-c", test])).rest.join(" ")
    });
    assert_eq!(answer, "ours");
    let foreign = r#"export LISTEN_PID=1; exec "$@""#;
    let words = ["sh", "-c", foreign, "sh", OPM, "init", "-s", "sh", "-c", "echo $LISTEN_PID"];
    assert_eq!(run(&words).rest, ["1"]);
}

#[test]
fn without_a_terminal_the_program_has_a_session_of_its_own() {
    let answer = compare("group and session, no terminal", Reach::Group, |init| {
        let words = [&["setsid", "-w"], init, &["sh", "-c", "echo up; read x"]].concat();
        let live = Live::start(&words);
        live.expect("up");
        let init = match stat(live.pid(), 0).is_some() && words[0] == "setsid" {
            // setsid -w forks only if it leads a group.
            true if status_line(live.pid(), "Name:") == "setsid" => child_of(live.pid()),
            _ => live.pid(),
        };
        let child = child_of(init);
        let own = |word| stat(child, word) == Some(child.to_string());
        format!("own group {}, own session {}", own(2), own(3))
    });
    assert_eq!(answer, "own group true, own session true");
}

#[test]
fn not_being_pid_1_is_warned_of_unless_orphans_come_to_it() {
    let warned = |words: &[&str]| run(words).rest.iter().any(|line| line.contains("orphans"));
    assert!(warned(&[OPM, "init", "true"]));
    assert!(!warned(&[OPM, "init", "-s", "true"]));
    assert!(!warned(&["env", "TINI_SUBREAPER=", OPM, "init", "true"]));
    assert!(!warned(&["env", "OPM_SUBREAPER=1", OPM, "init", "true"]));
    assert!(!warned(&["unshare", "-pf", OPM, "init", "true"]));
}

#[test]
fn no_proc_no_home_no_environment_no_rights_are_no_obstacle() {
    let script = r#"mount -t tmpfs none /proc && exec env -i "$@""#;
    let code = compare("no /proc, PID 1, empty environment", Reach::Group, |init| {
        let words = join(&["unshare", "-pfm", "sh", "-c", script, "sh"], init);
        run(&join(&words, &["/bin/sh", "-c", "(sleep 60 &); exit 8"])).answer()
    });
    // unshare's -f makes the shell PID 1, and it execs.
    assert_eq!(code, "8");
    let user = ["setpriv", "--reuid=1000", "--clear-groups", "env", "-i", OPM, "init", "-s"];
    assert_eq!(run(&join(&user, &["/bin/sh", "-c", "exit 9"])).code, Some(9));
}

#[test]
fn nothing_of_proc_is_read_on_the_way_to_the_program() {
    let log = crate::rig::scratch("trace");
    let strace = ["strace", "-f", "-qq", "-e", "trace=%file", "-o", &log];
    let end = run(&join(&strace, &[OPM, "init", "-s", "/bin/true"]));
    let trace = std::fs::read_to_string(&log).unwrap();
    std::fs::remove_file(&log).unwrap();
    assert_eq!(end.code, Some(0), "{end:?}");
    let touched: Vec<_> = trace.lines().filter(|line| line.contains("/proc")).collect();
    assert_eq!(touched, [""; 0]);
}

#[test]
fn it_sleeps_while_nothing_happens() {
    let wakes = compare("wake-ups in 5 idle seconds", Reach::Group, |init| {
        let live = Live::start(&join(init, &["sh", "-c", "echo up; exec sleep 60"]));
        live.expect("up");
        let switches = || -> u64 {
            let of = |field| status_line(live.pid(), field).parse::<u64>().unwrap();
            of("voluntary_ctxt_switches:") + of("nonvoluntary_ctxt_switches:")
        };
        // Not a hope: the claim is about a span of time. The start is over after the first.
        std::thread::sleep(Duration::from_millis(500));
        let before = switches();
        std::thread::sleep(Duration::from_secs(5));
        (switches() - before).to_string()
    });
    assert_eq!(wakes, "0");
}

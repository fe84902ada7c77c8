//! What can't be killed, can't be seen or can't be told apart: the law holds, and opm says so.
use crate::namespace::{Setting, User, fixture, isolated, isolated_in, opm};
use crate::proc;
use crate::rig::{Rig, finish, one_line};
use opm::process::journal_format::{HEADER_BYTES, Header};
use rustix::process::Signal;
use std::process::Command;

/// A debugger that holds `pid` on its way out: SIGKILL has no end in sight.
fn hold_at_exit(rig: &Rig, pid: i32) -> std::process::Child {
    let tracer = rig.fixture(&["--trace-exit", &pid.to_string()]);
    rig.until_traced(pid, &tracer);
    tracer
}

fn release(mut tracer: std::process::Child) {
    tracer.kill().unwrap();
    tracer.wait().unwrap();
}

/// The tree has a member that does not die. Nothing may start, whoever asks and whoever dies.
fn unkillable(rig: &Rig, of: &str) {
    let options = ["--min-uptime", "0s", "--stop-timeout", "100ms"];
    let leader = rig.start_with("web", &options, "child [ setsid note:rest sleep ] sleep");
    let rest = rig.note("web", "rest");
    let held = if of == "leader" { leader } else { rest };
    let tracer = hold_at_exit(rig, held);
    let line = rig.refused(5, &["stop", "web"]);
    assert!(line.contains(&held.to_string()), "{line}");
    assert_eq!(rig.row("web").status, "stopping");
    let mut start = rig.spawn(&["start", "web"]);
    rig.kill_daemon();
    // A leader that lives while the goal is up may be called online: it is the one there is.
    let status = rig.row("web").status;
    assert!(status == "stopping" || held == leader && status == "online", "{status}");
    rig.assert_starts("web", 1);
    start.kill().unwrap();
    start.wait().unwrap();
    let ran = rig.opm(&["restart", "web"]);
    assert_eq!(ran.code, Some(5), "{ran:?}");
    assert!(one_line(&ran, &[]).contains(&held.to_string()), "{ran:?}");
    rig.assert_starts("web", 1);
    assert!(proc::process(held).is_some());
    release(tracer);
    rig.until_replaced("web", leader);
    rig.assert_starts("web", 2);
}

#[test]
fn a_leader_that_cannot_be_killed_is_named_and_never_doubled() {
    isolated(here!(), |rig| unkillable(rig, "leader"));
}

#[test]
fn an_escapee_that_cannot_be_killed_is_named_and_never_doubled() {
    isolated(here!(), |rig| unkillable(rig, "rest"));
}

/// A child that became root, of an opm that is nobody: it can be seen, not signalled.
#[test]
fn a_member_that_may_not_be_signalled_is_named_and_waited_for() {
    let setting = Setting { user: User::Nobody, ..Setting::default() };
    isolated_in(setting, here!(), |rig| {
        let privileged = "/mnt/privileged";
        std::fs::copy(fixture(), privileged).unwrap();
        let mode = Command::new("chmod").args(["4755", privileged]).status();
        assert!(mode.unwrap().success());
        let (lock, program) = (rig.lock("web"), fixture().display().to_string());
        let script = format!(
            "setsid {privileged} --held {lock} uid:0 note:rest sleep & {program} {lock} sleep"
        );
        let words = ["start", "--name", "web", "--min-uptime", "0s", "--stop-timeout", "100ms"];
        let mut words = words.to_vec();
        words.extend(["--", "bash", "-c", &script]);
        rig.ok(&words);
        let rest = rig.note("web", "rest");
        rig.assert_starts("web", 1);
        let status = std::fs::read_to_string(format!("/proc/{rest}/status")).unwrap();
        assert!(status.contains("Uid:\t0\t0\t0"), "{status}");
        for killed in [false, true] {
            if killed {
                rig.kill_daemon();
            }
            let ran = rig.opm(&["stop", "web"]);
            assert_eq!(ran.code, Some(5), "{ran:?}");
            assert!(one_line(&ran, &[]).contains(&rest.to_string()), "{ran:?}");
            assert_eq!(rig.row("web").status, "stopping");
            assert!(proc::alive(rest));
        }
        rig.kill(rest, Signal::KILL);
        rig.until_status("web", "stopped");
        rig.assert_starts("web", 1);
    });
}

/// The inner init ignores the stop signal, as every init does that has no handler for it.
#[test]
fn a_child_in_a_pid_namespace_of_its_own_is_waited_for() {
    isolated(here!(), |rig| {
        let (lock, program) = (rig.lock("web"), fixture().display().to_string());
        let words = ["start", "--name", "web", "--min-uptime", "0s", "--stop-timeout", "300ms"];
        let mut words = words.to_vec();
        words.extend(["--", "unshare", "--pid", "--fork", &program, &lock, "child", "["]);
        words.extend(["setsid", "sleep", "]", "sleep"]);
        rig.ok(&words);
        let inside = |rig: &Rig| -> Vec<i32> {
            let mut pids = proc::pids();
            pids.retain(|pid| proc::alive(*pid) && proc::arguments(*pid).starts_with(&program));
            pids.retain(|pid| proc::arguments(*pid).contains(&rig.lock("web")));
            pids
        };
        let first = rig.until("the inner ones", || Some(inside(rig)).filter(|all| all.len() == 2));
        let leader = rig.row("web").pid.unwrap();
        rig.kill(leader, Signal::KILL);
        rig.until_replaced("web", leader);
        assert!(first.iter().all(|pid| !proc::alive(*pid)));
        rig.kill_daemon();
        let second = rig.until("the inner ones", || Some(inside(rig)).filter(|all| all.len() == 2));
        rig.ok(&["restart", "web"]);
        assert!(second.iter().all(|pid| !proc::alive(*pid)));
        rig.ok(&["stop", "web"]);
        assert_eq!(inside(rig), Vec::<i32>::new());
    });
}

/// What bears a service's limit and is outside its time namespace has copied it.
#[test]
fn a_forged_mark_is_named_and_nobody_waits_for_it() {
    isolated(here!(), |rig| {
        let leader = rig.start("web", "sleep");
        let limits = std::fs::read_to_string(format!("/proc/{leader}/limits")).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max file locks")).unwrap();
        let mark = line.split_whitespace().nth(3).unwrap();
        let mut forger = Command::new("prlimit");
        forger.args([&format!("--locks={mark}:{mark}"), "sleep", "1000"]);
        let mut forger = forger.spawn().unwrap();
        let text = format!("process {} bears a mark of this home", forger.id());
        rig.until("the forged mark", || rig.ok(&["doctor"]).contains(&text).then_some(()));
        rig.kill_daemon();
        assert!(rig.ok(&["doctor"]).contains(&text));
        rig.ok(&["restart", "web"]);
        assert_eq!(forger.try_wait().unwrap(), None, "it was ended");
        forger.kill().unwrap();
        forger.wait().unwrap();
        assert!(!rig.ok(&["doctor"]).contains("copied or forged"));
    });
}

/// `opm ARGS…` on another home.
pub(crate) fn at_home(rig: &Rig, home: &std::path::Path, args: &[&str]) -> crate::rig::Ran {
    let mut command = rig.command(args);
    command.env("OPM_HOME", home);
    finish(command.spawn().unwrap(), args)
}

#[test]
fn a_copied_home_touches_nothing_of_the_original() {
    copied_home(here!(), |_| ());
}

#[test]
fn a_copied_home_without_its_journal_touches_nothing_of_the_original() {
    copied_home(here!(), |copy| {
        std::fs::remove_file(copy.join("journal")).unwrap();
    });
}

#[test]
fn a_home_that_was_copied_in_an_earlier_boot_touches_nothing_of_the_original() {
    copied_home(here!(), |copy| {
        let path = copy.join("journal");
        let mut journal = std::fs::read(&path).unwrap();
        let mut header = Header::decode(&journal).unwrap();
        header.boot ^= 1;
        journal[..HEADER_BYTES].copy_from_slice(&header.encode());
        std::fs::write(&path, journal).unwrap();
    });
}

fn copied_home(test: &str, change: fn(&std::path::Path)) {
    isolated(test, |rig| {
        let leader = rig.start("web", "child [ setsid note:rest sleep ] sleep");
        let rest = rig.note("web", "rest");
        rig.ok(&["save"]);
        let copy = rig.dir.join("c");
        let copied = Command::new("cp").arg("-a").args([&rig.home, &copy]).status();
        assert!(copied.unwrap().success());
        change(&copy);
        for args in [["ls"].as_slice(), &["restore"], &["start", "all"]] {
            let ran = at_home(rig, &copy, args);
            assert!(matches!(ran.code, Some(0 | 5)), "{args:?}: {ran:?}");
        }
        for args in [["stop", "all"], ["remove", "all"], ["daemon", "stop"]] {
            at_home(rig, &copy, &args);
        }
        assert!(proc::alive(leader) && proc::alive(rest));
        let row = rig.row("web");
        assert_eq!((row.pid, row.status.as_str()), (Some(leader), "online"));
        rig.kill_daemon();
        assert_eq!(rig.row("web").pid, Some(leader));
    });
}

#[test]
fn two_homes_have_nothing_to_do_with_each_other() {
    isolated(here!(), |rig| {
        let other = rig.dir.join("o");
        let leader = rig.start("web", "child [ setsid sleep ] sleep");
        let tree = rig.tree("web");
        let lock = rig.lock("web-of-the-other");
        let program = fixture().display().to_string();
        let words = ["start", "--name", "web", "--", &program, &lock, "sleep"];
        assert_eq!(at_home(rig, &other, &words).code, Some(0));
        assert_eq!(at_home(rig, &other, &["restart", "all"]).code, Some(0));
        let pid = std::fs::read_to_string(other.join("opm.pid")).unwrap();
        rig.kill(pid.trim().parse().unwrap(), Signal::KILL);
        rig.kill_daemon();
        for args in [["restart", "all"], ["stop", "all"], ["remove", "all"]] {
            assert_eq!(at_home(rig, &other, &args).code, Some(0));
        }
        assert_eq!(rig.row("web").pid, Some(leader));
        assert_eq!(rig.tree("web"), tree);
        assert_eq!(at_home(rig, &other, &["daemon", "stop"]).code, Some(0));
    });
}

/// Where the kernel has no handles of namespaces: their inodes are given again at once.
#[test]
fn a_time_namespace_whose_number_is_given_again_makes_nobody_a_member() {
    let setting = Setting { without: "namespace-handle", ..Setting::default() };
    isolated_in(setting, here!(), |rig| {
        let other = rig.dir.join("o");
        let namespace = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/time")).unwrap();
        let leader = rig.start("web", "sleep");
        let before = namespace(leader);
        rig.kill_daemon();
        rig.kill(leader, Signal::KILL);
        rig.until_gone(leader);
        let program = fixture().display().to_string();
        let mut pids = Vec::new();
        for name in ["a", "b", "c", "d"] {
            let lock = rig.lock(&format!("{name}-of-the-other"));
            let words = ["start", "--name", name, "--", &program, &lock, "note:up", "sleep"];
            assert_eq!(at_home(rig, &other, &words).code, Some(0));
            pids.push(rig.note(&format!("{name}-of-the-other"), "up"));
        }
        if !pids.iter().any(|pid| namespace(*pid) == before) {
            eprintln!("{before:?} was not given again");
        }
        rig.until_replaced("web", leader);
        rig.ok(&["stop", "web"]);
        assert!(pids.iter().all(|pid| proc::alive(*pid)), "{pids:?}");
        assert_eq!(at_home(rig, &other, &["daemon", "stop", "--services"]).code, Some(0));
    });
}

/// The other home's services are in time namespaces that the lost record could have named, but say
/// by their marks whose they are.
#[test]
fn a_lost_record_waits_for_no_service_of_another_home() {
    isolated(here!(), |rig| {
        let other = rig.dir.join("o");
        let program = fixture().display().to_string();
        let lock = rig.lock("of-the-other");
        let words =
            ["start", "--name", "other", "--", &program, &lock, "child [ clean [ sleep ] ]"];
        let words: Vec<&str> =
            words.iter().flat_map(|word| word.split(' ')).chain(["sleep"]).collect();
        assert_eq!(at_home(rig, &other, &words).code, Some(0));
        let leader = rig.start("web", "sleep");
        rig.ok(&["stop", "web"]);
        rig.kill_daemon();
        std::fs::remove_file(rig.home.join("journal")).unwrap();
        rig.ok(&["start", "web"]);
        assert_ne!(rig.row("web").pid, Some(leader));
        rig.ok(&["stop", "web"]);
        assert_eq!(at_home(rig, &other, &["daemon", "stop", "--services"]).code, Some(0));
    });
}

/// It takes CAP_SYS_ADMIN to leave a time namespace; a service of root's has it.
#[test]
fn what_left_the_time_namespace_of_its_tree_is_waited_for() {
    isolated(here!(), |rig| {
        let (program, lock) = (fixture().display().to_string(), rig.lock("web"));
        let script = format!(
            "unshare -T -f sh -c 'setsid {program} {lock} ignore:TERM note:rest sleep &'; \
             exec sleep 1000"
        );
        let words = ["start", "--name", "web", "--stop-timeout", "1s", "--", "/bin/sh", "-c"];
        rig.ok(&[words.as_slice(), &[&script]].concat());
        let rest = rig.note("web", "rest");
        rig.kill_daemon();
        rig.ok(&["stop", "web"]);
        assert!(!proc::alive(rest), "{rest} lives on");
    });
}

/// `cron & exec opm daemon start --foreground`: the daemon has children that it never started, and
/// what those leave behind comes to it.
#[test]
fn what_a_shell_had_started_before_it_became_the_daemon_is_a_stranger() {
    isolated(here!(), |rig| {
        let (go, noted) = (rig.dir.join("go"), rig.dir.join("noted"));
        let script = format!(
            "(while [ ! -e {go} ]; do sleep 0.02; done; sleep 1000 & echo $! > {noted}.new; \
             mv {noted}.new {noted}) & exec {opm} daemon start --foreground",
            go = go.display(),
            noted = noted.display(),
            opm = opm().display(),
        );
        let like = rig.command(&[]);
        let mut shell = Command::new("/bin/sh")
            .args(["-c", &script])
            .envs(like.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .current_dir(&rig.dir)
            .spawn()
            .unwrap();
        let daemon = shell.id().cast_signed();
        // A command that comes before it would start a daemon of its own.
        rig.until("the shell's daemon", || {
            let text = std::fs::read_to_string(rig.home.join("opm.pid")).ok()?;
            (text.trim() == daemon.to_string()).then_some(())
        });
        let leader = rig.start("web", "sleep");
        std::fs::write(&go, "").unwrap();
        let stranger = rig.until("the stranger", || {
            let pid: i32 = std::fs::read_to_string(&noted).ok()?.trim().parse().ok()?;
            proc::process(pid).filter(|process| process.parent == daemon).map(|_| pid)
        });
        rig.ok(&["restart", "web"]);
        assert!(!proc::alive(leader));
        rig.ok(&["stop", "web"]);
        assert!(proc::alive(stranger), "the stranger was killed");
        rig.kill(stranger, Signal::KILL);
        rig.ok(&["daemon", "stop"]);
        shell.wait().unwrap();
    });
}

/// Each process of another user is invisible, its own are not.
#[test]
fn where_proc_hides_others_nothing_is_doubled() {
    let setting = Setting { user: User::Nobody, ..Setting::default() };
    isolated_in(setting, here!(), |rig| {
        let hidden = ["-o", "remount,hidepid=2", "/proc"];
        assert!(Command::new("mount").args(hidden).status().unwrap().success());
        let leader = rig.start("web", "child [ setsid note:rest sleep ] sleep");
        let rest = rig.note("web", "rest");
        rig.kill_daemon();
        let ran = rig.opm(&["start", "web"]);
        if ran.code == Some(0) {
            let row = rig.row("web");
            assert_eq!(row.pid, Some(leader));
            rig.kill(leader, Signal::KILL);
            rig.until_replaced("web", leader);
            assert!(!proc::alive(rest));
        } else {
            one_line(&ran, &["start", "web"]);
            rig.assert_starts("web", 1);
        }
    });
}

#[test]
fn without_proc_opm_promises_nothing_and_says_so() {
    isolated(here!(), |rig| {
        let script = "mount -t tmpfs none /proc && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh"]);
        let ran = rig.behind(command, &["start", "--name", "web", "--", "sleep", "1000"]);
        if ran.code == Some(0) {
            // Then it must be able to keep its word.
            let pid = rig.row("web").pid.unwrap();
            rig.kill(pid, Signal::KILL);
            rig.ok(&["stop", "web"]);
            assert!(!proc::alive(pid));
        } else {
            let line = one_line(&ran, &["start"]);
            assert!(line.contains("/proc"), "{line}");
        }
    });
}

/// It asks as fast as it can, without end, and reads nothing, or all.
#[test]
fn a_client_that_only_asks_keeps_nobody_waiting() {
    isolated(here!(), |rig| {
        use std::io::{Read, Write};
        use std::os::unix::net::UnixStream;
        rig.start("web", "sleep");
        let body = br#"{"list":{"usage":true,"table":false}}"#;
        let mut frame = u32::try_from(body.len()).unwrap().to_le_bytes().to_vec();
        frame.extend_from_slice(body);
        let frames = frame.repeat(500);
        let mut clients = Vec::new();
        let mut threads = Vec::new();
        for reads in [true, false] {
            let client = UnixStream::connect(rig.home.join("opm.sock")).unwrap();
            let (mut asks, mut answered) =
                (client.try_clone().unwrap(), client.try_clone().unwrap());
            let frames = frames.clone();
            threads.push(std::thread::spawn(move || while asks.write_all(&frames).is_ok() {}));
            if reads {
                threads.push(std::thread::spawn(move || {
                    while answered.read(&mut [0; 65_536]).is_ok_and(|length| length > 0) {}
                }));
            }
            clients.push(client);
        }
        for _ in 0..5 {
            rig.ok(&["ls"]);
        }
        let status = std::fs::read_to_string(format!("/proc/{}/status", rig.daemon())).unwrap();
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kb: u64 = memory.unwrap().trim().trim_end_matches(" kB").parse().unwrap();
        assert!(kb < 32 << 10, "{kb} kB");
        for client in clients {
            client.shutdown(std::net::Shutdown::Both).unwrap();
        }
        for thread in threads {
            thread.join().unwrap();
        }
        rig.ok(&["stop", "web"]);
    });
}

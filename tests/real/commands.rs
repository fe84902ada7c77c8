//! What commands say and mean, where it takes a real daemon to show it.
use crate::namespace::{Setting, User, isolated, isolated_in};
use crate::proc;
use crate::rig::{Rig, finish};
use rustix::process::Signal;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};

#[test]
fn what_is_exactly_a_name_means_that_service_alone() {
    isolated(here!(), |rig| {
        for name in ["w", "[vw]", "q?", "qx", "a *"] {
            rig.ok(&["start", "--name", name, "--force", "--", "sleep", "1000"]);
        }
        assert_eq!(rig.ok(&["stop", "[vw]"]), "[vw]: stopped\n");
        assert_eq!(rig.ok(&["restart", "q?"]).lines().count(), 1);
        assert_eq!(rig.ok(&["stop", "a *", "q\\?"]), "q?: stopped\na *: stopped\n");
        assert_eq!(rig.ok(&["signal", "q[x]", "w", "CONT"]).lines().count(), 2);
        // A service is called as a command line is written.
        assert!(rig.ok(&["start", "a *", "--force"]).starts_with("a *: online"));
        assert_eq!(rig.rows().len(), 5);
        assert_eq!(rig.ok(&["remove", "[vw]", "q*"]).lines().count(), 3);
        let ran = rig.opm(&["start", "w", "gone"]);
        assert_eq!((ran.code, ran.out.lines().count()), (Some(3), 1), "{ran:?}");
    });
}

#[test]
fn a_process_means_the_service_that_it_is_of() {
    isolated(here!(), |rig| {
        rig.ok(&["start", "--name", "other", "--", "sleep", "1000"]);
        let tree = "setsid sleep 2000 & echo $! > kept; exec sleep 3000";
        rig.ok(&["start", "--name", "web", "--", "sh", "-c", tree]);
        let escaped = || std::fs::read_to_string(rig.dir.join("kept")).ok()?.trim().parse().ok();
        let escaped: i32 = rig.until("its child", escaped);
        let session = || rustix::process::getsid(rustix::process::Pid::from_raw(escaped)).ok();
        rig.until("its session", || (session()?.as_raw_nonzero().get() == escaped).then_some(()));
        for pid in [rig.row("web").pid.unwrap(), escaped] {
            let ran = rig.ok(&["get-command", &format!("pid:{pid}")]);
            assert!(ran.starts_with("sh -c 'setsid"), "{ran}");
        }
        let stranger = rig.opm(&["info", &format!("pid:{}", std::process::id())]);
        let line = format!("opm: no such service: pid:{} (try 'opm ls')\n", std::process::id());
        assert_eq!((stranger.code, stranger.err), (Some(3), line));
        assert_eq!(rig.ok(&["daemon", "reset"]), "daemon: the next service gets id 2\n");
    });
}

#[test]
fn a_service_comes_back_though_its_logs_were_removed() {
    isolated(here!(), |rig| {
        let old = rig.start("web", "sleep");
        std::fs::remove_dir_all(rig.home.join("logs")).unwrap();
        let trouble = |rig: &Rig| rig.ok(&["doctor"]).contains("web: what it writes is lost");
        assert!(trouble(rig), "the old one writes to a file that has no name");
        rig.kill(old, Signal::KILL);
        rig.until_replaced("web", old);
        let mode = std::fs::metadata(rig.home.join("logs")).unwrap().permissions().mode();
        assert_eq!((mode & 0o7777, trouble(rig)), (0o700, false));
        rig.until("its log", || rig.home.join("logs/web-out.log").exists().then_some(()));
    });
}

#[test]
fn a_service_runs_though_there_can_be_no_log() {
    isolated(here!(), |rig| {
        rig.start("web", "sleep");
        let logs = rig.home.join("logs");
        std::fs::remove_dir_all(&logs).unwrap();
        symlink("/nonexistent/place", &logs).unwrap();
        rig.ok(&["restart", "web"]);
        rig.ok(&["start", "--name", "fresh", "--", "sleep", "77"]);
        for name in ["web", "fresh"] {
            let note = rig.info(name)["note"].as_str().unwrap().to_owned();
            assert!(note.contains("is lost") && note.contains("No such file"), "{note}");
        }
        rig.kill_daemon();
        assert!(rig.ok(&["doctor"]).contains("fresh: what it writes is lost"));
    });
}

#[test]
fn following_the_logs_of_removed_services_ends() {
    isolated(here!(), |rig| {
        rig.ok(&["start", "--name", "a", "--", "sh", "-c", "echo first; exec sleep 1000"]);
        rig.start("b", "sleep");
        let log = rig.home.join("logs/a-out.log");
        rig.until("output", || std::fs::metadata(&log).ok().filter(|m| m.len() > 0).map(drop));
        let mut child = rig.spawn(&["logs", "-f", "a", "b"]);
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert!(line.starts_with("==> a out"), "{line}");
        rig.ok(&["remove", "a"]);
        // Another daemon hears of the last one.
        rig.kill_daemon();
        rig.ok(&["daemon", "start"]);
        assert!(child.try_wait().unwrap().is_none(), "b is still there");
        rig.ok(&["remove", "b"]);
        let ran = finish(child, &["logs", "-f"]);
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), "opm: a, b: removed\n"));
    });
}

#[test]
fn what_dies_at_once_is_not_said_to_be_online_and_ls_says_why() {
    isolated(here!(), |rig| {
        let start = |name: &str, options: &[&str], script: &str| {
            let words = [&["start", "--name", name], options, &["--", "sh", "-c", script]].concat();
            rig.ok(&words)
        };
        let why = |name: &str| {
            let rows = rig.json(&["ls", name]);
            rows[0]["why"].as_str().map(str::to_owned)
        };
        let never = ["--restart", "never"];
        let text = start("bad", &["--restart-delay", "1h"], "exit 3");
        assert_eq!(text, "bad: waiting (id 0): exit 3, restart in 1h\n");
        let text = start("once", &never, "kill -KILL $$");
        assert_eq!(text, "once: errored (id 1): signal KILL, not restarted\n");
        let text = start("job", &never, "exit 0");
        assert_eq!(text, "job: stopped (id 2): has done its work\n");
        let text = start("loop", &["--min-uptime", "0s"], "exit 7");
        assert!(text.starts_with("loop: ") && !text.contains("pid"), "{text}");
        rig.ok(&["stop", "loop"]);
        assert_eq!(why("loop"), None, "it was asked for");
        assert!(start("web", &[], "exec sleep 1000").starts_with("web: online (id 4, pid "));
        assert_eq!(
            (why("web"), rig.json(&["ls", "web"])[0]["ready"].as_bool()),
            (None, Some(true))
        );
        let text = start("quick", &["--max-restarts", "0"], "exit 3");
        assert_eq!(text, "quick: errored (id 5): exit 3, 1 quick death\n");
        // What a daemon did not see itself, it has on record.
        rig.kill_daemon();
        assert_eq!(why("quick").as_deref(), Some("exit 3, 1 quick death"));
        let left = why("bad").unwrap();
        assert!(left.starts_with("exit 3, restart in "), "{left}");
        let table = rig.ok(&["ls"]);
        let heads: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
        assert_eq!(heads, ["id", "name", "pid", "uptime", "↺", "status", "why", "cpu", "mem"]);
        assert!(!rig.ok(&["ls", "web"]).contains("why"), "nothing is to be said of it");
    });
}

#[test]
fn what_has_done_its_work_is_healthy() {
    isolated(here!(), |rig| {
        rig.start("web", "sleep");
        for (name, restart, script) in [
            ("once", "never", "exit 0"),
            ("enough", "on-failure", "exit 0"),
            ("bad", "never", "exit 4"),
        ] {
            rig.ok(&["start", "--name", name, "--restart", restart, "--", "sh", "-c", script]);
            let status = if name == "bad" { "errored" } else { "stopped" };
            rig.until_status(name, status);
        }
        rig.ok(&["health", "web", "once", "enough"]);
        assert_eq!(rig.opm(&["health"]).code, Some(1));
        rig.ok(&["remove", "bad"]);
        rig.ok(&["health"]);
        rig.kill_daemon();
        rig.ok(&["daemon", "start"]);
        rig.ok(&["health", "once"]);
        // Stopped by somebody is another matter.
        rig.ok(&["stop", "web"]);
        assert_eq!(rig.opm(&["health", "web"]).code, Some(1));
    });
}

#[test]
fn a_daemon_serves_whatever_lies_where_its_pid_file_should() {
    isolated(here!(), |rig| {
        let pid = rig.start("web", "sleep");
        let file = rig.home.join("opm.pid");
        rig.kill_daemon();
        std::fs::remove_file(&file).unwrap();
        symlink("/dev/null", &file).unwrap();
        assert_eq!(rig.row("web").pid, Some(pid));
        rig.ok(&["daemon", "stop"]);
        std::fs::create_dir(&file).unwrap();
        assert_eq!(rig.row("web").pid, Some(pid));
        let log = std::fs::read_to_string(rig.home.join("daemon.log")).unwrap();
        assert!(log.contains("opm.pid: it is no regular file"), "{log}");
        std::fs::remove_dir(&file).unwrap();
        rig.ok(&["daemon", "restart"]);
    });
}

#[test]
fn a_daemon_that_did_not_become_another_is_not_said_to_have() {
    isolated(here!(), |rig| {
        let pid = rig.start("web", "sleep");
        let (daemon, image) = (rig.daemon(), rig.json(&["daemon", "health"])["image"].clone());
        // It passes the check, and can't be executed afterwards.
        let binary = rig.dir.join("fleeting");
        let script = "#!/bin/sh\necho 'opm 7.7.7 protocol 9 journal 2'; mv \"$0\" \"$0.gone\"\n";
        std::fs::write(&binary, script).unwrap();
        std::fs::set_permissions(&binary, PermissionsExt::from_mode(0o755)).unwrap();
        let line = rig.refused(1, &["daemon", "upgrade", binary.to_str().unwrap()]);
        assert!(line.contains("not upgraded") && line.contains("No such file"), "{line}");
        let same = rig.json(&["daemon", "health"])["image"].clone();
        assert_eq!((rig.daemon(), &same, rig.row("web").pid), (daemon, &image, Some(pid)));
        // A child that can't exec yet keeps the image.
        let log = rig.log_to_nobody("slow");
        let start = rig.spawn(&["start", "slow"]);
        rig.until_status("slow", "starting");
        let line = rig.refused(6, &["daemon", "restart"]);
        assert!(line.contains("not restarted yet: slow"), "{line}");
        let reader = std::fs::File::open(&log).unwrap();
        rig.until("another image", || {
            let ran = rig.opm(&["daemon", "health", "--json"]);
            let health: serde_json::Value = serde_json::from_str(&ran.out).ok()?;
            (health["image"] != image).then_some(())
        });
        finish(start, &["start", "slow"]);
        drop(reader);
        rig.ok(&["remove", "slow"]);
    });
}

#[test]
fn events_of_one_service_and_a_wait_that_says_until_when() {
    isolated(here!(), |rig| {
        rig.start("other", "sleep");
        let command = ["--", "sh", "-c", "exit 3"];
        let options = ["start", "--name", "poor", "--restart-delay", "1h"];
        rig.ok(&[&options[..], &command].concat());
        rig.until_status("poor", "waiting");
        // Counted from this millisecond each time, so that two answers may be one apart.
        rig.until("both forms to say the same", || {
            let at = rig.info("poor")["next_at"].as_str().unwrap().to_owned();
            rig.ok(&["info", "poor"]).contains(&at).then_some(())
        });
        assert!(rig.info("other")["next_at"].is_null());
        let out = rig.ok(&["events", "po*"]);
        assert!(out.contains("waiting") && !out.contains("other"), "{out}");
        assert_eq!(rig.ok(&["signal", "other", "1"]), "other: sent signal HUP\n");
        assert_eq!(rig.ok(&["ls", "poor", "--no-usage"]).lines().count(), 2);
    });
}

#[test]
fn files_for_other_supervisors_are_neither_run_nor_kept() {
    isolated(here!(), |rig| {
        rig.start("web", "sleep");
        for name in ["pm2.config.ts", "stack.yaml"] {
            std::fs::write(rig.dir.join(name), "module.exports = {apps: []}").unwrap();
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(rig.dir.join(name), mode).unwrap();
            for words in [&["start", name][..], &["start", name, "--name", "x"], &["import", name]]
            {
                let line = rig.refused(1, words);
                assert!(line.contains("does not read"), "{line}");
            }
        }
        assert_eq!(rig.rows().len(), 1);
        // Unless it is told to.
        let words = ["start", "--name", "stack.yaml", "--", "sleep", "9"];
        rig.ok(&words);
        assert!(rig.ok(&["start", "stack.yaml"]).contains("already online"));
    });
}

/// Another node has the volume now: other machine, other boot, and nobody can ask the first one.
#[test]
fn a_machine_that_is_gone_for_good_is_forgotten_when_the_operator_says_so() {
    isolated(here!(), |rig| {
        let pid = rig.start("web", "sleep");
        rig.kill_daemon();
        rig.kill(pid, Signal::KILL);
        rig.until_gone(pid);
        let boot = rig.dir.join("boot");
        std::fs::write(&boot, "01234567-89ab-cdef-0123-456789abcdef\n").unwrap();
        let elsewhere = |words: &str| {
            let script = format!(
                "hostname another; mount --bind {} /proc/sys/kernel/random/boot_id; : > empty
                 for id in /etc/machine-id /sys/class/dmi/id/product_uuid; do
                     [ ! -e $id ] || mount --bind empty $id
                 done
                 exec {} {words}",
                boot.display(),
                env!("CARGO_BIN_EXE_opm")
            );
            let mut command = Command::new("unshare");
            command.args(["-mu", "sh", "-c", &script]).current_dir(&rig.dir);
            let output = command.env("OPM_HOME", &rig.home).output().unwrap();
            let text = [output.stdout, output.stderr].concat();
            (output.status.code(), String::from_utf8(text).unwrap())
        };
        for words in ["ls", "daemon start", "remove all"] {
            let (code, text) = elsewhere(words);
            assert_eq!((code, text.lines().count()), (Some(5), 1), "{text}");
            assert!(text.contains("on another machine") && text.contains("--forget-elsewhere"));
        }
        let (code, text) = elsewhere("daemon start --forget-elsewhere");
        assert_eq!(code, Some(0), "{text}");
        assert_eq!(rig.ok(&["ls", "--no-usage"]).lines().count(), 2);
        let log = std::fs::read_to_string(rig.home.join("daemon.log")).unwrap();
        assert!(log.contains("told to forget"), "{log}");
        rig.start("fresh", "sleep");
    });
}

/// What is said of a start that takes marks off, after one that keeps both.
fn warning_of_marks(rig: &Rig) -> String {
    let start = |name, program: &[&str]| {
        let words = ["start", "--name", name, "--no-autorestart", "--"];
        rig.opm(&[&words, program].concat()).err
    };
    let said = start("on", &["setpriv", "--reuid=su", "true"]);
    assert!(!said.contains("marks"), "{said}");
    start("off", &["env", "A=1", "su", "root", "-c", "exec sleep 1000"])
}

fn is_warned_of_marks(rig: &Rig, advice: &str) {
    let said = warning_of_marks(rig);
    assert!(said.contains("off: su takes opm's marks off") && said.contains(advice), "{said}");
    // Known by now, and started again.
    rig.opm(&["stop", "off"]);
    assert!(rig.opm(&["start", "off"]).err.contains("off: su takes"));
}

#[test]
fn a_start_that_takes_marks_off_is_warned_of_where_they_are_all_there_is() {
    let setting = Setting { without: "time-namespace", ..Setting::default() };
    isolated_in(setting, here!(), |rig| is_warned_of_marks(rig, "(use --user"));
}

#[test]
fn a_start_that_takes_marks_off_is_warned_of_where_opm_is_not_root() {
    let setting = Setting { user: User::Nobody, ..Setting::default() };
    isolated_in(setting, here!(), |rig| is_warned_of_marks(rig, "(run opm as root"));
}

#[test]
fn a_start_that_takes_marks_off_is_not_warned_of_where_there_is_more() {
    isolated(here!(), |rig| {
        let said = warning_of_marks(rig);
        assert!(!said.contains("marks"), "{said}");
    });
}

#[test]
fn usage_is_read_of_those_alone_who_have_run_since() {
    isolated(here!(), |rig| {
        let at = |name| rig.dir.join(name).to_str().unwrap().to_owned();
        let (gate, trace) = (at("gate"), at("trace"));
        assert!(Command::new("mkfifo").arg(&gate).status().unwrap().success());
        let script = format!("read go < {gate}; sleep 1000 & read go < {gate}");
        let ran = rig.ok(&["start", "--name", "web", "--", "sh", "-c", &script]);
        let pid = rig.row("web").pid.unwrap_or_else(|| panic!("{ran}"));
        let processes = || rig.json(&["ls"])[0]["processes"].as_u64();
        let daemon = rig.daemon();
        let mut tracer = Command::new("strace")
            .args(["-q", "-e", "trace=openat,open", "-o", &trace, "-p", &daemon.to_string()])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        rig.until_traced(daemon, &tracer);
        let reads =
            || std::fs::read_to_string(&trace).unwrap().matches(&format!("/proc/{pid}/")).count();
        rig.until("nothing to be read of one that sleeps", || {
            let before = reads();
            assert_eq!(processes(), Some(1));
            (reads() == before).then_some(())
        });
        std::fs::write(&gate, "go\n").unwrap();
        // What a process has run is known to the kernel's tick, or when it sleeps.
        let sleeps = || proc::process(pid).is_some_and(|it| it.state == 'S');
        let has_child = || proc::all().iter().any(|it| it.parent == pid);
        rig.until("its child", || (has_child() && sleeps()).then_some(()));
        assert_eq!(processes(), Some(2));
        tracer.kill().unwrap();
        tracer.wait().unwrap();
    });
}

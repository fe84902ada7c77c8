//! What is said of an end: who killed, what was left, and what never began.
use crate::namespace::isolated;
use crate::proc;
use crate::rig::{Rig, finish};
use rustix::process::Signal;
use std::time::{Duration, Instant};

fn exited(rig: &Rig, name: &str) -> crate::rig::Event {
    rig.events(name).into_iter().rfind(|event| event.event == "exited").unwrap()
}

#[test]
fn a_kill_after_the_timeout_is_said_everywhere() {
    isolated(here!(), |rig| {
        let options = ["--stop-timeout", "700ms"];
        rig.start_with("web", &options, "ignore:TERM note:up sleep");
        rig.note("web", "up");
        assert_eq!(rig.ok(&["stop", "web"]), "web: stopped (killed after 700ms)\n");
        assert_eq!(exited(rig, "web").by.as_deref(), Some("opm"));
        let info = rig.ok(&["info", "web"]);
        let last = info.lines().find(|line| line.starts_with("last exit")).unwrap();
        assert!(last.contains("signal KILL at") && last.ends_with("(by opm)"), "{last}");
        assert_eq!(rig.info("web")["last_exit"]["by"], "opm");
        // It is known to the next daemon, too, and not said again of what did not happen again.
        rig.kill_daemon();
        assert_eq!(rig.info("web")["last_exit"]["by"], "opm");
        assert_eq!(rig.ok(&["stop", "web"]), "web: stopped\n");
        let ran = rig.opm(&["start", "web"]);
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
        rig.assert_starts("web", 2);
        rig.until("it to ignore the signal", || (rig.noted("web", "up").len() == 2).then_some(()));
        let ran = rig.opm(&["restart", "web"]);
        assert_eq!(ran.code, Some(0));
        assert_eq!(ran.err, "opm: warning: web: was stopped first (killed after 700ms)\n");
    });
}

#[test]
fn the_kill_of_somebody_else_is_not_ours() {
    isolated(here!(), |rig| {
        let pid = rig.start_with("web", &["--restart", "never"], "sleep");
        rig.kill(pid, Signal::KILL);
        rig.until_status("web", "errored");
        assert_eq!(exited(rig, "web").by, None);
        assert!(!rig.ok(&["info", "web"]).contains("by opm"));
    });
}

#[test]
fn what_was_left_and_killed_is_said() {
    isolated(here!(), |rig| {
        let ops = "child [ setsid ignore:TERM note:left sleep ] sleep";
        rig.start_with("web", &["--stop-timeout", "400ms"], ops);
        rig.note("web", "left");
        let said = rig.ok(&["remove", "web"]);
        assert_eq!(said, "web: removed (what it left was killed after 400ms)\n");
        let events = rig.events("web");
        let drained = events.iter().find(|event| event.event == "drained").unwrap();
        assert_eq!(drained.reason.as_deref(), Some("what it left was killed after 400ms"));
        assert_eq!(exited(rig, "web").by, None);
    });
}

#[test]
fn who_goes_into_the_background_is_named_however_late() {
    isolated(here!(), |rig| {
        // After it has run for longer than a quick death.
        let ops = "child [ setsid note:server sleep ] ms:300 exit:0";
        rig.start_with("web", &["--min-uptime", "100ms"], ops);
        let server = rig.note("web", "server");
        rig.until_status("web", "errored");
        rig.assert_starts("web", 1);
        assert!(!proc::alive(server), "it lives on");
        let note = rig.info("web")["note"].to_string();
        assert!(note.contains(&format!("left pid {server} (")), "{note}");
        assert!(note.contains("misbehave") && note.contains("foreground"), "{note}");
    });
}

#[test]
fn a_batch_whose_rest_ends_by_itself_is_any_exit_0() {
    isolated(here!(), |rig| {
        let ops = "child [ setsid catch:TERM note:rest ms:600 note:over ] exit:0";
        let words = rig.start_words("web", &["--restart", "on-failure"], ops);
        rig.ok(&words.iter().map(String::as_str).collect::<Vec<_>>());
        rig.until_status("web", "stopped");
        assert_eq!(rig.noted("web", "over").len(), 1, "{:?}", rig.notes("web"));
        assert!(!rig.notes("web").iter().any(|line| line.starts_with("signal")), "it was hurried");
        assert!(rig.info("web")["note"].is_null());
        // The same under a policy that starts it again.
        let ops = "child [ ms:300 note:over ] ms:50 exit:0";
        let words = rig.start_words("again", &["--min-uptime", "0s"], ops);
        rig.ok(&words.iter().map(String::as_str).collect::<Vec<_>>());
        rig.until("the second start", || (rig.starts("again").len() >= 2).then_some(()));
        assert!(!rig.noted("again", "over").is_empty());
    });
}

#[test]
fn a_stop_does_not_wait_for_what_lingers_and_finds_no_daemonizer() {
    isolated(here!(), |rig| {
        let rest = "child [ setsid ignore:TERM note:rest sleep ]";
        let options = ["--stop-timeout", "300ms"];
        rig.start_with("web", &options, &format!("{rest} catch:TERM note:up drain:0 exit:0"));
        rig.note("web", "rest");
        rig.note("web", "up");
        rig.ok(&["stop", "web"]);
        assert!(rig.info("web")["note"].is_null(), "{}", rig.info("web")["note"]);
        // While it lingers.
        rig.start_with("late", &options, &format!("{rest} ms:200 exit:0"));
        rig.until_status("late", "stopping");
        let began = Instant::now();
        rig.ok(&["stop", "late"]);
        assert!(began.elapsed() < Duration::from_secs(2), "it lingered: {:?}", began.elapsed());
        assert_eq!(rig.row("late").status, "stopped");
    });
}

/// The one child of the daemon.
pub(crate) fn hanging_child(rig: &Rig) -> i32 {
    let daemon = rig.daemon();
    rig.until("a child", || {
        let mut all = proc::all();
        // Of its own session: not one that only reads /proc for the daemon.
        all.retain(|process| process.parent == daemon && process.session == process.pid);
        all.retain(|process| process.state != 'Z');
        all.first().map(|process| process.pid)
    })
}

#[test]
fn a_launch_that_is_killed_before_its_exec_is_no_start() {
    isolated(here!(), |rig| {
        rig.log_to_nobody("web");
        let starting = rig.spawn(&["start", "web"]);
        let waiting = rig.spawn(&["wait", "--for", "ready", "--timeout", "1s", "web"]);
        rig.kill(hanging_child(rig), Signal::KILL);
        let said = finish(starting, &["start"]);
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.err.starts_with("opm: web: killed before it could execute "), "{said:?}");
        rig.ok(&["stop", "web"]);
        assert_ne!(finish(waiting, &["wait"]).code, Some(0));
        let spawned = rig.events("web").iter().filter(|event| event.event == "spawned").count();
        assert_eq!((spawned, rig.starts("web").len()), (1, 1), "{:?}", rig.events("web"));
    });
}

#[test]
fn a_launch_that_is_stopped_before_its_exec_was_never_online() {
    isolated(here!(), |rig| {
        rig.log_to_nobody("web");
        let starting = rig.spawn(&["start", "web"]);
        hanging_child(rig);
        rig.ok(&["stop", "web"]);
        let said = finish(starting, &["start"]);
        assert_eq!(said.code, Some(1), "{said:?}");
        let words: Vec<String> = rig.events("web").into_iter().map(|event| event.event).collect();
        assert_eq!(words.iter().filter(|word| *word == "ready").count(), 1, "{words:?}");
        assert!(rig.info("web")["note"].is_null());
    });
}

#[test]
fn a_stop_that_waits_outlives_an_upgrade() {
    isolated(here!(), |rig| {
        let ops = "catch:TERM note:up drain:0 note:heard await:go";
        rig.start_with("web", &["--stop-timeout", "20s"], ops);
        rig.note("web", "up");
        let stopping = rig.spawn(&["stop", "web"]);
        rig.note("web", "heard");
        rig.ok(&["daemon", "upgrade"]);
        std::fs::write(rig.lock("web") + ".go", "").unwrap();
        let said = finish(stopping, &["stop"]);
        assert_eq!((said.code, said.out.as_str()), (Some(0), "web: stopped\n"), "{said:?}");
    });
}

#[test]
fn a_daemon_says_what_it_leaves_behind() {
    isolated(here!(), |rig| {
        rig.start("web", "sleep");
        rig.ok(&["daemon", "stop", "--services"]);
        let log = || std::fs::read_to_string(rig.home.join("daemon.log")).unwrap();
        assert!(log().trim_end().ends_with("left; nothing runs"), "{}", log());
        rig.ok(&["start", "web"]);
        rig.ok(&["daemon", "stop"]);
        assert!(log().trim_end().ends_with("left; services keep running"), "{}", log());
    });
}

#[test]
fn restore_wants_up_what_was_on_its_way_down() {
    isolated(here!(), |rig| {
        let options = ["--stop-timeout", "200ms", "--stop-signal", "KILL"];
        let leader = rig.start_with("web", &options, "sleep");
        rig.ok(&["save"]);
        let mut tracer = rig.fixture(&["--trace", &leader.to_string()]);
        rig.until_traced(leader, &tracer);
        let mut stopping = rig.spawn(&["stop", "web"]);
        rig.until_gone(leader);
        // Else it would ask the next daemon, too.
        stopping.kill().unwrap();
        stopping.wait().unwrap();
        rig.ok(&["daemon", "restart"]);
        rig.ok(&["restore"]);
        tracer.kill().unwrap();
        tracer.wait().unwrap();
        rig.until_replaced("web", leader);
    });
}

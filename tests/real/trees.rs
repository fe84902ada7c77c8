//! A leader is not its tree: what slipped away is found, ended and waited for before anything
//! new starts. The fixture's lock, which the whole tree holds, is the judge.
use crate::namespace::{Setting, isolated, isolated_in};
use crate::proc;
use crate::rig::Rig;
use rustix::process::Signal;
use std::time::{Duration, Instant};

in_every_tier! {
    a_child_of_the_group_is_waited_for,
    an_escapee_with_a_session_of_its_own_is_waited_for,
    a_grandchild_that_was_forked_away_is_waited_for,
    a_grandchild_with_a_cleared_environment_is_waited_for,
    an_escapee_that_ignores_the_stop_signal_is_killed_in_time,
    a_leader_whose_main_thread_is_gone_is_alive,
    a_sibling_that_hangs_off_the_daemon_is_waited_for,
}

/// The leader of `ops` is killed; whoever notes `rest` must be gone before a new leader comes.
fn drains(rig: &Rig, ops: &str) {
    let leader = rig.start("web", ops);
    let rest = rig.note("web", "rest");
    rig.kill(leader, Signal::KILL);
    let row = rig.until_replaced("web", leader);
    assert!(!proc::alive(rest), "{rest} outlived the replacement of its leader");
    rig.until("the new leader's note", || {
        (rig.starts("web").len() == 2 && rig.noted("web", "rest").len() == 2).then_some(())
    });
    assert_eq!(rig.starts("web"), [leader, row.pid.unwrap()]);
    // And a stop takes all of the second tree too.
    let rest = rig.note("web", "rest");
    rig.ok(&["stop", "web"]);
    assert!(!proc::alive(rest) && !proc::alive(row.pid.unwrap()));
}

fn a_child_of_the_group_is_waited_for(rig: &Rig) {
    drains(rig, "child [ note:rest sleep ] sleep");
}

fn an_escapee_with_a_session_of_its_own_is_waited_for(rig: &Rig) {
    drains(rig, "child [ setsid note:rest sleep ] sleep");
}

fn a_grandchild_that_was_forked_away_is_waited_for(rig: &Rig) {
    drains(rig, "child [ setsid child [ setsid note:rest sleep ] exit:0 ] wait sleep");
}

fn a_grandchild_with_a_cleared_environment_is_waited_for(rig: &Rig) {
    drains(rig, "child [ setsid child [ setsid clean [ note:rest sleep ] ] exit:0 ] wait sleep");
}

fn an_escapee_that_ignores_the_stop_signal_is_killed_in_time(rig: &Rig) {
    let options = ["--min-uptime", "0s", "--stop-timeout", "500ms"];
    let ops = "child [ setsid ignore:TERM note:rest sleep ] sleep";
    let leader = rig.start_with("web", &options, ops);
    let rest = rig.note("web", "rest");
    let began = Instant::now();
    rig.kill(leader, Signal::KILL);
    rig.until_gone(leader);
    rig.until_gone(rest);
    let took = began.elapsed();
    // The daemon's clock counts whole milliseconds: the one that was under way counts as one.
    assert!(took > Duration::from_millis(499), "killed early: {took:?}");
    rig.until_replaced("web", leader);
}

fn a_leader_whose_main_thread_is_gone_is_alive(rig: &Rig) {
    let leader = rig.start("web", "thread [ note:thread sleep ]");
    rig.note("web", "thread");
    assert_eq!(proc::process(leader).unwrap().state, 'Z');
    // Another service's death makes the daemon look at its children.
    let other = rig.start("other", "sleep");
    rig.kill(other, Signal::KILL);
    rig.until_replaced("other", other);
    assert_eq!(rig.row("web").pid, Some(leader));
    rig.ok(&["restart", "web"]);
    rig.until("the second start", || (rig.starts("web").len() == 2).then_some(()));
    assert!(proc::process(leader).is_none(), "still there");
}

/// CLONE_PARENT: the leader's child is the daemon's child from its first moment.
fn a_sibling_that_hangs_off_the_daemon_is_waited_for(rig: &Rig) {
    drains(rig, "sibling [ setsid note:rest sleep ] sleep");
}

#[test]
fn the_stop_signal_comes_before_the_kill() {
    isolated(here!(), |rig| {
        let ops = "child [ setsid catch:TERM note:rest sleep ] sleep";
        let leader = rig.start("web", ops);
        let rest = rig.note("web", "rest");
        rig.kill(leader, Signal::KILL);
        rig.until_replaced("web", leader);
        assert!(!proc::alive(rest));
        let heard = rig.notes("web").iter().filter(|l| l.starts_with("signal 15")).count();
        assert_eq!(heard, 1, "{:?}", rig.notes("web"));
    });
}

#[test]
fn stopped_escapees_do_not_hold_a_drain_up() {
    isolated(here!(), |rig| {
        let options = ["--min-uptime", "0s", "--stop-timeout", "15s"];
        let leader = rig.start_with("web", &options, "child [ setsid note:rest stop sleep ] sleep");
        let rest = rig.note("web", "rest");
        rig.until("it to stop itself", || {
            proc::process(rest).is_some_and(|p| p.state == 'T').then_some(())
        });
        let began = Instant::now();
        rig.kill(leader, Signal::KILL);
        rig.until_replaced("web", leader);
        assert!(began.elapsed() < Duration::from_secs(10), "it was killed, not continued");
    });
}

#[test]
fn short_lived_children_do_not_confuse_the_gate() {
    isolated(here!(), |rig| {
        let ops = "child [ setsid note:rest rabbits ] child [ rabbits ] rabbits";
        let mut leader = rig.start("web", ops);
        for _ in 0..10 {
            let rest = rig.note("web", "rest");
            rig.kill(leader, Signal::KILL);
            leader = rig.until_replaced("web", leader).pid.unwrap();
            assert!(!proc::alive(rest));
        }
        rig.ok(&["stop", "web"]);
    });
}

/// Whatever of the fixture still runs `op` in the service `web`.
fn left(rig: &Rig, op: &str) -> Vec<String> {
    let all = proc::pids().into_iter().filter(|pid| proc::alive(*pid));
    let lines = all.map(proc::arguments);
    lines.filter(|line| line.contains(&rig.lock("web")) && line.contains(op)).collect()
}

#[test]
fn a_comet_is_caught() {
    isolated(here!(), |rig| {
        // Each of its processes lives for a few milliseconds and has forked the next.
        let leader = rig.start("web", "child [ note:rest comet:3 ] sleep");
        rig.note("web", "rest");
        rig.kill(leader, Signal::KILL);
        rig.until_replaced("web", leader);
        rig.ok(&["stop", "web"]);
        assert_eq!(left(rig, "comet:"), Vec::<String>::new());
    });
}

#[test]
fn a_meteor_that_ignores_the_stop_signal_is_caught() {
    isolated(here!(), |rig| {
        let options = ["--min-uptime", "0s", "--stop-timeout", "300ms"];
        let ops = "child [ ignore:TERM note:rest meteor:10 ] sleep";
        let leader = rig.start_with("web", &options, ops);
        rig.note("web", "rest");
        rig.kill(leader, Signal::KILL);
        rig.until_replaced("web", leader);
        rig.until("the second meteor", || (rig.noted("web", "rest").len() == 2).then_some(()));
        rig.ok(&["stop", "web"]);
        assert_eq!(left(rig, "meteor:"), Vec::<String>::new());
    });
}

/// Nothing of it is the new daemon's child: marks are all that there is.
#[test]
fn an_adopted_meteor_is_caught() {
    isolated(here!(), |rig| {
        let options = ["--min-uptime", "0s", "--stop-timeout", "300ms"];
        let ops = "child [ ignore:TERM note:rest meteor:30 ] sleep";
        let leader = rig.start_with("web", &options, ops);
        rig.note("web", "rest");
        rig.kill_daemon();
        rig.kill(leader, Signal::KILL);
        rig.until_replaced("web", leader);
        rig.ok(&["stop", "web"]);
        assert_eq!(left(rig, "meteor:"), Vec::<String>::new());
    });
}

#[test]
fn a_subreaper_within_the_tree_and_its_children_are_waited_for() {
    isolated(here!(), |rig| {
        drains(
            rig,
            "child [ subreaper setsid child [ setsid child [ setsid note:rest sleep ] exit:0 ] \
             sleep ] sleep",
        );
    });
}

#[test]
fn a_tree_that_hid_its_arguments_and_environment_is_waited_for() {
    isolated(here!(), |rig| {
        drains(
            rig,
            "wipe child [ setsid wipe child [ setsid note:rest sleep ] exit:0 ] wait sleep",
        );
    });
}

#[test]
fn a_leader_that_closed_its_descriptors_is_supervised_like_any() {
    isolated(here!(), |rig| {
        let leader = rig.start("web", "note:up close sleep");
        rig.note("web", "up");
        rig.kill(leader, Signal::KILL);
        let row = rig.until_replaced("web", leader);
        rig.ok(&["restart", "web"]);
        assert!(!proc::alive(row.pid.unwrap()));
    });
}

#[test]
fn a_member_of_another_user_and_one_that_is_not_dumpable_are_waited_for() {
    isolated(here!(), |rig| {
        // The lock of another user's process is the one it inherited; notes come before.
        drains(rig, "child [ setsid note:rest uid:65534 sleep ] sleep");
        rig.ok(&["remove", "web"]);
        for extension in [".notes", ".starts"] {
            std::fs::remove_file(rig.lock("web") + extension).unwrap();
        }
        drains(rig, "undumpable child [ setsid undumpable note:rest sleep ] sleep");
    });
}

#[test]
fn members_with_groups_of_their_own_are_waited_for() {
    isolated(here!(), |rig| {
        drains(rig, "child [ group child [ group note:rest sleep ] sleep ] child [ sleep ] sleep");
    });
}

#[test]
fn zombies_that_an_init_leaves_lying_hold_no_gate_up() {
    let setting = Setting { lazy_init_ms: 1_200, ..Setting::default() };
    isolated_in(setting, here!(), |rig| {
        let leader = rig.start("web", "child [ setsid note:rest sleep ] child [ sleep ] sleep");
        rig.note("web", "rest");
        rig.kill_daemon();
        assert_eq!(rig.row("web").pid, Some(leader));
        let began = Instant::now();
        rig.kill(leader, Signal::KILL);
        rig.until_replaced("web", leader);
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    });
}

#[test]
fn three_hundred_escapees_are_drained() {
    isolated(here!(), |rig| {
        let many = "child [ setsid sleep ] ".repeat(300);
        let leader = rig.start("web", &format!("{many} child [ setsid note:rest sleep ] sleep"));
        rig.note("web", "rest");
        rig.kill(leader, Signal::KILL);
        rig.until_replaced("web", leader);
        rig.ok(&["stop", "web"]);
        let session = |p: &proc::Process| p.state != 'Z' && p.pid == p.session;
        let fixture = crate::namespace::fixture().display().to_string();
        let left = proc::all().into_iter().filter(session).filter(|process| {
            let line = proc::arguments(process.pid);
            line.starts_with(&fixture) && line.contains("/web ")
        });
        assert_eq!(left.count(), 0);
    });
}

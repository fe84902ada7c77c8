//! One stop is one stop signal for each process, whoever else of the tree dies meanwhile: to many
//! a program a second one means "now, hard". The fixture notes each signal, and in whom.
use crate::namespace::{Setting, isolated, isolated_in};
use crate::proc;
use crate::rig::Rig;
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// The claims named are tests with the group's signal and without it.
macro_rules! in_both_tiers {
    ($($claim:ident),* $(,)?) => {
        mod grouped {
            $(#[test] fn $claim() { super::isolated(here!(), super::$claim) })*
        }
        mod one_by_one {
            $(#[test] fn $claim() {
                let setting = super::Setting { without: "pgroup-signal", ..Default::default() };
                super::isolated_in(setting, here!(), super::$claim)
            })*
        }
    };
}

in_both_tiers! {
    a_worker_whose_leader_dies_first_is_asked_once,
    an_escapee_is_asked_once_and_at_once,
    an_escapee_below_a_worker_is_asked_though_the_leader_has_gone,
    a_shell_around_shells_passes_nothing_on_twice,
    a_newcomer_is_asked_when_it_has_lost_its_parent,
    what_a_worker_starts_for_its_end_is_left_to_it,
    an_orphan_that_came_in_silence_is_asked_at_once,
    what_is_stopped_sees_the_signal_and_others_see_no_cont,
    an_adopted_tree_is_asked_once,
    an_operators_signal_is_that_signal_once,
    a_leader_may_wait_for_its_workers,
    what_the_leader_left_is_asked_when_it_has_gone,
}

const PATIENT: [&str; 2] = ["--stop-timeout", "20s"];

/// How often the process that noted `word` has had `signal`.
fn times(rig: &Rig, word: &str, signal: i32) -> usize {
    let (pid, signal) = (rig.note("web", word), format!("signal {signal:02} from"));
    let had = |line: &&String| {
        let who = line.rsplit_once("in ").and_then(|(_, pid)| pid.parse::<i32>().ok());
        line.starts_with(&signal) && who == Some(pid)
    };
    rig.notes("web").iter().filter(had).count()
}

/// A stop in which the leader awaits what the test makes once this is noted.
fn stop_when_noted(rig: &Rig, word: &str) {
    let mut stopping = rig.spawn(&["stop", "web"]);
    rig.note("web", word);
    std::fs::write(rig.lock("web") + ".go", "").unwrap();
    assert!(stopping.wait().unwrap().success());
}

fn await_all(rig: &Rig, words: &[&str]) {
    for word in words {
        rig.note("web", word);
    }
}

fn stop(rig: &Rig) {
    let began = Instant::now();
    let said = rig.ok(&["stop", "web"]);
    assert_eq!(said, "web: stopped\n");
    assert!(began.elapsed() < Duration::from_secs(15), "it was killed: {:?}", rig.notes("web"));
}

fn a_worker_whose_leader_dies_first_is_asked_once(rig: &Rig) {
    rig.start_with("web", &PATIENT, "child [ catch:TERM note:up drain:300 note:saved ] sleep");
    rig.note("web", "up");
    stop(rig);
    assert_eq!(times(rig, "up", 15), 1);
    rig.note("web", "saved");
}

fn an_escapee_is_asked_once_and_at_once(rig: &Rig) {
    let escapee = "child [ setsid child [ group catch:TERM note:deep drain:0 note:heard ] \
                   catch:TERM note:up drain:200 ]";
    // Its leader does not end before the escapees have been asked.
    let ops = format!("{escapee} catch:TERM note:leader drain:0 await:go");
    rig.start_with("web", &PATIENT, &ops);
    await_all(rig, &["leader", "up", "deep"]);
    stop_when_noted(rig, "heard");
    for word in ["leader", "up", "deep"] {
        assert_eq!(times(rig, word, 15), 1, "{word}");
    }
}

fn an_escapee_below_a_worker_is_asked_though_the_leader_has_gone(rig: &Rig) {
    let escapee = "child [ setsid catch:TERM note:deep drain:0 note:heard ]";
    let ops = format!("child [ {escapee} catch:TERM note:up drain:0 await:go ] sleep");
    rig.start_with("web", &PATIENT, &ops);
    await_all(rig, &["up", "deep"]);
    stop_when_noted(rig, "heard");
    assert_eq!((times(rig, "up", 15), times(rig, "deep", 15)), (1, 1));
}

/// Each dies of its own signal at once, and its child becomes an orphan while others drain.
fn a_shell_around_shells_passes_nothing_on_twice(rig: &Rig) {
    let ops = "child [ child [ child [ catch:TERM note:d drain:500 ] catch:TERM note:c drain:200 ] \
               catch:TERM note:b drain:100 ] catch:TERM note:a drain:1";
    rig.start_with("web", &PATIENT, ops);
    await_all(rig, &["a", "b", "c", "d"]);
    stop(rig);
    for word in ["a", "b", "c", "d"] {
        assert_eq!(times(rig, word, 15), 1, "{word}");
    }
}

fn a_newcomer_is_asked_when_it_has_lost_its_parent(rig: &Rig) {
    let newcomer = "child [ catch:TERM note:newcomer drain:1 ]";
    let ops = format!("child [ catch:TERM note:mother drain:50 {newcomer} ms:50 ] sleep");
    rig.start_with("web", &PATIENT, &ops);
    rig.note("web", "mother");
    stop(rig);
    assert_eq!((times(rig, "mother", 15), times(rig, "newcomer", 15)), (1, 1));
}

fn what_a_worker_starts_for_its_end_is_left_to_it(rig: &Rig) {
    let help = "child [ note:help ms:400 note:helped ] wait note:saved";
    let ops = format!("child [ catch:TERM note:worker drain:1 {help} ] catch:TERM drain:150");
    rig.start_with("web", &PATIENT, &ops);
    rig.note("web", "worker");
    stop(rig);
    assert_eq!(times(rig, "worker", 15), 1);
    rig.note("web", "helped");
    rig.note("web", "saved");
}

fn an_orphan_that_came_in_silence_is_asked_at_once(rig: &Rig) {
    // Its parent is waited for by the leader: nothing tells the daemon.
    let orphan = "child [ setsid child [ setsid catch:TERM note:orphan drain:0 note:heard ] ] wait";
    let ops = format!("{orphan} note:ready catch:TERM note:leader drain:0 await:go");
    rig.start_with("web", &PATIENT, &ops);
    await_all(rig, &["orphan", "leader"]);
    stop_when_noted(rig, "heard");
    assert_eq!((times(rig, "orphan", 15), times(rig, "leader", 15)), (1, 1));
}

fn what_is_stopped_sees_the_signal_and_others_see_no_cont(rig: &Rig) {
    let still = "child [ catch:TERM note:still stop drain:1 ]";
    let far = "child [ setsid catch:TERM note:far stop drain:1 ]";
    let ops = format!("{still} {far} catch:CONT catch:TERM note:leader drain:100");
    rig.start_with("web", &PATIENT, &ops);
    rig.note("web", "leader");
    for word in ["still", "far"] {
        let pid = rig.note("web", word);
        rig.until("it to stop itself", || {
            proc::process(pid).is_some_and(|p| p.state == 'T').then_some(())
        });
    }
    stop(rig);
    for word in ["still", "far", "leader"] {
        assert_eq!(times(rig, word, 15), 1, "{word}");
    }
    assert_eq!(times(rig, "leader", libc::SIGCONT), 0);
}

fn an_adopted_tree_is_asked_once(rig: &Rig) {
    let escapee = "child [ setsid catch:TERM note:far drain:300 ]";
    let ops = format!("child [ catch:TERM note:near drain:300 ] {escapee} sleep");
    rig.start_with("web", &PATIENT, &ops);
    rig.note("web", "near");
    rig.note("web", "far");
    rig.kill_daemon();
    assert!(rig.row("web").adopted);
    stop(rig);
    assert_eq!((times(rig, "near", 15), times(rig, "far", 15)), (1, 1));
}

fn an_operators_signal_is_that_signal_once(rig: &Rig) {
    let near = "child [ child [ catch:USR1 note:near sleep ] ]";
    let far = "child [ setsid child [ catch:USR1 note:far sleep ] \
               child [ setsid note:still stop sleep ] catch:USR1 note:half sleep ]";
    rig.start("web", &format!("{near} {far} catch:USR1 note:leader sleep"));
    let all = ["near", "far", "half", "leader"];
    await_all(rig, &all);
    let still = rig.note("web", "still");
    let is_stopped = |pid: i32| proc::process(pid).is_some_and(|p| p.state == 'T');
    rig.until("it to stop itself", || is_stopped(still).then_some(()));
    rig.ok(&["signal", "--tree", "web", "USR1"]);
    for word in all {
        rig.until("the signal", || (times(rig, word, libc::SIGUSR1) > 0).then_some(()));
        assert_eq!(times(rig, word, libc::SIGUSR1), 1, "{word}");
    }
    assert!(is_stopped(still), "it was continued");
    rig.ok(&["signal", "--tree", "web", "STOP"]);
    for word in all {
        let pid = rig.note("web", word);
        rig.until("all to be stopped", || is_stopped(pid).then_some(()));
    }
    // Whatever else follows the signal has followed it by now.
    rig.ok(&["ls"]);
    assert!(all.map(|word| rig.note("web", word)).into_iter().all(is_stopped));
}

/// A worker that knows no stop signal ends its job, and the leader waits for it.
fn a_leader_may_wait_for_its_workers(rig: &Rig) {
    let options = ["--stop-timeout", "20s", "--stop-reach", "leader"];
    let ops = "child [ note:job await:go note:ended ] \
               catch:TERM note:up drain:0 note:waits wait note:over";
    rig.start_with("web", &options, ops);
    rig.note("web", "job");
    rig.note("web", "up");
    stop_when_noted(rig, "waits");
    rig.note("web", "ended");
    rig.note("web", "over");
    let info = rig.info("web");
    assert_eq!(info["policy"]["stop_reach"], "leader");
}

fn what_the_leader_left_is_asked_when_it_has_gone(rig: &Rig) {
    let options = ["--stop-timeout", "20s", "--stop-reach", "leader"];
    let near = "child [ catch:TERM note:near drain:100 ]";
    let far = "child [ setsid catch:TERM note:far drain:100 ]";
    rig.start_with("web", &options, &format!("{near} {far} sleep"));
    rig.note("web", "near");
    rig.note("web", "far");
    stop(rig);
    assert_eq!((times(rig, "near", 15), times(rig, "far", 15)), (1, 1));
}

#[test]
fn a_leader_that_does_not_end_is_killed_with_all_that_it_keeps() {
    isolated(here!(), |rig| {
        let options = ["--stop-timeout", "300ms", "--stop-reach", "leader"];
        let ops = "child [ catch:TERM note:worker sleep ] ignore:TERM note:up sleep";
        let leader = rig.start_with("web", &options, ops);
        let worker = rig.note("web", "worker");
        rig.note("web", "up");
        rig.ok(&["stop", "web"]);
        assert!(!proc::alive(leader) && !proc::alive(worker));
        assert_eq!(times(rig, "worker", 15), 0);
    });
}

#[test]
fn a_death_asks_the_rest_once() {
    isolated(here!(), |rig| {
        let far =
            "child [ setsid child [ catch:TERM note:deep drain:200 ] catch:TERM note:far drain:1 ]";
        let near = "child [ catch:TERM note:near drain:300 ]";
        let options = ["--min-uptime", "0s", "--stop-timeout", "20s", "--restart", "never"];
        let leader = rig.start_with("web", &options, &format!("{far} {near} sleep"));
        let all = ["deep", "far", "near"];
        await_all(rig, &all);
        rig.kill(leader, Signal::KILL);
        rig.until_status("web", "errored");
        for word in all {
            assert_eq!(times(rig, word, 15), 1, "{word}");
        }
    });
}

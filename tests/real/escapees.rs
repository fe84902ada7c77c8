//! `--escapees keep`: what has left the leader's session lives on, and nothing else does.
use crate::namespace::isolated;
use crate::proc;
use crate::rig::Rig;
use rustix::process::Signal;

with_each_witness! {
    what_left_the_session_is_kept_by_every_stop_under_any_daemon,
    what_stayed_in_the_session_below_what_is_kept_is_waited_for,
}

const KEEP: [&str; 6] = ["--escapees", "keep", "--min-uptime", "0s", "--stop-timeout", "300ms"];

/// The kept hold the lock of an incarnation that has ended, and bear its marks.
fn forgive(rig: &Rig) {
    rig.forgive_doubles();
    rig.forgive_clashes();
}

fn kept(rig: &Rig) -> Vec<i32> {
    let kept = rig.info("web").get("kept").cloned().unwrap_or_else(|| Vec::<i32>::new().into());
    let mut kept: Vec<i32> = serde_json::from_value(kept).unwrap();
    kept.sort_unstable();
    kept
}

fn what_left_the_session_is_kept_by_every_stop_under_any_daemon(rig: &Rig) {
    forgive(rig);
    let ops = "child [ setsid note:kept child [ note:deep sleep ] sleep ] \
               child [ ignore:TERM note:rest sleep ] sleep";
    let leader = rig.start_with("web", &KEEP, ops);
    let (first, deep, rest) =
        (rig.note("web", "kept"), rig.note("web", "deep"), rig.note("web", "rest"));
    rig.ok(&["stop", "web"]);
    assert!(!proc::alive(leader) && !proc::alive(rest));
    assert!(proc::alive(first) && proc::alive(deep));
    assert_eq!(kept(rig), [first]);
    assert!(
        rig.ok(&["info", "web"])
            .lines()
            .any(|line| { line.split_whitespace().eq(["kept", &first.to_string()]) })
    );
    // What is left to us by what was kept is kept, too, and holds nothing up.
    rig.kill(first, Signal::KILL);
    rig.until("the deep one", || (kept(rig) == [deep]).then_some(()));
    rig.ok(&["start", "web"]);
    let second = rig.until("the second", || rig.noted("web", "kept").get(1).copied());
    let leader = rig.row("web").pid.unwrap();
    rig.kill(leader, Signal::KILL);
    let leader = rig.until_replaced("web", leader).pid.unwrap();
    let third = rig.until("the third", || rig.noted("web", "kept").get(2).copied());
    assert!(proc::alive(deep) && proc::alive(second));
    // Another image of the daemon knows them, and the next daemon takes them for nobody's.
    rig.ok(&["daemon", "restart"]);
    assert_eq!(kept(rig), [deep.min(second), deep.max(second)]);
    rig.kill_daemon();
    assert_eq!(rig.row("web").pid, Some(leader));
    rig.ok(&["restart", "web"]);
    assert!(!proc::alive(leader) && [deep, second, third].into_iter().all(proc::alive));
    let fourth = rig.until("the fourth", || rig.noted("web", "kept").get(3).copied());
    rig.kill_daemon();
    rig.ok(&["stop", "web"]);
    assert_eq!(rig.row("web").status, "stopped");
    assert!([deep, second, third, fourth].into_iter().all(proc::alive));
    rig.kill_daemon();
    rig.ok(&["start", "web"]);
    rig.ok(&["adjust", "web", "--escapees", "kill"]);
    rig.ok(&["restart", "web"]);
    let last = rig.until("the last", || rig.noted("web", "kept").get(5).copied());
    rig.ok(&["stop", "web"]);
    assert!(!proc::alive(last));
}

fn what_stayed_in_the_session_below_what_is_kept_is_waited_for(rig: &Rig) {
    forgive(rig);
    let ops = "child [ child [ ignore:TERM note:near sleep ] setsid note:kept sleep ] sleep";
    let leader = rig.start_with("web", &KEEP, ops);
    let (near, kept) = (rig.note("web", "near"), rig.note("web", "kept"));
    rig.kill(leader, Signal::KILL);
    rig.until_replaced("web", leader);
    assert!(!proc::alive(near) && proc::alive(kept));
}

#[test]
fn a_word_that_is_neither_is_refused() {
    isolated(here!(), |rig| {
        let line = rig.refused(2, &["start", "--escapees", "some", "--", "sleep", "1"]);
        assert!(line.contains("--escapees") && line.contains("kill or keep"), "{line}");
        assert!(rig.rows().is_empty());
    });
}

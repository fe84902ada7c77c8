//! The law where marks say nothing: whatever a process of a service has lost or lowered, and
//! wherever it has gone, the next incarnation waits for its end.
use crate::adopt::dies_without_a_daemon;
use crate::home::empty;
use crate::hostile::at_home;
use crate::namespace::{fixture, opm};
use crate::proc;
use crate::rig::{Rig, one_line};
use crate::scarce::start_with_descriptors;
use rustix::process::Signal;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

with_each_witness! {
    what_a_killed_nested_run_leaves_is_drained,
    what_a_nested_run_below_a_shell_leaves_is_drained,
    a_limit_of_zero_hides_nobody,
    a_limit_of_another_home_hides_nobody,
    a_limit_just_below_its_own_hides_nobody,
    a_limit_of_another_home_hides_nobody_beside_others,
    a_lost_home_finds_its_service_again,
    a_lost_home_whose_service_has_no_environment_says_what_stands_in_the_way,
    the_services_of_a_daemon_that_left_are_its_own,
    an_adopted_tree_drains_among_zombies,
    six_hundred_orphans_take_nothing_from_others,
    six_hundred_adopted_orphans_take_nothing_from_others,
    upgrades_eat_no_level,
}

/// Where only the kernel's word on whose a process is can help.
mod with_namespaces {
    use super::{
        a_limit_just_below_its_own_hides_nobody_beside_others, all_marks_off_and_found,
        all_marks_off_in_a_nested_run,
    };
    in_every_tier! {
        @tier full "" Root
        a_limit_just_below_its_own_hides_nobody_beside_others
        all_marks_off_and_found
        all_marks_off_in_a_nested_run
    }
    in_every_tier! {
        @tier without_namespace_handle "namespace-handle" Root
        a_limit_just_below_its_own_hides_nobody_beside_others
        all_marks_off_and_found
        all_marks_off_in_a_nested_run
    }
}

/// Only root can put a process there.
mod elsewhere {
    use super::what_is_in_another_pid_namespace_is_waited_for;
    in_every_tier! { @tier full "" Root what_is_in_another_pid_namespace_is_waited_for }
    in_every_tier! {
        @tier without_namespace_handle "namespace-handle" Root
        what_is_in_another_pid_namespace_is_waited_for
    }
    in_every_tier! {
        @tier without_time_namespace "time-namespace" Root
        what_is_in_another_pid_namespace_is_waited_for
    }
}

/// Starts `script` as service `name`; its leader.
fn start_script(rig: &Rig, name: &str, script: &str) -> i32 {
    let options = ["--min-uptime", "0s", "--stop-timeout", "1s"];
    let mut words = vec!["start", "--name", name];
    words.extend(options);
    words.extend(["--", "bash", "-c", script]);
    rig.ok(&words);
    rig.row(name).pid.unwrap()
}

/// The process that noted `word` after all of `before` had.
fn next_note(rig: &Rig, name: &str, word: &str, before: usize) -> i32 {
    rig.until(&format!("{name} to note {word}"), || rig.noted(name, word).get(before).copied())
}

// Nested.

/// An opm in a service, with a home for each run, of a program that has no environment.
fn nested(rig: &Rig, exec: &str) -> String {
    format!(
        "export OPM_HOME=$(mktemp -d {}/i.XXXXXX); {exec} {} run -- {} {} setsid clean [ note:in \
         sleep ]; exit 3",
        rig.dir.display(),
        opm().display(),
        fixture().display(),
        rig.lock("in"),
    )
}

fn killed_nested_run(rig: &Rig, exec: &str) {
    let leader = start_script(rig, "stack", &nested(rig, exec));
    let inner = next_note(rig, "in", "in", 0);
    assert_eq!(proc::variable(inner, "OPM_MARK"), None);
    let run = proc::process(inner).unwrap().parent;
    assert_eq!(run == leader, exec == "exec");
    rig.kill(run, Signal::KILL);
    let second = next_note(rig, "in", "in", 1);
    assert!(!proc::alive(inner));
    rig.kill(proc::process(second).unwrap().parent, Signal::KILL);
    let third = next_note(rig, "in", "in", 2);
    assert!(!proc::alive(second));
    rig.ok(&["stop", "stack"]);
    assert!(!proc::alive(third));
}

fn what_a_killed_nested_run_leaves_is_drained(rig: &Rig) {
    killed_nested_run(rig, "exec");
}

fn what_a_nested_run_below_a_shell_leaves_is_drained(rig: &Rig) {
    killed_nested_run(rig, "");
}

/// The outer daemon is dead, too, when the nested one dies.
fn all_marks_off_in_a_nested_run(rig: &Rig) {
    let leader = start_script(rig, "stack", &nested(rig, "exec"));
    let inner = next_note(rig, "in", "in", 0);
    dies_without_a_daemon(rig, "stack", leader, inner);
    rig.ok(&["stop", "stack"]);
}

// Lowered.

/// A grandchild without environment, in a session of its own, its parent gone, and this limit.
fn lowered(limit: &str) -> String {
    format!(
        "child [ setsid child [ setsid clean [ locks:{limit} note:rest sleep ] ] exit:0 ] wait \
         sleep"
    )
}

/// `opm ARGS…` ends `rest`; or, where nobody can tell whose it is, it names it and starts nothing
/// until it has gone.
fn ends_or_names(rig: &Rig, args: &[&str], rest: i32, may_name: bool) {
    let starts = rig.starts("web").len();
    let ran = rig.opm(args);
    if !proc::alive(rest) {
        assert_eq!(ran.code, Some(0), "{ran:?}");
        return;
    }
    assert!(may_name, "{rest} lives on: {ran:?}");
    assert_eq!(ran.code, Some(5), "{ran:?}");
    assert!(one_line(&ran, args).contains(&rest.to_string()), "{ran:?}");
    assert_eq!(rig.starts("web").len(), starts);
    rig.kill(rest, Signal::KILL);
    rig.until_gone(rest);
}

fn lowered_limit(rig: &Rig, limit: &str, others: &[&str]) {
    let pids: Vec<i32> = others.iter().map(|name| rig.start(name, "sleep")).collect();
    let may_name = !others.is_empty() && !rig.has_time_namespaces();
    rig.start("web", &lowered(limit));
    let rest = next_note(rig, "web", "rest", 0);
    assert_eq!(proc::variable(rest, "OPM_MARK"), None);
    ends_or_names(rig, &["restart", "web"], rest, may_name);
    let rest = next_note(rig, "web", "rest", 1);
    let leader = rig.until_status("web", "online").pid.unwrap();
    rig.kill(leader, Signal::KILL);
    if may_name {
        rig.until_gone(leader);
        ends_or_names(rig, &["stop", "web"], rest, true);
        rig.until_status("web", "stopped");
        rig.ok(&["start", "web"]);
    }
    rig.until_replaced("web", leader);
    assert!(!proc::alive(rest));
    let rest = next_note(rig, "web", "rest", 2);
    ends_or_names(rig, &["stop", "web"], rest, may_name);
    rig.until_status("web", "stopped");
    // Theirs nobody took it for.
    for (name, pid) in others.iter().zip(pids) {
        assert_eq!(rig.row(name).pid, Some(pid), "{name}");
    }
}

fn a_limit_of_zero_hides_nobody(rig: &Rig) {
    lowered_limit(rig, "0", &[]);
}

fn a_limit_of_another_home_hides_nobody(rig: &Rig) {
    lowered_limit(rig, "0x7ff8000123000005", &[]);
}

fn a_limit_just_below_its_own_hides_nobody(rig: &Rig) {
    lowered_limit(rig, "-1", &[]);
}

fn a_limit_just_below_its_own_hides_nobody_beside_others(rig: &Rig) {
    lowered_limit(rig, "-1", &["first", "second"]);
}

fn a_limit_of_another_home_hides_nobody_beside_others(rig: &Rig) {
    lowered_limit(rig, "0x7ff8000123000005", &["first", "second"]);
}

fn all_marks_off_and_found(rig: &Rig) {
    rig.start("other", "sleep");
    let leader = rig.start("web", &lowered("0"));
    let rest = next_note(rig, "web", "rest", 0);
    dies_without_a_daemon(rig, "web", leader, rest);
    let rest = next_note(rig, "web", "rest", 1);
    rig.kill_daemon();
    rig.ok(&["stop", "web"]);
    assert!(!proc::alive(rest));
    assert_eq!(rig.row("other").status, "online");
}

// Elsewhere.

/// What it leaves belongs to the init of that namespace when its parent has ended.
fn what_is_in_another_pid_namespace_is_waited_for(rig: &Rig) {
    let mut unshare = Command::new("unshare");
    unshare.args(["--pid", "--fork", "--kill-child", "sleep", "1000"]);
    let mut unshare = unshare.spawn().unwrap();
    let outer = unshare.id().cast_signed();
    let init = rig.until("its init", || {
        let mut all = proc::all();
        all.retain(|p| p.parent == outer && proc::arguments(p.pid).starts_with("sleep"));
        all.first().map(|process| process.pid)
    });
    let (lock, program) = (rig.lock("web"), fixture().display().to_string());
    // The lock is held by both.
    let script = format!(
        "exec 9>>{lock}.lock; flock -n 9 || echo $$ met a living predecessor >>{lock}.clash; \
         nsenter -t {init} -p setsid -f {program} --held {lock} ignore:TERM note:rest sleep; \
         exec {program} --held {lock} note:up sleep"
    );
    let words = format!("{program} --held {lock} ignore:TERM");
    let rests = || -> Vec<i32> {
        let is_rest = |pid: &i32| proc::alive(*pid) && proc::arguments(*pid).starts_with(&words);
        proc::pids().into_iter().filter(is_rest).collect()
    };
    let rest = || rig.until("what is there", || rests().first().copied());
    let leader = start_script(rig, "web", &script);
    next_note(rig, "web", "up", 0);
    let first = rest();
    rig.kill(leader, Signal::KILL);
    let leader = rig.until_replaced("web", leader).pid.unwrap();
    next_note(rig, "web", "up", 1);
    assert!(!proc::alive(first));
    let second = rest();
    rig.kill_daemon();
    rig.kill(leader, Signal::KILL);
    rig.until_gone(leader);
    rig.until_replaced("web", leader);
    next_note(rig, "web", "up", 2);
    assert!(!proc::alive(second));
    rig.ok(&["stop", "web"]);
    assert_eq!(rests(), Vec::<i32>::new());
    assert!(proc::alive(init), "the init of that namespace was taken for one of it");
    unshare.kill().unwrap();
    unshare.wait().unwrap();
}

// Lost.

fn lose_home(rig: &Rig) {
    rig.kill_daemon();
    empty(rig);
}

/// In another directory than the one where it was started.
fn moved(rig: &Rig, with: &str) -> String {
    format!("cd /; exec {with} {} {} note:up sleep", fixture().display(), rig.lock("web"))
}

fn a_lost_home_finds_its_service_again(rig: &Rig) {
    let script = moved(rig, "");
    let leader = start_script(rig, "web", &script);
    next_note(rig, "web", "up", 0);
    lose_home(rig);
    let line = rig.refused(1, &["start", "--name", "web", "--", "bash", "-c", &script]);
    assert!(line.contains("the name is taken"), "{line}");
    assert_eq!(rig.row("web").pid, Some(leader));
    rig.assert_starts("web", 1);
    let generation = rig.row("web").generation;
    rig.ok(&["restart", "web"]);
    assert!(!proc::alive(leader));
    assert_eq!(rig.row("web").generation, generation + 1);
    rig.kill_daemon();
    assert_eq!(rig.row("web").generation, generation + 1);
    rig.ok(&["stop", "web"]);
    rig.assert_starts("web", 2);
}

fn a_lost_home_whose_service_has_no_environment_says_what_stands_in_the_way(rig: &Rig) {
    let script = moved(rig, "env -i");
    let leader = start_script(rig, "web", &script);
    next_note(rig, "web", "up", 0);
    lose_home(rig);
    let words = ["start", "--name", "web", "--", "bash", "-c", &script];
    let line = rig.refused(5, &words);
    assert!(line.contains(&leader.to_string()), "{line}");
    rig.assert_starts("web", 1);
    rig.kill(leader, Signal::KILL);
    rig.until_gone(leader);
    rig.ok(&words);
    rig.assert_starts("web", 2);
}

// A daemon that left.

/// It was started from inside a service, and what it runs is no service's of the outer one, even
/// if it is dead.
fn the_services_of_a_daemon_that_left_are_its_own(rig: &Rig) {
    let inner = rig.dir.join("i");
    let script = format!(
        "OPM_HOME={} {} start --name in -- {} {} sleep; echo >>{}; exec sleep 1000",
        inner.display(),
        opm().display(),
        fixture().display(),
        rig.lock("in"),
        rig.lock("said"),
    );
    let said = |count: usize| {
        let text = std::fs::read_to_string(rig.lock("said")).unwrap_or_default();
        (text.lines().count() == count).then_some(())
    };
    let kill_inner = || {
        let text = std::fs::read_to_string(inner.join("opm.pid")).unwrap();
        let daemon = text.trim().parse().unwrap();
        rig.kill(daemon, Signal::KILL);
        rig.until_gone(daemon);
    };
    start_script(rig, "shell", &script);
    rig.until("the first start", || said(1));
    let service = rig.until("the inner service", || rig.starts("in").last().copied());
    kill_inner();
    rig.ok(&["stop", "shell"]);
    assert!(proc::alive(service));
    rig.ok(&["start", "shell"]);
    rig.until("the second start", || said(2));
    kill_inner();
    rig.ok(&["restart", "shell"]);
    rig.until("the third start", || said(3));
    rig.ok(&["stop", "shell"]);
    let ran = at_home(rig, &inner, &["ls", "--format", "json"]);
    let rows: Vec<crate::rig::Row> = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((rows[0].pid, rows[0].status.as_str()), (Some(service), "online"));
    assert!(rows[0].adopted);
    assert_eq!(at_home(rig, &inner, &["daemon", "stop", "--services"]).code, Some(0));
    assert!(!proc::alive(service));
}

// Much.

/// The fixture, of whoever runs opm.
fn neighbour(rig: &Rig, ops: &[&str]) -> Child {
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={}", rig.uid())).arg("--clear-groups").arg(fixture()).arg("-");
    command.args(ops).current_dir(&rig.dir).spawn().unwrap()
}

fn an_adopted_tree_drains_among_zombies(rig: &Rig) {
    let mut neighbours = [neighbour(rig, &["orphans:300"]), neighbour(rig, &["zombies:500"])];
    neighbours[0].wait().unwrap();
    let parent = neighbours[1].id().cast_signed();
    rig.start("web", "child [ setsid note:rest sleep ] sleep");
    rig.until("zombies", || (rig.zombies_of(parent).len() >= 40).then_some(()));
    for _ in 0..2 {
        rig.kill_daemon();
        let leader = rig.row("web").pid.unwrap();
        let (began, cpu) = (Instant::now(), proc::cpu_ms(rig.daemon()));
        rig.kill(leader, Signal::KILL);
        rig.until_replaced("web", leader);
        let (took, cpu) = (began.elapsed(), proc::cpu_ms(rig.daemon()) - cpu);
        assert!(took < Duration::from_secs(10), "{took:?}");
        assert!(cpu < 1_000, "{cpu} ms of CPU in {took:?}");
    }
    neighbours[1].kill().unwrap();
    neighbours[1].wait().unwrap();
}

fn six_hundred_orphans(rig: &Rig, adopted: bool) {
    let start_daemon = || {
        let ran = start_with_descriptors(rig, 256);
        assert_eq!(ran.code, Some(0), "{ran:?}");
    };
    start_daemon();
    let other = rig.start("other", "sleep");
    rig.start("web", "orphans:600 note:up sleep");
    next_note(rig, "web", "up", 0);
    let words = format!("{} {} orphans:600", fixture().display(), rig.lock("web"));
    let alive = || {
        let is_its = |pid: &i32| proc::alive(*pid) && proc::arguments(*pid).starts_with(&words);
        proc::pids().iter().filter(|pid| is_its(pid)).count()
    };
    if adopted {
        rig.kill_daemon();
        start_daemon();
    }
    rig.kill(other, Signal::KILL);
    rig.until_replaced("other", other);
    rig.ok(&["restart", "other"]);
    assert_eq!(alive(), 601);
    rig.ok(&["stop", "web"]);
    assert_eq!(alive(), 0);
}

fn six_hundred_orphans_take_nothing_from_others(rig: &Rig) {
    six_hundred_orphans(rig, false);
}

fn six_hundred_adopted_orphans_take_nothing_from_others(rig: &Rig) {
    six_hundred_orphans(rig, true);
}

fn upgrades_eat_no_level(rig: &Rig) {
    let level = |pid| proc::locks_limit(pid) >> 47;
    let first = level(rig.start("web", "sleep"));
    let daemon = level(rig.daemon());
    for _ in 0..30 {
        rig.ok(&["daemon", "restart"]);
    }
    rig.ok(&["restart", "web"]);
    assert_eq!(level(rig.row("web").pid.unwrap()), first);
    assert_eq!(level(rig.daemon()), daemon);
}

//! After the daemon's death: what it started goes on, the next daemon takes it over as it is, and
//! what died meanwhile is drained and replaced.
use crate::namespace::{Setting, fixture, isolated, isolated_in};
use crate::proc;
use crate::rig::{Rig, one_line};
use rustix::process::Signal;
use std::time::{Duration, Instant};

in_every_tier! {
    what_runs_is_adopted_as_it_is,
    the_exit_of_an_adopted_leader_is_noticed_at_once,
    a_leader_that_died_while_no_daemon_ran_is_drained_and_replaced,
    an_unmarked_looking_grandchild_born_after_the_daemons_death_is_drained,
    a_stranger_with_a_dead_leaders_pid_is_left_alone,
    a_dead_leaders_pid_that_is_now_a_thread_stands_in_nobodys_way,
    a_stranger_without_its_first_thread_stands_in_nobodys_way,
    a_daemon_killed_in_a_drain_is_followed_by_one_that_goes_on_draining,
    what_was_stopped_stays_stopped,
}

/// Kills the daemon and lets the next one come.
fn replace_daemon(rig: &Rig) {
    let old = rig.daemon();
    rig.kill_daemon();
    rig.ok(&["ls"]);
    assert_ne!(rig.daemon(), old);
}

fn what_runs_is_adopted_as_it_is(rig: &Rig) {
    rig.start("first", "sleep");
    rig.start("web", "child [ setsid note:rest sleep ] sleep");
    let rest = rig.note("web", "rest");
    rig.ok(&["restart", "web"]);
    let rest = rig.until("the second tree", || {
        rig.noted("web", "rest").last().copied().filter(|pid| *pid != rest)
    });
    rig.ok(&["remove", "first"]);
    let before = rig.row("web");
    let tree = rig.tree("web");
    replace_daemon(rig);
    let after = rig.row("web");
    assert_eq!(after.pid, before.pid);
    assert_eq!(after.id, before.id);
    assert_eq!(after.generation, before.generation);
    assert_eq!((after.restarts, after.status.as_str()), (1, "online"));
    assert!(after.adopted && !before.adopted);
    assert!(after.uptime_ms >= before.uptime_ms, "{before:?} {after:?}");
    assert_eq!(rig.tree("web"), tree);
    assert!(tree.contains(&rest), "{tree:?}");
    // Twice, and then a stop takes the whole adopted tree.
    replace_daemon(rig);
    assert_eq!(rig.row("web").pid, before.pid);
    rig.ok(&["stop", "web"]);
    assert!(tree.iter().all(|pid| !proc::alive(*pid)), "{tree:?}");
    rig.assert_starts("web", 2);
}

fn the_exit_of_an_adopted_leader_is_noticed_at_once(rig: &Rig) {
    let leader = rig.start("web", "await:go exit:7");
    replace_daemon(rig);
    std::fs::write(rig.lock("web") + ".go", "").unwrap();
    rig.until("a second start", || (rig.starts("web").len() > 1).then_some(()));
    rig.ok(&["stop", "web"]);
    let exited = rig.events("web").into_iter().find(|event| event.event == "exited").unwrap();
    // Who can't be waited for may end with an unknown status, but never with a wrong one.
    assert!(matches!(exited.code, None | Some(7)), "{exited:?}");
    assert!(!proc::alive(leader));
}

#[test]
fn the_exit_code_of_an_adopted_leader_is_known_where_the_kernel_tells() {
    isolated(here!(), |rig| {
        rig.start("web", "await:go exit:7");
        let doctor = rig.json(&["doctor"]).to_string();
        replace_daemon(rig);
        std::fs::write(rig.lock("web") + ".go", "").unwrap();
        let exited = rig.until("its exit", || {
            rig.events("web").into_iter().find(|event| event.event == "exited")
        });
        assert_eq!(exited.code, Some(7), "{exited:?}, {doctor}");
        rig.ok(&["stop", "web"]);
    });
}

/// Daemon and leader die: `rest` outlives them, and the next leader waits for its end.
#[track_caller]
pub(crate) fn dies_without_a_daemon(rig: &Rig, name: &str, leader: i32, rest: i32) {
    rig.kill_daemon();
    rig.kill(leader, Signal::KILL);
    rig.until_gone(leader);
    assert!(proc::alive(rest));
    rig.until_replaced(name, leader);
    assert!(!proc::alive(rest));
}

fn a_leader_that_died_while_no_daemon_ran_is_drained_and_replaced(rig: &Rig) {
    let leader = rig.start("web", "child [ setsid ignore:TERM note:rest sleep ] sleep");
    let rest = rig.note("web", "rest");
    dies_without_a_daemon(rig, "web", leader, rest);
    let first = rig.row("web");
    rig.assert_starts("web", 2);
    assert_eq!(first.restarts, 1);
}

/// Its environment is empty, its parent is init, its session is its own: one mark is left.
fn an_unmarked_looking_grandchild_born_after_the_daemons_death_is_drained(rig: &Rig) {
    let ops = "note:up await:go child [ setsid child [ setsid clean [ note:rest sleep ] ] exit:0 ] \
               wait sleep";
    let leader = rig.start("web", ops);
    rig.note("web", "up");
    rig.kill_daemon();
    std::fs::write(rig.lock("web") + ".go", "").unwrap();
    let rest = rig.note("web", "rest");
    rig.until("it to belong to init", || {
        proc::process(rest).is_some_and(|process| process.parent == 1).then_some(())
    });
    rig.kill(leader, Signal::KILL);
    rig.until_gone(leader);
    rig.until_replaced("web", leader);
    assert!(!proc::alive(rest), "{rest} lives on");
}

/// The stranger leads a group and a session with the dead leader's number, in its directory.
fn a_stranger_with_a_dead_leaders_pid_is_left_alone(rig: &Rig) {
    let leader = rig.start("web", "sleep");
    rig.kill_daemon();
    rig.kill(leader, Signal::KILL);
    rig.until("its pid to be free", || proc::process(leader).is_none().then_some(()));
    let noted = rig.dir.join("second-stranger");
    let (program, number) = (fixture().display().to_string(), leader.to_string());
    let words = ["--occupy", &number, "setsid", &program, "--stranger", noted.to_str().unwrap()];
    assert!(rig.fixture(&words).wait().unwrap().success());
    let stranger = rig.until("the stranger", || {
        let lead = proc::process(leader).filter(|p| p.session == leader && p.group == leader);
        lead.filter(|_| proc::arguments(leader).contains("--stranger"))
    });
    let row = rig.until_replaced("web", leader);
    assert!(!row.adopted);
    for command in [["restart", "web"], ["stop", "web"], ["remove", "web"]] {
        rig.ok(&command);
    }
    let now = proc::process(leader).expect("the stranger was killed");
    assert_eq!(now.start, stranger.start);
    assert_eq!(std::fs::read_to_string(&noted).unwrap(), "", "the stranger was signalled");
    rig.kill(leader, Signal::KILL);
}

/// pidfd_open of a thread's id: ENOENT here, EINVAL on older kernels.
fn a_dead_leaders_pid_that_is_now_a_thread_stands_in_nobodys_way(rig: &Rig) {
    let leader = rig.start("web", "sleep");
    rig.kill_daemon();
    rig.kill(leader, Signal::KILL);
    let is_free = || proc::process(leader).is_none().then_some(());
    rig.until("its pid to be free", is_free);
    let (over, waits) = std::sync::mpsc::channel::<()>();
    let mut threads = Vec::new();
    let task = format!("/proc/self/task/{leader}");
    let waits = std::sync::Arc::new(std::sync::Mutex::new(waits));
    rig.until("a thread with its number", || {
        std::fs::write("/proc/sys/kernel/ns_last_pid", (leader - 1).to_string()).unwrap();
        let waits = std::sync::Arc::clone(&waits);
        threads.push(std::thread::spawn(move || waits.lock().unwrap().recv().is_ok()));
        std::path::Path::new(&task).exists().then_some(())
    });
    let row = rig.until_replaced("web", leader);
    assert_eq!(row.restarts, 1);
    rig.ok(&["stop", "web"]);
    drop(over);
    for thread in threads {
        thread.join().unwrap();
    }
}

/// /proc/PID/environ of a process whose first thread has exited is ESRCH, as if it had vanished.
fn a_stranger_without_its_first_thread_stands_in_nobodys_way(rig: &Rig) {
    let leader = rig.start("web", "sleep");
    let mut stranger = rig.fixture(&["--held", "-", "thread", "[", "sleep", "]"]);
    let pid = stranger.id().cast_signed();
    rig.until("its first thread's end", || {
        proc::process(pid).filter(|process| process.state == 'Z')
    });
    rig.kill_daemon();
    rig.kill(leader, Signal::KILL);
    rig.until_replaced("web", leader);
    assert!(proc::alive(pid), "the stranger was killed");
    rig.kill(pid, Signal::KILL);
    stranger.wait().unwrap();
}

fn a_daemon_killed_in_a_drain_is_followed_by_one_that_goes_on_draining(rig: &Rig) {
    let options = ["--min-uptime", "0s", "--stop-timeout", "1s"];
    let ops = "child [ setsid ignore:TERM note:rest sleep ] sleep";
    let leader = rig.start_with("web", &options, ops);
    let rest = rig.note("web", "rest");
    rig.kill(leader, Signal::KILL);
    rig.until_status("web", "stopping");
    rig.kill_daemon();
    assert!(proc::alive(rest), "the daemon did not die in the drain");
    let row = rig.until_replaced("web", leader);
    assert!(!proc::alive(rest) && row.restarts == 1, "{row:?}");
    rig.assert_starts("web", 2);
}

fn what_was_stopped_stays_stopped(rig: &Rig) {
    let web = rig.start("web", "sleep");
    rig.start("down", "sleep");
    rig.ok(&["stop", "down"]);
    replace_daemon(rig);
    assert_eq!(rig.row("web").pid, Some(web));
    let down = rig.row("down");
    assert_eq!((down.status.as_str(), down.pid), ("stopped", None));
    rig.assert_starts("down", 1);
}

#[test]
fn a_daemon_killed_while_a_stop_waits_is_followed_by_one_that_stops() {
    isolated(here!(), |rig| {
        let options = ["--stop-timeout", "2s"];
        let leader = rig.start_with("web", &options, "ignore:TERM note:up sleep");
        rig.note("web", "up");
        let mut stop = rig.spawn(&["stop", "web"]);
        rig.until_status("web", "stopping");
        rig.kill_daemon();
        stop.wait().unwrap();
        rig.until_status("web", "stopped");
        assert!(!proc::alive(leader));
        rig.assert_starts("web", 1);
    });
}

#[test]
fn with_the_journal_deleted_services_are_found_by_their_marks() {
    isolated(here!(), |rig| {
        let ops = "child [ setsid note:rest sleep ] sleep";
        let leader = rig.start("web", ops);
        let rest = rig.note("web", "rest");
        rig.ok(&["save"]);
        rig.kill_daemon();
        std::fs::remove_file(rig.home.join("journal")).unwrap();
        let ran = rig.opm(&["ls", "--format", "json"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        rig.opm(&["restore"]);
        let row = rig.row("web");
        // Either it is the same one, or it is another and nothing of the first is left.
        if row.pid != Some(leader) {
            assert!(!proc::alive(leader) && !proc::alive(rest), "{row:?}");
        }
        rig.ok(&["restart", "web"]);
        assert!(!proc::alive(leader) && !proc::alive(rest));
        assert_eq!(rig.row("web").status, "online");
    });
}

#[test]
fn with_the_journal_deleted_what_lost_its_leader_is_found_by_its_marks() {
    isolated(here!(), |rig| {
        let leader = rig.start("web", "child [ setsid clean [ note:rest sleep ] ] sleep");
        let rest = rig.note("web", "rest");
        rig.ok(&["save"]);
        rig.kill_daemon();
        rig.kill(leader, Signal::KILL);
        rig.until_gone(leader);
        std::fs::remove_file(rig.home.join("journal")).unwrap();
        // Its environment is empty, so nobody can say whose it is: it stands in the way of all.
        for command in [["restore"].as_slice(), &["start", "web"], &["restart", "web"]] {
            let ran = rig.opm(command);
            if proc::alive(rest) {
                assert_eq!(ran.code, Some(5), "{ran:?}");
                assert!(one_line(&ran, command).contains(&rest.to_string()), "{ran:?}");
                rig.assert_starts("web", 1);
            }
        }
        if proc::alive(rest) {
            rig.kill(rest, Signal::KILL);
            rig.until_gone(rest);
            rig.ok(&["start", "web"]);
        }
        assert_eq!(rig.row("web").status, "online");
    });
}

/// Nothing says which number its leader had. Kernel threads, and here PID 1, have session 0.
#[test]
fn a_lost_tree_without_its_leader_waits_for_no_stranger() {
    isolated(here!(), |rig| {
        assert_eq!(proc::process(1).unwrap().session, 0);
        let leader = rig.start("web", "child [ setsid note:rest sleep ] sleep");
        let rest = rig.note("web", "rest");
        rig.kill_daemon();
        rig.kill(leader, Signal::KILL);
        rig.until_gone(leader);
        std::fs::remove_file(rig.home.join("journal")).unwrap();
        rig.until_status("web", "stopped");
        assert!(!proc::alive(rest));
        rig.ok(&["start", "web"]);
        let text = rig.ok(&["events", "--format", "json"]);
        assert!(!text.contains("\"pid\":0"), "{text}");
        rig.assert_starts("web", 2);
    });
}

#[test]
fn zombies_that_an_init_leaves_lying_are_nobodys_lost_incarnations() {
    let setting = Setting { lazy_init_ms: 3_000, ..Setting::default() };
    isolated_in(setting, here!(), |rig| {
        rig.start("web", "child [ setsid clean [ note:rest sleep ] ] sleep");
        let rest = rig.note("web", "rest");
        replace_daemon(rig);
        let leader = rig.row("web").pid.unwrap();
        rig.ok(&["daemon", "stop", "--services"]);
        // Dead, with their marks, and without a record.
        for pid in [leader, rest] {
            assert!(proc::process(pid).is_some() && !proc::alive(pid));
        }
        rig.start("other", "sleep");
        rig.ok(&["start", "web"]);
        let finds = |text: &str| text.contains("mark") || text.contains("record");
        assert!(!finds(&rig.ok(&["doctor"])));
        let log = std::fs::read_to_string(rig.home.join("daemon.log")).unwrap();
        assert!(!log.contains("has no record"), "{log}");
    });
}

#[test]
fn a_damaged_journal_doubles_nothing() {
    isolated(here!(), |rig| {
        for (n, byte) in [(0, 0xff), (1, 0x00)] {
            let name = format!("web{n}");
            let leader = rig.start_with(&name, &["--force", "--stop-timeout", "1s"], "sleep");
            rig.ok(&["save"]);
            rig.kill_daemon();
            let path = rig.home.join("journal");
            let length = std::fs::metadata(&path).unwrap().len();
            std::fs::write(&path, vec![byte; usize::try_from(length).unwrap()]).unwrap();
            rig.opm(&["ls"]);
            let ran = [rig.opm(&["restore"]), rig.opm(&["start", &name])];
            let row = rig.row(&name);
            assert_eq!(row.status, "online", "{ran:?}");
            assert!(row.pid == Some(leader) || !proc::alive(leader), "{row:?}");
            let log = std::fs::read_to_string(rig.home.join("daemon.log")).unwrap();
            assert_eq!(log.matches("the journal was lost or is damaged").count(), n + 1, "{log}");
        }
    });
}

/// A backup of the home from before: it speaks of an incarnation that is long gone.
#[test]
fn an_old_copy_of_the_journal_doubles_nothing() {
    isolated(here!(), |rig| {
        rig.start("web", "sleep");
        let journal = rig.home.join("journal");
        let old = std::fs::read(&journal).unwrap();
        rig.ok(&["restart", "web"]);
        let leader = rig.row("web").pid.unwrap();
        rig.assert_starts("web", 2);
        rig.kill_daemon();
        std::fs::write(&journal, old).unwrap();
        let row = rig.row("web");
        assert_eq!((row.pid, row.adopted), (Some(leader), true));
        rig.ok(&["restart", "web"]);
        assert!(!proc::alive(leader));
        rig.assert_starts("web", 3);
    });
}

/// The copy is from before it was defined anew, and its incarnation went on.
#[test]
fn an_old_copy_of_the_journal_knows_who_was_defined_anew() {
    isolated(here!(), |rig| {
        let leader = rig.start("web", "sleep");
        let journal = rig.home.join("journal");
        let old = std::fs::read(&journal).unwrap();
        rig.ok(&["adjust", "web", "--stop-timeout", "7s"]);
        rig.kill_daemon();
        std::fs::write(&journal, old).unwrap();
        let row = rig.row("web");
        assert_eq!((row.pid, row.status.as_str()), (Some(leader), "online"));
        rig.ok(&["restart", "web"]);
        assert!(!proc::alive(leader));
        rig.assert_starts("web", 2);
    });
}

/// Nothing in an old copy of the whole tells that it is one, and this service has no environment.
#[test]
fn an_old_copy_of_the_whole_home_doubles_nothing() {
    isolated(here!(), |rig| {
        rig.start("web", "clean [ note:up sleep ]");
        rig.ok(&["stop", "web"]);
        let files = ["journal", "services", "generations"].map(|name| rig.home.join(name));
        let old = files.each_ref().map(|file| std::fs::read(file).unwrap());
        rig.ok(&["start", "web"]);
        let leader = rig.row("web").pid.unwrap();
        rig.until("its second life", || rig.noted("web", "up").contains(&leader).then_some(()));
        rig.kill_daemon();
        for (file, old) in files.iter().zip(old) {
            std::fs::write(file, old).unwrap();
        }
        let line = rig.refused(5, &["start", "web"]);
        assert!(line.contains(&leader.to_string()), "{line}");
        rig.kill(leader, Signal::KILL);
        rig.until_gone(leader);
        rig.ok(&["start", "web"]);
    });
}

/// The home's key is with its service, which says itself who it is; a script's words are not those
/// that it was started by.
#[test]
fn with_all_of_the_home_lost_a_second_one_is_refused() {
    isolated(here!(), |rig| {
        let script = rig.dir.join("serve");
        let text = format!(
            "#!/bin/sh\n{} {} child [ sleep ] wait\ntrue\n",
            fixture().display(),
            rig.lock("web")
        );
        std::fs::write(&script, text).unwrap();
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&script, permissions).unwrap();
        let start = ["start", "--name", "web", "--", script.to_str().unwrap()];
        rig.ok(&start);
        let leader = rig.row("web").pid.unwrap();
        rig.until("it to run", || (!rig.starts("web").is_empty()).then_some(()));
        rig.kill_daemon();
        std::fs::remove_dir_all(&rig.home).unwrap();
        let line = rig.refused(1, &start);
        assert!(line.contains("the name is taken"), "{line}");
        let row = rig.row("web");
        assert_eq!((row.pid, row.adopted), (Some(leader), true));
        rig.assert_starts("web", 1);
    });
}

/// What is defined after the definitions were lost must not be taken for what the journal still
/// speaks of.
#[test]
fn lost_definitions_give_nobody_the_name_of_another() {
    isolated(here!(), |rig| {
        for name in ["a", "b", "c"] {
            rig.start(name, "sleep");
        }
        rig.ok(&["stop", "a"]);
        let before: Vec<_> = ["b", "c"].map(|name| rig.row(name)).into();
        rig.kill_daemon();
        std::fs::remove_file(rig.home.join("services")).unwrap();
        for _ in 0..2 {
            for row in &before {
                let now = rig.row(&row.name);
                assert_eq!((now.id, now.pid), (row.id, row.pid), "{}", row.name);
            }
            replace_daemon(rig);
        }
    });
}

#[test]
fn adopted_trees_that_die_together_are_replaced_together() {
    isolated(here!(), |rig| {
        let names: Vec<String> = (0..20).map(|n| format!("s{n}")).collect();
        for name in &names {
            rig.start(name, "child [ setsid sleep ] sleep");
        }
        let leaders: Vec<i32> = rig.rows().iter().map(|row| row.pid.unwrap()).collect();
        replace_daemon(rig);
        for leader in &leaders {
            rig.kill(*leader, Signal::KILL);
        }
        let began = Instant::now();
        rig.until("twenty new ones", || {
            let rows = rig.rows();
            let fresh = |row: &crate::rig::Row| {
                row.status == "online" && row.pid.is_some_and(|pid| !leaders.contains(&pid))
            };
            (rows.iter().filter(|row| fresh(row)).count() == 20).then_some(())
        });
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        for row in rig.rows() {
            assert_eq!((row.restarts, row.adopted), (1, false));
        }
    });
}

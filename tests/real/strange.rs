//! Places and companions that break naive supervisors: other namespaces, tracers, services that
//! run opm themselves, children that hang before their exec.
use crate::ends::hanging_child;
use crate::namespace::{fixture, isolated, unshare};
use crate::proc;
use crate::rig::{Rig, finish, one_line};
use rustix::process::Signal;

/// `opm ARGS…` on this home, but in a PID namespace of its own.
fn elsewhere(rig: &Rig, args: &[&str]) -> crate::rig::Ran {
    let mut command = unshare();
    command.arg(fixture()).arg("--init");
    rig.behind(command, args)
}

#[test]
fn a_home_whose_services_live_in_another_pid_namespace_is_refused() {
    isolated(here!(), |rig| {
        let leader = rig.start("web", "sleep");
        rig.kill_daemon();
        for args in [["start", "web"].as_slice(), &["daemon", "start"]] {
            let ran = elsewhere(rig, args);
            assert_eq!(ran.code, Some(5), "{args:?}: {ran:?}");
            one_line(&ran, args);
        }
        assert!(proc::alive(leader));
        assert_eq!(rig.row("web").pid, Some(leader));
        assert_eq!(rig.starts("web"), [leader]);
    });
}

/// Its log is a FIFO that nobody reads: the child hangs before its exec, holding the home's lock.
#[test]
fn a_child_that_hangs_before_its_exec_keeps_the_next_daemon_waiting() {
    isolated(here!(), |rig| {
        let log = rig.log_to_nobody("web");
        let mut start = rig.spawn(&["start", "web"]);
        let child = hanging_child(rig);
        // The daemon itself isn't held up.
        assert_eq!(rig.row("web").status, "starting");
        rig.kill_daemon();
        assert!(proc::alive(child));
        let mut ls = rig.spawn(&["ls", "--format", "json"]);
        let reader = std::thread::spawn({
            let ready = std::time::Instant::now();
            move || {
                // While the lock is held no answer may come; then a reader lets the child exec.
                while ready.elapsed() < std::time::Duration::from_millis(500) {
                    assert!(ls.try_wait().unwrap().is_none(), "answered before the exec");
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
                let fifo = std::fs::File::open(&log).unwrap();
                (finish(ls, &["ls"]), fifo)
            }
        });
        let (ran, _fifo) = reader.join().unwrap();
        // Its connection was open in the child, too.
        start.wait().unwrap();
        let row = rig.until_status("web", "online");
        assert_eq!(row.pid, Some(child), "{ran:?}");
        assert_eq!(rig.starts("web"), [rig.starts("web")[0], child]);
    });
}

/// The lock that it holds is no other daemon's: the socket that answers is the new image's own.
#[test]
fn a_daemon_that_becomes_another_image_while_a_child_hangs_stays_the_daemon() {
    isolated(here!(), |rig| {
        let other = rig.start("other", "sleep");
        let log = rig.log_to_nobody("web");
        let mut start = rig.spawn(&["start", "web"]);
        rig.until_status("web", "starting");
        // It is starting before it is forked.
        let child = Some(rig.until("the child", || rig.row("web").pid));
        let daemon = rig.daemon();
        // Asked to, it goes on serving until the child has exec'd.
        let mut restart = rig.spawn(&["daemon", "restart"]);
        for _ in 0..3 {
            assert_eq!(rig.rows().len(), 2, "it serves no more");
        }
        // A crash can't wait for that.
        rig.kill(daemon, Signal::ABORT);
        let text = || std::fs::read_to_string(rig.home.join("daemon.log")).unwrap_or_default();
        rig.until("the new image to wait", || text().contains("waiting for pid").then_some(()));
        assert!(proc::alive(daemon));
        let _reader = std::fs::File::open(&log).unwrap();
        start.wait().unwrap();
        restart.wait().unwrap();
        assert_eq!(rig.until_status("web", "online").pid, child);
        assert_eq!((rig.row("other").pid, rig.daemon()), (Some(other), daemon));
    });
}

#[test]
fn a_stop_of_what_has_not_yet_execd_is_obeyed() {
    isolated(here!(), |rig| {
        let log = rig.log_to_nobody("web");
        let start = rig.spawn(&["start", "web"]);
        rig.until_status("web", "starting");
        let child = rig.row("web").pid;
        let stop = rig.spawn(&["stop", "web"]);
        // It is killed, or it is let go on and stopped then.
        let reader = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(1_500));
            std::fs::File::open(&log).ok()
        });
        let ran = finish(stop, &["stop"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert_eq!(rig.row("web").status, "stopped");
        assert!(child.is_none_or(|pid| !proc::alive(pid)));
        // Where nobody waits for the log's reader any more, it is let go.
        let _writer = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(rig.info("web")["log_out"].as_str().unwrap());
        drop(reader.join().unwrap());
        assert_ne!(finish(start, &["start"]).code, None);
        assert_eq!(rig.row("web").status, "stopped");
    });
}

/// The kernel says that the leader is dead and won't let it be reaped: POLLIN without a status.
#[test]
fn a_leader_that_is_traced_is_replaced_when_its_tracer_lets_go() {
    isolated(here!(), |rig| {
        let leader = rig.start("web", "sleep");
        let mut tracing = rig.fixture(&["--trace", &leader.to_string()]);
        rig.until_traced(leader, &tracing);
        rig.kill(leader, Signal::KILL);
        rig.until_gone(leader);
        assert!(proc::process(leader).is_some(), "reaped in spite of its tracer");
        // Another death and another answer: the daemon has had its chance to err.
        let other = rig.start("other", "sleep");
        rig.kill(other, Signal::KILL);
        rig.until_replaced("other", other);
        rig.assert_starts("web", 1);
        tracing.kill().unwrap();
        tracing.wait().unwrap();
        rig.until_replaced("web", leader);
        rig.assert_starts("web", 2);
    });
}

#[test]
fn a_daemon_started_from_inside_a_service_outlives_it() {
    isolated(here!(), |rig| {
        let opm = env!("CARGO_BIN_EXE_opm");
        let (go, out) = (rig.dir.join("go"), rig.dir.join("out"));
        let script = format!(
            "until [ -e {} ]; do sleep 0.02; done; OPM_HOME={} {opm} ls --format json > {}; \
             mv {2} {2}.done; exec sleep 1000",
            go.display(),
            rig.home.display(),
            out.display(),
        );
        rig.ok(&["start", "--name", "shell", "--", "bash", "-c", &script]);
        rig.start("web", "sleep");
        let shell = rig.row("shell").pid.unwrap();
        rig.kill_daemon();
        std::fs::write(&go, "").unwrap();
        let done = rig.dir.join("out.done");
        rig.until("the service's own ls", || done.exists().then_some(()));
        let daemon = rig.daemon();
        assert!(proc::alive(daemon));
        assert_eq!(proc::variable(daemon, "OPM_MARK"), None);
        assert_ne!(proc::process(daemon).unwrap().session, shell);
        assert!(!rig.tree("shell").contains(&daemon), "the daemon counts as its member");
        rig.ok(&["restart", "shell"]);
        rig.ok(&["stop", "shell"]);
        assert_eq!(rig.daemon(), daemon);
        assert!(proc::alive(daemon));
        assert_eq!(rig.row("web").status, "online");
    });
}

/// However long that takes to begin: it waits for its home's lock here.
#[test]
fn a_daemon_of_another_home_started_from_inside_a_service_outlives_it() {
    isolated(here!(), |rig| {
        let opm = env!("CARGO_BIN_EXE_opm");
        let inner = rig.dir.join("i");
        std::fs::create_dir(&inner).unwrap();
        let lock = std::fs::File::create(inner.join("lock")).unwrap();
        let exclusive = rustix::fs::FlockOperation::NonBlockingLockExclusive;
        rustix::fs::flock(&lock, exclusive).unwrap();
        let script = format!("OPM_HOME={} {opm} daemon start; exec sleep 1000", inner.display());
        rig.ok(&["start", "--name", "shell", "--", "bash", "-c", &script]);
        let outer = rig.daemon();
        let daemon = rig.until("the inner daemon", || {
            let mut all = rig.daemons();
            all.retain(|pid| proc::process(*pid).is_some_and(|p| p.parent == outer));
            all.into_iter().find(|pid| *pid != outer)
        });
        // The outer daemon counts its children when one of them ends.
        let other = rig.start("other", "sleep");
        rig.kill(other, Signal::KILL);
        rig.until_replaced("other", other);
        drop(lock);
        rig.until("it to begin", || inner.join("opm.sock").exists().then_some(()));
        assert!(!rig.tree("shell").contains(&daemon), "it counts as a member");
        rig.ok(&["restart", "shell"]);
        rig.ok(&["stop", "shell"]);
        assert!(proc::alive(daemon));
        rig.kill(daemon, Signal::TERM);
        rig.until_gone(daemon);
    });
}

/// The services of an opm within a service have two daemons above them.
#[test]
fn an_opm_within_a_service_is_stopped_with_it_or_left_whole() {
    isolated(here!(), |rig| {
        let opm = env!("CARGO_BIN_EXE_opm");
        let inner = rig.dir.join("i");
        let script = format!(
            "OPM_HOME={} {opm} start --name inner -- {} {} sleep; exec sleep 1000",
            inner.display(),
            fixture().display(),
            rig.lock("inner"),
        );
        let options = ["--min-uptime", "0s", "--stop-timeout", "1s"];
        let mut words = vec!["start", "--name", "outer"];
        words.extend(options);
        words.extend(["--", "bash", "-c", &script]);
        rig.ok(&words);
        let start = rig.until("the inner service", || rig.starts("inner").last().copied());
        rig.ok(&["stop", "outer"]);
        let daemon = std::fs::read_to_string(inner.join("opm.pid")).unwrap();
        let daemon: i32 = daemon.trim().parse().unwrap();
        assert_eq!(proc::alive(start), proc::alive(daemon), "half of it was ended");
        assert_eq!(rig.row("outer").status, "stopped");
        // A second run of the outer one meets the inner one or nothing, never a double.
        rig.ok(&["start", "outer"]);
        rig.ok(&["restart", "outer"]);
        rig.ok(&["stop", "outer"]);
    });
}

#[test]
fn an_undumpable_leader_and_one_of_another_user_are_adopted() {
    isolated(here!(), |rig| {
        let hidden = rig.start("hidden", "undumpable note:up sleep");
        let other = rig.start("other", "note:up uid:65534 sleep");
        rig.note("hidden", "up");
        rig.note("other", "up");
        rig.kill_daemon();
        for (name, pid) in [("hidden", hidden), ("other", other)] {
            let row = rig.row(name);
            assert_eq!((row.pid, row.adopted), (Some(pid), true), "{name}");
            rig.ok(&["restart", name]);
            assert!(!proc::alive(pid));
        }
    });
}

#[test]
fn a_leader_that_wiped_its_environment_is_adopted() {
    isolated(here!(), |rig| {
        let leader = rig.start("web", "wipe note:up sleep");
        rig.note("web", "up");
        rig.kill_daemon();
        assert_eq!(rig.row("web").pid, Some(leader));
        rig.ok(&["restart", "web"]);
        assert!(!proc::alive(leader));
    });
}

#[test]
fn a_stopped_leader_is_adopted_stopped() {
    isolated(here!(), |rig| {
        let leader = rig.start("web", "stop sleep");
        let stopped = || proc::process(leader).is_some_and(|p| p.state == 'T').then_some(());
        rig.until("it to stop itself", stopped);
        rig.kill_daemon();
        assert_eq!(rig.row("web").pid, Some(leader));
        assert!(stopped().is_some(), "it was continued by its adoption");
        rig.ok(&["stop", "web"]);
    });
}

#[test]
fn a_stopped_daemon_holds_its_home() {
    isolated(here!(), |rig| {
        let leader = rig.start("web", "sleep");
        let daemon = rig.daemon();
        rig.kill(daemon, Signal::STOP);
        let mut ls = rig.spawn(&["ls"]);
        rig.kill(leader, Signal::KILL);
        rig.kill(daemon, Signal::CONT);
        ls.wait().unwrap();
        rig.until_replaced("web", leader);
        assert_eq!(rig.daemon(), daemon);
    });
}

#[test]
fn a_daemon_start_that_met_a_dying_daemon_starts_the_next() {
    isolated(here!(), |rig| {
        let leader = rig.start("web", "sleep");
        let daemon = rig.daemon();
        rig.kill(daemon, Signal::STOP);
        let start = rig.spawn(&["daemon", "start"]);
        let descriptors = format!("/proc/{}/fd", start.id());
        rig.until("the command to have asked", || {
            let links = std::fs::read_dir(&descriptors).ok()?.flatten();
            let mut links = links.filter_map(|entry| std::fs::read_link(entry.path()).ok());
            links.any(|link| link.to_string_lossy().starts_with("socket:")).then_some(())
        });
        rig.kill(daemon, Signal::KILL);
        let ran = finish(start, &["daemon", "start"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(ran.out.contains("started"), "{ran:?}");
        assert_ne!(rig.daemon(), daemon);
        assert_eq!(rig.row("web").pid, Some(leader));
    });
}

#[test]
fn a_daemon_without_its_socket_is_not_doubled() {
    isolated(here!(), |rig| {
        let leader = rig.start("web", "sleep");
        let daemon = rig.daemon();
        std::fs::remove_file(rig.home.join("opm.sock")).unwrap();
        // Either it says what it waits for or it is served, but there is one daemon.
        let mut start = rig.spawn(&["daemon", "start"]);
        rig.until("the command's own daemon to have given way", || {
            let mut all = rig.daemons();
            all.retain(|pid| *pid != start.id().cast_signed());
            (all == [daemon] || start.try_wait().unwrap().is_some()).then_some(())
        });
        start.kill().unwrap();
        start.wait().unwrap();
        assert_eq!(rig.starts("web"), [leader]);
        assert_eq!(rig.daemons(), [daemon]);
    });
}

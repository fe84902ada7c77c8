//! Daemons that leave, are replaced, or race for a home.
use crate::namespace::isolated;
use crate::proc;
use crate::rig::{Rig, finish, one_line};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

/// Pid, generation and restarts of each.
fn picture(rig: &Rig) -> Vec<(String, Option<i32>, u64, u64)> {
    let rows = rig.rows().into_iter();
    rows.map(|row| (row.name, row.pid, row.generation, row.restarts)).collect()
}

fn some_services(rig: &Rig) {
    for name in ["a", "b", "c"] {
        rig.start(name, "child [ setsid sleep ] sleep");
    }
    rig.ok(&["restart", "b"]);
    rig.ok(&["stop", "c"]);
}

#[test]
fn a_restart_of_the_daemon_is_noticed_by_no_service() {
    isolated(here!(), |rig| {
        some_services(rig);
        let before = picture(rig);
        for _ in 0..3 {
            rig.ok(&["daemon", "restart"]);
            assert_eq!(picture(rig), before);
        }
        let leader = rig.row("a").pid.unwrap();
        rig.kill(leader, Signal::KILL);
        rig.until_replaced("a", leader);
    });
}

#[test]
fn exits_after_a_restart_of_the_daemon_have_their_status() {
    isolated(here!(), |rig| {
        rig.start_with("web", &["--restart", "never"], "await:go exit:9");
        rig.ok(&["daemon", "restart"]);
        std::fs::write(rig.lock("web") + ".go", "").unwrap();
        rig.until_status("web", "errored");
        assert_eq!(rig.info("web")["last_exit"]["code"], 9);
    });
}

#[test]
fn an_upgrade_runs_the_new_binary_and_keeps_every_pid() {
    isolated(here!(), |rig| {
        some_services(rig);
        let before = picture(rig);
        let binary = rig.dir.join("opm-new");
        std::fs::copy(env!("CARGO_BIN_EXE_opm"), &binary).unwrap();
        rig.ok(&["daemon", "upgrade", binary.to_str().unwrap()]);
        assert_eq!(picture(rig), before);
        let exe = std::fs::read_link(format!("/proc/{}/exe", rig.daemon())).unwrap();
        assert_eq!(exe, binary);
    });
}

/// The daemon raises its own soft limit of open files, and every image of it again.
#[test]
fn services_start_with_the_first_limit_of_open_files_after_an_upgrade_and_a_crash() {
    isolated(here!(), |rig| {
        let maximum = getrlimit(Resource::Nofile).maximum;
        let current = Some(200);
        setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
        let soft = |pid: i32| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
            let line = text.lines().find_map(|l| l.strip_prefix("Max open files"));
            let word = line.unwrap().split_whitespace().next();
            word.unwrap().to_owned()
        };
        rig.start("web", "sleep");
        for change in ["nothing", "upgrade", "crash"] {
            let daemon = rig.daemon();
            match change {
                "upgrade" => drop(rig.ok(&["daemon", "upgrade"])),
                "crash" => rig.kill(daemon, Signal::SEGV),
                _ => {}
            }
            rig.ok(&["restart", "web"]);
            assert_eq!(rig.daemon(), daemon);
            assert_eq!(soft(rig.row("web").pid.unwrap()), "200", "{change}");
            assert_ne!(soft(daemon), "200", "{change}");
        }
    });
}

#[test]
fn an_upgrade_to_what_is_no_opm_is_refused() {
    isolated(here!(), |rig| {
        some_services(rig);
        let before = picture(rig);
        let daemon = rig.daemon();
        for binary in ["/bin/false", "/bin/true", "/no/such/binary", "/etc/passwd"] {
            let ran = rig.opm(&["daemon", "upgrade", binary]);
            assert!(matches!(ran.code, Some(1 | 5)), "{ran:?}");
            one_line(&ran, &["daemon", "upgrade", binary]);
            assert_eq!((rig.daemon(), picture(rig)), (daemon, before.clone()));
        }
    });
}

#[test]
fn a_daemon_that_stops_leaves_services_running_and_says_how_many() {
    isolated(here!(), |rig| {
        some_services(rig);
        let before = picture(rig);
        let daemon = rig.daemon();
        let ran = rig.opm(&["daemon", "stop"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(ran.out.contains('2'), "{ran:?}");
        rig.until_gone(daemon);
        let health = rig.opm(&["daemon", "health"]);
        assert_eq!(health.code, Some(4), "{health:?}");
        for (_, pid, ..) in &before {
            assert!(pid.is_none_or(proc::alive));
        }
        assert_eq!(picture(rig), before);
    });
}

#[test]
fn a_terminated_or_interrupted_daemon_leaves_services_running() {
    isolated(here!(), |rig| {
        some_services(rig);
        let before = picture(rig);
        for signal in [Signal::TERM, Signal::INT] {
            let daemon = rig.daemon();
            rig.kill(daemon, signal);
            rig.until_gone(daemon);
            assert_eq!(picture(rig), before);
        }
    });
}

#[test]
fn a_daemon_that_stops_with_its_services_leaves_nothing() {
    isolated(here!(), |rig| {
        some_services(rig);
        let daemon = rig.daemon();
        let leaders: Vec<i32> = rig.rows().iter().filter_map(|row| row.pid).collect();
        rig.ok(&["daemon", "stop", "--services"]);
        rig.until_gone(daemon);
        assert!(leaders.iter().all(|pid| !proc::alive(*pid)));
        let fixture = crate::namespace::fixture().display().to_string();
        let left = proc::pids().into_iter().filter(|pid| {
            let line = proc::arguments(*pid);
            proc::alive(*pid) && line.starts_with(&fixture) && !line.contains(" --")
        });
        assert_eq!(left.count(), 0);
    });
}

#[test]
fn a_daemon_whose_services_are_started_meanwhile_does_not_leave_them() {
    isolated(here!(), |rig| {
        rig.start_with("web", &["--stop-timeout", "1s"], "ignore:TERM note:up sleep");
        rig.note("web", "up");
        let words = ["daemon", "stop", "--services"];
        let stop = rig.spawn(&words);
        rig.until_status("web", "stopping");
        rig.ok(&["start", "web"]);
        let ran = finish(stop, &words);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(one_line(&ran, &words).contains("web: was started"), "{ran:?}");
        assert_eq!(rig.row("web").status, "online");
        assert!(!rig.row("web").adopted, "the daemon left");
    });
}

#[test]
fn daemons_that_race_for_a_home_leave_one() {
    isolated(here!(), |rig| {
        let leader = rig.start("web", "sleep");
        for _ in 0..5 {
            rig.kill_daemon();
            let starts: Vec<_> = (0..8).map(|_| rig.spawn(&["daemon", "start"])).collect();
            for start in starts {
                let ran = finish(start, &["daemon", "start"]);
                assert_eq!(ran.code, Some(0), "{ran:?}");
            }
            let daemon = rig.daemon();
            rig.until("one daemon", || (rig.daemons() == [daemon]).then_some(()));
            assert_eq!(rig.row("web").pid, Some(leader));
        }
    });
}

/// A candidate waits for the lock of a file that is removed meanwhile: what it then gets is no
/// right to this home.
#[test]
fn a_lock_file_that_was_removed_guards_nothing() {
    isolated(here!(), |rig| {
        rig.start("web", "sleep");
        rig.ok(&["daemon", "stop", "--services"]);
        let path = rig.home.join("lock");
        let old = std::fs::File::open(&path).unwrap();
        let exclusive = rustix::fs::FlockOperation::NonBlockingLockExclusive;
        rustix::fs::flock(&old, exclusive).unwrap();
        let mut waiting = rig.spawn(&["daemon", "start"]);
        let command = waiting.id().cast_signed();
        let candidate = rig.until("a candidate", || {
            let mut all = rig.daemons();
            all.retain(|pid| *pid != command && holds(*pid, &path));
            all.first().copied()
        });
        // It sleeps through all that happens now.
        rig.kill(candidate, Signal::STOP);
        std::fs::remove_file(&path).unwrap();
        rig.ok(&["daemon", "start"]);
        rig.ok(&["start", "web"]);
        let daemon = rig.daemon();
        drop(old);
        rig.kill(candidate, Signal::CONT);
        rig.ok(&["restart", "web"]);
        rig.until("the candidate to have given way", || {
            (daemon == candidate || !proc::alive(candidate)).then_some(())
        });
        waiting.wait().unwrap();
        assert_eq!(rig.daemons(), [rig.daemon()]);
        rig.ok(&["restart", "web"]);
        assert_eq!(rig.daemons().len(), 1);
        assert_eq!(rig.row("web").restarts, 2);
    });
}

/// The moment between a daemon's exec and its next image's lock, stretched: somebody else has the
/// lock meanwhile.
fn in_between(rig: &Rig, test: impl FnOnce(i32)) {
    rig.start("web", "sleep");
    let daemon = rig.daemon();
    let lock = std::fs::File::open(rig.home.join("lock")).unwrap();
    let waits = lock.try_clone().unwrap();
    let exclusive = rustix::fs::FlockOperation::LockExclusive;
    let taken = std::thread::spawn(move || rustix::fs::flock(&waits, exclusive));
    let own = std::process::id().to_string();
    rig.until("the lock to be waited for", || {
        let locks = std::fs::read_to_string("/proc/locks").unwrap();
        let waits = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            matches!(words[..], [_, "->", "FLOCK", _, _, pid, ..] if pid == own)
        };
        locks.lines().any(waits).then_some(())
    });
    // Woken late, we find that the next image has the lock already: then once more.
    let mut restart = rig.until("the moment in between", || {
        let mut restart = rig.spawn(&["daemon", "restart"]);
        while !taken.is_finished() {
            if restart.try_wait().unwrap().is_some() {
                return None;
            }
            std::thread::yield_now();
        }
        Some(restart)
    });
    taken.join().unwrap().unwrap();
    std::fs::remove_file(rig.home.join("opm.sock")).unwrap();
    test(daemon);
    drop(lock);
    restart.kill().unwrap();
    restart.wait().unwrap();
}

#[test]
fn an_image_whose_home_has_another_daemon_by_now_gives_way() {
    isolated(here!(), |rig| {
        in_between(rig, |daemon| {
            let path = rig.home.join("opm.sock");
            let _other = std::os::unix::net::UnixListener::bind(&path).unwrap();
            rig.until_gone(daemon);
        });
        assert_eq!(rig.row("web").restarts, 0);
        // Who lost the race for the home may take an instant to end.
        rig.until("one daemon", || (rig.daemons() == [rig.daemon()]).then_some(()));
    });
}

#[test]
fn an_image_whose_socket_is_gone_binds_another() {
    isolated(here!(), |rig| {
        let mut same = 0;
        in_between(rig, |daemon| same = daemon);
        let socket = rig.home.join("opm.sock");
        rig.until("its new socket", || socket.exists().then_some(()));
        assert_eq!(rig.row("web").restarts, 0);
        assert_eq!(rig.daemon(), same);
    });
}

/// Whether a process has this file open.
fn holds(pid: i32, path: &std::path::Path) -> bool {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten();
    let mut links = entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    links.any(|link| link == path)
}

/// The pid file names a living bystander, the socket nobody.
#[test]
fn stale_files_of_a_dead_daemon_are_no_obstacle() {
    isolated(here!(), |rig| {
        let leader = rig.start("web", "sleep");
        rig.kill_daemon();
        assert!(rig.home.join("opm.sock").exists());
        let bystander = rig.fixture(&["-", "sleep"]).id();
        std::fs::write(rig.home.join("opm.pid"), format!("{bystander}\n")).unwrap();
        assert_eq!(rig.row("web").pid, Some(leader));
        assert_ne!(rig.daemon(), bystander.cast_signed());
        assert!(proc::alive(bystander.cast_signed()));
        rig.ok(&["daemon", "stop"]);
        std::fs::write(rig.home.join("opm.pid"), "garbage").unwrap();
        std::fs::remove_file(rig.home.join("opm.sock")).ok();
        std::fs::write(rig.home.join("opm.sock"), "not a socket").unwrap();
        let ran = rig.opm(&["ls"]);
        if ran.code != Some(0) {
            one_line(&ran, &["ls"]);
            std::fs::remove_file(rig.home.join("opm.sock")).unwrap();
        }
        assert_eq!(rig.starts("web"), [leader]);
        rig.ok(&["ls"]);
        assert_eq!(rig.row("web").pid, Some(leader));
    });
}

#[test]
fn health_says_what_is_true_and_starts_nothing() {
    isolated(here!(), |rig| {
        let ran = rig.opm(&["daemon", "health"]);
        assert_eq!(ran.code, Some(4), "{ran:?}");
        assert_eq!(rig.daemons(), Vec::<i32>::new());
        rig.start("web", "sleep");
        let health = rig.json(&["daemon", "health"]);
        assert_eq!(health["pid"], rig.daemon());
        assert_eq!(health["services"], 1);
    });
}

//! A home that is removed, moved, unmounted or tampered with: one daemon, no double, no hang.
use crate::hostile::at_home;
use crate::input::mount;
use crate::namespace::{Setting, User, isolated, isolated_in};
use crate::proc;
use crate::rig::{Rig, finish, one_line};
use rustix::process::Signal;
use std::path::Path;
use std::process::Command;

fn remove(rig: &Rig) {
    // A daemon that writes just then may fill it again.
    rig.until("its end", || match std::fs::remove_dir_all(&rig.home) {
        Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => None,
        removed => Some(removed),
    })
    .unwrap();
}

/// Removes all that is in the home, but not the home.
pub(crate) fn empty(rig: &Rig) {
    for entry in std::fs::read_dir(&rig.home).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => std::fs::remove_dir_all(path).unwrap(),
            false => std::fs::remove_file(path).unwrap(),
        }
    }
}

fn until_served(rig: &Rig) {
    rig.until("a socket", || rig.home.join("opm.sock").exists().then_some(()));
}

#[test]
fn a_home_that_is_removed_is_made_anew_and_services_never_notice() {
    isolated(here!(), |rig| {
        let leader = rig.start("web", "child [ setsid sleep ] sleep");
        let (daemon, tree) = (rig.daemon(), rig.tree("web"));
        for _ in 0..3 {
            remove(rig);
            until_served(rig);
            assert_eq!(rig.row("web").pid, Some(leader));
        }
        assert_eq!((rig.daemons(), rig.daemon()), (vec![daemon], daemon));
        assert_eq!(rig.tree("web"), tree);
        // From another directory: nothing there looks alike.
        let words = rig.start_words("web", &[], "sleep");
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let again = rig.command(&words).current_dir("/").spawn().unwrap();
        assert_eq!(finish(again, &words).code, Some(1));
        rig.assert_starts("web", 1);
        // What is on record is so again, for the next daemon.
        rig.kill_daemon();
        let row = rig.row("web");
        assert_eq!((row.pid, row.adopted), (Some(leader), true));
        rig.kill(leader, Signal::KILL);
        rig.until_replaced("web", leader);
        rig.assert_starts("web", 2);
    });
}

#[test]
fn nothing_is_launched_between_the_loss_of_a_home_and_its_return() {
    isolated(here!(), |rig| {
        let leader = rig.start("web", "sleep");
        let daemon = rig.daemon();
        rig.kill(daemon, Signal::STOP);
        remove(rig);
        // Its path is another daemon's before ours can do anything about it.
        rig.ok(&["daemon", "start"]);
        let other = rig.daemon();
        rig.kill(leader, Signal::KILL);
        rig.kill(daemon, Signal::CONT);
        rig.until_gone(daemon);
        assert_eq!(rig.daemons(), [other]);
        rig.assert_starts("web", 1);
        assert!(rig.rows().is_empty());
    });
}

/// It is on record in the new home, though it signed in the old one, or was about to.
#[test]
fn a_child_before_its_exec_is_not_lost_with_the_home() {
    isolated(here!(), |rig| {
        let log = rig.log_to_nobody("web");
        let kept = rig.dir.join("kept");
        std::fs::hard_link(&log, &kept).unwrap();
        let mut start = rig.spawn(&["start", "web"]);
        let child = rig.until("the child", || rig.row("web").pid);
        remove(rig);
        until_served(rig);
        rig.kill_daemon();
        start.wait().unwrap();
        // For writing, too: a child that came to its log only after the removal has another one,
        // and nobody would open this end.
        let _reader = std::fs::File::options().read(true).write(true).open(&kept).unwrap();
        assert_eq!(rig.until_status("web", "online").pid, Some(child));
        // A child that has not exec'd is online to who adopts it.
        rig.until("its exec", || (rig.starts("web").last() == Some(&child)).then_some(()));
    });
}

#[test]
fn an_unmounted_home_is_made_anew_before_anything_starts() {
    isolated(here!(), |rig| {
        std::fs::create_dir(&rig.home).unwrap();
        let path = rig.home.display().to_string();
        mount(&["-t", "tmpfs", "-o", "mode=700", "none", &path]);
        let leader = rig.start("web", "sleep");
        let daemon = rig.daemon();
        assert!(Command::new("umount").args(["-l", &path]).status().unwrap().success());
        assert!(!rig.home.join("journal").exists());
        rig.kill(leader, Signal::KILL);
        until_served(rig);
        assert_ne!(rig.until_replaced("web", leader).pid, None);
        assert_eq!(rig.daemon(), daemon);
        rig.kill_daemon();
        assert!(rig.row("web").adopted);
        rig.assert_starts("web", 2);
    });
}

#[test]
fn a_home_whose_files_are_removed_has_them_again() {
    isolated(here!(), |rig| {
        let leader = rig.start("web", "sleep");
        empty(rig);
        until_served(rig);
        for file in ["journal", "services", "lock", "logs"] {
            rig.until(file, || rig.home.join(file).exists().then_some(()));
        }
        rig.ok(&["restart", "web"]);
        let [pid] = rig.daemons()[..] else { panic!("{:?}", rig.daemons()) };
        rig.kill(pid, Signal::KILL);
        rig.until_gone(pid);
        let row = rig.row("web");
        assert!(row.adopted && row.pid != Some(leader), "{row:?}");
        rig.assert_starts("web", 2);
    });
}

#[test]
fn a_moved_home_is_followed_and_takes_nobodys_socket() {
    isolated(here!(), |rig| {
        let leader = rig.start("web", "sleep");
        let daemon = rig.daemon();
        let moved = rig.dir.join("m");
        std::fs::rename(&rig.home, &moved).unwrap();
        rig.ok(&["daemon", "start"]);
        let other = rig.daemon();
        std::fs::remove_file(moved.join("opm.sock")).unwrap();
        rig.until("its socket", || moved.join("opm.sock").exists().then_some(()));
        let ran = at_home(rig, &moved, &["ls", "--format", "json"]);
        assert!(ran.out.contains(&leader.to_string()), "{ran:?}");
        assert!(rig.rows().is_empty(), "the other one is another one still");
        // What it starts from now on, it starts there; and so does what it becomes.
        rig.kill(daemon, Signal::ABORT);
        let home = format!("{}/", moved.display());
        let info = rig.until("it to be itself again", || {
            let ran = at_home(rig, &moved, &["info", "web"]);
            (ran.code == Some(0)).then_some(ran.out)
        });
        assert!(info.contains(&home), "{info}");
        assert_eq!(at_home(rig, &moved, &["restart", "web"]).code, Some(0));
        rig.until_gone(leader);
        let mut daemons = vec![daemon, other];
        daemons.sort_unstable();
        assert_eq!(rig.daemons(), daemons);
        at_home(rig, &moved, &["daemon", "stop", "--services"]);
    });
}

fn make(path: &Path, kind: &str) {
    let (program, args): (&str, &[&str]) = match kind {
        "fifo" => ("mkfifo", &[]),
        "directory" => ("mkdir", &[]),
        "device" => ("ln", &["-s", "/dev/zero"]),
        _ => ("ln", &["-s", "/etc/hostname"]),
    };
    assert!(Command::new(program).args(args).arg(path).status().unwrap().success());
}

const KINDS: [&str; 4] = ["fifo", "directory", "device", "link"];

#[test]
fn what_is_no_file_is_named_and_neither_waited_for_nor_read() {
    isolated(here!(), |rig| {
        let leader = rig.start("web", "sleep");
        rig.ok(&["save"]);
        rig.kill_daemon();
        for file in ["journal", "services", "lock", "daemon.log"] {
            let (path, kept) = (rig.home.join(file), rig.dir.join("kept"));
            std::fs::rename(&path, &kept).unwrap();
            for kind in KINDS {
                make(&path, kind);
                let ran = rig.opm(&["ls"]);
                assert!(matches!(ran.code, Some(1 | 4)), "{file} {kind}: {ran:?}");
                let line = one_line(&ran, &["ls"]);
                assert!(line.contains(&path.display().to_string()), "{file} {kind}: {line}");
                if kind == "directory" {
                    std::fs::remove_dir(&path).unwrap();
                } else {
                    std::fs::remove_file(&path).unwrap();
                }
            }
            std::fs::rename(&kept, &path).unwrap();
        }
        assert_eq!(rig.row("web").pid, Some(leader));
    });
}

#[test]
fn a_dump_that_is_no_file_costs_nobody_anything() {
    isolated(here!(), |rig| {
        rig.start("web", "sleep");
        let dump = rig.home.join("dump.json");
        for kind in ["fifo", "device", "link"] {
            make(&dump, kind);
            let line = rig.refused(1, &["restore"]);
            assert!(line.contains("dump.json"), "{line}");
            rig.ok(&["save"]);
            assert!(dump.symlink_metadata().unwrap().is_file());
            std::fs::remove_file(&dump).unwrap();
            std::fs::remove_file(rig.home.join("dump.json.bak")).ok();
            make(&rig.home.join("dump.json.new"), kind);
            let line = rig.refused(1, &["save"]);
            assert!(line.contains("dump.json.new"), "{line}");
            std::fs::remove_file(rig.home.join("dump.json.new")).unwrap();
        }
        // The log of a service, which may well be a link of its owner's.
        let log = rig.info("web")["log_out"].as_str().unwrap().to_owned();
        for kind in ["fifo", "device"] {
            std::fs::remove_file(&log).unwrap();
            make(Path::new(&log), kind);
            let ran = rig.opm(&["logs", "web"]);
            assert_eq!(ran.code, Some(0), "{ran:?}");
            assert!(ran.err.contains("no regular file"), "{ran:?}");
        }
    });
}

#[test]
fn an_odd_pid_file_keeps_no_daemon_from_serving() {
    isolated(here!(), |rig| {
        let leader = rig.start("web", "sleep");
        for kind in KINDS {
            let [pid] = rig.daemons()[..] else { panic!("{:?}", rig.daemons()) };
            rig.kill(pid, Signal::KILL);
            rig.until_gone(pid);
            std::fs::remove_file(rig.home.join("opm.pid")).ok();
            make(&rig.home.join("opm.pid"), kind);
            assert_eq!(rig.row("web").pid, Some(leader), "{kind}");
            std::fs::remove_dir(rig.home.join("opm.pid")).ok();
        }
    });
}

#[test]
fn a_dead_daemons_child_that_hangs_is_named_to_every_command() {
    isolated(here!(), |rig| {
        rig.start("other", "sleep");
        rig.log_to_nobody("web");
        let mut start = rig.spawn(&["start", "web"]);
        let child = rig.until("the child", || rig.row("web").pid);
        rig.kill_daemon();
        // Its connection ended with the daemon, whatever the child has copies of.
        assert_eq!(finish(start, &["start"]).code, Some(4));
        start = rig.spawn(&["stop", "other"]);
        for args in [["ls"].as_slice(), &["daemon", "start"]] {
            let ran = rig.opm(args);
            assert_eq!(ran.code, Some(4), "{args:?}: {ran:?}");
            let last = ran.err.lines().last().unwrap();
            assert!(last.contains(&format!("pid {child}")), "{args:?}: {ran:?}");
            assert!(last.contains("end it"), "{args:?}: {ran:?}");
        }
        assert_eq!(rig.opm(&["daemon", "health"]).code, Some(4));
        assert_eq!(finish(start, &["stop"]).code, Some(4));
        rig.kill(child, Signal::KILL);
        assert_eq!(rig.row("other").status, "online");
        rig.assert_starts("other", 1);
    });
}

#[test]
fn a_daemon_that_does_not_answer_is_named() {
    isolated(here!(), |rig| {
        rig.start("web", "sleep");
        let daemon = rig.daemon();
        rig.kill(daemon, Signal::STOP);
        let line = rig.refused(4, &["ls"]);
        assert!(line.contains(&format!("pid {daemon}")) && line.contains("stopped"), "{line}");
        rig.kill(daemon, Signal::CONT);
        assert_eq!(rig.row("web").status, "online");
    });
}

#[test]
fn the_umask_of_the_first_start_is_the_services_and_not_the_homes() {
    let setting = Setting { user: User::Nobody, ..Setting::default() };
    isolated_in(setting, here!(), |rig| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "umask 0777; exec \"$@\"", "sh"]);
        let service = "umask; exec sleep 1000";
        let ran = rig.behind(shell, &["start", "--name", "web", "--", "sh", "-c", service]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let log = rig.info("web")["log_out"].as_str().unwrap().to_owned();
        rig.until("its word", || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            (text == "0777\n").then_some(())
        });
        for _ in 0..2 {
            rig.kill_daemon();
            assert_eq!(rig.row("web").status, "online");
        }
    });
}

#[test]
fn a_limit_of_file_sizes_refuses_a_line_and_ends_nobody() {
    isolated(here!(), |rig| {
        let leader = rig.start("web", "sleep");
        let daemon = rig.daemon();
        let ignored = proc::status_mask(leader, "SigIgn");
        assert_eq!(ignored & 1 << (libc::SIGXFSZ - 1), 0, "handed on to a service");
        let limit = ["--pid", &daemon.to_string(), "--fsize=3000"];
        assert!(Command::new("prlimit").args(limit).status().unwrap().success());
        let refused = (0..20).find_map(|n| {
            let name = format!("s{n}");
            let ran = rig.opm(&["start", "--name", &name, "--", "sleep", &format!("{}", 900 + n)]);
            (ran.code != Some(0)).then_some(ran)
        });
        let line = one_line(&refused.unwrap(), &["start"]);
        assert!(line.contains("File too large"), "{line}");
        assert_eq!(rig.daemon(), daemon);
        assert_eq!(rig.row("web").pid, Some(leader));
    });
}

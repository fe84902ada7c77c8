//! `save` and `restore`: what was up comes back once, whatever runs already.
use crate::namespace::{fixture, isolated};
use crate::proc;
use crate::rig::{Rig, finish, one_line};
use rustix::process::Signal;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

/// Three services, one of them stopped, saved.
fn saved(rig: &Rig) {
    for name in ["a", "b", "down"] {
        rig.start(name, "child [ setsid sleep ] sleep");
    }
    rig.ok(&["stop", "down"]);
    rig.ok(&["save"]);
}

/// Ends everything and forgets every record but the dump and the lock.
fn reboot(rig: &Rig) {
    rig.ok(&["daemon", "stop", "--services"]);
    for entry in std::fs::read_dir(&rig.home).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_file() && !name.starts_with("dump.json") && name != "lock" {
            std::fs::remove_file(path).unwrap();
        }
    }
}

#[test]
fn restore_brings_back_what_was_up_under_its_names_and_ids() {
    isolated(here!(), |rig| {
        saved(rig);
        let before: Vec<_> = rig.rows().into_iter().map(|r| (r.id, r.name, r.status)).collect();
        reboot(rig);
        let ran = rig.opm(&["restore"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(ran.out.contains("2 started"), "{ran:?}");
        let rows = rig.rows();
        assert!(rows.iter().all(|row| row.restarts == 0), "{rows:?}");
        let after: Vec<_> = rows.into_iter().map(|r| (r.id, r.name, r.status)).collect();
        assert_eq!(after, before);
    });
}

#[test]
fn restore_beside_a_running_daemon_changes_nothing_twice() {
    isolated(here!(), |rig| {
        saved(rig);
        rig.ok(&["restart", "a"]);
        let picture = |rig: &Rig| -> Vec<_> {
            let rows = rig.rows().into_iter();
            rows.map(|r| (r.name, r.pid, r.generation, r.restarts)).collect()
        };
        let before = picture(rig);
        for _ in 0..2 {
            let ran = rig.opm(&["restore"]);
            assert_eq!(ran.code, Some(0), "{ran:?}");
            assert!(ran.out.contains("2 already running"), "{ran:?}");
            assert_eq!(picture(rig), before);
        }
        rig.kill_daemon();
        rig.ok(&["restore"]);
        assert_eq!(picture(rig), before);
    });
}

#[test]
fn restores_at_the_same_time_start_each_service_once() {
    isolated(here!(), |rig| {
        saved(rig);
        for round in 2..5 {
            reboot(rig);
            let restores: Vec<_> = (0..4).map(|_| rig.spawn(&["restore"])).collect();
            for restore in restores {
                let ran = finish(restore, &["restore"]);
                assert_eq!(ran.code, Some(0), "{ran:?}");
            }
            for name in ["a", "b"] {
                rig.until("its start", || (rig.starts(name).len() >= round).then_some(()));
                rig.assert_starts(name, round);
                assert_eq!(rig.starts(name).last().copied(), rig.row(name).pid);
            }
        }
    });
}

#[test]
fn what_was_stopped_since_the_save_comes_up() {
    isolated(here!(), |rig| {
        saved(rig);
        rig.ok(&["stop", "a"]);
        rig.ok(&["remove", "b"]);
        rig.ok(&["restore"]);
        assert_eq!(rig.row("a").status, "online");
        assert_eq!((rig.row("b").status.as_str(), rig.row("b").id), ("online", 1));
        assert_eq!(rig.row("down").status, "stopped");
    });
}

#[test]
fn a_name_that_now_stands_for_something_else_is_left_with_a_warning() {
    isolated(here!(), |rig| {
        saved(rig);
        rig.ok(&["remove", "a"]);
        rig.start("a", "note:another sleep");
        let pid = rig.row("a").pid;
        let ran = rig.opm(&["restore"]);
        assert!(ran.err.contains('a'), "{ran:?}");
        assert_eq!(rig.row("a").pid, pid);
    });
}

#[test]
fn a_damaged_dump_is_kept_and_the_one_before_is_taken() {
    isolated(here!(), |rig| {
        saved(rig);
        rig.ok(&["save"]);
        reboot(rig);
        let dump = rig.home.join("dump.json");
        assert!(rig.home.join("dump.json.bak").exists());
        let whole = std::fs::read(&dump).unwrap();
        let damaged = &whole[..whole.len() / 2];
        std::fs::write(&dump, damaged).unwrap();
        let ran = rig.opm(&["restore"]);
        assert!(ran.err.contains("dump.json"), "{ran:?}");
        assert_eq!(rig.row("a").status, "online");
        assert_eq!(rig.row("b").status, "online");
        let summary = "restored 2: 0 already running, 2 started";
        assert!(ran.out.contains(summary), "{ran:?}");
        let entries = std::fs::read_dir(&rig.home).unwrap().map(|entry| entry.unwrap().path());
        let kept = entries
            .filter(|path| path.is_file())
            .any(|path| std::fs::read(path).is_ok_and(|bytes| bytes == damaged));
        assert!(kept, "the damaged file is gone");
    });
}

#[test]
fn with_both_dumps_damaged_restore_says_so_and_keeps_them() {
    isolated(here!(), |rig| {
        saved(rig);
        rig.ok(&["save"]);
        reboot(rig);
        for name in ["dump.json", "dump.json.bak"] {
            std::fs::write(rig.home.join(name), "{").unwrap();
        }
        let ran = rig.opm(&["restore"]);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.err.contains("dump.json"), "{ran:?}");
        assert!(rig.rows().is_empty());
    });
}

#[test]
fn restore_without_a_dump_says_so() {
    isolated(here!(), |rig| {
        let line = rig.refused(1, &["restore"]);
        assert!(line.contains("dump.json") || line.contains("save"), "{line}");
    });
}

#[test]
fn what_is_on_disk_is_private() {
    isolated(here!(), |rig| {
        rig.start("web", "sleep");
        rig.ok(&["save"]);
        rig.ok(&["save"]);
        let mut paths = vec![rig.home.clone()];
        while let Some(path) = paths.pop() {
            let metadata = std::fs::symlink_metadata(&path).unwrap();
            let mode = metadata.permissions().mode() & 0o777;
            assert_eq!(mode & 0o077, 0, "{} is {mode:o}", path.display());
            if metadata.is_dir() {
                let entries = std::fs::read_dir(&path).unwrap();
                paths.extend(entries.map(|entry| entry.unwrap().path()));
            }
        }
        for name in ["dump.json", "dump.json.bak"] {
            let mode = std::fs::metadata(rig.home.join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    });
}

/// Somebody runs the same program by hand in the same directory.
fn look_alike(rig: &Rig, words: &[&str]) -> std::process::Child {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).current_dir(&rig.dir).stdin(Stdio::null());
    command.spawn().unwrap()
}

#[test]
fn a_start_beside_a_look_alike_is_refused_unless_forced() {
    isolated(here!(), |rig| {
        let program = fixture().display().to_string();
        let words = [program.as_str(), "-", "sleep"];
        let mut other = look_alike(rig, &words);
        let pid = other.id().to_string();
        rig.until("its exec", || {
            proc::arguments(other.id().cast_signed()).ends_with("- sleep").then_some(())
        });
        let mut start = vec!["start", "--name", "web", "--"];
        start.extend(words);
        let line = rig.refused(5, &start);
        assert!(line.contains(&pid), "{line}");
        assert!(rig.rows().is_empty());
        start.insert(1, "--force");
        rig.ok(&start);
        assert_eq!(rig.row("web").status, "online");
        assert!(other.try_wait().unwrap().is_none());
        let doctor = rig.ok(&["doctor"]);
        let told = |line: &&str| line.contains("look-alike") && line.contains(&pid);
        assert!(doctor.lines().any(|line| told(&line)), "{doctor}");
        // An automatic restart doesn't ask.
        let leader = rig.row("web").pid.unwrap();
        rig.ok(&["restart", "web"]);
        assert_ne!(rig.row("web").pid, Some(leader));
        other.kill().unwrap();
        other.wait().unwrap();
        let doctor = rig.ok(&["doctor"]);
        assert!(!doctor.contains("look-alike"), "{doctor}");
    });
}

#[test]
fn a_restart_of_what_is_down_heeds_a_look_alike_as_a_start_does() {
    isolated(here!(), |rig| {
        let program = fixture().display().to_string();
        let words = [program.as_str(), "-", "sleep"];
        let mut start = vec!["start", "--name", "web", "--"];
        start.extend(words);
        rig.ok(&start);
        rig.ok(&["stop", "web"]);
        let mut other = look_alike(rig, &words);
        let pid = other.id();
        rig.until("its exec", || {
            proc::arguments(pid.cast_signed()).ends_with("- sleep").then_some(())
        });
        for command in [["start", "web"], ["restart", "web"]] {
            let line = rig.refused(5, &command);
            assert!(line.contains(&pid.to_string()), "{line}");
        }
        assert_eq!(rig.row("web").status, "stopped");
        other.kill().unwrap();
        other.wait().unwrap();
    });
}

#[test]
fn a_restore_beside_a_look_alike_refuses_that_service_alone() {
    isolated(here!(), |rig| {
        saved(rig);
        reboot(rig);
        let (program, lock) = (fixture().display().to_string(), rig.lock("a"));
        let words = [&program, &lock, "child", "[", "setsid", "sleep", "]", "sleep"];
        let mut other = look_alike(rig, &words);
        rig.until("its lock", || (rig.starts("a").len() == 2).then_some(()));
        let ran = rig.opm(&["restore"]);
        assert_eq!(ran.code, Some(5), "{ran:?}");
        // Its own child runs the same words, until that has exec'd.
        assert!(ran.err.contains("opm: a: process "), "{ran:?}");
        assert!(ran.err.contains(" runs the same command "), "{ran:?}");
        assert_eq!(rig.row("b").status, "online");
        assert_ne!(rig.row("a").status, "online");
        rig.assert_starts("a", 2);
        rig.kill(other.id().cast_signed(), Signal::TERM);
        other.wait().unwrap();
        // What it left behind is a look-alike too.
        let rest: Vec<_> = proc::all()
            .into_iter()
            .filter(|process| proc::arguments(process.pid).contains(&lock))
            .collect();
        for process in rest {
            rig.kill(process.pid, Signal::KILL);
            rig.until_gone(process.pid);
        }
        let ran = rig.opm(&["restore"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert_eq!(rig.row("a").status, "online");
    });
}

#[test]
fn a_forced_start_never_starts_a_second_incarnation() {
    isolated(here!(), |rig| {
        let pid = rig.start("web", "sleep");
        rig.ok(&["start", "--force", "web"]);
        assert_eq!(rig.row("web").pid, Some(pid));
        rig.kill_daemon();
        rig.ok(&["start", "--force", "web"]);
        rig.ok(&["save"]);
        rig.ok(&["restore", "--force"]);
        assert_eq!(rig.row("web").pid, Some(pid));
    });
}

#[test]
fn a_failed_save_line_is_one_line() {
    isolated(here!(), |rig| {
        rig.start("web", "sleep");
        // A directory in the way of the file.
        std::fs::create_dir_all(rig.home.join("dump.json/in/the/way")).unwrap();
        let ran = rig.opm(&["save"]);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        one_line(&ran, &["save"]);
        assert_eq!(rig.row("web").status, "online");
    });
}

#[test]
fn the_file_of_services_does_not_grow_with_those_that_come_and_go() {
    isolated(here!(), |rig| {
        rig.start("keep", "sleep");
        let job = rig.start_words("job", &[], "sleep");
        let job: Vec<&str> = job.iter().map(String::as_str).collect();
        for turn in 0..40 {
            let mut start = rig.command(&job);
            start.env("TURN", turn.to_string());
            start.env("BALLAST", "x".repeat(8_000));
            let ran = finish(start.spawn().unwrap(), &job);
            assert_eq!(ran.code, Some(0), "{ran:?}");
            rig.ok(&["remove", "job"]);
            if turn == 20 {
                rig.kill_daemon();
            }
        }
        let size = std::fs::metadata(rig.home.join("services")).unwrap().len();
        assert!(size < 128 << 10, "{size} bytes for one service");
    });
}

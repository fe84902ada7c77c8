//! Commands that are cut off by the daemon's death at any moment: done or not done, never half.
use crate::namespace::{Setting, isolated, isolated_in};
use crate::proc;
use crate::rig::{Rig, finish};
use rustix::process::Signal;
use std::time::Duration;

/// Kills the daemon `us` microseconds after the command began; what the command said.
fn cut_off(rig: &Rig, words: &[&str], us: u64) -> crate::rig::Ran {
    let daemon = rig.daemon();
    let command = rig.spawn(words);
    std::thread::sleep(Duration::from_micros(us));
    rig.kill(daemon, Signal::KILL);
    rig.until_gone(daemon);
    finish(command, words)
}

/// Who runs the fixture of this service.
fn running(rig: &Rig, name: &str) -> Vec<i32> {
    let lock = rig.lock(name);
    let mut pids = proc::pids();
    pids.retain(|pid| {
        let words = proc::arguments(*pid);
        proc::alive(*pid) && words.split(' ').any(|word| word == lock)
    });
    // The command that speaks of it does not run it.
    pids.retain(|pid| !proc::arguments(*pid).contains(" start --name"));
    pids
}

#[test]
fn a_start_that_is_cut_off_is_whole_or_not_at_all() {
    isolated(here!(), |rig| {
        rig.start("first", "sleep");
        let mut kept = 0;
        for round in 0..40 {
            let name = format!("n{round}");
            let words = rig.start_words(&name, &["--stop-timeout", "1s"], "sleep");
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let ran = cut_off(rig, &words, 300 * round);
            let listed = rig.rows().into_iter().find(|row| row.name == name);
            if let Some(row) = listed {
                kept += 1;
                if row.status != "online" {
                    rig.opm(&["start", &name]);
                }
            } else {
                assert_ne!(ran.code, Some(0), "it was told to be done: {ran:?}");
                assert_eq!(running(rig, &name), Vec::<i32>::new(), "{name} runs unlisted");
                rig.ok(&words);
            }
            let row = rig.until_status(&name, "online");
            rig.until("one process", || (running(rig, &name) == [row.pid.unwrap()]).then_some(()));
            assert_eq!(row.id, u32::try_from(round).unwrap() + 1);
        }
        println!("{kept} of 40 kept");
    });
}

#[test]
fn a_remove_that_is_cut_off_is_whole_or_not_at_all() {
    isolated(here!(), |rig| {
        for round in 0..30 {
            let name = format!("n{round}");
            let pid = rig.start(&name, "child [ setsid sleep ] sleep");
            cut_off(rig, &["remove", &name], 300 * round);
            let listed = rig.rows().into_iter().find(|row| row.name == name);
            if let Some(row) = listed {
                // Not done: it is the old one, or none, or the old one was ended and replaced.
                assert!(row.pid == Some(pid) || !proc::alive(pid), "{row:?}");
                rig.ok(&["remove", &name]);
            }
            assert_eq!(running(rig, &name), Vec::<i32>::new());
            assert!(rig.rows().is_empty());
        }
    });
}

#[test]
fn a_save_that_is_cut_off_leaves_a_whole_dump() {
    isolated(here!(), |rig| {
        for name in ["a", "b", "c"] {
            rig.start(name, "sleep");
        }
        rig.ok(&["save"]);
        for round in 0..30 {
            cut_off(rig, &["save"], 200 * round);
            let text = std::fs::read(rig.home.join("dump.json")).unwrap();
            let dump: serde_json::Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(dump["services"].as_array().unwrap().len(), 3);
            rig.ok(&["ls"]);
        }
        rig.ok(&["restore"]);
    });
}

/// Four hundred pids, most of them free, and short-lived children that go round and round: each
/// pid is soon another's. Where start times alone tell processes apart, 10 ms is their grain.
fn crowded(rig: &Rig) {
    std::fs::write("/proc/sys/kernel/pid_max", "400").expect("a pid_max of the namespace's own");
    let names = ["a", "b", "c", "d"];
    for name in names {
        rig.start(name, "child [ setsid rabbits:1 ] child [ setsid note:rest sleep ] sleep");
    }
    let stranger = rig.fixture(&["-", "rabbits:0"]).id().cast_signed();
    for round in 0..25 {
        let name = names[round % names.len()];
        let before = rig.row(name).pid.unwrap();
        let rest = rig.note(name, "rest");
        rig.kill_daemon();
        if round % 2 == 0 {
            rig.kill(before, Signal::KILL);
            rig.until_gone(before);
        }
        // Hundreds of pids go by.
        std::thread::sleep(Duration::from_millis(20));
        if round % 2 == 0 {
            let notes = rig.noted(name, "rest").len();
            rig.until("another tree", || (rig.row(name).status == "online").then_some(()));
            rig.until("its note", || (rig.noted(name, "rest").len() > notes).then_some(()));
        } else {
            assert_eq!(rig.row(name).pid, Some(before));
            assert!(proc::alive(rest));
        }
        assert!(proc::alive(stranger), "the stranger was killed");
    }
    rig.ok(&["stop", "all"]);
    for name in names {
        assert_eq!(running(rig, name), Vec::<i32>::new());
    }
}

#[test]
fn where_pids_are_soon_used_again_nobody_is_mistaken() {
    isolated(here!(), crowded);
}

#[test]
fn where_pids_are_soon_used_again_start_times_tell_too() {
    let setting = Setting { without: "pidfd-inode,pgroup-signal", ..Setting::default() };
    isolated_in(setting, here!(), crowded);
}

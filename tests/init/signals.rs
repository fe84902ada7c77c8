//! Which signals reach whom, and with what mask.

use crate::rig::{
    Live, OPM, Reach, WITNESS, child_of, compare, eventually, join, kill, run, state, within,
};
use std::collections::BTreeSet;
use std::time::Duration;

fn witness(prefix: &[&str]) -> Live {
    let live = Live::start(&join(prefix, &["python3", "-c", WITNESS]));
    live.expect("up");
    live
}

/// The numbers that arrive until the marker does. Of several that are pending the lowest is
/// taken first, so the marker is the highest there is.
fn heard(live: &Live) -> Vec<i32> {
    live.kill("64");
    let mut numbers = Vec::new();
    while let Ok(line) = live.seek("", Duration::from_secs(3)) {
        match line.parse() {
            Ok(64) => break,
            Ok(number) => numbers.push(number),
            Err(_) => {}
        }
    }
    numbers
}

fn finish(live: Live) {
    kill(child_of(live.pid()), "KILL");
    assert_eq!(live.end().code, Some(137));
}

#[test]
fn every_signal_that_somebody_sends_reaches_the_program() {
    // KILL and STOP can't be caught, CHLD is init's own, the terminal's stops are told apart
    // elsewhere, 32 and 33 can't be waited for by a Python program, 64 is the marker.
    let left_out = [9, 19, 17, 20, 21, 22, 32, 33, 64];
    let sent: BTreeSet<i32> = (1..=64).filter(|number| !left_out.contains(number)).collect();
    let missing = compare("not forwarded of 1..64", Reach::Group, |init| {
        let live = witness(init);
        for number in &sent {
            live.kill(&number.to_string());
        }
        let got: BTreeSet<i32> = heard(&live).into_iter().collect();
        let missing: Vec<_> = sent.difference(&got).copied().collect();
        match got.is_empty() {
            true => "dies of one of them".to_owned(),
            false => format!("{missing:?}"),
        }
    });
    assert_eq!(missing, "[]");
}

#[test]
fn a_queued_real_time_signal_arrives_as_often_as_it_was_sent() {
    let count = compare("RTMIN+1 five times", Reach::Child, |init| {
        let live = witness(init);
        kill(child_of(live.pid()), "CONT");
        live.expect("18");
        for _ in 0..5 {
            live.kill("35");
        }
        let count = heard(&live).iter().filter(|number| **number == 35).count();
        finish(live);
        count.to_string()
    });
    assert_eq!(count, "5");
}

/// Two witnesses in one group; how many of them a HUP reaches.
fn reached(init: &[&str]) -> String {
    let script = r#"python3 -c "$1" & exec python3 -c "$1""#;
    let live = Live::start(&join(init, &["sh", "-c", script, "sh", WITNESS]));
    live.expect("up");
    live.expect("up");
    live.kill("HUP");
    let mut count = 0;
    let patience = [Duration::from_secs(20), Duration::from_millis(300)];
    for patience in patience {
        count += i32::from(live.seek("1", patience).is_ok());
    }
    let child = child_of(live.pid());
    for pid in [crate::rig::children(child), vec![child]].concat() {
        kill(pid, "KILL");
    }
    drop(live);
    count.to_string()
}

#[test]
fn signals_reach_the_group_or_the_child_alone() {
    assert_eq!(compare("HUP reaches, group", Reach::Group, reached), "2");
    assert_eq!(compare("HUP reaches, child", Reach::Child, reached), "1");
}

#[test]
fn a_signal_can_be_rewritten_and_dropped() {
    let live = witness(&[OPM, "init", "-s", "-r", "15:3", "--rewrite", "HUP:0", "-rUSR1:RTMIN+1"]);
    for signal in ["HUP", "TERM", "USR1"] {
        live.kill(signal);
    }
    let mut got = heard(&live);
    got.sort_unstable();
    finish(live);
    assert_eq!(got, [3, 35]);
}

fn masks(prefix: &[&str]) -> String {
    let wrapped = ["env", "--ignore-signal=HUP,CHLD", "--block-signal=USR1,TSTP,64"];
    let words = ["grep", "-E", "^Sig(Blk|Ign|Cgt)", "/proc/self/status"];
    run(&[&wrapped[..], prefix, &words[..]].concat()).rest.join(" ").replace('\t', "")
}

#[test]
fn blocked_and_ignored_signals_are_handed_on_exactly() {
    let direct = masks(&[]);
    assert!(direct.contains("SigBlk:8000000000080200"), "{direct}");
    // tini would hang for ever: SIGCHLD is ignored.
    assert_eq!(masks(&[OPM, "init", "-s"]), direct);
    // SIGPIPE, which Rust's start-up would leave ignored.
    let plain = run(&["grep", "SigIgn", "/proc/self/status"]).rest;
    assert_eq!(run(&[OPM, "init", "-s", "grep", "SigIgn", "/proc/self/status"]).rest, plain);
}

#[test]
fn an_ignored_sigchld_does_not_hang_it() {
    let code = compare("SIGCHLD ignored at start", Reach::Group, |init| {
        let words = join(&["env", "--ignore-signal=CHLD"], init);
        Live::start(&join(&words, &["sh", "-c", "exit 6"]))
            .end_within(Duration::from_secs(3))
            .answer()
    });
    assert_eq!(code, "6");
}

#[test]
fn blocked_signals_are_forwarded_all_the_same() {
    let words = ["env", "--block-signal=TERM,CHLD", OPM, "init", "-s"];
    let live = witness(&words);
    live.kill("TERM");
    assert_eq!(heard(&live), [15]);
    finish(live);
}

#[test]
fn no_early_signal_is_lost() {
    const ROUNDS: u64 = 120;
    let lost = compare("TERM in the first 6 ms, lost of 120", Reach::Group, |init| {
        let mut lost = 0;
        for round in 0..ROUNDS {
            let mut live = Live::start(&join(init, &["sleep", "60"]));
            let until = std::time::Instant::now() + Duration::from_micros(6000 * round / ROUNDS);
            while std::time::Instant::now() < until {
                std::hint::spin_loop();
            }
            let pid = rustix::process::Pid::from_raw(live.pid()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
            let ended =
                within(Duration::from_millis(1500), &mut || (!live.is_alive()).then_some(()));
            lost += i32::from(ended.is_none());
        }
        lost.to_string()
    });
    assert_eq!(lost, "0");
}

#[test]
fn a_forwarded_tstp_stops_both_and_cont_resumes_both() {
    for signal in ["TSTP", "TTIN", "TTOU"] {
        let answer = compare(&format!("{signal}, not PID 1"), Reach::Group, |init| {
            let live = Live::start(&join(init, &["sh", "-c", "echo up; exec sleep 60"]));
            live.expect("up");
            let child = child_of(live.pid());
            live.kill(signal);
            let both = || (state(live.pid()) == 'T' && state(child) == 'T').then_some(());
            let stopped = within(Duration::from_secs(3), &mut { both }).is_some();
            let states = format!("{}{}", state(live.pid()), state(child));
            live.kill("CONT");
            let neither = || (state(live.pid()) != 'T' && state(child) != 'T').then_some(());
            let resumed = within(Duration::from_secs(3), &mut { neither }).is_some();
            kill(child, "KILL");
            format!("stopped {stopped} ({states}), resumed {resumed}")
        });
        assert_eq!(answer, "stopped true (TT), resumed true");
    }
}

/// Says which of them come, and is stopped by none.
const HANDLER: &str = "
import os, signal
for number in [1, 18, 20, 21, 22]:
    signal.signal(number, lambda number, _: os.write(1, b'%d\\n' % number))
os.write(1, b'up\\n')
while True: signal.pause()
";

/// What the program hears, and both states, after a stop and after the CONT that follows.
fn stopped_and_resumed(init: &[&str], signal: &str) -> String {
    let live = Live::start(&join(init, &["python3", "-c", HANDLER]));
    live.expect("up");
    let child = child_of(live.pid());
    live.kill(signal);
    let first = live.seek("", Duration::from_secs(3)).unwrap_or_default();
    let halted = || (state(live.pid()) == 'T').then_some(());
    let halted = within(Duration::from_secs(3), &mut { halted }).is_some();
    let is_theirs = state(child) == 'T';
    live.kill("CONT");
    let second = live.seek("", Duration::from_secs(3)).unwrap_or_default();
    let runs = || (state(live.pid()) != 'T').then_some(());
    let runs = within(Duration::from_secs(3), &mut { runs }).is_some();
    kill(child, "KILL");
    format!("{first} stops {halted}, program {is_theirs}, {second} resumes {runs}")
}

#[test]
fn with_c_the_program_gets_the_terminals_stops_as_they_are_and_init_stops() {
    for (signal, number) in [("TSTP", 20), ("TTIN", 21), ("TTOU", 22)] {
        let edge = format!("{signal}, handled, child");
        let answer = compare(&edge, Reach::Child, |init| stopped_and_resumed(init, signal));
        assert_eq!(answer, format!("{number} stops true, program false, 18 resumes true"));
    }
    // Its default does what it is there for.
    let live = Live::start(&[OPM, "init", "-s", "-c", "sh", "-c", "echo up; exec sleep 60"]);
    live.expect("up");
    let child = child_of(live.pid());
    for _ in 0..2 {
        live.kill("TSTP");
        eventually("both stop", || (state(live.pid()) == 'T' && state(child) == 'T').then_some(()));
        live.kill("CONT");
        eventually("both run", || (state(live.pid()) == 'S' && state(child) == 'S').then_some(()));
    }
    live.kill("TERM");
    assert_eq!(live.end().code, Some(143));
}

#[test]
fn a_rewritten_stop_of_a_terminal_is_sent_so_and_stops_init() {
    for (reach, name) in [(Reach::Group, "group"), (Reach::Child, "child")] {
        let edge = format!("TSTP:HUP, {name}");
        let answer = compare(&edge, reach, |init| match init[0] {
            "tini" => "no such flag".to_owned(),
            _ => {
                let flags = init.iter().filter(|flag| **flag != "--").copied();
                let flags: Vec<_> = flags.chain(["-r", "20:1", "--"]).collect();
                stopped_and_resumed(&flags, "TSTP")
            }
        });
        assert_eq!(answer, "1 stops true, program false, 18 resumes true");
    }
}

#[test]
fn a_stop_that_was_meant_for_the_program_alone_leaves_init_running() {
    let live = Live::start(&[OPM, "init", "-s", "sh", "-c", "echo up; exec sleep 60"]);
    live.expect("up");
    let child = child_of(live.pid());
    kill(child, "STOP");
    eventually("the child stops", || (state(child) == 'T').then_some(()));
    // A later signal is still acted on, so init has looked at the stop and runs.
    live.kill("CONT");
    eventually("the child resumes", || (state(child) == 'S').then_some(()));
    eventually("init waits again", || (state(live.pid()) == 'S').then_some(()));
    live.kill("TERM");
    assert_eq!(live.end().code, Some(143));
}

#[test]
fn a_signal_for_a_parents_death_is_forwarded() {
    let script = r#""$@" & echo $!; read x; exit 0"#;
    for (flag, expected) in [("-pUSR1", "10"), ("-pSIGHUP", "1")] {
        let mut live = Live::start(&[
            "sh", "-c", script, "sh", OPM, "init", "-s", flag, "python3", "-c", WITNESS,
        ]);
        let pid: i32 = live.expect("").parse().unwrap();
        live.expect("up");
        live.write("die\n");
        live.expect(expected);
        kill(child_of(pid), "KILL");
    }
}

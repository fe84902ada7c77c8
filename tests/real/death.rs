//! kill -9 on the daemon at any moment, many times: twenty services, some with trees and escapees,
//! and a command that happens to run. Whatever the moment, the next command finds every service
//! once, and those that nobody touched exactly as they were.
use crate::namespace::{Setting, fixture, isolated_in};
use crate::proc;
use crate::rig::{Rig, Row, finish};
use rustix::process::Signal;
use std::collections::HashMap;
use std::time::{Duration, Instant};

const SERVICES: usize = 20;
const NEST: &str = "nest";
/// A budget for the default run, in which as many rounds are made as fit, and the least of them.
const BUDGET: Duration = Duration::from_secs(25);
const ROUNDS_MIN: usize = 15;

/// xorshift64*: the order of a run can be had again.
struct Chance(u64);

impl Chance {
    fn new() -> Self {
        let clock = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        let random = u64::from(clock.subsec_nanos()) ^ u64::from(std::process::id()) << 32;
        let given = std::env::var("OPM_REAL_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or(random | 1);
        println!("OPM_REAL_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let word = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(word).unwrap() % bound
    }
}

/// What a service is made of; the number decides.
fn ops(n: usize) -> &'static str {
    match n % 6 {
        0 => "sleep",
        1 => "child [ sleep ] child [ setsid sleep ] sleep",
        2 => "child [ setsid child [ setsid sleep ] exit:0 ] wait sleep",
        3 => "child [ setsid ignore:TERM sleep ] sleep",
        4 => "wipe child [ setsid clean [ sleep ] ] sleep",
        _ => "child [ setsid rabbits:3 ] sleep",
    }
}

/// What goes on when the daemon is killed: commands, and the services that they may touch.
fn disturb(rig: &Rig, chance: &mut Chance, names: &[String]) -> (Vec<String>, Vec<String>) {
    let one = names[chance.below(names.len())].clone();
    let some: Vec<String> = names.iter().filter(|_| chance.below(4) == 0).cloned().collect();
    let targets = some.join(",");
    let say = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    match chance.below(9) {
        0 => (names.to_vec(), say(&["restart all"])),
        1 if !some.is_empty() => (some, vec![format!("restart {targets}")]),
        2 => (vec![one.clone()], vec![format!("stop {one}"), format!("start {one}")]),
        // Leaders die by themselves, so that drains are under way.
        3 | 4 => {
            for name in &some {
                if let Some(pid) = rig.row(name).pid.filter(|pid| proc::alive(*pid)) {
                    rig.kill(pid, Signal::KILL);
                }
            }
            (some, Vec::new())
        }
        5 => (Vec::new(), say(&["save"])),
        6 => (Vec::new(), say(&["restore"])),
        7 => (Vec::new(), say(&["daemon restart"])),
        _ => (Vec::new(), say(&["ls", "daemon start"])),
    }
}

/// Whether the process leads an incarnation: old pids are soon used again here.
fn is_leader(pid: i32) -> bool {
    let mark = proc::variable(pid, "OPM_MARK");
    mark.is_some_and(|mark| mark.ends_with(&format!(".{pid:010}")))
}

fn by_name(rows: Vec<Row>) -> HashMap<String, Row> {
    rows.into_iter().map(|row| (row.name.clone(), row)).collect()
}

fn wait_for_quiet(rig: &Rig, services: usize) -> HashMap<String, Row> {
    rig.until("every service to be online", || {
        let rows = rig.rows();
        let up = rows.iter().all(|row| row.status == "online" && row.pid.is_some());
        (up && rows.len() == services).then(|| by_name(rows))
    })
}

fn round(rig: &Rig, chance: &mut Chance, names: &[String], before: &HashMap<String, Row>) {
    let daemon = rig.daemon();
    let began = Instant::now();
    let (touched, commands) = disturb(rig, chance, names);
    let commands: Vec<_> = commands
        .iter()
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            (line, rig.spawn(&words))
        })
        .collect();
    std::thread::sleep(Duration::from_micros(chance.below(60_000) as u64));
    // An upgrade keeps the pid; a command may have started another one if this is dead already.
    if proc::alive(daemon) {
        rig.kill(daemon, Signal::KILL);
    }
    // Whatever they say: they end, and say it in one line.
    for (line, command) in commands {
        let ran = finish(command, &[line]);
        // Beside what had to be killed, of each service.
        let said = ran.err.lines().filter(|line| !line.contains("was stopped first"));
        assert!(ran.code.is_some() && said.count() <= 2, "{ran:?}");
    }
    rig.until_gone(daemon);
    let commands_took = began.elapsed();
    // A stop that was cut off may have been carried out: that service is asked for again.
    for name in &touched {
        rig.opm(&["start", name]);
    }
    let after = wait_for_quiet(rig, names.len());
    let took = began.elapsed();
    println!("{} touched, commands {commands_took:?}, quiet {took:?}", touched.len());
    for (name, was) in before {
        let now = &after[name];
        assert_eq!(now.id, was.id, "{name}");
        if !touched.contains(name) {
            assert_eq!(
                (now.pid, now.generation, now.restarts),
                (was.pid, was.generation, was.restarts),
                "{name} was touched by nobody"
            );
        }
        assert!(now.restarts >= was.restarts && now.generation >= was.generation, "{name}");
        let pid = now.pid.unwrap();
        assert!(proc::alive(pid), "{name}");
        // Unless it has overwritten its arguments, they say who it is.
        let line = proc::arguments(pid);
        let is_wiped = line.trim().is_empty();
        assert!(is_wiped || line.contains(&rig.lock(name)), "{name}: {line}");
        // The last to exec is the one that lives, and no other start does.
        let starts = rig.starts(name);
        let lives: Vec<_> = starts.iter().filter(|pid| is_leader(**pid)).collect();
        assert!(lives.len() <= 1, "{name}: {lives:?}");
        // The program of the opm within is a leader too, of a home that has its own marks.
        let is_it = |alive: i32| alive == pid || name == NEST;
        assert!(lives.iter().all(|alive| is_it(**alive)), "{name}: {lives:?} and {pid}");
    }
}

#[test]
fn no_moment_is_wrong_for_the_daemons_death() {
    let rounds: Option<usize> =
        std::env::var("OPM_REAL_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    let setting = Setting {
        time: rounds.map(|rounds| Duration::from_secs(120 + 10 * rounds as u64)),
        ..Setting::default()
    };
    isolated_in(setting, here!(), |rig| {
        let mut chance = Chance::new();
        let names: Vec<String> = (0..SERVICES).map(|n| format!("s{n}")).collect();
        let options = ["--min-uptime", "0s", "--stop-timeout", "100ms"];
        for (n, name) in names.iter().enumerate() {
            rig.start_with(name, &options, ops(n));
        }
        rig.start_nest(NEST, &options);
        let names: Vec<String> = names.into_iter().chain([NEST.to_owned()]).collect();
        rig.ok(&["save"]);
        let mut before = wait_for_quiet(rig, names.len());
        let began = Instant::now();
        let mut done = 0;
        while rounds.map_or(done < ROUNDS_MIN || began.elapsed() < BUDGET, |all| done < all) {
            round(rig, &mut chance, &names, &before);
            before = wait_for_quiet(rig, names.len());
            done += 1;
        }
        println!("{done} rounds in {:?}", began.elapsed());
        rig.ok(&["stop", "all"]);
        let own = fixture().display().to_string();
        let left: Vec<_> = proc::all()
            .into_iter()
            .filter(|process| proc::alive(process.pid))
            .map(|process| proc::arguments(process.pid))
            .filter(|line| line.starts_with(&own) && !line.contains(" --"))
            .collect();
        assert_eq!(left, Vec::<String>::new());
    });
}

/// Nobody asks for anything: the daemon alone is killed, again and again, at once.
#[test]
fn a_daemon_that_is_killed_in_its_adoption_changes_nothing() {
    isolated_in(Setting::default(), here!(), |rig| {
        let mut chance = Chance::new();
        let names: Vec<String> = (0..SERVICES).map(|n| format!("s{n}")).collect();
        for (n, name) in names.iter().enumerate() {
            rig.start(name, ops(n));
        }
        let before = wait_for_quiet(rig, SERVICES);
        for _ in 0..30 {
            let mut start = rig.spawn(&["daemon", "start"]);
            std::thread::sleep(Duration::from_micros(chance.below(8_000) as u64));
            for daemon in rig.daemons() {
                if daemon != start.id().cast_signed() && proc::alive(daemon) {
                    // It may be gone by now: a launcher between its two forks.
                    let pid = rustix::process::Pid::from_raw(daemon).unwrap();
                    rustix::process::kill_process(pid, Signal::KILL).ok();
                }
            }
            start.wait().unwrap();
        }
        let after = wait_for_quiet(rig, SERVICES);
        for (name, was) in before {
            let now = &after[&name];
            assert_eq!((now.id, now.pid, now.generation), (was.id, was.pid, was.generation));
        }
    });
}

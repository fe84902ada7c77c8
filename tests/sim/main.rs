//! The whole daemon over a kernel that is made up, in virtual time, with everything that can go
//! wrong going wrong by the seed; the law is checked against the truth at every step.
//!
//! `SEED=n` replays one seed with a trace, `SEEDS=n` says how many are run.
#![allow(clippy::unwrap_used)]

mod chaos;
mod kernel;
mod operator;
mod oracle;
mod rng;
mod run;
mod world;

use run::Sim;

const SEEDS: u64 = 500;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn run(seed: u64, trace: bool) -> Result<Sim, String> {
    let mut sim = Sim::new(seed, trace);
    match sim.run() {
        Ok(()) => Ok(sim),
        Err(text) => Err(format!(
            "seed {seed}: {text}\n  replay: SEED={seed} make sim"
        )),
    }
}

#[test]
fn the_law_holds_whatever_goes_wrong() {
    if let Some(seed) = number("SEED") {
        let text = run(seed, true).err();
        assert_eq!(text, None);
        return;
    }
    let first = number("FIRST").unwrap_or(1);
    let seeds = number("SEEDS").unwrap_or(SEEDS);
    let (mut deaths, mut execs, mut excused) = (0, 0, 0);
    let mut failures = Vec::new();
    for seed in first..first + seeds {
        match run(seed, false) {
            Ok(sim) => {
                deaths += sim.deaths;
                let world = sim.world.borrow();
                execs += world.execs.len();
                excused += world.excused;
            }
            Err(text) => failures.push(text),
        }
        if failures.len() >= 20 {
            break;
        }
    }
    eprintln!("{seeds} seeds: {execs} execs, {deaths} daemons ended, {excused} stated limits met");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(
        execs as u64 > seeds && deaths > seeds / 2,
        "nothing happened"
    );
}

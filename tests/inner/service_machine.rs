//! Of `service::machine`: compiled with the library, for it uses what is private there.
use super::*;

/// A copy with `time` and `generation` applied to all that it holds.
pub fn copy(
    machine: &Machine,
    time: impl Fn(Time) -> Time,
    generation: impl Fn(Generation) -> Generation,
) -> Machine {
    let run = |run: &Incarnation| Incarnation(generation(run.0));
    let phase = match machine.phase() {
        Phase::Down(_) => Phase::Down(Vacancy(())),
        Phase::Failed(_) => Phase::Failed(Vacancy(())),
        Phase::Cooldown { since, delay, .. } => {
            Phase::Cooldown { vacancy: Vacancy(()), since: time(*since), delay: *delay }
        }
        Phase::Starting { run: r, asked } => Phase::Starting { run: run(r), asked: *asked },
        Phase::Up { run: r, since, ready } => {
            Phase::Up { run: run(r), since: time(*since), ready: *ready }
        }
        Phase::Lingering { run: r, quick, until } => {
            Phase::Lingering { run: run(r), quick: *quick, until: time(*until) }
        }
        Phase::Stopping { run: r, cause, kill_at } => {
            let kill_at = if *kill_at == Time::MAX { Time::MAX } else { time(*kill_at) };
            Phase::Stopping { run: run(r), cause: *cause, kill_at }
        }
    };
    Machine {
        policy: machine.policy.clone(),
        phase: Some(phase),
        restarts: 0,
        goal: machine.goal,
        deaths: machine.deaths,
    }
}

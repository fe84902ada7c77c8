//! The transitions: what each phase does with each input.
//!
//! The tokens' only ways are here: `spawn` from a vacancy to an incarnation, `settle` (and a
//! launch that failed) back.
use super::super::policy;
use super::super::spec::Restart;
use super::{
    Action, Cause, Ending, Fault, Goal, Incarnation, Input, Machine, News, Phase, Sequence, Time,
    Vacancy,
};
use crate::mutant::mutant;

/// One call of [`Machine::step`]: the machine without its phase, and what it may use.
pub(super) struct Step<'a> {
    pub(super) machine: &'a mut Machine,
    pub(super) now: Time,
    pub(super) sequence: &'a mut Sequence,
    pub(super) out: &'a mut Vec<Action>,
}

impl Step<'_> {
    pub(super) fn idle(
        &mut self,
        vacancy: Vacancy,
        input: Input,
        stay: fn(Vacancy) -> Phase,
    ) -> Phase {
        match input {
            Input::Start | Input::Restart => {
                self.machine.deaths = 0;
                self.machine.restarts += u64::from(matches!(input, Input::Restart));
                self.spawn(vacancy, true)
            }
            Input::Stop => Phase::Down(vacancy),
            Input::Tick | Input::News(..) => stay(vacancy),
        }
    }

    pub(super) fn cooldown(
        &mut self,
        vacancy: Vacancy,
        since: Time,
        delay: Time,
        input: Input,
    ) -> Phase {
        match input {
            Input::Tick if !policy::is_in_restart_cooldown(Some(since), delay, self.now) => {
                self.machine.restarts += 1;
                self.spawn(vacancy, false)
            }
            Input::Start | Input::Restart | Input::Stop => self.idle(vacancy, input, Phase::Down),
            Input::Tick | Input::News(..) => Phase::Cooldown { vacancy, since, delay },
        }
    }

    pub(super) fn starting(&mut self, run: Incarnation, asked: bool, input: Input) -> Phase {
        let news = match input {
            Input::Start | Input::Restart => return Phase::Starting { run, asked: true },
            // A launch can hang (a log on a FIFO, a dead server): it is ended like what runs.
            Input::Stop if !mutant("forget_stop") => return self.stop(run, Cause::Asked),
            Input::Stop | Input::Tick => return Phase::Starting { run, asked },
            Input::News(_, news) => news,
        };
        match news {
            News::Spawned => Phase::Up { run, since: self.now, ready: false },
            News::SpawnFailed(Fault::Program) if asked => Phase::Failed(run.vacate()),
            News::SpawnFailed(Fault::Machine) => self.settle(run, Cause::Crowded),
            News::SpawnFailed(Fault::Program) | News::Emptied => self.settle(run, QUICK),
            News::LeaderExited(_) => self.stop(run, QUICK),
            News::Daemonized | News::Ready | News::Fail | News::Renew => {
                Phase::Starting { run, asked }
            }
        }
    }

    pub(super) fn up(&mut self, run: Incarnation, since: Time, ready: bool, input: Input) -> Phase {
        let news = match input {
            Input::Start | Input::Tick => return Phase::Up { run, since, ready },
            Input::Stop | Input::Restart => return self.stop(run, Cause::Asked),
            Input::News(_, news) => news,
        };
        let quick = !ready || self.now.saturating_sub(since) < self.machine.policy.min_uptime.ms;
        let is_wanted = self.machine.goal == Goal::Up;
        let failed = Cause::Died { ending: Ending::Failure, quick };
        match news {
            News::Ready => Phase::Up { run, since, ready: true },
            News::Renew if is_wanted => self.stop(run, Cause::Advised),
            News::Fail if is_wanted => self.stop(run, failed),
            News::LeaderExited(ending) if mutant("skip_drain") => {
                self.settle(run, Cause::Died { ending, quick })
            }
            News::LeaderExited(Ending::Clean) => {
                let until = self.now.saturating_add(policy::LINGER_MS);
                Phase::Lingering { run, quick, until }
            }
            News::LeaderExited(Ending::Failure) => self.stop(run, failed),
            News::LeaderExited(Ending::Final) => {
                self.machine.goal = Goal::Down;
                self.stop(run, Cause::Died { ending: Ending::Final, quick })
            }
            News::Emptied => self.settle(run, failed),
            News::Spawned | News::SpawnFailed(_) | News::Daemonized | News::Fail | News::Renew => {
                Phase::Up { run, since, ready }
            }
        }
    }

    pub(super) fn lingering(
        &mut self,
        run: Incarnation,
        quick: bool,
        until: Time,
        input: Input,
    ) -> Phase {
        let ended = Cause::Died { ending: Ending::Clean, quick };
        match input {
            Input::News(_, News::Emptied) => self.settle(run, ended),
            Input::News(_, News::Daemonized) => self.stop(run, Cause::Daemonized),
            // Nothing of it is known to live, and yet it isn't confirmed.
            Input::Tick if until <= self.now && !mutant("linger") => self.stop(run, ended),
            Input::Stop => self.stop(run, ended),
            Input::Start | Input::Restart => self.stop(run, Cause::Asked),
            Input::Tick | Input::News(..) => Phase::Lingering { run, quick, until },
        }
    }

    pub(super) fn stopping(
        &mut self,
        run: Incarnation,
        cause: Cause,
        kill_at: Time,
        input: Input,
    ) -> Phase {
        match input {
            Input::Restart if mutant("eager_restart") => {
                let vacancy = run.vacate();
                self.spawn(vacancy, true)
            }
            Input::Start | Input::Restart => Phase::Stopping { run, cause: Cause::Asked, kill_at },
            Input::Tick if kill_at <= self.now => {
                self.out.push(Action::KillTree(run.0));
                let next = self.now.saturating_add(policy::KILL_INTERVAL_MS);
                let kill_at = if mutant("kill_once") { Time::MAX } else { next };
                Phase::Stopping { run, cause, kill_at }
            }
            Input::News(_, News::LeaderExited(_)) if mutant("leader_is_all") => {
                self.settle(run, cause)
            }
            Input::News(_, News::Emptied | News::SpawnFailed(_)) => self.settle(run, cause),
            Input::Stop | Input::Tick | Input::News(..) => Phase::Stopping { run, cause, kill_at },
        }
    }

    /// The only way to start a process.
    fn spawn(&mut self, vacancy: Vacancy, asked: bool) -> Phase {
        let run = vacancy.occupy(self.sequence);
        self.out.push(Action::Spawn(run.0));
        Phase::Starting { run, asked }
    }

    fn stop(&mut self, run: Incarnation, cause: Cause) -> Phase {
        self.out.push(Action::Terminate(run.0));
        let kill_at = self.now.saturating_add(self.machine.policy.stop_timeout.ms);
        Phase::Stopping { run, cause, kill_at }
    }

    /// The only way out of an incarnation: nothing of it is left, so what next?
    fn settle(&mut self, run: Incarnation, cause: Cause) -> Phase {
        let vacancy = run.vacate();
        match (self.machine.goal, cause) {
            (Goal::Down, _) => Phase::Down(vacancy),
            (Goal::Up, Cause::Asked) => {
                self.machine.deaths = 0;
                self.machine.restarts += 1;
                self.spawn(vacancy, true)
            }
            (Goal::Up, Cause::Advised) => {
                self.machine.restarts += 1;
                self.spawn(vacancy, false)
            }
            (Goal::Up, Cause::Crowded) => {
                let delay = self.machine.policy.restart_delay.min_ms.max(policy::CROWDED_DELAY_MS);
                Phase::Cooldown { vacancy, since: self.now, delay }
            }
            (Goal::Up, Cause::Daemonized) => Phase::Failed(vacancy),
            (Goal::Up, Cause::Died { ending, quick }) => self.died(vacancy, ending, quick),
        }
    }

    fn died(&mut self, vacancy: Vacancy, ending: Ending, quick: bool) -> Phase {
        let machine = &mut *self.machine;
        match (machine.policy.restart, ending) {
            (Restart::Never, Ending::Failure) => Phase::Failed(vacancy),
            (_, Ending::Final) | (Restart::Never | Restart::OnFailure, Ending::Clean) => {
                machine.goal = Goal::Down;
                Phase::Down(vacancy)
            }
            (Restart::Always | Restart::OnFailure, Ending::Failure)
            | (Restart::Always, Ending::Clean) => {
                if !quick {
                    machine.deaths = 0;
                    machine.restarts += 1;
                    return self.spawn(vacancy, false);
                }
                machine.deaths = machine.deaths.saturating_add(1);
                if machine.deaths > machine.policy.max_restarts.0 {
                    return Phase::Failed(vacancy);
                }
                let delay =
                    policy::restart_cooldown_delay_ms(machine.policy.restart_delay, machine.deaths);
                Phase::Cooldown { vacancy, since: self.now, delay }
            }
        }
    }
}

const QUICK: Cause = Cause::Died { ending: Ending::Failure, quick: true };

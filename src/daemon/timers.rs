//! What is due when: one table for all that waits for the clock.
//!
//! Times are those of `CLOCK_BOOTTIME`, which goes on through a suspend.
use crate::service::machine::Time;
use crate::service::probe::Question;
use crate::service::spec::Id;
use std::collections::{BTreeMap, BTreeSet};

/// What waits for the clock. Each waits for one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// The deadline of a service's machine.
    Machine(Id),
    /// A service is due by its schedule.
    Cron(Id),
    /// Its memory is measured.
    Memory(Id),
    /// Its files have ceased to change.
    Watch(Id),
    /// A service is asked, or has had its time.
    Check(Question, Id),
    /// A request that is answered by then.
    Request(u64),
    /// A look at the logs of a service.
    Log(Id),
    /// A service that was started has settled, if it is still up.
    Settling(Id),
    /// What could not be written is tried again.
    Ledger,
}

#[derive(Debug, Default)]
pub(crate) struct Timers {
    armed: BTreeMap<Timer, Time>,
    due: BTreeSet<(Time, Timer)>,
}

impl Timers {
    /// Arms a timer, for whatever time it was armed before; or disarms it.
    pub(crate) fn set(&mut self, timer: Timer, at: Option<Time>) {
        let before = self.armed.get(&timer).copied();
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.due.remove(&(before, timer));
        }
        match at {
            Some(at) => {
                self.armed.insert(timer, at);
                self.due.insert((at, timer));
            }
            None => drop(self.armed.remove(&timer)),
        }
    }

    pub(crate) fn is_set(&self, timer: Timer) -> bool {
        self.armed.contains_key(&timer)
    }

    /// Takes one that is due by now.
    pub(crate) fn pop(&mut self, now: Time) -> Option<Timer> {
        let (_, timer) = self.due.first().copied().filter(|(at, _)| *at <= now)?;
        self.set(timer, None);
        Some(timer)
    }

    pub(crate) fn next(&self) -> Option<Time> {
        self.due.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
#[path = "../../tests/inner/daemon_timers.rs"]
mod tests;

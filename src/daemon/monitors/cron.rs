//! When a service is due by its schedule: one that runs is restarted, one that has ended is started
//! again; a job (`--restart never`) that still runs is left alone.
use super::advice::{Advice, Cx};
use crate::daemon::service::Service;
use crate::daemon::timers::Timer;
use crate::service::cron::Cron;
use crate::service::machine::{Generation, Phase};
use crate::service::spec::{Id, Restart};
use crate::sys::zone;
use std::collections::BTreeMap;

/// A clock that is put back by less does not repeat what was due.
const PUT_BACK_MS_MAX: u64 = 3 * 3_600_000;

/// What is due next of one service.
#[derive(Debug)]
struct Armed {
    cron: Cron,
    zone: Option<String>,
    /// Whose definition it is of, while that lives.
    generation: Option<Generation>,
    /// Unix milliseconds; when it was due last, and will be.
    last: u64,
    next: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Crons {
    armed: BTreeMap<Id, Box<Armed>>,
}

impl Armed {
    /// Finds out when it is due after what is past, and arms its timer.
    fn arm(&mut self, cx: &mut Cx<'_>, id: Id) {
        let is_put_back = (1..PUT_BACK_MS_MAX).contains(&self.last.saturating_sub(cx.wall));
        let after = if is_put_back { self.last } else { cx.wall };
        let after = i64::try_from(after / 1_000).unwrap_or(i64::MAX);
        let next = zone::with(self.zone.as_deref(), |offset| self.cron.next(after, offset));
        let next = next.and_then(|next| u64::try_from(next).ok());
        self.next = next.map_or(u64::MAX, |next| next.saturating_mul(1_000));
        self.wait(cx, id);
    }

    fn wait(&self, cx: &mut Cx<'_>, id: Id) {
        let left = self.next.saturating_sub(cx.wall);
        cx.timers.set(Timer::Cron(id), Some(cx.now.saturating_add(left)));
    }
}

impl Crons {
    pub(super) fn follow(&mut self, cx: &mut Cx<'_>, of: &Service) {
        let (wanted, lives) = (&of.definition.spec.care.cron, of.machine.generation());
        let wanted =
            wanted.as_ref().filter(|_| !of.removing && (!of.record.halted || lives.is_some()));
        let Some(armed) = self.armed.get_mut(&of.id) else {
            if let Some(cron) = wanted {
                let zone = zone_of(cron, of);
                let (cron, generation) = (cron.clone(), lives);
                let mut armed = Box::new(Armed { cron, zone, generation, last: 0, next: 0 });
                armed.arm(cx, of.id);
                self.armed.insert(of.id, armed);
            }
            return;
        };
        if lives.is_some() && armed.generation == lives && !of.removing {
            return;
        }
        armed.generation = lives;
        match wanted {
            Some(cron) if *cron == armed.cron && zone_of(cron, of) == armed.zone => {}
            Some(cron) => {
                (armed.cron, armed.zone) = (cron.clone(), zone_of(cron, of));
                armed.arm(cx, of.id);
            }
            None => self.forget(cx, of.id),
        }
    }

    pub(crate) fn due(&mut self, cx: &mut Cx<'_>, of: &Service) {
        let Some(armed) = self.armed.get_mut(&of.id) else { return };
        if cx.wall < armed.next {
            return armed.wait(cx, of.id);
        }
        let is_job = of.machine.policy().restart == Restart::Never;
        match of.machine.phase() {
            Phase::Up { .. } if is_job => {
                cx.say(of, Advice::Status("it was not started at its time: it still ran".into()));
            }
            Phase::Up { .. } => cx.say(of, Advice::Restart("cron".into())),
            Phase::Down(_) | Phase::Failed(_) => cx.say(of, Advice::Start("cron".into())),
            Phase::Cooldown { .. }
            | Phase::Starting { .. }
            | Phase::Lingering { .. }
            | Phase::Stopping { .. } => {}
        }
        armed.last = armed.next;
        armed.arm(cx, of.id);
    }

    /// The wall clock was set: what is past now is due, all else has another distance.
    pub(crate) fn clock_changed(&mut self, cx: &mut Cx<'_>) {
        for (id, armed) in self.armed.iter_mut() {
            match armed.next <= cx.wall {
                true => armed.wait(cx, *id),
                false => armed.arm(cx, *id),
            }
        }
    }

    pub(crate) fn forget(&mut self, cx: &mut Cx<'_>, id: Id) {
        if self.armed.remove(&id).is_some() {
            cx.timers.set(Timer::Cron(id), None);
        }
    }

    /// When a service is due next, in Unix milliseconds.
    pub(crate) fn next(&self, id: Id) -> Option<u64> {
        self.armed.get(&id).map(|armed| armed.next)
    }
}

/// The zone that a schedule names, or else its service's; none is ours.
fn zone_of(cron: &Cron, of: &Service) -> Option<String> {
    let own = || of.definition.variable("TZ");
    cron.zone().or_else(own).map(str::to_owned)
}

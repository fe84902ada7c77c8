//! What looks at services from outside: whether one is ready, well, too big or out of date.
//!
//! A monitor can neither start nor end anything, and sees no process of ours. It gives [`Advice`],
//! and the machine decides: so whatever a monitor says, and whenever, the law holds.
mod advice;
mod attempt;
mod channel;
mod checks;
mod cron;
mod memory;
mod watch;

pub use advice::Advice;
pub(crate) use advice::Cx;
pub(crate) use channel::Channel;
pub(crate) use checks::Told;

use super::service::Service;
use super::timers::Timer;
use crate::service::spec::Id;
use advice::Advised;
use checks::Checker;
use cron::Crons;
use memory::Memory;
use std::collections::BTreeMap;
use watch::Watches;

/// All monitors, and what they have said.
#[derive(Debug, Default)]
pub(crate) struct Monitors {
    pub(crate) advice: Vec<Advised>,
    pub(crate) crons: Crons,
    pub(crate) memory: Memory,
    pub(crate) watches: Watches,
    pub(crate) checks: Checker,
    /// What services said of themselves last, and which incarnation it was.
    pub(crate) said: BTreeMap<Id, (u64, Box<str>)>,
}

impl Monitors {
    /// Tells each of a service that has stepped.
    pub(crate) fn follow(&mut self, cx: &mut Cx<'_>, of: &Service) {
        self.checks.follow(cx, of);
        self.crons.follow(cx, of);
        self.memory.follow(cx, of);
        self.watches.follow(cx, of);
    }

    pub(crate) fn forget(&mut self, cx: &mut Cx<'_>, id: Id) {
        self.crons.forget(cx, id);
        self.memory.samples.remove(&id);
        cx.timers.set(Timer::Memory(id), None);
        self.watches.forget(cx, id);
        self.said.remove(&id);
    }
}

//! What looks at services from outside: whether one is ready, well, too big or out of date.
//!
//! A monitor can neither start nor end anything, and sees no process of ours. It gives [`Advice`],
//! and the machine decides: so whatever a monitor says, and whenever, the law holds.
mod advice;
mod cron;
mod memory;
mod ready;
mod watch;

pub use advice::Advice;
pub(crate) use advice::Cx;

use super::service::Service;
use crate::service::spec::Id;
use advice::Advised;
use cron::Crons;
use memory::Memory;
use watch::Watches;

/// All monitors, and what they have said.
#[derive(Debug, Default)]
pub(crate) struct Monitors {
    pub(crate) advice: Vec<Advised>,
    pub(crate) crons: Crons,
    pub(crate) memory: Memory,
    pub(crate) watches: Watches,
}

impl Monitors {
    /// Tells each of a service that has stepped.
    pub(crate) fn follow(&mut self, cx: &mut Cx<'_>, of: &Service) {
        ready::follow(cx, of);
        self.crons.follow(cx, of);
        self.memory.follow(cx, of);
        self.watches.follow(cx, of);
    }

    /// A service is no more.
    pub(crate) fn forget(&mut self, cx: &mut Cx<'_>, id: Id) {
        self.crons.forget(cx, id);
        self.memory.forget(cx, id);
        self.watches.forget(cx, id);
    }
}

//! What looks at services from outside: whether one is ready, well, too big or out of date.
//!
//! A monitor can neither start nor end anything, and sees no process of ours. It gives [`Advice`],
//! and the machine decides: so whatever a monitor says, and whenever, the law holds.
mod advice;
mod ready;

pub use advice::Advice;

use super::service::Service;
use advice::{Advised, Monitor};
use ready::Ready;

/// All monitors, and what they have said.
#[derive(Debug, Default)]
pub(crate) struct Monitors {
    ready: Ready,
    pub(crate) advice: Vec<Advised>,
}

impl Monitors {
    /// Tells each of a service that has stepped.
    pub(crate) fn follow(&mut self, of: &Service) {
        self.ready.follow(of, &mut self.advice);
    }
}

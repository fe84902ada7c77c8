//! What looks at services from outside: whether one is ready, well, too big or out of date.
//!
//! A monitor can neither start nor end anything, and sees no process of ours. It gives [`Advice`],
//! and the machine decides: so whatever a monitor says, and whenever, the law holds.
mod ready;

use super::service::Service;
use crate::service::machine::Generation;
use crate::service::spec::Id;
use ready::Ready;

/// What a monitor says of one incarnation. On any but the newest it is not heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advice {
    /// It does its work.
    Ready,
    /// Another incarnation is better, and why.
    Restart(String),
    /// It has ended, and it is time for the next, and why.
    Start(String),
    /// What is to be told of it.
    Status(String),
}

/// Advice, and on whom.
pub(crate) type Advised = (Id, Generation, Advice);

/// Looks at services from outside.
pub(crate) trait Monitor {
    /// A service has stepped: its phase or its definition may have changed.
    fn follow(&mut self, of: &Service, advice: &mut Vec<Advised>);
}

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

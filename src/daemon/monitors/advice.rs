//! What monitors say, and how they come to say it.
use crate::daemon::service::Service;
use crate::service::machine::Generation;
use crate::service::spec::Id;

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

//! What monitors say, and what they look at services with.
use crate::daemon::service::Service;
use crate::daemon::timers::Timers;
use crate::service::machine::{Generation, Time};
use crate::service::probe::Question;
use crate::service::spec::Id;
use mio::Registry;

/// What a monitor says of one incarnation. On any but the newest it is not heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advice {
    /// It does its work.
    Ready,
    /// It does not, and why: it has failed, though it lives.
    Fail(String),
    /// Another incarnation is better, and why.
    Restart(String),
    /// It has ended, and it is time for the next, and why.
    Start(String),
    /// What is to be told of it; empty: nothing any more.
    Status(String),
    /// A line for a shell is to be run beside it, as it is run itself: for this question.
    Probe(Question, String),
    /// That takes too long.
    EndProbe(Question),
}

pub(crate) type Advised = (Id, Generation, Advice);

pub(crate) struct Cx<'a> {
    pub(crate) now: Time,
    /// Unix milliseconds.
    pub(crate) wall: u64,
    pub(crate) home: &'a str,
    pub(crate) timers: &'a mut Timers,
    /// Where its descriptors are watched. None: nobody turns a loop.
    pub(crate) registry: Option<&'a Registry>,
    pub(crate) advice: &'a mut Vec<Advised>,
}

impl Cx<'_> {
    /// Advises on the newest incarnation.
    pub(super) fn say(&mut self, of: &Service, advice: Advice) {
        self.advice.push((of.id, Generation(of.record.generation), advice));
    }
}

//! A process, as the [`World`](crate::world::World) has it.
use crate::world::{Key, OUTSIDE, UNLIMITED};
use opm::process::journal_format::Signature;
use opm::process::{Exit, Namespace, Pid};
use opm::sys::{Errno, Stage};
use std::rc::Rc;

/// Which incarnation a process descends from: known to the truth only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    pub(crate) service: usize,
    pub(crate) generation: u64,
    /// The daemon that forked its leader.
    pub(crate) born: Key,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Running,
    Stopped,
    Zombie(Exit),
}

/// A child between fork and exec.
#[derive(Clone, Debug)]
pub(crate) struct Pre {
    pub(crate) stage: u8,
    pub(crate) launch: u64,
    pub(crate) file: u64,
    pub(crate) offset: Option<u64>,
    pub(crate) signature: Signature,
    pub(crate) limit: Option<u64>,
    pub(crate) env: Vec<u8>,
    pub(crate) cmdline: Vec<u8>,
    pub(crate) cwd: String,
    pub(crate) fails: Option<(Stage, Errno)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Proc {
    pub(crate) key: Key,
    pub(crate) pid: Pid,
    pub(crate) start: u64,
    pub(crate) parent: Key,
    /// When it became its parent's child; its own key, unless that was an orphan's new parent.
    pub(crate) arrival: u64,
    /// The processes whose numbers name group and session, alive or not.
    pub(crate) group: (Key, Pid),
    pub(crate) session: (Key, Pid),
    pub(crate) tag: Option<Tag>,
    pub(crate) leader: bool,
    pub(crate) pre: Option<Pre>,
    pub(crate) state: State,
    /// Its first thread has ended, others run.
    pub(crate) half_dead: bool,
    pub(crate) limit: (u64, u64),
    pub(crate) env: Rc<Vec<u8>>,
    pub(crate) env_hidden: bool,
    pub(crate) limit_lost: bool,
    /// It bears the limit mark of an opm inside of its service.
    pub(crate) nested: bool,
    pub(crate) cmdline: Rc<Vec<u8>>,
    pub(crate) cwd: Rc<str>,
    pub(crate) uid: u32,
    /// Its time namespace.
    pub(crate) namespace: Namespace,
    /// The id of that which its incarnation was given.
    pub(crate) given: u64,
    pub(crate) pid_namespace: u64,
    /// Its memory does not answer.
    pub(crate) mute: bool,
    pub(crate) stubborn: bool,
    /// In D state: fatal signals wait.
    pub(crate) stuck: bool,
    pub(crate) doom: Option<Exit>,
    pub(crate) term_pending: bool,
    /// The daemon that has sent it the stop signal.
    pub(crate) termed_by: Option<Key>,
    /// How often the pids had wrapped around when it got its own.
    pub(crate) wraps: u64,
    /// Its end was asked for before its exec.
    pub(crate) ended: bool,
    /// A tracer has its exit status.
    pub(crate) traced: bool,
}

impl Proc {
    pub(crate) fn is_alive(&self) -> bool {
        !matches!(self.state, State::Zombie(_))
    }

    /// Nothing tells whose it is: with its ancestry cut nobody can know it.
    pub(crate) fn is_unmarked(&self) -> bool {
        let bears_one = self.env.windows(4).any(|word| word == b"OPM_");
        let env_lost = !bears_one || self.env_hidden || self.limit == UNLIMITED;
        let is_told = self.given != OUTSIDE.id && self.namespace.id == self.given;
        !is_told && self.limit_lost && env_lost
    }
}

//! What is to be launched, and what all of it gets.
use crate::process::Pid;
use crate::service::environment::NODE_PRELOAD;
use crate::service::machine::Generation;
use crate::service::probe::Question;
use crate::service::spec::{Definition, Id, Spec};
use crate::sys::{Kernel, Mode, Streams, write_all_at};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

/// What is to be launched, and what all of it gets.
#[derive(Debug, Default)]
pub(crate) struct Launches {
    pub(crate) queue: VecDeque<(Id, Generation)>,
    /// Marks that this daemon was itself started under, to hand on to its services.
    pub(crate) outer: Option<String>,
    /// What runs beside a service to answer a question, by its pid.
    pub(crate) probes: BTreeMap<Pid, (Id, Generation, Question)>,
    /// Launches that wait for another service to be ready: for which, and whose.
    pub(crate) held: BTreeSet<(Id, Id)>,
    /// Stops that wait for those that depend on the service to go.
    pub(crate) stops: BTreeMap<Id, BTreeSet<Id>>,
    pub(crate) stops_due: Vec<Id>,
    /// By name: whose output does not go to log files.
    pub(crate) foreground: HashMap<String, Streams>,
    /// The home's path leads elsewhere: nothing is launched until it is found again.
    pub(crate) home_lost: bool,
    /// This daemon has written what node is to load.
    pub(crate) has_preload: bool,
    /// Of live incarnations that were started under another definition: that one.
    pub(crate) former: BTreeMap<Id, Definition>,
    /// A child of these was forked under another definition, and they are restarted as soon as it
    /// has exec'd.
    pub(crate) outdated: BTreeSet<Id>,
}

impl Launches {
    /// Once, before the first that may be a node program with sockets.
    pub(crate) fn write_preload<K: Kernel>(&mut self, kernel: &mut K, spec: &Spec) {
        if self.has_preload || spec.held.listen.is_empty() || spec.held.no_node_preload {
            return;
        }
        let file = kernel.open(NODE_PRELOAD, Mode::Fresh);
        let written = file.and_then(|file| write_all_at(kernel, &file, 0, PRELOAD.as_bytes()));
        self.has_preload = written.is_ok();
    }
}

const PRELOAD: &str = include_str!("node-preload.cjs");

/// What every process that PID 1 starts holds open: see `predecessor`. No service's name begins so.
pub(crate) const LIVING: &str = "logs/.living.fifo";

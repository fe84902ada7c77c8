//! What is to be launched, and what all of it gets.
use crate::service::machine::Generation;
use crate::service::spec::Id;
use crate::sys::Streams;
use std::collections::{HashMap, VecDeque};

/// What is to be launched, and what all of it gets.
#[derive(Debug, Default)]
pub(crate) struct Launches {
    pub(crate) queue: VecDeque<(Id, Generation)>,
    /// Marks that this daemon was itself started under, to hand on to its services.
    pub(crate) outer: Option<String>,
    /// By name: whose output does not go to log files.
    pub(crate) foreground: HashMap<String, Streams>,
    /// The home's path leads elsewhere: nothing is launched until it is found again.
    pub(crate) home_lost: bool,
}

/// What every process that PID 1 starts holds open: see `predecessor`. No service's name begins so.
pub(crate) const LIVING: &str = "logs/.living.fifo";

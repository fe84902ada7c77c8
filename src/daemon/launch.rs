//! What an incarnation is started with: its environment, and where its output goes.
use crate::process::mark::{EnvMark, MARK_VARIABLE};
use crate::service::machine::Generation;
use crate::service::name::file_name_of;
use crate::service::spec::{Definition, Id};
use crate::sys::{Streams, Strings};
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

/// The paths of a service's output and errors.
pub(super) fn paths(streams: Streams, home: &str, name: &str) -> (String, String) {
    match streams {
        Streams::Files | Streams::Inherited => log_paths(home, name),
        Streams::Fifos => fifo_paths(home, name),
    }
}

/// The paths of a service's log files.
pub fn log_paths(home: &str, name: &str) -> (String, String) {
    let file = file_name_of(name);
    (format!("{home}/logs/{file}-out.log"), format!("{home}/logs/{file}-error.log"))
}

/// The paths of the FIFOs that take a service's output to the terminal or the container's log.
pub fn fifo_paths(home: &str, name: &str) -> (String, String) {
    let file = file_name_of(name);
    (format!("{home}/logs/{file}-out.fifo"), format!("{home}/logs/{file}-error.fifo"))
}

/// All that an incarnation finds in its environment.
pub(crate) fn environment(
    definition: &Definition,
    home: &str,
    mark: &EnvMark,
    outer: Option<&str>,
) -> Strings {
    let mut env = Strings::default();
    for (name, value) in definition.variables() {
        env.push(&[name, "=", value]);
    }
    env.push(&["OPM_HOME=", home]);
    env.push(&["OPM_NAME=", &definition.spec.name]);
    if let Some(outer) = outer {
        env.push(&["OPM_OUTER=", outer]);
    }
    env.push(&[MARK_VARIABLE, "=", &mark.value()]);
    env
}

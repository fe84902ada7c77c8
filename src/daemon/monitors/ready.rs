//! When a service does its work. The only kind: as soon as its program runs.
use super::advice::{Advice, Advised, Monitor};
use crate::daemon::service::Service;
use crate::service::machine::Phase;

/// Readiness by exec.
#[derive(Debug, Default)]
pub(super) struct Ready;

impl Monitor for Ready {
    fn follow(&mut self, of: &Service, advice: &mut Vec<Advised>) {
        if let (Phase::Up { ready: false, .. }, Some(generation)) =
            (of.machine.phase(), of.machine.generation())
        {
            advice.push((of.id, generation, Advice::Ready));
        }
    }
}

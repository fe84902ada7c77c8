//! When a service does its work. The only kind: as soon as its program runs.
use super::advice::{Advice, Cx};
use crate::daemon::service::Service;
use crate::service::machine::Phase;

/// Readiness by exec.
pub(super) fn follow(cx: &mut Cx<'_>, of: &Service) {
    if matches!(of.machine.phase(), Phase::Up { ready: false, .. }) {
        cx.say(of, Advice::Ready);
    }
}

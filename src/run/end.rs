//! How `opm run` sees a service of the daemon.
use crate::daemon::service::Service;
use crate::process::Exit;
use crate::service::context::Context;
use crate::service::spec::{Restart, Spec};
use crate::sys::Errno;
use crate::wire::Status;

/// How a service ended for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) code: u8,
    /// If there is more to say.
    why: Option<String>,
}

impl End {
    /// None: it lives, or will again by itself; or an operator stopped it, who may start it again.
    pub(super) fn of(service: &Service) -> Option<Self> {
        let care = &service.definition.spec.care;
        if !service.record.halted && (care.cron.is_some() || !care.watch.is_empty()) {
            return None;
        }
        let code = match service.status() {
            Status::Errored => exit_code(service).max(1),
            Status::Stopped if !service.record.halted => exit_code(service),
            _ => return None,
        };
        Some(Self { code, why: service.reason() })
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "ended for good, exit code {}", self.code)?;
        self.why.as_ref().map_or(Ok(()), |why| write!(to, ": {why}"))
    }
}

/// As a shell has it: 128+n for a signal, 127 not found, 126 could not be started.
fn exit_code(service: &Service) -> u8 {
    match service.launch_error {
        Some((_, Errno::NOENT)) => 127,
        Some(_) => 126,
        None => service.record.exit.map_or(1, Exit::code),
    }
}

/// Whether its end is the end of all: not if it had only one thing to do and has done it.
pub(super) fn is_fatal(service: &Service) -> bool {
    let policy = service.machine.policy();
    policy.critical && !(policy.restart == Restart::Never && service.is_done())
}

/// A live service goes on in the environment that it was started in; one that has to be started
/// anyway gets the one of now.
pub(super) fn is_as_declared(service: &Service, spec: &Spec, base: &Context) -> bool {
    let same = || service.definition.spec.differences(spec).is_empty();
    !service.removing && same() && (service.is_live() || *service.definition.base == *base)
}

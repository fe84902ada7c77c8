//! The sockets of services: opened before anything of them runs, taken back from what lives,
//! closed when no definition has them any more.
use super::*;
use crate::daemon::services::Services;
use crate::process::stat::parse_cmdline;
use crate::service::listen::Listen;
use crate::service::spec::{Spec, join};
use crate::sys::{own_pid, sockets};

/// So much of a stranger's command is told.
const COMMAND_CHARS_MAX: usize = 80;

/// Opens those of a service that are not open yet. Errors: which of them, and what the kernel says.
pub(in crate::daemon) fn open<K: Kernel>(
    kernel: &mut K,
    services: &Services,
    spec: &Spec,
) -> Result<(), (usize, Errno)> {
    let (group, listen) = (spec.group(), &spec.held.listen);
    match kernel.sockets() {
        Some(sockets) if sockets.lacks(group, listen) => {
            sockets.open(group, listen, lives(services, group))
        }
        _ => Ok(()),
    }
}

/// Whether something lives that may have these sockets.
fn lives(services: &Services, group: &str) -> bool {
    services.iter().any(|service| service.is_live() && service.definition.spec.group() == group)
}

/// Those for the next incarnation of a service, opened if they are not. Errors: As [`open`].
pub(in crate::daemon) fn numbers<K: Kernel>(
    kernel: &mut K,
    services: &Services,
    id: Id,
    spec: &Spec,
) -> Result<Vec<i32>, Errno> {
    open(kernel, services, spec).map_err(|(_, errno)| errno)?;
    let (group, listen) = (spec.group(), &spec.held.listen);
    let Some(sockets) = kernel.sockets().filter(|_| !listen.is_empty()) else { return Ok(vec![]) };
    let mut others = services.iter().filter(|service| service.id != id && service.is_live());
    let is_fresh = !others.any(|other| other.definition.spec.group() == group);
    Ok(sockets.numbers(group, listen, is_fresh))
}

impl<K: Kernel> Daemon<K> {
    /// The same, by the operator's wish. Errors: who has the address, or what the kernel says.
    pub(super) fn claim_sockets(&mut self, spec: &Spec) -> Result<(), Failure> {
        let Err((at, errno)) = open(&mut self.kernel, &self.services, spec) else { return Ok(()) };
        let Some(Listen { address, .. }) = spec.held.listen.get(at) else { return Ok(()) };
        let mut why = describe(errno);
        if errno == Errno::ADDRINUSE {
            let ours = self.kernel.sockets().and_then(|sockets| sockets.group_of(address));
            let holder = sockets::holder(address).filter(|pid| *pid != own_pid());
            why = match (ours, holder) {
                (Some(group), _) => format!("it is held for {group}"),
                (None, Some(pid)) => {
                    let words = self.kernel.cmdline(pid).unwrap_or_default();
                    let command = join(&parse_cmdline(&words));
                    let command: String = command.chars().take(COMMAND_CHARS_MAX).collect();
                    format!("pid {pid} listens there ({command})")
                }
                (None, None) => why,
            };
        }
        Err(Failure::plain(format!("{}: cannot listen on {address}: {why}", spec.name)))
    }

    /// An incarnation is about to go: from now on what it listened on is held here.
    pub(in crate::daemon) fn keep_sockets(&mut self, id: Id) {
        if let Some(service) = self.services.get(id)
            && let Err((_, errno)) =
                open(&mut self.kernel, &self.services, &service.definition.spec)
        {
            let why = describe(errno);
            self.log.push(format!("{}: cannot keep its sockets: {why}", service.name()));
        }
    }

    /// At the beginning: what an earlier image left, and what living incarnations have. What they
    /// may not be asked for is opened anew when they are about to go.
    pub(in crate::daemon) fn take_back_sockets(&mut self) {
        let Some(sockets) = self.kernel.sockets() else { return };
        let mut inherited = std::mem::take(&mut sockets.inherited);
        for service in self.services.iter() {
            let spec = &service.definition.spec;
            let (group, listen) = (spec.group(), &spec.held.listen);
            let Some(sockets) = self.kernel.sockets() else { return };
            sockets.claim(group, listen, &mut inherited);
            let tree = self.trees.get(service.id).filter(|tree| tree.exit.is_none());
            if sockets.lacks(group, listen)
                && let Some((who, Some(pidfd))) = tree.map(|tree| tree.lead())
            {
                let mut copies = self.kernel.sockets_of(who.pid, pidfd);
                let sockets = self.kernel.sockets().into_iter();
                sockets.for_each(|sockets| sockets.claim(group, listen, &mut copies));
            }
        }
    }

    /// Closes what no service wants any more.
    pub(in crate::daemon) fn close_sockets(&mut self) {
        let (services, former) = (&self.services, &self.launches.former);
        let wants = |spec: &Spec, group: &str, listen: &Listen| {
            spec.group() == group
                && spec.held.listen.iter().any(|own| own.address == listen.address)
        };
        let Some(sockets) = self.kernel.sockets() else { return };
        sockets.retain(|group, listen| {
            let now = services.iter().map(|service| &service.definition);
            let mut all = now.chain(former.values());
            all.any(|definition| wants(&definition.spec, group, listen))
        });
    }
}

//! Other definitions for services that exist: on record at once, in effect from the next start on.
use super::define::cannot_write;
use super::wait::{Pending, done};
use crate::daemon::{ClientId, Daemon};
use crate::service::context::Attributes;
use crate::service::spec::{Change, Definition, Id, Spec};
use crate::sys::Kernel;
use crate::wire::Failure;

impl<K: Kernel> Daemon<K> {
    /// Changes the definitions of services, all or none.
    pub(super) fn adjust(
        &mut self,
        client: ClientId,
        target: &str,
        change: &Change,
    ) -> Result<Pending, Failure> {
        let (ids, mut pending) = self.pending(client, target)?;
        let mut changed = Vec::new();
        for id in ids {
            let Some(service) = self.services.get(id) else { continue };
            let (line, Definition { spec: old, base }) = (service.line, &service.definition);
            let (name, lives) = (&old.name, service.machine.generation().is_some());
            let at = |text| Failure::usage(format!("{name}: {text}"));
            if service.removing {
                return Err(Failure::plain(format!("{name}: is being removed")));
            }
            let spec = change.apply(old).map_err(at)?;
            spec.check().map_err(Failure::usage)?;
            if spec.name != *name {
                self.check_rename(name, &spec.name, lives)?;
            }
            self.check_granted(&spec)?;
            let keys = old.differences(&spec);
            if keys.is_empty() {
                pending.say(id, done(format!("{name}: nothing changes")));
                continue;
            }
            let when = if lives { " (from its next start on)" } else { "" };
            pending.say(id, done(format!("{name}: changed {}{when}", keys.join(", "))));
            changed.push((line, id, Definition { spec, base: base.clone() }));
        }
        self.replace_definitions(changed)?;
        Ok(pending)
    }

    /// What lives is told from others by the name that it was started with.
    fn check_rename(&self, old: &str, new: &str, lives: bool) -> Result<(), Failure> {
        let refuse = |reason: String| Err(Failure::plain(format!("{old}: {reason}")));
        if let Some(id) = self.services.id_of(new) {
            return refuse(format!("the name {new} is taken by id {id}"));
        }
        if lives || self.launches.foreground.contains_key(old) {
            return refuse(format!("it has a live incarnation (opm stop {old} first)"));
        }
        Ok(())
    }

    /// Refuses what was asked for by name and the kernel would refuse a child of this daemon, while
    /// what runs can still go on.
    pub(super) fn check_granted(&self, spec: &Spec) -> Result<(), Failure> {
        let Some(nice) = spec.exec.nice else { return Ok(()) };
        let wanted = Attributes { nice: nice.0, ..Attributes::default() };
        match self.kernel.lacking(&wanted) {
            None => Ok(()),
            Some(lacking) => {
                let advice = "start the daemon where it may give that";
                Err(Failure::plain(format!("{}: it would get {lacking} ({advice})", spec.name)))
            }
        }
    }

    /// Puts other definitions in the place of those that there are, all or none.
    pub(super) fn replace_definitions(
        &mut self,
        changed: Vec<(u64, Id, Definition)>,
    ) -> Result<(), Failure> {
        let lines = changed.iter().map(|(line, id, definition)| (*line, *id, definition));
        let written = self.ledger.definitions.put(&mut self.kernel, lines);
        written.map_err(|errno| cannot_write(&self.home, "services", errno))?;
        for (_, id, definition) in changed {
            // Out and in again: it may have another name.
            if let Some(mut service) = self.services.remove(id) {
                service.definition = definition;
                self.services.insert(*service);
            }
        }
        Ok(())
    }
}

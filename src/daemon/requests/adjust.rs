//! Other definitions for services that exist: on record at once, in effect from the next start on.
use super::wait::{Then, done};
use crate::daemon::ledger::definitions;
use crate::daemon::vecmap::VecMap;
use crate::daemon::{ClientId, Daemon};
use crate::service::context::{Attributes, Context};
use crate::service::spec::{Change, Definition, Spec};
use crate::sys::{Kernel, describe};
use crate::wire::Failure;
use std::rc::Rc;

impl<K: Kernel> Daemon<K> {
    /// Changes the definitions of services, all or none.
    pub(crate) fn adjust(
        &mut self,
        client: ClientId,
        target: &str,
        change: &Change,
    ) -> Result<(), Failure> {
        let (ids, missing) = self.resolve(target)?;
        let mut said = Self::said_missing(missing);
        let mut changed = Vec::new();
        for id in ids {
            let Some(service) = self.services.get(id) else { continue };
            let (line, old) = (service.line, service.definition.clone());
            let (name, lives) = (&old.spec.name, service.machine.generation().is_some());
            let at = |text| Failure::usage(format!("{name}: {text}"));
            if service.removing {
                return Err(Failure::plain(format!("{name}: is being removed")));
            }
            let spec = change.apply(&old.spec).map_err(at)?;
            spec.check().map_err(Failure::usage)?;
            if spec.name != *name {
                self.check_rename(name, &spec.name, lives)?;
            }
            self.check_granted(&spec)?;
            let keys = old.spec.differences(&spec);
            if keys.is_empty() {
                said.push((id, done(format!("{name}: nothing changes"))));
                continue;
            }
            let when = if lives { " (from its next start on)" } else { "" };
            said.push((id, done(format!("{name}: changed {}{when}", keys.join(", ")))));
            let new = Definition { spec, base: old.base.clone() };
            changed.push(definitions::Change { line, id, new, old });
        }
        self.replace_definitions(changed)?;
        self.await_all(client, VecMap::new(), said, Then::Answer);
        Ok(())
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
    pub(crate) fn check_granted(&self, spec: &Spec) -> Result<(), Failure> {
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
    pub(crate) fn replace_definitions(
        &mut self,
        changed: Vec<definitions::Change>,
    ) -> Result<(), Failure> {
        self.ledger.definitions.replace(&mut self.kernel, &changed).map_err(|errno| {
            let (home, reason) = (&self.home, describe(errno));
            let text = format!("cannot write {home}/services: {reason} (nothing was changed)");
            Failure::plain(text)
        })?;
        let mut past: Vec<Rc<Context>> = Vec::new();
        for definitions::Change { id, new, old, .. } in changed {
            // Out and in again: it may have another name.
            if let Some(mut service) = self.services.remove(id) {
                service.definition = new;
                self.services.insert(*service);
            }
            if !past.iter().any(|base| Rc::ptr_eq(base, &old.base)) {
                past.push(old.base);
            }
        }
        for base in past.iter().filter(|base| Rc::strong_count(base) == 1) {
            self.ledger.definitions.forget(base);
        }
        Ok(())
    }
}

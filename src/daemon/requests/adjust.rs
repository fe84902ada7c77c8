//! Other definitions for services that exist: on record at once, in effect from the next start on.
use super::define::cannot_write;
use super::lookalike::Candidates;
use super::wait::{Pending, done};
use crate::daemon::learn::why_not;
use crate::daemon::{ClientId, Daemon};
use crate::service::cron::Cron;
use crate::service::machine::Input;
use crate::service::spec::{Change, Definition, Id, Spec};
use crate::sys::{Errno, Kernel, zone};
use crate::wire::Failure;

impl<K: Kernel> Daemon<K> {
    /// Changes the definitions of services, all or none.
    pub(super) fn adjust(
        &mut self,
        client: ClientId,
        target: &str,
        change: &Change,
        now: bool,
    ) -> Result<Pending, Failure> {
        let (ids, mut pending) = self.pending(client, target)?;
        let mut candidates = Candidates::new(true);
        let mut changed = Vec::new();
        for id in ids {
            let Some(service) = self.services.get(id) else { continue };
            let (line, Definition { spec: old, base }) =
                (service.record.definition, &service.definition);
            let (name, lives) = (&old.name, service.is_live());
            let at = |text| Failure::usage(format!("{name}: {text}"));
            if service.removing {
                return Err(Failure::plain(format!("{name}: is being removed")));
            }
            let spec = change.apply(old).map_err(at)?;
            spec.check().map_err(Failure::usage)?;
            if spec.held.instances.is_some() {
                return Err(at("another number of instances: opm scale".to_owned()));
            }
            if spec.name != *name {
                self.check_rename(name, &spec.name, lives)?;
            }
            let (keys, name, base) = (old.differences(&spec), name.clone(), base.clone());
            self.check_granted(&spec, &mut candidates)?;
            if keys.is_empty() {
                pending.say(id, done(format!("{name}: nothing changes")));
                continue;
            }
            let when = if lives && !now { " (from its next start on)" } else { "" };
            pending.say(id, done(format!("{name}: changed {}{when}", keys.join(", "))));
            changed.push((line, id, Definition { spec, base }));
        }
        self.check_order(&changed.iter().map(|(_, _, it)| &it.spec).collect::<Vec<_>>())?;
        let ids: Vec<Id> = changed.iter().map(|(_, id, _)| *id).collect();
        self.replace_definitions(changed)?;
        for id in ids {
            if now && self.services.get(id).is_some_and(|service| service.is_live()) {
                self.bring_up(id, Input::Restart, &mut candidates, &mut pending);
            }
        }
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
                let former = std::mem::replace(&mut service.definition, definition);
                if service.is_live() && !self.launches.former.contains_key(&id) {
                    self.launches.former.insert(id, former);
                }
                self.services.insert(*service);
                self.ask(id, |monitors, cx, of| monitors.follow(cx, of));
            }
        }
        self.close_sockets();
        Ok(())
    }

    /// Refuses what was asked for by name and the kernel would refuse a child of this daemon, while
    /// what runs can still go on. Of those of a kind in one request one is tried out.
    pub(super) fn check_granted(
        &mut self,
        spec: &Spec,
        candidates: &mut Candidates,
    ) -> Result<(), Failure> {
        if let Some(zone) = spec.care.cron.as_ref().and_then(Cron::zone)
            && !zone::is_known(zone)
        {
            let text = format!("{}: cron: {zone:?} is no time zone of this machine", spec.name);
            return Err(Failure::usage(text));
        }
        if candidates.granted.as_ref() == Some(&spec.exec) {
            return Ok(());
        }
        let who = self.kernel.who(&spec.exec);
        who.and_then(|who| self.kernel.try_out(&who.orders)).map_err(|(stage, errno)| {
            let text = why_not(spec, &self.home, stage, errno);
            let advice = match errno {
                Errno::PERM | Errno::ACCESS => " (start the daemon where it may do that)",
                _ => "",
            };
            Failure::plain(format!("{}: {text}{advice}", spec.name))
        })?;
        candidates.granted = Some(spec.exec.clone());
        Ok(())
    }
}

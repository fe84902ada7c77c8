//! `save` and `restore`: services from the dump come back as they were, those that were up start.
use super::lookalike::Candidates;
use super::wait::{NO_SERVICE, OnDone, Pending, done};
use crate::daemon::ledger::dump;
use crate::daemon::{ClientId, Daemon};
use crate::service::context::Context;
use crate::service::machine::Input;
use crate::service::spec::Definition;
use crate::sys::Kernel;
use crate::wire::Failure;
use std::rc::Rc;

impl<K: Kernel> Daemon<K> {
    pub(super) fn save(&mut self, client: ClientId) -> Result<Pending, Failure> {
        let saved = dump::save(&mut self.kernel, &self.home, &self.services);
        saved.map_err(Failure::plain)?;
        let count = self.services.len();
        let services = if count == 1 { "service" } else { "services" };
        let mut pending = Pending::new(client);
        let text = format!("saved {count} {services} to {}/{}", self.home, dump::FILE);
        pending.say(NO_SERVICE, done(text));
        Ok(pending)
    }

    pub(super) fn restore(&mut self, client: ClientId, force: bool) -> Result<Pending, Failure> {
        let loaded = dump::load(&mut self.kernel, &self.home);
        let (dump, warnings) = loaded.map_err(Failure::plain)?;
        let mut pending = Pending::new(client);
        pending.on_done = OnDone::Summarize { running: 0 };
        pending.warn(NO_SERVICE, warnings);
        let intern =
            |context: Rc<Context>| self.ledger.definitions.intern(Rc::unwrap_or_clone(context));
        let environments: Vec<Rc<Context>> = dump.environments.into_iter().map(intern).collect();
        let (mut up, mut fresh, mut fresh_up) = (Vec::new(), Vec::new(), Vec::new());
        for saved in dump.services {
            let Some(service) = self.services.named(&saved.spec.name) else {
                // It is there: the dump was checked when it was read.
                let base = environments.get(saved.environment).cloned();
                let definition = Definition { spec: saved.spec, base: base.unwrap_or_default() };
                fresh.push((Some(saved.id), definition));
                fresh_up.push((saved.up, saved.halted));
                continue;
            };
            let spec = &service.definition.spec;
            if spec.command != saved.spec.command || spec.cwd != saved.spec.cwd {
                let name = &saved.spec.name;
                let text =
                    format!("{name}: the name stands for another command now; it stays as it is");
                pending.warn(service.id, vec![text]);
            } else if saved.up {
                up.push(service.id);
            }
        }
        for (id, (is_up, halted)) in self.define(fresh)?.into_iter().zip(fresh_up) {
            up.extend(is_up.then_some(id));
            self.services
                .get_mut(id)
                .into_iter()
                .for_each(|service| service.record.halted = halted);
            self.ask(id, |monitors, cx, of| monitors.follow(cx, of));
        }
        let mut candidates = Candidates::new(force);
        for id in up {
            self.bring_up(id, Input::Start, &mut candidates, &mut pending);
        }
        Ok(pending)
    }
}

//! `save` and `restore`: the dump, written so that at every instant a whole one is there.
use super::wait::{Then, Wish, done, failed, warned};
use crate::daemon::vecmap::VecMap;
use crate::daemon::{ClientId, Daemon};
use crate::service::context::Context;
use crate::service::machine::{Generation, Goal, Input};
use crate::service::spec::{Definition, Id, Spec};
use crate::sys::home::NOT_REGULAR;
use crate::sys::{Kernel, Mode, Result, describe, write_all_at};
use crate::wire::{Failure, Outcome, Status};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::rc::Rc;

/// The dump, the one before it, and what they are made as.
const FILE: &str = "dump.json";
const BACKUP: &str = "dump.json.bak";
const FRESH: &str = "dump.json.new";
const DAMAGED: &str = "dump.json.damaged";
const VERSION: u32 = 1;

/// The dump's format. Environments are kept once each.
#[derive(Debug, Serialize, Deserialize)]
struct Dump {
    version: u32,
    saved_at: String,
    environments: Vec<Rc<Context>>,
    services: Vec<Saved>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    id: Id,
    up: bool,
    environment: usize,
    #[serde(flatten)]
    spec: Spec,
}

impl Dump {
    fn parse(bytes: &[u8]) -> std::result::Result<Self, String> {
        let dump: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if dump.version != VERSION {
            return Err(format!("format {} is not one that this opm reads", dump.version));
        }
        for saved in &dump.services {
            saved.spec.check()?;
            if saved.environment >= dump.environments.len() {
                return Err(format!("{}: its environment is missing", saved.spec.name));
            }
        }
        Ok(dump)
    }
}

impl<K: Kernel> Daemon<K> {
    fn dump(&mut self) -> Dump {
        let mut environments: Vec<Rc<Context>> = Vec::new();
        let mut places: HashMap<*const Context, usize> = HashMap::new();
        let mut services = Vec::new();
        for service in self.services.iter() {
            let base = &service.definition.base;
            let environment = *places.entry(Rc::as_ptr(base)).or_insert_with(|| {
                environments.push(base.clone());
                environments.len() - 1
            });
            services.push(Saved {
                id: service.id,
                up: service.machine.goal() == Goal::Up,
                environment,
                spec: service.definition.spec.clone(),
            });
        }
        let saved_at = crate::daemon::events::rfc3339(self.kernel.wall());
        Dump { version: VERSION, saved_at, environments, services }
    }

    /// Writes `bytes` as `name`: temporary file, fsync, rename, fsync of the directory.
    fn replace(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let file = self.kernel.open(FRESH, Mode::Fresh)?;
        write_all_at(&mut self.kernel, &file, 0, bytes)?;
        self.kernel.sync(&file)?;
        self.kernel.rename(FRESH, name)?;
        self.kernel.sync_home()
    }

    pub(crate) fn save(&mut self, client: ClientId) -> std::result::Result<(), Failure> {
        let dump = self.dump();
        let count = dump.services.len();
        let bytes = serde_json::to_vec_pretty(&dump).map_err(|e| Failure::plain(e.to_string()))?;
        // The one before becomes the backup, but only if it is whole.
        let before = self.kernel.load(FILE).ok().flatten();
        let written = match before.filter(|before| Dump::parse(before).is_ok()) {
            Some(before) => self.replace(BACKUP, &before),
            None => Ok(()),
        };
        written.and_then(|()| self.replace(FILE, &bytes)).map_err(|errno| {
            // What is written to is the fresh one.
            let file = if errno == NOT_REGULAR { FRESH } else { FILE };
            let (home, reason) = (&self.home, describe(errno));
            let text = format!("cannot write {home}/{file}: {reason} (the one before is kept)");
            Failure::plain(text)
        })?;
        let services = if count == 1 { "service" } else { "services" };
        let text = format!("saved {count} {services} to {}/{FILE}", self.home);
        self.await_all(client, VecMap::new(), vec![(0, done(text))], Then::Answer);
        Ok(())
    }

    fn load_dump(&mut self) -> std::result::Result<(Dump, Vec<String>), Failure> {
        let home = self.home.clone();
        let mut warnings = Vec::new();
        let mut missing = true;
        for name in [FILE, BACKUP] {
            let bytes = match self.kernel.load(name) {
                Ok(Some(bytes)) => bytes,
                Ok(None) => continue,
                Err(errno) => {
                    warnings.push(format!("cannot read {home}/{name}: {}", describe(errno)));
                    missing = false;
                    continue;
                }
            };
            missing = false;
            match Dump::parse(&bytes) {
                Ok(dump) => {
                    if name == BACKUP {
                        warnings.push(format!("restoring from {home}/{BACKUP}"));
                    }
                    return Ok((dump, warnings));
                }
                Err(reason) if name == FILE => {
                    let kept = match self.kernel.rename(FILE, DAMAGED) {
                        Ok(()) => format!("kept as {home}/{DAMAGED}"),
                        Err(_) => "left where it is".to_owned(),
                    };
                    warnings.push(format!("{home}/{FILE} is damaged: {reason} ({kept})"));
                }
                Err(reason) => warnings.push(format!("{home}/{name} is damaged: {reason}")),
            }
        }
        let text = if missing {
            format!("{home}/{FILE}: there is nothing to restore (save first)")
        } else {
            format!("cannot restore: {}", warnings.join("; "))
        };
        Err(Failure::plain(text))
    }

    pub(crate) fn restore(
        &mut self,
        client: ClientId,
        force: bool,
    ) -> std::result::Result<(), Failure> {
        let (dump, warnings) = self.load_dump()?;
        let mut said: Vec<(Id, Outcome)> = Vec::new();
        if !warnings.is_empty() {
            said.push((Id::MAX, warned(warnings)));
        }
        let environments: Vec<Rc<Context>> = dump
            .environments
            .into_iter()
            .map(|env| self.ledger.definitions.intern(Rc::unwrap_or_clone(env)))
            .collect();
        let passers = self.passers();
        let mut up = Vec::new();
        let (mut fresh, mut ups) = (Vec::new(), Vec::new());
        for saved in dump.services {
            let Some(id) = self.services.id_of(&saved.spec.name) else {
                // It is there: `Dump::parse` has looked.
                let base = environments.get(saved.environment).cloned();
                let definition = Definition { spec: saved.spec, base: base.unwrap_or_default() };
                fresh.push((Some(saved.id), definition));
                ups.push(saved.up);
                continue;
            };
            let same = self.services.get(id).is_some_and(|service| {
                service.definition.spec.command == saved.spec.command
                    && service.definition.spec.cwd == saved.spec.cwd
            });
            if same && saved.up {
                up.push(id);
            } else if !same {
                let text = format!(
                    "{}: the name stands for another command now; it stays as it is",
                    saved.spec.name
                );
                said.push((id, warned(vec![text])));
            }
        }
        let ids = self.define_all(fresh)?;
        up.extend(ids.into_iter().zip(ups).filter(|(_, up)| *up).map(|(id, _)| id));
        self.restore_up(client, up, said, &passers, force);
        Ok(())
    }

    fn restore_up(
        &mut self,
        client: ClientId,
        up: Vec<Id>,
        mut said: Vec<(Id, Outcome)>,
        passers: &[super::lookalike::Passer],
        force: bool,
    ) {
        let mut running = 0;
        let mut wishes = VecMap::new();
        for id in up {
            let Some(service) = self.services.get(id) else { continue };
            if service.status() == Status::Online {
                running += 1;
                let (name, pid) = (service.name(), self.trees.pid(id).unwrap_or(0));
                said.push((id, done(format!("{name}: already running (id {id}, pid {pid})"))));
                // What was adopted while its end was a tracer's can be on its way down.
                self.feed(id, Input::Start);
                continue;
            }
            if service.removing {
                continue;
            }
            if !service.is_live() {
                match self.stands_in_the_way(id, passers, force) {
                    Err(outcome) => {
                        said.push((id, failed(outcome.code, outcome.text)));
                        continue;
                    }
                    Ok(warnings) if warnings.is_empty() => {}
                    Ok(warnings) => said.push((id, warned(warnings))),
                }
            }
            let after = self.services.get(id).map_or(0, |service| service.emptied);
            wishes.insert(id, Wish::Up(Generation(after)));
            if let Some(service) = self.services.get_mut(id) {
                service.machine.reset();
            }
            self.wake_up(id, Input::Start);
        }
        self.await_all(client, wishes, said, Then::Summarize { running });
    }
}

//! What each service is defined as: what was asked for, what was answered, and what is on record;
//! every start has it, whoever asked and whatever died since.
use crate::birth::environ_text;
use crate::order::{Life, Order};
use crate::rolls::DEFINED;
use crate::run::{Sim, Want};
use crate::world::{NAMES, World};
use opm::daemon::ClientId;
use opm::daemon::service::Service;
use opm::service::spec::{Change, Restart, Spec};
use opm::wire::{Existing, Outcome, Reply, Request};
use std::collections::{BTreeMap, BTreeSet};

/// What is true of definitions. Each is told from the others by what it says to its processes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Definitions {
    /// What each service may be defined as, until the end of this turn; none: as anything.
    may: [Option<Vec<String>>; 3],
    /// Definitions that each had, the newest last.
    had: [Vec<String>; 3],
    /// What requests define that are not answered.
    asked: BTreeMap<ClientId, String>,
    /// Reloads that are not answered: one that fails brings an old definition back.
    rolls: BTreeSet<ClientId>,
    /// The daemon that was asked.
    image: u64,
    /// Of requests of this turn that change several all or none.
    of_several: Vec<(String, Vec<usize>)>,
}

fn defined(spec: &Spec) -> String {
    let value = spec.env.iter().find(|(name, _)| name == DEFINED);
    value.map(|(_, value)| value.clone()).unwrap_or_default()
}

impl World {
    /// A service with this environment is forked: that is what it is defined as.
    pub(crate) fn check_definition(&mut self, service: usize, env: &[u8]) {
        let Some(may) = &self.order.definitions.may[service] else { return };
        let given = environ_text(env, DEFINED);
        if !may.contains(&given) {
            let text = format!("{} starts as {given}, and is defined as {may:?}", NAMES[service]);
            self.violate(text);
        }
    }
}

impl Sim {
    /// Changes what a whole definition says of the order, or to nothing that can be.
    pub(crate) fn adjustment(&self, target: String, service: usize, extra: u64) -> Request {
        let spec = self.spec(service, extra);
        let restart = match spec.policy.restart {
            Restart::Always => "always",
            Restart::OnFailure => "on-failure",
            Restart::Never => "never",
        };
        let timeout = format!("{}ms", spec.checks.ready_timeout.ms);
        let is_known = extra >> 59 & 7 > 0;
        let mut options = vec![
            ("ready", spec.checks.ready.to_string()),
            ("ready_timeout", if is_known { timeout } else { "soon".to_owned() }),
            ("restart", restart.to_owned()),
        ];
        let mut change = Change { env: spec.env.clone(), ..Change::default() };
        match spec.checks.depends_on.join(",") {
            none if none.is_empty() => change.reset = vec!["depends_on".to_owned()],
            names => options.push(("depends_on", names)),
        }
        change.options = options.into_iter().map(|(key, text)| (key.to_owned(), text)).collect();
        Request::Adjust { target, change: Box::new(change), now: extra & 1 << 57 != 0 }
    }

    /// Services may be adjusted, and with `now` are restarted. Else what is ready stays as it is.
    pub(crate) fn expect_adjusted(
        &mut self,
        services: &[usize],
        client: ClientId,
        change: &Change,
        now: bool,
    ) {
        for service in services.iter().copied() {
            let name = NAMES[service];
            let is_ready = self.daemon.as_ref().is_some_and(|daemon| {
                daemon.all_services().any(|it| it.name() == name && it.machine.is_ready())
            });
            // Refused or not: from now on it may end by itself.
            if !change.options.contains(&("restart".to_owned(), "always".to_owned())) {
                self.policies[service] = Restart::Never;
            }
            self.touched.push(service);
            if now {
                self.wish(service, Want::Any, client);
            }
            if now || !is_ready {
                self.world.borrow_mut().ask_end(service);
            }
        }
    }

    /// What a request may make of definitions.
    pub(crate) fn expect_defined(&self, client: ClientId, request: &Request) {
        let world = &mut self.world.borrow_mut();
        let Order { definitions, is_on: true, .. } = &mut world.order else { return };
        let rolls = matches!(
            request,
            Request::Reload { .. } | Request::Define { existing: Existing::Roll, .. }
        );
        definitions.rolls.extend(rolls.then_some(client));
        let (value, all) = match request {
            Request::Define { specs, existing: Existing::Replace | Existing::Roll, .. } => {
                let is_in = |at: &usize| specs.iter().any(|spec| spec.name == NAMES[*at]);
                (specs.first().map(defined).unwrap_or_default(), (0..3).filter(is_in).collect())
            }
            Request::Adjust { target, change, .. } => {
                let spec = Spec { env: change.env.clone(), ..Spec::default() };
                let is_exact = target.split(',').all(|part| NAMES.contains(&part));
                let is_in = |at: &usize| !is_exact || target.split(',').any(|it| it == NAMES[*at]);
                let all: Vec<usize> = (0..3).filter(is_in).collect();
                if is_exact || target == "all" {
                    definitions.of_several.push((defined(&spec), all.clone()));
                }
                (defined(&spec), all)
            }
            // It may be defined anew in this turn.
            Request::Remove { .. } => return definitions.may = [const { None }; 3],
            _ => return,
        };
        definitions.asked.insert(client, value.clone());
        for at in all {
            definitions.may[at].iter_mut().for_each(|may| may.push(value.clone()));
        }
    }

    /// After a turn, or as a daemon begins: nothing is defined as nobody has asked for, and what an
    /// adjustment changes it changes of all.
    pub(crate) fn note_definitions(&self) {
        let world = &mut self.world.borrow_mut();
        let Some(daemon) = self.daemon.as_ref().filter(|_| world.order.is_on) else { return };
        let (image, is_unsure) = (world.order.image, world.order.is_unsure);
        let is_whole = world.faults.short == 0;
        let mut broken = None;
        let definitions = &mut world.order.definitions;
        // What may be forgotten, and defined anew in the next turn.
        let stays = |it: &&Service| !it.removing && !it.provisional;
        let all = NAMES.map(|name| daemon.all_services().find(|it| it.name() == name));
        let now = all.map(|it| it.filter(stays).map(|it| defined(&it.definition.spec)));
        for (it, had) in all.into_iter().zip(&mut definitions.had) {
            let it = it.map(|it| defined(&it.definition.spec));
            had.extend(it.filter(|it| had.last() != Some(it)));
        }
        for (value, all) in std::mem::take(&mut definitions.of_several) {
            let is_it = |at: &&usize| now[**at].as_ref() == Some(&value);
            // One that another request may have changed tells nothing.
            let alone = |at: &&usize| {
                let may = definitions.may[**at].as_ref();
                may.is_some_and(|may| may.len() == 2) && now[**at].is_some()
            };
            let (changed, left): (Vec<&usize>, Vec<&usize>) =
                all.iter().filter(alone).partition(is_it);
            if !changed.is_empty() && !left.is_empty() && is_whole && !is_unsure {
                broken = Some(format!("{value} is the definition of {changed:?}, not of {left:?}"));
            }
        }
        for (at, now) in now.into_iter().enumerate() {
            let had = &definitions.had[at];
            let Some(now) = now.filter(|_| !is_unsure) else {
                definitions.may[at] = None;
                continue;
            };
            let may = definitions.may[at].replace(vec![now.clone()]);
            let is_back = !definitions.rolls.is_empty() && had.contains(&now);
            if let Some(may) = may.filter(|may| !is_back && !may.contains(&now)) {
                let text = format!("{} is defined as {now}, asked for was {may:?}", NAMES[at]);
                broken = Some(text);
            }
        }
        if std::mem::replace(&mut definitions.image, image) != image {
            // That one has heard of no request.
            (definitions.asked, definitions.rolls) = Default::default();
        }
        broken.into_iter().for_each(|text| world.violate(text));
    }

    /// What is refused is nobody's definition; what is online by a request runs under it.
    pub(crate) fn check_defined(&self, client: ClientId, reply: &Reply) -> Result<(), String> {
        let world = &mut self.world.borrow_mut();
        world.order.definitions.rolls.remove(&client);
        let Some(value) = world.order.definitions.asked.remove(&client) else { return Ok(()) };
        let mut all = self.daemon.iter().flat_map(|daemon| daemon.all_services());
        let outcomes = match reply {
            Reply::Failed { text, .. } if world.faults.disk == 0 => {
                let is_it = |it: &&Service| defined(&it.definition.spec) == value;
                let it = all.find(is_it).map(|it| format!("'{text}', but {} is", it.name()));
                return it.map_or(Ok(()), |text| Err(format!("{text} defined as {value}")));
            }
            Reply::Outcomes { outcomes, .. } if !world.order.is_unsure => outcomes,
            _ => return Ok(()),
        };
        for Outcome { text, .. } in outcomes.iter().filter(|outcome| outcome.code == 0) {
            let last = text.rsplit("; ").next().unwrap_or_default();
            let Some((name, rest)) = last.split_once(": ") else { continue };
            let Some(at) = NAMES.iter().position(|known| *known == name) else { continue };
            let had = &world.order.definitions.had[at];
            let place = |value: &String| had.iter().rposition(|had| had == value);
            let life = world.order.newest[at].as_ref();
            let is_older = |life: &&Life| place(&life.defined) < place(&value);
            if let Some(life) = life.filter(is_older).filter(|_| rest.contains("online (id ")) {
                return Err(format!("'{text}', but not as {value}, of {had:?}: {life:?}"));
            }
        }
        Ok(())
    }
}

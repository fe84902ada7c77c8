//! Reloads: one after the other, and in a group only as long as each becomes ready.
use crate::order::{GROUP, Life, Way};
use crate::run::Sim;
use crate::world::{Key, NAMES, World};
use opm::process::Exit;
use opm::service::spec::Restart;
use opm::wire::{Existing, Request};

/// What a definition says to its processes, so that one can be told from another.
pub(crate) const DEFINED: &str = "SIM_DEFINED";

/// A reload of which nothing else disturbs the members.
#[derive(Clone, Debug)]
pub(crate) struct Roll {
    /// Who leads each member when it is asked for.
    before: [Option<Key>; 3],
    /// Whom it has signalled.
    ended: [Option<Key>; 3],
    last: Option<usize>,
}

impl Roll {
    pub(crate) fn has(&self, service: usize) -> bool {
        self.before[service].is_some()
    }
}

impl World {
    /// A leader is signalled. If that is because of a reload, the one before is ready.
    pub(crate) fn check_roll(&mut self, service: usize, key: Key) {
        let image = self.order.image;
        let is_sure = !self.order.is_unsure;
        let Some(mut roll) = self.order.roll.take().filter(|_| is_sure) else { return };
        let life = self.order.newest[service].clone();
        // It may have been too late in its own right.
        let is_well = |life: &Life| life.leader == key && (life.way == Way::Exec || life.said);
        if let Some(life) = life.filter(is_well).filter(|_| roll.has(service)) {
            let name = NAMES[service];
            if roll.ended[service].is_some_and(|ended| ended != key) && life.way == Way::Exec {
                self.violate(format!("{name} is reloaded twice"));
            }
            let last = roll.last.filter(|last| *last != service);
            if let Some(why) = last.and_then(|last| self.stands_in_the_way(&roll, last, service)) {
                self.violate(format!("{name} is reloaded, and {why} (image {image})"));
            }
            roll.ended[service] = Some(key);
            roll.last = Some(service);
        }
        self.order.roll = Some(roll);
    }

    /// Why `next` is not to be reloaded after `last` yet, or at all.
    fn stands_in_the_way(&self, roll: &Roll, last: usize, next: usize) -> Option<String> {
        let (name, life) = (NAMES[last], self.order.newest[last].as_ref()?);
        let is_new = roll.ended[last] != Some(life.leader);
        let is_up = life.exit.is_none() || !life.is_end_known;
        let is_ready = is_new && is_up && self.may_be_ready(last, life);
        let is_done = is_new && life.exit == Some(Exit::Code(0)) && !is_always(life);
        let is_late = self.now >= life.since + life.timeout;
        let is_on_its_way = self.is_born(last)
            || !is_new && life.exit.is_none()
            || is_new && is_up && !is_ready && !is_late;
        if is_on_its_way && !is_done {
            return Some(format!("{name} is not ready yet: {life:?}"));
        }
        let is_one_group = self.order.is_grouped && last > 0 && next > 0;
        (is_one_group && !is_ready && !is_done).then(|| format!("{name} has failed: {life:?}"))
    }
}

fn is_always(life: &Life) -> bool {
    life.restart == Restart::Always
}

impl Sim {
    /// If a reload is asked for: of whom, if that is plain.
    pub(crate) fn expect_roll(&self, request: &Request, untouched: &[bool; 3]) {
        let is_define = matches!(request, Request::Define { existing: Existing::Roll, .. });
        if !is_define && !matches!(request, Request::Reload { .. }) {
            return;
        }
        // Anybody's.
        let is_id = |part: &str| part.parse::<u32>().is_ok();
        let named = |at: usize| match request {
            Request::Reload { target } => {
                let is_it = |part: &str| match part {
                    "all" => true,
                    GROUP => at > 0,
                    part => part == NAMES[at] || is_id(part),
                };
                target.split(',').any(is_it)
            }
            Request::Define { specs, .. } => specs.iter().any(|spec| spec.name == NAMES[at]),
            _ => false,
        };
        let world = &mut self.world.borrow_mut();
        let is_exact = !matches!(request, Request::Reload { target } if is_id(target));
        let is_only = is_exact && world.order.rolling == [false; 3] && !world.order.is_unsure;
        let all = [0, 1, 2].map(named);
        let lives = |at: usize| {
            let life = world.order.newest[at].as_ref().filter(|life| life.exit.is_none());
            life.filter(|_| !world.is_born(at)).map(|life| life.leader)
        };
        let before = [0, 1, 2].map(|at| if all[at] { lives(at) } else { None });
        let is_plain = (0..3).all(|at| !all[at] || before[at].is_some() && untouched[at]);
        let (ended, last) = ([None; 3], None);
        world.order.roll = (is_only && is_plain).then_some(Roll { before, ended, last });
        for at in (0..3).filter(|at| all[*at]) {
            world.order.rolling[at] = true;
            world.asked[at] = true;
        }
    }

    /// After a turn: no reload is on record, so that none goes on.
    pub(crate) fn note_rolls(&self) {
        let world = &mut self.world.borrow_mut();
        // Who could not write it goes on all the same.
        let is_exact = world.faults.disk == 0 && world.faults.descriptors == 0;
        if is_exact && world.files.read("rolls.json").is_none_or(|text| text == b"{}") {
            (world.order.rolling, world.order.roll) = ([false; 3], None);
        }
    }

    /// Says whether the rest of a group that is not reloaded has the definition that it runs under.
    pub(crate) fn check_not_reloaded(&self, text: &str) -> Result<(), String> {
        let Some((name, _)) = text.split_once(": not reloaded, for ") else { return Ok(()) };
        let world = self.world.borrow();
        let at = NAMES.iter().position(|known| *known == name);
        let Some(life) = at.and_then(|at| world.order.newest[at].as_ref()) else { return Ok(()) };
        let is_sure = at.is_some_and(|at| !self.unsure[at] && !self.touched.contains(&at));
        let mut all = self.daemon.iter().flat_map(|daemon| daemon.all_services());
        let defined = all.find(|it| it.name() == name).map(|it| &it.definition.spec.env);
        let defined = defined.and_then(|env| env.iter().find(|(name, _)| name == DEFINED));
        let is_former = defined.is_none_or(|(_, value)| *value == life.defined);
        let is_said = text.ends_with("has its old definition again");
        // What an earlier daemon has started under another definition it alone knew.
        let is_sure = is_sure && life.born == world.order.image;
        match is_said && is_sure && life.exit.is_none() && !is_former {
            true => Err(format!("'{text}', but it is defined as {defined:?}: {life:?}")),
            false => Ok(()),
        }
    }

    /// At rest no reload is left that a daemon should go on with.
    pub(crate) fn check_no_roll(&self) -> Result<(), String> {
        let world = self.world.borrow();
        let is_exact = world.faults.disk == 0 && world.faults.descriptors == 0;
        let text = world.files.read("rolls.json").filter(|_| is_exact && !world.order.is_unsure);
        let text = String::from_utf8(text.unwrap_or_default()).unwrap_or_default();
        let rolls: std::collections::BTreeMap<u32, u64> =
            serde_json::from_str(&text).unwrap_or_default();
        let all = self.daemon.iter().flat_map(|daemon| daemon.all_services());
        let forgotten = |it: &&opm::daemon::service::Service| {
            it.is_live() && rolls.get(&it.id) == Some(&it.record.generation)
        };
        match all.into_iter().find(forgotten) {
            Some(it) => Err(format!("the reload of {} is forgotten: {text}", it.name())),
            None => Ok(()),
        }
    }
}

//! What must be true of what the daemon says, by the world's truth.
use crate::proc::Proc;
use crate::run::{Sim, Want};
use crate::world::{NAMES, note};
use opm::daemon::ClientId;
use opm::service::spec::Restart;
use opm::wire::{Event, Outcome, Reply, Row, Status};

/// What an event listener has seen of one service.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Followed {
    live: Option<u64>,
    newest: u64,
}

/// Nothing of it lives.
const DOWN: [&str; 2] = ["stopped", "removed"];

fn index_of(name: &str) -> Option<usize> {
    NAMES.iter().position(|known| *known == name)
}

impl Sim {
    /// Looks at everything that the daemon has said in this turn.
    pub(crate) fn hear(&mut self) -> Result<(), String> {
        let Some(daemon) = self.daemon.as_mut() else {
            return Ok(());
        };
        let lines = std::mem::take(&mut daemon.log);
        let replies = std::mem::take(&mut daemon.outbox);
        for line in lines {
            note!(self.world.borrow(), "log: {line}");
            self.check_log(&line)?;
        }
        for (client, reply) in replies {
            self.check_reply(client, &reply)?;
        }
        let broken = self.world.borrow().broken.clone();
        broken.map_or(Ok(()), Err)
    }

    /// Whether nothing in this run can take from the record.
    pub(crate) fn keeps_its_record(&self) -> bool {
        let f = &self.world.borrow().faults;
        [f.disk, f.exec, f.oom, self.kill_rate] == [0; 4] && !self.loses_files
    }

    /// A mark that no record names is believed of nobody while the record is complete: neither a
    /// file was lost, nor a child before it had signed, nor is it of another boot.
    fn check_log(&self, line: &str) -> Result<(), String> {
        let world = self.world.borrow();
        let is_complete = self.keeps_its_record() && !world.unsigned && world.boot == 1;
        let Some(pids) = line.strip_suffix("has no record").filter(|_| is_complete) else {
            return Ok(());
        };
        let mut pids = pids.split(|c: char| !c.is_ascii_digit()).filter_map(|pid| pid.parse().ok());
        let is_stranger = |pid: i32| world.by_pid(pid).is_some_and(|p| p.tag.is_none());
        let stranger = pids.find(|pid| is_stranger(*pid));
        stranger.map_or(Ok(()), |pid| Err(format!("the mark that {pid} has forged is believed")))
    }

    fn check_reply(&mut self, client: ClientId, reply: &Reply) -> Result<(), String> {
        if self.world.borrow().trace {
            let text = format!("{reply:?}");
            eprintln!("  -> {client}: {}", text.chars().take(300).collect::<String>());
        }
        if let Reply::Event(event) = reply {
            return self.check_event(event);
        }
        if !reply.is_final() {
            return Ok(());
        }
        self.check_defined(client, reply)?;
        if let Reply::Outcomes { outcomes, .. } = reply {
            // Of several, one may have changed again while the others were waited for.
            let alone = outcomes.len() == 1;
            for outcome in outcomes {
                self.stop_refused(&outcome.text);
                self.check_not_reloaded(&outcome.text)?;
            }
            for outcome in outcomes.iter().filter(|outcome| outcome.code == 0) {
                self.check_outcome(client, outcome, alone)?;
            }
        }
        let refused = |outcome: &Outcome| outcome.code != 0;
        if matches!(reply, Reply::Outcomes { outcomes, .. } if outcomes.iter().any(refused)) {
            self.define_failed(client);
        }
        if let Some(open) = self.clients.get_mut(&client) {
            open.finals += 1;
            if open.finals > 1 {
                return Err(format!("client {client} was answered twice"));
            }
        }
        Ok(())
    }

    /// A definition whose first exec failed is forgotten.
    fn define_failed(&mut self, client: ClientId) {
        let defines = |open: &crate::run::Open| open.what.starts_with("Define");
        if !self.clients.get(&client).is_some_and(defines) {
            return;
        }
        for service in 0..NAMES.len() {
            self.ids[service] = None;
            self.known[service] = false;
            if matches!(self.wants[service], Want::Down | Want::Rebooted) {
                self.wants[service] = Want::Any;
            }
        }
    }

    fn check_outcome(
        &mut self,
        client: ClientId,
        outcome: &Outcome,
        alone: bool,
    ) -> Result<(), String> {
        let Some((name, rest)) = outcome.text.split_once(": ") else {
            return Ok(());
        };
        let Some(service) = index_of(name) else {
            return Ok(());
        };
        let world = self.world.borrow();
        if alone && DOWN.iter().any(|down| rest == *down || rest.starts_with(&format!("{down} (")))
        {
            // What was spawned in the same turn came after.
            let is_old = |p: &Proc| p.key < world.turn_key;
            let mut live = world.live_of(service);
            // With its record lost, what has not even a name left is nobody's.
            let lost = |p: &Proc| {
                self.unsure[service] || !self.known[service] && (p.env.is_empty() || p.nested)
            };
            let lives = live.find(|p| is_old(p) && !world.is_excused(p) && !lost(p));
            if let Some(p) = lives {
                return Err(format!("'{}' was said while {p:?} lives", outcome.text));
            }
        }
        let pid =
            rest.rsplit_once("pid ").and_then(|(_, pid)| pid.trim_end_matches(')').parse().ok());
        let online = rest.starts_with("online") || rest.starts_with("already online");
        if let Some(pid) = pid.filter(|_| online)
            && !self.unsure[service]
            && !world.execs.contains(&(service, pid))
            && !world.mains.contains(&pid)
        {
            return Err(format!("'{}' was said but pid {pid} never was it", outcome.text));
        }
        drop(world);
        if rest.starts_with("removed") && client >= self.removed_by[service] {
            self.removing[service] = false;
        }
        let id = rest.split_once("(id ").and_then(|(_, id)| id.split_once(','));
        if let Some(id) = id.and_then(|(id, _)| id.parse().ok())
            && online
            && client > self.removed_by[service]
            && !self.unsure[service]
        {
            self.known[service] = true;
            if let Some(old) = self.ids[service].replace(id).filter(|old| *old != id) {
                return Err(format!("{name} had id {old} and has {id}"));
            }
        }
        if online && !self.removing[service] {
            let open = self.clients.get(&client).is_some_and(|open| open.raises.is_some());
            if open && self.raised[service] <= client {
                self.world.borrow_mut().downs[service] = false;
            }
        }
        let open = self.clients.get(&client);
        if let Some(number) = open.and_then(|open| open.raises).filter(|_| online)
            && self.raised[service] == number
        {
            self.wants[service] = Want::Up;
        }
        Ok(())
    }

    fn check_event(&mut self, event: &Event) -> Result<(), String> {
        let Some(service) = index_of(&event.service) else {
            return Ok(());
        };
        let seen = &mut self.followed[service];
        match event.event.as_str() {
            "spawned" => {
                if let Some(live) = seen.live {
                    return Err(format!(
                        "event: {} spawned {} before {live} was drained",
                        event.service, event.generation
                    ));
                }
                if event.generation <= seen.newest {
                    return Err(format!("event: generation {} came again", event.generation));
                }
                *seen = Followed { live: Some(event.generation), newest: event.generation };
                let world = self.world.borrow();
                let pid = event.pid.unwrap_or(0);
                if !world.execs.contains(&(service, pid)) {
                    return Err(format!(
                        "event: {} spawned pid {pid}, which never was it",
                        event.service
                    ));
                }
            }
            "adopted" => seen.live = Some(event.generation),
            "drained" => seen.live = None,
            _ => {}
        }
        Ok(())
    }

    /// At rest: every goal is reached, and what `ls` says is the truth.
    pub(crate) fn check_rest(&mut self, rows: &[Row], strays: &[String]) -> Result<(), String> {
        {
            let world = self.world.borrow();
            let zombie = |p: &&Proc| Some(p.parent) == world.daemon && !p.is_alive();
            if let Some(p) = world.procs.iter().find(zombie) {
                return Err(format!("zombie {} is left", p.pid));
            }
        }
        self.check_order(rows)?;
        self.check_no_roll()?;
        for (service, name) in NAMES.iter().enumerate() {
            let row = rows.iter().find(|row| row.name == *name);
            self.check_row(service, row, strays)?;
        }
        let unanswered = self.clients.iter().find(|(_, open)| open.finals == 0);
        if let Some((client, open)) = unanswered {
            return Err(format!("client {client} waits for ever: {}", open.what));
        }
        Ok(())
    }

    fn check_row(
        &mut self,
        service: usize,
        row: Option<&Row>,
        strays: &[String],
    ) -> Result<(), String> {
        let name = NAMES[service];
        let want = self.wants[service];
        let world = self.world.borrow();
        let live: Vec<i32> = world.live_of(service).map(|p| p.pid).collect();
        let Some(row) = row else {
            let lost = self.unsure[service] || matches!(want, Want::Any | Want::Gone);
            let told = strays.iter().any(|stray| {
                let lost = |p: &Proc| p.env.is_empty() || p.nested;
                stray.contains(name) || world.live_of(service).all(lost)
            });
            return match lost && (live.is_empty() || self.unsure[service] || told) {
                true => Ok(()),
                false => Err(format!("{name} is gone, wanted {want:?}, alive {live:?}")),
            };
        };
        let leads = |pid: i32| {
            let is_its = |p: &Proc| p.tag.is_some_and(|tag| tag.service == service);
            let is_named = |p| is_its(p) && world.mains.contains(&pid);
            world.by_pid(pid).is_some_and(|p| (p.leader || is_named(p)) && p.is_alive())
        };
        match row.status {
            Status::Online => {
                let pid = row.pid.unwrap_or(0);
                if !self.unsure[service] && !leads(pid) {
                    return Err(format!("{name} is online, but pid {pid} does not lead"));
                }
            }
            Status::Stopped | Status::Errored => {
                if !live.is_empty() && !self.unsure[service] {
                    return Err(format!("{name} is {:?}, but {live:?} live", row.status));
                }
            }
            // For whom it waits is looked at for itself; what an unsure one has may be nobody's.
            Status::Starting if world.order.is_on && (live.is_empty() || self.unsure[service]) => {}
            Status::Starting | Status::Stopping | Status::Waiting => {
                return Err(format!("{name} rests {:?}, alive {live:?}", row.status));
            }
        }
        let ends = self.policies[service] != Restart::Always;
        let right = match (want, row.status) {
            (Want::Any, _) | (Want::Up, Status::Online | Status::Errored | Status::Starting) => {
                true
            }
            (Want::Up, Status::Stopped) => ends,
            (Want::Down | Want::Rebooted, Status::Stopped | Status::Errored) => true,
            _ => false,
        };
        if !right {
            return Err(format!("{name} is {:?}, wanted {want:?}", row.status));
        }
        if let Some(id) = self.ids[service].replace(row.id).filter(|id| *id != row.id) {
            return Err(format!("{name} had id {id} and has {}", row.id));
        }
        Ok(())
    }
}

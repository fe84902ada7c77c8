//! A monitor that says anything of anybody at any time.
use crate::fake::{Fake, Shared};
use crate::run::{Sim, Want};
use crate::world::{NAMES, World, note};
use opm::daemon::Daemon;
use opm::daemon::monitors::Advice;
use opm::service::machine::Generation;
use opm::service::spec::Id;

impl World {
    /// Somebody that is said to lead, if somebody is.
    pub(crate) fn some_main(&mut self) -> Option<i32> {
        if self.procs.is_empty() || !self.fault(|f| f.mains) {
            return None;
        }
        let at = self.rng.below(self.procs.len());
        let pid = self.procs[at].pid;
        self.mains.insert(pid);
        Some(pid)
    }
}

impl Sim {
    /// Advice on an incarnation that lives, is past or never was.
    pub(crate) fn some_advice(&mut self) -> Option<(Id, Generation, Advice)> {
        let mut world = self.world.borrow_mut();
        if !world.fault(|f| f.advice) {
            return None;
        }
        let daemon = self.daemon.as_ref()?;
        let known: Vec<_> = daemon.all_services().map(|s| (s.id, s.record.generation)).collect();
        if known.is_empty() {
            return None;
        }
        let (id, newest) = world.rng.pick(&known);
        let generation = match world.rng.below(6) {
            0 => newest + 1,
            1 => newest.saturating_sub(1),
            _ => newest,
        };
        let why = "so says a monitor".to_owned();
        let advice = match world.rng.below(4) {
            0 => Advice::Ready,
            1 => Advice::Restart(why),
            2 => Advice::Start(why),
            _ => Advice::Status(why),
        };
        note!(world, "ADVICE {id} {generation} {advice:?}");
        Some((id, Generation(generation), advice))
    }

    /// What anybody may say of anybody: that this one leads.
    pub(crate) fn some_word(&mut self) -> Option<(i32, String)> {
        let mut world = self.world.borrow_mut();
        let pid = world.some_main()?;
        let senders: Vec<_> = world.procs.iter().map(|p| p.pid).collect();
        let sender = world.rng.pick(&senders);
        note!(world, "SAID by {sender}: MAINPID={pid}");
        Some((sender, format!("READY=1\nMAINPID={pid}")))
    }

    /// What advice may lead to: a restart signals what runs when it is given, which may have been
    /// exec'd in the same turn; a start brings up what a reboot ended, never what an operator did.
    pub(crate) fn expect_heeded(
        world: &Shared,
        wants: &mut [Want],
        daemon: &Daemon<Fake>,
        id: Id,
        advice: &Advice,
    ) {
        let name = daemon.all_services().find(|s| s.id == id).map(|s| s.name());
        let Some(service) = NAMES.iter().position(|known| Some(*known) == name) else { return };
        match advice {
            Advice::Restart(_) => {
                world.borrow_mut().asked[service] = true;
                world.borrow_mut().order.forget(service);
            }
            Advice::Ready => world.borrow_mut().note_ready(service),
            Advice::Start(_) if wants[service] == Want::Rebooted => wants[service] = Want::Any,
            _ => {}
        }
    }
}

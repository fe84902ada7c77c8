//! A monitor that says anything of anybody at any time.
use crate::fake::{Fake, Shared};
use crate::run::{Sim, Want};
use crate::world::{NAMES, note};
use opm::daemon::Daemon;
use opm::daemon::monitors::Advice;
use opm::service::machine::Generation;
use opm::service::spec::Id;

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
            Advice::Restart(_) => world.borrow_mut().asked[service] = true,
            Advice::Start(_) if wants[service] == Want::Rebooted => wants[service] = Want::Any,
            _ => {}
        }
    }
}

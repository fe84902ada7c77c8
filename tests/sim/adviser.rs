//! A monitor that says anything of anybody at any time.
use crate::run::Sim;
use crate::world::{NAMES, note};
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
        let known: Vec<_> = daemon.all_services().map(|s| (s.id, s.generation, s.name())).collect();
        if known.is_empty() {
            return None;
        }
        let (id, newest, name) = world.rng.pick(&known);
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
        let service = NAMES.iter().position(|known| *known == name);
        if let (Advice::Restart(_), Some(service)) = (&advice, service) {
            world.asked[service] = true;
        }
        note!(world, "ADVICE {id} {generation} {advice:?}");
        Some((id, Generation(generation), advice))
    }
}

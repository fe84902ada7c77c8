//! Whether a service has more memory than it may. Nothing is measured of one without a bound.
use super::advice::{Advice, Cx};
use crate::daemon::service::Service;
use crate::daemon::timers::Timer;
use crate::service::machine::{Generation, Phase, Time};
use crate::service::spec::Id;
use crate::service::units::{Bytes, human_bytes};
use std::collections::BTreeMap;

/// From one look to the next: at least, and at most where it does not grow.
const EVERY_MS: (u64, u64) = (1_000, 60_000);
/// What is younger is looked at as often as can be: most of what grows does so at first.
const YOUNG_MS: u64 = 10_000;

#[derive(Debug)]
pub(super) struct Sample {
    generation: Generation,
    most: Bytes,
    since: Time,
    at: Time,
    bytes: u64,
    pause: u64,
}

/// Every service that runs and has a bound.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(super) samples: BTreeMap<Id, Sample>,
}

impl Memory {
    pub(super) fn follow(&mut self, cx: &mut Cx<'_>, of: &Service) {
        let up = matches!(of.machine.phase(), Phase::Up { .. }).then(|| of.machine.generation());
        let known = self.samples.get(&of.id).map(|sample| sample.generation);
        let generation = up.flatten();
        if known == generation {
            return;
        }
        self.samples.remove(&of.id);
        let most = of.definition.spec.care.max_memory.filter(|most| most.0 > 0);
        if let Some((generation, most)) = generation.zip(most) {
            let (since, at, pause) = (cx.now, cx.now, EVERY_MS.0);
            self.samples.insert(of.id, Sample { generation, most, since, at, bytes: 0, pause });
        }
        let at = self.samples.get(&of.id).map(|sample| sample.at + sample.pause);
        cx.timers.set(Timer::Memory(of.id), at);
    }

    /// What a service may have, while that is looked at.
    pub(crate) fn most(&self, id: Id) -> Option<Bytes> {
        self.samples.get(&id).map(|sample| sample.most)
    }

    pub(crate) fn measured(&mut self, cx: &mut Cx<'_>, of: &Service, bytes: u64) {
        let Some(sample) = self.samples.get_mut(&of.id) else { return };
        if bytes > sample.most.0 {
            let text = format!("{} of memory is over its {}", human_bytes(bytes), sample.most);
            cx.say(of, Advice::Status(text));
            cx.say(of, Advice::Restart("memory".into()));
        }
        // Half of the time that it takes to fill what is left, if it goes on like this.
        let grown = bytes.saturating_sub(sample.bytes).max(1);
        let left = sample.most.0.saturating_sub(bytes);
        let half = left.saturating_mul(cx.now.saturating_sub(sample.at)) / grown / 2;
        let young = cx.now.saturating_sub(sample.since) < YOUNG_MS;
        let most = if young { EVERY_MS.0 } else { EVERY_MS.1.min(sample.pause * 3 / 2) };
        sample.pause = half.clamp(EVERY_MS.0, most);
        (sample.at, sample.bytes) = (cx.now, bytes);
        cx.timers.set(Timer::Memory(of.id), Some(cx.now + sample.pause));
    }
}

//! How much goes wrong.
use crate::rng::Rng;

/// How often things go wrong, in a thousand; chosen by the seed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) descriptors: u32,
    pub(crate) spawn: u32,
    pub(crate) disk: u32,
    pub(crate) short: u32,
    pub(crate) exec: u32,
    pub(crate) watch: u32,
    pub(crate) children_missing: u32,
    pub(crate) late_wakes: u32,
    pub(crate) exits: u32,
    pub(crate) forks: u32,
    pub(crate) escapes: u32,
    pub(crate) comets: u32,
    pub(crate) clone_parent: u32,
    pub(crate) stubborn: u32,
    pub(crate) stops: u32,
    pub(crate) stuck: u32,
    pub(crate) env_lost: u32,
    pub(crate) limit_lost: u32,
    pub(crate) traced: u32,
    pub(crate) nested: u32,
    pub(crate) strangers: u32,
    pub(crate) half_dead: u32,
    pub(crate) oom: u32,
    /// A PAM session takes both marks off.
    pub(crate) pam: u32,
    /// Into another PID namespace.
    pub(crate) enters: u32,
    pub(crate) forged: u32,
    pub(crate) mute: u32,
    /// Somebody holds a namespace open.
    pub(crate) pinned: u32,
    /// A process makes itself a time namespace of its own.
    pub(crate) leaves: u32,
    /// A monitor says something.
    pub(crate) advice: u32,
    /// A process says which one leads its tree, or a PID file does.
    pub(crate) mains: u32,
}

impl Faults {
    /// So much as the seed wants.
    pub(crate) fn some(rng: &mut Rng) -> Self {
        let mut f = Self::default();
        let rates: [&mut u32; 31] = [
            &mut f.descriptors,
            &mut f.spawn,
            &mut f.disk,
            &mut f.short,
            &mut f.exec,
            &mut f.watch,
            &mut f.children_missing,
            &mut f.late_wakes,
            &mut f.exits,
            &mut f.forks,
            &mut f.escapes,
            &mut f.comets,
            &mut f.clone_parent,
            &mut f.stubborn,
            &mut f.stops,
            &mut f.stuck,
            &mut f.env_lost,
            &mut f.limit_lost,
            &mut f.traced,
            &mut f.nested,
            &mut f.strangers,
            &mut f.half_dead,
            &mut f.oom,
            &mut f.pam,
            &mut f.enters,
            &mut f.forged,
            &mut f.mute,
            &mut f.pinned,
            &mut f.leaves,
            &mut f.advice,
            &mut f.mains,
        ];
        for rate in rates {
            *rate = rng.pick(&[0, 0, 10, 40, 120]);
        }
        f.descriptors /= 4;
        f.disk /= 2;
        f.late_wakes *= 4;
        f.stubborn *= 3;
        f.traced *= 3;
        f.comets *= 3;
        f.strangers *= 2;
        f.forged *= 3;
        f.pam = rng.pick(&[0, 0, 0, 20]);
        f.limit_lost = rng.pick(&[0, 0, 0, 20]);
        f
    }
}

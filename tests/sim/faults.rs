//! How much goes wrong.

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

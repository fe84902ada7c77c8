//! PURE. Marks: what every process of an incarnation inherits, so that it can be told even when
//! its record is lost.
//!
//! Two marks, because each is lost where the other holds. The environment (`OPM_MARK`) names the
//! incarnation in full, but setproctitle overwrites it and `env -i` drops it. The resource limit
//! RLIMIT_LOCKS, which the kernel has not used since 2.4, survives both, and `setsid`, double
//! forks and setuid too, and anybody may read it in /proc/P/limits; but it holds 63 bits only.
//!
//! Layout of the limit, soft and hard alike, from the top: one zero bit, 16 bits of level, 22 bits
//! of home, 25 bits of generation. Levels fall from the outer opm to one nested in a service of
//! it, since an unprivileged process can lower its hard limit but never raise it. Generations
//! beyond 25 bits repeat, so that nothing may start while another lives that looks like it
//! ([`LimitMark::names`]).
use super::journal_format::checksum;

/// The environment variable that names the incarnation.
pub const MARK_VARIABLE: &str = "OPM_MARK";

const LEVEL_TOP: u64 = 0xffff;
const HOME_BITS: u32 = 22;
const GENERATION_BITS: u32 = 25;
const GENERATION_MASK: u64 = (1 << GENERATION_BITS) - 1;
const HOME_MASK: u64 = (1 << HOME_BITS) - 1;
/// Bits of a key that say which path.
const PATH_MASK: u64 = (1 << 12) - 1;

/// A value of RLIMIT_LOCKS that opm gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LimitMark {
    level: u64,
    /// The home's bits of its key.
    pub home: u64,
    generation: u64,
}

impl LimitMark {
    /// The mark of a daemon itself, below whatever it inherited: generation 0 names no
    /// incarnation, so that a daemon started from inside a service leaves that service's mark.
    /// An exec in place finds its own home's mark, and one that was started from inside a service
    /// what [`LimitMark::before_daemon`] left: neither eats a level.
    /// None when the levels are used up (ten thousands of opm-s inside one another).
    pub fn of_daemon(inherited: u64, home_key: u64) -> Option<Self> {
        let at = |level| Self { level, home: home_key & HOME_MASK, generation: 0 };
        let Self { level, home, .. } = Self::read(inherited);
        let level = level.min(LEVEL_TOP);
        let same = at(level);
        let is_own = inherited == u64::MAX || home == same.home || home == HOME_MASK;
        let fits = is_own && same.value() <= inherited;
        let mark = if fits { same } else { at(level.checked_sub(1)?) };
        (mark.level > LEVEL_TOP / 2 + 1).then_some(mark)
    }

    /// A random key for a home at `path`: its low bits say which path, so that what bears marks of
    /// a home that was lost whole is known again by the next one there.
    pub fn home_key(random: u64, path: &str) -> u64 {
        random & !PATH_MASK | checksum(path.as_bytes()) & PATH_MASK
    }

    /// Of a process whose home is lost: its home's bits, if they may be those of one at `path`, and
    /// an incarnation bears them.
    pub fn lost_home(limit: (u64, u64), path: &str) -> Option<u64> {
        let Self { home, generation, .. } = Self::of_limit(limit)?;
        let is_there = home & PATH_MASK == checksum(path.as_bytes()) & PATH_MASK;
        (generation != 0 && is_there).then_some(home)
    }

    /// The home's bits of a mark that a daemon itself bears.
    pub fn daemons_home(limit: (u64, u64)) -> Option<u64> {
        let mark = Self::of_limit(limit)?;
        (mark.generation == 0).then_some(mark.home)
    }

    /// A key that has the bits of a lost home.
    pub fn key_of_lost(random: u64, home: u64) -> u64 {
        random & !HOME_MASK | home
    }

    /// What the marks of a home with this key have in common; never 0.
    pub fn home_word(home_key: u64) -> u64 {
        home_key & HOME_MASK | 1 << HOME_BITS
    }

    /// Whether these bits of a home are of this key.
    pub fn is_home(home: u64, home_key: u64) -> bool {
        home == home_key & HOME_MASK
    }

    /// For a daemon that is about to be exec'd from inside a service, before it knows its home:
    /// the highest of the marks that name no incarnation and lie below what it inherited. None:
    /// it inherits no mark, or the levels are used up.
    pub fn before_daemon(inherited: u64) -> Option<Self> {
        (inherited != u64::MAX).then(|| Self::of_daemon(inherited, HOME_MASK)).flatten()
    }

    /// The mark of an incarnation that this daemon starts: one level below the daemon's.
    pub fn of_incarnation(self, generation: u64) -> Self {
        Self { level: self.level - 1, generation: generation & GENERATION_MASK, ..self }
    }

    /// Whether a limit is a mark that a daemon of another home gives which does not run inside one
    /// of this daemon's services: then it would lie further below.
    pub fn is_beside(self, limit: (u64, u64)) -> bool {
        Self::of_limit(limit).is_some_and(|mark| mark.level + 1 >= self.level)
    }

    /// Soft and hard limit.
    pub fn value(self) -> u64 {
        (self.level << (HOME_BITS + GENERATION_BITS))
            | (self.home << GENERATION_BITS)
            | self.generation
    }

    /// The parts of a value, whether it is a mark or not.
    fn read(value: u64) -> Self {
        Self {
            level: value >> (HOME_BITS + GENERATION_BITS),
            home: (value >> GENERATION_BITS) & HOME_MASK,
            generation: value & GENERATION_MASK,
        }
    }

    /// The mark that a limit is, if it is one.
    pub fn of_limit((soft, hard): (u64, u64)) -> Option<Self> {
        let mark = Self::read(hard);
        let is_level = mark.level <= LEVEL_TOP && mark.level > LEVEL_TOP / 2;
        (soft == hard && is_level).then_some(mark)
    }

    /// Whether `(soft, hard)` is a mark at all, of any home: the levels in use are the upper ones,
    /// and nobody else sets this limit.
    pub fn is_mark(limit: (u64, u64)) -> bool {
        Self::of_limit(limit).is_some()
    }

    /// The generation that `(soft, hard)` names if an incarnation of the home with this key bears
    /// it, at whatever level: it may have been started by an earlier daemon at another one.
    pub fn generation_of((soft, hard): (u64, u64), home_key: u64) -> Option<u64> {
        let Self { level, home, generation } = Self::read(hard);
        let is_ours = level <= LEVEL_TOP && Self::is_home(home, home_key);
        (soft == hard && is_ours && generation != 0).then_some(generation)
    }

    /// What a limit can say of a generation.
    pub fn part_of(generation: u64) -> u64 {
        generation & GENERATION_MASK
    }

    /// Whether a full generation is the one that a limit can only name in part.
    pub fn names(part: u64, generation: u64) -> bool {
        part == Self::part_of(generation)
    }
}

/// What `OPM_MARK` says: `KEY.ID.GENERATION.PID`, the first and the last in fixed width so that
/// the child can write its own pid between fork and exec without allocating.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EnvMark {
    pub home_key: u64,
    pub id: u32,
    pub generation: u64,
    /// The leader's pid.
    pub pid: i32,
}

/// Digits of the pid at the end of `OPM_MARK`.
pub const PID_DIGITS: usize = 10;

impl EnvMark {
    /// The variable's value.
    pub fn value(&self) -> String {
        format!("{:016x}.{}.{}.{:010}", self.home_key, self.id, self.generation, self.pid)
    }

    /// Reads a value back.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(value).ok()?.split('.');
        let mark = Self {
            home_key: u64::from_str_radix(parts.next()?, 16).ok()?,
            id: parts.next()?.parse().ok()?,
            generation: parts.next()?.parse().ok()?,
            pid: parts.next()?.parse().ok()?,
        };
        // What no sequence reaches is forged, and none must have to go on from there.
        let possible = mark.generation <= u64::MAX / 2;
        (parts.next().is_none() && possible).then_some(mark)
    }
}

//! What a process shows of whose it is: its limit, its environment, and that it left on purpose.
//!
//! The one place where marks are read, whoever asks: for an orphan, for a sweep, or for what no
//! record names.
use crate::mutant::mutant;
use crate::process::journal_format::DEPARTED_MAX;
use crate::process::mark::{EnvMark, LimitMark, MARK_VARIABLE};
use crate::process::stat::environ_value;
use crate::process::{Identity, Pid};
use crate::sys::{Errno, Kernel, identity};
use std::collections::BTreeSet;

/// Soft and hard RLIMIT_LOCKS.
pub(super) type Limit = (u64, u64);

/// Who we are, as far as it says what is ours.
#[derive(Debug)]
pub(crate) struct Marks {
    pub(crate) own: Identity,
    pub(crate) home_key: u64,
    /// The inode of our PID namespace.
    pub(crate) pid_namespace: u64,
    /// What we bear ourselves. None: nested too deep.
    pub(crate) mark: Option<LimitMark>,
    /// The inode of our own time namespace, if incarnations get others; else 0.
    pub(crate) own_namespace: u64,
    /// Children of ours may be nobody's we know: as PID 1, and where a program with children of its
    /// own became us by an exec.
    pub(crate) has_strangers: bool,
    /// Processes that bear a mark of this home and can't have it from us.
    pub(crate) forged: BTreeSet<Pid>,
    pub(crate) departed: Departed,
}

/// Daemons that were started from inside our services, and left them.
#[derive(Debug, Default)]
pub(crate) struct Departed {
    pub(super) daemons: Vec<Identity>,
    /// What the marks of their homes have in common ([`LimitMark::home_word`]).
    homes: Vec<u64>,
}

impl Departed {
    pub(crate) fn of(record: &[u64]) -> Self {
        let homes = record.iter().copied().filter(|home| *home != 0).collect();
        Self { daemons: Vec::new(), homes }
    }
}

/// What a process's memory says.
pub(super) enum Memory {
    /// The mark of ours that it bears, if it bears one that we may read.
    Read(Option<EnvMark>),
    Mute,
    /// It has none.
    Gone,
}

impl Marks {
    /// The part of a generation that a limit of ours names.
    pub(super) fn part(&self, limit: Limit) -> Option<u64> {
        LimitMark::generation_of(limit, self.home_key)
    }

    /// Reads the mark of ours in a process's environment. Errors: it could not be looked at for
    /// want of descriptors or memory.
    pub(super) fn read<K: Kernel>(&self, kernel: &mut K, pid: Pid) -> Result<Memory, Errno> {
        match kernel.environ(pid) {
            Err(Errno::ACCESS | Errno::PERM) => Ok(Memory::Read(None)),
            Err(Errno::TIMEDOUT) if mutant("mute_is_clean") => Ok(Memory::Read(None)),
            Err(Errno::TIMEDOUT) => Ok(Memory::Mute),
            Err(Errno::SRCH | Errno::NOENT) => Ok(Memory::Gone),
            Err(errno) => Err(errno),
            // A zombie's reads as empty, too.
            Ok(environ) if environ.is_empty() && kernel.stat(pid)?.is_zombie() => Ok(Memory::Gone),
            Ok(environ) => {
                let is_ours = |mark: &EnvMark| mark.home_key == self.home_key;
                Ok(Memory::Read(env_marks(&environ).find(is_ours)))
            }
        }
    }

    /// Whether a limit that names none of ours can be that of a process of ours, whose environment
    /// then has to tell. A hard limit is lowered by anybody and raised by nobody: so it lies below
    /// what we give, and is no mark that another home gives beside us.
    pub(super) fn may_be_ours<K: Kernel>(&self, kernel: &mut K, limit: Limit) -> bool {
        let Some(own) = self.mark else { return true };
        if limit.1 > own.value() {
            return self.own_namespace == 0 && kernel.may_raise_limits();
        }
        !own.is_beside(limit)
    }

    /// Whether a process that bears a mark of ours can have it from us: it has our uid, or root's
    /// by a set-uid program. As root any can.
    pub(super) fn can_bear<K: Kernel>(kernel: &mut K, pid: Pid) -> Result<bool, Errno> {
        let own = kernel.own_uid();
        if own == 0 || mutant("any_uid") {
            return Ok(true);
        }
        Ok(kernel.uids(pid)?.iter().any(|uid| [own, 0].contains(uid)))
    }

    /// Whether a process is a daemon that left, or was started by one.
    pub(super) fn is_departed<K: Kernel>(
        &self,
        kernel: &mut K,
        pid: Pid,
        limit: Option<Limit>,
    ) -> bool {
        let mark = limit.and_then(LimitMark::of_limit);
        let has_left = |mark: LimitMark| LimitMark::home_word(mark.home);
        if mark.is_some_and(|mark| self.departed.homes.contains(&has_left(mark))) {
            return true;
        }
        let known = self.departed.daemons.iter().find(|known| known.pid == pid);
        known.is_some_and(|known| identity_of(kernel, pid).is_some_and(|now| now.is_same(known)))
    }

    /// Takes note of the home of a daemon that left. Gives all of them, if that is news: our own
    /// key, as a copy of our home has it until its daemon begins, says nothing.
    pub(super) fn note_home(&mut self, home_key: u64) -> Option<[u64; DEPARTED_MAX]> {
        let home = LimitMark::home_word(home_key);
        if home == LimitMark::home_word(self.home_key) {
            return None;
        }
        self.departed.homes.retain(|known| *known != home);
        self.departed.homes.push(home);
        // The oldest is past, most likely; if not, its services are some service's again.
        self.departed.homes.drain(..self.departed.homes.len().saturating_sub(DEPARTED_MAX));
        Some(std::array::from_fn(|at| self.departed.homes.get(at).copied().unwrap_or(0)))
    }
}

/// Who a process is. None: it is gone, or dead.
pub(super) fn identity_of<K: Kernel>(kernel: &mut K, pid: Pid) -> Option<Identity> {
    let pidfd = kernel.pidfd_open(pid).ok()?;
    let identity = identity(kernel, pid, &pidfd);
    (kernel.is_dead(&pidfd) == Ok(false)).then_some(identity)
}

/// The marks that an environment bears: a service's own, and those of services around it.
pub(crate) fn env_marks(environ: &[u8]) -> impl Iterator<Item = EnvMark> {
    [MARK_VARIABLE, "OPM_OUTER"]
        .into_iter()
        .filter_map(|name| environ_value(environ, name))
        .flat_map(|value| value.split(|b| *b == b','))
        .filter_map(EnvMark::parse)
}

/// None: it is not there, or not ours to read.
pub(super) fn readable<T>(result: Result<T, Errno>) -> Result<Option<T>, Errno> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NOENT | Errno::SRCH | Errno::ACCESS | Errno::PERM) => Ok(None),
        Err(errno) => Err(errno),
    }
}

//! PURE. What a Unix process is to opm: who it is, how it ended, which marks it bears.
pub mod command;
pub mod journal_format;
pub mod mark;
pub mod shell;
pub mod stat;

pub use command::extract_search_pattern_from_command;

/// The inode of the initial PID namespace (PROC_PID_INIT_INO of linux/proc_ns.h).
pub const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// A process id as the kernel gives it; never an identity by itself.
pub type Pid = i32;

/// What tells one process from every other that ever lived in this boot and PID namespace.
///
/// The pidfd inode is unique for the life of the system (pidfs, Linux 6.9 on 64 bits). Below
/// that the start time stands in: its tick is 10 ms, so a pid that is reused within one tick
/// can't be told apart (`opm doctor` says which holds).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Identity {
    pub pid: Pid,
    /// Clock ticks since boot; 0 if unknown.
    pub start_time: u64,
    /// 0 if unknown.
    pub inode: u64,
}

impl Identity {
    /// Whether two sightings are one process. What only one of them knows decides nothing; with
    /// nothing in common but the pid they are not the same.
    pub fn is_same(&self, other: &Self) -> bool {
        if crate::mutant::mutant("adopt_by_pid") {
            return self.pid == other.pid;
        }
        if self.pid != other.pid {
            return false;
        }
        if self.inode != 0 && other.inode != 0 {
            return self.inode == other.inode;
        }
        self.start_time != 0 && self.start_time == other.start_time
    }
}

/// A time namespace of an incarnation's own, by what the kernel calls it.
///
/// Whatever descends from the leader is in it: it survives setsid, double forks, `env -i`, a whole
/// PAM session, and a user or PID namespace of its own. Nothing goes back to ours without
/// CAP_SYS_ADMIN there; what makes itself another one (unshare(1) with --time, in a user namespace
/// of its own anybody may) is told by its marks. Without offsets no program sees a difference
/// (time_namespaces(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Namespace {
    /// Unique for the boot (Linux 6.18); 0 if unknown.
    pub id: u64,
    /// Given again once nothing is in the namespace; 0: there is none.
    pub inode: u64,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Exit {
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It is gone and nobody can say how.
    Unknown,
}

impl Exit {
    /// From a wait status as wait(2) and field 52 of /proc/PID/stat have it.
    pub fn from_wait_status(status: i32) -> Self {
        match status & 0x7f {
            0 => Self::Code((status >> 8) & 0xff),
            signal => Self::Signal(signal),
        }
    }

    /// As a shell has it: 128+n for a signal.
    pub fn code(self) -> u8 {
        match self {
            Self::Code(code) => u8::try_from(code & 0xff).unwrap_or(u8::MAX),
            Self::Signal(signal) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
            Self::Unknown => 1,
        }
    }
}

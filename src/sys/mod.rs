//! The only system calls and the only `unsafe` of opm.
//!
//! [`Kernel`] is what the daemon needs, at the granularity of system calls, so that the
//! simulator can stand in for it and kill the daemon between any two. [`linux::Linux`] is the
//! real one. Errors are bare [`Errno`]s; whoever asked adds the context.
#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("opm runs on 64-bit Linux alone: pidfds, inodes of 64 bits, the poll's tokens");

pub mod archives;
pub mod attributes;
pub mod block;
pub mod cgroup;
mod child;
pub mod daemonize;
pub mod entry;
pub mod exec_pipe;
pub mod fds;
pub mod features;
pub mod fifo;
pub mod files;
pub mod guarded;
pub mod home;
pub mod limits;
pub mod linux;
pub mod memory;
pub mod namespace;
pub mod notify;
pub mod orders;
pub mod output_of;
pub mod pidfd;
pub mod procfs;
pub mod program;
pub mod raw;
pub mod receipt;
pub mod reexec;
pub mod signals;
pub mod sockets;
pub mod spawn;
pub mod table;
pub mod terminal;
pub mod token;
pub mod user;
pub mod writer;
pub mod zone;

use crate::process::journal_format::Signature;
use crate::process::stat::Stat;
use crate::process::{Exit, Identity, Namespace, Pid};
use crate::service::context::Attributes;
use crate::service::options::Exec;
pub use block::Strings;
use cgroup::Leaf;
pub use features::Features;
use linux::milliseconds_of;
pub use orders::{Orders, Who};
use rustix::fd::{AsRawFd, OwnedFd, RawFd};
pub use rustix::io::Errno;
use rustix::time::ClockId;
pub use signals::{kill, kill_everybody};
use sockets::Sockets;

/// The kernel's word in an error of the standard library's.
pub fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// Why the last system call of this thread failed.
fn last_errno() -> Errno {
    errno_of(&std::io::Error::last_os_error())
}

/// This process.
pub fn own_pid() -> Pid {
    rustix::process::getpid().as_raw_nonzero().get()
}

/// What a system call gives.
pub type Result<T> = std::result::Result<T, Errno>;

/// What of a launch can be refused by the kernel, and where it fails then.
pub type Granted<T> = std::result::Result<T, (Stage, Errno)>;

/// Whom a signal is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// That process alone.
    Process,
    /// The process group that it leads.
    Group,
}

/// What a spawn needs, all of it made before the fork: the child allocates nothing.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The child's half of the journal, but for the leader's identity, which it fills in.
    pub signature: Signature,
    /// Where in the journal it signs. None: it does not, for it is no leader.
    pub signature_offset: Option<u64>,
    /// RLIMIT_LOCKS, soft and hard.
    pub limit_mark: Option<u64>,
    pub argv: &'a [String],
    /// `NAME=VALUE` each. The variable that starts with `OPM_MARK=` ends in ten digits that the
    /// child overwrites with its pid.
    pub env: Strings,
    /// Where a program without a slash is looked for, as PATH says.
    pub path: &'a str,
    pub cwd: &'a str,
    pub attributes: &'a Attributes,
    /// What was asked for by name: without it nothing is exec'd.
    pub orders: &'a Orders,
    pub streams: Streams,
    /// A FIFO that the whole tree holds open, for a later PID namespace to see.
    pub living: Option<&'a str>,
    pub log_out: &'a str,
    pub log_error: &'a str,
    /// What it finds open, by which number. The variable LISTEN_PID, if it is there, has room for
    /// the pid.
    pub descriptors: &'a [(RawFd, i32)],
}

/// Where a service's standard streams lead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Streams {
    /// Output to its log files, no input.
    #[default]
    Files,
    /// Output to FIFOs that this process reads, no input.
    Fifos,
    /// All three are those of this process.
    Inherited,
}

/// How far the child got, as its errno pipe tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launch {
    /// Not yet exec'd.
    Pending,
    /// The program runs.
    Done,
    /// Nothing was exec'd.
    Failed(Stage, Errno),
}

/// Where a launch failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// clone itself: no child came to be.
    Fork,
    /// The child could not put itself on record.
    Sign,
    /// Session, limits, descriptors.
    Setup,
    /// It could not enter its cgroup.
    Cgroup,
    /// What was asked for by an option, by its place in the table.
    Option(u8),
    Directory,
    Log,
    Exec,
    /// The program is there, and what its first line names, or its loader, is not.
    Interpreter,
    /// It ended before its exec, by a signal: which no child reports.
    Killed,
}

/// A child between fork and exec, or after it.
#[derive(Debug)]
pub struct Child<P, L> {
    pub pid: Pid,
    pub pidfd: P,
    /// Readable when the launch is decided.
    pub launch: L,
}

/// What woke the loop. A hint: whoever handles it looks for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wake {
    /// The leader of this service.
    Leader(u32),
    /// The launch pipe of this service.
    Launch(u32),
    /// A member or orphan that is watched by pid.
    Member(Pid),
}

/// A file of the home.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Read and write in place; created if missing.
    InPlace,
    /// Created, or emptied if there.
    Fresh,
}

/// The kernel as the daemon uses it. What has a body here is read of the kernel itself, for which
/// [`linux::Linux`] needs nothing of its own; the simulator tells it otherwise.
///
/// Handles close when dropped. Nothing here blocks, but for disk access.
pub trait Kernel {
    /// A pidfd, which pins one process whatever becomes of the number; or an unreaped child.
    type Pidfd: std::fmt::Debug;
    /// The read end of a launch pipe.
    type Launch: std::fmt::Debug;
    /// An open file of the home.
    type File: std::fmt::Debug;

    /// Milliseconds of CLOCK_BOOTTIME.
    fn now(&self) -> u64 {
        milliseconds_of(ClockId::Boottime)
    }
    /// Unix milliseconds.
    fn wall(&self) -> u64 {
        milliseconds_of(ClockId::Realtime)
    }
    /// Random bits.
    fn random(&mut self) -> u64;
    /// What this kernel has.
    fn features(&self) -> Features;
    /// This process.
    fn own_identity(&mut self) -> Identity {
        let pid = own_pid();
        let inode = self.pidfd_open(pid).ok().and_then(|own| self.inode(&own));
        let start_time = self.stat(pid).map_or(0, |stat| stat.start_time);
        Identity { pid, start_time, inode: inode.unwrap_or(0) }
    }
    fn own_uid(&self) -> u32 {
        rustix::process::geteuid().as_raw()
    }
    /// Resident memory of this process in bytes.
    fn own_memory(&self) -> u64 {
        procfs::own_memory()
    }
    /// The path of the program that this process runs, also if the file was replaced.
    fn own_program(&self) -> Result<String> {
        let path = procfs::link("/proc/self/exe")?;
        // The kernel's word for a file that has been replaced.
        Ok(path.strip_suffix(" (deleted)").unwrap_or(&path).to_owned())
    }
    /// Whether our cgroup is known to hold no process of another PID namespace.
    fn is_alone_in_cgroup(&mut self) -> bool {
        procfs::strangers_in_cgroup() == Some(false)
    }

    /// Forks a child that signs in, sets itself up and execs. Never waits for it.
    fn spawn(
        &mut self,
        plan: &Plan<'_>,
        journal: &Self::File,
    ) -> Result<Child<Self::Pidfd, Self::Launch>>;
    /// What a child is to become that `exec` is asked for. Errors: ENOENT: there is no such user or
    /// group.
    fn who(&self, exec: &Exec) -> Granted<Who> {
        Who::of(exec)
    }
    /// Whether a child could carry these out, by one that does nothing else. Errors: which of them
    /// the kernel refuses, and why.
    fn try_out(&mut self, _: &Orders, _: &Exec) -> Granted<()> {
        Ok(())
    }
    /// What a child writes to in order to be in the cgroup of an incarnation, which is made with
    /// the limits of `exec` if it is given; none if it has none. Errors: which limit can't be had.
    fn leaf(&mut self, _: Leaf, _exec: Option<&Exec>) -> Granted<Option<OwnedFd>> {
        Ok(None)
    }
    /// Who is in the cgroup of an incarnation, if it has one: 0 for what can't be seen.
    fn leaf_pids(&mut self, _: Leaf) -> Vec<Pid> {
        Vec::new()
    }
    /// Removes the cgroup of an incarnation that has ended, if it had one.
    fn remove_leaf(&mut self, _: Leaf) {}
    /// Takes up the cgroups of incarnations that an earlier daemon started.
    fn find_leaves(&mut self) {}
    /// What limits services can have. Errors: why none, in words.
    fn limits_offered(&self) -> std::result::Result<String, &'static str> {
        cgroup::offer()
    }
    /// What of these attributes a child can't be given, in words.
    fn lacking(&self, _wanted: &Attributes) -> Option<String> {
        None
    }
    /// These attributes without the limits that every child has.
    fn unusual(&self, wanted: &Attributes) -> Attributes {
        *wanted
    }
    /// Looks at a launch pipe without waiting; an early death is not said.
    fn launch(&mut self, pipe: &mut Self::Launch) -> Launch;
    /// Whether a child of ours whose launch pipe has ended has exec'd; else it has died.
    fn has_execed(&mut self, _: &Self::Launch, _: Option<&Self::Pidfd>, pid: Pid) -> Result<bool> {
        self.stat(pid).map(|stat| stat.execed)
    }
    /// What is held for services that listen.
    fn sockets(&mut self) -> Option<&mut Sockets> {
        None
    }
    /// Copies of the listening sockets that a process has, as far as it may be asked.
    fn sockets_of(&mut self, _pid: Pid, _pidfd: &Self::Pidfd) -> Vec<OwnedFd> {
        Vec::new()
    }
    /// pidfd_open(2): live processes and zombies.
    fn pidfd_open(&mut self, pid: Pid) -> Result<Self::Pidfd>;
    /// A child of ours that is not reaped, by its number, which nobody else gets before that: it
    /// takes no descriptor, and it can't be watched.
    fn child(&mut self, pid: Pid) -> Self::Pidfd;
    /// Its inode, where the kernel has pidfs.
    fn inode(&mut self, pidfd: &Self::Pidfd) -> Option<u64>;
    /// Whether every thread of it has exited.
    fn is_dead(&mut self, pidfd: &Self::Pidfd) -> Result<bool>;
    /// pidfd_send_signal(2); signal 0 only asks. `Group` needs the tier.
    fn signal(&mut self, pidfd: &Self::Pidfd, signal: i32, reach: Reach) -> Result<()>;
    /// waitid(2) on a child of ours: `reap` or only look. None: nothing to wait for yet.
    /// ECHILD: no child of ours.
    fn wait(&mut self, pidfd: &Self::Pidfd, reap: bool) -> Result<Option<Exit>>;
    /// How a process that is nobody's child of ours ended, where the kernel tells.
    fn exit_of_stranger(&mut self, pidfd: &Self::Pidfd, pid: Pid) -> Exit;
    /// Our own children, zombies too, in the order in which they became ours: from one of the
    /// first `known` on, or from the one after these, to the last. Gives the place of the first
    /// that is read; with 0 known all are.
    fn own_children(&mut self, known: usize, out: &mut Vec<Pid>) -> Result<usize>;
    /// The children of any process, of all its threads. May miss some while they change.
    fn children(&mut self, pid: Pid, out: &mut Vec<Pid>) -> Result<()> {
        procfs::children(pid, out)
    }
    /// The next few of all processes, by pid; none: that was all. Few: they are soon gone.
    fn processes(&mut self, after: Pid, out: &mut Vec<Pid>) -> Result<()>;
    /// How many processes and threads were ever forked.
    fn forks(&mut self) -> Option<u64> {
        procfs::forks()
    }
    /// How many pids no process or thread has.
    fn free_pids(&mut self) -> Option<u64> {
        procfs::free_pids()
    }
    /// The pid that was given out last.
    fn last_pid(&mut self) -> Option<Pid>;
    /// Nanoseconds that the threads of a process have run, as far as that is known.
    fn ran(&mut self, pid: Pid) -> Option<u64>;
    fn stat(&mut self, pid: Pid) -> Result<Stat> {
        procfs::stat(pid)
    }
    /// Soft and hard RLIMIT_LOCKS.
    fn locks_limit(&mut self, pid: Pid) -> Result<(u64, u64)> {
        procfs::locks_limit(pid)
    }
    /// What its memory holds is read with a bound: ETIMEDOUT, it does not answer.
    fn environ(&mut self, pid: Pid) -> Result<Vec<u8>> {
        procfs::environ(pid)
    }
    /// As [`Kernel::environ`].
    fn cmdline(&mut self, pid: Pid) -> Result<Vec<u8>> {
        guarded::read(&format!("/proc/{pid}/cmdline"))
    }
    /// The inode of our own time namespace, if what we start gets others; else 0.
    fn own_namespace(&self) -> u64;
    /// The inode of its time namespace. ENOENT: it is gone, or exiting. EACCES.
    fn time_namespace(&mut self, pid: Pid) -> Result<u64> {
        namespace::inode(pid)
    }
    /// The inode of its PID namespace.
    fn pid_namespace(&mut self, pid: Pid) -> Result<u64> {
        rustix::fs::stat(format!("/proc/{pid}/ns/pid")).map(|stat| stat.st_ino)
    }
    /// Whether anything is in a time namespace, or holds it open. None: it can't be asked.
    fn is_namespace_alive(&mut self, namespace: Namespace) -> Option<bool>;
    /// Whether what this daemon starts could raise a hard limit again.
    fn may_raise_limits(&mut self) -> bool {
        false
    }
    fn cwd(&mut self, pid: Pid) -> Result<String> {
        procfs::link(&format!("/proc/{pid}/cwd"))
    }
    /// Its cgroup v2, for people to see.
    fn cgroup(&mut self, pid: Pid) -> Option<String> {
        procfs::cgroup(&pid.to_string())
    }
    /// A path without symbolic links, as far as the kernel has it in memory: a file system that
    /// doesn't answer is never asked.
    fn real_path(&mut self, path: &str) -> Result<String> {
        use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
        // EAGAIN where a file system would have to be asked (openat2(2), 5.12; EINVAL before).
        let (flags, mode) = (OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let fd = rustix::fs::openat2(CWD, path, flags, mode, ResolveFlags::CACHED)?;
        procfs::link(&format!("/proc/self/fd/{}", fd.as_raw_fd()))
    }
    /// The pid that a PID file has; a FIFO in its place is empty.
    fn pid_in(&mut self, path: &str) -> Option<Pid> {
        procfs::pid_in(path)
    }
    /// Real, effective and saved uid.
    fn uids(&mut self, pid: Pid) -> Result<[u32; 3]> {
        procfs::uids(pid)
    }
    /// Wakes the loop when the process has exited, and again when it is reaped.
    fn watch(&mut self, pidfd: &Self::Pidfd, wake: Wake) -> Result<()>;
    fn unwatch(&mut self, pidfd: &Self::Pidfd);
    /// Where monitors have their descriptors watched. None: nobody turns a loop.
    fn registry(&self) -> Option<&mio::Registry> {
        None
    }
    /// Bytes of its memory, what it shares by parts. None: that can't be read.
    fn proportional_memory(&mut self, pid: Pid) -> Option<u64> {
        memory::proportional(pid)
    }
    /// Whether the kernel has just killed this leader for want of memory, as far as that can be
    /// known.
    fn was_out_of_memory(&mut self, _pid: Pid, _: Leaf) -> bool {
        false
    }
    fn watch_launch(&mut self, launch: &Self::Launch, wake: Wake) -> Result<()>;
    fn unwatch_launch(&mut self, launch: &mut Self::Launch);

    /// Whether the home's path still leads to the directory that we hold: asked before anything is
    /// launched, for a daemon that begins there else knows nothing of us.
    fn home_is_ours(&mut self) -> bool {
        true
    }
    /// Opens a file of the home by its name in it.
    fn open(&mut self, name: &str, mode: Mode) -> Result<Self::File>;
    /// Why nothing can be appended to a file of the home, if so. Makes none, and never waits.
    fn log_trouble(&self, _name: &str) -> Option<Errno> {
        None
    }
    /// Reads a file of the home whole; none if there is none.
    fn load(&mut self, name: &str) -> Result<Option<Vec<u8>>>;
    /// Reads at a place; may read less than there is room for.
    fn read_at(&mut self, file: &Self::File, offset: u64, bytes: &mut [u8]) -> Result<usize>;
    /// Writes at a place; may write less than it was given.
    fn write_at(&mut self, file: &Self::File, offset: u64, bytes: &[u8]) -> Result<usize>;
    fn set_len(&mut self, file: &Self::File, len: u64) -> Result<()>;
    fn sync(&mut self, file: &Self::File) -> Result<()>;
    fn rename(&mut self, from: &str, to: &str) -> Result<()>;
    /// Makes renames last.
    fn sync_home(&mut self) -> Result<()>;
}

/// Every process in /proc, one after the other.
#[derive(Debug, Default)]
pub struct Processes {
    last: Pid,
    /// What was read and not given yet, the next one last.
    batch: Vec<Pid>,
}

impl Processes {
    /// None: that was all. Errors: /proc can't be read.
    pub fn next<K: Kernel>(&mut self, kernel: &mut K) -> Result<Option<Pid>> {
        if self.batch.is_empty() {
            kernel.processes(self.last, &mut self.batch)?;
            self.batch.reverse();
        }
        self.last = self.batch.last().copied().unwrap_or(0);
        Ok(self.batch.pop())
    }
}

/// Who a process is that is held; 0 for what can't be read of it.
pub fn identity<K: Kernel>(kernel: &mut K, pid: Pid, pidfd: &K::Pidfd) -> Identity {
    let inode = kernel.inode(pidfd).unwrap_or(0);
    let start_time = kernel.stat(pid).map_or(0, |stat| stat.start_time);
    Identity { pid, start_time, inode }
}

/// Writes all of `bytes` at `offset`. Errors: the kernel's; ENOSPC: it takes nothing.
pub fn write_all_at<K: Kernel>(
    kernel: &mut K,
    file: &K::File,
    mut offset: u64,
    mut bytes: &[u8],
) -> Result<()> {
    while !bytes.is_empty() {
        match kernel.write_at(file, offset, bytes) {
            Ok(0) => return Err(Errno::NOSPC),
            Ok(n) => {
                bytes = &bytes[n.min(bytes.len())..];
                offset += n as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// What an errno means, in words: without std's `(os error N)`.
pub fn describe(errno: Errno) -> String {
    if errno == home::NOT_REGULAR {
        return "it is no regular file (move it away)".to_owned();
    }
    let text = std::io::Error::from_raw_os_error(errno.raw_os_error()).to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

//! [`Kernel`] on Linux.
use super::attributes::Means;
use super::block::Blocks;
use super::cgroup::{self, Cgroups, Leaf, TRIAL};
use super::exec_pipe::ExecPipe;
use super::home::Home;
use super::pidfd::Held;
use super::procfs::{OwnChildren, ProcessList};
use super::sockets::{self, Sockets};
use super::table::Table;
use super::token::Token;
use super::{
    Child, Errno, Features, Granted, Kernel, Launch, Mode, Orders, Plan, Reach, Result, Stage,
    Wake, memory, namespace, pidfd, procfs, raw, spawn,
};
use crate::process::{Exit, INITIAL_PID_NAMESPACE, Namespace, Pid};
use crate::service::context::Attributes;
use crate::service::options::Exec;
use mio::Registry;
use mio::unix::SourceFd;
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// The real kernel, with the loop's registry and the home.
#[derive(Debug)]
pub struct Linux {
    registry: Registry,
    pub home: Home,
    /// Of the home: children hold it until they exec.
    pub lock: OwnedFd,
    /// The number of the socket that commands connect to, which children close; -1 is none.
    pub listener: i32,
    table: Table,
    pub sockets: Sockets,
    /// None: the kernel doesn't list them, and without that nothing can be promised.
    pub own_children: Option<OwnChildren>,
    processes: Option<ProcessList>,
    load: Option<OwnedFd>,
    /// None: it has other numbers for processes than we do.
    log: Option<memory::KernelLog>,
    /// None: no service has had a limit, or none can have any.
    cgroups: Option<Cgroups>,
    means: Means,
    blocks: Blocks,
    features: Features,
    /// The inode of our own, if incarnations get others; else 0.
    time_namespace: u64,
    may_raise_limits: bool,
}

impl Linux {
    /// `without` is `OPM_WITHOUT`; `nofile` is the limit that we were started with; `lock` is what
    /// our children hold until they exec, beside the home's directory.
    pub fn new(
        registry: Registry,
        home: Home,
        lock: OwnedFd,
        nofile: Option<u64>,
        without: &str,
    ) -> Self {
        // Before others take the low numbers.
        let table = Table::new();
        let has = Features {
            pidfd_inode: pidfd::has_pidfs(),
            pgroup_signal: pidfd::has_group_signal(),
            get_info: pidfd::has_get_info(),
            shared_memory: true,
            shared_table: table.count() > 0 && Table::can_be_left(),
            clone3: true,
            time_namespace: namespace::can_make(),
            namespace_handle: namespace::has_handles(),
        };
        let mut features = has.without(without);
        features.clone3 &= raw::HAS_CLONE;
        features.shared_memory &= features.clone3;
        features.shared_memory &= !features.time_namespace || namespace::exec_enters();
        features.shared_table &= features.shared_memory;
        let own_children = OwnChildren::open().ok();
        let is_initial = procfs::pid_namespace() == INITIAL_PID_NAMESPACE;
        Self {
            registry,
            home,
            lock,
            listener: -1,
            table,
            sockets: Sockets::default(),
            own_children,
            processes: None,
            load: procfs::open_load().ok(),
            log: is_initial.then(memory::KernelLog::default),
            cgroups: None,
            means: Means::read(nofile),
            blocks: Blocks::default(),
            features,
            may_raise_limits: namespace::may_raise_limits(),
            time_namespace: if features.time_namespace { namespace::of_self().inode } else { 0 },
        }
    }
}

impl Kernel for Linux {
    type Pidfd = Held;
    type Launch = ExecPipe;
    type File = OwnedFd;

    fn random(&mut self) -> u64 {
        let mut bytes = [0u8; 8];
        match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
            Ok(8) => u64::from_ne_bytes(bytes),
            _ => self.wall() ^ self.now().rotate_left(32),
        }
    }

    fn features(&self) -> Features {
        self.features
    }

    fn spawn(&mut self, plan: &Plan<'_>, journal: &OwnedFd) -> Result<Child<Held, ExecPipe>> {
        let mut parent = spawn::Parent {
            journal,
            held: [self.home.dir.as_raw_fd(), self.lock.as_raw_fd()],
            listener: self.listener,
            means: &self.means,
            features: self.features,
        };
        let spawned = match spawn::spawn(plan, &mut self.blocks, &mut self.table, parent) {
            // Seccomp filters of older container runtimes.
            Err(Errno::NOSYS | Errno::PERM) if self.features.clone3 => {
                self.features.clone3 = false;
                (self.features.shared_memory, self.features.shared_table) = (false, false);
                parent.features = self.features;
                spawn::spawn(plan, &mut self.blocks, &mut self.table, parent)
            }
            other => other,
        };
        let Child { pid, pidfd, launch } = spawned?;
        Ok(Child { pid, pidfd: Held::Pidfd(pidfd), launch })
    }

    fn try_out(&mut self, orders: &Orders, exec: &Exec) -> Granted<()> {
        orders.try_out(&mut self.blocks)?;
        let made = self.leaf(TRIAL, Some(exec));
        self.remove_leaf(TRIAL);
        made.map(drop)
    }

    fn leaf(&mut self, leaf: Leaf, exec: Option<&Exec>) -> Granted<Option<OwnedFd>> {
        let Some(exec) = exec else {
            let entry = self.cgroups.as_ref().map_or(Ok(None), |cgroups| cgroups.enter(leaf));
            return entry.map_err(|errno| (Stage::Cgroup, errno));
        };
        if !cgroup::has_limits(exec) {
            return Ok(None);
        }
        self.find_leaves();
        let cgroups = self.cgroups.as_mut().ok_or_else(|| cgroup::no_limits(exec))?;
        cgroups.make(leaf, exec).map(Some)
    }

    fn leaf_pids(&mut self, leaf: Leaf) -> Vec<Pid> {
        self.cgroups.as_ref().map_or(Vec::new(), |cgroups| cgroups.pids(leaf))
    }

    fn remove_leaf(&mut self, leaf: Leaf) {
        self.cgroups.iter_mut().for_each(|cgroups| cgroups.remove(leaf));
    }

    fn find_leaves(&mut self) {
        if self.cgroups.is_none() {
            self.cgroups = Cgroups::open(self.home.place);
        }
    }

    fn lacking(&self, wanted: &Attributes) -> Option<String> {
        self.means.lacking(wanted)
    }

    fn unusual(&self, wanted: &Attributes) -> Attributes {
        self.means.unusual(wanted)
    }

    fn launch(&mut self, launch: &mut ExecPipe) -> Launch {
        launch.look(&mut self.table)
    }

    fn has_execed(&mut self, launch: &ExecPipe, pidfd: Option<&Held>, pid: Pid) -> Result<bool> {
        // The exec moves it before it closes the pipe (begin_new_exec()), and nothing else does.
        let pidfd = pidfd.and_then(Held::pidfd).filter(|_| launch.enters_namespace);
        let its = pidfd.and_then(|pidfd| namespace::inode_of(pidfd.as_fd()));
        match its.is_some_and(|inode| inode != self.time_namespace) {
            true => Ok(true),
            false => self.stat(pid).map(|stat| stat.execed),
        }
    }

    fn sockets(&mut self) -> Option<&mut Sockets> {
        Some(&mut self.sockets)
    }

    fn sockets_of(&mut self, pid: Pid, held: &Held) -> Vec<OwnedFd> {
        held.pidfd().map_or(Vec::new(), |pidfd| sockets::of_process(pid, pidfd))
    }

    fn pidfd_open(&mut self, pid: Pid) -> Result<Held> {
        pidfd::open(pid).map(Held::Pidfd)
    }

    fn child(&mut self, pid: Pid) -> Held {
        Held::Child(pid)
    }

    fn inode(&mut self, held: &Held) -> Option<u64> {
        held.pidfd().filter(|_| self.features.pidfd_inode).and_then(pidfd::inode)
    }

    fn is_dead(&mut self, held: &Held) -> Result<bool> {
        held.is_dead()
    }

    fn signal(&mut self, held: &Held, signal: i32, reach: Reach) -> Result<()> {
        held.signal(signal, reach)
    }

    fn wait(&mut self, held: &Held, reap: bool) -> Result<Option<Exit>> {
        held.wait(reap)
    }

    fn exit_of_stranger(&mut self, held: &Held, pid: Pid) -> Exit {
        let get_info = self.features.get_info;
        let reaped = || held.pidfd().filter(|_| get_info).and_then(pidfd::exit_status);
        if let Some(exit) = reaped() {
            return exit;
        }
        // A zombie of somebody else's (X: being reaped right now); field 52 reads 0 for those
        // who may not know, so that 0 is believed only of our own uid.
        match procfs::stat(pid) {
            Ok(stat)
                if matches!(stat.state, b'Z' | b'X')
                    && self.uids(pid).is_ok_and(|uids| uids == [self.own_uid(); 3]) =>
            {
                Exit::from_wait_status(stat.exit_code)
            }
            // Reaped since we asked first: now the pidfd knows.
            _ => reaped().unwrap_or(Exit::Unknown),
        }
    }

    fn own_children(&mut self, known: usize, out: &mut Vec<Pid>) -> Result<usize> {
        let list = self.own_children.as_mut().ok_or(Errno::NOENT)?;
        list.read(known, out)
    }

    fn processes(&mut self, after: Pid, out: &mut Vec<Pid>) -> Result<()> {
        let list = match self.processes.take() {
            Some(list) => list,
            None => ProcessList::open()?,
        };
        self.processes.insert(list).next(after, out)
    }

    fn last_pid(&mut self) -> Option<Pid> {
        procfs::last_pid(self.load.as_ref()?)
    }

    fn ran(&mut self, pid: Pid) -> Option<u64> {
        ran(pid)
    }

    fn own_namespace(&self) -> u64 {
        self.time_namespace
    }

    fn is_namespace_alive(&mut self, namespace: Namespace) -> Option<bool> {
        if !self.features.namespace_handle || namespace.id == 0 {
            return None;
        }
        namespace::is_alive(namespace)
    }

    fn may_raise_limits(&mut self) -> bool {
        self.may_raise_limits
    }

    fn registry(&self) -> Option<&Registry> {
        Some(&self.registry)
    }

    fn was_out_of_memory(&mut self, pid: Pid, leaf: Leaf) -> bool {
        self.cgroups.as_ref().is_some_and(|cgroups| cgroups.was_out_of_memory(leaf))
            || self.log.as_mut().is_some_and(|log| log.tells_death(pid))
    }

    fn watch(&mut self, held: &Held, wake: Wake) -> Result<()> {
        held.pidfd().map_or(Ok(()), |pidfd| Token::Wake(wake).watch(&self.registry, pidfd))
    }

    fn unwatch(&mut self, held: &Held) {
        let Some(pidfd) = held.pidfd() else { return };
        // An explicit removal: a forked child holds a copy of the descriptor until its exec, so
        // closing ours would leave the registration alive. Failing means that there is none.
        drop(self.registry.deregister(&mut SourceFd(&pidfd.as_raw_fd())));
    }

    fn watch_launch(&mut self, launch: &ExecPipe, wake: Wake) -> Result<()> {
        Token::Wake(wake).watch(&self.registry, launch)
    }

    fn unwatch_launch(&mut self, launch: &mut ExecPipe) {
        launch.take().into_iter().for_each(|report| self.table.take_back(report));
        drop(self.registry.deregister(&mut SourceFd(&launch.as_raw_fd())));
        self.blocks.give_back();
    }

    fn home_is_ours(&mut self) -> bool {
        self.home.is_here()
    }

    fn open(&mut self, name: &str, mode: Mode) -> Result<OwnedFd> {
        self.home.open_file(name, mode)
    }

    fn log_trouble(&self, name: &str) -> Option<Errno> {
        self.home.try_append(name).err()
    }

    fn load(&mut self, name: &str) -> Result<Option<Vec<u8>>> {
        self.home.load(name)
    }

    fn read_at(&mut self, file: &OwnedFd, offset: u64, bytes: &mut [u8]) -> Result<usize> {
        rustix::io::pread(file, bytes, offset)
    }

    fn write_at(&mut self, file: &OwnedFd, offset: u64, bytes: &[u8]) -> Result<usize> {
        rustix::io::pwrite(file, bytes, offset)
    }

    fn set_len(&mut self, file: &OwnedFd, len: u64) -> Result<()> {
        rustix::fs::ftruncate(file, len)
    }

    fn sync(&mut self, file: &OwnedFd) -> Result<()> {
        rustix::fs::fsync(file)
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        self.home.rename(from, to)
    }

    fn sync_home(&mut self) -> Result<()> {
        rustix::fs::fsync(&self.home.dir)
    }
}

/// What a clock says.
pub fn milliseconds_of(clock: ClockId) -> u64 {
    let now = rustix::time::clock_gettime(clock);
    now.tv_sec.unsigned_abs().saturating_mul(1000) + now.tv_nsec.unsigned_abs() / 1_000_000
}

/// Nanoseconds that all threads of a process have run, those that ended too: one call, where
/// /proc's text takes four and the kernel longer.
fn ran(pid: Pid) -> Option<u64> {
    // clock_getcpuclockid(3), which asks the kernel whether there is such a process first.
    const SCHEDULED: libc::clockid_t = 2;
    let clock = (!pid << 3) | SCHEDULED;
    let mut ran = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes a `timespec`. The clock of a process that is gone is EINVAL.
    let answer = unsafe { libc::clock_gettime(clock, &raw mut ran) };
    let nanoseconds = ran.tv_sec.checked_mul(1_000_000_000)?.checked_add(ran.tv_nsec)?;
    u64::try_from(nanoseconds).ok().filter(|_| answer == 0 && pid > 0)
}

/// For the signals: what the loop reads them for.
pub const SIGNALS: [i32; 5] =
    [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT];

/// Becomes readable whenever the wall clock is set, and when the machine wakes up. The time that a
/// machine sleeps counts for what is due (CLOCK_BOOTTIME), but not for a poll's timeout: without
/// this word a poll would go on for what was left of it.
///
/// Each change wakes a poll, even if this is never read.
pub fn clock_changes() -> Result<OwnedFd> {
    let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
    let timer = timerfd_create(TimerfdClockId::Realtime, flags)?;
    let never = Timespec { tv_sec: i64::MAX, tv_nsec: 0 };
    let at = Itimerspec { it_interval: Timespec::default(), it_value: never };
    let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
    timerfd_settime(&timer, flags, &at)?;
    Ok(timer)
}

/// A timer that wakes a poll once for each time that it is set, even if it is never read.
pub fn timer() -> Result<OwnedFd> {
    timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)
}

/// Sets such a timer, to so long from now.
pub fn set_timer(timer: &OwnedFd, us: u32) -> Result<()> {
    let it_value = Timespec { tv_sec: 0, tv_nsec: i64::from(us) * 1_000 };
    let at = Itimerspec { it_interval: Timespec::default(), it_value };
    timerfd_settime(timer, TimerfdTimerFlags::empty(), &at).map(drop)
}

//! Spawning a child that signs in, sets itself up and execs.
//!
//! The child shares the daemon's memory until its exec, and the daemon doesn't wait for it: with
//! 1,000 services to start that takes 0.6 of the time of fork, which copies what the exec throws
//! away, and does not grow with the daemon's memory. vfork and posix_spawn share it too, but hold
//! the daemon's only thread until the exec: 35 ms at worst under load, for ever on a stuck file
//! system. What the child may do is said in [`raw`], [`child`] and [`block`](super::block). Where
//! the kernel or the architecture can't, the child has a copy of the memory, and does the same.
//!
//! The child holds the home's lock (it shares the open file description until exec closes it),
//! signs its journal slot, and only then execs. So no later daemon can begin before this child
//! is on record or dead.
use super::attributes::Means;
use super::block::{Block, Blocks};
use super::child::{
    self, GIVEN_MAX, Handover, NewNamespace, Open, Prepared, RANGES_MAX, Ranges, Record,
};
use super::exec_pipe::ExecPipe;
use super::linux::milliseconds_of;
use super::table::Table;
use super::{Child, Errno, Features, Plan, Result, Strings, last_errno, pidfd, raw};
use crate::process::mark::{MARK_VARIABLE, PID_DIGITS};
use crate::service::environment::LISTEN_PID;
use rustix::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use rustix::time::ClockId;
use std::ffi::c_int;
use std::sync::atomic::Ordering;

/// From linux/sched.h; libc's constants are `c_int` and overflow to 0.
const CLONE_VM: u64 = 0x100;
const CLONE_FILES: u64 = 0x400;
const CLONE_PIDFD: u64 = 0x1000;
const CLONE_CHILD_CLEARTID: u64 = 0x20_0000;
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;

/// What runs a script that does not say what runs it, as with execvp(3).
const SHELL: &str = "/bin/sh";

/// What of this process a spawn needs.
#[derive(Clone, Copy, Debug)]
pub struct Parent<'a> {
    pub journal: &'a OwnedFd,
    /// The home and its lock, which a child holds until its exec.
    pub held: [RawFd; 2],
    /// -1: there is none yet.
    pub listener: RawFd,
    pub means: &'a Means,
    pub features: Features,
}

impl Parent<'_> {
    /// Ranges of descriptors beside those that a child needs, from the highest downwards.
    fn unneeded(&self, report: RawFd, leaf: Option<RawFd>, given: &[(RawFd, i32)]) -> Ranges {
        let [home, lock] = self.held;
        let kept = [home, lock, self.journal.as_raw_fd(), report].into_iter().chain(leaf);
        let mut kept: Vec<u32> =
            kept.chain(given.iter().map(|(fd, _)| *fd)).map(i32::cast_unsigned).collect();
        kept.sort_unstable_by_key(|fd| std::cmp::Reverse(*fd));
        let (mut ranges, mut last) = ([[1, 0]; RANGES_MAX], u32::MAX);
        for (range, kept) in ranges.iter_mut().zip(kept.into_iter().chain([2])) {
            *range = [kept + 1, last];
            last = kept - 1;
        }
        ranges
    }
}

/// What a child has in common with us, until its exec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shares {
    Nothing,
    Memory,
    /// And the table of descriptors, which it leaves first of all.
    MemoryAndTable,
}

impl Shares {
    fn of(memory: bool, table: bool) -> Self {
        match (memory, table) {
            (false, _) => Self::Nothing,
            (true, false) => Self::Memory,
            (true, true) => Self::MemoryAndTable,
        }
    }
}

/// The files that execvp(3) would try for `program`.
fn candidates(program: &str, path: &str) -> Strings {
    let mut files = Strings::default();
    if program.contains('/') {
        files.push(&[program]);
        return files;
    }
    for dir in path.split(':') {
        files.push(&[if dir.is_empty() { "." } else { dir }, "/", program]);
    }
    files
}

/// Clones the child of `plan`. Errors: what pipe2(2), mmap(2) and clone3(2) say: EMFILE, ENFILE,
/// EAGAIN, ENOMEM; EINVAL for a NUL byte; E2BIG.
pub fn spawn(
    plan: &Plan<'_>,
    blocks: &mut Blocks,
    table: &mut Table,
    parent: Parent<'_>,
) -> Result<Child<OwnedFd, ExecPipe>> {
    let Features { clone3, time_namespace, .. } = parent.features;
    let shared_memory = parent.features.shared_memory && !plan.orders.needs_own_memory();
    let programs = candidates(plan.argv.first().ok_or(Errno::INVAL)?, plan.path);
    let (words, paths) = (words_of(plan), paths_of(plan));
    let signs = plan.signature_offset.is_some();
    let namespace = NewNamespace::of(time_namespace && signs, shared_memory);
    let (mut launch, mut report) = ExecPipe::new(namespace == NewNamespace::AtExec)?;
    let block = blocks.take(Block::room_for(&[&programs, &words, &plan.env, &paths]))?;
    let env = block.strings(&plan.env)?;
    let pid_of = |name| match signs {
        true => pid_digits(&plan.env, env.end, name),
        false => std::ptr::null_mut(),
    };
    let count = plan.descriptors.len();
    let mut given = [(-1, -1); GIVEN_MAX];
    given.get_mut(..count).ok_or(Errno::TOOBIG)?.copy_from_slice(plan.descriptors);
    let [programs, words, paths] = [programs, words, paths].map(|all| block.strings(&all));
    let (programs, words, paths) = (programs?, words?, paths?);
    let may_share = shared_memory && parent.features.shared_table && is_plain(plan);
    let shares = Shares::of(shared_memory, may_share && table.lower(&mut report));
    let prepared = Prepared {
        record: Record {
            signature: plan.signature,
            journal: (parent.journal.as_raw_fd(), plan.signature_offset),
            with_inode: parent.features.pidfd_inode,
            namespace,
            prepared_at: milliseconds_of(ClockId::Boottime),
        },
        open: Open {
            report: report.as_raw_fd(),
            unneeded: parent.unneeded(report.as_raw_fd(), plan.orders.leaf, plan.descriptors),
            shares_table: shares == Shares::MemoryAndTable,
            listener: parent.listener,
        },
        limit_mark: plan.limit_mark,
        given: parent.means.given(plan.attributes),
        orders: *plan.orders,
        programs,
        words,
        pid_digits: pid_of(MARK_VARIABLE),
        handover: Handover {
            held: parent.held,
            given,
            count,
            pid_digits: if count > 0 { pid_of(LISTEN_PID) } else { std::ptr::null_mut() },
        },
        env,
        paths,
        streams: plan.streams,
        clear_handlers: !clone3,
    };
    let child = block.put(prepared).and_then(|prepared| match clone3 {
        // SAFETY: such an entry, and what it is given lies in the block.
        true => unsafe { clone(block, child::run, prepared, shares) },
        false => fork(child::run, prepared),
    });
    if shares == Shares::MemoryAndTable {
        match child {
            Ok(_) => launch.share(report),
            Err(_) => table.take_back(report),
        }
    }
    let (pid, pidfd) = child?;
    Ok(Child { pid, pidfd, launch })
}

/// Its words, and a shell's path before them.
fn words_of(plan: &Plan<'_>) -> Strings {
    let mut words = Strings::default();
    words.push(&[SHELL]);
    plan.argv.iter().for_each(|word| words.push(&[word]));
    words
}

/// In the order of the places in [`child`].
fn paths_of(plan: &Plan<'_>) -> Strings {
    let mut paths = Strings::default();
    let log_dir = plan.log_out.rsplit_once('/').map_or("", |(dir, _)| dir);
    let all = [plan.cwd, log_dir, plan.log_out, plan.log_error];
    all.into_iter().chain(plan.living).for_each(|path| paths.push(&[path]));
    paths
}

/// Whether a child needs no descriptor that was opened for it, which we may close before it has
/// looked at it; and somebody looks at its pipe, as nobody does for what is started beside a
/// leader, and does not sign.
fn is_plain(plan: &Plan<'_>) -> bool {
    let has_own = !plan.descriptors.is_empty() || plan.orders.leaf.is_some();
    !has_own && plan.signature_offset.is_some()
}

/// Where a variable ends in digits for the pid, which the child writes; null: there is none of
/// this name. `end`: where the copied environment ends.
fn pid_digits(env: &Strings, end: *mut u8, name: &str) -> *mut [u8; PID_DIGITS] {
    let is_mark = |entry: &[u8]| {
        let rest = entry.strip_prefix(name.as_bytes());
        rest.is_some_and(|rest| rest.first() == Some(&b'=') && rest.len() > PID_DIGITS)
    };
    let mut after = env.bytes.len();
    for entry in env.iter() {
        after -= entry.len() + 1;
        if is_mark(entry) {
            return end.wrapping_sub(after + 1 + PID_DIGITS).cast();
        }
    }
    std::ptr::null_mut()
}

/// Clones a child that runs `entry` with `argument`, which lies in `block`, as its stack does.
///
/// # Safety
/// `entry` keeps the rules of [`raw`], and `argument` stays until the child has exec'd or ended.
pub unsafe fn clone<T>(
    block: &Block,
    entry: raw::Entry<T>,
    argument: *mut T,
    shares: Shares,
) -> Result<(c_int, OwnedFd)> {
    let mut pidfd: c_int = -1;
    // SAFETY: clone_args is a plain C struct of integers, for which zero is valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = CLONE_PIDFD | CLONE_CLEAR_SIGHAND;
    if shares == Shares::MemoryAndTable {
        args.flags |= CLONE_FILES;
    }
    if shares != Shares::Nothing {
        args.flags |= CLONE_VM | CLONE_CHILD_CLEARTID;
        args.child_tid = block.word().as_ptr().expose_provenance() as u64;
        block.word().store(1, Ordering::Release);
    }
    args.pidfd = (&raw mut pidfd).expose_provenance() as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    (args.stack, args.stack_size) = block.stack();
    // SAFETY: the stack is the block's, which nobody takes before the kernel has cleared its word;
    // without CLONE_VM the child has copies of both. The caller answers for `entry`.
    match unsafe { raw::clone(&mut args, entry, argument) } {
        // SAFETY: CLONE_PIDFD stored a new descriptor that nothing else owns.
        Ok(pid) => Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) })),
        Err(errno) => {
            block.word().store(0, Ordering::Release);
            Err(Errno::from_raw_os_error(errno))
        }
    }
}

/// The same; by fork where the kernel, the architecture or a seccomp filter has no clone3.
///
/// # Safety
/// As of [`clone`].
pub(super) unsafe fn clone_or_fork<T>(
    block: &Block,
    entry: raw::Entry<T>,
    argument: *mut T,
    shares: Shares,
) -> Result<(c_int, OwnedFd)> {
    // SAFETY: the caller answers for it.
    match unsafe { clone(block, entry, argument, shares) } {
        Err(Errno::NOSYS | Errno::PERM) => fork(entry, argument),
        child => child,
    }
}

/// For kernels (and seccomp filters) without clone3. The pid can't be reused before the pidfd is
/// open: nobody but us reaps the child.
fn fork<T>(entry: raw::Entry<T>, argument: *mut T) -> Result<(c_int, OwnedFd)> {
    // SAFETY: the process has one thread, and each entry keeps the rules of `raw`.
    match unsafe { libc::fork() } {
        -1 => Err(last_errno()),
        0 => entry(argument),
        pid => match pidfd::open(pid) {
            Ok(pidfd) => Ok((pid, pidfd)),
            Err(errno) => {
                // SAFETY: `pid` is our unreaped child. Without a pidfd it can't be supervised.
                unsafe { libc::kill(pid, libc::SIGKILL) };
                // SAFETY: the same child, reaped once.
                unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
                Err(errno)
            }
        },
    }
}

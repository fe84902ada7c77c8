//! The child's whole life between its clone and its program.
//!
//! It may share the daemon's memory, and the daemon goes on meanwhile. So it calls nothing but
//! [`raw`] and what is as plain, and writes to its stack and to its own launch block alone. All
//! that it opens is close-on-exec, and nothing is closed twice.
//!
//! What it must not do as long as it shares memory, for the kernel keeps it with the memory and
//! so for the daemon, too: write its `oom_score_adj`, become another user or change its
//! capabilities (both make the daemon undumpable), prctl(PR_SET_DUMPABLE). One that is ordered to
//! has a copy of the memory.
use super::attributes::{self, Given};
use super::block::CStrings;
use super::orders::option;
use super::raw::{self, exists};
use super::{Orders, Stage, Streams, exec_pipe, namespace, signals};
use crate::process::Namespace;
use crate::process::journal_format::Signature;
use crate::process::mark::PID_DIGITS;
use crate::process::stat::TICK_MS;
use crate::service::listen::SOCKETS_MAX;
use crate::service::options::Key;
use rustix::process::Resource;
use std::ffi::{CStr, c_int};

/// What the child uses, in its launch block.
#[derive(Clone, Copy)]
pub(super) struct Prepared {
    pub(super) record: Record,
    pub(super) open: Open,
    pub(super) limit_mark: Option<u64>,
    pub(super) given: Given,
    pub(super) orders: Orders,
    pub(super) programs: CStrings,
    /// The words, and a shell's path before them: for a script without a first line of its own.
    pub(super) words: CStrings,
    pub(super) env: CStrings,
    /// Where the pid goes in the mark, as decimal digits; null: there is no mark.
    pub(super) pid_digits: *mut [u8; PID_DIGITS],
    pub(super) handover: Handover,
    pub(super) paths: CStrings,
    pub(super) streams: Streams,
    pub(super) clear_handlers: bool,
}

/// How it goes on record.
#[derive(Clone, Copy)]
pub(super) struct Record {
    pub(super) signature: Signature,
    /// And where in it the signature goes; none: it does not sign.
    pub(super) journal: (c_int, Option<u64>),
    pub(super) with_inode: bool,
    pub(super) namespace: NewNamespace,
    /// Milliseconds on CLOCK_BOOTTIME, before the clone.
    pub(super) prepared_at: u64,
}

/// What is open in it.
#[derive(Clone, Copy)]
pub(super) struct Open {
    /// Its end of the launch pipe.
    pub(super) report: c_int,
    pub(super) unneeded: Ranges,
    /// It shares the daemon's table of descriptors.
    pub(super) shares_table: bool,
    /// -1: there is none yet.
    pub(super) listener: c_int,
}

/// Whether a child gets a time namespace.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum NewNamespace {
    None,
    /// Entered by hand.
    Now,
    /// Entered by its exec.
    AtExec,
}

impl NewNamespace {
    pub(super) fn of(wanted: bool, shared_memory: bool) -> Self {
        match (wanted, shared_memory) {
            (false, _) => Self::None,
            (true, false) => Self::Now,
            (true, true) => Self::AtExec,
        }
    }
}

/// Ranges of descriptors that a child doesn't need, from the highest downwards: the first reaches
/// to the end of the table. One whose first is above its last is none.
pub(super) type Ranges = [[u32; 2]; RANGES_MAX];

/// What it needs until its exec is between them: the home and its lock, the journal, its end of
/// the launch pipe, its cgroup, and what its program gets.
pub(super) const RANGES_MAX: usize = 5 + GIVEN_MAX + 1;
/// Its sockets, and the two ends of what it says over that it is ready.
pub(super) const GIVEN_MAX: usize = SOCKETS_MAX + 2;

/// Descriptors that its program gets.
#[derive(Clone, Copy)]
pub(super) struct Handover {
    /// The home and its lock: to be held until the exec, whatever takes their numbers.
    pub(super) held: [c_int; 2],
    /// Each with its number there.
    pub(super) given: [(c_int, c_int); GIVEN_MAX],
    pub(super) count: usize,
    /// Where the pid goes in LISTEN_PID; null: there is none.
    pub(super) pid_digits: *mut [u8; PID_DIGITS],
}

/// Places in [`Prepared::paths`].
pub(super) const CWD: usize = 0;
pub(super) const LOG_DIR: usize = 1;
pub(super) const LOGS: [usize; 2] = [2, 3];
/// Held open by the whole tree, where it is wanted.
pub(super) const LIVING: usize = 4;

type Step<T> = Result<T, (Stage, c_int)>;

enum Never {}

pub(super) extern "C" fn run(prepared: *mut Prepared) -> ! {
    // SAFETY: it lies in the block, which is the child's alone until its exec or end.
    let p = unsafe { &mut *prepared };
    match prepare_and_exec(p) {
        Err((stage, errno)) => exec_pipe::report(p.open.report, stage, errno, p.open.shares_table),
        Ok(never) => match never {},
    }
    raw::exit(127)
}

fn prepare_and_exec(p: &mut Prepared) -> Step<Never> {
    let at = |stage| move |errno| (stage, errno);
    leave_table(p).map_err(at(Stage::Setup))?;
    close_unneeded(p);
    raw::numbers(libc::SYS_setsid, [0; 3]).map_err(at(Stage::Setup))?;
    sign_in(p)?;
    if let Some(leaf) = p.orders.leaf {
        raw::write(leaf, b"0").map_err(at(Stage::Cgroup))?;
    }
    if let Some(value) = p.limit_mark {
        raw::limit(Resource::Locks as u32, Some(&[value; 2])).map_err(at(Stage::Setup))?;
    }
    raw::chdir(path(p, CWD)).map_err(at(Stage::Directory))?;
    open_streams(p)?;
    hand_over(p).map_err(at(option(Key::listen)))?;
    attributes::give(&p.given);
    p.orders.carry_out()?;
    reset_signals(p.clear_handlers).map_err(at(Stage::Setup))?;
    exec(p)
}

fn path(p: &Prepared, place: usize) -> &CStr {
    // SAFETY: the block is the child's alone.
    unsafe { p.paths.get(place) }.unwrap_or(c"")
}

/// From the daemon's table of descriptors to an own one, without what is above all that is needed.
/// What is left is close-on-exec: the daemon may have been about to hand it on to its next image.
fn leave_table(p: &mut Prepared) -> raw::Result<()> {
    if p.open.shares_table {
        let [range, ..] = &mut p.open.unneeded;
        let [first, last] = std::mem::replace(range, [1, 0]);
        raw::close_range(first, last, libc::CLOSE_RANGE_UNSHARE)?;
        p.open.shares_table = false;
        exec_pipe::leave_table(p.open.report);
        raw::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)?;
    }
    Ok(())
}

/// Before anything that may hang (a log on a FIFO, a directory on a dead file system): commands
/// that connected to a listener whose daemon is dead would wait for its answer.
fn close_unneeded(p: &Prepared) {
    for [first, last] in p.open.unneeded {
        if first <= last && raw::close_range(first, last, 0).is_err() {
            // A seccomp filter that doesn't know it.
            raw::close(p.open.listener);
        }
    }
}

/// Puts this process on record, and its pid into its environment's mark.
fn sign_in(p: &mut Prepared) -> Step<()> {
    // What is no leader goes on no record.
    let (journal, Some(offset)) = p.record.journal else { return Ok(()) };
    let pid = raw::numbers(libc::SYS_getpid, [0; 3]).unwrap_or(0) as c_int;
    p.record.signature.leader.pid = pid;
    p.record.signature.leader.start_time = own_start_time(p.record.prepared_at);
    let pidfd = || raw::numbers(libc::SYS_pidfd_open, [pid as usize, 0, 0]).ok();
    let own = p.record.with_inode.then(pidfd).flatten().map(|own| own as c_int);
    p.record.signature.leader.inode = own.map_or(0, |own| raw::status(own, c"").0);
    p.record.signature.namespace = match p.record.namespace {
        NewNamespace::None => Namespace { id: 0, inode: 0 },
        how => namespace::make(how == NewNamespace::AtExec, own),
    };
    write_pid(p, pid.unsigned_abs());
    let bytes = p.record.signature.encode();
    match raw::write_at(journal, &bytes, offset) {
        Ok(length) if length == bytes.len() => Ok(()),
        Ok(_) => Err((Stage::Sign, libc::ENOSPC)),
        Err(errno) => Err((Stage::Sign, errno)),
    }
}

/// Into the mark, all of its digits; into LISTEN_PID as a number without zeros before it.
fn write_pid(p: &Prepared, pid: u32) {
    let (mut digits, mut rest) = ([0u8; PID_DIGITS], pid);
    for digit in digits.iter_mut().rev() {
        *digit = b'0'.wrapping_add((rest % 10) as u8);
        rest /= 10;
    }
    if !p.pid_digits.is_null() {
        // SAFETY: it points into the environment in this child's block.
        unsafe { *p.pid_digits = digits };
    }
    if !p.handover.pid_digits.is_null() {
        // SAFETY: as above.
        let place = unsafe { &mut *p.handover.pid_digits };
        let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
        *place = [0; PID_DIGITS];
        for (to, digit) in place.iter_mut().zip(digits.iter().skip(zeros)) {
            *to = *digit;
        }
    }
}

/// Puts each descriptor where the program looks for it: sockets from 3 on, as sd_listen_fds(3)
/// does. What has these numbers, and is held until the exec, gets others first.
fn hand_over(p: &mut Prepared) -> raw::Result<()> {
    let Handover { held, given, count, .. } = p.handover;
    if count == 0 {
        return Ok(());
    }
    let most = given.iter().take(count).map(|(_, number)| *number).max().unwrap_or(0);
    let least = most.wrapping_add(1) as usize;
    for fd in held {
        raw::dup_above(fd, least)?;
    }
    p.open.report = raw::dup_above(p.open.report, least)?;
    let mut copies = given;
    for (copy, _) in copies.iter_mut().take(count) {
        *copy = raw::dup_above(*copy, least)?;
    }
    for (copy, number) in copies.into_iter().take(count) {
        raw::dup_onto(copy, number)?;
    }
    Ok(())
}

/// Field 22 of /proc/self/stat (proc(5)); 0 without /proc. Simpler than the daemon's reader, which
/// may panic. It is the tick of CLOCK_BOOTTIME in which copy_process() ran: between then and now,
/// and if that is one tick the file needs not be read.
fn own_start_time(prepared_at: u64) -> u64 {
    let (after, before) = (prepared_at / TICK_MS, raw::boottime() / TICK_MS);
    if after == before && after != 0 {
        return after;
    }
    let mut text = [0u8; 1024];
    let file = raw::open(c"/proc/self/stat", libc::O_RDONLY, 0);
    let length = file.and_then(|file| raw::read(file, &mut text)).unwrap_or(0);
    start_time(text.get(..length).unwrap_or(&[]))
}

/// The name, field 2, ends at the last parenthesis; a space goes before each field after it.
fn start_time(stat: &[u8]) -> u64 {
    let (mut fields, mut number) = (0u32, 0u64);
    for byte in stat {
        match byte {
            b')' => (fields, number) = (2, 0),
            b' ' => fields = fields.wrapping_add(1),
            b'0'..=b'9' if fields == 22 => {
                number = number.wrapping_mul(10).wrapping_add(u64::from(byte.wrapping_sub(b'0')));
            }
            _ => {}
        }
    }
    number
}

/// Where programs don't look for descriptors, and shells don't put theirs.
const LIVING_FD_MIN: usize = 100;

fn open_streams(p: &Prepared) -> Step<()> {
    // SAFETY: the block is the child's alone.
    if let Some(living) = unsafe { p.paths.get(LIVING) } {
        let copy = |fd| [fd as usize, libc::F_DUPFD as usize, LIVING_FD_MIN];
        let fd = raw::open(living, libc::O_RDWR, 0);
        // Without it the tree can only not be seen from another PID namespace.
        let _held = fd.and_then(|fd| raw::numbers(libc::SYS_fcntl, copy(fd)));
    }
    let access = match p.streams {
        Streams::Inherited => return Ok(()),
        Streams::Files => libc::O_WRONLY | libc::O_CREAT,
        // Read and write: it never waits for a reader, and outlives the loss of one.
        Streams::Fifos => libc::O_RDWR,
    };
    let onto = |fd, onto| raw::dup_onto(fd, onto).map_err(|errno| (Stage::Setup, errno));
    // Several can't share one input; a root without /dev/null leaves it as it is.
    if let Ok(null) = raw::open(c"/dev/null", libc::O_RDONLY, 0) {
        onto(null, 0)?;
    }
    let [out, error] = LOGS;
    onto(open_log(p, path(p, out), access | libc::O_APPEND)?, 1)?;
    onto(open_log(p, path(p, error), access | libc::O_APPEND)?, 2)?;
    Ok(())
}

/// A service is not down for its log: the directory is made anew where somebody cleaned up, and
/// what can't be opened is replaced by nothing at all. `info` and `doctor` look for themselves.
fn open_log(p: &Prepared, log: &CStr, flags: c_int) -> Step<c_int> {
    // The directory may be the user's: by a link there root would open, and give away, what is
    // somebody else's.
    let uid = p.orders.uid();
    let directly = flags | if uid.is_some() { libc::O_NOFOLLOW } else { 0 };
    let mut opened = raw::open(log, directly, 0o600);
    if opened == Err(libc::ENOENT) && flags & libc::O_CREAT != 0 {
        let _made = raw::mkdir(path(p, LOG_DIR), 0o700);
        opened = raw::open(log, directly, 0o600);
    }
    if opened == Err(libc::ELOOP) && uid.is_some() {
        // A terminal or a pipe is as good by a link (/dev/stdout), and stays whose it is.
        opened = match raw::open(log, flags & !libc::O_CREAT, 0) {
            Ok(file) if raw::status(file, c"").1 & libc::S_IFMT == libc::S_IFREG => {
                Err(libc::ELOOP)
            }
            other => other,
        };
    } else if let (Ok(log), Some(uid)) = (opened, uid) {
        let (_, mode) = raw::status(log, c"");
        // For a program that opens /dev/stderr anew. What a link leads to may be everybody's.
        let kind = mode & libc::S_IFMT;
        if kind == libc::S_IFREG || kind == libc::S_IFIFO {
            let _given = raw::numbers(libc::SYS_fchown, [log as usize, uid as usize, usize::MAX]);
        }
    }
    let null = |_| raw::open(c"/dev/null", libc::O_WRONLY, 0);
    opened.or_else(null).map_err(|errno| (Stage::Log, errno))
}

/// Every disposition that exec would hand on becomes the default, and nothing stays blocked.
/// Ignored signals survive exec and CLONE_CLEAR_SIGHAND. By the system call, because the C library
/// refuses to touch 32 and 33, which can be inherited, too.
pub(super) fn reset_signals(all: bool) -> raw::Result<usize> {
    let [first, second] = signals::IGNORED;
    raw::default_disposition(first);
    raw::default_disposition(second);
    let mut signal = if all { 1 } else { 65 };
    while signal <= 64 {
        raw::default_disposition(signal);
        signal = signal.wrapping_add(1);
    }
    raw::unblock_signals()
}

/// As execvp(3): a file that may not be executed is remembered, and the search goes on.
fn exec(p: &Prepared) -> Step<Never> {
    let (words, env) = (p.words.pointers, p.env.pointers);
    let (mut reason, mut at) = (libc::ENOENT, 0usize);
    // SAFETY: the block is the child's alone.
    while let Some(program) = unsafe { p.programs.get(at) } {
        at = at.wrapping_add(1);
        // SAFETY: strings of the block, ended as execve(2) wants them.
        match unsafe { raw::exec(program, words.wrapping_add(1).cast_const(), env) } {
            libc::ENOENT if exists(program) => return Err((Stage::Interpreter, libc::ENOENT)),
            libc::ENOENT | libc::ENOTDIR => {}
            libc::EACCES => reason = libc::EACCES,
            libc::ENOEXEC if !is_binary(program) => {
                // SAFETY: the array has this place, where the program's own name was.
                unsafe { words.wrapping_add(1).write(program.as_ptr()) };
                // SAFETY: as above.
                if let Some(shell) = unsafe { p.words.get(0) } {
                    // SAFETY: as above.
                    let _errno = unsafe { raw::exec(shell, words, env) };
                }
                return Err((Stage::Exec, libc::ENOEXEC));
            }
            errno => return Err((Stage::Exec, errno)),
        }
    }
    Err((Stage::Exec, reason))
}

/// A program for another machine: a shell would only find syntax errors in it.
fn is_binary(program: &CStr) -> bool {
    let mut magic = [0u8; 4];
    let file = raw::open(program, libc::O_RDONLY, 0);
    let _length = file.and_then(|file| raw::read(file, &mut magic));
    u32::from_ne_bytes(magic) == u32::from_ne_bytes(*b"\x7fELF")
}

#[cfg(test)]
#[path = "../../tests/inner/sys_child.rs"]
mod tests;

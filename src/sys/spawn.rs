//! Fork, sign in, set up, exec.
//!
//! A plain fork-style clone3: vfork and posix_spawn hold the daemon's only thread until the
//! child's exec (35 ms at worst under load, for ever on a stuck file system). The child's memory
//! is its own, so it may write to what the parent prepared, but it allocates nothing: everything
//! is made before the clone, in the [arena](super::arena), for the heap is not forked.
//!
//! The child holds the home's lock (it shares the open file description until exec closes it),
//! signs its journal slot, and only then execs. So no later daemon can begin before this child
//! is on record or dead.
use super::arena::{Arena, CStrings};
use super::attributes::{self, Given, Means};
use super::exec_pipe::{self, Descriptors, ExecPipe, Low, Report};
use super::{Child, Errno, Features, Plan, Result, Stage, Streams, last_errno, namespace, signals};
use crate::process::Namespace;
use crate::process::journal_format::{SIGNATURE_BYTES, Signature};
use crate::process::mark::{MARK_VARIABLE, PID_DIGITS};
use crate::process::stat::Stat;
use crate::service::options::Exec;
use rustix::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ffi::{c_char, c_int};

/// From linux/sched.h; libc's constants are `c_int` and overflow to 0.
const CLONE_FILES: u64 = 0x400;
const CLONE_PIDFD: u64 = 0x1000;
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;

/// What runs a script that does not say what runs it, as with execvp(3).
const SHELL: &[u8] = b"/bin/sh";

/// What the child uses, all of it ready before the clone, in the arena or on the stack.
struct Prepared {
    signature: Signature,
    signature_offset: i64,
    journal: c_int,
    /// Its end of the launch pipe.
    report: c_int,
    descriptors: Descriptors,
    /// -1: there is none yet.
    listener: c_int,
    limit_mark: Option<u64>,
    given: Given,
    exec: Exec,
    programs: CStrings,
    /// The words, and [`SHELL`] before them: for a script without a first line of its own.
    words: CStrings,
    env: CStrings,
    /// Where the pid goes in the mark, as an index into `env` and into that string.
    pid_digits: Option<(usize, usize)>,
    cwd: *const c_char,
    /// Held open by the whole tree, where it is wanted.
    living: Option<*const c_char>,
    streams: Streams,
    logs: [*const c_char; 2],
    with_inode: bool,
    clear_handlers: bool,
    /// The time namespace is to be entered by hand.
    enters_namespace: bool,
    /// The parent's time namespace.
    outer_namespace: u64,
}

/// The files that execvp(3) would try for `program`.
fn candidates(arena: &mut Arena, program: &str, path: &str) -> Result<CStrings> {
    if program.contains('/') {
        return arena.strings(1, std::iter::once(program.as_bytes()));
    }
    let directories = path.split(':').map(|dir| if dir.is_empty() { "." } else { dir });
    let files: Vec<String> = directories.map(|dir| format!("{dir}/{program}")).collect();
    arena.strings(files.len(), files.iter().map(String::as_bytes))
}

/// Bytes that a plan takes in the arena, at most.
fn room_for(plan: &Plan<'_>) -> usize {
    const POINTER: usize = size_of::<*const c_char>();
    let string = |text: &str| text.len() + 1 + POINTER;
    let argv: usize = plan.argv.iter().map(|word| string(word)).sum();
    let env = plan.env.bytes.len() + plan.env.starts.len() * POINTER;
    let program = plan.argv.first().map_or(0, |program| program.len());
    let directories = plan.path.split(':').count();
    let programs = plan.path.len() + directories * (program + 2 + POINTER);
    let rest = [plan.cwd, plan.log_out, plan.log_error, plan.living.unwrap_or("")]
        .map(string)
        .iter()
        .sum::<usize>();
    argv + env
        + programs
        + string(plan.argv.first().map_or("", String::as_str))
        + rest
        + SHELL.len()
        + 16 * POINTER
}

impl Prepared {
    fn new(
        plan: &Plan<'_>,
        arena: &mut Arena,
        report: &Report,
        parent: Parent<'_>,
    ) -> Result<Self> {
        let program = plan.argv.first().ok_or(Errno::INVAL)?;
        arena.begin(room_for(plan))?;
        let is_mark = |entry: &[u8]| {
            let rest = entry.strip_prefix(MARK_VARIABLE.as_bytes());
            rest.is_some_and(|rest| rest.starts_with(b"="))
        };
        let mark = plan.env.iter().enumerate().find(|(_, entry)| is_mark(entry));
        Ok(Self {
            signature: plan.signature,
            signature_offset: i64::try_from(plan.signature_offset).map_err(|_| Errno::FBIG)?,
            journal: parent.journal.as_raw_fd(),
            report: report.number,
            descriptors: report.descriptors,
            listener: parent.listener,
            limit_mark: plan.limit_mark,
            given: parent.means.given(plan.attributes),
            exec: plan.exec,
            programs: candidates(arena, program, plan.path)?,
            words: arena.strings(
                plan.argv.len() + 1,
                std::iter::once(SHELL).chain(plan.argv.iter().map(String::as_bytes)),
            )?,
            env: arena.strings(plan.env.starts.len(), plan.env.iter())?,
            pid_digits: mark.map(|(at, entry)| (at, entry.len().saturating_sub(PID_DIGITS))),
            cwd: arena.string(&[plan.cwd.as_bytes()])?,
            living: plan.living.map(|path| arena.string(&[path.as_bytes()])).transpose()?,
            streams: plan.streams,
            logs: [
                arena.string(&[plan.log_out.as_bytes()])?,
                arena.string(&[plan.log_error.as_bytes()])?,
            ],
            with_inode: parent.features.pidfd_inode,
            clear_handlers: !parent.features.clone3,
            enters_namespace: parent.features.time_namespace,
            outer_namespace: parent.time_namespace,
        })
    }
}

/// What of this process a spawn needs.
#[derive(Clone, Copy, Debug)]
pub struct Parent<'a> {
    pub journal: &'a OwnedFd,
    /// -1: there is none yet.
    pub listener: c_int,
    /// None where no descriptors can be shared.
    pub low: Option<&'a Low>,
    /// It has many descriptors.
    pub many: bool,
    pub means: &'a Means,
    pub features: Features,
    /// The inode of its time namespace.
    pub time_namespace: u64,
}

/// Forks the child of `plan`.
///
/// # Errors
/// What pipe2(2) and clone3(2) say: EMFILE, ENFILE, EAGAIN, ENOMEM; EINVAL for a NUL byte.
pub fn spawn(
    plan: &Plan<'_>,
    arena: &mut Arena,
    parent: Parent<'_>,
) -> Result<Child<OwnedFd, Box<ExecPipe>>> {
    let shares =
        parent.many && parent.features.clone3 && exec_pipe::is_low(parent.journal.as_raw_fd());
    let (launch, report) = exec_pipe::pipe(parent.low, shares)?;
    let mut prepared = Prepared::new(plan, arena, &report, parent)?;
    arena.keep_heap();
    let (pid, pidfd) =
        if parent.features.clone3 { clone3(&mut prepared)? } else { fork(&mut prepared)? };
    let launch = Box::new(launch);
    Ok(Child { pid, pidfd, launch })
}

fn clone3(prepared: &mut Prepared) -> Result<(i32, OwnedFd)> {
    let mut pidfd: c_int = -1;
    // SAFETY: clone_args is a plain C struct of integers, for which zero is valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = CLONE_PIDFD | CLONE_CLEAR_SIGHAND;
    if prepared.descriptors == Descriptors::Shared {
        args.flags |= CLONE_FILES;
    }
    args.pidfd = std::ptr::from_mut(&mut pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if std::mem::take(&mut prepared.enters_namespace) {
        args.flags |= namespace::CLONE_NEWTIME;
    }
    let size = size_of::<libc::clone_args>();
    // SAFETY: without CLONE_VM the child has a copy of this thread's memory and stack, like
    // fork(2); the process has one thread, so no lock is held by another. `args` and `pidfd`
    // outlive the call.
    let mut pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size) };
    let refused = pid == -1 && args.flags & namespace::CLONE_NEWTIME != 0;
    if refused && matches!(last_errno(), Errno::INVAL | Errno::NOSPC) {
        // Before 6.3 the flag is none of clone3's. No space: so many namespaces are not allowed
        // (user.max_time_namespaces), and then marks have to do.
        prepared.enters_namespace = last_errno() == Errno::INVAL;
        args.flags &= !namespace::CLONE_NEWTIME;
        // SAFETY: as above.
        pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size) };
    }
    match pid {
        -1 => Err(last_errno()),
        0 => child(prepared),
        pid => {
            let pid = i32::try_from(pid).map_err(|_| Errno::RANGE)?;
            // SAFETY: CLONE_PIDFD stored a new descriptor that nothing else owns.
            Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
        }
    }
}

/// For kernels (and seccomp filters) without clone3. The pid can't be reused before the pidfd is
/// open: nobody but us reaps the child.
fn fork(prepared: &mut Prepared) -> Result<(i32, OwnedFd)> {
    // SAFETY: the process has one thread; the child runs only `child`, which does not allocate.
    match unsafe { libc::fork() } {
        -1 => Err(last_errno()),
        0 => child(prepared),
        pid => match super::pidfd::open(pid) {
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

fn check(result: c_int, stage: Stage) -> std::result::Result<c_int, (Stage, c_int)> {
    if result == -1 {
        // SAFETY: errno's location is always valid.
        return Err((stage, unsafe { *libc::__errno_location() }));
    }
    Ok(result)
}

/// The child's whole life before its program. Async-signal-safe calls only.
fn child(prepared: &mut Prepared) -> ! {
    let (stage, errno) = match prepare_and_exec(prepared) {
        Err(failure) => failure,
        Ok(never) => match never {},
    };
    exec_pipe::report(prepared.report, stage, errno);
    // SAFETY: _exit is async-signal-safe and runs no destructor of the parent's.
    unsafe { libc::_exit(127) }
}

enum Never {}

fn prepare_and_exec(p: &mut Prepared) -> std::result::Result<Never, (Stage, c_int)> {
    let own = exec_pipe::own_descriptors(p.descriptors, p.report);
    p.report = own.map_err(|errno| (Stage::Setup, errno.raw_os_error()))?;
    if p.descriptors == Descriptors::Copied {
        // SAFETY: a copy of the listener's number, which nothing uses here. EBADF does no harm.
        unsafe { libc::close(p.listener) };
    }
    // SAFETY: setsid has no memory arguments.
    check(unsafe { libc::setsid() }, Stage::Setup)?;
    if p.enters_namespace {
        namespace::enter_new();
    }
    sign_in(p)?;
    set_mark(p)?;
    // SAFETY: cwd is NUL-terminated.
    check(unsafe { libc::chdir(p.cwd) }, Stage::Directory)?;
    open_streams(p)?;
    attributes::apply(&p.exec)?;
    attributes::give(&p.given);
    reset_signals(p.clear_handlers)?;
    exec(p)
}

/// As execvp(3): a file that may not be executed is remembered, and the search goes on.
fn exec(p: &Prepared) -> std::result::Result<Never, (Stage, c_int)> {
    let argv = p.words.pointers.wrapping_add(1);
    let mut reason = (Stage::Exec, libc::ENOENT);
    for at in 0..p.programs.count {
        // SAFETY: the array has `count` strings.
        let program = unsafe { *p.programs.pointers.add(at) };
        // SAFETY: program, argv and envp are NUL-terminated, the arrays end in NULL.
        unsafe { libc::execve(program, argv, p.env.pointers) };
        // SAFETY: errno's location is always valid.
        match unsafe { *libc::__errno_location() } {
            libc::ENOENT if is_there(program) => {
                return Err((Stage::Interpreter, libc::ENOENT));
            }
            libc::ENOENT | libc::ENOTDIR => {}
            libc::EACCES => reason.1 = libc::EACCES,
            libc::ENOEXEC if !is_binary(program) => {
                // SAFETY: the array is in our own copy of the arena, and has this place.
                unsafe { p.words.pointers.cast_mut().add(1).write(program) };
                // SAFETY: as above; the first string is the shell's path.
                unsafe { libc::execve(*p.words.pointers, p.words.pointers, p.env.pointers) };
                return Err((Stage::Exec, libc::ENOEXEC));
            }
            errno => return Err((Stage::Exec, errno)),
        }
    }
    Err(reason)
}

fn is_there(program: *const c_char) -> bool {
    // SAFETY: the path is NUL-terminated.
    unsafe { libc::access(program, libc::F_OK) == 0 }
}

/// A program for another machine: a shell would only find syntax errors in it.
fn is_binary(program: *const c_char) -> bool {
    let mut magic = [0u8; 4];
    // SAFETY: the path is NUL-terminated.
    let fd = unsafe { libc::open(program, libc::O_RDONLY | libc::O_CLOEXEC) };
    // SAFETY: reads at most the buffer's length into it; EBADF does no harm.
    unsafe { libc::read(fd, magic.as_mut_ptr().cast(), magic.len()) };
    magic == *b"\x7fELF"
}

/// Where programs don't look for descriptors, and shells don't put theirs.
const LIVING_FD_MIN: c_int = 100;

fn open_streams(p: &Prepared) -> std::result::Result<(), (Stage, c_int)> {
    if let Some(living) = p.living {
        // SAFETY: the path is NUL-terminated.
        let fd = unsafe { libc::open(living, libc::O_RDWR | libc::O_CLOEXEC) };
        // Without it the tree can only not be seen from another PID namespace.
        // SAFETY: plain descriptors; the copy is not close-on-exec. EBADF does no harm.
        unsafe { libc::fcntl(fd, libc::F_DUPFD, LIVING_FD_MIN) };
    }
    let access = match p.streams {
        Streams::Inherited => return Ok(()),
        Streams::Files => libc::O_WRONLY | libc::O_CREAT,
        // Read and write: it never waits for a reader, and outlives the loss of one.
        Streams::Fifos => libc::O_RDWR,
    };
    // SAFETY: the path is a NUL-terminated literal.
    let null = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    // Several can't share one input; a root without /dev/null leaves it as it is.
    if null != -1 {
        // SAFETY: plain descriptors; dup2 clears close-on-exec on the copy.
        check(unsafe { libc::dup2(null, 0) }, Stage::Setup)?;
    }
    for (log, onto) in p.logs.into_iter().zip([1, 2]) {
        let fd = open_log(log, access | libc::O_APPEND | libc::O_CLOEXEC)?;
        // SAFETY: plain descriptors; dup2 clears close-on-exec on the copy.
        check(unsafe { libc::dup2(fd, onto) }, Stage::Setup)?;
    }
    Ok(())
}

/// A service is not down for its log: the directory is made anew where somebody cleaned up, and
/// what can't be opened is replaced by nothing at all. `info` and `doctor` look for themselves.
fn open_log(log: *const c_char, flags: c_int) -> std::result::Result<c_int, (Stage, c_int)> {
    let mode: libc::mode_t = 0o600;
    // SAFETY: the path is NUL-terminated.
    let fd = unsafe { libc::open(log, flags, mode) };
    if fd != -1 {
        return Ok(fd);
    }
    // SAFETY: errno's location is always valid.
    let is_missing = unsafe { *libc::__errno_location() } == libc::ENOENT;
    if is_missing && flags & libc::O_CREAT != 0 {
        // SAFETY: the path is NUL-terminated.
        let slash = unsafe { libc::strrchr(log, c_int::from(b'/')) };
        if !slash.is_null() {
            // SAFETY: within the path, which lies in the arena: this process's own copy.
            unsafe { slash.write(0) };
            // SAFETY: the path ends at the NUL that was its last slash.
            unsafe { libc::mkdir(log, 0o700) };
            // SAFETY: as above.
            unsafe { slash.write(b'/'.cast_signed()) };
        }
        // SAFETY: the path is NUL-terminated.
        let fd = unsafe { libc::open(log, flags, mode) };
        if fd != -1 {
            return Ok(fd);
        }
    }
    // SAFETY: the path is a NUL-terminated literal.
    check(
        unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC) },
        Stage::Log,
    )
}

/// Puts this process on record, and its pid into its environment's mark.
fn sign_in(p: &mut Prepared) -> std::result::Result<(), (Stage, c_int)> {
    // SAFETY: getpid can't fail.
    let pid = unsafe { libc::getpid() };
    p.signature.leader.pid = pid;
    p.signature.leader.start_time = own_start_time();
    if p.with_inode {
        p.signature.leader.inode = own_inode(pid);
    }
    if p.outer_namespace != 0 {
        let own = namespace::of_self();
        let is_own = own.inode != p.outer_namespace;
        p.signature.namespace = if is_own { own } else { Namespace::default() };
    }
    if let Some((at, start)) = p.pid_digits {
        // SAFETY: the array has the mark at this index.
        let mark = unsafe { *p.env.pointers.add(at) }.cast_mut().cast::<u8>();
        let mut rest = pid.unsigned_abs();
        for place in (0..PID_DIGITS).rev() {
            // SAFETY: the string ends in PID_DIGITS digits from `start` on, in our own arena.
            unsafe { mark.add(start + place).write(b'0' + (rest % 10) as u8) };
            rest /= 10;
        }
    }
    let bytes = p.signature.encode();
    // SAFETY: the buffer has SIGNATURE_BYTES bytes.
    let wrote = unsafe {
        libc::pwrite(p.journal, bytes.as_ptr().cast(), SIGNATURE_BYTES, p.signature_offset)
    };
    match wrote {
        -1 => check(-1, Stage::Sign).map(|_| ()),
        n if n == SIGNATURE_BYTES as isize => Ok(()),
        _ => Err((Stage::Sign, libc::ENOSPC)),
    }
}

/// From /proc/self/stat; 0 without /proc.
fn own_start_time() -> u64 {
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    // SAFETY: the path is a NUL-terminated literal.
    let fd = unsafe { libc::open(c"/proc/self/stat".as_ptr(), flags) };
    if fd == -1 {
        return 0;
    }
    let mut text = [0u8; 1024];
    // SAFETY: reads at most the buffer's length into it.
    let length = unsafe { libc::read(fd, text.as_mut_ptr().cast(), text.len()) };
    // SAFETY: fd was opened above and is closed once.
    unsafe { libc::close(fd) };
    let length = usize::try_from(length).unwrap_or(0);
    text.get(..length).and_then(Stat::parse).map_or(0, |stat| stat.start_time)
}

fn own_inode(pid: i32) -> u64 {
    // SAFETY: pidfd_open has no memory arguments.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let Ok(fd) = c_int::try_from(fd) else {
        return 0;
    };
    if fd == -1 {
        return 0;
    }
    // SAFETY: stat is a plain C struct, for which zero is valid.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: fd is open and `stat` is writable.
    let result = unsafe { libc::fstat(fd, &raw mut stat) };
    // SAFETY: fd was opened above and is closed once.
    unsafe { libc::close(fd) };
    if result == 0 { stat.st_ino } else { 0 }
}

fn set_mark(p: &Prepared) -> std::result::Result<(), (Stage, c_int)> {
    let Some(value) = p.limit_mark else {
        return Ok(());
    };
    let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
    // SAFETY: reads the limit from a valid struct.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_LOCKS, &raw const limit) };
    check(set, Stage::Setup).map(|_| ())
}

/// Every disposition that exec would hand on becomes the default, and nothing stays blocked.
/// Ignored signals survive exec and CLONE_CLEAR_SIGHAND.
fn reset_signals(all: bool) -> std::result::Result<(), (Stage, c_int)> {
    for signal in signals::IGNORED {
        // SAFETY: sets a default disposition.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    if all {
        for signal in 1..=64 {
            // SAFETY: sets a default disposition; EINVAL for KILL, STOP and libc's own is fine.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }
    // SAFETY: sigset_t is a plain C struct, for which zero is valid (and empty on Linux).
    let empty: libc::sigset_t = unsafe { std::mem::zeroed() };
    let null = std::ptr::null_mut();
    // SAFETY: `empty` is a valid set.
    let set = unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const empty, null) };
    check(set, Stage::Setup)?;
    Ok(())
}

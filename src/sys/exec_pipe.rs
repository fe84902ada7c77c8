//! The launch pipe: how a child tells how far it got; and which descriptors it has until then.
//!
//! A forked child gets a copy of every descriptor, and its exec closes every copy: with a pidfd
//! for each of 1,000 services that was an eighth of a spawn. So beside many the child is cloned
//! with CLONE_FILES, and its first act is to leave the daemon's table with a copy of the lowest
//! descriptors alone (close_range(2), CLOSE_RANGE_UNSHARE): standard streams, lock, journal and
//! its end of this pipe. Until it has said that it left, that end is the daemon's too, and must
//! stay open at its number. So it lies in a [`Slot`].
//!
//! However it is cloned, a child closes all but the lowest descriptors before anything that may
//! hang (a log on a FIFO, a directory on a dead file system): listener and clients are not among
//! those, else commands would connect to a daemon that is dead, and wait for its answer.
use super::{Errno, Launch, Result, Stage, last_errno};
use rustix::event::EventfdFlags;
use rustix::fd::{AsRawFd, OwnedFd, RawFd};
use rustix::pipe::PipeFlags;
use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_uint};
use std::rc::Rc;

/// Slots: as many as launches in a turn of the loop.
const SLOTS: RawFd = 32;
/// The first of them. Lower are the descriptors that the daemon opened first of all; and with all
/// below 64 a child's table needs no memory of its own (NR_OPEN_DEFAULT of linux/fdtable.h).
const FIRST: RawFd = 24;
const LAST: RawFd = FIRST + SLOTS - 1;
/// Where a child has its own end once it has left.
const OWN: RawFd = FIRST - 1;
/// So many descriptors cost more than it costs to share them and to leave.
pub const MANY: usize = 64;
/// With a lower limit of descriptors there are never enough to make sharing worth it.
const LIMIT_MIN: u64 = 512;
/// The table is made for so many from the start (32 KB of the kernel's): to enlarge one that is
/// shared, the kernel waits for a grace period of RCU, milliseconds (expand_fdtable()).
const TABLE: u64 = 4096;
/// A report of a failure: its stage and its errno.
const REPORT_BYTES: usize = 8;
/// What a child says when it has left.
const LEFT: [u8; 1] = [0];

/// The lowest numbers, kept for slots.
#[derive(Debug)]
pub struct Low(Rc<Slots>, Vec<OwnedFd>);

#[derive(Debug)]
struct Slots {
    /// What lies in a slot that is free.
    filler: OwnedFd,
    /// [`OWN`], and the slots.
    numbers: Vec<OwnedFd>,
    /// A bit for each that is taken.
    taken: Cell<u32>,
}

/// Where a child's end lies while the child may share our table.
#[derive(Debug)]
struct Slot {
    slots: Rc<Slots>,
    at: u32,
}

/// The descriptors of a child between its clone and its exec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descriptors {
    /// A copy of all, where no numbers are kept.
    Copied,
    /// A copy of all; the lowest are what it needs.
    CopiedWithLow,
    /// Ours, until it leaves.
    Shared,
}

/// Our end of a launch pipe, and the child's as long as that may be ours too.
#[derive(Debug)]
pub struct ExecPipe {
    pipe: OwnedFd,
    slot: RefCell<Option<Slot>>,
}

/// The child's end. Ours is to be dropped after the clone; but not a slot.
#[derive(Debug)]
pub struct Report {
    pub number: RawFd,
    pub descriptors: Descriptors,
    _ours: Option<OwnedFd>,
}

/// A pipe for one launch. `shares`: the child may share our descriptors.
///
/// # Errors
/// EMFILE, ENFILE.
pub fn pipe(low: Option<&Low>, shares: bool) -> Result<(ExecPipe, Report)> {
    let (pipe, report) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    let slot = low.filter(|_| shares).and_then(|low| low.take(&report));
    let report = match &slot {
        Some(slot) => {
            Report { number: slot.as_raw_fd(), descriptors: Descriptors::Shared, _ours: None }
        }
        None => Report {
            number: report.as_raw_fd(),
            descriptors: low.map_or(Descriptors::Copied, |_| Descriptors::CopiedWithLow),
            _ours: Some(report),
        },
    };
    let slot = RefCell::new(slot);
    Ok((ExecPipe { pipe, slot }, report))
}

impl Low {
    /// Takes the numbers of the slots. `held`: what a child must have until its exec.
    ///
    /// # Errors
    /// EMFILE, ENFILE; also where so many could not be spared. ENOSYS, EPERM: no close_range(2),
    /// for a seccomp filter. EBUSY: the numbers are taken, or something held is not below them.
    pub fn reserve(held: &[RawFd]) -> Result<Self> {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let limit = limit.unwrap_or(TABLE);
        if limit < LIMIT_MIN {
            return Err(Errno::MFILE);
        }
        // Above the last descriptor there is nothing to close.
        close_range(RawFd::MAX.cast_unsigned(), c_uint::MAX, 0)?;
        let filler = rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?;
        let last = RawFd::try_from(limit.min(TABLE) - 1).map_err(|_| Errno::MFILE)?;
        drop(rustix::io::fcntl_dupfd_cloexec(&filler, last)?);
        let numbers = (OWN..=LAST).map(|number| rustix::io::fcntl_dupfd_cloexec(&filler, number));
        let numbers: Vec<OwnedFd> = numbers.collect::<Result<_>>()?;
        let is_ours = numbers.iter().map(AsRawFd::as_raw_fd).eq(OWN..=LAST);
        if !is_ours || !held.iter().all(|number| is_low(*number)) {
            return Err(Errno::BUSY);
        }
        Ok(Self(Rc::new(Slots { filler, numbers, taken: Cell::new(0) }), Vec::new()))
    }

    /// Puts a child's end into a slot that is free.
    fn take(&self, report: &OwnedFd) -> Option<Slot> {
        let taken = self.0.taken.get();
        let at = taken.trailing_ones();
        put(report, self.0.number(at)?).ok()?;
        self.0.taken.set(taken | 1 << at);
        let slots = self.0.clone();
        Some(Slot { slots, at })
    }

    /// From now on nothing that we open gets a number that children keep. What can't be filled
    /// is kept by them a little longer.
    pub fn fill(&mut self) {
        while let Ok(number) = rustix::io::fcntl_dupfd_cloexec(&self.0.filler, 3)
            && is_low(number.as_raw_fd())
        {
            self.1.push(number);
        }
    }
}

/// Moves a descriptor to where children do not keep it, if there is room.
pub fn move_up(fd: OwnedFd) -> OwnedFd {
    rustix::io::fcntl_dupfd_cloexec(&fd, LAST + 1).unwrap_or(fd)
}

/// Whether a child keeps this descriptor until its exec.
pub fn is_low(number: RawFd) -> bool {
    number < OWN
}

impl Slots {
    fn number(&self, at: u32) -> Option<&OwnedFd> {
        self.numbers.get(at as usize + 1)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // One that could not be emptied is not used again.
        let number = self.slots.number(self.at);
        if number.is_some_and(|number| put(&self.slots.filler, number).is_ok()) {
            let taken = &self.slots.taken;
            taken.set(taken.get() & !(1 << self.at));
        }
    }
}

impl AsRawFd for Slot {
    fn as_raw_fd(&self) -> RawFd {
        FIRST + self.at.cast_signed()
    }
}

/// Makes `number` refer to what `from` does, and to nothing that it did before.
fn put(from: &OwnedFd, number: &OwnedFd) -> Result<()> {
    dup3(from.as_raw_fd(), number.as_raw_fd())
}

fn dup3(from: RawFd, to: RawFd) -> Result<()> {
    // SAFETY: `to` is a number that is ours to use: a slot, which only its `Slot` refers to.
    if unsafe { libc::dup3(from, to, libc::O_CLOEXEC) } == -1 {
        return Err(last_errno());
    }
    Ok(())
}

fn close_range(first: c_uint, last: c_uint, flags: c_uint) -> Result<()> {
    // SAFETY: closes nothing that is in use: unshared, in a child's table, or above all numbers.
    if unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) } == -1 {
        return Err(last_errno());
    }
    Ok(())
}

/// In the child, first of all: makes its descriptors its own. `report` is its end of the pipe;
/// gives where that is afterwards. Async-signal-safe.
///
/// # Errors
/// ENOMEM, EMFILE: then it is where it was.
pub fn own_descriptors(descriptors: Descriptors, report: RawFd) -> Result<RawFd> {
    let (first, last) = (FIRST.cast_unsigned(), LAST.cast_unsigned());
    match descriptors {
        Descriptors::Copied => Ok(report),
        Descriptors::CopiedWithLow => {
            dup3(report, OWN)?;
            close_range(first, c_uint::MAX, 0)?;
            Ok(OWN)
        }
        Descriptors::Shared => {
            close_range(last + 1, c_uint::MAX, libc::CLOSE_RANGE_UNSHARE)?;
            dup3(report, OWN)?;
            close_range(first, last, 0)?;
            say(OWN, &LEFT);
            Ok(OWN)
        }
    }
}

/// In the child, last of all: why nothing is exec'd. Async-signal-safe.
pub fn report(report: RawFd, stage: Stage, errno: c_int) {
    let mut bytes = [0; REPORT_BYTES];
    bytes[..4].copy_from_slice(&number_of(stage).to_le_bytes());
    bytes[4..].copy_from_slice(&errno.to_le_bytes());
    say(report, &bytes);
}

/// A pipe takes so few bytes whole or not at all.
fn say(report: RawFd, bytes: &[u8]) {
    // SAFETY: reads as many bytes as the slice has.
    unsafe { libc::write(report, bytes.as_ptr().cast(), bytes.len()) };
}

impl ExecPipe {
    /// Looks without waiting. End of file: close-on-exec closed the child's end, or the child was
    /// killed, which its stat tells.
    pub fn look(&self) -> Launch {
        let mut bytes = [0; LEFT.len() + REPORT_BYTES];
        loop {
            let report = match rustix::io::read(&self.pipe, &mut bytes) {
                Ok(0) => return Launch::Done,
                Ok(REPORT_BYTES) => &bytes[..REPORT_BYTES],
                Ok(read) => {
                    self.slot.replace(None);
                    &bytes[LEFT.len()..read]
                }
                Err(_) => return Launch::Pending,
            };
            if let Some((stage, errno)) = report.split_at_checked(REPORT_BYTES / 2) {
                let word = |bytes: &[u8]| <[u8; 4]>::try_from(bytes).map_or(0, u32::from_le_bytes);
                let errno = Errno::from_raw_os_error(word(errno).cast_signed());
                return Launch::Failed(stage_of(word(stage)), errno);
            }
        }
    }
}

impl AsRawFd for ExecPipe {
    fn as_raw_fd(&self) -> RawFd {
        self.pipe.as_raw_fd()
    }
}

/// Stages by their number on the pipe; above them come the options of the table.
const STAGES: [Stage; 7] = [
    Stage::Fork,
    Stage::Sign,
    Stage::Setup,
    Stage::Directory,
    Stage::Log,
    Stage::Exec,
    Stage::Interpreter,
];
const FIRST_OPTION: u32 = 16;

fn number_of(stage: Stage) -> u32 {
    match stage {
        Stage::Option(at) => FIRST_OPTION + u32::from(at),
        stage => STAGES.iter().position(|known| *known == stage).unwrap_or_default() as u32,
    }
}

fn stage_of(number: u32) -> Stage {
    match number.checked_sub(FIRST_OPTION) {
        Some(at) => Stage::Option(at.try_into().unwrap_or(u8::MAX)),
        None => STAGES.get(number as usize).copied().unwrap_or(Stage::Exec),
    }
}

//! Reading what another process's memory holds (`environ`, `cmdline` of /proc), with a bound.
//!
//! The kernel takes that process's mmap_lock for it, and whoever sleeps in mmap(2) on a file
//! system that does not answer holds the lock for ever. Only a fatal signal ends the wait
//! (mmap_read_lock_killable()), so that it can't be the daemon's only thread that waits: a child
//! reads, and is killed when it takes too long.
use super::block::{Block, CStrings};
use super::writer::is_ready;
use super::{Errno, Reach, Result, Strings, pidfd, raw, spawn};
use rustix::event::PollFlags;
use rustix::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use rustix::pipe::PipeFlags;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use std::ffi::c_int;
use std::time::{Duration, Instant};

/// What is an answer's time on a busy machine; a process that takes longer is mute.
const PATIENCE: Duration = Duration::from_millis(250);

/// What the child reads, and where it puts that.
#[derive(Clone, Copy)]
struct Order {
    path: CStrings,
    pipe: RawFd,
}

/// Reads a file of /proc whole. Errors: what open(2) and read(2) say; ETIMEDOUT: it did not answer.
/// EAGAIN, ENOMEM, EMFILE: no child.
pub fn read(path: &str) -> Result<Vec<u8>> {
    let mut paths = Strings::default();
    paths.push(&[path]);
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let mut block = Block::map(Block::room_for(&[&paths]))?;
    let order = Order { path: block.strings(&paths)?, pipe: writer.as_raw_fd() };
    let order = block.put(order)?;
    // SAFETY: `copy` keeps the rules of `raw`, and the order lies in the block.
    let (_, child) = unsafe { spawn::clone_or_fork(&block, copy, order, spawn::Shares::Memory) }?;
    drop(writer);
    let mut bytes = Vec::new();
    let ended = drain(&reader, &mut bytes);
    if ended.is_err() {
        pidfd::signal(&child, libc::SIGKILL, Reach::Process).ok();
    }
    let status = loop {
        match waitid(WaitId::PidFd(child.as_fd()), WaitIdOptions::EXITED) {
            Err(Errno::INTR) => {}
            status => break status?,
        }
    };
    ended?;
    match status.and_then(|status| status.exit_status()) {
        Some(0) => Ok(bytes),
        Some(errno) => Err(Errno::from_raw_os_error(errno)),
        None => Err(Errno::TIMEDOUT),
    }
}

fn drain(reader: &OwnedFd, bytes: &mut Vec<u8>) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if !is_ready(reader, PollFlags::IN, left.as_millis() as u64)? {
            return Err(Errno::TIMEDOUT);
        }
        bytes.reserve(4096);
        match rustix::io::read(reader, rustix::buffer::spare_capacity(bytes)) {
            Ok(0) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// The child: the file into the pipe, by the rules of [`raw`]. It keeps none of the daemon's
/// descriptors, above all not the home's lock, and does not outlive the daemon. What fails ends
/// it with its errno, which is below 256 on every Linux.
extern "C" fn copy(order: *mut Order) -> ! {
    // SAFETY: it lies in the block, which is the child's alone until its end.
    let order = unsafe { &*order };
    let _set = raw::prctl([libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0]);
    let _onto = raw::dup_onto(order.pipe, 0);
    let _closed = raw::numbers(libc::SYS_close_range, [1, u32::MAX as usize, 0]);
    raw::exit(copy_file(order).err().unwrap_or(0))
}

fn copy_file(order: &Order) -> raw::Result<()> {
    let mut buffer = [0u8; 4096];
    // SAFETY: the block is the child's alone.
    let path = unsafe { order.path.get(0) }.unwrap_or(c"");
    let file: c_int = raw::open(path, libc::O_RDONLY, 0)?;
    loop {
        let length = raw::read(file, &mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        raw::write(0, buffer.get(..length).unwrap_or(&[]))?;
    }
}

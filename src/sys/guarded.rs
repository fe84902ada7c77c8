//! Reading what another process's memory holds (`environ`, `cmdline` of /proc), with a bound.
//!
//! The kernel takes that process's mmap_lock for it, and whoever sleeps in mmap(2) on a file
//! system that does not answer holds the lock for ever. Only a fatal signal ends the wait
//! (mmap_read_lock_killable()), so that it can't be the daemon's only thread that waits: a child
//! reads, and is killed when it takes too long.
use super::{Errno, Result, last_errno};
use rustix::event::{PollFd, PollFlags};
use rustix::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use rustix::pipe::PipeFlags;
use std::ffi::c_int;
use std::time::{Duration, Instant};

/// What is an answer's time on a busy machine; a process that takes longer is mute.
const PATIENCE: Duration = Duration::from_millis(250);
/// Longer than any path of /proc that is read here.
const PATH_BYTES: usize = 64;

/// Reads a file of /proc whole.
///
/// # Errors
/// What open(2) and read(2) say; ETIMEDOUT: it did not answer. EAGAIN, ENOMEM, EMFILE: no child.
pub fn read(path: &str) -> Result<Vec<u8>> {
    // On the stack: the heap is not forked (see `arena`).
    let mut name = [0u8; PATH_BYTES];
    let room = name.get_mut(..path.len()).filter(|_| path.len() < PATH_BYTES);
    room.ok_or(Errno::NAMETOOLONG)?.copy_from_slice(path.as_bytes());
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    // SAFETY: the process has one thread; the child makes raw calls on this frame's memory alone,
    // and ends with _exit.
    let child = match unsafe { libc::fork() } {
        -1 => return Err(last_errno()),
        0 => copy_and_exit(&name, writer.as_raw_fd()),
        child => child,
    };
    drop(writer);
    let mut bytes = Vec::new();
    let ended = drain(&reader, &mut bytes);
    if ended.is_err() {
        // SAFETY: our own child, which nobody but us reaps.
        unsafe { libc::kill(child, libc::SIGKILL) };
    }
    let mut status: c_int = 0;
    // SAFETY: the same child; `status` is writable.
    while unsafe { libc::waitpid(child, &raw mut status, 0) } == -1 && last_errno() == Errno::INTR {
    }
    ended?;
    match libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)) {
        Some(0) => Ok(bytes),
        Some(errno) => Err(Errno::from_raw_os_error(errno)),
        None => Err(Errno::TIMEDOUT),
    }
}

fn drain(reader: &OwnedFd, bytes: &mut Vec<u8>) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let wait = rustix::time::Timespec { tv_sec: 0, tv_nsec: i64::from(left.subsec_nanos()) };
        let mut fds = [PollFd::from_borrowed_fd(reader.as_fd(), PollFlags::IN)];
        match rustix::event::poll(&mut fds, Some(&wait)) {
            Ok(0) => return Err(Errno::TIMEDOUT),
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno),
        }
        bytes.reserve(4096);
        match rustix::io::read(reader, rustix::buffer::spare_capacity(bytes)) {
            Ok(0) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// The child: the file into the pipe. It keeps none of the daemon's descriptors, above all not the
/// home's lock, and does not outlive the daemon.
fn copy_and_exit(path: &[u8; PATH_BYTES], pipe: RawFd) -> ! {
    let mut buffer = [0u8; 4096];
    // SAFETY: raw calls on numbers and on this frame's memory; `path` ends in a NUL. What fails
    // ends the process with its errno, which is below 256 on every Linux.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::dup2(pipe, 0);
        libc::syscall(libc::SYS_close_range, 1u32, u32::MAX, 0u32);
        let fd = libc::open(path.as_ptr().cast(), libc::O_RDONLY);
        if fd == -1 {
            libc::_exit(*libc::__errno_location());
        }
        loop {
            let length = libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len());
            let Ok(length) = usize::try_from(length) else {
                libc::_exit(*libc::__errno_location());
            };
            if length == 0 {
                libc::_exit(0);
            }
            if libc::write(0, buffer.as_ptr().cast(), length) == -1 {
                libc::_exit(libc::EPIPE);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_answers_is_read_whole_and_what_is_missing_says_so() {
        let own = std::fs::read("/proc/self/environ").unwrap();
        let pid = std::process::id();
        assert_eq!(read(&format!("/proc/{pid}/environ")), Ok(own));
        assert_eq!(read("/proc/0/environ"), Err(Errno::NOENT));
    }
}

//! Asking another program for one line, as a command does before an upgrade.
//!
//! The standard library can start any program in any way; this starts one in one way, without
//! a shell, in a twentieth of the code. Never leaves the child behind.
use super::last_errno;
use super::{Errno, Result};
use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// Between two looks at whether the child has ended.
const LOOK: Duration = Duration::from_millis(2);
/// What an answer may be long. More of it is not read.
const ANSWER_BYTES_MAX: usize = 4096;

/// What `program`, called with `words` (the name it goes by first), writes to stdout, if it
/// ends with exit code 0. `None`: it fails, or does not end within `most`, and then is killed.
///
/// # Errors
/// What the kernel says about the program's file, the pipe or the fork.
pub fn output_of(program: &str, words: &[&str], most: Duration) -> Result<Option<String>> {
    rustix::fs::access(program, rustix::fs::Access::EXEC_OK)?;
    let c_string = |text: &str| CString::new(text).map_err(|_| Errno::INVAL);
    let program = c_string(program)?;
    let words: Vec<CString> = words.iter().map(|w| c_string(w)).collect::<Result<_>>()?;
    let mut argv: Vec<_> = words.iter().map(|word| word.as_ptr()).collect();
    argv.push(std::ptr::null());
    let null = rustix::fs::open(
        "/dev/null",
        rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let (silence, answer) = (null.as_raw_fd(), writer.as_raw_fd());
    // SAFETY: the command has one thread, and the child calls only what signal-safety(7) lists,
    // on memory that was made before the fork, then execs or `_exit`s.
    let child = unsafe { libc::fork() };
    if child < 0 {
        return Err(last_errno());
    }
    if child == 0 {
        // SAFETY: as above; `argv` ends with a null pointer, and its words live in this frame.
        unsafe {
            libc::dup2(silence, 0);
            libc::dup2(answer, 1);
            libc::dup2(silence, 2);
            libc::execv(program.as_ptr(), argv.as_ptr());
            libc::_exit(127);
        }
    }
    drop(writer);
    if wait(child, most) != Some(0) {
        return Ok(None);
    }
    // It has ended: what it wrote is in the pipe. Something that it left behind may hold the
    // other end, so there is one read and none for the end.
    let mut bytes = [0; ANSWER_BYTES_MAX];
    let length = File::from(reader).read(&mut bytes).unwrap_or(0);
    Ok(Some(String::from_utf8_lossy(&bytes[..length]).into_owned()))
}

/// The raw status of `child` if it ends within `most`. It is reaped either way.
fn wait(child: libc::pid_t, most: Duration) -> Option<libc::c_int> {
    let began = Instant::now();
    let mut status = 0;
    let mut flags = libc::WNOHANG;
    loop {
        // SAFETY: `status` is writable, and `child` is ours until it is reaped here.
        let found = unsafe { libc::waitpid(child, &raw mut status, flags) };
        if found == child {
            return (flags == libc::WNOHANG).then_some(status);
        }
        if found < 0 && last_errno() != Errno::INTR {
            return None;
        }
        if began.elapsed() > most && flags != 0 {
            // SAFETY: a child that isn't reaped keeps its pid.
            unsafe { libc::kill(child, libc::SIGKILL) };
            flags = 0;
        } else if flags != 0 {
            std::thread::sleep(LOOK);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn what_it_says_is_heard_if_it_ends_well() {
        let ask = |line| output_of("/bin/sh", &["sh", "-c", line], LONG).unwrap();
        assert_eq!(ask("echo yes; echo no >&2"), Some("yes\n".to_owned()));
        assert_eq!(ask("read line || echo none"), Some("none\n".to_owned()));
        assert_eq!(ask("echo yes; exit 1"), None);
        assert_eq!(ask("kill -9 $$"), None);
    }

    #[test]
    fn what_does_not_end_is_killed_and_reaped() {
        let brief = Duration::from_millis(20);
        let began = Instant::now();
        assert_eq!(output_of("/bin/sleep", &["sleep", "600"], brief), Ok(None));
        assert!(began.elapsed() < LONG);
    }

    #[test]
    fn a_file_that_is_no_program_is_an_error() {
        assert_eq!(output_of("/etc/passwd", &["x"], LONG), Err(Errno::ACCESS));
        assert_eq!(output_of("/nowhere/opm", &["x"], LONG), Err(Errno::NOENT));
    }
}

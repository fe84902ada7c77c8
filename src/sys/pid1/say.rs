//! Lines for people, on stderr.
//!
//! It must never block and never allocate: a PID 1 whose log pipe is full must go on reaping.

use std::fmt::{self, Write};

/// One line in the making; what doesn't fit is cut.
#[derive(Debug)]
pub struct Line {
    bytes: [u8; Line::BYTES_MAX],
    used: usize,
}

impl Line {
    /// Below PIPE_BUF, so that lines of several writers don't mix and POLLOUT promises room.
    const BYTES_MAX: usize = 512;
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            // The last place is the newline's.
            if self.used < Line::BYTES_MAX - 1 {
                self.bytes[self.used] = byte;
                self.used += 1;
            }
        }
        Ok(())
    }
}

/// Writes `opm: …` and a newline to stderr, or drops it if stderr would block.
pub fn say(text: fmt::Arguments<'_>) {
    let mut line = Line { bytes: [0; Line::BYTES_MAX], used: 0 };
    // Line's write_str has no error to give.
    if write!(line, "opm: {text}").is_err() {
        return;
    }
    line.bytes[line.used] = b'\n';
    line.used += 1;
    let mut poll = libc::pollfd { fd: 2, events: libc::POLLOUT, revents: 0 };
    // SAFETY: one pollfd, and a timeout of 0: returns at once.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
    if ready == 1 && poll.revents & libc::POLLOUT != 0 {
        // SAFETY: the first `used` bytes of the array are initialized.
        unsafe { libc::write(2, line.bytes.as_ptr().cast(), line.used) };
    }
}

/// Writes the whole text to stdout: what was asked for, such as the help.
pub fn tell(text: &str) {
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        // SAFETY: the pointer and the length are those of a live slice.
        let written = unsafe { libc::write(1, rest.as_ptr().cast(), rest.len()) };
        match usize::try_from(written) {
            Ok(count) if count > 0 => rest = rest.get(count..).unwrap_or_default(),
            _ => return,
        }
    }
}

//! What the daemon says of itself: lines of daemon.log, or of what is in the foreground.
use crate::service::time::rfc3339;
use crate::sys::linux::milliseconds_of;
use crate::sys::writer;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

static FOREGROUND: AtomicBool = AtomicBool::new(false);

/// A line for daemon.log, which is our stderr. A full disk is no reason to stop, and neither is
/// a container's log that nobody reads: then the line is lost.
pub fn log(line: &str) {
    let text = if FOREGROUND.load(Ordering::Relaxed) {
        format!("opm: {line}\n")
    } else {
        format!("{} {line}\n", rfc3339(milliseconds_of(rustix::time::ClockId::Realtime)))
    };
    if writer::is_writable(std::io::stderr(), 0) {
        drop(std::io::stderr().write_all(text.as_bytes()));
    }
}

/// From now on lines are for people who look at a terminal or a container's log.
pub fn log_in_foreground() {
    FOREGROUND.store(true, Ordering::Relaxed);
}

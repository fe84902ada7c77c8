//! Signals by name and number. Pure: it knows names, and never sends one.
//!
//! Names are what people write and what files keep, since numbers differ between machines.
use std::fmt;

/// The last signal that Linux has.
const SIGNAL_MAX: i32 = 64;

/// The first real-time signal for programs, as `kill -l` counts. The kernel begins at 32, but C
/// libraries keep some: asked for ours, a stored `RTMIN+1` could mean another after a change.
const RTMIN: i32 = 34;

/// Names beyond those that signal-hook knows: what it leaves out, and aliases.
const MORE_NAMES: &[(i32, &str)] = &[
    (libc::SIGSTKFLT, "STKFLT"),
    (libc::SIGPWR, "PWR"),
    (libc::SIGABRT, "IOT"),
    (libc::SIGCHLD, "CLD"),
    (libc::SIGIO, "POLL"),
    (libc::SIGSYS, "UNUSED"),
];

/// The usual name of a standard signal, without `SIG`.
fn usual_name(number: i32) -> Option<&'static str> {
    let known = signal_hook::low_level::signal_name(number);
    let more = || MORE_NAMES.iter().find(|(other, _)| *other == number).map(|(_, name)| *name);
    known.map(|name| name.trim_start_matches("SIG")).or_else(more)
}

/// A signal number from 1 to 64. KILL and STOP are among them: who can't use those refuses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(i32);

impl Signal {
    /// SIGTERM: please end.
    pub const TERM: Signal = Signal(libc::SIGTERM);
    /// SIGINT: what Ctrl-C sends.
    pub const INT: Signal = Signal(libc::SIGINT);

    /// The signal of that number, if Linux has it.
    pub fn from_number(number: i32) -> Option<Signal> {
        (1..=SIGNAL_MAX).contains(&number).then_some(Signal(number))
    }

    /// Reads `TERM`, `SIGTERM`, `15`, `RTMIN+3` or `RTMAX-1`, in either case.
    pub fn parse(text: &str) -> Result<Signal, String> {
        let bad =
            || format!("bad signal {text:?}: want a name or a number from 1 to 64, such as TERM");
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            return text.parse().ok().and_then(Signal::from_number).ok_or_else(bad);
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let known = (1..RTMIN).find(|number| usual_name(*number) == Some(name));
        let alias = || MORE_NAMES.iter().find(|(_, other)| *other == name).map(|(n, _)| *n);
        known.or_else(alias).map(Signal).or_else(|| real_time(name)).ok_or_else(bad)
    }

    /// Its number, from 1 to 64.
    pub fn number(self) -> i32 {
        self.0
    }

    /// Its name without `SIG`, in a form that [`Signal::parse`] reads: `TERM`, `RTMIN+3`. The
    /// two that have no name (32 and 33, the C library's own) are given by number.
    pub fn name(self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (usual_name(self.0), self.0) {
            (Some(name), _) => f.write_str(name),
            (_, RTMIN) => f.write_str("RTMIN"),
            (_, SIGNAL_MAX) => f.write_str("RTMAX"),
            (_, number) if number > RTMIN => write!(f, "RTMIN+{}", number - RTMIN),
            (_, number) => write!(f, "{number}"),
        }
    }
}

/// `RTMIN`, `RTMIN+3`, `RTMAX`, `RTMAX-1`.
fn real_time(name: &str) -> Option<Signal> {
    let (base, sign, offset) = match name.split_at_checked(5)? {
        ("RTMIN", offset) => (RTMIN, '+', offset),
        ("RTMAX", offset) => (SIGNAL_MAX, '-', offset),
        _ => return None,
    };
    let offset = if offset.is_empty() {
        0
    } else {
        offset.parse().ok().filter(|_| offset.starts_with(sign))?
    };
    let number = base.checked_add(offset)?;
    (RTMIN..=SIGNAL_MAX).contains(&number).then_some(Signal(number))
}

#[cfg(test)]
#[path = "../../tests/inner/service_signal.rs"]
mod tests;

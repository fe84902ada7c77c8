//! Signals by name and number, as `kill -l` writes them.
//!
//! It must accept what tini's and dumb-init's users write: `15`, `TERM`, `SIGTERM`, and the
//! real-time `RTMIN+3`.

use crate::sys::pid1::{REAL_TIME_FIRST, REAL_TIME_LAST, SIGNAL_MAX};

/// Numbers differ between architectures, so they come from libc.
const NAMED: [(&str, i32); 33] = [
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("IOT", libc::SIGABRT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("STKFLT", 16),
    ("CHLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("POLL", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
];

/// The signal that a word names.
pub(super) fn parse(word: &str) -> Option<i32> {
    if let Ok(number) = word.parse::<i32>() {
        return (1..=SIGNAL_MAX).contains(&number).then_some(number);
    }
    let word = word.to_ascii_uppercase();
    let word = word.strip_prefix("SIG").unwrap_or(&word);
    if let Some((_, number)) = NAMED.iter().find(|(name, _)| *name == word) {
        return Some(*number);
    }
    let number = if let Some(rest) = word.strip_prefix("RTMIN") {
        REAL_TIME_FIRST.checked_add(offset(rest, '+')?)?
    } else {
        REAL_TIME_LAST.checked_sub(offset(word.strip_prefix("RTMAX")?, '-')?)?
    };
    (REAL_TIME_FIRST..=REAL_TIME_LAST).contains(&number).then_some(number)
}

fn offset(rest: &str, sign: char) -> Option<i32> {
    match rest.strip_prefix(sign) {
        None => rest.is_empty().then_some(0),
        Some(digits) => {
            let number = digits.parse::<u8>().ok()?;
            Some(i32::from(number))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn every_way_to_write_a_signal_is_understood() {
        let same = ["TERM", "SIGTERM", "term", "sigterm", "15"];
        assert!(same.iter().all(|word| parse(word) == Some(libc::SIGTERM)));
        assert_eq!(parse("RTMIN"), Some(34));
        assert_eq!(parse("SIGRTMIN+3"), Some(37));
        assert_eq!(parse("RTMAX-1"), Some(63));
        assert_eq!(parse("64"), Some(64));
    }

    #[test]
    fn what_is_no_signal_is_refused() {
        let wrong =
            ["", "0", "65", "-1", "FOO", "SIG", "RTMIN+31", "RTMIN-1", "RTMAX-31", "RTMINx"];
        assert!(wrong.iter().all(|word| parse(word).is_none()));
    }
}

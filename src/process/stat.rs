//! Parsing of /proc text. Pure, on bytes: reading the files is `sys`'s work.
//!
//! The text tells of processes that we do not control: their names and arguments are whatever
//! they like. What does not parse is `None`, never a guess, since a wrong start time or parent
//! would make a stranger of our own process, or the reverse.

/// Of the kernel's flags of a process: forked, and not exec'd since (include/linux/sched.h). An
/// exec clears it before it closes what is to be closed.
const PF_FORKNOEXEC: u64 = 0x40;
/// Milliseconds of one tick of start times (USER_HZ is 100 on every Linux that we run on).
pub const TICK_MS: u64 = 10;

/// What opm uses of `/proc/PID/stat`.
///
/// A state of `Z` is not death: it is also what a process shows whose first thread has ended
/// while others run. Only the pidfd knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The process.
    pub pid: i32,
    /// One letter: `R S D T t Z X I`.
    pub state: u8,
    /// Its parent; 0 if that is outside of our PID namespace.
    pub ppid: i32,
    /// Its process group.
    pub pgid: i32,
    /// Its session.
    pub sid: i32,
    /// It has exec'd since it was forked; known of a zombie, too.
    pub execed: bool,
    /// Ticks in user mode, without those of its children.
    pub utime: u64,
    /// Ticks in the kernel, without those of its children.
    pub stime: u64,
    /// Its threads; at least 1, for a zombie too.
    pub num_threads: i64,
    /// Ticks between boot and its start.
    pub start_time: u64,
    /// Resident memory in pages.
    pub rss_pages: u64,
    /// The wait status of a zombie, as waitpid has it; 0 too if we may not know.
    pub exit_code: i32,
}

impl Stat {
    /// Whether all of it has exited and nobody has waited for it: with state `Z` alone other
    /// threads may run.
    pub fn is_zombie(&self) -> bool {
        self.state == b'Z' && self.num_threads <= 1
    }

    /// Reads the whole of `/proc/PID/stat`; one that was cut before its last field is `None`.
    pub fn parse(text: &[u8]) -> Option<Stat> {
        // The name may hold anything, `) R 1` and newlines too; what follows it no parenthesis.
        let open = text.iter().position(|&b| b == b'(')?;
        let close = text.iter().rposition(|&b| b == b')')?;
        if close < open {
            return None;
        }
        let pid = number(text[..open].trim_ascii())?;
        // By the numbers that proc(5) gives them.
        let fields: Vec<&[u8]> = words(&text[close + 1..]).collect();
        let field = |number: usize| fields.get(number - 3).copied();
        let state = match field(3)? {
            [letter] => *letter,
            _ => return None,
        };
        Some(Stat {
            pid,
            state,
            ppid: number(field(4)?)?,
            pgid: number(field(5)?)?,
            sid: number(field(6)?)?,
            execed: number::<u64>(field(9)?)? & PF_FORKNOEXEC == 0,
            utime: number(field(14)?)?,
            stime: number(field(15)?)?,
            num_threads: number(field(20)?)?,
            start_time: number(field(22)?)?,
            // Printed as signed: a counter that is summed up lazily may be below 0 for a moment.
            rss_pages: number::<i64>(field(24)?)?.max(0).unsigned_abs(),
            exit_code: number(field(52)?)?,
        })
    }
}

/// A decimal number, whole, or nothing. A plus sign is nothing that the kernel prints.
fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    if text.first() == Some(&b'+') {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Appends the pids of `/proc/PID/task/TID/children`. False if some of the text is not a pid, or
/// the last one may be cut off (the kernel ends each with a space): then children are missing,
/// and their absence proves nothing.
pub fn parse_children(text: &[u8], pids: &mut Vec<i32>) -> bool {
    let mut whole = text.last().is_none_or(u8::is_ascii_whitespace);
    // A number without its end may be the beginning of another one, so it is nobody's pid.
    let end = text.iter().rposition(u8::is_ascii_whitespace).map_or(0, |last| last + 1);
    for word in words(&text[..end]) {
        match number::<i32>(word) {
            Some(pid) if pid > 0 => pids.push(pid),
            _ => whole = false,
        }
    }
    whole
}

/// What follows the name, which begins a line of `/proc/PID/status` or a file like it.
pub fn status_field<'a>(text: &'a [u8], name: &str) -> Option<&'a [u8]> {
    text.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(name.as_bytes()))
}

fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

/// Real, effective and saved uid of the text of `/proc/PID/status`.
pub fn parse_uids(text: &[u8]) -> Option<[u32; 3]> {
    let mut uids = words(status_field(text, "Uid:")?).map(number);
    Some([uids.next()??, uids.next()??, uids.next()??])
}

/// The soft and the hard limit of `Max file locks` in `/proc/PID/limits`; `unlimited` is
/// `u64::MAX`. The kernel enforces nothing with it since 2.4, which is why it can carry a mark.
pub fn parse_locks_limit(text: &[u8]) -> Option<(u64, u64)> {
    let line = status_field(text, "Max file locks")?;
    line.first().filter(|byte| byte.is_ascii_whitespace())?;
    let mut limits = words(line).map(limit);
    Some((limits.next()??, limits.next()??))
}

fn limit(word: &[u8]) -> Option<u64> {
    if word == b"unlimited" { Some(u64::MAX) } else { number(word) }
}

/// The value of `name` in `/proc/PID/environ`, the first one if there are several, as getenv
/// has it. A process may overwrite its environment with anything: believe only what can be
/// verified.
pub fn environ_value<'a>(environ: &'a [u8], name: &str) -> Option<&'a [u8]> {
    environ
        .split(|&b| b == 0)
        .find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

/// The arguments in `/proc/PID/cmdline`; what is not UTF-8 is replaced. Empty for a kernel
/// thread or a zombie. A process that set its title has one argument, often with NULs after it,
/// which appear as empty arguments.
pub fn parse_cmdline(text: &[u8]) -> Vec<String> {
    if text.is_empty() {
        return Vec::new();
    }
    let text = text.strip_suffix(b"\0").unwrap_or(text);
    text.split(|&b| b == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

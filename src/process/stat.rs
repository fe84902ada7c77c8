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
        // The name in parentheses may hold anything, `) R 1` and newlines too, but what follows
        // it never holds a parenthesis.
        let open = text.iter().position(|&b| b == b'(')?;
        let close = text.iter().rposition(|&b| b == b')')?;
        if close < open {
            return None;
        }
        let pid = number(text[..open].trim_ascii())?;
        let mut fields = Fields { rest: text[close + 1..].split(u8::is_ascii_whitespace), at: 3 };
        let state = match fields.take(3)? {
            [letter] => *letter,
            _ => return None,
        };
        Some(Stat {
            pid,
            state,
            ppid: number(fields.take(4)?)?,
            pgid: number(fields.take(5)?)?,
            sid: number(fields.take(6)?)?,
            execed: number::<u64>(fields.take(9)?)? & PF_FORKNOEXEC == 0,
            utime: number(fields.take(14)?)?,
            stime: number(fields.take(15)?)?,
            num_threads: number(fields.take(20)?)?,
            start_time: number(fields.take(22)?)?,
            // Printed as signed: a counter that is summed up lazily may be below 0 for a moment.
            rss_pages: number::<i64>(fields.take(24)?)?.max(0).unsigned_abs(),
            exit_code: number(fields.take(52)?)?,
        })
    }
}

/// The fields after the name, by the numbers that proc(5) gives them.
struct Fields<I> {
    rest: I,
    /// The number of the next one.
    at: usize,
}

impl<'a, I: Iterator<Item = &'a [u8]>> Fields<I> {
    /// The field of that number. They must be asked for in rising order.
    fn take(&mut self, field: usize) -> Option<&'a [u8]> {
        let skip = field.checked_sub(self.at)?;
        self.at = field + 1;
        self.rest.by_ref().filter(|text| !text.is_empty()).nth(skip)
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
    for word in text[..end].split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
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

#[cfg(test)]
mod tests {
    use super::*;

    const TAIL: &str = " S 7 42 42 0 -1 4194560 1 2 3 4 50 60 5 6 20 0 9 0 123456 999424 345 \
        18446744073709551615 1 1 0 0 0 0 0 16781312 134235651 0 0 0 17 1 0 0 0 0 0 1 2 3 4 \
        5 6 7 256\n";

    fn stat_of(name: &[u8]) -> Vec<u8> {
        let mut text = b"42 (".to_vec();
        text.extend_from_slice(name);
        text.push(b')');
        text.extend_from_slice(TAIL.as_bytes());
        text
    }

    fn expected() -> Stat {
        Stat {
            pid: 42,
            state: b'S',
            ppid: 7,
            pgid: 42,
            sid: 42,
            execed: true,
            utime: 50,
            stime: 60,
            num_threads: 9,
            start_time: 123_456,
            rss_pages: 345,
            exit_code: 256,
        }
    }

    /// The text with something else in one place.
    fn with(old: &str, new: &str) -> Option<Stat> {
        let text = String::from_utf8(stat_of(b"node")).expect("ascii");
        assert!(text.contains(old));
        Stat::parse(text.replace(old, new).as_bytes())
    }

    #[test]
    fn stat_fields_are_where_proc_5_says() {
        assert_eq!(Stat::parse(&stat_of(b"node")), Some(expected()));
        // A fork that never exec'd.
        assert_eq!(with(" 4194560 ", " 4194624 "), Some(Stat { execed: false, ..expected() }));
        assert_eq!(with(" 345 ", " -3 "), Some(Stat { rss_pages: 0, ..expected() }));
    }

    #[test]
    fn no_process_name_can_forge_stat() {
        let names: [&[u8]; 9] = [
            b"",
            b" ",
            b"a b",
            b") R 1 1 1",
            b"((",
            b"))) (",
            b"a\nb) Z 1\n",
            b"\xff\xfe\x80",
            b"42 (x) S 7",
        ];
        for name in names {
            assert_eq!(Stat::parse(&stat_of(name)), Some(expected()), "{name:?}");
        }
    }

    #[test]
    fn a_cut_stat_is_none_at_every_length() {
        let text = stat_of(b"node");
        let last_field = text.len() - "256\n".len();
        for length in 0..=last_field {
            assert_eq!(Stat::parse(&text[..length]), None, "{length}");
        }
    }

    #[test]
    fn broken_stat_is_none() {
        let broken = [
            ("42 (", "x ("),
            ("42 (", "("),
            (" S 7", " SS 7"),
            (" S 7", " S seven"),
            (" S 7", " S +7"),
            (" 123456 ", " -1 "),
            (" 123456 ", " 99999999999999999999 "),
        ];
        for (old, new) in broken {
            assert_eq!(with(old, new), None, "{new}");
        }
        for text in [")42 (", ")("] {
            assert_eq!(Stat::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn the_stat_of_a_real_zombie_parses() {
        // As Linux 6.18 printed it for a child that had called exit(3).
        let text = "7617 (python3) Z 7576 7572 2522 0 -1 4227148 229 0 0 0 0 0 0 0 20 0 1 0 \
            101482 0 0 18446744073709551615 0 0 0 0 0 0 0 16781312 2 1 0 0 17 0 0 0 0 0 0 0 0 0 0 \
            0 0 0 768\n";
        let stat = Stat::parse(text.as_bytes()).expect("stat");
        assert_eq!((stat.pid, stat.state, stat.ppid, stat.pgid), (7617, b'Z', 7576, 7572));
        assert_eq!((stat.sid, stat.num_threads, stat.start_time), (2522, 1, 101_482));
        assert_eq!((stat.rss_pages, stat.exit_code), (0, 3 << 8));
    }

    #[test]
    fn children_are_appended_and_what_is_no_whole_pid_is_left_out_and_said() {
        let texts: [(&[u8], &[i32], bool); 6] = [
            (b"12 7 4194304 ", &[12, 7, 4_194_304], true),
            (b"2 \n", &[2], true),
            (b"", &[], true),
            // The last one may be cut off.
            (b"12 34", &[12], false),
            (b"12", &[], false),
            (b"1 \xff\xfe 2 ", &[1, 2], false),
        ];
        let bad = ["1 x 2 ", "1 -5 2 ", "1 0 2 ", "1 99999999999 2 ", "1 +3 2 ", "1 \0 2 "];
        let bad = bad.iter().map(|text| (text.as_bytes(), &[1, 2][..], false));
        for (text, pids, is_whole) in texts.into_iter().chain(bad) {
            let mut found = vec![99];
            assert_eq!(parse_children(text, &mut found), is_whole, "{text:?}");
            assert_eq!(found, [&[99], pids].concat(), "{text:?}");
        }
    }

    #[test]
    fn the_locks_limit_is_found_by_its_name() {
        let limits = "\
            Limit                     Soft Limit           Hard Limit           Units     \n\
            Max cpu time              unlimited            unlimited            seconds   \n\
            Max file locks            1234567890123        unlimited            locks     \n\
            Max pending signals       1                    2                    signals   \n";
        assert_eq!(parse_locks_limit(limits.as_bytes()), Some((1_234_567_890_123, u64::MAX)));
        let broken = [
            "",
            "Max file locks",
            "Max file locks   12",
            "Max file locks   12\n  13 locks",
            "Max file locks x 1",
            "Max file locks  -1  1 locks",
            "xMax file locks 1 1 locks",
            "Max file lockss 1 1",
            "Max file locks 18446744073709551616 1 locks",
        ];
        for text in broken {
            assert_eq!(parse_locks_limit(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn uids_are_found_by_their_name() {
        let text = b"Name:\tx\nUid:\t1000\t0\t7\t0\nGid:\t5\t5\t5\t5\n";
        assert_eq!(parse_uids(text), Some([1000, 0, 7]));
        assert_eq!(parse_uids(b"Name:\tx\nUid:\t1000\t0\n"), None);
        assert_eq!(parse_uids(b""), None);
    }

    #[test]
    fn an_environment_value_needs_the_whole_name() {
        let environ = b"AOPM_ID=0\0OPM_IDS=1\0OPM_ID=2\0OPM_ID=3\0OPM_ID\0EMPTY=\0RAW=\xff=\n";
        assert_eq!(environ_value(environ, "OPM_ID"), Some(b"2".as_slice()));
        assert_eq!(environ_value(environ, "EMPTY"), Some(b"".as_slice()));
        assert_eq!(environ_value(environ, "RAW"), Some(b"\xff=\n".as_slice()));
        assert_eq!(environ_value(environ, "OPM_I"), None);
        assert_eq!(environ_value(b"", "OPM_ID"), None);
    }

    #[test]
    fn arguments_end_in_nul_each() {
        assert_eq!(parse_cmdline(b"node\0server.js\0"), ["node", "server.js"]);
        assert_eq!(parse_cmdline(b"a\0\0b c\n\0\0"), ["a", "", "b c\n", ""]);
        assert_eq!(parse_cmdline(b"\0"), [""]);
        assert_eq!(parse_cmdline(b"nginx: master process"), ["nginx: master process"]);
        assert_eq!(parse_cmdline(b"\xff\xc3\xa9\0"), ["\u{fffd}é"]);
        assert!(parse_cmdline(b"").is_empty());
    }
}

//! What /proc says, for the tests' own eyes: independent of opm's reading of it.
use std::fs;

/// One process as it was a moment ago.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    pub(crate) session: i32,
    pub(crate) state: char,
    pub(crate) start: u64,
}

/// The process `pid`, if there is one, zombies included.
pub(crate) fn process(pid: i32) -> Option<Process> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |n: usize| fields.get(n - 3)?.parse().ok();
    Some(Process {
        pid,
        state: fields.first()?.chars().next()?,
        parent: number(4)?,
        group: number(5)?,
        session: number(6)?,
        start: fields.get(22 - 3)?.parse().ok()?,
    })
}

/// Whether `pid` runs. A zombie doesn't, unless other threads of it do.
pub(crate) fn alive(pid: i32) -> bool {
    process(pid).is_some_and(|process| {
        let dead = matches!(process.state, 'Z' | 'X');
        !dead || fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|tasks| tasks.count() > 1)
    })
}

/// Who traces a process; 0 if nobody does.
pub(crate) fn tracer_of(pid: i32) -> i32 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    line.and_then(|line| line.trim().parse().ok()).unwrap_or(0)
}

/// Every process of the namespace.
pub(crate) fn all() -> Vec<Process> {
    pids().into_iter().filter_map(process).collect()
}

pub(crate) fn pids() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| name.parse().ok()).collect()
}

/// The value of a variable of its environment.
pub(crate) fn variable(pid: i32, name: &str) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let entry = bytes.split(|byte| *byte == 0).find_map(|entry| {
        let rest = entry.strip_prefix(name.as_bytes())?;
        rest.strip_prefix(b"=")
    })?;
    Some(String::from_utf8_lossy(entry).into_owned())
}

/// A line of /proc/PID/status, as a number in base 16.
pub(crate) fn status_mask(pid: i32, key: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    u64::from_str_radix(line.unwrap().trim_start_matches(':').trim(), 16).unwrap()
}

/// Its open descriptors.
pub(crate) fn descriptors(pid: i32) -> Vec<i32> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut numbers: Vec<i32> = names.filter_map(|name| name.parse().ok()).collect();
    numbers.sort_unstable();
    numbers
}

/// Its arguments, joined with blanks.
pub(crate) fn arguments(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).replace('\0', " ");
    text.trim_end().to_owned()
}

/// Its hard limit of locks, which is one of opm's marks.
pub(crate) fn locks_limit(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Max file locks"));
    let hard = line.unwrap().split_whitespace().nth(1).unwrap();
    hard.parse().unwrap_or(u64::MAX)
}

/// The CPU time that it has used, in ms.
pub(crate) fn cpu_ms(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let mut fields = text.rsplit_once(')').unwrap().1.split_whitespace().skip(14 - 3);
    let mut next = || fields.next().unwrap().parse::<u64>().unwrap();
    (next() + next()) * 10
}

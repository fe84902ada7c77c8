//! How much memory a process has, and whether it died of having too much.
use super::guarded;
use crate::process::Pid;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::time::ClockId;
use std::collections::VecDeque;

/// A death is learnt within so many seconds of the kernel's word of it.
const FRESH_SECS: u64 = 60;
/// Longer than any record of the kernel's log.
const RECORD_BYTES_MAX: usize = 8 << 10;
/// Deaths in the log that are remembered.
const DEATHS_MAX: usize = 64;
/// What the kernel calls one, before the number.
const KILLED: &str = "Killed process ";

/// Bytes of its memory; what it shares with others counts by parts. Linux 4.14; None: not ours to
/// read, or no answer.
pub fn proportional(pid: Pid) -> Option<u64> {
    let text = guarded::read(&format!("/proc/{pid}/smaps_rollup")).ok()?;
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes << 10)
}

/// The kernel's log, of which each record is read once: all of it at each death would take longer
/// than the next start.
#[derive(Debug, Default)]
pub struct KernelLog {
    file: Option<OwnedFd>,
    /// Records that tell of such a death, newest last.
    deaths: VecDeque<String>,
}

impl KernelLog {
    /// Whether it says that the kernel has just killed this process, by its number in the initial
    /// PID namespace, for want of memory.
    pub fn tells_death(&mut self, pid: Pid) -> bool {
        if self.file.is_none() {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            self.file = rustix::fs::open("/dev/kmsg", flags, Mode::empty()).ok();
        }
        let Some(file) = &self.file else { return false };
        let mut record = [0; RECORD_BYTES_MAX];
        loop {
            match rustix::io::read(file, &mut record) {
                Ok(length @ 1..) => {
                    let text = String::from_utf8_lossy(&record[..length]);
                    if text.contains(KILLED) {
                        self.deaths.push_back(text.into_owned());
                    }
                }
                // EPIPE: what was next has been overwritten.
                Err(super::Errno::PIPE | super::Errno::INTR) => {}
                Ok(0) | Err(_) => break,
            }
        }
        let surplus = self.deaths.len().saturating_sub(DEATHS_MAX);
        self.deaths.drain(..surplus);
        let now = rustix::time::clock_gettime(ClockId::Monotonic).tv_sec;
        let since = u64::try_from(now).unwrap_or(0).saturating_sub(FRESH_SECS);
        self.deaths.iter().any(|record| is_death(record, pid, since))
    }
}

/// `6,1234,56789012,-;Out of memory: Killed process 77 (node) …`, in microseconds since the boot.
/// Only what the kernel itself says has no facility.
pub fn is_death(record: &str, pid: Pid, since_secs: u64) -> bool {
    let Some((head, text)) = record.split_once(';') else { return false };
    let mut numbers = head.split(',').map(|number| number.parse::<u64>().unwrap_or(u64::MAX));
    let is_kernels = numbers.next().is_some_and(|level| level < 8);
    let is_fresh = numbers.nth(1).is_some_and(|at| at / 1_000_000 >= since_secs);
    is_kernels && is_fresh && text.contains(&format!("{KILLED}{pid} ("))
}

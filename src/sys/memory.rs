//! How much memory a process has, and whether it died of having too much.
use super::guarded;
use crate::process::Pid;
use rustix::fs::{Mode, OFlags};
use rustix::time::ClockId;

/// A death is learnt within so many seconds of the kernel's word of it.
const FRESH_SECS: u64 = 60;
/// Longer than any record of the kernel's log.
const RECORD_BYTES_MAX: usize = 8 << 10;

/// Bytes of its memory; what it shares with others counts by parts. Linux 4.14; None: not ours to
/// read, or no answer.
pub fn proportional(pid: Pid) -> Option<u64> {
    let text = guarded::read(&format!("/proc/{pid}/smaps_rollup")).ok()?;
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes << 10)
}

/// Whether the kernel's log says that it has just killed this process for want of memory. For the
/// initial PID namespace alone: by their numbers there the log knows processes.
pub fn was_out_of(pid: Pid) -> bool {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(log) = rustix::fs::open("/dev/kmsg", flags, Mode::empty()) else { return false };
    let now = rustix::time::clock_gettime(ClockId::Monotonic).tv_sec;
    let since = u64::try_from(now).unwrap_or(0).saturating_sub(FRESH_SECS);
    let mut record = [0; RECORD_BYTES_MAX];
    loop {
        match rustix::io::read(&log, &mut record) {
            Ok(length) if is_death(&String::from_utf8_lossy(&record[..length]), pid, since) => {
                return true;
            }
            // EPIPE: what was next has been overwritten.
            Ok(1..) | Err(super::Errno::PIPE | super::Errno::INTR) => {}
            Ok(0) | Err(_) => return false,
        }
    }
}

/// `6,1234,56789012,-;Out of memory: Killed process 77 (node) …`, in microseconds since the boot.
/// Only what the kernel itself says has no facility.
pub fn is_death(record: &str, pid: Pid, since_secs: u64) -> bool {
    let Some((head, text)) = record.split_once(';') else { return false };
    let mut numbers = head.split(',').map(|number| number.parse::<u64>().unwrap_or(u64::MAX));
    let is_kernels = numbers.next().is_some_and(|level| level < 8);
    let is_fresh = numbers.nth(1).is_some_and(|at| at / 1_000_000 >= since_secs);
    is_kernels && is_fresh && text.contains(&format!("Killed process {pid} ("))
}

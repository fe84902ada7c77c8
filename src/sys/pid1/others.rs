//! What /proc tells of other processes: who there is, and who drops a signal.
//!
//! Looked at only once a stop has begun. A /proc that isn't there, or that speaks of a PID
//! namespace outside of ours, is `None`: it must never be taken for "nobody".

use super::process::own_pid;
use crate::process::stat::parse_children;
use crate::sys::procfs;

/// Whether /proc is there and speaks of our PID namespace, not of one outside.
fn proc_is_ours() -> bool {
    procfs::link("/proc/self").is_ok_and(|link| link == own_pid().to_string())
}

/// Our direct children, living and dead.
pub fn children() -> Option<Vec<i32>> {
    if !proc_is_ours() {
        return None;
    }
    let pid = own_pid();
    let text = procfs::read(&format!("/proc/self/task/{pid}/children")).ok()?;
    let mut pids = Vec::new();
    parse_children(&text, &mut pids).then_some(pids)
}

/// Whether a child provably drops this signal: it ignores it, and doesn't read it from a
/// signalfd, for which it would have to be blocked. To be blocked alone proves nothing: shells
/// and posix_spawn(3) block everything from their fork to the exec. Descriptors that may not be
/// read count as none. `None` if /proc can't tell.
pub fn drops(pid: i32, signal: i32) -> Option<bool> {
    if !proc_is_ours() {
        return None;
    }
    let text = procfs::read(&format!("/proc/{pid}/status")).ok()?;
    let is_blocked = has_signal(&text, "SigBlk:", signal)?;
    Some(has_signal(&text, "SigIgn:", signal)? && !(is_blocked && has_signalfd(pid, signal)))
}

/// Whether the set that follows the field's name holds the signal.
fn has_signal(text: &[u8], field: &str, signal: i32) -> Option<bool> {
    let text = String::from_utf8_lossy(text);
    let set = text.lines().find_map(|line| line.strip_prefix(field))?;
    let set = u64::from_str_radix(set.trim(), 16).ok()?;
    Some(set >> (signal - 1) & 1 == 1)
}

fn has_signalfd(pid: i32, signal: i32) -> bool {
    let descriptors = procfs::numbers(&format!("/proc/{pid}/fdinfo")).unwrap_or_default();
    descriptors.iter().any(|fd| {
        let text = procfs::read(&format!("/proc/{pid}/fdinfo/{fd}")).unwrap_or_default();
        has_signal(&text, "sigmask:", signal) == Some(true)
    })
}

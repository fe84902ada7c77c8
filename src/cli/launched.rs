//! A daemon that a command has launched: whether it lives, and what it said when it left.
use crate::sys::home::open_regular;
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// The daemon that was launched: nobody's child here, so a pidfd says whether it lives.
pub(super) struct Child(pub(super) Result<OwnedFd, Errno>);

impl Child {
    pub(super) fn of(pid: u32) -> Self {
        use rustix::process::{Pid, PidfdFlags, pidfd_open};
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        Self(pid.ok_or(Errno::SRCH).and_then(|pid| pidfd_open(pid, PidfdFlags::empty())))
    }

    /// Tells it to end, and waits a moment for that. It harms nothing: a daemon that serves by now
    /// leaves its services.
    pub(super) fn dismiss(&self) {
        if let Ok(fd) = &self.0 {
            // Gone already, at worst.
            rustix::process::pidfd_send_signal(fd, rustix::process::Signal::TERM).ok();
            self.is_gone_within(1);
        }
    }

    pub(super) fn is_gone(&self) -> bool {
        self.is_gone_within(0)
    }

    fn is_gone_within(&self, seconds: i64) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let fd = match &self.0 {
            Ok(fd) => fd,
            // A kernel without pidfds: the time bound decides.
            Err(e) => return *e == Errno::SRCH,
        };
        let most = Timespec { tv_sec: seconds, tv_nsec: 0 };
        poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&most)).is_ok_and(|n| n > 0)
    }
}

/// This program's file. `/proc/self/exe` when an upgrade has replaced it; else by its name,
/// so that the daemon is called `opm` in ps and not `exe`.
pub(super) fn own_program() -> PathBuf {
    use std::os::unix::fs::MetadataExt;
    let link = PathBuf::from("/proc/self/exe");
    let identity = |path: &Path| std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino()));
    match std::env::current_exe() {
        Ok(path) if identity(&path).is_some() && identity(&path) == identity(&link) => path,
        _ => link,
    }
}

/// The last line that `log` got after its first `told` bytes.
pub(super) fn last_line(log: &Path, told: u64) -> Option<String> {
    use std::os::unix::fs::FileExt;
    let flags = rustix::fs::OFlags::RDONLY;
    let file = open_regular(rustix::fs::CWD, log.to_str()?, flags).ok()?;
    let file = std::fs::File::from(file);
    let end = file.metadata().ok()?.len();
    let begin = told.min(end).max(end.saturating_sub(4096));
    let mut tail = vec![0; usize::try_from(end - begin).ok()?];
    file.read_exact_at(&mut tail, begin).ok()?;
    let text = String::from_utf8_lossy(&tail);
    text.lines().rev().find(|line| !line.trim().is_empty()).map(str::to_owned)
}

/// Exit code and reason of a daemon's last line, `TIME opm: exit CODE: REASON`; of any other
/// line just the line.
pub(super) fn parting_word(line: &str) -> (Option<u8>, &str) {
    let Some((_, said)) = line.split_once("opm: ") else {
        return (None, line);
    };
    let coded = said.strip_prefix("exit ").and_then(|rest| rest.split_once(": "));
    match coded.map(|(code, reason)| (code.parse(), reason)) {
        Some((Ok(code), reason)) => (Some(code), reason),
        _ => (None, said),
    }
}

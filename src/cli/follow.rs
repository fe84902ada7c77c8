//! Waiting without end for something to read, while somebody still reads what we write.
use super::output::{Failure, why};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::os::fd::AsFd;

/// Waits until one of `sources` can be read (true), or until nobody reads our stdout any
/// more (false): a pipe's writer learns that only from poll, or from its next write.
pub(super) fn wait(sources: &[impl AsFd]) -> Result<bool, Failure> {
    let out = rustix::stdio::stdout();
    loop {
        let mut fds: Vec<PollFd<'_>> =
            sources.iter().map(|source| PollFd::new(source, PollFlags::IN)).collect();
        // No events asked for: ERR (a pipe without readers) and HUP are always reported.
        fds.push(PollFd::new(&out, PollFlags::empty()));
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(Failure::plain(format!("poll: {}", why(e)))),
        }
        let gone = PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL;
        if fds.last().is_some_and(|out| out.revents().intersects(gone)) {
            return Ok(false);
        }
        if fds[..sources.len()].iter().any(|fd| !fd.revents().is_empty()) {
            return Ok(true);
        }
    }
}

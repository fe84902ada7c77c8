//! Waiting for something to read.
use super::output::{Failure, failed};
use crate::sys::writer;
use rustix::event::{PollFd, PollFlags};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::inotify;
use rustix::io::Errno;
use std::mem::MaybeUninit;
use std::time::Duration;

/// Whether `source` can be read now, or within the time. An error is for the read to tell.
pub(super) fn is_readable(source: impl AsFd, most: Duration) -> bool {
    is_any_readable(&[source.as_fd()], most)
}

/// The same of several.
pub(super) fn is_any_readable(sources: &[BorrowedFd<'_>], most: Duration) -> bool {
    writer::poll(&mut polled(sources), Some(most)) != Ok(0)
}

/// Waits until one of `sources` can be read or the time is over (true), or until nobody reads our
/// stdout any more (false): a pipe's writer learns that only from poll, or from its next write.
pub(super) fn wait(sources: &[BorrowedFd<'_>], most: Option<Duration>) -> Result<bool, Failure> {
    let out = rustix::stdio::stdout();
    let mut fds = polled(sources);
    // No events asked for: ERR (a pipe without readers) and HUP are always reported.
    fds.push(PollFd::from_borrowed_fd(out, PollFlags::empty()));
    match writer::poll(&mut fds, most) {
        Ok(_) => Ok(fds.last().is_none_or(|out| out.revents().is_empty())),
        Err(errno) => Err(failed("poll")(errno)),
    }
}

fn polled<'a>(sources: &[BorrowedFd<'a>]) -> Vec<PollFd<'a>> {
    sources.iter().map(|source| PollFd::from_borrowed_fd(*source, PollFlags::IN)).collect()
}

/// Takes the events off the queue of an inotify descriptor: they only say that something happened.
pub(super) fn drain(watch: &OwnedFd) -> Result<(), Failure> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(watch, &mut buffer);
    loop {
        match events.next() {
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(()),
            Err(e) => return Err(failed("inotify")(e)),
        }
    }
}

//! One connection: what came of its request, and what is still to be sent to it.
//!
//! It never holds more than a request and what the loop puts behind unsent replies.
use crate::sys::limits;
use crate::wire::frame::{Inbox, REQUEST_BYTES_MAX};
use crate::wire::{Failure, Request};
use mio::net::UnixStream;
use std::collections::VecDeque;
use std::io::{ErrorKind, Write};

/// A reply of this size leaves much behind that is worth giving back.
const LARGE_BYTES: usize = 16 << 10;

pub(super) struct Connection {
    pub(super) stream: UnixStream,
    pub(super) pid: i32,
    pub(super) inbox: Inbox,
    out: VecDeque<u8>,
    /// It was read until nothing more was there.
    pub(super) heard: bool,
    /// Its request has not been answered finally.
    pub(super) asking: bool,
    /// To be closed when all is sent.
    pub(super) closing: bool,
}

impl Connection {
    pub(super) fn new(stream: UnixStream, pid: i32) -> Self {
        Self {
            stream,
            pid,
            inbox: Inbox::default(),
            out: VecDeque::new(),
            heard: false,
            asking: false,
            closing: false,
        }
    }

    /// The next request, if it is whole and its turn. Errors: it is too long, or can't be read.
    pub(super) fn next_request(&mut self) -> Result<Option<Request>, Failure> {
        if self.closing || self.asking {
            return Ok(None);
        }
        let frame = self.inbox.next_frame(REQUEST_BYTES_MAX).map_err(|n| {
            let most = REQUEST_BYTES_MAX >> 20;
            Failure::usage(format!("request: {n} bytes are too many (at most {most} MB)"))
        })?;
        let request = frame.map(|frame| serde_json::from_slice(&frame)).transpose();
        request.map_err(|error| {
            let advice = "try 'opm daemon upgrade'";
            Failure::usage(format!("request: cannot be understood: {error} ({advice})"))
        })
    }

    /// It was read, has sent nothing or half a request, and has had all that it asked for.
    pub(super) fn is_idle(&self) -> bool {
        self.heard && !self.asking && self.backlog() == 0
    }

    pub(super) fn backlog(&self) -> usize {
        self.out.len()
    }

    pub(super) fn queue(&mut self, frame: Vec<u8>) {
        match self.out.is_empty() {
            true => self.out = frame.into(),
            false => self.out.extend(frame),
        }
    }

    /// Writes what the socket takes. False: the client is gone or done with.
    pub(super) fn write_out(&mut self) -> bool {
        while !self.out.is_empty() {
            match self.stream.write(self.out.as_slices().0) {
                Ok(0) => return false,
                Ok(length) => drop(self.out.drain(..length)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        if std::mem::take(&mut self.out).capacity() >= LARGE_BYTES {
            // What a request of thousands of services took is not needed again soon.
            limits::trim();
        }
        !self.closing
    }
}

#[cfg(test)]
#[path = "../../../tests/inner/daemon_server_connection.rs"]
mod tests;

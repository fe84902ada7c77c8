//! One place that lines go to, and the FIFOs that they come from: a look at one of these, a batch
//! of whole lines, and only when that is written they leave the FIFO.
use super::form::{Form, Label, next_line, next_lines, put_line};
use super::pace::{Beat, Next, Pace};
use crate::sys::archives;
use crate::sys::fifo::{self, Glass};
use crate::sys::receipt::{Note, Receipt, identity};
use crate::sys::token::Token;
use crate::sys::writer::Writer;
use crate::sys::{Errno, Result};
use mio::unix::SourceFd;
use mio::{Interest, Registry};
use rustix::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use rustix::fs::{Mode, OFlags};
use rustix::time::{ClockId, clock_gettime};
use std::collections::VecDeque;
use std::path::Path;

#[derive(Debug)]
pub(super) struct Stream {
    /// Its number for the poll.
    pub(super) place: u32,
    pub(super) fifo: OwnedFd,
    /// Device and inode.
    pub(super) inode: (u64, u64),
    pub(super) label: Label,
    /// There may be something to look at.
    pub(super) ready: bool,
    /// Nobody writes to it: a line without an end is whole.
    pub(super) ended: bool,
    pub(super) pace: Pace,
}

impl Stream {
    /// The next write wakes us, or what was written meanwhile.
    fn await_write(&mut self, registry: &Registry) {
        self.ready = false;
        self.watch(registry);
    }

    fn watch(&mut self, registry: &Registry) {
        if self.pace.by_clock {
            let watched = register(registry, self.fifo.as_raw_fd(), self.place, Interest::READABLE);
            // Where it can't be, it is looked at whenever its sink is.
            self.ready |= watched.is_err();
            self.pace.by_clock = watched.is_err();
        }
    }

    /// No write wakes us.
    fn await_tick(&mut self, registry: &Registry) {
        self.ready = false;
        if !self.pace.by_clock {
            self.pace.by_clock = true;
            self.deregister(registry);
        }
    }

    pub(super) fn deregister(&self, registry: &Registry) {
        // Failing means that it was not registered.
        registry.deregister(&mut SourceFd(&self.fifo.as_raw_fd())).ok();
    }

    /// Takes out what was written; the buffer is only written over.
    fn consume(&mut self, taken: usize, buffer: &mut [u8]) {
        if fifo::consume(&self.fifo, taken, buffer).is_err() {
            self.ready = false;
        }
    }
}

impl Batch {
    fn clear(&mut self) {
        self.bytes.clear();
        self.cuts.clear();
        self.sent = 0;
    }
}

/// Lines as they are to be written, of one look at one stream.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    sent: usize,
    /// The stream.
    from: usize,
    /// For each piece not yet taken out: where it ends in the batch, and its length in the FIFO.
    cuts: VecDeque<(usize, usize)>,
}

/// Where lines go: stdout, stderr or a log file.
#[derive(Debug)]
pub(super) struct Sink {
    pub(super) writer: Writer,
    /// Of a log file its path, device and inode.
    pub(super) log: Option<(String, (u64, u64))>,
    /// What the disk had no room for, and nothing says so yet.
    pub(super) lost: usize,
    pub(super) writable: bool,
    pub(super) form: Form,
    pub(super) streams: Vec<Stream>,
    pub(super) batch: Batch,
    pub(super) next: usize,
}

impl Sink {
    /// A batch of what lies in one of the streams, if anything does. True: that stream waits for
    /// the clock.
    pub(super) fn fill(
        &mut self,
        glass: &Glass,
        registry: &Registry,
        beat: &mut Beat,
        buffer: &mut [u8],
    ) -> bool {
        let (count, most) = (self.streams.len(), self.writer.whole());
        let is_plain = self.form == Form::default();
        for offset in 0..count {
            let from = (self.next + offset) % count;
            let stream = &mut self.streams[from];
            if !stream.ready {
                continue;
            }
            let Ok(length) = glass.peek(&stream.fifo, buffer) else {
                stream.await_write(registry);
                continue;
            };
            let now = clock_gettime(ClockId::Realtime);
            let us = now.tv_sec.unsigned_abs() * 1_000_000 + now.tv_nsec.unsigned_abs() / 1_000;
            let at = self.form.time.as_ref().map(|time| time.text(us));
            let out = &mut self.batch.bytes;
            let mut put =
                |line: &[u8]| put_line(out, &self.form, &stream.label, at.as_deref(), line);
            // Else more may lie there, the line's end too.
            let last = stream.ended && length < buffer.len();
            let mut rest = &buffer[..length];
            if self.lost > 0 && next_line(rest, last).is_some() {
                let text = format!("opm: {} bytes were here, and no room to keep them", self.lost);
                put(text.as_bytes());
            }
            let next = |rest| match is_plain {
                true => next_lines(rest, last, most),
                false => next_line(rest, last),
            };
            while let Some((taken, line)) = next(rest) {
                let end = put(line);
                self.batch.cuts.push_back((end, taken));
                rest = &rest[taken..];
            }
            if self.batch.cuts.is_empty() {
                // A line whose end is still to come: the FIFO keeps it.
                stream.await_write(registry);
                continue;
            }
            self.batch.from = from;
            self.next = (from + 1) % count;
            let next = stream.pace.found(length, us, beat);
            match next {
                Next::Look => {}
                Next::Tick => stream.await_tick(registry),
                Next::Write => stream.watch(registry),
            }
            return next == Next::Tick;
        }
        false
    }

    /// Writes what is taken at once. False: nothing is.
    pub(super) fn write(&mut self, buffer: &mut [u8]) -> bool {
        let batch = &mut self.batch;
        // Whole lines, so that neither a crash nor another process tears one.
        let most = batch.sent.saturating_add(self.writer.whole());
        let mut ends = batch.cuts.iter().map(|(end, _)| *end);
        let fitting = ends.clone().take_while(|end| *end <= most).last();
        let end = fitting.or_else(|| ends.next());
        let end = end.unwrap_or(batch.bytes.len());
        match self.writer.write(&batch.bytes[batch.sent..end]) {
            Ok(length) => batch.sent += length,
            Err(Errno::INTR) => return true,
            Err(Errno::AGAIN) => {
                self.writable = false;
                return false;
            }
            // Nobody reads, or the disk is full: services don't end for that.
            Err(_) => batch.sent = batch.bytes.len(),
        }
        let mut taken = 0;
        while let Some((_, length)) = batch.cuts.front().filter(|(end, _)| *end <= batch.sent) {
            taken += length;
            batch.cuts.pop_front();
        }
        if batch.sent == batch.bytes.len() {
            batch.clear();
        }
        self.streams[batch.from].consume(taken, buffer);
        true
    }

    /// The batch to a log; what the disk has no room for is dropped and counted.
    pub(super) fn log(&mut self, receipt: Option<&Receipt>, buffer: &mut [u8]) {
        self.follow_name();
        let Batch { bytes, cuts, from, .. } = &self.batch;
        let stream = &mut self.streams[*from];
        let taken = cuts.iter().map(|(_, length)| length).sum();
        let end = self.writer.end();
        let inode = self.log.as_ref().map_or((0, 0), |(_, inode)| *inode);
        let note = Note {
            log: inode,
            fifo: stream.inode,
            end,
            bytes: bytes.len() as u64,
            taken: taken as u64,
        };
        let receipt = receipt.filter(|it| it.note(&note, buffer[0]).is_ok());
        let mut sent = 0;
        while sent < bytes.len() {
            match self.writer.write(&bytes[sent..]) {
                Ok(length) => sent += length,
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        let ends = cuts.iter().map(|(end, _)| *end);
        let kept = ends.take_while(|end| *end <= sent).last().unwrap_or(0);
        if kept > 0 {
            self.lost = 0;
        }
        let dropped = cuts.iter().filter(|(end, _)| *end > kept);
        self.lost += dropped.map(|(_, length)| length).sum::<usize>();
        if kept < sent && self.writer.end() == end + sent as u64 {
            // No part of a line stays, unless somebody else has written behind it.
            let file = self.writer.file();
            file.map(|file| rustix::fs::ftruncate(file, end + kept as u64).ok());
        }
        let done = receipt.and_then(|it| it.take(&stream.fifo, taken, buffer).ok()).unwrap_or(0);
        stream.consume(taken - done, buffer);
        self.batch.clear();
    }

    /// A log that was renamed or removed: what is called so now, or can be, gets the lines.
    fn follow_name(&mut self) {
        let Some((path, inode)) = &mut self.log else { return };
        let now = rustix::fs::lstat(&*path).map(|stat| (stat.st_dev, stat.st_ino));
        if now == Ok(*inode) {
            return;
        }
        let fresh =
            open(path, true).and_then(|file| Ok((Writer::new(file.as_fd())?, identity(&file)?)));
        if let Ok((writer, fresh)) = fresh
            && writer.file().is_some()
        {
            (self.writer, *inode) = (writer, fresh);
        }
    }
}

pub(super) fn register(
    registry: &Registry,
    fd: RawFd,
    number: u32,
    interest: Interest,
) -> Result<()> {
    match registry.register(&mut SourceFd(&fd), Token::Pump(number).into(), interest) {
        Ok(()) => Ok(()),
        // A file: it is always ready.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(()),
        Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
    }
}

/// Opens a log as its service would, made if missing, with its directory.
pub(super) fn open(path: &str, directly: bool) -> Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOCTTY;
    let mut flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK;
    flags.set(OFlags::NOFOLLOW, directly);
    let opened = || rustix::fs::open(path, flags, Mode::from_raw_mode(0o600));
    opened().or_else(|errno| {
        let (directory, _) = archives::place(Path::new(path));
        let made = errno == Errno::NOENT
            && rustix::fs::mkdir(directory, Mode::from_raw_mode(0o700)).is_ok();
        if made { opened() } else { Err(errno) }
    })
}

/// What an earlier daemon has written of a batch that lies in its FIFO still.
pub(super) fn cut_off(log: &OwnedFd, note: &Note, fifo: &OwnedFd) {
    let lies_there = rustix::io::ioctl_fionread(fifo).is_ok_and(|bytes| bytes >= note.taken);
    let size = rustix::fs::fstat(log).map_or(0, |stat| stat.st_size.unsigned_abs());
    // Nobody else has written to it or has cut it.
    if lies_there && size > note.end && size - note.end <= note.bytes {
        rustix::fs::ftruncate(log, note.end).ok();
    }
}

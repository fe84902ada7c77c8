//! What services write to FIFOs, passed on line by line: to log files with stamps, or to the one
//! stdout and stderr of `opm run`.
//!
//! A line is looked at in its FIFO, written, and only then taken out, so that a reader that dies
//! in between loses nothing, and one that reads slowly makes the services wait (what a FIFO holds,
//! each) and nobody else: nothing here ever waits for a writer or a reader. Of a log a receipt says
//! what the next daemon is to cut off it, so that there each line is once.
use super::form::{Form, Label, next_line, put_line};
use crate::sys::archives;
use crate::sys::fifo::{self, Glass};
use crate::sys::receipt::{Note, Receipt, identity};
use crate::sys::token::Token;
use crate::sys::writer::Writer;
use crate::sys::{Errno, Result};
use mio::unix::SourceFd;
use mio::{Interest, Registry};
use rustix::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use rustix::fs::{Mode, OFlags};
use rustix::time::{ClockId, clock_gettime};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

/// What is looked at at once.
const LOOK_BYTES: usize = 64 << 10;
/// What is passed on in one turn: then the loop looks at its events again.
const TURN_BYTES: usize = 512 << 10;
/// Looks at a sink that is taken away.
const REST_LOOKS: u32 = 64;
/// What the last lines are given at the end, whatever the time is.
const FINISH_MS_MIN: u64 = 100;
/// Most streams of one sink.
const STREAMS_MAX: u32 = 1 << 16;

#[derive(Debug)]
struct Stream {
    fifo: OwnedFd,
    /// Device and inode.
    inode: (u64, u64),
    label: Label,
    /// There may be something to look at.
    ready: bool,
    /// Nobody writes to it: a line without an end is whole.
    ended: bool,
}

/// Where lines go: stdout, stderr or a log file.
#[derive(Debug)]
struct Sink {
    writer: Writer,
    /// Of a log file its path, device and inode.
    log: Option<(String, (u64, u64))>,
    /// What the disk had no room for, and nothing says so yet.
    lost: usize,
    writable: bool,
    form: Form,
    streams: Vec<Stream>,
    batch: Vec<u8>,
    sent: usize,
    from: usize,
    /// For each line not yet taken out: where it ends in the batch, and its length in the FIFO.
    cuts: VecDeque<(usize, usize)>,
    next: usize,
}

/// All of it, by numbers that whoever adds a sink has given.
#[derive(Debug, Default)]
pub(crate) struct Pump {
    pub(super) registry: Option<Registry>,
    sinks: BTreeMap<u32, Sink>,
    glass: Option<Glass>,
    buffer: Vec<u8>,
    /// Sinks for which there may be something that they take.
    busy: BTreeSet<u32>,
    receipt: Option<Receipt>,
    /// A batch that an earlier daemon has written and not taken out.
    left: Option<Note>,
    /// Logs that the disk has no room for, since they were last asked for.
    pub(super) full: Vec<(u32, String)>,
}

impl Pump {
    /// From here on each line is once in its log. Where that can't be had a line may come again.
    pub(super) fn remember(&mut self, path: &str) {
        self.receipt = Receipt::open(path).ok();
        self.left = self.receipt.as_ref().and_then(Receipt::left);
    }

    /// Adds a sink, or gives it another descriptor. Errors: of pipes, descriptors and the poll.
    pub(crate) fn sink(&mut self, number: u32, to: BorrowedFd<'_>, form: &Form) -> Result<()> {
        if self.glass.is_none() {
            self.glass = Some(Glass::new()?);
            self.buffer = vec![0; LOOK_BYTES];
        }
        let (writer, form) = (Writer::new(to)?, form.clone());
        self.register(writer.raw(), number * STREAMS_MAX, Interest::WRITABLE)?;
        if let Some(sink) = self.sinks.get_mut(&number) {
            (sink.writer, sink.form, sink.writable) = (writer, form, true);
            return Ok(());
        }
        let (streams, batch, cuts) = (Vec::new(), Vec::new(), VecDeque::new());
        let (log, lost, sent, from, next, writable) = (None, 0, 0, 0, 0, true);
        let sink =
            Sink { writer, log, lost, writable, form, streams, batch, sent, from, cuts, next };
        self.sinks.insert(number, sink);
        Ok(())
    }

    /// Adds a FIFO, made if missing, to a sink; also beside earlier ones: in a home made anew what
    /// lives writes to those that it has, what starts to others. Errors: as [`Pump::sink`].
    pub(crate) fn stream(&mut self, number: u32, path: &str, label: Label) -> Result<()> {
        let Some(sink) = self.sinks.get(&number) else { return Err(Errno::INVAL) };
        let fifo = fifo::open(path)?;
        let inode = identity(&fifo)?;
        let is_it = |it: &Stream| it.label.name == label.name && it.inode == inode;
        if sink.streams.iter().any(is_it) {
            return Ok(());
        }
        let is_left = |note: &mut Note| {
            note.fifo == inode && sink.log.as_ref().is_some_and(|(_, log)| note.log == *log)
        };
        if let (Some(note), Some(log)) = (self.left.take_if(is_left), sink.writer.file()) {
            cut_off(log, &note, &fifo);
        }
        let place = number * STREAMS_MAX + 1 + sink.streams.len() as u32;
        self.register(fifo.as_raw_fd(), place, Interest::READABLE)?;
        // Something may lie there from before.
        let stream = Stream { fifo, inode, label, ready: true, ended: false };
        if let Some(sink) = self.sinks.get_mut(&number) {
            sink.streams.push(stream);
        }
        self.busy.insert(number);
        Ok(())
    }

    fn register(&self, fd: RawFd, number: u32, interest: Interest) -> Result<()> {
        let Some(registry) = &self.registry else { return Err(Errno::NOSYS) };
        match registry.register(&mut SourceFd(&fd), Token::Pump(number).into(), interest) {
            Ok(()) => Ok(()),
            // A file: it is always ready.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(()),
            Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        }
    }

    /// Sends lines to a log file; not through a link (`directly`), where somebody else may have put
    /// that. Errors: what open(2) says, and as [`Pump::sink`].
    pub(super) fn file(
        &mut self,
        number: u32,
        path: &str,
        directly: bool,
        form: &Form,
    ) -> Result<()> {
        let file = open(path, directly)?;
        self.sink(number, rustix::fd::AsFd::as_fd(&file), form)?;
        if let Some(sink) = self.sinks.get_mut(&number) {
            let inode = sink.writer.file().map(identity).transpose()?;
            sink.log = inode.map(|inode| (path.to_owned(), inode));
        }
        Ok(())
    }

    /// What lies there still is passed on as far as it can be; then the sink is none any more.
    pub(super) fn remove(&mut self, number: u32) {
        // More than a FIFO holds: whoever writes on is nobody's any more.
        for _ in 0..REST_LOOKS {
            if self.pass(number).is_none() {
                break;
            }
        }
        self.busy.remove(&number);
        if let (Some(sink), Some(registry)) = (self.sinks.remove(&number), &self.registry) {
            for stream in sink.streams {
                registry.deregister(&mut SourceFd(&stream.fifo.as_raw_fd())).ok();
            }
        }
    }

    /// An event for the descriptor that was registered with this number.
    pub(crate) fn woken(&mut self, number: u32) {
        let (sink, place) = (number / STREAMS_MAX, number % STREAMS_MAX);
        let Some(found) = self.sinks.get_mut(&sink) else { return };
        match place.checked_sub(1) {
            None => found.writable = true,
            Some(place) => {
                found.streams.get_mut(place as usize).into_iter().for_each(|it| it.ready = true);
            }
        }
        self.busy.insert(sink);
    }

    /// A service is about to start, or nothing of it lives any more.
    pub(crate) fn note_ended(&mut self, name: &str, ended: bool) {
        for (number, sink) in self.sinks.iter_mut() {
            for stream in sink.streams.iter_mut().filter(|stream| stream.label.name == name) {
                stream.ready |= ended;
                stream.ended = ended;
                self.busy.insert(*number);
            }
        }
    }

    pub(crate) fn is_busy(&self) -> bool {
        !self.busy.is_empty()
    }

    /// Passes on what can be passed on now, a bounded number of bytes, and of each sink the same.
    pub(crate) fn turn(&mut self) {
        let mut left = TURN_BYTES;
        while left > 0 && self.is_busy() {
            for number in std::mem::take(&mut self.busy) {
                if let Some(bytes) = self.pass(number) {
                    left = left.saturating_sub(bytes);
                    self.busy.insert(number);
                }
            }
        }
    }

    /// One batch for one sink, and its bytes. None: it can't take more, or there is nothing for it.
    fn pass(&mut self, number: u32) -> Option<usize> {
        let sink = self.sinks.get_mut(&number).filter(|sink| sink.writable)?;
        if sink.batch.is_empty() && !sink.fill(self.glass.as_ref()?, &mut self.buffer) {
            return None;
        }
        if sink.log.is_none() {
            return sink.write(&mut self.buffer);
        }
        self.left = None;
        let had_room = sink.lost == 0;
        let written = sink.log(self.receipt.as_ref(), &mut self.buffer);
        if had_room && sink.lost > 0 {
            self.full.extend(sink.log.as_ref().map(|(path, _)| (number, path.clone())));
        }
        Some(written)
    }

    /// Passes on what is left when every service has ended, as long as somebody takes it.
    pub(crate) fn finish(&mut self, ms: u64) {
        for (number, sink) in self.sinks.iter_mut() {
            sink.streams.iter_mut().for_each(|it| (it.ready, it.ended) = (true, true));
            self.busy.insert(*number);
        }
        let ms = ms.max(FINISH_MS_MIN);
        let until = std::time::Instant::now() + std::time::Duration::from_millis(ms);
        loop {
            // Services that go on may write as fast as this reads.
            while self.is_busy() && std::time::Instant::now() < until {
                self.turn();
            }
            let stuck = self.sinks.iter_mut().find(|(_, sink)| !sink.batch.is_empty());
            let Some((number, stuck)) = stuck else { return };
            let left = until.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                return;
            }
            stuck.writable = true;
            stuck.writer.wait(u64::try_from(left.as_millis()).unwrap_or(0).max(1));
            self.busy.insert(*number);
        }
    }
}

impl Sink {
    fn fill(&mut self, glass: &Glass, buffer: &mut [u8]) -> bool {
        let count = self.streams.len();
        for offset in 0..count {
            let from = (self.next + offset) % count;
            let stream = &mut self.streams[from];
            if !stream.ready {
                continue;
            }
            let Ok(length) = glass.peek(&stream.fifo, buffer) else {
                stream.ready = false;
                continue;
            };
            let now = clock_gettime(ClockId::Realtime);
            let us = now.tv_sec.unsigned_abs() * 1_000_000 + now.tv_nsec.unsigned_abs() / 1_000;
            let at = self.form.time.as_ref().map(|time| time.text(us));
            if self.lost > 0 && next_line(&buffer[..length], stream.ended).is_some() {
                let text = format!("opm: {} bytes were here, and no room to keep them", self.lost);
                put_line(
                    &mut self.batch,
                    &self.form,
                    &stream.label,
                    at.as_deref(),
                    text.as_bytes(),
                );
            }
            let mut rest = &buffer[..length];
            while let Some((taken, line)) = next_line(rest, stream.ended) {
                put_line(&mut self.batch, &self.form, &stream.label, at.as_deref(), line);
                self.cuts.push_back((self.batch.len(), taken));
                rest = &rest[taken..];
            }
            if self.batch.is_empty() {
                // A line whose end is still to come: the FIFO keeps it.
                stream.ready = false;
                continue;
            }
            self.from = from;
            self.next = (from + 1) % count;
            return true;
        }
        false
    }

    fn write(&mut self, buffer: &mut [u8]) -> Option<usize> {
        // Whole lines, so that neither a crash nor another process tears one.
        let most = self.sent.saturating_add(self.writer.whole());
        let mut ends = self.cuts.iter().map(|(end, _)| *end);
        let fitting = ends.clone().take_while(|end| *end <= most).last();
        let end = fitting.or_else(|| ends.next());
        let end = end.unwrap_or(self.batch.len());
        let before = self.sent;
        match self.writer.write(&self.batch[self.sent..end]) {
            Ok(length) => self.sent += length,
            Err(Errno::INTR) => return Some(0),
            Err(Errno::AGAIN) => {
                self.writable = false;
                return None;
            }
            // Nobody reads, or the disk is full: services don't end for that.
            Err(_) => self.sent = self.batch.len(),
        }
        let written = self.sent - before;
        let mut taken = 0;
        while let Some((_, length)) = self.cuts.front().filter(|(end, _)| *end <= self.sent) {
            taken += length;
            self.cuts.pop_front();
        }
        if self.sent == self.batch.len() {
            self.batch.clear();
            self.sent = 0;
        }
        // The batch is no longer needed in the buffer: it is only written over.
        if fifo::consume(&self.streams[self.from].fifo, taken, buffer).is_err() {
            self.streams[self.from].ready = false;
        }
        Some(written)
    }

    /// A batch to a log; what the disk has no room for is dropped and counted. Gives the bytes.
    fn log(&mut self, receipt: Option<&Receipt>, buffer: &mut [u8]) -> usize {
        self.follow_name();
        let fifo = &self.streams[self.from].fifo;
        let taken = self.cuts.iter().map(|(_, length)| length).sum();
        let end = self.end();
        let inode = self.log.as_ref().map_or((0, 0), |(_, inode)| *inode);
        let note = Note {
            log: inode,
            fifo: self.streams[self.from].inode,
            end,
            bytes: self.batch.len() as u64,
            taken: taken as u64,
        };
        let receipt = receipt.filter(|it| it.note(&note, buffer[0]).is_ok());
        let mut sent = 0;
        while sent < self.batch.len() {
            match self.writer.write(&self.batch[sent..]) {
                Ok(length) => sent += length,
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        let ends = self.cuts.iter().map(|(end, _)| *end);
        let kept = ends.take_while(|end| *end <= sent).last().unwrap_or(0);
        if kept > 0 {
            self.lost = 0;
        }
        let dropped = self.cuts.iter().filter(|(end, _)| *end > kept);
        self.lost += dropped.map(|(_, length)| length).sum::<usize>();
        if kept < sent && self.end() == end + sent as u64 {
            // No part of a line stays, unless somebody else has written behind it.
            let file = self.writer.file();
            file.map(|file| rustix::fs::ftruncate(file, end + kept as u64).ok());
        }
        let done = receipt.and_then(|it| it.take(fifo, taken, buffer).ok()).unwrap_or(0);
        if fifo::consume(fifo, taken - done, buffer).is_err() {
            self.streams[self.from].ready = false;
        }
        self.batch.clear();
        self.cuts.clear();
        self.sent = 0;
        sent
    }

    fn end(&self) -> u64 {
        let stat = self.writer.file().and_then(|file| rustix::fs::fstat(file).ok());
        stat.map_or(0, |stat| stat.st_size.unsigned_abs())
    }

    /// A log that was renamed or removed: what is called so now, or can be, gets the lines.
    fn follow_name(&mut self) {
        let Some((path, inode)) = &mut self.log else { return };
        let now = rustix::fs::lstat(&*path).map(|stat| (stat.st_dev, stat.st_ino));
        if now == Ok(*inode) {
            return;
        }
        let fresh = open(path, true)
            .and_then(|file| Ok((Writer::new(rustix::fd::AsFd::as_fd(&file))?, identity(&file)?)));
        if let Ok((writer, fresh)) = fresh
            && writer.file().is_some()
        {
            (self.writer, *inode) = (writer, fresh);
        }
    }
}

/// Opens a log as its service would, made if missing, with its directory.
fn open(path: &str, directly: bool) -> Result<OwnedFd> {
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
fn cut_off(log: &OwnedFd, note: &Note, fifo: &OwnedFd) {
    let lies_there = rustix::io::ioctl_fionread(fifo).is_ok_and(|bytes| bytes >= note.taken);
    let size = rustix::fs::fstat(log).map_or(0, |stat| stat.st_size.unsigned_abs());
    // Nobody else has written to it or has cut it.
    if lies_there && size > note.end && size - note.end <= note.bytes {
        rustix::fs::ftruncate(log, note.end).ok();
    }
}

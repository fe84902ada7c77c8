//! The output of several services on one stdout and one stderr.
//!
//! It lies in FIFOs. A line is looked at there, written, and only then taken out, so that a
//! reader that dies in between loses nothing, and one that reads slowly makes the services wait
//! (64 KiB each) and nobody else: nothing here ever waits for a writer or a reader.
use super::options::Prefix;
use super::prefix::{Label, next_line, put_line};
use crate::service::environment::fifo_paths;
use crate::sys::fifo::{self, Glass};
use crate::sys::home::Home;
use crate::sys::token::Token;
use crate::sys::writer::Writer;
use crate::sys::{Errno, Result};
use mio::unix::SourceFd;
use mio::{Interest, Registry};
use rustix::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::collections::VecDeque;

/// What is looked at at once: what a FIFO holds.
const LOOK_BYTES: usize = 64 << 10;
/// Looks in one turn: then the loop looks at its events again.
const LOOKS_MAX: usize = 8;
/// stdout and stderr.
const SINKS: usize = 2;

/// One FIFO.
#[derive(Debug)]
struct Stream {
    fifo: OwnedFd,
    label: Label,
    /// Which of the two sinks.
    sink: usize,
    /// There may be something to look at.
    ready: bool,
    /// Nobody writes to it: a line without an end is whole.
    ended: bool,
}

/// stdout or stderr.
#[derive(Debug)]
struct Sink {
    writer: Writer,
    writable: bool,
    /// Lines of one stream.
    batch: Vec<u8>,
    sent: usize,
    from: usize,
    /// For each line not yet taken out: where it ends in the batch, and its length in the FIFO.
    cuts: VecDeque<(usize, usize)>,
}

impl Sink {
    fn new(fd: BorrowedFd<'_>) -> Result<Self> {
        let (batch, cuts) = (Vec::new(), VecDeque::new());
        Ok(Self { writer: Writer::new(fd)?, writable: true, batch, sent: 0, from: 0, cuts })
    }
}

/// All of it.
#[derive(Debug)]
pub(super) struct Output {
    names: Vec<String>,
    streams: Vec<Stream>,
    sinks: [Sink; SINKS],
    glass: Glass,
    prefix: Prefix,
    buffer: Vec<u8>,
    /// Whose turn it is.
    next: usize,
}

impl Output {
    /// Opens the FIFOs of these services, made if missing. The loop is to wake us for them.
    ///
    /// # Errors
    /// What the kernel says of FIFOs, pipes and descriptors.
    pub(super) fn new(
        home: &Home,
        names: Vec<String>,
        prefix: Prefix,
        registry: &Registry,
    ) -> Result<Self> {
        let sinks = [Sink::new(rustix::stdio::stdout())?, Sink::new(rustix::stdio::stderr())?];
        for (number, sink) in (0..).zip(&sinks) {
            register(registry, sink.writer.raw(), number, Interest::WRITABLE)?;
        }
        let (streams, glass) = (Vec::new(), Glass::new()?);
        let buffer = vec![0; LOOK_BYTES];
        let mut output = Self { names, streams, sinks, glass, prefix, buffer, next: 0 };
        output.open(home, registry)?;
        Ok(output)
    }

    /// Opens FIFOs, also beside earlier ones: when the home was made anew, what lives writes to
    /// those that it has, and what starts from then on opens others.
    ///
    /// # Errors
    /// As [`Output::new`].
    pub(super) fn open(&mut self, home: &Home, registry: &Registry) -> Result<()> {
        let width = self.names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        for name in &self.names {
            let paths = fifo_paths(name).into_iter().zip(["stdout", "stderr"]);
            for (sink, (path, stream)) in paths.enumerate() {
                let fifo = fifo::open(home, &path)?;
                let number = SINKS + self.streams.len();
                register(registry, fifo.as_raw_fd(), number, Interest::READABLE)?;
                let label = Label { name: name.clone(), width, stream };
                // Something may lie there from before.
                self.streams.push(Stream { fifo, label, sink, ready: true, ended: false });
            }
        }
        Ok(())
    }

    /// An event for the descriptor that was registered with this number.
    pub(super) fn woken(&mut self, number: usize) {
        if let Some(sink) = self.sinks.get_mut(number) {
            sink.writable = true;
        } else if let Some(stream) = self.streams.get_mut(number - SINKS) {
            stream.ready = true;
        }
    }

    /// Says whose incarnations are confirmed gone.
    pub(super) fn note_ended(&mut self, is_ended: impl Fn(&str) -> bool) {
        for stream in &mut self.streams {
            let ended = is_ended(&stream.label.name);
            stream.ready |= ended && !stream.ended;
            stream.ended = ended;
        }
    }

    /// Passes on what can be passed on now. True: there is more.
    pub(super) fn pump(&mut self, at: &str) -> bool {
        for _ in 0..LOOKS_MAX {
            let mut any = false;
            for sink in 0..self.sinks.len() {
                any |= self.pass(sink, at);
            }
            if !any {
                return false;
            }
        }
        true
    }

    /// One batch for one sink. False: it can't take more, or there is nothing for it.
    fn pass(&mut self, sink: usize, at: &str) -> bool {
        if !self.sinks[sink].writable {
            return false;
        }
        if self.sinks[sink].batch.is_empty() && !self.fill(sink, at) {
            return false;
        }
        self.write(sink)
    }

    fn fill(&mut self, sink: usize, at: &str) -> bool {
        let count = self.streams.len();
        for offset in 0..count {
            let from = (self.next + offset) % count;
            let stream = &mut self.streams[from];
            if stream.sink != sink || !stream.ready {
                continue;
            }
            let Ok(length) = self.glass.peek(&stream.fifo, &mut self.buffer) else {
                stream.ready = false;
                continue;
            };
            let target = &mut self.sinks[sink];
            let mut rest = &self.buffer[..length];
            while let Some((taken, line)) = next_line(rest, stream.ended) {
                put_line(&mut target.batch, self.prefix, &stream.label, at, line);
                target.cuts.push_back((target.batch.len(), taken));
                rest = &rest[taken..];
            }
            if target.batch.is_empty() {
                // A line whose end is still to come: the FIFO keeps it.
                stream.ready = false;
                continue;
            }
            target.from = from;
            self.next = (from + 1) % count;
            return true;
        }
        false
    }

    fn write(&mut self, sink: usize) -> bool {
        let target = &mut self.sinks[sink];
        // Whole lines, so that neither a crash nor another process tears one.
        let most = target.sent.saturating_add(target.writer.whole());
        let mut ends = target.cuts.iter().map(|(end, _)| *end);
        let fitting = ends.clone().take_while(|end| *end <= most).last();
        let end = fitting.or_else(|| ends.next());
        let end = end.unwrap_or(target.batch.len());
        match target.writer.write(&target.batch[target.sent..end]) {
            Ok(length) => target.sent += length,
            Err(Errno::INTR) => return true,
            Err(Errno::AGAIN) => {
                target.writable = false;
                return false;
            }
            // Nobody reads, or the disk is full: services don't end for that.
            Err(_) => target.sent = target.batch.len(),
        }
        let mut taken = 0;
        while let Some((_, length)) = target.cuts.front().filter(|(end, _)| *end <= target.sent) {
            taken += length;
            target.cuts.pop_front();
        }
        if target.sent == target.batch.len() {
            target.batch.clear();
            target.sent = 0;
        }
        let fifo = &self.streams[target.from].fifo;
        // The batch is no longer needed in the buffer: it is only written over.
        if fifo::consume(fifo, taken, &mut self.buffer).is_err() {
            self.streams[target.from].ready = false;
        }
        true
    }

    /// Passes on what is left when every service has ended, as long as somebody takes it.
    pub(super) fn finish(&mut self, at: &str, ms: u64) {
        self.note_ended(|_| true);
        let until = std::time::Instant::now() + std::time::Duration::from_millis(ms);
        loop {
            while self.pump(at) {}
            let Some(stuck) = self.sinks.iter_mut().find(|sink| !sink.batch.is_empty()) else {
                return;
            };
            let left = until.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                return;
            }
            stuck.writable = true;
            stuck.writer.wait(u64::try_from(left.as_millis()).unwrap_or(0).max(1));
        }
    }
}

/// The sinks' numbers come first, those of the streams behind them.
fn register(registry: &Registry, fd: RawFd, number: usize, interest: Interest) -> Result<()> {
    let token = Token::Role(u32::try_from(number).unwrap_or(u32::MAX));
    match registry.register(&mut SourceFd(&fd), token.into(), interest) {
        Ok(()) => Ok(()),
        // A file: it is always ready.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(()),
        Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
    }
}

/// Whether a service's output was passed on by an earlier image of this process.
pub(super) fn has_fifos(home: &Home, name: &str) -> bool {
    fifo_paths(name).iter().any(|path| home.has(path))
}

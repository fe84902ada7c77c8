//! What services write to FIFOs, passed on line by line: to log files with stamps, or to the one
//! stdout and stderr of `opm run`.
//!
//! A line is looked at in its FIFO, written, and only then taken out, so that a reader that dies
//! in between loses nothing, and one that reads slowly makes the services wait (what a FIFO holds,
//! each) and nobody else: nothing here ever waits for a writer or a reader. Of a log a receipt says
//! what the next daemon is to cut off it, so that there each line is once.
use super::form::{Form, Label};
use super::pace::{Beat, Pace};
use super::sink::{Batch, Sink, Stream, cut_off, open, register};
use crate::sys::fifo::{self, Glass};
use crate::sys::linux::{set_timer, timer};
use crate::sys::receipt::{Note, Receipt, identity};
use crate::sys::writer::Writer;
use crate::sys::{Errno, Result};
use mio::{Interest, Registry};
use rustix::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// What is looked at at once: what a FIFO holds.
const LOOK_BYTES: usize = 64 << 10;
/// How long lines are passed on in one turn: then the loop looks at its events again.
const TURN: Duration = Duration::from_micros(300);
/// Looks at a sink that is taken away.
const REST_LOOKS: u32 = 64;
/// What the last lines are given at the end, whatever the time is.
const FINISH_MS_MIN: u64 = 100;
/// Most streams of one sink.
const STREAMS_MAX: u32 = 1 << 16;
/// The number of the clock's timer: no sink has it.
const CLOCK: u32 = u32::MAX;

/// What streams that nobody waits for are looked at by.
#[derive(Debug, Default)]
struct Clock {
    timer: Option<OwnedFd>,
    is_set: bool,
    beat: Beat,
    /// Sinks that have such streams.
    sinks: BTreeSet<u32>,
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
    /// Which of them had its turn last.
    last: u32,
    clock: Clock,
    /// The room of a batch that has been written, for the next.
    spare: Batch,
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
        let registry = self.registry.as_ref().ok_or(Errno::NOSYS)?;
        register(registry, writer.raw(), number * STREAMS_MAX, Interest::WRITABLE)?;
        if let Some(sink) = self.sinks.get_mut(&number) {
            (sink.writer, sink.form, sink.writable) = (writer, form, true);
            return Ok(());
        }
        let (streams, batch) = (Vec::new(), Batch::default());
        let (log, lost, next, writable) = (None, 0, 0, true);
        let sink = Sink { writer, log, lost, writable, form, streams, batch, next };
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
        let registry = self.registry.as_ref().ok_or(Errno::NOSYS)?;
        register(registry, fifo.as_raw_fd(), place, Interest::READABLE)?;
        // Something may lie there from before.
        let (ready, ended, pace) = (true, false, Pace::default());
        let stream = Stream { place, fifo, inode, label, ready, ended, pace };
        if let Some(sink) = self.sinks.get_mut(&number) {
            sink.streams.push(stream);
        }
        self.busy.insert(number);
        Ok(())
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
            let sink = self.sinks.get_mut(&number);
            sink.into_iter().flat_map(|it| &mut it.streams).for_each(|it| it.ready = true);
            if !self.pass(number) {
                break;
            }
        }
        self.busy.remove(&number);
        if let (Some(sink), Some(registry)) = (self.sinks.remove(&number), &self.registry) {
            for stream in sink.streams {
                stream.deregister(registry);
            }
        }
    }

    /// An event for the descriptor that was registered with this number.
    pub(crate) fn woken(&mut self, number: u32) {
        if number == CLOCK {
            return self.tick();
        }
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

    /// It is time to look at the streams that nobody waits for.
    fn tick(&mut self) {
        self.clock.is_set = false;
        for number in std::mem::take(&mut self.clock.sinks) {
            let sink = self.sinks.get_mut(&number).into_iter();
            let streams = sink.flat_map(|it| &mut it.streams).filter(|it| it.pace.by_clock);
            streams.for_each(|stream| stream.ready = true);
            self.busy.insert(number);
        }
    }

    /// Sets the clock, if there is a stream for it. Where it can't be had, it ticks at once.
    fn set_clock(&mut self) {
        if self.clock.sinks.is_empty() || self.clock.is_set {
            return;
        }
        if self.clock.timer.is_none()
            && let (Ok(timer), Some(registry)) = (timer(), &self.registry)
            && register(registry, timer.as_raw_fd(), CLOCK, Interest::READABLE).is_ok()
        {
            self.clock.timer = Some(timer);
        }
        let pause_us = self.clock.beat.pause();
        let set = self.clock.timer.as_ref().map(|timer| set_timer(timer, pause_us));
        self.clock.is_set = set == Some(Ok(()));
        if !self.clock.is_set {
            self.tick();
        }
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

    /// Passes on what can be passed on now, for a bounded time, and of each sink the same.
    pub(crate) fn turn(&mut self) {
        let until = Instant::now() + TURN;
        while let Some(number) = self.next_busy() {
            if !self.pass(number) {
                self.busy.remove(&number);
            }
            if Instant::now() > until {
                break;
            }
        }
        self.set_clock();
    }

    fn next_busy(&mut self) -> Option<u32> {
        let after = self.busy.range(self.last + 1..).next();
        self.last = *after.or_else(|| self.busy.first())?;
        Some(self.last)
    }

    /// One batch for one sink. False: it can't take more, or there is nothing for it.
    fn pass(&mut self, number: u32) -> bool {
        let Self { sinks, glass, registry, clock, buffer, spare, .. } = self;
        let sink = sinks.get_mut(&number).filter(|sink| sink.writable);
        let (Some(sink), Some(glass), Some(registry)) = (sink, glass, registry) else {
            return false;
        };
        if sink.batch.bytes.is_empty() {
            std::mem::swap(&mut sink.batch, spare);
            if sink.fill(glass, registry, &mut clock.beat, buffer) {
                clock.sinks.insert(number);
            }
        }
        let goes_on = match sink.log {
            _ if sink.batch.bytes.is_empty() => false,
            None => sink.write(buffer),
            Some(_) => {
                self.left = None;
                let had_room = sink.lost == 0;
                sink.log(self.receipt.as_ref(), buffer);
                if had_room && sink.lost > 0 {
                    self.full.extend(sink.log.as_ref().map(|(path, _)| (number, path.clone())));
                }
                true
            }
        };
        if sink.batch.bytes.is_empty() {
            std::mem::swap(&mut sink.batch, spare);
        }
        goes_on
    }

    /// Passes on what is left when every service has ended, as long as somebody takes it.
    pub(crate) fn finish(&mut self, ms: u64) {
        for (number, sink) in self.sinks.iter_mut() {
            sink.streams.iter_mut().for_each(|it| (it.ready, it.ended) = (true, true));
            self.busy.insert(*number);
        }
        let ms = ms.max(FINISH_MS_MIN);
        let until = Instant::now() + Duration::from_millis(ms);
        loop {
            // Services that go on may write as fast as this reads.
            while self.is_busy() && Instant::now() < until {
                self.turn();
                self.tick();
            }
            let stuck = self.sinks.iter_mut().find(|(_, sink)| !sink.batch.bytes.is_empty());
            let Some((number, stuck)) = stuck else { return };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            stuck.writable = true;
            stuck.writer.wait(u64::try_from(left.as_millis()).unwrap_or(0).max(1));
            self.busy.insert(*number);
        }
    }
}

//! The bound of what services write: the head of a log that has grown becomes an archive, and old
//! archives go.
//!
//! A service writes to its log itself, and nothing here is ever in its way. A quiet log is watched
//! for one write; one that is written to is looked at again and again, the later the slower it
//! grows. One rotation at a time, one small step in each turn. Whoever wrote, and whether it
//! lives, is of no interest here. Without a watch (the simulator) nothing is looked at.
pub mod form;
pub mod pace;
pub(crate) mod pump;
pub(crate) mod room;
pub mod rotation;
mod sink;

use super::timers::{Timer, Timers};
use crate::process::Pid;
use crate::service::environment::{fifo_paths, in_home, is_piped, log_paths};
use crate::service::machine::Time;
use crate::service::options::{Compress, Log, LogFormat};
use crate::service::spec::{Id, Spec};
use crate::service::time::TimeFormat;
use crate::service::units::Bytes;
use crate::sys::archives;
use crate::sys::token::Token;
use crate::sys::{Errno, describe};
use form::{Form, Label};
use mio::Registry;
use pump::Pump;
use rotation::Rotation;
use rustix::fd::OwnedFd;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{FileType, Stat};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// From one look at a log that grows to the next.
const LOOK_MS: (u64, u64) = (1_000, 30_000);
/// The first looks at many services are spread over this time.
const SPREAD_MS: u64 = 500;
/// Looks that are due within so long are one wake-up.
const GRAIN_MS: u64 = 100;
/// stdout and stderr.
type Stream = usize;
/// Which log of which service.
type Number = u32;

fn number(id: Id, stream: Stream) -> Number {
    2 * id + stream as u32
}

/// A log that grows, as it was seen last.
#[derive(Debug, Default)]
struct Seen {
    size: u64,
    at: Time,
    wait_ms: u64,
}

/// A log that has grown beyond its size.
#[derive(Debug)]
struct Job {
    id: Id,
    path: String,
    log: Log,
}

#[derive(Debug, Default)]
pub(crate) struct Logs {
    watch: Option<OwnedFd>,
    /// Which logs are quiet until the next write, by the watch: instances may share a log, and then
    /// that.
    watched: BTreeSet<(i32, Number)>,
    /// The watch of each log; 0: none. Of a quiet log, as most are, this is all that is kept.
    watches: Vec<i32>,
    growing: BTreeMap<Number, Seen>,
    jobs: VecDeque<Job>,
    active: Option<(Job, Rotation)>,
    /// Why a service's logs are not as they should be.
    troubles: BTreeMap<Id, String>,
    /// Whose logs are, or were, on a disk without room: in which directory.
    full: BTreeMap<Id, PathBuf>,
    /// What happened, and to whom it belongs.
    pub(crate) news: Vec<(Id, String)>,
    pub(crate) pump: Pump,
    /// Processes that compress archives: children of the daemon's that are nobody's.
    pub(crate) compressing: Vec<Pid>,
}

/// Where in the home it stands which lines are on their way to a log.
const RECEIPT: &str = "logs/.receipt";
/// The first number of a service's sinks: those below are the foreground's.
const SINKS: u32 = 2;

impl Logs {
    /// From here on logs are looked at. Errors: what inotify_init(2) and epoll_ctl(2) say.
    pub(crate) fn open(&mut self, registry: &Registry, home: &str) -> std::io::Result<()> {
        let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Token::Logs.watch(registry, &watch)?;
        self.watch = Some(watch);
        self.pump.registry = Some(registry.try_clone()?);
        self.pump.remember(&in_home(home, RECEIPT));
        Ok(())
    }

    /// The lines of one that starts or was adopted go from FIFOs to logs. False: it writes itself.
    pub(crate) fn carry(&mut self, id: Id, spec: &Spec, home: &str) -> bool {
        if self.watch.is_none() || !is_piped(&spec.log) {
            return false;
        }
        let json = spec.log.log_format == LogFormat::Json;
        let time = spec.log.log_time.clone().or(json.then(TimeFormat::default));
        let form = Form { time, named: false, json };
        let (paths, fifos) = (log_paths(spec), fifo_paths(&spec.name));
        let names = ["stdout", "stderr"];
        let count = if paths[0] == paths[1] { 1 } else { 2 };
        let directly = spec.exec.user.is_some();
        for (stream, (path, fifo)) in paths.iter().zip(&fifos).enumerate().take(count) {
            let number = SINKS + number(id, stream);
            let label = Label { name: spec.name.clone(), width: 0, stream: names[stream] };
            let made = self.pump.file(number, &in_home(home, path), directly, &form);
            let made = made.and_then(|()| self.pump.stream(number, &in_home(home, fifo), label));
            if let Err(errno) = made {
                self.note(id, path, errno);
                return false;
            }
        }
        true
    }

    /// A service has started, or was adopted: its logs are looked at soon.
    pub(crate) fn follow(&mut self, id: Id, now: Time, timers: &mut Timers) {
        let stdout = number(id, 0);
        let is_followed = self.is_quiet(stdout) || self.growing.contains_key(&stdout);
        if self.watch.is_some() && !is_followed {
            let at = now + LOOK_MS.0 + u64::from(id) % SPREAD_MS;
            timers.set(Timer::Log(id), Some(at.next_multiple_of(GRAIN_MS)));
        }
    }

    /// A service is no more. Its logs stay.
    pub(crate) fn forget(&mut self, id: Id, timers: &mut Timers) {
        for number in (0..2).map(|stream| number(id, stream)) {
            self.growing.remove(&number);
            self.unwatch(number);
            self.pump.remove(SINKS + number);
        }
        self.jobs.retain(|job| job.id != id);
        self.troubles.remove(&id);
        self.full.remove(&id);
        timers.set(Timer::Log(id), None);
    }

    /// Logs that were quiet were written to.
    pub(crate) fn woken(&mut self, now: Time, timers: &mut Timers) {
        let Some(watch) = &self.watch else { return };
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(watch, &mut buffer);
        let (mut woken, mut is_lost) = (Vec::new(), false);
        while let Ok(event) = events.next() {
            is_lost |= event.events().contains(ReadFlags::QUEUE_OVERFLOW);
            let all = (event.wd(), 0)..=(event.wd(), Number::MAX);
            woken.extend(self.watched.range(all).map(|(_, number)| *number));
        }
        if is_lost {
            woken = self.watched.iter().map(|(_, number)| *number).collect();
        }
        for number in woken {
            self.unwatch(number);
            timers.set(Timer::Log(number / 2), Some(now));
        }
    }

    /// The next write to it wakes us.
    fn is_quiet(&self, number: Number) -> bool {
        self.watches.get(number as usize).is_some_and(|watch| *watch != 0)
    }

    fn unwatch(&mut self, number: Number) {
        let Some(watch) = self.watches.get_mut(number as usize) else { return };
        self.watched.remove(&(std::mem::take(watch), number));
    }

    /// Looks how large the logs of a service are. When to look again; none: when we are woken.
    pub(crate) fn look(
        &mut self,
        id: Id,
        log: &Log,
        paths: &[String; 2],
        (now, wall): (Time, u64),
        home: &str,
    ) -> Option<Time> {
        let mut next: Option<Time> = None;
        for (stream, path) in
            paths.iter().enumerate().take(if paths[0] == paths[1] { 1 } else { 2 })
        {
            let at = self.look_at(id, stream, path, log, now);
            let (directory, _) = archives::place(Path::new(path));
            match room::is_full(directory) {
                true => self.give_way(id, home, directory),
                false => drop(self.full.remove(&id)),
            }
            let expiry = self.expiry(path, log, wall).map(|left| now + left);
            next = next.into_iter().chain(at).chain(expiry).min();
        }
        next
    }

    /// Removes the archives of a log that are too old. How long it is until the next one is.
    fn expiry(&self, path: &str, log: &Log, wall: u64) -> Option<u64> {
        let age = log.log_max_age?.ms;
        if self.is_rotated(path) {
            return Some(LOOK_MS.1);
        }
        let oldest = trim(path, log, wall)?;
        Some(oldest.saturating_add(age).saturating_sub(wall).max(LOOK_MS.0))
    }

    /// Whether a part of this log is, or is about to be, on its way to an archive.
    fn is_rotated(&self, path: &str) -> bool {
        let active = self.active.iter().map(|(job, _)| job);
        active.chain(&self.jobs).any(|job| job.path == path)
    }

    fn look_at(
        &mut self,
        id: Id,
        stream: Stream,
        path: &str,
        log: &Log,
        now: Time,
    ) -> Option<Time> {
        if log.log_max_size == Bytes(0) {
            return None;
        }
        let stat = size_of(path)?;
        let stored = stored(&stat);
        if stored >= log.log_max_size.0 && !self.is_rotated(path) {
            self.jobs.push_back(Job { id, path: path.to_owned(), log: log.clone() });
        }
        let number = number(id, stream);
        if self.is_quiet(number) {
            return None;
        }
        let seen = self.growing.entry(number).or_default();
        let size = stat.st_size.unsigned_abs();
        let (grown, elapsed) = (size.abs_diff(seen.size), now.saturating_sub(seen.at).max(1));
        (seen.size, seen.at) = (size, now);
        // Half of the way to its bound at this pace.
        let left = log.log_max_size.0.saturating_sub(stored) / 2;
        if let Some(half) = left.saturating_mul(elapsed).checked_div(grown) {
            seen.wait_ms = (seen.wait_ms * 2).min(half).clamp(LOOK_MS.0, LOOK_MS.1);
            return Some(now + seen.wait_ms);
        }
        let added = self
            .watch
            .as_ref()
            .map(|watch| inotify::add_watch(watch, path, WatchFlags::MODIFY | WatchFlags::ONESHOT));
        let Some(Ok(wd)) = added else {
            // No watch is left: then by the clock, and seldom.
            seen.wait_ms = LOOK_MS.1;
            return Some(now + LOOK_MS.1);
        };
        self.growing.remove(&number);
        let index = number as usize;
        if self.watches.len() <= index {
            self.watches.resize(index + 1, 0);
        }
        self.watches[index] = wd;
        self.watched.insert((wd, number));
        // What was written before the watch was there.
        (size_of(path)?.st_size.unsigned_abs() != size).then_some(now + LOOK_MS.0)
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.active.is_some() || !self.jobs.is_empty() || self.pump.is_busy()
    }

    /// What is to be passed on now, and one step of one rotation.
    pub(crate) fn work(&mut self, home: &str, wall: u64) {
        self.pump.turn();
        for (number, log) in std::mem::take(&mut self.pump.full) {
            let id = (number - SINKS) / 2;
            self.full.remove(&id);
            self.give_way(id, home, archives::place(Path::new(&log)).0);
        }
        let Some((job, mut rotation)) = self.active.take().or_else(|| self.next()) else { return };
        match rotation.step() {
            Ok(false) => self.active = Some((job, rotation)),
            Ok(true) => {
                self.troubles.remove(&job.id);
                trim(&job.path, &job.log, wall);
                self.compressing.extend(compress(&job));
                let directory = archives::place(Path::new(&job.path)).0;
                let gone = room::limit(home, directory);
                self.news.extend(gone.map(|text| (job.id, text)));
                // There may be more of it.
                self.jobs.push_back(job);
            }
            Err(Errno::NOSPC | Errno::DQUOT) => self.make_room(job, rotation),
            Err(errno) => {
                rotation.abandon();
                self.note(job.id, &job.path, errno);
            }
        }
    }

    fn next(&mut self) -> Option<(Job, Rotation)> {
        let job = self.jobs.pop_front()?;
        match Rotation::begin(Path::new(&job.path), job.log.log_max_size.0) {
            Ok(rotation) => Some((job, rotation?)),
            Err(errno) => {
                self.note(job.id, &job.path, errno);
                None
            }
        }
    }

    /// The disk is full: the oldest archive goes, and where there is none the log's own head.
    fn make_room(&mut self, job: Job, mut rotation: Rotation) {
        let text = match room::drop_oldest(archives::place(&rotation.log).0) {
            Some(archive) => format!("{} went", archive.path.display()),
            None => match rotation.drop_head() {
                Ok(()) => format!("the first {} bytes of {} went", rotation.length, job.path),
                Err(errno) => {
                    rotation.abandon();
                    return self.note(job.id, &job.path, errno);
                }
            },
        };
        self.full.insert(job.id, archives::place(&rotation.log).0.to_owned());
        self.news.push((job.id, format!("the disk is full: {text}")));
        self.active = Some((job, rotation));
    }

    /// A log can't be rotated while it is written to: said once.
    fn note(&mut self, id: Id, path: &str, errno: Errno) {
        let why = describe(errno);
        let text = format!("{path} can't be kept within its bound, or bear times: {why}");
        if self.troubles.insert(id, text.clone()) != Some(text.clone()) {
            self.news.push((id, text));
        }
    }

    /// Why the logs of a service have no bound, if so.
    pub(crate) fn trouble(&self, id: Id) -> Option<String> {
        self.full_disk(id).or_else(|| self.troubles.get(&id).cloned())
    }

    /// Where its logs find no room now.
    pub(crate) fn full_disk(&self, id: Id) -> Option<String> {
        let directory = self.full.get(&id).filter(|directory| room::is_full(directory))?;
        Some(format!("the disk of {} is full: its oldest lines go first", directory.display()))
    }

    /// The disk of this directory is full: archives give way.
    fn give_way(&mut self, id: Id, home: &str, directory: &Path) {
        let gone = room::limit(home, directory);
        let is_known = self.full.insert(id, directory.to_owned()).is_some() && gone.is_none();
        let text = || "the disk is full, and no archive is left: lines are lost".to_owned();
        self.news.extend((!is_known).then(|| (id, gone.unwrap_or_else(text))));
    }

    /// Nothing of a service lives: directories of its own log paths are made where somebody cleaned
    /// up, and logs that could not be rotated while it lived become archives as they are.
    pub(crate) fn before_start(&mut self, id: Id, spec: &Spec, paths: &[String; 2], wall: u64) {
        let log = &spec.log;
        let has_names = log.log_out.is_some() || log.log_error.is_some();
        // Not below what may be another user's: a link there would lead root astray.
        if self.watch.is_some() && has_names && spec.exec.user.is_none() {
            for directory in paths.iter().filter_map(|path| Path::new(path).parent()) {
                // `info` and `doctor` look for themselves whether a log can be written to.
                std::fs::create_dir_all(directory).ok();
            }
        }
        if self.troubles.remove(&id).is_none() {
            return;
        }
        for path in paths {
            let stat = size_of(path).filter(|stat| stored(stat) >= log.log_max_size.0);
            if stat.is_some() && rotation::put_away(Path::new(path)).is_ok() {
                trim(path, log, wall);
            }
        }
    }

    /// A log was emptied: its archives go, too.
    pub(crate) fn drop_archives(&mut self, path: &str) {
        self.jobs.retain(|job| job.path != path);
        if let Some((_, rotation)) = self.active.take_if(|(job, _)| job.path == path) {
            rotation.abandon();
        }
        for archive in archives::of(Path::new(path)) {
            rustix::fs::unlink(&archive.path).ok();
        }
    }
}

/// What a regular file has; none: it isn't one.
fn size_of(path: &str) -> Option<Stat> {
    let stat = rustix::fs::lstat(path).ok()?;
    (FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile).then_some(stat)
}

/// What is in a log, a hole at its head not counted.
fn stored(stat: &Stat) -> u64 {
    stat.st_size.min(stat.st_blocks.saturating_mul(512)).unsigned_abs()
}

/// The process that compresses a log's last archive but one; the last is for whoever follows.
fn compress(job: &Job) -> Option<Pid> {
    let words: &[&str] = match job.log.log_compress? {
        Compress::Zstd => &["-n", "19", "zstd", "-q", "-f", "--rm"],
        Compress::Gzip => &["-n", "19", "gzip", "-q", "-f"],
    };
    let all = archives::of(Path::new(&job.path));
    let archive = all.iter().rev().nth(1).filter(|archive| archive.is_compressed().is_none())?;
    let mut command = Command::new("nice");
    command.args(words).arg(&archive.path);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().ok().map(|child| child.id().cast_signed())
}

/// Removes archives that are too many or too old. When the oldest of the rest was written.
fn trim(path: &str, log: &Log, wall: u64) -> Option<u64> {
    let mut all = archives::of(Path::new(path));
    let surplus = all.len().saturating_sub(log.log_keep as usize);
    let oldest = log.log_max_age.map_or(0, |age| wall.saturating_sub(age.ms));
    for (at, archive) in all.iter_mut().enumerate() {
        if at < surplus || archive.modified < oldest {
            rustix::fs::unlink(&archive.path).ok();
            archive.modified = u64::MAX;
        }
    }
    all.iter().map(|archive| archive.modified).filter(|at| *at < u64::MAX).min()
}

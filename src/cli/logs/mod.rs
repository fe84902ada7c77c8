//! `logs`: what services wrote, byte by byte, from the files themselves: no daemon is needed.
mod lines;
mod stream;

use super::client::{Connection, Need};
use super::follow::Removal;
use super::output::{Done, Failure, error, failed, print, print_json, reason, warn, write};
use super::poll;
use super::request::{Call, Found, collect};
use super::services::look;
use crate::service::environment::NULL;
use crate::service::name::file_name_of;
use crate::service::selector::Selector;
use crate::service::time::rfc3339;
use crate::service::units::{Span, human_bytes};
use crate::wire::{LogFiles, Request, code};
use lines::{Label, Lines, Wish, time_of};
use regex_lite::Regex;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use stream::{READ_BYTES, Stream};

/// How long it is counted what is written, for `--stats`.
const COUNT_TIME: Duration = Duration::from_secs(1);
/// `--lines all`.
pub(super) const ALL_LINES: u32 = u32::MAX;

struct Tail {
    label: Label,
    stream: Stream,
    lines: Lines,
}

pub(super) fn logs(call: &Call) -> Done {
    let (files, worst) = files(call)?;
    let names: Vec<String> = files.iter().map(|file| file.name.clone()).collect();
    let mut tails = tails(call, files);
    if call.flag("stats") {
        stats(call, &mut tails)?;
        return Ok(worst);
    }
    let follow = call.flag("follow") && !call.flag("nostream") && !tails.is_empty();
    let wish = wish(call)?;
    // Watched before the first look: what is written in between is then seen twice as an
    // event and once as text, never missed.
    let watch = if follow { Some(watch_directories(&tails)?) } else { None };
    let given = call.matches.value_source("lines") == Some(clap::parser::ValueSource::CommandLine);
    let lines = call.matches.get_one::<u32>("lines").copied().unwrap_or_default();
    let lines = if wish.since > 0 && !given { ALL_LINES } else { lines };
    for tail in &mut tails {
        tail.reopen(watch.as_ref())?;
        let all = lines == ALL_LINES || wish.filter.is_some();
        let stream = &mut tail.stream;
        let stands = if all { stream.rewind(wish.since) } else { stream.stand_at_last(lines) };
        stands.map_err(|error| tail.wrong(error))?;
    }
    let raw = call.flag("raw") || wish.json || tails.len() == 1;
    print_last(&mut tails, lines, &wish, raw)?;
    if let Some(watch) = watch {
        follow_all(&mut tails, &watch, &names, call, &wish, !raw)?;
    }
    Ok(worst)
}

fn tails(call: &Call, files: Vec<LogFiles>) -> Vec<Tail> {
    let mut tails: Vec<Tail> = Vec::new();
    let (err, out) = (call.flag("err") || call.flag("errors-only"), call.flag("out"));
    for LogFiles { id, name, out: out_path, error: err_path } in files {
        let (Some(out_path), Some(err_path)) = (out_path, err_path) else {
            let text = "its output is that of opm run (see its terminal or the container's log)";
            error(&format!("{name}: {text}"));
            continue;
        };
        let merged = out_path == err_path;
        let pair = [("out", out_path, err && !merged), ("error", err_path, out || merged)];
        for (stream, path, _) in pair.into_iter().filter(|(_, _, unwanted)| !unwanted) {
            let label = Label { service: name.clone(), stream, number: id };
            let (stream, lines) = (Stream::new(path.into()), Lines::default());
            tails.push(Tail { label, stream, lines });
        }
    }
    tails
}

fn wish(call: &Call) -> Result<Wish, Failure> {
    let since = call.matches.get_one::<Span>("since").map(|span| unix_ms().saturating_sub(span.ms));
    Ok(Wish {
        filter: call.matches.get_one::<Regex>("filter").cloned(),
        since: since.unwrap_or(0),
        json: call.flag("json"),
        stamped: call.flag("timestamp"),
        colour: look().colour,
    })
}

pub(super) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Shows the last lines: of several logs by their times, where all say when they were written,
/// else one log after the other under a title.
fn print_last(tails: &mut [Tail], count: u32, wish: &Wish, raw: bool) -> Result<(), Failure> {
    let is_bounded = count != ALL_LINES && (tails.len() > 1 || wish.filter.is_some());
    let mut found = Vec::new();
    for tail in tails.iter_mut().filter(|_| is_bounded) {
        found.push(tail.last(count as usize, wish)?);
    }
    let mut firsts = found.iter().filter_map(VecDeque::front).peekable();
    if found.len() > 1 && firsts.peek().is_some() && firsts.all(|line| time_of(line).is_some()) {
        return print_by_time(tails, found, wish, !raw);
    }
    for (at, tail) in tails.iter_mut().enumerate() {
        let mut lines = found.get_mut(at).map(std::mem::take);
        if !raw && lines.as_ref().is_none_or(|lines| !lines.is_empty()) {
            let (Label { service, stream, .. }, path) = (&tail.label, tail.stream.path.display());
            print(&format!("==> {service} {stream} ({path}) <=="))?;
        }
        match &mut lines {
            None => tail.copy(wish, None, false)?,
            Some(lines) => {
                let shown = lines.iter().map(|line| wish.shown(line, &tail.label, None, false));
                write(&shown.collect::<Vec<_>>().concat())?;
            }
        }
    }
    Ok(())
}

fn print_by_time(
    tails: &[Tail],
    found: Vec<VecDeque<Vec<u8>>>,
    wish: &Wish,
    prefixed: bool,
) -> Result<(), Failure> {
    let mut all = Vec::new();
    for (tail, lines) in tails.iter().zip(found) {
        let mut time = 0;
        for line in lines {
            // What does not say it was written with the line before it.
            time = time_of(&line).unwrap_or(time);
            all.push((time, &tail.label, line));
        }
    }
    all.sort_by_key(|(time, ..)| *time);
    let shown = all.iter().map(|(_, label, line)| wish.shown(line, label, None, prefixed));
    write(&shown.collect::<Vec<_>>().concat())
}

/// Prints what is written until all services are removed, or nobody reads.
fn follow_all(
    tails: &mut [Tail],
    watch: &OwnedFd,
    names: &[String],
    call: &Call,
    wish: &Wish,
    prefixed: bool,
) -> Result<(), Failure> {
    let mut removal = Removal::of(names);
    let mut goes_on = true;
    while goes_on {
        // Before the look at the files: what was written before the removal is there by then.
        let is_complete = removal.is_complete(&call.client.home);
        for tail in &mut *tails {
            tail.reopen(Some(watch))?;
            tail.copy(wish, Some(watch), prefixed)?;
        }
        if is_complete {
            error(&format!("{}: removed", names.join(", ")));
            return Ok(());
        }
        let (connection, most) = removal.source();
        let sources: Vec<_> = connection.into_iter().chain([watch.as_fd()]).collect();
        goes_on = poll::wait(&sources, most)?;
        poll::drain(watch)?;
    }
    Ok(())
}

/// How much each log has, how fast it grows now, and its archives.
fn stats(call: &Call, tails: &mut [Tail]) -> Result<(), Failure> {
    for tail in &mut *tails {
        tail.reopen(None)?;
        tail.stream.stand_at_last(0).map_err(|error| tail.wrong(error))?;
    }
    std::thread::sleep(COUNT_TIME);
    let mut rows = Vec::new();
    for tail in tails {
        let (rate, (bytes, archives)) = tail.measure().map_err(|error| tail.wrong(error))?;
        let (Label { service, stream, .. }, path) = (&tail.label, &tail.stream.path);
        if call.flag("json") {
            rows.push(serde_json::json!({
                "service": service, "stream": stream, "path": path,
                "bytes": bytes, "archives": archives, "bytes_per_second": rate,
            }));
            continue;
        }
        let (bytes, rate, path) = (human_bytes(bytes), human_bytes(rate), path.display());
        print(&format!("{service} {stream}: {bytes}, {rate}/s, {archives} archives ({path})"))?;
    }
    if call.flag("json") { print_json(&rows) } else { Ok(()) }
}

/// The log files: what the daemon says, or, while it is away, what their names say.
fn files(call: &Call) -> Result<Found<LogFiles>, Failure> {
    let parsed = Selector::parse(&call.target()).map_err(Failure::usage)?;
    let mut need = Need::Running;
    if Connection::open(&call.client.home)?.is_none() {
        let directory = call.client.home.join("logs");
        let parts = parsed.parts();
        let found: Vec<LogFiles> =
            parts.iter().filter_map(|part| by_name(&directory, part.text())).collect();
        if found.len() == parts.len() {
            return Ok((found, code::DONE));
        }
        // An id, a glob or `all`: only a daemon knows which services that means.
        need = Need::Record;
    }
    told(call, need)
}

/// What the daemon says of the log files of those that the target means.
pub(super) fn told(call: &Call, need: Need) -> Result<Found<LogFiles>, Failure> {
    collect(call, need, |target| Request::Logs { target }, |file: &LogFiles| file.id)
}

fn by_name(directory: &Path, name: &str) -> Option<LogFiles> {
    let stem = file_name_of(name);
    let path = |kind: &str| directory.join(format!("{stem}-{kind}.log"));
    let (out, error) = (path("out"), path("error"));
    if !out.exists() && !error.exists() {
        return None;
    }
    let text = |path: PathBuf| path.into_os_string().into_string().ok();
    Some(LogFiles { id: 0, name: name.to_owned(), out: text(out), error: text(error) })
}

impl Tail {
    fn wrong(&self, error: std::io::Error) -> Failure {
        failed(self.stream.path.display())(error)
    }

    /// What came since it was last read, and what there is on disk.
    fn measure(&mut self) -> std::io::Result<(u64, (u64, usize))> {
        let mut bytes = vec![0; READ_BYTES];
        let mut fresh = 0;
        loop {
            match self.stream.read(&mut bytes)? {
                0 => return Ok((fresh, self.stream.measure()?)),
                length => fresh += length as u64,
            }
        }
    }

    /// Takes the file that has the name now, and has it watched.
    fn reopen(&mut self, watch: Option<&OwnedFd>) -> Result<(), Failure> {
        let was_odd = self.stream.is_odd;
        self.stream.open_first().map_err(|error| self.wrong(error))?;
        if self.stream.is_odd && !was_odd {
            let path = self.stream.path.display();
            warn(&if self.stream.path == Path::new(NULL) {
                format!("{} {}: is not kept ({path})", self.label.service, self.label.stream)
            } else {
                format!("{path}: it is no regular file")
            });
        }
        self.watch(watch);
        Ok(())
    }

    /// Before it is read: what is written from here on wakes us.
    fn watch(&mut self, watch: Option<&OwnedFd>) {
        if let Some(watch) = watch.filter(|_| self.stream.is_new()) {
            add_watch(watch, &self.stream.path, WatchFlags::MODIFY);
        }
    }

    /// Shows what comes, to its end.
    fn copy(
        &mut self,
        wish: &Wish,
        watch: Option<&OwnedFd>,
        prefixed: bool,
    ) -> Result<(), Failure> {
        let mut bytes = vec![0; READ_BYTES];
        loop {
            let length = self.stream.read(&mut bytes).map_err(|error| self.wrong(error))?;
            self.watch(watch);
            if length == 0 {
                break;
            }
            let fresh = &bytes[..length];
            if wish.is_plain() && !prefixed {
                write(fresh)?;
                continue;
            }
            let now = watch.map(|_| rfc3339(unix_ms()));
            let (mut shown, label) = (Vec::new(), &self.label);
            self.lines.put(fresh, wish, |line| {
                shown.extend(wish.shown(line, label, now.as_deref(), prefixed));
            });
            write(&shown)?;
        }
        if watch.is_none() {
            let rest = self.lines.take_rest(wish);
            let shown = rest.map(|line| wish.shown(&line, &self.label, None, prefixed));
            write(&shown.unwrap_or_default())?;
        }
        Ok(())
    }

    fn last(&mut self, count: usize, wish: &Wish) -> Result<VecDeque<Vec<u8>>, Failure> {
        let mut found = VecDeque::new();
        let mut bytes = vec![0; READ_BYTES];
        loop {
            let length = self.stream.read(&mut bytes).map_err(|error| self.wrong(error))?;
            if length == 0 {
                break;
            }
            self.lines.put(&bytes[..length], wish, |line| {
                if found.len() == count {
                    found.pop_front();
                }
                found.push_back(line.to_vec());
            });
        }
        found.extend(self.lines.take_rest(wish));
        let surplus = found.len().saturating_sub(count);
        found.drain(..surplus);
        Ok(found)
    }
}

/// A watch of the directories, for files that come. The files themselves are watched for what is
/// written, one by one: a busy neighbour in the same directory wakes nobody.
fn watch_directories(tails: &[Tail]) -> Result<OwnedFd, Failure> {
    let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK);
    let watch = watch.map_err(failed("inotify"))?;
    let comes = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
    for directory in tails.iter().filter_map(|tail| tail.stream.path.parent()) {
        add_watch(&watch, directory, comes);
    }
    Ok(watch)
}

fn add_watch(watch: &OwnedFd, path: &Path, flags: WatchFlags) {
    // What isn't there yet comes with an event; without a free watch say so.
    if let Err(e) = inotify::add_watch(watch, path, flags)
        && e != Errno::NOENT
    {
        warn(&format!("{}: {}", path.display(), reason(e)));
    }
}

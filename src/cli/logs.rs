//! `logs`: the last lines of what services wrote, read from the files themselves, so that it
//! works while the daemon is away. Bytes pass as they are.
//!
//! Never reads a file from its beginning: the end is found backwards, within a bound.
use super::Call;
use super::ask::{Found, collect};
use super::client::Need;
use super::follow::{self, Removal};
use super::output::{Done, Failure, complain, put, warn, why};
use crate::service::name::file_name_of;
use crate::service::selector::Selector;
use crate::wire::{LogFiles, Reply, Request, code};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// How far back from the end of a file its last lines are looked for.
const TAIL_BYTES_MAX: u64 = 64 << 20;
const READ_BYTES: usize = 64 << 10;
/// A line that is longer gets its prefix again in the middle.
const LINE_BYTES_MAX: usize = 64 << 10;

/// One stream of one service.
struct Stream {
    service: String,
    kind: &'static str,
    path: PathBuf,
}

pub(super) fn logs(call: &Call) -> Done {
    let (files, worst) = files(call)?;
    let names: Vec<String> = files.iter().map(|file| file.name.clone()).collect();
    let mut streams = Vec::new();
    for LogFiles { name, out, error, .. } in files {
        let (Some(out), Some(error)) = (out, error) else {
            let text = "its output is that of opm run (see its terminal or the container's log)";
            complain(&format!("{name}: {text}"));
            continue;
        };
        let pair = [("out", out, call.flag("err")), ("error", error, call.flag("out"))];
        for (kind, path, unwanted) in pair {
            if !unwanted {
                streams.push(Stream { service: name.clone(), kind, path: path.into() });
            }
        }
    }
    let follow = call.flag("follow") && !streams.is_empty();
    let lines = call.matches.get_one::<u32>("lines").copied().unwrap_or_default();
    // Watched before the first look: what is written in between is then seen twice as an
    // event and once as text, never missed.
    let watch = if follow { Some(watch(&streams)?) } else { None };
    let alone = streams.len() == 1;
    let mut tails = Vec::new();
    for stream in streams {
        let mut tail = Tail::open(stream)?;
        tail.last_lines(lines, !alone)?;
        tails.push(tail);
    }
    if let Some(watch) = watch {
        let mut removal = Removal::of(&names);
        while turn(&mut tails, &watch, !alone, &removal)? {
            if removal.is_complete(&call.client) {
                tails.iter_mut().try_for_each(|tail| tail.go_on(&watch, !alone))?;
                complain(&format!("{}: removed", names.join(", ")));
                break;
            }
        }
    }
    Ok(worst)
}

/// The log files: what the daemon says, or, while it is away, what their names say.
fn files(call: &Call) -> Result<Found<LogFiles>, Failure> {
    let parsed = Selector::parse(&call.target()).map_err(Failure::usage)?;
    let mut need = Need::Running;
    if call.client.try_connect()?.is_none() {
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
    let request = |target| Request::Logs { target };
    collect(call, need, request, |reply| {
        let Reply::Logs(files) = reply else {
            return None;
        };
        Some(files.drain(..).map(|file| (file.id, file)).collect())
    })
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

/// One file that is being read.
struct Tail {
    stream: Stream,
    file: Option<File>,
    at: u64,
    /// Something else than a file has its name, and that was said.
    odd: bool,
    /// The beginning of a line whose end isn't there yet.
    partial: Vec<u8>,
}

impl Tail {
    fn open(stream: Stream) -> Result<Self, Failure> {
        let mut tail = Self { stream, file: None, at: 0, odd: false, partial: Vec::new() };
        tail.reopen()?;
        Ok(tail)
    }

    fn wrong(&self, error: std::io::Error) -> Failure {
        Failure::plain(format!("{}: {}", self.stream.path.display(), why(error)))
    }

    /// Takes the file that has the name now, if it is another one. True if so.
    fn reopen(&mut self) -> Result<bool, Failure> {
        let identity = |m: std::fs::Metadata| (m.dev(), m.ino());
        let named = std::fs::metadata(&self.stream.path).ok().map(identity);
        let held = self.file.as_ref().and_then(|file| file.metadata().ok()).map(identity);
        // A name that is gone for a moment (rotation): the held file goes on.
        if named.is_none() || named == held {
            return Ok(false);
        }
        match open(&self.stream.path) {
            Ok(file) => self.file = Some(file),
            // A FIFO would keep us waiting, a device may have no end: what it is now, it was at
            // the start.
            Err(e) if e.kind() == std::io::ErrorKind::InvalidInput => {
                if !std::mem::replace(&mut self.odd, true) {
                    warn(&format!("{}: it is no regular file", self.stream.path.display()));
                }
                return Ok(false);
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(self.wrong(e)),
        }
        self.at = 0;
        Ok(true)
    }

    /// Prints the last `count` lines, and stands at the end then.
    fn last_lines(&mut self, count: u32, titled: bool) -> Result<(), Failure> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let end = file.metadata().map_err(|e| self.wrong(e))?.len();
        let begin = begin_of_last(file, end, count).map_err(|e| self.wrong(e))?;
        if titled && begin < end {
            let Stream { service, kind, path } = &self.stream;
            put(format!("==> {service} {kind} ({}) <==\n", path.display()).as_bytes())?;
        }
        self.at = begin;
        let last = self.copy_to(end, None)?;
        // The next title, or the first prefix, needs a line of its own.
        if titled && last.is_some_and(|byte| byte != b'\n') {
            put(b"\n")?;
        }
        Ok(())
    }

    /// Prints from where it stands to `end`. Returns the last byte.
    fn copy_to(&mut self, end: u64, prefix: Option<&str>) -> Result<Option<u8>, Failure> {
        let mut bytes = vec![0; READ_BYTES];
        let mut last = None;
        while self.at < end {
            let Some(file) = &self.file else { break };
            let room = usize::try_from(end - self.at).unwrap_or(READ_BYTES).min(READ_BYTES);
            let n = match file.read_at(&mut bytes[..room], self.at) {
                // Cut by `flush` in this moment.
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(self.wrong(e)),
            };
            self.at += n as u64;
            last = Some(bytes[n - 1]);
            match prefix {
                None => put(&bytes[..n])?,
                Some(prefix) => put(&prefixed(&mut self.partial, &bytes[..n], prefix))?,
            }
        }
        Ok(last)
    }

    /// Prints what is new, and watches the file if that is another one.
    fn go_on(&mut self, watch: &OwnedFd, prefix: bool) -> Result<(), Failure> {
        let before = self.file.is_some();
        let label = prefix.then(|| format!("{} | ", self.stream.service));
        let inode = self.file.as_ref().and_then(|f| f.metadata().ok()).map(|m| m.ino());
        self.catch_up(label.as_deref())?;
        let now = self.file.as_ref().and_then(|f| f.metadata().ok()).map(|m| m.ino());
        if !before || inode != now {
            watch_file(watch, &self.stream.path);
            // What was written before the watch.
            self.catch_up(label.as_deref())?;
        }
        Ok(())
    }

    /// Prints what is new.
    fn catch_up(&mut self, prefix: Option<&str>) -> Result<(), Failure> {
        loop {
            if let Some(file) = &self.file {
                let end = file.metadata().map_err(|e| self.wrong(e))?.len();
                if end < self.at {
                    self.at = 0;
                }
                self.copy_to(end, prefix)?;
            }
            // Rotated: the rest of the old file was printed, now the new one.
            if !self.reopen()? {
                return Ok(());
            }
        }
    }
}

/// Opens a log without waiting for anybody. A link is followed: it is our own, as all that is in
/// the home.
fn open(path: &Path) -> std::io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(std::io::ErrorKind::InvalidInput.into()) }
}

/// Where the last `count` lines of the first `end` bytes begin; a last line without a newline
/// counts.
fn begin_of_last(file: &File, end: u64, count: u32) -> std::io::Result<u64> {
    if count == 0 {
        return Ok(end);
    }
    let bound = end.saturating_sub(TAIL_BYTES_MAX);
    let mut bytes = vec![0; READ_BYTES];
    let (mut at, mut found) = (end, 0);
    while at > bound {
        let step = usize::try_from(at - bound).unwrap_or(READ_BYTES).min(READ_BYTES);
        at -= step as u64;
        match file.read_exact_at(&mut bytes[..step], at) {
            // Cut in this moment, by `flush` or a rotation: what it had is gone.
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(at),
            read => read?,
        }
        for (n, byte) in bytes[..step].iter().enumerate().rev() {
            let position = at + n as u64 + 1;
            if *byte != b'\n' || position == end {
                continue;
            }
            found += 1;
            if found == count {
                return Ok(position);
            }
        }
    }
    Ok(bound)
}

/// The whole lines of `partial` and `bytes`, each behind `prefix`; the rest stays in `partial`.
fn prefixed(partial: &mut Vec<u8>, bytes: &[u8], prefix: &str) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes.len() + prefix.len() * 4);
    for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
        partial.extend_from_slice(piece);
        if piece.ends_with(b"\n") || partial.len() >= LINE_BYTES_MAX {
            text.extend_from_slice(prefix.as_bytes());
            text.append(partial);
            if !piece.ends_with(b"\n") {
                text.push(b'\n');
            }
        }
    }
    text
}

/// Watches the directories for files that come, and the files for what is written. A busy
/// neighbour in the same directory wakes nobody.
fn watch(streams: &[Stream]) -> Result<OwnedFd, Failure> {
    let wrong = |e: Errno| Failure::plain(format!("inotify: {}", why(e)));
    let flags = CreateFlags::CLOEXEC | CreateFlags::NONBLOCK;
    let watch = inotify::init(flags).map_err(wrong)?;
    let comes = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
    for stream in streams {
        if let Some(directory) = stream.path.parent()
            && let Err(e) = inotify::add_watch(&watch, directory, comes)
        {
            // Without the directory there is no log yet; without a free watch say so.
            if e != Errno::NOENT {
                warn(&format!("{}: {}", directory.display(), why(e)));
            }
        }
        watch_file(&watch, &stream.path);
    }
    Ok(watch)
}

fn watch_file(watch: &OwnedFd, path: &Path) {
    if let Err(e) = inotify::add_watch(watch, path, WatchFlags::MODIFY)
        && e != Errno::NOENT
    {
        warn(&format!("{}: {}", path.display(), why(e)));
    }
}

/// Prints what is new and waits for more, or for news of the services. False: nobody reads.
fn turn(
    tails: &mut [Tail],
    watch: &OwnedFd,
    prefix: bool,
    removal: &Removal,
) -> Result<bool, Failure> {
    tails.iter_mut().try_for_each(|tail| tail.go_on(watch, prefix))?;
    let (connection, most) = removal.source();
    let sources: Vec<BorrowedFd<'_>> = connection.into_iter().chain([watch.as_fd()]).collect();
    let goes_on = follow::wait(&sources, most)?;
    drain(watch)?;
    Ok(goes_on)
}

/// Takes the events off the queue: they only say that something happened.
fn drain(watch: &OwnedFd) -> Result<(), Failure> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(watch, &mut buffer);
    loop {
        match events.next() {
            Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => {}
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(()),
            Err(e) => return Err(Failure::plain(format!("inotify: {}", why(e)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail_of(text: &[u8], count: u32) -> Vec<u8> {
        let file: OwnedFd =
            rustix::fs::memfd_create("log", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let file = File::from(file);
        file.write_all_at(text, 0).unwrap();
        let begin = begin_of_last(&file, text.len() as u64, count).unwrap();
        text[usize::try_from(begin).unwrap()..].to_vec()
    }

    #[test]
    fn the_last_lines_are_found_with_and_without_a_last_newline() {
        for (count, whole, open) in
            [(0, "", ""), (1, "c\n", "c"), (2, "b\nc\n", "b\nc"), (9, "a\nb\nc\n", "a\nb\nc")]
        {
            assert_eq!(tail_of(b"a\nb\nc\n", count), whole.as_bytes(), "{count}");
            assert_eq!(tail_of(b"a\nb\nc", count), open.as_bytes(), "{count}");
        }
        assert_eq!(tail_of(b"", 3), b"");
        assert_eq!(tail_of(b"\n\n\n", 2), b"\n\n");
    }

    #[test]
    fn a_file_that_is_cut_while_it_is_read_is_no_error() {
        let file: OwnedFd =
            rustix::fs::memfd_create("log", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let file = File::from(file);
        file.write_all_at(b"a\n", 0).unwrap();
        assert_eq!(begin_of_last(&file, 1_000, 5).unwrap(), 0);
    }

    #[test]
    fn lines_across_the_blocks_of_a_read_are_found() {
        let line = [vec![b'x'; READ_BYTES - 3], b"\n".to_vec()].concat();
        let text = line.repeat(5);
        for count in 1..5 {
            assert_eq!(tail_of(&text, count).len(), line.len() * count as usize);
        }
    }

    #[test]
    fn a_prefix_stands_before_whole_lines_only() {
        let mut partial = Vec::new();
        assert_eq!(prefixed(&mut partial, b"a\nb\xff", "web | "), b"web | a\n");
        assert_eq!(prefixed(&mut partial, b"c\n\n", "web | "), b"web | b\xffc\nweb | \n");
        assert!(partial.is_empty());
    }
}

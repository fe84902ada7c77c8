//! `logs`: the last lines of what services wrote, read from the files themselves, so that it
//! works while the daemon is away. Bytes pass as they are.
//!
//! Never reads a file from its beginning: the end is found backwards, within a bound.
use super::client::Need;
use super::connection::Connection;
use super::follow::Removal;
use super::output::{Done, Failure, error, reason, warn, write};
use super::poll;
use super::request::{Call, Found, collect};
use crate::service::name::file_name_of;
use crate::service::selector::Selector;
use crate::wire::{LogFiles, Reply, Request, code};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use std::fs::{File, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// How far back from the end of a file its last lines are looked for.
const TAIL_BYTES_MAX: u64 = 64 << 20;
const READ_BYTES: usize = 64 << 10;
/// A line that is longer gets its prefix again in the middle.
const LINE_BYTES_MAX: usize = 64 << 10;

pub(super) fn logs(call: &Call) -> Done {
    let (files, worst) = files(call)?;
    let names: Vec<String> = files.iter().map(|file| file.name.clone()).collect();
    let mut tails = Vec::new();
    for LogFiles { name, out, error: err, .. } in files {
        let (Some(out), Some(err)) = (out, err) else {
            let text = "its output is that of opm run (see its terminal or the container's log)";
            error(&format!("{name}: {text}"));
            continue;
        };
        let pair = [("out", out, call.flag("err")), ("error", err, call.flag("out"))];
        let wanted = pair.into_iter().filter(|(_, _, unwanted)| !unwanted);
        tails.extend(wanted.map(|(kind, path, _)| Tail::new(&name, kind, path.into())));
    }
    let follow = call.flag("follow") && !tails.is_empty();
    let lines = call.matches.get_one::<u32>("lines").copied().unwrap_or_default();
    let is_one_of_many = tails.len() > 1;
    // Watched before the first look: what is written in between is then seen twice as an
    // event and once as text, never missed.
    let watch = if follow { Some(watch_directories(&tails)?) } else { None };
    for tail in &mut tails {
        tail.reopen(watch.as_ref())?;
        tail.last_lines(lines, is_one_of_many)?;
    }
    if let Some(watch) = watch {
        follow_all(&mut tails, &watch, &names, &call.client.home)?;
    }
    Ok(worst)
}

/// Prints what is written until all services are removed, or nobody reads.
fn follow_all(
    tails: &mut [Tail],
    watch: &OwnedFd,
    names: &[String],
    home: &Path,
) -> Result<(), Failure> {
    let is_one_of_many = tails.len() > 1;
    let mut removal = Removal::of(names);
    let mut goes_on = true;
    while goes_on {
        // Before the look at the files: what was written before the removal is there by then.
        let is_complete = removal.is_complete(home);
        for tail in &mut *tails {
            let prefix = is_one_of_many.then(|| format!("{} | ", tail.service));
            tail.catch_up(watch, prefix.as_deref())?;
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

/// One stream of one service, and how far it was read.
struct Tail {
    service: String,
    kind: &'static str,
    path: PathBuf,
    file: Option<File>,
    at: u64,
    /// Something else than a file has its name, and that was said.
    odd: bool,
    /// The beginning of a line whose end isn't there yet.
    partial: Vec<u8>,
}

impl Tail {
    fn new(service: &str, kind: &'static str, path: PathBuf) -> Self {
        let (service, partial) = (service.to_owned(), Vec::new());
        Self { service, kind, path, file: None, at: 0, odd: false, partial }
    }

    fn wrong(&self, error: std::io::Error) -> Failure {
        Failure::plain(format!("{}: {}", self.path.display(), reason(error)))
    }

    /// Takes the file that has the name now, if it is another one. True if so.
    fn reopen(&mut self, watch: Option<&OwnedFd>) -> Result<bool, Failure> {
        let identity = |m: Metadata| (m.dev(), m.ino());
        let named = std::fs::metadata(&self.path).ok().map(identity);
        let held = self.file.as_ref().and_then(|file| file.metadata().ok()).map(identity);
        // A name that is gone for a moment (rotation): the held file goes on.
        if named.is_none() || named == held {
            return Ok(false);
        }
        match open(&self.path) {
            Ok(file) => self.file = Some(file),
            // A FIFO would keep us waiting, a device may have no end: what it is now, it was at
            // the start.
            Err(e) if e.kind() == ErrorKind::InvalidInput => {
                if !std::mem::replace(&mut self.odd, true) {
                    warn(&format!("{}: it is no regular file", self.path.display()));
                }
                return Ok(false);
            }
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(self.wrong(e)),
        }
        self.at = 0;
        // Before it is read: what is written from here on wakes us.
        if let Some(watch) = watch {
            add_watch(watch, &self.path, WatchFlags::MODIFY);
        }
        Ok(true)
    }

    /// Prints the last `count` lines, and stands at the end then.
    fn last_lines(&mut self, count: u32, titled: bool) -> Result<(), Failure> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let end = file.metadata().map_err(|e| self.wrong(e))?.len();
        self.at = begin_of_last(file, end, count).map_err(|e| self.wrong(e))?;
        if titled && self.at < end {
            let Self { service, kind, path, .. } = self;
            write(format!("==> {service} {kind} ({}) <==\n", path.display()).as_bytes())?;
        }
        let last = self.copy_to(end, None)?;
        // The next title, or the first prefix, needs a line of its own.
        if titled && last.is_some_and(|byte| byte != b'\n') {
            write(b"\n")?;
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
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(self.wrong(e)),
            };
            self.at += n as u64;
            last = Some(bytes[n - 1]);
            match prefix {
                None => write(&bytes[..n])?,
                Some(prefix) => write(&prefixed(&mut self.partial, &bytes[..n], prefix))?,
            }
        }
        Ok(last)
    }

    /// Prints what is new.
    fn catch_up(&mut self, watch: &OwnedFd, prefix: Option<&str>) -> Result<(), Failure> {
        loop {
            if let Some(file) = &self.file {
                let end = file.metadata().map_err(|e| self.wrong(e))?.len();
                if end < self.at {
                    self.at = 0;
                }
                self.copy_to(end, prefix)?;
            }
            // Rotated: the rest of the old file was printed, now the new one.
            if !self.reopen(Some(watch))? {
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
    if file.metadata()?.is_file() { Ok(file) } else { Err(ErrorKind::InvalidInput.into()) }
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
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(at),
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

/// A watch of the directories, for files that come. The files themselves are watched for what is
/// written, one by one: a busy neighbour in the same directory wakes nobody.
fn watch_directories(tails: &[Tail]) -> Result<OwnedFd, Failure> {
    let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK);
    let watch = watch.map_err(|e| Failure::plain(format!("inotify: {}", reason(e))))?;
    let comes = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
    for directory in tails.iter().filter_map(|tail| tail.path.parent()) {
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

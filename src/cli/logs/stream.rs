//! One log with its archives as one stream of bytes, read while it is rotated.
//!
//! A place in the log means something only as long as the log begins where it began and no archive
//! has come: both are looked at after each read, before what was read is believed. Never reads
//! a file from its beginning to find its last lines.
use crate::sys::archives::{self, Archive, extent, path_of};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How far back from the end of a file its last lines are looked for.
const TAIL_BYTES_MAX: u64 = 64 << 20;
pub(super) const READ_BYTES: usize = 64 << 10;
/// A log that is rotated faster than it is looked at: what was found is taken then.
const LOOKS_MAX: u32 = 100;

type Result<T> = std::io::Result<T>;

/// An archive that is still to be read, or the rest of it.
struct Rest {
    path: PathBuf,
    /// So many of its bytes are passed over.
    skip: u64,
    source: Option<Box<dyn Read>>,
}

struct Picture {
    archives: Vec<Archive>,
    begin: u64,
    end: u64,
}

/// A log, and how far it was read.
pub(super) struct Stream {
    pub(super) path: PathBuf,
    log: Option<File>,
    /// What comes before the place in the log.
    rest: VecDeque<Rest>,
    at: u64,
    /// Where the log begins, as long as `last` is its youngest archive.
    begin: u64,
    last: u64,
    /// Something else than a file has its name.
    pub(super) is_odd: bool,
    /// Another file than before is read.
    is_new: bool,
}

impl Stream {
    /// At its very beginning: the oldest archive.
    pub(super) fn new(path: PathBuf) -> Self {
        let rest = VecDeque::new();
        Self { path, log: None, rest, at: 0, begin: 0, last: 0, is_odd: false, is_new: false }
    }

    /// Takes the file that has the name, if there was none before.
    pub(super) fn open_first(&mut self) -> Result<()> {
        if self.log.is_none() { self.reopen().map(drop) } else { Ok(()) }
    }

    /// Whether another file is read since this was asked last.
    pub(super) fn is_new(&mut self) -> bool {
        std::mem::take(&mut self.is_new)
    }

    /// Takes the file that has the name now, if it is another one. True if so.
    fn reopen(&mut self) -> Result<bool> {
        let identity = |m: std::fs::Metadata| (m.dev(), m.ino());
        let named = std::fs::metadata(&self.path).ok().map(identity);
        let held = self.log.as_ref().and_then(|file| file.metadata().ok()).map(identity);
        // A name that is gone for a moment (rotation): the held file goes on.
        if named.is_none() || named == held {
            return Ok(false);
        }
        let file = match open(&self.path) {
            Ok(file) => file,
            // A FIFO would keep us waiting, a device may have no end: it is what it was at the
            // start.
            Err(error) if error.kind() == ErrorKind::InvalidInput => {
                self.is_odd = true;
                return Ok(false);
            }
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        (self.begin, _) = extent(&file)?;
        self.at = self.begin;
        self.log = Some(file);
        self.is_new = true;
        Ok(true)
    }

    /// What is on disk at one instant: meanwhile no archive got its name, and none grew.
    fn picture(&self) -> Result<Picture> {
        let mut archives = archives::of(&self.path);
        for _ in 0..LOOKS_MAX {
            let (begin, end) = self.log.as_ref().map_or(Ok((0, 0)), extent)?;
            let again = archives::of(&self.path);
            if archives == again {
                archives.retain(|archive| archive.has_moved(begin, end) || self.log.is_none());
                return Ok(Picture { archives, begin, end });
            }
            archives = again;
        }
        Err(ErrorKind::TimedOut.into())
    }

    /// Begins with the oldest archive that is younger than this (Unix milliseconds).
    pub(super) fn rewind(&mut self, since: u64) -> Result<()> {
        let picture = self.picture()?;
        let wanted = picture.archives.iter().filter(|archive| archive.modified >= since);
        self.rest = wanted.map(|archive| Rest::whole(archive.path.clone())).collect();
        self.stand(&picture, picture.begin);
        Ok(())
    }

    /// Begins where the last `count` lines do; a last line without a newline counts.
    pub(super) fn stand_at_last(&mut self, count: u32) -> Result<()> {
        for _ in 0..LOOKS_MAX {
            let picture = self.picture()?;
            self.rest.clear();
            let mut search = Search { left: count.into(), is_fresh: true };
            let mut found = match &self.log {
                Some(log) => search
                    .back(picture.begin, picture.end, |into, at| log.read_exact_at(into, at))?,
                None => None,
            };
            self.stand(&picture, found.unwrap_or(picture.begin));
            // A log that was just rotated: the lines before it are in its archives.
            for archive in picture.archives.iter().rev() {
                if found.is_some() {
                    break;
                }
                let bytes = Rest::whole(archive.path.clone()).read_whole().unwrap_or_default();
                found = search.back(0, bytes.len() as u64, |into, at| {
                    let at = usize::try_from(at).unwrap_or(usize::MAX);
                    into.copy_from_slice(&bytes[at..at + into.len()]);
                    Ok(())
                })?;
                let skip = found.unwrap_or(0);
                self.rest.push_front(Rest { skip, ..Rest::whole(archive.path.clone()) });
            }
            if self.is_as_it_was()? {
                break;
            }
        }
        Ok(())
    }

    fn stand(&mut self, picture: &Picture, at: u64) {
        (self.at, self.begin) = (at, picture.begin);
        self.last = picture.archives.last().map_or(0, |archive| archive.number);
    }

    /// Whether the log begins where it began, and no archive has come.
    fn is_as_it_was(&self) -> Result<bool> {
        let Some(log) = &self.log else { return Ok(true) };
        // The youngest one is not compressed.
        let next = path_of(&self.path, self.last + 1);
        // A hole that was there is gone, and the next rotation has made one as long.
        let mut begun = next.clone().into_os_string();
        begun.push(".at-0");
        let is_there = |path: &Path| rustix::fs::lstat(path).is_ok();
        Ok(extent(log)?.0 == self.begin
            && !(self.begin > 0 && is_there(begun.as_ref()))
            && !is_there(&next))
    }

    /// The next bytes; 0: that is all for now.
    pub(super) fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        loop {
            if let Some(first) = self.rest.front_mut() {
                match first.read(into) {
                    Ok(0) => drop(self.rest.pop_front()),
                    // Dropped for want of room since it was listed.
                    Err(error) if error.kind() == ErrorKind::NotFound => {
                        drop(self.rest.pop_front());
                    }
                    read => return read,
                }
                continue;
            }
            let Some(log) = &self.log else {
                if self.reopen()? {
                    continue;
                }
                return Ok(0);
            };
            let length = match log.read_at(into, self.at) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read?,
            };
            // Before that: a rotation makes it shorter, too.
            let (_, end) = extent(log)?;
            if !self.is_as_it_was()? {
                self.follow_rotation()?;
                continue;
            }
            if end < self.at {
                // Cut by `flush`, or by somebody else.
                self.stand(&self.picture()?, self.begin);
                continue;
            }
            if length == 0 && self.reopen()? {
                continue;
            }
            self.at += length as u64;
            return Ok(length);
        }
    }

    /// The place is moved to where its bytes are now.
    fn follow_rotation(&mut self) -> Result<()> {
        let picture = self.picture()?;
        let held = self.log.as_ref().and_then(|log| log.metadata().ok()).map(|m| m.ino());
        let mut left = self.at.saturating_sub(self.begin);
        let fresh = picture.archives.iter().filter(|archive| archive.number > self.last);
        let (mut last, mut rest) = (self.last, VecDeque::new());
        for archive in fresh {
            last = archive.number;
            let stat = std::fs::metadata(&archive.path).ok();
            if stat.is_some_and(|stat| Some(stat.ino()) == held) {
                // It was put away as it is, and is read to its end.
                self.last = last;
                return Ok(());
            }
            let bytes = match archive.is_compressed() {
                Some(_) => Rest::whole(archive.path.clone()).read_whole()?.len() as u64,
                None => archive.bytes,
            };
            if left < bytes {
                rest.push_back(Rest { skip: left, ..Rest::whole(archive.path.clone()) });
            }
            left = left.saturating_sub(bytes);
        }
        if last == self.last && picture.begin > self.begin {
            // Somebody else has made a hole in it.
            left = left.saturating_sub(picture.begin - self.begin);
        }
        self.rest.append(&mut rest);
        (self.last, self.begin) = (last, picture.begin);
        self.at = picture.begin + left;
        if self.at > picture.end {
            self.at = picture.begin;
        }
        Ok(())
    }

    /// Bytes on disk, and how many archives.
    pub(super) fn measure(&self) -> Result<(u64, usize)> {
        let Picture { archives, begin, end } = self.picture()?;
        let archived: u64 = archives.iter().map(|archive| archive.bytes).sum();
        Ok((end - begin + archived, archives.len()))
    }
}

impl Rest {
    fn whole(path: PathBuf) -> Self {
        Self { path, skip: 0, source: None }
    }

    fn open(&self) -> Result<Box<dyn Read>> {
        // Named, and compressed, after it was listed: each name that is gone has a next one.
        let listed = self.path.to_string_lossy();
        let named = listed.split(".at-").next().unwrap_or_default();
        let is_packed = |name: &str| archives::COMPRESSED.iter().any(|end| name.ends_with(end));
        for name in [&listed, named].into_iter().filter(|name| !is_packed(name)) {
            if let Ok(mut file) = File::open(name) {
                file.seek(SeekFrom::Start(extent(&file)?.0 + self.skip))?;
                return Ok(Box::new(file));
            }
        }
        let mut packed = archives::COMPRESSED.iter().map(|end| format!("{named}.{end}"));
        let path = if is_packed(&listed) {
            Some(listed.to_string())
        } else {
            packed.find(|it| Path::new(it).exists())
        };
        let path = path.ok_or(ErrorKind::NotFound)?;
        let program = if path.ends_with("gz") { "gzip" } else { "zstd" };
        let mut command = Command::new(program);
        command.arg("-dc").arg(&path).stdin(Stdio::null()).stdout(Stdio::piped());
        // It ends when nobody reads its output.
        let child = command.spawn().map_err(|error| match error.kind() {
            ErrorKind::NotFound => std::io::Error::other(format!("{program} is needed to read it")),
            _ => error,
        })?;
        let mut out = child.stdout.ok_or(ErrorKind::BrokenPipe)?;
        std::io::copy(&mut out.by_ref().take(self.skip), &mut std::io::sink())?;
        Ok(Box::new(out))
    }

    fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        let source = match self.source.take() {
            Some(source) => source,
            None => self.open()?,
        };
        self.source.insert(source).read(into)
    }

    fn read_whole(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open()?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// A search for the last lines, from the end on.
struct Search {
    /// Ends of lines that are still to be found.
    left: u64,
    /// Nothing was looked at: the last newline of all ends the last line.
    is_fresh: bool,
}

impl Search {
    /// Where the lines begin, if that is between these two places of what `read` reads.
    fn back(
        &mut self,
        begin: u64,
        end: u64,
        read: impl Fn(&mut [u8], u64) -> Result<()>,
    ) -> Result<Option<u64>> {
        if self.left == 0 {
            return Ok(Some(end));
        }
        let bound = begin.max(end.saturating_sub(TAIL_BYTES_MAX));
        let mut bytes = vec![0; READ_BYTES];
        let mut at = end;
        while at > bound {
            let step = usize::try_from(at - bound).unwrap_or(READ_BYTES).min(READ_BYTES);
            at -= step as u64;
            match read(&mut bytes[..step], at) {
                // Cut in this moment, by `flush` or a rotation: what it had is gone.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(Some(at)),
                read => read?,
            }
            for (n, byte) in bytes[..step].iter().enumerate().rev() {
                let is_last = std::mem::replace(&mut self.is_fresh, false);
                if *byte != b'\n' || is_last {
                    continue;
                }
                self.left -= 1;
                if self.left == 0 {
                    return Ok(Some(at + n as u64 + 1));
                }
            }
        }
        Ok((bound > begin).then_some(bound))
    }
}

/// Opens a log without waiting for anybody. A link is followed: the home is our own.
fn open(path: &Path) -> Result<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(ErrorKind::InvalidInput.into()) }
}

//! A log and its archives on disk.
//!
//! `web-out.log` has the archives `web-out.log.000001`, `.000002` and so on: the higher number is
//! the younger one. End to end, and the log itself behind them, they are what was written, byte by
//! byte: a line may begin in one and end in the next. A compressed one ends in `.zst` or `.gz`.
//!
//! While an archive is made it is called `web-out.log.000003.at-N`: a copy of what lies in the log
//! from byte N on. It counts from the moment on that the log has lost the first of these bytes;
//! until then the log itself has them. So at every instant, whoever dies, each byte counts once.
use super::Result;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FallocateFlags, SeekFrom, Stat};
use std::path::{Path, PathBuf};

/// One archive.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Archive {
    /// The file name of its log.
    pub log: String,
    pub number: u64,
    pub path: PathBuf,
    /// Where in the log its bytes lie, as long as it is being made.
    pub begin: Option<u64>,
    /// What the file is long, compressed or not.
    pub bytes: u64,
    /// Unix milliseconds.
    pub modified: u64,
}

/// Digits of a number, at least: so that the names have the order of the numbers.
const DIGITS: usize = 6;
/// What stands behind the number of a compressed archive.
pub const COMPRESSED: [&str; 2] = ["zst", "gz"];

impl Archive {
    /// By its name.
    pub fn parse(path: PathBuf) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let (rest, begin) = match name.rsplit_once(".at-") {
            Some((rest, begin)) => (rest, Some(begin.parse().ok()?)),
            None => (name, None),
        };
        let packed = rest.rsplit_once('.').filter(|(_, end)| COMPRESSED.contains(end));
        let (log, digits) = packed.map_or(rest, |(rest, _)| rest).rsplit_once('.')?;
        let is_number = digits.len() >= DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
        let (log, number) = (log.to_owned(), digits.parse().ok().filter(|_| is_number)?);
        Some(Self { log, number, path, begin, bytes: 0, modified: 0 })
    }

    /// Whether its bytes are its own by now, and not those of the log any more, which begins and
    /// ends there.
    pub fn has_moved(&self, begin: u64, end: u64) -> bool {
        // Cut by somebody else, the log has lost all of them.
        self.begin.is_none_or(|at| begin > at || end < at.saturating_add(self.bytes))
    }

    /// Whether a program of this name is needed to read it.
    pub fn is_compressed(&self) -> Option<&'static str> {
        let end = self.path.extension()?;
        COMPRESSED.into_iter().find(|known| end == *known)
    }
}

/// The path of an archive.
pub fn path_of(log: &Path, number: u64) -> PathBuf {
    let mut path = log.as_os_str().to_owned();
    path.push(format!(".{number:0DIGITS$}"));
    path.into()
}

/// The archives in a directory, of this log or of all: by log and number. What is half compressed
/// is not there twice.
pub fn list(directory: &Path, of: Option<&str>) -> Vec<Archive> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let Some(mut archive) = Archive::parse(entry.path()) else { continue };
        if of.is_some_and(|of| of != archive.log) {
            continue;
        }
        let Ok(stat) = rustix::fs::lstat(&archive.path) else { continue };
        (archive.bytes, archive.modified) = (stat.st_size.unsigned_abs(), modified(&stat));
        found.push(archive);
    }
    found.sort_unstable();
    found.dedup_by(|packed, whole| packed.log == whole.log && packed.number == whole.number);
    found
}

/// The archives of a log, as [`list`] has them.
pub fn of(log: &Path) -> Vec<Archive> {
    let (directory, name) = place(log);
    list(directory, Some(name))
}

/// Unix milliseconds.
pub fn modified(stat: &Stat) -> u64 {
    u64::try_from(stat.st_mtime).unwrap_or(0) * 1_000 + stat.st_mtime_nsec / 1_000_000
}

/// The directory of a log, and its name in it.
pub fn place(log: &Path) -> (&Path, &str) {
    let directory = log.parent().filter(|path| !path.as_os_str().is_empty());
    let name = log.file_name().and_then(|name| name.to_str());
    (directory.unwrap_or(Path::new(".")), name.unwrap_or_default())
}

/// Where the bytes of a log begin and end: its head may be a hole. Errors: what fstat(2) says.
pub fn extent(log: impl AsFd) -> Result<(u64, u64)> {
    let data = || match rustix::fs::seek(&log, SeekFrom::Data(0)) {
        Ok(begin) => Some(begin),
        // Nothing but a hole, or nothing at all.
        Err(rustix::io::Errno::NXIO) => None,
        Err(_) => Some(0),
    };
    loop {
        let begin = data();
        let end = rustix::fs::fstat(&log)?.st_size.unsigned_abs();
        // Both of one instant: a hole that goes takes the end with it.
        if data() == begin {
            return Ok((begin.unwrap_or(end), end));
        }
    }
}

/// Gives back the room that bytes of a log take. They read as zero then, and others stay where they
/// are. Errors: EOPNOTSUPP: this file system can't.
pub fn punch(log: &OwnedFd, begin: u64, length: u64) -> Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(log, flags, begin, length)
}

/// The file system's blocks, of which whole ones can be taken out.
pub fn block_size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blksize).unwrap_or(1).max(1)
}

/// Of xfs. Its collapse ends with the new length, and gives that up when a fatal signal has come:
/// who is killed then leaves a hole before all that is appended from then on.
const XFS: u64 = 0x5846_5342;

/// Takes the hole at the head of a log out of it: whoever appends goes on doing so. Errors:
/// EOPNOTSUPP, EINVAL: this file system can't, and the hole stays.
pub fn collapse(log: &OwnedFd) -> Result<()> {
    if u64::try_from(rustix::fs::fstatfs(log)?.f_type) == Ok(XFS) {
        return Err(super::Errno::OPNOTSUPP);
    }
    let (begin, end) = extent(log)?;
    let block = block_size(&rustix::fs::fstat(log)?);
    let hole = begin / block * block;
    if hole == 0 || hole >= end {
        return Ok(());
    }
    rustix::fs::fallocate(log, FallocateFlags::COLLAPSE_RANGE, 0, hole)
}

//! The head of one log becomes an archive, while its service goes on writing to it.
//!
//! One step at a time, each small; whoever dies between two leaves a log and archives that are
//! still, end to end, what was written. The next rotation of that log takes up what it finds.
//!
//! | step | what it does | from then on |
//! |---|---|---|
//! | copy, repeated | 1 MB of the log's head to a file that doesn't count yet | |
//! | punch | the log loses these bytes, and nothing moves in it | the archive counts |
//! | rename | the archive gets its name | |
//! | collapse | the hole goes, where the file system can | offsets in the log are smaller |
use crate::sys::archives::{self, Archive, block_size, extent, path_of};
use crate::sys::home::open_regular;
use crate::sys::{Errno, Result};
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Mode, OFlags};
use std::path::{Path, PathBuf};

/// What is copied in one step.
const STEP_BYTES: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Copy,
    Punch,
    Rename,
    Collapse,
}

/// One log's head on its way.
#[derive(Debug)]
pub struct Rotation {
    pub log: PathBuf,
    live: OwnedFd,
    archive: OwnedFd,
    number: u64,
    temporary: PathBuf,
    begin: u64,
    pub length: u64,
    copied: u64,
    step: Step,
}

impl Rotation {
    /// What of a log is to become its next archive: whole blocks, about `size_max`, and not the
    /// last byte. None: it is not that large. Errors: what open(2) and fallocate(2) say of the log;
    /// ENOSPC, EDQUOT.
    pub fn begin(log: &Path, size_max: u64) -> Result<Option<Self>> {
        let text = log.to_str().ok_or(Errno::INVAL)?;
        let live = open_regular(CWD, text, OFlags::RDWR)?;
        let last = settle(log, &live)?;
        let (begin, end) = extent(&live)?;
        if end.saturating_sub(begin) < size_max.max(1) {
            return Ok(None);
        }
        let stat = rustix::fs::fstat(&live)?;
        let block = block_size(&stat);
        let most = (end - 1) / block * block;
        let wanted = size_max.checked_next_multiple_of(block).unwrap_or(u64::MAX);
        let length = most.saturating_sub(begin).min(wanted);
        if length == 0 {
            return Ok(None);
        }
        let number = last + 1;
        let mut temporary = path_of(log, number).into_os_string();
        temporary.push(format!(".at-{begin}"));
        let temporary = PathBuf::from(temporary);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let archive = rustix::fs::open(&temporary, flags, Mode::from_raw_mode(stat.st_mode))?;
        let (log, copied, step) = (log.to_owned(), 0, Step::Copy);
        Ok(Some(Self { log, live, archive, number, temporary, begin, length, copied, step }))
    }

    /// Goes one step further. True: that was the last. Errors: what copy_file_range(2),
    /// fallocate(2) and rename(2) say.
    pub fn step(&mut self) -> Result<bool> {
        self.step = match self.step {
            Step::Copy => {
                self.copy()?;
                if self.copied < self.length { Step::Copy } else { Step::Punch }
            }
            Step::Punch => {
                let (begin, end) = extent(&self.live)?;
                // Not if somebody else has cut it: then what is there now is new.
                if begin == self.begin && end >= begin + self.length {
                    archives::punch(&self.live, begin, self.length)?;
                }
                Step::Rename
            }
            Step::Rename => {
                rustix::fs::rename(&self.temporary, path_of(&self.log, self.number))?;
                Step::Collapse
            }
            Step::Collapse => {
                // Where it is refused the hole stays.
                archives::collapse(&self.live).ok();
                return Ok(true);
            }
        };
        Ok(false)
    }

    fn copy(&mut self) -> Result<()> {
        let mut from = self.begin + self.copied;
        let most = usize::try_from((self.length - self.copied).min(STEP_BYTES));
        let most = most.unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(&self.live, Some(&mut from), &self.archive, None, most) {
            // Cut by somebody else: what was copied is an archive.
            Ok(0) => self.copied = self.length,
            Ok(copied) => self.copied += copied as u64,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        Ok(())
    }

    /// Gives it up: the log has all of it as before.
    pub fn abandon(&self) {
        if matches!(self.step, Step::Copy | Step::Punch) {
            rustix::fs::unlink(&self.temporary).ok();
        }
    }

    /// There is no room for the archive: the log loses these bytes, and the archive says so.
    /// Errors: as [`Rotation::step`].
    pub fn drop_head(&mut self) -> Result<()> {
        rustix::fs::ftruncate(&self.archive, 0)?;
        archives::punch(&self.live, self.begin, self.length)?;
        let text = format!("\nopm: {} bytes were here, and no room to keep them\n", self.length);
        rustix::io::pwrite(&self.archive, text.as_bytes(), 0)?;
        self.step = Step::Rename;
        Ok(())
    }
}

/// Finishes or forgets what an earlier rotation has left. The number of the last archive, or 0.
fn settle(log: &Path, live: &OwnedFd) -> Result<u64> {
    let mut last = 0;
    for archive in archives::of(log) {
        let Archive { number, path, begin, bytes, .. } = &archive;
        if let Some(begin) = *begin {
            let (start, end) = extent(live)?;
            if *bytes == 0 || !archive.has_moved(start, end) {
                rustix::fs::unlink(path)?;
                continue;
            }
            if end >= begin + bytes {
                archives::punch(live, begin, *bytes)?;
            }
            rustix::fs::rename(path, path_of(log, *number))?;
        }
        last = last.max(*number);
    }
    archives::collapse(live).ok();
    Ok(last)
}

/// A log that nobody writes to, and that can't be rotated in place: it becomes an archive as it is.
/// Errors: what rename(2) says.
pub fn put_away(log: &Path) -> Result<()> {
    let last = archives::of(log).last().map_or(0, |archive| archive.number);
    rustix::fs::rename(log, path_of(log, last + 1))
}

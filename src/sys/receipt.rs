//! What tells the next daemon how far the one before came with a batch of lines.
//!
//! A batch is written to its log, and then taken out of its FIFO. Who is killed in between leaves
//! it in both, who is killed in the midst of the write a part of it in the log. So what is about to
//! happen is noted first, and the kernel itself notes that the batch has left the FIFO: it puts
//! the batch's first byte into the same page as it takes it out, in one step.
use super::Result;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::{IoSliceMut, pread, pwrite, readv};
use rustix::mm::{MapFlags, ProtFlags, mmap};
use std::ptr::{null_mut, slice_from_raw_parts_mut};

/// What is mapped.
const PAGE: usize = 4096;
/// Numbers of a note.
const NUMBERS: usize = 7;

/// A page that outlives whoever has it open.
#[derive(Debug)]
pub struct Receipt {
    file: OwnedFd,
    /// Where the first byte of a batch goes.
    seal: *mut u8,
}

/// A batch of lines on its way from a FIFO to a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// Device and inode.
    pub log: (u64, u64),
    pub fifo: (u64, u64),
    /// Where the log ended before.
    pub end: u64,
    /// What is added to the log.
    pub bytes: u64,
    /// What is taken out of the FIFO.
    pub taken: u64,
}

/// Device and inode of what is open. Errors: what fstat(2) says.
pub fn identity(fd: impl AsFd) -> Result<(u64, u64)> {
    rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino))
}

impl Receipt {
    /// Opens it, made if missing. Errors: what open(2), write(2) and mmap(2) say.
    pub fn open(path: &str) -> Result<Self> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::from_raw_mode(0o600))?;
        if rustix::fs::fstat(&file)?.st_size.unsigned_abs() < PAGE as u64 {
            pwrite(&file, &[0; PAGE], 0)?;
        }
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, wherever the kernel finds room; nothing has it yet.
        let page = unsafe { mmap(null_mut(), PAGE, access, MapFlags::SHARED, &file, 0) }?;
        Ok(Self { file, seal: page.cast() })
    }

    /// What is noted, if that batch has not left its FIFO.
    pub fn left(&self) -> Option<Note> {
        let mut page = [0; 2 + 8 * NUMBERS];
        let length = pread(&self.file, &mut page, 0).ok()?;
        let (seals, words) = page[..length].split_at_checked(2)?;
        // It is the first byte that stands there once it has left, and another until then.
        let is_there = seals[0] != seals[1];
        let mut numbers = words.chunks_exact(8).map(|word| word.try_into().map(u64::from_le_bytes));
        let mut next = || numbers.next()?.ok();
        let (log, fifo) = ((next()?, next()?), (next()?, next()?));
        let note = Note { log, fifo, end: next()?, bytes: next()?, taken: next()? };
        (is_there && note.taken > 0).then_some(note)
    }

    /// A batch that begins with this byte is about to be written to its log. Errors: what write(2)
    /// says.
    pub fn note(&self, note: &Note, first: u8) -> Result<()> {
        let Note { log, fifo, end, bytes, taken } = note;
        let mut page = vec![!first, first];
        for number in [log.0, log.1, fifo.0, fifo.1, *end, *bytes, *taken] {
            page.extend(number.to_le_bytes());
        }
        pwrite(&self.file, &page, 0).map(drop)
    }

    /// Takes a batch out of its FIFO, in one step with the proof of it; `buffer` is written over.
    /// Errors: what read(2) says. EFAULT: somebody has cut the page off, and nothing was taken.
    pub fn take(&self, fifo: &OwnedFd, taken: usize, buffer: &mut [u8]) -> Result<usize> {
        let rest = buffer.get_mut(..taken.saturating_sub(1)).unwrap_or_default();
        // SAFETY: one byte of the mapping, which is never taken back. Only the kernel accesses it,
        // and for that it need not be there.
        let seal = unsafe { &mut *slice_from_raw_parts_mut(self.seal, 1) };
        readv(fifo, &mut [IoSliceMut::new(seal), IoSliceMut::new(rest)])
    }
}

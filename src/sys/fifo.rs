//! FIFOs of the home, which carry a service's output to whoever supervises in the foreground.
//!
//! Both sides open them for reading and writing: the writer then neither waits for a reader nor
//! dies without one, the reader never sees an end, and what was written outlives the reader.
use super::home::Home;
use super::{Errno, Result};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::pipe::{PipeFlags, SpliceFlags};

/// Opens a FIFO for reading without waiting, made if missing. EEXIST: something else has its name.
pub fn open(path: &str) -> Result<OwnedFd> {
    let private = Mode::from_raw_mode(0o600);
    match rustix::fs::mknodat(CWD, path, FileType::Fifo, private, 0) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::empty())?;
    if is_fifo(&fd) { Ok(fd) } else { Err(Errno::EXIST) }
}

/// Whether some process, in whatever PID namespace, has a FIFO of the home open.
pub fn is_held(home: &Home, name: &str) -> bool {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(&home.dir, name, flags, Mode::empty()) {
        Ok(fd) => is_fifo(&fd),
        // ENXIO: nobody can read it, and whoever has it open could.
        Err(_) => false,
    }
}

fn is_fifo(fd: impl AsFd) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_fifo())
}

/// A look into FIFOs that takes nothing out of them.
#[derive(Debug)]
pub struct Glass {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl Glass {
    pub fn new() -> Result<Self> {
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Self { reader, writer })
    }

    /// Puts into `buffer`, from its start, what lies in the FIFO. EAGAIN: nothing.
    pub fn peek(&self, fifo: &OwnedFd, buffer: &mut [u8]) -> Result<usize> {
        let length = rustix::pipe::tee(fifo, &self.writer, buffer.len(), SpliceFlags::NONBLOCK)?;
        read_exactly(&self.reader, &mut buffer[..length])
    }
}

/// Takes what was seen out of a FIFO.
pub fn consume(fifo: &OwnedFd, mut length: usize, buffer: &mut [u8]) -> Result<()> {
    while length > 0 {
        let most = length.min(buffer.len());
        length -= read_exactly(fifo, &mut buffer[..most])?;
    }
    Ok(())
}

fn read_exactly(fd: &OwnedFd, buffer: &mut [u8]) -> Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match rustix::io::read(fd, &mut buffer[done..]) {
            Ok(0) => return Err(Errno::IO),
            Ok(length) => done += length,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}

//! Files of the home, by their name in it. 0600; directories 0700.
use super::attributes::privately;
use super::{Errno, Mode, Result, errno_of, procfs};
use crate::process::Pid;
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, FlockOperation, OFlags, Stat};
use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// The sticky bit: a directory that many write to.
const S_ISVTX: u32 = 0o1000;
/// Largest file of the home that is read: 16,384 services with large environments fit.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// What is said of a file of the home that is none: no system call says this of a file.
pub const NOT_REGULAR: Errno = Errno::MEDIUMTYPE;

/// The daemon's socket, by its name in the home.
pub const SOCKET: &str = "opm.sock";

/// The home directory, open.
#[derive(Debug)]
pub struct Home {
    pub path: String,
    pub dir: OwnedFd,
    /// Device and inode: a copied home has others.
    pub place: (u64, u64),
}

/// Where the directory that is held is by now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    Here,
    /// It was renamed.
    Moved(String),
    /// Removed, unmounted, or under another mount.
    Lost,
}

impl Home {
    /// Opens the home, made if missing, private. Its last component is no symbolic link: in a
    /// directory of many whoever plants one chooses which directory of ours becomes a home. Errors:
    /// what mkdir(2) and open(2) say; EPERM: it belongs to somebody else; ENOTEMPTY: it is a
    /// directory of many, such as /tmp, which nobody else could use if it were private.
    pub fn open(path: &str) -> Result<Self> {
        let made = privately(|| DirBuilder::new().recursive(true).mode(0o700).create(path));
        // What else has its name is seen when it is opened.
        if let Some(error) = made.err().filter(|error| error.kind() != ErrorKind::AlreadyExists) {
            return Err(errno_of(&error));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = rustix::fs::open(path, flags, rustix::fs::Mode::empty())?;
        let stat = rustix::fs::fstat(&dir)?;
        if stat.st_uid != rustix::process::geteuid().as_raw() {
            return Err(Errno::PERM);
        }
        let is_common = stat.st_mode & S_ISVTX != 0 || path.trim_end_matches('/').is_empty();
        if is_common && holds_more(&dir)? {
            return Err(Errno::NOTEMPTY);
        }
        if stat.st_mode & 0o077 != 0 {
            rustix::fs::fchmod(&dir, rustix::fs::Mode::from_raw_mode(0o700))?;
        }
        Ok(Self { path: path.to_owned(), dir, place: (stat.st_dev, stat.st_ino) })
    }

    /// Why [`Home::open`] refuses, for people.
    pub fn refusal(path: &str, errno: Errno) -> String {
        let why = match errno {
            Errno::NOTEMPTY => "others use it too (choose one of its own)".to_owned(),
            Errno::PERM => "it is somebody else's (choose one of your own)".to_owned(),
            Errno::NOTDIR | Errno::LOOP => "it is no directory (choose another)".to_owned(),
            errno => super::describe(errno),
        };
        format!("cannot use {path}: {why}")
    }

    /// A path to a file of the home by the directory that we hold, whatever its own path leads to
    /// by now. Short, as a socket's must be.
    pub fn path_by_descriptor(&self, name: &str) -> String {
        format!("/proc/self/fd/{}/{name}", self.dir.as_raw_fd())
    }

    /// Whether the path leads to the directory that we hold. What can't be told counts as ours:
    /// where not even we may look, no other daemon can begin.
    pub fn is_here(&self) -> bool {
        match rustix::fs::lstat(self.path.as_str()) {
            Ok(stat) => (stat.st_dev, stat.st_ino) == self.place,
            Err(errno) => !matches!(errno, Errno::NOENT | Errno::NOTDIR),
        }
    }

    /// Where the directory is, by the kernel's word for the one that we hold.
    pub fn whereabouts(&self) -> Whereabouts {
        if self.is_here() {
            return Whereabouts::Here;
        }
        let link = rustix::fs::readlink(self.path_by_descriptor("").trim_end_matches('/'), []);
        let path = link.ok().and_then(|link| link.into_string().ok()).unwrap_or_default();
        match rustix::fs::lstat(path.as_str()) {
            Ok(stat) if (stat.st_dev, stat.st_ino) == self.place => Whereabouts::Moved(path),
            _ => Whereabouts::Lost,
        }
    }

    /// Becomes the other one. The descriptor keeps its number. Errors: what dup3(2) says; then it
    /// is as it was.
    pub fn replace(&mut self, other: Self) -> Result<()> {
        super::fds::replace(&self.dir, other.dir)?;
        (self.path, self.place) = (other.path, other.place);
        Ok(())
    }

    /// Makes a directory in the home. Errors: what mkdirat(2) says, but EEXIST.
    pub fn make_dir(&self, name: &str) -> Result<()> {
        let private = rustix::fs::Mode::from_raw_mode(0o700);
        match rustix::fs::mkdirat(&self.dir, name, private) {
            Err(Errno::EXIST) => Ok(()),
            other => other,
        }
    }

    /// Opens one of the home's files, a regular one: without waiting for anybody. Errors: what
    /// openat(2) says; [`NOT_REGULAR`].
    pub fn open_file(&self, name: &str, mode: Mode) -> Result<OwnedFd> {
        let file = open_regular(&self.dir, name, OFlags::RDWR | OFlags::CREATE)?;
        if mode == Mode::Fresh {
            // Not by O_TRUNC: first it is seen what it is.
            rustix::fs::ftruncate(&file, 0)?;
        }
        Ok(file)
    }

    /// Sees whether one of the home's files is there and can be appended to. Errors: what openat(2)
    /// says. ENXIO: a FIFO that nobody reads.
    pub fn try_append(&self, name: &str) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::openat(&self.dir, name, flags, rustix::fs::Mode::empty()).map(drop)
    }

    /// Reads one of the home's files whole; none if there is none. Errors: what openat(2) and
    /// read(2) say; [`NOT_REGULAR`]; EFBIG.
    pub fn load(&self, name: &str) -> Result<Option<Vec<u8>>> {
        match open_regular(&self.dir, name, OFlags::RDONLY) {
            Err(Errno::NOENT) => Ok(None),
            file => read_whole(&file?).map(Some),
        }
    }

    /// A descriptor that becomes readable when something in the home, or the home itself, is
    /// removed or renamed. Of the end of a directory that somebody holds open the kernel says
    /// nothing, only of what was in it. Errors: EMFILE, ENOSPC: no more watches.
    pub fn watch_removals(&self) -> Result<OwnedFd> {
        use rustix::fs::inotify;
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let watch = inotify::init(flags)?;
        let removals = inotify::WatchFlags::DELETE
            | inotify::WatchFlags::MOVED_FROM
            | inotify::WatchFlags::DELETE_SELF
            | inotify::WatchFlags::MOVE_SELF;
        inotify::add_watch(&watch, self.path_by_descriptor(""), removals)?;
        Ok(watch)
    }

    /// Whether the home has a file of this name.
    pub fn has(&self, name: &str) -> bool {
        rustix::fs::statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Renames within the home.
    pub fn rename(&self, from: &str, to: &str) -> Result<()> {
        rustix::fs::renameat(&self.dir, from, &self.dir, to)
    }

    /// Removes a file of the home; one that isn't there is no error.
    pub fn remove(&self, name: &str) -> Result<()> {
        match rustix::fs::unlinkat(&self.dir, name, AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            other => other,
        }
    }
}

/// Connects to whoever listens in the directory `home`. By a descriptor of it: a socket's path has
/// room for 107 bytes only. Errors: what open(2) says of the directory, and connect(2).
pub fn connect(home: &Path) -> std::io::Result<UnixStream> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(home, flags, rustix::fs::Mode::empty())?;
    UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()))
}

/// Whether a directory that was no home before has more in it than the log of our beginning.
fn holds_more(dir: &OwnedFd) -> Result<bool> {
    if rustix::fs::statat(dir, "lock", AtFlags::SYMLINK_NOFOLLOW).is_ok() {
        return Ok(false);
    }
    for entry in rustix::fs::Dir::read_from(dir)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b".." | b"daemon.log") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Takes the exclusive lock of a file without waiting. It belongs to the open file description:
/// a forked child holds it too, until its exec closes the descriptor. Errors: EWOULDBLOCK: somebody
/// has it. ENOLCK.
pub fn try_lock(file: impl AsFd) -> Result<()> {
    rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive)
}

/// Who shares the open file description that has the lock of `file`, as far as we may know. Who
/// waits for the lock has the file open, too.
pub fn lock_sharers(file: &str) -> Vec<Pid> {
    let has_lock = |(pid, fd): &(Pid, i32)| {
        let info = procfs::read(&format!("/proc/{pid}/fdinfo/{fd}")).unwrap_or_default();
        info.windows(5).any(|word| word == b"FLOCK")
    };
    let links = [file.to_owned()];
    procfs::holders(&links).filter(has_lock).map(|(pid, _)| pid).collect()
}

/// Opens a regular file without following a link and without waiting for whoever should be at
/// the other end of it. `flags` may create it. Errors: what openat(2) says; [`NOT_REGULAR`].
pub fn open_regular(dir: impl AsFd, path: &str, flags: OFlags) -> Result<OwnedFd> {
    let always = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let is_regular = |stat: Stat| FileType::from_raw_mode(stat.st_mode).is_file();
    match rustix::fs::openat(dir, path, flags | always, mode) {
        Ok(file) if rustix::fs::fstat(&file).is_ok_and(is_regular) => Ok(file),
        // LOOP: a link. NXIO: a socket, or a FIFO that nobody reads. ISDIR: written to.
        Ok(_) | Err(Errno::LOOP | Errno::NXIO | Errno::ISDIR) => Err(NOT_REGULAR),
        Err(errno) => Err(errno),
    }
}

/// Reads an open file from its beginning, within a bound. Errors: what pread(2) says; EFBIG.
pub fn read_whole(file: &OwnedFd) -> Result<Vec<u8>> {
    let size = rustix::fs::fstat(file)?.st_size.unsigned_abs();
    if size > FILE_BYTES_MAX {
        return Err(Errno::FBIG);
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1);
    loop {
        if bytes.len() == bytes.capacity() {
            bytes.reserve(4096);
        }
        let offset = bytes.len() as u64;
        match rustix::io::pread(file, rustix::buffer::spare_capacity(&mut bytes), offset) {
            Ok(0) => return Ok(bytes),
            Ok(_) if bytes.len() as u64 > FILE_BYTES_MAX => return Err(Errno::FBIG),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

//! Files of the home, by their name in it. 0600; directories 0700.
use super::{Mode, Result};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FlockOperation, OFlags};
use std::os::fd::AsFd;

/// The sticky bit: a directory that many write to.
const S_ISVTX: u32 = 0o1000;

/// The home directory, open.
#[derive(Debug)]
pub struct Home {
    pub path: String,
    pub dir: OwnedFd,
}

impl Home {
    /// Opens the home, made if missing, private.
    ///
    /// # Errors
    /// What mkdir(2) and open(2) say; EPERM: it belongs to somebody else; ENOTEMPTY: it is a
    /// directory of many, such as /tmp, which nobody else could use if it were private.
    pub fn open(path: &str) -> Result<Self> {
        let private = rustix::fs::Mode::from_raw_mode(0o700);
        let made = make_path(path, private)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(path, flags, rustix::fs::Mode::empty())?;
        let stat = rustix::fs::fstat(&dir)?;
        let uid = rustix::process::geteuid().as_raw();
        if stat.st_uid != uid && uid != 0 {
            return Err(super::Errno::PERM);
        }
        let is_common = stat.st_mode & S_ISVTX != 0 || path.trim_end_matches('/').is_empty();
        if is_common && holds_more(&dir)? {
            return Err(super::Errno::NOTEMPTY);
        }
        if made || stat.st_mode & 0o077 != 0 {
            rustix::fs::fchmod(&dir, private)?;
        }
        Ok(Self { path: path.to_owned(), dir })
    }

    /// Device and inode: a copied home has others.
    ///
    /// # Errors
    /// What fstat(2) says.
    pub fn place(&self) -> Result<(u64, u64)> {
        let stat = rustix::fs::fstat(&self.dir)?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// Makes a directory in the home.
    ///
    /// # Errors
    /// What mkdirat(2) says, but EEXIST.
    pub fn make_dir(&self, name: &str) -> Result<()> {
        match rustix::fs::mkdirat(&self.dir, name, rustix::fs::Mode::from_raw_mode(0o700)) {
            Err(super::Errno::EXIST) => Ok(()),
            other => other,
        }
    }

    /// Opens one of the home's files.
    ///
    /// # Errors
    /// What openat(2) says.
    pub fn open_file(&self, name: &str, mode: Mode) -> Result<OwnedFd> {
        let flags = match mode {
            Mode::InPlace => OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC,
            Mode::Fresh => OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC,
        };
        let flags = flags | OFlags::NOFOLLOW;
        rustix::fs::openat(&self.dir, name, flags, rustix::fs::Mode::from_raw_mode(0o600))
    }

    /// Sees whether one of the home's files is there and can be appended to.
    ///
    /// # Errors
    /// What openat(2) says. ENXIO: a FIFO that nobody reads.
    pub fn try_append(&self, name: &str) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::openat(&self.dir, name, flags, rustix::fs::Mode::empty()).map(drop)
    }

    /// Reads one of the home's files whole; none if there is none.
    ///
    /// # Errors
    /// What openat(2) and read(2) say.
    pub fn load(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(&self.dir, name, flags, rustix::fs::Mode::empty()) {
            Err(super::Errno::NOENT) => return Ok(None),
            other => other?,
        };
        let size = rustix::fs::fstat(&fd)?.st_size;
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1);
        loop {
            if bytes.len() == bytes.capacity() {
                bytes.reserve(4096);
            }
            match rustix::io::read(&fd, rustix::buffer::spare_capacity(&mut bytes)) {
                Ok(0) => return Ok(Some(bytes)),
                Ok(_) | Err(super::Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// A descriptor that becomes readable when something in the home is removed or renamed.
    ///
    /// # Errors
    /// EMFILE, ENOSPC: no more watches.
    pub fn watch_removals(&self) -> Result<OwnedFd> {
        use rustix::fs::inotify;
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let watch = inotify::init(flags)?;
        let removals = inotify::WatchFlags::DELETE | inotify::WatchFlags::MOVED_FROM;
        inotify::add_watch(&watch, self.path.as_str(), removals)?;
        Ok(watch)
    }

    /// Whether the home has a file of this name.
    pub fn has(&self, name: &str) -> bool {
        rustix::fs::statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Renames within the home.
    ///
    /// # Errors
    /// What renameat(2) says.
    pub fn rename(&self, from: &str, to: &str) -> Result<()> {
        rustix::fs::renameat(&self.dir, from, &self.dir, to)
    }

    /// Removes a file of the home; one that isn't there is no error.
    ///
    /// # Errors
    /// What unlinkat(2) says.
    pub fn remove(&self, name: &str) -> Result<()> {
        match rustix::fs::unlinkat(&self.dir, name, AtFlags::empty()) {
            Err(super::Errno::NOENT) => Ok(()),
            other => other,
        }
    }
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
/// a forked child holds it too, until its exec closes the descriptor.
///
/// # Errors
/// EWOULDBLOCK: somebody has it. ENOLCK.
pub fn try_lock(file: impl AsFd) -> Result<()> {
    rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive)
}

/// mkdir -p, private directories. Says whether the last one was made.
fn make_path(path: &str, mode: rustix::fs::Mode) -> Result<bool> {
    match rustix::fs::mkdir(path, mode) {
        Ok(()) => Ok(true),
        Err(super::Errno::EXIST) => Ok(false),
        Err(super::Errno::NOENT) => {
            let parent = path.trim_end_matches('/').rsplit_once('/').map_or("", |(dir, _)| dir);
            if parent.is_empty() {
                return Err(super::Errno::NOENT);
            }
            make_path(parent, mode)?;
            match rustix::fs::mkdir(path, mode) {
                // Another daemon of this home begins at the same moment.
                Err(super::Errno::EXIST) => Ok(false),
                made => made.map(|()| true),
            }
        }
        // A read-only file system says so even of a directory that is there.
        Err(errno) if rustix::fs::access(path, rustix::fs::Access::EXISTS).is_err() => Err(errno),
        Err(_) => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_directory_of_many_is_taken_only_if_nothing_is_in_it() {
        let path = std::env::temp_dir().join(format!("opm-common-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        let common = std::fs::Permissions::from_mode(0o1777);
        std::fs::set_permissions(&path, common.clone()).unwrap();
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        std::fs::write(path.join("somebody's"), "").unwrap();
        let open = || Home::open(path.to_str().unwrap()).map(drop);
        assert_eq!((open(), mode()), (Err(super::super::Errno::NOTEMPTY), 0o1777));
        std::fs::remove_file(path.join("somebody's")).unwrap();
        std::fs::write(path.join("daemon.log"), "").unwrap();
        assert_eq!((open(), mode()), (Ok(()), 0o700));
        // A home that somebody has opened to others, with all that a home has.
        for name in ["lock", "journal"] {
            std::fs::write(path.join(name), "").unwrap();
        }
        std::fs::set_permissions(&path, common).unwrap();
        assert_eq!((open(), mode()), (Ok(()), 0o700));
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_home_made_by_several_at_once_is_there_for_all_of_them() {
        let top = std::env::temp_dir().join(format!("opm-storage-{}", std::process::id()));
        for round in 0..200 {
            let path = top.join(format!("{round}/a/b/c"));
            let path = path.to_str().unwrap();
            let barrier = std::sync::Barrier::new(4);
            std::thread::scope(|scope| {
                let open = || {
                    barrier.wait();
                    Home::open(path).map(drop)
                };
                let all: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
                for one in all {
                    assert_eq!(one.join().unwrap(), Ok(()), "round {round}");
                }
            });
        }
        std::fs::remove_dir_all(top).unwrap();
    }
}

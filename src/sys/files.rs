//! Files that change, by inotify(7). Of directories the whole trees are watched.
use super::{Errno, Result};
use rustix::fd::{AsRawFd, OwnedFd, RawFd};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use std::mem::MaybeUninit;
use std::path::Path;

/// Room for what one read brings.
const EVENTS_BYTES: usize = 16 << 10;

#[derive(Debug, Default)]
struct Directory {
    path: String,
    /// Only these names in it; none: all.
    only: Vec<String>,
}

/// Paths that are watched.
#[derive(Debug)]
pub struct Files {
    fd: OwnedFd,
    /// By their number, which begin with 1.
    directories: Vec<Directory>,
}

impl AsRawFd for Files {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Files {
    /// Errors: EMFILE: too many of the user's are open.
    pub fn new() -> Result<Self> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Self { fd, directories: Vec::new() })
    }

    /// Watches an absolute path, whatever is there now, and what will be. Errors: ENOSPC: the
    /// user's watches are used up.
    pub fn watch(&mut self, path: &Path, is_ignored: &dyn Fn(&str) -> bool) -> Result<()> {
        // What is removed and made again is seen from above; if all of that is gone, further above.
        let mut name = path;
        while let Some(above) = name.parent() {
            match self.add(above, Some(name)) {
                Err(Errno::NOENT | Errno::NOTDIR) => name = above,
                added => {
                    added?;
                    break;
                }
            }
        }
        let mut queue = vec![path.to_path_buf()];
        while let Some(directory) = queue.pop() {
            match self.add(&directory, None) {
                // It is a file, gone, or nothing that we may see.
                Err(Errno::NOTDIR | Errno::NOENT | Errno::ACCESS) => continue,
                added => added?,
            }
            let Ok(entries) = std::fs::read_dir(&directory) else { continue };
            let is_directory =
                |entry: &std::fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
            let below = entries.filter_map(|entry| entry.ok().filter(is_directory));
            let below = below.map(|entry| entry.path());
            queue.extend(below.filter(|path| path.to_str().is_some_and(|path| !is_ignored(path))));
        }
        Ok(())
    }

    /// Watches a directory, or of it only what has a name.
    fn add(&mut self, path: &Path, only: Option<&Path>) -> Result<()> {
        let flags = WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::EXCL_UNLINK
            | WatchFlags::ONLYDIR;
        let number = inotify::add_watch(&self.fd, path, flags)?;
        let at = usize::try_from(number - 1).map_err(|_| Errno::INVAL)?;
        if at >= self.directories.len() {
            self.directories.resize_with(at + 1, Directory::default);
        }
        let known = &mut self.directories[at];
        let is_new = known.path.is_empty();
        known.path = path.to_string_lossy().into_owned();
        match only.and_then(Path::file_name) {
            Some(name) if is_new || !known.only.is_empty() => {
                known.only.push(name.to_string_lossy().into_owned());
            }
            Some(_) => {}
            None => known.only.clear(),
        }
        Ok(())
    }

    /// Tells the path of each change; none: there were more than the kernel keeps.
    pub fn changes(&mut self, mut tell: impl FnMut(Option<&str>)) {
        let mut room = [MaybeUninit::uninit(); EVENTS_BYTES];
        let mut reader = Reader::new(&self.fd, &mut room);
        while let Ok(event) = reader.next() {
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                tell(None);
            }
            let at = usize::try_from(event.wd() - 1).ok();
            let Some(directory) = at.and_then(|at| self.directories.get(at)) else { continue };
            let Some(name) = event.file_name().map(|name| name.to_string_lossy()) else { continue };
            let Directory { path, only } = directory;
            if only.is_empty() || only.iter().any(|known| **known == *name) {
                tell(Some(&format!("{}/{name}", path.trim_end_matches('/'))));
            }
        }
    }
}

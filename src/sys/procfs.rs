//! Reading /proc. What is read of a pid may be of another process by the time it is used:
//! callers hold a pidfd and see that it is still alive after the reading.
use super::{Errno, Result, guarded, own_pid};
use crate::process::Pid;
use crate::process::journal_format::checksum;
use crate::process::stat::{self, Stat};
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Dir, Mode, OFlags};

/// Reads a file whole, in as few reads as it takes: /proc's files have no size. Errors: ENOENT or
/// ESRCH: the process is gone. EACCES, EPERM: not ours to read.
pub fn read(path: &str) -> Result<Vec<u8>> {
    let fd = open(path)?;
    let mut bytes = Vec::with_capacity(1024);
    read_rest(&fd, &mut bytes)?;
    Ok(bytes)
}

fn open(path: &str) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

fn read_rest(fd: &OwnedFd, bytes: &mut Vec<u8>) -> Result<()> {
    loop {
        if bytes.capacity() == bytes.len() {
            bytes.reserve(bytes.capacity().max(4096));
        }
        match rustix::io::read(fd, rustix::buffer::spare_capacity(bytes)) {
            Ok(0) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Longer than what [`read_record`] is used for, which is up to 1.5 KB.
const RECORD_BYTES: usize = 4096;

/// Reads a file that the kernel makes in one piece (single_open() of seq_file: `stat`, `limits`):
/// what does not fill the buffer is all of it. One call instead of three, and a search reads
/// such a file of every process.
fn read_record(path: &str) -> Result<Vec<u8>> {
    let fd = open(path)?;
    let mut bytes = Vec::with_capacity(RECORD_BYTES);
    match rustix::io::read(&fd, rustix::buffer::spare_capacity(&mut bytes)) {
        Ok(read) if read < RECORD_BYTES => {}
        Ok(_) | Err(Errno::INTR) => read_rest(&fd, &mut bytes)?,
        Err(errno) => return Err(errno),
    }
    Ok(bytes)
}

/// Errors: as [`read`]; EIO for text that doesn't parse.
pub fn stat(pid: Pid) -> Result<Stat> {
    Stat::parse(&read_record(&format!("/proc/{pid}/stat"))?).ok_or(Errno::IO)
}

/// Ancestors of a process that are looked at.
const ANCESTORS_MAX: usize = 64;

/// Our ancestors, the nearest first, as far as they are in our PID namespace.
pub fn ancestors() -> impl Iterator<Item = Pid> {
    let parent = |pid: &Pid| stat(*pid).ok().map(|stat| stat.ppid).filter(|pid| *pid > 0);
    std::iter::successors(parent(&own_pid()), parent).take(ANCESTORS_MAX)
}

/// Soft and hard RLIMIT_LOCKS. World-readable, whoever the process belongs to. Errors: as [`read`];
/// EIO for text that doesn't parse.
pub fn locks_limit(pid: Pid) -> Result<(u64, u64)> {
    stat::parse_locks_limit(&read_record(&format!("/proc/{pid}/limits"))?).ok_or(Errno::IO)
}

/// Real, effective and saved uid. World-readable. Errors: as [`read`]; EIO for text that doesn't
/// parse.
pub fn uids(pid: Pid) -> Result<[u32; 3]> {
    stat::parse_uids(&read_record(&format!("/proc/{pid}/status"))?).ok_or(Errno::IO)
}

/// The environment of a process. Errors: as [`read`]; ESRCH: no thread of it has memory.
pub fn environ(pid: Pid) -> Result<Vec<u8>> {
    of_any_thread(pid, Errno::SRCH, |at| guarded::read(&format!("{at}/environ")))
}

/// What `look` finds in a directory of /proc. Of a process whose first thread has exited
/// (pthread_exit(3) in `main`), and `lacks` it, any other thread's is the same.
pub(super) fn of_any_thread<T>(
    pid: Pid,
    lacks: Errno,
    look: impl Fn(&str) -> Result<T>,
) -> Result<T> {
    let first = look(&format!("/proc/{pid}"));
    if first.as_ref().err() != Some(&lacks) {
        return first;
    }
    let threads = numbers(&format!("/proc/{pid}/task"))?.into_iter();
    let looks = threads
        .filter(|thread| *thread != pid)
        .map(|thread| look(&format!("/proc/{pid}/task/{thread}")));
    let mut others = looks.filter(|found| !matches!(found, Err(Errno::SRCH | Errno::NOENT)));
    others.next().unwrap_or(first)
}

/// Our own children, of our only thread: one file.
///
/// The read is exact while nobody reaps: the kernel lists in order of arrival, only a reap takes
/// a child off the list, and only this thread reaps.
///
/// A list of a thousand takes the kernel 200 us to write, nearly all of it for what was read
/// before. The file counts in children, not in bytes (seq_file(9)): a read goes on at the place
/// in the list where the one before ended, and what is before that place is not written.
#[derive(Debug)]
pub struct OwnChildren {
    fd: OwnedFd,
    text: Vec<u8>,
    /// The place in the list at which the next read begins; none: to be found anew.
    place: Option<usize>,
}

impl OwnChildren {
    /// Errors: ENOENT: no /proc, or a kernel without CONFIG_PROC_CHILDREN.
    pub fn open() -> Result<Self> {
        let fd = open(&format!("/proc/self/task/{}/children", rustix::thread::gettid()))?;
        Ok(Self { fd, text: Vec::new(), place: None })
    }

    /// Appends the children from some place up to `known` on, to the last; gives that place.
    /// Errors: what read(2) says; EIO for text that doesn't parse.
    pub fn read(&mut self, known: usize, out: &mut Vec<Pid>) -> Result<usize> {
        // Reaps move the others forward: beyond what is known, a place may be past a newcomer.
        let place = match self.place.take() {
            Some(place) if place <= known => place,
            _ => {
                rustix::fs::seek(&self.fd, rustix::fs::SeekFrom::Start(0))?;
                0
            }
        };
        self.text.clear();
        read_rest(&self.fd, &mut self.text)?;
        let before = out.len();
        if !stat::parse_children(&self.text, out) {
            return Err(Errno::IO);
        }
        self.place = Some(place + out.len() - before);
        Ok(place)
    }
}

/// The children of every thread of a process. Without CONFIG_PROC_CHILDREN: ENOENT.
pub fn children(pid: Pid, out: &mut Vec<Pid>) -> Result<()> {
    // Two links, and one more for each thread (proc_task_getattr() of the kernel): most have one,
    // and need no listing.
    if rustix::fs::stat(format!("/proc/{pid}/task"))?.st_nlink == 3 {
        let text = read(&format!("/proc/{pid}/task/{pid}/children"))?;
        return if stat::parse_children(&text, out) { Ok(()) } else { Err(Errno::IO) };
    }
    for thread in numbers(&format!("/proc/{pid}/task"))? {
        match read(&format!("/proc/{pid}/task/{thread}/children")) {
            Ok(text) if stat::parse_children(&text, out) => {}
            Ok(_) => return Err(Errno::IO),
            Err(Errno::SRCH) => {}
            // A thread may have ended since the listing; the process itself is what counts.
            Err(Errno::NOENT)
                if rustix::fs::access(
                    format!("/proc/{pid}/task/{thread}"),
                    rustix::fs::Access::EXISTS,
                )
                .is_err() => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Every process that /proc shows.
pub fn processes() -> Result<Vec<Pid>> {
    numbers("/proc")
}

/// The list of processes, read a few at a time: what is read of a process at once after it was
/// listed is seldom gone.
#[derive(Debug)]
pub struct ProcessList {
    fd: OwnedFd,
    /// The last one that was given; 0 at the beginning.
    last: Pid,
}

/// Room for some ten entries of /proc.
const LIST_BYTES: usize = 256;

impl ProcessList {
    pub fn open() -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { fd: rustix::fs::open("/proc", flags, Mode::empty())?, last: 0 })
    }

    /// Appends the next few after `after`; none: that was all.
    pub fn next(&mut self, after: Pid, out: &mut Vec<Pid>) -> Result<()> {
        if after == 0 || after != self.last {
            rustix::fs::seek(&self.fd, rustix::fs::SeekFrom::Start(0))?;
        }
        let mut room = [std::mem::MaybeUninit::uninit(); LIST_BYTES];
        let before = out.len();
        // The first entries of /proc are no processes.
        while out.len() == before {
            let mut list = rustix::fs::RawDir::new(&self.fd, &mut room);
            let mut any = false;
            while let Some(entry) = list.next() {
                any = true;
                let entry = entry?;
                let pid = entry.file_name().to_str().ok().and_then(|name| name.parse().ok());
                out.extend(pid.filter(|pid: &Pid| *pid > after));
                if list.is_buffer_empty() {
                    break;
                }
            }
            if !any {
                break;
            }
        }
        self.last = out.get(before..).and_then(|new| new.last()).copied().unwrap_or(0);
        Ok(())
    }
}

/// The numeric names in a directory.
pub fn numbers(path: &str) -> Result<Vec<Pid>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
    let mut found = Vec::new();
    for entry in Dir::new(fd)? {
        let entry = entry?;
        if let Some(pid) = entry.file_name().to_str().ok().and_then(|name| name.parse().ok()) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// `processes` of /proc/stat: every fork since boot.
pub fn forks() -> Option<u64> {
    number(stat::status_field(&read("/proc/stat").ok()?, "processes ")?)
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}

/// Where [`last_pid`] is read, again and again: to open a file of /proc takes longer.
pub fn open_load() -> Result<OwnedFd> {
    open("/proc/loadavg")
}

/// The last two of `0.00 0.00 0.00 RUNNING/THREADS LAST`: how many threads there are, and the pid
/// that was given out last in our PID namespace.
fn threads_and_last_pid(load: &OwnedFd) -> Option<(u64, Pid)> {
    let mut text = [0; 128];
    let length = rustix::io::pread(load, &mut text, 0).ok()?;
    let mut words = text.get(..length)?.rsplit(|b| *b == b' ' || *b == b'/');
    let last = number(words.next()?)?;
    Some((number(words.next()?)?, last))
}

/// Numbers below this one are given out once only, after the boot (RESERVED_PIDS of kernel/pid.c).
const RESERVED_PIDS: u64 = 300;

/// Pids that no process or thread has; fewer in a PID namespace, where all threads of the machine
/// are taken for its own.
pub fn free_pids() -> Option<u64> {
    let most: u64 = number(&read("/proc/sys/kernel/pid_max").ok()?)?;
    let (threads, _) = threads_and_last_pid(&open_load().ok()?)?;
    Some(most.saturating_sub(RESERVED_PIDS + threads))
}

/// The pid that was given out last in our PID namespace.
pub fn last_pid(load: &OwnedFd) -> Option<Pid> {
    threads_and_last_pid(load).map(|(_, last)| last)
}

/// The inode of our PID namespace; 0 without /proc.
pub fn pid_namespace() -> u64 {
    rustix::fs::stat("/proc/self/ns/pid").map_or(0, |stat| stat.st_ino)
}

/// The cgroup of a process, of version 2 alone.
pub fn cgroup(pid: &str) -> Option<String> {
    let text = read(&format!("/proc/{pid}/cgroup")).ok()?;
    let path = stat::status_field(&text, "0::")?;
    Some(String::from_utf8_lossy(path).into_owned())
}

/// The directory of our own cgroup, of version 2 alone.
pub fn own_cgroup() -> Option<String> {
    let path = cgroup("self")?;
    // In a cgroup namespace, as containers have it, the path is `/`.
    let path = path.trim_end_matches('/');
    let places = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(|root| format!("{root}{path}"));
    let is_it = |place: &String| std::fs::exists(format!("{place}/cgroup.controllers"));
    places.into_iter().find(|place| is_it(place).is_ok_and(|is_it| is_it))
}

/// Whether our own cgroup holds processes of PID namespaces that we don't see: the kernel lists
/// them as 0. None where it can't be read.
pub fn strangers_in_cgroup() -> Option<bool> {
    let list = read(&format!("{}/cgroup.procs", own_cgroup()?)).ok()?;
    Some(list.split(|b| *b == b'\n').any(|pid| pid == b"0"))
}

/// The boot's random id; 0 without /proc.
pub fn boot_id() -> u128 {
    let text = read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String =
        String::from_utf8_lossy(&text).chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).unwrap_or(0)
}

/// A number for this machine: of /etc/machine-id, else of its mainboard, else of its
/// host name.
pub fn machine_id() -> u64 {
    let known = |path, is_one: fn(&[u8]) -> bool| read(path).ok().filter(|id| is_one(id));
    let id = known("/etc/machine-id", |id| id.len() >= 32)
        // An image without that file, and under another host name in each container: the mainboard
        // is the same, for root.
        .or_else(|| known("/sys/class/dmi/id/product_uuid", is_unique))
        .unwrap_or_else(|| rustix::system::uname().nodename().to_bytes().to_vec());
    checksum(id.trim_ascii())
}

/// Whether a board's UUID is one. Makers that give none leave zeroes, ones or an example, with
/// few digits that differ: two such boards would be one machine.
fn is_unique(uuid: &[u8]) -> bool {
    const EXAMPLES: [&[u8]; 2] =
        [b"03000200-0400-0500-0006-000700080009", b"12345678-1234-5678-90ab-cddeefaabbcc"];
    let uuid = uuid.trim_ascii();
    let mut digits: Vec<u8> = uuid.iter().copied().filter(u8::is_ascii_hexdigit).collect();
    let is_whole = digits.len() == 32 && !EXAMPLES.contains(&uuid);
    digits.sort_unstable();
    digits.dedup();
    is_whole && digits.len() > 4
}

/// Where a symbolic link of /proc leads, as text.
pub fn link(path: &str) -> Result<String> {
    let target = rustix::fs::readlink(path, Vec::new())?;
    Ok(target.to_string_lossy().into_owned())
}

/// Processes that have something open whose link is one of these, as far as we may know, each with
/// its first descriptor of that.
pub fn holders(links: &[String]) -> impl Iterator<Item = (Pid, i32)> {
    // For nothing, nobody is looked at.
    let all = if links.is_empty() { Vec::new() } else { processes().unwrap_or_default() };
    all.into_iter().filter_map(move |pid| {
        let numbers = numbers(&format!("/proc/{pid}/fd")).unwrap_or_default();
        let link = |fd: &i32| link(&format!("/proc/{pid}/fd/{fd}"));
        let is_one = |fd: &i32| link(fd).is_ok_and(|found| links.contains(&found));
        Some((pid, numbers.into_iter().find(is_one)?))
    })
}

/// Resident memory of this process in bytes; 0 without /proc.
pub fn own_memory() -> u64 {
    let text = read("/proc/self/statm").unwrap_or_default();
    let pages: Option<u64> = text.split(|b| *b == b' ').nth(1).and_then(number);
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}

/// The pid that a PID file has; a FIFO in its place is empty.
pub fn pid_in(path: &str) -> Option<Pid> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).ok()?;
    let mut bytes = [0; 32];
    let length = rustix::io::read(&file, &mut bytes).ok()?;
    std::str::from_utf8(&bytes[..length]).ok()?.split_whitespace().next()?.parse().ok()
}

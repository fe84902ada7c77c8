//! Sockets. Those that listen are held for services: opened before the first incarnation, handed to
//! each, closed when nobody is defined any more that wants them. So what waits in a backlog
//! survives whoever should accept it.
//!
//! They are close-on-exec here, and known to later images of this process by what they are. The
//! incarnation that has one holds it, too: the next daemon takes it back from there.
use super::{Errno, Result, guarded, procfs, reexec};
use crate::process::Pid;
use crate::process::stat::parse_cmdline;
use crate::service::listen::{Address, Listen, MAKING};
use rustix::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The sockets of all services.
#[derive(Debug, Default)]
pub struct Sockets {
    held: Vec<Socket>,
    /// Left by an earlier image of this process: nobody's yet.
    pub inherited: Vec<OwnedFd>,
}

#[derive(Debug)]
struct Socket {
    /// A service's name, or that of its group.
    group: String,
    listen: Listen,
    fd: OwnedFd,
    /// What its path leads to: device and inode.
    file: Option<(u64, u64)>,
}

fn path_of(address: &Address) -> Option<&str> {
    match address {
        Address::Unix(path) => Some(path),
        Address::Ip(_) | Address::Port(_) => None,
    }
}

fn file_at(address: &Address) -> Option<(u64, u64)> {
    let path = path_of(address)?;
    rustix::fs::lstat(path).ok().map(|stat| (stat.st_dev, stat.st_ino))
}

impl Sockets {
    fn get(&self, group: &str, listen: &Listen) -> Option<&Socket> {
        let is_it = |held: &&Socket| held.group == group && held.listen.address == listen.address;
        self.held.iter().find(is_it)
    }

    /// Whether one of these is not open.
    pub fn lacks(&self, group: &str, wanted: &[Listen]) -> bool {
        wanted.iter().any(|listen| self.get(group, listen).is_none())
    }

    /// Takes what of these is not open from what was found.
    pub fn claim(&mut self, group: &str, wanted: &[Listen], found: &mut Vec<OwnedFd>) {
        for listen in
            wanted.iter().filter(|listen| self.get(group, listen).is_none()).collect::<Vec<_>>()
        {
            if let Some(at) = found.iter().position(|fd| is_at(fd, &listen.address)) {
                self.hold(group, listen, found.swap_remove(at));
            }
        }
    }

    fn hold(&mut self, group: &str, listen: &Listen, fd: OwnedFd) {
        let (group, file) = (group.to_owned(), file_at(&listen.address));
        self.held.push(Socket { group, listen: listen.clone(), fd, file });
        self.tell_later_images();
    }

    fn tell_later_images(&self) {
        reexec::keep_sockets(self.held.iter().map(|held| held.fd.as_raw_fd()));
    }

    /// Opens what of these is not open yet, all or none. `beside`: an incarnation may have the same
    /// address from an earlier daemon, and goes on until it ends. Errors: which of them, and what
    /// the kernel says.
    pub fn open(
        &mut self,
        group: &str,
        wanted: &[Listen],
        beside: bool,
    ) -> std::result::Result<(), (usize, Errno)> {
        let mut opened = Vec::new();
        for (at, listen) in wanted.iter().enumerate() {
            if self.get(group, listen).is_none() {
                match open(listen, beside) {
                    Ok(fd) => opened.push((listen, fd)),
                    Err(errno) => {
                        for path in opened.iter().filter_map(|(listen, _)| path_of(&listen.address))
                        {
                            rustix::fs::unlink(path).ok();
                        }
                        return Err((at, errno));
                    }
                }
            }
        }
        opened.into_iter().for_each(|(listen, fd)| self.hold(group, listen, fd));
        Ok(())
    }

    /// The numbers of these, in their order. `fresh`: nothing else has them, so that what an
    /// earlier program has set does not meet the next one.
    pub fn numbers(&self, group: &str, wanted: &[Listen], fresh: bool) -> Vec<RawFd> {
        let held = wanted.iter().filter_map(|listen| self.get(group, listen));
        let number = |held: &Socket| {
            if fresh {
                rustix::fs::fcntl_setfl(&held.fd, OFlags::empty()).ok();
            }
            held.fd.as_raw_fd()
        };
        held.map(number).collect()
    }

    /// Whose a socket at this address is.
    pub fn group_of(&self, address: &Address) -> Option<&str> {
        let held = self.held.iter().find(|held| held.listen.address == *address);
        held.map(|held| held.group.as_str())
    }

    /// Closes those that nobody wants, and removes their paths.
    pub fn retain(&mut self, is_wanted: impl Fn(&str, &Listen) -> bool) {
        let unwanted = |held: &mut Socket| !is_wanted(&held.group, &held.listen);
        let closed: Vec<Socket> = self.held.extract_if(.., unwanted).collect();
        if closed.is_empty() {
            return;
        }
        self.tell_later_images();
        for Socket { listen, file, .. } in closed {
            if file_at(&listen.address) == file
                && let Address::Unix(path) = listen.address
            {
                rustix::fs::unlink(path).ok();
            }
        }
    }
}

/// Whether a descriptor is a socket that listens at this address.
fn is_at(fd: &OwnedFd, address: &Address) -> bool {
    let Ok(name) = rustix::net::getsockname(fd) else { return false };
    match address {
        Address::Unix(path) => SocketAddrUnix::try_from(name)
            .is_ok_and(|name| name.path_bytes() == Some(format!("{path}{MAKING}").as_bytes())),
        Address::Ip(address) => SocketAddr::try_from(name) == Ok(*address),
        Address::Port(port) => SocketAddr::try_from(name)
            .is_ok_and(|name| name.port() == *port && name.ip().is_unspecified()),
    }
}

fn open(listen: &Listen, beside: bool) -> Result<OwnedFd> {
    let backlog = listen.backlog.cast_signed();
    match &listen.address {
        Address::Unix(path) => open_unix(path, listen.mode, backlog, beside),
        Address::Ip(address) => open_ip(*address, backlog, beside),
        Address::Port(port) => {
            let all = |ip: IpAddr| open_ip(SocketAddr::new(ip, *port), backlog, beside);
            match all(Ipv6Addr::UNSPECIFIED.into()) {
                Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) => all(Ipv4Addr::UNSPECIFIED.into()),
                opened => opened,
            }
        }
    }
}

fn stream(family: AddressFamily, flags: SocketFlags) -> Result<OwnedFd> {
    rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | flags, None)
}

fn open_ip(address: SocketAddr, backlog: i32, beside: bool) -> Result<OwnedFd> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let fd = stream(family, SocketFlags::empty())?;
    sockopt::set_socket_reuseaddr(&fd, true)?;
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        sockopt::set_ipv6_v6only(&fd, false)?;
    }
    // Before the bind it would let us bind beside a stranger of our own user. After it, it lets a
    // later daemon bind beside an incarnation of ours that it can't take this from.
    if beside {
        sockopt::set_socket_reuseport(&fd, true)?;
    }
    rustix::net::bind(&fd, &address)?;
    sockopt::set_socket_reuseport(&fd, true)?;
    rustix::net::listen(&fd, backlog)?;
    Ok(fd)
}

/// Made beside its path and renamed there, so that whoever finds it can connect.
fn open_unix(path: &str, mode: u32, backlog: i32, beside: bool) -> Result<OwnedFd> {
    match rustix::fs::lstat(path) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::Socket => {
            return Err(Errno::EXIST);
        }
        Ok(_) if !beside && answers(path) => return Err(Errno::ADDRINUSE),
        _ => {}
    }
    let making = format!("{path}{MAKING}");
    rustix::fs::unlink(making.as_str()).ok();
    let fd = stream(AddressFamily::UNIX, SocketFlags::empty())?;
    // Not chmod(2) afterwards: whose directory it is could put a link in its place.
    let before = rustix::process::umask(Mode::from_raw_mode(!mode & 0o777));
    let bound = SocketAddrUnix::new(making.as_str()).and_then(|to| rustix::net::bind(&fd, &to));
    rustix::process::umask(before);
    bound?;
    let ready =
        rustix::net::listen(&fd, backlog).and_then(|()| rustix::fs::rename(making.as_str(), path));
    if ready.is_err() {
        rustix::fs::unlink(making.as_str()).ok();
    }
    ready.map(|()| fd)
}

/// Whether somebody listens at a path: a full queue is an answer, too.
fn answers(path: &str) -> bool {
    let connected = stream(AddressFamily::UNIX, SocketFlags::NONBLOCK)
        .and_then(|fd| rustix::net::connect(&fd, &SocketAddrUnix::new(path)?));
    matches!(connected, Ok(()) | Err(Errno::AGAIN))
}

/// Whether it is a socket that listens.
pub fn listens(fd: impl AsFd) -> bool {
    sockopt::socket_acceptconn(fd) == Ok(true)
}

/// Most descriptors of a process that are looked at for its sockets: programs leave them where
/// they found them.
const NUMBERS_MAX: i32 = 256;

/// Copies of the listening sockets that a process has. Empty where it may not be asked.
pub fn of_process(pid: Pid, pidfd: &OwnedFd) -> Vec<OwnedFd> {
    let numbers = procfs::numbers(&format!("/proc/{pid}/fd")).unwrap_or_default().into_iter();
    let numbers = numbers.filter(|number| (3..NUMBERS_MAX).contains(number));
    let is_socket = |number: &i32| {
        let link = procfs::link(&format!("/proc/{pid}/fd/{number}"));
        link.is_ok_and(|link| link.starts_with("socket:"))
    };
    let copy = |number| {
        let flags = rustix::process::PidfdGetfdFlags::empty();
        // It comes close-on-exec: pidfd_getfd(2).
        let fd = rustix::process::pidfd_getfd(pidfd, number, flags).ok()?;
        listens(&fd).then_some(fd)
    };
    numbers.filter(is_socket).filter_map(copy).collect()
}

/// Who listens at an address, as far as we may know.
pub fn holder(address: &Address) -> Option<Pid> {
    let sockets = match address {
        Address::Unix(path) => at_path(path),
        Address::Ip(address) => listening(address.port()),
        Address::Port(port) => listening(*port),
    };
    procfs::holders(&sockets).next().map(|(pid, _)| pid)
}

/// The sockets at a path, as links of descriptors name them.
fn at_path(path: &str) -> Vec<String> {
    let table = procfs::read("/proc/net/unix").unwrap_or_default();
    let ends = [format!(" {path}"), format!(" {path}{MAKING}")];
    let text = String::from_utf8_lossy(&table);
    let lines = text.lines().filter(|line| ends.iter().any(|end| line.ends_with(end)));
    let inodes = lines.filter_map(|line| line.split_whitespace().nth(6));
    inodes.map(|inode| format!("socket:[{inode}]")).collect()
}

/// The state of a socket that listens, in the tables of proc_net(5).
const LISTENS: &str = "0A";

/// The sockets that listen on `port`, as links of descriptors name them.
pub(super) fn listening(port: u16) -> Vec<String> {
    let suffix = format!(":{port:04X}");
    // sl local rem st tx:rx tr:tm retrnsmt uid timeout inode
    let socket = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_it = fields.len() > 9 && fields[1].ends_with(&suffix) && fields[3] == LISTENS;
        is_it.then(|| format!("socket:[{}]", fields[9]))
    };
    let table = |path| procfs::read(path).unwrap_or_default();
    let both = [table("/proc/net/tcp"), table("/proc/net/tcp6")].concat();
    String::from_utf8_lossy(&both).lines().filter_map(socket).collect()
}

/// Whether somebody listens on `port`; and who, as far as we may know: every process that holds
/// such a socket, and its words.
pub fn listeners(port: u16) -> Option<Vec<(Pid, Vec<String>)>> {
    let sockets = listening(port);
    let words = |(pid, _)| {
        let text = guarded::read(&format!("/proc/{pid}/cmdline"));
        (pid, text.map_or(Vec::new(), |text| parse_cmdline(&text)))
    };
    (!sockets.is_empty()).then(|| procfs::holders(&sockets).map(words).collect())
}

/// Who has connected, as it was then. The pid is 0 of one outside our PID namespace: rustix, whose
/// pids are never 0, takes such an answer for an error.
pub fn peer(stream: &impl AsFd) -> Result<libc::ucred> {
    let mut found = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut size = libc::socklen_t::try_from(size_of::<libc::ucred>()).map_err(|_| Errno::INVAL)?;
    let (fd, out) = (stream.as_fd().as_raw_fd(), (&raw mut found).cast());
    let (level, name) = (libc::SOL_SOCKET, libc::SO_PEERCRED);
    // SAFETY: a ucred is writable at `out`, and `size` says how large it is.
    match unsafe { libc::getsockopt(fd, level, name, out, &raw mut size) } {
        0 => Ok(found),
        _ => Err(super::last_errno()),
    }
}

//! The socket that services tell of themselves over, by the protocol of sd_notify(3): datagrams,
//! each with the kernel's word on who sent it.
//!
//! Descriptors that come along are never taken: the kernel closes what finds no room.
use super::home::Home;
use super::{Result, last_errno};
use crate::process::Pid;
use rustix::fd::{AsRawFd, OwnedFd, RawFd};
use rustix::net::sockopt::set_socket_passcred;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};

pub use crate::service::environment::NOTIFY_FILE as FILE;
use crate::service::environment::notify_name;
/// A longer message is cut: it has more than what we understand.
const MESSAGE_BYTES_MAX: usize = 4_096;
/// Room for a `ucred` and its header.
const CONTROL_WORDS: usize = 4;

/// The daemon's end.
#[derive(Debug)]
pub struct NotifySocket(OwnedFd);

impl NotifySocket {
    /// Binds it in the home, anew: by a relative name, for a path has room for 107 bytes only.
    /// Errors: what socket(2) and bind(2) say.
    pub fn bind(home: &Home) -> Result<Self> {
        home.remove(FILE)?;
        let socket = open()?;
        // What bind(2) then makes has this mode, from its first instant.
        rustix::fs::fchmod(&socket, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)?;
        rustix::process::fchdir(&home.dir)?;
        let bound = SocketAddrUnix::new(FILE).and_then(|address| bind(&socket, &address));
        drop(std::env::set_current_dir("/"));
        bound.map(|()| Self(socket))
    }

    /// The one for services of other users, as root, who alone has such. Anybody may send to it, as
    /// to systemd's; who did is what counts. Errors: EADDRINUSE: somebody else has that name.
    pub fn bind_for_others(home: &str) -> Result<Self> {
        let socket = open()?;
        let address = SocketAddrUnix::new_abstract_name(notify_name(home).as_bytes())?;
        bind(&socket, &address).map(|()| Self(socket))
    }

    /// The next message, and the pid of who sent it; 0 if that is not to be seen from here. Errors:
    /// EAGAIN: there is none.
    pub fn receive(&self) -> Result<(Pid, String)> {
        let mut bytes = [0u8; MESSAGE_BYTES_MAX];
        let mut control = [0u64; CONTROL_WORDS];
        let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        // SAFETY: msghdr is a plain C struct, for which zero is valid.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        (header.msg_iov, header.msg_iovlen) = (&raw mut part, 1);
        header.msg_control = control.as_mut_ptr().cast();
        // Of another type in musl.
        header.msg_controllen = size_of_val(&control) as _;
        // SAFETY: the header names writable memory, and how much of it there is.
        let length =
            unsafe { libc::recvmsg(self.0.as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC) };
        let length = usize::try_from(length).map_err(|_| last_errno())?;
        let mut pid = 0;
        // SAFETY: the kernel has filled in the header, whose memory is still there.
        let first = unsafe { libc::CMSG_FIRSTHDR(&raw const header).as_ref() };
        if let Some(first) = first
            && (first.cmsg_level, first.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_CREDENTIALS)
        {
            // SAFETY: such a message holds a ucred.
            let data = unsafe { libc::CMSG_DATA(first) }.cast::<libc::ucred>();
            // SAFETY: as above; it need not be aligned.
            pid = unsafe { data.read_unaligned() }.pid;
        }
        Ok((pid, String::from_utf8_lossy(&bytes[..length.min(bytes.len())]).into_owned()))
    }
}

fn open() -> Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
    set_socket_passcred(&socket, true)?;
    Ok(socket)
}

impl AsRawFd for NotifySocket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

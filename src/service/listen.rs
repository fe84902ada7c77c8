//! The sockets of a service: addresses that the daemon listens on for it.
use std::fmt;
use std::net::SocketAddr;

/// Most sockets of one service.
pub const SOCKETS_MAX: usize = 16;
/// The longest path of a unix socket, with what is put behind it while it is made.
const PATH_BYTES_MAX: usize = 107 - MAKING.len();
/// What a unix socket's path ends in until it is ready; its own name goes on ending so.
pub const MAKING: &str = ".opm";

/// Who may connect to a unix socket, if nothing is said: the owner and the group.
const MODE: u32 = 0o660;
/// As many as the kernel lets wait (net.core.somaxconn bounds it).
const BACKLOG: u32 = 65_535;

/// A socket to be held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// What its service finds it by in LISTEN_FDNAMES.
    pub name: Option<String>,
    pub address: Address,
    /// Connections that wait at most.
    pub backlog: u32,
    /// Of a unix socket.
    pub mode: u32,
}

/// Where a socket listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Everywhere, by IPv6 and IPv4.
    Port(u16),
    Ip(SocketAddr),
    Unix(String),
}

impl Listen {
    /// Reads `[NAME=]ADDRESS[,backlog=N][,mode=0660]`. Errors: one line: what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut words = text.split(',');
        let first = words.next().unwrap_or_default();
        let (name, address) = match first.split_once('=') {
            Some((name, address)) if !name.contains([':', '/']) => (Some(name), address),
            _ => (None, first),
        };
        if name.is_some_and(|name| name.is_empty() || name.len() > 255 || !is_plain(name)) {
            return Err(format!("'{text}': the name of a socket has letters and signs, no blank"));
        }
        let (name, address) = (name.map(str::to_owned), Address::parse(address)?);
        let is_unix = matches!(address, Address::Unix(_));
        let mut listen = Self { name, address, backlog: BACKLOG, mode: MODE };
        for word in words {
            match word.split_once('=') {
                Some(("backlog", number)) => {
                    let number =
                        number.parse().ok().filter(|number| (1..=BACKLOG).contains(number));
                    listen.backlog = number.ok_or("backlog: expected a number from 1 to 65535")?;
                }
                Some(("mode", digits)) if is_unix => {
                    let mode = u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o777);
                    listen.mode = mode.ok_or("mode: expected octal digits, as 0660")?;
                }
                _ => {
                    return Err(format!(
                        "'{word}' is neither backlog=N nor a unix socket's mode=N"
                    ));
                }
            }
        }
        Ok(listen)
    }
}

fn is_plain(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_graphic())
}

impl Address {
    fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let fits = path.starts_with('/') && path.len() <= PATH_BYTES_MAX;
            let is_path = fits && !path.ends_with('/') && !path.contains('\0');
            let reason =
                || format!("'{path}': want an absolute path of at most {PATH_BYTES_MAX} bytes");
            return is_path.then(|| Self::Unix(path.to_owned())).ok_or_else(reason);
        }
        let port = text.parse().ok().filter(|port| *port != 0).map(Self::Port);
        let ip = || text.parse().ok().filter(|address: &SocketAddr| address.port() != 0);
        port.or_else(|| ip().map(Self::Ip)).ok_or_else(|| {
            format!("'{text}': want 3000, 127.0.0.1:3000, [::1]:3000 or unix:/PATH, by number")
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => write!(f, "{port}"),
            Self::Ip(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

/// What [`Listen::parse`] reads back.
impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            write!(f, "{name}=")?;
        }
        write!(f, "{}", self.address)?;
        if self.backlog != BACKLOG {
            write!(f, ",backlog={}", self.backlog)?;
        }
        if self.mode != MODE {
            write!(f, ",mode={:04o}", self.mode)?;
        }
        Ok(())
    }
}

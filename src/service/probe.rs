//! What `--ready` and `--health` say: by what it is told from outside that a service does its
//! work. Pure: how that is written, what is asked, and what an answer means.
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What tells that a service does its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sign {
    /// Its program runs.
    Exec,
    /// Its own word, by the protocol of sd_notify(3).
    Notify,
    /// A newline that it writes to this descriptor, as s6 has it.
    Fd(u8),
    /// The message `ready` on the channel that node gives a child.
    Ipc,
    /// It answers.
    Probe(Probe),
}

/// A question that a service is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Somebody accepts a connection there.
    Tcp(Place),
    /// A GET of this path is answered with 2xx or 3xx.
    Http(Place, String),
    /// A line for a shell, run as the service is, ends with 0.
    Command(String),
}

/// What a service is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    Ready,
    Health,
}

/// A port, of this machine if no address is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    ip: Option<IpAddr>,
    port: u16,
}

/// By what it is told that a service still does its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health(pub Sign);

/// The descriptors that a service may be given: 0 to 2 are its streams, those above are ours.
const FDS: std::ops::RangeInclusive<u8> = 3..=97;
/// Where a service finds the channel to say that it is ready over, as node does its parent's.
pub const IPC_FD: u8 = 99;
/// So much of an answer tells what it is.
pub const ANSWER_BYTES_MAX: usize = 256;

impl Place {
    /// Reads `PORT`, `ADDRESS:PORT` or for HTTP an address. Names aren't looked up: that may last.
    fn parse(text: &str, usual: Option<u16>) -> Option<Self> {
        let local = |port: u16| Self { ip: None, port };
        let port = |text: &str| text.parse().ok().filter(|port| *port > 0);
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return port(text).map(local);
        }
        if let Some(rest) = text.strip_prefix("localhost") {
            let said = rest.strip_prefix(':').map(port);
            return said.unwrap_or(usual.filter(|_| rest.is_empty())).map(local);
        }
        let alone = text.trim_start_matches('[').trim_end_matches(']').parse();
        let alone = || Some(SocketAddr::new(alone.ok()?, usual?));
        let address = text.parse().ok().or_else(alone).filter(|address| address.port() > 0)?;
        Some(Self { ip: Some(address.ip()), port: address.port() })
    }

    /// Where to connect to, one after the other.
    pub fn addresses(self) -> impl Iterator<Item = SocketAddr> {
        let local = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let ips = self.ip.map_or([Some(local[0]), Some(local[1])], |ip| [Some(ip), None]);
        ips.into_iter().flatten().map(move |ip| SocketAddr::new(ip, self.port))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            None => write!(to, "localhost:{}", self.port),
            Some(ip) => write!(to, "{}", SocketAddr::new(ip, self.port)),
        }
    }
}

impl Probe {
    fn parse(kind: &str, rest: &str) -> Option<Self> {
        match kind {
            "tcp" => Place::parse(rest, None).map(Self::Tcp),
            "http" => {
                let rest = rest.strip_prefix("http:").unwrap_or(rest);
                let rest = rest.strip_prefix("//").unwrap_or(rest);
                let (place, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                let is_plain = path.bytes().all(|byte| byte.is_ascii_graphic());
                let path = if path.is_empty() { "/" } else { path };
                let place = Place::parse(place, Some(80)).filter(|_| is_plain)?;
                Some(Self::Http(place, path.to_owned()))
            }
            "cmd" if !rest.trim().is_empty() && !rest.contains('\0') => {
                Some(Self::Command(rest.to_owned()))
            }
            _ => None,
        }
    }

    /// What is sent to be answered.
    pub fn request(&self) -> Option<String> {
        let Self::Http(place, path) = self else { return None };
        Some(format!("GET {path} HTTP/1.0\r\nHost: {place}\r\nUser-Agent: opm\r\n\r\n"))
    }
}

/// What the first bytes of an answer to a GET mean. None: there is too little of it. `is_all`:
/// nothing more comes.
pub fn read_answer(answer: &[u8], is_all: bool) -> Option<Result<(), String>> {
    let line = match answer.iter().position(|byte| *byte == b'\n') {
        Some(end) => &answer[..end],
        None if is_all || answer.len() >= ANSWER_BYTES_MAX => answer,
        None => return None,
    };
    let line = String::from_utf8_lossy(line);
    let status = line.trim_end().strip_prefix("HTTP/").and_then(|line| line.split_once(' '));
    Some(match status {
        Some((_, status)) if status.starts_with(['2', '3']) => Ok(()),
        Some((_, status)) => Err(status.to_owned()),
        None if line.is_empty() => Err("it hung up".to_owned()),
        None => Err("its answer is not HTTP".to_owned()),
    })
}

impl Sign {
    /// Reads what stands behind `--ready`. Errors: one line: what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let sign = match text.split_once(':') {
            Some(("fd", fd)) => fd.parse().ok().filter(|fd| FDS.contains(fd)).map(Self::Fd),
            Some((kind, rest)) => Probe::parse(kind, rest).map(Self::Probe),
            None => match text {
                "exec" => Some(Self::Exec),
                "notify" => Some(Self::Notify),
                "ipc" => Some(Self::Ipc),
                _ => None,
            },
        };
        let expected = "expected exec, notify, ipc, fd:N (3 to 97), tcp:PORT, http:URL or cmd:LINE";
        sign.ok_or_else(|| expected.to_owned())
    }
}

impl Health {
    /// Reads what stands behind `--health`. Errors: one line: what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        match Sign::parse(text) {
            Ok(sign @ (Sign::Notify | Sign::Probe(_))) => Ok(Self(sign)),
            _ => Err("expected tcp:PORT, http:URL, cmd:LINE or notify".to_owned()),
        }
    }
}

impl fmt::Display for Sign {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exec => to.write_str("exec"),
            Self::Notify => to.write_str("notify"),
            Self::Ipc => to.write_str("ipc"),
            Self::Fd(fd) => write!(to, "fd:{fd}"),
            Self::Probe(Probe::Tcp(place)) => write!(to, "tcp:{place}"),
            Self::Probe(Probe::Http(place, path)) => write!(to, "http://{place}{path}"),
            Self::Probe(Probe::Command(line)) => write!(to, "cmd:{line}"),
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(to)
    }
}

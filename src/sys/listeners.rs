//! Who listens on a port of TCP, by /proc.
use super::{guarded, procfs};
use crate::process::Pid;
use crate::process::stat::parse_cmdline;

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

//! Who listens on a port of TCP, by /proc.
use super::{guarded, procfs};
use crate::process::Pid;
use crate::process::stat::parse_cmdline;
use std::collections::BTreeSet;

/// The state of a socket that listens, in the tables of proc_net(5).
const LISTENS: &str = "0A";

/// The sockets that listen on `port`, by inode, in one of the tables.
fn sockets(table: &str, port: u16) -> BTreeSet<String> {
    let suffix = format!(":{port:04X}");
    let inode = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_it = fields.len() > 9 && fields[1].ends_with(&suffix) && fields[3] == LISTENS;
        is_it.then(|| format!("socket:[{}]", fields[9]))
    };
    table.lines().filter_map(inode).collect()
}

/// Whether somebody listens on `port`; and who, as far as we may know: every process that holds
/// such a socket, and its words.
pub fn listeners(port: u16) -> Option<Vec<(Pid, Vec<String>)>> {
    let table = |path| std::fs::read_to_string(path).unwrap_or_default();
    let mut wanted = sockets(&table("/proc/net/tcp"), port);
    wanted.append(&mut sockets(&table("/proc/net/tcp6"), port));
    if wanted.is_empty() {
        return None;
    }
    let holds = |pid: &Pid| {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let mut links = files.filter_map(|file| std::fs::read_link(file.path()).ok());
        links.any(|link| link.to_str().is_some_and(|link| wanted.contains(link)))
    };
    let pids = procfs::numbers("/proc").unwrap_or_default().into_iter().filter(holds);
    Some(pids.map(|pid| (pid, words_of(pid))).collect())
}

/// The words of a process; none where they can't be read.
pub fn words_of(pid: Pid) -> Vec<String> {
    guarded::read(&format!("/proc/{pid}/cmdline")).map_or(Vec::new(), |text| parse_cmdline(&text))
}

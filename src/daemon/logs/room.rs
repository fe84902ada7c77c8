//! The room that all logs of a home may take together: the oldest archives go first.
use crate::service::units::{Bytes, human_bytes};
use crate::sys::archives::{self, Archive};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// If nothing else is said.
const TOTAL: Bytes = Bytes(1 << 30);
/// What says so: `{"log_max_total": "500M"}`.
const CONFIG: &str = "config.json";
const CONFIG_BYTES_MAX: u64 = 64 << 10;

/// Archives leave this part of a disk free, or so many bytes.
const FREE_PART: u64 = 20;
const FREE_BYTES_MAX: u64 = 64 << 20;

fn logs(home: &str) -> PathBuf {
    Path::new(home).join("logs")
}

/// Keeps a home's logs within their bound, and some of `directory`'s disk free. What went for that.
pub(super) fn limit(home: &str, directory: &Path) -> Option<String> {
    let total = said(home).ok().flatten().unwrap_or(TOTAL);
    let entries = std::fs::read_dir(logs(home)).into_iter().flatten().flatten();
    let stats = entries.filter_map(|entry| rustix::fs::lstat(entry.path()).ok());
    let mut used: u64 = stats.map(|stat| stat.st_blocks.unsigned_abs() * 512).sum();
    let mut gone = Vec::new();
    while used > total.0
        && let Some(archive) = drop_oldest(&logs(home))
    {
        used = used.saturating_sub(archive.bytes);
        gone.push(archive);
    }
    let why =
        if gone.is_empty() { "the disk is full".to_owned() } else { format!("logs take {total}") };
    while is_full(directory)
        && let Some(archive) = drop_oldest(directory)
    {
        gone.push(archive);
    }
    let bytes = human_bytes(gone.iter().map(|archive| archive.bytes).sum());
    let text = || format!("{why}: {} archives ({bytes}) went", gone.len());
    (!gone.is_empty()).then(text)
}

/// Logs in the home's directory that are of none of these, and the bytes that they take.
pub(crate) fn of_nobody(home: &str, known: &BTreeSet<String>) -> (usize, u64) {
    let entries = std::fs::read_dir(logs(home)).into_iter().flatten().flatten();
    let is_left = |path: &PathBuf| {
        let name = || path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let log = Archive::parse(path.clone()).map_or_else(name, |archive| archive.log);
        log.ends_with(".log") && !known.contains(&log)
    };
    let left = entries.map(|entry| entry.path()).filter(is_left);
    let stats = left.filter_map(|path| rustix::fs::lstat(path).ok());
    stats.fold((0, 0), |(n, bytes), stat| (n + 1, bytes + stat.st_blocks.unsigned_abs() * 512))
}

/// Something of the home could not be written: archives give way. What went.
pub(crate) fn give_way(home: &str) -> Option<String> {
    limit(home, &logs(home))
}

/// What [`CONFIG`] says, read each time: it is needed seldom, and may change. Errors: what is wrong
/// with it.
pub(crate) fn said(home: &str) -> Result<Option<Bytes>, String> {
    let path = Path::new(home).join(CONFIG);
    let (mut text, mut options) = (String::new(), File::options());
    // What is a FIFO, or has no end, is none.
    let opened = options.read(true).custom_flags(libc::O_NONBLOCK).open(&path);
    let read = match opened.and_then(|file| file.take(CONFIG_BYTES_MAX).read_to_string(&mut text)) {
        Ok(_) => of_config(&text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    };
    read.map_err(|why| format!("{}: {why}", path.display()))
}

/// Whether less is free than archives leave to others.
pub(super) fn is_full(directory: &Path) -> bool {
    rustix::fs::statvfs(directory).is_ok_and(|disk| {
        let least = (disk.f_blocks * disk.f_frsize / FREE_PART).min(FREE_BYTES_MAX);
        disk.f_bavail * disk.f_frsize < least
    })
}

fn of_config(text: &str) -> Result<Option<Bytes>, String> {
    let value = crate::service::json::parse(text)?;
    match &value["log_max_total"] {
        serde_json::Value::Null => Ok(None),
        serde_json::Value::String(text) => Bytes::parse(text).map(Some),
        other => Err(format!("log_max_total: expected a size such as \"500M\", found {other}")),
    }
}

/// Removes the oldest archive in a directory.
pub(super) fn drop_oldest(directory: &Path) -> Option<Archive> {
    let mut all = archives::list(directory, None);
    all.retain(|archive| archive.begin.is_none());
    all.sort_by_key(|archive| archive.modified);
    all.into_iter().find(|archive| rustix::fs::unlink(&archive.path).is_ok())
}

#[cfg(test)]
#[path = "../../../tests/inner/daemon_logs_room.rs"]
mod tests;

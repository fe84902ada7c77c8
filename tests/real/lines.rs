//! Numbered lines, written at full speed while logs are rotated, daemons are killed and replaced
//! and the disk is full: each is there once, in its order, or counted.
use crate::namespace::{Setting, isolated_in};
use crate::rig::Rig;
use opm::sys::archives::{self, extent};
use rustix::fs::{FallocateFlags, fallocate};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// All that counts of a log, end to end; none while a rotation goes on.
pub(crate) fn stream(log: &Path) -> Option<Vec<u8>> {
    let (directory, name) = archives::place(log);
    let live = File::open(log).ok()?;
    let before = extent(&live).ok()?;
    let all = archives::list(directory, Some(name));
    let mut text = Vec::new();
    for archive in &all {
        if archive.has_moved(before.0, before.1) {
            text.extend(std::fs::read(&archive.path).ok()?);
        }
    }
    text.extend(std::fs::read(log).ok()?.get(usize::try_from(before.0).ok()?..)?);
    let is_same = extent(&live).ok()? == before && archives::list(directory, Some(name)) == all;
    is_same.then_some(text)
}

pub(crate) fn archives_of(log: &Path) -> usize {
    let (directory, name) = archives::place(log);
    archives::list(directory, Some(name)).len()
}

pub(crate) fn log_of(rig: &Rig, name: &str) -> PathBuf {
    rig.info(name)["log_out"].as_str().unwrap().into()
}

/// Numbered lines of each of two writers, until there is a file `stop`.
pub(crate) const WRITERS: &str = r#"
    write() {
        n=0
        while [ ! -e stop ]; do
            m=$((n + 500))
            while [ $n -lt $m ]; do
                echo "$1$n 0123456789 0123456789 0123456789 0123456789 0123456789"
                n=$((n + 1))
            done
        done
        echo "$1$n"
    }
    write o & write e >&2
    wait
    touch stopped
    exec sleep 1000000"#;

/// A directory with this mounted on it, in the test's own mount namespace.
fn mounted(rig: &Rig, what: &[&str]) -> PathBuf {
    let directory = rig.dir.join("mnt");
    std::fs::create_dir_all(&directory).unwrap();
    mount(&directory, what);
    directory
}

pub(crate) fn mount(directory: &Path, what: &[&str]) {
    let mut mount = Command::new("mount");
    assert!(mount.args(what).arg(directory).status().unwrap().success(), "mount {what:?}");
}

/// A small file system of this kind, if the machine lets us make one.
fn file_system(rig: &Rig, kind: &str) -> Option<PathBuf> {
    if kind == "tmpfs" {
        return Some(mounted(rig, &["-t", kind, "-o", "size=300m", "none"]));
    }
    let image = rig.dir.join("image");
    File::create(&image).unwrap().set_len(320 << 20).unwrap();
    let mut mkfs = Command::new(format!("mkfs.{kind}"));
    mkfs.arg("-q").arg(&image).stdout(Stdio::null()).stderr(Stdio::null());
    let known = std::fs::read_to_string("/proc/filesystems").unwrap();
    let is_known = known.lines().any(|line| line.trim() == kind);
    let is_made = is_known && mkfs.status().is_ok_and(|status| status.success());
    if !is_made || !Path::new("/dev/loop-control").exists() {
        return None;
    }
    Some(mounted(rig, &["-o", "loop", image.to_str().unwrap()]))
}

/// Whose lines there are to be: `o` and `e` of two writers, or `o` alone, with a time before each.
struct Lines {
    next: [u64; 2],
    /// What the disk had no room for, as the log itself says.
    lost: u64,
    gaps: u32,
}

fn bytes_of(who: usize, number: u64) -> u64 {
    let text = format!("{}{number}", ["o", "e"][who]);
    text.len() as u64 + " 0123456789".len() as u64 * 5 + 1
}

/// Counts lines of which the first ones may have gone with their archives.
fn counted(text: &[u8], is_stamped: bool, mut may_begin_later: bool) -> Lines {
    let (mut lines, mut gap) = (Lines { next: [0; 2], lost: 0, gaps: 0 }, 0u64);
    let text = std::str::from_utf8(text).unwrap();
    for line in text.lines().skip(usize::from(may_begin_later)) {
        let line = match is_stamped {
            true => {
                let (at, rest) = line.split_once(' ').unwrap_or_else(|| panic!("torn: {line:?}"));
                assert!(at.len() == 27 && at.starts_with("20") && at.ends_with('Z'), "{line}");
                rest
            }
            false => line,
        };
        if let Some(said) = line.strip_prefix("opm: ") {
            gap += said.split(' ').next().unwrap().parse::<u64>().unwrap();
            lines.gaps += 1;
            continue;
        }
        let (who, rest) = line.split_at(1);
        let who = ["o", "e"].iter().position(|of| *of == who);
        let who = who.unwrap_or_else(|| panic!("a torn line: {line:?}"));
        let number = rest.split(' ').next().unwrap().parse::<u64>();
        let number = number.unwrap_or_else(|_| panic!("a torn line: {line:?}"));
        if std::mem::take(&mut may_begin_later) {
            lines.next[who] = number;
        }
        let missing = (lines.next[who]..number).map(|number| bytes_of(who, number)).sum::<u64>();
        assert_eq!(missing, std::mem::take(&mut gap), "before {line}");
        assert!(number >= lines.next[who], "{line} came again, {} was next", lines.next[who]);
        lines.lost += missing;
        lines.next[who] = number + 1;
    }
    lines
}

/// Takes all the room that there is.
pub(crate) fn fill(ballast: &Path) {
    let file = File::create(ballast).unwrap();
    let (mut at, mut size) = (0, 256u64 << 20);
    while size >= 4096 {
        match fallocate(&file, FallocateFlags::empty(), at, size) {
            Ok(()) => at += size,
            Err(_) => size /= 2,
        }
    }
}

/// The disk is full, lines are dropped, and then there is room again.
fn a_full_disk_meanwhile(rig: &Rig, directory: &Path) {
    fill(&directory.join("ballast"));
    rig.until("the disk to be full", || {
        let mut reasons = rig.events("web").into_iter().filter_map(|event| event.reason);
        reasons.any(|reason| reason.contains("the disk is full")).then_some(())
    });
    std::fs::remove_file(directory.join("ballast")).unwrap();
    let last = || archives::list(directory, None).last().map_or(0, |archive| archive.number);
    let seen = last();
    rig.until("rotations when there is room", || (last() > seen + 1).then_some(()));
    rig.kill_daemon();
    rig.ok(&["ls"]);
}

/// The whole stream, when the writers have ended and the rest is rotated.
fn whole(rig: &Rig, log: &Path, words: usize) -> Vec<u8> {
    let whole = || {
        let (begin, end) = extent(File::open(log).unwrap()).unwrap();
        let text = (end - begin < 64 << 10).then(|| stream(log))??;
        let last = text.trim_ascii_end().rsplit(|byte| *byte == b'\n').next()?;
        (last.split(|byte| *byte == b' ').count() == words).then_some(text)
    };
    loop {
        let seen = archives_of(log);
        let text = rig.until("the last line, or one more rotation", || {
            whole().map(Some).or_else(|| (archives_of(log) != seen).then_some(None))
        });
        if let Some(text) = text {
            return text;
        }
    }
}

/// With OPM_REAL_ROUNDS=50: 200 rotations and 50 deaths of the daemon, five of them by upgrades.
fn each_line_is_there_once(name: &str, kind: &str, is_piped: bool) {
    let rounds = std::env::var("OPM_REAL_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
    let time = Some(Duration::from_secs(90 + 5 * rounds as u64));
    isolated_in(Setting { time, ..Default::default() }, name, |rig| {
        let Some(directory) = file_system(rig, kind) else {
            return eprintln!("skipped: no {kind} here (mkfs.{kind}, a loop device)");
        };
        let log = directory.join("web.log");
        let script = match is_piped {
            true => WRITERS.replace("write o & write e >&2", "write o &"),
            false => WRITERS.to_owned(),
        };
        let form: &[_] = if is_piped { &["--log-time"] } else { &["--merge-logs"] };
        let size = ["--log-max-size", "64K", "--log-keep", "100000"];
        let words = ["start", "--name", "web", "--log-out", log.to_str().unwrap()];
        rig.ok(&[&words, &size[..], form, &["--", "bash", "-c", &script]].concat());
        let mut seen = 0;
        for round in 1..=rounds {
            rig.until("rotations", || (archives_of(&log) >= seen + 4).then_some(()));
            seen = archives_of(&log);
            match round % 10 {
                2 => drop(rig.ok(&["daemon", "restart"])),
                7 if is_piped => {
                    assert!(rig.ok(&["daemon", "stop"]).contains("1 of them waits"));
                    rig.ok(&["ls"]);
                }
                _ => {
                    rig.kill_daemon();
                    rig.ok(&["ls"]);
                }
            }
        }
        if is_piped {
            a_full_disk_meanwhile(rig, &directory);
        }
        std::fs::write(rig.dir.join("stop"), "").unwrap();
        rig.until("the writers to end", || rig.dir.join("stopped").exists().then_some(()));
        let text = whole(rig, &log, 1 + usize::from(is_piped));
        let all = archives::list(&directory, None);
        // On the full disk the oldest archives have gone.
        let first = text.split(|byte| *byte == b'\n').next().unwrap();
        let is_dropped = is_piped && !first.windows(4).any(|word| word == b" o0 ");
        let lines = counted(&text, is_piped, is_dropped);
        assert!(lines.next[0] > 1_000, "{:?}", lines.next);
        let out = rig.ok(&["logs", "web", "--out", "--lines", "all", "--raw"]);
        assert!(out.as_bytes() == text, "opm logs says the same");
        let archives = all.last().map_or(0, |last| last.number);
        eprintln!(
            "{kind}: {:?} lines, {archives} rotations, {rounds} deaths; {} bytes lost in {} gaps",
            lines.next, lines.lost, lines.gaps
        );
    });
}

/// Every line is there once, on each file system, written by the service itself and carried.
macro_rules! on_each {
    ($($kind:ident)*) => {
        $(mod $kind {
            #[test]
            fn each_line_is_there_once() {
                super::each_line_is_there_once(here!(), stringify!($kind), false);
            }

            #[test]
            fn each_carried_line_is_there_once() {
                super::each_line_is_there_once(here!(), stringify!($kind), true);
            }
        })*
    };
}

on_each! { tmpfs ext4 xfs btrfs }

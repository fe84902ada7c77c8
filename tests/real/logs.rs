//! What services write stays whole and has a bound, whoever dies.
use crate::namespace::isolated;
use crate::rig::Rig;
use opm::sys::archives::{self, extent};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// All that counts of a log, end to end; none while a rotation goes on.
fn stream(log: &Path) -> Option<Vec<u8>> {
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
    text.extend(&std::fs::read(log).ok()?[usize::try_from(before.0).ok()?..]);
    let is_same = extent(&live).ok()? == before && archives::list(directory, Some(name)) == all;
    is_same.then_some(text)
}

fn archives_of(log: &Path) -> usize {
    let (directory, name) = archives::place(log);
    archives::list(directory, Some(name)).len()
}

fn log_of(rig: &Rig, name: &str) -> PathBuf {
    rig.info(name)["log_out"].as_str().unwrap().into()
}

/// Numbered lines of each of two writers, until there is a file `stop`.
const WRITERS: &str = r#"
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

/// Whether both writers' lines are all there, in their order, and no other.
fn assert_whole(text: &[u8]) {
    let mut next = [0u64; 2];
    for line in std::str::from_utf8(text).unwrap().lines() {
        let (who, rest) = line.split_at(1);
        let at = ["o", "e"].iter().position(|of| *of == who);
        let at = at.unwrap_or_else(|| panic!("a torn line: {line:?}"));
        let number = rest.split(' ').next().unwrap().parse();
        assert_eq!(number, Ok(next[at]), "{line}");
        next[at] += 1;
    }
    assert!(next.iter().all(|count| *count > 1_000), "{next:?}");
}

fn every_line_is_there_after_rotations_and_kills(rig: &Rig, log: &Path) {
    let size = ["--log-max-size", "64K", "--log-keep", "100000", "--merge-logs"];
    let words = ["start", "--name", "web", "--log-out", log.to_str().unwrap()];
    rig.ok(&[&words, &size[..], &["--", "bash", "-c", WRITERS]].concat());
    for round in 1..=5 {
        rig.until(&format!("rotation {round}"), || (archives_of(log) >= round * 4).then_some(()));
        match round % 3 {
            0 => drop(rig.ok(&["daemon", "restart"])),
            _ => {
                rig.kill_daemon();
                rig.ok(&["ls"]);
            }
        }
    }
    std::fs::write(rig.dir.join("stop"), "").unwrap();
    rig.until("the writers to end", || rig.dir.join("stopped").exists().then_some(()));
    // The rest is rotated, too, until less than the bound is left.
    let text = rig.until("the last rotation", || {
        let (begin, end) = extent(File::open(log).unwrap()).unwrap();
        stream(log).filter(|_| end - begin < 64 << 10)
    });
    assert_whole(&text);
    assert_eq!(rig.ok(&["logs", "web", "--out", "--lines", "all", "--raw"]).as_bytes(), text);
}

#[test]
fn every_line_is_there_where_a_log_can_be_collapsed() {
    isolated(here!(), |rig| {
        every_line_is_there_after_rotations_and_kills(rig, &rig.dir.join("web.log"));
    });
}

#[test]
fn every_line_is_there_where_a_log_can_only_have_a_hole() {
    isolated(here!(), |rig| {
        let directory = mounted(rig, &["-t", "tmpfs", "-o", "size=1g", "none"]);
        every_line_is_there_after_rotations_and_kills(rig, &directory.join("web.log"));
    });
}

/// A directory with this mounted on it, in the test's own mount namespace.
fn mounted(rig: &Rig, what: &[&str]) -> PathBuf {
    let directory = rig.dir.join("mnt");
    std::fs::create_dir_all(&directory).unwrap();
    mount(&directory, what);
    directory
}

fn mount(directory: &Path, what: &[&str]) {
    let mut mount = std::process::Command::new("mount");
    assert!(mount.args(what).arg(directory).status().unwrap().success(), "mount {what:?}");
}

#[test]
fn old_archives_go_by_number_by_age_and_by_the_room_of_all() {
    isolated(here!(), |rig| {
        let flood = "seq 1000000; exec sleep 1000000";
        let start = |name: &str, options: &[&str], wanted: Range<usize>| {
            let size = ["--log-max-size", "256K"];
            rig.ok(&[&["start", "--name", name], &size[..], options, &["--", "sh", "-c", flood]]
                .concat());
            let log = log_of(rig, name);
            rig.until(&format!("{name}: {wanted:?} archives"), || {
                let (begin, end) = extent(File::open(&log).unwrap()).unwrap();
                let is_small = end > 0 && end - begin < 256 << 10;
                (is_small && wanted.contains(&archives_of(&log))).then_some(())
            });
        };
        start("few", &["--log-keep", "2"], 2..3);
        start("old", &["--log-keep", "99", "--log-max-age", "1ms"], 0..1);
        start("many", &["--log-keep", "99"], 10..99);
        std::fs::write(rig.home.join("config.json"), r#"{"log_max_total": "1M"}"#).unwrap();
        start("room", &["--log-keep", "99"], 1..4);
        let said = rig.events("room").into_iter().filter_map(|event| event.reason);
        assert!(said.into_iter().any(|reason| reason.contains("logs take 1M")));
        rig.ok(&["flush", "all"]);
        assert_eq!(archives_of(&log_of(rig, "room")), 0);
    });
}

#[test]
fn where_output_goes_is_said_by_options() {
    isolated(here!(), |rig| {
        let script = "echo out; echo err >&2; exec sleep 1000000";
        let start = |name: &str, options: &[&str]| {
            rig.ok(&[&["start", "--name", name], options, &["--", "sh", "-c", script]].concat());
        };
        let text = |path: &str| {
            rig.until(path, || {
                std::fs::read_to_string(path).ok().filter(|text| text.ends_with("r\n"))
            })
        };
        start("merged", &["--merge-logs", "--log-out", "new/m.log"]);
        let path = rig.dir.join("new/m.log");
        assert_eq!(text(path.to_str().unwrap()), "out\nerr\n");
        assert_eq!(rig.info("merged")["log_error"].as_str(), path.to_str());
        start("none", &["--no-logs"]);
        assert_eq!(rig.info("none")["log_out"], "/dev/null");
        rig.ok(&["flush", "none"]);
        start("split", &["--log-error", "e.log"]);
        assert_eq!(text(rig.dir.join("e.log").to_str().unwrap()), "err\n");
        let line = rig.refused(2, &["start", "--log-max-size", "10X", "--", "true"]);
        assert!(line.contains("--log-max-size") && line.contains("10X"), "{line}");
    });
}

/// The numbers of stamped lines; a daemon that was killed may have written its last ones, or a part
/// of them, and the next one writes them again.
fn stamped(text: &[u8], again: usize) -> u64 {
    let (mut next, mut steps_back) = (0u64, 0);
    for line in std::str::from_utf8(text).unwrap().lines() {
        let whole = line.rfind('Z').unwrap() + 1 - 27;
        let line = &line[whole..];
        steps_back += usize::from(whole > 0);
        let (at, rest) = line.split_once(' ').unwrap();
        assert!(at.len() == 27 && at.starts_with("20") && at.ends_with('Z'), "{line}");
        let number: u64 =
            rest.strip_prefix('o').unwrap().split(' ').next().unwrap().parse().unwrap();
        assert!(number <= next, "{next} is missing: {line}");
        steps_back += usize::from(number < next);
        next = number + 1;
    }
    assert!(steps_back <= again, "{steps_back} times lines came again");
    next
}

#[test]
fn stamped_lines_outlive_every_daemon() {
    isolated(here!(), |rig| {
        let script = WRITERS.replace("write o & write e >&2", "write o &");
        let options = ["--log-time", "--log-max-size", "64K", "--log-keep", "100000"];
        let words = ["start", "--name", "web"];
        rig.ok(&[&words, &options[..], &["--", "bash", "-c", &script]].concat());
        let log = log_of(rig, "web");
        let mut seen = 0;
        for round in 0..4 {
            rig.until("more lines", || (archives_of(&log) > seen).then_some(()));
            seen = archives_of(&log);
            match round {
                0 => drop(rig.ok(&["daemon", "restart"])),
                1 => assert!(rig.ok(&["daemon", "stop"]).contains("1 of them waits")),
                _ => rig.kill_daemon(),
            }
            rig.ok(&["ls"]);
        }
        std::fs::write(rig.dir.join("stop"), "").unwrap();
        rig.until("the writer to end", || rig.dir.join("stopped").exists().then_some(()));
        let last = rig.until("its last line", || {
            let text = stream(&log)?;
            let end = text.trim_ascii_end().rsplit(|byte| *byte == b'\n').next()?;
            (end.split(|byte| *byte == b' ').count() == 2).then_some(text)
        });
        assert!(stamped(&last, 2) > 1_000);
    });
}

#[test]
fn lines_become_objects_of_one_file_in_their_order() {
    isolated(here!(), |rig| {
        let script = "for i in 1 2 3; do echo out$i; echo err$i >&2; done; printf 'no\\377 end'";
        let options = ["--log-format", "json", "--merge-logs", "--restart", "never"];
        let words = ["start", "--name", "web"];
        rig.ok(&[&words, &options[..], &["--", "bash", "-c", script]].concat());
        let log = log_of(rig, "web");
        let text = rig.until("its last line", || {
            let text = std::fs::read_to_string(&log).ok()?;
            text.contains("end").then_some(text)
        });
        let lines = text.lines().map(|line| {
            let object: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(object["service"], "web");
            object["line"].as_str().unwrap().to_owned()
        });
        let expected = ["out1", "err1", "out2", "err2", "out3", "err3", "no\u{fffd} end"];
        assert_eq!(lines.collect::<Vec<_>>(), expected);
    });
}

#[test]
fn a_full_disk_costs_the_oldest_lines_and_nobody_its_life() {
    isolated(here!(), |rig| {
        std::fs::create_dir(&rig.home).unwrap();
        mount(&rig.home, &["-t", "tmpfs", "-o", "size=3m", "none"]);
        let options = ["--log-max-size", "512K", "--log-keep", "100", "--merge-logs"];
        let words = ["start", "--name", "web"];
        rig.ok(&[&words, &options[..], &["--", "bash", "-c", WRITERS]].concat());
        let (log, pid) = (log_of(rig, "web"), rig.row("web").pid);
        rig.until("the disk to be full", || {
            let mut reasons = rig.events("web").into_iter().filter_map(|event| event.reason);
            reasons.any(|reason| reason.contains("the disk is full")).then_some(())
        });
        assert_eq!(rig.row("web").pid, pid);
        std::fs::write(rig.dir.join("stop"), "").unwrap();
        rig.until("the writers to end", || rig.dir.join("stopped").exists().then_some(()));
        rig.until("room", || (stream(&log)?.len() < 3 << 20).then_some(()));
        // Nothing needs a hand.
        rig.until("another service", || {
            (rig.opm(&["start", "--name", "other", "--", "sleep", "1000000"]).code == Some(0))
                .then_some(())
        });
        rig.ok(&["restart", "web"]);
    });
}

#[test]
fn compressed_archives_are_read_and_whoever_compresses_is_in_nobodys_way() {
    isolated(here!(), |rig| {
        let script = "seq 300000; exec sleep 1000000";
        let options = ["--log-compress", "gzip", "--log-max-size", "256K", "--log-keep", "99"];
        let words = ["start", "--name", "web", "--min-uptime", "0s"];
        rig.ok(&[&words, &options[..], &["--", "sh", "-c", script]].concat());
        let log = log_of(rig, "web");
        rig.until("compressed archives", || {
            let all = archives::list(archives::place(&log).0, None);
            let packed = all.iter().filter(|archive| archive.is_compressed().is_some()).count();
            (packed > 3 && packed + 1 == all.len()).then_some(())
        });
        let expected: String = (1..=300_000).map(|n| format!("{n}\n")).collect();
        assert!(rig.ok(&["logs", "web", "--out", "--lines", "all"]) == expected);
        rig.ok(&["restart", "web"]);
        rig.ok(&["stop", "web"]);
    });
}

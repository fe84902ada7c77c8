//! What services write has a bound, and goes where options say, in the form that they say.
use crate::lines::{WRITERS, archives_of, fill, log_of, mount, stream};
use crate::namespace::isolated;
use opm::sys::archives::{self, extent};
use std::fs::File;
use std::ops::Range;

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
        // What a quiet log has gets too old as well.
        let log = log_of(rig, "old");
        std::fs::write(archives::path_of(&log, 7), "quiet").unwrap();
        rig.ok(&["adjust", "old", "--log-max-age", "2s"]);
        rig.ok(&["restart", "old"]);
        rig.until("the archives to be too old", || (archives_of(&log) == 0).then_some(()));
        start("many", &["--log-keep", "99"], 10..99);
        std::fs::write(rig.home.join("config.json"), r#"{"log_max_total": 1}"#).unwrap();
        assert!(rig.ok(&["doctor"]).contains("config.json: log_max_total: expected a size"));
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
        // What was cleaned away comes back with the next start, and a new place is made for it.
        std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
        rig.ok(&["restart", "merged"]);
        assert_eq!(text(path.to_str().unwrap()), "out\nerr\n");
        let moved = rig.dir.join("other/place/m.log");
        rig.ok(&["adjust", "merged", "--log-out", moved.to_str().unwrap(), "--now"]);
        assert_eq!(text(moved.to_str().unwrap()), "out\nerr\n");
        let doctor = || rig.ok(&["doctor"]);
        start("gone", &[]);
        start("a.log", &[]);
        assert!(!doctor().contains("of services that are gone"), "{}", doctor());
        rig.ok(&["remove", "gone"]);
        assert!(doctor().contains("2 files (") && doctor().contains("of services that are gone"));
        start("none", &["--no-logs"]);
        assert_eq!(rig.info("none")["log_out"], "/dev/null");
        rig.ok(&["flush", "none"]);
        start("split", &["--log-error", "e.log"]);
        assert_eq!(text(rig.dir.join("e.log").to_str().unwrap()), "err\n");
        let line = rig.refused(2, &["start", "--log-max-size", "10X", "--", "true"]);
        assert!(line.contains("--log-max-size") && line.contains("10X"), "{line}");
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
fn a_disk_that_others_fill_is_said_until_there_is_room() {
    isolated(here!(), |rig| {
        std::fs::create_dir(&rig.home).unwrap();
        mount(&rig.home, &["-t", "tmpfs", "-o", "size=3m", "none"]);
        let script = "n=0; while :; do n=$((n + 1)); echo $n; sleep 0.01; done";
        rig.ok(&["start", "--name", "web", "--", "bash", "-c", script]);
        let (log, pid) = (log_of(rig, "web"), rig.row("web").pid);
        let archive = archives::path_of(&log, 7);
        std::fs::write(&archive, [b'\n'; 64 << 10]).unwrap();
        fill(&rig.home.join("ballast"));
        let why = || rig.json(&["ls"])[0]["why"].as_str().map(str::to_owned);
        let is_full = |text: &str| text.contains("is full: its oldest lines go first");
        // The archive goes first, and where none is left lines are lost.
        rig.until("the archive to go", || {
            fill(&rig.home.join("more"));
            (!archive.exists()).then_some(())
        });
        rig.until("ls to say so", || why().filter(|why| is_full(why)));
        let found = rig.json(&["doctor"]);
        let says = |one: &serde_json::Value| {
            is_full(&one.to_string()) && one["advice"].as_str().unwrap().starts_with("make room")
        };
        assert!(found.as_array().unwrap().iter().any(says), "{found}");
        let advice = rig.ok(&["why", "web"]);
        assert!(advice.contains("\nnext: make room: opm logs --stats web, "), "{advice}");
        let reasons = rig.events("web").into_iter().filter_map(|event| event.reason);
        let reasons: Vec<_> = reasons.filter(|it| it.contains("the disk is full")).collect();
        assert!(reasons[0].contains("1 archives") && !reasons.is_empty(), "{reasons:?}");
        assert_eq!(rig.row("web").pid, pid);
        for ballast in ["ballast", "more"] {
            std::fs::remove_file(rig.home.join(ballast)).unwrap();
        }
        assert_eq!(why(), None);
        let size = || std::fs::metadata(&log).unwrap().len();
        let seen = size();
        rig.until("lines again", || (size() > seen).then_some(()));
        assert_eq!(rig.row("web").pid, pid);
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

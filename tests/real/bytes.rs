//! Logs that hold anything, and logs that are anything.
use crate::lines::{archives_of, log_of, stream};
use crate::namespace::isolated;
use crate::rig::Rig;
use std::path::Path;

/// What `opm logs` prints, byte by byte.
fn printed(rig: &Rig, name: &str) -> Vec<u8> {
    let words = ["logs", name, "--out", "--lines", "all", "--raw", "--nostream"];
    let output = rig.command(&words).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

/// A line of 300,000 bytes among what is no text at all, and no newline at the end.
const BYTES: &str = r"printf 'a\0b\377\376c\n\n\r\n\033[0m\303'
    head -c 300000 /dev/zero | tr '\0' x; printf '\n\200end'";

fn expected() -> Vec<u8> {
    let mut bytes = b"a\0b\xff\xfec\n\n\r\n\x1b[0m\xc3".to_vec();
    bytes.resize(bytes.len() + 300_000, b'x');
    bytes.extend(b"\n\x80end");
    bytes
}

#[test]
fn a_log_is_what_was_written_byte_by_byte() {
    isolated(here!(), |rig| {
        let script = format!("{BYTES}; exec sleep 1000000");
        let size = ["--log-max-size", "64K", "--log-keep", "99"];
        let words = ["start", "--name", "web"];
        rig.ok(&[&words, &size[..], &["--", "bash", "-c", &script]].concat());
        let log = log_of(rig, "web");
        rig.until("all bytes, and archives", || {
            (stream(&log)? == expected() && archives_of(&log) >= 4).then_some(())
        });
        assert!(printed(rig, "web") == expected());
    });
}

#[test]
fn a_carried_log_has_every_byte_behind_its_stamps() {
    isolated(here!(), |rig| {
        let options = ["--log-time", "YYYY", "--restart", "never", "--log-max-size", "64K"];
        let words = ["start", "--name", "web", "--log-keep", "99"];
        rig.ok(&[&words, &options[..], &["--", "bash", "-c", BYTES]].concat());
        let log = log_of(rig, "web");
        let text =
            rig.until("its last byte", || stream(&log).filter(|text| text.ends_with(b"\x80end\n")));
        // A long line is cut into several, and the last line gets its end.
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let body = |line: &[u8]| {
            assert!(line[..4].iter().all(u8::is_ascii_digit) && line[4] == b' ', "no stamp");
            line[5..].to_vec()
        };
        let bodies: Vec<Vec<u8>> = lines.map(body).collect();
        assert!(bodies.len() > 15);
        let mut expected = expected();
        expected.retain(|byte| *byte != b'\n');
        assert!(bodies.concat() == expected);
    });
}

/// Where the lines of a service go, and what is said of it.
#[test]
fn a_log_may_be_no_file() {
    isolated(here!(), |rig| {
        std::fs::create_dir(rig.dir.join("directory")).unwrap();
        let fifo = rig.dir.join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let reader = std::fs::File::options().read(true).write(true).open(&fifo).unwrap();
        let read = || {
            let mut bytes = [0; 64];
            let length = std::io::Read::read(&mut &reader, &mut bytes).unwrap();
            String::from_utf8_lossy(&bytes[..length]).into_owned()
        };
        for (log, form, note) in [
            ("directory", &[][..], "can't be opened: Is a directory"),
            ("directory", &["--log-time"], "can't be opened: Is a directory"),
            ("/dev/null", &[], ""),
            ("/dev/null", &["--log-time"], ""),
            ("/dev/stdout", &[], ""),
            ("fifo", &[], ""),
            ("fifo", &["--log-time", "YYYY"], ""),
        ] {
            let script = "echo line; exec sleep 1000000";
            let words = ["start", "--name", "web", "--log-out", log];
            rig.ok(&[&words, form, &["--", "sh", "-c", script]].concat());
            let pid = rig.row("web").pid;
            let info = rig.ok(&["info", "web"]);
            let said = info.lines().find(|line| line.starts_with("note ")).unwrap_or_default();
            assert!(said.ends_with(note) && said.is_empty() == note.is_empty(), "{log}: {info}");
            let stamp = if form.is_empty() { 0 } else { "YYYY ".len() };
            if log == "fifo" {
                assert_eq!(&read()[stamp..], "line\n");
            }
            rig.opm(&["flush", "web"]);
            rig.ok(&["restart", "web"]);
            assert_ne!(rig.row("web").pid, pid, "{log}");
            if log == "fifo" {
                assert_eq!(&read()[stamp..], "line\n");
            }
            rig.ok(&["remove", "web"]);
        }
    });
}

/// A service that writes a number each time that it is told to.
const COUNTER: &str = "trap 'n=$((n + 1)); echo $n' USR1; n=0; echo 0
    while :; do sleep 1000 & wait; kill $!; done";

/// The last line is to be this number, in this file.
fn until_last(rig: &Rig, log: &Path, number: &str) {
    rig.until(&format!("{number} at the end of {}", log.display()), || {
        let text = std::fs::read_to_string(log).ok()?;
        (text.lines().last()?.rsplit(' ').next() == Some(number)).then_some(())
    });
}

fn count(rig: &Rig, name: &str, log: &Path, number: &str) {
    rig.ok(&["signal", name, "USR1"]);
    until_last(rig, log, number);
}

#[test]
fn a_log_may_be_copied_and_cut_or_renamed_or_removed_by_others() {
    isolated(here!(), |rig| {
        for (name, form) in [("direct", &[][..]), ("carried", &["--log-time"])] {
            let log = rig.dir.join(format!("{name}/log"));
            let words = ["start", "--name", name, "--log-out", log.to_str().unwrap()];
            rig.ok(&[&words, form, &["--", "bash", "-c", COUNTER]].concat());
            let old = log.with_extension("1");
            until_last(rig, &log, "0");
            count(rig, name, &log, "1");
            // logrotate's copytruncate.
            std::fs::copy(&log, &old).unwrap();
            std::fs::File::options().write(true).truncate(true).open(&log).unwrap();
            count(rig, name, &log, "2");
            assert_eq!(std::fs::read_to_string(&log).unwrap().lines().count(), 1, "{name}");
            // Its create: who writes itself has the old file until it is restarted.
            std::fs::rename(&log, &old).unwrap();
            std::fs::File::create(&log).unwrap();
            count(rig, name, if form.is_empty() { &old } else { &log }, "3");
            // Removed with its directory.
            std::fs::remove_dir_all(log.parent().unwrap()).unwrap();
            if !form.is_empty() {
                count(rig, name, &log, "4");
            }
            rig.ok(&["restart", name]);
            until_last(rig, &log, "0");
        }
    });
}

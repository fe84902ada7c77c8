//! Where there is little to be had, of descriptors or of room, whatever there is goes on.
use crate::input::{mount, with_witness};
use crate::namespace::isolated;
use crate::rig::{Ran, Rig, one_line};
use rustix::process::Signal;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

/// A daemon that can have so many descriptors and no more.
pub(crate) fn start_with_descriptors(rig: &Rig, most: u32) -> Ran {
    let mut limited = Command::new("prlimit");
    limited.arg(format!("--nofile={most}"));
    rig.behind(limited, &["daemon", "start"])
}

/// Kilobytes of the daemon's program that are mapped.
fn code_of(rig: &Rig) -> u64 {
    let pid = rig.daemon();
    let maps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    let program = program.to_str().unwrap();
    let mappings = maps.split_inclusive("VmFlags:");
    let code = mappings
        .filter(|it| it.lines().any(|line| line.contains(" r-xp ") && line.ends_with(program)));
    let rss = code.filter_map(|it| it.lines().find_map(|line| line.strip_prefix("Rss:")));
    rss.map(|rss| rss.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap()).sum()
}

#[test]
fn a_daemon_at_rest_lets_go_of_its_code() {
    isolated(here!(), |rig| {
        let pid = rig.start("web", "sleep");
        rig.until("its code is let go of", || {
            rig.row("web");
            let busy = code_of(rig);
            // What is held to is what comes after a second.
            std::thread::sleep(Duration::from_millis(1_500));
            (code_of(rig) < busy).then_some(())
        });
        rig.kill(pid, Signal::KILL);
        rig.until_replaced("web", pid);
    });
}

#[test]
fn silent_clients_without_end_leave_descriptors_for_services() {
    isolated(here!(), |rig| {
        let ran = start_with_descriptors(rig, 128);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        with_witness(rig, |rig| {
            // One that has asked is no silent one.
            let mut waiter = rig.spawn(&["wait", "witness", "--for", "stopped"]);
            let path = rig.home.join("opm.sock");
            let silent: Vec<UnixStream> =
                (0..400).filter_map(|_| UnixStream::connect(&path).ok()).collect();
            assert_eq!(silent.len(), 400);
            let pid = rig.start("web", "sleep");
            rig.kill(pid, Signal::KILL);
            rig.until_replaced("web", pid);
            assert!(waiter.try_wait().unwrap().is_none(), "it was hung up on");
            waiter.kill().unwrap();
            waiter.wait().unwrap();
            drop(silent);
        });
    });
}

#[test]
fn a_daemon_that_could_open_nothing_says_so_and_does_not_begin() {
    isolated(here!(), |rig| {
        for most in [8, 12, 31] {
            let ran = start_with_descriptors(rig, most);
            assert_eq!(ran.code, Some(4), "{ran:?}");
            let line = one_line(&ran, &["daemon", "start"]);
            assert!(line.contains("open files"), "{line}");
        }
        let ran = start_with_descriptors(rig, 32);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        rig.ok(&["start", "--name", "web", "--", "sleep", "1000"]);
    });
}

#[test]
fn a_full_disk_is_the_reason_that_the_first_daemon_does_not_begin() {
    isolated(here!(), |rig| {
        std::fs::create_dir(&rig.home).unwrap();
        let home = rig.home.display().to_string();
        mount(&["-t", "tmpfs", "-o", "size=64k,mode=700", "none", &home]);
        let mut file = std::fs::File::create(rig.home.join("filler")).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        let line = rig.refused(4, &["start", "--name", "x", "--", "sleep", "9"]);
        assert!(line.contains("no space left"), "{line}");
    });
}

/// A field of the daemon's status, in MB.
fn daemon_mb(rig: &Rig, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", rig.daemon())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

fn frame(body: &str) -> Vec<u8> {
    let mut frame = u32::try_from(body.len()).unwrap().to_le_bytes().to_vec();
    frame.extend_from_slice(body.as_bytes());
    frame
}

/// Whatever its shape: what is small in JSON may be large in memory.
#[test]
fn a_request_of_16_mb_costs_a_few_times_its_size() {
    isolated(here!(), |rig| {
        rig.ok(&["daemon", "start"]);
        const ROOM: usize = (16 << 20) - 200;
        let zeros = vec!["0"; ROOM / 2].join(",");
        let words = vec!["\"\""; ROOM / 3].join(",");
        let pairs = vec!["[\"\",\"\"]"; ROOM / 8].join(",");
        let define = |specs: &str, base: &str| {
            format!(
                r#"{{"define":{{"specs":[{specs}],"base":{{"env":[{base}]}},"force":false,
                    "keep":true}}}}"#
            )
        };
        for body in [
            format!(r#"{{"stop":{{"target":[{zeros}]}}}}"#),
            format!(r#"{{"stop":{{"target":"web","more":[{words}]}}}}"#),
            define(&format!(r#"{{"name":"a","cwd":"/","command":[{words}]}}"#), ""),
            define(&format!(r#"{{"name":"a","cwd":"/","command":["a"],"env":[{pairs}]}}"#), ""),
            define("", &pairs),
            define(&format!(r#"{{"more":[{zeros}]}}"#), ""),
        ] {
            let mut client = UnixStream::connect(rig.home.join("opm.sock")).unwrap();
            client.write_all(&frame(&body)).unwrap();
            let mut reply = Vec::new();
            std::io::Read::read_to_end(&mut client, &mut reply).unwrap();
            assert!(String::from_utf8_lossy(&reply).contains("failed"), "{}", &body[..40]);
            let (shape, peak) = (&body[..60], daemon_mb(rig, "VmHWM"));
            assert!(peak < 100, "{peak} MB for {shape}");
        }
    });
}

#[test]
fn requests_that_are_never_whole_are_bounded_together() {
    isolated(here!(), |rig| {
        rig.start("web", "sleep");
        let mut clients = Vec::new();
        for _ in 0..20 {
            let mut client = UnixStream::connect(rig.home.join("opm.sock")).unwrap();
            let mut head = (16u32 << 20).to_le_bytes().to_vec();
            head.resize(10 << 20, b' ');
            // The last ones may be hung up on while they speak.
            client.write_all(&head).ok();
            clients.push(client);
        }
        assert_eq!(rig.row("web").status, "online");
        let (now, peak) = (daemon_mb(rig, "VmRSS"), daemon_mb(rig, "VmHWM"));
        assert!(now < 100 && peak < 130, "{now} MB, {peak} MB at its peak");
    });
}

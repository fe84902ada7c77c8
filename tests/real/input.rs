//! Bad input and a bad world: one clear line, the right exit code, and a daemon that goes on.
use crate::namespace::{isolated, publish};
use crate::proc;
use crate::rig::{Rig, as_nobody, finish, one_line};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

/// A service that must have noticed nothing.
pub(crate) fn with_witness(rig: &Rig, test: impl FnOnce(&Rig)) {
    let pid = rig.start("witness", "sleep");
    let daemon = rig.daemon();
    test(rig);
    let row = rig.row("witness");
    assert_eq!((row.pid, row.status.as_str()), (Some(pid), "online"));
    assert_eq!((rig.daemon(), row.adopted), (daemon, false), "the daemon was replaced");
}

/// Runs a start; it must fail with this code and leave no service `name`.
fn start_fails(rig: &Rig, code: i32, words: &[&str]) -> String {
    let before = rig.rows().len();
    let line = rig.refused(code, words);
    assert_eq!(rig.rows().len(), before, "something was kept of {words:?}");
    line
}

#[test]
fn an_unknown_service_is_said_so_by_every_command() {
    isolated(here!(), |rig| {
        with_witness(rig, |rig| {
            let commands: [&[&str]; 12] = [
                &["stop", "nope"],
                &["restart", "nope"],
                &["remove", "nope"],
                &["signal", "nope", "USR1"],
                &["reset", "nope"],
                &["info", "nope"],
                &["env", "nope"],
                &["logs", "nope"],
                &["flush", "nope"],
                &["wait", "nope", "--for", "online", "--timeout", "1s"],
                &["get-command", "nope"],
                &["stop", "77"],
            ];
            for command in commands {
                let line = rig.refused(3, command);
                assert!(line.contains(command[1]), "{line}");
            }
            // What exists among several targets is still done.
            let ran = rig.opm(&["reset", "witness,nope"]);
            assert_eq!(ran.code, Some(3), "{ran:?}");
            assert!(one_line(&ran, &[]).contains("nope"));
            assert!(ran.out.contains("witness"), "{ran:?}");
        });
    });
}

#[test]
fn a_program_that_is_not_there_changes_nothing() {
    isolated(here!(), |rig| {
        with_witness(rig, |rig| {
            let words = ["start", "--name", "x", "--", "/no/such/program"];
            let line = start_fails(rig, 1, &words);
            assert!(line.contains("/no/such/program"), "{line}");
            let line = start_fails(rig, 1, &["start", "--name", "x", "--", "/etc/passwd"]);
            assert!(line.contains("/etc/passwd"), "{line}");
            let line = start_fails(rig, 1, &["start", "no-such-thing"]);
            assert!(line.contains("no-such-thing"), "{line}");
            let directory = rig.dir.display().to_string();
            start_fails(rig, 1, &["start", "--name", "x", "--", &directory]);
        });
    });
}

#[test]
fn a_directory_that_is_not_there_or_not_one_is_said_so() {
    isolated(here!(), |rig| {
        with_witness(rig, |rig| {
            for cwd in ["/no/such/directory", "/etc/passwd"] {
                let words = ["start", "--name", "x", "--cwd", cwd, "--", "sleep", "60"];
                let line = start_fails(rig, 1, &words);
                assert!(line.contains(cwd), "{line}");
            }
        });
    });
}

#[test]
fn a_directory_that_went_away_makes_a_restart_fail_and_the_service_stays() {
    isolated(here!(), |rig| {
        let cwd = rig.dir.join("gone");
        std::fs::create_dir(&cwd).unwrap();
        let options = ["--cwd", cwd.to_str().unwrap(), "--restart-delay", "50ms"];
        let pid = rig.start_with("web", &options, "sleep");
        std::fs::remove_dir(&cwd).unwrap();
        let line = rig.refused(1, &["restart", "web"]);
        assert!(line.contains("gone"), "{line}");
        assert!(!proc::alive(pid));
        std::fs::create_dir(&cwd).unwrap();
        rig.opm(&["start", "web"]);
        rig.until_status("web", "online");
    });
}

#[test]
fn a_name_that_is_taken_is_refused_with_its_id() {
    isolated(here!(), |rig| {
        with_witness(rig, |rig| {
            let line = start_fails(rig, 1, &["start", "--name", "witness", "--", "sleep", "60"]);
            assert!(line.contains("id 0") && line.contains("--name"), "{line}");
            // A process file has no such option.
            let file = rig.dir.join("services.json");
            let text = r#"{"services": [{"name": "witness", "command": "sleep 60"}]}"#;
            std::fs::write(&file, text).unwrap();
            let line = start_fails(rig, 1, &["import", file.to_str().unwrap()]);
            assert!(line.contains("opm remove witness"), "{line}");
        });
    });
}

#[test]
fn bad_words_are_usage_errors_in_one_line() {
    isolated(here!(), |rig| {
        with_witness(rig, |rig| {
            let long = "x".repeat(65);
            for name in ["all", "7", "-x", ".x", "a/b", "a,b", "a\nb", "", &long] {
                let name = format!("--name={name}");
                start_fails(rig, 2, &["start", &name, "--", "sleep", "60"]);
            }
            let bad: [&[&str]; 7] = [
                &["start", "--stop-timeout", "soon", "--", "sleep", "60"],
                &["start", "--restart", "perhaps", "--", "sleep", "60"],
                &["start", "--stop-signal", "NOSUCH", "--", "sleep", "60"],
                &["start", "--name", "x", "--", ""],
                &["start", "--no-such-flag", "--", "sleep", "60"],
                &["signal", "witness", "NOSUCH"],
                &["no-such-command"],
            ];
            for words in bad {
                start_fails(rig, 2, words);
            }
        });
    });
}

#[test]
fn a_start_without_descriptors_fails_clearly_and_works_again_with_them() {
    isolated(here!(), |rig| {
        with_witness(rig, |rig| {
            let daemon = rig.daemon();
            let open = proc::descriptors(daemon).len();
            let limit = |n: usize| {
                let pid = daemon.to_string();
                let limit = format!("--nofile={n}:");
                let prlimit = Command::new("prlimit").args(["--pid", &pid, &limit]).status();
                assert!(prlimit.unwrap().success());
            };
            // Room for the client's connection and no more.
            limit(open + 1);
            let words = rig.start_words("x", &[], "sleep");
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let ran = rig.opm(&words);
            if ran.code != Some(0) {
                assert_eq!(ran.code, Some(1), "{ran:?}");
                one_line(&ran, &words);
            }
            limit(1024);
            assert_eq!(rig.daemon(), daemon);
            if ran.code != Some(0) {
                assert_eq!(rig.rows().len(), 1);
                rig.ok(&words);
            }
            rig.until_status("x", "online");
        });
    });
}

#[test]
fn a_death_without_descriptors_is_repaired_when_there_are_some() {
    isolated(here!(), |rig| {
        with_witness(rig, |rig| {
            let pid = rig.start("web", "sleep");
            let daemon = rig.daemon();
            let open = proc::descriptors(daemon);
            let prlimit = |n: i32| {
                let words = [format!("--pid={daemon}"), format!("--nofile={n}:")];
                assert!(Command::new("prlimit").args(words).status().unwrap().success());
            };
            prlimit(open.len() as i32);
            rig.kill(pid, Signal::KILL);
            rig.until_gone(pid);
            prlimit(1024);
            rig.until_replaced("web", pid);
        });
    });
}

#[test]
fn another_user_is_refused_in_one_line() {
    isolated(here!(), |rig| {
        with_witness(rig, |rig| {
            let open = |path: &std::path::Path, mode| {
                use std::os::unix::fs::PermissionsExt as _;
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
            };
            let mode = |path: &std::path::Path| {
                use std::os::unix::fs::PermissionsExt as _;
                std::fs::metadata(path).unwrap().permissions().mode() & 0o777
            };
            assert_eq!(mode(&rig.home), 0o700);
            assert_eq!(mode(&rig.home.join("opm.sock")), 0o600);
            publish();
            let as_nobody = |args: &[&str]| {
                let opm = rig.command(args);
                let mut command = as_nobody();
                command.args(args);
                command.envs(opm.get_envs().filter_map(|(k, v)| Some((k, v?))));
                command.current_dir("/").stdin(std::process::Stdio::null());
                command.stdout(std::process::Stdio::piped());
                command.stderr(std::process::Stdio::piped());
                finish(command.spawn().unwrap(), args)
            };
            for args in [["ls"].as_slice(), &["stop", "all"]] {
                let ran = as_nobody(args);
                assert!(matches!(ran.code, Some(1 | 4)), "{ran:?}");
                one_line(&ran, args);
            }
            // Even if somebody opens the doors, the daemon looks at who is there.
            open(&rig.dir, 0o755);
            open(&rig.home, 0o755);
            open(&rig.home.join("opm.sock"), 0o666);
            let ran = as_nobody(&["stop", "all"]);
            assert!(matches!(ran.code, Some(1 | 4)), "{ran:?}");
            one_line(&ran, &["stop", "all"]);
        });
    });
}

/// In the mount namespace of the test.
pub(crate) fn mount(args: &[&str]) {
    let status = Command::new("mount").args(args).status().unwrap();
    assert!(status.success(), "mount {args:?}");
}

fn connect(rig: &Rig) -> UnixStream {
    let stream = UnixStream::connect(rig.home.join("opm.sock")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

#[test]
fn a_frame_of_a_gigabyte_is_answered_or_hung_up_on_at_once() {
    isolated(here!(), |rig| {
        with_witness(rig, |rig| {
            for length in [1u32 << 30, u32::MAX] {
                let mut stream = connect(rig);
                stream.write_all(&length.to_le_bytes()).unwrap();
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer).unwrap();
            }
            let daemon = rig.daemon();
            let text = std::fs::read_to_string(format!("/proc/{daemon}/status")).unwrap();
            let rss = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
            let kb: u64 = rss.trim().trim_end_matches(" kB").parse().unwrap();
            assert!(kb < 100_000, "{kb} kB");
        });
    });
}

#[test]
fn garbage_is_answered_or_hung_up_on() {
    isolated(here!(), |rig| {
        with_witness(rig, |rig| {
            for body in [b"{".as_slice(), b"", b"[]", b"\"nope\"", b"{\"stop\":7}", &[0xff; 64]] {
                let mut stream = connect(rig);
                let length = u32::try_from(body.len()).unwrap();
                stream.write_all(&length.to_le_bytes()).unwrap();
                stream.write_all(body).unwrap();
                stream.shutdown(std::net::Shutdown::Write).unwrap();
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer).unwrap();
            }
        });
    });
}

#[test]
fn half_a_frame_and_a_silent_end_hold_nobody_up() {
    isolated(here!(), |rig| {
        with_witness(rig, |rig| {
            let mut half = connect(rig);
            half.write_all(&[200, 0, 0, 0, b'{']).unwrap();
            rig.start("web", "sleep");
            drop(half);
            let mut shut = connect(rig);
            shut.write_all(&[200, 0]).unwrap();
            shut.shutdown(std::net::Shutdown::Write).unwrap();
            let mut answer = Vec::new();
            shut.read_to_end(&mut answer).unwrap();
            rig.ok(&["restart", "web"]);
        });
    });
}

#[test]
fn a_thousand_silent_clients_keep_nobody_out() {
    isolated(here!(), |rig| {
        let most = getrlimit(Resource::Nofile).maximum;
        let limit = Rlimit { current: most, maximum: most };
        setrlimit(Resource::Nofile, limit).unwrap();
        with_witness(rig, |rig| {
            let path = rig.home.join("opm.sock");
            let silent: Vec<UnixStream> =
                (0..1_000).filter_map(|_| UnixStream::connect(&path).ok()).collect();
            let pid = rig.start("web", "sleep");
            rig.kill(pid, Signal::KILL);
            rig.until_replaced("web", pid);
            drop(silent);
        });
    });
}

#[test]
fn what_a_client_asks_while_it_waits_for_an_answer_is_taken_up_after_it() {
    isolated(here!(), |rig| {
        for name in ["first", "second"] {
            rig.start(name, "sleep");
        }
        let mut stream = connect(rig);
        let wait = r#"{"wait":{"target":"first","until":"stopped","timeout_ms":null}}"#;
        for body in [wait, r#"{"stop":{"target":"second"}}"#] {
            let length = u32::try_from(body.len()).unwrap();
            stream.write_all(&length.to_le_bytes()).unwrap();
            stream.write_all(body.as_bytes()).unwrap();
        }
        rig.ok(&["reset", "first"]);
        assert_eq!(rig.row("second").status, "online");
        rig.ok(&["stop", "first"]);
        rig.until_status("second", "stopped");
    });
}

#[test]
fn a_client_that_follows_and_never_reads_holds_nobody_up() {
    isolated(here!(), |rig| {
        with_witness(rig, |rig| {
            let mut follower = rig.spawn(&["events", "-f", "--format", "json"]);
            let words = rig.start_words("web", &["--min-uptime", "0s"], "exit:0");
            rig.opm(&words.iter().map(String::as_str).collect::<Vec<_>>());
            rig.until("many events", || (rig.starts("web").len() > 800).then_some(()));
            rig.ok(&["stop", "web"]);
            follower.kill().unwrap();
            follower.wait().unwrap();
        });
    });
}

#[test]
fn a_full_disk_loses_nothing_and_restarts_go_on() {
    isolated(here!(), |rig| {
        std::fs::create_dir(&rig.home).unwrap();
        let home = rig.home.display().to_string();
        mount(&["-t", "tmpfs", "-o", "size=1M,mode=700", "none", &home]);
        with_witness(rig, |rig| {
            let web = rig.start("web", "sleep");
            rig.ok(&["save"]);
            let dump = std::fs::read(rig.home.join("dump.json")).unwrap();
            let filler = rig.home.join("filler");
            let mut file = std::fs::File::create(&filler).unwrap();
            while file.write_all(&[0; 4096]).is_ok() {}
            drop(file);
            // What runs can be killed, restarted and stopped.
            rig.kill(web, Signal::KILL);
            let row = rig.until_replaced("web", web);
            rig.ok(&["restart", "web"]);
            rig.ok(&["stop", "web"]);
            rig.ok(&["start", "web"]);
            assert_ne!(rig.row("web").pid, row.pid);
            // What needs room says so, or finds some.
            let words = rig.start_words("extra", &[], "sleep");
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let started = rig.opm(&words);
            if started.code != Some(0) {
                assert_eq!(started.code, Some(1), "{started:?}");
                one_line(&started, &words);
            }
            let saved = rig.opm(&["save"]);
            if saved.code != Some(0) {
                assert_eq!(saved.code, Some(1), "{saved:?}");
                one_line(&saved, &["save"]);
                assert_eq!(std::fs::read(rig.home.join("dump.json")).unwrap(), dump);
            }
            std::fs::remove_file(&filler).unwrap();
            if started.code != Some(0) {
                rig.ok(&words);
            }
            rig.ok(&["save"]);
        });
        let before: Vec<_> = rig.rows().into_iter().map(|r| (r.id, r.name, r.pid)).collect();
        rig.kill_daemon();
        let after: Vec<_> = rig.rows().into_iter().map(|r| (r.id, r.name, r.pid)).collect();
        assert_eq!(before, after);
    });
}

#[test]
fn a_home_that_cannot_be_written_is_said_so() {
    isolated(here!(), |rig| {
        std::fs::create_dir(&rig.home).unwrap();
        let home = rig.home.display().to_string();
        mount(&["-t", "tmpfs", "-o", "ro", "none", &home]);
        for args in [["daemon", "start"].as_slice(), &["start", "--name", "x", "--", "sleep", "9"]]
        {
            let ran = rig.opm(args);
            assert!(matches!(ran.code, Some(1 | 4)), "{ran:?}");
            let line = one_line(&ran, args);
            assert!(line.to_lowercase().contains("read-only"), "{line}");
        }
        assert_eq!(rig.daemons(), Vec::<i32>::new());
    });
}

#[test]
fn a_home_with_a_long_path_works_or_says_why_not() {
    isolated(here!(), |rig| {
        let home = rig.dir.join("long".repeat(40));
        let words = ["start", "--name", "web", "--", "sleep", "1000"];
        let mut command = rig.command(&words);
        command.env("OPM_HOME", &home);
        let ran = finish(command.spawn().unwrap(), &words);
        if ran.code == Some(0) {
            let mut ls = rig.command(&["ls"]);
            ls.env("OPM_HOME", &home);
            let listed = finish(ls.spawn().unwrap(), &["ls"]);
            assert!(listed.out.contains("online"), "{listed:?}");
        } else {
            one_line(&ran, &words);
        }
    });
}

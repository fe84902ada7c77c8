//! What a definition captures: directory, environment, umask, nice value, limits; and that no
//! incarnation gets anything of whoever happened to wake its daemon.
use crate::namespace::{Setting, User, isolated, isolated_in};
use crate::proc;
use crate::rig::{Ran, Rig, one_line};
use opm::process::journal_format::checksum;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

/// `opm ARGS…` from a shell that has done `before`.
fn after(rig: &Rig, before: &str, args: &[&str]) -> Ran {
    let mut bash = Command::new("bash");
    bash.args(["-c", &format!("{before}\nexec \"$@\""), "bash"]);
    rig.behind(bash, args)
}

/// The same, and it must succeed without a word on stderr.
fn ok_after(rig: &Rig, before: &str, args: &[&str]) {
    let ran = after(rig, before, args);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{ran:?}");
}

/// Umask, nice value and soft limits of open files and core files of a service, as the kernel has
/// them.
fn seen(rig: &Rig, name: &str) -> (String, i64, String, String) {
    let pid = rig.row(name).pid.unwrap();
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let word = |text: &str, key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap().split_whitespace().next().unwrap().to_owned()
    };
    let (status, limits, stat) = (read("status"), read("limits"), read("stat"));
    let nice = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(16).unwrap().parse();
    let limit = |key| word(&limits, key);
    let (files, cores) = (limit("Max open files"), limit("Max core file size"));
    (word(&status, "Umask:"), nice.unwrap(), files, cores)
}

#[test]
fn umask_nice_value_and_limits_are_the_definers_whoever_wakes_the_daemon() {
    isolated(here!(), |rig| {
        ok_after(
            rig,
            "umask 0777; ulimit -S -n 300; renice -n 9 $$ >/dev/null",
            &["start", "--name", "first", "--", "sleep", "1000"],
        );
        ok_after(
            rig,
            "umask 0027; ulimit -S -n 400; ulimit -S -c 4; renice -n 3 $$ >/dev/null",
            &["start", "--name", "web", "--", "sleep", "2000"],
        );
        // 4 blocks of 1 KiB.
        let web = ("0027".to_owned(), 3, "400".to_owned(), "4096".to_owned());
        assert_eq!((seen(rig, "web"), seen(rig, "first").0), (web.clone(), "0777".to_owned()));
        assert_eq!(seen(rig, "first").2, "300");
        rig.kill_daemon();
        ok_after(rig, "umask 0; ulimit -S -n 500; ulimit -S -c 0", &["restart", "web"]);
        assert_eq!(seen(rig, "web"), web);
        let info = rig.info("web");
        assert_eq!((&info["umask"], &info["nice"]), (&"0027".into(), &3.into()));
        assert_eq!(info["limits"], serde_json::json!({"nofile": 400, "core": 4096}));
        rig.ok(&["save"]);
        rig.ok(&["remove", "all"]);
        rig.kill_daemon();
        ok_after(rig, "umask 0177", &["restore"]);
        assert_eq!(seen(rig, "web"), web);
        let text = rig.ok(&["info", "web"]);
        assert!(text.contains("\numask        0027\nnice         3\n"), "{text}");
        assert!(text.contains("nofile 400") && text.contains("core 4096"), "{text}");
    });
}

#[test]
fn what_is_usual_is_not_mentioned() {
    isolated(here!(), |rig| {
        ok_after(rig, "umask 022", &["start", "--name", "web", "--", "sleep", "1000"]);
        assert_eq!(rig.info("web")["limits"], serde_json::json!({}));
        let text = rig.ok(&["info", "web"]);
        let names = ["umask", "nice", "limits"];
        assert!(names.iter().all(|name| !text.contains(&format!("\n{name} "))), "{text}");
    });
}

#[test]
fn a_limit_above_the_daemons_is_as_near_as_can_be_and_that_is_said() {
    let setting = Setting { user: User::Nobody, ..Setting::default() };
    isolated_in(setting, here!(), |rig| {
        ok_after(rig, "ulimit -n 600", &["daemon", "start"]);
        let words = ["start", "--name", "web", "--", "sleep", "1000"];
        let ran = after(rig, "ulimit -S -n 700; ulimit -S -c 0", &words);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let line = one_line(&ran, &words);
        assert!(line.contains("web: it gets nofile 600 instead of 700 ("), "{line}");
        assert_eq!((seen(rig, "web").2, seen(rig, "web").3), ("600".to_owned(), "0".to_owned()));
        assert_eq!(rig.info("web")["note"], "nofile 600 instead of 700");
        let log = std::fs::read_to_string(rig.home.join("daemon.log")).unwrap();
        assert_eq!(log.matches("instead of 700").count(), 1, "{log}");
        // Under a daemon that can, it is what was asked for.
        rig.kill_daemon();
        rig.ok(&["restart", "web"]);
        assert_eq!((seen(rig, "web").2.as_str(), &rig.info("web")["note"]), ("700", &().into()));
    });
}

#[test]
fn no_umask_makes_a_home_that_cannot_be_used() {
    let setting = Setting { user: User::Nobody, ..Setting::default() };
    isolated_in(setting, here!(), |rig| {
        for (umask, name) in [("0277", "a"), ("0777", "b"), ("0000", "c")] {
            ok_after(
                rig,
                &format!("umask {umask}; export OPM_HOME=$OPM_HOME/in/{name}"),
                &["start", "--name", name, "--", "sleep", "1000"],
            );
            let home = rig.home.join("in").join(name);
            for entry in std::fs::read_dir(&home).unwrap() {
                let meta = entry.as_ref().unwrap().metadata().unwrap();
                let mode = meta.permissions().mode() & 0o777;
                assert_eq!(mode, if meta.is_dir() { 0o700 } else { 0o600 }, "{entry:?}");
            }
            let there = format!("export OPM_HOME={}", home.display());
            for words in [&["restart", name][..], &["daemon", "stop"], &["restart", name]] {
                ok_after(rig, &there, words);
            }
            ok_after(rig, &there, &["daemon", "stop", "--services"]);
        }
    });
}

/// Two releases, and `current`, a link to the first.
fn deploy(rig: &Rig) {
    for release in ["1", "2"] {
        let dir = rig.dir.join("releases").join(release);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(
            dir.join("run.sh"),
            format!("echo {release} >>$OUT\nexec sleep 100{release}"),
        )
        .unwrap();
        let file = r#"{"services": [{"name": "file", "command": "sh run.sh"},
            {"name": "below", "command": "sh ../run.sh", "cwd": "./conf//"}]}"#;
        std::fs::create_dir(dir.join("conf")).unwrap();
        std::fs::write(dir.join("s.json"), file).unwrap();
    }
    symlink("releases/1", rig.dir.join("current")).unwrap();
}

#[test]
fn a_deploy_link_stays_a_link_and_is_followed_at_the_next_restart() {
    isolated(here!(), |rig| {
        deploy(rig);
        let out = |name: &str| format!("export OUT=$PWD/{name}.out");
        let inside = |name: &str| format!("{}; cd current", out(name));
        let started = [
            ("shell", inside("shell"), &["start", "run.sh", "--name", "shell"][..]),
            (
                "cwd",
                out("cwd"),
                &["start", "--name", "cwd", "--cwd", "./current", "--", "sh", "run.sh"],
            ),
            ("path", out("path"), &["start", "--name", "path", "current/run.sh"]),
            ("file", inside("file"), &["import", "s.json"]),
            ("outside", out("outside"), &["import", "current/s.json"]),
        ];
        let read = |name: &str| {
            std::fs::read_to_string(rig.dir.join(format!("{name}.out"))).unwrap_or_default()
        };
        let current = rig.dir.join("current");
        for (name, before, words) in &started {
            let of_file = ["file", "outside"].contains(name);
            let service = if of_file { "file" } else { *name };
            let lines = if of_file { 2 } else { 1 };
            let until = |text: &str| {
                let text = text.repeat(lines);
                rig.until(&format!("{name}: {text:?}"), || (read(name) == text).then_some(()));
            };
            ok_after(rig, before, words);
            until("1\n");
            let cwd = rig.row_cwd(service);
            let expected = if *name == "path" { &rig.dir } else { &current };
            assert_eq!(Path::new(&cwd), expected, "{name}");
            point(&current, "releases/2");
            std::fs::remove_file(rig.dir.join(format!("{name}.out"))).unwrap();
            rig.ok(&["restart", "all"]);
            until("2\n");
            rig.ok(&["remove", "all"]);
            point(&current, "releases/1");
        }
    });
}

/// Makes a link point somewhere else.
fn point(link: &Path, to: &str) {
    std::fs::remove_file(link).unwrap();
    symlink(to, link).unwrap();
}

#[test]
fn a_name_of_the_directory_that_is_not_true_is_not_believed() {
    isolated(here!(), |rig| {
        deploy(rig);
        let current = rig.dir.join("current");
        for lie in ["/", "/no/such", "current", "", "$OLDPWD/current/../1"] {
            let before = format!("cd releases/1; export PWD={lie}");
            ok_after(rig, &before, &["start", "--name", "web", "--", "sleep", "1000"]);
            assert_eq!(Path::new(&rig.row_cwd("web")), current.canonicalize().unwrap(), "{lie}");
            rig.ok(&["remove", "web"]);
        }
    });
}

#[test]
fn update_env_takes_caller_and_dotenv_anew_and_keeps_what_was_given_by_hand() {
    isolated(here!(), |rig| {
        let script = "echo $CALLER $DOTENV $HAND >>out; exec sleep 1000";
        let outputs = || std::fs::read_to_string(rig.dir.join("out")).unwrap_or_default();
        let last = |line: &str| {
            let line = format!("{line}\n");
            rig.until(&format!("{line:?}"), || outputs().ends_with(&line).then_some(()));
        };
        std::fs::write(rig.dir.join(".env"), "DOTENV=d1\nHAND=no\n").unwrap();
        let words = ["start", "--name", "web", "--env", "HAND=h", "--", "sh", "-c", script];
        ok_after(rig, "export CALLER=c1; umask 027", &words);
        last("c1 d1 h");
        std::fs::write(rig.dir.join(".env"), "DOTENV=d2\nHAND=no\n").unwrap();
        ok_after(rig, "export CALLER=c2", &["restart", "web"]);
        last("c1 d1 h");
        ok_after(rig, "export CALLER=c2; umask 0", &["restart", "web", "--update-env"]);
        last("c2 d2 h");
        assert_eq!(seen(rig, "web").0, "0027", "that is no part of the environment");
        // It is on record: another daemon, another caller, the same service.
        rig.kill_daemon();
        let pid = rig.row("web").pid.unwrap();
        ok_after(rig, "export CALLER=c3", &["restart", "web"]);
        last("c2 d2 h");
        assert!(rig.row("web").pid != Some(pid) && rig.row("web").id == 0);
        // One that runs is not started, and so not changed.
        let online = after(rig, "export CALLER=c4", &["start", "web", "--update-env"]);
        assert!(online.code == Some(0) && online.err.contains("old environment"), "{online:?}");
        rig.ok(&["restart", "web"]);
        last("c2 d2 h");
        rig.ok(&["stop", "web"]);
        std::fs::remove_file(rig.dir.join(".env")).unwrap();
        ok_after(rig, "export CALLER=c5", &["start", "web", "--update-env"]);
        last("c5 h");
        let line = rig.refused(3, &["restart", "nope", "--update-env"]);
        assert!(line.contains("nope"), "{line}");
    });
}

#[test]
fn env_is_what_the_process_has_and_the_next_one_will() {
    isolated(here!(), |rig| {
        std::fs::write(rig.dir.join(".env"), "A=file\nB=file\n").unwrap();
        let words = ["start", "--name", "web", "--env", "B=hand", "--", "sleep", "1000"];
        ok_after(rig, "export A=shell C=$'two\\nlines' OPM_NAME=other", &words);
        let shown = || -> Vec<(String, String)> {
            let env = rig.json(&["env", "web"])[0]["env"].clone();
            let env: std::collections::BTreeMap<String, String> =
                serde_json::from_value(env).unwrap();
            env.into_iter().collect()
        };
        let has = |pid: i32| -> Vec<(String, String)> {
            let bytes = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
            let text = String::from_utf8(bytes).unwrap();
            let pairs = text.split_terminator('\0').map(|pair| pair.split_once('=').unwrap());
            let mut all: Vec<_> = pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
            all.sort();
            all
        };
        let pid = rig.row("web").pid.unwrap();
        assert_eq!(shown(), has(pid));
        assert_eq!(proc::variable(pid, "OPM_NAME").as_deref(), Some("web"));
        rig.kill_daemon();
        assert_eq!(shown(), has(pid));
        rig.ok(&["stop", "web"]);
        let before = shown();
        rig.ok(&["start", "web"]);
        let after = has(rig.row("web").pid.unwrap());
        let (mark, rest): (Vec<_>, Vec<_>) = after.into_iter().partition(|(k, _)| k == "OPM_MARK");
        let (foretold, same): (Vec<_>, Vec<_>) =
            before.into_iter().partition(|(k, _)| k == "OPM_MARK");
        assert_eq!(same, rest);
        // All of the mark but the pid, which nobody knows before.
        let part = |mark: &[(String, String)]| mark[0].1.rsplit_once('.').unwrap().0.to_owned();
        assert_eq!(part(&foretold), part(&mark));
    });
}

#[test]
fn a_script_without_a_first_line_of_its_own_is_run_by_the_shell() {
    isolated(here!(), |rig| {
        let executable = |name: &str, text: &[u8]| {
            let path = rig.dir.join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        };
        let script = b"echo \"$0|$1|$2\" >>out; exec sleep 1000";
        executable("plain", script);
        std::fs::create_dir(rig.dir.join("bin")).unwrap();
        executable("bin/found", script);
        rig.ok(&["start", "--", "./plain", "a b", ""]);
        ok_after(rig, "PATH=/no/such:$PWD/bin:$PATH", &["start", "--", "found", "-c"]);
        let found = format!("{}/bin/found|-c|\n", rig.dir.display());
        rig.until("both to run", || {
            let out = std::fs::read_to_string(rig.dir.join("out")).unwrap_or_default();
            (out.contains("./plain|a b|\n") && out.contains(&found)).then_some(())
        });
        // For another machine: a shell would find nothing but errors of syntax.
        executable("elf", b"\x7fELF\x02\x01\x01 and nothing more");
        let line = rig.refused(1, &["start", "./elf"]);
        assert!(line.ends_with("cannot execute ./elf: Exec format error"), "{line}");
    });
}

#[test]
fn an_interpreter_that_goes_missing_is_named_as_what_is_missing() {
    isolated(here!(), |rig| {
        let path = rig.dir.join("app");
        let write =
            |first: &str| std::fs::write(&path, format!("{first}\nexec sleep 1000")).unwrap();
        write("#!/bin/sh");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        rig.ok(&["start", "./app"]);
        write("#!/bin/sh\r");
        let ran = rig.opm(&["restart", "app"]);
        assert!(ran.code == Some(1) && ran.err.contains("./app: its interpreter: No such file"));
        assert_eq!(rig.row("app").status, "errored");
        let line = rig.refused(1, &["start", "--name", "other", "./app"]);
        assert!(line.contains(r#"its interpreter "/bin/sh\r" does not exist"#), "{line}");
    });
}

#[test]
fn an_import_with_a_program_that_is_missing_keeps_nothing() {
    isolated(here!(), |rig| {
        let programs = [r#""/no/such/program x""#, r#""nosuchprogram""#, r#"["./script.py"]"#];
        std::fs::write(rig.dir.join("script.py"), "#!/usr/bin/env no-such-python -u\n").unwrap();
        std::fs::set_permissions(rig.dir.join("script.py"), PermissionsExt::from_mode(0o755))
            .unwrap();
        for program in programs {
            let good = r#"{"name": "good", "command": "sleep 1000"}"#;
            let text =
                format!(r#"{{"services": [{good}, {{"name": "bad", "command": {program}}}]}}"#);
            std::fs::write(rig.dir.join("s.json"), text).unwrap();
            let line = rig.refused(1, &["import", "s.json"]);
            assert!(line.starts_with("opm: s.json: bad: command: "), "{line}");
            assert!(rig.rows().is_empty());
        }
        // Where its own environment says, and relative to its own directory.
        let bin = rig.dir.join("sub/bin");
        std::fs::create_dir_all(&bin).unwrap();
        symlink("/bin/sleep", bin.join("mysleep")).unwrap();
        let text = r#"{"services": [{"name": "own", "command": "mysleep 1000", "cwd": "sub",
            "env": {"PATH": "bin"}}]}"#;
        std::fs::write(rig.dir.join("s.json"), text).unwrap();
        rig.ok(&["import", "s.json"]);
    });
}

#[test]
fn a_definition_that_a_later_opm_wrote_is_refused_and_not_cut_down() {
    isolated(here!(), |rig| {
        rig.ok(&["start", "--name", "web", "--", "sleep", "1000"]);
        let pid = rig.row("web").pid.unwrap();
        rig.ok(&["daemon", "stop"]);
        let path = rig.home.join("services");
        let before = std::fs::read_to_string(&path).unwrap();
        let json = before.lines().find(|line| line.contains("\"service\"")).unwrap();
        let json =
            json.split_once(' ').unwrap().1.replace("\"cwd\":", "\"chroot\":\"/x\",\"cwd\":");
        let line = format!("{:016x} {json}\n", checksum(json.as_bytes()));
        std::fs::write(&path, format!("{before}{line}")).unwrap();
        let line = rig.refused(4, &["ls"]);
        assert!(line.contains("'chroot'") && line.contains("later opm"), "{line}");
        assert!(proc::alive(pid));
        // With what it understands it goes on as if nothing had been.
        std::fs::write(&path, before).unwrap();
        assert_eq!(rig.row("web").pid, Some(pid));
    });
}

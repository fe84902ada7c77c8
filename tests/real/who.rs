//! Who a service's processes are, and how much they may use: as the kernel has it, and refused
//! before anything is touched where it can't be.
use crate::namespace::{Setting, User, isolated, isolated_in};
use crate::proc;
use crate::rig::Rig;
use std::path::Path;
use std::process::Command;

const NOBODY: &str = "65534";

/// What stands behind `name` in a file of a process's, blanks as one.
fn line(pid: i32, file: &str, name: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let found = text.lines().find_map(|line| line.strip_prefix(name));
    let words = found.unwrap_or_else(|| panic!("no {name} in {text}")).split_whitespace();
    words.collect::<Vec<_>>().join(" ")
}

fn caps(pid: i32, set: &str) -> u64 {
    u64::from_str_radix(&line(pid, "status", &format!("Cap{set}:")), 16).unwrap()
}

fn start(rig: &Rig, name: &str, options: &[&str]) -> i32 {
    rig.ok(&[&["start", "--name", name], options, &["--", "sleep", "1000"]].concat());
    rig.row(name).pid.unwrap()
}

/// The capability CAP_NET_BIND_SERVICE.
const NET_BIND: u64 = 1 << 10;

#[test]
fn what_was_asked_for_is_what_the_kernel_has_whoever_starts_it() {
    isolated(here!(), |rig| {
        let file = r#"{"services": [{"name": "web", "command": "sleep 1000", "user": "nobody",
            "groups": ["adm", 4242], "umask": "027", "limit": {"nofile": "4096:8192", "core": 0},
            "oom_score": 300, "no_new_privs": true, "cap_drop": "all", "io_class": "idle",
            "cpu_affinity": 0, "nice": 3}]}"#;
        std::fs::write(rig.dir.join("web.json"), file).unwrap();
        rig.ok(&["start", "web.json"]);
        let check = || {
            let pid = rig.row("web").pid.unwrap();
            let ids = [NOBODY; 4].join(" ");
            for (file, name, value) in [
                ("status", "Uid:", ids.as_str()),
                ("status", "Gid:", &ids),
                ("status", "Groups:", "4 4242"),
                ("status", "Umask:", "0027"),
                ("status", "NoNewPrivs:", "1"),
                ("status", "CapBnd:", "0000000000000000"),
                ("status", "Cpus_allowed_list:", "0"),
                ("limits", "Max open files", "4096 8192 files"),
                ("limits", "Max core file size", "0 0 bytes"),
                ("oom_score_adj", "", "300"),
            ] {
                assert_eq!(line(pid, file, name), value, "{name}");
            }
            let ionice = Command::new("ionice").args(["-p", &pid.to_string()]).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&ionice.stdout), "idle\n");
        };
        check();
        let text = rig.ok(&["info", "web"]);
        for pair in [["user", "nobody"], ["limit", "core=0,nofile=4096:8192"]] {
            assert!(text.lines().any(|line| line.split_whitespace().eq(pair)), "{text}");
        }
        rig.kill_daemon();
        rig.ok(&["restart", "web"]);
        check();
        // The daemon has none of it, and can be looked at.
        let daemon = rig.daemon();
        assert_eq!(
            (line(daemon, "oom_score_adj", ""), caps(daemon, "Eff") > 0),
            ("0".into(), true)
        );
        assert!(Path::new(&format!("/proc/{daemon}/exe")).exists());
    });
}

#[test]
fn a_user_has_its_own_home_unless_one_was_given() {
    isolated(here!(), |rig| {
        start(rig, "web", &["--user", "nobody", "--env", "SHELL=/bin/fish"]);
        let env = rig.ok(&["env", "web"]);
        for pair in ["HOME=/nonexistent", "USER=nobody", "LOGNAME=nobody", "SHELL=/bin/fish"] {
            assert_eq!(env.lines().filter(|line| line == &pair).count(), 1, "{pair}: {env}");
        }
        let environ = std::fs::read(format!("/proc/{}/environ", rig.row("web").pid.unwrap()));
        let environ = String::from_utf8(environ.unwrap()).unwrap();
        for (name, value) in environ.split('\0').filter_map(|pair| pair.split_once('=')) {
            assert!(env.contains(&format!("{name}={value}\n")), "{name}");
        }
        // Numbers that no file knows.
        let pid = start(rig, "number", &["--user", "4321", "--oom-score", "5"]);
        assert_eq!(line(pid, "status", "Uid:"), ["4321"; 4].join(" "));
        assert_eq!(line(pid, "status", "Gid:"), ["4321"; 4].join(" "));
        assert_eq!(line(pid, "status", "Groups:"), "4321");
        let pid = start(rig, "group", &["--user", "4321:adm", "--limit", "nproc=50"]);
        assert_eq!(line(pid, "status", "Gid:"), ["4"; 4].join(" "));
        assert_eq!(line(pid, "limits", "Max processes"), "50 50 processes");
    });
}

#[test]
fn capabilities_are_dropped_and_kept_also_by_a_user() {
    isolated(here!(), |rig| {
        let pid =
            start(rig, "drop", &["--cap-drop", "CAP_NET_BIND_SERVICE", "--cap-drop", "chown"]);
        let all = caps(rig.daemon(), "Bnd");
        for set in ["Bnd", "Prm", "Eff"] {
            assert_eq!(caps(pid, set), all & !NET_BIND & !1, "{set}");
        }
        let pid = start(rig, "keep", &["--user", "nobody", "--cap-keep", "net_bind_service"]);
        for set in ["Bnd", "Prm", "Eff", "Amb"] {
            assert_eq!(caps(pid, set), NET_BIND, "{set}");
        }
        let pid = start(rig, "root", &["--cap-keep", "net_bind_service"]);
        assert_eq!((caps(pid, "Eff"), caps(pid, "Bnd")), (NET_BIND, NET_BIND));
        let pid = start(rig, "user", &["--user", "nobody"]);
        assert_eq!((caps(pid, "Eff"), caps(pid, "Bnd")), (0, all));
        rig.kill_daemon();
        for name in ["drop", "keep", "root", "user"] {
            let row = rig.row(name);
            assert_eq!((row.status.as_str(), row.adopted), ("online", true), "{name}");
        }
        rig.ok(&["restart", "all"]);
        rig.ok(&["stop", "all"]);
    });
}

#[test]
fn what_the_kernel_would_refuse_is_refused_before_anything_is_touched() {
    isolated(here!(), |rig| {
        let pid = start(rig, "web", &[]);
        let text = rig.ok(&["info", "web"]);
        for (options, reason) in [
            (["--user", "nobdy"], "web: cannot set user nobdy: no such name"),
            (["--user", "nobody:nogrp"], "web: cannot set user nobody:nogrp: no such name"),
            (["--groups", "adm,nogrp"], "web: cannot set groups adm,nogrp: no such name"),
            (["--cpu-affinity", "1023"], "web: cannot set cpu affinity 1023: Invalid argument"),
            (["--limit", "nofile=99G"], "web: cannot set limit nofile=99G: Operation not"),
        ] {
            let said = rig.refused(1, &[&["adjust", "web"], &options[..]].concat());
            assert!(said.contains(reason), "{said}");
            let words = [&["start", "--name", "new"], &options[..], &["--", "sleep", "1"]].concat();
            assert!(rig.refused(1, &words).contains(&reason.replace("web", "new")));
        }
        assert_eq!(rig.rows().len(), 1);
        let same = |text: &str| text.lines().filter(|line| !line.contains("time")).count();
        assert_eq!(same(&rig.ok(&["info", "web"])), same(&text));
        assert_eq!(rig.row("web").pid, Some(pid));
    });
}

/// A directory that is the user's, as `--log-out` may name one: a link in it leads root nowhere.
#[test]
fn root_writes_no_log_of_a_users_service_through_a_link() {
    isolated(here!(), |rig| {
        let (dir, secret) = (rig.dir.join("theirs"), rig.dir.join("secret"));
        std::fs::create_dir(&dir).unwrap();
        std::os::unix::fs::chown(&dir, Some(65_534), None).unwrap();
        std::fs::write(&secret, "").unwrap();
        for (name, more) in [("plain", &[][..]), ("stamped", &["--log-time"])] {
            let link = dir.join(format!("{name}.log"));
            std::os::unix::fs::symlink(&secret, &link).unwrap();
            let log = ["--log-out", link.to_str().unwrap(), "--merge-logs", "--user", "nobody"];
            let script = ["--", "sh", "-c", "echo said; exec sleep 1000"];
            rig.ok(&[&["start", "--name", name], &log[..], more, &script].concat());
            let pid = rig.row(name).pid.unwrap();
            let spoke = || line(pid, "cmdline", "").starts_with("sleep").then_some(());
            rig.until("it to have spoken", spoke);
            rig.ok(&["stop", name]);
            let stat = std::fs::metadata(&secret).unwrap();
            use std::os::unix::fs::MetadataExt;
            assert_eq!((stat.len(), stat.uid()), (0, 0), "{name}");
        }
    });
}

#[test]
fn a_daemon_that_is_not_root_refuses_what_takes_root() {
    isolated_in(Setting { user: User::Nobody, ..Setting::default() }, here!(), |rig| {
        let pid = start(rig, "web", &["--user", "nobody", "--no-new-privs", "--oom-score", "500"]);
        assert_eq!(line(pid, "status", "NoNewPrivs:"), "1");
        assert_eq!(line(pid, "oom_score_adj", ""), "500");
        for options in [["--user", "root"], ["--groups", "adm"], ["--cap-drop", "all"]] {
            let said = rig.refused(1, &[&["adjust", "web"], &options[..]].concat());
            let (name, value) = (options[0].trim_start_matches('-').replace('-', " "), options[1]);
            let line =
                format!("web: cannot set {name} {value}: Operation not permitted (start the");
            assert!(said.contains(&line), "{said}");
        }
        assert_eq!(rig.row("web").pid, Some(pid));
    });
}

#[test]
fn a_bad_value_names_option_value_and_form() {
    isolated(here!(), |rig| {
        for (option, value, form) in [
            ("user", "a b", "a name or a number"),
            ("umask", "888", "an octal number from 000 to 777"),
            ("limit", "files=1", "NAME=SOFT[:HARD]"),
            ("oom-score", "1001", "a whole number from -1000 to 1000"),
            ("cap-drop", "fly", "a capability such as"),
            ("cap-keep", "", "a capability such as"),
            ("io-class", "fast", "idle, best-effort[:0-7] or realtime[:0-7]"),
            ("cpu-affinity", "2-1", "a CPU or a range, as in 0-3,6"),
            ("cpu-max", "50", "a share of one CPU, such as 50% or 200%"),
            ("cpu-max", "0%", "a share of one CPU, such as 50% or 200%"),
            ("pids-max", "-1", "a whole number up to 4294967295"),
        ] {
            let said =
                rig.refused(2, &["start", &format!("--{option}={value}"), "--", "sleep", "1"]);
            let quoted = format!("'{value}' for '--{option}'");
            assert!(said.contains(&quoted) && said.contains(form), "{said}");
        }
        assert!(rig.rows().is_empty());
    });
}

/// A server that opens its log by /dev/stdout anew, as nginx's images have it.
#[test]
fn a_real_server_runs_as_nobody_and_writes_its_logs() {
    isolated(here!(), |rig| {
        let redis = ["/usr/bin/redis-server", "/usr/local/bin/redis-server"];
        let redis = redis.iter().find(|path| Path::new(path).exists()).unwrap();
        let data = rig.dir.join("data");
        std::fs::create_dir(&data).unwrap();
        std::os::unix::fs::chown(&data, Some(65_534), None).unwrap();
        std::os::unix::fs::chown(&rig.dir, Some(65_534), None).unwrap();
        let socket = data.join("redis.sock");
        let words = ["start", "--name", "redis", "--user", "nobody", "--limit", "nofile=2000"];
        let own = ["--", redis, "--port", "0", "--dir", data.to_str().unwrap(), "--unixsocket"];
        let log = ["--logfile", "/dev/stdout", "--save", ""];
        rig.ok(&[&words[..], &own, &[socket.to_str().unwrap()], &log].concat());
        let serves = || std::os::unix::net::UnixStream::connect(&socket).is_ok();
        rig.until("redis to serve", || serves().then_some(()));
        let pid = rig.row("redis").pid.unwrap();
        assert_eq!(line(pid, "status", "Uid:"), [NOBODY; 4].join(" "));
        rig.until("its log", || {
            rig.ok(&["logs", "redis"]).contains("eady to accept").then_some(())
        });
        rig.kill_daemon();
        assert_eq!(rig.row("redis").pid, Some(pid));
        rig.kill(pid, rustix::process::Signal::KILL);
        let row = rig.until_replaced("redis", pid);
        assert!(!proc::alive(pid) && row.restarts == 1);
        rig.until("redis to serve again", || serves().then_some(()));
        rig.ok(&["stop", "redis"]);
    });
}

//! The options of services: one row each, changed by `adjust`, and what the kernel refuses.
use crate::ends::hanging_child;
use crate::namespace::{Setting, User, isolated, isolated_in};
use crate::proc;
use crate::rig::{Rig, finish};
use serde_json::json;
use std::process::Command;

/// A row of the table that only debug builds have: nothing else in the sources knows of it.
#[test]
fn an_option_is_one_row_of_the_table() {
    isolated(here!(), |rig| {
        let file = r#"{"services": [{"name": "job", "command": "sleep 2", "made_up": 7}]}"#;
        std::fs::write(rig.dir.join("job.json"), file).unwrap();
        rig.ok(&["start", "--name", "web", "--made-up", "7", "--", "sleep", "1"]);
        rig.ok(&["import", "job.json"]);
        rig.ok(&["save"]);
        for name in ["web", "job"] {
            assert_eq!(rig.info(name)["policy"]["made_up"], 7);
            let info = rig.ok(&["info", name]);
            assert!(info.lines().any(|line| line.starts_with("made up ") && line.ends_with(" 7")));
        }
        for file in ["services", "dump.json"] {
            let text = std::fs::read_to_string(rig.home.join(file)).unwrap().replace(' ', "");
            assert_eq!(text.matches(r#""made_up":7"#).count(), 2, "{file}: {text}");
        }
        rig.kill_daemon();
        assert_eq!(rig.info("web")["policy"]["made_up"], 7);
        let said = rig.refused(2, &["start", "web", "--made-up", "8"]);
        assert!(said.contains("--made-up: web exists already"), "{said}");
        let said = rig.refused(2, &["start", "--made-up", "x", "--", "sleep", "3"]);
        assert!(said.contains("bad value 'x' for '--made-up': expected a whole number"), "{said}");
        std::fs::write(rig.dir.join("job.json"), file.replace('7', "8")).unwrap();
        assert!(rig.refused(1, &["import", "job.json"]).contains("it differs in made_up"));
    });
}

fn nice_of(rig: &Rig, name: &str) -> i32 {
    nice_in(&rig.row(name).pid.unwrap().to_string())
}

/// That of a process of /proc; `self` is the test's own, which it may have been given.
fn nice_in(process: &str) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(16).unwrap().parse().unwrap()
}

/// `opm ARGS…` from a shell with a nice value of its own.
fn ok_nicely(rig: &Rig, args: &[&str]) {
    let mut outer = Command::new("nice");
    outer.args(["-n", "3"]);
    let ran = rig.behind(outer, args);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{ran:?}");
}

#[test]
fn a_nice_value_that_was_asked_for_is_the_services_whoever_starts_it() {
    isolated(here!(), |rig| {
        ok_nicely(rig, &["start", "--name", "web", "--nice", "2", "--", "sleep", "1"]);
        assert_eq!(nice_of(rig, "web"), 2);
        assert_eq!(rig.info("web")["nice"], 2);
        let text = rig.ok(&["info", "web"]);
        assert_eq!(text.matches("\nnice ").count(), 1, "{text}");
        rig.kill_daemon();
        ok_nicely(rig, &["restart", "web"]);
        assert_eq!(nice_of(rig, "web"), 2);
    });
}

#[test]
fn a_nice_value_that_is_not_permitted_is_refused_and_what_runs_goes_on() {
    isolated_in(Setting { user: User::Nobody, ..Setting::default() }, here!(), |rig| {
        let line = "web: cannot set nice -5: Permission denied (start the daemon where";
        let words = ["start", "--name", "web", "--nice", "-5", "--", "sleep", "1"];
        assert!(rig.refused(1, &words).contains(line));
        assert!(rig.rows().is_empty());
        let pid = rig.start("web", "sleep");
        assert!(rig.refused(1, &["adjust", "web", "--nice", "-5"]).contains(line));
        assert_eq!(rig.row("web").pid, Some(pid));
        assert_eq!(rig.info("web")["policy"].get("nice"), None);
    });
}

/// Defined under a daemon that might, restarted and started under one that may not.
#[test]
fn a_daemon_that_lost_a_privilege_says_what_it_cannot_give() {
    isolated(here!(), |rig| {
        let words = ["start", "--name", "web", "--nice", "-5", "--", "sleep", "1"];
        let (ran, user) = (rig.opm(&words), Command::new("id").arg("-u").output().unwrap());
        if ran.code != Some(0) {
            assert!(user.stdout != b"0\n" || ran.err.contains("cannot set nice -5"), "{ran:?}");
            return;
        }
        assert_eq!(nice_of(rig, "web"), -5);
        let pid = rig.row("web").pid;
        rig.kill_daemon();
        let mut outer = Command::new("setpriv");
        outer.args(["--bounding-set=-sys_nice", "--inh-caps=-sys_nice"]);
        assert_eq!(rig.behind(outer, &["daemon", "start"]).code, Some(0));
        assert!(rig.refused(1, &["restart", "web"]).contains("cannot set nice -5"));
        assert_eq!(rig.row("web").pid, pid, "it was touched");
        rig.ok(&["stop", "web"]);
        let said = rig.refused(1, &["start", "web"]);
        assert!(said.contains("web: cannot set nice -5: "), "{said}");
    });
}

#[test]
fn what_is_forked_already_is_restarted_to_have_what_is_adjusted_now() {
    isolated(here!(), |rig| {
        let log = rig.log_to_nobody("web");
        let start = rig.spawn(&["start", "web"]);
        let child = hanging_child(rig);
        let adjust = rig.spawn(&["adjust", "web", "--env", "A=1", "--now"]);
        rig.until("the change", || rig.ok(&["env", "web"]).contains("A=1\n").then_some(()));
        let _reader = std::fs::File::open(&log).unwrap();
        let (said, _) = (finish(adjust, &["adjust"]), finish(start, &["start"]));
        let pid = rig.row("web").pid.unwrap();
        assert_eq!(said.out, format!("web: changed env.A; web: online (id 0, pid {pid})\n"));
        assert_ne!(pid, child);
        assert_eq!(proc::variable(pid, "A"), Some("1".to_owned()));
        let spawned = rig.events("web").iter().filter(|event| event.event == "spawned").count();
        assert_eq!(spawned, 3);
    });
}

#[test]
fn what_is_adjusted_is_told_kept_and_in_effect_from_the_next_start_on() {
    isolated(here!(), |rig| {
        let pid = rig.start("web", "catch:TERM note:told drain:0");
        let words = ["adjust", "web", "--stop-signal", "INT", "--nice", "4", "--env", "A=1"];
        let said = rig.ok(&words);
        let keys = "changed stop_signal, nice, env.A (from its next start on)";
        assert_eq!(said, format!("web: {keys}\n"));
        assert_eq!(rig.ok(&words), "web: nothing changes\n");
        assert_eq!((rig.row("web").pid, nice_of(rig, "web")), (Some(pid), nice_in("self")));
        assert_eq!(rig.info("web")["policy"]["stop_signal"], "INT");
        assert!(rig.refused(1, &["modify", "web", "--name", "api"]).contains("live incarnation"));
        // The signal is that of the incarnation which is stopped.
        rig.ok(&["stop", "web"]);
        rig.note("web", "told");
        rig.kill_daemon();
        let said = rig.ok(&["update", "web", "--name", "api", "--command", "sleep 7"]);
        assert_eq!(said, "web: changed name, command\n");
        rig.ok(&["start", "api"]);
        assert_eq!((nice_of(rig, "api"), rig.ok(&["get-command", "api"])), (4, "sleep 7\n".into()));
        assert!(rig.ok(&["env", "api"]).contains("A=1\n"));
        let pid = rig.row("api").pid;
        rig.kill_daemon();
        assert_eq!(rig.row("api").pid, pid, "it is adopted under its new name");
        assert!(rig.refused(3, &["adjust", "web", "--nice", "1"]).contains("no such service"));
        assert!(rig.refused(2, &["adjust", "api"]).contains("nothing to change"));
    });
}

#[test]
fn a_variable_that_opm_sets_itself_is_no_instances_variable() {
    isolated(here!(), |rig| {
        for option in ["--instance-var", "--increment-var"] {
            let words = ["start", "--name", "web", option, "OPM_MARK", "--", "sleep", "1"];
            let line = rig.refused(2, &words);
            assert!(line.contains("OPM_MARK is set by opm itself"), "{line}");
        }
        assert!(rig.rows().is_empty());
    });
}

/// What was checked of the first one says nothing of the others.
#[test]
fn each_schedule_of_a_file_has_its_own_zone() {
    isolated(here!(), |rig| {
        let import = |second: &str| {
            let of = |name: &str, zone: &str| {
                serde_json::json!({"name": name, "command": "sleep 1000",
                    "cron": format!("TZ={zone} 0 3 * * *")})
            };
            let file =
                serde_json::json!({"services": [of("one", "Asia/Tokyo"), of("two", second)]});
            std::fs::write(rig.dir.join("all.json"), file.to_string()).unwrap();
            rig.opm(&["import", "all.json"])
        };
        let ran = import("Nowhere/City");
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.err.contains("two: cron: \"Nowhere/City\" is no time zone"), "{ran:?}");
        assert!(rig.rows().is_empty());
        assert_eq!(import("Asia/Kolkata").code, Some(0));
        for (name, hour) in [("one", "T18:00:00"), ("two", "T21:30:00")] {
            let next = rig.info(name)["next_at"].clone();
            assert!(next.as_str().unwrap().contains(hour), "{name}: {next}");
        }
    });
}

#[test]
fn what_is_reset_has_its_default_again() {
    isolated(here!(), |rig| {
        let own = ["--cron", "@yearly", "--depends-on", "db", "--nice", "3", "--user", "nobody"];
        rig.start("db", "sleep");
        rig.ok(&[&["start", "--name", "web"], &own[..], &["sleep 1000"]].concat());
        let words = ["adjust", "web", "--reset", "cron,depends-on,--nice,user"];
        let said = rig.ok(&[&words[..], &["--min-uptime", "1s", "--now"]].concat());
        assert!(said.contains("web: changed min_uptime, cron, user, nice, depends_on"), "{said}");
        rig.kill_daemon();
        let policy = rig.info("web")["policy"].clone();
        for key in ["cron", "depends_on", "nice", "user"] {
            assert!(policy.get(key).is_none(), "{key}: {policy}");
        }
        assert_eq!(nice_of(rig, "web"), nice_in("self"));
        let line = rig.refused(2, &["adjust", "web", "--reset", "nice,colour"]);
        assert!(line.contains("--reset") && line.contains("'colour' is no option"), "{line}");
    });
}

#[test]
fn variables_come_from_files_and_are_dropped_and_read_anew() {
    isolated(here!(), |rig| {
        std::fs::write(rig.dir.join(".env"), "A=dot\nB=dot\n").unwrap();
        std::fs::write(rig.dir.join("one.env"), "B=one\nC=one\n").unwrap();
        std::fs::write(rig.dir.join("two.env"), "C=two\nD=two\n").unwrap();
        let files = ["--env-file", "one.env", "--env-file", "two.env", "--env", "D=hand"];
        rig.ok(&[&["start", "--name", "web"], &files[..], &["--", "sleep", "1"]].concat());
        let has = |pairs: &[&str]| {
            let env = rig.ok(&["env", "web"]);
            pairs.iter().for_each(|pair| assert!(env.lines().any(|have| have == *pair), "{env}"));
        };
        has(&["A=dot", "B=one", "C=two", "D=hand"]);
        std::fs::write(rig.dir.join("two.env"), "C=new\nD=new\n").unwrap();
        rig.ok(&["restart", "web", "--update-env"]);
        has(&["B=one", "C=new", "D=hand"]);
        rig.ok(&["restart", "web", "--reset-env"]);
        has(&["C=new", "D=new"]);
        let pid = rig.row("web").pid;
        let said = rig.ok(&["adjust", "web", "--env", "E=1", "--env-file", "one.env", "--now"]);
        let line = "web: changed env_file, env.E, .env:C, .env:D; web: online (id 0, pid ";
        assert!(said.starts_with(line), "{said}");
        assert_ne!(rig.row("web").pid, pid);
        let pid = rig.row("web").pid;
        assert_eq!(rig.ok(&["adjust", "web", "--env", "E=1", "--now"]), "web: nothing changes\n");
        assert_eq!(rig.row("web").pid, pid);
        let said = rig.refused(1, &["start", "--env-file", "no.env", "--", "sleep", "2"]);
        assert!(said.contains("no.env: No such file"), "{said}");
        let file =
            r#"{"services": [{"name": "job", "command": "sleep 3", "env_file": "two.env"}]}"#;
        std::fs::write(rig.dir.join("job.json"), file).unwrap();
        rig.ok(&["import", "job.json"]);
        assert!(rig.ok(&["env", "job"]).contains("D=new\n"));
    });
}

#[test]
fn an_interpreter_runs_what_cannot_run_itself() {
    isolated(here!(), |rig| {
        std::fs::write(rig.dir.join("loop.txt"), "echo $- $1; exec sleep 1000\n").unwrap();
        let own = ["--interpreter", "sh", "--interpreter-args", "-e -u"];
        rig.ok(&[&["start", "--name", "loop", "loop.txt"], &own[..], &["--", "word"]].concat());
        assert_eq!(rig.ok(&["get-command", "loop"]), "sh -e -u loop.txt word\n");
        rig.until("its line", || rig.ok(&["logs", "loop", "--out"]).contains("word").then_some(()));
        let said = rig.refused(1, &["start", "--interpreter", "nope", "loop.txt", "-n", "x"]);
        assert!(said.contains("nope: no such program"), "{said}");
        rig.ok(&["adjust", "loop", "--interpreter", "dash"]);
        assert_eq!(rig.ok(&["get-command", "loop"]), "dash loop.txt word\n");
        let file = r#"{"services": [{"name": "job", "command": ["loop.txt", "a b"],
            "interpreter": "sh", "interpreter_args": "-e"}]}"#;
        std::fs::write(rig.dir.join("job.json"), file).unwrap();
        rig.ok(&["import", "job.json"]);
        assert_eq!(rig.ok(&["get-command", "job"]), "sh -e loop.txt 'a b'\n");
    });
}

#[test]
fn a_look_alike_does_what_was_said_that_it_does() {
    isolated(here!(), |rig| {
        let mut other = Command::new("sleep").arg("777").current_dir(&rig.dir).spawn().unwrap();
        let start = |what: &[&str]| {
            let words = [&["start", "--name", what[1]], what, &["--", "sleep", "777"]].concat();
            rig.opm(&words)
        };
        assert_eq!(start(&["--look-alike", "refuse"]).code, Some(5));
        let ran = start(&["--look-alike", "warn"]);
        assert!(ran.code == Some(0) && ran.err.contains("runs the same command"), "{ran:?}");
        let ran = start(&["--look-alike", "ignore"]);
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
        other.kill().unwrap();
        other.wait().unwrap();
    });
}

#[test]
fn info_says_of_each_option_that_is_not_the_default_where_it_comes_from() {
    isolated(here!(), |rig| {
        let path = |name: &str| rig.dir.join(name).to_str().unwrap().to_owned();
        let (own, pm2s) = (path("own.json"), path("pm2s.json"));
        let services = r#"{"services": [{"name": "a", "command": "sleep 1001", "nice": 3}]}"#;
        std::fs::write(&own, services).unwrap();
        let apps = r#"{"apps": [{"name": "b", "script": "/bin/sleep", "args": "1002",
            "interpreter": "none", "max_restarts": 3}]}"#;
        std::fs::write(&pm2s, apps).unwrap();
        rig.ok(&["import", &own]);
        rig.ok(&["import", &pm2s]);
        let command = ["start", "--name", "c", "--nice", "4", "--max-restarts", "10"];
        rig.ok(&[&command[..], &["--", "sleep", "1003"]].concat());
        rig.ok(&["adjust", "c", "--stop-timeout", "7s", "--nice", "5"]);
        rig.ok(&["adjust", "c", "--stop-timeout", "8s"]);
        let is = |name: &str, expected: serde_json::Value| {
            assert_eq!(rig.info(name)["origins"], expected, "{name}");
        };
        let all = || {
            is("a", json!({"nice": own}));
            let (default, file) = ("PM2's default", format!("PM2's {pm2s}"));
            is(
                "b",
                json!({"max_restarts": file, "min_uptime": default, "restart_delay": default,
                    "stop_signal": default, "stop_timeout": default}),
            );
            is("c", json!({"nice": "adjust", "stop_timeout": "adjust"}));
        };
        all();
        rig.kill_daemon();
        all();
        rig.ok(&["save"]);
        rig.ok(&["remove", "all"]);
        rig.ok(&["restore"]);
        all();
        let text = rig.ok(&["info", "b"]);
        let line = "PM2's default: min uptime, restart delay, stop signal, stop timeout\n";
        assert!(text.contains(line) && text.contains(&format!("{pm2s}: max restarts\n")), "{text}");
        assert!(!rig.ok(&["info", "a"]).contains("adjust"));
        // The file's word is the last again.
        std::fs::write(&own, services.replace("3}", "2}").replace("\"a\"", "\"c\"")).unwrap();
        rig.ok(&["apply", &own]);
        is("c", json!({"nice": own}));
    });
}

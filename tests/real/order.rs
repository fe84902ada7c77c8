//! Who starts after whom, and is stopped before whom.
use crate::namespace::isolated;
use crate::rig::{Event, Ran, Rig};
use rustix::process::Signal;
use std::process::Child;

/// Defines services of these names and dependencies; each is ready when a file of its name with
/// `.up` behind it is there.
fn declare(rig: &Rig, services: &[(&str, &str)]) -> &'static str {
    let services: Vec<_> = services
        .iter()
        .map(|(name, of)| {
            let of: Vec<&str> = of.split_whitespace().collect();
            let ready = format!("cmd:test -e {name}.up");
            serde_json::json!({"name": name, "command": ["sleep", "1000"], "depends_on": of,
                "ready": ready, "stop_timeout": "1s"})
        })
        .collect();
    let file = serde_json::json!({"services": services}).to_string();
    std::fs::write(rig.dir.join("all.json"), file).unwrap();
    "all.json"
}

fn import(rig: &Rig, services: &[(&str, &str)]) -> Ran {
    rig.opm(&["import", declare(rig, services)])
}

fn up(rig: &Rig, name: &str) {
    std::fs::write(rig.dir.join(format!("{name}.up")), "").unwrap();
}

/// What happened to all services, in order: of this kind, their names.
fn happened(rig: &Rig, kind: &str) -> Vec<String> {
    let out = rig.ok(&["events", "--format", "json"]);
    let events = out.lines().map(|line| serde_json::from_str::<Event>(line).unwrap());
    events.filter(|event| event.event == kind).map(|event| event.service).collect()
}

const LAYERS: [(&str, &str); 4] = [("web", "api"), ("api", "db cache"), ("cache", ""), ("db", "")];

#[test]
fn a_reload_of_what_waits_for_another_ends_under_the_next_daemon() {
    isolated(here!(), |rig| {
        let file = declare(rig, &[("db", ""), ("web", "db"), ("other", "")]);
        let mut import = rig.spawn(&["import", file]);
        rig.until("the first to run", || (happened(rig, "spawned").len() == 2).then_some(()));
        assert_eq!(rig.info("web")["why"], "waits for db");
        // Its start is the last, so that the next daemon gives it the same number.
        rig.ok(&["stop", "web"]);
        let mut start = rig.spawn(&["start", "web"]);
        rig.until("web to wait", || (rig.row("web").status == "starting").then_some(()));
        let mut reload = rig.spawn(&["reload", "web,other"]);
        let rolls = || std::fs::read_to_string(rig.home.join("rolls.json")).unwrap_or_default();
        rig.until("the reload", || rolls().contains(':').then_some(()));
        rig.kill_daemon();
        ["db", "web", "other"].into_iter().for_each(|name| up(rig, name));
        for process in [&mut import, &mut start, &mut reload] {
            process.wait().unwrap();
        }
        rig.ok(&["wait", "all", "--for", "ready"]);
        rig.until("the end of the reload", || (rolls() == "{}").then_some(()));
    });
}

#[test]
fn what_depends_on_others_starts_when_they_are_ready_under_any_daemon() {
    isolated(here!(), |rig| {
        let file = declare(rig, &LAYERS);
        let mut import = rig.spawn(&["import", file]);
        rig.until("the first to run", || (happened(rig, "spawned").len() == 2).then_some(()));
        let why = rig.info("web")["why"].clone();
        assert_eq!(why, "waits for api");
        assert_eq!(rig.row("web").status, "starting");
        up(rig, "db");
        rig.ok(&["wait", "db", "--for", "ready"]);
        rig.until("api to wait for cache", || {
            (rig.info("api")["why"] == "waits for cache").then_some(())
        });
        // The next daemon waits for the same.
        rig.kill_daemon();
        assert_eq!(happened(rig, "spawned"), [""; 0]);
        assert_eq!(rig.row("api").status, "starting");
        ["cache", "api", "web"].into_iter().for_each(|name| up(rig, name));
        rig.ok(&["wait", "all", "--for", "ready"]);
        assert_eq!(happened(rig, "spawned"), ["api", "web"]);
        // It lost the daemon that it had asked.
        import.wait().unwrap();
        // And what is restarted waits for what is.
        std::fs::remove_file(rig.dir.join("db.up")).unwrap();
        rig.ok(&["restart", "db"]);
        rig.kill(rig.row("api").pid.unwrap(), Signal::KILL);
        rig.until("api to wait", || (rig.info("api")["why"] == "waits for db").then_some(()));
        up(rig, "db");
        rig.ok(&["wait", "api", "--for", "ready"]);
    });
}

#[test]
fn what_others_depend_on_is_stopped_after_them_or_not_at_all() {
    isolated(here!(), |rig| {
        LAYERS.into_iter().for_each(|(name, _)| up(rig, name));
        assert_eq!(import(rig, &LAYERS).code, Some(0));
        rig.ok(&["wait", "all", "--for", "ready"]);
        let line = rig.refused(1, &["stop", "db"]);
        assert!(line.contains("db: not stopped, for api depends on it"), "{line}");
        assert!(line.contains("--with-dependants"), "{line}");
        // Nor is what the one needs that goes on, though that was named, too.
        let ran = rig.opm(&["stop", "db", "api"]);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        for refused in ["api: not stopped, for web", "db: not stopped, for api"] {
            assert!(ran.err.contains(refused), "{ran:?}");
        }
        assert_eq!(rig.row("db").status, "online");
        let said = rig.ok(&["stop", "db", "--with-dependants"]);
        assert_eq!(said, "web: stopped\napi: stopped\ndb: stopped\n");
        assert_eq!(happened(rig, "drained"), ["web", "api", "db"]);
        let pid = rig.row("cache").pid;
        // What it depends on is not started with it.
        let line = rig.refused(1, &["start", "web"]);
        assert!(line.contains("web: waits for api, which is stopped"), "{line}");
        rig.ok(&["stop", "web"]);
        rig.ok(&["start", "all", "--wait"]);
        assert_eq!(rig.row("cache").pid, pid);
        rig.ok(&["daemon", "stop", "--services"]);
        let log = std::fs::read_to_string(rig.home.join("daemon.log")).unwrap();
        assert!(log.contains("left; nothing runs"), "{log}");
    });
}

#[test]
fn a_circle_and_a_name_that_nobody_has_are_refused_by_name() {
    isolated(here!(), |rig| {
        let ran = import(rig, &[("a", "b"), ("b", "c"), ("c", "a")]);
        // What a file says is no usage.
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.err.contains("a: depends_on: a circle: a -> b -> c -> a"), "{ran:?}");
        let words = ["start", "--name", "web", "--depends-on", "db", "--", "sleep", "1"];
        assert!(rig.refused(2, &words).contains("web: depends_on: no such service: db"));
        assert!(rig.rows().is_empty());
        rig.start("db", "sleep");
        rig.start_with("web", &["--depends-on", "db"], "sleep");
        let line = rig.refused(2, &["adjust", "db", "--depends-on", "web"]);
        assert!(line.contains("db: depends_on: a circle: db -> web -> db"), "{line}");
        // A dependency that fails is said where it is waited for.
        rig.ok(&["adjust", "db", "--command", "false", "--restart", "never"]);
        rig.opm(&["restart", "db"]);
        rig.until_status("db", "errored");
        let line = rig.refused(1, &["restart", "web"]);
        assert!(line.contains("web: waits for db, which is errored"), "{line}");
        assert_eq!(rig.info("web")["why"], "waits for db, which is errored");
        // What no longer depends on it no longer waits for it.
        rig.start("other", "sleep");
        rig.ok(&["adjust", "web", "--depends-on", "other"]);
        rig.until_status("web", "online");
    });
}

/// A stop of db, which waits for web; and web's leader.
fn stop_that_waits(rig: &Rig) -> (Child, i32) {
    rig.start("db", "sleep");
    let options = ["--depends-on", "db", "--stop-timeout", "1h"];
    let web = rig.start_with("web", &options, "ignore:TERM sleep");
    let stop = rig.spawn(&["stop", "db", "--with-dependants"]);
    rig.until_status("web", "stopping");
    assert_eq!(rig.row("db").status, "online");
    (stop, web)
}

#[test]
fn a_stop_that_waits_for_a_dependant_goes_on_when_that_ends_otherwise() {
    isolated(here!(), |rig| {
        let (mut stop, web) = stop_that_waits(rig);
        rig.kill(web, Signal::KILL);
        assert!(stop.wait().unwrap().success());
        assert_eq!(happened(rig, "drained"), ["web", "db"]);
    });
}

#[test]
fn a_stop_that_waits_for_a_dependant_outlives_its_daemon() {
    isolated(here!(), |rig| {
        let (mut stop, web) = stop_that_waits(rig);
        // It would ask again.
        stop.kill().unwrap();
        stop.wait().unwrap();
        rig.kill_daemon();
        rig.until_status("web", "stopping");
        assert_eq!(rig.row("db").status, "online");
        rig.kill(web, Signal::KILL);
        rig.until_status("db", "stopped");
        assert_eq!(happened(rig, "drained"), ["web", "db"]);
    });
}

#[test]
fn what_depends_on_a_group_waits_for_all_of_it() {
    isolated(here!(), |rig| {
        let ready = ["--ready", "cmd:test -e $OPM_NAME.up", "--instances", "2", "--", "sleep", "9"];
        rig.ok(&[&["start", "--name", "api"][..], &ready].concat());
        let web = ["start", "--name", "web", "--depends-on", "api", "--", "sleep", "1000"];
        let mut start = rig.spawn(&web);
        for name in ["api-0", "api-1"] {
            rig.until("web to wait", || {
                let row = rig.rows().into_iter().find(|row| row.name == "web")?;
                (row.status == "starting").then_some(())?;
                (rig.info("web")["why"] == format!("waits for {name}")).then_some(())
            });
            up(rig, name);
        }
        assert!(start.wait().unwrap().success());
        let line = rig.refused(1, &["stop", "api-1"]);
        assert!(line.contains("web depends on it"), "{line}");
        rig.ok(&["stop", "api", "--with-dependants"]);
        assert_eq!(happened(rig, "drained")[0], "web");
        let line = rig.refused(2, &["adjust", "api-0", "--depends-on", "web"]);
        assert!(line.contains("a circle"), "{line}");
        // One instance may have a definition of its own.
        rig.start("db", "sleep");
        rig.ok(&["adjust", "web", "--depends-on", "db"]);
        rig.ok(&["adjust", "api-1", "--depends-on", "web"]);
        let line = rig.refused(2, &["adjust", "web", "--depends-on", "api"]);
        assert!(line.contains("a circle: web -> api -> web"), "{line}");
    });
}

#[test]
fn a_job_is_over_before_what_depends_on_it_starts() {
    isolated(here!(), |rig| {
        let job = "sh -c 'until test -e go; do sleep 0.02; done; touch done'";
        rig.ok(&["start", "--name", "migrate", "--restart", "never", job]);
        let words = ["start", "--name", "web", "--depends-on", "migrate", "--"];
        let mut start =
            rig.spawn(&[&words[..], &["sh", "-c", "test -e done && exec sleep 9"]].concat());
        rig.until("web", || rig.rows().into_iter().find(|row| row.name == "web"));
        assert_eq!(rig.row("web").status, "starting");
        std::fs::write(rig.dir.join("go"), "").unwrap();
        assert_eq!(start.wait().unwrap().code(), Some(0));
        rig.until_status("web", "online");
    });
}

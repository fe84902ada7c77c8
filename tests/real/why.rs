//! What `opm why` says: facts that the kernel, the logs and the daemon have.
use crate::namespace::isolated;
use crate::rig::Rig;
use rustix::process::Signal;
use serde_json::Value;

/// A service that writes a line to stderr and exits with 3, until it is errored.
fn errored(rig: &Rig, name: &str, line: &str) {
    let script = format!("echo \"{line}\" >&2; exit 3");
    let often = ["--max-restarts", "1", "--restart-delay", "10ms"];
    rig.ok(&[&["start", "--name", name], &often[..], &["--", "sh", "-c", &script]].concat());
    rig.until_status(name, "errored");
}

fn why(rig: &Rig, name: &str) -> (String, Value) {
    (rig.ok(&["why", name]), rig.json(&["why", name])[0].take())
}

#[test]
fn deaths_and_last_words_are_told() {
    isolated(here!(), |rig| {
        errored(rig, "web", "no such table: users");
        let (text, json) = why(rig, "web");
        for part in [
            "web: errored since ",
            "\nwhy: 2 quick deaths\n",
            "last deaths (2 quick in a row, 1 forgiven):\n  code 3 at ",
            "\n  no such table: users\n",
            "\nnext: mend what ended it, then opm start web\n",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let deaths = json["deaths"].as_array().unwrap();
        assert_eq!(deaths.len(), 2);
        assert!(deaths.iter().all(|death| death["code"] == 3 && death["lived_ms"].is_u64()));
        assert_eq!(json["stderr"].as_array().unwrap().last().unwrap(), "no such table: users");
        assert!(json["for_ms"].is_u64() && json["listeners"].as_array().unwrap().is_empty());
        // What is on record outlives the daemon.
        rig.kill_daemon();
        let (_, json) = why(rig, "web");
        assert_eq!((&json["deaths"][0]["code"], &json["status"]), (&3.into(), &"errored".into()));
        assert!(rig.refused(3, &["why", "nope"]).contains("no such service"));
    });
}

#[test]
fn why_a_service_is_errored_outlives_the_daemon() {
    isolated(here!(), |rig| {
        let program = rig.dir.join("program");
        std::fs::copy("/bin/sleep", &program).unwrap();
        rig.ok(&["start", "--name", "web", "--", program.to_str().unwrap(), "99"]);
        std::fs::remove_file(&program).unwrap();
        rig.refused(1, &["restart", "web"]);
        rig.ok(&["start", "--name", "ghost", "--", "sh", "-c", "sleep 99 & exit 0"]);
        rig.until_status("ghost", "errored");
        let said =
            || rig.json(&["ls"]).as_array().unwrap().iter().map(|it| it["why"].clone()).collect();
        let before: Vec<Value> = said();
        let missing = format!("cannot execute {}: No such file or directory", program.display());
        assert_eq!(before[0], missing);
        rig.ok(&["daemon", "upgrade"]);
        assert_eq!(said()[0], missing);
        rig.kill_daemon();
        let after = said();
        assert_eq!(after[0], missing);
        assert!(
            after[1].as_str().unwrap().starts_with("it daemonizes: it exited with 0 and left ")
        );
        // What it was is over when it runs again.
        std::fs::copy("/bin/sleep", &program).unwrap();
        rig.ok(&["start", "web"]);
        rig.kill_daemon();
        assert_eq!(said()[0], Value::Null);
    });
}

#[test]
fn who_has_the_port_is_told() {
    isolated(here!(), |rig| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let frames = "    at a frame of node's\n".repeat(18);
        let line =
            format!("Error: listen EADDRINUSE: address already in use 127.0.0.1:{port}\n{frames}");
        errored(rig, "web", &line);
        let (text, json) = why(rig, "web");
        let own = std::process::id();
        assert!(text.contains(&format!("\nport {port}: pid {own} (")), "{text}");
        assert_eq!(json["listeners"][0]["processes"][0]["pid"], own);
        // Nobody has it any more: nothing is said.
        drop(listener);
        let (text, json) = why(rig, "web");
        assert!(json["listeners"].as_array().unwrap().is_empty() && !text.contains("\nport "));
    });
}

#[test]
fn the_probe_the_dependency_and_the_schedule_that_it_waits_for_are_told() {
    isolated(here!(), |rig| {
        let probe = "cmd:test -e ok || exit 7";
        rig.start_with("db", &["--ready", probe], "sleep");
        rig.until("an answer", || {
            let (text, json) = why(rig, "db");
            let expected = "\nasked (ready): cmd:test -e ok || exit 7: exit 7\n";
            let is_told = json["probe"]["answer"] == "exit 7" && json["probe"]["probe"] == probe;
            (is_told && text.contains(expected)).then_some(())
        });
        let mut start = rig.spawn(&["start", "--name", "web", "--depends-on", "db", "sleep 99"]);
        rig.until("web", || rig.rows().into_iter().find(|row| row.name == "web"));
        let json = rig.until("the dependency", || {
            let (text, json) = why(rig, "web");
            text.contains("\nwaits for db (online: not ready: exit 7)\n").then_some(json)
        });
        assert_eq!(json["advice"][0], "opm why db: web is started when that is ready");
        assert_eq!((&json["dependency"]["name"], &json["by_cron"]), (&"db".into(), &false.into()));
        std::fs::write(rig.dir.join("ok"), "").unwrap();
        assert!(start.wait().unwrap().success());
        assert!(why(rig, "db").1["probe"].is_null());
        let job = ["start", "--name", "job", "--restart", "never", "--cron", "@yearly", "true"];
        rig.ok(&job);
        rig.until_status("job", "stopped");
        let (text, json) = why(rig, "job");
        assert!(text.contains("-01-01T") && text.contains(", by its schedule\n"), "{text}");
        assert_eq!(json["by_cron"], true);
        assert!(rig.ok(&["ls"]).contains("  has done its work, next in "));
    });
}

#[test]
fn what_keeps_the_next_one_from_starting_is_named() {
    isolated(here!(), |rig| {
        let script = "trap '' TERM; sleep 1234 & echo $! >pid; wait";
        let patient = ["--stop-timeout", "1h"];
        rig.ok(&[&["start", "--name", "web"], &patient[..], &["--", "sh", "-c", script]].concat());
        let leader = rig.row("web").pid.unwrap();
        let child: i32 = rig.until("the child", || {
            std::fs::read_to_string(rig.dir.join("pid")).ok()?.trim().parse().ok()
        });
        let mut stop = rig.spawn(&["stop", "web"]);
        rig.until_status("web", "stopping");
        rig.kill(leader, Signal::KILL);
        rig.until_gone(leader);
        let text = rig.until("its end", || {
            let (text, json) = why(rig, "web");
            (json["waits_for"][0]["pid"] == child).then_some(text)
        });
        assert!(text.contains(&format!("\nwaits for pid {child}: sleep 1234\n")), "{text}");
        assert!(text.contains("KILL follows its signal after 1h\n"), "{text}");
        rig.kill(child, Signal::KILL);
        stop.wait().unwrap();
        let (text, json) = why(rig, "web");
        assert!(text.contains("\nwhy: an operator stopped it\n"), "{text}");
        assert_eq!(json["deaths"][0]["signal"], "KILL");
    });
}

//! A root with nothing in it but opm, as after `FROM scratch`.

use crate::opm;
use crate::rig::{Live, eventually};
use crate::single::Container;
use serde_json::{Value, json};
use std::process::Command;

fn start(id: &str, words: &[&str], services: Option<&Value>) -> (Container, Live) {
    let container = Container::new(id, words, |config| {
        config["process"]["env"] = json!([]);
        config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        config["process"]["capabilities"] = json!({});
        let run = json!({"destination": "/run", "type": "tmpfs", "source": "tmpfs",
                         "options": ["mode=1777"]});
        config["mounts"].as_array_mut().unwrap().push(run);
    });
    let root = format!("{}/root", container.bundle);
    std::fs::copy(opm(), format!("{root}/opm")).unwrap();
    if let Some(services) = services {
        std::fs::write(format!("{root}/services.json"), services.to_string()).unwrap();
    }
    let live = Live::start(&["runc", "run", "-b", &container.bundle, &container.id]);
    (container, live)
}

#[test]
fn init_runs_a_program_where_there_is_nothing_else() {
    let words = ["/opm", "init", "-e", "2", "--", "/opm", "no-such-command"];
    let end = start("scratch", &words, None).1.end();
    assert_eq!(end.code, Some(0), "{end:?}");
    let words = ["/opm", "init", "/opm", "--version"];
    let end = start("scratch", &words, None).1.end();
    assert_eq!((end.code, end.rest.len()), (Some(0), 1), "{end:?}");
}

#[test]
fn services_run_where_there_is_nothing_else() {
    // The one thing in there that goes on until it is told to stop.
    let service = |name: &str| json!({"name": name, "command": ["/opm", "events", "-f"]});
    let services = json!({"services": [service("a"), service("b")]});
    let (container, live) = start("bare", &["/opm", "run", "/services.json"], Some(&services));
    eventually("two services that are healthy", || {
        let mut health = Command::new("runc");
        health.args(["exec", &container.id, "/opm", "health"]);
        health.output().unwrap().status.success().then_some(())
    });
    container.kill("TERM");
    let end = live.end();
    assert_eq!(end.code, Some(0), "{end:?}");
}

//! Several services in a container: `opm run` as an engine would start it.

use crate::opm;
use crate::rig::{Live, eventually};
use crate::single::Container;
use serde_json::{Value, json};
use std::process::Command;
use std::time::{Duration, Instant};

/// Mounts the overlay on $1/root, puts a file of services there, and does the rest in a shell.
const WITH_ROOT: &str = r#"
cd "$1" && mount -t tmpfs none layers && mkdir layers/upper layers/work && chmod 755 layers/upper
again() {
    mount -t overlay overlay -o lowerdir=/,upperdir=layers/upper,workdir=layers/work root
}
again && cp "$2" root/opm &&
    cp services.json root/services.json && chmod 755 root/opm root || exit 99
"#;

const THREE: &str = r#"{"services": [
    {"name": "web", "command": ["sh", "-c", "echo up; exec sleep 1000"], "cwd": "/"},
    {"name": "api", "command": ["sh", "-c", "echo up; exec sleep 1000"], "cwd": "/"},
    {"name": "job", "command": ["sh", "-c", "echo up; exec sleep 1000"], "cwd": "/"}]}"#;

/// Where no opm of this machine has its home: the container's root is an overlay on the machine's.
const ENV: [&str; 2] = ["PATH=/usr/bin:/bin", "HOME=/srv"];

fn several(id: &str, services: &str, adjust: impl Fn(&mut Value)) -> Container {
    let words = ["/opm", "run", "--stop-timeout", "3s", "/services.json"];
    let container = Container::new(id, &words, |config| {
        config["process"]["env"] = json!(ENV);
        adjust(config);
    });
    std::fs::write(format!("{}/services.json", container.bundle), services).unwrap();
    container
}

/// Starts it; `script` runs `runc run ID` as often as it likes.
fn start(container: &Container, script: &str) -> Live {
    let script = format!("{WITH_ROOT}\n{}", script.replace("ID", &container.id));
    Live::start(&["unshare", "-m", "sh", "-c", &script, "sh", &container.bundle, opm()])
}

/// `docker exec`. stdout and exit code.
fn exec(container: &Container, options: &[&str], words: &[&str]) -> (String, Option<i32>) {
    let mut command = Command::new("runc");
    command.arg("exec").args(options).arg(&container.id).args(words);
    let output = command.output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{}", String::from_utf8_lossy(&output.stderr));
    (out, output.status.code())
}

fn all_online(container: &Container, options: &[&str]) -> Vec<Value> {
    eventually("three services online", || {
        let words = ["/opm", "--no-daemon-start", "ls", "--format", "json"];
        let (out, _) = exec(container, options, &words);
        let rows: Vec<Value> = serde_json::from_str(&out).ok()?;
        let online = rows.iter().filter(|row| row["status"] == "online").count();
        (online == 3).then_some(rows)
    })
}

fn stops(container: &Container, live: Live) {
    let began = Instant::now();
    container.kill("TERM");
    let end = live.end();
    assert_eq!(end.code, Some(0), "{end:?}");
    assert!(began.elapsed() < Duration::from_secs(3));
}

#[test]
fn three_services_with_everything_beside_them() {
    let container = several("three", THREE, |_| {});
    let live = start(&container, "exec runc run ID");
    live.expect("| up");
    all_online(&container, &[]);
    let health = |target: &str| exec(&container, &[], &["/opm", "health", target]);
    assert_eq!(health("web"), ("web: online, ready\n".to_owned(), Some(0)));
    assert_eq!(exec(&container, &[], &["/opm", "health"]).1, Some(0));
    assert_eq!(exec(&container, &[], &["/opm", "stop", "web"]).1, Some(0));
    assert_eq!(health("web").1, Some(1));
    assert_eq!(health("api").1, Some(0));
    assert_eq!(exec(&container, &[], &["/opm", "health"]).1, Some(1));
    stops(&container, live);
}

#[test]
fn with_the_unified_cgroup_hierarchy_alone() {
    let services = THREE.replace("echo up", "stat -f -c %T /sys/fs/cgroup");
    let container = several("unified", &services, |_| {});
    // In the mount namespace of this container's root, so nobody else sees it.
    let remount = "umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup";
    let live = start(&container, &format!("{remount}\nexec runc run ID"));
    for _ in 0..3 {
        live.expect("| cgroup2fs");
    }
    stops(&container, live);
}

#[test]
fn a_read_only_root_with_only_run_to_write_to() {
    let container = several("readonly", THREE, |config| {
        config["root"]["readonly"] = json!(true);
        let run = json!({"destination": "/run", "type": "tmpfs", "source": "tmpfs"});
        config["mounts"].as_array_mut().unwrap().push(run);
    });
    let live = start(&container, "exec runc run ID");
    live.expect("| up");
    all_online(&container, &[]);
    stops(&container, live);
}

#[test]
fn any_user_with_only_tmp_to_write_to() {
    let container = several("user", THREE, |config| {
        config["root"]["readonly"] = json!(true);
        config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        config["process"]["capabilities"] = json!({});
        config["process"]["env"] = json!(["PATH=/usr/bin:/bin", "HOME=/"]);
        let tmp = json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs",
                         "options": ["mode=1777"]});
        config["mounts"].as_array_mut().unwrap().push(tmp);
    });
    let live = start(&container, "exec runc run ID");
    live.expect("| up");
    all_online(&container, &["--user", "1000:1000"]);
    stops(&container, live);
}

#[test]
fn nowhere_to_write_to_is_one_line_and_4() {
    let container = several("nowhere", THREE, |config| {
        config["root"]["readonly"] = json!(true);
    });
    let end = start(&container, "exec runc run ID").end();
    assert_eq!(end.code, Some(4), "{end:?}");
    assert_eq!(end.rest.len(), 1, "{end:?}");
}

/// The services say that they are two if they are.
const GUARDED: &str = r#"{"services": [
    {"name": "a", "cwd": "/",
     "command": ["sh", "-c", "exec 9>>/a.lock; flock -n 9 || echo clash; echo up; sleep 1000"]},
    {"name": "b", "cwd": "/",
     "command": ["sh", "-c", "exec 9>>/b.lock; flock -n 9 || echo clash; echo up; sleep 1000"]},
    {"name": "c", "cwd": "/",
     "command": ["sh", "-c", "exec 9>>/c.lock; flock -n 9 || echo clash; echo up; sleep 1000"]}]}"#;

#[test]
fn a_container_that_was_killed_is_started_again_on_its_root() {
    for (name, between) in [("same", ":"), ("remounted", "umount root; again")] {
        let container = several(name, GUARDED, |_| {});
        let script = format!("runc run ID; {between}; echo second; exec runc run ID");
        let live = start(&container, &script);
        for name in ["a", "b", "c"] {
            live.expect("| up");
            println!("{name} of the first");
        }
        container.kill("KILL");
        let seen = live.seek("| up", Duration::from_secs(20));
        assert!(seen.is_ok(), "{seen:?}");
        all_online(&container, &[]);
        let began = Instant::now();
        container.kill("TERM");
        let end = live.end();
        assert_eq!(end.code, Some(0), "{end:?}");
        assert!(!end.rest.iter().any(|line| line.contains("clash")), "{end:?}");
        assert!(began.elapsed() < Duration::from_secs(3));
    }
}

#[test]
fn a_service_that_runs_out_of_memory_is_restarted_and_the_others_stay() {
    const EATER: &str = r#"{"services": [
        {"name": "stays", "command": ["sleep", "1000"], "cwd": "/"},
        {"name": "also", "command": ["sleep", "1000"], "cwd": "/"},
        {"name": "eats", "cwd": "/", "restart_delay": "10ms", "command":
         ["sh", "-c", "[ -e /ate ] && exec sleep 1000; touch /ate; exec tail /dev/zero"]}]}"#;
    let container = several("memory", EATER, |config| {
        config["linux"]["resources"]["memory"] = json!({"limit": 64 << 20, "swap": 64 << 20});
    });
    let mut live = start(&container, "exec runc run ID");
    let rows = all_online_after_restart(&container, &mut live);
    assert_eq!(rows[0]["restarts"], 0);
    assert_eq!(rows[1]["restarts"], 0);
    stops(&container, live);
}

fn all_online_after_restart(container: &Container, live: &mut Live) -> Vec<Value> {
    eventually("the restart of what was killed", || {
        assert!(live.is_alive(), "the container ended");
        let rows = all_online(container, &[]);
        rows.iter().any(|row| row["name"] == "eats" && row["restarts"] == 1).then_some(rows)
    })
}

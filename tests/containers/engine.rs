//! The image of `man/examples/Containerfile`, built and run by podman.
//!
//! Its base is made of busybox under the name that the file asks for, so that no registry is
//! needed; all that podman keeps is in a directory of the test.

use crate::opm;
use crate::rig::{Live, eventually, exists, scratch};
use std::process::Command;
use std::time::{Duration, Instant};

const BUILD_AND_RUN: &str = r#"
set -e
cd "$1"
mkdir -p base/bin base/usr/local/bin base/tmp base/run base/etc base/dev base/proc base/sys context
cp "$(command -v busybox)" base/bin/busybox
for name in sh date sleep; do ln -s busybox "base/bin/$name"; done
chmod 1777 base/tmp
tar -c -C base . | podman import -q - debian:stable-slim
cp "$2" context/opm
cp "$3/Containerfile" "$3/services.json" context
podman build -q --pull=never --isolation chroot --format docker -t shop context
exec podman run --name shop --no-healthcheck --read-only shop
"#;

/// What a machine without CAP_SYS_RESOURCE, networks and systemd needs.
const CONFIG: &str = r#"
[containers]
netns = "none"
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
"#;

struct Engine {
    folder: String,
}

impl Engine {
    fn new() -> Engine {
        assert!(
            exists("/usr/bin/podman"),
            "THE PACKAGE `podman` IS MISSING (apt-get install podman): the example can't be built"
        );
        let folder = scratch("podman");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(format!("{folder}/containers.conf"), CONFIG).unwrap();
        let storage = format!(
            "[storage]\ndriver = \"vfs\"\n\
             graphroot = \"{folder}/graph\"\nrunroot = \"{folder}/run\"\n"
        );
        std::fs::write(format!("{folder}/storage.conf"), storage).unwrap();
        Engine { folder }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .env("CONTAINERS_CONF", format!("{}/containers.conf", self.folder))
            .env("CONTAINERS_STORAGE_CONF", format!("{}/storage.conf", self.folder));
        command
    }

    /// stdout, and whether it succeeded.
    fn podman(&self, words: &[&str]) -> (String, bool) {
        let words = [&["podman"], words].concat();
        let output = self.command(&words).output().unwrap();
        println!("{}", String::from_utf8_lossy(&output.stderr));
        let out = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        (out, output.status.success())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.podman(&["rm", "--force", "--time", "0", "shop"]);
        let _cleaned = std::fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn the_examples_image_is_built_runs_is_healthy_and_stops_in_time() {
    let engine = Engine::new();
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/man/examples");
    let script = ["sh", "-c", BUILD_AND_RUN, "sh"];
    let words = [&script[..], &[&engine.folder, opm(), examples]].concat();
    let live = Live::from(engine.command(&words));
    live.expect("clock   | ");
    let test = "{{json .Config.Healthcheck.Test}}";
    let (test, _) = engine.podman(&["image", "inspect", "--format", test, "shop"]);
    assert_eq!(test, r#"["CMD","opm","health"]"#);
    eventually("health", || {
        let (_, healthy) = engine.podman(&["exec", "shop", "opm", "health"]);
        healthy.then_some(())
    });
    let (id, _) = engine.podman(&["exec", "shop", "opm", "ls", "--format", "json"]);
    assert!(id.contains(r#""name":"careful""#), "{id}");
    let began = Instant::now();
    assert!(engine.podman(&["stop", "shop"]).1);
    assert_eq!(live.end().code, Some(0));
    assert!(began.elapsed() < Duration::from_secs(9));
    // The same image as the Quadlet unit has it run.
    engine.podman(&["rm", "shop"]);
    let unit = std::fs::read_to_string(format!("{examples}/opm.container")).unwrap();
    let values = |key: &str| {
        let values = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        values.map(str::to_owned).collect::<Vec<_>>()
    };
    let mut words: Vec<String> =
        ["run", "--detach", "--name=shop", "--no-healthcheck"].map(str::to_owned).into();
    assert_eq!(values("ReadOnly"), ["true"]);
    words.push("--read-only".to_owned());
    for key in ["Entrypoint", "User", "Tmpfs", "Environment"] {
        let option = if key == "Environment" { "env".to_owned() } else { key.to_lowercase() };
        words.extend(values(key).iter().map(|value| format!("--{option}={value}")));
    }
    words.push("shop".to_owned());
    words.extend(values("Exec")[0].split(' ').map(str::to_owned));
    assert!(engine.podman(&words.iter().map(String::as_str).collect::<Vec<_>>()).1);
    let health = values("HealthCmd")[0].clone();
    let health: Vec<&str> = ["exec", "shop"].into_iter().chain(health.split(' ')).collect();
    eventually("health under the unit", || engine.podman(&health).1.then_some(()));
}

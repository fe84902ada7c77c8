//! opm under systemd: what the daemon tells it, and the units. (`make check-package` boots one.)
use crate::namespace::isolated;
use crate::rig::Rig;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command};
use std::time::Duration;

/// A supervisor's socket in the rig, and the daemon that it started.
fn supervised(rig: &Rig, watchdog_us: &str) -> (UnixDatagram, Child) {
    let path = rig.dir.join("notify");
    std::fs::remove_file(&path).ok();
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut command = rig.command(&["daemon", "start", "--foreground"]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", watchdog_us);
    (socket, command.spawn().unwrap())
}

fn heard(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 100];
    let length = socket.recv(&mut bytes).expect("a word of the daemon");
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

#[test]
fn a_supervisor_is_told_when_the_daemon_is_ready_turns_and_leaves() {
    isolated(here!(), |rig| {
        let (socket, mut daemon) = supervised(rig, "200000");
        assert_eq!(heard(&socket), "READY=1");
        assert_eq!(heard(&socket), "WATCHDOG=1");
        rig.start("web", "sleep");
        // Whoever replaces itself in place goes on in the same words.
        rig.ok(&["daemon", "restart"]);
        while heard(&socket) != "READY=1" {}
        assert_eq!(heard(&socket), "WATCHDOG=1");
        rig.ok(&["stop", "web"]);
        rig.ok(&["daemon", "stop"]);
        while heard(&socket) != "STOPPING=1" {}
        assert!(daemon.wait().unwrap().success());
    });
}

/// Its supervisor waits for a word of the process that it started.
#[test]
fn a_daemon_that_a_command_starts_tells_the_commands_supervisor_nothing() {
    isolated(here!(), |rig| {
        let path = rig.dir.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut command = rig.command(&["daemon", "start"]);
        let status = command.env("NOTIFY_SOCKET", &path).status().unwrap();
        assert!(status.success());
        rig.ok(&["daemon", "stop"]);
        assert!(socket.recv(&mut [0; 9]).is_err());
    });
}

#[test]
fn setup_writes_units_that_systemd_takes() {
    isolated(here!(), |rig| {
        let config = rig.dir.join("config");
        let setup = |more: &[&str]| {
            let mut command = rig.command(&[&["daemon", "setup", "--user"], more].concat());
            let output = command.env("XDG_CONFIG_HOME", &config).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let printed = setup(&["--print"]);
        assert!(!config.exists(), "printing wrote");
        let said = setup(&[]);
        assert!(said.contains("systemctl --user start opm opm-services"), "{said}");
        let directory = config.join("systemd/user");
        let units = ["opm.service", "opm-services.service"].map(|name| directory.join(name));
        for unit in &units {
            let text = std::fs::read_to_string(unit).unwrap();
            assert!(printed.contains(text.trim_end()), "{text}");
            assert!(text.contains(&format!("OPM_HOME={}", rig.home.display())), "{text}");
            assert!(text.contains(env!("CARGO_BIN_EXE_opm")), "{text}");
        }
        let verify = Command::new("systemd-analyze").arg("verify").args(&units).output().unwrap();
        let said = String::from_utf8(verify.stderr).unwrap();
        // A key that is younger than the systemd of some distributions.
        let mut odd = said.lines().filter(|line| !line.contains("'DelegateSubgroup'"));
        assert!(verify.status.success() && odd.next().is_none(), "{said}");
        setup(&["--remove"]);
        assert!(units.iter().all(|unit| !unit.exists()));
    });
}

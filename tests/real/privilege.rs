//! Root in a home that is not root's: it acts as that user, or not at all.
use crate::input::mount;
use crate::namespace::{Setting, User, isolated_in, opm};
use crate::rig::{Ran, Rig, finish, one_line};
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

const NOBODY: u32 = 65_534;
const SOMEBODY: u32 = 1_000;

/// A world whose home belongs to nobody.
fn theirs(test: &str, claim: impl FnOnce(&Rig)) {
    let setting = Setting { user: User::Nobody, ..Setting::default() };
    isolated_in(setting, test, claim);
}

/// The command as root.
fn as_root(rig: &Rig, args: &[&str]) -> Command {
    let own = rig.command(&[]);
    let mut command = Command::new(opm());
    command.args(args).envs(own.get_envs().filter_map(|(k, v)| Some((k, v?))));
    command.env_remove("OPM_MARK").current_dir(&rig.dir);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn root(rig: &Rig, args: &[&str]) -> Ran {
    finish(as_root(rig, args).spawn().unwrap(), args)
}

fn uids(pid: i32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let of = |name| status.lines().find_map(|line: &str| line.strip_prefix(name)).unwrap().trim();
    format!("{} {} {}", of("Uid:"), of("Gid:"), of("Groups:")).trim().to_owned()
}

fn assert_theirs(pid: i32) {
    let id = format!("{NOBODY}\t").repeat(4);
    let id = id.trim();
    let found = uids(pid);
    assert!(found.starts_with(&format!("{id} {id}")), "{found}");
    let groups = found.split(' ').skip(2).collect::<Vec<_>>();
    assert!(!groups.contains(&"0"), "{found}");
}

#[test]
fn roots_command_is_the_users_whether_a_daemon_runs_or_not() {
    theirs(here!(), |rig| {
        // Root first: not even the home is there.
        let ran = root(rig, &["start", "--name", "first", "--", "sleep", "1000"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let first = rig.row("first").pid.unwrap();
        let leader = rig.start("web", "sleep");
        rig.kill_daemon();
        assert_eq!(root(rig, &["ls"]).code, Some(0));
        for pid in [rig.daemon(), leader, first] {
            assert_theirs(pid);
        }
        assert_eq!(root(rig, &["restart", "all"]).code, Some(0));
        assert_theirs(rig.row("first").pid.unwrap());
        assert_eq!(rig.row("web").status, "online");
    });
}

#[test]
fn root_follows_no_link_of_theirs() {
    theirs(here!(), |rig| {
        let secret = rig.dir.join("secret");
        std::fs::write(&secret, "for root alone\n").unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        rig.start("web", "sleep");
        let log = rig.info("web")["log_out"].as_str().unwrap().to_owned();
        rig.kill_daemon();
        for path in [rig.home.join("daemon.log"), log.into()] {
            std::fs::remove_file(&path).unwrap();
            symlink(&secret, &path).unwrap();
            lchown(&path, Some(NOBODY), None).unwrap();
            let ran = root(rig, &["logs", "web"]);
            assert!(!ran.out.contains("root alone"), "{ran:?}");
            root(rig, &["restart", "web"]);
            root(rig, &["flush", "web"]);
            assert_eq!(std::fs::read_to_string(&secret).unwrap(), "for root alone\n");
            std::fs::remove_file(rig.home.join("daemon.log")).ok();
        }
    });
}

/// Whoever can write to the directory can listen there.
#[test]
fn a_strangers_listener_is_sent_nothing() {
    theirs(here!(), |rig| {
        std::fs::create_dir(&rig.home).unwrap();
        let socket = rig.home.join("opm.sock");
        std::fs::set_permissions(&rig.home, std::fs::Permissions::from_mode(0o777)).unwrap();
        chown(&rig.home, Some(NOBODY), Some(NOBODY)).unwrap();
        // A listener of root's would be root's: so as somebody, in a home of nobody's.
        let script = "use IO::Socket::UNIX; my $s = IO::Socket::UNIX->new(Type => SOCK_STREAM(), \
                      Local => $ARGV[0], Listen => 1) or die $!; chmod 0777, $ARGV[0]; \
                      while (my $c = $s->accept) { sysread($c, my $b, 9); print \"got $b\"; }";
        let mut perl = Command::new("setpriv");
        perl.args([format!("--reuid={SOMEBODY}"), format!("--regid={SOMEBODY}")]);
        perl.args(["--clear-groups", "perl", "-e", script]).arg(&socket);
        let mut perl = perl.stdout(Stdio::piped()).spawn().unwrap();
        rig.until("the listener", || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok().then_some(())
        });
        for ran in [root(rig, &["ls"]), rig.opm(&["ls"])] {
            assert_eq!(ran.code, Some(4), "{ran:?}");
            let line = one_line(&ran, &["ls"]);
            assert!(line.contains(&SOMEBODY.to_string()), "{line}");
        }
        perl.kill().unwrap();
        let said = perl.wait_with_output().unwrap().stdout;
        assert_eq!(String::from_utf8_lossy(&said), "");
    });
}

#[test]
fn a_link_that_a_stranger_planted_is_no_home() {
    theirs(here!(), |rig| {
        let victim = rig.dir.join("public");
        std::fs::create_dir(&victim).unwrap();
        std::fs::set_permissions(&victim, std::fs::Permissions::from_mode(0o755)).unwrap();
        chown(&victim, Some(NOBODY), Some(NOBODY)).unwrap();
        let link = |home: &Path, uid: u32| {
            std::fs::remove_file(home).ok();
            symlink(&victim, home).unwrap();
            lchown(home, Some(uid), None).unwrap();
        };
        let mode = || std::fs::metadata(&victim).unwrap().permissions().mode() & 0o777;
        link(&rig.home, SOMEBODY);
        for args in
            [["start", "--name", "w", "--", "sleep", "9"].as_slice(), &["run", "--", "true"]]
        {
            let ran = rig.opm(args);
            assert_eq!(ran.code, Some(4), "{ran:?}");
            assert!(ran.err.contains(&rig.home.display().to_string()), "{ran:?}");
        }
        assert_eq!((mode(), std::fs::read_dir(&victim).unwrap().count()), (0o755, 0));
        // One's own leads to where there is room.
        link(&rig.home, NOBODY);
        rig.ok(&["start", "--name", "w", "--", "sleep", "1000"]);
        assert_eq!(mode(), 0o700);
        assert_theirs(rig.row("w").pid.unwrap());
        assert_eq!(root(rig, &["ls"]).code, Some(0));
    });
}

/// As in an image whose HOME is an application's, and whose entry point is root.
#[test]
fn roots_run_stays_roots_and_leaves_their_home_alone() {
    theirs(here!(), |rig| {
        mount(&["-t", "tmpfs", "none", "/run"]);
        let run = |home: Option<&Path>| {
            let args = ["run", "--", "sh", "-c", "id -u; echo $OPM_HOME; kill $PPID; sleep 9"];
            let mut command = as_root(rig, &args);
            command.env_remove("OPM_HOME");
            if let Some(home) = home {
                command.env("OPM_HOME", home);
            }
            finish(command.spawn().unwrap(), &args)
        };
        let ran = run(None);
        assert_eq!(ran.out, "0\n/run/opm\n", "{ran:?}");
        assert!(!rig.dir.join(".opm").exists());
        let ran = run(Some(&rig.home));
        assert_eq!((ran.code, ran.out.as_str()), (Some(4), ""), "{ran:?}");
        assert!(!rig.home.exists());
    });
}

#[test]
fn sudo_is_told_where_the_callers_services_are() {
    theirs(here!(), |rig| {
        let passwd = rig.dir.join("passwd");
        let line = format!("app:x:{NOBODY}:{NOBODY}::{}:/bin/sh\n", rig.dir.display());
        std::fs::write(&passwd, format!("root:x:0:0::/root:/bin/sh\n{line}")).unwrap();
        mount(&["--bind", passwd.to_str().unwrap(), "/etc/passwd"]);
        let theirs = rig.dir.join(".opm");
        let start = ["start", "--name", "w", "--", "sleep", "1000"];
        let mut command = rig.command(&start);
        command.env("OPM_HOME", &theirs);
        assert_eq!(finish(command.spawn().unwrap(), &start).code, Some(0));
        let own = rig.dir.join("root");
        std::fs::create_dir(&own).unwrap();
        let sudo = |args: &[&str]| {
            let mut command = as_root(rig, args);
            command.env_remove("OPM_HOME").env("HOME", &own).env("SUDO_USER", "app");
            finish(command.spawn().unwrap(), args)
        };
        let is_told = |ran: &Ran| ran.err.contains(&theirs.display().to_string());
        let ran = sudo(&["ls"]);
        assert!(is_told(&ran), "{ran:?}");
        assert!(!own.join(".opm").exists());
        // With a daemon of root's own only where that has nothing of the name.
        let ran = sudo(&["start", "--name", "own", "--", "sleep", "1000"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let ran = sudo(&["restart", "own"]);
        assert!(ran.code == Some(0) && !is_told(&ran), "{ran:?}");
        let ran = sudo(&["restart", "w"]);
        assert!(ran.code == Some(3) && is_told(&ran), "{ran:?}");
        assert_eq!(sudo(&["daemon", "stop", "--services"]).code, Some(0));
    });
}

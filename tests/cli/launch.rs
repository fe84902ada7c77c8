//! How a command starts the daemon: nothing of the command clings to it.
use crate::fake::Scratch;
use opm::sys::daemonize::launch;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

const WAIT_MAX: Duration = Duration::from_secs(20);

/// What `script` wrote into `seen` of the home, once it has renamed it to be whole.
fn seen(scratch: &Scratch, script: &str) -> String {
    std::fs::create_dir_all(scratch.home()).unwrap();
    let script =
        format!("{{ {script}; }} > $OPM_HOME/seen.new; mv $OPM_HOME/seen.new $OPM_HOME/seen");
    launch(Path::new("/bin/sh"), &["opm", "-c", &script], &scratch.home()).unwrap();
    let path = scratch.home().join("seen");
    let end = Instant::now() + WAIT_MAX;
    while !path.exists() {
        assert!(Instant::now() < end, "nothing was written");
        std::thread::sleep(Duration::from_millis(2));
    }
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn a_launched_daemon_has_no_descriptor_of_the_command() {
    let scratch = Scratch::new();
    // Descriptors that a command of a script can have: inherited, without CLOEXEC.
    let pipe = std::io::pipe().unwrap();
    let kept = rustix::io::dup(&pipe.1).unwrap();
    rustix::io::fcntl_setfd(&kept, rustix::io::FdFlags::empty()).unwrap();
    let text = seen(&scratch, "ls -l /proc/$$/fd");
    let links = text.lines().filter_map(|line| line.split_once(" -> "));
    let open: Vec<(&str, &str)> =
        links.map(|(left, path)| (left.rsplit(' ').next().unwrap(), path)).collect();
    let log = format!("{}/daemon.log", scratch.home().display());
    assert!(open.contains(&("0", "/dev/null")) && open.contains(&("2", &log)), "{text}");
    // The shell's stdout is the file that it writes; it keeps the old one, the log, above 9.
    let known = |path: &str| path == "/dev/null" || path == log || path.ends_with("/seen.new");
    assert!(open.iter().all(|(_, path)| known(path)), "{text}");
}

#[test]
fn a_launched_daemon_is_nobodys_child_in_a_session_of_its_own() {
    let scratch = Scratch::new();
    let text = seen(&scratch, "pwd; cat /proc/$$/stat");
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("/"));
    let field = |stat: &str, at: usize| -> u32 {
        let fields = stat.rsplit(')').next().unwrap();
        fields.split(' ').nth(at).unwrap().parse().unwrap()
    };
    let stat = lines.next().unwrap();
    let (parent, session) = (field(stat, 2), field(stat, 4));
    // Read as text: whoever runs the tests may be in session 0, which getsid of rustix asserts
    // that nobody is.
    let own = std::fs::read_to_string("/proc/self/stat").unwrap();
    assert_ne!(parent, std::process::id());
    assert_ne!(session, field(&own, 4));
}

#[test]
fn a_launched_daemon_ignores_and_blocks_no_signal() {
    let scratch = Scratch::new();
    // The test's own process ignores SIGPIPE, as every Rust program does.
    let text = seen(&scratch, "grep -E '^Sig(Ign|Blk)' /proc/self/status");
    assert_eq!(text, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

#[test]
fn a_launched_daemon_gets_the_home_and_no_mark_of_a_service() {
    let scratch = Scratch::new();
    let text = seen(&scratch, "env | grep ^OPM_");
    let home = format!("OPM_HOME={}\n", scratch.home().display());
    assert_eq!(text.replace("OPM_GOLDEN=write\n", ""), home);
    let log = scratch.home().join("daemon.log");
    assert_eq!(log.metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_program_that_cannot_be_run_is_an_error_of_the_launch() {
    let scratch = Scratch::new();
    std::fs::create_dir_all(scratch.home()).unwrap();
    let error = launch(Path::new("/nope"), &["opm"], &scratch.home()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
}

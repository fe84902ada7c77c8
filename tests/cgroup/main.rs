//! Limits by cgroup v2, on a kernel of their own: most machines that tests run on have bound the
//! controllers to version 1, or are containers that may not use them. User-mode Linux is a kernel
//! as a program; its root is that of this machine, read-only, and `guest.sh` its first process.
use std::process::{Command, Stdio};
use std::sync::OnceLock;

const OPM: &str = env!("CARGO_BIN_EXE_opm");
const GUEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cgroup/guest.sh");

/// All that the guest said, of one boot.
fn said() -> &'static str {
    static SAID: OnceLock<String> = OnceLock::new();
    SAID.get_or_init(|| {
        let mut guest = Command::new("timeout");
        guest.args(["600", "linux.uml", "mem=256M", "rootfstype=hostfs", "ro"]);
        guest.args([
            &format!("init={GUEST}"),
            "con=null",
            "con0=null,fd:1",
            "loglevel=1",
            "--",
            OPM,
        ]);
        let ran = guest.stdin(Stdio::null()).output().expect("user-mode-linux is there");
        String::from_utf8_lossy(&ran.stdout).into_owned()
    })
}

macro_rules! claims {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            let (said, claim) = (said(), concat!("claim ", stringify!($name), " "));
            let told = said.lines().find_map(|line| line.trim_end().strip_prefix(claim));
            assert_eq!(told, Some("holds"), "{said}");
        }
    )*};
}

claims! {
    refused_where_nothing_is_delegated
    refused_where_systemd_could_not_start_it_again
    limits_are_in_force_before_the_exec
    an_incarnation_has_a_leaf_of_its_own
    too_much_memory_is_named_as_the_reason
    more_processes_are_refused
    cpu_time_is_bounded
    what_the_kernel_refuses_touches_nothing
    a_leaf_that_a_dead_daemon_left_is_removed
    what_lost_every_mark_is_of_its_leaf
    a_daemon_that_a_service_starts_leaves_its_leaf
    a_user_has_limits_where_it_is_delegated
    the_first_process_of_a_container_limits_its_services
    nothing_is_left
}

//! A PID namespace for each test: the test binary runs itself again, for that one test, under an
//! init that reaps. When the test ends, however it ends, so does everything that it started.
use crate::rig::Rig;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Set inside: the test's directory.
const INSIDE: &str = "OPM_REAL_INSIDE";
/// No test may take longer, the long rounds excepted.
const TIME_MAX: Duration = Duration::from_secs(90);

/// The name of the function that it stands in, as the test runner knows it.
macro_rules! here {
    () => {{
        fn here() {}
        let name = std::any::type_name_of_val(&here);
        let name = name.strip_suffix("::here").unwrap();
        name.split_once("::").unwrap().1
    }};
}

/// The claims named are tests in the tier that the kernel has and, one by one, without each kernel
/// interface that opm can do without, without all of them, and as a user who may do nothing.
macro_rules! in_every_tier {
    ($($claim:ident),* $(,)?) => {
        in_every_tier! { @tier full "" Root $($claim)* }
        in_every_tier! { @tier without_pidfd_inode "pidfd-inode" Root $($claim)* }
        in_every_tier! { @tier without_pgroup_signal "pgroup-signal" Root $($claim)* }
        in_every_tier! { @tier without_get_info "get-info" Root $($claim)* }
        in_every_tier! { @tier without_shared_memory "shared-memory" Root $($claim)* }
        in_every_tier! { @tier without_clone3 "clone3" Root $($claim)* }
        in_every_tier! { @tier without_namespace "time-namespace" Root $($claim)* }
        in_every_tier! {
            @tier without_all "pidfd-inode,pgroup-signal,get-info,clone3,time-namespace" Root
            $($claim)*
        }
        in_every_tier! { @tier as_nobody "" Nobody $($claim)* }
    };
    (@tier $tier:ident $without:literal $who:ident $($claim:ident)*) => {
        mod $tier {
            use crate::namespace::{Setting, User, isolated_in};
            $(
                #[test]
                fn $claim() {
                    let setting =
                        Setting { without: $without, user: User::$who, ..Setting::default() };
                    isolated_in(setting, here!(), super::$claim);
                }
            )*
        }
    };
}

/// The claims named are tests with each witness that opm may have, and without.
macro_rules! with_each_witness {
    ($($claim:ident),* $(,)?) => {
        in_every_tier! { @tier full "" Root $($claim)* }
        in_every_tier! { @tier without_namespace_handle "namespace-handle" Root $($claim)* }
        in_every_tier! { @tier without_time_namespace "time-namespace" Root $($claim)* }
        in_every_tier! { @tier as_nobody "" Nobody $($claim)* }
    };
}

/// Who runs opm.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum User {
    #[default]
    Root,
    Nobody,
}

/// What a test's world is like.
#[derive(Clone, Copy, Default)]
pub(crate) struct Setting {
    /// For `OPM_WITHOUT`.
    pub(crate) without: &'static str,
    pub(crate) user: User,
    /// An init that reaps so late: somebody else's zombies stay for a while.
    pub(crate) lazy_init_ms: u32,
    /// More time than others have.
    pub(crate) time: Option<Duration>,
}

/// Runs `test` in a namespace of its own.
pub(crate) fn isolated(name: &str, test: impl FnOnce(&Rig)) {
    isolated_in(Setting::default(), name, test);
}

/// Runs `test` in a namespace of its own, set up as `setting` says.
pub(crate) fn isolated_in(setting: Setting, name: &str, test: impl FnOnce(&Rig)) {
    if let Some(dir) = std::env::var_os(INSIDE) {
        let rig = Rig::new(Path::new(&dir), setting);
        test(&rig);
        rig.verdict();
        return;
    }
    static BUILT: Once = Once::new();
    BUILT.call_once(build_fixture);
    let dir = scratch();
    let output = dir.join("output");
    let file = std::fs::File::create(&output).unwrap();
    let mut command = unshare();
    command.arg(fixture()).arg("--init");
    if setting.lazy_init_ms > 0 {
        command.arg(format!("lazy:{}", setting.lazy_init_ms));
    }
    command
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, &dir)
        .stdin(Stdio::null())
        .stdout(file.try_clone().unwrap())
        .stderr(file);
    let deadline = Instant::now() + setting.time.unwrap_or(TIME_MAX);
    let mut child = command.spawn().expect("unshare(1) of util-linux");
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            break None;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let said = std::fs::read_to_string(&output).unwrap_or_default();
    assert!(
        status.is_none() || said.contains("running 1 test"),
        "{name} did not run in its namespace:\n{said}"
    );
    if status.is_some_and(|status| status.success()) {
        if std::env::var_os("OPM_REAL_ROUNDS").is_some() {
            // The figures of the long rounds.
            eprint!("{said}");
        }
        std::fs::remove_dir_all(&dir).unwrap();
        return;
    }
    let how = status.map_or("took too long".to_owned(), |status| status.to_string());
    let daemon = std::fs::read_to_string(dir.join("h/daemon.log")).unwrap_or_default();
    let lines: Vec<&str> = daemon.lines().collect();
    let last = lines[lines.len().saturating_sub(20)..].join("\n");
    panic!("{how}; see {}\n{said}\ndaemon.log:\n{last}", dir.display());
}

/// Short, since the path of a socket holds 107 bytes.
fn scratch() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let own = std::process::id();
    let dir = std::env::temp_dir().join(format!("opm-real-{own}-{number}"));
    std::fs::create_dir(&dir).unwrap();
    dir
}

/// A command in new PID and mount namespaces that die with it; in a user namespace if we aren't
/// root.
pub(crate) fn unshare() -> Command {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child"]);
    command
}

/// Where [`publish`] puts the programs.
const PUBLIC: &str = "/mnt";

/// Makes opm and the fixture executable for everybody, wherever they were built: in the mount
/// namespace of this test, so that nothing is left.
pub(crate) fn publish() {
    let mount = |args: &[&str]| {
        let status = Command::new("mount").args(args).status().unwrap();
        assert!(status.success(), "mount {args:?}");
    };
    let programs = [fixture(), PathBuf::from(env!("CARGO_BIN_EXE_opm"))];
    mount(&["-t", "tmpfs", "-o", "mode=755", "none", PUBLIC]);
    for program in programs {
        let public = Path::new(PUBLIC).join(program.file_name().unwrap());
        std::fs::write(&public, "").unwrap();
        mount(&["--bind", program.to_str().unwrap(), public.to_str().unwrap()]);
    }
}

/// The opm that is tested.
pub(crate) fn opm() -> PathBuf {
    let public = Path::new(PUBLIC).join("opm");
    if public.exists() { public } else { env!("CARGO_BIN_EXE_opm").into() }
}

/// target/PROFILE, where this test binary is.
fn profile() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.parent().and_then(Path::parent).unwrap().to_owned()
}

/// Asked for by `--tests` or `--test real`, cargo builds no examples: so we ask for ours.
fn build_fixture() {
    let profile = profile();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--offline", "--example", "misbehave"]);
    cargo.arg("--target-dir").arg(profile.parent().unwrap());
    if !profile.ends_with("debug") {
        cargo.arg("--profile").arg(profile.file_name().unwrap());
    }
    let status = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status();
    assert!(status.unwrap().success(), "cannot build the fixture");
}

/// The fixture.
pub(crate) fn fixture() -> PathBuf {
    let public = Path::new(PUBLIC).join("misbehave");
    if public.exists() {
        return public;
    }
    let path = profile().join("examples/misbehave");
    assert!(path.exists(), "{} is not built", path.display());
    path
}

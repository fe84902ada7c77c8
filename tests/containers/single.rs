//! One program in a container.

use crate::opm;
use crate::rig::{End, Live, eventually, exists, scratch};
use serde_json::{Value, json};
use std::process::Command;
use std::time::{Duration, Instant};

/// Mounts the overlay on $1/root and becomes the rest of the words.
const WITH_ROOT: &str = r#"
cd "$1" && shift && mount -t tmpfs none layers && mkdir layers/upper layers/work &&
mount -t overlay overlay -o lowerdir=/,upperdir=layers/upper,workdir=layers/work root &&
exec "$@"
"#;

pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) bundle: String,
}

impl Container {
    /// A container that runs these words; `adjust` changes its configuration.
    pub(crate) fn new(id: &str, words: &[&str], adjust: impl Fn(&mut Value)) -> Container {
        assert!(
            ["/usr/sbin/runc", "/usr/bin/runc"].iter().any(|path| exists(path)),
            "THE PACKAGE `runc` IS MISSING (apt-get install runc): containers can't be tested"
        );
        let bundle = scratch(id);
        for folder in ["root", "layers"] {
            std::fs::create_dir_all(format!("{bundle}/{folder}")).unwrap();
        }
        let made = Command::new("runc").args(["spec", "-b", &bundle]).status().unwrap();
        assert!(made.success(), "runc spec");
        let path = format!("{bundle}/config.json");
        let text = std::fs::read_to_string(&path).unwrap();
        let mut config: Value = serde_json::from_str(&text).unwrap();
        config["process"]["args"] = json!(words);
        config["process"]["terminal"] = json!(false);
        // This machine may lack CAP_SYS_RESOURCE.
        config["process"]["rlimits"] = json!([]);
        config["root"] = json!({"path": "root", "readonly": false});
        adjust(&mut config);
        std::fs::write(&path, config.to_string()).unwrap();
        Container { id: format!("opm-{}-{id}", std::process::id()), bundle }
    }

    fn words(&self) -> Vec<&str> {
        let runc = ["runc", "run", &self.id];
        [&["unshare", "-m", "sh", "-c", WITH_ROOT, "sh", &self.bundle], &runc[..]].concat()
    }

    pub(crate) fn start(&self) -> Live {
        Live::start(&self.words())
    }

    fn run(&self) -> End {
        self.start().end()
    }

    /// `runc kill`, as an engine's stop does; waits until there is a container to kill.
    pub(crate) fn kill(&self, signal: &str) {
        eventually("runc kill", || {
            let mut kill = Command::new("runc");
            let done = kill.args(["kill", &self.id, signal]).output().unwrap();
            done.status.success().then_some(())
        });
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let mut delete = Command::new("runc");
        // Gone already, unless the test failed.
        let _gone = delete.args(["delete", "--force", &self.id]).output();
        let _cleaned = std::fs::remove_dir_all(&self.bundle);
    }
}

fn shell<'a>(flags: &[&'a str], script: &'a str) -> Vec<&'a str> {
    [&[opm(), "init"], flags, &["sh", "-c", script]].concat()
}

#[test]
fn a_container_ends_with_its_programs_code() {
    for (name, script, code) in [
        ("exit0", "exit 0", 0),
        ("exit7", "exit 7", 7),
        ("signal", "kill -TERM $$", 143),
        ("missing", "exec /no/such", 127),
    ] {
        let end = Container::new(name, &shell(&[], script), |_| {}).run();
        assert_eq!(end.code, Some(code), "{end:?}");
    }
    let missing = Container::new("nothing", &[opm(), "init", "/no/such"], |_| {}).run();
    assert_eq!(missing.code, Some(127));
    let refused = Container::new("refused", &[opm(), "init", "/etc/passwd"], |_| {}).run();
    assert_eq!(refused.code, Some(126));
}

#[test]
fn it_is_pid_1_and_says_nothing_of_its_own() {
    let end = Container::new("first", &shell(&[], "echo $PPID"), |_| {}).run();
    assert_eq!((end.code, end.rest), (Some(0), vec!["1".to_owned()]));
}

#[test]
fn a_read_only_root_and_a_plain_user_are_no_obstacle() {
    let script = "id -u; touch /x 2>/dev/null || echo read-only; echo home=$HOME; exit 4";
    let words = [&["env", "-u", "HOME"][..], &shell(&[], script)].concat();
    let end = Container::new("plain", &words, |config| {
        config["root"]["readonly"] = json!(true);
        config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        config["process"]["env"] = json!(["PATH=/usr/bin:/bin"]);
        config["process"]["capabilities"] = json!({});
    })
    .run();
    assert_eq!(end.code, Some(4));
    assert_eq!(end.rest, ["1000", "read-only", "home="]);
}

#[test]
fn no_proc_is_no_obstacle() {
    let bundle = scratch("noproc");
    for folder in ["root", "layers"] {
        std::fs::create_dir_all(format!("{bundle}/{folder}")).unwrap();
    }
    let script = "[ -e /proc/self ] && exit 1; (sleep 60 &); echo $$; exit 5";
    let chroot = ["unshare", "-pf", "chroot", "root"];
    let setup = ["unshare", "-m", "sh", "-c", WITH_ROOT, "sh", &bundle];
    let end = Live::start(&[&setup[..], &chroot[..], &shell(&[], script)].concat()).end();
    std::fs::remove_dir_all(&bundle).unwrap();
    assert_eq!(end.code, Some(5), "{end:?}");
}

#[test]
fn a_stop_is_passed_on_and_ends_within_the_grace() {
    let script = r#"trap "echo bye; exit 0" TERM; echo up; while :; do sleep 0.1; done"#;
    let container = Container::new("polite", &shell(&[], script), |_| {});
    let live = container.start();
    live.expect("up");
    let began = Instant::now();
    container.kill("TERM");
    live.expect("bye");
    assert_eq!(live.end().code, Some(0));
    assert!(began.elapsed() < Duration::from_secs(3));
}

#[test]
fn a_program_that_ignores_term_ends_before_the_runtime_kills() {
    let script = r#"trap "" TERM; echo up; while :; do sleep 0.1; done"#;
    let container = Container::new("stubborn", &shell(&[], script), |_| {});
    let live = container.start();
    live.expect("up");
    let began = Instant::now();
    container.kill("TERM");
    assert_eq!(live.end().code, Some(137));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn what_the_program_leaves_is_told_and_waited_for() {
    let script = r#"setsid sh -c 'trap "sleep 0.2; echo bye; exit" TERM; echo set; while :; do sleep 0.1; done' &
        read x; exit 6"#;
    let container = Container::new("left", &shell(&[], script), |_| {});
    let mut live = container.start();
    live.expect("set");
    live.write("go\n");
    live.expect("bye");
    assert_eq!(live.end().code, Some(6));
}

#[test]
fn a_storm_of_orphans_leaves_no_zombie() {
    let storm = r#"i=0; while [ $i -lt 3000 ]; do (true & true &) ; i=$((i+1)); done
        while :; do set -- /proc/[0-9]*; [ $# -le 2 ] && break; sleep 0.1; done; echo left $#"#;
    let container = Container::new("storm", &shell(&[], storm), |_| {});
    let end = container.start().end_within(Duration::from_secs(90));
    assert_eq!((end.code, end.rest), (Some(0), vec!["left 2".to_owned()]));
}

const JOB: &str = "
import os, signal
signal.signal(signal.SIGINT, signal.SIG_DFL)
signal.signal(signal.SIGCONT, lambda *_: os.write(1, b'co' + b'nt\\n'))
os.write(1, b'u' + b'p\\n')
while True: signal.pause()
";

#[test]
fn a_shell_on_a_terminal_has_job_control() {
    let words = [opm(), "init", "bash", "--norc", "--noprofile", "-i"];
    let container = Container::new("tty", &words, |config| {
        config["process"]["terminal"] = json!(true);
        config["process"]["env"] = json!(["PATH=/usr/bin:/bin", "TERM=dumb"]);
    });
    let quoted: Vec<String> = container.words().iter().map(|word| quote(word)).collect();
    let line = quoted.join(" ");
    let mut live = Live::start(&["script", "-qefc", &line, "/dev/null"]);
    live.write("PS1=; echo re''ady\n");
    let seen = live.seek("ready", Duration::from_secs(20));
    assert!(seen.is_ok(), "{seen:?}");
    // It says so when it is continued, which bash does once it is in front again. No shell that
    // loops over a sleep: stopped within vfork, it would never be seen as stopped.
    live.write("cat >/job <<'END'\n");
    live.write(JOB);
    live.write("END\n");
    let job = "python3 -S /job";
    live.write(&format!("{job}\n"));
    live.expect("up");
    live.write("\x1a");
    live.expect("Stopped");
    live.write("fg\n");
    live.expect("cont");
    live.write("\x03");
    live.write("echo code=$?\n");
    live.expect("code=130");
    live.write("exit 7\n");
    assert_eq!(live.end().code, Some(7));
}

fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

//! Orphans, and what the program leaves behind. As PID 1 of a namespace, where that matters.

use crate::rig::{Live, OPM, Reach, child_of, children, compare, eventually, run, state};
use std::time::Duration;

const FIRST: [&str; 3] = ["unshare", "-pf", "--mount-proc"];

fn as_first<'a>(init: &[&'a str], words: &[&'a str]) -> Vec<&'a str> {
    [&FIRST, init, words].concat()
}

/// Starts one that says `bye` at TERM, in a session of its own, and exits 3 once it stands.
const POLITE: &str = r#"setsid sh -c 'trap "sleep 0.2; echo bye; exit" TERM; echo set; while :; do sleep 0.1; done' & read x; exit 3"#;
const STUBBORN: &str =
    r#"setsid sh -c 'trap "" TERM; echo set; while :; do sleep 0.1; done' & read x; exit 3"#;

fn leave(words: &[&str]) -> (crate::rig::End, Duration) {
    let mut live = Live::start(words);
    live.expect("set");
    let began = std::time::Instant::now();
    live.write("go\n");
    let end = live.end();
    (end, began.elapsed())
}

#[test]
fn what_is_left_gets_term_and_is_waited_for() {
    let answer = compare("the program exits, others live", Reach::Group, |init| {
        let (end, _) = leave(&as_first(init, &["sh", "-c", POLITE]));
        format!("{}, bye {}", end.answer(), end.rest.iter().any(|line| line == "bye"))
    });
    assert_eq!(answer, "3, bye true");
    // As a subreaper, too: not PID 1.
    let (end, _) = leave(&[OPM, "init", "-s", "sh", "-c", POLITE]);
    assert!(end.code == Some(3) && end.rest.iter().any(|line| line == "bye"), "{end:?}");
}

#[test]
fn what_ignores_term_is_killed_when_the_grace_is_over() {
    let grace = [OPM, "init", "-s", "--grace", "700ms", "sh", "-c", STUBBORN];
    for words in [as_first(&grace, &[]), grace.to_vec()] {
        let (end, took) = leave(&words);
        assert_eq!(end.code, Some(3));
        assert!(took >= Duration::from_millis(700), "{took:?}");
        assert!(took < Duration::from_millis(5000), "{took:?}");
    }
}

#[test]
fn a_grace_of_0_says_term_and_goes() {
    let (end, took) = leave(&as_first(&[OPM, "init", "--grace", "0"], &["sh", "-c", STUBBORN]));
    assert_eq!(end.code, Some(3));
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn with_c_what_is_left_is_let_be() {
    let mut live = Live::start(&[OPM, "init", "-s", "-c", "sh", "-c", POLITE]);
    live.expect("set");
    let child = child_of(live.pid());
    let orphan = child_of(child);
    live.write("go\n");
    let (code, _sweep) = live.leave();
    assert_eq!(code, Some(3));
    assert!(!matches!(state(orphan), 'Z' | 'X'));
}

#[test]
fn without_a_subreaper_the_group_is_ended() {
    let script = r#"sh -c 'trap "echo bye; exit" TERM; echo set; while :; do sleep 0.1; done' & read x; exit 3"#;
    let (end, _) = leave(&[OPM, "init", "sh", "-c", script]);
    assert_eq!(end.code, Some(3));
    assert!(end.rest.contains(&"bye".to_owned()), "{end:?}");
}

#[test]
fn stopped_leftovers_see_the_term_too() {
    let script = r#"setsid sh -c 'trap "echo bye; exit" TERM; echo set; kill -STOP $$; sleep 60' & read x; exit 3"#;
    let (end, took) = leave(&as_first(&[OPM, "init"], &["sh", "-c", script]));
    assert!(end.code == Some(3) && end.rest.iter().any(|line| line == "bye"), "{end:?}");
    assert!(took < Duration::from_secs(5));
}

#[test]
fn a_program_that_ignores_term_is_killed_before_docker_would() {
    let script = r#"trap "" TERM; echo up; while :; do sleep 0.1; done"#;
    let live = Live::start(&[OPM, "init", "-s", "sh", "-c", script]);
    live.expect("up");
    let began = std::time::Instant::now();
    live.kill("TERM");
    assert_eq!(live.end().code, Some(137));
    let took = began.elapsed();
    assert!(took > Duration::from_secs(7) && took < Duration::from_millis(9900), "{took:?}");
}

/// Ignores TERM, and blocks it but for a moment now and then, as a shell does that starts one
/// command after the other.
const BLINKING: &str = "
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    time.sleep(0.3)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
    time.sleep(0.003)
    print('up', flush=True)
";

/// Ignores TERM too, but blocks it for good and reads it from a descriptor.
const READING: &str = "
import ctypes, os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
fd = ctypes.CDLL(None).signalfd(-1, (ctypes.c_ulong * 16)(1 << signal.SIGTERM - 1), 0)
print('up', flush=True)
os.read(fd, 128)
print('handled', flush=True)
while True: time.sleep(60)
";

#[test]
fn a_program_that_ignores_term_is_killed_whatever_it_blocks_just_then() {
    let init = [OPM, "init", "-s"];
    let spawning = r#"trap "" TERM; echo up; while :; do /bin/true; done"#;
    let programs = [["python3", "-c", BLINKING], ["sh", "-c", spawning]];
    let lives: Vec<Live> = [programs, programs]
        .as_flattened()
        .iter()
        .map(|program| {
            let live = Live::start(&[&init[..], program].concat());
            live.expect("up");
            live
        })
        .collect();
    lives.iter().for_each(|live| live.kill("TERM"));
    for live in lives {
        assert_eq!(live.end_within(Duration::from_secs(20)).code, Some(137));
    }
}

#[test]
fn a_program_that_handles_term_is_not_killed_unless_a_grace_was_asked_for() {
    let script = r#"trap "echo handled" TERM; echo up; while :; do sleep 0.1; done"#;
    let init = [OPM, "init", "-s", "-c"];
    let programs = [["sh", "-c", script], ["python3", "-c", READING]];
    let mut patient = programs.map(|program| Live::start(&[&init[..], &program].concat()));
    let bounded = Live::start(&[&init[..], &["--grace=1s", "sh", "-c", script]].concat());
    for live in patient.iter().chain([&bounded]) {
        live.expect("up");
        live.kill("TERM");
    }
    patient.iter().for_each(|live| drop(live.expect("handled")));
    assert_eq!(bounded.end().code, Some(137));
    // Not a hope: the claim is that nothing happens for longer than the default grace.
    std::thread::sleep(Duration::from_secs(9));
    for live in &mut patient {
        assert!(live.is_alive());
        live.kill("KILL");
        eventually("the init is gone", || (!live.is_alive()).then_some(()));
    }
}

/// Members of a group, one in a session of its own, and one that only a TERM brings into being;
/// each takes the first TERM for "put your data away" and says how many came in all.
const COUNTING: &str = "
import os, signal, sys
counted = [signal.SIGTERM, signal.SIGQUIT, signal.SIGCONT]
signal.pthread_sigmask(signal.SIG_BLOCK, counted)
def count(name):
    got = []
    while taken := signal.sigtimedwait(counted, 0.7 if set(got) - {18} else 60):
        got.append(taken.si_signo)
    os.write(1, b'%s: %s\\n' % (name, b' '.join(b'%d' % number for number in got)))
    os._exit(0)
if os.fork() == 0: count(b'member')
if os.fork() == 0: os.setsid(); os.write(1, b'up\\n'); count(b'elsewhere')
go = int(sys.argv[1])
if go:
    signal.sigwait([go])
else:
    sys.stdin.readline()
if os.fork() == 0: count(b'newcomer')
sys.exit(3)
";

/// What each of them got, when the program exits of itself (0) or of a signal that `init` gets.
fn counted(init: &[&str], go: &str) -> Vec<String> {
    let mut live = Live::start(&[init, &["python3", "-c", COUNTING, go]].concat());
    live.expect("up");
    match (go, init[0]) {
        ("0", _) => live.write("go\n"),
        (_, "unshare") => crate::rig::kill(child_of(live.pid()), "TERM"),
        _ => live.kill("TERM"),
    }
    let end = live.end();
    assert_eq!(end.code, Some(3), "{end:?}");
    let mut got: Vec<String> = end.rest.into_iter().filter(|line| line.contains(": ")).collect();
    got.retain(|line| !line.starts_with("opm: "));
    got.sort();
    got
}

#[test]
fn one_stop_is_one_term_for_each_and_what_is_not_stopped_is_not_continued() {
    let all = ["elsewhere: 15", "member: 15", "newcomer: 15"];
    for go in ["0", "15"] {
        assert_eq!(counted(&as_first(&[OPM, "init"], &[]), go), all, "PID 1, {go}");
        assert_eq!(counted(&[OPM, "init", "-s"], go), all, "subreaper, {go}");
        // Who is elsewhere is out of its reach.
        assert_eq!(counted(&[OPM, "init"], go), all[1..], "neither, {go}");
    }
}

#[test]
fn a_rewritten_stop_is_the_one_stop_but_for_who_ignores_it() {
    let rewritten = [OPM, "init", "-s", "-r", "TERM:QUIT"];
    let all = ["elsewhere: 15", "member: 3", "newcomer: 15"];
    assert_eq!(counted(&rewritten, "3"), all);
    // A shell's background job ignores QUIT.
    let job = r#"sh -c 'trap "echo job; exit" TERM; echo up; sleep 60 & wait' & exec sleep 60"#;
    let live = Live::start(&[&rewritten[..], &["sh", "-c", job]].concat());
    live.expect("up");
    live.kill("TERM");
    live.expect("job");
    assert_eq!(live.end().code, Some(131));
}

#[test]
fn without_proc_nobody_is_told_twice_before_the_last_second() {
    let script = r#"mount -t tmpfs none /proc && exec "$@""#;
    let init = ["unshare", "-pfm", "sh", "-c", script, "sh", OPM, "init", "--grace", "4s"];
    // Who is not stopped can't be told, so all are continued.
    let got: Vec<String> =
        counted(&init, "15").iter().map(|line| line.replace(" 18", "")).collect();
    assert_eq!(got, ["elsewhere: 15", "member: 15", "newcomer: 15"]);
}

#[test]
fn a_term_that_comes_while_what_is_left_ends_is_not_another_stop() {
    let script = r#"setsid python3 -c "$1" 0 & read x; exit 3"#;
    let program = COUNTING.replace("sys.stdin.readline()", "count(b'leader')");
    let mut live = Live::start(&[OPM, "init", "-s", "sh", "-c", script, "sh", &program]);
    live.expect("up");
    let program = child_of(live.pid());
    live.write("go\n");
    // Then its leader is asked, and the two others when that has gone.
    eventually("the program is reaped", || (state(program) == 'X').then_some(()));
    live.kill("TERM");
    let end = live.end();
    assert_eq!(end.code, Some(3));
    let mut got: Vec<String> = end.rest.into_iter().filter(|line| line.contains(": ")).collect();
    got.sort();
    assert_eq!(got, ["elsewhere: 15", "leader: 15", "member: 15"]);
}

/// Makes orphans as fast as fork goes and then counts what is left of them.
const STORM: &str = "
import os, sys, time
begin = time.monotonic()
for _ in range(int(sys.argv[1])):
    pid = os.fork()
    if pid == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    os.waitpid(pid, 0)
took = time.monotonic() - begin
deadline = time.monotonic() + 15
while time.monotonic() < deadline:
    pids = [pid for pid in os.listdir('/proc') if pid.isdigit()]
    if len(pids) == 2:
        break
print('left', len(pids) - 2, 'rate', int(int(sys.argv[1]) / took), flush=True)
";

#[test]
fn a_storm_of_orphans_leaves_no_zombie() {
    let answer = compare("zombies after 5,000 orphans", Reach::Group, |init| {
        let words = as_first(init, &["python3", "-S", "-c", STORM, "5000"]);
        let end = Live::start(&words).end_within(Duration::from_secs(90));
        end.rest.join(" ")
    });
    assert!(answer.starts_with("left 0 "), "{answer}");
}

#[test]
fn thousands_of_orphans_at_once_are_reaped_and_signals_still_pass() {
    let program = "
import os, signal, sys
signal.signal(signal.SIGUSR1, lambda *_: print('usr1', flush=True))
gate = os.pipe()
if os.fork() == 0:
    for _ in range(3000):
        if os.fork() == 0:
            os.close(gate[1]); os.read(gate[0], 1); os._exit(0)
    os._exit(0)
os.wait()
print('ready', flush=True)
os.close(gate[1])
while len([pid for pid in os.listdir('/proc') if pid.isdigit()]) > 2: pass
print('none left', flush=True)
signal.pause()
";
    let live = Live::start(&as_first(&[OPM, "init"], &["python3", "-S", "-c", program]));
    live.expect("ready");
    let init = child_of(live.pid());
    crate::rig::kill(init, "USR1");
    live.expect("usr1");
    live.expect("none left");
    crate::rig::kill(init, "KILL");
}

#[test]
fn reaped_orphans_are_named_on_request() {
    // It is gone from /proc once it has been reaped.
    let script = "pid=$(sh -c 'sleep 0.1 >&- & echo $!')
        while [ -e /proc/$pid ]; do sleep 0.01; done; echo $pid";
    let end = run(&as_first(&[OPM, "init", "-w"], &["sh", "-c", script]));
    let pid = end.rest.iter().find(|line| line.parse::<u32>().is_ok()).unwrap();
    let line = format!("opm: Reaped zombie process with pid={pid}");
    assert!(end.rest.contains(&line), "{end:?}");
}

#[test]
fn nothing_but_the_program_is_started() {
    let live = Live::start(&[OPM, "init", "-s", "sh", "-c", "echo up; exec sleep 60"]);
    live.expect("up");
    assert_eq!(children(live.pid()).len(), 1);
    let threads = std::fs::read_dir(format!("/proc/{}/task", live.pid())).unwrap().count();
    assert_eq!(threads, 1);
}

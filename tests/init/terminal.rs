//! Terminals and job control, each in a pseudo-terminal that `script` makes.

use crate::rig::{Live, OPM, Reach, child_of, children, compare, eventually, stat, state, within};
use std::time::Duration;

/// Runs a shell command in a terminal of its own; `write` types.
fn in_terminal(command: &str) -> Live {
    Live::start(&["env", "SHELL=/bin/sh", "TERM=dumb", "script", "-qefc", command, "/dev/null"])
}

/// An interactive bash in a terminal; the pid is the bash's.
fn in_bash() -> (Live, i32) {
    let mut live = in_terminal("exec bash --norc --noprofile -i");
    live.write("PS1=; echo re''ady\n");
    live.expect("ready");
    let bash = child_of(live.pid());
    (live, bash)
}

fn group(pid: i32) -> Option<String> {
    stat(pid, 2)
}

/// What it runs.
fn name(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default()
}

/// Whether the process's group is in the foreground of its terminal.
fn is_in_front(pid: i32) -> bool {
    stat(pid, 5).is_some_and(|front| Some(front) == group(pid))
}

#[test]
fn an_interrupt_from_the_terminal_arrives_once() {
    for (reach, name) in [(Reach::Group, "^C, group"), (Reach::Child, "^C, child")] {
        let count = compare(name, reach, |init| {
            let program = r#"'trap "echo got" INT; echo u""p; while :; do sleep 0.1; done'"#;
            let mut live = in_terminal(&format!("{} sh -c {program}", init.join(" ")));
            live.expect("up");
            live.write("\x03");
            let mut count = i32::from(live.seek("got", Duration::from_secs(5)).is_ok());
            count += i32::from(live.seek("got", Duration::from_millis(700)).is_ok());
            count.to_string()
        });
        assert_eq!(count, "1");
    }
}

#[test]
fn a_job_can_be_stopped_and_brought_back() {
    let answer = compare("^Z, fg, ^C in a shell", Reach::Group, |init| {
        let (mut live, bash) = in_bash();
        live.write(&format!("{} sh -c \"echo u''p; exec sleep 60\"\n", init.join(" ")));
        live.expect("up");
        let job = child_of(bash);
        let program = child_of(job);
        live.write("\x1a");
        let stopped = live.seek("Stopped", Duration::from_secs(4)).is_ok();
        if !stopped {
            crate::rig::kill(program, "KILL");
            return "not told of the stop".to_owned();
        }
        live.write("fg\n");
        let back = within(Duration::from_secs(4), &mut || {
            (state(program) == 'S' && state(job) == 'S' && is_in_front(program)).then_some(())
        });
        live.write("\x03");
        live.write("echo code=$?\n");
        let code = live.seek("code=1", Duration::from_secs(4)).unwrap_or_default();
        crate::rig::kill(program, "KILL");
        format!("stopped, in front again {}, {code}", back.is_some())
    });
    assert_eq!(answer, "stopped, in front again true, code=130");
}

#[test]
fn a_background_job_does_not_take_the_terminal_and_gets_it_when_it_reads_after_fg() {
    let answer = compare("started in the background", Reach::Group, |init| {
        let flag = crate::rig::scratch("flag");
        let (mut live, bash) = in_bash();
        let program = format!("echo u''p; until [ -e {flag} ]; do :; done; read x; echo got=\\$x");
        live.write(&format!("{} sh -c \"{program}\" &\n", init.join(" ")));
        live.expect("up");
        let job = child_of(bash);
        let program = child_of(job);
        let steals = is_in_front(program);
        live.write("fg\n");
        // The shell says nothing to a job that runs: no CONT comes.
        let front = || (is_in_front(job) || is_in_front(program)).then_some(());
        let in_front = within(Duration::from_secs(3), &mut { front }).is_some();
        std::fs::write(&flag, "").unwrap();
        live.write("hello\n");
        let reads = live.seek("got=hello", Duration::from_secs(3)).is_ok();
        std::fs::remove_file(&flag).unwrap();
        crate::rig::kill(program, "KILL");
        format!("steals the foreground {steals}, reads after fg {}", in_front && reads)
    });
    assert_eq!(answer, "steals the foreground false, reads after fg true");
}

#[test]
fn a_background_read_stops_the_job_as_a_shell_expects() {
    let (mut live, bash) = in_bash();
    live.write(&format!("{OPM} init -s cat &\n"));
    let job = child_of(bash);
    let program = child_of(job);
    eventually("both stop", || (state(job) == 'T' && state(program) == 'T').then_some(()));
    live.write("fg\n");
    eventually("both run", || (state(job) == 'S' && state(program) == 'S').then_some(()));
    live.write("hello\n");
    // The terminal's echo, and cat's.
    live.expect("hello");
    live.expect("hello");
    live.write("\x04");
    live.write("echo code=$?\n");
    live.expect("code=0");
}

#[test]
fn the_terminal_returns_to_the_script_around_it() {
    let answer = compare("a script reads on afterwards", Reach::Group, |init| {
        let script = format!("{} true; read x; echo read=$x; exit", init.join(" "));
        let mut live = in_terminal(&script);
        live.write("hello\n");
        live.seek("read=hello", Duration::from_secs(3)).unwrap_or("hangs or fails".to_owned())
    });
    assert_eq!(answer, "read=hello");
}

/// As a container's PID 1 is: leader of the terminal's session.
fn as_first(init: &[&str], program: &str) -> Live {
    let init = init.join(" ");
    in_terminal(&format!("exec unshare -pf --mount-proc setsid -c {init} {program}"))
}

#[test]
fn a_shell_under_pid_1_has_job_control() {
    let answer = compare("bash -i under PID 1", Reach::Group, |init| {
        let mut live = as_first(init, "bash --norc --noprofile -i");
        live.write("PS1=; echo re''ady\n");
        let ready = live.seek("ready", Duration::from_secs(5));
        live.write("sleep 60 | cat\n");
        // ^Z before the job is in front would be bash's own, and before its exec it is ignored:
        // so bash has it, and its children too at first.
        let bash = child_of(child_of(child_of(live.pid())));
        eventually("the job", || (children(bash).len() == 2).then_some(()));
        eventually("in front", || {
            children(bash)
                .iter()
                .all(|pid| is_in_front(*pid) && name(*pid) != name(bash))
                .then_some(())
        });
        live.write("\x1a");
        let stopped = live.seek("Stopped", Duration::from_secs(4)).is_ok();
        // The first is answered with a remark about stopped jobs.
        live.write("exit 7\nexit 7\n");
        let end = live.end_within(Duration::from_secs(20));
        format!("up {}, ^Z {stopped}, exits {}", ready.is_ok(), end.answer())
    });
    assert_eq!(answer, "up true, ^Z true, exits 7");
}

#[test]
fn a_stop_that_nobody_could_undo_is_undone() {
    let answer = compare("^Z under PID 1, no shell", Reach::Group, |init| {
        let mut live = as_first(init, "sh -c \"echo u''p; exec cat\"");
        live.expect("up");
        live.write("\x1a");
        live.write("hello\n");
        let echoes = (0..2).filter(|_| live.seek("hello", Duration::from_secs(2)).is_ok());
        (echoes.count() == 2).to_string()
    });
    assert_eq!(answer, "true");
}

/// In a PID namespace on the terminal of a shell outside, which neither leads nor sees.
fn in_namespace(init: &[&str], program: &str) -> String {
    format!("unshare -pf --mount-proc {} {program}", init.join(" "))
}

#[test]
fn in_a_namespace_on_somebody_elses_terminal_the_program_has_the_foreground() {
    for (reach, name) in [(Reach::Group, "group"), (Reach::Child, "child")] {
        let answer = compare(&format!("a shell's terminal, {name}"), reach, |init| {
            let program = r#"sh -c 'echo u""p; read x; echo got=$x; read x; echo got=$x'"#;
            let mut live = in_terminal(&in_namespace(init, program));
            live.expect("up");
            live.write("one\n");
            let first = live.seek("got=one", Duration::from_secs(3)).is_ok();
            // Nobody outside can resume it, so it isn't stopped either.
            live.write("\x1a");
            live.write("two\n");
            let second = live.seek("got=two", Duration::from_secs(3)).is_ok();
            format!("reads {first}, after ^Z {second}")
        });
        assert_eq!(answer, "reads true, after ^Z true");
    }
}

#[test]
fn in_a_namespace_in_the_background_the_program_has_not_the_foreground() {
    let (mut live, bash) = in_bash();
    // Only the standard error is the terminal, open for writing alone.
    let shell = r#"sh -c "echo u''p >&2; exec sleep 60" </dev/null >/dev/null 2>$T"#;
    live.write("T=$(tty)\n");
    let command = in_namespace(&[OPM, "init"], shell);
    live.write(&format!("{command} &\n"));
    live.expect("up");
    let unshare = child_of(bash);
    let program = child_of(child_of(unshare));
    assert!(!is_in_front(program));
    assert!(is_in_front(bash));
    crate::rig::kill(program, "KILL");
    // And in front.
    live.write(&format!("{command}\n"));
    live.expect("up");
    eventually("in front", || {
        let unshare = children(bash).into_iter().find(|pid| *pid != unshare)?;
        is_in_front(child_of(child_of(unshare))).then_some(())
    });
    live.write("\x03");
    live.write("echo code=$?\n");
    live.expect("code=130");
}

#[test]
fn a_late_init_does_not_take_the_foreground_from_a_job_of_the_program() {
    let strace = "strace -qq -o /dev/null -e trace=setpgid -e inject=setpgid:delay_exit=700000";
    let shell = r#"bash --norc -mc 'sh -c "echo u\"\"p; read x"; exit 4'"#;
    let mut live = in_terminal(&format!("{strace} {OPM} init -s -v -- {shell}"));
    live.expect("up");
    // Said when nothing of the start is left to do.
    live.expect("runs bash");
    let bash = eventually("the program", || {
        let mut pid = live.pid();
        while name(pid) != "bash\n" {
            pid = *children(pid).first()?;
        }
        Some(pid)
    });
    assert!(is_in_front(child_of(bash)));
    live.write("go\n");
    live.expect("code 4");
}

#[test]
fn a_hangup_reaches_the_program() {
    let mut live = as_first(&[OPM, "init"], r#"sh -c "echo u''p; read x; exec sleep 60""#);
    live.expect("up");
    live.write("go\n");
    let first = child_of(child_of(live.pid()));
    let program = child_of(first);
    // script holds the terminal's other side: without it the kernel hangs up.
    live.kill("KILL");
    eventually("the program ends", || (state(program) == 'X').then_some(()));
}

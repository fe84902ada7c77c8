//! PID 1: `opm init` runs one program, and nothing else than it.
//!
//! The way through: [`args`] says what is asked, [`start`] prepares this process and forks,
//! [`watch`] passes signals on and reaps until the program is gone, [`survivors`] ends what it
//! left behind. There is one loop over one wait for one signal at a time; nothing ticks while
//! nothing happens. It must never touch clap, serde or an event loop, never read /proc on the way
//! to the program's exec, and never fail for the lack of a terminal, a HOME or a writable file
//! system.
//!
//! Several services under one PID 1 are `opm run` ([`crate::run`]), which stands on the daemon and
//! shares nothing with this.
pub mod args;
mod processes;
mod start;
mod survivors;
mod watch;

use crate::sys::describe;
use crate::sys::entry::Inherited;
use crate::sys::writer::is_writable;
use args::Answer;
use rustix::stdio::stderr;
use std::ffi::OsString;
use std::fmt::Arguments;
use std::io::Write;

/// No arguments, as everywhere in opm.
const EXIT_USAGE: u8 = 2;
/// What tini gives for an option that it doesn't know.
const EXIT_FAILED: u8 = 1;

const USAGE: &str = "usage: opm init [option ...] [--] program [argument ...]";

const HELP: &str = "
Runs one program, passes signals on to it, reaps every orphan, and exits with its code.

  -c, --single-child        signals reach the program alone, not its group; what it leaves
                            behind is neither signalled nor waited for
  -e, --remap-exit N        exit code N becomes 0 (repeatable)
  -g, --group               signals reach the program's group (this is how it is anyway)
      --grace DURATION      how long what the program leaves behind has between TERM and KILL
                            (8s); given explicitly it also bounds the whole stop after a TERM;
                            0: TERM, and exit at once
  -h, --help                this text
  -p, --pdeathsig SIGNAL    what to be sent when the parent dies
  -r, --rewrite FROM:TO     a signal becomes another one; FROM:0 drops it (repeatable)
  -s, --subreaper           reap orphans even if this is not PID 1 (also by TINI_SUBREAPER or
                            OPM_SUBREAPER in the environment)
  -v, --verbose             say what happens; repeat for more
  -V, --version             the version
  -w, --warn-reap           say what is reaped

Exit: the program's code; 128+N if signal N ended it; 127 not found; 126 not executable;
1 unknown option; 2 nothing to run. See opm-init(1).
";

/// Says what `opm init` takes; the exit code.
pub fn help() -> u8 {
    tell(&format!("{USAGE}\n{HELP}"))
}

/// Runs what the words after `init` say; the exit code. Every signal must be blocked.
pub fn init(words: &[OsString], inherited: &Inherited) -> u8 {
    let (options, program) = match args::parse(words) {
        Ok(parsed) => parsed,
        Err(Answer::Help) => return help(),
        Err(Answer::Version) => return tell(concat!("opm ", env!("CARGO_PKG_VERSION"), "\n")),
        Err(Answer::Nothing) => {
            say(format_args!("{USAGE} (see 'opm init -h')"));
            return EXIT_USAGE;
        }
        Err(Answer::Wrong(complaint)) => {
            say(format_args!("{complaint}"));
            return EXIT_FAILED;
        }
    };
    match start::start(options, program, *inherited) {
        Ok(watch) => watch.until_the_end(),
        Err(errno) => {
            let (name, why) = (program[0].to_string_lossy(), describe(errno));
            say(format_args!("cannot fork for {name}: {why}"));
            EXIT_FAILED
        }
    }
}

/// Writes to stdout what was asked for. Whoever has closed it doesn't want it.
fn tell(text: &str) -> u8 {
    std::io::stdout().write_all(text.as_bytes()).ok();
    0
}

/// Writes `opm: …` and a newline to stderr, cut where it is too long, or drops it if stderr would
/// block: a PID 1 whose log pipe is full must go on reaping.
fn say(text: Arguments<'_>) {
    /// Below PIPE_BUF: lines of several writers don't mix, and POLLOUT promises room.
    const LINE_BYTES_MAX: usize = 512;
    let mut line = format!("opm: {text}").into_bytes();
    line.truncate(LINE_BYTES_MAX - 1);
    line.push(b'\n');
    if is_writable(stderr(), 0) {
        rustix::io::write(stderr(), &line).ok();
    }
}

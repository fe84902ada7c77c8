//! PID 1: `opm init` runs one program, and nothing else than it.
//!
//! The way through: [`args`] says what is asked, [`start`] prepares this process and forks,
//! [`watch`] passes signals on and reaps until the program is gone, [`left`] ends what it left
//! behind. There is one loop over one wait for one signal at a time; nothing ticks while nothing
//! happens. It must never touch clap, serde or an event loop, never read /proc on the way to the
//! program's exec, and never fail for the lack of a terminal, a HOME or a writable file system.
//!
//! Several services under one PID 1 are `opm run` ([`run`]), which stands on the daemon and shares
//! nothing with this.

mod args;
mod left;
mod output;
mod prefix;
pub mod run;
mod signals;
mod start;
mod told;
mod watch;

use crate::sys::describe;
use crate::sys::pid1::{Entry, Words, say, tell};
use args::Instead;

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
    tell(USAGE);
    tell("\n");
    tell(HELP);
    0
}

/// Runs what the words after `init` say; the exit code. Everything is blocked from here on, so
/// this is for a process that does nothing else.
pub fn init(mut words: Words) -> u8 {
    let entry = Entry::hold();
    let options = match args::parse(&mut words) {
        Ok(options) => options,
        Err(Instead::Help) => return help(),
        Err(Instead::Version) => {
            tell(concat!("opm ", env!("CARGO_PKG_VERSION"), "\n"));
            return 0;
        }
        Err(Instead::Nothing) => {
            say(format_args!("{USAGE} (see 'opm init -h')"));
            return EXIT_USAGE;
        }
        Err(Instead::Wrong(complaint)) => {
            say(format_args!("{complaint}"));
            return EXIT_FAILED;
        }
    };
    match start::start(options, &words, &entry) {
        Ok(watch) => watch.until_the_end(),
        Err(errno) => {
            let why = describe(errno);
            say(format_args!("cannot fork for {}: {why}", words.name()));
            EXIT_FAILED
        }
    }
}

//! The doors: `init` and the daemon branch off before clap is touched, so that what lives
//! long pays for nothing of the command line.
use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

opm::first_instant!();

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1).peekable();
    if args.next_if(|word| word == OsStr::new("init")).is_some() {
        return ExitCode::from(opm::init::init(args));
    }
    let words: Vec<OsString> = args.collect();
    let first: Vec<Option<&str>> = words.iter().take(4).map(|word| word.to_str()).collect();
    ExitCode::from(match first.as_slice() {
        [Some("daemon"), Some("start"), Some("--foreground")] => match opm::cli::home_or_complain()
        {
            Ok(home) => opm::daemon::door(&home),
            Err(code) => code,
        },
        [Some("run"), ..] => match opm::cli::order_or_complain(&words[1..]) {
            Ok(order) => opm::init::run::run(order),
            Err(code) => code,
        },
        // The one command that clap doesn't know.
        [Some("help"), Some("init"), ..] => opm::init::init(std::iter::once("--help".into())),
        [Some("daemon"), Some("self-check")] => opm::daemon::self_check(),
        _ => opm::cli::main(words),
    })
}

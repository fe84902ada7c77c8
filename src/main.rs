//! The doors: `init` branches off before `main`, the daemon before clap is touched, so that what
//! lives long pays for nothing of the command line.
use std::ffi::OsString;
use std::process::ExitCode;

opm::first_instant!(opm::init::init);

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let first: Vec<Option<&str>> = words.iter().take(4).map(|word| word.to_str()).collect();
    ExitCode::from(match first.as_slice() {
        [Some("daemon"), Some("start"), Some("--foreground")] => match opm::cli::home_or_complain()
        {
            Ok(home) => opm::daemon::door(&home, false),
            Err(code) => code,
        },
        [Some("run"), ..] => match opm::cli::order_or_complain(&words[1..]) {
            Ok(order) => opm::init::run::run(order),
            Err(code) => code,
        },
        // The one command that clap doesn't know.
        [Some("help"), Some("init"), ..] => opm::init::help(),
        [Some("daemon"), Some("self-check")] => opm::daemon::self_check(),
        _ => opm::cli::main(words),
    })
}

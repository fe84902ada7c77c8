//! The doors: `init` and the daemon branch off before clap is touched, so that what lives
//! long pays for nothing of the command line.
use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let first: Vec<Option<&str>> = words.iter().take(4).map(|word| word.to_str()).collect();
    ExitCode::from(match first.as_slice() {
        [Some("daemon"), Some("start"), Some("--foreground")] => match opm::cli::home_or_complain()
        {
            Ok(home) => opm::daemon::door(&home),
            Err(code) => code,
        },
        _ => opm::cli::main(words),
    })
}

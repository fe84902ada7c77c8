//! The doors: `opm init` branches off before anything is allocated for the others.
use std::ffi::OsStr;
use std::process::ExitCode;

opm::first_instant!();

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1).peekable();
    if args.next_if(|word| word == OsStr::new("init")).is_some() {
        return ExitCode::from(opm::init::init(args));
    }
    ExitCode::SUCCESS
}

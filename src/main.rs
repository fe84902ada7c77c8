//! The way in: the C library's `main`, and which part of opm the words are for. What lives long,
//! `opm init`, the daemon and `opm run`, pays for nothing of the command line.
//!
//! There is no `main` of the standard library's kind, for the start-up in front of that comes too
//! early for `opm init` ([`opm::sys::entry`]).
#![no_main]
use opm::sys::entry;
use opm::sys::signals::{ALL, Mask, set_mask};
use std::ffi::{OsString, c_char, c_int};

/// Where the C library's start-up goes. What it gives is the exit code.
// SAFETY: this is the `main` that the C library wants, and the only one.
#[unsafe(no_mangle)]
extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    let mask = set_mask(ALL);
    // SAFETY: the C library hands over the kernel's argc and argv, which stay for ever.
    let mut words = unsafe { entry::arguments(argc, argv) };
    let program = words.drain(..words.len().min(1)).next().unwrap_or_default();
    c_int::from(match words.first().is_some_and(|word| word == "init") {
        true => opm::init::init(&words[1..], &entry::begin_init(mask)),
        false => {
            entry::begin();
            enter(&program.to_string_lossy(), words, mask)
        }
    })
}

/// What waits for signals takes them from a descriptor, and holds them until it has one: a TERM in
/// between ends what is PID 1 neither by default nor by a handler.
fn enter(program: &str, words: Vec<OsString>, mask: Mask) -> u8 {
    let run = |is_pm2, words: &[OsString]| match opm::cli::run_options(is_pm2, words) {
        Ok(options) => opm::run::run(options),
        Err(code) => code,
    };
    let first: Vec<Option<&str>> = words.iter().take(4).map(|word| word.to_str()).collect();
    match first.as_slice() {
        _ if opm::cli::is_runtime(program, &words) => run(true, &words),
        [Some("daemon"), Some("start"), Some("--foreground")] => match opm::cli::home() {
            Ok(home) => opm::daemon::serve(&home, false),
            Err(code) => code,
        },
        [Some("run"), ..] => run(false, &words[1..]),
        others => {
            set_mask(mask);
            match others {
                // The one command that clap doesn't know.
                [Some("help"), Some("init"), ..] => opm::init::help(),
                [Some("daemon"), Some("self-check")] => opm::daemon::self_check(),
                _ => opm::cli::main(program, words),
            }
        }
    }
}

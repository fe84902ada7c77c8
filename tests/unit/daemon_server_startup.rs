//! Of `opm::daemon::server::startup`.
use opm::daemon::server::startup::*;
use opm::wire::PROTOCOL;

#[test]
fn only_what_understands_all_that_we_write_takes_over() {
    for (says, can) in [
        (format!("opm 0.1.0 protocol {PROTOCOL} {FORMAT}\n"), true),
        (format!("opm 9.0.0 protocol {} {FORMAT}\n", PROTOCOL + 1), true),
        (format!("opm 0.0.1 protocol {} {FORMAT}\n", PROTOCOL - 1), false),
        (format!("opm 0.0.1 {FORMAT}\n"), false),
        (format!("opm 0.1.0 protocol {PROTOCOL} journal 0\n"), false),
        (format!("omp 0.1.0 protocol {PROTOCOL} {FORMAT}\n"), false),
    ] {
        assert_eq!(can_take_over(&says), can, "{says}");
    }
}

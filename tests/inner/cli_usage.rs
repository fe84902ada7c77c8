//! Of `cli::usage`: compiled with the library, for it uses what is private there.
use super::*;

#[test]
fn a_slip_of_the_finger_finds_the_command() {
    for (slip, meant) in [("strat", "start"), ("lits", "list"), ("lgos", "logs")] {
        assert_eq!(nearest(slip), Some(meant));
    }
    assert_eq!(nearest("completely-else"), None);
}

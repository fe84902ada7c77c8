//! Exit codes of the command, and the codes of outcomes on the wire. See `opm(1)`.
pub const DONE: u8 = 0;
pub const FAILED: u8 = 1;
pub const USAGE: u8 = 2;
pub const NO_SUCH: u8 = 3;
pub const UNREACHABLE: u8 = 4;
pub const REFUSED: u8 = 5;
pub const TIMED_OUT: u8 = 6;

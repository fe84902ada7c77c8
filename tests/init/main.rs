//! `opm init` at the edges where inits differ, each also tried with tini and dumb-init.
//!
//! `cargo test --test init -- --nocapture` prints what each of them does. Only opm's answer is
//! asserted; who isn't installed shows as `missing`.
#![allow(clippy::unwrap_used, reason = "a test may fail by panic")]

mod codes;
mod left;
mod rig;
mod signals;
mod surroundings;
mod terminal;

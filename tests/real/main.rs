//! opm against the real kernel: each test in a PID namespace of its own, where it can count
//! every process, force a pid to be used again, and leave nothing behind.
//!
//! The claims are the names of the tests. None waits by sleeping: each polls a condition with a
//! deadline. Besides what it claims, every test ends with the same verdict: no two incarnations
//! of a service ever lived at once (the fixture's lock and the watcher of marks), no bystander
//! was signalled, no command of opm kept a descriptor open, no zombie stayed.
//!
//! `OPM_REAL_ROUNDS=500` makes the kill rounds long, `OPM_REAL_SEED=N` replays their order.
#![expect(
    clippy::unwrap_used,
    reason = "a test's way to fail; clippy exempts test functions only, not what they call"
)]

#[macro_use]
mod namespace;
mod adopt;
mod bytes;
mod commands;
mod cutoff;
mod death;
mod definition;
mod dump;
mod ends;
mod escapees;
mod files;
mod forged;
mod home;
mod hostile;
mod input;
mod instances;
mod law;
mod lead;
mod lines;
mod listen;
mod logs;
mod look;
mod many;
mod once;
mod options;
mod order;
mod policy;
mod privilege;
mod proc;
mod programs;
mod protocol;
mod ready;
mod restart;
mod rig;
mod scarce;
mod strange;
mod systemd;
mod trees;
mod upgrade;
mod watch;
mod who;
mod why;

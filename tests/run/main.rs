//! `opm run` as its users see it: on the plain kernel, and as PID 1 of a PID namespace.
//!
//! Needs root and `unshare`, `nsenter`, `flock` for the latter.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]
mod beside;
mod ends;
mod first;
mod output;
mod rig;
mod watch;

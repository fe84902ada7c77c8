//! `opm init` in real containers, made by runc.
//!
//! A throw-away overlay of this machine's own root is the root file system, so that no image is
//! needed; it lives in a mount namespace of its own and goes with it. Needs root and the package
//! `runc`. Containers of several services (`opm run`) have their own files beside this one.
#![allow(clippy::unwrap_used, reason = "a test may fail by panic")]

#[path = "../init/rig.rs"]
#[allow(dead_code, reason = "made for tests/init")]
mod rig;
mod several;
mod single;

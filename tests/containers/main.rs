//! `opm init` in real containers, made by runc.
//!
//! A throw-away overlay of this machine's own root is the root file system, so that no image is
//! needed; it lives in a mount namespace of its own and goes with it. Needs root and the package
//! `runc`. Containers of several services (`opm run`) have their own files beside this one. The
//! binary in them is the one of `make static`.
#![allow(clippy::unwrap_used, reason = "a test may fail by panic")]

mod engine;
#[path = "../init/rig.rs"]
#[allow(dead_code, reason = "made for tests/init")]
mod rig;
mod scratch;
mod several;
mod single;

use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The static binary: what `make static` says in its last line.
fn opm() -> &'static str {
    static PATH: OnceLock<String> = OnceLock::new();
    PATH.get_or_init(|| {
        let made = Command::new("make")
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["--no-print-directory", "static"])
            // Not a part of the make that may run these tests.
            .env_remove("MAKEFLAGS")
            .env_remove("MAKELEVEL")
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(made.status.success(), "make static");
        let said = String::from_utf8(made.stdout).unwrap();
        said.lines().last().unwrap().to_owned()
    })
}

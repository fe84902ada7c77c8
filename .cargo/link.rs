//! How the released binary is linked. Nothing is generated, and without this file only the
//! size differs: a tenth of the binary would be tables that nothing in it reads.
//!
//! Must never fail a build: what a system's linker or C library can't do is left out.
use std::env;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=.cargo/link.rs");
    println!("cargo:rerun-if-changed=.cargo/link.ld");
    println!("cargo:rerun-if-env-changed=OPM_PLAIN_LINK");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    let has = |name: &str, part: &str| env::var(name).is_ok_and(|found| found.contains(part));
    // The other profiles unwind, for the sake of tests, and so need what is left out here. A
    // static binary has start files of its own that look for the tables.
    let plain = env::var_os("OPM_PLAIN_LINK").is_some()
        || !is("PROFILE", "release")
        || !is("CARGO_CFG_TARGET_ENV", "gnu")
        || has("CARGO_CFG_TARGET_FEATURE", "crt-static")
        // Neither reads such a script.
        || has("CARGO_ENCODED_RUSTFLAGS", "mold")
        || has("CARGO_ENCODED_RUSTFLAGS", "gold");
    if plain {
        return;
    }
    let script = format!(
        "{}/.cargo/link.ld",
        env::var("CARGO_MANIFEST_DIR").unwrap_or_default()
    );
    println!("cargo:rustc-link-arg-bins=-Wl,--no-eh-frame-hdr");
    println!("cargo:rustc-link-arg-bins=-Wl,-T,{script}");
    if is("HOST", &env::var("TARGET").unwrap_or_default()) && loads_packed_relocations() {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// Whether the C library here is glibc 2.36 or newer: an older one refuses such a binary.
fn loads_packed_relocations() -> bool {
    let said = Command::new("getconf").arg("GNU_LIBC_VERSION").output();
    let said = said.map(|output| output.stdout).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let version = said.trim().strip_prefix("glibc 2.");
    version
        .and_then(|minor| minor.parse().ok())
        .is_some_and(|minor: u32| minor >= 36)
}

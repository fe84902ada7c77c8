//! How the released binary is linked. Nothing is generated, and without this file only the
//! size differs: a tenth of the binary would be tables that nothing in it reads.
//!
//! Must never fail a build: what a system's linker or C library can't do is left out.
use std::env;
use std::process::Command;

/// Of libgcc_s, for panics that unwind and for backtraces. Each becomes the C library's empty
/// `_init`, which returns 0: there is no frame.
const UNWINDER: [&str; 14] = [
    "Backtrace",
    "DeleteException",
    "FindEnclosingFunction",
    "GetCFA",
    "GetDataRelBase",
    "GetIP",
    "GetIPInfo",
    "GetLanguageSpecificData",
    "GetRegionStart",
    "GetTextRelBase",
    "RaiseException",
    "Resume",
    "SetGR",
    "SetIP",
];

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
    let script = format!("{}/.cargo/link.ld", env::var("CARGO_MANIFEST_DIR").unwrap_or_default());
    // With the tables goes the library that would walk them: it never finds anything in a binary
    // without, and to load it is a sixth of the start of a command. These are all that std wants
    // of it, so it isn't needed; where std wants more it is loaded as before.
    for name in UNWINDER {
        println!("cargo:rustc-link-arg-bins=-Wl,--defsym=_Unwind_{name}=_init");
    }
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
    version.and_then(|minor| minor.parse().ok()).is_some_and(|minor: u32| minor >= 36)
}

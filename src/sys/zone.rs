//! Time zones, as the C library knows them.
use std::ffi::OsString;
use std::path::Path;

unsafe extern "C" {
    fn tzset();
}

/// Where the zones' files are.
const ZONES: [&str; 2] = ["/usr/share/zoneinfo", "/etc/zoneinfo"];

/// Whether there is a zone of this name, or it says itself what it is (`CET-1CEST,M3.5.0,M10.5.0`).
pub fn is_known(zone: &str) -> bool {
    let name = zone.trim_start_matches(':');
    let is_rule = name.contains(|c: char| c.is_ascii_digit()) && !name.contains('/');
    is_rule
        || ["", "UTC"].contains(&name)
        || ZONES.iter().any(|it| Path::new(it).join(name).is_file())
}

/// Calls `ask` with what tells by how many seconds a zone is ahead of UTC at some Unix time; none
/// is this process's own zone.
pub fn with<T>(zone: Option<&str>, ask: impl FnOnce(&dyn Fn(i64) -> i64) -> T) -> T {
    let own = std::env::var_os("TZ");
    set(zone.map(Into::into).or_else(|| own.clone()));
    let answer = ask(&|at| {
        // SAFETY: a `tm` is numbers and a pointer, all of which may be 0.
        let mut local: libc::tm = unsafe { std::mem::zeroed() };
        // SAFETY: both are valid, and the C library keeps neither.
        unsafe { libc::localtime_r(&at, &mut local) };
        local.tm_gmtoff
    });
    set(own);
    answer
}

fn set(zone: Option<OsString>) {
    match zone {
        // SAFETY: the daemon has one thread, and nothing keeps what getenv(3) gave.
        Some(zone) => unsafe { std::env::set_var("TZ", zone) },
        // SAFETY: as above.
        None => unsafe { std::env::remove_var("TZ") },
    }
    // SAFETY: it has no arguments.
    unsafe { tzset() };
}

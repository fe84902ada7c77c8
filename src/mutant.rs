//! Wrong daemons on purpose, to see that the checkers catch them. Debug builds only.
//!
//! A mutant is a named mistake at the place where it could be made; `tests/model.rs` and
//! `tests/sim.rs` switch them on one at a time and fail if one survives.

#[cfg(debug_assertions)]
thread_local! {
    static MUTANT: std::cell::Cell<&'static str> = const { std::cell::Cell::new("") };
}

/// Whether the mistake `name` is to be made.
#[cfg(debug_assertions)]
pub fn mutant(name: &str) -> bool {
    MUTANT.get() == name
}

/// In release builds no mistake is made on purpose.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn mutant(_name: &str) -> bool {
    false
}

/// Makes this thread make the mistake `name` from now on; `""` makes none.
#[cfg(debug_assertions)]
pub fn set_mutant(name: &'static str) {
    MUTANT.set(name);
}
